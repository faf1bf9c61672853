//! B: to trick the person, or their browser.

use lumoauth_tests::{Agent, CALLBACK, Person, Response, Server, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    b01_redirect_to_anywhere_else,
    b02_error_is_never_sent_to_an_unregistered_address,
    b03_unknown_client_is_sent_nowhere,
    b04_answer_names_its_issuer,
    b05_challenge_of_another_persons_session,
    b06_challenge_without_its_csrf_token,
    b07_cross_site_answer,
    b08_pages_cannot_be_framed_and_run_nothing,
    b09_names_cannot_deceive_the_reader,
    b10_plain_and_missing_verifiers,
    b11_more_than_was_asked_cannot_be_approved,
    b12_prompt_none_never_asks_and_never_grants,
    b13_consent_to_one_scope_is_none_to_the_next,
    b14_parameter_twice,
    b15_sign_in_resumes_only_here,
    b16_sign_in_by_another_site,
    b17_sign_in_says_nothing_about_accounts,
    b19_loopback_may_vary_in_its_port_only,
    b20_pushed_request_of_another_client,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

/// Where the answer sends the browser: the header, or the member of the JSON form.
fn sent_to(answer: &Response) -> String {
    match answer.header("location") {
        Some(location) => location.to_owned(),
        None if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) => {
            String::new()
        }
        None => answer.json()["redirect_to"].as_str().unwrap_or_default().to_owned(),
    }
}

fn request<'a>(agent: &'a Agent<'_>, uri: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", &agent.client_id),
        ("redirect_uri", uri),
        ("scope", "read:a"),
        ("state", "s"),
    ]
}

const NOT_REGISTERED: [&str; 12] = [
    "https://evil.test/",
    "https://agent.example.test/callback/",
    "https://agent.example.test/callback?x=1",
    "https://agent.example.test/callback#x",
    "https://agent.example.test/Callback",
    "https://agent.example.test:8443/callback",
    "https://agent.example.test.evil.test/callback",
    "https://agent.example.test@evil.test/callback",
    "https://agent.example.test/callback/../evil",
    "http://agent.example.test/callback",
    "javascript:alert(1)",
    "//agent.example.test/callback",
];

fn b01_redirect_to_anywhere_else(server: &Server) {
    let (alice, agent) = both(server);
    for uri in NOT_REGISTERED {
        let answer = alice.authorize(&request(&agent, uri));
        assert_eq!(answer.status, 400, "{uri}: {answer}");
        assert!(answer.header("location").is_none(), "{uri}");
        assert!(answer.json()["redirect_to"].is_null(), "{uri}: {answer}");
    }
    assert!(alice.authorize(&request(&agent, CALLBACK)).ok()["challenge_id"].is_string());
}

fn b02_error_is_never_sent_to_an_unregistered_address(server: &Server) {
    let (alice, agent) = both(server);
    let mut fields = request(&agent, "https://evil.test/");
    fields[0].1 = "token";
    let answer = alice.authorize(&fields);
    assert_eq!((answer.status, &*sent_to(&answer)), (400, ""), "{answer}");
    // To the registered one it is.
    fields[2].1 = CALLBACK;
    assert!(sent_to(&alice.authorize(&fields)).contains("error="));
}

fn b03_unknown_client_is_sent_nowhere(server: &Server) {
    let (alice, agent) = both(server);
    let mut fields = request(&agent, CALLBACK);
    let known = fields[1].1;
    fields[1].1 = "cli_unknown";
    let answer = alice.authorize(&fields);
    assert_eq!((answer.status, &*sent_to(&answer)), (400, ""), "{answer}");
    fields[1].1 = known;
    alice.authorize(&fields).ok();
}

fn b04_answer_names_its_issuer(server: &Server) {
    let (alice, agent) = both(server);
    let issuer = lumoauth_tests::percent_encode(&agent.org.issuer());
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    let yes = sent_to(&alice.decide(&challenge, "approve", &[]));
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    let no = sent_to(&alice.decide(&challenge, "deny", &[]));
    let never = sent_to(&alice.ask_for(&agent, "nothing:here", &[]));
    for url in [&yes, &no, &never] {
        assert!(url.starts_with(&format!("{CALLBACK}?")), "{url}");
        assert!(url.contains(&format!("iss={issuer}")) && url.contains("state=s"), "{url}");
    }
    assert!(yes.contains("code=") && no.contains("error=access_denied"), "{yes} {no}");
    assert!(never.contains("error=invalid_scope"), "{never}");
}

