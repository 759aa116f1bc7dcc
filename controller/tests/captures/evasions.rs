//! Attacks that keep each connection, or each address, under its limit: over several connections, by coming back, from many
//! addresses; and crowds of honest people who look like that.

use crate::{
    conversation::Connection,
    evenings::{Evening, irc, teamtalk},
    intensity::{Attack, Deed, Expected, attack},
    servers::{Irc, Server, TeamSpeak, TeamTalk},
};

use Expected::{Noted, Stopped};

/// A server on which somebody can say something.
trait Talk: Server {
    /// Somebody comes as a guest.
    fn guest(&mut self, address: &str, name: &str) -> Connection;

    /// And says something that nobody has said before.
    fn tell(&mut self, connection: &mut Connection, number: u32);

    fn leave(&mut self, connection: Connection);

    fn wait(&mut self, millis: u64);
}

impl Talk for TeamTalk {
    fn guest(&mut self, address: &str, name: &str) -> Connection {
        let (mut connection, id) = self.connect(address);
        self.log_in_as_guest(&mut connection, id, address, name);
        connection
    }

    fn tell(&mut self, connection: &mut Connection, number: u32) {
        self.command(connection, &format!("message type=2 content=\"buy {number}\" chanid=1"), "ok\r\n");
    }

    fn leave(&mut self, connection: Connection) {
        self.wire.close(connection);
    }

    fn wait(&mut self, millis: u64) {
        self.wire.wait_millis(millis);
    }
}

impl Talk for Irc {
    fn guest(&mut self, address: &str, name: &str) -> Connection {
        self.join(address, name)
    }

    fn tell(&mut self, connection: &mut Connection, number: u32) {
        self.say(connection, &format!("PRIVMSG #talk :buy {number}"), "");
    }

    fn leave(&mut self, connection: Connection) {
        self.wire.close(connection);
    }

    fn wait(&mut self, millis: u64) {
        self.wire.wait_millis(millis);
    }
}

impl Talk for TeamSpeak {
    fn guest(&mut self, address: &str, name: &str) -> Connection {
        let mut connection = self.query(address);
        self.ask(&mut connection, &format!("login {name} throw-away"), "error id=0 msg=ok");
        connection
    }

    fn tell(&mut self, connection: &mut Connection, number: u32) {
        let line = format!("sendtextmessage targetmode=3 target=1 msg=buy{number}");
        self.ask(connection, &line, "error id=0 msg=ok");
    }

    fn leave(&mut self, connection: Connection) {
        self.wire.close(connection);
    }

    fn wait(&mut self, millis: u64) {
        self.wire.wait_millis(millis);
    }
}

/// So many connections of one address in turn.
fn side_by_side<S: Talk>(
    server: &mut S,
    who: &str,
    count: u32,
    connections: u32,
    gap: u64,
    deed: impl Fn(&mut S, &mut Connection, u32),
) -> Vec<String> {
    let mut open: Vec<Connection> =
        (0..connections).map(|number| server.guest(who, &format!("guest{number}"))).collect();
    for number in 0..count {
        deed(server, &mut open[(number % connections) as usize], number);
        server.wait(gap);
    }
    Vec::new()
}

/// A new connection after so many.
fn coming_back<S: Talk>(
    server: &mut S,
    who: &str,
    count: u32,
    each: u32,
    gap: u64,
    deed: impl Fn(&mut S, &mut Connection, u32),
) -> Vec<String> {
    let mut connection = server.guest(who, "guest");
    for number in 0..count {
        if number > 0 && number % each == 0 {
            server.leave(connection);
            connection = server.guest(who, "guest");
        }
        deed(server, &mut connection, number);
        server.wait(gap);
    }
    Vec::new()
}

/// So many addresses in turn, each in a network of its own. Answers which.
fn from_many<S: Talk>(
    server: &mut S,
    count: u32,
    addresses: u32,
    gap: u64,
    deed: impl Fn(&mut S, &mut Connection, u32),
) -> Vec<String> {
    let addresses = addresses.min(count);
    let names: Vec<String> = (0..addresses).map(|number| format!("198.{}.7.7", 18 + number)).collect();
    let mut open: Vec<Connection> = names
        .iter()
        .enumerate()
        .map(|(number, name)| server.guest(name, &format!("guest{number}")))
        .collect();
    for number in 0..count {
        deed(server, &mut open[(number % addresses) as usize], number);
        server.wait(gap);
    }
    names
}

