//! One row per thing the gate tells apart: name, packet, tables, and what both homes must say.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr};

use floodwall_tests::{
    Homes,
    packets::{
        Path, TCP, UDP, data, ethernet, frame, hello, ipv4, ipv6, tcp, tcp_segment, udp, udp_segment, voice,
    },
};
use floodwall_wire::{
    Address, Class, Reason, SourceKey,
    frame::{Transport, tcp_flags},
    limit::Limit,
    lists::{Treatment, image::Range},
    tables::{
        GENERATIONS, KINDS, LEVELS, Port, Prefix, Role, STANDINGS, ServiceSettings, Source, Standing,
        service_flags, source_flags, status_flags,
    },
};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000 * SECOND;
const SERVER: &str = "192.0.2.1";
const SERVER_V6: &str = "2001:db8::1";
const CLIENT: &str = "198.51.100.7";
const CLIENT_V6: &str = "2001:db8:7::7";
const TEAMTALK: u16 = 10_333;
const IRC: u16 = 6_667;
const TEAMSPEAK: u16 = 9_987;

thread_local! {
    /// Reasons that some row expected.
    static SEEN: RefCell<BTreeSet<Reason>> = const { RefCell::new(BTreeSet::new()) };
}

/// A host with three services, no limits and the watcher's heartbeat fresh.
fn set_up(homes: &mut Homes) {
    homes.clear();
    for generation in 0..GENERATIONS as u32 {
        for transport in [Transport::Tcp, Transport::Udp] {
            homes.set_port(generation, transport, TEAMTALK, Port::guarded(0, Role::TeamTalk));
        }
        homes.set_port(generation, Transport::Tcp, IRC, Port::guarded(1, Role::IrcPlain));
        homes.set_port(generation, Transport::Udp, TEAMSPEAK, Port::guarded(2, Role::TeamSpeakVoice));
        for service in 0..3 {
            homes.set_settings(generation, service, settings());
        }
    }
    homes.insert_local(address(SERVER));
    homes.insert_local(address(SERVER_V6));
    homes.set_now(NOW);
    homes.set_status(|status| status.heartbeat_until = NOW + 60 * SECOND);
}

fn settings() -> ServiceSettings {
    ServiceSettings {
        flags: service_flags::REQUIRE_SESSION | service_flags::REQUIRE_OWN_ID,
        proof_for: 60 * SECOND,
        ..ServiceSettings::default()
    }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

fn to(port: u16) -> Path {
    Path::new(CLIENT, SERVER, port)
}

fn expect(homes: &Homes, name: &str, frame: &[u8], reason: Reason) {
    let judgement = homes.judge(frame, &name);
    assert_eq!(judgement.reason, reason, "{name}: {judgement:?}");
    SEEN.with_borrow_mut(|seen| seen.insert(reason));
}

fn prove(homes: &mut Homes, client: &str) {
    let answer = data(Path::new(client, SERVER, TEAMTALK).back(), b"welcome");
    assert!(homes.observe(&answer, &"the server's answer").proves);
}

#[test]
fn gate_tells_apart_what_it_must() {
    let Some(mut homes) = Homes::open("gate_tells_apart_what_it_must") else { return };
    for group in [
        headers,
        rare_headers,
        guarded,
        sources,
        prefixes,
        shapes,
        standing,
        limits,
        learning_and_stale,
        generations,
    ] {
        set_up(&mut homes);
        group(&mut homes);
    }
    // Contention needs another CPU between load and swap; `wire` tests it with threads. A full mirror needs a reader
    // that is behind; `mirror.rs` tests it.
    let unseen: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !SEEN.with_borrow(|seen| seen.contains(reason)))
        .filter(|reason| !matches!(reason, Reason::Contended | Reason::LimitContended | Reason::MirrorFull))
        .map(|reason| reason.as_str())
        .collect();
    assert!(unseen.is_empty(), "no row expects {unseen:?}");
}

fn segment(path: Path) -> Vec<u8> {
    tcp_segment(path, 5, tcp_flags::ACK, b"PING x\r\n")
}

