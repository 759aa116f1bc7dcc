//! What the targets do with their bytes: called by them, and by the test that replays the committed corpora.
//!
//! A target's bytes are a list of steps, each with a small header; so any bytes mean something, and a mutation
//! changes one step.

use floodwall_engine::{
    Configuration, Engine, Packet, Protocol, Service, Side, Span, Timestamp,
    fragment::{Outcome, Passage, Reassembler},
    limits::{FLOW_BYTES_MAX, LINKS_ENTRIES_MAX},
    packet::Body,
    protocol::{
        Connection, Progress,
        log::{Format as LogFormat, LogReader},
    },
    stream::{Event, Readers, Streams},
};
use floodwall_wire::{
    Address, Class, Judgement, Reason,
    frame::{self, TcpHeader, tcp_flags},
    tables::Standing,
    window::SliceWindow,
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const PORT: u16 = 10_333;

/// TCP segments in any order: the first copy of each byte comes out, in order, once.
pub fn stream(bytes: &[u8]) {
    let mut streams = Streams::new(1);
    let mut told = Told::default();
    let mut now = START;
    for (header, payload) in Steps::<10>(bytes) {
        let [control, flags, sequence @ .., pause] = header;
        let [s0, s1, s2, a0, a1, a2, _] = sequence;
        let from = if control & 1 == 0 { Side::Client } else { Side::Server };
        now = now + Span::from_millis(u64::from(pause) * 20);
        // Near one of two starting points, so that segments meet.
        let number = |low: u8, middle: u8, high: u8| {
            let offset = i32::from_le_bytes([0, low, middle, high]) >> 8;
            0xffff_ff00u32.wrapping_add_signed(offset)
        };
        let tcp = TcpHeader {
            sequence: number(s0, s1, s2),
            acknowledgement: number(a0, a1, a2),
            flags: flags & 0x3f,
            payload_offset: 54,
            payload_bytes: payload.len() as u32,
        };
        let packet = packet(now, from, u16::from(control >> 6), Body::Segment { tcp, payload, whole: &[] });
        streams.handle_segment(&packet, &tcp, payload, &mut told);
        if control & 2 != 0 {
            streams.handle_timeout(now, &mut told);
        }
        assert!(streams.buffered_bytes() <= 8 * FLOW_BYTES_MAX);
        assert!(streams.len() <= 4);
    }
    streams.close_all(now, &mut told);
    assert_eq!((streams.buffered_bytes(), told.open), (0, 0));
}

/// A TeamTalk conversation: lines of both sides and datagrams, on a few connections, complete and in order.
pub fn teamtalk(bytes: &[u8]) {
    converse(new_engine(Protocol::TeamTalk), bytes);
}

/// TeamSpeak: the voice port's datagrams and ServerQuery's lines.
pub fn teamspeak(bytes: &[u8]) {
    converse(new_engine(Protocol::TeamSpeak), bytes);
}

/// An IRC conversation of clients.
pub fn irc(bytes: &[u8]) {
    converse(new_engine(Protocol::Irc), bytes);
}

/// An IRC conversation of servers: after a handshake whose dialect the first byte chooses.
pub fn irc_link(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let greetings = GREETINGS[usize::from(*first) % GREETINGS.len()];
    let mut steps = Vec::new();
    for (control, greeting) in [0u8, 1].iter().zip(greetings) {
        steps.extend([*control, 1]);
        steps.extend((greeting.len() as u16).to_le_bytes());
        steps.extend_from_slice(greeting);
    }
    steps.extend_from_slice(bytes);
    converse(new_engine(Protocol::Irc), &steps);
}

/// Lines of a server's log, whose the first byte chooses.
pub fn log(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let format = LogFormat::ALL[usize::from(*first) % LogFormat::ALL.len()];
    let mut reader = LogReader::new(format, 0, 1);
    let mut signals = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        LogFormat::recognise(line);
        reader.read_line(line, &mut signals);
        assert!(signals.len() <= 2);
        for signal in signals.drain(..) {
            assert!(!signal.to_string().chars().any(char::is_control));
        }
    }
}

