//! What must hold over every committed capture: the truth, however it is cut, and no secret anywhere.

use std::collections::BTreeSet;

use crate::support::{
    self, Recorded, RecordedBody, captures, corpus, counts, differences, engine, mangle, signals,
};
use floodwall_engine::{
    Protocol, Side, Span, Timestamp, rule,
    signal::{EvidenceClass, Signal, SignalKind},
};
use proptest::prelude::*;

const FOLDERS: [&str; 2] = ["irc", "teamtalk"];

#[test]
fn any_cutting_doubling_and_bounded_reordering_gives_the_same_signals() {
    for folder in FOLDERS {
        for (name, packets) in captures(folder) {
            let expected = counts(&signals(folder, &packets));
            for seed in 1..=4 {
                let found = counts(&signals(folder, &mangle(&packets, seed)));
                assert_eq!(differences(&found, &expected), Vec::<String>::new(), "{name}, seed {seed}");
            }
        }
    }
}

/// Values of `password="…"` and the like in a line of TeamTalk.
fn teamtalk_secrets(line: &str, found: &mut BTreeSet<String>) {
    for name in ["password", "oppassword", "filetxkey", "accesstoken", "cryptkey", "serverpassword"] {
        for (at, _) in line.match_indices(name) {
            let rest = &line[at + name.len()..];
            let Some(rest) = rest.trim_start().strip_prefix('=') else { continue };
            let rest = rest.trim_start();
            let value = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => rest.split_ascii_whitespace().next(),
            };
            found.extend(value.map(str::to_owned));
        }
    }
}

/// Words that follow PASS, OPER's name, AUTHENTICATE and JOIN's channels.
fn irc_secrets(line: &str, found: &mut BTreeSet<String>) {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let words = if words.first().is_some_and(|word| word.starts_with(':')) { &words[1..] } else { &words };
    let secret = match words {
        ["PASS", secret, ..] | ["OPER", _, secret, ..] | ["JOIN", _, secret, ..] => *secret,
        ["AUTHENTICATE", secret, ..] if *secret != "PLAIN" && *secret != "EXTERNAL" => *secret,
        _ => return,
    };
    found.insert(secret.trim_start_matches(':').to_owned());
}

fn secrets(folder: &str, packets: &[Recorded]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for packet in packets {
        let RecordedBody::Segment { payload, .. } = &packet.body else { continue };
        for line in String::from_utf8_lossy(payload).lines() {
            match folder {
                "teamtalk" => teamtalk_secrets(line, &mut found),
                _ if packet.from == Side::Client => irc_secrets(line, &mut found),
                _ => {}
            }
        }
    }
    // Guests have none, and what everybody says anyway is no secret.
    found.retain(|secret| secret.len() >= 3);
    found
}

/// Everything that leaves the engine, in every form it can be written in.
fn outputs(folder: &str, packets: &[Recorded]) -> String {
    let file = format!("{}/../rules/{folder}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap();
    let rules = rule::file::parse(&file, &text).unwrap();
    let mut engine = support::engine_with(folder, rules.rules);
    engine.watch_signals();
    let mut written = String::new();
    for packet in packets {
        engine.handle_packet(&packet.packet());
        write_all(&mut engine, &mut written);
    }
    written.push_str(&format!("{:?}", engine.streams()));
    engine.finish();
    write_all(&mut engine, &mut written);
    written.push_str(&format!("{engine:?}"));
    written
}

fn write_all(engine: &mut floodwall_engine::Engine, written: &mut String) {
    for signal in engine.take_signals() {
        written.push_str(&format!("{signal} {signal:?}\n"));
    }
    while let Some(command) = engine.next_command() {
        written.push_str(&format!("{command:?}\n"));
    }
}

/// Guests' passwords are names too, which may be written: as passwords they get another word.
fn disguise(packets: &mut [Recorded]) {
    const NAME: &[u8] = b"password=\"guest\"";
    for packet in packets {
        let RecordedBody::Segment { payload, .. } = &mut packet.body else { continue };
        while let Some(at) = payload.windows(NAME.len()).position(|window| window == NAME) {
            payload[at..at + NAME.len()].copy_from_slice(b"password=\"Zq7xW\"");
        }
    }
}

#[test]
fn no_password_or_key_of_any_capture_is_in_any_output() {
    let mut looked_for = 0;
    for folder in FOLDERS {
        for (name, mut packets) in captures(folder) {
            disguise(&mut packets);
            let written = outputs(folder, &packets);
            for secret in secrets(folder, &packets) {
                looked_for += 1;
                assert!(!written.contains(&secret), "{name}: {secret:?} is in an output");
            }
        }
    }
    assert!(looked_for > 300, "only {looked_for} secrets found");
}

/// A line of the server's log with numbers, addresses and quoted strings taken out, so that nothing a client chose
/// can look like something the server says.
fn shape(line: &str) -> Option<String> {
    let text = line.get(27..)?;
    let mut shape = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let mut escaped = false;
                for inner in characters.by_ref() {
                    if inner == '"' && !escaped {
                        break;
                    }
                    escaped = inner == '\\' && !escaped;
                }
                shape.push('Q');
            }
            _ => shape.push(character),
        }
    }
    Some(shape)
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Truth {
    connected: usize,
    failed: usize,
    logged_in: usize,
    denied: usize,
    joined: usize,
    left: usize,
    kicks: usize,
    bans: usize,
    moves: usize,
    private: usize,
    channel: usize,
    broadcast: usize,
    ended: usize,
    transfers: usize,
    channels_made: usize,
}

