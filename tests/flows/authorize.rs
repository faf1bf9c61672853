//! The authorization endpoint (contract 2.12, OpenID Connect Core section 3.1.2).

use std::{thread, time::Duration};

use lumoauth_tests::{
    Agent, CALLBACK, Connection, Person, Request, Server, Token, asking, int, list, on_each_backend,
    percent_encode, text, told, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    challenge_has_exactly_its_members,
    challenge_of_an_application_says_so,
    programs_without_a_session_are_told_where_to_sign_in,
    approval_is_answered_as_json_or_as_a_redirect,
    denial_reaches_the_client,
    answer_may_be_json_and_name_scopes_in_a_list,
    malformed_answers_are_refused,
    what_was_agreed_is_answered_without_a_question,
    prompt_consent_always_asks,
    prompt_login_wants_a_new_sign_in,
    sign_in_may_be_too_old,
    request_by_post_equals_request_by_get,
    alias_prefix_serves_the_same,
    state_is_echoed_whatever_it_is,
    what_is_wrong_is_told_to_the_client,
    application_without_the_grant_is_told_so,
    suspended_agent_gets_a_page,
    requests_and_bodies_are_bounded,
    head_is_like_get_and_other_methods_are_refused,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn members(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    fields.extend_from_slice(more);
    fields
}

fn challenge_has_exactly_its_members(server: &Server) {
    let (alice, agent) = both(server);
    let asked = alice.authorize(&asking(&agent.client_id, "openid read:a")).ok();
    assert_eq!(
        members(&asked),
        [
            "challenge_id",
            "client",
            "csrf_token",
            "expires_in",
            "redirect_uri",
            "resource",
            "scopes",
            "submit_url",
            "user"
        ]
    );
    assert_eq!(asked["client"], json!({ "id": agent.client_id, "name": agent.name, "kind": "agent" }));
    assert_eq!(asked["user"], json!({ "id": alice.id, "email": alice.email }));
    assert_eq!((&asked["resource"], int(&asked["expires_in"])), (&Value::Null, 600));
    assert_eq!(asked["redirect_uri"], CALLBACK);
    assert_eq!(asked["submit_url"], "/orgs/acme-corp/api/v1/oauth/authorize");
    let scopes = list(&asked["scopes"]);
    let mut names: Vec<_> = scopes.iter().map(|scope| text(&scope["name"])).collect();
    names.sort_unstable();
    assert_eq!(names, ["openid", "read:a"]);
    for scope in scopes {
        assert_eq!(members(scope), ["description", "name"]);
        assert!(!text(&scope["description"]).is_empty());
    }
    // Each question has its own proof, and none of them is short.
    let other = alice.authorize(&asking(&agent.client_id, "openid read:a")).ok();
    for member in ["challenge_id", "csrf_token"] {
        assert!(asked[member] != other[member] && text(&asked[member]).len() >= 43, "{asked}");
    }
}

fn challenge_of_an_application_says_so(server: &Server) {
    let org = server.acme();
    let app = org.app(json!({ "name": "Ledger", "allowedScopes": ["read:a"] }));
    let asked = org.person().authorize(&asking(&app.client_id, "read:a")).ok();
    assert_eq!(asked["client"], json!({ "id": app.client_id, "name": "Ledger", "kind": "client" }));
}

fn programs_without_a_session_are_told_where_to_sign_in(server: &Server) {
    let (mut alice, agent) = both(server);
    let good = alice.cookie.clone();
    let flipped = if good.ends_with('A') { "B" } else { "A" };
    let tampered = format!("{}{flipped}", &good[..good.len() - 1]);
    for cookie in [String::new(), "session=x".to_owned(), tampered] {
        alice.cookie = cookie;
        let answer = alice.authorize(&asking(&agent.client_id, "read:a"));
        let body = answer.refused(401, "login_required");
        let page = server.request("GET", text(&body["login_url"])).send().expect(200);
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page}");
    }
    // Signed in, the same request is a question.
    alice.cookie = good;
    assert!(alice.authorize(&asking(&agent.client_id, "read:a")).ok()["challenge_id"].is_string());
}

