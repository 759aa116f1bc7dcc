//! `floodwall analyze`: what a server's log tells, judged by the same rules as packets.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use floodwall_engine::{Timestamp, protocol::log::Format as LogFormat};
use indicatif::ProgressBar;

use crate::{
    cli::{AnalyzeArguments, Format},
    output::{Exit, complain, print, print_json, progress_over, shown},
    rules::{self, RulesError},
};
use judgement::{Judgement, Window};
use lines::{BLOCK_BYTES, Block, LINE_BYTES_MAX, Lines, named};
use merged::{Failures, Merged};
use report::Report;

mod hitters;
mod html;
mod judgement;
mod lines;
mod merged;
mod people;
mod redact;
mod report;
mod series;
mod tally;
#[cfg(test)]
mod tests;
mod workers;

/// Blocks looked at for the first line that shows whose log it is.
const BLOCKS_TRIED: usize = 512;
/// Lines looked at in each.
const LINES_TRIED: usize = 1_000;
/// Rows of a text where the caller does not say.
const ROWS_SHOWN: usize = 20;
/// Rows of JSON where the caller does not say.
const ROWS_LISTED: usize = 1_000;
/// Beyond that a core has nothing to do: somebody has to put the blocks in order.
const WORKERS_MAX: usize = 16;

/// Runs the command.
pub(crate) fn run(arguments: &AnalyzeArguments) -> Exit {
    let rules = match rules::load(arguments.rules.as_deref()) {
        Ok(rules) => rules,
        Err(RulesError::Unreadable(reason)) => {
            complain(reason);
            return Exit::BadInput;
        }
        Err(RulesError::Mistakes(found)) => {
            for mistake in found {
                complain(mistake);
            }
            return Exit::BadInput;
        }
    };
    let window = Window { since: arguments.since, until: arguments.until };
    if let (Some(since), Some(until)) = (window.since, window.until)
        && since >= until
    {
        complain("--since is not before --until: no line lies between them");
        return Exit::BadInput;
    }
    let mut judgement = match Judgement::new(rules, window) {
        Ok(judgement) => judgement,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let failures = read_all(arguments, &mut judgement);
    let rows = arguments.top.unwrap_or(match arguments.format {
        Format::Text => ROWS_SHOWN,
        Format::Json => ROWS_LISTED,
    });
    let mut report = Report::of(&judgement.finish(), rows, &failures);
    if arguments.redact {
        report.redact();
    }
    let mut exit = match arguments.format {
        Format::Text => print(report.text(rows)),
        Format::Json => print_json(&report),
    };
    if let Some(path) = &arguments.html
        && let Err(error) = write_html(path, &report)
    {
        complain(format_args!("cannot write {}: {error}", shown(path)));
        exit = Exit::Failed;
    }
    for failure in &failures {
        complain(failure);
    }
    if failures.is_empty() { exit } else { Exit::Failed }
}

/// Whole or not at all: a page cut off would look like one that has little to tell.
fn write_html(path: &Path, report: &Report) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    html::write(report, &mut file)?;
    file.persist(path)?;
    Ok(())
}

/// Reads the files by the times of their lines; answers what could not be read.
fn read_all(arguments: &AnalyzeArguments, judgement: &mut Judgement) -> Vec<String> {
    let stop = stop_on_interrupt();
    let failures = Failures::default();
    let note = |failure: String| failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    for group in in_order(&arguments.files, arguments.flavour) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let before = judgement.overlong();
        let read = Source::open(&group, &failures, &stop)
            .and_then(|source| source.read(arguments, judgement, &stop));
        if let Err(error) = read {
            note(format!("{error:#}"));
        }
        let overlong = judgement.overlong() - before;
        if overlong > 0 {
            note(format!(
                "{}: lines of more than {LINE_BYTES_MAX} bytes, which no server writes, were not read: {overlong}",
                group.named()
            ));
        }
    }
    let mut failures = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    if stop.load(Ordering::Relaxed) {
        failures.push("interrupted: this is what was read so far".to_owned());
    }
    failures
}

/// What is read at a time.
enum Group {
    One(PathBuf),
    /// Several of one format, by the times of their lines.
    Several(LogFormat, Vec<PathBuf>),
}

impl Group {
    fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(_, paths) => paths,
        }
    }

    fn named(&self) -> String {
        self.paths().iter().map(|path| named(path)).collect::<Vec<_>>().join(", ")
    }
}

/// One log, or several that are read as one.
struct Source {
    lines: Lines,
    shown: String,
    consumed: Arc<AtomicU64>,
    bytes: u64,
}

