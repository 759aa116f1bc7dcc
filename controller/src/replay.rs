//! `floodwall replay`: captures in, the verdicts of gate and rules out.
//!
//! The gate is the kernel's gate over tables in memory; the engine is the daemon's engine; the clock of both is
//! the capture's. So what is reported is what would have happened.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use floodwall_engine::{
    Engine, Packet, Span, Timestamp,
    catalogue::Catalogue,
    fragment::{Passage, Reassembler},
    signal::Signal,
};
use floodwall_wire::{
    Observation,
    frame::{self, Fragment},
    judge_walked,
    memory::Tables,
    observe_walked,
    window::SliceWindow,
};
use indicatif::ProgressBar;

use crate::{
    capture::{CaptureFile, Frame},
    cli::{Format, ReplayArguments, ServicePorts},
    configuration::{self, Configuration, ConfigurationError},
    enforce::{Enforcer, tables::TablesEnforcer},
    guard::Guard,
    live::ledger::{self, BaselineRow},
    output::{Exit, complain, print, progress_over, shown},
    rules::{self, RulesError},
};

mod compare;
mod fragments;
mod json;
mod tally;
mod text;

use tally::Tally;

/// Key of every table: the same capture gives the same report, whoever replays it.
const SEED: u64 = 0x0066_6c6f_6f64_7761;
/// A clock that goes back further than packets overtake each other has been set, or it is another recording.
const BACKWARDS: Span = Span::from_secs(60);
/// Packets between two looks at the progress bar.
const PROGRESS_PACKETS: u64 = 4_096;

