//! The tree against the recursive definition of RFC 9162, against the vectors of RFC 6962, and against forgeries.

use std::ops::Range;

use proptest::prelude::*;

use super::*;

/// `MTH` as section 2.1.1 defines it.
fn naive(leaves: &[Node]) -> Node {
    match leaves {
        [] => Node::empty(),
        [leaf] => *leaf,
        more => {
            let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
            Node::join(naive(left), naive(right))
        }
    }
}

/// `PATH` as section 2.1.3.1 defines it.
fn naive_path(index: usize, leaves: &[Node]) -> Vec<Node> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, other) = if index < left.len() {
        (naive_path(index, left), right)
    } else {
        (naive_path(index - left.len(), right), left)
    };
    path.push(naive(other));
    path
}

/// `SUBPROOF` as section 2.1.4.1 defines it.
fn naive_subproof(older: usize, leaves: &[Node], known: bool) -> Vec<Node> {
    if older == leaves.len() {
        return if known { Vec::new() } else { vec![naive(leaves)] };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, other) = if older <= left.len() {
        (naive_subproof(older, left, known), right)
    } else {
        (naive_subproof(older - left.len(), right, false), left)
    };
    proof.push(naive(other));
    proof
}

fn some_leaves(count: usize) -> Vec<Node> {
    (0..count).map(|n| Node::leaf(&[&n.to_be_bytes()])).collect()
}

fn grown(leaves: &[Node]) -> (Frontier, Vec<Node>) {
    let mut tree = Frontier::default();
    let blocks = leaves.iter().filter_map(|leaf| tree.push(*leaf)).collect();
    (tree, blocks)
}

/// The hash of a range, from blocks where it can be.
fn hash(range: &Range<u64>, blocks: &[Node], leaves: &[Node]) -> Node {
    let (whole, rest) = whole_blocks(range);
    assert!(whole.is_empty() || range.start.is_multiple_of(BLOCK), "whole blocks begin where blocks do");
    let needed = blocks_of(std::slice::from_ref(range));
    assert!(rest.clone().all(|leaf| needed.contains(&(leaf / BLOCK))), "{range:?} {needed:?}");
    let at = |n: u64| usize::try_from(n).unwrap();
    range_root(&blocks[at(whole.start)..at(whole.end)], &leaves[at(rest.start)..at(rest.end)])
}

#[test]
fn the_vectors_of_certificate_transparency() {
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut tree = Frontier::default();
    assert_eq!(tree.root().to_string(), empty);
    for (leaf, root) in leaves.iter().zip(roots) {
        tree.push(Node::leaf(&[leaf]));
        assert_eq!(tree.root().to_string(), root);
    }
}

#[test]
fn the_bytes_of_an_entry_are_what_the_documentation_says() {
    let event = EventId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let org = OrgId::parse("acme").unwrap();
    let leaf = entry_leaf(&org, 7, event, Timestamp::from_unix_millis(1_790_000_000_123), b"{\"a\":1}");
    let bytes = b"lumoauth-audit-2\nacme\n7\n01890a5d-ac96-774b-bcce-b302099a8057\n1790000000123\n{\"a\":1}";
    assert_eq!(leaf, Node::leaf(&[bytes]));
}

#[test]
fn hashes_are_written_one_way() {
    let node = Node::leaf(&[b"x"]);
    assert_eq!(node.to_string().parse(), Ok(node));
    let text = node.to_string();
    for bad in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace(&text[..1], "g")] {
        assert_eq!(bad.parse::<Node>(), Err(ParseNodeError), "{bad}");
    }
}

