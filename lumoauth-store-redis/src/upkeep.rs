//! Readiness.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    store::{StoreError, Upkeep},
};

use crate::RedisStore;

#[async_trait]
impl Upkeep for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Reaches every slot that the replay marks are in, and has each begin to remember if it does not.
    async fn ping(&self) -> Result<(), StoreError> {
        self.begin_to_remember().await.map_err(|failure| failure.during("asking Redis whether it is ready"))
    }

    /// Redis drops its keys by itself: every key has a time to live.
    async fn purge(&self, _now: Timestamp, _max: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}
