use super::*;
use crate::{limits::GAP_PATIENCE, packet::Body};
use floodwall_wire::{Class, Reason};
use proptest::prelude::*;
use tcp_flags::{ACK, FIN, RST, SYN};

const CLIENT_ISN: u32 = 0xffff_fff0;
const SERVER_ISN: u32 = 5_000;

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Recorder {
    told: Vec<String>,
    client: Vec<u8>,
    server: Vec<u8>,
    opaque_after: Option<usize>,
    sessions: usize,
}

impl Readers<()> for Recorder {
    fn open(&mut self, _connection: &Connection) {
        self.sessions += 1;
    }

    fn tell(&mut self, _: &Connection, _session: &mut (), _at: Timestamp, event: Event<'_>) -> Progress {
        match event {
            Event::Bytes(Side::Client, bytes) => self.client.extend_from_slice(bytes),
            Event::Bytes(Side::Server, bytes) => self.server.extend_from_slice(bytes),
            Event::Opened => self.told.push("opened".to_owned()),
            Event::Gap(side, missed) => self.told.push(format!("gap {side:?} {missed}")),
            Event::StillOpen => self.told.push("still open".to_owned()),
            Event::Conflict(side) => self.told.push(format!("conflict {side:?}")),
            Event::Closed(ending) => self.told.push(format!("closed {}", ending.as_str())),
        }
        match self.opaque_after {
            Some(bytes) if self.client.len() >= bytes => Progress::Opaque,
            _ => Progress::Following,
        }
    }

    fn abandon(&mut self, connection: &Connection, _at: Timestamp) {
        self.told.push(format!("abandoned {}", connection.client_port));
    }

    fn is_protected(&self, _session: &()) -> bool {
        false
    }

    fn held_bytes(&self, _session: &()) -> usize {
        0
    }
}

/// One segment, offsets relative to the first payload byte.
#[derive(Clone, Debug)]
struct Piece {
    from: Side,
    flags: u8,
    offset: i64,
    acknowledges: i64,
    payload: Vec<u8>,
    at: u64,
}

struct World {
    streams: Streams<()>,
    recorder: Recorder,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self { streams: Streams::new(1), recorder: Recorder::default(), now: 1_000 }
    }

    fn opened() -> Self {
        let mut world = Self::new();
        world.send(Side::Client, SYN, -1, 0, b"");
        world.send(Side::Server, SYN | ACK, -1, 0, b"");
        world.send(Side::Client, ACK, 0, 0, b"");
        world
    }

    fn send(&mut self, from: Side, flags: u8, offset: i64, acknowledges: i64, payload: &[u8]) {
        self.now += 1;
        self.play(&Piece { from, flags, offset, acknowledges, payload: payload.to_vec(), at: self.now });
    }

    fn client(&mut self, offset: i64, payload: &[u8]) {
        self.send(Side::Client, ACK, offset, self.recorder.server.len() as i64, payload);
    }

    fn server(&mut self, offset: i64, acknowledges: i64, payload: &[u8]) {
        self.send(Side::Server, ACK, offset, acknowledges, payload);
    }

    fn play(&mut self, piece: &Piece) {
        let number = |isn: u32, offset: i64| (i64::from(isn) + 1 + offset) as u32;
        let (own, other) = match piece.from {
            Side::Client => (CLIENT_ISN, SERVER_ISN),
            Side::Server => (SERVER_ISN, CLIENT_ISN),
        };
        let tcp = TcpHeader {
            sequence: number(own, piece.offset),
            acknowledgement: if piece.flags & ACK == 0 { 0 } else { number(other, piece.acknowledges) },
            flags: piece.flags,
            payload_offset: 54,
            payload_bytes: piece.payload.len() as u32,
        };
        let packet = Packet { at: Timestamp::from_nanos(piece.at * 1_000_000), ..self.packet(piece.from) };
        self.streams.handle_segment(&packet, &tcp, &piece.payload, &mut self.recorder);
    }

    fn packet(&self, from: Side) -> Packet<'static> {
        Packet {
            at: Timestamp::from_nanos(self.now * 1_000_000),
            service: 0,
            from,
            client: Address::from_v4(1),
            client_port: 40_000,
            server: Address::from_v4(2),
            server_port: 10_333,
            class: Class::TcpPayload,
            reason: Reason::Admitted,
            standing: floodwall_wire::tables::Standing::Proven,
            body: Body::Other,
        }
    }

    fn told(&self) -> Vec<&str> {
        self.recorder.told.iter().map(String::as_str).collect()
    }
}

