//! The Ask API (contract 2.6).

use lumoauth_tests::{Server, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    granted_action_is_allowed,
    missing_capability_is_a_decision_not_an_error,
    wildcard_capability_allows,
    token_narrower_than_the_agent_denies,
    allowed_tools_bound_tool_actions,
    callers_values_move_under_pep,
    context_is_echoed,
    old_question_form_is_mapped,
    action_is_required,
    action_must_be_a_string,
    every_call_is_audited_under_its_id,
    model_outside_the_list_is_not_allowed,
    cost_above_the_threshold_needs_approval,
    caller_without_a_credential_is_refused,
);

fn granted_action_is_allowed(server: &Server) {
    let agent = server.acme().agent(&["document.read"]);
    let body = agent.ask(&agent.token(), "document.read").ok();
    assert_eq!((&body["allowed"], &body["action"]), (&json!(true), &json!("document.read")));
    assert_eq!(body["decided_by"], "capability");
    assert!(!text(&body["reason"]).is_empty() && !text(&body["audit_id"]).is_empty());
}

fn missing_capability_is_a_decision_not_an_error(server: &Server) {
    let agent = server.acme().agent(&["document.read"]);
    let token = agent.token();
    // No translation between `verb:object` and `resource.verb`, no prefix match, no case folding.
    for action in
        ["document.write", "read:document", "document.rea", "document.read.all", "Document.read", "*"]
    {
        let body = agent.ask(&token, action).ok();
        assert_eq!(body["allowed"], false, "{action}");
        assert!(!text(&body["reason"]).is_empty());
    }
}

fn wildcard_capability_allows(server: &Server) {
    let agent = server.acme().agent(&["read:*", "document.*"]);
    let token = agent.token();
    for (action, allowed) in
        [("read:x", true), ("read:a:b", true), ("document.edit", true), ("read:", false), ("reads:x", false)]
    {
        let response = agent.ask(&token, action);
        assert!(
            response.status == 400 && !allowed || response.ok()["allowed"] == allowed,
            "{action}: {response}"
        );
    }
}

fn token_narrower_than_the_agent_denies(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let token = agent.token_for("read:a");
    assert_eq!(agent.ask(&token, "read:a").ok()["allowed"], true);
    assert_eq!(agent.ask(&token, "write:b").ok()["allowed"], false);
}

fn allowed_tools_bound_tool_actions(server: &Server) {
    let agent =
        server.acme().create_agent(json!({ "capabilities": ["tool:*"], "allowedTools": ["search_web"] }));
    let token = agent.token();
    assert_eq!(agent.ask(&token, "tool:search_web").ok()["allowed"], true);
    assert_eq!(agent.ask(&token, "tool:execute_code").ok()["allowed"], false);
}

fn callers_values_move_under_pep(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let spoofed =
        json!({ "ip": "10.9.8.7", "userAgent": "root", "requestMethod": "X", "requestPath": "/y", "k": 1 });
    let body = json!({ "action": "read:a", "context": spoofed });
    let request = agent.org.post("/agents/ask").bearer(&agent.token()).header("User-Agent", "harness/1");
    let context = request.json(body).send().ok()["context"].clone();
    assert_eq!(context["k"], 1);
    assert_eq!(context["ip"], "127.0.0.1");
    assert_eq!(context["userAgent"], "harness/1");
    assert_eq!(context["requestMethod"], "POST");
    assert!(text(&context["requestPath"]).ends_with("/agents/ask"), "{context}");
    for key in ["ip", "userAgent", "requestMethod", "requestPath"] {
        assert_eq!(context["pep"][key], spoofed[key], "{context}");
    }
}

fn context_is_echoed(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body = json!({ "action": "read:a", "context": { "id": "d-1", "nested": { "a": [1, 2] } } });
    let answer = agent.org.post("/agents/ask").bearer(&agent.token()).json(body).send().ok();
    assert_eq!(
        (&answer["context"]["id"], &answer["context"]["nested"]),
        (&json!("d-1"), &json!({ "a": [1, 2] }))
    );
}

