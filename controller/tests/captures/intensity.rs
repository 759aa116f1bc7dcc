//! Every attack the shipped rules know, just under, at and far over their limits, with honest people behind the same
//! address and in the same networks. The outcomes are a table: `cargo xtask judge` prints it and keeps it in
//! `docs/judgement.md`.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex, thread};

use crate::{
    conversation::Connection,
    evasions,
    evenings::evenings,
    servers::{ATTACKER, Irc, REGULARS, Server, TeamSpeak, TeamTalk, voice},
};

/// What is to become of whoever does it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Expected {
    /// Limited, dropped or banned.
    Stopped,
    /// Told, and left to people to judge.
    Noted,
    /// Neither limited, dropped nor banned.
    Spared,
    /// Not even noted, nor is anybody else.
    Untouched,
}

impl Expected {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Noted => "noted",
            Self::Spared => "spared",
            Self::Untouched => "untouched",
        }
    }

    fn is_met(self, outcome: &str) -> bool {
        match self {
            Self::Stopped => is_stopped(outcome),
            Self::Noted => outcome == "noted",
            Self::Spared => !is_stopped(outcome),
            Self::Untouched => outcome == "clean",
        }
    }
}

fn is_stopped(outcome: &str) -> bool {
    matches!(outcome, "limited" | "dropped" | "banned")
}

/// Does something `count` times from an address; answers who did it, if others than that address.
pub(crate) type Deed<S> = fn(&mut S, &str, u32) -> Vec<String>;

pub(crate) struct Attack<S> {
    name: &'static str,
    /// How often is too often; one less is not. 0 where the gate drops what it is made of from the first packet on.
    limit: u32,
    expected: Expected,
    deed: Deed<S>,
}

/// An attack on a kind of server.
pub(crate) const fn attack<S>(
    name: &'static str,
    limit: u32,
    expected: Expected,
    deed: Deed<S>,
) -> Attack<S> {
    Attack { name, limit, expected, deed }
}

/// Who else is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Neighbours {
    /// Three regulars in the same IPv4 /24.
    Street,
    /// Two people in the same IPv6 /64.
    Network,
    /// Four people behind the same address.
    House,
}

const HOUSE: &str = "10.77.30.1";

struct Row {
    service: &'static str,
    name: String,
    intensity: &'static str,
    expected: Expected,
    outcome: String,
    rules: String,
    neighbours: usize,
    hurt: usize,
}

impl Row {
    fn is_right(&self) -> bool {
        self.expected.is_met(&self.outcome) && self.hurt == 0
    }

    fn line(&self) -> String {
        serde_json::json!({
            "service": self.service,
            "name": self.name,
            "intensity": self.intensity,
            "expected": self.expected.as_str(),
            "outcome": self.outcome,
            "rules": self.rules,
            "neighbours": self.neighbours,
            "hurt": self.hurt,
        })
        .to_string()
    }
}

/// One attack beside its neighbours.
fn judge<S: Server>(attack: &Attack<S>, intensity: &'static str, count: u32, neighbours: Neighbours) -> Row {
    let mut server = S::new();
    let (attacker, others): (&str, Vec<String>) = match neighbours {
        Neighbours::Street => (ATTACKER, Vec::new()),
        Neighbours::Network => ("fd77::66", vec!["fd77::67".to_owned(), "fd77::68".to_owned()]),
        Neighbours::House => (HOUSE, vec![HOUSE.to_owned(); 4]),
    };
    for (number, other) in others.iter().enumerate() {
        server.welcome(other, &format!("neighbour{number}"));
    }
    let mut attackers = (attack.deed)(&mut server, attacker, count);
    if attackers.is_empty() {
        attackers.push(attacker.to_owned());
    }
    let report = server.end();
    let is_house = neighbours == Neighbours::House;
    let spared = REGULARS.iter().map(|regular| (*regular).to_owned()).chain(others);
    // A house shares the fate of its worst connection up to a limit, never a ban.
    let is_hurt = |address: &String| {
        let outcome = report.outcome(address);
        if is_house && address == HOUSE { outcome == "banned" } else { is_stopped(&outcome) }
    };
    let (mut count, mut hurt) = (0, 0);
    for address in spared {
        count += 1;
        hurt += usize::from(is_hurt(&address));
    }
    // The mildest that became of any of them.
    let rank = ["clean", "noted", "limited", "dropped", "banned"];
    let place = |outcome: &String| rank.iter().position(|name| name == outcome);
    let outcome = attackers.iter().map(|address| report.outcome(address)).min_by_key(place).unwrap();
    let rules = attackers.first().map(|address| report.rules(address)).unwrap_or_default();
    let (rules, expected) = (rules.join(", "), attack.expected);
    let name = attack.name.to_owned();
    Row { service: S::NAME, name, intensity, expected, outcome, rules, neighbours: count, hurt }
}

/// Under, at and over; over once more in each neighbourhood.
fn judge_all<S: Server>(attacks: Vec<Attack<S>>) -> Vec<Row> {
    let rows = Mutex::new(BTreeMap::new());
    let next = Mutex::new(attacks.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((index, attack)) = next.lock().unwrap().next() else { break };
                    rows.lock().unwrap().insert(index, judge_one(attack));
                }
            });
        }
    });
    rows.into_inner().unwrap().into_values().flatten().collect()
}

