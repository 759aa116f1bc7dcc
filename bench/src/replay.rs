//! `floodwall replay` beside ndpiReader (Debian package libndpi-bin): packets per second on the same capture, made by
//! repeating the committed corpus with its clock running on. Both read the whole file, decode every packet and
//! follow every flow; each runs alone, in turns, and the user and system time of the process is what counts.

use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
/// Reached by ndpiReader on this machine's kind; what replay has to beat.
const REACH: f64 = 2.0;

/// Measures and prints.
pub(crate) fn run(megabytes: u64, rounds: usize, require_peers: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let capture = root.join("target/bench/corpus.pcap");
    let packets = repeat_corpus(&root.join("tests/corpus"), &capture, megabytes << 20)?;
    let floodwall = build(&root)?;
    let path = capture.to_str().context("the path of the checkout is not UTF-8")?;
    let own = [
        floodwall.to_str().context("the path of the checkout is not UTF-8")?,
        "replay",
        "--format",
        "json",
        path,
    ];
    let peer = ["ndpiReader", "-i", path, "-q"];
    let has_peer =
        Command::new("ndpiReader").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has_peer && require_peers {
        bail!("ndpiReader is not installed (Debian package libndpi-bin)");
    }
    let (mut own_seconds, mut peer_seconds) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        own_seconds.push(cpu_seconds(&own)?);
        if has_peer {
            peer_seconds.push(cpu_seconds(&peer)?);
        }
    }
    // The first round fills the page cache.
    report(packets, own_seconds.split_off(1), peer_seconds.split_off(usize::from(has_peer)));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn report(packets: u64, own: Vec<f64>, peer: Vec<f64>) {
    let rate = |seconds: &[f64]| {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let (least, most) = (sorted.first().copied(), sorted.last().copied());
        (packets as f64 / median, least.unwrap_or(median), most.unwrap_or(median))
    };
    let (own_rate, own_least, own_most) = rate(&own);
    if peer.is_empty() {
        println!("SKIPPED ndpiReader: not installed (Debian package libndpi-bin)");
    } else {
        let (peer_rate, least, most) = rate(&peer);
        let ratio = own_rate / peer_rate;
        let verdict = if ratio >= REACH { "reached" } else { "MISSED" };
        println!("{ratio:.2} x  floodwall replay against ndpiReader (at least {REACH} x: {verdict})");
        println!("{:.2} million packets/s  ndpiReader -q ({least:.2} to {most:.2} s)", peer_rate / 1e6);
    }
    println!("{:.2} million packets/s  floodwall replay ({own_least:.2} to {own_most:.2} s)", own_rate / 1e6);
    println!("{packets} packets, {} rounds, one core each, CPU time of the process", own.len());
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

/// Runs a command once; answers the CPU time it took, as its parent is told.
fn cpu_seconds(command: &[&str]) -> Result<f64> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let before = children_seconds()?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(children_seconds()? - before)
}

/// User and system time of all children that have ended, from `/proc/self/stat` (proc(5), fields 16 and 17, in
/// hundredths of a second).
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("no fields in /proc/self/stat")?;
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields.split(' ').nth(index).context("too few fields in /proc/self/stat")?.parse()?)
    };
    Ok((ticks(13)? + ticks(14)?) / 100.0)
}

/// Writes a capture of at least `bytes`: all committed captures in time order, again and again, each time later.
fn repeat_corpus(corpus: &Path, into: &Path, bytes: u64) -> Result<u64> {
    let mut records = Vec::new();
    for folder in ["teamtalk", "irc"] {
        for entry in fs::read_dir(corpus.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pcap") {
                read_records(&path, &mut records)?;
            }
        }
    }
    records.sort_by_key(|(micros, _)| *micros);
    let first = records.first().context("the corpus is empty")?.0;
    let period = records.last().map_or(0, |(last, _)| last - first) + 5_000_000;
    fs::create_dir_all(into.parent().context("a folder")?)?;
    let mut out = BufWriter::new(File::create(into)?);
    let mut written = 0;
    let mut packets = 0;
    for value in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.write_all(&value.to_le_bytes())?;
    }
    let mut shift = 0;
    while written < bytes {
        for (micros, record) in &records {
            let at = micros + shift;
            out.write_all(&u32::try_from(at / 1_000_000)?.to_le_bytes())?;
            out.write_all(&u32::try_from(at % 1_000_000)?.to_le_bytes())?;
            out.write_all(record)?;
            written += 8 + record.len() as u64;
            packets += 1;
        }
        shift += period;
    }
    out.flush()?;
    Ok(packets)
}

/// Appends every record of a little-endian microsecond capture: its time, then its lengths and bytes as they stand.
fn read_records(path: &Path, records: &mut Vec<(u64, Vec<u8>)>) -> Result<()> {
    let file = fs::read(path)?;
    ensure!(file.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]), "{} has another format", path.display());
    let number = |at: usize| -> Result<u32> {
        let four = file.get(at..).and_then(|rest| rest.first_chunk::<4>()).context("a truncated capture")?;
        Ok(u32::from_le_bytes(*four))
    };
    let mut at = FILE_HEADER_BYTES;
    while at < file.len() {
        let micros = u64::from(number(at)?) * 1_000_000 + u64::from(number(at + 4)?);
        let end = at + RECORD_HEADER_BYTES + number(at + 8)? as usize;
        records.push((micros, file.get(at + 8..end).context("a truncated capture")?.to_vec()));
        at = end;
    }
    Ok(())
}
