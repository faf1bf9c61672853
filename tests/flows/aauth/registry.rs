//! The registry of AAuth, for administrators.

use lumoauth_tests::{
    AttackerKey, CALLBACK, Ed25519, Org, Response, Server, list, on_each_backend, strings, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    agent_is_registered_read_changed_and_removed,
    resource_is_registered_read_changed_and_removed,
    members_may_be_written_either_way,
    agent_that_is_there_becomes_one_of_aauth,
    new_agent_may_do_what_it_may_ask_for,
    identifiers_are_https_urls,
    identifiers_are_unique_in_their_organization,
    keys_must_be_good_public_keys,
    members_of_agents_are_checked,
    members_of_resources_are_checked,
    lists_are_paged,
    other_organizations_see_nothing,
    only_administrators_of_agents_get_in,
    refused_registration_leaves_nothing,
    resources_identifier_never_changes,
);

fn agent(org: &Org<'_>, changes: Value) -> Response {
    let mut body = json!({
        "name": unique("Agent"), "agent_identifier": format!("https://{}.test", unique("a")),
        "jwks": Ed25519::generate("k").jwks(),
    });
    set(&mut body, changes);
    org.admin("POST", "/aauth/agents").json(body).send()
}

fn resource(org: &Org<'_>, changes: Value) -> Response {
    let mut body = json!({
        "name": unique("Resource"), "resource_identifier": format!("https://{}.test", unique("r")),
        "jwks": Ed25519::generate("k").jwks(),
    });
    set(&mut body, changes);
    org.admin("POST", "/aauth/resources").json(body).send()
}

fn set(body: &mut Value, changes: Value) {
    let body = body.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            body.remove(name);
        } else {
            body.insert(name.clone(), value.clone());
        }
    }
}

fn agent_is_registered_read_changed_and_removed(server: &Server) {
    let org = server.acme();
    let key = Ed25519::generate("k");
    let (identifier, name) = (format!("https://{}.test/agent", unique("a")), unique("Reader"));
    let made = agent(
        &org,
        json!({
            "name": name, "description": "reads", "agent_identifier": identifier, "jwks": key.jwks(),
            "redirect_uris": [CALLBACK], "allowed_scopes": ["read", "write"], "signing_algs": ["ed25519"],
            "user_authorization": false, "delegation": true, "token_exchange": true,
        }),
    )
    .expect(201)
    .json();
    let data = &made["data"];
    for (name, value) in [
        ("name", json!(name)),
        ("description", json!("reads")),
        ("agent_identifier", json!(identifier)),
        ("redirect_uris", json!([CALLBACK])),
        ("signing_algs", json!(["ed25519"])),
        ("user_authorization", json!(false)),
        ("delegation", json!(true)),
        ("token_exchange", json!(true)),
        ("status", json!("active")),
        ("jwks_uri", Value::Null),
    ] {
        assert_eq!(data[name], value, "{name}: {data}");
    }
    assert_eq!(strings(&data["allowed_scopes"]), ["read", "write"]);
    assert_eq!(data["jwks"]["keys"][0]["x"], *key.x());
    let path = format!("/aauth/agents/{}", text(&data["id"]));
    assert_eq!(org.admin("GET", &path).send().ok()["data"], *data);
    for method in ["PATCH", "PUT"] {
        let name = unique(method);
        let body = json!({ "name": name, "delegation": false });
        let changed = org.admin(method, &path).json(body).send().ok()["data"].clone();
        assert_eq!((&changed["name"], &changed["delegation"]), (&json!(name), &json!(false)));
        // What is not named stays.
        assert_eq!((&changed["token_exchange"], &changed["jwks"]), (&json!(true), &data["jwks"]));
    }
    assert!(org.admin("DELETE", &path).send().ok()["message"].is_string());
    for method in ["GET", "DELETE", "PATCH"] {
        org.admin(method, &path).json(json!({})).send().refused(404, "not_found");
    }
    // The identifier is free again.
    agent(&org, json!({ "agent_identifier": identifier })).expect(201);
}

