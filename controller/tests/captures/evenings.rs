//! Evenings on which nothing is wrong. Some look like attacks to whoever counts packets alone.

use crate::{
    conversation::{Connection, Report},
    servers::{Irc, Server, TeamTalk, voice},
};

/// What happens on one evening.
pub(crate) struct Evening {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    events: Events,
}

enum Events {
    TeamTalk(fn(&mut TeamTalk)),
    Irc(fn(&mut Irc)),
}

impl Evening {
    /// What replay makes of it.
    pub(crate) fn judge(&self) -> Report {
        fn play<S: Server>(events: fn(&mut S)) -> Report {
            let mut server = S::new();
            events(&mut server);
            server.end()
        }
        match self.events {
            Events::TeamTalk(events) => play(events),
            Events::Irc(events) => play(events),
        }
    }
}

pub(crate) const fn teamtalk(name: &'static str, events: fn(&mut TeamTalk)) -> Evening {
    Evening { service: "teamtalk", name, events: Events::TeamTalk(events) }
}

pub(crate) const fn irc(name: &'static str, events: fn(&mut Irc)) -> Evening {
    Evening { service: "irc", name, events: Events::Irc(events) }
}

/// Somebody logs in and goes on.
fn come(server: &mut TeamTalk, address: &str, account: &str) -> (Connection, u16) {
    let (mut connection, id) = server.connect(address);
    server.log_in(&mut connection, id, address, account);
    (connection, id)
}

