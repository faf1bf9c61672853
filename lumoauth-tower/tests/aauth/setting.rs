//! An organization with an agent of AAuth and a resource, in memory, and requests as such agents make them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    aauth::{AAuthContext, Confirmation, ConsentPolicy, LevelPolicy, ResourceServer},
    aauth_resource::{AAuthResource, AuthLevel},
    agent::{AAuthIdentity, Agent},
    audit::{Actor, Event, EventKind},
    clock::{Clock, ManualClock, Timestamp},
    httpsig::{self, Content, Message, Profile, SignWith},
    id::{AAuthIdentifier, KeyId, OrgId, Slug},
    jwks::JwkSet,
    keys::{Algorithm, KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, LocalSigner, MasterKey, Signer},
    organization::Organization,
    principal::Principal,
    server::AuthorizationServer,
    store::{AAuthResourceKey, AgentKey, MemoryStore, Stores},
};
use lumoauth_tower::{AAuthLayer, CheckedBody, LumoauthService};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn};

pub(crate) const RESOURCE: &str = "https://files.acme.test";
pub(crate) const AGENT: &str = "https://agent.acme.test";
pub(crate) const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
pub(crate) const NOW: u64 = 1_790_000_000;
/// The id of the tokens of [`Setting::token`].
pub(crate) const TOKEN_ID: &str = "5f1f7b6c-20f3-4c5e-9d0a-6f4b1d1c2e3a";

pub(crate) fn signer(seed: u8, kid: &str) -> Arc<LocalSigner> {
    Arc::new(LocalSigner::from_ed25519_seed(KeyId::parse(kid).unwrap(), &[seed; 32]).unwrap())
}

pub(crate) fn key_set(signer: &LocalSigner) -> JwkSet {
    let mut key = signer.public_key().unwrap().to_jwk();
    key["kid"] = signer.key_id().as_str().into();
    JwkSet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
}

pub(crate) struct Setting {
    pub(crate) server: AuthorizationServer,
    pub(crate) stores: Stores,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) org: OrgId,
    /// The agent's key.
    pub(crate) agent: Arc<LocalSigner>,
    /// The resource's key.
    pub(crate) key: Arc<LocalSigner>,
}

impl Setting {
    pub(crate) async fn new() -> Self {
        Self::under(Arc::new(LevelPolicy::default())).await
    }

