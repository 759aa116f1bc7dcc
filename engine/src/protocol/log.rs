//! Reading server logs: what all formats share.
//!
//! A line is a claim of the server about itself, but much of what stands in it was chosen by a client: account names,
//! nicknames and messages may look like whole lines with other people's addresses (`protocols/teamtalk.md` e,
//! `irc.md` D). So a line is read from its beginning to its very end, field by field, quoted strings with their
//! escapes; a line that does not fit to the last byte is not understood and says nothing.

use std::net::IpAddr;

use floodwall_wire::Address;
use memchr::memchr3;

use super::{
    Protocol,
    irc::log::{Hybrid, Inspircd, Ngircd, Solanum, Unrealircd},
    teamspeak, teamtalk,
};
use crate::{
    signal::{Signal, SignalKind},
    text::{TEXT_BYTES_MAX, Text},
    time::{Span, Timestamp},
};

/// A log that is understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// TeamTalk 5 servers: `tt5srv.log`.
    TeamTalk,
    /// ircd-hybrid 8.2: `oper.log`, `user.log`, `ircd.log`.
    Hybrid,
    /// InspIRCd 3 and 4.
    Inspircd,
    /// ngIRCd in the foreground or through syslog.
    Ngircd,
    /// solanum and charybdis.
    Solanum,
    /// UnrealIRCd 6.
    Unrealircd,
    /// TeamSpeak 3.
    TeamSpeak,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] = [
        Self::TeamTalk,
        Self::Hybrid,
        Self::Inspircd,
        Self::Ngircd,
        Self::Solanum,
        Self::Unrealircd,
        Self::TeamSpeak,
    ];

    /// The name on command lines and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TeamTalk => "teamtalk",
            Self::Hybrid => "ircd-hybrid",
            Self::Inspircd => "inspircd",
            Self::Ngircd => "ngircd",
            Self::Solanum => "solanum",
            Self::Unrealircd => "unrealircd",
            Self::TeamSpeak => "teamspeak",
        }
    }

    /// Which services write it.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::TeamTalk => Protocol::TeamTalk,
            Self::Hybrid | Self::Inspircd | Self::Ngircd | Self::Solanum | Self::Unrealircd => Protocol::Irc,
            Self::TeamSpeak => Protocol::TeamSpeak,
        }
    }

    /// The time a line of this format begins with.
    pub fn time(self, line: &[u8]) -> Option<Timestamp> {
        match self {
            Self::TeamTalk => teamtalk::log::time(line),
            Self::Hybrid => Hybrid::time(line).map(|(at, _)| at),
            Self::Inspircd => Inspircd::time(line).map(|(at, _)| at),
            Self::Ngircd => Ngircd::text(line).map(|(at, _)| at),
            Self::Solanum => Solanum::time(line).map(|(at, _)| at),
            Self::Unrealircd => Unrealircd::event(line).map(|(at, ..)| at),
            Self::TeamSpeak => teamspeak::log::header(line).map(|(at, ..)| at),
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// Whose line this is, told by its time stamp and first words; `None` for one that may be anybody's.
    pub fn recognise(line: &[u8]) -> Option<Self> {
        if teamtalk::log::time(line).is_some() {
            return Some(Self::TeamTalk);
        }
        if teamspeak::log::header(line).is_some() {
            return Some(Self::TeamSpeak);
        }
        if Unrealircd::event(line).is_some() {
            return Some(Self::Unrealircd);
        }
        if Solanum::time(line).is_some() {
            return Some(Self::Solanum);
        }
        if Hybrid::time(line).is_some() {
            return Some(Self::Hybrid);
        }
        if Ngircd::text(line).is_some() {
            return Some(Self::Ngircd);
        }
        Inspircd::time(line).map(|_| Self::Inspircd)
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// Read to its end, whether or not it says something about a client.
    Understood,
    /// Not one of this server's lines, or cut off.
    Unknown,
}

/// The commonest lines, read by themselves: who did what, without names. Lines can be glanced at in any order and on any
/// thread; what a glance leaves out is read by [`LogReader::read_line`] where it matters, in the log's order. Small, because
/// it is handed from one core to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glance {
    /// When.
    pub at: Timestamp,
    /// From where; nobody's where the line does not say so.
    from: Address,
    /// What.
    pub kind: SignalKind,
    /// By whom: the server's number for the connection.
    pub number: u16,
    /// Where in the line the account stands that a login failed for, and its length there.
    account: (u16, u16),
    /// Whether it stands there as it is kept: most do.
    is_plain: bool,
}

/// An account that a login failed for, as it stands in a line.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct QuotedAccount<'a> {
    text: &'a [u8],
    is_plain: bool,
}

