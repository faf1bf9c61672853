//! The Ask API over roles, policies and relations: the order, and the explanation.

use lumoauth_tests::{Server, on_each_backend, text, unique};
use serde_json::json;

use super::{ask, relate, some_action, some_policy, some_role};

on_each_backend!(
    a_role_allows_and_is_named,
    a_group_brings_its_roles,
    a_permission_without_a_role_allows,
    a_policy_that_denies_beats_a_capability,
    a_policy_that_allows_does_so_without_a_capability,
    a_relation_allows_and_shows_its_way,
    a_narrower_token_is_not_widened_by_a_role,
    an_allowed_tool_list_is_not_widened_by_a_role,
    claimed_facts_do_not_reach_policies,
    a_delegated_question_needs_agent_and_person,
    an_approval_is_where_to_ask_for_it,
    an_mcp_tool_is_decided_by_capability_policy_and_relation,
    every_answer_is_in_the_log_with_its_way,
    what_is_reserved_is_out_of_reach,
);

fn a_role_allows_and_is_named(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    assert_eq!(ask(&agent, &token, &action, json!({}))["decided_by"], "default");
    let role = some_role(&org, &[&action]);
    agent.admin("POST", "/roles").json(json!({ "roles": [role] })).send().ok();
    let answer = ask(&agent, &token, &action, json!({}));
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(true), &json!("role")));
    assert_eq!((&answer["path"][0]["role"], &answer["path"][0]["by"]), (&json!(role), &json!("role")));
    assert_eq!(answer["path"][0]["subject"], format!("agent:{}", agent.agent_id));
    // Taken away, it is gone at once.
    agent.admin("DELETE", &format!("/roles/{role}")).send().ok();
    assert_eq!(ask(&agent, &token, &action, json!({}))["allowed"], false);
}

fn a_group_brings_its_roles(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let agent = org.agent(&[]);
    let token = agent.token();
    let (inner, outer) = (unique("group"), unique("group"));
    let role = some_role(&org, &[&action]);
    org.admin("POST", &format!("/roles/{role}/groups")).json(json!({ "group": outer })).send().ok();
    relate(&org, &format!("group:{outer}#member@group:{inner}#member"));
    assert_eq!(ask(&agent, &token, &action, json!({}))["allowed"], false);
    relate(&org, &format!("group:{inner}#member@agent:{}", agent.slug));
    let answer = ask(&agent, &token, &action, json!({}));
    assert_eq!((&answer["allowed"], &answer["path"][0]["group"]), (&json!(true), &json!(outer)));
    assert_eq!(agent.userinfo(&token).ok()["roles"], json!([role]));
    org.admin("DELETE", &format!("/roles/{role}/groups/{outer}")).send().ok();
    assert_eq!(ask(&agent, &token, &action, json!({}))["allowed"], false);
}

fn a_permission_without_a_role_allows(server: &Server) {
    let (action, _) = some_action();
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    agent.admin("POST", "/permissions").json(json!({ "permissions": [action] })).send().ok();
    assert_eq!(ask(&agent, &token, &action, json!({}))["decided_by"], "role");
    let shown = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!((&shown["permissions"], &shown["roles"]), (&json!([action]), &json!([])));
    agent.admin("DELETE", &format!("/permissions/{action}")).send().ok();
    assert_eq!(ask(&agent, &token, &action, json!({}))["allowed"], false);
    agent.admin("DELETE", &format!("/permissions/{action}")).send().expect(404);
}

fn a_policy_that_denies_beats_a_capability(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let agent = org.agent(&[&action]);
    let token = agent.token();
    assert_eq!(ask(&agent, &token, &action, json!({}))["decided_by"], "capability");
    let conditions = json!({ "operator": "AND", "conditions": [
        { "subject": "environment.classification", "operator": "equals", "value": "secret" },
    ] });
    let policy = some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "deny", "conditions": conditions }),
    );
    let answer = ask(&agent, &token, &action, json!({ "classification": "secret" }));
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(false), &json!("abac")));
    assert_eq!(answer["path"][0]["policy"], json!({ "id": policy["id"], "name": policy["name"] }));
    assert_eq!(ask(&agent, &token, &action, json!({ "classification": "open" }))["allowed"], true);
    // Switched off it does nothing, and it does so again when it is on.
    let toggle = format!("/abac/policies/{}/toggle", policy["id"]);
    for expected in [true, false] {
        super::admin(&org, "POST", &toggle).send().ok();
        let answer = ask(&agent, &token, &action, json!({ "classification": "secret" }));
        assert_eq!(answer["allowed"], expected);
    }
}

