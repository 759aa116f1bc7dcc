//! Captures made by hand: TCP conversations and datagrams between a server and its clients, packet by packet, in
//! order, with right checksums. What the server says is what a real one was seen to say (`protocols/*.md`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;

use crate::records::{Record, report_of};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH_ACK: u8 = 0x18;
const ACK: u8 = 0x10;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Between a question and its answer, µs.
const ROUND_TRIP: u64 = 400;

/// Everything on the wire of one server.
pub(crate) struct Wire {
    /// The port that packets go to from now on.
    pub(crate) server: u16,
    /// Time of the next packet, µs.
    pub(crate) now: u64,
    next_port: u16,
    records: Vec<Record>,
}

/// One TCP connection of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    client: SocketAddr,
    server: SocketAddr,
    /// Next sequence numbers of client and server.
    next: [u32; 2],
}

impl Wire {
    /// Nothing said yet, to a server at this port.
    pub(crate) fn new(server_port: u16) -> Self {
        Self { server: server_port, now: 1_800_000_000_000_000, next_port: 20_000, records: Vec::new() }
    }

    /// Lets time pass.
    pub(crate) fn wait_millis(&mut self, millis: u64) {
        self.now += millis * 1_000;
    }

    fn server_of(&self, client: IpAddr) -> SocketAddr {
        let address =
            if client.is_ipv4() { IpAddr::from([10, 77, 0, 1]) } else { "fd77::1".parse().unwrap() };
        SocketAddr::new(address, self.server)
    }

    fn port(&mut self) -> u16 {
        self.next_port = if self.next_port >= 60_000 { 20_000 } else { self.next_port + 1 };
        self.next_port
    }

    /// A SYN that nobody answers.
    pub(crate) fn knock(&mut self, client: &str) {
        let client = SocketAddr::new(client.parse().unwrap(), self.port());
        let server = self.server_of(client.ip());
        self.segment(client, server, 7, 0, SYN, &[]);
    }

    /// A handshake.
    pub(crate) fn connect(&mut self, client: &str) -> Connection {
        self.connect_to(client, self.server)
    }

    /// A handshake with another port of the server.
    pub(crate) fn connect_to(&mut self, client: &str, server_port: u16) -> Connection {
        let client = SocketAddr::new(client.parse().unwrap(), self.port());
        let server = SocketAddr::new(self.server_of(client.ip()).ip(), server_port);
        let start = [u32::from(client.port()) << 12, u32::from(client.port()) << 8];
        self.segment(client, server, start[0], 0, SYN, &[]);
        self.segment(server, client, start[1], start[0].wrapping_add(1), SYN | ACK, &[]);
        let next = start.map(|start| start.wrapping_add(1));
        self.segment(client, server, next[0], next[1], ACK, &[]);
        Connection { client, server, next }
    }

    /// The client speaks, the server's TCP takes it.
    pub(crate) fn ask(&mut self, connection: &mut Connection, text: &[u8]) {
        self.data(connection, 0, text);
    }

    /// The server speaks.
    pub(crate) fn answer(&mut self, connection: &mut Connection, text: &[u8]) {
        self.data(connection, 1, text);
    }

    fn data(&mut self, connection: &mut Connection, side: usize, text: &[u8]) {
        for chunk in text.chunks(1_400) {
            let ends = [connection.client, connection.server];
            let (from, to) = (ends[side], ends[1 - side]);
            let (own, other) = (connection.next[side], connection.next[1 - side]);
            self.segment(from, to, own, other, PSH_ACK, chunk);
            connection.next[side] = own.wrapping_add(chunk.len() as u32);
            self.segment(to, from, other, connection.next[side], ACK, &[]);
        }
    }

    /// The client leaves in good order.
    pub(crate) fn close(&mut self, connection: Connection) {
        let Connection { client, server, next: [own, other] } = connection;
        self.segment(client, server, own, other, FIN | ACK, &[]);
        self.segment(server, client, other, own.wrapping_add(1), FIN | ACK, &[]);
        self.segment(client, server, own.wrapping_add(1), other.wrapping_add(1), ACK, &[]);
    }

    /// The server has had enough of it.
    pub(crate) fn close_by_server(&mut self, connection: Connection) {
        let Connection { client, server, next: [own, other] } = connection;
        self.segment(server, client, other, own, FIN | ACK, &[]);
        self.segment(client, server, own, other.wrapping_add(1), FIN | ACK, &[]);
        self.segment(server, client, other.wrapping_add(1), own.wrapping_add(1), ACK, &[]);
    }

