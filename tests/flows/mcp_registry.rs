//! The registry of MCP servers (contract 2.10).

use lumoauth_tests::{Server, int, list, on_each_backend, strings, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    created_server_has_every_member_of_the_contract,
    urn_resources_are_accepted,
    scopes_may_be_an_array_or_text,
    lifetime_is_clamped,
    same_resource_conflicts,
    bad_servers_are_unprocessable,
    unknown_allowed_client_is_unprocessable,
    server_is_read_changed_and_deleted,
    unknown_server_is_not_found,
    list_has_both_envelopes,
    agents_see_the_servers_they_may_use,
    detail_carries_discovery,
    servers_of_another_organization_are_not_found,
    protected_resource_metadata_names_resource_and_issuer,
    protected_resource_metadata_is_public_in_both_forms,
    open_server_has_no_protected_resource_metadata,
    several_servers_are_listed_at_the_root_document,
    issued_resource_client_secret_is_shown_once,
    changes_are_audited,
);

fn created_server_has_every_member_of_the_contract(server: &Server) {
    let resource = format!("https://{}.test/mcp", unique("mcp"));
    let body = json!({ "name": "Financial", "resource_uri": resource, "description": "d", "scopes_supported": ["mcp:read"] });
    let answer = server.acme().admin("POST", "/mcp/servers").json(body).send().expect(201).json();
    assert!(answer["message"].is_string());
    let data = &answer["data"];
    let expected = json!({
        "name": "Financial", "description": "d", "resource_uri": resource, "endpoint_url": null,
        "transport": "http_streamable", "auth_mode": "oauth", "status": "active", "scopes_supported": ["mcp:read"],
        "scope_descriptions": {}, "allowed_client_ids": [], "allowed_agent_ids": [], "require_pkce": true,
        "require_resource_param": true, "require_dpop": false, "token_lifetime": 3600,
    });
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(data.get(member), Some(value), "{member} in {data}");
    }
    // The generated client wants an integer here, and JavaScript must be able to hold it.
    assert!((1..1 << 53).contains(&int(&data["id"])));
    let id = text(&data["server_id"]);
    assert!(
        id.len() == 28 && id[4..].bytes().all(|b| b.is_ascii_hexdigit()) && id.starts_with("mcp_"),
        "{id}"
    );
    assert!(text(&data["created_at"]).ends_with('Z') && text(&data["updated_at"]).ends_with('Z'));
}

fn urn_resources_are_accepted(server: &Server) {
    let urn = format!("urn:mcp:{}", unique("data"));
    let created = server.acme().mcp_server(json!({ "resource_uri": urn }));
    assert_eq!(created["resource_uri"], urn);
}

fn scopes_may_be_an_array_or_text(server: &Server) {
    for scopes in
        [json!(["mcp:read", "mcp:write"]), json!("mcp:read mcp:write"), json!("mcp:read, mcp:write")]
    {
        let created = server.acme().mcp_server(json!({ "scopes_supported": scopes }));
        assert_eq!(strings(&created["scopes_supported"]), ["mcp:read", "mcp:write"]);
    }
}

fn lifetime_is_clamped(server: &Server) {
    for (asked, given) in [(1, 60), (60, 60), (300, 300), (86_400, 86_400), (1_000_000, 86_400)] {
        assert_eq!(server.acme().mcp_server(json!({ "token_lifetime": asked }))["token_lifetime"], given);
    }
}

fn same_resource_conflicts(server: &Server) {
    let created = server.acme().mcp_server(json!({}));
    let resource = text(&created["resource_uri"]);
    let host = resource.trim_start_matches("https://").trim_end_matches("/mcp");
    for same in [resource.to_owned(), format!("HTTPS://{}:443/mcp/", host.to_uppercase())] {
        let body = json!({ "name": "Twin", "resource_uri": same });
        server.acme().admin("POST", "/mcp/servers").json(body).send().refused(409, "duplicate_resource");
    }
    // Another organization has a namespace of its own.
    server.globex().mcp_server(json!({ "resource_uri": resource }));
}

