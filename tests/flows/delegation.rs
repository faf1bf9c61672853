//! Agents that act for people and for each other (contract 2.1.4 b, c and e, 3.3).

use lumoauth_tests::{
    ACCESS_TOKEN, Agent, CALLBACK, Jwks, Person, Response, Server, Token, exchanging, int, on_each_backend,
    text, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    answer_and_token_have_their_members,
    chain_grows_inwards_and_names_the_current_agent,
    any_of_three_lets_an_agent_act,
    declared_types_may_be_access_token_or_jwt,
    requested_type_is_an_access_token_or_left_out,
    omitted_scope_is_the_intersection_without_sign_in_scopes,
    empty_intersection_is_an_empty_scope,
    requested_scope_is_given_whole_or_refused,
    target_binds_a_delegated_token,
    delegated_token_for_a_server_without_common_scopes_is_refused,
    life_ends_with_the_subject_and_the_actor,
    agent_acts_for_an_agent,
    agent_may_join_an_agents_chain_three_times,
    stored_consent_lets_another_agent_act,
    stored_consent_and_the_first_one_both_end_it,
    persons_client_that_is_suspended_ends_it,
    implicit_consent_of_an_agent_ends_with_the_permission,
    userinfo_of_a_delegated_token_is_by_scope,
    delegated_token_is_judged_by_the_whole_chain,
    delegated_token_authenticates_nobody,
    person_narrows_a_token_by_its_client,
    agent_narrows_its_own_token,
    revoked_delegated_token_is_dead_with_what_came_of_it,
    budget_is_charged_to_the_actor,
    exchange_is_in_the_log_with_its_principal,
);

const TYPE: &str = "urn:ietf:params:oauth:token-type:";

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn token_of(answer: &Response) -> String {
    text(&answer.ok()["access_token"]).to_owned()
}

fn sorted(scope: &Value) -> Vec<&str> {
    let mut items: Vec<_> = text(scope).split_ascii_whitespace().collect();
    items.sort_unstable();
    items
}

fn entry(agent: &Agent<'_>) -> Value {
    json!({
        "sub": format!("agent:{}", agent.slug), "agent_id": agent.agent_id, "client_id": agent.client_id,
    })
}

fn answer_and_token_have_their_members(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let user = alice.allow(&agent, "read:a openid");
    let answer = agent.act_for(&user.access, &agent.token(), &[]);
    let body = answer.ok();
    let mut names: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["access_token", "expires_in", "issued_token_type", "scope", "token_type"]);
    assert_eq!(body["issued_token_type"], format!("{TYPE}access_token"));
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("read:a")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let token = text(&body["access_token"]);
    let claims = Jwks::fetch(&org).verify(token, &org.issuer(), &agent.agent_id);
    assert_eq!(Token::parse(token).header["typ"], "at+jwt");
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(alice.id), &json!(agent.agent_id)));
    assert_eq!(
        (&claims["agent_id"], &claims["client_id"]),
        (&json!(agent.agent_id), &json!(agent.client_id))
    );
    assert_eq!((&claims["organization"], &claims["scope"]), (&json!("acme-corp"), &json!("read:a")));
    assert_eq!((&claims["act"], &claims["delegation_depth"]), (&entry(&agent), &json!(1)));
    assert_eq!(int(&claims["exp"]) - int(&claims["iat"]), int(&body["expires_in"]));
    assert!(!claims.to_string().contains(&alice.email));
}

fn chain_grows_inwards_and_names_the_current_agent(server: &Server) {
    let (alice, first) = both(server);
    let org = server.acme();
    let (second, third) = (org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let mut token = alice.allow(&first, "read:a").access;
    let mut chain: Vec<Value> = Vec::new();
    for agent in [&first, &second, &third] {
        token = agent.acting_for(&token);
        chain.push(entry(agent));
        let claims = Jwks::fetch(&org).verify(&token, &org.issuer(), &agent.agent_id);
        let nested = chain.iter().rev().cloned().reduce(|inner, mut outer| {
            outer["act"] = inner;
            outer
        });
        assert_eq!(Some(&claims["act"]), nested.as_ref());
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(alice.id), &json!(agent.client_id)));
        assert_eq!(claims["delegation_depth"], chain.len());
        let me = org.get("/agents/me").bearer(&token).send().ok();
        assert_eq!((&me["agent_id"], &me["delegated_by"]), (&json!(agent.agent_id), &json!(alice.id)));
    }
}

