//! Conversations with ircd-hybrid, ngIRCd and InspIRCd as recorded, with others as their sources have them.

use floodwall_wire::Address;
use proptest::prelude::*;

use super::*;
use crate::{
    protocol::Output,
    signal::{FlowId, Signal},
    time::Timestamp,
};

/// `C:` and `S:` lines, as one says and the other answers.
fn talk(lines: &[&str]) -> Vec<(Side, Vec<u8>)> {
    let bytes = |text: &str| format!("{text}\r\n").into_bytes();
    lines
        .iter()
        .map(|line| match line.split_at(3) {
            ("C: ", text) => (Side::Client, bytes(text)),
            ("S: ", text) => (Side::Server, bytes(text)),
            (other, _) => panic!("who says {other}?"),
        })
        .collect()
}

fn run(lines: &[&str]) -> Vec<String> {
    signals(&talk(lines)).iter().map(summary).collect()
}

fn signals(script: &[(Side, Vec<u8>)]) -> Vec<Signal> {
    Play::new(connection(false)).all(script).signals()
}

fn connection(midway: bool) -> Connection {
    Connection {
        id: FlowId(7),
        service: 1,
        client: Address::from(std::net::IpAddr::from([10, 78, 0, 30])),
        client_port: 39067,
        server: Address::from_v4(0x0a4e_0001),
        server_port: 6667,
        opened: Timestamp::from_secs(1),
        midway,
    }
}

/// One connection and what came of it.
struct Play {
    connection: Connection,
    session: Session,
    server: Server,
    output: Output,
    progress: Progress,
    now: Timestamp,
}

impl Play {
    fn new(connection: Connection) -> Self {
        Self {
            session: Session::new(&connection),
            connection,
            server: Server::new(7),
            output: Output::default(),
            progress: Progress::Following,
            now: Timestamp::from_secs(2),
        }
    }

    fn say(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        let Self { connection, session, server, output, progress, now } = self;
        let mut context = Context { at: *now, connection, seed: 42, output };
        *progress = session.on_bytes(side, bytes, server, &mut context);
        assert!(session.held_bytes() <= HELD_BYTES_MAX, "{}", session.held_bytes());
        self
    }

    /// So many seconds in which nobody says anything.
    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now + Span::from_secs(seconds);
        let Self { connection, session, output, now, .. } = self;
        session.on_passing_time(&mut Context { at: *now, connection, seed: 42, output });
        self
    }

    fn all(&mut self, script: &[(Side, Vec<u8>)]) -> &mut Self {
        for (side, bytes) in script {
            self.say(*side, bytes);
        }
        self
    }

    fn gap(&mut self, side: Side) -> &mut Self {
        let Self { connection, session, server, output, now, .. } = self;
        let mut context = Context { at: *now, connection, seed: 42, output };
        session.on_gap(side, 100, server, &mut context);
        self
    }

    /// All but the last: whoever registered is said to be gone when the connection ends.
    fn signals(&mut self) -> Vec<Signal> {
        let was_registered = self.session.state.phase == Phase::Registered;
        let Self { connection, session, server, output, now, .. } = self;
        let mut context = Context { at: *now, connection, seed: 42, output };
        session.on_close(server, &mut context);
        let mut signals = std::mem::take(&mut self.output.signals);
        if was_registered {
            let last = signals.pop().map(|signal| (signal.kind, signal.detail.reason));
            assert_eq!(last, Some((SignalKind::LoginEnded, Some("disconnected"))));
        }
        signals
    }

    fn summaries(&mut self) -> Vec<String> {
        self.signals().iter().map(summary).collect()
    }
}

/// Kind and the fields that are set, without nickname.
fn summary(signal: &Signal) -> String {
    let Detail { method, account, channel, target, command, number, reason, weight, .. } = &signal.detail;
    let text = |name: &str, text: &Option<Text>| {
        text.as_ref().map(|text| format!(" {name}={}", text.as_str())).unwrap_or_default()
    };
    let mut line = signal.kind.as_str().to_owned();
    line += &method.map(|method| format!(" {}", method.as_str())).unwrap_or_default();
    line += &text("account", account);
    line += &text("channel", channel);
    line += &text("target", target);
    line += &command.map(|command| format!(" {command}")).unwrap_or_default();
    line += &number.map(|number| format!(" {number}")).unwrap_or_default();
    line += &reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    if *weight > 0 {
        line += &format!(" {weight}B");
    }
    line
}

/// Registers as `badoper` on ircd-hybrid, then says `more`.
fn registered(more: &[&str]) -> Vec<String> {
    let mut lines = vec![
        "C: NICK badoper",
        "C: USER badoper 0 * :test user",
        "S: :alpha.test NOTICE * :*** Looking up your hostname",
        "S: :alpha.test 001 badoper :Welcome to the TestNet Internet Relay Chat Network badoper!~badoper@10.78.0.30",
    ];
    lines.extend(more);
    let mut signals = run(&lines);
    assert_eq!(
        signals.drain(..2).collect::<Vec<_>>(),
        ["login.attempted registration", "login.succeeded registration 1"]
    );
    signals
}

#[test]
fn registration_with_capabilities_and_a_cookie_is_one_login() {
    let lines = [
        "C: CAP LS 302",
        "C: PASS test",
        "C: NICK tim",
        "C: USER tim tim 127.0.0.1 :Tim",
        "S: :ircd1.local CAP * LS :account-notify multi-prefix sasl",
        "S: PING :J{eaeDdR}|",
        "C: CAP REQ :multi-prefix",
        "S: :ircd1.local CAP tim ACK :multi-prefix",
        "C: PONG :J{eaeDdR}|",
        "C: CAP END",
        "S: :ircd1.local 001 tim :Welcome to the ircd1 IRC Network tim!tim@172.16.238.1",
        "S: :ircd1.local 004 tim ircd1.local InspIRCd-3 BIRcgikorsw ACHIKMORTX :HIXabefghjkloqv",
        "S: :ircd1.local 422 tim :MOTD File is missing",
    ];
    let mut play = Play::new(connection(false));
    play.all(&talk(&lines));
    assert!(play.session.is_logged_in());
    assert_eq!(play.server.flavour(), super::super::Flavour::InspIrcd);
    let signals = play.signals();
    assert_eq!(
        signals.iter().map(summary).collect::<Vec<_>>(),
        ["login.attempted registration", "login.succeeded registration 1"]
    );
    assert_eq!(signals[1].detail.nickname, Some(Text::from("tim")));
}

