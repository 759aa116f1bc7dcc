//! Whole stories in virtual time: TeamTalk and IRC conversations packet by packet, and every command that comes
//! of them.

use std::collections::{BTreeMap, BTreeSet};

use floodwall_engine::{
    Command, Configuration, Engine, Packet, Protocol, Service, Side, Span, Timestamp,
    baseline::{HOURS, INTERVAL, Learnt, Slot},
    command::Front,
    packet::Body,
    rule::{Level, Rule, file},
    signal::SignalKind,
};
use floodwall_wire::{
    Address, Class, Reason,
    frame::{
        TcpHeader,
        tcp_flags::{ACK, FIN, SYN},
    },
    tables::Standing,
};

const SERVER: Address = Address::from_v4(0x0a00_0001);
const SHIPPED: &str = include_str!("../../rules/teamtalk.toml");

struct World {
    engine: Engine,
    now: Timestamp,
    next_port: u16,
    next_user: u16,
}

struct Connection {
    client: Address,
    port: u16,
    client_sent: u32,
    server_sent: u32,
    user_id: u16,
}

fn rules_of(source: &str) -> Vec<Rule> {
    file::parse("test.toml", source).expect("good rules").rules
}

impl World {
    fn new(rules: &str) -> Self {
        let service = Service {
            gateways: Vec::new(),
            protocol: Protocol::TeamTalk,
            query_ports: Vec::new(),
            rules: rules_of(rules),
            links: Vec::new(),
        };
        let configuration = Configuration { services: vec![service], seed: 7 };
        let now = Timestamp::from_secs(1_800_000_000);
        Self { engine: Engine::new(configuration), now, next_port: 20_000, next_user: 1 }
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + Span::from_millis(millis);
        self.engine.handle_timeout(self.now);
    }

    fn segment(&mut self, connection: &Connection, from: Side, flags: u8, payload: &[u8]) {
        self.now = self.now + Span::from_millis(1);
        let (sequence, acknowledgement) = match from {
            Side::Client => (connection.client_sent, connection.server_sent),
            Side::Server => (connection.server_sent, connection.client_sent),
        };
        let tcp = TcpHeader {
            sequence,
            acknowledgement,
            flags,
            payload_offset: 54,
            payload_bytes: payload.len() as u32,
        };
        self.engine.handle_packet(&Packet {
            at: self.now,
            service: 0,
            from,
            client: connection.client,
            client_port: connection.port,
            server: SERVER,
            server_port: 10_333,
            class: Class::TcpPayload,
            reason: Reason::Admitted,
            standing: Standing::Proven,
            body: Body::Segment { tcp, payload, whole: &[] },
        });
    }

    /// A stranger's SYN, or datagram.
    fn knock(&mut self, client: Address, class: Class) {
        self.engine.handle_dropped(&Packet {
            at: self.now,
            service: 0,
            from: Side::Client,
            client,
            client_port: 40_000,
            server: SERVER,
            server_port: 10_333,
            class,
            reason: Reason::LimitService,
            standing: Standing::Stranger,
            body: Body::Other,
        });
    }

    /// That nobody usually comes has been learnt, for every hour of the week.
    fn learn_quiet_weeks(&mut self) {
        for (hour, front) in (0..HOURS).flat_map(|hour| Front::ALL.map(|front| (hour, front))) {
            let slot = Slot { weeks: vec![0; 3], usual: 0, week: 2_970 };
            self.engine.restore_baseline(Learnt { service: 0, front, hour, slot });
        }
        self.wait(0);
        self.wait(INTERVAL.as_secs() * 1_000);
    }

    fn connect(&mut self, client: Address) -> Connection {
        self.next_port += 1;
        self.next_user += 1;
        let (port, user_id) = (self.next_port, self.next_user);
        let mut connection = Connection { client, port, client_sent: 100, server_sent: 900, user_id };
        self.segment(&connection, Side::Client, SYN, b"");
        connection.client_sent += 1;
        self.segment(&connection, Side::Server, SYN | ACK, b"");
        connection.server_sent += 1;
        self.segment(&connection, Side::Client, ACK, b"");
        self.say(&mut connection, Side::Server, &format!("teamtalk userid={user_id} protocol=\"5.14\""));
        connection
    }

    fn say(&mut self, connection: &mut Connection, from: Side, line: &str) {
        let line = format!("{line}\r\n");
        self.segment(connection, from, ACK, line.as_bytes());
        match from {
            Side::Client => connection.client_sent += line.len() as u32,
            Side::Server => connection.server_sent += line.len() as u32,
        }
    }

    /// Voice with somebody's user id, which the gate drops unless it comes from where they are.
    fn speak(&mut self, from: Address, user_id: u16, reason: Reason) {
        let [low, high] = user_id.to_le_bytes();
        let payload = [3, low, high | 0x10, 0, 0, 0, 0, 0, 1, 0x10, 0];
        self.wait(40);
        self.engine.handle_packet(&Packet {
            at: self.now,
            service: 0,
            from: Side::Client,
            client: from,
            client_port: 40_000,
            server: SERVER,
            server_port: 10_333,
            class: Class::UdpVoice,
            reason,
            standing: Standing::Stranger,
            body: Body::Datagram { payload: &payload, bytes: payload.len() as u32 },
        });
    }

    /// Faster than anybody types, but not by much.
    fn fail(&mut self, connection: &mut Connection, account: &str) {
        self.fail_at_once(connection, account);
        self.wait(400);
    }

    fn fail_at_once(&mut self, connection: &mut Connection, account: &str) {
        self.say(
            connection,
            Side::Client,
            &format!("login username=\"{account}\" password=\"secret-guess\""),
        );
        self.say(connection, Side::Server, "error number=2002 message=\"Invalid user account\"");
    }

    fn log_in(&mut self, connection: &mut Connection, account: &str) {
        let user_id = connection.user_id;
        self.say(
            connection,
            Side::Client,
            &format!("login username=\"{account}\" password=\"secret-right\""),
        );
        let accepted = format!(
            "accepted userid={user_id} nickname=\"{account}\" username=\"{account}\" password=\"secret-right\""
        );
        self.say(connection, Side::Server, &accepted);
        self.say(connection, Side::Server, "ok");
    }

