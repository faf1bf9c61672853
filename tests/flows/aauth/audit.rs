//! What AAuth leaves in the audit log, and what it does not leave anywhere.

use lumoauth_tests::{Backend, Ed25519, Options, Org, Server, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    registry_is_in_the_log,
    tokens_are_in_the_log,
    questions_and_answers_are_in_the_log,
    refusals_are_in_the_log,
    second_use_of_a_code_is_in_the_log,
);

fn rows(org: &Org<'_>, action: &str) -> Vec<Value> {
    org.audit(&format!("action={action}"))
}

/// The rows that say something of `about`.
fn about(org: &Org<'_>, action: &str, about: &str) -> Vec<Value> {
    rows(org, action).into_iter().filter(|row| row.to_string().contains(about)).collect()
}

fn registry_is_in_the_log(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let path = format!("/aauth/agents/{}", agent.id);
    org.admin("PATCH", &path).json(json!({ "delegation": false })).send().ok();
    org.admin("DELETE", &path).send().ok();
    resource.admin("PATCH").json(json!({ "default_auth_level": "user" })).send().ok();
    resource.admin("DELETE").send().ok();
    let made = about(&org, "agent.created", &agent.id).len()
        + about(&org, "aauth.agent_registered", &agent.id).len();
    assert!(made >= 1);
    for (action, id) in [
        ("aauth.agent_updated", &agent.id),
        ("aauth.agent_removed", &agent.id),
        ("aauth.resource_created", &resource.id),
        ("aauth.resource_updated", &resource.id),
        ("aauth.resource_deleted", &resource.id),
    ] {
        let rows = about(&org, action, id);
        assert_eq!(rows.len(), 1, "{action}: {rows:?}");
        assert!(rows[0]["actorId"].is_string(), "{rows:?}");
    }
    // An agent that was there before.
    let core = org.agent(&["read:a"]);
    core.in_aauth();
    assert_eq!(about(&org, "aauth.agent_registered", &core.agent_id).len(), 1);
}

fn tokens_are_in_the_log(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = agent.tokens(&resource);
    agent.refresh(&body["refresh_token"], &resource).ok();
    let rows = about(&org, "aauth.token_issued", &resource.id);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in &rows {
        assert!(row.to_string().contains(&agent.key.thumbprint()), "{row}");
        assert!(row["ipAddress"] == "127.0.0.1", "{row}");
    }
    let jti = lumoauth_tests::Token::parse(text(&body["auth_token"])).claims["jti"].clone();
    assert_eq!(about(&org, "aauth.token_issued", text(&jti)).len(), 1);
    let key = Ed25519::generate("d");
    let ask = json!({ "delegate_sub": "worker-7", "delegate_public_key": key.jwk() });
    agent.post("/aauth/agent/issue", &ask).ok();
    assert_eq!(about(&org, "aauth.token_issued", &key.thumbprint()).len(), 1);
    agent.post("/aauth/token/revoke", &json!({ "token": jti })).ok();
    assert_eq!(about(&org, "token.revoked", &agent.id).len(), 1);
}

fn questions_and_answers_are_in_the_log(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let token = agent.question(&resource, "read");
    assert_eq!(about(&org, "aauth.consent_requested", &resource.id).len(), 1);
    alice.decide_aauth(&token, "deny").ok();
    let body = alice.give(&agent, &resource, "read");
    let rows = about(&org, "aauth.authorization_decided", &resource.id);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row["actorId"] == *alice.id), "{rows:?}");
    let all = org.audit("limit=100");
    let all = json!(all).to_string();
    for secret in [&token, text(&body["auth_token"]), text(&body["refresh_token"])] {
        assert!(!all.contains(secret), "{secret}");
    }
}

fn refusals_are_in_the_log(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let thief = Ed25519::generate("t");
    let ask = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    agent.call(&ask).signed(&thief).send().refused(401, "authentication_required");
    let rows = about(&org, "aauth.refused", &agent.id);
    assert_eq!(rows.len(), 1, "{rows:?}");
    // Nobody has proven to be the agent.
    assert_ne!(rows[0]["actorId"], *agent.id);
    assert!(rows[0].to_string().contains("key_binding_failed"), "{rows:?}");
    agent
        .ask(&json!({ "request_type": "auth", "resource_token": "x" }))
        .refused(400, "invalid_resource_token");
    let rows = about(&org, "aauth.refused", "invalid_resource_token");
    assert!(rows.iter().any(|row| row.to_string().contains(&agent.id)), "{rows:?}");
}

fn second_use_of_a_code_is_in_the_log(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let code = alice.agree(&agent.question(&resource, "read"));
    agent.redeem(&code).ok();
    agent.redeem(&code).refused(400, "invalid_grant");
    assert_eq!(about(&org, "token.reused", &agent.id).len(), 1);
}

/// No text of a token, code or signature reaches a row or the log of the server, whatever it logs.
#[test]
fn nothing_secret_is_written_down() {
    let server = Server::start(&Options::new(Backend::Memory).variable("RUST_LOG", "trace"));
    let org = server.acme();
    let (agent, resource, asking, alice) = (
        org.aauth_agent(json!({})),
        org.aauth_resource(json!({})),
        org.aauth_resource_of("authorized"),
        org.person(),
    );
    let mut secrets = Vec::new();
    let mut keep = |text: &str| {
        // Header and claims are no secret, the signature is.
        secrets.push(text.rsplit('.').next().unwrap_or(text).to_owned());
    };
    let body = agent.tokens(&resource);
    keep(text(&body["auth_token"]));
    keep(text(&body["refresh_token"]));
    let asked = agent.question(&asking, "read");
    keep(&asked);
    let code = alice.agree(&asked);
    keep(&code);
    let given = agent.redeem(&code).ok();
    keep(text(&given["auth_token"]));
    keep(text(&given["refresh_token"]));
    // The same in every wrong place.
    for token in [
        text(&body["auth_token"]),
        text(&body["refresh_token"]),
        &*code,
        &*agent.token(),
        &*resource.token_for(&agent),
    ] {
        keep(token);
        for kind in ["auth", "code", "refresh", "exchange"] {
            agent.ask(&json!({
                "request_type": kind, "resource_token": token, "code": token, "refresh_token": token,
                "auth_token": token, "redirect_uri": token, "request_token": token,
            }));
        }
        agent.call(&json!({})).by(token).signed(&agent.key).send();
        resource.post("/aauth/auth/token/verify", &json!({ "auth_token": token }));
        resource.post(
            "/aauth/resource/token/verify",
            &json!({ "resource_token": token, "agent": token, "agent_jkt": token }),
        );
        agent.post("/aauth/token/revoke", &json!({ "token": token }));
        org.get(&format!("/aauth/agent/auth?request_token={token}")).send();
        alice.decide_aauth(token, "approve");
    }
    let sent = agent.sent(&json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) }));
    keep(sent.field("Signature").trim_start_matches("sig1=:").trim_end_matches(':'));
    sent.send().ok();
    let rows = json!([1, 2, 3, 4].map(|page| org.audit(&format!("page={page}")))).to_string();
    let log = server.log();
    assert!(!log.contains("panicked"));
    assert!(log.contains("DEBUG"), "it says no more than usual, so this shows nothing");
    for secret in &secrets {
        assert!(secret.len() > 20, "{secret}");
        assert!(!rows.contains(secret), "in a row: {secret}");
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "in the log: {line:?}");
    }
}
