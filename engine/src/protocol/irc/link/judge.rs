//! What no correct network says: each line against the books.
//!
//! One signal per line: the most telling one. A side is blamed for what it says itself, and not for what it could
//! not know yet (`CROSSING`). Servers answer each other's mistakes with KILL and SQUIT; an answer is no mistake.

use std::collections::{BTreeSet, VecDeque};

use super::{
    Link, Links,
    collision::{self, Loser},
    dialect,
    event::{Arguments, Dialect, Event, Introduction, Members, Mistake, SERVER_ID_BYTES, changes},
    name_of,
    network::{CROSSING, Lost, Name, User, index, opposite},
};
use crate::{
    protocol::{Context, Side, irc::message::Message},
    signal::{Detail, SignalKind},
    stream::Ending,
    text::Text,
    time::{Span, Timestamp},
};

/// Clocks further apart are worth a word (solanum `ts_warn_delta`).
const CLOCK_WARNING_SECONDS: i64 = 30;
/// Clocks further apart make timestamps meaningless (solanum `ts_max_delta`).
const CLOCK_MOST_SECONDS: i64 = 600;
/// Before this second (2001-09-09) there was no network with timestamps that is still up.
const OLDEST_PLAUSIBLE: u64 = 1_000_000_000;
/// The nickname timestamp of those whom SAVE renamed (ts6.txt).
const SAVED_TIMESTAMP: u64 = 100;
/// A burst that nobody ended is over after this.
const BURST_MOST: Span = Span::from_secs(60);
/// How long a newly introduced server may bring older channels.
const NET_JOIN: Span = Span::from_secs(60);
/// How soon a mode is bounced.
const BOUNCE: Span = Span::from_secs(5);
/// Mode changes of users remembered for that.
const CHANGES_MAX: usize = 16;
/// Bytes of one mode change that are compared.
const CHANGE_BYTES_MAX: usize = 256;
/// Users remembered as losers of collisions, whose KILLs are nobody's attack.
const LOSERS_MAX: usize = 1_024;

/// What is counted per side: how many in how much time are one too many.
const RATES: [(&str, u32, Span); 4] = [
    ("kills", 30, Span::from_secs(60)),
    ("splits", 8, Span::from_secs(60)),
    ("bans", 30, Span::from_secs(60)),
    ("introductions", 200, Span::from_secs(10)),
];
const KILLS: usize = 0;
const SPLITS: usize = 1;
const BANS: usize = 2;
const INTRODUCTIONS: usize = 3;

/// What is known about the conversation itself, one side and the other.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) dialect: Dialect,
    begun: Option<Timestamp>,
    has_missed: bool,
    is_burst_over: [bool; 2],
    has_told_established: bool,
    net_join: [Option<Timestamp>; 2],
    versions: [Option<(u64, u64)>; 2],
    has_told_versions: bool,
    has_told_missing: [bool; 2],
    /// Seconds that each side's clock is ahead of the packets.
    clocks: [Option<i64>; 2],
    has_told_clock: bool,
    /// One side has said that the link ends.
    is_closing: bool,
    has_told_split: bool,
    /// When the peer was lost before this link.
    pub(super) split: Option<Timestamp>,
    /// When each side was last found wrong: what the other does right after may be its answer.
    wrong: [Option<Timestamp>; 2],
    rates: [[(Timestamp, u32); RATES.len()]; 2],
    changes: VecDeque<(Timestamp, Side, Name, Box<[u8]>)>,
    losers: BTreeSet<(usize, Name)>,
    pub(super) lost: u64,
}

impl Judge {
    pub(super) const fn begin(&mut self, now: Timestamp) {
        self.begun = Some(now);
    }

    pub(super) const fn begin_midway(&mut self) {
        self.begun = Some(Timestamp::EPOCH);
        self.has_missed = true;
        self.is_burst_over = [true; 2];
        self.has_told_established = true;
        self.dialect = Dialect::Unknown;
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) const fn note_missed(&mut self) {
        self.has_missed = true;
    }

    pub(super) const fn is_complete(&self) -> bool {
        !self.has_missed
    }

    pub(super) const fn is_established(&self) -> bool {
        self.is_burst_over[0] && self.is_burst_over[1]
    }
}

/// Who said a line.
enum Origin {
    Server(Name),
    User(Name),
}

/// One line before the judge.
pub(super) struct Court<'a, 'c> {
    pub(super) link: &'a mut Link,
    pub(super) links: &'a mut Links,
    pub(super) context: &'a mut Context<'c>,
    pub(super) side: Side,
}

impl Court<'_, '_> {
    fn now(&self) -> Timestamp {
        self.context.at
    }

    fn other(&self) -> Side {
        opposite(self.side)
    }

    fn note(&mut self, kind: SignalKind, detail: Detail) {
        self.link.signal(self.side, kind, detail, self.context);
    }

    fn violation(&mut self, kind: SignalKind, reason: Option<&'static str>, detail: Detail) {
        // Where the dialect is none of those that are known, nobody can say what is wrong in it.
        if self.link.judge.dialect == Dialect::Unknown {
            return;
        }
        self.link.judge.wrong[index(self.side)] = Some(self.context.at);
        self.note(kind, Detail { reason, ..detail });
    }

    pub(super) fn malformed(&mut self, reason: &'static str) {
        self.violation(SignalKind::LinkMalformed, Some(reason), Detail::default());
    }

