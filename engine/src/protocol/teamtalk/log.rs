//! The log of a TeamTalk 5 server (`protocols/teamtalk.md` e).
//!
//! Most lines name a user id and no address: the `connected.` line ties the two. Ids are reused.

use floodwall_wire::Address;

use super::super::{
    GREETED_WITHIN, GREETING, hash_content,
    log::{Actor, Addresses, Cursor, Glance, Reading, instant, six_digits},
};
use crate::{
    signal::{Detail, FlowId, Method, Signal, SignalKind},
    text::Text,
    time::{Span, Timestamp},
};

/// Ids run from 1 to 0xffe (a.4).
const IDS: usize = 0x1000;
/// Length of `2026-11-21 06:13:19.743213 `.
const STAMP_BYTES: usize = 27;

/// The time a line begins with.
pub(in crate::protocol) fn time(line: &[u8]) -> Option<Timestamp> {
    let stamp = line.first_chunk::<STAMP_BYTES>()?;
    let number = |from: usize, length: usize| {
        stamp
            .get(from..from + length)?
            .iter()
            .try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':'), (19, b'.'), (26, b' ')];
    if marks.iter().any(|(at, mark)| stamp.get(*at) != Some(mark)) {
        return None;
    }
    let date = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    instant(date, (number(11, 2)?, number(14, 2)?, number(17, 2)?), number(20, 6)?)
}

/// Reads times; most lines begin with the second of the line before.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Clock {
    /// The bytes of a stamp before the fraction of the second.
    second: [u64; 3],
    at: Option<Timestamp>,
}

impl Clock {
    #[inline]
    fn time(&mut self, line: &[u8]) -> Option<Timestamp> {
        let stamp = line.first_chunk::<STAMP_BYTES>()?;
        let word = |from: usize| Some(u64::from_le_bytes(*stamp.get(from..)?.first_chunk()?));
        // Nineteen bytes in three words, the last two of which overlap.
        let second = [word(0)?, word(8)?, word(11)?];
        match self.at {
            Some(at) if second == self.second => {
                let fraction = word(19)?;
                let [b'.', .., b' '] = fraction.to_le_bytes() else { return None };
                Some(at + Span::from_nanos(six_digits(fraction >> 8)? * 1_000))
            }
            _ => {
                let at = time(line)?;
                self.second = second;
                self.at = Some(Timestamp::from_nanos(at.as_nanos() - at.as_nanos() % 1_000_000_000));
                Some(at)
            }
        }
    }
}

/// Connections, failed and refused logins, messages, channels entered and left, connections closed.
#[inline]
pub(in crate::protocol) fn glance(
    clock: &mut Clock,
    addresses: &mut Addresses,
    line: &[u8],
) -> Option<(Glance, usize)> {
    let at = clock.time(line)?;
    let mut text = Cursor(line.get(STAMP_BYTES..)?);
    let glance = |text: Cursor<'_>, kind, id, address| {
        let length = text.line_of(line)?;
        Some((Glance::new(at, kind, id, address)?, length))
    };
    if text.eat(b"User #") {
        let id = id(&mut text)?;
        if text.eat(b" failed to authenticate for account ") {
            let account = text.quoted_with_escapes()?;
            let rest = text.0;
            let address = read_addresses(&mut text, |text| addresses.read(text))?;
            text.expect(b".")?;
            let (glance, length) = glance(text, SignalKind::LoginFailed, id, Some(address))?;
            return Some((glance.with_account(line, account, rest)?, length));
        }
        if text.eat(b" TCP address: ") {
            let address = addresses.read(&mut text)?;
            text.expect(b" connected.")?;
            return glance(text, SignalKind::ConnectionOpened, id, Some(address));
        }
        text.expect(b" ")?;
        read_names(&mut text)?;
        if text.eat(b"disconnected.") {
            return glance(text, SignalKind::ConnectionClosed, id, None);
        }
        if text.0.starts_with(b"IP address: ") {
            let address = read_addresses(&mut text, |text| addresses.read(text))?;
            text.expect(b" denied login due to banned IP-address.")?;
            return glance(text, SignalKind::LoginRefused, id, Some(address));
        }
        let kind = if text.eat(b"joined channel: ") {
            SignalKind::ChannelJoined
        } else {
            text.expect(b"left channel: ")?;
            SignalKind::ChannelLeft
        };
        text.quoted()?;
        text.expect(b".")?;
        return glance(text, kind, id, None);
    }
    if text.eat(b"Channel message from #") {
        let id = read_who(&mut text)?;
        text.expect(b"to channel: ")?;
        text.quoted()?;
        read_content(&mut text)?;
        text.expect(b".")?;
        return glance(text, SignalKind::MessageChannel, id, None);
    }
    text.expect(b"User message from #")?;
    let id = read_who(&mut text)?;
    text.expect(b"to #")?;
    text.number()?;
    text.expect(b" ")?;
    read_names(&mut text)?;
    read_content(&mut text)?;
    text.expect(b".")?;
    glance(text, SignalKind::MessagePrivate, id, None)
}

