//! What all connections of one TeamTalk server share.
//!
//! Bounds: 4,094 user ids are all the protocol has; `CHANNELS_MAX` channel names are kept, further ones are
//! shown by number; addresses are counted per connection, which are bounded.

use std::collections::{BTreeMap, HashMap};

use floodwall_wire::{Address, Reason};
use foldhash::fast::FixedState;

use crate::{
    packet::Packet,
    signal::{Detail, FlowId, Signal, SignalKind},
    text::Text,
    time::{Span, Timestamp},
};

use super::{
    datagram::{Binding, Header, Refused, Scans, Unanswered},
    stall::{Habit, Heard, Login, Watch},
};

/// How long a connection may be told of before it is seen.
const UNSEEN_PATIENCE: Span = Span::from_secs(10);
/// For how long after bytes were missed nobody is called unseen.
const GAP_MEMORY: Span = Span::from_secs(60);
/// How long a client that changes networks may be heard from both.
const CHANGES_WITHIN: Span = Span::from_secs(2);
/// Channel names kept.
const CHANNELS_MAX: usize = 4_096;

/// Users, channels and UDP bindings of one server.
#[derive(Debug)]
pub struct Server {
    /// By user id.
    users: Vec<Option<Box<User>>>,
    /// Connections per address, those whose user id is not known included.
    sessions_by_address: HashMap<Address, u32, FixedState>,
    /// Those that are older than the watch, whose user id is not known.
    older: u32,
    channels: BTreeMap<i64, Text>,
    /// The protocol version it states.
    protocol: Option<u32>,
    unanswered: Unanswered,
    scans: Scans,
    watch: Watch,
    /// Logins the server told of and nobody saw, until it is clear that they are not merely told before they are seen.
    missed: BTreeMap<u16, Signal>,
    /// When bytes of the server were missed last: an id may have been among them.
    gap_at: Option<Timestamp>,
}

/// One connection's user, from its welcome line on.
#[derive(Clone, Debug)]
pub struct User {
    /// The connection.
    pub flow: FlowId,
    /// Its address.
    pub address: Address,
    /// The nickname it chose.
    pub nickname: Option<Text>,
    /// The account it logged in with.
    pub account: Option<Text>,
    /// Whether it is logged in.
    pub is_logged_in: bool,
    /// When it last logged in or joined a channel.
    pub came_at: Option<Timestamp>,
    /// The channel it is in.
    pub channel: Option<i64>,
    /// Its packet protocol as the server tells it; text clients have 0.
    pub packet_protocol: Option<i64>,
    /// Its UDP address.
    pub binding: Binding,
    /// How often it is heard.
    pub habit: Habit,
    /// Who else uses its id, and since when.
    pub claimed: Option<(Address, Timestamp)>,
}

impl Server {
    /// Nobody there; `seed` keys the tables.
    pub fn new(seed: u64) -> Self {
        Self {
            users: Vec::new(),
            sessions_by_address: HashMap::with_hasher(FixedState::with_seed(seed)),
            older: 0,
            channels: BTreeMap::new(),
            protocol: None,
            unanswered: Unanswered::default(),
            scans: Scans::new(seed),
            watch: Watch::default(),
            missed: BTreeMap::new(),
            gap_at: None,
        }
    }

    /// A connection was met whose user id is not known yet; if it is older than the watch, nobody saw that given.
    pub fn meet(&mut self, address: Address, is_older: bool) {
        self.older = self.older.saturating_add(u32::from(is_older));
        let count = self.sessions_by_address.entry(address).or_default();
        *count = count.saturating_add(1);
    }

