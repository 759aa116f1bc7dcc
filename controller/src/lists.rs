//! Lists of prefixes in local files: countries, networks, VPN providers. A prefix a line; what stands behind `#` or `;` is a
//! comment.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use floodwall_engine::{command::Prefix, rule::diagnostic::Diagnostic};
pub(crate) use floodwall_wire::lists::Treatment;
use floodwall_wire::{Address, tables::LISTED_MAX};

use crate::configuration::parse_prefix;

/// Lists at most.
pub(crate) const LISTS_MAX: usize = 64;
/// Mistakes told of one file; whoever has more has the wrong file.
const MISTAKES_MAX: usize = 20;
/// No prefix takes more; a longer line is not one.
const LINE_BYTES_MAX: usize = 1_024;
/// Prefixes wider than these are a mistake more often than not.
const V4_BITS_MIN: u8 = 96 + 8;
const V6_BITS_MIN: u8 = 16;

/// One `[[list]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ListEntry {
    pub(crate) path: PathBuf,
    pub(crate) treatment: Treatment,
    /// Prefixes may be as wide as they like.
    pub(crate) wide: bool,
}

/// What a list says of a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Listed {
    pub(crate) treatment: Treatment,
    /// Which list says so.
    list: u8,
}

/// All lists, as read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lists {
    prefixes: BTreeMap<Prefix, Listed>,
    /// How many there are of each length.
    lengths: BTreeMap<u8, usize>,
    lists: Vec<List>,
}

/// One list, as read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct List {
    pub(crate) path: PathBuf,
    pub(crate) treatment: Treatment,
    pub(crate) prefixes: usize,
}

impl Lists {
    pub(crate) const fn new() -> Self {
        Self { prefixes: BTreeMap::new(), lengths: BTreeMap::new(), lists: Vec::new() }
    }

    /// Reads the files; all of them or none.
    ///
    /// # Errors
    /// Every mistake with its place, up to a few of each file.
    pub(crate) fn read(entries: &[ListEntry]) -> Result<Self, Vec<Diagnostic>> {
        let mut lists = Self::new();
        let mut mistakes = Vec::new();
        for (number, entry) in (0..).zip(entries) {
            let before = mistakes.len();
            let prefixes = lists.read_one(number, entry, &mut mistakes);
            mistakes.truncate(before + MISTAKES_MAX);
            lists.lists.push(List { path: entry.path.clone(), treatment: entry.treatment, prefixes });
        }
        if mistakes.is_empty() { Ok(lists) } else { Err(mistakes) }
    }

