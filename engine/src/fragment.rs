//! From IP fragments to whole packets, for inspection only: the gate judges each fragment as it comes.
//!
//! The first copy of every byte wins, and a different second one is told: whoever sends such fragments means to
//! show the server one thing and us another. Linux drops the whole packet then, so nothing of it counts before
//! the server has acknowledged it.
//!
//! Bounds: `PACKETS_MAX` packets in pieces and `BYTES_MAX` bytes of them, `PIECES_MAX` pieces of one packet,
//! each for at most `PATIENCE`. When full, the packet longest in pieces goes; a piece beyond its packet's bound
//! gives the packet up. Each piece is charged `PIECE_BYTES` more than it has, so tiny ones cost what they take.

use floodwall_wire::{Address, Judgement, Observation, frame, window::SliceWindow};

use crate::{
    bounded::BoundedMap,
    time::{Span, Timestamp},
};

/// Packets in pieces at once.
const PACKETS_MAX: usize = 1_024;
/// Bytes of all pieces, with what holding them costs.
const BYTES_MAX: usize = 4 << 20;
/// Pieces of one packet: 64 KiB at an MTU of 1,280, with room.
const PIECES_MAX: usize = 64;
/// What holding a piece costs.
const PIECE_BYTES: usize = 64;
/// How long the rest is waited for, as Linux does (`ipfrag_time`).
const PATIENCE: Span = Span::from_secs(30);
/// No IP packet is longer.
const PACKET_BYTES_MAX: usize = 65_535;

const ETHERNET_BYTES: usize = 14;
const IPV6_HEADER_BYTES: usize = 40;
const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_DESTINATION: u8 = 60;
const FRAGMENT_HEADER_BYTES: usize = 8;
/// Headers in front of the fragment header, as many as the gate walks.
const EXTENSION_HEADERS_MAX: usize = 8;

/// What the gate made of a packet's first fragment, which alone has the ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Passage {
    /// It came to a guarded service.
    Arriving(Judgement),
    /// A guarded service sent it.
    Departing(Observation),
}

impl Passage {
    /// Whether the piece breaks the protocol's shape: the gate drops it, and the server would not have read it either.
    /// Whatever else is dropped is put together and says so, like a packet in one piece.
    const fn is_lost(&self) -> bool {
        match self {
            Self::Arriving(judgement) => judgement.reason.is_shape(),
            Self::Departing(_) => false,
        }
    }
}

/// What became of a frame.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is no fragment: look at the frame itself.
    Whole,
    /// It is one, and others are missing.
    Waiting,
    /// It is the last one missing.
    Complete(Reassembled),
}

/// A packet put together again.
#[derive(Debug, Eq, PartialEq)]
pub struct Reassembled {
    /// Ethernet, IP and transport headers and the payload, as if it had come in one piece.
    pub frame: Vec<u8>,
    /// Fragments overlapped with different bytes.
    pub has_conflict: bool,
    /// What the gate made of the first fragment; `None` if no guarded service is concerned.
    pub passage: Option<Passage>,
}

/// Packets in pieces.
#[derive(Debug)]
pub struct Reassembler {
    packets: BoundedMap<Key, Pieces>,
    bytes: usize,
    given_up: u64,
}

/// RFC 791, RFC 8200 section 4.5.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    source: Address,
    destination: Address,
    identification: u32,
    protocol: u8,
}

#[derive(Debug, Default)]
struct Pieces {
    /// In order, not overlapping.
    pieces: Vec<(usize, Vec<u8>)>,
    /// Ethernet and IP headers, from the first fragment.
    head: Vec<u8>,
    /// What the gate made of the first fragment.
    passage: Option<Passage>,
    /// Where the last fragment ends.
    end: Option<usize>,
    bytes: usize,
    has_conflict: bool,
    is_spoilt: bool,
    since: Timestamp,
}

/// One fragment, borrowed from its frame.
struct Fragment<'a> {
    key: Key,
    offset: usize,
    is_last: bool,
    payload: &'a [u8],
    /// The frame up to what is fragmented, with headers as an unfragmented packet has them.
    head: Vec<u8>,
}

impl Reassembler {
    /// Nothing in pieces; `seed` keys the table.
    pub fn new(seed: u64) -> Self {
        Self { packets: BoundedMap::new(PACKETS_MAX, seed), bytes: 0, given_up: 0 }
    }

