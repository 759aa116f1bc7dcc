//! From the first byte of a frame to where the payload begins and ends.
//!
//! Ethernet with up to two VLAN tags (IEEE 802.1Q, 802.1ad), IPv4 with options (RFC 791), IPv6 with extension
//! headers (RFC 8200), TCP (RFC 9293), UDP (RFC 768). The payload ends where the IP and UDP lengths say, never
//! where the frame ends: short frames are padded and some captures carry trailers.

use crate::{Address, window::Window};

const ETHERNET_BYTES: u32 = 14;
const VLAN_TAG_BYTES: u32 = 4;
const VLAN_TAGS_MAX: u32 = 2;
const EXTENSION_HEADERS_MAX: u32 = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Without options.
const IPV4_HEADER_BYTES: u32 = 20;
/// Version 4, and a header without options.
const PLAIN_IPV4: u32 = 0x45;
const IPV6_HEADER_BYTES: u32 = 40;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_AUTHENTICATION: u8 = 51;
const IPV6_DESTINATION: u8 = 60;

/// Length of a TCP header without options.
pub const TCP_HEADER_BYTES: u32 = 20;
/// Length of a UDP header.
pub const UDP_HEADER_BYTES: u32 = 8;

/// The transport protocols that carry guarded ports.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Which part of its datagram a packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first of several: it has the ports.
    First,
}

/// Why a frame has no [`Headers`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unwalkable {
    /// Not IPv4 or IPv6, or deeper in VLAN tags than is walked.
    NotIp,
    /// IP, but neither TCP nor UDP (or behind more extension headers than are walked).
    OtherTransport,
    /// A fragment that is not the first: it carries no port.
    LaterFragment,
    /// A header contradicts itself or the frame ends inside one.
    Malformed,
}

/// TCP flag bits, as in the 14th byte of the header.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;
}

/// What the headers of a TCP or UDP packet say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Headers {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// TCP or UDP.
    pub transport: Transport,
    /// Whole packet or first fragment.
    pub fragment: Fragment,
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Offset of the IP header in the frame.
    pub network_offset: u32,
    /// Offset of the TCP or UDP header in the frame.
    pub transport_offset: u32,
    /// Bytes of the IP packet from the transport header on, as the IP header says.
    pub transport_bytes: u32,
    /// Length the UDP header states, less the header; what is left of the IP packet for a first fragment may be
    /// less. 0 for TCP.
    pub datagram_bytes: u32,
}

/// The rest of a TCP header, read only where it is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpHeader {
    /// Sequence number of the first payload byte (or of the SYN).
    pub sequence: u32,
    /// Next sequence number expected, if ACK is set.
    pub acknowledgement: u32,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Offset of the payload in the frame.
    pub payload_offset: u32,
    /// Payload bytes of this segment.
    pub payload_bytes: u32,
}

impl TcpHeader {
    /// No header at all.
    pub const ABSENT: Self =
        Self { sequence: 0, acknowledgement: 0, flags: 0, payload_offset: 0, payload_bytes: 0 };
}

/// Walks a frame to its TCP or UDP header.
///
/// # Errors
/// Says why the frame has none that can be judged; every such frame passes the gate.
#[inline(always)]
pub fn walk<W: Window>(window: &W) -> Result<Headers, Unwalkable> {
    // Most packets: no tag, no options. Where everything lies is known beforehand, and one check tells that it is there.
    if window.read_u16(ETHERNET_BYTES - 2) == Some(ETHERTYPE_IPV4)
        && let Some([first, second, third, source, destination, ports, next]) =
            window.read_words(ETHERNET_BYTES)
        && first >> 24 == PLAIN_IPV4
    {
        let network = ipv4(ETHERNET_BYTES, [first, second, third, source, destination])?;
        let transport = network.transport()?;
        return network.headers(transport, ETHERNET_BYTES + IPV4_HEADER_BYTES, [ports, next]);
    }
    let (ethertype, offset) = walk_link(window)?;
    match ethertype {
        ETHERTYPE_IPV4 => walk_ipv4(window, offset),
        ETHERTYPE_IPV6 => walk_ipv6(window, offset),
        _ => Err(Unwalkable::NotIp),
    }
}

