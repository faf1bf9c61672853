//! Signed requests. What is accepted of one is measured again, its signature base is built a second time and signed, and what
//! that covers is altered. What we sign ourselves is accepted.

#![no_main]

use std::{collections::HashSet, sync::LazyLock};

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, header};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    clock::Timestamp,
    httpsig::{
        Accept, Content, Digester, Message, Profile, SignWith, SignatureError, Verified, read, read_ahead,
        sign,
    },
    jwks::PublicKey,
};
use lumoauth_fuzz::{NOW, Pair, block_on, request};
use sfv::{BareItem, Dictionary, FieldType, InnerList, List, ListEntry, Parser};

const AUTHORITIES: [&str; 2] = ["auth.example", "api.example:8443"];

static SENDER: LazyLock<(Pair, PublicKey)> = LazyLock::new(|| {
    let pair = Pair::new("k1", 2);
    let key = PublicKey::from_jwk(&pair.jwk()).expect("a key");
    (pair, key)
});

fuzz_target!(|data: &[u8]| {
    let Some(request) = request(data) else { return };
    let (head, content) = request.into_parts();
    for field in head.headers.get_all("content-digest") {
        check_digest(field, &content);
    }
    let Ok(message) = Message::of(&head, "https", Content::Bytes(&content)) else { return };
    received(&message, &content);
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        sent(&message, profile);
    }
});

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(NOW)
}

fn check(message: &Message<'_>) -> Result<Verified, SignatureError> {
    read(message, &Accept::at(AUTHORITIES), now())?.verify(&SENDER.1)
}

/// If the digest is accepted, every digest that is known is that of the content.
fn check_digest(field: &HeaderValue, content: &[u8]) {
    let whole = Content::Bytes(content).check_digest_field(field);
    let (first, second) = content.split_at(content.len() / 3);
    let mut digester = Digester::new();
    digester.update(first);
    digester.update(second);
    let digests = digester.finish();
    assert_eq!(Content::Digested(&digests).check_digest_field(field).is_ok(), whole.is_ok());
    if whole.is_err() {
        return;
    }
    let named: Dictionary = Parser::new(field.as_bytes()).parse().expect("a dictionary");
    let is = |name: &str, expected: &[u8]| match named.get(name) {
        None => None,
        Some(ListEntry::Item(item)) => Some(item.bare_item == BareItem::ByteSequence(expected.to_vec())),
        Some(ListEntry::InnerList(_)) => Some(false),
    };
    let (short, long) =
        (is("sha-256", digest(&SHA256, content).as_ref()), is("sha-512", digest(&SHA512, content).as_ref()));
    assert!(short.or(long).is_some() && short != Some(false) && long != Some(false));
}

fn received(message: &Message<'_>, content: &[u8]) {
    let accept = Accept::at(AUTHORITIES);
    // Before the content is there, and with it.
    let ahead = Message { content: Content::Bytes(b"of another request"), ..*message };
    let ahead = read_ahead(&ahead, &accept, now()).and_then(|(_, promised)| promised.check(message.content));
    let presented = read(message, &accept, now());
    assert_eq!(presented.is_ok(), ahead.is_ok());
    let Ok(presented) = presented else { return };
    let signature = presented.signature();
    let (headers, components) = (message.headers, signature.components());
    assert!(signature.created().unix_seconds().abs_diff(NOW) <= Profile::WINDOW.as_secs());
    assert!((16..=256).contains(&signature.nonce().len()));
    let names: HashSet<_> = components.iter().map(|component| component.as_str()).collect();
    assert!(names.len() == components.len() && names.len() <= 32 && names.contains("@method"));
    for name in ["signature-input", "signature"] {
        assert!(headers.get_all(name).iter().count() == 1 && !names.contains(name));
    }
    for name in ["authorization", "signature-key"] {
        assert!(!headers.contains_key(name) || names.contains(name));
    }
    assert!(content.is_empty() || names.contains("content-digest") && names.contains("content-type"));
    let host = message.authority.to_ascii_lowercase();
    assert!(AUTHORITIES.contains(&host.strip_suffix(":443").unwrap_or(&host)), "{host}");
    drop(names);

    // The same list signed by somebody whose key is known.
    let field = headers["signature-input"].as_bytes();
    let input: Dictionary = Parser::new(field).parse().expect("a dictionary");
    let (label, ListEntry::InnerList(list)) = input.first().expect("one label") else { panic!("no list") };
    assert_eq!((input.len(), label.as_str()), (1, signature.label()));
    if list
        .params
        .get("alg")
        .is_some_and(|alg| *alg != BareItem::String(sfv::string_ref("ed25519").to_owned()))
    {
        return;
    }
    let base = base(message, list, signature.profile());
    let value = format!("{}=:{}:", label.as_str(), STANDARD.encode(SENDER.0.sign(base.as_bytes())));
    let mut headers = headers.clone();
    headers.insert("signature", value.parse().expect("base64"));
    let message = Message { headers: &headers, ..*message };
    let verified = check(&message).expect("a good signature");
    assert_eq!(verified.thumbprint(), SENDER.1.thumbprint());
    altered(&message, verified.signature().covers_query());
}

