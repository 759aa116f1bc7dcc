//! The log of a TeamSpeak 3 server (`protocols/teamspeak.md` 8): `2026-11-21 06:15:12.000000|INFO    |Channel |1  |text`, UTC.
//!
//! Nicknames and reasons stand in quotes that nothing escapes, so lines that hold one are read from their end, or by what is
//! known of whom they name.

use std::collections::HashMap;

use floodwall_wire::Address;

use super::super::log::{Cursor, Reading, address, instant};
use crate::{
    signal::{Detail, FlowId, Method, Signal, SignalKind},
    text::Text,
    time::Timestamp,
};

/// Clients of one log that are followed; beyond that lines that name a client alone say nothing.
const CLIENTS_MAX: usize = 65_536;
/// Length of `2026-11-21 06:15:12.000000`.
const STAMP_BYTES: usize = 26;

/// Somebody connected.
#[derive(Debug)]
struct Client {
    address: Address,
    flow: FlowId,
    nickname: Vec<u8>,
}

/// TeamSpeak 3.
#[derive(Debug)]
pub struct LogReader {
    service: u8,
    last: Timestamp,
    /// By the virtual server and the number that its database has for them.
    clients: HashMap<(u64, u64), Client, foldhash::fast::RandomState>,
    connections: u64,
}

/// The time a line begins with, the virtual server, and the text behind.
pub(in crate::protocol) fn header(line: &[u8]) -> Option<(Timestamp, u64, &[u8])> {
    let mut stamp = Cursor(line.get(..STAMP_BYTES)?);
    let mut number = |end: &[u8]| {
        let number = stamp.number()?;
        stamp.expect(end)?;
        Some(number)
    };
    let date = (number(b"-")?, number(b"-")?, number(b" ")?);
    let time = (number(b":")?, number(b":")?, number(b".")?);
    let micros = number(b"")?;
    let at = instant(date, time, micros)?;
    let mut text = Cursor(line.get(STAMP_BYTES..)?);
    text.expect(b"|")?;
    let level = text.until(b'|')?;
    if level.is_empty() || !level.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b' ') {
        return None;
    }
    text.until(b'|')?;
    let server = text.until(b'|')?.trim_ascii();
    // What concerns all of them has none.
    let server = if server.is_empty() { 0 } else { whole_number(server)? };
    // Before 3.0.12 a blank follows.
    text.eat(b" ");
    Some((at, server, text.0))
}

fn whole_number(text: &[u8]) -> Option<u64> {
    let mut text = Cursor(text);
    text.number().filter(|_| text.is_at_end())
}

impl LogReader {
    pub(in crate::protocol) fn new(service: u8) -> Self {
        let clients = HashMap::with_hasher(foldhash::fast::RandomState::default());
        Self { service, last: Timestamp::EPOCH, clients, connections: 0 }
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some((at, server, text)) = header(line) else { return (Reading::Unknown, self.last) };
        self.last = at;
        let reading = match self.read(server, Cursor(text), signals) {
            Some(()) => Reading::Understood,
            None => Reading::Unknown,
        };
        (reading, at)
    }

    fn read(&mut self, server: u64, mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        if text.eat(b"client connected '") {
            return self.read_connected(server, text.0, signals);
        }
        if text.eat(b"client disconnected '") {
            self.read_disconnected(server, text.0, signals);
            return Some(());
        }
        if text.eat(b"query from ") {
            return self.read_query(text, signals);
        }
        let kind = if text.0.starts_with(b"ban added reason=") {
            Some(SignalKind::UserBanned)
        } else if text.0.starts_with(b"file upload to ") || text.0.starts_with(b"file download from ") {
            Some(SignalKind::FileTransferred)
        } else {
            None
        };
        // Everything else is the server's own, or nobody's deed that is counted.
        if let Some(kind) = kind
            && let Some((before, id)) = tail(text.0)
            && let Some(client) = self.clients.get(&(server, id))
            && before.ends_with([b" by client '", client.nickname.as_slice()].concat().as_slice())
        {
            let target = if kind == SignalKind::UserBanned { banned(before) } else { None };
            let detail = Detail { nickname: Some(Text::new(&client.nickname)), target, ..Detail::default() };
            self.report(kind, client.address, Some(client.flow), detail, signals);
        }
        Some(())
    }