fn b05_challenge_of_another_persons_session(server: &Server) {
    let (alice, agent) = both(server);
    let mallory = agent.org.person();
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    mallory.decide(&challenge, "approve", &[]).refused(403, "forbidden");
    // Nor from another browser of the same person: it was not asked there.
    let mut elsewhere = alice.clone();
    elsewhere.cookie = String::new();
    elsewhere.decide(&challenge, "approve", &[]).refused(403, "forbidden");
    elsewhere.cookie = alice.sign_in();
    elsewhere.decide(&challenge, "approve", &[]).refused(403, "forbidden");
    alice.decide(&challenge, "approve", &[]).ok();
}

fn b06_challenge_without_its_csrf_token(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    let other = alice.ask_for(&agent, "read:a", &[]).ok();
    for token in ["", "x", text(&other["csrf_token"])] {
        let mut forged: Value = challenge.clone();
        forged["csrf_token"] = token.into();
        alice.decide(&forged, "approve", &[]).refused(403, "forbidden");
    }
    alice.decide(&challenge, "approve", &[]).ok();
}

fn b07_cross_site_answer(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    let fields = [
        ("challenge_id", text(&challenge["challenge_id"])),
        ("csrf_token", text(&challenge["csrf_token"])),
        ("decision", "approve"),
    ];
    let post = || agent.org.post("/oauth/authorize").header("Cookie", &alice.cookie).form(&fields);
    for other in [
        post().header("Origin", "https://evil.test"),
        post().header("Origin", "null").header("Sec-Fetch-Site", "cross-site"),
    ] {
        let answer = other.send();
        assert_eq!((answer.status, &*sent_to(&answer)), (403, ""), "{answer}");
    }
    let own = post().header("Origin", &server.url()).header("Sec-Fetch-Site", "same-origin").send();
    assert!(sent_to(&own).contains("code="), "{own}");
}

fn b08_pages_cannot_be_framed_and_run_nothing(server: &Server) {
    let (alice, agent) = both(server);
    let page = |fields: &[(&str, &str)], cookie: &str| {
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", lumoauth_tests::percent_encode(value));
        let query: Vec<_> = fields.iter().map(pair).collect();
        let asked = agent.org.get(&format!("/oauth/authorize?{}", query.join("&")));
        asked.header("Accept", "text/html").header("Cookie", cookie).send()
    };
    let good = request(&agent, CALLBACK);
    let script = "<script>alert(1)</script>";
    let address = format!("https://evil.test/{script}");
    let mut elsewhere = request(&agent, &address);
    elsewhere.push(("x", script));
    let mut nobody = request(&agent, CALLBACK);
    nobody[1].1 = script;
    for page in [
        page(&good, "").expect(200),
        page(&good, &alice.cookie).expect(200),
        page(&elsewhere, &alice.cookie).expect(400),
        page(&nobody, &alice.cookie).expect(400),
    ] {
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{page}");
        assert!(!policy.contains("unsafe-inline") && !policy.contains("script-src"), "{policy}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"), "{page}");
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"), "{page}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{page}");
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page}");
        assert!(!page.text().contains("<script"), "{page}");
    }
}

