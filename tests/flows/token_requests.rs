//! Requests the token endpoint must refuse, each with a clear 4xx (security TE).

use lumoauth_tests::{Response, Server, on_each_backend, percent_encode, raw_exchange};
use serde_json::json;

on_each_backend!(
    missing_grant_type_is_an_invalid_request,
    unknown_grant_types_are_unsupported,
    grant_types_that_are_not_offered_are_refused,
    repeated_parameters_are_refused,
    repeated_parameters_are_refused_even_when_equal,
    only_post_is_allowed,
    other_content_types_are_refused,
    missing_body_is_an_invalid_request,
    broken_percent_encoding_is_refused,
    scopes_with_forbidden_characters_are_refused,
    oversized_scopes_are_refused,
    json_that_is_no_flat_object_of_strings_is_refused,
    json_with_repeated_members_is_refused,
    form_body_declared_as_json_is_refused,
    parameters_in_the_query_do_not_count,
    response_type_and_code_parameters_do_not_help,
    conflicting_lengths_never_authenticate_a_second_request,
    refusals_do_not_echo_markup_or_secrets,
    exchange_without_its_parameters_is_an_invalid_request,
    exchange_with_an_unknown_token_type_is_refused,
    exchange_with_one_half_of_an_actor_is_refused,
    exchange_for_another_token_type_is_refused,
    exchange_with_bad_client_authentication_is_refused,
    exchange_with_a_token_as_both_subject_and_actor_is_refused,
);

fn missing_grant_type_is_an_invalid_request(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [("client_id", agent.client_id.as_str()), ("client_secret", &agent.secret)];
    agent.org.post("/oauth/token").form(&form).send().refused(400, "invalid_request");
    let form = [form[0], form[1], ("grant_type", "")];
    let response = agent.org.post("/oauth/token").form(&form).send();
    assert!(matches!(
        response.refused_somehow()["error"].as_str(),
        Some("invalid_request" | "unsupported_grant_type")
    ));
    assert_eq!(response.status, 400);
}

fn unknown_grant_types_are_unsupported(server: &Server) {
    for grant in
        ["magic", "CLIENT_CREDENTIALS", "client_credentials ", "client-credentials", "password", "implicit"]
    {
        with_grant(server, grant).refused(400, "unsupported_grant_type");
    }
    with_grant(server, &"x".repeat(5000)).refused(400, "unsupported_grant_type");
}

fn grant_types_that_are_not_offered_are_refused(server: &Server) {
    for grant in [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:openid:params:grant-type:ciba",
    ] {
        let response = with_grant(server, grant);
        assert_eq!(response.status, 400, "{response}");
        response.refused_somehow();
    }
}

fn repeated_parameters_are_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    for name in ["grant_type", "client_id", "client_secret", "scope"] {
        agent.ask_token(&[("scope", "read:a"), (name, "other")]).refused(400, "invalid_request");
    }
}

fn repeated_parameters_are_refused_even_when_equal(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask_token(&[("scope", "read:a"), ("scope", "read:a")]).refused(400, "invalid_request");
    agent.ask_token(&[("grant_type", "client_credentials")]).refused(400, "invalid_request");
}

fn only_post_is_allowed(server: &Server) {
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "FROBNICATE"] {
        let response = server.acme().request(method, "/oauth/token").send();
        assert_eq!(response.status, 405, "{method}: {response}");
        assert!(response.header("allow").is_some_and(|allow| allow.contains("POST")), "{response}");
    }
}

fn other_content_types_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let body = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        agent.client_id,
        percent_encode(&agent.secret)
    );
    for kind in
        ["text/plain", "multipart/form-data; boundary=x", "application/xml", "application/x-www-form", ""]
    {
        let response = agent.org.post("/oauth/token").body(kind, body.clone()).send();
        assert!(matches!(response.status, 400 | 415), "{kind}: {response}");
        response.refused_somehow();
    }
    // Parameters of the right type are no other type.
    let kind = "application/x-www-form-urlencoded; charset=UTF-8";
    agent.org.post("/oauth/token").body(kind, body).send().ok();
}

fn missing_body_is_an_invalid_request(server: &Server) {
    let response = server.acme().post("/oauth/token").send();
    assert!(matches!(response.status, 400 | 415), "{response}");
    server.acme().post("/oauth/token").form(&[]).send().refused(400, "invalid_request");
}

fn broken_percent_encoding_is_refused(server: &Server) {
    let kind = "application/x-www-form-urlencoded";
    for body in ["grant_type=%ff%fe", "grant_type=%zz", "grant_type=%", "%00=%00", "&&&&", "=", "grant_type"]
    {
        let response = server.acme().post("/oauth/token").body(kind, body).send();
        assert!(matches!(response.status, 400 | 401), "{body}: {response}");
        response.refused_somehow();
    }
}

fn scopes_with_forbidden_characters_are_refused(server: &Server) {
    let agent = server.acme().agent(&["*"]);
    for scope in
        ["read:\"a\"", "read:a\\b", "read:\u{e4}", "read:\u{202e}", "read:a\u{0}", "a,b", "<b>", "read:a;b"]
    {
        let response = agent.ask_token(&[("scope", scope)]);
        assert_eq!(response.status, 400, "{scope}: {response}");
        response.refused_somehow();
    }
}

fn oversized_scopes_are_refused(server: &Server) {
    let agent = server.acme().agent(&["*"]);
    let long = format!("read:{}", "a".repeat(200));
    agent.ask_token(&[("scope", &long)]).refused(400, "invalid_scope");
}

