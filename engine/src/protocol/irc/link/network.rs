//! The network as one link shows it: servers, users, channels, and who has said what about them.
//!
//! Plain bookkeeping without judgement; `judge` holds that. Bounded: an entry beyond the bounds is not kept and
//! counted, and what is then unknown is never held against anybody.

use std::{collections::BTreeMap, collections::VecDeque, sync::Arc};

use crate::{
    limits::{
        LINK_CHANNELS_MAX, LINK_GONE_MAX, LINK_MEMBERS_MAX, LINK_SERVERS_MAX, LINK_USER_CHANNELS_MAX,
        LINK_USERS_MAX, LINKS_ENTRIES_MAX,
    },
    protocol::{Side, irc::message::fold},
    time::{Span, Timestamp},
};

/// Bytes of an id, nickname or channel that are compared and kept.
const NAME_BYTES_MAX: usize = 96;
/// Servers read what was sent before they had heard: for so long nobody is blamed for not knowing.
pub(super) const CROSSING: Span = Span::from_secs(10);
/// How long those who left are remembered.
const GONE_KEPT: Span = Span::from_secs(120);
/// What one entry takes with its keys, at most on average: a user's name stands in three maps.
const ENTRY_BYTES: usize = 400;

/// A name, shared by everything that mentions it.
pub(super) type Name = Arc<[u8]>;

/// Index of a side in pairs.
pub(super) const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

pub(super) const fn opposite(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

/// A name as it came, cut.
pub(super) fn exact(name: &[u8]) -> Name {
    name.get(..NAME_BYTES_MAX).unwrap_or(name).into()
}

/// A name as it is compared.
pub(super) fn folded(name: &[u8]) -> Name {
    name.iter().take(NAME_BYTES_MAX).map(|byte| fold(*byte)).collect()
}

/// A server.
pub(super) struct Server {
    pub(super) name: Name,
    /// The server it was introduced by, within its side.
    pub(super) uplink: Name,
}

/// A user.
pub(super) struct User {
    pub(super) nickname: Name,
    pub(super) timestamp: Option<u64>,
    /// Keyed hash of user name and host.
    pub(super) person: u64,
    pub(super) is_operator: bool,
    pub(super) server: Name,
    channels: Vec<Name>,
}

impl User {
    pub(super) const fn new(
        nickname: Name,
        timestamp: Option<u64>,
        person: u64,
        is_operator: bool,
        server: Name,
    ) -> Self {
        Self { nickname, timestamp, person, is_operator, server, channels: Vec::new() }
    }
}

/// Somebody who left, and who said so.
pub(super) struct Gone {
    pub(super) at: Timestamp,
    /// Whether the user's own side said it: then nothing more may come.
    pub(super) by_own_side: bool,
}

/// How a member lost the right to change a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lost {
    /// An older channel of the same name won.
    Merge(Timestamp),
    /// Taken by a mode.
    Mode(Timestamp),
}

/// A member of a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Member {
    pub(super) is_operator: bool,
    pub(super) lost: Option<Lost>,
}

/// A channel.
#[derive(Default)]
pub(super) struct Channel {
    /// What each side said last.
    pub(super) said: [Option<u64>; 2],
    /// When the timestamp in force changed last.
    pub(super) changed: Timestamp,
    pub(super) members: BTreeMap<(u8, Name), Member>,
    /// Members that had no room: nobody is called a stranger here.
    pub(super) is_incomplete: bool,
    /// When a side asked to be told anew.
    pub(super) resync: Option<Timestamp>,
}

impl Channel {
    /// The timestamp in force.
    pub(super) fn timestamp(&self) -> Option<u64> {
        self.said.iter().flatten().min().copied()
    }
}

/// All entries of all links of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) used: usize,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Losses {
    pub(super) servers: u64,
    pub(super) users: u64,
    pub(super) channels: u64,
    pub(super) members: u64,
}

impl Losses {
    pub(super) const fn total(&self) -> u64 {
        self.servers.saturating_add(self.users).saturating_add(self.channels).saturating_add(self.members)
    }
}

/// The network behind both ends of one link.
#[derive(Default)]
pub(super) struct Network {
    pub(super) servers: [BTreeMap<Name, Server>; 2],
    pub(super) users: [BTreeMap<Name, User>; 2],
    nicknames: [BTreeMap<Name, Name>; 2],
    gone: [BTreeMap<Name, Gone>; 2],
    gone_order: VecDeque<(Timestamp, Side, Name)>,
    pub(super) channels: BTreeMap<Name, Channel>,
    members: usize,
    pub(super) losses: Losses,
}

impl Network {
    /// Entries that count against the room of all links.
    pub(super) fn entries(&self) -> usize {
        let both = |pair: [usize; 2]| pair.iter().fold(0_usize, |sum, count| sum.saturating_add(*count));
        both([self.servers[0].len(), self.servers[1].len()])
            .saturating_add(both([self.users[0].len(), self.users[1].len()]))
            .saturating_add(self.channels.len())
            .saturating_add(self.members)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.entries().saturating_add(self.gone_order.len()).saturating_mul(ENTRY_BYTES)
    }

