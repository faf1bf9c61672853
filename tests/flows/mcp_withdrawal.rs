//! What an administrator takes away from an MCP server's audience is gone from tokens that are already out, and what
//! may not be registered at all.

use lumoauth_tests::{
    Agent, Org, Response, Server, Token, avoid_hour_edge, int, on_each_backend, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    narrowing_the_allow_list_ends_issued_tokens,
    switching_the_server_off_ends_issued_tokens,
    deleting_the_server_ends_issued_tokens,
    shrinking_the_vocabulary_cuts_issued_tokens,
    this_server_itself_is_no_resource,
    bad_changes_are_refused_and_change_nothing,
    taken_resource_leaves_no_client_behind,
    client_credentials_for_a_resource_are_an_act,
    client_credentials_for_a_resource_need_budget,
);

/// An agent with a token for a server of its own.
struct Bound<'a> {
    org: Org<'a>,
    agent: Agent<'a>,
    mcp: Value,
    token: String,
}

fn bound<'a>(server: &'a Server, members: Value, capabilities: &[&str]) -> Bound<'a> {
    let org = server.acme();
    let (agent, mcp) = (org.agent(capabilities), org.mcp_server(members));
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let bound = Bound { org, agent, mcp, token: text(&body["access_token"]).to_owned() };
    assert_eq!(bound.introspected()["active"], true);
    bound.challenge().ok();
    bound
}

impl Bound<'_> {
    fn introspected(&self) -> Value {
        self.org.introspect(&self.agent, &self.token)
    }

    fn challenge(&self) -> Response {
        let path = format!("/mcp/{}/challenge", text(&self.mcp["server_id"]));
        self.org.get(&path).bearer(&self.token).send()
    }

    fn admin(&self, method: &str, body: Value) -> Response {
        let path = format!("/mcp/servers/{}", text(&self.mcp["server_id"]));
        self.org.admin(method, &path).json(body).send()
    }
}

fn narrowing_the_allow_list_ends_issued_tokens(server: &Server) {
    let bound = bound(server, json!({}), &["read:a"]);
    let other = bound.org.agent(&[]);
    bound.admin("PATCH", json!({ "allowed_agent_ids": [other.agent_id] })).ok();
    assert_eq!(bound.introspected(), json!({ "active": false }));
    bound.challenge().refused(401, "invalid_token");
    // A token that was never withdrawn itself works again with its door.
    bound.admin("PATCH", json!({ "allowed_agent_ids": [other.agent_id, bound.agent.agent_id] })).ok();
    assert_eq!(bound.introspected()["active"], true);
}

fn switching_the_server_off_ends_issued_tokens(server: &Server) {
    let bound = bound(server, json!({}), &["read:a"]);
    bound.admin("PATCH", json!({ "status": "inactive" })).ok();
    assert_eq!(bound.introspected(), json!({ "active": false }));
    // There is nothing behind the challenge of a server that is off.
    let response = bound.challenge();
    assert!(matches!(response.status, 401 | 404), "{response}");
    response.refused_somehow();
}

fn deleting_the_server_ends_issued_tokens(server: &Server) {
    let bound = bound(server, json!({}), &["read:a"]);
    bound.admin("DELETE", json!({})).ok();
    assert_eq!(bound.introspected(), json!({ "active": false }));
    let response = bound.challenge();
    assert!(matches!(response.status, 401 | 404), "{response}");
    // The same resource under a new registration is another server: old tokens do not come back with it.
    bound.org.mcp_server(json!({ "resource_uri": bound.mcp["resource_uri"] }));
    assert_eq!(bound.introspected(), json!({ "active": false }));
}

fn shrinking_the_vocabulary_cuts_issued_tokens(server: &Server) {
    let both = json!({ "scopes_supported": ["read:a", "write:b"] });
    let bound = bound(server, both, &["read:a", "write:b"]);
    bound.admin("PATCH", json!({ "scopes_supported": ["write:b"] })).ok();
    let seen = bound.introspected();
    assert_eq!((&seen["active"], &seen["scope"]), (&json!(true), &json!("write:b")));
}

