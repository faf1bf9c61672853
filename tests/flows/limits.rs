//! Bounds on what a request may carry: at the limit it is served, one beyond it is a clear 4xx.

use lumoauth_tests::{Connection, Request, Response, Server, Token, b64, on_each_backend, raw_exchange};
use serde_json::json;

on_each_backend!(
    token_of_sixteen_kibibytes_is_judged_and_one_byte_more_is_refused,
    body_of_sixty_four_kibibytes_is_read_and_one_byte_more_is_refused,
    oversized_body_is_refused_at_every_kind_of_route,
    sixty_four_parameters_are_read_and_one_more_is_refused,
    json_of_depth_thirty_two_is_read_and_one_more_is_refused,
    json_of_great_depth_is_refused_everywhere,
    chunked_bodies_have_the_same_limit,
    oversized_headers_are_refused,
    oversized_paths_are_refused,
    many_headers_are_refused,
    connection_goes_on_after_a_refusal,
);

const KIB: usize = 1024;

fn token_of_sixteen_kibibytes_is_judged_and_one_byte_more_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = Token::parse(&agent.token());
    let [_, claims, signature] = token.parts();
    let header = |size: usize| {
        // Fills the header up until the whole token has the size wanted.
        let mut header = token.header.clone();
        let rest = claims.len() + signature.len() + 2;
        for fill in 0..size {
            header["x"] = "x".repeat(size * 3 / 4 - rest * 3 / 4 - 200 + fill).into();
            let text = format!("{}.{claims}.{signature}", b64(header.to_string()));
            if text.len() >= size {
                return text;
            }
        }
        unreachable!("some filling fits")
    };
    for size in [16 * KIB, 16 * KIB + 1, 20 * KIB] {
        let text = header(size);
        let introspected = agent.org.introspect(&agent, &text);
        assert_eq!(introspected, json!({ "active": false }), "{size}");
        let response = agent.userinfo(&text);
        assert!(matches!(response.status, 400 | 401 | 431), "{size}: {response}");
        agent.exchange(&text, &[("audience", "urn:mcp:x")]).refused_somehow();
    }
}

fn body_of_sixty_four_kibibytes_is_read_and_one_byte_more_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let start = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&filler=",
        agent.client_id, agent.secret
    );
    let post = |size: usize| {
        let body = format!("{start}{}", "x".repeat(size - start.len()));
        agent.org.post("/oauth/token").body("application/x-www-form-urlencoded", body).send()
    };
    post(64 * KIB).ok();
    assert_too_large(&post(64 * KIB + 1));
}

fn oversized_body_is_refused_at_every_kind_of_route(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let big =
        json!({ "name": "x", "action": "read:a", "permission": "read:a", "filler": "x".repeat(64 * KIB) });
    let requests: Vec<Request> = vec![
        agent.org.post("/agents/ask").bearer(&token),
        agent.org.post("/agents/me/usage").bearer(&token),
        agent.org.post("/agents/register").bearer(&token),
        server.request("POST", "/api/v1/authz/check").bearer(&token),
        agent.org.admin("POST", "/agents"),
        agent.org.admin("POST", "/mcp/servers"),
        agent.admin("PUT", "/scopes"),
        agent.org.post("/oauth/token"),
    ];
    for request in requests {
        assert_too_large(&request.json(big.clone()).send());
    }
    let form = [("token", "x".repeat(64 * KIB))];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let request = agent.org.post(path).basic(&agent.client_id, &agent.secret);
        assert_too_large(&request.form(&form).send());
    }
}

fn sixty_four_parameters_are_read_and_one_more_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let names: Vec<String> = (0..62).map(|n| format!("p{n}")).collect();
    let extra: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    // Three parameters are the client's own.
    agent.ask_token(&extra[..61]).ok();
    agent.ask_token(&extra[..62]).refused(400, "invalid_request");
    let many = "a=b&".repeat(10_000);
    let response = agent.org.post("/oauth/token").body("application/x-www-form-urlencoded", many).send();
    assert!(matches!(response.status, 400 | 413), "{response}");
}

