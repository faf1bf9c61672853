//! Attribute policies: their administration and their checks.

use lumoauth_tests::{Agent, Server, on_each_backend, text, unique};
use serde_json::{Value, json};

use super::{admin, some_policy};

on_each_backend!(
    a_policy_is_made_read_changed_and_removed,
    policies_that_make_no_sense_are_refused,
    a_check_says_what_matched,
    denial_overrides_and_the_default_is_denial,
    the_old_form_of_a_check_is_understood,
    a_check_about_somebody_else_is_about_them,
    a_policy_for_an_agent_never_becomes_one_for_everybody,
    several_checks_are_answered_in_order,
    checks_are_for_tokens_with_the_scope,
    a_pattern_of_death_is_answered_at_once,
    checks_of_an_agent_are_charged_and_logged,
);

fn a_policy_is_made_read_changed_and_removed(server: &Server) {
    let org = server.acme();
    let kind = unique("kind");
    let conditions = json!({ "operator": "OR", "conditions": [
        { "subject": "user.department", "operator": "equals", "value": "law" },
        { "operator": "AND", "conditions": [{ "subject": "agent.roles", "operator": "contains", "value": "x" }] },
    ] });
    let made = some_policy(
        &org,
        json!({
            "name": "Law", "resourceType": kind, "action": "read", "effect": "allow", "priority": 10,
            "conditions": conditions,
        }),
    );
    assert!(made["id"].is_u64() && made["isActive"] == true, "{made}");
    assert_eq!(
        (&made["conditions"], &made["resourceType"], &made["priority"]),
        (&conditions, &json!(kind), &json!(10))
    );
    let path = format!("/abac/policies/{}", made["id"]);
    assert_eq!(admin(&org, "GET", &path).send().ok()["data"], made);
    let listed = admin(&org, "GET", "/abac/policies?search=law&limit=100").send().ok();
    assert!(listed["data"].as_array().expect("a list").contains(&made));
    let changed = admin(&org, "PUT", &path).json(json!({ "effect": "deny", "priority": 1000 })).send().ok();
    assert_eq!((&changed["data"]["effect"], &changed["data"]["priority"]), (&json!("deny"), &json!(1000)));
    assert_eq!(changed["data"]["conditions"], conditions);
    admin(&org, "POST", &format!("{path}/toggle")).send().ok();
    assert_eq!(admin(&org, "GET", &path).send().ok()["data"]["isActive"], false);
    admin(&org, "DELETE", &path).send().ok();
    for method in ["GET", "DELETE"] {
        admin(&org, method, &path).send().refused(404, "not_found");
    }
    let kinds: Vec<_> =
        org.audit(&format!("targetId={}", made["id"])).iter().map(|it| it["eventType"].clone()).collect();
    assert_eq!(kinds, ["policy.deleted", "policy.updated", "policy.updated", "policy.created"]);
}

fn policies_that_make_no_sense_are_refused(server: &Server) {
    let org = server.acme();
    let base = json!({ "name": "x", "resourceType": "x", "action": "x", "effect": "allow" });
    let deep =
        (0..20).fold(json!({ "attribute": "user.a", "operator": "exists" }), |it, _| json!({ "all": [it] }));
    for change in [
        json!({ "name": null }),
        json!({ "name": "" }),
        json!({ "effect": "maybe" }),
        json!({ "effect": null }),
        json!({ "resourceType": null }),
        json!({ "action": null }),
        json!({ "resourceType": "a b" }),
        json!({ "action": "read*" }),
        json!({ "target": { "resources": ["*"] } }),
        json!({ "target": { "resources": ["y", "x"] } }),
        json!({ "target": { "actions": ["*"] } }),
        json!({ "resourceType": "*", "target": { "resources": ["x"] } }),
        json!({ "action": "*", "target": { "actions": ["x"] } }),
        json!({ "priority": 1001 }),
        json!({ "agentIds": ["nobody-of-that-name"] }),
        json!({ "agentIds": [] }),
        json!({ "conditions": { "all": [{ "attribute": "password", "operator": "equals", "value": 1 }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "matches", "value": "(" }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "matches", "value": "(a{999}){999}" }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "resembles", "value": 1 }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "equals", "value": "$5" }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "in", "value": ["$user.id"] }] } }),
        json!({ "conditions": { "all": [{ "attribute": "user.a", "operator": "equals", "value": { "b": ["$user.id"] } }] } }),
        json!({ "conditions": deep }),
        json!({ "conditions": "true" }),
    ] {
        let mut body = base.clone();
        for (name, value) in change.as_object().expect("members") {
            body[name] = value.clone();
        }
        admin(&org, "POST", "/abac/policies").json(body).send().refused(400, "validation_error");
    }
    admin(&org, "POST", "/abac/policies").json(json!([])).send().refused_somehow();
    let mut agreed = base.clone();
    agreed["target"] = json!({ "resources": ["x", "y"], "actions": ["x"] });
    assert_eq!(some_policy(&org, agreed.clone())["target"], agreed["target"]);
}

