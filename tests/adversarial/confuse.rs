//! C: to pass one thing off as another.

use lumoauth_tests::{
    ACCESS_TOKEN, Agent, AttackerKey, ID_TOKEN, JWT, Org, Person, REFRESH_TOKEN, Response, Server, Token,
    acted_by, b64, exchanging, on_each_backend, text, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    c01_id_token_as_an_access_token,
    c02_refresh_token_as_an_access_token,
    c03_access_token_as_an_id_token,
    c04_access_token_as_a_refresh_token,
    c05_refresh_token_as_the_subject_with_an_actor,
    c06_unknown_token_types,
    c07_subject_of_another_organization,
    c08_actor_of_another_organization,
    c09_person_of_another_organization_signs_in_here,
    c10_forged_chain,
    c11_api_keys_as_tokens,
    c12_actor_without_its_type,
    c13_client_authentication_of_somebody_else,
    c14_mcp_token_as_the_subject_or_actor,
    c15_users_token_at_an_agents_route,
    c16_code_of_another_organization,
    c17_id_token_of_another_client,
    c18_id_token_declared_as_anything_else,
    c19_scope_out_of_an_id_token,
    c20_id_token_at_every_door,
    c21_id_token_signed_by_somebody_else,
    c22_trust_in_this_server_as_a_platform,
);

fn c01_id_token_as_an_access_token(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let body = agent.redeem(&alice.code_for(&agent, "openid read:a"), &[]).ok();
    let id_token = text(&body["id_token"]);
    assert_eq!(agent.userinfo(id_token).status, 401);
    agent.act_for(id_token, &agent.token(), &[]).refused(400, "invalid_grant");
    agent.act_for(text(&body["access_token"]), id_token, &[]).refused(400, "invalid_grant");
    assert!(!agent.sees_alive(id_token));
}

fn c02_refresh_token_as_an_access_token(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let tokens = alice.allow(&agent, "read:a");
    agent.userinfo(&tokens.refresh).refused(401, "invalid_token");
    agent.act_for(&tokens.refresh, &agent.token(), &[]).refused(400, "invalid_grant");
    agent.act_for(&tokens.access, &tokens.refresh, &[]).refused(400, "invalid_grant");
}

fn c03_access_token_as_an_id_token(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let tokens = alice.allow(&agent, "read:a");
    let actor = agent.token();
    for more in [&[][..], &acted_by(&actor)] {
        org.exchange(&tokens.access, ID_TOKEN, more).refused(400, "invalid_grant");
    }
    org.exchange(&tokens.access, ACCESS_TOKEN, &acted_by(&actor)).ok();
}

fn c04_access_token_as_a_refresh_token(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let tokens = alice.allow(&agent, "read:a");
    agent.refresh(&tokens.access, &[]).refused(400, "invalid_grant");
    org.exchange(&tokens.access, REFRESH_TOKEN, &[]).refused(400, "invalid_grant");
    agent.refresh(&tokens.refresh, &[]).ok();
}

fn c05_refresh_token_as_the_subject_with_an_actor(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let tokens = alice.allow(&agent, "read:a");
    let actor = agent.token();
    org.exchange(&tokens.refresh, REFRESH_TOKEN, &acted_by(&actor)).refused(400, "invalid_request");
    org.exchange(&tokens.access, ACCESS_TOKEN, &acted_by(&actor)).ok();
}

fn c06_unknown_token_types(server: &Server) {
    let org = server.acme();
    let token = org.delegate(&["read:a"]).token();
    for kind in ["urn:ietf:params:oauth:token-type:saml2", "access_token", "urn:x:approval", "\u{0}"] {
        org.exchange(&token, kind, &[]).refused(400, "unsupported_token_type");
    }
    org.exchange(&token, ACCESS_TOKEN, &[("scope", "read:a")]).ok();
}

fn c07_subject_of_another_organization(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let (alice, here, there) = (acme.person(), acme.delegate(&["read:a"]), globex.delegate(&["read:a"]));
    let user = alice.allow(&here, "read:a");
    there.act_for(&user.access, &there.token(), &[]).refused(400, "invalid_grant");
    there.exchange(&here.token(), &[("scope", "read:a")]).refused(400, "invalid_grant");
    // Nor an agent or a chain from there, although none of them is anybody's who would have to agree.
    let chain = here.acting_for(&user.access);
    for subject in [here.token(), chain] {
        there.act_for(&subject, &there.token(), &[]).refused(400, "invalid_grant");
        assert!(here.sees_alive(&subject) && !there.sees_alive(&subject));
    }
}

fn c08_actor_of_another_organization(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let (alice, here, there) = (acme.person(), acme.delegate(&["read:a"]), globex.delegate(&["read:a"]));
    let user = alice.allow(&here, "read:a");
    here.act_for(&user.access, &there.token(), &[]).refused(400, "invalid_grant");
    here.act_for(&user.access, &here.token(), &[]).ok();
}

