//! What is counted while a log is read, within bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floodwall_engine::{
    Command, Span, Timestamp,
    command::{Explanation, Prefix},
    protocol::log::QuotedAccount,
    rule::Level,
    signal::{Signal, SignalKind},
    text::Text,
};
use floodwall_wire::Address;

use super::{
    hitters::{Hitters, Place, Weighed},
    series::Series,
};

/// Addresses kept apart; beyond that those with the most lines are.
const SOURCES_MAX: usize = 100_000;
/// Accounts kept apart; beyond that those tried most often are.
const ACCOUNTS_MAX: usize = 10_000;
/// Numbers of connections whose addresses are found without a search: a power of two.
const NUMBERS: usize = 1 << 12;
/// Nicknames whose addresses are kept.
const NICKNAMES_MAX: usize = 20_000;
/// Addresses kept of one nickname.
const ADDRESSES_MAX: usize = 64;
/// Bans and notes put into words; beyond that they are counted.
pub(super) const NOTES_MAX: usize = 1_000;
/// By how much lines may be out of order before the clock counts as set back: servers write from several threads.
const CLOCK_STEP: Span = Span::from_secs(60);

/// One address.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// A ban holds until then: so much was asked of the engine last.
    pub(super) banned_until: Timestamp,
    total: u64,
    /// What logs are full of, by its place among [`FREQUENT`].
    frequent: [u64; FREQUENT.len()],
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// All else by kind, those seen first come first: few addresses have more than a handful.
    others: Vec<(SignalKind, u64)>,
    pub(super) outcome: Outcome,
    pub(super) rules: BTreeSet<Arc<str>>,
}

/// What logs are full of.
const FREQUENT: [SignalKind; 8] = [
    SignalKind::ConnectionOpened,
    SignalKind::ConnectionClosed,
    SignalKind::LoginFailed,
    SignalKind::LoginRefused,
    SignalKind::MessageChannel,
    SignalKind::MessagePrivate,
    SignalKind::ChannelJoined,
    SignalKind::ChannelLeft,
];

/// The place of each kind among [`FREQUENT`]; beyond it for all others.
const PLACES: [u8; SignalKind::ALL.len()] = {
    let mut places = [u8::MAX; SignalKind::ALL.len()];
    let mut place = 0;
    while place < FREQUENT.len() {
        places[FREQUENT[place] as usize] = place as u8;
        place += 1;
    }
    places
};

impl Source {
    pub(super) fn count(&mut self, kind: SignalKind, at: Timestamp) {
        *self.of(kind) += 1;
        if self.total == 0 {
            self.first = at;
        }
        self.total += 1;
        self.last = at;
    }

    fn of(&mut self, kind: SignalKind) -> &mut u64 {
        let place = PLACES.get(kind as usize).map_or(usize::MAX, |place| usize::from(*place));
        if let Some(count) = self.frequent.get_mut(place) {
            return count;
        }
        let at = self.others.iter().position(|(known, _)| *known == kind);
        let at = at.unwrap_or_else(|| {
            self.others.push((kind, 0));
            self.others.len() - 1
        });
        &mut self.others[at].1
    }

    pub(super) fn signals(&self) -> BTreeMap<SignalKind, u64> {
        let frequent = FREQUENT.into_iter().zip(self.frequent).filter(|(_, count)| *count > 0);
        frequent.chain(self.others.iter().copied()).collect()
    }
}

impl Weighed for Source {
    fn weight(&self) -> u64 {
        self.total
    }

    fn absorb(&mut self, other: Self) {
        for (kind, count) in other.signals() {
            *self.of(kind) += count;
        }
        self.first = if self.total == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.total += other.total;
        self.outcome = self.outcome.max(other.outcome);
        self.rules.extend(other.rules);
    }
}

/// The strongest thing that would have been done.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Outcome {
    #[default]
    Clean,
    Noted,
    Limited,
    Banned,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noted => "noted",
            Self::Limited => "limited",
            Self::Banned => "banned",
        }
    }
}

/// A ban that would have been made.
#[derive(Clone, Debug)]
pub(super) struct Ban {
    pub(super) subject: Prefix,
    pub(super) until: Timestamp,
    pub(super) explanation: Explanation,
}

