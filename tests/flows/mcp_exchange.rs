//! Exchanging an agent's token for one that is bound to an MCP server (contract 2.1.4 d).

use lumoauth_tests::{Jwks, Response, Server, Token, int, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    https_resource_becomes_the_audience,
    urn_audience_alone_is_resolved,
    alias_and_server_id_are_resolved_as_audience,
    resource_wins_over_audience,
    the_sdk_sends_both_with_the_same_value,
    resource_is_compared_after_normalising,
    unknown_targets_are_invalid,
    inactive_or_deleted_server_is_an_invalid_target,
    agent_outside_the_allow_list_is_an_invalid_target,
    server_of_another_organization_is_an_invalid_target,
    scope_is_bounded_by_the_servers_vocabulary,
    scope_outside_the_vocabulary_is_refused,
    server_without_vocabulary_takes_any_scope_of_the_agent,
    scope_beyond_the_agent_is_refused,
    narrow_subject_stays_narrow,
    lifetime_is_the_servers,
    mcp_token_is_refused_on_our_own_routes,
    mcp_token_cannot_be_exchanged_again_by_whoever_holds_it,
    fixture_server_is_reachable_by_both_names,
    exchange_is_audited_as_a_connection,
    dead_or_foreign_subjects_are_refused,
    jwt_type_is_accepted_for_an_access_token,
    wrong_declared_type_is_refused,
    exchange_without_a_target_narrows_the_token,
);

fn https_resource_becomes_the_audience(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(body["token_type"], "Bearer");
    assert!(body["scope"].is_string() && body.get("refresh_token").is_none(), "{body}");
    let claims =
        Jwks::fetch(&org).verify(text(&body["access_token"]), &org.issuer(), text(&mcp["resource_uri"]));
    assert_eq!(claims["aud"], mcp["resource_uri"], "one string, exactly as registered");
    assert_eq!(
        (&claims["mcp_server_id"], &claims["sub"]),
        (&mcp["server_id"], &json!(format!("agent:{}", agent.slug)))
    );
    assert_eq!(
        (&claims["agent_id"], &claims["client_id"]),
        (&json!(agent.agent_id), &json!(agent.client_id))
    );
    assert_eq!(Token::parse(text(&body["access_token"])).header["typ"], "at+jwt");
}

fn urn_audience_alone_is_resolved(server: &Server) {
    let org = server.acme();
    let urn = format!("urn:mcp:{}", unique("data"));
    org.mcp_server(json!({ "resource_uri": urn }));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("audience", &urn)]).ok();
    assert_eq!(audience(&body), urn);
}

fn alias_and_server_id_are_resolved_as_audience(server: &Server) {
    let org = server.acme();
    let alias = format!("urn:mcp:{}", unique("alias"));
    let mcp = org.mcp_server(json!({ "aliases": [alias] }));
    let agent = org.agent(&["read:a"]);
    for target in [alias.as_str(), text(&mcp["server_id"]), text(&mcp["resource_uri"])] {
        let body = agent.exchange(&agent.token(), &[("audience", target)]).ok();
        let audience = audience(&body);
        assert!(audience == target || audience == text(&mcp["resource_uri"]), "{target}: {audience}");
    }
}

fn resource_wins_over_audience(server: &Server) {
    let org = server.acme();
    let (one, two) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let agent = org.agent(&["read:a"]);
    let target = [("resource", text(&one["resource_uri"])), ("audience", text(&two["resource_uri"]))];
    assert_eq!(audience(&agent.exchange(&agent.token(), &target).ok()), text(&one["resource_uri"]));
    let target = [("audience", "urn:mcp:nobody"), ("resource", text(&one["resource_uri"]))];
    assert_eq!(audience(&agent.exchange(&agent.token(), &target).ok()), text(&one["resource_uri"]));
}

fn the_sdk_sends_both_with_the_same_value(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("audience", resource), ("resource", resource)]).ok();
    assert_eq!(audience(&body), resource);
}

fn resource_is_compared_after_normalising(server: &Server) {
    let org = server.acme();
    let host = format!("{}.test", unique("mcp"));
    let registered = format!("https://{host}/mcp");
    org.mcp_server(json!({ "resource_uri": registered }));
    let agent = org.agent(&["read:a"]);
    for same in [
        format!("HTTPS://{host}/mcp"),
        format!("https://{}/mcp", host.to_uppercase()),
        format!("https://{host}:443/mcp"),
        format!("https://{host}/mcp/"),
    ] {
        assert_eq!(
            audience(&agent.exchange(&agent.token(), &[("resource", &same)]).ok()),
            registered,
            "{same}"
        );
    }
    for other in [
        format!("https://{host}/MCP"),
        format!("https://{host}/mcp//"),
        format!("https://{host}/mcp/x"),
        format!("https://{host}/"),
        format!("https://{host}/mcp?x=1"),
        format!("https://user@{host}/mcp"),
        format!("https://{host}:8443/mcp"),
        format!("https://{host}.evil.test/mcp"),
        format!("https://{host}./mcp"),
    ] {
        agent.exchange(&agent.token(), &[("resource", &other)]).refused(400, "invalid_target");
    }
}

