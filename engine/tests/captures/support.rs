//! The committed captures, as the engine takes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use floodwall_engine::{
    Configuration, Engine, Packet, Protocol, Service, Side, Timestamp, packet::Body, rule::Rule,
    signal::Signal, stream::FlowKey,
};
use floodwall_wire::{
    Address, Class, Reason,
    frame::{self, TcpHeader, Transport, tcp_flags},
    window::SliceWindow,
};

/// What happened, by kind and address.
pub(crate) type Counts = BTreeMap<(&'static str, String), u64>;

/// One packet of a capture, owned so that it can be cut, doubled and moved.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) at: Timestamp,
    pub(crate) from: Side,
    pub(crate) key: FlowKey,
    pub(crate) body: RecordedBody,
}

#[derive(Clone, Debug)]
pub(crate) enum RecordedBody {
    Segment { tcp: TcpHeader, payload: Vec<u8> },
    Datagram(Vec<u8>),
}

impl Recorded {
    pub(crate) fn packet(&self) -> Packet<'_> {
        let body = match &self.body {
            RecordedBody::Segment { tcp, payload } => Body::Segment { tcp: *tcp, payload, whole: &[] },
            RecordedBody::Datagram(payload) => Body::Datagram { payload, bytes: payload.len() as u32 },
        };
        Packet {
            at: self.at,
            service: 0,
            from: self.from,
            client: self.key.client,
            client_port: self.key.client_port,
            server: self.key.server,
            server_port: self.key.server_port,
            class: Class::TcpPayload,
            reason: Reason::Admitted,
            standing: floodwall_wire::tables::Standing::Proven,
            body,
        }
    }

    /// Whether it may change places with its neighbours: not the packets that open and close.
    pub(crate) fn is_movable(&self) -> bool {
        const FIXED: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        matches!(&self.body, RecordedBody::Segment { tcp, .. } if tcp.flags & FIXED == 0)
    }
}

pub(crate) fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

/// Every capture of one protocol, by name, with its service's port.
pub(crate) fn captures(folder: &str) -> Vec<(String, Vec<Recorded>)> {
    let port = if folder == "irc" { 6_667 } else { 10_333 };
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(corpus().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pcap"));
    paths.sort();
    assert!(!paths.is_empty(), "the corpus is committed");
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (
                name,
                frames(&std::fs::read(&path).unwrap())
                    .filter_map(|(at, frame)| record(at, frame, &[port]))
                    .collect(),
            )
        })
        .collect()
}

/// One capture of the corpus with the ports that are guarded in it.
pub(crate) fn capture_at(path: &str, ports: &[u16]) -> Vec<Recorded> {
    let file = std::fs::read(corpus().join(path)).unwrap();
    frames(&file).filter_map(|(at, frame)| record(at, frame, ports)).collect()
}

pub(crate) fn capture(folder: &str, name: &str) -> Vec<Recorded> {
    captures(folder).into_iter().find(|(found, _)| found == name).unwrap().1
}

/// Classic pcap, little-endian, microseconds, Ethernet.
pub(crate) fn frames(file: &[u8]) -> impl Iterator<Item = (Timestamp, &[u8])> {
    assert_eq!(file[..4], 0xa1b2_c3d4u32.to_le_bytes());
    let mut rest = &file[24..];
    std::iter::from_fn(move || {
        let header: &[u8; 16] = rest.first_chunk()?;
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let nanos = u64::from(field(0)) * 1_000_000_000 + u64::from(field(4)) * 1_000;
        let (frame, tail) = rest[16..].split_at(field(8) as usize);
        rest = tail;
        Some((Timestamp::from_nanos(nanos), frame))
    })
}

fn record(at: Timestamp, bytes: &[u8], ports: &[u16]) -> Option<Recorded> {
    let window = SliceWindow::new(bytes);
    let headers = frame::walk(&window).ok()?;
    let from = match () {
        () if ports.contains(&headers.destination_port) => Side::Client,
        () if ports.contains(&headers.source_port) => Side::Server,
        _ => return None,
    };
    let key = match from {
        Side::Client => FlowKey {
            client: headers.source,
            server: headers.destination,
            client_port: headers.source_port,
            server_port: headers.destination_port,
        },
        Side::Server => FlowKey {
            client: headers.destination,
            server: headers.source,
            client_port: headers.destination_port,
            server_port: headers.source_port,
        },
    };
    let slice = |offset: u32, length: u32| bytes[offset as usize..(offset + length) as usize].to_vec();
    let body = match headers.transport {
        Transport::Tcp => {
            let tcp = headers.tcp(&window)?;
            RecordedBody::Segment { tcp, payload: slice(tcp.payload_offset, tcp.payload_bytes) }
        }
        Transport::Udp => RecordedBody::Datagram(slice(headers.datagram_offset(), headers.datagram_bytes)),
    };
    Some(Recorded { at, from, key, body })
}

