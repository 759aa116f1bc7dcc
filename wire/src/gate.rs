//! The gate: one packet in, one judgement out. [`judge`] reads in the order of the design's table.

use crate::{
    Address, Class, Reason, SourceKey, State, Verdict, Window,
    frame::{self, Fragment, Headers, TcpHeader, Transport, UDP_HEADER_BYTES, Unwalkable},
    limit::{Admission, Limit, take},
    shape::{self, Datagram, Payload, Shape},
    tables::{
        KINDS, Kind, LEVELS, NO_SERVICE, ProofKey, Role, SERVICES_MAX, STANDINGS, Scope, ServiceSettings,
        Source, Standing, Status, budget_index, service_flags, sketch_cells, source_flags, status_flags,
    },
    word::Word,
};

/// What the gate says of one arriving packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// Index of the guarded service, or [`NO_SERVICE`].
    pub service: u8,
    /// What kind of packet it is.
    pub class: Class,
    /// What the gate knew of its source.
    pub standing: Standing,
    /// Bytes of the frame up to where the IP packet ends, as its header says; 0 if it was not walked so far.
    pub bytes: u32,
}

impl Judgement {
    /// Pass or drop.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }

    /// Whether the packet was addressed to a guarded service.
    #[inline(always)]
    pub const fn is_guarded(&self) -> bool {
        self.service != NO_SERVICE
    }

    #[inline(always)]
    const fn unguarded(reason: Reason, bytes: u32) -> Self {
        Self { reason, service: NO_SERVICE, class: Class::UdpOther, standing: Standing::Stranger, bytes }
    }
}

/// Judges an arriving frame.
#[inline(always)]
pub fn judge<W: Window, S: State>(window: &W, state: &S) -> Judgement {
    // 1. Headers: what is not IP or not guarded passes, unread and uncounted per source.
    let headers = match frame::walk(window) {
        Ok(headers) => headers,
        Err(Unwalkable::NotIp) => return Judgement::unguarded(Reason::NotIp, 0),
        Err(Unwalkable::OtherTransport) => return Judgement::unguarded(Reason::Unguarded, 0),
        Err(Unwalkable::LaterFragment) => return Judgement::unguarded(Reason::LaterFragment, 0),
        Err(Unwalkable::Malformed) => return Judgement::unguarded(Reason::MalformedHeader, 0),
    };
    judge_walked(window, state, &headers)
}

/// Judges an arriving frame whose headers have been walked.
#[inline(always)]
pub fn judge_walked<W: Window, S: State>(window: &W, state: &S, headers: &Headers) -> Judgement {
    let bytes = headers.transport_offset + headers.transport_bytes;
    let status = state.status();
    let port = state.port(status.generation, headers.transport, headers.destination_port);
    let (Some(service), Some(role)) = (port.service(), port.role()) else {
        return Judgement::unguarded(Reason::Unguarded, bytes);
    };
    let arrival = Arrival {
        source: headers.source,
        destination: headers.destination,
        transport: headers.transport as u32,
        fragment: headers.fragment as u32,
        transport_offset: headers.transport_offset,
        transport_bytes: headers.transport_bytes,
        datagram_bytes: headers.datagram_bytes,
        service: service as u32,
        role: role as u32,
        generation: status.generation,
    };
    let Settlement { class, standing, reason } = window.settle(state, &arrival);
    if matches!(reason, Reason::Unguarded) {
        return Judgement::unguarded(reason, bytes);
    }
    Judgement { reason, service, class, standing, bytes }
}

/// A packet that has arrived at a guarded port, as far as its headers tell. Plain numbers, because in the kernel it crosses a
/// call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Arrival {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// Number of the [`Transport`].
    pub transport: u32,
    /// Number of the [`Fragment`].
    pub fragment: u32,
    /// Offset of the TCP or UDP header in the frame.
    pub transport_offset: u32,
    /// Bytes of the IP packet from there on.
    pub transport_bytes: u32,
    /// Length of the datagram, as its header states it.
    pub datagram_bytes: u32,
    /// Index of the service.
    pub service: u32,
    /// Number of the [`Role`].
    pub role: u32,
    /// Rule set it is judged by.
    pub generation: u32,
}

