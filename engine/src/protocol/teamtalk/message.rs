//! One line of the TeamTalk control channel: a keyword and `name=value` parameters (`teamtalk.md` a.2).
//!
//! Reading never fails: what is not a parameter ends the parameters. Names and keywords are case-sensitive.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// A line, borrowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// The command or event.
    pub keyword: &'a [u8],
    parameters: &'a [u8],
}

/// Bytes of a quoted value that are kept of a line too long to be kept whole. Servers pass on 511 of a message.
const VALUE_BYTES_KEPT: usize = 1_024;

/// Cuts long quoted values, so that what follows them can still be read; one that is still open stays open.
pub fn shorten(line: &mut Vec<u8>) {
    let mut kept = Vec::with_capacity(line.len().min(4 * VALUE_BYTES_KEPT));
    let mut rest = line.as_slice();
    while let Some(open) = memchr(b'"', rest) {
        let (before, quoted) = rest.split_at_checked(open.saturating_add(1)).unwrap_or((rest, &[]));
        kept.extend_from_slice(before);
        // Whatever is escaped does not end the value, and is not cut in two.
        let (mut at, mut cut) = (0_usize, None);
        while let Some(byte) = quoted.get(at) {
            if *byte == b'"' {
                break;
            }
            if at >= VALUE_BYTES_KEPT {
                cut.get_or_insert(at);
            }
            at = at.saturating_add(if *byte == b'\\' { 2 } else { 1 });
        }
        let end = at.min(quoted.len());
        let (value, after) = quoted.split_at_checked(end).unwrap_or((quoted, &[]));
        match cut {
            // An escape that is not whole yet must stay so.
            Some(cut) => {
                kept.extend_from_slice(value.get(..cut).unwrap_or(value));
                if at > quoted.len() {
                    kept.push(b'\\');
                }
            }
            None => kept.extend_from_slice(value),
        }
        rest = match after.split_first() {
            Some((quote, after)) => {
                kept.push(*quote);
                after
            }
            None => &[],
        };
    }
    kept.extend_from_slice(rest);
    *line = kept;
}

/// The value of one parameter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// Between quotes, escapes still in it.
    Quoted(&'a [u8]),
    /// Between brackets.
    List(&'a [u8]),
    /// Up to the next blank: a number, or a string the server accepts without quotes.
    Bare(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Reads a line without its line end. `None` if it has no keyword: empty, or with a blank in front.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let end = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
        let (keyword, parameters) = line.split_at_checked(end)?;
        if keyword.is_empty() { None } else { Some(Self { keyword, parameters }) }
    }

    /// The parameters, in order.
    pub const fn parameters(&self) -> Parameters<'a> {
        Parameters { rest: self.parameters, is_broken: false }
    }

    /// Whether the server can read the line: parameters to its end, in UTF-8, without NUL. If not it answers with
    /// error 1000 whatever the command.
    pub fn is_well_formed(&self) -> bool {
        let mut parameters = self.parameters();
        while parameters.next().is_some() {}
        let is_text = std::str::from_utf8(self.parameters).is_ok() && !self.parameters.contains(&0);
        is_text && parameters.rest.trim_ascii().is_empty() && !parameters.is_broken
    }

    /// The last value of a parameter: the server lets the last one win.
    pub fn value(&self, name: &str) -> Option<Value<'a>> {
        self.parameters().filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// A parameter as text, escapes resolved.
    pub fn text(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.value(name)?.text()
    }

    /// Whether a text parameter is there and not empty. For secrets, whose value must not be copied.
    pub fn has_text(&self, name: &str) -> bool {
        self.value(name).is_some_and(Value::has_text)
    }

    /// A parameter as a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.number()
    }

    /// The last values of several parameters, in one walk.
    #[inline]
    pub fn values<const N: usize>(&self, names: [&[u8]; N]) -> [Option<Value<'a>>; N] {
        let mut values = [None; N];
        for (found, value) in self.parameters() {
            let named = names.iter().zip(&mut values).find(|(name, _)| **name == found);
            if let Some((_, slot)) = named {
                *slot = Some(value);
            }
        }
        values
    }

    /// The first values of several parameters, in one walk that ends when all are found: for what the server says, who
    /// gives no parameter twice and lets nobody write one into its lines.
    #[inline]
    pub fn first_values<const N: usize>(&self, names: [&[u8]; N]) -> [Option<Value<'a>>; N] {
        let mut values = [None; N];
        let mut missing = N;
        for (found, value) in self.parameters() {
            let named = names.iter().zip(&mut values).find(|(name, _)| **name == found);
            if let Some((_, slot @ None)) = named {
                *slot = Some(value);
                missing = missing.saturating_sub(1);
                if missing == 0 {
                    break;
                }
            }
        }
        values
    }

    /// A parameter as a user id of a client: 1 to 4094.
    pub fn user_id(&self, name: &str) -> Option<u16> {
        self.value(name)?.user_id()
    }
}

