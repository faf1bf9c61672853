//! Introspection (RFC 7662, contract 2.3).

use lumoauth_tests::{Server, Token, int, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    own_token_is_active_with_its_claims,
    basic_and_bearer_may_ask_too,
    garbage_is_inactive_and_says_no_more,
    token_of_another_organization_is_inactive,
    token_issued_to_another_agent_is_inactive,
    server_that_a_token_is_bound_to_sees_it,
    every_agent_of_a_chain_sees_the_whole_of_it,
    missing_token_is_an_invalid_request,
    unauthenticated_caller_is_refused,
    wrong_secret_is_refused,
    deactivated_agent_makes_its_tokens_inactive_at_once,
    reactivated_agent_does_not_revive_old_tokens,
    withdrawn_capability_is_gone_from_an_issued_token,
    answers_are_never_cached,
    token_type_hint_changes_nothing,
    repeated_token_parameter_is_refused,
    agent_over_budget_is_marked,
);

fn own_token_is_active_with_its_claims(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    let body = agent.org.introspect(&agent, &token.text);
    assert_eq!(body["active"], true);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["agent_id"], agent.agent_id);
    for claim in ["scope", "client_id", "sub", "organization", "iss", "aud", "exp", "iat", "nbf", "jti"] {
        assert_eq!(body[claim], token.claims[claim], "{claim} in {body}");
    }
    int(&body["exp"]);
    assert!(body.get("act").is_none_or(Value::is_null), "{body}");
}

fn basic_and_bearer_may_ask_too(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let expected = agent.org.introspect(&agent, &token);
    let request = agent.org.post("/oauth/introspect").form(&[("token", &token)]);
    assert_eq!(request.clone().basic(&agent.client_id, &agent.secret).send().ok(), expected);
    assert_eq!(request.bearer(&token).send().ok(), expected);
}

fn garbage_is_inactive_and_says_no_more(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let broken = format!("{}x", &token[..token.len() - 3]);
    for garbage in ["x", "a.b.c", "rt_unknown", "..", &broken, &agent.secret] {
        assert_eq!(agent.org.introspect(&agent, garbage), json!({ "active": false }), "{garbage}");
    }
}

fn token_of_another_organization_is_inactive(server: &Server) {
    let ours = server.acme().agent(&["read:a"]);
    let theirs = server.globex().agent(&["read:a"]);
    assert_eq!(ours.org.introspect(&ours, &theirs.token()), json!({ "active": false }));
    assert_eq!(theirs.org.introspect(&theirs, &ours.token()), json!({ "active": false }));
}

fn token_issued_to_another_agent_is_inactive(server: &Server) {
    let (one, two) = (server.acme().agent(&[]), server.acme().agent(&[]));
    assert_eq!(one.org.introspect(&two, &one.token()), json!({ "active": false }));
}

fn server_that_a_token_is_bound_to_sees_it(server: &Server) {
    let org = server.acme();
    let body = json!({ "name": unique("rs"), "isConfidential": true, "grantTypes": ["client_credentials"] });
    let client = org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone();
    let (id, secret) = (text(&client["clientId"]), text(&client["secret"]));
    let mcp = org.mcp_server(json!({ "resource_client_id": id }));
    let (agent, stranger) = (org.agent(&["read:a"]), org.agent(&["read:a"]));
    let exchanged = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let token = text(&exchanged["access_token"]);

    let form = [("token", token), ("client_id", id), ("client_secret", secret)];
    let body = org.post("/oauth/introspect").form(&form).send().ok();

    assert_eq!(body["active"], true);
    assert_eq!(body["aud"], mcp["resource_uri"]);
    assert_eq!(body["agent_id"], agent.agent_id);
    assert_eq!(org.introspect(&agent, token)["active"], true, "its own");
    assert_eq!(org.introspect(&stranger, token), json!({ "active": false }));
    let plain = agent.token();
    let form = [("token", plain.as_str()), ("client_id", id), ("client_secret", secret)];
    assert_eq!(org.post("/oauth/introspect").form(&form).send().ok(), json!({ "active": false }));
}

fn every_agent_of_a_chain_sees_the_whole_of_it(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let (third, stranger) = (org.agent(&["read:a"]), org.agent(&["read:a"]));
    let two = second.acting_for(&first.acting_for(&alice.allow(&first, "read:a").access));
    let three = third.acting_for(&two);
    for agent in [&first, &second, &third] {
        let seen = org.introspect(agent, &three);
        assert_eq!((&seen["active"], &seen["delegation_depth"]), (&json!(true), &json!(3)), "{seen}");
        assert_eq!(seen["act"]["act"]["act"]["client_id"], *third.client_id, "{seen}");
    }
    let unseen = json!({ "active": false });
    assert_eq!(org.introspect(&stranger, &three), unseen);
    // Who joins later has no part in what the chain was before.
    assert_eq!(org.introspect(&third, &two), unseen);
}

