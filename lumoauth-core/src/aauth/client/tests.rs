use async_trait::async_trait;
use http::{HeaderMap, Request};

use super::*;
use crate::{aauth::UnverifiedAgentToken, capability::Scope, httpsig::Accept, id::KeyId, secret::Secret};

const NOW: u64 = 1_790_000_000;
const AGENT: &str = "https://agent.example";
const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
const RESOURCE: &str = "https://files.example";

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(NOW)
}

fn id(text: &str) -> AAuthIdentifier {
    AAuthIdentifier::parse(text).unwrap()
}

fn key(algorithm: Algorithm) -> LocalSigner {
    LocalSigner::generate(KeyId::parse("key-1").unwrap(), algorithm).unwrap()
}

fn agent() -> AAuthAgent {
    AAuthAgent::local(id(AGENT), key(Algorithm::EdDsa), id(ISSUER)).unwrap()
}

/// A token of this type and these claims, signed by whomever.
async fn token(typ: &str, claims: &Value) -> String {
    token::sign(&key(Algorithm::EdDsa), typ, claims).await.unwrap()
}

fn challenge(text: &str) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    for line in text.split('\n') {
        headers.append("agent-auth", HeaderValue::from_str(line).unwrap());
    }
    Challenge::read(&headers)
}

#[tokio::test]
async fn agent_tokens_are_what_authorization_servers_accept() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let agent = AAuthAgent::local(id(AGENT), key(algorithm), id(ISSUER)).unwrap();
        let header = agent.agent_token(now()).await.unwrap();
        let text = header.to_str().unwrap().strip_prefix("agent_token=").unwrap();
        let keys = PublicKeys::of(&serde_json::from_value(agent.jwks()).unwrap());
        let token = UnverifiedAgentToken::read(text).unwrap().verify(&keys, &[], ISSUER, now()).unwrap();
        assert_eq!((token.agent, token.delegate), (id(AGENT), None));
        assert_eq!(token.confirmation.jkt, agent.confirmation.jkt);
        assert!(header.is_sensitive());
        let later = now().plus(TOKEN_LIFE - IN_TIME - std::time::Duration::from_secs(1));
        assert_eq!(agent.agent_token(later).await.unwrap(), header);
        let at_the_end = now().plus(TOKEN_LIFE - IN_TIME);
        assert_ne!(agent.agent_token(at_the_end).await.unwrap(), header);
        let before = now().minus(SKEW * 2);
        assert_ne!(agent.agent_token(before).await.unwrap(), header, "from the future");
    }
}

#[tokio::test]
async fn a_signer_with_another_key_is_found_out() {
    let (one, other) = (key(Algorithm::EdDsa), key(Algorithm::EdDsa));
    let agent = AAuthAgent::new(id(AGENT), Arc::new(one), other.public_key().unwrap(), id(ISSUER)).unwrap();
    assert!(matches!(agent.agent_token(now()).await, Err(ClientError::Key)));
    let rsa = key(Algorithm::Rs256);
    assert!(matches!(AAuthAgent::local(id(AGENT), rsa, id(ISSUER)), Err(ClientError::Key)));
    let (ed, es) = (key(Algorithm::EdDsa), key(Algorithm::Es256).public_key().unwrap());
    assert!(matches!(AAuthAgent::new(id(AGENT), Arc::new(ed), es, id(ISSUER)), Err(ClientError::Key)));
}

#[derive(Debug)]
struct Broken(LocalSigner);

