//! What AAuth publishes.

use lumoauth_tests::{Ed25519, KeySite, Response, Server, list, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    issuer_is_described,
    issuer_is_found_at_the_root,
    agents_are_described,
    resources_are_described,
    those_that_are_not_active_are_not_there,
    what_is_not_there_is_not_found,
    other_organizations_are_apart,
    both_prefixes_name_the_issuer,
);

fn found<'v>(values: &'v Value, name: &str, identifier: &str) -> Option<&'v Value> {
    list(values).iter().find(|value| value[name] == identifier)
}

#[track_caller]
fn public(answer: Response) -> Value {
    assert!(answer.header("cache-control").is_none_or(|value| !value.contains("no-store")), "{answer}");
    answer.ok()
}

fn issuer_is_described(server: &Server) {
    let org = server.acme();
    let issuer = org.issuer();
    let body = public(org.get("/.well-known/aauth-issuer").send());
    assert_eq!(
        body,
        json!({
            "aauth_version": "1.0",
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/aauth/jwks.json"),
            "agent_token_endpoint": format!("{issuer}/aauth/agent/token"),
            "agent_auth_endpoint": format!("{issuer}/aauth/agent/auth"),
            "agent_signing_algs_supported": body["agent_signing_algs_supported"],
            "token_signing_algs_supported": ["EdDSA"],
            "request_types_supported": ["auth", "code", "exchange", "refresh"],
            "scopes_supported": [],
        })
    );
    let algorithms = list(&body["agent_signing_algs_supported"]);
    assert!(algorithms.contains(&json!("ed25519")) && algorithms.contains(&json!("rsa-pss-sha512")));
    let keys = public(org.get("/aauth/jwks.json").send());
    for key in list(&keys["keys"]) {
        assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
        assert!(key["kid"].is_string() && key["d"].is_null());
    }
}

fn issuer_is_found_at_the_root(server: &Server) {
    let own = server.acme().get("/.well-known/aauth-issuer").send().ok();
    assert_eq!(public(server.request("GET", "/.well-known/aauth-issuer").send()), own);
    let ask = |query: &str| server.request("GET", &format!("/.well-known/aauth-issuer?{query}")).send();
    assert_eq!(ask(&format!("org={}", server.acme().slug())).ok(), own);
    let other = server.globex().get("/.well-known/aauth-issuer").send().ok();
    assert_eq!(ask(&format!("org={}", server.globex().slug())).ok(), other);
    for nobody in [unique("nobody"), "%00".to_owned(), "..".to_owned(), "a/b".to_owned(), String::new()] {
        let answer = ask(&format!("org={nobody}"));
        assert!(matches!(answer.status, 400 | 404), "{answer}");
    }
    let answer = server.request("POST", "/.well-known/aauth-issuer").send();
    assert!(matches!(answer.status, 404 | 405), "{answer}");
    let head = server.request("HEAD", "/.well-known/aauth-issuer").send();
    assert_eq!(head.status, 200);
}

fn agents_are_described(server: &Server) {
    let org = server.acme();
    let name = unique("Reader");
    let agent = org.aauth_agent(json!({ "name": name, "redirect_uris": ["https://a.test/cb"] }));
    let expected = json!({
        "agent": agent.identifier, "name": name, "redirect_uris": ["https://a.test/cb"],
        "jwks_uri": format!("{}/aauth/agents/{}/jwks.json", org.issuer(), agent.id),
    });
    assert_eq!(public(org.get(&format!("/aauth/agents/{}/metadata", agent.id)).send()), expected);
    let all = public(org.get("/.well-known/aauth-agent").send());
    assert!(list(&all).len() < 1000);
    assert_eq!(found(&all, "agent", &agent.identifier), Some(&expected));
    let keys = public(org.get(&format!("/aauth/agents/{}/jwks.json", agent.id)).send());
    assert_eq!(list(&keys["keys"]).len(), 1);
    assert_eq!(keys["keys"][0]["x"], *agent.key.x());
    // An ordinary agent has no part in it.
    let core = org.agent(&["read:a"]);
    for path in ["metadata", "jwks.json"] {
        let answer = org.get(&format!("/aauth/agents/{}/{path}", core.agent_id)).send();
        assert_eq!(answer.status, 404, "{answer}");
    }
    // Keys that are published elsewhere are read there.
    let uri = KeySite::trusted().page().uri();
    let agent = org.aauth_agent(json!({ "jwks": null, "jwks_uri": uri }));
    let body = public(org.get(&format!("/aauth/agents/{}/metadata", agent.id)).send());
    assert_eq!(body["jwks_uri"], *uri);
}

