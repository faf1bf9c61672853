//! `agents/register` (contract 2.6).

use lumoauth_tests::{Server, on_each_backend, strings, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    agent_updates_its_own_record,
    agent_cannot_widen_itself,
    agent_cannot_register_another,
    administrator_key_creates_and_updates,
    administrator_in_person_creates_and_updates,
    created_secret_is_shown_once,
    missing_members_are_refused,
    jwks_uri_must_be_https,
    agent_names_the_keys_that_an_administrator_registered_and_no_others,
    keys_in_the_body_are_refused,
    caller_without_a_credential_is_refused,
    narrow_key_is_refused,
);

fn agent_updates_its_own_record(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let name = unique("Document Analyser");
    let body = json!({ "client_id": agent.client_id, "name": name, "description": "Reads" });
    let answer = agent.org.post("/agents/register").bearer(&agent.token()).json(body).send().ok();
    assert_eq!((&answer["success"], &answer["agent_id"]), (&json!(true), &json!(agent.agent_id)));
    assert_eq!(answer["name"], name);
    assert_eq!(answer["capabilities"], json!(["read:a"]));
    assert_eq!(answer.get("workload_identity"), Some(&Value::Null));
    assert!(answer["requested_capabilities"].is_array(), "{answer}");
    let data = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!((&data["name"], &data["description"]), (&json!(name), &json!("Reads")));
}

fn agent_cannot_widen_itself(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let wish = json!(["read:a", "write:everything", "*"]);
    let body = json!({ "client_id": agent.client_id, "name": agent.name, "capabilities": wish });
    let answer = agent.org.post("/agents/register").bearer(&agent.token()).json(body).send().ok();
    assert_eq!(answer["capabilities"], json!(["read:a"]));
    assert_eq!(strings(&answer["requested_capabilities"]), ["*", "write:everything"]);
    assert_eq!(agent.ask_token(&[]).ok()["scope"], "read:a");
    agent.ask_token(&[("scope", "write:everything")]).refused(400, "invalid_scope");
    // Nor narrow itself by leaving one out: capabilities are the administrator's.
    let body = json!({ "client_id": agent.client_id, "name": agent.name, "capabilities": [] });
    agent.org.post("/agents/register").bearer(&agent.token()).json(body).send().ok();
    assert_eq!(agent.ask_token(&[]).ok()["scope"], "read:a");
}

fn agent_cannot_register_another(server: &Server) {
    let (one, two) = (server.acme().agent(&[]), server.acme().agent(&[]));
    for id in [two.client_id.as_str(), &unique("cli")] {
        let body = json!({ "client_id": id, "name": "Taken over" });
        let response = one.org.post("/agents/register").bearer(&one.token()).json(body).send();
        assert_eq!(response.status, 403, "{response}");
        response.refused_somehow();
    }
    assert_eq!(two.admin("GET", "").send().ok()["data"]["name"], two.name);
}

fn administrator_key_creates_and_updates(server: &Server) {
    let org = server.acme();
    let id = unique("cli");
    let body = json!({ "client_id": id, "name": unique("By key"), "capabilities": ["read:a"] });
    let created = org.post("/agents/register").api_key(org.key()).json(body).send();
    assert!(matches!(created.status, 200 | 201), "{created}");
    let created = created.json();
    assert_eq!(created["capabilities"], json!(["read:a"]));
    let secret = text(&created["client_secret"]);
    let form = [("grant_type", "client_credentials"), ("client_id", id.as_str()), ("client_secret", secret)];
    org.post("/oauth/token").form(&form).send().ok();
    let body = json!({ "client_id": id, "name": unique("Renamed"), "capabilities": ["read:a", "write:b"] });
    let updated = org.post("/agents/register").api_key(org.key()).json(body).send().ok();
    assert_eq!(updated["agent_id"], created["agent_id"]);
    assert_eq!(strings(&updated["capabilities"]), ["read:a", "write:b"]);
}

fn created_secret_is_shown_once(server: &Server) {
    let org = server.acme();
    let body = json!({ "client_id": unique("cli"), "name": unique("Once") });
    let request = org.post("/agents/register").api_key(org.key()).json(body);
    assert!(request.send().json()["client_secret"].is_string());
    let again = request.send().ok();
    assert!(again.get("client_secret").is_none_or(Value::is_null), "{again}");
}

