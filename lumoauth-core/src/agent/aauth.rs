//! What makes an agent one of AAuth: a URL that names it, and what it may do there.
//!
//! Its keys, redirect URIs, name, status and epoch are those of the [`Agent`](super::Agent).

use serde::{Deserialize, Serialize};

use crate::{capability::Scope, id::AAuthIdentifier, jwks::HttpAlgorithm};

/// An agent's part in AAuth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AAuthIdentity {
    /// The URL that names it, unique in the organization: the `iss` of its agent tokens.
    pub identifier: AAuthIdentifier,
    /// What it may ask of resources; empty means whatever the resource offers.
    pub allowed_scopes: Scope,
    /// How it may sign its requests; empty means every way this server knows.
    pub algorithms: Vec<HttpAlgorithm>,
    /// Whether it may ask people for authorization.
    pub user_authorization: bool,
    /// Whether it may have delegates: agent tokens whose `sub` is not the agent itself.
    pub delegation: bool,
    /// Whether it may exchange a token that it was called with for one of a resource further on.
    pub token_exchange: bool,
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
    pub fn may_sign_by(&self, algorithm: HttpAlgorithm) -> bool {
        self.algorithms.is_empty() || self.algorithms.contains(&algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_algorithms_bounds_nothing() {
        let mut identity = AAuthIdentity::new(AAuthIdentifier::parse("https://a.test").unwrap());
        assert!(HttpAlgorithm::ALL.into_iter().all(|algorithm| identity.may_sign_by(algorithm)));
        identity.algorithms = vec![HttpAlgorithm::Ed25519];
        assert!(identity.may_sign_by(HttpAlgorithm::Ed25519));
        assert!(!identity.may_sign_by(HttpAlgorithm::RsaPssSha512));
    }
}
