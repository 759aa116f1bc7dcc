//! From signals to findings: which rule's limit was reached, by whom, and who contributed.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use floodwall_wire::Address;
use foldhash::quality::FixedState;

use super::{
    Action, By, Level, Rule,
    counter::{Contributors, DistinctCount, SlidingCount},
};
use crate::{
    bounded::BoundedMap,
    limits::{COUNTERS_MAX, EVIDENCE_LINES_MAX},
    signal::{FlowId, Signal, SignalKind},
    text::Text,
    time::{Span, Timestamp},
};

/// Whom a rule counts by.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// One address.
    Address(Address),
    /// The network an address lies in: IPv4 /24, IPv6 /64, by its first address.
    Prefix(Address),
    /// The site an address lies in: IPv4 /24, IPv6 /48, by its first address.
    Site(Address),
    /// One account.
    Account(Text),
    /// One identity.
    Identity(Text),
    /// One nickname.
    Nickname(Text),
    /// One connection.
    Session(FlowId),
    /// One channel.
    Channel(Text),
    /// One message text, by its keyed hash.
    Content(u64),
    /// The whole service.
    Service,
}

impl Subject {
    /// The subject of a signal; `None` if the signal does not have that field.
    pub fn of(by: By, signal: &Signal) -> Option<Self> {
        let detail = &signal.detail;
        match by {
            By::Address => Some(Self::Address(signal.address)),
            By::Prefix => Some(Self::Prefix(network(signal.address))),
            By::Site => Some(Self::Site(site(signal.address))),
            By::Account => detail.account.clone().map(Self::Account),
            By::Identity => detail.identity.clone().map(Self::Identity),
            By::Nickname => detail.nickname.clone().map(Self::Nickname),
            By::Session => signal.flow.map(Self::Session),
            By::Channel => detail.channel.clone().map(Self::Channel),
            By::Content => detail.content.map(Self::Content),
            By::Service => Some(Self::Service),
            By::Target => None,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Prefix(address) | Self::Site(address) if address.is_v4() => write!(f, "{address}/24"),
            Self::Prefix(address) => write!(f, "{address}/64"),
            Self::Site(address) => write!(f, "{address}/48"),
            Self::Account(name) => write!(f, "account {name}"),
            Self::Identity(name) => write!(f, "identity {name}"),
            Self::Nickname(name) => write!(f, "nickname {name}"),
            Self::Session(flow) => write!(f, "connection {}", flow.0),
            Self::Channel(name) => write!(f, "channel {name}"),
            Self::Content(_) => f.write_str("one text"),
            Self::Service => f.write_str("service"),
        }
    }
}

/// The first address of an address's network: IPv4 /24, IPv6 /64.
pub const fn network(address: Address) -> Address {
    match address.as_v4() {
        Some(bits) => Address::from_v4(bits & 0xffff_ff00),
        None => Address::from_v6(address.high, 0),
    }
}

/// The first address of an address's site: IPv4 /24, IPv6 /48.
pub const fn site(address: Address) -> Address {
    match address.as_v4() {
        Some(_) => network(address),
        None => Address::from_v6(address.high & !0xffff, 0),
    }
}

/// A rule's limit was reached. Borrowed: a flood makes one with every packet, and nearly all are put into words by nobody.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// Index of the rule in its rule set.
    pub rule: usize,
    /// Whom it counted by.
    pub subject: &'a Subject,
    /// The signal that reached the limit.
    pub signal: &'a Signal,
    /// How many there were.
    pub count: u32,
    /// Which addresses contributed, and how often, where the subject is not an address itself.
    pub contributors: Vec<(Address, u32)>,
    /// The last few signals.
    pub evidence: &'a VecDeque<Arc<Signal>>,
}

/// The running counts of one service's rules.
#[derive(Debug)]
pub struct Evaluation {
    /// Indices of the rules that a kind of signal concerns, and how, by kind.
    by_kind: Vec<Vec<(usize, Part)>>,
    counts: Counts,
}

/// The part a kind of signal plays in a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// It is counted.
    Counted,
    /// It comes before what is counted.
    Before,
    /// The count is held against it.
    Against,
}