    /// InspIRCd's lines between servers have no limit of 512.
    pub(super) fn too_long(&mut self) {
        if self.link.judge.dialect != Dialect::SpanningTree {
            self.malformed("line-too-long");
        }
    }

    /// Takes one line of an open link.
    pub(super) fn hear(&mut self, message: &Message<'_>) {
        if self.link.judge.is_closing {
            return;
        }
        if self.link.judge.dialect == Dialect::Unknown {
            self.link.judge.dialect = dialect_midway(message);
        }
        let is_tree = self.link.judge.dialect == Dialect::SpanningTree;
        let disorder = match message.command {
            b"PING" | b"PASS" => return,
            b"PONG" => return self.on_burst_over(self.other()),
            b"CAPAB" if is_tree => return,
            b"CAPAB" => Some("capab-twice"),
            b"SERVER" if message.source.is_none() => Some("server-twice"),
            b"USER" | b"CAP" => Some("client-command"),
            // The answer goes back along the way the question came: its source may be behind the receiver.
            b"SQUIT" | b"RSQUIT" => return self.on_split(message.param(0).unwrap_or_default()),
            _ => None,
        };
        if disorder.is_some() {
            return self.violation(SignalKind::LinkDisordered, disorder, Detail::default());
        }
        let Some(origin) = self.origin(message) else { return };
        match dialect::read(self.link.judge.dialect, message) {
            Ok(event) => self.take(&origin, event),
            Err(mistake @ Mistake::NoTimestamp) => {
                self.violation(SignalKind::LinkPlainJoin, Some(mistake.as_str()), Detail::default());
            }
            // What was picked up in the middle may be another dialect than it seems.
            Err(mistake) if self.link.judge.is_complete() => self.malformed(mistake.as_str()),
            Err(_) => {}
        }
    }

    /// Who said it; `None` when that is wrong, or cannot be told and does not matter any more.
    fn origin(&mut self, message: &Message<'_>) -> Option<Origin> {
        let (side, other) = (self.side, self.other());
        let Some(source) = message.source_name() else {
            let own = self.link.greeted[index(side)].server.as_ref().map(|(_, id)| id.clone());
            return Some(Origin::Server(own.unwrap_or_else(|| name_of(b""))));
        };
        if let Some(id) = self.link.network.user_id(side, source) {
            return Some(Origin::User(id));
        }
        if let Some(id) = self.link.network.server_id(side, source) {
            return Some(Origin::Server(id));
        }
        let detail = || Detail { target: Some(Text::new(source)), ..Detail::default() };
        if let Some(gone) = self.link.network.gone(side, source) {
            if gone.by_own_side || self.now().since(gone.at) > CROSSING {
                self.violation(SignalKind::LinkReintroduced, Some("gone"), detail());
            }
            return None;
        }
        let network = &self.link.network;
        if network.user_id(other, source).is_some() || network.server_id(other, source).is_some() {
            // A remote server's answer may be sent in the name of the one that was asked.
            if message.numeric().is_none() {
                self.violation(SignalKind::LinkFakeDirection, Some("source"), detail());
            }
            return None;
        }
        if self.knows_everybody() {
            if network.gone(other, source).is_none() && message.numeric().is_none() {
                self.violation(SignalKind::LinkFakeDirection, Some("unknown-source"), detail());
            }
            return None;
        }
        let is_server = source.len() == SERVER_ID_BYTES || source.contains(&b'.');
        Some(if is_server { Origin::Server(name_of(source)) } else { Origin::User(name_of(source)) })
    }

    /// Whether a name that is not in the books does not exist.
    const fn knows_everybody(&self) -> bool {
        let losses = &self.link.network.losses;
        self.link.judge.is_complete() && losses.users == 0 && losses.servers == 0
    }

    /// Whether a rank that is not in the books was not given.
    const fn knows_ranks(&self) -> bool {
        let losses = &self.link.network.losses;
        self.knows_everybody() && losses.channels == 0 && losses.members == 0
    }

    fn take(&mut self, origin: &Origin, event: Event<'_>) {
        self.expect_versions(&event);
        match event {
            Event::Versions { current, minimum, time } => {
                self.link.judge.versions[index(self.side)] = Some((current, minimum));
                if self.link.judge.dialect == Dialect::Ts3 && current >= 5 {
                    self.link.judge.dialect = Dialect::Ts5;
                }
                self.compare_versions();
                self.on_clock(time);
            }
            Event::Clock { time } => self.on_clock(time),
            Event::BurstEnded => self.on_own_burst_over(origin),
            Event::Error => self.link.judge.is_closing = true,
            Event::Server { id, name } => self.on_server(origin, id, name),
            Event::User(introduction) => self.on_user(origin, &introduction),
            Event::Nick { nickname, timestamp } => self.on_nick(origin, nickname, timestamp),
            Event::Quit => {
                if let Origin::User(id) = origin {
                    let (now, side) = (self.now(), self.side);
                    self.link.network.remove_user(side, id, now, true, &mut self.links.room);
                }
            }
            Event::Kill { target } => self.on_kill(origin, target),
            Event::Save { target, timestamp } => self.on_save(target, timestamp),
            Event::Split { target } => self.on_split(target),
            Event::Burst { channel, timestamp, members } => {
                self.on_members(origin, channel, timestamp, &members);
            }
            Event::Join { channels, timestamp, has_status } => {
                self.on_join(origin, channels, timestamp, has_status);
            }
            Event::Part { channels } => {
                if let Origin::User(id) = origin {
                    for name in channels.split(|byte| *byte == b',') {
                        self.link.network.remove_member(self.side, id, name, &mut self.links.room);
                    }
                }
            }
            Event::LeaveAll => {
                if let Origin::User(id) = origin {
                    self.link.network.leave_all(self.side, id, &mut self.links.room);
                }
            }
            Event::Kick { channel, target } => self.on_kick(origin, channel, target),
            Event::Modes { channel, timestamp, modes, arguments } => {
                self.on_modes(origin, channel, timestamp, modes, &arguments);
            }
            Event::Mask { channel, timestamp } => {
                self.is_of_another_time(origin, channel, timestamp);
            }
            Event::Resync { channel } => {
                let now = self.now();
                if let Some(channel) = self.link.network.known_channel_mut(channel) {
                    channel.resync = Some(now);
                }
            }
            Event::Ban { is_of_everybody } => {
                if is_of_everybody {
                    self.violation(SignalKind::LinkMassAction, Some("everybody"), Detail::default());
                }
                self.count(BANS);
            }
            Event::Other => {}
        }
    }

