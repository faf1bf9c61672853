//! Who decides: the port for engines of a host's own, and the snapshots that the built-in one decides on.

mod parties;
mod snapshots;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    id::OrgId,
    policy::{Question, Verdict},
    store::{PolicyStore, StoreError},
};

pub(crate) use parties::{parties, subject_parties};
pub(crate) use snapshots::{Kept, Snapshots};

/// Decides what may be done.
///
/// The built-in one ([`BuiltIn`]) decides by [`Snapshot::decide`](crate::policy::Snapshot::decide); a host may plug in
/// another one, and perhaps ask the built-in one first. Budgets are charged before an engine is asked. Whatever it answers,
/// nobody gets what [`Question::out_of_bounds`] leaves out.
///
/// ```
/// use async_trait::async_trait;
/// use lumoauth_core::{
///     authz::Authorizer,
///     id::OrgId,
///     policy::{DecidedBy, Question, Verdict},
///     store::StoreError,
/// };
///
/// /// Nothing at night.
/// #[derive(Debug)]
/// struct Daylight;
///
/// #[async_trait]
/// impl Authorizer for Daylight {
///     async fn decide(&self, _: &OrgId, questions: &[Question<'_>]) -> Result<Vec<Verdict>, StoreError> {
///         let decide = |question: &Question<'_>| {
///             let hour = question.environment.now.unix_seconds() / 3600 % 24;
///             match hour {
///                 6..22 => Verdict::allow("It is day."),
///                 _ => Verdict::deny(DecidedBy::Host, "It is night."),
///             }
///         };
///         Ok(questions.iter().map(decide).collect())
///     }
/// }
/// ```
#[async_trait]
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// The answers to all questions, in their order. An answer too few is a denial.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be decided now: the caller is refused.
    async fn decide(&self, org: &OrgId, questions: &[Question<'_>]) -> Result<Vec<Verdict>, StoreError>;
}

/// The engine of this library, over the policy that organizations wrote down here.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    store: Arc<dyn PolicyStore>,
    snapshots: Arc<Snapshots>,
}

impl BuiltIn {
    /// Decides by what is in `store`.
    pub fn new(store: Arc<dyn PolicyStore>) -> Self {
        Self { store, snapshots: Arc::default() }
    }

    /// The policy of `org` as it is now.
    pub(crate) async fn current(&self, org: &OrgId) -> Result<Arc<Kept>, StoreError> {
        self.snapshots.current(&*self.store, org).await
    }

    /// The policies that are kept in memory now.
    pub(crate) fn kept(&self) -> Vec<(Arc<OrgId>, Arc<Kept>)> {
        self.snapshots.all()
    }
}

#[async_trait]
impl Authorizer for BuiltIn {
    async fn decide(&self, org: &OrgId, questions: &[Question<'_>]) -> Result<Vec<Verdict>, StoreError> {
        let kept = self.current(org).await?;
        Ok(kept.read(|snapshot| questions.iter().map(|question| snapshot.decide(question)).collect()))
    }
}

#[cfg(test)]
mod tests;
