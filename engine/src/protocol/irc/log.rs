//! Logs of IRC servers (`protocols/irc.md` D): ircd-hybrid, InspIRCd, ngIRCd, solanum, UnrealIRCd.
//!
//! All write less than happens: throttled connections, wrong server passwords and whole floods leave no line in some of
//! them. Silence proves nothing.

mod solanum;
mod unrealircd;

use std::collections::HashMap;

use floodwall_wire::Address;

use super::super::log::{Cursor, Reading, address, instant};
use crate::{
    signal::{Detail, FlowId, Method, Signal, SignalKind},
    text::Text,
    time::Timestamp,
};

pub use solanum::Solanum;
pub use unrealircd::Unrealircd;

/// Connections of one log that are followed; beyond that lines that name a connection alone say nothing.
const CONNECTIONS_MAX: usize = 65_536;

/// What all of them need to report something.
#[derive(Debug)]
struct Reporter {
    service: u8,
    last: Timestamp,
}

impl Reporter {
    const fn new(service: u8) -> Self {
        Self { service, last: Timestamp::EPOCH }
    }

    fn report(&self, kind: SignalKind, address: Address, detail: Detail, signals: &mut Vec<Signal>) {
        signals.push(Signal { kind, at: self.last, service: self.service, address, flow: None, detail });
    }

    /// What follows the time that a line begins with.
    fn begin<'a>(&mut self, timed: Option<(Timestamp, &'a [u8])>) -> Option<Cursor<'a>> {
        let (at, text) = timed?;
        self.last = at;
        Some(Cursor(text))
    }

    const fn reading(&self, outcome: Option<()>) -> (Reading, Timestamp) {
        (if outcome.is_some() { Reading::Understood } else { Reading::Unknown }, self.last)
    }
}

/// `nick!user@host` or `nick[user@host]`: nickname and, where the host is one, the address.
fn mask(mask: &[u8], separator: u8) -> Option<(Text, Option<Address>)> {
    let host = memchr::memrchr(b'@', mask)?;
    // A nickname may hold brackets, and must not be cut down to somebody else's.
    let nick = if separator == b'[' {
        memchr::memrchr(separator, mask.get(..host)?)?
    } else {
        memchr::memchr(separator, mask)?
    };
    Some((Text::new(mask.get(..nick)?), address(mask.get(host + 1..)?)))
}

/// Addresses behind names: where a server has looked up a client's name, its later lines tell that alone.
#[derive(Debug, Default)]
struct Hosts {
    /// By `user@host`, which nobody can change; nothing where several have the same.
    by_mask: HashMap<Box<[u8]>, Option<Address>, foldhash::fast::RandomState>,
}

impl Hosts {
    /// Takes note of a `nick!user@host` whose address is known.
    fn learn(&mut self, mask: &[u8], address: Address) {
        let Some(mask) = without_nickname(mask) else { return };
        if self.by_mask.len() >= CONNECTIONS_MAX && !self.by_mask.contains_key(mask) {
            // Whoever is still there is told again when they connect anew.
            self.by_mask.clear();
        }
        let known = self.by_mask.entry(mask.into()).or_insert(Some(address));
        *known = known.filter(|known| *known == address);
    }

    /// The address of a `nick!user@host`.
    fn find(&self, mask: &[u8]) -> Option<Address> {
        *self.by_mask.get(without_nickname(mask)?)?
    }
}

fn without_nickname(mask: &[u8]) -> Option<&[u8]> {
    mask.get(memchr::memchr(b'!', mask)? + 1..)
}

/// Too many connections from one place.
fn clones(nickname: Option<Text>) -> Detail {
    Detail { reason: Some("clones"), nickname, ..Detail::default() }
}

fn operator(nickname: Text, account: &[u8]) -> Detail {
    let (nickname, account) = (Some(nickname), Some(Text::new(account)));
    Detail { method: Some(Method::Oper), nickname, account, ..Detail::default() }
}

/// ircd-hybrid 8.2: `[2026-11-21T05:51:49+0000] text`.
#[derive(Debug)]
pub struct Hybrid(Reporter);

impl Hybrid {
    pub(in crate::protocol) const fn new(service: u8) -> Self {
        Self(Reporter::new(service))
    }

