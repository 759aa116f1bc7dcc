//! Whom rules have dealt with lately: what `floodwall top` shows of sources.
//!
//! Bound: [`REMEMBERED_MAX`] subjects; beyond that the one dealt with longest ago is forgotten.

use std::collections::BTreeMap;

use floodwall_engine::{Timestamp, rule::RuleId};

/// Subjects remembered.
const REMEMBERED_MAX: usize = 256;

/// What rules have done to somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Dealt {
    /// The gravest: `note`, `limit`, `reset` or `ban`.
    pub(crate) action: &'static str,
    /// The rule that did the gravest last.
    pub(crate) rule: RuleId,
    /// When that was.
    pub(crate) at: Timestamp,
    pub(crate) times: u64,
    latest: Timestamp,
}

/// Whom rules have dealt with.
#[derive(Debug, Default)]
pub(crate) struct Worst {
    by_subject: BTreeMap<Box<str>, Dealt>,
}

fn gravity(action: &str) -> usize {
    ["note", "limit", "reset", "ban"].iter().position(|known| *known == action).unwrap_or(0)
}

impl Worst {
    /// A rule has done something to somebody.
    pub(crate) fn note(&mut self, action: &'static str, subject: &str, rule: &RuleId, at: Timestamp) {
        if let Some(dealt) = self.by_subject.get_mut(subject) {
            dealt.times += 1;
            dealt.latest = at;
            if gravity(action) >= gravity(dealt.action) {
                (dealt.action, dealt.at) = (action, at);
                dealt.rule.clone_from(rule);
            }
            return;
        }
        if self.by_subject.len() >= REMEMBERED_MAX {
            let oldest = self.by_subject.iter().min_by_key(|(_, dealt)| dealt.latest);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                self.by_subject.remove(&oldest);
            }
        }
        let dealt = Dealt { action, rule: rule.clone(), at, times: 1, latest: at };
        self.by_subject.insert(subject.into(), dealt);
    }

    /// Worst first, of the same gravity the latest first.
    pub(crate) fn listed(&self, most: usize) -> Vec<(&str, &Dealt)> {
        let mut all: Vec<(&str, &Dealt)> =
            self.by_subject.iter().map(|(subject, dealt)| (&**subject, dealt)).collect();
        all.sort_by_key(|(_, dealt)| std::cmp::Reverse((gravity(dealt.action), dealt.latest)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> RuleId {
        RuleId(id.into())
    }

    #[test]
    fn the_gravest_is_told_and_the_banned_come_first() {
        let mut worst = Worst::default();
        let at = Timestamp::from_secs;
        worst.note("limit", "192.0.2.1", &rule("a"), at(1));
        worst.note("ban", "192.0.2.2/32", &rule("b"), at(2));
        worst.note("ban", "192.0.2.1", &rule("c"), at(3));
        worst.note("note", "192.0.2.1", &rule("d"), at(9));
        worst.note("note", "192.0.2.3", &rule("d"), at(10));
        let listed: Vec<_> = worst
            .listed(9)
            .into_iter()
            .map(|(subject, dealt)| (subject, dealt.action, &*dealt.rule.0, dealt.times))
            .collect();
        assert_eq!(
            listed,
            [("192.0.2.1", "ban", "c", 3), ("192.0.2.2/32", "ban", "b", 1), ("192.0.2.3", "note", "d", 1)]
        );
    }

    #[test]
    fn those_of_long_ago_make_room() {
        let mut worst = Worst::default();
        for number in 0..1_000 {
            worst.note("limit", &format!("subject {number}"), &rule("a"), Timestamp::from_secs(number));
        }
        assert_eq!(worst.by_subject.len(), REMEMBERED_MAX);
        assert_eq!(worst.listed(1)[0].0, "subject 999");
    }
}