fn missing_token_is_an_invalid_request(server: &Server) {
    let agent = server.acme().agent(&[]);
    let request = agent.org.post("/oauth/introspect").basic(&agent.client_id, &agent.secret);
    request.clone().form(&[]).send().refused(400, "invalid_request");
    request.form(&[("token", "")]).send().refused(400, "invalid_request");
}

fn unauthenticated_caller_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let response = agent.org.post("/oauth/introspect").form(&[("token", &token)]).send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
    let request = agent.org.post("/oauth/introspect").form(&[("token", &token)]);
    assert_eq!(request.api_key("lmk_unknown").send().status, 401);
}

fn wrong_secret_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let request = agent.org.post("/oauth/introspect").form(&[("token", &token)]);
    let response = request.basic(&agent.client_id, "wrong").send();
    response.refused(401, "invalid_client");
    assert!(response.header("www-authenticate").is_some_and(|it| it.starts_with("Basic")), "{response}");
    let form = [("token", token.as_str()), ("client_id", &agent.client_id), ("client_secret", "wrong")];
    agent.org.post("/oauth/introspect").form(&form).send().refused(401, "invalid_client");
}

fn deactivated_agent_makes_its_tokens_inactive_at_once(server: &Server) {
    let org = server.acme();
    let body = json!({ "name": unique("rs"), "isConfidential": true, "grantTypes": ["client_credentials"] });
    let client = org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone();
    let mcp = org.mcp_server(json!({ "resource_client_id": client["clientId"] }));
    let agent = org.agent(&["read:a"]);
    let exchanged = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let form = [
        ("token", text(&exchanged["access_token"])),
        ("client_id", text(&client["clientId"])),
        ("client_secret", text(&client["secret"])),
    ];
    assert_eq!(org.post("/oauth/introspect").form(&form).send().ok()["active"], true);
    agent.admin("POST", "/deactivate").send().ok();
    assert_eq!(org.post("/oauth/introspect").form(&form).send().ok(), json!({ "active": false }));
}

fn reactivated_agent_does_not_revive_old_tokens(server: &Server) {
    let agent = server.acme().agent(&[]);
    let old = agent.token();
    agent.admin("POST", "/deactivate").send().ok();
    agent.admin("POST", "/activate").send().ok();
    assert_eq!(agent.org.introspect(&agent, &old), json!({ "active": false }));
    agent.userinfo(&old).refused(401, "invalid_token");
    let fresh = agent.token();
    assert_eq!(agent.org.introspect(&agent, &fresh)["active"], true);
}

fn withdrawn_capability_is_gone_from_an_issued_token(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let token = agent.token();
    assert_eq!(agent.ask(&token, "write:b").ok()["allowed"], true);
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    assert_eq!(agent.ask(&token, "write:b").ok()["allowed"], false);
    let body = agent.org.introspect(&agent, &token);
    assert_eq!(body["scope"], "read:a", "{body}");
}

fn answers_are_never_cached(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let request = agent.org.post("/oauth/introspect").basic(&agent.client_id, &agent.secret);
    for subject in [token.as_str(), "garbage"] {
        let response = request.clone().form(&[("token", subject)]).send();
        assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
    }
}

fn token_type_hint_changes_nothing(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let expected = agent.org.introspect(&agent, &token);
    for hint in ["access_token", "refresh_token", "nonsense", ""] {
        let request = agent.org.post("/oauth/introspect").basic(&agent.client_id, &agent.secret);
        assert_eq!(request.form(&[("token", &token), ("token_type_hint", hint)]).send().ok(), expected);
    }
}

fn repeated_token_parameter_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let request = agent.org.post(path).basic(&agent.client_id, &agent.secret);
        request.form(&[("token", &token), ("token", "x")]).send().refused(400, "invalid_request");
    }
}

fn agent_over_budget_is_marked(server: &Server) {
    let agent = server.acme().create_agent(json!({ "budgetPolicy": { "max_tokens_per_day": 10 } }));
    let token = Token::parse(&agent.token());
    assert!(
        agent.org.introspect(&agent, &token.text).get("budget_exceeded").is_none_or(|flag| flag == false)
    );
    let usage = json!({ "tokens": 10 });
    agent.org.post("/agents/me/usage").bearer(&token.text).json(usage).send().ok();
    let body = agent.org.introspect(&agent, &token.text);
    assert_eq!((&body["active"], &body["budget_exceeded"]), (&json!(true), &json!(true)));
}
