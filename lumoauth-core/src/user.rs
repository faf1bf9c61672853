//! People of an organization. Here they are stored and managed; who they are is proven by the host.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    id::{Number, UserId},
};

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The `sub` of the person's tokens.
    pub id: UserId,
    /// The integer id that some clients want.
    pub number: Number,
    /// Unique in the organization, kept in lower case.
    pub email: String,
    /// Display name.
    pub name: Option<String>,
    /// Whether the person may administer the organization.
    pub is_admin: bool,
    /// Whether approval requests reach the person.
    pub approver: bool,
    /// Where else they reach the person: an `https` URL that is told that something waits.
    #[serde(default)]
    pub approver_webhook: Option<String>,
    /// Whether the person can act.
    pub status: UserStatus,
    /// A password hash in PHC form, made by the host's hasher; never the password. Whoever changes it raises `epoch`, or
    /// what was begun with the old one goes on.
    pub password_hash: Option<PasswordHash>,
    /// Raised whenever all the person's tokens must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Whether a person can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every state must be handled where access is decided")]
pub enum UserStatus {
    /// They can.
    Active,
    /// Nothing of theirs works.
    Blocked,
}

/// A stored password hash (PHC string). Its `Debug` is redacted: a human's password can be guessed from it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash that a hasher made.
    pub fn new(phc: impl Into<String>) -> Self {
        Self(phc.into())
    }

    /// The PHC string, for the verifier.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash([redacted])")
    }
}

impl User {
    /// A new, active person.
    pub fn new(email: &str, now: Timestamp) -> Self {
        Self {
            id: UserId::generate(),
            number: Number::generate(),
            email: email.to_lowercase(),
            name: None,
            is_admin: false,
            approver: false,
            approver_webhook: None,
            status: UserStatus::Active,
            password_hash: None,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether requests for approval reach the person.
    pub fn has_approver_channel(&self) -> bool {
        self.approver || self.approver_webhook.is_some()
    }

    /// Whether the person can act.
    pub fn is_active(&self) -> bool {
        self.status == UserStatus::Active
    }

    /// Says whether the person may administer the organization. What they were given as an administrator never works again,
    /// also not if they are made one anew. Whether that changed anything.
    #[must_use]
    pub fn set_admin(&mut self, is_admin: bool) -> bool {
        let changed = self.is_admin != is_admin;
        if self.is_admin && changed {
            self.epoch += 1;
        }
        self.is_admin = is_admin;
        changed
    }

    /// Blocks the person: nothing issued so far works again, not even after an unblock. Whether that changed
    /// anything.
    #[must_use]
    pub fn block(&mut self) -> bool {
        let changed = self.status == UserStatus::Active;
        if changed {
            self.status = UserStatus::Blocked;
            self.epoch += 1;
        }
        changed
    }

    /// Lets the person act again. Whether that changed anything.
    #[must_use]
    pub fn unblock(&mut self) -> bool {
        let changed = self.status == UserStatus::Blocked;
        self.status = UserStatus::Active;
        changed
    }
}

/// Whether `text` looks like an e-mail address: one `@` with something on both sides, no spaces or controls,
/// at most 254 bytes. Whether mail arrives is not for a parser to say.
pub fn is_email(text: &str) -> bool {
    text.len() <= 254
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
}
