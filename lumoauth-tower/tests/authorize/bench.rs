//! One organization with an agent, two applications and two people, in memory, behind the service.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, Event, EventKind},
    capability::{Capability, Scope},
    client::{Client, Secrets},
    clock::{Clock, ManualClock, Timestamp},
    id::{ClientId, OrgId, Slug, UserId},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    people::{SignedIn, UserAuthenticator},
    secret::SecretHash,
    server::AuthorizationServer,
    store::{AgentKey, AuditFilter, MemoryStore, Page, StoreError, Stores},
    user::User,
};
use lumoauth_tower::LumoauthService;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const BASE: &str = "/orgs/acme/api/v1";
pub(crate) const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
/// RFC 7636 appendix B.
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub(crate) const RESOURCE: &str = "https://mcp.acme.test/files";

/// People by the cookie they send.
#[derive(Debug)]
pub(crate) struct Doorman {
    sessions: Mutex<HashMap<&'static str, (UserId, Timestamp)>>,
}

impl Doorman {
    pub(crate) fn sign_in(&self, cookie: &'static str, user: UserId, at: Timestamp) {
        self.sessions.lock().unwrap().insert(cookie, (user, at));
    }
}

#[async_trait]
impl UserAuthenticator for Doorman {
    async fn signed_in(&self, _: &Organization, headers: &HeaderMap) -> Result<Option<SignedIn>, StoreError> {
        let cookie = headers.get(header::COOKIE).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let found = self.sessions.lock().unwrap().get(cookie).copied();
        Ok(found.map(|(user, at)| SignedIn {
            user,
            at,
            amr: vec!["pwd".to_owned()],
            session: SecretHash::of(cookie),
        }))
    }

    async fn sign_in_page(
        &self,
        _: &Organization,
        _: &HeaderMap,
        resume: &str,
    ) -> Result<Response<String>, StoreError> {
        Ok(Response::new(format!("<form>sign in, then {resume}")))
    }

    fn sign_in_path(&self, _: &Organization) -> String {
        "/login".to_owned()
    }
}

pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) secret: String,
}

