//! Counts by key within a bound: exact while there is room; beyond it those with the most are kept, and how far off their
//! counts may be is known.

use std::hash::Hash;

use indexmap::{Equivalent, IndexMap};

/// What is counted of one key.
pub(super) trait Weighed: Default {
    /// How much: those with the least are let go first.
    fn weight(&self) -> u64;

    /// Takes over what was counted of one that is let go.
    fn absorb(&mut self, other: Self);
}

impl Weighed for u64 {
    fn weight(&self) -> u64 {
        *self
    }

    fn absorb(&mut self, other: Self) {
        *self += other;
    }
}

/// At most so many keys. When it is full the lighter half goes, so that room is made seldom; what a key that comes again had
/// counted by then is missing from its count. That is at most [`error`](Self::error): each time room is made, no key that
/// goes weighs more than the heaviest of them (Manku and Motwani's lossy counting, with rounds as needed).
#[derive(Debug)]
pub(super) struct Hitters<K, V> {
    held: IndexMap<K, V, foldhash::fast::RandomState>,
    capacity: usize,
    /// How often room was made.
    round: u32,
    error: u64,
    /// All that were let go, together.
    rest: V,
    let_go: u64,
}

/// Where a key is held, until room is made the next time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    index: u32,
    round: u32,
}

impl Place {
    /// No place at all.
    pub(super) const NONE: Self = Self { index: u32::MAX, round: u32::MAX };
}

impl<K: Clone + Eq + Hash + Ord, V: Weighed> Hitters<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        let held = IndexMap::with_hasher(foldhash::fast::RandomState::default());
        Self { held, capacity, round: 0, error: 0, rest: V::default(), let_go: 0 }
    }

    pub(super) fn get_mut<Q: Equivalent<K> + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        self.held.get_mut(key)
    }

    /// The place of a key that is held.
    pub(super) fn find<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<Place> {
        // Far fewer are held than 32 bits can count.
        self.held.get_index_of(key).map(|index| Place { index: index as u32, round: self.round })
    }

    /// Who is held at a place, if nobody was let go since.
    pub(super) fn at(&mut self, place: Place) -> Option<(&K, &mut V)> {
        if place.round != self.round {
            return None;
        }
        self.held.get_index_mut(place.index as usize)
    }

    /// What is counted of a key, from nothing if it is not held.
    pub(super) fn entry(&mut self, key: K) -> &mut V {
        if self.held.len() >= self.capacity && !self.held.contains_key(&key) {
            self.make_room();
        }
        self.held.entry(key).or_default()
    }

    fn make_room(&mut self) {
        self.round = self.round.wrapping_add(1);
        let mut weights: Vec<(u64, K)> =
            self.held.iter().map(|(key, value)| (value.weight(), key.clone())).collect();
        // By key where weights are equal: who goes must not depend on the order in which they came.
        weights.sort_unstable();
        weights.truncate((self.capacity / 2).max(1));
        self.error += weights.last().map_or(0, |(weight, _)| *weight);
        for (_, key) in weights {
            if let Some(value) = self.held.swap_remove(&key) {
                self.rest.absorb(value);
                self.let_go += 1;
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.held.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// By how much a count may be too low.
    pub(super) const fn error(&self) -> u64 {
        self.error
    }

    /// How often one was let go, and what was counted of all those together.
    pub(super) const fn rest(&self) -> (u64, &V) {
        (self.let_go, &self.rest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_place_is_its_key_s_until_room_is_made() {
        let mut hitters: Hitters<u64, u64> = Hitters::new(4);
        let mut places = Vec::new();
        let (mut right, mut void) = (0, 0);
        for step in 0..100 {
            let key = step * 7 % 10;
            *hitters.entry(key) += 1;
            places.push((key, hitters.find(&key).unwrap()));
            for (key, place) in &places {
                match hitters.at(*place) {
                    Some((held, _)) => {
                        assert_eq!(held, key);
                        right += 1;
                    }
                    None => void += 1,
                }
            }
        }
        assert!(right > 100 && void > 100, "{right} {void}");
        assert!(hitters.at(Place::NONE).is_none() && hitters.find(&77).is_none());
    }

    #[test]
    fn the_most_frequent_are_found_and_no_count_is_off_by_more_than_is_said() {
        let mut hitters: Hitters<u64, u64> = Hitters::new(100);
        let mut truth = HashMap::new();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = state >> 33;
            // Every third is one of five; the others hardly ever come twice.
            let key = if random.is_multiple_of(3) { random % 5 } else { random };
            *hitters.entry(key) += 1;
            *truth.entry(key).or_insert(0) += 1;
        }
        assert!(hitters.len() <= 100);
        for key in 0..5 {
            let counted = *hitters.get_mut(&key).unwrap();
            assert!(counted <= truth[&key] && counted + hitters.error() >= truth[&key]);
        }
        let held: u64 = hitters.iter().map(|(_, count)| count).sum();
        assert_eq!(held + hitters.rest().1, 100_000);
    }

    #[test]
    fn with_room_counts_are_exact() {
        let mut hitters: Hitters<&str, u64> = Hitters::new(2);
        *hitters.entry("a") += 2;
        *hitters.entry("b") += 1;
        assert_eq!((hitters.error(), hitters.rest().0, hitters.len()), (0, 0, 2));
        *hitters.entry("c") += 1;
        assert_eq!((hitters.error(), hitters.rest().0, hitters.len()), (1, 1, 2));
    }
}