fn bad_servers_are_unprocessable(server: &Server) {
    let uri = || format!("https://{}.test/mcp", unique("mcp"));
    for body in [
        json!({}),
        json!({ "name": "No resource" }),
        json!({ "resource_uri": uri() }),
        json!({ "name": "", "resource_uri": uri() }),
        json!({ "name": "x", "resource_uri": "not a uri" }),
        json!({ "name": "x", "resource_uri": format!("{}#fragment", uri()) }),
        json!({ "name": "x", "resource_uri": "javascript:alert(1)" }),
        json!({ "name": "x", "resource_uri": "ftp://files.test" }),
        json!({ "name": "x", "resource_uri": uri(), "transport": "pigeon" }),
        json!({ "name": "x", "resource_uri": uri(), "auth_mode": "trust" }),
        json!({ "name": "x", "resource_uri": uri(), "scopes_supported": ["has space"] }),
    ] {
        let response = server.acme().admin("POST", "/mcp/servers").json(body.clone()).send();
        assert_eq!(response.status, 422, "{body}: {response}");
        let refusal = response.refused(422, "validation_error");
        assert!(refusal["details"].as_object().is_some_and(|it| !it.is_empty()), "{refusal}");
    }
    // A member of the wrong type is a body that cannot be read, or one that is not acceptable.
    let body = json!({ "name": "x", "resource_uri": 7 });
    let response = server.acme().admin("POST", "/mcp/servers").json(body).send();
    assert!(matches!(response.status, 400 | 422), "{response}");
    response.refused_somehow();
}

fn unknown_allowed_client_is_unprocessable(server: &Server) {
    for member in ["allowed_client_ids", "allowed_agent_ids"] {
        let body = json!({ "name": "x", "resource_uri": format!("https://{}.test", unique("m")), member: ["nobody"] });
        server.acme().admin("POST", "/mcp/servers").json(body).send().refused(422, "validation_error");
    }
}

fn server_is_read_changed_and_deleted(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({ "description": "before" }));
    let path = format!("/mcp/servers/{}", text(&created["server_id"]));
    assert_eq!(org.admin("GET", &path).send().ok()["data"]["resource_uri"], created["resource_uri"]);
    for method in ["PUT", "PATCH"] {
        let body = org.admin(method, &path).json(json!({ "description": method })).send().ok();
        assert_eq!((&body["data"]["description"], &body["data"]["name"]), (&json!(method), &created["name"]));
    }
    assert!(org.admin("DELETE", &path).send().ok()["message"].is_string());
    assert_eq!(org.admin("GET", &path).send().status, 404);
    assert_eq!(org.admin("DELETE", &path).send().status, 404);
}

fn unknown_server_is_not_found(server: &Server) {
    let org = server.acme();
    for id in ["mcp_000000000000000000000000", "nonsense", "%00", "0"] {
        for method in ["GET", "DELETE"] {
            let response = org.admin(method, &format!("/mcp/servers/{id}")).send();
            assert_eq!(response.status, 404, "{response}");
            response.refused_somehow();
        }
        let metadata = org.get(&format!("/.well-known/oauth-protected-resource/mcp/{id}")).send();
        assert_eq!(metadata.status, 404, "{metadata}");
        assert_eq!(org.get(&format!("/mcp/{id}/challenge")).send().status, 404);
    }
}

fn list_has_both_envelopes(server: &Server) {
    server.acme().mcp_server(json!({}));
    let body = server.acme().admin("GET", "/mcp/servers").send().ok();
    assert!(!list(&body["data"]).is_empty());
    assert_eq!(body["meta"], body["pagination"]);
    assert_eq!(body["pagination"].as_object().expect("pagination").len(), 6);
    let body = server.acme().request("GET", "/mcp/servers").api_key(server.acme().key()).send().ok();
    assert_eq!(body["servers"], body["data"]);
    assert_eq!(body["pagination"].as_object().expect("pagination").len(), 6);
}

fn agents_see_the_servers_they_may_use(server: &Server) {
    let org = server.acme();
    let (friend, stranger) = (org.agent(&[]), org.agent(&[]));
    let closed = org.mcp_server(json!({ "allowed_agent_ids": [friend.agent_id] }));
    let id = text(&closed["server_id"]);
    let sees = |token: &str| {
        (1..20).any(|page| {
            let path = format!("/mcp/servers?limit=100&page={page}");
            let body = org.get(&path).bearer(token).send().ok();
            list(&body["servers"]).iter().any(|it| it["server_id"] == id)
        })
    };
    assert!(sees(&friend.token()));
    assert!(!sees(&stranger.token()));
    let one = |token: &str| org.get(&format!("/mcp/servers/{id}")).bearer(token).send().status;
    assert_eq!(one(&friend.token()), 200);
    assert!(matches!(one(&stranger.token()), 403 | 404));
}

fn detail_carries_discovery(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({}));
    let agent = org.agent(&[]);
    let path = format!("/mcp/servers/{}", text(&created["server_id"]));
    let body = org.get(&path).bearer(&agent.token()).send().ok();
    let discovery = find_discovery(&body);
    for member in ["authorization_server_metadata", "protected_resource_metadata", "www_authenticate_example"]
    {
        assert!(!discovery[member].is_null(), "{member} in {body}");
    }
}