    /// A connection that was met is over, or its user id is known now.
    pub fn part(&mut self, address: Address, is_older: bool) {
        self.older = self.older.saturating_sub(u32::from(is_older));
        if let Some(count) = self.sessions_by_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sessions_by_address.remove(&address);
            }
        }
    }

    /// A connection got its id: by the welcome line, or, where that was missed, by its login.
    pub fn bind(&mut self, user_id: u16, flow: FlowId, address: Address, binding: Binding, now: Timestamp) {
        self.free_id(user_id);
        self.missed.remove(&user_id);
        let index = usize::from(user_id);
        if self.users.len() <= index {
            self.users.resize_with(index.saturating_add(1), || None);
        }
        let user = User {
            flow,
            address,
            nickname: None,
            account: None,
            is_logged_in: false,
            came_at: None,
            channel: None,
            packet_protocol: None,
            binding,
            habit: Habit::new(now),
            claimed: None,
        };
        if let Some(place) = self.users.get_mut(index) {
            *place = Some(Box::new(user));
            self.meet(address, false);
        }
    }

    /// The connection with this id is gone. An id that meanwhile belongs to another connection stays.
    pub fn free(&mut self, user_id: u16, flow: FlowId) -> bool {
        let own = self.user(user_id).is_some_and(|user| user.flow == flow);
        if own {
            self.free_id(user_id);
        }
        own
    }

    fn free_id(&mut self, user_id: u16) {
        let user = self.users.get_mut(usize::from(user_id)).and_then(Option::take);
        if let Some(user) = user {
            self.part(user.address, false);
        }
    }

    /// How many are logged in.
    pub(super) fn logged_in(&self) -> usize {
        self.users.iter().flatten().filter(|user| user.is_logged_in).count()
    }

    /// The user with this id.
    pub fn user(&self, user_id: u16) -> Option<&User> {
        self.users.get(usize::from(user_id))?.as_deref()
    }

    /// The user with this id.
    pub fn user_mut(&mut self, user_id: u16) -> Option<&mut User> {
        self.users.get_mut(usize::from(user_id))?.as_deref_mut()
    }

    /// Users with their ids, in order of id.
    pub fn users(&self) -> impl Iterator<Item = (u16, &User)> {
        let numbered = (0..=u16::MAX).zip(&self.users);
        numbered.filter_map(|(id, user)| user.as_deref().map(|user| (id, user)))
    }

    /// How a user is named in signals: by nickname, or by id.
    pub fn name_of(&self, user_id: u16) -> Text {
        match self.user(user_id).and_then(|user| user.nickname.clone()) {
            Some(nickname) => nickname,
            None => Text::from(format!("#{user_id}").as_str()),
        }
    }

    /// Keeps a channel's name.
    pub fn name_channel(&mut self, id: i64, name: &[u8]) {
        if self.channels.get(&id).is_some_and(|known| known.as_str().as_bytes() == name) {
            return;
        }
        if self.channels.len() < CHANNELS_MAX || self.channels.contains_key(&id) {
            self.channels.insert(id, Text::new(name));
        }
    }

    /// Forgets a channel's name.
    pub fn forget_channel(&mut self, id: i64) {
        self.channels.remove(&id);
    }

    /// How a channel is named in signals: by path, or by number.
    pub fn channel(&self, id: i64) -> Text {
        match self.channels.get(&id) {
            Some(name) => name.clone(),
            None => Text::from(format!("#{id}").as_str()),
        }
    }

    /// The welcome line's protocol version.
    pub const fn state_protocol(&mut self, major: u32) {
        self.protocol = Some(major);
    }

    /// Whether it speaks TeamTalk 4, which shows everybody's UDP address.
    pub fn is_version_4(&self) -> bool {
        self.protocol == Some(4)
    }

    /// The server says to which UDP address an id is bound. Whether that is news, and not the session's own address.
    pub fn take_udp_address(&mut self, user_id: u16, address: Address, port: u16) -> bool {
        let Some(user) = self.user_mut(user_id) else {
            return false;
        };
        let known = match user.binding {
            Binding::Held { address, .. } => Some(address),
            Binding::Free | Binding::Unknown => None,
        };
        user.binding = Binding::Held { address, port };
        address != user.address && known != Some(address)
    }

    /// Whether a version's first number fits what the server speaks.
    pub fn speaks(&self, major: u32) -> bool {
        self.protocol.is_none_or(|own| own == major)
    }

    /// Whether a packet protocol fits the others in the channel who have one; text clients have none.
    pub fn suits_channel(&self, user_id: u16, packet_protocol: i64) -> bool {
        let channel = self.user(user_id).and_then(|user| user.channel);
        let mut others = self.users().filter(|(id, user)| {
            *id != user_id && channel.is_some() && user.channel == channel && user.packet_protocol > Some(0)
        });
        let first = others.next();
        first.is_none()
            || first.into_iter().chain(others).any(|(_, user)| user.packet_protocol == Some(packet_protocol))
    }

    /// Whether an address holds a connection.
    pub fn has_session(&self, address: &Address) -> bool {
        self.sessions_by_address.contains_key(address)
    }
}

/// Who is there without having been seen.
impl Server {
    /// The server tells of a login on a connection that is not known. There are 4,094 user ids and no more.
    pub fn miss(&mut self, user_id: u16, unseen: Signal) {
        self.missed.entry(user_id).or_insert(unseen);
    }

    /// Bytes of the server were missed.
    pub const fn note_gap(&mut self, now: Timestamp) {
        self.gap_at = Some(now);
    }

    /// Tells of those whose connection has not shown itself since.
    pub fn settle_unseen(&mut self, now: Timestamp, out: &mut Vec<Signal>) {
        let is_due = |unseen: &Signal| now.since(unseen.at) >= UNSEEN_PATIENCE;
        if !self.missed.values().any(is_due) {
            return;
        }
        // Where connections are older than the watch, it may be one of theirs.
        let has_gap = self.gap_at.is_some_and(|at| now.since(at) < GAP_MEMORY);
        let is_complete = self.older == 0 && !has_gap;
        self.missed.retain(|_, unseen| {
            let is_due = is_due(unseen);
            if is_due && is_complete {
                out.push(unseen.clone());
            }
            !is_due
        });
    }
}

