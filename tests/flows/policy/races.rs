//! Policy that many write at once.

use lumoauth_tests::{Server, at_once, on_each_backend, unique};
use serde_json::json;

use super::{admin, some_action, some_policy, some_role};

on_each_backend!(
    one_of_many_makes_the_role,
    no_permission_of_many_is_lost,
    no_tuple_of_many_is_lost,
    a_decision_sees_a_change_as_a_whole,
    what_is_taken_away_or_denied_is_gone_at_once,
);

const CALLERS: usize = 32;

fn one_of_many_makes_the_role(server: &Server) {
    let org = server.acme();
    let slug = unique("role");
    let answers = at_once(CALLERS, |_| {
        org.admin("POST", "/roles").json(json!({ "name": "x", "slug": slug })).send().status
    });
    let made = answers.iter().filter(|status| **status == 201).count();
    let taken = answers.iter().filter(|status| **status == 409).count();
    assert_eq!((made, taken), (1, CALLERS - 1), "{answers:?}");
}

fn no_permission_of_many_is_lost(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let actions: Vec<_> = (0..CALLERS).map(|_| some_action().0).collect();
    let path = format!("/roles/{role}/permissions");
    let answers = at_once(CALLERS, |n| {
        org.admin("POST", &path).json(json!({ "permission": actions[n] })).send().status
    });
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    let held = org.admin("GET", &format!("{path}?limit=100")).send().ok();
    let held = held["data"].as_array().expect("a list").len();
    assert_eq!(held, CALLERS);
}

fn no_tuple_of_many_is_lost(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let answers = at_once(CALLERS, |n| {
        let body =
            json!({ "tuples": [format!("{object}#viewer@user:{n}"), format!("{object}#viewer@user:all")] });
        let write = || admin(&org, "POST", "/zanzibar/tuples").json(body.clone()).send().status;
        (0..20).map(|_| write()).find(|status| *status != 409)
    });
    assert!(answers.iter().all(|status| matches!(status, Some(200 | 201))), "{answers:?}");
    let found = admin(&org, "GET", &format!("/zanzibar/tuples?object={object}&limit=100")).send().ok();
    assert_eq!(found["meta"]["total"], CALLERS + 1);
}

/// Two tuples are always written and removed together: no question ever sees one of them alone. An exclusion would show it.
fn a_decision_sees_a_change_as_a_whole(server: &Server) {
    let org = server.acme();
    let name = unique("ns");
    let rules = json!({ "relations": {
        "one": "this", "two": "this",
        "torn": { "exclusion": [{ "computedUserset": "one" }, { "computedUserset": "two" }] },
    } });
    admin(&org, "PUT", &format!("/zanzibar/namespaces/{name}")).json(rules).send().ok();
    let tuples = json!({ "tuples": [format!("{name}:1#one@user:a"), format!("{name}:1#two@user:a")] });
    let torn = at_once(4, |n| {
        let mut torn = 0;
        for round in 0..30 {
            if n == 0 {
                let method = if round % 2 == 0 { "POST" } else { "DELETE" };
                admin(&org, method, "/zanzibar/tuples").json(tuples.clone()).send();
            } else {
                let body = json!({ "object": format!("{name}:1"), "relation": "torn", "subject": "user:a" });
                let answer = org.post("/zanzibar/check").api_key(org.key()).json(body).send().ok();
                torn += u32::from(answer["allowed"] == true);
            }
        }
        torn
    });
    assert_eq!(torn, [0; 4]);
}

/// Each caller ends one thing that the agent may do, by a role less or by a policy that denies it, and asks at once.
fn what_is_taken_away_or_denied_is_gone_at_once(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let actions: Vec<_> = (0..CALLERS).map(|_| some_action()).collect();
    let roles: Vec<_> = actions.iter().map(|(action, _)| some_role(&org, &[action])).collect();
    agent.admin("PUT", "/roles").json(json!({ "roles": roles })).send().ok();
    for (action, _) in &actions {
        assert_eq!(agent.ask(&token, action).ok()["allowed"], true);
    }
    let answers = at_once(CALLERS, |n| {
        let (action, kind) = &actions[n];
        if n % 2 == 0 {
            let path = format!("/roles/{}", roles[n]);
            // Under so many at once one may be told to try again.
            let done = (0..20).map(|_| org.admin("DELETE", &path).send().status).find(|it| *it != 409);
            assert_eq!(done, Some(200));
        } else {
            some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "deny" }));
        }
        agent.ask(&token, action).ok()
    });
    for (n, answer) in answers.iter().enumerate() {
        let decided_by = if n % 2 == 0 { "default" } else { "abac" };
        assert_eq!((&answer["allowed"], &answer["decided_by"]), (&json!(false), &json!(decided_by)), "{n}");
    }
}
