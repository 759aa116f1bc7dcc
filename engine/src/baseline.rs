//! The baseline: how many strangers usually come, by service, class of traffic and hour of the week, and when there are so
//! many more that it is an attack.
//!
//! What is counted are *different* strangers within [`INTERVAL`]: addresses the gate knows nothing of and that have not been
//! logged in lately. A single flooder is one, whatever it sends (its own limits are for it), and so is everybody who tries
//! again and again after a restart. IPv6 addresses count by /48: more cost nothing.
//!
//! How an hour teaches, and why an attacker cannot:
//!
//! - only an hour that was seen nearly whole teaches, by the count that nine in ten of its intervals keep under, so
//!   that short bursts teach nothing;
//! - alarmed intervals teach nothing, and an hour with many of them nothing at all;
//! - what is believed is the median of the last five weeks, and nothing before the third: an hour needs three weeks that
//!   agree;
//! - once believed it grows by a sixteenth a week at most (or one stranger), and falls freely. Who ramps up faster than that
//!   is found out; who does not takes a year to be tolerated tenfold;
//! - however long somebody teaches, the alarm never lies above [`STRANGERS_MOST`], which is where it lies before anything
//!   was learnt. Learning makes the wall more alert than on its first day, never less.
//!
//! Time and UTC are inputs. Bound: one bitmap, one hour of counts and 168 slots per service and class.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher},
};

use floodwall_wire::Address;
use foldhash::quality::FixedState;

use crate::{
    command::Front,
    rule::Level,
    time::{Span, Timestamp},
};

/// Strangers are counted anew so often.
pub const INTERVAL: Span = Span::from_secs(10);
/// Fewer different strangers than this within [`INTERVAL`] are no alarm, however quiet the hour usually is.
pub const STRANGERS_LEAST: u16 = 30;
/// So many are, whatever was learnt: the alarm of a service that has not learnt yet.
pub const STRANGERS_MOST: u16 = 300;
/// So many times as many as usual are an alarm.
const ALARM_FACTOR: u16 = 4;
/// So many times the alarm is an attack.
const ATTACK_FACTOR: u16 = 2;
/// Intervals in a row above the alarm that raise it; a single one may be chance.
const INTERVALS_TO_RAISE: u8 = 2;
/// How long it must be quiet before an alarm calms down one step.
pub const CALM: Span = Span::from_secs(300);
/// Hours of a week.
pub const HOURS: u8 = 168;
/// Intervals of an hour.
const INTERVALS: usize = 360;
/// Intervals seen, at least, of an hour that teaches.
const INTERVALS_SEEN_MIN: usize = 270;
/// Alarmed intervals, at most, of an hour that teaches.
const INTERVALS_ALARMED_MAX: usize = 36;
/// Weeks remembered of an hour.
const WEEKS: usize = 5;
/// Weeks before anything is believed.
const WEEKS_TO_TRUST: usize = 3;
/// A slot that has learnt nothing for so many weeks is forgotten.
const WEEKS_STALE: u32 = 8;
/// Once believed, what is usual grows by one part of so many a week.
const GROWTH_PARTS: u16 = 16;
/// Bits of the bitmap in which different strangers are counted.
const BITS: u64 = 16_384;

const HOUR_NANOS: u64 = 3_600_000_000_000;
/// 1970 began on a Thursday; hours of the week count from Monday, 00:00 UTC.
const THURSDAY_HOURS: u64 = 72;

/// An hour since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Hour(u64);

impl Hour {
    const fn of(utc: Timestamp) -> Self {
        Self(utc.as_nanos() / HOUR_NANOS)
    }

    /// Of the week, from Monday 00:00 UTC.
    fn of_week(self) -> u8 {
        u8::try_from(self.0.saturating_add(THURSDAY_HOURS) % u64::from(HOURS)).unwrap_or(0)
    }

    /// Weeks since the one that holds the beginning of 1970.
    fn week(self) -> u32 {
        u32::try_from(self.0.saturating_add(THURSDAY_HOURS) / u64::from(HOURS)).unwrap_or(u32::MAX)
    }
}

/// What one hour of the week has taught, for one service and class of traffic: what is kept across restarts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slot {
    /// Strangers per interval that nine in ten intervals kept under, oldest week first; at most five.
    pub weeks: Vec<u16>,
    /// What is believed of them.
    pub usual: u16,
    /// The week that taught last, counted from the beginning of 1970.
    pub week: u32,
}

impl Slot {
    /// Whether it has been taught often enough to be believed.
    pub const fn is_trusted(&self) -> bool {
        self.weeks.len() >= WEEKS_TO_TRUST
    }