impl<'a> QuotedAccount<'a> {
    /// With its escapes.
    pub const fn as_it_stands(self) -> &'a [u8] {
        self.text
    }

    /// As it is kept, if that is how it stands there.
    pub fn plain(self) -> Option<&'a [u8]> {
        Some(self.text).filter(|_| self.is_plain)
    }

    /// As it is kept.
    pub fn unescaped(self) -> Text {
        teamtalk::log::unescaped(self.text)
    }
}

impl Glance {
    /// Something without an account; `None` from an address that nobody has.
    pub(super) fn new(at: Timestamp, kind: SignalKind, number: usize, from: Option<Address>) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        let from = from.unwrap_or_default();
        Some(Self { at, from, kind, number, account: (0, 0), is_plain: true })
    }

    /// With the account that stands before `rest` in a line, in quotes, and whether a backslash is in it.
    pub(super) fn with_account(
        self,
        line: &[u8],
        (account, has_escapes): (&[u8], bool),
        rest: &[u8],
    ) -> Option<Self> {
        let start = line.len().checked_sub(rest.len() + 1 + account.len())?;
        let account = (u16::try_from(start).ok()?, u16::try_from(account.len()).ok()?);
        let is_plain = usize::from(account.1) <= TEXT_BYTES_MAX && !has_escapes;
        Some(Self { account, is_plain, ..self })
    }

    /// From where, where the line says so.
    pub fn address(&self) -> Option<Address> {
        Some(self.from).filter(|from| *from != Address::default())
    }

    /// The account that a login failed for. `line` is the one that was glanced at.
    pub fn account<'a>(&self, line: &'a [u8]) -> Option<QuotedAccount<'a>> {
        let (start, length) = (usize::from(self.account.0), usize::from(self.account.1));
        let text = line.get(start..start + length)?;
        (self.kind == SignalKind::LoginFailed).then_some(QuotedAccount { text, is_plain: self.is_plain })
    }
}

/// Glances at lines. Its memory is an optimisation alone: most lines begin with the second of the line before, and most
/// addresses were read before.
#[derive(Debug)]
pub struct Scanner {
    format: Format,
    clock: teamtalk::log::Clock,
    addresses: Addresses,
}

impl Scanner {
    /// For logs of this format.
    pub fn new(format: Format) -> Self {
        Self { format, clock: teamtalk::log::Clock::default(), addresses: Addresses::new() }
    }

    /// What the line says that a text begins with, if it is one of the commonest and fits to its end, and its length without the
    /// line feed; `None` for one to be read in full. Where the line ends need not be known before: a line feed in it ends it.
    pub fn glance(&mut self, text: &[u8]) -> Option<(Glance, usize)> {
        match self.format {
            Format::TeamTalk => teamtalk::log::glance(&mut self.clock, &mut self.addresses, text),
            // Few lines, most with names that rules ask for: read in full at once.
            Format::Hybrid
            | Format::Inspircd
            | Format::Ngircd
            | Format::Solanum
            | Format::Unrealircd
            | Format::TeamSpeak => None,
        }
    }
}

/// Addresses that were read before, by their text, one at each place.
#[derive(Debug)]
pub(super) struct Addresses(Vec<(AddressText, Address)>);

/// The text of an address with fifteen bytes at most, and its length in the last of sixteen.
type AddressText = (u64, u64);

impl Addresses {
    const PLACES: usize = 1 << 8;
    /// The length of no text.
    const NONE: AddressText = (u64::MAX, u64::MAX);

    fn new() -> Self {
        Self(vec![(Self::NONE, Address::default()); Self::PLACES])
    }

