//! The Merkle tree over an audit log (RFC 9162 section 2.1, with SHA-256): its hashes, how it grows, and proofs.
//!
//! 1. The hash of a leaf is SHA-256 of `0x00` and the leaf's bytes, that of an inner node SHA-256 of `0x01` and its two
//!    children: no node can be taken for a leaf.
//! 2. A log keeps its leaves and a [`Frontier`], the roots of the perfect trees that it consists of. Adding a leaf takes
//!    log₂ n hashes at most and about one on average.
//! 3. Inner nodes are not kept, except the roots of [`BLOCK`] leaves each. A proof is a list of ranges of leaves
//!    ([`inclusion_ranges`], [`consistency_ranges`]), and [`range_root`] makes the hash of each from blocks and leaves.
//!
//! What the leaf of an entry of the audit log is: [`entry_leaf`].

mod proof;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use proof::{
    blocks_of, consistency_ranges, inclusion_ranges, range_root, verify_consistency, verify_inclusion,
    whole_blocks,
};

use crate::{
    clock::Timestamp,
    id::{EventId, OrgId},
};

/// How many leaves a block has.
pub const BLOCK: u64 = 1024;

/// How high the root of a block is above its leaves.
const BLOCK_HEIGHT: u32 = BLOCK.trailing_zeros();

/// The hash of a leaf or of an inner node. Shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node([u8; 32]);

impl Node {
    /// The hash of the leaf with these bytes.
    ///
    /// ```
    /// # use lumoauth_core::merkle::Node;
    /// // RFC 6962 test vector: the leaf of no bytes.
    /// let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
    /// assert_eq!(Node::leaf(&[b""]).to_string(), leaf);
    /// ```
    pub fn leaf(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        parts.iter().for_each(|part| context.update(part));
        Self::finished(context)
    }

    /// The hash of the inner node with these children.
    #[must_use]
    pub fn join(left: Self, right: Self) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[1]);
        context.update(&left.0);
        context.update(&right.0);
        Self::finished(context)
    }

    /// The root of a tree without leaves.
    pub fn empty() -> Self {
        Self::finished(Context::new(&SHA256))
    }

    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn finished(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({self})")
    }
}

/// The text is not a hash: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 lower-case hexadecimal digits")]
#[non_exhaustive]
pub struct ParseNodeError;

impl FromStr for Node {
    type Err = ParseNodeError;

    fn from_str(text: &str) -> Result<Self, ParseNodeError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseNodeError),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(ParseNodeError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The leaf of an entry of an audit log. Its bytes are six lines, joined by `\n` and without one at the end:
///
/// ```text
/// lumoauth-audit-2
/// <the organization>
/// <the number of the entry, decimal>
/// <the id of the event, lower-case with hyphens>
/// <when it happened, decimal, in milliseconds since 1970>
/// <the event, byte for byte the JSON that is stored>
/// ```
///
/// The first five hold no line break, so no two entries have the same bytes, of whichever organization they are.
pub fn entry_leaf(org: &OrgId, seq: u64, event: EventId, at: Timestamp, body: &[u8]) -> Node {
    let (event, at) = (event.uuid().hyphenated(), at.unix_millis());
    let head = format!("lumoauth-audit-2\n{org}\n{seq}\n{event}\n{at}\n");
    Node::leaf(&[head.as_bytes(), body])
}

/// What a tree must remember to grow: the roots of the perfect trees that it consists of, the largest first. Their sizes
/// are the powers of two that the size is the sum of.
///
/// ```
/// # use lumoauth_core::merkle::{Frontier, Node};
/// let mut tree = Frontier::default();
/// assert_eq!(tree.root(), Node::empty());
/// let [one, two] = [Node::leaf(&[b"one"]), Node::leaf(&[b"two"])];
/// tree.push(one);
/// tree.push(two);
/// assert_eq!((tree.size(), tree.root()), (2, Node::join(one, two)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Node>,
}

impl Frontier {
    /// How many leaves the tree has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. If it completes a block of [`BLOCK`] leaves, the root of that block.
    pub fn push(&mut self, leaf: Node) -> Option<Node> {
        let (mut node, mut block) = (leaf, None);
        for height in 1..=self.size.trailing_ones() {
            // There is a peak for every bit of the size.
            let Some(left) = self.peaks.pop() else { break };
            node = Node::join(left, node);
            if height == BLOCK_HEIGHT {
                block = Some(node);
            }
        }
        self.peaks.push(node);
        self.size = self.size.saturating_add(1);
        block
    }

    /// The hash of the whole tree.
    pub fn root(&self) -> Node {
        let joined = self.peaks.iter().rev().copied().reduce(|right, left| Node::join(left, right));
        joined.unwrap_or_else(Node::empty)
    }

    /// The peaks, 32 bytes each, as a store keeps them beside the size.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.peaks.iter().flat_map(|peak| peak.0).collect()
    }

    /// The frontier of `size` leaves that [`Frontier::to_bytes`] wrote. `None` if these cannot be its bytes.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let (peaks, rest) = bytes.as_chunks::<32>();
        let fits =
            rest.is_empty() && u32::try_from(peaks.len()).is_ok_and(|count| count == size.count_ones());
        fits.then(|| Self { size, peaks: peaks.iter().copied().map(Node).collect() })
    }
}
