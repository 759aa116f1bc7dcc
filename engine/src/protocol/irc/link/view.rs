//! What is known about each link, as plain data for people who ask: the debugging dump that TS servers had.

use floodwall_wire::Address;

use super::Dialect;
use crate::{protocol::Side, text::Text, time::Timestamp};

/// One link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// Index of the service it belongs to.
    pub service: u8,
    /// The peer's address.
    pub peer_address: Address,
    /// The name the peer gives itself, once it did.
    pub peer: Option<Text>,
    /// The name our side gives itself, once it did.
    pub own: Option<Text>,
    /// Which end is the peer: the one that connected, or the one that was connected to.
    pub peer_side: Side,
    /// How the two speak.
    pub dialect: Dialect,
    /// Whether both bursts are over.
    pub is_established: bool,
    /// Whether what follows is compressed.
    pub is_compressed: bool,
    /// When the connection was first seen.
    pub opened: Timestamp,
    /// Whether everything since the first line was seen and kept. Where not, invariants that need the whole
    /// view are not checked.
    pub is_complete: bool,
    /// What was not kept for lack of room.
    pub lost: u64,
    /// Servers, by name; at most as many as were asked for.
    pub servers: Vec<ServerView>,
    /// Users, by nickname; at most as many as were asked for.
    pub users: Vec<UserView>,
    /// Channels, by name; at most as many as were asked for.
    pub channels: Vec<ChannelView>,
    /// How many servers, users and channels there are in all.
    pub totals: [usize; 3],
}

/// One server behind a link.
#[derive(Clone, Debug)]
pub struct ServerView {
    /// Its name.
    pub name: Text,
    /// Its id, or the name where the dialect has none.
    pub id: Text,
    /// Behind which end.
    pub side: Side,
}

/// One user.
#[derive(Clone, Debug)]
pub struct UserView {
    /// The nickname.
    pub nickname: Text,
    /// The id, or the nickname where the dialect has none.
    pub id: Text,
    /// When the nickname was taken, in seconds since 1970 by the server's clock.
    pub timestamp: Option<u64>,
    /// Behind which end.
    pub side: Side,
}

/// One channel.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// Its name.
    pub name: Text,
    /// The timestamp in force, in seconds since 1970: the oldest that either side has said.
    pub timestamp: Option<u64>,
    /// What each side said last: the end that connected, then the other.
    pub said: [Option<u64>; 2],
    /// Members on both sides.
    pub members: usize,
    /// Members who may change it.
    pub operators: usize,
}
