use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    jwks::test_key::{TestKey, b64},
    store::MemoryStore,
};

const NOW: u64 = 1_790_000_000;
const PUBLIC_URL: &str = "https://auth.example";
const PATH: &str = "/orgs/acme/api/v1/oauth/userinfo";
const TOKEN: &str = "an.access.token";

/// Somebody with a key, about to send a GET with [`TOKEN`] to [`PATH`].
struct Holder {
    key: TestKey,
    header: Value,
    claims: Value,
}

impl Holder {
    fn new(algorithm: JwsAlgorithm) -> Self {
        let key = TestKey::new(algorithm, "k");
        let header = json!({"typ": "dpop+jwt", "alg": algorithm.as_str(), "jwk": key.jwk()});
        let claims = json!({
            "htm": "GET", "htu": format!("{PUBLIC_URL}{PATH}"), "iat": NOW, "jti": "j",
            "ath": b64(sha256(TOKEN.as_bytes())),
        });
        Self { key, header, claims }
    }

    /// With another claim, or without one.
    fn claiming(mut self, name: &str, value: Value) -> Self {
        let claims = self.claims.as_object_mut().unwrap();
        if value.is_null() {
            claims.remove(name)
        } else {
            claims.insert(name.to_owned(), value)
        };
        self
    }

    /// With another member of the header, or without one.
    fn headed(mut self, name: &str, value: Value) -> Self {
        let header = self.header.as_object_mut().unwrap();
        if value.is_null() {
            header.remove(name)
        } else {
            header.insert(name.to_owned(), value)
        };
        self
    }

    fn proof(&self) -> String {
        self.key.raw(&self.header.to_string(), &self.claims.to_string())
    }

    fn thumbprint(&self) -> Thumbprint {
        PublicKey::from_jwk(&self.key.jwk()).unwrap().thumbprint()
    }

    /// What comes of it, if it is sent right away.
    fn read(&self) -> Result<Proof, InvalidProof> {
        sent(&[&self.proof()])
    }
}

fn es256() -> Holder {
    Holder::new(JwsAlgorithm::Es256)
}

/// What comes of a request with these proofs.
fn sent(proofs: &[&str]) -> Result<Proof, InvalidProof> {
    sent_to(PUBLIC_URL, PATH, proofs)
}

fn sent_to(public_url: &str, path: &str, proofs: &[&str]) -> Result<Proof, InvalidProof> {
    let mut headers = HeaderMap::new();
    for proof in proofs {
        headers.append("dpop", HeaderValue::from_str(proof).unwrap());
    }
    let request = DpopRequest { method: &Method::GET, path, headers: &headers };
    read(request, public_url, Some(TOKEN), Timestamp::from_unix_seconds(NOW))
}

macro_rules! refused {
    ($outcome:expr, $($error:tt)+) => {
        let outcome = $outcome;
        assert!(matches!(outcome, Err($($error)+)), "{outcome:?}");
    };
}

