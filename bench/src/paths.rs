//! The ways of a packet beside the gate's usual one: past the watcher when it departs, and through copies of packets where
//! XDP cannot be had. Real frames over a wire between two namespaces, the real daemon, bounded in time.

use std::{
    fs,
    net::UdpSocket,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use floodwall_kernel::{Gate, KernelTables, Sizes, gate as attached};
use floodwall_tests::{
    live::{Lab, SERVER, now},
    packets::voice,
};

use crate::{
    crowd::PORT,
    gate::guard,
    load::{flood, frames, start_wall},
};

/// Who hears the server's voice.
const LISTENER: &str = "10.77.0.5";
/// More than this machine can send.
const AS_MANY_AS_CAN_BE: u32 = 2_000_000;

/// Times in turns that one wire and the other are measured in each run.
const TURNS: usize = 10;
const TURN: Duration = Duration::from_millis(200);

/// What departs, with and without the watcher: over two wires, one of them watched, in turns.
pub(crate) fn run_egress(runs: usize) -> Result<()> {
    let (bare, watched) = (Talk::open()?, Talk::open()?);
    let pins = PathBuf::from(format!("/sys/fs/bpf/floodwall-bench-{}", std::process::id()));
    let before = programs()?;
    let measured = watched.lab.on_host(|| -> Result<_> {
        let mut gate = Gate::open(&pins, Sizes::DEFAULT.list_nodes)?;
        guard(&KernelTables::open(gate.object())?)?;
        gate.attach("wall0", None)?;
        let counting = Counting::start("floodwall_egres", &before)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let (mut best_without, mut best_with) = (0.0_f64, 0.0_f64);
            for _ in 0..TURNS {
                best_without = best_without.max(bare.talk()?);
                best_with = best_with.max(watched.talk()?);
            }
            without.push(best_without);
            with.push(best_with);
        }
        Ok((without, with, counting.per_packet()?))
    });
    attached::detach(&pins)?;
    let (without, with, each) = measured?;
    let pairs = || without.iter().zip(&with);
    let ratios: Vec<f64> = pairs().map(|(without, with)| with / without).collect();
    let slower: Vec<f64> = pairs().map(|(without, with)| 1e9 / with - 1e9 / without).collect();
    say(&format!(
        "{} x  voice through veth, watched against not, best of {TURNS} turns, {runs} runs",
        spread(&ratios, 2)
    ));
    say(&format!("{} ns more for each packet", spread(&slower, 0)));
    say(&format!(
        "{each:.0} ns for each packet in the watcher, as the kernel counts, whose counting takes a part of that"
    ));
    say(&format!("{} packets/s without, {} with", spread(&without, 0), spread(&with, 0)));
    Ok(())
}

/// A server with something to say, and who hears it.
struct Talk {
    lab: Lab,
    server: UdpSocket,
    _listener: UdpSocket,
}

impl Talk {
    fn open() -> Result<Self> {
        let lab = Lab::open("bench egress").context("this takes root")?;
        let listener = lab.among_clients(|| UdpSocket::bind((LISTENER, 0)))?;
        let server = lab.on_host(|| UdpSocket::bind((SERVER, PORT)))?;
        server.connect(listener.local_addr()?)?;
        Ok(Self { lab, server, _listener: listener })
    }

    /// Sends voice as fast as one thread can; answers packets per second. On a veth a packet has arrived when it is sent.
    fn talk(&self) -> Result<f64> {
        let (datagram, begun, mut said) = (voice(5, 100), now(), 0_u64);
        while begun.elapsed() < TURN {
            for _ in 0..64 {
                self.server.send(&datagram)?;
            }
            said += 64;
        }
        Ok(said as f64 / begun.elapsed().as_secs_f64())
    }
}

