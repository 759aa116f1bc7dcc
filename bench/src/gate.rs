//! ns per packet in the kernel, by `BPF_PROG_TEST_RUN`: the same bytes through the gate, an empty program and
//! xdp-filter. All subjects take turns in every round, so that a slow moment of the machine hits all of them.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use floodwall_kernel::KernelTables;
use floodwall_tests::{
    KernelGate, bpf, live,
    packets::{Path, data, hello, udp, voice},
    prebuilt_object,
};
use floodwall_wire::{
    Address, SourceKey,
    limit::Limit,
    tables::{
        KINDS, LEVELS, PORTS, Port, Ports, Role, STANDINGS, ServiceSettings, Source, Status, User, names,
        service_flags,
    },
};

use crate::{paths::spread, peer::Peer};

const SERVER: &str = "192.0.2.1";
const BANNED: &str = "198.51.100.66";
const KNOWN: &str = "198.51.100.7";
const PROVEN: &str = "198.51.100.8";
const STRANGER: &str = "203.0.113.5";
const TEAMTALK: u16 = 10_333;
const ENTRIES: u32 = 10_000;

/// One line of the table.
struct Subject<'a> {
    name: &'static str,
    program: BorrowedFd<'a>,
    frame: Vec<u8>,
    /// XDP or tc action it must end with: a measurement of the wrong path is worth nothing.
    action: u32,
    /// One after the other, and in each run.
    runs: Vec<Vec<u32>>,
}

pub(crate) const DROP: u32 = 1;
const PASS: u32 = 2;
const UNDECIDED: u32 = u32::MAX;

/// Measures and prints.
pub(crate) fn run(repeat: u32, rounds: usize, runs: usize, require_peers: bool) -> Result<()> {
    let empty = bpf::load_empty_xdp().context("failed to load an empty program (are you root?)")?;
    let gate = KernelGate::as_in_production(&prebuilt_object())?;
    fill(&gate)?;
    let peers = peers(require_peers)?;
    let mut subjects = subjects(&gate, empty.as_fd());
    for (all, ipv4) in peers.iter().map(|(all, ipv4)| (all.program(), ipv4.program())) {
        let (banned, known) = (to_server(BANNED, &voice(5, 100)), to_server(KNOWN, &voice(5, 100)));
        subjects.push(subject("xdp-filter drop", all, &banned, DROP));
        subjects.push(subject("xdp-filter pass", all, &known, PASS));
        subjects.push(subject("xdp-filter -f ipv4 drop", ipv4, &banned, DROP));
        subjects.push(subject("xdp-filter -f ipv4 pass", ipv4, &known, PASS));
    }
    for number in 0..runs * rounds {
        for subject in &mut subjects {
            let run = bpf::run(subject.program, &subject.frame, repeat)
                .with_context(|| format!("failed to run `{}`", subject.name))?;
            anyhow::ensure!(run.action == subject.action, "`{}` ended with {}", subject.name, run.action);
            if number % rounds == 0 {
                subject.runs.push(Vec::new());
            }
            if let Some(rounds) = subject.runs.last_mut() {
                rounds.push(run.nanoseconds);
            }
        }
    }
    report(&subjects, repeat, rounds);
    Ok(())
}

/// xdp-filter twice, or nothing and a loud word.
fn peers(required: bool) -> Result<Option<(Peer, Peer)>> {
    let load = || Ok((Peer::load("all", &[], BANNED)?, Peer::load("ipv4", &["-f", "ipv4"], BANNED)?));
    let loaded: Result<(Peer, Peer)> = load();
    match loaded {
        Ok(peers) => Ok(Some(peers)),
        Err(error) if required => Err(error.context("xdp-filter cannot be had")),
        Err(error) => {
            say(&format!("SKIPPED xdp-filter: {error:#}"));
            Ok(None)
        }
    }
}

fn subject<'a>(name: &'static str, program: BorrowedFd<'a>, frame: &[u8], action: u32) -> Subject<'a> {
    Subject { name, program, frame: frame.to_vec(), action, runs: Vec::new() }
}

fn subjects<'a>(gate: &'a KernelGate, empty: BorrowedFd<'a>) -> Vec<Subject<'a>> {
    let ingress = gate.program("floodwall_ingress");
    let egress = gate.program("floodwall_egress");
    let known = to_server(KNOWN, &voice(5, 100));
    let mut malformed = voice(5, 100);
    malformed[8] ^= 1;
    let unguarded = udp(Path::new(KNOWN, SERVER, 53), &voice(5, 100));
    let answer = data(Path::new(PROVEN, SERVER, TEAMTALK).back(), &[b'x'; 100]);
    let said = udp(Path::new(PROVEN, SERVER, TEAMTALK).back(), &voice(5, 100));
    let elsewhere = udp(Path::new(PROVEN, SERVER, 53).back(), &voice(5, 100));
    vec![
        subject("empty program", empty, &known, PASS),
        subject("unguarded", ingress, &unguarded, PASS),
        subject("banned source", ingress, &to_server(BANNED, &voice(5, 100)), DROP),
        subject("malformed datagram", ingress, &to_server(KNOWN, &malformed), DROP),
        subject("stranger's voice", ingress, &to_server(STRANGER, &voice(6, 100)), DROP),
        subject("stranger's hello", ingress, &to_server(STRANGER, &hello(6)), DROP),
        subject("proven voice", ingress, &to_server(PROVEN, &voice(7, 100)), PASS),
        subject("known voice", ingress, &known, PASS),
        subject("egress TCP payload", egress, &answer, UNDECIDED),
        subject("egress voice", egress, &said, UNDECIDED),
        subject("egress unguarded", egress, &elsewhere, UNDECIDED),
    ]
}