fn json_of_depth_thirty_two_is_read_and_one_more_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let ask = |depth: usize| {
        // The object and its context are two levels.
        let inner = depth - 2;
        let nest = format!("{}1{}", "[".repeat(inner), "]".repeat(inner));
        let body = format!(r#"{{"action":"read:a","context":{{"n":{nest}}}}}"#);
        agent.org.post("/agents/ask").bearer(&token).body("application/json", body).send()
    };
    ask(32).ok();
    ask(33).expect(400).refused_somehow();
}

fn json_of_great_depth_is_refused_everywhere(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for open in ["[", "{\"a\":"] {
        let close = if open == "[" { "]" } else { "}" };
        let deep = format!("{{\"action\":\"read:a\",\"x\":{}1{}}}", open.repeat(5000), close.repeat(5000));
        for body in [deep.clone(), open.repeat(10_000)] {
            let requests = [
                agent.org.post("/agents/ask").bearer(&token),
                server.request("POST", "/api/v1/authz/check").bearer(&token),
                agent.org.admin("POST", "/agents"),
                agent.org.post("/oauth/token"),
            ];
            for request in requests {
                request.body("application/json", body.clone()).send().expect(400).refused_somehow();
            }
        }
    }
}

fn chunked_bodies_have_the_same_limit(server: &Server) {
    let path = format!("/orgs/{}/api/v1/oauth/token", server.acme().slug());
    let chunk = format!("{:x}\r\n{}\r\n", 16 * KIB, "x".repeat(16 * KIB));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        server.authority(),
        chunk.repeat(8)
    );
    // A server may also close on whoever keeps sending.
    if let Some(response) = raw_exchange(server.authority(), request.as_bytes()) {
        assert_too_large(&response);
    }
}

fn oversized_headers_are_refused(server: &Server) {
    let response = server.acme().get("/oauth/userinfo").header("X-Filler", &"x".repeat(512 * KIB)).send();
    assert!((400..500).contains(&response.status), "{response}");
    let response = server.acme().get("/oauth/userinfo").api_key(&"k".repeat(32 * KIB)).send();
    assert!((400..500).contains(&response.status), "{response}");
}

fn oversized_paths_are_refused(server: &Server) {
    let response = server.acme().get(&format!("/{}", "x".repeat(32 * KIB))).send();
    assert!((400..500).contains(&response.status), "{response}");
    let response = server.acme().admin("GET", &format!("/agents?search={}", "x".repeat(32 * KIB))).send();
    assert!(response.status < 500, "{response}");
}

fn many_headers_are_refused(server: &Server) {
    let mut request = server.acme().get("/oauth/userinfo");
    for n in 0..1000 {
        request = request.header(&format!("X-H{n}"), "x");
    }
    let response = request.send();
    assert!((400..500).contains(&response.status), "{response}");
}

#[track_caller]
fn assert_too_large(response: &Response) {
    assert!(matches!(response.status, 400 | 413), "{response}");
    response.refused_somehow();
}

fn connection_goes_on_after_a_refusal(server: &Server) {
    let org = server.acme();
    let body = json!({ "action": "read:a" });
    let refused = [
        org.post("/agents/ask").bearer("nobody").json(body.clone()),
        org.post("/agents/ask").json(body.clone()),
        org.post("/no/such/path").json(body.clone()),
        org.admin("PUT", "/agents").json(body.clone()),
        org.agent(&[]).org.post("/admin/agents").api_key("wrong").json(body),
    ];
    let mut connection = Connection::open(server.authority()).expect("the server listens");
    for request in &refused {
        let answer = connection.send_body_late(request).expect("an answer");
        assert!((400..500).contains(&answer.status), "{answer}");
        assert_eq!(answer.header("connection"), None, "{answer}");
    }
    assert_eq!(connection.send(&org.get("/.well-known/jwks.json")).expect("an answer").status, 200);
    // What is too large is not read, and whoever sends it is told that the connection ends.
    let large = org.post("/agents/ask").bearer("nobody").body("application/json", vec![b' '; 80 * KIB]);
    assert_eq!(connection.send(&large).expect("an answer").header("connection"), Some("close"));
}