/// Every one of them.
pub(crate) fn evenings() -> Vec<Evening> {
    let mut all = on_teamtalk();
    all.extend(after_a_restart());
    all.extend(on_irc());
    all
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn on_teamtalk() -> Vec<Evening> {
    vec![
        teamtalk("everybody comes back after a restart", |server| {
            for number in 0..60 {
                let address = format!("10.77.{}.{}", 2 + number / 30, 10 + number % 30);
                let (mut connection, id) = server.connect(&address);
                server.log_in(&mut connection, id, &address, &format!("member{number}"));
                server.wire.wait_millis(30);
            }
        }),
        teamtalk("a household of eight, two of whom mistype", |server| {
            for number in 0..8 {
                let (mut connection, id) = server.connect("10.77.5.5");
                for _ in 0..number / 6 * 2 {
                    server.guess(&mut connection, &format!("member{number}"));
                    server.wire.wait_millis(2_000);
                }
                server.log_in(&mut connection, id, "10.77.5.5", &format!("member{number}"));
                server.wire.wait_millis(1_000);
            }
        }),
        teamtalk("a status page that logs in every minute", |server| {
            for _ in 0..20 {
                let (mut connection, id) = server.connect("10.77.6.6");
                server.log_in(&mut connection, id, "10.77.6.6", "status");
                server.command(&mut connection, "quit", "ok\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(60_000);
            }
        }),
        teamtalk("a console that pings", |server| {
            let (mut connection, id) = server.connect("10.77.7.7");
            server.log_in(&mut connection, id, "10.77.7.7", "console");
            for _ in 0..400 {
                server.command(&mut connection, "ping", "pong\r\n");
                server.wire.wait_millis(300);
            }
        }),
        teamtalk("a console that pings and never logs in", |server| {
            let (mut connection, _) = server.connect("10.77.7.8");
            for _ in 0..40 {
                server.command(&mut connection, "ping", "pong\r\n");
                server.wire.wait_millis(15_000);
            }
        }),
        teamtalk("a bot that moves everybody", |server| {
            let (mut connection, id) = server.connect("10.77.8.8");
            server.log_in(&mut connection, id, "10.77.8.8", "bot");
            for number in 1..=60 {
                server.command(&mut connection, &format!("moveuser userid={number} chanid=2"), "ok\r\n");
            }
        }),
        teamtalk("a phone that changes networks", |server| {
            for network in 10..16 {
                let address = format!("10.77.{network}.9");
                let (mut connection, id) = server.connect(&address);
                server.log_in(&mut connection, id, &address, "phone");
                for _ in 0..20 {
                    server.wire.datagram(&address, &voice(id));
                    server.wire.wait_millis(40);
                }
                server.wire.wait_millis(40_000);
            }
        }),
        teamtalk("a lively talk", |server| {
            for (number, address) in ["10.77.9.1", "10.77.9.2", "10.77.9.3"].iter().enumerate() {
                let (mut connection, id) = server.connect(address);
                server.log_in(&mut connection, id, address, &format!("talker{number}"));
                for _ in 0..250 {
                    server.wire.datagram(address, &voice(id));
                    server.wire.wait_millis(20);
                }
                for _ in 0..15 {
                    server.command(&mut connection, "message type=2 content=\"yes\" chanid=1", "ok\r\n");
                    server.wire.wait_millis(900);
                }
            }
        }),
        teamtalk("somebody forgot their password", |server| {
            let (mut connection, id) = server.connect("10.77.11.1");
            for _ in 0..5 {
                server.guess(&mut connection, "forgetful");
                server.wire.wait_millis(6_000);
            }
            server.log_in(&mut connection, id, "10.77.11.1", "forgetful");
        }),
        teamtalk("files are sent and fetched", |server| {
            for number in 0..15 {
                let (mut connection, _) = server.connect("10.77.12.1");
                let line = format!("sendfile transferid={number} filetxkey=\"k\"");
                server.command(&mut connection, &line, "filedeliver filesize=5 filename=\"f\"\r\n");
                server.wire.ask(&mut connection, &[0xaa; 900]);
                server.wire.close(connection);
                server.wire.wait_millis(1_500);
            }
        }),
        teamtalk("a channel's password is mistyped", |server| {
            let (mut connection, _) = come(server, "10.77.13.1", "typist");
            for number in 0..4 {
                let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
                server.command(&mut connection, &format!("join chanid=2 password=\"{number}\""), refused);
                server.wire.wait_millis(3_000);
            }
        }),
        teamtalk("an operator kicks two and bans one", |server| {
            let (mut connection, _) = come(server, "10.77.14.1", "operator");
            for line in ["kick userid=2", "kick userid=3", "ban ipaddr=\"192.0.2.1\" type=2"] {
                server.command(&mut connection, line, "ok\r\n");
                server.wire.wait_millis(8_000);
            }
        }),
        teamtalk("an administrator sets an event up", |server| {
            let (mut connection, _) = come(server, "10.77.15.1", "host");
            for number in 0..10 {
                let line = format!("makechannel parentid=1 name=\"table {number}\" audiocodec=[3,48000]");
                server.command(&mut connection, &line, "ok\r\n");
                server.wire.wait_millis(1_500);
            }
            for number in 0..3 {
                let line =
                    format!("newaccount username=\"guest{number}\" password=\"throw-away\" usertype=1");
                server.command(&mut connection, &line, "ok\r\n");
                server.wire.wait_millis(10_000);
            }
            server.command(&mut connection, "updateserver motdraw=\"welcome\" usertimeout=60", "ok\r\n");
        }),
        teamtalk("a music bot shows what it plays and greets everybody", |server| {
            let (mut connection, _) = come(server, "10.77.16.1", "music");
            for number in 0..40 {
                let line = format!("changestatus statusmode=0 statusmsg=\"song {number}\"");
                server.command(&mut connection, &line, "ok\r\n");
                let line = "message type=1 content=\"welcome, write help to see what I can do\" destuserid=2";
                server.command(&mut connection, line, "ok\r\n");
                server.wire.wait_millis(4_000);
            }
        }),
        teamtalk("somebody looks into every channel", |server| {
            let (mut connection, _) = come(server, "10.77.17.1", "curious");
            for number in 1..=10 {
                server.command(&mut connection, "leave", "left chanid=1\r\nok\r\n");
                let line = format!("join chanid={number}");
                server.command(&mut connection, &line, &format!("joined chanid={number}\r\nok\r\n"));
                server.wire.wait_millis(5_000);
            }
        }),
        teamtalk("monitoring looks every five seconds", |server| {
            for _ in 0..120 {
                let (connection, _) = server.connect("10.77.18.1");
                server.wire.close(connection);
                server.wire.wait_millis(5_000);
            }
        }),
        teamtalk("a client without UDP tries again and again", |server| {
            for _ in 0..12 {
                let (connection, id) = server.connect("10.77.19.1");
                for _ in 0..20 {
                    server
                        .wire
                        .datagram("10.77.19.1", &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
                    server.wire.wait_millis(500);
                }
                server.wire.close(connection);
                server.wire.wait_millis(2_000);
            }
        }),
        teamtalk("somebody banned by mistake tries again for a while", |server| {
            for _ in 0..10 {
                let (mut connection, _) = server.connect("10.77.20.1");
                let refused = "error number=2005 message=\"Banned from server\"\r\n";
                server.command(&mut connection, "login username=\"x\" password=\"y\"", refused);
                server.wire.close(connection);
                server.wire.wait_millis(10_000);
            }
        }),
        teamtalk("good morning from everybody", |server| {
            let mut open = Vec::new();
            for number in 0..12 {
                open.push(come(server, &format!("10.77.21.{number}"), &format!("early{number}")).0);
            }
            for connection in &mut open {
                server.command(
                    connection,
                    "message type=2 content=\"good morning everybody\" chanid=1",
                    "ok\r\n",
                );
                server.wire.wait_millis(1_000);
            }
        }),
    ]
}

fn after_a_restart() -> Vec<Evening> {
    vec![
        teamtalk("a school of sixty behind one address comes back, three mistype", |server| {
            let mut open = Vec::new();
            for number in 0..60 {
                let (mut connection, id) = server.connect("10.77.40.1");
                if number % 20 == 0 {
                    server.guess(&mut connection, &format!("pupil{number}"));
                }
                server.log_in(&mut connection, id, "10.77.40.1", &format!("pupil{number}"));
                open.push(connection);
                server.wire.wait_millis(100);
            }
            server.wire.wait_millis(120_000);
            // The server goes, and all come back at once: connections first.
            for connection in open {
                server.wire.reset_by_server(connection);
            }
            server.wire.wait_millis(3_000);
            let back: Vec<(Connection, u16)> = (0..60).map(|_| server.connect("10.77.40.1")).collect();
            for (number, (mut connection, id)) in back.into_iter().enumerate() {
                server.log_in(&mut connection, id, "10.77.40.1", &format!("pupil{number}"));
            }
        }),
        teamtalk("twenty people try an old password first", |server| {
            for number in 0..14 {
                let address = format!("10.77.{}.9", 50 + number);
                let (mut connection, id) = server.connect(&address);
                server.guess(&mut connection, &format!("member{number}"));
                server.wire.wait_millis(2_500);
                server.log_in(&mut connection, id, &address, &format!("member{number}"));
            }
        }),
        teamtalk("the line of a household goes down and up", |server| {
            for round in 0..3 {
                let open: Vec<Connection> =
                    (0..5).map(|number| come(server, "10.77.41.1", &format!("child{number}")).0).collect();
                server.wire.wait_millis(20_000 + round * 10_000);
                for connection in open {
                    server.wire.close_by_server(connection);
                }
            }
        }),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn on_irc() -> Vec<Evening> {
    vec![
        irc("everybody comes back after a netsplit and greets", |server| {
            for number in 0..60 {
                let address = if number < 20 { "10.77.5.5".to_owned() } else { format!("10.77.6.{number}") };
                let mut connection = server.join(&address, &format!("member{number}"));
                server.say(&mut connection, "PRIVMSG #talk :hello", "");
                server.wire.wait_millis(50);
            }
        }),
        irc("a poem is pasted and an operator's password mistyped", |server| {
            let mut poet = server.join("10.77.7.7", "poet");
            for _ in 0..12 {
                server.say(&mut poet, "PRIVMSG #talk :a line of a poem", "");
                server.wire.wait_millis(150);
            }
            server.say(&mut poet, "OPER poet wrong", ":lab.example 464 poet :Password incorrect");
        }),
        irc("a bouncer brings a hundred people to twenty channels each", |server| {
            let mut open = Vec::new();
            for number in 0..100 {
                let name = format!("bounced{number}");
                let mut connection = server.join("10.77.8.1", &name);
                for channel in 0..20 {
                    let joined = format!(":{name}!x@10.77.8.1 JOIN #c{channel}");
                    server.say(&mut connection, &format!("JOIN #c{channel}"), &joined);
                }
                server.wire.wait_millis(100);
                open.push(connection);
            }
        }),
        irc("somebody leaves all channels at once and returns to a few", |server| {
            let mut connection = server.join("10.77.9.1", "tidy");
            for channel in 0..25 {
                let left = format!(":tidy!x@10.77.9.1 PART #c{channel}");
                server.say(&mut connection, &format!("PART #c{channel}"), &left);
            }
            for channel in 0..8 {
                let joined = format!(":tidy!x@10.77.9.1 JOIN #c{channel}");
                server.say(&mut connection, &format!("JOIN #c{channel}"), &joined);
                server.wire.wait_millis(1_000);
            }
        }),
        irc("keys are mistyped, nicknames tried out", |server| {
            let mut connection = server.join("10.77.10.1", "newcomer");
            for number in 0..4 {
                let wrong = ":lab.example 475 newcomer #club :Cannot join channel (+k) - bad key";
                server.say(&mut connection, &format!("JOIN #club key{number}"), wrong);
                server.wire.wait_millis(4_000);
            }
            let mut nickname = "newcomer".to_owned();
            for number in 0..5 {
                let changed = format!(":{nickname}!x@10.77.10.1 NICK :newcomer{number}");
                nickname = format!("newcomer{number}");
                server.say(&mut connection, &format!("NICK {nickname}"), &changed);
                server.wire.wait_millis(2_000);
            }
        }),
        irc("an operator kicks two and bans two", |server| {
            let mut connection = server.join("10.77.11.1", "warden");
            for number in 0..2 {
                let banned = format!(":warden!x@10.77.11.1 MODE #talk +b *!*@pest{number}");
                server.say(&mut connection, &format!("MODE #talk +b *!*@pest{number}"), &banned);
                let kicked = format!(":warden!x@10.77.11.1 KICK #talk pest{number} :out");
                server.say(&mut connection, &format!("KICK #talk pest{number} :out"), &kicked);
                server.wire.wait_millis(5_000);
            }
        }),
        irc("a school has more clients than the server lets in", |server| {
            for number in 0..10 {
                server.join("10.77.12.1", &format!("pupil{number}"));
            }
            for _ in 0..4 {
                for number in 10..25 {
                    let mut connection = server.wire.connect("10.77.12.1");
                    server.say(
                        &mut connection,
                        &format!("NICK pupil{number}\r\nUSER p 0 * :x"),
                        "ERROR :Closing Link: x (Too many connections from your IP)",
                    );
                    server.wire.close(connection);
                }
                server.wire.wait_millis(15_000);
            }
        }),
        irc("monitoring looks every five seconds", |server| {
            for _ in 0..120 {
                let mut connection = server.wire.connect("10.77.13.1");
                server
                    .wire
                    .answer(&mut connection, b":lab.example NOTICE * :*** Looking up your hostname\r\n");
                server.wire.close(connection);
                server.wire.wait_millis(5_000);
            }
        }),
        irc("slow registrations: the name server sleeps", |server| {
            for number in 0..12 {
                let mut connection = server.wire.connect("10.77.14.1");
                server.wire.wait_millis(12_000);
                let name = format!("slow{number}");
                server.say(
                    &mut connection,
                    &format!("NICK {name}\r\nUSER {name} 0 * :x"),
                    &format!(":lab.example 001 {name} :Welcome"),
                );
            }
        }),
        irc("a bot answers whoever asks", |server| {
            let mut bot = server.join("10.77.15.1", "bot");
            for number in 0..60 {
                server.say(&mut bot, &format!("NOTICE somebody{} :the answer is {number}", number % 9), "");
                server.wire.wait_millis(1_200);
            }
        }),
        irc("guests come, look and leave through a web gateway", |server| {
            for number in 0..30 {
                let mut connection = server.join("10.77.16.1", &format!("guest{number}"));
                server.wire.wait_millis(14_000);
                server.say(&mut connection, "QUIT :bye", "ERROR :Closing Link: x (Quit: bye)");
                server.wire.close(connection);
            }
        }),
    ]
}
