//! The gate: one packet in, one judgement out. [`judge`] reads in the order of the design's table.

use crate::{
    Address, Class, Reason, SourceKey, State, Verdict, Window,
    frame::{self, Headers, TcpHeader, Transport, Unwalkable},
    limit::{Admission, Limit},
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
    let bytes = headers.transport_offset + headers.transport_bytes;
    let status = state.status();
    let generation = status.generation;
    let port = state.port(generation, headers.transport, headers.destination_port);
    let (Some(service), Some(role)) = (port.service(), port.role()) else {
        return Judgement::unguarded(Reason::Unguarded, bytes);
    };
    let Some(settings) = state.settings(generation, service) else {
        return Judgement::unguarded(Reason::Unguarded, bytes);
    };
    if status.flags & status_flags::ANY_ADDRESS == 0 && !state.is_local(&headers.destination) {
        return Judgement::unguarded(Reason::Unguarded, bytes);
    }
    let packet = Packet::read(window, &headers, service, role).blurred(window);
    let now = state.now();
    let level = level_of(status, &packet, headers.transport, now);
    let case = Case { window, state, status, settings, headers: &headers, packet: &packet, level, now };
    let (standing, reason) = case.settle();
    Judgement { reason, service, class: packet.class, standing, bytes }
}

/// A guarded packet, as far as its own bytes tell.
struct Packet {
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
}

impl Packet {
    #[inline(always)]
    fn read<W: Window>(window: &W, headers: &Headers, service: u8, role: Role) -> Self {
        match headers.transport {
            Transport::Tcp => Self::of_segment(headers.tcp(window), service, role),
            Transport::Udp => {
                let datagram = shape::classify_datagram(window, role, Payload::of(headers));
                let kind = if datagram.class.is_greeting() { Kind::Greeting } else { Kind::Datagram };
                let Datagram { class, user_id } = datagram;
                Self { service, role, class, user_id, kind, units: 1, tcp: TcpHeader::ABSENT }
            }
        }
    }

    /// The same packet; see [`Window::blur`].
    #[inline(always)]
    fn blurred<W: Window>(self, window: &W) -> Self {
        let class = Class::from_number(window.blur(self.class as u32) as u8).unwrap_or(Class::UdpOther);
        let kind = Kind::from_number(window.blur(self.kind as u32) as u8).unwrap_or(Kind::Datagram);
        Self { class, kind, ..self }
    }

    #[inline(always)]
    fn of_segment(tcp: Option<TcpHeader>, service: u8, role: Role) -> Self {
        let (class, tcp) = match tcp {
            Some(tcp) => (shape::classify_segment(&tcp), tcp),
            None => (Class::Fragment, TcpHeader::ABSENT),
        };
        let (kind, units) = if matches!(class, Class::TcpSyn) {
            (Kind::Syn, 1)
        } else {
            (Kind::Payload, tcp.payload_bytes as u64)
        };
        Self { service, role, class, user_id: 0, kind, units, tcp }
    }
}

/// The level for this packet's class of traffic; normal while the controller's heartbeat is stale.
#[inline(always)]
fn level_of(status: &Status, packet: &Packet, transport: Transport, now: u64) -> usize {
    if status.heartbeat_until <= now {
        return 0;
    }
    // The mask changes nothing, a service is below 16; `get` would be a comparison that the verifier forgets.
    let levels = status.levels[packet.service as usize & (SERVICES_MAX - 1)];
    let level = match transport {
        Transport::Udp => levels & 0xff,
        Transport::Tcp => (levels >> 8) & 0xff,
    } as usize;
    if level < LEVELS { level } else { 0 }
}

