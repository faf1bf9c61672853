//! W: to get more than every link of the chain has.

use lumoauth_tests::{ACCESS_TOKEN, Server, Token, asking, int, on_each_backend, text, unique};
use serde_json::json;

on_each_backend!(
    w01_scope_beyond_what_the_person_allowed,
    w02_scope_beyond_what_the_agent_may,
    w03_scope_beyond_what_the_actor_token_has,
    w04_scope_regained_at_the_next_link,
    w05_wildcard_of_an_agent_does_not_widen_a_person,
    w06_wildcard_asked_of_a_person,
    w07_capability_that_is_withdrawn_is_gone_from_the_chain,
    w08_life_beyond_the_subjects,
    w09_fourth_actor,
    w10_agent_that_may_not_delegate,
    w11_sub_agent_that_lost_the_right_to_delegate,
    w12_human_only_doors_by_a_chain,
    w13_human_only_doors_by_the_persons_own_token_of_an_agent,
    w14_scopes_of_administrators_asked_by_an_agent,
    w15_two_audiences_at_once,
    w16_mcp_server_that_the_agent_may_not_use,
    w17_claims_in_the_request,
    w18_capability_that_the_client_lost_is_gone_from_the_persons_token,
    w19_narrow_token_makes_itself_a_key_of_its_agent,
    w20_client_with_scopes_of_people_sees_everybodys_tokens,
    w21_wildcard_of_a_person_reaches_who_they_are,
);

fn w01_scope_beyond_what_the_person_allowed(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a", "write:a"]));
    let user = alice.allow(&agent, "read:a");
    let actor = agent.token();
    agent.act_for(&user.access, &actor, &[("scope", "write:a")]).refused(400, "invalid_scope");
    agent.act_for(&user.access, &actor, &[("scope", "read:a write:a")]).refused(400, "invalid_scope");
    let body = agent.act_for(&user.access, &actor, &[]).ok();
    assert_eq!(body["scope"], "read:a");
}

fn w02_scope_beyond_what_the_agent_may(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a", "read:b"]), org.agent(&["read:a"]));
    let user = alice.allow(&first, "read:a read:b");
    let delegated = first.acting_for(&user.access);
    let actor = second.token();
    second.act_for(&delegated, &actor, &[("scope", "read:b")]).refused(400, "invalid_scope");
    assert_eq!(second.act_for(&delegated, &actor, &[]).ok()["scope"], "read:a");
}

fn w03_scope_beyond_what_the_actor_token_has(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a", "read:b"]));
    let user = alice.allow(&agent, "read:a read:b");
    let narrow = agent.token_for("read:b delegate:on_behalf");
    agent.act_for(&user.access, &narrow, &[("scope", "read:a")]).refused(400, "invalid_scope");
    assert_eq!(agent.act_for(&user.access, &narrow, &[]).ok()["scope"], "read:b");
}

fn w04_scope_regained_at_the_next_link(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a", "read:b"]), org.agent(&["read:*"]));
    let user = alice.allow(&first, "read:a read:b");
    let narrowed = first.act_for(&user.access, &first.token(), &[("scope", "read:a")]).ok();
    let narrowed = text(&narrowed["access_token"]);
    second.act_for(narrowed, &second.token(), &[("scope", "read:b")]).refused(400, "invalid_scope");
    assert_eq!(second.act_for(narrowed, &second.token(), &[]).ok()["scope"], "read:a");
}

fn w05_wildcard_of_an_agent_does_not_widen_a_person(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:*", "*"]));
    let user = alice.allow(&agent, "read:a");
    let actor = agent.token();
    for scope in ["read:b", "read:*", "*"] {
        agent.act_for(&user.access, &actor, &[("scope", scope)]).refused(400, "invalid_scope");
    }
    assert_eq!(agent.act_for(&user.access, &actor, &[]).ok()["scope"], "read:a");
}

fn w06_wildcard_asked_of_a_person(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    for scope in ["read:*", "*", "read:a *"] {
        let answer = alice.ask_for(&agent, scope, &[]);
        let redirect = answer.json()["redirect_to"].as_str().unwrap_or_default().to_owned();
        assert!(redirect.contains("error=invalid_scope"), "{scope}: {answer}");
    }
    alice.allow(&agent, "read:a");
}

