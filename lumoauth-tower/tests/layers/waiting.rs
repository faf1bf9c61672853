//! Services that wait for a human before they serve costly calls.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use http::{Response, StatusCode};
use lumoauth_core::{
    approval::{Approval, Decision},
    audit::{Actor, Event, EventKind},
    budget::Usage,
    clock::Clock,
    id::{Number, UserId},
    spending::Spend,
    store::{Decide, Page},
};
use lumoauth_tower::{
    AuthenticateLayer, BudgetLayer, LumoauthService, RateLimits, RemoteBudgets, RemoteTokens,
};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::setting::{Answer, RESOURCE, Setting, TYPE, with_token};

const COST: Usage = Usage { tokens: 10, calls: 1, micro_usd: 2_000_000 };

/// A setting where two dollars are too much for nobody to be asked.
async fn careful() -> (Arc<Setting>, String) {
    careful_at(Setting::online().await).await
}

async fn careful_at(setting: Setting) -> (Arc<Setting>, String) {
    let setting = Arc::new(setting);
    let token = setting.bound(RESOURCE).await;
    setting.limit(&setting.root, json!({ "require_approval_above_usd": 1 })).await;
    (setting, token)
}

/// Calls a service that waits that long.
fn call(setting: &Setting, token: &str, patience: Duration) -> JoinHandle<Answer> {
    let budgets = RemoteBudgets::new(setting.account()).waiting_for_approval(patience);
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::remote(RemoteTokens::by_keys(setting.remote()), RESOURCE))
        .layer(BudgetLayer::new(Arc::new(budgets)).estimate(|_| Spend::new(COST).with_model("gpt-4")))
        .service(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::from("hello")))));
    let request = with_token(token);
    tokio::spawn(async move { Answer::of(service.oneshot(request).await.unwrap()).await })
}

impl Setting {
    async fn asked(&self) -> Vec<Arc<Approval>> {
        let pending = self.stores.approvals.pending(&self.org, None, self.clock.now(), Page::first(10));
        pending.await.unwrap().items
    }

    async fn comes_to_be_asked(&self) -> Arc<Approval> {
        for _ in 0..300 {
            if let [approval] = &self.asked().await[..] {
                return approval.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody is asked")
    }

    async fn decide(&self, approval: &Approval, approved: bool) {
        let now = self.clock.now();
        let (by, number) = (Some(UserId::generate()), Some(Number::new(1)));
        let decision = Decision { approved, by, number, epoch: 0, epoch_of_whom: None, at: now, note: None };
        let event = Event::new(EventKind::ApprovalApproved, Actor::system(), "decided", now);
        let decided = self.stores.approvals.decide(&self.org, approval, &decision, now, &event).await;
        assert_eq!(decided.unwrap(), Decide::Decided);
    }
}

#[tokio::test]
async fn a_costly_call_waits_until_somebody_agrees() {
    let (setting, token) = careful().await;
    let before = setting.used(&setting.root).await;
    let call = call(&setting, &token, Duration::from_secs(20));
    let approval = setting.comes_to_be_asked().await;
    assert!(!call.is_finished());
    assert_eq!(approval.reason, "root at files: a call for 2 USD");
    assert_eq!(approval.meta["caller"], setting.root.id.to_string());
    assert_eq!((&approval.meta["model"], &approval.agent), (&json!("gpt-4"), &setting.files.id));
    assert_eq!(setting.used(&setting.root).await.micro_usd, 2_000_000, "what waits is held");
    setting.decide(&approval, true).await;
    let answer = call.await.unwrap();
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "hello"));
    setting.comes_to(&setting.root, Usage { calls: before.calls + 1, ..COST }).await;
}

