//! How a key signs HTTP messages.

use serde::{Deserialize, Serialize};

use super::JwsAlgorithm;

/// A signature algorithm of RFC 9421 section 3.3 that is accepted. Each sort of key has one, so what a message says of
/// its algorithm is only ever compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HttpAlgorithm {
    /// Ed25519, checked strictly.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA with P-256 and SHA-256; the signature is `r` and `s`, 32 bytes each.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// RSASSA-PSS with SHA-512 and a salt of 64 bytes.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
}

impl HttpAlgorithm {
    /// Every algorithm that is accepted.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::EcdsaP256Sha256, Self::RsaPssSha512];

    /// The `alg` value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    /// The algorithm with this `alg` value, compared exactly.
    pub fn from_wire(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The same computation by its name in JWS.
    pub const fn jws(self) -> JwsAlgorithm {
        match self {
            Self::Ed25519 => JwsAlgorithm::EdDsa,
            Self::EcdsaP256Sha256 => JwsAlgorithm::Es256,
            Self::RsaPssSha512 => JwsAlgorithm::Ps512,
        }
    }
}