/// Somebody connected.
#[derive(Clone, Debug)]
struct User {
    address: Address,
    flow: FlowId,
    nickname: Option<Text>,
    account: Option<Text>,
    is_logged_in: bool,
    /// When it last logged in or joined a channel.
    came_at: Option<Timestamp>,
    /// Now or before.
    has_logged_in: bool,
}

impl User {
    const fn new(address: Address, flow: FlowId) -> Self {
        Self {
            address,
            flow,
            nickname: None,
            account: None,
            is_logged_in: false,
            came_at: None,
            has_logged_in: false,
        }
    }
}

/// Reads a log from its beginning, or from anywhere: who was connected before is not known, and their lines name
/// nobody.
#[derive(Debug)]
pub struct LogReader {
    service: u8,
    seed: u64,
    users: Vec<Option<User>>,
    connections: u64,
    last: Timestamp,
    clock: Clock,
}

impl LogReader {
    pub(in crate::protocol) fn new(service: u8, seed: u64) -> Self {
        Self {
            service,
            seed,
            users: vec![None; IDS],
            connections: 0,
            last: Timestamp::EPOCH,
            clock: Clock::default(),
        }
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(at) = self.clock.time(line) else {
            // Written without a time when handles run out, and after a failed assertion.
            let known = line.is_empty() || line.starts_with(b"unable to register client handler: ");
            return (if known { Reading::Understood } else { Reading::Unknown }, self.last);
        };
        self.last = at;
        let text = Cursor(line.get(STAMP_BYTES..).unwrap_or_default());
        let reading = match self.read(text, at, signals) {
            Some(()) => Reading::Understood,
            None => Reading::Unknown,
        };
        (reading, at)
    }

    fn read(&mut self, mut text: Cursor<'_>, at: Timestamp, signals: &mut Vec<Signal>) -> Option<()> {
        if text.eat(b"User #") {
            return self.read_user(text, at, signals);
        }
        if text.eat(b"Channel message from #") {
            let id = read_who(&mut text)?;
            text.expect(b"to channel: ")?;
            let channel = text.quoted()?;
            let content = content(text)?;
            let detail = Detail { channel: Some(unescaped(channel)), ..self.talk(id, content) };
            return self.signal(id, SignalKind::MessageChannel, at, detail, signals);
        }
        if text.eat(b"User message from #") {
            let id = read_who(&mut text)?;
            text.expect(b"to #")?;
            let whom = usize::try_from(text.number()?).ok()?;
            text.expect(b" ")?;
            let target = read_names(&mut text)?.0;
            let content = content(text)?;
            let came_at = self.users.get(whom).and_then(Option::as_ref).and_then(|user| user.came_at);
            let is_greeting = came_at.is_some_and(|came| at.since(came) <= GREETED_WITHIN);
            let mut detail = Detail { target: Some(unescaped(target)), ..self.talk(id, content) };
            if is_greeting {
                detail.reason = Some(GREETING);
            }
            return self.signal(id, SignalKind::MessagePrivate, at, detail, signals);
        }
        if text.eat(b"Broadcast message from #") {
            let id = id(&mut text)?;
            text.expect(b" ")?;
            let content = content(text)?;
            return self.signal(id, SignalKind::MessageBroadcast, at, self.talk(id, content), signals);
        }
        if text.eat(b"Channel #") {
            return self.read_channel(text, at, signals);
        }
        if text.eat(b"Server properties updated by user #") {
            let id = id(&mut text)?;
            text.expect(b" ")?;
            read_names_at_end(&mut text).filter(|_| text.is_at_end() || text.0 == b".")?;
            return self.signal(id, SignalKind::ServerChanged, at, self.own_names(id), signals);
        }
        // What the server says of itself.
        let own: [&[u8]; 6] = [
            b"Started ",
            b"Stopped ",
            b"Data transferred - ",
            b"Failed assertion ",
            b"Server configuration saved",
            b"New ",
        ];
        own.iter().any(|start| text.0.starts_with(start)).then_some(())
    }

