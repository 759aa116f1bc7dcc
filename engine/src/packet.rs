//! What the engine is given: one packet of a guarded service, after the gate.

use floodwall_wire::{
    Address, Class, Judgement, Reason, Verdict,
    frame::{Fragment, Headers, TcpHeader, Transport},
    tables::Standing,
    window::SliceWindow,
};

use crate::{command::Front, protocol::Side, time::Timestamp};

/// One packet to or from a guarded service.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was captured.
    pub at: Timestamp,
    /// Index of the service.
    pub service: u8,
    /// Who sent it.
    pub from: Side,
    /// The client's address.
    pub client: Address,
    /// The client's port.
    pub client_port: u16,
    /// The server's address.
    pub server: Address,
    /// The server's port.
    pub server_port: u16,
    /// What kind of packet it is.
    pub class: Class,
    /// What the gate said, for packets of clients.
    pub reason: Reason,
    /// What the gate knew of a client that sends it.
    pub standing: Standing,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a packet carries beyond addresses.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A TCP segment.
    Segment {
        /// Its header.
        tcp: TcpHeader,
        /// Its payload, which a snapped capture may have cut short of `tcp.payload_bytes`.
        payload: &'a [u8],
        /// Header and payload for the checksum; empty where they are not all there.
        whole: &'a [u8],
    },
    /// A datagram.
    Datagram {
        /// Its payload, which a snapped capture or the mirror may have cut short of `bytes`.
        payload: &'a [u8],
        /// Length of the payload, as its header states it.
        bytes: u32,
    },
    /// A fragment or cut header; only its existence counts.
    Other,
}

/// What the checksum of a segment says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checksum {
    /// Nothing was changed on the way.
    Right,
    /// It does not fit.
    Wrong,
    /// Not all of the segment is here, or it was left to the card to fill in.
    Unknown,
}

impl<'a> Packet<'a> {
    /// A client's packet, with what the gate said of it.
    #[inline]
    pub fn arriving(at: Timestamp, frame: &'a [u8], headers: &Headers, judgement: &Judgement) -> Self {
        Self {
            at,
            service: judgement.service,
            from: Side::Client,
            client: headers.source,
            client_port: headers.source_port,
            server: headers.destination,
            server_port: headers.destination_port,
            class: judgement.class,
            reason: judgement.reason,
            standing: judgement.standing,
            body: Body::read(frame, headers),
        }
    }

    /// A server's packet.
    #[inline]
    pub fn departing(at: Timestamp, frame: &'a [u8], headers: &Headers, service: u8, class: Class) -> Self {
        Self {
            at,
            service,
            from: Side::Server,
            client: headers.destination,
            client_port: headers.destination_port,
            server: headers.source,
            server_port: headers.source_port,
            class,
            reason: Reason::Admitted,
            standing: Standing::Allowed,
            body: Body::read(frame, headers),
        }
    }

    /// What a segment's checksum says (RFC 9293 section 3.1).
    pub fn checksum(&self) -> Checksum {
        let Body::Segment { whole, .. } = self.body else {
            return Checksum::Unknown;
        };
        let Some(stated) = whole.get(16..18).and_then(|field| field.first_chunk()) else {
            return Checksum::Unknown;
        };
        // An IPv4 address adds the same as its IPv6 form: 0xffff counts as zero.
        let words = [self.client.high, self.client.low, self.server.high, self.server.low];
        let addresses = words.into_iter().fold(0, add);
        let pseudo = add(add(addresses, u64::from(PROTOCOL_TCP)), whole.len() as u64);
        if fold(sum_words(pseudo, whole)) == 0xffff {
            Checksum::Right
        } else if fold(pseudo) == u16::from_be_bytes(*stated) {
            // What a stack leaves for the card to finish, and what merged segments carry.
            Checksum::Unknown
        } else {
            Checksum::Wrong
        }
    }

