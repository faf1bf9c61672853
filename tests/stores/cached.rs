//! The cache over PostgreSQL: whoever asks through it sees no difference, except what the cases about another
//! server's changes say.

use lumoauth_core::store::{CacheConfig, Cached, Stores};
use lumoauth_store_postgres::PostgresStore;

use crate::postgres::{store_at, url};

async fn both() -> (PostgresStore, Cached) {
    let store = store_at(url().await).await;
    let feed = store.changes();
    let stores = Stores::all(std::sync::Arc::new(store.clone()));
    // Longer than any case takes, so that what is stale stays stale and is found.
    let config = CacheConfig::default().with_ttl(std::time::Duration::from_secs(3600));
    (store, Cached::new(&stores, &config, Some(feed)))
}

lumoauth_core::store_conformance!(both; roles: agents, clients, consents, organizations, users);

/// That the events of what goes through the cache are written, once.
mod recorded {
    use lumoauth_core::store::{
        AgentStore, ClientStore, ConsentStore, OrganizationStore, UserStore,
        conformance::recorded::{Trail, writes_its_events},
    };

    macro_rules! recorded {
        ($($role:ident: $port:ident),+) => {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $role() {
                let (store, cached) = super::both().await;
                let role: &dyn $port = &cached;
                writes_its_events(role.into(), Trail::Log(&store)).await;
            })+
        };
    }

    recorded!(agents: AgentStore, clients: ClientStore, consents: ConsentStore, organizations: OrganizationStore,
        users: UserStore);
}
