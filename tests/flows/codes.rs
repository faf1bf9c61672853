//! `authorization_code` at the token endpoint (contract 2.1.2) and the tokens of people (contract 3.2).

use lumoauth_tests::{
    Agent, CALLBACK, Jwks, Person, Server, Token, asking, int, on_each_backend, strings, text, told,
};
use serde_json::{Value, json};

on_each_backend!(
    answer_has_exactly_its_members,
    token_of_a_person_has_its_claims,
    agent_needs_no_verifier,
    confidential_application_needs_no_verifier,
    public_application_needs_a_challenge_and_a_verifier,
    code_is_required_and_must_be_known,
    client_must_authenticate,
    failed_attempts_leave_the_code_as_it_is,
    redirect_uri_may_be_left_out_of_both_requests_only,
    application_without_the_grant_is_refused,
    body_may_be_json_and_the_header_basic,
    code_dies_with_the_consent,
    code_dies_with_the_agents_suspension,
    capability_lost_in_between_is_not_in_the_token,
    userinfo_is_by_scope,
    token_of_a_person_is_seen_by_its_client_only,
    code_and_its_tokens_are_not_in_the_log,
);

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn members(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn answer_has_exactly_its_members(server: &Server) {
    let (alice, agent) = both(server);
    let answer = agent.redeem(&alice.code_for(&agent, "openid read:a"), &[]);
    let body = answer.ok();
    assert_eq!(
        members(&body),
        ["access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type"]
    );
    assert_eq!((&body["token_type"], int(&body["expires_in"])), (&json!("Bearer"), 3600));
    let refresh = text(&body["refresh_token"]);
    assert!(refresh.starts_with("rt_") && refresh.len() >= 46, "{refresh}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    let code = alice.code_of(&asking(&agent.client_id, "read:a"));
    let plain = agent.redeem(&code, &[]).ok();
    assert_eq!(members(&plain), ["access_token", "expires_in", "scope", "token_type"]);
}

fn token_of_a_person_has_its_claims(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let user = alice.allow(&agent, "read:a openid");
    let claims = Jwks::fetch(&org).verify(&user.access, &org.issuer(), &agent.client_id);
    assert_eq!(Token::parse(&user.access).header["typ"], "at+jwt");
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(alice.id), &json!(agent.client_id)));
    assert_eq!((&claims["organization"], &claims["tenant"]), (&json!("acme-corp"), &json!("acme-corp")));
    assert_eq!(int(&claims["exp"]) - int(&claims["iat"]), 3600);
    assert_eq!(strings(&claims["amr"]), ["pwd"]);
    assert!(int(&claims["auth_time"]) <= int(&claims["iat"]));
    let mut scope: Vec<_> = text(&claims["scope"]).split(' ').collect();
    scope.sort_unstable();
    assert_eq!(scope, ["openid", "read:a"]);
    // Nobody acts yet, and it is no agent's.
    assert!(claims.get("act").is_none() && claims.get("agent_id").is_none(), "{claims}");
    assert!(!claims.to_string().contains(&alice.email), "{claims}");
}

fn agent_needs_no_verifier(server: &Server) {
    let (alice, agent) = both(server);
    agent.redeem(&alice.code_for(&agent, "read:a"), &[]).ok();
}

