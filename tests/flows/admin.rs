//! Users, clients and API keys as far as the flows need them (contract 2.15).

use lumoauth_tests::{Server, list, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    user_is_created_read_and_listed,
    user_password_is_never_shown,
    duplicate_email_conflicts,
    bad_users_are_refused,
    user_is_blocked_and_unblocked,
    fixture_user_exists,
    client_is_created_and_authenticates,
    public_client_may_not_use_client_credentials,
    client_secret_rotates,
    bad_clients_are_refused,
    agent_ids_are_no_client_ids,
    api_key_is_created_and_works_at_once,
    api_key_cannot_hold_unknown_scopes,
    api_key_cannot_hand_out_more_than_it_has,
);

fn user_is_created_read_and_listed(server: &Server) {
    let org = server.acme();
    let email = format!("{}@acme-corp.test", unique("bob"));
    let body = json!({ "email": email, "password": "a long enough passphrase", "name": "Bob" });
    let answer = org.admin("POST", "/users").json(body).send().expect(201).json();
    let user = &answer["data"];
    assert_eq!(text(&user["id"]).len(), 36, "a UUID");
    assert_eq!(user["email"], email);
    for member in ["emailVerified", "isActive", "blocked", "mfaEnabled", "isAdmin"] {
        assert!(user[member].is_boolean(), "{member} in {user}");
    }
    assert!(user["createdAt"].is_string() && user["loginCount"].is_i64(), "{user}");
    let read = org.admin("GET", &format!("/users/{}", text(&user["id"]))).send().ok();
    assert_eq!(read["data"]["email"], email);
    let found = org.admin("GET", &format!("/users?search={email}")).send().ok();
    assert!(list(&found["data"]).iter().any(|it| it["id"] == user["id"]), "{found}");
    assert_eq!(found["meta"], found["pagination"]);
    assert_eq!(server.globex().admin("GET", &format!("/users/{}", text(&user["id"]))).send().status, 404);
}

fn user_password_is_never_shown(server: &Server) {
    let org = server.acme();
    let password = unique("correct horse battery");
    let body =
        json!({ "email": format!("{}@acme-corp.test", unique("eve")), "password": password, "name": "Eve" });
    let created = org.admin("POST", "/users").json(body).send().expect(201);
    let id = text(&created.json()["data"]["id"]).to_owned();
    for response in
        [created, org.admin("GET", &format!("/users/{id}")).send(), org.admin("GET", "/users").send()]
    {
        let text = response.text();
        assert!(
            !text.contains(&password) && !text.contains("argon2") && !text.contains("passwordHash"),
            "{text}"
        );
    }
}

fn duplicate_email_conflicts(server: &Server) {
    let org = server.acme();
    let email = format!("{}@acme-corp.test", unique("twin"));
    let body =
        |email: &str| json!({ "email": email, "password": "a long enough passphrase", "name": "Twin" });
    org.admin("POST", "/users").json(body(&email)).send().expect(201);
    org.admin("POST", "/users").json(body(&email)).send().refused(409, "duplicate_resource");
    org.admin("POST", "/users").json(body(&email.to_uppercase())).send().refused(409, "duplicate_resource");
    server.globex().admin("POST", "/users").json(body(&email)).send().expect(201);
}

fn bad_users_are_refused(server: &Server) {
    let email = || format!("{}@acme-corp.test", unique("x"));
    for body in [
        json!({}),
        json!({ "email": "no-at-sign", "password": "a long enough passphrase", "name": "x" }),
        json!({ "email": 7, "password": "a long enough passphrase", "name": "x" }),
        json!({ "email": email(), "password": 7, "name": "x" }),
        json!({ "email": email(), "password": "x".repeat(100_000), "name": "x" }),
    ] {
        let response = server.acme().admin("POST", "/users").json(body).send();
        assert!(matches!(response.status, 400 | 413 | 422), "{response}");
        response.refused_somehow();
    }
}

fn user_is_blocked_and_unblocked(server: &Server) {
    let org = server.acme();
    let email = format!("{}@acme-corp.test", unique("mallory"));
    let body = json!({ "email": email, "password": "a long enough passphrase", "name": "Mallory" });
    let created = org.admin("POST", "/users").json(body).send().expect(201).json();
    let path = format!("/users/{}", text(&created["data"]["id"]));
    for (verb, blocked) in [("block", true), ("unblock", false)] {
        org.admin("POST", &format!("{path}/{verb}")).send().expect(200);
        assert_eq!(org.admin("GET", &path).send().ok()["data"]["blocked"], blocked);
    }
    let absent = org.admin("POST", "/users/00000000-0000-0000-0000-000000000000/block").send();
    assert_eq!(absent.status, 404, "{absent}");
}

fn fixture_user_exists(server: &Server) {
    let email = server.variable("USER_EMAIL");
    assert!(!server.variable("USER_PASSWORD").is_empty());
    let found = server.acme().admin("GET", &format!("/users?search={email}")).send().ok();
    let user = list(&found["data"]).iter().find(|it| it["email"] == email).cloned().unwrap_or(Value::Null);
    assert_eq!(user["isAdmin"], true, "{found}");
}

