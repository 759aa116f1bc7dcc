//! Attacks that no committed capture holds, and evenings that look like one: each made by hand, far over and well
//! under what the shipped rules allow, beside regulars who must not notice.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test panics where it fails")]

mod captures;

use std::collections::BTreeMap;

use captures::conversation::{Connection, Wire};

const REGULARS: [&str; 3] = ["10.77.0.21", "10.77.0.22", "10.77.0.23"];
const ATTACKER: &str = "10.77.0.66";

/// A TeamTalk server and its regulars.
struct TeamTalk {
    wire: Wire,
    last_id: u16,
    regulars: Vec<(Connection, u16)>,
}

impl TeamTalk {
    /// Three regulars, logged in, after the gate has learnt who is there.
    fn new() -> Self {
        let mut server = Self { wire: Wire::new(10_333), last_id: 0, regulars: Vec::new() };
        for (index, address) in REGULARS.iter().enumerate() {
            let (mut connection, id) = server.connect(address);
            server.log_in(&mut connection, id, address, &format!("user{index}"));
            server.regulars.push((connection, id));
        }
        // Twice the user time-out, in which they keep their sessions.
        for _ in 0..9 {
            server.wire.wait_millis(15_000);
            server.breathe();
        }
        server
    }

    /// Regulars ping, speak and chat.
    fn breathe(&mut self) {
        for index in 0..self.regulars.len() {
            let (mut connection, id) = self.regulars[index];
            self.command(&mut connection, "ping", "pong\r\n");
            self.wire.datagram(REGULARS[index], &voice(id));
            let delivered = format!("messagedeliver type=2 srcuserid={id} content=\"hi\" more=0 chanid=1\r\nok\r\n");
            self.command(&mut connection, "message type=2 content=\"hi\" chanid=1", &delivered);
            self.regulars[index] = (connection, id);
        }
    }

    fn connect(&mut self, client: &str) -> (Connection, u16) {
        let mut connection = self.wire.connect(client);
        self.last_id += 1;
        let id = self.last_id;
        let welcome = format!(
            "teamtalk userid={id} servername=\"Lab Server\" maxusers=1000 maxiplogins=0 usertimeout=60 protocol=\"5.14\"\r\n"
        );
        self.wire.answer(&mut connection, welcome.as_bytes());
        (connection, id)
    }

    fn command(&mut self, connection: &mut Connection, line: &str, answer: &str) {
        self.wire.ask(connection, format!("{line}\r\n").as_bytes());
        self.wire.answer(connection, answer.as_bytes());
    }