fn approval_is_answered_as_json_or_as_a_redirect(server: &Server) {
    let (alice, agent) = both(server);
    let ask = || alice.authorize(&with(asking(&agent.client_id, "read:a"), &[("prompt", "consent")])).ok();
    let json = alice.decide(&ask(), "approve", &[]);
    let body = json.ok();
    assert_eq!(members(&body), ["code", "redirect_to"]);
    let told_by_json = told(&json);
    assert_eq!(told_by_json["code"], text(&body["code"]));
    assert_eq!((&*told_by_json["state"], &told_by_json["iss"]), ("s", &agent.org.issuer()));
    assert_eq!(told_by_json.len(), 3, "{told_by_json:?}");
    let asked = ask();
    let form = [
        ("challenge_id", text(&asked["challenge_id"])),
        ("csrf_token", text(&asked["csrf_token"])),
        ("decision", "approve"),
        ("anything", "else"),
    ];
    let redirect = agent.org.post("/oauth/authorize").header("Cookie", &alice.cookie).form(&form).send();
    let code = told(&redirect.clone().expect(303))["code"].clone();
    assert_eq!(redirect.header("cache-control"), Some("no-store"));
    for code in [text(&body["code"]), &code] {
        agent.redeem(code, &[]).ok();
    }
}

fn denial_reaches_the_client(server: &Server) {
    let (alice, agent) = both(server);
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    let answer = alice.decide(&asked, "deny", &[]);
    assert!(answer.ok()["code"].is_null(), "{answer}");
    let told = told(&answer);
    assert_eq!((&*told["error"], &*told["state"]), ("access_denied", "s"));
    assert!(!told.contains_key("code"));
    // No leaves nothing behind.
    assert!(alice.authorize(&asking(&agent.client_id, "read:a")).ok()["challenge_id"].is_string());
}

fn answer_may_be_json_and_name_scopes_in_a_list(server: &Server) {
    let (alice, agent) = both(server);
    for scopes in [json!(["read:b"]), json!("read:b")] {
        let fields = with(asking(&agent.client_id, "read:a read:b"), &[("prompt", "consent")]);
        let asked = alice.authorize(&fields).ok();
        let body = json!({
            "challenge_id": asked["challenge_id"], "csrf_token": asked["csrf_token"], "decision": "approve",
            "scopes": scopes, "unknown": { "x": 1 },
        });
        let answer = agent.org.post("/oauth/authorize").header("Accept", "application/json");
        let answer = answer.header("Cookie", &alice.cookie).json(body).send().ok();
        assert_eq!(agent.redeem(text(&answer["code"]), &[]).ok()["scope"], "read:b");
    }
    // Agreed to is what was chosen, and no more.
    let asked = alice.authorize(&asking(&agent.client_id, "read:a read:b")).ok();
    assert!(asked["challenge_id"].is_string(), "{asked}");
    assert!(told(&alice.authorize(&asking(&agent.client_id, "read:b"))).contains_key("code"));
}

fn malformed_answers_are_refused(server: &Server) {
    let (alice, agent) = both(server);
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    let post = |body: Value| {
        let request = agent.org.post("/oauth/authorize").header("Accept", "application/json");
        request.header("Cookie", &alice.cookie).json(body).send()
    };
    let (id, token) = (&asked["challenge_id"], &asked["csrf_token"]);
    let of = |id: &Value, decision: Value| json!({ "challenge_id": id, "csrf_token": token, "decision": decision });
    post(json!({})).refused(400, "invalid_request");
    post(json!({ "csrf_token": token, "decision": "approve" })).refused(400, "invalid_request");
    post(json!({ "challenge_id": id, "decision": "approve" })).refused(403, "forbidden");
    for decision in [json!("yes"), json!("APPROVE"), json!(""), Value::Null, json!(true)] {
        assert_eq!(post(of(id, decision.clone())).status, 400, "{decision}");
    }
    for unknown in ["ach_unknown", "", "x", &"ach_x".repeat(100)] {
        assert!(matches!(post(of(&json!(unknown), json!("approve"))).status, 400 | 404), "{unknown}");
    }
    for scopes in [json!([]), json!("read:b"), json!(["read:a", "read:b"]), json!(7), json!([7])] {
        let mut body = of(id, json!("approve"));
        body["scopes"] = scopes.clone();
        assert_eq!(post(body).status, 400, "{scopes}");
    }
    // None of that used it up.
    post(of(id, json!("approve"))).ok();
}

