//! What decides where several things do, and what no other way of asking changes.

use lumoauth_tests::{Agent, Server, on_each_backend, text, unique};
use serde_json::{Value, json};

use super::{admin, ask, relate, some_action, some_policy, some_role};

on_each_backend!(
    another_type_changes_no_denial,
    another_form_brings_nothing_back,
    a_token_that_covers_one_form_is_enough,
    a_wildcard_is_no_question,
    nobody_is_asked_to_approve_what_is_denied,
    doors_of_permissions_see_the_request,
    a_person_by_number_is_that_person,
    an_mcp_server_is_open_to_its_invokers,
    a_list_of_permissions_is_what_checks_say,
);

/// In the older form.
fn ask_parts(agent: &Agent<'_>, token: &str, kind: &str, verb: &str) -> Value {
    let body = json!({ "context": { "resource_type": kind, "action": verb } });
    agent.org.post("/agents/ask").bearer(token).json(body).send().ok()
}

fn check(agent: &Agent<'_>, token: &str, body: Value) -> Value {
    agent.org.post("/authz/check").bearer(token).json(body).send().ok()
}

fn evaluate(agent: &Agent<'_>, kind: &str, name: &str) -> Value {
    let body = json!({
        "subject": { "type": "agent", "id": agent.agent_id },
        "action": { "name": name },
        "resource": { "type": kind, "id": "1" },
    });
    admin(&agent.org, "POST", "/authz/v1/evaluation").json(body).send().ok()["decision"].clone()
}

fn another_type_changes_no_denial(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let agent = org.agent(&[&action]);
    let token = agent.token();
    assert_eq!(evaluate(&agent, "x", &action), true);
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "deny" }));
    for context in [json!({}), json!({ "resource_type": "x" }), json!({ "resource_type": "" })] {
        assert_eq!(ask(&agent, &token, &action, context.clone())["decided_by"], "abac", "{context}");
        let body = json!({ "permission": action, "context": context });
        assert_eq!(check(&agent, &token, body)["allowed"], false, "{context}");
    }
    assert_eq!(evaluate(&agent, "x", &action), false);
    // Nor does it allow anything.
    let note = unique("note");
    some_policy(&org, json!({ "resourceType": note, "action": "*", "effect": "allow" }));
    let context = json!({ "resource_type": note });
    assert_eq!(ask(&agent, &token, "tool:execute_code", context.clone())["allowed"], false);
    assert_eq!(ask(&agent, &token, "read", context)["allowed"], true);
}

fn another_form_brings_nothing_back(server: &Server) {
    let org = server.acme();
    let tool = unique("t");
    let agent = org.create_agent(json!({ "capabilities": ["read:a"], "allowedTools": ["search_web"] }));
    let token = agent.token();
    some_policy(&org, json!({ "resourceType": "tool", "action": tool, "effect": "allow" }));
    assert_eq!(ask(&agent, &token, &format!("tool:{tool}"), json!({}))["decided_by"], "allowed_tools");
    let answer = ask_parts(&agent, &token, "tool", &tool);
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(false), &json!("allowed_tools")));
    assert_eq!(evaluate(&agent, "tool", &tool), false);

    let (action, kind) = some_action();
    let agent = org.agent(&[&action, "read:a"]);
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "allow" }));
    let answer = ask_parts(&agent, &agent.token_for("read:a"), &kind, "read");
    assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(false), &json!("token_scope")));
    assert_eq!(ask_parts(&agent, &agent.token(), &kind, "read")["allowed"], true);
}

fn a_token_that_covers_one_form_is_enough(server: &Server) {
    let (action, kind) = some_action();
    let agent = server.acme().agent(&["*"]);
    assert_eq!(ask_parts(&agent, &agent.token_for(&action), &kind, "read")["allowed"], true);
}

fn a_wildcard_is_no_question(server: &Server) {
    let org = server.acme();
    let kind = unique("doc");
    let all = format!("{kind}.*");
    let agent = org.agent(&[&all, "abac:read"]);
    let token = agent.token();
    assert_eq!(ask(&agent, &token, &all, json!({}))["allowed"], false);
    assert_eq!(check(&agent, &token, json!({ "permission": all }))["allowed"], false);
    let body = json!({ "resourceType": kind, "action": "*" });
    assert_eq!(org.post("/abac/check").bearer(&token).json(body).send().status, 400);
    assert_eq!(evaluate(&agent, &kind, "read"), true);
    let body = json!({
        "subject": { "type": "agent", "id": agent.agent_id },
        "action": { "name": "*" }, "resource": { "type": kind, "id": "1" },
    });
    assert_eq!(admin(&org, "POST", "/authz/v1/evaluation").json(body).send().status, 400);
}

