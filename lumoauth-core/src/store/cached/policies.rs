//! Policy is not cached here: servers keep snapshots of their own. What is kept is that a snapshot is up to date.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Record, RecordId},
    store::{Apply, ChangedRecord, PolicyChange, PolicyStore, Since, StoreError},
};

#[async_trait]
impl PolicyStore for Cached {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        let change = self.policies.apply(org, changes, on, now);
        self.change(org, ChangedRecord::Policy, change).await
    }

    /// Whoever asks begins to read everything. What others commit meanwhile must be told afterwards, so nothing that was kept
    /// before may answer for it.
    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.kept_revisions.forget(org);
        self.policies.revision(org).await
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.policies.page(org, after, limit).await
    }

    /// Whoever was at the organization's revision a moment ago is told that nothing changed.
    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        if self.kept_revisions.get(org).is_some_and(|kept| *kept == revision) {
            return Ok(Since::UpToDate);
        }
        let reading = self.kept_revisions.reading();
        let since = self.policies.since(org, revision, limit).await?;
        match &since {
            Since::UpToDate => self.kept_revisions.keep(reading, org.clone(), &Arc::new(revision)),
            Since::Changed { revision, .. } => {
                self.kept_revisions.keep(reading, org.clone(), &Arc::new(*revision));
            }
            Since::TooOld => {}
        }
        Ok(since)
    }
}