pub(crate) fn engine(folder: &str) -> Engine {
    engine_with(folder, Vec::new())
}

/// Every signal of a whole capture.
pub(crate) fn signals<'a>(folder: &str, packets: impl IntoIterator<Item = &'a Recorded>) -> Vec<Signal> {
    let mut engine = engine(folder);
    engine.watch_signals();
    for packet in packets {
        engine.handle_packet(&packet.packet());
    }
    engine.finish();
    engine.take_signals().into_iter().map(Arc::unwrap_or_clone).collect()
}

pub(crate) fn counts(signals: &[Signal]) -> Counts {
    let mut counts = Counts::new();
    for signal in signals {
        *counts.entry((signal.kind.as_str(), signal.address.to_string())).or_default() += 1;
    }
    counts
}

/// Numbers from a seed, the same on every machine.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

pub(crate) fn engine_with(folder: &str, rules: Vec<Rule>) -> Engine {
    engine_of(if folder == "irc" { Protocol::Irc } else { Protocol::TeamTalk }, rules)
}

/// An IRC service with links that a configuration names.
pub(crate) fn engine_with_links(links: Vec<floodwall_engine::protocol::irc::link::Peer>) -> Engine {
    let service = Service {
        protocol: Protocol::Irc,
        query_ports: Vec::new(),
        rules: Vec::new(),
        links,
        gateways: Vec::new(),
    };
    let mut engine = Engine::new(Configuration { services: vec![service], seed: 7 });
    engine.watch_signals();
    engine
}

pub(crate) fn engine_of(protocol: Protocol, rules: Vec<Rule>) -> Engine {
    let service =
        Service { protocol, query_ports: vec![10_333], rules, links: Vec::new(), gateways: Vec::new() };
    Engine::new(Configuration { services: vec![service], seed: 7 })
}

pub(crate) const fn capture_key() -> FlowKey {
    FlowKey {
        client: Address::from_v4(0x0a00_0001),
        server: Address::from_v4(0x0a00_0002),
        client_port: 40_000,
        server_port: 10_333,
    }
}

pub(crate) fn segment(
    at: Timestamp,
    from: Side,
    key: FlowKey,
    sequence: u32,
    acknowledgement: u32,
    payload: &[u8],
) -> Recorded {
    let tcp = TcpHeader {
        sequence,
        acknowledgement,
        flags: tcp_flags::ACK,
        payload_offset: 54,
        payload_bytes: payload.len() as u32,
    };
    Recorded { at, from, key, body: RecordedBody::Segment { tcp, payload: payload.to_vec() } }
}

/// Cut anywhere, some pieces twice, neighbours of one connection out of order.
pub(crate) fn mangle(packets: &[Recorded], seed: u64) -> Vec<Recorded> {
    let mut dice = Dice(seed);
    let mut pieces: Vec<Recorded> = Vec::with_capacity(packets.len() * 2);
    for packet in packets {
        let RecordedBody::Segment { tcp, payload } = &packet.body else {
            pieces.push(packet.clone());
            continue;
        };
        let mut at = 0;
        loop {
            let left = payload.len() - at;
            let bytes =
                if packet.is_movable() && dice.roll(3) == 0 { 1 + dice.roll(left.min(40)) } else { left };
            let bytes = bytes.min(left);
            let mut tcp = *tcp;
            tcp.sequence = tcp.sequence.wrapping_add(at as u32);
            tcp.payload_bytes = bytes as u32;
            let body = RecordedBody::Segment { tcp, payload: payload[at..at + bytes].to_vec() };
            let piece = Recorded { body, ..packet.clone() };
            if packet.is_movable() && dice.roll(6) == 0 {
                pieces.push(piece.clone());
            }
            pieces.push(piece);
            at += bytes;
            if at == payload.len() {
                break;
            }
        }
    }
    let times: Vec<Timestamp> = pieces.iter().map(|piece| piece.at).collect();
    for round in 0..3 {
        let mut index = round % 2 + 1;
        while index < pieces.len() {
            let (one, other) = (&pieces[index - 1], &pieces[index]);
            if one.key == other.key && one.is_movable() && other.is_movable() && dice.roll(3) == 0 {
                pieces.swap(index - 1, index);
            }
            index += 2;
        }
    }
    for (piece, at) in pieces.iter_mut().zip(times) {
        piece.at = at;
    }
    pieces
}

pub(crate) fn differences(found: &Counts, expected: &Counts) -> Vec<String> {
    let kinds: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let count = |counts: &Counts, key| counts.get(key).copied().unwrap_or_default();
    kinds
        .into_iter()
        .filter(|key| count(found, key) != count(expected, key))
        .map(|key| format!("{} {}: {} instead of {}", key.0, key.1, count(found, key), count(expected, key)))
        .collect()
}
