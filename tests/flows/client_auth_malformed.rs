//! `Authorization` headers no client should send, at every route that authenticates clients.

use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{Server, on_each_backend, raw_exchange};

on_each_backend!(
    malformed_authorization_headers_are_refused_at_the_token_endpoint,
    malformed_authorization_headers_are_refused_at_introspection_and_revocation,
    malformed_bearer_headers_are_refused_at_userinfo,
    two_authorization_headers_are_refused,
    credentials_in_the_url_do_not_authenticate,
    header_bytes_beyond_ascii_are_refused,
);

/// Each must be 400 or 401, whatever else the request says.
fn malformed(id: &str, secret: &str) -> Vec<String> {
    let pair = STANDARD.encode(format!("{id}:{secret}"));
    vec![
        "Basic".to_owned(),
        "Basic ".to_owned(),
        "Basic !!!!".to_owned(),
        format!("Basic{pair}"),
        format!("Basic {pair} {pair}"),
        format!("Basic {}", &pair[..pair.len() - 3]),
        format!("Basic {}", STANDARD.encode(id)),
        format!("Basic {}", STANDARD.encode(":")),
        format!("Basic {}", STANDARD.encode(format!(":{secret}"))),
        format!("Basic {}", STANDARD.encode(format!("{id}:"))),
        format!("Basic {}", STANDARD.encode([0xff, 0xfe, b':', 0xfd])),
        format!("Basic {}", STANDARD.encode(format!("{id}:%zz"))),
        format!("Basic {}", STANDARD.encode(format!("{id}\0:{secret}"))),
        format!("Basic {id}:{secret}"),
        format!("Basic {}", STANDARD.encode("a".repeat(8000))),
        format!("Digest username=\"{id}\", response=\"{secret}\""),
        "Negotiate YII=".to_owned(),
    ]
}

fn malformed_authorization_headers_are_refused_at_the_token_endpoint(server: &Server) {
    let agent = server.acme().agent(&[]);
    for header in malformed(&agent.client_id, &agent.secret) {
        let request = agent.org.post("/oauth/token").form(&[("grant_type", "client_credentials")]);
        let response = request.header("Authorization", &header).send();
        assert!(matches!(response.status, 400 | 401), "{header}: {response}");
        response.refused_somehow();
    }
}

fn malformed_authorization_headers_are_refused_at_introspection_and_revocation(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        for header in malformed(&agent.client_id, &agent.secret) {
            let request = agent.org.post(path).form(&[("token", &token)]);
            let response = request.header("Authorization", &header).send();
            assert!(matches!(response.status, 400 | 401), "{path} {header}: {response}");
            response.refused_somehow();
        }
    }
    agent.userinfo(&token).ok();
}

fn malformed_bearer_headers_are_refused_at_userinfo(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let headers = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer{token}"),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},{token}"),
        format!("Bearer \"{token}\""),
        format!("Token {token}"),
        token.clone(),
        format!("Bearer\t{token}x"),
        format!("Basic {}", STANDARD.encode(format!("{}:{}", agent.client_id, agent.secret))),
        format!("DPoP {token}"),
    ];
    for header in headers {
        let response = agent.org.get("/oauth/userinfo").header("Authorization", &header).send();
        assert!(matches!(response.status, 400 | 401), "{header}: {response}");
        response.refused_somehow();
    }
    // The scheme is case-insensitive (RFC 9110 section 11.1).
    agent.org.get("/oauth/userinfo").header("Authorization", &format!("bearer {token}")).send().ok();
}

fn two_authorization_headers_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let response = agent.org.get("/oauth/userinfo").bearer(&token).bearer(&token).send();
    assert!(matches!(response.status, 400 | 401), "{response}");
    response.refused_somehow();
    let request = agent.org.post("/oauth/token").form(&[("grant_type", "client_credentials")]);
    let request = request.basic(&agent.client_id, &agent.secret).basic(&agent.client_id, &agent.secret);
    let response = request.send();
    assert!(matches!(response.status, 400 | 401), "{response}");
}

fn credentials_in_the_url_do_not_authenticate(server: &Server) {
    let agent = server.acme().agent(&[]);
    let path = format!("/orgs/{}/api/v1/oauth/token", agent.org.slug());
    let body = "grant_type=client_credentials";
    let request = format!(
        "POST http://{}:{}@{}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        agent.client_id,
        agent.secret,
        server.authority(),
        server.authority(),
        body.len(),
    );
    let response = raw_exchange(server.authority(), request.as_bytes()).expect("an answer");
    assert!((400..500).contains(&response.status), "{response}");
}

fn header_bytes_beyond_ascii_are_refused(server: &Server) {
    let path = format!("/orgs/{}/api/v1/oauth/userinfo", server.acme().slug());
    for value in [&b"Bearer \xff\xfe"[..], "Bearer \u{20ac}".as_bytes(), b"Bearer a\x01b"] {
        let mut request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: ", server.authority()).into_bytes();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
        let response = raw_exchange(server.authority(), &request).expect("an answer");
        assert!(matches!(response.status, 400 | 401), "{response}");
    }
}
