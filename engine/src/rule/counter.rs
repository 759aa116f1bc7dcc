//! Sliding counts: how many within a window, and how many different ones.

use std::collections::{BTreeMap, HashMap};

use floodwall_wire::Address;
use foldhash::fast::FixedState;

use crate::{
    limits::{CONTRIBUTORS_MAX, DISTINCT_MAX},
    time::{Span, Timestamp},
};

/// Parts a window is divided into. What leaves the window leaves it a sixteenth at a time: the count reaches
/// back at least the window less one part, at most the window.
const PARTS: usize = 16;

/// How many events lie within a window.
#[derive(Clone, Debug, Default)]
pub struct SlidingCount {
    parts: [u32; PARTS],
    /// Of all parts.
    total: u64,
    /// Number of the newest part since the epoch.
    newest: u64,
    /// Where the newest part ends: as long as time lies before, there is nothing to divide.
    ends: u64,
}

impl SlidingCount {
    /// Counts one event and answers how many lie within the window now.
    pub fn count(&mut self, at: Timestamp, within: Span) -> u32 {
        self.add(1, at, within)
    }

    /// Counts so many at once and answers how many lie within the window now; more than 32 bits hold stay at that.
    pub fn add(&mut self, amount: u32, at: Timestamp, within: Span) -> u32 {
        self.advance(at, within);
        let index = (self.newest % PARTS as u64) as usize;
        if let Some(part) = self.parts.get_mut(index) {
            let more = part.saturating_add(amount);
            self.total += u64::from(more - *part);
            *part = more;
        }
        u32::try_from(self.total).unwrap_or(u32::MAX)
    }

    /// How many lie within the window now.
    pub fn held(&mut self, at: Timestamp, within: Span) -> u32 {
        self.add(0, at, within)
    }

    /// Starts again at none.
    pub const fn clear(&mut self) {
        self.parts = [0; PARTS];
        self.total = 0;
    }

    fn advance(&mut self, at: Timestamp, within: Span) {
        if at.as_nanos() < self.ends {
            return;
        }
        let length = (within.as_nanos() / PARTS as u64).max(1);
        let part = at.as_nanos() / length;
        self.ends = self.ends.max(part.saturating_add(1).saturating_mul(length));
        if part <= self.newest {
            return;
        }
        let steps = part.saturating_sub(self.newest);
        if steps >= PARTS as u64 {
            self.clear();
        } else {
            for step in 1..=steps {
                let index = (self.newest.saturating_add(step) % PARTS as u64) as usize;
                if let Some(part) = self.parts.get_mut(index) {
                    self.total -= u64::from(*part);
                    *part = 0;
                }
            }
        }
        self.newest = part;
    }
}

/// How many different values were seen within a window. Bound: [`DISTINCT_MAX`]; beyond it none is added.
#[derive(Clone, Debug)]
pub struct DistinctCount {
    last_seen: HashMap<u64, Timestamp, FixedState>,
}

