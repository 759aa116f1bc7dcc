//! TeamTalk conversations that no committed capture has: kicks, bans, moves, TLS, other versions, stalls, bindings.

use crate::support::{self, Recorded, RecordedBody};
use floodwall_engine::{
    Engine, Protocol, Side, Span, Timestamp, limits::FLOWS_BYTES_MAX, signal::Signal, stream::FlowKey,
};
use floodwall_wire::Address;

struct World {
    engine: Engine,
    now: Timestamp,
}

struct Client {
    key: FlowKey,
    sent: [u32; 2],
    user_id: u16,
}

impl World {
    fn new() -> Self {
        let mut engine = support::engine_of(Protocol::TeamTalk, Vec::new());
        engine.watch_signals();
        Self { engine, now: Timestamp::from_secs(1_800_000_000) }
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + Span::from_millis(millis);
        self.engine.handle_timeout(self.now);
    }

    /// A connection with its handshake.
    fn connect(&mut self, number: u32) -> Client {
        let key = FlowKey {
            client: Address::from_v4(0x0a4d_0000 + number),
            client_port: 20_000 + number as u16,
            ..support::capture_key()
        };
        let mut client = Client { key, sent: [1, 1], user_id: number as u16 };
        for (from, flags) in [(Side::Client, 2), (Side::Server, 0x12)] {
            let mut syn = support::segment(self.now, from, key, 0, 1, b"");
            if let RecordedBody::Segment { tcp, .. } = &mut syn.body {
                tcp.flags = flags;
            }
            self.engine.handle_packet(&syn.packet());
        }
        self.say(&mut client, Side::Client, b"");
        client
    }

    fn say(&mut self, client: &mut Client, from: Side, bytes: &[u8]) {
        let (own, other) = if from == Side::Client { (0, 1) } else { (1, 0) };
        let packet =
            support::segment(self.now, from, client.key, client.sent[own], client.sent[other], bytes);
        self.engine.handle_packet(&packet.packet());
        client.sent[own] += bytes.len() as u32;
        let ack = support::segment(self.now, Side::Server, client.key, client.sent[1], client.sent[0], b"");
        self.engine.handle_packet(&ack.packet());
    }

    fn ask(&mut self, client: &mut Client, line: &str) {
        self.say(client, Side::Client, format!("{line}\r\n").as_bytes());
    }

    fn answer(&mut self, client: &mut Client, lines: &str) {
        self.say(client, Side::Server, format!("{lines}\r\n").as_bytes());
    }

    fn welcome(&mut self, number: u32) -> Client {
        let mut client = self.connect(number);
        self.answer(&mut client, &format!("teamtalk userid={number} usertimeout=0 protocol=\"5.14\""));
        client
    }

    fn login(&mut self, number: u32) -> Client {
        let mut client = self.welcome(number);
        self.login_again(&mut client, "");
        client
    }

    fn login_again(&mut self, client: &mut Client, more: &str) {
        let number = client.user_id;
        self.ask(
            client,
            &format!("login username=\"u{number}\" password=\"pw\" nickname=\"N{number}\"{more}"),
        );
        let accepted =
            format!("accepted userid={number} nickname=\"N{number}\" username=\"u{number}\" password=\"pw\"");
        self.answer(client, &format!("{accepted}\r\nok"));
    }

    fn datagram(&mut self, address: u32, port: u16, kind: u8, user_id: u16) {
        let from = Side::Client;
        self.udp(from, address, port, kind, user_id);
    }

    fn udp(&mut self, from: Side, address: u32, port: u16, kind: u8, user_id: u16) {
        let key = FlowKey {
            client: Address::from_v4(0x0a4d_0000 + address),
            client_port: port,
            ..support::capture_key()
        };
        let mut payload = vec![kind, user_id as u8, (user_id >> 8) as u8, 0, 9, 9, 9, 9];
        if kind == 1 {
            payload.extend([1, 0x10, 1]);
        }
        let recorded = Recorded { at: self.now, from, key, body: RecordedBody::Datagram(payload) };
        self.engine.handle_packet(&recorded.packet());
    }