fn any_of_three_lets_an_agent_act(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    for members in [
        json!({ "capabilities": ["read:a", "delegate:on_behalf"] }),
        json!({ "capabilities": ["read:a", "delegate:user"] }),
        json!({ "capabilities": ["read:a"], "canActOnBehalfOfUsers": true }),
    ] {
        let mut members = members;
        members["redirectUris"] = json!([CALLBACK]);
        let agent = org.create_agent(members);
        let user = alice.allow(&agent, "read:a");
        agent.act_for(&user.access, &agent.token(), &[]).ok();
    }
    for almost in ["delegate:other", "delegate", "Delegate:user"] {
        let members = json!({ "capabilities": ["read:a", almost], "redirectUris": [CALLBACK] });
        let agent = org.create_agent(members);
        let user = alice.allow(&agent, "read:a");
        agent.act_for(&user.access, &agent.token(), &[]).refused(403, "delegation_not_allowed");
    }
}

fn declared_types_may_be_access_token_or_jwt(server: &Server) {
    let (alice, agent) = both(server);
    let user = alice.allow(&agent, "read:a");
    let actor = agent.token();
    let exchange = |subject_type: &str, actor_type: &str| {
        let (subject_type, actor_type) = (format!("{TYPE}{subject_type}"), format!("{TYPE}{actor_type}"));
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", user.access.as_str()),
            ("subject_token_type", &subject_type),
            ("actor_token", &actor),
            ("actor_token_type", &actor_type),
        ];
        agent.org.post("/oauth/token").form(&fields).send()
    };
    for (subject, actor) in
        [("access_token", "access_token"), ("jwt", "access_token"), ("access_token", "jwt"), ("jwt", "jwt")]
    {
        assert_eq!(exchange(subject, actor).ok()["scope"], "read:a");
    }
    for actor in ["id_token", "refresh_token"] {
        exchange("access_token", actor).refused(400, "invalid_grant");
    }
    exchange("access_token", "saml2").refused(400, "unsupported_token_type");
    exchange("saml2", "access_token").refused(400, "unsupported_token_type");
    exchange("refresh_token", "access_token").refused(400, "invalid_request");
    exchange("id_token", "access_token").refused(400, "invalid_grant");
}

fn requested_type_is_an_access_token_or_left_out(server: &Server) {
    let (alice, agent) = both(server);
    let user = alice.allow(&agent, "read:a");
    let wanted = |kind: &str| {
        let kind = format!("{TYPE}{kind}");
        agent.act_for(&user.access, &agent.token(), &[("requested_token_type", &kind)])
    };
    wanted("access_token").ok();
    for kind in ["jwt", "id_token", "refresh_token", "saml2"] {
        wanted(kind).refused(400, "invalid_request");
    }
}

fn omitted_scope_is_the_intersection_without_sign_in_scopes(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let agent = org.delegate(&["read:a", "read:b", "read:c", "openid", "email"]);
    let user = alice.allow(&agent, "openid profile email offline_access read:a read:b");
    let actor = agent.token_for("read:b read:c openid email delegate:on_behalf");
    for extra in [&[][..], &[("scope", "")]] {
        assert_eq!(sorted(&agent.act_for(&user.access, &actor, extra).ok()["scope"]), ["read:b"]);
    }
    assert_eq!(sorted(&agent.act_for(&user.access, &agent.token(), &[]).ok()["scope"]), ["read:a", "read:b"]);
}

