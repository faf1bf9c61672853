//! Ends that come too early.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    store::{MemoryStore, StoreError, Upkeep, conformance::upkeep},
};

/// Purges whatever there is.
#[derive(Debug, Default)]
struct Careless(MemoryStore);

#[async_trait]
impl Upkeep for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }

    async fn purge(&self, _: Timestamp, max: u32) -> Result<u64, StoreError> {
        self.0.purge(Timestamp::from_unix_seconds(1 << 40), max).await
    }
}

#[tokio::test]
#[should_panic(expected = "any_revoked")]
async fn a_purge_that_drops_living_marks_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_marks(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "Reused")]
async fn a_purge_that_drops_used_tickets_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_tickets(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_purge_that_drops_living_refresh_tokens_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_refresh_tokens(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "is_some")]
async fn a_purge_that_drops_pending_approvals_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_approvals(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "is_some")]
async fn a_purge_that_drops_open_tasks_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_tasks(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "Repeated")]
async fn a_purge_that_drops_living_charge_ids_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_charge_ids(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_purge_that_drops_living_counters_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_counters(&store.0, &store).await;
}

#[tokio::test]
#[should_panic(expected = "admitted")]
async fn a_purge_that_drops_living_windows_is_found_out() {
    let store = Careless::default();
    upkeep::purge_keeps_rate_limits(&store.0, &store).await;
}
