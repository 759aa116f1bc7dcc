//! Promise 1: every packet of every capture gets the same verdict, reason and table effect in both homes.
//!
//! The clock follows the captures; proofs are learnt from the servers' own answers in the captures. Along the way
//! sources are banned, known, limited and forgotten, user ids bound, levels moved and rule sets swapped, by a fixed
//! scheme and in both homes alike, so that as many branches as possible are compared.

#![expect(clippy::panic, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use floodwall_tests::{Homes, skip};
use floodwall_wire::{
    Address, Reason, SourceKey,
    frame::{self, Headers, Transport},
    limit::Limit,
    lists::{Treatment, image::Range},
    tables::{
        GENERATIONS, Kind, LEVELS, Port, Prefix, Role, STANDINGS, ServiceSettings, Source, service_flags,
        source_flags, status_flags,
    },
    window::SliceWindow,
};

const SECOND: u64 = 1_000_000_000;
const GUARDED: [(Transport, u16, u8, Role); 6] = [
    (Transport::Tcp, 10333, 0, Role::TeamTalk),
    (Transport::Udp, 10333, 0, Role::TeamTalk),
    (Transport::Tcp, 6667, 1, Role::IrcPlain),
    (Transport::Udp, 9987, 2, Role::TeamSpeakVoice),
    (Transport::Tcp, 10011, 2, Role::TeamSpeakQuery),
    (Transport::Tcp, 30033, 2, Role::TeamSpeakFiles),
];

#[test]
fn every_packet_of_every_capture_is_judged_alike() {
    let Some(mut homes) = Homes::open("every_packet_of_every_capture_is_judged_alike") else { return };
    guard(&mut homes);
    let mut run = Run::default();
    for capture in captures() {
        run.replay(&mut homes, &capture);
    }
    let compared = homes.compare_tables();
    println!("{} packets of {} captures compared, as {} frames:", run.packets, run.captures, run.frames);
    println!("  {} judged, {} observed, {} proved", run.judged, run.observed, run.proved);
    println!(
        "  {compared} table entries equal at the end; {} frames not runnable in the kernel",
        run.unrunnable
    );
    for (reason, count) in &run.reasons {
        println!("  {count:>8} {}", reason.as_str());
    }
    assert!(run.packets > 10_000, "too few packets to prove anything: {}", run.packets);
    assert!(run.proved > 100, "the watcher learnt too little: {}", run.proved);
    assert!(run.reasons.len() >= 15, "too few branches were taken: {:?}", run.reasons);
    assert!(run.unrunnable * 50 < run.frames, "too many frames were left out: {}", run.unrunnable);
}

/// Guards the services in both generations, with limits tight enough to be reached.
fn guard(homes: &mut Homes) {
    for generation in 0..GENERATIONS as u32 {
        for (transport, port, service, role) in GUARDED {
            homes.set_port(generation, transport, port, Port::guarded(service, role));
            homes.set_settings(generation, service, settings(u64::from(generation) + 1));
        }
    }
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
}

fn settings(tightness: u64) -> ServiceSettings {
    let limit = |kind: Kind, share: u64| {
        let (rate, burst) = match kind {
            Kind::Greeting => (20, 40),
            Kind::Datagram => (100, 200),
            Kind::Syn => (10, 20),
            Kind::Payload => (4_000, 16_000),
        };
        Limit::per_second(rate * share / tightness, burst * share / tightness)
    };
    let row = |share| Kind::ALL.map(|kind| limit(kind, share));
    ServiceSettings {
        flags: service_flags::REQUIRE_SESSION | service_flags::REQUIRE_OWN_ID,
        proof_for: 120 * SECOND,
        source: [[row(2), row(2), row(4), row(1), row(4)]; LEVELS],
        network: [row(1); LEVELS],
        service: [row(1); LEVELS],
    }
}

const _: () = assert!(STANDINGS == 5);

#[derive(Default)]
struct Run {
    captures: usize,
    packets: usize,
    frames: usize,
    judged: usize,
    observed: usize,
    proved: usize,
    unrunnable: usize,
    reasons: BTreeMap<Reason, usize>,
    /// Gate clock at which the next capture begins.
    start: u64,
}

impl Run {
    fn replay(&mut self, homes: &mut Homes, capture: &Path) {
        let name = capture.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut reader = pcap::Capture::from_file(capture).unwrap_or_else(|error| panic!("{name}: {error}"));
        let link = reader.get_datalink();
        let mut first = None;
        self.start += 600 * SECOND;
        homes.set_status(|status| status.learning_until = self.start + 5 * SECOND);
        let mut now = self.start;
        let mut number = 0;
        while let Ok(packet) = reader.next_packet() {
            number += 1;
            let at = packet.header.ts.tv_sec.unsigned_abs() * SECOND
                + packet.header.ts.tv_usec.unsigned_abs() * 1_000;
            now = now.max(self.start + at.saturating_sub(*first.get_or_insert(at)));
            homes.set_now(now);
            let Some(frame) = as_ethernet(link, packet.data) else {
                return skip(&name, &format!("link type {link:?}"));
            };
            self.packets += 1;
            self.disturb(homes, &frame, now);
            self.compare(homes, &frame, Place { name: &name, number });
        }
        self.captures += 1;
        self.start = now;
    }

