//! What all connections of one IRC service share: the server's name and make, learnt from its own words.

use std::collections::BTreeMap;

use floodwall_wire::Address;

use super::{
    dialect,
    link::Links,
    message::{Message, fold, is_same_name},
};
use crate::{
    bounded::BoundedMap, limits::CHANNEL_TIMESTAMPS_MAX, signal::FlowId, text::Text, time::Timestamp,
};

/// Names remembered with who acts under them.
const PRESENT_MAX: usize = 8_192;
/// Bytes of a channel's name that are compared and kept.
const NAME_BYTES_MAX: usize = 96;

/// Which program the server is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Flavour {
    /// ircd-hybrid and what descends from it without another name.
    Hybrid,
    /// InspIRCd.
    InspIrcd,
    /// ngIRCd.
    NgIrcd,
    /// solanum, charybdis, ratbox.
    Solanum,
    /// Not known yet, or none of these.
    #[default]
    Unknown,
    /// UnrealIRCd.
    Unreal,
}

impl Flavour {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "ircd-hybrid",
            Self::InspIrcd => "inspircd",
            Self::NgIrcd => "ngircd",
            Self::Solanum => "solanum",
            Self::Unknown => "unknown",
            Self::Unreal => "unrealircd",
        }
    }
}

/// One service's server.
#[derive(Debug)]
pub struct Server {
    name: Option<Text>,
    flavour: Flavour,
    speaks_websocket: bool,
    /// Proxies and web gateways that bring many users.
    gateways: Vec<Address>,
    /// The oldest timestamp known of a channel, and the last change that was told.
    timestamps: BTreeMap<Box<[u8]>, KnownTimestamp>,
    /// Who acts under which name, folded; the longest silent go when there are too many.
    present: BoundedMap<Box<[u8]>, Presence>,
    /// What all server links share.
    pub(super) links: Links,
}

#[derive(Clone, Copy, Debug, Default)]
struct KnownTimestamp {
    oldest: Option<u64>,
    told: Option<(u64, u64)>,
}

/// Somebody who acts under a name, or did.
#[derive(Clone, Copy, Debug)]
struct Presence {
    address: Address,
    flow: FlowId,
    has_left: bool,
}

impl Server {
    /// Nothing known yet; `seed` keys the tables.
    pub fn new(seed: u64) -> Self {
        Self::configured(Links::default(), Vec::new(), seed)
    }

    /// With the links and gateways that the configuration names.
    pub fn configured(links: Links, gateways: Vec<Address>, seed: u64) -> Self {
        Self {
            name: None,
            flavour: Flavour::Unknown,
            speaks_websocket: false,
            gateways,
            timestamps: BTreeMap::new(),
            present: BoundedMap::new(PRESENT_MAX, seed),
            links,
        }
    }

    /// Somebody acts under a name from now on.
    pub(super) fn appear(&mut self, nickname: &[u8], address: Address, flow: FlowId, at: Timestamp) {
        let presence = Presence { address, flow, has_left: false };
        let held = self.present.touch_or_insert(&folded(nickname), at, || presence, |_| true, |_, _| {});
        if let Some(held) = held {
            *held = presence;
        }
    }

    /// Somebody is gone, or acts under another name.
    pub(super) fn leave(&mut self, nickname: &[u8], flow: FlowId) {
        if let Some(held) = self.present.get_mut(&folded(nickname)).filter(|held| held.flow == flow) {
            held.has_left = true;
        }
    }

    /// Whether one of our own clients acts under a name now.
    pub(super) fn is_taken(&self, nickname: &[u8]) -> bool {
        self.present.get(&folded(nickname)).is_some_and(|held| !held.has_left)
    }

    /// Who acts under a name on a connection that is followed, or was.
    pub(super) fn present(&self, nickname: &[u8]) -> Option<(Address, FlowId)> {
        self.present.get(&folded(nickname)).map(|held| (held.address, held.flow))
    }

    /// What all server links share.
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Whether a connection comes from a proxy or web gateway that the configuration names: a HAProxy header or a
    /// WEBIRC line is at home there, and an abuse everywhere else.
    pub fn is_gateway(&self, address: Address) -> bool {
        self.gateways.contains(&address)
    }