/// Lets a while pass in which only the regulars do something.
fn pass<S: Talk>(server: &mut S, rounds: u32, live: impl Fn(&mut S)) {
    for _ in 0..rounds {
        server.wait(10_000);
        live(server);
    }
}

/// Ten networks in turn take places and keep them. Answers which.
fn take_places<S: Talk>(
    server: &mut S,
    count: u32,
    gap: u64,
    take: impl Fn(&mut S, &str),
    live: impl Fn(&mut S),
) -> Vec<String> {
    let names: Vec<String> = (0..10).map(|number| format!("198.{}.7.7", 18 + number)).collect();
    for number in 0..count {
        take(server, &names[(number % 10) as usize]);
        server.wait(gap);
        if number % 20 == 19 {
            live(server);
        }
    }
    pass(server, 3, live);
    names
}

/// What is said, on every server alike. Four connections with 15 each to themselves reach 60 with 105; where all of it goes to one
/// channel, its hundred come first.
fn talk<S: Talk>(over_four: u32) -> Vec<Attack<S>> {
    let of = |name, limit, deed: Deed<S>| attack(name, limit, Stopped, deed);
    vec![
        of("messages over four connections", over_four, |server, who, count| {
            side_by_side(server, who, count, 4, 40, S::tell)
        }),
        of("messages, coming back after ten", 60, |server, who, count| {
            coming_back(server, who, count, 10, 100, S::tell)
        }),
        of("three messages a second, coming back after forty", 170, |server, who, count| {
            coming_back(server, who, count, 40, 320, S::tell)
        }),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn on_teamtalk() -> Vec<Attack<TeamTalk>> {
    let mut all = talk::<TeamTalk>(100);
    all.extend::<[Attack<TeamTalk>; 21]>([
        attack("sessions of one account that are nowhere", 40, Stopped, |server, who, count| {
            for _ in 0..count.min(100) {
                let (mut connection, id) = server.connect(who);
                server.enter(&mut connection, id, who, "everybodys");
                server.wire.wait_millis(600);
            }
            pass(server, 8, TeamTalk::breathe);
            Vec::new()
        }),
        attack("channels created, coming back after five", 20, Stopped, |server, who, count| {
            coming_back(server, who, count, 5, 500, |server, connection, number| {
                server.command(connection, &format!("makechannel parentid=1 name=\"c{number}\""), "ok\r\n");
            })
        }),
        attack("nicknames, coming back after five", 15, Stopped, |server, who, count| {
            coming_back(server, who, count, 5, 500, |server, connection, number| {
                server.command(connection, &format!("changenick nickname=\"n{number}\""), "ok\r\n");
            })
        }),
        attack("the same few written to, coming back after each", 20, Stopped, |server, who, count| {
            coming_back(server, who, count, 10, 500, |server, connection, number| {
                let line = format!("message type=1 content=\"buy\" destuserid={}", 1_000 + number % 10);
                server.command(connection, &line, "ok\r\n");
            })
        }),
        // Ten with three each to themselves reach a hundred with 127.
        attack("a channel flooded from ten networks", 127, Stopped, |server, _, count| {
            from_many(server, count, 10, 40, Talk::tell)
        }),
        attack("a person flooded from ten networks", 127, Stopped, |server, _, count| {
            from_many(server, count, 10, 40, |server, connection, number| {
                let line = format!("message type=1 content=\"{number}\" destuserid=1");
                server.command(connection, &line, "ok\r\n");
            })
        }),
        // Five with two tries each to themselves reach thirty with 38.
        attack("a channel's password from five networks", 38, Stopped, |server, _, count| {
            from_many(server, count, 5, 1_500, |server, connection, number| {
                let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
                server.command(connection, &format!("join chanid=5 password=\"g{number}\""), refused);
            })
        }),
        attack("channel passwords, slowly", 20, Stopped, |server, who, count| {
            coming_back(server, who, count, 1_000, 12_000, |server, connection, number| {
                let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
                server.command(connection, &format!("join chanid=5 password=\"g{number}\""), refused);
            })
        }),
        attack("a chorus of sixteen", 480, Stopped, |server, who, count| {
            side_by_side(server, who, count, 16, 115, |server, connection, number| {
                let line = format!("message type=2 content=\"buy {number}\" chanid={}", 10 + number % 3);
                server.command(connection, &line, "ok\r\n");
            })
        }),
        attack("channels created over forty connections", 60, Stopped, |server, who, count| {
            side_by_side(server, who, count, 40, 800, |server, connection, number| {
                server.command(connection, &format!("makechannel parentid=1 name=\"c{number}\""), "ok\r\n");
            })
        }),
        // Four hundred, with the forty times that they join a channel first.
        attack("statuses over forty connections", 360, Stopped, |server, who, count| {
            side_by_side(server, who, count, 40, 140, |server, connection, number| {
                server.command(
                    connection,
                    &format!("changestatus statusmode=0 statusmsg=\"n{number}\""),
                    "ok\r\n",
                );
            })
        }),
        attack("guests that take places and do nothing", 40, Stopped, |server, who, count| {
            for number in 0..count {
                let (mut connection, id) = server.connect(who);
                server.enter_as_guest(&mut connection, id, who, &format!("guest{number}"));
                server.wire.wait_millis(200);
            }
            pass(server, 7, TeamTalk::breathe);
            Vec::new()
        }),
        attack("places taken slowly from ten networks", 100, Stopped, |server, _, count| {
            take_places(server, count, 1_000, |server, who| _ = server.connect(who), TeamTalk::breathe)
        }),
        attack("takeover: everybody banned", 1, Noted, |server, who, count| {
            administrate(server, who, count.min(3), 700, |_| "ban ipaddr=\"0.0.0.0/0\" type=2".to_owned())
        }),
        attack("takeover: no places left", 1, Noted, |server, who, count| {
            administrate(server, who, count.min(2), 700, |_| {
                "updateserver maxusers=1 usertimeout=60".to_owned()
            })
        }),
        attack("takeover: a ban a minute", 8, Noted, |server, who, count| {
            administrate(server, who, count.min(30), 60_000, |number| {
                format!("ban ipaddr=\"192.0.2.{number}\" type=2")
            })
        }),
        attack("takeover: a channel a minute removed", 6, Noted, |server, who, count| {
            administrate(server, who, count.min(30), 60_000, |number| {
                format!("removechannel chanid={}", number + 2)
            })
        }),
        attack("takeover: an account deleted every two minutes", 6, Noted, |server, who, count| {
            administrate(server, who, count.min(30), 120_000, |number| {
                format!("delaccount username=\"user{number}\"")
            })
        }),
        attack("drones that name a site", 5, Stopped, |server, _, count| {
            from_many(server, count, 200, 300, |server, connection, number| {
                let line = format!("message type=2 content=\"see evil.example/{number}\" chanid=1");
                server.command(connection, &line, "ok\r\n");
            })
        }),
        attack("one deed of each kind", 4, Noted, |server, who, count| {
            administrate(server, who, count.min(5), 700, |number| {
                let deeds = [
                    "kick userid=1 chanid=1",
                    "ban ipaddr=\"192.0.2.1\" type=2",
                    "removechannel chanid=7",
                    "delaccount username=\"user7\"",
                    "updateserver motd=\"gone\"",
                ];
                deeds[number as usize % deeds.len()].to_owned()
            })
        }),
        attack("drones with few words", 25, Stopped, |server, _, count| {
            from_many(server, count, 200, 300, |server, connection, number| {
                let line = format!("message type=2 content=\"join evil example {number}\" chanid=1");
                server.command(connection, &line, "ok\r\n");
            })
        }),
    ]);
    all
}

#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn on_irc() -> Vec<Attack<Irc>> {
    let mut all = talk::<Irc>(100);
    all.extend::<[Attack<Irc>; 28]>([
        // Four with four each to themselves reach fifteen with 27.
        attack("CTCP over four connections", 27, Stopped, |server, who, count| {
            side_by_side(server, who, count, 4, 40, |server, connection, _| {
                server.say(connection, "PRIVMSG regular0 :\u{1}VERSION\u{1}", "");
            })
        }),
        attack("knocks, coming back after four", 15, Stopped, |server, who, count| {
            coming_back(server, who, count, 4, 500, |server, connection, number| {
                server.say(connection, &format!("KNOCK #secret{number}"), "");
            })
        }),
        attack("a channel flooded from ten networks", 127, Stopped, |server, _, count| {
            from_many(server, count, 10, 40, Talk::tell)
        }),
        attack("a person flooded from ten networks", 127, Stopped, |server, _, count| {
            from_many(server, count, 10, 40, |server, connection, number| {
                let name = ["regular0", "Regular0", "REGULAR0"][(number % 3) as usize];
                server.say(connection, &format!("PRIVMSG {name} :{number}"), "");
            })
        }),
        attack("a channel's key from five networks", 38, Stopped, |server, _, count| {
            from_many(server, count, 5, 1_500, |server, connection, number| {
                let refused = ":lab.example 475 guest #secret :Cannot join channel (+k)";
                server.say(connection, &format!("JOIN #secret k{number}"), refused);
            })
        }),
        attack("operator passwords from many networks", 5, Stopped, |server, _, count| {
            from_many(server, count, 200, 5_000, |server, connection, number| {
                let refused = ":lab.example 464 guest :Password incorrect";
                server.say(connection, &format!("OPER name{number} guess"), refused);
            })
        }),
        attack("a chorus of sixteen", 480, Stopped, |server, who, count| {
            side_by_side(server, who, count, 16, 115, |server, connection, number| {
                server.say(connection, &format!("PRIVMSG #talk{} :buy {number}", number % 3), "");
            })
        }),
        attack("invitations of one person from ten networks", 30, Stopped, |server, _, count| {
            from_many(server, count, 10, 1_800, |server, connection, number| {
                server.say(connection, &format!("INVITE regular0 #c{number}"), "");
            })
        }),
        attack("nicknames over forty connections", 200, Stopped, |server, who, count| {
            side_by_side(server, who, count, 40, 280, |server, connection, number| {
                let before = number.checked_sub(40);
                let before = before.map_or_else(|| format!("guest{number}"), |before| format!("n{before}"));
                let changed = format!(":{before}!x@{who} NICK n{number}");
                server.say(connection, &format!("NICK n{number}"), &changed);
            })
        }),
        attack("clones that take places and do nothing", 40, Stopped, |server, who, count| {
            for number in 0..count {
                server.register(who, &format!("clone{number}"));
                server.wire.wait_millis(200);
            }
            pass(server, 7, Irc::chat);
            Vec::new()
        }),
        attack("places taken slowly from ten networks", 100, Stopped, |server, _, count| {
            take_places(server, count, 1_000, |server, who| _ = server.wire.connect(who), Irc::chat)
        }),
        attack("channel modes", 90, Stopped, |server, who, count| {
            one_by_one(server, who, count, 300, |number| {
                let modes = if number % 2 == 0 { "+m" } else { "-m" };
                (format!("MODE #talk {modes}"), format!(":guest!x@{who} MODE #talk {modes}"))
            })
        }),
        attack("away and back", 25, Stopped, |server, who, count| {
            one_by_one(server, who, count, 1_000, |number| {
                (
                    format!("AWAY :buy {number}"),
                    ":lab.example 306 guest :You have been marked as away".to_owned(),
                )
            })
        }),
        attack("nicknames that are taken", 25, Stopped, |server, who, count| {
            one_by_one(server, who, count, 800, |_| {
                let refused = ":lab.example 433 guest alice :Nickname is already in use.".to_owned();
                ("NICK alice".to_owned(), refused)
            })
        }),
        attack("words to a moderated channel", 40, Stopped, |server, who, count| {
            one_by_one(server, who, count, 500, |_| {
                let refused = ":lab.example 404 guest #quiet :Cannot send to channel".to_owned();
                ("PRIVMSG #quiet :buy".to_owned(), refused)
            })
        }),
        attack("takeover: kicks without a rank", 15, Noted, |server, who, count| {
            one_by_one(server, who, count.min(30), 700, |number| {
                let refused = ":lab.example 482 guest #talk :You're not channel operator".to_owned();
                (format!("KICK #talk user{number} :bye"), refused)
            })
        }),
        attack("TeamTalk's logins", 5, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.wire.connect(who);
                let line = b"login nickname=\"a\" username=\"b\" password=\"throw-away\"\r\n";
                server.wire.ask(&mut connection, line);
                server.wire.close(connection);
                server.wire.wait_millis(2_000);
            }
            Vec::new()
        }),
        attack("lists of channels", 20, Stopped, |server, who, count| {
            one_by_one(server, who, count, 1_000, |_| {
                ("LIST".to_owned(), ":lab.example 323 guest :End of /LIST".to_owned())
            })
        }),
        // Of 20,000 bytes each.
        attack("long answers", 100, Stopped, |server, who, count| {
            let row = format!(":lab.example 249 guest :{}\r\n", "s".repeat(176));
            let answer = format!("{}:lab.example 219 guest u :{}", row.repeat(99), "e".repeat(174));
            one_by_one(server, who, count.min(200), 250, |_| ("STATS u".to_owned(), answer.clone()))
        }),
        attack("takeover: everybody banned from the network", 1, Noted, |server, who, count| {
            operate(server, who, count.min(3), |_| "KLINE *@* :bye".to_owned())
        }),
        attack("takeover: everybody's addresses banned", 1, Noted, |server, who, count| {
            operate(server, who, count.min(3), |_| "DLINE 0.0.0.0/0 :bye".to_owned())
        }),
        attack("takeover: everybody banned from a channel", 1, Noted, |server, who, count| {
            one_by_one(server, who, count.min(3), 700, |_| {
                let line = "MODE #talk +b *!*@*".to_owned();
                let told = format!(":guest!x@{who} {line}");
                (line, told)
            })
        }),
        attack("takeover: links cut", 3, Noted, |server, who, count| {
            operate(server, who, count.min(9), |number| format!("SQUIT hub{number}.example :x"))
        }),
        attack("takeover: modules unloaded", 1, Noted, |server, who, count| {
            operate(server, who, count.min(3), |_| "MODULE UNLOAD m_kill.la".to_owned())
        }),
        attack("takeover: people made to leave", 4, Noted, |server, who, count| {
            operate(server, who, count.min(30), |number| format!("SAPART user{number} #talk"))
        }),
        attack("takeover: ranks taken by force", 3, Noted, |server, who, count| {
            operate(server, who, count.min(30), |number| format!("SAMODE #talk -o user{number}"))
        }),
        attack("takeover: a ban a minute", 8, Noted, |server, who, count| {
            one_by_one(server, who, count.min(30), 60_000, |number| {
                let line = format!("MODE #talk +b *!*@host{number}");
                let told = format!(":guest!x@{who} {line}");
                (line, told)
            })
        }),
        attack("drones with few words", 25, Stopped, |server, _, count| {
            from_many(server, count, 200, 300, |server, connection, number| {
                server.say(connection, &format!("PRIVMSG #talk :join evil example {number}"), "");
            })
        }),
    ]);
    all
}

