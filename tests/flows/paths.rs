//! Where routes live (contract 0.1): both prefixes, org-less routes, unknown paths and methods.

use lumoauth_tests::{Server, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    alias_prefix_serves_the_token_endpoint,
    alias_prefix_serves_admin_routes_with_the_same_body,
    alias_prefix_serves_authorization_checks,
    org_less_checks_take_the_organization_from_the_credential,
    relative_links_use_the_prefix_of_the_caller,
    unknown_organization_is_not_found,
    unknown_path_is_a_json_not_found,
    path_parameters_are_percent_decoded,
    encoded_slashes_do_not_change_the_route,
    dot_segments_reach_no_other_route,
    unknown_methods_are_not_allowed,
    explicit_bad_credential_is_refused_even_on_public_routes,
    foreign_credentials_get_no_data,
);

fn alias_prefix_serves_the_token_endpoint(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", agent.client_id.as_str()),
        ("client_secret", agent.secret.as_str()),
    ];
    let path = format!("/t/{}/api/v1/oauth/token", agent.org.slug());
    let body = server.request("POST", &path).form(&form).send().ok();
    // A token of one prefix is a token of the other.
    agent.userinfo(text(&body["access_token"])).ok();
}

fn alias_prefix_serves_admin_routes_with_the_same_body(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let path = format!("/t/{}/api/v1/admin/agents/{}", agent.org.slug(), agent.agent_id);
    let aliased = server.request("GET", &path).api_key(agent.org.key()).send().ok();
    assert_eq!(aliased, agent.admin("GET", "").send().ok());
}

fn alias_prefix_serves_authorization_checks(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let body = json!({ "permission": "read:a" });
    let slug = agent.org.slug();
    for path in ["/api/v1".to_owned(), format!("/t/{slug}/api/v1"), format!("/orgs/{slug}/api/v1")] {
        let request = server.request("POST", &format!("{path}/authz/check")).bearer(&token);
        assert_eq!(request.json(body.clone()).send().ok()["allowed"], true, "{path}");
    }
}

fn org_less_checks_take_the_organization_from_the_credential(server: &Server) {
    for org in [server.acme(), server.globex()] {
        let agent = org.agent(&["read:a"]);
        let body = json!({ "permission": "read:a", "subject": { "type": "agent", "id": agent.agent_id } });
        let request = server.request("POST", "/api/v1/authz/check").api_key(org.key());
        assert_eq!(request.json(body.clone()).send().ok()["allowed"], true);
        let other = if org.slug() == server.acme().slug() { server.globex() } else { server.acme() };
        let request = server.request("POST", "/api/v1/authz/check").api_key(other.key());
        let refusal = request.json(body).send();
        assert_eq!(refusal.status, 404, "{refusal}");
        assert_eq!(refusal.refused_somehow()["code"], "SUBJECT_NOT_FOUND");
    }
}

fn relative_links_use_the_prefix_of_the_caller(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for prefix in ["/orgs/", "/t/"] {
        let base = format!("{prefix}{}/api/v1/", agent.org.slug());
        let body = server.request("GET", &format!("{base}agents/me")).bearer(&token).send().ok();
        assert_eq!(body["workspace"]["api_base"], base);
    }
}

fn unknown_organization_is_not_found(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    for prefix in ["/orgs/nobody/api/v1", "/t/nobody/api/v1", "/orgs/ACME-CORP/api/v1", "/orgs/%00/api/v1"] {
        let get = |path: &str| server.request("GET", &format!("{prefix}{path}"));
        get("/oauth/userinfo").bearer(&agent.token()).send().refused(404, "tenant_not_found");
        get("/admin/agents").api_key(org.key()).send().refused(404, "tenant_not_found");
        let form = [("grant_type", "client_credentials"), ("client_id", "a"), ("client_secret", "b")];
        let token = server.request("POST", &format!("{prefix}/oauth/token")).form(&form).send();
        token.refused(404, "tenant_not_found");
    }
}