#[test]
fn what_follows_an_answer_waits_for_it() {
    let mut world = World::opened();
    // Caught in another order than it was sent: the client speaks of what the server has said.
    world.send(Side::Client, ACK, 0, 5, b"yes");
    world.server(5, 3, b"");
    assert_eq!(world.recorder.client, b"");
    world.server(0, 0, b"well?");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"yes"[..], &b"well?"[..]));
}

#[test]
fn an_answer_that_was_never_caught_is_told_before_what_follows_it() {
    let mut world = World::opened();
    world.send(Side::Client, ACK, 0, 5, b"yes");
    world.server(5, 3, b"");
    world.now += GAP_PATIENCE.as_nanos() / 1_000_000 + 1;
    world.server(5, 3, b"");
    assert_eq!(world.told(), ["opened", "gap Server 5"]);
    assert_eq!(world.recorder.client, b"yes");
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_holds_nothing_up() {
    let mut world = World::opened();
    // The server drops it, so the same bytes come again with one that is right.
    world.send(Side::Client, ACK, 0, 900, b"yes");
    world.server(0, 0, b"");
    world.send(Side::Client, ACK, 0, 0, b"yes");
    world.server(0, 3, b"well");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"yes"[..], &b"well"[..]));
    assert_eq!(world.told(), ["opened"]);
}

#[test]
fn two_who_would_wait_for_each_other_do_not() {
    let mut world = World::opened();
    // The first copy was not caught, the second acknowledges the answer to it.
    world.server(0, 3, b"well");
    world.send(Side::Client, ACK, 0, 4, b"yes");
    world.server(4, 3, b"");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"yes"[..], &b"well"[..]));
    assert_eq!(world.told(), ["opened"]);
}

#[test]
fn client_bytes_count_once_the_server_acknowledges_them() {
    let mut world = World::opened();
    world.client(0, b"hello ");
    world.client(6, b"world");
    assert_eq!(world.recorder.client, b"");
    world.server(0, 6, b"");
    assert_eq!(world.recorder.client, b"hello ");
    world.server(0, 8, b"");
    assert_eq!(world.recorder.client, b"hello wo");
    world.server(0, 11, b"hi");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"hello world"[..], &b"hi"[..]));
}

#[test]
fn bytes_the_server_never_accepts_never_count() {
    let mut world = World::opened();
    world.client(0, b"login");
    world.send(Side::Server, RST | ACK, 0, 0, b"");
    assert_eq!(world.recorder.client, b"");
    assert_eq!(world.told(), ["opened", "closed reset"]);
}

#[test]
fn an_answer_does_not_overtake_its_question() {
    let mut world = World::opened();
    world.server(0, 5, b"answer");
    assert_eq!(world.recorder.server, b"", "its question has not been seen");
    world.client(0, b"quest");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"quest"[..], &b"answer"[..]));
}

#[test]
fn the_first_copy_wins_and_a_different_second_one_is_reported() {
    let mut world = World::opened();
    world.client(0, b"abcdef");
    world.client(0, b"abcdef");
    assert_eq!(world.told(), ["opened"], "a retransmission is no conflict");
    world.client(3, b"XYZghi");
    world.server(0, 9, b"");
    assert_eq!(world.recorder.client, b"abcdefghi");
    assert_eq!(world.told(), ["opened", "conflict Client"]);
}