    pub(in crate::protocol) fn actor(&self, glance: &Glance) -> Option<Actor> {
        let user = self.users.get(usize::from(glance.number)).and_then(Option::as_ref);
        match glance.address() {
            // What the line itself says holds; who was there before under this number has gone unseen.
            Some(address) => Some(Actor { address, is_plain: true }),
            None => user.map(|user| Actor {
                address: user.address,
                is_plain: glance.kind != SignalKind::ConnectionClosed || !user.has_logged_in,
            }),
        }
    }

    /// Most of what is said of those who are not banned: they come and go.
    pub(in crate::protocol) fn read_glance(&mut self, glance: &Glance, signals: &mut Vec<Signal>) -> bool {
        let (id, at) = (usize::from(glance.number), glance.at);
        let read = match (glance.kind, glance.address()) {
            (SignalKind::ConnectionOpened, Some(address)) => {
                self.open(id, address);
                self.signal(id, SignalKind::ConnectionOpened, at, Detail::default(), signals)
            }
            (SignalKind::ConnectionClosed, _) => self.leave(id, at, signals),
            _ => None,
        };
        if read.is_some() {
            self.last = at;
        }
        read.is_some()
    }

    pub(in crate::protocol) fn pass(&mut self, glance: &Glance) {
        self.last = glance.at;
        let id = usize::from(glance.number);
        match (glance.kind, glance.address()) {
            (SignalKind::ConnectionOpened, Some(address)) => self.open(id, address),
            (SignalKind::ConnectionClosed, _) => {
                if let Some(slot) = self.users.get_mut(id) {
                    *slot = None;
                }
            }
            (SignalKind::ChannelJoined, _) => self.note_coming(id, glance.at),
            (_, Some(address)) => self.note_address(id, address),
            (_, None) => {}
        }
    }

    fn open(&mut self, id: usize, address: Address) {
        self.connections += 1;
        if let Some(slot) = self.users.get_mut(id) {
            *slot = Some(User::new(address, FlowId(self.connections)));
        }
    }

    fn read_user(&mut self, mut text: Cursor<'_>, at: Timestamp, signals: &mut Vec<Signal>) -> Option<()> {
        let id = id(&mut text)?;
        text.expect(b" ")?;
        if text.eat(b"TCP address: ") {
            let address = text.address()?;
            text.expect(b" connected.")?;
            if !text.is_at_end() {
                return None;
            }
            self.open(id, address);
            return self.signal(id, SignalKind::ConnectionOpened, at, Detail::default(), signals);
        }
        if text.eat(b"failed to authenticate for account ") {
            let account = text.quoted()?;
            let address = read_addresses(&mut text, Cursor::address)?;
            if text.0 != b"." {
                return None;
            }
            let detail = Detail {
                account: Some(unescaped(account)),
                method: Some(Method::Account),
                number: Some(2002),
                ..Detail::default()
            };
            self.note_address(id, address);
            return self.signal(id, SignalKind::LoginFailed, at, detail, signals);
        }
        if text.0.starts_with(b"encryption error no: ") {
            return self.signal(id, SignalKind::TlsFailed, at, Detail::default(), signals);
        }
        let (nickname, account) = read_names(&mut text)?;
        self.read_deed(id, nickname, account, text, at, signals)
    }

