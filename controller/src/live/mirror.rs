//! From records of the mirror to frames.
//!
//! A record carries an IP packet or a chunk of one. The chunks of a packet follow each other in the ring, but those of
//! packets that other CPUs handle at the same time may lie between them. Bound: [`PACKETS_MAX`] packets being put
//! together; when one more begins the oldest is given up and counted.

use std::collections::VecDeque;

use floodwall_wire::mirror::Record;

const PACKETS_MAX: usize = 64;
const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_OFFSET: usize = 12;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Puts chunks together.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    waiting: VecDeque<Unfinished>,
    frame: Vec<u8>,
    given_up: u64,
}

#[derive(Debug)]
struct Unfinished {
    record: Record,
    frame: Vec<u8>,
}

impl Assembler {
    /// Takes a record; hands a frame to `each` when it is complete. A packet of which only the start is shown is
    /// complete at once.
    pub(crate) fn take(&mut self, record: &Record, bytes: &[u8], each: impl FnOnce(&Record, &[u8])) {
        let whole = u32::from(record.chunk_bytes) >= record.packet_bytes || is_start(record);
        if record.chunk_offset == 0 && whole {
            begin(&mut self.frame, bytes);
            return each(record, &self.frame);
        }
        if record.chunk_offset == 0 {
            if self.waiting.len() >= PACKETS_MAX {
                self.waiting.pop_front();
                self.given_up += 1;
            }
            let mut frame = Vec::with_capacity(ETHERNET_BYTES + record.packet_bytes as usize);
            begin(&mut frame, bytes);
            return self.waiting.push_back(Unfinished { record: *record, frame });
        }
        let position = self.waiting.iter().position(|waiting| waiting.continues_with(record));
        let Some(unfinished) = position.and_then(|position| self.waiting.get_mut(position)) else {
            // Its beginning was lost, which the gate has counted.
            return;
        };
        unfinished.frame.extend_from_slice(bytes);
        if unfinished.frame.len() >= ETHERNET_BYTES + record.packet_bytes as usize
            && let Some(done) = position.and_then(|position| self.waiting.remove(position))
        {
            each(&done.record, &done.frame);
        }
    }

    /// Packets given up because their end did not come.
    pub(crate) const fn given_up(&self) -> u64 {
        self.given_up
    }
}

impl Unfinished {
    fn continues_with(&self, record: &Record) -> bool {
        let Record { at, packet_bytes, service, direction, .. } = self.record;
        (at, packet_bytes, service, direction)
            == (record.at, record.packet_bytes, record.service, record.direction)
            && self.frame.len() == ETHERNET_BYTES + record.chunk_offset as usize
    }
}

/// Whether the gate shows no more of the packet than this.
const fn is_start(record: &Record) -> bool {
    record.chunk_bytes as u32 == floodwall_wire::mirror::START_BYTES
}

/// A frame header of our own before the packet, so that it is walked like any other.
fn begin(frame: &mut Vec<u8>, packet: &[u8]) {
    frame.clear();
    frame.extend_from_slice(&[0; ETHERNET_BYTES]);
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let ethertype = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    if let Some(field) = frame.get_mut(ETHERTYPE_OFFSET..ETHERNET_BYTES) {
        field.copy_from_slice(&ethertype);
    }
    frame.extend_from_slice(packet);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64, packet_bytes: u32, chunk_offset: u32, chunk_bytes: u16) -> Record {
        Record { at, packet_bytes, chunk_offset, chunk_bytes, ..Record::default() }
    }

    fn take(assembler: &mut Assembler, record: &Record, byte: u8) -> Option<Vec<u8>> {
        let mut done = None;
        let bytes = vec![byte; record.chunk_bytes as usize];
        assembler.take(record, &bytes, |_, frame| done = Some(frame.to_vec()));
        done
    }

    #[test]
    fn chunks_of_two_packets_at_once_are_told_apart() {
        let mut assembler = Assembler::default();
        assert_eq!(take(&mut assembler, &record(1, 3_000, 0, 2_000), 0x45), None);
        assert_eq!(take(&mut assembler, &record(2, 3_000, 0, 2_000), 0x60), None);
        let second = take(&mut assembler, &record(2, 3_000, 2_000, 1_000), 7).unwrap();
        assert_eq!((second.len(), second[12], second[3_013]), (3_014, 0x86, 7));
        let first = take(&mut assembler, &record(1, 3_000, 2_000, 1_000), 8).unwrap();
        assert_eq!((first.len(), first[12], first[3_013]), (3_014, 0x08, 8));
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let mut assembler = Assembler::default();
        for at in 0..1_000 {
            assert_eq!(take(&mut assembler, &record(at, 3_000, 0, 2_000), 0x45), None);
        }
        assert_eq!(assembler.given_up(), 1_000 - PACKETS_MAX as u64);
        assert_eq!(take(&mut assembler, &record(5, 3_000, 2_000, 1_000), 1), None);
        assert!(take(&mut assembler, &record(5, 60, 0, 60), 0x45).is_some());
    }
}