#[test]
fn missing_bytes_are_waited_for_and_then_reported_not_guessed() {
    let mut world = World::opened();
    world.server(0, 0, b"one\n");
    world.server(8, 0, b"three\n");
    assert_eq!(world.recorder.server, b"one\n");
    world.now += 5_000;
    world.server(14, 0, b"four\n");
    assert_eq!(world.recorder.server, b"one\nthree\nfour\n");
    assert_eq!(world.told(), ["opened", "gap Server 4"]);
}

#[test]
fn client_bytes_acknowledged_but_never_seen_are_a_gap() {
    let mut world = World::opened();
    world.server(0, 7, b"");
    world.now += 5_000;
    world.client(7, b"after");
    world.server(0, 12, b"");
    assert_eq!(world.recorder.client, b"after");
    assert_eq!(world.told(), ["opened", "gap Client 7"]);
}

#[test]
fn a_connection_is_picked_up_in_mid_stream() {
    let mut world = World::new();
    world.send(Side::Server, ACK, 100, 50, b"talk");
    world.send(Side::Client, ACK, 50, 104, b"more");
    world.send(Side::Server, ACK, 104, 54, b"");
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"more"[..], &b"talk"[..]));
    assert!(world.told().is_empty(), "nobody saw it open");
}

#[test]
fn both_fins_close_and_late_packets_do_not_open_again() {
    let mut world = World::opened();
    world.send(Side::Client, FIN | ACK, 0, 0, b"quit\n");
    world.send(Side::Server, FIN | ACK, 0, 6, b"bye\n");
    world.send(Side::Client, ACK, 6, 5, b"");
    world.send(Side::Server, FIN | ACK, 0, 6, b"bye\n");
    assert_eq!(world.told(), ["opened", "closed finished"]);
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"quit\n"[..], &b"bye\n"[..]));
}

#[test]
fn a_reset_far_outside_the_window_is_not_believed() {
    let mut world = World::opened();
    world.send(Side::Client, RST, 500_000_000, 0, b"");
    assert_eq!(world.told(), ["opened"]);
    world.send(Side::Client, RST, 0, 0, b"");
    assert_eq!(world.told(), ["opened", "closed reset"]);
}

#[test]
fn a_reset_the_server_does_not_believe_blinds_nobody() {
    let mut world = World::opened();
    world.client(0, b"one\n");
    world.server(0, 4, b"");
    // In the window, but not where the next byte is expected: the server answers with a challenge and goes on.
    world.send(Side::Client, RST, 1_004, 0, b"");
    world.client(4, b"two\n");
    world.server(0, 8, b"ok\n");
    assert_eq!((&*world.recorder.client, world.told()), (&b"one\ntwo\n"[..], vec!["opened"]));
    // In the right place, but lost on its way to the server, which speaks on.
    world.send(Side::Client, RST, 8, 3, b"");
    assert_eq!(world.told(), ["opened", "closed reset"]);
    world.client(8, b"three\n");
    world.server(3, 14, b"ok\n");
    world.client(14, b"four\n");
    world.server(6, 19, b"ok\n");
    assert!(world.recorder.client.ends_with(b"four\n"), "{:?}", world.recorder.client);
}

#[test]
fn a_fin_the_server_does_not_take_ends_nothing() {
    for offset in [-2, 0, 3, 500] {
        let mut world = World::opened();
        world.client(0, b"one\n");
        world.server(0, 4, b"");
        world.send(Side::Client, FIN | ACK, offset, 0, b"");
        world.client(4, b"two\nthree\n");
        world.server(0, 14, b"");
        assert_eq!(world.recorder.client, b"one\ntwo\nthree\n", "FIN at {offset}");
    }
}

