//! The mirror: what the controller gets to see of the control channels, through one ring for both directions.
//!
//! A record is this header and then bytes of the frame from the IP header on. A segment longer than
//! [`CHUNK_BYTES`] goes in several records; `chunk_offset` says where in the IP packet each begins.

use crate::{
    Class, Reason, SourceKey, Verdict,
    limit::Limit,
    tables::{SERVICES_MAX, Standing, Status},
};

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

/// How much is mirrored of a packet, by class and what the gate said of it.
///
/// Segments without payload are shown too: the client's complete a handshake, and what a client sent is evidence only
/// once the server's acknowledge it. Voice and other media are never shown. Of what is dropped the start is shown, as a sample: it tells
/// the controller what is happening and is no part of any conversation.
#[inline(always)]
pub const fn share(class: Class, reason: Reason) -> Share {
    if matches!(reason.verdict(), Verdict::Drop) {
        return Share::Start;
    }
    match class {
        // Left to the kernel's SYN cookies because there are too many to follow.
        Class::TcpSyn if matches!(reason, Reason::SynCookie) => Share::Nothing,
        Class::TcpSyn | Class::TcpReset | Class::TcpFin | Class::TcpPayload | Class::TcpAck => Share::Whole,
        // TeamSpeak's last step and first commands say who asks, behind hundreds of bytes.
        Class::UdpHandshake | Class::UdpCommand => Share::Whole,
        Class::UdpHello | Class::UdpKeepalive | Class::UdpOther => Share::Start,
        Class::Fragment | Class::UdpVoice | Class::UdpVideo | Class::UdpMedia | Class::UdpDesktop => {
            Share::Nothing
        }
    }
}

/// Which budget a packet draws on before it is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allowance {
    /// None: the gate's own limits bound it, or the server's established connections do.
    Free,
    /// One for the service, in packets: what many forged sources could otherwise fill the ring with.
    Service(Flood),
    /// One of its source's own, in bytes.
    Source {
        /// The known do not share cells with the others.
        known: bool,
    },
}

/// What anybody can provoke without a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Flood {
    /// SYNs of sources that are not known.
    Syn = 0,
    /// The server's answers to SYNs.
    SynAnswer = 1,
    /// The server's resets.
    Reset = 2,
    /// Samples of what is dropped.
    Dropped = 3,
    /// Clients' segments without payload.
    Acknowledgement = 4,
}

/// Which budget a packet draws on.
#[inline(always)]
pub const fn allowance(class: Class, direction: u8, reason: Reason, standing: Standing) -> Allowance {
    let known = matches!(standing, Standing::Known | Standing::Allowed);
    if matches!(reason.verdict(), Verdict::Drop) {
        return Allowance::Service(Flood::Dropped);
    }
    match (class, direction) {
        (Class::TcpSyn, DEPARTING) => Allowance::Service(Flood::SynAnswer),
        (Class::TcpReset, DEPARTING) => Allowance::Service(Flood::Reset),
        (Class::TcpSyn | Class::TcpReset, _) if !known => Allowance::Service(Flood::Syn),
        (Class::TcpAck, ARRIVING) => Allowance::Service(Flood::Acknowledgement),
        (Class::TcpPayload | Class::TcpFin, ARRIVING) => Allowance::Source { known },
        _ => Allowance::Free,
    }
}

/// What one source may say to the controller: 512 KiB/s and 2 MiB at once, far above any control channel.
pub const SOURCE_ALLOWANCE: Limit = Limit::per_second(512 * 1024, 2 * 1024 * 1024);
/// Packets of one [`Flood`] shown per service.
pub const FLOOD_ALLOWANCE: Limit = Limit::per_second(5_000, 5_000);
/// Dropped packets shown per service.
pub const SAMPLE_ALLOWANCE: Limit = Limit::per_second(1_000, 200);

