//! The gate: one packet in, one judgement out. [`judge`] reads in the order of the design's table.

use crate::{
    Address, Class, Reason, SourceKey, State, Verdict, Window,
    frame::{self, Fragment, Headers, TCP_HEADER_BYTES, TcpHeader, Transport, UDP_HEADER_BYTES, Unwalkable},
    limit::{Admission, Limit, take},
    lists::Treatment,
    shape::{self, Datagram, Payload, Shape},
    tables::{
        Decision, KINDS, Kind, LEVELS, NO_SERVICE, ProofKey, Role, SERVICES_MAX, STANDINGS, Scope,
        ServiceSettings, Source, Standing, Status, budget_index, service_flags, sketch_cells, source_flags,
        status_flags,
    },
    window::WINDOW_BYTES,
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

    /// Of a packet to nobody who is guarded.
    #[inline(always)]
    pub const fn unguarded(reason: Reason, bytes: u32) -> Self {
        Self { reason, service: NO_SERVICE, class: Class::UdpOther, standing: Standing::Stranger, bytes }
    }
}

/// Judges an arriving frame.
#[inline(always)]
pub fn judge<W: Window, S: State>(window: &W, state: &S) -> Judgement {
    match arrive(window, state) {
        Ok(arrival) => judge_arrival(window, state, &arrival),
        Err(unguarded) => unguarded,
    }
}

/// Judges an arriving frame whose headers have been walked.
#[inline(always)]
pub fn judge_walked<W: Window, S: State>(window: &W, state: &S, headers: &Headers) -> Judgement {
    match arrive_walked(window, state, headers) {
        Ok(arrival) => judge_arrival(window, state, &arrival),
        Err(unguarded) => unguarded,
    }
}

/// Step 1.
///
/// # Errors
/// What is not IP or not guarded is no error: it passes, unread and uncounted per source.
#[inline(always)]
pub fn arrive<W: Window, S: State>(window: &W, state: &S) -> Result<Arrival, Judgement> {
    match frame::walk(window) {
        Ok(headers) => arrive_walked(window, state, &headers),
        Err(Unwalkable::NotIp) => Err(Judgement::unguarded(Reason::NotIp, 0)),
        Err(Unwalkable::OtherTransport) => Err(Judgement::unguarded(Reason::Unguarded, 0)),
        Err(Unwalkable::LaterFragment) => Err(Judgement::unguarded(Reason::LaterFragment, 0)),
        Err(Unwalkable::Malformed) => Err(Judgement::unguarded(Reason::MalformedHeader, 0)),
    }
}

#[inline(always)]
fn arrive_walked<W: Window, S: State>(
    window: &W,
    state: &S,
    headers: &Headers,
) -> Result<Arrival, Judgement> {
    let status = state.status();
    let unguarded =
        Judgement::unguarded(Reason::Unguarded, headers.transport_offset + headers.transport_bytes);
    let port = state.port(status.generation, headers.transport, headers.destination_port);
    let (Some(service), Some(role)) = (port.service(), port.role()) else { return Err(unguarded) };
    if status.flags & status_flags::ANY_ADDRESS == 0 && !state.is_local(&headers.destination) {
        return Err(unguarded);
    }
    Ok(Arrival::new(window, headers, service, role, status.generation))
}

