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

impl Finding<'_> {
    /// Whether the rule's limit is reached, and not only one more has joined those who had reached it.
    pub const fn is_reached(&self, rule: &Rule) -> bool {
        self.count >= rule.limit
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
    pub signal: &'a Arc<Signal>,
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
    /// The rules that a kind of signal concerns, by kind.
    by_kind: Vec<Concerned>,
    counts: Counts,
}

/// Rules that one kind of signal concerns, in the order of their files. Neighbours that count by the same are asked for
/// their counts together: that is one look-up, and most rules count by address.
type Concerned = Vec<(By, Vec<(usize, Part)>)>;

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
    counters: BoundedMap<Subject, Counted>,
    /// Tallies held at most, and a few that one signal may bring.
    capacity: usize,
    /// Tallies of all subjects.
    held: usize,
    let_go: u64,
    hasher: FixedState,
    seed: u64,
}

/// What is counted of one subject, by rule.
#[derive(Debug, Default)]
struct Counted {
    rules: Vec<u16>,
    tallies: Vec<Tally>,
}

impl Counted {
    /// The tally of a rule, and whether it is new.
    fn tally(&mut self, index: usize, rule: &Rule, seed: u64) -> (Option<&mut Tally>, bool) {
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let found = self.rules.iter().position(|known| *known == number);
        if found.is_none() {
            self.rules.push(number);
            self.tallies.push(Tally::new(rule, seed));
        }
        let at = found.unwrap_or(self.tallies.len() - 1);
        (self.tallies.get_mut(at), found.is_none())
    }
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

/// What came of counting a signal.
#[derive(Clone, Copy, Debug)]
struct Added {
    count: u32,
    /// What the count is held against does not outweigh it.
    outweighs: bool,
    /// How much of it is the signal's own address's, where the subject is not an address.
    own: Option<u32>,
}

#[derive(Debug)]
enum Count {
    Signals(SlidingCount),
    Distinct(DistinctCount),
}

impl Evaluation {
    /// No counts yet; `seed` keys the tables.
    pub fn new(rules: &[Rule], seed: u64) -> Self {
        Self::with_capacity(rules, seed, COUNTERS_MAX)
    }

    /// The same with room for fewer counters.
    pub fn with_capacity(rules: &[Rule], seed: u64, capacity: usize) -> Self {
        let mut by_kind = vec![Concerned::new(); SignalKind::ALL.len()];
        for (index, rule) in rules.iter().enumerate() {
            let counted = rule.signals.iter().map(|kind| (*kind, Part::Counted));
            let before = rule.after.iter().flat_map(|after| &after.signals).map(|kind| (*kind, Part::Before));
            let against =
                rule.against.iter().flat_map(|against| &against.signals).map(|kind| (*kind, Part::Against));
            for (kind, part) in counted.chain(before).chain(against) {
                let Some(groups) = by_kind.get_mut(kind as usize) else { continue };
                match groups.last_mut() {
                    Some((by, group)) if *by == rule.by => group.push((index, part)),
                    _ => groups.push((rule.by, vec![(index, part)])),
                }
            }
        }
        let counters = BoundedMap::new(capacity, seed);
        let hasher = FixedState::with_seed(seed);
        Self { by_kind, counts: Counts { counters, capacity, held: 0, let_go: 0, hasher, seed } }
    }

    /// Counts a signal in every rule it concerns and hands on what is found. `rules` are those it was made for.
    pub fn handle_signal(
        &mut self,
        rules: &[Rule],
        signal: &Arc<Signal>,
        level: Level,
        mut found: impl FnMut(&Rule, Finding<'_>),
    ) {
        let Some(concerned) = self.by_kind.get(signal.kind as usize) else { return };
        for (by, group) in concerned {
            self.counts.handle_group(
                rules,
                *by,
                group,
                signal,
                &mut |tally, (index, rule), subject, distinct| {
                    tally.count((index, rule), subject, distinct, signal, level, &mut found);
                },
            );
        }
    }

    /// Counts a signal in every rule it concerns, as if no limit were ever reached, and hands on how many there are: a limit of
    /// so many or fewer would have been. With the rule's index, the count, and whom it would have been laid at the door of.
    pub fn measure(
        &mut self,
        rules: &[Rule],
        signal: &Arc<Signal>,
        mut counted: impl FnMut(usize, u32, &mut dyn Iterator<Item = Address>),
    ) {
        let Some(concerned) = self.by_kind.get(signal.kind as usize) else { return };
        for (by, group) in concerned {
            self.counts.handle_group(rules, *by, group, signal, &mut |tally, (index, rule), _, distinct| {
                let Some(Added { count, outweighs: true, .. }) = tally.add(rule, distinct, signal, 1) else {
                    return;
                };
                match &tally.contributors {
                    Some(all) => {
                        let mut addresses = all.within(signal.at, rule.within).map(|(address, _)| address);
                        counted(index, count, &mut addresses);
                    }
                    None => counted(index, count, &mut std::iter::once(signal.address)),
                }
            });
        }
    }

    /// Counters held now, let go for lack of room since the start.
    pub const fn counters(&self) -> (usize, u64) {
        (self.counts.held, self.counts.let_go)
    }
}

impl Counts {
    /// Hands on the tallies in which rules count a signal, of rules that count by the same, with the value that is told apart.
    fn handle_group(
        &mut self,
        rules: &[Rule],
        by: By,
        group: &[(usize, Part)],
        signal: &Arc<Signal>,
        count: &mut impl FnMut(&mut Tally, (usize, &Rule), &Subject, Option<u64>),
    ) {
        let concerned = |(index, part): &(usize, Part)| {
            let rule = rules.get(*index)?;
            (*part != Part::Counted || rule.concerns(signal)).then_some((*index, *part, rule))
        };
        let Some(first) = group.iter().position(|one| concerned(one).is_some()) else { return };
        let Some(subject) = Subject::of(by, signal) else { return };
        let now = signal.at;
        // The last signal may have brought it over its bound by a few.
        while self.held > self.capacity {
            let Some((_, gone)) = self.counters.evict(|_| true) else { break };
            self.forget(&gone);
        }
        let mut gone = None;
        let Self { counters, held, hasher, seed, .. } = self;
        let Some(counted) =
            counters.touch_or_insert(&subject, now, Counted::default, |_| true, |_, old| gone = Some(old))
        else {
            return;
        };
        for (index, part) in group.get(first..).unwrap_or_default() {
            let Some(rule) = rules.get(*index) else { continue };
            if *part == Part::Counted && !rule.concerns(signal) {
                continue;
            }
            let distinct = match rule.distinct.filter(|_| *part == Part::Counted) {
                Some(by) => match distinct_value(hasher, by, signal) {
                    Some(value) => Some(value),
                    None => continue,
                },
                None => None,
            };
            let (tally, is_new) = counted.tally(*index, rule, *seed);
            *held += usize::from(is_new);
            let Some(tally) = tally else { continue };
            match part {
                Part::Counted => count(tally, (*index, rule), &subject, distinct),
                Part::Before => {
                    tally.before = Some(now);
                    tally.note(signal);
                }
                Part::Against => {
                    tally.against.get_or_insert_default().count(now, rule.within);
                }
            }
        }
        if let Some(gone) = gone {
            self.forget(&gone);
        }
    }

