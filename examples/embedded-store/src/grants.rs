//! The role that keeps revocation marks.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    store::{GrantStore, Handle, Revoked, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent},
    snapshot::malformed,
    tables::{Table, mark_key},
};

#[async_trait]
impl GrantStore for EmbeddedStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        let (org, key, event) = (org.clone(), mark_key(org, &handle), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let marked = match batch.get(Table::Marks, &key)? {
                Some(until) => Some(keep_until_of(&until).ok_or_else(|| malformed(Table::Marks))?),
                None => None,
            };
            // A later call may need the mark for longer than the first one did.
            if marked.is_none_or(|until| until < keep_until) {
                batch.put(Table::Marks, &key, &keep_until.unix_millis().to_be_bytes())?;
                batch.expires(Table::Marks, &key, marked, keep_until)?;
            }
            if marked.is_some() {
                return Ok(Revoked::AlreadyRevoked);
            }
            batch.record(&org, &event)?;
            Ok(Revoked::Revoked)
        };
        self.writer.submit(decide).await
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        if handles.is_empty() {
            return Ok(false);
        }
        let snapshot = self.latest();
        for handle in handles {
            if snapshot.get(Table::Marks, &mark_key(org, handle))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn keep_until_of(value: &[u8]) -> Option<Timestamp> {
    value.try_into().ok().map(u64::from_be_bytes).map(Timestamp::from_unix_millis)
}