impl DistinctCount {
    /// None seen; `seed` keys the table.
    pub fn new(seed: u64) -> Self {
        Self { last_seen: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// Counts one value (its keyed hash) and answers how many different ones lie within the window now.
    pub fn count(&mut self, value: u64, at: Timestamp, within: Span, enough: u32) -> u32 {
        let forget = |seen: &mut HashMap<u64, Timestamp, FixedState>| {
            let start = at - within;
            seen.retain(|_, last| *last >= start);
        };
        if self.last_seen.len() >= DISTINCT_MAX {
            forget(&mut self.last_seen);
        }
        if self.last_seen.len() < DISTINCT_MAX || self.last_seen.contains_key(&value) {
            self.last_seen.insert(value, at);
        }
        // Fewer than enough need not be exact; enough must be.
        if self.last_seen.len() >= enough as usize {
            forget(&mut self.last_seen);
        }
        u32::try_from(self.last_seen.len()).unwrap_or(u32::MAX)
    }

    /// Whether a value was seen, lately or not.
    pub fn holds(&self, value: u64) -> bool {
        self.last_seen.contains_key(&value)
    }

    /// How many different ones lie within the window now.
    pub fn held(&mut self, at: Timestamp, within: Span) -> u32 {
        let start = at - within;
        self.last_seen.retain(|_, last| *last >= start);
        u32::try_from(self.last_seen.len()).unwrap_or(u32::MAX)
    }

    /// Starts again at none.
    pub fn clear(&mut self) {
        self.last_seen.clear();
    }
}

/// Which addresses contributed to a count, and how often. Bound: [`CONTRIBUTORS_MAX`]; beyond it the ones
/// longest silent make room.
#[derive(Clone, Debug, Default)]
pub struct Contributors {
    by_address: BTreeMap<Address, (u32, Timestamp)>,
}

impl Contributors {
    /// Counts contributions and answers how many the address made within the window.
    pub fn add(&mut self, address: Address, amount: u32, at: Timestamp, within: Span) -> u32 {
        if self.by_address.len() >= CONTRIBUTORS_MAX && !self.by_address.contains_key(&address) {
            self.make_room(at - within);
        }
        let entry = self.by_address.entry(address).or_insert((0, at));
        if at.since(entry.1) > within {
            entry.0 = 0;
        }
        *entry = (entry.0.saturating_add(amount), at);
        entry.0
    }

    /// Lets go what left the window; if that is not enough, the quarter longest silent, so that a flood of new addresses
    /// does not pay for a search each time.
    fn make_room(&mut self, start: Timestamp) {
        self.by_address.retain(|_, (_, last)| *last >= start);
        if self.by_address.len() < CONTRIBUTORS_MAX {
            return;
        }
        let mut times: Vec<Timestamp> = self.by_address.values().map(|(_, last)| *last).collect();
        let (_, limit, _) = times.select_nth_unstable(CONTRIBUTORS_MAX / 4);
        let limit = *limit;
        self.by_address.retain(|_, (_, last)| *last > limit);
    }

    /// Those within the window, with their counts, by address.
    pub fn within(&self, at: Timestamp, within: Span) -> impl Iterator<Item = (Address, u32)> {
        let start = at - within;
        self.by_address
            .iter()
            .filter(move |(_, (_, last))| *last >= start)
            .map(|(address, (count, _))| (*address, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Span = Span::from_secs(60);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn counts_agree_with_a_list_of_times_within_one_part() {
        let part = MINUTE.as_nanos() / PARTS as u64;
        let mut count = SlidingCount::default();
        let mut times: Vec<u64> = Vec::new();
        let mut state = 12_345u64;
        let mut now = 0;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += (state >> 33) % 2_000;
            times.push(at(now).as_nanos());
            let counted = count.count(at(now), MINUTE);
            let end = at(now).as_nanos();
            let most = times.iter().filter(|time| end - **time < MINUTE.as_nanos()).count();
            let least = times.iter().filter(|time| end - **time < MINUTE.as_nanos() - part).count();
            assert!((least..=most).contains(&(counted as usize)), "{least} <= {counted} <= {most}");
        }
    }

    #[test]
    fn the_limit_is_reached_by_the_event_that_reaches_it() {
        let mut count = SlidingCount::default();
        let counted: Vec<u32> = (0..8).map(|n| count.count(at(n * 100), MINUTE)).collect();
        assert_eq!(counted, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(count.count(at(70_000), MINUTE), 1);
    }

    #[test]
    fn time_running_backwards_is_counted_in_the_newest_part() {
        let mut count = SlidingCount::default();
        count.count(at(50_000), MINUTE);
        assert_eq!(count.count(at(10_000), MINUTE), 2);
    }

    #[test]
    fn distinct_counts_forget_what_left_the_window() {
        let mut distinct = DistinctCount::new(1);
        for value in 0..5 {
            distinct.count(value, at(value * 1_000), MINUTE, 5);
        }
        assert_eq!(distinct.count(0, at(5_000), MINUTE, 5), 5);
        assert_eq!(distinct.count(9, at(70_000), MINUTE, 5), 1);
    }

    #[test]
    fn different_values_that_are_long_ago_never_add_up_to_enough() {
        let mut distinct = DistinctCount::new(1);
        for value in 0..50 {
            let count = distinct.count(value, at(value * 61_000), MINUTE, 15);
            assert!(count < 15, "{count} after {value}");
        }
    }

    #[test]
    fn contributors_are_bounded() {
        let mut contributors = Contributors::default();
        for n in 0..u64::from(CONTRIBUTORS_MAX as u32) * 3 {
            contributors.add(Address::from_v4(n as u32), 1, at(n), MINUTE);
        }
        let held = contributors.by_address.len();
        assert!((CONTRIBUTORS_MAX / 2..=CONTRIBUTORS_MAX).contains(&held), "{held}");
    }
}
