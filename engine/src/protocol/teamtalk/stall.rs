//! Sessions that fall silent together within seconds of one login: a client that freezes the others.
//!
//! Silence is measured against each session's own habit, and a ping is no silence. Watched are only sessions heard
//! at least every `INTERVAL_MAX` for half a minute; they count as silent when nothing has come for three times
//! their widest interval, and longer than a talker who stops is silent (`QUIET_MIN`). At least
//! `STALLED_MIN` of them must be, and half of those watched, while others were heard all the time: a line that
//! is down silences everybody. Logins close to another one are not told apart, and say nothing.
//!
//! Bounds: `WATCHES_MAX` logins watched at once, `WATCHED_MAX` sessions each; more are not looked at.

use std::collections::VecDeque;

use floodwall_wire::Address;

use crate::{
    signal::FlowId,
    text::Text,
    time::{Span, Timestamp},
};

/// Logins watched at once.
const WATCHES_MAX: usize = 8;
/// Sessions watched for one login.
const WATCHED_MAX: usize = 64;
/// Sessions that must fall silent.
const STALLED_MIN: usize = 3;
/// How soon after the login.
const TOGETHER: Span = Span::from_secs(3);
/// Sessions heard less often have no habit to break: text clients ping every 45 s.
const INTERVAL_MAX: Span = Span::from_secs(11);
/// Clients send a UDP keepalive every 10 s (`teamtalk.md` a.8), however long they have talked before.
const QUIET_MIN: Span = Span::from_secs(13);
/// As long as nobody at all is heard, nothing is known about anybody.
const OUTAGE: Span = Span::from_secs(12);
/// How long a habit is learnt.
const EPOCH: Span = Span::from_secs(30);

/// How often one session is heard.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    last: Timestamp,
    epoch_began: Timestamp,
    widest: Span,
    widest_before: Option<Span>,
}

impl Habit {
    /// Heard for the first time.
    pub const fn new(now: Timestamp) -> Self {
        Self { last: now, epoch_began: now, widest: Span::ZERO, widest_before: None }
    }

    /// Heard again.
    pub fn hear(&mut self, now: Timestamp) {
        self.widest = self.widest.max(now.since(self.last));
        self.last = self.last.max(now);
        if now.since(self.epoch_began) >= EPOCH {
            self.widest_before = Some(self.widest);
            self.widest = Span::ZERO;
            self.epoch_began = now;
        }
    }

    /// The widest interval of the last half minute to a minute, once so much was seen.
    fn interval(&self) -> Option<Span> {
        self.widest_before.map(|before| before.max(self.widest)).filter(|widest| *widest <= INTERVAL_MAX)
    }
}

/// One session as it is watched.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Its user id.
    pub user_id: u16,
    /// Its connection.
    pub flow: FlowId,
    /// Its address.
    pub address: Address,
    /// How often it is heard.
    pub habit: Habit,
}

/// A login after which others may fall silent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    /// When.
    pub at: Timestamp,
    /// On which connection.
    pub flow: FlowId,
    /// From where.
    pub address: Address,
    /// Under which nickname.
    pub nickname: Text,
    /// With which account.
    pub account: Text,
}

/// A login after which others fell silent.
#[derive(Debug, Eq, PartialEq)]
pub struct Stall {
    /// The login.
    pub login: Login,
    /// How many fell silent.
    pub sessions: u32,
}

/// The logins that are watched.
#[derive(Debug, Default)]
pub struct Watch {
    logins: VecDeque<Watched>,
    /// The last login, watched or not.
    last_login: Option<(Timestamp, Address)>,
}

#[derive(Debug)]
struct Watched {
    login: Login,
    due: Timestamp,
    sessions: Vec<(u16, FlowId)>,
    /// Somebody else logged in at about the same time.
    is_ambiguous: bool,
    last_heard: Timestamp,
    widest_silence: Span,
}

impl Watch {
    /// Somebody logged in; `sessions` are all that are logged in.
    pub fn begin(&mut self, login: Login, sessions: impl Iterator<Item = Heard>) {
        let mut is_ambiguous = false;
        if let Some((at, address)) = self.last_login {
            is_ambiguous = address != login.address && login.at.since(at) <= TOGETHER;
        }
        self.last_login = Some((login.at, login.address));
        for other in &mut self.logins {
            let is_close = login.at.since(other.login.at) <= TOGETHER;
            if is_close && other.login.address == login.address {
                return;
            }
            other.is_ambiguous |= is_close;
        }
        let mut quiet = Span::ZERO;
        let mut watched = Vec::new();
        for heard in sessions.filter(|heard| heard.address != login.address) {
            let Some(interval) = heard.habit.interval() else {
                continue;
            };
            let silent_already = login.at.since(heard.habit.last) > interval.saturating_mul(2);
            if !silent_already && watched.len() < WATCHED_MAX {
                quiet = quiet.max(QUIET_MIN).max(interval.saturating_mul(3));
                watched.push((heard.user_id, heard.flow));
            }
        }
        if watched.len() < STALLED_MIN || self.logins.len() >= WATCHES_MAX {
            return;
        }
        self.logins.push_back(Watched {
            due: login.at + TOGETHER + quiet,
            sessions: watched,
            is_ambiguous,
            last_heard: login.at,
            widest_silence: Span::ZERO,
            login,
        });
    }

    /// Somebody was heard.
    pub fn hear(&mut self, now: Timestamp) {
        for watched in &mut self.logins {
            watched.widest_silence = watched.widest_silence.max(now.since(watched.last_heard));
            watched.last_heard = now;
        }
    }

    /// Whether [`settle`](Self::settle) has something to do.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.logins.iter().any(|watched| watched.due <= now)
    }

    /// What became of a watched login whose time is over; `last_heard` says it of a session that is still there.
    pub fn settle(
        &mut self,
        now: Timestamp,
        last_heard: impl Fn(u16, FlowId) -> Option<Timestamp>,
    ) -> Option<Stall> {
        let due = self.logins.iter().position(|watched| watched.due <= now)?;
        let watched = self.logins.remove(due)?;
        let until = watched.login.at + TOGETHER;
        let mut present = 0usize;
        let mut stalled = 0usize;
        for (user_id, flow) in &watched.sessions {
            let Some(last) = last_heard(*user_id, *flow) else {
                continue;
            };
            present = present.saturating_add(1);
            stalled = stalled.saturating_add(usize::from(last <= until));
        }
        let was_down = watched.widest_silence.max(now.since(watched.last_heard)) >= OUTAGE;
        let together = stalled >= STALLED_MIN && stalled.saturating_mul(2) >= present;
        (together && !was_down && !watched.is_ambiguous)
            .then(|| Stall { login: watched.login, sessions: u32::try_from(stalled).unwrap_or(u32::MAX) })
    }
}

impl Habit {
    /// When it was heard last.
    pub const fn last_heard(&self) -> Timestamp {
        self.last
    }
}
