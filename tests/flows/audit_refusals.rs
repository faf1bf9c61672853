//! What is refused is in the audit log: once, under the right name, and without anything that must not be there.

use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{
    AttackerKey, Org, Request, Response, Server, Token, avoid_hour_edge, int, on_each_backend, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    each_refusal_of_the_token_endpoint_is_one_failure,
    each_refusal_of_introspection_and_revocation_is_one_failure,
    wrong_secret_of_a_client_is_its_failure,
    swapped_id_and_secret_leave_no_secret_behind,
    token_in_place_of_a_target_leaves_no_token_behind,
    long_resource_of_a_question_is_cut,
    long_headers_are_cut,
    use_that_an_administrator_records_is_recorded,
    idempotency_keys_of_administrator_and_agent_are_separate,
);

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Everything up to now and beyond: an export without an end leaves out what happens while it is made.
const NO_END: &str = "to=2100-01-01T00:00:00Z";

/// The answer, and the failures that the request left in the log. Other tests write there too, so the request
/// carries a name of its own.
fn refused(org: &Org<'_>, request: Request) -> (Response, Vec<Value>) {
    let mark = unique("mark");
    let response = request.header("User-Agent", &mark).send();
    let mut rows = org.audit("status=failure");
    rows.retain(|row| row["userAgent"] == mark);
    (response, rows)
}

#[track_caller]
fn assert_one_failure(what: &str, org: &Org<'_>, request: Request) -> Value {
    let (response, rows) = refused(org, request);
    assert!(matches!(response.status, 400 | 401 | 403), "{what}: {response}");
    response.refused_somehow();
    assert_eq!(rows.len(), 1, "{what}: {response}\n{rows:?}");
    assert_eq!(rows[0]["ipAddress"], "127.0.0.1", "{what}");
    rows[0].clone()
}

fn each_refusal_of_the_token_endpoint_is_one_failure(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let good = agent.parsed_token();
    let forged = AttackerKey::generate().sign(&good.header, &good.claims);
    let (id, secret) = (agent.client_id.as_str(), agent.secret.as_str());
    let credentials = ("grant_type", "client_credentials");
    let subject = [("grant_type", EXCHANGE), ("subject_token_type", ACCESS_TOKEN)];
    let token = || org.post("/oauth/token");
    let basic = |bad: &str| token().form(&[credentials]).header("Authorization", bad);
    for (what, request) in [
        ("malformed basic", basic("Basic !!!!")),
        ("basic without a colon", basic(&format!("Basic {}", STANDARD.encode(id)))),
        ("two methods", token().basic(id, secret).form(&[credentials, ("client_secret", secret)])),
        ("two clients", token().basic(id, secret).form(&[credentials, ("client_id", "other")])),
        ("unsupported grant", agent_form(&org, id, secret, &[("grant_type", "password")])),
        ("no grant", agent_form(&org, id, secret, &[])),
        ("no client", token().form(&[credentials])),
        ("unknown client", agent_form(&org, &unique("nobody"), secret, &[credentials])),
        ("wrong secret", agent_form(&org, id, "wrong", &[credentials])),
        ("wrong secret by basic", token().basic(id, "wrong").form(&[credentials])),
        ("malformed scope", agent_form(&org, id, secret, &[credentials, ("scope", "a\"b")])),
        ("scope beyond the agent", agent_form(&org, id, secret, &[credentials, ("scope", "write:b")])),
        (
            "unknown resource",
            agent_form(&org, id, secret, &[credentials, ("resource", "https://nobody.test/mcp")]),
        ),
        (
            "forged subject",
            token().form(&[subject[0], subject[1], ("subject_token", &forged), ("audience", "urn:mcp:x")]),
        ),
        ("no subject", token().form(&[subject[0], subject[1], ("audience", "urn:mcp:x")])),
        ("no target", token().form(&[subject[0], subject[1], ("subject_token", &good.text)])),
        (
            "unknown target",
            token().form(&[subject[0], subject[1], ("subject_token", &good.text), ("audience", "urn:mcp:x")]),
        ),
    ] {
        assert_one_failure(what, &org, request);
    }
}

fn agent_form(org: &Org<'_>, id: &str, secret: &str, more: &[(&str, &str)]) -> Request {
    let mut fields = vec![("client_id", id), ("client_secret", secret)];
    fields.extend_from_slice(more);
    org.post("/oauth/token").form(&fields)
}