pub(crate) fn on_teamspeak() -> Vec<Attack<TeamSpeak>> {
    let mut all = talk::<TeamSpeak>(105);
    all.extend::<[Attack<TeamSpeak>; 6]>([
        attack("passwords from many networks", 6, Stopped, |server, _, count| {
            let names: Vec<String> =
                (0..count.min(60)).map(|number| format!("198.{}.7.7", 18 + number)).collect();
            for name in &names {
                let mut connection = server.query(name);
                let refused = "error id=520 msg=invalid\\sloginname\\sor\\spassword";
                server.ask(&mut connection, "login serveradmin guess", refused);
                server.wire.wait_millis(5_000);
            }
            names
        }),
        attack("slow guesses", 15, Stopped, |server, who, count| {
            for _ in 0..count {
                let mut connection = server.query(who);
                let refused = "error id=520 msg=invalid\\sloginname\\sor\\spassword";
                server.ask(&mut connection, "login serveradmin guess", refused);
                server.wire.close(connection);
                server.wire.wait_millis(100_000);
            }
            Vec::new()
        }),
        attack("takeover: everybody banned", 1, Noted, |server, who, count| {
            rule(server, who, count.min(3), |_| "banadd ip=.* time=0".to_owned())
        }),
        attack("takeover: the server closed", 1, Noted, |server, who, count| {
            rule(server, who, count.min(3), |_| {
                "serveredit virtualserver_password=x virtualserver_maxclients=1".to_owned()
            })
        }),
        attack("takeover: channels deleted", 5, Noted, |server, who, count| {
            rule(server, who, count.min(10), |number| format!("channeldelete cid={number} force=1"))
        }),
        attack("takeover: groups deleted", 3, Noted, |server, who, count| {
            rule(server, who, count.min(10), |number| format!("servergroupdel sgid={} force=1", 6 + number))
        }),
    ]);
    all
}