impl Source {
    fn open(group: &Group, failures: &Failures, stop: &Arc<AtomicBool>) -> Result<Self> {
        let (shown, consumed) = (group.named(), Arc::default());
        let bytes =
            group.paths().iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).sum();
        let lines = match group {
            Group::One(path) => Lines::open(path, &consumed, stop)?,
            Group::Several(format, paths) => {
                let open = |path: &PathBuf| Ok((Lines::open_input(path, &consumed, stop)?, named(path)));
                let logs = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
                let merged = Merged::new(*format, logs, Arc::clone(failures));
                Lines::new(Box::new(merged), shown.clone(), BLOCK_BYTES)
            }
        };
        Ok(Self { lines, shown, consumed, bytes })
    }

    fn read(
        mut self,
        arguments: &AnalyzeArguments,
        judgement: &mut Judgement,
        stop: &Arc<AtomicBool>,
    ) -> Result<()> {
        let mut first = Block::default();
        if !self.lines.next(&mut first)? {
            return Ok(());
        }
        let mut format = arguments.flavour.or_else(|| recognise(first.bytes()));
        // What a crash or a rotation has left at the beginning hides no log.
        for _ in 0..BLOCKS_TRIED {
            if format.is_some() {
                break;
            }
            judgement.pass_over(&first);
            if !self.lines.next(&mut first)? {
                break;
            }
            format = recognise(first.bytes());
        }
        let Some(format) = format else {
            let names = LogFormat::ALL.map(LogFormat::as_str).join(", ");
            bail!("{}: no log that is known; name its server with --flavour: {names}", self.shown);
        };
        judgement.begin(&self.shown, format, arguments.flavour.is_some())?;
        let workers = arguments.threads.or_else(|| thread::available_parallelism().ok().map(usize::from));
        let workers = workers.unwrap_or(1).clamp(1, WORKERS_MAX);
        let progress = Progress::over(self.shown, self.bytes, arguments.plain, &self.consumed)?;
        let read = workers::read(self.lines, first, format, workers, stop, judgement);
        progress.finish();
        read
    }
}

/// Whose log it is, by its first lines.
fn recognise(bytes: &[u8]) -> Option<LogFormat> {
    bytes.split(|byte| *byte == b'\n').take(LINES_TRIED).find_map(LogFormat::recognise)
}

/// A line on the terminal that says how far it is.
struct Progress {
    bar: ProgressBar,
    is_over: Arc<AtomicBool>,
    watcher: Option<thread::JoinHandle<()>>,
}

impl Progress {
    fn over(shown: String, bytes: u64, plain: bool, consumed: &Arc<AtomicU64>) -> Result<Self> {
        let bar = progress_over(shown, bytes, plain);
        let is_over = Arc::new(AtomicBool::new(false));
        if bar.is_hidden() {
            return Ok(Self { bar, is_over, watcher: None });
        }
        let (theirs, over, consumed) = (bar.clone(), Arc::clone(&is_over), Arc::clone(consumed));
        let watcher = thread::Builder::new().name("progress".into()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                theirs.set_position(consumed.load(Ordering::Relaxed));
                thread::park_timeout(Duration::from_millis(250));
            }
        })?;
        Ok(Self { bar, is_over, watcher: Some(watcher) })
    }

    fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher {
            watcher.thread().unpark();
            // It only ever draws.
            drop(watcher.join());
        }
        self.bar.finish_and_clear();
    }
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

/// Files that are read one after the other, or several as one: those of one server, whose lines have times, are read by these
/// times, whether they were rotated or written side by side. What cannot be read twice, or tells no time, stays where it was
/// named.
fn in_order(files: &[PathBuf], flavour: Option<LogFormat>) -> Vec<Group> {
    let one_by_one = || files.iter().cloned().map(Group::One).collect();
    if files.len() < 2 {
        return one_by_one();
    }
    let mut timed = Vec::new();
    for path in files {
        let Ok(Some((format, at))) = look_at(path) else { return one_by_one() };
        timed.push((flavour.unwrap_or(format), at, path));
    }
    timed.sort_by_key(|(_, at, _)| *at);
    let mut groups: Vec<(LogFormat, Vec<PathBuf>)> = Vec::new();
    for (format, _, path) in timed {
        match groups.iter_mut().find(|(known, _)| *known == format) {
            Some((_, group)) => group.push(path.clone()),
            None => groups.push((format, vec![path.clone()])),
        }
    }
    groups.into_iter().map(|(format, paths)| Group::Several(format, paths)).collect()
}

/// Whose log a file is, and the time of its first line that has one.
fn look_at(path: &Path) -> Result<Option<(LogFormat, Timestamp)>> {
    if !fs::metadata(path).context("no metadata")?.is_file() {
        return Ok(None);
    }
    let mut block = Block::default();
    if !Lines::open(path, &Arc::default(), &Arc::default())?.next(&mut block)? {
        return Ok(None);
    }
    let lines = || block.bytes().split(|byte| *byte == b'\n').take(LINES_TRIED);
    Ok(recognise(block.bytes()).zip(judgement::first_time(lines())))
}
