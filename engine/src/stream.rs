//! From TCP segments to each side's bytes in order.
//!
//! The same bytes give the same result for any segmentation, order or duplication. The first copy of a byte
//! wins; a different second copy is reported. What a client sent is handed on only once the server's ACK covers
//! it, so nothing counts that the server may never have accepted; what either side sent is handed on only after
//! the bytes of the other that it acknowledges, so an answer never overtakes its question. Bytes that stay missing for
//! [`GAP_PATIENCE`](crate::limits::GAP_PATIENCE) are reported as missed, not guessed. A client's segment with a
//! wrong checksum is passed over where the same client has shown right ones.
//!
//! Bounds: [`OPENING_MAX`] connections of which nothing but SYNs was seen, so that a flood of those takes nobody's place;
//! [`FLOWS_MAX`] others and
//! [`FLOWS_BYTES_MAX`] bytes of segments and of what sessions remember of them. Beyond the first, the connection longest
//! silent goes, logged-in ones last. Beyond the second, further segments are not kept and become gaps, but only on
//! connections that hold more than their share: nobody is blinded because others fill the memory. With all those shares it is
//! twice as much at most.

use floodwall_wire::{
    Address,
    frame::{TcpHeader, tcp_flags},
};

use crate::{
    bounded::BoundedMap,
    limits::{FLOW_HALF_OPEN, FLOW_IDLE, FLOWS_BYTES_MAX, FLOWS_MAX, HANDSHAKE_PATIENCE, OPENING_MAX},
    packet::{Checksum, Packet},
    protocol::{Connection, Progress, Side},
    signal::FlowId,
    time::{Span, Timestamp},
};

mod half;
mod opening;

use half::{Due, Half, Stored};
use opening::Opening;

/// How long a closed connection is remembered, so that its last packets do not look like a new one.
const CLOSED_LINGER: Span = Span::from_secs(10);

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowKey {
    /// The client's address.
    pub client: Address,
    /// The server's address.
    pub server: Address,
    /// The client's port.
    pub client_port: u16,
    /// The server's port.
    pub server_port: u16,
}

impl FlowKey {
    /// The ends of the connection that a packet belongs to.
    const fn of(packet: &Packet<'_>) -> Self {
        Self {
            client: packet.client,
            server: packet.server,
            client_port: packet.client_port,
            server_port: packet.server_port,
        }
    }

    /// A connection between these ends that is seen from its beginning.
    const fn connection(&self, id: FlowId, service: u8, opened: Timestamp) -> Connection {
        Connection {
            id,
            service,
            client: self.client,
            client_port: self.client_port,
            server: self.server,
            server_port: self.server_port,
            opened,
            midway: false,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Both sides sent FIN, this one first.
    Finished(Side),
    /// One side sent RST; this one ended it, by that or by a FIN before.
    Reset(Side),
    /// Nothing came for too long.
    Idle,
    /// Forgotten for lack of room.
    Evicted,
    /// The input ended while it was open.
    Unfinished,
}

impl Ending {
    /// Whether the connection itself ended, and not only our watch over it.
    pub const fn is_of_the_connection(self) -> bool {
        matches!(self, Self::Finished(_) | Self::Reset(_) | Self::Idle)
    }

    /// Whether the server ended it, and not the client.
    pub const fn is_by_server(self) -> bool {
        matches!(self, Self::Finished(Side::Server) | Self::Reset(Side::Server))
    }

    /// The name in signals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished(_) => "finished",
            Self::Reset(_) => "reset",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Unfinished => "unfinished",
        }
    }
}

/// What a connection's reader is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// The handshake was completed, by both sides.
    Opened,
    /// The next bytes of one side.
    Bytes(Side, &'a [u8]),
    /// So many bytes of one side were missed.
    Gap(Side, u64),
    /// Two segments carried different bytes for the same place.
    Conflict(Side),
    /// It is open still: said now and then, however quiet it is.
    StillOpen,
    /// It is over.
    Closed(Ending),
}

