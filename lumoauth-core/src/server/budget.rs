//! Reporting and reading use.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{ApiError, AuthorizationServer, Caller, agents::agent_target};
use crate::{
    agent::Agent,
    audit::EventKind,
    budget::{BudgetPolicy, MicroUsd, Standing, Usage, Window, account_lines, admits, exceeded},
    clock::Timestamp,
    id::{EventId, OrgId},
    principal::Principal,
    secret::sha256,
    spending::{Exhausted, Payers},
    store::{AuditKey, Charge, ChargeId, Charged},
};

/// A usage report. Absent and `null` are the same; unknown members are ignored.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct UsageRequest {
    /// Model tokens.
    pub tokens: Option<Box<RawValue>>,
    /// API calls.
    pub api_calls: Option<Box<RawValue>>,
    /// Cost, as a decimal.
    pub cost_usd: Option<Box<RawValue>>,
    /// The model that was used.
    pub model: Option<String>,
    /// The caller's id for this report: a repetition counts once.
    pub idempotency_key: Option<String>,
    /// Ask whether it would fit instead of recording it.
    pub dry_run: Option<bool>,
    /// Record the use of a model that is not allowed: it has happened.
    pub force: Option<bool>,
    /// The approval with which a dry run passes above the approval threshold: that of a reservation as long as it is held, for
    /// no more than it holds and its model; or one that the agent asked a person for itself
    /// ([`request_approval`](AuthorizationServer::request_approval)), above the agent's own threshold only.
    ///
    /// The latter allows **whatever the person was shown**: with a `cost_usd` in its `meta` no more than that, with a `model`
    /// that model only, and what is not named there in any amount and with any model. It holds for any number of dry runs,
    /// until somebody uses it up by introspection or it is forgotten, a day after it has expired. A dry run moves nothing;
    /// whoever wants one deed allowed, and once, reserves it.
    pub approval_token: Option<String>,
}

/// The outcome of a report, and the budget after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct UsageReport {
    /// Whether it was recorded (not for a dry run).
    pub recorded: bool,
    /// The policy.
    pub policy: BudgetPolicy,
    /// What is used now.
    pub usage: Usage,
    /// The members of the policy whose maximum is reached.
    pub exceeded: Vec<&'static str>,
}