    fn learn(&mut self, strangers: u16, week: u32) {
        if week == self.week && !self.weeks.is_empty() {
            return;
        }
        if week < self.week || week.saturating_sub(self.week) > WEEKS_STALE {
            *self = Self::default();
        }
        let was_trusted = self.is_trusted();
        if self.weeks.len() >= WEEKS {
            self.weeks.remove(0);
        }
        self.weeks.push(strangers);
        self.week = week;
        let mut sorted = self.weeks.clone();
        sorted.sort_unstable();
        let middle = sorted.len().saturating_sub(1) / 2;
        let median = sorted.get(middle).copied().unwrap_or(strangers);
        let most = self.usual.saturating_add((self.usual / GROWTH_PARTS).max(1));
        self.usual = if was_trusted { median.min(most) } else { median };
    }
}

/// A slot with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Learnt {
    /// Index of the service.
    pub service: u8,
    /// Class of traffic.
    pub front: Front,
    /// Hour of the week, from Monday 00:00 UTC.
    pub hour: u8,
    /// What it has taught.
    pub slot: Slot,
}

/// What an operator wants to see of one service and class of traffic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gauge {
    /// Different strangers in the last whole interval.
    pub strangers: u16,
    /// How many are usual at this hour, if that has been learnt.
    pub usual: Option<u16>,
    /// From how many on the level is raised.
    pub alarmed_from: u16,
    /// Hours of the week that have been learnt.
    pub hours_learnt: u8,
}

/// That there are too many strangers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pressure {
    /// Index of the service.
    pub service: u8,
    /// Class of traffic.
    pub front: Front,
    /// To which level it raises.
    pub raises: Level,
    /// Which level it keeps from calming down: half as many strangers are enough for that.
    pub sustains: Level,
    /// How many came.
    pub strangers: u16,
    /// How many are usual.
    pub usual: Option<u16>,
    /// How many would have been too many.
    pub alarmed_from: u16,
}

/// Counts strangers and learns how many are usual.
#[derive(Debug)]
pub struct Baseline {
    counts: BTreeMap<(u8, Front), Count>,
    hasher: FixedState,
    /// Where the running interval ends, by the engine's clock.
    ends: Timestamp,
    /// The two clocks at one instant.
    engine_at: Timestamp,
    utc_at: Timestamp,
    learnt: Vec<Learnt>,
}

/// One service and class of traffic.
#[derive(Debug)]
struct Count {
    strangers: Bitmap,
    last: u16,
    in_a_row: u8,
    hour: Hour,
    /// Quiet intervals of that hour, and how many were not.
    quiet: Vec<u16>,
    alarmed: usize,
    slots: Vec<Slot>,
}

/// Different values, roughly: two that share a bit count once, so that fewer are seen than there are, never more.
#[derive(Debug)]
struct Bitmap {
    words: Vec<u64>,
    set: u16,
}

impl Bitmap {
    fn new() -> Self {
        Self { words: vec![0; usize::try_from(BITS / 64).unwrap_or(0)], set: 0 }
    }

    fn add(&mut self, hash: u64) {
        let bit = hash % BITS;
        let mask = 1u64.checked_shl(u32::try_from(bit % 64).unwrap_or(0)).unwrap_or(0);
        let index = usize::try_from(bit / 64).unwrap_or(0);
        if let Some(word) = self.words.get_mut(index)
            && *word & mask == 0
        {
            *word |= mask;
            self.set = self.set.saturating_add(1);
        }
    }

    fn take(&mut self) -> u16 {
        if self.set > 0 {
            self.words.fill(0);
        }
        std::mem::take(&mut self.set)
    }
}

impl Count {
    fn new() -> Self {
        Self {
            strangers: Bitmap::new(),
            last: 0,
            in_a_row: 0,
            hour: Hour::default(),
            quiet: Vec::new(),
            alarmed: 0,
            slots: vec![Slot::default(); usize::from(HOURS)],
        }
    }

    /// What is usual at an hour: the most of it and its neighbours, so that an evening may begin a little earlier.
    fn usual(&self, hour: u8) -> Option<u16> {
        let slot = |hour: u16| self.slots.get(usize::from(hour % u16::from(HOURS)));
        let hour = u16::from(hour);
        slot(hour).filter(|slot| slot.is_trusted())?;
        let around = [hour.saturating_add(u16::from(HOURS)).saturating_sub(1), hour, hour.saturating_add(1)];
        let trusted = around.into_iter().filter_map(slot).filter(|slot| slot.is_trusted());
        trusted.map(|slot| slot.usual).max()
    }

    fn alarmed_from(&self, hour: u8) -> u16 {
        self.usual(hour).map_or(STRANGERS_MOST, |usual| {
            usual.saturating_mul(ALARM_FACTOR).clamp(STRANGERS_LEAST, STRANGERS_MOST)
        })
    }

    /// The hour is over: what it taught, if anything.
    fn learn(&mut self) -> Option<(u8, Slot)> {
        let mut quiet = std::mem::take(&mut self.quiet);
        let alarmed = std::mem::take(&mut self.alarmed);
        let seen = quiet.len().saturating_add(alarmed);
        if seen < INTERVALS_SEEN_MIN || alarmed > INTERVALS_ALARMED_MAX {
            return None;
        }
        quiet.sort_unstable();
        let strangers = quiet.get(quiet.len().saturating_mul(9) / 10).copied()?;
        let (hour, week) = (self.hour.of_week(), self.hour.week());
        let slot = self.slots.get_mut(usize::from(hour))?;
        slot.learn(strangers, week);
        Some((hour, slot.clone()))
    }
}