#[test]
fn each_wrong_oper_password_is_a_failed_login_with_the_opers_name() {
    let signals = registered(&[
        "C: OPER boss guess000",
        "S: :alpha.test 464 badoper :Password incorrect",
        "C: OPER nosuch x",
        "S: :alpha.test 491 badoper :Only few of mere mortals may try to enter the twilight zone",
        "C: OPER boss correct-horse",
        "S: :alpha.test NOTICE * :*** Notice -- badoper!~badoper@10.78.0.30{boss} is now an operator",
        "S: :badoper!~badoper@10.78.0.30 MODE badoper :+flosw",
        "S: :alpha.test 381 badoper :You are now an IRC operator",
    ]);
    assert_eq!(
        signals,
        [
            "login.attempted oper account=boss",
            "login.failed oper account=boss 464",
            "login.attempted oper account=nosuch",
            "login.failed oper account=nosuch 491",
            "login.attempted oper account=boss",
            "login.succeeded oper account=boss 381",
        ]
    );
}

#[test]
fn pipelined_oper_guesses_are_paired_in_order_and_none_is_lost() {
    let guesses: Vec<String> = (0..200).map(|at| format!("C: OPER boss{} g{at}", at / 5)).collect();
    let mut lines: Vec<&str> = guesses.iter().map(String::as_str).collect();
    lines.extend(["S: :alpha.test 464 badoper :Password incorrect"; 200]);
    let failed: Vec<String> =
        registered(&lines).into_iter().filter(|signal| signal.starts_with("login.failed")).collect();
    assert_eq!(failed.len(), 200);
    assert_eq!(failed[0], "login.failed oper account=boss0 464");
    assert_eq!(failed[79], "login.failed oper account=boss15 464");
    // Sixteen names are remembered; the rest fail without one.
    assert_eq!(failed[80], "login.failed oper 464");
}

#[test]
fn a_bad_server_password_counts_once() {
    let lines = [
        "C: PASS wrong",
        "C: NICK a",
        "C: USER a 0 * :a",
        "S: :alpha.test 464 a :Password incorrect",
        "S: ERROR :Closing Link: 10.78.0.30 (Bad Password)",
    ];
    assert_eq!(run(&lines), ["login.attempted registration", "login.failed server-password 464"]);
}

#[test]
fn the_silent_forms_of_a_bad_server_password_are_read() {
    let insp = [
        "C: PASS wrong",
        "C: NICK a",
        "C: USER a 0 * :a",
        "S: ERROR :Closing link: (a@10.78.0.30) [Access denied by configuration]",
    ];
    assert_eq!(run(&insp)[1..], ["login.failed server-password"]);
    let without_password = [insp[1], insp[2], insp[3]];
    assert_eq!(run(&without_password)[1..], ["connection.refused not-authorised"]);
    let ngircd = [insp[0], insp[1], insp[2], "S: ERROR :Bad server password"];
    assert_eq!(run(&ngircd)[1..], ["login.failed server-password"]);
}

#[test]
fn refusals_at_the_door_have_closed_reasons() {
    let cases = [
        ("S: ERROR :Your host is trying to (re)connect too fast -- throttled.", "throttled"),
        ("S: ERROR :Reconnecting too fast, throttled.", "throttled"),
        ("S: ERROR :Connection refused, too many connections from your IP address", "clones"),
        ("S: ERROR :Closing Link: (*** Banned (cache))", "banned"),
        ("S: ERROR :Closing Link: 10.78.0.30 (Connection rejected - connection class is full)", "full"),
        ("S: ERROR :Closing Link: [10.78.0.30] (Handshake data flood detected)", "flood"),
        ("S: ERROR :Closing Link: 10.78.0.30 (Out of luck)", "other"),
    ];
    for (line, reason) in cases {
        assert_eq!(run(&[line]), [format!("connection.refused {reason}")], "{line}");
    }
}

#[test]
fn a_ban_told_twice_is_one_refusal() {
    let lines = [
        "S: :in-alpha.test 465 * :You're banned!",
        "S: ERROR :Closing link: (unknown@10.78.0.50) [Z-lined: Your IP range has been attempting to connect]",
    ];
    assert_eq!(run(&lines), ["connection.refused 465 banned"]);
}

#[test]
fn a_registration_timeout_is_a_held_connection() {
    for line in [
        "S: ERROR :Closing Link: 10.78.0.30 (Registration timed out)",
        "S: ERROR :Closing link: (a@10.78.0.30) [Registration timeout]",
        "S: ERROR :Closing Link: a[10.78.0.30] (Registration Timeout)",
    ] {
        assert_eq!(run(&["C: NICK a", line]), ["connection.held timeout"]);
    }
}

#[test]
fn a_place_held_without_registering_is_told_where_the_server_says_nothing() {
    let held = |seconds: u64, lines: &[&str]| {
        let mut play = Play::new(connection(false));
        play.connection.opened = Timestamp::from_secs(2).max(Timestamp::from_secs(100 - seconds));
        play.all(&talk(lines));
        let Play { connection, session, server, output, .. } = &mut play;
        let at = Timestamp::from_secs(100);
        session.on_close(server, &mut Context { at, connection, seed: 42, output });
        output.signals.iter().map(summary).collect::<Vec<_>>()
    };
    assert_eq!(held(20, &["C: NICK a"]), ["connection.held unregistered"]);
    assert_eq!(held(10, &["C: NICK a"]), Vec::<String>::new());
    let said = "S: ERROR :Closing Link: 10.78.0.30 (Registration timed out)";
    assert_eq!(held(40, &["C: NICK a", said]), ["connection.held timeout"]);
    assert_eq!(
        held(40, &["C: NICK a", "S: :s 001 a :Welcome"]),
        ["login.succeeded registration 1", "login.ended disconnected"]
    );
}

