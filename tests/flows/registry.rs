//! Creating and changing agents (contract 2.4).

use lumoauth_tests::{Server, int, on_each_backend, strings, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    created_agent_has_every_member_of_the_contract,
    defaults_are_the_documented_ones,
    both_key_styles_are_accepted,
    secret_is_shown_once_and_never_again,
    api_key_identity_gets_a_key,
    identity_without_a_secret_gets_none_unless_asked,
    agent_is_found_by_each_of_its_ids,
    put_and_patch_are_partial,
    scopes_are_read_and_replaced,
    scopes_must_be_an_array_of_capabilities,
    bad_agents_are_refused,
    bad_budgets_are_refused,
    unknown_members_are_ignored,
    read_only_members_cannot_be_set,
    null_equals_absent,
    duplicate_slug_or_client_id_conflicts,
    same_slug_in_two_organizations_is_fine,
    unknown_agent_is_not_found,
    portal_token_is_limited_to_the_agents_capabilities,
    portal_token_accepts_both_lifetime_spellings,
    unknown_budget_members_are_kept_and_returned,
    empty_posts_without_content_type_are_accepted,
    creation_and_update_are_audited,
);

fn created_agent_has_every_member_of_the_contract(server: &Server) {
    let name = unique("Invoice Bot");
    let body = json!({
        "name": name, "description": "Reads invoices", "type": "ai_assistant", "capabilities": ["read:invoices"],
        "allowedTools": ["search_web"], "tokenLifetime": 1800, "budgetPolicy": { "max_tokens_per_day": 200_000 },
    });
    let answer = server.acme().admin("POST", "/agents").json(body).send().expect(201).json();
    assert!(!text(&answer["message"]).is_empty());
    let agent = &answer["data"];
    let expected = json!({
        "name": name, "description": "Reads invoices", "type": "ai_assistant", "status": "active",
        "isActive": true, "identityType": "client_credentials", "capabilities": ["read:invoices"],
        "allowedTools": ["search_web"], "tokenLifetime": 1800, "workloadIdentity": null,
        "aauthIdentity": null, "allowedIps": null, "authMethods": null, "lastUsedAt": null,
    });
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(agent.get(member), Some(value), "{member} in {agent}");
    }
    assert_eq!(int(&agent["budgetPolicy"]["max_tokens_per_day"]), 200_000);
    // The command line client decodes `id` as a string.
    assert_eq!(text(&agent["id"]).len(), 36, "a UUID");
    assert!(text(&agent["agentId"]).starts_with("agt_") && text(&agent["agentId"]).len() >= 16);
    for member in ["slug", "clientId", "createdAt", "updatedAt"] {
        assert!(!text(&agent[member]).is_empty(), "{member}");
    }
    assert!(text(&agent["createdAt"]).ends_with('Z'), "{agent}");
    assert!(agent["redirectUris"].is_array() && agent["roles"].is_array(), "{agent}");
}

fn defaults_are_the_documented_ones(server: &Server) {
    let body = json!({ "name": unique("Plain") });
    let agent = server.acme().admin("POST", "/agents").json(body).send().expect(201).json()["data"].clone();
    assert_eq!(agent["type"], "service");
    assert_eq!(agent["identityType"], "client_credentials");
    assert_eq!(agent["capabilities"], json!([]));
    assert_eq!(agent["tokenLifetime"], 3600);
}

fn both_key_styles_are_accepted(server: &Server) {
    let agent = server.acme().create_agent(json!({
        "identity_type": "client_credentials", "budget_policy": { "max_api_calls_per_hour": 7 },
        "allowedScopes": ["read:a"], "token_lifetime": 600,
    }));
    let data = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!(data["budgetPolicy"]["max_api_calls_per_hour"], 7);
    assert_eq!(data["capabilities"], json!(["read:a"]));
    assert_eq!(data["tokenLifetime"], 600);
}

