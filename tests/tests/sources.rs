//! Sources and lists are written in place while packets are judged by them: every packet meets what was or what is, never
//! something between, and never what is said of somebody else.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use floodwall_kernel::Sizes;
use floodwall_tests::{
    KernelGate, bpf, is_root,
    packets::{Path, udp, voice},
    prebuilt_object, skip,
};
use floodwall_wire::{
    Address, Class, Reason, SourceKey,
    lists::{
        Treatment,
        image::{Image, Range},
    },
    sources::{BUCKET_KEYS, Bucket, stored},
    tables::{
        Counter, PORTS, Port, Ports, Role, ServiceSettings, Source, Status, counter_index, names,
        source_flags, status_flags,
    },
};

const TEAMTALK: u16 = 10_333;
const ALWAYS: u64 = u64::MAX;
/// Packets one call to the kernel judges.
const BATCH: u32 = 5_000;
/// One bucket: whatever is written takes the first slot that is free there.
const ROOM: u32 = 1;

fn key(address: &str) -> SourceKey {
    SourceKey::of(Address::from(address.parse::<IpAddr>().expect("an address")))
}

fn guarded() -> KernelGate {
    let gate = KernelGate::with_sizes(&prebuilt_object(), Sizes { sources: ROOM, ..Sizes::DEFAULT })
        .expect("the object loads");
    let mut ports = Ports::unguarded();
    ports.0[0][PORTS / 2 + usize::from(TEAMTALK)] = Port::guarded(0, Role::TeamTalk);
    gate.write(names::PORTS, &0_u32, &*ports);
    gate.write(names::SETTINGS, &0_u32, &ServiceSettings::default());
    let status = Status { flags: status_flags::ANY_ADDRESS, tick: 4_000_000, ..Status::default() };
    gate.write(names::STATUS, &0_u32, &status);
    gate
}

/// What became of all packets so far.
fn counted(gate: &KernelGate) -> Vec<(Reason, u64)> {
    let count = |reason: Reason| -> u64 {
        let index = counter_index(0, Class::UdpVoice, reason);
        let cells = bpf::lookup_per_cpu::<Counter>(gate.map(names::COUNTERS), index).expect("a counter");
        cells.iter().map(|cell| cell.packets).sum()
    };
    Reason::ALL.iter().map(|reason| (*reason, count(*reason))).filter(|(_, count)| *count > 0).collect()
}

/// Judges voice of `source` on one CPU while `write` is called over and over on another; answers what became of it and
/// how often was written.
fn judge_while_writing(gate: &KernelGate, source: &str, write: impl Fn(u64)) -> (Vec<(Reason, u64)>, u64) {
    let before = counted(gate);
    let stop = AtomicBool::new(false);
    let server = if source.contains(':') { "2001:db8:ffff::1" } else { "192.0.2.1" };
    let frame = udp(Path::new(source, server, TEAMTALK), &voice(5, 100));
    let rounds = thread::scope(|scope| {
        let judge = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                bpf::run(gate.program("floodwall_ingress"), &frame, BATCH).expect("a run");
            }
        });
        #[expect(clippy::disallowed_methods, reason = "bounds the test; nothing is measured by it")]
        let begun = Instant::now();
        let mut rounds = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            write(rounds);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        judge.join().expect("the judge");
        rounds
    });
    let count_before =
        |reason| before.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count);
    let new = counted(gate).into_iter().map(|(reason, count)| (reason, count - count_before(reason)));
    (new.filter(|(_, count)| *count > 0).collect(), rounds)
}

#[expect(clippy::print_stdout, reason = "what was met is told")]
fn assert_only(test: &str, became: &(Vec<(Reason, u64)>, u64), allowed: &[Reason]) {
    let (reasons, rounds) = became;
    println!("{test}: {reasons:?} while written {rounds} times");
    assert!(*rounds > 30, "{test}: written {rounds} times only");
    assert!(!reasons.is_empty(), "{test}: nothing was judged");
    for (reason, count) in reasons {
        assert!(allowed.contains(reason), "{test}: {count} packets were judged {reason:?}");
    }
}

