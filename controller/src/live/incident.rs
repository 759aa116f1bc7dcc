//! The record of incidents: what happened from ten minutes before an attack or takeover was noticed until it was calm again.
//!
//! One file per incident, in JSON Lines under `incidents/` in the state folder: first what opened it, then signals and
//! decisions in order, of those whom a rule has named and of nobody else. A signal holds no text and no secret, so neither does a record. Lines are appended as they come, by a
//! thread of its own; after a crash all but the last line is whole, and whoever reads passes over that.
//!
//! Bounds: [`RECENT_MAX`] signals remembered while all is calm, [`SIGNALS_PER_SECOND_MAX`] written a second, [`RECORD_BYTES_MAX`]
//! bytes per record, [`RECORDS_MAX`] records of which the oldest go, as do those older than [`KEEP`]. What is left out is counted
//! in the record.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use floodwall_engine::{Span, Timestamp, command::Explanation, signal::Signal};
use floodwall_wire::Address;
use serde::{Deserialize, Serialize};

use crate::replay::rfc3339;

/// How far back a record reaches.
const BEFORE: Span = Span::from_secs(600);
/// A record ends when nothing was decided for so long.
const CALM: Span = Span::from_secs(600);
/// How long records are kept.
const KEEP: Span = Span::from_secs(30 * 24 * 3_600);
/// Addresses whose signals one record holds.
const INVOLVED_MAX: usize = 1_024;
const RECENT_MAX: usize = 10_000;
const SIGNALS_PER_SECOND_MAX: u32 = 100;
const RECORD_BYTES_MAX: u64 = 8 << 20;
/// Of which signals take at most this.
const SIGNAL_BYTES_MAX: u64 = 6 << 20;
const RECORDS_MAX: usize = 50;
/// Lines on their way to the disk.
const LINES_MAX: usize = 16_384;
/// Longest line that is read back.
const LINE_BYTES_MAX: usize = 64 * 1024;
const ENDING: &str = ".jsonl";

/// One line of a record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line {
    /// The first: what opened it.
    Opened {
        schema: String,
        /// RFC 3339, UTC.
        at: String,
        rule: String,
        why: String,
        subject: String,
    },
    /// Something happened.
    Signal { at: String, service: String, what: String },
    /// Something was decided.
    Decision { at: String, action: String, rule: String, subject: String, why: String, evidence: Vec<String> },
    /// Signals of that second that were too many.
    LeftOut { at: String, signals: u64 },
    /// The last: calm again, or the wall was stopped.
    Closed { at: String, why: String, lost_lines: u64 },
}

/// What an incident is opened or kept open by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision<'a> {
    pub(crate) action: &'static str,
    pub(crate) subject: &'a str,
    pub(crate) explanation: &'a Explanation,
    /// A ban, a note or a raised level; what is merely limited opens nothing.
    pub(crate) is_grave: bool,
}