    fn write(&mut self, connection: &mut Connection, messages: usize) {
        for n in 0..messages {
            self.say(connection, Side::Client, &format!("message type=2 chanid=1 content=\"text {n}\""));
            self.say(connection, Side::Server, "ok");
            self.wait(30);
        }
    }

    fn close(&mut self, mut connection: Connection) {
        self.segment(&connection, Side::Client, FIN | ACK, b"");
        connection.client_sent += 1;
        self.segment(&connection, Side::Server, FIN | ACK, b"");
    }

    /// The server ends it.
    fn drop_by_server(&mut self, mut connection: Connection) {
        self.segment(&connection, Side::Server, FIN | ACK, b"");
        connection.server_sent += 1;
        self.segment(&connection, Side::Client, FIN | ACK, b"");
    }

    /// What was done to whom since the last call; knowledge and user ids left out.
    fn deeds(&mut self) -> Vec<String> {
        let mut deeds = Vec::new();
        while let Some(command) = self.engine.next_command() {
            deeds.extend(match command {
                Command::Ban { subject, until, explanation } => {
                    let length = until.since(explanation.at);
                    Some(format!("ban {subject} for {length} by {}", explanation.rule))
                }
                Command::Limit { address, explanation, .. } => {
                    Some(format!("limit {address} by {}", explanation.rule))
                }
                Command::Reset { address, explanation, .. } => {
                    Some(format!("reset {address} by {}", explanation.rule))
                }
                Command::Note { explanation, .. } => Some(format!("note {}", explanation.rule)),
                Command::SetLevel { level, .. } => Some(format!("level {}", level.as_str())),
                Command::Unban { subject } => Some(format!("unban {subject}")),
                Command::Release { address } => Some(format!("release {}", address.to_ip())),
                Command::Know { .. }
                | Command::BindUser { .. }
                | Command::FreeUser { .. }
                | Command::Ignore { .. }
                | Command::Follow { .. } => None,
            });
        }
        deeds
    }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<std::net::IpAddr>().expect("an address"))
}

fn guess_once(world: &mut World, from: &str, account: &str) {
    let mut connection = world.connect(address(from));
    world.fail(&mut connection, account);
    world.close(connection);
}

#[test]
fn the_eighth_wrong_password_bans_and_the_seventh_does_not() {
    let mut world = World::new(SHIPPED);
    for _ in 0..7 {
        guess_once(&mut world, "192.0.2.9", "admin");
    }
    assert_eq!(world.deeds(), [""; 0]);
    guess_once(&mut world, "192.0.2.9", "admin");
    assert_eq!(world.deeds(), ["ban 192.0.2.9/32 for 10m by teamtalk/login-storm"]);
}

#[test]
fn pipelined_guesses_on_one_connection_count_each() {
    let mut world = World::new(SHIPPED);
    let mut connection = world.connect(address("192.0.2.9"));
    for n in 0..20 {
        world.say(&mut connection, Side::Client, &format!("login username=\"u{n}\" password=\"x\" id={n}"));
    }
    for n in 0..20 {
        world.say(&mut connection, Side::Server, &format!("begin id={n}"));
        world.say(&mut connection, Side::Server, "error number=2002 message=\"Invalid user account\"");
        world.say(&mut connection, Side::Server, &format!("end id={n}"));
    }
    assert_eq!(world.deeds(), ["ban 192.0.2.9/32 for 10m by teamtalk/fast-guessing"]);
}

/// A school whose packets were captured in part: nobody knows who of it has logged in, and nothing more is said.
#[test]
fn what_was_missed_is_held_against_nobody() {
    let school = address("203.0.113.80");
    let held = |seen: &str| {
        let mut world = World::new(SHIPPED);
        for _ in 0..30 {
            world.next_port += 1;
            let (client, port) = (school, world.next_port);
            let mut connection = Connection { client, port, client_sent: 100, server_sent: 900, user_id: 0 };
            world.segment(&connection, Side::Client, SYN, b"");
            connection.client_sent += 1;
            world.segment(&connection, Side::Server, SYN | ACK, b"");
            connection.server_sent += 1;
            world.segment(&connection, Side::Client, ACK, b"");
            let welcome = "teamtalk userid=7 protocol=\"5.14\"\r\n";
            world.segment(&connection, Side::Server, ACK, seen.as_bytes());
            connection.server_sent += welcome.len() as u32;
            world.segment(&connection, Side::Server, ACK, b"serv");
        }
        world.wait(60_000);
        let held = world.engine.signals().find(|(kind, _)| *kind == SignalKind::ConnectionHeld);
        (held.map_or(0, |(_, count)| count), world.deeds().len())
    };
    let (places, deeds) = held("teamtalk userid=7 protocol=\"5.14\"\r\n");
    assert!(places >= 30 && deeds > 0, "{places} places, {deeds} deeds");
    assert_eq!(held("teamtalk u"), (0, 0));
}

/// Four wrong passwords at once: a program's, of however many accounts. Where a class is, whoever does it is not alone.
#[test]
fn whoever_is_faster_than_anybody_types_is_stopped_at_once() {
    let mut world = World::new(SHIPPED);
    for account in ["admin", "root", "alice"] {
        let mut connection = world.connect(address("192.0.2.9"));
        world.fail_at_once(&mut connection, account);
    }
    assert_eq!(world.deeds(), [""; 0]);
    let mut connection = world.connect(address("192.0.2.9"));
    world.fail_at_once(&mut connection, "bob");
    assert_eq!(world.deeds(), ["ban 192.0.2.9/32 for 10m by teamtalk/fast-guessing"]);

    let school = address("203.0.113.80");
    for _ in 0..5 {
        let mut pupil = world.connect(school);
        world.log_in(&mut pupil, "class");
    }
    for _ in 0..8 {
        let mut pupil = world.connect(school);
        world.fail_at_once(&mut pupil, "teacher");
    }
    let deeds = world.deeds();
    assert!(!deeds.iter().any(|deed| deed.starts_with("ban")), "{deeds:?}");
    assert!(deeds.iter().any(|deed| deed == "limit 203.0.113.80 by teamtalk/login-storm"), "{deeds:?}");
}

