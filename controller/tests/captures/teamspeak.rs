//! TeamSpeak's voice port and ServerQuery, made by hand from the protocol's description: no real server can be had.
//! One honest talker among twenty sources, each of which does one thing that no client does.

use crate::{conversation::Wire, records};

const TALKER: &str = "10.77.0.21";

/// A recorded `clientinitiv` with its tag, as a client sends it right behind step 0: `alpha=AAAA omega=MEsDAgcAAgEg`.
const FIRST_COMMAND: &[u8] = b"\
    \x0b\x84\xb9\x04\x83\xd7\x81\xd9\x00\x00\x00\x00\x22\x9d\x74\x8b\x45\xaa\x7b\xef\xb9\x9e\xfe\xad\
    \x08\x19\xba\xcf\x41\xe0\x16\xa2\x1b\x7d\xf3\xe1\x84\xd1\x09\x6e\xd7\xd9\xd8\x37\x32\x7b\xe9\xe9\
    \x64\x32\x2c\xb3\x2b\x38\x2b\xdf\x64\xc3\x18\x81\x90\x65\xf4\x02";

/// A server with one talker.
struct TeamSpeak {
    wire: Wire,
    given: u8,
}

fn from_client(step: u8, body: &[u8]) -> Vec<u8> {
    let mut payload = b"TS3INIT1\x00\x65\x00\x00\x88\x06\x3b\xec\xe9".to_vec();
    payload.push(step);
    payload.extend(body);
    payload
}

fn from_server(step: u8, body: &[u8]) -> Vec<u8> {
    let mut payload = b"TS3INIT1\x00\x65\x88".to_vec();
    payload.push(step);
    payload.extend(body);
    payload
}

/// A packet in a session.
fn packet(mac: u8, client_id: u8, kind: u8, body_bytes: usize) -> Vec<u8> {
    let mut payload = vec![mac; 8];
    payload.extend([0, 9, 0, client_id, kind]);
    payload.resize(13 + body_bytes, 0x5a);
    payload
}

/// The same of the server.
fn reply(mac: u8, kind: u8, body_bytes: usize) -> Vec<u8> {
    let mut payload = vec![mac; 8];
    payload.extend([0, 9, kind]);
    payload.resize(11 + body_bytes, 0x5a);
    payload
}

impl TeamSpeak {
    /// The gate has learnt, the talker has spoken all the time.
    fn new() -> Self {
        let mut server = Self { wire: Wire::new(9_987), given: 0 };
        server.log_in(TALKER, 7);
        for _ in 0..70 {
            server.wire.wait_millis(1_000);
            server.breathe();
        }
        server
    }

    /// The talker's second: pings both ways and ten packets of voice.
    fn breathe(&mut self) {
        self.wire.datagram(TALKER, &packet(7, 1, 0x84, 0));
        self.wire.answer_datagram(TALKER, &reply(7, 0x85, 2));
        self.wire.answer_datagram(TALKER, &reply(7, 0x84, 0));
        self.wire.datagram(TALKER, &packet(7, 1, 0x85, 2));
        for _ in 0..10 {
            self.wire.datagram(TALKER, &packet(7, 1, 0x80, 120));
        }
    }

    /// Steps 0 to 3; the puzzle that was given.
    fn get_puzzle(&mut self, client: &str) -> [u8; 232] {
        self.given = self.given.wrapping_add(1);
        self.wire.datagram(client, &from_client(0, &[&[0x5b, 1, 2, 3, 9, 9, 9, 9][..], &[0; 8]].concat()));
        self.wire.answer_datagram(client, &from_server(1, &[self.given; 20]));
        self.wire.datagram(client, &from_client(2, &[self.given; 20]));
        let mut puzzle = [self.given; 232];
        puzzle[127] = 0xd1;
        self.wire.answer_datagram(client, &from_server(3, &puzzle));
        puzzle
    }

    fn solve(&mut self, client: &str, puzzle: &[u8; 232], solution: u8) {
        let text = format!("clientinitiv alpha=AAAA omega=MEsDAgcAAgEg{solution} ot=1 ip=");
        let body = [&puzzle[..], &[solution; 64], text.as_bytes()].concat();
        self.wire.datagram(client, &from_client(4, &body));
    }

    fn log_in(&mut self, client: &str, mac: u8) {
        let puzzle = self.get_puzzle(client);
        self.solve(client, &puzzle, mac);
        self.wire.answer_datagram(client, &reply(1, 0x32, 480));
        self.wire.datagram(client, &packet(2, 0, 0x06, 2));
        self.wire.answer_datagram(client, &reply(3, 0x22, 200));
        self.wire.datagram(client, &packet(4, 1, 0x22, 60));
        self.wire.answer_datagram(client, &reply(mac, 0x84, 0));
    }
}

