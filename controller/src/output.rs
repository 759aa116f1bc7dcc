//! How a command ends, and how it prints.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use floodwall_engine::text::{escape, is_plain};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How a command ended; the number is the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Done = 0,
    /// Something failed; what could be done was.
    Failed = 1,
    /// The input or the command line is wrong; nothing was done.
    BadInput = 2,
    /// It takes more rights than the caller has.
    NotPermitted = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Prints to standard output. A closed pipe ends quietly: whoever read it has seen enough.
pub(crate) fn print(text: impl fmt::Display) -> Exit {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(format_args!("cannot write to standard output: {error}"));
            Exit::Failed
        }
    }
}

/// Prints for programs.
pub(crate) fn print_json(report: &impl Serialize) -> Exit {
    match serde_json::to_string_pretty(report) {
        Ok(json) => print(format_args!("{}\n", PlainJson(&json))),
        Err(error) => {
            complain(format_args!("the report cannot be written: {error}"));
            Exit::Failed
        }
    }
}

/// JSON in which whatever could change how a terminal shows the rest is escaped: only strings hold such, and there an escape is the
/// same.
pub(crate) struct PlainJson<'a>(pub(crate) &'a str);

impl fmt::Display for PlainJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_shown = |character: char| is_plain(character) || character == '\n';
        // In long pieces: a terminal or pipe is written to with each line otherwise.
        for piece in self.0.split_inclusive(|character| !is_shown(character)) {
            match piece.char_indices().next_back().filter(|(_, last)| !is_shown(*last)) {
                Some((at, hidden)) => {
                    f.write_str(piece.get(..at).unwrap_or_default())?;
                    for unit in hidden.encode_utf16(&mut [0; 2]) {
                        write!(f, "\\u{unit:04x}")?;
                    }
                }
                None => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

/// A bar over a file with rate and remaining time on a terminal; nothing when piped.
pub(crate) fn progress_over(shown: String, bytes: u64, plain: bool) -> ProgressBar {
    let target = if plain || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(4)
    };
    let style =
        ProgressStyle::with_template("{msg} {percent}% of {total_bytes}, {bytes_per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(bytes), target).with_style(style).with_message(shown)
}

/// How often, in words.
pub(crate) fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

/// A path as it may stand in a message: whoever names files must not write lines or colours into a terminal.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    escape(&path.to_string_lossy(), &mut text).ok();
    text
}

/// Prints one line to standard error. If even that fails there is nobody left to tell.
pub(crate) fn complain(text: impl fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_shows_nothing_hidden() {
        let value = serde_json::json!({ "a\u{202e}": "b\u{9b}\u{e0041}c\n\"\\ü" });
        let text = PlainJson(&serde_json::to_string_pretty(&value).unwrap()).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert_eq!(text, "{\n  \"a\\u202e\": \"b\\u009b\\udb40\\udc41c\\n\\\"\\\\ü\"\n}");
    }

    #[test]
    fn a_file_name_cannot_write_lines_or_colours() {
        assert_eq!(shown(Path::new("a\nerror: b\u{1b}[31m.pcap")), "a\\nerror: b\\u{1b}[31m.pcap");
    }
}