fn old_question_form_is_mapped(server: &Server) {
    let agent = server.acme().agent(&["document.read"]);
    let token = agent.token();
    let ask = |context: Value| {
        let body = json!({ "question": "May I?", "context": context });
        agent.org.post("/agents/ask").bearer(&token).json(body).send()
    };
    let body = ask(json!({ "resource_type": "document", "action": "read" })).ok();
    assert_eq!((&body["allowed"], &body["confidence"]), (&json!(true), &json!(1.0)));
    assert!(body["explanation"].is_string() && body["required_scopes"].is_array(), "{body}");
    ask(json!({ "resource_type": "document" })).refused(400, "invalid_request");
}

fn action_is_required(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for body in
        [json!({}), json!({ "action": "" }), json!({ "action": null }), json!({ "question": "May I?" })]
    {
        agent.org.post("/agents/ask").bearer(&token).json(body).send().expect(400).refused_somehow();
    }
}

fn action_must_be_a_string(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for body in [
        json!({ "action": 1 }),
        json!({ "action": ["read:a"] }),
        json!({ "action": { "a": 1 } }),
        json!({ "action": "x".repeat(5000) }),
        json!({ "action": "read:a", "context": "text" }),
        json!({ "action": "read:a", "context": [1] }),
        json!([]),
        json!("read:a"),
        Value::Null,
    ] {
        let response = agent.org.post("/agents/ask").bearer(&token).json(body.clone()).send();
        // An overlong or odd action may also be a plain denial; it is never allowed and never a fault.
        if response.status == 200 {
            assert_eq!(response.json()["allowed"], false, "{body}");
        } else {
            response.expect(400).refused_somehow();
        }
    }
}

fn every_call_is_audited_under_its_id(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for (action, decision) in [("read:a", true), ("write:b", false)] {
        let body = agent.ask(&token, action).ok();
        let entries = agent.org.audit(&format!("auditId={}", text(&body["audit_id"])));
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(
            (&entries[0]["action"], &entries[0]["actorId"]),
            (&json!("agent.action"), &json!(agent.agent_id))
        );
        let detail = agent.org.admin("GET", &format!("/audit-logs/{}", entries[0]["id"])).send().ok();
        let context = &detail["data"]["context"];
        assert_eq!((&context["action"], &context["audit_id"]), (&json!(action), &body["audit_id"]));
        assert!(context["reason"].is_string() && !context["decision"].is_null(), "{detail} for {decision}");
    }
}

fn model_outside_the_list_is_not_allowed(server: &Server) {
    let policy = json!({ "allowed_models": ["gpt-4"] });
    let agent = server.acme().create_agent(json!({ "capabilities": ["llm:call"], "budgetPolicy": policy }));
    let token = agent.token();
    for (model, allowed) in [("gpt-4", true), ("gpt-4-turbo", false), ("GPT-4", false), ("gpt", false)] {
        let body = json!({ "action": "llm:call", "context": { "model": model } });
        let answer = agent.org.post("/agents/ask").bearer(&token).json(body).send().ok();
        assert_eq!(answer["allowed"], allowed, "{model}");
    }
}

fn cost_above_the_threshold_needs_approval(server: &Server) {
    let policy = json!({ "require_approval_above_usd": 10 });
    let agent = server.acme().create_agent(json!({ "capabilities": ["pay:x"], "budgetPolicy": policy }));
    let token = agent.token();
    for (cost, allowed) in [(json!(10), true), (json!(10.000_001), false), (json!(500), false)] {
        let body = json!({ "action": "pay:x", "context": { "cost_usd": cost } });
        let answer = agent.org.post("/agents/ask").bearer(&token).json(body).send().ok();
        assert_eq!(answer["allowed"], allowed, "{cost}");
        assert_eq!(answer["approval_required"] == true, !allowed, "{answer}");
    }
}

fn caller_without_a_credential_is_refused(server: &Server) {
    let response = server.acme().post("/agents/ask").json(json!({ "action": "read:a" })).send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
}