    // The conversation itself.

    /// Nothing of the network may be told before SVINFO.
    fn expect_versions(&mut self, event: &Event<'_>) {
        let tells =
            matches!(event, Event::User(_) | Event::Burst { .. } | Event::Server { .. } | Event::BurstEnded);
        let at = index(self.side);
        let judge = &mut self.link.judge;
        if tells
            && judge.dialect.has_svinfo()
            && judge.is_complete()
            && judge.versions[at].is_none()
            && !std::mem::replace(&mut judge.has_told_missing[at], true)
        {
            self.violation(SignalKind::LinkIncompatible, Some("no-svinfo"), Detail::default());
        }
    }

    fn compare_versions(&mut self) {
        let [Some(one), Some(other)] = self.link.judge.versions else { return };
        let overlap = one.0 >= other.1 && other.0 >= one.1;
        if !overlap && !std::mem::replace(&mut self.link.judge.has_told_versions, true) {
            self.side = if one.0 < other.0 { Side::Client } else { Side::Server };
            self.violation(SignalKind::LinkIncompatible, Some("version"), Detail::default());
        }
    }

    fn on_clock(&mut self, time: u64) {
        let seconds = self.now().as_nanos() / 1_000_000_000;
        let ahead = i64::try_from(time).unwrap_or(i64::MAX).saturating_sub_unsigned(seconds);
        self.link.judge.clocks[index(self.side)] = Some(ahead);
        if let [Some(one), Some(other)] = self.link.judge.clocks {
            // Where both agree it is our own clock that is off.
            let side =
                if one.saturating_abs() > other.saturating_abs() { Side::Client } else { Side::Server };
            self.judge_clock(side, one.saturating_sub(other).saturating_abs());
        }
    }

    fn judge_clock(&mut self, side: Side, apart: i64) {
        // What was waited for comes later than it was said.
        if apart <= CLOCK_WARNING_SECONDS || !self.link.judge.is_complete() {
            return;
        }
        let reason = if apart <= CLOCK_MOST_SECONDS { "clock-warning" } else { "clock" };
        if !std::mem::replace(&mut self.link.judge.has_told_clock, true) {
            self.side = side;
            let weight = apart.unsigned_abs();
            self.violation(
                SignalKind::LinkIncompatible,
                Some(reason),
                Detail { weight, ..Detail::default() },
            );
        }
    }

    fn is_bursting(&self, side: Side) -> bool {
        let judge = &self.link.judge;
        !judge.is_burst_over[index(side)]
            && judge.begun.is_some_and(|begun| self.now().since(begun) <= BURST_MOST)
    }

    fn brings_servers(&self) -> bool {
        let since = self.link.judge.net_join[index(self.side)];
        since.is_some_and(|since| self.now().since(since) <= NET_JOIN)
    }

    /// EOB of a server behind the peer is not the peer's.
    fn on_own_burst_over(&mut self, origin: &Origin) {
        if matches!(origin, Origin::Server(_)) && self.is_of_peer(origin) {
            self.on_burst_over(self.side);
        }
    }

    /// Whether it is the peer itself, or somebody on it, and nobody behind it: who brings a server brings that one's channels, not
    /// older ones of their own.
    fn is_of_peer(&self, origin: &Origin) -> bool {
        let own = self.link.greeted[index(self.side)].server.as_ref().map(|(_, id)| id);
        let server = match origin {
            Origin::Server(id) => Some(id),
            Origin::User(id) => self.link.network.user(self.side, id).map(|user| &user.server),
        };
        own.is_some() && server == own
    }

    fn on_burst_over(&mut self, side: Side) {
        let judge = &mut self.link.judge;
        judge.is_burst_over[index(side)] = true;
        if judge.is_established() && !std::mem::replace(&mut judge.has_told_established, true) {
            let users = &self.link.network.users;
            let weight = users[0].len().saturating_add(users[1].len()) as u64;
            let detail = Detail { target: self.link.peer_name(), weight, ..Detail::default() };
            self.side = self.link.peer_side;
            self.note(SignalKind::LinkEstablished, detail);
        }
    }