/// Everything counted while reading.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) lines: u64,
    /// Read, but before or after the time that is asked for.
    pub(super) outside: u64,
    pub(super) unparsed: u64,
    pub(super) overlong: u64,
    /// How often the log's clock was set back.
    pub(super) clock_steps: u64,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// Of the line before, but for lines a little out of order.
    latest: Timestamp,
    /// By kind.
    signals: Vec<u64>,
    pub(super) sources: Hitters<Address, Source>,
    /// Where the address was counted that each of the server's numbers had last.
    places: Vec<Place>,
    /// Logins that failed, by account as it came.
    pub(super) accounts: Hitters<Box<[u8]>, u64>,
    pub(super) nicknames: BTreeMap<Text, BTreeSet<Address>>,
    pub(super) series: Series,
    pub(super) bans: Vec<Ban>,
    pub(super) bans_made: u64,
    pub(super) notes: Vec<Explanation>,
    pub(super) notes_made: u64,
    pub(super) levels: Vec<(Timestamp, Level)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            lines: 0,
            outside: 0,
            unparsed: 0,
            overlong: 0,
            clock_steps: 0,
            first: None,
            last: None,
            latest: Timestamp::EPOCH,
            signals: vec![0; SignalKind::ALL.len()],
            sources: Hitters::new(SOURCES_MAX),
            places: vec![Place::NONE; NUMBERS],
            accounts: Hitters::new(ACCOUNTS_MAX),
            nicknames: BTreeMap::new(),
            series: Series::default(),
            bans: Vec::new(),
            bans_made: 0,
            notes: Vec::new(),
            notes_made: 0,
            levels: Vec::new(),
        }
    }

    /// Takes the time of a line; answers whether the clock was set back before it.
    #[must_use]
    pub(super) fn note_time(&mut self, at: Timestamp) -> bool {
        if at == Timestamp::EPOCH {
            return false;
        }
        self.series.note_line(at);
        if at >= self.latest {
            self.latest = at;
            self.first.get_or_insert(at);
            if self.last.is_none_or(|last| last < at) {
                self.last = Some(at);
            }
            return false;
        }
        self.first = self.first.map(|first| first.min(at));
        let is_step = at + CLOCK_STEP < self.latest;
        if is_step {
            self.latest = at;
            self.clock_steps += 1;
        }
        is_step
    }

    /// Counts a line of an address, which a connection with this number has, if the ban that it was last known to have holds beyond `now`; answers whether the clock was
    /// set back before it.
    #[must_use]
    pub(super) fn count_banned(
        &mut self,
        address: Address,
        number: u16,
        kind: SignalKind,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<bool> {
        let place = self.places.get_mut(usize::from(number) % NUMBERS)?;
        if self.sources.at(*place).is_none_or(|(held, _)| *held != address) {
            *place = self.sources.find(&address)?;
        }
        let (_, source) = self.sources.at(*place)?;
        if source.banned_until <= at.max(now) {
            return None;
        }
        source.count(kind, at);
        self.lines += 1;
        let is_step = self.note_time(at);
        self.count_kind(kind);
        Some(is_step)
    }

    fn count_kind(&mut self, kind: SignalKind) {
        if let Some(count) = self.signals.get_mut(kind as usize) {
            *count += 1;
        }
        self.series.note_signal(kind);
    }

    /// Counts a failed login by its account.
    pub(super) fn count_account(&mut self, account: &[u8]) {
        match self.accounts.get_mut(account) {
            Some(count) => *count += 1,
            None => *self.accounts.entry(account.into()) += 1,
        }
    }

    /// Counts a failed login by its account, whose place is told where it is not known.
    pub(super) fn count_account_at(&mut self, place: &mut Place, account: QuotedAccount<'_>) {
        if let Some((_, count)) = self.accounts.at(*place) {
            *count += 1;
            return;
        }
        let unescaped;
        let account = match account.plain() {
            Some(account) => account,
            None => {
                unescaped = account.unescaped();
                unescaped.as_str().as_bytes()
            }
        };
        self.count_account(account);
        *place = self.accounts.find(account).unwrap_or(Place::NONE);
    }

    /// Counts a signal that the rules are shown.
    pub(super) fn note_signal(&mut self, signal: &Signal) {
        self.count_kind(signal.kind);
        self.sources.entry(signal.address).count(signal.kind, signal.at);
        let detail = &signal.detail;
        if signal.kind == SignalKind::LoginFailed
            && let Some(account) = &detail.account
        {
            self.count_account(account.as_str().as_bytes());
        }
        if signal.kind == SignalKind::LoginSucceeded
            && let Some(nickname) = detail.nickname.as_ref().filter(|nickname| !nickname.is_empty())
            && (self.nicknames.len() < NICKNAMES_MAX || self.nicknames.contains_key(nickname))
        {
            let addresses = self.nicknames.entry(nickname.clone()).or_default();
            if addresses.len() < ADDRESSES_MAX {
                addresses.insert(signal.address);
            }
        }
    }

    pub(super) fn note_command(&mut self, command: &Command) {
        let (address, outcome, explanation) = match command {
            Command::Ban { subject, until, explanation } => {
                self.bans_made += 1;
                if self.bans.len() < NOTES_MAX {
                    let (subject, until, explanation) = (*subject, *until, explanation.clone());
                    self.bans.push(Ban { subject, until, explanation });
                }
                let address = if subject.is_host() { subject.address() } else { explanation.offender };
                (Some(address), Outcome::Banned, explanation)
            }
            Command::Limit { address, explanation, .. } | Command::Reset { address, explanation, .. } => {
                (Some(*address), Outcome::Limited, explanation)
            }
            Command::Note { address, explanation, .. } => {
                self.notes_made += 1;
                if self.notes.len() < NOTES_MAX {
                    self.notes.push(explanation.clone());
                }
                (*address, Outcome::Noted, explanation)
            }
            Command::SetLevel { level, at, .. } => {
                if self.levels.len() < NOTES_MAX {
                    self.levels.push((*at, *level));
                }
                return;
            }
            // These change nothing for anybody by name.
            Command::Know { .. }
            | Command::Release { .. }
            | Command::BindUser { .. }
            | Command::FreeUser { .. }
            | Command::Ignore { .. }
            | Command::Follow { .. }
            | Command::Unban { .. } => return,
        };
        if let Some(address) = address {
            let source = self.sources.entry(address);
            source.outcome = source.outcome.max(outcome);
            if !source.rules.contains(&explanation.rule.0) {
                source.rules.insert(explanation.rule.0.clone());
            }
        }
    }

    pub(super) fn signals(&self) -> impl Iterator<Item = (SignalKind, u64)> {
        SignalKind::ALL.iter().copied().zip(self.signals.iter().copied()).filter(|(_, count)| *count > 0)
    }
}
