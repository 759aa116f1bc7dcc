//! The voice port: who asks for a session, who has one, and who only claims to (`teamspeak.md` 3).
//!
//! What counts is what the server said to an address and port: a cookie, a puzzle, and after a good solution its own
//! commands. A client's datagrams are held against that; alone they move nothing, because anybody can write them in
//! somebody's name. An echoed cookie proves the address. The identity that a solution names is what the
//! client claims: that it has the key is known to the server alone.
//!
//! Judged is only what the server can be heard to answer: in a capture of one side nobody is a forger.
//!
//! Bounds: [`ASSOCIATIONS_MAX`] addresses with port, sessions the last to go; [`COMMANDS_MAX`] first commands
//! remembered, [`CLAIMS_MAX`] claims of sessions; what is beyond says nothing about anybody.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher},
};

use floodwall_wire::{Address, Reason};
use foldhash::quality::FixedState;

use super::datagram::{FirstCommand, FromClient, FromServer, Header, identity, read_first_command};
use crate::{
    bounded::BoundedMap,
    packet::Packet,
    signal::{Detail, Method, Signal, SignalKind},
    text::Text,
    time::{Span, Timestamp},
};

/// Addresses with port of which something is remembered.
const ASSOCIATIONS_MAX: usize = 8_192;
/// First commands remembered, by their tag.
const COMMANDS_MAX: usize = 4_096;
/// Cookies and puzzles remembered of each address with port: a client asks again before the answer is there.
const GIVEN_MAX: usize = 4;
/// Silence after which a session is over, on both sides.
const SILENCE_MAX: Span = Span::from_secs(30);
/// How long the server is heard before somebody whom it never spoke to has no session. It pings every second.
const WATCH_MIN: Span = Span::from_secs(5);
/// Datagrams remembered until then that claim a session.
const CLAIMS_MAX: usize = 256;
/// A server takes or refuses a solution within this time.
const SOLUTION_PATIENCE: Span = Span::from_secs(5);
/// Associations looked at each time, to find one that is over.
const EXPIRY_LOOKS: usize = 16;

/// The voice port of one service.
#[derive(Debug)]
pub(crate) struct Voice {
    associations: BoundedMap<Place, Association>,
    /// By the tag of a first command, who sent it first.
    commands: BoundedMap<u64, Address>,
    /// Solutions that the server may still take, by deadline.
    awaited: VecDeque<(Timestamp, Place, u64)>,
    /// What was said by those who claimed a session before the server had been heard for long enough.
    claims: VecDeque<(Place, Signal)>,
    hasher: FixedState,
    /// Since when the server's side is heard without a longer silence, and when last.
    heard: Option<(Timestamp, Timestamp)>,
    /// There was no room for everybody: until then nothing is held against those who are not remembered.
    crowded_until: Timestamp,
}

/// Address and port.
type Place = (Address, u16);

/// What the server has said to one address and port.
#[derive(Debug, Default)]
struct Association {
    /// Keyed hashes of cookies and puzzles, the newest last.
    given: VecDeque<u64>,
    /// Keyed hash of the solution that has no answer yet.
    solution: Option<u64>,
    identity: Option<Text>,
    /// The server speaks to it: there is a session, or one is being made.
    is_up: bool,
    /// The client has used an id after the server spoke to it. Any id: which one the server gave is encrypted.
    is_in: bool,
    /// What all unencrypted packets of the client carry as long as the session lasts; the first one told it.
    mac: Option<u64>,
}

impl Association {
    /// The session is over; says so if there was one.
    fn end(&mut self, at: Timestamp, service: u8, place: Place) -> Option<Signal> {
        let was_in = std::mem::take(&mut self.is_in);
        let identity = self.identity.take();
        self.is_up = false;
        self.mac = None;
        let detail = Detail { method: Some(Method::Identity), identity, ..Detail::default() };
        was_in.then(|| of_place(SignalKind::LoginEnded, at, service, place, detail))
    }
}