    /// Reads an address up to the next blank, as [`Cursor::address`] does.
    #[inline]
    pub(super) fn read(&mut self, text: &mut Cursor<'_>) -> Option<Address> {
        let Some((key, length)) = Self::key(text.0) else { return text.address() };
        // Spread over the places by what differs: the lowest bits of a product depend on the lowest alone.
        let place = (key.0 ^ key.1.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let (known, address) = self.0.get_mut(place as usize)?;
        if *known == key {
            text.0 = text.0.get(length..)?;
            return Some(*address);
        }
        let read = text.address()?;
        (*known, *address) = (key, read);
        Some(read)
    }

    /// What stands before a blank that is among the first sixteen bytes.
    #[inline]
    fn key(text: &[u8]) -> Option<(AddressText, usize)> {
        let word = |from: usize| Some(u64::from_le_bytes(*text.get(from..)?.first_chunk()?));
        let (low, high) = (word(0)?, word(8)?);
        let blanks = |word: u64| zero_bytes(word ^ repeated(b' '));
        let below = |mark: u64| (mark & mark.wrapping_neg()) - 1;
        let bytes = |mark: u64| mark.trailing_zeros() as usize / 8;
        let (low_mark, high_mark) = (blanks(low), blanks(high));
        let (low, high, length) = match (low_mark, high_mark) {
            (0, 0) => return None,
            // Of the byte with the mark, which is a blank, seven bits lie below the mark.
            (0, mark) => (low, high & below(mark) >> 7, 8 + bytes(mark)),
            (mark, _) => (low & below(mark) >> 7, 0, bytes(mark)),
        };
        Some(((low, high | (length as u64) << 56), length))
    }
}

/// Who did what a glance has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Actor {
    /// From where.
    pub address: Address,
    /// Whether the deed concerns nobody but the rules: it neither begins nor ends a session that somebody logged in on.
    pub is_plain: bool,
}

/// One log, read line by line; memory is bounded by the number of connections a server can have.
#[derive(Debug)]
pub enum LogReader {
    /// TeamTalk.
    TeamTalk(Box<teamtalk::log::LogReader>),
    /// ircd-hybrid.
    Hybrid(Hybrid),
    /// InspIRCd.
    Inspircd(Inspircd),
    /// ngIRCd.
    Ngircd(Ngircd),
    /// solanum.
    Solanum(Solanum),
    /// UnrealIRCd.
    Unrealircd(Unrealircd),
    /// TeamSpeak 3.
    TeamSpeak(teamspeak::log::LogReader),
}

impl LogReader {
    /// A log of this format that nothing was read of. Signals carry the number of the service they belong to; `seed`
    /// keys the hashes of messages.
    pub fn new(format: Format, service: u8, seed: u64) -> Self {
        match format {
            Format::TeamTalk => Self::TeamTalk(Box::new(teamtalk::log::LogReader::new(service, seed))),
            Format::Hybrid => Self::Hybrid(Hybrid::new(service)),
            Format::Inspircd => Self::Inspircd(Inspircd::new(service)),
            Format::Ngircd => Self::Ngircd(Ngircd::new(service)),
            Format::Solanum => Self::Solanum(Solanum::new(service)),
            Format::Unrealircd => Self::Unrealircd(Unrealircd::new(service)),
            Format::TeamSpeak => Self::TeamSpeak(teamspeak::log::LogReader::new(service)),
        }
    }

    /// Reads one line, without its end, and adds what happened. The time is that of the line, or of the one before it;
    /// logs are in local time, which is taken for UTC where they do not say otherwise.
    pub fn read_line(&mut self, line: &[u8], signals: &mut Vec<Signal>) -> (Reading, Timestamp) {
        match self {
            Self::TeamTalk(reader) => reader.read_line(line, signals),
            Self::Hybrid(reader) => reader.read_line(line, signals),
            Self::Inspircd(reader) => reader.read_line(line, signals),
            Self::Ngircd(reader) => reader.read_line(line, signals),
            Self::Solanum(reader) => reader.read_line(line, signals),
            Self::Unrealircd(reader) => reader.read_line(line, signals),
            Self::TeamSpeak(reader) => reader.read_line(line, signals),
        }
    }

    /// Who did what was glanced at; `None` when it is not known, and then the line says nothing.
    pub fn actor(&self, glance: &Glance) -> Option<Actor> {
        match self {
            Self::TeamTalk(reader) => reader.actor(glance),
            Self::Hybrid(_)
            | Self::Inspircd(_)
            | Self::Ngircd(_)
            | Self::Solanum(_)
            | Self::Unrealircd(_)
            | Self::TeamSpeak(_) => None,
        }
    }

