//! Services on other hosts that charge whoever calls them.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use lumoauth_core::budget::{BudgetPolicy, Usage};
use lumoauth_tower::{AuthenticateLayer, BudgetLayer, Guard, RemoteBudgets, RemoteTokens, UsageMeter};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::{
    budget::{HELD, estimate},
    setting::{Answer, Bot, OTHER_RESOURCE, RESOURCE, Reached, Setting, with_token},
};

const USED: Usage = Usage { tokens: 42, calls: 1, micro_usd: 7_000 };
const RESERVATIONS: &str = "agents/me/budget/reservations";

/// A service that charges, and what reaches it.
struct Service {
    guard: Guard<RemoteTokens>,
    reached: Reached,
}

impl Service {
    fn by_keys(setting: &Setting) -> Self {
        Self::new(setting, RemoteTokens::by_keys(setting.remote()))
    }

    fn by_introspection(setting: &Setting) -> Self {
        Self::new(setting, RemoteTokens::by_introspection(setting.account()))
    }

    fn new(setting: &Setting, tokens: RemoteTokens) -> Self {
        let guard = Guard::remote(tokens, RESOURCE)
            .capability("read:files".parse().unwrap())
            .charge(&setting.account(), estimate);
        Self { guard, reached: Reached::default() }
    }

    async fn call(&self, request: Request<()>) -> Answer {
        let reached = self.reached.clone();
        let service = self.guard.layer(service_fn(move |request: Request<()>| {
            reached.now();
            request.extensions().get::<UsageMeter>().unwrap().record(USED);
            async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
        }));
        Answer::of(service.oneshot(request).await.unwrap()).await
    }
}

/// What was used beside what getting the tokens cost.
async fn since(setting: &Setting, bot: &Bot, before: Usage) -> Usage {
    let used = setting.used(bot).await;
    Usage {
        tokens: used.tokens - before.tokens,
        calls: used.calls - before.calls,
        micro_usd: used.micro_usd - before.micro_usd,
    }
}

#[tokio::test]
async fn everybody_of_the_callers_chain_pays_what_was_used() {
    for by_keys in [true, false] {
        let setting = Setting::online().await;
        setting.limit(&setting.sub, json!({ "max_api_calls_per_hour": 10, "max_tokens_per_day": 900 })).await;
        setting.limit(&setting.root, json!({ "max_tokens_per_day": 1000 })).await;
        let token = setting.chained(&[("resource", RESOURCE)]).await;
        let before = (setting.used(&setting.root).await, setting.used(&setting.sub).await);
        let service = if by_keys { Service::by_keys(&setting) } else { Service::by_introspection(&setting) };
        let answer = service.call(with_token(&token)).await;
        assert_eq!((answer.status.as_u16(), &*answer.text), (200, "hello"));
        assert_eq!(answer.header("ratelimit-policy"), r#""calls";q=10;w=3600"#);
        assert!(answer.header("ratelimit").starts_with(r#""calls";r="#));
        assert_eq!(since(&setting, &setting.root, before.0).await, USED);
        assert_eq!(since(&setting, &setting.sub, before.1).await, USED);
        assert_eq!(setting.used(&setting.files).await, Usage::default(), "the service pays nothing");
        assert_eq!(setting.line.count("oauth/token"), 1);
        assert_eq!(service.call(with_token(&token)).await.status, 200);
        assert_eq!(setting.line.count("oauth/token"), 1, "the service's own token is used again");
    }
}

#[tokio::test]
async fn refusals_are_those_of_the_budget() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let policy = json!({
        "max_tokens_per_day": 120, "allowed_models": ["gpt-4"], "require_approval_above_usd": 1,
    });
    setting.limit(&setting.root, policy).await;
    let service = Service::by_keys(&setting);
    let with = |name: &'static str, value: &'static str| {
        let mut request = with_token(&token);
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    service.call(with("x-model", "gpt-9")).await.refused(403, "model_not_allowed");
    service.call(with("x-micro-usd", "1000001")).await.refused(403, "approval_required");
    assert_eq!((service.reached.times(), setting.used(&setting.root).await.tokens), (0, 0));
    assert_eq!(service.call(with("x-model", "gpt-4")).await.status, 200);
    let refused = service.call(with_token(&token)).await;
    refused.refused(429, "budget_exceeded");
    let details = &refused.json()["details"];
    assert_eq!(
        (&details["limit"], &details["max"], &details["used"]),
        (&json!("max_tokens_per_day"), &json!(120), &json!(42))
    );
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(service.reached.times(), 1);
    assert_eq!(
        setting.events("budget.exceeded").await.len(),
        0,
        "nothing is used up, only too little is left"
    );
}

#[tokio::test]
async fn no_number_or_name_of_a_caller_is_an_outage() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    let with = |name: &'static str, value: &str| {
        let mut request = with_token(&token);
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    for name in ["", &*"m".repeat(129), " "] {
        service.call(with("x-model", name)).await.refused(403, "model_not_allowed");
    }
    let (most, amounts) = (u64::MAX.to_string(), ["x-tokens", "x-micro-usd"]);
    for header in amounts {
        assert_eq!(service.call(with(header, &most)).await.status, 200, "nothing limits it");
    }
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 1000, "max_cost_per_month_usd": 1 })).await;
    for header in amounts {
        service.call(with(header, &most)).await.refused(429, "budget_exceeded");
    }
    // What a broken provider says is a fact all the same.
    let before = setting.used(&setting.root).await;
    let inner = service.guard.layer(service_fn(move |request: Request<()>| {
        request.extensions().get::<UsageMeter>().unwrap().record(Usage { tokens: u64::MAX, ..USED });
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    }));
    assert_eq!(Answer::of(inner.oneshot(with_token(&token)).await.unwrap()).await.status, 200);
    assert_eq!(since(&setting, &setting.root, before).await.tokens, BudgetPolicy::MAX_COUNT);
}