/// A segment over IPv6 behind these headers.
fn packet_v6(next: u8, headers: &[u8]) -> Vec<u8> {
    let path = Path::new(CLIENT_V6, SERVER_V6, IRC);
    ipv6(path, next, &[headers, &segment(path)].concat())
}

fn extended(next: u8, headers: &[u8]) -> Vec<u8> {
    ethernet(&[0x86, 0xdd], &packet_v6(next, headers))
}

fn headers(homes: &mut Homes) {
    let path = to(IRC);
    let segment = segment(path);
    let packet = ipv4(path, TCP, &[], 0, &segment);
    let fragment = |field| ethernet(&[8, 0], &ipv4(path, TCP, &[], field, &segment));
    let mut padded = tcp(path, tcp_flags::ACK, b"");
    padded.resize(60, 0xff);
    for (name, frame, reason) in [
        ("IPv4", ethernet(&[8, 0], &packet), Reason::Admitted),
        ("VLAN", ethernet(&[0x81, 0, 0, 7, 8, 0], &packet), Reason::Admitted),
        ("QinQ", ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 0], &packet), Reason::Admitted),
        (
            "three tags",
            ethernet(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0], &packet),
            Reason::NotIp,
        ),
        ("ARP", ethernet(&[8, 6], &[0; 46]), Reason::NotIp),
        ("options", ethernet(&[8, 0], &ipv4(path, TCP, &[1; 40], 0, &segment)), Reason::Admitted),
        ("IPv6", extended(TCP, &[]), Reason::Admitted),
        ("hop by hop", extended(0, &[TCP, 0, 1, 4, 0, 0, 0, 0]), Reason::Admitted),
        (
            "destination options",
            extended(60, &[TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Reason::Admitted,
        ),
        (
            "authentication",
            extended(51, &[TCP, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Reason::Admitted,
        ),
        ("first fragment, v6", extended(44, &[TCP, 0, 0, 1, 0, 0, 0, 9]), Reason::Admitted),
        ("later fragment, v6", extended(44, &[TCP, 0, 0, 8, 0, 0, 0, 9]), Reason::LaterFragment),
        ("extension header behind the end", extended(0, &[TCP, 255]), Reason::MalformedHeader),
        ("first fragment", fragment(0x2000), Reason::Admitted),
        ("later fragment", fragment(0x0001), Reason::LaterFragment),
        ("ICMP", frame(path, 1, &[8, 0, 0, 0, 0, 0, 0, 0]), Reason::Unguarded),
        (
            "IPv4 header of four words",
            ethernet(&[8, 0], &[&[0x44], &packet[1..]].concat()),
            Reason::MalformedHeader,
        ),
        ("IPv4 cut", ethernet(&[8, 0], &packet[..16]), Reason::MalformedHeader),
        ("padding is no payload", padded, Reason::Admitted),
        ("TCP header of four words", frame(path, TCP, &tcp_segment(path, 4, 16, b"x")), Reason::ShapeHeader),
        (
            "TCP header beyond the segment",
            frame(path, TCP, &tcp_segment(path, 15, 16, b"x")),
            Reason::ShapeHeader,
        ),
        ("first fragment of 8 bytes", frame(path, TCP, &segment[..8]), Reason::ShapeHeader),
        (
            "UDP longer than its packet",
            frame(path, UDP, &udp_segment(path, 99, b"x")),
            Reason::MalformedHeader,
        ),
    ] {
        expect(homes, name, &frame, reason);
    }
}

/// Fragments, chains and tunnels that only somebody who tries to get around the gate sends.
fn rare_headers(homes: &mut Homes) {
    let path = to(IRC);
    let segment = segment(path);
    let packet = ipv4(path, TCP, &[], 0, &segment);
    let whole_v6 = packet_v6(TCP, &[]);
    let cut = |field, bytes: usize| ethernet(&[8, 0], &ipv4(path, TCP, &[], field, &segment[..bytes]));
    let chain = [[60, 0, 1, 4, 0, 0, 0, 0], [43, 0, 1, 4, 0, 0, 0, 0], [TCP, 0, 0, 0, 0, 0, 0, 0]].concat();
    let long = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(8), vec![TCP, 0, 1, 4, 0, 0, 0, 0]].concat();
    let options = ipv4(path, TCP, &[1; 8], 0, &segment);
    let (vlan, qinq) = ([0x81, 0, 0, 7, 8, 0], [0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x86, 0xdd]);
    for (name, frame, reason) in [
        ("a fragment that overlaps the first", cut(0x2001, 28), Reason::LaterFragment),
        ("first fragment of 4 bytes", cut(0x2000, 4), Reason::MalformedHeader),
        ("first fragment that ends inside its TCP header", cut(0x2000, 16), Reason::ShapeHeader),
        ("options in a VLAN", ethernet(&vlan, &options), Reason::Admitted),
        ("IPv6 in QinQ", ethernet(&qinq, &whole_v6), Reason::Admitted),
        ("hop by hop, destination options, routing", extended(0, &chain), Reason::Admitted),
        ("more extension headers than are walked", extended(60, &long), Reason::Unguarded),
        ("GRE", frame(path, 47, &[&[0, 0, 8, 0], &packet[..]].concat()), Reason::Unguarded),
        ("IP in IP", frame(path, 4, &packet), Reason::Unguarded),
        ("IPv6 in IPv4", frame(path, 41, &whole_v6), Reason::Unguarded),
    ] {
        expect(homes, name, &frame, reason);
    }
}

fn guarded(homes: &mut Homes) {
    expect(homes, "guarded", &tcp(to(IRC), tcp_flags::SYN, b""), Reason::Admitted);
    expect(homes, "other port", &tcp(to(IRC + 1), tcp_flags::SYN, b""), Reason::Unguarded);
    expect(homes, "other transport", &udp(to(IRC), b"x"), Reason::Unguarded);
    let elsewhere = tcp(Path::new(CLIENT, "192.0.2.99", IRC), tcp_flags::SYN, b"");
    expect(homes, "other address", &elsewhere, Reason::Unguarded);
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
    expect(homes, "any address", &elsewhere, Reason::Admitted);
    homes.set_status(|status| status.flags |= status_flags::OBSERVE);
    expect(homes, "observed", &tcp(to(IRC), tcp_flags::SYN | tcp_flags::FIN, b""), Reason::ShapeTcpFlags);
}

fn sources(homes: &mut Homes) {
    let frame = data(to(IRC), b"PING x\r\n");
    let key = SourceKey::of(address(CLIENT));
    let banned = Source { banned_until: NOW + 1, ..Source::default() };
    homes.insert_source(key, &banned);
    expect(homes, "banned", &frame, Reason::BanAddress);
    homes.set_now(NOW + 1);
    expect(homes, "ban over", &frame, Reason::Admitted);
    homes.set_now(NOW);
    homes.insert_source(key, &Source { flags: source_flags::PREFIX_BAN, ..banned.clone() });
    expect(homes, "banned as part of a prefix", &frame, Reason::BanPrefix);
    homes.insert_source(key, &Source { flags: source_flags::ALLOWED, ..banned.clone() });
    expect(homes, "allowed beats banned", &frame, Reason::Allowed);
    let v6 = SourceKey::of(address(CLIENT_V6));
    homes.insert_source(v6, &Source { flags: source_flags::MIXED, ..banned.clone() });
    homes.insert_host(address(CLIENT_V6), &Source { known_until: u64::MAX, ..Source::default() });
    let good = homes.judge(&data(Path::new(CLIENT_V6, SERVER_V6, IRC), b"x"), &"known in a banned /64");
    assert_eq!((good.reason, good.standing), (Reason::Admitted, Standing::Known));
    let bad = data(Path::new("2001:db8:7::8", SERVER_V6, IRC), b"x");
    expect(homes, "its neighbour", &bad, Reason::BanAddress);
    for forged in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        expect(homes, forged, &data(Path::new(forged, SERVER, IRC), b"x"), Reason::ShapeAddress);
    }
}