    /// Kind and reason of what happened since the last call, commands and openings left out.
    fn told(&mut self) -> Vec<String> {
        let quiet = ["command.sent", "connection.opened", "login.attempted"];
        let signals = self.engine.take_signals();
        let loud = signals.iter().filter(|signal| !quiet.contains(&signal.kind.as_str()));
        loud.map(|signal| short(signal)).collect()
    }
}

fn short(signal: &Signal) -> String {
    let mut text = signal.kind.as_str().to_owned();
    for word in [signal.detail.reason, signal.detail.command].into_iter().flatten() {
        text = format!("{text} {word}");
    }
    text
}

#[test]
fn sessions_end_and_begin_again_on_one_connection() {
    let mut world = World::new();
    let mut bob = world.login(3);
    world.ask(&mut bob, "join chanid=1");
    world.answer(&mut bob, "joined chanid=1\r\nok");
    assert_eq!(world.told(), ["login.succeeded", "channel.joined"]);
    // Kicked from the channel by a person, then from the server, by the server itself, then by logging out.
    world.answer(&mut bob, "kicked kickerid=4 chanid=1\r\nleft chanid=1");
    assert_eq!(world.told(), ["channel.left kicked"]);
    world.answer(&mut bob, "kicked kickerid=4\r\nloggedout");
    assert_eq!(world.told(), ["login.ended kicked"]);
    world.login_again(&mut bob, "");
    world.ask(&mut bob, "join chanid=1");
    world.answer(&mut bob, "joined chanid=1\r\nok\r\nkicked kickerid=0\r\nleft chanid=1\r\nloggedout");
    let told = world.told();
    assert_eq!(told, ["login.succeeded", "channel.joined", "channel.left", "login.ended kicked-by-server"]);
    world.login_again(&mut bob, "");
    world.ask(&mut bob, "logout");
    world.answer(&mut bob, "loggedout\r\nok");
    assert_eq!(world.told(), ["login.succeeded", "login.ended logout"]);
    // Banned meanwhile: each try is refused.
    for _ in 0..3 {
        world.ask(&mut bob, "login username=\"u3\" password=\"pw\"");
        world.answer(&mut bob, "error number=2005 message=\"Banned from server\"");
    }
    assert_eq!(world.told(), ["login.refused banned"; 3]);
}

#[test]
fn admins_commands_name_whom_and_where() {
    let mut world = World::new();
    let _bob = world.login(3);
    let mut admin = world.login(1);
    world.answer(&mut admin, "addchannel channel=\"/Lobby/\" chanid=7 parentid=1");
    world.told();
    for line in [
        "kick userid=3 chanid=0",
        "ban userid=3 type=4",
        "moveuser userid=3 chanid=7",
        "removechannel chanid=7",
    ] {
        world.ask(&mut admin, line);
        world.answer(&mut admin, "ok");
    }
    let signals = world.engine.take_signals();
    let of = |kind: &str| signals.iter().find(|signal| signal.kind.as_str() == kind).unwrap();
    assert_eq!(
        of("user.kicked").to_string(),
        "user.kicked from 10.77.0.1 account \"u1\" nickname \"N1\" target \"N3\""
    );
    assert!(of("user.banned").to_string().ends_with("target \"N3\" reason account"));
    assert_eq!(of("user.moved").detail.channel.as_ref().unwrap().as_str(), "/Lobby/");
    assert_eq!(of("channel.removed").detail.channel.as_ref().unwrap().as_str(), "/Lobby/");
}

