//! Each sort of token is good at its own door and at no other.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, ACCESS_TOKEN, Agent, Call, DpopKey, EXCHANGE, JWT, Person, Response, Server,
    acted_by, on_each_backend, text,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};
use crate::approvals::{approver, opened};

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
    mcp: Value,
    /// Those of AAuth.
    ours: Vec<(&'static str, String)>,
    /// Those of OAuth, of other protocols, and those that are like ours but for what they say they are.
    others: Vec<(&'static str, String)>,
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
        let made = resource.post("/aauth/resource/token", &body).ok();
        let body = json!({ "delegate_sub": "d", "delegate_public_key": agent.key.jwk() });
        let delegate = agent.post("/aauth/agent/issue", &body).ok();
        let mcp = org.mcp_server(json!({}));
        let (plain, proof) = (oauth.token(), DpopKey::generate());
        let bound = oauth.exchange(&plain, &[("resource", text(&mcp["resource_uri"]))]).ok();
        let body = json!({
            "grant_type": EXCHANGE, "subject_token": agent.token(), "subject_token_type": JWT,
        });
        let platform = Call::sdk(&org, "/aauth/agent/platform-token", &body).signed(&agent.key).send().ok();
        assert_eq!(platform["token_type"], "DPoP");
        let url = format!("{}/aauth/agent/token", org.issuer());
        let mine = |typ: &str| agent.key.token(typ, &agent.claims(json!({})));
        let its = |typ: &str| resource.key.token(typ, &resource.claims(&agent, json!({})));
        let ours = vec![
            ("agent+jwt", agent.token()),
            ("agent+jwt of the server", text(&delegate["agent_token"]).to_owned()),
            ("resource+jwt", resource.token_for(&agent)),
            ("resource+jwt of the server", text(&made["resource_token"]).to_owned()),
            ("auth+jwt", text(&given["auth_token"]).to_owned()),
            ("refresh token", text(&given["refresh_token"]).to_owned()),
        ];
        let others = vec![
            ("at+jwt of a person", theirs.access.clone()),
            ("delegated token", oauth.acting_for(&theirs.access)),
            ("token for an MCP server", text(&bound["access_token"]).to_owned()),
            ("platform token", text(&platform["access_token"]).to_owned()),
            ("approval token", opened(&oauth, &plain, &approver(&org))),
            ("at+jwt", plain),
            ("OAuth refresh token", theirs.refresh),
            ("id token", id),
            ("API key", org.create_agent(json!({ "identityType": "api_key" })).api_key),
            ("dpop+jwt", proof.proof("POST", &url, None)),
            ("logout+jwt by the agent's key", mine("logout+jwt")),
            ("at+jwt by the agent's key", mine("at+jwt")),
            ("logout+jwt by the resource's key", its("logout+jwt")),
            ("dpop+jwt by the resource's key", its("dpop+jwt")),
        ];
        let all = Self { agent, resource, oauth, mcp, ours, others };
        for (name, token) in all.but(&[]) {
            assert!(!token.is_empty(), "there is no {name}");
        }
        all
    }

    fn but(&self, good: &[&str]) -> impl Iterator<Item = (&'static str, &str)> {
        let all = self.ours.iter().chain(&self.others).map(|(name, token)| (*name, &**token));
        // What the server makes is as good as what they make themselves.
        let good: Vec<_> =
            good.iter().flat_map(|name| [name.to_string(), format!("{name} of the server")]).collect();
        all.filter(move |(name, _)| !good.iter().any(|good| good == name))
    }
}

fn tokens_of_aauth_open_no_door_of_oauth(server: &Server) {
    let all = All::new(server);
    let org = &all.agent.org;
    let check = json!({ "permission": "x" });
    let challenge = format!("/mcp/{}/challenge", text(&all.mcp["server_id"]));
    for (name, token) in &all.ours {
        let dpop = format!("DPoP {token}");
        let doors: [(&str, Response); 8] = [
            ("userinfo", org.get("/oauth/userinfo").bearer(token).send()),
            ("me", org.get("/agents/me").bearer(token).send()),
            ("ask", org.post("/agents/ask").bearer(token).json(json!({ "action": "read" })).send()),
            ("admin", org.get("/admin/agents").bearer(token).send()),
            ("API key", org.get("/admin/agents").api_key(token).send()),
            ("DPoP", org.get("/oauth/userinfo").header("Authorization", &dpop).send()),
            ("check", server.request("POST", "/api/v1/authz/check").bearer(token).json(check.clone()).send()),
            ("MCP", org.post(&challenge).bearer(token).send()),
        ];
        for (door, answer) in doors {
            assert!(matches!(answer.status, 401 | 403), "{name} at {door}: {answer}");
        }
        let client = [("client_id", &*all.oauth.client_id), ("client_secret", &*all.oauth.secret)];
        let acted = [client, acted_by(token)].concat();
        for answer in [
            org.exchange(token, ACCESS_TOKEN, &client),
            org.exchange(token, JWT, &client),
            org.exchange(&all.oauth.token(), ACCESS_TOKEN, &acted),
        ] {
            assert!(matches!(answer.status, 400 | 401), "{name}: {answer}");
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
        all.oauth.revoke(token);
    }
    // None of that has ended anything.
    let auth = all.ours.iter().find(|(name, _)| *name == "auth+jwt").expect("it is there");
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