fn c09_person_of_another_organization_signs_in_here(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let stranger = globex.person();
    let agent = acme.delegate(&["read:a"]);
    let mut here = acme.person();
    here.cookie = stranger.cookie;
    assert_eq!(here.ask_for(&agent, "read:a", &[]).status, 401);
    assert_eq!(
        acme.post("/oauth/login/json")
            .json(json!({ "email": stranger.email, "password": stranger.password }))
            .send()
            .status,
        401
    );
}

fn c10_forged_chain(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let real = Token::parse(&agent.acting_for(&alice.allow(&agent, "read:a").access));
    assert!(agent.sees_alive(&real.text));
    let (bob, other, key) = (org.person(), org.delegate(&["read:a"]), AttackerKey::generate());
    let [header, _, signature] = real.parts();
    for (name, value) in [
        ("scope", json!("read:a write:a admin")),
        ("exp", json!(unix_now() + 86_400)),
        ("act", Value::Null),
        ("act", json!({ "sub": format!("agent:{}", other.slug), "agent_id": other.agent_id })),
        ("sub", json!(bob.id)),
        ("agent_id", json!(other.agent_id)),
        ("client_id", json!(other.client_id)),
        ("delegation_depth", json!(0)),
        ("lin", Value::Null),
        ("lin", json!({})),
        ("jti", json!(lumoauth_tests::unique("jti"))),
    ] {
        let mut claims = real.claims.clone();
        assert!(!claims[name].is_null() && claims[name] != value, "{name}: {claims}");
        claims[name] = value;
        // Signed by somebody else, and with the signature that is there.
        let borrowed = format!("{header}.{}.{signature}", b64(claims.to_string()));
        for forged in [key.sign(&real.header, &claims), borrowed] {
            agent.userinfo(&forged).refused(401, "invalid_token");
            assert!(!agent.sees_alive(&forged), "{name}");
            other.act_for(&forged, &other.token(), &[]).refused(400, "invalid_grant");
        }
    }
    other.acting_for(&real.text);
}

fn c11_api_keys_as_tokens(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let custom =
        org.create_agent(json!({ "identityType": "custom", "capabilities": ["read:a", "delegate:user"] }));
    let user = alice.allow(&agent, "read:a");
    for key in [custom.api_key.as_str(), org.key()] {
        agent.act_for(&user.access, key, &[]).refused(400, "invalid_grant");
        agent.act_for(key, &agent.token(), &[]).refused(400, "invalid_grant");
    }
    agent.act_for(&user.access, &agent.token(), &[]).ok();
}

fn c12_actor_without_its_type(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let (user, actor) = (alice.allow(&agent, "read:a"), agent.token());
    agent.exchange(&user.access, &[("actor_token", &actor)]).refused(400, "invalid_request");
    agent.exchange(&user.access, &[("actor_token_type", ACCESS_TOKEN)]).refused(400, "invalid_request");
    agent.exchange(&user.access, &acted_by(&actor)).ok();
}

fn c13_client_authentication_of_somebody_else(server: &Server) {
    let org = server.acme();
    let (alice, agent, other) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let (user, actor) = (alice.allow(&agent, "read:a"), agent.token());
    let fields = exchanging(&user.access, ACCESS_TOKEN, &acted_by(&actor));
    other.as_client(&fields).refused(400, "invalid_grant");
    let wrong = [("client_id", agent.client_id.as_str()), ("client_secret", "wrong")];
    agent.act_for(&user.access, &actor, &wrong).refused(401, "invalid_client");
    agent.as_client(&fields).ok();
}

fn c14_mcp_token_as_the_subject_or_actor(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let bound = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let bound = text(&bound["access_token"]);
    let user = alice.allow(&agent, "read:a");
    agent.act_for(&user.access, bound, &[]).refused(400, "invalid_grant");
    let other = org.delegate(&["read:a"]);
    other.act_for(bound, &other.token(), &[]).refused(400, "invalid_grant");
    assert!(agent.sees_alive(bound), "it is good where it is meant for");
}

fn c15_users_token_at_an_agents_route(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let user = alice.allow(&agent, "read:a");
    org.get("/agents/me/usage").bearer(&user.access).send().refused(403, "forbidden");
    // Nor does it report, or register, in the agent's name.
    let (usage, register) = (json!({ "tokens": 1 }), json!({ "name": "x", "client_id": agent.client_id }));
    org.post("/agents/me/usage").bearer(&user.access).json(usage).send().refused(403, "forbidden");
    org.post("/agents/register").bearer(&user.access).json(register).send().refused(403, "forbidden");
    // Userinfo of a person needs openid.
    agent.userinfo(&user.access).refused(403, "forbidden");
    org.get("/agents/me/usage").bearer(&agent.token()).send().ok();
}

fn c16_code_of_another_organization(server: &Server) {
    let (acme, globex) = (server.acme(), server.globex());
    let (alice, here, there) = (acme.person(), acme.delegate(&["read:a"]), globex.delegate(&["read:a"]));
    let code = alice.code_for(&here, "read:a");
    there.redeem(&code, &[]).refused(400, "invalid_grant");
    here.redeem(&code, &[]).ok();
}

