//! The classic pcap format, read in large pieces: libpcap asks the kernel for four kilobytes at a time, which for
//! a capture in the page cache costs more than judging it.
//!
//! Format: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>, sections 4 and 5.

use std::io::Read;

use anyhow::{Context, Result, bail};
use floodwall_engine::Timestamp;

/// Small enough to stay in the second-level cache between being filled and being read.
const BUFFER_BYTES: usize = 512 * 1024;
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
/// Longest record that is believed, as in libpcap (`MAXIMUM_SNAPLEN`).
const RECORD_BYTES_MAX: usize = 256 * 1024;

/// Reads one capture from front to back.
pub(super) struct ClassicCapture {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet handed out.
    filled: std::ops::Range<usize>,
    order: Order,
    /// Nanoseconds per unit of the second time field.
    unit: u64,
    linktype: i32,
}

/// Byte order of every number in the file.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

/// One record.
pub(super) struct Record<'a> {
    pub(super) at: Timestamp,
    pub(super) wire_bytes: u32,
    pub(super) bytes: &'a [u8],
}

impl ClassicCapture {
    /// Whether a file that begins like this is one.
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        Self::format(magic).is_some()
    }

    fn format(magic: [u8; 4]) -> Option<(Order, u64)> {
        match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => Some((Order::Little, 1_000)),
            [0x4d, 0x3c, 0xb2, 0xa1] => Some((Order::Little, 1)),
            [0xa1, 0xb2, 0xc3, 0xd4] => Some((Order::Big, 1_000)),
            [0xa1, 0xb2, 0x3c, 0x4d] => Some((Order::Big, 1)),
            _ => None,
        }
    }

    /// Reads the file header.
    pub(super) fn open(mut input: Box<dyn Read + Send>) -> Result<Self> {
        let mut header = [0; FILE_HEADER_BYTES];
        input.read_exact(&mut header).context("truncated file header")?;
        let magic = header.first_chunk().copied().unwrap_or_default();
        let Some((order, unit)) = Self::format(magic) else { bail!("unknown file format") };
        // The upper bits hold the length of a frame check sequence, not the link type.
        let linktype = i32::try_from(order.number(&header, 20) & 0x03ff_ffff).unwrap_or(-1);
        Ok(Self { input, buffer: vec![0; BUFFER_BYTES], filled: 0..0, order, unit, linktype })
    }

    pub(super) const fn linktype(&self) -> i32 {
        self.linktype
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>> {
        if self.filled.len() < RECORD_HEADER_BYTES {
            let got = self.fill(RECORD_HEADER_BYTES)?;
            if got == 0 {
                return Ok(None);
            }
            if got < RECORD_HEADER_BYTES {
                bail!("truncated: {got} of {RECORD_HEADER_BYTES} bytes of the record header are there");
            }
        }
        let header = self.take(RECORD_HEADER_BYTES);
        let header = self.buffer.get(header).and_then(|header| header.first_chunk()).unwrap_or(&[0; 16]);
        let [seconds, fraction, captured, wire_bytes] = self.order.numbers(header);
        let captured = captured as usize;
        if captured > RECORD_BYTES_MAX {
            bail!("corrupt: a record of {captured} bytes");
        }
        if self.filled.len() < captured {
            let got = self.fill(captured)?;
            if got < captured {
                bail!("truncated: {got} of {captured} bytes of the record are there");
            }
        }
        let record = self.take(captured);
        let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit;
        let bytes = self.buffer.get(record).unwrap_or_default();
        Ok(Some(Record { at: Timestamp::from_nanos(nanos), wire_bytes, bytes }))
    }

    const fn take(&mut self, bytes: usize) -> std::ops::Range<usize> {
        let start = self.filled.start;
        self.filled.start += bytes;
        start..self.filled.start
    }

    /// Makes at least `wanted` bytes available, fewer only at the end of the file; answers how many there are.
    fn fill(&mut self, wanted: usize) -> Result<usize> {
        while self.filled.len() < wanted {
            if self.filled.start > 0 {
                self.buffer.copy_within(self.filled.clone(), 0);
                self.filled = 0..self.filled.len();
            }
            let room = self.buffer.get_mut(self.filled.end..).unwrap_or_default();
            let got = self.input.read(room).context("cannot read on")?;
            if got == 0 {
                break;
            }
            self.filled.end += got;
        }
        Ok(self.filled.len())
    }
}