fn missing_members_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for body in [
        json!({}),
        json!({ "client_id": agent.client_id }),
        json!({ "name": "No id" }),
        json!({ "client_id": agent.client_id, "name": "" }),
        json!({ "client_id": 7, "name": "x" }),
        json!({ "client_id": agent.client_id, "name": "x", "capabilities": "read:a" }),
        json!([]),
    ] {
        let response = agent.org.post("/agents/register").bearer(&token).json(body.clone()).send();
        assert_eq!(response.status, 400, "{body}: {response}");
        response.refused_somehow();
    }
}

fn jwks_uri_must_be_https(server: &Server) {
    let agent = server.acme().agent(&[]);
    for uri in ["http://plain.test/jwks", "file:///etc/passwd", "javascript:alert(1)", "nonsense"] {
        let body = json!({ "client_id": agent.client_id, "name": agent.name, "jwks_uri": uri });
        let response = agent.org.post("/agents/register").bearer(&agent.token()).json(body).send();
        response.expect(400).refused_somehow();
    }
}

fn agent_names_the_keys_that_an_administrator_registered_and_no_others(server: &Server) {
    let agent = server.acme().agent(&[]);
    let uri = "https://agent.test/jwks";
    let body = json!({ "client_id": agent.client_id, "name": agent.name, "jwks_uri": uri });
    let own = || agent.org.post("/agents/register").bearer(&agent.token()).json(body.clone()).send();
    own().refused(403, "forbidden");
    assert!(agent.admin("GET", "").send().ok()["data"]["jwksUri"].is_null());
    agent.org.post("/agents/register").api_key(agent.org.key()).json(body.clone()).send().ok();
    own().ok();
    assert_eq!(agent.admin("GET", "").send().ok()["data"]["jwksUri"], uri);
}

fn keys_in_the_body_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let key = lumoauth_tests::AttackerKey::generate().jwk("k1");
    let body = json!({ "client_id": agent.client_id, "name": agent.name, "jwks": { "keys": [key] } });
    let response = agent.org.post("/agents/register").bearer(&agent.token()).json(body.clone()).send();
    response.expect(400).refused_somehow();
    let mut body = body;
    body["client_id"] = unique("cli").into();
    let response = agent.org.post("/agents/register").api_key(agent.org.key()).json(body).send();
    response.expect(400).refused_somehow();
}

fn caller_without_a_credential_is_refused(server: &Server) {
    let body = json!({ "client_id": unique("cli"), "name": "x" });
    let response = server.acme().post("/agents/register").json(body).send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
}

fn administrator_in_person_creates_and_updates(server: &Server) {
    let org = server.acme();
    let admin = org.person_with(json!({ "isAdmin": true }));
    let (client_id, name) = (unique("cli"), unique("Bot"));
    let register = |token: &str, name: &str| {
        let body = json!({ "client_id": client_id, "name": name, "capabilities": ["read:a"] });
        org.post("/agents/register").bearer(token).json(body).send()
    };
    let refused = register(&admin.in_person("openid jit:approve"), &name).refused(403, "forbidden");
    assert_eq!(refused["details"]["required_scopes"], json!(["admin:agents:write"]));
    register(&org.person().in_person("openid"), &name).refused(403, "forbidden");
    for (scope, status) in [("openid admin:agents:write", 201), ("openid admin", 200)] {
        let made = register(&admin.in_person(scope), &name).expect(status).json();
        assert_eq!((&made["success"], &made["name"]), (&json!(true), &json!(name)), "{scope}");
        assert_eq!(made["client_secret"].is_string(), status == 201, "{scope}");
    }
    // Nor by an agent that the person signed in to.
    let agent = org.delegate(&["read:a"]);
    register(&admin.allow(&agent, "openid").access, &name).refused(403, "forbidden");
}

fn narrow_key_is_refused(server: &Server) {
    let org = server.acme();
    let body = json!({ "client_id": unique("cli"), "name": "x" });
    for scope in ["authz:check", "admin:read", "admin:audit"] {
        let response = org.post("/agents/register").api_key(&org.api_key(&[scope])).json(body.clone()).send();
        assert_eq!(response.status, 403, "{scope}: {response}");
        response.refused_somehow();
    }
}