/// `teamtalk.md` e: what the server wrote down.
fn truth_of_log(name: &str) -> Truth {
    let path = corpus().join("teamtalk").join(format!("{name}.server.log"));
    let log = std::fs::read_to_string(path).unwrap();
    let mut truth = Truth::default();
    for shape in log.lines().filter_map(shape) {
        let ends = |end: &str| shape.ends_with(end);
        let user = shape.starts_with("User #");
        let add = |count: &mut usize, holds: bool| *count += usize::from(holds);
        add(&mut truth.connected, user && ends(" connected.") && shape.contains(" TCP address: "));
        add(&mut truth.failed, user && shape.contains(" failed to authenticate for account Q "));
        add(&mut truth.logged_in, user && ends(" logged in."));
        add(&mut truth.denied, user && ends(" denied login due to banned IP-address."));
        add(&mut truth.joined, user && ends(" joined channel: Q."));
        add(&mut truth.left, user && ends(" left channel: Q."));
        // Without "by" it is the server itself, for a channel that is removed: nobody's command.
        add(&mut truth.kicks, user && shape.contains(" kicked by #"));
        // Without a username it is the server itself that bans, in the failing connection's name.
        let bans = user && shape.contains(" banned ") && ends(" from server.");
        add(&mut truth.bans, bans && shape.contains(" nickname: Q username: Q banned "));
        add(&mut truth.moves, user && shape.contains(" moved user #"));
        add(&mut truth.private, shape.starts_with("User message from #"));
        add(&mut truth.channel, shape.starts_with("Channel message from #"));
        add(&mut truth.broadcast, shape.starts_with("Broadcast message from #"));
        add(&mut truth.ended, user && ends(" logged out."));
        let transfer = ends(" to channel: Q.") || ends(" from channel: Q.");
        let loaded = shape.contains(" uploaded file: Q ") || shape.contains(" downloaded file: Q ");
        add(&mut truth.transfers, user && transfer && loaded);
        add(&mut truth.channels_made, shape.starts_with("Channel #") && shape.contains(" Q created by "));
    }
    truth
}

fn truth_of_signals(signals: &[Signal]) -> Truth {
    let count = |kind: &str| signals.iter().filter(|signal| signal.kind.as_str() == kind).count();
    let numbered = |kind: &str, number: u32| {
        let fits = |signal: &&Signal| signal.kind.as_str() == kind && signal.detail.number == Some(number);
        signals.iter().filter(fits).count()
    };
    Truth {
        connected: count("connection.opened"),
        failed: count("login.failed"),
        logged_in: count("login.succeeded"),
        denied: numbered("login.refused", 2005),
        joined: count("channel.joined"),
        left: count("channel.left"),
        kicks: count("user.kicked"),
        bans: count("user.banned"),
        moves: count("user.moved"),
        private: count("message.private"),
        channel: count("message.channel"),
        broadcast: count("message.broadcast"),
        ended: count("login.ended"),
        transfers: count("file.transferred"),
        channels_made: count("channel.created"),
    }
}

#[test]
fn signals_equal_the_servers_log_exactly() {
    for (name, packets) in captures("teamtalk") {
        let found = signals("teamtalk", &packets);
        assert_eq!(truth_of_signals(&found), truth_of_log(&name), "{name}");
        let garbage = ["client.stalled", "version.mismatch", "stream.gap", "stream.conflict"];
        let odd = found.iter().find(|signal| garbage.contains(&signal.kind.as_str()));
        assert!(odd.is_none(), "{name}: {odd:?}");
    }
}

/// What the server refuses without a word in its log (`teamtalk.md` a.9): 2014 in capture 09, a wrong channel
/// password in 01.
#[test]
fn refusals_that_the_log_does_not_have_are_seen() {
    let refused = |name: &str, kind: &str, number: u32| {
        let packets = support::capture("teamtalk", name);
        let found = signals("teamtalk", &packets);
        let fits = |signal: &&Signal| signal.kind.as_str() == kind && signal.detail.number == Some(number);
        found.iter().filter(fits).count()
    };
    assert_eq!(refused("01_baseline_session", "channel.refused", 2001), 1);
    assert!(refused("09_message_flood", "command.rejected", 2014) > 0);
}

