//! What an authorization request asks for, and the tokens that come of it (contract 2.12, 2.13, 3.2).

use lumoauth_tests::{
    Agent, CALLBACK, Jwks, Person, Server, Token, asking, b64, int, list, on_each_backend, strings, text,
    told, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    discovery_says_what_people_are_served,
    omitted_scope_asks_for_everything_but_power,
    refresh_token_only_when_it_is_asked_for,
    resource_binds_the_tokens,
    resource_that_is_not_served_is_an_invalid_target,
    id_token_verifies_with_the_published_keys,
    id_token_carries_claims_by_scope,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    fields.extend_from_slice(more);
    fields
}

fn discovery_says_what_people_are_served(server: &Server) {
    let body = server.acme().get("/.well-known/openid-configuration").send().ok();
    let has = |member: &str, wanted: &[&str]| {
        let listed = strings(&body[member]);
        assert!(wanted.iter().all(|name| listed.contains(name)), "{member}: {listed:?}");
    };
    has("grant_types_supported", &["authorization_code", "refresh_token", "client_credentials"]);
    has("scopes_supported", &["openid", "profile", "email", "offline_access"]);
    has("token_endpoint_auth_methods_supported", &["private_key_jwt", "none"]);
    has("prompt_values_supported", &["none", "login", "consent"]);
    assert_eq!(strings(&body["response_types_supported"]), ["code"]);
    assert_eq!(strings(&body["code_challenge_methods_supported"]), ["S256"]);
    assert_eq!(strings(&body["id_token_signing_alg_values_supported"]), ["ES256"]);
    assert_eq!(body["authorization_response_iss_parameter_supported"], true);
}

fn omitted_scope_asks_for_everything_but_power(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let held = ["read:a", "tool:x", "delegate:on_behalf", "admin:agents", "authz:check", "openid"];
    let agent = org.create_agent(json!({ "capabilities": held, "redirectUris": [CALLBACK] }));
    let mut fields = asking(&agent.client_id, "");
    for _ in 0..2 {
        let asked = alice.authorize(&fields).ok();
        let mut names: Vec<_> = list(&asked["scopes"]).iter().map(|scope| text(&scope["name"])).collect();
        names.sort_unstable();
        assert_eq!(names, ["read:a", "tool:x"]);
        // Empty and absent are the same.
        fields.retain(|(name, _)| *name != "scope");
    }
}

fn refresh_token_only_when_it_is_asked_for(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let has = |body: Value| body.get("refresh_token").is_some();
    let of_agent = |scope, more: &[(&'static str, &'static str)]| {
        let code = alice.code_of(&with(asking(&agent.client_id, scope), more));
        has(agent.redeem(&code, &[]).ok())
    };
    assert!(!of_agent("read:a", &[]));
    assert!(!of_agent("read:a", &[("access_type", "online")]));
    assert!(of_agent("read:a", &[("access_type", "offline")]));
    assert!(of_agent("read:a offline_access", &[]));
    // Who leaves it out of what they agree to gives none.
    let more = [("access_type", "offline"), ("prompt", "consent")];
    let asked = alice.authorize(&with(asking(&agent.client_id, "read:a"), &more)).ok();
    let names: Vec<_> = list(&asked["scopes"]).iter().map(|scope| text(&scope["name"])).collect();
    assert!(names.contains(&"offline_access"), "people are told: {asked}");
    let some = alice.decide(&asked, "approve", &[("scopes", "read:a")]).ok();
    assert!(!has(agent.redeem(text(&some["code"]), &[]).ok()));
    for (types, expected) in
        [(json!(["authorization_code"]), false), (json!(["authorization_code", "refresh_token"]), true)]
    {
        let app = org.app(json!({ "grantTypes": types, "allowedScopes": ["read:a"] }));
        let code = alice.code_of(&asking(&app.client_id, "read:a"));
        assert_eq!(has(app.redeem(&code, &[]).ok()), expected);
    }
}