    const fn forget(&mut self, gone: &Counted) {
        self.held = self.held.saturating_sub(gone.rules.len());
        self.let_go = self.let_go.saturating_add(gone.rules.len() as u64);
    }
}

/// Different addresses are told apart by /48 for IPv6: more cost nothing.
fn distinct_value(hasher: &FixedState, by: By, signal: &Signal) -> Option<u64> {
    let mut hasher = hasher.build_hasher();
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

    /// Counts a signal, and hands on what is found by it.
    fn count(
        &mut self,
        (index, rule): (usize, &Rule),
        subject: &Subject,
        distinct: Option<u64>,
        signal: &Arc<Signal>,
        level: Level,
        found: &mut impl FnMut(&Rule, Finding<'_>),
    ) {
        let Some(Added { count, outweighs, own }) = self.add(rule, distinct, signal, rule.limit) else {
            return;
        };
        let at = signal.at;
        let reached = count >= rule.limit && level >= rule.level && outweighs;
        let joins = !reached && self.active_until > at;
        if !reached && !joins {
            return;
        }
        if self.contributors.is_some() && rule.action != Action::Note {
            self.active_until = at + rule.within;
        }
        let contributors = match (&self.contributors, own) {
            (Some(all), _) if reached => all.within(at, rule.within).collect(),
            (Some(_), Some(own)) => vec![(signal.address, own)],
            _ => Vec::new(),
        };
        let evidence = &self.evidence;
        found(rule, Finding { rule: index, subject, signal, count, contributors, evidence });
        if reached {
            self.rearm();
        }
    }

    /// Counts a signal. Where values are told apart, counts below `enough` may hold some that have left the window.
    fn add(
        &mut self,
        rule: &Rule,
        distinct: Option<u64>,
        signal: &Arc<Signal>,
        enough: u32,
    ) -> Option<Added> {
        let (at, weight) = (signal.at, signal.detail.weight);
        if rule.after.as_ref().is_some_and(|after| !self.is_soon(after.within, at)) {
            return None;
        }
        let amount = if rule.sums_bytes { u32::try_from(weight).unwrap_or(u32::MAX) } else { 1 };
        let count = match (&mut self.count, distinct) {
            (Count::Signals(count), _) => count.add(amount, at, rule.within),
            (Count::Distinct(count), Some(value)) => count.count(value, at, rule.within, enough),
            (Count::Distinct(_), None) => return None,
        };
        self.note(signal);
        let own = self.contributors.as_mut().map(|all| all.count(signal.address, at, rule.within));
        let outweighs = rule.against.as_ref().is_none_or(|against| {
            let others = self.against.as_mut().map_or(0, |count| count.held(at, rule.within));
            count >= others.saturating_mul(against.ratio)
        });
        Some(Added { count, outweighs, own })
    }

    /// Whether what must come before has come, and not too long ago.
    fn is_soon(&self, within: Span, now: Timestamp) -> bool {
        self.before.is_some_and(|at| now.since(at) <= within)
    }

    fn note(&mut self, signal: &Arc<Signal>) {
        if self.evidence.len() >= EVIDENCE_LINES_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back(Arc::clone(signal));
    }

    /// A rule fires anew only when its limit is reached anew.
    fn rearm(&mut self) {
        match &mut self.count {
            Count::Signals(count) => count.clear(),
            Count::Distinct(count) => count.clear(),
        }
    }
}