fn w07_capability_that_is_withdrawn_is_gone_from_the_chain(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let user = alice.allow(&first, "read:a");
    let delegated = first.acting_for(&user.access);
    let nested = second.acting_for(&delegated);
    assert_eq!(second.ask(&nested, "read:a").ok()["allowed"], true);
    first.admin("PUT", "/scopes").json(json!({ "scopes": ["delegate:on_behalf"] })).send().ok();
    assert_eq!(second.ask(&nested, "read:a").ok()["allowed"], false);
    assert_eq!(org.introspect(&second, &nested)["scope"], "");
    // The next link does not get it either, although the last one still says it and the newcomer may.
    let actor = second.token();
    second.act_for(&delegated, &actor, &[("scope", "read:a")]).refused(400, "invalid_scope");
    assert_eq!(second.act_for(&delegated, &actor, &[]).ok()["scope"], "");
}

fn w08_life_beyond_the_subjects(server: &Server) {
    let org = server.acme();
    let (alice, first) = (org.person(), org.delegate(&["read:a"]));
    let short = org.create_agent(json!({ "capabilities": ["read:a"], "tokenLifetime": 120 }));
    let user = alice.allow(&first, "read:a");
    let delegated = Token::parse(&first.acting_for(&user.access));
    let subject = Token::parse(&user.access);
    let life = int(&delegated.claims["exp"]) - int(&delegated.claims["iat"]);
    assert!(life <= 900 && delegated.claims["exp"].as_u64() <= subject.claims["exp"].as_u64());
    let actor = short.token();
    let nested = short.act_for(&first.acting_for(&user.access), &actor, &[]).ok();
    let nested = Token::parse(text(&nested["access_token"]));
    assert!(nested.claims["exp"].as_u64() <= Token::parse(&actor).claims["exp"].as_u64());
    // Nor does what comes of that, and nobody gets the time back by asking for less.
    let narrowed = short.exchange(&nested.text, &[("scope", "read:a")]).ok();
    let (third, mcp) = (org.agent(&["read:a"]), org.mcp_server(json!({ "token_lifetime": 3600 })));
    short.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a", "delegate:user"] })).send().ok();
    let bound = short.exchange(&nested.text, &[("resource", text(&mcp["resource_uri"]))]).ok();
    for token in
        [text(&narrowed["access_token"]), text(&bound["access_token"]), &third.acting_for(&nested.text)]
    {
        assert!(Token::parse(token).claims["exp"].as_u64() <= nested.claims["exp"].as_u64());
    }
}

fn w09_fourth_actor(server: &Server) {
    let org = server.acme();
    let (alice, first) = (org.person(), org.delegate(&["read:a"]));
    let mut token = first.acting_for(&alice.allow(&first, "read:a").access);
    for depth in 2..=3 {
        let next = org.delegate(&["read:a"]);
        token = next.acting_for(&token);
        assert_eq!(Token::parse(&token).claims["delegation_depth"], depth);
    }
    let fourth = org.delegate(&["read:a"]);
    let refusal = fourth.act_for(&token, &fourth.token(), &[]).refused(403, "delegation_depth_exceeded");
    assert_eq!(refusal["max_depth"], 3);
}

fn w10_agent_that_may_not_delegate(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let members = json!({ "capabilities": ["read:a", "*"], "redirectUris": [lumoauth_tests::CALLBACK] });
    let agent = org.create_agent(members);
    let user = alice.allow(&agent, "read:a");
    agent.act_for(&user.access, &agent.token(), &[]).refused(403, "delegation_not_allowed");
}

fn w11_sub_agent_that_lost_the_right_to_delegate(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let delegated = first.acting_for(&alice.allow(&first, "read:a").access);
    first.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    second.act_for(&delegated, &second.token(), &[]).refused(403, "delegation_not_allowed");
}