fn unknown_targets_are_invalid(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let fragment = format!("{}#x", text(&mcp["resource_uri"]));
    let agent = org.agent(&["read:a"]);
    for target in
        ["https://nobody.test/mcp", &fragment, "nonsense", "http://plain.test/mcp", "javascript:alert(1)"]
    {
        agent.exchange(&agent.token(), &[("resource", target)]).refused(400, "invalid_target");
    }
    for target in ["urn:mcp:nobody", "mcp_000000000000000000000000", "nonsense"] {
        agent.exchange(&agent.token(), &[("audience", target)]).refused(400, "invalid_target");
    }
    let two = [("resource", text(&mcp["resource_uri"])), ("resource", "https://nobody.test/mcp")];
    agent.exchange(&agent.token(), &two).refused(400, "invalid_target");
}

fn inactive_or_deleted_server_is_an_invalid_target(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
    let exchange = || agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]);
    exchange().ok();
    org.admin("PATCH", &path).json(json!({ "status": "inactive" })).send().ok();
    exchange().refused(400, "invalid_target");
    org.admin("PATCH", &path).json(json!({ "status": "active" })).send().ok();
    exchange().ok();
    org.admin("DELETE", &path).send().ok();
    exchange().refused(400, "invalid_target");
}

fn agent_outside_the_allow_list_is_an_invalid_target(server: &Server) {
    let org = server.acme();
    let (friend, stranger) = (org.agent(&["read:a"]), org.agent(&["read:a"]));
    let by_agent = org.mcp_server(json!({ "allowed_agent_ids": [friend.agent_id] }));
    let target = [("resource", text(&by_agent["resource_uri"]))];
    friend.exchange(&friend.token(), &target).ok();
    let refusal = stranger.exchange(&stranger.token(), &target);
    refusal.refused(400, "invalid_target");
    // Who is refused must not learn that the server exists.
    let unknown = stranger.exchange(&stranger.token(), &[("resource", "https://nobody.test/mcp")]);
    let without = |response: &Response, target: &str| response.text().replace(target, "it");
    assert_eq!(without(&refusal, target[0].1), without(&unknown, "https://nobody.test/mcp"));
}

fn server_of_another_organization_is_an_invalid_target(server: &Server) {
    let theirs = server.globex().mcp_server(json!({}));
    let agent = server.acme().agent(&["read:a"]);
    for target in [("resource", text(&theirs["resource_uri"])), ("audience", text(&theirs["server_id"]))] {
        agent.exchange(&agent.token(), &[target]).refused(400, "invalid_target");
    }
}

fn scope_is_bounded_by_the_servers_vocabulary(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:a", "write:b"] }));
    let agent = org.agent(&["read:a", "tool:x"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    assert_eq!(body["scope"], "read:a");
    assert_eq!(Token::parse(text(&body["access_token"])).claims["scope"], "read:a");
}

fn scope_outside_the_vocabulary_is_refused(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:a"] }));
    let resource = text(&mcp["resource_uri"]);
    let agent = org.agent(&["read:a", "tool:x"]);
    agent
        .exchange(&agent.token(), &[("resource", resource), ("scope", "tool:x")])
        .refused(400, "invalid_scope");
    // Nothing in common and nothing asked for: there is nothing to give.
    let other = org.agent(&["tool:x"]);
    other.exchange(&other.token(), &[("resource", resource)]).refused(400, "invalid_scope");
}

fn server_without_vocabulary_takes_any_scope_of_the_agent(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    let agent = org.agent(&["read:a", "tool:x"]);
    assert_eq!(
        agent.exchange(&agent.token(), &[("resource", resource), ("scope", "tool:x")]).ok()["scope"],
        "tool:x"
    );
    let bare = org.agent(&[]);
    assert_eq!(bare.exchange(&bare.token(), &[("resource", resource)]).ok()["scope"], "");
}

fn scope_beyond_the_agent_is_refused(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:a", "write:b"] }));
    let agent = org.agent(&["read:a"]);
    let target = [("resource", text(&mcp["resource_uri"])), ("scope", "write:b")];
    agent.exchange(&agent.token(), &target).refused(400, "invalid_scope");
}

fn narrow_subject_stays_narrow(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    let agent = org.agent(&["read:a", "write:b"]);
    let narrow = agent.token_for("read:a");
    assert_eq!(agent.exchange(&narrow, &[("resource", resource)]).ok()["scope"], "read:a");
    agent.exchange(&narrow, &[("resource", resource), ("scope", "write:b")]).refused(400, "invalid_scope");
}

fn lifetime_is_the_servers(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    for lifetime in [60, 7200] {
        let mcp = org.mcp_server(json!({ "token_lifetime": lifetime }));
        let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
        let claims = Token::parse(text(&body["access_token"])).claims;
        assert_eq!(
            (int(&body["expires_in"]), int(&claims["exp"]) - int(&claims["iat"])),
            (lifetime, lifetime)
        );
    }
}

fn mcp_token_is_refused_on_our_own_routes(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let token = text(&body["access_token"]);
    org.get("/agents/me").bearer(token).send().refused(401, "invalid_token");
    agent.userinfo(token).refused(401, "invalid_token");
    agent.ask(token, "read:a").refused(401, "invalid_token");
    org.post("/agents/me/usage")
        .bearer(token)
        .json(json!({ "tokens": 1 }))
        .send()
        .refused(401, "invalid_token");
    let check =
        server.request("POST", "/api/v1/authz/check").bearer(token).json(json!({ "permission": "read:a" }));
    check.send().refused(401, "invalid_token");
    let response = org.request("GET", "/admin/agents").bearer(token).send();
    assert!(matches!(response.status, 401 | 403), "{response}");
}

fn mcp_token_cannot_be_exchanged_again_by_whoever_holds_it(server: &Server) {
    let org = server.acme();
    let (one, two) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&one["resource_uri"]))]).ok();
    let token = text(&body["access_token"]);
    agent.exchange(token, &[("resource", text(&two["resource_uri"]))]).refused(400, "invalid_grant");
    agent.exchange(token, &[("resource", text(&one["resource_uri"]))]).refused(400, "invalid_grant");
    agent.exchange(token, &[]).refused(400, "invalid_grant");
}

