//! What lists say of an address, found in a time that does not depend on how many prefixes they have.
//!
//! The kernel's trie of prefixes waits for memory at each bit that tells two of them apart. So lists lie as ranges that do
//! not overlap in *trees* whose nodes are one cache line each, and the program searches them itself: half a million IPv4
//! prefixes are at most five lines deep, of which the upper three stay in the processor's nearest cache. What nested
//! prefixes say together is settled when the trees are built ([`image`]).
//!
//! One *image* holds three trees: IPv4 addresses by 32 bits; IPv6 by the upper 64; and, for every /64 in which single
//! addresses differ, IPv6 by all 128. In the kernel two images lie in one array, and its first node says which is in
//! force ([`FRONT`]): one word, read once per packet, so that no packet meets two lists or half a list.
//!
//! Node numbers within an image count from its first node, the *head*, which says where the roots are.

#[cfg(feature = "std")]
pub mod image;

use crate::{Address, word::Word};

/// Words in one node.
pub const NODE_WORDS: usize = 8;

/// 64 bytes: as many keys as fit, in rising order, and one more number, the *link*: an inner node's first child, or what a
/// leaf's ranges are treated with. Keys are where the second range begins, the third, and so on; where the first begins
/// the node above has said.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Node(pub [Word; NODE_WORDS]);

/// Number of the array's first node. Its first word is the number of the head in force, 0 for none.
pub const FRONT: u32 = 0;

/// Words of a head: the three trees, and how many nodes the image has.
pub mod head {
    /// IPv4 addresses.
    pub const V4: usize = 0;
    /// IPv6 by its upper half.
    pub const NETWORKS: usize = 1;
    /// IPv6 addresses in networks that are [`super::MIXED`].
    pub const HOSTS: usize = 2;
    /// Nodes of the image.
    pub const NODES: usize = 3;
}

/// What becomes of who is on a list. Where several hold an address, the greatest counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Treatment {
    /// Held to the tightest limits.
    Limit = 1,
    /// Dropped.
    Ban = 2,
    /// Let in, whatever the rules say.
    Allow = 3,
}

impl Treatment {
    /// Every treatment.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Limit, Self::Ban];

    /// The name in the configuration and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Limit => "limit",
            Self::Ban => "ban",
        }
    }

    /// The treatment with this number; none for 0.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Limit),
            2 => Some(Self::Ban),
            3 => Some(Self::Allow),
            _ => None,
        }
    }
}

/// On no list.
pub const UNLISTED: u8 = 0;
/// Of a /64 in which addresses differ.
pub const MIXED: u8 = 4;

/// An array of nodes; none where it has ended.
pub trait Nodes {
    /// The node with this number.
    fn node(&self, number: u32) -> Option<&Node>;

    /// The number, about which the compiler knows nothing any longer. Otherwise LLVM makes sixteen branches of sixteen
    /// comparisons, and the verifier walks every way through them.
    #[inline(always)]
    fn opaque(&self, number: u64) -> u64 {
        number
    }

    /// The number, about which the verifier knows nothing any longer: it walks on from here once, and not once per number.
    #[inline(always)]
    fn blur(&self, number: u32) -> u32 {
        number
    }
}

/// What a tree is searched by.
pub trait Key: Copy + Ord {
    /// Children of an inner node, ranges of a leaf.
    const FAN_OUT: usize;
    /// Nodes from the root to a leaf, at most: one more than twice as many ranges take as there may be prefixes.
    const LEVELS: usize;
    /// Bits in which a leaf says how one of its ranges is treated.
    const TREATMENT_BITS: usize;
    /// The greatest, with which keys that a node lacks are filled. No source has it, and it is looked up as the one below.
    const LAST: Self;

    /// How many keys of a node are no greater: the number of the child or range to look at.
    fn rank<N: Nodes>(self, nodes: &N, node: &Node) -> usize;
    /// A node's link.
    fn link(node: &Node) -> u64;
}

/// 1 if `start` lies before `after`, without a branch that could be guessed wrongly; both below 2^63.
#[inline(always)]
fn reaches<N: Nodes>(nodes: &N, after: u64, start: u64) -> u64 {
    nodes.opaque(start.wrapping_sub(after)) >> 63
}