/// What became of a guarded packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settlement {
    /// What kind of packet it is.
    pub class: Class,
    /// What the gate knew of its source.
    pub standing: Standing,
    /// Why it passes or is dropped.
    pub reason: Reason,
}

impl Settlement {
    /// As one number, the form in which it crosses a call in the kernel.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        (self.class as u32) << 16 | (self.standing as u32) << 8 | self.reason as u32
    }

    /// Back from the number; one that no settlement has reads as one that passes.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        Self {
            class: match Class::from_number((code >> 16) as u8) {
                Some(class) => class,
                None => Class::UdpOther,
            },
            standing: match Standing::from_number((code >> 8) as u8) {
                Some(standing) => standing,
                None => Standing::Stranger,
            },
            reason: match Reason::from_number(code as u8) {
                Some(reason) => reason,
                None => Reason::Unreadable,
            },
        }
    }
}

/// Steps 2 to 6, for a packet to a guarded port; [`Reason::Unguarded`] if it is not to a guarded address.
#[inline(always)]
pub fn settle<W: Window, S: State>(window: &W, state: &S, arrival: &Arrival) -> Settlement {
    const UNGUARDED: Settlement =
        Settlement { class: Class::UdpOther, standing: Standing::Stranger, reason: Reason::Unguarded };
    let status = state.status();
    if status.flags & status_flags::ANY_ADDRESS == 0 && !state.is_local(&arrival.destination) {
        return UNGUARDED;
    }
    let Some(settings) = state.settings(arrival.generation, arrival.service as u8) else { return UNGUARDED };
    let packet = Packet::read(window, arrival);
    let now = state.now();
    let level = level_of(status, &packet, now);
    let case = Case { window, state, status, settings, packet: &packet, level, now };
    let (standing, reason) = case.settle();
    Settlement { class: packet.class, standing, reason }
}

/// A guarded packet, as far as its own bytes tell.
struct Packet {
    source: Address,
    is_tcp: bool,
    service: u8,
    role: Role,
    class: Class,
    user_id: u16,
    /// What it is charged for.
    kind: Kind,
    /// How much of it; 0 is free.
    units: u64,
    /// Zeros for UDP and for a segment without a complete header ([`Class::Fragment`]). No `Option`: LLVM would
    /// leave its payload undefined on one path, and the verifier refuses to move what was never written.
    tcp: TcpHeader,
    payload: Payload,
}

impl Packet {
    #[inline(always)]
    fn read<W: Window>(window: &W, arrival: &Arrival) -> Self {
        let role = Role::from_number(arrival.role as u8).unwrap_or(Role::Irc);
        let payload = Payload {
            offset: arrival.transport_offset + UDP_HEADER_BYTES,
            bytes: arrival.datagram_bytes,
            whole: arrival.fragment == Fragment::Whole as u32,
        };
        let is_tcp = arrival.transport == Transport::Tcp as u32;
        let blank = Self {
            source: arrival.source,
            is_tcp,
            service: arrival.service as u8,
            role,
            class: Class::UdpOther,
            user_id: 0,
            kind: Kind::Datagram,
            units: 1,
            tcp: TcpHeader::ABSENT,
            payload,
        };
        let read = if is_tcp {
            blank.with_segment(TcpHeader::read(window, arrival.transport_offset, arrival.transport_bytes))
        } else {
            blank.with_datagram(shape::classify_datagram(window, role, payload))
        };
        read.blurred(window)
    }

    #[inline(always)]
    fn with_datagram(self, datagram: Datagram) -> Self {
        let kind = if datagram.class.is_greeting() { Kind::Greeting } else { Kind::Datagram };
        Self { class: datagram.class, user_id: datagram.user_id, kind, ..self }
    }

    #[inline(always)]
    fn with_segment(self, tcp: Option<TcpHeader>) -> Self {
        let (class, tcp) = match tcp {
            Some(tcp) => (shape::classify_segment(&tcp), tcp),
            None => (Class::Fragment, TcpHeader::ABSENT),
        };
        let (kind, units) = if matches!(class, Class::TcpSyn) {
            (Kind::Syn, 1)
        } else {
            (Kind::Payload, tcp.payload_bytes as u64)
        };
        Self { class, kind, units, tcp, ..self }
    }

