//! The trees of [`super`], built.

use super::{Key, MIXED, NODE_WORDS, Node, Nodes, Treatment, UNLISTED, head, tree};
use crate::Address;

/// Addresses from the first to the last that are treated alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// The first.
    pub first: Address,
    /// The last.
    pub last: Address,
    /// How.
    pub treatment: Treatment,
}

/// What lists say, as the gate searches it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    nodes: Vec<Node>,
}

/// From where on something is said, and what. Steps begin at the least address, in rising order.
type Step<K> = (K, u64);

/// All of IPv4, as our addresses have it.
const V4_FIRST: Address = Address::from_v4(0);
const V4_LAST: Address = Address::from_v4(u32::MAX);
const NOTHING: u64 = UNLISTED as u64;

impl Image {
    /// Of ranges in rising order that do not overlap.
    pub fn build(ranges: &[Range]) -> Self {
        let steps = steps(ranges);
        let v6 = v6_steps(&steps);
        let mut nodes = vec![Node::default()];
        let trees = [
            (head::V4, plant(&mut nodes, &v4_steps(&steps))),
            (head::NETWORKS, plant(&mut nodes, &network_steps(&v6))),
            (head::HOSTS, plant(&mut nodes, &host_steps(&v6))),
        ];
        let count = nodes.len() as u64;
        if let Some(Node(roots)) = nodes.first() {
            for (word, value) in trees.into_iter().chain([(head::NODES, count)]) {
                roots[word].store(value);
            }
        }
        Self { nodes }
    }

    /// Its nodes, the head first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How an address is treated.
    pub fn listed(&self, address: &Address) -> Option<Treatment> {
        super::listed(self, 0, address)
    }
}

impl Nodes for Image {
    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }
}

/// The address after one; `None` behind the last of all.
const fn after(address: Address) -> Option<Address> {
    match address.low.checked_add(1) {
        Some(low) => Some(Address { low, ..address }),
        None => match address.high.checked_add(1) {
            Some(high) => Some(Address { high, low: 0 }),
            None => None,
        },
    }
}

/// Says something from an address on, in place of what is said there, unless it is said already.
fn say<K: PartialEq>(steps: &mut Vec<Step<K>>, start: K, said: u64) {
    steps.pop_if(|(last, _)| *last == start);
    if steps.last().is_none_or(|(_, before)| *before != said) {
        steps.push((start, said));
    }
}

/// What is said at an address.
fn said_at(steps: &[Step<Address>], address: Address) -> u64 {
    let count = steps.partition_point(|(start, _)| *start <= address);
    steps.get(count.wrapping_sub(1)).map_or(NOTHING, |(_, said)| *said)
}

fn steps(ranges: &[Range]) -> Vec<Step<Address>> {
    let mut steps = Vec::with_capacity(2 * ranges.len() + 1);
    steps.push((Address::default(), NOTHING));
    for range in ranges {
        say(&mut steps, range.first, range.treatment as u64);
        if let Some(end) = after(range.last) {
            say(&mut steps, end, NOTHING);
        }
    }
    steps
}

fn v4_steps(all: &[Step<Address>]) -> Vec<Step<u32>> {
    let mut steps = vec![(0, said_at(all, V4_FIRST))];
    for (start, said) in all {
        if let Some(bits) = start.as_v4() {
            say(&mut steps, bits, *said);
        }
    }
    steps
}

/// Without IPv4, which lies in the midst of a /64.
fn v6_steps(all: &[Step<Address>]) -> Vec<Step<Address>> {
    let (before, others) = all.split_at(all.partition_point(|(start, _)| *start < V4_FIRST));
    let mut steps = before.to_vec();
    if let Some(end) = after(V4_LAST) {
        say(&mut steps, end, said_at(all, end));
        for (start, said) in others.iter().filter(|(start, _)| *start > end) {
            say(&mut steps, *start, *said);
        }
    }
    steps
}

/// Steps of one /64 after another, with what was said in front of each.
fn by_network(all: &[Step<Address>]) -> impl Iterator<Item = (&[Step<Address>], u64)> {
    let mut said = NOTHING;
    all.chunk_by(|(one, _), (other, _)| one.high == other.high).map(move |network| {
        let before = said;
        said = network.last().map_or(said, |(_, last)| *last);
        (network, before)
    })
}

fn is_mixed(network: &[Step<Address>]) -> bool {
    network.iter().any(|(start, _)| start.low != 0)
}