fn this_server_itself_is_no_resource(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let name = unique("Own");
    let issuer = org.issuer();
    for own in [issuer.clone(), format!("{issuer}/"), format!("{issuer}/mcp"), issuer.replace("http", "HTTP")]
    {
        let body = json!({ "name": name, "resource_uri": own });
        org.admin("POST", "/mcp/servers").json(body).send().refused(422, "validation_error");
        let uri = format!("https://{}.test/mcp", unique("mcp"));
        let body = json!({ "name": name, "resource_uri": uri, "aliases": [own] });
        org.admin("POST", "/mcp/servers").json(body).send().refused(422, "validation_error");
        let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
        let patch = json!({ "resource_uri": own });
        org.admin("PATCH", &path).json(patch).send().refused(400, "validation_error");
    }
    let rows = org.audit("action=mcp_server.created");
    assert!(!rows.iter().any(|row| row.to_string().contains(&name)), "one was made: {rows:?}");
}

fn bad_changes_are_refused_and_change_nothing(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
    for bad in [
        json!({ "name": "" }),
        json!({ "name": 7 }),
        json!({ "resource_uri": "nonsense" }),
        json!({ "resource_uri": "http://plain.test/mcp" }),
        json!({ "resource_uri": "https://a.test/mcp#x" }),
        json!({ "status": "asleep" }),
        json!({ "transport": "pigeon" }),
        json!({ "auth_mode": "hope" }),
        json!({ "scopes_supported": 7 }),
        json!({ "scopes_supported": ["has space"] }),
        json!({ "token_lifetime": "long" }),
        json!({ "allowed_agent_ids": ["agt_doesnotexist"] }),
        json!({ "allowed_client_ids": ["nobody"] }),
        json!({ "resource_client_id": "nobody" }),
        json!({ "require_dpop": true }),
        json!({ "require_pkce": false }),
        json!([]),
    ] {
        for method in ["PATCH", "PUT"] {
            let response = org.admin(method, &path).json(bad.clone()).send();
            assert_eq!(response.status, 400, "{method} {bad}: {response}");
            response.refused_somehow();
        }
    }
    assert_eq!(org.admin("GET", &path).send().ok()["data"], mcp);
}

fn taken_resource_leaves_no_client_behind(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let name = unique("Twin");
    for body in [
        json!({ "name": name, "resource_uri": mcp["resource_uri"], "issueResourceClient": true }),
        json!({
            "name": name, "resource_uri": format!("https://{}.test/mcp", unique("mcp")),
            "aliases": [mcp["resource_uri"]], "issueResourceClient": true,
        }),
    ] {
        org.admin("POST", "/mcp/servers").json(body).send().refused(409, "duplicate_resource");
    }
    let rows = org.audit("action=client.created");
    assert!(!rows.iter().any(|row| row.to_string().contains(&name)), "a client was made: {rows:?}");
    // The same with a free resource does make one, so the log would have shown it.
    let uri = format!("https://{}.test/mcp", unique("mcp"));
    let body = json!({ "name": name, "resource_uri": uri, "issueResourceClient": true });
    org.admin("POST", "/mcp/servers").json(body).send().expect(201);
    let rows = org.audit("action=client.created");
    assert_eq!(rows.iter().filter(|row| row.to_string().contains(&name)).count(), 1, "{rows:?}");
}

fn limited<'a>(org: &Org<'a>, calls: u64) -> Agent<'a> {
    avoid_hour_edge();
    let policy = json!({ "max_api_calls_per_hour": calls });
    org.create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }))
}

fn connections(agent: &Agent<'_>) -> Vec<Value> {
    agent.org.audit(&format!("actorId={}&action=mcp.connection&status=success", agent.agent_id))
}

fn client_credentials_for_a_resource_are_an_act(server: &Server) {
    let org = server.acme();
    let (agent, mcp) = (limited(&org, 5), org.mcp_server(json!({})));
    let body = agent.ask_token(&[("resource", text(&mcp["resource_uri"]))]).ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!((&claims["aud"], &claims["mcp_server_id"]), (&mcp["resource_uri"], &mcp["server_id"]));
    let rows = connections(&agent);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["targetId"], mcp["server_id"]);
    let used = agent.userinfo(&agent.token()).ok()["budget_policy"]["api_calls_this_hour"].clone();
    assert_eq!(int(&used), 1, "one call for the bound token, none for the plain one");
}

fn client_credentials_for_a_resource_need_budget(server: &Server) {
    let org = server.acme();
    let (agent, mcp) = (limited(&org, 1), org.mcp_server(json!({})));
    let target = [("resource", text(&mcp["resource_uri"]))];
    agent.ask_token(&target).ok();
    agent.ask_token(&target).refused(429, "budget_exceeded");
    assert_eq!(connections(&agent).len(), 1);
    agent.ask_token(&[]).ok();
}
