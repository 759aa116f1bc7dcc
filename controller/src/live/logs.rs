//! What followed logs say, on its way to the rules: read, and joined with what the wire has said already.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context, Result};
use floodwall_engine::{
    Span, Timestamp,
    bounded::BoundedMap,
    protocol::log::{LogReader, Reading},
    signal::{FlowId, Signal, SignalKind},
};
use floodwall_wire::Address;
use serde::{Deserialize, Serialize};

use super::follow::{Batch, Followers, Positions, Progress};
use crate::{configuration::LogEntry, guard::Guard};

/// How long the wire's word waits for the log's.
const JOIN_WITHIN: Span = Span::from_secs(10);
/// Events of the wire that wait: by service, address and kind.
const JOINS_MAX: usize = 32_768;
/// Numbers of connections that only a log knows are never those of the wire.
const LOG_FLOWS: u64 = 1 << 63;
const FLOWS_PER_LOG: u64 = 1 << 48;
const POSITIONS_FILE: &str = "logs.json";

/// What is told of one followed log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct LogFigures {
    /// Its path, or its unit in the journal.
    pub(crate) name: String,
    pub(crate) lines: u64,
    pub(crate) unparsed: u64,
    /// Lines read to know who is there, and not judged.
    pub(crate) old: u64,
    /// Signals that the wire had told already.
    pub(crate) joined: u64,
    /// Signals that only the log has told.
    pub(crate) judged: u64,
    /// From being seen in the file to being judged, of the last batch, in milliseconds.
    pub(crate) lag_millis: u64,
    pub(crate) behind_bytes: u64,
    pub(crate) passed_over_bytes: u64,
    pub(crate) is_failing: bool,
}

/// Whether a line's own date says that it was not written now: a file that was restored or edited looks like a new one. Logs have local
/// time and do not say which, so a day is allowed for; what has no date is taken as it comes.
fn is_of_another_day(told: Timestamp, now: Timestamp) -> bool {
    const DATED: Timestamp = Timestamp::from_secs(1_000_000_000);
    const APART_MAX: Span = Span::from_secs(26 * 3_600);
    told >= DATED && (now.since(told) > APART_MAX || told.since(now) > APART_MAX)
}

/// One followed log.
struct Followed {
    name: String,
    reader: LogReader,
    progress: Arc<Progress>,
    figures: LogFigures,
}

/// All followed logs.
pub(super) struct Logs {
    followers: Followers,
    followed: Vec<Followed>,
    positions: Positions,
    file: PathBuf,
    is_saved: bool,
    is_failing: bool,
}

impl Logs {
    /// Follows what the configuration names; none if it names nothing.
    ///
    /// # Errors
    /// When a log is that of no guarded service, or the positions of an earlier run cannot be read.
    pub(super) fn start(
        entries: &[LogEntry],
        guard: &Guard,
        state_folder: &Path,
        seed: u64,
    ) -> Result<Option<Self>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let file = state_folder.join(POSITIONS_FILE);
        let positions = read_positions(&file)?;
        let followers = Followers::start(entries, &positions)?;
        let mut followed = Vec::new();
        for (entry, progress) in entries.iter().zip(followers.progress()) {
            let protocol = entry.format.protocol();
            let service = guard.services.iter().position(|service| service.file.protocol == protocol);
            let service = service.and_then(|service| u8::try_from(service).ok()).with_context(|| {
                format!("no {} service is guarded: {}", protocol.as_str(), entry.source.name())
            })?;
            followed.push(Followed {
                name: entry.source.name(),
                reader: LogReader::new(entry.format, service, seed),
                progress: Arc::clone(progress),
                figures: LogFigures::default(),
            });
        }
        Ok(Some(Self { followers, followed, positions, file, is_saved: true, is_failing: false }))
    }

    /// The next lines.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        self.followers.next().await
    }

    /// Reads lines; answers what they say that is to be judged, at the time at which they were seen.
    pub(super) fn read(
        &mut self,
        batch: &Batch,
        join: &mut Join,
        now: Timestamp,
    ) -> (Timestamp, Vec<Signal>) {
        let Some(followed) = self.followed.get_mut(batch.log) else { return (now, Vec::new()) };
        let lag = batch.seen.elapsed();
        let at = now - Span::from_nanos(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX));
        let figures = &mut followed.figures;
        figures.lag_millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let mut signals = Vec::new();
        for line in batch.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            figures.lines += 1;
            let before = signals.len();
            let (reading, told) = followed.reader.read_line(line, &mut signals);
            if reading == Reading::Unknown {
                figures.unparsed += 1;
            }
            if batch.is_old || is_of_another_day(told, at) {
                figures.old += 1;
                signals.truncate(before);
            }
        }
        self.positions.insert(followed.name.clone(), batch.position.clone());
        self.is_saved = false;
        if batch.is_old {
            return (at, Vec::new());
        }
        for signal in &mut signals {
            signal.at = at;
            let own = LOG_FLOWS + FLOWS_PER_LOG * batch.log as u64;
            signal.flow = signal.flow.map(|flow| FlowId(own + flow.0 % FLOWS_PER_LOG));
        }
        let all = signals.len();
        signals.retain(|signal| !join.is_told(signal));
        figures.joined += (all - signals.len()) as u64;
        figures.judged += signals.len() as u64;
        (at, signals)
    }

    /// Writes down how far everything was read: call it about once a second.
    pub(super) fn handle_tick(&mut self) {
        if self.is_saved {
            return;
        }
        let outcome = write_positions(&self.file, &self.positions);
        if let Err(error) = &outcome
            && !self.is_failing
        {
            tracing::error!(%error, "How far logs were read cannot be written down");
        }
        self.is_failing = outcome.is_err();
        self.is_saved = outcome.is_ok();
    }

    /// By place in the configuration.
    pub(super) fn figures(&self) -> Vec<LogFigures> {
        let figures = |followed: &Followed| LogFigures {
            name: followed.name.clone(),
            behind_bytes: followed.progress.behind.load(Ordering::Relaxed),
            passed_over_bytes: followed.progress.passed_over.load(Ordering::Relaxed),
            is_failing: followed.progress.is_failing.load(Ordering::Relaxed),
            ..followed.figures.clone()
        };
        self.followed.iter().map(figures).collect()
    }
}