/// Where the IP packet begins in the frame, and its length as its header says.
#[inline(always)]
pub fn ip_packet<W: Window>(window: &W) -> Option<(u32, u32)> {
    let Ok((ethertype, offset)) = walk_link(window) else { return None };
    match ethertype {
        ETHERTYPE_IPV4 => Some((offset, window.read_u16(offset + 2)? as u32)),
        ETHERTYPE_IPV6 => Some((offset, window.read_u16(offset + 4)? as u32 + IPV6_HEADER_BYTES)),
        _ => None,
    }
}

/// Who sent the IP packet whose header begins at `offset`.
#[inline(always)]
pub fn source<W: Window>(window: &W, offset: u32) -> Option<Address> {
    let version = window.read_u16(offset)? >> 12;
    if version == 4 {
        return Some(Address::from_v4(window.read_u32(offset + 12)?));
    }
    let [a, b, c, d] = window.read_words(offset + 8)?;
    Some(Address::from_v6((a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64))
}

/// The innermost ethertype and where what it names begins.
#[inline(always)]
fn walk_link<W: Window>(window: &W) -> Result<(u16, u32), Unwalkable> {
    let mut offset = ETHERNET_BYTES;
    let Some(mut ethertype) = window.read_u16(offset - 2) else {
        return Err(Unwalkable::NotIp);
    };
    let mut tag = 0;
    while tag < VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        offset += VLAN_TAG_BYTES;
        match window.read_u16(offset - 2) {
            Some(inner) => ethertype = inner,
            None => return Err(Unwalkable::Malformed),
        }
        tag += 1;
    }
    Ok((ethertype, window.blur(offset)))
}

/// Where the IP header ended and what it said.
struct Network {
    source: Address,
    destination: Address,
    protocol: u8,
    fragment: Fragment,
    network_offset: u32,
    transport_offset: u32,
    transport_bytes: u32,
}

#[inline(always)]
fn walk_ipv4<W: Window>(window: &W, offset: u32) -> Result<Headers, Unwalkable> {
    let Some(words) = window.read_words(offset) else { return Err(Unwalkable::Malformed) };
    transport(window, ipv4(offset, words)?)
}

#[inline(always)]
const fn ipv4(
    offset: u32,
    [first, second, third, source, destination]: [u32; 5],
) -> Result<Network, Unwalkable> {
    let header_bytes = ((first >> 24) & 0x0f) << 2;
    let total_bytes = first & 0xffff;
    if first >> 28 != 4 || header_bytes < IPV4_HEADER_BYTES || total_bytes < header_bytes {
        return Err(Unwalkable::Malformed);
    }
    // `second` is identification 16, flags 3, fragment offset 13; `third` TTL 8, protocol 8, checksum 16.
    let fragment_field = second & 0x3fff;
    if fragment_field & 0x1fff != 0 {
        return Err(Unwalkable::LaterFragment);
    }
    Ok(Network {
        source: Address::from_v4(source),
        destination: Address::from_v4(destination),
        protocol: (third >> 16) as u8,
        fragment: if fragment_field & 0x2000 == 0 { Fragment::Whole } else { Fragment::First },
        network_offset: offset,
        transport_offset: offset + header_bytes,
        transport_bytes: total_bytes - header_bytes,
    })
}

