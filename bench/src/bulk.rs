//! Many bans: how long they take to install, beside an nftables set, and what a packet's look-up costs with few and with
//! many entries.

use std::{
    fmt::Write,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use floodwall_tests::{KernelGate, bpf, prebuilt_object};
use floodwall_wire::{Address, SourceKey, tables::Source};

use crate::gate;

const BANS: u32 = 100_000;

/// Measures and prints.
pub(crate) fn run(rounds: usize, require_peers: bool) -> Result<()> {
    let (mut installed, mut few, mut many) = (Vec::new(), Vec::new(), Vec::new());
    let mut peer = Vec::new();
    let keys: Vec<SourceKey> =
        (0..BANS).map(|number| SourceKey::of(Address::from_v4(0x0b00_0000 + number * 7))).collect();
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    for _ in 0..rounds {
        let gate = KernelGate::as_in_production(&prebuilt_object())?;
        let tables = gate.tables();
        gate::guard(gate.tables())?;
        let frame = gate::banned_voice();
        few.push(look_up(&gate, &frame)?);
        let begun = begin();
        for key in &keys {
            tables.set_source(*key, &banned).context("failed to write a ban")?;
        }
        installed.push(begun.elapsed());
        many.push(look_up(&gate, &frame)?);
        match nftables() {
            Ok(took) => peer.push(took),
            Err(error) if require_peers => return Err(error.context("nft cannot be had")),
            Err(error) => say(&format!("SKIPPED nft: {error:#}")),
        }
    }
    let least = |times: &[Duration]| times.iter().min().map_or(f64::NAN, |time| 1e3 * time.as_secs_f64());
    let most = |times: &[Duration]| times.iter().max().map_or(f64::NAN, |time| 1e3 * time.as_secs_f64());
    if !peer.is_empty() {
        say(&format!(
            "{:.3} x  time to install {BANS} bans against an nftables set",
            least(&installed) / least(&peer)
        ));
    }
    let (few_least, many_least) = (few.iter().min(), many.iter().min());
    if let (Some(few), Some(many)) = (few_least, many_least) {
        say(&format!("{many} ns against {few} ns  banned packet with {} and with 1 entries", BANS + 1));
    }
    say(&format!("milliseconds for {BANS} bans, least and most of {rounds} rounds:"));
    for (name, times) in [("written in place", &installed), ("nft -f", &peer)] {
        say(&format!("{:>9.1} {:>9.1}  {name}", least(times), most(times)));
    }
    Ok(())
}

fn look_up(gate: &KernelGate, frame: &[u8]) -> Result<u32> {
    let mut least = u32::MAX;
    for _ in 0..5 {
        let run = bpf::run(gate.program("floodwall_ingress"), frame, 300_000)?;
        ensure!(run.action == gate::DROP, "a banned packet ended with {}", run.action);
        least = least.min(run.nanoseconds);
    }
    Ok(least)
}

/// The same addresses into a set of a table of its own, in a network namespace of its own.
fn nftables() -> Result<Duration> {
    let mut rules = String::from("table inet bench {\n set banned {\n type ipv4_addr\n elements = { ");
    for number in 0..BANS {
        write!(rules, "{}, ", Address::from_v4(0x0b00_0000 + number * 7))?;
    }
    rules.push_str("}\n }\n}\n");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), rules)?;
    let begun = begin();
    let output = Command::new("unshare")
        .args(["--net", "nft", "-f"])
        .arg(file.path())
        .output()
        .context("failed to start nft")?;
    let took = begun.elapsed();
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured here")]
fn begin() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
