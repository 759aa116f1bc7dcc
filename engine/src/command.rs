//! Commands: what the engine wants done. The shell carries them out; the engine never waits for it.

use std::{fmt, sync::Arc};

use floodwall_wire::Address;

use crate::{
    rule::{Level, RuleId, evaluate::Subject},
    signal::{EvidenceClass, FlowId, SignalKind},
    stream::FlowKey,
    time::{Span, Timestamp},
};

/// An address with the number of leading bits that count, of 128; IPv4 prefixes are 96 longer than written.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    address: Address,
    bits: u8,
}

impl Prefix {
    /// One address.
    pub const fn host(address: Address) -> Self {
        Self { address, bits: 128 }
    }

    /// The /64 an IPv6 address lies in.
    pub const fn network64(address: Address) -> Self {
        Self { address: Address::from_v6(address.high, 0), bits: 64 }
    }

    /// The first `bits` bits of an address, of 128; an IPv4 prefix is 96 longer than written.
    pub const fn new(address: Address, bits: u8) -> Self {
        let bits = if bits > 128 { 128 } else { bits };
        let whole = (address.high as u128) << 64 | address.low as u128;
        let kept = match u128::MAX.checked_shl(128_u32.saturating_sub(bits as u32)) {
            Some(mask) => whole & mask,
            None => 0,
        };
        Self { address: Address { high: (kept >> 64) as u64, low: kept as u64 }, bits }
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Address) -> bool {
        Self::new(address, self.bits).address == self.address
    }

    /// The first address.
    pub const fn address(self) -> Address {
        self.address
    }

    /// Leading bits that count, of 128.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether it is one address alone.
    pub const fn is_host(self) -> bool {
        self.bits == 128
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = if self.address.is_v4() { self.bits.saturating_sub(96) } else { self.bits };
        write!(f, "{}/{written}", self.address)
    }
}

/// Why something was done: enough to explain it in full sentences.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// Which rule.
    pub rule: RuleId,
    /// What the rule is for.
    pub why: Arc<str>,
    /// Whom the rule counted by.
    pub subject: Subject,
    /// Whose signal reached the limit.
    pub offender: Address,
    /// When.
    pub at: Timestamp,
    /// How many there were.
    pub count: u32,
    /// How many are too many.
    pub limit: u32,
    /// In how much time.
    pub within: Span,
    /// The last few signals, redacted.
    pub evidence: Vec<String>,
}

/// One thing to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Drop everything from there.
    Ban {
        /// From where.
        subject: Prefix,
        /// Until when.
        until: Timestamp,
        /// Why.
        explanation: Explanation,
    },
    /// Drop nothing from there any longer.
    Unban {
        /// From where.
        subject: Prefix,
    },
    /// Hold an address to the tightest limits.
    Limit {
        /// Which.
        address: Address,
        /// Until when.
        until: Timestamp,
        /// Why.
        explanation: Explanation,
    },
    /// Limit an address no longer.
    Release {
        /// Which.
        address: Address,
    },
    /// Cut one connection.
    Reset {
        /// Whose.
        address: Address,
        /// Which.
        flow: FlowId,
        /// Why.
        explanation: Explanation,
    },
    /// Say so.
    Note {
        /// Whom it concerns, if one address.
        address: Option<Address>,
        /// Where to send word.
        notify: Vec<Box<str>>,
        /// Why.
        explanation: Explanation,
    },
    /// Serve an address first.
    Know {
        /// Which.
        address: Address,
        /// Until when; [`Timestamp::EPOCH`]: it is nobody's that is known after all.
        until: Timestamp,
        /// By what.
        by: Merit,
    },
    /// Show no more payload of a connection: it cannot be read.
    Ignore {
        /// Which.
        flow: FlowKey,
    },
    /// Show a connection again: it is over, and another may begin between the same ports.
    Follow {
        /// Which.
        flow: FlowKey,
    },
    /// A TeamTalk user id belongs to an address now.
    BindUser {
        /// Index of the service.
        service: u8,
        /// The id.
        user_id: u16,
        /// Its owner.
        owner: Address,
    },
    /// A TeamTalk user id is free.
    FreeUser {
        /// Index of the service.
        service: u8,
        /// The id.
        user_id: u16,
    },
    /// A service's level changed.
    SetLevel {
        /// Index of the service.
        service: u8,
        /// Which class of traffic.
        front: Front,
        /// How alarmed.
        level: Level,
        /// When.
        at: Timestamp,
        /// Why, if a rule raised it.
        explanation: Option<Explanation>,
    },
}

/// What makes an address known.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Merit {
    /// A login with a password of its own.
    Login,
    /// Time spent where logins cannot be read; see [`tenure`](crate::tenure).
    Tenure,
}

impl Merit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Login, Self::Tenure];

    /// The name in reports and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Tenure => "tenure",
        }
    }

    /// The merit with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|merit| merit.as_str() == name)
    }
}

/// A class of traffic that has a level of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Front {
    /// Datagrams.
    Udp,
    /// Connections and what is said on them.
    Tcp,
}

impl Front {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    /// The class of traffic a signal is of.
    pub const fn of(kind: SignalKind) -> Self {
        match kind.evidence() {
            EvidenceClass::Spoofable if !matches!(kind, SignalKind::ConnectionAbandoned) => Self::Udp,
            EvidenceClass::Spoofable | EvidenceClass::Acknowledged => Self::Tcp,
        }
    }

    /// The name in reports and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The class with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|front| front.as_str() == name)
    }
}
