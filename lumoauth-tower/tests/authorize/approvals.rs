//! Approvals, where the time and the state of the agent decide.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use lumoauth_core::{
    approval::{Approval, ApprovalToken, Decision},
    audit::{Actor, Event, EventKind},
    clock::{Clock, Timestamp},
    id::{OrgId, UserId},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    server::AuthorizationServer,
    store::{ApprovalStore, Consume, Decide, Listing, MemoryStore, NewApproval, Page, StoreError, Stores},
    user::User,
};
use lumoauth_tower::{LumoauthService, RateLimits};
use serde_json::{Value, json};

use crate::bench::{Answer, BASE, Bench, send, send_anyhow};

impl Bench {
    /// A bench at which alice has an approver channel.
    async fn with_approver() -> Self {
        let bench = Self::new().await;
        bench.change_alice(|alice| alice.approver = true).await;
        bench
    }

    pub(crate) async fn change_alice(&self, change: impl FnOnce(&mut User)) {
        let mut alice = (*self.server.user(&self.org, "alice@acme.test").await.unwrap()).clone();
        change(&mut alice);
        let on = Event::new(EventKind::UserCreated, Actor::system(), "changed", self.clock.now());
        let _ = self.stores.users.update(&self.org, &alice, &on).await.unwrap();
    }

    pub(crate) async fn bot_token(&self) -> String {
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_id", &*self.bot.id),
            ("client_secret", &self.bot.secret),
        ];
        self.token(&pairs).await.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A token of alice in person.
    async fn alice_token(&self) -> String {
        let portal = [
            ("client_id", &*self.app.id),
            ("redirect_uri", "https://portal.example/cb"),
            ("scope", "openid"),
        ];
        let code = self.code(&portal).await;
        let mut pairs =
            vec![("grant_type", "authorization_code"), ("code", &code), ("client_secret", &self.app.secret)];
        pairs.extend_from_slice(&portal[..2]);
        self.token(&pairs).await.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        self.send("POST", &format!("{BASE}/{path}"), &headers, &body.to_string()).await
    }

    /// What the bot gets that asks for approval.
    async fn request(&self, token: &str, who: &str) -> Answer {
        let body = json!({ "task_id": "t-9", "reason": "Pay", "impact": "high", "on_behalf_of": who });
        self.post("agents/me/approvals", token, &body).await
    }

    /// The token of an approval that the bot asks alice for.
    async fn opened(&self, token: &str) -> String {
        let answer = self.request(token, "alice@acme.test").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["approval_token"].as_str().unwrap().to_owned()
    }

    async fn status(&self, token: &str, approval: &str) -> Value {
        self.get(&format!("agents/me/approvals/{approval}/status"), token).await.json()
    }

    async fn say(&self, token: &str, approval: &str, what: &str) -> StatusCode {
        self.post(&format!("approvals/{approval}/{what}"), token, &json!({})).await.status
    }
}

#[tokio::test]
async fn nobody_decides_after_five_minutes() {
    let bench = Bench::with_approver().await;
    let (bot, alice) = (bench.bot_token().await, bench.alice_token().await);
    let (late, in_time) = (bench.opened(&bot).await, bench.opened(&bot).await);
    bench.clock.advance(Duration::from_millis(299_999));
    assert_eq!(bench.status(&bot, &late).await["status"], "pending");
    assert_eq!(bench.say(&alice, &in_time, "approve").await, StatusCode::OK);
    assert_eq!(bench.get("approvals/pending", &alice).await.json()["meta"]["total"], 1);

    bench.clock.advance(Duration::from_millis(1));
    let expired = bench.status(&bot, &late).await;
    assert_eq!((&expired["status"], &expired["approved_by"]), (&json!("expired"), &Value::Null));
    assert_eq!(bench.get("approvals/pending", &alice).await.json()["meta"]["total"], 0);
    for what in ["approve", "deny"] {
        assert_eq!(bench.say(&alice, &late, what).await, StatusCode::CONFLICT);
    }
    assert_eq!(bench.status(&bot, &late).await["status"], "expired");
    // What was decided in time stays so.
    assert_eq!(bench.status(&bot, &in_time).await["status"], "approved");
    assert_eq!((bench.events("approval.approved").await, bench.events("approval.denied").await), (1, 0));
}