/// Steps 2 to 6.
///
/// The banned, and the datagrams of the known and the allowed, who are most of a flood and most of a quiet hour, are
/// settled here after one look-up; all others by [`settle`], which in the kernel is a call. A call's return costs there
/// as much as twenty comparisons (where returns go through a thunk that defeats their prediction), so on these ways
/// there is none but the look-up's own. Segments are few beside voice, and with them this would not fit a stack of 512
/// bytes.
#[inline(always)]
pub fn judge_arrival<W: Window, S: State>(window: &W, state: &S, arrival: &Arrival) -> Judgement {
    let (source, service, bytes) = (arrival.source, arrival.service(), arrival.end());
    // A key of one family never meets one of the other: what would is an impossible source.
    let entry = if source.is_impossible_source() { None } else { state.source(SourceKey::of(source)) };
    if let Some(entry) = entry
        && entry.flags & source_flags::MIXED == 0
    {
        let now = state.now();
        let listing = Listing::of(entry, now);
        // Apart, so that nothing of one need be kept for the other.
        if arrival.is_udp() {
            let packet = Packet::datagram(window, arrival).blurred(window);
            let class = packet.class;
            match listing {
                Listing::Banned(reason) => {
                    return Judgement { reason, service, class, standing: Standing::Stranger, bytes };
                }
                Listing::Holds(standing) => {
                    let contents = packet.check(window, state, arrival, now);
                    if let Some(case) = Case::open(window, state, arrival, &contents, now) {
                        let reason = case.decide(&Account { standing, budgets: Some(&entry.limits) });
                        return Judgement { reason, service, class, standing, bytes };
                    }
                }
                Listing::Limited | Listing::Nothing => {}
            }
        } else if let Listing::Banned(reason) = listing {
            let class = Packet::segment(window, arrival).class;
            return Judgement { reason, service, class, standing: Standing::Stranger, bytes };
        }
    }
    window.settle(state, arrival).judgement(arrival)
}

/// A packet that has arrived at a guarded port, as far as its headers tell.
///
/// All but the source is one number: a register where eight fields would be eight places of a stack of 512 bytes, and
/// the form in which it crosses a call in the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Who sent it.
    pub source: Address,
    packed: u64,
}

// Where the parts begin.
const DATAGRAM_BYTES: u32 = 16;
const TRANSPORT_OFFSET: u32 = 32;
const SERVICE: u32 = 46;
const ROLE: u32 = 50;
const GENERATION: u32 = 53;
const IS_UDP: u32 = 54;
const IS_FIRST: u32 = 55;
const NETWORK_OFFSET: u32 = 56;
/// Where, behind its reason, the bytes of a packet begin that is not guarded and so has no role.
const UNGUARDED_BYTES: u32 = 8;

impl Arrival {
    #[inline(always)]
    fn new<W: Window>(window: &W, headers: &Headers, service: u8, role: Role, generation: u32) -> Self {
        let packed = window.blur(headers.transport_bytes) as u64
            | (window.blur(headers.datagram_bytes) as u64) << DATAGRAM_BYTES
            | (window.blur(headers.transport_offset) as u64) << TRANSPORT_OFFSET
            | (service as u64) << SERVICE
            | (role as u64) << ROLE
            | (generation as u64 & 1) << GENERATION
            | (matches!(headers.transport, Transport::Udp) as u64) << IS_UDP
            | (matches!(headers.fragment, Fragment::First) as u64) << IS_FIRST
            | (window.blur(headers.network_offset) as u64) << NETWORK_OFFSET;
        Self { source: headers.source, packed: window.opaque(packed) }
    }

    /// The number that stands for a packet that is not guarded.
    #[inline(always)]
    pub const fn packed_unguarded(unguarded: &Judgement) -> u64 {
        unguarded.reason as u64 | (unguarded.bytes as u64) << UNGUARDED_BYTES
    }

    /// Back from source and number of a guarded packet.
    #[inline(always)]
    pub const fn from_parts(source: Address, packed: u64) -> Self {
        Self { source, packed }
    }

    /// All but the source.
    #[inline(always)]
    pub const fn packed(&self) -> u64 {
        self.packed
    }

    /// Back from the number, without the source.
    ///
    /// # Errors
    /// What the gate says of the packet if it is not guarded.
    #[inline(always)]
    pub const fn unpacked(packed: u64) -> Result<Self, Judgement> {
        if (packed >> ROLE) & 7 != 0 {
            return Ok(Self { source: Address { high: 0, low: 0 }, packed });
        }
        let reason = match Reason::from_number(packed as u8) {
            Some(reason) => reason,
            None => Reason::MalformedHeader,
        };
        Err(Judgement::unguarded(reason, (packed >> UNGUARDED_BYTES) as u32))
    }

