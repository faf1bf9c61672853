//! The simulated resource of an MCP server (contract 2.10).

use lumoauth_tests::{Org, Server, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    caller_without_a_token_is_challenged,
    get_and_post_are_the_same,
    bad_token_is_challenged_as_invalid,
    token_for_another_audience_is_challenged,
    good_token_is_welcomed_and_audited,
    token_of_a_deactivated_agent_is_challenged,
    agent_outside_the_allow_list_is_refused_later_too,
);

fn caller_without_a_token_is_challenged(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["mcp:read"] }));
    let response = org.get(&path(&mcp)).send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer ") && challenge.contains("scope=\"mcp:read\""), "{challenge}");
    assert!(!challenge.contains("error="), "none was sent: {challenge}");
    let url = metadata_url(challenge);
    let metadata = server.request("GET", url.trim_start_matches(&server.url())).send().ok();
    assert_eq!(metadata["resource"], mcp["resource_uri"]);
}

fn get_and_post_are_the_same(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let (got, posted) = (org.get(&path(&mcp)).send(), org.post(&path(&mcp)).send());
    assert_eq!((got.status, &got.body), (posted.status, &posted.body));
    assert_eq!(got.header("www-authenticate"), posted.header("www-authenticate"));
}

fn bad_token_is_challenged_as_invalid(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    for token in ["nonsense", "a.b.c", org.key()] {
        let response = org.get(&path(&mcp)).bearer(token).send();
        assert_eq!(response.status, 401, "{response}");
        let challenge = response.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        assert!(challenge.contains("resource_metadata="), "{challenge}");
    }
}

fn token_for_another_audience_is_challenged(server: &Server) {
    let org = server.acme();
    let (one, two) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let agent = org.agent(&["read:a"]);
    let bound = token_for(&org, &two, &["read:a"]);
    for token in [agent.token(), bound] {
        let response = org.get(&path(&one)).bearer(&token).send();
        assert_eq!(response.status, 401, "{response}");
    }
}

fn good_token_is_welcomed_and_audited(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["mcp:read"] }));
    let token = token_for(&org, &mcp, &["mcp:read"]);
    let before = org.audit(&format!("targetId={}&action=mcp.connection", text(&mcp["server_id"]))).len();
    let body = org.get(&path(&mcp)).bearer(&token).send().ok();
    let expected = json!({ "status": "authenticated", "server": mcp["name"], "server_id": mcp["server_id"] });
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&body[member], value);
    }
    let after = org.audit(&format!("targetId={}&action=mcp.connection", text(&mcp["server_id"]))).len();
    assert_eq!(after, before + 1);
}

fn token_of_a_deactivated_agent_is_challenged(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let token = text(&body["access_token"]);
    org.get(&path(&mcp)).bearer(token).send().ok();
    agent.admin("POST", "/deactivate").send().ok();
    assert_eq!(org.get(&path(&mcp)).bearer(token).send().status, 401);
}

fn agent_outside_the_allow_list_is_refused_later_too(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let (agent, other) = (org.agent(&["read:a"]), org.agent(&["read:a"]));
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let closed = json!({ "allowed_agent_ids": [other.agent_id] });
    org.admin("PATCH", &format!("/mcp/servers/{}", text(&mcp["server_id"]))).json(closed).send().ok();
    agent
        .exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))])
        .refused(400, "invalid_target");
    let response = org.get(&path(&mcp)).bearer(text(&body["access_token"])).send();
    assert!(matches!(response.status, 200 | 401 | 403), "{response}");
}

fn path(mcp: &Value) -> String {
    format!("/mcp/{}/challenge", text(&mcp["server_id"]))
}

fn token_for(org: &Org<'_>, mcp: &Value, capabilities: &[&str]) -> String {
    let agent = org.agent(capabilities);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    text(&body["access_token"]).to_owned()
}

fn metadata_url(challenge: &str) -> &str {
    let start =
        challenge.find("resource_metadata=\"").expect("resource_metadata") + "resource_metadata=\"".len();
    let rest = &challenge[start..];
    &rest[..rest.find('"').expect("a closing quote")]
}
