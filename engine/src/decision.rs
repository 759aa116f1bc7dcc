//! Decisions: from findings to commands, with the brakes on.
//!
//! A rule says what it would do; here it is decided what is done, and to whom:
//!
//! - an address is banned only on evidence it cannot have been lent by a forger (rule files refuse the rest);
//! - a finding about a network, an account or a whole service is laid at the door of those who contributed,
//!   never of their neighbours: at once if they did so often, after a little patience otherwise, not at all if
//!   they have meanwhile logged in with a password. A mistyped password is followed by the right one;
//! - failed logins that the right password has followed are nobody's attack, nor are those of people who are known; where
//!   several accounts failed from one address, each on a connection of its own, as in a house or at a bouncer after a restart, the first
//!   finding waits for that as well, the second does not;
//! - a whole IPv6 /64 is banned only when many of its addresses contributed and nobody in it behaves well;
//! - behind an address with several other good sessions, the offending connection is cut, not the house;
//! - no more than [`BANS_PER_MINUTE_MAX`] bans a minute, and of those who are known no more than one in
//!   [`KNOWN_PER_BAN`] within [`KNOWN_BANS_WITHIN`]; beyond that the address is limited.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floodwall_wire::Address;

use crate::{
    baseline::{CALM, Pressure},
    bounded::BoundedMap,
    command::{Command, Explanation, Front, Merit},
    ledger::Ledger,
    limits::{ACCOUNTS_PER_ADDRESS_MAX, SESSIONS_PER_ADDRESS_MAX, SUBJECTS_MAX},
    rule::{
        Action, Level, Rule,
        counter::SlidingCount,
        evaluate::{Finding, Subject, network, site},
    },
    signal::{EvidenceClass, Method, Signal, SignalKind},
    tenure::Tenures,
    text::Text,
    time::{Span, Timestamp},
};

mod mistakes;
mod person;
mod sanction;
mod suspicion;

use person::{Account, LoggedIn, Mistyped, Person, Talk, is_guests};
pub use sanction::{BANS_PER_MINUTE_MAX, KNOWN_BANS_WITHIN, KNOWN_PER_BAN};
use suspicion::{Grounds, PATIENCE_TO_LOG_IN, Suspect, explain, explain_pressure};

