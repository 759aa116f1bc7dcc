//! `floodwall analyze` beside the tools one would otherwise take to a server's log: the same file, page cache warm, in turns, wall
//! time. Counting lines that hold a text (ripgrep, grep) is the least that can be done; counting failed logins by address (mawk,
//! Python) is a small part of what `analyze` does; fail2ban-regex finds addresses, in a part of the file because it is slow.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use floodwall_xtask::logs::{Flavour, Plan, write_to};

/// What must be reached: lines per second against mawk and against ripgrep, memory, and the stream's wall time.
const MAWK_REACH: f64 = 2.0;
const RIPGREP_REACH: f64 = 1.0 / 3.0;
const MEMORY_REACH: u64 = 256 << 20;
const STREAM_REACH: f64 = 120.0;
/// Lines of the attack the project began with.
const STREAM_LINES: u64 = 349_000_000;
/// Lines that fail2ban-regex is given.
const FAIL2BAN_LINES: u64 = 200_000;

const MAWK: &str = r#"/ failed to authenticate for account / {
    if (match($0, /" IP address: [^ ]+ UDP address: /)) failed[substr($0, RSTART + 14, RLENGTH - 28)]++
}
END { for (address in failed) print address, failed[address] }"#;

const PYTHON: &str = r#"
import collections, re, sys
line = re.compile(rb'^\S+ \S+ User #\d+ failed to authenticate for account "(?:[^"\\]|\\.)*" IP address: (\S+) UDP address: \S+\.$')
failed = collections.Counter()
with open(sys.argv[1], 'rb') as log:
    for text in log:
        if found := line.match(text):
            failed[found[1]] += 1
for address, count in failed.items():
    print(address.decode(), count)
"#;

const FAIL2BAN: &str =
    r#"^ User #\d+ failed to authenticate for account ".*" IP address: <HOST> UDP address: \S+\.$"#;

/// Measures and prints.
pub(crate) fn run(lines: u64, rounds: usize, require_peers: bool, has_stream: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    let log = folder.join("server.log");
    let truth = write_to(Plan { lines, seed: 1, flavour: Flavour::Teamtalk }, &log)?;
    let part = folder.join("part.log");
    let part_lines = copy_lines(&log, &part, FAIL2BAN_LINES.min(lines))?;
    let floodwall = build(&root)?;
    let (path, part_path) = (text(&log)?, text(&part)?);
    let own = [text(&floodwall)?, "analyze", "--format", "json", path];
    let mut subjects = vec![
        Subject::new("floodwall analyze", &own, lines),
        Subject::new("rg -c", &["rg", "-c", "failed to authenticate", path], lines),
        Subject::new("grep -c", &["grep", "-c", "failed to authenticate", path], lines),
        Subject::new("mawk, failures by address", &["mawk", MAWK, path], lines),
        Subject::new("python3, failures by address", &["python3", "-c", PYTHON, path], lines),
        Subject::new(
            "fail2ban-regex",
            &["fail2ban-regex", "--no-check-all", part_path, FAIL2BAN],
            part_lines,
        ),
    ];
    subjects.retain(|subject| {
        let is_there = subject.is_there();
        if !is_there {
            say(&format!("SKIPPED {}: {} is not installed", subject.name, subject.program()));
        }
        is_there
    });
    if require_peers && subjects.len() < 6 {
        bail!("peers are missing");
    }
    for round in 0..=rounds {
        for subject in &mut subjects {
            let run = subject.run()?;
            // The first round fills the page cache; the slow ones are measured once.
            let is_slow = subject.runs.first().is_some_and(|run| run.seconds > 10.0);
            if round > 0 && !is_slow {
                subject.runs.push(run);
            }
        }
    }
    report(&subjects, lines, truth.bytes, &truth.counts("login.failed"));
    if has_stream { stream(&floodwall, &log, lines) } else { Ok(()) }
}

/// Something that is measured.
struct Subject {
    name: &'static str,
    command: Vec<String>,
    lines: u64,
    runs: Vec<Run>,
}

/// One run of it.
struct Run {
    seconds: f64,
    /// Resident set at its largest, in bytes.
    memory: u64,
    output: String,
}

impl Subject {
    fn new(name: &'static str, command: &[&str], lines: u64) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { name, command, lines, runs: Vec::new() }
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn is_there(&self) -> bool {
        self.program().contains('/') || version(self.program()).is_some()
    }

    fn run(&self) -> Result<Run> {
        let (program, arguments) = self.command.split_first().context("an empty command")?;
        let began = begin();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let mut stdout = child.stdout.take().context("no output")?;
        let reader = thread::spawn(move || {
            let mut output = String::new();
            stdout.read_to_string(&mut output).map(|_| output)
        });
        // What a process has held at most is gone with it.
        let mut memory = 0;
        let status = loop {
            memory = memory.max(largest_resident(&child));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let output = reader.join().map_err(|_panic| anyhow!("a reader failed"))??;
        ensure!(status.success(), "{program} failed: {status}");
        Ok(Run { seconds: began.elapsed().as_secs_f64(), memory, output })
    }

    /// The fastest of the runs: others only ever take time away.
    fn best(&self) -> Option<&Run> {
        self.runs.iter().min_by(|one, other| one.seconds.total_cmp(&other.seconds))
    }

    fn rate(&self) -> f64 {
        self.best().map_or(f64::NAN, |run| self.lines as f64 / run.seconds)
    }
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured here")]
fn begin() -> Instant {
    Instant::now()
}

/// From `/proc/PID/status`; 0 if the process has gone already.
fn largest_resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = most.and_then(|most| most.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

fn report(subjects: &[Subject], lines: u64, bytes: u64, failed: &std::collections::BTreeMap<String, u64>) {
    let find = |name: &str| subjects.iter().find(|subject| subject.name.starts_with(name));
    let Some(own) = find("floodwall") else { return };
    for (peer, reach) in [("mawk", MAWK_REACH), ("rg", RIPGREP_REACH)] {
        let Some(peer) = find(peer) else { continue };
        let ratio = own.rate() / peer.rate();
        let verdict = if ratio >= reach { "reached" } else { "MISSED" };
        say(&format!(
            "{ratio:.2} x  floodwall analyze against {} (at least {reach:.2} x: {verdict})",
            peer.name
        ));
    }
    for peer in ["grep", "python3", "fail2ban"].into_iter().filter_map(find) {
        say(&format!("{:.2} x  floodwall analyze against {}", own.rate() / peer.rate(), peer.name));
    }
    for subject in subjects {
        let (least, most) = subject
            .runs
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), run| (least.min(run.seconds), most.max(run.seconds)));
        let version = version(subject.program()).unwrap_or_default();
        say(&format!(
            "{:.2} million lines/s  {} ({least:.2} to {most:.2} s for {} lines) {version}",
            subject.rate() / 1e6,
            subject.name,
            subject.lines
        ));
    }
    let memory = own.runs.iter().map(|run| run.memory).max().unwrap_or(0);
    let verdict = if memory <= MEMORY_REACH { "reached" } else { "MISSED" };
    say(&format!(
        "{} MiB  floodwall analyze, resident at most (at most {} MiB: {verdict})",
        memory >> 20,
        MEMORY_REACH >> 20
    ));
    for (subject, separator) in [(find("mawk"), ' '), (find("python3"), ' ')] {
        if let Some(run) = subject.and_then(Subject::best) {
            let mut counted = 0;
            for (address, count) in run.output.lines().filter_map(|line| line.split_once(separator)) {
                counted += u64::from(failed.get(address).is_some_and(|truth| truth.to_string() == count));
            }
            say(&format!(
                "{counted} of {} addresses counted right by {}",
                failed.len(),
                subject.map_or("", |subject| subject.name)
            ));
        }
    }
    if let Some(run) = own.best() {
        let right =
            failed.iter().filter(|(address, count)| is_counted(&run.output, address, **count)).count();
        say(&format!("{right} of {} addresses counted right by floodwall analyze", failed.len()));
    }
    say(&format!(
        "{lines} lines, {} MB, page cache warm, best of {} rounds",
        bytes / 1_000_000,
        own.runs.len()
    ));
}

/// Whether a report counts so many failed logins of an address.
fn is_counted(report: &str, address: &str, count: u64) -> bool {
    let Some(at) = report.find(&format!("\"address\": \"{address}\"")) else { return false };
    let row = report.get(at..).unwrap_or_default();
    let row = row.split_once('}').map_or(row, |(row, _)| row);
    let wanted = format!("\"login.failed\": {count}");
    row.lines().any(|line| line.trim().trim_end_matches(',') == wanted)
}

/// The file, again and again through a pipe, until it is as long as the attack was.
fn stream(floodwall: &Path, log: &Path, lines: u64) -> Result<()> {
    let times = STREAM_LINES.div_ceil(lines);
    let began = begin();
    let mut child = Command::new(floodwall)
        .args(["analyze", "--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run floodwall")?;
    let mut input = child.stdin.take().context("no input")?;
    for _ in 0..times {
        // The kernel moves pages from file to pipe (splice): the measuring takes no core.
        std::io::copy(&mut File::open(log)?, &mut input)?;
    }
    let memory = largest_resident(&child);
    drop(input);
    let mut output = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut output)?;
    ensure!(child.wait()?.success(), "floodwall analyze failed");
    let seconds = began.elapsed().as_secs_f64();
    ensure!(output.contains(&format!("\"lines\": {}", times * lines)), "not all lines were read");
    let verdict = if seconds <= STREAM_REACH { "reached" } else { "MISSED" };
    say(&format!(
        "{seconds:.1} s  {} million lines streamed, {} MiB resident (at most {STREAM_REACH} s: {verdict})",
        times * lines / 1_000_000,
        memory >> 20
    ));
    Ok(())
}

fn copy_lines(from: &Path, to: &Path, lines: u64) -> Result<u64> {
    let mut from = BufReader::new(File::open(from)?);
    let mut to = std::io::BufWriter::new(File::create(to)?);
    let mut line = Vec::new();
    for _ in 0..lines {
        line.clear();
        from.read_until(b'\n', &mut line)?;
        to.write_all(&line)?;
    }
    to.flush()?;
    Ok(lines)
}

/// The first line of what a program says of its version.
fn version(program: &str) -> Option<String> {
    let flag = if program == "mawk" { "-W" } else { "--version" };
    let arguments: &[&str] = if program == "mawk" { &[flag, "version"] } else { &[flag] };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().map(ToOwned::to_owned)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path of the checkout is not UTF-8")
}

fn build(root: &Path) -> Result<PathBuf> {
    let built = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "floodwall"])
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "floodwall does not build");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |given| root.join(given));
    Ok(target.join("release/floodwall"))
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn say(line: &str) {
    println!("{line}");
}
