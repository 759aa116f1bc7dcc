//! IRC server links: both directions of one link, and what only a second pair of eyes can see.
//!
//! A linked server is believed in everything, so whoever holds the link password, or a server behind it, can take
//! channels over and remove users at will. This module follows what both ends say and reports what no correct
//! network would: the invariants of the TS protocols (ts3.txt, ts6.txt).
//!
//! Read downward: `handshake` tells the dialect, `inflate` undoes compression, `dialect` gives each line its
//! meaning as an `event`, `network` keeps the books, `judge` compares the two, `collision` and `view` say what
//! came of it. [`Links`] is what all links of one service share.
//!
//! What is not known is held against nobody: after a gap, when a link is picked up in the middle or when there is
//! no room, the invariants that need the whole view are not checked, and [`LinkView`] says so. Link passwords and
//! talk are never kept.

mod collision;
mod dialect;
mod event;
mod handshake;
mod inflate;
mod judge;
mod network;
#[cfg(test)]
mod tests;
mod view;

use std::collections::VecDeque;

use floodwall_wire::Address;
use network::{Name, Network, Room, exact, index, opposite};

pub use self::{
    collision::Verdict,
    event::Dialect,
    view::{ChannelView, LinkView, ServerView, UserView},
};
use self::{
    handshake::{Greeted, Step},
    inflate::Inflate,
    judge::Judge,
};
use super::message::{CONTENT_BYTES_MAX, Message, is_same_name};
use crate::{
    limits::LINK_PEERS_MAX,
    protocol::{
        Connection, Context, Progress, Side,
        lines::{Line, Lines},
    },
    signal::{Detail, Method, Signal, SignalKind},
    stream::Ending,
    text::Text,
    time::{Span, Timestamp},
};

/// How long after a netsplit a link counts as its healing.
const SPLIT_REMEMBERED: Span = Span::from_secs(24 * 3_600);

/// A peer that the configuration names with `[[link]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The peer's server name.
    pub name: Text,
    /// Where it may come from or be found.
    pub addresses: Vec<Address>,
    /// The port the link is opened to: theirs when our side opens it, ours otherwise.
    pub ports: Vec<u16>,
    /// Whether our side opens the link.
    pub opened_by_us: bool,
    /// Names of servers behind it whose modes and kills are their office: services.
    pub services: Vec<Text>,
}

/// What all links of one service share.
#[derive(Debug, Default)]
pub struct Links {
    peers: Vec<Peer>,
    room: Room,
    /// Peers lost in a netsplit, with the time of it.
    splits: VecDeque<(Text, Timestamp)>,
    lost: u64,
}

impl Links {
    /// With the peers that the configuration names.
    pub fn new(peers: Vec<Peer>) -> Self {
        Self { peers, ..Self::default() }
    }

    /// Servers, users, channels and memberships known on all links.
    pub const fn entries(&self) -> usize {
        self.room.used
    }

    /// What was not kept for lack of room since the start.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether a connection is a link that our side opens.
    pub fn is_ours(&self, server: Address, server_port: u16) -> bool {
        self.peers.iter().any(|peer| {
            peer.opened_by_us && peer.addresses.contains(&server) && peer.ports.contains(&server_port)
        })
    }

    /// Whether a server of this name may link from this address. Without `[[link]]` nobody knows.
    fn is_known(&self, name: &[u8], address: Address) -> bool {
        self.peers.is_empty()
            || self.peers.iter().any(|peer| {
                is_same_name(peer.name.as_str().as_bytes(), name) && peer.addresses.contains(&address)
            })
    }

    fn is_service(&self, server: &[u8]) -> bool {
        let mut services = self.peers.iter().flat_map(|peer| &peer.services);
        services.any(|name| is_same_name(name.as_str().as_bytes(), server))
    }

    fn note_split(&mut self, peer: &Text, at: Timestamp) {
        self.splits.retain(|(name, _)| name != peer);
        if self.splits.len() >= LINK_PEERS_MAX {
            self.splits.pop_front();
        }
        self.splits.push_back((peer.clone(), at));
    }

    fn split_of(&self, peer: &Text, now: Timestamp) -> Option<Timestamp> {
        let found = self.splits.iter().find(|(name, _)| name == peer).map(|(_, at)| *at)?;
        (now.since(found) <= SPLIT_REMEMBERED).then_some(found)
    }
}