#[derive(Debug)]
struct Counts {
    counters: BoundedMap<(u16, Subject), Tally>,
    hasher: FixedState,
    seed: u64,
}

#[derive(Debug)]
struct Tally {
    count: Count,
    /// When what must come before was last seen.
    before: Option<Timestamp>,
    /// How often what the count is held against was seen.
    against: Option<Box<SlidingCount>>,
    /// Kept only where the subject is not an address.
    contributors: Option<Contributors>,
    /// A rule that fired goes on collecting contributors until then.
    active_until: Timestamp,
    /// Written out only for what is done; rules that count the same signal share it.
    evidence: VecDeque<Arc<Signal>>,
}

#[derive(Debug)]
enum Count {
    Signals(SlidingCount),
    Distinct(DistinctCount),
}

impl Evaluation {
    /// No counts yet; `seed` keys the tables.
    pub fn new(rules: &[Rule], seed: u64) -> Self {
        let mut by_kind = vec![Vec::new(); SignalKind::ALL.len()];
        for (index, rule) in rules.iter().enumerate() {
            let counted = rule.signals.iter().map(|kind| (*kind, Part::Counted));
            let before = rule.after.iter().flat_map(|after| &after.signals).map(|kind| (*kind, Part::Before));
            let against =
                rule.against.iter().flat_map(|against| &against.signals).map(|kind| (*kind, Part::Against));
            for (kind, part) in counted.chain(before).chain(against) {
                if let Some(list) = by_kind.get_mut(kind as usize) {
                    list.push((index, part));
                }
            }
        }
        let counters = BoundedMap::new(COUNTERS_MAX, seed);
        Self { by_kind, counts: Counts { counters, hasher: FixedState::with_seed(seed), seed } }
    }

    /// Counts a signal in every rule it concerns and hands on what is found. `rules` are those it was made for.
    pub fn handle_signal(
        &mut self,
        rules: &[Rule],
        signal: &Signal,
        level: Level,
        mut found: impl FnMut(&Rule, Finding<'_>),
    ) {
        let Some(indices) = self.by_kind.get(signal.kind as usize) else { return };
        let mut evidence = Evidence { signal, shared: None, is_shared: indices.len() > 1 };
        for (index, part) in indices {
            let Some(rule) = rules.get(*index) else { continue };
            if *part != Part::Counted {
                self.counts.remember(*index, rule, *part, &mut evidence);
            } else if rule.concerns(signal) {
                self.counts.count(*index, rule, &mut evidence, level, &mut found);
            }
        }
    }

    /// Counters held now, let go for lack of room since the start.
    pub fn counters(&self) -> (usize, u64) {
        (self.counts.counters.len(), self.counts.counters.evicted())
    }
}

impl Counts {
    fn tally(&mut self, index: usize, rule: &Rule, subject: &Subject, now: Timestamp) -> Option<&mut Tally> {
        let key = (u16::try_from(index).unwrap_or(u16::MAX), subject.clone());
        let seed = self.seed;
        self.counters.touch_or_insert(&key, now, || Tally::new(rule, seed), |_| true, |_, _| {})
    }

    /// What a rule does not count, and needs to know all the same.
    fn remember(&mut self, index: usize, rule: &Rule, part: Part, evidence: &mut Evidence<'_>) {
        let signal = evidence.signal;
        let Some(subject) = Subject::of(rule.by, signal) else { return };
        let Some(tally) = self.tally(index, rule, &subject, signal.at) else { return };
        if part == Part::Before {
            tally.before = Some(signal.at);
            tally.note(evidence);
        } else {
            tally.against.get_or_insert_default().count(signal.at, rule.within);
        }
    }