    /// Where the IP packet ends in the frame.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.transport_offset() + self.transport_bytes()
    }

    /// Index of the service.
    #[inline(always)]
    pub const fn service(&self) -> u8 {
        (self.packed >> SERVICE) as u8 & (SERVICES_MAX as u8 - 1)
    }

    /// What is spoken there.
    #[inline(always)]
    fn role(&self) -> Role {
        Role::from_number((self.packed >> ROLE) as u8 & 7).unwrap_or(Role::Irc)
    }

    /// Rule set it is judged by, 0 or 1.
    #[inline(always)]
    const fn generation(&self) -> u32 {
        (self.packed >> GENERATION) as u32 & 1
    }

    #[inline(always)]
    const fn is_udp(&self) -> bool {
        (self.packed >> IS_UDP) & 1 != 0
    }

    /// Offset of the IP header in the frame.
    #[inline(always)]
    const fn network_offset(&self) -> u32 {
        (self.packed >> NETWORK_OFFSET) as u32
    }

    /// Offset of the TCP or UDP header in the frame, below [`WINDOW_BYTES`].
    #[inline(always)]
    const fn transport_offset(&self) -> u32 {
        (self.packed >> TRANSPORT_OFFSET) as u32 & (WINDOW_BYTES - 1)
    }

    /// Bytes of the IP packet from there on, at most 65,535.
    #[inline(always)]
    const fn transport_bytes(&self) -> u32 {
        self.packed as u32 & 0xffff
    }

    /// Where the payload of a datagram lies.
    #[inline(always)]
    const fn payload(&self) -> Payload {
        Payload {
            offset: self.transport_offset() + UDP_HEADER_BYTES,
            bytes: (self.packed >> DATAGRAM_BYTES) as u32 & 0xffff,
            whole: (self.packed >> IS_FIRST) & 1 == 0,
        }
    }
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
    /// With what was known before.
    #[inline(always)]
    pub const fn judgement(self, arrival: &Arrival) -> Judgement {
        let Self { class, standing, reason } = self;
        Judgement { reason, service: arrival.service(), class, standing, bytes: arrival.end() }
    }

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

/// Steps 2 to 6 for anybody; [`Reason::Unreadable`], which passes, if the service has no settings.
#[inline(always)]
pub fn settle<W: Window, S: State>(window: &W, state: &S, arrival: &Arrival) -> Settlement {
    let contents = window.read_contents(state, arrival);
    let class = contents.class;
    let (standing, reason) = match Case::open(window, state, arrival, &contents, state.now()) {
        Some(case) => case.settle(),
        None => (Standing::Stranger, Reason::Unreadable),
    };
    Settlement { class, standing, reason }
}

/// Step 4: what the packet's own bytes tell.
#[inline(always)]
pub fn read_contents<W: Window, S: State>(window: &W, state: &S, arrival: &Arrival) -> Contents {
    Packet::read(window, arrival).check(window, state, arrival, state.now())
}

/// What a packet's own bytes tell, and what that means for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Contents {
    /// What kind of packet it is.
    class: Class,
    /// What it is charged for.
    kind: Kind,
    /// How much of it, at most 65,535; 0 is free.
    units: u32,
    /// What it passes for, unless something else speaks against it, or is dropped for.
    reason: Reason,
}

impl Contents {
    /// As one number, the form in which it crosses a call in the kernel.
    #[inline(always)]
    pub const fn code(self) -> u64 {
        (self.class as u64) << 32
            | (self.kind as u64) << 24
            | (self.reason as u64) << 16
            | self.units as u64 & 0xffff
    }

    /// Back from the number.
    #[inline(always)]
    pub fn from_code(code: u64) -> Self {
        Self {
            class: Class::from_number((code >> 32) as u8).unwrap_or(Class::UdpOther),
            kind: Kind::from_number((code >> 24) as u8).unwrap_or(Kind::Datagram),
            reason: Reason::from_number((code >> 16) as u8).unwrap_or(Reason::Unreadable),
            units: code as u32 & 0xffff,
        }
    }
}