fn nobody_is_asked_to_approve_what_is_denied(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let budget = json!({ "require_approval_above_usd": 10 });
    let agent = org.create_agent(json!({ "capabilities": [action], "budgetPolicy": budget }));
    let cost = json!({ "cost_usd": 11 });
    let answer = ask(&agent, &agent.token(), &action, cost.clone());
    assert_eq!((&answer["decided_by"], &answer["approval_required"]), (&json!("budget"), &json!(true)));
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "deny" }));
    let answer = ask(&agent, &agent.token(), &action, cost);
    assert_eq!((&answer["decided_by"], &answer["approval_required"]), (&json!("abac"), &Value::Null));
    assert!(answer["obligations"].is_null(), "{answer}");
}

/// What a policy says of addresses, methods and paths holds where permissions open doors.
fn doors_of_permissions_see_the_request(server: &Server) {
    let org = server.acme();
    let person = org.person();
    let role = some_role(&org, &["authz.check", "approvals.manage"]);
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    let token = person.in_person("openid approvals.manage");
    let expand = || {
        let body = json!({ "object": format!("document:{}", unique("d")), "relation": "viewer" });
        org.post("/zanzibar/expand").bearer(&token).json(body).send().status
    };
    let agent = org.delegate(&["read:a"]);
    let asked = org.person();
    asked.allow(&agent, "openid read:a");
    let task = unique("task");
    let body = json!({ "task_id": task, "reason": "r", "impact": "low", "on_behalf_of": asked.email });
    let opened = org.post("/agents/me/approvals").bearer(&agent.token()).json(body).send();
    let seen = || org.get("/approvals/pending").bearer(&token).send().ok()["meta"]["total"].clone();
    let deny = |kind: &str, action: &str, conditions: Value| {
        let mut conditions = conditions;
        let about = json!({ "attribute": "user.email", "operator": "equals", "value": person.email });
        conditions.as_array_mut().expect("a list").push(about);
        let policy =
            json!({ "resourceType": kind, "action": action, "effect": "deny", "conditions": conditions });
        some_policy(&org, policy);
    };
    let from = |operator: &str| json!({ "attribute": "environment.ip", "operator": operator, "value": ["127.0.0.0/8", "::1"] });
    let not_by = |method: &str| json!({ "attribute": "environment.requestMethod", "operator": "not_equals", "value": method });
    // Nothing of this is so.
    deny("authz", "check", json!([from("not_in_cidr")]));
    deny("authz", "check", json!([not_by("POST")]));
    deny("approvals", "manage", json!([from("not_in_cidr")]));
    deny("approvals", "manage", json!([not_by("GET")]));
    assert_eq!(expand(), 200);
    if opened.status == 201 {
        assert_ne!(seen(), 0);
    }
    deny("authz", "check", json!([from("in_cidr")]));
    deny("approvals", "manage", json!([from("in_cidr")]));
    assert_eq!(expand(), 403);
    assert_eq!(seen(), 0);
}

fn a_person_by_number_is_that_person(server: &Server) {
    let org = server.acme();
    let person = org.person();
    let number = org.admin("GET", &format!("/users/{}", person.id)).send().ok()["data"]["userId"].clone();
    let document = format!("document:{}", unique("d"));
    relate(&org, &format!("{document}#viewer@user:{number}"));
    let body = json!({ "object": document, "relation": "viewer", "subject": format!("user:{}", person.id) });
    assert_eq!(admin(&org, "POST", "/zanzibar/check").json(body).send().ok()["allowed"], true);
}