fn a_policy_that_allows_does_so_without_a_capability(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let (agent, other) = (org.agent(&[]), org.agent(&[]));
    some_policy(
        &org,
        json!({ "target": { "resources": [kind], "actions": ["read"] }, "effect": "allow", "agentIds": [agent.slug] }),
    );
    assert_eq!(ask(&agent, &agent.token(), &action, json!({}))["decided_by"], "abac");
    assert_eq!(ask(&other, &other.token(), &action, json!({}))["allowed"], false);
    let typed = ask(&agent, &agent.token(), "read", json!({ "resource_type": kind }));
    assert_eq!(typed["allowed"], true);
}

fn a_relation_allows_and_shows_its_way(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let (document, team) = (format!("document:{}", unique("d")), unique("t"));
    let context = json!({ "object": document, "relation": "viewer" });
    assert_eq!(ask(&agent, &token, "x.y", context.clone())["allowed"], false);
    relate(&org, &format!("{document}#editor@team:{team}#member"));
    relate(&org, &format!("team:{team}#member@agent:{}", agent.slug));
    let answer = ask(&agent, &token, "x.y", context);
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(true), &json!("relation")));
    let way = json!([
        format!("{document}#editor@team:{team}#member"),
        format!("team:{team}#member@agent:{}", agent.agent_id)
    ]);
    assert_eq!(answer["path"][0]["tuples"], way);
    for context in [json!({ "object": "nonsense", "relation": "viewer" }), json!({ "object": document })] {
        assert_eq!(ask(&agent, &token, "x.y", context)["allowed"], false);
    }
}

fn a_narrower_token_is_not_widened_by_a_role(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let agent = org.agent(&["read:a", &action]);
    let role = some_role(&org, &[&action]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let narrow = agent.token_for("read:a");
    assert_eq!(ask(&agent, &narrow, &action, json!({}))["decided_by"], "token_scope");
    assert_eq!(ask(&agent, &agent.token(), &action, json!({}))["allowed"], true);
}

fn an_allowed_tool_list_is_not_widened_by_a_role(server: &Server) {
    let org = server.acme();
    let tool = format!("tool:{}", unique("t"));
    let agent = org.create_agent(json!({ "capabilities": ["tool:*"], "allowedTools": ["search_web"] }));
    let role = some_role(&org, &[&tool]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    assert_eq!(ask(&agent, &agent.token(), &tool, json!({}))["decided_by"], "allowed_tools");
}

fn claimed_facts_do_not_reach_policies(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let agent = org.agent(&[&action]);
    let conditions = json!({ "any": [
        { "attribute": "environment.ip", "operator": "in_cidr", "value": "10.0.0.0/8" },
        { "attribute": "environment.hour", "operator": "gt", "value": 23 },
        { "attribute": "environment.dayOfWeek", "operator": "gt", "value": 7 },
        { "attribute": "environment.requestMethod", "operator": "equals", "value": "DELETE" },
    ] });
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "*", "effect": "deny", "conditions": conditions }),
    );
    let spoofed = json!({ "ip": "10.1.2.3", "hour": 99, "dayOfWeek": 8, "requestMethod": "DELETE" });
    let answer = ask(&agent, &agent.token(), &action, spoofed.clone());
    assert_eq!(answer["allowed"], true, "{answer}");
    assert_eq!(answer["context"]["pep"], spoofed);
    let real =
        json!({ "any": [{ "attribute": "environment.ip", "operator": "in_cidr", "value": "127.0.0.0/8" }] });
    some_policy(&org, json!({ "resourceType": kind, "action": "*", "effect": "deny", "conditions": real }));
    assert_eq!(ask(&agent, &agent.token(), &action, json!({ "ip": "10.1.2.3" }))["decided_by"], "abac");
}

fn a_delegated_question_needs_agent_and_person(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let agent = org.delegate(&[&action]);
    let person = org.person();
    let user = person.allow(&agent, &format!("openid {action}"));
    let token = agent.acting_for(&user.access);
    assert_eq!(
        ask(&agent, &token, &action, json!({}))["allowed"],
        true,
        "what nobody lists is theirs by consent"
    );
    let role = some_role(&org, &[&action]);
    let answer = ask(&agent, &token, &action, json!({}));
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(false), &json!("default")));
    assert!(text(&answer["reason"]).contains("person"), "{answer}");
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    let answer = ask(&agent, &token, &action, json!({}));
    assert_eq!((&answer["allowed"], &answer["path"][0]["role"]), (&json!(true), &json!(role)), "{answer}");
    assert_eq!(answer["path"][0]["subject"], format!("user:{}", person.id));
    // A policy about the person stops whoever acts for them.
    let about = json!([{ "attribute": "user.email", "operator": "equals", "value": person.email }]);
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "deny", "conditions": about }),
    );
    assert_eq!(ask(&agent, &token, &action, json!({}))["decided_by"], "abac");
    assert_eq!(ask(&agent, &agent.token(), &action, json!({}))["allowed"], true);
}