/// All followed connections.
#[derive(Debug)]
pub struct Streams<S> {
    flows: BoundedMap<FlowKey, Flow<S>>,
    /// Those of which nothing but SYNs was seen.
    opening: BoundedMap<FlowKey, Opening>,
    buffered: usize,
    next_id: u64,
    refused_segments: u64,
    broken_segments: u64,
    /// Connections that became opaque, and opaque ones that ended, since the last call of `take_turns`.
    turns: Vec<Turn>,
}

/// A connection's reader has seen enough of it, or it ended after that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Its payload need not be shown any more.
    Opaque(FlowKey),
    /// What comes between these ends from now on is another connection.
    Over(FlowKey),
}

/// One followed connection and the session attached to it.
#[derive(Debug)]
pub struct Flow<S> {
    /// Who and since when.
    pub connection: Connection,
    /// The dissector's state, made when there is something to tell it: a flood of SYNs makes none.
    pub session: Option<S>,
    state: State,
    client: Half,
    server: Half,
    /// The client's checksums come as they were sent: one that is wrong is a broken segment.
    has_checksums: bool,
    /// Sequence number of a SYN seen on an open connection: it counts only if the server answers it.
    new_syn: Option<u32>,
    /// A segment of the client was dropped for what it says.
    was_refused: bool,
    /// Who ended it by a reset.
    reset_by: Option<Side>,
    /// What the client's first FIN acknowledged.
    client_finish: Option<u32>,
    /// What it takes of the bytes for all connections together.
    charged: usize,
}

/// Life of a connection: `Opening` → `Open` → `Closed`; `Opaque` is `Open` without reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// From what comes after a SYN.
    Opening,
    /// From the completed handshake, or from payload in mid-stream.
    Open,
    /// From `Open` when the reader has seen enough.
    Opaque,
    /// From any, at RST, both FINs, or expiry.
    Closed,
}

/// An open connection as whoever has to cut it needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// Its number.
    pub id: FlowId,
    /// Index of the service.
    pub service: u8,
    /// Addresses and ports.
    pub key: FlowKey,
    /// The sequence number the server expects of the client.
    pub client_next: u32,
    /// The sequence number the client expects of the server.
    pub server_next: u32,
    /// Whether both ends still hold it, as far as was seen.
    pub is_open: bool,
}

/// How sessions are made and told.
pub trait Readers<S> {
    /// A session for a new connection.
    fn open(&mut self, connection: &Connection) -> S;

