//! The mirror: what the controller gets to see of the control channels, through one ring for both directions.
//!
//! A record is this header and then bytes of the frame from the IP header on. A segment longer than
//! [`CHUNK_BYTES`] goes in several records; `chunk_offset` says where in the IP packet each begins.

/// Payload bytes one record can carry.
pub const CHUNK_BYTES: usize = 2048 - size_of::<Record>();
/// Chunks of one packet; a generic-mode packet can be 64 KiB long.
pub const CHUNKS_MAX: u32 = 34;

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
