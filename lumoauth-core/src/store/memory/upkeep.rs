//! Tidying the memory.

use async_trait::async_trait;

use super::{MemoryStore, lock};
use crate::{
    clock::Timestamp,
    store::{StoreError, Upkeep},
};

#[async_trait]
impl Upkeep for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn purge(&self, now: Timestamp, max: u32) -> Result<u64, StoreError> {
        let max = u64::from(max);
        let mut dropped = lock(&self.rate_limits).drop_ended(now, max);
        dropped += lock(&self.seen).purge(now, max - dropped);
        self.grants.write_each(|grants| dropped += grants.purge(now, max - dropped));
        self.approvals.write_each(|approvals| dropped += approvals.purge(now, max - dropped));
        self.tasks.write_each(|tasks| dropped += tasks.purge(now, max - dropped));
        self.books.write_each(|book| dropped += book.purge(now, max - dropped));
        self.policies.write_each(|policies| dropped += policies.purge(now, max - dropped));
        Ok(dropped)
    }
}
