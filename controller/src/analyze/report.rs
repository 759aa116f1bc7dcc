//! What a log tells: sentences first, or JSON (`floodwall.analyze/1`).

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
};

use floodwall_engine::{Timestamp, command::Explanation, signal::SignalKind, text::Text};
use floodwall_wire::Address;
use serde::Serialize;

use super::{
    people::people,
    redact::Redactor,
    tally::{NOTES_MAX, Outcome, Source, Tally},
};
use crate::{output::times, replay::rfc3339};

/// Accounts listed.
const ACCOUNTS_LISTED: usize = 100;

/// `floodwall.analyze/1`
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) lines: u64,
    /// Lines that are not the server's, or cut off, or too long.
    pub(super) unparsed: u64,
    pub(super) overlong: u64,
    /// Lines read that are not of the time asked for.
    pub(super) outside: u64,
    /// How often the log's clock was set back.
    pub(super) clock_steps: u64,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    pub(super) signals: BTreeMap<&'static str, u64>,
    pub(super) sources_total: u64,
    pub(super) flagged: usize,
    pub(super) sources: Vec<SourceRow>,
    /// More addresses than can be kept apart: the count of any may be too low by so much at most.
    pub(super) sources_error: u64,
    /// Accounts that logins failed for.
    pub(super) accounts: Vec<AccountRow>,
    pub(super) accounts_error: u64,
    pub(super) bans_total: u64,
    pub(super) bans: Vec<BanRow>,
    pub(super) notes_total: u64,
    pub(super) notes: Vec<NoteRow>,
    pub(super) levels: Vec<LevelRow>,
    /// Nicknames and addresses that hang together.
    pub(super) people: Vec<PersonRow>,
    pub(super) over_time: OverTime,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failures: Vec<String>,
    /// Which of those flagged was seen first, and which last, and when.
    #[serde(skip)]
    seen: Option<[(String, String); 2]>,
}