#[test]
fn a_repeat_is_banned_twice_as_long() {
    let mut world = World::new(SHIPPED);
    for _ in 0..8 {
        guess_once(&mut world, "192.0.2.9", "admin");
    }
    world.deeds();
    world.wait(11 * 60_000);
    for _ in 0..8 {
        guess_once(&mut world, "192.0.2.9", "admin");
    }
    assert_eq!(world.deeds(), ["ban 192.0.2.9/32 for 20m by teamtalk/login-storm"]);
}

#[test]
fn many_addresses_raise_the_level_and_each_is_stopped() {
    let mut world = World::new(SHIPPED);
    for round in 0..3 {
        for n in 0..20u32 {
            guess_once(&mut world, &format!("198.51.{n}.7"), &format!("user{round}{n}"));
        }
    }
    let deeds = world.deeds();
    assert!(deeds.contains(&"level attack".to_owned()), "{deeds:?}");
    for n in 0..20 {
        let name = format!(" 198.51.{n}.7");
        assert!(deeds.iter().any(|deed| deed.contains(&name)), "{name}: {deeds:?}");
    }
    world.wait(60 * 60_000);
    assert_eq!(world.engine.level(0), Level::Elevated);
    world.wait(60 * 60_000);
    assert_eq!(world.engine.level(0), Level::Normal);
}

#[test]
fn somebody_who_mistypes_during_an_attack_and_then_logs_in_is_left_alone() {
    let mut world = World::new(SHIPPED);
    for n in 0..14u32 {
        guess_once(&mut world, &format!("198.51.{n}.7"), "x");
    }
    let mut regular = world.connect(address("203.0.113.5"));
    world.fail(&mut regular, "alice");
    assert!(world.deeds().contains(&"level attack".to_owned()));
    world.fail(&mut regular, "alice");
    world.log_in(&mut regular, "alice");
    world.wait(20_000);
    world.engine.finish();
    let deeds = world.deeds();
    assert!(!deeds.iter().any(|deed| deed.contains("203.0.113.5")), "{deeds:?}");
    assert_eq!(deeds.iter().filter(|deed| deed.starts_with("limit 198.51.")).count(), 14, "{deeds:?}");
}

/// A telephone that has been in many networks makes nobody known any more, and has a right password all the same.
#[test]
fn a_telephone_that_mistypes_during_an_attack_and_then_logs_in_is_left_alone() {
    let mut world = World::new(SHIPPED);
    for network in 1..=5 {
        let mut telephone = world.connect(address(&format!("192.0.{network}.9")));
        world.log_in(&mut telephone, "alice");
        world.close(telephone);
        world.wait(120_000);
    }
    for n in 0..14u32 {
        guess_once(&mut world, &format!("198.51.{n}.7"), "x");
    }
    world.deeds();
    let mut telephone = world.connect(address("203.0.113.5"));
    world.fail(&mut telephone, "alice");
    world.log_in(&mut telephone, "alice");
    world.wait(60_000);
    world.engine.finish();
    let deeds = world.deeds();
    assert!(deeds.contains(&"level attack".to_owned()), "{deeds:?}");
    assert!(!deeds.iter().any(|deed| deed.contains("203.0.113.5")), "{deeds:?}");
}

#[test]
fn in_an_ipv6_64_the_guilty_are_banned_and_not_their_neighbours() {
    let mut world = World::new(SHIPPED);
    let mut neighbour = world.connect(address("2001:db8::10"));
    world.fail(&mut neighbour, "carol");
    world.log_in(&mut neighbour, "carol");
    for _ in 0..3 {
        for guilty in ["2001:db8::13", "2001:db8::14", "2001:db8::15"] {
            guess_once(&mut world, guilty, "admin");
        }
    }
    world.engine.finish();
    let mut deeds = world.deeds();
    deeds.sort();
    let by = "for 10m by teamtalk/network-guessing";
    assert_eq!(
        deeds,
        ["2001:db8::13", "2001:db8::14", "2001:db8::15"].map(|guilty| format!("ban {guilty}/128 {by}"))
    );
}

#[test]
fn one_host_with_a_whole_64_is_banned_as_one() {
    let mut world = World::new(SHIPPED);
    for n in 1..=20 {
        guess_once(&mut world, &format!("2001:db8:0:7::{n:x}"), "admin");
    }
    assert_eq!(world.deeds(), ["ban 2001:db8:0:7::/64 for 10m by teamtalk/network-guessing"]);
}

#[test]
fn behind_a_shared_address_the_offending_connection_is_cut_and_not_the_house() {
    let mut world = World::new(SHIPPED);
    let house = address("203.0.113.80");
    for account in ["mum", "dad", "kid"] {
        let mut connection = world.connect(house);
        world.log_in(&mut connection, account);
    }
    let mut bad = world.connect(house);
    for n in 0..8 {
        world.fail(&mut bad, &format!("admin{n}"));
    }
    assert_eq!(world.deeds(), ["reset 203.0.113.80 by teamtalk/login-storm"]);
}

#[test]
fn after_a_restart_a_household_that_mistypes_is_still_a_household() {
    let mut world = World::new(SHIPPED);
    let house = address("203.0.113.80");
    for account in ["mum", "dad", "kid"] {
        let mut connection = world.connect(house);
        world.log_in(&mut connection, account);
        world.close(connection);
    }
    for n in 0..8 {
        guess_once(&mut world, "203.0.113.80", &format!("admin{n}"));
    }
    let deeds = world.deeds();
    assert!(!deeds.iter().any(|deed| deed.starts_with("ban")), "{deeds:?}");
}

/// Thirty come back to a school; every third mistypes, and is right a moment later.
#[test]
fn mistakes_that_the_right_password_follows_are_nobodys_attack() {
    let mut world = World::new(SHIPPED);
    let school = address("203.0.113.80");
    for pupil in 0..30 {
        let mut connection = world.connect(school);
        if pupil % 3 == 0 {
            world.fail(&mut connection, &format!("pupil{pupil}"));
            world.wait(3_000);
        }
        world.log_in(&mut connection, &format!("pupil{pupil}"));
    }
    world.wait(60_000);
    world.engine.finish();
    assert_eq!(world.deeds(), [""; 0]);
}