impl<'a> Value<'a> {
    /// As text, escapes resolved.
    pub fn text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Quoted(raw) => Some(unescape(raw)),
            Self::Bare(raw) => Some(Cow::Borrowed(raw)),
            Self::List(_) => None,
        }
    }

    /// Whether it is a text that is not empty.
    pub const fn has_text(self) -> bool {
        match self {
            Self::Quoted(raw) | Self::Bare(raw) => !raw.is_empty(),
            Self::List(_) => false,
        }
    }

    /// As a number.
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Bare(raw) => std::str::from_utf8(raw).ok()?.parse().ok(),
            Self::Quoted(_) | Self::List(_) => None,
        }
    }

    /// As a user id of a client: 1 to 4094.
    pub fn user_id(self) -> Option<u16> {
        let id = u16::try_from(self.number()?).ok()?;
        (1..=0xffe).contains(&id).then_some(id)
    }
}

/// Walks over the parameters of a line; ends at the first thing that is none.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    rest: &'a [u8],
    is_broken: bool,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, after) = match plain_name(self.rest) {
            Some(split) => split,
            None => self.unusual_name()?,
        };
        let (value, rest) = match after.first() {
            Some(b'"') => quoted(after.get(1..)?),
            Some(b'[') => list(after.get(1..)?),
            Some(_) => bare(after),
            None => None,
        }?;
        self.rest = rest;
        Some((name, value))
    }
}

/// A name as everybody writes it: after one blank, with nothing between it and the value.
#[inline]
fn plain_name(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = rest.strip_prefix(b" ")?;
    // Names are a dozen letters at most: preparing a search would cost more than searching.
    let end = rest.iter().position(|byte| *byte <= b' ' || *byte == b'=')?;
    let (name, after) = rest.split_at_checked(end)?;
    let after = after.strip_prefix(b"=")?;
    let is_plain = !name.is_empty() && after.first().is_some_and(|first| *first > b' ');
    is_plain.then_some((name, after))
}

impl<'a> Parameters<'a> {
    /// A name and what follows it, with blanks wherever the server takes them.
    #[cold]
    fn unusual_name(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let rest = self.rest.trim_ascii_start();
        let equals = memchr(b'=', rest)?;
        let (name, after) = rest.split_at_checked(equals)?;
        let name = name.trim_ascii_end();
        if name.is_empty() || name.iter().copied().any(is_blank) {
            return self.end();
        }
        Some((name, after.get(1..)?.trim_ascii_start()))
    }

    const fn end<T>(&mut self) -> Option<T> {
        self.is_broken = true;
        self.rest = &[];
        None
    }
}

/// Bytes of a value that are looked at one by one before a search is prepared for the rest.
const SHORT_VALUE_BYTES: usize = 24;

#[inline]
fn quoted(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let short = text.get(..SHORT_VALUE_BYTES).unwrap_or(text);
    let mut from = short.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(short.len());
    if text.get(from) == Some(&b'"') {
        return Some((Value::Quoted(text.get(..from)?), text.get(from.checked_add(1)?..)?));
    }
    loop {
        let at = from.checked_add(memchr2(b'"', b'\\', text.get(from..)?)?)?;
        if text.get(at) == Some(&b'"') {
            return Some((Value::Quoted(text.get(..at)?), text.get(at.checked_add(1)?..)?));
        }
        // Whatever is escaped does not end the value.
        from = at.checked_add(2)?;
    }
}

