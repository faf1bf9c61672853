//! What a resource token must be (contract 3.7, security HS-20), and asking this server for one.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
use lumoauth_tests::{
    AAuthAgent, AAuthResource, Call, Ed25519, Response, Server, Token, b64, int, on_each_backend, text,
    unix_now,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    claims_are_required_and_checked,
    header_must_be_that_of_a_resource_token,
    it_is_about_the_agent_and_the_key_that_signs,
    it_gives_one_token,
    it_is_not_used_up_by_a_question_or_a_refusal,
    it_gives_one_token_however_many_people_agree,
    resource_must_be_registered_and_active,
    server_makes_one_for_a_registered_resource,
    what_the_resource_asks_for_must_make_sense,
    only_the_resource_itself_is_given_one,
    url_is_no_credential,
);

fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

fn with(agent: &AAuthAgent<'_>, token: &str) -> Response {
    agent.ask(&json!({ "request_type": "auth", "resource_token": token }))
}

#[track_caller]
fn bad(agent: &AAuthAgent<'_>, token: &str) {
    refused(&with(agent, token), 400, "invalid_resource_token");
}

fn claims_are_required_and_checked(server: &Server) {
    let (agent, resource) = both(server);
    let (now, issuer) = (unix_now(), agent.org.issuer());
    for name in ["iss", "aud", "agent", "agent_jkt", "exp"] {
        for wrong in [Value::Null, json!(""), json!(7), json!([]), json!({})] {
            bad(&agent, &resource.token_saying(&agent, json!({ name: wrong })));
        }
    }
    for changes in [
        json!({ "exp": now - 61 }),
        json!({ "exp": now + 900 }),
        json!({ "iat": now - 900 }),
        json!({ "iat": now + 200 }),
        json!({ "nbf": now + 200 }),
        json!({ "aud": "https://else.test" }),
        json!({ "aud": [issuer, "https://else.test"] }),
        json!({ "aud": format!("{issuer}/") }),
        json!({ "aud": resource.identifier }),
        json!({ "scope": 1 }),
        json!({ "scope": ["read"] }),
        json!({ "scope": "a\"b" }),
    ] {
        bad(&agent, &resource.token_saying(&agent, changes));
    }
    with(&agent, &resource.token_saying(&agent, json!({ "iat": null, "jti": null }))).ok();
    with(&agent, &resource.token_saying(&agent, json!({ "exp": now + 300 }))).ok();
}

fn header_must_be_that_of_a_resource_token(server: &Server) {
    let (agent, resource) = both(server);
    let (claims, kid) = (resource.claims(&agent, json!({})), resource.key.kid());
    for header in [
        json!({ "typ": "JWT", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "agent+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "auth+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "aa-resource+jwt", "alg": "EdDSA", "kid": kid }),
        json!({ "alg": "EdDSA", "kid": kid }),
        json!({ "typ": "resource+jwt", "alg": "none", "kid": kid }),
        json!({ "typ": "resource+jwt", "alg": "HS256", "kid": kid }),
        json!({ "typ": "resource+jwt", "alg": "EdDSA", "kid": "unknown" }),
        json!({ "typ": "resource+jwt", "alg": "EdDSA", "kid": kid, "crit": ["x"], "x": 1 }),
    ] {
        bad(&agent, &resource.key.jws(&header, &claims));
    }
    let thief = Ed25519::generate(kid);
    bad(&agent, &thief.token("resource+jwt", &claims));
    let header = json!({ "typ": "resource+jwt", "alg": "EdDSA", "kid": kid, "jwk": thief.jwk() });
    bad(&agent, &thief.jws(&header, &claims));
    // The agent signs no resource tokens, whatever they are called.
    bad(&agent, &agent.key.token("resource+jwt", &claims));
    for token in ["x", "a.b.c", "..", &agent.token()] {
        bad(&agent, token);
    }
}

