use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    agent::{Agent, AgentStatus, AuthMethod, IdentityType},
    audit::{Actor, Event, EventKind},
    client::Client,
    client_auth::{Method, Presented, Proof},
    clock::Timestamp,
    fetch::{Fetch, FetchError, FetchRequest, NoFetch},
    foreign_keys::ForeignKeys,
    id::{OrgId, Slug},
    jwks::{JwsAlgorithm, test_key::TestKey},
    store::{AgentKey, Insert, MemoryStore, Stores},
};

const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
const NOW: u64 = 1_790_000_000;

struct Bench {
    stores: Stores,
    foreign_keys: ForeignKeys,
    key: TestKey,
    agent: Agent,
    issued: AtomicU64,
}

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn event() -> Event {
    Event::new(EventKind::AgentCreated, Actor::system(), "made", Timestamp::from_unix_seconds(NOW))
}

async fn bench_with(change: impl FnOnce(&mut Agent, &TestKey)) -> Bench {
    let stores = Stores::all(Arc::new(MemoryStore::new()));
    let now = Timestamp::from_unix_seconds(NOW);
    let key = TestKey::new(JwsAlgorithm::Es256, "k");
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now);
    agent.jwks = Some(key.jwks());
    change(&mut agent, &key);
    let inserted = stores.agents.insert(&org("acme"), &agent, &event()).await.unwrap();
    assert!(matches!(inserted, Insert::Inserted));
    Bench { stores, foreign_keys: ForeignKeys::new(Arc::new(NoFetch)), key, agent, issued: AtomicU64::new(0) }
}

async fn bench() -> Bench {
    bench_with(|_, _| {}).await
}

impl Bench {
    fn id(&self) -> &str {
        self.agent.client_id.as_str()
    }

