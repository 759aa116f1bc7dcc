//! UDP: to which address the server binds each user id, followed as the server does it (`teamtalk.md` c.3 to c.5).
//!
//! The server binds an id to whoever sends the first HELLO or KEEPALIVE for it, from any address, and keeps to that
//! address while the connection lasts; only the port may move. It never compares with the TCP address. So an id can
//! be taken before its owner says hello (`datagram.prebound`), be kept alive by others (`datagram.kept-alive`) and
//! be asked for (`datagram.scan`). What the server accepted is seen from its answers, which carry the client's
//! time: they also settle what was bound before anybody watched.
//!
//! Bounds: `REFUSED_MAX` datagrams that should have no answer are remembered, and `SCANNERS_MAX` addresses that
//! ask for others' ids.

use std::collections::VecDeque;

use floodwall_wire::Address;

use crate::{
    bounded::BoundedMap,
    time::{Span, Timestamp},
};

/// Requests remembered that the server should leave unanswered.
const REFUSED_MAX: usize = 256;
/// Addresses remembered for asking for ids that are not theirs.
const SCANNERS_MAX: usize = 1_024;
/// Different ids from which on asking is scanning; told again at each doubling.
const SCAN_IDS_MIN: u32 = 8;
/// A scan that pauses for longer is a new one.
const SCAN_PAUSE: Span = Span::from_secs(60);

const KIND_HELLO: u8 = 1;
const KIND_KEEPALIVE: u8 = 2;
const USER_IDS: usize = 4_096;

/// The fields of a datagram's header that bindings depend on (`teamtalk.md` c.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// What it carries, without the bit for the longer header.
    pub kind: u8,
    /// Who says so.
    pub user_id: u16,
    /// For which channel.
    pub channel: u16,
    /// The sender's clock, which an answer repeats.
    pub time: u32,
}

impl Header {
    /// Reads it; `None` for what is too short.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [kind, low, middle, high, time @ ..] = payload else {
            return None;
        };
        Some(Self {
            kind: kind & 0x7f,
            user_id: u16::from(*low) | u16::from(middle & 0x0f) << 8,
            channel: u16::from(middle >> 4) | u16::from(*high) << 4,
            time: u32::from_le_bytes(*time.first_chunk()?),
        })
    }

    /// Reads the hello of a TeamTalk 4 client (`teamtalk.md` a.10): two fixed bytes, seen in either order, the user id and
    /// six more bytes, whatever they are.
    pub fn parse_version_4_hello(payload: &[u8]) -> Option<Self> {
        match payload {
            [1, 2, low, high, _, _, _, _, _, _] | [2, 1, low, high, _, _, _, _, _, _] => {
                let user_id = u16::from_le_bytes([*low, *high]);
                (usize::from(user_id) < USER_IDS).then_some(Self {
                    kind: KIND_HELLO,
                    user_id,
                    channel: 0,
                    time: 0,
                })
            }
            _ => None,
        }
    }

    /// Whether it binds an id that is free: HELLO and KEEPALIVE.
    pub const fn binds(&self) -> bool {
        matches!(self.kind, KIND_HELLO | KIND_KEEPALIVE)
    }

    /// Whether it is what a client begins with.
    pub const fn is_hello(&self) -> bool {
        self.kind == KIND_HELLO
    }

    /// Whether it resets the time-out of the session.
    pub const fn keeps_alive(&self) -> bool {
        self.kind == KIND_KEEPALIVE
    }

    /// The kind's name in signals.
    pub const fn command(&self) -> &'static str {
        match self.kind {
            KIND_HELLO => "hello",
            KIND_KEEPALIVE => "keepalive",
            3 | 4 => "voice",
            5 | 6 => "video",
            7..=10 => "media",
            11..=22 => "desktop",
            _ => "unknown",
        }
    }
}

/// Reads the `udpaddr=` of a TeamTalk 4 server: `ip:port`, IPv6 in brackets; `None` for what is bound to nothing.
pub fn parse_udp_address(text: &[u8]) -> Option<(Address, u16)> {
    let (address, port) = std::str::from_utf8(text).ok()?.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let address: std::net::IpAddr = address.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    (port != 0 && !address.is_unspecified()).then_some((Address::from(address), port))
}

/// Which UDP address a user id belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Binding {
    /// From the start, where the connection's beginning was missed.
    Unknown,
    /// From the welcome line.
    Free,
    /// From the first HELLO or KEEPALIVE, until the connection ends.
    Held {
        /// Whose it is.
        address: Address,
        /// On which port it receives.
        port: u16,
    },
}

/// A request that by the server's own rules stays unanswered.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// From where.
    pub from: (Address, u16),
    /// What it said.
    pub header: Header,
}

/// The requests that should have no answer.
#[derive(Debug, Default)]
pub struct Unanswered {
    requests: VecDeque<Refused>,
}

impl Unanswered {
    /// Remembers one.
    pub fn push(&mut self, request: Refused) {
        if self.requests.len() >= REFUSED_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    /// It was answered after all.
    pub fn take(&mut self, to: (Address, u16), answer: &Header) -> Option<Refused> {
        let fits = |request: &Refused| {
            let same = request.header.kind == answer.kind && request.header.time == answer.time;
            same && request.from == to
        };
        let at = self.requests.iter().position(fits)?;
        self.requests.remove(at)
    }
}

/// Who asks for ids that are not theirs.
#[derive(Debug)]
pub struct Scans {
    by_address: BoundedMap<Address, Box<Scan>>,
}

#[derive(Debug)]
struct Scan {
    asked: [u64; USER_IDS / 64],
    ids: u32,
    told: u32,
    last: Timestamp,
}

impl Scans {
    /// None seen; `seed` keys the table.
    pub fn new(seed: u64) -> Self {
        Self { by_address: BoundedMap::new(SCANNERS_MAX, seed) }
    }

    /// An address asked for an id; the number of different ones, when it is worth telling.
    pub fn count(&mut self, address: Address, user_id: u16, now: Timestamp) -> Option<u32> {
        let scan = self.by_address.touch_or_insert(
            &address,
            now,
            || Box::new(Scan::new(now)),
            |_| true,
            |_, _| {},
        )?;
        if now.since(scan.last) > SCAN_PAUSE {
            **scan = Scan::new(now);
        }
        scan.last = now;
        let word = scan.asked.get_mut(usize::from(user_id) / 64)?;
        let bit = 1 << (user_id % 64);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        scan.ids = scan.ids.saturating_add(1);
        let enough = SCAN_IDS_MIN.max(scan.told.saturating_mul(2));
        if scan.ids < enough {
            return None;
        }
        scan.told = scan.ids;
        Some(scan.ids)
    }
}

impl Scan {
    const fn new(now: Timestamp) -> Self {
        Self { asked: [0; USER_IDS / 64], ids: 0, told: 0, last: now }
    }
}