fn it_is_about_the_agent_and_the_key_that_signs(server: &Server) {
    let (agent, resource) = both(server);
    let other = agent.org.aauth_agent(json!({}));
    bad(&agent, &resource.token_for(&other));
    bad(&agent, &resource.token_saying(&agent, json!({ "agent": other.identifier })));
    bad(&agent, &resource.token_saying(&agent, json!({ "agent_jkt": other.key.thumbprint() })));
    bad(
        &agent,
        &resource.token_saying(&agent, json!({ "agent_jkt": agent.key.thumbprint().to_lowercase() })),
    );
    // A thumbprint of other members, in another order, by another digest or written in another way is another one.
    let (x, kid) = (agent.key.x(), agent.key.kid());
    for (algorithm, members) in [
        (&SHA256, format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)),
        (&SHA256, format!(r#"{{"crv":"Ed25519","kid":"{kid}","kty":"OKP","use":"sig","x":"{x}"}}"#)),
        (&SHA256, format!(r#"{{"crv":"Ed25519","kid":"{kid}","kty":"OKP","x":"{x}"}}"#)),
        (&SHA256, format!(r#"{{"crv": "Ed25519", "kty": "OKP", "x": "{x}"}}"#)),
        (&SHA1_FOR_LEGACY_USE_ONLY, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)),
        (&SHA512, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)),
    ] {
        let wrong = b64(digest(algorithm, members.as_bytes()));
        bad(&agent, &resource.token_saying(&agent, json!({ "agent_jkt": wrong })));
    }
    bad(
        &agent,
        &resource.token_saying(&agent, json!({ "agent_jkt": format!("{}=", agent.key.thumbprint()) })),
    );
    with(&agent, &resource.token_for(&agent)).ok();
    // A delegate's call is one of the delegate's key.
    let delegate = Ed25519::generate("d");
    let body = |token: String| json!({ "request_type": "auth", "resource_token": token });
    let answer = agent.ask_as("d1", &delegate, &body(resource.token_for(&agent)));
    refused(&answer, 400, "invalid_resource_token");
    let token = resource.token_saying(&agent, json!({ "agent_jkt": delegate.thumbprint() }));
    agent.ask_as("d1", &delegate, &body(token)).ok();
}

fn it_gives_one_token(server: &Server) {
    let (agent, resource) = both(server);
    let token = resource.token_for(&agent);
    let first = with(&agent, &token).ok();
    bad(&agent, &token);
    // Neither a new signature of it nor its name in another token makes it another one.
    let claims = Token::parse(&token).claims;
    bad(&agent, &resource.token_saying(&agent, json!({ "jti": claims["jti"] })));
    refused(&agent.refresh_with(&first["refresh_token"], &token), 400, "invalid_resource_token");
    // One without a name is told apart by all that it says.
    let nameless = resource.token_saying(&agent, json!({ "jti": null }));
    with(&agent, &nameless).ok();
    bad(&agent, &nameless);
    // What its name is to one resource it is not to another.
    let other = agent.org.aauth_resource(json!({}));
    with(&agent, &other.token_saying(&agent, json!({ "jti": claims["jti"] }))).ok();
    // The first token is as good as it was.
    assert!(resource.sees_alive(&first["auth_token"]));
}

fn it_is_not_used_up_by_a_question_or_a_refusal(server: &Server) {
    let (agent, resource) = both(server);
    let token = resource.token_for(&agent);
    let body = json!({ "request_type": "auth", "resource_token": token, "scope": "admin" });
    refused(&agent.ask(&body), 400, "invalid_scope");
    with(&agent, &token).ok();
    let asking = agent.org.aauth_resource_of("authorized");
    let token = asking.token_for(&agent);
    for _ in 0..2 {
        with(&agent, &token).refused(401, "authorization_required");
    }
}

fn it_gives_one_token_however_many_people_agree(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"));
    let token = resource.token_saying(&agent, json!({ "scope": "read" }));
    let code = || {
        let asked = with(&agent, &token).refused(401, "authorization_required");
        org.person().agree(text(&asked["request_token"]))
    };
    let codes = [code(), code()];
    let given = agent.redeem(&codes[0]).ok();
    refused(&agent.redeem(&codes[1]), 400, "invalid_resource_token");
    // Nor does it give one by another way, or the other way round.
    let again = agent.refresh_with(&given["refresh_token"], &token);
    refused(&again, 400, "invalid_resource_token");
    assert!(resource.sees_alive(&given["auth_token"]));
    let token = resource.token_saying(&agent, json!({ "scope": "read" }));
    let asked = with(&agent, &token).refused(401, "authorization_required");
    agent.refresh_with(&given["refresh_token"], &token).ok();
    let code = org.person().agree(text(&asked["request_token"]));
    refused(&agent.redeem(&code), 400, "invalid_resource_token");
}

fn resource_must_be_registered_and_active(server: &Server) {
    let (agent, resource) = both(server);
    bad(&agent, &resource.token_saying(&agent, json!({ "iss": "https://nobody.test" })));
    bad(&agent, &resource.token_saying(&agent, json!({ "iss": format!("{}/", resource.identifier) })));
    resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
    bad(&agent, &resource.token_for(&agent));
    resource.admin("PATCH").json(json!({ "status": "active" })).send().ok();
    with(&agent, &resource.token_for(&agent)).ok();
    resource.admin("DELETE").send().ok();
    bad(&agent, &resource.token_for(&agent));
    // One of another organization is unknown here.
    let there = server.globex().aauth_resource(json!({}));
    bad(&agent, &there.token_for(&agent));
}

fn server_makes_one_for_a_registered_resource(server: &Server) {
    let (agent, resource) = both(server);
    let jkt = agent.key.thumbprint();
    let body = json!({
        "agent": agent.identifier, "agent_jkt": jkt, "scope": "read", "auth_server": agent.org.issuer(),
    });
    let answer = resource.post("/aauth/resource/token", &body);
    let made = answer.ok();
    assert_eq!((&made["token_type"], &made["expires_in"]), (&json!("resource+jwt"), &json!(300)));
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(3));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let token = Token::parse(text(&made["resource_token"]));
    assert_eq!((&token.header["typ"], &token.header["alg"]), (&json!("resource+jwt"), &json!("EdDSA")));
    let claims = &token.claims;
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(resource.identifier), &json!(agent.org.issuer())));
    assert_eq!((&claims["agent"], &claims["agent_jkt"]), (&json!(agent.identifier), &json!(jkt)));
    assert_eq!(int(&claims["exp"]) - int(&claims["iat"]), 300);
    let given = with(&agent, &token.text).ok();
    assert_eq!(given["scope"], "read");
    bad(&agent, &token.text);
    // Without a scope there is none.
    let body = json!({ "agent": agent.identifier, "agent_jkt": jkt });
    let made = resource.post("/aauth/resource/token", &body).ok();
    assert_eq!(with(&agent, text(&made["resource_token"])).ok()["scope"], "");
}

