//! The committed fuzz corpora, replayed through the targets' own entries.
//!
//! `FLOODWALL_MAKE_CORPORA=1 cargo test -p floodwall-engine --test captures fuzz_corpus` writes the seeds anew from the
//! committed captures.

use crate::entry;
use std::path::{Path, PathBuf};

use crate::support::{self, Recorded, RecordedBody};
use floodwall_engine::Side;

/// What a target does with its bytes.
type Entry = fn(&[u8]);

const TARGETS: [(&str, Entry); 7] = [
    ("engine", entry::engine),
    ("irc", entry::irc),
    ("irc_link", entry::irc_link),
    ("log", entry::log),
    ("stream", entry::stream),
    ("teamspeak", entry::teamspeak),
    ("teamtalk", entry::teamtalk),
];

/// Packets of a capture that make a seed: enough for a login, a channel, a message, a voice.
const SEED_PACKETS: usize = 60;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

#[test]
fn every_file_of_every_corpus_is_survived() {
    if std::env::var_os("FLOODWALL_MAKE_CORPORA").is_some() {
        make_corpora();
        make_link_corpora();
        make_log_corpora();
        make_teamspeak_corpora();
    }
    for (target, entry) in TARGETS {
        let mut files = 0;
        for file in std::fs::read_dir(folder(target)).unwrap() {
            entry(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "{target} has a corpus");
    }
}

fn step(header: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(0x0fff)];
    out.extend_from_slice(header);
    out.extend((payload.len() as u16).to_le_bytes());
    out.extend_from_slice(payload);
}

fn make_corpora() {
    for name in ["01_baseline_session", "09_message_flood", "11_udp_masquerade", "15_file_transfer"] {
        let packets: Vec<Recorded> =
            support::capture("teamtalk", name).into_iter().take(SEED_PACKETS).collect();
        write("stream", name, &stream_seed(&packets));
        write("teamtalk", name, &teamtalk_seed(&packets));
        let path = support::corpus().join(format!("teamtalk/{name}.pcap"));
        write("engine", name, &engine_seed(2, &std::fs::read(path).unwrap(), 10_333));
    }
    for name in ["hybrid-normal", "hybrid-oper"] {
        let packets: Vec<Recorded> = support::capture("irc", name).into_iter().take(SEED_PACKETS).collect();
        write("stream", name, &stream_seed(&packets));
        write("irc", name, &teamtalk_seed(&packets));
        let path = support::corpus().join(format!("irc/{name}.pcap"));
        write("engine", name, &engine_seed(0, &std::fs::read(path).unwrap(), 6_667));
    }
}

/// A handshake with its five steps, a session, and guesses over ServerQuery. No recording of our own has TeamSpeak in it.
fn make_teamspeak_corpora() {
    let init = |mac_and_ids: &[u8], step: u8, bytes: usize| {
        let mut payload = [mac_and_ids, &[step]].concat();
        payload.resize(bytes, 7);
        payload
    };
    let from_client = |step, bytes| init(b"TS3INIT1\x00\x65\x00\x00\x88\x06\x3b\xec\xe9", step, bytes);
    let from_server = |step, bytes| init(b"TS3INIT1\x00\x65\x88", step, bytes);
    let mut solution = from_client(4, 314);
    solution.extend(b"clientinitiv alpha=AAAA omega=MEsDAgcAAgEg ot=1 ip=");
    let in_session = |client_id, kind| [7, 7, 7, 7, 7, 7, 7, 7, 0, 9, 0, client_id, kind, 1, 2, 3];
    let mut seed = Vec::new();
    let datagrams = [
        (0, from_client(0, 34)),
        (1, from_server(1, 32)),
        (0, from_client(2, 38)),
        (1, from_server(3, 244)),
        (0, solution),
        (1, vec![1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0x22, 5, 5]),
        (0, in_session(0, 0x22).to_vec()),
        (0, in_session(1, 0x84).to_vec()),
        (0, in_session(1, 0x80).to_vec()),
        (1, from_server(0x7f, 12)),
    ];
    for (from, payload) in &datagrams {
        step(&[2 | from, 1], payload, &mut seed);
    }
    write("teamspeak", "handshake", &seed);
    let mut seed = Vec::new();
    for (from, line) in [
        (1, &b"TS3\n\rWelcome\n\r"[..]),
        (0, b"login client_login_name=serveradmin client_login_password=x\n"),
        (1, b"error id=520 msg=invalid\\sloginname\\sor\\spassword\n\r"),
        (0, b"use sid=1\nclientkick reasonid=5 clid=1|clid=2\n"),
        (1, b"error id=0 msg=ok\n\rerror id=2568 msg=insufficient\\sclient\\spermissions\n\r"),
    ] {
        step(&[from, 1], line, &mut seed);
    }
    write("teamspeak", "query", &seed);
}

