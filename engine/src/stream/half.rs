//! One direction of a connection: segments in any order in, bytes in order out.

use std::collections::VecDeque;

use crate::{
    limits::{FLOW_BYTES_MAX, GAP_PATIENCE, SEGMENTS_MAX},
    time::Timestamp,
};

/// Offsets begin here, so that segments from before the first one seen have an offset too.
const ORIGIN: u64 = 1 << 32;
/// A segment that begins further ahead than any window reaches was never accepted.
const AHEAD_MAX: u64 = 4 << 20;

/// Segments that follow each other are kept as one up to this size, so that taking a part of it off stays cheap.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// What became of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stored {
    /// Kept, or not needed.
    Kept,
    /// Kept as far as new, but it differs from an earlier copy.
    Conflict,
    /// Passed over: its checksum is wrong.
    Broken,
    /// Not kept: a bound is reached. What is missing will be a gap.
    NoRoom,
}

/// The next thing to hand on.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// Bytes in order.
    Bytes(Vec<u8>),
    /// So many bytes will not come any more.
    Missed(u64),
}

#[derive(Debug)]
pub(super) struct Half {
    begun: bool,
    /// Everything before this offset has been handed on or given up.
    delivered: u64,
    /// The other side has acknowledged everything before this offset.
    acknowledged: u64,
    /// Where the FIN stands.
    finish: Option<u64>,
    /// In order, not overlapping, none before `delivered`. Nearly always one or none.
    segments: VecDeque<Held>,
    buffered: usize,
    stuck_since: Option<Timestamp>,
    impatient: bool,
}

#[derive(Debug)]
struct Held {
    start: u64,
    bytes: Vec<u8>,
    /// Offset of the other direction that must have been handed on before.
    needs: u64,
}

impl Held {
    const fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }
}

impl Half {
    /// Of which nothing was seen yet.
    pub(super) const fn new() -> Self {
        Self {
            begun: false,
            delivered: 0,
            acknowledged: 0,
            finish: None,
            segments: VecDeque::new(),
            buffered: 0,
            stuck_since: None,
            impatient: false,
        }
    }

    /// Takes a SYN's sequence number.
    pub(super) fn begin(&mut self, sequence: u32) {
        if self.segments.is_empty() {
            self.start_at(sequence.wrapping_add(1));
        }
    }

    /// Takes the first sequence number of a connection whose SYN was missed.
    pub(super) fn begin_midway(&mut self, sequence: u32) {
        if !self.begun {
            self.start_at(sequence);
        }
    }

    /// The sequence number after the last byte the other side has acknowledged, or that was handed on if that is later.
    pub(super) const fn next_sequence(&self) -> u32 {
        let next = if self.acknowledged > self.delivered { self.acknowledged } else { self.delivered };
        // `ORIGIN` is a multiple of what a sequence number counts to.
        next as u32
    }

    fn start_at(&mut self, sequence: u32) {
        self.begun = true;
        self.delivered = ORIGIN.saturating_add(u64::from(sequence));
        self.acknowledged = self.delivered;
    }

    /// The 64-bit offset of a sequence number, near what was delivered last.
    fn unwrap(&self, sequence: u32) -> u64 {
        let low = (self.delivered & 0xffff_ffff) as u32;
        let distance = sequence.wrapping_sub(low).cast_signed();
        self.delivered.saturating_add_signed(i64::from(distance))
    }

    /// The other side has everything before this sequence number.
    pub(super) fn acknowledge(&mut self, sequence: u32) {
        self.acknowledged = self.acknowledged.max(self.unwrap(sequence));
        // Only a FIN that was accepted ends the stream: what is acknowledged beyond one shows that it was not.
        self.finish = self.finish.filter(|finish| self.acknowledged <= finish.saturating_add(1));
    }

