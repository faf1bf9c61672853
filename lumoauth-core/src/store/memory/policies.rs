//! Policy in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use async_trait::async_trait;

use super::{MemoryStore, Outcome};
use crate::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Record, RecordId},
    store::{Apply, POLICY_TOMBSTONE_LIFE, PolicyChange, PolicyStore, Since, StoreError},
};

/// The policy of one organization.
#[derive(Default)]
pub(super) struct Policies {
    revision: u64,
    /// The least revision whose removals are all remembered.
    oldest: u64,
    records: BTreeMap<RecordId, Record>,
    /// Every record and every removal that is remembered, in the order of revisions.
    written: BTreeSet<(u64, RecordId)>,
    /// When removals may be forgotten.
    removed: BTreeSet<(Timestamp, u64, RecordId)>,
}

impl Policies {
    fn apply(&mut self, changes: &[PolicyChange], now: Timestamp) -> Apply {
        let as_expected = |change: &PolicyChange| {
            let found = self.records.get(&change.id).filter(|record| record.body.is_some());
            change.expect.admits(found.map(|record| record.revision), change.body.is_none())
        };
        if let Some(conflict) = changes.iter().position(|change| !as_expected(change)) {
            return Apply::Conflict(conflict);
        }
        self.revision += 1;
        let revision = self.revision;
        for PolicyChange { id, body, .. } in changes {
            if body.is_none() {
                self.removed.insert((now.plus(POLICY_TOMBSTONE_LIFE), revision, id.clone()));
            }
            let record = Record { id: id.clone(), revision, body: body.clone() };
            if let Some(old) = self.records.insert(id.clone(), record) {
                self.written.remove(&(old.revision, old.id));
            }
            self.written.insert((revision, id.clone()));
        }
        Apply::Applied { revision }
    }

    fn since(&self, revision: u64, limit: u32) -> Since {
        if revision == self.revision {
            return Since::UpToDate;
        }
        if revision < self.oldest || revision > self.revision {
            return Since::TooOld;
        }
        let limit = limit as usize;
        let newer = self.written.iter().rev().take_while(|(written, _)| *written > revision);
        let mut records: Vec<_> =
            newer.filter_map(|(_, id)| self.records.get(id)).take(limit.saturating_add(1)).cloned().collect();
        if records.len() > limit {
            return Since::TooOld;
        }
        records.reverse();
        Since::Changed { records, revision: self.revision }
    }

    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let mut dropped = 0;
        while dropped < max && self.removed.first().is_some_and(|(until, ..)| *until < now) {
            let Some((_, revision, id)) = self.removed.pop_first() else { break };
            // It may have been made anew, and removed again.
            if self.written.remove(&(revision, id.clone())) {
                self.records.remove(&id);
                self.oldest = self.oldest.max(revision);
                dropped += 1;
            }
        }
        dropped
    }
}

impl Outcome for Apply {
    fn is_change(&self) -> bool {
        matches!(self, Self::Applied { .. })
    }
}

#[async_trait]
impl PolicyStore for MemoryStore {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        Ok(self.recorded(&self.policies, org, on, |policies| policies.apply(changes, now)))
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        Ok(self.policies.read(org, |policies| policies.revision))
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = |policies: &Policies| {
            let records = policies.records.range::<RecordId, _>((from, Bound::Unbounded));
            let there = records.map(|(_, record)| record).filter(|record| record.body.is_some());
            there.take(limit as usize).cloned().collect()
        };
        Ok(self.policies.read(org, page))
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        Ok(self.policies.read(org, |policies| policies.since(revision, limit)))
    }
}
