//! Conversations as the ServerQuery manual and the recorded stub have them.

use floodwall_wire::Address;
use proptest::prelude::*;

use super::{super::Flavour, *};
use crate::{
    protocol::Output,
    signal::{FlowId, Signal},
    time::Timestamp,
};

const BANNER: &str = "S: TS3\n\rWelcome to the TeamSpeak 3 ServerQuery interface, type \"help\" for a list of commands and \"help <command>\" for information on a specific command.";
const OK: &str = "S: error id=0 msg=ok";

fn talk(lines: &[&str]) -> Vec<(Side, Vec<u8>)> {
    lines
        .iter()
        .map(|line| match line.split_at(3) {
            ("C: ", text) => (Side::Client, format!("{text}\n").into_bytes()),
            ("S: ", text) => (Side::Server, format!("{text}\n\r").into_bytes()),
            (other, _) => panic!("who says {other}?"),
        })
        .collect()
}

/// One connection and what came of it.
struct Play {
    connection: Connection,
    session: Session,
    server: Server,
    output: Output,
    progress: Progress,
}

impl Play {
    fn new(midway: bool) -> Self {
        let connection = Connection {
            id: FlowId(7),
            service: 2,
            client: Address::from(std::net::IpAddr::from([10, 78, 1, 30])),
            client_port: 40000,
            server: Address::from_v4(0x0a4e_0001),
            server_port: 6667,
            opened: Timestamp::from_secs(1),
            midway,
        };
        Self {
            session: Session::new(&connection),
            connection,
            server: Server::new(7),
            output: Output::default(),
            progress: Progress::Following,
        }
    }

    fn say(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        let Self { connection, session, server, output, progress } = self;
        let mut context = Context { at: Timestamp::from_secs(2), connection, seed: 42, output };
        *progress = session.on_bytes(side, bytes, server, &mut context);
        assert!(session.held_bytes() <= HELD_BYTES_MAX, "{}", session.held_bytes());
        self
    }

    fn all(&mut self, script: &[(Side, Vec<u8>)]) -> &mut Self {
        for (side, bytes) in script {
            self.say(*side, bytes);
        }
        self
    }

    fn gap(&mut self, side: Side) -> &mut Self {
        let Self { connection, session, server, output, .. } = self;
        let mut context = Context { at: Timestamp::from_secs(2), connection, seed: 42, output };
        session.on_gap(side, 100, server, &mut context);
        self
    }

    fn signals(&mut self) -> Vec<Signal> {
        let Self { connection, session, server, output, .. } = self;
        let mut context = Context { at: Timestamp::from_secs(2), connection, seed: 42, output };
        session.on_close(server, &mut context);
        std::mem::take(&mut self.output.signals)
    }

    fn summaries(&mut self) -> Vec<String> {
        self.signals().iter().map(summary).collect()
    }
}

fn signals(script: &[(Side, Vec<u8>)]) -> Vec<Signal> {
    Play::new(false).all(script).signals()
}

fn run(lines: &[&str]) -> Vec<String> {
    signals(&talk(lines)).iter().map(summary).collect()
}

fn summary(signal: &Signal) -> String {
    let Detail { method, account, target, nickname, command, number, reason, .. } = &signal.detail;
    let text = |name: &str, text: &Option<Text>| {
        text.as_ref().map(|text| format!(" {name}={}", text.as_str())).unwrap_or_default()
    };
    let mut line = signal.kind.as_str().to_owned();
    line += &method.map(|method| format!(" {}", method.as_str())).unwrap_or_default();
    line += &text("account", account);
    line += &text("target", target);
    line += &text("nickname", nickname);
    line += &command.map(|command| format!(" {command}")).unwrap_or_default();
    line += &number.map(|number| format!(" {number}")).unwrap_or_default();
    line + &reason.map(|reason| format!(" {reason}")).unwrap_or_default()
}

#[test]
fn both_forms_of_login_are_guesses_with_the_accounts_name() {
    let wrong = "S: error id=520 msg=invalid\\sloginname\\sor\\spassword";
    let lines = [
        BANNER,
        "C: login client_login_name=serveradmin client_login_password=guess1",
        wrong,
        "C: login serveradmin guess2",
        wrong,
        "C: login guess3",
        wrong,
        "C: login server\\sadmin right",
        OK,
    ];
    let mut play = Play::new(false);
    play.all(&talk(&lines));
    assert!(play.session.is_logged_in());
    assert_eq!(play.server.flavour(), Flavour::TeamSpeak);
    assert_eq!(
        play.summaries(),
        [
            "login.attempted query account=serveradmin",
            "login.failed query account=serveradmin 520",
            "login.attempted query account=serveradmin",
            "login.failed query account=serveradmin 520",
            "login.attempted query",
            "login.failed query 520",
            "login.attempted query account=server admin",
            "login.succeeded query account=server admin",
        ]
    );
}

