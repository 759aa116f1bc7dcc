//! Decisions: from findings to commands, with the brakes on.
//!
//! A rule says what it would do; here it is decided what is done, and to whom:
//!
//! - an address is banned only on evidence it cannot have been lent by a forger (rule files refuse the rest);
//! - a finding about a network, an account or a whole service is laid at the door of those who contributed,
//!   never of their neighbours: at once if they did so often, after a little patience otherwise, not at all if
//!   they have meanwhile logged in with a password. A mistyped password is followed by the right one;
//! - failed logins that the right password has followed are nobody's attack, nor are those of people who are known; where
//!   different accounts failed from one address on different connections, as in a house or at a bouncer after a restart, the first finding waits for
//!   that as well, the second does not;
//! - a whole IPv6 /64 is banned only when many of its addresses contributed and nobody in it behaves well;
//! - behind an address with several other good sessions, the offending connection is cut, not the house;
//! - no more than [`BANS_PER_MINUTE_MAX`] bans a minute, and of those who are known no more than one in
//!   [`KNOWN_PER_BAN`] within [`KNOWN_BANS_WITHIN`]; beyond that the address is limited.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use floodwall_wire::Address;

use crate::{
    baseline::{CALM, INTERVAL, Pressure},
    bounded::BoundedMap,
    command::{Command, Explanation, Front, Merit, Prefix},
    ledger::{Ban, Ledger},
    limits::{ACCOUNTS_PER_ADDRESS_MAX, SESSIONS_PER_ADDRESS_MAX, SUBJECTS_MAX},
    rule::{
        Action, By, Level, Rule, RuleId,
        counter::SlidingCount,
        evaluate::{Finding, Subject, network, site},
    },
    signal::{EvidenceClass, FlowId, Method, Signal, SignalKind},
    tenure::Tenures,
    text::Text,
    time::{Span, Timestamp},
};

/// How long an address stays known after a login with a password.
pub const KNOWN_FOR: Span = Span::from_secs(30 * 24 * 3_600);
/// How long after a login of any kind an address is no stranger to the count of strangers.
const FAMILIAR_FOR: Span = Span::from_secs(7 * 24 * 3_600);
/// Bans made per minute at most.
pub const BANS_PER_MINUTE_MAX: u32 = 120;
/// In whose name the level is raised when more strangers come than usual.
pub const PRESSURE_RULE: &str = "floodwall/pressure";
/// Addresses of one IPv4 /24 or IPv6 /48 that are known by their logins at a time.
pub const KNOWN_PER_SITE: usize = 64;
const MINUTE: Span = Span::from_secs(60);
/// Of so many who are known, one may be banned...
pub const KNOWN_PER_BAN: usize = 20;
/// ...within this time. If more of them seem to have turned bad at once, a rule is wrong and not they.
pub const KNOWN_BANS_WITHIN: Span = Span::from_secs(3_600);
/// So many of them may be banned however few there are.
const KNOWN_BANS_MIN: usize = 3;
/// Contributions to a finding from which on a contributor is sanctioned without patience.
const CONTRIBUTIONS_PLAIN: u32 = 3;
/// The same of somebody who is known.
const CONTRIBUTIONS_OF_KNOWN: u32 = 6;
/// How long others are given before a limit.
const PATIENCE: Span = Span::from_secs(15);
/// How long somebody is given to find the right password after all.
const PATIENCE_TO_LOG_IN: Span = Span::from_secs(45);
/// Findings about one address that are taken for mistakes within this time, if they are made good...
const MISTAKEN_WITHIN: Span = Span::from_secs(1_800);
/// ...are so many;
const MADE_GOOD_MAX: u32 = 3;
/// and so many while there is still patience for them to be.
const MISTAKEN_MAX: u32 = 3;
/// Accounts that failed from one address, each on a connection of its own, from which on they may be several people's.
const MISTAKEN_ACCOUNTS: usize = 3;
/// Contributing addresses of one /64 from which on it is treated as one.
const ROTATING_ADDRESSES: usize = 16;
/// Other logged-in sessions behind an address from which on it counts as shared.
const SHARED_SESSIONS: usize = 2;
/// How long a session without an account of its own lasts before it counts as somebody.
const LASTING: Span = Span::from_secs(120);
/// Who had been there for a while and comes back so soon is no newcomer.
const COMES_BACK_WITHIN: Span = Span::from_secs(600);
/// How long guests must have been there to be others than whoever floods from their address.
const NEIGHBOURS_AFTER: Span = Span::from_secs(20);
/// Networks from which one account may log in before it is everybody's account and proves nothing.
const ACCOUNT_NETWORKS_MAX: usize = 4;
/// Networks in which somebody is logged in with one account at the same time from which on it is everybody's.
const ACCOUNT_NETWORKS_AT_ONCE: usize = 3;
/// Networks from which one account logs in...
const ACCOUNT_NETWORKS_SOON: usize = 6;
/// ...within this time, from which on it is everybody's: no telephone travels so fast.
const ACCOUNT_SOON: Span = Span::from_secs(180);
/// Resets of a shared address within [`RESETS_WITHIN`] from which on it is limited as well.
const RESETS_MAX: u32 = 10;
/// See [`RESETS_MAX`].
const RESETS_WITHIN: Span = Span::from_secs(600);
/// An offence counts as a repeat for this long.
const REPEAT_WITHIN: Span = Span::from_secs(7 * 24 * 3_600);

/// What is decided, and what decisions rest on.
#[derive(Debug)]
pub struct Decisions {
    people: BoundedMap<Address, Person>,
    /// When somebody in a network last logged in with a password.
    good_networks: BoundedMap<Address, Timestamp>,
    /// The same, by IPv6 /48.
    good_sites: BoundedMap<Address, Timestamp>,
    accounts: BoundedMap<(u8, Text), Account>,
    suspects: BTreeMap<Address, Suspect>,
    levels: BTreeMap<(u8, Front, Cause), Alarm>,
    tenures: Tenures,
    /// Who has logged in with a password of their own, and when last, by IPv4 /24 or IPv6 /48.
    known_of_sites: BoundedMap<Address, Vec<(Address, Timestamp)>>,
    bans_made: SlidingCount,
    known_bans_made: SlidingCount,
    bans_braked: u64,
}

