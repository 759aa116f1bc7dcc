//! Cases: what happens, and whether a rule fires then.
//!
//! One file per protocol, `rules/cases/PROTOCOL.txt`, of lines:
//!
//! ```text
//! rule teamtalk/login-storm
//! fires
//!   8 x login.failed from 203.0.113.7 every 1s account=admin
//! quiet
//!   7 x login.failed from 203.0.113.7 every 1s account=admin
//!   wait 60s
//! ```
//!
//! An event is `[COUNT x] SIGNAL from ADDRESS [session N] [every TIME] [FIELD=VALUE]…`; `{}` in an address, a session or a value
//! is the number of the repetition, from 1. Every session is another connection; without one all of an address share one.

use std::{collections::BTreeMap, net::IpAddr};

use floodwall_engine::{
    Span, Timestamp,
    rule::diagnostic::{Diagnostic, suggest},
    signal::{Content, Detail, FlowId, Method, Signal, SignalKind},
    text::Text,
};
use floodwall_wire::Address;

/// Repetitions of one event, events of one case.
const REPETITIONS_MAX: u32 = 10_000;
/// Different words for commands and reasons in one file.
const WORDS_MAX: usize = 512;

const FIELDS: [&str; 12] = [
    "method", "account", "nickname", "identity", "channel", "target", "command", "number", "reason",
    "content", "link", "bytes",
];

/// What is to happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Expected {
    Fires,
    Quiet,
}

impl Expected {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fires => "fires",
            Self::Quiet => "quiet",
        }
    }
}

/// One case of one rule.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) rule: String,
    pub(crate) expected: Expected,
    pub(crate) path: String,
    /// Where it begins.
    pub(crate) line: usize,
    pub(crate) signals: Vec<Signal>,
}

/// Reads a file of cases; every mistake at once.
pub(crate) fn parse(path: &str, source: &str) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let mut reader = Reader::default();
    let mut mistakes = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Err((message, remedy)) = reader.take(text, path, index + 1) {
            let column = line.len() - line.trim_start().len() + 1;
            mistakes.push(Diagnostic { path: path.to_owned(), line: index + 1, column, message, remedy });
        }
    }
    if mistakes.is_empty() { Ok(reader.cases) } else { Err(mistakes) }
}

type Mistake = (String, Option<String>);

fn mistake(message: impl Into<String>, remedy: &str) -> Mistake {
    (message.into(), Some(remedy.to_owned()))
}

#[derive(Default)]
struct Reader {
    cases: Vec<Case>,
    rule: Option<String>,
    now: Timestamp,
    /// Signals hold commands and reasons as words that live as long as the program.
    words: BTreeMap<String, &'static str>,
}

impl Reader {
    fn take(&mut self, text: &str, path: &str, line: usize) -> Result<(), Mistake> {
        if let Some(rule) = text.strip_prefix("rule ") {
            self.rule = Some(rule.trim().to_owned());
            return Ok(());
        }
        let expected = match text {
            "fires" => Some(Expected::Fires),
            "quiet" => Some(Expected::Quiet),
            _ => None,
        };
        if let Some(expected) = expected {
            let rule = self
                .rule
                .clone()
                .ok_or_else(|| mistake("a case of no rule", "write \"rule ID\" before it"))?;
            self.now = Timestamp::from_secs(1_800_000_000);
            self.cases.push(Case { rule, expected, path: path.to_owned(), line, signals: Vec::new() });
            return Ok(());
        }
        if let Some(span) = text.strip_prefix("wait ") {
            self.now = self.now + read_span(span.trim())?;
            return Ok(());
        }
        let signals = self.read_event(text)?;
        let case = self.cases.last_mut();
        let case =
            case.ok_or_else(|| mistake("an event of no case", "write \"fires\" or \"quiet\" before it"))?;
        case.signals.extend(signals);
        Ok(())
    }

    fn read_event(&mut self, text: &str) -> Result<Vec<Signal>, Mistake> {
        let mut words = split(text).into_iter().peekable();
        let mut next = |what: &str| {
            let remedy = "write [COUNT x] SIGNAL from ADDRESS [session N] [every TIME] [FIELD=VALUE]…";
            words.next().ok_or_else(|| mistake(format!("{what} is missing"), remedy))
        };
        let first = next("the signal")?;
        let (count, kind) = match first.parse::<u32>() {
            Ok(count) if (1..=REPETITIONS_MAX).contains(&count) => {
                if next("\"x\"")? != "x" {
                    return Err(mistake("a count without \"x\"", "write for example: 8 x login.failed"));
                }
                (count, next("the signal")?)
            }
            Ok(count) => return Err((format!("{count} is outside 1 to {REPETITIONS_MAX}"), None)),
            Err(_) => (1, first),
        };
        let kind = SignalKind::from_name(&kind).ok_or_else(|| {
            let remedy = suggest(&kind, SignalKind::ALL.iter().map(|kind| kind.as_str()));
            (format!("unknown signal \"{kind}\""), remedy)
        })?;
        if next("\"from\"")? != "from" {
            return Err(mistake("the signal has no address", "write: from 203.0.113.7"));
        }
        let address = next("the address")?;
        let (mut session, mut every) = ("0".to_owned(), Span::from_millis(1));
        let mut fields = Vec::new();
        while let Some(word) = words.next() {
            match (word.as_str(), word.split_once('=')) {
                ("session", _) => session = words.next().unwrap_or_default(),
                ("every", _) => every = read_span(&words.next().unwrap_or_default())?,
                (_, Some((field, value))) => fields.push((field.to_owned(), value.to_owned())),
                (word, None) => {
                    let remedy = suggest(word, ["session", "every"].into_iter().chain(FIELDS));
                    return Err((format!("unknown word \"{word}\""), remedy));
                }
            }
        }
        let mut signals = Vec::new();
        for number in 1..=count {
            let filled = |text: &str| text.replace("{}", &number.to_string());
            let address = read_address(&filled(&address))?;
            let session = filled(&session);
            let session: u64 = session
                .parse()
                .map_err(|error| (format!("\"{session}\" is no session's number: {error}"), None))?;
            let mut detail = Detail::default();
            for (field, value) in &fields {
                self.set(&mut detail, field, &filled(value))?;
            }
            // A connection of its own for each address and session.
            let flow = Some(FlowId(session << 32 | address.low & 0xffff_ffff));
            signals.push(Signal { kind, at: self.now, service: 0, address, flow, detail });
            self.now = self.now + every;
        }
        Ok(signals)
    }

