//! What is held for one call, until it is settled.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_timer::Delay;
use futures_util::future::{BoxFuture, Either, select};
use lumoauth_core::{
    budget::Usage,
    spending::{Budgets, Held},
};
use tokio::runtime::Handle;

/// Where the service behind a [`BudgetLayer`](crate::BudgetLayer) records what a call used in the end. It is in the extensions
/// of the request.
#[derive(Clone, Debug, Default)]
pub struct UsageMeter(Arc<Mutex<Option<Usage>>>);

impl UsageMeter {
    /// Records what was used so far, in place of what was recorded before. What is recorded after the body of the answer has
    /// ended comes too late.
    pub fn record(&self, used: Usage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// What was recorded.
    pub fn recorded(&self) -> Option<Usage> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the end of an answer waits for its settlement, which goes on after that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is held for a call. Dropping it settles it.
#[derive(Debug)]
pub(crate) struct Account {
    budgets: Arc<dyn Budgets>,
    held: Option<Held>,
    estimate: Usage,
    pub(super) meter: UsageMeter,
}

impl Account {
    pub(super) fn new(budgets: Arc<dyn Budgets>, held: Held, estimate: Usage) -> Self {
        Self { budgets, held: Some(held), estimate, meter: UsageMeter::default() }
    }

    /// What remains to be done, once: nothing, if what is held was used. It goes on when nobody waits for it any more.
    pub(super) fn settle(&mut self) -> Option<BoxFuture<'static, ()>> {
        let used = self.meter.recorded().unwrap_or(self.estimate);
        let held = self.held.take().filter(|held| !held.stands_for(&used))?;
        let budgets = self.budgets.clone();
        let settling = async move {
            if let Err(error) = budgets.settle(held, &used).await {
                tracing::error!(error = &error as &dyn std::error::Error, "what was held counts as used");
            }
        };
        let Ok(runtime) = Handle::try_current() else { return Some(Box::pin(settling)) };
        let task = runtime.spawn(settling);
        Some(Box::pin(async move {
            match select(task, Delay::new(PATIENCE)).await {
                Either::Left((Ok(()), _)) => {}
                Either::Left((Err(_), _)) => {
                    tracing::error!("settling a budget broke off: what was held counts as used");
                }
                Either::Right(_) => tracing::warn!("settling a budget takes long: the answer ends before"),
            }
        }))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.settle().is_some() && Handle::try_current().is_err() {
            tracing::error!("no runtime to settle a budget in: what was held counts as used");
        }
    }
}
