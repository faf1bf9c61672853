//! Token revocation (RFC 7009, contract 2.3).

use lumoauth_tests::{Response, Server, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    revoked_token_is_dead_everywhere_at_once,
    other_tokens_of_the_agent_live_on,
    revoking_an_agents_token_kills_what_was_exchanged_from_it,
    revoking_twice_is_no_error,
    unknown_tokens_are_answered_alike,
    token_of_another_agent_is_left_alone,
    token_of_another_organization_is_left_alone,
    missing_token_is_an_invalid_request,
    unauthenticated_caller_is_refused,
    wrong_secret_is_refused_and_revokes_nothing,
    confidential_client_without_its_secret_is_refused,
    agent_may_present_a_bearer_of_its_own,
);

fn revoked_token_is_dead_everywhere_at_once(server: &Server) {
    let org = server.acme();
    let resource = org.mcp_server(json!({}))["resource_uri"].clone();
    let agent = org.agent(&["read:a"]);
    let token = agent.token();

    let response = revoke(&agent, &token);

    assert_eq!(response.status, 200, "{response}");
    assert!(response.body.is_empty() || response.json() == json!({}), "{response}");
    assert_eq!(org.introspect(&agent, &token), json!({ "active": false }));
    agent.userinfo(&token).refused(401, "invalid_token");
    agent.ask(&token, "read:a").refused(401, "invalid_token");
    assert_eq!(org.get("/agents/me").bearer(&token).send().status, 401);
    agent.exchange(&token, &[("resource", text(&resource))]).refused(400, "invalid_grant");
    assert_eq!(server.request("GET", "/api/v1/authz/permissions").bearer(&token).send().status, 401);
}

fn other_tokens_of_the_agent_live_on(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let (one, two) = (agent.token(), agent.token());
    revoke(&agent, &one).expect(200);
    agent.userinfo(&two).ok();
}

fn revoking_an_agents_token_kills_what_was_exchanged_from_it(server: &Server) {
    let org = server.acme();
    let resource = org.mcp_server(json!({}))["resource_uri"].clone();
    let agent = org.agent(&["read:a"]);
    let parent = agent.token();
    let child = agent.exchange(&parent, &[("resource", text(&resource))]).ok();
    let child = text(&child["access_token"]);
    assert_eq!(org.introspect(&agent, child)["active"], true);
    revoke(&agent, &parent).expect(200);
    assert_eq!(org.introspect(&agent, child), json!({ "active": false }));
}

fn revoking_twice_is_no_error(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    revoke(&agent, &token).expect(200);
    revoke(&agent, &token).expect(200);
}

fn unknown_tokens_are_answered_alike(server: &Server) {
    let agent = server.acme().agent(&[]);
    let good = revoke(&agent, &agent.token()).expect(200);
    for token in ["x", "a.b.c", "rt_unknown", "agk_unknown"] {
        assert_eq!(revoke(&agent, token).expect(200).body, good.body);
    }
}

fn token_of_another_agent_is_left_alone(server: &Server) {
    let (one, two) = (server.acme().agent(&[]), server.acme().agent(&[]));
    let token = one.token();
    revoke(&two, &token).expect(200);
    one.userinfo(&token).ok();
}

fn token_of_another_organization_is_left_alone(server: &Server) {
    let (ours, theirs) = (server.acme().agent(&[]), server.globex().agent(&[]));
    let token = theirs.token();
    revoke(&ours, &token).expect(200);
    theirs.userinfo(&token).ok();
}

fn missing_token_is_an_invalid_request(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [("client_id", agent.client_id.as_str()), ("client_secret", agent.secret.as_str())];
    agent.org.post("/oauth/revoke").form(&form).send().refused(400, "invalid_request");
}

fn unauthenticated_caller_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    agent.org.post("/oauth/revoke").form(&[("token", &token)]).send().refused(401, "invalid_client");
    agent.userinfo(&token).ok();
}

fn wrong_secret_is_refused_and_revokes_nothing(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let form = [("token", token.as_str()), ("client_id", &agent.client_id), ("client_secret", "wrong")];
    agent.org.post("/oauth/revoke").form(&form).send().refused(401, "invalid_client");
    agent.userinfo(&token).ok();
}

fn confidential_client_without_its_secret_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let form = [("token", token.as_str()), ("client_id", &agent.client_id)];
    agent.org.post("/oauth/revoke").form(&form).send().refused(401, "invalid_client");
    agent.userinfo(&token).ok();
}

fn agent_may_present_a_bearer_of_its_own(server: &Server) {
    let (agent, stranger) = (server.acme().agent(&[]), server.acme().agent(&[]));
    let (token, bearer) = (agent.token(), agent.token());
    let request = agent.org.post("/oauth/revoke").form(&[("token", &token)]);
    request.clone().bearer(&stranger.token()).send();
    agent.userinfo(&token).ok();
    request.bearer(&bearer).send().expect(200);
    agent.userinfo(&token).refused(401, "invalid_token");
    agent.userinfo(&bearer).ok();
}

fn revoke(agent: &lumoauth_tests::Agent<'_>, token: &str) -> Response {
    // As the SDK sends it: form only, with a hint.
    let form = [
        ("token", token),
        ("token_type_hint", "access_token"),
        ("client_id", agent.client_id.as_str()),
        ("client_secret", agent.secret.as_str()),
    ];
    agent.org.post("/oauth/revoke").form(&form).send()
}
