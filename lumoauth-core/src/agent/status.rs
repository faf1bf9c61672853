//! The life cycle of an agent, as a table.

use serde::{Deserialize, Serialize};

/// Where an agent is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every state must be handled where access is decided")]
pub enum AgentStatus {
    /// It can act.
    #[default]
    Active,
    /// Switched off by its owners.
    Inactive,
    /// Stopped by an administrator.
    Suspended,
    /// Ended for good.
    Revoked,
}

impl AgentStatus {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    /// The status with this wire name.
    pub fn from_wire(name: &str) -> Option<Self> {
        [Self::Active, Self::Inactive, Self::Suspended, Self::Revoked]
            .into_iter()
            .find(|status| status.as_str() == name)
    }

    /// The status after `change`.
    ///
    /// ```
    /// use lumoauth_core::agent::{AgentStatus, StatusChange};
    ///
    /// assert_eq!(AgentStatus::Active.after(StatusChange::Disable), Ok(AgentStatus::Suspended));
    /// assert!(AgentStatus::Revoked.after(StatusChange::Activate).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Terminal`] if this is [`AgentStatus::Revoked`] and the change is not a repeated revocation.
    pub const fn after(self, change: StatusChange) -> Result<Self, Terminal> {
        match (self, change) {
            (_, StatusChange::Revoke) => Ok(Self::Revoked),
            (Self::Revoked, _) => Err(Terminal),
            (_, StatusChange::Activate) => Ok(Self::Active),
            (_, StatusChange::Deactivate) => Ok(Self::Inactive),
            (_, StatusChange::Disable) => Ok(Self::Suspended),
        }
    }
}

/// What can happen to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every change must be handled in the table")]
pub enum StatusChange {
    /// Make it work (`activate` and `enable`).
    Activate,
    /// Switch it off.
    Deactivate,
    /// Suspend it.
    Disable,
    /// End it for good.
    Revoke,
}

/// The agent is revoked, and that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a revoked agent cannot be changed")]
#[non_exhaustive]
pub struct Terminal;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoked_is_terminal() {
        for change in [StatusChange::Activate, StatusChange::Deactivate, StatusChange::Disable] {
            assert_eq!(AgentStatus::Revoked.after(change), Err(Terminal));
        }
        assert_eq!(AgentStatus::Revoked.after(StatusChange::Revoke), Ok(AgentStatus::Revoked));
    }
}
