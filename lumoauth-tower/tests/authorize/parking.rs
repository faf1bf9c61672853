//! Reservations that wait for a person, where time decides.

use std::time::Duration;

use http::StatusCode;
use lumoauth_core::budget::MicroUsd;
use serde_json::{Value, json};

use crate::bench::{Answer, Bench};

const RESERVATIONS: &str = "agents/me/budget/reservations";

impl Bench {
    /// A bench whose bot asks above ten dollars.
    async fn costly() -> Self {
        let bench = Self::new().await;
        let threshold = MicroUsd::from_micros(10_000_000);
        bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some(threshold)).await;
        bench
    }

    /// A token of alice, who decides for others.
    async fn manager(&self) -> String {
        self.change_alice(|alice| alice.is_admin = true).await;
        let portal = [
            ("client_id", &*self.app.id),
            ("redirect_uri", "https://portal.example/cb"),
            ("scope", "openid admin"),
        ];
        let code = self.code(&portal).await;
        let mut pairs =
            vec![("grant_type", "authorization_code"), ("code", &code), ("client_secret", &self.app.secret)];
        pairs.extend_from_slice(&portal[..2]);
        self.token(&pairs).await.json()["access_token"].as_str().unwrap().to_owned()
    }

    async fn reserve(&self, bot: &str, body: Value) -> Answer {
        self.post(RESERVATIONS, bot, &body).await
    }

    async fn parked(&self, bot: &str, id: &str) -> String {
        let answer = self.reserve(bot, json!({ "id": id, "cost_usd": 12 })).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()["approval_token"].as_str().unwrap().to_owned()
    }

    async fn state(&self, bot: &str, id: &str) -> String {
        let answer = self.get(&format!("{RESERVATIONS}/{id}"), bot).await;
        answer.json()["status"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
    }

    async fn cost(&self, bot: &str) -> Value {
        self.get("agents/me/budget", bot).await.json()["cost_this_month_usd"].clone()
    }

    async fn settle(&self, bot: &str, id: &str, body: Value) -> Answer {
        self.post(&format!("{RESERVATIONS}/{id}/settle"), bot, &body).await
    }
}

#[tokio::test]
async fn what_nobody_approves_in_time_is_freed() {
    let bench = Bench::costly().await;
    let (bot, alice) = (bench.bot_token().await, bench.manager().await);
    let approval = bench.parked(&bot, "r").await;
    bench.clock.advance(Duration::from_millis(299_999));
    bench.server.maintain_once().await.unwrap();
    assert_eq!(bench.state(&bot, "r").await, "pending_approval");

    // Nobody can agree any more. Somebody may have, and the agent has not heard of it yet.
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.state(&bot, "r").await, "expired");
    let settled = bench.settle(&bot, "r", json!({})).await;
    assert_eq!(settled.status, StatusCode::CONFLICT);
    assert!(settled.text.contains("in time"), "{}", settled.text);
    bench.clock.advance(Duration::from_millis(59_999));
    bench.server.maintain_once().await.unwrap();
    assert_eq!(bench.cost(&bot).await, 12);

    // Nobody looks at it, and it is freed.
    bench.clock.advance(Duration::from_millis(1));
    bench.server.maintain_once().await.unwrap();
    assert_eq!(bench.cost(&bot).await, 0);
    assert_eq!(bench.state(&bot, "r").await, "expired");
    assert_eq!(bench.settle(&bot, "r", json!({})).await.status, StatusCode::CONFLICT);
    let late = bench.post(&format!("approvals/{approval}/approve"), &alice, &json!({})).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(bench.cost(&bot).await, 0);
}

#[tokio::test]
async fn whoever_looks_after_the_end_frees_it_too() {
    let bench = Bench::costly().await;
    let bot = bench.bot_token().await;
    bench.parked(&bot, "r").await;
    bench.clock.advance(Duration::from_secs(360));
    assert_eq!(bench.state(&bot, "r").await, "expired");
    assert_eq!(bench.cost(&bot).await, 0);
}

#[tokio::test]
async fn what_is_approved_at_the_last_instant_is_held_for_its_lease() {
    let bench = Bench::costly().await;
    let (bot, alice) = (bench.bot_token().await, bench.manager().await);
    let approval = bench.parked(&bot, "r").await;
    bench.clock.advance(Duration::from_millis(299_999));
    let agreed = bench.post(&format!("approvals/{approval}/approve"), &alice, &json!({})).await;
    assert_eq!(agreed.status, StatusCode::OK, "{}", agreed.text);
    bench.clock.advance(Duration::from_secs(59));
    bench.server.maintain_once().await.unwrap();
    assert_eq!((bench.state(&bot, "r").await, bench.cost(&bot).await), ("held".to_owned(), json!(12)));
    assert_eq!(bench.settle(&bot, "r", json!({ "cost_usd": 11 })).await.status, StatusCode::OK);
    assert_eq!(bench.cost(&bot).await, 11);
}

#[tokio::test]
async fn settling_after_the_lease_counts_what_was_used_once() {
    let bench = Bench::costly().await;
    let bot = bench.bot_token().await;
    let made = bench.reserve(&bot, json!({ "id": "r", "cost_usd": 9, "lease_seconds": 1 })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    bench.clock.advance(Duration::from_secs(2));
    bench.server.maintain_once().await.unwrap();
    assert_eq!(bench.cost(&bot).await, 9);
    for amount in [3, 4] {
        let settled = bench.settle(&bot, "r", json!({ "cost_usd": amount })).await;
        assert_eq!((settled.status, &settled.json()["charged"]["cost_usd"]), (StatusCode::OK, &json!("3")));
        assert_eq!(bench.cost(&bot).await, 3);
    }
}
