//! Attacks that no committed capture holds, and evenings that look like one: each made by hand, far over and well
//! under what the shipped rules allow, beside regulars who must not notice.

use crate::{
    conversation::Connection,
    servers::{ATTACKER, Irc, TeamTalk, voice},
};

/// Everything there is is printed before it is judged, so that one run tells all.
#[test]
#[expect(clippy::too_many_lines, reason = "a list")]
fn attacks_on_teamtalk_are_stopped() {
    type Attack = fn(&mut TeamTalk);
    let attacks: [(&str, Attack); 24] = [
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
        ("SYNs without end", |server| {
            for _ in 0..2_000 {
                server.wire.knock(ATTACKER);
                server.wire.wait_millis(5);
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
        ("private messages", |server| {
            flood(server, "message type=1 content=\"buy{}\" destuserid=1", "ok\r\n")
        }),
        ("broadcasts", |server| flood(server, "message type=3 content=\"buy{}\"", "ok\r\n")),
        ("channels without end", |server| {
            flood(
                server,
                "join parentid=1 name=\"c{}\" id=5",
                "begin id=5\r\njoined chanid=9\r\nok\r\nend id=5\r\n",
            )
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
        ("noise on many connections", |server| {
            for number in 1..60_u32 {
                let (mut connection, _) = server.connect(ATTACKER);
                let noise: Vec<u8> = (0..600)
                    .map(|index| (index * number).wrapping_mul(2_654_435_761).to_be_bytes()[1])
                    .collect();
                server.wire.ask(&mut connection, &noise);
                server.wire.close(connection);
                server.wire.wait_millis(150);
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
                server.wire.datagram(ATTACKER, &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
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

/// Good neighbours behind the same address and in the same /64: the attacker is met, they are not.
#[test]
fn neighbours_of_an_attacker_are_spared() {
    for (attacker, neighbours) in
        [("10.77.0.66", ["10.77.0.67", "10.77.0.68"]), ("fd77::66", ["fd77::67", "fd77::68"])]
    {
        let mut server = TeamTalk::new();
        let mut sessions = Vec::new();
        for (number, neighbour) in neighbours.iter().enumerate() {
            let (mut connection, id) = server.connect(neighbour);
            server.log_in(&mut connection, id, neighbour, &format!("neighbour{number}"));
            sessions.push((connection, id, *neighbour));
        }
        for _ in 0..60 {
            let (mut connection, _) = server.connect(attacker);
            server.guess(&mut connection, "admin");
            server.wire.close(connection);
            server.wire.wait_millis(100);
        }
        for (connection, id, neighbour) in &mut sessions {
            server.wire.datagram(neighbour, &voice(*id));
            server.command(connection, "message type=2 content=\"hi\" chanid=1", "ok\r\n");
        }
        let outcomes = server.judge();
        assert_eq!(outcomes[attacker], "banned", "{outcomes:?}");
        for neighbour in neighbours {
            assert_eq!(outcomes[neighbour], "clean", "{outcomes:?}");
        }
    }
}

#[test]
fn a_house_is_not_banned_for_one_of_its_own() {
    const HOUSE: &str = "10.77.12.1";
    let mut server = TeamTalk::new();
    let mut sessions = Vec::new();
    for number in 0..4 {
        let (mut connection, id) = server.connect(HOUSE);
        server.log_in(&mut connection, id, HOUSE, &format!("house{number}"));
        sessions.push((connection, id));
        server.wire.wait_millis(20_000);
    }
    for _ in 0..60 {
        let (mut connection, _) = server.connect(HOUSE);
        server.guess(&mut connection, "admin");
        server.wire.close(connection);
        server.wire.wait_millis(200);
    }
    for (connection, id) in &mut sessions {
        server.wire.datagram(HOUSE, &voice(*id));
        server.command(connection, "message type=2 content=\"hi\" chanid=1", "ok\r\n");
    }
    let outcome = server.judge()[HOUSE].clone();
    assert!(outcome == "limited" || outcome == "noted", "a house of four good users was {outcome}");
}

/// Thousands of claimed sources prove nothing; beyond the strangers' budget the kernel answers with SYN cookies.
#[test]
fn nobody_is_banned_for_syns_in_their_name() {
    let mut server = TeamTalk::new();
    for number in 0..8_000 {
        server.wire.knock(&format!("10.{}.{}.9", 90 + number / 250 % 100, number % 250));
    }
    assert!(server.judge().values().all(|outcome| outcome != "banned" && outcome != "limited"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list")]
fn attacks_on_irc_are_stopped() {
    type Attack = fn(&mut Irc);
    let attacks: [(&str, Attack); 16] = [
        ("operator guesses on one connection", |server| {
            let mut connection = server.join(ATTACKER, "guess");
            for number in 0..30 {
                let wrong = ":lab.example 464 guess :Password incorrect";
                server.say(&mut connection, &format!("OPER admin {number}"), wrong);
                server.wire.wait_millis(500);
            }
        }),
        ("SASL guesses", |server| {
            for number in 0..30 {
                let mut connection = server.wire.connect(ATTACKER);
                server.say(&mut connection, "CAP REQ :sasl", ":lab.example CAP * ACK :sasl");
                server.say(&mut connection, "AUTHENTICATE PLAIN", "AUTHENTICATE +");
                let failed = format!(":lab.example 904 g{number} :SASL authentication failed");
                server.say(&mut connection, "AUTHENTICATE eAB4AHRocm93LWF3YXk=", &failed);
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
        }),
        ("NickServ guesses", |server| {
            let mut connection = server.join(ATTACKER, "guess");
            for number in 0..30 {
                let wrong = ":NickServ!s@services NOTICE guess :Invalid password for guess.";
                server.say(&mut connection, &format!("PRIVMSG NickServ :IDENTIFY admin {number}"), wrong);
                server.wire.wait_millis(500);
            }
        }),
        ("server password guesses", |server| {
            for number in 0..30 {
                let mut connection = server.wire.connect(ATTACKER);
                let lines = format!("PASS wrong{number}\r\nNICK g{number}\r\nUSER g 0 * :x");
                server.say(&mut connection, &lines, ":lab.example 464 * :Password incorrect");
                server.wire.answer(&mut connection, b"ERROR :Closing Link: (Bad Password)\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
        }),
        ("channel keys", |server| {
            let mut connection = server.join(ATTACKER, "guess");
            for number in 0..30 {
                let wrong = ":lab.example 475 guess #secret :Cannot join channel (+k) - bad key";
                server.say(&mut connection, &format!("JOIN #secret key{number}"), wrong);
                server.wire.wait_millis(300);
            }
        }),
        ("messages without end", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            server.wire.ask(&mut connection, "PRIVMSG #talk :buy\r\n".repeat(400).as_bytes());
        }),
        ("messages to many", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            for number in 0..200 {
                server.say(&mut connection, &format!("PRIVMSG user{number} :buy"), "");
                server.wire.wait_millis(30);
            }
        }),
        ("CTCP", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            for _ in 0..60 {
                server.say(&mut connection, "PRIVMSG #talk :\u{1}VERSION\u{1}", "");
                server.wire.wait_millis(50);
            }
        }),
        ("nicknames", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            let mut nickname = "flood".to_owned();
            for number in 0..80 {
                let changed = format!(":{nickname}!x@{ATTACKER} NICK :flood{number}");
                nickname = format!("flood{number}");
                server.say(&mut connection, &format!("NICK {nickname}"), &changed);
                server.wire.wait_millis(100);
            }
        }),
        ("join and part", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            for _ in 0..80 {
                server.say(&mut connection, "PART #talk", &format!(":flood!x@{ATTACKER} PART #talk"));
                server.say(&mut connection, "JOIN #talk", &format!(":flood!x@{ATTACKER} JOIN #talk"));
                server.wire.wait_millis(100);
            }
        }),
        ("invitations", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            for number in 0..120 {
                let answer = format!(":lab.example 341 flood regular{} #talk", number % 3);
                server.say(&mut connection, &format!("INVITE regular{} #talk", number % 3), &answer);
                server.wire.wait_millis(50);
            }
        }),
        ("questions that make the server work", |server| {
            let mut connection = server.join(ATTACKER, "flood");
            for _ in 0..300 {
                server.say(&mut connection, "WHO *", ":lab.example 315 flood * :End of /WHO list.");
                server.wire.wait_millis(20);
            }
        }),
        ("connections without end", |server| {
            for _ in 0..300 {
                let mut connection = server.wire.connect(ATTACKER);
                let refused = "ERROR :Closing Link: 10.77.0.66 (Too many connections from your IP)\r\n";
                server.wire.answer(&mut connection, refused.as_bytes());
                server.wire.close(connection);
                server.wire.wait_millis(50);
            }
        }),
        ("registrations that never end", |server| {
            for number in 0..120 {
                let mut connection = server.wire.connect(ATTACKER);
                server.say(&mut connection, &format!("NICK slow{number}"), "");
                server.wire.wait_millis(300);
            }
            server.wire.wait_millis(60_000);
        }),
        ("web browsers", |server| {
            for _ in 0..30 {
                let mut connection = server.wire.connect(ATTACKER);
                server.say(&mut connection, "POST / HTTP/1.1\r\nHost: x\r\n\r\nPRIVMSG #talk :buy", "");
                server.wire.close(connection);
                server.wire.wait_millis(100);
            }
        }),
        ("coming and going", |server| {
            for number in 0..200 {
                let mut connection = server.join(ATTACKER, &format!("bot{number}"));
                server.say(&mut connection, "QUIT :x", "ERROR :Closing Link");
                server.wire.close(connection);
                server.wire.wait_millis(100);
            }
        }),
    ];
    let mut missed = Vec::new();
    for (name, attack) in attacks {
        let mut server = Irc::new();
        attack(&mut server);
        let outcomes = server.judge();
        let outcome = outcomes.get(ATTACKER).cloned().unwrap_or_default();
        println!("{name}: {outcome}");
        if !matches!(outcome.as_str(), "limited" | "dropped" | "banned") {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "not stopped: {missed:?}");
}

/// Drones that register alike and say the same; each on its own does nothing that is too much.
#[test]
fn drones_that_say_the_same_are_flagged() {
    let mut server = Irc::new();
    let drones: Vec<String> = (0..12).map(|number| format!("10.77.{}.40", 20 + number)).collect();
    for (number, drone) in drones.iter().enumerate() {
        let mut connection = server.join(drone, &format!("drone{number}"));
        for _ in 0..3 {
            server.say(&mut connection, "PRIVMSG #talk :cheap watches at watches.example.test", "");
            server.wire.wait_millis(100);
        }
    }
    let outcomes = server.judge();
    let flagged = drones.iter().filter(|drone| outcomes[*drone] != "clean").count();
    assert!(flagged >= drones.len() / 2, "{flagged} of {} drones flagged: {outcomes:?}", drones.len());
}