fn secret_is_shown_once_and_never_again(server: &Server) {
    let body = json!({ "name": unique("Secretive") });
    let response = server.acme().admin("POST", "/agents").json(body).send().expect(201);
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
    let created = response.json()["data"].clone();
    let secret = text(&created["clientSecret"]);
    assert_eq!(created["secret"], secret, "mirrored for older clients");
    assert!(secret.len() >= 43, "256 bits at least");
    let id = text(&created["agentId"]);
    let put = json!({ "description": "changed" });
    for response in [
        server.acme().admin("GET", &format!("/agents/{id}")).send(),
        server.acme().admin("PUT", &format!("/agents/{id}")).json(put).send(),
        server.acme().admin("POST", &format!("/agents/{id}/deactivate")).send(),
        server.acme().admin("GET", &format!("/agents?search={}", text(&created["slug"]))).send(),
        server.acme().admin("GET", &format!("/audit-logs?targetId={id}")).send(),
    ] {
        assert!(!response.text().contains(secret), "{response}");
        assert!(!response.text().contains("clientSecret"), "{response}");
    }
}

fn api_key_identity_gets_a_key(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key", "capabilities": ["read:a"] }));
    assert!(agent.api_key.starts_with("agk_"), "{agent:?}");
    assert_eq!(agent.userinfo(&agent.api_key).ok()["agent_id"], agent.agent_id);
    assert!(!agent.admin("GET", "").send().text().contains(&agent.api_key));
}

fn identity_without_a_secret_gets_none_unless_asked(server: &Server) {
    for identity in ["workload_identity", "aauth"] {
        let agent = server.acme().create_agent(json!({ "identityType": identity }));
        assert!(agent.secret.is_empty() && agent.api_key.is_empty(), "{agent:?}");
        agent.admin("POST", "/rotate-credentials").send().expect(400).refused_somehow();
    }
}

fn agent_is_found_by_each_of_its_ids(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    for id in [&agent.agent_id, &agent.id, &agent.slug] {
        let body = agent.org.admin("GET", &format!("/agents/{id}")).send().ok();
        assert_eq!(body["data"]["agentId"], agent.agent_id);
    }
}

fn put_and_patch_are_partial(server: &Server) {
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "description": "before" }));
    let body = agent.admin("PUT", "").json(json!({ "description": "after" })).send().ok();
    assert_eq!(body["data"]["description"], "after");
    assert!(body["message"].is_string(), "{body}");
    assert_eq!(body["data"]["capabilities"], json!(["read:a"]));
    let renamed = unique("Renamed");
    let body = agent.admin("PATCH", "").json(json!({ "name": renamed, "tokenLifetime": 300 })).send().ok();
    assert_eq!((&body["data"]["name"], &body["data"]["slug"]), (&json!(renamed), &json!(agent.slug)));
    assert_eq!(agent.ask_token(&[]).ok()["expires_in"], 300);
}

fn scopes_are_read_and_replaced(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body = agent.admin("GET", "/scopes").send().ok();
    assert_eq!(body["data"], json!(["read:a"]));
    let pagination = body["pagination"].as_object().expect("pagination");
    for member in ["total", "page", "limit", "totalPages"] {
        int(&pagination[member]);
    }
    assert!(pagination["hasNextPage"].is_boolean() && pagination["hasPreviousPage"].is_boolean());
    let body = agent.admin("PUT", "/scopes").json(json!({ "scopes": ["write:b", "tool:c"] })).send().ok();
    assert_eq!(strings(&body["data"]), ["tool:c", "write:b"]);
    assert!(body["message"].is_string());
    agent.ask_token(&[("scope", "read:a")]).refused(400, "invalid_scope");
    agent.admin("PUT", "/scopes").json(json!({ "scopes": [] })).send().ok();
    assert_eq!(agent.ask_token(&[]).ok()["scope"], "");
}

fn scopes_must_be_an_array_of_capabilities(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    for body in [
        json!({}),
        json!({ "scopes": "read:a" }),
        json!({ "scopes": { "0": "read:a" } }),
        json!({ "scopes": [1] }),
        json!({ "scopes": ["read a"] }),
        json!({ "scopes": [""] }),
        json!({ "scopes": ["x".repeat(129)] }),
        json!({ "scopes": ["re*ad:a"] }),
        json!([]),
    ] {
        agent.admin("PUT", "/scopes").json(body.clone()).send().expect(400).refused_somehow();
    }
    assert_eq!(agent.admin("GET", "/scopes").send().ok()["data"], json!(["read:a"]), "nothing changed");
}