fn w12_human_only_doors_by_a_chain(server: &Server) {
    let org = server.acme();
    let boss = org.person_with(json!({ "isAdmin": true }));
    let agent = org.delegate(&["read:a"]);
    let delegated = agent.acting_for(&boss.allow(&agent, "read:a").access);
    for (method, path) in [("GET", "/admin/agents"), ("GET", "/admin/users"), ("GET", "/me/consents")] {
        let answer = org.request(method, path).bearer(&delegated).send();
        answer.refused(403, "forbidden");
    }
    org.get("/admin/agents").bearer(&boss.in_person("admin")).send().ok();
}

fn w13_human_only_doors_by_the_persons_own_token_of_an_agent(server: &Server) {
    let org = server.acme();
    let boss = org.person_with(json!({ "isAdmin": true }));
    let agent = org.delegate(&["read:a"]);
    let user = boss.allow(&agent, "read:a openid");
    for (method, path) in [("GET", "/admin/agents"), ("GET", "/me/consents")] {
        org.request(method, path).bearer(&user.access).send().refused(403, "forbidden");
        // To an application of theirs the same doors open.
        org.request(method, path).bearer(&boss.in_person("admin consents")).send().ok();
    }
}

fn w14_scopes_of_administrators_asked_by_an_agent(server: &Server) {
    let org = server.acme();
    let boss = org.person_with(json!({ "isAdmin": true }));
    let all = ["admin", "admin:agents", "jit:approve", "approvals.manage", "abac:write", "authz:check"];
    let agent = org.delegate(&[&all[..], &["read:a"]].concat());
    boss.allow(&agent, "read:a");
    for scope in all {
        let answer = boss.ask_for(&agent, scope, &[]);
        let redirect = answer.json()["redirect_to"].as_str().unwrap_or_default().to_owned();
        assert!(redirect.contains("error=invalid_scope"), "{scope}: {answer}");
    }
}

fn w15_two_audiences_at_once(server: &Server) {
    let org = server.acme();
    let (one, other) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let agent = org.agent(&["read:a"]);
    let (one, other) = (text(&one["resource_uri"]), text(&other["resource_uri"]));
    let both = [("resource", one), ("resource", other)];
    agent.exchange(&agent.token(), &both).refused(400, "invalid_target");
    let named = [("audience", one), ("audience", other)];
    agent.exchange(&agent.token(), &named).refused(400, "invalid_target");
    for target in [one, other] {
        let body = agent.exchange(&agent.token(), &[("resource", target)]).ok();
        assert_eq!(Token::parse(text(&body["access_token"])).claims["aud"], target);
    }
}

fn w16_mcp_server_that_the_agent_may_not_use(server: &Server) {
    let org = server.acme();
    let (alice, agent, other) = (org.person(), org.delegate(&["read:a"]), org.agent(&["read:a"]));
    let closed = org.mcp_server(json!({ "allowed_agent_ids": [other.agent_id] }));
    let delegated = agent.acting_for(&alice.allow(&agent, "read:a").access);
    let target = [("resource", text(&closed["resource_uri"]))];
    agent.exchange(&delegated, &target).refused(400, "invalid_target");
    let user = alice.allow(&agent, "read:a");
    agent.act_for(&user.access, &agent.token(), &target).refused(400, "invalid_target");
    agent.exchange(&agent.token(), &target).refused(400, "invalid_target");
    // The one on the list may.
    other.exchange(&other.token(), &target).ok();
}

fn w17_claims_in_the_request(server: &Server) {
    let org = server.acme();
    let (alice, bob, agent) = (org.person(), org.person(), org.delegate(&["read:a"]));
    let user = alice.allow(&agent, "read:a");
    let (act, jti) = (json!({ "sub": "agent:somebody" }).to_string(), unique("jti"));
    let extra = [
        ("sub", bob.id.as_str()),
        ("act", &act),
        ("exp", "9999999999"),
        ("iss", "https://evil.example"),
        ("organization", "globex"),
        ("agent_id", "agt_00000000000000000000000000000000"),
        ("delegation_depth", "0"),
        ("lin", "{}"),
        ("jti", &jti),
    ];
    let body = agent.act_for(&user.access, &agent.token(), &extra).ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!(claims["sub"], alice.id.as_str());
    assert_eq!(claims["act"]["sub"], format!("agent:{}", agent.slug));
    assert_eq!((&claims["organization"], &claims["iss"]), (&json!(org.slug()), &json!(org.issuer())));
    assert_eq!((&claims["agent_id"], &claims["delegation_depth"]), (&json!(agent.agent_id), &json!(1)));
    assert!(int(&claims["exp"]) - int(&claims["iat"]) <= 900 && claims["jti"] != jti, "{claims}");
    assert!(agent.sees_alive(text(&body["access_token"])));
}

