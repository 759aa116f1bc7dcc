//! The gate's clock: jiffies times the length of a tick, or, in tests, a number in a map.
//!
//! Reading jiffies costs nothing measurable; `ktime_get_ns` costs 30 ns. The price is resolution: one tick,
//! 1 to 10 ms, which every limit's burst exceeds.

use aya_ebpf::{
    Global,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
};
use floodwall_wire::tables::{ClockReading, Status};

use crate::maps;

/// 1 in an object loaded for tests, which then also records its judgements. The loader sets it before the map
/// behind `.rodata` is frozen, so that in production the verifier removes every branch that asks.
#[unsafe(no_mangle)]
static TEST_CLOCK_ENABLED: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn is_test() -> bool {
    TEST_CLOCK_ENABLED.load() != 0
}

/// Gate clock, ns.
#[inline(always)]
pub(crate) fn now(status: &Status) -> u64 {
    if is_test() {
        return maps::test_clock();
    }
    jiffies().wrapping_mul(status.tick)
}

/// Both clocks at one instant.
#[inline(always)]
pub(crate) fn reading() -> ClockReading {
    // SAFETY: the helper has no arguments and no preconditions.
    let nanoseconds = unsafe { bpf_ktime_get_ns() };
    ClockReading { ticks: jiffies(), nanoseconds }
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper has no arguments and no preconditions.
    unsafe { bpf_jiffies64() }
}