pub(crate) struct Bench {
    pub(crate) server: AuthorizationServer,
    pub(crate) stores: Stores,
    pub(crate) service: LumoauthService,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) doorman: Arc<Doorman>,
    pub(crate) org: OrgId,
    pub(crate) bot: Credentials,
    pub(crate) other_bot: Credentials,
    pub(crate) app: Credentials,
    pub(crate) public: String,
    pub(crate) native: String,
    pub(crate) alice: Arc<User>,
    pub(crate) bob: Arc<User>,
    pub(crate) api_key: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    /// The parameter of the address that the browser is sent to.
    pub(crate) fn sent(&self, name: &str) -> Option<String> {
        let location = self.headers.get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
        let location = location.unwrap_or_else(|| self.json()["redirect_to"].as_str().unwrap().to_owned());
        let url = url::Url::parse(&location).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn capabilities(text: &str) -> Vec<Capability> {
    text.parse::<Scope>().unwrap().as_slice().to_vec()
}

pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The claims of a token, unverified.
pub(crate) fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::at("https://auth.example").await
    }

    /// At a public URL.
    pub(crate) async fn at(public_url: &str) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
        let now = clock.now();
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let stores = Stores::all(store);
        let server = AuthorizationServer::builder(public_url, stores.clone(), Arc::new(keys))
            .with_clock(clock.clone())
            .build()
            .unwrap();
        let on = |kind| Event::new(kind, Actor::system(), "made", now);
        let org = OrgId::parse("acme").unwrap();
        let made = Organization::new(org.clone(), "Acme", now);
        let _ = stores.organizations.insert(&made, &on(EventKind::OrganizationCreated)).await.unwrap();
        let mut bots = Vec::new();
        for (name, slug, redirect) in [
            ("Invoice Bot", "bot", "https://bot.example/cb"),
            ("Other Bot", "other", "https://other.example/cb"),
        ] {
            let mut agent = Agent::new(name, Slug::parse(slug).unwrap(), now);
            agent.capabilities =
                capabilities("read:* write:files tool:search admin:agents jit:approve delegate:user");
            agent.redirect_uris = vec![redirect.to_owned(), "http://127.0.0.1/cb".to_owned()];
            let secret = agent.rotate_secret(now);
            let _ = stores.agents.insert(&org, &agent, &on(EventKind::AgentCreated)).await.unwrap();
            bots.push(Credentials { id: agent.client_id.to_string(), secret: secret.expose().to_owned() });
        }
        let other_bot = bots.pop().unwrap();
        let bot = bots.pop().unwrap();
        let (mut app, app_secret) = Client::new("Portal", now);
        app.redirect_uris = vec!["https://portal.example/cb".to_owned()];
        app.allowed_scopes = capabilities("read:files admin consents");
        app.grant_types = vec!["authorization_code".to_owned(), "refresh_token".to_owned()];
        let _ = stores.clients.insert(&org, &app, &on(EventKind::ClientCreated)).await.unwrap();
        let mut publics = Vec::new();
        for redirect in ["https://spa.example/cb", "http://127.0.0.1/cb"] {
            let (mut public, _) = Client::new("Pocket", now);
            public.confidential = false;
            public.secrets = Secrets::default();
            public.redirect_uris = vec![redirect.to_owned()];
            public.allowed_scopes = capabilities("read:files");
            public.grant_types = vec!["authorization_code".to_owned(), "refresh_token".to_owned()];
            let _ = stores.clients.insert(&org, &public, &on(EventKind::ClientCreated)).await.unwrap();
            publics.push(public.client_id.to_string());
        }
        let mut files =
            McpServer::new("Files", ResourceUri::parse("https://mcp.acme.test/files").unwrap(), now);
        files.scopes_supported = capabilities("read:files write:files");
        files.scope_descriptions.insert("read:files".to_owned(), "Read your files".to_owned());
        files.allowed_agent_ids = vec![];
        let _ = stores.mcp_servers.insert(&org, &files, &on(EventKind::McpServerCreated)).await.unwrap();
        let mut people = Vec::new();
        for (email, name) in [("alice@acme.test", "Alice"), ("bob@acme.test", "Bob")] {
            let mut user = User::new(email, now);
            user.name = Some(name.to_owned());
            let _ = stores.users.insert(&org, &user, &on(EventKind::UserCreated)).await.unwrap();
            people.push(Arc::new(user));
        }
        let (key, api_key) = ApiKey::new(&org, "admin", capabilities("admin"), now);
        let _ = stores.api_keys.insert(&org, &key, &on(EventKind::ApiKeyCreated)).await.unwrap();
        let doorman = Arc::new(Doorman { sessions: Mutex::default() });
        let bob = people.pop().unwrap();
        let alice = people.pop().unwrap();
        doorman.sign_in("sid=alice", alice.id, now);
        doorman.sign_in("sid=alice-elsewhere", alice.id, now);
        doorman.sign_in("sid=bob", bob.id, now);
        clock.advance(Duration::from_secs(10));
        Self {
            service: LumoauthService::new(server.clone()).with_people(doorman.clone()),
            server,
            stores,
            clock,
            doorman,
            org,
            bot,
            other_bot,
            app: Credentials { id: app.client_id.to_string(), secret: app_secret.expose().to_owned() },
            native: publics.pop().unwrap(),
            public: publics.pop().unwrap(),
            alice,
            bob,
            api_key: api_key.expose().to_owned(),
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        send(&self.service, method, path, headers, body).await
    }

    /// The request of the bot, with these parameters beside or in place of the usual ones.
    pub(crate) fn query(&self, changes: &[(&str, &str)]) -> String {
        let usual = [
            ("response_type", "code"),
            ("client_id", &self.bot.id),
            ("redirect_uri", "https://bot.example/cb"),
            ("scope", "openid read:files"),
            ("state", "s t"),
        ];
        let kept = usual.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let pairs: Vec<_> =
            kept.chain(changes.iter().copied()).filter(|(_, value)| !value.is_empty()).collect();
        form(&pairs)
    }

    pub(crate) async fn ask(&self, cookie: &str, changes: &[(&str, &str)]) -> Answer {
        let path = format!("{BASE}/oauth/authorize?{}", self.query(changes));
        self.send("GET", &path, &[("cookie", cookie), ("accept", "application/json")], "").await
    }

    pub(crate) async fn decide(&self, cookie: &str, challenge: &Value, decision: &str) -> Answer {
        let body = serde_json::json!({
            "challenge_id": challenge["challenge_id"],
            "csrf_token": challenge["csrf_token"],
            "decision": decision,
        });
        self.decide_with(cookie, &body).await
    }

    pub(crate) async fn decide_with(&self, cookie: &str, body: &Value) -> Answer {
        let headers =
            [("cookie", cookie), ("accept", "application/json"), ("content-type", "application/json")];
        self.send("POST", &format!("{BASE}/oauth/authorize"), &headers, &body.to_string()).await
    }

    /// A code for what `changes` ask, agreed to by alice.
    pub(crate) async fn code(&self, changes: &[(&str, &str)]) -> String {
        let asked = self.ask("sid=alice", changes).await;
        if asked.status == StatusCode::SEE_OTHER {
            return asked.sent("code").unwrap_or_else(|| panic!("{}", asked.text));
        }
        assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
        let decided = self.decide("sid=alice", &asked.json(), "approve").await;
        assert_eq!(decided.status, StatusCode::OK, "{}", decided.text);
        decided.sent("code").unwrap()
    }

    pub(crate) async fn token(&self, pairs: &[(&str, &str)]) -> Answer {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", &format!("{BASE}/oauth/token"), &headers, &form(pairs)).await
    }

    pub(crate) async fn redeem(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        self.with_bot(
            "authorization_code",
            &[("code", code), ("redirect_uri", "https://bot.example/cb")],
            changes,
        )
        .await
    }

    pub(crate) async fn refresh(&self, token: &str, changes: &[(&str, &str)]) -> Answer {
        self.with_bot("refresh_token", &[("refresh_token", token)], changes).await
    }

    async fn with_bot(&self, grant: &str, own: &[(&str, &str)], changes: &[(&str, &str)]) -> Answer {
        let usual = [("grant_type", grant), ("client_id", &self.bot.id), ("client_secret", &self.bot.secret)];
        let usual = usual.iter().chain(own);
        let kept = usual.filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let pairs: Vec<_> = kept.chain(changes).copied().filter(|(_, value)| !value.is_empty()).collect();
        self.token(&pairs).await
    }

    /// The tokens of the bot for alice, with a refresh token.
    pub(crate) async fn tokens(&self) -> Value {
        let code = self.code(&[("access_type", "offline")]).await;
        let answer = self.redeem(&code, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    pub(crate) async fn introspect(&self, token: &str) -> Value {
        let pairs = [("client_id", &*self.bot.id), ("client_secret", &self.bot.secret), ("token", token)];
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", &format!("{BASE}/oauth/introspect"), &headers, &form(&pairs)).await.json()
    }

    pub(crate) async fn is_active(&self, token: &Value) -> bool {
        self.introspect(token.as_str().unwrap()).await["active"] == true
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send("GET", &format!("{BASE}/{path}"), &[("authorization", &bearer)], "").await
    }

    /// Changes what the bot may do, as an administrator does.
    pub(crate) async fn change_bot(&self, change: impl FnOnce(&mut Agent)) {
        let client = ClientId::parse(&self.bot.id).unwrap();
        let found = self.stores.agents.find(&self.org, AgentKey::ClientId(&client)).await.unwrap();
        let mut bot = (*found.unwrap()).clone();
        change(&mut bot);
        let on = Event::new(EventKind::AgentUpdated, Actor::system(), "changed", self.clock.now());
        let _ = self.stores.agents.update(&self.org, &bot, &on).await.unwrap();
    }

    /// The events of this kind.
    pub(crate) async fn log(&self, kind: &str) -> Vec<Event> {
        let mut filter = AuditFilter::default();
        filter.kind = Some(kind.to_owned());
        let found = self.server.audit_log(&self.org, &filter, Page::first(100)).await.unwrap();
        found.items.into_iter().map(|entry| entry.event).collect()
    }

    /// How many events of this kind there are.
    pub(crate) async fn events(&self, kind: &str) -> u64 {
        let mut filter = AuditFilter::default();
        filter.kind = Some(kind.to_owned());
        self.server.audit_log(&self.org, &filter, Page::first(1)).await.unwrap().total
    }
}

pub(crate) async fn send(
    service: &LumoauthService,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let answer = send_anyhow(service, method, path, headers, body).await;
    assert!(!answer.status.is_server_error(), "{path}: {} {}", answer.status, answer.text);
    answer
}

/// The same, where stores may fail.
pub(crate) async fn send_anyhow(
    service: &LumoauthService,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::from(body.to_owned())).unwrap();
    let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}