fn resource_is_registered_read_changed_and_removed(server: &Server) {
    let org = server.acme();
    let identifier = format!("https://{}.test/api", unique("r"));
    let made = resource(
        &org,
        json!({
            "name": "Archive", "resource_identifier": identifier, "supported_scopes": ["read"],
            "scope_descriptions": { "read": "Look" }, "default_auth_level": "authorized",
        }),
    )
    .expect(201)
    .json();
    let data = &made["data"];
    assert_eq!(data["resource_identifier"], *identifier);
    assert_eq!((&data["default_auth_level"], &data["status"]), (&json!("authorized"), &json!("active")));
    assert_eq!(
        (&data["supported_scopes"], &data["scope_descriptions"]["read"]),
        (&json!(["read"]), &json!("Look"))
    );
    // By either id.
    for id in [data["id"].to_string().trim_matches('"').to_owned(), data["number"].to_string()] {
        let path = format!("/aauth/resources/{id}");
        assert_eq!(org.admin("GET", &path).send().ok()["data"], *data);
    }
    let path = format!("/aauth/resources/{}", text(&data["id"]));
    for level in ["none", "authenticated", "authorized", "user"] {
        let body = json!({ "default_auth_level": level });
        let changed = org.admin("PATCH", &path).json(body).send().ok()["data"].clone();
        assert_eq!((&changed["default_auth_level"], &changed["name"]), (&json!(level), &json!("Archive")));
    }
    assert!(org.admin("DELETE", &path).send().ok()["message"].is_string());
    for method in ["GET", "DELETE", "PATCH"] {
        org.admin(method, &path).json(json!({})).send().refused(404, "not_found");
    }
}

fn members_may_be_written_either_way(server: &Server) {
    let org = server.acme();
    let made = agent(
        &org,
        json!({
            "agent_identifier": null, "agentIdentifier": format!("https://{}.test", unique("a")),
            "redirectUris": [CALLBACK], "allowedScopes": "read write", "signingAlgs": ["rsa-pss-sha512"],
            "userAuthorization": false, "tokenExchange": true,
        }),
    );
    let data = made.expect(201).json()["data"].clone();
    assert_eq!(strings(&data["allowed_scopes"]), ["read", "write"]);
    assert_eq!((&data["signing_algs"], &data["token_exchange"]), (&json!(["rsa-pss-sha512"]), &json!(true)));
    let made = resource(
        &org,
        json!({
            "resource_identifier": null, "resourceIdentifier": format!("https://{}.test", unique("r")),
            "supportedScopes": "read,write", "scopeDescriptions": { "read": "x" }, "defaultAuthLevel": "user",
        }),
    );
    let data = made.expect(201).json()["data"].clone();
    assert_eq!(
        (&data["supported_scopes"], &data["default_auth_level"]),
        (&json!(["read", "write"]), &json!("user"))
    );
}

fn agent_that_is_there_becomes_one_of_aauth(server: &Server) {
    let org = server.acme();
    let core = org.agent(&["read:a"]);
    let identifier = format!("https://{}.test", unique("a"));
    let body = json!({ "agent_id": core.agent_id, "agent_identifier": identifier, "name": null });
    let data = agent(&org, body.clone()).expect(201).json()["data"].clone();
    assert_eq!((&data["id"], &data["name"]), (&json!(core.agent_id), &json!(core.name)));
    core.userinfo(&core.token()).ok();
    agent(&org, body).refused(409, "duplicate_resource");
    for nobody in ["nobody", "", "agt_none"] {
        let answer = agent(&org, json!({ "agent_id": nobody }));
        assert!(matches!(answer.status, 400 | 404), "{answer}");
    }
    let theirs = server.globex().agent(&["read:a"]);
    agent(&org, json!({ "agent_id": theirs.agent_id })).refused(404, "not_found");
    let shown = core.admin("GET", "").send().ok();
    assert!(shown["data"].to_string().contains(&identifier), "{shown}");
}

fn new_agent_may_do_what_it_may_ask_for(server: &Server) {
    let org = server.acme();
    let data =
        agent(&org, json!({ "allowed_scopes": ["read:a", "write:b"] })).expect(201).json()["data"].clone();
    let shown = org.admin("GET", &format!("/agents/{}", text(&data["id"]))).send().ok();
    assert_eq!(strings(&shown["data"]["capabilities"]), ["read:a", "write:b"]);
}

