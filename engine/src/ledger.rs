//! The ledger: which bans stand, since when, until when, and why.
//!
//! Bound: [`BANS_MAX`] bans. A full ledger refuses new ones; none is undone to make
//! room.

use std::collections::{BTreeMap, HashMap};

use floodwall_wire::Address;
use foldhash::fast::FixedState;

use crate::{
    command::{Explanation, Prefix},
    limits::BANS_MAX,
    time::Timestamp,
};

/// One ban.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ban {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub explanation: Explanation,
}

/// All bans that stand.
#[derive(Debug)]
pub struct Ledger {
    /// Asked with every signal.
    bans: HashMap<Prefix, Ban, FixedState>,
    /// How many bans of prefixes there are, by length.
    lengths: BTreeMap<u8, usize>,
    refused: u64,
}

impl Ledger {
    /// No bans; `seed` keys the table.
    pub fn new(seed: u64) -> Self {
        Self { bans: HashMap::with_hasher(FixedState::with_seed(seed)), lengths: BTreeMap::new(), refused: 0 }
    }

    /// Enters a ban, or prolongs the one that stands. Answers whether there was room.
    pub fn enter(&mut self, subject: Prefix, ban: Ban) -> bool {
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&subject) {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        if self.bans.insert(subject, ban).is_none() && !subject.is_host() {
            let count = self.lengths.entry(subject.bits()).or_default();
            *count = count.saturating_add(1);
        }
        true
    }

    /// The ban that holds for an address at a time: its own, or that of a prefix it lies in.
    pub fn ban_of(&self, address: Address, now: Timestamp) -> Option<&Ban> {
        let holding = |bits| self.bans.get(&Prefix::new(address, bits)).filter(|ban| ban.until > now);
        holding(128).or_else(|| self.lengths.keys().rev().find_map(|bits| holding(*bits)))
    }

    /// The ban of exactly this subject, over or not.
    pub fn standing(&self, subject: Prefix) -> Option<&Ban> {
        self.bans.get(&subject)
    }

    /// Strikes a ban out; answers whether there was one.
    pub fn lift(&mut self, subject: Prefix) -> bool {
        let lifted = self.bans.remove(&subject).is_some();
        if lifted {
            self.forget_length(subject);
        }
        lifted
    }

    fn forget_length(&mut self, subject: Prefix) {
        if let Some(count) = self.lengths.get_mut(&subject.bits()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.lengths.remove(&subject.bits());
            }
        }
    }

    /// Strikes out what is over.
    pub fn expire(&mut self, now: Timestamp) {
        let over: Vec<Prefix> =
            self.bans.iter().filter(|(_, ban)| ban.until <= now).map(|(subject, _)| *subject).collect();
        for subject in over {
            self.lift(subject);
        }
    }

    /// Bans, by subject.
    pub fn bans(&self) -> impl Iterator<Item = (Prefix, &Ban)> {
        let mut bans: Vec<(Prefix, &Ban)> = self.bans.iter().map(|(subject, ban)| (*subject, ban)).collect();
        bans.sort_by_key(|(subject, _)| *subject);
        bans.into_iter()
    }

    /// Bans refused because the ledger was full.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
