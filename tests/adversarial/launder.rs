//! L: to make a chain look shorter, other, or like nobody acted.

use lumoauth_tests::{ACCESS_TOKEN, Server, Token, exchanging, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    l01_exchange_without_an_actor_keeps_the_chain,
    l02_exchange_for_a_resource_keeps_the_chain,
    l03_introspection_shows_the_whole_chain,
    l04_delegated_token_as_the_actor,
    l05_person_as_the_actor,
    l06_person_as_the_actor_of_an_agent,
    l07_agent_in_its_own_chain_twice,
    l08_token_as_its_own_actor,
    l09_resource_server_that_passes_its_inbound_token_on,
    l10_token_of_a_person_exchanged_by_another_client,
    l11_persons_token_given_to_an_agent_without_consent,
    l12_consent_to_one_agent_used_by_another,
    l13_implicit_consent_is_only_the_administrators_to_give,
    l14_order_of_actors_never_hides_the_current_one,
    l15_audit_names_the_whole_chain,
    l16_userinfo_names_who_acts,
    l17_party_of_a_resource_uses_elsewhere_what_a_person_allowed_there,
);

fn l01_exchange_without_an_actor_keeps_the_chain(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a", "read:b"]));
    let delegated = agent.acting_for(&alice.allow(&agent, "read:a read:b").access);
    let before = Token::parse(&delegated).claims;
    let body = agent.exchange(&delegated, &[("scope", "read:a")]).ok();
    let narrow = text(&body["access_token"]);
    let claims = Token::parse(narrow).claims;
    // Everything that says who acts for whom is as it was.
    for name in ["sub", "act", "delegation_depth", "aud", "client_id", "agent_id", "identity_type"] {
        assert!(claims[name] == before[name] && !claims[name].is_null(), "{name}: {claims}");
    }
    assert_eq!((&claims["act"]["agent_id"], &claims["scope"]), (&json!(agent.agent_id), &json!("read:a")));
    assert!(claims["exp"].as_u64() <= before["exp"].as_u64());
    // It is a link of its own: what it gave up is gone, and it ends with what it comes from.
    agent.exchange(narrow, &[("scope", "read:b")]).refused(400, "invalid_scope");
    agent.revoke(&delegated);
    assert!(!agent.sees_alive(narrow));
}

fn l02_exchange_for_a_resource_keeps_the_chain(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let delegated = agent.acting_for(&alice.allow(&agent, "read:a").access);
    let body = agent.exchange(&delegated, &[("resource", text(&mcp["resource_uri"]))]).ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!(claims["aud"], mcp["resource_uri"]);
    assert_eq!((&claims["sub"], &claims["delegation_depth"]), (&json!(alice.id), &json!(1)));
    assert_eq!(claims["act"]["agent_id"], agent.agent_id.as_str());
    assert!(claims["exp"].as_u64() <= Token::parse(&delegated).claims["exp"].as_u64());
}

fn l03_introspection_shows_the_whole_chain(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let nested = second.acting_for(&first.acting_for(&alice.allow(&first, "read:a").access));
    let seen = org.introspect(&second, &nested);
    assert_eq!(seen["sub"], alice.id.as_str());
    assert_eq!(seen["act"]["agent_id"], first.agent_id.as_str());
    assert_eq!(seen["act"]["act"]["agent_id"], second.agent_id.as_str());
    assert_eq!(seen["client_id"], second.client_id.as_str());
    assert_eq!(seen["agent_id"], second.agent_id.as_str());
}

fn l04_delegated_token_as_the_actor(server: &Server) {
    let org = server.acme();
    let (alice, bob, agent) = (org.person(), org.person(), org.delegate(&["read:a"]));
    let for_bob = agent.acting_for(&bob.allow(&agent, "read:a").access);
    let user = alice.allow(&agent, "read:a");
    agent.act_for(&user.access, &for_bob, &[]).refused(400, "invalid_grant");
    agent.acting_for(&user.access);
}

