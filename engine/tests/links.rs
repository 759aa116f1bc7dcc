//! Server links as recorded: each rogue line its own signal, each real split, collision and rejoin, and nothing
//! else. What is expected comes from the recorders' notes (`tests/corpus/irc-links/*.truth.json`, the steps files).

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::collections::BTreeMap;

use floodwall_engine::{
    protocol::irc::link::{Dialect, Peer},
    signal::Signal,
    text::Text,
};
use floodwall_wire::Address;
use support::{Recorded, capture_at};

/// Signals of links that say what happened; all others say that something was wrong.
const NEWS: [&str; 8] = [
    "link.closed",
    "link.collision",
    "link.established",
    "link.opened",
    "link.ops-lost",
    "link.rejoined",
    "link.split",
    "link.stranger",
];

fn play(links: Vec<Peer>, packets: &[Recorded]) -> Vec<Signal> {
    let mut engine = support::engine_with_links(links);
    for packet in packets {
        engine.handle_packet(&packet.packet());
    }
    engine.finish();
    engine.take_signals()
}

fn is_violation(signal: &Signal) -> bool {
    let kind = signal.kind.as_str();
    kind.starts_with("link.") && !NEWS.contains(&kind)
}

fn of<'a>(signals: &'a [Signal], kind: &str) -> Vec<&'a Signal> {
    signals.iter().filter(|signal| signal.kind.as_str() == kind).collect()
}

fn truth(name: &str) -> serde_json::Value {
    let path = support::corpus().join(format!("irc-links/{name}.truth.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Kind and reason.
type Found = (String, Option<String>);

fn found(signal: &Signal) -> Found {
    (signal.kind.as_str().to_owned(), signal.detail.reason.map(str::to_owned))
}

#[test]
fn each_rogue_line_yields_exactly_its_own_signal() {
    let truth = truth("hybrid-rogue");
    let packets = capture_at("irc-links/hybrid-rogue.pcap", &[6_667]);
    // What happens on a connection is told by its port.
    let mut mistakes = Vec::new();
    for act in truth["acts"].as_array().unwrap() {
        let port = act["port"].as_u64().unwrap();
        let own: Vec<Recorded> =
            packets.iter().filter(|packet| u64::from(packet.key.client_port) == port).cloned().collect();
        let signals = play(Vec::new(), &own);
        let wrong: Vec<Found> = signals
            .iter()
            .filter(|signal| is_violation(signal) || signal.kind.as_str() == "login.failed")
            .map(found)
            .collect();
        let expected: Vec<Found> = act["signals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|signal| {
                let reason = signal["reason"].as_str().map(str::to_owned);
                (signal["kind"].as_str().unwrap().to_owned(), reason)
            })
            .collect();
        if wrong != expected {
            mistakes.push(format!("{}: {wrong:?} instead of {expected:?}", act["name"]));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}