fn what_the_resource_asks_for_must_make_sense(server: &Server) {
    let (agent, resource) = both(server);
    let good = json!({
        "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(), "scope": "read",
        "auth_server": agent.org.issuer(), "auth_request_url": "https://r.test/request/1",
    });
    let made = resource.post("/aauth/resource/token", &good).ok();
    let claims = Token::parse(text(&made["resource_token"])).claims;
    assert_eq!(claims["auth_request_url"], "https://r.test/request/1");
    for (name, wrong) in [
        ("agent", Value::Null),
        ("agent", json!("")),
        ("agent", json!("agent")),
        ("agent", json!("http://agent.test")),
        ("agent", json!(1)),
        ("agent_jkt", Value::Null),
        ("agent_jkt", json!("short")),
        ("agent_jkt", json!(1)),
        ("auth_server", json!("https://else.test")),
        ("auth_request_url", json!("javascript:alert(1)")),
        ("auth_request_url", json!("http://r.test")),
    ] {
        let mut body = good.clone();
        body[name] = wrong;
        refused(&resource.post("/aauth/resource/token", &body), 400, "invalid_request");
    }
    for scope in ["read other", "a\"b"] {
        let mut body = good.clone();
        body["scope"] = json!(scope);
        refused(&resource.post("/aauth/resource/token", &body), 400, "invalid_scope");
    }
}

fn only_the_resource_itself_is_given_one(server: &Server) {
    let (agent, resource) = both(server);
    let body = json!({ "agent": agent.identifier, "agent_jkt": agent.key.thumbprint() });
    let call = |name: &str| Call::sdk(&agent.org, "/aauth/resource/token", &body).with("Signature-Key", name);
    let kid = resource.key.kid();
    let whole = format!("{}#{kid}", resource.identifier);
    call(&whole).signed(&resource.key).send().ok();
    unauthenticated(&call(&whole).signed(&agent.key).send(), "invalid_signature");
    for name in [
        resource.identifier.clone(),
        format!("{}#", resource.identifier),
        format!("#{kid}"),
        kid.to_owned(),
        "x".to_owned(),
    ] {
        unauthenticated(&call(&name).signed(&resource.key).send(), "invalid_signature");
    }
    for name in [
        format!("{}#other", resource.identifier),
        format!("https://nobody.test#{kid}"),
        // An agent is no resource.
        format!("{}#{}", agent.identifier, agent.key.kid()),
    ] {
        unauthenticated(&call(&name).signed(&resource.key).send(), "invalid_agent_token");
    }
    let name = format!("{}#{}", agent.identifier, agent.key.kid());
    unauthenticated(&call(&name).signed(&agent.key).send(), "invalid_agent_token");
    // It must be what was signed.
    let other = agent.org.aauth_resource(json!({}));
    let sent = call(&whole).signed(&resource.key);
    let theirs = format!("{}#{}", other.identifier, other.key.kid());
    unauthenticated(&sent.clone().with("Signature-Key", &theirs).send(), "invalid_signature");
    unauthenticated(&sent.clone().without("Signature-Key").send(), "invalid_signature");
    unauthenticated(&sent.clone().and("Signature-Key", &whole).send(), "invalid_signature");
    sent.send().ok();
    // And covered, in every form.
    let rfc = Call::rfc(&agent.org, "/aauth/resource/token", &body).with("Signature-Key", &whole);
    unauthenticated(&rfc.signed(&resource.key).send(), "invalid_signature");
    rfc.covering("signature-key").signed(&resource.key).send().ok();
    // An inactive one is none.
    resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
    unauthenticated(&call(&whole).signed(&resource.key).send(), "invalid_agent_token");
}

fn url_is_no_credential(server: &Server) {
    let (agent, resource) = both(server);
    let body = json!({
        "resource_identifier": resource.identifier, "audience": agent.org.issuer(), "lifetime": 300,
        "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(),
    });
    let request = agent.org.post("/aauth/resource/token").bearer(&resource.identifier).json(body);
    unauthenticated(&request.send(), "invalid_signature");
}