impl Key for u32 {
    const FAN_OUT: usize = 16;
    const LEVELS: usize = 6;
    const TREATMENT_BITS: usize = 2;
    const LAST: Self = Self::MAX;

    #[inline(always)]
    fn rank<N: Nodes>(self, nodes: &N, node: &Node) -> usize {
        let after = self.min(Self::LAST - 1) as u64 + 1;
        let mut rank = 0_u64;
        let mut word = 0;
        while word < NODE_WORDS {
            let keys = node.0[word].load();
            rank += reaches(nodes, after, keys & 0xffff_ffff);
            if word + 1 < NODE_WORDS {
                rank += reaches(nodes, after, keys >> 32);
            }
            word += 1;
        }
        rank as usize
    }

    #[inline(always)]
    fn link(node: &Node) -> u64 {
        node.0[NODE_WORDS - 1].load() >> 32
    }
}

impl Key for u64 {
    const FAN_OUT: usize = 8;
    const LEVELS: usize = 8;
    const TREATMENT_BITS: usize = 8;
    const LAST: Self = Self::MAX;

    #[inline(always)]
    fn rank<N: Nodes>(self, nodes: &N, node: &Node) -> usize {
        let key = self.min(Self::LAST - 1);
        let mut rank = 0;
        while rank + 1 < NODE_WORDS && node.0[rank].load() <= key {
            rank += 1;
        }
        nodes.blur(rank as u32) as usize
    }

    #[inline(always)]
    fn link(node: &Node) -> u64 {
        node.0[NODE_WORDS - 1].load()
    }
}

impl Key for Address {
    const FAN_OUT: usize = 4;
    const LEVELS: usize = 12;
    const TREATMENT_BITS: usize = 8;
    const LAST: Self = Self { high: u64::MAX, low: u64::MAX };

    #[inline(always)]
    fn rank<N: Nodes>(self, nodes: &N, node: &Node) -> usize {
        let low = if self.high == u64::MAX { self.low.min(u64::MAX - 1) } else { self.low };
        let mut rank = 0;
        while rank + 1 < Self::FAN_OUT {
            let high = node.0[2 * rank].load();
            if high > self.high || (high == self.high && node.0[2 * rank + 1].load() > low) {
                break;
            }
            rank += 1;
        }
        nodes.blur(rank as u32) as usize
    }

    #[inline(always)]
    fn link(node: &Node) -> u64 {
        node.0[NODE_WORDS - 1].load()
    }
}

/// How an image treats an address.
#[inline(always)]
pub fn listed<N: Nodes>(nodes: &N, head: u32, address: &Address) -> Option<Treatment> {
    let roots = nodes.node(head)?;
    let number = match address.as_v4() {
        Some(bits) => find(nodes, head, roots.0[head::V4].load(), bits),
        None => match find(nodes, head, roots.0[head::NETWORKS].load(), address.high) {
            MIXED => find(nodes, head, roots.0[head::HOSTS].load(), *address),
            number => number,
        },
    };
    Treatment::from_number(number)
}

/// A tree as a head has it: the number of its root, and how many levels lie below that; 0 for none.
#[cfg(feature = "std")]
const fn tree(root: u64, below: u64) -> u64 {
    below << 32 | root
}

#[inline(always)]
fn find<K: Key, N: Nodes>(nodes: &N, head: u32, tree: u64, key: K) -> u8 {
    if tree == 0 {
        return UNLISTED;
    }
    let (mut at, mut below) = (tree as u32, (tree >> 32) as u32);
    let mut level = 0;
    while level < K::LEVELS {
        let Some(node) = nodes.node(head.wrapping_add(at)) else { return UNLISTED };
        let (rank, link) = (key.rank(nodes, node), K::link(node));
        if below == 0 {
            let mask = (1 << K::TREATMENT_BITS) - 1;
            return ((link >> (rank * K::TREATMENT_BITS)) & mask) as u8;
        }
        at = (link as u32).wrapping_add(rank as u32);
        below = below.wrapping_sub(1);
        level += 1;
    }
    UNLISTED
}