/// Where a link is. Only `Over` is final.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// One side has introduced itself at most.
    Greeting,
    /// Both have; the next line that is no ERROR shows that they were accepted. From `Greeting`.
    Greeted,
    /// Accepted. From `Greeted`, or from the start when the beginning was missed.
    Open,
    /// One side has said that it ends. From all.
    Over,
}

/// A reader of one link.
pub struct Link {
    lines: [Lines; 2],
    inflate: [Option<Box<Inflate>>; 2],
    is_compressed: bool,
    phase: Phase,
    peer_side: Side,
    greeted: [Greeted; 2],
    judge: Judge,
    network: Network,
    has_attempted: bool,
    /// How the connection ended, and whether it did so itself.
    ending: Option<Ending>,
}

impl Link {
    /// A link seen from its first line. `peer_side` is the end that is not ours.
    pub fn new(peer_side: Side, client_lines: Lines, server_lines: Lines) -> Self {
        Self {
            lines: [client_lines, server_lines],
            inflate: [None, None],
            is_compressed: false,
            phase: Phase::Greeting,
            peer_side,
            greeted: [Greeted::default(), Greeted::default()],
            judge: Judge::default(),
            network: Network::default(),
            has_attempted: false,
            ending: None,
        }
    }

    /// A link whose beginning was missed: what is not known is held against nobody.
    pub fn midway(peer_side: Side, client_lines: Lines, server_lines: Lines) -> Self {
        let mut link = Self::new(peer_side, client_lines, server_lines);
        link.phase = Phase::Open;
        link.judge.begin_midway();
        link
    }

    /// Takes over the lines of a reader that split them until now.
    pub fn take_lines(&mut self, client_lines: Lines, server_lines: Lines) {
        self.lines = [client_lines, server_lines];
    }

    /// Whether both sides have accepted each other.
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// How the connection ended, before [`on_close`](Self::on_close).
    pub const fn note_ending(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// Takes the next bytes of one side.
    pub fn on_bytes(
        &mut self,
        side: Side,
        bytes: &[u8],
        links: &mut Links,
        context: &mut Context<'_>,
    ) -> Progress {
        let mut rest = bytes;
        // Line by line until the line after which everything is compressed.
        while self.phase != Phase::Over && !self.inflates(side) {
            let mut lines = std::mem::replace(&mut self.lines[index(side)], Lines::new(0));
            let found = lines.next(&mut rest).map(|line| self.on_line(side, line, links, context)).is_some();
            self.lines[index(side)] = lines;
            if !found {
                return self.progress();
            }
        }
        if self.phase != Phase::Over && !rest.is_empty() {
            self.on_compressed(side, rest, links, context);
        }
        self.progress()
    }

    const fn progress(&self) -> Progress {
        match self.phase {
            Phase::Over => Progress::Opaque,
            Phase::Greeting | Phase::Greeted | Phase::Open => Progress::Following,
        }
    }

    fn inflates(&self, side: Side) -> bool {
        self.is_compressed && self.greeted[index(side)].server.is_some()
    }

    fn on_compressed(&mut self, side: Side, bytes: &[u8], links: &mut Links, context: &mut Context<'_>) {
        let Some(mut inflate) = self.inflate[index(side)].take() else { return };
        let mut lines = std::mem::replace(&mut self.lines[index(side)], Lines::new(0));
        let outcome = inflate.feed(bytes, |mut text| {
            while let Some(line) = lines.next(&mut text) {
                self.on_line(side, line, links, context);
            }
        });
        self.lines[index(side)] = lines;
        self.inflate[index(side)] = Some(inflate);
        if outcome.is_err() {
            let detail = Detail { reason: Some("compression"), ..Detail::default() };
            self.signal(side, SignalKind::LinkMalformed, detail, context);
            self.deafen(side);
        }
    }

    /// One side cannot be read any more; the other still can.
    fn deafen(&mut self, side: Side) {
        self.inflate[index(side)] = None;
        self.judge.note_missed();
        if self.inflate.iter().all(Option::is_none) {
            self.phase = Phase::Over;
        }
    }

    /// Takes note that something was missed before it was known to be a link.
    pub const fn note_missed(&mut self) {
        self.judge.note_missed();
    }

    /// Takes note of missed bytes. A compressed side cannot be picked up again.
    pub fn on_gap(&mut self, side: Side) {
        self.lines[index(side)].skip_to_next();
        self.judge.note_missed();
        if self.inflates(side) {
            self.deafen(side);
        }
    }

    fn on_line(&mut self, side: Side, line: Line<'_>, links: &mut Links, context: &mut Context<'_>) {
        let (line, is_too_long) = match line {
            Line::Complete(line) => (line, false),
            Line::TooLong(beginning) => (beginning, true),
        };
        let Ok(message) = Message::parse(line) else { return };
        let mut buffer = [0; 16];
        let message = message.in_capitals(&mut buffer);
        if self.phase == Phase::Over {
            return;
        }
        if self.phase == Phase::Greeting || (self.phase == Phase::Greeted && message.command == b"ERROR") {
            return self.on_greeting(side, &message, context);
        }
        if self.phase == Phase::Greeted {
            self.open(links, context);
        }
        let has_nul = line.contains(&0);
        let limit = CONTENT_BYTES_MAX.saturating_sub(2);
        let mut court = judge::Court { link: self, links, context, side };
        if has_nul {
            court.malformed("nul");
        } else if is_too_long || message.content_bytes > limit {
            court.too_long();
        }
        court.hear(&message);
    }

    /// Takes a line before both sides have introduced themselves; the caller splits lines until then.
    pub fn on_greeting(&mut self, side: Side, message: &Message<'_>, context: &mut Context<'_>) {
        match self.greeted[index(side)].take(message) {
            Step::Introduced => {
                if side == self.peer_side || self.peer_side == Side::Server {
                    self.attempt(context);
                }
                if self.greeted.iter().all(|greeted| greeted.server.is_some()) {
                    self.greet();
                }
            }
            Step::Error => {
                let account = self.peer_name();
                let detail = Detail { method: Some(Method::Link), account, ..Detail::default() };
                if self.has_attempted {
                    self.signal(self.peer_side, SignalKind::LoginFailed, detail, context);
                }
                self.phase = Phase::Over;
            }
            Step::Other => {}
        }
    }

    /// The attempt was reported already, by the reader that found the link.
    pub const fn note_attempt(&mut self) {
        self.has_attempted = true;
    }

    fn attempt(&mut self, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.has_attempted, true) {
            let detail =
                Detail { method: Some(Method::Link), account: self.peer_name(), ..Detail::default() };
            self.signal(self.peer_side, SignalKind::LoginAttempted, detail, context);
        }
    }