fn servers_of_another_organization_are_not_found(server: &Server) {
    let theirs = server.globex().mcp_server(json!({}));
    let id = text(&theirs["server_id"]);
    assert_eq!(server.acme().admin("GET", &format!("/mcp/servers/{id}")).send().status, 404);
    assert_eq!(server.acme().admin("DELETE", &format!("/mcp/servers/{id}")).send().status, 404);
    let path = format!("/.well-known/oauth-protected-resource/mcp/{id}");
    assert_eq!(server.acme().get(&path).send().status, 404);
    server.globex().get(&path).send().ok();
}

fn protected_resource_metadata_names_resource_and_issuer(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({ "scopes_supported": ["mcp:read"] }));
    let path = format!("/.well-known/oauth-protected-resource/mcp/{}", text(&created["server_id"]));
    let body = org.get(&path).send().ok();
    assert_eq!(body["resource"], created["resource_uri"]);
    assert_eq!(list(&body["authorization_servers"])[0], org.issuer());
    assert_eq!(body["bearer_methods_supported"], json!(["header"]));
    assert_eq!(body["scopes_supported"], json!(["mcp:read"]));
}

fn protected_resource_metadata_is_public_in_both_forms(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({}));
    let id = text(&created["server_id"]);
    let appended = org.get(&format!("/.well-known/oauth-protected-resource/mcp/{id}")).send();
    assert_eq!(appended.header("access-control-allow-origin"), Some("*"), "{appended}");
    assert_eq!(appended.header("cache-control"), Some("public, max-age=3600"), "{appended}");
    let path = format!("/.well-known/oauth-protected-resource/orgs/{}/api/v1/mcp/{id}", org.slug());
    assert_eq!(server.request("GET", &path).send().ok(), appended.ok());
}

fn open_server_has_no_protected_resource_metadata(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({ "auth_mode": "none" }));
    let path = format!("/.well-known/oauth-protected-resource/mcp/{}", text(&created["server_id"]));
    assert_eq!(org.get(&path).send().status, 404);
}

fn several_servers_are_listed_at_the_root_document(server: &Server) {
    let org = server.acme();
    let (one, two) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let body = org.get("/.well-known/oauth-protected-resource").send().ok();
    for created in [one, two] {
        let entry = list(&body["resources"]).iter().find(|it| it["resource"] == created["resource_uri"]);
        let entry = entry.unwrap_or_else(|| panic!("not listed: {body}"));
        assert!(text(&entry["resource_metadata_url"]).contains(text(&created["server_id"])));
        assert_eq!(list(&entry["authorization_servers"])[0], org.issuer());
    }
}

fn issued_resource_client_secret_is_shown_once(server: &Server) {
    let org = server.acme();
    let uri = format!("https://{}.test/mcp", unique("mcp"));
    let body = json!({ "name": "With client", "resource_uri": uri, "issueResourceClient": true });
    let response = org.admin("POST", "/mcp/servers").json(body).send().expect(201);
    let created = response.json();
    let id = text(&created["data"]["resource_client_id"]).to_owned();
    let secret = secret_in(&created).unwrap_or_else(|| panic!("a secret: {created}"));
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
    let form = [("token", "garbage"), ("client_id", id.as_str()), ("client_secret", secret.as_str())];
    assert_eq!(org.post("/oauth/introspect").form(&form).send().ok(), json!({ "active": false }));
    let path = format!("/mcp/servers/{}", text(&created["data"]["server_id"]));
    assert!(!org.admin("GET", &path).send().text().contains(&secret));
}

fn changes_are_audited(server: &Server) {
    let org = server.acme();
    let created = org.mcp_server(json!({}));
    let id = text(&created["server_id"]);
    org.admin("PATCH", &format!("/mcp/servers/{id}")).json(json!({ "description": "x" })).send().ok();
    org.admin("DELETE", &format!("/mcp/servers/{id}")).send().ok();
    assert_eq!(org.audit(&format!("targetId={id}")).len(), 3);
}

fn find_discovery(body: &Value) -> &Value {
    [&body["discovery"], &body["data"]["discovery"], &body["server"]["discovery"]]
        .into_iter()
        .find(|it| it.is_object())
        .unwrap_or_else(|| panic!("no discovery: {body}"))
}

/// The name of the member is ours to choose; that there is one is not.
fn secret_in(created: &Value) -> Option<String> {
    let data = created["data"].as_object()?;
    let member = data.iter().find(|(name, value)| name.contains("secret") && value.is_string())?;
    member.1.as_str().map(str::to_owned)
}
