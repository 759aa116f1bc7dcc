//! The gate's clock, the engine's and UTC.
//!
//! The gate counts ticks since boot. The engine's time is the gate's plus an offset fixed at the start, so that nothing
//! jumps when the system's clock is set; UTC, for people and the ledger, is the gate's plus an offset that is measured
//! anew every second.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use floodwall_engine::{Span, Timestamp};

use crate::clock::instant;

/// All three clocks.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// A reading of the gate's clock and when it was taken.
    reading: Mutex<(u64, Instant)>,
    /// Engine's minus gate's, ns.
    offset: u64,
    /// UTC minus gate's, ns.
    utc_offset: AtomicU64,
    boot_id: String,
}

/// A difference beyond this between two measurements is a clock that was set.
const STEP: Span = Span::from_secs(2);

impl WallClock {
    /// From readings of the gate's clock and the system's, both just taken.
    pub(crate) fn new(gate: u64, utc: Timestamp, boot_id: String) -> Self {
        let offset = utc.as_nanos().saturating_sub(gate);
        Self { reading: Mutex::new((gate, instant())), offset, utc_offset: AtomicU64::new(offset), boot_id }
    }

    /// Takes new readings. Answers whether the system's clock was set meanwhile.
    pub(crate) fn update(&self, gate: u64, utc: Timestamp) -> bool {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = (gate, instant());
        let offset = utc.as_nanos().saturating_sub(gate);
        let before = self.utc_offset.swap(offset, Ordering::Relaxed);
        offset.abs_diff(before) > STEP.as_nanos()
    }

    /// Gate clock, ns.
    pub(crate) fn gate_now(&self) -> u64 {
        let (gate, at) = *self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        gate.saturating_add(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The engine's time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at_gate(self.gate_now())
    }

    /// The engine's time at an instant of the gate's clock; 0 and `u64::MAX` are never and for ever.
    pub(crate) const fn at_gate(&self, gate: u64) -> Timestamp {
        if gate == u64::MAX {
            Timestamp::NEVER
        } else {
            Timestamp::from_nanos(gate.saturating_add(self.offset))
        }
    }

    /// The instant of the gate's clock at the engine's time.
    pub(crate) const fn to_gate(&self, at: Timestamp) -> u64 {
        if at.as_nanos() == u64::MAX { u64::MAX } else { at.as_nanos().saturating_sub(self.offset) }
    }

    /// UTC at the engine's time, as the system's clock has it now.
    pub(crate) fn to_utc(&self, at: Timestamp) -> Timestamp {
        if at == Timestamp::NEVER {
            return at;
        }
        let utc_offset = self.utc_offset.load(Ordering::Relaxed);
        Timestamp::from_nanos(at.as_nanos().saturating_sub(self.offset).saturating_add(utc_offset))
    }

    /// The engine's time at a UTC instant, as the system's clock has it now.
    pub(crate) fn at_utc(&self, utc: Timestamp) -> Timestamp {
        if utc == Timestamp::NEVER {
            return utc;
        }
        let utc_offset = self.utc_offset.load(Ordering::Relaxed);
        Timestamp::from_nanos(utc.as_nanos().saturating_sub(utc_offset).saturating_add(self.offset))
    }

    /// Of this boot.
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_time_goes_on_whatever_happens_to_the_systems_clock() {
        let utc = Timestamp::from_secs(1_000);
        let clock = WallClock::new(5_000_000_000, utc, "boot".into());
        let at = clock.at_gate(6_000_000_000);
        assert_eq!(at, Timestamp::from_secs(1_001));
        assert_eq!(clock.to_gate(at), 6_000_000_000);
        assert_eq!(clock.at_utc(clock.to_utc(at)), at);
        assert!(!clock.update(6_000_000_000, Timestamp::from_secs(1_001)));
        // Set back by a minute.
        assert!(clock.update(7_000_000_000, Timestamp::from_secs(942)));
        assert_eq!(clock.at_gate(6_000_000_000), at);
        assert_eq!(at.since(clock.to_utc(at)).as_secs(), 60);
        assert_eq!(clock.at_utc(clock.to_utc(at)), at);
        assert_eq!(clock.to_gate(Timestamp::NEVER), u64::MAX);
        assert_eq!(clock.to_utc(Timestamp::NEVER), Timestamp::NEVER);
    }
}
