//! What serves GET serves HEAD (RFC 9110 section 9.3.2): the same answer without its body.

use lumoauth_tests::{Connection, Request, Server, on_each_backend};

on_each_backend!(head_answers_like_get_without_a_body, head_without_a_credential_is_refused_like_get);

/// What may differ between two answers to the same request.
const VARIABLE: [&str; 2] = ["date", "x-request-id"];

#[track_caller]
fn assert_like_get(server: &Server, path: &str, status: u16, with: impl Fn(Request) -> Request) {
    let org = server.acme();
    let get = with(org.get(path)).send().expect(status);
    let mut connection = Connection::open(server.authority()).expect("the server listens");
    let head = connection.send(&with(org.request("HEAD", path))).expect("an answer");
    assert_eq!(head.status, status, "{path}");
    let headers = |response: &lumoauth_tests::Response| {
        let mut headers: Vec<_> = response
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.clone()))
            .filter(|(name, _)| !VARIABLE.contains(&name.as_str()))
            .collect();
        headers.sort();
        headers
    };
    assert_eq!(headers(&head), headers(&get), "{path}");
    // A body after all would be read as the next answer.
    let next = connection.send(&with(org.get(path))).expect("an answer");
    assert_eq!((next.status, &next.body), (status, &get.body), "{path}");
}

fn head_answers_like_get_without_a_body(server: &Server) {
    let token = server.acme().agent(&["read:a"]).token();
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        assert_like_get(server, path, 200, |request| request);
    }
    for path in ["/oauth/userinfo", "/agents/me"] {
        assert_like_get(server, path, 200, |request| request.bearer(&token));
    }
}

fn head_without_a_credential_is_refused_like_get(server: &Server) {
    assert_like_get(server, "/oauth/userinfo", 401, |request| request);
    assert_like_get(server, "/admin/agents", 401, |request| request);
    assert_like_get(server, "/nowhere", 404, |request| request);
}
