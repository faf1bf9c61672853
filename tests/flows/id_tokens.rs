//! ID tokens as subjects of exchanges (contract 2.1.4): "issued to the exchanging client".

use lumoauth_tests::{Agent, Org, Person, Response, Server, Token, asking, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    agent_acts_for_who_signed_in_without_scope,
    sub_agent_joins_without_scope,
    scope_is_refused_and_so_is_a_server_that_needs_one,
    application_hands_a_person_to_an_agent_that_they_agreed_to,
    refreshed_id_token_is_one_as_well,
    id_token_from_before_a_refresh_outlives_its_access_token_in_nothing,
);

const TYPE: &str = "urn:ietf:params:oauth:token-type:";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// Signs in at `agent`, and gives the access, refresh and ID token.
fn signed_in(alice: &Person<'_>, agent: &Agent<'_>, scope: &str) -> [String; 3] {
    let body = agent.redeem(&alice.code_for(agent, scope), &[]).ok();
    ["access_token", "refresh_token", "id_token"].map(|name| text(&body[name]).to_owned())
}

fn exchange(org: &Org<'_>, id_token: &str, actor: Option<&str>, extra: &[(&str, &str)]) -> Response {
    let kind = format!("{TYPE}access_token");
    let mut fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", id_token),
        ("subject_token_type", ID_TOKEN),
    ];
    if let Some(actor) = actor {
        fields.extend([("actor_token", actor), ("actor_token_type", &kind)]);
    }
    fields.extend_from_slice(extra);
    org.post("/oauth/token").form(&fields).send()
}

fn agent_acts_for_who_signed_in_without_scope(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let [_, _, id_token] = signed_in(&alice, &agent, "openid read:a");
    let body = exchange(&org, &id_token, Some(&agent.token()), &[]).ok();
    assert_eq!(
        (&body["scope"], &body["issued_token_type"]),
        (&json!(""), &json!(format!("{TYPE}access_token")))
    );
    let token = text(&body["access_token"]);
    let claims = Token::parse(token).claims;
    assert_eq!((&claims["sub"], &claims["agent_id"]), (&json!(alice.id), &json!(agent.agent_id)));
    assert_eq!(claims["act"]["sub"], format!("agent:{}", agent.slug));
    assert!(agent.sees_alive(token));
    let rows = org.audit(&format!("action=agent.action&actor={}", agent.agent_id));
    assert!(rows.iter().any(|row| row.to_string().contains(&alice.id)), "{rows:?}");
}

fn sub_agent_joins_without_scope(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let [_, _, id_token] = signed_in(&alice, &first, "openid read:a");
    let one = exchange(&org, &id_token, Some(&first.token()), &[]).ok();
    let two = second.act_for(text(&one["access_token"]), &second.token(), &[]).ok();
    assert_eq!(two["scope"], "");
    second
        .act_for(text(&one["access_token"]), &second.token(), &[("scope", "read:a")])
        .refused(400, "invalid_scope");
}

fn scope_is_refused_and_so_is_a_server_that_needs_one(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let [_, _, id_token] = signed_in(&alice, &agent, "openid email read:a");
    let actor = agent.token();
    for scope in ["read:a", "openid", "email", "*"] {
        exchange(&org, &id_token, Some(&actor), &[("scope", scope)]).refused(400, "invalid_scope");
    }
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:a"] }));
    let target = [("resource", text(&mcp["resource_uri"]))];
    exchange(&org, &id_token, Some(&actor), &target).refused(400, "invalid_scope");
}

fn application_hands_a_person_to_an_agent_that_they_agreed_to(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let app = org.app(json!({ "allowedScopes": ["openid"] }));
    let code = alice.code_of(&asking(&app.client_id, "openid"));
    let id_token = text(&app.redeem(&code, &[]).ok()["id_token"]).to_owned();
    let client = [("client_id", app.client_id.as_str()), ("client_secret", app.secret.as_str())];
    let actor = agent.token();
    exchange(&org, &id_token, Some(&actor), &client).refused(403, "consent_required");
    alice.allow(&agent, "read:a");
    let body = exchange(&org, &id_token, Some(&actor), &client).ok();
    assert_eq!(body["scope"], "");
    // The agent alone, which it was not issued to, gets nothing.
    exchange(&org, &id_token, Some(&actor), &[]).refused(400, "invalid_grant");
    // It ends with what they agreed to, at either of the two.
    let token = text(&body["access_token"]);
    assert!(agent.sees_alive(token));
    org.admin("DELETE", &format!("/users/{}/consents/{}", alice.id, app.client_id)).send().expect(200);
    assert!(!agent.sees_alive(token));
}

fn refreshed_id_token_is_one_as_well(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let [_, refresh, _] = signed_in(&alice, &agent, "openid read:a");
    let body = agent.refresh(&refresh, &[]).ok();
    let Value::String(id_token) = &body["id_token"] else { panic!("no ID token: {body}") };
    exchange(&org, id_token, Some(&agent.token()), &[]).ok();
}

fn id_token_from_before_a_refresh_outlives_its_access_token_in_nothing(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let [access, refresh, id_token] = signed_in(&alice, &agent, "openid read:a");
    let actor = agent.token();
    let before = exchange(&org, &id_token, Some(&actor), &[]).ok();
    agent.refresh(&refresh, &[]).ok();
    exchange(&org, &id_token, Some(&actor), &[]).ok();
    agent.revoke(&access);
    exchange(&org, &id_token, Some(&actor), &[]).refused(400, "invalid_grant");
    assert!(!agent.sees_alive(text(&before["access_token"])));
}
