//! TLS from outside: whether a handshake was completed or failed, and whether the server talks unasked. Nothing of its content
//! is kept.
//!
//! Only the five bytes in front of each record are read (RFC 8446 section 5.1, RFC 5246 section 6.2). Completed is
//! a handshake when the server sends application data after the client has answered its hello; that a server which
//! rejects the client's last word says so in an encrypted alert is known by its length.

use super::Side;
use crate::time::{Span, Timestamp};

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A connection that ends so soon after it was opened, and on which the server has not spoken unasked, has been of use to nobody:
/// a login that failed, a scan, a flood.
pub const TLS_BRIEF: Span = Span::from_secs(30);

/// No answer takes longer, even of a server that asks another about the password.
const ANSWERED_WITHIN: Span = Span::from_secs(5);

/// No record is longer, with what encryption adds (RFC 5246 section 6.2.3).
const RECORD_BYTES_MAX: u16 = 16_384 + 2_048;
/// An alert of two bytes, its type, and the longest tag: no shorter message is worth a record.
const ENCRYPTED_ALERT_BYTES_MAX: u16 = 24;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    /// From the start: nothing has been said.
    Undecided,
    /// From `Undecided`: the client has begun one.
    Offered,
    /// From `Offered`: the server has answered.
    Answered,
    /// From `Answered`: the client has sent what ends its part.
    Concluded,
    /// From `Concluded`: the server talks under its protection.
    Completed,
    /// From `Offered` by the server's alert, later by one of either side.
    Failed,
    /// From `Undecided` or `Offered`: somebody does not speak TLS.
    NotTls,
}

/// Follows one connection's records.
#[derive(Clone, Debug)]
pub struct Tracker {
    handshake: Handshake,
    client: Records,
    server: Records,
}

impl Tracker {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self { handshake: Handshake::Undecided, client: Records::new(), server: Records::new() }
    }

    /// A connection on which TLS is out of the question.
    pub const fn ruled_out() -> Self {
        Self { handshake: Handshake::NotTls, client: Records::new(), server: Records::new() }
    }

    /// Takes the next bytes of one side.
    pub fn take(&mut self, side: Side, bytes: &[u8]) -> Handshake {
        let mut rest = bytes;
        while !self.is_settled() {
            let records = match side {
                Side::Client => &mut self.client,
                Side::Server => &mut self.server,
            };
            let Some(header) = records.next(&mut rest) else {
                return self.handshake;
            };
            self.handshake = match header {
                Some((kind, length)) => self.advance(side, kind, length),
                None => self.refuse(),
            };
        }
        self.handshake
    }

    /// What is known.
    pub const fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// Whether a handshake was begun and has not been settled.
    pub const fn is_under_way(&self) -> bool {
        matches!(self.handshake, Handshake::Offered | Handshake::Answered | Handshake::Concluded)
    }

    /// Whether neither side has said anything.
    pub const fn is_untouched(&self) -> bool {
        matches!(self.handshake, Handshake::Undecided) && self.client.have == 0 && self.server.have == 0
    }

    /// Whether the client has begun what may be its hello, and not finished it.
    pub const fn is_unfinished(&self) -> bool {
        matches!(self.handshake, Handshake::Undecided) && self.client.have > 0
    }

    const fn is_settled(&self) -> bool {
        matches!(self.handshake, Handshake::Completed | Handshake::Failed | Handshake::NotTls)
    }

    /// Something that is no record: nobody speaks TLS, or somebody has stopped to.
    const fn refuse(&self) -> Handshake {
        match self.handshake {
            Handshake::Undecided | Handshake::Offered => Handshake::NotTls,
            Handshake::Answered
            | Handshake::Concluded
            | Handshake::Completed
            | Handshake::Failed
            | Handshake::NotTls => Handshake::Failed,
        }
    }

    const fn advance(&self, side: Side, kind: u8, length: u16) -> Handshake {
        match (self.handshake, side, kind) {
            // To a server that has said nothing anybody can say anything.
            (Handshake::Undecided, _, ALERT) => Handshake::NotTls,
            (Handshake::Offered, Side::Client, ALERT) => Handshake::Offered,
            (_, _, ALERT) => Handshake::Failed,
            (Handshake::Undecided, Side::Client, HANDSHAKE) => Handshake::Offered,
            (Handshake::Offered, Side::Server, HANDSHAKE) => Handshake::Answered,
            (Handshake::Answered, Side::Client, CHANGE_CIPHER_SPEC | APPLICATION_DATA) => {
                Handshake::Concluded
            }
            (Handshake::Concluded, Side::Server, APPLICATION_DATA) if length <= ENCRYPTED_ALERT_BYTES_MAX => {
                Handshake::Failed
            }
            (Handshake::Concluded, Side::Server, APPLICATION_DATA) => Handshake::Completed,
            (known, _, _) => known,
        }
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the server talks to a client that has asked for nothing. It does so to those who are logged in, whose friends come, go
/// and speak; to others it only answers. How long an answer is proves nothing: it answers nonsense too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listener {
    /// When the client spoke last, or bytes of it were missed.
    asked_at: Timestamp,
    /// Whether the server has spoken since: what it says first is the answer, however late the client lets it come.
    is_answered: bool,
}

impl Listener {
    /// From the end of the handshake.
    pub const fn new(now: Timestamp) -> Self {
        Self { asked_at: now, is_answered: false }
    }