fn b09_names_cannot_deceive_the_reader(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let members =
        |name: &str| json!({ "name": name, "capabilities": ["read:a"], "redirectUris": [CALLBACK] });
    // What turns the text around, or hides in it, is no part of a name.
    for hidden in ['\u{202e}', '\u{2066}', '\0', '\n', '\u{7f}'] {
        let name = format!("{}{hidden}kcatta", lumoauth_tests::unique("A"));
        org.admin("POST", "/agents").json(members(&name)).send().refused(400, "validation_error");
    }
    let name = format!("{} <b>Bank\"'>&", lumoauth_tests::unique("A"));
    let made = org.admin("POST", "/agents").json(members(&name)).send().expect(201);
    let id = text(&made.json()["data"]["clientId"]).to_owned();
    let uri = lumoauth_tests::percent_encode(CALLBACK);
    let path = format!(
        "/oauth/authorize?response_type=code&client_id={id}&redirect_uri={uri}&scope=read%3Aa&state=s"
    );
    let page =
        org.get(&path).header("Accept", "text/html").header("Cookie", &alice.cookie).send().expect(200);
    assert!(!page.text().contains("<b>Bank") && page.text().contains("&lt;b&gt;Bank&quot;"), "{page}");
    assert!(page.text().contains(&id) && page.text().contains("agent.example.test"), "{page}");
}

fn b10_plain_and_missing_verifiers(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    for method in ["plain", "S512", ""] {
        let extra = [("code_challenge", challenge), ("code_challenge_method", method)];
        let answer = alice.ask_for(&agent, "read:a", &extra);
        assert!(sent_to(&answer).contains("error=invalid_request"), "{method}: {answer}");
    }
    let s256 = [("code_challenge", challenge), ("code_challenge_method", "S256")];
    let code = || {
        let asked = alice.ask_for(&agent, "read:a", &s256).ok();
        text(&alice.decide(&asked, "approve", &[]).ok()["code"]).to_owned()
    };
    let one = code();
    agent.redeem(&one, &[]).refused(400, "invalid_grant");
    for wrong in [challenge, "x", &verifier.to_lowercase(), &format!("{verifier}=")] {
        agent.redeem(&code(), &[("code_verifier", wrong)]).refused(400, "invalid_grant");
    }
    agent.redeem(&code(), &[("code_verifier", verifier)]).ok();
    // A verifier for a code that was asked for without a challenge: somebody else's request.
    let without = alice.code_for(&agent, "read:a");
    agent.redeem(&without, &[("code_verifier", verifier)]).refused(400, "invalid_grant");
}

fn b11_more_than_was_asked_cannot_be_approved(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    alice.decide(&challenge, "approve", &[("scopes", "read:a read:b")]).refused(400, "invalid_request");
    let challenge = alice.ask_for(&agent, "read:a read:b", &[]).ok();
    let code = alice.decide(&challenge, "approve", &[("scopes", "read:b")]).ok();
    assert_eq!(agent.redeem(text(&code["code"]), &[]).ok()["scope"], "read:b");
}

fn b12_prompt_none_never_asks_and_never_grants(server: &Server) {
    let (alice, agent) = both(server);
    let mut fields = request(&agent, CALLBACK);
    fields.push(("prompt", "none"));
    assert!(sent_to(&alice.authorize(&fields)).contains("error=consent_required"));
    let mut nobody = alice.clone();
    nobody.cookie = String::new();
    assert!(sent_to(&nobody.authorize(&fields)).contains("error=login_required"));
    alice.allow(&agent, "read:a");
    assert!(sent_to(&alice.authorize(&fields)).contains("code="));
}

fn b13_consent_to_one_scope_is_none_to_the_next(server: &Server) {
    let (alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    let mut fields = request(&agent, CALLBACK);
    assert!(sent_to(&alice.authorize(&fields)).contains("code="));
    fields[3].1 = "read:a read:b";
    let asked = alice.authorize(&fields).ok();
    assert!(asked["challenge_id"].is_string(), "{asked}");
}

fn b14_parameter_twice(server: &Server) {
    let (alice, agent) = both(server);
    for (name, value) in [
        ("client_id", agent.client_id.as_str()),
        ("redirect_uri", CALLBACK),
        ("scope", "read:b"),
        ("state", "t"),
    ] {
        let mut fields = request(&agent, CALLBACK);
        fields.push((name, value));
        let answer = alice.authorize(&fields);
        answer.refused(400, "invalid_request");
        assert_eq!(sent_to(&answer), "", "{name}");
    }
    assert!(alice.authorize(&request(&agent, CALLBACK)).ok()["challenge_id"].is_string());
}

fn b15_sign_in_resumes_only_here(server: &Server) {
    let org = server.acme();
    for target in [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "javascript:alert(1)",
        "/orgs/globex/api/v1/oauth/authorize",
    ] {
        let path = format!("/oauth/login?return_to={}", lumoauth_tests::percent_encode(target));
        let page = org.get(&path).header("Accept", "text/html").send();
        assert_eq!((page.status, page.header("location")), (400, None), "{target}: {page}");
        assert!(
            !page.text().contains("evil.test") && !page.text().contains("javascript:"),
            "{target}: {page}"
        );
    }
    let here = format!("/orgs/{}/api/v1/oauth/authorize?client_id=x", org.slug());
    let path = format!("/oauth/login?return_to={}", lumoauth_tests::percent_encode(&here));
    let page = org.get(&path).header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains(&format!("value=\"{here}\"")), "{page}");
}