fn unknown_path_is_a_json_not_found(server: &Server) {
    let agent = server.acme().agent(&["read:documents"]);
    // The SDK's example reads a document here; whoever parses the answer needs JSON.
    let response = agent.org.get("/documents/123").bearer(&agent.token()).send();
    assert_eq!(response.status, 404, "{response}");
    response.refused_somehow();
    for path in
        ["/", "/nothing", "/orgs", "/orgs/acme-corp", "/orgs/acme-corp/api/v2/oauth/token", "//", "/t/"]
    {
        let response = server.request("GET", path).send();
        assert_eq!(response.status, 404, "{path}: {response}");
        response.refused_somehow();
    }
}

fn path_parameters_are_percent_decoded(server: &Server) {
    let agent = server.acme().agent(&[]);
    let encoded: String = agent.agent_id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let body = agent.org.admin("GET", &format!("/agents/{encoded}")).send().ok();
    assert_eq!(body["data"]["agentId"], agent.agent_id);
    let response = agent.org.admin("GET", "/agents/u%201").send();
    assert_eq!(response.status, 404, "{response}");
    let response = agent.org.admin("GET", "/agents/%ff%fe").send();
    assert!(matches!(response.status, 400 | 404), "{response}");
}

fn encoded_slashes_do_not_change_the_route(server: &Server) {
    let agent = server.acme().agent(&[]);
    let response = agent.org.admin("POST", &format!("/agents/{}%2Frevoke", agent.agent_id)).send();
    assert!(matches!(response.status, 404 | 405), "{response}");
    agent.userinfo(&agent.token()).ok();
}

fn dot_segments_reach_no_other_route(server: &Server) {
    let org = server.acme();
    for path in ["/oauth/../admin/agents", "/oauth/%2e%2e/admin/agents", "/./admin/agents", "//admin/agents"]
    {
        let response = org.get(path).send();
        assert!(matches!(response.status, 400 | 401 | 404), "{path}: {response}");
    }
}

fn unknown_methods_are_not_allowed(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    for (method, path) in [
        ("DELETE", "/oauth/userinfo".to_owned()),
        ("GET", "/oauth/revoke".to_owned()),
        ("GET", "/oauth/introspect".to_owned()),
        ("PUT", "/agents/ask".to_owned()),
        ("POST", "/agents/me".to_owned()),
        ("DELETE", "/admin/agents".to_owned()),
        ("FROBNICATE", "/admin/agents".to_owned()),
        ("POST", format!("/admin/agents/{}", agent.agent_id)),
        ("GET", format!("/admin/agents/{}/activate", agent.agent_id)),
        ("DELETE", "/admin/audit-logs".to_owned()),
        ("PUT", "/admin/audit-logs".to_owned()),
    ] {
        let response = org.request(method, &path).api_key(org.key()).send();
        assert_eq!(response.status, 405, "{method} {path}: {response}");
        response.refused_somehow();
        assert!(response.header("allow").is_some_and(|allow| !allow.is_empty()), "{response}");
    }
    agent.userinfo(&agent.token()).ok();
}

fn explicit_bad_credential_is_refused_even_on_public_routes(server: &Server) {
    let mcp = server.acme().mcp_server(json!({}));
    let path = format!("/mcp/{}/challenge", text(&mcp["server_id"]));
    let response = server.acme().get(&path).bearer("nonsense").send();
    assert_eq!(response.status, 401, "{response}");
}

fn foreign_credentials_get_no_data(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let (ours, theirs) = (acme.agent(&["read:a"]), globex.agent(&["read:a"]));
    let foreign = theirs.token();
    for path in ["/oauth/userinfo", "/agents/me", "/agents/me/usage", "/mcp/servers"] {
        let response = acme.get(path).bearer(&foreign).send();
        assert!(matches!(response.status, 401 | 403), "{path}: {response}");
        response.refused_somehow();
    }
    let response = acme.post("/agents/ask").bearer(&foreign).json(json!({ "action": "read:a" })).send();
    assert!(matches!(response.status, 401 | 403), "{response}");
    let path = format!("/admin/agents/{}", ours.agent_id);
    let response = acme.get(&path).api_key(globex.key()).send();
    assert!(matches!(response.status, 401 | 403), "{response}");
    let response = globex.get(&path).api_key(globex.key()).send();
    assert_eq!(response.status, 404, "{response}");
}
