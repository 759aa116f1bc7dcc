//! What a log tells: sentences first, or JSON (`floodwall.analyze/1`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::{self, Write},
};

use floodwall_engine::{
    Command, Timestamp,
    command::{Explanation, Prefix},
    signal::{Signal, SignalKind},
    text::Text,
};
use floodwall_wire::Address;
use serde::Serialize;

use crate::replay::rfc3339;

/// Addresses kept apart; those beyond are summed.
const SOURCES_MAX: usize = 100_000;
/// Nicknames whose addresses are kept.
const NICKNAMES_MAX: usize = 20_000;
/// Addresses kept of one nickname.
const ADDRESSES_MAX: usize = 64;
const NOTES_MAX: usize = 1_000;

/// One address.
#[derive(Clone, Debug, Default)]
struct Source {
    signals: BTreeMap<SignalKind, u64>,
    outcome: Outcome,
    rules: BTreeSet<String>,
}

/// The strongest thing that would have been done.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Outcome {
    #[default]
    Clean,
    Noted,
    Limited,
    Banned,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noted => "noted",
            Self::Limited => "limited",
            Self::Banned => "banned",
        }
    }
}

/// Everything counted while reading.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) unparsed: u64,
    pub(super) overlong: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    signals: BTreeMap<SignalKind, u64>,
    sources: HashMap<Address, Source, foldhash::fast::RandomState>,
    /// What is known of the addresses beyond the bound.
    rest: Source,
    unlisted: u64,
    nicknames: BTreeMap<Text, BTreeSet<Address>>,
    bans: Vec<(Prefix, Timestamp, Explanation)>,
    notes: Vec<Explanation>,
}

impl Tally {
    pub(super) fn note_time(&mut self, at: Timestamp) {
        if at != Timestamp::EPOCH {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
        }
    }

    pub(super) fn note_signal(&mut self, signal: &Signal) {
        *self.signals.entry(signal.kind).or_default() += 1;
        *self.source(signal.address).signals.entry(signal.kind).or_default() += 1;
        if signal.kind == SignalKind::LoginSucceeded
            && let Some(nickname) = &signal.detail.nickname
            && (self.nicknames.len() < NICKNAMES_MAX || self.nicknames.contains_key(nickname))
        {
            let addresses = self.nicknames.entry(nickname.clone()).or_default();
            if addresses.len() < ADDRESSES_MAX {
                addresses.insert(signal.address);
            }
        }
    }

    fn source(&mut self, address: Address) -> &mut Source {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&address) {
            self.unlisted += 1;
            return &mut self.rest;
        }
        self.sources.entry(address).or_default()
    }

    pub(super) fn note_command(&mut self, command: &Command) {
        let (address, outcome, explanation) = match command {
            Command::Ban { subject, until, explanation } => {
                if self.bans.len() < NOTES_MAX {
                    self.bans.push((*subject, *until, explanation.clone()));
                }
                let address = if subject.is_host() { subject.address() } else { explanation.offender };
                (Some(address), Outcome::Banned, explanation)
            }
            Command::Limit { address, explanation, .. } | Command::Reset { address, explanation, .. } => {
                (Some(*address), Outcome::Limited, explanation)
            }
            Command::Note { address, explanation, .. } => {
                if self.notes.len() < NOTES_MAX {
                    self.notes.push(explanation.clone());
                }
                (*address, Outcome::Noted, explanation)
            }
            // These change nothing for anybody by name.
            Command::Know { .. }
            | Command::Release { .. }
            | Command::SetLevel { .. }
            | Command::BindUser { .. }
            | Command::FreeUser { .. }
            | Command::Ignore { .. }
            | Command::Follow { .. }
            | Command::Unban { .. } => return,
        };
        if let Some(address) = address {
            let source = self.source(address);
            source.outcome = source.outcome.max(outcome);
            source.rules.insert(explanation.rule.to_string());
        }
    }

    /// Nicknames that share an address they alone use, and the addresses they came from.
    fn people(&self) -> Vec<Person> {
        let mut by_address: BTreeMap<Address, Vec<&Text>> = BTreeMap::new();
        for (nickname, addresses) in &self.nicknames {
            for address in addresses {
                by_address.entry(*address).or_default().push(nickname);
            }
        }
        let people = self.nicknames.iter().filter(|(_, addresses)| addresses.len() > 1).map(
            |(nickname, addresses)| Person {
                nicknames: vec![nickname.as_str().to_owned()],
                addresses: addresses.iter().map(ToString::to_string).collect(),
            },
        );
        let shared =
            by_address.iter().filter(|(_, nicknames)| nicknames.len() > 1).map(|(address, nicknames)| {
                Person {
                    nicknames: nicknames.iter().map(|name| name.as_str().to_owned()).collect(),
                    addresses: vec![address.to_string()],
                }
            });
        people.chain(shared).take(NOTES_MAX).collect()
    }

    /// Sources, those with the strongest outcome first, then those with most to say.
    fn ranked(&self) -> Vec<(Address, &Source)> {
        let mut all: Vec<_> = self.sources.iter().map(|(address, source)| (*address, source)).collect();
        all.sort_by_key(|(address, source)| {
            (
                std::cmp::Reverse(source.outcome),
                std::cmp::Reverse(source.signals.values().sum::<u64>()),
                *address,
            )
        });
        all
    }

    /// The report as data.
    pub(super) fn report(&self, sources: usize, failures: &[String]) -> Report {
        let name_signals = |signals: &BTreeMap<SignalKind, u64>| {
            signals.iter().map(|(kind, count)| (kind.as_str(), *count)).collect()
        };
        let ranked = self.ranked();
        let mut rows: Vec<SourceRow> = ranked
            .iter()
            .take(sources)
            .map(|(address, source)| SourceRow {
                address: address.to_string(),
                sources: None,
                signals: name_signals(&source.signals),
                outcome: source.outcome.as_str(),
                rules: source.rules.iter().cloned().collect(),
            })
            .collect();
        let left = ranked.len().saturating_sub(sources);
        if left > 0 || self.unlisted > 0 {
            let mut rest = self.rest.clone();
            for (_, source) in ranked.iter().skip(sources) {
                for (kind, count) in &source.signals {
                    *rest.signals.entry(*kind).or_default() += count;
                }
                rest.outcome = rest.outcome.max(source.outcome);
                rest.rules.extend(source.rules.iter().cloned());
            }
            rows.push(SourceRow {
                address: "others".into(),
                sources: Some(left),
                signals: name_signals(&rest.signals),
                outcome: rest.outcome.as_str(),
                rules: rest.rules.into_iter().collect(),
            });
        }
        let note = |explanation: &Explanation| NoteRow {
            rule: explanation.rule.to_string(),
            subject: explanation.subject.to_string(),
            at: rfc3339(explanation.at),
            evidence: explanation.evidence.clone(),
        };
        Report {
            schema: "floodwall.analyze/1",
            lines: self.lines,
            unparsed: self.unparsed + self.overlong,
            overlong: self.overlong,
            first: self.first.map(rfc3339),
            last: self.last.map(rfc3339),
            signals: name_signals(&self.signals),
            sources_total: self.sources.len(),
            flagged: self.sources.values().filter(|source| source.outcome != Outcome::Clean).count(),
            sources: rows,
            bans: self
                .bans
                .iter()
                .map(|(subject, until, explanation)| BanRow {
                    subject: subject.to_string(),
                    rule: explanation.rule.to_string(),
                    why: explanation.why.to_string(),
                    at: rfc3339(explanation.at),
                    until: rfc3339(*until),
                    count: explanation.count,
                    limit: explanation.limit,
                    within: explanation.within.to_string(),
                    evidence: explanation.evidence.clone(),
                })
                .collect(),
            notes: self.notes.iter().map(note).collect(),
            people: self.people(),
            failures: failures.to_vec(),
        }
    }
}