fn prefixes(homes: &mut Homes) {
    let ban = Prefix { banned_until: NOW + SECOND, ..Prefix::default() };
    homes.insert_prefix(address("198.51.0.0"), 96 + 16, ban);
    expect(homes, "in a banned prefix", &data(to(IRC), b"x"), Reason::BanPrefix);
    homes.insert_prefix(
        address("198.51.100.0"),
        96 + 24,
        Prefix { flags: source_flags::ALLOWED, ..Prefix::default() },
    );
    expect(homes, "the longer prefix allows", &data(to(IRC), b"x"), Reason::Allowed);
    let outside = data(Path::new("198.52.0.1", SERVER, IRC), b"x");
    expect(homes, "outside", &outside, Reason::Admitted);
    let range =
        |first: &str, last: &str, treatment| Range { first: address(first), last: address(last), treatment };
    homes.set_lists(&[
        range("198.51.0.0", "198.51.255.255", Treatment::Limit),
        range("198.52.0.0", "198.52.0.1", Treatment::Ban),
        range("198.52.0.2", "198.52.0.2", Treatment::Limit),
        range("198.52.0.3", "198.52.0.3", Treatment::Allow),
        range("2001:db8:5::", "2001:db8:5::6", Treatment::Ban),
        range("2001:db8:5::8", "2001:db8:5:9:ffff:ffff:ffff:ffff", Treatment::Ban),
    ]);
    expect(homes, "a list limits, the prefix allows", &data(to(IRC), b"x"), Reason::Allowed);
    expect(homes, "banned by a list", &outside, Reason::BanPrefix);
    let of = |source, server| data(Path::new(source, server, IRC), b"x");
    let limited = homes.judge(&of("198.52.0.2", SERVER), &"limited by a list");
    assert_eq!((limited.reason, limited.standing), (Reason::Admitted, Standing::Limited));
    expect(homes, "let in by a list", &of("198.52.0.3", SERVER), Reason::Allowed);
    expect(homes, "behind the list", &of("198.52.0.4", SERVER), Reason::Admitted);
    expect(homes, "a listed prefix in a banned one", &of("198.51.7.7", SERVER), Reason::BanPrefix);
    homes.insert_prefix(address("198.52.0.3"), 128, ban);
    expect(homes, "what a list lets in no ban of a prefix holds", &of("198.52.0.3", SERVER), Reason::Allowed);
    for (source, reason) in [
        ("2001:db8:5::6", Reason::BanPrefix),
        ("2001:db8:5::7", Reason::Admitted),
        ("2001:db8:5::8", Reason::BanPrefix),
        ("2001:db8:5:9::1", Reason::BanPrefix),
        ("2001:db8:5:a::1", Reason::Admitted),
    ] {
        expect(homes, source, &of(source, SERVER_V6), reason);
    }
    homes.insert_source(SourceKey::of(address(CLIENT)), &Source::default());
    expect(homes, "an entry settles it", &data(to(IRC), b"x"), Reason::Admitted);
}

