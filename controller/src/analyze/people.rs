//! Who belongs together: nicknames that came from the same addresses, addresses that the same nickname came from.

use std::collections::{BTreeMap, BTreeSet};

use floodwall_engine::text::Text;
use floodwall_wire::Address;

/// A nickname used from more addresses is everybody's, and ties nobody to anybody.
const ADDRESSES_MAX: usize = 8;
/// An address with more nicknames is a school, a company or a proxy.
const NICKNAMES_MAX: usize = 8;

/// Nicknames and addresses that hang together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Person {
    pub(super) nicknames: BTreeSet<Text>,
    pub(super) addresses: BTreeSet<Address>,
}

/// Groups of more than one nickname or more than one address, those with the most addresses first.
pub(super) fn people(nicknames: &BTreeMap<Text, BTreeSet<Address>>) -> Vec<Person> {
    let mut by_address: BTreeMap<Address, Vec<&Text>> = BTreeMap::new();
    for (nickname, addresses) in nicknames {
        for address in addresses {
            by_address.entry(*address).or_default().push(nickname);
        }
    }
    let ties = |nickname: &Text| nicknames.get(nickname).is_some_and(|all| all.len() <= ADDRESSES_MAX);
    let mut seen: BTreeSet<&Text> = BTreeSet::new();
    let mut found = Vec::new();
    for nickname in nicknames.keys() {
        if !seen.insert(nickname) {
            continue;
        }
        let mut person = Person::default();
        let mut to_follow = vec![nickname];
        while let Some(nickname) = to_follow.pop() {
            person.nicknames.insert(nickname.clone());
            let addresses = nicknames.get(nickname).into_iter().flatten();
            person.addresses.extend(addresses.clone());
            if !ties(nickname) {
                continue;
            }
            for address in addresses {
                let neighbours = by_address.get(address).filter(|all| all.len() <= NICKNAMES_MAX);
                for neighbour in neighbours.into_iter().flatten().filter(|neighbour| ties(neighbour)) {
                    if seen.insert(neighbour) {
                        to_follow.push(neighbour);
                    }
                }
            }
        }
        if person.nicknames.len() + person.addresses.len() > 2 {
            found.push(person);
        }
    }
    found.sort_by_key(|person| std::cmp::Reverse((person.addresses.len(), person.nicknames.len())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(logins: &[(&str, u32)]) -> Vec<(Vec<String>, usize)> {
        let mut nicknames: BTreeMap<Text, BTreeSet<Address>> = BTreeMap::new();
        for (nickname, address) in logins {
            nicknames.entry(Text::from(*nickname)).or_default().insert(Address::from_v4(*address));
        }
        let names = |person: &Person| person.nicknames.iter().map(|name| name.as_str().to_owned()).collect();
        people(&nicknames).iter().map(|person| (names(person), person.addresses.len())).collect()
    }

    #[test]
    fn nicknames_and_addresses_that_hang_together_are_one_group() {
        let found = groups(&[("mallory", 1), ("mallory", 2), ("oscar", 2), ("alice", 3), ("bob", 4)]);
        assert_eq!(found, [(vec!["mallory".to_owned(), "oscar".to_owned()], 2)]);
    }

    #[test]
    fn what_everybody_uses_ties_nobody() {
        let mut logins: Vec<(String, u32)> = (0..20).map(|n| ("guest".to_owned(), n)).collect();
        logins.extend((0..20).map(|n| (format!("user{n}"), 100)));
        logins.extend((0..20).map(|n| (format!("own{n}"), n)));
        let logins: Vec<(&str, u32)> =
            logins.iter().map(|(name, address)| (name.as_str(), *address)).collect();
        let found = groups(&logins);
        assert_eq!(found, [(vec!["guest".to_owned()], 20)]);
    }
}
