//! The role that keeps the file in order.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    store::{StoreError, Upkeep},
};

use crate::{
    EmbeddedStore, approvals,
    batch::Batch,
    budgets::Kept,
    jit, policies,
    snapshot::malformed,
    tables::{FORMAT_KEY, Table, expired, expiring_row},
};

#[async_trait]
impl Upkeep for EmbeddedStore {
    fn name(&self) -> &'static str {
        "embedded"
    }

    /// Asks the writer and then the reader. After a failure the question alone makes the writer open the file
    /// again, so a store that nobody writes to recovers as well.
    async fn ping(&self) -> Result<(), StoreError> {
        let decide = |batch: &mut Batch<'_>| batch.has(Table::Meta, FORMAT_KEY);
        self.writer.submit(decide).await?;
        self.latest().get(Table::Meta, FORMAT_KEY).map(drop)
    }

    async fn purge(&self, now: Timestamp, max: u32) -> Result<u64, StoreError> {
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        let decide = move |batch: &mut Batch<'_>| {
            let expiries = batch.first_keys(Table::Expiries, expired(now), most)?;
            let mut purged = 0;
            for expiry in &expiries {
                let (table, row) = expiring_row(expiry).ok_or_else(|| malformed(Table::Expiries))?;
                let removed = batch.remove(table, row)?;
                batch.remove(Table::Expiries, expiry)?;
                purged += u64::from(removed.is_some());
                match (table, removed) {
                    (Table::Approvals, Some(removed)) => drop(approvals::take_off(batch, row, &removed)?),
                    (Table::JitRequests, Some(removed)) => jit::take_off(batch, row, &removed)?,
                    (Table::Charges, Some(removed)) => Kept::of(&removed)?.remove_index(batch, row)?,
                    (Table::Policies, Some(removed)) => policies::forget(batch, row, &removed)?,
                    _ => {}
                }
            }
            Ok(purged)
        };
        let purged = self.writer.submit(decide).await?;
        let left = max.saturating_sub(u32::try_from(purged).unwrap_or(u32::MAX));
        Ok(purged + self.limits.purge(now, left).await?)
    }
}