fn a_check_says_what_matched(server: &Server) {
    let org = server.acme();
    let (kind, agent) = (unique("kind"), org.agent(&[]));
    let conditions =
        json!({ "all": [{ "attribute": "environment.purpose", "operator": "in", "value": ["audit"] }] });
    let policy = some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "allow", "conditions": conditions }),
    );
    let token = agent.token();
    let check = |environment: Value| {
        let body = json!({ "resourceType": kind, "action": "read", "resourceId": "d-1", "environment": environment });
        org.post("/abac/check").bearer(&token).json(body).send().ok()
    };
    let yes = check(json!({ "purpose": "audit" }));
    assert_eq!((&yes["allowed"], &yes["decision"]), (&json!(true), &json!("allow")));
    assert_eq!(yes["matchedPolicies"], json!([{ "id": policy["id"], "name": policy["name"] }]));
    assert_eq!(
        (&yes["resourceType"], &yes["action"], &yes["resourceId"]),
        (&json!(kind), &json!("read"), &json!("d-1"))
    );
    let no = check(json!({ "purpose": "fun" }));
    assert_eq!(
        (&no["allowed"], &no["decision"], &no["matchedPolicies"]),
        (&json!(false), &json!("deny"), &json!([]))
    );
    // Without an organization in the path as well.
    let body = json!({ "resourceType": kind, "action": "read", "environment": { "purpose": "audit" } });
    let answer = server.request("POST", "/api/v1/abac/check").bearer(&token).json(body).send().ok();
    assert_eq!(answer["allowed"], true);
}

fn denial_overrides_and_the_default_is_denial(server: &Server) {
    let org = server.acme();
    let (kind, agent) = (unique("kind"), org.agent(&[]));
    let token = agent.token();
    let allowed = || {
        let body = json!({ "resourceType": kind, "action": "write" });
        org.post("/abac/check").bearer(&token).json(body).send().ok()
    };
    assert_eq!(allowed()["allowed"], false);
    some_policy(&org, json!({ "resourceType": kind, "action": "*", "effect": "allow", "priority": 1000 }));
    assert_eq!(allowed()["allowed"], true);
    let deny = some_policy(
        &org,
        json!({ "resourceType": kind, "action": "write", "effect": "deny", "priority": 0 }),
    );
    let answer = allowed();
    assert_eq!((&answer["allowed"], &answer["matchedPolicies"][0]["id"]), (&json!(false), &deny["id"]));
    admin(&org, "DELETE", &format!("/abac/policies/{}", deny["id"])).send().ok();
    assert_eq!(allowed()["allowed"], true);
    // What must not be something and is not known denies.
    let unknown = json!([{ "attribute": "environment.country", "operator": "not_in", "value": ["CH"] }]);
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "write", "effect": "deny", "conditions": unknown }),
    );
    assert_eq!(allowed()["allowed"], false);
}

fn the_old_form_of_a_check_is_understood(server: &Server) {
    let org = server.acme();
    let (kind, agent) = (unique("kind"), org.agent(&[]));
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "allow" }));
    let subject = json!({ "type": "agent", "id": agent.agent_id, "isAdmin": true });
    let body = json!({ "subject": subject, "resource": { "type": kind, "id": 7 }, "action": "read" });
    let answer = org.post("/abac/check").bearer(&agent.token()).json(body).send().ok();
    assert_eq!((&answer["decision"], &answer["resourceId"]), (&json!("allow"), &json!("7")));
    let purpose = json!({ "a": 1 });
    let twice = |other: Value| {
        let body =
            json!({ "resourceType": kind, "action": "read", "environment": purpose, "context": other });
        org.post("/abac/check").bearer(&agent.token()).json(body).send()
    };
    twice(purpose.clone()).ok();
    twice(json!({ "a": 2 })).refused(400, "validation_error");
    for body in [json!({}), json!({ "resourceType": kind }), json!({ "resourceType": 7, "action": "read" })] {
        org.post("/abac/check").bearer(&agent.token()).json(body).send().refused(400, "validation_error");
    }
}

