//! What makes an agent one of AAuth: a URL that names it, and what it may do there.
//!
//! Its keys, redirect URIs, name, status and epoch are those of the [`Agent`](super::Agent).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{InvalidAgent, patch::scope_list};

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

/// The members of an AAuth identity that an administrator may set. Absent and `null` leave a member as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AAuthIdentityPatch {
    /// The URL that names it; required where there is no identity yet.
    #[serde(alias = "agentIdentifier", alias = "agent_identifier")]
    pub identifier: Option<String>,
    /// What it may ask of resources: a list, or text with spaces between; replaces all of it.
    #[serde(rename = "allowedScopes", alias = "allowed_scopes")]
    pub allowed_scopes: Option<Value>,
    /// How it may sign; replaces the whole list.
    #[serde(alias = "signingAlgs", alias = "signing_algs")]
    pub algorithms: Option<Vec<String>>,
    /// Whether it may ask people. A new identity may: people decide for themselves.
    #[serde(rename = "userAuthorization", alias = "user_authorization")]
    pub user_authorization: Option<bool>,
    /// Whether it may have delegates.
    pub delegation: Option<bool>,
    /// Whether it may exchange tokens.
    #[serde(rename = "tokenExchange", alias = "token_exchange")]
    pub token_exchange: Option<bool>,
}

impl AAuthIdentityPatch {
    /// `before`, or a new identity, with these members.
    ///
    /// # Errors
    /// [`InvalidAgent`] for the first member that cannot be accepted.
    pub(crate) fn applied_to(&self, before: Option<&AAuthIdentity>) -> Result<AAuthIdentity, InvalidAgent> {
        let refused =
            |member: &'static str, problem: &str| InvalidAgent { member, problem: problem.to_owned() };
        let identifier = match (&self.identifier, before) {
            (Some(text), _) => AAuthIdentifier::parse(text).map_err(|_| {
                let rule = "must be an https URL (http on a loopback host) without user, query and fragment";
                refused("agent_identifier", rule)
            })?,
            (None, Some(before)) => before.identifier.clone(),
            (None, None) => return Err(refused("agent_identifier", "is required")),
        };
        let mut next = match before {
            Some(before) => AAuthIdentity { identifier, ..before.clone() },
            None => AAuthIdentity { user_authorization: true, ..AAuthIdentity::new(identifier) },
        };
        if let Some(scopes) = &self.allowed_scopes {
            next.allowed_scopes = Scope::new(scope_list("allowed_scopes", scopes)?);
        }
        if let Some(names) = &self.algorithms {
            let algorithms =
                names.iter().map(|name| HttpAlgorithm::from_wire(name)).collect::<Option<BTreeSet<_>>>();
            let rule = "must be of ed25519, ecdsa-p256-sha256 and rsa-pss-sha512";
            next.algorithms = algorithms.ok_or_else(|| refused("signing_algs", rule))?.into_iter().collect();
        }
        next.user_authorization = self.user_authorization.unwrap_or(next.user_authorization);
        next.delegation = self.delegation.unwrap_or(next.delegation);
        next.token_exchange = self.token_exchange.unwrap_or(next.token_exchange);
        Ok(next)
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
