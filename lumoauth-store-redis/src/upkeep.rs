//! Readiness.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    store::{StoreError, Upkeep},
};

use crate::{OpenError, RedisStore, open::refuse_eviction};

const PING: &str = "asking Redis whether it is ready";

#[async_trait]
impl Upkeep for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Reaches every slot that the replay marks are in, has each begin to remember if it does not, and writes: a replica,
    /// and a server that is full, are not ready. Neither is one that may evict keys, which a failover may have led to.
    ///
    /// It is one call of a script for one server, 64 for a cluster, and one question for the `maxmemory-policy` of each
    /// master.
    async fn ping(&self) -> Result<(), StoreError> {
        self.begin_to_remember().await.map_err(|failure| failure.during(PING))?;
        refuse_eviction(self.connection()).await.map_err(|error| match error {
            OpenError::Connection(cause) => StoreError::unavailable(PING, cause),
            error => StoreError::other(PING, error),
        })
    }

    /// Redis drops its keys by itself: every key has a time to live.
    async fn purge(&self, _now: Timestamp, _max: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}