fn b16_sign_in_by_another_site(server: &Server) {
    let alice = server.acme().person();
    let form = [("email", alice.email.as_str()), ("password", alice.password.as_str())];
    let answer =
        alice.org.post("/oauth/login/submit").header("Origin", "https://evil.test").form(&form).send();
    assert_eq!(answer.status, 403, "{answer}");
    assert!(!answer.to_string().contains("lumoauth_session="), "{answer}");
    let body = json!({ "email": alice.email, "password": alice.password });
    let answer = alice.org.post("/oauth/login/json").header("Origin", "https://evil.test").json(body).send();
    answer.refused(403, "forbidden");
    assert!(answer.header("set-cookie").is_none(), "{answer}");
    // A form of another site can send text that reads as JSON.
    let smuggled = alice
        .org
        .post("/oauth/login/json")
        .body("text/plain", format!("{{\"email\":\"{}\",\"password\":\"{}\"}}", alice.email, alice.password))
        .send();
    smuggled.refused(415, "invalid_request");
    assert!(smuggled.header("set-cookie").is_none(), "{smuggled}");
    assert_eq!(alice.try_sign_in(&alice.password).status, 200);
}

fn b17_sign_in_says_nothing_about_accounts(server: &Server) {
    let alice = server.acme().person();
    let known = alice.try_sign_in("wrong password");
    let body = json!({ "email": "nobody@people.test", "password": "wrong password" });
    let unknown = alice.org.post("/oauth/login/json").json(body).send();
    assert_eq!((known.status, known.text()), (unknown.status, unknown.text()));
    assert_eq!(known.status, 401);
}

fn b19_loopback_may_vary_in_its_port_only(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let agent = org.create_agent(json!({
        "capabilities": ["read:a"], "redirectUris": ["http://127.0.0.1/callback"],
    }));
    for good in ["http://127.0.0.1/callback", "http://127.0.0.1:49152/callback"] {
        assert!(alice.authorize(&request(&agent, good)).ok()["challenge_id"].is_string(), "{good}");
    }
    for bad in [
        "http://127.0.0.1:80/other",
        "http://localhost:49152/callback",
        "http://127.0.0.2/callback",
        "https://127.0.0.1/callback",
        "http://127.0.0.1:x/callback",
        "http://127.0.0.1.evil.test/callback",
    ] {
        assert_eq!(alice.authorize(&request(&agent, bad)).status, 400, "{bad}");
    }
}

fn b20_pushed_request_of_another_client(server: &Server) {
    let (alice, agent) = both(server);
    let thief = agent.org.delegate(&["read:a"]);
    let mut fields = request(&agent, CALLBACK);
    fields.push(("client_secret", &agent.secret));
    let pushed = agent.org.post("/oauth/par").form(&fields).send().expect(201).json();
    let uri = text(&pushed["request_uri"]);
    let with = |client: &str| alice.authorize(&[("client_id", client), ("request_uri", uri)]);
    assert_eq!(with(&thief.client_id).status, 400);
    assert!(with(&agent.client_id).ok()["challenge_id"].is_string());
    let unknown = alice.authorize(&[
        ("client_id", &agent.client_id),
        ("request_uri", "urn:ietf:params:oauth:request_uri:x"),
    ]);
    assert_eq!(unknown.status, 400);
}