    fn count(&mut self, what: usize) {
        let now = self.now();
        let (Some((reason, limit, within)), Some((since, count))) =
            (RATES.get(what), self.link.judge.rates[index(self.side)].get_mut(what))
        else {
            return;
        };
        if now.since(*since) > *within {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count == *limit {
            let detail = Detail { number: Some(*limit), ..Detail::default() };
            self.violation(SignalKind::LinkMassAction, Some(reason), detail);
        }
    }

    // Servers and users.

    fn on_server(&mut self, origin: &Origin, id: &[u8], name: &[u8]) {
        let Origin::Server(uplink) = origin else { return self.forged("user-source", None) };
        let network = &self.link.network;
        let is_there = [Side::Client, Side::Server]
            .iter()
            .any(|side| network.server_id(*side, id).is_some() || network.server_id(*side, name).is_some());
        if is_there {
            let detail = Detail { target: Some(Text::new(name)), ..Detail::default() };
            return self.violation(SignalKind::LinkReintroduced, Some("server"), detail);
        }
        if !self.is_bursting(self.side) {
            self.link.judge.net_join[index(self.side)] = Some(self.context.at);
        }
        self.link.network.add_server(self.side, id, name, uplink, &mut self.links.room);
    }

    fn on_user(&mut self, origin: &Origin, introduction: &Introduction<'_>) {
        let Introduction { id, nickname, timestamp, user, host, is_operator, server } = *introduction;
        let Origin::Server(introducer) = origin else { return self.forged("user-source", None) };
        let detail = || Detail {
            nickname: Some(Text::new(nickname)),
            target: Some(Text::new(id)),
            number: timestamp.map(as_number),
            ..Detail::default()
        };
        let is_own = id.get(..SERVER_ID_BYTES) == Some(&**introducer);
        if self.link.judge.dialect.has_ids() && !introducer.is_empty() && !is_own {
            return self.violation(SignalKind::LinkFakeDirection, Some("introduction"), detail());
        }
        let server = match server.map(|name| self.link.network.server_id(self.side, name)) {
            Some(None) if self.knows_everybody() => {
                return self.violation(SignalKind::LinkFakeDirection, Some("introduction"), detail());
            }
            Some(Some(server)) => server,
            Some(None) | None => introducer.clone(),
        };
        if self.link.network.user_id(self.side, id).is_some() {
            return self.violation(SignalKind::LinkReintroduced, Some("user"), detail());
        }
        if let Some(timestamp) = timestamp.filter(|at| !(*at == SAVED_TIMESTAMP && nickname == id))
            && let Some(reason) = self.implausible(timestamp)
        {
            self.violation(SignalKind::LinkTimestampImplausible, Some(reason), detail());
        }
        if !self.is_bursting(self.side) && !self.brings_servers() {
            self.count(INTRODUCTIONS);
            if timestamp.is_some_and(|timestamp| self.takes_nickname(origin, nickname, timestamp)) {
                self.violation(SignalKind::LinkImpossible, Some("introduction"), detail());
            }
        }
        let person = self.context.hash(&[user, b"@", host].concat());
        let user = User::new(name_of(nickname), timestamp, person, is_operator, server);
        self.link.network.add_user(self.side, id, user, &mut self.links.room);
        self.meet(id, nickname);
    }

    /// Whether a user who is introduced only now is said to have been there for long, and would win somebody's nickname by that. Who
    /// comes while a link stands is introduced at once; only two who come at the same time can collide.
    fn takes_nickname(&self, origin: &Origin, nickname: &[u8], timestamp: u64) -> bool {
        let behind = self.link.judge.clocks[index(self.side)].unwrap_or(0).clamp(-CLOCK_MOST_SECONDS, 0);
        let allowed = behind.unsigned_abs().saturating_add(CLOCK_MOST_SECONDS.unsigned_abs());
        let is_old = timestamp < (self.now().as_nanos() / 1_000_000_000).saturating_sub(allowed);
        let holder = self.link.network.holder(self.other(), nickname);
        let wins = holder.is_some_and(|(_, holder)| holder.timestamp.is_some_and(|held| timestamp < held));
        is_old && wins && timestamp != SAVED_TIMESTAMP && self.knows_everybody() && !self.is_office(origin)
    }

    /// Whether somebody on the other side has this nickname too, and who loses then.
    fn meet(&mut self, id: &[u8], nickname: &[u8]) {
        let (side, other) = (self.side, self.other());
        let network = &self.link.network;
        let Some(own_id) = network.user_id(side, id) else { return };
        let (Some(own), Some((other_id, stranger))) =
            (network.user(side, &own_id), network.holder(other, nickname))
        else {
            return;
        };
        let is_same_person = own.person == stranger.person;
        let (verdict, loser) = collision::judge(own.timestamp, stranger.timestamp, is_same_person);
        let target = match loser {
            Loser::Both => None,
            Loser::One => Some(Text::new(&own_id)),
            Loser::Other => Some(Text::new(&other_id)),
        };
        for loser in [(index(side), own_id), (index(other), other_id)] {
            if self.link.judge.losers.len() < LOSERS_MAX {
                self.link.judge.losers.insert(loser);
            }
        }
        let nickname = Some(Text::new(nickname));
        let detail = Detail { nickname, target, reason: Some(verdict.as_str()), ..Detail::default() };
        self.side = self.link.peer_side;
        self.note(SignalKind::LinkCollision, detail);
        self.side = side;
    }

    fn on_nick(&mut self, origin: &Origin, nickname: &[u8], timestamp: Option<u64>) {
        let Origin::User(id) = origin else { return };
        let known = self.link.network.user(self.side, id).and_then(|user| user.timestamp);
        let is_saved = timestamp == Some(SAVED_TIMESTAMP) && *nickname == **id;
        let meets = self.link.network.holder(self.other(), nickname).is_some();
        if let (Some(known), Some(new)) = (known, timestamp)
            && new < known
            && !is_saved
            && !meets
        {
            let detail = Detail {
                nickname: Some(Text::new(nickname)),
                target: Some(Text::new(id)),
                number: Some(as_number(new)),
                ..Detail::default()
            };
            self.violation(SignalKind::LinkImpossible, Some("nick"), detail);
        }
        let is_id = !self.link.judge.dialect.has_ids() && **id != *nickname && !id.starts_with(b".");
        self.link.network.rename(self.side, id, nickname, timestamp, is_id);
        if meets {
            self.meet(nickname, nickname);
        }
    }

    fn on_kill(&mut self, origin: &Origin, target: &[u8]) {
        let sides = [self.side, self.other()];
        let found = sides.into_iter().find_map(|side| Some((side, self.link.network.user_id(side, target)?)));
        let now = self.now();
        let Some((side, id)) = found else {
            let was_there = sides.into_iter().any(|side| {
                self.link.network.gone(side, target).is_some_and(|gone| now.since(gone.at) <= CROSSING)
            });
            let is_answer =
                self.link.judge.wrong[index(self.other())].is_some_and(|at| now.since(at) <= CROSSING);
            if !was_there && !is_answer && self.knows_everybody() {
                let detail = Detail { target: Some(Text::new(target)), ..Detail::default() };
                self.violation(SignalKind::LinkImpossible, Some("kill"), detail);
            }
            return self.count(KILLS);
        };
        let is_loser = self.link.judge.losers.remove(&(index(side), id.clone()));
        // The victim's own server says QUIT after it (measured on ngIRCd), so it is not the last word.
        self.link.network.remove_user(side, &id, now, false, &mut self.links.room);
        if !is_loser && !self.is_office(origin) {
            self.count(KILLS);
        }
    }

    /// Whoever is renamed already was renamed by the other side of the same collision.
    fn on_save(&mut self, target: &[u8], timestamp: u64) {
        let sides = [self.side, self.other()];
        let found = sides.into_iter().find_map(|side| Some((side, self.link.network.user_id(side, target)?)));
        let Some((side, id)) = found else { return };
        let Some(user) = self.link.network.user(side, &id) else { return };
        if *user.nickname == *id {
            return;
        }
        if user.timestamp.is_some_and(|known| known != timestamp) {
            let detail = Detail {
                nickname: Some(Text::new(&user.nickname)),
                target: Some(Text::new(target)),
                number: Some(as_number(timestamp)),
                ..Detail::default()
            };
            return self.violation(SignalKind::LinkImpossible, Some("save"), detail);
        }
        self.link.network.rename(side, &id.clone(), &id, Some(SAVED_TIMESTAMP), false);
    }

    fn on_split(&mut self, target: &[u8]) {
        let now = self.now();
        for side in [Side::Client, Side::Server] {
            let Some(id) = self.link.network.server_id(side, target) else { continue };
            let is_end = self.link.greeted[index(side)].server.as_ref().is_some_and(|(_, own)| *own == id);
            if is_end {
                self.link.judge.is_closing = true;
                return self.tell_split();
            }
            let name = self.link.network.servers[index(side)].get(&id).map(|server| Text::new(&server.name));
            let weight = self.link.network.remove_server(side, &id, now, &mut self.links.room);
            self.note(SignalKind::LinkSplit, Detail { target: name, weight, ..Detail::default() });
            return self.count(SPLITS);
        }
    }

    /// The two ends have parted.
    fn tell_split(&mut self) {
        if std::mem::replace(&mut self.link.judge.has_told_split, true) {
            return;
        }
        let peer_side = self.link.peer_side;
        let weight = self.link.network.users[index(peer_side)].len() as u64;
        let peer = self.link.peer_name();
        if let Some(peer) = &peer {
            self.links.note_split(peer, self.context.at);
        }
        self.side = peer_side;
        self.note(SignalKind::LinkSplit, Detail { target: peer, weight, ..Detail::default() });
    }

    /// The connection is over.
    pub(super) fn close(&mut self) {
        if self.link.judge.clocks.iter().flatten().count() == 1 {
            for side in [Side::Client, Side::Server] {
                if let Some(ahead) = self.link.judge.clocks[index(side)] {
                    self.judge_clock(side, ahead.saturating_abs());
                }
            }
        }
        // The end of a capture, or of our memory, is no netsplit.
        let ending = self.link.ending;
        if ending.is_some_and(Ending::is_of_the_connection) {
            self.tell_split();
        }
        self.side = self.link.peer_side;
        let reason = ending.map(Ending::as_str);
        self.note(
            SignalKind::LinkClosed,
            Detail { reason, target: self.link.peer_name(), ..Detail::default() },
        );
    }

    // Channels.

    fn forged(&mut self, reason: &'static str, channel: Option<&[u8]>) {
        let detail = Detail { channel: channel.map(Text::new), ..Detail::default() };
        self.violation(SignalKind::LinkForgedJoin, Some(reason), detail);
    }

    /// Why a timestamp cannot be, against the clock of the side that says it.
    fn implausible(&self, timestamp: u64) -> Option<&'static str> {
        let seconds = self.now().as_nanos() / 1_000_000_000;
        let ahead = self.link.judge.clocks[index(self.side)].unwrap_or(0);
        let ahead = ahead.clamp(0, CLOCK_MOST_SECONDS).unsigned_abs();
        let latest = seconds.saturating_add(ahead).saturating_add(CLOCK_MOST_SECONDS.unsigned_abs());
        if timestamp > latest {
            Some("future")
        } else if timestamp < OLDEST_PLAUSIBLE {
            Some("past")
        } else {
            None
        }
    }