fn resources_are_described(server: &Server) {
    let org = server.acme();
    let resource = org.aauth_resource(json!({
        "name": "Archive", "scope_descriptions": { "read": "Look" }, "description": "internal",
    }));
    let expected = json!({
        "resource": resource.identifier, "name": "Archive",
        "jwks_uri": format!("{}/aauth/resources/{}/jwks.json", org.issuer(), resource.id),
        "resource_token_endpoint": format!("{}/aauth/resource/token", org.issuer()),
        "supported_scopes": ["read", "write", "admin"], "scope_descriptions": { "read": "Look" },
    });
    assert_eq!(public(org.get(&format!("/aauth/resources/{}/metadata", resource.id)).send()), expected);
    let all = public(org.get("/.well-known/aauth-resource").send());
    assert_eq!(found(&all, "resource", &resource.identifier), Some(&expected));
    let keys = public(org.get(&format!("/aauth/resources/{}/jwks.json", resource.id)).send());
    assert_eq!(text(&keys["keys"][0]["x"]), resource.key.x());
}

fn those_that_are_not_active_are_not_there(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    agent.admin("POST", "/deactivate").send().ok();
    resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
    for path in ["metadata", "jwks.json"] {
        for (kind, id) in [("agents", &agent.id), ("resources", &resource.id)] {
            let answer = org.get(&format!("/aauth/{kind}/{id}/{path}")).send();
            assert_eq!(answer.status, 404, "{answer}");
        }
    }
    let all = org.get("/.well-known/aauth-agent").send().ok();
    assert_eq!(found(&all, "agent", &agent.identifier), None);
    let all = org.get("/.well-known/aauth-resource").send().ok();
    assert_eq!(found(&all, "resource", &resource.identifier), None);
}

fn what_is_not_there_is_not_found(server: &Server) {
    let org = server.acme();
    for kind in ["agents", "resources"] {
        for name in ["nobody", "0", "-1", "%00", "https%3A%2F%2Fnobody.test", &"x".repeat(500)] {
            for path in ["metadata", "jwks.json"] {
                let answer = org.get(&format!("/aauth/{kind}/{name}/{path}")).send();
                assert_eq!(answer.status, 404, "{kind}/{name}: {answer}");
            }
        }
    }
}

fn other_organizations_are_apart(server: &Server) {
    let (org, there) = (server.acme(), server.globex());
    let key = Ed25519::generate("k");
    let agent = there.aauth_agent(json!({ "jwks": key.jwks() }));
    let resource = there.aauth_resource(json!({}));
    for path in
        [format!("/aauth/agents/{}/metadata", agent.id), format!("/aauth/resources/{}/metadata", resource.id)]
    {
        assert_eq!(org.get(&path).send().status, 404);
        there.get(&path).send().ok();
    }
    assert_eq!(found(&org.get("/.well-known/aauth-agent").send().ok(), "agent", &agent.identifier), None);
    let keys =
        |org: &lumoauth_tests::Org<'_>| org.get("/aauth/jwks.json").send().ok()["keys"][0]["kid"].clone();
    assert_ne!(keys(&org), keys(&there));
}

fn both_prefixes_name_the_issuer(server: &Server) {
    let org = server.acme();
    let path = format!("/t/{}/api/v1/.well-known/aauth-issuer", org.slug());
    let body = server.request("GET", &path).send().ok();
    assert_eq!(body, org.get("/.well-known/aauth-issuer").send().ok());
}