fn what_was_agreed_is_answered_without_a_question(server: &Server) {
    let (alice, agent) = both(server);
    alice.allow(&agent, "read:a read:b openid");
    for scope in ["read:a", "read:b openid", "openid read:a read:b"] {
        let answer = alice.authorize(&asking(&agent.client_id, scope)).expect(303);
        assert_eq!(members(&answer.json()), ["code", "redirect_to"]);
        assert_eq!(Some(text(&answer.json()["redirect_to"])), answer.header("location"));
        let body = agent.redeem(&told(&answer)["code"], &[]).ok();
        let mut items: Vec<_> = text(&body["scope"]).split(' ').collect();
        let mut wanted: Vec<_> = scope.split(' ').collect();
        items.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(items, wanted);
    }
    // What one person allowed is nothing to another one, and to another client.
    let (bob, other) = (agent.org.person(), agent.org.delegate(&["read:a"]));
    assert!(bob.authorize(&asking(&agent.client_id, "read:a")).ok()["challenge_id"].is_string());
    assert!(alice.authorize(&asking(&other.client_id, "read:a")).ok()["challenge_id"].is_string());
}

fn prompt_consent_always_asks(server: &Server) {
    let (alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    let fields = with(asking(&agent.client_id, "read:a"), &[("prompt", "consent")]);
    for _ in 0..2 {
        let asked = alice.authorize(&fields).ok();
        alice.decide(&asked, "approve", &[]).ok();
    }
}

fn prompt_login_wants_a_new_sign_in(server: &Server) {
    let (mut alice, agent) = both(server);
    let fields = with(asking(&agent.client_id, "read:a"), &[("prompt", "login")]);
    let body = alice.authorize(&fields).refused(401, "login_required");
    let resume = text(&body["resume"]).to_owned();
    let go_on = |cookie: &str| {
        let request = server.request("GET", &resume).header("Accept", "application/json");
        request.header("Cookie", cookie).send()
    };
    // The old session does not do, however often it comes.
    go_on(&alice.cookie).refused(401, "login_required");
    alice.cookie = alice.sign_in();
    let asked = go_on(&alice.cookie).ok();
    alice.decide(&asked, "approve", &[]).ok();
    // That sign-in was for that request: the next one wants another.
    alice.authorize(&fields).refused(401, "login_required");
}

fn sign_in_may_be_too_old(server: &Server) {
    let (mut alice, agent) = both(server);
    let at_most = |age| with(asking(&agent.client_id, "openid read:a"), &[("max_age", age)]);
    let before = unix_now();
    alice.cookie = alice.sign_in();
    let code = alice.code_of(&at_most("3600"));
    let id_token = Token::parse(text(&agent.redeem(&code, &[]).ok()["id_token"]));
    assert!((before..=unix_now()).contains(&int(&id_token.claims["auth_time"])), "{:?}", id_token.claims);
    alice.authorize(&at_most("0")).refused(401, "login_required");
    thread::sleep(Duration::from_millis(2100));
    alice.authorize(&at_most("1")).refused(401, "login_required");
    let silent = with(at_most("1"), &[("prompt", "none")]);
    assert_eq!(told(&alice.authorize(&silent))["error"], "login_required");
    alice.authorize(&at_most("3600")).expect(303);
    alice.cookie = alice.sign_in();
    alice.authorize(&at_most("60")).expect(303);
}

fn request_by_post_equals_request_by_get(server: &Server) {
    let (alice, agent) = both(server);
    let fields = asking(&agent.client_id, "read:a");
    let post = |request: Request| request.header("Cookie", &alice.cookie).form(&fields).send();
    let mut by_get = alice.authorize(&fields).ok();
    let mut by_post = post(agent.org.post("/oauth/authorize").header("Accept", "application/json")).ok();
    alice.decide(&by_post, "deny", &[]).ok();
    for own in ["challenge_id", "csrf_token"] {
        by_get[own] = Value::Null;
        by_post[own] = Value::Null;
    }
    assert_eq!(by_get, by_post);
    assert!(post(agent.org.post("/oauth/authorize")).expect(200).text().contains("<form"));
}

fn alias_prefix_serves_the_same(server: &Server) {
    let (alice, agent) = both(server);
    let query: Vec<_> = asking(&agent.client_id, "read:a openid")
        .into_iter()
        .map(|(name, value)| format!("{name}={}", percent_encode(value)))
        .collect();
    let path = format!("/t/acme-corp/api/v1/oauth/authorize?{}", query.join("&"));
    let send = |request: Request| {
        request.header("Accept", "application/json").header("Cookie", &alice.cookie).send()
    };
    let asked = send(server.request("GET", &path)).ok();
    assert_eq!(asked["submit_url"], "/t/acme-corp/api/v1/oauth/authorize");
    let form = [
        ("challenge_id", text(&asked["challenge_id"])),
        ("csrf_token", text(&asked["csrf_token"])),
        ("decision", "approve"),
    ];
    let answer = send(server.request("POST", text(&asked["submit_url"])).form(&form));
    answer.ok();
    let answer = told(&answer);
    assert_eq!(answer["iss"], agent.org.issuer());
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", &answer["code"]),
        ("redirect_uri", CALLBACK),
        ("client_id", &agent.client_id),
        ("client_secret", &agent.secret),
    ];
    let body = server.request("POST", "/t/acme-corp/api/v1/oauth/token").form(&redeem).send().ok();
    assert_eq!(Token::parse(text(&body["id_token"])).claims["iss"], agent.org.issuer());
    // A sign-in at one prefix is one at the other.
    let login = server.request("POST", "/t/acme-corp/api/v1/oauth/login/json");
    login.json(json!({ "email": alice.email, "password": alice.password })).send().ok();
}

