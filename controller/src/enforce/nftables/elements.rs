//! What stands in the sets of our table: told to nft, and read back.

use std::collections::{BTreeMap, BTreeSet};

use floodwall_engine::command::Prefix;
use floodwall_wire::{
    Address,
    lists::{Treatment, image::Range as ListedRange},
    tables::{self, Source, source_flags},
};
use nftables::{
    expr::{Expression, Range},
    schema::{Element, FlushObject, NfCmd, NfListObject, NfObject, Set},
    types::NfFamily,
};
use serde_json::Value;

use super::{
    super::ranges::{Addresses, address, number, ranges},
    rules::{Family, List, TABLE, add, timed, word},
};

/// Deadlines by the gate's clock, 0 for never.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Entry {
    banned_until: u64,
    limited_until: u64,
    known_until: u64,
    is_allowed: bool,
}

impl From<&Source> for Entry {
    fn from(source: &Source) -> Self {
        Self {
            banned_until: source.banned_until,
            limited_until: source.limited_until,
            known_until: source.known_until,
            is_allowed: source.flags & source_flags::ALLOWED != 0,
        }
    }
}

impl From<&tables::Prefix> for Entry {
    fn from(prefix: &tables::Prefix) -> Self {
        Self {
            banned_until: prefix.banned_until,
            limited_until: 0,
            known_until: 0,
            is_allowed: prefix.flags & source_flags::ALLOWED != 0,
        }
    }
}

impl Entry {
    /// Until when it stands on a list; 0 if it does not.
    pub(super) const fn until(self, list: List) -> u64 {
        match list {
            List::Allowed if self.is_allowed => u64::MAX,
            List::Allowed => 0,
            List::Banned => self.banned_until,
            List::Limited => self.limited_until,
            List::Known => self.known_until,
        }
    }
}

/// All of IPv4, as our addresses have it.
const MAPPED: Addresses = (0xffff << 32, 0xffff << 32 | 0xffff_ffff);

/// The parts of a range that are IPv4 and IPv6.
fn by_family((first, last): Addresses) -> impl Iterator<Item = (Family, Addresses)> {
    let (v4_first, v4_last) = MAPPED;
    [
        (Family::V6, (first, last.min(v4_first - 1))),
        (Family::V4, (first.max(v4_first), last.min(v4_last))),
        (Family::V6, (first.max(v4_last + 1), last)),
    ]
    .into_iter()
    .filter(|(_, (first, last))| first <= last)
}

/// What the sets of prefixes hold, by set: a range and until when. What lists say is without end, so that prefixes' own words
/// matter only beside it; nft takes no ranges in one set that overlap.
pub(super) fn prefix_elements(
    prefixes: &BTreeMap<Prefix, Entry>,
    lists: &[ListedRange],
) -> BTreeMap<String, BTreeMap<Addresses, u64>> {
    let prefixes = ranges(prefixes.iter().map(|(prefix, entry)| (*prefix, *entry)), |_, entry| entry);
    let mut elements: BTreeMap<String, BTreeMap<Addresses, u64>> = BTreeMap::new();
    for list in List::OF_PREFIXES {
        let is_meant = |range: &&ListedRange| of_treatment(range.treatment) == list;
        let listed: Vec<Addresses> =
            lists.iter().filter(is_meant).map(|range| (number(range.first), number(range.last))).collect();
        let own =
            prefixes.iter().map(|(range, entry)| (*range, entry.until(list))).filter(|(_, until)| *until > 0);
        let own =
            own.flat_map(|(range, until)| outside(range, &listed).into_iter().map(move |part| (part, until)));
        for (range, until) in own.chain(listed.iter().map(|range| (*range, u64::MAX))) {
            for (family, range) in by_family(range) {
                elements.entry(list.of_prefixes(family)).or_default().insert(range, until);
            }
        }
    }
    elements
}

const fn of_treatment(treatment: Treatment) -> List {
    match treatment {
        Treatment::Allow => List::Allowed,
        Treatment::Ban => List::Banned,
        Treatment::Limit => List::Limited,
    }
}

/// The parts of a range that lie in none of others, which are in order and do not overlap.
fn outside((first, last): Addresses, others: &[Addresses]) -> Vec<Addresses> {
    let mut parts = Vec::new();
    let mut next = Some(first);
    let begin = others.partition_point(|(_, end)| *end < first);
    for (start, end) in others.iter().skip(begin).take_while(|(start, _)| *start <= last) {
        if let Some(from) = next
            && from < *start
        {
            parts.push((from, start - 1));
        }
        next = end.checked_add(1);
    }
    parts.extend(next.filter(|from| *from <= last).map(|from| (from, last)));
    parts
}

/// Whole seconds until a deadline, rounded up: `Some(None)` without end, nothing when it is over.
fn seconds_until(until: u64, now: u64) -> Option<Option<u32>> {
    match until {
        u64::MAX => Some(None),
        _ if until <= now => None,
        // What nft can say; a century is without end.
        _ => Some(u32::try_from((until - now).div_ceil(1_000_000_000)).ok().filter(|s| *s < 4_000_000)),
    }
}

