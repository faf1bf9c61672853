//! An organization with agents that call, and one that serves them, in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, Event, EventKind},
    budget::{BudgetPolicy, Usage},
    capability::{Capability, Scope},
    client::Client,
    clock::{Clock, ManualClock, Timestamp},
    id::{AgentId, ClientId, OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    server::AuthorizationServer,
    store::{AgentKey, AuditFilter, MemoryStore, Page, Stores},
};
use lumoauth_tower::LumoauthService;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const RESOURCE: &str = "https://files.acme.test/";
pub(crate) const OTHER_RESOURCE: &str = "https://mail.acme.test/";
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

pub(crate) struct Bot {
    pub(crate) id: AgentId,
    pub(crate) client_id: ClientId,
    pub(crate) secret: String,
}

pub(crate) struct Setting {
    pub(crate) server: AuthorizationServer,
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) org: OrgId,
    pub(crate) issuer: String,
    /// Calls by itself, and hands a part of its authority on.
    pub(crate) root: Bot,
    /// Acts for the first.
    pub(crate) sub: Bot,
    /// Serves them.
    #[cfg_attr(not(feature = "fetch"), expect(dead_code, reason = "for services on other hosts"))]
    pub(crate) files: Bot,
    pub(crate) app: (ClientId, String),
    pub(crate) api_key: String,
    #[cfg(feature = "fetch")]
    pub(crate) line: Arc<crate::line::Line>,
    #[cfg(feature = "fetch")]
    pub(crate) keys: Arc<KeyRing>,
}

pub(crate) fn policy(json: Value) -> BudgetPolicy {
    serde_json::from_value(json).unwrap()
}

fn capabilities(text: &str) -> Vec<Capability> {
    text.parse::<Scope>().unwrap().as_slice().to_vec()
}

impl Setting {
    /// Reached in this process only.
    pub(crate) async fn new() -> Self {
        Self::at("https://auth.example").await
    }