/// How long an address stays known after a login with a password.
pub const KNOWN_FOR: Span = Span::from_secs(30 * 24 * 3_600);
/// How long after a login of any kind an address is no stranger to the count of strangers.
const FAMILIAR_FOR: Span = Span::from_secs(7 * 24 * 3_600);
/// In whose name the level is raised when more strangers come than usual.
pub const PRESSURE_RULE: &str = "floodwall/pressure";
/// Addresses of one IPv4 /24 or IPv6 /48 that are known by their logins at a time.
pub const KNOWN_PER_SITE: usize = 64;
/// Sessions at most that those who change networks at one address go on with.
const MOVED_SESSIONS_MAX: usize = 2;
const MINUTE: Span = Span::from_secs(60);
/// Contributions to a finding from which on a contributor is sanctioned without patience.
const CONTRIBUTIONS_PLAIN: u32 = 3;
/// The same of somebody who is known, or who may be one of several neighbours, or may only have mistyped.
const CONTRIBUTIONS_OF_KNOWN: u32 = 6;
/// Networks from which one account may log in before it is everybody's account and proves nothing.
const ACCOUNT_NETWORKS_MAX: usize = 4;
/// Places (IPv4 addresses, IPv6 /64) in which somebody is logged in with one account at the same time from which on it is everybody's,
/// if it has been in [`ACCOUNT_NETWORKS_MAX`] networks; one more if it has not.
const ACCOUNT_PLACES_AT_ONCE: usize = 3;

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
    /// Accounts that logins from an address have failed at, and the right password has not followed yet.
    mistyped: BoundedMap<Address, Mistyped>,
    /// What somebody has said lately.
    talk: BoundedMap<Address, Talk>,
    levels: BTreeMap<(u8, Front, Cause), Alarm>,
    tenures: Tenures,
    /// Who has logged in with a password of their own, and when last, by IPv4 /24 or IPv6 /48.
    known_of_sites: BoundedMap<Address, Vec<(Address, Timestamp)>>,
    bans_made: SlidingCount,
    known_bans_made: SlidingCount,
    bans_braked: u64,
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
            mistyped: BoundedMap::new(SUBJECTS_MAX, seed),
            talk: BoundedMap::new(SUBJECTS_MAX, seed),
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
    #[inline]
    pub fn handle_signal(&mut self, signal: &Signal, commands: &mut Vec<Command>) {
        // What anybody can send in anybody's name tells nothing of who has a session.
        if signal.flow.is_some() || signal.kind.evidence() != EvidenceClass::Spoofable {
            self.take_note(signal, commands);
        }
    }

    fn take_note(&mut self, signal: &Signal, commands: &mut Vec<Command>) {
        self.tenures.handle_signal(signal);
        if signal.kind == SignalKind::LoginSucceeded {
            return self.on_login(signal, commands);
        }
        if signal.kind == SignalKind::LoginFailed {
            return self.on_failure(signal);
        }
        if signal.kind.is_message() {
            return self.on_message(signal);
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

    fn on_failure(&mut self, signal: &Signal) {
        let Some(account) = signal.detail.account.as_ref().filter(|account| !is_guests(account)) else {
            return;
        };
        let mistyped =
            self.mistyped.touch_or_insert(&signal.address, signal.at, Mistyped::default, |_| true, |_, _| {});
        if let Some(mistyped) = mistyped {
            mistyped.note(account, signal.at);
        }
    }

    fn on_message(&mut self, signal: &Signal) {
        let Some(content) = signal.detail.content else { return };
        let talk = self.talk.touch_or_insert(&signal.address, signal.at, Talk::default, |_| true, |_, _| {});
        if let Some(talk) = talk {
            talk.note(content, signal.at);
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
            suspect.grounds.is_forgeable() || by_account || suspect.grounds.evidence.iter().any(has_failed)
        };
        let made_good = signal.detail.account.as_ref().is_some_and(|account| {
            self.mistyped.get_mut(&signal.address).is_some_and(|mistyped| mistyped.make_good(account, now))
        });
        if made_good || self.suspects.get(&signal.address).is_some_and(is_cleared) {
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
            let named = signal.detail.account.clone();
            person.sessions.insert(flow, LoggedIn { since: now, account, named });
        }
        if !own_password {
            return;
        }
        person.log_in(now);
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
        // The guests' own has a password on many servers, and everybody knows that.
        if is_guests(&name) {
            return true;
        }
        let key = (signal.service, name);
        let account = self.accounts.touch_or_insert(&key, signal.at, Account::default, |_| true, |_, _| {});
        let Some(account) = account else { return true };
        if account.networks.len() < ACCOUNT_NETWORKS_MAX {
            account.networks.insert(network(signal.address));
        }
        let is_everywhere = account.is_everywhere(signal);
        if account.networks.len() < ACCOUNT_NETWORKS_MAX && !account.is_everybodys {
            if !account.made_known.contains(&signal.address)
                && account.made_known.len() < ACCOUNT_NETWORKS_MAX
            {
                account.made_known.push(signal.address);
            }
            let made_known = account.made_known.clone();
            // Nobody sits in so many places, be they all in one street.
            if self.places_at_once(&key.1, &made_known, signal) <= ACCOUNT_PLACES_AT_ONCE {
                return false;
            }
            self.disown(&key, made_known, signal.at, commands);
            return true;
        }
        let made_known = account.made_known.clone();
        if is_everywhere || self.places_at_once(&key.1, &made_known, signal) >= ACCOUNT_PLACES_AT_ONCE {
            self.disown(&key, made_known, signal.at, commands);
        }
        true
    }

    /// In how many places somebody is logged in with an account now, the one of this login included.
    fn places_at_once(&self, name: &Text, addresses: &[Address], signal: &Signal) -> usize {
        let is_there = |address: &&Address| {
            let sessions = self.people.get(address).map(|person| person.sessions.values());
            sessions.into_iter().flatten().any(|session| session.account.as_ref() == Some(name))
        };
        // What one subscriber has at a time: an address, IPv6 a /64.
        let place = |address: Address| if address.is_v4() { address } else { network(address) };
        let mut places: BTreeSet<Address> =
            addresses.iter().filter(is_there).map(|address| place(*address)).collect();
        places.insert(place(signal.address));
        places.len()
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
            account.is_everybodys = true;
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
            person.log_in(at);
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
        if by_address && self.has_time_to_log_in(rule, finding) {
            return false;
        }
        let is_settled = by_address
            && (self.is_settled(rule, finding.signal)
                || self.is_mistaken(rule, finding, finding.signal.address));
        if is_settled || (by_address && self.may_have_moved(rule, finding)) {
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

    /// Whether datagrams that claim a session may be those of a telephone that has changed networks: it goes on with the one it had,
    /// whose other end has fallen silent, until it has logged in from where it is now. There is time for that: whoever logs in, as
    /// whomever, was that telephone. Meanwhile nobody hears it.
    fn may_have_moved(&mut self, rule: &Rule, finding: &Finding<'_>) -> bool {
        let may_be = finding.evidence.iter().all(|signal| signal.may_be_of_moved());
        let sessions: BTreeSet<u32> =
            finding.evidence.iter().filter_map(|signal| signal.detail.number).collect();
        // Forged senders take no place from those who have mistyped.
        let has_room = self.suspects.len() < SUBJECTS_MAX / 2;
        let address = finding.signal.address;
        if rule.action == Action::Note || !may_be || sessions.len() > MOVED_SESSIONS_MAX || !has_room {
            return false;
        }
        let until = finding.signal.at + PATIENCE_TO_LOG_IN;
        self.suspects.entry(address).or_insert_with(|| Suspect { until, ..Suspect::new(rule, finding) });
        true
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

    /// Suspects an address, unless it is already: what it may have been lent gives way to what it has done. Whether there is
    /// room.
    fn suspect(&mut self, address: Address, suspect: impl FnOnce() -> Suspect) -> bool {
        match self.suspects.get(&address) {
            Some(before) if !before.grounds.is_forgeable() => return true,
            None if self.suspects.len() >= SUBJECTS_MAX => return false,
            Some(_) | None => {}
        }
        self.suspects.insert(address, suspect());
        true
    }

    fn settle_suspect(&mut self, address: Address, commands: &mut Vec<Command>) {
        if let Some(suspect) = self.suspects.remove(&address) {
            let has_made_good =
                suspect.is_of_several && self.have_made_good(address, suspect.grounds.evidence.iter());
            let talks_on = suspect.may_talk_on && self.talk.get(&address).is_some_and(Talk::is_varied);
            if has_made_good || talks_on {
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
