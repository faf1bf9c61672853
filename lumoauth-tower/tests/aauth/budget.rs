//! What stands behind the layer: capabilities, and budgets.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use lumoauth_core::{
    budget::Usage,
    clock::Clock,
    principal::{Identity, Principal, RemoteKind},
    spending::Spend,
};
use lumoauth_tower::{BudgetLayer, CheckedBody, Guard, RequireCapabilityLayer};
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::setting::{AGENT, Answer, ISSUER, Setting};

type Route = Request<CheckedBody<Full<Bytes>>>;

async fn who(request: Route) -> Result<Response<Full<Bytes>>, Infallible> {
    let principal = request.extensions().get::<Principal>().unwrap();
    let Identity::Remote(caller) = &principal.identity else { panic!("{principal:?}") };
    assert_eq!((&*caller.issuer, caller.kind), (ISSUER, RemoteKind::Agent));
    assert!(!format!("{principal:?}").contains("eyJ"), "no token in a log");
    let actors: Vec<_> = caller.actors.iter().map(|actor| (&actor.id, &actor.name)).collect();
    let body = json!({ "subject": caller.subject, "id": caller.agent_id, "actors": actors, "by": principal.actor() });
    Ok(Response::new(Full::from(body.to_string())))
}

#[tokio::test]
async fn the_caller_is_bounded_by_its_token() {
    let setting = Setting::new().await;
    let service = ServiceBuilder::new()
        .layer(setting.layer())
        .layer(RequireCapabilityLayer::new("read:files".parse().unwrap()))
        .service(service_fn(who));
    let answer = async |token: &str| {
        Answer::of(service.clone().oneshot(setting.get(token).await.request()).await.unwrap()).await
    };
    let agent = setting.agent_record().await;
    let alone = answer(&setting.token("read:files").await).await;
    alone.served();
    assert_eq!(alone.json()["subject"], AGENT);
    assert_eq!((&alone.json()["id"], &alone.json()["actors"]), (&json!(agent.id), &json!([])));
    assert_eq!(alone.json()["by"]["id"], agent.id.to_string());
    answer(&setting.token("write:files").await).await.forbidden("capability_denied");
    answer(&setting.token("admin:agents").await).await.forbidden("capability_denied");
    answer("x").await.unauthenticated("invalid_token");
    // Without the layer there is nobody.
    let alone = RequireCapabilityLayer::new("read:files".parse().unwrap()).layer(service_fn(
        async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())),
    ));
    assert_eq!(alone.oneshot(Request::new(())).await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn whoever_acts_for_somebody_is_shown_with_those_before() {
    let setting = Setting::new().await;
    let service = ServiceBuilder::new().layer(setting.layer()).service(service_fn(who));
    let agent = setting.agent_record().await;
    let upstream = "https://first.acme.test";
    let mut claims = setting.claims("read:files").await;
    claims["act"] = json!({ "sub": upstream, "agent": upstream, "act": { "sub": AGENT, "agent": AGENT } });
    claims["lin"]["a"] = json!([[agent.id, agent.epoch], [agent.id, agent.epoch]]);
    let mut other = claims.clone();
    other["lin"]["a"] = json!([[agent.id, agent.epoch]]);
    let issued =
        async |claims| setting.issued("auth+jwt", lumoauth_core::keys::KeyPurpose::AAuth, claims).await;
    let token = issued(&claims).await;
    let answer =
        Answer::of(service.clone().oneshot(setting.get(&token).await.request()).await.unwrap()).await;
    answer.served();
    assert_eq!(answer.json()["subject"], upstream);
    assert_eq!(answer.json()["actors"][0][1], upstream);
    assert_eq!(answer.json()["actors"][1][1], AGENT);
    // A chain that names others than it stands on is none.
    let token = issued(&other).await;
    let answer = Answer::of(service.oneshot(setting.get(&token).await.request()).await.unwrap()).await;
    answer.unauthenticated("invalid_token");
}

#[tokio::test]
async fn calls_are_charged_to_the_agent_until_its_budget_is_used_up() {
    let setting = Setting::new().await;
    setting
        .change(|agent| {
            agent.budget = serde_json::from_value(json!({ "max_api_calls_per_hour": 3 })).unwrap()
        })
        .await;
    let token = setting.token("read:files").await;
    let budgets = Arc::new(setting.server.clone());
    let layers = ServiceBuilder::new()
        .layer(setting.layer())
        .layer(RequireCapabilityLayer::new("read:files".parse().unwrap()))
        .layer(BudgetLayer::new(budgets))
        .service(service_fn(who));
    let guard = Guard::behind_aauth(setting.server.clone())
        .capability("read:files".parse().unwrap())
        .charge(|_| Spend::default());
    let guarded = ServiceBuilder::new().layer(setting.layer()).layer(guard).service(service_fn(who));
    let answer = Answer::of(layers.clone().oneshot(setting.get(&token).await.request()).await.unwrap()).await;
    answer.served();
    assert!(answer.headers.contains_key("ratelimit"));
    // Who may not call pays nothing.
    let narrow = setting.token("write:files").await;
    let answer =
        Answer::of(layers.clone().oneshot(setting.get(&narrow).await.request()).await.unwrap()).await;
    answer.forbidden("capability_denied");
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let answer = guarded.clone().oneshot(setting.get(&token).await.request()).await.unwrap();
        assert_eq!(answer.status(), expected);
    }
    let used = setting.stores.budgets.usage(
        &setting.org,
        setting.agent_record().await.account(),
        setting.clock.now(),
    );
    assert_eq!(used.await.unwrap(), Usage { calls: 3, ..Usage::default() });
}

#[tokio::test]
async fn a_guard_without_the_layer_outside_lets_nobody_through() {
    let setting = Setting::new().await;
    let guard = Guard::behind_aauth(setting.server.clone());
    let route =
        service_fn(async |_: Request<()>| -> Result<Response<Full<Bytes>>, Infallible> { panic!("reached") });
    let answer = guard.clone().layer(route).oneshot(Request::new(())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    // And one for another organization only others.
    let guard = guard.for_organization("globex".parse().unwrap());
    let service = ServiceBuilder::new().layer(setting.layer()).layer(guard).service(service_fn(who));
    let answer =
        service.oneshot(setting.get(&setting.token("read:files").await).await.request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}