fn l05_person_as_the_actor(server: &Server) {
    let org = server.acme();
    let (alice, bob, agent) = (org.person(), org.person(), org.delegate(&["read:a"]));
    let (a, b) = (alice.allow(&agent, "read:a"), bob.allow(&agent, "read:a"));
    agent.act_for(&a.access, &b.access, &[]).refused(400, "invalid_grant");
    agent.acting_for(&a.access);
}

fn l06_person_as_the_actor_of_an_agent(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let user = alice.allow(&agent, "read:a");
    agent.act_for(&agent.token(), &user.access, &[]).refused(400, "invalid_grant");
    let other = org.delegate(&["read:a"]);
    agent.act_for(&other.token(), &user.access, &[]).refused(400, "invalid_grant");
    agent.acting_for(&other.token());
}

fn l07_agent_in_its_own_chain_twice(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let one = first.acting_for(&alice.allow(&first, "read:a").access);
    first.act_for(&one, &first.token(), &[]).refused(400, "invalid_request");
    let two = second.acting_for(&one);
    first.act_for(&two, &first.token(), &[]).refused(400, "invalid_request");
    second.act_for(&two, &second.token(), &[]).refused(400, "invalid_request");
}

fn l08_token_as_its_own_actor(server: &Server) {
    let org = server.acme();
    let agent = org.delegate(&["read:a"]);
    let token = agent.token();
    agent.act_for(&token, &token, &[]).refused(400, "invalid_request");
    agent.act_for(&token, &agent.token(), &[]).refused(400, "invalid_request");
    let other = org.delegate(&["read:a"]);
    other.acting_for(&token);
}

fn l09_resource_server_that_passes_its_inbound_token_on(server: &Server) {
    let org = server.acme();
    let (mcp, other) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let inbound = text(&body["access_token"]);
    let onward = [("resource", text(&other["resource_uri"]))];
    agent.exchange(inbound, &onward).refused(400, "invalid_grant");
    agent.exchange(inbound, &[]).refused(400, "invalid_grant");
    // Another agent that got hold of it cannot act on it either.
    let thief = org.delegate(&["read:a"]);
    thief.act_for(inbound, &thief.token(), &onward).refused(400, "invalid_grant");
}

fn l10_token_of_a_person_exchanged_by_another_client(server: &Server) {
    let org = server.acme();
    let (alice, agent, other) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let user = alice.allow(&agent, "read:a");
    let fields = exchanging(&user.access, ACCESS_TOKEN, &[("scope", "read:a")]);
    other.as_client(&fields).refused(400, "invalid_grant");
    org.post("/oauth/token").form(&fields).send().refused(401, "invalid_client");
    let narrowed = agent.as_client(&fields).ok();
    assert_eq!(Token::parse(text(&narrowed["access_token"])).claims["sub"], alice.id.as_str());
}

fn l11_persons_token_given_to_an_agent_without_consent(server: &Server) {
    let org = server.acme();
    let (alice, honest, greedy) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let user = alice.allow(&honest, "read:a");
    greedy.act_for(&user.access, &greedy.token(), &[]).refused(403, "consent_required");
    alice.allow(&greedy, "read:a");
    greedy.acting_for(&user.access);
}

fn l12_consent_to_one_agent_used_by_another(server: &Server) {
    let org = server.acme();
    let (alice, one, other) =
        (org.person(), org.delegate(&["read:a", "read:b"]), org.delegate(&["read:a", "read:b"]));
    let user = alice.allow(&one, "read:a read:b");
    alice.allow(&other, "read:a");
    // Alice allowed the other one less, so that is all it can do with the token that the first one has.
    let body = other.act_for(&user.access, &other.token(), &[("scope", "read:a")]).ok();
    assert_eq!(body["scope"], "read:a");
    other.act_for(&user.access, &other.token(), &[("scope", "read:b")]).refused(403, "consent_required");
}

