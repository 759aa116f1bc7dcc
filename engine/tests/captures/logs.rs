//! The server's log and the wire tell the same: signal for signal and address for address, for every recording that
//! has both.

use std::collections::BTreeMap;

use floodwall_engine::{
    protocol::log::{Format, LogReader, Reading},
    signal::Signal,
};

use crate::support::{captures, corpus, signals};

/// What a TeamTalk server writes down of what can be seen on the wire.
const KINDS: [&str; 17] = [
    "account.changed",
    "channel.created",
    "channel.joined",
    "channel.left",
    "connection.opened",
    "file.transferred",
    "login.ended",
    "login.failed",
    "login.succeeded",
    "message.broadcast",
    "message.channel",
    "message.private",
    "nick.changed",
    "server.changed",
    "user.banned",
    "user.kicked",
    "user.moved",
];

type Counts = BTreeMap<(String, String), usize>;

fn counts(signals: &[Signal]) -> Counts {
    let mut counts = Counts::new();
    for signal in signals {
        *counts.entry((signal.kind.as_str().to_owned(), signal.address.to_string())).or_default() += 1;
    }
    counts
}

/// Signals of a log, and the lines that were not understood.
fn read(format: Format, path: &str) -> (Vec<Signal>, Vec<String>) {
    let log = std::fs::read(corpus().join(path)).unwrap();
    let mut reader = LogReader::new(format, 0, 1);
    let (mut signals, mut unknown) = (Vec::new(), Vec::new());
    for line in log.split(|byte| *byte == b'\n') {
        if reader.read_line(line, &mut signals).0 == Reading::Unknown {
            unknown.push(String::from_utf8_lossy(line).into_owned());
        }
    }
    (signals, unknown)
}

#[test]
fn a_teamtalk_log_tells_what_the_wire_tells() {
    let mut compared = 0;
    for (name, packets) in captures("teamtalk") {
        let (of_log, unknown) = read(Format::TeamTalk, &format!("teamtalk/{name}.server.log"));
        assert_eq!(unknown, Vec::<String>::new(), "{name}");
        let kept = |counts: Counts| -> Counts {
            counts.into_iter().filter(|((kind, _), _)| KINDS.contains(&kind.as_str())).collect()
        };
        let (of_log, of_wire) = (kept(counts(&of_log)), kept(counts(&signals("teamtalk", &packets))));
        assert_eq!(of_log, of_wire, "{name}");
        compared += of_log.values().sum::<usize>();
    }
    assert!(compared > 3_000, "only {compared} signals compared");
}

#[test]
fn nobody_is_named_by_what_others_write() {
    let (of_log, _) = read(Format::TeamTalk, "teamtalk/24_log_injection.server.log");
    assert!(!of_log.is_empty());
    assert!(of_log.iter().all(|signal| signal.address.to_string() == "10.77.0.68"));
}