/// Twelve of one address have an old password each, and find the right one half a minute later.
#[test]
fn a_house_has_time_to_find_its_passwords_and_a_guesser_has_it_once() {
    let mut world = World::new(SHIPPED);
    let house = address("203.0.113.80");
    let mut open: Vec<Connection> = (0..12).map(|_| world.connect(house)).collect();
    for (number, connection) in open.iter_mut().enumerate() {
        world.fail(connection, &format!("member{number}"));
    }
    world.wait(25_000);
    for (number, connection) in open.iter_mut().enumerate() {
        world.log_in(connection, &format!("member{number}"));
    }
    world.wait(30_000);
    assert_eq!(world.deeds(), [""; 0]);

    for number in 0..32 {
        guess_once(&mut world, "192.0.2.9", &format!("root{number}"));
    }
    assert_eq!(world.deeds(), ["ban 192.0.2.9/32 for 10m by teamtalk/login-storm"]);

    // Nor does one who has an account of their own clear the others.
    for number in 0..9 {
        guess_once(&mut world, "192.0.77.9", &format!("root{number}"));
    }
    let mut own = world.connect(address("192.0.77.9"));
    world.log_in(&mut own, "mallory");
    assert_eq!(world.deeds(), [""; 0]);
    world.wait(50_000);
    assert_eq!(world.deeds(), ["limit 192.0.77.9 by teamtalk/many-failures"]);
}

/// Somebody with an account of their own mistypes it again and again, and makes it good, between guesses at others.
/// Two people mistype four times each.
#[test]
fn a_house_of_two_has_time_as_well_and_a_guesser_with_two_connections_is_stopped() {
    let house = address("203.0.113.90");
    let fail = |world: &mut World, tries: usize| {
        let mut two = ["father", "child"].map(|name| (world.connect(house), name));
        for _ in 0..tries {
            for (connection, account) in &mut two {
                world.fail(connection, account);
            }
            world.wait(1_000);
        }
        two
    };
    let mut world = World::new(SHIPPED);
    for (mut connection, account) in fail(&mut world, 4) {
        world.wait(5_000);
        world.log_in(&mut connection, account);
    }
    world.wait(60_000);
    assert_eq!(world.deeds(), [""; 0]);
    let mut world = World::new(SHIPPED);
    fail(&mut world, 4);
    world.wait(60_000);
    assert!(matches!(&world.deeds()[..], [only] if only.starts_with("limit 203.0.113.90 by ")));
    let mut world = World::new(SHIPPED);
    fail(&mut world, 20);
    assert_eq!(world.deeds(), ["ban 203.0.113.90/32 for 10m by teamtalk/login-storm"]);
}

/// A class shares one account: whoever is in has shown that its password is known there.
#[test]
fn a_class_mistypes_the_password_that_others_of_it_have_found() {
    let mut world = World::new(SHIPPED);
    let mut first = world.connect(address("203.0.113.90"));
    for number in 0..24 {
        guess_once(&mut world, "203.0.113.90", "class");
        if number == 0 {
            world.log_in(&mut first, "class");
        }
        world.wait(4_000);
    }
    assert_eq!(world.deeds(), [""; 0]);
    // What nobody there knows is a guess.
    for _ in 0..9 {
        guess_once(&mut world, "203.0.113.90", "teacher");
    }
    assert_eq!(world.deeds().len(), 1);
}

#[test]
fn mistakes_on_purpose_hide_guesses_for_a_while_only() {
    let mut world = World::new(SHIPPED);
    let mut guesses = 0;
    while guesses < 100 && !world.deeds().iter().any(|deed| deed.starts_with("ban")) {
        for number in 0..3 {
            guess_once(&mut world, "192.0.2.9", &format!("victim{number}"));
            guesses += 1;
        }
        for _ in 0..4 {
            guess_once(&mut world, "192.0.2.9", "mallory");
        }
        let mut own = world.connect(address("192.0.2.9"));
        world.log_in(&mut own, "mallory");
        world.close(own);
        world.wait(5_000);
    }
    assert!(guesses <= 18, "{guesses}");
}

#[test]
fn people_who_are_known_mistype_without_alarm_and_strangers_do_not() {
    let mut world = World::new(SHIPPED);
    let regulars: Vec<String> = (1..=18).map(|number| format!("198.51.{number}.7")).collect();
    for (number, regular) in regulars.iter().enumerate() {
        let mut connection = world.connect(address(regular));
        world.log_in(&mut connection, &format!("member{number}"));
        world.close(connection);
    }
    world.deeds();
    // An old table of passwords was restored.
    for (number, regular) in regulars.iter().enumerate() {
        guess_once(&mut world, regular, &format!("member{number}"));
    }
    assert_eq!(world.deeds(), [""; 0]);
    for number in 1..=16 {
        guess_once(&mut world, &format!("203.0.{number}.7"), &format!("member{number}"));
    }
    assert_eq!(world.deeds(), ["level attack"]);
}

/// The password that a family shares was changed.
#[test]
fn those_who_share_an_account_may_mistype_its_password() {
    let mut world = World::new(SHIPPED);
    let mut open = Vec::new();
    for number in 1..=8 {
        let mut connection = world.connect(address(&format!("198.51.{number}.7")));
        world.fail(&mut connection, "family");
        open.push(connection);
        world.wait(5_000);
    }
    for connection in &mut open {
        world.log_in(connection, "family");
    }
    world.wait(60_000);
    assert_eq!(world.deeds(), [""; 0]);
}

/// Somebody who says what a regular has just said, over many connections, has only themselves stopped.
#[test]
fn who_is_parroted_is_not_to_blame() {
    let mut world = World::new(SHIPPED);
    let words = "message type=2 chanid=1 content=\"good evening everybody, how are you all doing tonight?\"";
    let mut guest = world.connect(address("198.51.100.7"));
    world.log_in(&mut guest, "");
    world.say(&mut guest, Side::Client, words);
    world.say(&mut guest, Side::Server, "ok");
    for _ in 0..6 {
        let mut parrot = world.connect(address("203.0.113.9"));
        world.log_in(&mut parrot, "");
        world.say(&mut parrot, Side::Client, words);
        world.say(&mut parrot, Side::Server, "ok");
    }
    world.wait(60_000);
    assert_eq!(world.deeds(), ["limit 203.0.113.9 by teamtalk/drones"]);
}