/// Alice's ID token at `agent`.
fn id_token_at(alice: &Person<'_>, agent: &Agent<'_>) -> String {
    let body = agent.redeem(&alice.code_for(agent, "openid read:a"), &[]).ok();
    text(&body["id_token"]).to_owned()
}

/// An exchange of an ID token with an actor.
fn acting_by_id(org: &Org<'_>, id_token: &str, kind: &str, actor: &str, more: &[(&str, &str)]) -> Response {
    org.exchange(id_token, kind, &[&acted_by(actor), more].concat())
}

fn c17_id_token_of_another_client(server: &Server) {
    let org = server.acme();
    let (alice, agent, thief) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    // Not even one that she agreed to.
    alice.allow(&thief, "read:a");
    let id_token = id_token_at(&alice, &agent);
    let client = [("client_id", thief.client_id.as_str()), ("client_secret", thief.secret.as_str())];
    for more in [&[][..], &client] {
        acting_by_id(&org, &id_token, ID_TOKEN, &thief.token(), more).refused(400, "invalid_grant");
    }
    thief.as_client(&exchanging(&id_token, ID_TOKEN, &[])).refused(400, "invalid_grant");
    org.exchange(&id_token, ID_TOKEN, &[]).refused(400, "invalid_grant");
    let named = [("client_id", agent.client_id.as_str())];
    acting_by_id(&org, &id_token, ID_TOKEN, &thief.token(), &named).refused(401, "invalid_client");
}

fn c18_id_token_declared_as_anything_else(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let (id_token, actor) = (id_token_at(&alice, &agent), agent.token());
    for kind in [ACCESS_TOKEN, JWT] {
        acting_by_id(&org, &id_token, kind, &actor, &[]).refused(400, "invalid_grant");
    }
    acting_by_id(&org, &id_token, REFRESH_TOKEN, &actor, &[]).refused(400, "invalid_request");
    // Nor is it a platform's word about a workload.
    for platform in ["oidc", "kubernetes"] {
        org.exchange(&id_token, ID_TOKEN, &[("subject_issuer", platform)])
            .refused(401, "workload_identity_failed");
    }
    acting_by_id(&org, &id_token, ID_TOKEN, &actor, &[]).ok();
}

fn c19_scope_out_of_an_id_token(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let (id_token, actor) = (id_token_at(&alice, &agent), agent.token());
    for scope in ["read:a", "openid", "profile"] {
        acting_by_id(&org, &id_token, ID_TOKEN, &actor, &[("scope", scope)]).refused(400, "invalid_scope");
    }
    let body = acting_by_id(&org, &id_token, ID_TOKEN, &actor, &[]).ok();
    let token = text(&body["access_token"]);
    assert_eq!(Token::parse(token).claims["scope"], "");
    let ask = json!({ "action": "read:a" });
    assert_eq!(org.post("/agents/ask").bearer(token).json(ask).send().ok()["allowed"], false);
    // Nothing regains it further down.
    let second = org.delegate(&["read:a"]);
    second.act_for(token, &second.token(), &[("scope", "read:a")]).refused(400, "invalid_scope");
}

fn c20_id_token_at_every_door(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let id_token = id_token_at(&alice, &agent);
    for path in ["/oauth/userinfo", "/agents/me", "/agents/me/usage", "/authz/permissions", "/me/consents"] {
        let answer = org.get(path).bearer(&id_token).send();
        assert_eq!(answer.status, 401, "{path}: {answer}");
    }
    let register = json!({ "client_id": agent.client_id, "name": "x" });
    assert_eq!(org.post("/agents/register").bearer(&id_token).json(register).send().status, 401);
    assert_eq!(org.introspect(&agent, &id_token), json!({ "active": false }));
    let own = agent.token();
    assert_eq!(
        org.post("/oauth/introspect").bearer(&id_token).form(&[("token", own.as_str())]).send().status,
        401
    );
    agent.act_for(&own, &id_token, &[]).refused(400, "invalid_grant");
}

fn c21_id_token_signed_by_somebody_else(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let (real, actor) = (Token::parse(&id_token_at(&alice, &agent)), agent.token());
    let key = AttackerKey::generate();
    let mut claims = real.claims.clone();
    claims["sub"] = org.person().id.into();
    for claims in [&real.claims, &claims] {
        let forged = key.sign(&real.header, claims);
        acting_by_id(&org, &forged, ID_TOKEN, &actor, &[]).refused(400, "invalid_grant");
    }
    acting_by_id(&org, &real.text, ID_TOKEN, &actor, &[]).ok();
}

fn c22_trust_in_this_server_as_a_platform(server: &Server) {
    let (org, other) = (server.acme(), server.globex());
    let trusting = |issuer: &str| {
        let trust = json!({ "provider": "oidc", "issuer": issuer, "subject": "agent:x", "audience": "a" });
        let body = json!({
            "name": lumoauth_tests::unique("Agent"), "identityType": "workload_identity", "workloadIdentity": trust,
        });
        org.admin("POST", "/agents").json(body).send()
    };
    for issuer in [org.issuer(), other.issuer()] {
        trusting(&issuer).refused(400, "validation_error");
    }
    trusting("https://platform.test").expect(201);
}
