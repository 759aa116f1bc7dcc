//! The contract between the gate and user space: every key, value, capacity and map name.
//!
//! | table | map | written by | when full |
//! |---|---|---|---|
//! | `Status` | array, 1 | controller | fixed size |
//! | `ServiceSettings` | array, generations × services | controller | fixed size |
//! | ports | array, 1, of generations × transports × 65,536 | controller | fixed size |
//! | `LOCALS` | hash | controller | refused, counted and reported |
//! | `SOURCES` | array, found through `SOURCE_KEYS` (see [`crate::sources`]) | controller; gate writes the limit words | insertion refused, counted and reported: nothing is evicted |
//! | `SOURCE_KEYS` | array of buckets | controller | as `SOURCES` |
//! | `HOSTS` | hash by [`Address`] | as `SOURCES` | as `SOURCES` |
//! | `PREFIXES` | LPM trie by [`PrefixKey`] | controller | as `SOURCES` |
//! | `LISTS` | array of nodes (see [`crate::lists`]) | controller | other lists are refused, counted and reported: those before stay |
//! | `PROOFS` | LRU hash by [`ProofKey`] | watcher (insert), gate (limit words) | the longest unused goes, counted; its owner is a stranger until the server next answers it |
//! | `USERS` | array, services × 4,096 | controller | fixed size |
//! | `SKETCH` | array of words | gate | fixed size: strangers share cells |
//! | `BUDGETS` | array of words | gate | fixed size |
//! | `COUNTERS` | per-CPU array | gate, watcher | fixed size |
//! | `DEPARTED` | per-CPU array | watcher | fixed size |
//! | `FAULTS` | per-CPU array | both programs | fixed size |
//! | `MIRROR` | ring buffer | gate, watcher | record lost and counted in `FAULTS` |
//! | `OPAQUE` | LRU hash by [`FlowKey`] | controller | the longest unused goes, counted: its flow is mirrored until the controller cuts it again |
//! | `ALLOWANCES` | array of words | gate, watcher | fixed size: sources share cells |
//! | `CLOCK` | array, 1 | clock program | fixed size |
//!
//! A change of any layout here raises [`LAYOUT_VERSION`].

use crate::{
    Address,
    class::CLASSES,
    limit::Limit,
    reason::REASONS,
    word::{Word, load_shared},
};

/// Version of every layout in this module; a controller adopts pinned maps only of its own version.
pub const LAYOUT_VERSION: u32 = 6;

/// Services one wall can guard.
pub const SERVICES_MAX: usize = 16;
/// Levels of a service: normal, elevated, attack.
pub const LEVELS: usize = 3;
/// Buffers of the rule set: one in force, one being written.
pub const GENERATIONS: usize = 2;
/// TeamTalk user ids per service, and one to spare so that the index is a shift.
pub const USERS_PER_SERVICE: usize = 4096;
/// Default capacity of `SOURCES`: 100,000 bans and the known beside them.
pub const SOURCES_MAX: u32 = 131_072;
/// Default capacity of `HOSTS`, the IPv6 addresses that differ from their /64.
pub const HOSTS_MAX: u32 = 32_768;
/// Capacity of `PREFIXES`, those that rules and operators deal with.
pub const PREFIXES_MAX: u32 = 16_384;
/// Prefixes of lists, at most.
pub const LISTED_MAX: u32 = 500_000;
/// Nodes of an image of lists for which there is always room: half a megabyte, twice, for at least 8,000 prefixes, were they all
/// single IPv6 addresses, or 60,000 of IPv4. Who has more takes more memory when the gate is loaded.
pub const LIST_NODES_MIN: u32 = 8_192;
/// Default capacity of `PROOFS`.
pub const PROOFS_MAX: u32 = 65_536;
/// Default capacity of `LOCALS`.
pub const LOCALS_MAX: u32 = 1024;
/// Cells in one row of the sketch; two rows.
pub const SKETCH_COLUMNS: u32 = 32_768;
/// Rows of the sketch.
pub const SKETCH_ROWS: u32 = 2;
/// Default capacity of `OPAQUE`.
pub const OPAQUE_MAX: u32 = 16_384;
/// Bytes of the mirror ring.
pub const MIRROR_BYTES: u32 = 4 * 1024 * 1024;

