//! Budgets for services of the same process.

use async_trait::async_trait;

use super::AuthorizationServer;
use crate::{
    audit::Origin,
    budget::{HeldLine, Resolution, Standing, Usage},
    principal::{Identity, Principal},
    spending::{Budgets, Held, Payers, Receipt, Remaining, Spend, SpendError},
    store::{Resolved, StoreError},
};

/// Charges in the stores of this server, without ids: what is held is known to its holder only, so a process that ends has
/// used it.
#[async_trait]
impl Budgets for AuthorizationServer {
    async fn reserve(&self, caller: &Principal, spend: &Spend, origin: &Origin) -> Result<Held, SpendError> {
        if matches!(caller.identity, Identity::Remote(_)) {
            // Whose records are elsewhere has no budget here, and must not go free for it.
            let text = "the caller's token was verified elsewhere: charge it there";
            return Err(SpendError::Unavailable(text.into()));
        }
        let Some(agent) = caller.agent() else {
            return Ok(Held::new(Remaining::default(), Receipt::Nothing));
        };
        let payers = Payers::of_caller(caller, agent);
        if !payers.allow_model(spend.model.as_deref()) {
            return Err(SpendError::ModelNotAllowed);
        }
        if payers.need_approval(spend.usage.micro_usd) {
            return Err(SpendError::ApprovalRequired);
        }
        let now = self.now();
        let lines = payers.lines(&spend.usage, Standing::Hold, now);
        let counters = payers.charge(self.stores(), &caller.org, &lines, origin, now).await??;
        let remaining = payers.remaining(&lines, &counters, now);
        let lines = lines.iter().map(HeldLine::from).collect();
        Ok(Held::new(remaining, Receipt::Lines { org: caller.org.clone(), lines }))
    }

    async fn settle(&self, held: Held, used: &Usage) -> Result<(), SpendError> {
        if held.stands_for(used) {
            return Ok(());
        }
        let Receipt::Lines { org, lines } = held.receipt else { return Ok(()) };
        let resolution = Resolution::Settle(*used);
        match self.stores().budgets.resolve(&org, None, &lines, resolution, self.now()).await? {
            Resolved::Done { .. } => Ok(()),
            Resolved::Stays(_) | Resolved::Unknown => {
                let text = "a hold without id was not settled";
                Err(StoreError::other("budgets.resolve", text).into())
            }
        }
    }
}
