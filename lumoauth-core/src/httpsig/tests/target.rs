//! Method, authority, path and query: the same text for both sides or a refusal. And fields in several lines.

use http::{Method, Request as HttpRequest};

use super::support::{AUTHORITY, CREATED, PATH, Request, at};
use crate::httpsig::{Accept, Content, Message, Profile, SignatureError, read};

const BOTH: [Profile; 2] = [Profile::LUMO_SDK, Profile::LUMO_RFC];

#[test]
fn a_signature_is_for_one_method_path_and_authority() {
    let accept = Accept::at([AUTHORITY, "other.test"]);
    let key = super::support::signer().public_key().unwrap();
    for profile in BOTH {
        let signed = Request::new().query("a=b").signed(profile);
        for (what, other) in [
            ("method", Request { method: Method::PUT, ..signed.clone() }),
            ("method", Request { method: Method::from_bytes(b"post").unwrap(), ..signed.clone() }),
            ("path", Request { path: format!("{PATH}/"), ..signed.clone() }),
            ("tenant", Request { path: PATH.replace("acme-corp", "other"), ..signed.clone() }),
            ("host", Request { authority: "other.test".to_owned(), ..signed.clone() }),
            ("query", signed.clone().query("a=b&c=d")),
            ("query", signed.clone().query("")),
        ] {
            let outcome = read(&other.message(), &accept, at(CREATED)).and_then(|it| it.verify(&key));
            assert!(matches!(outcome, Err(SignatureError::Invalid)), "{what}: {outcome:?}");
        }
    }
}

#[test]
fn only_configured_authorities_are_served() {
    for profile in BOTH {
        for authority in [
            "other.test",
            "auth.acme.test:8443",
            "auth.acme.test.",
            "auth.acme.test:80",
            "",
            "xauth.acme.test",
        ] {
            let request = Request { authority: authority.to_owned(), ..Request::new() }.signed(profile);
            refused!(request.check(), SignatureError::Authority);
        }
        // A proxy's word for it is not asked.
        let request = Request { authority: "other.test".to_owned(), ..Request::new() };
        let request = request
            .with("x-forwarded-host", AUTHORITY)
            .with("forwarded", "host=auth.acme.test")
            .signed(profile);
        refused!(request.check(), SignatureError::Authority);
        refused!(read(&request.message(), &Accept::at([""; 0]), at(CREATED)), SignatureError::Authority);
    }
}

#[test]
fn the_authority_is_compared_without_case_and_signed_as_the_profile_says() {
    let written = ["AUTH.acme.test", "auth.acme.test:443", "Auth.Acme.Test:443"];
    for authority in written {
        for profile in BOTH {
            let request = Request { authority: authority.to_owned(), ..Request::new() }.signed(profile);
            assert!(request.check().is_ok(), "{authority}");
        }
        // The sender wrote one text, and the receiver sees another one.
        let rewritten = |profile| {
            let request = Request::new().signed(profile);
            Request { authority: authority.to_owned(), ..request }
        };
        refused!(rewritten(Profile::LUMO_SDK).check(), SignatureError::Invalid);
        assert!(rewritten(Profile::LUMO_RFC).check().is_ok(), "RFC 9421 normalizes");
    }
    let ported =
        Request { authority: "127.0.0.1:8080".to_owned(), scheme: "http".to_owned(), ..Request::new() };
    let ported = ported.signed(Profile::LUMO_SDK);
    let accept = Accept::at(["127.0.0.1:8080", "[::1]:8080"]);
    assert!(read(&ported.message(), &accept, at(CREATED)).is_ok());
    let v6 = Request { authority: "[::1]:8080".to_owned(), ..ported };
    assert!(read(&v6.message(), &accept, at(CREATED)).is_ok());
}

