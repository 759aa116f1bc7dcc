//! The ledger: which bans stand, since when, until when, and why.
//!
//! Bound: [`BANS_MAX`] bans. A full ledger refuses new ones; none is undone to make
//! room.

use std::collections::BTreeMap;

use floodwall_wire::Address;

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
#[derive(Debug, Default)]
pub struct Ledger {
    bans: BTreeMap<Prefix, Ban>,
    refused: u64,
}

impl Ledger {
    /// Enters a ban, or prolongs the one that stands. Answers whether there was room.
    pub fn enter(&mut self, subject: Prefix, ban: Ban) -> bool {
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&subject) {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.bans.insert(subject, ban);
        true
    }

    /// The ban that holds for an address at a time: its own, or that of its /64.
    pub fn ban_of(&self, address: Address, now: Timestamp) -> Option<&Ban> {
        let own = self.bans.get(&Prefix::host(address)).filter(|ban| ban.until > now);
        if own.is_some() || address.is_v4() {
            return own;
        }
        self.bans.get(&Prefix::network64(address)).filter(|ban| ban.until > now)
    }

    /// Strikes out what is over.
    pub fn expire(&mut self, now: Timestamp) {
        self.bans.retain(|_, ban| ban.until > now);
    }

    /// Bans, by subject.
    pub fn bans(&self) -> impl Iterator<Item = (Prefix, &Ban)> {
        self.bans.iter().map(|(subject, ban)| (*subject, ban))
    }

    /// Bans refused because the ledger was full.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