    /// What somebody with a name did.
    fn read_deed(
        &mut self,
        id: usize,
        nickname: &[u8],
        account: Option<&[u8]>,
        mut text: Cursor<'_>,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        let names = Detail {
            nickname: Some(unescaped(nickname)).filter(|name| !name.is_empty()),
            account: account.map(unescaped),
            ..Detail::default()
        };
        if text.0.starts_with(b"IP address: ") {
            let address = read_addresses(&mut text, Cursor::address)?;
            return match text.0 {
                b" logged in." => {
                    self.note_address(id, address);
                    let user = self.users.get_mut(id)?.as_mut()?;
                    user.nickname.clone_from(&names.nickname);
                    user.account.clone_from(&names.account);
                    user.is_logged_in = true;
                    user.came_at = Some(at);
                    user.has_logged_in = true;
                    let method = method_of(names.account.as_ref());
                    let detail = Detail { method: Some(method), ..names };
                    self.signal(id, SignalKind::LoginSucceeded, at, detail, signals)
                }
                b" denied login due to banned IP-address." => {
                    self.note_address(id, address);
                    let detail = Detail { number: Some(2005), reason: Some("banned"), ..names };
                    self.signal(id, SignalKind::LoginRefused, at, detail, signals)
                }
                _ => None,
            };
        }
        let channel = |mut text: Cursor<'_>| {
            let channel = text.quoted()?;
            (text.0 == b".").then(|| Detail { channel: Some(unescaped(channel)), ..names.clone() })
        };
        match text.0 {
            b"disconnected." => return self.leave(id, at, signals),
            b"logged out." => {
                self.users.get_mut(id)?.as_mut()?.is_logged_in = false;
                return self.signal(id, SignalKind::LoginEnded, at, names, signals);
            }
            _ => {}
        }
        if text.eat(b"Channel: ") {
            text.quoted()?;
            return if text.0 == b" disconnected." { self.leave(id, at, signals) } else { None };
        }
        if text.eat(b"joined channel: ") {
            self.note_coming(id, at);
            return self.signal(id, SignalKind::ChannelJoined, at, channel(text)?, signals);
        }
        if text.eat(b"left channel: ") {
            return self.signal(id, SignalKind::ChannelLeft, at, channel(text)?, signals);
        }
        if text.eat(b"status: ") {
            return self.read_update(id, names, text, at, signals);
        }
        if text.eat(b"kicked by #") {
            return self.read_kick(names, text, at, signals);
        }
        if text.eat(b"banned ") {
            return self.read_ban(id, names, text, at, signals);
        }
        if text.eat(b"moved user #") {
            text.number()?;
            return self.signal(id, SignalKind::UserMoved, at, names, signals);
        }
        for start in [&b"uploaded file: "[..], b"downloaded file: "] {
            if text.eat(start) {
                text.quoted()?;
                return self.signal(id, SignalKind::FileTransferred, at, names, signals);
            }
        }
        for start in [&b"created user account: "[..], b"deleted user account: "] {
            if text.eat(start) {
                let detail = Detail { target: Some(unescaped(text.quoted()?)), ..names };
                return self.signal(id, SignalKind::AccountChanged, at, detail, signals);
            }
        }
        // Time-outs and kicks by the server, unbans, deleted files, subscriptions: nobody's deed that is counted.
        let others: [&[u8]; 6] = [
            b"dropped after ",
            b"kick from server.",
            b"kicked from channel: ",
            b"unbanned ",
            b"deleted file: ",
            b"changed subscription to #",
        ];
        others.iter().any(|start| text.0.starts_with(start)).then_some(())
    }

    /// `S status msg: "…" UDP address: UIP:PORT updated.`
    fn read_update(
        &mut self,
        id: usize,
        names: Detail,
        mut text: Cursor<'_>,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        text.number()?;
        text.expect(b" status msg: ")?;
        text.quoted()?;
        text.expect(b" UDP address: ")?;
        text.until(b' ')?;
        if text.0 != b"updated." {
            return None;
        }
        let user = self.users.get_mut(id)?.as_mut()?;
        // The line is the same for a new nickname, a new status and a new port: only the nickname can be told.
        if user.nickname == names.nickname {
            return Some(());
        }
        user.nickname.clone_from(&names.nickname);
        self.signal(id, SignalKind::NickChanged, at, names, signals)
    }

    /// `M nickname: "…" from server.` or `… from channel: "path".`
    fn read_kick(
        &self,
        victim: Detail,
        mut text: Cursor<'_>,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        let kicker = id(&mut text)?;
        text.expect(b" ")?;
        read_names(&mut text)?;
        let mut detail = Detail { target: victim.nickname, ..self.own_names(kicker) };
        if text.0 != b"from server." {
            text.expect(b"from channel: ")?;
            detail.channel = Some(unescaped(text.quoted()?));
            if text.0 != b"." {
                return None;
            }
        }
        self.signal(kicker, SignalKind::UserKicked, at, detail, signals)
    }

    /// `user #N IP address: IP NICK USER from server.`, `IP address: IP username: "…" from …`
    fn read_ban(
        &self,
        banner: usize,
        names: Detail,
        mut text: Cursor<'_>,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        let mut detail = names;
        if text.eat(b"user #") {
            text.number()?;
            text.expect(b" IP address: ")?;
            text.address()?;
            text.expect(b" ")?;
            detail.target = Some(unescaped(read_names(&mut text)?.0));
        } else {
            if text.eat(b"IP address: ") {
                detail.target = Some(Text::new(text.until(b' ')?));
            }
            if text.eat(b"username: ") {
                detail.target = Some(unescaped(text.quoted()?));
                text.expect(b" ")?;
            }
        }
        if text.0 != b"from server." {
            text.expect(b"from channel")?;
        }
        // Of the server's own bans, after failed logins, the failing connection is the author.
        let is_logged_in =
            self.users.get(banner).and_then(Option::as_ref).is_some_and(|user| user.is_logged_in);
        if !is_logged_in {
            return Some(());
        }
        self.signal(banner, SignalKind::UserBanned, at, detail, signals)
    }

    /// `C "path" created by NICK USER.`, `C 'path' removed by nickname: '…' username: '…'.`
    fn read_channel(&self, mut text: Cursor<'_>, at: Timestamp, signals: &mut Vec<Signal>) -> Option<()> {
        text.number()?;
        text.expect(b" ")?;
        if text.0.starts_with(b"'") {
            // Nothing is escaped in there.
            return text.0.ends_with(b".").then_some(());
        }
        let channel = text.quoted()?;
        let kind = if text.eat(b" created by ") {
            SignalKind::ChannelCreated
        } else if text.eat(b" updated by ") {
            SignalKind::ChannelChanged
        } else {
            return text.0.starts_with(b" removed").then_some(());
        };
        let (nickname, account) = text.0.strip_suffix(b".").and_then(|names| {
            let mut names = Cursor(names);
            // The blank that separates names from what follows is missing at the end of a line.
            read_names_at_end(&mut names).filter(|_| names.is_at_end())
        })?;
        let (nickname, account) = (unescaped(nickname), account.map(unescaped));
        let is_author = |user: &User| {
            user.is_logged_in
                && user.nickname.as_ref().map_or("", Text::as_str) == nickname.as_str()
                && user.account == account
        };
        let mut authors = (0..).zip(&self.users).filter(|(_, user)| user.as_ref().is_some_and(is_author));
        // Two of one name: the line says no more, so it names nobody.
        let author = authors.next().map(|(id, _)| id).filter(|_| authors.next().is_none());
        let detail = Detail {
            nickname: Some(nickname),
            account,
            channel: Some(unescaped(channel)),
            ..Detail::default()
        };
        match author {
            Some(id) => self.signal(id, kind, at, detail, signals),
            None => Some(()),
        }
    }

    fn leave(&mut self, id: usize, at: Timestamp, signals: &mut Vec<Signal>) -> Option<()> {
        let detail = self.own_names(id);
        self.signal(id, SignalKind::ConnectionClosed, at, detail, signals)?;
        *self.users.get_mut(id)? = None;
        Some(())
    }

    /// An address that a line itself names: where the connection was not seen to begin, this is the first of it.
    fn note_address(&mut self, id: usize, address: Address) {
        let Some(slot) = self.users.get_mut(id) else { return };
        if slot.as_ref().is_none_or(|user| user.address != address) {
            self.connections += 1;
            let flow = FlowId(self.connections);
            *slot = Some(User::new(address, flow));
        }
    }

    /// Somebody has come to where others may greet them.
    fn note_coming(&mut self, id: usize, at: Timestamp) {
        if let Some(user) = self.users.get_mut(id).and_then(Option::as_mut) {
            user.came_at = Some(at);
        }
    }

    fn own_names(&self, id: usize) -> Detail {
        let user = self.users.get(id).and_then(Option::as_ref);
        Detail {
            nickname: user.and_then(|user| user.nickname.clone()),
            account: user.and_then(|user| user.account.clone()),
            ..Detail::default()
        }
    }

    fn talk(&self, id: usize, content: &[u8]) -> Detail {
        let weight = content.len() as u64;
        let content = hash_content(self.seed, content);
        Detail { content: Some(content), reason: content.reason(), weight, ..self.own_names(id) }
    }

    /// Somebody of whom no address is known is understood, and says nothing.
    #[expect(clippy::unnecessary_wraps, reason = "every line ends with it: a line that is understood")]
    fn signal(
        &self,
        id: usize,
        kind: SignalKind,
        at: Timestamp,
        detail: Detail,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        if let Some(user) = self.users.get(id).and_then(Option::as_ref) {
            let (service, address, flow) = (self.service, user.address, Some(user.flow));
            signals.push(Signal { kind, at, service, address, flow, detail });
        }
        Some(())
    }
}

