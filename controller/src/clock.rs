//! The only reader of clocks.

#![expect(clippy::disallowed_methods, reason = "this is the place where clocks are read")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use floodwall_engine::Timestamp;

/// UTC by the system's clock, which may be set at any time.
pub(crate) fn utc_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// An instant of the monotonic clock.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// CPU time the calling thread has used, ns; 0 where the kernel does not count it.
pub(crate) fn thread_cpu_nanos() -> u64 {
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    used.map_or(0, |used| u64::try_from(Duration::from(used).as_nanos()).unwrap_or(u64::MAX))
}

/// Number of this boot: what a deadline by the gate's clock is good for.
pub(crate) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}