/// Remembers what is recent, and records while an incident is open.
#[derive(Debug)]
pub(crate) struct Incidents {
    folder: PathBuf,
    recent: VecDeque<(Timestamp, &'static str, Signal)>,
    open: Option<Open>,
    lost: u64,
    lines: Option<SyncSender<Written>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Open {
    /// When it is calm, by the engine's clock in UTC.
    calm_at: Timestamp,
    second: u64,
    in_second: u32,
    left_out: u64,
    lost_before: u64,
    /// Whose signals are recorded; of all others is counted how many there were.
    involved: BTreeSet<Address>,
}

#[derive(Debug)]
enum Written {
    Begin(PathBuf),
    Purge { before: String },
    Line(Box<Line>),
}

impl Incidents {
    /// Records into the state folder.
    ///
    /// # Errors
    /// When the folder or the thread that writes cannot be made.
    pub(crate) fn open(state_folder: &Path) -> Result<Self> {
        let folder = folder_in(state_folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder of incidents {}", folder.display()))?;
        let (lines, written) = sync_channel(LINES_MAX);
        let theirs = folder.clone();
        let thread = thread::Builder::new()
            .name("incidents".into())
            .spawn(move || write_all(&theirs, &written))
            .context("failed to start the thread that records incidents")?;
        Ok(Self {
            folder,
            recent: VecDeque::new(),
            open: None,
            lost: 0,
            lines: Some(lines),
            thread: Some(thread),
        })
    }

    /// Takes a signal; `at` is UTC.
    pub(crate) fn handle_signal(&mut self, at: Timestamp, service: &'static str, signal: &Signal) {
        let Some(open) = &mut self.open else {
            if self.recent.len() >= RECENT_MAX {
                self.recent.pop_front();
            }
            return self.recent.push_back((at, service, signal.clone()));
        };
        if open.second != second_of(at) {
            open.second = second_of(at);
            open.in_second = 0;
            let signals = std::mem::take(&mut open.left_out);
            if signals > 0 {
                self.write(Line::LeftOut { at: rfc3339(at), signals });
            }
        }
        let Some(open) = &mut self.open else { return };
        if open.in_second >= SIGNALS_PER_SECOND_MAX || !open.involved.contains(&signal.address) {
            open.left_out += 1;
            return;
        }
        open.in_second += 1;
        self.write(signal_line(at, service, signal));
    }

    /// Takes a decision; `at` is UTC.
    pub(crate) fn handle_decision(&mut self, at: Timestamp, decision: &Decision<'_>) {
        if self.open.is_none() {
            if !decision.is_grave {
                return;
            }
            self.begin(at, decision);
        }
        if let Some(open) = &mut self.open {
            if decision.is_grave {
                open.calm_at = at + CALM;
            }
            if open.involved.len() < INVOLVED_MAX {
                open.involved.insert(decision.explanation.offender);
            }
        }
        let Decision { action, subject, explanation, .. } = decision;
        self.write(Line::Decision {
            at: rfc3339(at),
            action: (*action).to_owned(),
            rule: explanation.rule.to_string(),
            subject: (*subject).to_owned(),
            why: explanation.why.to_string(),
            evidence: explanation.evidence.clone(),
        });
    }

    fn begin(&mut self, at: Timestamp, decision: &Decision<'_>) {
        let name = format!("{}{ENDING}", name_of(at));
        self.send(Written::Begin(self.folder.join(name)));
        let involved = BTreeSet::from([decision.explanation.offender]);
        let lost_before = self.lost;
        self.open =
            Some(Open { calm_at: at + CALM, second: 0, in_second: 0, left_out: 0, lost_before, involved });
        let Decision { subject, explanation, .. } = decision;
        self.write(Line::Opened {
            schema: "floodwall.incident/1".into(),
            at: rfc3339(at),
            rule: explanation.rule.to_string(),
            why: explanation.why.to_string(),
            subject: (*subject).to_owned(),
        });
        let since = at - BEFORE;
        for (at, service, signal) in std::mem::take(&mut self.recent) {
            if at >= since && signal.address == explanation.offender {
                self.write(signal_line(at, service, &signal));
            }
        }
    }

    /// Lets time pass; `now` is UTC.
    pub(crate) fn handle_tick(&mut self, now: Timestamp) {
        if self.open.as_ref().is_some_and(|open| open.calm_at <= now) {
            self.close(now, "calm");
        }
        while self.recent.front().is_some_and(|(at, ..)| *at < now - BEFORE) {
            self.recent.pop_front();
        }
    }

    fn close(&mut self, now: Timestamp, why: &str) {
        let Some(open) = self.open.take() else { return };
        if open.left_out > 0 {
            self.write(Line::LeftOut { at: rfc3339(now), signals: open.left_out });
        }
        let lost_lines = self.lost - open.lost_before;
        self.write(Line::Closed { at: rfc3339(now), why: why.to_owned(), lost_lines });
    }

    /// Has records deleted that are older than is kept.
    pub(crate) fn purge(&mut self, now: Timestamp) {
        self.send(Written::Purge { before: name_of(now - KEEP) });
    }

    /// The wall stops: what is open ends here.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.close(now, "the wall was stopped");
    }

    fn write(&mut self, line: Line) {
        self.send(Written::Line(Box::new(line)));
    }

    fn send(&mut self, written: Written) {
        if self.lines.as_ref().is_none_or(|lines| lines.try_send(written).is_err()) {
            self.lost += 1;
        }
    }

    /// Lines that the disk was too slow for.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Incidents {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that records incidents failed");
        }
    }
}

const fn second_of(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000
}