fn l13_implicit_consent_is_only_the_administrators_to_give(server: &Server) {
    let org = server.acme();
    let (alice, one, other) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let user = alice.allow(&one, "read:a");
    let register = json!({ "name": other.name, "client_id": other.client_id, "delegationPolicy": { "consent": "implicit" } });
    // It may register itself, with all that it may say of itself.
    assert_eq!(
        org.post("/agents/register").bearer(&other.token()).json(register).send().ok()["success"],
        true
    );
    let policy = || other.admin("GET", "").send().ok()["data"]["delegationPolicy"]["consent"].clone();
    assert_eq!(policy(), "required");
    other.act_for(&user.access, &other.token(), &[]).refused(403, "consent_required");
    other.admin("PATCH", "").json(json!({ "delegationPolicy": { "consent": "implicit" } })).send().ok();
    assert_eq!(policy(), "implicit");
    other.act_for(&user.access, &other.token(), &[]).ok();
}

fn l14_order_of_actors_never_hides_the_current_one(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let nested = second.acting_for(&first.acting_for(&alice.allow(&first, "read:a").access));
    let claims = Token::parse(&nested).claims;
    assert_eq!(claims["agent_id"], second.agent_id.as_str());
    assert_eq!(claims["client_id"], second.client_id.as_str());
    assert_eq!(claims["aud"], second.agent_id.as_str());
    let order = org.get("/.well-known/oauth-authorization-server").send().ok()["act_claim_order"].clone();
    assert!(order.is_string(), "discovery says in which order actors are nested");
}

fn l15_audit_names_the_whole_chain(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let nested = second.acting_for(&first.acting_for(&alice.allow(&first, "read:a").access));
    second.ask(&nested, "read:a").ok();
    let chain = json!([format!("agent:{}", first.slug), format!("agent:{}", second.slug)]);
    let rows = org.audit(&format!("actor={}", second.agent_id));
    let told = rows.iter().any(|row| {
        let one = org.admin("GET", &format!("/audit-logs/{}", row["id"])).send().ok();
        let principal = &one["data"]["context"]["principal"];
        principal["subject"] == alice.id.as_str() && principal["actor_chain"] == chain
    });
    assert!(told, "{rows:?}");
}

fn l16_userinfo_names_who_acts(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let delegated = agent.acting_for(&alice.allow(&agent, "read:a").access);
    let info = agent.userinfo(&delegated).ok();
    assert_eq!(info["sub"], alice.id.as_str());
    assert_eq!(info["act"]["sub"], format!("agent:{}", agent.slug));
}

fn l17_party_of_a_resource_uses_elsewhere_what_a_person_allowed_there(server: &Server) {
    let org = server.acme();
    let (alice, behind) = (org.person(), org.delegate(&["read:a", "read:b"]));
    let mcp = org.mcp_server(json!({ "resource_client_id": behind.client_id }));
    let (place, other) = (text(&mcp["resource_uri"]), org.mcp_server(json!({})));
    // Alice lets the agent read `a` here, and `b` at that server only.
    let agent = org.delegate(&["read:a", "read:b"]);
    alice.allow(&agent, "read:a");
    let at = [("resource", place)];
    let challenge = alice.ask_for(&agent, "read:a read:b", &at).ok();
    let code = text(&alice.decide(&challenge, "approve", &[]).ok()["code"]).to_owned();
    let inbound = text(&agent.redeem(&code, &at).ok()["access_token"]).to_owned();
    let proof = [("client_id", behind.client_id.as_str()), ("client_secret", behind.secret.as_str())];
    let chain = agent.act_for(&inbound, &agent.token(), &[&proof[..], &at].concat()).ok();
    let chain = text(&chain["access_token"]);
    assert_eq!(Token::parse(chain).claims["scope"], "read:a read:b");
    for onward in [&[][..], &[("resource", text(&other["resource_uri"]))]] {
        let asked = [onward, &[("scope", "read:b")]].concat();
        behind.act_for(chain, &behind.token(), &asked).refused(403, "consent_required");
        agent
            .act_for(&inbound, &agent.token(), &[&proof[..], &asked].concat())
            .refused(403, "consent_required");
        assert_eq!(behind.act_for(chain, &behind.token(), onward).ok()["scope"], "read:a");
    }
    // At that server it works with it.
    let there = [at[0], ("scope", "read:b")];
    assert_eq!(behind.act_for(chain, &behind.token(), &there).ok()["scope"], "read:b");
}