#[tokio::test]
async fn a_cost_limit_is_told_in_dollars() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    setting.limit(&setting.root, json!({ "max_cost_per_month_usd": 0.005 })).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    let refused = service.call(with_token(&token)).await;
    refused.refused(429, "budget_exceeded");
    let details = &refused.json()["details"];
    assert_eq!(details["limit"], "max_cost_per_month_usd");
    assert!(details["used"].to_string().contains("0.007"), "{details}");
}

#[tokio::test]
async fn a_caller_that_is_over_its_budget_is_refused_without_asking() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 0 })).await;
    setting.clock.advance(Duration::from_secs(2));
    let service = Service::by_introspection(&setting);
    let refused = service.call(with_token(&token)).await;
    refused.refused(429, "budget_exceeded");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3601).contains(&seconds));
    assert_eq!((service.reached.times(), setting.line.count("reservations")), (0, 0));
}

#[tokio::test]
async fn an_envelope_is_charged_too() {
    let setting = Setting::online().await;
    let budget = json!({ "max_tokens_per_day": 120 }).to_string();
    let token = setting.chained(&[("resource", RESOURCE), ("budget", &budget)]).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    service.call(with_token(&token)).await.refused(429, "budget_exceeded");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_charged_once() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    let before = setting.used(&setting.root).await;
    setting.line.lost.store(2, Ordering::SeqCst);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    assert_eq!(since(&setting, &setting.root, before).await, USED);
    let before = setting.used(&setting.root).await;
    let reached = service.reached.clone();
    let line = setting.line.clone();
    let inner = service.guard.layer(service_fn(move |request: Request<()>| {
        reached.now();
        line.lost.store(2, Ordering::SeqCst);
        request.extensions().get::<UsageMeter>().unwrap().record(USED);
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    }));
    assert_eq!(Answer::of(inner.oneshot(with_token(&token)).await.unwrap()).await.status, 200);
    assert_eq!(setting.line.lost.load(Ordering::SeqCst), 0);
    assert_eq!(since(&setting, &setting.root, before).await, USED);
}