#[test]
fn teamtalk_4_names_are_read_too() {
    let mut world = World::new();
    let mut old = world.connect(5);
    world.answer(&mut old, "welcome userid=5 servername=\"Old\" userrights=1");
    world.login_again(&mut old, "");
    world.ask(&mut old, "join channel=\"/x/\" password=\"k\"");
    world.answer(&mut old, "addchannel channel=\"/x/\" channelid=9\r\njoined channelid=9\r\nok");
    world.ask(&mut old, "message type=2 channel=\"/x/\" content=\"hi\"");
    world.answer(&mut old, "ok\r\nleft channel=\"/x/\"");
    let signals = world.engine.take_signals();
    let channels: Vec<_> = signals
        .iter()
        .filter_map(|signal| Some((signal.kind.as_str(), signal.detail.channel.as_ref()?.as_str())))
        .collect();
    assert_eq!(channels, [("channel.joined", "/x/"), ("message.channel", "/x/"), ("channel.left", "/x/")]);
}

#[test]
fn lines_that_the_server_cannot_read_are_answered_and_keep_their_turn() {
    let mut world = World::new();
    let mut bob = world.login(3);
    world.told();
    // Error 1000 whatever the command; "ping" alone has no answer that counts.
    world.ask(&mut bob, "ping\r\nping x=\"\r\n\r\nchangenick nickname=\"New\"");
    world.answer(&mut bob, "pong\r\nerror number=1000\r\nerror number=1001\r\nok");
    let told = world.told();
    assert_eq!(
        told,
        ["command.rejected syntax ping", "command.rejected unknown-command unknown", "nick.changed"]
    );
}

fn tls(kind: u8, length: u16) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend(length.to_be_bytes());
    record.resize(usize::from(length) + 5, 0x5a);
    record
}

#[test]
fn tls_shows_whether_handshakes_are_completed() {
    let mut world = World::new();
    let mut good = world.connect(1);
    for byte in tls(22, 300).chunks(1) {
        world.say(&mut good, Side::Client, byte);
    }
    world.say(&mut good, Side::Server, &[tls(22, 90), tls(20, 1), tls(23, 900)].concat());
    world.wait(40);
    world.say(&mut good, Side::Client, &tls(23, 60));
    world.say(&mut good, Side::Server, &tls(23, 200));
    let signals = world.engine.take_signals();
    let completed = signals.iter().find(|signal| signal.kind.as_str() == "tls.handshake").unwrap();
    assert_eq!(completed.detail.weight, 40, "milliseconds");
    // Answers, however long, are given to anybody. Who gets nothing else only takes a place.
    for _ in 0..3 {
        world.wait(30_000);
        world.say(&mut good, Side::Client, &tls(23, 23));
        world.say(&mut good, Side::Server, &tls(23, 4_000));
    }
    assert_eq!(world.told(), ["connection.held unheard"]);
    assert!(!world.engine.streams().flow(&good.key).unwrap().is_opaque());
    world.wait(6_000);
    world.say(&mut good, Side::Server, &tls(23, 200));
    assert_eq!(world.told(), ["tls.addressed"]);
    assert!(world.engine.streams().flow(&good.key).unwrap().is_opaque());

    let mut refused = world.connect(2);
    world.say(&mut refused, Side::Client, &tls(22, 300));
    world.say(&mut refused, Side::Server, &tls(21, 2));
    assert_eq!(world.told(), ["tls.failed alert"]);

    let mut stalled = world.connect(3);
    world.say(&mut stalled, Side::Client, &tls(22, 300));
    world.wait(16 * 60 * 1_000);
    let told = world.told();
    assert!(told.contains(&"tls.failed closed".to_owned()), "{told:?}");
    assert!(!told.iter().any(|told| told.starts_with("connection.refused")), "{told:?}");
}

#[test]
fn a_tls_hello_on_a_plain_server_is_garbage() {
    let mut world = World::new();
    let mut scanner = world.welcome(1);
    world.say(&mut scanner, Side::Client, &tls(22, 300));
    assert_eq!(world.told(), ["protocol.garbage tls"]);
    let mut browser = world.welcome(2);
    world.ask(&mut browser, "GET / HTTP/1.1");
    assert_eq!(world.told(), ["protocol.garbage http"]);
}