fn resource_binds_the_tokens(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let mcp = org.mcp_server(json!({
        "scopes_supported": ["read:a"], "scope_descriptions": { "read:a": "See your invoices" },
    }));
    let resource = text(&mcp["resource_uri"]);
    let fields =
        with(asking(&agent.client_id, "read:a"), &[("resource", resource), ("access_type", "offline")]);
    let asked = alice.authorize(&fields).ok();
    assert_eq!(asked["resource"], resource);
    let described = json!({ "name": "read:a", "description": "See your invoices" });
    assert!(list(&asked["scopes"]).contains(&described), "{asked}");
    let code = alice.decide(&asked, "approve", &[]).ok();
    let body = agent.redeem(text(&code["code"]), &[("resource", resource)]).ok();
    let next = agent.refresh(text(&body["refresh_token"]), &[]).ok();
    for body in [&body, &next] {
        let token = text(&body["access_token"]);
        let claims = Jwks::fetch(&org).verify(token, &org.issuer(), resource);
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!(resource), &json!(alice.id)));
        assert_eq!(claims["client_id"], agent.client_id.as_str());
        // It is for that server and not for this one.
        assert_eq!(agent.userinfo(token).status, 401);
        assert_eq!(org.introspect(&agent, token)["aud"], resource);
    }
    // What the server has no word for cannot be asked for there.
    let wide = with(asking(&agent.client_id, "read:b"), &[("resource", resource)]);
    assert_eq!(told(&alice.authorize(&wide))["error"], "invalid_scope");
}

fn resource_that_is_not_served_is_an_invalid_target(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let (open, closed) = (
        org.mcp_server(json!({})),
        org.mcp_server(json!({ "allowed_agent_ids": [org.agent(&[]).agent_id] })),
    );
    let (open, closed) = (text(&open["resource_uri"]), text(&closed["resource_uri"]));
    for resources in [
        vec![closed],
        vec!["https://nobody.test/mcp"],
        vec!["not a uri"],
        vec![open, closed],
        vec![open, open],
    ] {
        let more: Vec<_> = resources.iter().map(|resource| ("resource", *resource)).collect();
        let answer = alice.authorize(&with(asking(&agent.client_id, "read:a"), &more));
        assert_eq!(told(&answer)["error"], "invalid_target", "{resources:?}");
    }
    // A code for one is not one for another.
    let code = alice.code_of(&with(asking(&agent.client_id, "read:a"), &[("resource", open)]));
    let other = org.mcp_server(json!({}));
    agent.redeem(&code, &[("resource", text(&other["resource_uri"]))]).refused(400, "invalid_target");
    agent.redeem(&code, &[("resource", open), ("resource", open)]).refused(400, "invalid_target");
    agent.redeem(&code, &[("resource", open)]).ok();
    let own = alice.code_of(&with(asking(&agent.client_id, "read:a"), &[("prompt", "consent")]));
    agent.redeem(&own, &[("resource", open)]).refused(400, "invalid_target");
}

fn id_token_verifies_with_the_published_keys(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let nonce = "n-0S6_WzA2Mj \"ü\"";
    let code = alice.code_of(&with(asking(&agent.client_id, "openid read:a"), &[("nonce", nonce)]));
    let body = agent.redeem(&code, &[]).ok();
    let (id_token, access) = (text(&body["id_token"]), text(&body["access_token"]));
    let claims = Jwks::fetch(&org).verify(id_token, &org.issuer(), &agent.client_id);
    let header = Token::parse(id_token).header;
    assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!("ES256")));
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(alice.id), &json!(agent.client_id)));
    assert_eq!(claims["nonce"], nonce);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, access.as_bytes());
    assert_eq!(claims["at_hash"], b64(&hash.as_ref()[..16]));
    assert!(int(&claims["auth_time"]) <= int(&claims["iat"]));
    assert!(int(&claims["exp"]) > unix_now());
    assert_eq!(strings(&claims["amr"]), ["pwd"]);
    assert!(claims.get("scope").is_none() && claims.get("email").is_none(), "{claims}");
    // Without openid there is none, and without a nonce it has none.
    let code = alice.code_of(&asking(&agent.client_id, "read:a"));
    assert!(agent.redeem(&code, &[]).ok().get("id_token").is_none());
    let code = alice.code_of(&asking(&agent.client_id, "openid"));
    let body = agent.redeem(&code, &[]).ok();
    assert!(Token::parse(text(&body["id_token"])).claims.get("nonce").is_none());
}

fn id_token_carries_claims_by_scope(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person_with(json!({ "name": "Alice Ng" })), org.delegate(&[]));
    let claims = |scope: &str| {
        let code = alice.code_of(&asking(&agent.client_id, scope));
        Token::parse(text(&agent.redeem(&code, &[]).ok()["id_token"])).claims
    };
    let plain = claims("openid");
    assert!(plain.get("name").is_none() && plain.get("email").is_none());
    let profile = claims("openid profile");
    assert_eq!(profile["name"], "Alice Ng");
    assert!(profile.get("email").is_none());
    let email = claims("openid email");
    assert_eq!((&email["email"], &email["email_verified"]), (&json!(alice.email), &json!(false)));
    assert!(email.get("name").is_none());
}