#[test]
fn every_algorithm_proves_its_key() {
    for algorithm in JwsAlgorithm::ALL {
        let holder = Holder::new(algorithm);
        let proof = holder.read().unwrap();
        assert!(proof.by(holder.thumbprint()).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn the_example_of_the_standard_is_read() {
    // RFC 9449 section 4.2, figure 2.
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOX\
        pDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.\
        eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxN\
        TYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let mut headers = HeaderMap::new();
    headers.insert("dpop", HeaderValue::from_str(proof).unwrap());
    let request = DpopRequest { method: &Method::POST, path: "/token", headers: &headers };
    let at =
        |seconds| read(request, "https://server.example.com", None, Timestamp::from_unix_seconds(seconds));
    let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".parse().unwrap();
    assert!(at(1_562_262_616).unwrap().by(thumbprint).is_ok());
    refused!(at(1_562_262_616 + 61), InvalidProof::Time);
}

#[test]
fn one_header_and_one_only() {
    refused!(sent(&[]), InvalidProof::Missing);
    let (one, other) = (es256().proof(), es256().claiming("jti", json!("k")).proof());
    refused!(sent(&[&one, &one]), InvalidProof::Header);
    refused!(sent(&[&one, &other]), InvalidProof::Header);
    refused!(sent(&[&one, "x"]), InvalidProof::Header);
    for bad in ["", "x", "..", &format!("{one}, {other}"), &format!(" {one}"), &format!("{one}.")] {
        refused!(sent(&[bad]), InvalidProof::Token(_));
    }
    let mut headers = HeaderMap::new();
    headers.insert("dpop", HeaderValue::from_bytes(b"\xff").unwrap());
    let request = DpopRequest { method: &Method::GET, path: PATH, headers: &headers };
    let now = Timestamp::from_unix_seconds(NOW);
    refused!(read(request, PUBLIC_URL, Some(TOKEN), now), InvalidProof::Header);
}

#[test]
fn a_long_proof_is_not_looked_at() {
    let padded = |bytes: usize| es256().claiming("x", json!("x".repeat(bytes)));
    assert!(padded(MAX_BYTES / 2).read().is_ok());
    refused!(padded(MAX_BYTES).read(), InvalidProof::Token(InvalidToken::TooLong));
}

#[test]
fn only_the_type_of_a_proof_is_accepted() {
    for typ in [json!("JWT"), json!("at+jwt"), json!("DPoP+jwt"), json!("dpop"), json!(7), Value::Null] {
        refused!(es256().headed("typ", typ).read(), InvalidProof::Token(InvalidToken::WrongType));
    }
    for (name, value) in [("crit", json!(["x"])), ("b64", json!(false)), ("zip", json!("DEF"))] {
        refused!(es256().headed(name, value).read(), InvalidProof::Token(InvalidToken::Header));
    }
}

#[test]
fn the_algorithm_is_asymmetric_and_the_key_s() {
    for alg in [json!("none"), json!("None"), json!("HS256"), json!("ES512"), json!(""), Value::Null] {
        refused!(es256().headed("alg", alg).read(), InvalidProof::Token(InvalidToken::Algorithm));
    }
    for alg in ["RS256", "PS256", "EdDSA", "ES384"] {
        refused!(es256().headed("alg", json!(alg)).read(), InvalidProof::Key);
    }
    let mut named = es256();
    named.header["jwk"]["alg"] = json!("ES384");
    refused!(named.read(), InvalidProof::Key);
}

#[test]
fn the_key_is_public_usable_and_the_signer_s() {
    let with = |name: &str, value: Value| {
        let mut holder = es256();
        holder.header["jwk"][name] = value;
        holder
    };
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        refused!(with(private, json!("AAAA")).read(), InvalidProof::Key);
    }
    refused!(with("use", json!("enc")).read(), InvalidProof::Key);
    refused!(with("x", json!("AAAA")).read(), InvalidProof::Key);
    for jwk in
        [Value::Null, json!("x"), json!({}), json!({"kty": "oct", "k": "AAAA"}), json!([es256().key.jwk()])]
    {
        refused!(es256().headed("jwk", jwk).read(), InvalidProof::Key);
    }
    // A proof of somebody else's key, which only its holder can make.
    let theirs = es256().key.jwk();
    refused!(es256().headed("jwk", theirs).read(), InvalidProof::Token(InvalidToken::Signature));
    let holder = es256();
    refused!(holder.read().unwrap().by(es256().thumbprint()), InvalidProof::OtherKey);
    assert!(holder.read().unwrap().by(holder.thumbprint()).is_ok());
}

#[test]
fn the_method_is_the_request_s() {
    for htm in [json!("POST"), json!("get"), json!("GET "), json!(""), json!(["GET"]), Value::Null] {
        refused!(es256().claiming("htm", htm).read(), InvalidProof::Method);
    }
}

#[test]
fn the_address_is_the_request_s() {
    let read = |htu: Value| es256().claiming("htu", htu).read();
    for same in [
        "https://auth.example/orgs/acme/api/v1/oauth/userinfo?x=1",
        "https://auth.example/orgs/acme/api/v1/oauth/userinfo#x",
        "https://auth.example:443/orgs/acme/api/v1/oauth/userinfo",
        "https://auth.example:/orgs/acme/api/v1/oauth/userinfo",
        "HTTPS://AUTH.Example/orgs/acme/api/v1/oauth/userinfo",
    ] {
        assert!(read(json!(same)).is_ok(), "{same}");
    }
    for other in [
        "https://auth.example/orgs/acme/api/v1/oauth/userinfo/",
        "https://auth.example/orgs/acme/api/v1/oauth/Userinfo",
        "https://auth.example/orgs/acme/api/v1/oauth/user%69nfo",
        "https://auth.example/orgs/acme/api/v1/oauth/./userinfo",
        "https://auth.example//orgs/acme/api/v1/oauth/userinfo",
        "https://auth.example/t/acme/api/v1/oauth/userinfo",
        "https://auth.example/orgs/globex/api/v1/oauth/userinfo",
        "https://auth.example/orgs/acme/api/v1/agents/me",
        "https://auth.example",
        "http://auth.example/orgs/acme/api/v1/oauth/userinfo",
        "http://auth.example:443/orgs/acme/api/v1/oauth/userinfo",
        "https://auth.example:80/orgs/acme/api/v1/oauth/userinfo",
        "https://auth.example:8443/orgs/acme/api/v1/oauth/userinfo",
        "https://evil.example/orgs/acme/api/v1/oauth/userinfo",
        "https://x@auth.example/orgs/acme/api/v1/oauth/userinfo",
        "https://auth.example./orgs/acme/api/v1/oauth/userinfo",
        "/orgs/acme/api/v1/oauth/userinfo",
        "auth.example/orgs/acme/api/v1/oauth/userinfo",
        " https://auth.example/orgs/acme/api/v1/oauth/userinfo",
        "",
    ] {
        refused!(read(json!(other)), InvalidProof::Address);
    }
    for none in [Value::Null, json!(["https://auth.example/orgs/acme/api/v1/oauth/userinfo"]), json!(1)] {
        refused!(read(none), InvalidProof::Address);
    }
}

#[test]
fn what_stands_in_front_of_the_path_belongs_to_the_address() {
    let to = |htu: &str| es256().claiming("htu", json!(htu)).proof();
    for (public_url, path, htu) in [
        ("https://example.com/auth", "/orgs/a", "https://example.com/auth/orgs/a"),
        ("http://127.0.0.1:8080", "/orgs/a", "http://127.0.0.1:8080/orgs/a"),
        ("http://127.0.0.1:80", "/orgs/a", "http://127.0.0.1/orgs/a"),
        ("https://Example.com:443", "/orgs/a", "https://example.com/orgs/a"),
        ("https://[::1]:8443", "/", "https://[::1]:8443"),
        ("https://[::443]", "/", "https://[::443]"),
    ] {
        assert!(sent_to(public_url, path, &[&to(htu)]).is_ok(), "{htu}");
    }
    let bare = to("https://example.com/orgs/a");
    refused!(sent_to("https://example.com/auth", "/orgs/a", &[&bare]), InvalidProof::Address);
    let strange = to("ftp://example.com/orgs/a");
    refused!(sent_to("ftp://example.com", "/orgs/a", &[&strange]), InvalidProof::Address);
}

#[test]
fn the_token_is_the_request_s() {
    let digest = b64(sha256(TOKEN.as_bytes()));
    let padded = format!("{digest}=");
    for ath in
        [json!(b64(sha256(b"another"))), json!(padded), json!(TOKEN), json!(""), json!([digest]), Value::Null]
    {
        refused!(es256().claiming("ath", ath).read(), InvalidProof::OtherToken);
    }
}

#[test]
fn its_time_is_a_minute_either_way() {
    for iat in [NOW - 60, NOW, NOW + 60] {
        assert!(es256().claiming("iat", json!(iat)).read().is_ok(), "{iat}");
    }
    let no_time = [
        json!(NOW - 61),
        json!(NOW + 61),
        json!(0),
        json!(u64::MAX),
        json!(-1),
        json!(1.79e9),
        json!("now"),
        Value::Null,
    ];
    for iat in no_time {
        refused!(es256().claiming("iat", iat).read(), InvalidProof::Time);
    }
    assert!(es256().claiming("exp", json!(NOW + 1)).claiming("nbf", json!(NOW + 60)).read().is_ok());
    for (name, value) in
        [("exp", json!(NOW)), ("exp", json!("later")), ("nbf", json!(NOW + 61)), ("nbf", json!(-1))]
    {
        refused!(es256().claiming(name, value).read(), InvalidProof::Time);
    }
}

#[test]
fn it_has_a_name_of_its_own() {
    assert!(es256().claiming("jti", json!("j".repeat(256))).read().is_ok());
    for jti in [json!(""), json!("j".repeat(257)), json!(7), Value::Null] {
        refused!(es256().claiming("jti", jti).read(), InvalidProof::Jti);
    }
}

#[test]
fn every_bit_counts() {
    let proof = Holder::new(JwsAlgorithm::EdDsa).proof();
    for at in 0..proof.len() {
        let mut bytes = proof.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        if HeaderValue::from_str(&changed).is_ok() {
            assert!(sent(&[&changed]).is_err(), "byte {at}");
        }
    }
}

#[test]
fn duplicate_members_are_refused_even_when_signed() {
    let holder = es256();
    let (header, claims) = (holder.header.to_string(), holder.claims.to_string());
    let twice = |text: &str, more: &str| text.replacen('{', more, 1);
    for (header, claims) in [
        (twice(&header, r#"{"typ":"dpop+jwt","#), claims.clone()),
        (header.clone(), twice(&claims, r#"{"jti":"k","#)),
    ] {
        refused!(sent(&[&holder.key.raw(&header, &claims)]), InvalidProof::Token(InvalidToken::Malformed));
    }
}

#[tokio::test]
async fn it_is_used_once() {
    let (store, org) = (MemoryStore::new(), OrgId::parse("acme").unwrap());
    // As soon as its clock lets anybody present it: the store of this test has no past.
    let first = Timestamp::from_unix_seconds(NOW - WINDOW);
    let last = Timestamp::from_unix_seconds(NOW + WINDOW + 1).minus(Duration::from_millis(1));
    let (holder, other) = (es256(), es256());
    let used = async |holder: &Holder, org: &OrgId, now| holder.read().unwrap().once(&store, org, now).await;
    assert_eq!(used(&holder, &org, first).await.unwrap(), holder.thumbprint());
    for now in [first, last] {
        refused!(used(&holder, &org, now).await, InvalidProof::Replayed);
    }
    // Nobody uses up the names of others.
    assert!(used(&other, &org, first).await.is_ok());
    assert!(used(&holder, &OrgId::parse("globex").unwrap(), first).await.is_ok());
    let over = Timestamp::from_unix_seconds(NOW + WINDOW + 1);
    refused!(used(&es256(), &org, over).await, InvalidProof::TooOld);
    // This store cannot know whether it was used in the minute before it began.
    refused!(used(&es256(), &org, Timestamp::from_unix_seconds(NOW)).await, InvalidProof::TooOld);
}

#[tokio::test]
async fn the_twin_of_its_signature_is_no_second_proof() {
    // (r, s) and (r, n - s) both verify: the text differs, the proof does not.
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (store, org) = (MemoryStore::new(), OrgId::parse("acme").unwrap());
    let now = Timestamp::from_unix_seconds(NOW - WINDOW);
    let one = es256().proof();
    let (text, signature) = one.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = false;
    for (s, n) in signature[32..].iter_mut().zip(N).rev() {
        let (less, first) = n.overflowing_sub(*s);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*s, borrow) = (less, first || second);
    }
    let two = format!("{text}.{}", b64(signature));
    assert_ne!(one, two);
    assert!(sent(&[&one]).unwrap().once(&store, &org, now).await.is_ok());
    refused!(sent(&[&two]).unwrap().once(&store, &org, now).await, InvalidProof::Replayed);
}