impl Voice {
    /// Nothing seen yet; `seed` keys the tables.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            associations: BoundedMap::new(ASSOCIATIONS_MAX, seed),
            commands: BoundedMap::new(COMMANDS_MAX, seed),
            awaited: VecDeque::new(),
            claims: VecDeque::new(),
            hasher: FixedState::with_seed(seed),
            heard: None,
            crowded_until: Timestamp::EPOCH,
        }
    }

    /// Takes a client's datagram that the gate has passed; `bytes` is its length, of which `payload` may be less.
    pub(crate) fn on_datagram(
        &mut self,
        packet: &Packet<'_>,
        payload: &[u8],
        bytes: u32,
        out: &mut Vec<Signal>,
    ) {
        let Some(datagram) = FromClient::parse(payload) else { return };
        let is_heard = self.heard_for(packet.at).is_some() && self.remembers_all(packet.at);
        let told = match datagram {
            FromClient::GetCookie => Some((SignalKind::HandshakeBegun, Detail::default())),
            FromClient::GetPuzzle { cookie } => {
                (is_heard && !self.was_given(packet, cookie)).then(|| forged("cookie", None))
            }
            FromClient::Solution { puzzle, solution, command } => {
                let identity = identity(command);
                if self.was_given(packet, puzzle) {
                    let solution = self.hash(solution);
                    let is_new = self.await_answer(packet, solution, identity.clone(), out);
                    is_new.then(|| (SignalKind::HandshakeSolved, Detail { identity, ..Detail::default() }))
                } else {
                    is_heard.then(|| forged("puzzle", identity))
                }
            }
            FromClient::Session(header) if header.is_first_command() => {
                match read_first_command(&header, payload, payload.len() >= bytes as usize) {
                    FirstCommand::Authentic(identity) => self
                        .is_replayed(header.mac, packet)
                        .then(|| (SignalKind::HandshakeReplayed, Detail { identity, ..Detail::default() })),
                    FirstCommand::Broken => Some(forged("tag", None)),
                    FirstCommand::Unreadable => None,
                }
            }
            FromClient::Session(header) => self.on_session(&header, packet),
        };
        let Some((kind, detail)) = told else { return };
        let detail = Detail { command: Some(name_of(&datagram)), weight: u64::from(bytes), ..detail };
        let signal = Signal::of_packet(kind, packet, detail);
        // A session older than the watch is one that the server speaks to, every second.
        let is_claim = kind == SignalKind::DatagramStranger;
        if is_claim && self.heard_for(packet.at).is_none_or(|span| span <= WATCH_MIN) {
            if self.claims.len() < CLAIMS_MAX {
                self.claims.push_back(((packet.client, packet.client_port), signal));
            }
            return;
        }
        out.push(signal);
    }

    /// Takes a datagram of the server.
    pub(crate) fn on_answer(&mut self, packet: &Packet<'_>, payload: &[u8], out: &mut Vec<Signal>) {
        let Some(datagram) = FromServer::parse(payload) else { return };
        let since = self.heard_for(packet.at).map_or(packet.at, |span| packet.at - span);
        self.heard = Some((since, packet.at));
        let given = match datagram {
            FromServer::SetCookie { cookie } => Some(self.hash(cookie)),
            FromServer::SetPuzzle { puzzle } => Some(self.hash(puzzle)),
            FromServer::Reset | FromServer::Session(_) => None,
        };
        let place = (packet.client, packet.client_port);
        let let_go = self.associations.evicted();
        let association = self.associations.touch_or_insert(
            &place,
            packet.at,
            Association::default,
            |association| !association.is_up,
            |_, _| {},
        );
        let is_refused = association.is_none();
        if is_refused || self.associations.evicted() != let_go {
            self.crowded_until = packet.at + SILENCE_MAX;
        }
        let Some(association) = self.associations.get_mut(&place) else { return };
        match datagram {
            FromServer::SetCookie { .. } => association.given.extend(given),
            FromServer::SetPuzzle { .. } => {
                // Somebody at that address brought a cookie back: whatever was before is over.
                out.extend(association.end(packet.at, packet.service, place));
                association.given.extend(given);
            }
            FromServer::Reset => {
                if association.solution.take().is_some() {
                    out.push(failed(packet.at, packet.service, place, association, "reset"));
                }
            }
            FromServer::Session(_) => {
                association.solution = None;
                association.is_up = true;
            }
        }
        if association.given.len() > GIVEN_MAX {
            association.given.pop_front();
        }
    }

    /// Those to whom the server has not spoken since they claimed a session have none.
    fn settle_claims(&mut self, now: Timestamp, out: &mut Vec<Signal>) {
        if self.heard_for(now).is_none_or(|span| span <= WATCH_MIN) || !self.remembers_all(now) {
            return;
        }
        let Self { claims, associations, .. } = self;
        let strangers = claims.drain(..).filter(|(place, signal)| {
            let is_up = associations.get(place).is_some_and(|association| association.is_up);
            !is_up && now.since(signal.at) <= SILENCE_MAX
        });
        out.extend(strangers.map(|(_, signal)| Signal { at: now, ..signal }));
    }

    /// Solutions that stay without an answer, and sessions that have fallen silent.
    pub(crate) fn handle_timeout(&mut self, service: u8, now: Timestamp, out: &mut Vec<Signal>) {
        if !self.claims.is_empty() {
            self.settle_claims(now, out);
        }
        while let Some((deadline, place, solution)) = self.awaited.front().copied()
            && deadline <= now
        {
            self.awaited.pop_front();
            if let Some(association) = self.associations.get_mut(&place)
                && association.solution == Some(solution)
            {
                association.solution = None;
                out.push(failed(now, service, place, association, "unanswered"));
            }
        }
        let is_silent = |_: &Association, touched| now.since(touched) > SILENCE_MAX;
        while let Some((place, mut association)) = self.associations.expire_one(EXPIRY_LOOKS, is_silent) {
            out.extend(association.end(now, service, place));
        }
    }

    /// Anything but a handshake.
    fn on_session(&mut self, header: &Header, packet: &Packet<'_>) -> Option<(SignalKind, Detail)> {
        let place = (packet.client, packet.client_port);
        let Some(association) = self.associations.get_mut(&place).filter(|known| known.is_up) else {
            let is_watched = self.remembers_all(packet.at);
            let claims = claims_session(header) && packet.reason != Reason::StandingStranger;
            let number = (header.client_id != 0).then(|| u32::from(header.client_id));
            let detail = Detail { number, ..Detail::default() };
            return (is_watched && claims).then_some((SignalKind::DatagramStranger, detail));
        };
        if header.is_unencrypted() && *association.mac.get_or_insert(header.mac) != header.mac {
            let detail = Detail { reason: Some("mac"), ..Detail::default() };
            return Some((SignalKind::DatagramForeign, detail));
        }
        if header.client_id == 0 || std::mem::replace(&mut association.is_in, true) {
            return None;
        }
        // Whose handshake nobody saw is in since before the watch.
        let identity = association.identity.clone()?;
        let detail = Detail { method: Some(Method::Identity), identity: Some(identity), ..Detail::default() };
        Some((SignalKind::LoginSucceeded, detail))
    }

    /// How long the server's side is heard by now; `None` if it is not, or has said nothing for long. It speaks to everybody who is
    /// there every second, and to nobody else.
    fn heard_for(&self, now: Timestamp) -> Option<Span> {
        let (since, last) = self.heard?;
        (now.since(last) <= SILENCE_MAX).then(|| now.since(since))
    }

    /// Whether everybody whom the server has spoken to lately is remembered.
    fn remembers_all(&self, now: Timestamp) -> bool {
        now >= self.crowded_until
    }

    /// Addresses with port let go, or not remembered, for lack of room.
    pub(crate) const fn lost(&self) -> u64 {
        self.associations.evicted().saturating_add(self.associations.refused())
    }

    /// Whether the server speaks to this address and port.
    pub(crate) fn has_session(&self, packet: &Packet<'_>) -> bool {
        let association = self.associations.get(&(packet.client, packet.client_port));
        association.is_some_and(|association| association.is_up)
    }

    /// Whether the server gave that to this address and port.
    fn was_given(&self, packet: &Packet<'_>, given: &[u8]) -> bool {
        let given = self.hash(given);
        let association = self.associations.get(&(packet.client, packet.client_port));
        association.is_some_and(|association| association.given.contains(&given))
    }

    /// Whether it is a new solution, whose answer is waited for from now on.
    fn await_answer(
        &mut self,
        packet: &Packet<'_>,
        solution: u64,
        identity: Option<Text>,
        out: &mut Vec<Signal>,
    ) -> bool {
        let place = (packet.client, packet.client_port);
        let Some(association) = self.associations.touch(&place, packet.at) else { return false };
        if association.solution == Some(solution) || association.is_up {
            return false;
        }
        // Another one instead of waiting for the answer: the first was none.
        if association.solution.replace(solution).is_some() {
            out.push(failed(packet.at, packet.service, place, association, "replaced"));
        }
        association.identity = identity;
        if self.awaited.len() >= ASSOCIATIONS_MAX {
            self.awaited.pop_front();
        }
        self.awaited.push_back((packet.at + SOLUTION_PATIENCE, place, solution));
        true
    }

    /// Whether another address has sent the very same command: a client makes a new one each time.
    fn is_replayed(&mut self, tag: u64, packet: &Packet<'_>) -> bool {
        let first = self.commands.touch_or_insert(&tag, packet.at, || packet.client, |_| true, |_, _| {});
        first.is_some_and(|first| *first != packet.client)
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Whether only somebody with a session says that (`teamspeak.md` 3): media and pings always, commands with an id that was given, or
/// more of them than a handshake has.
const fn claims_session(header: &Header) -> bool {
    const HANDSHAKE_IDS_MAX: u16 = 3;
    matches!(header.kind & 0x0f, 0 | 1 | 4 | 5)
        || header.client_id != 0
        || header.packet_id > HANDSHAKE_IDS_MAX
}

fn forged(reason: &'static str, identity: Option<Text>) -> (SignalKind, Detail) {
    (SignalKind::HandshakeForged, Detail { reason: Some(reason), identity, ..Detail::default() })
}

fn failed(
    at: Timestamp,
    service: u8,
    place: Place,
    association: &Association,
    reason: &'static str,
) -> Signal {
    let identity = association.identity.clone();
    let detail = Detail { reason: Some(reason), identity, ..Detail::default() };
    of_place(SignalKind::HandshakeFailed, at, service, place, detail)
}

const fn of_place(kind: SignalKind, at: Timestamp, service: u8, place: Place, detail: Detail) -> Signal {
    Signal { kind, at, service, address: place.0, flow: None, detail }
}

/// What a datagram is, in signals.
const fn name_of(datagram: &FromClient<'_>) -> &'static str {
    match datagram {
        FromClient::GetCookie => "get-cookie",
        FromClient::GetPuzzle { .. } => "get-puzzle",
        FromClient::Solution { .. } => "solution",
        FromClient::Session(header) => match header.kind & 0x0f {
            0 => "voice",
            1 => "whisper",
            2 | 3 => "command",
            4 => "ping",
            5 => "pong",
            6 | 7 => "acknowledgement",
            _ => "unknown",
        },
    }
}
