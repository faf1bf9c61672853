//! Everybody who stands in a relation to an object, as the tree that makes it so.

use serde::Serialize;

use super::{Entity, Relations, Rewrite, Subject};
use crate::{id::Label, policy::MAX_HOPS};

/// What a node of an expansion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the wire has these types")]
pub enum NodeKind {
    /// Those of any child.
    Union,
    /// Those of all children.
    Intersection,
    /// Those of the first child that are not of the second.
    Exclusion,
    /// Those that it lists.
    Leaf,
}

/// A node of an expansion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExpandedNode {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// Of which object.
    pub object: Entity,
    /// Of which relation.
    pub relation: Label,
    /// What it is made of.
    pub children: Vec<Self>,
    /// Whom it lists, in order. Sets are listed as sets.
    pub subjects: Vec<String>,
    /// Whether there is more that is not shown: it is too much, too far away, or above this node already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The most nodes and the most subjects of an expansion.
const MOST: usize = 10_000;

impl Relations {
    pub(in crate::policy) fn expand(&self, object: &Entity, relation: &Label) -> ExpandedNode {
        Expansion { relations: self, left: MOST, above: Vec::new() }.relation(object, relation)
    }
}

struct Expansion<'a> {
    relations: &'a Relations,
    left: usize,
    above: Vec<(Entity, Label)>,
}

impl Expansion<'_> {
    fn relation(&mut self, object: &Entity, relation: &Label) -> ExpandedNode {
        let place = (object.clone(), relation.clone());
        let rule = self.relations.rule(object, relation);
        match rule {
            Some(rule) if self.above.len() < ROOM && !self.above.contains(&place) => {
                self.above.push(place);
                let node = self.rule(object, relation, rule);
                self.above.pop();
                node
            }
            _ => {
                self.left = self.left.saturating_sub(1);
                node(NodeKind::Leaf, object, relation, rule.is_some())
            }
        }
    }

    fn rule(&mut self, object: &Entity, relation: &Label, rule: &Rewrite) -> ExpandedNode {
        if self.left == 0 {
            return node(NodeKind::Leaf, object, relation, true);
        }
        self.left -= 1;
        let (kind, rules) = match rule {
            Rewrite::This => return self.leaf(object, relation),
            Rewrite::ComputedUserset(other) => return self.relation(object, other),
            Rewrite::TupleToUserset { tupleset, computed_userset } => {
                let mut all = node(NodeKind::Union, object, relation, false);
                let parents = self.relations.subjects(object, tupleset);
                let parents = parents.iter().flat_map(|subjects| &subjects.direct);
                // One more, to see that there are more.
                let mut parents: Vec<_> = parents.take(self.left + 1).collect();
                parents.sort_unstable();
                for parent in parents {
                    if self.left == 0 {
                        all.truncated = true;
                        break;
                    }
                    all.children.push(self.relation(parent, computed_userset));
                }
                return all;
            }
            Rewrite::Union(rules) => (NodeKind::Union, &rules[..]),
            Rewrite::Intersection(rules) => (NodeKind::Intersection, &rules[..]),
            Rewrite::Exclusion(rules) => (NodeKind::Exclusion, &rules[..]),
        };
        let mut all = node(kind, object, relation, false);
        all.children = rules.iter().map(|rule| self.rule(object, relation, rule)).collect();
        all
    }

    fn leaf(&mut self, object: &Entity, relation: &Label) -> ExpandedNode {
        let mut leaf = node(NodeKind::Leaf, object, relation, false);
        if let Some(subjects) = self.relations.subjects(object, relation) {
            let direct = subjects.direct.iter().map(ToString::to_string);
            let sets = subjects.sets.iter().map(|(entity, set)| {
                Subject { entity: entity.clone(), relation: Some(set.clone()) }.to_string()
            });
            leaf.subjects = direct.chain(sets).take(self.left + 1).collect();
            leaf.truncated = leaf.subjects.len() > self.left;
            leaf.subjects.truncate(self.left);
            leaf.subjects.sort_unstable();
            self.left -= leaf.subjects.len();
        }
        leaf
    }
}

/// How many relations deep a tree is shown.
const ROOM: usize = 2 * MAX_HOPS as usize;

fn node(kind: NodeKind, object: &Entity, relation: &Label, truncated: bool) -> ExpandedNode {
    ExpandedNode {
        kind,
        object: object.clone(),
        relation: relation.clone(),
        children: Vec::new(),
        subjects: Vec::new(),
        truncated,
    }
}
