//! Compact JWS (RFC 7515) and JWT checks (RFC 7519, RFC 8725) for our own tokens.
//!
//! One small module of our own instead of a general library: our tokens have one form, and everything else is
//! refused before any cryptography.
//!
//! 1. At most 16 KiB, exactly three parts, canonical unpadded base64url.
//! 2. The header has exactly `alg`, `kid` and `typ`; anything more (`crit`, `b64`, `jwk`, `jku`, `x5c` ..) is
//!    refused.
//! 3. The key is found by `kid` among our own; its algorithm, not the header's, decides how to check.
//! 4. Header and claims are strict JSON: no duplicate members, at most 32 levels.
//! 5. `iss` is exactly ours, `exp` has not come, `nbf` and `iat` are at most 30 seconds ahead.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::AccessClaims;
use crate::{
    clock::Timestamp,
    json,
    keys::{KeyError, Signer, VerifyingKey},
};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How far ahead of ours the clock of the replica that issued a token may be, in seconds.
const CLOCK_SKEW: u64 = 30;

/// Why a token is not accepted. Logged; clients only learn that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("too long")]
    TooLong,
    /// Not three parts of canonical base64url with strict JSON inside.
    #[error("malformed")]
    Malformed,
    /// The header has members we never write.
    #[error("unexpected header")]
    Header,
    /// An algorithm that is not accepted.
    #[error("algorithm not accepted")]
    Algorithm,
    /// The wrong kind of token.
    #[error("wrong type")]
    WrongType,
    /// No key of ours has this id and algorithm.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("bad signature")]
    Signature,
    /// Bound to a key, and presented without proof that its holder presents it.
    #[error("bound to a key, and presented as a bearer token")]
    Bound,
    /// Issued by or for somebody else.
    #[error("wrong issuer")]
    WrongIssuer,
    /// For somebody else.
    #[error("wrong audience")]
    WrongAudience,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not yet valid")]
    NotYetValid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// The token that `signer` makes of `claims`. `kid` and `alg` come from the key that signs.
pub(crate) async fn sign(
    signer: &dyn Signer,
    typ: &str,
    claims: &impl Serialize,
) -> Result<String, KeyError> {
    let mut text = Vec::with_capacity(768);
    serde_json::to_writer(&mut text, claims).map_err(|_| KeyError::Crypto("claims"))?;
    let claims = text;
    let mut header = String::with_capacity(96);
    // None of the three values needs JSON escaping: two are our constants, a key id is of `A-Z a-z 0-9 _ - .`.
    write!(
        header,
        r#"{{"alg":"{}","kid":"{}","typ":"{typ}"}}"#,
        signer.algorithm().as_str(),
        signer.key_id()
    )
    .map_err(|_| KeyError::Crypto("header"))?;
    let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 96);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = signer.sign(token.as_bytes()).await?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// The claims of `token`, if one of `keys` signed it as an access token of `issuer` that is valid at `now`.
///
/// Whether it is still *alive* (not revoked, its principals active) is another question, which needs the
/// stores. So is whether its holder presents it, if it is bound to a key ([`AccessClaims::cnf`]).
///
/// # Errors
/// [`InvalidToken`] says which check failed.
pub fn verify(
    token: &str,
    keys: &[VerifyingKey],
    issuer: &str,
    now: Timestamp,
) -> Result<AccessClaims, InvalidToken> {
    verify_by(token, keys, issuer, now).map(|(claims, _)| claims)
}

