//! What is taken for a mistake: a password that was mistyped, and followed by the right one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floodwall_wire::Address;

use super::{
    CONTRIBUTIONS_OF_KNOWN, CONTRIBUTIONS_PLAIN, Decisions,
    person::{MISTAKEN_WITHIN, Mistyped, is_guests},
    suspicion::{PATIENCE_TO_LOG_IN, Suspect},
};
use crate::{
    limits::SUBJECTS_MAX,
    rule::{
        Action, By, Level, Rule,
        evaluate::{Finding, site},
    },
    signal::{Signal, SignalKind},
    time::Span,
};

/// ...are so many;
const MADE_GOOD_MAX: u32 = 3;
/// and so many while there is still patience for them to be.
const MISTAKEN_MAX: u32 = 3;
/// Accounts that failed, each from a place of its own, from which on they may be several people's.
const MISTAKEN_ACCOUNTS: usize = 2;

/// So many logins that fail...
const TYPED_MAX: usize = 4;
/// ...within this time are a program's.
const TYPED_WITHIN: Span = Span::from_secs(1);

/// Whether failed logins may be several people's: of several accounts, and no place of more than one. Many clients connect anew
/// for each try. Everybody may try whether there are guests, and then be somebody.
fn may_be_of_several<'a, P: Ord>(
    failed: impl Iterator<Item = &'a Arc<Signal>>,
    place: impl Fn(&Signal) -> Option<P>,
) -> bool {
    let (mut accounts, mut places) = (BTreeSet::new(), BTreeMap::new());
    for signal in failed {
        let account = signal.detail.account.as_ref().filter(|name| !is_guests(name));
        if let (Some(account), Some(place)) = (account, place(signal)) {
            accounts.insert(account);
            if *places.entry(place).or_insert(account) != account {
                return false;
            }
        }
    }
    accounts.len() >= MISTAKEN_ACCOUNTS
}

/// Whether logins that failed, the oldest first, followed each other faster than people type.
fn are_by_program(failed: &[&Arc<Signal>]) -> bool {
    failed.windows(TYPED_MAX).any(|some| match some {
        [first, .., last] => last.at.since(first.at) <= TYPED_WITHIN,
        [] | [_] => false,
    })
}

impl Decisions {
    /// Whether failed logins from one address are mistakes: of most of the last ones the right password is known there, or they were of
    /// several accounts, each on a connection of its own, and this is the first time. Then the address has time to show it.
    pub(super) fn is_mistaken(&mut self, rule: &Rule, finding: &Finding<'_>, address: Address) -> bool {
        if rule.action == Action::Note || !rule.counts_failed_logins() {
            return false;
        }
        let now = finding.signal.at;
        let is_class = self.is_of_class(&address, now);
        // Of many who come back at once some have an old password; what is fast for one is not for them.
        if is_class && rule.within <= TYPED_WITHIN {
            return true;
        }
        let is_recent = |signal: &&Arc<Signal>| {
            signal.kind == SignalKind::LoginFailed
                && signal.address == address
                && now.since(signal.at) <= rule.within
        };
        let failed: Vec<&Arc<Signal>> = finding.evidence.iter().filter(is_recent).collect();
        let has_made_good = self.have_made_good(address, failed.iter().copied());
        let is_typed = is_class || !are_by_program(&failed);
        let is_of_several = is_typed && may_be_of_several(failed.iter().copied(), |signal| signal.flow);
        let has_room = self.suspects.len() < SUBJECTS_MAX;
        let most = match (has_made_good, is_of_several && has_room) {
            (true, _) => MADE_GOOD_MAX,
            (false, true) => MISTAKEN_MAX,
            (false, false) => return false,
        };
        let is_reached = finding.is_reached(rule);
        let person = self.person(address, now);
        let patience = if has_made_good { MISTAKEN_WITHIN } else { PATIENCE_TO_LOG_IN };
        if !person.is_some_and(|person| person.may_be_mistaken(&rule.id, is_reached, (most, patience), now)) {
            return false;
        }
        if has_made_good {
            return true;
        }
        self.suspects.insert(address, Suspect { is_of_several: true, ..Suspect::new(rule, finding) });
        true
    }

    /// Whether who failed at one account, which is not that of all the others, may be its owner: people mistype three or four
    /// times before they ask somebody.
    pub(super) fn may_have_mistyped(&self, rule: &Rule, finding: &Finding<'_>, address: &Address) -> bool {
        let mut accounts = finding.evidence.iter().filter_map(|signal| signal.detail.account.as_ref());
        let first = accounts.next();
        rule.counts_failed_logins()
            && (finding.evidence.len() <= 1 || accounts.any(|account| Some(account) != first))
            && self.mistyped.get(address).is_some_and(Mistyped::is_of_one)
    }

    /// Whether somebody who failed a few times while many guess still has time to find the right password. Who goes on failing has
    /// not.
    pub(super) fn has_time_to_log_in(&mut self, rule: &Rule, finding: &Finding<'_>) -> bool {
        let (address, now) = (finding.signal.address, finding.signal.at);
        let is_for_alarmed_times = rule.level > Level::Normal && rule.counts_failed_logins();
        let is_of_one = self.mistyped.get(&address).is_some_and(Mistyped::is_of_one);
        if !is_for_alarmed_times || !is_of_one || finding.count >= CONTRIBUTIONS_OF_KNOWN {
            return false;
        }
        let made_good =
            self.mistyped.get(&address).is_some_and(|mistyped| mistyped.is_made_good(now, rule.within));
        if made_good {
            return true;
        }
        self.suspect(address, || Suspect::new(rule, finding))
    }

    /// Whether the right passwords of most of these failed logins are known at the address they came from.
    pub(super) fn have_made_good<'a>(
        &self,
        address: Address,
        failed: impl Iterator<Item = &'a Arc<Signal>>,
    ) -> bool {
        let Some(person) = self.people.get(&address) else { return false };
        let (good, count) = failed.fold((0_usize, 0_usize), |(good, count), signal| {
            (good.saturating_add(usize::from(person.has_made_good(signal))), count.saturating_add(1))
        });
        good.saturating_mul(2) > count
    }

    /// Whether too few of those who failed to log in are anybody but people who are known: they have mistyped, or an old
    /// table of passwords was restored.
    pub(super) fn is_of_the_known(&self, rule: &Rule, finding: &Finding<'_>) -> bool {
        if rule.distinct != Some(By::Address) || !rule.counts_failed_logins() || !finding.is_reached(rule) {
            return false;
        }
        let now = finding.signal.at;
        let strangers: BTreeSet<Address> = finding
            .contributors
            .iter()
            .filter(|(address, count)| *count >= CONTRIBUTIONS_PLAIN || !self.behaves_well(address, now))
            .map(|(address, _)| if address.is_v4() { *address } else { site(*address) })
            .collect();
        strangers.len() < finding.contributors.len() && strangers.len() < rule.limit as usize
    }

    /// Whether those of one network who failed to log in may be as many people, a class or a carrier's telephones: the last ones were
    /// of several accounts, each from an address of its own, and it is the first time. Then they have time to find the right password.
    pub(super) fn is_class(&mut self, rule: &Rule, finding: &Finding<'_>, network: Address) -> bool {
        let now = finding.signal.at;
        rule.counts_failed_logins()
            && may_be_of_several(finding.evidence.iter(), |signal| Some(signal.address))
            && self.person(network, now).is_some_and(|person| {
                person.may_be_mistaken(
                    &rule.id,
                    finding.is_reached(rule),
                    (MISTAKEN_MAX, PATIENCE_TO_LOG_IN),
                    now,
                )
            })
    }
}
