//! By which names an agent may ask about itself, and what a refused check costs.

use lumoauth_tests::{Request, Server, avoid_hour_edge, int, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    agent_names_itself_in_each_known_form,
    the_same_forms_name_the_agent_for_an_administrator,
    a_key_asks_about_whoever_made_it,
    refused_checks_charge_nothing,
);

fn forms(slug: &str, agent_id: &str, uuid: &str) -> Vec<Value> {
    let ids = [slug, agent_id, uuid];
    let mut forms: Vec<Value> = ids.iter().map(|id| json!({ "type": "agent", "id": id })).collect();
    forms.extend(ids[..2].iter().flat_map(|id| [json!(id), json!(format!("agent:{id}"))]));
    forms.push(json!(format!("agent_{agent_id}")));
    forms.push(json!({ "type": "agent", "id": format!("agent:{slug}") }));
    forms
}

fn agent_names_itself_in_each_known_form(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    let token = agent.token();
    for subject in forms(&agent.slug, &agent.agent_id, &agent.id) {
        let body = json!({ "permission": "a:1", "subject": subject });
        let response = check(server).bearer(&token).json(body).send();
        assert_eq!(response.status, 200, "{subject}: {response}");
        let answer = response.ok();
        assert_eq!((&answer["allowed"], &answer["subject_id"]), (&json!(true), &json!(agent.agent_id)));
    }
}

fn the_same_forms_name_the_agent_for_an_administrator(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    for subject in forms(&agent.slug, &agent.agent_id, &agent.id) {
        let body = json!({ "permission": "a:1", "subject": subject });
        let response = check(server).api_key(agent.org.key()).json(body).send();
        assert_eq!(response.status, 200, "{subject}: {response}");
        let answer = response.ok();
        assert_eq!((&answer["allowed"], &answer["subject_id"]), (&json!(true), &json!(agent.agent_id)));
    }
}

fn a_key_asks_about_whoever_made_it(server: &Server) {
    let org = server.acme();
    let (admin, other) = (org.person_with(json!({ "isAdmin": true })), org.person());
    let body = json!({ "name": "Mine", "scopes": ["admin:read"] });
    let made =
        org.post("/admin/api-keys").bearer(&admin.in_person("openid admin")).json(body).send().expect(201);
    let key = text(&made.json()["data"]["key"]).to_owned();
    let ask = |subject: Value| {
        check(server).api_key(&key).json(json!({ "permission": "a:1", "subject": subject })).send()
    };
    let unnamed = ask(Value::Null).ok();
    assert_eq!((&unnamed["subject_type"], &unnamed["subject_id"]), (&json!("user"), &json!(admin.id)));
    assert_eq!(ask(json!({ "type": "user", "id": admin.id })).ok(), unnamed);
    ask(json!({ "type": "user", "id": other.id })).refused(403, "forbidden");
}

fn refused_checks_charge_nothing(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let policy = json!({ "max_api_calls_per_hour": 1 });
    let agent = org.create_agent(json!({ "capabilities": ["a:1"], "budgetPolicy": policy }));
    let other = org.agent(&[]);
    let token = agent.token();
    let ask = |body: Value| check(server).bearer(&token).json(body).send();
    let one = |subject: Value| json!({ "permission": "a:1", "subject": subject });
    for (body, status) in [
        (json!({}), 400),
        (json!({ "permission": 7 }), 400),
        (json!([]), 400),
        (one(json!(7)), 400),
        (one(json!({ "type": "agent", "id": [] })), 400),
        (one(json!({ "type": "agent", "id": other.agent_id })), 403),
        (one(json!("agent:nobody-of-that-name")), 403),
        (one(json!("user:nobody")), 403),
    ] {
        let response = ask(body.clone());
        assert_eq!(response.status, status, "{body}: {response}");
        response.refused_somehow();
    }
    let many = server.request("POST", "/api/v1/authz/check-bulk").bearer(&token);
    many.json(json!({ "permissions": [] })).send().expect(400).refused_somehow();
    server.request("POST", "/api/v1/authz/check-none").bearer(&token).json(json!({})).send().expect(404);
    let used = |token: &str| int(&agent.userinfo(token).ok()["budget_policy"]["api_calls_this_hour"]);
    assert_eq!(used(&token), 0);
    ask(json!({ "permission": "b:2" })).ok();
    assert_eq!(used(&token), 1, "a denial is an answer");
    ask(json!({ "permission": "a:1" })).refused(429, "budget_exceeded");
}

fn check(server: &Server) -> Request {
    server.request("POST", "/api/v1/authz/check")
}
