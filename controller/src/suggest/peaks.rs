//! How far everybody came towards each rule's limit: what `suggest` is made from, of captures and of a running wall.
//!
//! Of each rule and address the highest count is kept, so that every limit can be asked at once whom it would have hit. Bound:
//! [`ADDRESSES_MAX`] addresses a rule; beyond that those who came furthest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floodwall_engine::{
    Timestamp,
    rule::{Rule, RuleId, evaluate::Evaluation},
    signal::{AtHand, Signal},
};
use floodwall_wire::Address;

use super::{Suggestion, Tried};

/// Addresses remembered of one rule.
pub(crate) const ADDRESSES_MAX: usize = 1_024;
/// Counters of one service.
const COUNTERS_MAX: usize = 8_192;
const SEED: u64 = 11;
/// Limits tried are these parts of a rule's own, in hundredths.
const LADDER: [u64; 11] = [10, 15, 25, 35, 50, 70, 100, 140, 200, 300, 400];
/// A proposal leaves this much room over what was seen, in hundredths.
const ROOM: u64 = 150;
/// Addresses named of those a rule would have hit.
const NAMED_MAX: usize = 5;

/// One service's rules, each with how far everybody came.
#[derive(Debug)]
pub(crate) struct Peaks {
    evaluation: Evaluation,
    /// By rule.
    rules: BTreeMap<RuleId, Reached>,
    changed: BTreeSet<(RuleId, Address)>,
}

/// The furthest that anybody came towards one rule's limit.
#[derive(Debug, Default)]
struct Reached {
    counted: bool,
    by_address: BTreeMap<Address, Peak>,
}

/// The furthest that somebody came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Peak {
    pub(crate) count: u32,
    /// When.
    pub(crate) at: Timestamp,
}

impl Reached {
    fn note(&mut self, address: Address, peak: Peak) -> bool {
        self.counted = true;
        if let Some(held) = self.by_address.get_mut(&address) {
            let is_higher = peak.count > held.count;
            if is_higher {
                *held = peak;
            }
            return is_higher;
        }
        if self.by_address.len() >= ADDRESSES_MAX {
            let least = self.by_address.iter().min_by_key(|(_, held)| held.count);
            let Some((least, _)) = least.filter(|(_, held)| held.count < peak.count) else { return false };
            let least = *least;
            self.by_address.remove(&least);
        }
        self.by_address.insert(address, peak);
        true
    }
}

impl Peaks {
    /// Nobody came anywhere yet.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        Self {
            evaluation: Evaluation::with_capacity(rules, SEED, COUNTERS_MAX),
            rules: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Counts by other rules from now on. What was reached under a rule of the same name stays.
    pub(crate) fn replace_rules(&mut self, rules: &[Rule]) {
        self.evaluation = Evaluation::with_capacity(rules, SEED, COUNTERS_MAX);
        self.rules.retain(|id, _| rules.iter().any(|rule| rule.id == *id));
    }

    /// Takes a signal. `rules` are those it was made for; whom `leave_out` holds for is nobody's false positive.
    pub(crate) fn take(&mut self, rules: &[Rule], signal: &Arc<Signal>, leave_out: impl Fn(Address) -> bool) {
        let Self { evaluation, rules: reached, changed } = self;
        evaluation.measure(rules, &AtHand::new(signal), |index, count, addresses| {
            let Some(rule) = rules.get(index) else { return };
            if !reached.contains_key(&rule.id) {
                reached.insert(rule.id.clone(), Reached::default());
            }
            let Some(reached) = reached.get_mut(&rule.id) else { return };
            reached.counted = true;
            for address in addresses.filter(|address| !leave_out(*address)) {
                if reached.note(address, Peak { count, at: signal.at }) {
                    changed.insert((rule.id.clone(), address));
                }
            }
        });
    }

    /// Somebody turned out to be no regular: what they reached counts for nothing.
    pub(crate) fn forget(&mut self, address: Address) {
        for (rule, reached) in &mut self.rules {
            if reached.by_address.remove(&address).is_some() {
                self.changed.insert((rule.clone(), address));
            }
        }
    }

    /// Forgets what was reached before then.
    pub(crate) fn forget_before(&mut self, at: Timestamp) {
        for reached in self.rules.values_mut() {
            reached.by_address.retain(|_, peak| peak.at >= at);
        }
    }

    /// Remembers what was reached in an earlier run.
    pub(crate) fn restore(&mut self, rule: RuleId, address: Address, peak: Peak) {
        self.rules.entry(rule).or_default().note(address, peak);
    }

