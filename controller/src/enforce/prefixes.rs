//! What is wanted of whole prefixes: which are banned, which are let in, and which stand on a list.
//!
//! The gate asks for the longest prefix alone. So the value of each says what those around it say too: that it is
//! let in, and the latest of their bans. Lists it asks apart.

use std::collections::{BTreeMap, BTreeSet};

use floodwall_engine::command::Prefix;
use floodwall_wire::{
    Address,
    lists::image::{Image, Range},
    tables::{self, source_flags},
};

use super::ranges::{address, ranges};
use crate::lists::{Lists, Treatment};

/// What is wanted of one prefix.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wanted {
    /// By the gate's clock; 0 is never.
    pub(super) banned_until: u64,
    pub(super) allowed: bool,
}

/// Wanted prefixes, found by what they hold and by what they lie in.
#[derive(Debug)]
pub(super) struct Prefixes {
    wanted: BTreeMap<Prefix, Wanted>,
    /// How many there are of each length.
    lengths: BTreeMap<u8, usize>,
    lists: Lists,
    /// Whom no list concerns.
    spared: BTreeSet<Address>,
}

impl Prefixes {
    pub(super) const fn new() -> Self {
        Self {
            wanted: BTreeMap::new(),
            lengths: BTreeMap::new(),
            lists: Lists::new(),
            spared: BTreeSet::new(),
        }
    }

    /// Whether the gate need not ask for any.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// How many the gate is told of one by one.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn get(&self, prefix: Prefix) -> Wanted {
        self.wanted.get(&prefix).copied().unwrap_or_default()
    }

    /// What is wanted from now on. A prefix of which nothing is wanted is forgotten.
    pub(super) fn set(&mut self, prefix: Prefix, wanted: Wanted) {
        if wanted == Wanted::default() {
            if self.wanted.remove(&prefix).is_some()
                && let Some(count) = self.lengths.get_mut(&prefix.bits())
            {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.bits());
                }
            }
        } else if self.wanted.insert(prefix, wanted).is_none() {
            *self.lengths.entry(prefix.bits()).or_default() += 1;
        }
    }

    pub(super) const fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Other lists from now on; answers those before.
    pub(super) const fn set_lists(&mut self, lists: Lists) -> Lists {
        std::mem::replace(&mut self.lists, lists)
    }

    /// Spares others from now on; answers all whom that changes anything for.
    pub(super) fn set_spared(&mut self, spared: BTreeSet<Address>) -> Vec<Address> {
        let before = std::mem::replace(&mut self.spared, spared);
        before.symmetric_difference(&self.spared).copied().collect()
    }

    pub(super) fn is_spared(&self, address: Address) -> bool {
        self.spared.contains(&address)
    }

    pub(super) fn all_spared(&self) -> impl Iterator<Item = Address> {
        self.spared.iter().copied()
    }

    /// The spared who lie in a prefix.
    pub(super) fn spared_in(&self, prefix: Prefix) -> impl Iterator<Item = Address> {
        let within = self.spared.range(prefix.address()..).copied();
        within.take_while(move |address| prefix.contains(*address))
    }

    /// What lists say of an address, whoever it is: to let it in before all else.
    pub(super) fn listed(&self, address: Address) -> Option<Treatment> {
        self.lists.around(address, 128).map(|(_, listed)| listed.treatment).max()
    }

    /// Whether there is an entry for it in the gate's table.
    pub(super) fn holds(&self, prefix: Prefix) -> bool {
        self.wanted.contains_key(&prefix)
    }

    /// Whether something is said of an address that is not said of its neighbours.
    pub(super) fn sets_apart(&self, address: Address) -> bool {
        let host = Prefix::host(address);
        self.holds(host) || self.lists.contains(host) || (!self.lists.is_empty() && self.is_spared(address))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, Wanted)> {
        self.wanted.iter().map(|(prefix, wanted)| (*prefix, *wanted))
    }

    /// Those an address lies in, the shortest first; none of lists. One look-up per length in use.
    pub(super) fn around(&self, address: Address) -> impl Iterator<Item = (Prefix, Wanted)> {
        self.lengths.keys().filter_map(move |bits| {
            let prefix = Prefix::new(address, *bits);
            self.wanted.get(&prefix).map(|wanted| (prefix, *wanted))
        })
    }

    /// Those that have an entry and lie in a prefix, itself among them.
    pub(super) fn within(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> {
        self.wanted
            .range(prefix..)
            .map(|(inner, _)| *inner)
            .take_while(move |inner| prefix.contains(inner.address()))
    }

    /// Addresses in a network of which something is said that is not said of their neighbours.
    pub(super) fn apart_in(&self, network: Prefix) -> BTreeSet<Address> {
        let spared = self.spared_in(network).map(Prefix::host).filter(|_| !self.lists.is_empty());
        let all = self.within(network).chain(self.lists.within(network)).chain(spared);
        all.filter(|prefix| prefix.is_host()).map(Prefix::address).collect()
    }

    /// What lists say to the gate.
    pub(super) fn listed_ranges(&self) -> Vec<Range> {
        listed_ranges(&self.lists, &self.spared)
    }

    /// What the gate is told of a prefix.
    pub(super) fn value(&self, prefix: Prefix) -> tables::Prefix {
        let mut value = tables::Prefix::default();
        for (_, wanted) in self.around(prefix.address()).filter(|(outer, _)| outer.bits() <= prefix.bits()) {
            value.banned_until = value.banned_until.max(wanted.banned_until);
            value.flags |= if wanted.allowed { source_flags::ALLOWED } else { 0 };
        }
        value
    }
}