#[test]
fn pipelined_guesses_are_paired_in_order() {
    let mut lines = vec![BANNER];
    lines.extend(["C: login serveradmin x"; 300]);
    lines.extend(["S: error id=520 msg=invalid\\sloginname\\sor\\spassword"; 300]);
    let signals = run(&lines);
    let failed = signals.iter().filter(|line| *line == "login.failed query account=serveradmin 520");
    assert_eq!(failed.count(), 300);
}

#[test]
fn bans_are_told_before_and_after_anything_is_asked() {
    let banned = "S: error id=3329 msg=connection\\sfailed,\\syou\\sare\\sbanned extra_msg=you\\smay\\sretry\\sin\\s600\\sseconds";
    assert_eq!(run(&[BANNER, banned]), ["connection.refused 3329 banned"]);
    assert_eq!(
        run(&[BANNER, "C: whoami", "S: error id=3331 msg=flood\\sban"]),
        ["command.sent whoami", "connection.refused 3331 flood"]
    );
}

#[test]
fn keys_and_rights_that_are_refused_are_told_apart() {
    let lines = [
        BANNER,
        "C: privilegekeyuse token=guess",
        "S: error id=3840 msg=invalid\\sprivilege\\skey",
        "C: clientlist",
        "S: error id=2568 msg=insufficient\\sclient\\spermissions failed_permid=4",
        "C: banlist",
        "S: error id=1281 msg=database\\sempty\\sresult\\sset",
        "C: hunter2",
        "S: error id=256 msg=command\\snot\\sfound",
    ];
    assert_eq!(
        run(&lines),
        [
            "login.attempted privilege-key",
            "login.failed privilege-key 3840",
            "command.sent clientlist",
            "command.rejected clientlist 2568",
            "command.sent banlist",
            "command.sent unknown",
            "command.rejected unknown 256",
        ]
    );
}

#[test]
fn deeds_count_when_the_server_agreed() {
    let denied = "S: error id=2568 msg=insufficient\\sclient\\spermissions";
    let lines = [
        BANNER,
        "C: clientkick reasonid=5 clid=3|clid=4 reasonmsg=x",
        OK,
        "C: clientkick reasonid=5 clid=5",
        denied,
        "C: banadd ip=203.0.113.9 time=600",
        "S: banid=1",
        OK,
        "C: servergroupaddclient sgid=6 cldbid=9",
        OK,
        "C: privilegekeyadd tokentype=0 tokenid1=6 tokenid2=0",
        "S: token=abcdefgh",
        OK,
        "C: serverprocessstop",
        OK,
    ];
    let deeds: Vec<_> = run(&lines).into_iter().filter(|line| !line.starts_with("command.sent")).collect();
    assert_eq!(
        deeds,
        [
            "user.kicked target=3 clientkick",
            "user.kicked target=4 clientkick",
            "command.rejected clientkick 2568",
            "user.banned target=203.0.113.9 banadd",
            "account.changed target=9 servergroupaddclient",
            "account.changed privilegekeyadd",
            "server.changed serverprocessstop",
        ]
    );
}

#[test]
fn what_closes_a_server_or_bans_everybody_is_told_apart() {
    let reason = |command: &str, answer: &str| {
        let told = signals(&talk(&[BANNER, &format!("C: {command}"), answer]));
        let told = told.into_iter().find(|signal| signal.kind != SignalKind::CommandSent);
        told.map(|signal| (signal.kind, signal.detail.reason))
    };
    let banned = SignalKind::UserBanned;
    assert_eq!(reason("banadd ip=.* time=0", OK), Some((banned, Some("everybody"))));
    assert_eq!(reason("banadd ip=192\\.0\\.2\\.\\d+", OK), Some((banned, None)));
    let refused = "S: error id=2568 msg=insufficient\\sclient\\spermissions";
    assert_eq!(reason("banadd ip=.*", refused).map(|(kind, _)| kind), Some(SignalKind::CommandRejected));
    let changed = SignalKind::ServerChanged;
    let places = "serveredit virtualserver_password=x virtualserver_maxclients=1";
    assert_eq!(reason(places, OK), Some((changed, Some("few-places"))));
    assert_eq!(reason("serveredit virtualserver_password=x", OK), Some((changed, Some("password"))));
    for harmless in
        ["serveredit virtualserver_password= virtualserver_maxclients=32", "serveredit virtualserver_name=x"]
    {
        assert_eq!(reason(harmless, OK), Some((changed, None)), "{harmless}");
    }
}

