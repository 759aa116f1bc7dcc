//! Rules: what operators tune. A rule counts signals by a subject and answers when there are too many.
//!
//! [`mod@file`] reads rule files into [`RuleFile`]s and names every mistake, [`counter`] counts in sliding windows,
//! [`evaluate`] turns signals into [`Finding`](evaluate::Finding)s.

use std::sync::Arc;

use floodwall_wire::tables::{KINDS, LEVELS, STANDINGS};
use regex::Regex;

use crate::{
    command::Prefix,
    protocol::Protocol,
    signal::{Detail, Method, Signal, SignalKind},
    time::{Span, Timestamp},
};

pub mod counter;
pub mod diagnostic;
pub mod evaluate;
pub mod file;
pub mod lint;
pub mod table;

/// One rule file: how a protocol is guarded.
#[derive(Clone, Debug)]
pub struct RuleFile {
    /// Its path, for messages.
    pub path: String,
    /// Which services it is for.
    pub protocol: Protocol,
    /// Where such services listen unless the configuration says otherwise.
    pub ports: DefaultPorts,
    /// After how much silence the server drops a user.
    pub user_timeout: Span,
    /// Datagrams are admitted only from addresses that hold a session.
    pub require_session: bool,
    /// A user id bound to another live address is refused.
    pub require_own_id: bool,
    /// The gate's limits.
    pub limits: GateLimits,
    /// In file order.
    pub rules: Vec<Rule>,
}

/// Default ports of a protocol.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DefaultPorts {
    /// Control on TCP (TeamTalk, IRC) and voice on UDP (TeamTalk, TeamSpeak).
    pub main: Vec<u16>,
    /// TeamSpeak ServerQuery.
    pub query: Vec<u16>,
    /// TeamSpeak file transfer.
    pub files: Vec<u16>,
    /// IRC ports known to be plain text.
    pub plain: Vec<u16>,
}

impl DefaultPorts {
    /// Every list, to be changed in place.
    pub fn lists_mut(&mut self) -> [&mut Vec<u16>; 4] {
        [&mut self.main, &mut self.query, &mut self.files, &mut self.plain]
    }
}

/// A rate and a burst; rate 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rate {
    /// Units per `per`.
    pub units: u64,
    /// The time in which `units` are earned.
    pub per: Span,
    /// Units that may come at once.
    pub burst: u64,
}

/// The gate's limits at level *normal*, and by how much strangers' limits shrink at the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateLimits {
    /// Per source, by standing and kind.
    pub source: [[Rate; KINDS]; STANDINGS],
    /// Shared by the strangers of one network.
    pub network: [Rate; KINDS],
    /// Shared by all strangers of the service.
    pub service: [Rate; KINDS],
    /// Divisors of strangers' limits, by level.
    pub divisors: [u64; LEVELS],
}

/// What a rule does when it fires.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Say so.
    Note,
    /// Hold the address to the gate's tightest limits.
    Limit,
    /// Cut the connection.
    Reset,
    /// Raise the level of the service.
    RaiseLevel,
    /// Ban the address.
    Ban,
}

impl Action {
    /// Every action, mildest first.
    pub const ALL: [Self; 5] = [Self::Note, Self::Limit, Self::Reset, Self::RaiseLevel, Self::Ban];

    /// The name in rule files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Limit => "limit",
            Self::Reset => "reset",
            Self::RaiseLevel => "raise-level",
            Self::Ban => "ban",
        }
    }
}

/// What signals are counted by, or told apart by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// One address.
    Address,
    /// IPv4 /24, IPv6 /64.
    Prefix,
    /// IPv4 /24, IPv6 /48: what one subscriber can hold of IPv6 (RFC 6177).
    Site,
    /// The account concerned.
    Account,
    /// A TeamSpeak identity.
    Identity,
    /// The nickname.
    Nickname,
    /// One connection.
    Session,
    /// The channel concerned.
    Channel,
    /// The whole service.
    Service,
    /// Whom it was done to.
    Target,
    /// Equal message texts; only to tell signals apart, or to count one text by.
    Content,
    /// The site that messages name; only to tell them apart, or to count them by.
    Link,
    /// What was done; only to tell signals apart.
    Kind,
}

