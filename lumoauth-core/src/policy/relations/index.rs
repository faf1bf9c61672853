//! All tuples of an organization, from both ends.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
};

use super::{
    Entity, Namespace, Rewrite, Tuple,
    namespace::{COMMON, usual},
};
use crate::id::Label;

/// The tuples and namespaces of one organization. Adding or removing one touches nothing but its own entries.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Relations {
    /// object → relation → who stands in it. An object has few relations: to compare them takes less than to hash one.
    objects: HashMap<Entity, BTreeMap<Label, Subjects>>,
    /// entity of a subject → namespace → the objects there of whose tuples it is one, and of how many.
    mentions: HashMap<Entity, BTreeMap<Box<str>, HashMap<Entity, usize>>>,
    /// namespace of objects → namespaces of the subjects of their tuples, and in how many.
    leads: HashMap<Box<str>, HashMap<Box<str>, usize>>,
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

impl Relations {
    pub(in crate::policy) fn insert(&mut self, tuple: &Tuple) {
        let Tuple { object, relation, subject } = tuple;
        let subjects = self.objects.entry(object.clone()).or_default().entry(relation.clone()).or_default();
        match &subject.relation {
            None => subjects.direct.insert(subject.entity.clone()),
            Some(set) => subjects.sets.insert((subject.entity.clone(), set.clone())),
        };
        let mentions = self.mentions.entry(subject.entity.clone()).or_default();
        let mentions = mentions.entry(object.namespace().into()).or_default();
        *mentions.entry(object.clone()).or_default() += 1;
        let leads = self.leads.entry(object.namespace().into()).or_default();
        *leads.entry(subject.entity.namespace().into()).or_default() += 1;
        if let Ok(namespace) = Label::parse(object.namespace()) {
            *self.used.entry(namespace).or_default() += 1;
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
        if let Some(namespaces) = self.mentions.get_mut(&subject.entity) {
            if let Some(mentions) = namespaces.get_mut(object.namespace()) {
                count_down(mentions, object);
                if mentions.is_empty() {
                    namespaces.remove(object.namespace());
                }
            }
            if namespaces.is_empty() {
                self.mentions.remove(&subject.entity);
            }
        }
        if let Some(leads) = self.leads.get_mut(object.namespace()) {
            count_down(leads, subject.entity.namespace());
            if leads.is_empty() {
                self.leads.remove(object.namespace());
            }
        }
        count_down(&mut self.used, object.namespace());
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

    /// The namespaces of which objects may, over whatever others, be subjects of those of `namespace`; and itself.
    pub(super) fn leading_to<'a>(&'a self, namespace: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::from([namespace]);
        let mut left = vec![namespace];
        while let Some(namespace) = left.pop() {
            for (from, _) in self.leads.get(namespace).into_iter().flatten() {
                if found.insert(from) {
                    left.push(from);
                }
            }
        }
        found
    }

    /// Who stands in which relation to `object` by tuples.
    pub(super) fn tuples_of(&self, object: &Entity) -> Option<&BTreeMap<Label, Subjects>> {
        self.objects.get(object)
    }

    /// Who stands in `relation` to `object` by tuples.
    pub(super) fn subjects(&self, object: &Entity, relation: &Label) -> Option<&Subjects> {
        self.tuples_of(object)?.get(relation)
    }

    /// The objects of `namespace` of whose tuples `entity`, or a set of those related to it, is a subject.
    pub(super) fn mentions(&self, entity: &Entity, namespace: &str) -> impl Iterator<Item = &Entity> {
        self.mentions.get(entity).and_then(|all| all.get(namespace)).into_iter().flat_map(HashMap::keys)
    }

    /// The rule of `relation` for `object`. In a defined namespace, what has no rule is held by nobody.
    pub(super) fn rule(&self, object: &Entity, relation: &Label) -> Option<&Rewrite> {
        match self.namespaces.get(object.namespace()) {
            Some(namespace) => namespace.relations.get(relation),
            None => Some(usual(relation.as_str())),
        }
    }
}

fn count_down<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