fn empty_intersection_is_an_empty_scope(server: &Server) {
    let (alice, agent) = both(server);
    // A plain sign-in token, as the SDK exchanges it.
    let user = alice.allow(&agent, "openid profile");
    let body = agent.act_for(&user.access, &agent.token(), &[]).ok();
    assert_eq!(body["scope"], "");
    let token = text(&body["access_token"]);
    assert!(agent.sees_alive(token));
    assert_eq!(agent.ask(token, "read:a").ok()["allowed"], false);
    agent.act_for(&user.access, &agent.token(), &[("scope", "read:a")]).refused(400, "invalid_scope");
}

fn requested_scope_is_given_whole_or_refused(server: &Server) {
    let (alice, agent) = both(server);
    let user = alice.allow(&agent, "read:a read:b openid");
    let ask = |scope: &str| agent.act_for(&user.access, &agent.token(), &[("scope", scope)]);
    assert_eq!(ask("read:b").ok()["scope"], "read:b");
    assert_eq!(sorted(&ask("read:b read:a read:b").ok()["scope"]), ["read:a", "read:b"]);
    for beyond in ["read:c", "read:a read:c", "read:*", "delegate:on_behalf", "openid", "read:a\topenid"] {
        ask(beyond).refused(400, "invalid_scope");
    }
}

fn target_binds_a_delegated_token(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:a"], "token_lifetime": 120 }));
    let resource = text(&mcp["resource_uri"]);
    let user = alice.allow(&agent, "read:a read:b");
    for target in [("resource", resource), ("audience", resource), ("audience", text(&mcp["server_id"]))] {
        let body = agent.act_for(&user.access, &agent.token(), &[target]).ok();
        let token = text(&body["access_token"]);
        let claims = Jwks::fetch(&org).verify(token, &org.issuer(), resource);
        assert_eq!((&claims["aud"], &claims["scope"]), (&json!(resource), &json!("read:a")));
        assert_eq!((&claims["sub"], &claims["act"]), (&json!(alice.id), &entry(&agent)));
        assert!(int(&body["expires_in"]) <= 120, "{body}");
        assert_eq!(agent.userinfo(token).status, 401);
        // It is for that server: nobody acts on with it, but the agent that is registered for it.
        let other = org.delegate(&["read:a"]);
        other.act_for(token, &other.token(), &[]).refused(400, "invalid_grant");
    }
    let unknown = [("resource", "https://nobody.test/mcp")];
    agent.act_for(&user.access, &agent.token(), &unknown).refused(400, "invalid_target");
}

fn delegated_token_for_a_server_without_common_scopes_is_refused(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let mcp = org.mcp_server(json!({ "scopes_supported": ["read:b"] }));
    let user = alice.allow(&agent, "read:a");
    let target = [("resource", text(&mcp["resource_uri"]))];
    agent.act_for(&user.access, &agent.token(), &target).refused(400, "invalid_scope");
    agent.exchange(&agent.acting_for(&user.access), &target).refused(400, "invalid_scope");
}

fn life_ends_with_the_subject_and_the_actor(server: &Server) {
    let (alice, first) = both(server);
    let org = server.acme();
    let user = alice.allow(&first, "read:a");
    let body = first.act_for(&user.access, &first.token(), &[]).ok();
    assert_eq!(int(&body["expires_in"]), 900);
    let short = org.create_agent(json!({ "capabilities": ["read:a"], "tokenLifetime": 120 }));
    let nested = short.act_for(text(&body["access_token"]), &short.token(), &[]).ok();
    assert!((1..=120).contains(&int(&nested["expires_in"])), "{nested}");
    let nested = Token::parse(text(&nested["access_token"]));
    assert!(int(&nested.claims["exp"]) <= unix_now() + 120);
    // What comes of it lives no longer, whoever is next.
    let bound = org.mcp_server(json!({ "token_lifetime": 86_400 }));
    let bound = short.exchange(&nested.text, &[("resource", text(&bound["resource_uri"]))]).ok();
    let bound = Token::parse(text(&bound["access_token"]));
    assert!(int(&bound.claims["exp"]) <= int(&nested.claims["exp"]));
}

