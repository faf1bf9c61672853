//! Whole requests at the whole service, up to four of them, with a line between them that says `.`. A request is its method and
//! path, its headers, an empty line and its body. `$TOKEN` stands for a token of the agent `cli_bot`, and a name of [`KEPT`] for
//! the member of that name in the last answer that had it.

#![no_main]

use std::collections::HashMap;

use http::{HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::json;
use lumoauth_fuzz::{Answer, BOT_SECRET, Bench, position, request};

/// What of an answer the next requests can name.
const KEPT: [&str; 9] = [
    "$access_token",
    "$refresh_token",
    "$challenge_id",
    "$csrf_token",
    "$request_uri",
    "$id",
    "$reservation_id",
    "$approval_id",
    "$client_id",
];

fuzz_target!(|data: &[u8]| {
    let bench = Bench::new();
    let mut known = HashMap::new();
    for part in separated(data).into_iter().take(4) {
        let mut part = part.to_vec();
        if position(&part, b"$TOKEN").is_some() {
            known.entry("$TOKEN").or_insert_with(|| bench.bot_token());
        }
        for (name, value) in &known {
            if let Some(at) = position(&part, name.as_bytes()) {
                part.splice(at..at + name.len(), value.bytes());
            }
        }
        let Some(request) = request(&part) else { continue };
        let path = request.uri().path().to_owned();
        let answer = bench.send(request);
        check(&path, &part, &answer);
        let Some(members) = answer.json() else { continue };
        known.extend(
            KEPT.iter().filter_map(|name| Some((*name, members.get(&name[1..])?.as_str()?.to_owned()))),
        );
    }
});

fn check(path: &str, sent: &[u8], answer: &Answer) {
    let status = answer.status;
    assert!(!status.is_server_error() && !status.is_informational(), "{path}: {answer:?}");
    let kind = answer.headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().expect("text"));
    if kind.starts_with("application/json") || kind.ends_with("+json") {
        json::check(&answer.body).expect("strict JSON");
        if status.is_client_error() {
            let error = answer.json().expect("JSON");
            assert!(error["error"].is_string(), "{path}: {error}");
        }
    }
    if kind.starts_with("text/html") {
        assert!(answer.headers.contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
        // Whatever a page shows of a request is text there.
        assert!(position(&answer.body, b"<fuzz").is_none(), "{path}");
    }
    if path.contains("oauth/token") && status.is_success() {
        assert_eq!(
            answer.headers.get(header::CACHE_CONTROL).map(HeaderValue::as_bytes),
            Some(&b"no-store"[..])
        );
    }
    // A secret that came in as one does not come out. Whoever names an action after it is told about that action.
    if is_only_a_secret(sent) && !path.contains("admin") {
        assert!(position(&answer.body, BOT_SECRET.as_bytes()).is_none(), "{path}: {answer:?}");
    }
}

fn is_only_a_secret(sent: &[u8]) -> bool {
    let mut before = Vec::new();
    let mut rest = sent;
    while let Some(at) = position(rest, BOT_SECRET.as_bytes()) {
        before.push(&rest[..at]);
        rest = &rest[at + BOT_SECRET.len()..];
    }
    !before.is_empty() && before.iter().all(|before| before.ends_with(b"client_secret="))
}

fn separated(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = position(data, b"\n.\n") {
        parts.push(&data[..at]);
        data = &data[at + 3..];
    }
    parts.push(data);
    parts
}