/// One guarded packet before the bench: what it is, what is known, what time it is.
struct Case<'a, W, S> {
    window: &'a W,
    state: &'a S,
    status: &'a Status,
    settings: &'a ServiceSettings,
    headers: &'a Headers,
    packet: &'a Packet,
    level: usize,
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
        if self.headers.source.is_impossible_source() {
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
        let entry = self.state.source(SourceKey::of(self.headers.source))?;
        if entry.flags & source_flags::MIXED != 0
            && let Some(host) = self.state.host(&self.headers.source)
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
        match self.state.prefix(&self.headers.source) {
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
        let key = ProofKey { address: self.headers.source, service: self.packet.service as u64 };
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

    /// Step 6, by way of the home; see [`State::charge`].
    #[inline(always)]
    fn charge(&self, account: &Account<'_>, passing: Reason) -> Reason {
        let Packet { service, kind, units, .. } = *self.packet;
        let bill = Bill {
            source: self.headers.source,
            now: self.now,
            units,
            service: service as u32,
            kind: kind as u32,
            level: self.level as u32,
            standing: account.standing as u32,
            needs_session: self.needs_session() as u32,
            passing: passing as u32,
        };
        self.state.charge(self.settings, account.budgets, &bill)
    }

    /// Shape and user id: `Ok` with the reason to pass for, `Err` with the reason to drop for.
    #[inline(always)]
    fn check_content(&self) -> Result<Reason, Reason> {
        let Packet { role, class, tcp, .. } = self.packet;
        let shape = match (self.headers.transport, class) {
            (Transport::Udp, _) => self.window.check_datagram(*role, Payload::of(self.headers)),
            (Transport::Tcp, Class::Fragment) => Shape::Breaks(Reason::ShapeHeader),
            (Transport::Tcp, _) => shape::check_segment(self.window, *role, tcp),
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
        if unbound || user.owner == self.headers.source {
            return Ok(passing);
        }
        if self.status.heartbeat_until <= self.now { Ok(Reason::Stale) } else { Err(Reason::StandingForeign) }
    }

    /// Whether the packet is one that only an address with a session may send.
    #[inline(always)]
    fn needs_session(&self) -> bool {
        let required = self.settings.flags & service_flags::REQUIRE_SESSION != 0;
        if !required || !matches!(self.headers.transport, Transport::Udp) {
            return false;
        }
        match self.packet.role {
            // TeamTalk clients connect by TCP first, always.
            Role::TeamTalk => true,
            // TeamSpeak clients begin with the handshake and a legacy command.
            Role::TeamSpeakVoice => !matches!(self.packet.class, Class::UdpHandshake | Class::UdpCommand),
            Role::Irc | Role::IrcPlain | Role::TeamSpeakQuery | Role::TeamSpeakFiles => false,
        }
    }
}

/// The same reason; see [`Window::blur`].
#[inline(always)]
fn blurred<W: Window>(window: &W, reason: Reason) -> Reason {
    Reason::from_number(window.blur(reason as u32) as u8).unwrap_or(Reason::Admitted)
}

/// What a packet is charged for, and whose it is: all that [`charge`] needs beside the tables. Plain numbers, because
/// in the kernel it crosses a call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bill {
    /// Who sent it.
    pub source: Address,
    /// Gate clock, ns.
    pub now: u64,
    /// How much it is charged for; 0 is free.
    pub units: u64,
    /// Index of the service.
    pub service: u32,
    /// Number of the [`Kind`].
    pub kind: u32,
    /// Level of the service, for this kind of traffic.
    pub level: u32,
    /// Number of the [`Standing`].
    pub standing: u32,
    /// 1 if only an address with a session may send it.
    pub needs_session: u32,
    /// Number of the [`Reason`] to pass for.
    pub passing: u32,
}

/// Step 6. A known or proven source draws on its own budget alone; strangers on their cells of the sketch, then their
/// network's, then what all of them share; an allowed source pays for its datagrams only, because addresses can be
/// forged.
#[inline(always)]
pub fn charge<S: State>(
    state: &S,
    settings: &ServiceSettings,
    budgets: Option<&[Word; KINDS]>,
    bill: &Bill,
) -> Reason {
    let passing = Reason::from_number(bill.passing as u8).unwrap_or(Reason::Admitted);
    let kind = Kind::from_number(bill.kind as u8).unwrap_or(Kind::Datagram);
    let standing = Standing::from_number(bill.standing as u8).unwrap_or(Standing::Stranger);
    // Nobody the tables tell of: such sources also draw on budgets that all of them share.
    let strange = budgets.is_none() && !matches!(standing, Standing::Allowed);
    let learning = state.status().learning_until > bill.now;
    let lacks_session = strange && bill.needs_session != 0;
    if lacks_session && !learning {
        return Reason::StandingStranger;
    }
    let passing = if lacks_session { Reason::Learning } else { passing };
    let exempt = matches!(standing, Standing::Allowed) && matches!(kind, Kind::Syn | Kind::Payload);
    if bill.units == 0 || exempt {
        return passing;
    }
    // While the gate learns who holds a session, a stranger's media may be a regular's: it is held to the limits of
    // the proven, and to no shared budget.
    let stranger = matches!(standing, Standing::Stranger);
    let benefit_of_doubt = learning && stranger && matches!(kind, Kind::Datagram);
    let row = if benefit_of_doubt { Standing::Proven as u32 } else { bill.standing };
    match take_own(state, settings, budgets, bill, row) {
        Admission::Admitted if strange && !benefit_of_doubt => charge_shared(state, settings, bill, passing),
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
fn take_own<S: State>(
    state: &S,
    settings: &ServiceSettings,
    budgets: Option<&[Word; KINDS]>,
    bill: &Bill,
    standing: u32,
) -> Admission {
    let row = bill.level * STANDINGS as u32 + standing;
    let limit = pick(settings.source.as_flattened().as_flattened(), row, bill.kind);
    match budgets {
        Some(budgets) => take(state, pick(budgets, 0, bill.kind), limit, bill),
        None => take_sketched(state, SourceKey::of(bill.source), Scope::Source, limit, bill),
    }
}

/// What a stranger shares with its network, and then with all strangers.
#[inline(always)]
fn charge_shared<S: State>(state: &S, settings: &ServiceSettings, bill: &Bill, passing: Reason) -> Reason {
    let limit = pick(settings.network.as_flattened(), bill.level, bill.kind);
    match take_sketched(state, SourceKey::network_of(bill.source), Scope::Network, limit, bill) {
        Admission::Admitted => {}
        Admission::Contended => return Reason::LimitContended,
        Admission::Over => return Reason::LimitPrefix,
    }
    let kind = Kind::from_number(bill.kind as u8).unwrap_or(Kind::Datagram);
    let word = state.budget(budget_index(bill.service as u8, kind));
    match take(state, word, pick(settings.service.as_flattened(), bill.level, bill.kind), bill) {
        Admission::Admitted => passing,
        // Above the budget a SYN meets the kernel's SYN cookies, not a lottery.
        Admission::Contended | Admission::Over if matches!(kind, Kind::Syn) => Reason::SynCookie,
        Admission::Contended => Reason::LimitContended,
        Admission::Over => Reason::LimitService,
    }
}

#[inline(always)]
fn take_sketched<S: State>(
    state: &S,
    key: SourceKey,
    scope: Scope,
    limit: Option<&Limit>,
    bill: &Bill,
) -> Admission {
    let kind = Kind::from_number(bill.kind as u8).unwrap_or(Kind::Datagram);
    let (first, second) = sketch_cells(state.status().seed, key.0, bill.service as u8, kind, scope);
    take(state, state.sketch(first), limit, bill).either(take(state, state.sketch(second), limit, bill))
}

#[inline(always)]
fn take<S: State>(state: &S, word: Option<&Word>, limit: Option<&Limit>, bill: &Bill) -> Admission {
    match (word, limit) {
        (Some(word), Some(limit)) => state.take(word, limit, bill.now, bill.units),
        // Both tables are as large as their indices.
        _ => Admission::Admitted,
    }
}

/// One row of a table that has a column for each kind.
///
/// The index is in range. LLVM does not know it and clamps the very register it then adds to the address: the one form
/// of a bound that the verifier follows wherever LLVM moves it.
#[inline(always)]
fn pick<T>(table: &[T], row: u32, kind: u32) -> Option<&T> {
    table.get(((row * KINDS as u32 + kind) as usize).min(table.len() - 1))
}