fn an_mcp_server_is_open_to_its_invokers(server: &Server) {
    let org = server.acme();
    let name = unique("ledger");
    let mcp = org.mcp_server(json!({ "aliases": [format!("urn:mcp:{name}")] }));
    let id = text(&mcp["server_id"]);
    let ask = |agent: &Agent<'_>, tool: &str| {
        let body = json!({ "server_id": id, "tool": tool });
        org.post("/agents/me/mcp/authorize").bearer(&agent.token()).json(body).send()
    };
    let (holder, invoker) = (org.agent(&[&format!("mcp:{name}")]), org.agent(&[]));
    assert_eq!(ask(&holder, "pay").ok()["decided_by"], "capability");
    let refused = ask(&invoker, "pay").refused(403, "capability_denied");
    assert_eq!((&refused["allowed"], &refused["agent_id"]), (&json!(false), &json!(invoker.agent_id)));
    assert_eq!(
        (&refused["resource"]["server_id"], &refused["resource"]["tool"]),
        (&json!(id), &json!("pay"))
    );
    relate(&org, &format!("mcp_tool:{id}/pay#invoker@agent:{}", invoker.slug));
    assert_eq!(ask(&invoker, "pay").ok()["decided_by"], "relation");
    ask(&invoker, "read").refused(403, "capability_denied");
    relate(&org, &format!("mcp_server:{id}#invoker@agent:{}", invoker.slug));
    assert_eq!(ask(&invoker, "read").ok()["allowed"], true);
    // A policy about the tool is one, by whatever type it names it; and a list of tools bounds all of it.
    let tool = unique("t");
    some_policy(&org, json!({ "resourceType": "mcp_tool", "action": tool, "effect": "deny" }));
    some_policy(&org, json!({ "resourceType": "tool", "action": format!("{tool}2"), "effect": "deny" }));
    for denied in [tool.clone(), format!("{tool}2")] {
        assert_eq!(ask(&holder, &denied).refused(403, "capability_denied")["decided_by"], "abac");
    }
    let capabilities = json!({ "capabilities": [format!("mcp:{name}")], "allowedTools": ["search"] });
    let bounded = org.create_agent(capabilities);
    assert_eq!(ask(&bounded, "pay").refused(403, "capability_denied")["decided_by"], "allowed_tools");
    assert_eq!(ask(&bounded, "search").ok()["allowed"], true);
}

fn a_list_of_permissions_is_what_checks_say(server: &Server) {
    let org = server.acme();
    let ((by_role, denied), (plain, _)) = (some_action(), some_action());
    let agent = org.delegate(&[&by_role, &plain, "read:a"]);
    let role = some_role(&org, &[&by_role]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let list = |token: &str| -> Vec<String> {
        let answer = org.get("/authz/permissions").bearer(token).send().ok();
        let all = answer["permissions"].as_array().expect("a list").clone();
        all.iter().map(|permission| text(&permission["slug"]).to_owned()).collect()
    };
    let checks =
        |token: &str, slug: &str| check(&agent, token, json!({ "permission": slug }))["allowed"] == true;
    let user = org.person().allow(&agent, &format!("openid {by_role} {plain}"));
    let (whole, narrow, acting) = (agent.token(), agent.token_for("read:a"), agent.acting_for(&user.access));
    // By role it is not in a narrower token, and the person has it by no role.
    for (token, expected) in [(&whole, [true, true]), (&narrow, [false, false]), (&acting, [false, true])] {
        let listed = list(token);
        for (slug, expected) in [&by_role, &plain].into_iter().zip(expected) {
            assert_eq!(
                (listed.contains(slug), checks(token, slug)),
                (expected, expected),
                "{slug} {listed:?}"
            );
        }
    }
    some_policy(&org, json!({ "resourceType": denied, "action": "read", "effect": "deny" }));
    assert!(!list(&whole).contains(&by_role) && list(&whole).contains(&plain));

    // Administrators have those of the system in person, and by policy none.
    let person = org.person_with(json!({ "isAdmin": true }));
    let token = person.in_person("openid admin");
    let all = ["abac.manage", "approvals.manage", "authz.check", "jit.approve", "policies.view"];
    let listed = list(&token);
    for slug in all {
        assert!(listed.iter().any(|it| it == slug) && checks(&token, slug), "{slug} {listed:?}");
    }
    let about = json!([{ "attribute": "user.email", "operator": "equals", "value": person.email }]);
    some_policy(
        &org,
        json!({ "resourceType": "jit", "action": "approve", "effect": "deny", "conditions": about }),
    );
    assert!(!list(&token).iter().any(|it| it == "jit.approve") && !checks(&token, "jit.approve"));
}
