//! Merkle trees as in RFC 9162 §2.1, over SHA-256: one signature over the
//! root stands for every leaf, and a leaf proves its place with a path.

use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// The longest path that is looked at: trees of up to 65,536 leaves.
pub const MAX_PATH: usize = 16;

/// The hash of a leaf.
pub fn leaf(bytes: &[u8]) -> Digest {
    Digest(Sha256::new_with_prefix([0]).chain_update(bytes).finalize().into())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let hash = Sha256::new_with_prefix([1])
        .chain_update(left.0)
        .chain_update(right.0);
    Digest(hash.finalize().into())
}

/// A tree, held whole, to take paths from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves to the root; none is empty, and the last holds one.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over these leaves; `None` without any.
    pub fn new<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut level: Vec<Digest> = leaves.into_iter().map(leaf).collect();
        if level.is_empty() {
            return None;
        }
        let mut levels = Vec::new();
        while level.len() > 1 {
            // A node without a neighbour moves up as it is, which gives the
            // tree of RFC 9162 without its recursion.
            let above = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node(left, right),
                    alone => alone.first().copied().unwrap_or(Digest::ZERO),
                })
                .collect();
            levels.push(core::mem::replace(&mut level, above));
        }
        levels.push(level);
        Some(Self { levels })
    }

    /// What is signed.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or(Digest::ZERO)
    }

    /// How many leaves.
    pub fn leaves(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// From the leaf of this index up to the root, the neighbours on the way;
    /// `None` beyond the last leaf.
    pub fn path(&self, index: usize) -> Option<Vec<Digest>> {
        let mut at = (index < self.leaves()).then_some(index)?;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            path.extend(level.get(at ^ 1).copied());
            at >>= 1;
        }
        Some(path)
    }
}

/// The root of the tree of `leaves` leaves in which this leaf has this index
/// and this path (RFC 9162 §2.1.3.2); `None` if no such tree has such a path.
pub fn root_of(leaf: Digest, index: u32, leaves: u32, path: &[Digest]) -> Option<Digest> {
    let (mut at, mut last) = (index, leaves.checked_sub(1)?);
    if at > last || path.len() > MAX_PATH {
        return None;
    }
    let mut root = leaf;
    for neighbour in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = node(neighbour, &root);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            root = node(&root, neighbour);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9162 §2.1.1 word for word.
    fn by_the_standard(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [one] => leaf(one),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                node(&by_the_standard(left), &by_the_standard(right))
            }
        }
    }

    fn leaves(n: usize) -> Vec<Vec<u8>> {
        (0..n).map(|i| i.to_be_bytes().to_vec()).collect()
    }

    fn tree(leaves: &[Vec<u8>]) -> Tree {
        Tree::new(leaves.iter().map(Vec::as_slice)).unwrap()
    }

    #[test]
    fn trees_of_all_sizes_have_the_standards_root_and_their_paths_lead_to_it() {
        for n in 1..=130 {
            let leaves = leaves(n);
            let tree = tree(&leaves);
            assert_eq!(tree.root(), by_the_standard(&leaves), "{n} leaves");
            for (index, bytes) in leaves.iter().enumerate() {
                let path = tree.path(index).unwrap();
                let found = root_of(leaf(bytes), index as u32, n as u32, &path);
                assert_eq!(found, Some(tree.root()), "leaf {index} of {n}");
            }
            assert_eq!(tree.path(n), None);
        }
        assert_eq!(Tree::new([]), None);
    }

    #[test]
    fn no_other_leaf_index_size_or_path_leads_to_the_root() {
        for n in 1..=20_u32 {
            let leaves = leaves(n as usize);
            let tree = tree(&leaves);
            for index in 0..n {
                let own = leaf(&leaves[index as usize]);
                let path = tree.path(index as usize).unwrap();
                let leads = |leaf, index, size, path: &[Digest]| {
                    root_of(leaf, index, size, path) == Some(tree.root())
                };
                assert!(!leads(leaf(b"other"), index, n, &path));
                for other in (0..n + 2).filter(|other| *other != index) {
                    assert!(!leads(own, other, n, &path), "{index} as {other} of {n}");
                }
                for cut in 0..path.len() {
                    assert!(!leads(own, index, n, &path[..cut]));
                    let mut changed = path.clone();
                    changed[cut].0[0] ^= 1;
                    assert!(!leads(own, index, n, &changed));
                }
                let longer = [&path[..], &[Digest::ZERO]].concat();
                assert!(!leads(own, index, n, &longer));
                assert!(!leads(own, index, 0, &path));
            }
        }
    }

    #[test]
    fn a_path_longer_than_any_tree_in_use_is_not_followed() {
        let path = [Digest::ZERO; MAX_PATH + 1];
        assert_eq!(root_of(leaf(b"x"), 0, u32::MAX, &path), None);
    }
}
