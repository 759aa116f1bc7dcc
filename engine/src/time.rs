//! Time as an input: the engine never reads a clock.

use std::{fmt, ops};

/// Nanoseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span(u64);

impl Timestamp {
    /// The beginning of time, before everything.
    pub const EPOCH: Self = Self(0);
    /// The end of time, after everything.
    pub const NEVER: Self = Self(u64::MAX);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Span> for Timestamp {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl ops::Sub<Span> for Timestamp {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// From seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// `factor` times as long, without wrapping.
    pub const fn saturating_mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// Reads `"90s"`, `"10m"`, `"1h30m"`, `"500ms"`, `"7d"`: whole numbers with a unit each, largest first not
    /// required, nothing else.
    ///
    /// # Errors
    /// Says what was expected where.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let mut total: u64 = 0;
        let mut rest = text;
        if rest.is_empty() {
            return Err(SpanError::Empty);
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(SpanError::NoNumber);
            }
            let number: u64 =
                number.parse().map_err(|_too_large: std::num::ParseIntError| SpanError::TooLong)?;
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let nanos: u64 = match unit {
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                "w" => 604_800_000_000_000,
                "" => return Err(SpanError::NoUnit),
                _ => return Err(SpanError::UnknownUnit),
            };
            let part = number.checked_mul(nanos).ok_or(SpanError::TooLong)?;
            total = total.checked_add(part).ok_or(SpanError::TooLong)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

/// Why a text is no [`Span`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SpanError {
    /// Nothing there.
    #[error("expected a duration such as \"60s\" or \"1h30m\"")]
    Empty,
    /// A unit without a number, a sign, a blank.
    #[error("expected a whole number and a unit, such as \"60s\"")]
    NoNumber,
    /// A number without a unit.
    #[error("a unit is missing: ms, s, m, h, d or w")]
    NoUnit,
    /// More than 584 years.
    #[error("longer than any clock here can hold")]
    TooLong,
    /// Another unit.
    #[error("unknown unit: ms, s, m, h, d or w")]
    UnknownUnit,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
        ];
        let mut rest = self.0;
        let mut wrote = false;
        for (nanos, unit) in UNITS {
            let count = rest / nanos;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= nanos;
                wrote = true;
            }
        }
        if wrote { Ok(()) } else { f.write_str("0s") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write_the_same() {
        for text in ["60s", "10m", "1h30m", "500ms", "7d", "1d2h3m4s5ms"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Ok(span), "{text}");
        }
        assert_eq!(Span::parse("90s").unwrap().to_string(), "1m30s");
        assert_eq!(Span::ZERO.to_string(), "0s");
    }

    #[test]
    fn bad_spans_say_why() {
        assert_eq!(Span::parse(""), Err(SpanError::Empty));
        assert_eq!(Span::parse("s"), Err(SpanError::NoNumber));
        assert_eq!(Span::parse("-5s"), Err(SpanError::NoNumber));
        assert_eq!(Span::parse("10"), Err(SpanError::NoUnit));
        assert_eq!(Span::parse("10 s"), Err(SpanError::UnknownUnit));
        assert_eq!(Span::parse("10y"), Err(SpanError::UnknownUnit));
        assert_eq!(Span::parse("99999999999999999999s"), Err(SpanError::TooLong));
        assert_eq!(Span::parse("999999999999w"), Err(SpanError::TooLong));
    }
}
