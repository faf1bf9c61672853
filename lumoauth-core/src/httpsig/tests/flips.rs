//! Any bit of anything that is covered, turned over, breaks a request; of anything else it does not.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::support::Request;
use crate::httpsig::Profile;

/// A part of a request, as bytes.
#[derive(Clone, Copy, Debug)]
enum Part {
    Method,
    Authority,
    Path,
    Query,
    Body,
    Field(&'static str),
    /// The signature itself, as bytes and not as the text that stands for them.
    Signature,
}

const COVERED: [Part; 11] = [
    Part::Method,
    Part::Authority,
    Part::Path,
    Part::Query,
    Part::Body,
    Part::Field("signature-key"),
    Part::Field("content-digest"),
    Part::Field("content-type"),
    Part::Field("authorization"),
    Part::Field("signature-input"),
    Part::Signature,
];

fn request(profile: Profile) -> Request {
    Request::new()
        .query("a=b&c=%20d")
        .with("authorization", "Bearer abc.def.ghi")
        .with("signature-key", "https://agent.example#key-1")
        .with("x-other", "something else")
        .with("user-agent", "agent/1.0")
        .signed(profile)
}

fn bytes(request: &Request, part: Part) -> Vec<u8> {
    match part {
        Part::Method => request.method.as_str().into(),
        Part::Authority => request.authority.clone().into(),
        Part::Path => request.path.clone().into(),
        Part::Query => request.query.clone().unwrap().into(),
        Part::Body => request.body.clone(),
        Part::Field(name) => request.headers[name].as_bytes().into(),
        Part::Signature => {
            let value = request.get("signature");
            STANDARD.decode(&value["sig1=:".len()..value.len() - 1]).unwrap()
        }
    }
}

/// The request with other bytes for a part; `None` if no request can have them.
fn with(mut request: Request, part: Part, bytes: Vec<u8>) -> Option<Request> {
    match part {
        Part::Method => request.method = Method::from_bytes(&bytes).ok()?,
        Part::Authority => request.authority = String::from_utf8(bytes).ok()?,
        Part::Path => request.path = String::from_utf8(bytes).ok()?,
        Part::Query => request.query = Some(String::from_utf8(bytes).ok()?),
        Part::Body => request.body = bytes,
        Part::Field(name) => {
            let value = HeaderValue::from_bytes(&bytes).ok()?;
            request.headers.insert(HeaderName::from_static(name), value);
        }
        Part::Signature => {
            let value = format!("sig1=:{}:", STANDARD.encode(bytes));
            request.headers.insert("signature", HeaderValue::from_str(&value).ok()?);
        }
    }
    Some(request)
}

/// The request with each bit of a part turned over in turn, where a request can have that.
fn flipped(request: &Request, part: Part) -> impl Iterator<Item = Request> {
    let original = bytes(request, part);
    (0..original.len() * 8).filter_map(move |at| {
        let mut bytes = original.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        with(request.clone(), part, bytes)
    })
}

#[test]
fn any_bit_of_a_covered_part_breaks_the_request() {
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let request = request(profile);
        for part in COVERED {
            for changed in flipped(&request, part) {
                // The case of the authority is the one thing that RFC 9421 lets change.
                let same = profile == Profile::LUMO_RFC
                    && changed.authority != request.authority
                    && changed.authority.eq_ignore_ascii_case(&request.authority);
                assert_eq!(changed.check().is_ok(), same, "{part:?} {changed:?}");
            }
        }
    }
}

#[test]
fn no_bit_of_another_part_does() {
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let request = request(profile);
        for part in [Part::Field("x-other"), Part::Field("user-agent")] {
            for changed in flipped(&request, part) {
                assert!(changed.check().is_ok(), "{part:?} {changed:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(input in "\\PC{0,200}", signature in "\\PC{0,100}", digest in "[ -~]{0,80}") {
        let mut request = request(Profile::LUMO_RFC);
        for (name, text) in [("signature-input", input), ("signature", signature), ("content-digest", digest)] {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                request.headers.insert(name, value);
            }
        }
        prop_assert!(request.check().is_err());
    }

    #[test]
    fn no_text_that_looks_like_a_list_panics(input in "sig1=\\([\"@a-z ;=:?]{0,60}\\)(;[a-z]{1,8}=[-0-9.\"a-z:@]{0,20}){0,4}") {
        let request = request(Profile::LUMO_RFC).with("signature-input", &input);
        prop_assert!(request.check().is_err());
    }
}
