//! A map that cannot grow beyond its capacity and forgets what was longest untouched.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash},
};

use foldhash::fast::FixedState;
use hashbrown::hash_table::{Entry, HashTable};

use crate::time::Timestamp;

/// How many entries are looked at to find one that may go, before an insertion is refused.
const EVICTION_ATTEMPTS: usize = 64;

/// A hash map with a capacity. Its hash is keyed with the engine's seed, which is random in production: who does not know
/// it cannot work out colliding keys beforehand. foldhash is no cryptographic hash, so whoever could time us to the
/// nanosecond might still search for some; the capacity bounds what that would be worth.
///
/// Age is approximate: an entry touched since it joined the queue goes to the back of it once more.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    entries: HashTable<Held<K, V>>,
    hasher: FixedState,
    queue: VecDeque<(K, Timestamp)>,
    capacity: usize,
    evicted: u64,
    refused: u64,
}

#[derive(Debug)]
struct Held<K, V> {
    key: K,
    value: V,
    touched: Timestamp,
}

impl<K: Clone + Eq + Hash, V> BoundedMap<K, V> {
    /// An empty map of at most `capacity` entries.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            entries: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            queue: VecDeque::new(),
            capacity,
            evicted: 0,
            refused: 0,
        }
    }

    /// The value of `key`, without touching it.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.held(key).map(|held| &held.value)
    }

    fn held(&self, key: &K) -> Option<&Held<K, V>> {
        self.entries.find(self.hasher.hash_one(key), |held| held.key == *key)
    }

    fn held_mut(&mut self, key: &K) -> Option<&mut Held<K, V>> {
        self.entries.find_mut(self.hasher.hash_one(key), |held| held.key == *key)
    }

    /// The value of `key`, to be changed without touching it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.held_mut(key).map(|held| &mut held.value)
    }

    /// The value of `key`, touched at `now`.
    pub fn touch(&mut self, key: &K, now: Timestamp) -> Option<&mut V> {
        let held = self.held_mut(key)?;
        held.touched = now;
        Some(&mut held.value)
    }

    /// The value of `key`, made by `make` if absent, touched at `now`.
    ///
    /// A full map lets the entry longest untouched go for which `may_go` holds, handing it to `gone`. `None`
    /// when none of those looked at may go.
    pub fn touch_or_insert(
        &mut self,
        key: &K,
        now: Timestamp,
        make: impl FnOnce() -> V,
        may_go: impl Fn(&V) -> bool,
        gone: impl FnOnce(K, V),
    ) -> Option<&mut V> {
        if self.entries.len() >= self.capacity && self.held(key).is_none() {
            match self.evict(may_go) {
                Some((old_key, old)) => gone(old_key, old),
                None => {
                    self.refused = self.refused.saturating_add(1);
                    return None;
                }
            }
        }
        self.compact_queue();
        let Self { entries, hasher, queue, .. } = self;
        let hash = hasher.hash_one(key);
        let held = match entries.entry(hash, |held| held.key == *key, |held| hasher.hash_one(&held.key)) {
            Entry::Occupied(entry) => {
                let held = entry.into_mut();
                held.touched = now;
                held
            }
            Entry::Vacant(entry) => {
                queue.push_back((key.clone(), now));
                entry.insert(Held { key: key.clone(), value: make(), touched: now }).into_mut()
            }
        };
        Some(&mut held.value)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let entry = self.entries.find_entry(hash, |held| held.key == *key).ok()?;
        Some(entry.remove().0.value)
    }

    /// Takes out at most one entry that is `expired`, looking at the oldest `looks` of the queue.
    pub fn expire_one(&mut self, looks: usize, expired: impl Fn(&V, Timestamp) -> bool) -> Option<(K, V)> {
        for _ in 0..looks {
            let (key, joined) = self.queue.pop_front()?;
            let Some(held) = self.held(&key) else {
                continue;
            };
            if expired(&held.value, held.touched) {
                let value = self.remove(&key)?;
                return Some((key, value));
            }
            let unchanged = held.touched == joined;
            let touched = held.touched;
            if unchanged {
                // The oldest is not expired, so nothing behind it is likely to be.
                self.queue.push_front((key, touched));
                return None;
            }
            self.queue.push_back((key, touched));
        }
        None
    }

    /// Takes out the entry longest untouched, as a full map does of itself.
    pub fn evict(&mut self, may_go: impl Fn(&V) -> bool) -> Option<(K, V)> {
        let mut attempts = 0;
        while attempts < EVICTION_ATTEMPTS {
            let (key, joined) = self.queue.pop_front()?;
            let Some(held) = self.held(&key) else {
                continue;
            };
            attempts = attempts.saturating_add(1);
            if held.touched == joined && may_go(&held.value) {
                let value = self.remove(&key)?;
                self.evicted = self.evicted.saturating_add(1);
                return Some((key, value));
            }
            let touched = held.touched;
            self.queue.push_back((key, touched));
        }
        None
    }

    /// Keys taken out by `remove` stay in the queue; when they outnumber the living it is made anew.
    fn compact_queue(&mut self) {
        if self.queue.len() < self.entries.len().saturating_mul(2).saturating_add(64) {
            return;
        }
        let mut queue: Vec<(K, Timestamp)> =
            self.entries.iter().map(|held| (held.key.clone(), held.touched)).collect();
        queue.sort_by_key(|(_, touched)| *touched);
        self.queue = queue.into();
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries let go for lack of room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Insertions refused because nothing could go.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes everything out, in no particular order.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.queue.clear();
        self.entries.drain().map(|held| (held.key, held.value))
    }

    /// Every entry, to be changed without touching it, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|held| (&held.key, &mut held.value))
    }

    /// Every entry, in no particular order: sort before it reaches an output.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|held| (&held.key, &held.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn insert(map: &mut BoundedMap<u32, u32>, key: u32, now: u64) -> bool {
        map.touch_or_insert(&key, at(now), || key, |value| *value < 100, |_, _| {}).is_some()
    }

    #[test]
    fn a_full_map_lets_the_longest_untouched_go() {
        let mut map = BoundedMap::new(3, 1);
        for key in 0..3 {
            assert!(insert(&mut map, key, u64::from(key)));
        }
        map.touch(&0, at(5));
        assert!(insert(&mut map, 3, 6));
        assert_eq!((map.len(), map.evicted()), (3, 1));
        assert!(map.get(&0).is_some() && map.get(&1).is_none());
    }

    #[test]
    fn what_may_not_go_stays_and_the_newcomer_is_refused() {
        let mut map = BoundedMap::new(2, 1);
        assert!(insert(&mut map, 100, 0) && insert(&mut map, 101, 1));
        assert!(!insert(&mut map, 1, 2));
        assert_eq!((map.refused(), map.evicted()), (1, 0));
        assert!(map.get(&100).is_some() && map.get(&101).is_some());
    }

    #[test]
    fn expiry_takes_the_old_and_keeps_the_touched() {
        let mut map = BoundedMap::new(10, 1);
        for key in 0..4 {
            insert(&mut map, key, 0);
        }
        map.touch(&0, at(100));
        let mut gone = Vec::new();
        while let Some((key, _)) = map.expire_one(8, |_, touched| touched < at(50)) {
            gone.push(key);
        }
        assert_eq!(gone, [1, 2, 3]);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn the_queue_does_not_outgrow_the_map() {
        let mut map = BoundedMap::new(4, 1);
        for round in 0..10_000u32 {
            insert(&mut map, round % 90, u64::from(round));
            map.remove(&(round % 7));
        }
        assert!(map.queue.len() <= 2 * 4 + 64, "{}", map.queue.len());
    }
}
