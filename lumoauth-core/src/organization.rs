//! Organizations: the tenants of one server. A credential of one is never valid in another.

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, id::OrgId};

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Organization {
    /// Its slug, in every path and every key.
    pub id: OrgId,
    /// Display name.
    pub name: String,
    /// Whether its credentials work.
    pub status: OrganizationStatus,
    /// Raised whenever all its tokens must die; see [`crate::token::Lineage`].
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether an organization works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every state must be handled where access is decided")]
pub enum OrganizationStatus {
    /// It does.
    Active,
    /// None of its credentials is accepted.
    Disabled,
}

impl Organization {
    /// A new, active organization.
    pub fn new(id: OrgId, name: impl Into<String>, now: Timestamp) -> Self {
        Self {
            id,
            name: name.into(),
            status: OrganizationStatus::Active,
            epoch: 0,
            version: 0,
            created_at: now,
        }
    }

    /// Whether its credentials are accepted.
    pub fn is_active(&self) -> bool {
        self.status == OrganizationStatus::Active
    }
}