    fn read_one(&mut self, list: u8, entry: &ListEntry, mistakes: &mut Vec<Diagnostic>) -> usize {
        let mut report = |line, column, message, remedy: &str| {
            mistakes.push(Diagnostic {
                path: entry.path.display().to_string(),
                line,
                column,
                message,
                remedy: (!remedy.is_empty()).then(|| remedy.to_owned()),
            });
            mistakes.len()
        };
        let file = match File::open(&entry.path) {
            Ok(file) => file,
            Err(error) => {
                report(1, 1, format!("cannot be read: {error}"), "name a file with a prefix a line");
                return 0;
            }
        };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let (mut line, mut number, mut count, mut reported) = (Vec::new(), 0, 0, 0);
        while reported < MISTAKES_MAX {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            match std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    report(number + 1, 1, format!("cannot be read: {error}"), "");
                    break;
                }
            }
            number += 1;
            if line.len() > LINE_BYTES_MAX {
                report(
                    number,
                    1,
                    format!("the line is longer than {LINE_BYTES_MAX} bytes"),
                    "write a prefix a line",
                );
                break;
            }
            match read_line(&line, entry) {
                Ok(None) => {}
                Ok(Some(prefix)) => {
                    count += 1;
                    self.insert(prefix, Listed { treatment: entry.treatment, list });
                }
                Err(Mistake { column, message, remedy }) => {
                    reported += 1;
                    report(number, column, message, remedy);
                }
            }
            if self.prefixes.len() > LISTED_MAX as usize {
                let message = format!("all lists together have more than {LISTED_MAX} prefixes");
                report(number, 1, message, "leave out a list, or join neighbouring prefixes");
                break;
            }
        }
        count
    }

    /// Of one prefix on several lists the greatest treatment counts.
    fn insert(&mut self, prefix: Prefix, listed: Listed) {
        match self.prefixes.entry(prefix) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(listed);
                *self.lengths.entry(prefix.bits()).or_default() += 1;
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                if entry.get().treatment < listed.treatment {
                    entry.insert(listed);
                }
            }
        }
    }

    /// Prefixes and what is said of them, each after those it lies in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Prefix, Treatment)> {
        self.prefixes.iter().map(|(prefix, listed)| (*prefix, listed.treatment))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    pub(crate) fn treatment(&self, prefix: Prefix) -> Option<Treatment> {
        self.prefixes.get(&prefix).map(|listed| listed.treatment)
    }

    pub(crate) fn contains(&self, prefix: Prefix) -> bool {
        self.prefixes.contains_key(&prefix)
    }

    /// What there is to read, list by list.
    pub(crate) fn all(&self) -> &[List] {
        &self.lists
    }

    /// Where a treatment comes from.
    pub(crate) fn path(&self, listed: Listed) -> Option<&Path> {
        self.lists.get(usize::from(listed.list)).map(|list| list.path.as_path())
    }

    /// Those an address lies in that are no longer than `bits`, the shortest first. One look-up per length in use.
    pub(crate) fn around(&self, address: Address, bits: u8) -> impl Iterator<Item = (Prefix, Listed)> {
        self.lengths.range(..=bits).filter_map(move |(bits, _)| {
            let prefix = Prefix::new(address, *bits);
            self.prefixes.get(&prefix).map(|listed| (prefix, *listed))
        })
    }

    /// Those that lie in a prefix, itself among them.
    pub(crate) fn within(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> {
        self.prefixes
            .range(prefix..)
            .map(|(inner, _)| *inner)
            .take_while(move |inner| prefix.contains(inner.address()))
    }

    /// Prefixes of which the other lists say something else, or nothing.
    pub(crate) fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Prefix> + 'a {
        let differs = |prefix: &Prefix, listed: &Listed| {
            other.prefixes.get(prefix).is_none_or(|theirs| theirs.treatment != listed.treatment)
        };
        self.prefixes
            .iter()
            .filter(move |(prefix, listed)| differs(prefix, listed))
            .map(|(prefix, _)| *prefix)
    }
}

/// What is wrong with a line.
struct Mistake {
    column: usize,
    message: String,
    remedy: &'static str,
}

