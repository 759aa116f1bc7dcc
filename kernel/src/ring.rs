//! The reader's end of the mirror.
//!
//! The kernel documents the layout of a BPF ring buffer (`Documentation/bpf/ringbuf.rst`): a page with the consumer's
//! position, a page with the producer's, then the data, mapped twice so that no record wraps.

#![expect(unsafe_code, reason = "shared memory with the kernel")]

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use floodwall_wire::{mirror::Record, tables::MIRROR_BYTES};

const PAGE: usize = 4096;
const HEADER_BYTES: u64 = 8;
/// The record is still being written.
const BUSY: u32 = 1 << 31;
/// The record was given up.
const DISCARDED: u32 = 1 << 30;

/// The mirror, to be read by one reader at a time. The position is the kernel's: a later reader goes on where this one
/// stopped.
#[derive(Debug)]
pub struct Ring {
    descriptor: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is memory that belongs to its owner; positions are accessed atomically.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, bytes: usize, protection: i32, offset: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping of a descriptor we hold.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), offset)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nobody holds a reference into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl Ring {
    /// Maps the ring.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        let data = 2 * MIRROR_BYTES as usize;
        Ok(Self {
            descriptor: map.try_clone_to_owned()?,
            consumer: Mapping::new(map, PAGE, libc::PROT_READ | libc::PROT_WRITE, 0)?,
            producer: Mapping::new(map, PAGE + data, libc::PROT_READ, PAGE)?,
        })
    }

    /// Bytes written and not yet read.
    pub fn waiting_bytes(&self) -> u64 {
        self.produced().load(Ordering::Acquire).saturating_sub(self.consumed().load(Ordering::Relaxed))
    }

    /// Hands up to `records_max` records to `each`, in the order in which they were written; answers how many.
    /// Fewer than asked for means that the ring was empty after the last one was given back: only then does the kernel
    /// wake a reader for the next.
    pub fn drain(&mut self, records_max: usize, mut each: impl FnMut(&Record, &[u8])) -> usize {
        let mut at = self.consumed().load(Ordering::Relaxed);
        let mut records = 0;
        // The end is looked up anew after every record: what was written meanwhile wakes nobody.
        while records < records_max && at < self.produced().load(Ordering::SeqCst) {
            let offset = PAGE + (at & (u64::from(MIRROR_BYTES) - 1)) as usize;
            // SAFETY: positions below the producer's lie in the mapped data, which is mapped twice; the header is
            // aligned to 8 bytes.
            let start = unsafe { self.producer.start.as_ptr().add(offset) };
            // SAFETY: as above; the kernel publishes the header last.
            let header = unsafe { &*start.cast::<AtomicU32>() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = header & !DISCARDED;
            if header & DISCARDED == 0 && length as usize >= size_of::<Record>() {
                // SAFETY: the record is complete, and the kernel does not write there before it is consumed.
                let body =
                    unsafe { std::slice::from_raw_parts(start.add(HEADER_BYTES as usize), length as usize) };
                let (head, bytes) = body.split_at(size_of::<Record>());
                // SAFETY: as many bytes as a record has, and any bytes are one.
                let record = unsafe { head.as_ptr().cast::<Record>().read_unaligned() };
                each(&record, bytes);
                records += 1;
            }
            at += (u64::from(length) + HEADER_BYTES).next_multiple_of(8);
            self.consumed().store(at, Ordering::SeqCst);
        }
        records
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of the consumer's page, aligned, for as long as the mapping lives.
        unsafe { &*self.consumer.start.as_ptr().cast() }
    }

    fn produced(&self) -> &AtomicU64 {
        // SAFETY: the first word of the producer's page, aligned, for as long as the mapping lives; the kernel writes
        // it, we only load.
        unsafe { &*self.producer.start.as_ptr().cast() }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.descriptor.as_raw_fd()
    }
}