#[tokio::test]
async fn while_the_server_is_away_nobody_passes() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    setting.line.down.store(3, Ordering::SeqCst);
    service.call(with_token(&token)).await.refused(503, "temporarily_unavailable");
    assert_eq!((service.reached.times(), setting.line.down.load(Ordering::SeqCst)), (1, 0));
    setting.line.down.store(2, Ordering::SeqCst);
    assert_eq!(service.call(with_token(&token)).await.status, 200, "two failures are bridged");
}

#[tokio::test]
async fn what_was_used_is_settled_when_the_server_is_back() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let before = setting.used(&setting.root).await;
    let line = setting.line.clone();
    let service = Service::by_keys(&setting);
    let inner = service.guard.layer(service_fn(move |request: Request<()>| {
        line.down.store(u32::MAX, Ordering::SeqCst);
        request.extensions().get::<UsageMeter>().unwrap().record(USED);
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    }));
    assert_eq!(Answer::of(inner.oneshot(with_token(&token)).await.unwrap()).await.text, "hello");
    assert_eq!(since(&setting, &setting.root, before).await, HELD);
    // Its lease is over meanwhile.
    setting.clock.advance(Duration::from_secs(700));
    assert_eq!(since(&setting, &setting.root, before).await, HELD);
    setting.line.down.store(0, Ordering::SeqCst);
    setting.comes_to(&setting.root, Usage { calls: before.calls + 1, ..USED }).await;
}

#[tokio::test]
async fn what_nobody_was_told_is_held_is_free_again() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    let before = setting.used(&setting.root).await;
    setting.line.lost.store(3, Ordering::SeqCst);
    service.call(with_token(&token)).await.refused(503, "temporarily_unavailable");
    assert_eq!((service.reached.times(), setting.line.lost.load(Ordering::SeqCst)), (1, 0));
    setting.comes_to(&setting.root, before).await;
}

#[tokio::test]
async fn all_who_call_while_the_server_is_silent_wait_as_long_as_one() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let tokens = RemoteTokens::by_keys(setting.remote());
    assert!(tokens.verify(&token, RESOURCE).await.is_ok());
    let service = Service::new(&setting, tokens);
    setting.line.silent.store(true, Ordering::SeqCst);
    let calls = join_all((0..20).map(|_| service.call(with_token(&token))));
    let answers = timeout(Duration::from_secs(20), calls).await.expect("three attempts, of three seconds");
    for answer in answers {
        answer.refused(503, "temporarily_unavailable");
    }
    assert_eq!((setting.line.count("oauth/token"), setting.line.count("reservations")), (3, 0));
    // Nothing of it is kept.
    setting.line.silent.store(false, Ordering::SeqCst);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
}

#[tokio::test]
async fn a_caller_that_was_revoked_is_refused_where_it_pays() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    setting.revoke(&setting.root, &token).await;
    service.call(with_token(&token)).await.refused(401, "invalid_token");
    assert_eq!(service.reached.times(), 1);
}

#[tokio::test]
async fn the_service_gets_a_new_token_when_its_own_has_ended() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    // Whoever suspends the service ends its tokens, and they stay dead when it is enabled again.
    setting.change(&setting.files, |agent| agent.epoch += 1).await;
    setting.clock.advance(Duration::from_secs(2));
    assert_eq!(service.call(with_token(&token)).await.status, 200);
    assert_eq!(setting.line.count("oauth/token"), 2);
}

#[tokio::test]
async fn callers_that_are_no_agents_have_no_budget() {
    let setting = Setting::online().await;
    let token = setting.bound(RESOURCE).await;
    let claims = json!({ "identity_type": "client", "agent_id": null, "agent_name": null });
    let client = setting.forged(&token, &json!({}), &claims).await;
    let service = Service::by_keys(&setting);
    assert_eq!(service.call(with_token(&client)).await.status, 200);
    assert_eq!(setting.line.count("reservations"), 0);
}

