//! Everything that an organization wrote down, indexed for decisions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use serde_json::Value;

use super::{
    Assignment, AttributeDefinition, AttributeKind, AttributeOwner, Check, CorruptRecord, Entity, Entry,
    ExpandedNode, Grant, Holder, Permission, Policy, Reached, Record, RecordId, RecordKind, Role,
    SYSTEM_PERMISSIONS, Subject,
    abac::{Policies, Values, is_built_in},
    relations::Relations,
};
use crate::{
    capability::Capability,
    id::{Label, Number},
};

/// The policy of one organization at one revision.
///
/// A change costs what its own entries cost, whatever else there is.
#[derive(Debug, Default)]
pub struct Snapshot {
    revision: u64,
    bytes: u64,
    records: BTreeMap<RecordId, Kept>,
    roles: HashMap<Number, Arc<Role>>,
    holders: HashMap<Holder, BTreeSet<Grant>>,
    having: HashMap<Grant, BTreeSet<Holder>>,
    listed: HashSet<Capability>,
    numbered: HashMap<Number, Capability>,
    pub(super) policies: Policies,
    pub(super) values: Values,
    pub(super) relations: Relations,
}

#[derive(Debug)]
struct Kept {
    revision: u64,
    /// How long it is in stores.
    length: u64,
    entry: Entry,
}

/// What a record costs beside its text, about: in maps and indexes.
const OVERHEAD: u64 = 256;

fn length(id: &RecordId, body: &str) -> u64 {
    (id.key().len() + body.len()) as u64
}

/// A role that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldRole {
    /// Which.
    pub role: Arc<Role>,
    /// By which group, if not directly.
    pub via: Option<Label>,
}

