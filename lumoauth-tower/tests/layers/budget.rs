//! What a `BudgetLayer` holds, refuses and settles while everything goes well.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use lumoauth_core::{
    audit::Origin,
    budget::Usage,
    principal::Principal,
    spending::{Budgets, Held, Receipt, Remaining, Spend, SpendError},
};
use lumoauth_tower::{AuthenticateLayer, BudgetLayer, PeerAddr, Rejection, RejectionReason, UsageMeter};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::setting::{Answer, Bot, Reached, Setting, with_token};

pub(crate) const HELD: Usage = Usage { tokens: 100, calls: 1, micro_usd: 0 };

/// What a test's requests are expected to use: 100 tokens and one call, or what their headers say.
pub(crate) fn estimate(parts: &http::request::Parts) -> Spend {
    let number = |name: &str| parts.headers.get(name).and_then(|n| n.to_str().ok()?.parse().ok());
    let usage = Usage {
        tokens: number("x-tokens").unwrap_or(HELD.tokens),
        micro_usd: number("x-micro-usd").unwrap_or(0),
        ..HELD
    };
    match parts.headers.get("x-model") {
        Some(model) => Spend::new(usage).with_model(model.to_str().unwrap()),
        None => Spend::new(usage),
    }
}

/// Sends a request through authentication and budget to `inner`.
pub(crate) async fn send<F>(
    setting: &Setting,
    request: Request<()>,
    inner: impl Fn(Request<()>) -> F + Clone + Send + 'static,
) -> Response<lumoauth_tower::MeteredBody<Body>>
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()))
        .layer(BudgetLayer::new(Arc::new(setting.server.clone())).estimate(estimate))
        .service(service_fn(move |request| {
            let answer = inner(request);
            async move { Ok::<_, Infallible>(answer.await) }
        }));
    // Authentication gives the inner body back as it is.
    service.oneshot(request).await.unwrap()
}

async fn call(setting: &Setting, bot: &Bot, reached: &Reached, headers: &[(&'static str, &str)]) -> Answer {
    let mut request = with_token(&setting.token(bot).await);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let reached = reached.clone();
    let answer = send(setting, request, move |_| {
        reached.now();
        async { Response::new(Body::from("hello")) }
    });
    Answer::of(answer.await).await
}

#[tokio::test]
async fn what_a_call_is_expected_to_use_is_charged() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    setting.limit(&setting.root, json!({ "max_api_calls_per_hour": 3, "max_tokens_per_day": 1000 })).await;
    let answer = call(&setting, &setting.root, &reached, &[]).await;
    assert_eq!((answer.status.as_u16(), &*answer.text), (200, "hello"));
    assert_eq!(answer.header("ratelimit-policy"), r#""calls";q=3;w=3600"#);
    assert!(answer.header("ratelimit").starts_with(r#""calls";r=2;t="#), "{answer:?}");
    assert_eq!(setting.used(&setting.root).await, HELD);
}

#[tokio::test]
async fn one_api_call_is_expected_unless_somebody_says_more() {
    let setting = Setting::new().await;
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()))
        .layer(BudgetLayer::new(Arc::new(setting.server.clone())))
        .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty()))));
    let request = with_token(&setting.token(&setting.root).await);
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(setting.used(&setting.root).await, Usage::ONE_CALL);
}

#[tokio::test]
async fn who_has_nothing_left_is_told_what_and_until_when_and_nothing_runs() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    setting.limit(&setting.root, json!({ "max_api_calls_per_hour": 1 })).await;
    assert_eq!(call(&setting, &setting.root, &reached, &[]).await.status, 200);
    for _ in 0..2 {
        let refused = call(&setting, &setting.root, &reached, &[]).await;
        refused.refused(429, "budget_exceeded");
        let details = &refused.json()["details"];
        assert_eq!(details["limit"], "max_api_calls_per_hour");
        assert_eq!((&details["max"], &details["used"]), (&json!(1), &json!(1)));
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{seconds}");
    }
    assert_eq!((reached.times(), setting.used(&setting.root).await), (1, HELD));
    setting.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(call(&setting, &setting.root, &reached, &[]).await.status, 200);
}

#[tokio::test]
async fn a_refusal_in_the_log_says_where_the_request_came_from() {
    let setting = Setting::new().await;
    setting.limit(&setting.root, json!({ "max_api_calls_per_hour": 0 })).await;
    let mut request = with_token(&setting.token(&setting.root).await);
    request.extensions_mut().insert(PeerAddr("192.0.2.7:4711".parse::<SocketAddr>().unwrap()));
    request.headers_mut().insert("user-agent", "agent/1".parse().unwrap());
    request.headers_mut().insert("x-request-id", "r-1".parse().unwrap());
    let response = send(&setting, request, async |_| Response::new(Body::empty())).await;
    assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, RejectionReason::Budget);
    let events = setting.events("budget.exceeded").await;
    let origin = &events[0].origin;
    assert_eq!(origin.ip, Some("192.0.2.7".parse().unwrap()));
    assert_eq!((origin.user_agent.as_deref(), origin.request_id.as_deref()), (Some("agent/1"), Some("r-1")));
}