/// What is limited. UDP is counted in datagrams, TCP in SYNs and payload bytes; never in frames, which
/// generic mode and GRO merge.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Kind {
    /// Datagrams that ask for service: HELLO, keepalive, handshake.
    Greeting = 0,
    /// All other datagrams.
    Datagram = 1,
    /// TCP segments with SYN.
    Syn = 2,
    /// TCP payload bytes.
    Payload = 3,
}

/// Number of [`Kind`]s.
pub const KINDS: usize = 4;

impl Kind {
    /// Every kind, in order of its number.
    pub const ALL: [Self; KINDS] = [Self::Greeting, Self::Datagram, Self::Syn, Self::Payload];

    /// The kind with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Greeting,
            1 => Self::Datagram,
            2 => Self::Syn,
            3 => Self::Payload,
            _ => return None,
        })
    }

    /// The name in rule files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Datagram => "datagram",
            Self::Syn => "syn",
            Self::Payload => "payload",
        }
    }
}

/// What the gate knows of a source, and so which limits it has.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Standing {
    /// Nothing.
    Stranger = 0,
    /// The server has answered it.
    Proven = 1,
    /// The controller knows it.
    Known = 2,
    /// A rule has limited it.
    Limited = 3,
    /// In an allow prefix.
    Allowed = 4,
}

/// Number of [`Standing`]s.
pub const STANDINGS: usize = 5;

impl Standing {
    /// Every standing, in order of its number.
    pub const ALL: [Self; STANDINGS] =
        [Self::Stranger, Self::Proven, Self::Known, Self::Limited, Self::Allowed];

    /// The standing with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stranger,
            1 => Self::Proven,
            2 => Self::Known,
            3 => Self::Limited,
            4 => Self::Allowed,
            _ => return None,
        })
    }

    /// The name in rule files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Proven => "proven",
            Self::Known => "known",
            Self::Limited => "limited",
            Self::Allowed => "allowed",
        }
    }
}

/// What is spoken at a guarded port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Role {
    /// TeamTalk, control on TCP and voice on UDP.
    TeamTalk = 1,
    /// IRC that may be plain, TLS or WebSocket.
    Irc = 2,
    /// IRC that is known to be plain text.
    IrcPlain = 3,
    /// TeamSpeak voice on UDP.
    TeamSpeakVoice = 4,
    /// TeamSpeak ServerQuery on TCP.
    TeamSpeakQuery = 5,
    /// TeamSpeak file transfer on TCP.
    TeamSpeakFiles = 6,
}

impl Role {
    /// The role with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::TeamTalk,
            2 => Self::Irc,
            3 => Self::IrcPlain,
            4 => Self::TeamSpeakVoice,
            5 => Self::TeamSpeakQuery,
            6 => Self::TeamSpeakFiles,
            _ => return None,
        })
    }
}

/// One entry of the port table: 0, or a service and what is spoken there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Port(pub u16);

impl Port {
    /// Not guarded.
    pub const UNGUARDED: Self = Self(0);

    /// A port of the service with this index.
    pub const fn guarded(service: u8, role: Role) -> Self {
        Self(((role as u16) << 8) | (service as u16 + 1))
    }

    /// Index of the service, if guarded.
    #[inline(always)]
    pub const fn service(self) -> Option<u8> {
        match self.0 & 0xff {
            0 => None,
            number => Some((number - 1) as u8),
        }
    }

    /// What is spoken there; `None` for an entry no version of this code writes.
    #[inline(always)]
    pub const fn role(self) -> Option<Role> {
        Role::from_number((self.0 >> 8) as u8)
    }
}

/// Ports of one generation: TCP first, then UDP.
pub const PORTS: usize = 2 * 65_536;

/// The ports of all generations, as the kernel holds them: one value.
#[derive(Clone, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct Ports(pub [[Port; PORTS]; GENERATIONS]);

impl Ports {
    /// Nothing guarded.
    pub const UNGUARDED: Self = Self([[Port::UNGUARDED; PORTS]; GENERATIONS]);

    /// Nothing guarded, as half a megabyte should be held.
    #[cfg(feature = "std")]
    pub fn unguarded() -> Box<Self> {
        Box::new(Self::UNGUARDED)
    }
}