/// Who is heard.
impl Server {
    /// A client's line or datagram shows that it is alive.
    pub fn hear(&mut self, user_id: u16, now: Timestamp) {
        if let Some(user) = self.user_mut(user_id) {
            user.habit.hear(now);
        }
        self.watch.hear(now);
    }

    /// Somebody logged in: from now on those are watched who are there.
    pub fn watch_login(&mut self, login: Login) {
        let Self { users, watch, .. } = self;
        let numbered = (0..=u16::MAX).zip(users.iter());
        let sessions = numbered.filter_map(|(user_id, user)| {
            let user = user.as_deref().filter(|user| user.is_logged_in)?;
            Some(Heard { user_id, flow: user.flow, address: user.address, habit: user.habit })
        });
        watch.begin(login, sessions);
    }

    /// Tells of logins after which others fell silent.
    pub fn settle_stalls(&mut self, service: u8, now: Timestamp, out: &mut Vec<Signal>) {
        while self.watch.is_due(now) {
            let Self { users, watch, .. } = self;
            let last_heard = |user_id: u16, flow: FlowId| {
                let user = users.get(usize::from(user_id))?.as_deref()?;
                (user.flow == flow && user.is_logged_in).then(|| user.habit.last_heard())
            };
            let Some(stall) = watch.settle(now, last_heard) else {
                continue;
            };
            out.push(Signal {
                kind: SignalKind::ClientStalled,
                at: now,
                service,
                address: stall.login.address,
                flow: Some(stall.login.flow),
                detail: Detail {
                    nickname: Some(stall.login.nickname),
                    account: Some(stall.login.account),
                    number: Some(stall.sessions),
                    ..Detail::default()
                },
            });
        }
    }
}

/// Datagrams.
impl Server {
    /// Judges a client's datagram of correct shape by what the control channel and the server's answers have shown.
    pub fn on_datagram(&mut self, packet: &Packet<'_>, payload: &[u8], out: &mut Vec<Signal>) {
        let Some(header) = self.read_header(payload) else {
            return;
        };
        let from = packet.client;
        let mut tell = |kind, number: u32, detail: Detail| {
            let detail = Detail {
                number: Some(number),
                command: Some(header.command()),
                weight: payload.len() as u64,
                ..detail
            };
            out.push(Signal::of_packet(kind, packet, detail));
        };
        let id = u32::from(header.user_id);
        let Some(user) = self.users.get_mut(usize::from(header.user_id)).and_then(Option::as_deref_mut)
        else {
            let has_session = self.has_session(&from);
            // A session older than the watch has an id that nobody saw given. Its owner speaks and keeps alive; says
            // hello only once, at the beginning. So somebody whom the gate admits has only hellos held against them,
            // and many different ids without any connection.
            if !header.is_hello() && packet.reason != Reason::StandingStranger {
                if !has_session && let Some(ids) = self.scans.count(from, header.user_id, packet.at) {
                    tell(SignalKind::DatagramScan, ids, Detail::default());
                }
                return;
            }
            let kind = if has_session { SignalKind::DatagramAbsent } else { SignalKind::DatagramStranger };
            tell(kind, id, Detail::default());
            if let Some(ids) = self.count_scan(from, &header, packet.at) {
                tell(SignalKind::DatagramScan, ids, Detail::default());
            }
            return;
        };
        let is_owner = user.address == from;
        let taken = user.take_datagram(packet, &header);
        if is_owner {
            self.hear(header.user_id, packet.at);
            self.settle_stalls(packet.service, packet.at, out);
            if taken == Taken::Moved {
                push_own(SignalKind::DatagramRebound, packet, &header, payload, out);
            }
        } else {
            let (target, is_contested) = (user.nickname.clone(), user.is_contested(from, packet.at));
            for kind in taken.told_of_others(&header) {
                let is_contested = is_contested && kind == SignalKind::DatagramForeign;
                let reason = is_contested.then_some("contested");
                tell(kind, id, Detail { target: target.clone(), reason, ..Detail::default() });
            }
            if let Some(ids) = self.count_scan(from, &header, packet.at) {
                tell(SignalKind::DatagramScan, ids, Detail::default());
            }
        }
        if header.binds() && matches!(taken, Taken::Refused | Taken::Withheld) {
            self.unanswered.push(Refused { from: (from, packet.client_port), header });
        }
    }

    /// Whether a datagram that is none of TeamTalk 5's is the hello of a TeamTalk 4 client to a server that speaks it.
    pub fn is_older_hello(&self, payload: &[u8]) -> bool {
        self.is_version_4() && Header::parse_version_4_hello(payload).is_some()
    }