    /// The same packet; see [`Window::blur`].
    #[inline(always)]
    fn blurred<W: Window>(self, window: &W) -> Self {
        let class = Class::from_number(window.blur(self.class as u32) as u8).unwrap_or(Class::UdpOther);
        let kind = Kind::from_number(window.blur(self.kind as u32) as u8).unwrap_or(Kind::Datagram);
        Self { class, kind, ..self }
    }
}

/// The level for this packet's class of traffic; normal while the controller's heartbeat is stale.
#[inline(always)]
fn level_of(status: &Status, packet: &Packet, now: u64) -> u32 {
    if status.heartbeat_until <= now {
        return 0;
    }
    // The mask changes nothing, a service is below 16; `get` would be a comparison that the verifier forgets.
    let levels = status.levels[packet.service as usize & (SERVICES_MAX - 1)];
    let level = if packet.is_tcp { levels >> 8 } else { levels } & 0xff;
    if level < LEVELS as u32 { level } else { 0 }
}

/// One guarded packet before the bench: what it is, what is known, what time it is.
struct Case<'a, W, S> {
    window: &'a W,
    state: &'a S,
    status: &'a Status,
    settings: &'a ServiceSettings,
    packet: &'a Packet,
    level: u32,
    now: u64,
}

/// What is known of a source, and whose budgets it draws on.
struct Account<'a> {
    standing: Standing,
    /// Its own; a source without any shares cells of the sketch.
    budgets: Option<&'a [Word; KINDS]>,
}

impl Account<'_> {
    /// The same account; see [`Window::blur`].
    #[inline(always)]
    fn blurred<W: Window>(self, window: &W) -> Self {
        let standing = Standing::from_number(window.blur(self.standing as u32) as u8);
        Self { standing: standing.unwrap_or(Standing::Stranger), ..self }
    }
}