/// What changes while a rule set stays: read once per packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Status {
    /// Rule set in force, 0 or 1.
    pub generation: u32,
    /// See [`status_flags`].
    pub flags: u32,
    /// Until then nothing is dropped for lack of standing (gate clock, ns).
    pub learning_until: u64,
    /// Until then the facts only the controller renews are fresh (gate clock, ns).
    pub heartbeat_until: u64,
    /// Seed of the sketch, random per start.
    pub seed: u64,
    /// Seed of the table of sources, random; may change only while that is empty. Unused in user space.
    pub sources_seed: u64,
    /// Nanoseconds per tick of the kernel's coarse clock; unused in user space.
    pub tick: u64,
    /// Level per service: UDP in the low byte, TCP in the next.
    pub levels: [u32; SERVICES_MAX],
    /// Up to two of the addresses in `LOCALS`, the host's main ones. The kernel's home compares with these before it
    /// asks the table, which costs more than all the rest of an early drop; unused in user space.
    pub main_locals: [Address; MAIN_LOCALS],
}

impl Status {
    /// What a table holds that nobody has written.
    pub const ZERO: Self = Self {
        generation: 0,
        flags: 0,
        learning_until: 0,
        heartbeat_until: 0,
        seed: 0,
        sources_seed: 0,
        tick: 0,
        levels: [0; SERVICES_MAX],
        main_locals: [Address { high: 0, low: 0 }; MAIN_LOCALS],
    };
}

/// Length of [`Status::main_locals`].
pub const MAIN_LOCALS: usize = 2;

/// Bits of [`Status::flags`].
pub mod status_flags {
    /// Guard the named ports at every address (replay), not only at those in `LOCALS`.
    pub const ANY_ADDRESS: u32 = 1;
    /// `PREFIXES` is not empty.
    pub const PREFIXES: u32 = 2;
    /// There are lists.
    pub const LISTS: u32 = 8;
    /// Judge and count, but drop nothing.
    pub const OBSERVE: u32 = 4;
}

/// The limits of one service in one rule set, by level.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct ServiceSettings {
    /// See [`service_flags`].
    pub flags: u64,
    /// How long an answer of the server proves an address, ns: twice the service's user time-out.
    pub proof_for: u64,
    /// Per source, by standing.
    pub source: [[[Limit; KINDS]; STANDINGS]; LEVELS],
    /// Shared by the strangers of one /24 or /48.
    pub network: [[Limit; KINDS]; LEVELS],
    /// Shared by all strangers of the service. For SYNs it marks where SYN cookies begin.
    pub service: [[Limit; KINDS]; LEVELS],
}

/// Bits of [`ServiceSettings::flags`].
pub mod service_flags {
    /// Datagrams are admitted only from addresses that hold a session.
    pub const REQUIRE_SESSION: u64 = 1;
    /// A user id bound to another live address is refused.
    pub const REQUIRE_OWN_ID: u64 = 2;
}

/// What the controller knows of a source. The gate reads it all and writes only the limit words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Source {
    /// Banned until then (gate clock, ns); 0 is not banned, `u64::MAX` without end.
    pub banned_until: u64,
    /// Held to the limits of [`Standing::Limited`] until then.
    pub limited_until: u64,
    /// Known until then.
    pub known_until: u64,
    /// See [`source_flags`].
    pub flags: u64,
    /// Budgets, by [`Kind`].
    pub limits: [Word; KINDS],
}

/// What an entry says, as it stood at one instant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    /// See [`Source::banned_until`].
    pub banned_until: u64,
    /// See [`Source::limited_until`].
    pub limited_until: u64,
    /// See [`Source::known_until`].
    pub known_until: u64,
    /// See [`source_flags`].
    pub flags: u64,
}

/// Attempts to read an entry that is being written. A write takes nanoseconds, and one entry's come seconds apart.
const READ_ATTEMPTS: u32 = 4;

impl Source {
    /// Reads what the entry says while it may be written.
    ///
    /// Who writes a word of it raises the version in the flags with it or after it. So between two readings of the same
    /// version at most one word has changed, and what was read is what stood before that or after it; and every state
    /// between two words of one change is one of what was or of what is (`kernel/src/sources.rs`).
    ///
    /// This rests on loads that are not reordered, as on x86-64. A processor that reorders them, as arm64, may read the
    /// version twice before it reads the words between, and then one packet, within the nanoseconds in which its own
    /// source's entry changes, may meet words of two instants: somebody whose ban is lifted and who becomes known at once
    /// may be judged a stranger by it, say. BPF has a load that acquires since Linux 6.15 only, and to make each address
    /// depend on the word read before would cost every packet on every machine more than a nanosecond. Nothing else here
    /// needs ordered loads: that an entry is whole when its key is found rests on where it is read depending on the key.
    #[inline(always)]
    pub fn read(&self) -> Decision {
        let mut flags = load_shared(&self.flags);
        let mut attempt = 1;
        loop {
            let decision = Decision {
                banned_until: load_shared(&self.banned_until),
                limited_until: load_shared(&self.limited_until),
                known_until: load_shared(&self.known_until),
                flags,
            };
            flags = load_shared(&self.flags);
            if flags == decision.flags || attempt == READ_ATTEMPTS {
                return decision;
            }
            attempt += 1;
        }
    }
}