    /// Tells a session what happened.
    fn tell(&mut self, connection: &Connection, session: &mut S, at: Timestamp, event: Event<'_>)
    -> Progress;

    /// Takes note of a connection that the server was ready for, and of which nothing more came.
    fn abandon(&mut self, connection: &Connection, at: Timestamp);

    /// Whether a session is among the last to be let go.
    fn is_protected(&self, session: &S) -> bool;

    /// Bytes of heap that a session holds.
    fn held_bytes(&self, session: &S) -> usize;
}

impl<S> Streams<S> {
    /// Follows nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            flows: BoundedMap::new(FLOWS_MAX, seed),
            opening: BoundedMap::new(OPENING_MAX, seed),
            buffered: 0,
            next_id: 1,
            refused_segments: 0,
            broken_segments: 0,
            turns: Vec::new(),
        }
    }

    /// Takes one segment.
    pub fn handle_segment(
        &mut self,
        packet: &Packet<'_>,
        tcp: &TcpHeader,
        payload: &[u8],
        readers: &mut impl Readers<S>,
    ) {
        let key = FlowKey::of(packet);
        let now = packet.at;
        let mut room = FLOWS_BYTES_MAX.saturating_sub(self.buffered);
        let flows = self.flows.len();
        let share = || FLOWS_BYTES_MAX.checked_div(flows).unwrap_or(FLOWS_BYTES_MAX);
        let flow = match self.flows.touch(&key, now) {
            Some(flow) => flow,
            None => {
                if !self.begin(&key, packet, tcp, payload, readers) {
                    return;
                }
                let Some(flow) = self.flows.touch(&key, now) else {
                    return;
                };
                flow
            }
        };
        let was_opaque = flow.is_opaque();
        if room < payload.len() {
            room = room.max(share().saturating_sub(flow.charged));
        }
        let segment = Segment { packet, tcp, payload, room, from: packet.from, now };
        match flow.take(&segment, readers) {
            Stored::NoRoom => self.refused_segments = self.refused_segments.saturating_add(1),
            Stored::Broken => self.broken_segments = self.broken_segments.saturating_add(1),
            Stored::Kept | Stored::Conflict => {}
        }
        match (was_opaque, flow.is_opaque()) {
            (false, true) => self.turns.push(Turn::Opaque(key)),
            (true, false) => self.turns.push(Turn::Over(key)),
            (false, false) | (true, true) => {}
        }
        let mut after = flow.held_bytes(readers);
        let others = self.buffered.saturating_sub(flow.charged);
        if others.saturating_add(after) > FLOWS_BYTES_MAX && after > share() {
            // A few bytes can be many questions: who has let them grow beyond the share loses them.
            self.refused_segments = self.refused_segments.saturating_add(1);
            flow.forget(now, readers);
            after = flow.held_bytes(readers);
        }
        flow.charged = after;
        self.buffered = others.saturating_add(after);
    }

    /// Takes note of a client's segment that was dropped on its way. Answers which connection it belongs to, once for each, if
    /// it can only have come from the one who opened that: it stands exactly where the client's next byte is expected, on a
    /// connection whose handshake both sides completed.
    pub fn refuse(&mut self, packet: &Packet<'_>, tcp: &TcpHeader) -> Option<FlowId> {
        if packet.from != Side::Client {
            return None;
        }
        let key = FlowKey::of(packet);
        let flow = self.flows.touch(&key, packet.at)?;
        let is_next = flow.is_open() && !flow.connection.midway && flow.client.expects_exactly(tcp.sequence);
        let is_news = is_next && !std::mem::replace(&mut flow.was_refused, true);
        is_news.then_some(flow.connection.id)
    }

    /// Starts following, if the segment is one that a connection can be picked up from. Answers whether it has something to say
    /// on one.
    fn begin(
        &mut self,
        key: &FlowKey,
        packet: &Packet<'_>,
        tcp: &TcpHeader,
        payload: &[u8],
        readers: &mut impl Readers<S>,
    ) -> bool {
        if tcp.flags & tcp_flags::SYN != 0 {
            self.take_syn(key, packet, tcp);
            return false;
        }
        if tcp.flags & tcp_flags::RST != 0 {
            if self.opening.get(key).is_some_and(|opening| opening.is_ended_by(packet.from, tcp)) {
                self.opening.remove(key);
            }
            return false;
        }
        let flow = match self.opening.remove(key) {
            Some(opening) => opening.into_flow(key),
            None if payload.is_empty() => return false,
            None => {
                let connection = key.connection(self.take_id(), packet.service, packet.at);
                Flow::new(Connection { midway: true, ..connection }, State::Open)
            }
        };
        self.follow(key, flow, packet.at, readers)
    }

    fn take_id(&mut self) -> FlowId {
        let id = FlowId(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        id
    }

    /// Takes a SYN of a connection that is not followed yet.
    fn take_syn(&mut self, key: &FlowKey, packet: &Packet<'_>, tcp: &TcpHeader) {
        if let Some(opening) = self.opening.touch(key, packet.at) {
            return opening.take_syn(packet, tcp);
        }
        let mut opening = Opening::new(self.take_id(), packet);
        opening.take_syn(packet, tcp);
        self.opening.touch_or_insert(key, packet.at, || opening, |_| true, |_, _| {});
    }

    fn follow(
        &mut self,
        key: &FlowKey,
        flow: Flow<S>,
        now: Timestamp,
        readers: &mut impl Readers<S>,
    ) -> bool {
        let may_go = |flow: &Flow<S>| {
            let session = flow.session.as_ref();
            flow.state == State::Closed || session.is_none_or(|session| !readers.is_protected(session))
        };
        let mut evicted = None;
        let inserted = self
            .flows
            .touch_or_insert(key, now, || flow, may_go, |key, flow| evicted = Some((key, flow)))
            .is_some();
        if let Some((key, flow)) = evicted {
            if flow.is_opaque() {
                self.turns.push(Turn::Over(key));
            }
            self.finish(flow, now, Ending::Evicted, readers);
        }
        inserted
    }

    /// Forgets connections that have been silent too long; call it now and then.
    pub fn handle_timeout(&mut self, now: Timestamp, readers: &mut impl Readers<S>) {
        let is_over = |_: &Opening, touched| now.since(touched) > FLOW_HALF_OPEN;
        while let Some((key, opening)) = self.opening.expire_one(16, is_over) {
            if opening.is_answered() {
                readers.abandon(&opening.connection(&key), now);
            }
        }
        while let Some((key, flow)) = self.flows.expire_one(16, |flow, touched| {
            now.since(touched)
                > match flow.state {
                    State::Opening => FLOW_HALF_OPEN,
                    State::Open | State::Opaque => FLOW_IDLE,
                    State::Closed => CLOSED_LINGER,
                }
        }) {
            if flow.is_opaque() {
                self.turns.push(Turn::Over(key));
            }
            self.finish(flow, now, Ending::Idle, readers);
        }
    }

    /// Says to every connection that is read that it is open still, in the order they were opened.
    pub fn handle_passing_time(&mut self, now: Timestamp, readers: &mut impl Readers<S>) {
        let Self { flows, turns, .. } = self;
        let mut open: Vec<(&FlowKey, &mut Flow<S>)> =
            flows.iter_mut().filter(|(_, flow)| flow.state == State::Open).collect();
        open.sort_unstable_by_key(|(_, flow)| flow.connection.id);
        for (key, flow) in open {
            // What was waited for in vain is missed from now on, though nothing more is said.
            flow.deliver(now, readers);
            if flow.state == State::Open {
                flow.tell(now, Event::StillOpen, readers);
            }
            if flow.is_opaque() {
                turns.push(Turn::Opaque(*key));
            }
        }
    }

    /// Whether [`take_turns`](Self::take_turns) has any.
    pub const fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Which connections became opaque or, having been so, ended since this was called last.
    pub fn take_turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    /// Ends every connection: the input is over.
    pub fn close_all(&mut self, now: Timestamp, readers: &mut impl Readers<S>) {
        let mut abandoned: Vec<Connection> = self
            .opening
            .drain()
            .filter(|(_, opening)| opening.is_answered() && now.since(opening.opened()) >= HANDSHAKE_PATIENCE)
            .map(|(key, opening)| opening.connection(&key))
            .collect();
        abandoned.sort_unstable_by_key(|connection| connection.id);
        for connection in &abandoned {
            readers.abandon(connection, now);
        }
        let mut flows: Vec<(FlowKey, Flow<S>)> = self.flows.drain().collect();
        flows.sort_by_key(|(_, flow)| flow.connection.id);
        for (_, flow) in flows {
            self.finish(flow, now, Ending::Unfinished, readers);
        }
    }

    fn finish(&mut self, mut flow: Flow<S>, now: Timestamp, ending: Ending, readers: &mut impl Readers<S>) {
        self.buffered = self.buffered.saturating_sub(flow.charged);
        flow.close(now, ending, readers);
    }

    /// The connection between two ends, if followed.
    pub fn flow(&self, key: &FlowKey) -> Option<&Flow<S>> {
        self.flows.get(key)
    }

    /// Every connection, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = &Flow<S>> {
        self.flows.iter().map(|(_, flow)| flow)
    }

    /// The ends of every connection that is open, or that a reset ended, which one end may not have believed. In no
    /// particular order.
    pub fn ends(&self) -> impl Iterator<Item = Ends> {
        let may_be_held = |flow: &Flow<S>| flow.is_open() || flow.reset_by.is_some();
        self.flows.iter().filter(move |(_, flow)| may_be_held(flow)).map(|(key, flow)| Ends {
            id: flow.connection.id,
            service: flow.connection.service,
            key: *key,
            client_next: flow.client.next_sequence(),
            server_next: flow.server.next_sequence(),
            is_open: flow.is_open(),
        })
    }

    /// Connections followed now, those with it of which nothing but SYNs was seen.
    pub fn len(&self) -> usize {
        self.flows.len().saturating_add(self.opening.len())
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.opening.is_empty()
    }

    /// Bytes buffered now: segments, and what the sessions remember of them.
    pub const fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Segments with a wrong checksum on connections that have shown right ones: no server took them.
    pub const fn broken_segments(&self) -> u64 {
        self.broken_segments
    }

    /// Connections let go for lack of room, and segments not kept for lack of room.
    pub const fn losses(&self) -> (u64, u64) {
        (self.flows.evicted(), self.refused_segments)
    }

    /// Connections let go for lack of room of which nothing but SYNs was seen.
    pub const fn openings_lost(&self) -> u64 {
        self.opening.evicted()
    }
}