fn an_approval_is_where_to_ask_for_it(server: &Server) {
    let policy = json!({ "require_approval_above_usd": 10 });
    let agent = server.acme().create_agent(json!({ "capabilities": ["pay:x"], "budgetPolicy": policy }));
    let answer = ask(&agent, &agent.token(), "pay:x", json!({ "cost_usd": 11 }));
    assert_eq!((&answer["allowed"], &answer["approval_required"]), (&json!(false), &json!(true)));
    let url = text(&answer["obligations"][0]["url"]);
    assert_eq!(url, format!("/orgs/{}/api/v1/agents/me/approvals", agent.org.slug()));
    assert!(ask(&agent, &agent.token(), "pay:x", json!({}))["obligations"].is_null());
}

fn an_mcp_tool_is_decided_by_capability_policy_and_relation(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let id = text(&mcp["server_id"]);
    let (agent, other) = (org.agent(&["tool:search"]), org.agent(&[]));
    let ask = |agent: &lumoauth_tests::Agent<'_>, body: serde_json::Value| {
        org.post("/agents/me/mcp/authorize").bearer(&agent.token()).json(body).send()
    };
    let search = json!({ "server_id": id, "tool": "search" });
    let answer = ask(&agent, search.clone()).ok();
    assert_eq!((&answer["allowed"], &answer["agent_id"]), (&json!(true), &json!(agent.agent_id)));
    assert_eq!(answer["resource"]["server_id"], id);
    let by_uri = json!({ "server_id": mcp["resource_uri"], "tool": "search" });
    assert_eq!(ask(&agent, by_uri).ok()["resource"]["server_id"], id);
    let unknown = json!({ "server_id": "https://unknown.example/mcp", "tool": "search" });
    ask(&agent, unknown).refused(404, "not_found");
    ask(&other, search.clone()).refused(403, "capability_denied");
    relate(&org, &format!("mcp_tool:{id}/search#invoke@agent:{}", other.slug));
    assert_eq!(ask(&other, search.clone()).ok()["decided_by"], "relation");
    ask(&other, json!({ "server_id": id, "tool": "pay" })).refused(403, "capability_denied");
    relate(&org, &format!("mcp_server:{id}#invoke@agent:{}", other.slug));
    assert_eq!(ask(&other, json!({ "server_id": id, "tool": "pay" })).ok()["allowed"], true);
    let conditions =
        json!([{ "attribute": "resource.id", "operator": "equals", "value": format!("{id}/search") }]);
    some_policy(
        &org,
        json!({ "resourceType": "mcp_tool", "action": "*", "effect": "deny", "conditions": conditions }),
    );
    assert_eq!(ask(&agent, search).refused(403, "capability_denied")["decided_by"], "abac");
    ask(&agent, json!({ "server_id": "mcp_000000000000000000000000", "tool": "x" }))
        .refused(404, "not_found");
    for body in [json!({}), json!({ "server_id": id }), json!({ "server_id": id, "tool": "a b" })] {
        ask(&agent, body).refused(400, "validation_error");
    }
    let closed = org.mcp_server(json!({ "allowed_agent_ids": [other.agent_id] }));
    let body = json!({ "server_id": closed["server_id"], "tool": "search" });
    ask(&agent, body).refused(404, "not_found");
}

fn every_answer_is_in_the_log_with_its_way(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let agent = org.agent(&[]);
    let role = some_role(&org, &[&action]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let answer = ask(&agent, &agent.token(), &action, json!({}));
    let entries = org.audit(&format!("auditId={}", text(&answer["audit_id"])));
    assert_eq!(entries.len(), 1);
    let context = &entries[0]["context"];
    assert_eq!((&context["decided_by"], &context["path"][0]["role"]), (&json!("role"), &json!(role)));
    let given = org.audit(&format!("action=role.assigned&targetId={}", agent.agent_id));
    assert_eq!(given[0]["context"]["roles"], json!([role]));
}

fn what_is_reserved_is_out_of_reach(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    for reserved in ["admin:agents", "delegate:user", "authz:check", "jit:approve"] {
        let body = json!({ "slug": reserved, "name": "x" });
        org.admin("POST", "/permissions").json(body).send().refused(400, "validation_error");
        let body = json!({ "permissions": [reserved] });
        agent.admin("POST", "/permissions").json(body).send().refused(400, "validation_error");
        some_policy(
            &org,
            json!({ "resourceType": "*", "action": reserved, "effect": "allow", "agentIds": [agent.slug] }),
        );
        assert_eq!(ask(&agent, &agent.token(), reserved, json!({}))["allowed"], false);
    }
}
