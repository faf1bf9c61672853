//! Each sort of token is good at its own door and at no other.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Agent, Call, Person, Response, Server, on_each_backend, text,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    tokens_of_aauth_open_no_door_of_oauth,
    only_an_agent_token_names_an_agent,
    only_a_resource_token_asks_for_something,
    only_an_auth_token_is_verified_and_handed_on,
    keys_of_aauth_are_not_those_of_oauth,
);

/// One token of each sort.
struct All<'a> {
    agent: AAuthAgent<'a>,
    resource: AAuthResource<'a>,
    oauth: Agent<'a>,
    tokens: Vec<(&'static str, String)>,
}

impl<'a> All<'a> {
    fn new(server: &'a Server) -> Self {
        let org = server.acme();
        let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
        let (oauth, alice): (Agent<'a>, Person<'a>) = (org.delegate(&["read:a"]), org.person());
        let given = agent.tokens(&resource);
        let theirs = alice.allow(&oauth, "read:a openid");
        let id = {
            let app = org.app(json!({ "allowedScopes": ["openid"] }));
            let code = alice.code_of(&lumoauth_tests::asking(&app.client_id, "openid"));
            text(&app.redeem(&code, &[]).ok()["id_token"]).to_owned()
        };
        let body = json!({ "agent": agent.identifier, "agent_jkt": agent.key.thumbprint() });
        let ours = resource.post("/aauth/resource/token", &body).ok();
        let body = json!({ "delegate_sub": "d", "delegate_public_key": agent.key.jwk() });
        let delegate = agent.post("/aauth/agent/issue", &body).ok();
        let tokens = vec![
            ("agent+jwt", agent.token()),
            ("agent+jwt of the server", text(&delegate["agent_token"]).to_owned()),
            ("resource+jwt", resource.token_for(&agent)),
            ("resource+jwt of the server", text(&ours["resource_token"]).to_owned()),
            ("auth+jwt", text(&given["auth_token"]).to_owned()),
            ("refresh token", text(&given["refresh_token"]).to_owned()),
            ("at+jwt", oauth.token()),
            ("at+jwt of a person", theirs.access.clone()),
            ("delegated token", oauth.acting_for(&theirs.access)),
            ("refresh token of OAuth", theirs.refresh),
            ("id token", id),
            ("API key", oauth.api_key.clone()),
        ];
        let tokens = tokens.into_iter().filter(|(_, token)| !token.is_empty()).collect();
        Self { agent, resource, oauth, tokens }
    }

    fn but(&self, good: &[&str]) -> impl Iterator<Item = (&'static str, &str)> {
        let good: Vec<_> = good.iter().map(|&name| name.to_owned()).collect();
        self.tokens
            .iter()
            .filter(move |(name, _)| !good.iter().any(|good| name.starts_with(good)))
            .map(|(name, token)| (*name, &**token))
    }

    fn of_aauth(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.tokens.iter().take(6).map(|(name, token)| (*name, &**token))
    }
}

