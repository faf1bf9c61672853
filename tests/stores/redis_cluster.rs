//! Redis Cluster: the same roles, where the keys of one operation must lie in one slot.

use std::sync::{Arc, OnceLock};

use lumoauth_core::store::{ChangeFeed, MemoryStore};
use lumoauth_store_redis::{RedisBudgets, RedisStore};
use lumoauth_tests::services::RedisCluster;

use crate::redis::store_at;

/// The cluster of all cases. `REDIS_URL` says nothing about it: it is always a private one.
fn url() -> &'static str {
    static CLUSTER: OnceLock<(RedisCluster, String)> = OnceLock::new();
    let make = || {
        let cluster = RedisCluster::start();
        let url = cluster.url();
        (cluster, url)
    };
    &CLUSTER.get_or_init(make).1
}

async fn make() -> ((), RedisStore) {
    ((), store_at(url()).await)
}

lumoauth_core::store_conformance!(make; roles: rate_limits, replay);

async fn feeds() -> ((), Arc<dyn ChangeFeed>, Arc<dyn ChangeFeed>) {
    ((), Arc::new(store_at(url()).await), Arc::new(store_at(url()).await))
}

lumoauth_core::change_feed_conformance!(feeds);

async fn over_memory() -> ((), RedisBudgets) {
    ((), RedisBudgets::new(&store_at(url()).await, Arc::new(MemoryStore::new())))
}

lumoauth_core::store_conformance!(over_memory; roles: budgets);

mod races {
    use super::{Arc, MemoryStore, RedisBudgets, RedisStore, store_at, url};

    async fn make() -> ((), [Arc<RedisStore>; 2]) {
        ((), [Arc::new(store_at(url()).await), Arc::new(store_at(url()).await)])
    }

    /// Pools as of `count` processes over one durable store.
    async fn pools(count: usize) -> Vec<Arc<RedisBudgets>> {
        let durable = Arc::new(MemoryStore::new());
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Arc::new(RedisBudgets::new(&store_at(url()).await, durable.clone())));
        }
        replicas
    }

    async fn budgets() -> ((), [Arc<RedisBudgets>; 2]) {
        ((), pools(2).await.try_into().unwrap())
    }

    async fn four() -> ((), Vec<Arc<RedisBudgets>>) {
        ((), pools(4).await)
    }

    crate::races::races!(make; hot: rate_limits_take, replay_remember);
    crate::races::races!(budgets; hot: budgets_limit, budgets_chain, budgets_id, budgets_settle, budgets_unpark,
        budgets_hold);
    crate::races::races!(four; caps);
    crate::races::races!(four; edges);
}
