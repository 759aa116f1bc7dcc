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

    /// Counts one event if there are fewer than `bound` with it; answers whether there are.
    #[inline]
    pub fn add_below(&mut self, bound: u32, at: Timestamp, within: Span) -> bool {
        self.advance(at, within);
        let is_below = self.total.saturating_add(1) < u64::from(bound);
        if is_below {
            self.add(1, at, within);
        }
        is_below
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
    by_address: BTreeMap<Address, Contribution>,
}

/// Windows for which somebody must have done the same to make it a habit of theirs.
const HABIT_WINDOWS: u64 = 2;
/// How often they must have done it before, and how often at most they do it within a window.
const HABIT_TIMES: u32 = 3;
const HABIT_MAX: u32 = 2;
/// Windows of silence after which a habit is forgotten.
const HABIT_FORGOTTEN: u64 = 10;

/// What one address contributed.
#[derive(Clone, Copy, Debug)]
struct Contribution {
    /// Since when, without long silence.
    since: Timestamp,
    last: Timestamp,
    /// When the current window began, what came in it, and in the one before.
    begun: Timestamp,
    count: u32,
    earlier: u32,
    /// How often, whatever it counted for, in the current window and before it.
    times: u32,
    times_before: u32,
}

impl Contribution {
    const fn new(at: Timestamp) -> Self {
        Self { since: at, last: at, begun: at, count: 0, earlier: 0, times: 0, times_before: 0 }
    }

    fn add(&mut self, amount: u32, at: Timestamp, within: Span) {
        let silent = at.since(self.last).as_nanos();
        if silent > within.as_nanos().saturating_mul(HABIT_FORGOTTEN) {
            *self = Self::new(at);
        }
        let windows = at.since(self.begun).as_nanos() / within.as_nanos().max(1);
        if windows > 0 {
            self.times_before = self.times_before.saturating_add(self.times);
            self.earlier = if windows == 1 { self.count } else { 0 };
            self.begun = self.begun + Span::from_nanos(within.as_nanos().saturating_mul(windows));
            (self.count, self.times) = (0, 0);
        }
        self.count = self.count.saturating_add(amount);
        self.times = self.times.saturating_add(1);
        self.last = at;
    }

    /// What lies within the window: all of the current one, and of the one before as much as has not left it.
    fn held(&self, at: Timestamp, within: Span) -> u32 {
        let left = within.as_nanos().saturating_sub(at.since(self.begun).as_nanos());
        let share = u128::from(self.earlier) * u128::from(left) / u128::from(within.as_nanos().max(1));
        self.count.saturating_add(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// Whether somebody does now and then what they have been doing all along: it was there before the attack, and is no part
    /// of it.
    fn is_habit(&self, at: Timestamp, within: Span) -> bool {
        let windows = self.begun.since(self.since).as_nanos() / within.as_nanos().max(1);
        windows >= HABIT_WINDOWS && self.times_before >= HABIT_TIMES && self.held(at, within) <= HABIT_MAX
    }
}

impl Contributors {
    /// Counts contributions and answers how many the address made within the window.
    pub fn add(&mut self, address: Address, amount: u32, at: Timestamp, within: Span) -> u32 {
        if self.by_address.len() >= CONTRIBUTORS_MAX && !self.by_address.contains_key(&address) {
            self.make_room(at - within);
        }
        let own = self.by_address.entry(address).or_insert_with(|| Contribution::new(at));
        own.add(amount, at, within);
        own.held(at, within)
    }

    /// Whether an address contributes no more than it has all along.
    pub fn is_habit(&self, address: &Address, at: Timestamp, within: Span) -> bool {
        self.by_address.get(address).is_some_and(|own| own.is_habit(at, within))
    }

    /// Lets go what left the window; if that is not enough, the quarter longest silent, so that a flood of new addresses
    /// does not pay for a search each time.
    fn make_room(&mut self, start: Timestamp) {
        self.by_address.retain(|_, own| own.last >= start);
        if self.by_address.len() < CONTRIBUTORS_MAX {
            return;
        }
        let mut times: Vec<Timestamp> = self.by_address.values().map(|own| own.last).collect();
        let (_, limit, _) = times.select_nth_unstable(CONTRIBUTORS_MAX / 4);
        let limit = *limit;
        self.by_address.retain(|_, own| own.last > limit);
    }

    /// Those within the window, with their counts, by address.
    pub fn within(&self, at: Timestamp, within: Span) -> impl Iterator<Item = (Address, u32)> {
        let start = at - within;
        self.by_address
            .iter()
            .filter(move |(_, own)| own.last >= start)
            .map(move |(address, own)| (*address, own.held(at, within)))
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
    fn what_was_done_now_and_then_all_along_is_a_habit() {
        let mut contributors = Contributors::default();
        let (monitor, guest, crowd) = (Address::from_v4(1), Address::from_v4(2), Address::from_v4(3));
        for n in 0..20 {
            contributors.add(monitor, 1, at(n * 45_000), MINUTE);
            contributors.add(crowd, 3, at(n * 45_000), MINUTE);
        }
        let now = at(20 * 45_000);
        contributors.add(guest, 1, now, MINUTE);
        assert!(contributors.is_habit(&monitor, now, MINUTE));
        assert!(!contributors.is_habit(&guest, now, MINUTE), "it has only come");
        assert!(!contributors.is_habit(&crowd, now, MINUTE), "it is more than now and then");
        contributors.add(monitor, 5, now, MINUTE);
        assert!(!contributors.is_habit(&monitor, now, MINUTE), "it is more than it was");
        let later = at(60_000_000);
        contributors.add(monitor, 1, later, MINUTE);
        assert!(!contributors.is_habit(&monitor, later, MINUTE), "it is long ago");
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