    fn greet(&mut self) {
        self.phase = Phase::Greeted;
        self.judge.dialect = handshake::dialect_of(&self.greeted);
        self.is_compressed = handshake::is_compressed(&self.greeted, self.judge.dialect);
        if self.is_compressed {
            self.inflate = [Some(Box::new(Inflate::new())), Some(Box::new(Inflate::new()))];
        }
    }

    /// Whether both sides have introduced themselves, so that the rest is this reader's.
    pub fn is_greeted(&self) -> bool {
        self.phase != Phase::Greeting
    }

    fn open(&mut self, links: &mut Links, context: &mut Context<'_>) {
        self.phase = Phase::Open;
        self.judge.begin(context.at);
        for side in [Side::Client, Side::Server] {
            if let Some((name, id)) = self.greeted[index(side)].server.clone() {
                self.network.add_server(side, &id, &name, &id, &mut links.room);
            }
        }
        let Some(peer) = self.peer_name() else { return };
        let detail = Detail { method: Some(Method::Link), target: Some(peer.clone()), ..Detail::default() };
        self.signal(self.peer_side, SignalKind::LinkOpened, detail, context);
        if let Some(split) = links.split_of(&peer, context.at) {
            self.judge.split = Some(split);
            let weight = context.at.since(split).as_nanos() / 1_000_000;
            let detail = Detail { target: Some(peer.clone()), weight, ..Detail::default() };
            self.signal(self.peer_side, SignalKind::LinkRejoined, detail, context);
        }
        if !links.is_known(peer.as_str().as_bytes(), self.address(self.peer_side, context.connection)) {
            let detail = Detail { target: Some(peer), ..Detail::default() };
            self.signal(self.peer_side, SignalKind::LinkStranger, detail, context);
        }
        for side in [Side::Client, Side::Server] {
            if let Some(disorder) = self.greeted[index(side)].disorder {
                let detail = Detail { reason: Some(disorder), ..Detail::default() };
                self.signal(side, SignalKind::LinkDisordered, detail, context);
            }
        }
    }

    fn peer_name(&self) -> Option<Text> {
        self.greeted[index(self.peer_side)].server.as_ref().map(|(name, _)| Text::new(name))
    }