#[tokio::test]
async fn a_call_that_waits_outlasts_a_restart_of_the_server() {
    let (setting, token) = careful().await;
    let call = call(&setting, &token, Duration::from_secs(20));
    let approval = setting.comes_to_be_asked().await;
    // One poll, and all its attempts.
    setting.line.down.store(3, Ordering::SeqCst);
    while setting.line.down.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    setting.decide(&approval, true).await;
    assert_eq!(call.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn patience_is_no_longer_with_a_server_that_is_silent() {
    let (setting, token) = careful().await;
    let call = call(&setting, &token, Duration::from_secs(2));
    setting.comes_to_be_asked().await;
    setting.line.silent.store(true, Ordering::SeqCst);
    let answer = timeout(Duration::from_secs(6), call).await.expect("it waits two seconds").unwrap();
    answer.refused(403, "approval_required");
}

#[tokio::test]
async fn a_denial_is_told_and_frees_the_amount() {
    let (setting, token) = careful().await;
    let before = setting.used(&setting.root).await;
    let call = call(&setting, &token, Duration::from_secs(20));
    setting.decide(&*setting.comes_to_be_asked().await, false).await;
    call.await.unwrap().refused(403, "approval_denied");
    assert_eq!(setting.used(&setting.root).await, before);
}

#[tokio::test]
async fn patience_ends_and_frees_the_amount() {
    let (setting, token) = careful().await;
    let before = setting.used(&setting.root).await;
    let answer = call(&setting, &token, Duration::from_millis(1200)).await.unwrap();
    answer.refused(403, "approval_required");
    setting.comes_to(&setting.root, before).await;
    // Nobody is asked any more.
    for _ in 0..300 {
        if setting.asked().await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", setting.asked().await);
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_pays_nothing() {
    let (setting, token) = careful().await;
    let before = setting.used(&setting.root).await;
    let call = call(&setting, &token, Duration::from_secs(20));
    setting.comes_to_be_asked().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    setting.comes_to(&setting.root, before).await;
}

#[tokio::test]
async fn a_caller_that_is_revoked_while_it_waits_is_refused() {
    let (setting, token) = careful().await;
    let before = setting.used(&setting.root).await;
    let call = call(&setting, &token, Duration::from_secs(20));
    let approval = setting.comes_to_be_asked().await;
    setting.revoke(&setting.root, &token).await;
    setting.decide(&approval, true).await;
    let answer = timeout(Duration::from_secs(10), call).await.unwrap().unwrap();
    answer.refused(401, "invalid_token");
    setting.comes_to(&setting.root, before).await;
}

#[tokio::test]
async fn nobody_is_asked_for_a_service_that_does_not_wait() {
    let (setting, token) = careful().await;
    call(&setting, &token, Duration::ZERO).await.unwrap().refused(403, "approval_required");
    assert!(setting.asked().await.is_empty());
}

#[tokio::test]
async fn a_caller_that_asks_too_often_takes_nothing_from_the_others() {
    let mut limits = RateLimits::standard();
    limits.approvals = 1;
    let online = Setting::online_as(|server| LumoauthService::new(server).with_rate_limits(limits));
    let (setting, token) = careful_at(online.await).await;
    let other = setting.chained(&[("resource", RESOURCE)]).await;
    let patience = Duration::from_secs(20);
    let first = call(&setting, &token, patience);
    let approval = setting.comes_to_be_asked().await;
    let before = setting.used(&setting.root).await;
    // Its own fault, as far as it can see, and no outage.
    let answer = call(&setting, &token, patience).await.unwrap();
    answer.refused(429, "rate_limit_exceeded");
    assert!((1..=60).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(setting.used(&setting.root).await, before);
    assert_eq!(setting.asked().await.len(), 1);

    let second = call(&setting, &other, patience);
    let others = async || setting.asked().await.into_iter().find(|one| one.token != approval.token);
    let mut found = None;
    for _ in 0..300 {
        found = others().await;
        if found.is_some() || second.is_finished() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for approval in [&approval, &found.expect("somebody is asked for the other caller")] {
        setting.decide(approval, true).await;
    }
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn nobody_is_asked_for_a_caller_with_a_test_token() {
    let (setting, _) = careful().await;
    let path = format!("admin/agents/{}/token", setting.root.id);
    let (status, made) = setting.as_bearer(&setting.api_key, &path, &json!({})).await;
    let test = made["data"]["accessToken"].as_str().unwrap_or_else(|| panic!("{status} {made}"));
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("client_id", setting.root.client_id.as_str()),
        ("client_secret", &setting.root.secret),
        ("subject_token", test),
        ("subject_token_type", TYPE),
        ("resource", RESOURCE),
    ];
    let bound = setting.issued(&fields).await;
    let reserve = async |id: &str, cost: u32| {
        let body = json!({ "id": id, "cost_usd": cost, "subject_token": bound, "wait_for_approval": true });
        setting.as_service("agents/me/budget/reservations", &body).await
    };
    let (status, refused) = reserve("costly", 2).await;
    assert_eq!((status, &refused["error"]), (StatusCode::FORBIDDEN, &json!("test_token_not_accepted")));
    assert!(setting.asked().await.is_empty());
    assert_eq!(reserve("cheap", 1).await.0, StatusCode::CREATED);
}