fn identifiers_are_https_urls(server: &Server) {
    let org = server.acme();
    for bad in [
        json!(null),
        json!(""),
        json!("agent"),
        json!("http://a.test"),
        json!("ftp://a.test"),
        json!("https://"),
        json!("https://user@a.test"),
        json!("https://a.test?x=1"),
        json!("https://a.test#x"),
        json!("https://a.test/\n"),
        json!(" https://a.test"),
        json!("javascript:alert(1)"),
        json!(1),
        json!(["https://a.test"]),
        json!(format!("https://a.test/{}", "x".repeat(3000))),
    ] {
        agent(&org, json!({ "agent_identifier": bad })).refused_as_bad();
        resource(&org, json!({ "resource_identifier": bad })).refused_as_bad();
    }
    for good in [
        format!("https://{}.test:8443/a/b", unique("a")),
        format!("https://{}.test/ä", unique("a")).replace('ä', "%C3%A4"),
        format!("http://127.0.0.1:9/{}", unique("a")),
    ] {
        agent(&org, json!({ "agent_identifier": good })).expect(201);
        resource(&org, json!({ "resource_identifier": good })).expect(201);
    }
}

/// The refusal of what cannot be accepted.
trait Refused {
    fn refused_as_bad(&self) -> Value;
}

impl Refused for Response {
    #[track_caller]
    fn refused_as_bad(&self) -> Value {
        assert_eq!(self.status, 400, "{self}");
        let body = self.refused_somehow();
        assert!(matches!(text(&body["error"]), "validation_error" | "invalid_request"), "{self}");
        body
    }
}

fn identifiers_are_unique_in_their_organization(server: &Server) {
    let (org, there) = (server.acme(), server.globex());
    let name = format!("https://{}.test", unique("same"));
    agent(&org, json!({ "agent_identifier": name })).expect(201);
    agent(&org, json!({ "agent_identifier": name })).refused(409, "duplicate_resource");
    agent(&there, json!({ "agent_identifier": name })).expect(201);
    // A resource may be an agent too.
    resource(&org, json!({ "resource_identifier": name })).expect(201);
    resource(&org, json!({ "resource_identifier": name })).refused(409, "duplicate_resource");
    resource(&there, json!({ "resource_identifier": name })).expect(201);
    let other = agent(&org, json!({})).expect(201).json()["data"].clone();
    let path = format!("/aauth/agents/{}", text(&other["id"]));
    org.admin("PATCH", &path)
        .json(json!({ "agent_identifier": name }))
        .send()
        .refused(409, "duplicate_resource");
}

