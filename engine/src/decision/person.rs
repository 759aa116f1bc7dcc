//! What is known of one address, and of one account.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use floodwall_wire::Address;

use super::KNOWN_FOR;
use crate::{
    rule::{Rule, RuleId, counter::SlidingCount, evaluate::network},
    signal::{Content, FlowId, Signal},
    text::Text,
    time::{Span, Timestamp},
};

/// Accounts that somebody mistypes the passwords of at a time.
const MISTYPED_MAX: usize = 4;
/// How long people who talk to others listen in between.
const TAKES_TURNS: Span = Span::from_secs(5);
/// Different texts from which on somebody talks, rather than repeats.
const VARIED_TEXTS: usize = 4;
/// Findings about one address that are taken for mistakes within this time, if they are made good...
pub(super) const MISTAKEN_WITHIN: Span = Span::from_secs(1_800);
/// How long a session without an account of its own lasts before it counts as somebody.
pub(super) const LASTING: Span = Span::from_secs(120);
/// Who had been there for a while and comes back so soon is no newcomer.
pub(super) const COMES_BACK_WITHIN: Span = Span::from_secs(600);
/// Networks from which one account logs in...
pub(super) const ACCOUNT_NETWORKS_SOON: usize = 6;
/// ...within this time, from which on it is everybody's: no telephone travels so fast.
pub(super) const ACCOUNT_SOON: Span = Span::from_secs(180);

/// From where an account logged in.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) networks: BTreeSet<Address>,
    /// Addresses that became known by it: at most [`super::ACCOUNT_NETWORKS_MAX`].
    pub(super) made_known: Vec<Address>,
    /// It turned out to be everybody's.
    pub(super) is_everybodys: bool,
    /// The networks of the last logins, each once: at most [`ACCOUNT_NETWORKS_SOON`].
    pub(super) lately: VecDeque<(Address, Timestamp)>,
}

