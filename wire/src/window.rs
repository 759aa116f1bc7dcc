//! Checked reads of one frame.

use crate::{
    State,
    gate::{self, Arrival, Contents, Settlement},
    shape::{self, Payload, Rest, Shape},
    tables::Role,
};

/// Offsets at or above this many bytes read as missing, in every home.
///
/// The verifier wants a constant bound on a variable offset; a power of two lets it be one `and`. Nothing the
/// gate must read lies deeper: the longest datagram it walks is 1,350 bytes.
pub const WINDOW_BYTES: u32 = 16 * 1024;

/// Read access to one frame, starting at its Ethernet header.
///
/// All reads are of network byte order and answer `None` beyond the frame (or beyond [`WINDOW_BYTES`]), never
/// panic and never read outside it.
pub trait Window {
    /// The 16 bits at `offset`.
    fn read_u16(&self, offset: u32) -> Option<u16>;

    /// The 32 bits at `offset`.
    fn read_u32(&self, offset: u32) -> Option<u32>;

    /// The 64 bits at `offset`.
    fn read_u64(&self, offset: u32) -> Option<u64>;

    /// `WORDS` times 32 bits from `offset` on: a whole header for one check of where the frame ends.
    fn read_words<const WORDS: usize>(&self, offset: u32) -> Option<[u32; WORDS]>;

    /// The number itself. The kernel's home hides where it comes from: the verifier walks separately whatever it can
    /// tell apart, so that three lengths of a link header times two of an IP header would make six gates.
    #[inline(always)]
    fn blur(&self, number: u32) -> u32 {
        number
    }

    /// The number itself. The kernel's home hides from the compiler what it is made of, so that it is kept and not its
    /// parts.
    #[inline(always)]
    fn opaque(&self, number: u64) -> u64 {
        number
    }

    /// Checks a datagram against its protocol's grammar. The kernel's home may make a function of this, which the verifier
    /// walks once and not once per way that leads to it.
    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape
    where
        Self: Sized,
    {
        shape::check_datagram(self, role, payload)
    }

    /// Checks what of that is a loop or rare. As for [`check_datagram`](Self::check_datagram), the kernel's home makes a
    /// function of this.
    #[inline(always)]
    fn check_rest(&self, rest: Rest) -> Shape
    where
        Self: Sized,
    {
        rest.check(self)
    }

    /// Checks what a guarded packet's own bytes tell. As for [`check_datagram`](Self::check_datagram), the kernel's home
    /// may make a function of this: otherwise the verifier would walk every way through it with every way through the
    /// tables.
    #[inline(always)]
    fn read_contents<S: State>(&self, state: &S, arrival: &Arrival) -> Contents
    where
        Self: Sized,
    {
        gate::read_contents(self, state, arrival)
    }

    /// Settles what becomes of a guarded packet from somebody who is not simply known, allowed or banned. As for
    /// [`check_rest`](Self::check_rest), the kernel's home makes a function of this.
    #[inline(always)]
    fn settle<S: State>(&self, state: &S, arrival: &Arrival) -> Settlement
    where
        Self: Sized,
    {
        gate::settle(self, state, arrival)
    }

    /// The byte at `offset`, which must not be the first of the frame.
    ///
    /// It is read as the low half of the 16 bits before it: LLVM rewrites one-byte loads at a variable offset
    /// into a form the verifier refuses, and two-byte loads it leaves alone. The Ethernet header in front of
    /// everything of interest guarantees that there is a byte before.
    #[inline(always)]
    fn read_u8(&self, offset: u32) -> Option<u8> {
        if offset == 0 {
            return None;
        }
        self.read_u16(offset - 1).map(|pair| (pair & 0xff) as u8)
    }
}

/// A frame in ordinary memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceWindow<'a> {
    frame: &'a [u8],
}

impl<'a> SliceWindow<'a> {
    /// Wraps the bytes of one frame.
    pub const fn new(frame: &'a [u8]) -> Self {
        Self { frame }
    }

    #[inline(always)]
    fn array<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if offset >= WINDOW_BYTES {
            return None;
        }
        self.frame.get(offset as usize..)?.first_chunk::<N>().copied()
    }
}

impl Window for SliceWindow<'_> {
    #[inline(always)]
    fn read_u16(&self, offset: u32) -> Option<u16> {
        self.array(offset).map(u16::from_be_bytes)
    }

    #[inline(always)]
    fn read_u32(&self, offset: u32) -> Option<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    #[inline(always)]
    fn read_u64(&self, offset: u32) -> Option<u64> {
        self.array(offset).map(u64::from_be_bytes)
    }

    #[inline(always)]
    fn read_words<const WORDS: usize>(&self, offset: u32) -> Option<[u32; WORDS]> {
        if offset >= WINDOW_BYTES {
            return None;
        }
        let bytes = self.frame.get(offset as usize..)?.get(..4 * WORDS)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_big_endian_and_end_with_the_frame() {
        let window = SliceWindow::new(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(window.read_u8(0), None);
        assert_eq!(window.read_u8(1), Some(1));
        assert_eq!(window.read_u8(8), Some(8));
        assert_eq!(window.read_u8(9), None);
        assert_eq!(window.read_u16(7), Some(0x0708));
        assert_eq!(window.read_u16(8), None);
        assert_eq!(window.read_u32(5), Some(0x0506_0708));
        assert_eq!(window.read_u64(1), Some(0x0102_0304_0506_0708));
        assert_eq!(window.read_u64(2), None);
        assert_eq!(window.read_words::<2>(1), Some([0x0102_0304, 0x0506_0708]));
        assert_eq!(window.read_words::<2>(2), None);
    }

    #[test]
    fn offsets_beyond_the_window_read_as_missing() {
        let frame = vec![7; WINDOW_BYTES as usize + 64];
        let window = SliceWindow::new(&frame);
        assert_eq!(window.read_u16(WINDOW_BYTES - 1), Some(0x0707));
        assert_eq!(window.read_u16(WINDOW_BYTES), None);
        assert_eq!(window.read_u32(u32::MAX), None);
    }
}