    /// Good claims with a fresh `jti` and these changes; `null` removes one. They have all the life there is, so nobody can
    /// have presented them before the store began to remember.
    fn claims(&self, changes: &Value) -> Value {
        let jti = self.issued.fetch_add(1, Ordering::SeqCst).to_string();
        let mut claims = json!({
            "iss": self.id(), "sub": self.id(), "aud": ISSUER, "jti": jti, "iat": NOW, "exp": NOW + 300,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn assertion(&self, changes: &Value) -> String {
        self.key.token(&self.claims(changes))
    }

    /// `Ok` if it proves the agent, and else what the log says.
    async fn present_at(
        &self,
        in_org: &str,
        client_id: &str,
        assertion: &str,
        now: u64,
    ) -> Result<(), String> {
        let issuer = format!("https://auth.example/orgs/{in_org}/api/v1");
        let desk = Desk {
            stores: &self.stores,
            foreign_keys: &self.foreign_keys,
            org: &org(in_org),
            issuer: &issuer,
            from: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            now: Timestamp::from_unix_seconds(now),
        };
        let presented = Presented {
            client_id: client_id.to_owned(),
            secret: None,
            assertion: Some(Secret::from(assertion)),
            method: Method::Body,
        };
        match desk.authenticate(&presented).await.unwrap() {
            Proof::Proven(client) => {
                assert_eq!(client.client_id().as_str(), client_id);
                Ok(())
            }
            Proof::Public(_) => panic!("an assertion makes nobody public"),
            Proof::Nothing { claimed: None, cause: None } => Err("unknown client".to_owned()),
            Proof::Nothing { cause, .. } => Err(cause.unwrap()),
        }
    }

    async fn present(&self, assertion: &str) -> Result<(), String> {
        self.present_at("acme", self.id(), assertion, NOW).await
    }

    async fn with(&self, changes: Value) -> Result<(), String> {
        self.present(&self.assertion(&changes)).await
    }
}

#[tokio::test]
async fn a_client_that_signs_for_us_is_who_it_says() {
    let bench = bench().await;
    assert_eq!(bench.with(json!({})).await, Ok(()));
    assert_eq!(bench.with(json!({"iat": null})).await, Ok(()));
    assert_eq!(bench.with(json!({"nbf": NOW, "more": [1]})).await, Ok(()));
    for typ in ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt"] {
        let header = json!({"alg": "ES256", "kid": "k", "typ": typ}).to_string();
        let assertion = bench.key.raw(&header, &bench.claims(&json!({})).to_string());
        assert_eq!(bench.present(&assertion).await, Ok(()), "{typ}");
    }
    let assertion = Secret::from(bench.assertion(&json!({})));
    assert_eq!(claimed_client(&assertion).as_deref(), Some(bench.id()));
}

#[tokio::test]
async fn the_audience_is_the_issuer_alone_as_one_text() {
    let bench = bench().await;
    for aud in [
        json!(null),
        json!(""),
        json!([ISSUER]),
        json!([ISSUER, "https://other.example"]),
        json!(format!("{ISSUER}/")),
        json!(format!("{ISSUER}/oauth/token")),
        json!("https://auth.example"),
        json!("https://auth.example/orgs/globex/api/v1"),
        json!("https://auth.example/t/acme/api/v1"),
        json!(ISSUER.to_uppercase()),
        json!({"iss": ISSUER}),
    ] {
        let refused = bench.with(json!({"aud": aud})).await;
        assert_eq!(refused.unwrap_err(), "assertion is for another audience", "{aud}");
    }
}

#[tokio::test]
async fn issuer_and_subject_are_the_client_itself() {
    let bench = bench().await;
    for name in ["iss", "sub"] {
        for value in [json!("agt_other"), json!(ISSUER), json!([bench.id()]), json!(null), json!("")] {
            let refused = bench.with(json!({name: value})).await;
            assert_eq!(refused.unwrap_err(), "assertion is by or about somebody else", "{name} {value}");
        }
    }
    // Signed by a client that exists, presented in the name of another.
    let other = bench_with(|_, _| {}).await;
    let good = bench.assertion(&json!({}));
    assert_eq!(other.present(&good).await.unwrap_err(), "assertion is not acceptable: bad signature");
    let unknown = bench.present_at("acme", "agt_nobody", &good, NOW).await;
    assert_eq!(unknown.unwrap_err(), "unknown client");
    assert_eq!(bench.present_at("acme", "", &good, NOW).await.unwrap_err(), "unknown client");
    assert_eq!(bench.present_at("globex", bench.id(), &good, NOW).await.unwrap_err(), "unknown client");
    assert_eq!(bench.present(&good).await, Ok(()), "none of that used it up");
}

#[tokio::test]
async fn its_time_is_short_and_now() {
    let bench = bench().await;
    let at = |now: u64, changes: Value| {
        let assertion = bench.assertion(&changes);
        let bench = &bench;
        async move { bench.present_at("acme", bench.id(), &assertion, now).await }
    };
    let times = |exp: u64, iat: u64| json!({"exp": exp, "iat": iat});
    assert_eq!(at(NOW, times(NOW + 300, NOW + 60)).await, Ok(()));
    assert_eq!(at(NOW + 59, times(NOW + 60, NOW + 119)).await, Ok(()));
    for (changes, cause) in [
        (times(NOW + 301, NOW), "assertion is valid for too long"),
        (times(u64::MAX, NOW), "assertion is valid for too long"),
        (times(NOW + 300, NOW + 61), "assertion is not acceptable: not yet valid"),
        (json!({"nbf": NOW + 61}), "assertion is not acceptable: not yet valid"),
        (times(NOW, NOW - 60), "assertion is not acceptable: expired"),
        (json!({"exp": null}), "assertion is not acceptable: malformed"),
        (json!({"exp": (NOW + 60).to_string()}), "assertion is not acceptable: malformed"),
        (json!({"iat": "now"}), "assertion is not acceptable: malformed"),
    ] {
        assert_eq!(at(NOW, changes.clone()).await.unwrap_err(), cause, "{changes}");
    }
}

#[tokio::test]
async fn it_is_used_once() {
    let bench = bench().await;
    let once = bench.assertion(&json!({}));
    assert_eq!(bench.present(&once).await, Ok(()));
    let again = "assertion was used before";
    assert_eq!(bench.present(&once).await.unwrap_err(), again);
    // Signed anew with the same jti is the same.
    let jti = bench.claims(&json!({}))["jti"].clone();
    assert_eq!(bench.with(json!({"jti": jti})).await, Ok(()));
    assert_eq!(bench.with(json!({"jti": jti, "exp": NOW + 61})).await.unwrap_err(), again);
    for jti in [json!(null), json!(""), json!(7), json!("j".repeat(257))] {
        assert_eq!(bench.with(json!({"jti": jti})).await.unwrap_err(), "assertion has no usable jti");
    }
    assert_eq!(bench.with(json!({"jti": "j".repeat(256)})).await, Ok(()));
}

#[tokio::test]
async fn what_may_have_been_used_before_the_memory_began_is_refused() {
    let bench = bench().await;
    let refused = bench.with(json!({"exp": NOW + 60, "iat": NOW - 60})).await;
    assert_eq!(refused.unwrap_err(), "assertion may have been used before this server began to remember");
}

#[tokio::test]
async fn nobody_else_can_use_up_a_jti() {
    let bench = bench().await;
    let jti = json!({"jti": "shared"});
    // By another key, for another audience, too late, and by another client.
    let forged = TestKey::new(JwsAlgorithm::Es256, "k").token(&bench.claims(&jti));
    assert!(bench.present(&forged).await.is_err());
    assert!(bench.with(json!({"jti": "shared", "aud": "https://evil.example"})).await.is_err());
    assert!(bench.with(json!({"jti": "shared", "exp": NOW})).await.is_err());
    let mut other = Agent::new("Other", Slug::parse("other").unwrap(), Timestamp::from_unix_seconds(NOW));
    other.jwks = Some(bench.key.jwks());
    let _ = bench.stores.agents.insert(&org("acme"), &other, &event()).await.unwrap();
    let id = other.client_id.as_str();
    let by_other = bench.assertion(&json!({"jti": "shared", "iss": id, "sub": id}));
    assert_eq!(bench.present_at("acme", id, &by_other, NOW).await, Ok(()));
    assert_eq!(bench.with(jti).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_exactly_one_is_accepted() {
    let bench = Arc::new(bench().await);
    for _ in 0..200 {
        let assertion = Arc::new(bench.assertion(&json!({})));
        let barrier = Arc::new(tokio::sync::Barrier::new(4));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (bench, assertion, barrier) = (bench.clone(), assertion.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    bench.present(&assertion).await
                })
            })
            .collect();
        let mut accepted = 0;
        for task in tasks {
            accepted += usize::from(task.await.unwrap().is_ok());
        }
        assert_eq!(accepted, 1);
    }
}

#[tokio::test]
async fn a_forged_assertion_proves_nothing() {
    let bench = bench().await;
    let (header, claims) = (bench.key.header(), bench.claims(&json!({})).to_string());
    let raw = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        bench.key.raw(&header.to_string(), &claims)
    };
    let evil = TestKey::new(JwsAlgorithm::Es256, "k");
    for (assertion, cause) in [
        (raw("alg", json!("none")), "algorithm not accepted"),
        (raw("alg", json!("HS256")), "algorithm not accepted"),
        (raw("alg", json!("ES384")), "unknown key"),
        (raw("kid", json!("other")), "unknown key"),
        (raw("crit", json!(["exp"])), "unexpected header"),
        (
            evil.raw(&json!({"alg": "ES256", "kid": "k", "jwk": evil.jwk()}).to_string(), &claims),
            "bad signature",
        ),
        ("a.b.c".to_owned(), "malformed"),
        ("x".repeat(20_000), "too long"),
    ] {
        assert_eq!(
            bench.present(&assertion).await.unwrap_err(),
            format!("assertion is not acceptable: {cause}")
        );
    }
    for typ in ["at+jwt", "agent+jwt", "auth+jwt", "dpop+jwt", "resource+jwt", "id+jwt", ""] {
        assert_eq!(bench.present(&raw("typ", json!(typ))).await.unwrap_err(), "assertion is of another type");
    }
}

