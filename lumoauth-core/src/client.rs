//! Ordinary OAuth clients: applications that are not agents.

use serde::{Deserialize, Serialize};

use crate::{
    capability::Capability,
    clock::Timestamp,
    id::{ClientId, Number},
    jwks::JwkSet,
    secret::{Secret, SecretHash},
};

/// A registered application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Client {
    /// The integer id of the admin API.
    pub number: Number,
    /// Its OAuth `client_id`; always with [`ClientId::APP_PREFIX`].
    pub client_id: ClientId,
    /// Display name.
    pub name: String,
    /// Hashes of its secrets; empty for a public client.
    pub secrets: Secrets,
    /// Where its public keys are published.
    pub jwks_uri: Option<String>,
    /// Its public keys, if they are registered here.
    pub jwks: Option<JwkSet>,
    /// Where an authorization response may go, compared exactly.
    pub redirect_uris: Vec<String>,
    /// The scopes it may ask for.
    pub allowed_scopes: Vec<Capability>,
    /// The grant types it may use.
    pub grant_types: Vec<String>,
    /// Whether it can keep a secret.
    pub confidential: bool,
    /// Whether it uses codes with PKCE only, though it can keep a secret. One that cannot always does.
    #[serde(default)]
    pub requires_pkce: bool,
    /// Whether it works.
    pub active: bool,
    /// Raised whenever all its tokens must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Client {
    /// A new confidential client with a fresh secret, which is returned once and kept as a hash only.
    pub fn new(name: impl Into<String>, now: Timestamp) -> (Self, Secret) {
        let secret = Secret::generate("lms_");
        let client = Self {
            number: Number::generate(),
            client_id: ClientId::generate_for_app(),
            name: name.into(),
            secrets: Secrets::one(&secret),
            jwks_uri: None,
            jwks: None,
            redirect_uris: Vec::new(),
            allowed_scopes: Vec::new(),
            grant_types: vec!["client_credentials".to_owned()],
            confidential: true,
            requires_pkce: false,
            active: true,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        };
        (client, secret)
    }

    /// Whether it gets no code without a code challenge (RFC 7636).
    pub fn needs_pkce(&self) -> bool {
        self.requires_pkce || !self.confidential
    }
}

/// The hashed client secrets of one agent or client: the current one, and after a rotation with grace the
/// previous one until its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Secrets {
    current: Option<SecretHash>,
    previous: Option<(SecretHash, Timestamp)>,
}

impl Secrets {
    /// Exactly this secret.
    pub fn one(secret: &Secret) -> Self {
        Self { current: Some(secret.hash()), previous: None }
    }

    /// Whether there is a secret at all.
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// Replaces the secret; the old one works until `grace_ends`.
    pub fn rotate(&mut self, successor: &Secret, grace_ends: Timestamp) {
        self.previous = self.current.take().map(|old| (old, grace_ends));
        self.current = Some(successor.hash());
    }

    /// Whether `presented` is a secret that holds at `now`. Takes as long with no secret stored as with one.
    pub fn accept(&self, presented: &Secret, now: Timestamp) -> bool {
        let nobody = SecretHash::from_bytes([0; 32]);
        let presented = presented.hash();
        let current = self.current.unwrap_or(nobody).equals(&presented);
        let (previous, until) = self.previous.unwrap_or((nobody, Timestamp::default()));
        let previous = previous.equals(&presented) & (now < until);
        current | previous
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rotated_secret_holds_through_its_grace_and_not_one_instant_longer() {
        let (old, new) = (Secret::generate(""), Secret::generate(""));
        let now = Timestamp::from_unix_seconds(100);
        let end = now.plus(Duration::from_secs(60));
        let mut secrets = Secrets::one(&old);
        secrets.rotate(&new, end);
        assert!(secrets.accept(&new, now) && secrets.accept(&old, now));
        assert!(secrets.accept(&old, end.minus(Duration::from_millis(1))));
        assert!(!secrets.accept(&old, end));
        let mut at_once = Secrets::one(&old);
        at_once.rotate(&new, now);
        assert!(!at_once.accept(&old, now));
    }

    #[test]
    fn no_secret_accepts_nothing() {
        assert!(!Secrets::default().accept(&Secret::from(""), Timestamp::default()));
    }
}