#[tokio::test]
async fn an_approval_is_known_for_a_day_after_its_end() {
    let bench = Bench::with_approver().await;
    let bot = bench.bot_token().await;
    let approval = bench.opened(&bot).await;
    for (after, status) in [(300 + 86_400, StatusCode::OK), (1, StatusCode::NOT_FOUND)] {
        bench.clock.advance(Duration::from_secs(after));
        bench.server.maintain_once().await.unwrap();
        let bot = bench.bot_token().await;
        let answer = bench.get(&format!("agents/me/approvals/{approval}/status"), &bot).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_stopped_agent_gets_no_yes() {
    let bench = Bench::with_approver().await;
    let (bot, alice) = (bench.bot_token().await, bench.alice_token().await);
    let (one, other) = (bench.opened(&bot).await, bench.opened(&bot).await);
    bench
        .change_bot(|bot| assert!(bot.change_status(lumoauth_core::agent::StatusChange::Deactivate).unwrap()))
        .await;
    assert_eq!(bench.say(&alice, &one, "approve").await, StatusCode::CONFLICT);
    // A no is always right.
    assert_eq!(bench.say(&alice, &other, "deny").await, StatusCode::OK);
    assert_eq!(bench.get(&format!("agents/me/approvals/{one}/status"), &bot).await.status, 401);
    assert_eq!(bench.events("approval.approved").await, 0);
}

/// At every door where it is shown.
#[tokio::test]
async fn what_was_agreed_to_may_be_done_for_five_minutes() {
    let bench = Bench::with_approver().await;
    bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some("1".parse().unwrap())).await;
    let (bot, alice) = (bench.bot_token().await, bench.alice_token().await);
    let approval = bench.opened(&bot).await;
    bench.clock.advance(Duration::from_secs(200));
    assert_eq!(bench.say(&alice, &approval, "approve").await, StatusCode::OK);
    let body = json!({ "cost_usd": 2, "dry_run": true, "approval_token": approval });
    for (after, usable) in [(0, true), (299_999, true), (1, false), (3_600_000, false)] {
        bench.clock.advance(Duration::from_millis(after));
        let bot = bench.bot_token().await;
        let dry_run = bench.post("agents/me/usage", &bot, &body).await;
        assert_eq!(
            dry_run.status,
            if usable { StatusCode::OK } else { StatusCode::FORBIDDEN },
            "{}",
            dry_run.text
        );
        assert_eq!(bench.introspect(&approval).await["active"], usable);
        assert_eq!(bench.status(&bot, &approval).await["status"], "approved");
    }
}

/// Whoever was stopped once ended it, and is not let act by it when they are let act again.
#[tokio::test]
async fn what_was_agreed_to_ends_with_everybody_it_rests_on() {
    use lumoauth_core::agent::StatusChange::{Activate, Deactivate};

    for who in ["agent", "person", "organization"] {
        let bench = Bench::with_approver().await;
        bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some("1".parse().unwrap())).await;
        let (bot, alice) = (bench.bot_token().await, bench.alice_token().await);
        let (approved, open) = (bench.opened(&bot).await, bench.opened(&bot).await);
        assert_eq!(bench.say(&alice, &approved, "approve").await, StatusCode::OK);
        assert_eq!(bench.introspect(&approved).await["active"], true);
        match who {
            "agent" => {
                for change in [Deactivate, Activate] {
                    bench.change_bot(|bot| assert!(bot.change_status(change).unwrap())).await;
                }
            }
            "person" => bench.change_alice(|alice| assert!(alice.block() && alice.unblock())).await,
            _ => {
                let mut organization = (*bench.server.organization(&bench.org).await.unwrap()).clone();
                organization.epoch += 1;
                let on =
                    Event::new(EventKind::OrganizationCreated, Actor::system(), "changed", bench.clock.now());
                let _ = bench.stores.organizations.update(&organization, &on).await.unwrap();
            }
        }
        assert_eq!(bench.introspect(&approved).await["active"], false, "{who}");
        let (bot, alice) = (bench.bot_token().await, bench.alice_token().await);
        let body = json!({ "cost_usd": 2, "dry_run": true, "approval_token": approved });
        let dry_run = bench.post("agents/me/usage", &bot, &body).await;
        assert_eq!(
            (dry_run.status, &*dry_run.error()),
            (StatusCode::FORBIDDEN, "approval_required"),
            "{who}"
        );
        // What waits is not agreed to either, unless it was the person who had gone, and decides now.
        let expected = if who == "person" { StatusCode::OK } else { StatusCode::CONFLICT };
        assert_eq!(bench.say(&alice, &open, "approve").await, expected, "{who}");
    }
}