fn state_is_echoed_whatever_it_is(server: &Server) {
    let (alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    let longest = "s".repeat(2048);
    for state in [
        "a b+c%20d",
        "x&code=evil&iss=evil",
        "?#/=;:@\\\"'<>",
        "zoë 東京 \u{1f600}\u{202e}",
        "line\r\nSet-Cookie: x=y",
        "{\"csrf\":\"1\",\"next\":\"/a?b=c\"}",
        &longest,
    ] {
        let mut fields = asking(&agent.client_id, "read:a");
        fields[4].1 = state;
        let answer = alice.authorize(&fields).expect(303);
        assert_eq!(told(&answer)["state"], state);
        assert_eq!(told(&answer)["iss"], agent.org.issuer());
        assert!(answer.header("set-cookie").is_none());
        fields[3].1 = "nothing:here";
        assert_eq!(told(&alice.authorize(&fields))["state"], state);
    }
    let mut without = asking(&agent.client_id, "read:a");
    without.pop();
    assert!(!told(&alice.authorize(&without)).contains_key("state"));
    let too_long = format!("{longest}s");
    let fields = with(without, &[("state", &too_long)]);
    assert_eq!(alice.authorize(&fields).status, 400);
}

fn what_is_wrong_is_told_to_the_client(server: &Server) {
    let (alice, agent) = both(server);
    let long = "n".repeat(513);
    let change = |index: usize, value: &'static str| {
        let mut fields = asking(&agent.client_id, "read:a");
        fields[index].1 = value;
        fields
    };
    let add = |name, value| with(asking(&agent.client_id, "read:a"), &[(name, value)]);
    for (fields, error) in [
        (asking(&agent.client_id, "read:a")[1..].to_vec(), "invalid_request"),
        (change(0, "token"), "unsupported_response_type"),
        (change(0, "code id_token"), "unsupported_response_type"),
        (change(3, "read:c"), "invalid_scope"),
        (change(3, "read:a read:c"), "invalid_scope"),
        (change(3, "read:\"a"), "invalid_scope"),
        (add("request", "e30.e30."), "request_not_supported"),
        (add("response_mode", "fragment"), "invalid_request"),
        (add("prompt", "none login"), "invalid_request"),
        (add("prompt", "select_account"), "invalid_request"),
        (add("max_age", "-1"), "invalid_request"),
        (add("access_type", "forever"), "invalid_request"),
        (add("nonce", &long), "invalid_request"),
        (add("resource", "https://nobody.test/mcp"), "invalid_target"),
    ] {
        for cookie in [alice.cookie.as_str(), ""] {
            let mut somebody = alice.clone();
            cookie.clone_into(&mut somebody.cookie);
            let answer = somebody.authorize(&fields).expect(303);
            let told = told(&answer);
            assert_eq!(told["error"], error, "{fields:?}");
            assert!(!told["error_description"].is_empty() && !told.contains_key("code"));
            assert_eq!((&*told["state"], &told["iss"]), ("s", &agent.org.issuer()), "{fields:?}");
        }
    }
}