fn agent_acts_for_an_agent(server: &Server) {
    let org = server.acme();
    let (first, second) = (org.agent(&["read:a", "read:b"]), org.delegate(&["read:a", "read:c"]));
    let answer = second.act_for(&first.token(), &second.token(), &[]);
    let body = answer.ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!(claims["sub"], format!("agent:{}", first.slug));
    assert_eq!((&claims["act"], &claims["delegation_depth"]), (&entry(&second), &json!(1)));
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!(second.agent_id), &json!("read:a")));
    // The newcomer answers for itself.
    let plain = org.agent(&["read:a"]);
    plain.act_for(&first.token(), &plain.token(), &[]).refused(403, "delegation_not_allowed");
    // Both ends end it.
    let token = token_of(&answer);
    assert!(second.sees_alive(&token));
    first.admin("POST", "/deactivate").send().ok();
    assert!(!second.sees_alive(&token));
}

fn agent_may_join_an_agents_chain_three_times(server: &Server) {
    let org = server.acme();
    let first = org.agent(&["read:a"]);
    let mut token = first.token();
    let mut joined = Vec::new();
    for depth in 1..=3 {
        let next = org.delegate(&["read:a"]);
        token = next.acting_for(&token);
        assert_eq!(Token::parse(&token).claims["delegation_depth"], depth);
        joined.push(next);
    }
    let fourth = org.delegate(&["read:a"]);
    let refusal = fourth.act_for(&token, &fourth.token(), &[]).refused(403, "delegation_depth_exceeded");
    assert_eq!(refusal["max_depth"], 3);
    // Whom the chain stands for is in it too.
    let two = joined[1].acting_for(&joined[0].acting_for(&first.token()));
    first.act_for(&two, &first.token(), &[]).refused(400, "invalid_request");
}

fn stored_consent_lets_another_agent_act(server: &Server) {
    let (alice, first) = both(server);
    let other = server.acme().delegate(&["read:a", "read:b"]);
    let user = alice.allow(&first, "read:a read:b");
    other.act_for(&user.access, &other.token(), &[]).refused(403, "consent_required");
    alice.allow(&other, "read:b");
    assert_eq!(other.act_for(&user.access, &other.token(), &[]).ok()["scope"], "read:b");
    // Nobody else's consent counts.
    let bob = server.acme().person();
    let bobs = bob.allow(&first, "read:a read:b");
    other.act_for(&bobs.access, &other.token(), &[]).refused(403, "consent_required");
}

fn stored_consent_and_the_first_one_both_end_it(server: &Server) {
    let org = server.acme();
    for ends in 0..2 {
        let (alice, first) = both(server);
        let other = org.delegate(&["read:a"]);
        let user = alice.allow(&first, "read:a");
        alice.allow(&other, "read:a");
        let token = other.acting_for(&user.access);
        assert!(other.sees_alive(&token));
        let client = [&first.client_id, &other.client_id][ends];
        org.admin("DELETE", &format!("/users/{}/consents/{client}", alice.id)).send().ok();
        assert!(!other.sees_alive(&token), "{ends}");
        // Without the first one the subject is dead, without the second one it is nobody's business.
        let (status, error) = [(400, "invalid_grant"), (403, "consent_required")][ends];
        other.act_for(&user.access, &other.token(), &[]).refused(status, error);
    }
}

fn persons_client_that_is_suspended_ends_it(server: &Server) {
    let (alice, first) = both(server);
    let other = server.acme().delegate(&["read:a"]);
    let user = alice.allow(&first, "read:a");
    alice.allow(&other, "read:a");
    let token = other.acting_for(&user.access);
    first.admin("POST", "/deactivate").send().ok();
    assert!(!other.sees_alive(&token));
    other.act_for(&user.access, &other.token(), &[]).refused(400, "invalid_grant");
}