    /// The server is gone, and its kernel says so.
    pub(crate) fn reset_by_server(&mut self, connection: Connection) {
        let Connection { client, server, next: [own, other] } = connection;
        self.segment(server, client, other, own, RST | ACK, &[]);
    }

    /// The client hangs up.
    pub(crate) fn reset(&mut self, connection: Connection) {
        let Connection { client, server, next: [own, other] } = connection;
        self.segment(client, server, own, other, RST | ACK, &[]);
    }

    /// A datagram of a client, from one port of its own.
    pub(crate) fn datagram(&mut self, client: &str, bytes: &[u8]) {
        self.datagram_from(client, 40_000, bytes);
    }

    /// A datagram of a client, from a port of its choice.
    pub(crate) fn datagram_from(&mut self, client: &str, port: u16, bytes: &[u8]) {
        let client = SocketAddr::new(client.parse().unwrap(), port);
        self.datagram_between(client, self.server_of(client.ip()), bytes);
    }

    /// A datagram of the server to what [`Self::datagram`] sends from.
    pub(crate) fn answer_datagram(&mut self, client: &str, bytes: &[u8]) {
        let client = SocketAddr::new(client.parse().unwrap(), 40_000);
        self.datagram_between(self.server_of(client.ip()), client, bytes);
    }

    fn datagram_between(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut udp = Vec::new();
        for field in [from.port(), to.port(), (bytes.len() + 8) as u16, 0] {
            udp.extend(field.to_be_bytes());
        }
        udp.extend(bytes);
        self.frame(from.ip(), to.ip(), UDP, udp, 6);
    }

    fn segment(&mut self, from: SocketAddr, to: SocketAddr, own: u32, other: u32, flags: u8, text: &[u8]) {
        let mut tcp = Vec::new();
        tcp.extend(from.port().to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        tcp.extend(own.to_be_bytes());
        tcp.extend(other.to_be_bytes());
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(text);
        self.frame(from.ip(), to.ip(), TCP, tcp, 16);
    }

    fn frame(&mut self, from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, checksum_at: usize) {
        let mut pseudo = Vec::new();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = (payload.len() + 20) as u16;
                let mut header = vec![0x45, 0];
                header.extend(length.to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum);
                pseudo.extend(from.octets());
                pseudo.extend(to.octets());
                frame.extend([8, 0]);
                frame.extend(header);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                pseudo.extend(from.octets());
                pseudo.extend(to.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("two families"),
        }
        pseudo.extend([0, protocol]);
        pseudo.extend((payload.len() as u16).to_be_bytes());
        pseudo.extend(&payload);
        let sum = checksum(&pseudo);
        payload[checksum_at..checksum_at + 2].copy_from_slice(&sum);
        frame.extend(payload);
        self.records.push((self.now, frame.len() as u32, frame));
        self.now += ROUND_TRIP / 2;
    }

    /// What `floodwall replay` makes of it.
    pub(crate) fn json(&self) -> Value {
        let mut records = self.records.clone();
        records.sort_by_key(|(at, ..)| *at);
        report_of(&records)
    }

    /// Who it says is what.
    pub(crate) fn report(&self) -> Report {
        Report::read(&self.json())
    }

    /// Outcomes by address, and what was noted by rule.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, String> {
        let Report { sources, notes } = self.report();
        let outcomes = sources.into_iter().map(|(address, (outcome, _))| (address, outcome));
        outcomes.chain(notes.into_iter().map(|(rule, subject)| (format!("note {rule}"), subject))).collect()
    }
}

/// What became of everybody.
#[derive(Debug)]
pub(crate) struct Report {
    /// Outcome and rules, by address.
    sources: BTreeMap<String, (String, Vec<String>)>,
    /// Rule and subject.
    notes: Vec<(String, String)>,
}

impl Report {
    fn read(report: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect();
        let sources = report["sources"].as_array().unwrap().iter();
        let notes = report["notes"].as_array().unwrap().iter();
        Self {
            sources: sources
                .map(|source| (text(&source["address"]), (text(&source["outcome"]), list(&source["rules"]))))
                .collect(),
            notes: notes.map(|note| (text(&note["rule"]), text(&note["subject"]))).collect(),
        }
    }

    /// Of somebody who never sent a packet: "clean".
    pub(crate) fn outcome(&self, address: &str) -> String {
        self.sources.get(address).map_or_else(|| "clean".to_owned(), |(outcome, _)| outcome.clone())
    }

    pub(crate) fn rules(&self, address: &str) -> Vec<String> {
        self.sources.get(address).map(|(_, rules)| rules.clone()).unwrap_or_default()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.sources.keys()
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