/// A server that restarts twice throws a whole school out, which has not left.
#[test]
fn whom_the_server_throws_out_has_not_gone_in_and_out() {
    for (by_server, expected) in
        [(true, &[][..]), (false, &["limit 203.0.113.80 by teamtalk/login-cycling"][..])]
    {
        let mut world = World::new(SHIPPED);
        for _ in 0..2 {
            let school: Vec<Connection> = (0..20)
                .map(|pupil| {
                    let mut connection = world.connect(address("203.0.113.80"));
                    world.log_in(&mut connection, &format!("pupil{pupil}"));
                    connection
                })
                .collect();
            for connection in school {
                if by_server { world.drop_by_server(connection) } else { world.close(connection) }
            }
        }
        assert_eq!(world.deeds(), expected, "by the server: {by_server}");
    }
}

#[test]
fn in_an_ipv4_network_a_neighbour_who_mistypes_is_left_alone() {
    let mut world = World::new(SHIPPED);
    guess_once(&mut world, "192.0.2.10", "carol");
    for _ in 0..7 {
        guess_once(&mut world, "192.0.2.66", "admin");
    }
    world.wait(30_000);
    world.engine.finish();
    let deeds = world.deeds();
    assert!(!deeds.iter().any(|deed| deed.contains("192.0.2.10")), "{deeds:?}");
    assert!(deeds.iter().any(|deed| deed.contains("192.0.2.66")), "{deeds:?}");
}

#[test]
fn clones_of_one_account_are_no_household() {
    let mut world = World::new(SHIPPED);
    for _ in 0..4 {
        let mut connection = world.connect(address("203.0.113.80"));
        world.log_in(&mut connection, "stolen");
    }
    for _ in 0..8 {
        guess_once(&mut world, "203.0.113.80", "admin");
    }
    assert_eq!(world.deeds(), ["ban 203.0.113.80/32 for 10m by teamtalk/login-storm"]);
}

#[test]
fn an_account_everybody_uses_makes_nobody_known() {
    let mut world = World::new(SHIPPED);
    let mut known = BTreeMap::new();
    for n in 1..=10u32 {
        let mut connection = world.connect(address(&format!("198.51.{n}.1")));
        world.log_in(&mut connection, "guest");
        while let Some(command) = world.engine.next_command() {
            if let Command::Know { address, .. } = command {
                known.insert(address, n);
            }
        }
    }
    assert!(known.len() < 4, "{known:?}");
}

#[test]
fn a_flood_of_messages_bans_and_a_lively_talker_does_not() {
    let mut world = World::new(SHIPPED);
    let mut talker = world.connect(address("203.0.113.5"));
    world.log_in(&mut talker, "alice");
    for _ in 0..30 {
        world.write(&mut talker, 3);
        world.wait(1_000);
    }
    assert_eq!(world.deeds(), [""; 0]);
    world.write(&mut talker, 60);
    let deeds = world.deeds();
    assert_eq!(deeds.last().unwrap(), "ban 203.0.113.5/32 for 5m by teamtalk/message-flood", "{deeds:?}");
}

#[test]
fn bans_a_minute_are_braked() {
    let mut world = World::new(&SHIPPED.replace("limit = 8\n", "limit = 2\n"));
    let mut banned = 0;
    let mut limited = 0;
    for n in 0..200u32 {
        for _ in 0..2 {
            let mut connection = world.connect(address(&format!("10.{}.{}.7", n / 200 + 1, n)));
            world.fail_at_once(&mut connection, "admin");
        }
        for deed in world.deeds() {
            banned += usize::from(deed.starts_with("ban"));
            limited += usize::from(deed.starts_with("limit"));
        }
    }
    assert!(banned <= 121 && limited > 0, "{banned} banned, {limited} limited");
}

#[test]
fn a_shadow_rule_is_counted_and_does_nothing() {
    let mut world = World::new(&SHIPPED.replace("[[rule]]", "[[rule]]\nshadow = true"));
    for _ in 0..10 {
        guess_once(&mut world, "192.0.2.9", "admin");
    }
    world.engine.finish();
    assert_eq!(world.deeds(), [""; 0]);
    let fired: Vec<(String, u64)> =
        world.engine.fired().map(|(rule, fired)| (rule.to_string(), fired.shadowed)).collect();
    assert!(fired.contains(&("teamtalk/login-storm".to_owned(), 1)), "{fired:?}");
}

#[test]
fn no_secret_reaches_a_command() {
    let mut world = World::new(SHIPPED);
    let mut connection = world.connect(address("192.0.2.9"));
    world.log_in(&mut connection, "alice");
    for _ in 0..8 {
        world.fail(&mut connection, "admin");
    }
    let mut text = String::new();
    while let Some(command) = world.engine.next_command() {
        text.push_str(&format!("{command:?}"));
    }
    text.push_str(&format!("{:?}", world.engine));
    assert!(text.contains("login-storm") && !text.contains("secret"), "{text}");
}

/// Of thirty known addresses a rule that is wrong would ban all within a minute.
#[test]
fn no_more_than_a_few_of_the_known_are_banned_at_once() {
    let mut world = World::new(SHIPPED);
    let mut people: Vec<Connection> = (1..=30u32)
        .map(|n| {
            let mut connection = world.connect(address(&format!("198.51.{n}.1")));
            world.log_in(&mut connection, &format!("member{n}"));
            connection
        })
        .collect();
    world.wait(60_000);
    world.deeds();
    for connection in &mut people {
        world.write(connection, 60);
    }
    let deeds = world.deeds();
    let count = |what: &str| deeds.iter().filter(|deed| deed.starts_with(what)).count();
    assert_eq!((count("ban"), count("note")), (3, 27), "{deeds:?}");
    // Two of the three were limited first, for flooding a channel together.
    assert_eq!(count("limit"), 29, "{deeds:?}");
}

/// Guests cost nothing: two that sit there for two minutes are no shield.
#[test]
fn behind_guests_who_only_sit_there_a_guesser_is_limited_all_the_same() {
    let mut world = World::new(SHIPPED);
    let here = address("203.0.113.90");
    for _ in 0..2 {
        let mut guest = world.connect(here);
        world.log_in(&mut guest, "");
    }
    world.wait(180_000);
    world.deeds();
    let mut guesser = world.connect(here);
    for _ in 0..8 {
        world.fail(&mut guesser, "admin");
    }
    let by = "203.0.113.90 by teamtalk/login-storm";
    assert_eq!(world.deeds(), [format!("reset {by}"), format!("limit {by}")]);
}