    /// The same with another policy.
    pub(crate) async fn under(policy: Arc<dyn ConsentPolicy>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(NOW)));
        let now = clock.now();
        let store = Arc::new(MemoryStore::from_the_beginning());
        let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
        let stores = Stores::all(store);
        let server = AuthorizationServer::builder("https://auth.example", stores.clone(), keys.clone())
            .with_clock(clock.clone())
            .with_consent_policy(policy)
            .build()
            .unwrap();
        let on = |kind| Event::new(kind, Actor::system(), "made", now);
        let org = OrgId::parse("acme").unwrap();
        let made = Organization::new(org.clone(), "acme", now);
        let _ = stores.organizations.insert(&made, &on(EventKind::OrganizationCreated)).await.unwrap();
        let (agent, key) = (signer(1, "agent-1"), signer(2, "files-1"));
        let mut record = Agent::new("Agent", Slug::parse("agent").unwrap(), now);
        record.aauth = Some(Box::new(AAuthIdentity::new(AAuthIdentifier::parse(AGENT).unwrap())));
        record.jwks = Some(key_set(&agent));
        let _ = stores.agents.insert(&org, &record, &on(EventKind::AgentCreated)).await.unwrap();
        let mut record = AAuthResource::new("Files", AAuthIdentifier::parse(RESOURCE).unwrap(), now);
        record.jwks = Some(key_set(&key));
        let event = on(EventKind::AAuthResourceCreated);
        let _ = stores.aauth_resources.insert(&org, &record, &event).await.unwrap();
        Self { server, stores, keys, clock, org, agent, key }
    }

    /// The resource, whose issuer is in this process.
    pub(crate) fn resource(&self) -> ResourceServer {
        let issuer = Arc::new(self.server.auth_tokens_of(&self.org).unwrap());
        let identifier = AAuthIdentifier::parse(RESOURCE).unwrap();
        ResourceServer::new(identifier, issuer, self.stores.replay.clone())
            .with_key(self.key.clone(), self.key.public_key().unwrap())
    }

    pub(crate) fn layer_of(&self, resource: ResourceServer) -> AAuthLayer {
        AAuthLayer::new(Arc::new(resource)).with_clock(self.clock.clone())
    }

    pub(crate) fn layer(&self) -> AAuthLayer {
        self.layer_of(self.resource())
    }

    pub(crate) async fn agent_record(&self) -> Arc<Agent> {
        let name = AAuthIdentifier::parse(AGENT).unwrap();
        self.stores.agents.find(&self.org, AgentKey::AAuthIdentifier(&name)).await.unwrap().unwrap()
    }

    /// Changes the agent, as an administrator does.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Agent)) {
        let mut agent = Agent::clone(&*self.agent_record().await);
        change(&mut agent);
        let event = Event::new(EventKind::AgentUpdated, Actor::system(), "changed", self.clock.now());
        let _ = self.stores.agents.update(&self.org, &agent, &event).await.unwrap();
    }

    /// The claims of an auth token of the agent.
    pub(crate) async fn claims(&self, scope: &str) -> Value {
        let agent = self.agent_record().await;
        let name = AAuthIdentifier::parse(RESOURCE).unwrap();
        let found = self.stores.aauth_resources.find(&self.org, AAuthResourceKey::Identifier(&name)).await;
        let resource = found.unwrap().unwrap();
        let now = self.clock.now().unix_seconds();
        json!({
            "iss": ISSUER, "aud": RESOURCE, "agent": AGENT, "scope": scope,
            "cnf": Confirmation::of(self.agent.public_key().unwrap()).to_claim(),
            "auth_level": AuthLevel::None, "organization": self.org, "iat": now, "exp": now + 3600,
            "jti": TOKEN_ID,
            "lin": { "o": 0, "a": [[agent.id, agent.epoch]], "r": [[resource.id, resource.epoch]] },
        })
    }

    /// A token of the issuer with these claims.
    pub(crate) async fn issued(&self, typ: &str, purpose: KeyPurpose, claims: &Value) -> String {
        let signer = self.keys.signer(&self.org, purpose, self.clock.now()).await.unwrap();
        jwt(&*signer, typ, claims).await
    }

    pub(crate) async fn token(&self, scope: &str) -> String {
        self.issued("auth+jwt", KeyPurpose::AAuth, &self.claims(scope).await).await
    }

    /// The token with another value of a claim, or without it.
    pub(crate) async fn token_with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims("read:files").await;
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        self.issued("auth+jwt", KeyPurpose::AAuth, &claims).await
    }

    /// The agent's own token, by its own key.
    pub(crate) async fn agent_token(&self) -> String {
        let now = self.clock.now().unix_seconds();
        let claims = json!({
            "iss": AGENT, "sub": AGENT, "iat": now, "exp": now + 3600, "jti": "agent-token-1",
            "cnf": Confirmation::of(self.agent.public_key().unwrap()).to_claim(),
        });
        jwt(&*self.agent, "agent+jwt", &claims).await
    }

    /// A signed GET with this token.
    pub(crate) async fn get(&self, token: &str) -> Call {
        self.call(Method::GET, "/files/a", "", Some(token)).signed(self).await
    }

    pub(crate) async fn post(&self, token: &str, body: &str) -> Call {
        self.call(Method::POST, "/files/a", body, Some(token)).signed(self).await
    }

    pub(crate) fn call(&self, method: Method, target: &str, body: &str, token: Option<&str>) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("files.acme.test"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        Call { method, target: target.to_owned(), headers, body: body.to_owned() }
    }

    /// Posts to the authorization server, signed by the agent.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let target = format!("/orgs/acme/api/v1/{path}");
        let mut call = self.call(Method::POST, &target, &body.to_string(), None);
        call.headers.insert(header::HOST, HeaderValue::from_static("auth.example"));
        let agent_auth = format!("agent_token={}", self.agent_token().await);
        call.headers.insert("agent-auth", agent_auth.parse().unwrap());
        let request = call.signed(self).await.request();
        let answer =
            Answer::of(LumoauthService::new(self.server.clone()).oneshot(request).await.unwrap()).await;
        (answer.status, answer.json())
    }
}