#[test]
fn a_handshake_is_not_finished_by_guessing() {
    for guess in [1, 77, 1 << 20, 1 << 30] {
        let mut world = World::new();
        world.send(Side::Client, SYN, -1, 0, b"");
        world.send(Side::Server, SYN | ACK, -1, 0, b"");
        world.send(Side::Client, ACK, 0, guess, b"");
        assert_eq!(world.told(), [""; 0], "acknowledges {guess}");
    }
}

#[test]
fn the_same_ports_begin_again_only_if_the_server_says_so() {
    let mut world = World::opened();
    world.client(0, b"old");
    world.server(0, 3, b"");
    // Somebody forges a SYN: the server does not answer it with a handshake.
    world.send(Side::Client, SYN, 999, 0, b"");
    assert_eq!(world.told(), ["opened"]);
    world.send(Side::Client, SYN, 70_000, 0, b"");
    world.send(Side::Server, SYN | ACK, 80_000, 70_001, b"");
    world.send(Side::Client, ACK, 70_001, 80_001, b"");
    assert_eq!(world.told(), ["opened", "closed finished", "opened"]);
}

#[test]
fn an_opaque_connection_is_followed_to_its_end_without_being_read() {
    let mut world = World::opened();
    world.recorder.opaque_after = Some(4);
    world.client(0, b"send");
    world.server(0, 4, b"");
    for n in 0..100i64 {
        world.send(Side::Client, ACK, 4 + n * 1_000, 0, &[7; 1_000]);
    }
    assert_eq!((world.recorder.client.len(), world.streams.buffered_bytes()), (4, 0));
    world.send(Side::Client, FIN | ACK, 100_004, 0, b"");
    world.send(Side::Server, FIN | ACK, 0, 100_005, b"");
    assert_eq!(world.told(), ["opened", "closed finished"]);
}

#[test]
fn an_unanswered_attempt_is_forgotten_without_a_word() {
    let mut world = World::new();
    world.send(Side::Client, SYN, -1, 0, b"");
    let later = Timestamp::from_nanos((world.now + 60_000) * 1_000_000);
    world.streams.handle_timeout(later, &mut world.recorder);
    assert!(world.streams.is_empty() && world.told().is_empty());
}

#[test]
fn keepalives_and_window_probes_say_nothing_new() {
    let mut world = World::opened();
    world.client(0, b"ping\n");
    world.server(0, 5, b"pong\n");
    // RFC 9293 section 3.8.4: one byte before the next one, empty or garbage, from either side.
    world.send(Side::Client, ACK, 4, 5, b"");
    world.server(4, 5, b"");
    world.send(Side::Client, ACK, 4, 5, b"\n");
    world.server(5, 5, b"");
    // Zero window: the probe's byte is not taken, the acknowledgement stays; later it is sent with the rest.
    world.client(5, b"l");
    world.server(5, 5, b"");
    world.client(5, b"l");
    world.server(5, 5, b"");
    assert_eq!(world.recorder.client, b"ping\n");
    world.client(5, b"logout\n");
    world.server(5, 12, b"ok\n");
    assert_eq!(world.recorder.client, b"ping\nlogout\n");
    assert_eq!(world.recorder.server, b"pong\nok\n");
    assert_eq!(world.told(), ["opened"]);
    assert_eq!(world.streams.buffered_bytes(), 0);
}

#[test]
fn both_sides_may_close_at_once() {
    let mut world = World::opened();
    world.client(0, b"quit\n");
    world.send(Side::Client, FIN | ACK, 5, 0, b"");
    world.send(Side::Server, FIN | ACK, 0, 0, b"bye\n");
    assert_eq!(world.told(), ["opened"], "the server has not acknowledged the last words");
    world.send(Side::Client, ACK, 6, 5, b"");
    world.send(Side::Server, ACK, 5, 6, b"");
    assert_eq!(world.told(), ["opened", "closed finished"]);
    assert_eq!((&*world.recorder.client, &*world.recorder.server), (&b"quit\n"[..], &b"bye\n"[..]));
}

