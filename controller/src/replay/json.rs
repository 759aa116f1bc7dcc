//! The report for programs: schema `floodwall.replay/1`.

use std::collections::BTreeMap;

use floodwall_engine::command::Explanation;
use serde::Serialize;

use super::{
    compare, rfc3339,
    tally::{Listing, Source, Tally, Volume},
};

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    capture: CaptureRow,
    services: BTreeMap<&'static str, ServiceRow>,
    signals: BTreeMap<&'static str, u64>,
    sources: Vec<SourceRow<'a>>,
    bans: Vec<BanRow<'a>>,
    notes: Vec<NoteRow<'a>>,
    levels: Vec<LevelRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Vec<compare::Difference>>,
    /// How often shadow rules would have fired.
    shadowed: BTreeMap<&'a str, u64>,
    /// What bounds and brakes have cost, by name.
    losses: &'a BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    failures: &'a [String],
}

#[derive(Serialize)]
struct CaptureRow {
    files: Vec<String>,
    packets: u64,
    bytes: u64,
    first: Option<String>,
    last: Option<String>,
    undecoded: u64,
    /// How often the clock went back, and gate and rules began again.
    restarts: u64,
    /// Packets that passed only because the gate was still learning who holds a session.
    learning: u64,
}

#[derive(Serialize)]
struct ServiceRow {
    packets: u64,
    bytes: u64,
    classes: BTreeMap<&'static str, VolumeRow>,
}

#[derive(Serialize)]
struct VolumeRow {
    packets: u64,
    bytes: u64,
}

impl From<Volume> for VolumeRow {
    fn from(volume: Volume) -> Self {
        Self { packets: volume.packets, bytes: volume.bytes }
    }
}

#[derive(Serialize)]
struct SourceRow<'a> {
    address: String,
    /// Only in the row that sums several.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<usize>,
    packets: u64,
    bytes: u64,
    dropped: u64,
    standing: Option<&'static str>,
    outcome: &'static str,
    rules: Vec<&'a str>,
    reasons: BTreeMap<&'static str, u64>,
    first_action: Option<String>,
}

#[derive(Serialize)]
struct BanRow<'a> {
    subject: String,
    rule: &'a str,
    why: &'a str,
    at: String,
    until: String,
    count: u32,
    limit: u32,
    within: String,
    evidence: &'a [String],
}

#[derive(Serialize)]
struct NoteRow<'a> {
    rule: &'a str,
    why: &'a str,
    subject: String,
    at: String,
    evidence: &'a [String],
}

#[derive(Serialize)]
struct LevelRow<'a> {
    service: &'static str,
    at: String,
    level: &'static str,
    rule: Option<&'a str>,
}

/// The report as one JSON document.
pub(super) fn report(tally: &Tally, sources: usize, against: Option<&Tally>) -> String {
    let report = Report {
        schema: "floodwall.replay/1",
        capture: CaptureRow {
            files: tally.files.iter().map(|file| file.display().to_string()).collect(),
            packets: tally.total.packets,
            bytes: tally.total.bytes,
            first: tally.first.map(rfc3339),
            last: tally.last.map(rfc3339),
            undecoded: tally.undecoded,
            restarts: tally.restarts,
            learning: tally.learning,
        },
        services: services(tally),
        signals: tally.signals.iter().map(|(kind, count)| (kind.as_str(), *count)).collect(),
        sources: source_rows(tally, sources),
        bans: tally.bans.iter().map(ban_row).collect(),
        notes: tally.notes.iter().map(note_row).collect(),
        levels: levels(tally),
        against: against.map(|other| compare::differences(tally, other)),
        shadowed: tally.shadowed.iter().map(|(rule, count)| (&*rule.0, *count)).collect(),
        losses: &tally.losses,
        failures: &tally.failures,
    };
    // Maps with string keys and plain values cannot fail to serialise.
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

/// Two services of one protocol are summed under its name.
fn services(tally: &Tally) -> BTreeMap<&'static str, ServiceRow> {
    let mut rows: BTreeMap<&'static str, ServiceRow> = BTreeMap::new();
    for service in &tally.services {
        let row = rows.entry(service.name).or_insert_with(|| ServiceRow {
            packets: 0,
            bytes: 0,
            classes: BTreeMap::new(),
        });
        row.packets += service.volume.packets;
        row.bytes += service.volume.bytes;
        for (class, volume) in service.classes() {
            let cell = row.classes.entry(class.as_str()).or_insert(VolumeRow { packets: 0, bytes: 0 });
            cell.packets += volume.packets;
            cell.bytes += volume.bytes;
        }
    }
    rows
}

fn source_rows(tally: &Tally, most: usize) -> Vec<SourceRow<'_>> {
    let Listing { listed, rest } = tally.sources(most);
    let mut rows: Vec<SourceRow<'_>> =
        listed.into_iter().map(|(address, source)| source_row(address.to_string(), source)).collect();
    if let Some((count, sum)) = rest {
        let rules = Vec::new();
        let reasons = sum.reasons.iter().map(|(reason, count)| (reason.as_str(), count)).collect();
        rows.push(SourceRow {
            address: "others".to_owned(),
            sources: Some(count),
            packets: sum.volume.packets,
            bytes: sum.volume.bytes,
            dropped: sum.dropped,
            standing: None,
            outcome: sum.outcome.as_str(),
            rules,
            reasons,
            first_action: None,
        });
    }
    rows
}

fn source_row(address: String, source: &Source) -> SourceRow<'_> {
    SourceRow {
        address,
        sources: None,
        packets: source.volume.packets,
        bytes: source.volume.bytes,
        dropped: source.dropped,
        standing: source.standing.map(floodwall_wire::tables::Standing::as_str),
        outcome: source.outcome.as_str(),
        rules: source.rules.iter().map(|rule| &*rule.0).collect(),
        reasons: source.reasons.iter().map(|(reason, count)| (reason.as_str(), count)).collect(),
        first_action: source.first_action.map(rfc3339),
    }
}

fn ban_row(ban: &super::tally::BanRow) -> BanRow<'_> {
    let explanation = &ban.explanation;
    BanRow {
        subject: ban.subject.to_string(),
        rule: &explanation.rule.0,
        why: &explanation.why,
        at: rfc3339(explanation.at),
        until: rfc3339(ban.until),
        count: explanation.count,
        limit: explanation.limit,
        within: explanation.within.to_string(),
        evidence: &explanation.evidence,
    }
}

fn note_row(note: &Explanation) -> NoteRow<'_> {
    NoteRow {
        rule: &note.rule.0,
        why: &note.why,
        subject: note.subject.to_string(),
        at: rfc3339(note.at),
        evidence: &note.evidence,
    }
}

fn levels(tally: &Tally) -> Vec<LevelRow<'_>> {
    let rows = tally.levels.iter().map(|row| LevelRow {
        service: tally.service_name(row.service),
        at: rfc3339(row.at),
        level: row.level.as_str(),
        rule: row.rule.as_ref().map(|rule| &*rule.0),
    });
    rows.collect()
}
