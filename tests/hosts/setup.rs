//! An authorization server in this process, with one organization and one agent in its store.

use std::sync::Arc;

use lumoauth_core::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, Event, EventKind},
    capability::Capability,
    clock::{Clock, SystemClock},
    id::{OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{Insert, MemoryStore, Stores},
};
use tokio::runtime::Runtime;

/// What a client of the organization `acme` needs to know.
pub(crate) struct Tenant {
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) api_key: String,
}

/// A server that believes to be reached at `public_url`, and the runtime that will serve it.
pub(crate) fn start(public_url: &str) -> (Runtime, Tenant, AuthorizationServer) {
    let runtime = Runtime::new().expect("a runtime");
    let stores = Stores::all(Arc::new(MemoryStore::new()));
    let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
    let tenant = runtime.block_on(install(&stores));
    let server = AuthorizationServer::builder(public_url, stores, Arc::new(keys)).build().expect("a server");
    let org = OrgId::parse("acme").expect("a slug");
    runtime.block_on(server.prepare(&org)).expect("signing keys");
    runtime.spawn(server.maintenance());
    (runtime, tenant, server)
}

async fn install(stores: &Stores) -> Tenant {
    let now = SystemClock::new().now();
    let org = OrgId::parse("acme").expect("a slug");
    let event = |kind| Event::new(kind, Actor::system(), "made by a test", now);

    let organization = Organization::new(org.clone(), "Acme", now);
    let inserted = stores.organizations.insert(&organization, &event(EventKind::OrganizationCreated)).await;
    assert_eq!(inserted.expect("a store"), Insert::Inserted);

    let mut agent = Agent::new("Host Bot", Slug::parse("host-bot").expect("a slug"), now);
    agent.capabilities = vec![Capability::parse("read:documents").expect("a capability")];
    let secret = agent.rotate_secret(now);
    let inserted = stores.agents.insert(&org, &agent, &event(EventKind::AgentCreated)).await;
    assert_eq!(inserted.expect("a store"), Insert::Inserted);

    let scopes = vec![Capability::parse("admin").expect("a scope")];
    let (key, key_text) = ApiKey::new(&org, "host test", scopes, now);
    let inserted = stores.api_keys.insert(&org, &key, &event(EventKind::ApiKeyCreated)).await;
    assert_eq!(inserted.expect("a store"), Insert::Inserted);

    Tenant {
        client_id: agent.client_id.as_str().to_owned(),
        secret: secret.expose().to_owned(),
        api_key: key_text.expose().to_owned(),
    }
}
