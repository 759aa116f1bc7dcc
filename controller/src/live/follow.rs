//! Follows server logs as they grow: files through rotation and truncation, and the journal. A thread for each; whole lines go
//! to the wall in small batches.
//!
//! Lines are judged by the time at which they were seen to be there, never by what they say of their own. So what was written
//! while nobody watched, or while we were too busy for [`FRESH`], is read to know who is connected, and not judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use floodwall_engine::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    clock::{instant, utc_now},
    configuration::{LogEntry, LogSource},
    replay::rfc3339,
};

/// Bytes of lines in one batch: a few milliseconds of the wall's time.
const BATCH_BYTES: usize = 1 << 16;
/// Longer lines are passed over: no server writes such.
const LINE_BYTES_MAX: usize = 1 << 16;
/// Batches on their way to the wall.
const BATCHES_MAX: usize = 16;
/// How far a log may run ahead before batches that find no room are passed over.
const BEHIND_MAX: u64 = 4 << 20;
const POLL: Duration = Duration::from_millis(200);
/// What the wire says of the same event must be there first.
const WIRE_FIRST: Duration = Duration::from_millis(50);
/// What was not seen within so long of being written is not judged.
const FRESH: Duration = Duration::from_secs(5);
/// Between two starts of a `journalctl` that ends.
const RESTART: Duration = Duration::from_secs(5);
/// Files looked at beside a log that was rotated, to find what was not read of it.
const NEIGHBOURS_MAX: usize = 1_000;

/// Whole lines of one log.
#[derive(Debug)]
pub(super) struct Batch {
    /// Which log, by its place in the configuration.
    pub(super) log: usize,
    pub(super) bytes: Vec<u8>,
    /// When they were seen to be there.
    pub(super) seen: Instant,
    /// Too old to be judged.
    pub(super) is_old: bool,
    /// Where to go on once they are handled.
    pub(super) position: Position,
}

/// How far a log was read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    /// In the file with this number.
    File { inode: u64, offset: u64 },
    /// Behind this entry of the journal.
    Journal { cursor: String },
}

/// By what the configuration calls the log.
pub(super) type Positions = BTreeMap<String, Position>;

/// What is counted of one log.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that are there and not handed on yet.
    pub(super) behind: AtomicU64,
    /// Bytes passed over because there was no room.
    pub(super) passed_over: AtomicU64,
    /// Whether it cannot be read now.
    pub(super) is_failing: AtomicBool,
}

/// The threads that follow logs. They end with the value.
pub(super) struct Followers {
    batches: mpsc::Receiver<Batch>,
    progress: Vec<Arc<Progress>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// `journalctl` processes, ended with us: their readers wait for them.
    children: Arc<Mutex<Vec<Child>>>,
}

impl Followers {
    /// Starts where an earlier run has stopped, or at the end.
    pub(super) fn start(entries: &[LogEntry], positions: &Positions) -> Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let mut followers = Self {
            batches,
            progress: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
            children: Arc::default(),
        };
        for (log, entry) in entries.iter().enumerate() {
            let progress = Arc::new(Progress::default());
            followers.progress.push(Arc::clone(&progress));
            let out = Out { log, sender: sender.clone(), stop: Arc::clone(&followers.stop), progress };
            let position = positions.get(&entry.source.name()).cloned();
            let (source, children) = (entry.source.clone(), Arc::clone(&followers.children));
            let thread = thread::Builder::new().name(format!("log-{log}"));
            followers.threads.push(thread.spawn(move || match source {
                LogSource::File(path) => Tail::new(path, position, out).follow(),
                LogSource::Journal(unit) => follow_journal(&unit, position, &out, &children),
            })?);
        }
        Ok(followers)
    }

    /// The next lines of any log; none when nothing is followed any longer.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    pub(super) fn progress(&self) -> &[Arc<Progress>] {
        &self.progress
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever waits for room gets none any more.
        self.batches.close();
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        for child in children.iter_mut() {
            // One that has ended by itself needs no ending.
            drop(child.kill());
            drop(child.wait());
        }
        drop(children);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("A thread that followed a log had failed");
            }
        }
    }
}

/// Where lines go.
struct Out {
    log: usize,
    sender: mpsc::Sender<Batch>,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Out {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, time: Duration) {
        let until = instant() + time;
        while !self.is_stopped() && instant() < until {
            thread::sleep(Duration::from_millis(20).min(time));
        }
    }