fn each_refusal_of_introspection_and_revocation_is_one_failure(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    let (id, secret) = (agent.client_id.as_str(), agent.secret.as_str());
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let form = |fields: &[(&str, &str)]| org.post(path).form(fields);
        for (what, request) in [
            ("no client", form(&[("token", &token)])),
            ("malformed basic", form(&[("token", &token)]).header("Authorization", "Basic !!!!")),
            ("two methods", form(&[("token", &token), ("client_secret", secret)]).basic(id, secret)),
            ("wrong secret", form(&[("token", &token)]).basic(id, "wrong")),
            ("unknown client", form(&[("token", &token)]).basic(&unique("nobody"), secret)),
            ("bad bearer", form(&[("token", &token)]).bearer("nonsense")),
            ("no token", form(&[]).basic(id, secret)),
        ] {
            assert_one_failure(&format!("{path} {what}"), &org, request);
        }
    }
    agent.userinfo(&token).ok();
}

fn wrong_secret_of_a_client_is_its_failure(server: &Server) {
    let org = server.acme();
    let body = json!({ "name": unique("App"), "isConfidential": true, "grantTypes": ["client_credentials"] });
    let client = org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone();
    let id = text(&client["clientId"]);
    let request = agent_form(&org, id, "wrong", &[("grant_type", "client_credentials")]);
    let row = assert_one_failure("wrong secret", &org, request);
    assert_eq!((&row["action"], &row["targetId"]), (&json!("client.authenticated"), &json!(id)), "{row}");
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let request = org.post(path).form(&[("token", "x")]).basic(id, "wrong");
        let row = assert_one_failure(path, &org, request);
        assert_eq!(row["action"], "client.authenticated", "{path}: {row}");
    }
    // Its agents are told apart from it.
    let agent = org.agent(&[]);
    let row = assert_one_failure("agent", &org, agent.token_request("wrong", &[]));
    assert_eq!((&row["action"], &row["targetId"]), (&json!("agent.authenticated"), &json!(agent.agent_id)));
}

fn swapped_id_and_secret_leave_no_secret_behind(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    assert!(agent.secret.starts_with("lms_"));
    let (id, secret) = (agent.client_id.as_str(), agent.secret.as_str());
    let requests = [
        agent_form(&org, secret, id, &[("grant_type", "client_credentials")]),
        org.post("/oauth/token").basic(secret, id).form(&[("grant_type", "client_credentials")]),
        org.post("/oauth/introspect").basic(secret, id).form(&[("token", "x")]),
        org.post("/oauth/revoke").basic(secret, id).form(&[("token", "x")]),
    ];
    for request in requests {
        assert_one_failure("swapped", &org, request);
    }
    let list = org.admin("GET", "/audit-logs?limit=100&status=failure").send().expect(200).text();
    assert!(!list.contains(secret), "in the list");
    assert_not_exported(&org, "status=failure", &[secret]);
}

fn token_in_place_of_a_target_leaves_no_token_behind(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let token = Token::parse(&agent.token());
    for name in ["resource", "audience"] {
        let form = [
            ("grant_type", EXCHANGE),
            ("subject_token", token.text.as_str()),
            ("subject_token_type", ACCESS_TOKEN),
            (name, &token.text),
        ];
        assert_one_failure(name, &org, org.post("/oauth/token").form(&form));
        let more = [("grant_type", "client_credentials"), (name, &token.text)];
        if name == "resource" {
            assert_one_failure(name, &org, agent_form(&org, &agent.client_id, &agent.secret, &more));
        }
    }
    let [_, claims, signature] = token.parts();
    let list = org.admin("GET", "/audit-logs?limit=100&status=failure").send().expect(200).text();
    assert!(!list.contains(claims) && !list.contains(signature), "in the list");
    assert_not_exported(&org, &format!("actorId={}", agent.agent_id), &[claims, signature]);
}

#[track_caller]
fn assert_not_exported(org: &Org<'_>, query: &str, secrets: &[&str]) {
    for format in ["json", "csv"] {
        let path = format!("/audit-logs/export?format={format}&{NO_END}&{query}");
        let export = org.admin("GET", &path).send().expect(200).text();
        assert!(
            export.lines().count() > 1 || export.contains("\"eventId\""),
            "nothing was exported: {export}"
        );
        for secret in secrets {
            assert!(!export.contains(secret), "in the {format} export");
        }
    }
}