#[test]
fn whoever_is_nowhere_and_says_nothing_is_told_every_minute() {
    let said = |play: &Play| {
        play.output.signals.iter().filter(|signal| signal.kind == SignalKind::ConnectionHeld).count()
    };
    let registration = talk(&["C: NICK a", "C: USER a 0 * :x", "S: :s 001 a :Welcome"]);
    let mut play = Play::new(connection(false));
    play.all(&registration).wait(59);
    assert_eq!(said(&play), 0);
    play.wait(1).wait(30).wait(30);
    assert_eq!(said(&play), 2);
    assert!(play.output.signals.iter().rev().take(2).all(|signal| signal.detail.reason == Some("idle")));
    play.all(&talk(&["C: PRIVMSG b :hello"])).wait(50);
    assert_eq!(said(&play), 2, "it has said something");
    play.all(&talk(&["C: JOIN #c", "S: :a!x@h JOIN #c"])).wait(600);
    assert_eq!(said(&play), 2, "it is somewhere");
    play.all(&talk(&["S: :op!x@h KICK #c a :out"])).wait(61);
    assert_eq!(said(&play), 3);
    let mut met = Play::new(connection(true));
    met.all(&talk(&["S: :s 301 a b :away"])).wait(600);
    assert_eq!(said(&met), 0, "where it is was not seen");
}

