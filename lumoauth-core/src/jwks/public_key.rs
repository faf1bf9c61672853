//! One public key of somebody else, and the algorithms it may verify by.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{HttpAlgorithm, MAX_KID_BYTES, PRIVATE_MEMBERS, Thumbprint};

/// A signature algorithm of RFC 7518 section 3.1 and RFC 8037 that is accepted of others. All are asymmetric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl JwsAlgorithm {
    /// Every algorithm that is accepted.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The `alg` value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with this `alg` value, compared exactly.
    pub fn from_wire(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}

/// A usable public key: RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519.
///
/// Two keys are one if their [thumbprints](Self::thumbprint) are equal.
///
/// ```
/// use lumoauth_core::jwks::{HttpAlgorithm, PublicKey};
/// use serde_json::json;
///
/// // The key of RFC 8037 appendix A.
/// let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
/// let key = PublicKey::from_jwk(&jwk).expect("a usable key");
/// assert_eq!(key.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
/// assert_eq!(key.http_algorithm(), Some(HttpAlgorithm::Ed25519));
/// ```
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<Box<str>>,
    /// The only algorithm it verifies by, if it names one.
    only: Option<JwsAlgorithm>,
    material: Material,
    thumbprint: Thumbprint,
}

#[derive(Clone)]
enum Material {
    /// Not parsed beforehand, since a parsed key is bound to one of the six algorithms.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl PublicKey {
    /// The key of a JWK (RFC 7517); `None` if it cannot be used: it is malformed, weak, of an unknown sort, not for
    /// signatures, or has a private or symmetric part. An Ed25519 key must be the canonical encoding of a point, and
    /// not of small order.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let jwk = jwk.as_object()?;
        if !is_for_verifying(jwk)? || PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
            return None;
        }
        let kid = text(jwk, "kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return None;
        }
        let only = match text(jwk, "alg")? {
            Some(name) => Some(JwsAlgorithm::from_wire(name)?),
            None => None,
        };
        let material = Material::of(jwk)?;
        let thumbprint = Thumbprint::of(&material.to_jwk());
        let key = Self { kid: kid.map(Box::from), only, material, thumbprint };
        // A key that names an algorithm of another type than its own verifies nothing.
        only.is_none_or(|only| key.verifies_by(only)).then_some(key)
    }

    /// Whether it is an Ed25519 key with a part of small order. It is no weaker than others, and nobody makes one by accident:
    /// it is refused where keys are registered, and not looked for elsewhere, since that costs as much as a signature.
    pub(crate) fn is_of_mixed_order(&self) -> bool {
        matches!(&self.material, Material::Ed25519(key) if !key.to_edwards().is_torsion_free())
    }

    /// The `kid`, at most 256 bytes.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether a signature by `algorithm` can be this key's.
    pub fn verifies_by(&self, algorithm: JwsAlgorithm) -> bool {
        let fits = match self.material {
            Material::Rsa(_) => algorithm.rsa().is_some(),
            Material::P256(_) => algorithm == JwsAlgorithm::Es256,
            Material::P384(_) => algorithm == JwsAlgorithm::Es384,
            Material::Ed25519(_) => algorithm == JwsAlgorithm::EdDsa,
        };
        fits && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature` (in JWS form) is this key's over `message`, by `algorithm`. Ed25519 is checked strictly: no
    /// malleable, non-canonical or small-order parts.
    pub fn verify(&self, algorithm: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.verifies_by(algorithm) {
            return false;
        }
        match &self.material {
            Material::Rsa(key) => {
                algorithm.rsa().is_some_and(|parameters| key.verify(parameters, message, signature).is_ok())
            }
            Material::P256(key) | Material::P384(key) => key.verify_sig(message, signature).is_ok(),
            Material::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }

    /// The one algorithm by which it verifies signatures of HTTP messages (RFC 9421 section 3.3); `None` for a key on
    /// P-384 and for an RSA key that names another algorithm than `PS512`.
    pub fn http_algorithm(&self) -> Option<HttpAlgorithm> {
        let algorithm = match self.material {
            Material::Rsa(_) => HttpAlgorithm::RsaPssSha512,
            Material::P256(_) => HttpAlgorithm::EcdsaP256Sha256,
            Material::P384(_) => return None,
            Material::Ed25519(_) => HttpAlgorithm::Ed25519,
        };
        self.verifies_by(algorithm.jws()).then_some(algorithm)
    }

    /// The required members alone (RFC 7638 section 3.2), in lexicographic order: what names the key and nothing else.
    pub fn to_jwk(&self) -> Value {
        self.material.to_jwk()
    }

    /// The SHA-256 thumbprint (RFC 7638): it depends on the key alone and on nothing else that its JWK says.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kid", &self.kid).field("only", &self.only).finish_non_exhaustive()
    }
}

impl Material {
    fn of(jwk: &Map<String, Value>) -> Option<Self> {
        match (text(jwk, "kty")??, text(jwk, "crv")?) {
            ("RSA", _) => rsa(jwk).map(Self::Rsa),
            ("EC", Some("P-256")) => point(jwk, 32, &signature::ECDSA_P256_SHA256_FIXED).map(Self::P256),
            ("EC", Some("P-384")) => point(jwk, 48, &signature::ECDSA_P384_SHA384_FIXED).map(Self::P384),
            ("OKP", Some("Ed25519")) => ed25519(jwk).map(Self::Ed25519),
            _ => None,
        }
    }

    /// The required members, in lexicographic order.
    fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let members = match self {
            Self::Rsa(key) => vec![("e", text(&key.e)), ("kty", "RSA".into()), ("n", text(&key.n))],
            Self::P256(key) | Self::P384(key) => {
                let point = key.as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                vec![("crv", curve.into()), ("kty", "EC".into()), ("x", text(x)), ("y", text(y))]
            }
            Self::Ed25519(key) => {
                vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", text(key.as_bytes()))]
            }
        };
        // Inserted in order, so that they stand in order whether the map sorts them or keeps them as they came.
        Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// Whether the key may verify signatures as far as `use` and `key_ops` say (RFC 7517 sections 4.2 and 4.3); `None` if
/// they say nothing intelligible.
fn is_for_verifying(jwk: &Map<String, Value>) -> Option<bool> {
    let usage = text(jwk, "use")?.is_none_or(|usage| usage == "sig");
    let operations = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
    };
    Some(usage && operations)
}

/// RSA of 2048 to 8192 bits with an odd exponent from 3 up. An exponent of more than 32 bits only costs time.
fn rsa(jwk: &Map<String, Value>) -> Option<RsaPublicKeyComponents<Vec<u8>>> {
    let (n, e) = (bytes(jwk, "n", 1024)?, bytes(jwk, "e", 4)?);
    let (high, low) = (*n.first()?, *n.last()?);
    let bits = (n.len() * 8).checked_sub(usize::try_from(high.leading_zeros()).ok()?)?;
    let exponent = e.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
    let minimal = high != 0 && *e.first()? != 0;
    let usable = (2048..=8192).contains(&bits) && low % 2 == 1 && exponent >= 3 && exponent % 2 == 1;
    (minimal && usable).then_some(RsaPublicKeyComponents { n, e })
}

/// A point with coordinates of `size` bytes, if it is on the curve.
fn point(
    jwk: &Map<String, Value>,
    size: usize,
    curve: &'static signature::EcdsaVerificationAlgorithm,
) -> Option<ParsedPublicKey> {
    let (x, y) = (bytes(jwk, "x", size)?, bytes(jwk, "y", size)?);
    if x.len() != size || y.len() != size {
        return None;
    }
    ParsedPublicKey::new(curve, [&[4], &x[..], &y[..]].concat()).ok()
}

fn ed25519(jwk: &Map<String, Value>) -> Option<Box<ed25519_dalek::VerifyingKey>> {
    let bytes: [u8; 32] = bytes(jwk, "x", 32)?.try_into().ok()?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()?;
    // Only the canonical encoding of a point: two texts for one key are one too many.
    (!key.is_weak() && key.to_edwards().compress().to_bytes() == bytes).then(|| Box::new(key))
}

/// At most `most` bytes in canonical base64url.
fn bytes(jwk: &Map<String, Value>, name: &str, most: usize) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text(jwk, name)??).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

/// The text of a member. `None` if it is something else, `Some(None)` if there is none.
#[expect(clippy::option_option, reason = "absent and wrong are not the same")]
fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<Option<&'a str>> {
    jwk.get(name).map_or(Some(None), |value| value.as_str().map(Some))
}
