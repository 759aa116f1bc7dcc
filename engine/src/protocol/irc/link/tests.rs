//! Dialects and cases that no recording has, and the bounds.

use floodwall_wire::Address;
use proptest::prelude::*;

use super::*;
use crate::{
    limits::{LINK_USERS_MAX, LINKS_ENTRIES_MAX},
    protocol::{Output, irc},
    signal::FlowId,
};

const NOW: u64 = 1_795_000_000;

/// One link and what came of it.
struct Play {
    connection: Connection,
    session: irc::Session,
    server: irc::Server,
    output: Output,
    at: Timestamp,
}

impl Play {
    fn new() -> Self {
        Self::with_links(Vec::new())
    }

    fn with_links(peers: Vec<Peer>) -> Self {
        let connection = Connection {
            id: FlowId(7),
            service: 0,
            client: Address::from_v4(0x0a4f_0001),
            client_port: 39_067,
            server: Address::from_v4(0x0a4f_0002),
            server_port: 6_667,
            opened: Timestamp::from_secs(NOW),
            midway: false,
        };
        Self {
            session: irc::Session::new(&connection),
            connection,
            server: irc::Server::configured(Links::new(peers), Vec::new(), 7),
            output: Output::default(),
            at: Timestamp::from_secs(NOW),
        }
    }

    fn bytes(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        use crate::protocol::Dissector;
        let Self { connection, session, server, output, at } = self;
        let mut context = Context { at: *at, connection, seed: 42, output };
        session.on_bytes(side, bytes, server, &mut context);
        self
    }

    /// `C:` and `S:` lines; `+12` lets so many seconds pass.
    fn say(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            match line.split_at(line.len().min(3)) {
                ("C: ", text) => {
                    self.bytes(Side::Client, format!("{text}\r\n").as_bytes());
                }
                ("S: ", text) => {
                    self.bytes(Side::Server, format!("{text}\r\n").as_bytes());
                }
                _ => {
                    let seconds = line.strip_prefix('+').and_then(|text| text.parse().ok()).unwrap();
                    self.at = self.at + Span::from_secs(seconds);
                }
            }
        }
        self
    }

    /// What was wrong, and what happened besides the opening of the link.
    fn heard(&mut self) -> Vec<String> {
        let quiet = ["login.attempted", "link.opened", "link.established"];
        std::mem::take(&mut self.output.signals)
            .into_iter()
            .filter(|signal| !quiet.contains(&signal.kind.as_str()))
            .map(|signal| {
                let reason = signal.detail.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
                format!("{}{reason}", signal.kind.as_str())
            })
            .collect()
    }

    fn view(&self) -> LinkView {
        self.session.link().unwrap().view(&self.connection, usize::MAX)
    }
}

const TS3: [&str; 6] = [
    "C: PASS x :TS",
    "C: SERVER alpha.test 1 :a",
    "S: PASS x :TS",
    "S: SERVER beta.test 1 :b",
    "S: SVINFO 3 1 0 :1795000000",
    "C: SVINFO 3 1 0 :1795000000",
];

const TS6: [&str; 8] = [
    "C: PASS x TS 6 :0HA",
    "C: CAPAB :QS ENCAP EX IE SAVE EUID",
    "C: SERVER alpha.test 1 :a",
    "S: PASS x TS 6 :1HB",
    "S: CAPAB :QS ENCAP EX IE SAVE EUID",
    "S: SERVER beta.test 1 :b",
    "S: SVINFO 6 6 0 :1795000000",
    "C: SVINFO 6 6 0 :1795000000",
];

/// A solanum link with a user and `#war` on both sides, bursts over.
fn ts6() -> Play {
    let mut play = Play::new();
    play.say(&TS6).say(&[
        "C: :0HA EUID anna 1 1794000000 +i ~a h.test 0 0HAAAAAAA * * :a",
        "C: :0HA SJOIN 1794000000 #war +nt :@0HAAAAAAA",
        "C: PING :0HA",
        "S: :1HB UID bert 1 1794000000 +i ~b h.test 0 1HBAAAAAA :b",
        "S: :1HB SJOIN 1794000000 #war +nt :1HBAAAAAA",
        "S: PING :1HB",
        "S: :1HB PONG beta.test :0HA",
        "C: :0HA PONG alpha.test :1HB",
    ]);
    assert_eq!(play.heard(), Vec::<String>::new());
    assert!(play.view().is_established);
    play
}

