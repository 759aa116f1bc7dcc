//! Rate limits: one 64-bit word each, the generic cell rate algorithm.
//!
//! The word holds the theoretical arrival time (ITU-T I.371 annex A, "virtual scheduling"): the gate-clock
//! instant at which the budget will be whole again. A burst is a tolerance on that instant. A limit is exact
//! because the word only moves by compare-and-swap.

use crate::word::Word;

/// Compare-and-swap attempts before a limit gives up. Each lost attempt means that another CPU admitted a
/// packet of the same subject in between, so four losses in a row are a flood.
pub const ATTEMPTS: u32 = 4;

/// One limit: how long a unit takes to be earned back, and how far ahead of that one may run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Limit {
    /// Nanoseconds per unit (datagram, SYN or payload byte); 0 switches the limit off.
    pub interval: u64,
    /// Nanoseconds of debt allowed: burst × interval.
    pub tolerance: u64,
}

/// The answer of [`take`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Admission {
    /// Within the limit; the budget was charged.
    Admitted = 0,
    /// Other CPUs kept changing the word; the budget was not charged.
    Contended = 1,
    /// Over the limit; the budget was not charged.
    Over = 2,
}

impl Limit {
    /// No limit.
    pub const OFF: Self = Self { interval: 0, tolerance: 0 };

    /// `rate` units per second with bursts of up to `burst` units. A rate of 0 switches the limit off.
    pub const fn per_second(rate: u64, burst: u64) -> Self {
        if rate == 0 {
            return Self::OFF;
        }
        let interval = if rate > 1_000_000_000 { 1 } else { 1_000_000_000 / rate };
        Self { interval, tolerance: interval.saturating_mul(burst) }
    }

    /// Whether nothing is left at `now` of a budget whose word holds `arrival`.
    #[inline(always)]
    pub const fn is_spent(&self, arrival: u64, now: u64) -> bool {
        let start = if arrival > now { arrival } else { now };
        start - now >= self.tolerance
    }
}

/// Takes `units` from the budget in `word` at `now` (gate clock, ns).
///
/// A subject with any budget left may send one packet of any size and then owes the rest, so that no packet
/// is too large ever to pass; over time the rate is exact.
#[inline(always)]
pub fn take(word: &Word, limit: &Limit, now: u64, units: u64) -> Admission {
    if limit.interval == 0 {
        return Admission::Admitted;
    }
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let arrival = word.load();
        if limit.is_spent(arrival, now) {
            return Admission::Over;
        }
        let start = if arrival > now { arrival } else { now };
        if word.compare_exchange(arrival, start.wrapping_add(limit.interval.wrapping_mul(units))) {
            return Admission::Admitted;
        }
        attempt += 1;
    }
    Admission::Contended
}

impl Admission {
    /// As a number, the form in which it crosses a call in the kernel.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Back from its number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        match code {
            ADMITTED => Self::Admitted,
            OVER => Self::Over,
            _ => Self::Contended,
        }
    }

    /// The answer of a budget that is held in two cells, of which each may be shared with other subjects: over only
    /// when both are. A subject that shares one cell with a flood still has the other.
    #[inline(always)]
    pub const fn either(self, other: Self) -> Self {
        // The better answer has the smaller number.
        if self.code() <= other.code() { self } else { other }
    }
}

const ADMITTED: u32 = Admission::Admitted as u32;
const OVER: u32 = Admission::Over as u32;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn admitted(limit: &Limit, word: &Word, offered_per_second: u64, seconds: u64) -> u64 {
        let step = SECOND / offered_per_second;
        let total = offered_per_second * seconds;
        (0..total).filter(|n| take(word, limit, SECOND + n * step, 1) == Admission::Admitted).count() as u64
    }

    #[test]
    fn burst_passes_at_once_and_then_the_rate_holds() {
        let limit = Limit::per_second(10, 5);
        let word = Word::new(0);
        let at_once = (0..100).filter(|_| take(&word, &limit, SECOND, 1) == Admission::Admitted).count();
        assert_eq!(at_once, 5);
        assert_eq!(take(&word, &limit, SECOND + SECOND / 10, 1), Admission::Admitted);
        assert_eq!(take(&word, &limit, SECOND + SECOND / 10, 1), Admission::Over);
    }

    #[test]
    fn long_run_rate_is_within_two_percent_from_one_per_minute_to_a_million_per_second() {
        let minute = Limit { interval: 60 * SECOND, tolerance: 60 * SECOND };
        let word = Word::new(0);
        let passed = (0..100_000)
            .filter(|n| take(&word, &minute, SECOND + n * SECOND, 1) == Admission::Admitted)
            .count();
        assert!((1_666..=1_668).contains(&passed), "{passed}");

        for rate in [1, 50, 1_000, 1_000_000] {
            let limit = Limit::per_second(rate, 10);
            let passed = admitted(&limit, &Word::new(0), rate * 3, 10);
            let expected = rate * 10 + 10;
            assert!(passed.abs_diff(expected) * 50 <= expected, "rate {rate}: {passed} of {expected}");
        }
    }

    #[test]
    fn a_packet_larger_than_the_burst_passes_once_and_is_paid_back() {
        let limit = Limit::per_second(1_000, 100);
        let word = Word::new(0);
        assert_eq!(take(&word, &limit, SECOND, 64_000), Admission::Admitted);
        assert_eq!(take(&word, &limit, SECOND * 64, 1), Admission::Over);
        assert_eq!(take(&word, &limit, SECOND * 65, 1), Admission::Admitted);
    }

    #[test]
    fn an_answer_survives_its_number() {
        for admission in [Admission::Admitted, Admission::Contended, Admission::Over] {
            assert_eq!(Admission::from_code(admission.code()), admission);
        }
    }

    #[test]
    fn over_limit_does_not_charge() {
        let limit = Limit::per_second(1, 1);
        let word = Word::new(0);
        assert_eq!(take(&word, &limit, SECOND, 1), Admission::Admitted);
        let before = word.load();
        assert_eq!(take(&word, &limit, SECOND, 1), Admission::Over);
        assert_eq!(word.load(), before);
    }

    #[test]
    fn two_threads_admit_exactly_the_burst() {
        let limit = Limit::per_second(1, 1_000);
        let word = Word::new(0);
        let count = || (0..20_000).filter(|_| take(&word, &limit, SECOND, 1) == Admission::Admitted).count();
        let total = std::thread::scope(|scope| {
            let one = scope.spawn(count);
            let other = scope.spawn(count);
            one.join().unwrap() + other.join().unwrap()
        });
        assert_eq!(total, 1_000);
    }

    #[test]
    fn sharing_one_cell_with_a_flood_leaves_the_other() {
        let limit = Limit::per_second(1, 1);
        let (shared, own, flood_only) = (Word::new(0), Word::new(0), Word::new(0));
        let both =
            |one: &Word, other: &Word| take(one, &limit, SECOND, 1).either(take(other, &limit, SECOND, 1));
        for _ in 0..10 {
            both(&shared, &flood_only);
        }
        assert_eq!(both(&shared, &own), Admission::Admitted);
        assert_eq!(both(&shared, &own), Admission::Over);
    }
}