/// Bits of [`Source::flags`].
pub mod source_flags {
    /// Addresses under this /64 have entries of their own in `HOSTS`.
    pub const MIXED: u64 = 1;
    /// In an allow prefix.
    pub const ALLOWED: u64 = 2;
    /// The ban is that of a prefix.
    pub const PREFIX_BAN: u64 = 4;
    /// One more with each word of the entry that is written while packets are judged: the upper half.
    pub const VERSION: u64 = 1 << 32;
}

/// Key of `PREFIXES`: the kernel's LPM trie wants the length first and the address in network order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct PrefixKey {
    /// Significant bits, 0 to 128 (IPv4 prefixes are 96 longer than written).
    pub bits: u32,
    /// Address, network order.
    pub address: [u32; 4],
}

impl PrefixKey {
    /// The key that looks an address up.
    #[inline(always)]
    pub const fn host(address: Address) -> Self {
        Self::new(address, 128)
    }

    /// The first address.
    pub const fn address(&self) -> Address {
        let [a, b, c, d] = self.address;
        Address {
            high: (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64,
            low: (u32::from_be(c) as u64) << 32 | u32::from_be(d) as u64,
        }
    }

    /// The key of a prefix of `bits` bits (of 128).
    #[inline(always)]
    pub const fn new(address: Address, bits: u32) -> Self {
        Self {
            bits,
            address: [
                ((address.high >> 32) as u32).to_be(),
                (address.high as u32).to_be(),
                ((address.low >> 32) as u32).to_be(),
                (address.low as u32).to_be(),
            ],
        }
    }
}

/// What the controller decided about a prefix.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Prefix {
    /// Banned until then; 0 is not banned.
    pub banned_until: u64,
    /// [`source_flags::ALLOWED`], or 0.
    pub flags: u64,
}

/// Key of `PROOFS`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct ProofKey {
    /// The client.
    pub address: Address,
    /// Index of the service that answered it.
    pub service: u64,
}

/// That the server has answered an address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Proof {
    /// Holds until then (gate clock, ns).
    pub until: Word,
    /// Budgets, by [`Kind`].
    pub limits: [Word; KINDS],
}

/// Key of `OPAQUE`: a connection the controller does not want to see more of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct FlowKey {
    /// The client.
    pub client: Address,
    /// The guarded address.
    pub server: Address,
    /// The client's port in the upper, the server's in the lower 16 bits.
    pub ports: u64,
}

impl FlowKey {
    /// The key of the connection between these.
    #[inline(always)]
    pub const fn new(client: Address, client_port: u16, server: Address, server_port: u16) -> Self {
        Self { client, server, ports: (client_port as u64) << 16 | server_port as u64 }
    }
}

/// The address a TeamTalk user id belongs to; the unspecified address for none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct User {
    /// Address of the TCP session with this user id.
    pub owner: Address,
}

/// One cell of the counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames up to the end of their IP packets; what is not walked so far counts with its linear part.
    pub bytes: u64,
}

/// Row of the counters for packets of no guarded service.
pub const NO_SERVICE: u8 = SERVICES_MAX as u8;
/// Cells of the counters: (services and none) × classes (rounded up) × reasons.
pub const COUNTERS: usize = (SERVICES_MAX + 1) * CLASS_COLUMNS * REASONS;
/// Class columns per service: [`CLASSES`] rounded up, so that the index is a shift.
pub const CLASS_COLUMNS: usize = CLASSES.next_power_of_two();

/// Index of a counter.
#[inline(always)]
pub const fn counter_index(service: u8, class: crate::Class, reason: crate::Reason) -> u32 {
    (service as u32 * CLASS_COLUMNS as u32 + class as u32) * REASONS as u32 + reason as u32
}

/// Cells of the counters of what departs: services × classes (rounded up).
pub const DEPARTED: usize = SERVICES_MAX * CLASS_COLUMNS;

