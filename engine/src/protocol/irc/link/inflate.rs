//! zlib streams of server links (RFC 1950), in pieces of fixed size.
//!
//! ngIRCd and TS4 servers compress everything after the SERVER line when both sides offered it. Text of servers
//! shrinks to a tenth at best; whoever claims that a few bytes stand for megabytes is not read further.

use flate2::{Decompress, FlushDecompress, Status};

/// Bytes handed out at once.
const PIECE_BYTES: usize = 4 * 1024;
/// What one byte may become over the life of a stream, beyond [`ALLOWANCE_BYTES`].
const GROWTH_MAX: u64 = 128;
/// What a stream may become whatever it was.
const ALLOWANCE_BYTES: u64 = 256 * 1024;
/// What one stream holds: window, tables and output. Measured for the implementation in use.
pub(super) const HELD_BYTES: usize = 56 * 1024;

/// One direction's stream.
pub(super) struct Inflate {
    stream: Decompress,
    piece: Box<[u8; PIECE_BYTES]>,
}

/// The stream is not zlib, or grows beyond measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Broken;

impl Inflate {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(true), piece: Box::new([0; PIECE_BYTES]) }
    }

    /// Hands `take` what `bytes` stand for.
    pub(super) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Broken> {
        let mut rest = bytes;
        loop {
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(rest, &mut *self.piece, FlushDecompress::Sync)
                .map_err(|_malformed| Broken)?;
            let consumed = usize::try_from(self.stream.total_in().saturating_sub(read)).unwrap_or(usize::MAX);
            let produced =
                usize::try_from(self.stream.total_out().saturating_sub(written)).unwrap_or(usize::MAX);
            take(self.piece.get(..produced).unwrap_or_default());
            rest = rest.get(consumed..).unwrap_or_default();
            let fair = self.stream.total_in().saturating_mul(GROWTH_MAX).saturating_add(ALLOWANCE_BYTES);
            if self.stream.total_out() > fair {
                return Err(Broken);
            }
            if status == Status::StreamEnd || (consumed == 0 && produced == 0) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn any_cut_gives_the_same_text() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let bytes = compressed(&text);
        for size in [1, 7, 1000, bytes.len()] {
            let (mut inflate, mut out) = (Inflate::new(), Vec::new());
            for piece in bytes.chunks(size) {
                inflate.feed(piece, |text| out.extend_from_slice(text)).unwrap();
            }
            assert_eq!(out, text, "pieces of {size}");
        }
    }

    #[test]
    fn a_bomb_is_put_down() {
        let bomb = compressed(&vec![b'a'; 64 * 1024 * 1024]);
        let mut out = 0u64;
        let outcome = Inflate::new().feed(&bomb, |text| out += text.len() as u64);
        assert_eq!(outcome, Err(Broken));
        assert!(out <= bomb.len() as u64 * GROWTH_MAX + ALLOWANCE_BYTES + PIECE_BYTES as u64, "{out}");
    }

    #[test]
    fn what_is_not_zlib_is_broken() {
        assert_eq!(Inflate::new().feed(b"PING :alpha.test\r\n", |_| {}), Err(Broken));
    }
}