#[test]
fn solanum_is_told_by_its_pass_and_followed() {
    let view = ts6().view();
    assert_eq!((view.dialect, view.totals), (Dialect::Ts6, [2, 2, 1]));
    assert_eq!(view.channels[0].operators, 1);
}

#[test]
fn takeovers_on_solanum_are_heard_in_any_case_of_letters() {
    let line = "S: :1HB sjoin 1793000000 #WAR + :@1HBAAAAAA";
    assert_eq!(ts6().say(&[line]).heard(), ["link.timestamp-backwards op", "link.ops-lost takeover"]);
    let zero = "S: :1HB SJOIN 0 #war + :@1HBAAAAAA";
    assert_eq!(ts6().say(&[zero]).heard()[0], "link.timestamp-zero op");
    let given = "S: :1HB TMODE 1794000000 #war +o 1HBAAAAAA";
    assert_eq!(ts6().say(&[given]).heard(), ["link.server-mode"]);
}

#[test]
fn a_channel_of_the_other_side_alone_is_taken_by_an_older_timestamp_too() {
    let ours = "C: :0HA SJOIN 1794000500 #home +nt :@0HAAAAAAA";
    let taken = "S: :1HB SJOIN 1793000000 #home +nt :@1HBAAAAAA";
    let heard = ts6().say(&[ours, "+11", taken]).heard();
    assert_eq!(heard, ["link.timestamp-backwards op", "link.ops-lost takeover"]);
    // Both may have made it at once, or the link may have been picked up in the middle.
    assert_eq!(ts6().say(&[ours, taken]).heard(), ["link.ops-lost younger"]);
    let behind = ["S: :1HB SID far.test 2 9FR :f", "S: :9FR SJOIN 1793000000 #home +nt :"];
    assert_eq!(ts6().say(&[ours, "+11"]).say(&behind).heard(), ["link.ops-lost younger"]);
    // A server made up for it excuses nothing that the peer itself says.
    let heard = ts6().say(&[ours, "+11", behind[0], taken]).heard();
    assert_eq!(heard, ["link.timestamp-backwards op", "link.ops-lost takeover"]);
}

#[test]
fn a_ban_of_everybody_is_told_and_one_of_somebody_is_not() {
    let says = |line: &str| ts6().say(&[line]).heard();
    for everybody in
        ["ENCAP * KLINE 0 * * :bye", "KLINE * 0 * * :bye", "ENCAP * DLINE 0 0.0.0.0/0 :x", "GLINE *@* 0 :x"]
    {
        assert_eq!(
            says(&format!("S: :1HBAAAAAA {everybody}")),
            ["link.mass-action everybody"],
            "{everybody}"
        );
    }
    for somebody in
        ["ENCAP * KLINE 0 * bad.example.net :bye", "KLINE * 0 ~x * :bye", "ENCAP * DLINE 0 192.0.2.0/24 :x"]
    {
        assert_eq!(says(&format!("S: :1HBAAAAAA {somebody}")), Vec::<String>::new(), "{somebody}");
    }
}

#[test]
fn nobody_who_is_introduced_late_has_been_there_for_long() {
    let says = |timestamp: u64| {
        let line = format!("S: :1HB UID anna 1 {timestamp} +i ~x h.test 0 1HBAAAAAB :x");
        ts6().say(&["+11", &line]).heard()
    };
    assert_eq!(says(1_793_000_000), ["link.impossible introduction", "link.collision older-wins"]);
    // Who is younger loses.
    assert_eq!(says(1_794_990_000), ["link.collision older-wins"]);
    // Whoever comes with a server that is new here has been there.
    let behind =
        ["+11", "S: :1HB SID far.test 2 9FR :f", "S: :9FR UID anna 1 1793000000 +i ~x h.test 0 9FRAAAAAB :x"];
    assert_eq!(ts6().say(&behind).heard(), ["link.collision older-wins"]);
}

