//! Everything to which a subject stands in a relation.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::{Entity, MAX_HOPS, Relations, Subject};
use crate::id::Label;

/// What a reverse look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// The objects, in order.
    pub objects: Vec<Entity>,
    /// Whether there may be more.
    pub truncated: bool,
}

/// How many objects a look-up considers, and how many of them it checks.
const MOST: (usize, usize) = (20_000, 1_000);

impl Relations {
    /// The objects of `namespace` to which `subject` stands in `relation`, at most `limit`.
    ///
    /// Tuples are followed backwards without regard to rules, which only ever finds too much; each find is then checked.
    pub(in crate::policy) fn reached(
        &self,
        subject: &Subject,
        relation: &Label,
        namespace: &str,
        limit: usize,
    ) -> Reached {
        let mut seen: HashSet<Entity> = HashSet::from([subject.entity.clone()]);
        let mut left = VecDeque::from([(subject.entity.clone(), 0)]);
        let mut candidates = BTreeSet::new();
        let mut truncated = false;
        while let Some((entity, hops)) = left.pop_front() {
            if entity.namespace() == namespace {
                candidates.insert(entity.clone());
            }
            // What names the subject itself does not count as a hop of the checks.
            if hops > MAX_HOPS {
                truncated = true;
                continue;
            }
            for mention in self.mentions(&entity) {
                if seen.len() >= MOST.0 {
                    truncated = true;
                    break;
                }
                if seen.insert(mention.object.clone()) {
                    left.push_back((mention.object.clone(), hops + 1));
                }
            }
        }
        truncated |= candidates.len() > MOST.1;
        let held =
            candidates.into_iter().take(MOST.1).filter(|it| self.check(it, relation, subject).is_held());
        let mut objects: Vec<_> = held.take(limit + 1).collect();
        truncated |= objects.len() > limit;
        objects.truncate(limit);
        Reached { objects, truncated }
    }
}