    /// Judges a channel's timestamp on its way in; whether it was wrong.
    fn judge_timestamp(
        &mut self,
        origin: &Origin,
        channel: &[u8],
        timestamp: u64,
        has_operator: bool,
    ) -> bool {
        let reason = if has_operator { "op" } else { "no-op" };
        let detail = Detail {
            channel: Some(Text::new(channel)),
            number: Some(as_number(timestamp)),
            ..Detail::default()
        };
        let known = self.link.network.channel(channel);
        if timestamp == 0 {
            let was_zero = known.is_none_or(|known| known.timestamp().is_none_or(|known| known == 0));
            if self.link.judge.dialect.is_lenient() && was_zero {
                return false;
            }
            self.violation(SignalKind::LinkTimestampZero, Some(reason), detail);
            return true;
        }
        if let Some(reason) = self.implausible(timestamp) {
            self.violation(SignalKind::LinkTimestampImplausible, Some(reason), detail);
            return true;
        }
        let Some(known) = known else { return false };
        let Some(current) = known.timestamp() else { return false };
        // What only the other side has said was heard on this one, which would have told of an older channel of its own.
        let is_agreed = match known.said {
            [Some(_), Some(_)] => true,
            _ if known.said[index(self.side)].is_some() => false,
            _ => self.knows_ranks() && self.now().since(known.changed) > CROSSING,
        };
        let is_asked_for = known.resync.is_some_and(|at| self.now().since(at) <= CROSSING);
        let is_cleared = self.link.judge.dialect == Dialect::Ts4 && timestamp.saturating_add(1) == current;
        if timestamp >= current
            || self.is_bursting(self.side)
            || (self.brings_servers() && !self.is_of_peer(origin))
            || is_asked_for
            || is_cleared
            || !is_agreed
            || self.is_office(origin)
        {
            return false;
        }
        let detail = Detail { weight: current, ..detail };
        self.violation(SignalKind::LinkTimestampBackwards, Some(reason), detail);
        true
    }

