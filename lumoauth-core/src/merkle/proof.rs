//! Inclusion and consistency proofs (RFC 9162 sections 2.1.3 and 2.1.4).

use std::{collections::BTreeSet, ops::Range};

use super::{BLOCK, Frontier, Node};

/// Where a tree of `size` leaves, at least two, is divided: at the largest power of two below it.
const fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// Which ranges of leaves an inclusion proof consists of, in its order: for the leaf with this index, counted from zero, in
/// the tree of the first `size` leaves. `None` if there is no such leaf.
pub fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// Which ranges of leaves a consistency proof consists of, in its order: that the tree of the first `older` leaves is the
/// beginning of that of the first `newer` ones. `None` if there is no such proof: an older tree without leaves says nothing,
/// and one with more is not older.
pub fn consistency_ranges(older: u64, newer: u64) -> Option<Vec<Range<u64>>> {
    if older == 0 || older > newer {
        return None;
    }
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, newer);
    while end != older {
        let middle = start + split(end - start);
        if older <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    // Whoever asks knows the root of the older tree, if it is one of the nodes.
    if start > 0 {
        ranges.push(start..end);
    }
    ranges.reverse();
    Some(ranges)
}

/// Of which blocks single leaves are needed, to make the hashes of `ranges` with the roots of whole blocks.
pub fn blocks_of(ranges: &[Range<u64>]) -> BTreeSet<u64> {
    ranges
        .iter()
        .map(whole_blocks)
        .filter(|(_, rest)| rest.start < rest.end)
        .map(|(_, rest)| rest.start / BLOCK)
        .collect()
}

/// The blocks that a range of a proof begins with, and the leaves that follow. The range of a proof that is longer than a
/// block begins where a block does.
pub fn whole_blocks(range: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let (first, whole) = (range.start / BLOCK, range.end.saturating_sub(range.start) / BLOCK);
    (first..first + whole, range.start + whole * BLOCK..range.end)
}

/// The hash of a range of leaves of a proof: `blocks` are the roots of the whole blocks that it begins with, `rest` the
/// leaves that follow.
pub fn range_root(blocks: &[Node], rest: &[Node]) -> Node {
    let mut tree = Frontier::default();
    for block in blocks {
        tree.push(*block);
    }
    // A perfect tree of blocks is a perfect tree of leaves.
    tree.size = tree.size.saturating_mul(BLOCK);
    for leaf in rest {
        tree.push(*leaf);
    }
    tree.root()
}

/// Whether `proof` shows that the leaf with this index, counted from zero, is in the tree with this size and root.
pub fn verify_inclusion(leaf: Node, index: u64, size: u64, proof: &[Node], root: Node) -> bool {
    if index >= size {
        return false;
    }
    let (mut fnode, mut snode, mut node) = (index, size - 1, leaf);
    for sibling in proof {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            node = Node::join(*sibling, node);
            if fnode & 1 == 0 {
                let shift = fnode.trailing_zeros().min(u64::BITS - 1);
                fnode >>= shift;
                snode >>= shift;
            }
        } else {
            node = Node::join(node, *sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && node == root
}

/// Whether `proof` shows that the tree with this older size and root is the beginning of the newer one. Trees of one size
/// need no proof, and a tree without leaves is the beginning of each.
pub fn verify_consistency(older: (u64, Node), newer: (u64, Node), proof: &[Node]) -> bool {
    let ((first, first_root), (second, second_root)) = (older, newer);
    if first >= second || first == 0 {
        let same = first == second && first_root == second_root;
        return proof.is_empty() && (same || (first == 0 && second > 0 && first_root == Node::empty()));
    }
    // If the older tree is perfect, its root is the first node of the path, and not repeated in the proof.
    let (start, path) = if first.is_power_of_two() {
        (first_root, proof)
    } else {
        match proof.split_first() {
            Some((start, path)) => (*start, path),
            None => return false,
        }
    };
    let (mut fnode, mut snode) = (first - 1, second - 1);
    let shift = fnode.trailing_ones();
    fnode >>= shift;
    snode >>= shift;
    let (mut of_first, mut of_second) = (start, start);
    for sibling in path {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            of_first = Node::join(*sibling, of_first);
            of_second = Node::join(*sibling, of_second);
            if fnode & 1 == 0 {
                let shift = fnode.trailing_zeros().min(u64::BITS - 1);
                fnode >>= shift;
                snode >>= shift;
            }
        } else {
            of_second = Node::join(of_second, *sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && of_first == first_root && of_second == second_root
}
