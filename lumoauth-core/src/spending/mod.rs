//! Who pays for a call, and whether they can.
//!
//! A call is charged to the agent that makes it, to every earlier agent of its chain that has a budget, and to every
//! envelope that its token carries: all of them, or none. So a sub-agent never spends what its parent does not have, and a
//! chain is no way around the budget of whoever stands in it.
//!
//! [`Budgets`] is how a service has the calls charged that it serves: in this process, or over HTTP.

mod exhausted;
mod port;
mod remaining;

use crate::{
    agent::Agent,
    audit::{Event, EventKind, Origin, Target},
    budget::{Account, BudgetPolicy, Envelope, Line, MicroUsd, Standing, Usage, account_lines, exceeded},
    clock::Timestamp,
    id::{EventId, OrgId},
    principal::{Principal, agent_actor},
    store::{Charge, Charged, StoreError, Stores},
};

pub use exhausted::Exhausted;
pub use port::{Budgets, Held, Receipt, Spend, SpendError};
pub use remaining::{CallsLeft, Remaining};

/// One of those who pay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payer<'a> {
    pub(crate) account: Account,
    pub(crate) policy: &'a BudgetPolicy,
    /// Whose budget it is; an envelope is nobody's.
    agent: Option<&'a Agent>,
}

/// Everybody who pays for a call of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Payers<'a> {
    current: &'a Agent,
    all: Vec<Payer<'a>>,
}

impl<'a> Payer<'a> {
    fn agent(agent: &'a Agent) -> Self {
        Self { account: agent.account(), policy: &agent.budget, agent: Some(agent) }
    }

    fn envelope(envelope: &'a Envelope) -> Self {
        Self { account: envelope.account(), policy: &envelope.policy, agent: None }
    }
}

impl<'a> Payers<'a> {
    /// `agent` alone.
    pub(crate) fn alone(agent: &'a Agent) -> Self {
        Self { current: agent, all: vec![Payer::agent(agent)] }
    }

    /// The last of `chain`, which makes the call, and whoever else pays for it.
    pub(crate) fn of_chain(chain: &[&'a Agent], envelopes: &'a [Envelope]) -> Option<Self> {
        let (current, earlier) = chain.split_last()?;
        let earlier =
            earlier.iter().filter(|agent| !agent.budget.is_empty()).map(|agent| Payer::agent(agent));
        let envelopes = envelopes.iter().map(Payer::envelope);
        Some(Self {
            current,
            all: std::iter::once(Payer::agent(current)).chain(earlier).chain(envelopes).collect(),
        })
    }

    /// Those who pay for what `agent` does, which calls as `principal`.
    pub(crate) fn of_caller(principal: &'a Principal, agent: &'a Agent) -> Self {
        Self::of_chain(&principal.chain(agent), principal.envelopes()).unwrap_or_else(|| Self::alone(agent))
    }

    /// The agent that makes the call.
    pub(crate) const fn current(&self) -> &'a Agent {
        self.current
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Payer<'a>> {
        self.all.iter()
    }

    /// The lines of a charge of `usage` to all of them.
    pub(crate) fn lines(&self, usage: &Usage, standing: Standing, now: Timestamp) -> Vec<Line> {
        self.all
            .iter()
            .flat_map(|payer| account_lines(payer.account, payer.policy, usage, standing, now))
            .collect()
    }

    /// Whether all of them may use `model`.
    pub(crate) fn allow_model(&self, model: Option<&str>) -> bool {
        model.is_none_or(|model| self.all.iter().all(|payer| payer.policy.allows_model(model)))
    }

    /// Whether one call of this cost needs a human's approval for any of them.
    pub(crate) fn need_approval(&self, micro_usd: u64) -> bool {
        self.all.iter().any(|payer| payer.policy.needs_approval(MicroUsd::from_micros(micro_usd)))
    }

    /// The same, for any of them but the agent that makes the call.
    pub(crate) fn others_need_approval(&self, micro_usd: u64) -> bool {
        let own = self.current.account();
        let mut others = self.all.iter().filter(|payer| payer.account != own);
        others.any(|payer| payer.policy.needs_approval(MicroUsd::from_micros(micro_usd)))
    }

