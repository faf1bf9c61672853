//! What `AAuthLayer` adds to a route, beside the Ed25519 check that it cannot do without.
//!
//! `cargo bench -p lumoauth-tower --bench aauth`

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the ratio is what it is for")]

use std::{
    convert::Infallible,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    aauth::{AuthTokenIssuer, Confirmation, ResourceServer},
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent},
    audit::{Actor, Event, EventKind},
    clock::{Clock, ManualClock, Timestamp},
    httpsig::{self, Content, Message, Profile, SignWith},
    id::{KeyId, OrgId, Slug},
    keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, LocalSigner, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{MemoryStore, Stores},
};
use lumoauth_tower::{AAuthLayer, CheckedBody};
use serde_json::json;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

const RESOURCE: &str = "https://files.acme.test";
const AGENT: &str = "https://agent.acme.test";
const ROUNDS: usize = 7;
const CALLS: usize = 4_000;

type Route = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// An agent with a token, at a resource in the process of its authorization server.
struct Setting {
    layer: AAuthLayer,
    agent: LocalSigner,
    token: String,
    clock: Arc<ManualClock>,
}

impl Setting {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
        let (now, org) = (clock.now(), OrgId::parse("acme").unwrap());
        let on = |kind| Event::new(kind, Actor::system(), "made", now);
        let store = Arc::new(MemoryStore::from_the_beginning());
        let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
        let stores = Stores::all(store);
        let server = AuthorizationServer::builder("https://auth.example", stores.clone(), keys.clone());
        let server = server.with_clock(clock.clone()).build().unwrap();
        let organization = Organization::new(org.clone(), "acme", now);
        let _ =
            stores.organizations.insert(&organization, &on(EventKind::OrganizationCreated)).await.unwrap();
        let mut record = Agent::new("Agent", Slug::parse("agent").unwrap(), now);
        record.aauth = Some(Box::new(AAuthIdentity::new(AGENT.parse().unwrap())));
        let _ = stores.agents.insert(&org, &record, &on(EventKind::AgentCreated)).await.unwrap();
        let resource = AAuthResource::new("Files", RESOURCE.parse().unwrap(), now);
        let event = on(EventKind::AAuthResourceCreated);
        let _ = stores.aauth_resources.insert(&org, &resource, &event).await.unwrap();
        let agent = LocalSigner::from_ed25519_seed(KeyId::parse("k").unwrap(), &[7; 32]).unwrap();
        let issuer = Arc::new(server.auth_tokens_of(&org).unwrap());
        let claims = json!({
            "iss": issuer.issuer(), "aud": RESOURCE, "agent": AGENT, "scope": "read:files",
            "cnf": Confirmation::of(agent.public_key().unwrap()).to_claim(), "auth_level": "none",
            "organization": org, "iat": now.unix_seconds(), "exp": now.unix_seconds() + 3600, "jti": "t",
            "lin": { "o": 0, "a": [[record.id, 0]], "r": [[resource.id, 0]] },
        });
        let signer = keys.signer(&org, KeyPurpose::AAuth, now).await.unwrap();
        let header = json!({ "alg": "EdDSA", "kid": signer.key_id(), "typ": "auth+jwt" });
        let part = |value: String| URL_SAFE_NO_PAD.encode(value);
        let signed = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let signature = signer.sign(signed.as_bytes()).await.unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let resource = ResourceServer::new(RESOURCE.parse().unwrap(), issuer, stores.replay.clone());
        let layer = AAuthLayer::new(Arc::new(resource)).with_clock(clock.clone());
        Self { layer: layer.scope("read:files".parse().unwrap()), agent, token, clock }
    }

    /// Requests with 600 bytes of content, each with a nonce of its own.
    async fn requests(&self) -> Vec<Request<Full<Bytes>>> {
        let body = vec![b'x'; 600];
        let mut headers = HeaderMap::new();
        headers.insert("host", "files.acme.test".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        let mut requests = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let message = Message {
                method: &Method::POST,
                scheme: "https",
                authority: "files.acme.test",
                path: "/files/a",
                query: None,
                headers: &headers,
                content: Content::Bytes(&body),
            };
            let with = SignWith::now(self.clock.now());
            let signed = httpsig::sign(&self.agent, &Profile::LUMO_SDK, &message, with).await.unwrap();
            let mut request = Request::post("/files/a").body(Full::from(body.clone())).unwrap();
            *request.headers_mut() = headers.clone();
            signed.insert_into(request.headers_mut());
            requests.push(request);
        }
        requests
    }
}

/// A route that reads its body and answers.
fn route<B>() -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    service_fn(|request: Request<B>| async move {
        black_box(request.into_body().collect().await.unwrap().to_bytes());
        Ok(Response::new(Full::from("ok")))
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn micros(route: &Route, requests: Vec<Request<Full<Bytes>>>) -> f64 {
    let mut route = route.clone();
    let started = Instant::now();
    for request in requests {
        let answer = route.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        black_box(answer);
    }
    per_call(started.elapsed())
}

/// As many bare checks, over as many bytes as are signed of such a request.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn bare_checks() -> f64 {
    let key = SigningKey::from_bytes(&[7; 32]);
    let text = vec![b'x'; 1300];
    let (public, signature) = (key.verifying_key(), key.sign(&text));
    let started = Instant::now();
    for _ in 0..CALLS {
        public.verify_strict(black_box(&text), &signature).unwrap();
    }
    per_call(started.elapsed())
}

fn per_call(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e6 / f64::from(u32::try_from(CALLS).unwrap())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let setting = Setting::new().await;
    let contenders: [(&str, Route); 3] = [
        ("bare route", BoxCloneService::new(route::<Full<Bytes>>())),
        ("AAuthLayer", BoxCloneService::new(setting.layer.layer(route::<CheckedBody<Full<Bytes>>>()))),
        (
            "AAuthLayer, streaming",
            BoxCloneService::new(
                setting.layer.clone().streaming().layer(route::<CheckedBody<Full<Bytes>>>()),
            ),
        ),
    ];
    // The best of some rounds: the time without what else the machine does.
    let (mut best, mut check) = ([f64::MAX; 3], f64::MAX);
    for _ in 0..ROUNDS {
        for ((_, route), best) in contenders.iter().zip(&mut best) {
            *best = best.min(micros(route, setting.requests().await).await);
        }
        check = check.min(bare_checks());
    }
    println!("one Ed25519 check: {check:.1} us");
    for ((name, _), time) in contenders.iter().zip(best) {
        let over = time - best[0];
        println!("{name}: {time:.1} us; over the bare route {over:.1} us = {:.2} checks", over / check);
    }
}
