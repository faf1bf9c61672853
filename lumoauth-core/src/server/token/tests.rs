use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::*;
use crate::{
    agent::Agent,
    clock::ManualClock,
    grant::{Grant, GrantContext},
    id::Slug,
    jwks::{JwsAlgorithm, test_key::TestKey},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    store::{AuditFilter, MemoryStore, Page, Stores},
};

const NOW: u64 = 1_790_000_000;
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

struct Bench {
    server: AuthorizationServer,
    organization: Organization,
    key: TestKey,
    agent: Agent,
    public: Client,
    seen: Arc<Seen>,
}

/// Which clients reached a grant.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(bool, bool)>>);

/// A grant for anybody.
#[derive(Debug)]
struct Anybody(Arc<Seen>);

#[async_trait]
impl Grant for Anybody {
    fn grant_type(&self) -> &'static str {
        "urn:example:anybody"
    }

    async fn handle(&self, context: &GrantContext<'_>, _: &Params) -> Result<TokenResponse, TokenError> {
        self.0.0.lock().unwrap().push((context.client.is_some(), context.public_client.is_some()));
        Err(TokenError::InvalidGrant("Not today."))
    }
}

async fn bench() -> Bench {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores::all(store.clone());
    let keys = Arc::new(KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default()));
    let now = Timestamp::from_unix_seconds(NOW);
    let event = Event::new(EventKind::AgentCreated, Actor::system(), "made", now);
    let organization = Organization::new(OrgId::parse("acme").unwrap(), "Acme", now);
    let _ = stores.organizations.insert(&organization, &event).await.unwrap();
    let key = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now);
    agent.jwks = Some(key.jwks());
    let _ = stores.agents.insert(&organization.id, &agent, &event).await.unwrap();
    let (mut public, _) = Client::new("App", now);
    public.confidential = false;
    let _ = stores.clients.insert(&organization.id, &public, &event).await.unwrap();
    let seen = Arc::new(Seen::default());
    let server = AuthorizationServer::builder("https://auth.example", stores, keys)
        .with_clock(Arc::new(ManualClock::at(now)))
        .with_grant(Anybody(seen.clone()))
        .build()
        .unwrap();
    Bench { server, organization, key, agent, public, seen }
}

impl Bench {
    fn assertion(&self, jti: &str) -> String {
        let id = self.agent.client_id.as_str();
        let aud = self.server.issuer(&self.organization.id);
        self.key.token(&json!({"iss": id, "sub": id, "aud": aud, "jti": jti, "exp": NOW + 300}))
    }

    async fn send(&self, form: &[(&str, &str)]) -> Result<TokenResponse, TokenError> {
        let text = Serializer::new(String::new()).extend_pairs(form).finish();
        let params = Params::from_form(text.as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        if form.iter().any(|(name, _)| *name == "grant_type") {
            return self.server.token(&self.organization, request).await;
        }
        match self.server.introspect(&self.organization, request).await {
            Ok(_) => panic!("there is no token to introspect"),
            // Far enough: who asks was accepted.
            Err(TokenError::InvalidRequest("token is required.")) => Err(TokenError::InvalidTarget),
            Err(error) => Err(error),
        }
    }

    async fn refused(&self, form: &[(&str, &str)]) -> (u16, &'static str) {
        let error = self.send(form).await.unwrap_err().to_wire();
        (error.status.as_u16(), error.error)
    }

    /// The newest row of the log.
    async fn row(&self) -> Value {
        let audit = &self.server.stores().audit;
        let page = Page { offset: 0, limit: 1 };
        let listing = audit.page(&self.organization.id, &AuditFilter::default(), page).await.unwrap();
        serde_json::to_value(&listing.items[0].event).unwrap()
    }
}

#[tokio::test]
async fn an_assertion_gets_a_token_once() {
    let bench = bench().await;
    let assertion = bench.assertion("one");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", &assertion),
    ];
    let issued = bench.send(&form).await.unwrap();
    assert_eq!(issued.token_type, "Bearer");
    assert_eq!(bench.refused(&form).await, (401, "invalid_client"));
    let row = bench.row().await;
    assert_eq!(row["context"]["cause"], "assertion was used before", "{row}");
    assert_eq!(row["auth_method"], "private_key_jwt");
    assert_eq!(row["target"]["id"], bench.agent.id.to_string());
    assert!(!row.to_string().contains(&assertion), "{row}");
}

#[tokio::test]
async fn every_bad_assertion_gets_one_answer() {
    let bench = bench().await;
    let (good, id) = (bench.assertion("good"), bench.agent.client_id.as_str());
    let text = async |form: &[(&str, &str)]| {
        let form = [&[("grant_type", "client_credentials")], form].concat();
        format!("{:?}", bench.send(&form).await.unwrap_err().to_wire())
    };
    let kind = ("client_assertion_type", JWT_BEARER);
    let expected = text(&[("client_id", id), ("client_secret", "guess")]).await;
    for form in [
        &[kind, ("client_assertion", "a.b.c")][..],
        &[kind, ("client_assertion", "a.b.c"), ("client_id", id)],
        &[kind, ("client_assertion", &good), ("client_id", "agt_other")],
        &[kind, ("client_assertion", &good), ("client_id", bench.public.client_id.as_str())],
        &[("client_assertion", &good)],
        &[kind, ("client_id", id)],
        &[("client_assertion_type", "urn:x"), ("client_assertion", &good), ("client_id", id)],
    ] {
        assert_eq!(text(form).await, expected, "{form:?}");
    }
    let both = text(&[kind, ("client_assertion", &good), ("client_secret", "guess")]).await;
    assert!(both.contains("invalid_request"), "{both}");
    assert!(
        bench.send(&[("grant_type", "client_credentials"), kind, ("client_assertion", &good)]).await.is_ok()
    );
}

#[tokio::test]
async fn assertions_authenticate_at_introspection_too() {
    let bench = bench().await;
    let assertion = bench.assertion("one");
    let form = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.as_str())];
    assert_eq!(bench.refused(&form).await.1, "invalid_target");
    assert_eq!(bench.refused(&form).await, (401, "invalid_client"));
}

#[tokio::test]
async fn public_clients_reach_grants_that_take_them_and_nothing_else() {
    let bench = bench().await;
    let id = ("client_id", bench.public.client_id.as_str());
    assert_eq!(bench.refused(&[("grant_type", "urn:example:anybody"), id]).await, (400, "invalid_grant"));
    assert_eq!(*bench.seen.0.lock().unwrap(), [(false, true)]);
    let row = bench.row().await;
    assert_eq!(row["target"]["id"], bench.public.client_id.as_str(), "{row}");
    assert_eq!(row["actor"]["kind"], "unknown");
    for grant in ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"] {
        let subject = ("subject_token", "x");
        let kind = ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
        let form = [("grant_type", grant), id, subject, kind];
        assert_eq!(bench.refused(&form).await, (400, "unauthorized_client"));
    }
    assert_eq!(bench.refused(&[id, ("token", "x")]).await, (400, "unauthorized_client"));
    let guess = ("client_secret", "guess");
    assert_eq!(
        bench.refused(&[("grant_type", "urn:example:anybody"), id, guess]).await,
        (401, "invalid_client")
    );
    assert_eq!(bench.refused(&[("grant_type", "client_credentials")]).await, (401, "invalid_client"));
}
