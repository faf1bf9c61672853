//! Hosts that decide themselves what agents get at resources.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use lumoauth_core::{
    aauth::{AuthorizationFacts, Confirmation, ConsentPolicy, Decision},
    aauth_resource::{AAuthResource, AuthLevel},
    agent::{AAuthIdentity, Agent},
    audit::{Actor, Event, EventKind},
    capability::Scope,
    clock::Clock,
    id::Slug,
    keys::KeyPurpose,
    secret::Secret,
    store::StoreError,
};
use serde_json::{Value, json};

use crate::{
    client::{CALLBACK, id},
    people::{answer, with_people},
    setting::{AGENT, ISSUER, RESOURCE, Setting, jwt},
};

/// Says what it was told to; nothing is an outage. Knows what it was shown last.
#[derive(Debug, Default)]
struct Says {
    decision: Mutex<Option<Decision>>,
    shown: Mutex<(Option<String>, String)>,
}

#[async_trait]
impl ConsentPolicy for Says {
    async fn decide(&self, facts: &AuthorizationFacts<'_>) -> Result<Decision, StoreError> {
        *self.shown.lock().unwrap() = (facts.delegate.map(str::to_owned), facts.scope.to_string());
        let decision = self.decision.lock().unwrap().clone();
        decision.ok_or_else(|| StoreError::unavailable("policy", "away"))
    }
}

struct World {
    setting: Setting,
    policy: Arc<Says>,
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let policy = Arc::new(Says::default());
        let setting = Setting::under(policy.clone()).await;
        with_people(&setting, AuthLevel::None).await;
        Self { setting, policy }
    }

    fn say(&self, decision: impl Into<Option<Decision>>) {
        *self.policy.decision.lock().unwrap() = decision.into();
    }

    /// A new token of the resource that asks for this.
    async fn asked(&self, scope: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let now = self.setting.clock.now().unix_seconds();
        let jkt = self.setting.agent.public_key().unwrap().thumbprint().to_string();
        let claims = json!({
            "iss": RESOURCE, "aud": ISSUER, "agent": AGENT, "agent_jkt": jkt, "scope": scope, "iat": now,
            "exp": now + 300, "jti": COUNT.fetch_add(1, Ordering::SeqCst).to_string(),
        });
        jwt(&*self.setting.key, "resource+jwt", &claims).await
    }

    /// What the token endpoint answers to this request for this scope.
    async fn ask(&self, kind: &str, scope: &str, more: Value) -> (StatusCode, Value) {
        let mut body = json!({ "request_type": kind, "resource_token": self.asked(scope).await });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.setting.ask("aauth/agent/token", &body).await
    }

    /// The code of a person who agrees to what the policy wants them asked.
    async fn code(&self, scope: &str) -> Secret {
        // Each time somebody else, whom the time gives a name.
        self.setting.clock.advance(Duration::from_secs(1));
        let (status, body) = self.ask("auth", scope, json!({})).await;
        assert_eq!((status.as_u16(), &body["error"]), (401, &json!("authorization_required")), "{body}");
        let token = Secret::from(body["request_token"].as_str().unwrap());
        answer(&self.setting, &token, true).await.unwrap()
    }

    async fn redeem(&self, code: &Secret) -> (StatusCode, Value) {
        let body = json!({ "request_type": "code", "code": code.expose(), "redirect_uri": CALLBACK });
        self.setting.ask("aauth/agent/token", &body).await
    }
}

#[track_caller]
fn given((status, body): (StatusCode, Value), scope: &str) -> Value {
    assert_eq!((status, &body["scope"]), (StatusCode::OK, &json!(scope)), "{body}");
    body
}

#[track_caller]
fn refused((status, body): (StatusCode, Value), expected: u16, error: &str) {
    assert_eq!((status.as_u16(), &body["error"]), (expected, &json!(error)), "{body}");
    assert!(body.get("auth_token").is_none() && body.get("request_token").is_none(), "{body}");
}

/// The level that a token states.
fn level(body: &Value) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = body["auth_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["auth_level"].clone()
}

#[tokio::test]
async fn it_narrows_and_refuses_and_never_widens() {
    let world = World::new().await;
    world.say(Decision::Grant(scope("read")));
    let body = given(world.ask("auth", "read write", json!({})).await, "read");
    assert_eq!(level(&body), "none");
    assert_eq!(*world.policy.shown.lock().unwrap(), (None, "read write".to_owned()));
    world.say(Decision::Grant(scope("read admin")));
    given(world.ask("auth", "read write", json!({})).await, "read");
    given(world.ask("auth", "write", json!({})).await, "");
    world.say(Decision::Deny("Not today."));
    let (status, body) = world.ask("auth", "read", json!({})).await;
    assert_eq!(body["error_description"], "Not today.");
    refused((status, body), 403, "access_denied");
    world.say(None);
    let (status, body) = world.ask("auth", "read", json!({})).await;
    assert!(status.is_server_error(), "{status} {body}");
}