#[tokio::test]
async fn whoever_cannot_be_reached_is_like_nobody() {
    let bench = Bench::with_approver().await;
    let bot = bench.bot_token().await;
    let nobody = bench.request(&bot, "nobody@acme.test").await;
    assert_eq!(
        (nobody.status, nobody.error().as_str()),
        (StatusCode::PRECONDITION_REQUIRED, "no_enrolled_device")
    );
    assert_eq!(nobody.json()["task_id"], "t-9");
    let without_channel = bench.request(&bot, "bob@acme.test").await;
    bench.change_alice(|alice| assert!(alice.block())).await;
    let blocked = bench.request(&bot, "alice@acme.test").await;
    for other in [without_channel, blocked] {
        assert_eq!((other.status, &other.text), (nobody.status, &nobody.text));
    }
    assert_eq!(bench.events("approval.requested").await, 0);
}

#[tokio::test]
async fn an_agent_asks_30_times_a_minute() {
    let bench = Bench::with_approver().await;
    let service = bench.service.clone().with_rate_limits(RateLimits::standard());
    let alice = bench.alice_token().await;
    let (bot, bearer) = (bench.bot_token().await, format!("Bearer {}", bench.bot_token().await));
    let body = json!({ "task_id": "t", "reason": "r", "on_behalf_of": "alice@acme.test" }).to_string();
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let path = format!("{BASE}/agents/me/approvals");
    let mut last = String::new();
    for _ in 0..30 {
        let answer = send(&service, "POST", &path, &headers, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["approval_token"].as_str().unwrap().clone_into(&mut last);
        // So that no more wait than may.
        assert_eq!(bench.say(&alice, &last, "deny").await, StatusCode::OK);
    }
    let answer = send(&service, "POST", &path, &headers, &body).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
    );
    assert!(answer.headers.contains_key("retry-after"));
    // Asking what became of it is never limited.
    for _ in 0..40 {
        let path = format!("{BASE}/agents/me/approvals/{last}/status");
        let bearer = format!("Bearer {bot}");
        assert_eq!(send(&service, "GET", &path, &[("authorization", &bearer)], "").await.status, 200);
    }
}

