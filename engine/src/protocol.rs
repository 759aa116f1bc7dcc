//! Dissectors: bytes of one connection in, signals out.
//!
//! A dissector sees each side's bytes in order, at most once, and only such client bytes as the server has
//! acknowledged. Missed bytes are an input of their own: it forgets the line it was in and goes on at the
//! next. It holds bounded state, never fails and never panics; what it cannot read is itself a signal.
//!
//! A new protocol is a folder here with the shape of `teamtalk`: `message.rs` (bytes to a borrowed structure,
//! total), `session.rs` (one connection), `server.rs` (what all connections of one service share).

use std::hash::{BuildHasher, Hasher};

use floodwall_wire::Address;
use foldhash::quality::FixedState;

use crate::{
    catalogue::{Catalogue, Sort},
    signal::{Content, Detail, FlowId, Signal, SignalKind},
    time::{Span, Timestamp},
};

mod breadth;
pub mod foreign;
pub mod irc;
pub mod lines;
pub mod log;
pub mod pending;
pub mod teamspeak;
pub mod teamtalk;
pub mod tls;

/// The protocols that are understood.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// IRC, clients.
    Irc,
    /// TeamSpeak 3.
    TeamSpeak,
    /// TeamTalk 5.
    TeamTalk,
}

impl Protocol {
    /// Every protocol, alphabetically.
    pub const ALL: [Self; 3] = [Self::Irc, Self::TeamSpeak, Self::TeamTalk];

    /// The name in configuration, rule files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Irc => "irc",
            Self::TeamSpeak => "teamspeak",
            Self::TeamTalk => "teamtalk",
        }
    }

    /// The protocol with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }
}

/// Which end of a connection sent something.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Side {
    /// The end that connected.
    Client,
    /// The guarded end.
    Server,
}

/// The connection a dissector is called for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// Its number.
    pub id: FlowId,
    /// Index of the service.
    pub service: u8,
    /// The client's address.
    pub client: Address,
    /// The client's port.
    pub client_port: u16,
    /// The server's address.
    pub server: Address,
    /// The server's port.
    pub server_port: u16,
    /// When it was first seen.
    pub opened: Timestamp,
    /// Whether its beginning was missed.
    pub midway: bool,
}

/// What a dissector learns besides signals: facts that others act on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// A TeamTalk user id belongs to this connection's address, until the connection ends.
    UserBound {
        /// The id.
        user_id: u16,
    },
    /// A TeamTalk user id is free again.
    UserFreed {
        /// The id.
        user_id: u16,
    },
}

/// What one call of a dissector produced, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// What happened.
    pub signals: Vec<Signal>,
    /// What was learnt.
    pub facts: Vec<(u8, Address, Fact)>,
    /// What no documentation has, where somebody asks for it.
    pub catalogue: Option<Catalogue>,
}

impl Output {
    /// Whether nothing was produced.
    pub const fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.facts.is_empty()
    }
}

/// One call's surroundings.
#[derive(Debug)]
pub struct Context<'a> {
    /// Packet time.
    pub at: Timestamp,
    /// The connection.
    pub connection: &'a Connection,
    /// Key for content hashes, random per start.
    pub seed: u64,
    /// Where signals and facts go.
    pub output: &'a mut Output,
}

impl Context<'_> {
    /// Reports something the client of this connection did.
    pub fn signal(&mut self, kind: SignalKind, detail: Detail) {
        self.output.signals.push(Signal {
            kind,
            at: self.at,
            service: self.connection.service,
            address: self.connection.client,
            flow: Some(self.connection.id),
            detail,
        });
    }

    /// Passes a fact on.
    pub fn fact(&mut self, fact: Fact) {
        self.output.facts.push((self.connection.service, self.connection.client, fact));
    }

    /// Whether somebody asks for what is not documented: only then it is worth looking for.
    pub const fn catalogues(&self) -> bool {
        self.output.catalogue.is_some()
    }

    /// Takes note of something that is not documented.
    pub fn meet(&mut self, sort: Sort, name: &[u8], within: &[u8]) {
        if let Some(catalogue) = &mut self.output.catalogue {
            catalogue.meet(self.at, self.connection.service, sort, name, within);
        }
    }

    /// Keyed hashes of a message's content, see [`hash_content`].
    pub fn hash_content(&self, content: &[u8]) -> Content {
        hash_content(self.seed, content)
    }

    /// Keyed hash of something as it is.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    fn hasher(&self) -> impl Hasher {
        keyed(self.seed)
    }
}

