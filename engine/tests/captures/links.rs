//! Server links as recorded: each rogue line its own signal, each real split, collision and rejoin, and nothing
//! else. What is expected comes from the recorders' notes (`tests/corpus/irc-links/*.truth.json`, the steps files).

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use crate::support::{self, Recorded, capture_at};
use floodwall_engine::{
    protocol::irc::link::{Dialect, Peer},
    signal::Signal,
    text::Text,
};
use floodwall_wire::Address;

/// Signals of links that say what happened; all others say that something was wrong.
const NEWS: [&str; 8] = [
    "link.closed",
    "link.collision",
    "link.established",
    "link.opened",
    "link.ops-lost",
    "link.rejoined",
    "link.split",
    "link.stranger",
];

fn play(links: Vec<Peer>, packets: &[Recorded]) -> Vec<Signal> {
    let mut engine = support::engine_with_links(links);
    for packet in packets {
        engine.handle_packet(&packet.packet());
    }
    engine.finish();
    engine.take_signals().into_iter().map(Arc::unwrap_or_clone).collect()
}

fn is_violation(signal: &Signal) -> bool {
    let kind = signal.kind.as_str();
    kind.starts_with("link.") && !NEWS.contains(&kind)
}

fn of<'a>(signals: &'a [Signal], kind: &str) -> Vec<&'a Signal> {
    signals.iter().filter(|signal| signal.kind.as_str() == kind).collect()
}