/// Ranges that do not overlap, in order. Where several lists hold an address the greatest treatment counts, and who is
/// spared is at most let in.
fn listed_ranges(lists: &Lists, spared: &BTreeSet<Address>) -> Vec<Range> {
    let mut spared = spared.iter().map(|address| (Prefix::host(*address), None)).peekable();
    let mut listed = lists.iter().map(|(prefix, treatment)| (prefix, Some(treatment))).peekable();
    let in_order = std::iter::from_fn(|| match (listed.peek(), spared.peek()) {
        (Some((listed_prefix, _)), Some((spared_prefix, _))) if listed_prefix > spared_prefix => {
            spared.next()
        }
        (Some(_), _) => listed.next(),
        (None, _) => spared.next(),
    });
    let within = |outer: Option<Option<Treatment>>, said: Option<Treatment>| match said {
        Some(_) => said.max(outer.flatten()),
        None => outer.flatten().filter(|treatment| *treatment == Treatment::Allow),
    };
    let said = ranges(in_order, within).into_iter();
    said.filter_map(|((first, last), treatment)| {
        Some(Range { first: address(first), last: address(last), treatment: treatment? })
    })
    .collect()
}

/// How many nodes lists are as the gate has them.
pub(crate) fn list_nodes(lists: &Lists) -> usize {
    Image::build(&listed_ranges(lists, &BTreeSet::new())).nodes().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, bits: u8) -> Prefix {
        Prefix::new(Address::from(text.parse::<std::net::IpAddr>().unwrap()), bits)
    }

    #[test]
    fn a_prefix_says_what_those_around_it_say() {
        let mut prefixes = Prefixes::new();
        let (wide, inner, beside) =
            (prefix("10.0.0.0", 96 + 8), prefix("10.1.0.0", 96 + 16), prefix("11.0.0.0", 96 + 8));
        prefixes.set(inner, Wanted { banned_until: 5, allowed: false });
        prefixes.set(beside, Wanted { banned_until: 7, allowed: false });
        assert_eq!((prefixes.value(inner).banned_until, prefixes.value(inner).flags), (5, 0));
        prefixes.set(wide, Wanted { banned_until: 9, allowed: true });
        let value = prefixes.value(inner);
        assert_eq!((value.banned_until, value.flags), (9, source_flags::ALLOWED));
        assert_eq!((prefixes.value(beside).banned_until, prefixes.value(beside).flags), (7, 0));
        assert_eq!(prefixes.within(wide).collect::<Vec<_>>(), [wide, inner]);
        assert_eq!(prefixes.within(inner).collect::<Vec<_>>(), [inner]);
        prefixes.set(wide, Wanted::default());
        assert_eq!(prefixes.value(inner).banned_until, 5);
        assert_eq!(prefixes.around(inner.address()).count(), 1);
    }

    #[test]
    fn a_prefix_with_the_address_of_a_wider_one_is_no_wider_one() {
        let mut prefixes = Prefixes::new();
        let (wide, inner) = (prefix("2001:db8::", 32), prefix("2001:db8::", 64));
        prefixes.set(wide, Wanted { banned_until: 9, allowed: false });
        prefixes.set(inner, Wanted { banned_until: 5, allowed: false });
        assert_eq!(prefixes.within(inner).collect::<Vec<_>>(), [inner]);
        assert_eq!(prefixes.within(wide).count(), 2);
        assert_eq!(prefixes.value(wide).banned_until, 9);
    }
}