/// Runs the command.
pub(crate) fn run(arguments: &ReplayArguments) -> Exit {
    let mut walls = match set_up(arguments) {
        Ok(walls) => walls,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let failures = read_all(&arguments.files, arguments.plain, &mut walls);
    for wall in &mut walls {
        wall.finish();
    }
    for failure in &failures {
        complain(failure);
    }
    // Where nothing could be read there is nothing to say about anybody.
    if arguments.format == Format::Text && walls.iter().all(|wall| wall.tally().total.packets == 0) {
        return if failures.is_empty() { print("The captures hold no packet.\n") } else { Exit::Failed };
    }
    let report = match (walls.as_slice(), arguments.format) {
        ([wall], Format::Text) => text::report(wall.tally(), arguments.sources),
        ([wall], Format::Json) => json::report(wall.tally(), arguments.sources, None),
        ([wall, other, ..], Format::Text) => {
            let mut report = text::report(wall.tally(), arguments.sources);
            report.push_str(&compare::text(wall.tally(), other.tally()));
            report
        }
        ([wall, other, ..], Format::Json) => {
            json::report(wall.tally(), arguments.sources, Some(other.tally()))
        }
        ([], _) => String::new(),
    };
    let printed = print(report);
    if failures.is_empty() { printed } else { Exit::Failed }
}

/// Reads captures for what no documentation has. Answers that, and what went wrong; `Err` when nothing can be begun.
pub(crate) fn catalogue(
    files: &[PathBuf],
    services: &[ServicePorts],
    plain: bool,
) -> Result<(crate::catalogue::Report, Vec<String>), String> {
    let rules = match rules::load(None) {
        Ok(rules) => rules,
        Err(RulesError::Unreadable(reason)) => return Err(reason),
        Err(RulesError::Mistakes(found)) => return Err(lines(&found)),
    };
    let guard = Guard::new(rules, &Configuration::default(), services)?;
    let mut wall = Wall::new(&guard, files)?;
    wall.engine.keep_catalogue(Catalogue::default());
    let mut walls = [wall];
    let failures = read_all(files, plain, &mut walls);
    let [wall] = &mut walls;
    wall.finish();
    let name =
        |service: u8| guard.services.get(usize::from(service)).map_or("unguarded", |service| service.name);
    Ok((crate::catalogue::report(wall.engine.catalogue(), name, rfc3339), failures))
}

/// One wall, or two to compare: `--rules` and `--against`.
fn set_up(arguments: &ReplayArguments) -> Result<Vec<Wall>, String> {
    let mut walls = Vec::new();
    let baseline = match &arguments.baseline {
        Some(folder) => ledger::baseline(folder).map_err(|error| format!("{error:#}"))?,
        None => Vec::new(),
    };
    let folders = [Some(arguments.rules.as_deref()), arguments.against.as_deref().map(Some)];
    for folder in folders.into_iter().flatten() {
        let guard = guard_of(folder, arguments.config.as_deref(), &arguments.services)?;
        let mut wall = Wall::new(&guard, &arguments.files)?;
        wall.restore_baseline(&baseline);
        walls.push(wall);
    }
    Ok(walls)
}

/// What is guarded by the rules of a folder, or the shipped ones.
pub(crate) fn guard_of(
    folder: Option<&Path>,
    configuration: Option<&Path>,
    services: &[ServicePorts],
) -> Result<Guard, String> {
    let configuration = match configuration.map(configuration::load) {
        None => Configuration::default(),
        Some(Ok(configuration)) => configuration,
        Some(Err(ConfigurationError::Unreadable(reason))) => return Err(reason),
        Some(Err(ConfigurationError::Mistakes(found))) => return Err(lines(&found)),
    };
    let rules = match rules::load(folder) {
        Ok(rules) => rules,
        Err(RulesError::Unreadable(reason)) => return Err(reason),
        Err(RulesError::Mistakes(found)) => return Err(lines(&found)),
    };
    Guard::new(rules, &configuration, services)
}

fn lines(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads every capture in turn; answers what went wrong. What was read before counts.
fn read_all(files: &[PathBuf], plain: bool, walls: &mut [Wall]) -> Vec<String> {
    let mut failures = Vec::new();
    for path in files {
        if let Err(error) = read_file(path, plain, walls, |_| {}) {
            failures.push(format!("{error:#}"));
        }
    }
    failures
}

/// Shows a capture to every wall, frame by frame.
///
/// # Errors
/// When it cannot be opened, or is no capture from some place on; what was read before counts.
pub(crate) fn read_file(
    path: &Path,
    plain: bool,
    walls: &mut [Wall],
    after: impl FnMut(&mut [Wall]),
) -> anyhow::Result<()> {
    let mut capture = CaptureFile::open(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let progress = progress_over(shown(path), bytes, plain);
    let outcome = read_one(&mut capture, walls, &progress, after);
    progress.finish_and_clear();
    outcome
}

fn read_one(
    capture: &mut CaptureFile,
    walls: &mut [Wall],
    progress: &ProgressBar,
    mut after: impl FnMut(&mut [Wall]),
) -> anyhow::Result<()> {
    let consumed: Arc<AtomicU64> = capture.consumed();
    let mut packets = 0u64;
    while let Some(frame) = capture.next_frame()? {
        for wall in walls.iter_mut() {
            wall.handle_frame(&frame);
        }
        after(walls);
        packets += 1;
        if packets.is_multiple_of(PROGRESS_PACKETS) {
            progress.set_position(consumed.load(Ordering::Relaxed));
        }
    }
    Ok(())
}

/// Gate, engine and report of one rule set.
pub(crate) struct Wall {
    enforcer: TablesEnforcer<Tables>,
    engine: Engine,
    tally: Tally,
    reassembler: Reassembler,
    learning: Span,
    last: Option<Timestamp>,
    heard_server: bool,
    is_watched: bool,
    guard: Guard,
    baseline: Vec<BaselineRow>,
}

impl Wall {
    /// A wall that has seen nothing.
    ///
    /// # Errors
    /// When the allow list does not fit.
    pub(crate) fn new(guard: &Guard, files: &[PathBuf]) -> Result<Self, String> {
        let tables = guard.tables(SEED).map_err(|error| error.to_string())?;
        Ok(Self {
            enforcer: TablesEnforcer::new(tables),
            engine: Engine::new(guard.engine(SEED)),
            reassembler: Reassembler::new(SEED),
            tally: Tally::new(guard, files),
            learning: guard.learning_time(),
            last: None,
            heard_server: false,
            is_watched: false,
            guard: guard.clone(),
            baseline: Vec::new(),
        })
    }

    /// Judges by what a wall has learnt to be usual.
    fn restore_baseline(&mut self, rows: &[BaselineRow]) {
        self.guard.restore_baseline(&mut self.engine, rows);
        self.baseline = rows.to_vec();
    }

    /// One packet from the card to the ban: gate, engine, enforcer.
    fn handle_frame(&mut self, frame: &Frame<'_>) {
        if self.last.is_some_and(|last| last.since(frame.at) > BACKWARDS) {
            self.begin_again();
        }
        let tables = &mut self.enforcer.store;
        tables.set_now(frame.at.as_nanos());
        // Without the server's side of the capture nobody can prove anything: the gate goes on learning.
        if !self.heard_server || self.last.is_none_or(|last| is_break(last, frame.at)) {
            tables.status_mut().learning_until = (frame.at + self.learning).as_nanos();
        }
        self.last = Some(frame.at);
        self.tally.count_frame(frame);
        let window = SliceWindow::new(frame.bytes);
        let Ok(headers) = frame::walk(&window) else {
            self.tally.count_undecoded();
            self.handle_fragment(frame, None);
            return self.carry_out();
        };
        let is_fragment = headers.fragment == Fragment::First;
        let judgement = judge_walked(&window, tables, &headers);
        if judgement.is_guarded() {
            self.tally.count_arriving(frame, headers.source, &judgement);
            if is_fragment {
                self.handle_fragment(frame, Some(Passage::Arriving(judgement)));
            }
            if !is_fragment || judgement.reason.is_shape() {
                self.engine.handle_packet(&Packet::arriving(frame.at, frame.bytes, &headers, &judgement));
            }
        } else {
            let observation = observe_walked(&window, tables, &headers);
            if !observation.is_guarded() {
                if let Some(packet) = self.guard.link_packet(frame.at, frame.bytes, &headers) {
                    self.engine.handle_packet(&packet);
                    self.carry_out();
                }
                return;
            }
            self.heard_server = true;
            let Observation { service, class, .. } = observation;
            if is_fragment {
                self.handle_fragment(frame, Some(Passage::Departing(observation)));
            } else {
                self.engine.handle_packet(&Packet::departing(
                    frame.at,
                    frame.bytes,
                    &headers,
                    service,
                    class,
                ));
            }
        }
        self.carry_out();
    }

    /// The capture's clock went back: another recording, or a clock that was set. Nothing counted so far may be held
    /// against what comes now, so gate and engine begin again; what was reported stays.
    fn begin_again(&mut self) {
        self.engine.finish();
        self.carry_out();
        self.tally.absorb(&self.engine, &self.enforcer.store);
        self.tally.count_restart();
        match self.guard.tables(SEED) {
            Ok(tables) => self.enforcer = TablesEnforcer::new(tables),
            Err(error) => self.tally.note_failure(&error.into()),
        }
        let catalogue = self.engine.take_catalogue();
        self.engine = Engine::new(self.guard.engine(SEED));
        self.guard.restore_baseline(&mut self.engine, &self.baseline);
        if let Some(catalogue) = catalogue {
            self.engine.keep_catalogue(catalogue);
        }
        if self.is_watched {
            self.engine.watch_signals();
        }
        self.reassembler = Reassembler::new(SEED);
        self.last = None;
        self.heard_server = false;
    }

    /// From now on the signals of each frame can be taken.
    pub(crate) fn watch_signals(&mut self) {
        self.is_watched = true;
        self.engine.watch_signals();
    }

    /// The signals since this was called last.
    pub(crate) fn take_signals(&mut self) -> Vec<Arc<Signal>> {
        self.engine.take_signals()
    }

    /// Packets seen, of whatever kind.
    pub(crate) const fn packets(&self) -> u64 {
        self.tally.total.packets
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.engine.next_command() {
            if let Err(error) = self.enforcer.apply(&command) {
                self.tally.note_failure(&error);
            }
            self.tally.note_command(&command);
        }
    }

    fn finish(&mut self) {
        self.engine.finish();
        self.carry_out();
        self.tally.absorb(&self.engine, &self.enforcer.store);
    }

    const fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// Whether the capture was interrupted between two packets: then who holds a session has to be learnt anew.
fn is_break(last: Timestamp, now: Timestamp) -> bool {
    now.since(last) > Span::from_secs(3_600)
}

/// RFC 3339, UTC, microseconds.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.as_nanos());
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(timestamp) => format!("{timestamp:.6}"),
        Err(_) => "never".to_owned(),
    }
}