#[test]
fn talk_has_an_audience_and_notifications_are_not_answers() {
    let lines = [
        BANNER,
        "C: sendtextmessage targetmode=1 target=5 msg=hi\\sthere",
        "S: notifytextmessage targetmode=1 msg=error\\sid=520",
        OK,
        "C: sendtextmessage targetmode=2 target=1 msg=x",
        OK,
        "C: sendtextmessage targetmode=3 target=1 msg=x",
        OK,
        "C: gm msg=x",
        OK,
        "C: clientupdate client_nickname=Admin",
        OK,
    ];
    assert_eq!(
        run(&lines),
        [
            "message.private target=5 sendtextmessage",
            "message.channel target=1 sendtextmessage",
            "message.broadcast target=1 sendtextmessage",
            "message.broadcast gm",
            "command.sent clientupdate",
            "nick.changed nickname=Admin",
        ]
    );
}

#[test]
fn commands_sent_before_the_banner_are_read() {
    let lines =
        ["C: login serveradmin guess", BANNER, "S: error id=520 msg=invalid\\sloginname\\sor\\spassword"];
    assert_eq!(
        run(&lines),
        ["login.attempted query account=serveradmin", "login.failed query account=serveradmin 520"]
    );
}

#[test]
fn file_transfers_are_opaque_and_silent() {
    let mut download = Play::new(false);
    download.say(Side::Client, b"Xc4kPqRm7vTzAbCdEfGh0123").say(Side::Server, b"\x89PNG\r\n\x1a\n");
    assert_eq!(download.progress, Progress::Opaque);
    assert!(download.summaries().is_empty());

    let mut upload = Play::new(false);
    upload.say(Side::Client, b"Xc4kPqRm7vTzAbCdEfGh0123");
    for _ in 0..300 {
        upload.say(Side::Client, &[b'\n'; 1024]);
    }
    assert_eq!(upload.progress, Progress::Opaque);
    assert!(upload.summaries().is_empty());
}

#[test]
fn other_protocols_are_opaque_where_they_are_at_home_and_garbage_where_not() {
    let hello = b"\x16\x03\x01\x02\x00\x01";
    let mut play = Play::new(false);
    assert_eq!(play.say(Side::Client, hello).say(Side::Server, hello).summaries(), ["tls.handshake"]);
    assert_eq!(play.progress, Progress::Opaque);

    let mut play = Play::new(false);
    play.say(Side::Server, b"SSH-2.0-libssh_0.9\r\n").say(Side::Client, b"SSH-2.0-x\r\n");
    assert_eq!(play.progress, Progress::Opaque);
    assert!(play.summaries().is_empty());

    assert_eq!(
        run(&[BANNER, "C: GET / HTTP/1.1", "S: error id=256 msg=command\\snot\\sfound"]),
        ["protocol.garbage http", "command.rejected unknown 256"]
    );
    assert_eq!(run(&["C: GET / HTTP/1.1"]), ["protocol.garbage http"]);
}

#[test]
fn midway_answers_still_count() {
    let mut play = Play::new(true);
    play.say(Side::Server, b"rest\n\rerror id=520 msg=invalid\n\r").gap(Side::Server);
    play.say(Side::Client, b"rest\nlogin a b\n").say(Side::Server, b"x\n\rerror id=520 msg=invalid\n\r");
    assert_eq!(
        play.summaries(),
        ["login.failed query 520", "login.attempted query account=a", "login.failed query account=a 520"]
    );
}

fn secretive() -> Vec<(Side, Vec<u8>)> {
    talk(&[
        BANNER,
        "C: login client_login_name=serveradmin client_login_password=s3cret1",
        "S: error id=520 msg=invalid\\sloginname\\sor\\spassword",
        "C: login s3cret2",
        "S: error id=520 msg=invalid\\sloginname\\sor\\spassword",
        "C: login password=s3cret13 name=x",
        "S: error id=520 msg=invalid\\sloginname\\sor\\spassword",
        "C: login CLIENT_LOGIN_PASSWORD=s3cret14 CLIENT_LOGIN_NAME=serveradmin",
        "S: error id=520 msg=invalid\\sloginname\\sor\\spassword",
        "C: login serveradmin s3cret3",
        OK,
        "C: tokenuse token=s3cret4",
        OK,
        "C: privilegekeyadd tokentype=0",
        "S: token=s3cret5",
        OK,
        "C: clientsetserverquerylogin client_login_name=s3cret6",
        "S: client_login_password=s3cret7",
        OK,
        "C: sendtextmessage targetmode=1 target=5 msg=s3cret8",
        OK,
        "C: clientmove clid=1 cid=2 cpw=s3cret9",
        "S: error id=781 msg=invalid\\schannel\\spassword",
        "C: s3cret10",
        "S: error id=256 msg=command\\snot\\sfound",
    ])
}