    pub(crate) async fn at(public_url: &str) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
        let now = clock.now();
        let store = Arc::new(MemoryStore::new());
        let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
        let stores = Stores::all(store);
        let server = AuthorizationServer::builder(public_url, stores.clone(), keys.clone())
            .with_clock(clock.clone())
            .build()
            .unwrap();
        let on = |kind| Event::new(kind, Actor::system(), "made", now);
        let org = OrgId::parse("acme").unwrap();
        for id in ["acme", "globex"] {
            let made = Organization::new(OrgId::parse(id).unwrap(), id, now);
            let _ = stores.organizations.insert(&made, &on(EventKind::OrganizationCreated)).await.unwrap();
        }
        let mut bots = Vec::new();
        for slug in ["root", "sub", "files"] {
            let mut agent = Agent::new(slug, Slug::parse(slug).unwrap(), now);
            agent.capabilities = capabilities("read:* write:files delegate:user delegate:on_behalf");
            let secret = agent.rotate_secret(now);
            let _ = stores.agents.insert(&org, &agent, &on(EventKind::AgentCreated)).await.unwrap();
            let (id, client_id) = (agent.id, agent.client_id.clone());
            bots.push(Bot { id, client_id, secret: secret.expose().to_owned() });
        }
        let files = bots.pop().unwrap();
        for (resource, client) in [(RESOURCE, Some(files.client_id.clone())), (OTHER_RESOURCE, None)] {
            let mut mcp = McpServer::new("MCP", ResourceUri::parse(resource).unwrap(), now);
            mcp.scopes_supported = capabilities("read:files write:files");
            mcp.resource_client_id = client;
            let _ = stores.mcp_servers.insert(&org, &mcp, &on(EventKind::McpServerCreated)).await.unwrap();
        }
        let (mut app, secret) = Client::new("App", now);
        app.allowed_scopes = capabilities("read:files");
        app.grant_types = vec!["client_credentials".to_owned()];
        let _ = stores.clients.insert(&org, &app, &on(EventKind::ClientCreated)).await.unwrap();
        let (key, api_key) = ApiKey::new(&org, "admin", capabilities("admin"), now);
        let _ = stores.api_keys.insert(&org, &key, &on(EventKind::ApiKeyCreated)).await.unwrap();
        Self {
            issuer: format!("{public_url}/orgs/acme/api/v1"),
            server,
            stores,
            clock,
            org,
            sub: bots.pop().unwrap(),
            root: bots.pop().unwrap(),
            files,
            app: (app.client_id.clone(), secret.expose().to_owned()),
            api_key: api_key.expose().to_owned(),
            #[cfg(feature = "fetch")]
            line: Arc::default(),
            #[cfg(feature = "fetch")]
            keys,
        }
    }

    /// Changes an agent, as an administrator does.
    pub(crate) async fn change(&self, bot: &Bot, change: impl FnOnce(&mut Agent)) {
        let found = self.stores.agents.find(&self.org, AgentKey::Id(bot.id)).await.unwrap().unwrap();
        let mut agent = Agent::clone(&found);
        change(&mut agent);
        let event = Event::new(EventKind::AgentUpdated, Actor::system(), "changed", self.clock.now());
        let _ = self.stores.agents.update(&self.org, &agent, &event).await.unwrap();
    }

    pub(crate) async fn limit(&self, bot: &Bot, json: Value) {
        self.change(bot, |agent| agent.budget = policy(json)).await;
    }

    pub(crate) async fn used(&self, bot: &Bot) -> Usage {
        let agent = self.stores.agents.find(&self.org, AgentKey::Id(bot.id)).await.unwrap().unwrap();
        self.stores.budgets.usage(&self.org, agent.account(), self.clock.now()).await.unwrap()
    }

    /// Waits until that much is used: what nobody waits for is settled in a task.
    pub(crate) async fn comes_to(&self, bot: &Bot, expected: Usage) {
        for _ in 0..300 {
            if self.used(bot).await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.used(bot).await, expected);
    }

    pub(crate) async fn events(&self, kind: &str) -> Vec<Event> {
        let mut filter = AuditFilter::default();
        filter.kind = Some(kind.to_owned());
        let found = self.server.audit_log(&self.org, &filter, Page::first(100)).await.unwrap();
        found.items.into_iter().map(|entry| entry.event).collect()
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: String) -> (StatusCode, Value) {
        let mut request = http::Request::post(format!("/orgs/acme/api/v1/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = LumoauthService::new(self.server.clone());
        let response = service.oneshot(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) async fn issued(&self, pairs: &[(&str, &str)]) -> String {
        self.issued_with(pairs, &[]).await
    }

    async fn issued_with(&self, pairs: &[(&str, &str)], headers: &[(&str, &str)]) -> String {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let form_type = ("content-type", "application/x-www-form-urlencoded");
        let headers: Vec<_> = headers.iter().copied().chain([form_type]).collect();
        let (status, body) = self.post("oauth/token", &headers, form).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A token of `bot` for the server's own routes.
    pub(crate) async fn token(&self, bot: &Bot) -> String {
        self.token_with(bot, &[]).await
    }

    /// The same, asked for with these headers.
    pub(crate) async fn token_with(&self, bot: &Bot, headers: &[(&str, &str)]) -> String {
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_id", bot.client_id.as_str()),
            ("client_secret", &bot.secret),
        ];
        self.issued_with(&pairs, headers).await
    }

    pub(crate) async fn app_token(&self) -> String {
        self.issued(&[
            ("grant_type", "client_credentials"),
            ("client_id", self.app.0.as_str()),
            ("client_secret", &self.app.1),
        ])
        .await
    }

    /// A token of the first agent for itself, bound to `resource`.
    pub(crate) async fn bound(&self, resource: &str) -> String {
        let own = self.token(&self.root).await;
        self.issued(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("client_id", self.root.client_id.as_str()),
            ("client_secret", &self.root.secret),
            ("subject_token", &own),
            ("subject_token_type", TYPE),
            ("resource", resource),
        ])
        .await
    }

    /// A token of the second agent, which acts for the first.
    pub(crate) async fn chained(&self, more: &[(&str, &str)]) -> String {
        let (subject, actor) = (self.token(&self.root).await, self.token(&self.sub).await);
        let mut pairs = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("client_id", self.sub.client_id.as_str()),
            ("client_secret", &self.sub.secret),
            ("subject_token", &subject),
            ("subject_token_type", TYPE),
            ("actor_token", &actor),
            ("actor_token_type", TYPE),
        ];
        pairs.extend(more);
        self.issued(&pairs).await
    }

    /// Posts JSON as the service that agents call.
    #[cfg(feature = "fetch")]
    pub(crate) async fn as_service(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.as_bearer(&self.token(&self.files).await, path, body).await
    }

    #[cfg(feature = "fetch")]
    pub(crate) async fn as_bearer(&self, token: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        self.post(path, &headers, body.to_string()).await
    }

    #[cfg(feature = "fetch")]
    pub(crate) async fn revoke(&self, bot: &Bot, token: &str) {
        let pairs =
            [("client_id", bot.client_id.as_str()), ("client_secret", &*bot.secret), ("token", token)];
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(self.post("oauth/revoke", &headers, form).await.0, StatusCode::OK);
    }
}

/// How often something was reached.
#[derive(Clone, Default)]
pub(crate) struct Reached(Arc<AtomicUsize>);

impl Reached {
    pub(crate) fn now(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of<B>(response: http::Response<B>) -> Self
    where
        B: http_body::Body,
        B::Error: std::fmt::Debug,
    {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Self { status, headers, text: String::from_utf8_lossy(&body).into_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// That it is this refusal.
    pub(crate) fn refused(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.json()["error"], error, "{}", self.text);
    }
}

pub(crate) fn with_token(token: &str) -> http::Request<()> {
    http::Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap()
}
