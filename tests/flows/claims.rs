//! What an agent access token says, checked with an independent JWT library (contract part 3.1).

use std::collections::HashSet;

use lumoauth_tests::{Jwks, Server, Token, int, on_each_backend, text, unix_now};
use serde_json::{Value, json};

on_each_backend!(
    token_verifies_with_a_published_key,
    token_carries_every_claim_of_the_contract,
    token_header_names_type_key_and_algorithm_only,
    lifetime_equals_the_agents_token_lifetime,
    lifetime_is_clamped,
    token_ids_are_unique,
    times_are_integers_around_now,
    portal_test_token_says_so,
);

fn token_verifies_with_a_published_key(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let claims = Jwks::fetch(&agent.org).verify(&agent.token(), &agent.org.issuer(), &agent.client_id);
    assert_eq!(claims["sub"], format!("agent:{}", agent.slug));
    let metadata = agent.org.get("/.well-known/oauth-authorization-server").send().ok();
    assert_eq!(claims["iss"], metadata["issuer"]);
}

fn token_carries_every_claim_of_the_contract(server: &Server) {
    let agent = server.acme().agent(&["read:a", "tool:b"]);
    let claims = agent.parsed_token().claims;
    let expected = json!({
        "iss": agent.org.issuer(), "sub": format!("agent:{}", agent.slug), "aud": agent.client_id,
        "client_id": agent.client_id, "agent_id": agent.agent_id, "agent_name": agent.name,
        "identity_type": "agent", "organization": agent.org.slug(), "tenant": agent.org.slug(),
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&claims[name], value, "{name}");
    }
    let mut scope: Vec<&str> = text(&claims["scope"]).split(' ').collect();
    scope.sort_unstable();
    assert_eq!(scope, ["read:a", "tool:b"]);
    assert!(claims.get("test").is_none() && claims.get("act").is_none(), "{claims}");
    assert!(!text(&claims["jti"]).is_empty());
}

fn token_header_names_type_key_and_algorithm_only(server: &Server) {
    let header = server.acme().agent(&[]).parsed_token().header;
    let members: Vec<&String> = header.as_object().expect("an object").keys().collect();
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(header["alg"], "ES256");
    assert!(!text(&header["kid"]).is_empty());
    assert_eq!(members.len(), 3, "{header}");
}

fn lifetime_equals_the_agents_token_lifetime(server: &Server) {
    let agent = server.acme().create_agent(json!({ "tokenLifetime": 900 }));
    let body = agent.ask_token(&[]).ok();
    assert_eq!(int(&body["expires_in"]), 900);
    assert_eq!(life(&body), 900);
}

fn lifetime_is_clamped(server: &Server) {
    for (asked, given) in [(1, 120), (120, 120), (86_400, 86_400), (1_000_000, 86_400)] {
        let agent = server.acme().create_agent(json!({ "tokenLifetime": asked }));
        let body = agent.ask_token(&[]).ok();
        assert_eq!((int(&body["expires_in"]), life(&body)), (given, given), "{asked}");
    }
}

fn token_ids_are_unique(server: &Server) {
    let agent = server.acme().agent(&[]);
    let ids: HashSet<String> =
        (0..20).map(|_| text(&agent.parsed_token().claims["jti"]).to_owned()).collect();
    assert_eq!(ids.len(), 20);
}

fn times_are_integers_around_now(server: &Server) {
    let agent = server.acme().agent(&[]);
    let before = unix_now();
    let claims = agent.parsed_token().claims;
    let after = unix_now();
    assert!((before..=after).contains(&int(&claims["iat"])), "{claims}");
    assert!(int(&claims["nbf"]) <= int(&claims["iat"]));
    assert_eq!(int(&claims["exp"]), int(&claims["iat"]) + 3600);
}

fn portal_test_token_says_so(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let data = agent.admin("POST", "/token").json(json!({ "expiresIn": 600 })).send().ok()["data"].clone();
    let token = text(&data["accessToken"]);
    let claims = Jwks::fetch(&agent.org).verify(token, &agent.org.issuer(), &agent.client_id);
    assert_eq!(claims["test"], true);
    assert_eq!(int(&claims["exp"]) - int(&claims["iat"]), 600);
}

fn life(body: &Value) -> i64 {
    let claims = Token::parse(text(&body["access_token"])).claims;
    int(&claims["exp"]) - int(&claims["iat"])
}
