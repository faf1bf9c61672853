//! Organizations: the tenants of one server. A credential of one is never valid in another.

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, id::OrgId, jit::RiskTable};

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
    /// How the actors of its delegated tokens are nested.
    pub act_order: ActOrder,
    /// How risky types of permissions are here, where that differs from the server's own table.
    #[serde(default)]
    pub jit_risk: RiskTable,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
}

/// How the `act` claims of a chain of actors are nested. `client_id` and `agent_id` always name the current actor, so
/// nobody needs the order to know who acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a chain is read from one end or from the other")]
pub enum ActOrder {
    /// The first agent is outermost, and each later one is nested deeper.
    #[default]
    FirstOutermost,
    /// The current agent is outermost (RFC 8693 section 4.1).
    Rfc8693,
}

impl ActOrder {
    /// The name in discovery metadata (`act_claim_order`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstOutermost => "oldest_first",
            Self::Rfc8693 => "rfc8693",
        }
    }
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
            act_order: ActOrder::default(),
            jit_risk: RiskTable::new(),
            version: 0,
            created_at: now,
        }
    }

    /// Ends everything that was issued in it, or lets it work again. Whether that changed anything.
    #[must_use]
    pub fn set_active(&mut self, active: bool) -> bool {
        let status = if active { OrganizationStatus::Active } else { OrganizationStatus::Disabled };
        let changed = self.status != status;
        if changed && !active {
            self.epoch += 1;
        }
        self.status = status;
        changed
    }

    /// Whether its credentials are accepted.
    pub fn is_active(&self) -> bool {
        self.status == OrganizationStatus::Active
    }
}