    /// Hands lines on. While there is no room it waits, unless the log has run too far ahead meanwhile: then they are passed over.
    fn send(&self, mut batch: Batch, behind: impl Fn() -> u64) {
        loop {
            match self.sender.try_send(batch) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(refused)) => batch = refused,
            }
            let behind = behind();
            self.progress.behind.store(behind, Ordering::Relaxed);
            if behind > BEHIND_MAX || self.is_stopped() {
                self.progress.passed_over.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Says once that a log cannot be read, and once that it can be again.
    fn tell(&self, what: &str, outcome: &Result<()>) {
        let was_failing = self.progress.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::error!(log = what, error = format!("{error:#}"), "A log cannot be followed");
            }
            Ok(()) if was_failing => tracing::info!(log = what, "A log is followed again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Opens a file, and nothing else: a pipe would keep us waiting for somebody who writes, and cannot be followed.
fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file; name the file that the server writes"))
}

/// A file that grows.
struct Tail {
    path: PathBuf,
    out: Out,
    file: Option<(File, u64)>,
    /// Read so far, with what is in `rest`.
    offset: u64,
    /// The beginning of a line whose end was not written yet.
    rest: Vec<u8>,
    is_in_overlong: bool,
    resume: Option<(u64, u64)>,
    polled: Instant,
    /// Until the end was reached once, lines are of unknown age.
    has_caught_up: bool,
    /// Numbers of the files beside it at the last look: what is new there when it was rotated was this log in between.
    beside: BTreeSet<u64>,
}

impl Tail {
    fn new(path: PathBuf, position: Option<Position>, out: Out) -> Self {
        let resume = match position {
            Some(Position::File { inode, offset }) => Some((inode, offset)),
            Some(Position::Journal { .. }) | None => None,
        };
        Self {
            path,
            out,
            file: None,
            offset: 0,
            rest: Vec::new(),
            is_in_overlong: false,
            resume,
            polled: instant(),
            has_caught_up: false,
            beside: BTreeSet::new(),
        }
    }

    fn follow(mut self) {
        let name = self.path.display().to_string();
        let mut is_first = true;
        while !self.out.is_stopped() {
            let outcome = self.poll(is_first);
            is_first = false;
            self.out.tell(&name, &outcome);
            self.out.pause(POLL);
        }
    }

    /// Reads what is new; at the end of a file that was rotated, goes on with the one that took its place.
    fn poll(&mut self, is_first: bool) -> Result<()> {
        if self.file.is_none() {
            self.open(is_first)?;
        }
        self.read_new()?;
        let current = fs::metadata(&self.path).map(|metadata| metadata.ino());
        let held = self.file.as_ref().map(|(_, inode)| *inode);
        match current {
            Ok(inode) if Some(inode) != held => {
                // Its last lines may have been written between the two looks.
                self.read_new()?;
                for path in self.rotated_since(&[Some(inode), held]) {
                    self.begin(open_log(&path)?, 0)?;
                    self.read_new()?;
                }
                self.begin(open_log(&self.path)?, 0)?;
                self.beside = beside(&self.path).into_keys().collect();
                self.read_new()
            }
            Ok(_) => {
                self.beside = beside(&self.path).into_keys().collect();
                Ok(())
            }
            // Between renaming and opening anew there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", self.path.display())),
        }
    }

    /// Files that were this log and no longer are, made since the last look, the oldest first; not those with these numbers.
    fn rotated_since(&self, known: &[Option<u64>]) -> Vec<PathBuf> {
        let is_new = |inode: &u64| !self.beside.contains(inode) && !known.contains(&Some(*inode));
        let mut made: Vec<_> = beside(&self.path)
            .into_iter()
            .filter(|(inode, _)| is_new(inode))
            .filter_map(|(_, path)| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            // What is packed has been read already.
            .filter(|(_, path)| {
                path.extension()
                    .is_none_or(|end| !["gz", "xz", "zst", "bz2"].iter().any(|packed| end == *packed))
            })
            .collect();
        made.sort();
        made.into_iter().map(|(_, path)| path).collect()
    }

    fn open(&mut self, is_first: bool) -> Result<()> {
        let why = || format!("cannot read {}", self.path.display());
        if let Some((inode, offset)) = self.resume.take()
            && let Some(path) = beside(&self.path).remove(&inode)
        {
            return self.begin(open_log(&path).with_context(|| path.display().to_string())?, offset);
        }
        let file = open_log(&self.path).with_context(why)?;
        // A log that is new to us is followed from now on; one that appears later, from its beginning.
        let offset = if is_first { file.metadata().with_context(why)?.len() } else { 0 };
        self.has_caught_up |= is_first;
        self.begin(file, offset)
    }

    fn begin(&mut self, mut file: File, offset: u64) -> Result<()> {
        let inode = file.metadata()?.ino();
        self.offset = file.seek(SeekFrom::Start(offset))?;
        self.rest.clear();
        self.is_in_overlong = false;
        self.file = Some((file, inode));
        Ok(())
    }

    fn read_new(&mut self) -> Result<()> {
        let Some((file, inode)) = &mut self.file else { return Ok(()) };
        let length = file.metadata()?.len();
        if length < self.offset {
            // Truncated, by us or by logrotate's copytruncate.
            self.offset = file.seek(SeekFrom::Start(0))?;
            self.rest.clear();
            self.is_in_overlong = false;
        }
        let is_old = !self.has_caught_up || self.polled.elapsed() > FRESH;
        self.polled = instant();
        let seen = self.polled;
        if length > self.offset {
            thread::sleep(WIRE_FIRST);
        }
        while self.offset < length && !self.out.is_stopped() {
            let start = self.rest.len();
            let mut bytes = std::mem::take(&mut self.rest);
            let wanted = (length - self.offset).min(BATCH_BYTES as u64);
            let got = file.by_ref().take(wanted).read_to_end(&mut bytes)? as u64;
            if got == 0 {
                break;
            }
            self.offset += got;
            let behind = length - self.offset;
            self.out.progress.behind.store(behind, Ordering::Relaxed);
            let end =
                memchr::memrchr(b'\n', bytes.get(start..).unwrap_or_default()).map_or(0, |at| start + at + 1);
            self.rest = bytes.split_off(end);
            if std::mem::take(&mut self.is_in_overlong) {
                let first = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1);
                self.is_in_overlong = first == bytes.len() && end == 0;
                bytes.drain(..first);
            }
            if self.rest.len() > LINE_BYTES_MAX {
                self.out.progress.passed_over.fetch_add(self.rest.len() as u64, Ordering::Relaxed);
                self.rest.clear();
                self.is_in_overlong = true;
            }
            if !bytes.is_empty() {
                let position = Position::File { inode: *inode, offset: self.offset - self.rest.len() as u64 };
                let batch = Batch { log: self.out.log, bytes, seen, is_old, position };
                self.out
                    .send(batch, || file.metadata().map_or(0, |now| now.len()).saturating_sub(self.offset));
            }
        }
        self.has_caught_up = true;
        Ok(())
    }
}

/// A log and the files beside it that were it once, by their numbers: `tt5srv.log.1` of `tt5srv.log`. What was packed meanwhile has
/// another number.
fn beside(path: &Path) -> BTreeMap<u64, PathBuf> {
    let (Some(name), Some(folder)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return BTreeMap::new();
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let named = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|other| other.starts_with(name))
    });
    let numbered =
        named.take(NEIGHBOURS_MAX).filter_map(|path| Some((fs::metadata(&path).ok()?.ino(), path)));
    numbered.collect()
}