    /// The class of traffic in which it asks for something anew: a connection, or anything over UDP.
    pub fn asks(&self) -> Option<Front> {
        match self.class {
            Class::TcpSyn => Some(Front::Tcp),
            Class::TcpReset | Class::TcpFin | Class::TcpPayload | Class::TcpAck | Class::Fragment => None,
            Class::UdpHello
            | Class::UdpKeepalive
            | Class::UdpVoice
            | Class::UdpVideo
            | Class::UdpMedia
            | Class::UdpDesktop
            | Class::UdpHandshake
            | Class::UdpCommand
            | Class::UdpOther => Some(Front::Udp),
        }
    }

    /// Whether the gate dropped it.
    pub fn is_dropped(&self) -> bool {
        self.reason.verdict() == Verdict::Drop
    }
}

impl<'a> Body<'a> {
    fn read(frame: &'a [u8], headers: &Headers) -> Self {
        match headers.transport {
            Transport::Tcp => match headers.tcp(&SliceWindow::new(frame)) {
                Some(tcp) => Self::Segment {
                    tcp,
                    payload: bounded(frame, tcp.payload_offset, tcp.payload_bytes),
                    whole: whole_segment(frame, headers),
                },
                None => Self::Other,
            },
            Transport::Udp => Self::Datagram {
                payload: bounded(frame, headers.datagram_offset(), headers.datagram_bytes),
                bytes: headers.datagram_bytes,
            },
        }
    }
}

/// The segment with its header, if the frame holds all of it.
fn whole_segment<'a>(frame: &'a [u8], headers: &Headers) -> &'a [u8] {
    if headers.fragment == Fragment::First {
        return &[];
    }
    let segment = bounded(frame, headers.transport_offset, headers.transport_bytes);
    if segment.len() == headers.transport_bytes as usize { segment } else { &[] }
}

/// The payload as the headers bound it, as far as the frame holds it.
fn bounded(frame: &[u8], offset: u32, bytes: u32) -> &[u8] {
    let rest = frame.get(offset as usize..).unwrap_or_default();
    rest.get(..bytes as usize).unwrap_or(rest)
}

const PROTOCOL_TCP: u8 = 6;

/// Adds in ones' complement (RFC 1071): eight bytes at a time fold to the same as two.
const fn add(sum: u64, word: u64) -> u64 {
    let (sum, carry) = sum.overflowing_add(word);
    sum.wrapping_add(carry as u64)
}

fn sum_words(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let sum = words.iter().fold(start, |sum, word| add(sum, u64::from_be_bytes(*word)));
    let mut last = [0; 8];
    for (slot, byte) in last.iter_mut().zip(rest) {
        *slot = *byte;
    }
    add(sum, u64::from_be_bytes(last))
}

const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From port 1234 to 10333.
    fn segment(checksum: u16) -> Vec<u8> {
        let mut bytes = vec![0x04, 0xd2, 0x28, 0x5d, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"hi!");
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Two bytes at a time, as the RFC has it.
    fn by_the_book(pseudo_only: bool) -> u16 {
        let mut bytes = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, PROTOCOL_TCP, 0, 23];
        if !pseudo_only {
            bytes.extend(segment(0));
        }
        bytes.push(0);
        let mut sum =
            bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        if pseudo_only { sum as u16 } else { !sum as u16 }
    }

    #[test]
    fn a_checksum_is_right_wrong_or_left_to_the_card() {
        let judge = |checksum: u16| {
            let whole = segment(checksum);
            let tcp = TcpHeader::ABSENT;
            let packet = Packet {
                at: Timestamp::EPOCH,
                service: 0,
                from: Side::Client,
                client: Address::from_v4(0x0a00_0001),
                client_port: 1234,
                server: Address::from_v4(0x0a00_0002),
                server_port: 10_333,
                class: Class::TcpPayload,
                reason: Reason::Admitted,
                standing: Standing::Proven,
                body: Body::Segment { tcp, payload: &[], whole: &whole },
            };
            packet.checksum()
        };
        assert_eq!(judge(by_the_book(false)), Checksum::Right);
        assert_eq!(judge(by_the_book(false) ^ 0x0100), Checksum::Wrong);
        assert_eq!(judge(by_the_book(true)), Checksum::Unknown);
    }
}
