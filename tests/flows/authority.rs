//! Nobody gets more authority than they were given, and an attempt across organizations is noticed on both sides.

use lumoauth_tests::{Agent, Org, Request, Server, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    narrow_keys_cannot_rotate_the_secret_of_a_client_that_may_do_more,
    narrow_keys_rotate_the_secret_of_an_ordinary_client,
    only_a_full_administrator_makes_administrators,
    agents_never_ask_about_others_whatever_they_hold,
    star_reaches_no_administration_delegation_or_checks,
    keys_for_checks_see_no_mcp_servers,
    only_administrators_see_whom_an_mcp_server_is_for,
    two_api_key_headers_prove_nothing,
    agent_on_an_administrators_route_is_refused_and_recorded,
    token_at_another_organization_is_recorded_on_both_sides,
    api_key_at_another_organization_is_recorded_on_both_sides,
);

fn client(org: &Org<'_>, scopes: &[&str]) -> Value {
    let body = json!({
        "name": unique("Client"), "isConfidential": true, "allowedScopes": scopes,
        "grantTypes": ["client_credentials"],
    });
    org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone()
}

fn narrow_keys_cannot_rotate_the_secret_of_a_client_that_may_do_more(server: &Server) {
    let org = server.acme();
    for scopes in [&["admin"][..], &["read:a", "admin"], &["admin:agents"], &["authz:check"]] {
        let client = client(&org, scopes);
        let (id, secret) = (text(&client["clientId"]), text(&client["secret"]));
        let path = format!("/admin/clients/{id}/rotate-secret");
        org.post(&path).api_key(&org.api_key(&["admin:clients"])).send().refused(403, "forbidden");
        if scopes != ["admin:agents"] {
            org.post(&path).api_key(&org.api_key(&["admin:write"])).send().refused(403, "forbidden");
        }
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
        org.post("/oauth/token").form(&form).send().ok();
        assert!(org.post(&path).api_key(org.key()).send().ok()["data"]["secret"].is_string());
        org.post("/oauth/token").form(&form).send().refused(401, "invalid_client");
    }
}

fn narrow_keys_rotate_the_secret_of_an_ordinary_client(server: &Server) {
    let org = server.acme();
    for scope in ["admin:clients", "admin:write"] {
        let client = client(&org, &["read:a"]);
        let path = format!("/admin/clients/{}/rotate-secret", text(&client["clientId"]));
        org.post(&path).api_key(&org.api_key(&[scope])).send().ok();
    }
}

fn only_a_full_administrator_makes_administrators(server: &Server) {
    let org = server.acme();
    let user = |is_admin: bool| {
        let email = format!("{}@acme-corp.test", unique("u"));
        json!({ "email": email, "name": "U", "isAdmin": is_admin })
    };
    for scope in ["admin:users", "admin:write"] {
        let key = org.api_key(&[scope]);
        let body = user(true);
        org.post("/admin/users").api_key(&key).json(body.clone()).send().refused(403, "forbidden");
        let found = org.admin("GET", &format!("/users?search={}", text(&body["email"]))).send().ok();
        assert_eq!(list(&found["data"]).len(), 0, "{found}");
        org.post("/admin/users").api_key(&key).json(user(false)).send().expect(201);
    }
    let made = org.admin("POST", "/users").json(user(true)).send().expect(201).json();
    assert_eq!(made["data"]["isAdmin"], true);
}

fn agents_never_ask_about_others_whatever_they_hold(server: &Server) {
    let org = server.acme();
    let other = org.agent(&["a:1"]);
    for capabilities in [&["authz:check"][..], &["*"], &["authz:*", "admin", "*"]] {
        let agent = org.create_agent(json!({ "identityType": "custom", "capabilities": capabilities }));
        for bearer in [agent.token(), agent.api_key.clone()] {
            for subject in [json!({ "type": "agent", "id": other.agent_id }), json!("user:someone")] {
                for route in ["check", "check-bulk", "check-any", "check-all"] {
                    let body = json!({ "permission": "a:1", "permissions": ["a:1"], "subject": subject });
                    let response = check(server, route).bearer(&bearer).json(body).send();
                    let refusal = response.refused(403, "forbidden");
                    assert_eq!(refusal["code"], "INSUFFICIENT_PERMISSIONS", "{capabilities:?} {route}");
                }
            }
        }
    }
}

fn star_reaches_no_administration_delegation_or_checks(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["*"]);
    assert_eq!(agent.ask_token(&[("scope", "read:a")]).ok()["scope"], "read:a");
    let token = agent.token();
    for scope in ["authz:check", "authz:read", "admin", "admin:agents", "delegate:user"] {
        agent.ask_token(&[("scope", scope)]).refused(400, "invalid_scope");
        let bound = [("resource", text(&mcp["resource_uri"])), ("scope", scope)];
        agent.exchange(&token, &bound).refused(400, "invalid_scope");
        assert_eq!(agent.ask(&token, scope).ok()["allowed"], false, "{scope}");
    }
}

