//! Where an entry of the table of sources lies.
//!
//! The kernel's hash map costs a call within a call, and with return thunks each return of them as much as twenty
//! comparisons. So the table is two arrays that the program searches itself: *buckets* of eight keys, a cache line each,
//! and the entries, one cache line each, in the same order. A key lies in one of two buckets that a secret seed
//! chooses; the emptier is taken when it is written. With as many entries as half the slots no bucket was ever seen
//! full (the most of 131,072 entries in 32,768 buckets are seven, also after a million were replaced): a look-up reads
//! at most two lines of keys and one entry, however many there are.

use crate::{SourceKey, tables::Source, word::Word};

/// Keys in one bucket: 64 bytes.
pub const BUCKET_KEYS: usize = 8;

/// Keys as they are stored (see [`stored`]); 0 is a free slot.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket(pub [Word; BUCKET_KEYS]);

/// The form in which a key is stored: never 0, but for the one key that no source can have (255.255.255.255).
#[inline(always)]
pub const fn stored(key: SourceKey) -> u64 {
    key.0.wrapping_add(1)
}

/// Back from the stored form; `None` for a free slot.
#[inline(always)]
pub const fn from_stored(stored: u64) -> Option<SourceKey> {
    match stored {
        0 => None,
        stored => Some(SourceKey(stored - 1)),
    }
}

/// The two buckets a key may lie in. They may be the same.
#[inline(always)]
pub const fn buckets(seed: u64, key: SourceKey, mask: u32) -> (u32, u32) {
    // The finaliser of MurmurHash3, keyed by a secret seed: who does not know it cannot choose addresses that meet.
    let mut mixed = key.0 ^ seed;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    (mixed as u32 & mask, (mixed >> 32) as u32 & mask)
}

/// Number of buckets for so many entries: a power of two, with at least twice as many slots.
pub const fn buckets_for(entries: u32) -> u32 {
    let slots =
        if entries < BUCKET_KEYS as u32 { BUCKET_KEYS as u32 } else { 2 * entries.next_power_of_two() };
    slots / BUCKET_KEYS as u32
}

/// The words of an entry in the order of its fields: banned, limited and known until, flags, and the budgets.
pub type EntryWords = [Word; size_of::<Source>() / size_of::<Word>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_round_trip_and_zero_is_free() {
        assert_eq!(from_stored(0), None);
        for key in [0, 1, u64::MAX - 1] {
            assert_eq!(from_stored(stored(SourceKey(key))), Some(SourceKey(key)));
        }
    }

    #[test]
    fn a_full_table_of_chosen_neighbours_overflows_no_bucket() {
        const ENTRIES: u32 = crate::tables::SOURCES_MAX;
        let mask = buckets_for(ENTRIES) - 1;
        for seed in [0, 7, 0x0123_4567_89ab_cdef] {
            let mut held = vec![0_u8; mask as usize + 1];
            for number in 0..u64::from(ENTRIES) {
                let (first, second) = buckets(seed, SourceKey(0xffff_ffff_0a00_0000 + number), mask);
                let (one, other) = (held[first as usize], held[second as usize]);
                held[if one <= other { first } else { second } as usize] += 1;
            }
            let most = held.iter().max().copied().unwrap_or_default();
            assert!(usize::from(most) < BUCKET_KEYS, "{most} keys in one bucket, seed {seed}");
        }
    }

    #[test]
    fn an_entry_and_a_bucket_are_a_cache_line_each() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(size_of::<EntryWords>(), size_of::<Source>());
        assert_eq!(size_of::<Source>(), 64);
    }
}