impl Order {
    /// The four numbers of a record header.
    fn numbers(self, header: &[u8; RECORD_HEADER_BYTES]) -> [u32; 4] {
        [0, 4, 8, 12].map(|offset| self.number(header, offset))
    }

    /// The 32-bit number at `offset`; the callers stay inside what they have read.
    fn number(self, bytes: &[u8], offset: usize) -> u32 {
        let four = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        match self {
            Self::Big => u32::from_be_bytes(four),
            Self::Little => u32::from_le_bytes(four),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn capture(order: Order, magic: u32, records: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let number = |value: u32| match order {
            Order::Big => value.to_be_bytes(),
            Order::Little => value.to_le_bytes(),
        };
        let mut file = Vec::new();
        for value in [magic, 0, 0, 0, 65_535, 1] {
            file.extend_from_slice(&number(value));
        }
        for (seconds, fraction, bytes) in records {
            for value in [*seconds, *fraction, bytes.len() as u32, 1_500] {
                file.extend_from_slice(&number(value));
            }
            file.extend_from_slice(bytes);
        }
        file
    }

    fn open(bytes: &[u8]) -> Result<ClassicCapture> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.rewind()?;
        ClassicCapture::open(Box::new(file))
    }

    #[test]
    fn both_byte_orders_and_both_precisions_are_read() {
        for order in [Order::Big, Order::Little] {
            for (magic, fraction) in [(0xa1b2_c3d4, 7), (0xa1b2_3c4d, 7_000)] {
                let mut capture = open(&capture(order, magic, &[(5, fraction, b"abc")])).unwrap();
                assert_eq!(capture.linktype(), 1);
                let record = capture.next().unwrap().unwrap();
                assert_eq!(record.at, Timestamp::from_nanos(5_000_007_000));
                assert_eq!((record.bytes, record.wire_bytes), (&b"abc"[..], 1_500));
                assert!(capture.next().unwrap().is_none());
            }
        }
    }

    #[test]
    fn records_across_the_buffer_are_whole() {
        let frames: Vec<Vec<u8>> = (0..400u32).map(|n| vec![n as u8; 7_000 + 13 * n as usize]).collect();
        let records: Vec<(u32, u32, &[u8])> = frames.iter().map(|frame| (1, 0, frame.as_slice())).collect();
        let mut capture = open(&capture(Order::Little, 0xa1b2_c3d4, &records)).unwrap();
        for frame in &frames {
            assert_eq!(capture.next().unwrap().unwrap().bytes, frame.as_slice());
        }
        assert!(capture.next().unwrap().is_none());
    }

    #[test]
    fn a_cut_anywhere_is_named_and_nothing_before_it_is_lost() {
        let whole = capture(Order::Little, 0xa1b2_c3d4, &[(1, 0, b"first"), (2, 0, b"second")]);
        for length in 0..whole.len() {
            let Ok(mut capture) = open(&whole[..length]) else {
                assert!(length < FILE_HEADER_BYTES);
                continue;
            };
            let mut records = 0;
            let ended = loop {
                match capture.next() {
                    Ok(Some(_)) => records += 1,
                    Ok(None) => break true,
                    Err(error) => {
                        assert!(error.to_string().contains("truncated"), "{error}");
                        break false;
                    }
                }
            };
            assert_eq!(ended, length == 24 || length == 45, "{length}");
            assert_eq!(records, usize::from(length >= 45), "{length}");
        }
    }

    #[test]
    fn an_absurd_record_length_is_corruption_not_memory() {
        let mut file = capture(Order::Little, 0xa1b2_c3d4, &[]);
        file.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
        let error = open(&file).unwrap().next().err().expect("an error");
        assert!(error.to_string().contains("corrupt"), "{error}");
    }
}