impl Snapshot {
    /// The revision up to which it has everything.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How much memory it takes, about.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.records.len() as u64 * OVERHEAD
    }

    /// How many records there would be, and how much memory they would take, if each of `changes` were made: a record by its
    /// name, and its JSON unless it is removed.
    pub(crate) fn size_after<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a RecordId, Option<&'a str>)>,
    ) -> (usize, u64) {
        let (mut records, mut bytes) = (self.len(), self.bytes());
        for (id, body) in changes {
            if let Some(replaced) = self.records.get(id) {
                records = records.saturating_sub(1);
                bytes = bytes.saturating_sub(replaced.length + OVERHEAD);
            }
            if let Some(body) = body {
                records += 1;
                bytes += length(id, body) + OVERHEAD;
            }
        }
        (records, bytes)
    }

    /// Takes over one change. The snapshot's revision becomes that of the record, if that is later.
    ///
    /// # Errors
    /// [`CorruptRecord`] if the record cannot be read. The snapshot is not that of its organization
    /// any more: whoever decides with it decides on less than there is.
    pub fn apply(&mut self, record: &Record) -> Result<(), CorruptRecord> {
        let entry = record.body.as_ref().map(|body| Entry::read(&record.id, body)).transpose()?;
        if let Some(Kept { entry: old, length, .. }) = self.records.remove(&record.id) {
            self.leave_out(&old);
            self.bytes -= length;
        }
        if let Some(entry) = entry {
            self.take_in(&entry).map_err(|error| CorruptRecord {
                id: record.id.clone(),
                source: serde::de::Error::custom(error),
            })?;
            let length = length(&record.id, record.body.as_deref().unwrap_or_default());
            self.bytes += length;
            self.records.insert(record.id.clone(), Kept { revision: record.revision, length, entry });
        }
        self.advance(record.revision);
        Ok(())
    }

    /// Notes that it has everything up to `revision`.
    pub fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Notes that it may lack something of what was written after `revision`, though it has records of later ones.
    pub(crate) fn set_back(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn take_in(&mut self, entry: &Entry) -> Result<(), super::InvalidCondition> {
        match entry {
            Entry::Assignment(Assignment { holder, grant, .. }) => {
                self.holders.entry(holder.clone()).or_default().insert(grant.clone());
                self.having.entry(grant.clone()).or_default().insert(holder.clone());
            }
            Entry::Attribute(_) => {}
            Entry::Namespace(namespace) => self.relations.define(namespace),
            Entry::Permission(permission) => {
                self.listed.insert(permission.slug.clone());
                self.numbered.insert(permission.number, permission.slug.clone());
            }
            Entry::Policy(policy) => self.policies.insert(policy)?,
            Entry::Role(role) => {
                self.roles.insert(role.number, role.clone());
            }
            Entry::Tuple(tuple) => self.relations.insert(tuple),
            Entry::Value(value) => self.values.set(value),
        }
        Ok(())
    }

    fn leave_out(&mut self, entry: &Entry) {
        match entry {
            Entry::Assignment(Assignment { holder, grant, .. }) => {
                if let Some(grants) = self.holders.get_mut(holder) {
                    grants.remove(grant);
                    if grants.is_empty() {
                        self.holders.remove(holder);
                    }
                }
                if let Some(holders) = self.having.get_mut(grant) {
                    holders.remove(holder);
                    if holders.is_empty() {
                        self.having.remove(grant);
                    }
                }
            }
            Entry::Attribute(_) => {}
            Entry::Namespace(namespace) => self.relations.undefine(&namespace.name),
            Entry::Permission(permission) => {
                self.listed.remove(&permission.slug);
                self.numbered.remove(&permission.number);
            }
            Entry::Policy(policy) => self.policies.remove(policy),
            Entry::Role(role) => {
                self.roles.remove(&role.number);
            }
            Entry::Tuple(tuple) => self.relations.remove(tuple),
            Entry::Value(value) => self.values.unset(value),
        }
    }

    /// What the record `id` says, and at which revision it was written.
    pub fn find(&self, id: &RecordId) -> Option<(u64, &Entry)> {
        self.records.get(id).map(|kept| (kept.revision, &kept.entry))
    }

    /// The next `limit` records after `after`, in the order of kinds and keys.
    pub(crate) fn some_after(
        &self,
        after: Option<&RecordId>,
        limit: usize,
    ) -> impl Iterator<Item = (&RecordId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.records.range((from, Bound::Unbounded)).take(limit);
        records.map(|(id, kept)| (id, &kept.entry))
    }

    /// Every record of a kind, in the order of keys.
    pub fn all(&self, kind: RecordKind) -> impl Iterator<Item = &Entry> {
        // The least key of a kind: keys are not empty.
        let from = RecordId::of_parts(kind, String::new());
        self.records
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(move |(id, _)| id.kind() == kind)
            .map(|(_, kept)| &kept.entry)
    }

    /// The role with this slug or id.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        let by_number = || self.roles.get(&Number::new(name.parse().ok()?));
        by_number().or_else(|| match self.find(&Role::record_id(&Label::parse(name).ok()?))?.1 {
            Entry::Role(role) => Some(role),
            _ => None,
        })
    }

    /// Whether there is a role with this id.
    pub(crate) fn has_role(&self, number: Number) -> bool {
        self.roles.contains_key(&number)
    }

    /// The permission with this slug or id.
    pub fn permission(&self, name: &str) -> Option<&Permission> {
        let slug = match name.parse() {
            Ok(number) => self.numbered.get(&Number::new(number))?.clone(),
            Err(_) => Capability::parse(name).ok()?,
        };
        match self.find(&Permission::record_id(&slug))?.1 {
            Entry::Permission(permission) => Some(permission),
            _ => None,
        }
    }

    /// Every permission that the organization made.
    pub fn permissions(&self) -> impl Iterator<Item = &Permission> {
        self.all(RecordKind::Permission).filter_map(|entry| match entry {
            Entry::Permission(permission) => Some(permission),
            _ => None,
        })
    }

    /// The next `limit` permissions that the organization made whose slugs continue `stem`, after the slug `after`, in
    /// ascending order.
    pub(crate) fn permissions_under<'s>(
        &'s self,
        stem: &'s str,
        after: Option<&str>,
        limit: usize,
    ) -> impl Iterator<Item = &'s Capability> {
        let from = RecordId::of_parts(RecordKind::Permission, after.unwrap_or(stem).to_owned());
        let records = self.records.range((Bound::Excluded(from), Bound::Unbounded));
        let under = move |id: &RecordId| id.kind() == RecordKind::Permission && id.key().starts_with(stem);
        let permissions = records.take_while(move |(id, _)| under(id)).map(|(_, kept)| &kept.entry);
        let permissions = permissions.filter_map(|entry| match entry {
            Entry::Permission(permission) => Some(&permission.slug),
            _ => None,
        });
        permissions.take(limit)
    }

    /// The attribute policy with this id.
    pub fn policy(&self, number: Number) -> Option<&Arc<Policy>> {
        match self.find(&Policy::record_id(number))?.1 {
            Entry::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The attribute with this slug.
    pub fn attribute(&self, kind: AttributeKind, slug: &Label) -> Option<&AttributeDefinition> {
        match self.find(&AttributeDefinition::id_of(kind, slug))?.1 {
            Entry::Attribute(definition) => Some(definition),
            _ => None,
        }
    }

    /// Every attribute, those of one kind together.
    pub fn attributes(&self) -> impl Iterator<Item = &AttributeDefinition> {
        self.all(RecordKind::Attribute).filter_map(|entry| match entry {
            Entry::Attribute(definition) => Some(definition),
            _ => None,
        })
    }

    /// Whether `slug` is a fact of its own of such a thing, so that no attribute can have the name.
    pub fn is_built_in(kind: AttributeKind, slug: &Label) -> bool {
        is_built_in(kind, slug.as_str())
    }

    /// The values of somebody's or something's attributes.
    pub fn values_of(&self, owner: &AttributeOwner) -> BTreeMap<Label, Value> {
        let values = self.values.of(owner).into_iter().flatten();
        values.map(|(slug, value)| (slug.clone(), value.clone())).collect()
    }

    /// Whether the organization lists this permission, or every organization does.
    pub fn lists(&self, action: &Capability) -> bool {
        self.listed.contains(action) || SYSTEM_PERMISSIONS.iter().any(|(slug, _)| *slug == action.as_str())
    }

    /// Who has `grant`, directly.
    pub fn holders_of(&self, grant: &Grant) -> impl ExactSizeIterator<Item = &Holder> {
        static NOBODY: BTreeSet<Holder> = BTreeSet::new();
        self.having.get(grant).unwrap_or(&NOBODY).iter()
    }

    /// The roles of `holder`: its own, then those of its groups.
    pub fn roles_of(&self, holder: &Holder) -> Vec<HeldRole> {
        let mut found = Vec::new();
        self.each_grant(holder, |grant, via| {
            if let Grant::Role(number) = grant
                && let Some(role) = self.roles.get(number)
            {
                found.push(HeldRole { role: role.clone(), via: via.cloned() });
            }
            None::<()>
        });
        found.sort_by(|a, b| (&a.via, &a.role.slug).cmp(&(&b.via, &b.role.slug)));
        found
    }

    /// The permissions that `holder` has without a role: its own, then those of its groups.
    pub fn permissions_of(&self, holder: &Holder) -> Vec<(Capability, Option<Label>)> {
        let mut found = Vec::new();
        self.each_grant(holder, |grant, via| {
            if let Grant::Permission(slug) = grant
                && self.lists(slug)
            {
                found.push((slug.clone(), via.cloned()));
            }
            None::<()>
        });
        found.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        found
    }

    /// Shows the grants of `holder` and of its groups to `look`, until that says something.
    pub(super) fn each_grant<T>(
        &self,
        holder: &Holder,
        mut look: impl FnMut(&Grant, Option<&Label>) -> Option<T>,
    ) -> Option<T> {
        let own = self.holders.get(holder).into_iter().flatten();
        for grant in own {
            if let Some(found) = look(grant, None) {
                return Some(found);
            }
        }
        let subject = Entity::parse(&holder.to_string()).ok()?;
        let grants = |group: &Label| self.holders.get(&Holder::Group(group.clone()));
        for group in self.relations.groups_of(&subject.into(), |group| grants(group).is_some()) {
            for grant in grants(&group).into_iter().flatten() {
                if let Some(found) = look(grant, Some(&group)) {
                    return Some(found);
                }
            }
        }
        None
    }

    pub(super) fn role_numbered(&self, number: Number) -> Option<&Arc<Role>> {
        self.roles.get(&number)
    }

    /// Whether `subject` stands in `relation` to `object`.
    pub fn check(&self, object: &Entity, relation: &Label, subject: &Subject) -> Check {
        self.relations.check(object, relation, subject)
    }

    /// Everybody who stands in `relation` to `object`.
    pub fn expand(&self, object: &Entity, relation: &Label) -> ExpandedNode {
        self.relations.expand(object, relation)
    }

    /// The objects of `namespace` to which `subject` stands in `relation`, at most `limit`.
    pub fn reached(&self, subject: &Subject, relation: &Label, namespace: &str, limit: usize) -> Reached {
        self.relations.reached(subject, relation, namespace, limit)
    }

    /// Whether there is such a relation: in a defined namespace one that has a rule; in any other one all, if anything is
    /// known of the namespace.
    pub fn knows_relation(&self, namespace: &str, relation: &str) -> bool {
        self.relations.knows(namespace, relation)
    }

    /// Whether a tuple with this relation can be written.
    pub fn takes_relation(&self, namespace: &str, relation: &str) -> bool {
        self.relations.takes(namespace, relation)
    }
}