#[test]
fn twenty_sources_are_judged_and_the_talker_is_untouched() {
    let mut server = TeamSpeak::new();
    let attackers = |from: u8, to: u8| (from..=to).map(|last| format!("10.78.2.{last}"));
    for round in 0..40_u8 {
        server.breathe();
        // Asks and asks.
        for address in attackers(1, 3) {
            for _ in 0..20 {
                server.wire.datagram(&address, &from_client(0, &[&[0; 8][..], &[0; 8]].concat()));
            }
        }
        // One recorded command from five addresses.
        for address in attackers(4, 8) {
            server.wire.datagram(&address, FIRST_COMMAND);
        }
        // Brings the cookie back, and junk for a solution.
        for address in attackers(9, 10) {
            let puzzle = server.get_puzzle(&address);
            server.solve(&address, &puzzle, round + 1);
            server.wire.answer_datagram(&address, &from_server(0x7f, &[]));
        }
        // A recorded handshake: cookies and puzzles of another day.
        for address in attackers(11, 12) {
            server.wire.datagram(&address, &from_client(2, &[0xee; 20]));
            let mut puzzle = [0xee; 232];
            puzzle[127] = 0xd1;
            server.solve(&address, &puzzle, 3);
        }
        // Speaks without a session.
        for address in attackers(13, 14) {
            for _ in 0..5 {
                server.wire.datagram(&address, &packet(9, 3, 0x80, 120));
            }
        }
        // Types and flags that do not exist.
        for address in attackers(15, 16) {
            server.wire.datagram(&address, &packet(9, 3, 0x0b + (round & 3), 40));
            server.wire.datagram(&address, &packet(9, 3, 0x10, 40));
        }
        // Commands in a session that nobody gave it.
        server.wire.datagram("10.78.2.17", &packet(9, 3, 0x22, 40));
        server.wire.datagram("10.78.2.17", &packet(9, 3, 0x22, 40));
        server.wire.wait_millis(700);
    }
    // Guesses ServerQuery's password, a new connection each, and on one connection.
    let mut one = server.query("10.78.2.19");
    for _ in 0..20 {
        let mut connection = server.query("10.78.2.18");
        server.guess(&mut connection);
        server.wire.close(connection);
        server.guess(&mut one);
        server.breathe();
        server.wire.wait_millis(1_000);
    }
    let outcomes = server.wire.outcomes();
    assert_eq!(outcomes[TALKER], "clean", "{outcomes:#?}");
    for address in attackers(1, 19) {
        // Whoever recorded the command first is not the one who plays it again.
        let expected: &[&str] =
            if address == "10.78.2.4" { &["clean"] } else { &["limited", "dropped", "banned"] };
        assert!(expected.contains(&outcomes[&address].as_str()), "{address}: {outcomes:#?}");
    }
}

/// From another port of the talker's address: what anybody can write in their name costs them nothing.
#[test]
fn datagrams_forged_in_a_talkers_name_cost_nothing() {
    let mut server = TeamSpeak::new();
    for _ in 0..40 {
        server.wire.datagram_from(TALKER, 5_000, &packet(9, 3, 0x80, 120));
        server.wire.datagram_from(TALKER, 5_000, &packet(9, 3, 0x0b, 40));
        let mut broken = FIRST_COMMAND.to_vec();
        broken[30] ^= 1;
        server.wire.datagram_from(TALKER, 5_000, &broken);
    }
    for _ in 0..20 {
        server.wire.wait_millis(1_000);
        server.breathe();
    }
    let report = server.wire.report();
    assert!(report.rules(TALKER).is_empty(), "{report:?}");
}

#[test]
fn one_puzzle_is_not_solved_a_hundred_times() {
    let mut server = TeamSpeak::new();
    let puzzle = server.get_puzzle("10.78.2.9");
    for round in 1..=100 {
        server.solve("10.78.2.9", &puzzle, round);
        server.wire.wait_millis(100);
    }
    assert_eq!(server.wire.report().rules("10.78.2.9"), ["teamspeak/junk-solutions"]);
}

/// Who speaks before the server has been heard for long enough is judged once it has.
#[test]
fn a_stranger_at_the_very_beginning_is_one() {
    let mut server = TeamSpeak { wire: Wire::new(9_987), given: 0 };
    server.log_in(TALKER, 7);
    for _ in 0..50 {
        server.wire.datagram("10.78.2.13", &packet(9, 3, 0x80, 120));
        server.wire.wait_millis(20);
    }
    for _ in 0..10 {
        server.wire.wait_millis(1_000);
        server.breathe();
    }
    let report = server.wire.report();
    assert_eq!(report.rules("10.78.2.13"), ["teamspeak/datagram-stranger"]);
    assert_eq!(report.outcome(TALKER), "clean");
}

/// A session older than the watch is spoken to by the server.
#[test]
fn a_talker_older_than_the_watch_is_no_stranger() {
    let mut server = TeamSpeak { wire: Wire::new(9_987), given: 0 };
    for _ in 0..200 {
        server.wire.datagram(TALKER, &packet(7, 1, 0x80, 120));
        server.wire.wait_millis(4);
    }
    for _ in 0..10 {
        server.breathe();
        server.wire.wait_millis(1_000);
    }
    assert_eq!(server.wire.report().outcome(TALKER), "clean");
}

