//! What the doors of AAuth hold on to beyond a valid signature: who a party was, what it is, and what can be taken back.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Call, Ed25519, KeySite, Org, Response, Server, Token, at_once, list,
    on_each_backend, text, unique,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    delegate_of_an_agent_that_is_gone_is_nobodys,
    resource_token_ends_with_the_resource_that_it_was_made_for,
    delegates_are_named_by_a_registered_key_only,
    delegates_that_an_agent_may_no_longer_have_are_refused,
    names_of_delegates_are_clean,
    refresh_token_is_one_whatever_it_is_called,
    only_names_that_were_given_are_taken_back,
    request_that_is_kept_elsewhere_needs_a_scope,
    request_url_may_have_a_query,
    keys_that_are_published_elsewhere_are_not_here,
    agent_enters_once_of_many_at_a_time,
);

fn both<'a>(org: &Org<'a>) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

/// What the token endpoint answers to whoever shows `token` and signs by `key`.
fn asks(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, token: &str, key: &Ed25519) -> Response {
    let asked = resource.token_saying(agent, json!({ "agent_jkt": key.thumbprint() }));
    let body = json!({ "request_type": "auth", "resource_token": asked });
    Call::sdk(&agent.org, "/aauth/agent/token", &body).by(token).signed(key).send()
}

/// The agent token that the server makes for a delegate.
fn issued(agent: &AAuthAgent<'_>, sub: &str, key: &Ed25519) -> String {
    let body = json!({ "delegate_sub": sub, "delegate_public_key": key.jwk() });
    text(&agent.post("/aauth/agent/issue", &body).ok()["agent_token"]).to_owned()
}

fn rows(org: &Org<'_>, action: &str, about: &str) -> Vec<Value> {
    let rows = org.audit(&format!("action={action}"));
    rows.into_iter().filter(|row| row.to_string().contains(about)).collect()
}

fn delegate_of_an_agent_that_is_gone_is_nobodys(server: &Server) {
    let org = server.acme();
    for leaves in ["/agents/", "/aauth/agents/"] {
        let (agent, resource) = both(&org);
        let thief = Ed25519::generate("t");
        let stolen = issued(&agent, "worker-1", &thief);
        asks(&agent, &resource, &stolen, &thief).ok();
        org.admin("DELETE", &format!("{leaves}{}", agent.id)).send().ok();
        // Another agent with the URL, keys of its own, and as young as the first one was.
        let next = org.aauth_agent(json!({ "agent_identifier": agent.identifier }));
        assert_ne!(next.id, agent.id);
        unauthenticated(&asks(&next, &resource, &stolen, &thief), "invalid_agent_token");
        let own = Ed25519::generate("d");
        asks(&next, &resource, &issued(&next, "worker-1", &own), &own).ok();
    }
}