/// Fifteen old passwords after a restart: who finds the right one a minute later is limited no longer.
#[test]
fn a_good_login_lifts_what_a_few_mistakes_have_cost() {
    let mut world = World::new(SHIPPED);
    for n in 1..=16u32 {
        guess_once(&mut world, &format!("198.51.{n}.1"), &format!("member{n}"));
    }
    world.wait(50_000);
    let deeds = world.deeds();
    assert!(deeds.contains(&"limit 198.51.3.1 by teamtalk/distributed-guessing".to_owned()), "{deeds:?}");
    let mut right = world.connect(address("198.51.3.1"));
    world.log_in(&mut right, "member3");
    assert_eq!(world.deeds(), ["release 198.51.3.1"]);
}

/// What a flood has cost is not lifted by logging in again.
#[test]
fn a_good_login_lifts_no_other_limit() {
    let mut world = World::new(SHIPPED);
    let mut flooder = world.connect(address("203.0.113.91"));
    world.log_in(&mut flooder, "flooder");
    for n in 0..15 {
        world.say(&mut flooder, Side::Client, &format!("changenick nickname=\"n{n}\""));
        world.say(&mut flooder, Side::Server, "ok");
    }
    assert_eq!(world.deeds(), ["limit 203.0.113.91 by teamtalk/nick-cycling"]);
    world.say(&mut flooder, Side::Client, "logout");
    world.say(&mut flooder, Side::Server, "loggedout");
    world.log_in(&mut flooder, "flooder");
    assert_eq!(world.deeds(), [""; 0]);
}

/// An account that is in several networks at once is everybody's: the first who used it are known no longer either.
#[test]
fn an_account_in_many_places_at_once_is_disowned() {
    let mut world = World::new(SHIPPED);
    let mut known = BTreeSet::new();
    let mut open = Vec::new();
    for n in 1..=6u32 {
        let mut connection = world.connect(address(&format!("198.51.{n}.1")));
        world.log_in(&mut connection, "guest");
        open.push(connection);
        while let Some(command) = world.engine.next_command() {
            if let Command::Know { address, until, .. } = command {
                if until == Timestamp::EPOCH {
                    known.remove(&address)
                } else {
                    known.insert(address)
                };
            }
        }
    }
    assert!(known.is_empty(), "{known:?}");
}

/// No telephone is in six networks within three minutes: then an account is everybody's, though they come one after the other.
#[test]
fn an_account_of_drones_that_come_and_go_makes_nobody_known() {
    let mut world = World::new(SHIPPED);
    let mut known = BTreeSet::new();
    for n in 1..=9u32 {
        let mut connection = world.connect(address(&format!("198.51.{n}.1")));
        world.log_in(&mut connection, "public");
        world.close(connection);
        world.wait(10_000);
        while let Some(command) = world.engine.next_command() {
            if let Command::Know { address, until, .. } = command {
                let _was_there =
                    if until == Timestamp::EPOCH { known.remove(&address) } else { known.insert(address) };
            }
        }
    }
    assert!(known.is_empty(), "{known:?}");
}

/// A telephone comes from one network after the other, and its owner stays known.
#[test]
fn an_account_in_one_place_after_the_other_stays_known() {
    let mut world = World::new(SHIPPED);
    let mut forgotten = 0;
    for n in 1..=9u32 {
        let mut connection = world.connect(address(&format!("198.51.{n}.1")));
        world.log_in(&mut connection, "phone");
        world.close(connection);
        world.wait(60_000);
        while let Some(command) = world.engine.next_command() {
            forgotten += usize::from(matches!(command, Command::Know { until: Timestamp::EPOCH, .. }));
        }
    }
    assert_eq!(forgotten, 0);
}

/// `count` addresses of networks far apart.
fn crowd(count: u32) -> impl Iterator<Item = Address> {
    (0..count).map(|number| Address::from_v4(0x5000_0000 + number * 0x1_0000))
}

#[test]
fn many_strangers_raise_the_level_of_their_class_alone_and_it_calms_down_step_by_step() {
    let mut world = World::new(SHIPPED);
    world.learn_quiet_weeks();
    for client in crowd(100) {
        world.knock(client, Class::UdpOther);
    }
    world.wait(10_000);
    assert_eq!(world.deeds(), ["level attack"]);
    assert_eq!(world.engine.level_of(0, Front::Udp), Level::Attack);
    assert_eq!(world.engine.level_of(0, Front::Tcp), Level::Normal);
    for (minutes, level) in [(4, Level::Attack), (2, Level::Elevated), (5, Level::Normal)] {
        for _ in 0..minutes * 60 {
            world.wait(1_000);
        }
        assert_eq!(world.engine.level(0), level, "{minutes} minutes later");
    }
    assert_eq!(world.deeds(), ["level elevated", "level normal"]);
}

#[test]
fn without_a_baseline_a_hundred_strangers_are_no_attack() {
    let mut world = World::new(SHIPPED);
    world.wait(10_000);
    for client in crowd(100) {
        world.knock(client, Class::TcpSyn);
    }
    world.wait(10_000);
    world.wait(10_000);
    assert_eq!(world.deeds(), [""; 0]);
}

#[test]
fn everybody_coming_back_after_a_restart_is_no_attack() {
    let mut world = World::new(SHIPPED);
    for client in crowd(200) {
        let mut connection = world.connect(client);
        world.log_in(&mut connection, "");
        world.close(connection);
    }
    world.wait(3_600_000);
    world.learn_quiet_weeks();
    world.deeds();
    for _ in 0..5 {
        for client in crowd(200) {
            world.knock(client, Class::TcpSyn);
        }
        world.wait(5_000);
    }
    world.wait(10_000);
    assert_eq!(world.deeds(), [""; 0]);
    // As many whom nobody has seen before are one.
    for client in crowd(400) {
        world.knock(client, Class::TcpSyn);
    }
    world.wait(10_000);
    assert_eq!(world.deeds(), ["level attack"]);
}

#[test]
fn a_crowd_of_strangers_makes_no_rule_for_alarmed_times_hit_those_who_mistype() {
    let mut world = World::new(SHIPPED);
    world.learn_quiet_weeks();
    for client in crowd(100) {
        world.knock(client, Class::TcpSyn);
    }
    world.wait(10_000);
    assert_eq!(world.deeds(), ["level attack"]);
    for _ in 0..5 {
        guess_once(&mut world, "192.0.2.9", "newcomer");
    }
    assert_eq!(world.deeds(), [""; 0]);
}