fn long_resource_of_a_question_is_cut(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    for (name, letter) in [("id", "x"), ("resource", "\u{20ac}"), ("id", "\\\"\u{1b}")] {
        let long: String = letter.chars().cycle().take(50_000 / letter.len()).collect();
        let body = json!({ "action": "read:a", "context": { name: long, "more": "y".repeat(1000) } });
        org.post("/agents/ask").bearer(&token).json(body).send().ok();
    }
    let rows = org.audit(&format!("actorId={}&action=agent.action", agent.agent_id));
    assert_eq!(rows.len(), 3);
    for row in rows {
        let kept = text(&row["context"]["resource"]).chars().count();
        assert!((1..=256).contains(&kept), "{kept} characters");
        assert!(row.to_string().len() < 4096, "{row}");
    }
    let path = format!("/audit-logs/export?format=json&{NO_END}&actorId={}", agent.agent_id);
    let export = org.admin("GET", &path).send().expect(200);
    assert!(export.body.len() < 16 * 1024, "{} bytes", export.body.len());
}

fn long_headers_are_cut(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let long = "x".repeat(8000);
    let request = agent.token_request(&agent.secret, &[]);
    request.header("User-Agent", &long).header("X-Request-Id", &long).send().ok();
    let row = agent.org.audit(&format!("actorId={}", agent.agent_id)).remove(0);
    assert!(text(&row["userAgent"]).len() <= 256 && row.to_string().len() < 4096, "{row}");
}

fn use_that_an_administrator_records_is_recorded(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let body = json!({ "name": unique("meter"), "scopes": ["admin:agents"] });
    let key = org.admin("POST", "/api-keys").json(body).send().expect(201).json()["data"].clone();
    let usage = || org.post(&format!("/admin/agents/{}/usage", agent.agent_id)).api_key(text(&key["key"]));
    usage().json(json!({ "tokens": 9, "cost_usd": 0.5 })).send().ok();
    usage().json(json!({ "tokens": 9, "dry_run": true })).send().ok();
    let rows = org.audit(&format!("targetId={}&action=budget.usage_recorded", agent.agent_id));
    assert_eq!(rows.len(), 1, "a dry run records nothing: {rows:?}");
    assert_eq!(rows[0]["actorType"], "api_key");
    assert_eq!(rows[0]["actorId"], key["id"].to_string());
    assert_eq!(int(&rows[0]["context"]["tokens"]), 9);
    // An agent's own reports are counters, not events.
    let own = json!({ "tokens": 1 });
    org.post("/agents/me/usage").bearer(&agent.token()).json(own).send().ok();
    assert_eq!(org.audit(&format!("targetId={}&action=budget.usage_recorded", agent.agent_id)).len(), 1);
}

fn idempotency_keys_of_administrator_and_agent_are_separate(server: &Server) {
    avoid_hour_edge();
    let policy = json!({ "max_tokens_per_day": 1000 });
    let agent = server.acme().create_agent(json!({ "budgetPolicy": policy }));
    let token = agent.token();
    let key = unique("u");
    let own = json!({ "tokens": 5, "idempotency_key": key });
    let theirs = json!({ "tokens": 7, "idempotency_key": key });
    for _ in 0..2 {
        agent.org.post("/agents/me/usage").bearer(&token).json(own.clone()).send().ok();
        agent.admin("POST", "/usage").json(theirs.clone()).send().ok();
    }
    // Not even an agent that writes its key like the other one's reaches it.
    for disguised in [format!("admin {key}"), format!("agent {key}")] {
        let report = json!({ "tokens": 100, "idempotency_key": disguised });
        agent.org.post("/agents/me/usage").bearer(&token).json(report).send().ok();
    }
    let policy = agent.userinfo(&token).ok()["budget_policy"].clone();
    assert_eq!(int(&policy["tokens_used_today"]), 212, "each counts once");
    // What changed nothing is no event: not the repetition, and not the same key for something else.
    let other = json!({ "tokens": 8, "idempotency_key": key });
    agent.admin("POST", "/usage").json(other).send().refused(409, "duplicate_resource");
    let rows = agent.org.audit(&format!("targetId={}&action=budget.usage_recorded", agent.agent_id));
    assert_eq!(rows.len(), 1, "{rows:?}");
    // The whole length that is allowed is allowed to both.
    let longest = json!({ "tokens": 1, "idempotency_key": "k".repeat(128) });
    agent.admin("POST", "/usage").json(longest).send().ok();
}