fn a_check_about_somebody_else_is_about_them(server: &Server) {
    let org = server.acme();
    let (kind, boss, agent) = (unique("kind"), org.person_with(json!({ "isAdmin": true })), org.agent(&[]));
    let (person, other) = (org.person(), org.agent(&[]));
    let role = super::some_role(&org, &[]);
    let conditions = json!([{ "attribute": "user.roles", "operator": "contains", "value": role }]);
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "allow", "conditions": conditions }),
    );
    org.admin("POST", &format!("/users/{}/roles", boss.id)).json(json!({ "role": role })).send().ok();
    let check = |token: &str, subject: Value| {
        let body = json!({ "subject": subject, "resource": { "type": kind, "id": "1" }, "action": "read" });
        org.post("/abac/check").bearer(token).json(body).send()
    };
    let of = |kind: &str, id: &str| json!({ "type": kind, "id": id });
    // The caller may; whom it asks about may not.
    let may_ask = boss.in_person("abac:read authz:check");
    let own = check(&may_ask, of("user", &boss.id)).ok();
    assert_eq!((&own["allowed"], &own["user_id"]), (&json!(true), &json!(boss.id)));
    let theirs = check(&may_ask, of("user", &person.id)).ok();
    assert_eq!((&theirs["allowed"], &theirs["user_id"]), (&json!(false), &json!(person.id)));
    assert_eq!(check(&may_ask, of("agent", &other.agent_id)).ok()["allowed"], false);
    assert_eq!(check(&may_ask, of("user", "nobody")).refused(404, "not_found")["code"], "SUBJECT_NOT_FOUND");
    check(&may_ask, json!({ "id": person.id })).refused_somehow();
    let bulk = json!({
        "subject": of("user", &person.id),
        "checks": [
            { "resourceType": kind, "action": "read" },
            { "resourceType": kind, "action": "read", "subject": of("user", &boss.id) },
        ],
    });
    let answer = org.post("/abac/check-bulk").bearer(&may_ask).json(bulk).send().ok();
    assert_eq!((&answer["user_id"], &answer["results"][0]["allowed"]), (&json!(person.id), &json!(false)));
    assert!(answer["results"][1]["error"].is_string(), "{answer}");
    // Without leave nobody asks about others.
    let plain = person.in_person("abac:read");
    check(&plain, of("user", &person.id)).ok();
    let refused = check(&plain, of("user", &boss.id)).refused(403, "forbidden");
    assert_eq!(refused["code"], "INSUFFICIENT_PERMISSIONS");
    check(&agent.token(), of("agent", &other.agent_id)).refused(403, "forbidden");
}

fn a_policy_for_an_agent_never_becomes_one_for_everybody(server: &Server) {
    let org = server.acme();
    let (kind, agent, other) = (unique("kind"), org.agent(&[]), org.agent(&[]));
    let members = json!({
        "target": { "resources": [kind, unique("kind")], "actions": ["read"] }, "effect": "allow",
        "agentIds": [agent.slug], "conditions": [],
    });
    let made = some_policy(&org, members);
    let path = format!("/abac/policies/{}", made["id"]);
    let allowed = |agent: &Agent<'_>| {
        let body = json!({ "resourceType": kind, "action": "read" });
        org.post("/abac/check").bearer(&agent.token()).json(body).send().ok()["allowed"] == true
    };
    assert_eq!((allowed(&agent), allowed(&other)), (true, false));
    for method in ["PUT", "PATCH"] {
        admin(&org, method, &path).json(json!({ "agentIds": [] })).send().refused(400, "validation_error");
    }
    assert_eq!((allowed(&agent), allowed(&other)), (true, false));
    let change = |body: Value| admin(&org, "PUT", &path).json(body).send();
    // What was read is written again, and an edit of it counts.
    assert_eq!(change(made.clone()).ok()["data"], made);
    let mut edited = made.clone();
    edited["resourceType"] = unique("kind").into();
    let renamed = change(edited.clone()).ok()["data"].clone();
    assert_eq!(renamed["target"]["resources"], json!([edited["resourceType"]]));
    let mut edited = renamed.clone();
    edited["target"]["resources"] = json!([kind]);
    assert_eq!(change(edited.clone()).ok()["data"]["resourceType"], kind);
    edited["resourceType"] = unique("kind").into();
    edited["target"]["resources"] = json!([unique("kind")]);
    change(edited).refused(400, "validation_error");
    change(json!({ "agentIds": [other.agent_id] })).ok();
    assert_eq!((allowed(&agent), allowed(&other)), (false, true));
    // One about everybody says so, and can be written again as well.
    let open = some_policy(&org, json!({ "resourceType": kind, "action": "write", "effect": "allow" }));
    assert!(open["agentIds"].is_null() && open["conditions"] == json!({}), "{open}");
    admin(&org, "PUT", &format!("/abac/policies/{}", open["id"])).json(open).send().ok();
}