#[tokio::test]
async fn every_identity_type_may_use_registered_keys_and_none_may_without() {
    for identity in [
        IdentityType::WorkloadIdentity,
        IdentityType::Aauth,
        IdentityType::ClientCredentials,
        IdentityType::Custom,
    ] {
        let with = bench_with(|agent, _| agent.identity_type = identity).await;
        assert_eq!(with.with(json!({})).await, Ok(()), "{identity:?}");
        let without = bench_with(|agent, _| {
            agent.identity_type = identity;
            agent.jwks = None;
        })
        .await;
        assert_eq!(without.with(json!({})).await.unwrap_err(), "client has no registered keys");
    }
    for status in [AgentStatus::Suspended, AgentStatus::Revoked] {
        let inactive = bench_with(|agent, _| agent.status = status).await;
        assert_eq!(inactive.with(json!({})).await.unwrap_err(), "client is not active, or public");
    }
}

#[tokio::test]
async fn an_agent_that_may_not_use_keys_or_is_elsewhere_is_refused_and_its_assertion_is_not_used_up() {
    let by = |methods: Vec<AuthMethod>| bench_with(|agent, _| agent.auth_methods = methods);
    let bench = by(vec![AuthMethod::ClientCredentials, AuthMethod::Aauth]).await;
    let cause = "the agent may not authenticate by this method";
    assert_eq!(bench.with(json!({})).await.unwrap_err(), cause);
    assert_eq!(by(vec![AuthMethod::PrivateKeyJwt]).await.with(json!({})).await, Ok(()));

    let from = |network: &str| {
        let network = network.parse().unwrap();
        bench_with(move |agent, _| agent.allowed_ips = vec![network])
    };
    assert_eq!(from("127.0.0.1/32").await.with(json!({})).await, Ok(()));
    let bench = from("127.0.0.2/31").await;
    let assertion = bench.assertion(&json!({}));
    let cause = "the address is none of those that the agent may come from";
    assert_eq!(bench.present(&assertion).await.unwrap_err(), cause);
    let found = bench.stores.agents.find(&org("acme"), AgentKey::Id(bench.agent.id)).await.unwrap();
    let mut agent = Agent::clone(&found.unwrap());
    agent.allowed_ips.clear();
    let _ = bench.stores.agents.update(&org("acme"), &agent, &event()).await.unwrap();
    assert_eq!(bench.present(&assertion).await, Ok(()));
    assert_eq!(bench.present(&assertion).await.unwrap_err(), "assertion was used before");
}

