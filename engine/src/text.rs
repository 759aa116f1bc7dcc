//! Text somebody else chose: bounded when it is kept, escaped when it is shown.

use std::{fmt, sync::Arc};

/// Bytes kept of any one name.
pub const TEXT_BYTES_MAX: usize = 96;

/// A name, channel or account as it came over the wire, cut to [`TEXT_BYTES_MAX`] bytes. Every signal names
/// somebody, so copies share.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Text(Arc<str>);

impl Text {
    /// Keeps the beginning of `bytes`; what is not UTF-8 becomes the replacement character.
    pub fn new(bytes: &[u8]) -> Self {
        let cut = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
        let text = match std::str::from_utf8(cut) {
            Ok(text) => text.into(),
            // A character cut in half at the end is dropped; broken text elsewhere is marked.
            Err(error) if error.error_len().is_none() => {
                String::from_utf8_lossy(cut.get(..error.valid_up_to()).unwrap_or_default()).into()
            }
            Err(_) => String::from_utf8_lossy(cut).into(),
        };
        Self(text)
    }

    /// The text as it came: attacker-controlled, not for terminals.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

/// Whether a character may stand in a report as it is: no controls, no invisible or direction-changing marks,
/// which let a name imitate another line or another name (Unicode TR 36).
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes `text` with quotes, backslashes and everything not plain escaped.
pub fn escape(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\r' => out.write_str("\\r")?,
            '\n' => out.write_str("\\n")?,
            _ if is_plain(character) => out.write_char(character)?,
            _ => write!(out, "\\u{{{:x}}}", u32::from(character))?,
        }
    }
    Ok(())
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        escape(&self.0, f)?;
        f.write_str("\"")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character() {
        let long = "ü".repeat(60);
        let text = Text::new(long.as_bytes());
        assert_eq!(text.as_str(), "ü".repeat(48));
        let odd = format!("a{long}");
        assert_eq!(Text::new(odd.as_bytes()).as_str(), format!("a{}", "ü".repeat(47)));
    }

    #[test]
    fn display_escapes_what_could_imitate_another_line() {
        assert_eq!(Text::from("a\"b\\c\r\n\u{1b}[2J").to_string(), r#""a\"b\\c\r\n\u{1b}[2J""#);
        assert_eq!(Text::from("\u{202e}evil\u{200b}").to_string(), r#""\u{202e}evil\u{200b}""#);
        assert_eq!(Text::from("한글 😀").to_string(), "\"한글 😀\"");
        assert_eq!(Text::new(b"a\xffb").to_string(), "\"a\u{fffd}b\"");
    }
}