/// A log does not say whether there was a password. An account without a name has none, and what everybody calls their
/// guests' is everybody's.
fn method_of(account: Option<&Text>) -> Method {
    const GUESTS: [&str; 4] = ["", "guest", "anonymous", "public"];
    let name = account.map_or("", Text::as_str);
    if GUESTS.iter().any(|guest| guest.eq_ignore_ascii_case(name)) { Method::Guest } else { Method::Account }
}

fn id(text: &mut Cursor<'_>) -> Option<usize> {
    text.number().and_then(|id| usize::try_from(id).ok()).filter(|id| (1..IDS).contains(id))
}

/// `#N nickname: "…" username: "…" `
fn read_who(text: &mut Cursor<'_>) -> Option<usize> {
    let id = id(text)?;
    text.expect(b" ")?;
    read_names(text)?;
    Some(id)
}

/// `nickname: "…" username: "…" `; the second part is left out where it would be empty.
fn read_names<'a>(text: &mut Cursor<'a>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    text.expect(b"nickname: ")?;
    let nickname = text.quoted()?;
    text.expect(b" ")?;
    let mut account = None;
    if text.eat(b"username: ") {
        account = Some(text.quoted()?);
        text.expect(b" ")?;
    }
    Some((nickname, account))
}

/// The same where nothing follows.
fn read_names_at_end<'a>(text: &mut Cursor<'a>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    text.expect(b"nickname: ")?;
    let nickname = text.quoted()?;
    let account = if text.eat(b" username: ") { Some(text.quoted()?) } else { None };
    text.eat(b" ");
    Some((nickname, account))
}

