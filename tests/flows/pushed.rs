//! Pushed authorization requests (RFC 9126).

use lumoauth_tests::{
    Agent, CALLBACK, Person, Response, Server, asking, int, on_each_backend, percent_encode, text, told,
};
use serde_json::json;

on_each_backend!(
    pushed_request_stands_for_all_parameters,
    discovery_names_the_endpoint,
    client_authenticates_as_at_the_token_endpoint,
    public_application_names_itself,
    refused_request_is_refused_when_it_is_pushed,
    request_uri_cannot_be_pushed,
    unknown_request_uris_get_a_page,
    pushed_request_is_of_its_organization,
    pushed_request_of_a_suspended_agent_is_dead,
    address_that_was_taken_away_meanwhile_gets_no_answer,
    new_sign_in_is_one_for_this_request,
    sign_in_page_leads_on_to_a_native_app,
    nobody_signed_in_comes_back_to_it,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a", "read:b"]))
}

fn push(agent: &Agent<'_>, fields: &[(&str, &str)]) -> Response {
    agent.org.post("/oauth/par").basic(&agent.client_id, &agent.secret).form(fields).send()
}

fn uri_of(pushed: Response) -> String {
    text(&pushed.expect(201).json()["request_uri"]).to_owned()
}

fn pushed_request_stands_for_all_parameters(server: &Server) {
    let (alice, agent) = both(server);
    let answer = push(&agent, &asking(&agent.client_id, "read:a")).expect(201);
    let body = answer.json();
    let mut names: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["expires_in", "request_uri"]);
    assert!((5..=600).contains(&int(&body["expires_in"])), "{body}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let uri = text(&body["request_uri"]);
    assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:") && uri.len() >= 34 + 43, "{uri}");
    // What else comes with the browser is not looked at (section 4).
    let fields = [
        ("client_id", agent.client_id.as_str()),
        ("request_uri", uri),
        ("scope", "read:b"),
        ("redirect_uri", "https://evil.test/"),
        ("state", "other"),
        ("prompt", "none"),
    ];
    let asked = alice.authorize(&fields).ok();
    assert_eq!((&asked["scopes"][0]["name"], &asked["redirect_uri"]), (&json!("read:a"), &json!(CALLBACK)));
    let yes = alice.decide(&asked, "approve", &[]);
    assert_eq!(told(&yes)["state"], "s");
    assert_eq!(agent.redeem(&told(&yes)["code"], &[]).ok()["scope"], "read:a");
    // Without the client, nobody knows whose it is.
    assert_eq!(alice.authorize(&[("request_uri", uri)]).status, 400);
}

fn discovery_names_the_endpoint(server: &Server) {
    let org = server.acme();
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let body = org.get(path).send().ok();
        assert_eq!(body["pushed_authorization_request_endpoint"], format!("{}/oauth/par", org.issuer()));
        assert_ne!(body["require_pushed_authorization_requests"], true);
    }
}

fn client_authenticates_as_at_the_token_endpoint(server: &Server) {
    let (_, agent) = both(server);
    let fields = asking(&agent.client_id, "read:a");
    let send = |more: &[(&str, &str)]| {
        let mut all = fields.clone();
        all.extend_from_slice(more);
        agent.org.post("/oauth/par").form(&all).send()
    };
    send(&[]).refused(401, "invalid_client");
    send(&[("client_secret", "wrong")]).refused(401, "invalid_client");
    send(&[("client_secret", &agent.secret)]).expect(201);
    agent.org.post("/oauth/par").form(&fields[..1]).send().refused(401, "invalid_client");
    let basic =
        |secret: &str| agent.org.post("/oauth/par").basic(&agent.client_id, secret).form(&fields).send();
    let wrong = basic("wrong");
    wrong.refused(401, "invalid_client");
    assert!(wrong.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")), "{wrong}");
    basic(&agent.secret).expect(201);
    let other = agent.org.delegate(&["read:a"]);
    let request = agent.org.post("/oauth/par").basic(&other.client_id, &other.secret);
    request.form(&fields).send().refused(400, "invalid_request");
    // JSON is read as it is at the token endpoint.
    let body = json!({
        "response_type": "code", "client_id": agent.client_id, "client_secret": agent.secret, "scope": "read:a",
        "redirect_uri": CALLBACK,
    });
    agent.org.post("/oauth/par").json(body).send().expect(201);
}

fn public_application_names_itself(server: &Server) {
    let org = server.acme();
    let app = org.app(json!({ "isConfidential": false, "allowedScopes": ["read:a"] }));
    let mut fields = asking(&app.client_id, "read:a");
    org.post("/oauth/par").form(&fields).send().refused(400, "invalid_request");
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    fields.extend([("code_challenge", challenge), ("code_challenge_method", "S256")]);
    let uri = uri_of(org.post("/oauth/par").form(&fields).send());
    let asked = org.person().authorize(&[("client_id", &app.client_id), ("request_uri", &uri)]).ok();
    assert_eq!(asked["client"]["id"], app.client_id.as_str());
}

fn refused_request_is_refused_when_it_is_pushed(server: &Server) {
    let (_, agent) = both(server);
    let change = |index: usize, value: &'static str| {
        let mut fields = asking(&agent.client_id, "read:a");
        fields[index].1 = value;
        fields
    };
    let add = |name, value| {
        let mut fields = asking(&agent.client_id, "read:a");
        fields.push((name, value));
        fields
    };
    for (fields, error) in [
        (change(0, "token"), "unsupported_response_type"),
        (change(2, "https://evil.test/"), "invalid_request"),
        (change(3, "read:c"), "invalid_scope"),
        (change(3, "admin"), "invalid_scope"),
        (add("request", "e30.e30."), "request_not_supported"),
        (add("resource", "https://nobody.test/mcp"), "invalid_target"),
        (add("prompt", "none login"), "invalid_request"),
        (add("code_challenge", "abc"), "invalid_request"),
        (add("scope", "read:b"), "invalid_request"),
    ] {
        push(&agent, &fields).refused(400, error);
    }
    let app = agent.org.app(json!({ "grantTypes": ["client_credentials"] }));
    let mut fields = asking(&app.client_id, "");
    fields.push(("client_secret", &app.secret));
    agent.org.post("/oauth/par").form(&fields).send().refused(400, "unauthorized_client");
}