/// From where an account logged in.
#[derive(Debug, Default)]
struct Account {
    networks: BTreeSet<Address>,
    /// Addresses that became known by it: at most [`ACCOUNT_NETWORKS_MAX`].
    made_known: Vec<Address>,
    /// The networks of the last logins, each once: at most [`ACCOUNT_NETWORKS_SOON`].
    lately: VecDeque<(Address, Timestamp)>,
}

impl Account {
    /// Notes a login; whether there were logins from too many networks lately.
    fn is_everywhere(&mut self, signal: &Signal) -> bool {
        let place = network(signal.address);
        self.lately.retain(|(other, at)| *other != place && signal.at.since(*at) < ACCOUNT_SOON);
        self.lately.push_back((place, signal.at));
        if self.lately.len() > ACCOUNT_NETWORKS_SOON {
            self.lately.pop_front();
        }
        self.lately.len() >= ACCOUNT_NETWORKS_SOON
    }
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Person {
    /// Last login with a password of its own.
    logged_in_at: Option<Timestamp>,
    /// Last login of any kind.
    came_at: Option<Timestamp>,
    /// Connections on which somebody is logged in.
    sessions: BTreeMap<FlowId, LoggedIn>,
    /// How many had been there for a while when one of them ended, and when that was.
    crowd: Option<(usize, Timestamp)>,
    /// Sessions at a voice port, which have no connection: whatever is forged in their name costs them nothing.
    voice_sessions: u32,
    /// Accounts of their own that logged in from here, and when last.
    accounts: BTreeMap<Text, Timestamp>,
    offences: u32,
    offended_at: Timestamp,
    limited_until: Timestamp,
    /// It is limited for a little that may have been a mistake.
    is_suspected: bool,
    resets: SlidingCount,
    /// Rules whose findings were taken for mistakes: since when, and how many.
    mistaken: Vec<(RuleId, Timestamp, u32)>,
    /// Noted instead of banned until then.
    grace_until: Timestamp,
}

impl Person {
    /// Whether it is limited for as long as the rule would limit it.
    fn is_limited(&self, now: Timestamp, rule: &Rule) -> bool {
        is_fresh(self.limited_until, now, rule.duration)
    }

    fn end_session(&mut self, flow: FlowId, now: Timestamp) {
        // Hundreds end at once, and are counted once a second.
        let is_counted = self.crowd.is_some_and(|(_, at)| now.since(at) < Span::from_secs(1))
            || !self.sessions.contains_key(&flow);
        if !is_counted {
            let lasting = self.lasting_sessions(now);
            if lasting >= self.crowd(now) && lasting > 0 {
                self.crowd = Some((lasting, now));
            }
        }
        self.sessions.remove(&flow);
    }

    fn lasting_sessions(&self, now: Timestamp) -> usize {
        self.sessions.values().filter(|session| now.since(session.since) >= LASTING).count()
    }

    /// How many have been there for a while, or had been lately.
    fn crowd(&self, now: Timestamp) -> usize {
        let before = self.crowd.filter(|(_, at)| now.since(*at) < COMES_BACK_WITHIN);
        before.map_or(0, |(count, _)| count).max(self.lasting_sessions(now))
    }

    /// Whether somebody has logged in with a password of their own.
    fn behaves_well(&self, now: Timestamp) -> bool {
        self.logged_in_at.is_some_and(|at| now.since(at) < KNOWN_FOR)
    }

    /// Whether the right password has followed a login that failed.
    fn has_made_good(&self, failed: &Signal) -> bool {
        let Some(account) = &failed.detail.account else { return false };
        let is_later = |at: Timestamp| at >= failed.at;
        self.accounts.get(account).is_some_and(|at| is_later(*at))
            || self
                .sessions
                .values()
                .any(|session| session.account.as_ref() == Some(account) && is_later(session.since))
    }

    /// Whether one more finding of a rule may be taken for mistakes: so many within [`MISTAKEN_WITHIN`]. Whatever somebody makes
    /// look like mistakes, with an account of their own to make them good, comes to an end.
    fn may_be_mistaken(
        &mut self,
        rule: &RuleId,
        is_reached: bool,
        (most, patience): (u32, Span),
        now: Timestamp,
    ) -> bool {
        let at = self.mistaken.iter().position(|(other, ..)| other == rule).unwrap_or(self.mistaken.len());
        if at == self.mistaken.len() {
            self.mistaken.push((rule.clone(), now, 0));
        }
        let Some((_, since, count)) = self.mistaken.get_mut(at) else { return false };
        if now.since(*since) > MISTAKEN_WITHIN {
            (*since, *count) = (now, 0);
        }
        if !is_reached && *count > 0 {
            return true;
        }
        *count = count.saturating_add(1);
        *count <= most && now.since(*since) <= patience
    }
}

/// Whose an address is besides the offender's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Others {
    /// Nobody's that anything is known of.
    None,
    /// Guests', who have been there for a while. That costs nothing.
    Guests,
    /// People's with accounts of their own.
    People,
}

/// Somebody logged in on one connection.
#[derive(Debug)]
struct LoggedIn {
    since: Timestamp,
    /// The account, if it is somebody's own.
    account: Option<Text>,
}

/// Somebody who contributed a little to an attack, and may have only mistyped.
#[derive(Debug)]
struct Suspect {
    until: Timestamp,
    duration: Span,
    /// Several may have mistyped: one who logs in clears nobody but themselves.
    is_of_several: bool,
    grounds: Suspicion,
}

impl Suspect {
    fn new(rule: &Rule, finding: &Finding<'_>) -> Self {
        let patience = if rule.counts_failed_logins() { PATIENCE_TO_LOG_IN } else { PATIENCE };
        Self {
            until: finding.signal.at + patience,
            duration: rule.duration,
            is_of_several: false,
            grounds: Suspicion::new(rule, finding),
        }
    }
}

/// A finding that may come to nothing: nearly all do, so it is not put into words yet.
#[derive(Debug)]
struct Suspicion {
    rule: RuleId,
    why: Arc<str>,
    limit: u32,
    within: Span,
    subject: Subject,
    signal: Arc<Signal>,
    count: u32,
    evidence: VecDeque<Arc<Signal>>,
}

