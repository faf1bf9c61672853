//! How a service has the calls charged that it serves.

use std::fmt;

use async_trait::async_trait;

use super::{Exhausted, Remaining};
use crate::{
    audit::Origin,
    budget::{HeldLine, Usage},
    id::OrgId,
    principal::Principal,
    store::StoreError,
};

/// What a call is expected to use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spend {
    /// How much.
    pub usage: Usage,
    /// The model it will use, if it is one of a language model.
    pub model: Option<String>,
}

impl Spend {
    /// A call that uses `usage`.
    pub const fn new(usage: Usage) -> Self {
        Self { usage, model: None }
    }

    /// The same, with a model.
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }
}

impl Default for Spend {
    /// One API call.
    fn default() -> Self {
        Self::new(Usage::ONE_CALL)
    }
}

/// What is held for one call. Whoever has it settles it once; if nobody does, all of it counts as used.
#[derive(Debug)]
#[must_use = "what is not settled counts as used"]
#[non_exhaustive]
pub struct Held {
    /// What is left after it.
    pub remaining: Remaining,
    /// What to settle.
    pub receipt: Receipt,
}

impl Held {
    /// What is held by `receipt`.
    pub const fn new(remaining: Remaining, receipt: Receipt) -> Self {
        Self { remaining, receipt }
    }

    /// Whether nobody needs to be told that `used` was used: it is exactly what is held, and nothing waits for an answer.
    pub fn stands_for(&self, used: &Usage) -> bool {
        match &self.receipt {
            Receipt::Nothing => true,
            Receipt::Lines { lines, .. } => lines.iter().all(|line| line.amount == used.of(line.meter)),
            Receipt::Reservation(_) => false,
        }
    }
}

/// Where something is held.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "made and read by implementations of the port")]
pub enum Receipt {
    /// Nowhere: the caller is no agent and has no budget.
    Nothing,
    /// In a store of this process.
    Lines {
        /// Whose counters.
        org: OrgId,
        /// What was counted.
        lines: Vec<HeldLine>,
    },
    /// At another server, as a reservation with this id.
    Reservation(String),
}

/// Why a call may not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpendError {
    /// A limit is used up.
    #[error(transparent)]
    Exceeded(#[from] Exhausted),
    /// A limit is used up, as the authorization server said before; which one is not known.
    #[error("budget exceeded")]
    UsedUp {
        /// Whole seconds until the first limit can have room again.
        retry_after: u64,
    },
    /// The caller's credential is not accepted any more.
    #[error("credential not accepted")]
    NotAccepted,
    /// The model is not in the budget policy of everybody who pays.
    #[error("model not allowed")]
    ModelNotAllowed,
    /// One call that costs this much needs a human's approval.
    #[error("approval required")]
    ApprovalRequired,
    /// People were asked about the caller too often lately, so that nobody is asked about this call.
    #[error("too many questions to people")]
    TooManyQuestions {
        /// Whole seconds until somebody can be asked again.
        retry_after: u64,
    },
    /// A human was asked and said no.
    #[error("approval denied")]
    ApprovalDenied,
    /// Nobody can say. The call must be refused.
    #[error("budgets cannot be asked")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for SpendError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Budgets, as a service that charges its callers sees them: in its own process
/// ([`AuthorizationServer`](crate::server::AuthorizationServer)), or at another server over HTTP.
#[async_trait]
pub trait Budgets: fmt::Debug + Send + Sync + 'static {
    /// Holds `spend` of everybody who pays for a call of `caller`, or refuses the call: all of it, or nothing.
    ///
    /// # Errors
    /// [`SpendError`] if the call may not be made. After [`SpendError::Unavailable`] the amount may be held all the same, and
    /// then counts as used.
    async fn reserve(&self, caller: &Principal, spend: &Spend, origin: &Origin) -> Result<Held, SpendError>;

    /// Records what was used in place of what is held, also if it is more.
    ///
    /// # Errors
    /// [`SpendError::Unavailable`] if nobody could be told: then what is held counts as used.
    async fn settle(&self, held: Held, used: &Usage) -> Result<(), SpendError>;
}