/// Index of a counter of what departs.
#[inline(always)]
pub const fn departed_index(service: u8, class: crate::Class) -> u32 {
    service as u32 * CLASS_COLUMNS as u32 + class as u32
}

/// What can go wrong in the kernel home without touching a packet; the number is an index into `FAULTS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Fault {
    /// A chunk of an arriving packet found no room in the mirror.
    MirrorArriving = 0,
    /// A chunk of a departing packet found no room in the mirror.
    MirrorDeparting = 1,
    /// A packet to be mirrored could not be read back.
    MirrorUnreadable = 2,
    /// A proof could not be stored.
    ProofRefused = 3,
    /// A packet was above what the mirror shows of its source or kind.
    MirrorAllowance = 4,
}

/// Number of [`Fault`]s.
pub const FAULTS: usize = 5;

/// Cell of `FAULTS`, behind the faults, that counts proofs as they are stored: what the table does not hold of them has been
/// let go, which the kernel does not tell.
pub const PROOFS_STORED: u32 = FAULTS as u32;
/// Cells of `FAULTS`.
pub const FAULT_CELLS: u32 = FAULTS as u32 + 1;

impl Fault {
    /// Every fault, in order of its number.
    pub const ALL: [Self; FAULTS] = [
        Self::MirrorArriving,
        Self::MirrorDeparting,
        Self::MirrorUnreadable,
        Self::ProofRefused,
        Self::MirrorAllowance,
    ];

    /// The name in reports and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MirrorArriving => "mirror.arriving",
            Self::MirrorDeparting => "mirror.departing",
            Self::MirrorUnreadable => "mirror.unreadable",
            Self::ProofRefused => "proof.refused",
            Self::MirrorAllowance => "mirror.allowance",
        }
    }
}

/// Both kernel clocks at one instant: from two readings user space learns how long a tick is, and from one what
/// the gate clock says now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct ClockReading {
    /// Ticks of the coarse clock; times [`Status::tick`] this is the gate clock.
    pub ticks: u64,
    /// Monotonic clock, ns.
    pub nanoseconds: u64,
}

/// Scopes that share the sketch without sharing budgets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Scope {
    /// One source.
    Source = 0,
    /// The strangers of one network.
    Network = 1,
}

/// The two cells of the sketch in which a stranger's budget is held.
#[inline(always)]
pub const fn sketch_cells(seed: u64, key: u64, service: u8, kind: Kind, scope: Scope) -> (u32, u32) {
    // The finaliser of MurmurHash3: full avalanche in five instructions, keyed by a secret seed.
    let salt = (service as u64) << 16 | (kind as u64) << 8 | scope as u64;
    let mut mixed = key ^ seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    let first = mixed as u32 & (SKETCH_COLUMNS - 1);
    let second = (mixed >> 32) as u32 & (SKETCH_COLUMNS - 1);
    (first, SKETCH_COLUMNS + second)
}

/// Index of a service-wide budget.
#[inline(always)]
pub const fn budget_index(service: u8, kind: Kind) -> u32 {
    service as u32 * KINDS as u32 + kind as u32
}