    /// The connection is over.
    pub fn on_close(&mut self, links: &mut Links, context: &mut Context<'_>) {
        if self.judge.has_begun() {
            judge::Court { link: self, links, context, side: Side::Client }.close();
        }
        self.judge.lost = self.network.losses.total();
        links.lost = links.lost.saturating_add(self.judge.lost);
        self.network.release(&mut links.room);
        self.phase = Phase::Over;
    }

    const fn address(&self, side: Side, connection: &Connection) -> Address {
        match side {
            Side::Client => connection.client,
            Side::Server => connection.server,
        }
    }

    /// Reports what one side said; the address is that side's.
    fn signal(&self, side: Side, kind: SignalKind, detail: Detail, context: &mut Context<'_>) {
        let address = self.address(side, context.connection);
        context.output.signals.push(Signal {
            kind,
            at: context.at,
            service: context.connection.service,
            address,
            flow: Some(context.connection.id),
            detail,
        });
    }

    /// Bytes of heap held, at most.
    pub fn held_bytes(&self) -> usize {
        let streams = self.inflate.iter().flatten().count().saturating_mul(inflate::HELD_BYTES);
        let lines = self.lines.iter().fold(0_usize, |sum, lines| sum.saturating_add(lines.held_bytes()));
        lines.saturating_add(streams).saturating_add(self.network.held_bytes())
    }

    /// Entries not kept for lack of room.
    pub const fn lost(&self) -> u64 {
        self.network.losses.total()
    }

    /// What is known, with at most `rows` of each kind.
    pub fn view(&self, connection: &Connection, rows: usize) -> LinkView {
        let network = &self.network;
        let name = |side: Side| self.greeted[index(side)].server.as_ref().map(|(name, _)| Text::new(name));
        let sides = [Side::Client, Side::Server];
        let servers = sides.iter().flat_map(|side| {
            network.servers[index(*side)].iter().map(|(id, server)| ServerView {
                name: Text::new(&server.name),
                id: Text::new(id),
                side: *side,
            })
        });
        let users = sides.iter().flat_map(|side| {
            network.users[index(*side)].iter().map(|(id, user)| UserView {
                nickname: Text::new(&user.nickname),
                id: Text::new(id),
                timestamp: user.timestamp,
                side: *side,
            })
        });
        let channels = network.channels.iter().map(|(name, channel)| ChannelView {
            name: Text::new(name),
            timestamp: channel.timestamp(),
            said: channel.said,
            members: channel.members.len(),
            operators: channel.members.values().filter(|member| member.is_operator).count(),
        });
        let (mut servers, mut users): (Vec<_>, Vec<_>) =
            (servers.take(rows).collect(), users.take(rows).collect());
        servers.sort_by(|one, other| one.name.cmp(&other.name));
        users.sort_by(|one, other| one.nickname.cmp(&other.nickname));
        let count = |pair: [usize; 2]| pair[0].saturating_add(pair[1]);
        LinkView {
            service: connection.service,
            peer_address: self.address(self.peer_side, connection),
            peer: name(self.peer_side),
            own: name(opposite(self.peer_side)),
            peer_side: self.peer_side,
            dialect: self.judge.dialect,
            is_established: self.judge.is_established(),
            is_compressed: self.is_compressed,
            opened: connection.opened,
            is_complete: self.judge.is_complete() && network.losses.total() == 0,
            lost: network.losses.total(),
            servers,
            users,
            channels: channels.take(rows).collect(),
            totals: [
                count([network.servers[0].len(), network.servers[1].len()]),
                count([network.users[0].len(), network.users[1].len()]),
                network.channels.len(),
            ],
        }
    }
}

/// Whether a line of a server is one that no client is ever sent: then the connection is a link.
pub fn is_link_line(message: &Message<'_>) -> bool {
    const WORDS: [&[u8]; 14] = [
        b"SJOIN",
        b"TMODE",
        b"UID",
        b"EUID",
        b"BMASK",
        b"SID",
        b"SVINFO",
        b"EOB",
        b"TBURST",
        b"FJOIN",
        b"IJOIN",
        b"FMODE",
        b"NJOIN",
        b"ENDBURST",
    ];
    message.source.is_some() && !message.is_from_user() && WORDS.contains(&message.command)
}

/// A name kept for comparing.
fn name_of(bytes: &[u8]) -> Name {
    exact(bytes)
}