/// As [`settle`], for a packet whose source is read again.
#[inline(always)]
pub fn settle_packed<W: Window, S: State>(window: &W, state: &S, packed: u64) -> Settlement {
    const UNREADABLE: Settlement =
        Settlement { class: Class::UdpOther, standing: Standing::Stranger, reason: Reason::Unreadable };
    let Ok(arrival) = Arrival::unpacked(packed) else { return UNREADABLE };
    match frame::source(window, arrival.network_offset()) {
        Some(source) => settle(window, state, &Arrival { source, ..arrival }),
        None => UNREADABLE,
    }
}

/// A guarded packet, as far as its own bytes tell.
struct Packet {
    class: Class,
    user_id: u16,
    kind: Kind,
    units: u32,
    /// Zeros for UDP and for a segment without a complete header ([`Class::Fragment`]). No `Option`: LLVM would
    /// leave its payload undefined on one path, and the verifier refuses to move what was never written.
    tcp: TcpHeader,
}

impl Packet {
    #[inline(always)]
    fn read<W: Window>(window: &W, arrival: &Arrival) -> Self {
        let packet =
            if arrival.is_udp() { Self::datagram(window, arrival) } else { Self::segment(window, arrival) };
        packet.blurred(window)
    }

    #[inline(always)]
    fn datagram<W: Window>(window: &W, arrival: &Arrival) -> Self {
        let Datagram { class, user_id } = shape::classify_datagram(window, arrival.role(), arrival.payload());
        let kind = if class.is_greeting() { Kind::Greeting } else { Kind::Datagram };
        Self { class, user_id, kind, units: 1, tcp: TcpHeader::ABSENT }
    }

    #[inline(always)]
    fn segment<W: Window>(window: &W, arrival: &Arrival) -> Self {
        let (class, tcp) =
            match TcpHeader::read(window, arrival.transport_offset(), arrival.transport_bytes()) {
                Some(tcp) => (shape::classify_segment(&tcp), tcp),
                None => (Class::Fragment, TcpHeader::ABSENT),
            };
        let (kind, units) =
            if matches!(class, Class::TcpSyn) { (Kind::Syn, 1) } else { (Kind::Payload, tcp.payload_bytes) };
        Self { class, user_id: 0, kind, units, tcp }
    }

    /// The same packet; see [`Window::blur`].
    #[inline(always)]
    fn blurred<W: Window>(self, window: &W) -> Self {
        let class = Class::from_number(window.blur(self.class as u32) as u8).unwrap_or(Class::UdpOther);
        let kind = Kind::from_number(window.blur(self.kind as u32) as u8).unwrap_or(Kind::Datagram);
        Self { class, kind, ..self }
    }

    /// Shape and user id.
    #[inline(always)]
    fn check<W: Window, S: State>(&self, window: &W, state: &S, arrival: &Arrival, now: u64) -> Contents {
        let Self { class, kind, units, .. } = *self;
        let shape = if arrival.is_udp() {
            window.check_datagram(arrival.role(), arrival.payload())
        } else if matches!(class, Class::Fragment) {
            check_missing_header(window, arrival)
        } else {
            shape::check_segment(window, arrival.role(), &self.tcp)
        };
        let reason = match shape {
            Shape::Fits => self.check_user_id(state, arrival, now, Reason::Admitted),
            Shape::Unreadable => self.check_user_id(state, arrival, now, Reason::Unreadable),
            Shape::Breaks(reason) => reason,
        };
        Contents { class, kind, units, reason }
    }

    /// A user id that belongs to another live address is refused, as long as that is fresh knowledge.
    #[inline(always)]
    fn check_user_id<S: State>(&self, state: &S, arrival: &Arrival, now: u64, passing: Reason) -> Reason {
        if self.user_id == 0 {
            return passing;
        }
        match state.settings(arrival.generation(), arrival.service()) {
            Some(settings) if settings.flags & service_flags::REQUIRE_OWN_ID != 0 => {}
            _ => return passing,
        }
        let Some(user) = state.user(arrival.service(), self.user_id) else { return passing };
        let unbound = user.owner.high == 0 && user.owner.low == 0;
        if unbound || user.owner == arrival.source {
            return passing;
        }
        if state.status().heartbeat_until <= now { Reason::Stale } else { Reason::StandingForeign }
    }
}