#[test]
fn a_place_that_is_held_is_told_every_minute() {
    let mut world = World::new();
    let mut held = world.welcome(1);
    let mut console = world.login(2);
    for _ in 0..300 {
        world.wait(300);
        world.ask(&mut held, "ping");
        world.ask(&mut console, "ping");
    }
    // The console is logged in, in no channel, and only pings.
    let told = ["login.succeeded", "connection.held", "connection.held idle", "connection.held"];
    assert_eq!(world.told(), told);
    world.ask(&mut console, "changestatus statusmode=0 statusmsg=\"back\"");
    world.wait(50_000);
    world.ask(&mut console, "ping");
    assert!(!world.told().iter().any(|told| told.ends_with("idle")));
}

#[test]
fn who_sits_in_a_channel_takes_no_place_and_leaves_none() {
    let mut world = World::new();
    let mut listener = world.login(1);
    world.ask(&mut listener, "join chanid=1 password=\"\"");
    world.answer(&mut listener, "joined chanid=1\r\nok");
    world.wait(14 * 60 * 1_000);
    world.engine.finish();
    assert!(!world.told().iter().any(|told| told.starts_with("connection.held")));
}

#[test]
fn what_shuts_everybody_out_is_told_apart() {
    let mut world = World::new();
    let mut boss = world.login(1);
    for number in 2..=4 {
        world.login(number);
    }
    world.told();
    for (line, expected) in [
        ("ban ipaddr=\"0.0.0.0/0\" type=2", "user.banned everybody"),
        ("ban ipaddr=\"192.0.2.0/24\" type=2", "user.banned address"),
        ("updateserver servername=\"x\" maxusers=1 usertimeout=60", "server.changed few-places updateserver"),
        ("updateserver servername=\"x\" maxusers=3 usertimeout=60", "server.changed few-places updateserver"),
        ("updateserver servername=\"x\" maxusers=4 usertimeout=60", "server.changed updateserver"),
        (
            "updateserver servername=\"x\" maxusers=1 usertimeout=2",
            "server.changed short-timeout updateserver",
        ),
    ] {
        world.ask(&mut boss, line);
        world.answer(&mut boss, "ok");
        assert_eq!(world.told(), [expected], "{line}");
    }
}

#[test]
fn versions_that_do_not_fit_are_told_and_text_clients_have_none() {
    let mut world = World::new();
    let mut old = world.welcome(1);
    world.login_again(&mut old, " protocol=\"4.2\"");
    assert_eq!(world.told(), ["login.succeeded", "version.mismatch protocol"]);
    let mut newer = world.welcome(2);
    world.login_again(&mut newer, " protocol=\"5.99\"");
    let mut text = world.login(3);
    world.answer(
        &mut text,
        "joined chanid=1\r\nadduser userid=3 nickname=\"N3\" version=\"2.0\" packetprotocol=0 chanid=1",
    );
    world.answer(
        &mut newer,
        "joined chanid=1\r\nadduser userid=2 nickname=\"N2\" version=\"5.3\" packetprotocol=1 chanid=1",
    );
    assert!(!world.told().iter().any(|told| told.starts_with("version")));
    let mut odd = world.login(4);
    world.ask(&mut odd, "join chanid=1");
    world.answer(
        &mut odd,
        "joined chanid=1\r\nadduser userid=4 nickname=\"N4\" version=\"5.3\" packetprotocol=2 chanid=1",
    );
    assert_eq!(world.told(), ["login.succeeded", "channel.joined", "version.mismatch packet-protocol"]);
}