fn json_that_is_no_flat_object_of_strings_is_refused(server: &Server) {
    for body in [
        "",
        "null",
        "[]",
        "\"grant_type=client_credentials\"",
        "{",
        "{}x",
        r#"{"grant_type":["client_credentials"]}"#,
        r#"{"grant_type":{"a":1}}"#,
        r#"{"grant_type":1}"#,
        r#"{"grant_type":true}"#,
        "{\"grant_type\":\"\u{0}\"}",
    ] {
        let response = server.acme().post("/oauth/token").body("application/json", body).send();
        assert!(matches!(response.status, 400 | 401), "{body}: {response}");
        response.refused_somehow();
    }
}

fn json_with_repeated_members_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body = format!(
        r#"{{"grant_type":"client_credentials","client_id":"{0}","client_secret":"{1}","client_id":"{0}"}}"#,
        agent.client_id, agent.secret
    );
    agent.org.post("/oauth/token").body("application/json", body).send().refused(400, "invalid_request");
}

fn form_body_declared_as_json_is_refused(server: &Server) {
    let body = "grant_type=client_credentials";
    let response = server.acme().post("/oauth/token").body("application/json", body).send();
    assert_eq!(response.status, 400, "{response}");
    response.refused_somehow();
}

fn parameters_in_the_query_do_not_count(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", agent.client_id.as_str()),
        ("client_secret", &agent.secret),
        ("scope", "read:a"),
    ];
    let response = agent.org.post("/oauth/token?scope=write:b").form(&form).send();
    assert!(matches!(response.status, 200 | 400), "{response}");
    if response.status == 200 {
        assert_eq!(response.json()["scope"], "read:a");
    }
}

fn response_type_and_code_parameters_do_not_help(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body =
        agent.ask_token(&[("response_type", "id_token token"), ("code", "x"), ("sub", "agent:other")]).ok();
    assert!(body.get("id_token").is_none());
    assert_eq!(body["scope"], "read:a");
}

fn conflicting_lengths_never_authenticate_a_second_request(server: &Server) {
    let path = format!("/orgs/{}/api/v1/oauth/token", server.acme().slug());
    let start = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        server.authority()
    );
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let request = format!("{start}{headers}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        if let Some(response) = raw_exchange(server.authority(), request.as_bytes()) {
            assert!((400..500).contains(&response.status), "{headers}: {response}");
        }
    }
    server.request("GET", "/healthz").send().expect(200);
}

fn refusals_do_not_echo_markup_or_secrets(server: &Server) {
    let agent = server.acme().agent(&[]);
    let response = agent.token_request("s3cr3t-canary", &[("scope", "<script>alert(1)</script>")]).send();
    response.refused_somehow();
    assert!(!response.text().contains("s3cr3t-canary"), "{response}");
    assert_eq!(response.header("x-content-type-options").unwrap_or("nosniff"), "nosniff");
}

fn exchange_without_its_parameters_is_an_invalid_request(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let grant = ("grant_type", EXCHANGE);
    for form in [
        vec![grant],
        vec![grant, ("subject_token", token.as_str())],
        vec![grant, ("subject_token_type", ACCESS_TOKEN)],
        vec![grant, ("subject_token", ""), ("subject_token_type", ACCESS_TOKEN)],
    ] {
        agent.org.post("/oauth/token").form(&form).send().refused(400, "invalid_request");
    }
}

fn exchange_with_an_unknown_token_type_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for kind in
        ["urn:ietf:params:oauth:token-type:saml2", "access_token", "urn:x", &ACCESS_TOKEN.to_uppercase()]
    {
        let form =
            [("grant_type", EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", kind)];
        agent.org.post("/oauth/token").form(&form).send().refused(400, "unsupported_token_type");
    }
}

fn exchange_with_one_half_of_an_actor_is_refused(server: &Server) {
    let (agent, other) = (server.acme().agent(&[]), server.acme().agent(&[]));
    let (token, actor) = (agent.token(), other.token());
    agent.exchange(&token, &[("actor_token", &actor)]).refused(400, "invalid_request");
    agent.exchange(&token, &[("actor_token_type", ACCESS_TOKEN)]).refused(400, "invalid_request");
}

fn exchange_for_another_token_type_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let wanted = "urn:ietf:params:oauth:token-type:refresh_token";
    agent.exchange(&agent.token(), &[("requested_token_type", wanted)]).refused(400, "invalid_request");
}

fn exchange_with_bad_client_authentication_is_refused(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let resource = org.mcp_server(json!({}))["resource_uri"].clone();
    let resource = lumoauth_tests::text(&resource);
    let bad = [("resource", resource), ("client_id", agent.client_id.as_str()), ("client_secret", "wrong")];
    agent.exchange(&agent.token(), &bad).refused(401, "invalid_client");
    let good =
        [("resource", resource), ("client_id", agent.client_id.as_str()), ("client_secret", &agent.secret)];
    agent.exchange(&agent.token(), &good).ok();
}

fn exchange_with_a_token_as_both_subject_and_actor_is_refused(server: &Server) {
    let agent = server.acme().agent(&["delegate:user"]);
    let token = agent.token();
    let response = agent.exchange(&token, &[("actor_token", &token), ("actor_token_type", ACCESS_TOKEN)]);
    assert_eq!(response.status, 400, "{response}");
    response.refused_somehow();
}

fn with_grant(server: &Server, grant: &str) -> Response {
    let agent = server.acme().agent(&[]);
    let form = [("grant_type", grant), ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
    agent.org.post("/oauth/token").form(&form).send()
}

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