/// One entry of `journalctl --output json`, which escapes everything.
#[derive(Debug, Deserialize)]
struct JournalEntry {
    /// Text, or a list of bytes where it is none.
    #[serde(rename = "MESSAGE")]
    message: Message,
    #[serde(rename = "__CURSOR")]
    cursor: String,
    /// Microseconds since 1970.
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: String,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: String,
    #[serde(rename = "_PID", default)]
    pid: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

impl JournalEntry {
    /// As the server would write it into a file: one line, whatever is in it.
    fn line(&self) -> Vec<u8> {
        let message = match &self.message {
            Message::Text(text) => text.as_bytes(),
            Message::Bytes(bytes) => bytes.as_slice(),
        };
        // ngIRCd leaves time, name and number to the log.
        let mut line = if self.identifier == "ngircd" {
            let micros: u64 = self.realtime.parse().unwrap_or_default();
            let at = rfc3339(Timestamp::from_nanos(micros.saturating_mul(1_000)));
            let pid = if self.pid.is_empty() { "0" } else { &self.pid };
            format!("{at} journal ngircd[{pid}]: ").into_bytes()
        } else {
            Vec::new()
        };
        line.extend(message.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        line.push(b'\n');
        line
    }
}

/// Until told to stop: runs `journalctl`, and again when it ends.
fn follow_journal(unit: &str, position: Option<Position>, out: &Out, children: &Mutex<Vec<Child>>) {
    let mut cursor = match position {
        Some(Position::Journal { cursor }) => Some(cursor),
        Some(Position::File { .. }) | None => None,
    };
    while !out.is_stopped() {
        let outcome = read_journal(unit, &mut cursor, out, children);
        if !out.is_stopped() {
            out.tell(unit, &outcome.and_then(|()| anyhow::bail!("journalctl has ended")));
            out.pause(RESTART);
        }
    }
}

fn read_journal(
    unit: &str,
    cursor: &mut Option<String>,
    out: &Out,
    children: &Mutex<Vec<Child>>,
) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--follow", "--output", "json", "--quiet", "--unit", unit]);
    match &cursor {
        Some(cursor) => command.args(["--no-tail", "--after-cursor", cursor]),
        None => command.args(["--lines", "0"]),
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run journalctl")?;
    let stdout = child.stdout.take().context("journalctl has no output")?;
    {
        let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
        // Those before it have ended.
        for mut ended in children.drain(..) {
            drop(ended.wait());
        }
        children.push(child);
    }
    let mut input = BufReader::new(stdout);
    let mut json = Vec::new();
    loop {
        json.clear();
        // Every byte of a message may take five.
        let limit = 8 * LINE_BYTES_MAX as u64;
        if input.by_ref().take(limit).read_until(b'\n', &mut json)? == 0 {
            return Ok(());
        }
        out.tell(unit, &Ok(()));
        let Ok(entry) = serde_json::from_slice::<JournalEntry>(&json) else {
            out.progress.passed_over.fetch_add(json.len() as u64, Ordering::Relaxed);
            continue;
        };
        let written = Duration::from_micros(entry.realtime.parse().unwrap_or_default());
        let now = Duration::from_nanos(utc_now().as_nanos());
        let is_old = now.saturating_sub(written) > FRESH;
        *cursor = Some(entry.cursor.clone());
        thread::sleep(WIRE_FIRST.saturating_sub(now.saturating_sub(written)));
        let position = Position::Journal { cursor: entry.cursor.clone() };
        let batch = Batch { log: out.log, bytes: entry.line(), seen: instant(), is_old, position };
        out.send(batch, || input.buffer().len() as u64);
        out.progress.behind.store(input.buffer().len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::protocol::log::{Format, LogReader, Reading};
    use std::io::Write;

    /// What is read of a file while somebody else does things to it.
    struct Followed {
        followers: Followers,
        runtime: tokio::runtime::Runtime,
        position: Option<Position>,
    }

    impl Followed {
        fn new(path: &Path, position: Option<Position>) -> Self {
            let entry = LogEntry { source: LogSource::File(path.to_owned()), format: Format::TeamTalk };
            let positions =
                position.clone().map(|position| (entry.source.name(), position)).into_iter().collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Self { followers: Followers::start(&[entry], &positions).unwrap(), runtime, position }
        }

        /// Reads until so many lines came; answers them and whether any was too old to be judged.
        fn read(&mut self, lines: usize) -> (Vec<String>, bool) {
            let (mut found, mut is_old) = (Vec::new(), false);
            let Self { followers, runtime, position } = self;
            let wait = async {
                while found.len() < lines {
                    let batch = followers.next().await.unwrap();
                    is_old |= batch.is_old;
                    *position = Some(batch.position);
                    let text = String::from_utf8(batch.bytes).unwrap();
                    found.extend(text.lines().map(str::to_owned));
                }
            };
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), wait).await }).unwrap();
            (found, is_old)
        }
    }