fn shapes(homes: &mut Homes) {
    use tcp_flags::{ACK, FIN, PSH, RST, SYN, URG};
    for flags in [SYN | FIN, SYN | RST, FIN | RST | ACK, 0, FIN, FIN | URG | PSH, SYN | URG] {
        let name = format!("flags {flags:#x}");
        expect(homes, &name, &tcp(to(IRC), flags, b""), Reason::ShapeTcpFlags);
    }
    for flags in [SYN, ACK, ACK | FIN, RST, RST | ACK, ACK | PSH | URG] {
        expect(homes, &format!("flags {flags:#x}"), &tcp(to(IRC), flags, b""), Reason::Admitted);
    }
    expect(homes, "HTTP on IRC", &data(to(IRC), b"GET / HTTP/1.1\r\n"), Reason::ShapeForeignProtocol);
    let mut field = voice(5, 30);
    field[8] = 31;
    for (name, datagram, reason) in [
        ("too short", vec![3; 7], Reason::ShapeLength),
        ("too long", vec![3; 1_351], Reason::ShapeLength),
        ("no such kind", vec![99; 20], Reason::ShapeKind),
        ("user id 0", hello(0), Reason::ShapeId),
        ("broken field chain", field, Reason::ShapeTlv),
        ("HELLO with a tail", [&hello(5)[..], &[0]].concat(), Reason::ShapeHandshake),
    ] {
        expect(homes, name, &udp(to(TEAMTALK), &datagram), reason);
    }
    let mut init = b"TS3INIT1\x00\x65\x00\x00\x88\x06\x3b\xec\xe9\x00".to_vec();
    init.resize(34, 0);
    expect(homes, "TS3INIT1", &udp(to(TEAMSPEAK), &init), Reason::Admitted);
    expect(homes, "TS3INIT1 cut", &udp(to(TEAMSPEAK), &init[..33]), Reason::ShapeHandshake);
    expect(homes, "TeamSpeak too short", &udp(to(TEAMSPEAK), &init[..12]), Reason::ShapeLength);
    prove(homes, CLIENT);
    let start = udp_segment(to(TEAMTALK), 1_200, &voice(5, 30));
    let first = ethernet(&[8, 0], &ipv4(to(TEAMTALK), UDP, &[], 0x2000, &start));
    expect(homes, "first fragment of voice", &first, Reason::Unreadable);
}