#[test]
fn every_proof_of_every_small_tree_is_that_of_the_definition() {
    let all = some_leaves(40);
    for size in 1..=all.len() {
        let (leaves, wide) = (&all[..size], u64::try_from(size).unwrap());
        let (tree, blocks) = grown(leaves);
        assert_eq!(tree.root(), naive(leaves));
        for (index, leaf) in leaves.iter().enumerate() {
            let at = u64::try_from(index).unwrap();
            let proof: Vec<_> = inclusion_ranges(at, wide)
                .unwrap()
                .iter()
                .map(|range| hash(range, &blocks, leaves))
                .collect();
            assert_eq!(proof, naive_path(index, leaves));
            assert!(verify_inclusion(*leaf, at, wide, &proof, tree.root()));
            for other in (0..wide).filter(|other| *other != at) {
                assert!(!verify_inclusion(*leaf, other, wide, &proof, tree.root()), "{at} {other} {wide}");
            }
        }
        for older in 1..=size {
            let from = u64::try_from(older).unwrap();
            let ranges = consistency_ranges(from, wide).unwrap();
            let proof: Vec<_> = ranges.iter().map(|range| hash(range, &blocks, leaves)).collect();
            assert_eq!(proof, naive_subproof(older, leaves, true), "{older} {size}");
            let (old, new) = ((from, naive(&leaves[..older])), (wide, tree.root()));
            assert!(verify_consistency(old, new, &proof), "{older} {size}");
            if older < size {
                assert!(!verify_consistency((from, new.1), new, &proof));
                assert!(!verify_consistency(old, (wide, old.1), &proof));
            }
        }
    }
    assert_eq!((inclusion_ranges(0, 0), inclusion_ranges(3, 3)), (None, None));
    assert_eq!((consistency_ranges(0, 3), consistency_ranges(4, 3)), (None, None));
}

#[test]
fn nothing_proves_and_nothing_panics_at_the_edges() {
    let node = Node::leaf(&[b"x"]);
    for (index, size) in [(0, 0), (1, 1), (u64::MAX, u64::MAX), (0, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        for length in [0, 1, 63, 64, 65, 200] {
            assert!(!verify_inclusion(node, index, size, &vec![node; length], node));
            assert!(!verify_consistency((index, node), (size, Node::empty()), &vec![node; length]));
        }
    }
    assert!(inclusion_ranges(u64::MAX - 1, u64::MAX).is_some());
    assert!(consistency_ranges(u64::MAX - 1, u64::MAX).is_some());
    assert!(verify_consistency((0, Node::empty()), (3, node), &[]));
    assert!(!verify_consistency((0, node), (3, node), &[]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn trees_over_blocks_are_those_of_the_definition(size in 1_usize..5000, of in any::<(u64, u64)>(), bit in 0_usize..256) {
        let leaves = some_leaves(size);
        let (tree, blocks) = grown(&leaves);
        let wide = u64::try_from(size).unwrap();
        let root = naive(&leaves);
        prop_assert_eq!(tree.root(), root);
        prop_assert_eq!(u64::try_from(blocks.len()).unwrap(), wide / BLOCK);
        prop_assert_eq!(Frontier::from_bytes(wide, &tree.to_bytes()), Some(tree.clone()));
        prop_assert_eq!(Frontier::from_bytes(wide * 2 + 1, &tree.to_bytes()), None);

        let (index, older) = (of.0 % wide, of.1 % wide + 1);
        let at = usize::try_from(index).unwrap();
        let ranges = inclusion_ranges(index, wide).unwrap();
        let mut proof: Vec<_> = ranges.iter().map(|range| hash(range, &blocks, &leaves)).collect();
        prop_assert_eq!(&proof, &naive_path(at, &leaves));
        prop_assert!(verify_inclusion(leaves[at], index, wide, &proof, root));

        let start = usize::try_from(older).unwrap();
        let ranges = consistency_ranges(older, wide).unwrap();
        let mut consistency: Vec<_> = ranges.iter().map(|range| hash(range, &blocks, &leaves)).collect();
        prop_assert_eq!(&consistency, &naive_subproof(start, &leaves, true));
        let (old, new) = ((older, naive(&leaves[..start])), (wide, root));
        prop_assert!(verify_consistency(old, new, &consistency));

        // One bit of one hash.
        for proof in [&mut proof, &mut consistency] {
            let place = bit % proof.len().max(1);
            if let Some(node) = proof.get_mut(place) {
                node.0[bit / 8] ^= 1 << (bit % 8);
            }
        }
        prop_assert!(proof.is_empty() || !verify_inclusion(leaves[at], index, wide, &proof, root));
        prop_assert!(consistency.is_empty() || !verify_consistency(old, new, &consistency));
    }
}