fn read_positions(file: &Path) -> Result<Positions> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Positions::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    // A crash cannot cut it off, so whatever does not read was written by somebody else: then logs are followed from now on.
    serde_json::from_slice(&text).or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "How far logs were read is not known");
        Ok(Positions::new())
    })
}

fn write_positions(file: &Path, positions: &Positions) -> io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut new, positions)?;
    new.persist(file)?;
    Ok(())
}

/// What the wire has told lately, so that a log that tells it again counts nothing twice: one for one, by service, address and
/// kind. What the wire cannot read, in TLS, it does not tell, and the log's word stands.
#[derive(Debug)]
pub(crate) struct Join {
    told: BoundedMap<(u8, Address, SignalKind), Told>,
}

#[derive(Debug, Default)]
struct Told {
    count: u32,
    last: Timestamp,
}

impl Join {
    /// Nothing was told; `seed` keys the table.
    pub(crate) fn new(seed: u64) -> Self {
        Self { told: BoundedMap::new(JOINS_MAX, seed) }
    }

    /// The wire tells something.
    pub(crate) fn note(&mut self, signal: &Signal) {
        let key = (signal.service, signal.address, signal.kind);
        let told = self.told.touch_or_insert(&key, signal.at, Told::default, |_| true, |_, _| {});
        if let Some(told) = told {
            if signal.at.since(told.last) > JOIN_WITHIN {
                told.count = 0;
            }
            told.count = told.count.saturating_add(1);
            told.last = signal.at;
        }
    }

    /// Whether the wire has told what a log tells; each of its words is used up by one.
    pub(crate) fn is_told(&mut self, signal: &Signal) -> bool {
        let key = (signal.service, signal.address, signal.kind);
        let Some(told) = self.told.touch(&key, signal.at) else { return false };
        if told.count == 0 || signal.at.since(told.last) > JOIN_WITHIN {
            return false;
        }
        told.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::signal::Detail;

    fn signal(kind: SignalKind, last: u32, at: u64) -> Signal {
        let (address, at) = (Address::from_v4(last), Timestamp::from_secs(1_000_000 + at));
        Signal { kind, at, service: 0, address, flow: None, detail: Detail::default() }
    }

    #[test]
    fn what_the_wire_has_told_counts_once_and_what_it_cannot_read_counts() {
        let mut join = Join::new(1);
        let failed = |last, at| signal(SignalKind::LoginFailed, last, at);
        join.note(&failed(1, 0));
        join.note(&failed(1, 1));
        assert!(join.is_told(&failed(1, 2)));
        assert!(join.is_told(&failed(1, 2)));
        assert!(!join.is_told(&failed(1, 2)), "a third one is of a connection that the wire cannot read");
        assert!(!join.is_told(&failed(2, 2)), "somebody else");
        assert!(!join.is_told(&signal(SignalKind::LoginSucceeded, 1, 2)), "something else");
        join.note(&failed(1, 3));
        assert!(!join.is_told(&failed(1, 30)), "too long ago to be the same");
    }

    #[test]
    fn positions_survive_and_broken_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(POSITIONS_FILE);
        assert!(read_positions(&file).unwrap().is_empty());
        let position = super::super::follow::Position::File { inode: 7, offset: 9 };
        let positions = Positions::from([("a.log".to_owned(), position)]);
        write_positions(&file, &positions).unwrap();
        assert_eq!(read_positions(&file).unwrap(), positions);
        fs::write(&file, "{").unwrap();
        assert!(read_positions(&file).unwrap().is_empty());
    }
}