/// One link of each make, and the rogue: the greeting chosen by the target, then what followed.
fn make_link_corpora() {
    let makes = [("hybrid-link", 0, 7_700), ("inspircd-link", 4, 7_700), ("hybrid-rogue", 0, 6_667)];
    for (name, greeting, port) in makes {
        let packets = support::capture_at(&format!("irc-links/{name}.pcap"), &[port]);
        for (index, key) in keys(&packets).into_iter().enumerate() {
            let own: Vec<Recorded> = packets.iter().filter(|packet| packet.key == key).cloned().collect();
            let mut seed = vec![greeting];
            seed.extend(teamtalk_seed(&own));
            write("irc_link", &format!("{name}-{index:02}"), &seed);
        }
    }
}

/// The beginnings of logs of two makes; the target's first byte says whose.
fn make_log_corpora() {
    let logs = [
        (0, "teamtalk/01_baseline_session.server.log"),
        (0, "teamtalk/24_log_injection.server.log"),
        (1, "irc/server-hybrid-oper.log"),
        (1, "irc/server-hybrid-user.log"),
        (3, "irc/server-ngircd.log"),
    ];
    for (format, path) in logs {
        let log = std::fs::read(support::corpus().join(path)).unwrap();
        let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').take(SEED_PACKETS).collect();
        let name = path.rsplit('/').next().unwrap();
        write("log", name, &[&[format], lines.concat().as_slice()].concat());
    }
}

fn keys(packets: &[Recorded]) -> Vec<floodwall_engine::stream::FlowKey> {
    let mut keys = Vec::new();
    for packet in packets {
        if !keys.contains(&packet.key) {
            keys.push(packet.key);
        }
    }
    keys
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder(target)).unwrap();
    std::fs::write(folder(target).join(name), bytes).unwrap();
}

fn side_bit(from: Side) -> u8 {
    u8::from(from == Side::Server)
}

/// Sequence numbers relative to each connection's first, near where the target counts from.
fn stream_seed(packets: &[Recorded]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first: Option<(u32, u32)> = None;
    let key = packets[0].key;
    for packet in packets.iter().filter(|packet| packet.key == key) {
        let RecordedBody::Segment { tcp, payload } = &packet.body else { continue };
        let (own, other) = *first.get_or_insert((tcp.sequence, 0));
        let server_start = if packet.from == Side::Server && other == 0 { tcp.sequence } else { other };
        first = Some((own, server_start));
        let (base, acknowledged) =
            if packet.from == Side::Client { (own, server_start) } else { (server_start, own) };
        let near = |number: u32, base: u32| number.wrapping_sub(base).to_le_bytes();
        let [s0, s1, s2, _] = near(tcp.sequence, base);
        let [a0, a1, a2, _] = near(tcp.acknowledgement, acknowledged);
        step(&[side_bit(packet.from), tcp.flags, s0, s1, s2, a0, a1, a2, 0, 1], payload, &mut out);
    }
    out
}

fn teamtalk_seed(packets: &[Recorded]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut keys = Vec::new();
    for packet in packets {
        let ends = (packet.key.client, packet.key.client_port);
        let connection = keys.iter().position(|known| *known == ends).unwrap_or_else(|| {
            keys.push(ends);
            keys.len() - 1
        });
        let control = side_bit(packet.from) | (connection as u8 % 4) << 6;
        match &packet.body {
            RecordedBody::Segment { payload, .. } if payload.is_empty() => {}
            RecordedBody::Segment { payload, .. } => step(&[control, 1], payload, &mut out),
            RecordedBody::Datagram(payload) => step(&[control | 2, 1], payload, &mut out),
        }
    }
    out
}

fn engine_seed(protocol: u8, pcap: &[u8], port: u16) -> Vec<u8> {
    let mut out = vec![protocol];
    for (_, frame) in support::frames(pcap).take(SEED_PACKETS) {
        let from_server = frame.get(34..36) == Some(&port.to_be_bytes());
        step(&[u8::from(from_server), 1], frame, &mut out);
    }
    out
}