    fn log_in(&mut self, connection: &mut Connection, id: u16, address: &str, account: &str) {
        self.wire.datagram(address, &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
        let line = format!(
            "login nickname=\"{account}\" username=\"{account}\" password=\"throw-away\" clientname=\"Lab\" protocol=\"5.14\" \
             version=\"5.23\" id=1"
        );
        let answer = format!(
            "begin id=1\r\naccepted userid={id} nickname=\"{account}\" ipaddr=\"{address}\" username=\"{account}\" \
             password=\"throw-away\" usertype=1 userrights=12842503 userdata=0 audiocodeclimit=0 cmdflood=[0,0]\r\nok\r\n\
             end id=1\r\n"
        );
        self.command(connection, &line, &answer);
        self.command(
            connection,
            "join chanid=1 password=\"\" id=2",
            "begin id=2\r\njoined chanid=1\r\nok\r\nend id=2\r\n",
        );
    }

    fn guess(&mut self, connection: &mut Connection, account: &str) {
        let line = format!("login username=\"{account}\" password=\"guess\"");
        self.command(connection, &line, "error number=2002 message=\"Invalid user account\"\r\n");
    }

    /// Outcomes, after the regulars were found untouched.
    fn judge(mut self) -> BTreeMap<String, String> {
        self.breathe();
        let outcomes = self.wire.outcomes();
        for regular in REGULARS {
            assert_eq!(outcomes[regular], "clean", "a regular was hurt: {outcomes:?}");
        }
        outcomes
    }
}

/// A voice packet of a user in channel 1.
fn voice(id: u16) -> Vec<u8> {
    let ids = u32::from(id) | 1 << 12;
    let [low, middle, high, _] = ids.to_le_bytes();
    let mut packet = vec![3, low, middle, high, 1, 2, 3, 4, 40, 0x40];
    packet.resize(50, 0xaa);
    packet.extend([3, 0x10, 1, 0, 0]);
    packet
}

/// Everything there is is printed before it is judged, so that one run tells all.
#[test]
fn attacks_on_teamtalk_are_stopped() {
    type Attack = fn(&mut TeamTalk);
    let attacks: [(&str, Attack); 22] = [
        ("pipelined guesses on one connection", |server| {
            let (mut connection, _) = server.connect(ATTACKER);
            for _ in 0..10 {
                let lines = "login username=\"admin\" password=\"guess\"\r\n".repeat(30);
                server.wire.ask(&mut connection, lines.as_bytes());
                let errors = "error number=2002 message=\"Invalid user account\"\r\n".repeat(30);
                server.wire.answer(&mut connection, errors.as_bytes());
                server.wire.wait_millis(100);
            }
        }),
        ("connect and close", |server| {
            for _ in 0..600 {
                let (connection, _) = server.connect(ATTACKER);
                server.wire.close(connection);
                server.wire.wait_millis(20);
            }
        }),
        ("connect and reset", |server| {
            for _ in 0..600 {
                let (connection, _) = server.connect(ATTACKER);
                server.wire.reset(connection);
                server.wire.wait_millis(20);
            }
        }),
        ("connections held in silence", |server| {
            for _ in 0..300 {
                server.connect(ATTACKER);
                server.wire.wait_millis(100);
            }
            server.wire.wait_millis(40_000);
        }),
        ("connections held with pings", |server| {
            let mut held: Vec<Connection> = (0..150).map(|_| server.connect(ATTACKER).0).collect();
            for _ in 0..4 {
                server.wire.wait_millis(20_000);
                for connection in &mut held {
                    server.command(connection, "ping", "pong\r\n");
                }
            }
        }),
        ("retries of somebody banned", |server| {
            for _ in 0..60 {
                let (mut connection, _) = server.connect(ATTACKER);
                let refused = "error number=2005 message=\"Banned from server\"\r\n";
                server.command(&mut connection, "login username=\"x\" password=\"y\"", refused);
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
        }),
        ("login and logout", |server| {
            let (mut connection, id) = server.connect(ATTACKER);
            for _ in 0..200 {
                server.log_in(&mut connection, id, ATTACKER, "guest");
                server.command(&mut connection, "logout", "loggedout\r\nok\r\n");
                server.wire.wait_millis(50);
            }
        }),
        ("nickname flood", |server| flood(server, "changenick nickname=\"a{}\"", "ok\r\n")),
        ("status flood", |server| flood(server, "changestatus statusmode=1 statusmsg=\"a{}\"", "ok\r\n")),
        ("private messages", |server| flood(server, "message type=1 content=\"buy{}\" destuserid=1", "ok\r\n")),
        ("broadcasts", |server| flood(server, "message type=3 content=\"buy{}\"", "ok\r\n")),
        ("channels without end", |server| {
            flood(server, "join parentid=1 name=\"c{}\" id=5", "begin id=5\r\njoined chanid=9\r\nok\r\nend id=5\r\n")
        }),
        ("leave and join", |server| {
            let (mut connection, id) = server.connect(ATTACKER);
            server.log_in(&mut connection, id, ATTACKER, "guest");
            for _ in 0..100 {
                server.command(&mut connection, "leave", "left chanid=1\r\nok\r\n");
                server.command(&mut connection, "join chanid=1", "joined chanid=1\r\nok\r\n");
                server.wire.wait_millis(20);
            }
        }),
        ("commands the server finds too fast", |server| {
            let (mut connection, id) = server.connect(ATTACKER);
            server.log_in(&mut connection, id, ATTACKER, "guest");
            let refused = "error number=2014 message=\"Commands are issued too fast. Flood protection.\"\r\n";
            for number in 0..100 {
                let answer = if number < 10 { "ok\r\n" } else { refused };
                server.command(&mut connection, "message type=2 content=\"buy\" chanid=1", answer);
                server.wire.wait_millis(20);
            }
        }),
        ("bursts that dodge the server's limit", |server| {
            let (mut connection, id) = server.connect(ATTACKER);
            server.log_in(&mut connection, id, ATTACKER, "guest");
            for _ in 0..3 {
                let lines = "message type=2 content=\"buy\" chanid=1\r\n".repeat(200);
                server.wire.ask(&mut connection, lines.as_bytes());
                server.wire.answer(&mut connection, "ok\r\n".repeat(200).as_bytes());
                server.wire.wait_millis(4_000);
            }
        }),
        ("a flood in small pieces over new connections", |server| {
            for _ in 0..30 {
                let (mut connection, id) = server.connect(ATTACKER);
                server.log_in(&mut connection, id, ATTACKER, "guest");
                for _ in 0..25 {
                    server.command(&mut connection, "message type=2 content=\"buy\" chanid=1", "ok\r\n");
                    server.wire.wait_millis(10);
                }
                server.wire.close(connection);
            }
        }),
        ("channel passwords", |server| {
            let (mut connection, id) = server.connect(ATTACKER);
            server.log_in(&mut connection, id, ATTACKER, "guest");
            for number in 0..60 {
                let line = format!("join chanid=2 password=\"{number}\"");
                let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
                server.command(&mut connection, &line, refused);
                server.wire.wait_millis(100);
            }
        }),
        ("web browsers and scanners", |server| {
            for _ in 0..20 {
                for start in [
                    &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                    b"SSH-2.0-scanner\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random",
                    b"\x05\x01\x00",
                ] {
                    let (mut connection, _) = server.connect(ATTACKER);
                    server.wire.ask(&mut connection, start);
                    server.wire.answer(&mut connection, b"error number=1001 message=\"Unknown command\"\r\n");
                    server.wire.close(connection);
                    server.wire.wait_millis(100);
                }
            }
        }),
        ("rubbish in lines", |server| {
            let (mut connection, _) = server.connect(ATTACKER);
            for _ in 0..200 {
                server.command(
                    &mut connection,
                    "\u{1}\u{2}rubbish = = \"",
                    "error number=1000 message=\"Syntax error\"\r\n",
                );
                server.wire.wait_millis(20);
            }
        }),
        ("voice of a stranger", |server| {
            for number in 0..200 {
                server.wire.datagram(ATTACKER, &voice(number % 3 + 1));
                server.wire.wait_millis(20);
            }
        }),
        ("a scan for user ids", |server| {
            for id in 1..=400_u16 {
                server.wire.datagram(
                    ATTACKER,
                    &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1],
                );
                server.wire.wait_millis(5);
            }
        }),
        ("keepalives for others", |server| {
            for number in 0..200_u16 {
                server.wire.datagram(ATTACKER, &[2, (number % 3 + 1) as u8, 0, 0, 9, 9, 9, 9]);
                server.wire.wait_millis(50);
            }
        }),
    ];
    let mut missed = Vec::new();
    for (name, attack) in attacks {
        let mut server = TeamTalk::new();
        attack(&mut server);
        let outcomes = server.judge();
        let outcome = outcomes.get(ATTACKER).cloned().unwrap_or_default();
        println!("{name}: {outcome}");
        if !matches!(outcome.as_str(), "limited" | "dropped" | "banned") {
            missed.push((name, outcomes));
        }
    }
    assert!(missed.is_empty(), "not stopped: {missed:#?}");
}

/// Two hundred commands of somebody logged in, `{}` a number.
fn flood(server: &mut TeamTalk, line: &str, answer: &str) {
    let (mut connection, id) = server.connect(ATTACKER);
    server.log_in(&mut connection, id, ATTACKER, "guest");
    for number in 0..200 {
        server.command(&mut connection, &line.replace("{}", &number.to_string()), answer);
        server.wire.wait_millis(20);
    }
}
