//! What the engine is given: one packet of a guarded service, after the gate.

use floodwall_wire::{
    Address, Class, Judgement, Reason, Verdict,
    frame::{Headers, TcpHeader, Transport},
    window::SliceWindow,
};

use crate::{protocol::Side, time::Timestamp};

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
    },
    /// A datagram's payload, possibly cut short.
    Datagram(&'a [u8]),
    /// A fragment or cut header; only its existence counts.
    Other,
}

impl<'a> Packet<'a> {
    /// A client's packet, with what the gate said of it.
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
            body: Body::read(frame, headers),
        }
    }

    /// A server's packet.
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
            body: Body::read(frame, headers),
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
                Some(tcp) => {
                    Self::Segment { tcp, payload: bounded(frame, tcp.payload_offset, tcp.payload_bytes) }
                }
                None => Self::Other,
            },
            Transport::Udp => {
                Self::Datagram(bounded(frame, headers.datagram_offset(), headers.datagram_bytes))
            }
        }
    }
}

/// The payload as the headers bound it, as far as the frame holds it.
fn bounded(frame: &[u8], offset: u32, bytes: u32) -> &[u8] {
    let rest = frame.get(offset as usize..).unwrap_or_default();
    rest.get(..bytes as usize).unwrap_or(rest)
}