    /// Takes a frame and what the gate made of it, if it has ports and they are guarded.
    pub fn handle_frame(&mut self, frame: &[u8], passage: Option<Passage>, now: Timestamp) -> Outcome {
        let Some(fragment) = Fragment::parse(frame) else {
            return Outcome::Whole;
        };
        self.handle_timeout(now);
        while self.bytes > BYTES_MAX {
            let Some((_, pieces)) = self.packets.expire_one(1, |_, _| true) else {
                break;
            };
            self.let_go(&pieces);
        }
        let key = fragment.key;
        let mut evicted = None;
        let pieces = self.packets.touch_or_insert(
            &key,
            now,
            || Pieces { since: now, ..Pieces::default() },
            |_| true,
            |_, pieces| evicted = Some(pieces),
        );
        let Some(pieces) = pieces else {
            return Outcome::Waiting;
        };
        let before = pieces.bytes;
        if passage.is_some_and(|passage| passage.is_lost()) {
            pieces.spoil();
        }
        pieces.take(fragment, passage);
        let after = pieces.bytes;
        let is_complete = pieces.is_complete();
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        if let Some(pieces) = evicted {
            self.let_go(&pieces);
        }
        if !is_complete {
            return Outcome::Waiting;
        }
        let Some(pieces) = self.packets.remove(&key) else {
            return Outcome::Waiting;
        };
        self.bytes = self.bytes.saturating_sub(pieces.bytes);
        Outcome::Complete(pieces.join())
    }

    /// Gives up what has waited too long.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((_, pieces)) =
            self.packets.expire_one(4, |pieces, _| now.since(pieces.since) > PATIENCE)
        {
            self.let_go(&pieces);
        }
    }

    fn let_go(&mut self, pieces: &Pieces) {
        self.bytes = self.bytes.saturating_sub(pieces.bytes);
        self.given_up = self.given_up.saturating_add(1);
    }

    /// Packets in pieces, and the bytes they are charged.
    pub fn held(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }

    /// Packets that were never put together.
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }
}

impl Pieces {
    /// Whatever else comes, the packet is not put together; it is remembered so that no later piece begins it anew.
    fn spoil(&mut self) {
        *self = Self { is_spoilt: true, since: self.since, bytes: PIECE_BYTES, ..Self::default() };
    }

    fn take(&mut self, fragment: Fragment<'_>, passage: Option<Passage>) {
        if self.is_spoilt {
            return;
        }
        let Some(end) = fragment.offset.checked_add(fragment.payload.len()) else {
            return;
        };
        let contradicts = self.end.is_some_and(|known| end > known || (fragment.is_last && end != known));
        if end > PACKET_BYTES_MAX || contradicts || self.pieces.len() >= PIECES_MAX {
            return self.spoil();
        }
        if fragment.is_last {
            if self.pieces.last().is_some_and(|(start, bytes)| start.saturating_add(bytes.len()) > end) {
                return self.spoil();
            }
            self.end = Some(end);
        }
        if fragment.offset == 0 && self.head.is_empty() {
            self.bytes = self.bytes.saturating_add(fragment.head.len());
            self.head = fragment.head;
            self.passage = passage;
        }
        self.fill(fragment.offset, end, fragment.payload);
    }

    /// Fills the holes that the fragment covers.
    fn fill(&mut self, start: usize, end: usize, payload: &[u8]) {
        let slice = |from: usize, to: usize| {
            payload.get(from.saturating_sub(start)..to.saturating_sub(start)).unwrap_or_default()
        };
        let mut at = start;
        let mut holes = Vec::new();
        for (begin, bytes) in &self.pieces {
            let finish = begin.saturating_add(bytes.len());
            let (from, to) = (at.max(*begin), end.min(finish));
            if *begin > at && at < end {
                holes.push((at, end.min(*begin)));
            }
            if from < to {
                let theirs = bytes.get(from.saturating_sub(*begin)..to.saturating_sub(*begin));
                self.has_conflict |= theirs != Some(slice(from, to));
            }
            at = at.max(finish);
        }
        if at < end {
            holes.push((at, end));
        }
        for (from, to) in holes {
            let bytes = slice(from, to).to_vec();
            self.bytes = self.bytes.saturating_add(bytes.len()).saturating_add(PIECE_BYTES);
            let place = self.pieces.partition_point(|(begin, _)| *begin < from);
            self.pieces.insert(place, (from, bytes));
        }
    }

    fn is_complete(&self) -> bool {
        let Some(end) = self.end else {
            return false;
        };
        let mut at = 0;
        for (begin, bytes) in &self.pieces {
            if *begin != at {
                return false;
            }
            at = begin.saturating_add(bytes.len());
        }
        at == end && !self.head.is_empty()
    }

    fn join(self) -> Reassembled {
        let mut frame = self.head;
        for (_, bytes) in &self.pieces {
            frame.extend_from_slice(bytes);
        }
        state_length(&mut frame);
        Reassembled { frame, has_conflict: self.has_conflict, passage: self.passage }
    }
}