fn fixture_server_is_reachable_by_both_names(server: &Server) {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", server.variable("AGENT_CLIENT_ID")),
        ("client_secret", server.variable("AGENT_CLIENT_SECRET")),
    ];
    let token = server.acme().post("/oauth/token").form(&form).send().ok();
    let resource = server.variable("MCP_RESOURCE");
    for target in [("resource", resource), ("audience", "urn:mcp:financial-data")] {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", text(&token["access_token"])),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            target,
        ];
        let audience = audience(&server.acme().post("/oauth/token").form(&form).send().ok());
        assert!(audience == resource || audience == target.1, "{audience}");
    }
}

fn exchange_is_audited_as_a_connection(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let entries = org.audit(&format!("actorId={}&action=mcp.connection", agent.agent_id));
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["targetId"], mcp["server_id"]);
    assert_eq!(entries[0]["ipAddress"], "127.0.0.1");
}

fn dead_or_foreign_subjects_are_refused(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let target = [("resource", text(&mcp["resource_uri"]))];
    let agent = org.agent(&["read:a"]);
    let foreign = server.globex().agent(&["read:a"]).token();
    let key = org.create_agent(json!({ "identityType": "api_key" })).api_key;
    for subject in ["nonsense", "a.b.c", foreign.as_str(), key.as_str(), org.key()] {
        agent.exchange(subject, &target).refused(400, "invalid_grant");
    }
    let token = agent.token();
    agent.admin("POST", "/deactivate").send().ok();
    agent.exchange(&token, &target).refused(400, "invalid_grant");
}

fn jwt_type_is_accepted_for_an_access_token(server: &Server) {
    let body = exchange_as(server, "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(body.0, 200, "{}", body.1);
}

fn wrong_declared_type_is_refused(server: &Server) {
    for kind in
        ["urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:refresh_token"]
    {
        let (status, body) = exchange_as(server, kind);
        assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")), "{kind}");
    }
}

fn exchange_as(server: &Server, kind: &str) -> (u16, Value) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let token = org.agent(&["read:a"]).token();
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", token.as_str()),
        ("subject_token_type", kind),
        ("resource", text(&mcp["resource_uri"])),
    ];
    let response = org.post("/oauth/token").form(&form).send();
    (response.status, response.json())
}

/// Case (e) of the contract; a server that does not offer it must refuse, never widen.
fn exchange_without_a_target_narrows_the_token(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let subject = agent.parsed_token();
    let response = agent.exchange(&subject.text, &[("scope", "read:a")]);
    if response.status == 400 {
        response.refused_somehow();
        return;
    }
    let claims = Token::parse(text(&response.ok()["access_token"])).claims;
    assert_eq!((&claims["scope"], &claims["aud"]), (&json!("read:a"), &subject.claims["aud"]));
    assert!(int(&claims["exp"]) <= int(&subject.claims["exp"]));
}

fn audience(body: &Value) -> String {
    text(&Token::parse(text(&body["access_token"])).claims["aud"]).to_owned()
}