fn written((first, last): Addresses) -> Expression<'static> {
    let text = |number| word(address(number).to_ip().to_string());
    if first == last {
        text(first)
    } else {
        Expression::Range(Box::new(Range { range: [text(first), text(last)] }))
    }
}

/// Elements for one set, as a command that adds those that are not over.
pub(super) fn add_elements(
    set: &str,
    elements: impl Iterator<Item = (Addresses, u64)>,
    now: u64,
) -> Option<NfObject<'static>> {
    let elements: Vec<_> = elements
        .filter_map(|(range, until)| Some(timed(written(range), seconds_until(until, now)?)))
        .collect();
    (!elements.is_empty()).then(|| add(of_set(set, elements)))
}

/// Ports for one set, for so many seconds.
pub(super) fn add_ports(set: &str, ports: &[u16], seconds: u32) -> Vec<NfObject<'static>> {
    let port = |port: &u16| Expression::Number(u32::from(*port));
    let plain: Vec<_> = ports.iter().map(port).collect();
    let elements = ports.iter().map(|one| timed(port(one), Some(seconds))).collect();
    replace_elements(set, plain, elements)
}

/// Elements of a set anew, whether they are there or not: what is there is not changed by adding it, and what is not
/// there cannot be deleted.
pub(super) fn replace_elements(
    set: &str,
    plain: Vec<Expression<'static>>,
    elements: Vec<Expression<'static>>,
) -> Vec<NfObject<'static>> {
    let mut commands = Vec::new();
    if !plain.is_empty() {
        commands.push(add(of_set(set, plain.clone())));
        commands.push(NfObject::CmdObject(NfCmd::Delete(of_set(set, plain))));
    }
    if !elements.is_empty() {
        commands.push(add(of_set(set, elements)));
    }
    commands
}

/// The same for single addresses.
pub(super) fn replace_addresses(set: &str, wanted: &[(Address, u64)], now: u64) -> Vec<NfObject<'static>> {
    let range = |address: &Address| (number(*address), number(*address));
    let plain = wanted.iter().map(|(address, _)| written(range(address))).collect();
    let elements = wanted
        .iter()
        .filter_map(|(address, until)| Some(timed(written(range(address)), seconds_until(*until, now)?)))
        .collect();
    replace_elements(set, plain, elements)
}

/// Empties a set.
pub(super) fn flush(set: &str) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Flush(FlushObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: set.to_owned().into(),
        ..Set::default()
    }))))
}

fn of_set(set: &str, elements: Vec<Expression<'static>>) -> NfListObject<'static> {
    let (table, name) = (TABLE.into(), set.to_owned().into());
    NfListObject::Element(Element { family: NfFamily::INet, table, name, elem: elements.into() })
}

/// What nft says our table is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    /// Everything but what changes by itself: elements, counts, numbers of handles.
    pub(super) shape: String,
    /// Elements by set, with the seconds they last on; ports are left out.
    pub(super) elements: BTreeMap<String, BTreeMap<Addresses, Option<u64>>>,
    /// Packets and bytes by counter.
    pub(super) counters: BTreeMap<String, (u64, u64)>,
}

impl Listing {
    /// Reads the answer of `nft --json list table`. What is not understood is part of the shape.
    pub(super) fn read(text: &str) -> serde_json::Result<Self> {
        let whole: Value = serde_json::from_str(text)?;
        let mut listing = Self::default();
        let mut shape = BTreeSet::new();
        let objects = whole.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default();
        for (position, mut object) in objects.into_iter().enumerate() {
            let Some((kind, body)) = object.as_object_mut().and_then(|object| object.iter_mut().next())
            else {
                continue;
            };
            if kind == "metainfo" {
                continue;
            }
            let is_rule = kind == "rule";
            let name = body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(body) = body.as_object_mut() {
                body.remove("handle");
                if let (Some(packets), Some(bytes)) = (body.remove("packets"), body.remove("bytes")) {
                    let count = |value: Value| value.as_u64().unwrap_or(0);
                    listing.counters.insert(name.clone(), (count(packets), count(bytes)));
                }
                if let Some(Value::Array(elements)) = body.remove("elem") {
                    listing.elements.insert(name, elements.iter().filter_map(read_element).collect());
                }
            }
            // The order of rules counts, that of sets does not.
            shape.insert((is_rule.then_some(position), object.to_string()));
        }
        listing.shape = shape.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
        Ok(listing)
    }
}