impl Account {
    /// Notes a login; whether there were logins from too many networks lately.
    pub(super) fn is_everywhere(&mut self, signal: &Signal) -> bool {
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
pub(super) struct Person {
    /// Last login with a password of its own.
    pub(super) logged_in_at: Option<Timestamp>,
    /// The first of those logins.
    known_since: Option<Timestamp>,
    /// Last login of any kind.
    pub(super) came_at: Option<Timestamp>,
    /// Connections on which somebody is logged in.
    pub(super) sessions: BTreeMap<FlowId, LoggedIn>,
    /// How many had been there for a while when one of them ended, and when that was.
    pub(super) crowd: Option<(usize, Timestamp)>,
    /// Sessions at a voice port, which have no connection: whatever is forged in their name costs them nothing.
    pub(super) voice_sessions: u32,
    /// Accounts of their own that logged in from here, and when last.
    pub(super) accounts: BTreeMap<Text, Timestamp>,
    pub(super) offences: u32,
    pub(super) offended_at: Timestamp,
    pub(super) limited_until: Timestamp,
    /// It is limited for a little that may have been a mistake.
    pub(super) is_suspected: bool,
    pub(super) resets: SlidingCount,
    /// Rules whose findings were taken for mistakes: since when, and how many.
    pub(super) mistaken: Vec<(RuleId, Timestamp, u32)>,
    /// Noted instead of banned until then.
    pub(super) grace_until: Timestamp,
}

impl Person {
    /// Whether it is limited for as long as the rule would limit it.
    pub(super) fn is_limited(&self, now: Timestamp, rule: &Rule) -> bool {
        is_fresh(self.limited_until, now, rule.duration)
    }

    pub(super) fn end_session(&mut self, flow: FlowId, now: Timestamp) {
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

    pub(super) fn lasting_sessions(&self, now: Timestamp) -> usize {
        self.sessions.values().filter(|session| now.since(session.since) >= LASTING).count()
    }

    /// How many have been there for a while, or had been lately.
    pub(super) fn crowd(&self, now: Timestamp) -> usize {
        let before = self.crowd.filter(|(_, at)| now.since(*at) < COMES_BACK_WITHIN);
        before.map_or(0, |(count, _)| count).max(self.lasting_sessions(now))
    }

    /// Takes note of a login with a password of their own.
    pub(super) fn log_in(&mut self, at: Timestamp) {
        if self.logged_in_at.is_none() {
            self.known_since = Some(at);
        }
        self.logged_in_at = Some(at);
    }

    /// Whether that was not just now for the first time.
    pub(super) fn has_been_known(&self, now: Timestamp) -> bool {
        self.known_since.is_some_and(|since| now.since(since) >= LASTING)
    }

    /// Whether somebody has logged in with a password of their own.
    pub(super) fn behaves_well(&self, now: Timestamp) -> bool {
        self.logged_in_at.is_some_and(|at| now.since(at) < KNOWN_FOR)
    }

    /// Whether the right password of a login that failed is known here: it has followed, or was used before. Whoever is a guest
    /// instead has guessed nothing.
    pub(super) fn has_made_good(&self, failed: &Signal) -> bool {
        let Some(account) = &failed.detail.account else { return false };
        if is_guests(account) {
            return self.sessions.values().any(|session| session.since >= failed.at);
        }
        self.accounts.contains_key(account)
            || self.sessions.values().any(|session| session.named.as_ref() == Some(account))
    }

    /// Whether one more finding of a rule may be taken for mistakes: so many within [`MISTAKEN_WITHIN`]. Whatever somebody makes
    /// look like mistakes, with an account of their own to make them good, comes to an end.
    pub(super) fn may_be_mistaken(
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

/// Accounts at which logins from one address have failed.
#[derive(Debug, Default)]
pub(super) struct Mistyped {
    /// The last ones that are not made good, each once: at most [`MISTYPED_MAX`].
    open: Vec<(Text, Timestamp)>,
    /// When there were more.
    overflowed: Option<Timestamp>,
    made_good: Option<Timestamp>,
}

impl Mistyped {
    pub(super) fn note(&mut self, account: &Text, at: Timestamp) {
        self.open.retain(|(other, _)| other != account);
        if self.open.len() >= MISTYPED_MAX {
            self.open.remove(0);
            self.overflowed = Some(at);
        }
        self.open.push((account.clone(), at));
    }

    /// The right password has come. Whether all are made good with that.
    pub(super) fn make_good(&mut self, account: &Text, at: Timestamp) -> bool {
        let before = self.open.len();
        self.open.retain(|(other, _)| other != account);
        if self.open.len() < before {
            self.made_good = Some(at);
        }
        self.is_made_good(at, MISTAKEN_WITHIN)
    }

    /// Whether there is but one.
    pub(super) fn is_of_one(&self) -> bool {
        self.open.len() <= 1
    }

    /// Whether every login that failed within this time was followed by the right password.
    pub(super) fn is_made_good(&self, now: Timestamp, within: Span) -> bool {
        let is_recent = |at: Timestamp| now.since(at) <= within;
        self.made_good.is_some_and(is_recent)
            && !self.overflowed.is_some_and(is_recent)
            && !self.open.iter().any(|(_, at)| is_recent(*at))
    }
}

/// What somebody has said lately: the last different texts, newest last.
#[derive(Debug, Default)]
pub(super) struct Talk {
    texts: VecDeque<Content>,
    at: Timestamp,
}

impl Talk {
    /// Where figures alone differ it is something else only if they took their time.
    pub(super) fn note(&mut self, content: Content, at: Timestamp) {
        let is_slow = at.since(self.at) >= TAKES_TURNS;
        let is_next =
            |text: &Content| is_slow && text.letters == content.letters && text.exact != content.exact;
        let is_known = |text: &Content| text.alike == content.alike && !is_next(text);
        if self.texts.iter().any(is_known) {
            return;
        }
        if self.texts.len() >= VARIED_TEXTS {
            self.texts.pop_front();
        }
        self.texts.push_back(content);
        self.at = at;
    }

    /// Whether there is more than one.
    pub(super) fn is_of_several(&self) -> bool {
        self.texts.len() > 1
    }

    /// Whether so many messages were as many different texts, as far as that is remembered.
    pub(super) fn keeps_up_with(&self, messages: u32) -> bool {
        self.texts.len() >= VARIED_TEXTS.min(usize::try_from(messages).unwrap_or(usize::MAX))
    }

    /// Whether somebody says now this, now that. Drones come for one text.
    pub(super) fn is_varied(&self) -> bool {
        self.texts.len() >= VARIED_TEXTS
    }
}

/// Whether a name is that of everybody who has none: where there are no guests, their failures are no guesses.
pub(super) fn is_guests(account: &Text) -> bool {
    let name = account.as_str();
    name.is_empty() || ["guest", "anonymous"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Somebody logged in on one connection.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) since: Timestamp,
    /// The account, if it is somebody's own.
    pub(super) account: Option<Text>,
    /// The account, whoever's it is.
    pub(super) named: Option<Text>,
}

/// A limit is said once: while it stands it is prolonged only when half of it is over.
pub(super) fn is_fresh(limited_until: Timestamp, now: Timestamp, duration: Span) -> bool {
    limited_until.since(now).as_nanos() > duration.as_nanos() / 2
}
