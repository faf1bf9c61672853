//! Secrets put into every input come out nowhere (security HY-05), and nothing panics.

use std::time::Duration;

use lumoauth_tests::{
    Agent, Backend, Call, DpopKey, EXCHANGE, JWT, KeySite, Options, Org, Request, Server, percent_encode,
    raw_exchange, text, unique,
};
use serde_json::{Value, json};

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
    let trace = Options::new(backend).variable("RUST_LOG", "trace").knowing_our_sites();
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
    misplaced(&org, &agent, &token, &secrets[..4]);

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
    bad_keys_sing(&org, &mut canary);
    secrets.extend(secrets_of_keys(&server));
    askers_sing(&org, &mut canary);
    secrets.extend(secrets_of_asking(&server));
    std::thread::sleep(Duration::from_millis(200));

    let log = server.log();
    assert!(log.contains("panicked").eq(&false), "a panic: {log}");
    let log = &log[greeting..];
    assert!(log.contains("DEBUG"), "it says no more than usual, so this shows nothing: {log}");
    let export = org.admin("GET", "/audit-logs/export?format=json").send().expect(200).text();
    let csv = org.admin("GET", "/audit-logs/export?format=csv").send().expect(200).text();
    let tree = org.admin("GET", "/audit-logs/tree/export?limit=10000").send().expect(200).text();
    let last = tree.lines().rfind(|line| line.starts_with(r#"{"type":"entry""#)).expect("entries");
    let rest = text(&serde_json::from_str::<Value>(last).expect("JSON")["event_id"]).replace('-', "");
    assert!(export.contains(&rest), "the whole log is looked at");
    for secret in canaries.iter().chain(&secrets).filter(|secret| !secret.is_empty()) {
        for (place, text) in
            [("log", log), ("json export", &export), ("csv export", &csv), ("tree export", &tree)]
        {
            let around = text.find(secret.as_str()).map(|at| {
                let start = text[..at].char_indices().rev().nth(300).map_or(0, |(at, _)| at);
                text[start..].chars().take(500).collect::<String>()
            });
            assert!(around.is_none(), "{secret} in the {place}: {}", around.unwrap_or_default());
        }
    }
    // A signature alone is enough to complete a token whose claims are known.
    let signature = token.rsplit('.').next().unwrap_or_default();
    assert!(!log.contains(signature) && !export.contains(signature) && !tree.contains(signature));
}

/// Canaries where AAuth and DPoP have their secrets, and where they have none.
fn bad_keys_sing(org: &Org<'_>, canary: &mut impl FnMut(&str) -> String) {
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let jws = |bird: String| format!("{bird}.{bird}.{bird}");
    for path in [
        "/aauth/agent/token",
        "/aauth/agent/issue",
        "/aauth/agent/platform-token",
        "/aauth/resource/token",
        "/aauth/resource/token/verify",
        "/aauth/auth/token/verify",
        "/aauth/token/revoke",
        "/aauth/consent",
    ] {
        let request = || org.post(path).json(json!({}));
        request().header("Agent-Auth", &format!("agent_token={}", jws(canary("agent-token")))).send();
        request().header("Agent-Auth", &format!("sig1=:{}:", canary("docs-form"))).send();
        request().bearer(&canary("bearer")).send();
        request().header("DPoP", &jws(canary("proof"))).send();
        request()
            .header("DPoP", &canary("proof"))
            .header("Authorization", &format!("DPoP {}", canary("dpop")))
            .send();
        // Signed in order, and then with another signature.
        let sent = Call::sdk(org, path, &json!({})).by(&agent.token()).signed(&agent.key);
        sent.clone().with("Signature", &format!("sig1=:{}:", canary("signature"))).send();
        sent.with("Signature-Input", &format!("sig1=();nonce=\"{}\"", canary("nonce"))).send();
        // Members of bodies that are signed in order, by either party.
        for name in [
            "agent_token",
            "resource_token",
            "auth_token",
            "access_token",
            "refresh_token",
            "code",
            "request_token",
            "subject_token",
            "token",
        ] {
            for value in [canary(name), jws(canary(name))] {
                let kinds = ["auth", "code", "refresh", "exchange"];
                let kinds = if path.ends_with("/agent/token") { &kinds[..] } else { &kinds[..1] };
                for kind in kinds {
                    let body = json!({
                        "request_type": kind, "redirect_uri": lumoauth_tests::CALLBACK, "agent": agent.identifier,
                        "resource_token": resource.token_for(&agent), "token_type": "refresh_token",
                        "grant_type": EXCHANGE, "subject_token_type": JWT, "decision": "approve", name: value,
                    });
                    Call::sdk(org, path, &body).by(&agent.token()).signed(&agent.key).send();
                    resource.post(path, &body);
                }
            }
        }
    }
    org.get(&format!("/aauth/agent/auth?request_token={}", canary("query"))).send();
    let proof = DpopKey::generate;
    org.get("/oauth/userinfo").dpop(&canary("bound"), &proof().proof("GET", "https://x.test", None)).send();
    org.get("/oauth/userinfo").dpop(&canary("bound"), &jws(canary("proof"))).send();
}

/// Everything secret of an agent with keys whose requests all went well.
fn secrets_of_keys(server: &Server) -> Vec<String> {
    let org = server.acme();
    let (agent, alice) = (org.aauth_agent(json!({})), org.person());
    let (resource, asking) = (org.aauth_resource(json!({})), org.aauth_resource_of("authorized"));
    // What a JWT says of itself is no secret; whoever has its signature has all of it.
    let end = |token: &str| token.rsplit('.').next().unwrap_or(token).to_owned();
    let mut secrets = Vec::new();
    let token = agent.token();
    secrets.push(end(&token));
    let asked = resource.token_for(&agent);
    secrets.push(end(&asked));
    let body = json!({ "request_type": "auth", "resource_token": asked });
    let sent = Call::sdk(&org, "/aauth/agent/token", &body).by(&token).signed(&agent.key);
    secrets.push(sent.field("Signature").trim_start_matches("sig1=:").trim_end_matches(':').to_owned());
    let given = sent.send().ok();
    resource.verify(&given["auth_token"]);
    let question = agent.question(&asking, "read");
    let code = alice.agree(&question);
    let theirs = agent.redeem(&code).ok();
    secrets.extend([question, code]);
    for body in [&given, &theirs] {
        secrets.extend(["auth_token", "refresh_token"].map(|name| end(text(&body[name]))));
    }
    let again = agent.refresh(&given["refresh_token"], &resource).ok();
    secrets.push(end(text(&again["auth_token"])));
    // A bound token, by a proof and by a signature, and what it is used with.
    let body = json!({ "grant_type": EXCHANGE, "subject_token": agent.token(), "subject_token_type": JWT });
    let platform = Call::sdk(&org, "/aauth/agent/platform-token", &body).signed(&agent.key).send().ok();
    secrets.push(end(text(&platform["access_token"])));
    let (robot, key) = (org.agent(&["read:a"]), DpopKey::generate());
    let proof = key.proof("POST", &format!("{}/oauth/token", org.issuer()), None);
    let bound = robot.token_request(&robot.secret, &[]).header("DPoP", &proof).send().ok();
    assert_eq!(bound["token_type"], "DPoP");
    let bound = text(&bound["access_token"]);
    let shown = key.proof("GET", &format!("{}/oauth/userinfo", org.issuer()), Some(bound));
    org.get("/oauth/userinfo").dpop(bound, &shown).send().ok();
    secrets.extend([end(bound), end(&proof), end(&shown), robot.secret]);
    assert!(secrets.iter().all(|secret| secret.len() > 20), "{secrets:?}");
    secrets
}

/// Credentials where callers write of other things, and the log says what they wrote.
fn misplaced(org: &Org<'_>, agent: &Agent<'_>, token: &str, secrets: &[String]) {
    for secret in secrets {
        let ask = |action: &str, context: Value| {
            let body = json!({ "action": action, "context": context });
            let request = org.post("/agents/ask").bearer(token).json(body);
            request.header("User-Agent", secret).header("X-Request-Id", secret).send();
        };
        ask("read:a", json!({ "id": secret, "resource_type": secret }));
        ask(secret, json!({}));
        ask(&format!("read:{secret}"), json!({}));
        let post = |path: &str, body: Value| drop(org.post(path).bearer(token).json(body).send());
        post("/authz/check", json!({ "permission": secret }));
        post("/authz/check-any", json!({ "permissions": [secret, "read:a"] }));
        post("/abac/check", json!({ "resourceType": secret, "action": secret, "resourceId": secret }));
        post("/agents/me/mcp/authorize", json!({ "server_id": secret, "tool": secret }));
        let subject = json!({ "type": "agent", "id": agent.agent_id });
        post(
            "/authz/v1/evaluation",
            json!({
                "subject": subject, "action": { "name": secret }, "resource": { "type": secret, "id": secret },
            }),
        );
        let login = json!({ "email": format!("{secret}@people.test"), "password": "wrong" });
        org.post("/oauth/login/json").json(login).send();
        let form = [("grant_type", "client_credentials"), ("client_id", &**secret), ("client_secret", "x")];
        org.post("/oauth/token").form(&form).send();
    }
}

/// Canaries in the place of credentials, and of what is like one, where agents ask people and where it is said who may what.
fn askers_sing(org: &Org<'_>, canary: &mut impl FnMut(&str) -> String) {
    let agent = org.delegate(&["read:a"]);
    let token = agent.token();
    let posts = [
        "/jit/task",
        "/jit/request",
        "/agents/me/approvals",
        "/authz/check",
        "/abac/check",
        "/zanzibar/check",
        "/authz/v1/evaluation",
        "/authz/v1/evaluations",
        "/agents/me/mcp/authorize",
        "/admin/roles",
        "/admin/abac/policies",
        "/admin/zanzibar/tuples",
    ];
    for path in posts {
        let request = || org.post(path).json(json!({ "access_token": "x" }));
        request().bearer(&canary("bearer")).send();
        request().api_key(&format!("lmk_{}", canary("lmk"))).send();
        request().header("Authorization", &format!("DPoP {}", canary("dpop"))).send();
        // A member that is no part of any of these.
        org.post(path).bearer(&token).json(json!({ "client_secret": canary("member") })).send();
        org.post(path).api_key(org.key()).json(json!({ "client_secret": canary("member") })).send();
        org.post(path)
            .bearer(&token)
            .body("application/json", format!("{{\"a\":\"{}", canary("broken")))
            .send();
        org.get(&format!("{path}?access_token={}", canary("query"))).bearer(&token).send();
    }
    // What is like a token in a path: only who has it may know it.
    for path in ["/approvals/{}/approve", "/approvals/{}/deny", "/jit/approve/{}", "/jit/request/{}/token"] {
        org.post(&path.replace("{}", &format!("apr_{}", canary("path"))))
            .bearer(&token)
            .json(json!({}))
            .send();
        org.post(&path.replace("{}", &canary("path"))).json(json!({})).send();
    }
    for path in ["/agents/me/approvals/{}/status", "/jit/request/{}/status", "/admin/audit-logs/{}"] {
        org.get(&path.replace("{}", &canary("path"))).bearer(&token).send();
    }
    // An address may carry a secret of whoever is to hear.
    let task = org.post("/jit/task").bearer(&token).json(json!({})).send().expect(201).json();
    let page = KeySite::trusted().page();
    page.fail(500, None);
    let made = org.post("/jit/request").bearer(&token).json(json!({
        "task_id": task["task_id"], "callback_url": format!("{}?secret={}", page.uri(), canary("callback")),
        "authorization_details": { "type": "file_access", "actions": ["delete"], "identifier": "a" },
    }));
    let made = made.send().expect(201).json();
    let admin = org.person_with(json!({ "isAdmin": true })).in_person("openid jit:approve");
    let path = format!("/jit/deny/{}", text(&made["request_id"]));
    org.post(&path).bearer(&admin).json(json!({})).send().ok();
    // It does not answer, and the log says so.
    for _ in 0..200 {
        if !org.server().log().contains("a callback does not answer") {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(org.server().log().contains("a callback does not answer"));
}

/// Everything secret of an agent that asked people, and was answered.
fn secrets_of_asking(server: &Server) -> Vec<String> {
    let org = server.acme();
    let agent = org.delegate(&["read:a"]);
    let token = agent.token();
    let person = org.person_with(json!({ "approver": { "enabled": true } }));
    let (user, admin) = (
        person.in_person("openid"),
        org.person_with(json!({ "isAdmin": true })).in_person("openid jit:approve"),
    );
    let end = |token: &str| token.rsplit('.').next().unwrap_or(token).to_owned();
    let mut secrets = vec![end(&token), end(&user), end(&admin)];
    for what in ["approve", "deny"] {
        let body = json!({ "task_id": "t", "reason": "Pay", "impact": "low", "on_behalf_of": person.email });
        let made = org.post("/agents/me/approvals").bearer(&token).json(body).send().expect(201).json();
        let approval = text(&made["approval_token"]).to_owned();
        let status = format!("/agents/me/approvals/{approval}/status");
        org.get(&status).bearer(&token).send().ok();
        org.post(&format!("/approvals/{approval}/{what}")).bearer(&user).json(json!({})).send().ok();
        org.get(&status).bearer(&token).send().ok();
        secrets.push(approval);
    }
    let task = org.post("/jit/task").bearer(&token).json(json!({})).send().expect(201).json();
    let asked = json!({
        "task_id": task["task_id"],
        "authorization_details": { "type": "file_access", "actions": ["delete"], "identifier": "a" },
    });
    let made = org.post("/jit/request").bearer(&token).json(asked).send().expect(201).json();
    let id = text(&made["request_id"]);
    org.post(&format!("/jit/approve/{id}")).bearer(&admin).json(json!({})).send().ok();
    let issued = org.post(&format!("/jit/request/{id}/token")).bearer(&token).send().ok();
    let issued = text(&issued["access_token"]);
    assert_eq!(org.introspect(&agent, issued)["active"], true);
    secrets.extend([end(issued), agent.secret]);
    assert!(secrets.iter().all(|secret| secret.len() > 20), "{secrets:?}");
    secrets
}
