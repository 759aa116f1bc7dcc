//! `floodwall analyze`: what a server's log tells, judged by the same rules as packets.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{
    cli::{AnalyzeArguments, Format},
    configuration::Configuration,
    guard::Guard,
    output::{Exit, complain, print, print_json, progress_over, shown},
    rules::{self, RulesError},
};
use anyhow::{Result, bail};
use floodwall_engine::{
    Engine, Protocol, Timestamp,
    protocol::log::{Format as LogFormat, LogReader, Reading},
};
use lines::{Lines, Piece};
use report::Tally;

mod lines;
mod report;

/// Fixed, so that the same log gives the same report.
const SEED: u64 = 1;
/// Lines looked at to find out whose they are.
const LINES_TRIED: usize = 1_000;

/// Runs the command.
pub(crate) fn run(arguments: &AnalyzeArguments) -> Exit {
    let mut analysis = match Analysis::new(arguments) {
        Ok(analysis) => analysis,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let stop = stop_on_interrupt();
    let mut failures = Vec::new();
    for path in in_order(&arguments.files) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if let Err(error) = analysis.read(&path, arguments, &stop) {
            failures.push(format!("{error:#}"));
        }
    }
    if stop.load(Ordering::Relaxed) {
        failures.push("interrupted: this is what was read so far".to_owned());
    }
    analysis.finish();
    let report = analysis.tally.report(arguments.sources, &failures);
    let printed = match arguments.format {
        Format::Text => print(&report),
        Format::Json => print_json(&report),
    };
    for failure in &failures {
        complain(failure);
    }
    if failures.is_empty() { printed } else { Exit::Failed }
}

/// Set once somebody interrupts: then what was read so far is reported.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let wait = move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
        theirs.store(true, Ordering::Relaxed);
        Ok(())
    };
    let started = thread::Builder::new().name("interrupt".into()).spawn(move || {
        if let Err(error) = wait() {
            complain(format_args!("an interrupt will end this without a report: {error:#}"));
        }
    });
    if let Err(error) = started {
        complain(format_args!("an interrupt will end this without a report: {error}"));
    }
    stop
}

/// Files by the time of their first line, so that rotated logs follow each other; what tells no time, or cannot be
/// read twice, stays where it was named.
fn in_order(files: &[PathBuf]) -> Vec<PathBuf> {
    let first = |path: &PathBuf| -> Option<Timestamp> {
        if !path.is_file() {
            return None;
        }
        let piece = Lines::open(path).ok()?.next_piece().ok()??;
        piece.bytes.split(|byte| *byte == b'\n').take(LINES_TRIED).find_map(|line| {
            let mut reader = LogReader::new(LogFormat::recognise(line)?, 0, SEED);
            let (_, at) = reader.read_line(line, &mut Vec::new());
            (at != Timestamp::EPOCH).then_some(at)
        })
    };
    let mut timed: Vec<(Option<Timestamp>, &PathBuf)> =
        files.iter().map(|path| (if files.len() > 1 { first(path) } else { None }, path)).collect();
    if timed.iter().all(|(at, _)| at.is_some()) {
        timed.sort_by_key(|(at, _)| *at);
    }
    timed.into_iter().map(|(_, path)| path.clone()).collect()
}

/// Readers, engine and counts.
struct Analysis {
    engine: Engine,
    guard: Guard,
    tally: Tally,
    /// One of each format: a rotated log goes on where the one before ended.
    readers: Vec<(LogFormat, LogReader)>,
}

impl Analysis {
    fn new(arguments: &AnalyzeArguments) -> Result<Self, String> {
        let rules = rules::load(arguments.rules.as_deref()).map_err(|error| match error {
            RulesError::Unreadable(reason) => reason,
            RulesError::Mistakes(found) => {
                found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
        })?;
        let guard = Guard::new(rules, &Configuration::default(), &[])?;
        let engine = Engine::new(guard.engine(SEED));
        Ok(Self { engine, guard, tally: Tally::default(), readers: Vec::new() })
    }

    fn read(&mut self, path: &Path, arguments: &AnalyzeArguments, stop: &AtomicBool) -> Result<()> {
        let lines = Lines::open(path)?;
        let progress = progress_over(path, arguments.plain);
        let mut format = arguments.log_format;
        let begun = self.tally.lines;
        let mut before = 0;
        while let Some(piece) = lines.next_piece()? {
            if format.is_none() {
                format = recognise(&piece);
            }
            let Some(format) = format else {
                let names = LogFormat::ALL.map(LogFormat::as_str).join(", ");
                bail!("{}: no log that is known; name its format with --log-format: {names}", shown(path));
            };
            if let Some((line, other)) = self.read_piece(format, &piece)? {
                bail!(
                    "{}, line {}: from here on it is a log of {}, not of {}; cut it there, or name its format with \
                     --log-format",
                    shown(path),
                    before + line,
                    other.as_str(),
                    format.as_str()
                );
            }
            before = self.tally.lines - begun;
            progress.set_position(lines.consumed());
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    /// Reads whole lines; answers which line, counted from 1, is the first of another server.
    fn read_piece(&mut self, format: LogFormat, piece: &Piece) -> Result<Option<(u64, LogFormat)>> {
        let Self { engine, guard, tally, readers } = self;
        let at = match readers.iter().position(|(known, _)| *known == format) {
            Some(at) => at,
            None => {
                let protocol = if format == LogFormat::TeamTalk { Protocol::TeamTalk } else { Protocol::Irc };
                let service = guard.services.iter().position(|service| service.file.protocol == protocol);
                let Some(service) = service.and_then(|service| u8::try_from(service).ok()) else {
                    bail!("the rules have no service {}", protocol.as_str());
                };
                readers.push((format, LogReader::new(format, service, SEED)));
                readers.len() - 1
            }
        };
        let Some((_, reader)) = readers.get_mut(at) else { return Ok(None) };
        let begun = tally.lines;
        tally.overlong += piece.overlong;
        tally.lines += piece.overlong;
        let mut signals = Vec::new();
        let mut rest = piece.bytes.as_slice();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            tally.lines += 1;
            let (reading, at) = reader.read_line(line, &mut signals);
            if reading == Reading::Unknown {
                if let Some(other) = LogFormat::recognise(line).filter(|other| *other != format) {
                    return Ok(Some((tally.lines - begun, other)));
                }
                tally.unparsed += 1;
            }
            tally.note_time(at);
            if signals.is_empty() {
                continue;
            }
            for signal in &signals {
                tally.note_signal(signal);
            }
            engine.handle_log(at, &mut signals);
            while let Some(command) = engine.next_command() {
                tally.note_command(&command);
            }
        }
        Ok(None)
    }

    fn finish(&mut self) {
        self.engine.finish();
        while let Some(command) = self.engine.next_command() {
            self.tally.note_command(&command);
        }
    }
}

fn recognise(piece: &Piece) -> Option<LogFormat> {
    piece.bytes.split(|byte| *byte == b'\n').take(LINES_TRIED).find_map(LogFormat::recognise)
}