#[test]
fn a_side_that_closed_still_hears_the_other() {
    let mut world = World::opened();
    world.send(Side::Client, FIN | ACK, 0, 0, b"");
    world.server(0, 1, b"last");
    world.server(4, 1, b" words");
    assert_eq!((&*world.recorder.server, world.told()), (&b"last words"[..], vec!["opened"]));
    world.send(Side::Server, FIN | ACK, 10, 1, b"");
    assert_eq!(world.told(), ["opened", "closed finished"]);
}

#[test]
fn a_handshake_that_the_server_answered_and_nobody_completed_is_told() {
    let mut unanswered = World::new();
    unanswered.send(Side::Client, SYN, -1, 0, b"");
    let mut begun = World::new();
    begun.send(Side::Client, SYN, -1, 0, b"");
    begun.send(Side::Server, SYN | ACK, -1, 0, b"");
    let mut completed = World::opened();
    let mut refused = World::new();
    refused.send(Side::Client, SYN, -1, 0, b"");
    refused.send(Side::Server, SYN | ACK, -1, 0, b"");
    refused.send(Side::Client, RST, 0, 0, b"");
    let later = Timestamp::from_nanos(1_000_000_000) + FLOW_HALF_OPEN + Span::from_secs(1);
    for (world, told) in [
        (&mut unanswered, vec![]),
        (&mut begun, vec!["abandoned 40000"]),
        (&mut completed, vec!["opened"]),
        (&mut refused, vec![]),
    ] {
        world.streams.handle_timeout(later, &mut world.recorder);
        assert_eq!(world.told(), told);
    }
    // The input ends before half a minute is over.
    for (seconds, told) in [(4, vec![]), (6, vec!["abandoned 40000"])] {
        let mut world = World::new();
        world.send(Side::Client, SYN, -1, 0, b"");
        world.send(Side::Server, SYN | ACK, -1, 0, b"");
        let end = Timestamp::from_nanos(1_001_000_000) + Span::from_secs(seconds);
        world.streams.close_all(end, &mut world.recorder);
        assert_eq!(world.told(), told);
    }
}

#[test]
fn a_half_open_connection_goes_sooner_than_an_idle_one() {
    let mut world = World::opened();
    let key = |port| FlowKey {
        client: Address::from_v4(1),
        server: Address::from_v4(2),
        client_port: port,
        server_port: 10_333,
    };
    assert!(world.streams.flow(&key(40_000)).is_some_and(Flow::is_open));
    let later = |world: &World, secs: u64| Timestamp::from_nanos((world.now + secs * 1_000) * 1_000_000);
    let soon = later(&world, 60);
    world.streams.handle_timeout(soon, &mut world.recorder);
    assert_eq!(world.streams.len(), 1, "silent for a minute is no reason");
    let late = later(&world, 16 * 60);
    world.streams.handle_timeout(late, &mut world.recorder);
    assert_eq!(world.told(), ["opened", "closed idle"]);
    // SYN and SYN-ACK without the third step.
    let mut world = World::new();
    world.send(Side::Client, SYN, -1, 0, b"");
    world.send(Side::Server, SYN | ACK, -1, 0, b"");
    let soon = later(&world, 31);
    world.streams.handle_timeout(soon, &mut world.recorder);
    assert!(world.streams.is_empty());
    assert_eq!(world.told(), ["abandoned 40000"]);
}

/// A client's segment as it stands in a frame, with a right checksum or a wrong one.
fn checked(flags: u8, offset: i64, payload: &[u8], wrong: u16) -> Vec<u8> {
    let sequence = (i64::from(CLIENT_ISN) + 1 + offset) as u32;
    let mut whole = vec![0x9c, 0x40, 0x28, 0x5d];
    whole.extend(sequence.to_be_bytes());
    whole.extend((SERVER_ISN + 1).to_be_bytes());
    whole.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    whole.extend(payload);
    let mut sum = 1 + 2 + 6 + whole.len() as u32;
    for pair in whole.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let checksum = !(sum as u16) ^ wrong;
    whole[16..18].copy_from_slice(&checksum.to_be_bytes());
    whole
}