impl By {
    /// Every subject.
    pub const ALL: [Self; 13] = [
        Self::Address,
        Self::Prefix,
        Self::Site,
        Self::Account,
        Self::Identity,
        Self::Nickname,
        Self::Session,
        Self::Channel,
        Self::Service,
        Self::Target,
        Self::Content,
        Self::Link,
        Self::Kind,
    ];

    /// The name in rule files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Prefix => "prefix",
            Self::Site => "site",
            Self::Account => "account",
            Self::Identity => "identity",
            Self::Nickname => "nickname",
            Self::Session => "session",
            Self::Channel => "channel",
            Self::Service => "service",
            Self::Target => "target",
            Self::Content => "content",
            Self::Link => "link",
            Self::Kind => "kind",
        }
    }
}

/// How alarmed a service is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// As always.
    #[default]
    Normal,
    /// After an attack, or before one.
    Elevated,
    /// Under attack.
    Attack,
}

impl Level {
    /// Every level, calmest first.
    pub const ALL: [Self; LEVELS] = [Self::Normal, Self::Elevated, Self::Attack];

    /// The name in rule files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Attack => "attack",
        }
    }
}

/// A rule's name, unique in a rule set: `teamtalk/login-storm`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RuleId(pub Arc<str>);

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it is for, in words that stand in explanations.
    pub why: Arc<str>,
    /// What it counts.
    pub signals: Vec<SignalKind>,
    /// Which of those.
    pub matches: Vec<Match>,
    /// Of those, none for which any of these holds.
    pub exceptions: Vec<Match>,
    /// Of those, the ones of at least so many bytes: [`Detail::weight`].
    pub bytes_min: u64,
    /// Counts their bytes, [`Detail::weight`], instead of signals.
    pub sums_bytes: bool,
    /// Counts only what the same subject does so soon after something else.
    pub after: Option<After>,
    /// Holds the count against that of something else.
    pub against: Option<Against>,
    /// By what it counts.
    pub by: By,
    /// Counts different values of this instead of signals.
    pub distinct: Option<By>,
    /// How many a connection may have that count nowhere, of all connections but one. A connection is what the same
    /// address comes back with as well.
    pub allowance: Option<u32>,
    /// How many are too many.
    pub limit: u32,
    /// In how much time.
    pub within: Span,
    /// Only from this level on.
    pub level: Level,
    /// What then.
    pub action: Action,
    /// For how long, the first time.
    pub duration: Span,
    /// For how long at most, doubled on each repeat.
    pub duration_max: Span,
    /// Evaluated and counted, without effect.
    pub shadow: bool,
    /// Not evaluated from then on.
    pub expires: Timestamp,
    /// Where to send word.
    pub notify: Vec<Box<str>>,
    /// Not for addresses in these networks.
    pub except: Vec<Prefix>,
    /// Where not empty, for addresses in these networks alone.
    pub only: Vec<Prefix>,
}

/// A sequence: what must have happened before.
#[derive(Clone, Debug)]
pub struct After {
    /// One of these.
    pub signals: Vec<SignalKind>,
    /// So long ago at most.
    pub within: Span,
}

/// A ratio: the rule fires only where there are at least `ratio` times as many as of these.
#[derive(Clone, Debug)]
pub struct Against {
    /// Counted together, by the same subject in the same window.
    pub signals: Vec<SignalKind>,
    /// How many times as many.
    pub ratio: u32,
}

/// A condition on one field of a signal.
#[derive(Clone, Debug)]
pub struct Match {
    /// Which field.
    pub field: Field,
    /// What it must be.
    pub pattern: Pattern,
}

/// The fields a rule can match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// [`Detail::method`].
    Method,
    /// [`Detail::account`].
    Account,
    /// [`Detail::nickname`].
    Nickname,
    /// [`Detail::identity`].
    Identity,
    /// [`Detail::channel`].
    Channel,
    /// [`Detail::target`].
    Target,
    /// [`Detail::command`].
    Command,
    /// [`Detail::number`].
    Number,
    /// [`Detail::reason`].
    Reason,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 9] = [
        Self::Method,
        Self::Account,
        Self::Nickname,
        Self::Identity,
        Self::Channel,
        Self::Target,
        Self::Command,
        Self::Number,
        Self::Reason,
    ];

    /// The name in rule files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Account => "account",
            Self::Nickname => "nickname",
            Self::Identity => "identity",
            Self::Channel => "channel",
            Self::Target => "target",
            Self::Command => "command",
            Self::Number => "number",
            Self::Reason => "reason",
        }
    }
}