#[test]
fn no_secret_is_in_any_signal() {
    let signals = signals(&secretive());
    assert!(signals.len() > 12);
    assert!(!format!("{signals:?}").contains("s3cret"), "{signals:#?}");
}

fn recut(script: &[(Side, Vec<u8>)], cuts: &[usize]) -> Vec<(Side, Vec<u8>)> {
    let mut cuts = cuts.iter().cycle();
    let mut pieces = Vec::new();
    for (side, bytes) in script {
        let mut bytes = bytes.clone();
        while !bytes.is_empty() {
            let rest = bytes.split_off((*cuts.next().unwrap()).min(bytes.len()));
            pieces.push((*side, bytes));
            bytes = rest;
        }
    }
    pieces
}

fn chunk() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let words = prop::sample::select(vec![
        "TS3\n\r",
        "login a b\n",
        "error id=0 msg=ok\n\r",
        "error id=520 x\n\r",
        "clientkick clid=1|clid=2\n",
        "logout\n",
        "GET / ",
        "\n",
        "\r",
        " ",
        "|",
        "=",
        "\\",
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
        let mut play = Play::new(midway);
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
        prop_assert_eq!(signals(&recut(&script, &cuts)), signals(&script));
    }

    #[test]
    fn any_cut_of_a_conversation_gives_the_same_signals(cuts in prop::collection::vec(1_usize..40, 1..30)) {
        prop_assert_eq!(signals(&recut(&secretive(), &cuts)), signals(&secretive()));
    }
}

#[test]
fn a_command_that_no_documentation_has_is_catalogued_where_the_server_knows_it() {
    let mut play = Play::new(false);
    play.output.catalogue = Some(crate::catalogue::Catalogue::default());
    play.all(&talk(&[
        BANNER,
        "C: hunter2 x",
        "S: error id=256 msg=command\\snot\\sfound",
        "C: secret9",
        "S: error id=524 msg=client\\sis\\sflooding",
        "C: newthing cid=1",
        OK,
        "C: clientgetids cluid=x",
        OK,
    ]));
    let catalogue = play.output.catalogue.take().unwrap();
    let names: Vec<_> = catalogue.entries().map(|(key, _)| key.name.as_str().to_owned()).collect();
    assert_eq!(names, ["newthing"]);
}

#[test]
fn parameters_that_no_documentation_has_are_catalogued_once_the_server_took_them() {
    let mut play = Play::new(false);
    play.output.catalogue = Some(crate::catalogue::Catalogue::default());
    play.all(&talk(&[
        BANNER,
        "C: login serveradmin hunter=2",
        OK,
        "C: channeledit cid=1 channel_colour=blue -glow",
        "S: error id=1538 msg=invalid\\sparameter",
        "C: channeledit cid=1 channel_shade=3 channel_name=a",
        OK,
        "C: newthing depth=1",
        OK,
        "C: channelinfo cid=1",
        "S: cid=1 channel_name=secret=1 channel_temperature=3|cid=2 channel_temperature=4",
        "S: error id=0 msg=ok took=3",
        "C: help login",
        "S: Usage: login word=x",
        OK,
        "S: notifytextmessage targetmode=3 msg=a\\sb=c reactions=2",
        "S: anything=1",
    ]));
    let catalogue = play.output.catalogue.take().unwrap();
    let parameters: Vec<_> = catalogue
        .entries()
        .filter(|(key, _)| key.sort == Sort::Parameter)
        .map(|(key, entry)| (key.name.as_str().to_owned(), key.within.as_str().to_owned(), entry.count))
        .collect();
    let expected = [
        ("channel_shade", "channeledit", 1),
        ("channel_temperature", "channelinfo", 2),
        ("depth", "newthing", 1),
        ("reactions", "notifytextmessage", 1),
        ("took", "error", 1),
    ];
    assert_eq!(parameters, expected.map(|(name, within, count)| (name.to_owned(), within.to_owned(), count)));
}