    fn on_members(&mut self, origin: &Origin, name: &[u8], timestamp: Option<u64>, members: &Members<'_>) {
        if let Origin::User(_) = origin {
            return self.forged("user-source", Some(name));
        }
        if name.starts_with(b"&") {
            return self.forged("local-channel", Some(name));
        }
        let (side, other) = (self.side, self.other());
        let mut stranger = None;
        for (id, _) in members.iter() {
            let network = &self.link.network;
            if network.user_id(side, id).is_some() || network.gone(side, id).is_some() {
                continue;
            }
            if network.user_id(other, id).is_some() {
                stranger = Some("member");
            } else if self.knows_everybody() {
                stranger = Some("unknown-member");
            }
        }
        let has_operator = members.iter().any(|(_, is_operator)| is_operator);
        let is_wrong = match (stranger, timestamp) {
            (Some(reason), _) => {
                self.forged(reason, Some(name));
                true
            }
            (None, Some(timestamp)) => self.judge_timestamp(origin, name, timestamp, has_operator),
            (None, None) => false,
        };
        let keeps_ranks = self.merge(name, timestamp, has_operator, is_wrong);
        for (id, is_operator) in members.iter() {
            let Some(id) = self.link.network.user_id(side, id) else { continue };
            let gets = is_operator && keeps_ranks;
            self.link.network.add_member(side, &id, name, gets, &mut self.links.room);
            if is_operator && !keeps_ranks {
                self.on_ops_lost(side, &id, name, timestamp, false);
                let now = self.now();
                if let Some(member) = self.link.network.member_mut(side, &id, name) {
                    member.is_operator = false;
                    member.lost = Some(Lost::Merge(now));
                }
            }
        }
    }

    /// Which of two channels of one name wins; whether the ranks just said count. What either side knows from now
    /// on is the timestamp in force.
    fn merge(&mut self, name: &[u8], timestamp: Option<u64>, has_operator: bool, is_wrong: bool) -> bool {
        let (side, other, now) = (self.side, self.other(), self.now());
        let is_lenient = self.link.judge.dialect.is_lenient();
        let Some(channel) = self.link.network.channel_mut(name, &mut self.links.room) else { return true };
        let Some(timestamp) = timestamp else { return true };
        let Some(current) = channel.timestamp().filter(|_| channel.said[index(other)].is_some()) else {
            let known = channel.said[index(side)];
            channel.said[index(side)] = Some(known.map_or(timestamp, |known| known.min(timestamp)));
            channel.changed = now;
            return true;
        };
        let is_opless = !channel
            .members
            .iter()
            .any(|((owner, _), member)| usize::from(*owner) == index(other) && member.is_operator);
        if timestamp > current && !(is_lenient && is_opless && has_operator) {
            if channel.said[index(side)] != Some(current) {
                channel.said[index(side)] = Some(current);
                channel.changed = now;
            }
            return false;
        }
        if timestamp != current {
            channel.changed = now;
        }
        channel.said = [Some(timestamp); 2];
        if timestamp < current {
            for id in self.link.network.drop_ranks(other, name, now) {
                self.on_ops_lost(other, &id, name, Some(current), is_wrong);
            }
        }
        true
    }