    /// Reads a line that was glanced at and has nothing more to it: adds what happened, as [`read_line`](Self::read_line) would.
    /// `false` where the line is to be read.
    pub fn read_glance(&mut self, glance: &Glance, signals: &mut Vec<Signal>) -> bool {
        match self {
            Self::TeamTalk(reader) => reader.read_glance(glance, signals),
            Self::Hybrid(_)
            | Self::Inspircd(_)
            | Self::Ngircd(_)
            | Self::Solanum(_)
            | Self::Unrealircd(_)
            | Self::TeamSpeak(_) => false,
        }
    }

    /// Takes note of a line without reading its names: what [`read_line`](Self::read_line) would remember of it, and no signal.
    pub fn pass(&mut self, glance: &Glance) {
        match self {
            Self::TeamTalk(reader) => reader.pass(glance),
            Self::Hybrid(_)
            | Self::Inspircd(_)
            | Self::Ngircd(_)
            | Self::Solanum(_)
            | Self::Unrealircd(_)
            | Self::TeamSpeak(_) => {}
        }
    }
}

/// What is left to be read of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// Skips these bytes if they come next.
    #[inline]
    pub(super) fn eat(&mut self, text: &[u8]) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Skips these bytes, which must come next.
    #[inline]
    pub(super) fn expect(&mut self, text: &[u8]) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// Whether nothing is left.
    pub(super) const fn is_at_end(self) -> bool {
        self.0.is_empty()
    }

    /// A decimal number.
    #[inline]
    pub(super) fn number(&mut self) -> Option<u64> {
        let (mut number, mut digits) = (0_u64, 0);
        while let Some(digit) =
            self.0.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
        {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
        }
        // Nineteen digits fit, so what wrapped is refused.
        self.0 = self.0.get(digits..).filter(|_| (1..=19).contains(&digits))?;
        Some(number)
    }

    /// Everything up to a byte, which is skipped too.
    pub(super) fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = memchr::memchr(end, self.0)?;
        let (text, rest) = self.0.split_at_checked(at)?;
        self.0 = rest.get(1..)?;
        Some(text)
    }

    /// A string in quotes, as it stands there; a backslash keeps the next byte from ending it, and no line feed is in it.
    pub(super) fn quoted(&mut self) -> Option<&'a [u8]> {
        self.quoted_with_escapes().map(|(text, _)| text)
    }

    /// The same, and whether a backslash is in it.
    #[inline]
    pub(super) fn quoted_with_escapes(&mut self) -> Option<(&'a [u8], bool)> {
        let text = self.0.strip_prefix(b"\"")?;
        // Most names are this short.
        if let Some(word) = text.first_chunk::<8>() {
            let found = marks(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
            if let Some((name, [b'"', rest @ ..])) = text.split_at_checked(found) {
                self.0 = rest;
                return Some((name, false));
            }
        }
        self.long_quoted(text)
    }

    /// A text whose first quote stands before it, up to the one that ends it.
    fn long_quoted(&mut self, text: &'a [u8]) -> Option<(&'a [u8], bool)> {
        let mut at = 0;
        loop {
            let found = at + find_mark(text.get(at..)?)?;
            match text.get(found..)? {
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some((text.get(..found)?, at > 0));
                }
                [b'\\', b'\n', ..] | [b'\n', ..] => return None,
                _ => at = found + 2,
            }
        }
    }

    /// The length of a text that ends here with its line, without the line feed: `None` where more of the line follows.
    #[inline]
    pub(super) const fn line_of(self, text: &[u8]) -> Option<usize> {
        match self.0 {
            [] | [b'\n', ..] => Some(text.len() - self.0.len()),
            [b'\r'] | [b'\r', b'\n', ..] => Some(text.len() - self.0.len() + 1),
            _ => None,
        }
    }

    /// An address up to the next blank, or to the end.
    pub(super) fn address(&mut self) -> Option<Address> {
        if let Some((bits, length)) = dotted(self.0)
            && let Some(rest @ ([b' ', ..] | [])) = self.0.get(length..)
        {
            self.0 = rest;
            return Some(Address::from_v4(bits)).filter(|address| is_somebody(*address));
        }
        let end = memchr::memchr(b' ', self.0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at_checked(end)?;
        let address = address(text)?;
        self.0 = rest;
        Some(address)
    }
}