fn keys_must_be_good_public_keys(server: &Server) {
    let org = server.acme();
    let key = Ed25519::generate("k");
    let mut private = key.jwk();
    private["d"] = json!(key.x());
    let ed = |x: &str| json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k" });
    let rsa = |bits: usize| json!({ "kty": "RSA", "kid": "k", "e": "AQAB", "n": lumoauth_tests::b64(vec![0xff; bits / 8]) });
    let mut twin = key.jwk();
    twin["x"] = json!(Ed25519::generate("k").x());
    let bad = [
        json!("keys"),
        json!([key.jwk()]),
        json!({ "keys": "x" }),
        json!({ "keys": [private] }),
        json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "k" }] }),
        json!({ "keys": [rsa(512)] }),
        json!({ "keys": [rsa(1024)] }),
        // Points of small order, of which everybody can sign something.
        json!({ "keys": [ed("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")] }),
        json!({ "keys": [ed("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")] }),
        json!({ "keys": [ed("7P_______________________________________38")] }),
        // One with a part of small order, beside a good one: seven times the base point and a point of order eight.
        json!({ "keys": [ed("6bL-mBWH765kePSLofpgzsYSbQ4m3ecqCiT2QNzXg-U")] }),
        json!({ "keys": [key.jwk(), ed("6bL-mBWH765kePSLofpgzsYSbQ4m3ecqCiT2QNzXg-U")] }),
        // Not in the form in which it is written.
        json!({ "keys": [ed("7v_______________________________________38")] }),
        json!({ "keys": [ed("AAAA")] }),
        json!({ "keys": [ed(&format!("{}=", key.x()))] }),
        json!({ "keys": [{ "kty": "OKP", "crv": "X25519", "x": key.x(), "kid": "k" }] }),
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": key.x(), "y": key.x(), "kid": "k" }] }),
        json!({ "keys": [key.jwk(), twin] }),
    ];
    for jwks in bad {
        let body = agent(&org, json!({ "jwks": jwks })).refused_as_bad();
        assert!(body.to_string().contains("jwks"), "{body}");
        resource(&org, json!({ "jwks": jwks })).refused_as_bad();
        let delegate = json!({ "jwks": jwks });
        let made = agent(&org, json!({})).expect(201).json()["data"].clone();
        let path = format!("/aauth/agents/{}", text(&made["id"]));
        org.admin("PATCH", &path).json(delegate).send().refused_as_bad();
        assert_eq!(org.admin("GET", &path).send().ok()["data"]["jwks"], made["jwks"]);
    }
    let both = json!({ "jwks": { "keys": [key.jwk(), AttackerKey::generate().jwk("p")] } });
    agent(&org, both.clone()).expect(201);
    resource(&org, both).expect(201);
    for uri in
        [json!("http://keys.test/jwks.json"), json!("keys"), json!("https://user@keys.test/"), json!(1)]
    {
        agent(&org, json!({ "jwks": null, "jwks_uri": uri })).refused_as_bad();
        resource(&org, json!({ "jwks": null, "jwks_uri": uri })).refused_as_bad();
    }
    let two = json!({ "jwks_uri": "https://keys.test/jwks.json" });
    agent(&org, two.clone()).refused_as_bad();
    resource(&org, two).refused_as_bad();
}

fn members_of_agents_are_checked(server: &Server) {
    let org = server.acme();
    for bad in [
        json!({ "name": null }),
        json!({ "name": "" }),
        json!({ "name": "x".repeat(500) }),
        json!({ "name": 1 }),
        json!({ "redirect_uris": ["javascript:alert(1)"] }),
        json!({ "redirect_uris": ["https://a.test/#x"] }),
        json!({ "redirect_uris": "https://a.test" }),
        json!({ "allowed_scopes": ["a b"] }),
        json!({ "allowed_scopes": ["a\"b"] }),
        json!({ "allowed_scopes": 1 }),
        json!({ "signing_algs": ["hmac-sha256"] }),
        json!({ "signing_algs": ["none"] }),
        json!({ "signing_algs": "ed25519" }),
        json!({ "user_authorization": "yes" }),
        json!({ "delegation": 1 }),
        json!({ "token_exchange": [] }),
    ] {
        agent(&org, bad.clone()).refused_as_bad();
        if bad["name"].is_null() && bad.get("name").is_some() {
            continue;
        }
        let made = agent(&org, json!({})).expect(201).json()["data"].clone();
        let path = format!("/aauth/agents/{}", text(&made["id"]));
        org.admin("PATCH", &path).json(bad).send().refused_as_bad();
        assert_eq!(org.admin("GET", &path).send().ok()["data"], made);
    }
    for body in ["", "[]", "{", "null"] {
        let answer = org.admin("POST", "/aauth/agents").body("application/json", body).send();
        answer.refused_as_bad();
    }
}

fn members_of_resources_are_checked(server: &Server) {
    let org = server.acme();
    for bad in [
        json!({ "name": null }),
        json!({ "name": "" }),
        json!({ "name": "x".repeat(500) }),
        json!({ "supported_scopes": ["a b"] }),
        json!({ "supported_scopes": 1 }),
        json!({ "scope_descriptions": { "read": "x".repeat(600) } }),
        json!({ "scope_descriptions": ["x"] }),
        json!({ "scope_descriptions": { "read": 1 } }),
        json!({ "default_auth_level": "admin" }),
        json!({ "default_auth_level": "" }),
        json!({ "default_auth_level": 1 }),
        json!({ "status": "gone" }),
    ] {
        resource(&org, bad.clone()).refused_as_bad();
        if bad["name"].is_null() && bad.get("name").is_some() {
            continue;
        }
        let made = resource(&org, json!({})).expect(201).json()["data"].clone();
        let path = format!("/aauth/resources/{}", text(&made["id"]));
        org.admin("PATCH", &path).json(bad).send().refused_as_bad();
        assert_eq!(org.admin("GET", &path).send().ok()["data"], made);
    }
}