/// Services keep the timestamp with which a channel was registered.
#[test]
fn services_may_bring_an_older_timestamp_where_the_configuration_says_so() {
    let peer = Peer {
        name: Text::from("beta.test"),
        addresses: Vec::new(),
        ports: Vec::new(),
        opened_by_us: false,
        services: vec![Text::from("beta.test")],
    };
    let mut play = Play::with_links(vec![peer]);
    play.say(&TS6).say(&[
        "C: :0HA EUID anna 1 1794000000 +i ~a h.test 0 0HAAAAAAA * * :a",
        "C: :0HA SJOIN 1794000000 #war +nt :@0HAAAAAAA",
        "C: PING :0HA",
        "S: PING :1HB",
        "S: :1HB PONG beta.test :0HA",
        "C: :0HA PONG alpha.test :1HB",
        "+11",
        "S: :1HB SJOIN 1793000000 #war +nt :",
    ]);
    assert_eq!(play.heard(), ["link.stranger", "link.ops-lost younger"]);
}

#[test]
fn services_may_give_ranks_where_the_configuration_says_so() {
    let peer = Peer {
        name: Text::from("beta.test"),
        addresses: Vec::new(),
        ports: Vec::new(),
        opened_by_us: false,
        services: vec![Text::from("Services.Test")],
    };
    let lines = [
        "S: :1HB SID services.test 2 9SV :s",
        "S: :1HB UID bert 1 1794000000 +i ~b h.test 0 1HBAAAAAA :b",
        "S: :1HB SJOIN 1794000000 #war +nt :1HBAAAAAA",
        "S: :9SV TMODE 1794000000 #war +o 1HBAAAAAA",
    ];
    let mut play = Play::with_links(vec![peer]);
    let heard = play.say(&TS6).say(&lines).heard();
    assert_eq!(heard, ["link.stranger"], "the peer's address is not listed, its services are");
    assert_eq!(Play::new().say(&TS6).say(&lines).heard(), ["link.server-mode"]);
}

#[test]
fn what_crosses_is_no_violation_and_what_comes_later_is() {
    let killed = "C: :0HAAAAAAA KILL 1HBAAAAAA :alpha.test (x)";
    let talk = "S: :1HBAAAAAA PRIVMSG #war :hi";
    assert_eq!(ts6().say(&[killed, talk]).heard(), Vec::<String>::new());
    assert_eq!(ts6().say(&[killed, "+11", talk]).heard(), ["link.reintroduced gone"]);
    let quit = "S: :1HBAAAAAA QUIT :bye";
    assert_eq!(ts6().say(&[quit, talk]).heard(), ["link.reintroduced gone"]);
}

#[test]
fn a_deop_that_crosses_a_kick_accuses_nobody() {
    let op = "C: :0HAAAAAAA TMODE 1794000000 #war +o 1HBAAAAAA";
    let deop = "C: :0HAAAAAAA TMODE 1794000000 #war -o 1HBAAAAAA";
    let kick = "S: :1HBAAAAAA KICK #war 0HAAAAAAA :x";
    assert_eq!(ts6().say(&[op, kick]).heard(), Vec::<String>::new());
    assert_eq!(ts6().say(&[op, deop, kick]).heard(), Vec::<String>::new());
    assert_eq!(ts6().say(&[op, deop, "+11", kick]).heard(), ["link.unopped-action kick"]);
    assert_eq!(ts6().say(&[kick]).heard(), ["link.unopped-action kick"]);
}

#[test]
fn a_channel_asked_for_again_may_be_older() {
    let lines = ["C: :0HA RESYNC #war", "S: :1HB SJOIN 1793000000 #war + :@1HBAAAAAA"];
    assert_eq!(ts6().say(&lines).heard(), ["link.ops-lost younger"]);
}