/// What somebody with all rights says to ServerQuery.
fn rule(server: &mut TeamSpeak, who: &str, count: u32, line: impl Fn(u32) -> String) -> Vec<String> {
    let mut connection = server.guest(who, "serveradmin");
    for number in 0..count {
        server.ask(&mut connection, &line(number), "error id=0 msg=ok");
        server.wire.wait_millis(700);
    }
    Vec::new()
}

/// What an administrator may do.
fn administrate(
    server: &mut TeamTalk,
    who: &str,
    count: u32,
    gap: u64,
    line: impl Fn(u32) -> String,
) -> Vec<String> {
    let mut connection = server.guest(who, "operator");
    for number in 0..count {
        server.command(&mut connection, &line(number), "ok\r\n");
        server.wire.wait_millis(gap);
    }
    Vec::new()
}

/// Lines of somebody registered, with their answers.
fn one_by_one(
    server: &mut Irc,
    who: &str,
    count: u32,
    gap: u64,
    line: impl Fn(u32) -> (String, String),
) -> Vec<String> {
    let mut connection = server.join(who, "guest");
    for number in 0..count {
        let (line, answer) = line(number);
        server.say(&mut connection, &line, &answer);
        server.wire.wait_millis(gap);
    }
    Vec::new()
}

/// Lines of an operator of the network.
fn operate(server: &mut Irc, who: &str, count: u32, line: impl Fn(u32) -> String) -> Vec<String> {
    let mut connection = server.join(who, "boss");
    server.say(&mut connection, "OPER boss throw-away", ":lab.example 381 boss :You are now an IRC operator");
    for number in 0..count {
        server.say(&mut connection, &line(number), "");
        server.wire.wait_millis(700);
    }
    Vec::new()
}