fn read_element(element: &Value) -> Option<(Addresses, Option<u64>)> {
    let inner = element.get("elem");
    let value = inner.and_then(|inner| inner.get("val")).unwrap_or(element);
    let expires = inner.and_then(|inner| inner.get("expires")).and_then(Value::as_u64);
    let read = |value: &Value| Some(number(Address::from(value.as_str()?.parse::<std::net::IpAddr>().ok()?)));
    if let Some(range) = value.get("range") {
        return Some(((read(range.get(0)?)?, read(range.get(1)?)?), expires));
    }
    if let Some(prefix) = value.get("prefix") {
        let address = prefix.get("addr")?.as_str()?.parse::<std::net::IpAddr>().ok()?;
        let bits = u32::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let bits = if address.is_ipv4() { bits + 96 } else { bits };
        let first = number(Address::from(address));
        return Some(((first, first | u128::MAX.checked_shr(bits).unwrap_or(0)), expires));
    }
    let single = read(value)?;
    Some(((single, single), expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = crate::configuration::parse_prefix(text).unwrap();
        Prefix::new(address, bits as u8)
    }

    #[test]
    fn nested_prefixes_become_ranges_that_say_what_the_innermost_says() {
        let banned = |until| Entry { banned_until: until, ..Entry::default() };
        let prefixes: BTreeMap<Prefix, Entry> = [
            (prefix("10.0.0.0/8"), banned(5)),
            (prefix("10.0.0.0/16"), banned(7)),
            (prefix("10.9.0.0/16"), Entry { is_allowed: true, ..Entry::default() }),
            (prefix("10.255.0.0/16"), banned(9)),
            (prefix("ffff::/16"), banned(3)),
        ]
        .into();
        let elements = prefix_elements(&prefixes, &[]);
        let shown = |set: &str| -> Vec<String> {
            let show = |((first, last), until): (&Addresses, &u64)| {
                format!("{}-{} {until}", address(*first).to_ip(), address(*last).to_ip())
            };
            elements.get(set).into_iter().flatten().map(show).collect()
        };
        assert_eq!(
            shown("banned_prefixes4"),
            [
                "10.0.0.0-10.0.255.255 7",
                "10.1.0.0-10.8.255.255 5",
                "10.10.0.0-10.254.255.255 5",
                "10.255.0.0-10.255.255.255 9"
            ]
        );
        assert_eq!(shown("allowed_prefixes4"), [format!("10.9.0.0-10.9.255.255 {}", u64::MAX)]);
        assert_eq!(shown("banned_prefixes6"), ["ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3"]);
    }

    #[test]
    fn what_lists_say_covers_what_prefixes_say_and_never_overlaps_it() {
        let banned = Entry { banned_until: 7, ..Entry::default() };
        let range = |first: &str, last: &str, treatment| {
            let [first, last] =
                [first, last].map(|text| Address::from(text.parse::<std::net::IpAddr>().unwrap()));
            ListedRange { first, last, treatment }
        };
        let lists = [
            range("10.0.0.0", "10.0.0.255", Treatment::Ban),
            range("10.0.1.0", "10.0.1.7", Treatment::Limit),
            range("10.0.2.0", "10.0.9.255", Treatment::Ban),
            range("255.255.255.0", "255.255.255.255", Treatment::Ban),
        ];
        let prefixes = [(prefix("10.0.0.0/22"), banned), (prefix("255.255.0.0/16"), banned)].into();
        let elements = prefix_elements(&prefixes, &lists);
        let shown: Vec<String> = elements["banned_prefixes4"]
            .iter()
            .map(|((first, last), until)| {
                format!("{}-{} {}", address(*first).to_ip(), address(*last).to_ip(), until.min(&9))
            })
            .collect();
        let wanted = [
            "10.0.0.0-10.0.0.255 9",
            "10.0.1.0-10.0.1.255 7",
            "10.0.2.0-10.0.9.255 9",
            "255.255.0.0-255.255.254.255 7",
            "255.255.255.0-255.255.255.255 9",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(elements["limited_prefixes4"].len(), 1);
    }

    #[test]
    fn a_prefix_around_all_of_ipv4_holds_for_both_families() {
        let everybody = Entry { is_allowed: true, ..Entry::default() };
        let elements = prefix_elements(&[(prefix("::/0"), everybody)].into(), &[]);
        assert_eq!(elements["allowed_prefixes4"].len(), 1);
        assert_eq!(elements["allowed_prefixes6"].len(), 2);
    }

    #[test]
    fn what_nft_lists_is_read_back() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"set": {"name": "banned4", "handle": 3, "elem": [
                {"elem": {"val": "192.0.2.7", "timeout": 600, "expires": 598}}, "192.0.2.8",
                {"elem": {"val": {"range": ["10.0.0.0", "10.0.0.9"]}, "expires": 5}},
                {"prefix": {"addr": "10.1.0.0", "len": 16}}]}},
            {"counter": {"name": "ban.address/0", "handle": 5, "packets": 5000000000, "bytes": 7}}]}"#;
        let listing = Listing::read(text).unwrap();
        let elements = &listing.elements["banned4"];
        assert_eq!(elements.len(), 4);
        let v4 = |text: &str| number(Address::from(text.parse::<std::net::IpAddr>().unwrap()));
        assert_eq!(elements[&(v4("192.0.2.7"), v4("192.0.2.7"))], Some(598));
        assert_eq!(elements[&(v4("10.1.0.0"), v4("10.1.255.255"))], None);
        assert_eq!(listing.counters["ban.address/0"], (5_000_000_000, 7));
        assert!(!listing.shape.contains("handle") && listing.shape.contains("banned4"), "{}", listing.shape);
    }
}