#[test]
fn an_older_channel_within_the_burst_is_a_rejoin() {
    let lines = [
        "C: :0HA SJOIN 1794000100 #war + :",
        "S: :1HB SJOIN 1794000100 #war + :",
        "S: :1HB SJOIN 1794000000 #war + :",
    ];
    assert_eq!(Play::new().say(&TS6).say(&lines).heard(), Vec::<String>::new());
}

#[test]
fn clearing_a_channel_on_ts4_makes_it_one_second_older_and_no_more() {
    let cleared = |timestamp: &str| {
        let mut play = Play::new();
        let greeting = ["C: PASS x :TS", "C: CAPAB :TS4", "C: SERVER alpha.test 1 :a", "S: CAPAB :TS4"];
        play.say(&greeting).say(&[
            "S: SERVER beta.test 1 :b",
            "S: SVINFO 4 4 0 :1795000000",
            "C: SVINFO 4 4 0 :1795000000",
            "C: :alpha.test SJOIN 1794000000 #war + :",
            "S: :beta.test SJOIN 1794000000 #war + :",
            "C: PONG beta.test :alpha.test",
            "S: PONG alpha.test :beta.test",
            &format!("S: :beta.test SJOIN {timestamp} #war +z :*"),
        ]);
        play.heard()
    };
    assert_eq!(cleared("1793999999"), Vec::<String>::new());
    assert_eq!(cleared("1793999998"), ["link.timestamp-backwards no-op"]);
}

#[test]
fn a_squit_may_be_answered_in_the_askers_name() {
    assert_eq!(ts6().say(&["S: :0HAAAAAAA SQUIT 1HB :maintenance"]).heard(), ["link.split"]);
    assert_eq!(ts6().say(&["S: :0HAAAAAAA AWAY :x"]).heard(), ["link.fake-direction source"]);
}

#[test]
fn operators_of_inspircd_may_override() {
    let heard = |modes: &str| {
        let mut play = Play::new();
        play.say(&["C: CAPAB START 1205", "C: SERVER alpha.test AUTH:x 0 0HA :a", "S: CAPAB START 1205"])
            .say(&[
                "S: SERVER beta.test AUTH:y 0 1HB :b",
                "C: :0HA BURST 1795000000",
                "S: :1HB BURST 1795000000",
                &format!("C: :0HA UID 0HAAAAAAA 1794000000 anna h h a 10.0.0.1 1794000000 {modes} :a"),
                "C: :0HA FJOIN #war 1794000000 +nt :,0HAAAAAAA:0",
                "C: :0HA ENDBURST",
                "S: :1HB ENDBURST",
                "C: :0HAAAAAAA FMODE #war 1794000000 +s",
            ]);
        play.heard()
    };
    assert_eq!(heard("+o"), Vec::<String>::new());
    assert_eq!(heard("+i"), ["link.unopped-action mode"]);
}

#[test]
fn ts3_introduces_by_nickname_and_judges_collisions() {
    let mut play = Play::new();
    play.say(&TS3).say(&[
        "C: NICK dup 1 1794000000 +i ~one h1 alpha.test :x",
        "S: NICK DUP 1 1794000009 +i ~two h2 beta.test :x",
        "C: :alpha.test SJOIN 1794000000 #war +nt :@dup",
    ]);
    assert_eq!(play.view().dialect, Dialect::Ts3);
    assert_eq!(play.heard(), ["link.collision older-wins"]);
}

#[test]
fn ts3_lets_operators_into_an_opless_channel_and_ts5_does_not() {
    let lines = [
        "C: NICK anna 1 1794000000 +i ~a h alpha.test :x",
        "C: :alpha.test SJOIN 1794000000 #war +nt :anna",
        "S: NICK bert 1 1794000000 +i ~b h beta.test :x",
        "S: :beta.test SJOIN 1794000100 #war +nt :@bert",
    ];
    let mut play = Play::new();
    assert_eq!(play.say(&TS3).say(&lines).heard(), Vec::<String>::new());
    assert_eq!(play.view().channels[0].timestamp, Some(1_794_000_100), "the channel moved forward");
    let mut play = Play::new();
    let greeting: Vec<String> = TS3.iter().map(|line| line.replace("SVINFO 3 1", "SVINFO 5 3")).collect();
    let greeting: Vec<&str> = greeting.iter().map(String::as_str).collect();
    assert_eq!(play.say(&greeting).say(&lines).heard(), ["link.ops-lost younger"]);
    assert_eq!(play.view().dialect, Dialect::Ts5);
}