#[tokio::test]
async fn models_outside_the_policy_and_costs_above_the_threshold_are_refused() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    let policy = json!({ "allowed_models": ["gpt-4"], "require_approval_above_usd": 1 });
    setting.limit(&setting.root, policy).await;
    let refused = call(&setting, &setting.root, &reached, &[("x-model", "gpt-9")]).await;
    refused.refused(403, "model_not_allowed");
    let refused = call(&setting, &setting.root, &reached, &[("x-micro-usd", "1000001")]).await;
    refused.refused(403, "approval_required");
    assert_eq!((reached.times(), setting.used(&setting.root).await), (0, Usage::default()));
    let allowed = [("x-model", "gpt-4"), ("x-micro-usd", "1000000")];
    assert_eq!(call(&setting, &setting.root, &reached, &allowed).await.status, 200);
}

#[tokio::test]
async fn everybody_of_a_chain_pays_or_nobody_does() {
    let setting = Setting::new().await;
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 250 })).await;
    let token = setting.chained(&[]).await;
    let before = (setting.used(&setting.root).await, setting.used(&setting.sub).await);
    for expected in [200, 200, 429] {
        let answer = send(&setting, with_token(&token), async |_| Response::new(Body::from("x"))).await;
        assert_eq!(answer.status(), expected);
        drop(Answer::of(answer).await);
    }
    for (bot, before) in [(&setting.root, before.0), (&setting.sub, before.1)] {
        let used = setting.used(bot).await;
        assert_eq!((used.tokens, used.calls), (200, before.calls + 2));
    }
}

#[tokio::test]
async fn callers_without_a_budget_pass() {
    let setting = Setting::new().await;
    let key = Request::get("/").header("x-api-key", &setting.api_key).body(()).unwrap();
    for request in [key, with_token(&setting.app_token().await)] {
        let answer = send(&setting, request, async |_| Response::new(Body::from("x"))).await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("ratelimit"));
    }
}

/// Budgets that nobody can ask, or settle.
#[derive(Debug)]
struct Broken {
    reserve: bool,
    hangs: bool,
}

#[async_trait]
impl Budgets for Broken {
    async fn reserve(&self, caller: &Principal, _: &Spend, _: &Origin) -> Result<Held, SpendError> {
        if self.reserve {
            return Err(SpendError::Unavailable("the store is away".into()));
        }
        let _ = caller;
        Ok(Held::new(Remaining::default(), Receipt::Reservation("r".to_owned())))
    }

    async fn settle(&self, _: Held, _: &Usage) -> Result<(), SpendError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(SpendError::Unavailable("the store is away".into()))
    }
}

async fn through(setting: &Setting, broken: Broken, reached: &Reached) -> Answer {
    let reached = reached.clone();
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()))
        .layer(BudgetLayer::new(Arc::new(broken)))
        .service(service_fn(move |_: Request<()>| {
            reached.now();
            async { Ok::<_, Infallible>(Response::new(Body::from("whole"))) }
        }));
    let request = with_token(&setting.token(&setting.root).await);
    Answer::of(service.oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn while_budgets_cannot_be_asked_nothing_runs() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    let answer = through(&setting, Broken { reserve: true, hangs: false }, &reached).await;
    answer.refused(503, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty() && !answer.text.contains("away"));
    assert_eq!(reached.times(), 0);
}

#[tokio::test]
async fn an_answer_is_whole_although_nobody_can_settle() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    for hangs in [false, true] {
        let answer = through(&setting, Broken { reserve: false, hangs }, &reached).await;
        assert_eq!((answer.status.as_u16(), &*answer.text), (200, "whole"));
    }
}

#[tokio::test]
async fn without_authentication_it_is_a_mistake_of_the_host() {
    let (setting, reached) = (Setting::new().await, Reached::default());
    let inner = reached.clone();
    let service = ServiceBuilder::new().layer(BudgetLayer::new(Arc::new(setting.server.clone()))).service(
        service_fn(move |_: Request<()>| {
            inner.now();
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        }),
    );
    let response = service.oneshot(with_token(&setting.token(&setting.root).await)).await.unwrap();
    assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, RejectionReason::Misconfigured);
    assert_eq!((response.status().as_u16(), reached.times()), (500, 0));
}

#[tokio::test]
async fn the_answer_may_say_what_was_used() {
    let setting = Setting::new().await;
    let used = Usage { tokens: 42, calls: 1, micro_usd: 7 };
    let request = with_token(&setting.token(&setting.root).await);
    let response = send(&setting, request, move |_| async move {
        let mut response = Response::new(Body::from("x"));
        response.extensions_mut().insert(used);
        response
    });
    drop(Answer::of(response.await).await);
    assert_eq!(setting.used(&setting.root).await, used);
}

#[tokio::test]
async fn more_than_was_held_is_recorded_and_blocks_the_next() {
    let setting = Setting::new().await;
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 150 })).await;
    let used = Usage { tokens: 999, calls: 1, micro_usd: 0 };
    for expected in [200, 429] {
        let request = with_token(&setting.token(&setting.root).await);
        let response = send(&setting, request, move |request| async move {
            request.extensions().get::<UsageMeter>().unwrap().record(used);
            Response::new(Body::from("x"))
        });
        assert_eq!(Answer::of(response.await).await.status, expected);
    }
    assert_eq!(setting.used(&setting.root).await, used);
}
