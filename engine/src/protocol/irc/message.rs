//! The grammar of one line. Total: every line is a message or one of a few named mistakes.
//!
//! `[@tags SP+] [:source SP+] command *(SP+ middle) [SP+ :trailing]`, at most 15 parameters. Nothing is
//! allocated; the parts borrow from the line.

use std::fmt;

use memchr::memchr;

/// Longest legal line with its tags and CR LF (IRCv3 message-tags).
pub const LINE_BYTES_MAX: usize = 8703;

/// Longest legal line without tags, with CR LF (RFC 1459).
pub const CONTENT_BYTES_MAX: usize = 512;

/// Parameters of one message; the last takes what is left.
pub const PARAMS_MAX: usize = 15;

/// One message, borrowed from its line.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Tags without the `@`.
    pub tags: Option<&'a [u8]>,
    /// Source without the `:`.
    pub source: Option<&'a [u8]>,
    /// The command: letters in any case, or three digits.
    pub command: &'a [u8],
    /// Bytes of the line without its tags and line end.
    pub content_bytes: usize,
    params: [&'a [u8]; PARAMS_MAX],
    count: usize,
}

/// Why a line is no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// The command is neither letters nor three digits.
    BadCommand,
    /// Nothing but spaces.
    Empty,
    /// Tags or a source and then nothing.
    NoCommand,
}

impl<'a> Message<'a> {
    /// Reads one line, which has no line end any more.
    pub fn parse(line: &'a [u8]) -> Result<Self, Malformed> {
        let line = skip_spaces(line);
        if line.is_empty() {
            return Err(Malformed::Empty);
        }
        let (tags, content) = prefixed(line, b"@");
        let (source, rest) = prefixed(content, b":");
        let (command, mut rest) = word(rest);
        if command.is_empty() {
            return Err(Malformed::NoCommand);
        }
        if !is_command(command) {
            return Err(Malformed::BadCommand);
        }
        let mut message =
            Self { tags, source, command, content_bytes: content.len(), params: [b""; PARAMS_MAX], count: 0 };
        while !rest.is_empty() {
            rest = message.take_param(rest);
        }
        Ok(message)
    }

    /// The same message with its command in capitals, written into `buffer`: servers take commands in any case,
    /// so a reader that did not would miss some. A command longer than the buffer stays as it is: none is.
    pub fn in_capitals(mut self, buffer: &'a mut [u8; 16]) -> Self {
        if let Some(command) = buffer.get_mut(..self.command.len()) {
            command.copy_from_slice(self.command);
            command.make_ascii_uppercase();
            self.command = command;
        }
        self
    }

    fn take_param(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let is_last = self.count.saturating_add(1) >= PARAMS_MAX;
        let (param, rest): (&[u8], &[u8]) = match rest.strip_prefix(b":") {
            Some(trailing) => (trailing, b""),
            None if is_last => (rest, b""),
            None => word(rest),
        };
        if let Some(slot) = self.params.get_mut(self.count) {
            *slot = param;
            self.count = self.count.saturating_add(1);
        }
        rest
    }

    /// The parameters, trailing one included.
    pub fn params(&self) -> &[&'a [u8]] {
        self.params.get(..self.count).unwrap_or_default()
    }

    /// The parameter with this index.
    pub fn param(&self, index: usize) -> Option<&'a [u8]> {
        self.params().get(index).copied()
    }

    /// The last parameter.
    pub fn last(&self) -> Option<&'a [u8]> {
        self.params().last().copied()
    }

    /// The number, when the command is one.
    pub fn numeric(&self) -> Option<u32> {
        match self.command {
            [a, b, c] if self.command.iter().all(u8::is_ascii_digit) => {
                Some([a, b, c].into_iter().fold(0_u32, |number, digit| {
                    number.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0')))
                }))
            }
            _ => None,
        }
    }

    /// The nickname in the source, or the server's name.
    pub fn source_name(&self) -> Option<&'a [u8]> {
        let source = self.source?;
        source.split(|byte| matches!(byte, b'!' | b'@')).next()
    }

    /// Whether the source is a user: `nick!user@host`.
    pub fn is_from_user(&self) -> bool {
        self.source.is_some_and(|source| memchr(b'!', source).is_some())
    }
}

impl fmt::Debug for Message<'_> {
    /// The command and the number of parameters alone: the rest may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} +{})", self.command.escape_ascii(), self.count)
    }
}