    /// Somebody who could change a channel cannot any more, because an older one of that name won.
    fn on_ops_lost(
        &mut self,
        side: Side,
        id: &Name,
        channel: &[u8],
        timestamp: Option<u64>,
        is_takeover: bool,
    ) {
        /// A channel made in the second of the split is one of the split.
        const SLACK: u64 = 2;
        let since = self.link.judge.split.map(|at| (at.as_nanos() / 1_000_000_000).saturating_sub(SLACK));
        let rode = matches!((since, timestamp), (Some(since), Some(timestamp)) if timestamp >= since);
        let reason = match (is_takeover, rode) {
            (true, _) => "takeover",
            (false, true) => "split-riding",
            (false, false) => "younger",
        };
        let nickname = self.link.network.user(side, id).map(|user| Text::new(&user.nickname));
        let detail = Detail {
            nickname,
            target: Some(Text::new(id)),
            channel: Some(Text::new(channel)),
            number: timestamp.map(as_number),
            reason: Some(reason),
            ..Detail::default()
        };
        let before = std::mem::replace(&mut self.side, side);
        self.note(SignalKind::LinkOpsLost, detail);
        self.side = before;
    }

    fn on_join(&mut self, origin: &Origin, names: &[u8], timestamp: Option<u64>, has_status: bool) {
        let Origin::User(id) = origin else { return };
        for name in names.split(|byte| *byte == b',').filter(|name| !name.is_empty()) {
            // ngIRCd writes the rank behind the name, after BEL.
            let mut parts = name.split(|byte| *byte == 0x07);
            let name = parts.next().unwrap_or_default();
            let is_operator = parts.next().is_some_and(|rank| rank.iter().any(|rank| b"ohaq".contains(rank)));
            let is_plain = timestamp.is_none() && !has_status && self.link.judge.dialect.has_timestamps();
            let is_known = self.link.network.channel(name).is_some();
            if is_plain && (self.link.judge.dialect.has_ids() || (!is_known && self.knows_ranks())) {
                let detail = Detail { channel: Some(Text::new(name)), ..Detail::default() };
                self.violation(SignalKind::LinkPlainJoin, Some("join"), detail);
            }
            if let Some(timestamp) = timestamp {
                self.judge_timestamp(origin, name, timestamp, false);
            }
            self.merge(name, timestamp, false, false);
            self.link.network.add_member(self.side, id, name, is_operator, &mut self.links.room);
        }
    }

    fn on_kick(&mut self, origin: &Origin, channel: &[u8], target: &[u8]) {
        if !self.may_change(origin, channel, "kick") {
            return;
        }
        for side in [self.side, self.other()] {
            if let Some(id) = self.link.network.user_id(side, target) {
                return self.link.network.remove_member(side, &id, channel, &mut self.links.room);
            }
        }
    }

