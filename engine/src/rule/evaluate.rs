//! From signals to findings: which rule's limit was reached, by whom, and who contributed.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, Hash, Hasher},
    iter,
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
    limits::{CLAIMED_COUNTERS_MAX, COUNTERS_MAX, EVIDENCE_LINES_MAX, FLOWS_MAX, SUBJECTS_MAX, VACANT_MAX},
    signal::{AtHand, EvidenceClass, FlowId, Signal, SignalKind},
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
    /// Somebody to whom something is done.
    Target(Text),
    /// One message text, by its keyed hash.
    Content(u64),
    /// One site that messages name, by its keyed hash.
    Link(u64),
    /// The whole service.
    Service,
    /// What one address has of the allowance in what is counted by something else: a channel, a target, a text.
    Share(Address, u64),
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
            By::Channel => detail.channel.as_ref().map(folded).map(Self::Channel),
            By::Content => detail.content.map(|content| Self::Content(content.alike)),
            By::Link => detail.content?.site.map(Self::Link),
            By::Service => Some(Self::Service),
            By::Target => detail.target.as_ref().map(folded).map(Self::Target),
            By::Kind => None,
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
            Self::Target(name) => write!(f, "target {name}"),
            Self::Content(_) => f.write_str("one text"),
            Self::Link(_) => f.write_str("one site"),
            Self::Service => f.write_str("service"),
            Self::Share(address, _) => write!(f, "{address}"),
        }
    }
}

impl Finding<'_> {
    /// Whether the rule's limit is reached, and not only one more has joined those who had reached it.
    pub const fn is_reached(&self, rule: &Rule) -> bool {
        self.count >= rule.limit
    }
}

/// Servers take a name in any letter case.
fn folded(name: &Text) -> Text {
    if name.as_str().bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Text::from(name.as_str().to_ascii_lowercase().as_str());
    }
    name.clone()
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
    pub signal: &'a AtHand<'a>,
    /// How many there were.
    pub count: u32,
    /// Which addresses contributed, and how often, where the subject is not an address itself.
    pub contributors: Vec<(Address, u32)>,
    /// The most that one of all of them has, or had when the limit was reached.
    pub most: u32,
    /// The last few signals.
    pub evidence: &'a VecDeque<Arc<Signal>>,
}

/// The running counts of one service's rules.
#[derive(Debug)]
pub struct Evaluation {
    /// The rules that a kind of signal concerns, by kind.
    by_kind: Vec<Concerned>,
    counts: Counts,
    /// Of rules that rest on nothing but packets in whose name anybody can send them: what a million forged sources
    /// count takes no room from what real connections do.
    claimed: Counts,
}

/// Rules that one kind of signal concerns, in the order of their files.
#[derive(Clone, Debug, Default)]
struct Concerned {
    /// Those with an allowance: nearly all end there, after one look-up for each way of sharing it.
    allowances: Vec<(Shared, Vec<(usize, Part)>)>,
    /// Neighbours that count by the same are asked for their counts together: that is one look-up, and most rules count by
    /// address.
    groups: Vec<Group>,
}

/// Rules that count by the same, in the same table.
#[derive(Clone, Debug)]
struct Group {
    by: By,
    /// They rest on nothing but what can be forged.
    is_claim: bool,
    rules: Vec<(usize, Part)>,
}

impl Concerned {
    /// Whether there are any.
    const fn is_somebody(&self) -> bool {
        !self.allowances.is_empty() || !self.groups.is_empty()
    }
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

/// Whose an allowance is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shared {
    /// Each connection's: what is counted is its own address's doing.
    ByConnection,
    /// Each address's, for each of what is counted by: many connections of one address are no crowd.
    ByAddress(By),
}

impl Shared {
    fn of(rule: &Rule) -> Self {
        let is_of_others =
            matches!(rule.by, By::Account | By::Channel | By::Target | By::Content | By::Link | By::Service);
        // What comes before is a connection's, whatever it comes before.
        if is_of_others && rule.after.is_none() { Self::ByAddress(rule.by) } else { Self::ByConnection }
    }
}

