//! What a packet's look-up costs among few and among many entries: bans of addresses, and prefixes of lists.
//!
//! One source again and again finds everything in the caches of the processor. A flood does not: so every measurement is
//! taken a second time with a packet from another source each, one run per packet, which adds what one run costs by
//! itself.

use std::{fs, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};
use floodwall_kernel::Sizes;
use floodwall_tests::{
    KernelGate, bpf,
    packets::{Path, udp, voice},
    prebuilt_object,
};
use floodwall_wire::{
    Address, SourceKey,
    lists::{
        Treatment,
        image::{Image, Range},
    },
    tables::{PREFIXES_MAX, Prefix, PrefixKey, Source, Status, names, status_flags},
};

use crate::gate;

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
const LISTED: [u32; 2] = [1_000, 500_000];
/// Different sources of one measurement, and how often one source is taken.
const SOURCES: u32 = 20_000;
const REPEAT: u32 = 300_000;

/// One gate with so many entries.
struct Subject {
    what: &'static str,
    entries: u32,
    gate: KernelGate,
    bytes: u64,
    again: Vec<u32>,
    anew: Vec<u32>,
}

/// Measures and prints.
pub(crate) fn run(rounds: usize) -> Result<()> {
    let mut subjects = Vec::new();
    for entries in SIZES {
        subjects.push(Subject::new("banned address", names::SOURCES, entries, banned(entries)?)?);
    }
    for entries in LISTED {
        subjects.push(Subject::new("banned by a list", names::LISTS, entries, listed(entries)?)?);
    }
    for entries in [1_000, PREFIXES_MAX] {
        let gate = banned_prefixes(entries)?;
        subjects.push(Subject::new("banned prefix of a rule", names::PREFIXES, entries, gate)?);
    }
    for _ in 0..rounds {
        for subject in &mut subjects {
            subject.measure()?;
        }
    }
    say(&format!(
        "ns per packet, least of {rounds} rounds, one source {REPEAT} times and {SOURCES} sources once each; memory of the map:"
    ));
    for subject in &subjects {
        let least = |rounds: &[u32]| rounds.iter().min().copied().unwrap_or(0);
        let (again, anew) = (least(&subject.again), least(&subject.anew));
        let mib = subject.bytes as f64 / f64::from(1 << 20);
        say(&format!("{again:>6} {anew:>6} {mib:>7.1} MiB  {}, {} entries", subject.what, subject.entries));
    }
    Ok(())
}

impl Subject {
    fn new(what: &'static str, map: &str, entries: u32, gate: KernelGate) -> Result<Self> {
        let bytes = memory_of(gate.map(map).as_raw_fd())?;
        Ok(Self { what, entries, gate, bytes, again: Vec::new(), anew: Vec::new() })
    }

    fn measure(&mut self) -> Result<()> {
        let program = self.gate.program("floodwall_ingress");
        let run = bpf::run(program, &frame(source(self.entries / 2)), REPEAT)?;
        ensure!(run.action == gate::DROP, "a banned packet ended with {}", run.action);
        self.again.push(run.nanoseconds);
        let mut total = 0_u64;
        for number in 0..SOURCES {
            // Spread over all entries, in no order of theirs.
            let entry = (u64::from(number) * 0x9e37_79b1 % u64::from(self.entries)) as u32;
            let run = bpf::run(program, &frame(source(entry)), 1)?;
            ensure!(run.action == gate::DROP, "a banned packet ended with {}", run.action);
            total += u64::from(run.nanoseconds);
        }
        self.anew.push(u32::try_from(total / u64::from(SOURCES))?);
        Ok(())
    }
}

/// Entries have every 64th address.
fn source(number: u32) -> Address {
    Address::from_v4(0x0b00_0000 + number * 64)
}

fn frame(source: Address) -> Vec<u8> {
    udp(Path::new(&source.to_ip().to_string(), "192.0.2.1", 10_333), &voice(5, 100))
}

fn banned(entries: u32) -> Result<KernelGate> {
    let gate = KernelGate::with_sizes(&prebuilt_object(), Sizes { sources: entries + 16, ..Sizes::DEFAULT })?;
    gate::guard(gate.tables())?;
    let keys: Vec<SourceKey> = (0..entries).map(|number| SourceKey::of(source(number))).collect();
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    keys.iter()
        .try_for_each(|key| gate.tables().set_source(*key, &banned))
        .context("failed to write bans")?;
    Ok(gate)
}

/// Prefixes of the lengths that lists of countries have.
fn listed(entries: u32) -> Result<KernelGate> {
    let range = |number: u32| {
        let Address { high, low } = source(number);
        // A /32 to a /27; a /26 would meet the next.
        let last = Address { high, low: low + (1 << (number % 6)) - 1 };
        Range { first: source(number), last, treatment: Treatment::Ban }
    };
    let image = Image::build(&(0..entries).map(range).collect::<Vec<_>>());
    let list_nodes = u32::try_from(image.nodes().len())?;
    let gate = KernelGate::with_sizes(&prebuilt_object(), Sizes { list_nodes, ..Sizes::DEFAULT })?;
    gate::guard(gate.tables())?;
    let tables = gate.tables();
    tables.set_lists(&image).context("failed to write lists")?;
    let status = tables.status()?;
    tables.set_status(&Status { flags: status.flags | status_flags::LISTS, ..status })?;
    Ok(gate)
}

/// Bans of prefixes by rules and operators, which lie in the kernel's trie.
fn banned_prefixes(entries: u32) -> Result<KernelGate> {
    let gate = KernelGate::as_in_production(&prebuilt_object())?;
    gate::guard(gate.tables())?;
    let tables = gate.tables();
    let banned = Prefix { banned_until: u64::MAX, ..Prefix::default() };
    for number in 0..entries {
        let key = PrefixKey::new(source(number), 96 + 26 + number % 7);
        tables.set_prefix(key, &banned).context("failed to write prefixes")?;
    }
    let status = tables.status()?;
    tables.set_status(&Status { flags: status.flags | status_flags::PREFIXES, ..status })?;
    Ok(gate)
}

/// What the kernel says a map takes.
fn memory_of(fd: i32) -> Result<u64> {
    let information = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = information.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("the kernel does not tell what a map takes")?.trim().parse()?)
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
