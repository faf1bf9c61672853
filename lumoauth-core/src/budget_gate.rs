//! The gate that every acting call of an agent passes: one API call is charged, or the call is refused.

use http::StatusCode;

use crate::{
    agent::Agent,
    audit::{Event, EventKind, Origin, Target},
    budget::{BudgetPolicy, Line, Meter, MicroUsd, Standing, Usage, account_lines, exceeded},
    clock::Timestamp,
    id::{EventId, OrgId},
    principal::agent_actor,
    store::{Charge, Charged, StoreError, Stores},
    wire::WireError,
};

/// A limit is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget exceeded: {limit}")]
#[non_exhaustive]
pub struct Exhausted {
    /// The member of the policy.
    pub limit: &'static str,
    /// Its maximum.
    pub max: u64,
    /// What is used.
    pub used: u64,
    /// When its window ends.
    pub resets_at: Timestamp,
    /// Whole seconds until a call could pass, were nothing else used: until the last exceeded window ends.
    pub retry_after: u64,
    /// What is counted.
    pub meter: Meter,
}

impl Exhausted {
    /// The refusal of `line`, whose counter shows `used`.
    pub(crate) fn new(policy: &BudgetPolicy, usage: &Usage, line: &Line, used: u64, now: Timestamp) -> Self {
        let resets_at = line.window.end(now);
        let last = exceeded(policy, usage, now).map(|(_, end)| end).fold(resets_at, Timestamp::max);
        Self {
            limit: BudgetPolicy::member_of(line.meter),
            max: line.limit.unwrap_or(u64::MAX),
            used,
            resets_at,
            retry_after: last.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            meter: line.meter,
        }
    }

    /// 429 `budget_exceeded` with the numbers.
    pub fn to_wire(&self) -> WireError {
        let sentence = match self.meter {
            Meter::Tokens => "Daily token budget used up.",
            Meter::Calls => "Hourly API call budget used up.",
            Meter::MicroUsd => "Monthly cost budget used up.",
        };
        let amount = |n: u64| match self.meter {
            Meter::Tokens | Meter::Calls => serde_json::json!(n),
            Meter::MicroUsd => serde_json::json!(MicroUsd::from_micros(n)),
        };
        WireError::new(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", sentence)
            .with_detail("limit", self.limit)
            .with_detail("max", amount(self.max))
            .with_detail("used", amount(self.used))
            .with_detail("resets_at", self.resets_at.to_string())
            .with_retry_after(self.retry_after)
    }
}

/// Charges `agent` one API call; see [`charge_calls`].
pub(crate) async fn charge_call(
    stores: &Stores,
    org: &OrgId,
    agent: &Agent,
    origin: &Origin,
    now: Timestamp,
) -> Result<Result<(), Exhausted>, StoreError> {
    charge_calls(stores, org, &[agent], origin, now).await
}

/// Charges one API call to the last of `chain`, which makes it, and to every earlier one that has a policy: a chain is no
/// way around the budget of whoever stands in it. All of them, or none.
///
/// # Errors
/// The inner error if a limit is used up; its event is then in the log, once per limit and window.
/// [`StoreError`] if the stores cannot answer.
pub(crate) async fn charge_calls(
    stores: &Stores,
    org: &OrgId,
    chain: &[&Agent],
    origin: &Origin,
    now: Timestamp,
) -> Result<Result<(), Exhausted>, StoreError> {
    let Some((current, earlier)) = chain.split_last() else { return Ok(Ok(())) };
    let payers = earlier.iter().filter(|agent| !agent.budget.is_empty()).chain([current]);
    let lines: Vec<_> = payers
        .flat_map(|agent| {
            account_lines(agent.account(), &agent.budget, &Usage::ONE_CALL, Standing::MustFit, now)
        })
        .collect();
    match stores.budgets.charge(org, &Charge::once(&lines), now).await? {
        Charged::Charged(_) => Ok(Ok(())),
        Charged::Repeated | Charged::Conflict => {
            Err(StoreError::other("budgets.charge", "a charge without id was taken for a repetition"))
        }
        Charged::Exceeded { line, used } => {
            let line = &lines[line];
            let agent = chain.iter().find(|agent| agent.account() == line.account).unwrap_or(current);
            let usage = stores.budgets.usage(org, agent.account(), now).await?;
            record_exceeded(stores, org, agent, &usage, origin, now).await?;
            Ok(Err(Exhausted::new(&agent.budget, &usage, line, used, now)))
        }
    }
}

/// Appends `budget.exceeded` for every maximum that `usage` has reached, once per agent, limit, generation and
/// window: the id of the event is made of exactly these.
pub(crate) async fn record_exceeded(
    stores: &Stores,
    org: &OrgId,
    agent: &Agent,
    usage: &Usage,
    origin: &Origin,
    now: Timestamp,
) -> Result<(), StoreError> {
    let id = agent.id.to_string();
    let generation = agent.budget_generation.to_string();
    let events: Vec<_> = exceeded(&agent.budget, usage, now)
        .map(|(limit, resets_at)| {
            let member = BudgetPolicy::member_of(limit.meter);
            let start = limit.window.start(now);
            let message = format!("{member} of {} reached", agent.name);
            let mut event = Event::new(EventKind::BudgetExceeded, agent_actor(agent), message, now)
                .on(Target::new("agent", &*id).named(agent.name.clone()))
                .from_origin(origin)
                .with("limit", member)
                .with("max", limit.max)
                .with("resets_at", resets_at.to_string());
            event.id = EventId::derived(start, &[org.as_str(), &id, member, &generation, &start.to_string()]);
            event
        })
        .collect();
    if events.is_empty() { Ok(()) } else { stores.audit.append(org, &events).await }
}