#[test]
fn masquerade_raises_a_signal_of_its_own_for_each_trick() {
    let packets = support::capture("teamtalk", "11_udp_masquerade");
    let found = counts(&signals("teamtalk", &packets));
    let of = |kind, address: &str| found.get(&(kind, address.to_owned())).copied().unwrap_or_default();
    assert_eq!(of("datagram.prebound", "10.77.0.99"), 2, "case 1 and case 5");
    assert!(of("datagram.scan", "10.77.0.99") >= 1, "case 5");
    assert!(of("datagram.foreign", "10.77.0.99") >= 1, "case 2");
    // The four "updated" lines of the server's log.
    assert_eq!(of("datagram.rebound", "10.77.0.43"), 2, "case 3, there and back");
    assert_eq!(of("datagram.rebound", "10.77.0.42"), 2, "case 4, there and back");
}

/// Benign captures raise none of the signals that name an attack.
#[test]
fn people_who_talk_raise_no_alarm() {
    let packets = support::capture("teamtalk", "16_benign_busy");
    let found = signals("teamtalk", &packets);
    let alarms = [
        "datagram.prebound",
        "datagram.scan",
        "datagram.kept-alive",
        "datagram.foreign",
        "datagram.absent",
        "datagram.stranger",
        "connection.held",
        "protocol.garbage",
    ];
    let alarm = found.iter().find(|signal| alarms.contains(&signal.kind.as_str()));
    assert!(alarm.is_none(), "{alarm:?}");
    let moved = found.iter().filter(|signal| signal.kind.as_str() == "datagram.rebound").count();
    assert_eq!(moved, 1, "one client changed its UDP port (truth.json)");
}

/// A capture that begins anywhere: nobody is called a stranger for having been there before.
#[test]
fn a_capture_begun_midway_accuses_nobody() {
    let packets = support::capture("teamtalk", "16_benign_busy");
    let opening =
        |packet: &Recorded| !packet.is_movable() && matches!(packet.body, RecordedBody::Segment { .. });
    for start in (0..packets.len()).step_by(packets.len() / 7) {
        let rest = &packets[start..];
        let found = signals("teamtalk", rest);
        let accused = ["protocol.garbage", "datagram.prebound", "datagram.foreign", "client.stalled"];
        let alarm = found.iter().find(|signal| accused.contains(&signal.kind.as_str()));
        assert!(alarm.is_none(), "from {start}: {alarm:?}");
        assert!(rest.iter().any(opening));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes on any service: no panic, no bound broken.
    #[test]
    fn any_bytes_keep_the_bounds(
        protocol in 0usize..3,
        pieces in prop::collection::vec(
            (any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..400), 0u64..9_000),
            1..60,
        ),
    ) {
        let mut engine = support::engine_of(Protocol::ALL[protocol], Vec::new());
        let mut now = Timestamp::from_secs(1_000_000);
        let mut sent = [0u32; 2];
        let key = support::capture_key();
        for (is_client, is_datagram, bytes, pause) in pieces {
            now = now + Span::from_millis(pause);
            let (own, other) = if is_client { (0, 1) } else { (1, 0) };
            let from = if is_client { Side::Client } else { Side::Server };
            let recorded = if is_datagram {
                Recorded { at: now, from, key, body: RecordedBody::Datagram(bytes) }
            } else {
                let recorded = support::segment(now, from, key, sent[own], sent[other], &bytes);
                sent[own] = sent[own].wrapping_add(bytes.len() as u32);
                recorded
            };
            engine.handle_packet(&recorded.packet());
            prop_assert!(engine.streams().buffered_bytes() <= floodwall_engine::limits::FLOW_BYTES_MAX);
            prop_assert!(engine.streams().len() <= 1);
        }
        engine.finish();
    }
}

#[test]
fn the_engine_itself_names_no_secret() {
    let mut engine = engine("teamtalk");
    let key = support::capture_key();
    let at = Timestamp::from_secs(1_000_000);
    let line = b"login username=\"x\" password=\"geheim-geheim";
    engine.handle_packet(&support::segment(at, Side::Client, key, 0, 0, line).packet());
    engine.handle_packet(&support::segment(at, Side::Server, key, 0, line.len() as u32, b"").packet());
    assert!(!format!("{engine:?}").contains("geheim"));
}

#[test]
fn every_signal_is_documented_with_its_class() {
    let docs = std::fs::read_to_string(corpus().join("../../docs/signals.md")).unwrap();
    for kind in SignalKind::ALL {
        let start = format!("| `{}` |", kind.as_str());
        let row = docs.lines().find(|line| line.starts_with(&start));
        let class = match kind.evidence() {
            EvidenceClass::Acknowledged => " A ",
            EvidenceClass::Spoofable => " F ",
        };
        let said = row.and_then(|row| row.split('|').nth(4));
        assert_eq!(said, Some(class), "{}", kind.as_str());
    }
}
