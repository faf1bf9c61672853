//! Which request was signed: method, authority, path and query (security HS-12 to HS-14).

use std::net::TcpListener;

use lumoauth_tests::{AAuthAgent, AAuthResource, Backend, Call, Options, Server, on_each_backend};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    request_is_for_one_method_path_and_organization,
    authority_is_one_of_ours,
    authority_is_compared_without_regard_to_case,
    path_is_signed_as_it_is_sent,
    token_endpoint_takes_no_query,
    other_routes_take_a_query_as_signed,
    forwarded_headers_are_not_believed,
);

fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

fn call(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Call {
    agent.call(&body(agent, resource))
}

fn body(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Value {
    json!({ "request_type": "auth", "resource_token": resource.token_for(agent) })
}

fn request_is_for_one_method_path_and_organization(server: &Server) {
    let (agent, resource) = both(server);
    for method in ["GET", "PUT", "post", "PATCH"] {
        let mut call = call(&agent, &resource);
        method.clone_into(&mut call.method);
        let mut sent = call.signed(&agent.key);
        "POST".clone_into(&mut sent.method);
        unauthenticated(&sent.send(), "key_binding_failed");
    }
    // Signed for one route, sent to another.
    let sent = call(&agent, &resource).signed(&agent.key);
    for path in ["/aauth/agent/issue", "/aauth/token/revoke"] {
        let mut other = sent.clone();
        other.target = other.target.replace("/aauth/agent/token", path);
        let answer = other.send();
        assert_eq!(answer.status, 401, "{answer}");
    }
    // For one organization, sent to another that knows the agent as well.
    let there = server.globex();
    there.aauth_agent(json!({ "agent_identifier": agent.identifier, "jwks": agent.key.jwks() }));
    let mut other = sent.clone();
    other.target = other.target.replace(agent.org.slug(), there.slug());
    unauthenticated(&other.send(), "key_binding_failed");
    sent.send().ok();
}

fn authority_is_one_of_ours(server: &Server) {
    let (agent, resource) = both(server);
    let port = server.authority().rsplit_once(':').expect("a port").1;
    for authority in [
        "evil.test".to_owned(),
        format!("evil.test:{port}"),
        "127.0.0.1".to_owned(),
        format!("127.0.0.1:{port}0"),
        format!("127.0.0.1.:{port}"),
        format!("localhost.:{port}"),
        format!("[::1]:{port}"),
    ] {
        let mut call = call(&agent, &resource);
        call.authority = authority;
        let answer = call.signed(&agent.key).send();
        assert!(matches!(answer.status, 400 | 401), "{answer}");
    }
    // Signed for another, sent to us.
    let mut call = call(&agent, &resource);
    "evil.test".clone_into(&mut call.authority);
    let mut sent = call.signed(&agent.key);
    server.authority().clone_into(&mut sent.authority);
    unauthenticated(&sent.send(), "key_binding_failed");
    // Twice.
    let sent = self::call(&agent, &resource).signed(&agent.key);
    for host in ["evil.test", server.authority()] {
        let answer = sent.clone().and("Host", host).send();
        assert!(matches!(answer.status, 400 | 401), "{answer}");
    }
    let mut call = self::call(&agent, &resource);
    call.authority = format!("localhost:{port}");
    call.signed(&agent.key).send().ok();
}

fn authority_is_compared_without_regard_to_case(server: &Server) {
    let (agent, resource) = both(server);
    let port = server.authority().rsplit_once(':').expect("a port").1;
    let mut call = call(&agent, &resource);
    call.authority = format!("LocalHost:{port}");
    call.signed(&agent.key).send().ok();
    // In the form of the RFC it is signed in lower case, however it is sent.
    let mut call = Call::rfc(&agent.org, "/aauth/agent/token", &body(&agent, &resource)).by(&agent.token());
    call.authority = format!("localhost:{port}");
    let mut sent = call.signed(&agent.key);
    sent.authority = format!("LOCALHOST:{port}");
    sent.send().ok();
}

fn path_is_signed_as_it_is_sent(server: &Server) {
    let (agent, resource) = both(server);
    let path = call(&agent, &resource).path;
    // Nothing that means the same to some is taken for the same.
    for other in [
        path.replace("/aauth/", "//aauth/"),
        path.replace("/aauth/", "/./aauth/"),
        path.replace("/aauth/", "/x/../aauth/"),
        path.replace("token", "%74oken"),
        path.replace("token", "%2574oken"),
        path.replace("/agent/", "%2Fagent%2F"),
        format!("{path}/"),
        format!("{path};x"),
        path.to_uppercase(),
    ] {
        let mut sent = call(&agent, &resource).signed(&agent.key);
        sent.target.clone_from(&other);
        let answer = sent.send();
        assert!(matches!(answer.status, 400 | 401 | 404 | 405), "{other}: {answer}");
        let mut call = call(&agent, &resource);
        call.path.clone_from(&other);
        let mut sent = call.signed(&agent.key);
        sent.target.clone_from(&path);
        let answer = sent.send();
        assert_eq!(answer.status, 401, "{other}: {answer}");
    }
}

fn token_endpoint_takes_no_query(server: &Server) {
    let (agent, resource) = both(server);
    for query in ["", "x=1"] {
        let mut sdk = call(&agent, &resource);
        sdk.query = Some(query.to_owned());
        refused(&sdk.signed(&agent.key).send(), 400, "invalid_request");
        refused(&sdk.covering("@query").signed(&agent.key).send(), 400, "invalid_request");
        let mut rfc =
            Call::rfc(&agent.org, "/aauth/agent/token", &body(&agent, &resource)).by(&agent.token());
        rfc.query = Some(query.to_owned());
        refused(&rfc.covering("@query").signed(&agent.key).send(), 400, "invalid_request");
    }
}

fn other_routes_take_a_query_as_signed(server: &Server) {
    let (agent, _) = both(server);
    let name = format!("{}#{}", agent.identifier, agent.key.kid());
    let body = json!({ "token": "jti" });
    let sdk = |query: &str| {
        let mut call = Call::sdk(&agent.org, "/aauth/token/revoke", &body).with("Signature-Key", &name);
        call.query = Some(query.to_owned());
        call
    };
    let rfc = |query: &str| {
        let mut call = Call::rfc(&agent.org, "/aauth/token/revoke", &body).with("Signature-Key", &name);
        call.query = Some(query.to_owned());
        call.covering("signature-key")
    };
    for query in ["", "x=1", "a=%2F&a=%2f", "?"] {
        sdk(query).covering("@query").signed(&agent.key).send().ok();
        rfc(query).covering("@query").signed(&agent.key).send().ok();
        if query.is_empty() {
            // That is the same as none (RFC 9421 section 2.2.7).
            continue;
        }
        // Genuine signatures must cover it.
        unauthenticated(&rfc(query).signed(&agent.key).send(), "invalid_signature");
        for other in ["x=2", "x=1&x=1", "a=%2f&a=%2F"] {
            let mut sent = rfc(query).covering("@query").signed(&agent.key);
            let path = sent.target.split_once('?').map_or("", |(path, _)| path).to_owned();
            sent.target = format!("{path}?{other}");
            unauthenticated(&sent.clone().send(), "invalid_signature");
            sent.target = path;
            unauthenticated(&sent.send(), "invalid_signature");
        }
    }
}

fn forwarded_headers_are_not_believed(server: &Server) {
    let (agent, resource) = both(server);
    let mut call = call(&agent, &resource);
    "evil.test".clone_into(&mut call.authority);
    let mut sent = call.signed(&agent.key);
    server.authority().clone_into(&mut sent.authority);
    for (name, value) in [
        ("X-Forwarded-Host", "evil.test"),
        ("Forwarded", "host=evil.test"),
        ("X-Original-URL", "/"),
        ("X-Host", "evil.test"),
    ] {
        unauthenticated(&sent.clone().and(name, value).send(), "key_binding_failed");
    }
    let good = self::call(&agent, &resource).signed(&agent.key);
    good.and("X-Forwarded-Host", "evil.test").send().ok();
}

/// Behind a proxy what is signed is what clients are told, with a part of the path that the proxy takes away.
#[test]
fn public_url_is_what_is_signed() {
    for prefix in ["", "/idp"] {
        let url = format!("https://auth.acme.test{prefix}");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let options = Options::new(Backend::Memory).listen(&free.to_string());
        let server = Server::start(&options.argument("--public-url").argument(&url));
        let org = server.acme();
        let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
        let issuer = format!("{url}/orgs/{}/api/v1", org.slug());
        assert_eq!(org.get("/.well-known/aauth-issuer").send().ok()["issuer"], *issuer);
        let ask = |prefix: &str, authority: &str| {
            let token = resource.token_saying(&agent, json!({ "aud": issuer }));
            let mut call = agent.call(&json!({ "request_type": "auth", "resource_token": token }));
            authority.clone_into(&mut call.authority);
            let arrives = call.path.clone();
            call.path = format!("{prefix}{arrives}");
            let mut sent = call.signed(&agent.key);
            sent.target = arrives;
            sent.send()
        };
        ask(prefix, "auth.acme.test").ok();
        ask(prefix, "AUTH.acme.test").ok();
        unauthenticated(&ask(prefix, "acme.test"), "invalid_signature");
        unauthenticated(&ask("/other", "auth.acme.test"), "key_binding_failed");
        if !prefix.is_empty() {
            unauthenticated(&ask("", "auth.acme.test"), "key_binding_failed");
        }
    }
}