pub(crate) async fn jwt(signer: &dyn Signer, typ: &str, claims: &Value) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let alg = signer.algorithm().as_str();
    assert!(alg == Algorithm::EdDsa.as_str() || typ == "at+jwt");
    let header = json!({ "alg": alg, "kid": signer.key_id(), "typ": typ });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = signer.sign(signed.as_bytes()).await.unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Call {
    pub(crate) async fn signed(self, setting: &Setting) -> Self {
        self.signed_by(&*setting.agent, &Profile::LUMO_SDK, setting).await
    }

    pub(crate) async fn signed_by(self, signer: &dyn Signer, profile: &Profile, setting: &Setting) -> Self {
        self.signed_with(signer, profile, SignWith::now(setting.clock.now())).await
    }

    pub(crate) async fn signed_with(
        mut self,
        signer: &dyn Signer,
        profile: &Profile,
        with: SignWith,
    ) -> Self {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let authority = self.headers[header::HOST].to_str().unwrap();
        let message = Message {
            method: &self.method,
            scheme: "https",
            authority,
            path,
            query,
            headers: &self.headers,
            content: Content::Bytes(self.body.as_bytes()),
        };
        let signed = httpsig::sign(signer, profile, &message, with).await.unwrap();
        signed.insert_into(&mut self.headers);
        self
    }

    pub(crate) fn request(self) -> Request<Full<Bytes>> {
        let body = Full::from(self.body.clone());
        self.request_with(body)
    }

    pub(crate) fn request_with<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.parse().unwrap();
        *request.headers_mut() = self.headers;
        request
    }

    /// The answer of a service that does nothing behind `layer`, and whether it was reached.
    pub(crate) async fn to(self, layer: &AAuthLayer) -> Answer {
        let (route, reached) = echo();
        let answer = layer.layer(route).oneshot(self.request()).await.unwrap();
        let answer = Answer::of(answer).await;
        assert_eq!(answer.status.is_success(), reached.load(Ordering::SeqCst) == 1, "{}", answer.text);
        answer
    }
}

/// A service that answers who called and with what, and how often it was reached.
#[expect(clippy::type_complexity, reason = "a service has no name")]
pub(crate) fn echo() -> (
    impl Service<
        Request<CheckedBody<Full<Bytes>>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static,
    Arc<AtomicUsize>,
) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    let route = service_fn(move |request: Request<CheckedBody<Full<Bytes>>>| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let context = request.extensions().get::<AAuthContext>().unwrap().clone();
            assert!(request.extensions().get::<Principal>().is_some());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = json!({
                "agent": context.agent,
                "delegate": context.delegate,
                "user": context.user,
                "chain": context.chain,
                "issuer": context.issuer,
                "jti": context.jti,
                "expires_at": context.expires_at.unix_seconds(),
                "scope": context.scope,
                "query_covered": context.query_covered,
                "content_bound": context.content_bound,
                "body": String::from_utf8_lossy(&body),
            });
            Ok::<_, Infallible>(Response::new(Full::from(answer.to_string())))
        }
    });
    (route, reached)
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of<B>(response: Response<B>) -> Self
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

    pub(crate) fn challenge(&self) -> &str {
        self.headers.get("agent-auth").map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// A parameter of the challenge.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.challenge().split_once(&format!("; {name}=\""))?;
        Some(rest.split_once('"').unwrap().0)
    }

    #[track_caller]
    pub(crate) fn served(&self) {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
    }

    /// That it is a 401 for this reason, with a challenge.
    #[track_caller]
    pub(crate) fn unauthenticated(&self, reason: &str) {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{}", self.text);
        let body = self.json();
        assert_eq!(
            (&body["error"], &body["details"]["reason"]),
            (&json!("authentication_required"), &json!(reason)),
            "{body}"
        );
        assert_eq!(body["auth_server"], ISSUER);
        assert!(self.challenge().starts_with("httpsig; auth-token"), "{}", self.challenge());
        assert!(body.get("auth_url").is_none());
    }

    #[track_caller]
    pub(crate) fn forbidden(&self, error: &str) {
        assert_eq!(
            (self.status, &self.json()["error"]),
            (StatusCode::FORBIDDEN, &json!(error)),
            "{}",
            self.text
        );
    }
}
