//! The mirror: what the controller gets to see of the control channels, through one ring for both directions.
//!
//! A record is this header and then bytes of the frame from the IP header on. A segment longer than
//! [`CHUNK_BYTES`] goes in several records; `chunk_offset` says where in the IP packet each begins.

use crate::Class;

/// Packet bytes one record can carry.
pub const CHUNK_BYTES: usize = 2048 - size_of::<Record>();
/// Chunks of one packet; a generic-mode packet can be 64 KiB long.
pub const CHUNKS_MAX: u32 = 34;

/// Bytes shown of a packet of which only the start is mirrored: the headers and the first words of a datagram.
pub const START_BYTES: u32 = 128;

/// How much of a packet the controller gets to see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Share {
    /// Nothing.
    Nothing,
    /// The first [`START_BYTES`] bytes.
    Start,
    /// Everything.
    Whole,
}

/// How much is mirrored of a packet that passed, by class and direction.
///
/// Of the segments without payload the server's are shown: what a client sent is evidence only once they
/// acknowledge it. Voice and other media are never shown.
#[inline(always)]
pub const fn share(class: Class, direction: u8) -> Share {
    match class {
        Class::TcpSyn | Class::TcpReset | Class::TcpFin | Class::TcpPayload => Share::Whole,
        Class::TcpAck if direction == DEPARTING => Share::Whole,
        Class::UdpHello | Class::UdpKeepalive | Class::UdpHandshake | Class::UdpCommand | Class::UdpOther => {
            Share::Start
        }
        Class::TcpAck
        | Class::Fragment
        | Class::UdpVoice
        | Class::UdpVideo
        | Class::UdpMedia
        | Class::UdpDesktop => Share::Nothing,
    }
}

/// Header of one mirrored chunk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Record {
    /// Gate clock, ns.
    pub at: u64,
    /// Length of the IP packet.
    pub packet_bytes: u32,
    /// Offset of this chunk in the IP packet.
    pub chunk_offset: u32,
    /// Bytes of this chunk.
    pub chunk_bytes: u32,
    /// Index of the service.
    pub service: u8,
    /// [`ARRIVING`] or [`DEPARTING`].
    pub direction: u8,
    /// Number of the [`crate::Reason`] the packet passed for.
    pub reason: u8,
    /// Number of the [`crate::tables::Standing`].
    pub standing: u8,
}

/// Client to server.
pub const ARRIVING: u8 = 0;
/// Server to client.
pub const DEPARTING: u8 = 1;

/// One record as the kernel puts it together; only the header and `chunk_bytes` bytes go into the ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Chunk {
    /// The header.
    pub record: Record,
    /// The bytes.
    pub bytes: [u8; CHUNK_BYTES],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_packet_fits_the_chunks() {
        assert_eq!((size_of::<Record>(), size_of::<Chunk>()), (24, 2048));
        assert!(CHUNKS_MAX as usize * CHUNK_BYTES >= 65_535 + 40);
    }

    #[test]
    fn media_is_never_shown_and_acknowledgements_only_of_the_server() {
        for direction in [ARRIVING, DEPARTING] {
            for class in [Class::UdpVoice, Class::UdpVideo, Class::UdpMedia, Class::UdpDesktop] {
                assert_eq!(share(class, direction), Share::Nothing);
            }
            assert_eq!(share(Class::TcpPayload, direction), Share::Whole);
        }
        assert_eq!(share(Class::TcpAck, ARRIVING), Share::Nothing);
        assert_eq!(share(Class::TcpAck, DEPARTING), Share::Whole);
    }
}