/// It speaks into its old session from the new network, until its client has noticed.
#[test]
fn a_telephone_that_changes_networks_is_not_limited() {
    let mut server = TeamSpeak::new();
    server.log_in("10.78.2.13", 9);
    for _ in 0..20 {
        server.wire.wait_millis(1_000);
        server.breathe();
        server.wire.datagram("10.78.2.13", &packet(9, 1, 0x80, 120));
        server.wire.answer_datagram("10.78.2.13", &reply(9, 0x84, 0));
    }
    for second in 0..60 {
        server.wire.wait_millis(1_000);
        server.breathe();
        if second < 20 {
            for _ in 0..10 {
                server.wire.datagram("10.78.3.13", &packet(9, 1, 0x80, 120));
            }
        } else if second == 22 {
            server.log_in("10.78.3.13", 10);
        } else if second > 22 {
            server.wire.datagram("10.78.3.13", &packet(10, 1, 0x80, 120));
            server.wire.answer_datagram("10.78.3.13", &reply(10, 0x84, 0));
        }
    }
    assert_eq!(server.wire.report().rules("10.78.3.13"), [""; 0]);
}

/// Two from each of nine addresses.
#[test]
fn a_recorded_handshake_played_thinly_from_many_addresses_is_noticed() {
    let mut server = TeamSpeak::new();
    for round in 0..2 {
        for last in 1..=9 {
            server.wire.datagram(&format!("10.78.4.{last}"), FIRST_COMMAND);
            server.wire.wait_millis(1_000);
            server.breathe();
        }
        server.wire.wait_millis(round * 20_000);
        server.breathe();
    }
    let report = server.wire.report();
    for last in 2..=9 {
        let rules = report.rules(&format!("10.78.4.{last}"));
        assert_eq!(rules, ["teamspeak/handshakes-from-everywhere"], "{last}");
    }
}

/// A session that the server has left is none, however long the client goes on.
#[test]
fn who_goes_on_alone_has_no_session() {
    let mut server = TeamSpeak::new();
    server.log_in("10.78.2.13", 9);
    for _ in 0..80 {
        server.wire.wait_millis(1_000);
        server.breathe();
        for _ in 0..10 {
            server.wire.datagram("10.78.2.13", &packet(9, 1, 0x80, 120));
        }
    }
    assert_ne!(server.wire.report().outcome("10.78.2.13"), "clean");
}

/// The client is a real one, the PyPI library `ts3`; the server is a stand-in (`tests/record/teamspeak.py`).
#[test]
fn a_real_query_client_is_read_as_its_driver_wrote_down() {
    let report = records::report_of(&records::read("teamspeak/query"));
    let truth = std::fs::read(records::corpus("teamspeak/query").with_extension("truth.json")).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&truth).unwrap();
    for (kind, count) in truth["signals"].as_object().unwrap() {
        assert_eq!(&report["signals"][kind], count, "{kind}");
    }
}

#[test]
fn signals_of_the_voice_port_are_what_happened() {
    let mut server = TeamSpeak::new();
    for round in 0..6 {
        let puzzle = server.get_puzzle("10.78.2.9");
        server.solve("10.78.2.9", &puzzle, round + 1);
        if round < 4 {
            server.wire.answer_datagram("10.78.2.9", &from_server(0x7f, &[]));
        } else {
            server.wire.wait_millis(6_000);
            server.breathe();
        }
    }
    // Speaks in the talker's name, from the talker's address and port.
    server.wire.datagram(TALKER, &packet(66, 1, 0x80, 120));
    server.wire.wait_millis(40_000);
    server.log_in("10.78.2.20", 8);
    let report = server.wire.json();
    let signals = report["signals"].as_object().unwrap();
    let count = |kind: &str| signals.get(kind).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let counted = [
        "handshake.begun",
        "handshake.solved",
        "handshake.failed",
        "handshake.forged",
        "handshake.replayed",
        "datagram.foreign",
        "datagram.stranger",
        "login.succeeded",
        "login.ended",
    ]
    .map(|kind| (kind, count(kind)));
    let expected = [
        ("handshake.begun", 8),
        ("handshake.solved", 8),
        ("handshake.failed", 6),
        ("handshake.forged", 0),
        ("handshake.replayed", 0),
        ("datagram.foreign", 1),
        ("datagram.stranger", 0),
        ("login.succeeded", 2),
        ("login.ended", 1),
    ];
    assert_eq!(counted, expected, "{report:#}");
}

impl TeamSpeak {
    fn query(&mut self, client: &str) -> crate::conversation::Connection {
        let mut connection = self.wire.connect_to(client, 10_011);
        self.wire.answer(
            &mut connection,
            b"TS3\n\rWelcome to the TeamSpeak 3 ServerQuery interface, type \"help\" for a list of commands.\n\r",
        );
        connection
    }

    fn guess(&mut self, connection: &mut crate::conversation::Connection) {
        self.wire.ask(connection, b"login client_login_name=serveradmin client_login_password=guess\n");
        self.wire.answer(connection, b"error id=520 msg=invalid\\sloginname\\sor\\spassword\n\r");
    }
}
