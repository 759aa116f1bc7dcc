//! Arrays of the kernel's in the memory of this process, and when a program has stopped reading them.

#![expect(unsafe_code, reason = "shared memory with the kernel")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    slice,
};

/// Returns when every program that runs now has ended.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Kernels without the call, or with processors kept free of ticks. No program runs for a second.
        Some(libc::ENOSYS | libc::EINVAL) => {
            std::thread::sleep(std::time::Duration::from_secs(1));
            Ok(())
        }
        _ => Err(error),
    }
}

/// An array of the kernel's in memory of this process.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the memory is shared with the kernel anyway; it is words, accessed atomically.
unsafe impl<T: Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    pub(crate) fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let (bytes, protection) = (length * size_of::<T>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping of a descriptor we hold; the kernel refuses one longer than the array.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, length })
    }

    pub(crate) const fn all(&self) -> &[T] {
        // SAFETY: mapped in `new` with this length for as long as the value lives; a page is aligned for a cache line,
        // and any bytes are words.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nobody holds a reference into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