    fn append(path: &Path, text: &str) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn settle() {
        thread::sleep(POLL * 3);
    }

    #[test]
    fn a_log_is_followed_through_rotation_and_truncation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tt5srv.log");
        append(&path, "before\n");
        let mut followed = Followed::new(&path, None);
        settle();
        append(&path, "one\ntw");
        assert_eq!(followed.read(1), (vec!["one".to_owned()], false));
        append(&path, "o\n");
        assert_eq!(followed.read(1).0, ["two"]);
        append(&path, "last\n");
        fs::rename(&path, folder.path().join("tt5srv.log.1")).unwrap();
        append(&path, "first\n");
        assert_eq!(followed.read(2).0, ["last", "first"]);
        settle();
        fs::write(&path, "").unwrap();
        settle();
        append(&path, "anew\n");
        assert_eq!(followed.read(1), (vec!["anew".to_owned()], false));
    }

    #[test]
    fn after_a_restart_nothing_is_read_twice_and_what_was_missed_is_known_to_be_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tt5srv.log");
        append(&path, "");
        let mut followed = Followed::new(&path, None);
        settle();
        append(&path, "one\n");
        assert_eq!(followed.read(1).0, ["one"]);
        let position = followed.position.clone();
        drop(followed);
        append(&path, "two\n");
        fs::rename(&path, folder.path().join("tt5srv.log.1")).unwrap();
        append(&path, "three\n");
        let mut followed = Followed::new(&path, position);
        let (lines, is_old) = followed.read(2);
        assert_eq!((lines, is_old), (vec!["two".to_owned(), "three".to_owned()], true));
        settle();
        append(&path, "four\n");
        assert_eq!(followed.read(1), (vec!["four".to_owned()], false));
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_followed_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later.log");
        let mut followed = Followed::new(&path, None);
        settle();
        assert!(followed.followers.progress()[0].is_failing.load(Ordering::Relaxed));
        append(&path, "one\n");
        assert_eq!(followed.read(1).0, ["one"]);
        settle();
        assert!(!followed.followers.progress()[0].is_failing.load(Ordering::Relaxed));
    }

    #[test]
    fn several_rotations_between_two_looks_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        append(&path, "before\n");
        append(&folder.path().join("server.log.9"), "long ago\n");
        let mut followed = Followed::new(&path, None);
        settle();
        append(&path, "one\n");
        assert_eq!(followed.read(1).0, ["one"]);
        settle();
        for number in 2..6 {
            fs::rename(&path, folder.path().join(format!("server.log.{number}"))).unwrap();
            append(&path, &format!("{number}\n"));
        }
        assert_eq!(followed.read(4).0, ["2", "3", "4", "5"]);
    }

    #[test]
    fn a_flood_that_nobody_takes_is_sampled_and_what_is_left_out_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flood.log");
        append(&path, "");
        let mut followed = Followed::new(&path, None);
        // Followed from its end on, whenever that is.
        let is_followed = (0..1_200).any(|_| {
            append(&path, "first\n");
            thread::sleep(Duration::from_millis(50));
            followed.followers.batches.try_recv().is_ok()
        });
        assert!(is_followed);
        let line = format!("{}\n", "x".repeat(999));
        append(&path, &line.repeat(16_000));
        let passed_over = || followed.followers.progress()[0].passed_over.load(Ordering::Relaxed);
        let is_sampled = (0..1_200).any(|_| {
            thread::sleep(Duration::from_millis(50));
            passed_over() > 8_000_000
        });
        assert!(is_sampled, "{} bytes were passed over", passed_over());
        let (lines, _) = followed.read(100);
        let is_whole = |line: &String| line == "first" || line.len() == 999;
        assert!(lines.iter().all(is_whole), "whole lines are passed over");
    }

    #[test]
    fn entries_of_the_journal_are_one_line_whatever_is_in_them() {
        let json = r#"{"MESSAGE":"a\nUser #1 TCP address: 10.0.0.1 connected.","__CURSOR":"c","__REALTIME_TIMESTAMP":"1"}"#;
        let entry: JournalEntry = serde_json::from_str(json).unwrap();
        assert_eq!(entry.line(), b"a User #1 TCP address: 10.0.0.1 connected.\n");
        let json = r#"{"MESSAGE":[255,10,65],"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","SYSLOG_IDENTIFIER":"ngircd","_PID":"7"}"#;
        let entry: JournalEntry = serde_json::from_str(json).unwrap();
        let line = entry.line();
        assert_eq!(line, b"1970-01-01T00:00:00.000001Z journal ngircd[7]: \xff A\n");
        let mut reader = LogReader::new(Format::Ngircd, 0, 1);
        let line = line.strip_suffix(b"\n").unwrap();
        assert_eq!(reader.read_line(line, &mut Vec::new()).0, Reading::Understood);
    }
}