fn list(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let end = memchr(b']', text)?;
    Some((Value::List(text.get(..end)?), text.get(end.checked_add(1)?..)?))
}

fn bare(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let end = text.iter().position(|byte| is_blank(*byte)).unwrap_or(text.len());
    let (value, rest) = text.split_at_checked(end)?;
    Some((Value::Bare(value), rest))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\r' | b'\n')
}

fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut escaped = false;
    for byte in raw {
        match (escaped, byte) {
            (false, b'\\') => escaped = true,
            (false, other) => text.push(*other),
            (true, other) => {
                text.push(match other {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    other => *other,
                });
                escaped = false;
            }
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> Message<'_> {
        Message::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn long_values_are_cut_and_what_follows_them_is_read() {
        for filler in ["x", "\\\"", "\\\\"] {
            let long = filler.repeat(9_000);
            let whole = format!("message content=\"{long}\" type=2 chanid=1 to=\"b\"");
            let mut line = whole.clone().into_bytes();
            shorten(&mut line);
            assert!(line.len() < 1_100, "{}", line.len());
            let message = Message::parse(&line).unwrap();
            assert_eq!((message.number("type"), message.number("chanid")), (Some(2), Some(1)));
            assert!(message.is_well_formed());
            // In any two parts, whatever the cut falls into.
            for at in [500, 1_023, 1_024, 1_025, 1_040, 1_041, 5_000, 5_001] {
                let (one, other) = whole.as_bytes().split_at(at);
                let mut parts = one.to_vec();
                shorten(&mut parts);
                parts.extend_from_slice(other);
                shorten(&mut parts);
                assert_eq!(parts, line, "{filler} at {at}");
            }
        }
    }

    #[test]
    fn a_login_line_of_a_client() {
        let login =
            message(r#"login nickname="Alice" username="alice" password="alice-pw" protocol="5.14" id=1"#);
        assert_eq!(login.keyword, b"login");
        assert_eq!(login.text("username").unwrap().as_ref(), b"alice");
        assert!(login.has_text("password") && !login.has_text("clientname"));
        assert_eq!(login.number("id"), Some(1));
        assert_eq!(login.number("username"), None);
    }

    #[test]
    fn values_of_every_form() {
        let line = message(r#"x a="q \"w\" \\ \r\n" b = -7 c=[1,2,3] d=word e=[] f="" "#);
        assert_eq!(line.text("a").unwrap().as_ref(), b"q \"w\" \\ \r\n");
        assert_eq!(line.number("b"), Some(-7));
        assert_eq!(line.value("c"), Some(Value::List(b"1,2,3")));
        assert_eq!(line.text("d").unwrap().as_ref(), b"word");
        assert_eq!(line.value("e"), Some(Value::List(b"")));
        assert_eq!(line.value("f"), Some(Value::Quoted(b"")));
        assert_eq!(line.value("g"), None);
    }

    #[test]
    fn the_last_of_equal_names_wins_and_quotes_cannot_be_broken_out_of() {
        let line = message(r#"login username="x\" username=\"admin" username="bob""#);
        assert_eq!(line.text("username").unwrap().as_ref(), b"bob");
        let line = message(r#"login username="x\\" password="p""#);
        assert_eq!(line.text("username").unwrap().as_ref(), b"x\\");
        assert!(line.has_text("password"));
    }

    #[test]
    fn what_is_no_parameter_ends_the_parameters() {
        let line = message(r#"cmd a=1 junk b=2"#);
        assert_eq!((line.number("a"), line.number("b")), (Some(1), None));
        let line = message(r#"cmd a="never closed"#);
        assert_eq!(line.value("a"), None);
        assert_eq!(Message::parse(b""), None);
        assert_eq!(Message::parse(b" ping"), None);
    }
}
