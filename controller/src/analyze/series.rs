//! Counts over time, in slices whose length grows with the log.

use floodwall_engine::{Timestamp, signal::SignalKind};

/// Slices at most; when there would be more, they become twice as long.
const SLICES_MAX: usize = 240;
const SECOND: u64 = 1_000_000_000;

/// What happened in one slice of time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Slice {
    pub(super) lines: u64,
    pub(super) connections: u64,
    pub(super) failures: u64,
    pub(super) logins: u64,
    pub(super) messages: u64,
}

/// Slices from the first line on.
#[derive(Debug)]
pub(super) struct Series {
    start: Timestamp,
    length: u64,
    slices: Vec<Slice>,
    /// The slice of the last line, and the time it spans.
    current: usize,
    from: u64,
    until: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { start: Timestamp::EPOCH, length: SECOND, slices: Vec::new(), current: 0, from: 0, until: 0 }
    }
}

impl Series {
    /// A line of this time; what it says is noted after it.
    pub(super) fn note_line(&mut self, at: Timestamp) {
        if !(self.from..self.until).contains(&at.as_nanos()) {
            self.find(at);
        }
        if let Some(slice) = self.slices.get_mut(self.current) {
            slice.lines += 1;
        }
    }

    /// Something that the last line says.
    pub(super) fn note_signal(&mut self, kind: SignalKind) {
        let Some(slice) = self.slices.get_mut(self.current) else { return };
        let is_message = matches!(
            kind,
            SignalKind::MessageChannel | SignalKind::MessagePrivate | SignalKind::MessageBroadcast
        );
        slice.connections += u64::from(kind == SignalKind::ConnectionOpened);
        slice.failures += u64::from(kind == SignalKind::LoginFailed);
        slice.logins += u64::from(kind == SignalKind::LoginSucceeded);
        slice.messages += u64::from(is_message);
    }

    fn find(&mut self, at: Timestamp) {
        if self.slices.is_empty() {
            self.start = Timestamp::from_nanos(at.as_nanos() - at.as_nanos() % SECOND);
        }
        // What is older than the first line belongs to it: a clock was set back.
        let offset = at.since(self.start).as_nanos();
        while offset / self.length >= SLICES_MAX as u64 {
            self.length = self.length.saturating_mul(2);
            self.slices = self.slices.chunks(2).map(Slice::sum).collect();
        }
        self.current = usize::try_from(offset / self.length).unwrap_or(SLICES_MAX);
        if self.current >= self.slices.len() {
            self.slices.resize(self.current + 1, Slice::default());
        }
        self.from = self.start.as_nanos().saturating_add(self.current as u64 * self.length);
        self.until = self.from.saturating_add(self.length);
    }

    /// Seconds that each slice spans.
    pub(super) const fn seconds(&self) -> u64 {
        self.length / SECOND
    }

    /// When each begins, and what happened.
    pub(super) fn slices(&self) -> impl Iterator<Item = (Timestamp, Slice)> {
        let begins = |index: usize| self.start.as_nanos() + index as u64 * self.length;
        self.slices
            .iter()
            .enumerate()
            .map(move |(index, slice)| (Timestamp::from_nanos(begins(index)), *slice))
    }
}

impl Slice {
    fn sum(slices: &[Self]) -> Self {
        slices.iter().fold(Self::default(), |sum, slice| Self {
            lines: sum.lines + slice.lines,
            connections: sum.connections + slice.connections,
            failures: sum.failures + slice.failures,
            logins: sum.logins + slice.logins,
            messages: sum.messages + slice.messages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_the_log_there_are_few_slices_and_nothing_is_lost() {
        let mut series = Series::default();
        for hour in 0..10_000 {
            series.note_line(Timestamp::from_secs(1_700_000_000 + hour * 3_600));
            series.note_signal(SignalKind::LoginFailed);
        }
        // A clock that was set back.
        series.note_line(Timestamp::from_secs(5));
        let slices: Vec<_> = series.slices().collect();
        assert!((SLICES_MAX / 2..=SLICES_MAX).contains(&slices.len()), "{}", slices.len());
        assert_eq!(slices.iter().map(|(_, slice)| slice.lines).sum::<u64>(), 10_001);
        assert_eq!(slices.iter().map(|(_, slice)| slice.failures).sum::<u64>(), 10_000);
        assert_eq!(slices[0].0, Timestamp::from_secs(1_700_000_000));
    }
}