#[test]
fn ts3_without_timestamps_is_what_its_servers_warn_about() {
    let mut play = Play::new();
    play.say(&TS3).say(&["C: NICK anna 1 1794000000 +i ~a h alpha.test :x", "C: :anna JOIN #new"]);
    assert_eq!(play.heard(), ["link.plain-join join"]);
    assert_eq!(play.say(&["C: NICK old 1 ~a h alpha.test :x"]).heard(), ["link.plain-join nick"]);
}

#[test]
fn ts4_is_compressed_after_the_introduction() {
    use std::io::Write;
    let compressed = |text: &str| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    };
    let client = compressed(
        "SVINFO 4 4 0 :1795000000\r\n:alpha.test CLIENT .aB3 1794000000 anna 1 +i ~a h :x\r\n\
         :alpha.test SJOIN 1794000000 #war +nt :@%.aB3 b)*!*@bad.test e)*!*@good.test\r\n",
    );
    let server = compressed("SVINFO 4 4 0 :1795000000\r\n:beta.test MODE #war +o .aB3\r\n");
    for size in [1, 5, 1_000] {
        let mut play = Play::new();
        play.say(&["C: PASS x :TS", "C: CAPAB :TS4 ZIP", "C: SERVER alpha.test 1 :a", "S: PASS x :TS"]);
        let mut greeting = b"CAPAB :TS4 ZIP\r\nSERVER beta.test 1 :b\r\n".to_vec();
        greeting.extend_from_slice(&server);
        for piece in greeting.chunks(size) {
            play.bytes(Side::Server, piece);
        }
        for piece in client.chunks(size) {
            play.bytes(Side::Client, piece);
        }
        let view = play.view();
        assert_eq!((view.dialect, view.is_compressed), (Dialect::Ts4, true));
        assert_eq!((view.users[0].id.as_str(), view.channels[0].operators), (".aB3", 1));
        assert_eq!(play.heard(), ["link.server-mode"]);
    }
}

#[test]
fn broken_compression_is_told_once_and_the_other_side_is_still_read() {
    let mut play = Play::new();
    play.say(&["C: PASS x :TS", "C: CAPAB :TS4 ZIP", "C: SERVER alpha.test 1 :a", "S: CAPAB :TS4 ZIP"]);
    play.say(&["S: SERVER beta.test 1 :b"]);
    for _ in 0..5 {
        play.bytes(Side::Client, b"PING :not zlib\r\n");
    }
    assert_eq!(play.heard(), ["link.malformed compression"]);
}

#[test]
fn a_clock_that_both_sides_share_is_no_fault_of_theirs() {
    let shift = |one: &str, other: &str| {
        let mut play = Play::new();
        play.say(&TS6[..6]);
        play.say(&[&format!("S: SVINFO 6 6 0 :{one}"), &format!("C: SVINFO 6 6 0 :{other}")]);
        play.heard()
    };
    assert_eq!(shift("1790000000", "1790000001"), Vec::<String>::new());
    assert_eq!(shift("1795000000", "1795000100"), ["link.incompatible clock-warning"]);
    assert_eq!(shift("1795000000", "1790000000"), ["link.incompatible clock"]);
}

