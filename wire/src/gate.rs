//! The gate: one packet in, one judgement out. [`judge`] reads in the order of the design's table.

use crate::{
    Class, Reason, SourceKey, State, Verdict, Window,
    frame::{self, Headers, Transport, Unwalkable},
    limit::{Admission, Limit, take, take_either},
    shape::{self, Payload, Shape},
    tables::{
        KINDS, Kind, LEVELS, NO_SERVICE, ProofKey, Role, Scope, ServiceSettings, Source, Standing, Status,
        budget_index, service_flags, sketch_cells, source_flags, status_flags,
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
    const fn unguarded(reason: Reason) -> Self {
        Self { reason, service: NO_SERVICE, class: Class::UdpOther, standing: Standing::Stranger }
    }
}

/// Judges an arriving frame.
#[inline(always)]
pub fn judge<W: Window, S: State>(window: &W, state: &S) -> Judgement {
    // 1. Headers: what is not IP or not guarded passes, unread and uncounted per source.
    let headers = match frame::walk(window) {
        Ok(headers) => headers,
        Err(Unwalkable::NotIp) => return Judgement::unguarded(Reason::NotIp),
        Err(Unwalkable::OtherTransport) => return Judgement::unguarded(Reason::Unguarded),
        Err(Unwalkable::LaterFragment) => return Judgement::unguarded(Reason::LaterFragment),
        Err(Unwalkable::Malformed) => return Judgement::unguarded(Reason::MalformedHeader),
    };
    let status = state.status();
    let generation = status.generation;
    let port = state.port(generation, headers.transport, headers.destination_port);
    let (Some(service), Some(role)) = (port.service(), port.role()) else {
        return Judgement::unguarded(Reason::Unguarded);
    };
    let Some(settings) = state.settings(generation, service) else {
        return Judgement::unguarded(Reason::Unguarded);
    };
    if status.flags & status_flags::ANY_ADDRESS == 0 && !state.is_local(&headers.destination) {
        return Judgement::unguarded(Reason::Unguarded);
    }
    let packet = Packet::read(window, &headers, service, role);
    let now = state.now();
    let level = level_of(status, &packet, headers.transport, now);
    let case = Case { window, state, status, settings, headers: &headers, packet: &packet, level, now };
    let (standing, reason) = case.settle();
    Judgement { reason, service, class: packet.class, standing }
}

/// A guarded packet, as far as its own bytes tell.
struct Packet {
    service: u8,
    role: Role,
    class: Class,
    user_id: u16,
    /// What it is charged for, if anything.
    charge: Option<(Kind, u64)>,
    tcp: Option<frame::TcpHeader>,
}

impl Packet {
    #[inline(always)]
    fn read<W: Window>(window: &W, headers: &Headers, service: u8, role: Role) -> Self {
        match headers.transport {
            Transport::Tcp => {
                let tcp = headers.tcp(window);
                let (class, charge) = match &tcp {
                    None => (Class::Fragment, None),
                    Some(tcp) => {
                        let class = shape::classify_segment(tcp);
                        let charge = if matches!(class, Class::TcpSyn) {
                            Some((Kind::Syn, 1))
                        } else if tcp.payload_bytes != 0 {
                            Some((Kind::Payload, tcp.payload_bytes as u64))
                        } else {
                            None
                        };
                        (class, charge)
                    }
                };
                Self { service, role, class, user_id: 0, charge, tcp }
            }
            Transport::Udp => {
                let datagram = shape::classify_datagram(window, role, Payload::of(headers));
                let kind = if datagram.class.is_greeting() { Kind::Greeting } else { Kind::Datagram };
                let charge = Some((kind, 1));
                Self { service, role, class: datagram.class, user_id: datagram.user_id, charge, tcp: None }
            }
        }
    }
}

/// The level for this packet's class of traffic; normal while the controller's heartbeat is stale.
#[inline(always)]
fn level_of(status: &Status, packet: &Packet, transport: Transport, now: u64) -> usize {
    if status.heartbeat_until <= now {
        return 0;
    }
    let levels = match status.levels.get(packet.service as usize) {
        Some(levels) => *levels,
        None => 0,
    };
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

impl<W: Window, S: State> Case<'_, W, S> {
    /// Steps 2 to 6.
    #[inline(always)]
    fn settle(&self) -> (Standing, Reason) {
        if self.headers.source.is_impossible_source() {
            return (Standing::Stranger, Reason::ShapeAddress);
        }
        match self.find_source() {
            Some(entry) => self.settle_entry(entry),
            None => self.settle_prefix(),
        }
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

    /// Allow and ban were settled when the entry was written; prefixes are not asked again.
    #[inline(always)]
    fn settle_entry(&self, entry: &Source) -> (Standing, Reason) {
        if entry.flags & source_flags::ALLOWED != 0 {
            return (Standing::Allowed, self.allow_under_ceiling(Some(entry)));
        }
        if entry.banned_until > self.now {
            let by_prefix = entry.flags & source_flags::PREFIX_BAN != 0;
            return (Standing::Stranger, if by_prefix { Reason::BanPrefix } else { Reason::BanAddress });
        }
        let limited = entry.limited_until > self.now;
        if entry.known_until > self.now && !limited {
            return (Standing::Known, self.judge_known(entry));
        }
        self.judge_unknown(limited)
    }

    /// No entry: the prefix tables are asked, if there are any prefixes.
    #[inline(always)]
    fn settle_prefix(&self) -> (Standing, Reason) {
        if self.status.flags & status_flags::PREFIXES == 0 {
            return self.judge_unknown(false);
        }
        let Some(prefix) = self.state.prefix(&self.headers.source) else { return self.judge_unknown(false) };
        if prefix.flags & source_flags::ALLOWED != 0 {
            return (Standing::Allowed, self.allow_under_ceiling(None));
        }
        if prefix.banned_until > self.now {
            return (Standing::Stranger, Reason::BanPrefix);
        }
        self.judge_unknown(prefix.limited_until > self.now)
    }

    /// An allowed source passes; its datagrams under a ceiling, because addresses can be forged.
    #[inline(always)]
    fn allow_under_ceiling(&self, entry: Option<&Source>) -> Reason {
        let Some((kind @ (Kind::Greeting | Kind::Datagram), units)) = self.packet.charge else {
            return Reason::Allowed;
        };
        let limit = self.source_limit(Standing::Allowed, kind);
        let admission = match entry {
            Some(entry) => take(budget_of(&entry.limits, kind), &limit, self.now, units),
            None => {
                let key = SourceKey::of(self.headers.source);
                self.take_sketched(key, Scope::Source, &limit, kind, units)
            }
        };
        match admission {
            Admission::Over => Reason::LimitSource,
            Admission::Admitted | Admission::Contended => Reason::Allowed,
        }
    }

    /// A known source draws only on its own budget and is never squeezed to make room for strangers.
    #[inline(always)]
    fn judge_known(&self, entry: &Source) -> Reason {
        let passing = match self.check_content(Reason::Admitted) {
            Ok(passing) => passing,
            Err(dropped) => return dropped,
        };
        let Some((kind, units)) = self.packet.charge else { return passing };
        let limit = self.source_limit(Standing::Known, kind);
        match take(budget_of(&entry.limits, kind), &limit, self.now, units) {
            Admission::Admitted => passing,
            Admission::Contended => Reason::Contended,
            Admission::Over => Reason::LimitSource,
        }
    }

    /// Everybody else: proven by the server's answers, or a stranger.
    #[inline(always)]
    fn judge_unknown(&self, limited: bool) -> (Standing, Reason) {
        let key = ProofKey { address: self.headers.source, service: self.packet.service as u64 };
        let proof = match self.state.proof(&key) {
            Some(proof) if proof.until.load() > self.now => Some(proof),
            _ => None,
        };
        let standing = match (limited, proof.is_some()) {
            (true, _) => Standing::Limited,
            (false, true) => Standing::Proven,
            (false, false) => Standing::Stranger,
        };
        let passing = match self.check_content(Reason::Admitted) {
            Ok(passing) => passing,
            Err(dropped) => return (standing, dropped),
        };
        let Some(proof) = proof else { return (standing, self.judge_stranger(standing, passing)) };
        let Some((kind, units)) = self.packet.charge else { return (standing, passing) };
        let limit = self.source_limit(standing, kind);
        let reason = match take(budget_of(&proof.limits, kind), &limit, self.now, units) {
            Admission::Admitted => passing,
            Admission::Contended => Reason::LimitContended,
            Admission::Over => Reason::LimitSource,
        };
        (standing, reason)
    }

    /// Strangers: own cells of the sketch, then their network's, then what all of them share.
    #[inline(always)]
    fn judge_stranger(&self, standing: Standing, passing: Reason) -> Reason {
        let learning = self.status.learning_until > self.now;
        let lacks_session = self.needs_session();
        if lacks_session && !learning {
            return Reason::StandingStranger;
        }
        let passing = if lacks_session { Reason::Learning } else { passing };
        let Some((kind, units)) = self.packet.charge else { return passing };
        // While the gate learns who holds a session, a stranger's media may be a regular's: it is held to the
        // limits of the proven, and to no shared budget.
        let benefit_of_doubt =
            learning && matches!(kind, Kind::Datagram) && matches!(standing, Standing::Stranger);
        let own = if benefit_of_doubt { Standing::Proven } else { standing };
        let key = SourceKey::of(self.headers.source);
        match self.take_sketched(key, Scope::Source, &self.source_limit(own, kind), kind, units) {
            Admission::Admitted if benefit_of_doubt => return passing,
            Admission::Admitted => {}
            Admission::Contended => return Reason::LimitContended,
            Admission::Over => return Reason::LimitSource,
        }
        let network = SourceKey::network_of(self.headers.source);
        let limit = limit_of(&self.settings.network, self.level, kind);
        match self.take_sketched(network, Scope::Network, &limit, kind, units) {
            Admission::Admitted => {}
            Admission::Contended => return Reason::LimitContended,
            Admission::Over => return Reason::LimitPrefix,
        }
        let limit = limit_of(&self.settings.service, self.level, kind);
        let Some(word) = self.state.budget(budget_index(self.packet.service, kind)) else { return passing };
        match take(word, &limit, self.now, units) {
            Admission::Admitted => passing,
            // Above the budget a SYN meets the kernel's SYN cookies, not a lottery.
            Admission::Contended | Admission::Over if matches!(kind, Kind::Syn) => Reason::SynCookie,
            Admission::Contended => Reason::LimitContended,
            Admission::Over => Reason::LimitService,
        }
    }

    /// Shape and user id: `Ok` with the reason to pass for, `Err` with the reason to drop for.
    #[inline(always)]
    fn check_content(&self, passing: Reason) -> Result<Reason, Reason> {
        let shape = match (self.headers.transport, &self.packet.tcp) {
            (Transport::Udp, _) => {
                shape::check_datagram(self.window, self.packet.role, Payload::of(self.headers))
            }
            (Transport::Tcp, Some(tcp)) => shape::check_segment(self.window, self.packet.role, tcp),
            (Transport::Tcp, None) => Shape::Breaks(Reason::ShapeHeader),
        };
        let passing = match shape {
            Shape::Fits => passing,
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

    #[inline(always)]
    fn take_sketched(&self, key: SourceKey, scope: Scope, limit: &Limit, kind: Kind, units: u64) -> Admission {
        let (first, second) = sketch_cells(self.status.seed, key.0, self.packet.service, kind, scope);
        match (self.state.sketch(first), self.state.sketch(second)) {
            (Some(first), Some(second)) => take_either(first, second, limit, self.now, units),
            _ => Admission::Admitted,
        }
    }

    #[inline(always)]
    fn source_limit(&self, standing: Standing, kind: Kind) -> Limit {
        match self.settings.source.get(self.level) {
            Some(standings) => match standings.get(standing as usize) {
                Some(kinds) => limit_at(kinds, kind),
                None => Limit::OFF,
            },
            None => Limit::OFF,
        }
    }
}

#[inline(always)]
const fn budget_of(limits: &[Word; KINDS], kind: Kind) -> &Word {
    match kind {
        Kind::Greeting => &limits[0],
        Kind::Datagram => &limits[1],
        Kind::Syn => &limits[2],
        Kind::Payload => &limits[3],
    }
}

#[inline(always)]
fn limit_of(limits: &[[Limit; KINDS]; LEVELS], level: usize, kind: Kind) -> Limit {
    match limits.get(level) {
        Some(kinds) => limit_at(kinds, kind),
        None => Limit::OFF,
    }
}

#[inline(always)]
const fn limit_at(kinds: &[Limit; KINDS], kind: Kind) -> Limit {
    match kind {
        Kind::Greeting => kinds[0],
        Kind::Datagram => kinds[1],
        Kind::Syn => kinds[2],
        Kind::Payload => kinds[3],
    }
}