impl AuthorizationServer {
    /// What `agent` used in the present windows.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn usage(&self, org: &OrgId, agent: &Agent) -> Result<Usage, ApiError> {
        Ok(self.stores().budgets.usage(org, agent.account(), self.now()).await?)
    }

    /// What `agent` used, without a report.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn usage_report(&self, org: &OrgId, agent: &Agent) -> Result<UsageReport, ApiError> {
        self.standing(org, agent, false, self.now()).await
    }

    /// Records use of `agent` that has happened, also above a limit: facts are never dropped. With `dry_run`, says whether
    /// it would fit and records nothing. What an agent reports by a token is charged to everybody who pays for its calls.
    ///
    /// # Errors
    /// [`ApiError`] if an amount is not acceptable, the model is not allowed, the dry run does not fit or needs
    /// an approval, or the id was used for something else.
    pub async fn report_usage(
        &self,
        org: &OrgId,
        agent: &Agent,
        principal: &Principal,
        request: &UsageRequest,
        caller: &Caller,
    ) -> Result<UsageReport, ApiError> {
        let by_itself = principal.agent().is_some_and(|caller| caller.id == agent.id);
        let payers = if by_itself { Payers::of_caller(principal, agent) } else { Payers::alone(agent) };
        let now = self.now();
        let usage = Usage {
            tokens: count("tokens", request.tokens.as_deref())?,
            calls: count("api_calls", request.api_calls.as_deref())?,
            micro_usd: cost("cost_usd", request.cost_usd.as_deref())?.micros(),
        };
        let model_allowed = payers.allow_model(request.model.as_deref());
        let dry_run = request.dry_run == Some(true);
        if !model_allowed && (dry_run || request.force != Some(true)) {
            return Err(ApiError::ModelNotAllowed);
        }
        if dry_run {
            return self.preflight(org, &payers, request, &usage, now).await;
        }
        let lines = payers.lines(&usage, Standing::Fact, now);
        // Whose id it is comes first, so that an administrator's and the agent's own never meet.
        let key = match request.idempotency_key.as_deref() {
            None => None,
            Some(key) if (1..=128).contains(&key.len()) => {
                Some(format!("{} {key}", if by_itself { "agent" } else { "admin" }))
            }
            Some(_) => {
                let problem = "must be 1 to 128 bytes".to_owned();
                return Err(ApiError::Invalid { member: "idempotency_key", problem });
            }
        };
        let charge = match &key {
            None => Charge::once(&lines),
            Some(key) => {
                let content = format!("{usage:?}\0{:?}", request.model);
                let id = ChargeId {
                    actor: agent.id,
                    key,
                    request_hash: sha256(content.as_bytes()),
                    keep_until: now.plus(Duration::from_secs(86_400)),
                };
                Charge::repeatable(id, &lines)
            }
        };
        let repetition = match self.stores().budgets.charge(org, &charge, now).await? {
            Charged::Charged(_) => Repetition::First,
            Charged::Repeated => Repetition::Later,
            Charged::Conflict => {
                return Err(ApiError::Conflict("This idempotency key was used for another report."));
            }
            // Facts carry no limits, so a store that refuses one breaks its contract.
            Charged::Exceeded { .. } => {
                let text = "a charge without limits was refused";
                return Err(crate::store::StoreError::other("budgets.charge", text).into());
            }
        };
        if !by_itself {
            let report = key.as_deref().map(|key| (key, repetition));
            self.record_usage_by_admin(org, agent, &usage, report, caller, now).await?;
        }
        let report = self.standing(org, agent, true, now).await?;
        payers.record_exceeded(self.stores(), org, &caller.origin, now).await?;
        Ok(report)
    }

    /// Counters write no events; who charged somebody else is worth one. With an idempotency key the event's id is made of
    /// the key and the day: a repetition adds no second one, and makes up for one that was lost after the charge.
    async fn record_usage_by_admin(
        &self,
        org: &OrgId,
        agent: &Agent,
        usage: &Usage,
        report: Option<(&str, Repetition)>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let mut event = caller
            .event(EventKind::BudgetUsageRecorded, format!("use of {} recorded", agent.slug), now)
            .on(agent_target(agent))
            .with("tokens", usage.tokens)
            .with("api_calls", usage.calls)
            .with("micro_usd", usage.micro_usd);
        if let Some((key, repetition)) = report {
            let facts = [event.kind.as_str(), org.as_str(), &agent.id.to_string(), key];
            let id_of = |day: Timestamp| EventId::derived(day, &facts);
            // A key is known for 24 hours, so a repetition may come on the day after the charge, and a new charge with the
            // same key never comes on the same day.
            let today = Window::Day.start(now);
            let yesterday = AuditKey::Event(id_of(Window::Day.start(today.minus(Duration::from_millis(1)))));
            if repetition == Repetition::Later && self.audit_has(org, yesterday).await? {
                return Ok(());
            }
            event.id = id_of(today);
        }
        Ok(self.stores().audit.append(org, &[event]).await?)
    }

    async fn preflight(
        &self,
        org: &OrgId,
        payers: &Payers<'_>,
        request: &UsageRequest,
        usage: &Usage,
        now: Timestamp,
    ) -> Result<UsageReport, ApiError> {
        for payer in payers.iter() {
            let used = self.stores().budgets.usage(org, payer.account, now).await?;
            for line in account_lines(payer.account, payer.policy, usage, Standing::MustFit, now) {
                let counter = used.of(line.meter);
                if !admits(counter, &line) {
                    return Err(Exhausted::new(payer.policy, &used, &line, counter, now).into());
                }
            }
        }
        if payers.need_approval(usage.micro_usd) {
            let model = request.model.as_deref();
            let agreed = match &request.approval_token {
                Some(token) => self.is_agreed_to(org, payers, token, usage, model, now).await?,
                None => false,
            };
            if !agreed {
                return Err(ApiError::ApprovalRequired);
            }
        }
        self.standing(org, payers.current(), false, now).await
    }

    async fn standing(
        &self,
        org: &OrgId,
        agent: &Agent,
        recorded: bool,
        now: Timestamp,
    ) -> Result<UsageReport, ApiError> {
        let usage = self.stores().budgets.usage(org, agent.account(), now).await?;
        let exceeded = exceeded(&agent.budget, &usage, now)
            .map(|(limit, _)| BudgetPolicy::member_of(limit.meter))
            .collect();
        Ok(UsageReport { recorded, policy: agent.budget.clone(), usage, exceeded })
    }
}

/// Whether a report with an idempotency key is the first of its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repetition {
    First,
    Later,
}

fn present(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|text| *text != "null")
}

pub(super) fn count(member: &'static str, raw: Option<&RawValue>) -> Result<u64, ApiError> {
    let Some(text) = present(raw) else { return Ok(0) };
    text.parse().ok().filter(|n| *n <= BudgetPolicy::MAX_COUNT).ok_or_else(|| ApiError::Invalid {
        member,
        problem: "must be a whole number from 0 to 2^53".to_owned(),
    })
}

/// An amount of money, by its decimal text.
pub(super) fn cost(member: &'static str, raw: Option<&RawValue>) -> Result<MicroUsd, ApiError> {
    let Some(text) = present(raw) else { return Ok(MicroUsd::default()) };
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    text.parse().map_err(|error: crate::budget::ParseUsdError| ApiError::Invalid {
        member,
        problem: format!("is not acceptable: {error}"),
    })
}

impl UsageReport {
    /// The JSON of the report.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "recorded": self.recorded,
            "budget_policy": crate::wire::view::budget(&self.policy, &self.usage),
            "exceeded": self.exceeded,
            "remaining": crate::wire::view::remaining(&self.policy, &self.usage),
        })
    }
}