fn judge_one<S: Server>(attack: &Attack<S>) -> Vec<Row> {
    let mut rows = Vec::new();
    if attack.limit > 1 {
        let under = Attack { expected: Expected::Spared, ..*attack };
        rows.push(judge(&under, "just under", attack.limit - 1, Neighbours::Street));
    }
    if attack.limit > 0 {
        rows.push(judge(attack, "at", attack.limit, Neighbours::Street));
    }
    let over = (attack.limit * 6).clamp(20, 600);
    rows.push(judge(attack, "far over", over, Neighbours::Street));
    rows.push(judge(attack, "far over, same /64", over, Neighbours::Network));
    // Who is cut off by the connection is neither limited nor banned by address.
    let in_a_house = Attack {
        expected: if attack.expected == Expected::Noted { Expected::Noted } else { Expected::Stopped },
        ..*attack
    };
    rows.push(judge(&in_a_house, "far over, same address", over, Neighbours::House));
    rows
}

#[test]
fn every_attack_is_judged_right_at_every_intensity() {
    let mut rows = judge_all(teamtalk_attacks());
    rows.extend(judge_all(evasions::on_teamtalk()));
    rows.extend(judge_all(irc_attacks()));
    rows.extend(judge_all(evasions::on_irc()));
    rows.extend(judge_all(teamspeak_attacks()));
    rows.extend(judge_all(evasions::on_teamspeak()));
    rows.extend(quiet_rows());
    if let Some(path) = std::env::var_os("FLOODWALL_JUDGEMENT") {
        let lines: String = rows.iter().fold(String::new(), |mut lines, row| {
            writeln!(lines, "{}", row.line()).unwrap();
            lines
        });
        std::fs::write(path, lines).unwrap();
    }
    let wrong: Vec<String> = rows.iter().filter(|row| !row.is_right()).map(Row::line).collect();
    assert!(wrong.is_empty(), "{} of {} misjudged:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Evenings on which nobody may even be noted, whoever takes part.
fn quiet_rows() -> Vec<Row> {
    let rows = evenings().into_iter().chain(evasions::crowds()).map(|evening| {
        let report = evening.judge();
        let flagged: Vec<&String> =
            report.addresses().filter(|address| report.outcome(address) != "clean").collect();
        let rules: Vec<String> = flagged.iter().flat_map(|address| report.rules(address)).collect();
        Row {
            service: evening.service,
            name: evening.name.to_owned(),
            intensity: "quiet",
            expected: Expected::Untouched,
            outcome: flagged.first().map_or_else(|| "clean".to_owned(), |address| report.outcome(address)),
            rules: rules.join(", "),
            neighbours: report.addresses().count(),
            hurt: flagged.len(),
        }
    });
    rows.collect()
}

const INVALID_ACCOUNT: &str = "error number=2002 message=\"Invalid user account\"\r\n";

/// `count` commands of somebody logged in, so many milliseconds apart, `{}` a number.
fn commands(server: &mut TeamTalk, who: &str, count: u32, gap: u64, line: &str, answer: &str) -> Vec<String> {
    let (mut connection, id) = server.connect(who);
    server.log_in(&mut connection, id, who, "guest");
    for number in 0..count {
        server.command(&mut connection, &line.replace("{}", &number.to_string()), answer);
        server.wire.wait_millis(gap);
    }
    Vec::new()
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn teamtalk_attacks() -> Vec<Attack<TeamTalk>> {
    use Expected::{Noted, Stopped};
    vec![
        attack("guesses, a connection each", 8, Stopped, |server, who, count| {
            for _ in 0..count {
                let (mut connection, _) = server.connect(who);
                server.guess(&mut connection, "admin");
                server.wire.close(connection);
                server.wire.wait_millis(200);
            }
            Vec::new()
        }),
        attack("guesses pipelined on one connection", 4, Stopped, |server, who, count| {
            let (mut connection, _) = server.connect(who);
            let lines = "login username=\"admin\" password=\"guess\"\r\n".repeat(count as usize);
            server.wire.ask(&mut connection, lines.as_bytes());
            server.wire.answer(&mut connection, INVALID_ACCOUNT.repeat(count as usize).as_bytes());
            Vec::new()
        }),
        attack("slow guesses", 20, Stopped, |server, who, count| {
            let (mut connection, _) = server.connect(who);
            for _ in 0..count {
                server.guess(&mut connection, "admin");
                server.wire.wait_millis(75_000);
            }
            Vec::new()
        }),
        attack("two guesses each from many networks", 15, Stopped, |server, _, count| {
            let addresses: Vec<String> =
                (0..count).map(|n| format!("10.{}.{}.5", 100 + n / 200, n % 200)).collect();
            for round in 0..2 {
                for address in &addresses {
                    let (mut connection, _) = server.connect(address);
                    server.guess(&mut connection, &format!("user{round}-{address}"));
                    server.wire.close(connection);
                    server.wire.wait_millis(2_000 / u64::from(count));
                }
            }
            addresses
        }),
        attack("one account from many networks", 6, Stopped, |server, _, count| {
            let addresses: Vec<String> =
                (0..count).map(|n| format!("10.{}.{}.5", 100 + n / 200, n % 200)).collect();
            for _ in 0..2 {
                for address in &addresses {
                    let (mut connection, _) = server.connect(address);
                    server.guess(&mut connection, "admin");
                    server.wire.close(connection);
                    server.wire.wait_millis(5_000);
                }
            }
            addresses
        }),
        attack("channel passwords", 10, Stopped, |server, who, count| {
            let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
            commands(server, who, count, 100, "join chanid=2 password=\"{}\"", refused)
        }),
        attack("connect and close", 30, Stopped, |server, who, count| {
            for _ in 0..count {
                let (connection, _) = server.connect(who);
                server.wire.close(connection);
                server.wire.wait_millis(100);
            }
            Vec::new()
        }),
        attack("connect and reset", 30, Stopped, |server, who, count| {
            for _ in 0..count {
                let (connection, _) = server.connect(who);
                server.wire.reset(connection);
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("connect and close, slowly", 170, Stopped, |server, who, count| {
            for _ in 0..count {
                let (connection, _) = server.connect(who);
                server.wire.close(connection);
                server.wire.wait_millis(1_700);
            }
            Vec::new()
        }),
        attack("bursts of connections for a short accept queue", 30, Stopped, |server, who, count| {
            for number in 0..count {
                let (connection, _) = server.connect(who);
                server.wire.close(connection);
                if number % 10 == 9 {
                    server.wire.wait_millis(3_000);
                }
            }
            Vec::new()
        }),
        attack("connections held in silence", 20, Stopped, |server, who, count| {
            let held: Vec<Connection> = (0..count).map(|_| server.connect(who).0).collect();
            server.wire.wait_millis(15_000);
            for connection in held {
                server.wire.close_by_server(connection);
            }
            Vec::new()
        }),
        attack("connections held with pings", 20, Stopped, |server, who, count| {
            let mut held: Vec<Connection> = (0..count).map(|_| server.connect(who).0).collect();
            for _ in 0..4 {
                server.wire.wait_millis(7_000);
                for connection in &mut held {
                    server.command(connection, "ping", "pong\r\n");
                }
            }
            Vec::new()
        }),
        attack("connections opened and left open", 80, Stopped, |server, who, count| {
            for _ in 0..count {
                server.connect(who);
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("SYNs without end", 0, Stopped, |server, who, count| {
            for _ in 0..count * 40 {
                server.wire.knock(who);
            }
            Vec::new()
        }),
        attack("login and logout on one connection", 15, Stopped, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            for _ in 0..count {
                server.log_in(&mut connection, id, who, "guest");
                server.command(&mut connection, "logout", "loggedout\r\nok\r\n");
                server.wire.wait_millis(100);
            }
            Vec::new()
        }),
        attack("login and quit, a connection each", 15, Stopped, |server, who, count| {
            for _ in 0..count {
                let (mut connection, id) = server.connect(who);
                server.log_in(&mut connection, id, who, "guest");
                server.wire.ask(&mut connection, b"quit\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(200);
            }
            Vec::new()
        }),
        attack("retries of somebody banned", 16, Stopped, |server, who, count| {
            for _ in 0..count {
                let (mut connection, _) = server.connect(who);
                let refused = "error number=2005 message=\"Banned from server\"\r\n";
                server.command(&mut connection, "login username=\"x\" password=\"y\"", refused);
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("retries at a full server", 100, Stopped, |server, who, count| {
            let (mut connection, _) = server.connect(who);
            let refused = "error number=2003 message=\"Maximum number of users on server exceeded\"\r\n";
            for _ in 0..count {
                server.command(&mut connection, "login username=\"x\" password=\"y\"", refused);
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("channel messages", 60, Stopped, |server, who, count| {
            commands(server, who, count, 50, "message type=2 content=\"buy\" chanid=1", "ok\r\n")
        }),
        attack("channel messages in one write", 50, Stopped, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "guest");
            let lines = "message type=2 content=\"buy\" chanid=1\r\n".repeat(count as usize);
            server.wire.ask(&mut connection, lines.as_bytes());
            server.wire.answer(&mut connection, "ok\r\n".repeat(count as usize).as_bytes());
            Vec::new()
        }),
        attack("three messages a second, for minutes", 170, Stopped, |server, who, count| {
            commands(server, who, count, 345, "message type=2 content=\"buy{}\" chanid=1", "ok\r\n")
        }),
        attack("messages over many connections", 250, Stopped, |server, who, count| {
            let mut open = Vec::new();
            // Each keeps to its allowance.
            for number in 0..20 {
                let (mut connection, id) = server.connect(who);
                server.log_in(&mut connection, id, who, &format!("guest{number}"));
                open.push(connection);
            }
            for number in 0..count {
                let connection = &mut open[number as usize % 20];
                server.command(connection, "message type=2 content=\"buy\" chanid=1", "ok\r\n");
                server.wire.wait_millis(15);
            }
            Vec::new()
        }),
        attack("private messages to one after the other", 20, Stopped, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "guest");
            for number in 0..count {
                let line = format!("message type=1 content=\"buy\" destuserid={}", 1_000 + number);
                server.command(&mut connection, &line, "ok\r\n");
                server.wire.wait_millis(400);
            }
            Vec::new()
        }),
        attack("nicknames", 15, Stopped, |server, who, count| {
            commands(server, who, count, 500, "changenick nickname=\"a{}\"", "ok\r\n")
        }),
        attack("statuses", 36, Stopped, |server, who, count| {
            commands(server, who, count, 500, "changestatus statusmode=1 statusmsg=\"a{}\"", "ok\r\n")
        }),
        attack("leave and join", 20, Stopped, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "guest");
            for _ in 0..count {
                server.command(&mut connection, "leave", "left chanid=1\r\nok\r\n");
                server.command(&mut connection, "join chanid=1", "joined chanid=1\r\nok\r\n");
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("channels created", 20, Stopped, |server, who, count| {
            let answer = "begin id=5\r\njoined chanid=9\r\nok\r\nend id=5\r\n";
            commands(server, who, count, 300, "join parentid=1 name=\"c{}\" id=5", answer)
        }),
        attack("commands the server finds too fast", 30, Stopped, |server, who, count| {
            let refused = "error number=2014 message=\"Commands are issued too fast. Flood protection.\"\r\n";
            commands(server, who, count, 30, "message type=2 content=\"buy\" chanid=1", refused)
        }),
        attack("more commands than a client sends", 400, Stopped, |server, who, count| {
            // Joining was the first.
            commands(server, who, count - 1, 30, "subscribe userid=1 sublocal=1", "ok\r\n")
        }),
        attack("lines that are nonsense", 30, Stopped, |server, who, count| {
            let (mut connection, _) = server.connect(who);
            for _ in 0..count {
                server.command(
                    &mut connection,
                    "rubbish = = \"",
                    "error number=1000 message=\"Syntax error\"\r\n",
                );
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("web requests", 5, Stopped, |server, who, count| {
            for _ in 0..count {
                let (mut connection, _) = server.connect(who);
                server.wire.ask(&mut connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                server.wire.answer(&mut connection, b"error number=1001 message=\"Unknown command\"\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("file transfers", 40, Stopped, |server, who, count| {
            for number in 0..count {
                let mut connection = server.connect(who).0;
                let line = format!("recvfile transferid={number} filetxkey=\"k\"");
                server.command(&mut connection, &line, "fileready transferid=1 filesize=5\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(200);
            }
            Vec::new()
        }),
        attack("junk datagrams", 0, Stopped, |server, who, count| {
            for number in 0..count {
                server.wire.datagram(who, &[number as u8, 1, 2]);
                server.wire.wait_millis(20);
            }
            Vec::new()
        }),
        attack("voice of a stranger", 0, Stopped, |server, who, count| {
            for number in 0..count {
                server.wire.datagram(who, &voice((number % 3 + 1) as u16));
                server.wire.wait_millis(20);
            }
            Vec::new()
        }),
        attack("a scan for user ids", 0, Stopped, |server, who, count| {
            for id in 1..=count.max(400) as u16 {
                server.wire.datagram(who, &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
                server.wire.wait_millis(10);
            }
            Vec::new()
        }),
        attack("keepalives for others", 0, Stopped, |server, who, count| {
            for number in 0..count.max(100) {
                server.wire.datagram(who, &[2, (number % 3 + 1) as u8, 0, 0, 9, 9, 9, 9]);
                server.wire.wait_millis(100);
            }
            Vec::new()
        }),
        attack("a guest who speaks with another's user id", 0, Stopped, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "guest");
            for number in 0..count {
                server.wire.datagram(who, &voice((number % 3 + 1) as u16));
                server.wire.wait_millis(20);
            }
            Vec::new()
        }),
        attack("drones that say the same", 6, Stopped, |server, _, count| {
            let count = count.min(40);
            let drones: Vec<String> = (0..count).map(|number| format!("10.{}.3.40", 150 + number)).collect();
            let mut open = Vec::new();
            for (number, drone) in drones.iter().enumerate() {
                let (mut connection, id) = server.connect(drone);
                server.log_in(&mut connection, id, drone, "guest");
                open.push((connection, number));
            }
            for _ in 0..3 {
                for (connection, _) in &mut open {
                    let line = "message type=2 content=\"cheap watches at the corner shop\" chanid=1";
                    server.command(connection, line, "ok\r\n");
                    server.wire.wait_millis(50);
                }
            }
            drones
        }),
        attack("a try now and then from many networks", 25, Stopped, |server, _, count| {
            let count = count.min(60);
            let addresses: Vec<String> = (0..count).map(|n| format!("10.{}.7.5", 100 + n)).collect();
            for round in 0..2 {
                for address in &addresses {
                    let (mut connection, _) = server.connect(address);
                    server.guess(&mut connection, &format!("user{round}-{address}"));
                    server.wire.close(connection);
                    server.wire.wait_millis(280_000 / u64::from(count.max(20)));
                }
            }
            server.wire.wait_millis(20_000);
            addresses
        }),
        attack("a /64 after the other of one site", 20, Stopped, |server, _, count| {
            let addresses: Vec<String> =
                (1..=count).map(|number| format!("2001:db8:77:{number:x}::5")).collect();
            for address in &addresses {
                let (mut connection, _) = server.connect(address);
                server.guess(&mut connection, "admin-of-some-kind");
                server.wire.close(connection);
                server.wire.wait_millis(200);
            }
            server.wire.wait_millis(20_000);
            addresses
        }),
        attack("places taken from many networks", 100, Stopped, |server, _, count| {
            let count = count.min(400);
            let addresses: Vec<String> =
                (0..count.div_ceil(5)).map(|n| format!("10.{}.8.5", 100 + n)).collect();
            let mut held: Vec<Connection> = Vec::new();
            for number in 0..count {
                held.push(server.connect(&addresses[number as usize % addresses.len()]).0);
                server.wire.wait_millis(20);
            }
            server.wire.wait_millis(12_000);
            for connection in &mut held {
                server.command(connection, "ping", "pong\r\n");
            }
            server.wire.wait_millis(30_000);
            addresses
        }),
        attack("connect and close from many networks", 400, Stopped, |server, _, count| {
            let addresses: Vec<String> = (0..25).map(|n| format!("10.{}.9.5", 100 + n)).collect();
            for number in 0..count {
                let (connection, _) = server.connect(&addresses[number as usize % 25]);
                server.wire.close(connection);
                server.wire.wait_millis(45);
            }
            server.wire.wait_millis(20_000);
            addresses
        }),
        attack("drones that come, say one thing and leave", 10, Stopped, |server, _, count| {
            let count = count.min(40);
            let drones: Vec<String> = (0..count).map(|number| format!("10.{}.3.40", 150 + number)).collect();
            for drone in &drones {
                let (mut connection, id) = server.connect(drone);
                server.log_in(&mut connection, id, drone, "guest");
                let line = "message type=2 content=\"cheap watches at the corner shop\" chanid=1";
                server.command(&mut connection, line, "ok\r\n");
                server.wire.ask(&mut connection, b"quit\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(14_000);
            }
            server.wire.wait_millis(20_000);
            drones
        }),
        attack("clones that say the same", 6, Stopped, |server, who, count| {
            for number in 0..count.min(40) {
                let (mut connection, id) = server.connect(who);
                server.log_in(&mut connection, id, who, &format!("guest{number}"));
                let line = "message type=2 content=\"cheap watches at the corner shop\" chanid=1";
                server.command(&mut connection, line, "ok\r\n");
                server.wire.wait_millis(1_000);
            }
            Vec::new()
        }),
        attack("takeover: moves", 120, Noted, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "operator");
            for number in 0..count {
                server.command(
                    &mut connection,
                    &format!("moveuser userid={} chanid=2", 2_000 + number % 9),
                    "ok\r\n",
                );
                server.wire.wait_millis(200);
            }
            Vec::new()
        }),
        attack("takeover: a kick a minute", 8, Noted, |server, who, count| {
            let (mut connection, id) = server.connect(who);
            server.log_in(&mut connection, id, who, "operator");
            for number in 0..count.min(30) {
                server.command(&mut connection, &format!("kick userid={}", 2_000 + number), "ok\r\n");
                server.wire.wait_millis(60_000);
            }
            Vec::new()
        }),
        attack("takeover: kicks", 3, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |number| format!("kick userid={}", 2_000 + number))
        }),
        attack("takeover: bans", 4, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |number| {
                format!("ban ipaddr=\"192.0.2.{number}\" type=2")
            })
        }),
        attack("takeover: channels removed", 3, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |number| format!("removechannel chanid={}", number + 2))
        }),
        attack("takeover: accounts deleted", 4, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |number| format!("delaccount username=\"user{number}\""))
        }),
        attack("takeover: time-outs lowered", 1, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |_| "updateserver usertimeout=2".to_owned())
        }),
        attack("takeover: a little of everything", 6, Noted, |server, who, count| {
            administrate(server, who, count.min(30), |number| match number % 3 {
                0 => format!("kick userid={}", 2_000 + number),
                1 => format!("ban ipaddr=\"192.0.2.{number}\" type=2"),
                _ => format!("delaccount username=\"user{number}\""),
            })
        }),
    ]
}

/// What an administrator may do.
fn administrate(server: &mut TeamTalk, who: &str, count: u32, line: impl Fn(u32) -> String) -> Vec<String> {
    let (mut connection, id) = server.connect(who);
    server.log_in(&mut connection, id, who, "operator");
    for number in 0..count {
        server.command(&mut connection, &line(number), "ok\r\n");
        server.wire.wait_millis(700);
    }
    Vec::new()
}

/// `count` lines of somebody registered, so many milliseconds apart, `{}` a number.
fn lines(server: &mut Irc, who: &str, count: u32, gap: u64, line: &str, answer: &str) -> Vec<String> {
    let mut connection = server.join(who, "bad");
    for number in 0..count {
        let number = number.to_string();
        let answer = answer.replace("{}", &number).replace("{who}", who);
        server.say(&mut connection, &line.replace("{}", &number), &answer);
        server.wire.wait_millis(gap);
    }
    Vec::new()
}

/// `count` connections that say something before they register and are answered.
fn knocks(server: &mut Irc, who: &str, count: u32, gap: u64, line: &str, answer: &str) -> Vec<String> {
    for number in 0..count {
        let mut connection = server.wire.connect(who);
        if !line.is_empty() {
            server
                .wire
                .ask(&mut connection, format!("{}\r\n", line.replace("{}", &number.to_string())).as_bytes());
        }
        if !answer.is_empty() {
            server.wire.answer(&mut connection, format!("{answer}\r\n").as_bytes());
        }
        server.wire.close(connection);
        server.wire.wait_millis(gap);
    }
    Vec::new()
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn irc_attacks() -> Vec<Attack<Irc>> {
    use Expected::{Noted, Stopped};
    vec![
        attack("operator passwords", 5, Stopped, |server, who, count| {
            lines(server, who, count, 1_000, "OPER admin {}", ":lab.example 464 bad :Password incorrect")
        }),
        attack("NickServ passwords", 8, Stopped, |server, who, count| {
            let wrong = ":NickServ!s@services NOTICE bad :Invalid password for bad.";
            lines(server, who, count, 1_000, "PRIVMSG NickServ :IDENTIFY admin {}", wrong)
        }),
        attack("SASL passwords", 8, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.wire.connect(who);
                server.say(&mut connection, "CAP REQ :sasl", ":lab.example CAP * ACK :sasl");
                server.say(&mut connection, "AUTHENTICATE PLAIN", "AUTHENTICATE +");
                let failed = ":lab.example 904 bad :SASL authentication failed";
                server.say(&mut connection, "AUTHENTICATE eAB4AHRocm93LWF3YXk=", failed);
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("server passwords", 8, Stopped, |server, who, count| {
            let answer = ":lab.example 464 * :Password incorrect\r\nERROR :Closing Link: (Bad Password)";
            knocks(server, who, count, 300, "PASS wrong{}\r\nNICK g{}\r\nUSER g 0 * :x", answer)
        }),
        attack("link passwords", 4, Stopped, |server, who, count| {
            let answer = "ERROR :Closing Link: 10.77.0.66 (Invalid password)";
            let line = "PASS wrong{} TS 6 :0XX\r\nCAPAB :QS ENCAP\r\nSERVER rogue.example 1 :x";
            knocks(server, who, count, 500, line, answer)
        }),
        attack("channel keys", 10, Stopped, |server, who, count| {
            let wrong = ":lab.example 475 bad #secret :Cannot join channel (+k) - bad key";
            lines(server, who, count, 300, "JOIN #secret key{}", wrong)
        }),
        attack("channel operator passwords of TS4", 10, Stopped, |server, who, count| {
            lines(server, who, count, 300, "MODE #secret =c key{}", ":lab.example 339 bad #secret :no")
        }),
        attack("one account from many networks", 6, Stopped, |server, _, count| {
            let count = count.min(14);
            let addresses: Vec<String> = (0..count).map(|n| format!("10.{}.3.5", 100 + n)).collect();
            for _ in 0..2 {
                for (number, address) in addresses.iter().enumerate() {
                    let mut connection = server.join(address, &format!("g{number}"));
                    let wrong = format!(":NickServ!s@services NOTICE g{number} :Invalid password for admin.");
                    server.say(&mut connection, "PRIVMSG NickServ :IDENTIFY admin wrong", &wrong);
                    server.wire.wait_millis(5_000);
                }
            }
            addresses
        }),
        attack("reconnecting though throttled", 36, Stopped, |server, who, count| {
            let answer = "ERROR :Your host is trying to (re)connect too fast -- throttled.";
            knocks(server, who, count, 200, "", answer)
        }),
        attack("retries of somebody banned", 8, Stopped, |server, who, count| {
            let answer = ":lab.example 465 * :You are banned\r\nERROR :Closing Link: x (K-Lined)";
            knocks(server, who, count, 3_000, "NICK g{}\r\nUSER g 0 * :x", answer)
        }),
        attack("coming back after each excess flood", 3, Stopped, |server, who, count| {
            for number in 0..count {
                let mut connection = server.join(who, &format!("bad{number}"));
                server.wire.ask(&mut connection, "PRIVMSG #talk :buy\r\n".repeat(20).as_bytes());
                server.wire.answer(&mut connection, b"ERROR :Closing Link: x (Excess Flood)\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(20_000);
            }
            Vec::new()
        }),
        attack("connect and close", 30, Stopped, |server, who, count| {
            knocks(server, who, count, 100, "", ":lab.example NOTICE * :*** Looking up your hostname")
        }),
        attack("connect and reset", 30, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.wire.connect(who);
                server
                    .wire
                    .answer(&mut connection, b":lab.example NOTICE * :*** Looking up your hostname\r\n");
                server.wire.reset(connection);
                server.wire.wait_millis(100);
            }
            Vec::new()
        }),
        attack("registrations that never end", 15, Stopped, |server, who, count| {
            let mut open = Vec::new();
            for number in 0..count {
                let mut connection = server.wire.connect(who);
                server.say(
                    &mut connection,
                    &format!("NICK slow{number}"),
                    ":lab.example NOTICE * :*** Looking",
                );
                open.push(connection);
            }
            server.wire.wait_millis(30_000);
            for connection in open {
                server.wire.close_by_server(connection);
            }
            Vec::new()
        }),
        attack("connections opened and left open", 80, Stopped, |server, who, count| {
            for _ in 0..count {
                server.wire.connect(who);
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("messages", 60, Stopped, |server, who, count| {
            lines(server, who, count, 50, "PRIVMSG #talk :buy{}", "")
        }),
        attack("messages in one write", 50, Stopped, |server, who, count| {
            let mut connection = server.join(who, "bad");
            server.wire.ask(&mut connection, "PRIVMSG #talk :buy\r\n".repeat(count as usize).as_bytes());
            Vec::new()
        }),
        attack("three messages a second, for minutes", 170, Stopped, |server, who, count| {
            lines(server, who, count, 345, "PRIVMSG #talk :buy{}", "")
        }),
        attack("the same to one after the other", 20, Stopped, |server, who, count| {
            lines(server, who, count, 700, "PRIVMSG user{} :buy", "")
        }),
        attack("the same to lists of people", 20, Stopped, |server, who, count| {
            let mut connection = server.join(who, "bad");
            for number in 0..count.div_ceil(4) {
                let names: Vec<String> =
                    (number * 4..(number * 4 + 4).min(count)).map(|name| format!("user{name}")).collect();
                server.say(&mut connection, &format!("NOTICE {} :buy", names.join(",")), "");
                server.wire.wait_millis(2_000);
            }
            Vec::new()
        }),
        attack("CTCP", 15, Stopped, |server, who, count| {
            lines(server, who, count, 200, "PRIVMSG #talk :\u{1}VERSION\u{1}", "")
        }),
        attack("nicknames", 10, Stopped, |server, who, count| {
            let mut connection = server.join(who, "bad");
            let mut nickname = "bad".to_owned();
            for number in 0..count {
                let changed = format!(":{nickname}!x@{who} NICK :bad{number}");
                nickname = format!("bad{number}");
                server.say(&mut connection, &format!("NICK {nickname}"), &changed);
                server.wire.wait_millis(1_000);
            }
            Vec::new()
        }),
        attack("nicknames the server refuses", 15, Stopped, |server, who, count| {
            let refused = ":lab.example 438 bad bad{} :Nick change too fast";
            lines(server, who, count, 500, "NICK bad{}", refused)
        }),
        attack("join and part", 16, Stopped, |server, who, count| {
            let mut connection = server.join(who, "bad");
            for _ in 0..count {
                server.say(&mut connection, "PART #talk", &format!(":bad!x@{who} PART #talk"));
                server.say(&mut connection, "JOIN #talk", &format!(":bad!x@{who} JOIN #talk"));
                server.wire.wait_millis(700);
            }
            Vec::new()
        }),
        attack("more channels than allowed", 60, Stopped, |server, who, count| {
            let refused = ":lab.example 405 bad #c{} :You have joined too many channels";
            lines(server, who, count, 100, "JOIN #c{}", refused)
        }),
        attack("invitations", 15, Stopped, |server, who, count| {
            lines(server, who, count, 500, "INVITE regular{} #talk", ":lab.example 341 bad regular{} #talk")
        }),
        attack("knocks", 15, Stopped, |server, who, count| {
            lines(server, who, count, 500, "KNOCK #secret{}", ":lab.example 711 bad #secret{} :delivered")
        }),
        attack("costly questions", 150, Stopped, |server, who, count| {
            lines(server, who, count, 40, "WHO *", ":lab.example 315 bad * :End of /WHO list.")
        }),
        attack("registering and leaving", 15, Stopped, |server, who, count| {
            for number in 0..count {
                let mut connection = server.join(who, &format!("bot{number}"));
                server.say(&mut connection, "QUIT :x", "ERROR :Closing Link: x (Quit: x)");
                server.wire.close(connection);
                server.wire.wait_millis(500);
            }
            Vec::new()
        }),
        attack("clones without end", 150, Stopped, |server, who, count| {
            for number in 0..count {
                server.join(who, &format!("clone{number}"));
                server.wire.wait_millis(150);
            }
            Vec::new()
        }),
        attack("drones that say the same", 6, Stopped, |server, _, count| {
            let count = count.min(40);
            let drones: Vec<String> = (0..count).map(|number| format!("10.{}.3.40", 150 + number)).collect();
            let mut open: Vec<Connection> = Vec::new();
            for (number, drone) in drones.iter().enumerate() {
                open.push(server.join(drone, &format!("drone{number}")));
            }
            for _ in 0..3 {
                for connection in &mut open {
                    server.say(connection, "PRIVMSG #talk :cheap watches at the corner shop", "");
                    server.wire.wait_millis(50);
                }
            }
            drones
        }),
        attack("web requests", 5, Stopped, |server, who, count| {
            // The gate drops what a plain port cannot be asked; this much looks like IRC until it is read.
            knocks(server, who, count, 300, "SSH-2.0-scanner", ":lab.example NOTICE * :*** Looking up")
        }),
        attack("a try now and then from many networks", 25, Stopped, |server, _, count| {
            let count = count.min(60);
            let addresses: Vec<String> = (0..count).map(|n| format!("10.{}.7.5", 100 + n)).collect();
            for _ in 0..2 {
                for (number, address) in addresses.iter().enumerate() {
                    let mut connection = server.wire.connect(address);
                    let line = format!("PASS wrong\r\nNICK g{number}\r\nUSER g 0 * :x");
                    let wrong =
                        ":lab.example 464 * :Password incorrect\r\nERROR :Closing Link: (Bad Password)";
                    server.say(&mut connection, &line, wrong);
                    server.wire.close(connection);
                    server.wire.wait_millis(280_000 / u64::from(count.max(20)));
                }
            }
            server.wire.wait_millis(20_000);
            addresses
        }),
        attack("drones that come, say one thing and leave", 10, Stopped, |server, _, count| {
            let count = count.min(40);
            let drones: Vec<String> = (0..count).map(|number| format!("10.{}.3.40", 150 + number)).collect();
            for (number, drone) in drones.iter().enumerate() {
                let mut connection = server.join(drone, &format!("drone{number}"));
                server.say(&mut connection, "PRIVMSG #talk :cheap watches at the corner shop", "");
                server.say(&mut connection, "QUIT :x", "ERROR :Closing Link: x (Quit: x)");
                server.wire.close(connection);
                server.wire.wait_millis(14_000);
            }
            server.wire.wait_millis(20_000);
            drones
        }),
        attack("clones that say the same", 6, Stopped, |server, who, count| {
            for number in 0..count.min(40) {
                let mut connection = server.join(who, &format!("drone{number}"));
                server.say(&mut connection, "PRIVMSG #talk :cheap watches at the corner shop", "");
                server.wire.wait_millis(1_000);
            }
            Vec::new()
        }),
        attack("takeover: kicks", 3, Noted, |server, who, count| {
            lines(server, who, count.min(30), 700, "KICK #talk user{}", ":bad!x@{who} KICK #talk user{} :x")
        }),
        attack("takeover: ranks taken", 3, Noted, |server, who, count| {
            let line = "MODE #talk -o user{}";
            lines(server, who, count.min(30), 700, line, ":bad!x@{who} MODE #talk -o user{}")
        }),
        attack("takeover: channel bans", 4, Noted, |server, who, count| {
            let line = "MODE #talk +b *!*@host{}";
            lines(server, who, count.min(30), 700, line, ":bad!x@{who} MODE #talk +b *!*@host{}")
        }),
        attack("takeover: network bans", 4, Noted, |server, who, count| {
            let answer = ":lab.example NOTICE bad :Added K-Line";
            lines(server, who, count.min(30), 700, "KLINE *@192.0.2.{} :x", answer)
        }),
        attack("takeover: stopping the server", 1, Noted, |server, who, _| {
            lines(server, who, 1, 700, "DIE lab.example", "")
        }),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn teamspeak_attacks() -> Vec<Attack<TeamSpeak>> {
    use Expected::{Noted, Stopped};
    vec![
        attack("ServerQuery passwords", 5, Stopped, |server, who, count| {
            let mut connection = server.query(who);
            for number in 0..count {
                let line = format!("login serveradmin {number}");
                server.ask(&mut connection, &line, "error id=520 msg=invalid\\sloginname\\sor\\spassword");
                server.wire.wait_millis(500);
            }
            Vec::new()
        }),
        attack("privilege keys", 5, Stopped, |server, who, count| {
            let mut connection = server.query(who);
            for number in 0..count {
                let line = format!("privilegekeyuse token=guess{number}");
                server.ask(&mut connection, &line, "error id=3840 msg=invalid\\sprivilege\\skey");
                server.wire.wait_millis(500);
            }
            Vec::new()
        }),
        attack("retries of somebody banned", 10, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.query(who);
                server.ask(
                    &mut connection,
                    "version",
                    "error id=3329 msg=connection\\sfailed,\\syou\\sare\\sbanned",
                );
                server.wire.close(connection);
                server.wire.wait_millis(500);
            }
            Vec::new()
        }),
        attack("handshakes without end (TS3INIT1)", 0, Stopped, |server, who, count| {
            for _ in 0..count * 40 {
                server.greet(who);
            }
            Vec::new()
        }),
        attack("voice without a session", 0, Stopped, |server, who, count| {
            for _ in 0..count * 400 {
                server.voice_datagram(who);
            }
            Vec::new()
        }),
        attack("connect and close", 30, Stopped, |server, who, count| {
            for _ in 0..count {
                let connection = server.query(who);
                server.wire.close(connection);
                server.wire.wait_millis(200);
            }
            Vec::new()
        }),
        attack("connections held in silence", 15, Stopped, |server, who, count| {
            let held: Vec<Connection> = (0..count).map(|_| server.query(who)).collect();
            server.wire.wait_millis(20_000);
            for connection in held {
                server.wire.close_by_server(connection);
            }
            Vec::new()
        }),
        attack("connections opened and left open", 200, Stopped, |server, who, count| {
            for _ in 0..count {
                server.query(who);
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("messages", 60, Stopped, |server, who, count| {
            let mut connection = server.query(who);
            server.ask(&mut connection, "login spammer throw-away", "error id=0 msg=ok");
            for number in 0..count {
                let line = format!("sendtextmessage targetmode=2 target=1 msg=buy{number}");
                server.ask(&mut connection, &line, "error id=0 msg=ok");
                server.wire.wait_millis(50);
            }
            Vec::new()
        }),
        attack("the same to one after the other", 40, Stopped, |server, who, count| {
            let mut connection = server.query(who);
            server.ask(&mut connection, "login spammer throw-away", "error id=0 msg=ok");
            for number in 0..count {
                let line = format!("sendtextmessage targetmode=1 target={} msg=buy", number + 1);
                server.ask(&mut connection, &line, "error id=0 msg=ok");
                server.wire.wait_millis(700);
            }
            Vec::new()
        }),
        attack("web requests", 5, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.query(who);
                server.wire.ask(&mut connection, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                server.wire.answer(&mut connection, b"error id=256 msg=command\\snot\\sfound\n\r");
                server.wire.close(connection);
                server.wire.wait_millis(300);
            }
            Vec::new()
        }),
        attack("takeover: a dangerous command", 1, Noted, |server, who, _| {
            administrate_query(server, who, 1, |_| "serverprocessstop".to_owned())
        }),
        attack("takeover: kicks", 3, Noted, |server, who, count| {
            administrate_query(server, who, count.min(30), |number| {
                format!("clientkick reasonid=5 clid={number}")
            })
        }),
        attack("takeover: bans", 4, Noted, |server, who, count| {
            administrate_query(server, who, count.min(30), |number| format!("banadd ip=192.0.2.{number}"))
        }),
    ]
}

fn administrate_query(
    server: &mut TeamSpeak,
    who: &str,
    count: u32,
    line: impl Fn(u32) -> String,
) -> Vec<String> {
    let mut connection = server.query(who);
    server.ask(&mut connection, "login serveradmin throw-away", "error id=0 msg=ok");
    for number in 0..count {
        server.ask(&mut connection, &line(number), "error id=0 msg=ok");
        server.wire.wait_millis(700);
    }
    Vec::new()
}