/// What both sides say first, by dialect.
const GREETINGS: [[&[u8]; 2]; 6] = [
    [
        b"PASS x\r\nCAPAB :EOB RHOST\r\nSERVER alpha.test 1 0HA + :a\r\n",
        b"PASS x\r\nCAPAB :EOB RHOST\r\nSERVER beta.test 1 1HB + :b\r\n",
    ],
    [
        b"PASS x TS 6 :0HA\r\nCAPAB :QS ENCAP SAVE\r\nSERVER alpha.test 1 :a\r\n",
        b"PASS x TS 6 :1HB\r\nCAPAB :QS ENCAP SAVE\r\nSERVER beta.test 1 :b\r\n",
    ],
    [b"PASS x :TS\r\nSERVER alpha.test 1 :a\r\n", b"PASS x :TS\r\nSERVER beta.test 1 :b\r\n"],
    [
        b"PASS x :TS\r\nCAPAB :TS4 ZIP\r\nSERVER alpha.test 1 :a\r\n",
        b"PASS x :TS\r\nCAPAB :TS4 ZIP\r\nSERVER beta.test 1 :b\r\n",
    ],
    [
        b"CAPAB START 1205\nCAPAB END\nSERVER alpha.test AUTH:x 0 0HA :a\n",
        b"CAPAB START 1205\nCAPAB END\nSERVER beta.test AUTH:x 0 1HB :b\n",
    ],
    [
        b"PASS x 0210-IRC+ ngIRCd|26.1:CHLMSX P\r\nSERVER alpha.test :a\r\n",
        b":beta.test PASS x 0210-IRC+ ngIRCd|26.1:CHLMSX P\r\n:beta.test SERVER beta.test 1 :b\r\n",
    ],
];

/// Steps of a conversation: lines of both sides and datagrams, on a few connections, complete and in order.
fn converse(mut engine: Engine, bytes: &[u8]) {
    engine.watch_signals();
    let mut now = START;
    let mut sent = [[0u32; 2]; 4];
    for (header, payload) in Steps::<2>(bytes) {
        let [control, pause] = header;
        now = now + Span::from_millis(u64::from(pause) * 50);
        let from = if control & 1 == 0 { Side::Client } else { Side::Server };
        let connection = usize::from(control >> 6);
        let port = u16::from(control >> 6);
        if control & 2 != 0 {
            engine.handle_packet(&packet(
                now,
                from,
                port,
                Body::Datagram { payload, bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX) },
            ));
        } else {
            let [client, server] = sent[connection];
            let (sequence, acknowledgement) =
                if from == Side::Client { (client, server) } else { (server, client) };
            let flags = tcp_flags::ACK | if control & 4 != 0 { tcp_flags::FIN } else { 0 };
            let payload_bytes = payload.len() as u32;
            let tcp = TcpHeader { sequence, acknowledgement, flags, payload_offset: 54, payload_bytes };
            engine.handle_packet(&packet(now, from, port, Body::Segment { tcp, payload, whole: &[] }));
            let own = if from == Side::Client { 0 } else { 1 };
            sent[connection][own] = sent[connection][own].wrapping_add(payload_bytes);
            // The server takes everything at once.
            let [client, server] = sent[connection];
            let tcp = TcpHeader {
                sequence: server,
                acknowledgement: client,
                flags: tcp_flags::ACK,
                payload_offset: 54,
                payload_bytes: 0,
            };
            let body = Body::Segment { tcp, payload: &[], whole: &[] };
            engine.handle_packet(&packet(now, Side::Server, port, body));
        }
        check(&mut engine);
    }
    engine.finish();
    check(&mut engine);
}

/// Frames of any kind through fragments, walk and engine, for each protocol in turn.
pub fn engine(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let mut engine = new_engine(Protocol::ALL[usize::from(*first) % Protocol::ALL.len()]);
    engine.watch_signals();
    let mut reassembler = Reassembler::new(1);
    let mut now = START;
    for (header, frame) in Steps::<2>(bytes) {
        let [control, pause] = header;
        now = now + Span::from_millis(u64::from(pause) * 50);
        let dropped = Passage::Arriving(judgement_of(Reason::ShapeHeader, frame));
        let whole = reassembler.handle_frame(frame, (control & 4 != 0).then_some(dropped), now);
        match &whole {
            Outcome::Whole => handle_frame(&mut engine, frame, control, now),
            Outcome::Complete(reassembled) => handle_frame(&mut engine, &reassembled.frame, control, now),
            Outcome::Waiting => {}
        }
        check(&mut engine);
    }
    engine.finish();
    check(&mut engine);
}