#[test]
fn bindings_are_followed_as_the_server_does_it() {
    let mut world = World::new();
    let mut bob = world.login(3);
    world.told();
    // Another address is first; the owner's own HELLO comes too late and accuses nobody.
    world.datagram(99, 5_000, 1, 3);
    world.datagram(3, 6_000, 1, 3);
    assert_eq!(world.told(), ["datagram.prebound hello"]);
    world.datagram(99, 5_000, 2, 3);
    world.datagram(99, 5_000, 3, 3);
    assert_eq!(world.told(), ["datagram.kept-alive keepalive", "datagram.foreign voice"]);
    // A new connection is free again; the owner binds it, moves its port, and keeps it.
    bob = world.login(u32::from(bob.user_id) + 1);
    world.told();
    let number = bob.user_id;
    world.datagram(4, 6_000, 1, number);
    world.datagram(4, 6_001, 2, number);
    world.datagram(99, 5_000, 1, number);
    world.datagram(4, 6_001, 3, number);
    assert_eq!(world.told(), ["datagram.rebound keepalive", "datagram.foreign hello"]);
}

#[test]
fn asking_for_many_ids_is_a_scan_told_at_each_doubling() {
    let mut world = World::new();
    let _bob = world.login(3);
    world.told();
    for id in 1..=40 {
        world.datagram(99, 5_000, 1, id);
        world.datagram(99, 5_000, 1, id);
    }
    let told = world.told();
    assert_eq!(told.iter().filter(|told| *told == "datagram.scan hello").count(), 3, "at 8, 16 and 32");
}

/// What the server answered settles what was bound before anybody watched.
#[test]
fn the_servers_answer_shows_what_it_accepted() {
    let mut world = World::new();
    let key = FlowKey { client: Address::from_v4(0x0a4d_0003), ..support::capture_key() };
    let accepted = b"accepted userid=3 nickname=\"N3\" username=\"u3\"\r\n";
    world.engine.handle_packet(&support::segment(world.now, Side::Server, key, 1, 1, accepted).packet());
    world.told();
    world.datagram(99, 5_000, 2, 3);
    assert_eq!(world.told(), ["datagram.foreign keepalive"]);
    world.udp(Side::Server, 99, 5_000, 2, 0);
    assert_eq!(world.told(), ["datagram.prebound keepalive"]);
    world.datagram(99, 5_000, 2, 3);
    assert_eq!(world.told(), ["datagram.kept-alive keepalive"]);
}

/// Six talkers and a newcomer; `frozen` of them fall silent when it logs in.
fn stall(frozen: u32, newcomer_is_heard: bool) -> Vec<String> {
    let mut world = World::new();
    let mut clients: Vec<Client> = (1..=6).map(|number| world.login(number)).collect();
    for _ in 0..40 {
        world.wait(2_000);
        for client in &mut clients {
            world.ask(client, "ping");
        }
    }
    world.told();
    let mut newcomer = world.login(20);
    for second in 0..40 {
        world.wait(1_000);
        if newcomer_is_heard || second > 30 {
            world.ask(&mut newcomer, "ping");
        }
        if second % 2 == 0 {
            for client in clients.iter_mut().skip(frozen as usize) {
                world.ask(client, "ping");
            }
        }
    }
    world.told()
}

#[test]
fn sessions_that_fall_silent_together_after_a_login_are_told() {
    assert_eq!(stall(6, true), ["login.succeeded", "client.stalled"]);
    assert_eq!(stall(3, true), ["login.succeeded", "client.stalled"]);
    assert_eq!(stall(2, true), ["login.succeeded"], "two may be chance");
    assert_eq!(stall(0, true), ["login.succeeded"]);
    assert_eq!(stall(6, false), ["login.succeeded"], "a line that was down silences everybody");
}

#[test]
fn who_is_moved_by_others_has_not_joined_by_themselves() {
    let mut world = World::new();
    let mut bob = world.login(3);
    world.told();
    world.answer(&mut bob, "left chanid=1\r\njoined chanid=2");
    assert_eq!(world.told(), ["channel.left moved", "channel.joined moved"]);
    world.ask(&mut bob, "join chanid=3");
    world.answer(&mut bob, "left chanid=2\r\njoined chanid=3\r\nok");
    assert_eq!(world.told(), ["channel.left", "channel.joined"]);
}

