//! Frames put together by hand, byte by byte, so that wrong ones can be made as easily as right ones.

use std::net::IpAddr;

use floodwall_wire::frame::tcp_flags;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Sender and receiver of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
}

impl Path {
    /// From a client's ephemeral port to a server's.
    pub fn new(source: &str, destination: &str, destination_port: u16) -> Self {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
        Self { source, destination, source_port: 40_000, destination_port }
    }

    /// The way back.
    pub fn back(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// A UDP datagram in a frame.
pub fn udp(path: Path, payload: &[u8]) -> Vec<u8> {
    frame(path, UDP, &udp_segment(path, payload.len(), payload))
}

/// A UDP header that states `stated` payload bytes, and a payload.
pub fn udp_segment(path: Path, stated: usize, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports(path);
    segment.extend_from_slice(&u16::try_from(stated + 8).expect("a datagram").to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    segment
}

/// A TCP segment in a frame.
pub fn tcp(path: Path, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(path, TCP, &tcp_segment(path, 5, flags, payload))
}

/// A TCP header that states `words` 32-bit words, and a payload.
pub fn tcp_segment(path: Path, words: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports(path);
    segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    segment
}

/// A segment of an established connection.
pub fn data(path: Path, payload: &[u8]) -> Vec<u8> {
    tcp(path, tcp_flags::ACK | tcp_flags::PSH, payload)
}

fn ports(path: Path) -> Vec<u8> {
    [path.source_port.to_be_bytes(), path.destination_port.to_be_bytes()].concat()
}

/// An IP packet in an Ethernet frame.
pub fn frame(path: Path, protocol: u8, segment: &[u8]) -> Vec<u8> {
    match path.source {
        IpAddr::V4(_) => ethernet(&[0x08, 0x00], &ipv4(path, protocol, &[], 0, segment)),
        IpAddr::V6(_) => ethernet(&[0x86, 0xdd], &ipv6(path, protocol, segment)),
    }
}

/// An Ethernet frame; `types` is the ethertype, with VLAN tags in front if wanted.
pub fn ethernet(types: &[u8], packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], types, packet].concat()
}

/// An IPv4 packet with options and a fragment field.
pub fn ipv4(path: Path, protocol: u8, options: &[u8], fragment: u16, segment: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (path.source, path.destination) else {
        panic!("{path:?} is not IPv4")
    };
    let total = u16::try_from(20 + options.len() + segment.len()).expect("an IP packet");
    let words = u8::try_from(5 + options.len() / 4).expect("few options");
    let mut packet = vec![0x40 | words, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(options);
    packet.extend_from_slice(segment);
    packet
}

/// An IPv6 packet; `next` may name an extension header with which `rest` then begins.
pub fn ipv6(path: Path, next: u8, rest: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (path.source, path.destination) else {
        panic!("{path:?} is not IPv6")
    };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(rest.len()).expect("an IP packet").to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(rest);
    packet
}

/// TeamTalk HELLO of a user.
pub fn hello(user_id: u16) -> Vec<u8> {
    let [low, high] = user_id.to_le_bytes();
    vec![1, low, high, 0, 9, 9, 9, 9, 1, 0x10, 1]
}

/// TeamTalk voice of a user in channel 1, with one field of `bytes` bytes.
pub fn voice(user_id: u16, bytes: u16) -> Vec<u8> {
    let ids = u32::from(user_id) | 1 << 12;
    let [low, middle, high, _] = ids.to_le_bytes();
    let [field_low, field_high] = (bytes | 4 << 12).to_le_bytes();
    let mut datagram = vec![3, low, middle, high, 1, 2, 3, 4, field_low, field_high];
    datagram.resize(10 + usize::from(bytes), 0xaa);
    datagram
}
