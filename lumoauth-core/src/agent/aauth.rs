//! What makes an agent one of AAuth: a URL that names it, and what it may do there.
//!
//! Its keys, redirect URIs, name, status and epoch are those of the [`Agent`](super::Agent).

use serde::{Deserialize, Serialize};

use crate::{capability::Scope, id::AAuthIdentifier};

/// An agent's part in AAuth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AAuthIdentity {
    /// The URL that names it, unique in the organization: the `iss` of its agent tokens.
    pub identifier: AAuthIdentifier,
    /// What it may ask of resources; empty means whatever the resource offers.
    pub allowed_scopes: Scope,
    /// How it may sign its requests; empty means every way this server knows.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// Whether it may ask people for authorization.
    pub user_authorization: bool,
    /// Whether it may have delegates: agent tokens whose `sub` is not the agent itself.
    pub delegation: bool,
    /// Whether it may exchange a token that it was called with for one of a resource further on.
    pub token_exchange: bool,
}

/// An algorithm of HTTP message signatures, by its name in the registry of RFC 9421 section 6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// Ed25519 (RFC 9421 section 3.3.6).
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA with P-256 and SHA-256 (RFC 9421 section 3.3.4).
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// RSASSA-PSS with SHA-512 (RFC 9421 section 3.3.1).
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
}

impl SignatureAlgorithm {
    /// Every algorithm that this server knows.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::EcdsaP256Sha256, Self::RsaPssSha512];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    /// The algorithm with this registered name.
    pub fn from_wire(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl AAuthIdentity {
    /// An identity that signs by any algorithm for any scope, and may involve nobody else: neither people nor delegates nor
    /// resources further on.
    pub fn new(identifier: AAuthIdentifier) -> Self {
        Self {
            identifier,
            allowed_scopes: Scope::default(),
            algorithms: Vec::new(),
            user_authorization: false,
            delegation: false,
            token_exchange: false,
        }
    }

    /// Whether it may sign by `algorithm`.
    pub fn may_sign_by(&self, algorithm: SignatureAlgorithm) -> bool {
        self.algorithms.is_empty() || self.algorithms.contains(&algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_have_one_name_everywhere() {
        for algorithm in SignatureAlgorithm::ALL {
            let json = serde_json::to_string(&algorithm).unwrap();
            assert_eq!(json, format!("\"{}\"", algorithm.as_str()));
            assert_eq!(SignatureAlgorithm::from_wire(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(SignatureAlgorithm::from_wire("hmac-sha256"), None);
    }

    #[test]
    fn an_empty_list_of_algorithms_bounds_nothing() {
        let mut identity = AAuthIdentity::new(AAuthIdentifier::parse("https://a.test").unwrap());
        assert!(SignatureAlgorithm::ALL.into_iter().all(|algorithm| identity.may_sign_by(algorithm)));
        identity.algorithms = vec![SignatureAlgorithm::Ed25519];
        assert!(identity.may_sign_by(SignatureAlgorithm::Ed25519));
        assert!(!identity.may_sign_by(SignatureAlgorithm::RsaPssSha512));
    }
}
