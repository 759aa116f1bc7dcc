//! What all connections of one TeamTalk server share.
//!
//! Bounds: 4,094 user ids are all the protocol has; `CHANNELS_MAX` channel names are kept, further ones are
//! shown by number.

use std::collections::{BTreeMap, HashMap};

use floodwall_wire::Address;

use crate::{
    signal::{Detail, FlowId, SignalKind},
    text::Text,
};

/// Channel names kept.
const CHANNELS_MAX: usize = 4_096;

const KIND_HELLO: u8 = 1;
const KIND_KEEPALIVE: u8 = 2;

/// Users, channels and UDP bindings of one server.
#[derive(Debug, Default)]
pub struct Server {
    users: BTreeMap<u16, User>,
    sessions_by_address: HashMap<Address, u32>,
    channels: BTreeMap<i64, Text>,
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
    /// The UDP port bound to it.
    pub udp_port: Option<u16>,
}

impl Server {
    /// The welcome line gave a connection its id.
    pub fn bind(&mut self, user_id: u16, flow: FlowId, address: Address) {
        self.free_id(user_id);
        let user = User { flow, address, nickname: None, account: None, udp_port: None };
        self.users.insert(user_id, user);
        *self.sessions_by_address.entry(address).or_default() += 1;
    }

    /// The connection with this id is gone. An id that meanwhile belongs to another connection stays.
    pub fn free(&mut self, user_id: u16, flow: FlowId) -> bool {
        let own = self.users.get(&user_id).is_some_and(|user| user.flow == flow);
        if own {
            self.free_id(user_id);
        }
        own
    }

    fn free_id(&mut self, user_id: u16) {
        let Some(user) = self.users.remove(&user_id) else {
            return;
        };
        if let Some(count) = self.sessions_by_address.get_mut(&user.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sessions_by_address.remove(&user.address);
            }
        }
    }

    /// The user with this id.
    pub fn user(&self, user_id: u16) -> Option<&User> {
        self.users.get(&user_id)
    }

    /// The user with this id.
    pub fn user_mut(&mut self, user_id: u16) -> Option<&mut User> {
        self.users.get_mut(&user_id)
    }

    /// Users with their ids, in order of id.
    pub fn users(&self) -> impl Iterator<Item = (u16, &User)> {
        self.users.iter().map(|(id, user)| (*id, user))
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

    /// Whether an address holds a connection.
    pub fn has_session(&self, address: &Address) -> bool {
        self.sessions_by_address.contains_key(address)
    }

    /// Judges a client's datagram of correct shape by what the control channel has shown.
    pub fn on_datagram(&mut self, from: Address, port: u16, payload: &[u8]) -> Option<(SignalKind, Detail)> {
        let [kind, low, high, ..] = payload else {
            return None;
        };
        let user_id = u16::from(*low) | u16::from(*high & 0x0f) << 8;
        let detail = Detail {
            number: Some(u32::from(user_id)),
            command: Some(command_of(*kind)),
            weight: payload.len() as u64,
            ..Detail::default()
        };
        let known_here = self.has_session(&from);
        let Some(user) = self.users.get_mut(&user_id) else {
            let kind = if known_here { SignalKind::DatagramAbsent } else { SignalKind::DatagramStranger };
            return Some((kind, detail));
        };
        if user.address != from {
            let target = user.nickname.clone();
            return Some((SignalKind::DatagramForeign, Detail { target, ..detail }));
        }
        match user.udp_port.replace(port) {
            Some(bound) if bound != port => Some((SignalKind::DatagramRebound, detail)),
            _ => None,
        }
    }
}

const fn command_of(kind: u8) -> &'static str {
    match kind & 0x7f {
        KIND_HELLO => "hello",
        KIND_KEEPALIVE => "keepalive",
        3 | 4 => "voice",
        5 | 6 => "video",
        7..=10 => "media",
        11..=22 => "desktop",
        _ => "unknown",
    }
}