/// What a field must be.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// One of these words.
    Words(Vec<Box<str>>),
    /// One of these numbers.
    Numbers(Vec<u32>),
    /// Matched by this regular expression, whose cost is linear in the field's length.
    Regex(Regex),
}

impl Match {
    fn holds(&self, detail: &Detail) -> bool {
        let text = match self.field {
            Field::Method => detail.method.map(Method::as_str),
            Field::Account => detail.account.as_ref().map(crate::text::Text::as_str),
            Field::Nickname => detail.nickname.as_ref().map(crate::text::Text::as_str),
            Field::Identity => detail.identity.as_ref().map(crate::text::Text::as_str),
            Field::Channel => detail.channel.as_ref().map(crate::text::Text::as_str),
            Field::Target => detail.target.as_ref().map(crate::text::Text::as_str),
            Field::Command => detail.command,
            Field::Reason => detail.reason,
            Field::Number => None,
        };
        match &self.pattern {
            Pattern::Words(words) => text.is_some_and(|text| words.iter().any(|word| **word == *text)),
            Pattern::Regex(regex) => text.is_some_and(|text| regex.is_match(text)),
            Pattern::Numbers(numbers) => detail.number.is_some_and(|number| numbers.contains(&number)),
        }
    }
}

impl Rule {
    /// Whether it counts nothing but logins that failed.
    pub fn counts_failed_logins(&self) -> bool {
        self.signals.iter().all(|kind| *kind == SignalKind::LoginFailed)
    }

    /// Whether whoever has done it now and then all along is no part of a crowd that does it: monitors connect and leave, and
    /// consoles sit there without logging in. A guesser who takes their time is one none the less.
    pub fn spares_habits(&self) -> bool {
        use SignalKind as S;
        self.signals
            .iter()
            .all(|kind| matches!(kind, S::ConnectionOpened | S::ConnectionUnused | S::ConnectionHeld))
    }

    /// Whether it counts nothing but people who come, let in or not.
    pub fn counts_arrivals(&self) -> bool {
        use SignalKind as S;
        let is_arrival = |kind: &SignalKind| {
            matches!(kind, S::ConnectionOpened | S::ConnectionRefused | S::LoginRefused | S::LoginSucceeded)
        };
        self.signals.iter().all(is_arrival)
    }

    /// The allowance, where there is one: always less than the limit, whatever an override has made of that.
    pub fn allowed(&self) -> Option<u32> {
        self.allowance.map(|allowance| allowance.min(self.limit.saturating_sub(1)))
    }

    /// How much a signal counts.
    pub fn amount(&self, signal: &Signal) -> u32 {
        if self.sums_bytes { u32::try_from(signal.detail.weight).unwrap_or(u32::MAX) } else { 1 }
    }

    /// Whether the rule counts this signal, which is of one of its kinds.
    #[inline]
    pub fn concerns(&self, signal: &Signal) -> bool {
        let is_counted = signal.at < self.expires && signal.detail.weight >= self.bytes_min;
        // Most rules ask for nothing else, and every signal is shown to many.
        is_counted && (self.asks_nothing() || self.meets(signal))
    }

    #[inline]
    const fn asks_nothing(&self) -> bool {
        self.except.is_empty()
            && self.only.is_empty()
            && self.matches.is_empty()
            && self.exceptions.is_empty()
    }

    fn meets(&self, signal: &Signal) -> bool {
        !self.except.iter().any(|network| network.contains(signal.address))
            && (self.only.is_empty() || self.only.iter().any(|network| network.contains(signal.address)))
            && self.matches.iter().all(|condition| condition.holds(&signal.detail))
            && !self.exceptions.iter().any(|condition| condition.holds(&signal.detail))
    }
}
