//! solanum and charybdis: `2026/11/21 06.15 text`, one file per kind of line, minutes and no zone.

use super::{Reporter, clones, exited, mask, operator};
use crate::{
    protocol::log::{Cursor, Reading, address, instant},
    signal::{Detail, Signal, SignalKind},
    time::Timestamp,
};

/// solanum.
#[derive(Debug)]
pub struct Solanum(Reporter);

impl Solanum {
    pub(in crate::protocol) const fn new(service: u8) -> Self {
        Self(Reporter::new(service))
    }

    /// The time a line begins with, and what follows.
    pub(in crate::protocol) fn time(line: &[u8]) -> Option<(Timestamp, &[u8])> {
        let mut text = Cursor(line);
        let year = text.number()?;
        text.expect(b"/")?;
        let month = text.number()?;
        text.expect(b"/")?;
        let day = text.number()?;
        text.expect(b" ")?;
        let hour = text.number()?;
        text.expect(b".")?;
        let minute = text.number()?;
        text.expect(b" ")?;
        Some((instant((year, month, day), (hour, minute, 0), 0)?, text.0))
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
        if text.eat(b"FAILED OPER (") {
            // The name that was tried is the client's: it may hold anything but blanks.
            let account = text.until(b' ')?.strip_suffix(b")")?;
            text.expect(b"by (")?;
            let who = text.until(b' ')?.strip_suffix(b")")?;
            text.expect(b"(")?;
            let from = address(text.until(b')')?)?;
            if !text.is_at_end() && !text.0.starts_with(b" -- ") {
                return None;
            }
            let (nickname, _) = mask(who, b'!')?;
            self.0.report(SignalKind::LoginFailed, from, operator(nickname, account), signals);
            return Some(());
        }
        if text.eat(b"OPER ") {
            let account = text.until(b' ')?;
            text.expect(b"by ")?;
            let (nickname, _) = mask(text.until(b' ')?, b'!')?;
            text.expect(b"(")?;
            let from = address(text.until(b')')?)?;
            if !text.is_at_end() {
                return None;
            }
            self.0.report(SignalKind::LoginSucceeded, from, operator(nickname, account), signals);
            return Some(());
        }
        for start in [
            &b"Too many local connections from "[..],
            b"Too many global connections from ",
            b"Too many user connections from ",
        ] {
            if text.eat(start) {
                let (nickname, from) = mask(text.0, b'!')?;
                if let Some(from) = from {
                    self.0.report(SignalKind::ConnectionRefused, from, clones(Some(nickname)), signals);
                }
                return Some(());
            }
        }
        if let Some(exit) = exited(text.0) {
            let (nickname, from) = exit?;
            let detail = Detail { nickname: Some(nickname), ..Detail::default() };
            self.0.report(SignalKind::ConnectionClosed, from, detail, signals);
            return Some(());
        }
        // Refusals by name alone, bans, kills and what servers say of each other.
        let others: [&[u8]; 14] = [
            b"Access denied: ",
            b"Link ",
            b"Server ",
            b"SQUIT ",
            b"K ",
            b"D ",
            b"X ",
            b"R ",
            b"UK ",
            b"UD ",
            b"L ",
            b"G ",
            b"O ",
            b"S ",
        ];
        others.iter().any(|start| text.0.starts_with(start)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Reading, Vec<String>) {
        let mut signals = Vec::new();
        let (reading, _) = Solanum::new(0).read_line(line.as_bytes(), &mut signals);
        (reading, signals.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn guesses_and_successes_name_the_servers_own_address() {
        let (_, told) = read(
            "2026/11/21 06.15 FAILED OPER (boss) by (bad!~x@(10.9.9.9) (10.78.0.30) -- requires SSL/TLS",
        );
        assert_eq!(told, ["login.failed from 10.78.0.30 method oper account \"boss\" nickname \"bad\""]);
        let (_, told) = read("2026/11/21 06.15 OPER boss by dave!~dave@host.example (10.78.0.23)");
        assert_eq!(told, ["login.succeeded from 10.78.0.23 method oper account \"boss\" nickname \"dave\""]);
        let (_, told) = read("2026/11/21 06.15 Too many local connections from nick!user@10.78.0.31");
        assert_eq!(told, ["connection.refused from 10.78.0.31 nickname \"nick\" reason clones"]);
        let (_, told) =
            read("2026/11/21 06.15 Sat Nov 21 06:14:00 2026 (0:01:02): nick!user@host 10.78.0.32 3/0");
        assert_eq!(told, ["connection.closed from 10.78.0.32 nickname \"nick\""]);
    }

    #[test]
    fn what_does_not_fit_to_its_end_says_nothing() {
        for line in [
            "2026/11/21 06.15 FAILED OPER (boss) by (bad!~x@y) (10.78.0.30) and more",
            "2026/11/21 06.15 OPER boss by dave!~dave@host (10.78.0.23) x",
            "2026/11/21 06.15 whatever",
            "FAILED OPER (boss) by (bad!~x@y) (10.78.0.30)",
        ] {
            assert_eq!(read(line), (Reading::Unknown, Vec::new()), "{line}");
        }
        assert_eq!(read("2026/11/21 06.15 K dave 0 * 10.0.0.1 spam").0, Reading::Understood);
    }
}