fn standing(homes: &mut Homes) {
    let frame = udp(to(TEAMTALK), &voice(5, 30));
    expect(homes, "a stranger's voice", &frame, Reason::StandingStranger);
    expect(homes, "its SYN", &tcp(to(TEAMTALK), tcp_flags::SYN, b""), Reason::Admitted);
    let syn_ack = tcp(to(TEAMTALK).back(), tcp_flags::SYN | tcp_flags::ACK, b"");
    assert!(!homes.observe(&syn_ack, &"SYN-ACK").proves);
    expect(homes, "a SYN-ACK proves nothing", &frame, Reason::StandingStranger);
    let echo = udp(to(TEAMTALK).back(), &hello(5));
    assert!(!homes.observe(&echo, &"HELLO-ACK").proves);
    prove(homes, CLIENT);
    let judgement = homes.judge(&frame, &"voice after login");
    assert_eq!((judgement.standing, judgement.class), (Standing::Proven, Class::UdpVoice));
    expect(homes, "proven", &frame, Reason::Admitted);
    homes.set_user(0, 5, Some(address("203.0.113.9")));
    expect(homes, "another's user id", &frame, Reason::StandingForeign);
    homes.set_user(0, 5, Some(address(CLIENT)));
    expect(homes, "its own user id", &frame, Reason::Admitted);
    homes.set_now(NOW + 60 * SECOND);
    expect(homes, "the proof ran out", &frame, Reason::StandingStranger);
}

fn limits(homes: &mut Homes) {
    let three = Limit { interval: SECOND, tolerance: 3 * SECOND };
    let five = Limit { interval: SECOND, tolerance: 5 * SECOND };
    let seven = Limit { interval: SECOND, tolerance: 7 * SECOND };
    let limited = ServiceSettings {
        source: [[[three; KINDS]; STANDINGS]; LEVELS],
        network: [[five; KINDS]; LEVELS],
        service: [[seven; KINDS]; LEVELS],
        flags: 0,
        ..settings()
    };
    homes.set_settings(0, 0, limited);
    let from = |client: &str| udp(Path::new(client, SERVER, TEAMTALK), &voice(5, 30));
    let mut seen = |client: &str| {
        let frame = from(client);
        let reason = homes.judge(&frame, &client).reason;
        SEEN.with_borrow_mut(|seen| seen.insert(reason));
        reason
    };
    let row = |client: &str, count: usize, seen: &mut dyn FnMut(&str) -> Reason| -> Vec<Reason> {
        (0..count).map(|_| seen(client)).collect()
    };
    use Reason::{Admitted, LimitPrefix, LimitService, LimitSource};
    assert_eq!(row("198.51.100.1", 5, &mut seen), [Admitted, Admitted, Admitted, LimitSource, LimitSource]);
    assert_eq!(row("198.51.100.2", 3, &mut seen), [Admitted, Admitted, LimitPrefix]);
    assert_eq!(row("203.0.113.1", 3, &mut seen), [Admitted, Admitted, LimitService]);
    let syns: Vec<_> = (1..10_u8)
        .map(|network| tcp(Path::new(&format!("10.0.{network}.1"), SERVER, TEAMTALK), tcp_flags::SYN, b""))
        .map(|frame| homes.judge(&frame, &"SYN").reason)
        .collect();
    assert_eq!(syns[..7], [Admitted; 7]);
    assert_eq!(syns[7..], [Reason::SynCookie; 2]);
    SEEN.with_borrow_mut(|seen| seen.insert(Reason::SynCookie));
    let known = Source { known_until: u64::MAX, ..Source::default() };
    homes.insert_source(SourceKey::of(address("203.0.113.1")), &known);
    let known = udp(Path::new("203.0.113.1", SERVER, TEAMTALK), &voice(5, 30));
    for expected in [Admitted, Admitted, Admitted, LimitSource] {
        expect(homes, "the known draw on their own", &known, expected);
    }
    homes.set_now(NOW + SECOND);
    for expected in [Admitted, LimitSource] {
        expect(homes, "one is earned back each second", &known, expected);
    }
}

