//! How much outsiders can make the log grow: so many lines a minute. What is beyond is counted and told once a minute;
//! the ledger, `floodwall bans` and `floodwall watch` have it all the same.

use floodwall_engine::{Span, Timestamp};

const LINES_MAX: u32 = 120;
const WINDOW: Span = Span::from_secs(60);

/// Lines written since the window began.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    began: Timestamp,
    written: u32,
    left_out: u64,
}

impl LogBudget {
    /// Whether one more line may be written.
    pub(super) const fn take(&mut self) -> bool {
        if self.written < LINES_MAX {
            self.written += 1;
            return true;
        }
        self.left_out += 1;
        false
    }

    /// Begins a new window once the last is over; answers how many lines that one left out, if any.
    pub(super) fn handle_tick(&mut self, now: Timestamp) -> Option<u64> {
        if now.since(self.began) < WINDOW {
            return None;
        }
        self.began = now;
        self.written = 0;
        Some(std::mem::take(&mut self.left_out)).filter(|left_out| *left_out > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_decisions_writes_a_bounded_number_of_lines() {
        let mut budget = LogBudget::default();
        let start = Timestamp::from_secs(1_000);
        assert_eq!(budget.handle_tick(start), None);
        let written = (0..10_000).filter(|_| budget.take()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(budget.handle_tick(start + Span::from_secs(59)), None);
        assert_eq!(budget.handle_tick(start + WINDOW), Some(10_000 - u64::from(LINES_MAX)));
        assert!(budget.take());
        assert_eq!(budget.handle_tick(start + WINDOW + WINDOW), None);
    }
}