impl World {
    /// A TLS handshake to its end, as records whose content nobody can read.
    fn shake_hands(&mut self, client: Address) -> Connection {
        self.next_port += 1;
        let port = self.next_port;
        let mut connection = Connection { client, port, client_sent: 100, server_sent: 900, user_id: 0 };
        self.segment(&connection, Side::Client, SYN, b"");
        connection.client_sent += 1;
        self.segment(&connection, Side::Server, SYN | ACK, b"");
        connection.server_sent += 1;
        self.segment(&connection, Side::Client, ACK, b"");
        for (side, kind, length) in [
            (Side::Client, 22, 300_u16),
            (Side::Server, 22, 122),
            (Side::Client, 23, 69),
            (Side::Server, 23, 250),
            (Side::Client, 23, 90),
            (Side::Server, 23, 700),
        ] {
            self.record(&mut connection, side, kind, length);
        }
        self.segment(&connection, Side::Server, ACK, b"");
        connection
    }

    /// One TLS record.
    fn record(&mut self, connection: &mut Connection, side: Side, kind: u8, length: u16) {
        let mut record = vec![kind, 3, 3];
        record.extend(length.to_be_bytes());
        record.resize(record.len() + usize::from(length), 0x5a);
        self.segment(connection, side, ACK, &record);
        match side {
            Side::Client => connection.client_sent += record.len() as u32,
            Side::Server => connection.server_sent += record.len() as u32,
        }
    }

    /// Who became known, or no longer is, since the last call.
    fn known(&mut self) -> Vec<(Address, bool)> {
        std::iter::from_fn(|| self.engine.next_command())
            .filter_map(|command| {
                let Command::Know { address, until, .. } = command else { return None };
                Some((address, until > Timestamp::EPOCH))
            })
            .collect()
    }

    fn wait_minutes(&mut self, minutes: u64) {
        for _ in 0..minutes * 12 {
            self.wait(5_000);
        }
    }
}

#[test]
fn time_behind_tls_makes_somebody_known_until_they_misbehave() {
    let mut world = World::new(SHIPPED);
    let regular = address("198.51.100.7");
    world.wait(0);
    let mut connection = world.shake_hands(regular);
    world.wait_minutes(1);
    // A friend comes.
    world.record(&mut connection, Side::Server, 23, 140);
    world.wait_minutes(9);
    assert_eq!(world.known(), []);
    world.wait_minutes(2);
    assert_eq!(world.known(), [(regular, true)]);
    assert!(world.engine.is_tenured(regular, world.now));
    world.close(connection);
    for _ in 0..8 {
        guess_once(&mut world, "198.51.100.7", "admin");
    }
    assert_eq!(world.known(), [(regular, false)]);
    assert!(!world.engine.is_tenured(regular, world.now));
}

#[test]
fn whoever_only_pings_behind_tls_is_not_known() {
    let mut world = World::new(SHIPPED);
    world.wait(0);
    let mut connection = world.shake_hands(address("198.51.100.7"));
    for _ in 0..60 {
        world.wait_minutes(1);
        // Refused commands have long answers too.
        for (side, length) in
            [(Side::Client, 23), (Side::Server, 23), (Side::Client, 400), (Side::Server, 9_000)]
        {
            world.record(&mut connection, side, 23, length);
        }
    }
    assert_eq!(world.known(), []);
}

#[test]
fn a_guest_who_sits_there_for_hours_is_not_known_nor_is_who_says_nothing() {
    let mut world = World::new(SHIPPED);
    for number in 1..=20 {
        let mut guest = world.connect(address(&format!("198.51.{number}.7")));
        world.say(&mut guest, Side::Client, "login username=\"\" password=\"\"");
        let accepted = format!("accepted userid={} nickname=\"g\" username=\"\"", guest.user_id);
        world.say(&mut guest, Side::Server, &accepted);
        world.connect(address(&format!("203.0.{number}.7")));
    }
    for _ in 0..60 {
        world.wait_minutes(2);
    }
    assert_eq!(world.known(), []);
}

#[test]
fn whoever_has_accounts_without_end_takes_the_places_of_their_neighbours_alone() {
    let mut world = World::new(SHIPPED);
    let mut regular = world.connect(address("203.0.113.5"));
    world.log_in(&mut regular, "alice");
    for number in 0..200 {
        let mut bought = world.connect(address(&format!("2001:db8:7:{number:x}::1")));
        world.log_in(&mut bought, &format!("bought{number}"));
    }
    let mut known = BTreeSet::new();
    for (address, is_known) in world.known() {
        if is_known {
            known.insert(address);
        } else {
            known.remove(&address);
        }
    }
    assert!(known.remove(&address("203.0.113.5")));
    assert_eq!(known.len(), 64);
    assert!(known.contains(&address("2001:db8:7:c7::1")));
}

#[test]
fn who_has_been_there_for_a_while_may_wish_what_everybody_wishes_and_drones_may_not() {
    let mut world = World::new(SHIPPED);
    let join = |world: &mut World, site: u32| -> Vec<Connection> {
        let addresses = (0..8).map(|number| Address::from_v4(site + (number << 8) + 5));
        let mut all = Vec::new();
        for address in addresses {
            let mut connection = world.connect(address);
            world.log_in(&mut connection, "everybody");
            all.push(connection);
        }
        all
    };
    let wish = |world: &mut World, all: &mut [Connection]| {
        for connection in all {
            let words = "message type=2 chanid=1 content=\"A very happy new year to all of you out there\"";
            world.say(connection, Side::Client, words);
            world.say(connection, Side::Server, "ok");
        }
        world.wait(20_000);
        world.engine.handle_timeout(world.now);
        let deeds = world.deeds();
        deeds.iter().filter(|deed| deed.starts_with("limit") && deed.ends_with("drones")).count()
    };
    let mut regulars = join(&mut world, 0xcb00_0000);
    for _ in 0..7 {
        world.wait(20_000);
    }
    assert_eq!(wish(&mut world, &mut regulars), 0);
    let mut drones = join(&mut world, 0xcb01_0000);
    assert_eq!(wish(&mut world, &mut drones), 8);
}