#[tokio::test]
async fn nobody_is_charged_where_they_are_not_known() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let inner = || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::from("x"))));
    let mixed = ServiceBuilder::new()
        .layer(AuthenticateLayer::remote(RemoteTokens::by_keys(setting.remote()), RESOURCE))
        .layer(BudgetLayer::new(Arc::new(setting.server.clone())))
        .service(inner());
    let answer = Answer::of(mixed.oneshot(with_token(&bound)).await.unwrap()).await;
    answer.refused(503, "temporarily_unavailable");
    let mixed = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()).for_resource(RESOURCE))
        .layer(BudgetLayer::new(Arc::new(RemoteBudgets::new(setting.account()))))
        .service(inner());
    let answer = Answer::of(mixed.oneshot(with_token(&bound)).await.unwrap()).await;
    answer.refused(503, "temporarily_unavailable");
}

fn reservation(id: &str, token: &str) -> Value {
    json!({ "id": id, "tokens": 10, "api_calls": 1, "subject_token": token })
}

#[tokio::test]
async fn a_service_may_charge_its_own_callers_only() {
    let setting = Setting::new().await;
    let bound = setting.bound(RESOURCE).await;
    let revoked = setting.bound(RESOURCE).await;
    setting.revoke(&setting.root, &revoked).await;
    let elsewhere = setting.bound(OTHER_RESOURCE).await;
    let own_route = setting.token(&setting.root).await;
    let before = setting.used(&setting.root).await;
    for token in [&*elsewhere, &own_route, &revoked, &setting.app_token().await, "x", ""] {
        let (status, body) = setting.as_service(RESERVATIONS, &reservation("r", token)).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("validation_error")), "{body}");
        assert!(body["details"]["subject_token"].is_string(), "{body}");
    }
    assert_eq!(setting.used(&setting.root).await, before);
    let (status, body) = setting.as_service(RESERVATIONS, &reservation("r", &bound)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(since(&setting, &setting.root, before).await, Usage { tokens: 10, calls: 1, micro_usd: 0 });
    // One that acts for somebody is not there for itself.
    let chained = setting.chained(&[]).await;
    let (status, body) = setting.as_bearer(&chained, RESERVATIONS, &reservation("r", &chained)).await;
    assert_eq!((status, &body["error"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{body}");
    // Its own token is its own.
    let own = setting.token(&setting.files).await;
    let (status, body) = setting.as_service(RESERVATIONS, &reservation("own", &own)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(setting.used(&setting.files).await.tokens, 10);
}

#[tokio::test]
async fn a_reservation_for_a_caller_is_the_services() {
    let setting = Setting::new().await;
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 100 })).await;
    let (first, chained) = (setting.bound(RESOURCE).await, setting.chained(&[("resource", RESOURCE)]).await);
    let (status, body) = setting.as_service(RESERVATIONS, &reservation("r", &first)).await;
    assert_eq!((status, &body["remaining"]["tokens"]), (StatusCode::CREATED, &json!(90)), "{body}");
    assert_eq!(body["held"]["tokens"], 10);
    let (status, repeated) = setting.as_service(RESERVATIONS, &reservation("r", &first)).await;
    assert_eq!((status, &repeated["remaining"]), (StatusCode::OK, &body["remaining"]));
    // The same id for somebody else is another reservation.
    let (status, body) = setting.as_service(RESERVATIONS, &reservation("r", &chained)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let settle = format!("{RESERVATIONS}/r/settle");
    let (status, body) = setting.as_service(&settle, &json!({ "tokens": 100 })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["charged"], json!({ "tokens": 100, "api_calls": 1, "cost_usd": "0" }));
    assert_eq!(body["exceeded"], json!(["max_tokens_per_day"]), "of whoever paid");
    assert_eq!(body["remaining"]["tokens"], 0);
    let events = setting.events("budget.exceeded").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].target.as_ref().unwrap().id.as_ref(), setting.root.id.to_string());
}