/// An address as text; at most as long as one can be.
pub(super) fn address(text: &[u8]) -> Option<Address> {
    const LONGEST: usize = 45;
    if let Some((bits, length)) = dotted(text)
        && length == text.len()
    {
        return Some(Address::from_v4(bits)).filter(|address| is_somebody(*address));
    }
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LONGEST)?;
    text.parse::<IpAddr>().ok().map(Address::from).filter(|address| is_somebody(*address))
}

/// Whether anybody can have that address: not none, all, or a group's.
fn is_somebody(address: Address) -> bool {
    match address.as_v4() {
        Some(bits) => (1..0xe000_0000).contains(&bits),
        None => (address.high, address.low) != (0, 0) && address.high >> 56 != 0xff,
    }
}

/// The first quote, backslash or line feed. Most names end within sixteen bytes, which are looked at eight at a time: a vector search
/// takes longer to begin than that.
#[inline]
fn find_mark(text: &[u8]) -> Option<usize> {
    const SHORT: usize = 16;
    let mut at = 0;
    while at < SHORT {
        let Some(word) =
            text.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u64::from_le_bytes(*word))
        else {
            break;
        };
        let found = marks(word);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr3(b'"', b'\\', b'\n', text.get(at..)?).map(|found| at + found)
}

/// Where the first quote, backslash or line feed stands among eight bytes: the lowest bit that is set is the highest of its byte.
/// What lies above may be found wrongly.
const fn marks(word: u64) -> u64 {
    zero_bytes(word ^ repeated(b'"'))
        | zero_bytes(word ^ repeated(b'\\'))
        | zero_bytes(word ^ repeated(b'\n'))
}

/// A byte in all eight places of a word.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The highest bit of each byte that is zero; exact up to the first of them (Warren, Hacker's Delight, 6-1).
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(1)) & !word & repeated(0x80)
}

/// The commonest form, `10.77.0.66`, at the beginning of a text, and its length: several times as fast as the general one, to
/// which `None` leaves the judgement.
fn dotted(text: &[u8]) -> Option<(u32, usize)> {
    // The longest has fifteen bytes, and four are read at each place up to the thirteenth.
    let padded;
    let bytes = match text.first_chunk::<16>() {
        Some(bytes) => bytes,
        None => {
            let mut room = [0; 16];
            room.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            padded = room;
            &padded
        }
    };
    let (mut bits, mut length) = (0, 0);
    for place in 0..4 {
        // One load and one check for all three digits and what follows them.
        let window = bytes.get(length..length + 4)?.first_chunk()?;
        let [first, second, third, fourth] =
            u32::from_le_bytes(*window).to_le_bytes().map(|byte| byte ^ b'0');
        let (part, digits, next) = match (first, second, third) {
            (10.., _, _) => return None,
            (_, 10.., _) => (u32::from(first), 1, second),
            // Leading zeros have meant octal to some.
            (0, ..) => return None,
            (_, _, 10..) => (u32::from(first) * 10 + u32::from(second), 2, third),
            _ => (u32::from(first) * 100 + u32::from(second) * 10 + u32::from(third), 3, fourth),
        };
        if part > 255 {
            return None;
        }
        bits = bits << 8 | part;
        length += digits;
        if place == 3 {
            // A fourth digit is no part's.
            return (next > 9).then_some((bits, length));
        }
        if next != b'.' ^ b'0' {
            return None;
        }
        length += 1;
    }
    None
}