/// The same, with the key that signed it.
pub(super) fn verify_by<'k>(
    token: &str,
    keys: &'k [VerifyingKey],
    issuer: &str,
    now: Timestamp,
) -> Result<(AccessClaims, &'k VerifyingKey), InvalidToken> {
    let (signed, header, payload, signature) = split(token)?;
    let header: serde_json::Value = json::parse(&header).map_err(|_| InvalidToken::Malformed)?;
    let header = Header::deserialize(header).map_err(|_| InvalidToken::Header)?;
    if header.typ != "at+jwt" {
        return Err(InvalidToken::WrongType);
    }
    let key = keys
        .iter()
        .find(|key| key.id().as_str() == header.kid && key.algorithm().as_str() == header.alg)
        .ok_or(InvalidToken::UnknownKey)?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(InvalidToken::Signature);
    }
    let claims: AccessClaims = json::parse(&payload).map_err(|_| InvalidToken::Malformed)?;
    if claims.iss != issuer {
        return Err(InvalidToken::WrongIssuer);
    }
    check_time(&claims, now)?;
    Ok((claims, key))
}

/// Whether the time of the claims has come and is not over.
pub(super) fn check_time(claims: &AccessClaims, now: Timestamp) -> Result<(), InvalidToken> {
    let now = now.unix_seconds();
    if claims.exp <= now {
        return Err(InvalidToken::Expired);
    }
    if claims.nbf.max(claims.iat) > now + CLOCK_SKEW {
        return Err(InvalidToken::NotYetValid);
    }
    Ok(())
}

/// The `iss` that `token` claims, before anything is verified: it only says whose keys to check it with. So the text is not
/// read strictly here; whoever verifies it does.
pub(crate) fn unverified_issuer(token: &str) -> Result<String, InvalidToken> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(InvalidToken::TooLong);
    }
    let payload = token.split('.').nth(1).ok_or(InvalidToken::Malformed)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| InvalidToken::Malformed)?;
    serde_json::from_slice::<Issuer>(&payload).map(|claims| claims.iss).map_err(|_| InvalidToken::Malformed)
}

