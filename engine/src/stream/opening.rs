//! A connection from its SYN to whatever comes after: all that is kept of each of a flood of SYNs.

use floodwall_wire::frame::TcpHeader;

use super::{Flow, FlowKey, Half, State};
use crate::{
    packet::{Checksum, Packet},
    protocol::{Connection, Side},
    signal::FlowId,
    time::Timestamp,
};

/// A connection of which nothing but SYNs was seen.
#[derive(Debug)]
pub(super) struct Opening {
    id: FlowId,
    service: u8,
    opened: Timestamp,
    /// Sequence numbers of both sides' SYNs.
    client: Option<u32>,
    server: Option<u32>,
    has_checksums: bool,
}

impl Opening {
    /// No SYN noted yet.
    pub(super) const fn new(id: FlowId, packet: &Packet<'_>) -> Self {
        Self {
            id,
            service: packet.service,
            opened: packet.at,
            client: None,
            server: None,
            has_checksums: false,
        }
    }

    /// Takes a SYN of either side; the last one counts.
    pub(super) fn take_syn(&mut self, packet: &Packet<'_>, tcp: &TcpHeader) {
        match packet.from {
            Side::Client => {
                self.client = Some(tcp.sequence);
                self.has_checksums |= packet.checksum() == Checksum::Right;
            }
            Side::Server => {
                self.client = Some(tcp.acknowledgement.wrapping_sub(1));
                self.server = Some(tcp.sequence);
            }
        }
    }

    /// Whether the server was ready for it.
    pub(super) const fn is_answered(&self) -> bool {
        self.server.is_some()
    }

    /// When its first SYN was seen.
    pub(super) const fn opened(&self) -> Timestamp {
        self.opened
    }

    /// Between whom it was to be.
    pub(super) const fn connection(&self, key: &FlowKey) -> Connection {
        key.connection(self.id, self.service, self.opened)
    }

    /// Whether a reset would be believed.
    pub(super) fn is_ended_by(&self, from: Side, tcp: &TcpHeader) -> bool {
        let (client, server) = self.halves();
        match from {
            Side::Client => client.expects_exactly(tcp.sequence),
            Side::Server => server.expects(tcp.sequence),
        }
    }

    fn halves(&self) -> (Half, Half) {
        [self.client, self.server]
            .map(|sequence| {
                let mut half = Half::new();
                if let Some(sequence) = sequence {
                    half.begin(sequence);
                }
                half
            })
            .into()
    }

    /// What is followed from the first segment after the SYNs on.
    pub(super) fn into_flow<S>(self, key: &FlowKey) -> Flow<S> {
        let connection = self.connection(key);
        let (client, server) = self.halves();
        let has_checksums = self.has_checksums;
        Flow { client, server, has_checksums, ..Flow::new(connection, State::Opening) }
    }
}
