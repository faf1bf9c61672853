//! Tasks and permissions, where the time decides (contract 2.8.2, security JI-04 and JI-08).

use std::time::Duration;

use http::StatusCode;
use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    client::Client,
    clock::Clock,
};
use serde_json::{Value, json};

use crate::bench::{Bench, capabilities, payload};

impl Bench {
    /// A token of alice, who is an administrator, in person, with which she decides on permissions.
    async fn decider(&self) -> String {
        self.change_alice(|alice| alice.is_admin = true).await;
        let (mut desk, secret) = Client::new("Desk", self.clock.now());
        desk.redirect_uris = vec!["https://desk.example/cb".to_owned()];
        desk.allowed_scopes = capabilities("jit:approve");
        desk.grant_types = vec!["authorization_code".to_owned()];
        let on = Event::new(EventKind::ClientCreated, Actor::system(), "made", self.clock.now());
        let _ = self.stores.clients.insert(&self.org, &desk, &on).await.unwrap();
        let id = desk.client_id.to_string();
        let at = [
            ("client_id", &*id),
            ("redirect_uri", "https://desk.example/cb"),
            ("scope", "openid jit:approve"),
        ];
        let code = self.code(&at).await;
        let mut pairs =
            vec![("grant_type", "authorization_code"), ("code", &code), ("client_secret", secret.expose())];
        pairs.extend_from_slice(&at[..2]);
        self.token(&pairs).await.json()["access_token"].as_str().unwrap().to_owned()
    }

    async fn task(&self, token: &str) -> String {
        let answer = self.post("jit/task", token, &json!({})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["task_id"].as_str().unwrap().to_owned()
    }

    /// What the bot gets that asks to `action` a file for `ttl` seconds.
    async fn permission(&self, token: &str, task: &str, action: &str, ttl: u32) -> Value {
        let detail = json!({ "type": "file_access", "actions": [action], "identifier": "a" });
        let body = json!({ "task_id": task, "authorization_details": detail, "requested_ttl": ttl });
        let answer = self.post("jit/request", token, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }

    async fn of_permission(&self, token: &str, id: &Value) -> Value {
        self.get(&format!("jit/request/{}/status", id.as_str().unwrap()), token).await.json()
    }

    /// The token of a permission, or the status that refuses it.
    async fn mint(&self, token: &str, id: &Value) -> Result<Value, StatusCode> {
        let path = format!("jit/request/{}/token", id.as_str().unwrap());
        let answer = self.post(&path, token, &json!({})).await;
        if answer.status == StatusCode::OK { Ok(answer.json()) } else { Err(answer.status) }
    }

    async fn answer(&self, token: &str, id: &Value, what: &str) -> StatusCode {
        self.post(&format!("jit/{what}/{}", id.as_str().unwrap()), token, &json!({})).await.status
    }
}

#[tokio::test]
async fn nobody_decides_on_a_permission_after_five_minutes() {
    let bench = Bench::new().await;
    let (bot, alice) = (bench.bot_token().await, bench.decider().await);
    let task = bench.task(&bot).await;
    let (late, in_time) =
        (bench.permission(&bot, &task, "delete", 60).await, bench.permission(&bot, &task, "drop", 60).await);
    let (late, in_time) = (&late["request_id"], &in_time["request_id"]);
    bench.clock.advance(Duration::from_millis(299_999));
    assert_eq!(bench.of_permission(&bot, late).await["status"], "pending");
    assert_eq!(bench.answer(&alice, in_time, "approve").await, StatusCode::OK);
    assert_eq!(bench.get("jit/pending", &alice).await.json()["count"], 1);

    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.of_permission(&bot, late).await["status"], "expired");
    assert_eq!(bench.get("jit/pending", &alice).await.json()["count"], 0);
    for what in ["approve", "deny"] {
        assert_eq!(bench.answer(&alice, late, what).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(bench.mint(&bot, late).await, Err(StatusCode::FORBIDDEN));
    assert_eq!(bench.of_permission(&bot, late).await["status"], "expired");
    assert_eq!((bench.events("jit.approved").await, bench.events("jit.denied").await), (1, 0));
    // What was granted in time is used.
    assert!(bench.mint(&bot, in_time).await.is_ok());
}

#[tokio::test]
async fn a_grant_begins_with_the_answer_and_its_tokens_end_with_it() {
    let bench = Bench::new().await;
    let (bot, alice) = (bench.bot_token().await, bench.decider().await);
    let task = bench.task(&bot).await;
    let asked = bench.permission(&bot, &task, "delete", 120).await;
    let id = &asked["request_id"];
    bench.clock.advance(Duration::from_secs(250));
    assert_eq!(bench.answer(&alice, id, "approve").await, StatusCode::OK);
    let end = bench.clock.now().unix_seconds() + 120;
    let first = bench.mint(&bot, id).await.unwrap();
    assert_eq!(payload(first["access_token"].as_str().unwrap())["exp"], end);
    bench.clock.advance(Duration::from_secs(119));
    let last = bench.mint(&bot, id).await.unwrap();
    assert_eq!(
        (&last["expires_in"], payload(last["access_token"].as_str().unwrap())["exp"].clone()),
        (&json!(1), json!(end))
    );
    for token in [&first, &last] {
        assert!(bench.is_active(&token["access_token"]).await);
    }
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.mint(&bot, id).await, Err(StatusCode::FORBIDDEN));
    for token in [&first, &last] {
        assert!(!bench.is_active(&token["access_token"]).await);
    }
    assert_eq!(bench.events("jit.token_issued").await, 2);
}

#[tokio::test]
async fn a_task_ends_after_an_hour_with_all_that_was_granted_in_it() {
    let bench = Bench::new().await;
    let bot = bench.bot_token().await;
    let task = bench.task(&bot).await;
    bench.clock.advance(Duration::from_secs(3590));
    let bot = bench.bot_token().await;
    let granted = bench.permission(&bot, &task, "read", 900).await;
    let waiting = bench.permission(&bot, &task, "delete", 900).await;
    let alice = bench.decider().await;
    let jit = bench.mint(&bot, &granted["request_id"]).await.unwrap();
    // It never outlives its task.
    assert_eq!(jit["expires_in"], 10);
    bench.clock.advance(Duration::from_secs(9));
    assert!(bench.is_active(&jit["access_token"]).await);
    bench.clock.advance(Duration::from_secs(1));
    assert!(!bench.is_active(&jit["access_token"]).await);
    assert_eq!(bench.mint(&bot, &granted["request_id"]).await, Err(StatusCode::FORBIDDEN));
    let detail = json!({ "type": "file_access", "actions": ["read"] });
    let body = json!({ "task_id": task, "authorization_details": detail });
    assert_eq!(bench.post("jit/request", &bot, &body).await.status, StatusCode::BAD_REQUEST);
    // Nobody grants anything in a task that is over.
    assert_eq!(bench.answer(&alice, &waiting["request_id"], "approve").await, StatusCode::BAD_REQUEST);
    assert_eq!(bench.mint(&bot, &waiting["request_id"]).await, Err(StatusCode::FORBIDDEN));
    assert_eq!(bench.events("jit.approved").await, 0);
    // What became of it is known for a day.
    bench.clock.advance(Duration::from_secs(23 * 3600));
    bench.server.maintain_once().await.unwrap();
    let bot = bench.bot_token().await;
    assert_eq!(bench.of_permission(&bot, &waiting["request_id"]).await["status"], "expired");
}
