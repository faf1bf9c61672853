//! A token for an MCP server is an act of the agent that gets it, also if a person agreed to it.

use http::StatusCode;
use lumoauth_core::{audit::EventKind, store::AgentKey};
use serde_json::json;

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
