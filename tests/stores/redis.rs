//! Redis: the hot roles, and the budget pool over two durable stores.

use std::sync::{Arc, OnceLock};

use lumoauth_core::store::{ChangeFeed, MemoryStore};
use lumoauth_store_redis::{RedisBudgets, RedisStore, Settings};
use lumoauth_tests::services::redis_url;

use crate::postgres;

/// The Redis of all cases.
fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(redis_url)
}

/// A store with a connection of its own: it belongs to the runtime of one test.
pub(crate) async fn store_at(url: &str) -> RedisStore {
    let mut patient = Settings::default();
    // A busy machine proves nothing about the store.
    (patient.connect_timeout, patient.response_timeout) = (PATIENCE, PATIENCE);
    RedisStore::connect(url, patient).await.unwrap()
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

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

mod over_postgres {
    use super::{Arc, RedisBudgets, postgres, store_at, url};

    async fn make() -> ((), RedisBudgets) {
        let durable = postgres::store_at(postgres::url().await).await;
        ((), RedisBudgets::new(&store_at(url()).await, Arc::new(durable)))
    }

    lumoauth_core::store_conformance!(make; roles: budgets);
}

mod races {
    use super::{Arc, RedisBudgets, RedisStore, postgres, store_at, url};

    async fn make() -> ((), [Arc<RedisStore>; 2]) {
        ((), [Arc::new(store_at(url()).await), Arc::new(store_at(url()).await)])
    }

    /// Pools as of `count` processes, with connections of their own to both.
    async fn pools(count: usize) -> Vec<Arc<RedisBudgets>> {
        let mut replicas = Vec::new();
        for _ in 0..count {
            let durable = postgres::store_at(postgres::url().await).await;
            replicas.push(Arc::new(RedisBudgets::new(&store_at(url()).await, Arc::new(durable))));
        }
        replicas
    }

    async fn budgets() -> ((), [Arc<RedisBudgets>; 2]) {
        ((), pools(2).await.try_into().unwrap())
    }

    crate::races::races!(make; hot: rate_limits_take, replay_remember);
    crate::races::races!(budgets; hot: budgets_limit, budgets_chain, budgets_id, budgets_settle, budgets_unpark,
        budgets_hold);

    mod one_store {
        async fn make() -> ((), Vec<super::Arc<super::RedisBudgets>>) {
            ((), super::pools(1).await)
        }

        crate::races::races!(make; caps);
        crate::races::races!(make; edges);
    }

    mod four_stores {
        async fn make() -> ((), Vec<super::Arc<super::RedisBudgets>>) {
            ((), super::pools(4).await)
        }

        crate::races::races!(make; caps);
        crate::races::races!(make; edges);
    }
}
