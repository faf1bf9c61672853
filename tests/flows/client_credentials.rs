//! `client_credentials` at the token endpoint (contract 2.1.1).

use lumoauth_tests::{Server, int, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    basic_authentication_equals_form_authentication,
    omitted_scope_grants_all_capabilities,
    empty_scope_grants_all_capabilities,
    requested_scope_narrows_the_token,
    one_scope_too_many_is_refused_whole,
    granted_scope_can_be_sent_back_as_request,
    scope_repeated_in_a_request_is_granted_once,
    wildcard_capability_covers_a_requested_scope,
    wildcard_can_be_requested_only_literally,
    star_never_implies_delegation_or_admin,
    agent_without_capabilities_gets_an_empty_scope_string,
    bearer_header_on_the_token_endpoint_is_ignored,
    json_body_is_accepted,
    json_body_with_a_charset_is_accepted,
    unknown_parameters_are_ignored,
    answers_are_never_cached,
    withdrawn_capability_is_refused_at_once,
    resource_sets_the_audience,
    unknown_resource_is_an_invalid_target,
    fixtures_can_authenticate,
);

fn basic_authentication_equals_form_authentication(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);

    let by_form = agent.ask_token(&[]).ok();
    let by_basic = agent
        .org
        .post("/oauth/token")
        .basic(&agent.client_id, &agent.secret)
        .form(&[("grant_type", "client_credentials")])
        .send()
        .ok();

    for member in ["scope", "token_type", "expires_in"] {
        assert_eq!(by_form[member], by_basic[member]);
    }
    assert_eq!(by_form["token_type"], "Bearer");
    assert_eq!(int(&by_form["expires_in"]), 3600);
    assert!(by_form.get("refresh_token").is_none() && by_form.get("id_token").is_none());
}

fn omitted_scope_grants_all_capabilities(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.ask_token(&[]).ok();
    assert_eq!(scopes(&body), ["read:a", "write:b"]);
}

fn empty_scope_grants_all_capabilities(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.ask_token(&[("scope", "")]).ok();
    assert_eq!(scopes(&body), ["read:a", "write:b"]);
}

fn requested_scope_narrows_the_token(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.ask_token(&[("scope", "write:b")]).ok();
    assert_eq!(body["scope"], "write:b");
}

fn one_scope_too_many_is_refused_whole(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask_token(&[("scope", "read:a write:b")]).refused(400, "invalid_scope");
    // Capabilities are case-sensitive.
    agent.ask_token(&[("scope", "READ:a")]).refused(400, "invalid_scope");
}

fn granted_scope_can_be_sent_back_as_request(server: &Server) {
    let agent = server.acme().agent(&["read:*", "document.*", "tool:x"]);
    let first = agent.ask_token(&[]).ok();
    let second = agent.ask_token(&[("scope", text(&first["scope"]))]).ok();
    assert_eq!(scopes(&first), scopes(&second));
}

fn scope_repeated_in_a_request_is_granted_once(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.ask_token(&[("scope", "read:a read:a")]).ok();
    assert_eq!(body["scope"], "read:a");
}

fn wildcard_capability_covers_a_requested_scope(server: &Server) {
    let agent = server.acme().agent(&["read:*", "document.*"]);
    let body = agent.ask_token(&[("scope", "read:invoices document.edit")]).ok();
    assert_eq!(scopes(&body), ["document.edit", "read:invoices"]);
    // One or more characters, and only after the separator.
    agent.ask_token(&[("scope", "read:")]).refused(400, "invalid_scope");
    agent.ask_token(&[("scope", "reader:x")]).refused(400, "invalid_scope");
}

fn wildcard_can_be_requested_only_literally(server: &Server) {
    let agent = server.acme().agent(&["read:*"]);
    assert_eq!(agent.ask_token(&[("scope", "read:*")]).ok()["scope"], "read:*");
    agent.ask_token(&[("scope", "read:a*")]).refused(400, "invalid_scope");
    agent.ask_token(&[("scope", "*")]).refused(400, "invalid_scope");
}