#[tokio::test]
async fn ordinary_clients_sign_too_unless_they_are_public_or_inactive() {
    let bench = bench().await;
    for (confidential, active) in [(true, true), (false, true), (true, false)] {
        let (mut client, _) = Client::new("App", Timestamp::from_unix_seconds(NOW));
        (client.confidential, client.active) = (confidential, active);
        client.jwks = Some(bench.key.jwks());
        let _ = bench.stores.clients.insert(&org("acme"), &client, &event()).await.unwrap();
        let id = client.client_id.as_str();
        let assertion = bench.assertion(&json!({"iss": id, "sub": id}));
        let accepted = bench.present_at("acme", id, &assertion, NOW).await.is_ok();
        assert_eq!(accepted, confidential && active);
    }
}

/// The keys of one address, until it goes away.
#[derive(Debug)]
struct OneKeySet(String);

#[async_trait::async_trait]
impl Fetch for OneKeySet {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        match request.url.as_str() {
            "https://bot.example/jwks" => Ok(self.0.clone().into_bytes()),
            _ => Err(FetchError::NotAllowed),
        }
    }
}

#[tokio::test]
async fn published_keys_are_fetched_and_registered_ones_come_first() {
    let published = |agent: &mut Agent, _: &TestKey| {
        agent.jwks = None;
        agent.jwks_uri = Some("https://bot.example/jwks".to_owned());
    };
    let mut bench = bench_with(published).await;
    let refused = bench.with(json!({})).await.unwrap_err();
    assert_eq!(refused, "keys may not be fetched from this address");
    let keys = json!({"keys": [bench.key.jwk()]}).to_string();
    bench.foreign_keys = ForeignKeys::new(Arc::new(OneKeySet(keys)));
    assert_eq!(bench.with(json!({})).await, Ok(()));

    let mut both = bench_with(|agent, _| {
        agent.jwks_uri = Some("https://bot.example/jwks".to_owned());
    })
    .await;
    let evil = TestKey::new(JwsAlgorithm::Es256, "k");
    let keys = json!({"keys": [evil.jwk()]}).to_string();
    both.foreign_keys = ForeignKeys::new(Arc::new(OneKeySet(keys)));
    assert_eq!(both.with(json!({})).await, Ok(()));
    assert!(both.present(&evil.token(&both.claims(&json!({})))).await.is_err());
}
