//! What servers and clients say that no documentation has: words, parameters, numbers and packet kinds, with where they
//! occurred, how often, and first and last when. Kept only where somebody asks for it.
//!
//! Names come from the server's own lines, whose grammar they stand in, never values; a client's word counts only once the
//! server took it, so that a password typed in the wrong place is not kept. Bound: `ENTRIES_MAX` entries; beyond it new ones are
//! not kept, which is counted.

use std::collections::{BTreeMap, btree_map};

use crate::{text::Text, time::Timestamp};

/// Different entries kept.
const ENTRIES_MAX: usize = 4_096;
/// No protocol has longer words.
const NAME_BYTES_MAX: usize = 40;

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Sort {
    /// The first word of a server's line.
    Event,
    /// The first word of a client's line that the server took.
    Command,
    /// The name of a parameter.
    Parameter,
    /// A reply or error number.
    Number,
    /// The kind of a datagram.
    Datagram,
}

impl Sort {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Parameter => "parameter",
            Self::Number => "number",
            Self::Datagram => "datagram",
        }
    }
}

/// One thing that is not documented.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Index of the service.
    pub service: u8,
    /// What kind of thing.
    pub sort: Sort,
    /// Its name.
    pub name: Text,
    /// The word of the line it stood in; empty where it is that word, or a datagram.
    pub within: Text,
}

/// How often and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// How often.
    pub count: u64,
    /// First.
    pub first: Timestamp,
    /// Last.
    pub last: Timestamp,
}

/// Everything met that is not documented.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<Key, Entry>,
    refused: u64,
}

impl Catalogue {
    /// Takes note of one occurrence. What does not look like a word of a protocol is passed over.
    pub fn meet(&mut self, at: Timestamp, service: u8, sort: Sort, name: &[u8], within: &[u8]) {
        if !is_word(name) || !(within.is_empty() || is_word(within)) {
            return;
        }
        let key = Key { service, sort, name: Text::new(name), within: Text::new(within) };
        let has_room = self.entries.len() < ENTRIES_MAX;
        match self.entries.entry(key) {
            btree_map::Entry::Occupied(mut held) => {
                let entry = held.get_mut();
                entry.count = entry.count.saturating_add(1);
                entry.last = entry.last.max(at);
            }
            btree_map::Entry::Vacant(place) if has_room => {
                place.insert(Entry { count: 1, first: at, last: at });
            }
            btree_map::Entry::Vacant(_) => self.refused = self.refused.saturating_add(1),
        }
    }

    /// All of it, by service, sort and name.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// Occurrences of what was not kept for lack of room.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

fn is_word(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occurrences_are_counted_and_only_words_are_kept() {
        let mut catalogue = Catalogue::default();
        for second in 1..=3 {
            catalogue.meet(Timestamp::from_secs(second), 0, Sort::Event, b"newevent", b"");
        }
        catalogue.meet(Timestamp::from_secs(2), 0, Sort::Parameter, b"colour", b"adduser");
        for name in [&b"a b"[..], b"", b"\x1b[2J", &[b'x'; 50]] {
            catalogue.meet(Timestamp::from_secs(2), 0, Sort::Event, name, b"");
        }
        let entries: Vec<_> =
            catalogue.entries().map(|(key, entry)| (key.name.as_str(), entry.count)).collect();
        assert_eq!(entries, [("newevent", 3), ("colour", 1)]);
        let (_, first) = catalogue.entries().next().unwrap();
        assert_eq!((first.first, first.last), (Timestamp::from_secs(1), Timestamp::from_secs(3)));
    }

    #[test]
    fn a_full_catalogue_counts_what_it_refuses() {
        let mut catalogue = Catalogue::default();
        for number in 0..ENTRIES_MAX + 9 {
            let name = format!("e{number}");
            catalogue.meet(Timestamp::from_secs(1), 0, Sort::Event, name.as_bytes(), b"");
        }
        assert_eq!((catalogue.entries().count(), catalogue.refused()), (ENTRIES_MAX, 9));
    }
}