    fn count(
        &mut self,
        index: usize,
        rule: &Rule,
        evidence: &mut Evidence<'_>,
        level: Level,
        found: &mut impl FnMut(&Rule, Finding<'_>),
    ) {
        let signal = evidence.signal;
        let Some(subject) = Subject::of(rule.by, signal) else { return };
        let distinct = match rule.distinct.map(|by| self.distinct_value(by, signal)) {
            Some(None) => return,
            Some(value) => value,
            None => None,
        };
        let Some(tally) = self.tally(index, rule, &subject, signal.at) else { return };
        if rule.after.as_ref().is_some_and(|after| !tally.is_soon(after.within, signal.at)) {
            return;
        }
        let amount =
            if rule.sums_bytes { u32::try_from(signal.detail.weight).unwrap_or(u32::MAX) } else { 1 };
        let count = match (&mut tally.count, distinct) {
            (Count::Signals(count), _) => count.add(amount, signal.at, rule.within),
            (Count::Distinct(count), Some(value)) => count.count(value, signal.at, rule.within, rule.limit),
            (Count::Distinct(_), None) => return,
        };
        tally.note(evidence);
        let own = tally.contributors.as_mut().map(|all| all.count(signal.address, signal.at, rule.within));
        let outweighs = rule.against.as_ref().is_none_or(|against| {
            let others = tally.against.as_mut().map_or(0, |count| count.held(signal.at, rule.within));
            count >= others.saturating_mul(against.ratio)
        });
        let reached = count >= rule.limit && level >= rule.level && outweighs;
        let joins = !reached && tally.active_until > signal.at;
        if !reached && !joins {
            return;
        }
        if tally.contributors.is_some() && rule.action != Action::Note {
            tally.active_until = signal.at + rule.within;
        }
        let contributors = match (&tally.contributors, own) {
            (Some(all), _) if reached => all.within(signal.at, rule.within).collect(),
            (Some(_), Some(own)) => vec![(signal.address, own)],
            _ => Vec::new(),
        };
        let evidence = &tally.evidence;
        found(rule, Finding { rule: index, subject: &subject, signal, count, contributors, evidence });
        if reached {
            tally.rearm();
        }
    }

    /// Different addresses are told apart by /48 for IPv6: more cost nothing.
    fn distinct_value(&self, by: By, signal: &Signal) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        if by == By::Address && !signal.address.is_v4() {
            (signal.address.high >> 16).hash(&mut hasher);
        } else if by == By::Target {
            // Who or what it was done to: a user, else a channel, else the server.
            let detail = &signal.detail;
            detail.target.as_ref().or(detail.channel.as_ref()).hash(&mut hasher);
        } else {
            Subject::of(by, signal)?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// A signal on its way into the tallies of the rules that count it.
struct Evidence<'a> {
    signal: &'a Signal,
    shared: Option<Arc<Signal>>,
    /// More than one rule counts it.
    is_shared: bool,
}

impl Evidence<'_> {
    /// The signal to keep, in the place of one that nobody else keeps: a flood's evidence changes with every packet.
    fn keep(&mut self, oldest: Option<Arc<Signal>>) -> Arc<Signal> {
        if let Some(shared) = &self.shared {
            return Arc::clone(shared);
        }
        let kept = match oldest {
            Some(mut place) => {
                match Arc::get_mut(&mut place) {
                    Some(free) => free.clone_from(self.signal),
                    None => place = Arc::new(self.signal.clone()),
                }
                place
            }
            None => Arc::new(self.signal.clone()),
        };
        if self.is_shared {
            self.shared = Some(Arc::clone(&kept));
        }
        kept
    }
}

impl Tally {
    fn new(rule: &Rule, seed: u64) -> Self {
        let by_address = matches!(rule.by, By::Address | By::Session);
        Self {
            count: match rule.distinct {
                Some(_) => Count::Distinct(DistinctCount::new(seed)),
                None => Count::Signals(SlidingCount::default()),
            },
            before: None,
            against: None,
            contributors: (!by_address).then(Contributors::default),
            active_until: Timestamp::EPOCH,
            evidence: VecDeque::new(),
        }
    }

    /// Whether what must come before has come, and not too long ago.
    fn is_soon(&self, within: Span, now: Timestamp) -> bool {
        self.before.is_some_and(|at| now.since(at) <= within)
    }

    fn note(&mut self, evidence: &mut Evidence<'_>) {
        let oldest = if self.evidence.len() >= EVIDENCE_LINES_MAX { self.evidence.pop_front() } else { None };
        self.evidence.push_back(evidence.keep(oldest));
    }

    /// A rule fires anew only when its limit is reached anew.
    fn rearm(&mut self) {
        match &mut self.count {
            Count::Signals(count) => count.clear(),
            Count::Distinct(count) => count.clear(),
        }
    }
}
