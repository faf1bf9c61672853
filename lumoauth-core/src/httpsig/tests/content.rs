//! `Content-Digest` over the content as it was received.

use super::support::{AUTHORITY, BODY, CREATED, Request, at};
use crate::httpsig::{Accept, Content, Digester, Digests, Message, Profile, SignatureError, read};

const SHA256: &str = "sha-256=:maoKTEBGVoe/uXlHmt4EeWj7K7xo71Ag/qIPObi3vPw=:";
const BOTH: [Profile; 2] = [Profile::LUMO_SDK, Profile::LUMO_RFC];

/// Validly signed with this digest, whatever the content is.
fn with(digest: &str) -> Request {
    let list = [
        "@method",
        "@authority",
        "@path",
        "signature-key",
        "content-digest",
        "content-type",
        "authorization",
    ];
    Request::new().with("content-digest", digest).covering(Profile::LUMO_SDK, &list)
}

fn sha512() -> String {
    let made = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, BODY.as_bytes());
    format!("sha-512=:{}:", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, made))
}

#[test]
fn the_content_is_what_was_signed() {
    for profile in BOTH {
        let request = Request::new().signed(profile);
        for body in ["", "x", &BODY.replace("read", "root"), &format!("{BODY} "), &BODY[1..]] {
            let other = Request { body: body.as_bytes().to_vec(), ..request.clone() };
            refused!(other.check(), SignatureError::DigestMismatch);
        }
        let another = Request { body: b"x".to_vec(), ..Request::new() }.signed(profile);
        let moved = request.clone().with("content-digest", another.get("content-digest"));
        refused!(Request { body: b"x".to_vec(), ..moved }.check(), SignatureError::Invalid);
    }
}

#[test]
fn every_supported_digest_matches_and_there_is_one() {
    let sha512 = sha512();
    for good in [
        SHA256.to_owned(),
        sha512.clone(),
        format!("{SHA256}, {sha512}"),
        format!("md5=:AAAA:, {SHA256}"),
        format!("{SHA256}, x=1, y=(1 2);a"),
        SHA256.replace('=', "").replace("sha-256", "sha-256="),
    ] {
        assert!(with(&good).check().is_ok(), "{good}");
    }
    let wrong = "sha-256=:AAAAQEZWh7+5eUea3gR5aPsrvGjvUCD+og85uLe8/A==:";
    for bad in [
        wrong.to_owned(),
        format!("{wrong}, {sha512}"),
        format!("{sha512}, {wrong}"),
        "sha-256=1".to_owned(),
        "sha-256".to_owned(),
        "sha-256=(:AAAA:)".to_owned(),
        "sha-256=::".to_owned(),
        format!("{SHA256}, sha-512=:AAAA:"),
    ] {
        refused!(with(&bad).check(), SignatureError::DigestMismatch);
    }
    for unsupported in ["md5=:AAAA:", "sha=:AAAA:", "unixsum=:AAAA:, crc32c=:AAAA:", "", "SHA_256=1"] {
        refused!(with(unsupported).check(), SignatureError::DigestUnsupported | SignatureError::Malformed(_));
    }
    refused!(with("md5=:AAAA:").check(), SignatureError::DigestUnsupported);
    let twice = format!("{wrong}, {SHA256}");
    refused!(with(&twice).check(), SignatureError::Malformed("Content-Digest"));
    for malformed in ["sha-256=:AA", "sha-256=:A-_A:", "=:AAAA:", "sha-256=:AAAA:,"] {
        refused!(with(malformed).check(), SignatureError::Malformed("Content-Digest"));
    }
    let long = format!("x=:{}:, {SHA256}", "A".repeat(2000));
    refused!(with(&long).check(), SignatureError::TooLong("Content-Digest"));
}

#[test]
fn the_digest_is_of_the_content_as_it_was_sent() {
    // Compressed content has another digest than what it becomes.
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let sent = Request { body: gzip.to_vec(), ..Request::new() }
        .with("content-encoding", "gzip")
        .signed(Profile::LUMO_RFC);
    assert!(sent.check().is_ok());
    refused!(Request { body: BODY.into(), ..sent }.check(), SignatureError::DigestMismatch);
}

#[test]
fn empty_content_has_a_digest_in_the_sdks_form_and_needs_none_by_meaning() {
    let empty = || Request { body: Vec::new(), ..Request::new() };
    let sdk = empty().signed(Profile::LUMO_SDK);
    assert_eq!(sdk.get("content-digest"), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
    assert!(sdk.check().is_ok());
    refused!(Request { body: b"x".to_vec(), ..sdk.clone() }.check(), SignatureError::DigestMismatch);
    refused!(sdk.without("content-digest").check(), SignatureError::Absent(_));
    let rfc = empty().signed(Profile::LUMO_RFC);
    assert!(!rfc.headers.contains_key("content-digest") && rfc.check().is_ok());
    // Content that came from nowhere.
    refused!(Request { body: b"x".to_vec(), ..rfc }.check(), SignatureError::NotCovered("content-digest"));
}

#[test]
fn content_that_was_hashed_as_it_came_counts_as_the_content() {
    for profile in BOTH {
        let request = Request::new().signed(profile);
        let check = |digests: &Digests| {
            let message = Message { content: Content::Digested(digests), ..request.message() };
            read(&message, &Accept::at([AUTHORITY]), at(CREATED))
        };
        let mut digester = Digester::new();
        for part in BODY.as_bytes().chunks(7) {
            digester.update(part);
        }
        let digests = digester.finish();
        assert!(digests == Digests::of(BODY.as_bytes()) && !digests.is_empty());
        assert!(check(&digests).is_ok());
        refused!(check(&Digests::of(b"x")), SignatureError::DigestMismatch);
        refused!(check(&Digester::default().finish()), SignatureError::DigestMismatch);
        assert_eq!(Content::Digested(&digests).digest_field(), SHA256);
        let by_sha512 = http::HeaderValue::try_from(sha512()).unwrap();
        assert!(Content::Digested(&digests).check_digest_field(&by_sha512).is_ok());
    }
    assert!(Digester::new().finish().is_empty() && Digests::of(b"").is_empty());
}