impl World {
    fn client_checked(&mut self, flags: u8, offset: i64, payload: &[u8], wrong: u16) {
        self.now += 1;
        let whole = checked(flags, offset, payload, wrong);
        let tcp = TcpHeader {
            sequence: (i64::from(CLIENT_ISN) + 1 + offset) as u32,
            acknowledgement: if flags & ACK == 0 { 0 } else { SERVER_ISN + 1 },
            flags,
            payload_offset: 54,
            payload_bytes: payload.len() as u32,
        };
        let packet =
            Packet { body: Body::Segment { tcp, payload, whole: &whole }, ..self.packet(Side::Client) };
        self.streams.handle_segment(&packet, &tcp, payload, &mut self.recorder);
    }
}

#[test]
fn a_broken_segment_does_not_take_the_place_of_the_true_one() {
    let mut world = World::new();
    world.client_checked(SYN, -1, b"", 0);
    world.send(Side::Server, SYN | ACK, -1, 0, b"");
    world.client_checked(ACK, 0, b"quit\n", 0x55);
    world.client_checked(RST, 0, b"", 0x55);
    world.client_checked(FIN | ACK, 0, b"", 0x55);
    world.client_checked(ACK, 0, b"login", 0);
    world.server(0, 5, b"");
    assert_eq!(world.recorder.client, b"login");
    assert_eq!((world.told(), world.streams.broken_segments()), (vec!["opened"], 3));
}

#[test]
fn where_all_checksums_are_wrong_none_is_held_against_a_segment() {
    let mut world = World::new();
    world.client_checked(SYN, -1, b"", 0x55);
    world.send(Side::Server, SYN | ACK, -1, 0, b"");
    world.client_checked(ACK, 0, b"login", 0x77);
    world.server(0, 5, b"");
    assert_eq!((&*world.recorder.client, world.streams.broken_segments()), (&b"login"[..], 0));
}

#[test]
fn unacknowledged_bytes_are_bounded() {
    let mut world = World::opened();
    for n in 0..2_000i64 {
        world.send(Side::Client, ACK, n * 1_000, 0, &[7; 1_000]);
    }
    assert!(world.streams.buffered_bytes() <= crate::limits::FLOW_BYTES_MAX);
    let (_, refused) = world.streams.losses();
    assert!(refused > 0);
}

#[test]
fn scattered_segments_are_bounded() {
    let mut world = World::opened();
    for n in 0..5_000i64 {
        world.send(Side::Server, ACK, 1 + n * 2, 0, b"x");
    }
    assert!(world.streams.buffered_bytes() <= crate::limits::SEGMENTS_MAX);
    assert!(world.told().iter().any(|told| told.starts_with("gap Server")));
}

/// A conversation in turns, cut, doubled and shuffled within a bound.
fn mangled() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<Piece>)> {
    let turn = (prop::collection::vec(any::<u8>(), 1..60), prop::collection::vec(any::<u8>(), 1..60));
    (prop::collection::vec(turn, 1..12), prop::collection::vec(any::<u16>(), 400)).prop_map(
        |(turns, dice)| {
            let mut dice = dice.into_iter().cycle();
            let mut roll = |sides: u16| usize::from(dice.next().unwrap_or_default() % sides.max(1));
            let (mut client, mut server) = (Vec::new(), Vec::new());
            let mut pieces: Vec<Piece> = Vec::new();
            for (question, answer) in turns {
                for (from, bytes) in [(Side::Client, &question), (Side::Server, &answer)] {
                    let (own, other): (&mut Vec<u8>, &mut Vec<u8>) = match from {
                        Side::Client => (&mut client, &mut server),
                        Side::Server => (&mut server, &mut client),
                    };
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let (payload, tail) = rest.split_at(1 + roll(rest.len() as u16));
                        rest = tail;
                        let piece = Piece {
                            from,
                            flags: ACK,
                            offset: own.len() as i64,
                            acknowledges: other.len() as i64,
                            payload: payload.to_vec(),
                            at: 0,
                        };
                        own.extend_from_slice(payload);
                        if roll(4) == 0 {
                            pieces.push(piece.clone());
                        }
                        pieces.push(piece);
                    }
                }
            }
            for index in 1..pieces.len() {
                let other = index.saturating_sub(roll(4));
                pieces.swap(index, other);
            }
            (client, server, pieces)
        },
    )
}