fn tokens_of_aauth_open_no_door_of_oauth(server: &Server) {
    let all = All::new(server);
    let org = &all.agent.org;
    for (name, token) in all.of_aauth() {
        let doors: [(&str, Response); 7] = [
            ("userinfo", org.get("/oauth/userinfo").bearer(token).send()),
            ("me", org.get("/agents/me").bearer(token).send()),
            ("ask", org.post("/agents/ask").bearer(token).json(json!({ "action": "read" })).send()),
            ("admin", org.get("/admin/agents").bearer(token).send()),
            ("API key", org.get("/admin/agents").api_key(token).send()),
            ("DPoP", org.get("/oauth/userinfo").header("Authorization", &format!("DPoP {token}")).send()),
            (
                "MCP",
                server
                    .request("POST", "/api/v1/authz/check")
                    .bearer(token)
                    .json(json!({ "permission": "x" }))
                    .send(),
            ),
        ];
        for (door, answer) in doors {
            assert!(matches!(answer.status, 401 | 403), "{name} at {door}: {answer}");
        }
        for kind in ["subject", "actor"] {
            let mut fields = vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("client_id", &*all.oauth.client_id),
                ("client_secret", &*all.oauth.secret),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ];
            let own = all.oauth.token();
            if kind == "subject" {
                fields.push(("subject_token", token));
            } else {
                fields.push(("subject_token", &own));
                fields.push(("actor_token", token));
                fields.push(("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"));
            }
            let answer = org.post("/oauth/token").form(&fields).send();
            assert!(matches!(answer.status, 400 | 401), "{name} as {kind}: {answer}");
            answer.refused_somehow();
        }
        all.oauth.refresh(token, &[]).refused(400, "invalid_grant");
        all.oauth.redeem(token, &[]).refused(400, "invalid_grant");
        for grant in ["urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials"] {
            let fields = [
                ("grant_type", grant),
                ("assertion", token),
                ("client_id", &*all.agent.identifier),
                ("client_assertion", token),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ];
            org.post("/oauth/token").form(&fields).send().refused_somehow();
        }
        assert_eq!(org.introspect(&all.oauth, token), json!({ "active": false }), "{name}");
        let fields =
            [("token", token), ("client_id", &all.oauth.client_id), ("client_secret", &all.oauth.secret)];
        org.post("/oauth/revoke").form(&fields).send().expect(200);
    }
    // None of that has ended anything.
    let auth = all.tokens.iter().find(|(name, _)| *name == "auth+jwt").expect("it is there");
    assert!(all.resource.sees_alive(&json!(auth.1)));
}

fn only_an_agent_token_names_an_agent(server: &Server) {
    let all = All::new(server);
    let body = json!({ "request_type": "auth", "resource_token": all.resource.token_for(&all.agent) });
    for (name, token) in all.but(&["agent+jwt"]) {
        let call = Call::sdk(&all.agent.org, "/aauth/agent/token", &body).by(token);
        let refusal = call.signed(&all.agent.key).send();
        assert_eq!(refusal.status, 401, "{name}");
        unauthenticated(&refusal, "invalid_agent_token");
    }
}

fn only_a_resource_token_asks_for_something(server: &Server) {
    let all = All::new(server);
    for (name, token) in all.but(&["resource+jwt"]) {
        let answer = all.agent.ask(&json!({ "request_type": "auth", "resource_token": token }));
        assert_eq!(answer.status, 400, "{name}");
        refused(&answer, 400, "invalid_resource_token");
        let body = json!({
            "resource_token": token, "agent": all.agent.identifier, "agent_jkt": all.agent.key.thumbprint(),
        });
        let seen = all.resource.post("/aauth/resource/token/verify", &body).ok();
        assert_eq!(seen["active"], false, "{name}");
    }
}

fn only_an_auth_token_is_verified_and_handed_on(server: &Server) {
    let all = All::new(server);
    for (name, token) in all.but(&["auth+jwt"]) {
        let seen: Value = all.resource.verify(&json!(token));
        assert_eq!(seen["active"], false, "{name}");
        let answer = all.agent.exchange(token, &all.resource, "read");
        assert_eq!(answer.status, 400, "{name}");
        refused(&answer, 400, "invalid_grant");
    }
    for (_, token) in all.but(&["refresh token"]) {
        refused(&all.agent.refresh(&json!(token), &all.resource), 400, "invalid_grant");
        refused(&all.agent.redeem(token), 400, "invalid_grant");
    }
}

fn keys_of_aauth_are_not_those_of_oauth(server: &Server) {
    let org = server.acme();
    let kids = |path: &str| {
        let body = org.get(path).send().ok();
        let keys = body["keys"].as_array().cloned().expect("keys");
        assert!(!keys.is_empty() && keys.iter().all(|key| key["d"].is_null()), "{body}");
        keys.iter().map(|key| text(&key["kid"]).to_owned()).collect::<Vec<_>>()
    };
    let (aauth, oauth) = (kids("/aauth/jwks.json"), kids("/.well-known/jwks.json"));
    assert!(aauth.iter().all(|kid| !oauth.contains(kid)), "{aauth:?} {oauth:?}");
}