impl Baseline {
    /// Nothing learnt; `seed` keys the counting.
    pub fn new(services: usize, seed: u64) -> Self {
        let services = (0..=u8::MAX).take(services);
        let keys = services.flat_map(|service| Front::ALL.map(|front| (service, front)));
        Self {
            counts: keys.map(|key| (key, Count::new())).collect(),
            hasher: FixedState::with_seed(seed),
            ends: Timestamp::EPOCH,
            engine_at: Timestamp::EPOCH,
            utc_at: Timestamp::EPOCH,
            learnt: Vec::new(),
        }
    }

    /// Remembers what an earlier run has learnt. What no service here is for is passed over.
    pub fn restore(&mut self, learnt: Learnt) {
        let slot = self
            .counts
            .get_mut(&(learnt.service, learnt.front))
            .and_then(|count| count.slots.get_mut(usize::from(learnt.hour)));
        if let Some(slot) = slot {
            *slot = learnt.slot;
            let surplus = slot.weeks.len().saturating_sub(WEEKS);
            slot.weeks.drain(..surplus);
        }
    }

    /// What was learnt since this was called last, to be kept.
    pub fn take_learnt(&mut self) -> Vec<Learnt> {
        std::mem::take(&mut self.learnt)
    }

    /// What UTC is at an instant of the engine's clock; they are the same until this is called.
    pub const fn set_calendar(&mut self, now: Timestamp, utc: Timestamp) {
        self.engine_at = now;
        self.utc_at = utc;
    }

    fn hour(&self, now: Timestamp) -> Hour {
        // The calendar may have been set a little later than that.
        Hour::of((self.utc_at + now.since(self.engine_at)) - self.engine_at.since(now))
    }

    /// A stranger asks for something.
    pub fn note_stranger(&mut self, service: u8, front: Front, address: Address) {
        let mut hasher = self.hasher.build_hasher();
        if address.is_v4() {
            hasher.write_u64(address.low);
        } else {
            hasher.write_u64(address.high >> 16);
        }
        if let Some(count) = self.counts.get_mut(&(service, front)) {
            count.strangers.add(hasher.finish());
        }
    }

    /// Lets time pass. `level` is that of a service and class of traffic now; what is too much is handed to `found`.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        level: impl Fn(u8, Front) -> Level,
        mut found: impl FnMut(Pressure),
    ) {
        if now < self.ends {
            return;
        }
        let hour = self.hour(now);
        // Where time has stood still for long, the interval was not one.
        let is_whole = self.ends > Timestamp::EPOCH && now.since(self.ends) < INTERVAL;
        self.ends = now + INTERVAL;
        for ((service, front), count) in &mut self.counts {
            if count.hour != hour {
                if let Some((hour, slot)) = count.learn() {
                    self.learnt.push(Learnt { service: *service, front: *front, hour, slot });
                }
                count.hour = hour;
            }
            let strangers = count.strangers.take();
            if !is_whole {
                count.in_a_row = 0;
                continue;
            }
            count.last = strangers;
            let alarmed_from = count.alarmed_from(hour.of_week());
            let is_alarmed = level(*service, *front) > Level::Normal;
            if is_alarmed || strangers >= alarmed_from {
                count.alarmed = count.alarmed.saturating_add(1);
            } else if count.quiet.len() < INTERVALS {
                count.quiet.push(strangers);
            }
            if strangers < alarmed_from {
                count.in_a_row = 0;
            } else {
                count.in_a_row = count.in_a_row.saturating_add(1);
            }
            let reaches = |half_steps: u16| strangers >= alarmed_from.saturating_mul(half_steps) / 2;
            let raises = match count.in_a_row {
                _ if reaches(2 * ATTACK_FACTOR) => Level::Attack,
                INTERVALS_TO_RAISE.. => Level::Elevated,
                _ => Level::Normal,
            };
            let sustains = match () {
                () if reaches(ATTACK_FACTOR) => Level::Attack,
                () if reaches(1) => Level::Elevated,
                () => continue,
            };
            let usual = count.usual(hour.of_week());
            let (service, front) = (*service, *front);
            found(Pressure { service, front, raises, sustains, strangers, usual, alarmed_from });
        }
    }

    /// What an operator wants to see.
    pub fn gauge(&self, service: u8, front: Front, now: Timestamp) -> Gauge {
        let hour = self.hour(now).of_week();
        self.counts.get(&(service, front)).map_or_else(Gauge::default, |count| Gauge {
            strangers: count.last,
            usual: count.usual(hour),
            alarmed_from: count.alarmed_from(hour),
            hours_learnt: u8::try_from(count.slots.iter().filter(|slot| slot.is_trusted()).count())
                .unwrap_or(u8::MAX),
        })
    }
}

#[cfg(test)]
mod tests;