#[test]
fn paths_that_a_router_takes_for_one_are_different_to_a_signature() {
    for profile in BOTH {
        let at_path = |path: &str| Request { path: path.to_owned(), ..Request::new() };
        for (signed, received) in [
            ("/a/b", "//a/b"),
            ("/a/b", "/a//b"),
            ("/a/b", "/a/./b"),
            ("/a/b", "/a/c/../b"),
            ("/a/b", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/~a", "/%7Ea"),
            ("/%7ea", "/%7Ea"),
            ("/a", "/a/"),
            ("/a", "/A"),
            ("/a;x", "/a"),
        ] {
            let request = Request { path: received.to_owned(), ..at_path(signed).signed(profile) };
            refused!(request.check(), SignatureError::Invalid);
            assert!(at_path(received).signed(profile).check().is_ok(), "{received}");
        }
        let root = Request { path: String::new(), ..at_path("/").signed(profile) };
        assert!(root.check().is_ok(), "the empty path is the root");
        for bad in [
            "a",
            "*",
            "/a b",
            "/a\tb",
            "/a?b",
            "/a#b",
            "/a\nb",
            "/\u{fc}",
            "/a\r",
            "https://auth.acme.test/a",
        ] {
            refused!(
                Request { path: bad.to_owned(), ..at_path("/").signed(profile) }.check(),
                SignatureError::Target
            );
        }
    }
}

#[test]
fn queries_are_compared_as_texts() {
    for profile in BOTH {
        for (signed, received) in [
            ("a=b", "a=%62"),
            ("a=%2f", "a=%2F"),
            ("a=b", "a=b&"),
            ("a=b&c=d", "c=d&a=b"),
            ("a=b", "a=b&a=c"),
            ("a=b+c", "a=b%20c"),
        ] {
            let request = Request::new().query(signed).signed(profile).query(received);
            refused!(request.check(), SignatureError::Invalid);
        }
        for bad in ["a b", "a#b", "a\n", "\u{fc}"] {
            refused!(Request::new().query("a").signed(profile).query(bad).check(), SignatureError::Target);
        }
        // A question mark with nothing after it is a query.
        let empty = Request::new().query("").signed(profile);
        assert!(empty.check().is_ok());
        let gone = Request { query: None, ..empty }.check();
        // RFC 9421 section 2.2.7 makes no difference between an empty query and none.
        assert_eq!(gone.is_ok(), profile == Profile::LUMO_RFC);
    }
    let bare = Request::new().signed(Profile::LUMO_RFC).query("");
    refused!(bare.check(), SignatureError::NotCovered("@query"));
}

#[test]
fn an_absent_query_is_a_question_mark_where_the_rfc_says_so() {
    let list = ["@method", "@authority", "@path", "@query", "content-digest", "content-type"];
    let request = Request::new().covering(Profile::LUMO_RFC, &list);
    assert!(request.read().unwrap().base.contains("\"@query\": ?\n"));
    let list = ["@method", "@target-uri", "@scheme", "@request-target", "content-digest", "content-type"];
    let base = Request::new().query("a=b").covering(Profile::LUMO_RFC, &list).read().unwrap().base;
    assert!(base.contains(&format!("\"@target-uri\": https://{AUTHORITY}{PATH}?a=b\n")), "{base}");
    assert!(base.contains(&format!("\"@scheme\": https\n\"@request-target\": {PATH}?a=b\n")), "{base}");
}

#[test]
fn a_covered_field_stands_in_one_line() {
    for profile in BOTH {
        let request = Request::new().with("authorization", "a, b").signed(profile);
        assert!(request.check().is_ok());
        // The same text, as far as RFC 9421 is concerned.
        let split = request.clone().with("authorization", "a").and("authorization", "b");
        refused!(split.check(), SignatureError::Repeated(_));
        for name in ["authorization", "content-type", "content-digest"] {
            let value = request.get(name).to_owned();
            refused!(request.clone().and(name, &value).check(), SignatureError::Repeated(_));
            refused!(request.clone().and(name, "").check(), SignatureError::Repeated(_));
        }
        assert!(request.clone().and("x-other", "a").and("x-other", "b").check().is_ok(), "nobody covers it");
    }
}

#[test]
fn a_message_of_a_request_has_one_authority() {
    let message = |request: http::request::Builder| {
        let (head, ()) = request.body(()).unwrap().into_parts();
        Message::of(&head, "https", Content::Bytes(b""))
            .map(|it| (it.authority.to_owned(), it.path.to_owned(), it.query.map(str::to_owned)))
    };
    let expected = (AUTHORITY.to_owned(), "/a".to_owned(), Some("b".to_owned()));
    let origin = || HttpRequest::get("/a?b");
    assert_eq!(message(origin().header("host", AUTHORITY)).unwrap(), expected);
    let absolute = || HttpRequest::get("https://auth.acme.test/a?b#fragment");
    assert_eq!(message(absolute()).unwrap(), expected);
    assert_eq!(message(absolute().header("host", AUTHORITY)).unwrap(), expected);
    refused!(message(absolute().header("host", "other.test")), SignatureError::Authority);
    refused!(message(origin()), SignatureError::Authority);
    refused!(
        message(origin().header("host", AUTHORITY).header("host", AUTHORITY)),
        SignatureError::Repeated(_)
    );
    refused!(message(origin().header("host", "\u{fc}")), SignatureError::Authority);
}