    /// Does something to the tables, by a fixed scheme, about the sender of every 41st packet.
    fn disturb(&self, homes: &mut Homes, frame: &[u8], now: u64) {
        if self.packets.is_multiple_of(700) {
            let turn = (self.packets / 700) as u32;
            homes.set_status(|status| {
                status.generation = turn % 2;
                status.heartbeat_until = if turn.is_multiple_of(3) { now } else { now + 60 * SECOND };
                status.levels[0] = ((turn % 3) << 8) | ((turn + 1) % 3);
            });
        }
        if !self.packets.is_multiple_of(41) {
            return;
        }
        let Ok(headers) = frame::walk(&SliceWindow::new(frame)) else { return };
        let key = SourceKey::of(headers.source);
        let entry = |change: fn(&mut Source, u64)| {
            let mut source = Source::default();
            change(&mut source, now + 2 * SECOND);
            source
        };
        match self.packets / 41 % 10 {
            0 => homes.insert_source(key, &entry(|source, until| source.banned_until = until)),
            1 | 2 => homes.insert_source(key, &entry(|source, until| source.known_until = until)),
            3 => homes.insert_source(key, &entry(|source, until| source.limited_until = until)),
            4 => homes.insert_source(key, &entry(|source, _| source.flags = source_flags::ALLOWED)),
            5 => {
                homes.insert_source(key, &entry(|source, _| source.flags = source_flags::MIXED));
                homes.insert_host(headers.source, &entry(|source, until| source.known_until = until));
            }
            6 => bind_user(homes, frame, &headers),
            7 => {
                homes.remove_source(key);
                let banned = Prefix { banned_until: now + SECOND, ..Prefix::default() };
                homes.insert_prefix(headers.source, 120, banned);
            }
            8 => {
                homes.remove_source(key);
                let treatment = Treatment::ALL[self.packets / 369 % 3];
                let alone = Range { first: headers.source, last: headers.source, treatment };
                homes.set_lists(&[alone]);
            }
            _ => homes.remove_source(key),
        }
    }

    /// The frame, the frame padded as Ethernet does, and the frame with a trailer.
    fn compare(&mut self, homes: &mut Homes, frame: &[u8], place: Place<'_>) {
        let mut padded = frame.to_vec();
        padded.resize(frame.len().max(60), 0);
        let trailed = [frame, &[0xfa, 0xce, 0xfe, 0xed]].concat();
        for frame in [frame, &padded, &trailed] {
            self.compare_frame(homes, frame, place);
        }
    }

    fn compare_frame(&mut self, homes: &mut Homes, frame: &[u8], place: Place<'_>) {
        if !is_runnable(frame) {
            self.unrunnable += 1;
            return;
        }
        self.frames += 1;
        if departs(frame) {
            self.observed += 1;
            self.proved += usize::from(homes.observe(frame, &place).proves);
        } else {
            self.judged += 1;
            homes.empty_mirror();
            let judgement = homes.judge(frame, &place);
            *self.reasons.entry(judgement.reason).or_default() += 1;
        }
    }
}

/// Which packet of which capture.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    number: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packet {}", self.name, self.number)
    }
}

/// Binds the user id of a TeamTalk datagram to somebody else, or back.
fn bind_user(homes: &mut Homes, frame: &[u8], headers: &Headers) {
    let at = headers.datagram_offset() as usize;
    let Some([low, high]) = frame.get(at + 1..at + 3) else { return };
    let user_id = u16::from_le_bytes([*low, *high]) & 0xfff;
    let other = Address::from_v4(0x0a00_0001 + u32::from(user_id % 2));
    homes.set_user(0, user_id, (user_id % 3 != 0).then_some(other));
}

/// Whether the server sent it: its source port is guarded and its destination port is not.
fn departs(frame: &[u8]) -> bool {
    let Ok(headers) = frame::walk(&SliceWindow::new(frame)) else { return false };
    let guarded =
        |port| GUARDED.iter().any(|(transport, at, ..)| (*transport, *at) == (headers.transport, port));
    guarded(headers.source_port) && !guarded(headers.destination_port)
}

/// `BPF_PROG_TEST_RUN` takes a page of a departing packet and whole frames of at least an Ethernet header.
fn is_runnable(frame: &[u8]) -> bool {
    frame.len() >= 14 && (!departs(frame) || frame.len() <= 3_000)
}

/// Puts an Ethernet header in front where the link has another one or none.
fn as_ethernet(link: pcap::Linktype, packet: &[u8]) -> Option<Vec<u8>> {
    let skipped = match link {
        pcap::Linktype::ETHERNET => return Some(packet.to_vec()),
        pcap::Linktype::NULL => 4,
        pcap::Linktype(12 | 101) => 0,
        _ => return None,
    };
    let packet = packet.get(skipped..).unwrap_or_default();
    let ethertype = match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    Some(floodwall_tests::packets::ethernet(&ethertype, packet))
}

/// The committed captures, and those beside the checkout if they are there.
fn captures() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared =
        std::env::var_os("FLOODWALL_SHARED").map_or_else(|| here.join("../../shared"), PathBuf::from);
    let mut files = list(&here.join("corpus/teamtalk"));
    files.extend(list(&here.join("corpus/irc")));
    let others = list(&shared.join("corpus/pcaps"));
    if others.is_empty() {
        skip("captures of others", &format!("none in {}", shared.display()));
    }
    files.extend(others);
    files
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng"))
        .collect();
    files.sort();
    files
}
