//! Members of an agent that narrow it, or that say what this server does not do.

use lumoauth_tests::{Server, on_each_backend, strings, text};
use serde_json::{Value, json};

on_each_backend!(
    list_of_allowed_tools_narrows_everything_that_is_told,
    list_of_allowed_tools_narrows_tokens_that_are_out,
    list_of_allowed_tools_names_each_tool,
    list_of_allowed_tools_bounds_wildcards,
    delegation_policy_is_shown_and_only_that_is_accepted,
);

fn list_of_allowed_tools_narrows_everything_that_is_told(server: &Server) {
    let org = server.acme();
    let capabilities = ["tool:a", "tool:b", "read:c"];
    let agent = org.create_agent(json!({ "capabilities": capabilities, "allowedTools": ["a"] }));
    let body = agent.ask_token(&[]).ok();
    let mut scope: Vec<&str> = text(&body["scope"]).split(' ').collect();
    scope.sort_unstable();
    assert_eq!(scope, ["read:c", "tool:a"]);
    let token = text(&body["access_token"]);
    assert_eq!(strings(&agent.userinfo(token).ok()["capabilities"]), ["read:c", "tool:a"]);
    let me = org.get("/agents/me").bearer(token).send().ok();
    assert_eq!(strings(&me["capabilities"]), ["read:c", "tool:a"]);
    let seen = org.introspect(&agent, token);
    assert_eq!(seen["scope"], body["scope"]);
    agent.ask_token(&[("scope", "tool:b")]).refused(400, "invalid_scope");
    assert_eq!(agent.ask(token, "tool:a").ok()["allowed"], true);
    assert_eq!(agent.ask(token, "tool:b").ok()["allowed"], false);
}

fn list_of_allowed_tools_narrows_tokens_that_are_out(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(json!({ "capabilities": ["tool:a", "tool:b"] }));
    let mcp = org.mcp_server(json!({}));
    let token = agent.token();
    let bound = agent.exchange(&token, &[("resource", text(&mcp["resource_uri"]))]).ok();
    agent.admin("PATCH", "").json(json!({ "allowedTools": ["a"] })).send().ok();
    for token in [token.as_str(), text(&bound["access_token"])] {
        assert_eq!(org.introspect(&agent, token)["scope"], "tool:a");
    }
    assert_eq!(agent.userinfo(&token).ok()["capabilities"], json!(["tool:a"]));
    let again = agent.exchange(&token, &[("resource", text(&mcp["resource_uri"]))]).ok();
    assert_eq!(again["scope"], "tool:a");
}

fn list_of_allowed_tools_names_each_tool(server: &Server) {
    let agent = server.acme().create_agent(json!({ "allowedTools": ["a"] }));
    for tools in [json!(["*"]), json!(["tool:*"]), json!(["a", "b:*"]), json!("a"), json!([7]), json!([""])] {
        let response = agent.admin("PATCH", "").json(json!({ "allowedTools": tools })).send();
        response.refused(400, "validation_error");
        let body = json!({ "name": lumoauth_tests::unique("Agent"), "allowedTools": tools });
        agent.org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    let data = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!(data["allowedTools"], json!(["a"]));
}

fn delegation_policy_is_shown_and_only_that_is_accepted(server: &Server) {
    let agent = server.acme().agent(&[]);
    let policy = json!({ "consent": "required" });
    let shown = || agent.admin("GET", "").send().ok()["data"]["delegationPolicy"].clone();
    assert_eq!(shown(), policy);
    agent.admin("PATCH", "").json(json!({ "delegationPolicy": policy })).send().ok();
    for bad in [
        json!({ "consent": "none" }),
        json!({ "consent": "required", "maxDepth": 3 }),
        json!({ "consent": ["required"] }),
        json!({ "consent": Value::Null }),
        json!({ "Consent": "required" }),
        json!("required"),
        json!(["required"]),
        json!(true),
        json!(1),
    ] {
        let response = agent.admin("PATCH", "").json(json!({ "delegationPolicy": bad })).send();
        response.refused(400, "validation_error");
    }
    assert_eq!(shown(), policy);
}

fn list_of_allowed_tools_bounds_wildcards(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(json!({ "capabilities": ["tool:*"], "allowedTools": ["a"] }));
    let mcp = org.mcp_server(json!({ "scopes_supported": ["tool:a", "tool:b"] }));
    let target = ("resource", text(&mcp["resource_uri"]));
    let token = agent.token();
    agent.ask_token(&[("scope", "tool:b")]).refused(400, "invalid_scope");
    agent.ask_token(&[("scope", "tool:*")]).refused(400, "invalid_scope");
    agent.ask_token(&[("scope", "tool:b"), target]).refused(400, "invalid_scope");
    agent.exchange(&token, &[("scope", "tool:b"), target]).refused(400, "invalid_scope");
    assert_eq!(agent.ask_token(&[("scope", "tool:a"), target]).ok()["scope"], "tool:a");
    // Without a request the allowed part of the server's vocabulary is what the wildcard comes to.
    assert_eq!(agent.exchange(&token, &[target]).ok()["scope"], "tool:a");
}