    fn has_room(&self, count: usize, most: usize, room: &Room) -> bool {
        count < most && room.used < LINKS_ENTRIES_MAX
    }

    pub(super) fn add_server(&mut self, side: Side, id: &[u8], name: &[u8], uplink: &[u8], room: &mut Room) {
        let count = self.servers[0].len().saturating_add(self.servers[1].len());
        if !self.has_room(count, LINK_SERVERS_MAX, room) {
            self.losses.servers = self.losses.servers.saturating_add(1);
            return;
        }
        let server = Server { name: exact(name), uplink: exact(uplink) };
        if self.servers[index(side)].insert(exact(id), server).is_none() {
            room.used = room.used.saturating_add(1);
        }
    }

    /// The server with this id or name on a side.
    pub(super) fn server_id(&self, side: Side, name: &[u8]) -> Option<Name> {
        let servers = &self.servers[index(side)];
        if let Some((id, _)) = servers.get_key_value(name) {
            return Some(id.clone());
        }
        // Names are rare as sources: numbers of servers are small.
        let found = servers.iter().find(|(_, server)| server.name.eq_ignore_ascii_case(name));
        found.map(|(id, _)| id.clone())
    }

    pub(super) fn add_user(&mut self, side: Side, id: &[u8], user: User, room: &mut Room) {
        let count = self.users[0].len().saturating_add(self.users[1].len());
        if !self.has_room(count, LINK_USERS_MAX, room) {
            self.losses.users = self.losses.users.saturating_add(1);
            return;
        }
        let id = exact(id);
        self.gone[index(side)].remove(&id);
        self.nicknames[index(side)].insert(folded(&user.nickname), id.clone());
        if self.users[index(side)].insert(id, user).is_none() {
            room.used = room.used.saturating_add(1);
        }
    }

    /// The user with this id or nickname on a side.
    pub(super) fn user_id(&self, side: Side, name: &[u8]) -> Option<Name> {
        if let Some((id, _)) = self.users[index(side)].get_key_value(name) {
            return Some(id.clone());
        }
        self.nicknames[index(side)].get(&folded(name)).cloned()
    }

    pub(super) fn user(&self, side: Side, id: &Name) -> Option<&User> {
        self.users[index(side)].get(id)
    }

    /// The user who has a nickname on a side.
    pub(super) fn holder(&self, side: Side, nickname: &[u8]) -> Option<(Name, &User)> {
        let id = self.nicknames[index(side)].get(&folded(nickname))?;
        Some((id.clone(), self.users[index(side)].get(id)?))
    }

    /// `id` is the user's key; where nicknames are ids it changes with the nickname.
    pub(super) fn rename(
        &mut self,
        side: Side,
        id: &Name,
        nickname: &[u8],
        timestamp: Option<u64>,
        is_id: bool,
    ) {
        let at = index(side);
        let Some(mut user) = self.users[at].remove(id) else { return };
        let old = folded(&user.nickname);
        if self.nicknames[at].get(&old) == Some(id) {
            self.nicknames[at].remove(&old);
        }
        user.nickname = exact(nickname);
        user.timestamp = timestamp.or(user.timestamp);
        let new = if is_id { exact(nickname) } else { id.clone() };
        if new != *id {
            for name in &user.channels {
                if let Some(channel) = self.channels.get_mut(name)
                    && let Some(member) = channel.members.remove(&(at as u8, id.clone()))
                {
                    channel.members.insert((at as u8, new.clone()), member);
                }
            }
        }
        self.nicknames[at].insert(folded(nickname), new.clone());
        self.users[at].insert(new, user);
    }

    pub(super) fn gone(&self, side: Side, id: &[u8]) -> Option<&Gone> {
        self.gone[index(side)].get(id)
    }

    pub(super) fn remove_user(
        &mut self,
        side: Side,
        id: &Name,
        now: Timestamp,
        by_own_side: bool,
        room: &mut Room,
    ) {
        let at = index(side);
        let Some(user) = self.users[at].remove(id) else { return };
        room.used = room.used.saturating_sub(1);
        let nickname = folded(&user.nickname);
        if self.nicknames[at].get(&nickname) == Some(id) {
            self.nicknames[at].remove(&nickname);
        }
        for name in user.channels {
            self.remove_member_entry(side, id, &name, room);
        }
        self.gone[at].insert(id.clone(), Gone { at: now, by_own_side });
        self.gone_order.push_back((now, side, id.clone()));
        while let Some((since, side, id)) = self.gone_order.front() {
            if self.gone_order.len() <= LINK_GONE_MAX && now.since(*since) <= GONE_KEPT {
                break;
            }
            let gone = &mut self.gone[index(*side)];
            if gone.get(id).is_some_and(|gone| gone.at == *since) {
                gone.remove(id);
            }
            self.gone_order.pop_front();
        }
    }

