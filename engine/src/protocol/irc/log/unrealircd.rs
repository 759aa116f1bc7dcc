//! UnrealIRCd 6: `[2026-11-21 06:15:12 GMT] connect.LOCAL_CLIENT_CONNECT info: text`. Whatever has this beginning is the
//! server's own.

use super::{Reporter, mask, operator};
use crate::{
    protocol::log::{Cursor, Reading, address, instant},
    signal::{Detail, Signal, SignalKind},
    text::Text,
    time::Timestamp,
};

/// UnrealIRCd.
#[derive(Debug)]
pub struct Unrealircd(Reporter);

impl Unrealircd {
    pub(in crate::protocol) const fn new(service: u8) -> Self {
        Self(Reporter::new(service))
    }

    /// The time a line begins with, the event, and what follows.
    pub(in crate::protocol) fn event(line: &[u8]) -> Option<(Timestamp, &[u8], &[u8])> {
        let mut text = Cursor(line);
        text.expect(b"[")?;
        let date = super::date(&mut text)?;
        text.expect(b" ")?;
        let time = super::clock(&mut text)?;
        text.expect(b" ")?;
        text.until(b']').filter(|zone| zone.iter().all(u8::is_ascii_alphabetic))?;
        text.expect(b" ")?;
        let event = text.until(b' ')?;
        let dot = memchr::memchr(b'.', event)?;
        let name = event.get(dot + 1..)?;
        name.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'+')).then_some(())?;
        let level = text.until(b':')?;
        [&b"debug"[..], b"info", b"warn", b"error", b"fatal"].contains(&level).then_some(())?;
        text.expect(b" ")?;
        Some((instant(date, time, 0)?, name, text.0))
    }

    pub(in crate::protocol) fn read_line(
        &mut self,
        line: &[u8],
        signals: &mut Vec<Signal>,
    ) -> (Reading, Timestamp) {
        let event = Self::event(line);
        let timed = event.map(|(at, _, text)| (at, text));
        let name = event.map_or(&b""[..], |(_, name, _)| name);
        let outcome = self.0.begin(timed).and_then(|text| self.read(name, text, signals));
        self.0.reading(outcome)
    }

    fn read(&self, event: &[u8], mut text: Cursor<'_>, signals: &mut Vec<Signal>) -> Option<()> {
        match event {
            b"LOCAL_CLIENT_CONNECT" => {
                text.expect(b"Client connecting: ")?;
                let (nickname, from) = client(text)?;
                let detail = Detail { nickname: Some(nickname), ..Detail::default() };
                self.0.report(SignalKind::ConnectionOpened, from, detail.clone(), signals);
                self.0.report(SignalKind::LoginSucceeded, from, detail, signals);
            }
            b"LOCAL_CLIENT_DISCONNECT" => {
                text.expect(b"Client exiting: ")?;
                let (nickname, from) = client(text)?;
                let detail = Detail { nickname: Some(nickname), ..Detail::default() };
                self.0.report(SignalKind::ConnectionClosed, from, detail, signals);
            }
            b"OPER_FAILED" => {
                text.expect(b"Failed OPER attempt by ")?;
                self.report_operator(SignalKind::LoginFailed, text, signals)?;
            }
            b"OPER_SUCCESS" => self.report_operator(SignalKind::LoginSucceeded, text, signals)?,
            _ => {}
        }
        Some(())
    }

    /// `nick!user@host … [oper-block: boss]…`: the address is known where the host is one.
    fn report_operator(
        &self,
        kind: SignalKind,
        mut text: Cursor<'_>,
        signals: &mut Vec<Signal>,
    ) -> Option<()> {
        const BLOCK: &[u8] = b"[oper-block: ";
        let (nickname, from) = mask(text.until(b' ')?, b'!')?;
        let at = memchr::memmem::find(text.0, BLOCK)?;
        let mut text = Cursor(text.0.get(at + BLOCK.len()..)?);
        let account = text.until(b']')?;
        if let Some(from) = from {
            self.0.report(kind, from, operator(nickname, account), signals);
        }
        Some(())
    }
}

/// `nick (user@host) [10.78.0.20] …`: none of what stands before the address holds a blank.
fn client(mut text: Cursor<'_>) -> Option<(Text, floodwall_wire::Address)> {
    let nickname = Text::new(text.until(b' ')?);
    text.expect(b"(")?;
    text.until(b' ')?.strip_suffix(b")")?;
    text.expect(b"[")?;
    let from = address(text.until(b']')?)?;
    (text.is_at_end() || text.0.starts_with(b" ")).then_some((nickname, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Reading, Vec<String>) {
        let mut signals = Vec::new();
        let line = format!("[2026-11-21 06:15:12 GMT] {line}");
        let (reading, _) = Unrealircd::new(0).read_line(line.as_bytes(), &mut signals);
        (reading, signals.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn connections_and_guesses_are_told() {
        let (_, told) = read(
            "connect.LOCAL_CLIENT_CONNECT info: Client connecting: nick (user@host.example) [10.78.0.20] [class: clients]",
        );
        assert_eq!(
            told,
            [
                "connection.opened from 10.78.0.20 nickname \"nick\"",
                "login.succeeded from 10.78.0.20 nickname \"nick\"",
            ]
        );
        let (_, told) = read(
            "oper.OPER_FAILED warn: Failed OPER attempt by nick!user@10.78.0.30 (..) [reason: Authentication failed] \
             [oper-block: boss]",
        );
        assert_eq!(told, ["login.failed from 10.78.0.30 method oper account \"boss\" nickname \"nick\""]);
        let (_, told) = read(
            "connect.LOCAL_CLIENT_DISCONNECT info: Client exiting: nick (user@h) [10.78.0.20] (Quit: [10.9.9.9])",
        );
        assert_eq!(told, ["connection.closed from 10.78.0.20 nickname \"nick\""]);
    }

    #[test]
    fn other_events_are_the_servers_own_and_broken_ones_nobodys() {
        assert_eq!(read("tkl.TKL_ADD info: K-Line added").0, Reading::Understood);
        assert_eq!(read("Tkl added").0, Reading::Unknown);
        assert_eq!(read("connect.LOCAL_CLIENT_CONNECT info: Client connecting: nick").0, Reading::Unknown);
    }
}
