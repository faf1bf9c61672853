//! Secrets put into every input come out nowhere (security HY-05), and nothing panics.

use std::time::Duration;

use lumoauth_tests::{Backend, Options, Request, Server, percent_encode, raw_exchange, text, unique};
use serde_json::json;

#[test]
fn no_secret_reaches_the_log_or_the_audit_log_of_the_memory_store() {
    assert_no_canary_sings(Backend::Memory);
}

#[test]
fn no_secret_reaches_the_log_or_the_audit_log_of_the_embedded_store() {
    assert_no_canary_sings(Backend::Embedded);
}

#[test]
fn no_secret_reaches_the_log_or_the_audit_log_of_the_postgres_store() {
    assert_no_canary_sings(Backend::Postgres);
}

#[test]
fn no_secret_reaches_the_log_or_the_audit_log_of_postgres_with_redis() {
    assert_no_canary_sings(Backend::PostgresRedis);
}

fn assert_no_canary_sings(backend: Backend) {
    let trace = Options::new(backend).variable("RUST_LOG", "trace").variable("LUMOAUTH_LOG", "trace");
    let server = Server::start(&trace);
    for password in &trace.passwords() {
        assert!(!server.log().contains(password.as_str()), "a password of the store is in the log");
    }
    // What dev prints once at the start is for the operator's eyes; the log begins after it.
    let greeted = |log: &str| server.variables().values().all(|value| log.contains(value));
    for _ in 0..500 {
        if greeted(&server.log()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let greeting = server.log().len();
    let mut canaries = Vec::new();
    let mut canary = |place: &str| {
        let bird = unique(&format!("CANARY-{place}"));
        canaries.push(bird.clone());
        bird
    };

    let org = server.acme();
    let agent = org.create_agent(json!({ "identityType": "custom", "capabilities": ["read:a"] }));
    let token = agent.token();
    let mut secrets = vec![agent.secret.clone(), agent.api_key.clone(), token.clone(), org.key().to_owned()];
    secrets.extend(trace.passwords());

    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        for name in [
            "client_secret",
            "token",
            "subject_token",
            "actor_token",
            "client_assertion",
            "code",
            "refresh_token",
            "password",
        ] {
            let value = canary(name);
            let form =
                [("grant_type", "client_credentials"), ("client_id", &*agent.client_id), (name, &*value)];
            org.post(path).form(&form).send();
            let exchange = [("grant_type", EXCHANGE), ("subject_token_type", "x"), (name, &*value)];
            org.post(path).form(&exchange).send();
            org.post(path).json(json!({ "grant_type": "client_credentials", name: value })).send();
        }
        org.post(path).basic(&agent.client_id, &canary("basic")).form(&[("token", &canary("token"))]).send();
        // The id is no secret and may be logged; what stands in the secret's place is.
        org.post(path).basic(&unique("nobody"), &canary("basic-secret")).form(&[]).send();
    }
    let routes: Vec<Request> = vec![
        org.get("/oauth/userinfo"),
        org.get("/agents/me"),
        org.post("/agents/ask").json(json!({ "action": "read:a" })),
        org.request("GET", "/admin/agents"),
        server.request("POST", "/api/v1/authz/check").json(json!({ "permission": "read:a" })),
    ];
    for request in routes {
        request.clone().bearer(&canary("bearer")).send();
        request.clone().bearer(&format!("{}.{}.{}", canary("jws"), canary("jws"), canary("jws"))).send();
        request.clone().header("Authorization", &canary("scheme")).send();
        request.clone().api_key(&canary("api-key")).send();
        request.clone().api_key(&format!("lmk_{}", canary("lmk"))).send();
        request.clone().bearer(&format!("agk_{}", canary("agk"))).send();
        request.header("Cookie", &format!("session={}", canary("cookie"))).send();
    }
    // Secrets in the wrong place: query, path, JSON members that hold secrets, broken bodies.
    org.get(&format!("/oauth/userinfo?access_token={}", canary("query"))).send();
    org.post(&format!("/oauth/token?client_secret={}", percent_encode(&canary("query")))).form(&[]).send();
    for path in ["/agents/{}/attest", "/agents/{}", "/oauth/{}", "/admin/users/{}", "/mcp/{}/challenge"] {
        org.post(&path.replace("{}", &canary("path"))).json(json!({})).send();
        org.get(&path.replace("{}", &format!("lmk_{}", canary("path")))).send();
    }
    server.request("GET", &format!("/orgs/{}/api/v1/agents/me", canary("path"))).send();
    server.request("POST", &format!("/t/{}/api/v1/oauth/login/json", canary("path"))).json(json!({})).send();
    server.request("GET", &format!("/{}", canary("path"))).send();
    let body = json!({ "name": unique("x"), "clientSecret": canary("member"), "apiKey": canary("member") });
    org.admin("POST", "/agents").json(body).send();
    let email = format!("{}@acme-corp.test", unique("u"));
    org.admin("POST", "/users")
        .json(json!({ "email": email, "password": canary("password"), "name": "U" }))
        .send();
    org.post("/oauth/token")
        .body("application/json", format!("{{\"client_secret\":\"{}\"", canary("broken")))
        .send();
    org.post("/oauth/token").body("text/plain", canary("plain")).send();
    let raw = format!("GET /healthz HTTP/1.1\r\nAuthorization: Bearer {}\r\nBroken\r\n\r\n", canary("raw"));
    raw_exchange(server.authority(), raw.as_bytes());

    // Good secrets sing no louder than bad ones.
    agent.ask(&token, "read:a").ok();
    agent.userinfo(&agent.api_key).ok();
    let rotated = agent.admin("POST", "/rotate-credentials").send().ok();
    secrets.push(text(&rotated["data"]["secret"]).to_owned());
    secrets.push(org.api_key(&["admin:read"]));
    let mcp = org.mcp_server(json!({}));
    let exchanged = agent.exchange(&token, &[("resource", text(&mcp["resource_uri"]))]).ok();
    secrets.push(text(&exchanged["access_token"]).to_owned());
    std::thread::sleep(Duration::from_millis(200));

    let log = server.log();
    assert!(log.contains("panicked").eq(&false), "a panic: {log}");
    let log = &log[greeting..];
    let lower = log.to_lowercase();
    assert!(
        lower.contains("trace") || lower.contains("debug"),
        "not at trace level, so this shows nothing: {log}"
    );
    let export = org.admin("GET", "/audit-logs/export?format=json").send().expect(200).text();
    let csv = org.admin("GET", "/audit-logs/export?format=csv").send().expect(200).text();
    for secret in canaries.iter().chain(&secrets).filter(|secret| !secret.is_empty()) {
        for (place, text) in [("log", log), ("json export", &export), ("csv export", &csv)] {
            let around = text.find(secret.as_str()).map(|at| {
                let start = text[..at].char_indices().rev().nth(300).map_or(0, |(at, _)| at);
                text[start..].chars().take(500).collect::<String>()
            });
            assert!(around.is_none(), "{secret} in the {place}: {}", around.unwrap_or_default());
        }
    }
    // A signature alone is enough to complete a token whose claims are known.
    let signature = token.rsplit('.').next().unwrap_or_default();
    assert!(!log.contains(signature) && !export.contains(signature));
}

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