    /// Takes note that a side spoke. Whether the server did so unasked.
    pub fn is_addressed(&mut self, side: Side, now: Timestamp) -> bool {
        match side {
            Side::Client => {
                *self = Self::new(now);
                false
            }
            Side::Server => {
                let is_unasked = self.is_answered && now.since(self.asked_at) >= ANSWERED_WITHIN;
                self.is_answered = true;
                is_unasked
            }
        }
    }
}

/// One side's records: the header of the current one, and how much of it is still to come.
#[derive(Clone, Debug)]
struct Records {
    /// As much as has come of the header.
    header: [u8; 5],
    have: usize,
    skip: u16,
}

impl Records {
    const fn new() -> Self {
        Self { header: [0; 5], have: 0, skip: 0 }
    }

    /// Type and length of the next record whose header is complete; `Some(None)` if this is no record.
    fn next(&mut self, rest: &mut &[u8]) -> Option<Option<(u8, u16)>> {
        loop {
            let skipped = rest.len().min(usize::from(self.skip));
            *rest = rest.get(skipped..)?;
            self.skip = self.skip.saturating_sub(u16::try_from(skipped).unwrap_or(u16::MAX));
            let (byte, tail) = rest.split_first()?;
            *rest = tail;
            *self.header.get_mut(self.have)? = *byte;
            self.have = self.have.saturating_add(1);
            let [kind, major, _, high, low] = self.header;
            let length = u16::from_be_bytes([high, low]);
            match self.have {
                1 if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) => return Some(None),
                2 if major != 3 => return Some(None),
                1..=4 => {}
                _ => {
                    self.have = 0;
                    self.skip = length;
                    let fits = length > 0 && length <= RECORD_BYTES_MAX;
                    return Some(fits.then_some((kind, length)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_soon_after_the_client_spoke_is_an_answer() {
        let mut listener = Listener::new(Timestamp::from_secs(100));
        assert!(!listener.is_addressed(Side::Server, Timestamp::from_secs(104)));
        assert!(!listener.is_addressed(Side::Client, Timestamp::from_secs(130)));
        // Whoever keeps their window shut gets their answer late.
        assert!(!listener.is_addressed(Side::Server, Timestamp::from_secs(140)));
        assert!(listener.is_addressed(Side::Server, Timestamp::from_secs(141)));
    }

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(length), 0x5a);
        bytes
    }

    /// Plays `(side, type, length)` whole and byte by byte.
    fn outcome(records: &[(Side, u8, u16)]) -> Handshake {
        let mut whole = Tracker::new();
        let mut single = Tracker::new();
        for (side, kind, length) in records {
            let bytes = record(*kind, *length);
            whole.take(*side, &bytes);
            for byte in bytes.chunks(1) {
                single.take(*side, byte);
            }
        }
        assert_eq!(whole.handshake(), single.handshake(), "the cut must not matter");
        whole.handshake()
    }

    #[test]
    fn handshakes_of_both_versions_are_completed_by_the_servers_words() {
        use Side::{Client, Server};
        let tls13 = [
            (Client, HANDSHAKE, 512),
            (Server, HANDSHAKE, 122),
            (Server, CHANGE_CIPHER_SPEC, 1),
            (Server, APPLICATION_DATA, 2_000),
            (Client, CHANGE_CIPHER_SPEC, 1),
            (Client, APPLICATION_DATA, 69),
            (Server, APPLICATION_DATA, 250),
        ];
        assert_eq!(outcome(&tls13), Handshake::Completed);
        assert_eq!(outcome(&tls13[..6]), Handshake::Concluded);
        let tls12 = [
            (Client, HANDSHAKE, 300),
            (Server, HANDSHAKE, 3_000),
            (Client, HANDSHAKE, 66),
            (Client, CHANGE_CIPHER_SPEC, 1),
            (Client, HANDSHAKE, 40),
            (Server, CHANGE_CIPHER_SPEC, 1),
            (Server, HANDSHAKE, 40),
            (Server, APPLICATION_DATA, 150),
        ];
        assert_eq!(outcome(&tls12), Handshake::Completed);
    }

    #[test]
    fn alerts_fail_a_handshake_even_encrypted() {
        use Side::{Client, Server};
        assert_eq!(outcome(&[(Client, HANDSHAKE, 300), (Server, ALERT, 2)]), Handshake::Failed);
        let refused_certificate = [(Client, HANDSHAKE, 300), (Server, HANDSHAKE, 900), (Client, ALERT, 2)];
        assert_eq!(outcome(&refused_certificate), Handshake::Failed);
        let refused_finish = [
            (Client, HANDSHAKE, 300),
            (Server, HANDSHAKE, 122),
            (Client, APPLICATION_DATA, 69),
            (Server, APPLICATION_DATA, 19),
        ];
        assert_eq!(outcome(&refused_finish), Handshake::Failed);
    }

    #[test]
    fn other_talk_is_no_tls() {
        let mut tracker = Tracker::new();
        assert_eq!(tracker.take(Side::Client, b"login id=1\n"), Handshake::NotTls);
        let mut tracker = Tracker::new();
        assert_eq!(tracker.take(Side::Server, b"teamtalk userid=1\r\n"), Handshake::NotTls);
        let mut tracker = Tracker::new();
        assert_eq!(tracker.take(Side::Client, &record(HANDSHAKE, 300)), Handshake::Offered);
        assert!(tracker.is_under_way());
        assert_eq!(tracker.take(Side::Server, b"teamtalk userid=1\r\n"), Handshake::NotTls);
    }
}
