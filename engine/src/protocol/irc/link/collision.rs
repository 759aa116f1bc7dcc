//! Who loses when two users with one nickname meet (ts3.txt, section "nick collisions"; unchanged in TS5 and TS6).

/// What the rule says about two users with one nickname.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Both lose: their timestamps are equal, or the protocol has none.
    Both,
    /// Different people: the one whose timestamp is older stays.
    YoungerLoses,
    /// One person twice: the older connection is the ghost and loses.
    OlderLoses,
}

impl Verdict {
    /// The reason in signals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both-lose",
            Self::OlderLoses => "same-person",
            Self::YoungerLoses => "older-wins",
        }
    }
}

/// Which of two must go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Loser {
    Both,
    One,
    Other,
}

/// Judges by timestamps and by whether user name and host are the same.
pub(super) fn judge(one: Option<u64>, other: Option<u64>, is_same_person: bool) -> (Verdict, Loser) {
    match (one, other) {
        (Some(one), Some(other)) if one != other => {
            let verdict = if is_same_person { Verdict::OlderLoses } else { Verdict::YoungerLoses };
            let one_is_older = one < other;
            (verdict, if one_is_older == is_same_person { Loser::One } else { Loser::Other })
        }
        _ => (Verdict::Both, Loser::Both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_followed() {
        assert_eq!(judge(Some(5), Some(5), false), (Verdict::Both, Loser::Both));
        assert_eq!(judge(Some(5), Some(5), true), (Verdict::Both, Loser::Both));
        assert_eq!(judge(Some(5), Some(9), false), (Verdict::YoungerLoses, Loser::Other));
        assert_eq!(judge(Some(9), Some(5), false), (Verdict::YoungerLoses, Loser::One));
        assert_eq!(judge(Some(5), Some(9), true), (Verdict::OlderLoses, Loser::One));
        assert_eq!(judge(Some(9), Some(5), true), (Verdict::OlderLoses, Loser::Other));
        assert_eq!(judge(None, None, false), (Verdict::Both, Loser::Both));
    }
}