fn client_is_created_and_authenticates(server: &Server) {
    let org = server.acme();
    let client =
        create_client(server, json!({ "allowedScopes": ["read:a"], "grantTypes": ["client_credentials"] }));
    assert!(client["id"].is_i64() && client["_note"].is_string(), "{client}");
    let (id, secret) = (text(&client["clientId"]), text(&client["secret"]));
    let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
    let body = org.post("/oauth/token").form(&form).send().ok();
    assert_eq!(body["scope"], "read:a");
    let claims = lumoauth_tests::Token::parse(text(&body["access_token"])).claims;
    assert_eq!(claims["client_id"], id);
    assert!(claims.get("agent_id").is_none_or(Value::is_null), "not an agent: {claims}");
    let too_much = [form[0], form[1], form[2], ("scope", "read:a admin")];
    org.post("/oauth/token").form(&too_much).send().refused(400, "invalid_scope");
    let read = org.admin("GET", &format!("/clients/{id}")).send();
    assert!(!read.text().contains(secret), "{read}");
    assert_eq!(read.ok()["data"]["clientId"], id);
}

fn public_client_may_not_use_client_credentials(server: &Server) {
    let client =
        create_client(server, json!({ "isConfidential": false, "redirectUris": ["https://app.test/cb"] }));
    let id = text(&client["clientId"]);
    let form = [("grant_type", "client_credentials"), ("client_id", id)];
    server.acme().post("/oauth/token").form(&form).send().refused(400, "unauthorized_client");
}

fn client_secret_rotates(server: &Server) {
    let org = server.acme();
    let client = create_client(server, json!({ "grantTypes": ["client_credentials"] }));
    let (id, old) = (text(&client["clientId"]), text(&client["secret"]));
    let path = format!("/clients/{id}/rotate-secret");
    let new = org.admin("POST", &path).send().ok()["data"]["secret"].clone();
    let status = |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
        org.post("/oauth/token").form(&form).send().status
    };
    assert_eq!((status(old), status(text(&new))), (401, 200));
}

fn bad_clients_are_refused(server: &Server) {
    for body in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": "x", "redirectUris": ["javascript:alert(1)"] }),
        json!({ "name": "x", "redirectUris": ["https://app.test/cb#fragment"] }),
        json!({ "name": "x", "redirectUris": ["https://*.app.test/cb"] }),
        json!({ "name": "x", "redirectUris": "https://app.test/cb" }),
        json!({ "name": "x", "grantTypes": ["password"] }),
        json!({ "name": "x", "allowedScopes": ["has space"] }),
    ] {
        let response = server.acme().admin("POST", "/clients").json(body.clone()).send();
        assert_eq!(response.status, 400, "{body}: {response}");
        response.refused(400, "validation_error");
    }
}

fn agent_ids_are_no_client_ids(server: &Server) {
    let agent = server.acme().agent(&[]);
    let response = agent.org.admin("GET", &format!("/clients/{}", agent.client_id)).send();
    assert_eq!(response.status, 404, "{response}");
    let client = create_client(server, json!({}));
    let response = agent.org.admin("GET", &format!("/agents/{}", text(&client["clientId"]))).send();
    assert_eq!(response.status, 404, "{response}");
}

fn api_key_is_created_and_works_at_once(server: &Server) {
    let org = server.acme();
    let body = json!({ "name": unique("ci"), "scopes": ["admin:read"] });
    let response = org.admin("POST", "/api-keys").json(body).send().expect(201);
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
    let data = response.json()["data"].clone();
    let key = text(&data["key"]);
    assert!(key.starts_with("lmk_") && !data["id"].is_null(), "{data}");
    org.get("/admin/agents").api_key(key).send().ok();
    org.get("/admin/agents").bearer(key).send().ok();
}

fn api_key_cannot_hold_unknown_scopes(server: &Server) {
    for scopes in [json!("admin"), json!([7]), json!(["has space"]), json!([""])] {
        let body = json!({ "name": unique("bad"), "scopes": scopes });
        let response = server.acme().admin("POST", "/api-keys").json(body).send();
        assert_eq!(response.status, 400, "{scopes}: {response}");
        response.refused_somehow();
    }
    // A made-up scope opens nothing, and no key ever satisfies `authz:read`.
    let body = json!({ "name": unique("odd"), "scopes": ["root", "authz:read"] });
    let response = server.acme().admin("POST", "/api-keys").json(body).send();
    if response.status != 201 {
        response.expect(400).refused_somehow();
        return;
    }
    let key = text(&response.json()["data"]["key"]).to_owned();
    server.acme().get("/admin/agents").api_key(&key).send().refused(403, "forbidden");
    let list = server.request("GET", "/api/v1/authz/permissions").api_key(&key).send();
    list.refused(403, "forbidden");
}

fn api_key_cannot_hand_out_more_than_it_has(server: &Server) {
    let org = server.acme();
    let narrow = org.api_key(&["admin:write"]);
    let body = json!({ "name": unique("wide"), "scopes": ["admin:read", "admin:write", "authz:check"] });
    let response = org.post("/admin/api-keys").api_key(&narrow).json(body).send();
    assert!(matches!(response.status, 400 | 403), "{response}");
    response.refused_somehow();
}

fn create_client(server: &Server, mut members: Value) -> Value {
    members["name"] = unique("Client").into();
    if members["isConfidential"].is_null() {
        members["isConfidential"] = true.into();
    }
    server.acme().admin("POST", "/clients").json(members).send().expect(201).json()["data"].clone()
}