/// What one core can judge: in the kernel, and over copies of packets.
pub(crate) fn run_fallback(rounds: usize, seconds: u64) -> Result<()> {
    let (mut native, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut captured = Vec::new();
    for _ in 0..rounds {
        let in_kernel = judge("native", seconds)?;
        let over_copies = judge("nftables", seconds)?;
        ratios.push(over_copies.per_core / in_kernel.per_core);
        captured.push(100.0 * over_copies.judged as f64 / over_copies.sent as f64);
        native.push(in_kernel.per_core);
        copies.push(over_copies.per_core);
    }
    say(&format!(
        "{} x  packets per second and core, over copies against in the kernel, {rounds} rounds",
        spread(&ratios, 4)
    ));
    say(&format!("{} packets/s and core in the kernel (XDP native on veth)", spread(&native, 0)));
    say(&format!(
        "{} packets/s and core over copies (mode nftables: TPACKET_V3, kernel filter, gate and engine in the daemon)",
        spread(&copies, 0)
    ));
    say(&format!(
        "{} % of the flood were captured and judged; the rest is counted as not captured",
        spread(&captured, 1)
    ));
    Ok(())
}

struct Judged {
    sent: u64,
    judged: u64,
    /// Packets per second of processor time.
    per_core: f64,
}

/// Floods a wall with voice of strangers.
fn judge(mode: &str, seconds: u64) -> Result<Judged> {
    let mut lab = Lab::open("bench fallback").context("this takes root")?;
    let before = programs()?;
    start_wall(&mut lab, mode)?;
    let frames = lab.on_host(frames)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let counting = if mode == "native" { Some(Counting::start("floodwall_ingre", &before)?) } else { None };
    let (packets_before, used_before) = (arrived(&lab)?, used(&lab)?);
    thread::scope(|scope| -> Result<()> {
        let flood = scope.spawn(|| lab.among_clients(|| flood(&frames, AS_MANY_AS_CAN_BE, &stop, &sent)));
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        flood.join().ok().context("the flood failed")?
    })?;
    // What is on its way is judged too.
    thread::sleep(Duration::from_secs(1));
    let (judged, used) = (arrived(&lab)? - packets_before, used(&lab)? - used_before);
    ensure!(judged > 0, "nothing was judged; {}", lab.read_log());
    let per_core = match counting {
        Some(counting) => 1e9 / counting.per_packet()?,
        None => judged as f64 / used,
    };
    Ok(Judged { sent: sent.load(Ordering::Relaxed), judged, per_core })
}

/// Packets that came to guarded ports, as the wall has counted.
fn arrived(lab: &Lab) -> Result<u64> {
    let status = lab.answer(&["status"]);
    let rows = status["traffic"].as_array().context("no traffic in the status")?;
    let count = |row: &serde_json::Value, what: &str| {
        row[what].as_u64().with_context(|| format!("no `{what}` in {row}"))
    };
    rows.iter().map(|row| Ok(count(row, "passed")? + count(row, "dropped")?)).sum()
}

/// Seconds of processor time the daemon has used.
fn used(lab: &Lab) -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = fs::read_to_string(format!("/proc/{}/stat", lab.daemon().pid()))?;
    let (_, after_name) = text.rsplit_once(')').context("no name of the process")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("too few fields")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// The kernel counts what a program runs and how long, while this lives.
struct Counting {
    program: u32,
    before: (u64, f64),
    _enabled: OwnedFd,
}

impl Counting {
    /// Of the program of this name that has been loaded since `before`, and is attached: the one that has run.
    fn start(name: &str, before: &[u32]) -> Result<Self> {
        let enabled = enable_stats(Stats::RunTime).context("the kernel does not count runs")?;
        let mut found = None;
        for info in loaded_programs() {
            let info = info?;
            if info.name_as_str() == Some(name) && !before.contains(&info.id()) {
                found = Some(info.id());
            }
        }
        let program = found.with_context(|| format!("no program {name}"))?;
        Ok(Self { program, before: runs(program)?, _enabled: enabled })
    }

    /// Nanoseconds of one run.
    fn per_packet(&self) -> Result<f64> {
        let (count, nanoseconds) = runs(self.program)?;
        ensure!(count > self.before.0, "the program did not run");
        Ok((nanoseconds - self.before.1) / (count - self.before.0) as f64)
    }
}

fn runs(program: u32) -> Result<(u64, f64)> {
    for info in loaded_programs() {
        let info = info?;
        if info.id() == program {
            return Ok((info.run_count(), info.run_time().as_nanos() as f64));
        }
    }
    anyhow::bail!("the program is gone")
}

/// Ids of all programs that are loaded.
fn programs() -> Result<Vec<u32>> {
    loaded_programs().map(|info| Ok(info?.id())).collect()
}

/// Least and most of several rounds.
pub(crate) fn spread(rounds: &[f64], digits: usize) -> String {
    let (least, most) = rounds.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(*value), most.max(*value))
    });
    format!("{least:.digits$} to {most:.digits$}")
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
