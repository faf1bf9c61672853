//! Everything to which a subject stands in a relation.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::{Entity, MAX_HOPS, Relations, Subject, check::MAX_STEPS};
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

/// How much work all checks of one look-up are together.
const WORK: u32 = 5 * MAX_STEPS;

/// The namespace and the relation of groups that have roles.
const GROUP: (&str, &str) = ("group", "member");

/// What tuples lead to from a subject, followed backwards without regard to rules: too much, but nothing is missing, unless
/// it is cut off.
struct Around {
    all: HashSet<Entity>,
    /// Those of the namespace that is looked for.
    wanted: BTreeSet<Entity>,
    cut_off: bool,
}

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
        let around = self.around(&subject.entity, namespace);
        let mut truncated = around.cut_off || around.wanted.len() > MOST.1;
        let mut objects = Vec::new();
        let mut work = WORK;
        for object in around.wanted.iter().take(MOST.1) {
            if objects.len() > limit || work == 0 {
                break;
            }
            if self.check_within(object, relation, subject, around.bounds(), &mut work).is_held() {
                objects.push(object.clone());
            }
        }
        truncated |= objects.len() > limit || work == 0;
        objects.truncate(limit);
        Reached { objects, truncated }
    }

    /// Those of the groups that are `wanted` of which `subject` is a member, by the same rules as every other relation.
    pub(in crate::policy) fn groups_of(
        &self,
        subject: &Subject,
        wanted: impl Fn(&Label) -> bool,
    ) -> Vec<Label> {
        let Ok(member) = Label::parse(GROUP.1) else { return Vec::new() };
        let around = self.around(&subject.entity, GROUP.0);
        let mut work = MAX_STEPS;
        let mut groups = Vec::new();
        for object in &around.wanted {
            let Ok(group) = Label::parse(object.id()) else { continue };
            if work > 0
                && wanted(&group)
                && self.check_within(object, &member, subject, around.bounds(), &mut work).is_held()
            {
                groups.push(group);
            }
        }
        groups
    }

    fn around(&self, start: &Entity, namespace: &str) -> Around {
        let leading = self.leading_to(namespace);
        let mut around =
            Around { all: HashSet::from([start.clone()]), wanted: BTreeSet::new(), cut_off: false };
        let mut left = VecDeque::from([(start.clone(), 0)]);
        while let Some((entity, hops)) = left.pop_front() {
            if entity.namespace() == namespace {
                around.wanted.insert(entity.clone());
            }
            // What names the subject itself does not count as a hop of the checks.
            if hops > MAX_HOPS {
                around.cut_off = true;
                continue;
            }
            for object in leading.iter().flat_map(|namespace| self.mentions(&entity, namespace)) {
                if around.all.len() >= MOST.0 {
                    around.cut_off = true;
                    break;
                }
                if around.all.insert(object.clone()) {
                    left.push_back((object.clone(), hops + 1));
                }
            }
        }
        around
    }
}

impl Around {
    /// What a check need not look beyond, if nothing is missing.
    fn bounds(&self) -> Option<&HashSet<Entity>> {
        (!self.cut_off).then_some(&self.all)
    }
}