fn network_steps(all: &[Step<Address>]) -> Vec<Step<u64>> {
    let mut steps = vec![(0, NOTHING)];
    for (network, _) in by_network(all) {
        let Some(((start, _), (_, last))) = network.first().zip(network.last()) else { continue };
        if is_mixed(network) {
            say(&mut steps, start.high, u64::from(MIXED));
            if let Some(next) = start.high.checked_add(1) {
                say(&mut steps, next, *last);
            }
        } else {
            say(&mut steps, start.high, *last);
        }
    }
    steps
}

fn host_steps(all: &[Step<Address>]) -> Vec<Step<Address>> {
    let mut steps = vec![(Address::default(), NOTHING)];
    for (network, before) in by_network(all).filter(|(network, _)| is_mixed(network)) {
        for (position, (start, said)) in network.iter().enumerate() {
            if position == 0 {
                say(&mut steps, Address { low: 0, ..*start }, before);
            }
            say(&mut steps, *start, *said);
        }
    }
    steps
}

/// How keys lie in a node.
trait Planted: Key {
    fn write(self, node: &Node, at: usize);
    fn write_link(node: &Node, link: u64);
}

impl Planted for u32 {
    fn write(self, Node(words): &Node, at: usize) {
        words[at / 2].store(words[at / 2].load() | u64::from(self) << (32 * (at % 2)));
    }

    fn write_link(Node(words): &Node, link: u64) {
        let last = &words[NODE_WORDS - 1];
        last.store(last.load() | link << 32);
    }
}

impl Planted for u64 {
    fn write(self, Node(words): &Node, at: usize) {
        words[at].store(self);
    }

    fn write_link(Node(words): &Node, link: u64) {
        words[NODE_WORDS - 1].store(link);
    }
}

impl Planted for Address {
    fn write(self, Node(words): &Node, at: usize) {
        words[2 * at].store(self.high);
        words[2 * at + 1].store(self.low);
    }

    fn write_link(Node(words): &Node, link: u64) {
        words[NODE_WORDS - 1].store(link);
    }
}

/// Adds a tree to an image, the leaves first; answers it as a head has it.
fn plant<K: Planted>(nodes: &mut Vec<Node>, steps: &[Step<K>]) -> u64 {
    if steps.iter().all(|(_, said)| *said == NOTHING) {
        return 0;
    }
    let treatments = |ranges: &[Step<K>]| {
        let said = |rank| ranges.get(rank).or_else(|| ranges.last()).map_or(NOTHING, |(_, said)| *said);
        let shifted = |rank: usize| said(rank) << (rank * K::TREATMENT_BITS);
        (0..K::FAN_OUT).map(shifted).fold(0, |link, one| link | one)
    };
    let first_child = |children: &[Step<K>]| children.first().map_or(0, |(_, number)| *number);
    let mut below = 0;
    let mut layer = grow(nodes, steps, treatments);
    while layer.len() > 1 {
        layer = grow(nodes, &layer, first_child);
        below += 1;
    }
    tree(first_child(&layer), below)
}