#[tokio::test]
async fn it_may_want_a_person_asked_where_the_resource_does_not() {
    let world = World::new().await;
    world.say(Decision::Consent(scope("read admin")));
    let code = world.code("read write").await;
    let body = given(world.redeem(&code).await, "read");
    assert_eq!(level(&body), "authorized", "somebody was asked for it");
    let refresh = json!({ "refresh_token": body["refresh_token"] });
    assert_eq!(level(&given(world.ask("refresh", "read", refresh.clone()).await, "read")), "authorized");
    // What was given at once, nobody agreed to.
    world.say(Decision::Grant(scope("read")));
    given(world.ask("refresh", "read", refresh).await, "read");
    let at_once = given(world.ask("auth", "read", json!({})).await, "read");
    world.say(Decision::Consent(scope("read")));
    let refresh = json!({ "refresh_token": at_once["refresh_token"] });
    refused(world.ask("refresh", "read", refresh).await, 403, "access_denied");
    // An agent that may ask nobody is not told to.
    world.setting.change(|agent| agent.aauth.as_mut().unwrap().user_authorization = false).await;
    refused(world.ask("auth", "read", json!({})).await, 403, "access_denied");
}

#[tokio::test]
async fn it_is_asked_again_when_a_code_is_redeemed() {
    let world = World::new().await;
    for (decision, status, error) in [
        (Decision::Deny("Not today."), 403, "access_denied"),
        (Decision::Consent(scope("read")), 400, "invalid_scope"),
        (Decision::Grant(scope("write")), 400, "invalid_scope"),
    ] {
        world.say(Decision::Consent(scope("read write")));
        let code = world.code("read write").await;
        world.say(decision);
        refused(world.redeem(&code).await, status, error);
    }
    world.say(Decision::Consent(scope("read write")));
    let code = world.code("read write").await;
    given(world.redeem(&code).await, "read write");
}

#[tokio::test]
async fn it_is_asked_again_when_a_token_is_refreshed() {
    let world = World::new().await;
    world.say(Decision::Grant(scope("read write")));
    let body = given(world.ask("auth", "read write", json!({})).await, "read write");
    let refresh = json!({ "refresh_token": body["refresh_token"] });
    world.say(Decision::Grant(scope("read")));
    refused(world.ask("refresh", "read write", refresh.clone()).await, 400, "invalid_scope");
    given(world.ask("refresh", "read", refresh.clone()).await, "read");
    world.say(Decision::Deny("Not today."));
    refused(world.ask("refresh", "read", refresh.clone()).await, 403, "access_denied");
    world.say(None);
    assert!(world.ask("refresh", "read", refresh.clone()).await.0.is_server_error());
    world.say(Decision::Grant(scope("read write")));
    given(world.ask("refresh", "read write", refresh).await, "read write");
}

#[tokio::test]
async fn it_is_asked_when_a_token_is_exchanged() {
    let world = World::new().await;
    let setting = &world.setting;
    setting.change(|agent| agent.aauth.as_mut().unwrap().token_exchange = true).await;
    let on = |kind| Event::new(kind, Actor::system(), "made", setting.clock.now());
    let mut caller = Agent::new("Caller", Slug::parse("caller").unwrap(), setting.clock.now());
    caller.aauth = Some(Box::new(AAuthIdentity::new(id("https://caller.acme.test"))));
    let _ = setting.stores.agents.insert(&setting.org, &caller, &on(EventKind::AgentCreated)).await.unwrap();
    let door = AAuthResource::new("Door", id(AGENT), setting.clock.now());
    let made = on(EventKind::AAuthResourceCreated);
    let _ = setting.stores.aauth_resources.insert(&setting.org, &door, &made).await.unwrap();
    let now = setting.clock.now().unix_seconds();
    let claims = json!({
        "iss": ISSUER, "aud": AGENT, "agent": "https://caller.acme.test", "scope": "read write",
        "cnf": Confirmation::of(setting.agent.public_key().unwrap()).to_claim(), "auth_level": "none",
        "organization": setting.org, "iat": now, "exp": now + 3600, "jti": "upstream",
        "lin": { "o": 0, "a": [[caller.id, caller.epoch]], "r": [[door.id, door.epoch]] },
    });
    let upstream = json!({ "auth_token": setting.issued("auth+jwt", KeyPurpose::AAuth, &claims).await });
    let exchange = || world.ask("exchange", "read", upstream.clone());
    world.say(Decision::Grant(scope("read write")));
    given(exchange().await, "read");
    world.say(Decision::Grant(scope("write")));
    refused(exchange().await, 400, "invalid_scope");
    world.say(Decision::Deny("Not today."));
    refused(exchange().await, 403, "access_denied");
    // Nobody agreed to what it comes of.
    world.say(Decision::Consent(scope("read")));
    refused(exchange().await, 403, "access_denied");
    world.say(None);
    assert!(exchange().await.0.is_server_error());
}