    /// `Nick'(id:599) from 203.0.113.7:58631`, from its end.
    fn read_connected(&mut self, server: u64, text: &[u8], signals: &mut Vec<Signal>) -> Option<()> {
        const FROM: &[u8] = b" from ";
        let at = memchr::memmem::rfind(text, FROM)?;
        let address = peer(text.get(at + FROM.len()..)?)?;
        let (nickname, id) = tail(text.get(..at)?)?;
        self.connections += 1;
        let flow = FlowId(self.connections);
        if self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&(server, id)) {
            self.clients.insert((server, id), Client { address, flow, nickname: nickname.to_vec() });
        }
        let detail = Detail { nickname: Some(Text::new(nickname)), ..Detail::default() };
        self.report(SignalKind::ConnectionOpened, address, Some(flow), detail.clone(), signals);
        self.report(SignalKind::LoginSucceeded, address, Some(flow), detail, signals);
        Some(())
    }

    /// `Nick'(id:599) reason 'reasonmsg=leaving'`: both names may hold what looks like the middle, so it is the client who is
    /// known by that number and that nickname.
    /// Where there are two of those, the line names nobody.
    fn read_disconnected(&mut self, server: u64, text: &[u8], signals: &mut Vec<Signal>) {
        const MIDDLE: &[u8] = b"'(id:";
        let mut found = None;
        for at in memchr::memmem::find_iter(text, MIDDLE) {
            let mut rest = Cursor(text.get(at + MIDDLE.len()..).unwrap_or_default());
            let Some(id) = rest.number().filter(|_| rest.0.starts_with(b") reason '")) else { continue };
            let is_theirs = |client: &Client| text.get(..at) == Some(client.nickname.as_slice());
            if self.clients.get(&(server, id)).is_some_and(is_theirs) && found.replace(id).is_some() {
                return;
            }
        }
        if let Some(client) = found.and_then(|id| self.clients.remove(&(server, id))) {
            let detail = Detail { nickname: Some(Text::new(&client.nickname)), ..Detail::default() };
            self.report(SignalKind::ConnectionClosed, client.address, Some(client.flow), detail, signals);
        }
    }

    /// `5 203.0.113.10:56971 attempted to login with account "serveradmin" and failed!`
    fn read_query(&self, mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        text.number()?;
        text.expect(b" ")?;
        let address = peer(text.until(b' ')?)?;
        if text.eat(b"attempted to login with account \"") {
            let account = text.0.strip_suffix(b"\" and failed!")?;
            self.report(SignalKind::LoginFailed, address, None, query(account), signals);
        } else if text.eat(b"issued: login with account \"") {
            let end = memchr::memrchr(b'"', text.0)?;
            self.report(SignalKind::LoginSucceeded, address, None, query(text.0.get(..end)?), signals);
        }
        Some(())
    }

    fn report(
        &self,
        kind: SignalKind,
        address: Address,
        flow: Option<FlowId>,
        detail: Detail,
        signals: &mut Vec<Signal>,
    ) {
        signals.push(Signal { kind, at: self.last, service: self.service, address, flow, detail });
    }
}

fn query(account: &[u8]) -> Detail {
    Detail { method: Some(Method::Query), account: Some(Text::new(account)), ..Detail::default() }
}

/// Whom `reason='…' ip='203.0.113.9' bantime=600` has banned, or `cluid='…'`; the reason may hold what looks like it, so
/// it is the last.
fn banned(text: &[u8]) -> Option<Text> {
    let text = text.get(..memchr::memmem::rfind(text, b"' bantime=")?)?;
    let at = memchr::memrchr(b'\'', text)?;
    Some(Text::new(text.get(at + 1..)?))
}

