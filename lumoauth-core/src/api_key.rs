//! Organization API keys (`lmk_`): what administrators' scripts send as `X-API-Key`.

use serde::{Deserialize, Serialize};

use crate::{
    capability::Capability,
    clock::Timestamp,
    id::{Number, OrgId, UserId},
    secret::{Secret, SecretHash},
};

/// An organization API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ApiKey {
    /// The integer id of the admin API.
    pub number: Number,
    /// Display name.
    pub name: String,
    /// The hash of the key.
    pub hash: SecretHash,
    /// What the key may do, such as `admin` or `admin:agents`.
    pub scopes: Vec<Capability>,
    /// The person who made it; checks without a subject answer for them.
    pub created_by: Option<UserId>,
    /// Whether it works.
    pub active: bool,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What an organization API key may be allowed to do. `admin` covers every scope under `admin:`.
pub const ORG_KEY_SCOPES: [&str; 11] = [
    "admin",
    "admin:read",
    "admin:write",
    "admin:users",
    "admin:roles",
    "admin:groups",
    "admin:clients",
    "admin:webhooks",
    "admin:audit",
    "admin:agents",
    "authz:check",
];

/// Prefix of organization API keys.
pub const ORG_KEY_PREFIX: &str = "lmk_";

/// Prefix of agent API keys.
pub const AGENT_KEY_PREFIX: &str = "agk_";

impl ApiKey {
    /// A new key for `org`; the clear text is returned once and kept as a hash only.
    pub fn new(
        org: &OrgId,
        name: impl Into<String>,
        scopes: Vec<Capability>,
        now: Timestamp,
    ) -> (Self, Secret) {
        let secret = mint_key(ORG_KEY_PREFIX, org);
        let key = Self {
            number: Number::generate(),
            name: name.into(),
            hash: secret.hash(),
            scopes,
            created_by: None,
            active: true,
            version: 0,
            created_at: now,
        };
        (key, secret)
    }
}

/// A new key text: prefix, organization, `_`, 256 random bits.
///
/// The organization is part of the text, since on the paths without one only the credential can tell.
pub fn mint_key(prefix: &str, org: &OrgId) -> Secret {
    Secret::generate(&format!("{prefix}{org}_"))
}

/// The organization that a key text names, if it has the form of [`mint_key`] with this prefix. It proves
/// nothing; only the stored hash does.
pub fn org_of_key(prefix: &str, key: &str) -> Option<OrgId> {
    let (org, _) = key.strip_prefix(prefix)?.split_once('_')?;
    OrgId::parse(org).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_organization() {
        let org = OrgId::parse("acme-corp").unwrap();
        let key = mint_key(ORG_KEY_PREFIX, &org);
        assert_eq!(org_of_key(ORG_KEY_PREFIX, key.expose()), Some(org));
        assert_eq!(org_of_key(AGENT_KEY_PREFIX, key.expose()), None);
        assert_eq!(org_of_key(ORG_KEY_PREFIX, "lmk_nothing"), None);
    }
}
