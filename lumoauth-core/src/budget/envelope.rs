//! Envelopes: the smaller budget that a delegation may carry.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Account, BudgetPolicy};
use crate::random::random_bytes;

/// The budget of a family of delegated tokens: of the token that it was made for, and of all that comes of that.
///
/// It is charged besides the agents of the chain, so it can only narrow what they may use. It travels in the token, within
/// our signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Envelope {
    /// Names its counters.
    pub id: Uuid,
    /// What may be used.
    pub policy: BudgetPolicy,
}

impl Envelope {
    /// A new envelope.
    pub fn generate(policy: BudgetPolicy) -> Self {
        Self::new(uuid::Builder::from_random_bytes(random_bytes()).into_uuid(), policy)
    }

    /// An envelope with this id.
    pub const fn new(id: Uuid, policy: BudgetPolicy) -> Self {
        Self { id, policy }
    }

    /// Its account.
    pub const fn account(&self) -> Account {
        Account::envelope(self.id)
    }
}