    fn read_header(&self, payload: &[u8]) -> Option<Header> {
        let older = if self.is_version_4() { Header::parse_version_4_hello(payload) } else { None };
        older.or_else(|| Header::parse(payload))
    }

    /// Whoever asks for no more ids than they have connections may ask for their own.
    fn count_scan(&mut self, from: Address, header: &Header, now: Timestamp) -> Option<u32> {
        if !header.binds() {
            return None;
        }
        let own = self.sessions_by_address.get(&from).copied().unwrap_or(0);
        self.scans.count(from, header.user_id, now).filter(|ids| *ids > own)
    }

    /// A server's HELLO or KEEPALIVE: it accepted what it answers. Only what was not expected is news.
    pub fn on_answer(&mut self, packet: &Packet<'_>, payload: &[u8], out: &mut Vec<Signal>) {
        let Some(answer) = Header::parse(payload).filter(|header| header.binds() && header.user_id == 0)
        else {
            return;
        };
        let to = (packet.client, packet.client_port);
        let Some(request) = self.unanswered.take(to, &answer) else {
            return;
        };
        let header = request.header;
        let Some(user) = self.user_mut(header.user_id) else {
            return;
        };
        let was_unknown = user.binding == Binding::Unknown;
        user.binding = Binding::Held { address: to.0, port: to.1 };
        if user.address != to.0 && was_unknown {
            push_own(SignalKind::DatagramPrebound, packet, &header, payload, out);
        }
    }
}

fn push_own(kind: SignalKind, packet: &Packet<'_>, header: &Header, payload: &[u8], out: &mut Vec<Signal>) {
    let detail = Detail {
        number: Some(u32::from(header.user_id)),
        command: Some(header.command()),
        weight: payload.len() as u64,
        ..Detail::default()
    };
    out.push(Signal::of_packet(kind, packet, detail));
}

/// What the server makes of a datagram for a user id that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    /// It bound the id.
    Bound,
    /// It would have bound the id, had it come through.
    Withheld,
    /// From where the id is bound to.
    Accepted,
    /// From there, by another port, which is bound from now on.
    Moved,
    /// From elsewhere.
    Refused,
}

impl Taken {
    /// What is told when it came from another address than the session's.
    fn told_of_others(self, header: &Header) -> impl Iterator<Item = SignalKind> {
        let (first, second) = match self {
            Self::Bound if header.keeps_alive() => {
                (SignalKind::DatagramPrebound, Some(SignalKind::DatagramKeptAlive))
            }
            Self::Bound | Self::Withheld => (SignalKind::DatagramPrebound, None),
            Self::Accepted | Self::Moved if header.keeps_alive() => (SignalKind::DatagramKeptAlive, None),
            Self::Accepted | Self::Moved | Self::Refused => (SignalKind::DatagramForeign, None),
        };
        std::iter::once(first).chain(second)
    }
}

impl User {
    /// Takes a nickname, mostly the one it has.
    pub fn rename(&mut self, nickname: &[u8]) {
        if self.nickname.as_ref().is_none_or(|known| known.as_str().as_bytes() != nickname) {
            self.nickname = Some(Text::new(nickname));
        }
    }

    /// Whether the owner is heard still while somebody else uses the id.
    fn is_contested(&mut self, other: Address, now: Timestamp) -> bool {
        let since = match self.claimed {
            Some((address, since)) if address == other => since,
            Some(_) | None => now,
        };
        self.claimed = Some((other, since));
        self.habit.last_heard() > since + CHANGES_WITHIN
    }

    /// Follows the binding as the server does.
    fn take_datagram(&mut self, packet: &Packet<'_>, header: &Header) -> Taken {
        let (from, port) = (packet.client, packet.client_port);
        let arrives = !packet.is_dropped();
        match self.binding {
            Binding::Held { address, port: bound } if address == from => {
                let in_channel = self.channel.is_some_and(|channel| channel == i64::from(header.channel));
                let moves = bound != port && arrives && (header.binds() || in_channel);
                if moves {
                    self.binding = Binding::Held { address, port };
                }
                if moves { Taken::Moved } else { Taken::Accepted }
            }
            Binding::Held { .. } => Taken::Refused,
            Binding::Free if !header.binds() => Taken::Refused,
            Binding::Free if !arrives => Taken::Withheld,
            Binding::Free => {
                self.binding = Binding::Held { address: from, port };
                Taken::Bound
            }
            // Whoever holds the session most likely holds the binding too.
            Binding::Unknown if self.address == from && arrives => {
                self.binding = Binding::Held { address: from, port };
                Taken::Accepted
            }
            Binding::Unknown => Taken::Refused,
        }
    }
}