/// A segment whose header is not all there: the sender's doing, unless the frame was cut short of what the packet says it has. Of that
/// nobody makes a segment, and whoever captured it may have done it.
#[inline(always)]
fn check_missing_header<W: Window>(window: &W, arrival: &Arrival) -> Shape {
    let is_cut = arrival.transport_bytes() >= TCP_HEADER_BYTES
        && window.read_u16(arrival.transport_offset() + TCP_HEADER_BYTES - 2).is_none();
    if is_cut { Shape::Unreadable } else { Shape::Breaks(Reason::ShapeHeader) }
}

/// The level for this packet's class of traffic; normal while the controller's heartbeat is stale.
#[inline(always)]
fn level_of(status: &Status, arrival: &Arrival, now: u64) -> u32 {
    if status.heartbeat_until <= now {
        return 0;
    }
    // The mask changes nothing, a service is below 16; `get` would be a comparison that the verifier forgets.
    let levels = status.levels[arrival.service() as usize & (SERVICES_MAX - 1)];
    let level = if arrival.is_udp() { levels } else { levels >> 8 } & 0xff;
    if level < LEVELS as u32 { level } else { 0 }
}

/// One guarded packet before the bench: what it is, what is known, what time it is.
struct Case<'a, W, S> {
    window: &'a W,
    state: &'a S,
    status: &'a Status,
    settings: &'a ServiceSettings,
    arrival: &'a Arrival,
    contents: &'a Contents,
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

/// What an entry says of its source.
enum Listing {
    /// Banned, for this reason.
    Banned(Reason),
    /// Allowed or known.
    Holds(Standing),
    /// Held to the limits of [`Standing::Limited`].
    Limited,
    /// Nothing that holds any longer.
    Nothing,
}

impl Listing {
    /// Allow and ban were settled when the entry was written: nothing need be weighed here.
    #[inline(always)]
    fn of(entry: &Source, now: u64) -> Self {
        let Decision { banned_until, limited_until, known_until, flags } = entry.read();
        if flags & source_flags::ALLOWED != 0 {
            return Self::Holds(Standing::Allowed);
        }
        if banned_until > now {
            let by_prefix = flags & source_flags::PREFIX_BAN != 0;
            return Self::Banned(if by_prefix { Reason::BanPrefix } else { Reason::BanAddress });
        }
        if limited_until > now {
            return Self::Limited;
        }
        if known_until > now { Self::Holds(Standing::Known) } else { Self::Nothing }
    }
}

/// There is one path through these steps and each is written once, for all standings: in the kernel every step is
/// inlined wherever it is called.
impl<'a, W: Window, S: State> Case<'a, W, S> {
    #[inline(always)]
    fn open(
        window: &'a W,
        state: &'a S,
        arrival: &'a Arrival,
        contents: &'a Contents,
        now: u64,
    ) -> Option<Self> {
        let settings = state.settings(arrival.generation(), arrival.service())?;
        let status = state.status();
        let level = level_of(status, arrival, now);
        Some(Self { window, state, status, settings, arrival, contents, level, now })
    }

    /// Steps 2 to 6.
    #[inline(always)]
    fn settle(&self) -> (Standing, Reason) {
        if self.arrival.source.is_impossible_source() {
            return (Standing::Stranger, Reason::ShapeAddress);
        }
        match self.find_account() {
            Ok(account) => {
                let account = account.blurred(self.window);
                (account.standing, self.decide(&account))
            }
            Err(banned) => (Standing::Stranger, banned),
        }
    }

    /// Steps 4 to 6, for whoever is not banned.
    #[inline(always)]
    fn decide(&self, account: &Account<'_>) -> Reason {
        if matches!(account.standing, Standing::Allowed) {
            return self.charge(account, Reason::Allowed);
        }
        let reason = blurred(self.window, self.contents.reason);
        match reason.verdict() {
            Verdict::Pass => self.charge(account, reason),
            Verdict::Drop => reason,
        }
    }