fn to_server(source: &str, datagram: &[u8]) -> Vec<u8> {
    udp(Path::new(source, SERVER, TEAMTALK), datagram)
}

/// Everything on: limits that never run out but are taken, user ids bound, ten thousand entries beside ours.
fn fill(gate: &KernelGate) -> Result<()> {
    guard(gate.tables())?;
    for number in 0..ENTRIES {
        let entry = Source { banned_until: u64::MAX, ..Source::default() };
        gate.set_source(SourceKey::of(Address::from_v4(0x0a00_0000 + number)), &entry);
    }
    let known = Source { known_until: u64::MAX, ..Source::default() };
    gate.set_source(SourceKey::of(address(KNOWN)), &known);
    for (user_id, owner) in [(5_u32, KNOWN), (7, PROVEN)] {
        gate.write(names::USERS, &user_id, &User { owner: address(owner) });
    }
    let answer = data(Path::new(PROVEN, SERVER, TEAMTALK).back(), b"welcome");
    bpf::run(gate.program("floodwall_egress"), &answer, 1)
        .context("the server's answer proves its receiver")?;
    Ok(())
}

/// Voice of the source that [`guard`] bans.
pub(crate) fn banned_voice() -> Vec<u8> {
    to_server(BANNED, &voice(5, 100))
}

/// A guarded TeamTalk server and one ban.
///
/// # Errors
/// When the kernel refuses an entry.
pub(crate) fn guard(tables: &KernelTables) -> Result<()> {
    let generous = Limit { interval: 1, tolerance: u64::MAX / 2 };
    let settings = ServiceSettings {
        flags: service_flags::REQUIRE_SESSION | service_flags::REQUIRE_OWN_ID,
        proof_for: u64::MAX / 4,
        source: [[[generous; KINDS]; STANDINGS]; LEVELS],
        network: [[generous; KINDS]; LEVELS],
        service: [[generous; KINDS]; LEVELS],
    };
    let mut ports = Ports::unguarded();
    for row in [0, PORTS / 2] {
        ports.0[0][row + usize::from(TEAMTALK)] = Port::guarded(0, Role::TeamTalk);
    }
    tables.set_ports(0, &ports.0[0])?;
    tables.set_settings(0, 0, &settings)?;
    let main_locals = [address(SERVER), address(live::SERVER)];
    for local in main_locals {
        tables.insert_local(local)?;
    }
    let status =
        Status { heartbeat_until: u64::MAX, seed: 7, tick: 4_000_000, main_locals, ..Status::default() };
    tables.set_status(&status)?;
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    Ok(tables.set_source(SourceKey::of(address(BANNED)), &banned)?)
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

/// Ratios first, then the figures they come from.
fn report(subjects: &[Subject<'_>], repeat: u32, rounds: usize) {
    // Of each run the least: what disturbs a measurement only ever adds to it.
    let least = |name: &str| -> Option<Vec<f64>> {
        let subject = subjects.iter().find(|subject| subject.name == name)?;
        Some(subject.runs.iter().map(|run| run.iter().min().copied().map_or(f64::NAN, f64::from)).collect())
    };
    let by_run = |ours: &str, theirs: &str, compare: fn(f64, f64) -> f64| -> Option<Vec<f64>> {
        Some(
            least(ours)?
                .into_iter()
                .zip(least(theirs)?)
                .map(|(ours, theirs)| compare(ours, theirs))
                .collect(),
        )
    };
    for (ours, theirs, target) in [
        ("banned source", "xdp-filter drop", Some(0.5)),
        ("known voice", "xdp-filter pass", Some(0.8)),
        ("banned source", "xdp-filter -f ipv4 drop", None),
        ("known voice", "xdp-filter -f ipv4 pass", None),
    ] {
        if let Some(ratios) = by_run(ours, theirs, |ours, theirs| ours / theirs) {
            let verdict =
                target.map_or_else(String::new, |target| verdict(&ratios, target, &format!("{target} x")));
            say(&format!("{} x  {ours} against {theirs}{verdict}", spread(&ratios, 2)));
        }
    }
    if let Some(above) = by_run("unguarded", "empty program", |ours, theirs| ours - theirs) {
        let verdict = verdict(&above, 10.0, "+10 ns");
        say(&format!("+{} ns  unguarded against empty program{verdict}", spread(&above, 0)));
    }
    say(&format!(
        "ns per packet, least of {rounds} rounds of {repeat} runs each, over {} of these:",
        subjects[0].runs.len()
    ));
    for subject in subjects {
        if let Some(least) = least(subject.name) {
            say(&format!("{:>12}  {}", spread(&least, 0), subject.name));
        }
    }
}

/// Reached is what every run has reached.
fn verdict(runs: &[f64], target: f64, written: &str) -> String {
    let most = runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
    let word = match (least <= target, most <= target) {
        (_, true) => "reached",
        (true, false) => "reached in some runs, MISSED in others",
        (false, false) => "MISSED",
    };
    format!(" (at most {written}: {word})")
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