/// One segment on its way into a connection.
struct Segment<'a> {
    packet: &'a Packet<'a>,
    from: Side,
    tcp: &'a TcpHeader,
    payload: &'a [u8],
    now: Timestamp,
    /// Bytes that may still be buffered: for all connections together, or of this one's share.
    room: usize,
}

impl Segment<'_> {
    const fn has(&self, flags: u8) -> bool {
        self.tcp.flags & flags == flags
    }
}

impl<S> Flow<S> {
    /// Of which nothing was seen yet.
    const fn new(connection: Connection, state: State) -> Self {
        Self {
            connection,
            session: None,
            state,
            client: Half::new(),
            server: Half::new(),
            has_checksums: false,
            new_syn: None,
            was_refused: false,
            reset_by: None,
            client_finish: None,
            charged: 0,
        }
    }

    fn buffered(&self) -> usize {
        self.client.buffered().saturating_add(self.server.buffered())
    }

    fn held_bytes(&self, readers: &impl Readers<S>) -> usize {
        let held = self.session.as_ref().map_or(0, |session| readers.held_bytes(session));
        self.buffered().saturating_add(held)
    }

    /// Lets go of what is held: both sides go on behind a gap.
    fn forget(&mut self, now: Timestamp, readers: &mut impl Readers<S>) {
        for side in [Side::Client, Side::Server] {
            self.half_mut(side).clear();
            self.tell(now, Event::Gap(side, 0), readers);
        }
    }

