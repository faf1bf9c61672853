//! A log that is kept elsewhere and cannot be written (security AU-05): what must be on record is not done, what is read is
//! answered, and a change that carries its own event keeps it until the log is back.

use std::sync::Arc;

use bytes::Bytes;
use embedded_store::EmbeddedStore;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
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
    store::{AuditFilter, AuditStore, MemoryStore, Outbox, Page, Store, Stores},
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::{
    services::{Database, Postgres},
    text, unique,
};
use lumoauth_tower::LumoauthService;
use serde_json::{Value, json};
use tower::ServiceExt;

const BASE: &str = "/orgs/acme/api/v1";

/// A server whose records are in one store and whose log is in another.
struct Apart {
    server: AuthorizationServer,
    service: LumoauthService,
    org: OrgId,
    client_id: String,
    secret: String,
    api_key: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_log_a_server_in_memory_refuses_what_must_be_on_record() {
    nothing_happens_off_the_record(Arc::new(MemoryStore::with_outbox())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_log_a_server_on_a_file_refuses_what_must_be_on_record() {
    let dir = std::env::temp_dir().join(unique("lumoauth-apart"));
    std::fs::create_dir_all(&dir).expect("a directory");
    let store = EmbeddedStore::open_with_outbox(dir.join("data")).expect("a store");
    nothing_happens_off_the_record(Arc::new(store)).await;
    std::fs::remove_dir_all(&dir).expect("the directory can go");
}

async fn nothing_happens_off_the_record<S: Store + Outbox>(records: Arc<S>) {
    let mut postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    PostgresStore::migrate(database.url()).await.expect("tables");
    let log = PostgresStore::connect(database.url(), Settings::default()).await.expect("a log");
    let log = Arc::new(log);
    let apart = Apart::start(records.clone(), log.clone()).await;
    let token = apart.token(&apart.secret, 200).await;
    let token = text(&token["access_token"]).to_owned();
    apart.server.maintain_once().await.expect("a round");
    let before = apart.logged(&log).await;

    postgres.kill();
    // What would be done off the record is not done.
    apart.token(&apart.secret, 503).await;
    apart.token("wrong", 503).await;
    apart.ask(&token, 503).await;
    apart.admin("GET", "audit-logs", None, 503).await;
    apart.admin("GET", "audit-logs/tree/head", None, 503).await;
    // Nobody is kept from reading what is there.
    for path in ["agents/me", "oauth/userinfo"] {
        apart.send("GET", path, &[("authorization", &format!("Bearer {token}"))], "", 200).await;
    }
    for path in [".well-known/jwks.json", ".well-known/oauth-authorization-server"] {
        apart.send("GET", path, &[], "", 200).await;
    }
    assert_eq!(apart.introspected(&token).await["active"], true);
    apart.admin("GET", "agents", None, 200).await;
    // A change of a record is written with its event, and both stay.
    let body = json!({ "name": "Made meanwhile", "capabilities": ["read:a"] });
    let made = apart.admin("POST", "agents", Some(body), 201).await;
    let made = text(&made["data"]["agentId"]).to_owned();
    apart.server.maintain_once().await.expect_err("the log is away");
    let waiting = Outbox::pending(&*records, 100).await.expect("an outbox");
    assert!(waiting.iter().any(|(_, event)| event.kind == EventKind::AgentCreated), "{waiting:?}");

    postgres.restart();
    let mut rounds = 0;
    while apart.server.maintain_once().await.is_err() {
        rounds += 1;
        assert!(rounds < 100, "the log does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(Outbox::pending(&*records, 100).await.expect("an outbox").is_empty());
    let after = apart.logged(&log).await;
    let new = &after[before.len()..];
    let created = |event: &&Event| event.target.as_ref().is_some_and(|target| *target.id == *made);
    assert_eq!(new.iter().filter(created).count(), 1, "{new:?}");
    // Nothing was done, so nothing is told.
    assert!(new.iter().all(|event| event.kind != EventKind::AgentAuthenticated), "{new:?}");
    apart.token(&apart.secret, 200).await;
    apart.ask(&token, 200).await;
}

impl Apart {
    async fn start<S: Store + Outbox>(records: Arc<S>, log: Arc<PostgresStore>) -> Self {
        let stores = Stores {
            audit: log.clone(),
            outboxes: vec![records.clone()],
            upkeep: vec![records.clone(), log],
            ..Stores::all(records)
        };
        let (now, org) = (SystemClock::new().now(), OrgId::parse("acme").expect("a slug"));
        let on = |kind| Event::new(kind, Actor::system(), "made by a test", now);
        let organization = Organization::new(org.clone(), "Acme", now);
        let _ = stores.organizations.insert(&organization, &on(EventKind::OrganizationCreated)).await;
        let mut agent = Agent::new("Bot", Slug::parse("bot").expect("a slug"), now);
        agent.capabilities = vec![Capability::parse("read:a").expect("a capability")];
        let secret = agent.rotate_secret(now);
        let _ = stores.agents.insert(&org, &agent, &on(EventKind::AgentCreated)).await;
        let scopes = vec![Capability::parse("admin").expect("a scope")];
        let (key, api_key) = ApiKey::new(&org, "test", scopes, now);
        let _ = stores.api_keys.insert(&org, &key, &on(EventKind::ApiKeyCreated)).await;
        let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
        let server = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys));
        let server = server.build().expect("a server");
        server.prepare(&org).await.expect("keys");
        let service = LumoauthService::new(server.clone());
        let (client_id, secret) = (agent.client_id.to_string(), secret.expose().to_owned());
        Self { server, service, org, client_id, secret, api_key: api_key.expose().to_owned() }
    }

    /// All events of the log, in their order.
    async fn logged(&self, log: &PostgresStore) -> Vec<Event> {
        let page = log.page(&self.org, &AuditFilter::default(), Page::first(1000)).await.expect("a log");
        let mut entries = page.items;
        entries.sort_by_key(|entry| entry.seq);
        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "a gap");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        status: u16,
    ) -> Value {
        let mut request = Request::builder().method(method).uri(format!("{BASE}/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::from(body.to_owned())).expect("a request");
        let answer = self.service.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let shown = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(parts.status.as_u16(), status, "{method} {path}: {shown}");
        if parts.status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(parts.headers.contains_key(header::RETRY_AFTER), "{method} {path}: {shown}");
        }
        serde_json::from_slice(&body).unwrap_or_default()
    }

    async fn form(&self, path: &str, more: &str, secret: &str, status: u16) -> Value {
        let body = format!("client_id={}&client_secret={secret}&{more}", self.client_id);
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &kind, &body, status).await
    }

    async fn token(&self, secret: &str, status: u16) -> Value {
        self.form("oauth/token", "grant_type=client_credentials", secret, status).await
    }

    async fn introspected(&self, token: &str) -> Value {
        self.form("oauth/introspect", &format!("token={token}"), &self.secret, 200).await
    }

    async fn ask(&self, token: &str, status: u16) -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send("POST", "agents/ask", &headers, r#"{"action":"read:a"}"#, status).await
    }

    async fn admin(&self, method: &str, path: &str, body: Option<Value>, status: u16) -> Value {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let headers = [("x-api-key", self.api_key.as_str()), ("content-type", "application/json")];
        self.send(method, &format!("admin/{path}"), &headers, &body, status).await
    }
}