/// Adds one layer of nodes; answers where each begins, and its number.
fn grow<K: Planted>(
    nodes: &mut Vec<Node>,
    parts: &[Step<K>],
    link: impl Fn(&[Step<K>]) -> u64,
) -> Vec<Step<K>> {
    let mut layer = Vec::with_capacity(parts.len().div_ceil(K::FAN_OUT));
    for parts in parts.chunks(K::FAN_OUT) {
        let Some((start, _)) = parts.first() else { continue };
        let node = Node::default();
        for at in 1..K::FAN_OUT {
            parts.get(at).map_or(K::LAST, |(start, _)| *start).write(&node, at - 1);
        }
        K::write_link(&node, link(parts));
        layer.push((*start, nodes.len() as u64));
        nodes.push(node);
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u128) -> Address {
        Address { high: (number >> 64) as u64, low: number as u64 }
    }

    fn number(address: Address) -> u128 {
        u128::from(address.high) << 64 | u128::from(address.low)
    }

    /// Ranges between rising bounds.
    fn ranges(bounds: &[u128], treatments: &[Option<Treatment>]) -> Vec<Range> {
        let between = bounds.windows(2).zip(treatments.iter().cycle());
        between
            .filter_map(|(bounds, treatment)| {
                let (first, last) = (address(bounds[0]), address(bounds[1] - 1));
                treatment.map(|treatment| Range { first, last, treatment })
            })
            .collect()
    }

    fn slow(ranges: &[Range], address: Address) -> Option<Treatment> {
        let holds = |range: &&Range| range.first <= address && address <= range.last;
        ranges.iter().find(holds).map(|range| range.treatment)
    }

    fn assert_found(ranges: &[Range], image: &Image) {
        for range in ranges {
            for bound in [range.first, range.last] {
                for near in [number(bound).wrapping_sub(1), number(bound), number(bound).wrapping_add(1)] {
                    let near = address(near);
                    if !near.is_impossible_source() {
                        assert_eq!(image.listed(&near), slow(ranges, near), "{near}");
                    }
                }
            }
        }
    }

    fn treatments() -> impl Strategy<Value = Vec<Option<Treatment>>> {
        let all = [None, Some(Treatment::Limit), Some(Treatment::Ban), Some(Treatment::Allow)];
        prop::collection::vec(prop::sample::select(all.to_vec()), 1..9)
    }

    /// Where bounds may lie: close together, so that they meet; and far apart.
    fn bound() -> impl Strategy<Value = u128> {
        let v4 = number(V4_FIRST);
        prop_oneof![
            (0_u128..600).prop_map(move |near| v4 + near),
            (0_u128..=0xffff_ffff).prop_map(move |bits| v4 + bits),
            (0_u128..600).prop_map(move |near| v4 - 300 + near),
            (0_u128..600).prop_map(move |near| v4 + (1 << 32) - 300 + near),
            (0_u128..64).prop_map(|network| (0x2001_0db8 << 96) + (network << 64)),
            (0_u128..64, 0_u128..8).prop_map(|(network, host)| (0x2001_0db8 << 96) + (network << 64) + host),
            any::<u128>(),
        ]
    }

    proptest! {
        #[test]
        fn every_address_is_treated_as_its_range(
            bounds in prop::collection::btree_set(bound(), 2..800),
            treatments in treatments(),
        ) {
            let ranges = ranges(&bounds.into_iter().collect::<Vec<_>>(), &treatments);
            assert_found(&ranges, &Image::build(&ranges));
        }
    }

    #[test]
    fn nothing_is_said_by_no_lists() {
        for image in [Image::default(), Image::build(&[])] {
            assert_eq!(image.listed(&Address::from_v4(0x0a00_0001)), None);
            assert_eq!(image.listed(&Address::from_v6(0x2001_0db8_0000_0000, 1)), None);
        }
        assert_eq!(Image::build(&[]).nodes().len(), 1);
    }

    #[test]
    fn everybody_is_let_in_by_a_list_of_everybody() {
        let everybody = Range { first: address(0), last: address(u128::MAX), treatment: Treatment::Allow };
        let image = Image::build(&[everybody]);
        for one in [Address::from_v4(0x0a00_0001), Address::from_v6(0x2001_0db8_0000_0000, 1)] {
            assert_eq!(image.listed(&one), Some(Treatment::Allow), "{one}");
        }
    }

    /// As many as there may be, with gaps between all of them: no tree is deeper than the gate looks.
    #[test]
    fn as_many_as_there_may_be_are_found() {
        /// The first address of one with this number, and how many there are.
        type Place = fn(u128) -> (u128, u128);
        const MOST: u32 = crate::tables::LISTED_MAX;
        let kinds: [(&str, Place); 3] = [
            ("IPv4", |number| (0xffff_0b00_0000 + number * 8, 4)),
            ("IPv6 networks", |number| ((0x2001_0db8 << 96) + (number << 66), 1 << 64)),
            ("IPv6 addresses", |number| ((0x2001_0db8 << 96) + (number << 66) + 7, 1)),
        ];
        for (what, place) in kinds {
            let range = |number| {
                let (first, length) = place(u128::from(number));
                let treatment = if number % 2 == 0 { Treatment::Ban } else { Treatment::Limit };
                Range { first: address(first), last: address(first + length - 1), treatment }
            };
            let ranges: Vec<Range> = (0..MOST).map(range).collect();
            let image = Image::build(&ranges);
            println!("{what}: {} nodes", image.nodes().len());
            for range in ranges.iter().step_by(97).chain(ranges.last()) {
                assert_eq!(image.listed(&range.first), Some(range.treatment), "{what}: {}", range.first);
                let end = address(number(range.last) + 1);
                assert_eq!(image.listed(&end), None, "{what}: {end}");
            }
        }
    }
}