    fn set(&mut self, detail: &mut Detail, field: &str, value: &str) -> Result<(), Mistake> {
        let number =
            || value.parse::<u64>().map_err(|error| (format!("{field} is {value:?}: {error}"), None));
        let text = || Some(Text::from(value));
        match field {
            "method" => {
                let names = || Method::ALL.iter().map(|method| method.as_str());
                let found = Method::ALL.iter().copied().find(|method| method.as_str() == value);
                let unknown = || (format!("unknown method \"{value}\""), suggest(value, names()));
                detail.method = Some(found.ok_or_else(unknown)?);
            }
            "account" => detail.account = text(),
            "nickname" => detail.nickname = text(),
            "identity" => detail.identity = text(),
            "channel" => detail.channel = text(),
            "target" => detail.target = text(),
            "command" => detail.command = Some(self.word(value)?),
            "reason" => detail.reason = Some(self.word(value)?),
            "number" => detail.number = Some(u32::try_from(number()?).unwrap_or(u32::MAX)),
            "content" => {
                let site = detail.content.and_then(|content| content.site);
                detail.content = Some(Content { site, ..Content::from(number()?) });
            }
            "link" => {
                let content = detail.content.unwrap_or_else(|| Content::from(0));
                detail.content = Some(Content { site: Some(number()?), ..content });
            }
            "bytes" => detail.weight = number()?,
            _ => return Err((format!("unknown field \"{field}\""), suggest(field, FIELDS))),
        }
        Ok(())
    }

    /// The program ends when the cases are over, so a bounded number of words may be kept until then.
    fn word(&mut self, word: &str) -> Result<&'static str, Mistake> {
        if let Some(kept) = self.words.get(word) {
            return Ok(kept);
        }
        if self.words.len() >= WORDS_MAX {
            return Err((format!("more than {WORDS_MAX} different commands and reasons"), None));
        }
        let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
        self.words.insert(word.to_owned(), kept);
        Ok(kept)
    }
}

fn read_span(text: &str) -> Result<Span, Mistake> {
    let remedy = "write for example \"500ms\", \"60s\" or \"10m\"";
    Span::parse(text).map_err(|error| mistake(format!("bad duration {text:?}: {error}"), remedy))
}

fn read_address(text: &str) -> Result<Address, Mistake> {
    let address: Result<IpAddr, _> = text.parse();
    address
        .map(Address::from)
        .map_err(|error| mistake(format!("{text:?} is no address: {error}"), "write for example 203.0.113.7"))
}

/// Words at blanks, of which a value in double quotes may hold some.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' | '\t' if !is_quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read() {
        let source =
            "rule a/b\nfires\n  2 x message.private from 203.0.113.{} session {} every 1s target=\"a b\"\n";
        let cases = parse("f.txt", source).unwrap();
        let case = cases.first().unwrap();
        assert_eq!((case.rule.as_str(), case.expected, case.line), ("a/b", Expected::Fires, 2));
        let said: Vec<String> = case.signals.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                r#"message.private from 203.0.113.1 target "a b""#,
                r#"message.private from 203.0.113.2 target "a b""#
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let source = "fires\nrule a/b\nquiet\n  login.fail from 203.0.113.1\n  8 login.failed from x\n  wait soon\n  \
                      login.failed from 203.0.113.1 colour=red\n";
        let found: Vec<String> =
            parse("f.txt", source).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f.txt:1:1: a case of no rule; write \"rule ID\" before it",
                "f.txt:4:3: unknown signal \"login.fail\"; did you mean \"login.failed\"?",
                "f.txt:5:3: a count without \"x\"; write for example: 8 x login.failed",
                "f.txt:6:3: bad duration \"soon\": expected a whole number and a unit, such as \"60s\"; write for example \"500ms\", \"60s\" or \"10m\"",
                "f.txt:7:3: unknown field \"colour\"; valid: method, account, nickname, identity, channel, target, \
                 command, number, reason, content, link, bytes",
            ]
        );
    }
}