/// What ends with `'(id:599)`: what stands before, and the number.
fn tail(text: &[u8]) -> Option<(&[u8], u64)> {
    const MIDDLE: &[u8] = b"'(id:";
    let at = memchr::memmem::rfind(text, MIDDLE)?;
    let mut rest = Cursor(text.get(at + MIDDLE.len()..)?);
    let id = rest.number()?;
    (rest.0 == b")").then_some((text.get(..at)?, id))
}

/// `203.0.113.7:58631` or `[2001:db8::1]:58631`.
fn peer(text: &[u8]) -> Option<Address> {
    let colon = memchr::memrchr(b':', text)?;
    let mut port = Cursor(text.get(colon + 1..)?);
    port.number()?;
    port.is_at_end().then_some(())?;
    let host = text.get(..colon)?;
    address(host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<String> {
        let mut reader = LogReader::new(0);
        let mut signals = Vec::new();
        for line in lines {
            let line = format!("2026-11-21 06:15:12.000000|INFO    |VirtualServerBase|1  |{line}");
            assert_eq!(reader.read_line(line.as_bytes(), &mut signals).0, Reading::Understood, "{line}");
        }
        signals.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn clients_are_followed_by_their_number() {
        let told = read(&[
            "client connected 'Ann'(id:5) from 203.0.113.7:58631",
            "client connected 'Bob'(id:6) from [2001:db8::1]:58631",
            "file upload to (id:10), '/f.txt' by client 'Ann'(id:5)",
            "ban added reason='Test' ip='203.0.113.9' bantime=600 by client 'Bob'(id:6)",
            "client disconnected 'Ann'(id:5) reason 'reasonmsg=leaving'",
            "client disconnected 'Ann'(id:5) reason 'reasonmsg=leaving'",
        ]);
        assert_eq!(
            told,
            [
                "connection.opened from 203.0.113.7 nickname \"Ann\"",
                "login.succeeded from 203.0.113.7 nickname \"Ann\"",
                "connection.opened from 2001:db8::1 nickname \"Bob\"",
                "login.succeeded from 2001:db8::1 nickname \"Bob\"",
                "file.transferred from 203.0.113.7 nickname \"Ann\"",
                "user.banned from 2001:db8::1 nickname \"Bob\" target \"203.0.113.9\"",
                "connection.closed from 203.0.113.7 nickname \"Ann\"",
            ]
        );
    }

    #[test]
    fn names_that_imitate_lines_name_nobody() {
        let told = read(&[
            "client connected 'x'(id:1) from 10.0.0.1:5'(id:7) from 203.0.113.7:58631",
            "client connected 'Bob'(id:8) from 203.0.113.8:1",
            "client disconnected 'Bob'(id:8) reason 'reasonmsg=x'(id:7) reason 'y'",
            "file upload to (id:10), '/f.txt' by client 'Eve'(id:7)",
        ]);
        assert_eq!(told.iter().filter(|told| told.contains("10.0.0.1 ")).count(), 0, "{told:?}");
        assert!(told.iter().any(|told| told.starts_with("connection.closed from 203.0.113.8")), "{told:?}");
        assert!(told.iter().all(|told| !told.starts_with("file.transferred")), "{told:?}");
    }

    #[test]
    fn guesses_on_the_query_port_are_told() {
        let told = read(&[
            "query from 5 203.0.113.10:56971 attempted to login with account \"serveradmin\" and failed!",
            "query from 5 203.0.113.10:56971 attempted to login with account \"a\" and failed! from 1.2.3.4:5\" and failed!",
            "query from 44 203.0.113.7:22420 issued: login with account \"serveradmin\"(serveradmin)",
        ]);
        assert!(
            told[0].starts_with("login.failed from 203.0.113.10 method query account \"serveradmin\""),
            "{told:?}"
        );
        assert!(told[1].starts_with("login.failed from 203.0.113.10 "), "{told:?}");
        assert!(told[2].starts_with("login.succeeded from 203.0.113.7 method query"), "{told:?}");
    }
}