/// `floodwall.analyze/1`
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    lines: u64,
    /// Lines that are not the server's, or cut off, or too long.
    unparsed: u64,
    overlong: u64,
    first: Option<String>,
    last: Option<String>,
    signals: BTreeMap<&'static str, u64>,
    sources_total: usize,
    flagged: usize,
    sources: Vec<SourceRow>,
    bans: Vec<BanRow>,
    notes: Vec<NoteRow>,
    /// Nicknames with several addresses, and addresses with several nicknames.
    people: Vec<Person>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SourceRow {
    address: String,
    /// Only in the row that sums several.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<usize>,
    signals: BTreeMap<&'static str, u64>,
    outcome: &'static str,
    rules: Vec<String>,
}

#[derive(Debug, Serialize)]
struct BanRow {
    subject: String,
    rule: String,
    why: String,
    at: String,
    until: String,
    count: u32,
    limit: u32,
    within: String,
    evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NoteRow {
    rule: String,
    subject: String,
    at: String,
    evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Person {
    nicknames: Vec<String>,
    addresses: Vec<String>,
}

/// Rows of the text; JSON has as many as asked for.
const ROWS_SHOWN: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines == 0 {
            writeln!(f, "Nothing was read.")?;
        } else if self.flagged == 0 {
            writeln!(f, "Nothing to object to: {} addresses, all clean.", self.sources_total)?;
        } else {
            writeln!(f, "{} of {} addresses flagged.", self.flagged, self.sources_total)?;
        }
        write!(f, "Read: {} lines", self.lines)?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            write!(f, ", {first} to {last}")?;
        }
        writeln!(f, "; {} not understood, {} of them too long.", self.unparsed, self.overlong)?;
        writeln!(f, "\nAddresses:")?;
        for source in self.sources.iter().take(ROWS_SHOWN) {
            let rules = source.rules.join(", ");
            let by = if rules.is_empty() { String::new() } else { format!(", by {rules}") };
            writeln!(f, "{}: {}, {}{by}.", source.address, source.outcome, listed(&source.signals))?;
        }
        if self.sources.len() > ROWS_SHOWN {
            writeln!(f, "{} more: --format json has them.", self.sources.len() - ROWS_SHOWN)?;
        }
        if !self.bans.is_empty() {
            writeln!(f, "\nBans:")?;
        }
        for ban in self.bans.iter().take(ROWS_SHOWN) {
            writeln!(
                f,
                "{} would be banned from {} to {}, because of {} ({}): {} within {}, the limit is {}.",
                ban.subject, ban.at, ban.until, ban.rule, ban.why, ban.count, ban.within, ban.limit
            )?;
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nNotes:")?;
        }
        for note in self.notes.iter().take(ROWS_SHOWN) {
            writeln!(f, "{}: {} at {}.", note.rule, note.subject, note.at)?;
            for line in &note.evidence {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(f, "\nSignals: {}.", listed(&self.signals))?;
        for person in self.people.iter().take(ROWS_SHOWN) {
            let names: Vec<String> =
                person.nicknames.iter().map(|name| Text::from(name.as_str()).to_string()).collect();
            writeln!(f, "Belong together: {}; {}.", names.join(", "), person.addresses.join(", "))?;
        }
        for failure in &self.failures {
            writeln!(f, "Not read to the end: {failure}")?;
        }
        Ok(())
    }
}

fn listed(signals: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::new();
    for (name, count) in signals {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        write!(text, "{comma}{name} {count}").ok();
    }
    if text.is_empty() { "nothing".into() } else { text }
}
