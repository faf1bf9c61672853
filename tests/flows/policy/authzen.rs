//! The same decision in the form of AuthZEN.

use lumoauth_tests::{Response, Server, on_each_backend, unique};
use serde_json::{Value, json};

use super::{relate, some_policy, some_role};

on_each_backend!(
    an_evaluation_is_the_same_decision,
    several_evaluations_share_what_they_have_in_common,
    evaluations_that_make_no_sense_are_refused,
    only_trusted_callers_say_what_a_resource_is,
);

fn evaluate(server: &Server, body: Value) -> Response {
    let key = server.acme().key().to_owned();
    server.request("POST", "/api/v1/authz/v1/evaluation").api_key(&key).json(body).send()
}

fn an_evaluation_is_the_same_decision(server: &Server) {
    let org = server.acme();
    let (agent, kind) = (org.agent(&[]), unique("kind"));
    let ask = || {
        let body = json!({
            "subject": { "type": "agent", "id": agent.agent_id },
            "action": { "name": "read" },
            "resource": { "type": kind, "id": "1" },
        });
        evaluate(server, body).ok()
    };
    assert_eq!(ask()["decision"], false);
    let role = some_role(&org, &[&format!("{kind}.read")]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let answer = ask();
    assert_eq!((&answer["decision"], &answer["context"]["decided_by"]), (&json!(true), &json!("role")));
    some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "deny" }));
    assert_eq!(ask()["decision"], false);
    let (person, object) = (org.person(), unique("d"));
    relate(&org, &format!("document:{object}#viewer@user:{}", person.id));
    let body = json!({
        "subject": { "type": "user", "id": person.id },
        "action": { "name": "view" },
        "resource": { "type": "document", "id": object },
        "context": { "object": format!("document:{object}"), "relation": "viewer" },
    });
    assert_eq!(evaluate(server, body).ok()["decision"], true);
}

fn several_evaluations_share_what_they_have_in_common(server: &Server) {
    let org = server.acme();
    let kind = unique("kind");
    let agent = org.agent(&[&format!("{kind}.read")]);
    let ask = |evaluations: Value, options: Value| {
        let body = json!({
            "subject": { "type": "agent", "id": agent.slug },
            "resource": { "type": kind, "id": "1" },
            "evaluations": evaluations, "options": options,
        });
        let path = format!("/orgs/{}/api/v1/authz/v1/evaluations", org.slug());
        server.request("POST", &path).bearer(&agent.token()).json(body).send()
    };
    let entries = || org.audit(&format!("action=agent.action&actorId={}", agent.agent_id));
    let one = |name: &str| json!({ "action": { "name": name } });
    let decisions = |answer: Value| {
        let all = answer["evaluations"].as_array().expect("a list").clone();
        all.into_iter().map(|it| it["decision"] == true).collect::<Vec<_>>()
    };
    let all = json!([one("read"), one("write"), one("read")]);
    assert_eq!(decisions(ask(all.clone(), Value::Null).ok()), [true, false, true]);
    // One entry for one call, with every question and its answer.
    let logged = entries();
    assert_eq!(
        (logged.len(), &logged[0]["context"]["action"]),
        (1, &json!("authzen.evaluation")),
        "{logged:?}"
    );
    let result = |name: &str, allowed: bool| {
        json!({
            "subject": { "type": "agent", "id": agent.agent_id }, "action": format!("{kind}.{name}"),
            "resource": "1", "allowed": allowed,
        })
    };
    let results = json!([result("read", true), result("write", false), result("read", true)]);
    assert_eq!(logged[0]["context"]["results"], results);
    let semantic = |name: &str| json!({ "evaluations_semantic": name });
    assert_eq!(decisions(ask(all.clone(), semantic("deny_on_first_deny")).ok()), [true, false]);
    assert_eq!(decisions(ask(all.clone(), semantic("permit_on_first_permit")).ok()), [true]);
    ask(all, semantic("guess")).refused(400, "validation_error");
    // What is wrong with one spoils no other.
    let unknown = json!({ "action": { "name": "read" }, "subject": { "type": "user", "id": "nobody" } });
    let mixed = ask(json!([one("read"), unknown, {}, one("read")]), Value::Null).ok();
    assert_eq!(decisions(mixed.clone()), [true, false, false, true]);
    assert_eq!(mixed["evaluations"][2]["context"]["error"]["status"], 400, "{mixed}");
    ask(json!(vec![one("read"); 101]), Value::Null).refused(400, "validation_error");
}

fn evaluations_that_make_no_sense_are_refused(server: &Server) {
    let whole = json!({
        "subject": { "type": "agent", "id": "x" }, "action": { "name": "read" }, "resource": { "type": "k", "id": "1" },
    });
    for missing in ["subject", "action", "resource"] {
        let mut body = whole.clone();
        body[missing] = json!({});
        evaluate(server, body).refused(400, "validation_error");
    }
    evaluate(server, whole).refused(404, "not_found");
    let org = server.acme();
    let policy = json!({ "max_api_calls_per_hour": 100 });
    let (agent, other) = (org.create_agent(json!({ "budgetPolicy": policy })), org.agent(&[]));
    let body = json!({
        "subject": { "type": "agent", "id": other.agent_id }, "action": { "name": "read" },
        "resource": { "type": "k", "id": "1" },
    });
    let path = "/api/v1/authz/v1/evaluation";
    let token = agent.token();
    server.request("POST", path).bearer(&token).json(body).send().refused(403, "forbidden");
    server.request("POST", path).bearer(&token).json(json!({})).send().refused(400, "validation_error");
    // What is refused is not charged, as everywhere.
    assert_eq!(agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"].as_u64().unwrap_or(0), 0);
}

fn only_trusted_callers_say_what_a_resource_is(server: &Server) {
    let org = server.acme();
    let (agent, kind) = (org.agent(&[]), unique("kind"));
    let open = json!([{ "attribute": "resource.level", "operator": "equals", "value": "open" }]);
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "allow", "conditions": open }),
    );
    let body = json!({
        "subject": { "type": "agent", "id": agent.agent_id },
        "action": { "name": "read" },
        "resource": { "type": kind, "id": "1", "properties": { "level": "open" } },
    });
    assert_eq!(evaluate(server, body.clone()).ok()["decision"], true);
    let path = "/api/v1/authz/v1/evaluation";
    let own = server.request("POST", path).bearer(&agent.token()).json(body).send().ok();
    assert_eq!(own["decision"], false);
}
