//! The service in a process of its own, on stores that the reference server cannot be given: a memory store with any
//! number of agents in it, since it forgets what is in its own, and PostgreSQL without group commit.

use std::sync::Arc;

use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    clock::{Clock, SystemClock},
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{CacheConfig, Cached, Insert, MemoryStore, Stores},
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tower::LumoauthService;
use tokio::net::TcpListener;

use crate::{
    agents,
    raw::{Connections, OneByOne},
    target::{Appends, announce},
};

/// The organization that all agents are in.
pub(crate) const ORG: &str = "acme-corp";

/// Serves `count` agents from memory until it is killed.
pub(crate) async fn memory(count: usize) {
    serve(Stores::all(Arc::new(MemoryStore::new())), count).await;
}

/// Serves one agent from a new PostgreSQL database until it is killed. It is put together as the reference server is,
/// but for the audit rows.
pub(crate) async fn postgres(url: &str, appends: Appends) {
    let settings = Settings::default();
    PostgresStore::migrate(url).await.expect("the tables can be made");
    let store = Arc::new(PostgresStore::connect(url, settings).await.expect("the store opens"));
    let mut stores = Cached::over(Stores::all(store.clone()), &CacheConfig::default(), None);
    if appends == Appends::OneByOne {
        let connections = usize::try_from(settings.max_connections).expect("a small number");
        stores.audit = Arc::new(OneByOne::new(Connections::open(url, connections).await, store));
    }
    serve(stores, 1).await;
}

async fn serve(stores: Stores, count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a port");
    let org = OrgId::parse(ORG).expect("a slug");
    let now = SystemClock::new().now();
    let organization = Organization::new(org.clone(), "Acme Corp", now);
    let event = Event::new(EventKind::OrganizationCreated, Actor::system(), "made for a load test", now);
    let outcome = stores.organizations.insert(&organization, &event).await.expect("the store answers");
    assert_eq!(outcome, Insert::Inserted);
    agents::seed(stores.agents.clone(), org.clone(), count).await;

    let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
    let server = AuthorizationServer::builder(&format!("http://{address}"), stores, Arc::new(keys))
        .build()
        .expect("the parts fit");
    server.prepare(&org).await.expect("a key can be made");
    let app = axum::Router::new().fallback_service(LumoauthService::new(server));
    announce(address);
    axum::serve(listener, app).await.expect("the listener works");
}