/// Cells for sources, of either sort.
const SOURCE_CELLS: u32 = 8_192;
/// Number of [`Flood`]s.
const FLOODS: u32 = 5;
/// Cells of the table `ALLOWANCES`.
pub const ALLOWANCES: u32 = 2 * SOURCE_CELLS + SERVICES_MAX as u32 * FLOODS;

/// The cell of a source.
#[inline(always)]
pub const fn source_cell(seed: u64, source: SourceKey, known: bool) -> u32 {
    // One multiplication spreads a keyed number well enough: whoever shares a cell shares a generous budget.
    let mixed = (source.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed as u32 & (SOURCE_CELLS - 1)) + if known { SOURCE_CELLS } else { 0 }
}

/// The cell of what floods a service.
#[inline(always)]
pub const fn flood_cell(service: u8, flood: Flood) -> u32 {
    2 * SOURCE_CELLS + (service as u32 % SERVICES_MAX as u32) * FLOODS + flood as u32
}

/// Whether a segment that the controller could not be shown is dropped for that: while the service is alarmed no
/// stranger speaks unread. TCP sends it again. Drops that rest on the level are suspended with the heartbeat.
#[inline(always)]
pub const fn refuses_unread(
    status: &Status,
    service: u8,
    class: Class,
    standing: Standing,
    now: u64,
) -> bool {
    let known = matches!(standing, Standing::Known | Standing::Allowed);
    let speaks = matches!(class, Class::TcpPayload | Class::TcpFin);
    // The mask changes nothing, a service is below 16; the verifier forgets a comparison.
    let levels = status.levels[service as usize & (SERVICES_MAX - 1)];
    !known && speaks && status.heartbeat_until > now && (levels >> 8) & 0xff != 0
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
    pub chunk_bytes: u16,
    /// Number of the [`Class`].
    pub class: u8,
    /// Always 0.
    pub reserved: u8,
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
    fn media_is_never_shown_and_what_is_dropped_only_in_part() {
        for class in [Class::UdpVoice, Class::UdpVideo, Class::UdpMedia, Class::UdpDesktop] {
            assert_eq!(share(class, Reason::Admitted), Share::Nothing);
        }
        assert_eq!(share(Class::TcpPayload, Reason::Admitted), Share::Whole);
        assert_eq!(share(Class::TcpPayload, Reason::LimitSource), Share::Start);
        assert_eq!(share(Class::TcpSyn, Reason::SynCookie), Share::Nothing);
    }

    #[test]
    fn every_cell_is_in_the_table_and_nobody_elses() {
        let mut cells = std::collections::BTreeSet::new();
        for service in 0..SERVICES_MAX as u8 {
            for flood in [Flood::Syn, Flood::SynAnswer, Flood::Reset, Flood::Dropped, Flood::Acknowledgement]
            {
                let cell = flood_cell(service, flood);
                assert!((2 * SOURCE_CELLS..ALLOWANCES).contains(&cell) && cells.insert(cell));
            }
        }
        for key in 0..10_000_u64 {
            assert!(source_cell(7, SourceKey(key), false) < SOURCE_CELLS);
            assert!((SOURCE_CELLS..2 * SOURCE_CELLS).contains(&source_cell(7, SourceKey(key), true)));
        }
    }

    #[test]
    fn unread_segments_are_refused_to_strangers_in_alarm_and_nobody_else() {
        let mut status = Status { heartbeat_until: 100, ..Status::default() };
        let refused = |status: &Status, class, standing| refuses_unread(status, 3, class, standing, 50);
        assert!(!refused(&status, Class::TcpPayload, Standing::Stranger));
        status.levels[3] = 1 << 8;
        assert!(refused(&status, Class::TcpPayload, Standing::Stranger));
        assert!(refused(&status, Class::TcpPayload, Standing::Proven));
        assert!(!refused(&status, Class::TcpPayload, Standing::Known));
        assert!(!refused(&status, Class::TcpReset, Standing::Stranger));
        status.heartbeat_until = 50;
        assert!(!refused(&status, Class::TcpPayload, Standing::Stranger));
    }
}