fn keyed(seed: u64) -> impl Hasher {
    FixedState::with_seed(seed).build_hasher()
}

/// Keyed hashes of a message's content: as it is; of the site that it names; of its letters, if it has any; and of what is alike.
/// Letter case, figures, marks, blanks and colours are what drones make their texts different by, and a word or two of nonsense:
/// where five pairs of words follow each other or more, alike is what has the same smallest hash of a pair, which texts share as
/// often as they share their words (Broder, "On the resemblance and containment of documents", 1997).
pub fn hash_content(seed: u64, content: &[u8]) -> Content {
    let hash = |bytes: &[u8]| {
        let mut hasher = keyed(seed);
        hasher.write(bytes);
        hasher.finish()
    };
    let exact = hash(content);
    let site = named_host(content).map(|host| {
        let host = host.to_ascii_lowercase();
        hash(host.strip_prefix(b"www.").unwrap_or(&host))
    });
    // The letters of each word, and a blank after it.
    let mut words: Vec<u8> = Vec::with_capacity(content.len().saturating_add(1));
    let (mut pairs, mut smallest) = (0_usize, u64::MAX);
    let mut before = None;
    for word in content.split(u8::is_ascii_whitespace) {
        let start = words.len();
        words.extend(word.iter().filter(|byte| is_letter(byte)).map(u8::to_ascii_lowercase));
        if words.len() == start {
            continue;
        }
        if let Some(pair) = before.and_then(|before: usize| words.get(before..)) {
            smallest = smallest.min(hash(pair));
            pairs = pairs.saturating_add(1);
        }
        before = Some(start);
        words.push(b' ');
    }
    if before.is_none() {
        return Content { site, ..Content::from(exact) };
    }
    words.retain(|byte| *byte != b' ');
    let letters = hash(&words);
    let alike = if pairs >= ALIKE_PAIRS { smallest } else { letters };
    Content { alike, letters, exact, site }
}

/// Pairs of words that a text must have to be taken for one that is only like it: of fewer, any two say too little.
const ALIKE_PAIRS: usize = 5;

const fn is_letter(byte: &u8) -> bool {
    byte.is_ascii_alphabetic() || !byte.is_ascii()
}

/// A place that a connection takes and makes no use of.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldPlace {
    told_at: Option<Timestamp>,
}

impl HeldPlace {
    /// How often it is told that it is held still: whoever counts different connections of the last minute or two has all
    /// that are held now.
    const AGAIN: Span = Span::from_secs(60);

    /// Nothing told yet.
    pub const fn new() -> Self {
        Self { told_at: None }
    }

    /// Whether it is to be told now: it has been held for that long, and was not told within the last minute.
    pub fn is_due(&mut self, now: Timestamp, held: Span, patience: Span) -> bool {
        let is_due = held >= patience && self.told_at.is_none_or(|at| now.since(at) >= Self::AGAIN);
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }
}

/// Who is written to so soon after they came is greeted: bots that do so write to one after the other when many come at once.
pub const GREETED_WITHIN: Span = Span::from_secs(5);
/// The reason of a message to somebody who has just come.
pub const GREETING: &str = "greeting";
/// The reason of a message that names a site.
pub const LINK: &str = "link";

