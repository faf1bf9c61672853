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
use lumoauth_tower::{AuthenticateLayer, BudgetLayer, RemoteBudgets, RemoteTokens};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::setting::{Answer, RESOURCE, Setting, with_token};

const COST: Usage = Usage { tokens: 10, calls: 1, micro_usd: 2_000_000 };

/// A setting where two dollars are too much for nobody to be asked.
async fn careful() -> (Arc<Setting>, String) {
    let setting = Arc::new(Setting::online().await);
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
        let decision = Decision { approved, by, number, at: now, note: None };
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
    let answer = timeout(Duration::from_millis(2900), call).await.expect("it waits two seconds").unwrap();
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