fn application_without_the_grant_is_told_so(server: &Server) {
    let org = server.acme();
    let app = org.app(json!({ "grantTypes": ["client_credentials"], "allowedScopes": ["read:a"] }));
    let answer = org.person().authorize(&asking(&app.client_id, "read:a"));
    assert_eq!(told(&answer)["error"], "unauthorized_client");
}

fn suspended_agent_gets_a_page(server: &Server) {
    let (alice, agent) = both(server);
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    agent.admin("POST", "/deactivate").send().ok();
    let answer = alice.authorize(&asking(&agent.client_id, "read:a"));
    assert!(answer.header("location").is_none(), "{answer}");
    answer.refused(400, "invalid_client");
    assert_ne!(alice.decide(&asked, "approve", &[]).status, 200);
    agent.admin("POST", "/activate").send().ok();
    assert!(alice.authorize(&asking(&agent.client_id, "read:a")).ok()["challenge_id"].is_string());
}

fn requests_and_bodies_are_bounded(server: &Server) {
    const KIB: usize = 1024;
    let (alice, agent) = both(server);
    let form = |size: usize| {
        let mut body = format!(
            "response_type=code&client_id={}&redirect_uri={}&scope=read%3Aa&x=",
            agent.client_id,
            percent_encode(CALLBACK)
        );
        body.push_str(&"x".repeat(size - body.len()));
        body
    };
    let send = |request: Request| {
        request.header("Accept", "application/json").header("Cookie", &alice.cookie).send()
    };
    let kind = "application/x-www-form-urlencoded";
    let post = |size: usize| send(agent.org.post("/oauth/authorize").body(kind, form(size)));
    assert!(post(16 * KIB).ok()["challenge_id"].is_string());
    post(16 * KIB + 1).refused(400, "invalid_request");
    post(64 * KIB).refused(400, "invalid_request");
    for path in ["/oauth/authorize", "/oauth/par", "/oauth/login/json", "/oauth/login/submit"] {
        let answer = send(agent.org.post(path).body(kind, "x".repeat(64 * KIB + 1)));
        assert!(matches!(answer.status, 400 | 413), "{path}: {answer}");
    }
    assert_eq!(send(agent.org.post("/oauth/authorize").body(kind, form(64 * KIB + 1))).status, 413);
    let get = send(agent.org.get(&format!("/oauth/authorize?{}", form(20 * KIB))));
    assert!(matches!(get.status, 400 | 414 | 431), "{get}");
    let many: Vec<_> = (0..65).map(|n| format!("p{n}=x")).collect();
    let get = send(agent.org.get(&format!("/oauth/authorize?{}", many.join("&"))));
    get.refused(400, "invalid_request");
    // Bytes that are no text.
    send(agent.org.get("/oauth/authorize?client_id=%ff&response_type=code")).refused_somehow();
}

fn head_is_like_get_and_other_methods_are_refused(server: &Server) {
    let (alice, agent) = both(server);
    let path = format!(
        "/oauth/authorize?response_type=code&client_id={}&redirect_uri={}&scope=read%3Aa",
        agent.client_id,
        percent_encode(CALLBACK)
    );
    let mut connection = Connection::open(server.authority()).expect("the server listens");
    for accept in ["application/json", "text/html"] {
        let request = |method| {
            agent.org.request(method, &path).header("Accept", accept).header("Cookie", &alice.cookie)
        };
        let (head, get) = (connection.send(&request("HEAD")), connection.send(&request("GET")));
        let (head, get) = (head.expect("an answer"), get.expect("an answer"));
        assert_eq!((head.status, get.status), (200, 200));
        assert!(head.body.is_empty() && !get.body.is_empty());
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = agent.org.request(method, &path).header("Cookie", &alice.cookie).send().expect(405);
        let allowed = answer.header("allow").unwrap_or_default().to_owned();
        assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    }
    assert_eq!(agent.org.get("/oauth/par").send().status, 405);
}