#[test]
fn a_packet_meets_an_entry_as_it_was_or_as_it_is() {
    if !is_root() {
        return skip("a_packet_meets_an_entry_as_it_was_or_as_it_is", "needs root to load programs");
    }
    let gate = guarded();
    let source = "198.51.100.7";
    let flip = |states: [Source; 2], what: &str, allowed: &[Reason]| {
        gate.set_source(key(source), &states[0]);
        let became = judge_while_writing(&gate, source, |round| {
            gate.set_source(key(source), &states[(round % 2) as usize]);
        });
        assert_only(what, &became, allowed);
    };
    let known = Source { known_until: ALWAYS, ..Source::default() };
    let let_in = Source { banned_until: ALWAYS, flags: source_flags::ALLOWED, ..Source::default() };
    flip([known, let_in], "known, or let in though banned", &[Reason::Admitted, Reason::Allowed]);
    let banned = Source { banned_until: ALWAYS, limited_until: ALWAYS, ..Source::default() };
    let by_prefix = Source {
        banned_until: ALWAYS - 1,
        flags: source_flags::PREFIX_BAN,
        known_until: ALWAYS,
        ..Source::default()
    };
    flip([banned, by_prefix], "banned, or by prefix", &[Reason::BanAddress, Reason::BanPrefix]);
}

#[test]
fn nobody_is_judged_by_the_entry_of_who_comes_after_them() {
    if !is_root() {
        return skip("nobody_is_judged_by_the_entry_of_who_comes_after_them", "needs root to load programs");
    }
    let gate = guarded();
    let (known, source) = (Source { known_until: ALWAYS, ..Source::default() }, "198.51.100.7");
    let banned = Source { banned_until: ALWAYS, ..Source::default() };
    let other = key("203.0.113.9");
    // Somebody known goes, and somebody banned comes; then the other way round.
    let became = judge_while_writing(&gate, source, |_| {
        gate.set_source(key(source), &known);
        gate.tables().remove_source(key(source)).expect("an entry can be removed");
        gate.set_source(other, &banned);
        gate.tables().remove_source(other).expect("an entry can be removed");
    });
    assert_only("the known or strangers beside the banned", &became, &[Reason::Admitted]);
    assert!(gate.tables().source_keys().is_empty());
}

#[test]
fn a_slot_is_not_given_away_while_somebody_may_read_it() {
    if !is_root() {
        return skip("a_slot_is_not_given_away_while_somebody_may_read_it", "needs root to load programs");
    }
    let gate = guarded();
    let banned = Source { banned_until: ALWAYS, ..Source::default() };
    let mut slots = Vec::new();
    for number in 0..2 * BUCKET_KEYS {
        let key = key(&format!("203.0.113.{number}"));
        gate.set_source(key, &banned);
        let Bucket(held) = gate.read(names::SOURCE_KEYS, &0_u32).expect("a bucket");
        slots.push(held.iter().position(|held| held.load() == stored(key)).expect("the key lies there"));
        gate.tables().remove_source(key).expect("an entry can be removed");
    }
    // Each once, and then, when no program that found the first of them still runs, all of them again.
    let in_turn: Vec<usize> = (0..BUCKET_KEYS).chain(0..BUCKET_KEYS).collect();
    assert_eq!(slots, in_turn);
}

#[test]
fn a_packet_meets_the_lists_as_they_were_or_as_they_are() {
    if !is_root() {
        return skip("a_packet_meets_the_lists_as_they_were_or_as_they_are", "needs root to load programs");
    }
    // Many ranges that say the same: what is missing or out of its place is met at once. The two trees differ in every node.
    let many = |step: u32, treatment| {
        let range = |number: u32| {
            let first = 0xc633_0000 + number * step;
            Range { first: Address::from_v4(first), last: Address::from_v4(first + step - 2), treatment }
        };
        Image::build(&(0..60_000).map(range).collect::<Vec<_>>())
    };
    let alone = |treatment| {
        let address = Address::from_v6(0x2001_0db8_0000_0000, 7);
        Image::build(&[Range { first: address, last: address, treatment }])
    };
    for (source, images) in [
        ("198.51.100.5", [many(16, Treatment::Ban), many(8, Treatment::Allow)]),
        ("2001:db8::7", [Treatment::Ban, Treatment::Allow].map(alone)),
    ] {
        let gate = guarded();
        gate.tables().set_lists(&images[0]).expect("there is room");
        let status: Status = gate.read(names::STATUS, &0_u32).expect("a status");
        gate.write(names::STATUS, &0_u32, &Status { flags: status.flags | status_flags::LISTS, ..status });
        // In threes: who writes waits for who judges, so that in turns each call might begin with the same.
        let became = judge_while_writing(&gate, source, |round| {
            gate.tables().set_lists(&images[(round / 3 % 2) as usize]).expect("there is room");
        });
        assert_only(source, &became, &[Reason::BanPrefix, Reason::Allowed]);
        assert_eq!(became.0.len(), 2, "{source}: both were met");
    }
}
