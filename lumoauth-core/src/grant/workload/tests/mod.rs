//! Workloads over a memory store, through the token endpoint, with platforms that sign for themselves.

mod signed;
mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, AuthMethod, IdentityType},
    audit::{Actor, Event, EventKind, Origin},
    capability::Capability,
    clock::{ManualClock, Timestamp},
    fetch::{Fetch, FetchError, FetchRequest},
    grant::{TokenError, TokenResponse},
    id::{OrgId, Slug},
    jwks::{JwsAlgorithm, test_key::TestKey},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::{AuthorizationServer, TokenRequest},
    store::{AgentKey, AgentStore, AuditFilter, AuditStore, Insert, MemoryStore, Page, Stores, Update},
    wire::Params,
    workload::WorkloadTrust,
};

const NOW: u64 = 1_790_000_000;
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLUSTER: &str = "https://oidc.cluster.example";

/// Everybody else: answers what a test put there, and keeps what it was asked.
#[derive(Debug, Default)]
struct World {
    answers: Mutex<HashMap<String, Result<Vec<u8>, u16>>>,
    asked: Mutex<Vec<FetchRequest>>,
}

#[async_trait]
impl Fetch for World {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        let url = request.url.to_string();
        self.asked.lock().unwrap().push(request);
        match self.answers.lock().unwrap().get(&url) {
            Some(Ok(body)) => Ok(body.clone()),
            Some(Err(status)) => Err(FetchError::Unusable(*status)),
            None => Err(FetchError::Unreachable("connection refused".into())),
        }
    }
}

struct Bench {
    store: Arc<MemoryStore>,
    world: Arc<World>,
    clock: Arc<ManualClock>,
    server: AuthorizationServer,
    org: Organization,
    key: TestKey,
}

type Outcome = Result<TokenResponse, TokenError>;

impl Bench {
    /// With a cluster that publishes one key.
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(NOW)));
        let world = Arc::new(World::default());
        let server =
            AuthorizationServer::builder("https://auth.example", Stores::all(store.clone()), Arc::new(keys))
                .with_clock(clock.clone())
                .with_fetch(world.clone())
                .build()
                .unwrap();
        let org = Organization::new(OrgId::parse("acme").unwrap(), "Acme", clock_now(&clock));
        let key = TestKey::new(JwsAlgorithm::Es256, "k1");
        let bench = Self { store, world, clock, server, org, key };
        bench.publish(CLUSTER, &[&bench.key]);
        bench
    }

    fn issuer(&self) -> String {
        self.server.issuer(&self.org.id)
    }

    fn now(&self) -> u64 {
        clock_now(&self.clock).unix_seconds()
    }

    /// Puts metadata and keys where a platform publishes them.
    fn publish(&self, issuer: &str, keys: &[&TestKey]) {
        let base = issuer.trim_end_matches('/');
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{base}/keys")});
        let mut answers = self.world.answers.lock().unwrap();
        answers.insert(
            format!("{base}/.well-known/openid-configuration"),
            Ok(metadata.to_string().into_bytes()),
        );
        answers.insert(format!("{base}/keys"), Ok(json!({ "keys": keys }).to_string().into_bytes()));
    }

    fn asked(&self) -> usize {
        self.world.asked.lock().unwrap().len()
    }

    fn event(&self) -> Event {
        Event::new(EventKind::AgentCreated, Actor::system(), "test", clock_now(&self.clock))
    }

    async fn agent_in(&self, org: &OrgId, name: &str, trust: Value) -> Agent {
        let mut agent = Agent::new(name, Slug::parse(name).unwrap(), clock_now(&self.clock));
        agent.identity_type = IdentityType::WorkloadIdentity;
        agent.capabilities = ["read:a", "write:b"].map(|text| Capability::parse(text).unwrap()).to_vec();
        agent.workload = Some(WorkloadTrust::parse(&trust).unwrap());
        assert_eq!(self.store.insert(org, &agent, &self.event()).await.unwrap(), Insert::Inserted);
        agent
    }

    async fn agent(&self, name: &str, trust: Value) -> Agent {
        self.agent_in(&self.org.id, name, trust).await
    }

    async fn change(&self, agent: &Agent, change: impl FnOnce(&mut Agent)) {
        let found =
            AgentStore::find(&*self.store, &self.org.id, AgentKey::Id(agent.id)).await.unwrap().unwrap();
        let mut agent = (*found).clone();
        change(&mut agent);
        assert_eq!(self.store.update(&self.org.id, &agent, &self.event()).await.unwrap(), Update::Updated);
    }

    async fn request(&self, fields: &[(&str, &str)]) -> Outcome {
        let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let params = Params::from_form(form.as_bytes()).unwrap();
        let request =
            TokenRequest { authorization: None, dpop: None, params: &params, origin: &Origin::default() };
        self.server.token(&self.org, request).await
    }

    async fn exchange(&self, token: &str, more: &[(&str, &str)]) -> Outcome {
        let mut fields =
            vec![("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", JWT)];
        fields.extend_from_slice(more);
        self.request(&fields).await
    }

    /// The last entry of the log.
    async fn logged(&self) -> Event {
        let page = Page { offset: 0, limit: 1 };
        let listing =
            AuditStore::page(&*self.store, &self.org.id, &AuditFilter::default(), page).await.unwrap();
        listing.items.into_iter().next().unwrap().event
    }

    /// The one refusal that workloads get, in the answer and in the log.
    #[track_caller]
    fn refused(outcome: Outcome) {
        let wire = outcome.unwrap_err().to_wire();
        let text = "The workload identity was not accepted.";
        assert_eq!(
            (wire.status.as_u16(), wire.error, wire.body()["error_description"].as_str()),
            (401, "workload_identity_failed", Some(text))
        );
    }
}

fn clock_now(clock: &ManualClock) -> Timestamp {
    crate::clock::Clock::now(clock)
}

fn claims_of(response: &TokenResponse) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = response.access_token.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn with(mut value: Value, member: &str, new: impl Into<Value>) -> Value {
    value[member] = new.into();
    value
}

fn without(mut value: Value, member: &str) -> Value {
    value.as_object_mut().unwrap().remove(member).unwrap();
    value
}