fn bad_agents_are_refused(server: &Server) {
    let with = |member: &str, value: Value| {
        let mut body = json!({ "name": unique("Bad") });
        body[member] = value;
        body
    };
    for body in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": "   " }),
        json!({ "name": 1 }),
        json!({ "name": null }),
        json!({ "name": "x".repeat(10_000) }),
        json!({ "name": "line\nbreak" }),
        with("capabilities", json!(["has space"])),
        with("capabilities", json!(["umlaut:\u{e4}"])),
        with("capabilities", json!("read:a")),
        with("capabilities", json!(["a".repeat(129)])),
        with("type", json!("overlord")),
        with("identityType", json!("telepathy")),
        with("slug", json!("Not A Slug")),
        with("jwksUri", json!("http://plain.test/jwks")),
        with("jwksUri", json!("javascript:alert(1)")),
        with("tokenLifetime", json!("soon")),
        with("tokenLifetime", json!(-1)),
    ] {
        server.acme().admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
}

fn bad_budgets_are_refused(server: &Server) {
    for text in [
        r#"{"max_tokens_per_day":-1}"#,
        r#"{"max_tokens_per_day":"100"}"#,
        r#"{"max_tokens_per_day":1.5}"#,
        r#"{"max_tokens_per_day":1e300}"#,
        r#"{"max_tokens_per_day":99999999999999999999999}"#,
        r#"{"max_api_calls_per_hour":-5}"#,
        r#"{"max_cost_per_month_usd":-0.01}"#,
        r#"{"max_cost_per_month_usd":0.0000001}"#,
        r#"{"max_cost_per_month_usd":1e308}"#,
        r#"{"require_approval_above_usd":"NaN"}"#,
        r#"{"allowed_models":"gpt-4"}"#,
        r#"{"allowed_models":[1]}"#,
        "[]",
        "7",
    ] {
        let body = format!(r#"{{"name":"{}","budgetPolicy":{text}}}"#, unique("Bad"));
        let response = server.acme().admin("POST", "/agents").body("application/json", body).send();
        assert_eq!(response.status, 400, "{text}: {response}");
        response.refused(400, "validation_error");
    }
}

fn unknown_members_are_ignored(server: &Server) {
    server.acme().create_agent(json!({ "favouriteColour": "green", "nested": { "deep": [1, 2, 3] } }));
}

fn read_only_members_cannot_be_set(server: &Server) {
    let hostile = json!({
        "id": "00000000-0000-0000-0000-000000000000", "agentId": "agt_chosenbyclient",
        "organization": "globex", "tenant_id": "globex", "epoch": 9, "isAdmin": true,
        "createdAt": "1999-01-01T00:00:00Z", "tokens_used_today": 0, "clientSecret": "chosen", "secret": "chosen",
    });
    let agent = server.acme().create_agent(hostile.clone());
    assert_ne!(agent.agent_id, "agt_chosenbyclient");
    assert_ne!(agent.secret, "chosen");
    agent.admin("PATCH", "").json(hostile).send().ok();
    // Whoever means to stop an agent hears that this is not how.
    for (member, value) in [
        ("status", json!("suspended")),
        ("status", json!("revoked")),
        ("isActive", json!(false)),
        ("is_active", json!(false)),
        ("slug", json!("another")),
        ("clientId", json!("another")),
    ] {
        let body = json!({ "name": "Other", member: value });
        agent.admin("PATCH", "").json(body).send().refused(400, "validation_error");
    }
    for stopped in [json!({ "status": "inactive" }), json!({ "isActive": false })] {
        let mut body = stopped;
        body["name"] = unique("Stopped").into();
        agent.org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    let shown = agent.admin("GET", "").send().ok()["data"].clone();
    agent.admin("PUT", "").json(shown).send().ok();
    let data = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!(
        (&data["status"], &data["agentId"], &data["id"]),
        (&json!("active"), &json!(agent.agent_id), &json!(agent.id))
    );
    assert_eq!(data["name"], agent.name);
    agent.token();
}

fn null_equals_absent(server: &Server) {
    let agent = server
        .acme()
        .create_agent(json!({ "description": null, "capabilities": null, "budgetPolicy": null }));
    let body = agent.admin("PATCH", "").json(json!({ "name": null, "description": "x" })).send().ok();
    assert_eq!(body["data"]["name"], agent.name);
}

fn duplicate_slug_or_client_id_conflicts(server: &Server) {
    let agent = server.acme().agent(&[]);
    for (member, value) in [("slug", &agent.slug), ("clientId", &agent.client_id)] {
        let body = json!({ "name": unique("Twin"), member: value });
        agent.org.admin("POST", "/agents").json(body).send().refused(409, "duplicate_resource");
    }
}

fn same_slug_in_two_organizations_is_fine(server: &Server) {
    let slug = unique("twin");
    let ours = server.acme().create_agent(json!({ "slug": slug }));
    let theirs = server.globex().create_agent(json!({ "slug": slug }));
    assert_ne!(ours.agent_id, theirs.agent_id);
    let path = format!("/agents/{}", theirs.agent_id);
    assert_eq!(server.acme().admin("GET", &path).send().status, 404);
    assert_eq!(server.acme().admin("DELETE", &path).send().status, 404);
    theirs.token();
}

fn unknown_agent_is_not_found(server: &Server) {
    let org = server.acme();
    for id in ["agt_doesnotexist", "00000000-0000-0000-0000-000000000000", "no-such-slug", "%00", "-"] {
        for (method, path) in [
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("POST", "/activate"),
            ("POST", "/revoke"),
            ("POST", "/rotate-credentials"),
            ("GET", "/scopes"),
            ("GET", "/budget"),
        ] {
            let request = org.admin(method, &format!("/agents/{id}{path}"));
            let response = if method == "PUT" { request.json(json!({})) } else { request }.send();
            assert_eq!(response.status, 404, "{method} {id}{path}: {response}");
            response.refused_somehow();
        }
    }
}

fn portal_token_is_limited_to_the_agents_capabilities(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let data =
        agent.admin("POST", "/token").json(json!({ "scopes": ["read:a"] })).send().ok()["data"].clone();
    assert_eq!(data["scopes"], json!(["read:a"]));
    assert_eq!((&data["tokenType"], &data["expiresIn"]), (&json!("Bearer"), &json!(3600)));
    let token = text(&data["accessToken"]);
    assert_eq!(agent.ask(token, "read:a").ok()["allowed"], true);
    assert_eq!(agent.ask(token, "write:b").ok()["allowed"], false);
    let response = agent.admin("POST", "/token").json(json!({ "scopes": ["admin:all"] })).send();
    response.expect(400).refused_somehow();
}

fn portal_token_accepts_both_lifetime_spellings(server: &Server) {
    let agent = server.acme().agent(&[]);
    for (body, seconds) in [(json!({ "ttl": 600 }), 600), (json!({ "expiresIn": 2_592_000 }), 2_592_000)] {
        assert_eq!(agent.admin("POST", "/token").json(body).send().ok()["data"]["expiresIn"], seconds);
    }
    for body in [json!({ "expiresIn": -1 }), json!({ "expiresIn": "long" })] {
        agent.admin("POST", "/token").json(body).send().expect(400).refused_somehow();
    }
    // Above the maximum: clamped or refused, never longer.
    let response = agent.admin("POST", "/token").json(json!({ "expiresIn": 99_999_999 })).send();
    assert!(response.status == 400 || int(&response.json()["data"]["expiresIn"]) <= 2_592_000, "{response}");
}

fn unknown_budget_members_are_kept_and_returned(server: &Server) {
    let policy = json!({ "max_tokens_per_day": 5, "team": "research" });
    let agent = server.acme().create_agent(json!({ "budgetPolicy": policy }));
    let data = agent.admin("GET", "").send().ok()["data"].clone();
    assert_eq!(data["budgetPolicy"]["team"], "research", "{data}");
}

fn empty_posts_without_content_type_are_accepted(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "custom" }));
    for path in
        ["/deactivate", "/activate", "/disable", "/enable", "/rotate-credentials", "/rotate-key", "/token"]
    {
        agent.admin("POST", path).send().expect(200);
        agent.admin("POST", path).json(json!({})).send().expect(200);
    }
}

fn creation_and_update_are_audited(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.admin("PATCH", "").json(json!({ "description": "x" })).send().ok();
    agent.admin("POST", "/rotate-credentials").send().ok();
    for action in ["agent.created", "agent.updated", "agent.credentials_rotated"] {
        let entries = agent.org.audit(&format!("targetId={}&action={action}", agent.agent_id));
        assert_eq!(entries.len(), 1, "{action}: {entries:?}");
    }
}