fn signal_line(at: Timestamp, service: &str, signal: &Signal) -> Line {
    Line::Signal { at: rfc3339(at), service: service.to_owned(), what: signal.to_string() }
}

/// Records are named after when they were opened, so that their names are in that order.
fn name_of(at: Timestamp) -> String {
    rfc3339(at).replace(':', "-")
}

/// Whether a file is named as records are. Others are left alone: they are neither listed nor deleted to make room.
fn is_ours(name: &str) -> bool {
    let shape = b"dddd-dd-ddTdd-dd-dd.";
    let fits = |(byte, shape): (u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == *shape };
    name.len() > shape.len() && name.bytes().zip(shape).all(fits)
}

/// Where incidents are recorded.
pub(crate) fn folder_in(state_folder: &Path) -> PathBuf {
    state_folder.join("incidents")
}

fn write_all(folder: &Path, lines: &Receiver<Written>) {
    let mut record: Option<Record> = None;
    let mut failing = false;
    while let Ok(written) = lines.recv() {
        let outcome = match written {
            Written::Begin(path) => {
                record = None;
                begin_record(folder, &path).map(|file| record = Some(Record { file, bytes: 0, left_out: 0 }))
            }
            Written::Line(line) => append(&mut record, &line),
            Written::Purge { before } => remove_older(folder, &before),
        };
        if let Err(error) = &outcome
            && !failing
        {
            tracing::error!(error = format!("{error:#}"), "An incident could not be recorded");
        }
        failing = outcome.is_err();
    }
}

