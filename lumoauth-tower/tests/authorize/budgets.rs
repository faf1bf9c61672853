//! A token for an MCP server is an act of the agent that gets it, also if a person agreed to it.

use http::StatusCode;
use lumoauth_core::{
    approval::{ApprovalToken, Decision},
    audit::{Actor, Event, EventKind},
    clock::Clock,
    store::AgentKey,
};
use serde_json::{Value, json};

use crate::bench::{Answer, BASE, Bench, RESOURCE};

impl Bench {
    async fn with_calls(calls: u64) -> Self {
        let bench = Self::new().await;
        bench.change_bot(|bot| bot.budget.max_api_calls_per_hour = Some(calls)).await;
        bench
    }
}

fn assert_used_up(answer: &Answer) {
    assert_eq!((answer.status, answer.error()), (StatusCode::TOO_MANY_REQUESTS, "budget_exceeded".into()));
    assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
}

const OFFLINE: [(&str, &str); 3] =
    [("resource", RESOURCE), ("scope", "openid read:files"), ("access_type", "offline")];

#[tokio::test]
async fn codes_and_refresh_tokens_are_charged_and_recorded() {
    let bench = Bench::with_calls(3).await;
    let first = bench.redeem(&bench.code(&OFFLINE).await, &[]).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    assert_eq!(bench.events("mcp.connection").await, 1);
    let second = bench.refresh(first.json()["refresh_token"].as_str().unwrap(), &[]).await;
    let second = second.json();
    let refresh = second["refresh_token"].as_str().unwrap();
    assert_eq!(bench.events("mcp.connection").await, 2);
    let (third, fourth) = (bench.code(&OFFLINE).await, bench.code(&OFFLINE).await);
    // What is refused for another reason costs nothing.
    assert_eq!(bench.redeem(&third, &[("code_verifier", &"v".repeat(43))]).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(refresh, &[("scope", "write:files")]).await.error(), "invalid_scope");
    assert_eq!(bench.redeem(&third, &[]).await.status, StatusCode::OK);

    // Used up: nothing is given, recorded as a connection, or lost.
    for _ in 0..2 {
        assert_used_up(&bench.redeem(&fourth, &[]).await);
        assert_used_up(&bench.refresh(refresh, &[]).await);
    }
    assert_eq!((bench.events("mcp.connection").await, bench.events("token.reused").await), (3, 0));
    assert_eq!(bench.events("budget.exceeded").await, 1);
    bench.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(bench.refresh(refresh, &[]).await.status, StatusCode::OK, "the refresh token lives");
    // The second use of a code is noticed whatever is left.
    bench.change_bot(|bot| bot.budget.max_api_calls_per_hour = Some(1)).await;
    assert_eq!(bench.redeem(&third, &[]).await.error(), "invalid_grant");
    assert_eq!(bench.events("token.reused").await, 1);
}

#[tokio::test]
async fn a_connection_says_who_for_whom_and_where() {
    let bench = Bench::new().await;
    let tokens = bench.redeem(&bench.code(&OFFLINE).await, &[]).await.json();
    let _ = bench.refresh(tokens["refresh_token"].as_str().unwrap(), &[("scope", "read:files")]).await;
    let rows = bench.log("mcp.connection").await;
    let methods: Vec<_> = rows.iter().map(|row| row.auth_method.as_deref().unwrap_or_default()).collect();
    assert_eq!(methods.len(), 2);
    for (method, scope) in [("authorization_code", "read:files openid"), ("refresh_token", "read:files")] {
        let row = rows.iter().find(|row| row.auth_method.as_deref() == Some(method)).unwrap();
        assert_eq!(row.kind, EventKind::McpConnection);
        assert_eq!(row.actor.name.as_deref(), Some("Invoice Bot"));
        assert_eq!(row.target.as_ref().unwrap().kind, "mcp_server");
        assert_eq!(row.context["scope"], scope);
        assert_eq!(
            row.context["principal"],
            json!({ "subject": bench.alice.id.to_string(), "actor_chain": [] })
        );
    }
}

#[tokio::test]
async fn a_token_for_this_servers_own_routes_is_free() {
    let bench = Bench::with_calls(0).await;
    let tokens = bench.tokens().await;
    assert_eq!(bench.refresh(tokens["refresh_token"].as_str().unwrap(), &[]).await.status, StatusCode::OK);
    assert_eq!(bench.events("mcp.connection").await, 0);
    assert_used_up(&bench.redeem(&bench.code(&OFFLINE).await, &[]).await);
}