/// There is one path through these steps and each is written once, for all standings: in the kernel every step is
/// inlined wherever it is called.
impl<W: Window, S: State> Case<'_, W, S> {
    /// Steps 2 to 6.
    #[inline(always)]
    fn settle(&self) -> (Standing, Reason) {
        if self.packet.source.is_impossible_source() {
            return (Standing::Stranger, Reason::ShapeAddress);
        }
        let account = match self.find_account() {
            Ok(account) => account.blurred(self.window),
            Err(banned) => return (Standing::Stranger, banned),
        };
        let content = match account.standing {
            Standing::Allowed => Ok(Reason::Allowed),
            Standing::Stranger | Standing::Proven | Standing::Known | Standing::Limited => {
                self.check_content()
            }
        };
        let reason = match content {
            Ok(passing) => self.charge(&account, blurred(self.window, passing)),
            Err(dropped) => dropped,
        };
        (account.standing, reason)
    }

    /// One look-up by 8-byte key; a second by full address only where the entry says that addresses differ.
    #[inline(always)]
    fn find_source(&self) -> Option<&Source> {
        let entry = self.state.source(SourceKey::of(self.packet.source))?;
        if entry.flags & source_flags::MIXED != 0
            && let Some(host) = self.state.host(&self.packet.source)
        {
            return Some(host);
        }
        Some(entry)
    }

    /// Who the source is; `Err` with the reason to drop for if it is banned.
    ///
    /// Allow and ban were settled when a source's entry was written, so prefixes are asked only without one, and
    /// only if there are any.
    #[inline(always)]
    fn find_account(&self) -> Result<Account<'_>, Reason> {
        if let Some(entry) = self.find_source() {
            let own = |standing| Ok(Account { standing, budgets: Some(&entry.limits) });
            if entry.flags & source_flags::ALLOWED != 0 {
                return own(Standing::Allowed);
            }
            if entry.banned_until > self.now {
                let by_prefix = entry.flags & source_flags::PREFIX_BAN != 0;
                return Err(if by_prefix { Reason::BanPrefix } else { Reason::BanAddress });
            }
            let limited = entry.limited_until > self.now;
            if entry.known_until > self.now && !limited {
                return own(Standing::Known);
            }
            return Ok(self.find_unknown(limited));
        }
        if self.status.flags & status_flags::PREFIXES == 0 {
            return Ok(self.find_unknown(false));
        }
        match self.state.prefix(&self.packet.source) {
            None => Ok(self.find_unknown(false)),
            Some(prefix) if prefix.flags & source_flags::ALLOWED != 0 => {
                Ok(Account { standing: Standing::Allowed, budgets: None })
            }
            Some(prefix) if prefix.banned_until > self.now => Err(Reason::BanPrefix),
            Some(prefix) => Ok(self.find_unknown(prefix.limited_until > self.now)),
        }
    }

    /// Everybody else: proven by the server's answers, or a stranger.
    #[inline(always)]
    fn find_unknown(&self, limited: bool) -> Account<'_> {
        let key = ProofKey { address: self.packet.source, service: self.packet.service as u64 };
        let budgets = match self.state.proof(&key) {
            Some(proof) if proof.until.load() > self.now => Some(&proof.limits),
            _ => None,
        };
        let standing = match (limited, budgets.is_some()) {
            (true, _) => Standing::Limited,
            (false, true) => Standing::Proven,
            (false, false) => Standing::Stranger,
        };
        Account { standing, budgets }
    }

    /// Step 6. A known or proven source draws on its own budget alone; strangers on their cells of the sketch, then
    /// their network's, then what all of them share; an allowed source pays for its datagrams only, because addresses
    /// can be forged.
    #[inline(always)]
    fn charge(&self, account: &Account<'_>, passing: Reason) -> Reason {
        let Packet { kind, units, .. } = *self.packet;
        let standing = account.standing;
        // Nobody the tables tell of: such sources also draw on budgets that all of them share.
        let strange = account.budgets.is_none() && !matches!(standing, Standing::Allowed);
        let learning = self.status.learning_until > self.now;
        let lacks_session = strange && self.needs_session();
        if lacks_session && !learning {
            return Reason::StandingStranger;
        }
        let passing = if lacks_session { Reason::Learning } else { passing };
        let exempt = matches!(standing, Standing::Allowed) && matches!(kind, Kind::Syn | Kind::Payload);
        if units == 0 || exempt {
            return passing;
        }
        // While the gate learns who holds a session, a stranger's media may be a regular's: it is held to the limits
        // of the proven, and to no shared budget.
        let stranger = matches!(standing, Standing::Stranger);
        let benefit_of_doubt = learning && stranger && matches!(kind, Kind::Datagram);
        let row = if benefit_of_doubt { Standing::Proven } else { standing };
        match self.take_own(account, row) {
            Admission::Admitted if strange && !benefit_of_doubt => self.charge_shared(passing),
            Admission::Admitted => passing,
            Admission::Over => Reason::LimitSource,
            Admission::Contended => match standing {
                Standing::Allowed => passing,
                Standing::Known => Reason::Contended,
                Standing::Stranger | Standing::Proven | Standing::Limited => Reason::LimitContended,
            },
        }
    }

    /// The source's own budget, or its cells of the sketch.
    #[inline(always)]
    fn take_own(&self, account: &Account<'_>, standing: Standing) -> Admission {
        let row = self.level * STANDINGS as u32 + standing as u32;
        let limit =
            pick(self.window, self.settings.source.as_flattened().as_flattened(), row, self.packet.kind);
        match (account.budgets, limit) {
            (Some(budgets), Some(limit)) => match pick(self.window, budgets, 0, self.packet.kind) {
                Some(word) => take(word, limit, self.now, self.packet.units),
                None => Admission::Admitted,
            },
            _ => self.take_sketched(SourceKey::of(self.packet.source), Scope::Source, limit),
        }
    }

    /// What a stranger shares with its network, and then with all strangers.
    #[inline(always)]
    fn charge_shared(&self, passing: Reason) -> Reason {
        let Packet { service, kind, source, .. } = *self.packet;
        let limit = pick(self.window, self.settings.network.as_flattened(), self.level, kind);
        match self.take_sketched(SourceKey::network_of(source), Scope::Network, limit) {
            Admission::Admitted => {}
            Admission::Contended => return Reason::LimitContended,
            Admission::Over => return Reason::LimitPrefix,
        }
        let word = self.state.budget(budget_index(service, kind));
        match self
            .take_shared(word, pick(self.window, self.settings.service.as_flattened(), self.level, kind))
        {
            Admission::Admitted => passing,
            // Above the budget a SYN meets the kernel's SYN cookies, not a lottery.
            Admission::Contended | Admission::Over if matches!(kind, Kind::Syn) => Reason::SynCookie,
            Admission::Contended => Reason::LimitContended,
            Admission::Over => Reason::LimitService,
        }
    }

    #[inline(always)]
    fn take_sketched(&self, key: SourceKey, scope: Scope, limit: Option<&Limit>) -> Admission {
        let Packet { service, kind, .. } = *self.packet;
        let (first, second) = sketch_cells(self.status.seed, key.0, service, kind, scope);
        let first = self.take_shared(self.state.sketch(first), limit);
        first.either(self.take_shared(self.state.sketch(second), limit))
    }

    #[inline(always)]
    fn take_shared(&self, word: Option<&Word>, limit: Option<&Limit>) -> Admission {
        match (word, limit) {
            (Some(word), Some(limit)) => self.state.take(word, limit, self.now, self.packet.units),
            // Both tables are as large as their indices.
            _ => Admission::Admitted,
        }
    }

    /// Shape and user id: `Ok` with the reason to pass for, `Err` with the reason to drop for.
    #[inline(always)]
    fn check_content(&self) -> Result<Reason, Reason> {
        let Packet { is_tcp, role, class, tcp, payload, .. } = self.packet;
        let shape = match (is_tcp, class) {
            (false, _) => self.window.check_datagram(*role, *payload),
            (true, Class::Fragment) => Shape::Breaks(Reason::ShapeHeader),
            (true, _) => shape::check_segment(self.window, *role, tcp),
        };
        let passing = match shape {
            Shape::Fits => Reason::Admitted,
            Shape::Unreadable => Reason::Unreadable,
            Shape::Breaks(reason) => return Err(reason),
        };
        self.check_user_id(passing)
    }

    /// A user id that belongs to another live address is refused, as long as that is fresh knowledge.
    #[inline(always)]
    fn check_user_id(&self, passing: Reason) -> Result<Reason, Reason> {
        if self.packet.user_id == 0 || self.settings.flags & service_flags::REQUIRE_OWN_ID == 0 {
            return Ok(passing);
        }
        let Some(user) = self.state.user(self.packet.service, self.packet.user_id) else {
            return Ok(passing);
        };
        let unbound = user.owner.high == 0 && user.owner.low == 0;
        if unbound || user.owner == self.packet.source {
            return Ok(passing);
        }
        if self.status.heartbeat_until <= self.now { Ok(Reason::Stale) } else { Err(Reason::StandingForeign) }
    }

    /// Whether the packet is one that only an address with a session may send.
    #[inline(always)]
    fn needs_session(&self) -> bool {
        let required = self.settings.flags & service_flags::REQUIRE_SESSION != 0;
        if !required || self.packet.is_tcp {
            return false;
        }
        match self.packet.role {
            // TeamTalk clients connect by TCP first, always.
            Role::TeamTalk => true,
            // TeamSpeak clients begin with the handshake and a legacy command; what was cut before its type is
            // given the benefit of the doubt.
            Role::TeamSpeakVoice => matches!(self.packet.class, Class::UdpVoice | Class::UdpKeepalive),
            Role::Irc | Role::IrcPlain | Role::TeamSpeakQuery | Role::TeamSpeakFiles => false,
        }
    }
}

/// The same reason; see [`Window::blur`].
#[inline(always)]
fn blurred<W: Window>(window: &W, reason: Reason) -> Reason {
    Reason::from_number(window.blur(reason as u32) as u8).unwrap_or(Reason::Admitted)
}

/// One row of a table that has a column for each kind.
///
/// The index is in range. Blurred, LLVM does not know it and clamps the very register it then adds to the address: the
/// one form of a bound that the verifier follows wherever LLVM moves it.
#[inline(always)]
fn pick<'t, T, W: Window>(window: &W, table: &'t [T], row: u32, kind: Kind) -> Option<&'t T> {
    let index = window.blur(row * KINDS as u32 + kind as u32);
    table.get((index as usize).min(table.len() - 1))
}