fn implicit_consent_of_an_agent_ends_with_the_permission(server: &Server) {
    let org = server.acme();
    let (alice, first) = both(server);
    let members = json!({
        "capabilities": ["read:a", "delegate:user"], "delegationPolicy": { "consent": "implicit" },
    });
    let trusted = org.create_agent(members);
    let user = alice.allow(&first, "read:a read:b");
    assert_eq!(trusted.act_for(&user.access, &trusted.token(), &[]).ok()["scope"], "read:a");
    let required = json!({ "delegationPolicy": { "consent": "required" } });
    trusted.admin("PATCH", "").json(required).send().ok();
    trusted.act_for(&user.access, &trusted.token(), &[]).refused(403, "consent_required");
}

fn userinfo_of_a_delegated_token_is_by_scope(server: &Server) {
    let org = server.acme();
    let alice = org.person_with(json!({ "name": "Alice Ng" }));
    let agent = org.delegate(&["read:a", "email", "profile"]);
    let user = alice.allow(&agent, "openid email profile read:a");
    let info = |scope: &str| {
        let token = token_of(&agent.act_for(&user.access, &agent.token(), &[("scope", scope)]));
        agent.userinfo(&token).ok()
    };
    let plain = info("read:a");
    assert_eq!((&plain["sub"], &plain["act"]["sub"]), (&json!(alice.id), &entry(&agent)["sub"]));
    assert!(plain.get("email").is_none() && plain.get("name").is_none(), "{plain}");
    let email = info("read:a email");
    assert_eq!((&email["email"], &email["email_verified"]), (&json!(alice.email), &json!(false)));
    assert!(email.get("name").is_none(), "{email}");
    let profile = info("profile");
    assert!(profile["name"] == "Alice Ng" && profile["updated_at"].is_i64(), "{profile}");
}

fn delegated_token_is_judged_by_the_whole_chain(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a", "read:b"]), org.agent(&["read:*"]));
    let nested = second.acting_for(&first.acting_for(&alice.allow(&first, "read:a read:b").access));
    let allowed = |action: &str| second.ask(&nested, action).ok()["allowed"] == true;
    assert!(allowed("read:a") && allowed("read:b") && !allowed("read:c"));
    first.admin("PUT", "/scopes").json(json!({ "scopes": ["read:b", "delegate:user"] })).send().ok();
    assert!(!allowed("read:a") && allowed("read:b"));
    second.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    assert!(!allowed("read:a") && !allowed("read:b"));
}

fn delegated_token_authenticates_nobody(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let delegated = agent.acting_for(&alice.allow(&agent, "read:a").access);
    let other = agent.token();
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let request = org.post(path).bearer(&delegated).form(&[("token", &other)]);
        request.send().refused(401, "invalid_client");
    }
    let register = json!({ "name": agent.name, "client_id": agent.client_id });
    org.post("/agents/register").bearer(&delegated).json(register).send().refused(403, "forbidden");
    assert!(agent.sees_alive(&other));
}

fn person_narrows_a_token_by_its_client(server: &Server) {
    let (alice, agent) = both(server);
    let user = alice.allow(&agent, "read:a read:b openid");
    agent.exchange(&user.access, &[("scope", "read:a")]).refused(401, "invalid_client");
    let narrow = |agent: &Agent<'_>, scope: &str| {
        agent.as_client(&exchanging(&user.access, ACCESS_TOKEN, &[("scope", scope)]))
    };
    let body = narrow(&agent, "read:a").ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    let subject = Token::parse(&user.access).claims;
    assert_eq!((&claims["sub"], &claims["scope"]), (&json!(alice.id), &json!("read:a")));
    assert_eq!((&claims["client_id"], &claims["aud"]), (&subject["client_id"], &subject["aud"]));
    assert!(int(&claims["exp"]) <= int(&subject["exp"]) && claims.get("act").is_none(), "{claims}");
    narrow(&agent, "read:c").refused(400, "invalid_scope");
    narrow(&agent, "").refused(400, "invalid_request");
    narrow(&server.acme().delegate(&["read:a"]), "read:a").refused(400, "invalid_grant");
    agent.revoke(&user.access);
    assert!(!agent.sees_alive(text(&body["access_token"])));
}