#[tokio::test]
async fn every_budgeted_answer_says_how_many_calls_are_left() {
    let bench = Bench::with_calls(100).await;
    let pairs = [
        ("grant_type", "client_credentials"),
        ("client_id", &*bench.bot.id),
        ("client_secret", &bench.bot.secret),
    ];
    let token = bench.token(&pairs).await.json()["access_token"].as_str().unwrap().to_owned();
    let (own, bot) = (format!("Bearer {token}"), bench.bot.id.clone());
    let agent = bench.stores.agents.find(&bench.org, AgentKey::ClientId(&bot.parse().unwrap())).await;
    let agent = agent.unwrap().unwrap().id;
    let admin = format!("Bearer {}", bench.api_key);
    let admin_path = format!("admin/agents/{agent}/usage");
    for (method, path, bearer, body, left) in [
        ("POST", "agents/me/usage", &own, r#"{"api_calls":30}"#, 70),
        ("POST", "agents/me/usage", &own, r#"{"api_calls":30,"dry_run":true}"#, 70),
        ("GET", "agents/me/usage", &own, "", 70),
        ("GET", "agents/me/budget", &own, "", 70),
        ("POST", &admin_path, &admin, r#"{"api_calls":10}"#, 60),
    ] {
        let headers = [("authorization", &**bearer), ("content-type", "application/json")];
        let answer = bench.send(method, &format!("{BASE}/{path}"), &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
        assert_eq!(header("ratelimit-policy"), r#""calls";q=100;w=3600"#, "{method} {path}");
        assert!(header("ratelimit").starts_with(&format!(r#""calls";r={left};"#)), "{}", header("ratelimit"));
    }
}

/// What a person was shown is what they agreed to.
#[tokio::test]
async fn a_plain_approval_passes_a_dry_run_as_far_as_it_names_amount_and_model() {
    let bench = Bench::new().await;
    bench.change_alice(|alice| alice.approver = true).await;
    bench.change_bot(|bot| bot.budget.require_approval_above_usd = Some("10".parse().unwrap())).await;
    let bot = bench.bot_token().await;
    let agreed = async |meta: Value| {
        let body = json!({ "task_id": "t", "reason": "r", "on_behalf_of": "alice@acme.test", "meta": meta });
        let asked = bench.post("agents/me/approvals", &bot, &body).await;
        let text = asked.json()["approval_token"].as_str().unwrap().to_owned();
        let token = ApprovalToken::parse(&text).unwrap();
        let now = bench.clock.now();
        let approval = bench.stores.approvals.find(&bench.org, &token).await.unwrap().unwrap();
        let (by, number) = (Some(bench.alice.id), Some(bench.alice.number));
        let decision =
            Decision { approved: true, by, number, epoch: 0, epoch_of_whom: None, at: now, note: None };
        let on = Event::new(EventKind::ApprovalApproved, Actor::system(), "decided", now);
        let _ = bench.stores.approvals.decide(&bench.org, &approval, &decision, now, &on).await.unwrap();
        text
    };
    let passes = async |approval: &str, cost: &str, model: Option<&str>| {
        let body = json!({ "cost_usd": cost, "model": model, "dry_run": true, "approval_token": approval });
        let answer = bench.post("agents/me/usage", &bot, &body).await;
        assert!(answer.status == 200 || answer.error() == "approval_required", "{}", answer.text);
        answer.status == 200
    };
    let any = agreed(json!({})).await;
    assert!(passes(&any, "11", None).await && passes(&any, "1000000", Some("gpt-4")).await);
    for cost in [json!("12.5"), json!(12.5)] {
        let amount = agreed(json!({ "cost_usd": cost, "model": null })).await;
        assert!(passes(&amount, "12.5", Some("gpt-4")).await && !passes(&amount, "12.500001", None).await);
    }
    let model = agreed(json!({ "model": "gpt-4" })).await;
    assert!(passes(&model, "99", Some("gpt-4")).await);
    assert!(!passes(&model, "99", None).await && !passes(&model, "99", Some("gpt-5")).await);
    // What is no amount allows none.
    for odd in [json!("much"), json!(-1), json!([])] {
        assert!(!passes(&agreed(json!({ "cost_usd": odd })).await, "11", None).await);
    }

    // It is the agent that chose whom to ask, so it is for its own threshold and for nobody else's.
    let other = [
        ("grant_type", "client_credentials"),
        ("client_id", &*bench.other_bot.id),
        ("client_secret", &bench.other_bot.secret),
    ];
    let first = bench.token(&other).await.json()["access_token"].as_str().unwrap().to_owned();
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("client_id", &*bench.bot.id),
        ("client_secret", &bench.bot.secret),
        ("subject_token", &first),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("actor_token", &bot),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let chained = bench.token(&fields).await.json()["access_token"].as_str().unwrap().to_owned();
    let dry_run = json!({ "cost_usd": 11, "dry_run": true, "approval_token": any });
    let through_chain = async || bench.post("agents/me/usage", &chained, &dry_run).await.status;
    assert_eq!(through_chain().await, StatusCode::OK);
    let other = bench.stores.agents.find(&bench.org, AgentKey::Slug(&"other".parse().unwrap())).await;
    let mut other = (*other.unwrap().unwrap()).clone();
    other.budget.require_approval_above_usd = Some("10".parse().unwrap());
    let on = Event::new(EventKind::AgentUpdated, Actor::system(), "changed", bench.clock.now());
    let _ = bench.stores.agents.update(&bench.org, &other, &on).await.unwrap();
    assert_eq!(through_chain().await, StatusCode::FORBIDDEN);
}