    /// Whether a line about a channel carries another timestamp than the channel has; then it was told.
    fn is_of_another_time(&mut self, origin: &Origin, name: &[u8], timestamp: Option<u64>) -> bool {
        let Some(timestamp) = timestamp else { return false };
        let Some(channel) = self.link.network.channel(name) else { return false };
        let Some(current) = channel.timestamp() else { return false };
        let is_settled = self.now().since(channel.changed) > CROSSING;
        let reason = match timestamp.cmp(&current) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Less if timestamp == 0 => {
                return self.judge_timestamp(origin, name, 0, false);
            }
            std::cmp::Ordering::Less if !self.is_bursting(self.side) && !self.brings_servers() => "older",
            std::cmp::Ordering::Greater if is_settled => "newer",
            std::cmp::Ordering::Less | std::cmp::Ordering::Greater => return true,
        };
        let detail = Detail {
            channel: Some(Text::new(name)),
            number: Some(as_number(timestamp)),
            weight: current,
            ..Detail::default()
        };
        self.violation(SignalKind::LinkTimestampMismatch, Some(reason), detail);
        true
    }

    fn on_modes(
        &mut self,
        origin: &Origin,
        name: &[u8],
        timestamp: Option<u64>,
        modes: &[u8],
        arguments: &Arguments<'_>,
    ) {
        if self.is_of_another_time(origin, name, timestamp) {
            return;
        }
        match origin {
            Origin::User(_) => {
                if !self.may_change(origin, name, "mode") {
                    return;
                }
                self.remember_change(name, modes, arguments);
            }
            Origin::Server(_) if self.is_office(origin) => {}
            Origin::Server(_) => {
                let detail = Detail { channel: Some(Text::new(name)), ..Detail::default() };
                if self.is_bounce(name, modes, arguments) {
                    self.violation(SignalKind::LinkBouncedMode, None, detail);
                } else if self.gives_rank(modes, arguments) {
                    self.violation(SignalKind::LinkServerMode, None, detail);
                }
            }
        }
        for change in changes(modes, arguments).filter(super::event::Change::is_operator) {
            let now = self.now();
            for side in [self.side, self.other()] {
                let Some(id) = self.link.network.user_id(side, change.argument) else { continue };
                if let Some(member) = self.link.network.member_mut(side, &id, name) {
                    let had = std::mem::replace(&mut member.is_operator, change.is_adding);
                    if change.is_adding {
                        member.lost = None;
                    } else if had {
                        member.lost = Some(Lost::Mode(now));
                    }
                }
                break;
            }
        }
    }

    /// Networks with timestamps carry ranks in SJOIN alone.
    fn gives_rank(&self, modes: &[u8], arguments: &Arguments<'_>) -> bool {
        let dialect = self.link.judge.dialect;
        let has_lists = dialect == Dialect::SpanningTree;
        dialect.has_timestamps()
            && changes(modes, arguments).any(|change| {
                // On the others `q` and `a` are lists or something else.
                change.is_adding && change.is_rank() && (has_lists || !matches!(change.letter, b'a' | b'q'))
            })
    }

    /// Whether services said it, whose office it is.
    fn is_office(&self, origin: &Origin) -> bool {
        let servers = &self.link.network.servers[index(self.side)];
        let server = match origin {
            Origin::Server(id) => Some(id),
            Origin::User(id) => self.link.network.user(self.side, id).map(|user| &user.server),
        };
        let name = server.and_then(|server| servers.get(server)).map(|server| &server.name);
        name.is_some_and(|name| self.links.is_service(name))
    }

    /// Whether somebody may change a channel, as far as this link shows; if not it was told, or may have crossed.
    fn may_change(&mut self, origin: &Origin, name: &[u8], reason: &'static str) -> bool {
        let Origin::User(id) = origin else { return true };
        let side = self.side;
        let Some(channel) = self.link.network.channel(name) else { return true };
        if !self.knows_ranks() || channel.is_incomplete || self.is_office(origin) {
            return true;
        }
        let Some(user) = self.link.network.user(side, id) else { return true };
        // Operators of InspIRCd and ngIRCd may be allowed to override.
        let may_override = matches!(self.link.judge.dialect, Dialect::SpanningTree | Dialect::Rfc2813);
        if user.is_operator && may_override {
            return true;
        }
        let nickname = Some(Text::new(&user.nickname));
        let member = channel.members.get(&(index(side) as u8, id.clone())).copied();
        let is_fresh = |at: Timestamp| self.now().since(at) <= CROSSING;
        let kind = match member {
            Some(member) if member.is_operator => return true,
            Some(super::network::Member { lost: Some(Lost::Merge(at) | Lost::Mode(at)), .. })
                if is_fresh(at) =>
            {
                return false;
            }
            Some(super::network::Member { lost: Some(Lost::Merge(_)), .. }) => SignalKind::LinkOpsKept,
            _ => SignalKind::LinkUnoppedAction,
        };
        let reason = (kind == SignalKind::LinkUnoppedAction).then_some(reason);
        let detail = Detail {
            nickname,
            target: Some(Text::new(id)),
            channel: Some(Text::new(name)),
            ..Detail::default()
        };
        self.violation(kind, reason, detail);
        false
    }

    fn remember_change(&mut self, name: &[u8], modes: &[u8], arguments: &Arguments<'_>) {
        let written = written(modes, arguments, false);
        let recent = &mut self.link.judge.changes;
        if recent.len() >= CHANGES_MAX {
            recent.pop_front();
        }
        recent.push_back((self.context.at, self.side, super::network::folded(name), written.into()));
    }

    /// Whether a server takes back just what a user of the other side has set: pre-TS behaviour.
    fn is_bounce(&self, name: &[u8], modes: &[u8], arguments: &Arguments<'_>) -> bool {
        let (now, name) = (self.now(), super::network::folded(name));
        let inverse = written(modes, arguments, true);
        self.link.judge.changes.iter().any(|(at, side, channel, change)| {
            now.since(*at) <= BOUNCE && *side != self.side && *channel == name && **change == *inverse
        })
    }
}

/// A mode change in one form, or its inverse.
fn written(modes: &[u8], arguments: &Arguments<'_>, is_inverse: bool) -> Vec<u8> {
    let mut written = Vec::new();
    for change in changes(modes, arguments) {
        if written.len() < CHANGE_BYTES_MAX {
            written.push(if change.is_adding == is_inverse { b'-' } else { b'+' });
            written.push(change.letter);
            written.extend_from_slice(change.argument);
            written.push(0);
        }
    }
    written
}

/// A timestamp where signals have a number.
fn as_number(timestamp: u64) -> u32 {
    u32::try_from(timestamp).unwrap_or(u32::MAX)
}

/// What a line from the middle of a link says about the dialect.
fn dialect_midway(message: &Message<'_>) -> Dialect {
    match (message.command, message.params().len()) {
        (b"FJOIN" | b"IJOIN" | b"FMODE" | b"ENDBURST", _) => Dialect::SpanningTree,
        (b"NJOIN", _) => Dialect::Rfc2813,
        (b"EOB" | b"TBURST", _) | (b"UID", 11) => Dialect::Hybrid,
        (b"UID", 9) | (b"EUID" | b"TMODE" | b"BMASK" | b"SID", _) => Dialect::Ts6,
        _ => Dialect::Unknown,
    }
}