fn handle_frame(engine: &mut Engine, frame: &[u8], control: u8, now: Timestamp) {
    let Ok(headers) = frame::walk(&SliceWindow::new(frame)) else { return };
    let class = Class::TcpPayload;
    let packet = if control & 1 == 0 {
        let reasons = [Reason::Admitted, Reason::StandingStranger, Reason::ShapeHeader, Reason::BanAddress];
        let reason = reasons[usize::from(control >> 3) % reasons.len()];
        Packet::arriving(now, frame, &headers, &judgement_of(reason, frame))
    } else {
        Packet::departing(now, frame, &headers, 0, class)
    };
    engine.handle_packet(&packet);
}

fn judgement_of(reason: Reason, frame: &[u8]) -> Judgement {
    let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    Judgement { reason, service: 0, class: Class::TcpPayload, standing: Standing::Stranger, bytes }
}

/// Nothing that leaves the engine carries control characters, and everything is bounded.
fn check(engine: &mut Engine) {
    for signal in engine.take_signals() {
        let line = signal.to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    while let Some(command) = engine.next_command() {
        drop(command);
    }
    let entries: usize = engine.links(0).iter().map(|link| link.totals.iter().sum::<usize>()).sum();
    assert!(entries <= LINKS_ENTRIES_MAX);
    assert!(engine.streams().buffered_bytes() <= engine.streams().len() * 2 * FLOW_BYTES_MAX);
}

fn new_engine(protocol: Protocol) -> Engine {
    let service = Service {
        protocol,
        query_ports: vec![PORT],
        rules: Vec::new(),
        links: Vec::new(),
        gateways: Vec::new(),
    };
    Engine::new(Configuration { services: vec![service], seed: 1 })
}

fn packet(at: Timestamp, from: Side, connection: u16, body: Body<'_>) -> Packet<'_> {
    Packet {
        at,
        service: 0,
        from,
        client: Address::from_v4(0x0a00_0100 + u32::from(connection)),
        client_port: 40_000 + connection,
        server: Address::from_v4(0x0a00_0001),
        server_port: PORT,
        class: Class::TcpPayload,
        reason: Reason::Admitted,
        standing: Standing::Proven,
        body,
    }
}

/// Steps: a header of `N` bytes, a length of two, so many bytes.
struct Steps<'a, const N: usize>(&'a [u8]);

impl<'a, const N: usize> Iterator for Steps<'a, N> {
    type Item = ([u8; N], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.0.split_first_chunk::<N>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length) & 0x0fff).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*header, payload))
    }
}

/// Counts what it is told; nothing may come before the beginning or after the end.
#[derive(Default)]
struct Told {
    open: usize,
}

impl Readers<bool> for Told {
    fn abandon(&mut self, _connection: &Connection, _at: Timestamp) {}

    fn open(&mut self, _connection: &Connection) -> bool {
        false
    }

    fn tell(
        &mut self,
        connection: &Connection,
        session: &mut bool,
        _: Timestamp,
        event: Event<'_>,
    ) -> Progress {
        let was_open = *session;
        match event {
            Event::Opened => *session = true,
            Event::Bytes(_, bytes) => {
                assert!(!bytes.is_empty());
                *session = true;
                assert!(was_open || connection.midway, "bytes before the handshake");
            }
            Event::Gap(_, missed) => {
                assert!(missed > 0);
                *session = true;
            }
            Event::StillOpen => assert!(was_open, "nobody opened it"),
            Event::Conflict(_) => {}
            Event::Closed(_) => *session = false,
        }
        match (was_open, *session) {
            (false, true) => self.open += 1,
            (true, false) => self.open -= 1,
            _ => {}
        }
        Progress::Following
    }

    fn is_protected(&self, _session: &bool) -> bool {
        false
    }

    fn held_bytes(&self, _session: &bool) -> usize {
        0
    }
}
