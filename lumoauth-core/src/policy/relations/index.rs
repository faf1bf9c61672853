//! All tuples of an organization, from both ends.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    Entity, Namespace, Rewrite, Subject, Tuple,
    namespace::{COMMON, usual},
};
use crate::id::Label;

/// The tuples and namespaces of one organization. Adding or removing one touches nothing but its own entries.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Relations {
    /// object → relation → who stands in it.
    objects: HashMap<Entity, HashMap<Label, Subjects>>,
    /// entity of a subject → where it is one.
    mentions: HashMap<Entity, HashSet<Mention>>,
    /// subject → the groups that it is a member of.
    groups: HashMap<Subject, BTreeSet<Label>>,
    namespaces: HashMap<Label, Namespace>,
    /// namespace → how many tuples its objects have.
    used: HashMap<Label, usize>,
}

/// Who stands in one relation to one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Subjects {
    pub(super) direct: HashSet<Entity>,
    pub(super) sets: HashSet<(Entity, Label)>,
}

/// That an entity, or a set of those related to it, stands in a relation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mention {
    pub(super) as_set: Option<Label>,
    pub(super) object: Entity,
    pub(super) relation: Label,
}

/// The namespace and the relation of groups that have roles.
const GROUP: (&str, &str) = ("group", "member");

impl Relations {
    pub(in crate::policy) fn insert(&mut self, tuple: &Tuple) {
        let Tuple { object, relation, subject } = tuple;
        let subjects = self.objects.entry(object.clone()).or_default().entry(relation.clone()).or_default();
        match &subject.relation {
            None => subjects.direct.insert(subject.entity.clone()),
            Some(set) => subjects.sets.insert((subject.entity.clone(), set.clone())),
        };
        let mention =
            Mention { as_set: subject.relation.clone(), object: object.clone(), relation: relation.clone() };
        self.mentions.entry(subject.entity.clone()).or_default().insert(mention);
        if let Ok(namespace) = Label::parse(object.namespace()) {
            *self.used.entry(namespace).or_default() += 1;
        }
        if let Some(group) = group_of(tuple) {
            self.groups.entry(subject.clone()).or_default().insert(group);
        }
    }

    pub(in crate::policy) fn remove(&mut self, tuple: &Tuple) {
        let Tuple { object, relation, subject } = tuple;
        if let Some(relations) = self.objects.get_mut(object) {
            if let Some(subjects) = relations.get_mut(relation) {
                match &subject.relation {
                    None => subjects.direct.remove(&subject.entity),
                    Some(set) => subjects.sets.remove(&(subject.entity.clone(), set.clone())),
                };
                if subjects.direct.is_empty() && subjects.sets.is_empty() {
                    relations.remove(relation);
                }
            }
            if relations.is_empty() {
                self.objects.remove(object);
            }
        }
        if let Some(mentions) = self.mentions.get_mut(&subject.entity) {
            mentions.remove(&Mention {
                as_set: subject.relation.clone(),
                object: object.clone(),
                relation: relation.clone(),
            });
            if mentions.is_empty() {
                self.mentions.remove(&subject.entity);
            }
        }
        if let Some(count) = self.used.get_mut(object.namespace()) {
            *count -= 1;
            if *count == 0 {
                self.used.remove(object.namespace());
            }
        }
        if let Some(group) = group_of(tuple)
            && let Some(groups) = self.groups.get_mut(subject)
        {
            groups.remove(&group);
            if groups.is_empty() {
                self.groups.remove(subject);
            }
        }
    }

    pub(in crate::policy) fn define(&mut self, namespace: &Namespace) {
        self.namespaces.insert(namespace.name.clone(), namespace.clone());
    }

    pub(in crate::policy) fn undefine(&mut self, name: &Label) {
        self.namespaces.remove(name);
    }

    /// Whether there is such a relation: in a defined namespace one with a rule, in any other one all that anybody uses.
    pub(in crate::policy) fn knows(&self, namespace: &str, relation: &str) -> bool {
        match self.namespaces.get(namespace) {
            Some(namespace) => namespace.relations.contains_key(relation),
            None => COMMON.contains(&namespace) || self.used.contains_key(namespace),
        }
    }

    /// Whether a tuple with this relation can be written: namespaces that nobody defined begin with their first tuple.
    pub(in crate::policy) fn takes(&self, namespace: &str, relation: &str) -> bool {
        self.namespaces.get(namespace).is_none_or(|namespace| namespace.relations.contains_key(relation))
    }

    /// Every group that `subject` is a member of, directly or by groups that are members of groups.
    pub(in crate::policy) fn groups_of(&self, subject: &Subject) -> BTreeSet<Label> {
        let mut found = BTreeSet::new();
        let mut left = vec![subject.clone()];
        while let Some(subject) = left.pop() {
            for group in self.groups.get(&subject).into_iter().flatten() {
                if found.len() < MAX_GROUPS && found.insert(group.clone()) {
                    left.extend(as_subject(group));
                }
            }
        }
        found
    }

    /// Who stands in `relation` to `object` by tuples.
    pub(super) fn subjects(&self, object: &Entity, relation: &Label) -> Option<&Subjects> {
        self.objects.get(object)?.get(relation)
    }

    /// Where `entity` is a subject.
    pub(super) fn mentions(&self, entity: &Entity) -> impl Iterator<Item = &Mention> {
        self.mentions.get(entity).into_iter().flatten()
    }

    /// The rule of `relation` for `object`. In a defined namespace, what has no rule is held by nobody.
    pub(super) fn rule(&self, object: &Entity, relation: &Label) -> Option<&Rewrite> {
        match self.namespaces.get(object.namespace()) {
            Some(namespace) => namespace.relations.get(relation),
            None => Some(usual(relation.as_str())),
        }
    }
}

/// More groups than these give nobody any more roles.
const MAX_GROUPS: usize = 1000;

fn group_of(tuple: &Tuple) -> Option<Label> {
    ((tuple.object.namespace(), tuple.relation.as_str()) == GROUP)
        .then(|| Label::parse(tuple.object.id()).ok())
        .flatten()
}

fn as_subject(group: &Label) -> Option<Subject> {
    let entity = Entity::parse(&format!("{}:{group}", GROUP.0)).ok()?;
    Some(Subject { entity, relation: Label::parse(GROUP.1).ok() })
}
