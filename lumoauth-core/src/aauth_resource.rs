//! AAuth resources: the services whose resource tokens this server takes, and for which it issues auth tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    capability::Capability,
    clock::Timestamp,
    id::{AAuthIdentifier, AAuthResourceId, Number},
    jwks::JwkSet,
};

/// A registered AAuth resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AAuthResource {
    /// The public id.
    pub id: AAuthResourceId,
    /// The integer id of the admin API.
    pub number: Number,
    /// The URL that names it: the `iss` of its resource tokens and the `aud` of auth tokens for it. It never changes.
    pub identifier: AAuthIdentifier,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its public keys, if they are registered here.
    pub jwks: Option<JwkSet>,
    /// Where its public keys are published.
    pub jwks_uri: Option<String>,
    /// Its scope vocabulary; empty means it has none and bounds nothing.
    pub supported_scopes: Vec<Capability>,
    /// A sentence per scope, for people.
    pub scope_descriptions: BTreeMap<String, String>,
    /// What it demands of people where nothing else is said.
    pub default_auth_level: AuthLevel,
    /// Whether its tokens are taken, and tokens are issued for it.
    pub active: bool,
    /// Raised whenever all tokens for it must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How much a person must have to do with a token for a resource. Each level demands more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every level must be handled where consent is decided")]
pub enum AuthLevel {
    /// Nothing: the agent gets its token directly.
    #[default]
    None,
    /// A person must have signed in and agreed once to this agent at this resource; that is remembered.
    Authenticated,
    /// A person must have agreed to the very scopes that are asked for; that is remembered.
    Authorized,
    /// A person must agree each time, whatever they agreed to before, and there is no refresh token. What they agree to counts
    /// as before if the resource demands less one day.
    User,
}

impl AuthLevel {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Authenticated => "authenticated",
            Self::Authorized => "authorized",
            Self::User => "user",
        }
    }
}

impl AAuthResource {
    /// A new, active resource without keys and vocabulary that demands nothing of people.
    pub fn new(name: impl Into<String>, identifier: AAuthIdentifier, now: Timestamp) -> Self {
        Self {
            id: AAuthResourceId::generate(),
            number: Number::generate(),
            identifier,
            name: name.into(),
            description: None,
            jwks: None,
            jwks_uri: None,
            supported_scopes: Vec::new(),
            scope_descriptions: BTreeMap::new(),
            default_auth_level: AuthLevel::default(),
            active: true,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_demand_more_and_more_and_have_one_name() {
        let levels = [AuthLevel::None, AuthLevel::Authenticated, AuthLevel::Authorized, AuthLevel::User];
        assert!(levels.is_sorted());
        for level in levels {
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
    }
}