#[test]
fn a_link_beyond_the_bounds_loses_and_accuses_nobody() {
    let mut play = ts6();
    // As many as fit and some more, in net joins so that no rate is passed.
    play.say(&["S: :1HB SID leaf.test 2 8AA :l"]);
    let letter = |index: usize, place: u32| char::from(b'A' + (index / 26_usize.pow(place) % 26) as u8);
    let id = |index: usize| -> String { (0..6).map(|place| letter(index, place)).collect() };
    for index in 0..LINK_USERS_MAX + 500 {
        if index % 100 == 0 {
            play.at = Timestamp::from_secs(NOW);
        }
        play.say(&[&format!("S: :8AA UID u{index} 1 1794000000 +i ~u h 0 8AA{} :u", id(index))]);
    }
    let view = play.view();
    assert_eq!((view.totals[1], view.lost), (LINK_USERS_MAX, 502));
    assert!(!view.is_complete && play.server.links().entries() <= LINKS_ENTRIES_MAX);
    // Unknown now, and not a stranger for it.
    play.say(&[&format!("S: :8AA{} AWAY :x", id(LINK_USERS_MAX + 400))]);
    play.say(&[&format!("S: :8AA SJOIN 1794000000 #new + :@8AA{}", id(LINK_USERS_MAX + 400))]);
    play.say(&["S: :1HBAAAAAA TMODE 1794000000 #war +n"]);
    assert_eq!(play.heard(), Vec::<String>::new());
}

#[test]
fn a_link_that_ends_gives_its_room_back() {
    use crate::protocol::Dissector;
    let mut play = ts6();
    assert!(play.server.links().entries() > 0);
    let Play { connection, session, server, output, at } = &mut play;
    session.note_ending(Ending::Finished(Side::Client));
    session.on_close(server, &mut Context { at: *at, connection, seed: 42, output });
    assert_eq!(play.server.links().entries(), 0);
    assert_eq!(play.heard(), ["link.split", "link.closed finished"]);
}

#[test]
fn a_client_that_talks_like_a_server_is_read_as_a_client_until_it_is_let_in() {
    let mut play = Play::new();
    play.say(&["C: CAPAB :QS", "C: SERVER evil.test 1 :x", "S: :beta.test 451 * :You have not registered"]);
    assert!(play.session.link().is_none());
    assert_eq!(play.server.links().entries(), 0);
}

fn any_link_line() -> impl Strategy<Value = (bool, String)> {
    let word = prop::sample::select(vec![
        "UID", "EUID", "SJOIN", "TMODE", "BMASK", "JOIN", "NICK", "KILL", "SAVE", "SQUIT", "QUIT", "SID",
        "KICK", "PART", "MODE", "PING", "PONG", "SVINFO", "FJOIN", "NJOIN", "EOB", "CLIENT", "SERVER",
    ]);
    let part = prop::sample::select(vec![
        "0HA",
        "1HB",
        "0HAAAAAAA",
        "1HBAAAAAA",
        "0HAAAAAAB",
        "#war",
        "#x",
        "0",
        "1794000000",
        "1793000000",
        "+o",
        "+nt",
        "@0HAAAAAAA",
        "anna",
        "bert",
        "beta.test",
        "1",
        "*",
        "",
    ]);
    let source = prop::option::of(prop::sample::select(vec!["0HA", "1HB", "0HAAAAAAA", "1HBAAAAAA", "9ZZ"]));
    (any::<bool>(), source, word, prop::collection::vec(part, 0..12)).prop_map(
        |(side, source, word, parts)| {
            let source = source.map(|source| format!(":{source} ")).unwrap_or_default();
            (side, format!("{source}{word} {}\r\n", parts.join(" ")))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever two accepted servers say: no panic, books that add up, room given back.
    #[test]
    fn any_lines_keep_the_books(lines in prop::collection::vec(any_link_line(), 0..120)) {
        use crate::protocol::Dissector;
        let mut play = ts6();
        for (is_client, line) in lines {
            play.at = play.at + Span::from_millis(400);
            play.bytes(if is_client { Side::Client } else { Side::Server }, line.as_bytes());
            if let Some(link) = play.session.link() {
                prop_assert_eq!(link.network.entries(), play.server.links().entries());
            }
        }
        let Play { connection, session, server, output, at } = &mut play;
        session.on_close(server, &mut Context { at: *at, connection, seed: 42, output });
        prop_assert_eq!(play.server.links().entries(), 0);
    }

    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec(
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..30,
    )) {
        let mut play = ts6();
        for (is_client, bytes) in pieces {
            play.bytes(if is_client { Side::Client } else { Side::Server }, &bytes);
        }
    }
}
