//! `refresh_token` at the token endpoint, at introspection and at revocation (contract 2.1.3, 2.3).

use lumoauth_tests::{
    Agent, CALLBACK, Jwks, Person, Response, Server, Token, asking, int, on_each_backend, text, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    refreshing_gives_new_tokens_and_leaves_the_old_access_token,
    scope_narrows_the_access_token_only,
    scope_never_widens,
    token_is_required_and_must_be_known,
    client_must_authenticate,
    id_token_comes_anew,
    public_application_refreshes_without_a_secret,
    public_application_that_repeats_itself_loses_the_family,
    confidential_application_may_repeat_itself,
    stolen_old_token_ends_the_family,
    suspended_agent_refreshes_nothing_even_afterwards,
    withdrawn_consent_ends_it_for_good,
    blocked_person_ends_it_for_good,
    lost_capability_is_gone_at_the_next_refresh,
    introspection_describes_it_to_its_client_only,
    introspection_knows_dead_ones,
    revocation_by_another_client_has_no_effect,
    revocation_ends_the_family_whatever_the_hint,
    revoking_an_old_one_ends_the_family_too,
    refused_refreshes_are_in_the_log,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn member<'a>(body: &'a Value, name: &str) -> &'a str {
    text(&body[name])
}

fn introspect(agent: &Agent<'_>, token: &str) -> Value {
    agent.org.introspect(agent, token)
}

fn revoke_with(agent: &Agent<'_>, token: &str, hint: &str) -> Response {
    let fields = [("token", token), ("token_type_hint", hint)];
    agent.org.post("/oauth/revoke").basic(&agent.client_id, &agent.secret).form(&fields).send()
}

fn refreshing_gives_new_tokens_and_leaves_the_old_access_token(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let first = alice.allow(&agent, "read:a");
    let answer = agent.refresh(&first.refresh, &[]);
    let next = answer.ok();
    let mut names: Vec<_> = next.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!((int(&next["expires_in"]), member(&next, "token_type")), (3600, "Bearer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_ne!(member(&next, "refresh_token"), first.refresh);
    assert_ne!(member(&next, "access_token"), first.access);
    assert!(agent.sees_alive(&first.access) && agent.sees_alive(member(&next, "access_token")));
    let keys = Jwks::fetch(&org);
    let before = keys.verify(&first.access, &org.issuer(), &agent.client_id);
    let after = keys.verify(member(&next, "access_token"), &org.issuer(), &agent.client_id);
    for same in ["sub", "client_id", "scope", "auth_time", "amr", "organization"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_ne!(before["jti"], after["jti"]);
}

fn scope_narrows_the_access_token_only(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a read:b");
    let narrow = agent.refresh(&first.refresh, &[("scope", "read:b")]).ok();
    assert_eq!(narrow["scope"], "read:b");
    assert_eq!(Token::parse(member(&narrow, "access_token")).claims["scope"], "read:b");
    // RFC 6749 section 6: the new refresh token has the scope of the old one.
    let whole = agent.refresh(member(&narrow, "refresh_token"), &[]).ok();
    assert_eq!(whole["scope"], "read:a read:b");
    let whole = agent.refresh(member(&whole, "refresh_token"), &[("scope", "")]).ok();
    assert_eq!(whole["scope"], "read:a read:b");
}

fn scope_never_widens(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    for scope in ["read:b", "read:a read:b", "read:*", "*", "openid", "offline_access", "delegate:on_behalf"]
    {
        agent.refresh(&first.refresh, &[("scope", scope)]).refused(400, "invalid_scope");
    }
    agent.refresh(&first.refresh, &[("scope", "read:\"")]).refused(400, "invalid_scope");
    // It is not used up by that.
    agent.refresh(&first.refresh, &[("scope", "read:a")]).ok();
}

fn token_is_required_and_must_be_known(server: &Server) {
    let (alice, agent) = both(server);
    agent.as_client(&[("grant_type", "refresh_token")]).refused(400, "invalid_request");
    let code = alice.code_for(&agent, "read:a");
    for token in ["rt_unknown", "x", "\u{0}", &code, &"rt_x".repeat(1000)] {
        agent.refresh(token, &[]).refused(400, "invalid_grant");
    }
    agent.redeem(&code, &[]).ok();
    let refresh = alice.allow(&agent, "read:a").refresh;
    agent.redeem(&refresh, &[]).refused(400, "invalid_grant");
    agent.refresh(&refresh, &[]).ok();
}

fn client_must_authenticate(server: &Server) {
    let (alice, agent) = both(server);
    let token = alice.allow(&agent, "read:a").refresh;
    let form = |more: &[(&str, &str)]| {
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", &*token)];
        fields.extend_from_slice(more);
        agent.org.post("/oauth/token").form(&fields).send()
    };
    form(&[]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id)]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id), ("client_secret", "wrong")]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id), ("client_secret", &agent.secret)]).ok();
}

