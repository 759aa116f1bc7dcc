//! ns per packet in the kernel, by `BPF_PROG_TEST_RUN`: the same bytes through the gate, an empty program and
//! xdp-filter. All subjects take turns in every round, so that a slow moment of the machine hits all of them.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use floodwall_tests::{
    KernelGate, bpf,
    packets::{Path, data, hello, udp, voice},
    prebuilt_object,
};
use floodwall_wire::{
    Address, SourceKey,
    frame::Transport,
    limit::Limit,
    tables::{
        KINDS, LEVELS, PORTS, Port, Ports, Role, STANDINGS, ServiceSettings, Source, Status, User, names,
        service_flags,
    },
};

use crate::peer::Peer;

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
    rounds: Vec<u32>,
}

pub(crate) const DROP: u32 = 1;
const PASS: u32 = 2;
const UNDECIDED: u32 = u32::MAX;

/// Measures and prints.
pub(crate) fn run(repeat: u32, rounds: usize, require_peers: bool) -> Result<()> {
    let empty = bpf::load_empty_xdp().context("failed to load an empty program (are you root?)")?;
    let gate = KernelGate::as_in_production(&prebuilt_object())?;
    fill(&gate);
    let peers = peers(require_peers)?;
    let mut subjects = subjects(&gate, empty.as_fd());
    for (all, ipv4) in peers.iter().map(|(all, ipv4)| (all.program(), ipv4.program())) {
        let (banned, known) = (to_server(BANNED, &voice(5, 100)), to_server(KNOWN, &voice(5, 100)));
        subjects.push(subject("xdp-filter drop", all, &banned, DROP));
        subjects.push(subject("xdp-filter pass", all, &known, PASS));
        subjects.push(subject("xdp-filter -f ipv4 drop", ipv4, &banned, DROP));
        subjects.push(subject("xdp-filter -f ipv4 pass", ipv4, &known, PASS));
    }
    for _ in 0..rounds {
        for subject in &mut subjects {
            let run = bpf::run(subject.program, &subject.frame, repeat)
                .with_context(|| format!("failed to run `{}`", subject.name))?;
            anyhow::ensure!(run.action == subject.action, "`{}` ended with {}", subject.name, run.action);
            subject.rounds.push(run.nanoseconds);
        }
    }
    report(&mut subjects, repeat, rounds);
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
    Subject { name, program, frame: frame.to_vec(), action, rounds: Vec::new() }
}

fn subjects<'a>(gate: &'a KernelGate, empty: BorrowedFd<'a>) -> Vec<Subject<'a>> {
    let ingress = gate.program("floodwall_ingress");
    let egress = gate.program("floodwall_egress");
    let known = to_server(KNOWN, &voice(5, 100));
    let mut malformed = voice(5, 100);
    malformed[8] ^= 1;
    let unguarded = udp(Path::new(KNOWN, SERVER, 53), &voice(5, 100));
    let answer = data(Path::new(PROVEN, SERVER, TEAMTALK).back(), &[b'x'; 100]);
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
    ]
}

fn to_server(source: &str, datagram: &[u8]) -> Vec<u8> {
    udp(Path::new(source, SERVER, TEAMTALK), datagram)
}

/// Everything on: limits that never run out but are taken, user ids bound, ten thousand entries beside ours.
fn fill(gate: &KernelGate) {
    guard(gate);
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
    bpf::run(gate.program("floodwall_egress"), &answer, 1).expect("the server's answer proves its receiver");
}

/// Voice of the source that [`guard`] bans.
pub(crate) fn banned_voice() -> Vec<u8> {
    to_server(BANNED, &voice(5, 100))
}

/// A guarded TeamTalk server and one ban.
pub(crate) fn guard(gate: &KernelGate) {
    let generous = Limit { interval: 1, tolerance: u64::MAX / 2 };
    let settings = ServiceSettings {
        flags: service_flags::REQUIRE_SESSION | service_flags::REQUIRE_OWN_ID,
        proof_for: u64::MAX / 4,
        source: [[[generous; KINDS]; STANDINGS]; LEVELS],
        network: [[generous; KINDS]; LEVELS],
        service: [[generous; KINDS]; LEVELS],
    };
    let mut ports = Ports::unguarded();
    for transport in [Transport::Tcp, Transport::Udp] {
        let row = if transport == Transport::Tcp { 0 } else { PORTS / 2 };
        ports.0[0][row + usize::from(TEAMTALK)] = Port::guarded(0, Role::TeamTalk);
    }
    gate.write(names::PORTS, &0_u32, &*ports);
    gate.write(names::SETTINGS, &0_u32, &settings);
    gate.write(names::LOCALS, &address(SERVER), &1_u8);
    let main_locals = [address(SERVER), Address::default()];
    let status =
        Status { heartbeat_until: u64::MAX, seed: 7, tick: 4_000_000, main_locals, ..Status::default() };
    gate.write(names::STATUS, &0_u32, &status);
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    gate.set_source(SourceKey::of(address(BANNED)), &banned);
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

/// Ratios first, then the figures they come from.
fn report(subjects: &mut [Subject<'_>], repeat: u32, rounds: usize) {
    for subject in &mut *subjects {
        subject.rounds.sort_unstable();
    }
    let least = |name: &str| {
        subjects.iter().find(|subject| subject.name == name).map(|subject| f64::from(subject.rounds[0]))
    };
    for (ours, theirs, target) in [
        ("banned source", "xdp-filter drop", 0.5),
        ("banned source", "xdp-filter -f ipv4 drop", 1.0),
        ("known voice", "xdp-filter pass", 0.8),
        ("known voice", "xdp-filter -f ipv4 pass", 1.0),
    ] {
        if let (Some(our), Some(their)) = (least(ours), least(theirs)) {
            let word = if our <= target * their { "reached" } else { "MISSED" };
            say(&format!("{:.2} x  {ours} against {theirs} (at most {target} x: {word})", our / their));
        }
    }
    if let (Some(empty), Some(unguarded)) = (least("empty program"), least("unguarded")) {
        let word = if unguarded <= empty + 10.0 { "reached" } else { "MISSED" };
        say(&format!("+{} ns  unguarded against empty program (at most +10 ns: {word})", unguarded - empty));
    }
    say(&format!("ns per packet, least and median of {rounds} rounds of {repeat} runs:"));
    for Subject { name, rounds, .. } in subjects {
        say(&format!("{:>6} {:>6}  {name}", rounds[0], rounds[rounds.len() / 2]));
    }
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
