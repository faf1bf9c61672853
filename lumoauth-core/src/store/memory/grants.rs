//! Revocation marks in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    store::{GrantStore, Handle, Revoked, StoreError},
};

#[async_trait]
impl GrantStore for MemoryStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        Ok(self.recorded(&self.marks, org, on, |marks| {
            let known = marks.get(&handle).is_some();
            marks.keep(handle, keep_until);
            if known { Revoked::AlreadyRevoked } else { Revoked::Revoked }
        }))
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        Ok(self.marks.read(org, |marks| handles.iter().any(|handle| marks.get(handle).is_some())))
    }
}