    /// Charges one API call, or refuses it: what is left after it.
    ///
    /// # Errors
    /// The inner error if a limit is used up; its event is then in the log. [`StoreError`] if the stores cannot answer.
    pub(crate) async fn charge_call(
        &self,
        stores: &Stores,
        org: &OrgId,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Result<Remaining, Exhausted>, StoreError> {
        let lines = self.lines(&Usage::ONE_CALL, Standing::MustFit, now);
        let charged = self.charge(stores, org, &lines, origin, now).await?;
        Ok(charged.map(|counters| self.remaining(&lines, &counters, now)))
    }

    /// Charges `lines` of these payers without an id: the counters after it, or who has no room.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn charge(
        &self,
        stores: &Stores,
        org: &OrgId,
        lines: &[Line],
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Result<Vec<u64>, Exhausted>, StoreError> {
        match stores.budgets.charge(org, &Charge::once(lines), now).await? {
            Charged::Charged(counters) => Ok(Ok(counters)),
            Charged::Repeated | Charged::Conflict => {
                Err(StoreError::other("budgets.charge", "a charge without id was taken for a repetition"))
            }
            Charged::Exceeded { line, used } => {
                let line = charged_line(lines, line)?;
                Ok(Err(self.exhausted(stores, org, line, used, origin, now).await?))
            }
        }
    }

    /// The refusal of `line`, whose counter shows `used`; its event is in the log.
    ///
    /// # Errors
    /// [`StoreError`] if the stores cannot answer.
    pub(crate) async fn exhausted(
        &self,
        stores: &Stores,
        org: &OrgId,
        line: &Line,
        used: u64,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Exhausted, StoreError> {
        let own = || Payer::agent(self.current);
        let payer = self.all.iter().find(|payer| payer.account == line.account).copied().unwrap_or_else(own);
        let usage = stores.budgets.usage(org, payer.account, now).await?;
        self.record(stores, org, &payer, &usage, origin, now).await?;
        Ok(Exhausted::new(payer.policy, &usage, line, used, now))
    }

    /// Appends `budget.exceeded` for every maximum that any of them has reached.
    ///
    /// # Errors
    /// [`StoreError`] if the stores cannot answer.
    pub(crate) async fn record_exceeded(
        &self,
        stores: &Stores,
        org: &OrgId,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for payer in self.all.iter().filter(|payer| payer.policy.limits().next().is_some()) {
            let usage = stores.budgets.usage(org, payer.account, now).await?;
            self.record(stores, org, payer, &usage, origin, now).await?;
        }
        Ok(())
    }

    /// Appends `budget.exceeded` for every maximum of `payer` that `usage` has reached, once per payer, limit, generation and
    /// window: the id of the event is made of exactly these.
    async fn record(
        &self,
        stores: &Stores,
        org: &OrgId,
        payer: &Payer<'_>,
        usage: &Usage,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let generation = payer.account.generation.to_string();
        let (id, name, target) = match payer.agent {
            Some(agent) => {
                let id = agent.id.to_string();
                let target = Target::new("agent", &*id).named(agent.name.clone());
                (id, agent.name.to_string(), target)
            }
            None => {
                let id = payer.account.owner.to_string();
                (id.clone(), "a delegation".to_owned(), Target::new("budget_envelope", id))
            }
        };
        let actor = agent_actor(payer.agent.unwrap_or(self.current));
        let events: Vec<_> = exceeded(payer.policy, usage, now)
            .map(|(limit, resets_at)| {
                let member = BudgetPolicy::member_of(limit.meter);
                let start = limit.window.start(now);
                let message = format!("{member} of {name} reached");
                let mut event = Event::new(EventKind::BudgetExceeded, actor.clone(), message, now)
                    .on(target.clone())
                    .from_origin(origin)
                    .with("limit", member)
                    .with("max", limit.max)
                    .with("resets_at", resets_at.to_string());
                event.id =
                    EventId::derived(start, &[org.as_str(), &id, member, &generation, &start.to_string()]);
                event
            })
            .collect();
        if events.is_empty() { Ok(()) } else { stores.audit.append(org, &events).await }
    }

    /// What is left of the limits of all of them after a charge of `lines`, whose counters show `counters`: the least of each
    /// meter.
    pub(crate) fn remaining(&self, lines: &[Line], counters: &[u64], now: Timestamp) -> Remaining {
        let mut remaining = Remaining::default();
        for (line, used) in lines.iter().zip(counters) {
            let limit = self.all.iter().filter(|payer| payer.account == line.account);
            let limit = limit.flat_map(|payer| payer.policy.limits());
            for limit in limit.filter(|limit| limit.meter == line.meter && limit.window == line.window) {
                remaining.lower(&limit, *used, now);
            }
        }
        remaining
    }
}

/// The line of a charge that a store refused, by the number that the store says.
///
/// # Errors
/// [`StoreError`] if the charge has no such line.
pub(crate) fn charged_line(lines: &[Line], line: usize) -> Result<&Line, StoreError> {
    lines.get(line).ok_or_else(|| StoreError::other("budgets.charge", "a line was refused that is none"))
}