impl Suspicion {
    fn new(rule: &Rule, finding: &Finding<'_>) -> Self {
        Self {
            rule: rule.id.clone(),
            why: Arc::clone(&rule.why),
            limit: rule.limit,
            within: rule.within,
            subject: finding.subject.clone(),
            signal: Arc::clone(finding.signal),
            count: finding.count,
            evidence: finding.evidence.clone(),
        }
    }

    fn explain(&self) -> Explanation {
        Explanation {
            rule: self.rule.clone(),
            why: Arc::clone(&self.why),
            subject: self.subject.clone(),
            offender: self.signal.address,
            at: self.signal.at,
            count: self.count,
            limit: self.limit,
            within: self.within,
            evidence: self.evidence.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Why a service is alarmed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Cause {
    /// A rule said so.
    Rule,
    /// More strangers came than usual.
    Pressure,
}

#[derive(Debug)]
struct Alarm {
    level: Level,
    until: Timestamp,
    duration: Span,
}

impl Decisions {
    /// Nothing decided yet; `seed` keys the tables.
    pub fn new(seed: u64) -> Self {
        Self {
            people: BoundedMap::new(SUBJECTS_MAX, seed),
            good_networks: BoundedMap::new(SUBJECTS_MAX, seed),
            good_sites: BoundedMap::new(SUBJECTS_MAX, seed),
            accounts: BoundedMap::new(SUBJECTS_MAX, seed),
            suspects: BTreeMap::new(),
            levels: BTreeMap::new(),
            tenures: Tenures::new(seed),
            known_of_sites: BoundedMap::new(SUBJECTS_MAX, seed),
            bans_made: SlidingCount::default(),
            known_bans_made: SlidingCount::default(),
            bans_braked: 0,
        }
    }

    /// The highest of a service's levels.
    pub fn level(&self, service: u8) -> Level {
        Front::ALL.map(|front| self.level_of(service, front)).into_iter().max().unwrap_or_default()
    }

    /// The level of one class of a service's traffic.
    pub fn level_of(&self, service: u8, front: Front) -> Level {
        let alarms = [Cause::Rule, Cause::Pressure].map(|cause| self.level_by(service, front, cause));
        alarms.into_iter().max().unwrap_or_default()
    }

    /// The level that rules have raised: it is theirs to ask for. That many strangers come says nothing of those who log in.
    pub fn level_for_rules(&self, service: u8, front: Front) -> Level {
        self.level_by(service, front, Cause::Rule)
    }

    fn level_by(&self, service: u8, front: Front, cause: Cause) -> Level {
        self.levels.get(&(service, front, cause)).map_or(Level::Normal, |alarm| alarm.level)
    }

    /// Bans that became limits because there were too many.
    pub const fn bans_braked(&self) -> u64 {
        self.bans_braked
    }

    /// Learns who logs in and out.
    pub fn handle_signal(&mut self, signal: &Signal, commands: &mut Vec<Command>) {
        self.tenures.handle_signal(signal);
        if signal.kind == SignalKind::LoginSucceeded {
            return self.on_login(signal, commands);
        }
        let ended = matches!(signal.kind, SignalKind::LoginEnded | SignalKind::ConnectionClosed);
        if let (true, Some(flow)) = (ended, signal.flow)
            && let Some(person) = self.people.touch(&signal.address, signal.at)
        {
            person.end_session(flow, signal.at);
        }
        let is_voice =
            signal.kind == SignalKind::LoginEnded && signal.detail.method == Some(Method::Identity);
        if is_voice && let Some(person) = self.people.touch(&signal.address, signal.at) {
            person.voice_sessions = person.voice_sessions.saturating_sub(1);
        }
    }

    fn on_login(&mut self, signal: &Signal, commands: &mut Vec<Command>) {
        let now = signal.at;
        let own_password = matches!(
            signal.detail.method,
            Some(Method::Account | Method::Sasl | Method::Services | Method::Oper | Method::Query)
        ) && !self.is_shared_account(signal, commands);
        // Everybody's account, and that of a telephone in its fifth network, has a right password too.
        let is_of_account =
            |account: Option<&Text>| account.is_some() && account == signal.detail.account.as_ref();
        let is_cleared = |suspect: &Suspect| {
            let by_account =
                matches!(&suspect.grounds.subject, Subject::Account(name) if is_of_account(Some(name)));
            let has_failed = |failed: &Arc<Signal>| {
                failed.address == signal.address && is_of_account(failed.detail.account.as_ref())
            };
            by_account || suspect.grounds.evidence.iter().any(has_failed)
        };
        if self.suspects.get(&signal.address).is_some_and(is_cleared) {
            self.suspects.remove(&signal.address);
        }
        let Some(person) = self.person(signal.address, now) else {
            return;
        };
        person.came_at = Some(now);
        if signal.detail.method == Some(Method::Identity) {
            person.voice_sessions = person.voice_sessions.saturating_add(1);
        }
        if let Some(flow) = signal.flow
            && person.sessions.len() < SESSIONS_PER_ADDRESS_MAX
        {
            let account = signal.detail.account.clone().filter(|_| own_password);
            person.sessions.insert(flow, LoggedIn { since: now, account });
        }
        if !own_password {
            return;
        }
        person.logged_in_at = Some(now);
        if std::mem::take(&mut person.is_suspected) && person.limited_until > now {
            person.limited_until = Timestamp::EPOCH;
            commands.push(Command::Release { address: signal.address });
        }
        if let Some(account) = signal.detail.account.clone()
            && (person.accounts.len() < ACCOUNTS_PER_ADDRESS_MAX || person.accounts.contains_key(&account))
        {
            person.accounts.insert(account, now);
        }
        if self.suspects.get(&signal.address).is_some_and(|suspect| !suspect.is_of_several) {
            self.suspects.remove(&signal.address);
        }
        self.note_good_login(signal.address, now);
        self.make_room_in_site(signal.address, now, commands);
        commands.push(Command::Know { address: signal.address, until: now + KNOWN_FOR, by: Merit::Login });
    }

    /// In a network where many are known already, the one who has not come for longest is so no longer: whoever has accounts
    /// without end takes places from nobody but themselves and their neighbours.
    fn make_room_in_site(&mut self, address: Address, now: Timestamp, commands: &mut Vec<Command>) {
        let place = site(address);
        let known = self.known_of_sites.touch_or_insert(&place, now, Vec::new, |_| true, |_, _| {});
        let Some(known) = known else { return };
        known.retain(|(other, _)| *other != address);
        let longest = known.iter().map(|(_, at)| *at).min().filter(|_| known.len() >= KNOWN_PER_SITE);
        let gone = longest.and_then(|at| known.iter().position(|(_, other)| *other == at));
        let gone = gone.map(|index| known.swap_remove(index).0);
        known.push((address, now));
        if let Some(gone) = gone {
            if let Some(person) = self.people.get_mut(&gone) {
                person.logged_in_at = None;
            }
            commands.push(Command::Know { address: gone, until: Timestamp::EPOCH, by: Merit::Login });
        }
    }

    /// A rule has stopped somebody: standing that rests on their having sat there quietly is lost.
    fn offend(&mut self, address: Address, now: Timestamp, commands: &mut Vec<Command>) {
        if self.tenures.offend(address, now) && !self.behaves_well(&address, now) {
            commands.push(Command::Know { address, until: Timestamp::EPOCH, by: Merit::Tenure });
        }
    }

    /// An account that logs in from everywhere is a guest account with a password everybody has.
    /// Somebody's own is that of a telephone too, which comes from many networks, one after the other: those it has made known
    /// stay known unless it is in several at once.
    fn is_shared_account(&mut self, signal: &Signal, commands: &mut Vec<Command>) -> bool {
        let Some(name) = signal.detail.account.clone() else {
            return false;
        };
        let key = (signal.service, name);
        let account = self.accounts.touch_or_insert(&key, signal.at, Account::default, |_| true, |_, _| {});
        let Some(account) = account else { return true };
        if account.networks.len() < ACCOUNT_NETWORKS_MAX {
            account.networks.insert(network(signal.address));
        }
        let is_everywhere = account.is_everywhere(signal);
        if account.networks.len() < ACCOUNT_NETWORKS_MAX {
            if !account.made_known.contains(&signal.address)
                && account.made_known.len() < ACCOUNT_NETWORKS_MAX
            {
                account.made_known.push(signal.address);
            }
            return false;
        }
        let made_known = account.made_known.clone();
        if is_everywhere || self.networks_at_once(&key.1, &made_known, signal) >= ACCOUNT_NETWORKS_AT_ONCE {
            self.disown(&key, made_known, signal.at, commands);
        }
        true
    }

    /// In how many networks somebody is logged in with an account now, the one of this login included.
    fn networks_at_once(&self, name: &Text, addresses: &[Address], signal: &Signal) -> usize {
        let is_there = |address: &&Address| {
            let sessions = self.people.get(address).map(|person| person.sessions.values());
            sessions.into_iter().flatten().any(|session| session.account.as_ref() == Some(name))
        };
        let mut networks: BTreeSet<Address> =
            addresses.iter().filter(is_there).map(|address| network(*address)).collect();
        networks.insert(network(signal.address));
        networks.len()
    }

    /// An account turned out to be everybody's: who is known by it alone is known no longer.
    fn disown(
        &mut self,
        key: &(u8, Text),
        addresses: Vec<Address>,
        now: Timestamp,
        commands: &mut Vec<Command>,
    ) {
        if let Some(account) = self.accounts.touch(key, now) {
            account.made_known.clear();
        }
        for address in addresses {
            let Some(person) = self.people.touch(&address, now) else { continue };
            person.accounts.remove(&key.1);
            for session in
                person.sessions.values_mut().filter(|session| session.account.as_ref() == Some(&key.1))
            {
                session.account = None;
            }
            if person.accounts.is_empty() && person.logged_in_at.take().is_some() {
                commands.push(Command::Know { address, until: Timestamp::EPOCH, by: Merit::Login });
            }
        }
    }

    fn person(&mut self, address: Address, now: Timestamp) -> Option<&mut Person> {
        self.people.touch_or_insert(
            &address,
            now,
            Person::default,
            |person| person.sessions.is_empty(),
            |_, _| {},
        )
    }

    /// Whether somebody has logged in from there lately, in whatever way. It buys nothing but not to be counted as a stranger.
    pub fn is_familiar(&self, address: Address, now: Timestamp) -> bool {
        self.people.get(&address).is_some_and(|person| {
            person.behaves_well(now) || person.came_at.is_some_and(|at| now.since(at) < FAMILIAR_FOR)
        })
    }

    /// Whether somebody has logged in from there with a password of their own.
    pub fn is_known(&self, address: Address, now: Timestamp) -> bool {
        self.behaves_well(&address, now)
    }

    /// Forgets what an address has done and bans it no more for a while: an operator said so.
    pub fn forgive(&mut self, address: Address, now: Timestamp, grace: Span) {
        self.suspects.remove(&address);
        if let Some(person) = self.person(address, now) {
            person.offences = 0;
            person.limited_until = Timestamp::EPOCH;
            person.grace_until = now + grace;
        }
    }

    /// Remembers who was known by tenure before this run; answers whether there is room.
    pub fn restore_tenure(&mut self, address: Address, until: Timestamp) -> bool {
        self.tenures.restore(address, until)
    }

    /// Whether an address is known by time spent where logins cannot be read.
    pub fn is_tenured(&self, address: Address, now: Timestamp) -> bool {
        self.tenures.is_tenured(&address, now)
    }

    /// How often there was no room for somebody who had stayed for long enough to be known.
    pub const fn tenures_refused(&self) -> u64 {
        self.tenures.refused()
    }

    /// Remembers a login with a password from before this run.
    pub fn restore_login(&mut self, address: Address, at: Timestamp) {
        let known = self.known_of_sites.touch_or_insert(&site(address), at, Vec::new, |_| true, |_, _| {});
        if let Some(known) = known.filter(|known| known.len() < KNOWN_PER_SITE) {
            known.push((address, at));
        }
        if let Some(person) = self.person(address, at) {
            person.logged_in_at = Some(at);
        }
        self.note_good_login(address, at);
    }

    fn note_good_login(&mut self, address: Address, at: Timestamp) {
        for (places, place) in
            [(&mut self.good_networks, network(address)), (&mut self.good_sites, site(address))]
        {
            if let Some(last) = places.touch_or_insert(&place, at, || at, |_| true, |_, _| {}) {
                *last = at;
            }
        }
    }

    /// Remembers how often an address has offended before this run, so that a repeat costs more.
    pub fn restore_offences(&mut self, address: Address, offences: u32, at: Timestamp) {
        if let Some(person) = self.person(address, at) {
            person.offences = offences;
            person.offended_at = at;
        }
    }

    /// Acts on a finding. Answers whether it stands; one that does not counts on until it does.
    pub fn handle_finding(
        &mut self,
        rule: &Rule,
        finding: &Finding<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> bool {
        if rule.shadow {
            return true;
        }
        if self.is_of_the_known(rule, finding) {
            return false;
        }
        let by_address = matches!(finding.subject, Subject::Address(_) | Subject::Session(_));
        if by_address && self.is_return(rule, finding) {
            return false;
        }
        let is_settled = by_address
            && (self.is_settled(rule, finding.signal)
                || self.is_mistaken(rule, finding, finding.signal.address));
        if is_settled {
            return true;
        }
        match rule.action {
            Action::Note => commands.push(Command::Note {
                address: by_address.then_some(finding.signal.address),
                notify: rule.notify.clone(),
                explanation: explain(rule, finding),
            }),
            Action::RaiseLevel => {
                self.raise_level(rule, finding, commands);
                self.sanction_contributors(rule, finding, ledger, commands);
            }
            Action::Limit | Action::Reset | Action::Ban if by_address => {
                let (address, flow) = (finding.signal.address, finding.signal.flow);
                self.sanction(rule, address, flow, Grounds::Finding(rule, finding), ledger, commands);
            }
            Action::Limit | Action::Reset | Action::Ban => {
                if !self.ban_rotating_network(rule, finding, ledger, commands) {
                    self.sanction_contributors(rule, finding, ledger, commands);
                }
            }
        }
        true
    }

    /// Whether nothing is to be done, asked before anything is put into words because a flood asks it with every packet:
    /// the rule would only limit, and the address is limited for long enough; a rule for alarmed times is for
    /// strangers; and what a forger can do in somebody's name costs nobody who is known or has a session anything.
    fn is_settled(&self, rule: &Rule, signal: &Signal) -> bool {
        let is_forgeable = signal.kind.evidence() == EvidenceClass::Spoofable && rule.action > Action::Note;
        let is_there = || {
            self.tenures.is_present(&signal.address) || self.tenures.is_tenured(&signal.address, signal.at)
        };
        if is_forgeable && is_there() {
            return true;
        }
        let Some(person) = self.people.get(&signal.address) else {
            return false;
        };
        let is_limited = rule.action == Action::Limit && person.is_limited(signal.at, rule);
        let is_known = person.behaves_well(signal.at);
        let is_somebody = is_known || !person.sessions.is_empty() || person.voice_sessions > 0;
        is_limited || (is_known && rule.level > Level::Normal) || (is_forgeable && is_somebody)
    }

    /// Whether failed logins from one address are mistakes: most of the last ones were followed by the right password, or each
    /// was of another account on another connection and this is the first time. Then the address has time to show it.
    fn is_mistaken(&mut self, rule: &Rule, finding: &Finding<'_>, address: Address) -> bool {
        if rule.action == Action::Note || !rule.counts_failed_logins() {
            return false;
        }
        let now = finding.signal.at;
        let is_recent = |signal: &&Arc<Signal>| {
            signal.kind == SignalKind::LoginFailed
                && signal.address == address
                && now.since(signal.at) <= rule.within
        };
        let failed: Vec<&Arc<Signal>> = finding.evidence.iter().filter(is_recent).collect();
        let has_made_good = self.have_made_good(address, failed.iter().copied());
        let count = failed.len();
        let accounts: BTreeSet<&Text> =
            failed.iter().filter_map(|signal| signal.detail.account.as_ref()).collect();
        let flows: BTreeSet<FlowId> = failed.iter().filter_map(|signal| signal.flow).collect();
        let is_of_several = accounts.len() >= MISTAKEN_ACCOUNTS
            && flows.len() == accounts.len()
            && count <= accounts.len().saturating_mul(2);
        let has_room = self.suspects.len() < SUBJECTS_MAX;
        let most = match (has_made_good, is_of_several && has_room) {
            (true, _) => MADE_GOOD_MAX,
            (false, true) => MISTAKEN_MAX,
            (false, false) => return false,
        };
        let is_reached = finding.is_reached(rule);
        let person = self.person(address, now);
        let patience = if has_made_good { MISTAKEN_WITHIN } else { PATIENCE_TO_LOG_IN };
        if !person.is_some_and(|person| person.may_be_mistaken(&rule.id, is_reached, (most, patience), now)) {
            return false;
        }
        if has_made_good {
            return true;
        }
        self.suspects.insert(address, Suspect { is_of_several: true, ..Suspect::new(rule, finding) });
        true
    }

    /// Whether most of these failed logins from one address were followed by the right password.
    fn have_made_good<'a>(&self, address: Address, failed: impl Iterator<Item = &'a Arc<Signal>>) -> bool {
        let Some(person) = self.people.get(&address) else { return false };
        let (good, count) = failed.fold((0_usize, 0_usize), |(good, count), signal| {
            (good.saturating_add(usize::from(person.has_made_good(signal))), count.saturating_add(1))
        });
        good.saturating_mul(2) > count
    }

    /// Whether too few of those who failed to log in are anybody but people who are known: they have mistyped, or an old
    /// table of passwords was restored.
    fn is_of_the_known(&self, rule: &Rule, finding: &Finding<'_>) -> bool {
        if rule.distinct != Some(By::Address) || !rule.counts_failed_logins() || !finding.is_reached(rule) {
            return false;
        }
        let now = finding.signal.at;
        let strangers: BTreeSet<Address> = finding
            .contributors
            .iter()
            .filter(|(address, count)| *count >= CONTRIBUTIONS_PLAIN || !self.behaves_well(address, now))
            .map(|(address, _)| if address.is_v4() { *address } else { site(*address) })
            .collect();
        strangers.len() < finding.contributors.len() && strangers.len() < rule.limit as usize
    }

    fn raise_level(&mut self, rule: &Rule, finding: &Finding<'_>, commands: &mut Vec<Command>) {
        let signal = finding.signal;
        let place = (signal.service, Front::of(signal.kind), Cause::Rule);
        let levels = (Level::Attack, Level::Attack);
        self.alarm(place, levels, signal.at, rule.duration, commands, || explain(rule, finding));
    }

    /// More strangers came than usual: raises the level for strangers, or keeps it from calming down.
    pub fn handle_pressure(&mut self, pressure: &Pressure, now: Timestamp, commands: &mut Vec<Command>) {
        let place = (pressure.service, pressure.front, Cause::Pressure);
        let levels = (pressure.raises, pressure.sustains);
        self.alarm(place, levels, now, CALM, commands, || explain_pressure(pressure, now));
    }

    /// Raises a level that is lower than the first of `levels`, and lets one that is no higher than the second stand for
    /// `duration` from now. Says so where the level of that class of traffic changes by it.
    fn alarm(
        &mut self,
        (service, front, cause): (u8, Front, Cause),
        (raises, sustains): (Level, Level),
        at: Timestamp,
        duration: Span,
        commands: &mut Vec<Command>,
        explain: impl FnOnce() -> Explanation,
    ) {
        let before = self.level_of(service, front);
        let alarm = self.levels.entry((service, front, cause)).or_insert(Alarm {
            level: Level::Normal,
            until: at,
            duration,
        });
        alarm.level = alarm.level.max(raises);
        if alarm.level > Level::Normal && alarm.level <= sustains {
            alarm.until = alarm.until.max(at + duration);
        }
        let level = self.level_of(service, front);
        if level > before {
            commands.push(Command::SetLevel { service, front, level, at, explanation: Some(explain()) });
        }
    }

    /// Those who contributed often at once; the others after some patience.
    fn sanction_contributors(
        &mut self,
        rule: &Rule,
        finding: &Finding<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        let now = finding.signal.at;
        // An IPv4 /24 is a street, not a household: who contributed little there is somebody else.
        let is_neighbourhood =
            matches!(finding.subject, Subject::Prefix(first) | Subject::Site(first) if first.is_v4());
        // Whoever makes others' words their own often enough would have them punished for it: of those who said a text once or
        // twice nobody is to blame unless they are a crowd themselves.
        let light =
            finding.contributors.iter().map(|(_, count)| *count).filter(|count| *count < CONTRIBUTIONS_PLAIN);
        let is_parroted =
            rule.by == By::Content && finding.is_reached(rule) && light.sum::<u32>() < rule.limit;
        // Who has gone a little beyond what everybody may is no better than whom it was allowed to. And who has been there all
        // along and has done less than half of what others have is not why the limit was reached.
        let has_allowance = rule.allowed().is_some_and(|allowed| allowed > 0);
        let most = finding.contributors.iter().map(|(_, count)| *count).max().unwrap_or(0);
        for (address, count) in &finding.contributors {
            // Whoever alone says enough of one text is no bystander, whoever else logs in from there, unless as many have been
            // there for a while. Other deeds have rules that count by address.
            let is_own_deed = rule.by == By::Content
                && *count >= rule.limit
                && self.lasting_sessions(address, now) < *count as usize;
            // At midnight everybody wishes the same; drones come for what they say.
            let is_old_hand = rule.by == By::Content && self.has_lasted(address, now);
            // Accounts of one's own making cost nothing where anybody may register: being known excuses little.
            let excused = if rule.by == By::Content { CONTRIBUTIONS_PLAIN } else { CONTRIBUTIONS_OF_KNOWN };
            let is_known = self.behaves_well(address, now)
                && (*count < excused || self.others(*address, None, now) == Others::People);
            let is_minor = has_allowance && count.saturating_mul(2) <= most && self.has_lasted(address, now);
            let is_bystander = ((is_known || is_old_hand) && !is_own_deed) || is_minor;
            if is_bystander || ledger.ban_of(*address, now).is_some() {
                continue;
            }
            if *count >= CONTRIBUTIONS_PLAIN {
                if self.is_mistaken(rule, finding, *address) {
                    continue;
                }
                self.suspects.remove(address);
                let limits = matches!(rule.action, Action::Limit | Action::RaiseLevel);
                if limits && self.people.get(address).is_some_and(|person| person.is_limited(now, rule)) {
                    continue;
                }
                self.sanction(rule, *address, None, Grounds::Finding(rule, finding), ledger, commands);
            } else if !is_neighbourhood
                && !is_parroted
                && !has_allowance
                && self.suspects.len() < SUBJECTS_MAX
            {
                self.suspects.entry(*address).or_insert_with(|| Suspect::new(rule, finding));
            }
        }
    }

    /// Whether somebody has been there for a while, or had been when the server was started again or they lost their connection.
    fn has_lasted(&self, address: &Address, now: Timestamp) -> bool {
        self.people.get(address).is_some_and(|person| person.crowd(now) > 0)
    }

    /// Whether an address brings back those who were there: everybody of a bridge or a bouncer, each of them twice at most.
    fn is_return(&self, rule: &Rule, finding: &Finding<'_>) -> bool {
        let count = usize::try_from(finding.count).unwrap_or(usize::MAX);
        let person = self.people.get(&finding.signal.address);
        rule.counts_arrivals()
            && person.is_some_and(|person| person.crowd(finding.signal.at).saturating_mul(2) >= count)
    }

    /// How many have.
    fn lasting_sessions(&self, address: &Address, now: Timestamp) -> usize {
        self.people.get(address).map_or(0, |person| person.lasting_sessions(now))
    }

    /// Somebody who has logged in with a password of their own.
    fn behaves_well(&self, address: &Address, now: Timestamp) -> bool {
        self.people.get(address).is_some_and(|person| person.behaves_well(now))
    }

    /// Many addresses of one IPv6 /64, or many /64s of one /48, none of them anybody's: one host that has them all.
    fn ban_rotating_network(
        &mut self,
        rule: &Rule,
        finding: &Finding<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> bool {
        let (Subject::Prefix(first) | Subject::Site(first)) = *finding.subject else { return false };
        if first.is_v4() {
            return false;
        }
        let (good, subject) = if matches!(finding.subject, Subject::Prefix(_)) {
            (&self.good_networks, Prefix::network64(first))
        } else {
            (&self.good_sites, Prefix::new(first, 48))
        };
        let now = finding.signal.at;
        let rotating = rule.action == Action::Ban
            && finding.contributors.len() >= ROTATING_ADDRESSES
            && good.get(&first).is_none_or(|at| now.since(*at) > KNOWN_FOR);
        if rotating && self.is_class(rule, finding, first) {
            return false;
        }
        if rotating {
            self.ban(rule, subject, first, Grounds::Finding(rule, finding), ledger, commands);
        }
        rotating
    }

    /// Whether those of one network who failed to log in may be as many people, a class or a carrier's telephones: the last ones
    /// each had another account and another address, and it is the first time. Then they have time to find the right password.
    fn is_class(&mut self, rule: &Rule, finding: &Finding<'_>, network: Address) -> bool {
        let now = finding.signal.at;
        let accounts: BTreeSet<&Text> =
            finding.evidence.iter().filter_map(|signal| signal.detail.account.as_ref()).collect();
        let addresses: BTreeSet<Address> = finding.evidence.iter().map(|signal| signal.address).collect();
        let count = finding.evidence.len();
        rule.counts_failed_logins()
            && accounts.len() == count
            && addresses.len() == count
            && self.person(network, now).is_some_and(|person| {
                person.may_be_mistaken(
                    &rule.id,
                    finding.is_reached(rule),
                    (MISTAKEN_MAX, PATIENCE_TO_LOG_IN),
                    now,
                )
            })
    }

    /// Does to one address what the rule says, or what the brakes leave of it.
    fn sanction(
        &mut self,
        rule: &Rule,
        address: Address,
        flow: Option<FlowId>,
        grounds: Grounds<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        match rule.action {
            Action::Ban => match self.others(address, flow, grounds.at()) {
                Others::None => self.ban(rule, Prefix::host(address), address, grounds, ledger, commands),
                others @ (Others::Guests | Others::People) => {
                    self.cut(rule, address, flow, others, grounds, commands);
                }
            },
            Action::Reset => self.cut(rule, address, flow, Others::People, grounds, commands),
            Action::Limit | Action::RaiseLevel => self.limit(address, rule.duration, grounds, commands),
            Action::Note => {
                commands.push(Command::Note {
                    address: Some(address),
                    notify: rule.notify.clone(),
                    explanation: grounds.explain(),
                });
            }
        }
    }

    /// Cuts one connection; limits the address if there is none, if it is shared with guests only, or if it has been cut
    /// again and again.
    fn cut(
        &mut self,
        rule: &Rule,
        address: Address,
        flow: Option<FlowId>,
        others: Others,
        grounds: Grounds<'_>,
        commands: &mut Vec<Command>,
    ) {
        let now = grounds.at();
        let resets = self.person(address, now).map_or(0, |person| person.resets.count(now, RESETS_WITHIN));
        if let Some(flow) = flow {
            commands.push(Command::Reset { address, flow, explanation: grounds.explain() });
            self.offend(address, now, commands);
        }
        if flow.is_none() || others != Others::People || resets >= RESETS_MAX {
            self.limit(address, rule.duration, grounds, commands);
        }
    }

    /// Whether the address is several people's: others have accounts of their own (after a restart nobody is logged in
    /// yet), or have been there for long enough to be no clones of the offender.
    fn others(&self, address: Address, offender: Option<FlowId>, now: Timestamp) -> Others {
        let Some(person) = self.people.get(&address) else { return Others::None };
        let others = || person.sessions.iter().filter(|(flow, _)| Some(**flow) != offender);
        let own =
            offender.and_then(|flow| person.sessions.get(&flow)).and_then(|session| session.account.as_ref());
        let accounts = person
            .accounts
            .iter()
            .filter(|(account, at)| Some(*account) != own && now.since(**at) < KNOWN_FOR);
        let accounts = accounts.count();
        let lasting = others()
            .filter(|(_, session)| session.account.is_none() || session.account.as_ref() == own)
            .filter(|(_, session)| now.since(session.since) >= NEIGHBOURS_AFTER)
            .count();
        match accounts.saturating_add(lasting) {
            0..SHARED_SESSIONS => Others::None,
            _ if accounts >= SHARED_SESSIONS => Others::People,
            _ => Others::Guests,
        }
    }

    /// Whether another one who is known may be banned now.
    fn may_ban_known(&mut self, now: Timestamp) -> bool {
        let known = self.people.iter().filter(|(_, person)| person.behaves_well(now)).count();
        let most = (known / KNOWN_PER_BAN).max(KNOWN_BANS_MIN);
        self.known_bans_made.count(now, KNOWN_BANS_WITHIN) as usize <= most
    }

    fn ban(
        &mut self,
        rule: &Rule,
        subject: Prefix,
        address: Address,
        grounds: Grounds<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        let now = grounds.at();
        if ledger.ban_of(address, now).is_some() {
            return;
        }
        if self.people.get(&address).is_some_and(|person| person.grace_until > now) {
            let (notify, explanation) = (rule.notify.clone(), grounds.explain());
            return commands.push(Command::Note { address: Some(address), notify, explanation });
        }
        // Those made count, not those wanted: under an attack that goes on the brake would never come off.
        if self.bans_made.held(now, MINUTE) >= BANS_PER_MINUTE_MAX {
            self.bans_braked = self.bans_braked.saturating_add(1);
            return self.limit(address, rule.duration, grounds, commands);
        }
        if self.behaves_well(&address, now) && !self.may_ban_known(now) {
            self.bans_braked = self.bans_braked.saturating_add(1);
            let (notify, explanation) = (rule.notify.clone(), grounds.explain());
            commands.push(Command::Note { address: None, notify, explanation });
            return self.limit(address, rule.duration, grounds, commands);
        }
        self.bans_made.count(now, MINUTE);
        self.suspects.remove(&address);
        let until = now + self.escalated(address, rule, now);
        let explanation = grounds.explain();
        let entered = ledger.enter(subject, Ban { since: now, until, explanation: explanation.clone() });
        if entered {
            commands.push(Command::Ban { subject, until, explanation });
            self.offend(address, now, commands);
        } else {
            self.limit(address, rule.duration, grounds, commands);
        }
    }

    /// Twice as long as the last time, up to the rule's maximum; forgiven after a week.
    fn escalated(&mut self, address: Address, rule: &Rule, now: Timestamp) -> Span {
        let Some(person) = self.person(address, now) else {
            return rule.duration;
        };
        if now.since(person.offended_at) > REPEAT_WITHIN {
            person.offences = 0;
        }
        let factor = 1u64.checked_shl(person.offences.min(40)).unwrap_or(u64::MAX);
        person.offences = person.offences.saturating_add(1);
        person.offended_at = now;
        rule.duration.saturating_mul(factor).min(rule.duration_max)
    }

    fn limit(&mut self, address: Address, duration: Span, grounds: Grounds<'_>, commands: &mut Vec<Command>) {
        let now = grounds.at();
        let until = now + duration;
        if let Some(person) = self.person(address, now) {
            if is_fresh(person.limited_until, now, duration) {
                return;
            }
            person.limited_until = until;
            // What may have been forged, or come from a telephone that has changed networks, ends with a login.
            person.is_suspected = grounds.evidence() == EvidenceClass::Spoofable;
        }
        commands.push(Command::Limit { address, until, explanation: grounds.explain() });
        self.offend(address, now, commands);
    }

    /// Suspects whose time is up are limited; alarms whose time is up calm down one level.
    pub fn handle_timeout(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        let due: Vec<Address> = self
            .suspects
            .iter()
            .filter(|(_, suspect)| suspect.until <= now)
            .map(|(address, _)| *address)
            .collect();
        for address in due {
            self.settle_suspect(address, commands);
        }
        let (tenures, levels, people) = (&mut self.tenures, &self.levels, &self.people);
        let is_calm = |service| {
            let own = levels.iter().filter(|((owner, _, _), _)| *owner == service);
            own.map(|(_, alarm)| alarm.level).max().unwrap_or_default() == Level::Normal
        };
        tenures.handle_timeout(now, is_calm, |address, until| {
            // Who has logged in is known for longer.
            if !people.get(&address).is_some_and(|person| person.behaves_well(now)) {
                commands.push(Command::Know { address, until, by: Merit::Tenure });
            }
        });
        let due: Vec<(u8, Front, Cause)> = self
            .levels
            .iter()
            .filter(|(_, alarm)| alarm.level > Level::Normal && alarm.until <= now)
            .map(|(place, _)| *place)
            .collect();
        for place in due {
            self.calm_down(place, now, commands);
        }
    }

    /// An alarm calms down one step.
    fn calm_down(&mut self, place: (u8, Front, Cause), now: Timestamp, commands: &mut Vec<Command>) {
        let (service, front, _) = place;
        let before = self.level_of(service, front);
        if let Some(alarm) = self.levels.get_mut(&place) {
            alarm.level = if alarm.level == Level::Attack { Level::Elevated } else { Level::Normal };
            alarm.until = now + alarm.duration;
        }
        let level = self.level_of(service, front);
        if level < before {
            commands.push(Command::SetLevel { service, front, level, at: now, explanation: None });
        }
    }

    /// The input is over: whoever is still suspected did not log in after all.
    pub fn settle_all(&mut self, commands: &mut Vec<Command>) {
        while let Some((address, _)) = self.suspects.first_key_value() {
            let address = *address;
            self.settle_suspect(address, commands);
        }
    }

    fn settle_suspect(&mut self, address: Address, commands: &mut Vec<Command>) {
        if let Some(suspect) = self.suspects.remove(&address) {
            if suspect.is_of_several && self.have_made_good(address, suspect.grounds.evidence.iter()) {
                return;
            }
            let now = suspect.grounds.signal.at;
            self.limit(address, suspect.duration, Grounds::Suspicion(&suspect.grounds), commands);
            if let Some(person) = self.person(address, now) {
                person.is_suspected = true;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let suspect = self.suspects.values().map(|suspect| suspect.until).min();
        let alarms = self.levels.values().filter(|alarm| alarm.level > Level::Normal);
        let alarm = alarms.map(|alarm| alarm.until).min();
        [suspect, alarm].into_iter().flatten().min()
    }
}

/// A limit is said once: while it stands it is prolonged only when half of it is over.
fn is_fresh(limited_until: Timestamp, now: Timestamp, duration: Span) -> bool {
    limited_until.since(now).as_nanos() > duration.as_nanos() / 2
}

/// Why something is to be done. A flood gives reasons with every packet, and nearly all of them are put into words by nobody:
/// the address is limited or banned already.
#[derive(Clone, Copy, Debug)]
enum Grounds<'a> {
    Finding(&'a Rule, &'a Finding<'a>),
    Suspicion(&'a Suspicion),
}

impl Grounds<'_> {
    fn at(self) -> Timestamp {
        match self {
            Self::Finding(_, finding) => finding.signal.at,
            Self::Suspicion(suspicion) => suspicion.signal.at,
        }
    }

    fn evidence(self) -> EvidenceClass {
        match self {
            Self::Finding(_, finding) => finding.signal.kind.evidence(),
            Self::Suspicion(suspicion) => suspicion.signal.kind.evidence(),
        }
    }

    fn explain(self) -> Explanation {
        match self {
            Self::Finding(rule, finding) => explain(rule, finding),
            Self::Suspicion(suspicion) => suspicion.explain(),
        }
    }
}

/// Nobody in particular is to blame, and in a flood with forged senders nobody who is named.
fn explain_pressure(pressure: &Pressure, at: Timestamp) -> Explanation {
    let usual = match pressure.usual {
        Some(usual) => format!("usual at this hour of the week: {usual}"),
        None => "what is usual at this hour of the week has not been learnt yet".to_owned(),
    };
    Explanation {
        rule: RuleId(PRESSURE_RULE.into()),
        why: "more different strangers than usual".into(),
        subject: Subject::Service,
        offender: Address::default(),
        at,
        count: u32::from(pressure.strangers),
        limit: u32::from(pressure.alarmed_from),
        within: INTERVAL,
        evidence: vec![usual],
    }
}

fn explain(rule: &Rule, finding: &Finding<'_>) -> Explanation {
    Suspicion::new(rule, finding).explain()
}