fn is_command(command: &[u8]) -> bool {
    command.iter().all(u8::is_ascii_alphabetic)
        || (command.len() == 3 && command.iter().all(u8::is_ascii_digit))
}

/// A first word that begins with `mark`, without it, and what follows.
fn prefixed<'a>(bytes: &'a [u8], mark: &[u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    match bytes.strip_prefix(mark) {
        Some(rest) => {
            let (first, rest) = word(rest);
            (Some(first), rest)
        }
        None => (None, bytes),
    }
}

/// Bytes up to the first space, and what follows the spaces.
fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr(b' ', bytes).unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    (first, skip_spaces(rest))
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
    bytes.get(spaces..).unwrap_or_default()
}

/// Lower case of one byte under the rfc1459 case mapping. Networks with the ascii mapping tell `[` from `{`;
/// taking them for one name there costs nothing here.
pub const fn fold(byte: u8) -> u8 {
    match byte {
        b'[' => b'{',
        b']' => b'}',
        b'\\' => b'|',
        b'~' => b'^',
        _ => byte.to_ascii_lowercase(),
    }
}

/// Whether two nicknames or channels are the same one.
pub fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| fold(*one) == fold(*other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_command_has_its_parameters() {
        let message = Message::parse(b"USER alice 0 * :test user").unwrap();
        assert_eq!(message.command, b"USER");
        assert_eq!(message.params(), [b"alice".as_slice(), b"0", b"*", b"test user"]);
        assert_eq!(message.source, None);
        assert_eq!(message.numeric(), None);
    }

    #[test]
    fn tags_and_source_are_taken_apart() {
        let line = b"@time=2026-11-21T05:51:49.000Z;+x=:y   :bob!~bob@10.78.0.21  PRIVMSG  #chat  ::-) hi ";
        let message = Message::parse(line).unwrap();
        assert_eq!(message.tags, Some(b"time=2026-11-21T05:51:49.000Z;+x=:y".as_slice()));
        assert_eq!(message.source_name(), Some(b"bob".as_slice()));
        assert!(message.is_from_user());
        assert_eq!(message.params(), [b"#chat".as_slice(), b":-) hi "]);
        assert_eq!(message.content_bytes, line.len() - 39);
    }

    #[test]
    fn numerics_are_numbers() {
        let line = b":alpha.test 464 badoper :Password incorrect";
        let message = Message::parse(line).unwrap();
        assert_eq!(message.numeric(), Some(464));
        assert_eq!(message.source_name(), Some(b"alpha.test".as_slice()));
        assert!(!message.is_from_user());
    }

    #[test]
    fn the_fifteenth_parameter_takes_the_rest() {
        let message = Message::parse(b"X 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 :17").unwrap();
        assert_eq!(message.params().len(), 15);
        assert_eq!(message.last(), Some(b"15 16 :17".as_slice()));
    }

    #[test]
    fn an_empty_trailing_parameter_is_one() {
        let message = Message::parse(b"PRIVMSG #chat :").unwrap();
        assert_eq!(message.params(), [b"#chat".as_slice(), b""]);
    }

    #[test]
    fn mistakes_have_names() {
        assert_eq!(Message::parse(b"").unwrap_err(), Malformed::Empty);
        assert_eq!(Message::parse(b"   ").unwrap_err(), Malformed::Empty);
        assert_eq!(Message::parse(b":source").unwrap_err(), Malformed::NoCommand);
        assert_eq!(Message::parse(b"@tags").unwrap_err(), Malformed::NoCommand);
        assert_eq!(Message::parse(b"Host: irc.example").unwrap_err(), Malformed::BadCommand);
        assert_eq!(Message::parse(b"12 x").unwrap_err(), Malformed::BadCommand);
    }

    #[test]
    fn names_fold_as_rfc1459_says() {
        assert!(is_same_name(b"Nick[a]\\~", b"nICK{A}|^"));
        assert!(!is_same_name(b"nick", b"nick_"));
    }

    #[test]
    fn debug_output_shows_no_parameter() {
        let message = Message::parse(b"PASS hunter2").unwrap();
        assert_eq!(format!("{message:?}"), "Message(PASS +1)");
    }

    proptest! {
        #[test]
        fn any_line_is_a_message_or_a_mistake(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = Message::parse(&line) {
                prop_assert!(!message.command.is_empty());
                prop_assert!(message.params().len() <= PARAMS_MAX);
                prop_assert!(message.content_bytes <= line.len());
            }
        }
    }
}
