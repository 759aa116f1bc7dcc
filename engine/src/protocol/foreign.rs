//! The first bytes of a connection: which of them belong to other protocols.
//!
//! Decided byte by byte, so that the outcome does not depend on how the bytes were cut, and never later than at
//! the first line end.

/// Bytes that settle it in every case.
const HEAD_BYTES_MAX: usize = 16;

/// A protocol that is not the service's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Foreign {
    /// Control bytes or high bytes of no protocol named here.
    Binary,
    /// A request of HTTP.
    Http,
    /// A request to be a proxy: HTTP's CONNECT. As first words no IRC client says them.
    HttpConnect,
    /// A HAProxy header: the rest may well be the service's protocol.
    Proxy,
    /// A mail server's greeting.
    Smtp,
    /// A request of SOCKS 4.
    Socks4,
    /// A request of SOCKS 5.
    Socks5,
    /// SSH.
    Ssh,
    /// A TLS record.
    Tls,
}

impl Foreign {
    /// The name in signals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Http => "http",
            Self::HttpConnect => "http-connect",
            Self::Proxy => "proxy",
            Self::Smtp => "smtp",
            Self::Socks4 => "socks4",
            Self::Socks5 => "socks5",
            Self::Ssh => "ssh",
            Self::Tls => "tls",
        }
    }
}

/// Beginnings that are text, with what they mean.
const WORDS: [(&[u8], Foreign); 18] = [
    (b"GET ", Foreign::Http),
    (b"POST ", Foreign::Http),
    (b"PUT ", Foreign::Http),
    (b"HEAD ", Foreign::Http),
    (b"OPTIONS ", Foreign::Http),
    (b"DELETE ", Foreign::Http),
    (b"PATCH ", Foreign::Http),
    (b"TRACE /", Foreign::Http),
    (b"PROPFIND ", Foreign::Http),
    (b"PRI * HTTP/", Foreign::Http),
    (b"HTTP/", Foreign::Http),
    (b"CONNECT ", Foreign::HttpConnect),
    (b"PROXY TCP", Foreign::Proxy),
    (b"PROXY UNKNOWN", Foreign::Proxy),
    (b"EHLO ", Foreign::Smtp),
    (b"HELO ", Foreign::Smtp),
    (b"SSH-1.", Foreign::Ssh),
    (b"SSH-2.", Foreign::Ssh),
];

/// What is known about the first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    /// Too few yet.
    Undecided,
    /// Nothing foreign.
    Own,
    /// Somebody else's.
    Foreign(Foreign),
}

/// The first bytes of one side.
#[derive(Clone)]
pub struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    count: usize,
    is_decided: bool,
}

impl Head {
    /// Nothing seen yet.
    pub const fn new() -> Self {
        Self { bytes: [0; HEAD_BYTES_MAX], count: 0, is_decided: false }
    }

    /// The beginning was missed: nothing can be said.
    pub const fn missed() -> Self {
        Self { bytes: [0; HEAD_BYTES_MAX], count: 0, is_decided: true }
    }

    /// Takes the next bytes; `Some`, once, when they turn out to be foreign.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Foreign> {
        if self.is_decided {
            return None;
        }
        for byte in bytes {
            match self.push(*byte) {
                Reading::Undecided => {}
                Reading::Own => {
                    self.is_decided = true;
                    return None;
                }
                Reading::Foreign(foreign) => {
                    self.is_decided = true;
                    return Some(foreign);
                }
            }
        }
        None
    }

    /// Whether it is settled what this side speaks.
    pub const fn is_decided(&self) -> bool {
        self.is_decided
    }

    fn push(&mut self, byte: u8) -> Reading {
        if self.count == 0 && matches!(byte, b'\r' | b'\n') {
            return Reading::Undecided;
        }
        let Some(slot) = self.bytes.get_mut(self.count) else {
            return Reading::Own;
        };
        *slot = byte;
        self.count = self.count.saturating_add(1);
        read(self.bytes.get(..self.count).unwrap_or_default())
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

fn read(head: &[u8]) -> Reading {
    match head {
        [] | [0x16] => Reading::Undecided,
        [0x16, 0x03, ..] => Reading::Foreign(Foreign::Tls),
        [0x04, ..] => Reading::Foreign(Foreign::Socks4),
        [0x05, ..] => Reading::Foreign(Foreign::Socks5),
        [first, ..] if *first >= 0x80 || (*first < b' ' && *first != b'\t') => {
            Reading::Foreign(Foreign::Binary)
        }
        _ => read_text(head),
    }
}

fn read_text(head: &[u8]) -> Reading {
    if let Some((_, foreign)) = WORDS.iter().find(|(word, _)| head.starts_with(word)) {
        return Reading::Foreign(*foreign);
    }
    if WORDS.iter().any(|(word, _)| word.starts_with(head)) { Reading::Undecided } else { Reading::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Option<Foreign> {
        let whole = Head::new().take(bytes);
        let mut head = Head::new();
        let single = bytes.chunks(1).find_map(|byte| head.take(byte));
        assert_eq!(whole, single, "the cut must not matter");
        whole
    }

    #[test]
    fn other_protocols_are_told_apart() {
        assert_eq!(first(b"GET / HTTP/1.1\r\n"), Some(Foreign::Http));
        assert_eq!(first(b"\r\nPOST / HTTP/1.1\r\n"), Some(Foreign::Http));
        assert_eq!(first(b"CONNECT host:25 HTTP/1.0\r\n"), Some(Foreign::HttpConnect));
        assert_eq!(first(b"\x16\x03\x01\x02\x00\x01"), Some(Foreign::Tls));
        assert_eq!(first(b"\x16\x16"), Some(Foreign::Binary));
        assert_eq!(first(b"\x04\x01\x00\x19"), Some(Foreign::Socks4));
        assert_eq!(first(b"\x05\x01\x00"), Some(Foreign::Socks5));
        assert_eq!(first(b"SSH-2.0-OpenSSH_9.2\r\n"), Some(Foreign::Ssh));
        assert_eq!(first(b"EHLO mail\r\n"), Some(Foreign::Smtp));
        assert_eq!(first(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"), Some(Foreign::Proxy));
        assert_eq!(first(b"\xff\xfb\x01"), Some(Foreign::Binary));
    }

    #[test]
    fn own_beginnings_are_left_alone() {
        for own in [b"NICK a".as_slice(), b"CAP LS 302", b"PASS x", b"PROTOCTL EAUTH=a", b"@a=b NICK c"] {
            assert_eq!(first(own), None, "{}", own.escape_ascii());
        }
        for own in [b"login a b\n".as_slice(), b"help\n", b"P\r\n", b"PRIVMSG #a :b", b"\r\n\r\n"] {
            assert_eq!(first(own), None, "{}", own.escape_ascii());
        }
    }
}
