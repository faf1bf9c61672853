//! Ends that come too early.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::{Clock, SystemClock, Timestamp},
    id::OrgId,
    store::{
        GrantStore, Handle, MemoryStore, Revoked, StoreError, Upkeep,
        conformance::{grants, upkeep},
    },
};

/// Drops what has ended by a clock of its own.
#[derive(Debug, Default)]
struct OwnClock {
    memory: MemoryStore,
    until: Mutex<HashMap<Handle, Timestamp>>,
}

#[async_trait]
impl GrantStore for OwnClock {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        self.until.lock().unwrap().insert(handle, keep_until);
        self.memory.revoke(org, handle, keep_until, on).await
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        let now = SystemClock::new().now();
        let handles: Vec<_> = {
            let until = self.until.lock().unwrap();
            handles.iter().copied().filter(|handle| until.get(handle).is_none_or(|end| now < *end)).collect()
        };
        self.memory.any_revoked(org, &handles).await
    }
}

#[tokio::test]
#[should_panic(expected = "any_revoked")]
async fn a_mark_that_ends_by_the_backends_own_clock_is_found_out() {
    grants::marks_are_kept(&OwnClock::default()).await;
}

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
