//! The gate's clock in user space: jiffies times the length of a tick.

use std::{io, os::fd::BorrowedFd, thread, time::Duration};

use anyhow::{Context, Result, bail};
use floodwall_wire::tables::{ClockReading, names};

use crate::{
    bpf,
    object::{self, Object},
};

/// Ticks per second that kernels are built with.
const TICK_RATES: [u64; 4] = [100, 250, 300, 1000];
/// How long two readings are apart.
const BASELINE: Duration = Duration::from_millis(60);

/// How long a tick is; reads the clock through the object's clock program.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds per tick.
    tick: u64,
}

impl Clock {
    /// Learns the length of a tick from two readings.
    ///
    /// # Errors
    /// When the clock program cannot be run, or ticks come at no rate a kernel is built with.
    pub fn calibrate(object: &Object) -> Result<Self> {
        let first = read(object)?;
        thread::sleep(BASELINE);
        let second = read(object)?;
        let elapsed = second.nanoseconds.saturating_sub(first.nanoseconds).max(1);
        let ticks = second.ticks.saturating_sub(first.ticks);
        let measured = ticks * 1_000_000_000 / elapsed;
        let Some(rate) = TICK_RATES.into_iter().min_by_key(|rate| rate.abs_diff(measured)) else {
            bail!("no tick rate");
        };
        // One tick more or less in the baseline is 17 Hz, less than what lies between the rates below 1000.
        if rate.abs_diff(measured) > 25.max(rate / 10) {
            bail!("the kernel ticks at {measured} Hz, which is no known rate");
        }
        Ok(Self { tick: 1_000_000_000 / rate })
    }

    /// Nanoseconds per tick.
    pub const fn tick(self) -> u64 {
        self.tick
    }

    /// Gate clock, ns.
    ///
    /// # Errors
    /// When the clock program cannot be run.
    pub fn now(self, object: &Object) -> Result<u64> {
        Ok(read(object)?.ticks.wrapping_mul(self.tick))
    }
}

/// Both clocks of the kernel at one instant.
///
/// # Errors
/// When the clock program cannot be run.
pub fn read(object: &Object) -> Result<ClockReading> {
    let program = object.program(object::CLOCK)?;
    run(program).context("failed to run the clock program")?;
    let reading = bpf::lookup(object.map(names::CLOCK)?, &0_u32).context("failed to read the clock")?;
    reading.context("the clock has no reading")
}

fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    bpf::run(program, &[0; 64], 1).map(|_| ())
}