#[inline(always)]
fn walk_ipv6<W: Window>(window: &W, offset: u32) -> Result<Headers, Unwalkable> {
    let Some([first, second]) = window.read_words(offset) else { return Err(Unwalkable::Malformed) };
    let Some(addresses) = window.read_words::<8>(offset + 8) else { return Err(Unwalkable::Malformed) };
    if first >> 28 != 6 {
        return Err(Unwalkable::Malformed);
    }
    let half = |at: usize| (addresses[at] as u64) << 32 | addresses[at + 1] as u64;
    let mut left = second >> 16;
    let mut next = (second >> 8) as u8;
    let mut at = offset + IPV6_HEADER_BYTES;
    let mut fragment = Fragment::Whole;
    let mut extension = 0;
    while extension < EXTENSION_HEADERS_MAX {
        let bytes = match next {
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_DESTINATION => {
                let Some(pair) = window.read_u16(at) else { return Err(Unwalkable::Malformed) };
                next = (pair >> 8) as u8;
                ((pair as u32 & 0xff) + 1) << 3
            }
            IPV6_AUTHENTICATION => {
                let Some(pair) = window.read_u16(at) else { return Err(Unwalkable::Malformed) };
                next = (pair >> 8) as u8;
                ((pair as u32 & 0xff) + 2) << 2
            }
            IPV6_FRAGMENT => {
                let Some(word) = window.read_u32(at) else { return Err(Unwalkable::Malformed) };
                if word & 0xfff8 != 0 {
                    return Err(Unwalkable::LaterFragment);
                }
                if word & 1 != 0 {
                    fragment = Fragment::First;
                }
                next = (word >> 24) as u8;
                8
            }
            _ => break,
        };
        if bytes > left {
            return Err(Unwalkable::Malformed);
        }
        // The verifier walks a loop anew for every way of getting to its head that it can tell apart.
        left = window.blur(left - bytes);
        at = window.blur(at + bytes);
        extension += 1;
    }
    transport(
        window,
        Network {
            source: Address::from_v6(half(0), half(2)),
            destination: Address::from_v6(half(4), half(6)),
            protocol: next,
            fragment,
            network_offset: offset,
            transport_offset: at,
            transport_bytes: left,
        },
    )
}

#[inline(always)]
fn transport<W: Window>(window: &W, network: Network) -> Result<Headers, Unwalkable> {
    let transport = network.transport()?;
    let offset = window.blur(network.transport_offset);
    let Some(words) = window.read_words(offset) else { return Err(Unwalkable::Malformed) };
    network.headers(transport, offset, words)
}

impl Network {
    #[inline(always)]
    const fn transport(&self) -> Result<Transport, Unwalkable> {
        let transport = match self.protocol {
            PROTOCOL_TCP => Transport::Tcp,
            PROTOCOL_UDP => Transport::Udp,
            _ => return Err(Unwalkable::OtherTransport),
        };
        // Both headers begin with the two ports and are at least eight bytes; a legal first fragment has these.
        if self.transport_bytes < 8 { Err(Unwalkable::Malformed) } else { Ok(transport) }
    }

    /// With the first two words of the transport header, which begins at `transport_offset`.
    #[inline(always)]
    const fn headers(
        self,
        transport: Transport,
        transport_offset: u32,
        [ports, second]: [u32; 2],
    ) -> Result<Headers, Unwalkable> {
        let datagram_bytes = match transport {
            Transport::Tcp => 0,
            Transport::Udp => {
                let length = second >> 16;
                let exceeds = matches!(self.fragment, Fragment::Whole) && length > self.transport_bytes;
                if length < UDP_HEADER_BYTES || exceeds {
                    return Err(Unwalkable::Malformed);
                }
                length - UDP_HEADER_BYTES
            }
        };
        Ok(Headers {
            source: self.source,
            destination: self.destination,
            transport,
            fragment: self.fragment,
            source_port: (ports >> 16) as u16,
            destination_port: ports as u16,
            network_offset: self.network_offset,
            transport_offset,
            transport_bytes: self.transport_bytes,
            datagram_bytes,
        })
    }
}

impl Headers {
    /// Offset of a UDP payload in the frame.
    #[inline(always)]
    pub const fn datagram_offset(&self) -> u32 {
        self.transport_offset + UDP_HEADER_BYTES
    }

    /// The rest of the TCP header, or `None` if the segment has no complete one.
    #[inline(always)]
    pub fn tcp<W: Window>(&self, window: &W) -> Option<TcpHeader> {
        TcpHeader::read(window, self.transport_offset, self.transport_bytes)
    }
}

impl TcpHeader {
    /// Reads the header at `offset` of a segment of `bytes` bytes, or answers `None` if it is not complete.
    #[inline(always)]
    pub fn read<W: Window>(window: &W, offset: u32, bytes: u32) -> Option<Self> {
        let numbers = window.read_u64(offset + 4)?;
        let control = window.read_u16(offset + 12)?;
        let header_bytes = ((control >> 12) as u32) << 2;
        if header_bytes < TCP_HEADER_BYTES || header_bytes > bytes {
            return None;
        }
        Some(Self {
            sequence: (numbers >> 32) as u32,
            acknowledgement: numbers as u32,
            flags: (control & 0x3f) as u8,
            payload_offset: offset + header_bytes,
            payload_bytes: bytes - header_bytes,
        })
    }
}