fn w18_capability_that_the_client_lost_is_gone_from_the_persons_token(server: &Server) {
    let org = server.acme();
    let held = ["read:a", "read:b", "authz:read"];
    let (alice, agent, bot) = (org.person(), org.delegate(&held), org.delegate(&held));
    let code = alice.code_for(&agent, "read:a read:b");
    let user = alice.allow(&agent, "read:a read:b authz:read");
    alice.allow(&bot, "read:a read:b");
    let scopes = json!({ "scopes": ["delegate:on_behalf", "read:b", "authz:read"] });
    agent.admin("PUT", "/scopes").json(scopes).send().ok();
    assert_eq!(org.introspect(&agent, &user.access)["scope"], "read:b authz:read");
    let listed = org.get("/authz/permissions").bearer(&user.access).send().ok();
    assert!(!listed.to_string().contains("read:a") && listed.to_string().contains("read:b"), "{listed}");
    assert_eq!(agent.redeem(&code, &[]).ok()["scope"], "read:b");
    // It does not live on with another agent either.
    let asked = [("scope", "read:a")];
    bot.act_for(&user.access, &bot.token(), &asked).refused(400, "invalid_scope");
    assert_eq!(bot.act_for(&user.access, &bot.token(), &[]).ok()["scope"], "read:b");
}

fn w19_narrow_token_makes_itself_a_key_of_its_agent(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a", "read:b"]);
    let narrow = agent.token_for("read:a");
    let body = json!({
        "name": agent.name, "client_id": agent.client_id, "jwks_uri": "https://attacker.test/jwks.json",
    });
    org.post("/agents/register").bearer(&narrow).json(body).send().refused(403, "forbidden");
    assert!(agent.admin("GET", "").send().ok()["data"]["jwksUri"].is_null());
}

fn w20_client_with_scopes_of_people_sees_everybodys_tokens(server: &Server) {
    let org = server.acme();
    let (id, secret) =
        (server.variable("LUMOAUTH_APP_CLIENT_ID"), server.variable("LUMOAUTH_APP_CLIENT_SECRET"));
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    assert!(agent.sees_alive(&token));
    let fields = [("token", token.as_str()), ("client_id", id), ("client_secret", secret)];
    assert_eq!(org.post("/oauth/introspect").form(&fields).send().ok(), json!({ "active": false }));
}

fn w21_wildcard_of_a_person_reaches_who_they_are(server: &Server) {
    let org = server.acme();
    let (alice, app) = (org.person(), org.app(json!({ "allowedScopes": ["*"] })));
    let code = alice.code_of(&asking(&app.client_id, "* openid"));
    let user = text(&app.redeem(&code, &[]).ok()["access_token"]).to_owned();
    let proof = [("client_id", app.client_id.as_str()), ("client_secret", app.secret.as_str())];
    let narrow = |scope| org.exchange(&user, ACCESS_TOKEN, &[&proof[..], &[("scope", scope)]].concat());
    narrow("email").refused(400, "invalid_scope");
    narrow("openid profile").refused(400, "invalid_scope");
    assert_eq!(narrow("openid read:a").ok()["scope"], "openid read:a");
    // Nor does it for an agent that an administrator answers for.
    let agent = org.delegate(&["*"]);
    agent.admin("PATCH", "").json(json!({ "delegationPolicy": { "consent": "implicit" } })).send().ok();
    agent.act_for(&user, &agent.token(), &[("scope", "email")]).refused(400, "invalid_scope");
    let chain = agent.act_for(&user, &agent.token(), &[("scope", "*")]).ok();
    let chain = text(&chain["access_token"]);
    agent.exchange(chain, &[("scope", "openid email")]).refused(400, "invalid_scope");
    assert!(agent.userinfo(chain).ok().get("email").is_none());
}