    /// Offset up to which bytes are covered by an acknowledgement; the FIN has none.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.min(self.finish.unwrap_or(u64::MAX))
    }

    /// Offset up to which bytes must have been handed on before an answer that carries this acknowledgement.
    pub(super) fn due_by(&self, sequence: u32) -> u64 {
        self.unwrap(sequence).min(self.finish.unwrap_or(u64::MAX))
    }

    /// Offset up to which an acknowledgement says that this side's bytes are known to the other; one that no window reaches
    /// says nothing.
    pub(super) fn known_by(&self, sequence: u32) -> u64 {
        let offset = self.due_by(sequence);
        if offset > self.delivered.saturating_add(AHEAD_MAX) { 0 } else { offset }
    }

    /// Offset up to which bytes are missing that the other side's next bytes may speak of; `None` if these can be handed on.
    /// Whoever only waits in turn is not waited for.
    pub(super) fn lacks(&self, other: &Self) -> Option<u64> {
        let is_next = |held: &&Held| held.start == other.delivered && held.start < other.acknowledged();
        let next = other.segments.front().filter(is_next)?;
        let is_missing = self.segments.front().is_none_or(|held| held.start > self.delivered);
        (next.needs > self.delivered && is_missing && !other.impatient).then_some(next.needs)
    }

    /// Offset before which everything was handed on.
    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether the acknowledgement covers this side's SYN.
    pub(super) fn is_acknowledged(&self, sequence: u32) -> bool {
        self.begun && self.unwrap(sequence) == self.delivered
    }

    /// Takes the place of the FIN; one from before what was handed on is an old copy of something else.
    pub(super) fn finish_at(&mut self, sequence: u32) {
        let offset = self.unwrap(sequence);
        if offset >= self.delivered {
            self.finish = Some(offset);
        }
    }

    /// Whether everything up to the FIN was handed on.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some_and(|finish| self.delivered >= finish)
    }

    /// Whether an acknowledgement covers the FIN.
    pub(super) fn is_finished_before(&self, sequence: u32) -> bool {
        self.finish.is_some_and(|finish| self.unwrap(sequence) > finish)
    }

    /// Whether a reset with this sequence number would be believed (RFC 5961 section 3, with the window
    /// unknown).
    pub(super) fn expects(&self, sequence: u32) -> bool {
        let offset = self.unwrap(sequence);
        let slack = self.delivered.saturating_sub(1);
        !self.begun || (offset >= slack && offset <= self.delivered.saturating_add(AHEAD_MAX))
    }

    /// Whether the other side would believe a reset with this sequence number: it must stand exactly where the next byte
    /// is expected; anything else is only answered (RFC 5961 section 3.2).
    pub(super) fn expects_exactly(&self, sequence: u32) -> bool {
        let offset = self.unwrap(sequence);
        let ends = || self.segments.iter().any(|held| held.end() == offset);
        !self.begun || offset == self.acknowledged || offset == self.delivered || ends()
    }

    /// Bytes held.
    pub(super) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Keeps what is new of a segment.
    pub(super) fn store(&mut self, sequence: u32, payload: &[u8], needs: u64, room: usize) -> Stored {
        let start = self.unwrap(sequence);
        let old = self.delivered.saturating_sub(start);
        let Ok(old) = usize::try_from(old) else {
            return Stored::Kept;
        };
        let Some(payload) = payload.get(old..) else {
            return Stored::Kept;
        };
        let start = start.max(self.delivered);
        if payload.is_empty() || start.saturating_sub(self.delivered) > AHEAD_MAX {
            return Stored::Kept;
        }
        let room = room.min(FLOW_BYTES_MAX.saturating_sub(self.buffered));
        let makes_progress = start == self.delivered;
        if payload.len() > room || (self.segments.len() >= SEGMENTS_MAX && !makes_progress) {
            return Stored::NoRoom;
        }
        self.insert(start, payload, needs)
    }

    /// Fills the holes that the segment covers; the first copy of every byte stays.
    fn insert(&mut self, start: u64, payload: &[u8], needs: u64) -> Stored {
        if self.segments.back().is_none_or(|last| last.end() <= start) {
            self.append(start, payload, needs);
            return Stored::Kept;
        }
        let end = start.saturating_add(payload.len() as u64);
        let slice = |from: u64, to: u64| {
            let from = from.saturating_sub(start) as usize;
            let to = to.saturating_sub(start) as usize;
            payload.get(from..to).unwrap_or_default()
        };
        let mut holes = Vec::new();
        let mut conflict = false;
        let mut at = start;
        let first = self.segments.partition_point(|held| held.end() <= start);
        for held in self.segments.range_mut(first..).take_while(|held| held.start < end) {
            // A copy from before shows that so much was enough.
            held.needs = held.needs.min(needs);
            let (from, to) = (at.max(held.start), end.min(held.end()));
            if held.start > at {
                holes.push((at, held.start));
            }
            if from < to {
                let theirs = held.bytes.get((from - held.start) as usize..(to - held.start) as usize);
                conflict |= theirs.is_some_and(|theirs| theirs != slice(from, to));
            }
            at = at.max(held.end());
        }
        if at < end {
            holes.push((at, end));
        }
        for (from, to) in holes {
            let bytes = slice(from, to).to_vec();
            self.buffered = self.buffered.saturating_add(bytes.len());
            let place = self.segments.partition_point(|held| held.start < from);
            self.segments.insert(place, Held { start: from, bytes, needs });
            self.join(place);
        }
        if conflict { Stored::Conflict } else { Stored::Kept }
    }

    /// Makes one of what now follows without a hole: many small segments in any order take few places.
    fn join(&mut self, place: usize) {
        for first in [place, place.saturating_sub(1)] {
            let Some(second) = first.checked_add(1) else { continue };
            let (Some(one), Some(next)) = (self.segments.get(first), self.segments.get(second)) else {
                continue;
            };
            let bytes = one.bytes.len().saturating_add(next.bytes.len());
            if one.end() != next.start || one.needs != next.needs || bytes > JOINED_BYTES_MAX {
                continue;
            }
            if let Some(next) = self.segments.remove(second)
                && let Some(one) = self.segments.get_mut(first)
            {
                one.bytes.extend_from_slice(&next.bytes);
            }
        }
    }

    /// Keeps what follows everything held.
    fn append(&mut self, start: u64, payload: &[u8], needs: u64) {
        self.buffered = self.buffered.saturating_add(payload.len());
        if let Some(last) = self.segments.back_mut()
            && last.end() == start
            && last.needs == needs
            && last.bytes.len().saturating_add(payload.len()) <= JOINED_BYTES_MAX
        {
            last.bytes.extend_from_slice(payload);
            return;
        }
        self.segments.push_back(Held { start, bytes: payload.to_vec(), needs });
    }

    /// Passes over a segment that is exactly the next one, if nothing is held: it can be handed on as it is.
    pub(super) fn take_next(&mut self, sequence: u32, payload: &[u8]) -> bool {
        let is_next = self.segments.is_empty() && self.unwrap(sequence) == self.delivered;
        if is_next {
            self.delivered = self.delivered.saturating_add(payload.len() as u64);
            self.stuck_since = None;
        }
        is_next
    }

    /// The next bytes before `limit` whose question was handed on before `question`; or, when patience has run
    /// out, how many are missing.
    pub(super) fn next_due(&mut self, limit: u64, question: u64, now: Timestamp) -> Option<Due> {
        // An acknowledgement of what was handed on already: nearly every segment without payload.
        if self.segments.is_empty() && limit == self.delivered {
            self.stuck_since = None;
            return None;
        }
        let first = self.segments.front().map(|held| (held.start, held.needs));
        match first {
            Some((start, needs)) if start == self.delivered => {
                if start >= limit || (needs > question && !self.impatient) {
                    return None;
                }
                self.stuck_since = None;
                self.take_first(limit).map(Due::Bytes)
            }
            Some((start, _)) => self.give_up(start.min(limit), now),
            None if limit != u64::MAX => self.give_up(limit, now),
            None => {
                self.stuck_since = None;
                None
            }
        }
    }

    fn take_first(&mut self, limit: u64) -> Option<Vec<u8>> {
        let mut held = self.segments.pop_front()?;
        let allowed = usize::try_from(limit.saturating_sub(held.start)).unwrap_or(usize::MAX);
        if held.bytes.len() > allowed {
            let bytes = held.bytes.split_off(allowed);
            self.segments.push_front(Held { start: limit, bytes, needs: held.needs });
        }
        self.delivered = held.end();
        self.buffered = self.buffered.saturating_sub(held.bytes.len());
        Some(held.bytes)
    }

    /// Bytes before `target` are missing although later ones, or their acknowledgement, are there.
    fn give_up(&mut self, target: u64, now: Timestamp) -> Option<Due> {
        let missed = target.saturating_sub(self.delivered);
        if missed == 0 {
            self.stuck_since = None;
            return None;
        }
        let since = *self.stuck_since.get_or_insert(now);
        let crowded = self.buffered > FLOW_BYTES_MAX / 2 || self.segments.len() > SEGMENTS_MAX / 2;
        if !self.impatient && !crowded && now.since(since) < GAP_PATIENCE {
            return None;
        }
        self.stuck_since = None;
        self.delivered = target;
        Some(Due::Missed(missed))
    }

    /// From now on nothing is waited for.
    pub(super) const fn lose_patience(&mut self) {
        self.impatient = true;
    }

    /// Moves on to a sequence number without reading.
    pub(super) fn pass_over(&mut self, sequence: u32) {
        self.delivered = self.delivered.max(self.unwrap(sequence));
    }

    /// Drops what is held.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.buffered = 0;
    }
}