fn request_uri_cannot_be_pushed(server: &Server) {
    let (_, agent) = both(server);
    let uri = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    push(&agent, &[("client_id", &agent.client_id), ("request_uri", &uri)]).refused(400, "invalid_request");
    let mut both = asking(&agent.client_id, "read:a");
    both.push(("request_uri", &uri));
    push(&agent, &both).refused(400, "invalid_request");
}

fn unknown_request_uris_get_a_page(server: &Server) {
    let (alice, agent) = both(server);
    let good = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    let (prefix, handle) = good.rsplit_once(':').expect("a handle");
    for uri in [
        "https://agent.example.test/request.jwt",
        "urn:ietf:params:oauth:request_uri:",
        &format!("{prefix}:{}", handle.to_lowercase()),
        &format!("{good}x"),
        &format!("{prefix}:{}", "x".repeat(5000)),
        handle,
    ] {
        let answer = alice.authorize(&[("client_id", &agent.client_id), ("request_uri", uri)]);
        assert_eq!((answer.status, answer.header("location")), (400, None), "{uri}: {answer}");
    }
    alice.authorize(&[("client_id", &agent.client_id), ("request_uri", &good)]).ok();
}

fn pushed_request_is_of_its_organization(server: &Server) {
    let (_, agent) = both(server);
    let globex = server.globex();
    let uri = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    let stranger = globex.delegate(&["read:a"]);
    for client in [&agent.client_id, &stranger.client_id] {
        let answer = globex.person().authorize(&[("client_id", client), ("request_uri", &uri)]);
        assert_eq!(answer.status, 400, "{answer}");
    }
}

fn pushed_request_of_a_suspended_agent_is_dead(server: &Server) {
    let (alice, agent) = both(server);
    let uri = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    agent.admin("POST", "/deactivate").send().ok();
    push(&agent, &asking(&agent.client_id, "read:a")).refused(401, "invalid_client");
    let answer = alice.authorize(&[("client_id", &agent.client_id), ("request_uri", &uri)]);
    answer.refused(400, "invalid_client");
}

fn address_that_was_taken_away_meanwhile_gets_no_answer(server: &Server) {
    let (alice, agent) = both(server);
    let uri = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    let elsewhere = json!({ "redirectUris": ["https://agent.example.test/new"] });
    agent.admin("PATCH", "").json(elsewhere).send().ok();
    let answer = alice.authorize(&[("client_id", &agent.client_id), ("request_uri", &uri)]);
    assert_eq!((answer.status, answer.header("location")), (400, None), "{answer}");
}

fn new_sign_in_is_one_for_this_request(server: &Server) {
    let (mut alice, agent) = both(server);
    let mut fields = asking(&agent.client_id, "read:a");
    fields.push(("prompt", "login"));
    let uri = uri_of(push(&agent, &fields));
    let request = [("client_id", agent.client_id.as_str()), ("request_uri", &uri)];
    // One that came after the push and before the browser was for something else.
    alice.cookie = alice.sign_in();
    for _ in 0..2 {
        alice.authorize(&request).refused(401, "login_required");
    }
    alice.cookie = alice.sign_in();
    let asked = alice.authorize(&request).ok();
    // Nobody is sent to sign in for it again.
    assert!(alice.authorize(&request).ok()["challenge_id"].is_string());
    alice.decide(&asked, "approve", &[]).ok();
}

fn sign_in_page_leads_on_to_a_native_app(server: &Server) {
    let org = server.acme();
    for (uri, target) in [
        ("com.example.app:/cb", "com.example.app:"),
        ("https://app.example.test/cb", "https://app.example.test"),
        ("http://127.0.0.1/cb", "http://127.0.0.1"),
    ] {
        let app = org.app(json!({ "redirectUris": [uri], "allowedScopes": ["read:a"] }));
        let fields = [
            ("response_type", "code"),
            ("client_id", &*app.client_id),
            ("client_secret", &app.secret),
            ("redirect_uri", uri),
            ("scope", "read:a"),
        ];
        let pushed = uri_of(org.post("/oauth/par").form(&fields).send());
        let query = format!("client_id={}&request_uri={}", app.client_id, percent_encode(&pushed));
        for cookie in ["", &*org.person().cookie] {
            let request = org.get(&format!("/oauth/authorize?{query}")).header("Accept", "text/html");
            let page = request.header("Cookie", cookie).send().expect(200);
            let policy = page.header("content-security-policy").unwrap_or_default();
            assert!(policy.contains(&format!("form-action 'self' {target};")), "{uri}: {policy}");
        }
    }
}

fn nobody_signed_in_comes_back_to_it(server: &Server) {
    let (mut alice, agent) = both(server);
    let uri = uri_of(push(&agent, &asking(&agent.client_id, "read:a")));
    let session = std::mem::take(&mut alice.cookie);
    let request = [("client_id", agent.client_id.as_str()), ("request_uri", &uri)];
    let body = alice.authorize(&request).refused(401, "login_required");
    let back = server.request("GET", text(&body["resume"])).header("Accept", "application/json");
    assert!(back.header("Cookie", &session).send().ok()["challenge_id"].is_string());
}