fn star_never_implies_delegation_or_admin(server: &Server) {
    let agent = server.acme().agent(&["*"]);
    agent.ask_token(&[("scope", "anything:else")]).ok();
    for scope in ["delegate:user", "delegate:on_behalf", "admin", "admin:write", "admin:agents:write"] {
        agent.ask_token(&[("scope", scope)]).refused(400, "invalid_scope");
    }
}

fn agent_without_capabilities_gets_an_empty_scope_string(server: &Server) {
    let agent = server.acme().create_agent(json!({}));
    // `null` makes the official SDK raise out of `authenticate()`.
    assert_eq!(agent.ask_token(&[]).ok()["scope"], "");
}

fn bearer_header_on_the_token_endpoint_is_ignored(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for header in [format!("Bearer {token}"), "Bearer nonsense".to_owned()] {
        agent.token_request(&agent.secret, &[]).header("Authorization", &header).send().ok();
    }
}

fn json_body_is_accepted(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = json!({
        "grant_type": "client_credentials", "client_id": agent.client_id, "client_secret": agent.secret,
        "scope": "read:a",
    });
    assert_eq!(agent.org.post("/oauth/token").json(body).send().ok()["scope"], "read:a");
}

fn json_body_with_a_charset_is_accepted(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body = json!({
        "grant_type": "client_credentials", "client_id": agent.client_id, "client_secret": agent.secret,
        "scope": null,
    });
    let request = agent.org.post("/oauth/token").body("application/json; charset=utf-8", body.to_string());
    assert_eq!(request.send().ok()["scope"], "read:a");
}

fn unknown_parameters_are_ignored(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask_token(&[("jit_task_id", "t-1"), ("frobnicate", "yes")]).ok();
}

fn answers_are_never_cached(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let good = agent.ask_token(&[]);
    let bad = agent.token_request("wrong", &[]).send();
    for response in [good, bad] {
        assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
        assert_eq!(response.header("pragma"), Some("no-cache"), "{response}");
    }
}

fn withdrawn_capability_is_refused_at_once(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    agent.ask_token(&[("scope", "write:b")]).ok();
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    agent.ask_token(&[("scope", "write:b")]).refused(400, "invalid_scope");
    assert_eq!(agent.ask_token(&[]).ok()["scope"], "read:a");
}

fn resource_sets_the_audience(server: &Server) {
    let org = server.acme();
    let resource = text(&org.mcp_server(json!({}))["resource_uri"]).to_owned();
    let agent = org.agent(&["read:a"]);
    let body = agent.ask_token(&[("resource", &resource)]).ok();
    let token = lumoauth_tests::Token::parse(text(&body["access_token"]));
    assert_eq!(token.claims["aud"], resource);
}

fn unknown_resource_is_an_invalid_target(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    for resource in ["https://nobody.test/mcp", "not a url", "https://nobody.test/mcp#fragment"] {
        agent.ask_token(&[("resource", resource)]).refused(400, "invalid_target");
    }
}

fn fixtures_can_authenticate(server: &Server) {
    let expected = [
        (
            "AGENT",
            "delegate:on_behalf delegate:user mcp:financial read:documents tool:execute_code tool:search_web \
             write:documents",
        ),
        ("SUBAGENT", "read:documents tool:search_web"),
        ("LOAD", "read:documents write:documents"),
    ];
    for (name, capabilities) in expected {
        let id = server.variable(&format!("{name}_CLIENT_ID"));
        let secret = server.variable(&format!("{name}_CLIENT_SECRET"));
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
        let body = server.acme().post("/oauth/token").form(&form).send().ok();
        assert_eq!(scopes(&body).join(" "), capabilities);
    }
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", server.variable("OTHER_CLIENT_ID")),
        ("client_secret", server.variable("OTHER_CLIENT_SECRET")),
    ];
    server.globex().post("/oauth/token").form(&form).send().ok();
}

fn scopes(body: &serde_json::Value) -> Vec<&str> {
    let mut scopes: Vec<&str> = text(&body["scope"]).split_ascii_whitespace().collect();
    scopes.sort_unstable();
    scopes
}
