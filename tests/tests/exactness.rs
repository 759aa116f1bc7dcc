//! Limits are exact on two CPUs: what is admitted of one source is what its rate says, whoever else counts at that moment.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use floodwall_tests::{
    KernelGate, bpf, is_root,
    live::now,
    packets::{Path, udp, voice},
    prebuilt_object, skip,
};
use floodwall_wire::{
    Address, Class, Reason, SourceKey,
    limit::Limit,
    tables::{
        Counter, KINDS, LEVELS, PORTS, Port, Ports, Role, STANDINGS, ServiceSettings, Source, Status,
        counter_index, names, status_flags,
    },
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

const SECOND: u64 = 1_000_000_000;
const SOURCE: &str = "198.51.100.7";
const TEAMTALK: u16 = 10_333;
/// Datagrams one call to the kernel judges.
const BATCH: u32 = 2_000;

/// Whether each sender keeps to a CPU of its own, or goes wherever it is put.
#[derive(Clone, Copy, Debug)]
enum Placement {
    Pinned,
    Spread,
}

/// A gate that knows one source and admits of it what the limit says.
fn open(gate: &KernelGate, limit: Limit, tick: u64) {
    let settings =
        ServiceSettings { source: [[[limit; KINDS]; STANDINGS]; LEVELS], ..ServiceSettings::default() };
    let mut ports = Ports::unguarded();
    ports.0[0][PORTS / 2 + usize::from(TEAMTALK)] = Port::guarded(0, Role::TeamTalk);
    gate.write(names::PORTS, &0_u32, &*ports);
    gate.write(names::SETTINGS, &0_u32, &settings);
    let known = Source { known_until: u64::MAX, ..Source::default() };
    gate.set_source(SourceKey::of(address(SOURCE)), &known);
    let flags = status_flags::ANY_ADDRESS;
    gate.write(names::STATUS, &0_u32, &Status { flags, tick, ..Status::default() });
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

/// Packets of the source's voice that were admitted, passed in contention, and were dropped.
fn counted(gate: &KernelGate) -> [u64; 3] {
    let count = |reason| -> u64 {
        let index = counter_index(0, Class::UdpVoice, reason);
        let cells = bpf::lookup_per_cpu::<Counter>(gate.map(names::COUNTERS), index).expect("a counter");
        cells.iter().map(|cell| cell.packets).sum()
    };
    [Reason::Admitted, Reason::Contended, Reason::LimitSource].map(count)
}

/// Two senders until told to stop; answers how many datagrams they sent.
fn flood(gate: &KernelGate, placement: Placement, stop: &AtomicBool) -> u64 {
    let frame = udp(Path::new(SOURCE, "192.0.2.1", TEAMTALK), &voice(5, 100));
    thread::scope(|scope| {
        let senders: Vec<_> = [0, 1]
            .map(|cpu| {
                let frame = &frame;
                scope.spawn(move || {
                    if matches!(placement, Placement::Pinned) {
                        let mut cpus = CpuSet::new();
                        cpus.set(cpu % thread::available_parallelism().map_or(1, usize::from))
                            .expect("a CPU");
                        sched_setaffinity(Pid::from_raw(0), &cpus).expect("pinned to a CPU");
                    }
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        bpf::run(gate.program("floodwall_ingress"), frame, BATCH).expect("a run");
                        sent += u64::from(BATCH);
                    }
                    sent
                })
            })
            .into_iter()
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender")).sum()
    })
}

/// A rate and how it is tried.
struct Trial {
    name: &'static str,
    /// Nanoseconds a datagram takes to be earned back.
    interval: u64,
    /// Datagrams earned back between two looks at the clock.
    earned: u64,
    steps: u64,
}

/// Time is set by hand and passes when both senders together have offered at least twice what it earns: so an hour takes
/// a second, a slow machine only takes longer, and the word is fought over all the time.
#[test]
fn what_is_admitted_on_two_cpus_is_within_two_percent_of_the_rate() {
    const START: u64 = 1_000 * SECOND;
    const BURST: u64 = 3;
    if !is_root() {
        return skip("what_is_admitted_on_two_cpus_is_within_two_percent_of_the_rate", "needs root");
    }
    let trials = [
        Trial { name: "1 per minute", interval: 60 * SECOND, earned: 1, steps: 400 },
        Trial { name: "1 per second", interval: SECOND, earned: 1, steps: 400 },
        Trial { name: "1,000 per second", interval: SECOND / 1_000, earned: 20, steps: 400 },
        Trial { name: "30,000 per second", interval: SECOND / 30_000, earned: 600, steps: 400 },
        Trial { name: "1,000,000 per second", interval: SECOND / 1_000_000, earned: 4_000, steps: 200 },
    ];
    for Trial { name, interval, earned, steps } in trials {
        for placement in [Placement::Pinned, Placement::Spread] {
            let gate = KernelGate::for_tests(&prebuilt_object()).expect("the object loads");
            let burst = BURST * earned;
            gate.set_now(START);
            open(&gate, Limit { interval, tolerance: burst * interval }, 0);
            let stop = AtomicBool::new(false);
            let sent = thread::scope(|scope| {
                let sending = scope.spawn(|| flood(&gate, placement, &stop));
                let total = || counted(&gate).iter().sum::<u64>();
                for step in 0..=steps {
                    gate.set_now(START + step * earned * interval);
                    let (offered, begun) = (total(), now());
                    while total() < offered + 2 * earned {
                        assert!(begun.elapsed() < Duration::from_secs(30), "nobody sends");
                        thread::yield_now();
                    }
                }
                stop.store(true, Ordering::Relaxed);
                sending.join().expect("both senders")
            });
            let [admitted, contended, over] = counted(&gate);
            let expected = steps * earned + burst;
            println!(
                "{name}, {placement:?}: {admitted} admitted and {contended} passed in contention of {sent}, {expected} \
                 expected"
            );
            assert_eq!(admitted + contended + over, sent, "every datagram is counted once");
            let passed = admitted + contended;
            assert!(
                passed.abs_diff(expected) * 50 <= expected,
                "{name}, {placement:?}: {passed} of {expected}"
            );
            // A lost update of the word would be a datagram admitted twice.
            assert!(contended > 0 || passed <= expected, "{name}, {placement:?}: {passed} of {expected}");
        }
    }
}