    /// The time a line begins with, and what follows.
    pub(in crate::protocol) fn time(line: &[u8]) -> Option<(Timestamp, &[u8])> {
        let mut text = Cursor(line);
        text.expect(b"[")?;
        let date = date(&mut text)?;
        text.expect(b"T")?;
        let time = clock(&mut text)?;
        let ahead = text.eat(b"+");
        if !ahead {
            text.expect(b"-")?;
        }
        let zone = text.number()?;
        text.expect(b"] ")?;
        let at = instant(date, time, 0)?;
        let offset = crate::Span::from_secs((zone / 100 * 60 + zone % 100) * 60);
        let utc =
            if ahead { at.as_nanos().saturating_sub(offset.as_nanos()) } else { (at + offset).as_nanos() };
        Some((Timestamp::from_nanos(utc), text.0))
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let timed = Self::time(line);
        let outcome = self.0.begin(timed).and_then(|text| self.read(text, signals));
        self.0.reading(outcome)
    }

    fn read(&self, mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        if text.eat(b"OPER ") || text.0.starts_with(b"Failed OPER attempt as ") {
            let failed = text.eat(b"Failed OPER attempt as ");
            let account = text.until(b' ')?;
            text.expect(b"by ")?;
            let end = memchr::memrchr(b']', text.0)?;
            let (who, rest) = text.0.split_at_checked(end)?;
            // A reason follows a failure, nothing a success.
            if rest.starts_with(b"] - ") != failed || !failed && rest != b"]" {
                return None;
            }
            let (nickname, address) = mask(who, b'[')?;
            let kind = if failed { SignalKind::LoginFailed } else { SignalKind::LoginSucceeded };
            if let Some(address) = address {
                self.0.report(kind, address, operator(nickname, account), signals);
            }
            return Some(());
        }
        if text.eat(b"Rejecting client connection from ") {
            let end = memchr::memmem::find(text.0, b"]: ")?;
            let (nickname, address) = mask(text.0.get(..end)?, b'[')?;
            if let Some(address) = address {
                let detail = Detail { nickname: Some(nickname), ..Detail::default() };
                self.0.report(SignalKind::ConnectionRefused, address, detail, signals);
            }
            return Some(());
        }
        if let Some(exit) = exited(text.0) {
            let (nickname, address) = exit?;
            let detail = Detail { nickname: Some(nickname), ..Detail::default() };
            self.0.report(SignalKind::ConnectionClosed, address, detail, signals);
            return Some(());
        }
        let others: [&[u8]; 6] =
            [b"KILL From ", b"Link with ", b"Link ", b"Server ", b"SQUIT ", b"No response from "];
        let known = others.iter().any(|start| text.0.starts_with(start))
            || memchr::memmem::find(text.0, b" added ").is_some();
        known.then_some(())
    }
}

/// `Sat Nov 21 05:50:14 2026 (75): nick!user@host ip account k/k :real name`, written when somebody leaves; the outer
/// `None` for another line, the inner one for one that does not fit.
fn exited(line: &[u8]) -> Option<Option<(Text, Address)>> {
    let mut text = Cursor(line);
    text.until(b' ').filter(|day| day.len() == 3)?;
    let end = memchr::memmem::find(text.0, b"): ")?;
    let mut text = Cursor(text.0.get(end + 3..)?);
    let read = || {
        let (nickname, _) = mask(text.until(b' ')?, b'!')?;
        Some((nickname, address(text.until(b' ')?)?))
    };
    let mut read = read;
    Some(read())
}

/// `Nov`
fn month(name: &[u8]) -> Option<u64> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    MONTHS.iter().position(|month| *month == name).map(|month| month as u64 + 1)
}

/// `2026-11-21`
fn date(text: &mut Cursor<'_>) -> Option<(u64, u64, u64)> {
    let year = text.number()?;
    text.expect(b"-")?;
    let month = text.number()?;
    text.expect(b"-")?;
    Some((year, month, text.number()?))
}

/// `05:51:49`
fn clock(text: &mut Cursor<'_>) -> Option<(u64, u64, u64)> {
    let hour = text.number()?;
    text.expect(b":")?;
    let minute = text.number()?;
    text.expect(b":")?;
    Some((hour, minute, text.number()?))
}

/// InspIRCd 3: `Sat Nov 21 2026 06:15:12 TYPE: text`; 4 writes `2026-11-21 06:15:12 TYPE: text`.
#[derive(Debug)]
pub struct Inspircd(Reporter, Hosts);

impl Inspircd {
    pub(in crate::protocol) fn new(service: u8) -> Self {
        Self(Reporter::new(service), Hosts::default())
    }

