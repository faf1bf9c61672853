//! The role that remembers what may be used only once.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{REPLAY_GRACE, Remembered, ReplayStore, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::Batch,
    tables::{Table, replay_key},
};

#[async_trait]
impl ReplayStore for EmbeddedStore {
    /// The file forgets nothing, so no value is older than its memory.
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        _issued_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        if until <= now {
            return Ok(Remembered::TooOld);
        }
        let key = replay_key(org, space, key);
        let decide = move |batch: &mut Batch<'_>| {
            if batch.has(Table::ReplayMarks, &key)? {
                return Ok(Remembered::Replay);
            }
            batch.put(Table::ReplayMarks, &key, &[])?;
            batch.expires(Table::ReplayMarks, &key, None, until.plus(REPLAY_GRACE))?;
            Ok(Remembered::First)
        };
        self.writer.submit(decide).await
    }
}