/// The host that a text names first, of a site or an address of the web: `http://…`, `www.…`, `evil.example`.
pub fn named_host(text: &[u8]) -> Option<&[u8]> {
    text.split(u8::is_ascii_whitespace).find_map(|word| {
        let scheme = word.windows(3).position(|three| three == b"://");
        let rest = scheme.and_then(|at| word.get(at.saturating_add(3)..)).unwrap_or(word);
        let host = rest.split(|byte| matches!(byte, b'/' | b':' | b'?')).next().unwrap_or_default();
        (scheme.is_some() || is_host(host)).then_some(host)
    })
}

/// Names with dots between them, the last of letters alone.
fn is_host(host: &[u8]) -> bool {
    let mut labels = host.rsplit(|byte| *byte == b'.');
    let last = labels.next().unwrap_or_default();
    let is_name = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let mut count = 0_usize;
    let all_names = labels.all(|label| {
        count = count.saturating_add(1);
        is_name(label)
    });
    count > 0 && all_names && last.len() >= 2 && last.iter().all(u8::is_ascii_alphabetic)
}

/// Who leaves sooner, without a word of either side, had nothing to wait for: clients that a server keeps waiting that hangs give up
/// after ten seconds.
pub const GIVEN_UP_AFTER: Span = Span::from_secs(5);
/// How long somebody who has logged in may be in no channel and say nothing before it is told that they only take a place.
pub const IDLE_PATIENCE: Span = Span::from_secs(60);

/// Whether a connection is worth following further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Go on.
    Following,
    /// What comes cannot or need not be read: a file transfer, TLS after the handshake.
    Opaque,
}

/// A reader of one connection.
pub trait Dissector {
    /// What all connections of one service share.
    type Server;

    /// Takes the next bytes of one side.
    fn on_bytes(
        &mut self,
        side: Side,
        bytes: &[u8],
        server: &mut Self::Server,
        context: &mut Context<'_>,
    ) -> Progress;

    /// Takes note that `missed` bytes of one side were not seen.
    fn on_gap(&mut self, side: Side, missed: u64, server: &mut Self::Server, context: &mut Context<'_>);

    /// The connection is open still; called now and then, however quiet it is.
    fn on_passing_time(&mut self, context: &mut Context<'_>);

    /// The connection is over; called once, last.
    fn on_close(&mut self, server: &mut Self::Server, context: &mut Context<'_>);

    /// Whether somebody is logged in on it: such connections are the last to be let go when memory is short.
    fn is_logged_in(&self) -> bool;

    /// Bytes of heap held.
    fn held_bytes(&self) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_the_same_letters_are_one() {
        let hash = |text: &str| hash_content(7, text.as_bytes()).alike;
        assert_eq!(hash("join evil.example now [7919]"), hash("JOIN evil.example, now! \u{3}04 15838"));
        let content = |text: &str| hash_content(7, text.as_bytes());
        let (one, other) = (content("this is message number 7"), content("this is message number 8"));
        assert_eq!(one.letters, other.letters);
        assert_ne!(one.exact, other.exact);
        assert_ne!(hash("join evil.example now"), hash("join good.example now"));
        assert_ne!(hash("12345"), hash("12346"), "there is nothing else to tell them apart");
        assert_ne!(hash("привет"), hash("пока"));
    }

    #[test]
    fn long_texts_that_share_their_words_mostly_share_a_hash() {
        let hash = |text: &str| hash_content(7, text.as_bytes()).alike;
        let nonsense = |number: u32| {
            [0, 5, 10].map(|shift| char::from(b'a' + (number >> shift) as u8 % 26)).iter().collect::<String>()
        };
        let most = |text: &dyn Fn(&str) -> String| {
            let mut counts = std::collections::BTreeMap::new();
            (0..200).for_each(|number| *counts.entry(hash(&text(&nonsense(number * 97)))).or_insert(0) += 1);
            counts.into_values().max().unwrap_or(0)
        };
        assert!(most(&|word| format!("visit us now for cheap places at evil example {word}")) >= 150);
        assert!(most(&|word| format!("{word} visit us now for cheap places at evil example")) >= 150);
        assert_eq!(most(&|word| format!("{word}a {word}b {word}c {word}d {word}e {word}f {word}g")), 1);
    }
}