fn begin_record(folder: &Path, path: &Path) -> Result<File> {
    let names = names_in(folder)?;
    let surplus = (names.len() + 1).saturating_sub(RECORDS_MAX);
    for name in names.iter().take(surplus) {
        fs::remove_file(folder.join(format!("{name}{ENDING}")))?;
    }
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

fn remove_older(folder: &Path, before: &str) -> Result<()> {
    for name in names_in(folder)?.iter().take_while(|name| name.as_str() < before) {
        fs::remove_file(folder.join(format!("{name}{ENDING}")))?;
    }
    Ok(())
}

/// A record that is being written.
struct Record {
    file: File,
    bytes: u64,
    /// Lines that had no room, or that the disk refused.
    left_out: u64,
}

fn append(record: &mut Option<Record>, line: &Line) -> Result<()> {
    let Some(Record { file, bytes, left_out }) = record else { return Ok(()) };
    let mut line = line.clone();
    if let Line::Closed { lost_lines, .. } = &mut line {
        *lost_lines += *left_out;
    }
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    // What was decided has room left when signals have none, and the last line always has.
    let room = match line {
        Line::Signal { .. } | Line::LeftOut { .. } => SIGNAL_BYTES_MAX,
        Line::Opened { .. } | Line::Decision { .. } => RECORD_BYTES_MAX,
        Line::Closed { .. } => u64::MAX,
    };
    if *bytes + text.len() as u64 > room {
        *left_out += 1;
        return Ok(());
    }
    if let Err(error) = file.write_all(&text) {
        *left_out += 1;
        // Half a line must not swallow the next one.
        file.set_len(*bytes)?;
        return Err(error.into());
    }
    *bytes += text.len() as u64;
    if matches!(line, Line::Opened { .. } | Line::Closed { .. } | Line::Decision { .. }) {
        file.sync_data()?;
    }
    Ok(())
}

/// The names of all records, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        // Nothing has happened yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => {
            entries.with_context(|| format!("cannot read the incidents in {}; root can", folder.display()))?
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(name) =
            name.to_str().and_then(|name| name.strip_suffix(ENDING)).filter(|name| is_ours(name))
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Every whole line of a record, and how many are not.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> Result<(Vec<Line>, u64)> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut lines, mut broken) = (Vec::new(), 0);
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = std::io::Read::take(&mut reader, LINE_BYTES_MAX as u64).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok((lines, broken));
        }
        match serde_json::from_slice(&text) {
            Ok(line) => lines.push(line),
            Err(_) => broken += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use floodwall_engine::{
        rule::{RuleId, evaluate::Subject},
        signal::{Detail, SignalKind},
    };

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    fn signal() -> Signal {
        Signal {
            kind: SignalKind::LoginFailed,
            at: at(0),
            service: 0,
            address: Address::from_v4(0x0a00_0001),
            flow: None,
            detail: Detail::default(),
        }
    }

    fn decide(incidents: &mut Incidents, seconds: u64, is_grave: bool) {
        let address = Address::from_v4(0x0a00_0001);
        let explanation = Explanation {
            rule: RuleId("teamtalk/takeover".into()),
            why: "too many kicks".into(),
            subject: Subject::Address(address),
            offender: address,
            at: at(seconds),
            count: 9,
            limit: 8,
            within: Span::from_secs(60),
            evidence: vec!["user.kicked from 10.0.0.1".into()],
        };
        let action = if is_grave { "note" } else { "limit" };
        let decision = Decision { action, subject: "10.0.0.1", explanation: &explanation, is_grave };
        incidents.handle_decision(at(seconds), &decision);
    }

    fn records(folder: &Path) -> Vec<(Vec<Line>, u64)> {
        let folder = folder_in(folder);
        names_in(&folder)
            .unwrap()
            .iter()
            .map(|name| read(&folder.join(format!("{name}{ENDING}"))).unwrap())
            .collect()
    }

    #[test]
    fn a_record_reaches_back_ten_minutes_and_ends_when_it_is_calm() {
        let folder = tempfile::tempdir().unwrap();
        let mut incidents = Incidents::open(folder.path()).unwrap();
        for minute in 0..30 {
            incidents.handle_signal(at(minute * 60), "teamtalk", &signal());
            incidents.handle_tick(at(minute * 60));
        }
        decide(&mut incidents, 1_790, false);
        decide(&mut incidents, 1_800, true);
        for _ in 0..150 {
            incidents.handle_signal(at(1_801), "teamtalk", &signal());
        }
        // Of those whom no rule has named only the number is kept.
        incidents.handle_signal(
            at(1_801),
            "teamtalk",
            &Signal { address: Address::from_v4(0x0a00_0099), ..signal() },
        );
        decide(&mut incidents, 2_000, true);
        // Junk that is limited again and again keeps nothing open.
        decide(&mut incidents, 2_100, false);
        incidents.handle_tick(at(2_599));
        assert!(incidents.open.is_some());
        incidents.handle_tick(at(2_600));
        assert!(incidents.open.is_none());
        decide(&mut incidents, 9_000, true);
        incidents.finish(at(9_001));
        drop(incidents);
        let records = records(folder.path());
        assert_eq!(records.len(), 2);
        let (lines, broken) = &records[0];
        assert_eq!(*broken, 0);
        assert!(matches!(&lines[0], Line::Opened { rule, .. } if rule == "teamtalk/takeover"));
        let count = |is: fn(&Line) -> bool| lines.iter().filter(|line| is(line)).count();
        assert_eq!(count(|line| matches!(line, Line::Signal { .. })), 10 + 100);
        assert_eq!(count(|line| matches!(line, Line::LeftOut { signals: 51, .. })), 1);
        assert_eq!(count(|line| matches!(line, Line::Decision { .. })), 3);
        assert!(matches!(lines.last(), Some(Line::Closed { why, lost_lines: 0, .. }) if why == "calm"));
    }

    #[test]
    fn a_torn_line_is_counted_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut incidents = Incidents::open(folder.path()).unwrap();
        decide(&mut incidents, 0, true);
        drop(incidents);
        let name = names_in(&folder_in(folder.path())).unwrap().remove(0);
        let path = folder_in(folder.path()).join(format!("{name}{ENDING}"));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        let (lines, broken) = read(&path).unwrap();
        assert_eq!((lines.len(), broken), (1, 1));
    }

    #[test]
    fn the_oldest_records_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut incidents = Incidents::open(folder.path()).unwrap();
        let stray = folder_in(folder.path()).join("0-notes.jsonl");
        fs::write(&stray, "{}").unwrap();
        for number in 0..60 {
            decide(&mut incidents, number * 10_000, true);
            incidents.handle_tick(at(number * 10_000 + 601));
        }
        drop(incidents);
        let names = names_in(&folder_in(folder.path())).unwrap();
        assert_eq!(names.len(), RECORDS_MAX);
        assert!(stray.exists(), "what somebody else keeps there is theirs");
        assert!(names[0].starts_with(&rfc3339(at(100_000))[..13]), "{names:?}");
    }
}