fn id_token_comes_anew(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let mut fields = asking(&agent.client_id, "openid read:a");
    fields.extend([("access_type", "offline"), ("nonce", "n")]);
    let body = agent.redeem(&alice.code_of(&fields), &[]).ok();
    let next = agent.refresh(member(&body, "refresh_token"), &[]).ok();
    let keys = Jwks::fetch(&org);
    let before = keys.verify(member(&body, "id_token"), &org.issuer(), &agent.client_id);
    let after = keys.verify(member(&next, "id_token"), &org.issuer(), &agent.client_id);
    // OpenID Connect Core section 12.2.
    for same in ["iss", "sub", "aud", "auth_time"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert!(after.get("nonce").is_none_or(|nonce| nonce == "n") && before["at_hash"] != after["at_hash"]);
    let without = agent.refresh(member(&next, "refresh_token"), &[("scope", "read:a")]).ok();
    assert!(without.get("id_token").is_none());
}

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// An application, and a refresh token that it got.
fn application(server: &Server, confidential: bool) -> (lumoauth_tests::App<'_>, String) {
    let org = server.acme();
    let app = org.app(json!({
        "isConfidential": confidential, "allowedScopes": ["read:a"],
        "grantTypes": ["authorization_code", "refresh_token"],
    }));
    let mut fields = asking(&app.client_id, "read:a");
    fields.extend([("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]);
    let body = app.redeem(&org.person().code_of(&fields), &[("code_verifier", VERIFIER)]).ok();
    let token = member(&body, "refresh_token").to_owned();
    (app, token)
}

fn public_application_refreshes_without_a_secret(server: &Server) {
    let (app, token) = application(server, false);
    let next = app.refresh(&token, &[]).ok();
    app.refresh(member(&next, "refresh_token"), &[]).ok();
}

fn public_application_that_repeats_itself_loses_the_family(server: &Server) {
    let (app, token) = application(server, false);
    let next = app.refresh(&token, &[]).ok();
    app.refresh(&token, &[]).refused(400, "invalid_grant");
    app.refresh(member(&next, "refresh_token"), &[]).refused(400, "invalid_grant");
    let info = app.org.get("/oauth/userinfo").bearer(member(&next, "access_token")).send();
    assert_eq!(info.status, 401, "{info}");
}

fn confidential_application_may_repeat_itself(server: &Server) {
    let (app, token) = application(server, true);
    let next = app.refresh(&token, &[]).ok();
    app.refresh(&token, &[]).refused(400, "invalid_grant");
    app.refresh(member(&next, "refresh_token"), &[]).ok();
}

fn stolen_old_token_ends_the_family(server: &Server) {
    let (alice, agent) = both(server);
    let thief = server.acme().delegate(&["read:a"]);
    let first = alice.allow(&agent, "read:a");
    let next = agent.refresh(&first.refresh, &[]).ok();
    thief.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
    assert!(!agent.sees_alive(member(&next, "access_token")) && !agent.sees_alive(&first.access));
    agent.refresh(member(&next, "refresh_token"), &[]).refused(400, "invalid_grant");
}

fn suspended_agent_refreshes_nothing_even_afterwards(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    agent.admin("POST", "/deactivate").send().ok();
    agent.refresh(&first.refresh, &[]).refused(401, "invalid_client");
    agent.admin("POST", "/activate").send().ok();
    agent.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
    assert_eq!(introspect(&agent, &first.refresh), json!({ "active": false }));
    // The person need not be asked again for the agent to begin anew.
    let mut fields = asking(&agent.client_id, "read:a");
    fields.push(("access_type", "offline"));
    let again = agent.redeem(&alice.code_of(&fields), &[]).ok();
    agent.refresh(member(&again, "refresh_token"), &[]).ok();
}

fn withdrawn_consent_ends_it_for_good(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    let path = format!("/users/{}/consents/{}", alice.id, agent.client_id);
    agent.org.admin("DELETE", &path).send().ok();
    agent.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
    assert_eq!(introspect(&agent, &first.refresh), json!({ "active": false }));
    let anew = alice.allow(&agent, "read:a");
    agent.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
    agent.refresh(&anew.refresh, &[]).ok();
}

fn blocked_person_ends_it_for_good(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    let door = |what: &str| agent.org.admin("POST", &format!("/users/{}/{what}", alice.id)).send().ok();
    door("block");
    agent.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
    assert_eq!(introspect(&agent, &first.refresh), json!({ "active": false }));
    door("unblock");
    agent.refresh(&first.refresh, &[]).refused(400, "invalid_grant");
}

fn lost_capability_is_gone_at_the_next_refresh(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a read:b");
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    assert_eq!(introspect(&agent, &first.refresh)["scope"], "read:a");
    agent.refresh(&first.refresh, &[("scope", "read:b")]).refused(400, "invalid_scope");
    let next = agent.refresh(&first.refresh, &[]).ok();
    assert_eq!(next["scope"], "read:a");
    // Given back, it is there again: the person still allows it.
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a", "read:b"] })).send().ok();
    assert_eq!(agent.refresh(member(&next, "refresh_token"), &[]).ok()["scope"], "read:a read:b");
}

fn introspection_describes_it_to_its_client_only(server: &Server) {
    const THIRTY_DAYS: i64 = 30 * 86_400;
    let (alice, agent) = both(server);
    let org = server.acme();
    let refresh = alice.allow(&agent, "read:a").refresh;
    for hint in ["refresh_token", "access_token", "nonsense"] {
        let fields = [("token", refresh.as_str()), ("token_type_hint", hint)];
        let request = org.post("/oauth/introspect").basic(&agent.client_id, &agent.secret);
        let seen = request.form(&fields).send().ok();
        assert_eq!((&seen["active"], &seen["token_type"]), (&json!(true), &json!("refresh_token")));
        assert_eq!((&seen["sub"], &seen["scope"]), (&json!(alice.id), &json!("read:a")));
        assert_eq!((&seen["client_id"], &seen["username"]), (&json!(agent.client_id), &json!(alice.email)));
        let left = int(&seen["exp"]) - unix_now();
        assert!((THIRTY_DAYS - 60..=THIRTY_DAYS).contains(&left), "{seen}");
        assert!(!seen.to_string().contains(&refresh));
    }
    assert_eq!(introspect(&org.agent(&[]), &refresh), json!({ "active": false }));
    assert_eq!(introspect(&server.globex().agent(&[]), &refresh), json!({ "active": false }));
}

fn introspection_knows_dead_ones(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a").refresh;
    let next = agent.refresh(&first, &[]).ok();
    assert_eq!(introspect(&agent, &first), json!({ "active": false }));
    let next = member(&next, "refresh_token");
    assert_eq!(introspect(&agent, next)["active"], true);
    agent.revoke(next);
    assert_eq!(introspect(&agent, next), json!({ "active": false }));
}

fn revocation_by_another_client_has_no_effect(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    for other in [server.acme().agent(&[]), server.globex().agent(&[])] {
        for token in [&first.refresh, &first.access] {
            revoke_with(&other, token, "refresh_token").expect(200);
        }
    }
    assert!(agent.sees_alive(&first.access));
    agent.refresh(&first.refresh, &[]).ok();
}

fn revocation_ends_the_family_whatever_the_hint(server: &Server) {
    let (alice, agent) = both(server);
    for hint in ["refresh_token", "access_token", "nonsense"] {
        let first = alice.allow(&agent, "read:a");
        let next = agent.refresh(&first.refresh, &[]).ok();
        let delegated = agent.acting_for(member(&next, "access_token"));
        for _ in 0..2 {
            revoke_with(&agent, member(&next, "refresh_token"), hint).expect(200);
        }
        for dead in [&first.access, member(&next, "access_token"), &delegated] {
            assert!(!agent.sees_alive(dead), "{hint}");
        }
        agent.refresh(member(&next, "refresh_token"), &[]).refused(400, "invalid_grant");
    }
}

fn revoking_an_old_one_ends_the_family_too(server: &Server) {
    let (alice, agent) = both(server);
    let first = alice.allow(&agent, "read:a");
    let next = agent.refresh(&first.refresh, &[]).ok();
    agent.revoke(&first.refresh);
    assert!(!agent.sees_alive(member(&next, "access_token")));
    agent.refresh(member(&next, "refresh_token"), &[]).refused(400, "invalid_grant");
}

fn refused_refreshes_are_in_the_log(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let first = alice.allow(&agent, "read:a");
    agent.refresh(&first.refresh, &[("scope", "read:b")]).refused(400, "invalid_scope");
    let next = agent.refresh(&first.refresh, &[]).ok();
    let rows = org.audit(&format!("actor={}", agent.agent_id));
    let row =
        |status: &str| rows.iter().any(|row| row["authMethod"] == "refresh_token" && row["status"] == status);
    assert!(row("failure") && row("success"), "{rows:?}");
    let whole = json!(rows).to_string();
    for secret in [&*first.refresh, member(&next, "refresh_token"), CALLBACK] {
        assert!(!whole.contains(secret), "{whole}");
    }
}
