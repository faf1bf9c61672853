//! What an agent token must be (contract 3.7).

use lumoauth_tests::{AAuthAgent, AAuthResource, Ed25519, Response, Server, on_each_backend, text, unix_now};
use serde_json::{Value, json};

use super::unauthenticated;

on_each_backend!(
    claims_are_required_and_checked,
    audience_must_be_us_if_there_is_one,
    life_is_an_hour_at_most,
    confirmation_names_the_key_that_signs,
    key_may_be_named_by_its_thumbprint,
    other_key_is_a_failed_binding,
    header_must_be_that_of_an_agent_token,
    signature_must_be_the_agents,
    agent_must_be_registered_and_active,
    algorithms_are_those_that_the_agent_may_use,
    agent_token_stands_in_one_line_once,
    key_that_is_taken_away_signs_nothing_more,
);

fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

fn body(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Value {
    json!({ "request_type": "auth", "resource_token": resource.token_for(agent) })
}

fn with(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, token: &str) -> Response {
    agent.call(&body(agent, resource)).by(token).signed(&agent.key).send()
}

fn claims_are_required_and_checked(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    with(&agent, &resource, &agent.token()).ok();
    for name in ["iss", "sub", "cnf", "exp"] {
        for wrong in [Value::Null, json!(""), json!(7), json!([]), json!(true)] {
            if name == "exp" && wrong == 7 {
                continue;
            }
            let token = agent.token_saying(json!({ name: wrong }));
            unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
        }
    }
    for changes in [
        json!({ "exp": now - 1 }),
        json!({ "exp": 1 }),
        json!({ "exp": -1 }),
        json!({ "exp": "soon" }),
        json!({ "exp": 1.0e30 }),
        json!({ "nbf": now + 300 }),
        json!({ "iat": now + 300, "exp": now + 600 }),
        json!({ "sub": "x".repeat(300) }),
    ] {
        let token = agent.token_saying(changes);
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
}

fn audience_must_be_us_if_there_is_one(server: &Server) {
    let (agent, resource) = both(server);
    let issuer = agent.org.issuer();
    for aud in [json!(issuer), json!([issuer]), json!(["https://else.test", issuer])] {
        with(&agent, &resource, &agent.token_saying(json!({ "aud": aud }))).ok();
    }
    for aud in
        [json!("https://else.test"), json!([]), json!(""), json!(format!("{issuer}/")), json!({}), json!(1)]
    {
        let token = agent.token_saying(json!({ "aud": aud }));
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
}

fn life_is_an_hour_at_most(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    with(&agent, &resource, &agent.token_saying(json!({ "exp": now + 3600 }))).ok();
    let token = agent.token_saying(json!({ "exp": now + 2 * 3600 }));
    unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
}

fn confirmation_names_the_key_that_signs(server: &Server) {
    let (agent, resource) = both(server);
    let (key, other) = (&agent.key, Ed25519::generate("other"));
    with(
        &agent,
        &resource,
        &agent.token_saying(json!({ "cnf": { "jwk": key.jwk(), "jkt": key.thumbprint() } })),
    )
    .ok();
    let mut private = key.jwk();
    private["d"] = json!(key.x());
    let hollow = json!({ "kty": "OKP", "crv": "Ed25519" });
    let small = json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
    let secret = json!({ "kty": "oct", "k": key.x() });
    for cnf in [
        json!({}),
        json!("key"),
        json!({ "kid": key.kid() }),
        json!({ "jwk": key.jwk(), "jkt": other.thumbprint() }),
        json!({ "jwk": other.jwk(), "jkt": key.thumbprint() }),
        json!({ "jwk": key.jwk(), "jkt": 1 }),
        json!({ "jwk": private }),
        json!({ "jwk": hollow }),
        json!({ "jwk": small }),
        json!({ "jwk": secret }),
        json!({ "jwk": [key.jwk()] }),
        json!({ "jku": "https://keys.test" }),
        json!({ "jkt": other.thumbprint() }),
        json!({ "jkt": key.thumbprint().to_uppercase() }),
        json!({ "jkt": format!("{}=", key.thumbprint()) }),
    ] {
        let token = agent.token_saying(json!({ "cnf": cnf }));
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
}

fn key_may_be_named_by_its_thumbprint(server: &Server) {
    let (agent, resource) = both(server);
    let token = agent.token_saying(json!({ "cnf": { "jkt": agent.key.thumbprint() } }));
    with(&agent, &resource, &token).ok();
}

fn other_key_is_a_failed_binding(server: &Server) {
    let (agent, resource) = both(server);
    let thief = Ed25519::generate(agent.key.kid());
    let call = agent.call(&body(&agent, &resource));
    unauthenticated(&call.signed(&thief).send(), "key_binding_failed");
    // A key of its own that the token is not bound to is as good as anybody's.
    let second = Ed25519::generate("second");
    let path = format!("/aauth/agents/{}", agent.id);
    let keys = json!({ "jwks": { "keys": [agent.key.jwk(), second.jwk()] } });
    agent.org.admin("PATCH", &path).json(keys).send().ok();
    let call = agent.call(&body(&agent, &resource));
    unauthenticated(&call.signed(&second).send(), "key_binding_failed");
    call.signed(&agent.key).send().ok();
}

fn header_must_be_that_of_an_agent_token(server: &Server) {
    let (agent, resource) = both(server);
    let (claims, kid) = (agent.claims(json!({})), agent.key.kid());
    for header in [
        json!({ "typ": "JWT", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "aa-agent+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "auth+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "resource+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": ["agent+jwt"], "alg": "EdDSA", "kid": kid }),
        json!({ "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "agent+jwt", "alg": "none", "kid": kid }),
        json!({ "typ": "agent+jwt", "alg": "HS256", "kid": kid }),
        json!({ "typ": "agent+jwt", "alg": "ES256", "kid": kid }),
        json!({ "typ": "agent+jwt", "kid": kid }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": "unknown" }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": 1 }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": kid, "crit": ["exp"] }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": kid, "b64": false, "crit": ["b64"] }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": kid, "zip": "DEF" }),
    ] {
        let token = agent.key.jws(&header, &claims);
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
    let good = agent.token();
    let parts: Vec<_> = good.split('.').collect();
    for token in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.x"),
        format!("{good}="),
        "..".to_owned(),
        "x".repeat(30_000),
    ] {
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
}

fn signature_must_be_the_agents(server: &Server) {
    let (agent, resource) = both(server);
    let thief = Ed25519::generate(agent.key.kid());
    // By a key of somebody else that is called the same, and brought along.
    let claims = agent.claims(json!({ "cnf": { "jwk": thief.jwk() } }));
    let header = json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": thief.kid(), "jwk": thief.jwk() });
    let call = agent.call(&body(&agent, &resource)).by(&thief.jws(&header, &claims));
    unauthenticated(&call.signed(&thief).send(), "invalid_agent_token");
    // By another agent.
    let other = agent.org.aauth_agent(json!({}));
    let token = other.key.token("agent+jwt", &agent.claims(json!({ "cnf": { "jwk": other.key.jwk() } })));
    let call = agent.call(&body(&agent, &resource)).by(&token);
    unauthenticated(&call.signed(&other.key).send(), "invalid_agent_token");
    // With other claims than were signed.
    let good = agent.token();
    let parts: Vec<_> = good.split('.').collect();
    let bent = lumoauth_tests::b64(agent.claims(json!({ "sub": "admin" })).to_string());
    let token = format!("{}.{bent}.{}", parts[0], parts[2]);
    unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
}

fn agent_must_be_registered_and_active(server: &Server) {
    let (agent, resource) = both(server);
    let stranger = agent.token_saying(json!({ "iss": "https://nobody.test", "sub": "https://nobody.test" }));
    let unknown = unauthenticated(&with(&agent, &resource, &stranger), "invalid_agent_token");
    for iss in [
        format!("{}/", agent.identifier),
        agent.identifier.to_uppercase(),
        agent.identifier.replace("https", "http"),
        agent.id.clone(),
    ] {
        let token = agent.token_saying(json!({ "iss": iss }));
        unauthenticated(&with(&agent, &resource, &token), "invalid_agent_token");
    }
    agent.admin("POST", "/deactivate").send().ok();
    let inactive = unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    assert_eq!(
        unknown["error_description"], inactive["error_description"],
        "who is known is nobody's business"
    );
    agent.admin("POST", "/activate").send().ok();
    agent.tokens(&resource);
    agent.org.admin("DELETE", &format!("/agents/{}", agent.id)).send().ok();
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
}

fn algorithms_are_those_that_the_agent_may_use(server: &Server) {
    let org = server.acme();
    let resource = org.aauth_resource(json!({}));
    let agent = org.aauth_agent(json!({ "signing_algs": ["ed25519"] }));
    agent.tokens(&resource);
    let agent = org.aauth_agent(json!({ "signing_algs": ["rsa-pss-sha512", "ecdsa-p256-sha256"] }));
    unauthenticated(&agent.ask_for(&resource), "invalid_signature");
}

fn agent_token_stands_in_one_line_once(server: &Server) {
    let (agent, resource) = both(server);
    let call = agent.call(&body(&agent, &resource));
    let twice = call.clone().and("Agent-Auth", &format!("agent_token={}", agent.token()));
    super::refused(&twice.signed(&agent.key).send(), 400, "invalid_request");
    let quoted = call.clone().with("Agent-Auth", &format!("agent_token=\"{}\"", agent.token()));
    quoted.signed(&agent.key).send().ok();
    for other in ["httpsig", "agent_token", "token=x", "Agent_Token=x"] {
        let answer = call.clone().with("Agent-Auth", other).signed(&agent.key).send();
        unauthenticated(&answer, "invalid_signature");
    }
    // It is not covered; whoever puts another one in its place only gets what that one is bound to.
    let other = agent.org.aauth_agent(json!({}));
    let sent = call.signed(&agent.key).with("Agent-Auth", &format!("agent_token={}", other.token()));
    unauthenticated(&sent.send(), "key_binding_failed");
}

fn key_that_is_taken_away_signs_nothing_more(server: &Server) {
    let (mut agent, resource) = both(server);
    agent.tokens(&resource);
    let old = agent.token();
    let next = Ed25519::generate("next");
    let path = format!("/aauth/agents/{}", agent.id);
    agent.org.admin("PATCH", &path).json(json!({ "jwks": next.jwks() })).send().ok();
    unauthenticated(&with(&agent, &resource, &old), "invalid_agent_token");
    agent.key = next;
    assert!(!text(&agent.tokens(&resource)["auth_token"]).is_empty());
}
