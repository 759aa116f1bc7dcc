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

/// What the lines of a log tell, signal for signal.
fn told(format: Format, lines: &[&str]) -> Vec<String> {
    let mut reader = LogReader::new(format, 0, 1);
    let mut signals = Vec::new();
    for line in lines {
        reader.read_line(line.as_bytes(), &mut signals);
    }
    signals.iter().map(ToString::to_string).collect()
}

#[test]
fn another_programs_line_in_the_same_syslog_is_not_the_servers() {
    let forged = "Nov 21 06:15:13 host sshd[99]: Invalid user  ngircd[1]: Refused connection from 10.77.0.200: too may \
                  connections (5) from this IP address! from 10.77.0.66 port 4000";
    assert_eq!(told(Format::Ngircd, &[forged]), [""; 0]);
    assert_eq!(Format::recognise(forged.as_bytes()), None);
    let own = "Nov 21 06:15:13 host ngircd[1]: Refused connection from 10.77.0.66: too may connections (5) from this IP address!";
    assert_eq!(told(Format::Ngircd, &[own]), ["connection.refused from 10.77.0.66 reason clones"]);
    let appended = own.replace("address!", "address! from 10.77.0.66");
    assert_eq!(told(Format::Ngircd, &[&appended]), [""; 0]);
    // Guesses a month apart are a month apart.
    let at = |line: &str| LogReader::new(Format::Ngircd, 0, 1).read_line(line.as_bytes(), &mut Vec::new()).1;
    assert!(
        at("Feb 21 06:15:13 host ngircd[1]: x").since(at("Jan 21 06:15:13 host ngircd[1]: x")).as_secs()
            > 30 * 86_400
    );
}

#[test]
fn operators_with_a_name_instead_of_an_address_are_known_by_their_connection() {
    let ngircd = [
        "[98:5 1] Accepted connection 7 from \"10.78.0.30:56285\" on socket 6.",
        "[98:5 1] User \"a!~a@host.example\" registered (connection 7).",
        "[98:4 2] Got invalid OPER from \"b!~a@host.example\": \"boss\" -- bad password!",
    ];
    assert!(
        told(Format::Ngircd, &ngircd).last().unwrap().starts_with("login.failed from 10.78.0.30 method oper")
    );
    let inspircd = [
        "Sat Nov 21 2026 06:15:12 CONNECT: Client connecting on port 6667 (class main): a!a@host.example (10.78.0.30) [x]",
        "Sat Nov 21 2026 06:15:13 OPER: WARNING! Failed oper attempt by b!a@host.example using login 'boss': bad",
    ];
    assert!(
        told(Format::Inspircd, &inspircd)
            .last()
            .unwrap()
            .starts_with("login.failed from 10.78.0.30 method oper")
    );
    // Two of one name: nobody.
    let second = inspircd[0].replace("10.78.0.30", "10.78.0.31");
    let several = told(Format::Inspircd, &[inspircd[0], &second, inspircd[1]]);
    assert!(several.iter().all(|told| !told.starts_with("login.failed")), "{several:?}");
}

#[test]
fn a_teamtalk_log_names_nobody_by_a_name_that_two_have_and_believes_no_guest() {
    let line = |text: &str| format!("2026-11-21 06:13:19.743213 {text}");
    let joined = |id: u8, address: &str, names: &str| {
        [
            line(&format!("User #{id} TCP address: {address} connected.")),
            line(&format!("User #{id} {names} IP address: {address} UDP address: :::0 logged in.")),
        ]
    };
    let bob = "nickname: \"Bob\" username: \"guest\"";
    let made = line("Channel #9 \"/x/\" created by nickname: \"Bob\" username: \"guest\".");
    let [one, two] = [joined(1, "10.77.0.200", bob), joined(2, "10.77.0.66", bob)];
    let alone = told(Format::TeamTalk, &[&one[0], &one[1], &made]);
    assert!(alone.last().unwrap().starts_with("channel.created from 10.77.0.200"), "{alone:?}");
    assert!(alone[1].contains("method guest"), "{alone:?}");
    let both = told(Format::TeamTalk, &[&one[0], &one[1], &two[0], &two[1], &made]);
    assert!(both.iter().all(|told| !told.starts_with("channel.created")), "{both:?}");
    let anonymous = joined(3, "10.77.0.67", "nickname: \"x\"");
    assert!(told(Format::TeamTalk, &[&anonymous[0], &anonymous[1]])[1].contains("method guest"));
    let own = joined(4, "10.77.0.68", "nickname: \"x\" username: \"anna\"");
    assert!(told(Format::TeamTalk, &[&own[0], &own[1]])[1].contains("method account"));
}

#[test]
fn a_teamspeak_log_tells_virtual_servers_apart() {
    let line = |server: u8, text: &str| {
        format!("2026-11-21 06:15:12.000000|INFO    |VirtualServerBase|{server}  |{text}")
    };
    let lines = [
        line(1, "client connected 'Eve'(id:5) from 10.77.0.66:1"),
        line(2, "client connected 'Eve'(id:5) from 10.77.0.200:1"),
        line(1, "ban added reason='x' ip='203.0.113.9' bantime=600 by client 'Eve'(id:5)"),
        line(1, "client connected 'Bob'(id:8) from 10.77.0.7:1"),
        line(1, "client connected 'Bob'(id:8) reason 'x'(id:9) from 10.77.0.66:1"),
        line(1, "client disconnected 'Bob'(id:8) reason 'x'(id:9) reason 'reasonmsg=leaving'"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let told = told(Format::TeamSpeak, &lines);
    assert!(told.iter().any(|told| told.starts_with("user.banned from 10.77.0.66")), "{told:?}");
    assert!(told.iter().all(|told| !told.starts_with("connection.closed")), "{told:?}");
}