/// A telephone in another network speaks into a session that hangs, until its client has noticed.
#[test]
fn a_telephone_that_changes_networks_has_time_to_log_in_there() {
    let (old, new) = (address("203.0.113.5"), address("198.51.100.5"));
    for account in ["alice", "guest"] {
        let mut world = World::new(SHIPPED);
        let mut telephone = world.connect(old);
        world.log_in(&mut telephone, account);
        world.speak(old, telephone.user_id, Reason::Admitted);
        world.wait(60_000);
        for _ in 0..250 {
            world.speak(new, telephone.user_id, Reason::StandingForeign);
        }
        let mut again = world.connect(new);
        world.log_in(&mut again, account);
        world.wait(120_000);
        world.engine.finish();
        assert_eq!(world.deeds(), [""; 0], "{account}");
    }
}

/// Its session was reset at once: the user id is nobody's any more.
#[test]
fn a_telephone_whose_session_is_gone_has_time_to_log_in() {
    let (old, new) = (address("203.0.113.5"), address("198.51.100.5"));
    let mut world = World::new(SHIPPED);
    let mut telephone = world.connect(old);
    world.log_in(&mut telephone, "alice");
    let user_id = telephone.user_id;
    world.drop_by_server(telephone);
    for _ in 0..100 {
        world.speak(new, user_id, Reason::StandingStranger);
    }
    let mut again = world.connect(new);
    world.log_in(&mut again, "alice");
    world.wait(120_000);
    assert_eq!(world.deeds(), [""; 0]);
}

#[test]
fn whoever_speaks_in_anothers_name_and_does_not_log_in_is_limited() {
    let limited = ["limit 198.51.100.66 by teamtalk/datagram-masquerade"];
    let (victim, impostor) = (address("203.0.113.5"), address("198.51.100.66"));
    let begin = |names: usize| {
        let mut world = World::new(SHIPPED);
        let ids: Vec<u16> = (0..names)
            .map(|number| {
                let mut regular = world.connect(victim);
                world.log_in(&mut regular, &format!("regular{number}"));
                world.speak(victim, regular.user_id, Reason::Admitted);
                regular.user_id
            })
            .collect();
        world.wait(10_000);
        (world, ids)
    };
    // Nobody logs in from there.
    let (mut world, ids) = begin(1);
    for _ in 0..20 {
        world.speak(impostor, ids[0], Reason::StandingForeign);
    }
    assert_eq!(world.deeds(), [""; 0]);
    world.wait(46_000);
    assert_eq!(world.deeds(), limited);
    // Nor has the record's end made anybody a telephone.
    let (mut world, ids) = begin(1);
    for _ in 0..20 {
        world.speak(impostor, ids[0], Reason::StandingForeign);
    }
    world.engine.finish();
    assert_eq!(world.deeds(), limited);
    // Whom they claim to be speaks on.
    let (mut world, ids) = begin(1);
    for _ in 0..40 {
        world.speak(impostor, ids[0], Reason::StandingForeign);
        world.speak(victim, ids[0], Reason::Admitted);
    }
    assert_eq!(world.deeds(), limited);
    // No telephone is three people's.
    let (mut world, ids) = begin(3);
    for id in ids {
        world.speak(impostor, id, Reason::StandingForeign);
    }
    assert_eq!(world.deeds(), limited);
}

/// What may have been forged in somebody's name hides nothing they have done.
#[test]
fn a_telephones_patience_is_none_for_passwords() {
    let mut world = World::new(SHIPPED);
    let mut regular = world.connect(address("203.0.113.5"));
    world.log_in(&mut regular, "alice");
    world.wait(10_000);
    let guesser = address("198.51.100.66");
    for _ in 0..3 {
        world.speak(guesser, regular.user_id, Reason::StandingForeign);
    }
    for n in 0..15u32 {
        guess_once(&mut world, &format!("198.51.{n}.7"), "x");
    }
    for n in 0..3 {
        guess_once(&mut world, "198.51.100.66", &format!("somebody{n}"));
    }
    let mut guest = world.connect(guesser);
    world.log_in(&mut guest, "guest");
    world.wait(60_000);
    let deeds = world.deeds();
    assert!(deeds.iter().any(|deed| deed.contains("198.51.100.66")), "{deeds:?}");
}

/// Eight of whom one says the next line every second and a half.
#[test]
fn scripts_that_count_up_in_turn_are_no_drones() {
    let mut world = World::new(SHIPPED);
    let mut regulars: Vec<Connection> = (0..8)
        .map(|number| {
            let mut regular = world.connect(address(&format!("203.0.113.{}", 20 + number)));
            world.log_in(&mut regular, &format!("user{number}"));
            regular
        })
        .collect();
    for number in 0..120 {
        let line =
            format!("message type=2 chanid=1 content=\"background message number {number} of the lab\"");
        let regular = &mut regulars[number % 8];
        world.say(regular, Side::Client, &line);
        world.say(regular, Side::Server, "ok");
        world.wait(1_500);
    }
    world.engine.finish();
    assert_eq!(world.deeds(), [""; 0]);
}

#[test]
fn drones_that_count_up_are_drones() {
    let limited = |lines: usize, pause: u64, text: &dyn Fn(usize) -> String| {
        let mut world = World::new(SHIPPED);
        let mut drones: Vec<Connection> = (0..8)
            .map(|number| {
                let mut drone = world.connect(address(&format!("198.51.{number}.7")));
                world.log_in(&mut drone, &format!("drone{number}"));
                drone
            })
            .collect();
        for number in 0..lines * 8 {
            let line = format!("message type=2 chanid=1 content=\"{}\"", text(number));
            world.say(&mut drones[number % 8], Side::Client, &line);
            world.say(&mut drones[number % 8], Side::Server, "ok");
            world.wait(pause);
        }
        world.wait(61_000);
        world.deeds().iter().filter(|deed| deed.starts_with("limit")).count()
    };
    let counted = |number: usize| format!("everybody come over to the other place {number}");
    // Said once, said fast, the same all along, and with a site in it.
    assert_eq!(limited(1, 1_500, &counted), 8);
    assert_eq!(limited(5, 100, &counted), 8);
    assert_eq!(limited(8, 1_500, &|_| "everybody come over to the other place".to_owned()), 8);
    assert_eq!(
        limited(8, 1_500, &|number| format!("come to http://evil.example/{number} all of you now")),
        8
    );
}