/// Writes the packet's length into its header.
fn state_length(frame: &mut [u8]) {
    let (at, packet_bytes) = match frame.get(12..ETHERNET_BYTES) {
        Some([0x08, 0x00]) => (ETHERNET_BYTES.saturating_add(2), frame.len().saturating_sub(ETHERNET_BYTES)),
        _ => {
            let fixed = ETHERNET_BYTES.saturating_add(IPV6_HEADER_BYTES);
            (ETHERNET_BYTES.saturating_add(4), frame.len().saturating_sub(fixed))
        }
    };
    let length = u16::try_from(packet_bytes).unwrap_or(u16::MAX);
    if let Some(field) = frame.get_mut(at..at.saturating_add(2)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

impl<'a> Fragment<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let (start, bytes) = frame::ip_packet(&SliceWindow::new(frame))?;
        let packet = frame.get(start as usize..)?;
        let version = packet.first()? >> 4;
        // Cheap first: nearly every frame is whole.
        match version {
            4 if u16_at(packet, 6)? & 0x3fff != 0 => Self::parse_ipv4(packet.get(..bytes as usize)?),
            6 if is_extended(*packet.get(6)?) => Self::parse_ipv6(packet.get(..bytes as usize)?),
            _ => None,
        }
    }

    fn parse_ipv4(packet: &'a [u8]) -> Option<Self> {
        let header_bytes = usize::from(packet.first()? & 0x0f) << 2;
        let field = u16_at(packet, 6)?;
        let payload = packet.get(header_bytes..)?;
        let is_last = field & 0x2000 == 0;
        if header_bytes < 20 || !is_sound(payload, is_last) {
            return None;
        }
        let mut head = vec![0; ETHERNET_BYTES];
        head.get_mut(12)?.clone_from(&0x08);
        head.extend_from_slice(packet.get(..header_bytes)?);
        head.get_mut(ETHERNET_BYTES + 6..ETHERNET_BYTES + 8)?.fill(0);
        Some(Self {
            key: Key {
                source: Address::from_v4(u32_at(packet, 12)?),
                destination: Address::from_v4(u32_at(packet, 16)?),
                identification: u32::from(u16_at(packet, 4)?),
                protocol: *packet.get(9)?,
            },
            offset: usize::from(field & 0x1fff) << 3,
            is_last,
            payload,
            head,
        })
    }

    /// RFC 8200 section 4.5: headers for routers on the way may stand before the fragment header, and stay in front of
    /// what is put together.
    fn parse_ipv6(packet: &'a [u8]) -> Option<Self> {
        let (names_next, at) = find_fragment_header(packet)?;
        let unfragmented = packet.get(..at)?;
        let header = packet.get(at..)?.first_chunk::<FRAGMENT_HEADER_BYTES>()?;
        let field = u16_at(header, 2)?;
        let payload = packet.get(at.checked_add(FRAGMENT_HEADER_BYTES)?..)?;
        let is_last = field & 1 == 0;
        // RFC 6946: a fragment header on a packet in one piece, which the gate's walk reads as it is.
        if is_last && field & 0xfff8 == 0 {
            return None;
        }
        if !is_sound(payload, is_last) {
            return None;
        }
        let protocol = *header.first()?;
        let mut head = vec![0; 12];
        head.extend([0x86, 0xdd]);
        head.extend_from_slice(unfragmented);
        *head.get_mut(ETHERNET_BYTES.checked_add(names_next)?)? = protocol;
        Some(Self {
            key: Key {
                source: Address::from_v6(u64_at(packet, 8)?, u64_at(packet, 16)?),
                destination: Address::from_v6(u64_at(packet, 24)?, u64_at(packet, 32)?),
                identification: u32_at(header, 4)?,
                protocol,
            },
            offset: usize::from(field & 0xfff8),
            is_last,
            payload,
            head,
        })
    }
}

/// Whether a fragment header follows, or may follow behind others.
const fn is_extended(next: u8) -> bool {
    matches!(next, IPV6_FRAGMENT | IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_DESTINATION)
}

/// Where the fragment header stands, and where the byte that announces it.
fn find_fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut names_next, mut at) = (6, IPV6_HEADER_BYTES);
    for _ in 0..=EXTENSION_HEADERS_MAX {
        let next = *packet.get(names_next)?;
        if next == IPV6_FRAGMENT {
            return Some((names_next, at));
        }
        if !is_extended(next) {
            return None;
        }
        let eights = usize::from(*packet.get(at.checked_add(1)?)?).checked_add(1)?;
        names_next = at;
        at = at.checked_add(eights.checked_mul(8)?)?;
    }
    None
}

/// All but the last are multiples of eight bytes, and none is empty.
const fn is_sound(payload: &[u8], is_last: bool) -> bool {
    !payload.is_empty() && (is_last || payload.len().is_multiple_of(8))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests;