#[test]
fn what_follows_a_false_tls_hello_is_read() {
    let mut world = World::new();
    // A record header that promises more than comes, and an alert, before the server has said a word.
    for hello in [&b"\x16\x03\x01\x3f\xff\n"[..], b"\x15\x03\x01\x00\x02\n"] {
        let mut other = world.connect(if hello[0] == 0x16 { 10 } else { 11 });
        world.say(&mut other, Side::Client, hello);
        world.say(&mut other, Side::Client, b"login username=\"bob\" password=\"x\" id=1\n");
        world.answer(&mut other, "teamtalk userid=5 protocol=\"5.14\"");
        world.answer(&mut other, "error number=1001 message=\"\"\r\nerror number=2002 message=\"\"");
        let signals = world.engine.take_signals();
        let failed: Vec<_> = signals.iter().filter(|signal| signal.kind.as_str() == "login.failed").collect();
        let accounts: Vec<_> =
            failed.iter().map(|signal| signal.detail.account.as_ref().unwrap().as_str()).collect();
        assert_eq!(accounts, ["bob"], "{signals:?}");
    }
}

#[test]
fn messages_longer_than_a_line_is_kept_are_counted() {
    let mut world = World::new();
    let mut mallory = world.login(9);
    world.told();
    for number in 0..20 {
        let long = "y".repeat(17_000);
        world.ask(&mut mallory, &format!("message content=\"{long}\" type=2 chanid=1 id={number}"));
        world.answer(&mut mallory, "ok");
    }
    let told = world.told();
    assert_eq!(told.iter().filter(|told| *told == "message.channel").count(), 20, "{told:?}");
}

#[test]
fn a_thousand_questions_at_once_are_each_answered() {
    let mut world = World::new();
    let mut mallory = world.login(9);
    world.told();
    for number in 0..1_000 {
        world.ask(&mut mallory, &format!("message content=\"{number}\" type=2 chanid=1 id={number}"));
    }
    world.answer(&mut mallory, &"ok\r\n".repeat(1_000));
    assert_eq!(world.told().iter().filter(|told| *told == "message.channel").count(), 1_000);
}

#[test]
fn nobody_is_blinded_because_others_fill_the_memory() {
    let mut world = World::new();
    for number in 1..=600 {
        let mut idle = world.welcome(number);
        for part in 0..8 {
            let lines: String =
                (0..150).map(|line| format!("leave id={}\n", 1 + part * 150 + line)).collect();
            world.say(&mut idle, Side::Client, lines.as_bytes());
        }
    }
    world.told();
    let mut guesser = world.welcome(700);
    for _ in 0..20 {
        world.ask(&mut guesser, "login username=\"bob\" password=\"x\" id=1");
        world.answer(&mut guesser, "error number=2002 message=\"\"");
    }
    assert_eq!(world.told().iter().filter(|told| *told == "login.failed").count(), 20);
    assert!(world.engine.streams().buffered_bytes() <= 2 * FLOWS_BYTES_MAX);
}

#[test]
fn what_no_documentation_has_is_catalogued_with_where_it_stood() {
    let mut world = World::new();
    world.engine.keep_catalogue(Default::default());
    let mut client = world.login(3);
    world.answer(&mut client, "adduser userid=3 nickname=\"N3\" chanid=1 colour=7");
    world.answer(&mut client, "moodchanged userid=3 colour=8\r\nmoodchanged userid=3");
    world.ask(&mut client, "changemood mood=\"hunter2\"");
    world.answer(&mut client, "ok");
    world.ask(&mut client, "hunter2 x");
    world.answer(&mut client, "error number=1001 message=\"Unknown command\"");
    world.ask(&mut client, "leave");
    world.answer(&mut client, "error number=4711 message=\"\"");
    let catalogue = world.engine.catalogue().unwrap();
    let entries: Vec<String> = catalogue
        .entries()
        .map(|(key, entry)| {
            format!("{} {} {} {}", key.sort.as_str(), key.name.as_str(), key.within.as_str(), entry.count)
        })
        .collect();
    assert_eq!(
        entries,
        [
            "event moodchanged  2",
            "command changemood  1",
            "parameter colour adduser 1",
            "parameter colour moodchanged 1",
            "number 4711 error 1",
        ]
    );
}

