//! The table of sources, written in place while packets are judged by it.
//!
//! `floodwall_wire::sources` says where an entry lies. Both arrays are mapped into memory: every write is one atomic word,
//! and what the gate takes from a budget is never written over. Three rules keep every packet's judgement that of the
//! table before a write or after it:
//!
//! - A new entry is whole before its key is published.
//! - Where several words of an entry change, whatever counts for more is raised first and lowered last ([`change`]), and a
//!   version is raised with each, by which a reader sees that it has read words of two instants.
//! - A slot whose key has been removed is given to another only when every program that may have found it has ended,
//!   which the kernel tells by `membarrier(2)`. Entries never move.
//!
//! Stores are put in order by release fences here. Of loads there the first rule needs that an entry is not read before its
//! key. It is not, on any processor that Linux runs BPF on: where the entry lies is reckoned from what was read of the key
//! (`find` in `xdp-prog/src/maps.rs`), and a load waits for its address. The third needs nothing of loads: programs run
//! within read sections of RCU, and `membarrier(2)` returns when all that had begun have ended, with all they read. The
//! second needs loads in order; what its lack would mean stands at `floodwall_wire::tables::Source::read`. Budgets are
//! taken by compare-and-swap, which orders everything.

use std::{
    collections::HashSet,
    io,
    os::fd::BorrowedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use floodwall_wire::{
    SourceKey,
    sources::{BUCKET_KEYS, Bucket, EntryWords, buckets, from_stored, stored},
    tables::{Source, source_flags},
    word::Word,
};

use crate::shared::{Mapped, wait_for_programs};

/// Removed slots that wait; when there are more, the wait is taken at once.
const WAITING_MAX: usize = 4_096;

/// Places of the words of an entry.
const BANNED: usize = 0;
const LIMITED: usize = 1;
const KNOWN: usize = 2;
const FLAGS: usize = 3;
const BUDGETS: usize = 4;

/// The table, for its one writer and for readers.
#[derive(Debug)]
pub(crate) struct Sources {
    keys: Mapped<Bucket>,
    entries: Mapped<EntryWords>,
    seed: AtomicU64,
    written: Mutex<Written>,
}

/// What the writer keeps.
#[derive(Debug)]
struct Written {
    held: usize,
    refused: u64,
    /// Free slots in which a program that runs now may still read.
    waiting: HashSet<u32>,
}

impl Sources {
    /// Maps both arrays.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(crate) fn map(
        keys: BorrowedFd<'_>,
        entries: BorrowedFd<'_>,
        sizes: [u32; 2],
        seed: u64,
    ) -> io::Result<Self> {
        let [buckets, slots] = sizes.map(|size| size as usize);
        if !buckets.is_power_of_two() || slots != buckets * BUCKET_KEYS {
            let what = format!("{slots} sources in {buckets} buckets");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let (keys, entries) = (Mapped::new(keys, buckets)?, Mapped::new(entries, slots)?);
        // Another writer may have removed entries just now.
        wait_for_programs()?;
        let sources = Self {
            keys,
            entries,
            seed: AtomicU64::new(seed),
            written: Mutex::new(Written { held: 0, refused: 0, waiting: HashSet::new() }),
        };
        sources.write().held = sources.keys().len();
        Ok(sources)
    }

    /// Entries there may be: half the slots, so that no bucket is full before the table is.
    fn capacity(&self) -> usize {
        self.entries.all().len() / 2
    }

    fn write(&self) -> MutexGuard<'_, Written> {
        // Whoever panicked here left words that are valid each.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places entries by another seed from now on.
    ///
    /// # Errors
    /// When there are entries: they would not be found again.
    pub(crate) fn set_seed(&self, seed: u64) -> io::Result<()> {
        if self.seed.load(Ordering::Relaxed) != seed && self.write().held > 0 {
            let why = "the seed of the table of sources cannot change while it holds entries";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.seed.store(seed, Ordering::Relaxed);
        Ok(())
    }

    fn buckets(&self, key: SourceKey) -> [u32; 2] {
        let mask = u32::try_from(self.keys.all().len() - 1).unwrap_or(u32::MAX);
        let (first, second) = buckets(self.seed.load(Ordering::Relaxed), key, mask);
        [first, second]
    }

    fn bucket(&self, number: u32) -> &[Word; BUCKET_KEYS] {
        &self.keys.all()[number as usize].0
    }

    /// The slot that holds a key.
    fn find(&self, key: SourceKey) -> Option<u32> {
        self.buckets(key).into_iter().find_map(|number| {
            let at = self.bucket(number).iter().position(|held| held.load() == stored(key))?;
            Some(slot(number, at))
        })
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: SourceKey) -> Option<Source> {
        let words = &self.entries.all()[self.find(key)? as usize];
        let word = |at: usize| words[at].load();
        Some(Source {
            banned_until: word(BANNED),
            limited_until: word(LIMITED),
            known_until: word(KNOWN),
            flags: word(FLAGS) & (source_flags::VERSION - 1),
            limits: std::array::from_fn(|kind| Word::new(word(BUDGETS + kind))),
        })
    }

    /// Writes the entry of a key. The budgets of one that is there stay what the gate has left of them.
    ///
    /// # Errors
    /// `E2BIG` when there is no room for a new key.
    pub(crate) fn set(&self, key: SourceKey, source: &Source) -> io::Result<()> {
        let mut written = self.write();
        if let Some(slot) = self.find(key) {
            change(&self.entries.all()[slot as usize], source);
            return Ok(());
        }
        let free = if written.held < self.capacity() { self.find_free(&mut written, key)? } else { None };
        let Some((bucket, at)) = free else {
            written.refused += 1;
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        };
        let words = &self.entries.all()[slot(bucket, at) as usize];
        words[BANNED].store(source.banned_until);
        words[LIMITED].store(source.limited_until);
        words[KNOWN].store(source.known_until);
        words[FLAGS].store(source.flags);
        for (word, limit) in words[BUDGETS..].iter().zip(&source.limits) {
            word.store(limit.load());
        }
        fence(Ordering::Release);
        self.bucket(bucket)[at].store(stored(key));
        written.held += 1;
        Ok(())
    }

    /// A free slot for a key in the emptier of its buckets, one that nobody can be reading.
    fn find_free(&self, written: &mut Written, key: SourceKey) -> io::Result<Option<(u32, usize)>> {
        let free = |number: u32| self.bucket(number).iter().filter(|held| held.load() == 0).count();
        let mut numbers = self.buckets(key);
        numbers.sort_by_key(|number| std::cmp::Reverse(free(*number)));
        let mut slots = numbers
            .into_iter()
            .flat_map(|number| (0..BUCKET_KEYS).map(move |at| (number, at)))
            .filter(|(number, at)| self.bucket(*number)[*at].load() == 0);
        let Some(first) = slots.clone().next() else { return Ok(None) };
        if let Some(unread) = slots.find(|(number, at)| !written.waiting.contains(&slot(*number, *at))) {
            return Ok(Some(unread));
        }
        wait_for_programs()?;
        written.waiting.clear();
        Ok(Some(first))
    }

    /// Removes the entry of a key, if there is one.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(crate) fn remove(&self, key: SourceKey) -> io::Result<()> {
        let mut written = self.write();
        let Some(found) = self.find(key) else { return Ok(()) };
        self.bucket(found / BUCKET_KEYS as u32)[found as usize % BUCKET_KEYS].store(0);
        written.held -= 1;
        written.waiting.insert(found);
        if written.waiting.len() >= WAITING_MAX {
            wait_for_programs()?;
            written.waiting.clear();
        }
        Ok(())
    }

    /// Every key with an entry.
    pub(crate) fn keys(&self) -> Vec<SourceKey> {
        let all = self.keys.all().iter().flat_map(|bucket| &bucket.0);
        all.filter_map(|held| from_stored(held.load())).collect()
    }

    /// How many entries there are, and how often a new one was refused.
    pub(crate) fn held_and_refused(&self) -> (usize, u64) {
        let written = self.write();
        (written.held, written.refused)
    }
}

const fn slot(bucket: u32, at: usize) -> u32 {
    bucket * BUCKET_KEYS as u32 + at as u32
}

/// Changes an entry word by word so that whoever reads meanwhile, asking whether it is let in, banned, limited, known in
/// this order, is answered as before or as after: what counts for more is raised first and lowered last, while it covers
/// what changes beneath it.
fn change(words: &EntryWords, source: &Source) {
    let after = [
        (FLAGS, source.flags),
        (BANNED, source.banned_until),
        (LIMITED, source.limited_until),
        (KNOWN, source.known_until),
    ];
    // Of the flags only one counts for more than anything else.
    let weight = |at: usize, value: u64| if at == FLAGS { value & source_flags::ALLOWED } else { value };
    let value = |at: usize| words[at].load() & if at == FLAGS { source_flags::VERSION - 1 } else { u64::MAX };
    let changed = after.into_iter().filter(|(at, after)| value(*at) != *after);
    let (raised, lowered): (Vec<_>, Vec<_>) =
        changed.partition(|(at, after)| weight(*at, *after) >= weight(*at, value(*at)));
    for (at, after) in raised.into_iter().chain(lowered.into_iter().rev()) {
        let version = words[FLAGS].load() & !(source_flags::VERSION - 1);
        let flags = if at == FLAGS { after } else { value(FLAGS) };
        if at != FLAGS {
            words[at].store(after);
            fence(Ordering::Release);
        }
        words[FLAGS].store(version.wrapping_add(source_flags::VERSION) | flags);
        fence(Ordering::Release);
    }
}