fn confidential_application_needs_no_verifier(server: &Server) {
    let org = server.acme();
    let (alice, app) = (org.person(), org.app(json!({ "allowedScopes": ["read:a"] })));
    let code = alice.code_of(&asking(&app.client_id, "read:a"));
    assert_eq!(app.redeem(&code, &[]).ok()["scope"], "read:a");
    // Once it sent a challenge, it needs the verifier.
    let mut fields = asking(&app.client_id, "read:a");
    fields.extend([("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]);
    let code = alice.code_of(&fields);
    app.redeem(&code, &[]).refused(400, "invalid_grant");
    app.redeem(&code, &[("code_verifier", VERIFIER)]).ok();
}

fn public_application_needs_a_challenge_and_a_verifier(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let app = org.app(json!({ "isConfidential": false, "allowedScopes": ["read:a"] }));
    assert!(app.secret.is_empty());
    let mut fields = asking(&app.client_id, "read:a");
    assert_eq!(told(&alice.authorize(&fields))["error"], "invalid_request");
    fields.extend([("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]);
    let code = alice.code_of(&fields);
    app.redeem(&code, &[]).refused(400, "invalid_grant");
    app.redeem(&code, &[("code_verifier", &VERIFIER.replace('d', "e"))]).refused(400, "invalid_grant");
    let with_secret = [("code_verifier", VERIFIER), ("client_secret", "anything")];
    app.redeem(&code, &with_secret).refused(401, "invalid_client");
    let body = app.redeem(&code, &[("code_verifier", VERIFIER)]).ok();
    assert_eq!(Token::parse(text(&body["access_token"])).claims["client_id"], app.client_id.as_str());
}

fn code_is_required_and_must_be_known(server: &Server) {
    let agent = server.acme().delegate(&["read:a"]);
    agent.as_client(&[("grant_type", "authorization_code")]).refused(400, "invalid_request");
    agent.redeem("", &[]).refused(400, "invalid_request");
    for code in ["ac_unknown", "x", "rt_x", "\u{0}", &"ac_x".repeat(1000)] {
        agent.redeem(code, &[]).refused(400, "invalid_grant");
    }
}

fn client_must_authenticate(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let form = |more: &[(&str, &str)]| {
        let mut fields =
            vec![("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", CALLBACK)];
        fields.extend_from_slice(more);
        agent.org.post("/oauth/token").form(&fields).send()
    };
    form(&[]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id)]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id), ("client_secret", "wrong")]).refused(401, "invalid_client");
    form(&[("client_id", "cli_unknown"), ("client_secret", &agent.secret)]).refused(401, "invalid_client");
    form(&[("client_id", &agent.client_id), ("client_secret", &agent.secret)]).ok();
}

fn failed_attempts_leave_the_code_as_it_is(server: &Server) {
    let (alice, agent) = both(server);
    let mut fields = asking(&agent.client_id, "read:a");
    fields.extend([("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]);
    let code = alice.code_of(&fields);
    agent.redeem(&code, &[("code_verifier", CHALLENGE)]).refused(400, "invalid_grant");
    agent.redeem(&code, &[("code_verifier", "short")]).refused(400, "invalid_grant");
    agent
        .redeem(&code, &[("code_verifier", VERIFIER), ("resource", "https://x.test/")])
        .refused(400, "invalid_target");
    agent.redeem(&code, &[("code_verifier", VERIFIER)]).ok();
}

fn redirect_uri_may_be_left_out_of_both_requests_only(server: &Server) {
    let (alice, agent) = both(server);
    let without = [("response_type", "code"), ("client_id", agent.client_id.as_str()), ("scope", "read:a")];
    let bare = |code: &str| agent.as_client(&[("grant_type", "authorization_code"), ("code", code)]);
    bare(&alice.code_of(&without)).ok();
    // Named later, it must be where the answer went.
    agent.redeem(&alice.code_of(&without), &[]).ok();
    let named = alice.code_of(&asking(&agent.client_id, "read:a"));
    bare(&named).refused(400, "invalid_grant");
    // Of several addresses one must be named.
    let several = json!({
        "capabilities": ["read:a"], "redirectUris": [CALLBACK, "https://agent.example.test/other"],
    });
    let several = agent.org.create_agent(several);
    let fields = [("response_type", "code"), ("client_id", several.client_id.as_str()), ("scope", "read:a")];
    assert_eq!(alice.authorize(&fields).status, 400);
}

fn application_without_the_grant_is_refused(server: &Server) {
    let org = server.acme();
    let app = org.app(json!({ "grantTypes": ["client_credentials"] }));
    app.redeem("ac_x", &[]).refused(400, "unauthorized_client");
}

fn body_may_be_json_and_the_header_basic(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let body = json!({
        "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
        "client_id": agent.client_id, "client_secret": agent.secret,
    });
    agent.org.post("/oauth/token").json(body).send().ok();
    let code = alice.code_for(&agent, "read:a");
    let form = [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", CALLBACK)];
    let token = agent.org.post("/oauth/token").basic(&agent.client_id, &agent.secret);
    token.form(&form).send().ok();
}

fn code_dies_with_the_consent(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let path = format!("/users/{}/consents/{}", alice.id, agent.client_id);
    agent.org.admin("DELETE", &path).send().ok();
    agent.redeem(&code, &[]).refused(400, "invalid_grant");
    // Said again, the old one stays dead.
    let code_anew = alice.code_for(&agent, "read:a");
    agent.redeem(&code, &[]).refused(400, "invalid_grant");
    agent.redeem(&code_anew, &[]).ok();
}

fn code_dies_with_the_agents_suspension(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    agent.admin("POST", "/deactivate").send().ok();
    agent.redeem(&code, &[]).refused(401, "invalid_client");
    agent.admin("POST", "/activate").send().ok();
    agent.redeem(&code, &[]).refused(400, "invalid_grant");
}

fn capability_lost_in_between_is_not_in_the_token(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a read:b");
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a", "delegate:on_behalf"] })).send().ok();
    let body = agent.redeem(&code, &[]).ok();
    let token = text(&body["access_token"]);
    assert_eq!(agent.org.introspect(&agent, token)["scope"], "read:a");
    assert_eq!(agent.act_for(token, &agent.token(), &[]).ok()["scope"], "read:a");
    // A resource server that reads the token offline must not see it either.
    assert_eq!(body["scope"], "read:a");
    assert_eq!(Token::parse(token).claims["scope"], "read:a");
}

fn userinfo_is_by_scope(server: &Server) {
    let org = server.acme();
    let alice = org.person_with(json!({ "name": "Alice Ng" }));
    let agent = org.delegate(&["read:a"]);
    let info = |scope: &str| agent.userinfo(&alice.allow(&agent, scope).access);
    let refused = info("read:a").refused(403, "forbidden");
    assert_eq!(refused["details"]["required_scopes"], json!(["openid"]), "{refused}");
    assert_eq!(refused["details"]["granted_scopes"], json!(["read:a"]), "{refused}");
    info("profile email").refused(403, "forbidden");
    let plain = info("openid").ok();
    assert_eq!((&plain["sub"], &plain["tenant"]), (&json!(alice.id), &json!("acme-corp")));
    assert!(plain.get("name").is_none() && plain.get("email").is_none(), "{plain}");
    let profile = info("openid profile").ok();
    assert_eq!(profile["name"], "Alice Ng");
    assert!(profile["updated_at"].is_i64() && profile.get("email").is_none(), "{profile}");
    let all = info("openid profile email").ok();
    assert_eq!((&all["email"], &all["email_verified"]), (&json!(alice.email), &json!(false)));
    let token = alice.allow(&agent, "openid").access;
    assert_eq!(org.post("/oauth/userinfo").bearer(&token).send().ok(), agent.userinfo(&token).ok());
}

fn token_of_a_person_is_seen_by_its_client_only(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let other = org.agent(&["read:a"]);
    let user = alice.allow(&agent, "read:a openid");
    let seen = org.introspect(&agent, &user.access);
    assert_eq!((&seen["sub"], &seen["username"]), (&json!(alice.id), &json!(alice.email)));
    assert_eq!((&seen["client_id"], &seen["token_type"]), (&json!(agent.client_id), &json!("Bearer")));
    assert!(seen["exp"].is_i64() && seen.get("act").is_none(), "{seen}");
    assert_eq!(org.introspect(&other, &user.access), json!({ "active": false }));
    let stranger = server.globex().agent(&[]);
    assert_eq!(stranger.org.introspect(&stranger, &user.access), json!({ "active": false }));
}

fn code_and_its_tokens_are_not_in_the_log(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    let code = alice.code_for(&agent, "read:a openid");
    let body = agent.redeem(&code, &[]).ok();
    let mut rows = org.audit(&format!("actor={}", agent.agent_id));
    rows.extend(org.audit(&format!("targetId={}", alice.id)));
    assert!(rows.iter().any(|row| row["authMethod"] == "authorization_code"), "{rows:?}");
    let whole: String = rows
        .iter()
        .map(|row| org.admin("GET", &format!("/audit-logs/{}", row["id"])).send().ok().to_string())
        .collect();
    for secret in [&code, text(&body["access_token"]), text(&body["refresh_token"]), text(&body["id_token"])]
    {
        assert!(!whole.contains(secret), "{whole}");
    }
}