    /// The time a line begins with, and what follows.
    pub(in crate::protocol) fn time(line: &[u8]) -> Option<(Timestamp, &[u8])> {
        let mut text = Cursor(line);
        let date = if line.first().is_some_and(u8::is_ascii_digit) {
            date(&mut text)?
        } else {
            text.until(b' ').filter(|day| day.len() == 3)?;
            let month = month(text.until(b' ')?)?;
            text.eat(b" ");
            let day = text.number()?;
            text.expect(b" ")?;
            (text.number()?, month, day)
        };
        if !text.eat(b" ") {
            text.expect(b"T")?;
        }
        let time = clock(&mut text)?;
        text.expect(b" ")?;
        Some((instant(date, time, 0)?, text.0))
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let timed = Self::time(line);
        let outcome = self.0.begin(timed).and_then(|text| self.read(text, signals));
        self.0.reading(outcome)
    }

    fn read(&mut self, mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        if text.eat(b"CONNECT: Client connecting on port ") {
            let start = memchr::memmem::find(text.0, b"): ")?;
            let text = text.0.get(start + 3..)?;
            let (nickname, address) = client(text)?;
            self.1.learn(Cursor(text).until(b' ')?, address);
            let detail = Detail { nickname: Some(nickname), ..Detail::default() };
            self.0.report(SignalKind::ConnectionOpened, address, detail.clone(), signals);
            self.0.report(SignalKind::LoginSucceeded, address, detail, signals);
            return Some(());
        }
        if text.eat(b"QUIT: Client exiting: ") {
            let (nickname, address) = client(text.0)?;
            let detail = Detail { nickname: Some(nickname), ..Detail::default() };
            self.0.report(SignalKind::ConnectionClosed, address, detail, signals);
            return Some(());
        }
        if text.eat(b"OPER: WARNING! Failed oper attempt by ") {
            let who = text.until(b' ')?;
            let (nickname, address) = mask(who, b'!')?;
            text.expect(b"using login '")?;
            let account = text.until(b'\'')?;
            if let Some(address) = address.or_else(|| self.1.find(who)) {
                self.0.report(SignalKind::LoginFailed, address, operator(nickname, account), signals);
            }
            return Some(());
        }
        // Every line has a type in capitals.
        let kind = text.until(b':')?;
        (!kind.is_empty() && kind.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_')).then_some(())
    }
}

/// `nick!user@host (10.78.0.20) [text]`: no blank can stand before the address.
fn client(text: &[u8]) -> Option<(Text, Address)> {
    let mut text = Cursor(text);
    let (nickname, _) = mask(text.until(b' ')?, b'!')?;
    text.expect(b"(")?;
    let found = address(text.until(b')')?)?;
    Some((nickname, found))
}

/// ngIRCd: `[pid:level seconds] text` in the foreground, `… ngircd[pid]: text` through syslog.
#[derive(Debug)]
pub struct Ngircd {
    reporter: Reporter,
    connections: HashMap<u64, (Address, FlowId), foldhash::fast::RandomState>,
    hosts: Hosts,
    opened: u64,
}

impl Ngircd {
    pub(in crate::protocol) fn new(service: u8) -> Self {
        Self {
            reporter: Reporter::new(service),
            connections: HashMap::with_hasher(foldhash::fast::RandomState::default()),
            hosts: Hosts::default(),
            opened: 0,
        }
    }

    /// When, and what follows: seconds since the server started stand for those since 1970, and so does a year that syslog
    /// does not tell.
    pub(in crate::protocol) fn text(line: &[u8]) -> Option<(Timestamp, &[u8])> {
        let mut text = Cursor(line);
        if text.eat(b"[") {
            text.number()?;
            text.expect(b":")?;
            text.number()?;
            while text.eat(b" ") {}
            let seconds = text.number()?;
            text.expect(b"] ")?;
            // As long as no server has run.
            const SECONDS_MAX: u64 = 10 * 366 * 86_400;
            return Some((Timestamp::from_secs(seconds.min(SECONDS_MAX)), text.0));
        }
        // Others write to the same log what their clients have chosen: the program stands behind time and host, nowhere else.
        let at = syslog_time(&mut text)?;
        text.until(b' ').filter(|host| !host.is_empty())?;
        text.expect(b"ngircd[")?;
        text.number()?;
        text.expect(b"]: ")?;
        Some((at, text.0))
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let Some((at, text)) = Self::text(line) else { return (Reading::Unknown, self.reporter.last) };
        self.reporter.last = at;
        let outcome = self.read(Cursor(text), signals);
        self.reporter.reading(outcome)
    }

