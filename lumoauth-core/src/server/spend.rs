//! Budgets for services of the same process.

use async_trait::async_trait;

use super::AuthorizationServer;
use crate::{
    audit::Origin,
    budget::{HeldLine, Resolution, Standing, Usage},
    id::OrgId,
    principal::{Identity, Principal},
    spending::{Budgets, Held, Payers, Receipt, Remaining, Spend, SpendError},
    store::{Resolved, StoreError},
};

/// Charges in the stores of this server, without ids: what is held is known to its holder only, so a process that ends has
/// used it.
#[async_trait]
impl Budgets for AuthorizationServer {
    async fn reserve(&self, caller: &Principal, spend: &Spend, origin: &Origin) -> Result<Held, SpendError> {
        if let Identity::Remote(remote) = &caller.identity {
            // Whose records are elsewhere has no budget here, and must not go free for it. An auth token of this server is of
            // agents of this server.
            let text = "the caller's token was verified elsewhere: charge it there";
            let agents = self.agents_of_auth_token(remote).await?;
            let agents = agents.ok_or_else(|| SpendError::Unavailable(text.into()))?;
            let chain: Vec<_> = agents.iter().map(|agent| &**agent).collect();
            let payers = Payers::of_chain(&chain, &[]).ok_or(SpendError::NotAccepted)?;
            return self.hold(&caller.org, &payers, spend, origin).await;
        }
        match caller.agent() {
            Some(agent) => self.hold(&caller.org, &Payers::of_caller(caller, agent), spend, origin).await,
            None => Ok(Held::new(Remaining::default(), Receipt::Nothing)),
        }
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

impl AuthorizationServer {
    /// Holds what `payers` are expected to use.
    async fn hold(
        &self,
        org: &OrgId,
        payers: &Payers<'_>,
        spend: &Spend,
        origin: &Origin,
    ) -> Result<Held, SpendError> {
        if !payers.allow_model(spend.model.as_deref()) {
            return Err(SpendError::ModelNotAllowed);
        }
        if payers.need_approval(spend.usage.micro_usd) {
            return Err(SpendError::ApprovalRequired);
        }
        let now = self.now();
        let lines = payers.lines(&spend.usage, Standing::Hold, now);
        let counters = payers.charge(self.stores(), org, &lines, origin, now).await??;
        let remaining = payers.remaining(&lines, &counters, now);
        let lines = lines.iter().map(HeldLine::from).collect();
        Ok(Held::new(remaining, Receipt::Lines { org: org.clone(), lines }))
    }
}