fn read_line(line: &[u8], entry: &ListEntry) -> Result<Option<Prefix>, Mistake> {
    let end = line.iter().position(|byte| matches!(byte, b'#' | b';')).unwrap_or(line.len());
    let before = line.get(..end).unwrap_or_default();
    let written = before.trim_ascii();
    if written.is_empty() {
        return Ok(None);
    }
    let column = before.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0) + 1;
    let mistake = |message, remedy| Err(Mistake { column, message, remedy });
    let shown = floodwall_engine::text::Text::from(&*String::from_utf8_lossy(written));
    let parsed = std::str::from_utf8(written).ok().and_then(parse_prefix);
    let Some((address, bits)) = parsed else {
        return mistake(
            format!("{shown} is no address or prefix"),
            "write a prefix a line, for example 192.0.2.0/24 or 2001:db8::/32; # begins a comment",
        );
    };
    let prefix = Prefix::new(address, u8::try_from(bits).unwrap_or(128));
    if !address.is_v4() && prefix.bits() > 64 && !prefix.is_host() {
        return mistake(
            format!("{prefix}: IPv6 prefixes longer than /64 are not kept apart"),
            "name a /64 or single addresses",
        );
    }
    let bits_min = if address.is_v4() { V4_BITS_MIN } else { V6_BITS_MIN };
    if prefix.bits() < bits_min && !entry.wide {
        return mistake(
            format!("{prefix} is very wide (IPv4 wider than /8, IPv6 wider than /16)"),
            "if it is meant, add wide = true to the [[list]]",
        );
    }
    let is_everybody = prefix.contains(Address::from_v4(0)) && prefix.bits() <= 96 || prefix.bits() == 0;
    if is_everybody && entry.treatment != Treatment::Allow {
        return mistake(format!("{prefix} is everybody"), "leave it out");
    }
    Ok(Some(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entry(text: &str, treatment: Treatment) -> (tempfile::NamedTempFile, ListEntry) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_owned();
        (file, ListEntry { path, treatment, wide: false })
    }

    #[test]
    fn prefixes_comments_and_empty_lines_are_read() {
        let text = "# VPN\n192.0.2.0/24 # one\n\n 2001:db8::/32\n198.51.100.7;x\r\n192.0.2.9/24\n";
        let (_file, entry) = entry(text, Treatment::Ban);
        let lists = Lists::read(&[entry]).unwrap();
        assert_eq!((lists.prefixes.len(), lists.all()[0].prefixes), (3, 4));
        let address = Address::from("192.0.2.77".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(lists.around(address, 128).count(), 1);
        assert_eq!(lists.around(address, 96 + 23).count(), 0);
    }

    #[test]
    fn every_mistake_has_its_place_and_a_remedy() {
        let text = "192.0.2.0/24\n  192.0.2.0/33\nhello \u{1b}[31m\n0.0.0.0/1\n2001:db8::/96\n0.0.0.0/0\n";
        let (_file, first) = entry(text, Treatment::Ban);
        let absent = ListEntry { path: "/nowhere/list".into(), treatment: Treatment::Allow, wide: false };
        let mistakes = Lists::read(&[first, absent]).unwrap_err();
        let places: Vec<(usize, usize)> = mistakes.iter().map(|found| (found.line, found.column)).collect();
        assert_eq!(places, [(2, 3), (3, 1), (4, 1), (5, 1), (6, 1), (1, 1)]);
        assert!(mistakes.iter().all(|found| found.remedy.is_some() && !found.message.contains('\u{1b}')));
        let (_file, endless) = entry(&"nonsense\n".repeat(100_000), Treatment::Ban);
        assert_eq!(Lists::read(&[endless]).unwrap_err().len(), MISTAKES_MAX);
        let (_file, wide) = entry("0.0.0.0/1\n", Treatment::Ban);
        assert!(Lists::read(&[ListEntry { wide: true, ..wide }]).is_ok());
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        let text: String =
            (0..=LISTED_MAX).map(|number| format!("{}\n", Address::from_v4(0x0b00_0000 + number))).collect();
        let (_file, entry) = entry(&text, Treatment::Ban);
        let mistakes = Lists::read(&[entry]).unwrap_err();
        assert_eq!((mistakes.len(), mistakes[0].line), (1, LISTED_MAX as usize + 1));
    }

    #[test]
    fn letting_in_is_greater_than_banning_and_that_than_limiting() {
        let (_one, banned) = entry("192.0.2.0/24\n198.51.100.0/24\n", Treatment::Ban);
        let (_two, allowed) = entry("192.0.2.0/24\n", Treatment::Allow);
        let (_three, limited) = entry("198.51.100.0/24\n203.0.113.0/24\n", Treatment::Limit);
        let lists = Lists::read(&[banned, allowed, limited]).unwrap();
        let treatment = |text: &str| {
            let address = Address::from(text.parse::<std::net::IpAddr>().unwrap());
            lists.around(address, 128).map(|(_, listed)| listed.treatment).max()
        };
        assert_eq!(treatment("192.0.2.1"), Some(Treatment::Allow));
        assert_eq!(treatment("198.51.100.1"), Some(Treatment::Ban));
        assert_eq!(treatment("203.0.113.1"), Some(Treatment::Limit));
        assert_eq!(treatment("203.0.114.1"), None);
    }
}