/// Signed text, and the three decoded parts.
#[expect(clippy::type_complexity, reason = "the parts of a compact JWS, used right here")]
pub(super) fn split(token: &str) -> Result<(&str, Vec<u8>, Vec<u8>, Vec<u8>), InvalidToken> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(InvalidToken::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Malformed)?;
    if payload.contains('.') {
        return Err(InvalidToken::Malformed);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken::Malformed);
    Ok((signed, decode(header)?, decode(payload)?, decode(signature)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        id::OrgId,
        keys::{Algorithm, KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
        store::MemoryStore,
    };

    const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
    const NOW: u64 = 1_790_000_000;

    struct Bench {
        keys: Arc<[VerifyingKey]>,
        signer: Arc<dyn Signer>,
    }

    async fn bench(algorithm: Algorithm) -> Bench {
        let store = Arc::new(MemoryStore::new());
        let config = KeyRingConfig::default().with_algorithm(algorithm);
        let ring = KeyRing::new(store, MasterKey::generate(), config);
        let org = OrgId::parse("acme").unwrap();
        let now = Timestamp::from_unix_seconds(NOW);
        Bench {
            signer: ring.signer(&org, KeyPurpose::AccessToken, now).await.unwrap(),
            keys: ring.verifying_keys(&org, KeyPurpose::AccessToken, now).await.unwrap(),
        }
    }

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "sub": "agent:a", "aud": "cli_a", "client_id": "cli_a", "identity_type": "agent",
            "agent_id": "agt_3f6b1c1e0c1d4d5e9a550a6e5b9d1f10", "scope": "read:a", "organization": "acme",
            "tenant": "acme", "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "jti": "j", "lin": {"e": [0, 0]},
        })
    }

    impl Bench {
        async fn token(&self, claims: &Value) -> String {
            sign(&*self.signer, "at+jwt", claims).await.unwrap()
        }

        /// A token with this header text and payload text, properly signed.
        async fn raw(&self, header: &str, payload: &str) -> String {
            let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            let signature = self.signer.sign(text.as_bytes()).await.unwrap();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        }

        fn header(&self) -> Value {
            json!({"alg": self.signer.algorithm().as_str(), "kid": self.signer.key_id(), "typ": "at+jwt"})
        }

        fn check_at(&self, token: &str, now: u64) -> Result<AccessClaims, InvalidToken> {
            verify(token, &self.keys, ISSUER, Timestamp::from_unix_seconds(now))
        }

        fn check(&self, token: &str) -> Result<AccessClaims, InvalidToken> {
            self.check_at(token, NOW)
        }
    }

    #[tokio::test]
    async fn every_algorithm_makes_tokens_that_an_independent_library_accepts() {
        use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
        for algorithm in [Algorithm::Es256, Algorithm::Rs256, Algorithm::EdDsa] {
            let bench = bench(algorithm).await;
            let token = bench.token(&claims()).await;
            assert!(bench.check(&token).is_ok(), "{algorithm:?}");

            let header = decode_header(&token).unwrap();
            let jwk: Jwk = serde_json::from_value(json!(bench.keys[0].jwk())).unwrap();
            let mut validation = Validation::new(header.alg);
            validation.validate_exp = false;
            validation.set_issuer(&[ISSUER]);
            validation.set_audience(&["cli_a"]);
            let key = DecodingKey::from_jwk(&jwk).unwrap();
            let read = decode::<Value>(&token, &key, &validation).unwrap();
            assert_eq!(read.claims["sub"], "agent:a");
            assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        }
    }

    #[tokio::test]
    async fn a_token_holds_until_its_last_second_and_not_one_longer() {
        let bench = bench(Algorithm::Es256).await;
        let token = bench.token(&claims()).await;
        assert!(bench.check_at(&token, NOW + 3599).is_ok());
        assert_eq!(bench.check_at(&token, NOW + 3600).unwrap_err(), InvalidToken::Expired);
        assert!(bench.check_at(&token, NOW - 30).is_ok());
        assert_eq!(bench.check_at(&token, NOW - 31).unwrap_err(), InvalidToken::NotYetValid);
    }

    #[tokio::test]
    async fn claims_of_the_wrong_kind_are_refused() {
        let bench = bench(Algorithm::Es256).await;
        let with = async |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            bench.check(&bench.token(&claims).await).map(|_| ())
        };
        assert_eq!(with("iss", json!("https://evil.example")).await, Err(InvalidToken::WrongIssuer));
        assert_eq!(with("iss", json!(format!("{ISSUER}/"))).await, Err(InvalidToken::WrongIssuer));
        for bad in [json!("1795000000"), json!(1e18), json!(-1), json!(null), json!([NOW + 3600])] {
            assert_eq!(with("exp", bad).await, Err(InvalidToken::Malformed));
        }
        for name in ["exp", "nbf", "iat", "jti", "aud", "client_id", "scope", "lin"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(bench.check(&bench.token(&claims).await).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn headers_that_we_never_write_are_refused() {
        let bench = bench(Algorithm::Es256).await;
        let payload = claims().to_string();
        let with = async |name: &str, value: Value| {
            let mut header = bench.header();
            header[name] = value;
            bench.check(&bench.raw(&header.to_string(), &payload).await).map(|_| ())
        };
        assert_eq!(with("typ", json!("at+jwt")).await, Ok(()));
        for (name, value) in [
            ("crit", json!(["exp"])),
            ("b64", json!(false)),
            ("jwk", json!({"kty": "EC"})),
            ("jku", json!("https://evil.example/jwks")),
            ("x5u", json!("https://evil.example/x5u")),
            ("x5c", json!(["MII"])),
            ("zip", json!("DEF")),
            ("kid", json!(7)),
        ] {
            assert_eq!(with(name, value).await, Err(InvalidToken::Header), "{name}");
        }
        for typ in ["JWT", "AT+JWT", "application/at+jwt", "auth+jwt", "agent+jwt", ""] {
            assert_eq!(with("typ", json!(typ)).await, Err(InvalidToken::WrongType), "{typ}");
        }
        for alg in ["none", "None", "nOnE", "", "HS256", "ES384", "RS256", "EdDSA", "es256"] {
            assert_eq!(with("alg", json!(alg)).await, Err(InvalidToken::UnknownKey), "{alg}");
        }
        for kid in ["", "../../etc/passwd", "' OR 1=1 --", "0"] {
            assert_eq!(with("kid", json!(kid)).await, Err(InvalidToken::UnknownKey), "{kid}");
        }
    }

    #[tokio::test]
    async fn duplicate_members_and_deep_nesting_are_refused_even_when_signed() {
        let bench = bench(Algorithm::Es256).await;
        let header = bench.header().to_string();
        let twice = header.replacen('{', r#"{"typ":"JWT","#, 1);
        assert_eq!(
            bench.check(&bench.raw(&twice, &claims().to_string()).await),
            Err(InvalidToken::Malformed)
        );
        let twice = claims().to_string().replacen('{', r#"{"sub":"agent:b","#, 1);
        assert_eq!(bench.check(&bench.raw(&header, &twice).await), Err(InvalidToken::Malformed));
        let deep =
            claims().to_string().replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(64), "]".repeat(64)), 1);
        assert_eq!(bench.check(&bench.raw(&header, &deep).await), Err(InvalidToken::Malformed));
    }

    #[tokio::test]
    async fn only_the_one_compact_form_is_read() {
        let bench = bench(Algorithm::Es256).await;
        let token = bench.token(&claims()).await;
        let parts: Vec<_> = token.split('.').collect();
        for bad in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            parts[..2].join("."),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{token}.x"),
            format!("{token}.x.y"),
            format!("{token}="),
            format!(" {token}"),
            format!("{token}\n"),
            token.replace('-', "+").replace('_', "/") + "+",
            token[..token.len() - 1].to_owned(),
        ] {
            assert!(bench.check(&bad).is_err(), "{bad}");
        }
        let long = format!("{}.{}.{}", parts[0], "A".repeat(MAX_TOKEN_BYTES), parts[2]);
        assert_eq!(bench.check(&long).unwrap_err(), InvalidToken::TooLong);
        // 86 characters hold 516 bits: the last character of a 64-byte signature has four spare bits, which must be 0.
        let last = token.pop_char();
        for other in ('A'..='Z').filter(|c| *c != last.1) {
            assert!(bench.check(&format!("{}{other}", last.0)).is_err());
        }
    }

    trait PopChar {
        fn pop_char(&self) -> (String, char);
    }

    impl PopChar for String {
        fn pop_char(&self) -> (String, char) {
            let mut rest = self.clone();
            let last = rest.pop().unwrap();
            (rest, last)
        }
    }

    #[tokio::test]
    async fn no_flipped_bit_anywhere_is_accepted() {
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
            let bench = bench(algorithm).await;
            let token = bench.token(&claims()).await;
            for at in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(bench.check(&changed).is_err(), "{algorithm:?} byte {at}");
            }
        }
    }

    #[tokio::test]
    async fn degenerate_signatures_are_refused() {
        let bench = bench(Algorithm::Es256).await;
        let token = bench.token(&claims()).await;
        let signed = token.rsplit_once('.').unwrap().0;
        for signature in [vec![0; 64], vec![0xff; 64], vec![0; 70], vec![], vec![0x30, 6, 2, 1, 1, 2, 1, 1]] {
            let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(bench.check(&forged).unwrap_err(), InvalidToken::Signature);
        }
    }

    #[tokio::test]
    async fn the_key_of_one_organization_signs_for_no_other() {
        let (ours, theirs) = (bench(Algorithm::Es256).await, bench(Algorithm::Es256).await);
        let token = theirs.token(&claims()).await;
        assert_eq!(ours.check(&token).unwrap_err(), InvalidToken::UnknownKey);
        let mut header = theirs.header();
        header["kid"] = json!(ours.signer.key_id());
        let token = theirs.raw(&header.to_string(), &claims().to_string()).await;
        assert_eq!(ours.check(&token).unwrap_err(), InvalidToken::Signature);
    }
}