    fn read(&mut self, mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        if text.eat(b"Accepted connection ") {
            let number = text.number()?;
            text.expect(b" from ")?;
            let address = peer(text.quoted()?)?;
            text.expect(b" on socket ")?;
            self.opened += 1;
            if self.connections.len() < CONNECTIONS_MAX || self.connections.contains_key(&number) {
                self.connections.insert(number, (address, FlowId(self.opened)));
            }
            return self.report(number, SignalKind::ConnectionOpened, Detail::default(), signals);
        }
        if text.eat(b"Connection ") {
            let number = text.number()?;
            if text.eat(b" with ") {
                text.quoted()?;
                text.expect(b" closed ")?;
                self.report(number, SignalKind::ConnectionClosed, Detail::default(), signals)?;
                self.connections.remove(&number);
            } else if text.0.starts_with(b": Got bad password from server ") {
                let detail = Detail { method: Some(Method::Link), ..Detail::default() };
                self.report(number, SignalKind::LoginFailed, detail, signals)?;
            }
            return Some(());
        }
        if text.eat(b"Refused connection from ") {
            let end = memchr::memmem::find(text.0, b": ")?;
            let (host, rest) = text.0.split_at_checked(end)?;
            let address = address(host)?;
            rest.strip_suffix(b" from this IP address!")?;
            self.reporter.report(SignalKind::ConnectionRefused, address, clones(None), signals);
            return Some(());
        }
        if text.eat(b"Got invalid OPER from ") {
            let who = text.quoted()?;
            let (nickname, address) = mask(who, b'!')?;
            text.expect(b": ")?;
            let account = text.quoted()?;
            text.expect(b" -- ")?;
            if let Some(address) = address.or_else(|| self.hosts.find(who)) {
                self.reporter.report(SignalKind::LoginFailed, address, operator(nickname, account), signals);
            }
            return Some(());
        }
        if text.eat(b"Got valid OPER for ") {
            let account = text.quoted()?;
            text.expect(b" from ")?;
            let who = text.quoted()?;
            let (nickname, address) = mask(who, b'!')?;
            if let Some(address) = address.or_else(|| self.hosts.find(who)) {
                self.reporter.report(
                    SignalKind::LoginSucceeded,
                    address,
                    operator(nickname, account),
                    signals,
                );
            }
            return Some(());
        }
        if text.eat(b"User ") {
            let who = text.quoted()?;
            let nickname = mask(who, b'!')?.0;
            let (kind, method) = if text.eat(b" registered (connection ") {
                (SignalKind::LoginSucceeded, None)
            } else if text.eat(b" rejected (connection ") {
                (SignalKind::LoginFailed, Some(Method::ServerPassword))
            } else {
                return text.0.starts_with(b" ").then_some(());
            };
            let number = text.number()?;
            text.expect(b")")?;
            if let Some((address, _)) = self.connections.get(&number) {
                self.hosts.learn(who, *address);
            }
            let detail = Detail { nickname: Some(nickname), method, ..Detail::default() };
            return self.report(number, kind, detail, signals);
        }
        // Everything else the server says of itself or of its links.
        (!text.is_at_end()).then_some(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "a line that is understood ends with it")]
    fn report(&self, number: u64, kind: SignalKind, detail: Detail, signals: &mut Vec<Signal>) -> Option<()> {
        if let Some((address, flow)) = self.connections.get(&number) {
            self.reporter.report(kind, *address, detail, signals);
            if let Some(signal) = signals.last_mut() {
                signal.flow = Some(*flow);
            }
        }
        Some(())
    }
}

/// `Nov 21 06:15:13 ` of RFC 3164, or `2026-11-21T06:15:13.123456+00:00 ` of RFC 5424, local time.
fn syslog_time(text: &mut Cursor<'_>) -> Option<Timestamp> {
    let (date, time) = if text.0.first()?.is_ascii_digit() {
        let date = date(text)?;
        text.expect(b"T")?;
        let time = clock(text)?;
        text.until(b' ')?.iter().all(|byte| byte.is_ascii_digit() || b".+-:Z".contains(byte)).then_some(())?;
        (date, time)
    } else {
        let month = month(text.until(b' ')?)?;
        text.eat(b" ");
        let day = text.number()?;
        text.expect(b" ")?;
        let time = clock(text)?;
        text.expect(b" ")?;
        ((1970, month, day), time)
    };
    instant(date, time, 0)
}

/// `10.78.0.20:56285`, `[fd00::1]:56285` or `fd00::1:56285`.
fn peer(text: &[u8]) -> Option<Address> {
    let colon = memchr::memrchr(b':', text)?;
    let host = text.get(..colon)?;
    address(host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host))
}
