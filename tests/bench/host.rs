//! The service over a memory store with any number of agents in it. The reference server forgets what is in its
//! memory store, so it cannot be given a million agents.

use std::sync::Arc;

use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    clock::{Clock, SystemClock},
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{Insert, MemoryStore, Stores},
};
use lumoauth_tower::LumoauthService;
use tokio::net::TcpListener;

use crate::{agents, target::announce};

/// The organization that all agents are in.
pub(crate) const ORG: &str = "acme-corp";

/// Serves until it is killed.
pub(crate) async fn serve(count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a port");
    let store = Arc::new(MemoryStore::new());
    let stores = Stores::all(store.clone());
    let org = OrgId::parse(ORG).expect("a slug");
    let now = SystemClock::new().now();
    let organization = Organization::new(org.clone(), "Acme Corp", now);
    let event = Event::new(EventKind::OrganizationCreated, Actor::system(), "made for a load test", now);
    let outcome = stores.organizations.insert(&organization, &event).await.expect("the store answers");
    assert_eq!(outcome, Insert::Inserted);
    agents::seed(stores.agents.clone(), org.clone(), count).await;

    let keys = KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default());
    let server = AuthorizationServer::builder(&format!("http://{address}"), stores, Arc::new(keys))
        .build()
        .expect("the parts fit");
    server.prepare(&org).await.expect("a key can be made");
    let app = axum::Router::new().fallback_service(LumoauthService::new(server));
    announce(address);
    axum::serve(listener, app).await.expect("the listener works");
}