fn learning_and_stale(homes: &mut Homes) {
    let frame = udp(to(TEAMTALK), &voice(5, 30));
    homes.set_status(|status| status.learning_until = NOW + 1);
    expect(homes, "learning", &frame, Reason::Learning);
    homes.set_now(NOW + 1);
    expect(homes, "learnt", &frame, Reason::StandingStranger);
    prove(homes, CLIENT);
    homes.set_user(0, 5, Some(address("203.0.113.9")));
    expect(homes, "fresh", &frame, Reason::StandingForeign);
    homes.set_status(|status| status.heartbeat_until = NOW);
    expect(homes, "stale", &frame, Reason::Stale);
}

fn generations(homes: &mut Homes) {
    homes.set_port(1, Transport::Tcp, IRC, Port::UNGUARDED);
    homes.set_port(1, Transport::Tcp, IRC + 1, Port::guarded(1, Role::IrcPlain));
    let (old, new) = (data(to(IRC), b"x"), data(to(IRC + 1), b"x"));
    expect(homes, "old port, old rules", &old, Reason::Admitted);
    expect(homes, "new port, old rules", &new, Reason::Unguarded);
    homes.set_status(|status| status.generation = 1);
    expect(homes, "old port, new rules", &old, Reason::Unguarded);
    expect(homes, "new port, new rules", &new, Reason::Admitted);
}

#[test]
fn a_frame_beyond_one_page_is_read_like_a_short_one() {
    let Some(mut homes) = Homes::open("a_frame_beyond_one_page_is_read_like_a_short_one") else { return };
    set_up(&mut homes);
    let large = data(to(IRC), &vec![b'x'; 9_000]);
    expect(&homes, "9,000 bytes, most of them not linear", &large, Reason::Admitted);
}

/// In generic mode frames come merged, up to 64 KiB; in native mode large ones come in several buffers. A ban, a shape and
/// payload bytes are the same for them.
#[test]
fn merged_frames_are_judged_and_charged_by_their_bytes() {
    let Some(mut homes) = Homes::open("merged_frames_are_judged_and_charged_by_their_bytes") else { return };
    set_up(&mut homes);
    let merged = data(to(IRC), &vec![b'x'; 21_000]);
    let limit = Limit { interval: SECOND / 1_000, tolerance: SECOND };
    let limited = ServiceSettings { source: [[[limit; KINDS]; STANDINGS]; LEVELS], ..settings() };
    homes.set_settings(0, 1, limited);
    expect(&homes, "21,000 bytes, which take 21 seconds to earn back", &merged, Reason::Admitted);
    homes.set_now(NOW + 19 * SECOND);
    expect(&homes, "too soon", &data(to(IRC), b"x"), Reason::LimitSource);
    homes.set_now(NOW + 21 * SECOND);
    expect(&homes, "earned back", &data(to(IRC), b"x"), Reason::Admitted);
    let foreign = data(to(IRC), &[b"GET / HTTP/1.1\r\n".to_vec(), vec![b'x'; 9_000]].concat());
    expect(&homes, "a large HTTP request", &foreign, Reason::ShapeForeignProtocol);
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    homes.insert_source(SourceKey::of(address(CLIENT)), &banned);
    expect(&homes, "banned", &merged, Reason::BanAddress);
    expect(&homes, "unguarded", &data(to(IRC + 1), &vec![b'x'; 9_000]), Reason::Unguarded);
}