#[test]
fn questions_without_an_answer_are_among_the_bytes_that_are_bounded() {
    let mut world = World::new();
    let mut client = world.welcome(1);
    let quiet = world.engine.streams().buffered_bytes();
    for number in 0..600 {
        world.ask(&mut client, &format!("message type=2 chanid=1 content=\"x\" id={number}"));
    }
    let asking = world.engine.streams().buffered_bytes();
    assert!(asking > quiet + 512 * 64, "{asking} bytes for what 512 questions take");
    for _ in 0..600 {
        world.answer(&mut client, "ok");
    }
    let answered = world.engine.streams().buffered_bytes();
    assert!(answered < quiet + 8 * 1_024, "{answered} bytes are left of a flood that was answered");
}

#[test]
fn nobody_who_asks_over_many_connections_exceeds_the_bytes_of_all() {
    const ONE_SESSION_MOST: usize = 512 * 1_024;
    let mut world = World::new();
    let mut most = 0;
    for number in 1..=1_000 {
        let mut client = world.welcome(number);
        for _ in 0..2 {
            let lines: String =
                (0..300).map(|line| format!("join channel=\"/somewhere/{line}/\"\n")).collect();
            world.say(&mut client, Side::Client, lines.as_bytes());
        }
        most = most.max(world.engine.streams().buffered_bytes());
    }
    assert!(most > FLOWS_BYTES_MAX / 2, "only {most} bytes: nothing is tested");
    assert!(most <= 2 * FLOWS_BYTES_MAX + ONE_SESSION_MOST, "{most}");
}

#[test]
fn a_teamtalk_4_server_shows_whose_udp_address_was_taken() {
    let mut world = World::new();
    let mut client = world.connect(1);
    world.answer(&mut client, "welcome userid=1 protocol=\"4.2\"");
    world.login_again(&mut client, " protocol=\"4.2\"");
    world.told();
    let own = "adduser userid=1 nickname=\"N1\" channelid=1 udpaddr=\"10.77.0.1:5000\"";
    world.answer(&mut client, own);
    world.answer(&mut client, "updateuser userid=1 nickname=\"N1\" udpaddr=\"10.77.0.1:5001\"");
    world.answer(&mut client, "updateuser userid=1 nickname=\"N1\" udpaddr=\"0.0.0.0:0\"");
    assert_eq!(world.told(), Vec::<String>::new(), "its own address, whatever the port");
    let taken = "updateuser userid=1 nickname=\"N1\" udpaddr=\"[fd77::99]:5000\"";
    world.answer(&mut client, taken);
    world.answer(&mut client, taken);
    assert_eq!(world.told(), ["datagram.prebound"], "once, however often it is repeated");
}

#[test]
fn a_teamtalk_4_hello_is_read_where_the_server_speaks_it() {
    for (version, told) in [("4.2", "datagram.prebound"), ("5.14", "datagram.absent")] {
        let mut world = World::new();
        let mut client = world.connect(300);
        world.answer(&mut client, &format!("teamtalk userid=300 protocol=\"{version}\""));
        let mut other = world.connect(7);
        world.answer(&mut other, &format!("teamtalk userid=7 protocol=\"{version}\""));
        world.told();
        let hello = RecordedBody::Datagram(vec![1, 2, 44, 1, 0, 0, 0, 0, 0, 0]);
        let hello = Recorded { at: world.now, from: Side::Client, key: other.key, body: hello };
        world.engine.handle_packet(&hello.packet());
        assert_eq!(world.told(), [format!("{told} hello")], "{version}");
    }
}