/// Many who each do little.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn crowds() -> Vec<Evening> {
    vec![
        teamtalk("sixty come for a game", |server| {
            game_night(
                server,
                |server, player, words| {
                    server.command(player, &format!("message type=2 content=\"{words}\" chanid=1"), "ok\r\n");
                },
                |server, player, question| {
                    let line = format!("message type=1 content=\"{question} a\" destuserid=1");
                    server.command(player, &line, "ok\r\n");
                },
                |server, player| {
                    let refused = "error number=2001 message=\"Incorrect channel password\"\r\n";
                    server.command(player, "join chanid=5 password=\"old\"", refused);
                },
            );
        }),
        irc("sixty come for a game", |server| {
            game_night(
                server,
                |server, player, words| server.say(player, &format!("PRIVMSG #talk :{words}"), ""),
                |server, player, question| server.say(player, &format!("PRIVMSG regular0 :{question} a"), ""),
                |server, player| {
                    let refused = ":lab.example 475 player #secret :Cannot join channel (+k)";
                    server.say(player, "JOIN #secret old", refused);
                },
            );
        }),
        teamtalk(
            "a bot greets sixty who come within a minute, and shows where it is in its song",
            |server| {
                let (mut bot, id) = server.connect("10.77.9.9");
                server.log_in(&mut bot, id, "10.77.9.9", "greeter");
                for number in 0..60_u8 {
                    let who = format!("10.77.{}.{}", 20 + number / 8, 10 + number);
                    let (mut guest, id) = server.connect(&who);
                    server.enter_as_guest(&mut guest, id, &who, &format!("guest{number}"));
                    let line =
                        format!("message type=1 content=\"Welcome here, guest{number}\" destuserid={id}");
                    server.command(&mut bot, &line, "ok\r\n");
                    let song = format!("changestatus statusmode=0 statusmsg=\"0:{number}\"");
                    server.command(&mut bot, &song, "ok\r\n");
                    server.wire.wait_millis(900);
                }
            },
        ),
        irc("a bot greets sixty who come within a minute, and gives them a voice", |server| {
            let mut bot = server.join("10.77.9.9", "greeter");
            for number in 0..60_u8 {
                let who = format!("10.77.{}.{}", 20 + number / 8, 10 + number);
                let name = format!("guest{number}");
                server.join(&who, &name);
                let joined = format!(":{name}!x@{who} JOIN #talk\r\n");
                server.wire.answer(&mut bot, joined.as_bytes());
                server.say(&mut bot, &format!("NOTICE {name} :Welcome here, {name}"), "");
                let voice = format!("MODE #talk +v {name}");
                server.say(&mut bot, &voice, &format!(":greeter!x@10.77.9.9 {voice}"));
                server.wire.wait_millis(900);
            }
        }),
        teamtalk("a class whose line fails, and who come again", class),
        irc("a class whose line fails, and who come again", class),
        teamtalk("a school of sixty that chats", school),
        irc("a school of sixty that chats", school),
        irc("a bridge of two hundred puppets, three of whom paste a poem", |server| {
            let mut puppets: Vec<Connection> = Vec::new();
            for number in 0..200 {
                puppets.push(server.join("10.77.60.1", &format!("puppet{number}")));
                server.wire.wait_millis(600);
            }
            for number in 0..900 {
                let puppet = &mut puppets[number * 7 % 200];
                server.say(puppet, &format!("PRIVMSG #talk :word {number}"), "");
                server.wire.wait_millis(300);
            }
            for line in 0..14 {
                for puppet in &mut puppets[..3] {
                    server.say(puppet, &format!("PRIVMSG #talk :verse {line}"), "");
                }
                server.wire.wait_millis(100);
            }
        }),
        irc("a bouncer of a hundred comes back after a restart and is throttled", |server| {
            let everybody = |server: &mut Irc| -> Vec<Connection> {
                (0..100)
                    .map(|number| {
                        server.wire.wait_millis(100);
                        server.join("10.77.64.1", &format!("user{number}"))
                    })
                    .collect()
            };
            let users = everybody(server);
            for _ in 0..20 {
                server.wire.wait_millis(10_000);
                server.chat();
            }
            users.into_iter().for_each(|user| server.wire.close_by_server(user));
            server.wire.wait_millis(3_000);
            for _ in 0..70 {
                let mut refused = server.wire.connect("10.77.64.1");
                let answer = "ERROR :Your host is trying to (re)connect too fast -- throttled.\r\n";
                server.wire.answer(&mut refused, answer.as_bytes());
                server.wire.close_by_server(refused);
                server.wire.wait_millis(100);
            }
            server.wire.wait_millis(20_000);
            drop(everybody(server));
            server.chat();
        }),
        irc("a bot that gives sixty who come a voice", |server| {
            let mut bot = server.join("10.77.62.1", "voicebot");
            for number in 0..60 {
                server.join(&format!("198.{}.7.7", 18 + number), &format!("player{number}"));
                let line = format!("MODE #talk +v player{number}");
                server.say(&mut bot, &line, &format!(":voicebot!x@10.77.62.1 {line}"));
                server.wire.wait_millis(900);
            }
        }),
        irc("a class of thirty that looks for a channel, and is away at noon", |server| {
            let mut class: Vec<Connection> = Vec::new();
            for number in 0..30 {
                let mut pupil = server.register("10.77.63.1", &format!("pupil{number}"));
                for _ in 0..2 {
                    let row = format!(":lab.example 322 pupil{number} #c 5 :{}\r\n", "t".repeat(200));
                    let end = format!(":lab.example 323 pupil{number} :End of /LIST");
                    server.say(&mut pupil, "LIST", &(row.repeat(100) + &end));
                    server.wire.wait_millis(500);
                }
                let name = format!("pupil{number}");
                server.say(&mut pupil, "JOIN #class", &format!(":{name}!x@10.77.63.1 JOIN #class"));
                class.push(pupil);
            }
            for pupil in &mut class {
                server.say(
                    pupil,
                    "AWAY :lunch",
                    ":lab.example 306 pupil :You have been marked as being away",
                );
            }
            for _ in 0..12 {
                server.wire.wait_millis(15_000);
                server.chat();
            }
        }),
        irc("an operator at work", |server| {
            let mut boss = server.join("10.77.64.1", "boss");
            server.say(
                &mut boss,
                "OPER boss throw-away",
                ":lab.example 381 boss :You are now an IRC operator",
            );
            for line in [
                "SQUIT hub.example :hangs",
                "CONNECT hub.example",
                "KLINE 60 *@192.0.2.7 :spam",
                "KLINE *@spam.example.net :spam",
                "STATS k",
                "SAJOIN lost #talk",
            ] {
                server.say(&mut boss, line, "");
                server.wire.wait_millis(20_000);
            }
        }),
        teamtalk("a school of forty-five guests that waits in the lobby", |server| {
            let mut pupils = Vec::new();
            for number in 0..45 {
                let (mut connection, id) = server.connect("10.77.65.1");
                server.enter_as_guest(&mut connection, id, "10.77.65.1", &format!("pupil{number}"));
                pupils.push(connection);
                server.wire.wait_millis(500);
            }
            server.wire.wait_millis(30_000);
            server.breathe();
            for pupil in &mut pupils {
                server.command(
                    pupil,
                    "join chanid=1 password=\"\" id=2",
                    "begin id=2\r\njoined chanid=1\r\nok\r\nend id=2\r\n",
                );
            }
            for _ in 0..6 {
                server.wire.wait_millis(20_000);
                server.breathe();
            }
        }),
        irc("a bouncer of sixty whose server comes back", |server| {
            for _ in 0..2 {
                let mut open = Vec::new();
                for number in 0..60 {
                    let mut connection = server.join("10.77.61.1", &format!("bounced{number}"));
                    server.identify(&mut connection, &format!("bounced{number}"));
                    for channel in 0..20 {
                        server.say(&mut connection, &format!("JOIN #c{channel}"), "");
                        server.say(&mut connection, &format!("MODE #c{channel}"), "");
                        server.say(&mut connection, &format!("WHO #c{channel}"), "");
                    }
                    open.push(connection);
                    server.wire.wait_millis(150);
                }
                server.wire.wait_millis(200_000);
                open.into_iter().for_each(|connection| server.wire.reset_by_server(connection));
                server.wire.wait_millis(20_000);
            }
        }),
    ]
}