#[test]
fn what_an_operator_does_to_the_network_is_told() {
    let deeds = [
        "C: OPER boss pw",
        "S: :s 381 badoper :You are now an IRC operator",
        "C: KLINE 60 *@* :bye",
        "C: KLINE *@192.0.2.7 :spam",
        "C: DLINE 0.0.0.0/0 :bye",
        "C: GLINE +*!*@* 1d :bye",
        "C: SQUIT hub.test :x",
        "C: SAPART bob #c",
        "C: SAMODE #c -oo bob eve",
    ];
    let told = |lines: &[&str]| {
        let all = registered(lines);
        all.into_iter()
            .filter(|line| !line.starts_with("command.sent") && !line.starts_with("login"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&deeds),
        [
            "user.banned target=*@* KLINE everybody",
            "user.banned target=0.0.0.0/0 DLINE everybody",
            "user.banned target=+*!*@* GLINE everybody",
            "server.changed SQUIT",
            "user.moved target=bob SAPART",
            "channel.changed channel=#c target=bob DEOP",
            "channel.changed channel=#c target=eve DEOP",
            "channel.changed channel=#c MODE",
        ]
    );
    assert_eq!(told(&deeds[2..]), [""; 0], "whoever is no operator only tries");
}

#[test]
fn on_a_connection_older_than_the_watch_an_operator_is_one_until_refused() {
    let play = |lines: &[&str]| {
        let mut play = Play::new(connection(true));
        play.all(&talk(lines));
        let changed = |signal: &&Signal| signal.kind == SignalKind::ServerChanged;
        play.output.signals.iter().filter(changed).count()
    };
    // Of either side the first line met may be half of one.
    let met = ["C: PING :x", "S: :s PONG s :x", "S: :s 301 a b :away"];
    let after = |more: &[&str]| play(&[&met, more].concat());
    assert_eq!(after(&["C: REHASH", "S: :s 382 a ircd.conf :Rehashing", "C: REHASH"]), 2);
    assert_eq!(after(&["C: REHASH", "S: :s 481 a :Permission Denied", "C: REHASH"]), 1);
}

#[test]
fn banning_everybody_from_a_channel_is_told_apart() {
    let mode = |mask: &str| {
        let echo = format!("S: :badoper!x@h MODE #c +b {mask}");
        registered(&[echo.as_str()])
    };
    assert_eq!(mode("*!*@*"), ["user.banned channel=#c target=*!*@* MODE everybody"]);
    assert_eq!(mode("*!*@192.0.2.7"), ["user.banned channel=#c target=*!*@192.0.2.7 MODE"]);
}

#[test]
fn answers_are_weighed_when_they_are_complete() {
    let row = format!("S: :s 322 badoper #c 5 :{}", "t".repeat(100));
    let lines = ["C: LIST", &row, &row, "S: :s 323 badoper :End of /LIST"];
    let told = registered(&lines);
    let bytes: usize = lines[1..].iter().map(|line| line.len() - 3).sum();
    assert_eq!(told, ["command.sent LIST".to_owned(), format!("command.answered 323 {bytes}B")]);
    let more = registered(&["S: :s 315 badoper * :End", "S: :s 315 badoper * :End"]);
    assert_eq!(more[0], more[1], "each answer is weighed by itself");
}

#[test]
fn an_ordinary_end_is_no_signal() {
    assert!(registered(&["C: QUIT :bye", "S: ERROR :Closing Link: 10.78.0.30 (Quit: bye)"]).is_empty());
    assert!(registered(&["C: QUIT :Excess Flood", "S: ERROR :\"Excess Flood\""]).is_empty());
    assert!(registered(&["S: ERROR :Closing Link: 10.78.0.30 (Ping timeout: 120 seconds)"]).is_empty());
    assert!(
        registered(&["S: ERROR :Closing Link: 10.78.0.31 (Remote host closed the connection)"]).is_empty()
    );
}

#[test]
fn excess_flood_is_a_refusal() {
    assert_eq!(
        registered(&["S: ERROR :Closing Link: 10.78.0.30 (Excess Flood)"]),
        ["connection.refused flood"]
    );
}

#[test]
fn a_nick_collision_is_told_once_and_is_no_refusal() {
    let signals = registered(&[
        "S: :alpha.test 436 badoper badoper :Nickname collision KILL",
        "S: ERROR :Closing Link: 10.78.0.30 (Nick collision)",
    ]);
    assert_eq!(signals, ["command.rejected NICK 436"]);
    assert_eq!(
        registered(&["S: ERROR :Closing Link: 10.78.0.30 (Nick collision (new))"]),
        ["command.rejected NICK collision"]
    );
}

#[test]
fn a_sasl_failure_stands_although_registration_goes_on() {
    let lines = [
        "C: CAP REQ :sasl",
        "C: NICK alice",
        "C: USER alice 0 * :a",
        "S: :s CAP alice ACK :sasl",
        "C: AUTHENTICATE PLAIN",
        "S: AUTHENTICATE +",
        "C: AUTHENTICATE YWxpY2UAYWxpY2UAczNjcmV0",
        "S: :s 904 alice :SASL authentication failed",
        "C: CAP END",
        "S: :s 001 alice :Welcome",
    ];
    assert_eq!(
        run(&lines),
        [
            "login.attempted registration",
            "login.attempted sasl",
            "login.failed sasl account=alice 904",
            "login.succeeded registration 1",
        ]
    );
}

#[test]
fn a_sasl_success_names_the_account_the_server_gave() {
    let lines = [
        "C: AUTHENTICATE EXTERNAL",
        "S: AUTHENTICATE +",
        "C: AUTHENTICATE +",
        "S: :s 900 alice alice!alice@h alice :You are now logged in as alice",
        "S: :s 903 alice :SASL authentication successful",
    ];
    assert_eq!(run(&lines), ["login.attempted sasl", "login.succeeded sasl account=alice 903"]);
}

#[test]
fn services_answers_count_only_when_asked_for_and_only_from_services() {
    let failed = "S: :NickServ!NickServ@services. NOTICE badoper :Invalid password for \x02alice\x02.";
    assert!(registered(&[failed]).is_empty());
    assert_eq!(
        registered(&["C: PRIVMSG NickServ :IDENTIFY alice hunter2", failed, failed]),
        ["login.attempted services", "login.failed services account=alice"]
    );
    let impostor = "S: :bob!b@h NOTICE badoper :Invalid password for \x02alice\x02.";
    assert_eq!(registered(&["C: NS IDENTIFY alice hunter2", impostor]), ["login.attempted services"]);
    assert_eq!(
        registered(&[
            "C: nickserv identify hunter2",
            "S: :NickServ!NickServ@services. NOTICE badoper :You are now identified for \x02badoper\x02.",
        ]),
        ["login.attempted services", "login.succeeded services account=badoper"]
    );
}

#[test]
fn a_friend_called_like_a_service_logs_nobody_in() {
    let script = talk(&[
        "C: NICK badoper",
        "C: USER badoper 0 * :x",
        "S: :alpha.test 001 badoper :Welcome",
        "C: PRIVMSG NickServ :IDENTIFY alice hunter2",
        "S: :NickServ!n@host NOTICE badoper :You are now identified for \u{2}alice\u{2}.",
    ]);
    let is_let_in = |play: &mut Play| {
        let told = play.all(&script).summaries();
        told.iter().any(|told| told.starts_with("login.succeeded services"))
    };
    // The friend is one of the server's own clients, on another connection.
    let friend = Address::from_v4(0x0a4e_0063);
    let mut play = Play::new(connection(false));
    play.server.appear(b"NickServ", friend, FlowId(77), Timestamp::from_secs(1));
    assert!(!is_let_in(&mut play));
    // Once they are gone the name is the service's again.
    let mut play = Play::new(connection(false));
    play.server.appear(b"NickServ", friend, FlowId(77), Timestamp::from_secs(1));
    play.server.leave(b"NickServ", FlowId(77));
    assert!(is_let_in(&mut play));
}

#[test]
fn taking_a_nickname_back_does_not_shift_whose_login_is_answered() {
    let said = |text: &str| format!("S: :NickServ!NickServ@services. NOTICE badoper :{text}");
    let (ghosted, wrong, right) = (
        said("\u{2}alice\u{2} has been ghosted."),
        said("Invalid password for \u{2}bob\u{2}."),
        said("You are now identified for \u{2}carol\u{2}."),
    );
    let ask = "C: PRIVMSG NickServ :GHOST alice hunter2";
    let signals = registered(&[ask, &ghosted, "C: PRIVMSG NickServ :IDENTIFY bob hunter3", &wrong]);
    assert_eq!(signals.last().map(String::as_str), Some("login.failed services account=bob"));
    // An answer that is not known.
    let other = said("Done.");
    let signals = registered(&[ask, &other, "C: PRIVMSG NickServ :IDENTIFY carol hunter3", &right]);
    assert_eq!(signals.last().map(String::as_str), Some("login.succeeded services account=carol"));
}

#[test]
fn a_service_that_never_answers_does_not_hide_the_guesses_at_another() {
    let signals = registered(&[
        "C: PRIVMSG Q :AUTH a b",
        "S: :alpha.test 401 badoper Q :No such nick/channel",
        "C: PRIVMSG NickServ :IDENTIFY alice hunter2",
        "S: :NickServ!s@services.test NOTICE badoper :Invalid password for \x02alice\x02.",
    ]);
    assert_eq!(signals.last().map(String::as_str), Some("login.failed services account=alice"));
}

#[test]
fn a_password_in_the_accounts_place_is_not_reported() {
    let signals = registered(&[
        "C: PRIVMSG NickServ :IDENTIFY hunter2 alice",
        "S: :NickServ!s@services.test NOTICE badoper :Nick \x02hunter2\x02 isn't registered.",
    ]);
    assert_eq!(signals, ["login.attempted services", "login.failed services"]);
}

#[test]
fn refused_joins_name_the_channel_and_never_the_key() {
    let signals = registered(&[
        "C: JOIN #secret,#other key1,key2",
        "S: :alpha.test 475 badoper #secret :Cannot join channel (+k)",
        "S: :alpha.test 474 badoper #other :Cannot join channel (+b)",
    ]);
    assert_eq!(
        signals,
        [
            "command.sent JOIN",
            "channel.refused channel-key channel=#secret 475",
            "channel.refused channel=#other 474",
        ]
    );
}

#[test]
fn what_is_said_before_001_counts_when_the_server_lets_the_client_in() {
    let said = |answers: &[&str]| {
        let mut lines = vec![
            "C: NICK drone",
            "C: USER x 0 * :x",
            "C: PRIVMSG #lobby :buy",
            "C: NICK other",
            "C: PRIVMSG NickServ :IDENTIFY secret",
        ];
        lines.extend_from_slice(answers);
        run(&lines)
    };
    let told = said(&["S: :alpha.test 001 drone :Welcome"]);
    assert_eq!(
        told,
        [
            "login.attempted registration",
            "login.succeeded registration 1",
            "message.channel channel=#lobby PRIVMSG 3B",
            "command.sent NICK",
            "login.attempted services",
        ]
    );
    // The server answers what came too early: none of it was carried out.
    let told = said(&[
        "S: :alpha.test 451 * :You have not registered",
        "S: :alpha.test 451 * NICK :You have not registered",
        "S: :alpha.test 451 * PRIVMSG :You have not registered",
        "S: :alpha.test 001 drone :Welcome",
    ]);
    assert!(!told.iter().any(|told| told.starts_with("message") || told.contains("services")), "{told:?}");
    // A nickname that was taken: the second one is part of registering.
    let told = run(&[
        "C: NICK drone",
        "C: USER x 0 * :x",
        "S: :alpha.test 433 * drone :Nickname is already in use.",
        "C: NICK drone_",
        "S: :alpha.test 001 drone_ :Welcome",
    ]);
    assert!(!told.contains(&"command.sent NICK".to_owned()), "{told:?}");
}

#[test]
fn pipelined_sasl_guesses_count_each_with_its_account() {
    let mut lines = vec!["C: CAP REQ :sasl", "C: NICK alice", "C: USER x 0 * :x"];
    // "\0alice\0pw", "\0bob\0pw".
    for payload in ["C: AUTHENTICATE AGFsaWNlAHB3", "C: AUTHENTICATE AGJvYgBwdw=="] {
        lines.extend(["C: AUTHENTICATE PLAIN", payload]);
    }
    lines.extend(["S: :alpha.test 904 alice :SASL authentication failed"; 2]);
    let told = run(&lines);
    let sasl: Vec<_> = told.iter().filter(|told| told.contains("sasl")).collect();
    let failed: Vec<_> = sasl.iter().filter(|told| told.starts_with("login.failed")).collect();
    assert_eq!(sasl.len(), 4, "{told:?}");
    assert!(failed[0].contains("alice") && failed[1].contains("bob"), "{told:?}");
}

#[test]
fn a_key_behind_modes_that_are_not_known_is_not_shown() {
    let signals =
        registered(&["S: :badoper!~b@10.78.0.30 MODE #lobby +zkb hunter2 *!*@x.test *!*@203.0.113.9"]);
    assert!(!signals.iter().any(|signal| signal.contains("hunter2")), "{signals:?}");
    let signals = registered(&["S: :badoper!~b@10.78.0.30 MODE #lobby +zb hunter2 *!*@x.test"]);
    assert!(!signals.iter().any(|signal| signal.contains("hunter2")), "{signals:?}");
}

#[test]
fn a_server_that_repeats_the_quit_message_refuses_nobody() {
    let told = registered(&["C: QUIT :Banned from life", "S: ERROR :Banned from life"]);
    assert!(!told.iter().any(|told| told.starts_with("connection.refused")), "{told:?}");
}

#[test]
fn own_deeds_count_when_the_server_shows_them_and_others_do_not() {
    let signals = registered(&[
        "S: :badoper!~badoper@10.78.0.30 JOIN :#lobby",
        "S: :bob!~bob@10.78.0.21 JOIN :#lobby",
        "S: :BADOPER!~badoper@10.78.0.30 KICK #lobby bob :out",
        "S: :bob!~bob@10.78.0.21 KICK #lobby badoper :out",
        "S: :badoper!~badoper@10.78.0.30 MODE #lobby +ob-b bob *!*@203.0.113.9 *!*@x",
        "S: :badoper!~badoper@10.78.0.30 MODE #lobby +nt",
        "S: :alpha.test MODE #lobby +b *!*@*",
        "S: :badoper!~badoper@10.78.0.30 PART #lobby",
    ]);
    assert_eq!(
        signals,
        [
            "channel.joined channel=#lobby",
            "user.kicked channel=#lobby target=bob KICK",
            "channel.left channel=#lobby kicked",
            "user.banned channel=#lobby target=*!*@203.0.113.9 MODE",
            "channel.changed channel=#lobby MODE",
            "channel.left channel=#lobby",
        ]
    );
}

#[test]
fn tries_at_what_makes_an_operator_on_ts4_servers_are_told_apart_from_modes() {
    let signals = registered(&[
        "S: :alpha.test 014 badoper .3fA9 :is your reconnection cookie",
        "C: COOKIE .2eB8",
        "C: MODE #lobby =c apple",
        "S: :alpha.test 339 badoper #lobby :no",
        "C: MODE #lobby =c",
        "C: MODE #lobby +c apple",
        "S: :alpha.test 453 badoper :Your nickname was lost in a collision",
    ]);
    assert_eq!(
        signals,
        [
            "login.attempted channel-operator COOKIE",
            "login.attempted channel-operator channel=#lobby MODE",
            "command.sent MODE",
            "command.sent MODE",
            "command.rejected NICK 453",
        ]
    );
}

#[test]
fn nick_changes_count_when_they_were_asked_for() {
    let lines = [
        "C: NICK bert",
        "C: USER bert 0 * :b",
        "S: :beta.test 001 bert :Welcome",
        "C: NICK bertie",
        "S: :bert!~bert@10.78.0.30 NICK :bertie",
        "C: NICK anna",
        "S: :beta.test 433 bertie anna :Nickname is already in use.",
        "S: :bertie!~bert@10.78.0.30 NICK :1HBAAAAAA",
    ];
    let signals = signals(&talk(&lines));
    assert_eq!(
        signals.iter().skip(2).map(summary).collect::<Vec<_>>(),
        ["command.sent NICK", "nick.changed", "command.sent NICK", "command.rejected NICK 433"]
    );
    assert_eq!(signals[3].detail.nickname, Some(Text::from("bertie")));
}

#[test]
fn answers_to_ctcp_are_told_as_such_one_for_each_that_was_asked() {
    let mut play = Play::new(connection(false));
    play.all(&talk(&[
        "C: NICK alice",
        "C: USER a 0 * :a",
        "S: :alpha.test 001 alice :Welcome",
        "S: :bob!b@h PRIVMSG alice :\u{1}VERSION\u{1}",
        "S: :bob!b@h PRIVMSG #m :\u{1}ACTION waves\u{1}",
        "C: NOTICE bob :\u{1}VERSION x\u{1}",
        "C: NOTICE bob :\u{1}VERSION x\u{1}",
        "S: :bob!b@h PRIVMSG alice :\u{1}PING 1\u{1}",
        "C: NOTICE #m :\u{1}PING 1\u{1}",
    ]));
    let told = play.summaries();
    let told: Vec<_> = told.iter().filter(|told| told.starts_with("message")).collect();
    assert_eq!(
        told,
        [
            "message.private target=bob CTCP-REPLY 11B",
            "message.private target=bob NOTICE 11B",
            "message.channel channel=#m NOTICE 8B",
        ]
    );
}

#[test]
fn talk_is_counted_by_target_with_weight_and_hash() {
    let lines = [
        "C: NICK a",
        "S: :s 001 a :Welcome",
        "C: PRIVMSG #m,bob,@#ops :flood line",
        "C: PRIVMSG victim :\x01VERSION\x01",
        "C: PRIVMSG #m :\x01ACTION waves\x01",
        "C: NOTICE bob :\x01VERSION x\x01",
        "C: NOTICE $$* :all",
        "C: PRIVMSG #m :flood line",
    ];
    let signals = signals(&talk(&lines));
    assert_eq!(
        signals.iter().skip(1).map(summary).collect::<Vec<_>>(),
        [
            "message.channel channel=#m PRIVMSG 10B",
            "message.private target=bob PRIVMSG 10B",
            "message.channel channel=#ops PRIVMSG 10B",
            "message.private target=victim CTCP 9B",
            "message.channel channel=#m PRIVMSG 14B",
            "message.private target=bob NOTICE 11B",
            "message.broadcast NOTICE 3B",
            "message.channel channel=#m PRIVMSG 10B",
        ]
    );
    assert_eq!(signals[1].detail.content, signals[8].detail.content);
    assert!(signals[1].detail.content.is_some());
}

#[test]
fn talk_before_registration_is_none() {
    let lines = ["C: PRIVMSG #m :hello", "S: :alpha.test 451 * :You have not registered"];
    assert_eq!(run(&lines), ["command.rejected 451"]);
}

#[test]
fn targets_of_one_message_are_counted_up_to_a_limit() {
    let targets = vec!["x"; 200].join(",");
    assert_eq!(registered(&[&format!("C: PRIVMSG {targets} :a")]).len(), 20);
}

#[test]
fn commands_are_reported_by_known_words_only() {
    let signals = registered(&[
        "C: LIST",
        "C: who #chat",
        "C: FROBNICATE hunter2",
        "S: :alpha.test 421 badoper FROBNICATE :Unknown command",
        "S: :alpha.test 263 badoper LIST :Server load is temporarily too heavy. Please wait a while and try again.",
        "S: :alpha.test 482 badoper #war :You're not channel operator",
        "S: :alpha.test 461 badoper JOIN :Not enough parameters",
    ]);
    assert_eq!(
        signals,
        [
            "command.sent LIST",
            "command.sent WHO",
            "command.sent unknown",
            "command.rejected unknown 421",
            "command.rejected 263",
            "command.rejected channel=#war 482",
            "command.rejected JOIN 461",
        ]
    );
}

#[test]
fn a_lone_cr_hides_no_command() {
    let script = [
        (Side::Client, b"NICK a\rUSER a 0 * :a\r".to_vec()),
        (Side::Server, b":s 001 a :Welcome\r\n".to_vec()),
        (Side::Client, b"PRIVMSG #m :x\rOPER boss guess\r".to_vec()),
    ];
    let signals: Vec<_> = signals(&script).iter().map(summary).collect();
    assert_eq!(signals[2..], ["message.channel channel=#m PRIVMSG 1B", "login.attempted oper account=boss"]);
}

#[test]
fn a_nul_hides_no_command() {
    let signals = registered(&["C: OPER boss guess\0", "C: \0"]);
    assert_eq!(
        signals,
        ["protocol.garbage nul", "login.attempted oper account=boss", "protocol.garbage nul"]
    );
}

#[test]
fn a_line_over_the_limit_is_garbage_and_still_a_command() {
    let long = "z".repeat(3000);
    let fitting = format!("C: @+x={} PRIVMSG #m :{}", "y".repeat(4000), "z".repeat(400));
    assert_eq!(registered(&[&fitting]), ["message.channel channel=#m PRIVMSG 400B"]);
    assert_eq!(
        registered(&[&format!("C: PRIVMSG #m :{long}")]),
        ["protocol.garbage line-too-long", "message.channel channel=#m PRIVMSG 3000B"]
    );
    let endless = format!("C: PRIVMSG #m :{}", "z".repeat(100_000));
    assert_eq!(registered(&[&endless])[0], "protocol.garbage line-too-long");
}

#[test]
fn other_protocols_are_garbage_and_what_they_smuggle_is_still_read() {
    let lines = [
        "C: POST / HTTP/1.1",
        "C: Host: irc.example:6667",
        "C: ",
        "C: NICK a",
        "C: USER a 0 * :a",
        "S: :s 001 a :Welcome",
        "C: PRIVMSG #m :spam",
    ];
    assert_eq!(
        run(&lines),
        [
            "protocol.garbage http",
            "login.attempted registration",
            "login.succeeded registration 1",
            "message.channel channel=#m PRIVMSG 4B",
        ]
    );
}

#[test]
fn a_proxy_header_is_abuse_unless_the_configuration_names_the_proxy() {
    let lines =
        ["C: PROXY TCP4 192.0.2.7 10.78.0.1 56324 6667", "C: WEBIRC secret gate host 192.0.2.7", "C: NICK a"];
    assert_eq!(run(&lines), ["protocol.garbage proxy", "command.sent WEBIRC"]);
    let mut play = Play::new(connection(false));
    play.server = Server::configured(Default::default(), vec![play.connection.client], 7);
    assert_eq!(play.all(&talk(&lines)).summaries(), Vec::<String>::new());
}

#[test]
fn a_websocket_port_teaches_that_http_is_at_home() {
    let request = (Side::Client, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec());
    let answer = (Side::Server, b"HTTP/1.1 101 Switching Protocols\r\n".to_vec());
    let mut play = Play::new(connection(false));
    assert_eq!(play.all(&[request.clone(), answer]).summaries(), ["protocol.garbage http"]);
    assert_eq!(play.progress, Progress::Opaque);
    play.session = Session::new(&play.connection);
    assert!(play.all(&[request]).summaries().is_empty());
}

#[test]
fn tls_is_believed_when_the_server_answers_it() {
    let hello = (Side::Client, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    let mut play = Play::new(connection(false));
    let answer = (Side::Server, b"\x16\x03\x03\x00\x7a".to_vec());
    play.all(&[hello.clone(), answer.clone()]);
    assert_eq!(play.progress, Progress::Following);
    assert_eq!(play.summaries(), ["tls.handshake", "tls.brief 1000B"]);

    let mut play = Play::new(connection(false));
    play.all(&[hello.clone(), answer]);
    for (side, second) in [(Side::Client, 60), (Side::Server, 61), (Side::Server, 90)] {
        assert_eq!(play.progress, Progress::Following);
        play.now = Timestamp::from_secs(second);
        play.say(side, b"\x17\x03\x03\x00\x02ab");
    }
    assert_eq!(play.progress, Progress::Opaque);
    assert_eq!(play.summaries(), ["tls.handshake", "tls.addressed"]);

    let mut play = Play::new(connection(false));
    play.all(&[hello.clone(), (Side::Server, b"\x15\x03\x03\x00\x02".to_vec())]);
    assert_eq!(play.summaries(), ["tls.failed"]);

    let mut play = Play::new(connection(false));
    assert_eq!(play.all(&[hello]).summaries(), ["protocol.garbage tls"]);
}

#[test]
fn a_tls_hello_does_not_blind_the_reader_of_a_plain_port() {
    let script = [
        (Side::Client, b"\x16\x03\nNICK a\nUSER a 0 * :a\n".to_vec()),
        (Side::Server, b":s 001 a :Welcome\r\n".to_vec()),
        (Side::Client, b"OPER boss guess\n".to_vec()),
        (Side::Server, b":s 464 a :Password incorrect\r\n".to_vec()),
    ];
    let signals: Vec<_> = signals(&script).iter().map(summary).collect();
    assert_eq!(
        signals,
        [
            "login.attempted registration",
            "protocol.garbage tls",
            "login.succeeded registration 1",
            "login.attempted oper account=boss",
            "login.failed oper account=boss 464",
        ]
    );
}

#[test]
fn a_server_link_is_opened_when_the_server_introduces_itself_too() {
    let lines = [
        "C: PASS linkpw",
        "C: CAPAB :MLOCK KNOCK KLN TBURST RESYNC ENCAP UNKLN DLN UNDLN RHOST CLUSTER EOB HOP",
        "C: SERVER alpha.test 1 0HA + :hybrid test alpha.test",
        "S: SERVER beta.test 1 1HB + :hybrid test beta.test",
        "S: :1HB SVINFO 6 6 0 :1795240926",
        "C: :0HA SVINFO 6 6 0 :1795240926",
    ];
    let mut play = Play::new(connection(false));
    play.all(&talk(&lines));
    assert_eq!(play.progress, Progress::Following);
    assert!(play.session.is_logged_in() && play.session.link().is_some());
    assert_eq!(
        play.summaries(),
        [
            "login.attempted link account=alpha.test",
            "link.opened link target=alpha.test",
            "link.closed target=alpha.test",
        ]
    );
}

#[test]
fn a_refused_server_link_is_a_failed_login() {
    for answer in [
        "S: ERROR :Closing Link: 10.78.0.30 (Invalid password)",
        "S: ERROR :Server not configured here",
        "S: ERROR :Closing link: (unknown@10.78.0.30) [You can not connect a server to a client port. x]",
    ] {
        let lines = ["C: PASS guess TS 6 9XX", "C: CAPAB :QS ENCAP", "C: SERVER evil.test 1 :x", answer];
        assert_eq!(
            run(&lines),
            ["login.attempted link account=evil.test", "login.failed link account=evil.test"]
        );
    }
}

#[test]
fn a_link_refused_after_the_servers_introduction_is_a_failed_login() {
    let lines = [
        "C: PASS guess TS 6 9XX",
        "C: SERVER evil.test 1 :x",
        "S: SERVER beta.test 1 :y",
        "S: ERROR :Closing Link: 10.78.0.30 (Invalid password)",
    ];
    assert_eq!(run(&lines)[1..], ["login.failed link account=evil.test"]);
}

#[test]
fn every_464_before_registration_counts_where_the_server_keeps_the_connection() {
    let wrong = "S: :s 464 a :Password incorrect";
    let lines = ["C: PASS one", "C: NICK a", wrong, "C: PASS two", wrong, "S: ERROR :Bad password"];
    assert_eq!(run(&lines), ["login.failed server-password 464"; 2]);
}

#[test]
fn a_client_that_plays_server_first_is_still_read() {
    let lines = [
        "C: CAPAB :x",
        "C: NICK a",
        "C: USER a 0 * :a",
        "S: :s 001 a :Welcome",
        "C: OPER boss guess",
        "S: :s 464 a :Password incorrect",
    ];
    assert_eq!(run(&lines).last().map(String::as_str), Some("login.failed oper account=boss 464"));
}

#[test]
fn midway_the_nickname_is_learnt_from_lines_addressed_to_it() {
    let mut play = Play::new(connection(true));
    play.say(Side::Client, b"rest of a line\r\nPRIVMSG #m :hello\r\n");
    assert!(!play.session.is_logged_in());
    play.say(Side::Server, b"tail\r\n:bob!~bob@10.78.0.21 PRIVMSG badoper :hi\r\n");
    assert!(play.session.is_logged_in());
    play.say(Side::Server, b":badoper!~b@10.78.0.30 KICK #m bob :out\r\n");
    assert_eq!(
        play.summaries(),
        ["message.channel channel=#m PRIVMSG 5B", "user.kicked channel=#m target=bob KICK"]
    );
}

#[test]
fn after_a_gap_the_reader_goes_on_at_the_next_line() {
    let mut play = Play::new(connection(false));
    play.say(Side::Client, b"NICK a\r\nUSER a 0 * :a\r\n").gap(Side::Server);
    play.say(Side::Server, b"half\r\n:s 375 a :- s Message of the Day -\r\n");
    assert!(play.session.is_logged_in());
    play.say(Side::Client, b"OPER boss x\r\nPRIVM").gap(Side::Client);
    play.say(Side::Client, b"lost\r\nPRIVMSG #m :b\r\n");
    play.say(Side::Server, b":s 464 a :Password incorrect\r\n");
    assert_eq!(
        play.summaries(),
        [
            "login.attempted registration",
            "login.attempted oper account=boss",
            "message.channel channel=#m PRIVMSG 1B",
            // What was asked is no longer certain, that something failed is.
            "login.failed oper 464",
        ]
    );
}

/// A conversation with one of everything that must stay secret, each marked `s3cret`.
fn secretive() -> Vec<(Side, Vec<u8>)> {
    talk(&[
        "C: PASS s3cret-server",
        "C: NICK alice",
        "C: USER alice 0 * :Alice",
        "C: AUTHENTICATE PLAIN",
        "S: AUTHENTICATE +",
        "C: AUTHENTICATE YWxpY2UAYWxpY2UAczNjcmV0LXNhc2w=",
        "S: :s 904 alice :SASL authentication failed",
        "S: :s 001 alice :Welcome",
        "C: OPER boss s3cret-oper",
        "S: :s 464 alice :Password incorrect",
        "C: OPER s3cret-alone",
        "S: :s 461 alice OPER :Not enough parameters",
        "C: JOIN #vault s3cret-key",
        "S: :s 475 alice #vault :Cannot join channel (+k)",
        "C: MODE #vault +k s3cret-mode",
        "S: :alice!a@h MODE #vault +k s3cret-mode",
        "C: PRIVMSG NickServ :IDENTIFY alice s3cret-nick",
        "S: :NickServ!n@services NOTICE alice :Invalid password for \x02alice\x02.",
        "C: NS IDENTIFY s3cret-first alice",
        "S: :NickServ!n@services NOTICE alice :\x02s3cret-first\x02 is not registered.",
        "S: :s 014 alice s3cret-cookie :is your reconnection cookie",
        "C: COOKIE s3cret-cookie",
        "C: MODE #vault =c s3cret-guess",
        "S: :s 339 alice #vault :s3cret-guess",
        "C: PRIVMSG NickServ :REGISTER s3cret-new a@example.org",
        "C: PRIVMSG #vault :s3cret-talk",
        "C: s3cretcommand x",
        "S: :s 421 alice s3cretcommand :Unknown command",
        "C: PRIVMSG bob :\x01DCC SEND s3cret-file 1 2 3\x01",
        "S: ERROR :Closing Link: h (Killed (boss (s3cret-reason)))",
    ])
}

#[test]
fn no_secret_is_in_any_signal() {
    let signals = signals(&secretive());
    assert!(signals.len() > 15, "{signals:?}");
    assert!(!format!("{signals:?}").contains("s3cret"), "{signals:#?}");
}

/// Cuts what one side says in a row at these distances.
fn recut(script: &[(Side, Vec<u8>)], cuts: &[usize]) -> Vec<(Side, Vec<u8>)> {
    let mut joined: Vec<(Side, Vec<u8>)> = Vec::new();
    for (side, bytes) in script {
        match joined.last_mut() {
            Some((last, all)) if last == side => all.extend_from_slice(bytes),
            _ => joined.push((*side, bytes.clone())),
        }
    }
    let mut cuts = cuts.iter().cycle();
    let mut pieces = Vec::new();
    for (side, mut bytes) in joined {
        while !bytes.is_empty() {
            let rest = bytes.split_off((*cuts.next().unwrap()).min(bytes.len()));
            pieces.push((side, bytes));
            bytes = rest;
        }
    }
    pieces
}

fn chunk() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let words = prop::sample::select(vec![
        "NICK a\r\n",
        "USER a 0 * :a\r\n",
        "PASS x TS 6 0AB\r\n",
        "SERVER a b\n",
        "OPER a b\r",
        "PRIVMSG #a :",
        ":s 001 a :x\r\n",
        ":s 464 a :x\r\n",
        ":a!b@c ",
        "MODE #a +bbbb x y z\r\n",
        "ERROR :Closing Link: (",
        "NICK :b\n",
        "AUTHENTICATE PLAIN\r\n",
        "AUTHENTICATE ",
        "@tag ",
        "\0",
        "\r",
        "\n",
        " ",
        "\u{1}",
        ":",
        ",",
    ]);
    let piece = prop_oneof![
        words.prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![b'x'; 5000]),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()))
}

proptest! {
    #[test]
    fn any_bytes_are_survived_within_the_bound(
        midway in any::<bool>(),
        chunks in prop::collection::vec((chunk(), 0_u8..20), 0..40),
    ) {
        let mut play = Play::new(connection(midway));
        for ((is_client, bytes), dice) in chunks {
            let side = if is_client { Side::Client } else { Side::Server };
            if dice == 0 {
                play.gap(side);
            }
            play.say(side, &bytes);
        }
        play.signals();
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_same_signals(
        script in prop::collection::vec(chunk(), 0..20),
        cuts in prop::collection::vec(1_usize..700, 1..30),
    ) {
        let side = |is_client| if is_client { Side::Client } else { Side::Server };
        let script: Vec<_> = script.into_iter().map(|(is_client, bytes)| (side(is_client), bytes)).collect();
        prop_assert_eq!(signals(&recut(&script, &cuts)), signals(&recut(&script, &[usize::MAX])));
    }

    #[test]
    fn any_cut_of_a_conversation_gives_the_same_signals(cuts in prop::collection::vec(1_usize..40, 1..30)) {
        prop_assert_eq!(signals(&recut(&secretive(), &cuts)), signals(&secretive()));
    }
}
