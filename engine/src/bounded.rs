//! A map that cannot grow beyond its capacity and forgets what was longest untouched.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash},
};

use foldhash::fast::FixedState;
use hashbrown::hash_table::HashTable;
use slab::Slab;

use crate::time::Timestamp;

/// How many entries are looked at to find one that may go, before an insertion is refused.
const EVICTION_ATTEMPTS: usize = 64;

/// A hash map with a capacity. Its hash is keyed with the engine's seed, which is random in production: who does not know
/// it cannot work out colliding keys beforehand. foldhash is no cryptographic hash, so whoever could time us to the
/// nanosecond might still search for some; the capacity bounds what that would be worth.
///
/// Entries lie side by side in a slab, and the hash table holds their numbers: a table of large values would leave up to half of
/// its room empty, and move them all when it grows.
///
/// Age is approximate: an entry touched since it joined the queue goes to the back of it once more.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    places: HashTable<u32>,
    entries: Slab<Held<K, V>>,
    hasher: FixedState,
    queue: VecDeque<Queued>,
    capacity: usize,
    next_serial: u32,
    evicted: u64,
    refused: u64,
}

#[derive(Debug)]
struct Held<K, V> {
    key: K,
    value: V,
    touched: Timestamp,
    /// Tells it from who had the place before. The queue is far shorter than what it counts to.
    serial: u32,
}

/// One that was touched last when it joined the queue, if it is still who has the place.
#[derive(Clone, Copy, Debug)]
struct Queued {
    place: u32,
    serial: u32,
    joined: Timestamp,
}

impl<K: Clone + Eq + Hash, V> BoundedMap<K, V> {
    /// An empty map of at most `capacity` entries, 32 bits' worth of them.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            places: HashTable::new(),
            entries: Slab::new(),
            hasher: FixedState::with_seed(seed),
            queue: VecDeque::new(),
            capacity: capacity.min(u32::MAX as usize),
            next_serial: 0,
            evicted: 0,
            refused: 0,
        }
    }

    /// Where `key` lies.
    fn place(&self, hash: u64, key: &K) -> Option<u32> {
        let is_it = |place: &u32| self.entries.get(*place as usize).is_some_and(|held| held.key == *key);
        self.places.find(hash, is_it).copied()
    }

    /// The value of `key`, without touching it.
    pub fn get(&self, key: &K) -> Option<&V> {
        let place = self.place(self.hasher.hash_one(key), key)?;
        self.entries.get(place as usize).map(|held| &held.value)
    }

    /// The value of `key`, to be changed without touching it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(self.hasher.hash_one(key), key)?;
        self.entries.get_mut(place as usize).map(|held| &mut held.value)
    }

    /// The value of `key`, touched at `now`.
    pub fn touch(&mut self, key: &K, now: Timestamp) -> Option<&mut V> {
        let place = self.place(self.hasher.hash_one(key), key)?;
        let held = self.entries.get_mut(place as usize)?;
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
        let hash = self.hasher.hash_one(key);
        let place = match self.place(hash, key) {
            Some(place) => place,
            None => {
                if self.entries.len() >= self.capacity {
                    match self.evict(may_go) {
                        Some((old_key, old)) => gone(old_key, old),
                        None => {
                            self.refused = self.refused.saturating_add(1);
                            return None;
                        }
                    }
                }
                self.insert(hash, key.clone(), make(), now)?
            }
        };
        let held = self.entries.get_mut(place as usize)?;
        held.touched = now;
        Some(&mut held.value)
    }

    /// Puts in what is not there; answers where it lies.
    fn insert(&mut self, hash: u64, key: K, value: V, now: Timestamp) -> Option<u32> {
        self.compact_queue();
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let Self { places, entries, hasher, queue, .. } = self;
        let place = u32::try_from(entries.insert(Held { key, value, touched: now, serial })).ok()?;
        let hash_of = |place: &u32| entries.get(*place as usize).map_or(0, |held| hasher.hash_one(&held.key));
        places.insert_unique(hash, place, hash_of);
        queue.push_back(Queued { place, serial, joined: now });
        Some(place)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(self.hasher.hash_one(key), key)?;
        self.take(place).map(|(_, value)| value)
    }

    fn take(&mut self, place: u32) -> Option<(K, V)> {
        let held = self.entries.try_remove(place as usize)?;
        let hash = self.hasher.hash_one(&held.key);
        if let Ok(entry) = self.places.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        Some((held.key, held.value))
    }

    /// Who is first in the queue and still there, taken off it.
    fn first_in_queue(&mut self) -> Option<(Queued, &Held<K, V>)> {
        loop {
            let first = self.queue.pop_front()?;
            let is_there = |held: &&Held<K, V>| held.serial == first.serial;
            if self.entries.get(first.place as usize).filter(is_there).is_some() {
                return self.entries.get(first.place as usize).map(|held| (first, held));
            }
        }
    }

    /// Takes out at most one entry that is `expired`, looking at the oldest `looks` of the queue.
    pub fn expire_one(&mut self, looks: usize, expired: impl Fn(&V, Timestamp) -> bool) -> Option<(K, V)> {
        for _ in 0..looks {
            let (first, held) = self.first_in_queue()?;
            let touched = held.touched;
            if expired(&held.value, touched) {
                return self.take(first.place);
            }
            if touched == first.joined {
                // The oldest is not expired, so nothing behind it is likely to be.
                self.queue.push_front(first);
                return None;
            }
            self.queue.push_back(Queued { joined: touched, ..first });
        }
        None
    }

    /// Takes out the entry longest untouched, as a full map does of itself.
    pub fn evict(&mut self, may_go: impl Fn(&V) -> bool) -> Option<(K, V)> {
        for _ in 0..EVICTION_ATTEMPTS {
            let (first, held) = self.first_in_queue()?;
            let touched = held.touched;
            if touched == first.joined && may_go(&held.value) {
                self.evicted = self.evicted.saturating_add(1);
                return self.take(first.place);
            }
            self.queue.push_back(Queued { joined: touched, ..first });
        }
        None
    }

    /// Those taken out by `remove` stay in the queue; when they outnumber the living it is made anew.
    fn compact_queue(&mut self) {
        if self.queue.len() < self.entries.len().saturating_mul(2).saturating_add(64) {
            return;
        }
        let Self { entries, queue, .. } = self;
        let is_there =
            |queued: &Queued| entries.get(queued.place as usize).filter(|held| held.serial == queued.serial);
        queue.retain_mut(|queued| {
            let held = is_there(queued);
            queued.joined = held.map_or(queued.joined, |held| held.touched);
            held.is_some()
        });
        queue.make_contiguous().sort_by_key(|queued| queued.joined);
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
        self.places.clear();
        self.entries.drain().map(|held| (held.key, held.value))
    }

    /// Every entry, to be changed without touching it, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(_, held)| (&held.key, &mut held.value))
    }

    /// Every entry, in no particular order: sort before it reaches an output.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(_, held)| (&held.key, &held.value))
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