fn several_checks_are_answered_in_order(server: &Server) {
    let org = server.acme();
    let (kind, agent) = (unique("kind"), org.agent(&[]));
    let token = agent.token();
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "allow" }));
    let bulk = |body: Value| org.post("/abac/check-bulk").bearer(&token).json(body).send();
    let one = |action: &str| json!({ "resourceType": kind, "action": action, "resourceId": null });
    let answer = bulk(json!({ "checks": [one("read"), one("write"), { "action": "read" }, 7] })).ok();
    let results = answer["results"].as_array().expect("a list");
    let allowed: Vec<_> = results.iter().map(|it| it["allowed"].clone()).collect();
    assert_eq!(allowed, [true, false, false, false]);
    assert!(
        results[2]["error"].is_string() && results[3]["error"].is_string() && results[0]["error"].is_null()
    );
    assert_eq!(results[3]["index"], 3);
    for body in [
        json!({ "requests": [one("read")] }),
        json!({ "checks": [] }),
        json!({ "checks": vec![one("read"); 101] }),
    ] {
        bulk(body).refused_somehow();
    }
    assert_eq!(
        bulk(json!({ "checks": vec![one("read"); 100] })).ok()["results"].as_array().expect("a list").len(),
        100
    );
}

fn checks_are_for_tokens_with_the_scope(server: &Server) {
    let org = server.acme();
    let body = json!({ "resourceType": "x", "action": "y" });
    org.post("/abac/check").api_key(org.key()).json(body.clone()).send().refused(401, "invalid_token");
    org.post("/abac/check").json(body.clone()).send().refused(401, "invalid_token");
    let person = org.person();
    let refused = org.post("/abac/check").bearer(&person.in_person("openid")).json(body.clone()).send();
    assert_eq!(refused.refused(403, "forbidden")["details"]["required_scopes"], json!(["abac:read"]));
    let answer = org.post("/abac/check").bearer(&person.in_person("abac:read")).json(body).send().ok();
    assert_eq!((&answer["allowed"], &answer["user_id"]), (&json!(false), &json!(person.id)));
    // Whole policies are for those who may see them.
    let kind = unique("kind");
    let policy = some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "allow" }));
    let role = super::some_role(&org, &["policies.view"]);
    let body = json!({ "resourceType": kind, "action": "read" });
    let token = person.in_person("abac:read");
    let matched = || {
        org.post("/abac/check").bearer(&token).json(body.clone()).send().ok()["matchedPolicies"][0].clone()
    };
    assert!(matched()["effect"].is_null());
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    assert_eq!(matched(), policy);
}

fn a_pattern_of_death_is_answered_at_once(server: &Server) {
    let org = server.acme();
    let (kind, agent) = (unique("kind"), org.agent(&[]));
    for pattern in ["^(a+)+$", "(x+x+)+y", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*a){12}b"] {
        let conditions =
            json!([{ "attribute": "environment.text", "operator": "matches", "value": pattern }]);
        some_policy(
            &org,
            json!({ "resourceType": kind, "action": "read", "effect": "allow", "conditions": conditions }),
        );
    }
    let token = agent.token();
    let watch = lumoauth_tests::Stopwatch::start();
    for text in ["a".repeat(15_000) + "!", "x".repeat(15_000), "b".repeat(40_000)] {
        let body = json!({ "resourceType": kind, "action": "read", "environment": { "text": text } });
        let answer = org.post("/abac/check").bearer(&token).json(body).send();
        assert!(answer.status == 200 || answer.status == 413, "{answer}");
    }
    // A backtracking engine would need longer than there is time.
    assert!(watch.elapsed() < std::time::Duration::from_secs(20), "{:?}", watch.elapsed());
}

fn checks_of_an_agent_are_charged_and_logged(server: &Server) {
    lumoauth_tests::avoid_hour_edge();
    let org = server.acme();
    let policy = json!({ "max_api_calls_per_hour": 2 });
    let agent = org.create_agent(json!({ "capabilities": [], "budgetPolicy": policy }));
    let token = agent.token();
    let kind = unique("kind");
    let body = json!({ "resourceType": kind, "action": "read" });
    let check = || org.post("/abac/check").bearer(&token).json(body.clone()).send();
    org.post("/abac/check").bearer(&token).json(json!({})).send().refused(400, "validation_error");
    check().ok();
    check().ok();
    check().refused(429, "budget_exceeded");
    let entries = org.audit(&format!("action=agent.action&actorId={}", agent.agent_id));
    assert_eq!(text(&entries[0]["context"]["results"][0]["action"]), format!("{kind}.read"));
}