    /// One look-up by 8-byte key; a second by full address only where the entry says that addresses differ.
    #[inline(always)]
    fn find_source(&self) -> Option<&'a Source> {
        let entry = self.state.source(SourceKey::of(self.arrival.source))?;
        if entry.flags & source_flags::MIXED != 0
            && let Some(host) = self.state.host(&self.arrival.source)
        {
            return Some(host);
        }
        Some(entry)
    }

    /// Who the source is; `Err` with the reason to drop for if it is banned. Prefixes and lists are asked only without an
    /// entry, and only if there are any.
    #[inline(always)]
    fn find_account(&self) -> Result<Account<'a>, Reason> {
        if let Some(entry) = self.find_source() {
            return match Listing::of(entry, self.now) {
                Listing::Banned(reason) => Err(reason),
                Listing::Holds(standing) => Ok(Account { standing, budgets: Some(&entry.limits) }),
                Listing::Limited => Ok(self.find_unknown(true)),
                Listing::Nothing => Ok(self.find_unknown(false)),
            };
        }
        let mut treatment = None;
        if self.status.flags & status_flags::LISTS != 0 {
            treatment = self.state.listed(&self.arrival.source);
        }
        if self.status.flags & status_flags::PREFIXES != 0
            && let Some(prefix) = self.state.prefix(&self.arrival.source)
        {
            if prefix.flags & source_flags::ALLOWED != 0 {
                treatment = Some(Treatment::Allow);
            } else if prefix.banned_until > self.now {
                treatment = treatment.max(Some(Treatment::Ban));
            }
        }
        match treatment {
            Some(Treatment::Allow) => Ok(Account { standing: Standing::Allowed, budgets: None }),
            Some(Treatment::Ban) => Err(Reason::BanPrefix),
            Some(Treatment::Limit) => Ok(self.find_unknown(true)),
            None => Ok(self.find_unknown(false)),
        }
    }

    /// Everybody else: proven by the server's answers, or a stranger.
    #[inline(always)]
    fn find_unknown(&self, limited: bool) -> Account<'a> {
        let key = ProofKey { address: self.arrival.source, service: self.arrival.service() as u64 };
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
        let Contents { kind, units, .. } = *self.contents;
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
            pick(self.window, self.settings.source.as_flattened().as_flattened(), row, self.contents.kind);
        match (account.budgets, limit) {
            (Some(budgets), Some(limit)) => match pick(self.window, budgets, 0, self.contents.kind) {
                Some(word) => take(word, limit, self.now, u64::from(self.contents.units)),
                None => Admission::Admitted,
            },
            _ => self.take_sketched(SourceKey::of(self.arrival.source), Scope::Source, limit),
        }
    }

    /// What a stranger shares with its network, and then with all strangers.
    #[inline(always)]
    fn charge_shared(&self, passing: Reason) -> Reason {
        let (service, source, kind) = (self.arrival.service(), self.arrival.source, self.contents.kind);
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
        let (service, kind) = (self.arrival.service(), self.contents.kind);
        let (first, second) = sketch_cells(self.status.seed, key.0, service, kind, scope);
        let first = self.take_shared(self.state.sketch(first), limit);
        first.either(self.take_shared(self.state.sketch(second), limit))
    }

    #[inline(always)]
    fn take_shared(&self, word: Option<&Word>, limit: Option<&Limit>) -> Admission {
        match (word, limit) {
            (Some(word), Some(limit)) => {
                self.state.take(word, limit, self.now, u64::from(self.contents.units))
            }
            // Both tables are as large as their indices.
            _ => Admission::Admitted,
        }
    }

    /// Whether the packet is one that only an address with a session may send.
    #[inline(always)]
    fn needs_session(&self) -> bool {
        let required = self.settings.flags & service_flags::REQUIRE_SESSION != 0;
        if !required || !self.arrival.is_udp() {
            return false;
        }
        match self.arrival.role() {
            // TeamTalk clients connect by TCP first, always.
            Role::TeamTalk => true,
            // TeamSpeak clients begin with the handshake and a legacy command; what was cut before its type is
            // given the benefit of the doubt.
            Role::TeamSpeakVoice => matches!(self.contents.class, Class::UdpVoice | Class::UdpKeepalive),
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