#[async_trait]
impl Signer for Broken {
    fn key_id(&self) -> &KeyId {
        self.0.key_id()
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Crypto("the module is gone"))
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_used_ends_the_call() {
    let key = key(Algorithm::EdDsa);
    let public = key.public_key().unwrap();
    let agent = AAuthAgent::new(id(AGENT), Arc::new(Broken(key)), public, id(ISSUER)).unwrap();
    assert!(matches!(agent.agent_token(now()).await, Err(ClientError::Signer(_))));
}

#[tokio::test]
async fn requests_are_signed_under_either_profile_with_and_without_content() {
    for profile in [Profile::LUMO_RFC, Profile::LUMO_SDK] {
        let agent = agent().with_profile(profile);
        for content in [&b""[..], b"{}"] {
            let request = Request::post("https://files.example/a%20b?c=d").body(()).unwrap();
            let (mut head, ()) = request.into_parts();
            agent.sign(&mut head, content, None, now()).await.unwrap();
            let message = Message::of(&head, "https", Content::Bytes(content)).unwrap();
            let read = httpsig::read(&message, &Accept::at(["files.example"]), now()).unwrap();
            assert_eq!(read.signature().profile(), profile);
            assert!(read.signature().covers_query());
            let _ = read.verify(&agent.confirmation.key).unwrap();
            assert!(head.headers.contains_key("agent-auth") && !head.headers.contains_key("authorization"));
        }
    }
    let (mut head, ()) = Request::get("/relative").body(()).unwrap().into_parts();
    let unsigned = agent().sign(&mut head, b"", None, now()).await;
    assert!(matches!(unsigned, Err(ClientError::Target)));
}

#[test]
fn challenges_are_read_as_resources_write_them() {
    let full = "httpsig; auth-token; resource_token=\"a.b.c\"; auth_server=\"https://as.example\"";
    let several = format!("identity, other;auth-token, {full}, httpsig");
    let with_list = format!("httpsig; algs=(\"ed25519\" \"a)b\"); {}", full.split_once("; ").unwrap().1);
    for text in [full, &several, &with_list, &format!("other\n{full}")] {
        let read = challenge(text).unwrap_or_else(|| panic!("{text}"));
        assert!(read.auth_token, "{text}");
        assert_eq!(read.resource_token.unwrap().expose(), "a.b.c");
        assert_eq!(read.auth_server.as_deref(), Some("https://as.example"));
    }
    let plain = challenge("httpsig;identity=?1;new=\"thing\"").unwrap();
    assert!(!plain.auth_token && plain.resource_token.is_none());
    assert!(!challenge("httpsig; auth-token=\"yes\"").unwrap().auth_token);
    assert!(challenge("httpsig; auth-token; resource_token=5").unwrap().resource_token.is_none());
    for bad in
        ["", "\"httpsig\"", "(httpsig; auth-token)", "bearer", "httpsig; auth-token; (((", "httpsig;", "x=1"]
    {
        assert!(challenge(bad).is_none(), "{bad}");
    }
    assert!(challenge(&format!("httpsig; auth-token; x=\"{}\"", "a".repeat(21_000))).is_none());
    assert!(Challenge::read(&HeaderMap::new()).is_none());
}

fn resource_claims(agent: &AAuthAgent) -> Value {
    json!({ "iss": RESOURCE, "aud": ISSUER, "agent": AGENT, "agent_jkt": agent.confirmation.jkt,
        "scope": "read:files", "iat": NOW, "exp": NOW + 300, "jti": "j" })
}

async fn wanted(agent: &AAuthAgent, typ: &str, claims: &Value) -> Result<Wanted, ClientError> {
    let challenge = Challenge {
        auth_token: true,
        resource_token: Some(Secret::from(token(typ, claims).await)),
        auth_server: None,
    };
    let called = origin(&Uri::from_static("https://files.example:443/x")).unwrap();
    Ok(agent.wanted(&challenge, &called, now())?.expect("there is a token"))
}

#[tokio::test]
async fn only_what_the_called_resource_asks_of_this_agent_is_sent_on() {
    let agent = agent();
    let claims = resource_claims(&agent);
    let read = wanted(&agent, "resource+jwt", &claims).await.unwrap();
    assert_eq!((read.resource.as_str(), read.scope.to_string().as_str()), (RESOURCE, "read:files"));
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    assert!(wanted(&agent, "resource+jwt", &with("aud", json!([ISSUER]))).await.is_ok());
    assert!(wanted(&agent, "agent+jwt", &claims).await.is_err());
    let other_key = key(Algorithm::EdDsa).public_key().unwrap().thumbprint();
    for (name, value) in [
        ("iss", json!("https://mail.example")),
        ("iss", json!("http://files.example")),
        ("iss", json!("https://files.example:8443")),
        ("iss", json!("files")),
        ("aud", json!("https://evil.example")),
        ("aud", json!([ISSUER, "https://evil.example"])),
        ("agent", json!("https://other.example")),
        ("agent_jkt", json!(other_key)),
        ("agent_jkt", json!(null)),
        ("exp", json!(NOW)),
        ("exp", json!("soon")),
        ("scope", json!(["read"])),
    ] {
        let refused = wanted(&agent, "resource+jwt", &with(name, value.clone())).await;
        assert!(matches!(refused, Err(ClientError::ResourceToken(_))), "{name} {value}");
    }
}

#[tokio::test]
async fn a_resource_may_be_reached_elsewhere_if_the_agent_is_told_so() {
    let agent = agent().with_resource_at("https://files.example/", id("https://api.example/files")).unwrap();
    let mut claims = resource_claims(&agent);
    assert!(wanted(&agent, "resource+jwt", &claims).await.is_err(), "not under its own name any more");
    claims["iss"] = json!("https://api.example/files");
    assert!(wanted(&agent, "resource+jwt", &claims).await.is_ok());
}

#[tokio::test]
async fn another_authorization_server_is_not_believed() {
    let agent = agent();
    let called = origin(&Uri::from_static("https://files.example")).unwrap();
    let named = |server: &str| Challenge {
        auth_token: true,
        resource_token: None,
        auth_server: Some(server.to_owned()),
    };
    assert!(matches!(agent.wanted(&named(ISSUER), &called, now()), Ok(None)));
    for other in ["https://evil.example", "", "https://auth.example/orgs/evil/api/v1"] {
        let refused = agent.wanted(&named(other), &called, now());
        assert!(matches!(refused, Err(ClientError::OtherAuthServer)), "{other}");
    }
}

fn auth_claims(agent: &AAuthAgent) -> Value {
    json!({ "iss": ISSUER, "aud": RESOURCE, "agent": AGENT, "scope": "read:files",
        "cnf": agent.confirmation.to_claim(), "iat": NOW, "exp": NOW + 3600, "jti": "j" })
}

fn answer(agent: &AAuthAgent, status: u16, body: &Value) -> Result<TokenAnswer, ClientError> {
    let (status, scope) = (StatusCode::from_u16(status).unwrap(), "read:files".parse::<Scope>().unwrap());
    agent.read_answer(status, body.to_string().as_bytes(), (&id(RESOURCE), &scope), now())
}

#[tokio::test]
async fn auth_tokens_are_used_if_they_are_for_this_key_and_resource() {
    let agent = agent();
    let claims = auth_claims(&agent);
    let text = token("auth+jwt", &claims).await;
    let body = json!({ "auth_token": text, "access_token": text, "refresh_token": "r", "expires_in": 1 });
    let Ok(TokenAnswer::Token(good)) = answer(&agent, 200, &body) else { panic!("a token") };
    assert_eq!(good.expires_at, Timestamp::from_unix_seconds(NOW + 3600));
    assert!(good.is_good(Timestamp::from_unix_seconds(NOW + 3539)));
    assert!(!good.is_good(Timestamp::from_unix_seconds(NOW + 3540)), "a minute is left");
    assert!(good.covers(&"read:files".parse().unwrap()) && !good.covers(&"write:files".parse().unwrap()));
    assert_eq!(good.refresh_token.unwrap().expose(), "r");
    let only = token(
        "auth+jwt",
        &json!({ "cnf": { "jkt": agent.confirmation.jkt }, "iss": ISSUER,
        "aud": RESOURCE, "exp": NOW + 10 }),
    )
    .await;
    let Ok(TokenAnswer::Token(short)) = answer(&agent, 200, &json!({ "access_token": only })) else {
        panic!("a token")
    };
    assert!(short.is_good(Timestamp::from_unix_seconds(NOW + 4)));
    assert!(!short.is_good(Timestamp::from_unix_seconds(NOW + 5)));

    let other = Confirmation::of(key(Algorithm::EdDsa).public_key().unwrap()).to_claim();
    for (name, value, why) in [
        ("iss", json!("https://evil.example"), InvalidToken::WrongIssuer),
        ("aud", json!("https://mail.example"), InvalidToken::WrongAudience),
        ("aud", json!([RESOURCE]), InvalidToken::WrongAudience),
        ("agent", json!("https://other.example"), InvalidToken::WrongAudience),
        ("cnf", other.clone(), InvalidToken::Confirmation),
        ("cnf", json!({ "jkt": other["jkt"] }), InvalidToken::Confirmation),
        ("cnf", json!({ "jwk": other["jwk"], "jkt": agent.confirmation.jkt }), InvalidToken::Confirmation),
        ("cnf", json!(null), InvalidToken::Confirmation),
        ("exp", json!(NOW), InvalidToken::Expired),
        ("exp", json!("x"), InvalidToken::Malformed),
    ] {
        let mut bad = claims.clone();
        bad[name] = value.clone();
        let body = json!({ "auth_token": token("auth+jwt", &bad).await });
        let refused = answer(&agent, 200, &body);
        assert!(matches!(refused, Err(ClientError::AuthToken(found)) if found == why), "{name} {value}");
    }
    for typ in ["at+jwt", "agent+jwt"] {
        let body = json!({ "auth_token": token(typ, &claims).await });
        let refused = answer(&agent, 200, &body);
        assert!(matches!(refused, Err(ClientError::AuthToken(InvalidToken::WrongType))));
    }
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let agent = agent();
    let text = token("auth+jwt", &auth_claims(&agent)).await;
    for (status, body) in [
        (200, json!({})),
        (200, json!([])),
        (200, json!("text")),
        (200, json!({ "auth_token": text, "access_token": "another" })),
        (200, json!({ "auth_token": 5 })),
        (302, json!({ "auth_token": text })),
        (500, json!({ "auth_token": text })),
        (401, json!({ "request_token": "r", "auth_url": "" })),
        (401, json!({ "auth_url": "https://auth.example/ask" })),
        (401, json!({ "request_token": "r", "auth_url": "http://evil.example/ask" })),
        (401, json!({ "request_token": "r", "auth_url": "javascript:alert(1)" })),
        (403, json!({ "request_token": "r", "auth_url": "https://auth.example/ask" })),
    ] {
        assert!(matches!(answer(&agent, status, &body), Err(ClientError::Answer(_))), "{status} {body}");
    }
    let twice = format!("{{\"auth_token\":\"{text}\",\"auth_token\":\"x\"}}");
    let (resource, scope) = (id(RESOURCE), Scope::default());
    for raw in [twice.as_bytes(), b"", b"<html>", b"\xff\xfe"] {
        let refused = agent.read_answer(StatusCode::OK, raw, (&resource, &scope), now());
        assert!(matches!(refused, Err(ClientError::Answer(_))));
    }
}

#[test]
fn a_question_to_a_person_and_a_refusal_are_told_apart() {
    let agent = agent();
    for (status, name) in [(401, "auth_url"), (401, "authorization_uri"), (200, "authorization_uri")] {
        let body = json!({ "error": "authorization_required", "request_token": "areq_1", "expires_in": 60,
            name: "https://auth.example/ask?request_token=areq_1" });
        let Ok(TokenAnswer::Consent(needed)) = answer(&agent, status, &body) else { panic!("{name}") };
        assert_eq!(needed.request_token.expose(), "areq_1");
        assert_eq!(needed.expires_at, Timestamp::from_unix_seconds(NOW + 60));
        assert!(!format!("{needed:?}").contains("areq_1"), "secrets do not print");
    }
    let body = json!({ "error": "invalid_scope", "error_description": "no\n`x`" });
    let error = answer(&agent, 400, &body).unwrap_err();
    assert_eq!(error.refusal(), Some("invalid_scope"));
    assert!(!error.to_string().contains('\n'));
    let body = json!({ "error": "authentication_required", "details": { "reason": "invalid_signature" } });
    assert!(answer(&agent, 401, &body).unwrap_err().to_string().contains("invalid_signature"));
}