fn lists_are_paged(server: &Server) {
    let org = server.globex();
    for _ in 0..3 {
        agent(&org, json!({})).expect(201);
        resource(&org, json!({})).expect(201);
    }
    for kind in ["agents", "resources"] {
        let page = |query: &str| org.admin("GET", &format!("/aauth/{kind}?{query}")).send().ok();
        let body = page("limit=2");
        assert_eq!(list(&body["data"]).len(), 2, "{body}");
        assert_ne!(page("limit=2&page=1")["data"], page("limit=2&page=2")["data"]);
        org.admin("GET", &format!("/aauth/{kind}?limit=x")).send().refused_somehow();
    }
    // Ordinary agents are not among them.
    let core = org.agent(&["read:a"]);
    let all = org.admin("GET", "/aauth/agents?limit=100").send().ok();
    assert!(!all.to_string().contains(&core.id));
}

fn other_organizations_see_nothing(server: &Server) {
    let (org, there) = (server.acme(), server.globex());
    let (agent, resource) = (there.aauth_agent(json!({})), there.aauth_resource(json!({})));
    for path in [format!("/aauth/agents/{}", agent.id), format!("/aauth/resources/{}", resource.id)] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            org.admin(method, &path).json(json!({ "name": "x" })).send().refused(404, "not_found");
        }
        there.admin("GET", &path).send().ok();
        let key = org.key();
        let answer = there.request("GET", &format!("/admin{path}")).api_key(key).send();
        assert!(matches!(answer.status, 401 | 403), "{answer}");
    }
    let all = org.admin("GET", "/aauth/resources?limit=100").send().ok();
    assert!(!all.to_string().contains(&resource.identifier));
}

fn only_administrators_of_agents_get_in(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let robot = org.agent(&["*"]);
    let person = org.person();
    let (read, other) = (org.api_key(&["admin:read"]), org.api_key(&["admin:users"]));
    for (kind, id) in [("agents", &agent.id), ("resources", &resource.id)] {
        let (all, one) = (format!("/admin/aauth/{kind}"), format!("/admin/aauth/{kind}/{id}"));
        for (method, path) in
            [("GET", &all), ("POST", &all), ("GET", &one), ("PATCH", &one), ("DELETE", &one)]
        {
            let request = || org.request(method, path).json(json!({ "name": "x" }));
            request().send().refused_somehow();
            let answer = request().bearer(&robot.token()).send();
            assert!(matches!(answer.status, 401 | 403), "{answer}");
            let answer = request().bearer(&person.in_person("openid")).send();
            assert!(matches!(answer.status, 401 | 403), "{answer}");
            let answer = request().api_key(&other).send();
            assert!(matches!(answer.status, 401 | 403), "{method} {path}: {answer}");
            if method != "GET" {
                request().api_key(&read).send().refused(403, "forbidden");
            }
        }
        org.request("GET", &one).api_key(&read).send().ok();
    }
}

fn refused_registration_leaves_nothing(server: &Server) {
    let org = server.acme();
    let name = unique("Nobody");
    agent(&org, json!({ "name": name, "agent_identifier": "x" })).refused_as_bad();
    let taken = agent(&org, json!({})).expect(201).json()["data"]["agent_identifier"].clone();
    agent(&org, json!({ "name": name, "agent_identifier": taken })).refused(409, "duplicate_resource");
    let found = org.admin("GET", &format!("/agents?limit=100&search={name}")).send().ok();
    assert!(!found["data"].to_string().contains(&name), "{found}");
}

fn resources_identifier_never_changes(server: &Server) {
    let org = server.acme();
    let resource = org.aauth_resource(json!({}));
    let change = |to: &str| resource.admin("PATCH").json(json!({ "resource_identifier": to })).send();
    change("https://else.test").refused_as_bad();
    change(&resource.identifier).ok();
}