fn agent_narrows_its_own_token(server: &Server) {
    let agent = server.acme().agent(&["read:a", "read:b"]);
    let token = agent.parsed_token();
    let body = agent.exchange(&token.text, &[("scope", "read:b")]).ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!((&claims["sub"], &claims["aud"]), (&token.claims["sub"], &token.claims["aud"]));
    assert_eq!(claims["scope"], "read:b");
    assert!(int(&claims["exp"]) <= int(&token.claims["exp"]));
    let narrow = text(&body["access_token"]);
    agent.exchange(narrow, &[("scope", "read:a")]).refused(400, "invalid_scope");
    agent.exchange(narrow, &[]).refused(400, "invalid_request");
    agent.exchange(narrow, &[("scope", "read:b")]).ok();
    agent.revoke(&token.text);
    assert!(!agent.sees_alive(narrow));
}

fn revoked_delegated_token_is_dead_with_what_came_of_it(server: &Server) {
    let (alice, first) = both(server);
    let org = server.acme();
    let second = org.agent(&["read:a"]);
    let user = alice.allow(&first, "read:a");
    let (kept, ended) = (first.acting_for(&user.access), first.acting_for(&user.access));
    let nested = second.acting_for(&ended);
    // It is not the next agent's to revoke.
    second.revoke(&ended);
    assert!(second.sees_alive(&nested));
    first.revoke(&ended);
    assert!(!first.sees_alive(&ended) && !second.sees_alive(&nested));
    assert!(first.sees_alive(&kept) && first.sees_alive(&user.access));
    second.act_for(&ended, &second.token(), &[]).refused(400, "invalid_grant");
}

fn budget_is_charged_to_the_actor(server: &Server) {
    lumoauth_tests::avoid_hour_edge();
    let org = server.acme();
    let agent = org.create_agent(json!({
        "capabilities": ["read:a", "delegate:on_behalf"], "redirectUris": [CALLBACK],
        "budgetPolicy": { "max_api_calls_per_hour": 2 },
    }));
    let user = org.person().allow(&agent, "read:a");
    let actor = agent.token();
    // A refusal costs nothing.
    agent.act_for(&user.access, &actor, &[("scope", "read:b")]).refused(400, "invalid_scope");
    for _ in 0..2 {
        agent.act_for(&user.access, &actor, &[]).ok();
    }
    let over = agent.act_for(&user.access, &actor, &[]);
    over.refused(429, "budget_exceeded");
    assert!(over.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{over}");
    // It signs in all the same.
    agent.token();
}

fn exchange_is_in_the_log_with_its_principal(server: &Server) {
    let (alice, first) = both(server);
    let org = server.acme();
    let second = org.agent(&["read:a"]);
    let user = alice.allow(&first, "read:a");
    let nested = second.acting_for(&first.acting_for(&user.access));
    second.act_for(&nested, &second.token(), &[]).refused(403, "delegation_not_allowed");
    let rows = org.audit(&format!("actor={}&action=agent.action", second.agent_id));
    let whole: Vec<Value> = rows
        .iter()
        .map(|row| org.admin("GET", &format!("/audit-logs/{}", row["id"])).send().ok()["data"].clone())
        .collect();
    let chain = [format!("agent:{}", first.slug), format!("agent:{}", second.slug)];
    let exchange = |status: &str| {
        let of = |row: &&Value| row["status"] == status && row["context"]["action"] == "token.exchange";
        whole.iter().find(of).unwrap_or_else(|| panic!("{status}: {whole:?}"))
    };
    let done = exchange("success");
    assert_eq!(done["context"]["principal"], json!({ "subject": alice.id, "actor_chain": chain }));
    assert_eq!((&done["actorType"], &done["targetId"]), (&json!("agent"), &json!(alice.id)));
    assert_eq!(exchange("failure")["context"]["principal"]["subject"], alice.id.as_str());
    let text = json!(whole).to_string();
    for token in [&nested, &user.access, &user.refresh] {
        assert!(!text.contains(token), "{text}");
    }
}