/// `IP address: IP UDP address: UIP:PORT`; a final dot is left.
#[inline]
fn read_addresses<'a>(
    text: &mut Cursor<'a>,
    address: impl FnOnce(&mut Cursor<'a>) -> Option<Address>,
) -> Option<Address> {
    text.eat(b" ");
    text.expect(b"IP address: ")?;
    let address = address(text)?;
    text.expect(b" UDP address: ")?;
    // Nearly always.
    if let Some(rest) = text.0.strip_prefix(b":::0") {
        let is_over = match rest {
            [b'.', end @ ..] => is_end(end),
            [b' ', ..] => true,
            _ => false,
        };
        if is_over {
            text.0 = rest;
            return Some(address);
        }
    }
    // Unbracketed: the port follows the last colon; not bound is `:::0`.
    let bound =
        text.0.iter().take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')).count();
    let bytes = text.0.get(..bound)?;
    if !bytes.contains(&b':') {
        return None;
    }
    // The dot that ends a line is none of the address.
    let dot = usize::from(bytes.ends_with(b".") && is_end(text.0.get(bound..)?));
    text.0 = text.0.get(bound - dot..)?;
    Some(address)
}

/// Whether a line ends here.
const fn is_end(text: &[u8]) -> bool {
    matches!(text, [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..])
}

/// ` content: "…".` to the end.
fn content(mut text: Cursor<'_>) -> Option<&[u8]> {
    let content = read_content(&mut text)?;
    (text.0 == b".").then_some(content)
}

/// ` content: "…"`
fn read_content<'a>(text: &mut Cursor<'a>) -> Option<&'a [u8]> {
    text.eat(b" ");
    text.expect(b"content: ")?;
    text.quoted()
}

/// The text behind `\\`, `\"`, `\r` and `\n`.
pub(in crate::protocol) fn unescaped(text: &[u8]) -> Text {
    if memchr::memchr(b'\\', text).is_none() {
        return Text::new(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    Text::new(&plain)
}