    /// Whether it is open and its bytes are no longer read.
    pub fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Whether both ends still hold it.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Opaque)
    }

    fn take(&mut self, segment: &Segment<'_>, readers: &mut impl Readers<S>) -> Stored {
        if self.is_broken(segment) {
            return Stored::Broken;
        }
        if segment.has(tcp_flags::SYN) {
            self.take_syn(segment, readers);
            return Stored::Kept;
        }
        if self.state == State::Closed && !self.is_alive_after_all(segment) {
            return Stored::Kept;
        }
        if segment.has(tcp_flags::RST) {
            let believed = match segment.from {
                Side::Client => self.client.expects_exactly(segment.tcp.sequence),
                Side::Server => self.server.expects(segment.tcp.sequence),
            };
            if believed {
                let ended_by = match (self.client.is_finished(), self.server.is_finished()) {
                    (true, false) => Side::Client,
                    (false, true) => Side::Server,
                    (false, false) | (true, true) => segment.from,
                };
                self.close(segment.now, Ending::Reset(ended_by), readers);
                self.reset_by = Some(segment.from);
            }
            return Stored::Kept;
        }
        if self.state == State::Closed {
            self.pick_up_again();
        }
        self.complete_handshake(segment, readers);
        let stored = self.take_bytes(segment, readers);
        self.deliver(segment.now, readers);
        if self.client.is_finished() && self.server.is_finished() {
            // Whoever acknowledges the other's FIN in their own was not the first.
            let answers = self.client_finish.is_some_and(|sequence| self.server.is_finished_before(sequence));
            let ended_by = if answers { Side::Server } else { Side::Client };
            self.close(segment.now, Ending::Finished(ended_by), readers);
        }
        stored
    }

    /// Whether the server's TCP threw the segment away for its checksum. A wrong one alone says nothing: where the
    /// card computes them, captures show wrong ones throughout. Only what changes something is looked at, and
    /// only what arrives: the server's own need not be doubted.
    fn is_broken(&mut self, segment: &Segment<'_>) -> bool {
        const CHANGES: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        let matters = !segment.payload.is_empty() || segment.tcp.flags & CHANGES != 0;
        if segment.from == Side::Server || !matters || self.state == State::Opaque {
            return false;
        }
        match segment.packet.checksum() {
            Checksum::Right => self.has_checksums = true,
            Checksum::Wrong => return self.has_checksums,
            Checksum::Unknown => {}
        }
        false
    }

    /// A SYN opens; on an open connection it counts only once the server has answered it.
    fn take_syn(&mut self, segment: &Segment<'_>, readers: &mut impl Readers<S>) {
        match segment.from {
            Side::Client => match self.state {
                State::Opening => self.client.begin(segment.tcp.sequence),
                State::Open | State::Opaque | State::Closed => self.new_syn = Some(segment.tcp.sequence),
            },
            Side::Server => {
                let answers = self.new_syn.map(|sequence| sequence.wrapping_add(1));
                if answers == Some(segment.tcp.acknowledgement) {
                    self.restart(segment, readers);
                }
                if self.state == State::Opening {
                    self.client.begin(segment.tcp.acknowledgement.wrapping_sub(1));
                    self.server.begin(segment.tcp.sequence);
                }
            }
        }
    }

    /// The same ports, a new connection.
    fn restart(&mut self, segment: &Segment<'_>, readers: &mut impl Readers<S>) {
        self.close(segment.now, Ending::Finished(Side::Client), readers);
        self.connection.opened = segment.now;
        self.connection.midway = false;
        self.session = None;
        self.client = Half::new();
        self.server = Half::new();
        self.has_checksums = false;
        self.new_syn = None;
        self.reset_by = None;
        self.client_finish = None;
        self.state = State::Opening;
    }

    /// A client's reset may never have reached the server. If the server goes on speaking, it did not.
    fn is_alive_after_all(&self, segment: &Segment<'_>) -> bool {
        self.reset_by == Some(Side::Client) && segment.from == Side::Server && !segment.payload.is_empty()
    }

    /// The same connection, read on from here.
    fn pick_up_again(&mut self) {
        self.connection.midway = true;
        self.session = None;
        self.client = Half::new();
        self.server = Half::new();
        self.reset_by = None;
        self.client_finish = None;
        self.state = State::Open;
    }

    fn take_bytes(&mut self, segment: &Segment<'_>, readers: &mut impl Readers<S>) -> Stored {
        let tcp = segment.tcp;
        let end = tcp.sequence.wrapping_add(tcp.payload_bytes);
        let (own, other) = match segment.from {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        own.begin_midway(tcp.sequence);
        let mut needs = 0;
        if segment.has(tcp_flags::ACK) {
            other.begin_midway(tcp.acknowledgement);
            other.acknowledge(tcp.acknowledgement);
            // A client's segment that acknowledges what was never sent is not accepted (RFC 9293 section 3.10.7.4), so once its
            // bytes are acknowledged themselves, what it has acknowledged was there, seen or not.
            needs = match segment.from {
                Side::Server => other.due_by(tcp.acknowledgement),
                Side::Client => other.known_by(tcp.acknowledgement),
            };
        }
        if segment.has(tcp_flags::FIN) {
            own.finish_at(end);
            if segment.from == Side::Client {
                // Sent again, it acknowledges more.
                self.client_finish.get_or_insert(tcp.acknowledgement);
            }
        }
        if self.state == State::Opaque {
            own.pass_over(end);
            return Stored::Kept;
        }
        if segment.from == Side::Server && !segment.payload.is_empty() {
            self.deliver(segment.now, readers);
            if self.state == State::Open
                && needs <= self.client.delivered()
                && self.server.take_next(tcp.sequence, segment.payload)
            {
                self.tell(segment.now, Event::Bytes(Side::Server, segment.payload), readers);
                return Stored::Kept;
            }
        }
        let stored = self.half_mut(segment.from).store(tcp.sequence, segment.payload, needs, segment.room);
        if stored == Stored::Conflict {
            self.tell(segment.now, Event::Conflict(segment.from), readers);
        }
        stored
    }

    /// The third step of the handshake, or the server speaking, shows that the client's address is real.
    fn complete_handshake(&mut self, segment: &Segment<'_>, readers: &mut impl Readers<S>) {
        if self.state != State::Opening {
            return;
        }
        let acknowledged =
            segment.from == Side::Client && self.server.is_acknowledged(segment.tcp.acknowledgement);
        let served = segment.from == Side::Server && !segment.payload.is_empty();
        if acknowledged || served {
            self.state = State::Open;
            self.tell(segment.now, Event::Opened, readers);
        }
    }

    /// Hands on whatever has become due, in an order that does not depend on how it arrived.
    fn deliver(&mut self, now: Timestamp, readers: &mut impl Readers<S>) {
        while self.state == State::Open {
            let lacking = self.server.lacks(&self.client);
            if lacking.is_none()
                && let Some(due) = self.client.next_due(self.client.acknowledged(), u64::MAX, now)
            {
                self.hand_on(Side::Client, due, now, readers);
                continue;
            }
            let question = self.client.delivered();
            let Some(due) = self.server.next_due(lacking.unwrap_or(u64::MAX), question, now) else {
                return;
            };
            self.hand_on(Side::Server, due, now, readers);
        }
    }

    fn hand_on(&mut self, side: Side, due: Due, now: Timestamp, readers: &mut impl Readers<S>) {
        match due {
            Due::Bytes(bytes) => self.tell(now, Event::Bytes(side, &bytes), readers),
            Due::Missed(missed) => self.tell(now, Event::Gap(side, missed), readers),
        }
    }

    fn tell(&mut self, now: Timestamp, event: Event<'_>, readers: &mut impl Readers<S>) {
        let session = self.session.get_or_insert_with(|| readers.open(&self.connection));
        let progress = readers.tell(&self.connection, session, now, event);
        if progress == Progress::Opaque && self.state == State::Open {
            self.state = State::Opaque;
            self.client.clear();
            self.server.clear();
        }
    }

    /// Hands on what is due without further patience, then says that it is over; only the first call does.
    fn close(&mut self, now: Timestamp, ending: Ending, readers: &mut impl Readers<S>) {
        if self.state == State::Closed {
            return;
        }
        self.client.lose_patience();
        self.server.lose_patience();
        self.deliver(now, readers);
        self.client.clear();
        self.server.clear();
        let was_opening = self.state == State::Opening;
        self.state = State::Closed;
        if !was_opening {
            self.tell(now, Event::Closed(ending), readers);
        }
    }

    const fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

#[cfg(test)]
mod tests;