fn resource_token_ends_with_the_resource_that_it_was_made_for(server: &Server) {
    let org = server.acme();
    let made = |agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>| {
        let body = json!({ "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(), "scope": "read" });
        text(&resource.post("/aauth/resource/token", &body).ok()["resource_token"]).to_owned()
    };
    let ask = |agent: &AAuthAgent<'_>, token: &str| {
        agent.ask(&json!({ "request_type": "auth", "resource_token": token }))
    };
    let (agent, resource) = both(&org);
    ask(&agent, &made(&agent, &resource)).ok();
    let before = made(&agent, &resource);
    for status in ["inactive", "active"] {
        resource.admin("PATCH").json(json!({ "status": status })).send().ok();
    }
    refused(&ask(&agent, &before), 400, "invalid_resource_token");
    ask(&agent, &made(&agent, &resource)).ok();
    // Nor does the next one of that URL ask by what it was given.
    let (agent, resource) = both(&org);
    let before = made(&agent, &resource);
    resource.admin("DELETE").send().ok();
    let next = org.aauth_resource(json!({ "resource_identifier": resource.identifier }));
    refused(&ask(&agent, &before), 400, "invalid_resource_token");
    ask(&agent, &made(&agent, &next)).ok();
}

fn delegates_are_named_by_a_registered_key_only(server: &Server) {
    let org = server.acme();
    let agent = org.aauth_agent(json!({}));
    let (instance, key) = (Ed25519::generate("i"), Ed25519::generate("d"));
    let body = json!({ "delegate_sub": "d", "delegate_public_key": key.jwk() });
    let call = |token: &str| Call::sdk(&org, "/aauth/agent/issue", &body).by(token);
    // The agent's own token, for the key of one of its instances and for its registered key.
    let of_instance = agent.token_saying(json!({ "cnf": { "jwk": instance.jwk() } }));
    unauthenticated(&call(&of_instance).signed(&instance).send(), "invalid_signature");
    unauthenticated(&call(&agent.token()).signed(&agent.key).send(), "invalid_signature");
    issued(&agent, "d", &key);
}

fn delegates_that_an_agent_may_no_longer_have_are_refused(server: &Server) {
    let org = server.acme();
    let (agent, resource) = both(&org);
    let key = Ed25519::generate("d");
    let switch = |on: bool| {
        let path = format!("/aauth/agents/{}", agent.id);
        org.admin("PATCH", &path).json(json!({ "delegation": on })).send().ok();
    };
    let given = asks(&agent, &resource, &agent.token_for("worker-1", &key), &key).ok();
    // And of another agent, which the delegate called.
    let next = org.aauth_agent(json!({}));
    let between = next.as_resource();
    let called = asks(&agent, &between, &agent.token_for("worker-1", &key), &key).ok();
    let further = next.exchange(text(&called["auth_token"]), &resource, "read").ok();
    let own = agent.tokens(&resource);
    switch(false);
    assert!(!resource.sees_alive(&given["auth_token"]));
    assert!(!resource.sees_alive(&further["auth_token"]));
    assert!(resource.sees_alive(&own["auth_token"]), "what is the agent's own stays");
    switch(true);
    assert!(resource.sees_alive(&given["auth_token"]));
}

fn names_of_delegates_are_clean(server: &Server) {
    let org = server.acme();
    let (agent, resource) = both(&org);
    let key = Ed25519::generate("d");
    for name in ["a\nb", "a\u{0}", "\u{7f}", "a\u{85}b", "\u{1b}[2J"] {
        let answer = asks(&agent, &resource, &agent.token_for(name, &key), &key);
        unauthenticated(&answer, "invalid_agent_token");
    }
    let given = asks(&agent, &resource, &agent.token_for("w\u{f6}rker 1", &key), &key).ok();
    assert_eq!(Token::parse(text(&given["auth_token"])).claims["agent_delegate"], "w\u{f6}rker 1");
}

fn refresh_token_is_one_whatever_it_is_called(server: &Server) {
    let org = server.acme();
    for named in [json!({}), json!({ "token_type": "auth_token" }), json!({ "token_type": "refresh_token" })]
    {
        let (agent, resource) = both(&org);
        let given = agent.tokens(&resource);
        let mut body = named;
        body["token"] = given["refresh_token"].clone();
        // Not by another agent.
        org.aauth_agent(json!({})).post("/aauth/token/revoke", &body).ok();
        agent.refresh(&given["refresh_token"], &resource).ok();
        agent.post("/aauth/token/revoke", &body).ok();
        refused(&agent.refresh(&given["refresh_token"], &resource), 400, "invalid_grant");
        assert!(!resource.sees_alive(&given["auth_token"]));
    }
}

fn only_names_that_were_given_are_taken_back(server: &Server) {
    let org = server.acme();
    let (agent, resource) = both(&org);
    let given = agent.tokens(&resource);
    let jti = text(&Token::parse(text(&given["auth_token"])).claims["jti"]).to_owned();
    let bare = jti.replace('-', "");
    for token in ["x1", "x2", &*bare, &*format!("{jti} "), &*format!("{{{jti}}}"), &*"0".repeat(36)] {
        for kind in ["auth_token", "refresh_token"] {
            let body = json!({ "token": token, "token_type": kind });
            assert_eq!(agent.post("/aauth/token/revoke", &body).ok(), json!({ "revoked": true }));
        }
    }
    assert_eq!(rows(&org, "token.revoked", &agent.id).len(), 0, "nothing was taken back");
    assert!(resource.sees_alive(&given["auth_token"]));
    // Ours, in whatever case.
    agent.post("/aauth/token/revoke", &json!({ "token": jti.to_uppercase() })).ok();
    assert!(!resource.sees_alive(&given["auth_token"]));
    assert_eq!(rows(&org, "token.revoked", &agent.id).len(), 1);
}

fn request_that_is_kept_elsewhere_needs_a_scope(server: &Server) {
    let org = server.acme();
    let (agent, resource) = both(&org);
    let ask = |claims: Value| {
        let token = resource.token_saying(&agent, claims);
        agent.ask(&json!({ "request_type": "auth", "resource_token": token }))
    };
    let url = "https://r.test/requests/1";
    for scope in [Value::Null, json!("")] {
        let answer = ask(json!({ "scope": scope, "auth_request_url": url }));
        refused(&answer, 400, "invalid_resource_token");
        assert!(answer.text().contains("auth_request_url"), "{answer}");
    }
    ask(json!({ "scope": "read", "auth_request_url": url })).ok();
    ask(json!({ "scope": null })).ok();
    // Nor is one made that would be refused.
    let body = json!({
        "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(), "auth_request_url": url,
    });
    let answer = resource.post("/aauth/resource/token", &body);
    refused(&answer, 400, "invalid_request");
    assert!(answer.text().contains("scope"), "{answer}");
}

fn request_url_may_have_a_query(server: &Server) {
    let org = server.acme();
    let (agent, resource) = both(&org);
    let url = "https://r.test/requests?id=1&of=a%20b";
    let body = json!({
        "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(), "scope": "read", "auth_request_url": url,
    });
    let made = resource.post("/aauth/resource/token", &body).ok();
    let about = json!({
        "resource_token": made["resource_token"], "agent": agent.identifier,
        "agent_jkt": agent.key.thumbprint(),
    });
    let seen = resource.post("/aauth/resource/token/verify", &about).ok();
    assert_eq!((&seen["active"], &seen["auth_request_url"]), (&json!(true), &json!(url)));
}

fn keys_that_are_published_elsewhere_are_not_here(server: &Server) {
    let org = server.acme();
    let uri = KeySite::trusted().page().uri();
    let agent = org.aauth_agent(json!({ "jwks": null, "jwks_uri": uri }));
    let resource = org.aauth_resource(json!({ "jwks": null, "jwks_uri": uri }));
    for (kind, id) in [("agents", &agent.id), ("resources", &resource.id)] {
        // An empty set would be believed.
        assert_eq!(org.get(&format!("/aauth/{kind}/{id}/jwks.json")).send().status, 404);
        let about = org.get(&format!("/aauth/{kind}/{id}/metadata")).send().ok();
        assert_eq!(about["jwks_uri"], *uri);
    }
    let none = org.aauth_resource(json!({ "jwks": null }));
    let keys = org.get(&format!("/aauth/resources/{}/jwks.json", none.id)).send().ok();
    assert!(list(&keys["keys"]).is_empty());
}

fn agent_enters_once_of_many_at_a_time(server: &Server) {
    let org = server.acme();
    for _ in 0..5 {
        let core = org.agent(&["read:a"]);
        let names: Vec<_> = (0..6).map(|_| format!("https://{}.agents.test", unique("agent"))).collect();
        let answers = at_once(names.len(), |place| {
            let key = Ed25519::generate("k");
            let body = json!({
                "agent_id": core.agent_id, "agent_identifier": names[place], "jwks": key.jwks(),
            });
            org.admin("POST", "/aauth/agents").json(body).send()
        });
        let entered: Vec<_> = (0..names.len()).filter(|place| answers[*place].status == 201).collect();
        assert_eq!(entered.len(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.refused(409, "duplicate_resource");
        }
        let now = org.admin("GET", &format!("/aauth/agents/{}", core.agent_id)).send().ok();
        assert_eq!(now["data"]["agent_identifier"], *names[entered[0]]);
        assert_eq!(rows(&org, "aauth.agent_registered", &core.agent_id).len(), 1);
    }
}