#[tokio::test]
async fn reservations_that_wait_for_a_person_are_requests_for_approval() {
    let bench = Bench::with_approver().await;
    bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some("1".parse().unwrap())).await;
    let service = bench.service.clone().with_rate_limits(RateLimits::standard());
    let bearer = format!("Bearer {}", bench.bot_token().await);
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let post = async |path: &str, body: &Value| {
        send(&service, "POST", &format!("{BASE}/{path}"), &headers, &body.to_string()).await
    };
    let reserve = async |id: &str, cost: &str| {
        post("agents/me/budget/reservations", &json!({ "id": id, "cost_usd": cost })).await
    };
    let ask = json!({ "task_id": "t", "reason": "r", "on_behalf_of": "alice@acme.test" });
    for one in 0..15 {
        assert_eq!(post("agents/me/approvals", &ask).await.status, StatusCode::CREATED);
        for _ in 0..3 {
            // Repetitions ask nobody.
            let answer = reserve(&format!("r-{one}"), "1.01").await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        }
    }
    let answer = reserve("one-more", "1.01").await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
    );
    assert!(answer.headers.contains_key("retry-after") && answer.headers["x-ratelimit-remaining"] == "0");
    assert_eq!(post("agents/me/approvals", &ask).await.status, StatusCode::TOO_MANY_REQUESTS);
    let held = send(&service, "GET", &format!("{BASE}/agents/me/budget"), &headers, "").await.json();
    assert_eq!(held["held"]["cost_usd"], "15.15", "{held}");
    // Above the limit nothing is written, and the id is not used up.
    let one_more = format!("{BASE}/agents/me/budget/reservations/one-more");
    assert_eq!(send(&service, "GET", &one_more, &headers, "").await.status, StatusCode::NOT_FOUND);
    let asked = bench.stores.approvals.pending(&bench.org, None, bench.clock.now(), Page::first(100));
    assert_eq!((asked.await.unwrap().items.len(), bench.events("approval.requested").await), (30, 30));
    assert_eq!(bench.events("approval.withdrawn").await, 0);
    // What asks nobody is not limited.
    for one in 0..40 {
        assert_eq!(reserve(&format!("cheap-{one}"), "0.01").await.status, StatusCode::CREATED);
    }
}

/// Approvals, of which new ones may be lost after the amount is held: as when whoever asks hangs up.
#[derive(Debug)]
struct Leaky {
    store: Arc<dyn ApprovalStore>,
    loses: AtomicBool,
}

#[async_trait]
impl ApprovalStore for Leaky {
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError> {
        match self.loses.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("approvals.insert", "it is lost")),
            false => self.store.insert(org, approval, on).await,
        }
    }

    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError> {
        self.store.find(org, token).await
    }

    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError> {
        self.store.decide(org, approval, decision, now, on).await
    }

    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError> {
        self.store.consume(org, approval, now, on).await
    }

    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError> {
        self.store.ended(org, now, max).await
    }

    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError> {
        self.store.lapse(org, approval, now, on).await
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError> {
        self.store.pending(org, user, now, page).await
    }
}

#[tokio::test]
async fn questions_that_were_given_up_half_way_are_counted() {
    let mut bench = Bench::with_approver().await;
    bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some("1".parse().unwrap())).await;
    let leaky = Arc::new(Leaky { store: bench.stores.approvals.clone(), loses: AtomicBool::new(false) });
    let stores = Stores { approvals: leaky.clone(), ..bench.stores.clone() };
    let keys = KeyRing::new(Arc::new(MemoryStore::new()), MasterKey::generate(), KeyRingConfig::default());
    let server = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys));
    bench.server = server.with_clock(bench.clock.clone()).build().unwrap();
    bench.service = LumoauthService::new(bench.server.clone()).with_rate_limits(RateLimits::standard());
    let bearer = format!("Bearer {}", bench.bot_token().await);
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let path = format!("{BASE}/agents/me/budget/reservations");
    for one in 0..31 {
        let body = json!({ "id": format!("r-{one}"), "cost_usd": "1.01" }).to_string();
        for (loses, expected) in [(true, 503), (false, 202)] {
            leaky.loses.store(loses, Ordering::SeqCst);
            let answer = send_anyhow(&bench.service, "POST", &path, &headers, &body).await;
            assert_eq!(answer.status, if one < 30 { expected } else { 429 }, "{one}: {}", answer.text);
        }
    }
    assert_eq!(bench.events("approval.requested").await, 30);
}