    /// Takes a channel's timestamp as the server says it (329).
    pub(super) fn learn_timestamp(&mut self, channel: &[u8], timestamp: u64) {
        if let Some(known) = self.known_timestamp(channel) {
            known.oldest = Some(known.oldest.map_or(timestamp, |oldest| oldest.min(timestamp)));
        }
    }

    /// Takes a change that the server tells; the reason if it is news. Every member is told the same.
    pub(super) fn learn_change(&mut self, channel: &[u8], old: u64, new: u64) -> Option<&'static str> {
        /// Before this second no network with timestamps that is still up existed (2001-09-09).
        const OLDEST_PLAUSIBLE: u64 = 1_000_000_000;
        let known = self.known_timestamp(channel)?;
        if known.told.replace((old, new)) == Some((old, new)) {
            return None;
        }
        let before = known.oldest;
        known.oldest = Some(before.map_or(new, |oldest| oldest.min(new)));
        Some(if new == 0 {
            "zero"
        } else if new < OLDEST_PLAUSIBLE {
            "implausible"
        } else if before.is_some_and(|oldest| new < oldest && oldest < old) {
            "before-known"
        } else {
            "older-channel"
        })
    }

    /// When there is no room for another channel, its changes are not told apart from others'.
    fn known_timestamp(&mut self, channel: &[u8]) -> Option<&mut KnownTimestamp> {
        let name = folded(channel);
        if self.timestamps.len() >= CHANNEL_TIMESTAMPS_MAX && !self.timestamps.contains_key(&name) {
            return None;
        }
        Some(self.timestamps.entry(name).or_default())
    }

    /// The name the server gives itself.
    pub const fn name(&self) -> Option<&Text> {
        self.name.as_ref()
    }

    /// Its make.
    pub const fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Whether it has agreed to speak WebSocket, so that HTTP on its port is no foreign protocol.
    pub const fn speaks_websocket(&self) -> bool {
        self.speaks_websocket
    }

    pub(super) const fn set_speaks_websocket(&mut self) {
        self.speaks_websocket = true;
    }

    /// Takes 004 `nick name version …` or 351 `nick version name …`.
    pub(super) fn learn(&mut self, message: &Message<'_>) {
        let version = match message.numeric() {
            Some(4) => message.param(2),
            Some(351) => message.param(1),
            _ => None,
        };
        if let Some(version) = version {
            let flavour = dialect::flavour(version);
            if flavour != Flavour::Unknown {
                self.flavour = flavour;
            }
        }
        let Some(name) = message.source_name().filter(|_| !message.is_from_user()) else {
            return;
        };
        if !self.name.as_ref().is_some_and(|known| is_same_name(known.as_str().as_bytes(), name)) {
            self.name = Some(Text::new(name));
        }
    }

    /// Takes the make that the form of an ERROR line gives away.
    pub(super) fn learn_from_error(&mut self, text: &[u8]) {
        if self.flavour == Flavour::Unknown {
            self.flavour = dialect::flavour_of_error(text);
        }
    }
}

/// A name as names are compared, cut to [`NAME_BYTES_MAX`].
fn folded(name: &[u8]) -> Box<[u8]> {
    name.iter().take(NAME_BYTES_MAX).map(|byte| fold(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_make_come_from_the_servers_own_words() {
        let mut server = Server::new(7);
        let line =
            b":alpha.test 004 alice alpha.test ircd-hybrid-1:8.2.43+dfsg.1-1 BDFGHXRSWZ CIKLMN Ibehklov";
        server.learn(&Message::parse(line).unwrap());
        assert_eq!(server.name().map(Text::as_str), Some("alpha.test"));
        assert_eq!(server.flavour(), Flavour::Hybrid);
        server.learn(&Message::parse(b":ircd1.local 351 tim InspIRCd-3. ircd1.local :893 ").unwrap());
        assert_eq!(server.flavour(), Flavour::InspIrcd);
    }

    #[test]
    fn an_error_line_alone_gives_the_make_away() {
        let mut server = Server::new(7);
        server.learn_from_error(b"Closing link: (a@10.78.0.30) [Access denied by configuration]");
        assert_eq!(server.flavour(), Flavour::InspIrcd);
    }
}