/// Six digits, the first in the lowest byte of eight; the two highest bytes do not count.
#[inline]
pub(super) const fn six_digits(word: u64) -> Option<u64> {
    // As the last six of eight: sums of two, four and eight digits at a time, in one word.
    let digits = word << 16 | 0x3030;
    let is_high_right = digits & repeated(0xf0) == repeated(0x30);
    let is_low_right = digits.wrapping_add(repeated(6)) & repeated(0xf0) == repeated(0x30);
    if !is_high_right || !is_low_right {
        return None;
    }
    let ones = digits & repeated(0x0f);
    let pairs = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// A date and a time of day as an instant, UTC; `None` for what no calendar has, or before 1970.
pub(super) fn instant(date: (u64, u64, u64), time: (u64, u64, u64), micros: u64) -> Option<Timestamp> {
    let ((year, month, day), (hour, minute, second)) = (date, time);
    // Nanoseconds since 1970 fit until 2554.
    let sane = (1970..=2500).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is the second after it.
    if !sane || hour > 23 || minute > 59 || second > 60 || micros > 999_999 {
        return None;
    }
    // Days since 1970, with years that begin in March, so that a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let seconds = ((days.checked_sub(719_468)? * 24 + hour) * 60 + minute) * 60 + second;
    Some(Timestamp::from_secs(seconds) + Span::from_nanos(micros * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_are_those_of_the_calendar() {
        let seconds = |date, time| instant(date, time, 0).map(|at| at.as_nanos() / 1_000_000_000);
        assert_eq!(seconds((1970, 1, 1), (0, 0, 0)), Some(0));
        assert_eq!(seconds((2000, 2, 29), (12, 0, 0)), Some(951_825_600));
        assert_eq!(seconds((2026, 11, 21), (6, 13, 19)), Some(1_795_241_599));
        assert_eq!(seconds((2026, 13, 1), (0, 0, 0)), None);
        assert_eq!(seconds((2026, 1, 1), (24, 0, 0)), None);
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for text in [
            "0.0.0.0",
            "10.77.0.66",
            "255.255.255.255",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.04",
            "1..2.3",
            "1.2.3.",
            ".1.2.3",
            "1.2.3.4 ",
            "1.2.3.4x",
            "0001.2.3.4",
            "::1",
            "fd77::1",
            "::ffff:1.2.3.4",
            "",
            "1.2.3.999",
        ] {
            let expected =
                text.parse::<IpAddr>().ok().map(Address::from).filter(|address| is_somebody(*address));
            assert_eq!(address(text.as_bytes()), expected, "{text:?}");
        }
        let mut text = Cursor(b"10.0.0.1 and more");
        assert_eq!((text.address(), text.0), (address(b"10.0.0.1"), &b" and more"[..]));
        assert_eq!(Cursor(b"10.0.0.1. and more").address(), None);
    }

    #[test]
    fn six_digits_are_those_of_the_standard_library() {
        for text in ["000000", "743213", "999999", "000001", "100000", "12345:", "1234/6", " 23456", "1e3456"]
        {
            let mut word = [b'x'; 8];
            word[..6].copy_from_slice(text.as_bytes());
            assert_eq!(six_digits(u64::from_le_bytes(word)), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_fit() {
        let number = |text: &'static str| Cursor(text.as_bytes()).number();
        assert_eq!(number("17x"), Some(17));
        assert_eq!(number("9999999999999999999"), Some(9_999_999_999_999_999_999));
        assert_eq!(number("99999999999999999999"), None);
        assert_eq!(number("x"), None);
        assert_eq!(number(""), None);
    }

    #[test]
    fn formats_are_told_by_their_first_words() {
        for (line, format) in [
            ("2026-11-21 06:13:19.743213 User #1 TCP address: 10.0.0.1 connected.", Some(Format::TeamTalk)),
            ("[2026-11-21T05:51:28+0000] OPER boss by dave[~dave@10.78.0.23]", Some(Format::Hybrid)),
            ("[9848:5    0] Server \"x\" ready.", Some(Format::Ngircd)),
            ("Sat Nov 21 2026 06:15:12 QUIT: Client exiting: a!a@h (10.0.0.1) [x]", Some(Format::Inspircd)),
            ("2026/11/21 06.15 OPER boss by dave!~dave@10.78.0.23 (10.78.0.23)", Some(Format::Solanum)),
            ("[2026-11-21 06:15:12 GMT] tkl.TKL_ADD info: x", Some(Format::Unrealircd)),
            (
                "2026-11-21 06:15:12.000000|INFO    |Query         |   |listening on 0.0.0.0:10011",
                Some(Format::TeamSpeak),
            ),
            ("hello", None),
            ("", None),
        ] {
            assert_eq!(Format::recognise(line.as_bytes()), format, "{line}");
        }
    }

    /// Of whom a line is passed over, others' lines say the same.
    #[test]
    fn lines_that_are_passed_over_are_remembered_as_if_they_were_read() {
        let lines = [
            r#"2026-11-21 06:13:19.000001 User #1 TCP address: 10.0.0.1 connected."#,
            r#"2026-11-21 06:13:19.000002 User #2 TCP address: 10.0.0.2 connected."#,
            r#"2026-11-21 06:13:19.000003 User #1 nickname: "a" username: "x" joined channel: "/"."#,
            r#"2026-11-21 06:13:20.000000 User #3 failed to authenticate for account "a\"b" IP address: 10.0.0.3 UDP address: :::0."#,
            r#"2026-11-21 06:13:21.000000 User message from #2 nickname: "b" username: "y" to #1 nickname: "a" username: "x" content: "hello"."#,
            r#"2026-11-21 06:13:22.000000 User #3 failed to authenticate for account "c" IP address: 10.0.0.3 UDP address: :::0."#,
            r#"2026-11-21 06:13:23.000000 User #1 nickname: "a" username: "x" disconnected."#,
        ];
        for passed in 0..lines.len() {
            let [mut plain, mut fast] = [(); 2].map(|()| LogReader::new(Format::TeamTalk, 0, 1));
            let mut scanner = Scanner::new(Format::TeamTalk);
            for (at, line) in lines.iter().enumerate() {
                let text = format!("{line}\r\nmore");
                let (glance, length) = scanner.glance(text.as_bytes()).unwrap();
                assert_eq!(length, line.len() + 1, "{line}");
                assert_eq!(plain.actor(&glance), fast.actor(&glance), "{line}");
                let (mut expected, mut found) = (Vec::new(), Vec::new());
                plain.read_line(line.as_bytes(), &mut expected);
                let said = expected.first().unwrap();
                assert_eq!(glance.kind, said.kind, "{line}");
                let account = glance.account(line.as_bytes()).map(QuotedAccount::unescaped);
                let failed = said.detail.account.clone().filter(|_| said.kind == SignalKind::LoginFailed);
                assert_eq!(account, failed, "{line}");
                if at == passed {
                    fast.pass(&glance);
                    continue;
                }
                fast.read_line(line.as_bytes(), &mut found);
                assert_eq!(found, expected, "line {passed} passed over: {line}");
            }
        }
    }

    proptest! {
        #[test]
        fn addresses_are_the_same_when_read_before(texts in prop::collection::vec(
            prop_oneof!["([0-9]{1,3}\\.){3}[0-9]{1,3} ", "[0-9a-f:.\0\n]{0,17} x?", "fd77:[0-9]::[0-9] connected", "1.2.3.4\0{0,2} "],
            1..40,
        )) {
            let mut addresses = Addresses::new();
            for text in texts.iter().chain(&texts) {
                let padded = format!("{text} and what follows");
                for text in [text, &padded] {
                    let (mut one, mut other) = (Cursor(text.as_bytes()), Cursor(text.as_bytes()));
                    prop_assert_eq!(addresses.read(&mut one), other.address());
                    prop_assert_eq!(one.0, other.0);
                }
            }
        }

        #[test]
        fn marks_are_found_where_they_stand(text in prop::collection::vec(prop::sample::select(b"ab\\\"\n\xa2\xdc#]!\x0b".to_vec()), 0..40)) {
            prop_assert_eq!(find_mark(&text), text.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n')));
        }

        #[test]
        fn dotted_addresses_are_those_of_the_standard_library(text in "[0-9.]{1,18}|([0-9]{1,3}\\.){3}[0-9]{1,4}") {
            let expected = text.parse::<IpAddr>().ok().map(Address::from).filter(|address| is_somebody(*address));
            prop_assert_eq!(address(text.as_bytes()), expected);
            let followed = format!("{text} x");
            prop_assert_eq!(Cursor(followed.as_bytes()).address(), expected);
        }

        #[test]
        fn no_line_whatever_is_too_much(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            for format in Format::ALL {
                let mut reader = LogReader::new(format, 0, 1);
                let mut signals = Vec::new();
                for line in &lines {
                    reader.read_line(line, &mut signals);
                }
            }
        }
    }
}