proptest! {
    /// Whatever is done to the segments within the bounds, the same bytes come out.
    #[test]
    fn any_cutting_doubling_and_bounded_reordering_gives_the_same_bytes((client, server, pieces) in mangled()) {
        let mut world = World::opened();
        for piece in &pieces {
            world.now += 1;
            world.play(&Piece { at: world.now, ..piece.clone() });
        }
        world.now += 1;
        world.send(Side::Server, ACK, server.len() as i64, client.len() as i64, b"");
        prop_assert_eq!(&world.recorder.client, &client);
        prop_assert_eq!(&world.recorder.server, &server);
        prop_assert_eq!(world.told(), ["opened"]);
        prop_assert_eq!(world.streams.buffered_bytes(), 0);
    }

    /// Any segments at all: no panic, no bound broken.
    #[test]
    fn any_segments_keep_the_bounds(
        pieces in prop::collection::vec(
            (any::<bool>(), any::<u8>(), -3_000i64..3_000, -3_000i64..3_000, 0usize..1_500, 0u64..5_000),
            0..300,
        )
    ) {
        let mut world = World::new();
        for (is_client, flags, offset, acknowledges, bytes, pause) in pieces {
            world.now += pause;
            let from = if is_client { Side::Client } else { Side::Server };
            world.send(from, flags, offset, acknowledges, &vec![flags; bytes]);
            prop_assert!(world.streams.buffered_bytes() <= 2 * crate::limits::FLOW_BYTES_MAX);
        }
        world.streams.close_all(Timestamp::from_nanos(world.now * 1_000_000), &mut world.recorder);
        prop_assert_eq!(world.streams.buffered_bytes(), 0);
    }
}

#[test]
fn a_flood_of_syns_makes_no_sessions_and_takes_nobodys_place() {
    let mut world = World::opened();
    let quiet = world.streams.flows().next().unwrap().connection.id;
    for number in 0..2 * OPENING_MAX as u32 {
        let syn = TcpHeader { sequence: number, flags: SYN, ..TcpHeader::ABSENT };
        let packet =
            Packet { client: Address::from_v4(number), client_port: 9, ..world.packet(Side::Client) };
        world.streams.handle_segment(&packet, &syn, b"", &mut world.recorder);
    }
    assert_eq!(world.streams.len(), 1 + OPENING_MAX);
    assert_eq!((world.streams.losses().0, world.streams.openings_lost()), (0, OPENING_MAX as u64));
    assert_eq!(world.recorder.sessions, 1);
    world.client(0, b"hello");
    world.server(0, 5, b"");
    assert_eq!(world.recorder.client, b"hello");
    assert_eq!(world.streams.flows().next().unwrap().connection.id, quiet);
}

#[test]
fn a_reset_ends_an_attempt_only_where_it_would_be_believed() {
    let mut world = World::new();
    world.send(Side::Client, SYN, -1, 0, b"");
    world.send(Side::Client, RST, 77, 0, b"");
    assert_eq!(world.streams.len(), 1);
    world.send(Side::Server, RST | ACK, -1, 0, b"");
    assert_eq!((world.streams.len(), world.recorder.told.len()), (0, 0));
}