/// Name of each map in the kernel (at most 15 bytes) and in the bpf file system.
pub mod names {
    /// Array of one [`super::Status`]: a section of the object, so that access to it is no look-up.
    pub const STATUS: &str = ".bss.STATUS";
    /// Array of [`super::ServiceSettings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Array of one block of [`super::Port`]s, the generations one after the other: a section, as [`STATUS`].
    pub const PORTS: &str = ".bss.PORTS";
    /// Hash of guarded addresses.
    pub const LOCALS: &str = "LOCALS";
    /// Array of [`super::Source`], one per slot of a bucket.
    pub const SOURCES: &str = "SOURCES";
    /// Array of [`crate::sources::Bucket`].
    pub const SOURCE_KEYS: &str = "SOURCE_KEYS";
    /// Read-only global of the object, a `u32`: number of buckets, a power of two, less one.
    pub const SOURCES_MASK: &str = "SOURCES_MASK";
    /// Hash of [`super::Source`] by full address.
    pub const HOSTS: &str = "HOSTS";
    /// LPM trie of [`super::Prefix`].
    pub const PREFIXES: &str = "PREFIXES";
    /// Array of [`crate::lists::Node`]: its front, and two images.
    pub const LISTS: &str = "LISTS";
    /// LRU hash of [`super::Proof`].
    pub const PROOFS: &str = "PROOFS";
    /// Array of [`super::User`].
    pub const USERS: &str = "USERS";
    /// Array of budgets.
    pub const SKETCH: &str = "SKETCH";
    /// Array of budgets.
    pub const BUDGETS: &str = "BUDGETS";
    /// Per-CPU array of [`super::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array of [`super::Counter`] for what departs.
    pub const DEPARTED: &str = "DEPARTED";
    /// Per-CPU array of one `u64` per [`super::Fault`], and [`super::PROOFS_STORED`].
    pub const FAULTS: &str = "FAULTS";
    /// Ring buffer of [`crate::mirror::Record`]s.
    pub const MIRROR: &str = "MIRROR";
    /// Per-CPU array in which a record of the mirror is put together; nobody else's.
    pub const CHUNKS: &str = "CHUNKS";
    /// LRU hash of a `u64` that is always 1, by [`super::FlowKey`].
    pub const OPAQUE: &str = "OPAQUE";
    /// Array of the mirror's budgets, see [`crate::mirror`].
    pub const ALLOWANCES: &str = "ALLOWANCES";
    /// Array of one [`super::ClockReading`], written when the clock program is run.
    pub const CLOCK: &str = "CLOCK";
    /// Read-only global of the object, a `u32`: 1 for an object loaded for tests.
    pub const TEST_CLOCK_ENABLED: &str = "TEST_CLOCK_ENABLED";
    /// Array of one `u64`, written only by an object loaded for tests: service, class, reason and standing of the
    /// last packet from the lowest byte on, and its bytes (for what departs: service, class, whether it proves, 1).
    pub const LAST_JUDGEMENT: &str = "LAST_JUDGEMENT";
    /// Array of the test clock: one `u64`, read only when the object was loaded for tests.
    pub const TEST_CLOCK: &str = "TEST_CLOCK";
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::size_of;

    #[test]
    fn layouts_have_no_padding_and_their_documented_size() {
        assert_eq!(size_of::<Status>(), 48 + 4 * SERVICES_MAX + 16 * MAIN_LOCALS);
        assert_eq!(size_of::<ServiceSettings>(), 16 + LEVELS * KINDS * (STANDINGS + 2) * 16);
        assert_eq!(size_of::<Source>(), 64);
        assert_eq!(size_of::<PrefixKey>(), 20);
        assert_eq!(size_of::<Prefix>(), 16);
        assert_eq!(size_of::<crate::lists::Node>(), 64);
        assert_eq!(size_of::<ProofKey>(), 24);
        assert_eq!(size_of::<Proof>(), 40);
        assert_eq!(size_of::<User>(), 16);
        assert_eq!(size_of::<Counter>(), 16);
        assert_eq!(size_of::<Port>(), 2);
        assert_eq!(size_of::<ClockReading>(), 16);
        assert_eq!(size_of::<FlowKey>(), 40);
    }

    #[test]
    fn standings_and_kinds_are_numbered_in_order() {
        for (number, standing) in Standing::ALL.into_iter().enumerate() {
            assert_eq!(standing as usize, number);
            assert_eq!(Standing::from_number(number as u8), Some(standing));
        }
        assert_eq!(Standing::from_number(STANDINGS as u8), None);
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(Kind::from_number(number as u8), Some(kind));
        }
    }

    #[test]
    fn ports_round_trip() {
        for service in 0..SERVICES_MAX as u8 {
            for role in [
                Role::TeamTalk,
                Role::Irc,
                Role::IrcPlain,
                Role::TeamSpeakVoice,
                Role::TeamSpeakQuery,
                Role::TeamSpeakFiles,
            ] {
                let port = Port::guarded(service, role);
                assert_eq!((port.service(), port.role()), (Some(service), Some(role)));
            }
        }
        assert_eq!(Port::UNGUARDED.service(), None);
    }

    #[test]
    fn sketch_cells_lie_in_their_rows_and_differ_by_scope() {
        let (one, other) = sketch_cells(7, 42, 0, Kind::Greeting, Scope::Source);
        assert!(one < SKETCH_COLUMNS && (SKETCH_COLUMNS..2 * SKETCH_COLUMNS).contains(&other));
        assert_ne!((one, other), sketch_cells(7, 42, 0, Kind::Greeting, Scope::Network));
        assert_ne!((one, other), sketch_cells(7, 42, 0, Kind::Datagram, Scope::Source));
        assert_ne!((one, other), sketch_cells(8, 42, 0, Kind::Greeting, Scope::Source));
    }
}