/// How long the counts of a connection that is over wait for the next one of its address.
const VACANT_FOR: Span = Span::from_secs(600);

#[derive(Debug)]
struct Counts {
    counters: BoundedMap<Subject, Counted>,
    /// Connections that go on with the counts of an earlier one of their address.
    heirs: BoundedMap<FlowId, FlowId>,
    /// What connections that are over have counted, by address: the last ones, at most [`VACANT_MAX`], and when they ended.
    vacant: BoundedMap<Address, VecDeque<(FlowId, Timestamp)>>,
    /// What the signal at hand has brought beyond the allowances: the rule, whose allowance it is, and how far.
    beyond: Vec<(usize, Subject, u32)>,
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
    fn position(&self, index: usize) -> Option<usize> {
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        self.rules.iter().position(|known| *known == number)
    }

    /// The tally of a rule, made if absent, and whether it is new.
    fn tally(&mut self, index: usize, make: impl FnOnce() -> Tally) -> (Option<&mut Tally>, bool) {
        let found = self.position(index);
        if found.is_none() {
            if self.tallies.is_empty() {
                // Most of many have but this one.
                self.rules.reserve_exact(1);
                self.tallies.reserve_exact(1);
            }
            self.rules.push(u16::try_from(index).unwrap_or(u16::MAX));
            self.tallies.push(make());
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
    /// With an allowance: what each of those who have one has counted beyond it, as of when they last did. No more of them than
    /// the limit, since each counts.
    parties: BTreeMap<Subject, u32>,
    /// What the count is held against, counted alike.
    against: Option<Box<Count>>,
    /// Kept only where the subject is not an address.
    contributors: Option<Contributors>,
    /// A rule that fired goes on collecting contributors until then.
    active_until: Timestamp,
    /// The most that one contributor had when it fired.
    most: u32,
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

impl Count {
    fn new(rule: &Rule, seed: u64) -> Self {
        match rule.distinct {
            Some(_) => Self::Distinct(DistinctCount::new(seed)),
            None => Self::Signals(SlidingCount::default()),
        }
    }

    /// Counts so many, or one value, and answers how many lie within the window now. `None` where values are told apart and
    /// there is none. Counts of different values below `enough` may hold some that have left the window.
    fn add(
        &mut self,
        amount: u32,
        distinct: Option<u64>,
        at: Timestamp,
        within: Span,
        enough: u32,
    ) -> Option<u32> {
        match (self, distinct) {
            (Self::Signals(count), _) => Some(count.add(amount, at, within)),
            (Self::Distinct(count), Some(value)) => Some(count.count(value, at, within, enough)),
            (Self::Distinct(_), None) => None,
        }
    }

    fn held(&mut self, at: Timestamp, within: Span) -> u32 {
        match self {
            Self::Signals(count) => count.held(at, within),
            Self::Distinct(count) => count.held(at, within),
        }
    }
}

impl Evaluation {
    /// No counts yet; `seed` keys the tables.
    pub fn new(rules: &[Rule], seed: u64) -> Self {
        Self::with_capacity(rules, seed, COUNTERS_MAX)
    }

    /// The same with room for fewer counters.
    pub fn with_capacity(rules: &[Rule], seed: u64, capacity: usize) -> Self {
        let mut by_kind = vec![Concerned::default(); SignalKind::ALL.len()];
        for (index, rule) in rules.iter().enumerate() {
            let counted = rule.signals.iter().map(|kind| (*kind, Part::Counted));
            let before = rule.after.iter().flat_map(|after| &after.signals).map(|kind| (*kind, Part::Before));
            let against =
                rule.against.iter().flat_map(|against| &against.signals).map(|kind| (*kind, Part::Against));
            let kinds: Vec<(SignalKind, Part)> = counted.chain(before).chain(against).collect();
            let is_claim = kinds.iter().all(|(kind, _)| kind.evidence() == EvidenceClass::Spoofable);
            for (kind, part) in kinds {
                let Some(Concerned { allowances, groups }) = by_kind.get_mut(kind as usize) else { continue };
                if rule.allowance.is_some() && part != Part::Against {
                    let shared = Shared::of(rule);
                    match allowances.iter_mut().find(|(other, _)| *other == shared) {
                        Some((_, rules)) => rules.push((index, part)),
                        None => allowances.push((shared, vec![(index, part)])),
                    }
                    continue;
                }
                match groups.last_mut() {
                    Some(last) if last.by == rule.by && last.is_claim == is_claim => {
                        last.rules.push((index, part))
                    }
                    _ => groups.push(Group { by: rule.by, is_claim, rules: vec![(index, part)] }),
                }
            }
        }
        let claimed = Counts::new(capacity.min(CLAIMED_COUNTERS_MAX), seed);
        Self { by_kind, counts: Counts::new(capacity, seed), claimed }
    }

    /// Whether a signal is of a kind that concerns no rule. Then only what its connection has counted changes hands, and that is
    /// done.
    pub fn passes(&mut self, signal: &Signal) -> bool {
        if self.by_kind.get(signal.kind as usize).is_some_and(Concerned::is_somebody) {
            return false;
        }
        let connection = self.counts.connection(signal);
        self.counts.vacate(signal, connection);
        true
    }

    /// Counts a signal in every rule it concerns and hands on what is found. `rules` are those it was made for.
    pub fn handle_signal(
        &mut self,
        rules: &[Rule],
        signal: &AtHand<'_>,
        level: Level,
        mut found: impl FnMut(&Rule, Finding<'_>) -> bool,
    ) {
        let Some(concerned) = self.by_kind.get(signal.kind as usize) else { return };
        let connection = self.counts.connection(signal);
        self.counts.spend(rules, &concerned.allowances, signal, connection, |_, _| {});
        self.counts.handle_excesses(rules, signal, |tally, (index, rule), subject, total| {
            let added = tally.join(rule, total, signal);
            tally.conclude((index, rule), subject, added, signal, level, &mut found)
        });
        let mut count = |tally: &mut Tally, (index, rule): (usize, &Rule), subject: &Subject, distinct| {
            if tally.is_one_of_many(rule, signal) {
                return;
            }
            if let Some(added) = tally.add(rule, distinct, signal, rule.limit)
                && tally.conclude((index, rule), subject, added, signal, level, &mut found)
            {
                tally.rearm();
            }
        };
        for group in &concerned.groups {
            let counts = if group.is_claim { &mut self.claimed } else { &mut self.counts };
            counts.handle_group(rules, group, signal, connection, &mut count);
        }
        self.counts.vacate(signal, connection);
    }

    /// Counts a signal in every rule it concerns, as if no limit were ever reached, and hands on how many there are: a limit of
    /// so many or fewer would have been. With the rule's index, the count, and whom it would have been laid at the door of.
    pub fn measure(
        &mut self,
        rules: &[Rule],
        signal: &AtHand<'_>,
        mut counted: impl FnMut(usize, u32, &mut dyn Iterator<Item = Address>),
    ) {
        let Some(concerned) = self.by_kind.get(signal.kind as usize) else { return };
        let connection = self.counts.connection(signal);
        self.counts.spend(rules, &concerned.allowances, signal, connection, |index, count| {
            counted(index, count, &mut iter::once(signal.address));
        });
        let mut measured = |tally: &Tally, (index, rule): (usize, &Rule), added: Added| {
            if !added.outweighs {
                return;
            }
            match &tally.contributors {
                Some(all) => {
                    let mut addresses = all.within(signal.at, rule.within).map(|(address, _)| address);
                    counted(index, added.count, &mut addresses);
                }
                None => counted(index, added.count, &mut iter::once(signal.address)),
            }
        };
        self.counts.handle_excesses(rules, signal, |tally, (index, rule), _, total| {
            let added = tally.join(rule, total, signal);
            measured(tally, (index, rule), added);
            false
        });
        let mut measure = |tally: &mut Tally, (index, rule): (usize, &Rule), _: &_, distinct| {
            if let Some(added) = tally.add(rule, distinct, signal, 1) {
                measured(tally, (index, rule), added);
            }
        };
        for group in &concerned.groups {
            let counts = if group.is_claim { &mut self.claimed } else { &mut self.counts };
            counts.handle_group(rules, group, signal, connection, &mut measure);
        }
        self.counts.vacate(signal, connection);
    }

    /// Counters held now, let go for lack of room since the start.
    pub const fn counters(&self) -> (usize, u64) {
        let held = self.counts.held.saturating_add(self.claimed.held);
        (held, self.counts.let_go.saturating_add(self.claimed.let_go))
    }
}

impl Counts {
    fn new(capacity: usize, seed: u64) -> Self {
        Self {
            counters: BoundedMap::new(capacity, seed),
            heirs: BoundedMap::new(FLOWS_MAX, seed),
            vacant: BoundedMap::new(SUBJECTS_MAX, seed),
            beyond: Vec::new(),
            capacity,
            held: 0,
            let_go: 0,
            hasher: FixedState::with_seed(seed),
            seed,
        }
    }

    /// The connection that a signal counts for: its own, or the earlier one whose counts it goes on with. Who comes back on a
    /// new connection does not begin anew.
    #[inline]
    fn connection(&mut self, signal: &Signal) -> Option<FlowId> {
        self.connection_of(signal, signal.flow?)
    }

    fn connection_of(&mut self, signal: &Signal, flow: FlowId) -> Option<FlowId> {
        if let Some(earlier) = self.heirs.get(&flow) {
            return Some(*earlier);
        }
        let Some(vacant) = self.vacant.get_mut(&signal.address) else { return Some(flow) };
        if signal.kind == SignalKind::ConnectionClosed || self.counters.get(&Subject::Session(flow)).is_some()
        {
            return Some(flow);
        }
        let earlier = vacant.pop_back();
        if vacant.is_empty() {
            self.vacant.remove(&signal.address);
        }
        let Some((earlier, _)) = earlier.filter(|(_, ended)| signal.at.since(*ended) <= VACANT_FOR) else {
            return Some(flow);
        };
        self.heirs.touch_or_insert(&flow, signal.at, || earlier, |_| true, |_, _| {});
        Some(earlier)
    }

    /// What a connection that is over has counted waits for the next one of its address.
    #[inline]
    fn vacate(&mut self, signal: &Signal, connection: Option<FlowId>) {
        if let (SignalKind::ConnectionClosed, Some(flow), Some(connection)) =
            (signal.kind, signal.flow, connection)
        {
            self.vacate_connection(signal, flow, connection);
        }
    }

    fn vacate_connection(&mut self, signal: &Signal, flow: FlowId, connection: FlowId) {
        self.heirs.remove(&flow);
        if self.counters.get(&Subject::Session(connection)).is_none() {
            return;
        }
        let (address, now) = (signal.address, signal.at);
        let vacant = self.vacant.touch_or_insert(&address, now, VecDeque::new, |_| true, |_, _| {});
        if let Some(vacant) = vacant {
            if vacant.len() >= VACANT_MAX {
                vacant.pop_front();
            }
            vacant.push_back((connection, now));
        }
    }

    /// Counts a signal against the allowances it falls under, notes the rules for which it goes beyond, and hands on how many
    /// there are of the others.
    fn spend(
        &mut self,
        rules: &[Rule],
        allowances: &[(Shared, Vec<(usize, Part)>)],
        signal: &AtHand<'_>,
        connection: Option<FlowId>,
        mut within: impl FnMut(usize, u32),
    ) {
        self.beyond.clear();
        let now = signal.at;
        for (shared, allowances) in allowances {
            let mut concerned = concerned(rules, allowances, signal);
            let Some(first) = concerned.next() else { continue };
            let Some(holder) = self.holder(*shared, signal, connection) else { continue };
            let mut gone = None;
            let Self { counters, held, hasher, seed, beyond, .. } = self;
            let Some(counted) =
                counters.touch_or_insert(&holder, now, Counted::default, |_| true, |_, old| gone = Some(old))
            else {
                continue;
            };
            for (index, rule, part) in iter::once(first).chain(concerned) {
                let (tally, is_new) = counted.tally(index, || Tally::of_holder(rule, *seed));
                *held += usize::from(is_new);
                let (Some(tally), Some(allowed)) = (tally, rule.allowed()) else { continue };
                if part == Part::Before {
                    tally.before = Some(now);
                    continue;
                }
                let distinct =
                    rule.distinct.and_then(|by| distinct_value(hasher, by, Some(signal.flow), signal));
                match tally.spend(rule, distinct, signal) {
                    Some(count) if count > allowed => {
                        beyond.push((index, holder.clone(), count.saturating_sub(allowed)));
                    }
                    Some(count) => within(index, count),
                    None => {}
                }
            }
            if let Some(gone) = gone {
                self.forget(&gone);
            }
        }
    }

    /// Whose the allowance is that a signal falls under.
    fn holder(&self, shared: Shared, signal: &Signal, connection: Option<FlowId>) -> Option<Subject> {
        match shared {
            Shared::ByConnection => connection.map(Subject::Session),
            Shared::ByAddress(by) => {
                let of = self.hasher.hash_one(Subject::of(by, signal)?);
                Some(Subject::Share(signal.address, of))
            }
        }
    }

    /// Adds what has gone beyond an allowance to that of the others of the same subject, and hands on the tallies with what that
    /// makes. If `conclude` says so, all of them begin anew.
    fn handle_excesses(
        &mut self,
        rules: &[Rule],
        signal: &AtHand<'_>,
        mut conclude: impl FnMut(&mut Tally, (usize, &Rule), &Subject, u32) -> bool,
    ) {
        if self.beyond.is_empty() {
            return;
        }
        let beyond = std::mem::take(&mut self.beyond);
        for (index, holder, excess) in &beyond {
            let Some(rule) = rules.get(*index) else { continue };
            let Some(subject) = Subject::of(rule.by, signal) else { continue };
            let mut parties = match self.excesses(*index, rule, &subject, signal.at) {
                Some(tally) => std::mem::take(&mut tally.parties),
                None => continue,
            };
            parties.insert(holder.clone(), *excess);
            let needed = rule.limit.saturating_sub(rule.allowed().unwrap_or(0));
            let sum = |parties: &BTreeMap<Subject, u32>| {
                parties.values().fold(0, |sum: u32, own| sum.saturating_add(*own))
            };
            if sum(&parties) >= needed {
                // Others may have fallen silent since.
                parties.retain(|other, own| {
                    *own = self.excess_of(*index, rule, other, signal.at);
                    *own > 0
                });
            }
            let total = sum(&parties);
            let Some(tally) = self.excesses(*index, rule, &subject, signal.at) else { continue };
            let is_over = conclude(tally, (*index, rule), &subject, total);
            if !is_over {
                tally.parties = parties;
                continue;
            }
            for party in parties.into_keys() {
                if let Some(tally) = self.of_holder(*index, &party) {
                    tally.rearm();
                }
            }
        }
        self.beyond = beyond;
    }

    /// The tally of a rule with an allowance.
    fn excesses(
        &mut self,
        index: usize,
        rule: &Rule,
        subject: &Subject,
        now: Timestamp,
    ) -> Option<&mut Tally> {
        let mut gone = None;
        let seed = self.seed;
        self.counters.touch_or_insert(subject, now, Counted::default, |_| true, |_, old| gone = Some(old))?;
        if let Some(gone) = gone {
            self.forget(&gone);
        }
        let (tally, is_new) = self.counters.get_mut(subject)?.tally(index, || Tally::new(rule, seed));
        self.held = self.held.saturating_add(usize::from(is_new));
        tally
    }

    fn of_holder(&mut self, index: usize, holder: &Subject) -> Option<&mut Tally> {
        let counted = self.counters.get_mut(holder)?;
        let at = counted.position(index)?;
        counted.tallies.get_mut(at)
    }

    /// What somebody counts beyond their allowance now.
    fn excess_of(&mut self, index: usize, rule: &Rule, holder: &Subject, now: Timestamp) -> u32 {
        let held = self.of_holder(index, holder).map(|tally| tally.count.held(now, rule.within));
        held.unwrap_or(0).saturating_sub(rule.allowed().unwrap_or(0))
    }

    /// Hands on the tallies in which rules count a signal, of rules that count by the same, with the value that is told apart.
    fn handle_group(
        &mut self,
        rules: &[Rule],
        Group { by, rules: group, .. }: &Group,
        signal: &AtHand<'_>,
        connection: Option<FlowId>,
        count: &mut impl FnMut(&mut Tally, (usize, &Rule), &Subject, Option<u64>),
    ) {
        let mut concerned = concerned(rules, group, signal);
        let Some(first) = concerned.next() else { return };
        let subject =
            if *by == By::Session { connection.map(Subject::Session) } else { Subject::of(*by, signal) };
        let Some(subject) = subject else { return };
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
        for (index, rule, part) in iter::once(first).chain(concerned) {
            let distinct = match rule.distinct.filter(|_| part != Part::Before) {
                Some(by) => match distinct_value(hasher, by, None, signal) {
                    Some(value) => Some(value),
                    None => continue,
                },
                None => None,
            };
            let (tally, is_new) = counted.tally(index, || Tally::new(rule, *seed));
            *held += usize::from(is_new);
            let Some(tally) = tally else { continue };
            match part {
                Part::Counted => count(tally, (index, rule), &subject, distinct),
                Part::Before => {
                    tally.before = Some(now);
                    tally.note(signal);
                }
                Part::Against => {
                    let against = tally.against.get_or_insert_with(|| Box::new(Count::new(rule, *seed)));
                    against.add(1, distinct, now, rule.within, u32::MAX);
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

/// The rules of a list that concern a signal, with their numbers and its part in them.
fn concerned<'r>(
    rules: &'r [Rule],
    list: &[(usize, Part)],
    signal: &Signal,
) -> impl Iterator<Item = (usize, &'r Rule, Part)> {
    list.iter().filter_map(move |(index, part)| {
        let rule = rules.get(*index)?;
        (*part != Part::Counted || rule.concerns(signal)).then_some((*index, rule, *part))
    })
}

/// Different addresses are told apart by /48 for IPv6: more cost nothing. With `flow`, what is the same on another connection is
/// something else.
fn distinct_value(hasher: &FixedState, by: By, flow: Option<Option<FlowId>>, signal: &Signal) -> Option<u64> {
    let mut hasher = hasher.build_hasher();
    if let Some(flow) = flow {
        flow.hash(&mut hasher);
    }
    if by == By::Address && !signal.address.is_v4() {
        (signal.address.high >> 16).hash(&mut hasher);
    } else if by == By::Kind {
        signal.kind.hash(&mut hasher);
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
            count: Count::new(rule, seed),
            before: None,
            parties: BTreeMap::new(),
            against: None,
            contributors: (!by_address).then(Contributors::default),
            active_until: Timestamp::EPOCH,
            most: 0,
            evidence: VecDeque::new(),
        }
    }

    /// What somebody has of their allowance.
    fn of_holder(rule: &Rule, seed: u64) -> Self {
        Self { contributors: None, ..Self::new(rule, seed) }
    }

    /// Counts a signal against an allowance, and answers how many there are.
    fn spend(&mut self, rule: &Rule, distinct: Option<u64>, signal: &Signal) -> Option<u32> {
        if rule.after.as_ref().is_some_and(|after| !self.is_soon(after.within, signal.at)) {
            return None;
        }
        let enough = rule.allowed().unwrap_or(0).saturating_add(1);
        self.count.add(rule.amount(signal), distinct, signal.at, rule.within, enough)
    }

    /// Takes note of a signal that goes beyond an allowance, with what all together have: one of them has the
    /// allowance counted.
    fn join(&mut self, rule: &Rule, total: u32, signal: &AtHand<'_>) -> Added {
        let count = total.saturating_add(rule.allowed().unwrap_or(0));
        self.weigh(rule, count, 1, signal)
    }

    /// Hands on what is found, if anything is. Whether the limit was reached.
    fn conclude(
        &mut self,
        (index, rule): (usize, &Rule),
        subject: &Subject,
        added: Added,
        signal: &AtHand<'_>,
        level: Level,
        found: &mut impl FnMut(&Rule, Finding<'_>) -> bool,
    ) -> bool {
        let Added { count, outweighs, own } = added;
        let at = signal.at;
        let reached = count >= rule.limit && level >= rule.level && outweighs;
        let joins = !reached && self.active_until > at;
        if !reached && !joins {
            return false;
        }
        let is_habit = |all: &Contributors, address: &Address| {
            rule.spares_habits() && all.is_habit(address, at, rule.within)
        };
        let contributors = match (&self.contributors, own) {
            (Some(all), _) if reached => {
                all.within(at, rule.within).filter(|(address, _)| !is_habit(all, address)).collect()
            }
            (Some(all), Some(_)) if is_habit(all, &signal.address) => return false,
            (Some(_), Some(own)) => vec![(signal.address, own)],
            _ => Vec::new(),
        };
        if reached {
            self.most = contributors.iter().map(|(_, count)| *count).max().unwrap_or(0);
        }
        let (evidence, most) = (&self.evidence, self.most);
        let stands =
            found(rule, Finding { rule: index, subject, signal, count, contributors, most, evidence });
        if stands && self.contributors.is_some() && rule.action != Action::Note {
            self.active_until = at + rule.within;
        }
        stands && reached
    }

    /// Counts a signal if nothing can come of it but that there is one more: signals are counted, by who did it, and the limit is
    /// further away than evidence is kept for. Most signals of a flood are such.
    #[inline]
    fn is_one_of_many(&mut self, rule: &Rule, signal: &Signal) -> bool {
        let Count::Signals(count) = &mut self.count else { return false };
        let is_plain = self.contributors.is_none()
            && !rule.sums_bytes
            && rule.after.is_none()
            && rule.against.is_none()
            && rule.limit > EVIDENCE_LINES_MAX as u32;
        is_plain && count.add_below(rule.limit - EVIDENCE_LINES_MAX as u32, signal.at, rule.within)
    }

    /// Counts a signal. Where values are told apart, counts below `enough` may hold some that have left the window.
    fn add(&mut self, rule: &Rule, distinct: Option<u64>, signal: &AtHand<'_>, enough: u32) -> Option<Added> {
        let at = signal.at;
        if rule.after.as_ref().is_some_and(|after| !self.is_soon(after.within, at)) {
            return None;
        }
        let is_new = match (&self.count, distinct) {
            (Count::Distinct(count), Some(value)) => !count.holds(value),
            (Count::Distinct(_) | Count::Signals(_), _) => true,
        };
        let count = self.count.add(rule.amount(signal), distinct, at, rule.within, enough)?;
        // That a place is held still is no other place.
        let is_another = is_new || signal.kind != SignalKind::ConnectionHeld;
        Some(self.weigh(rule, count, u32::from(is_another), signal))
    }

    /// Takes note of a signal that was counted.
    fn weigh(&mut self, rule: &Rule, count: u32, own: u32, signal: &AtHand<'_>) -> Added {
        let at = signal.at;
        // What lies further back than that is no evidence when the limit is reached, each counting for one at most.
        let is_near = count.saturating_add(EVIDENCE_LINES_MAX as u32) >= rule.limit;
        if is_near || rule.sums_bytes || rule.after.is_some() || self.active_until > at {
            self.note(signal);
        }
        let own = self.contributors.as_mut().map(|all| all.add(signal.address, own, at, rule.within));
        let outweighs = rule.against.as_ref().is_none_or(|against| {
            let others = self.against.as_mut().map_or(0, |count| count.held(at, rule.within));
            count >= others.saturating_mul(against.ratio)
        });
        Added { count, outweighs, own }
    }

    /// Whether what must come before has come, and not too long ago.
    fn is_soon(&self, within: Span, now: Timestamp) -> bool {
        self.before.is_some_and(|at| now.since(at) <= within)
    }

    fn note(&mut self, signal: &AtHand<'_>) {
        if self.evidence.len() >= EVIDENCE_LINES_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back(signal.keep());
    }

    /// A rule fires anew only when its limit is reached anew.
    fn rearm(&mut self) {
        match &mut self.count {
            Count::Signals(count) => count.clear(),
            Count::Distinct(count) => count.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
