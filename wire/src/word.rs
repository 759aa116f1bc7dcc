//! One 64-bit word that several CPUs update.

use core::cell::UnsafeCell;

/// A 64-bit word shared between CPUs, and between the kernel and user space.
///
/// `core::sync::atomic` has no compare-and-swap on BPF targets although the instruction exists, so there the
/// compiler intrinsic is used; elsewhere this is an `AtomicU64`.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Word(UnsafeCell<u64>);

#[expect(unsafe_code, reason = "every access below is atomic")]
// SAFETY: the cell is only ever read and written with atomic operations.
unsafe impl Sync for Word {}

impl Word {
    /// A word with an initial value.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }
}

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "raw access to a map value")]
impl Word {
    /// The present value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: the pointer comes from a reference; aligned 64-bit loads are atomic on every BPF target.
        unsafe { core::ptr::read_volatile(self.0.get()) }
    }

    /// Overwrites the value.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { core::ptr::write_volatile(self.0.get(), value) }
    }

    /// Stores `new` if the value is still `current`; answers whether it did.
    #[inline(always)]
    pub fn compare_exchange(&self, current: u64, new: u64) -> bool {
        use core::intrinsics::{AtomicOrdering, atomic_cxchg};
        // SAFETY: the pointer comes from a reference and is aligned for u64.
        let (_, stored) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                current,
                new,
            )
        };
        stored
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Word {
    #[expect(unsafe_code, reason = "view of the cell as an atomic")]
    #[inline(always)]
    fn atomic(&self) -> &core::sync::atomic::AtomicU64 {
        // SAFETY: the cell is aligned for u64, lives as long as `self`, and is accessed only through here.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }
    }

    /// The present value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.atomic().load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Overwrites the value.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.atomic().store(value, core::sync::atomic::Ordering::Relaxed);
    }

    /// Stores `new` if the value is still `current`; answers whether it did.
    #[inline(always)]
    pub fn compare_exchange(&self, current: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::SeqCst;
        self.atomic().compare_exchange(current, new, SeqCst, SeqCst).is_ok()
    }
}

/// Reads a number that somebody else may be writing, once and after all such reads before it.
#[expect(unsafe_code, reason = "a volatile read of a reference")]
#[inline(always)]
pub fn load_shared(number: &u64) -> u64 {
    // SAFETY: valid, and aligned: it is a reference.
    unsafe { core::ptr::read_volatile(number) }
}

impl Clone for Word {
    fn clone(&self) -> Self {
        Self::new(self.load())
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.load() == other.load()
    }
}

impl Eq for Word {}