/// The signature base of RFC 9421 section 2.5, by another hand.
fn base(message: &Message<'_>, list: &InnerList, profile: Profile) -> String {
    let path = if message.path.is_empty() { "/" } else { message.path };
    let query = message.query.map(|query| format!("?{query}")).unwrap_or_default();
    let lower = message.authority.to_ascii_lowercase();
    let authority = match profile {
        Profile::LUMO_SDK => message.authority,
        _ => lower.strip_suffix(":443").unwrap_or(&lower),
    };
    let mut lines = Vec::new();
    for item in &list.items {
        let BareItem::String(name) = &item.bare_item else { panic!("no name") };
        let name = name.as_str();
        let value = match name {
            "@method" => message.method.to_string(),
            "@authority" => authority.to_owned(),
            "@scheme" => "https".to_owned(),
            "@path" => path.to_owned(),
            "@query" if query.is_empty() => "?".to_owned(),
            "@query" => query.clone(),
            "@request-target" => format!("{path}{query}"),
            "@target-uri" => format!("https://{authority}{path}{query}"),
            field => {
                let lines: Vec<_> = message
                    .headers
                    .get_all(field)
                    .iter()
                    .map(|line| line.to_str().expect("text").trim())
                    .collect();
                lines.join(", ")
            }
        };
        lines.push(format!("\"{name}\": {value}"));
    }
    let params = List::from([ListEntry::InnerList(list.clone())]).serialize().expect("a list");
    lines.push(format!("\"@signature-params\": {params}"));
    lines.join("\n")
}

/// A request that another one was made of has no signature.
fn altered(message: &Message<'_>, covers_query: bool) {
    let refused = |other: &Message<'_>| assert!(check(other).is_err(), "{other:?}");
    let method = if message.method == Method::GET { Method::POST } else { Method::GET };
    refused(&Message { method: &method, ..*message });
    let path = format!("{}/x", message.path);
    refused(&Message { path: &path, ..*message });
    let authority = AUTHORITIES.into_iter().find(|other| !message.authority.eq_ignore_ascii_case(other));
    let same_place = format!("{}:443", AUTHORITIES[0]).eq_ignore_ascii_case(message.authority);
    refused(&Message {
        authority: if same_place { AUTHORITIES[1] } else { authority.expect("another") },
        ..*message
    });
    // Whoever signs without the query is told so: a query that was added is not covered.
    let query = format!("{}&x", message.query.unwrap_or_default());
    let other = Message { query: Some(&query), ..*message };
    assert!(check(&other).is_err() || check(&other).is_ok_and(|other| !other.signature().covers_query()));
    if covers_query {
        refused(&other);
        // RFC 9421 section 2.2.7 makes no difference between an empty query and none.
        if message.query.is_some_and(|query| !query.is_empty()) {
            refused(&Message { query: None, ..*message });
        }
    }
    let Content::Bytes(content) = message.content else { panic!("not hashed") };
    let content = [content, b"x"].concat();
    refused(&Message { content: Content::Bytes(&content), ..*message });
    for name in [header::AUTHORIZATION, "signature-key".parse().expect("a name")] {
        let mut headers: HeaderMap = message.headers.clone();
        headers.insert(name, "altered-altered".parse().expect("a value"));
        if headers != *message.headers {
            refused(&Message { headers: &headers, ..*message });
        }
    }
}

fn sent(message: &Message<'_>, profile: Profile) {
    let with = SignWith::now(now()).nonce("AAECAwQFBgcICQoLDA0ODw");
    let Ok(fields) = block_on(sign(&SENDER.0, &profile, message, with)) else { return };
    let mut headers = message.headers.clone();
    fields.insert_into(&mut headers);
    let message = Message { headers: &headers, ..*message };
    let accept = Accept::at([message.authority]);
    let verified = read(&message, &accept, now()).and_then(|presented| presented.verify(&SENDER.1));
    let verified = verified.expect("what is signed here is accepted here");
    assert_eq!(verified.signature().profile(), profile);
    // The SDK's list only shows that there was a query.
    let shown = profile == Profile::LUMO_RFC || message.query.is_some();
    assert_eq!(verified.signature().covers_query(), shown);
}
