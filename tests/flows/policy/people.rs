//! People: what they hold by role, by consent and as administrators; and every credential at every door of policy.

use lumoauth_tests::{Server, on_each_backend, unique};
use serde_json::{Value, json};

use super::{admin, some_action, some_role};

on_each_backend!(
    a_listed_permission_is_held_by_role_and_not_by_consent,
    an_administrator_holds_what_administration_is,
    a_token_in_an_agents_hands_is_worth_less,
    doors_of_policy_are_for_their_keys,
);

fn check(server: &Server, token: &str, permission: &str) -> bool {
    let body = json!({ "permission": permission });
    server.request("POST", "/api/v1/authz/check").bearer(token).json(body).send().ok()["allowed"] == true
}

fn a_listed_permission_is_held_by_role_and_not_by_consent(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let person = org.person();
    let scoped = person.in_person(&action);
    let role = some_role(&org, &[&action]);
    assert!(!check(server, &scoped, &action));
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    assert!(check(server, &scoped, &action));
    assert!(check(server, &person.in_person("openid"), &action), "in person a role is enough");
}

fn an_administrator_holds_what_administration_is(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    some_role(&org, &[&action]);
    let boss = org.person_with(json!({ "isAdmin": true }));
    let token = boss.in_person("openid");
    for (permission, expected) in [
        ("abac.manage", true),
        ("policies.view", true),
        ("approvals.manage", true),
        ("jit.approve", true),
        (action.as_str(), false),
    ] {
        assert_eq!(check(server, &token, permission), expected, "{permission}");
    }
    let person = org.person().in_person("openid");
    assert!(!check(server, &person, "abac.manage"));
}

fn a_token_in_an_agents_hands_is_worth_less(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let role = some_role(&org, &[&action]);
    let person = org.person_with(json!({ "isAdmin": true }));
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    let agent = org.delegate(&["read:a"]);
    let user = person.allow(&agent, "openid read:a");
    assert!(!check(server, &user.access, &action), "nobody agreed to that");
    assert!(!check(server, &user.access, "abac.manage"));
    assert!(check(server, &person.in_person("openid"), &action));
    let able = org.delegate(&[&action]);
    assert!(check(server, &person.allow(&able, &format!("openid {action}")).access, &action));
}

fn doors_of_policy_are_for_their_keys(server: &Server) {
    let org = server.acme();
    let (agent, person) = (org.agent(&["*", "admin:roles", "admin:write"]), org.person());
    let routes = [
        ("GET", "/abac/policies"),
        ("POST", "/abac/policies"),
        ("GET", "/abac/policies/1"),
        ("PUT", "/abac/policies/1"),
        ("DELETE", "/abac/policies/1"),
        ("POST", "/abac/policies/1/toggle"),
        ("GET", "/abac/attributes"),
        ("POST", "/abac/attributes"),
        ("DELETE", "/abac/attributes/1"),
        ("GET", "/zanzibar/tuples"),
        ("POST", "/zanzibar/tuples"),
        ("DELETE", "/zanzibar/tuples"),
        ("GET", "/zanzibar/namespaces"),
        ("PUT", "/zanzibar/namespaces/x"),
        ("DELETE", "/zanzibar/namespaces/x"),
        ("GET", "/admin/roles"),
        ("POST", "/admin/roles"),
        ("GET", "/admin/permissions"),
        ("POST", "/admin/permissions"),
        ("POST", "/admin/roles/x/users"),
        ("POST", "/admin/roles/x/groups"),
    ];
    let agents = format!("/admin/agents/{}/roles", agent.agent_id);
    let all = routes.iter().copied().chain([("POST", agents.as_str()), ("GET", agents.as_str())]);
    let name = unique("never");
    let body: Value = json!({
        "name": name, "slug": name, "effect": "allow", "resourceType": "*", "action": "*", "roles": ["x"],
        "tuple": format!("document:{name}#viewer@user:a"), "relations": { "a": "this" }, "attributeType": "user",
    });
    let (of_agent, of_person) = (agent.token(), person.in_person("openid"));
    let boss = org.person_with(json!({ "isAdmin": true }));
    let helper = org.delegate(&["read:a"]);
    let through_an_agent = boss.allow(&helper, "openid read:a").access;
    let other_area =
        org.api_key(&["admin:agents", "admin:users", "admin:audit", "admin:clients", "authz:check"]);
    let reader = org.api_key(&["admin:read"]);
    for (method, path) in all {
        let send = |request: lumoauth_tests::Request| {
            if method == "GET" { request.send() } else { request.json(body.clone()).send() }
        };
        assert_eq!(send(org.request(method, path)).status, 401, "{method} {path}");
        for token in [&of_agent, &of_person, &through_an_agent] {
            assert_eq!(send(org.request(method, path).bearer(token)).status, 403, "{method} {path}");
        }
        assert_eq!(send(org.request(method, path).api_key(&other_area)).status, 403, "{method} {path}");
        assert_eq!(
            send(org.request(method, path).api_key(server.globex().key())).status,
            403,
            "{method} {path}"
        );
        let read = send(org.request(method, path).api_key(&reader)).status;
        assert_eq!(read == 403, method != "GET", "{method} {path}: {read}");
    }
    let found = admin(&org, "GET", &format!("/zanzibar/tuples?object=document:{name}")).send().ok();
    assert_eq!(found["meta"]["total"], 0);
    // An administrator in person, by an application with the scope.
    let token = boss.in_person("admin:roles");
    org.request("GET", "/admin/roles").bearer(&token).send().ok();
}