    /// A server with all servers and users behind it; how many users that were.
    pub(super) fn remove_server(&mut self, side: Side, id: &Name, now: Timestamp, room: &mut Room) -> u64 {
        let at = index(side);
        let mut behind = vec![id.clone()];
        let mut next = 0;
        while let Some(uplink) = behind.get(next).cloned() {
            next = next.saturating_add(1);
            let below =
                self.servers[at].iter().filter(|(id, server)| server.uplink == uplink && **id != uplink);
            behind.extend(below.map(|(id, _)| id.clone()));
            if self.servers[at].remove(&uplink).is_some() {
                room.used = room.used.saturating_sub(1);
            }
        }
        let lost: Vec<Name> = self.users[at]
            .iter()
            .filter(|(_, user)| behind.contains(&user.server))
            .map(|(id, _)| id.clone())
            .collect();
        for user in &lost {
            self.remove_user(side, user, now, true, room);
        }
        lost.len() as u64
    }

    /// The channel, made if there is room.
    pub(super) fn channel_mut(&mut self, name: &[u8], room: &mut Room) -> Option<&mut Channel> {
        let name = folded(name);
        if !self.channels.contains_key(&name) {
            if !self.has_room(self.channels.len(), LINK_CHANNELS_MAX, room) {
                self.losses.channels = self.losses.channels.saturating_add(1);
                return None;
            }
            room.used = room.used.saturating_add(1);
        }
        Some(self.channels.entry(name).or_default())
    }

    pub(super) fn channel(&self, name: &[u8]) -> Option<&Channel> {
        self.channels.get(&folded(name))
    }

    pub(super) fn known_channel_mut(&mut self, name: &[u8]) -> Option<&mut Channel> {
        self.channels.get_mut(&folded(name))
    }

    /// Puts a user into a channel that exists, or changes the rank there.
    pub(super) fn add_member(
        &mut self,
        side: Side,
        id: &Name,
        name: &[u8],
        is_operator: bool,
        room: &mut Room,
    ) {
        let has_room = self.has_room(self.members, LINK_MEMBERS_MAX, room);
        let name = folded(name);
        let (Some(channel), Some(user)) = (self.channels.get_mut(&name), self.users[index(side)].get_mut(id))
        else {
            return;
        };
        let key = (index(side) as u8, id.clone());
        if let Some(member) = channel.members.get_mut(&key) {
            member.is_operator |= is_operator;
            if is_operator {
                member.lost = None;
            }
            return;
        }
        if !has_room || user.channels.len() >= LINK_USER_CHANNELS_MAX {
            channel.is_incomplete = true;
            self.losses.members = self.losses.members.saturating_add(1);
            return;
        }
        user.channels.push(name);
        channel.members.insert(key, Member { is_operator, lost: None });
        self.members = self.members.saturating_add(1);
        room.used = room.used.saturating_add(1);
    }

    pub(super) fn member_mut(&mut self, side: Side, id: &Name, name: &[u8]) -> Option<&mut Member> {
        self.channels.get_mut(&folded(name))?.members.get_mut(&(index(side) as u8, id.clone()))
    }

    pub(super) fn remove_member(&mut self, side: Side, id: &Name, name: &[u8], room: &mut Room) {
        let name = folded(name);
        if let Some(user) = self.users[index(side)].get_mut(id) {
            user.channels.retain(|known| *known != name);
        }
        self.remove_member_entry(side, id, &name, room);
    }

    fn remove_member_entry(&mut self, side: Side, id: &Name, name: &Name, room: &mut Room) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if channel.members.remove(&(index(side) as u8, id.clone())).is_some() {
            self.members = self.members.saturating_sub(1);
            room.used = room.used.saturating_sub(1);
        }
        // An empty channel is gone, and its timestamp with it.
        if channel.members.is_empty() && !channel.is_incomplete {
            self.channels.remove(name);
            room.used = room.used.saturating_sub(1);
        }
    }

    pub(super) fn leave_all(&mut self, side: Side, id: &Name, room: &mut Room) {
        let Some(user) = self.users[index(side)].get_mut(id) else { return };
        for name in std::mem::take(&mut user.channels) {
            self.remove_member_entry(side, id, &name, room);
        }
    }

    /// Every member of a side loses the right to change the channel; answers who had it.
    pub(super) fn drop_ranks(&mut self, side: Side, name: &[u8], now: Timestamp) -> Vec<Name> {
        let Some(channel) = self.channels.get_mut(&folded(name)) else { return Vec::new() };
        let mut had = Vec::new();
        for ((owner, id), member) in &mut channel.members {
            if usize::from(*owner) == index(side) && std::mem::take(&mut member.is_operator) {
                member.lost = Some(Lost::Merge(now));
                had.push(id.clone());
            }
        }
        had
    }

    /// Gives the room back.
    pub(super) fn release(&mut self, room: &mut Room) {
        room.used = room.used.saturating_sub(self.entries());
        let losses = self.losses;
        *self = Self { losses, ..Self::default() };
    }
}