fn truth(name: &str) -> serde_json::Value {
    let path = support::corpus().join(format!("irc-links/{name}.truth.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Kind and reason.
type Found = (String, Option<String>);

fn found(signal: &Signal) -> Found {
    (signal.kind.as_str().to_owned(), signal.detail.reason.map(str::to_owned))
}

#[test]
fn each_rogue_line_yields_exactly_its_own_signal() {
    let truth = truth("hybrid-rogue");
    let packets = capture_at("irc-links/hybrid-rogue.pcap", &[6_667]);
    // What happens on a connection is told by its port.
    let mut mistakes = Vec::new();
    for act in truth["acts"].as_array().unwrap() {
        let port = act["port"].as_u64().unwrap();
        let own: Vec<Recorded> =
            packets.iter().filter(|packet| u64::from(packet.key.client_port) == port).cloned().collect();
        let signals = play(Vec::new(), &own);
        let wrong: Vec<Found> = signals
            .iter()
            .filter(|signal| is_violation(signal) || signal.kind.as_str() == "login.failed")
            .map(found)
            .collect();
        let expected: Vec<Found> = act["signals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|signal| {
                let reason = signal["reason"].as_str().map(str::to_owned);
                (signal["kind"].as_str().unwrap().to_owned(), reason)
            })
            .collect();
        if wrong != expected {
            mistakes.push(format!("{}: {wrong:?} instead of {expected:?}", act["name"]));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// What `hybrid-s2s.steps.txt` says happened: one split, one rejoin, three collisions by the table, two operators
/// of the channel made anew in the split who lost it, and nothing that is wrong.
#[test]
fn a_real_split_and_rejoin_is_told_and_accuses_nobody() {
    let signals = play(Vec::new(), &capture_at("irc/hybrid-s2s.pcap", &[6_667, 7_700]));
    let wrong: Vec<Found> = signals.iter().filter(|signal| is_violation(signal)).map(found).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let counts = |kind: &str| of(&signals, kind).len();
    let told =
        ["link.opened", "link.established", "link.split", "link.rejoined", "link.ops-lost"].map(counts);
    assert_eq!(told, [2, 2, 1, 1, 2]);
    assert_eq!(
        collisions(&signals),
        BTreeMap::from([
            ("dup".to_owned(), ("older-wins", Some("1HBAAAAAD".to_owned()))),
            ("ghost".to_owned(), ("same-person", Some("0HAAAAACX".to_owned()))),
            ("twin".to_owned(), ("both-lose", None)),
        ])
    );
    for lost in of(&signals, "link.ops-lost") {
        assert_eq!(lost.detail.reason, Some("split-riding"));
        assert!(["bert", "bea"].contains(&lost.detail.nickname.as_ref().unwrap().as_str()));
    }
    assert_eq!(counts("channel.timestamp-changed"), 1, "three members were told the same");
}

/// By nickname: the verdict and who must go.
fn collisions(signals: &[Signal]) -> BTreeMap<String, (&'static str, Option<String>)> {
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().to_owned());
    of(signals, "link.collision")
        .iter()
        .map(|signal| {
            let detail = &signal.detail;
            (text(&detail.nickname).unwrap(), (detail.reason.unwrap(), text(&detail.target)))
        })
        .collect()
}

/// Two servers of each make, with irssi, weechat and scripted people: what the recorder did and people were told.
#[test]
fn what_people_were_told_is_what_the_link_shows() {
    for make in ["hybrid", "inspircd", "ngircd"] {
        let truth = truth(&format!("{make}-link"));
        let signals = play(Vec::new(), &capture_at(&format!("irc-links/{make}-link.pcap"), &[6_667, 7_700]));
        let wrong: Vec<Found> = signals.iter().filter(|signal| is_violation(signal)).map(found).collect();
        assert!(wrong.is_empty(), "{make}: {wrong:?}");
        let number = |key: &str| truth[key].as_u64().unwrap() as usize;
        assert_eq!(of(&signals, "link.opened").len(), number("links_opened"), "{make}");
        assert_eq!(of(&signals, "link.established").len(), number("links_opened"), "{make}");
        assert_eq!(of(&signals, "link.split").len(), number("splits"), "{make}");
        assert_eq!(of(&signals, "link.rejoined").len(), number("rejoins"), "{make}");
        let sent = truth["sent"].as_object().unwrap();
        let sum = |key: &str| sent.values().map(|sent| sent[key].as_u64().unwrap() as usize).sum::<usize>();
        let talk = of(&signals, "message.channel").len() + of(&signals, "message.private").len();
        assert_eq!(talk, sum("messages"), "{make}");
        assert_eq!(of(&signals, "channel.joined").len(), sum("joins"), "{make}");
        check_collisions(make, &truth, &signals);
    }
}

/// Who went, on either server, against the verdict.
fn check_collisions(make: &str, truth: &serde_json::Value, signals: &[Signal]) {
    let judged = collisions(signals);
    let told = truth["collisions"].as_object().unwrap();
    assert_eq!(judged.len(), told.len(), "{make}: {judged:?}");
    for (nickname, fates) in told {
        let stayed = |server: &str| fates[server] == "stayed";
        let expected = match (stayed("alpha"), stayed("beta")) {
            (false, false) => None,
            (true, false) => Some("1HB"),
            (false, true) => Some("0HA"),
            (true, true) => panic!("{make}: nobody lost {nickname}"),
        };
        let loser = judged[nickname].1.as_deref().map(|id| &id[..3]);
        assert_eq!(loser, expected, "{make}: {nickname}, {:?}", judged[nickname]);
    }
}

#[test]
fn a_peer_that_no_link_names_is_a_stranger_and_a_named_one_is_not() {
    let packets = capture_at("irc/hybrid-s2s.pcap", &[7_700]);
    let peer = |address: [u8; 4]| Peer {
        name: Text::from("alpha.test"),
        addresses: vec![Address::from(std::net::IpAddr::from(address))],
        ports: vec![7_700],
        opened_by_us: false,
        services: Vec::new(),
    };
    assert_eq!(of(&play(vec![peer([10, 78, 0, 9])], &packets), "link.stranger").len(), 2);
    assert_eq!(of(&play(vec![peer([10, 78, 0, 1])], &packets), "link.stranger").len(), 0);
    assert_eq!(of(&play(Vec::new(), &packets), "link.stranger").len(), 0);
}

/// The same capture with our side as the one that connects: the peer is the other end, and our own address is in no
/// signal about visitors.
#[test]
fn a_link_that_our_side_opens_is_followed_from_the_other_end() {
    let packets = capture_at("irc/hybrid-s2s.pcap", &[7_700]);
    let beta = Peer {
        name: Text::from("beta.test"),
        addresses: vec![Address::from(std::net::IpAddr::from([10, 78, 0, 2]))],
        ports: vec![7_700],
        opened_by_us: true,
        services: Vec::new(),
    };
    let signals = play(vec![beta], &packets);
    let opened = of(&signals, "link.opened");
    assert_eq!(opened.len(), 2);
    for signal in opened {
        assert_eq!(signal.address.to_string(), "10.78.0.2");
        assert_eq!(signal.detail.target.as_ref().map(Text::as_str), Some("beta.test"));
    }
    assert_eq!(of(&signals, "connection.opened").len(), 0);
    assert_eq!(of(&signals, "link.collision").len(), 3);
    assert!(!signals.iter().any(is_violation));
}

#[test]
fn the_view_shows_who_is_where_and_since_when() {
    let packets = capture_at("irc/hybrid-s2s.pcap", &[7_700]);
    let mut engine = support::engine_with_links(Vec::new());
    let before_split = packets.iter().take_while(|packet| packet.at.as_nanos() < 1_795_240_938_000_000_000);
    for packet in before_split {
        engine.handle_packet(&packet.packet());
    }
    let views = engine.links(100);
    let [view] = views.as_slice() else { panic!("{views:?}") };
    assert_eq!(
        (view.dialect, view.is_established, view.is_complete, view.lost),
        (Dialect::Hybrid, true, true, 0)
    );
    assert_eq!(view.totals, [2, 6, 1]);
    let war = &view.channels[0];
    assert_eq!(
        (war.name.as_str(), war.timestamp, war.members, war.operators),
        ("#war", Some(1_795_240_930), 6, 1)
    );
    let anna = view.users.iter().find(|user| user.nickname.as_str() == "anna").unwrap();
    assert_eq!((anna.id.as_str(), anna.timestamp), ("0HAAAAACT", Some(1_795_240_924)));
    let few = engine.links(2);
    assert_eq!((few[0].users.len(), few[0].totals[1]), (2, 6));
}

const CAPTURES: [&str; 5] = [
    "irc/hybrid-s2s.pcap",
    "irc-links/hybrid-link.pcap",
    "irc-links/hybrid-rogue.pcap",
    "irc-links/inspircd-link.pcap",
    "irc-links/ngircd-link.pcap",
];

#[test]
fn any_cutting_doubling_and_bounded_reordering_gives_the_same_signals() {
    for name in CAPTURES {
        let packets = capture_at(name, &[6_667, 7_700]);
        let expected = support::counts(&play(Vec::new(), &packets));
        for seed in 1..=6 {
            let found = support::counts(&play(Vec::new(), &support::mangle(&packets, seed)));
            assert_eq!(support::differences(&found, &expected), Vec::<String>::new(), "{name}, seed {seed}");
        }
    }
}

/// A capture that begins anywhere: a link picked up in the middle accuses nobody of what was not seen.
#[test]
fn a_link_picked_up_in_the_middle_accuses_nobody() {
    for name in CAPTURES.iter().filter(|name| !name.contains("rogue")) {
        let packets = capture_at(name, &[6_667, 7_700]);
        for start in (0..packets.len()).step_by(packets.len() / 40) {
            let signals = play(Vec::new(), &packets[start..]);
            let wrong: Vec<Found> = signals.iter().filter(|signal| is_violation(signal)).map(found).collect();
            assert!(wrong.is_empty(), "{name} from {start}: {wrong:?}");
        }
    }
}

/// Link and operator passwords, their hashes on InspIRCd's links, and what people said: nowhere.
#[test]
fn no_secret_and_no_talk_leaves_the_engine() {
    let file = format!("{}/../rules/irc.toml", env!("CARGO_MANIFEST_DIR"));
    let rules = floodwall_engine::rule::file::parse(&file, &std::fs::read_to_string(&file).unwrap()).unwrap();
    for name in CAPTURES {
        let packets = capture_at(name, &[6_667, 7_700]);
        let mut engine = support::engine_of(floodwall_engine::Protocol::Irc, rules.rules.clone());
        engine.watch_signals();
        let mut written = String::new();
        for packet in &packets {
            engine.handle_packet(&packet.packet());
            for signal in engine.take_signals() {
                write!(written, "{signal} {signal:?}").unwrap();
            }
            while let Some(command) = engine.next_command() {
                write!(written, "{command:?}").unwrap();
            }
        }
        write!(written, "{:?} {engine:?}", engine.links(1_000)).unwrap();
        assert!(written.contains("link.opened"));
        for secret in
            ["throw-away", "linkpw", "wrong-password", "AUTH:", "across the link", "after the rejoin"]
        {
            assert!(!written.contains(secret), "{name}: {secret}");
        }
    }
}