/// Sixty come within a minute for a game; many greet with the same words, some try the old password of a channel, and all
/// answer one quizmaster at once.
fn game_night<S: Talk>(
    server: &mut S,
    say: impl Fn(&mut S, &mut Connection, &str),
    whisper: impl Fn(&mut S, &mut Connection, u32),
    knock: impl Fn(&mut S, &mut Connection),
) {
    let mut players: Vec<Connection> = Vec::new();
    for number in 0..60 {
        let mut player = server.guest(&format!("198.{}.7.7", 18 + number), &format!("player{number}"));
        if number % 2 == 0 {
            say(server, &mut player, "hello everyone");
        } else if number % 4 == 1 {
            say(server, &mut player, "good evening everybody");
        }
        if number % 3 == 0 {
            knock(server, &mut player);
            knock(server, &mut player);
        }
        players.push(player);
        server.wait(1_000);
    }
    for question in 0..5 {
        for player in &mut players {
            whisper(server, player, question);
            server.wait(100);
        }
        server.wait(10_000);
    }
}

/// Twenty-five come, lose their connections twenty seconds later, and come again.
fn class<S: Talk>(server: &mut S) {
    for _ in 0..2 {
        let mut pupils: Vec<Connection> = Vec::new();
        for number in 0..25 {
            pupils.push(server.guest("10.77.51.1", &format!("pupil{number}")));
            server.wait(500);
        }
        server.wait(10_000);
        for pupil in pupils {
            server.leave(pupil);
            server.wait(100);
        }
        server.wait(40_000);
    }
    server.wait(60_000);
}

/// Everybody comes within a minute, and all chat for two.
fn school<S: Talk>(server: &mut S) {
    let mut pupils: Vec<Connection> = Vec::new();
    for number in 0..60 {
        pupils.push(server.guest("10.77.50.1", &format!("pupil{number}")));
        server.wait(1_000);
    }
    for number in 0..600 {
        server.tell(&mut pupils[number * 7 % 60], number as u32);
        server.wait(200);
    }
}