    /// What changed since this was called last; without a peak what was forgotten.
    pub(crate) fn take_changed(&mut self) -> Vec<(RuleId, Address, Option<Peak>)> {
        let peak = |rule: &RuleId, address: &Address| self.rules.get(rule)?.by_address.get(address).copied();
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|(rule, address)| {
                let peak = peak(&rule, &address);
                (rule, address, peak)
            })
            .collect()
    }

    /// What a rule's limits would have cost; `None` if it counted nothing.
    pub(crate) fn suggestion(&self, rule: &Rule) -> Option<Suggestion> {
        let reached = self.rules.get(&rule.id).filter(|reached| reached.counted)?;
        let would_hit = |limit: u32| reached.by_address.iter().filter(move |(_, peak)| peak.count >= limit);
        let tried: Vec<Tried> = ladder(rule.limit)
            .into_iter()
            .map(|limit| Tried { limit, false_positives: would_hit(limit).count() })
            .collect();
        let highest =
            tried.iter().filter(|one| one.false_positives > 0).map(|one| one.limit).max().unwrap_or(0);
        let room = u64::from(highest).saturating_mul(ROOM).div_ceil(100);
        // What nobody came near is no reason to tighten a rule, and one quiet evening none to make it twice as tight.
        let proposed = match (rule.limit, highest) {
            (1, _) => 1,
            (limit, 0) => u64::from(limit),
            (limit, _) => room.max(u64::from(limit.div_ceil(2))),
        };
        let hit = would_hit(rule.limit).map(|(address, _)| address.to_ip().to_string());
        Some(Suggestion {
            rule: rule.id.to_string(),
            limit: rule.limit,
            false_positives: would_hit(rule.limit).count(),
            hit: hit.take(NAMED_MAX).collect(),
            reached: highest,
            proposed: u32::try_from(proposed).unwrap_or(u32::MAX),
            tried,
        })
    }
}

/// Limits to try, the rule's own among them, each once.
fn ladder(limit: u32) -> BTreeSet<u32> {
    let part = |hundredths: u64| {
        u32::try_from(u64::from(limit).saturating_mul(hundredths) / 100).unwrap_or(u32::MAX)
    };
    LADDER.into_iter().map(part).map(|limit| limit.max(1)).chain([limit]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::{
        rule::file,
        signal::{Detail, FlowId, SignalKind},
    };

    fn rules() -> Vec<Rule> {
        let source = "[service]\nprotocol = \"teamtalk\"\n[[rule]]\nid = \"a\"\nwhy = \"x\"\nsignal = \"login.failed\"\n\
                      by = \"address\"\nlimit = 10\nwithin = \"60s\"\naction = \"note\"\n";
        file::parse("f.toml", source).unwrap().rules
    }

    fn address(last: u32) -> Address {
        Address::from_v4(0xcb00_7100 + last)
    }

    fn fail(peaks: &mut Peaks, last: u32, times: u64) {
        for number in 0..times {
            let signal = Arc::new(Signal {
                kind: SignalKind::LoginFailed,
                at: Timestamp::from_secs(1_000 + number),
                service: 0,
                address: address(last),
                flow: Some(FlowId(u64::from(last))),
                detail: Detail::default(),
            });
            peaks.take(&rules(), &signal, |_| false);
        }
    }

    fn costs(suggestion: &Suggestion) -> Vec<(u32, usize)> {
        suggestion.tried.iter().map(|one| (one.limit, one.false_positives)).collect()
    }

    #[test]
    fn the_limit_reached_and_what_each_would_have_cost_are_told() {
        let rules = rules();
        let mut peaks = Peaks::new(&rules);
        assert!(peaks.suggestion(&rules[0]).is_none());
        fail(&mut peaks, 1, 2);
        fail(&mut peaks, 2, 5);
        let found = peaks.suggestion(&rules[0]).unwrap();
        assert_eq!((found.false_positives, found.reached, found.proposed), (0, 5, 8));
        let costs = costs(&found);
        assert_eq!(costs[..4], [(1, 2), (2, 2), (3, 1), (5, 1)]);
        assert!(costs[4..].iter().all(|(_, hit)| *hit == 0), "{costs:?}");
    }

    #[test]
    fn limits_above_the_rules_own_are_told_too() {
        let rules = rules();
        let mut peaks = Peaks::new(&rules);
        fail(&mut peaks, 1, 25);
        let found = peaks.suggestion(&rules[0]).unwrap();
        assert_eq!((found.false_positives, found.reached, found.proposed), (1, 20, 30));
        assert_eq!(found.hit, ["203.0.113.1"]);
    }

    #[test]
    fn who_was_no_regular_counts_for_nothing_and_what_is_kept_says_so() {
        let rules = rules();
        let mut peaks = Peaks::new(&rules);
        fail(&mut peaks, 1, 9);
        fail(&mut peaks, 2, 3);
        assert_eq!(peaks.take_changed().len(), 2);
        peaks.forget(address(1));
        let id = rules[0].id.clone();
        assert_eq!(peaks.take_changed(), [(id.clone(), address(1), None)]);
        assert_eq!(peaks.suggestion(&rules[0]).unwrap().reached, 3);
        let mut restarted = Peaks::new(&rules);
        restarted.restore(id, address(2), Peak { count: 3, at: Timestamp::from_secs(1_002) });
        assert_eq!(restarted.suggestion(&rules[0]).unwrap().reached, 3);
        restarted.forget_before(Timestamp::from_secs(1_003));
        assert_eq!(restarted.suggestion(&rules[0]).unwrap().reached, 0);
    }

    #[test]
    fn those_who_came_furthest_are_kept() {
        let mut reached = Reached::default();
        for number in 0..3 * ADDRESSES_MAX as u32 {
            reached.note(address(number), Peak { count: number, at: Timestamp::EPOCH });
        }
        assert_eq!(reached.by_address.len(), ADDRESSES_MAX);
        let least = reached.by_address.values().map(|peak| peak.count).min();
        assert_eq!(least, Some(2 * ADDRESSES_MAX as u32));
    }
}