fn keys_for_checks_see_no_mcp_servers(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let key = org.api_key(&["authz:check"]);
    let body = org.get("/mcp/servers").api_key(&key).send().ok();
    assert_eq!((list(&body["data"]).len(), int(&body["meta"]["total"])), (0, 0), "{body}");
    let one = org.get(&format!("/mcp/servers/{}", text(&mcp["server_id"]))).api_key(&key).send();
    one.expect(404).refused_somehow();
}

fn only_administrators_see_whom_an_mcp_server_is_for(server: &Server) {
    const MEMBERS: [&str; 3] = ["allowed_agent_ids", "allowed_client_ids", "resource_client_id"];
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let client = client(&org, &["read:a"]);
    let mcp = org.mcp_server(json!({
        "allowed_agent_ids": [agent.agent_id], "resource_client_id": client["clientId"],
    }));
    let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
    let token = agent.token();
    let one = org.get(&path).bearer(&token).send().ok()["data"].clone();
    let all = org.get("/mcp/servers?limit=100").bearer(&token).send().ok();
    for seen in list(&all["data"]).iter().chain(list(&all["servers"])).chain([&one]) {
        for member in MEMBERS {
            assert!(seen.get(member).is_none(), "{member} in {seen}");
        }
    }
    for scope in ["admin", "admin:agents", "admin:read"] {
        let seen = org.get(&path).api_key(&org.api_key(&[scope])).send().ok()["data"].clone();
        assert_eq!(seen["allowed_agent_ids"], json!([agent.agent_id]), "{scope}");
        assert_eq!(seen["resource_client_id"], client["clientId"], "{scope}");
    }
}

fn two_api_key_headers_prove_nothing(server: &Server) {
    let org = server.acme();
    let other = org.api_key(&["admin:read"]);
    for (one, two) in [(org.key(), org.key()), (org.key(), &other), (&other, org.key()), ("x", org.key())] {
        let requests = [
            org.get("/admin/agents"),
            org.get("/mcp/servers"),
            check(server, "check").json(json!({ "permission": "a:1" })),
        ];
        for request in requests {
            let response = request.api_key(one).api_key(two).send();
            response.expect(401).refused_somehow();
        }
    }
}

fn agent_on_an_administrators_route_is_refused_and_recorded(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["*", "admin"]);
    let path = format!("/admin/agents/{}", agent.agent_id);
    org.get(&path).bearer(&agent.token()).send().refused(403, "forbidden");
    let row = one_denial(&org, &agent.agent_id);
    assert_eq!(row["targetType"], "route", "{row}");
    assert!(text(&row["targetId"]).starts_with("admin/agents"), "{row}");
    assert_eq!(row["actorType"], "agent", "{row}");
}

fn token_at_another_organization_is_recorded_on_both_sides(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let agent = acme.agent(&["read:a"]);
    visit(&globex, |request| request.bearer(&agent.token()), &agent);
    for org in [&acme, &globex] {
        let row = one_denial(org, &agent.agent_id);
        assert_eq!(row["targetId"], globex.slug(), "{row}");
    }
}

fn visit(org: &Org<'_>, with: impl Fn(Request) -> Request, agent: &Agent<'_>) {
    let response = with(org.get("/agents/me")).send();
    response.refused(403, "forbidden");
    assert!(!response.text().contains(&agent.agent_id), "{response}");
}

fn api_key_at_another_organization_is_recorded_on_both_sides(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let body = json!({ "name": unique("stray"), "scopes": ["admin:read"] });
    let made = acme.admin("POST", "/api-keys").json(body).send().expect(201).json()["data"].clone();
    globex.get("/admin/agents").api_key(text(&made["key"])).send().refused(403, "forbidden");
    for org in [&acme, &globex] {
        let row = one_denial(org, &made["id"].to_string());
        assert_eq!(row["actorName"], made["name"], "{row}");
    }
}

/// The one failed `agent.action` of this actor.
#[track_caller]
fn one_denial(org: &Org<'_>, actor: &str) -> Value {
    let rows = org.audit(&format!("actorId={actor}&action=agent.action&status=failure"));
    assert_eq!(rows.len(), 1, "in the log of {}: {rows:?}", org.slug());
    rows[0].clone()
}

fn check(server: &Server, route: &str) -> Request {
    server.request("POST", &format!("/api/v1/authz/{route}"))
}