#[derive(Debug, Serialize)]
pub(super) struct SourceRow {
    pub(super) address: String,
    /// Only in the row that sums several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sources: Option<u64>,
    /// How many of those are flagged: the outcome is the strongest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flagged: Option<u64>,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) signals: BTreeMap<&'static str, u64>,
    pub(super) outcome: &'static str,
    pub(super) rules: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct AccountRow {
    pub(super) account: String,
    pub(super) failed: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct BanRow {
    pub(super) subject: String,
    pub(super) rule: String,
    pub(super) why: String,
    pub(super) at: String,
    pub(super) until: String,
    pub(super) count: u32,
    pub(super) limit: u32,
    pub(super) within: String,
    pub(super) evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct NoteRow {
    pub(super) rule: String,
    pub(super) subject: String,
    pub(super) at: String,
    pub(super) evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct LevelRow {
    pub(super) at: String,
    pub(super) level: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct PersonRow {
    pub(super) nicknames: Vec<String>,
    pub(super) addresses: Vec<String>,
}

/// What happened when, in slices of equal length.
#[derive(Debug, Serialize)]
pub(super) struct OverTime {
    pub(super) seconds_per_slice: u64,
    pub(super) slices: Vec<SliceRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct SliceRow {
    pub(super) at: String,
    pub(super) lines: u64,
    pub(super) connections: u64,
    pub(super) failed_logins: u64,
    pub(super) logins: u64,
    pub(super) messages: u64,
}

impl Report {
    /// What was counted, with at most `rows` addresses one by one.
    pub(super) fn of(tally: &Tally, rows: usize, failures: &[String]) -> Self {
        let note = |explanation: &Explanation| NoteRow {
            rule: explanation.rule.to_string(),
            subject: explanation.subject.to_string(),
            at: rfc3339(explanation.at),
            evidence: explanation.evidence.clone(),
        };
        let flagged = tally.sources.iter().filter(|(_, source)| source.outcome != Outcome::Clean).count();
        Self {
            schema: "floodwall.analyze/1",
            lines: tally.lines,
            unparsed: tally.unparsed + tally.overlong,
            overlong: tally.overlong,
            outside: tally.outside,
            clock_steps: tally.clock_steps,
            first: tally.first.map(rfc3339),
            last: tally.last.map(rfc3339),
            signals: tally.signals().map(|(kind, count)| (kind.as_str(), count)).collect(),
            sources_total: tally.sources.len() as u64 + tally.sources.rest().0,
            flagged,
            sources: sources(tally, rows),
            sources_error: tally.sources.error(),
            accounts: accounts(tally),
            accounts_error: tally.accounts.error(),
            bans_total: tally.bans_made,
            bans: bans(tally),
            notes_total: tally.notes_made,
            notes: tally.notes.iter().map(note).collect(),
            levels: tally
                .levels
                .iter()
                .map(|(at, level)| LevelRow { at: rfc3339(*at), level: level.as_str() })
                .collect(),
            people: persons(tally),
            over_time: over_time(tally),
            failures: failures.to_vec(),
            seen: seen(tally),
        }
    }

    /// Replaces what names somebody.
    pub(super) fn redact(&mut self) {
        let mut redactor = Redactor::default();
        for source in &mut self.sources {
            source.address = redactor.text(&source.address);
        }
        for (address, _) in self.seen.iter_mut().flatten() {
            *address = redactor.text(address);
        }
        for account in &mut self.accounts {
            account.account = redactor.name(&account.account);
        }
        let texts = |redactor: &mut Redactor, texts: &mut Vec<String>| {
            for text in texts {
                *text = redactor.text(text);
            }
        };
        for ban in &mut self.bans {
            ban.subject = redactor.text(&ban.subject);
            texts(&mut redactor, &mut ban.evidence);
        }
        for note in &mut self.notes {
            note.subject = redactor.text(&note.subject);
            texts(&mut redactor, &mut note.evidence);
        }
        for person in &mut self.people {
            for nickname in &mut person.nicknames {
                *nickname = redactor.name(nickname);
            }
            texts(&mut redactor, &mut person.addresses);
        }
    }

    /// For people, with at most `rows` of each list.
    pub(super) const fn text(&self, rows: usize) -> TextReport<'_> {
        TextReport { report: self, rows }
    }

    /// The answer, in one sentence.
    pub(super) fn answer(&self) -> String {
        if self.lines == 0 {
            return "Nothing was read.".into();
        }
        if self.flagged == 0 {
            return format!("Nothing to object to: {} addresses, all clean.", self.sources_total);
        }
        format!("{} of {} addresses flagged, {} bans.", self.flagged, self.sources_total, self.bans_total)
    }

    /// From when to when, and how much of it.
    pub(super) fn extent(&self) -> String {
        let mut text = format!("Read: {} lines", self.lines);
        // Writing to a string does not fail.
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            write!(text, ", {first} to {last}").ok();
        }
        write!(text, "; {} not understood, {} of them too long.", self.unparsed, self.overlong).ok();
        if self.outside > 0 {
            write!(text, " {} more lines are not of the time asked for.", self.outside).ok();
        }
        if self.clock_steps > 0 {
            write!(
                text,
                " The log's clock was set back {}; counting began anew each time.",
                times(self.clock_steps)
            )
            .ok();
        }
        if self.sources_error > 0 {
            write!(
                text,
                " There are more addresses than can be kept apart: the count of any may be too low by {} at most.",
                self.sources_error
            )
            .ok();
        }
        text
    }

    /// When who would first have been stopped, and when last.
    pub(super) fn attack(&self) -> Option<String> {
        let [(first, first_at), (last, last_at)] = self.seen.as_ref()?;
        Some(format!("Those flagged were first seen at {first_at} ({first}) and last at {last_at} ({last})."))
    }
}

/// Of all that are flagged and held, listed or not.
fn seen(tally: &Tally) -> Option<[(String, String); 2]> {
    let flagged = || tally.sources.iter().filter(|(_, source)| source.outcome != Outcome::Clean);
    let first = flagged().min_by_key(|(address, source)| (source.first, **address))?;
    let last = flagged().max_by_key(|(address, source)| (source.last, **address))?;
    let told = |address: &Address, at: Timestamp| (address.to_string(), rfc3339(at));
    Some([told(first.0, first.1.first), told(last.0, last.1.last)])
}

fn named(signals: &BTreeMap<SignalKind, u64>) -> BTreeMap<&'static str, u64> {
    signals.iter().map(|(kind, count)| (kind.as_str(), *count)).collect()
}

/// Those with the strongest outcome first, then those with most to say.
fn sources(tally: &Tally, rows: usize) -> Vec<SourceRow> {
    let mut ranked: Vec<(&Address, &Source)> = tally.sources.iter().collect();
    ranked.sort_by_key(|(address, source)| {
        (std::cmp::Reverse((source.outcome, super::hitters::Weighed::weight(*source))), **address)
    });
    let row = |address: String, several: Option<(u64, u64)>, source: &Source| SourceRow {
        address,
        sources: several.map(|(sources, _)| sources),
        flagged: several.map(|(_, flagged)| flagged),
        first: rfc3339(source.first),
        last: rfc3339(source.last),
        signals: named(&source.signals()),
        outcome: source.outcome.as_str(),
        rules: source.rules.iter().map(ToString::to_string).collect(),
    };
    let mut listed: Vec<SourceRow> =
        ranked.iter().take(rows).map(|(address, source)| row(address.to_string(), None, source)).collect();
    let (let_go, rest) = tally.sources.rest();
    let left = ranked.len().saturating_sub(rows) as u64 + let_go;
    if left > 0 {
        let mut rest = rest.clone();
        let unlisted = ranked.iter().skip(rows).filter(|(_, source)| source.outcome != Outcome::Clean);
        let flagged = unlisted.count() as u64;
        for (_, source) in ranked.iter().skip(rows) {
            super::hitters::Weighed::absorb(&mut rest, (*source).clone());
        }
        listed.push(row("others".into(), Some((left, flagged)), &rest));
    }
    listed
}

fn accounts(tally: &Tally) -> Vec<AccountRow> {
    // Broken ones may read the same.
    let mut failed: BTreeMap<Text, u64> = BTreeMap::new();
    for (account, count) in tally.accounts.iter() {
        *failed.entry(Text::new(account)).or_default() += count;
    }
    let mut ranked: Vec<(Text, u64)> = failed.into_iter().collect();
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked
        .into_iter()
        .take(ACCOUNTS_LISTED)
        .map(|(account, failed)| AccountRow { account: account.as_str().to_owned(), failed })
        .collect()
}

fn bans(tally: &Tally) -> Vec<BanRow> {
    let row = |ban: &super::tally::Ban| BanRow {
        subject: ban.subject.to_string(),
        rule: ban.explanation.rule.to_string(),
        why: ban.explanation.why.to_string(),
        at: rfc3339(ban.explanation.at),
        until: rfc3339(ban.until),
        count: ban.explanation.count,
        limit: ban.explanation.limit,
        within: ban.explanation.within.to_string(),
        evidence: ban.explanation.evidence.clone(),
    };
    tally.bans.iter().map(row).collect()
}

fn persons(tally: &Tally) -> Vec<PersonRow> {
    people(&tally.nicknames)
        .into_iter()
        .take(NOTES_MAX)
        .map(|person| PersonRow {
            nicknames: person.nicknames.iter().map(|name| name.as_str().to_owned()).collect(),
            addresses: person.addresses.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

fn over_time(tally: &Tally) -> OverTime {
    let slices = tally.series.slices().map(|(at, slice): (Timestamp, _)| SliceRow {
        at: rfc3339(at),
        lines: slice.lines,
        connections: slice.connections,
        failed_logins: slice.failures,
        logins: slice.logins,
        messages: slice.messages,
    });
    OverTime { seconds_per_slice: tally.series.seconds(), slices: slices.collect() }
}

/// A report in sentences, one fact a line.
pub(super) struct TextReport<'a> {
    report: &'a Report,
    rows: usize,
}

impl Display for TextReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(f, "{}", report.answer())?;
        writeln!(f, "{}", report.extent())?;
        if let Some(attack) = report.attack() {
            writeln!(f, "{attack}")?;
        }
        writeln!(f, "\nAddresses:")?;
        for source in &report.sources {
            let rules = source.rules.join(", ");
            let by = if rules.is_empty() { String::new() } else { format!(", by {rules}") };
            let who = match source.sources {
                Some(count) => {
                    let flagged = source.flagged.unwrap_or(0);
                    format!("{count} others, {flagged} of them flagged, the strongest outcome")
                }
                None => source.address.clone(),
            };
            let said = listed(&source.signals);
            writeln!(f, "{who}: {}, {} to {}, {said}{by}.", source.outcome, source.first, source.last)?;
        }
        if !report.accounts.is_empty() {
            writeln!(f, "\nAccounts that logins failed for:")?;
            for row in report.accounts.iter().take(self.rows) {
                writeln!(f, "{}: {}.", Text::from(row.account.as_str()), row.failed)?;
            }
            more(f, report.accounts.len(), self.rows)?;
            if report.accounts_error > 0 {
                writeln!(f, "Each may be too low by {} at most.", report.accounts_error)?;
            }
        }
        self.decisions(f)?;
        writeln!(f, "\nSignals: {}.", listed(&report.signals))?;
        if !report.people.is_empty() {
            writeln!(f, "\nBelong together:")?;
        }
        for person in report.people.iter().take(self.rows) {
            let names: Vec<String> =
                person.nicknames.iter().map(|name| Text::from(name.as_str()).to_string()).collect();
            writeln!(f, "{}; {}.", names.join(", "), person.addresses.join(", "))?;
        }
        more(f, report.people.len(), self.rows)?;
        for failure in &report.failures {
            writeln!(f, "Not read to the end: {failure}")?;
        }
        Ok(())
    }
}

impl TextReport<'_> {
    fn decisions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        if !report.levels.is_empty() {
            let attacks = report.levels.iter().filter(|row| row.level == "attack");
            let times: Vec<&str> = attacks.map(|row| row.at.as_str()).take(self.rows).collect();
            writeln!(f, "\nThe level would have been raised to attack at: {}.", times.join(", "))?;
        }
        if !report.bans.is_empty() {
            writeln!(f, "\nBans:")?;
        }
        for ban in report.bans.iter().take(self.rows) {
            writeln!(
                f,
                "{} would be banned from {} to {}, because of {} ({}): {} within {}, the limit is {}.",
                ban.subject, ban.at, ban.until, ban.rule, ban.why, ban.count, ban.within, ban.limit
            )?;
        }
        more(f, usize::try_from(report.bans_total).unwrap_or(usize::MAX), self.rows)?;
        if !report.notes.is_empty() {
            writeln!(f, "\nNotes:")?;
        }
        for note in report.notes.iter().take(self.rows) {
            writeln!(f, "{}: {} at {}.", note.rule, note.subject, note.at)?;
            for line in &note.evidence {
                writeln!(f, "  {line}")?;
            }
        }
        more(f, usize::try_from(report.notes_total).unwrap_or(usize::MAX), self.rows)
    }
}

/// Says that there are more than are shown.
fn more(f: &mut fmt::Formatter<'_>, all: usize, shown: usize) -> fmt::Result {
    if all > shown {
        writeln!(f, "{} more: --top shows as many as you like.", all - shown)?;
    }
    Ok(())
}

/// Signals by name, with their counts.
pub(super) fn listed(signals: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::new();
    for (name, count) in signals {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        write!(text, "{comma}{name} {count}").ok();
    }
    if text.is_empty() { "nothing".into() } else { text }
}
