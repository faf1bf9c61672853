//! Reservations that wait for a human: their amount is held, and an approval is open.
//!
//! What the human said stands in the approval; the hold follows it. Following changes nothing the second time, so it is done
//! after a decision and whenever anybody looks at the reservation or the approval, and a failure in between loses nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ApiError, AuthorizationServer, Caller,
    approvals::{APPROVAL_LIFE, stands},
    reservations::{Note, Wanted, amounts, shown},
};
use crate::{
    agent::Agent,
    approval::{Approval, ApprovalStatus, ApprovalToken, Impact},
    budget::{Hold, HoldState, MicroUsd, Resolution, Usage},
    clock::Timestamp,
    id::{AgentId, OrgId},
    principal::{Principal, Represented},
    spending::Payers,
    store::{HoldId, Resolved, StoreError},
};

/// How long a hold outlives its approval: what was agreed to at the last instant can still be held.
const LONGER: Duration = Duration::from_secs(60);

/// How many overdue holds are freed at a time.
const OVERDUE: u32 = 100;

/// The approval that a parked reservation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) token: ApprovalToken,
    pub(super) expires_at: Timestamp,
}

impl Waiting {
    pub(super) fn begin(now: Timestamp) -> Self {
        Self { token: ApprovalToken::generate(), expires_at: now.plus(APPROVAL_LIFE) }
    }

    /// Until when the hold of a reservation with this lease is parked.
    pub(super) fn hold_ends(&self, lease: Duration, now: Timestamp) -> Timestamp {
        self.expires_at.plus(LONGER).max(now.plus(lease))
    }
}

/// Whether `approval` showed a person no less than `usage` and no other model than `model`, as far as it named them.
fn is_shown(approval: &Approval, usage: &Usage, model: Option<&str>) -> bool {
    let named = |member: &str| approval.meta.get(member).filter(|value| !value.is_null());
    let is_within = |most: &Value| {
        // What is no amount allows none.
        let text = most.as_str().map_or_else(|| most.to_string(), ToOwned::to_owned);
        text.parse().is_ok_and(|most: MicroUsd| usage.micro_usd <= most.micros())
    };
    named("cost_usd").is_none_or(is_within) && named("model").is_none_or(|only| only.as_str() == model)
}

/// Who asks, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) principal: &'a Principal,
    /// Who reserves.
    pub(super) agent: &'a Agent,
    /// Who pays, if not the agent: whoever called its service.
    pub(super) subject: Option<&'a Principal>,
}

impl AuthorizationServer {
    /// Asks a human for what `wanted` reserves, under the token that its hold remembers. Asking again changes nothing.
    pub(super) async fn ask_for_approval(
        &self,
        asking: Asking<'_>,
        wanted: &Wanted<'_>,
        key: &str,
        waiting: &Waiting,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let Asking { principal, agent, subject } = asking;
        let mut approval = Approval::new(agent.id, agent.client_id.clone(), self.now(), waiting.expires_at);
        approval.token = waiting.token.clone();
        approval.task_id = wanted.id.to_owned();
        approval.impact = Impact::High;
        approval.reservation = Some(key.to_owned());
        // The person for whom the chain acts is asked; an agent that acts for itself asks whoever manages approvals.
        let payer = subject.unwrap_or(principal);
        let person = payer.delegation.as_ref().and_then(|delegation| match &delegation.represented {
            Represented::User(user) => Some(user),
            Represented::Agent(_) => None,
        });
        approval.on_behalf_of = person.map(|user| user.id);
        let Note { model, action, .. } = &wanted.note;
        let amounts = shown(&wanted.usage);
        let what = action.as_deref().unwrap_or("a call");
        let caller_agent = subject.and_then(Principal::agent);
        let who = match caller_agent {
            Some(caller) => format!("{} at {}", caller.name, agent.name),
            None => agent.name.to_string(),
        };
        approval.reason = format!("{who}: {what} for {} USD", amounts["cost_usd"].as_str().unwrap_or("?"));
        approval.meta = Map::from_iter([
            ("reserve".to_owned(), amounts),
            ("model".to_owned(), Value::from(model.clone())),
            ("action".to_owned(), Value::from(action.clone())),
        ]);
        if let Some(caller) = caller_agent {
            approval.meta.insert("caller".to_owned(), caller.id.to_string().into());
        }
        // The chain that the log shows is that of whoever pays.
        self.open_approval(payer, agent, person, approval, caller).await?;
        Ok(())
    }

    /// A parked `hold` as it is once what was decided about it is done.
    pub(super) async fn followed(
        &self,
        org: &OrgId,
        actor: AgentId,
        key: &str,
        hold: Hold,
        now: Timestamp,
    ) -> Result<Hold, StoreError> {
        if hold.state != HoldState::Parked {
            return Ok(hold);
        }
        let note = Note::of(&hold);
        let Some(waiting) = &note.waiting else { return Ok(hold) };
        let Some(approval) = self.stores().approvals.find(org, &waiting.token).await? else {
            return Ok(hold);
        };
        self.follow(org, actor, key, hold, approval.status(now), now).await
    }

    /// Whether a human agreed, by the approval with this token, that the agent that `payers` pay for uses `usage` with `model`.
    ///
    /// One that a reservation waited for is to this reservation and nothing else: to no more than it holds now. To know that,
    /// the decision is carried out, if nobody has done that yet.
    ///
    /// One that the agent asked a person for itself is as narrow as what it showed: a `cost_usd` in its `meta` is the most, a
    /// `model` the only one. What `meta` does not name it does not limit, nor how often, until it is used up. It goes for the
    /// threshold of the agent itself and not for those of others who pay, who did not choose whom it asks.
    pub(super) async fn is_agreed_to(
        &self,
        org: &OrgId,
        payers: &Payers<'_>,
        token: &str,
        usage: &Usage,
        model: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let agent = payers.current().id;
        let Ok(token) = ApprovalToken::parse(token) else { return Ok(false) };
        let Some(approval) = self.stores().approvals.find(org, &token).await? else { return Ok(false) };
        let is_approved = approval.status(now) == ApprovalStatus::Approved && approval.consumed_at.is_none();
        if approval.agent != agent || !is_approved || !stands(self.stores(), org, &approval).await? {
            return Ok(false);
        }
        let Some(key) = &approval.reservation else {
            let is_own = !payers.others_need_approval(usage.micro_usd);
            return Ok(approval.is_usable(now) && is_own && is_shown(&approval, usage, model));
        };
        let id = HoldId { actor: agent, key };
        let Some(hold) = self.stores().budgets.hold(org, id, now).await? else { return Ok(false) };
        let hold = self.followed(org, agent, key, hold, now).await?;
        let held = amounts(&hold);
        let is_within = usage.tokens <= held.tokens
            && usage.calls <= held.calls
            && usage.micro_usd <= held.micro_usd
            && Note::of(&hold).model.as_deref() == model;
        Ok(is_within && hold.state == HoldState::Held && hold.is_live(now))
    }

    /// What waits for `approval` goes on, or ends.
    pub(super) async fn follow_decision(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(key) = &approval.reservation else { return Ok(()) };
        let id = HoldId { actor: approval.agent, key };
        if let Some(hold) = self.stores().budgets.hold(org, id, now).await?
            && hold.state == HoldState::Parked
        {
            self.follow(org, approval.agent, key, hold, approval.status(now), now).await?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        org: &OrgId,
        actor: AgentId,
        key: &str,
        hold: Hold,
        status: ApprovalStatus,
        now: Timestamp,
    ) -> Result<Hold, StoreError> {
        let lease = Duration::from_secs(Note::of(&hold).lease.into());
        let resolution = match status {
            ApprovalStatus::Approved => Resolution::Unpark(now.plus(lease)),
            ApprovalStatus::Denied => Resolution::Deny,
            ApprovalStatus::Expired if now >= hold.ends => Resolution::Expire,
            ApprovalStatus::Pending | ApprovalStatus::Expired => return Ok(hold),
        };
        let budgets = &self.stores().budgets;
        let id = HoldId { actor, key };
        match budgets.resolve(org, Some(id), &hold.lines, resolution, now).await? {
            Resolved::Done { .. } | Resolved::Stays(_) => {
                Ok(budgets.hold(org, id, now).await?.unwrap_or(hold))
            }
            Resolved::Unknown => Ok(hold),
        }
    }

    /// Frees the parked reservations that nobody decided about in time. One that cannot be freed keeps none of the others; the
    /// last failure is the answer.
    pub(super) async fn expire_parked(&self) -> Result<(), StoreError> {
        loop {
            let (now, mut done) = (self.now(), Ok(()));
            let overdue = self.stores().budgets.overdue(now, OVERDUE).await?;
            for parked in &overdue {
                let id = HoldId { actor: parked.actor, key: &parked.key };
                // Agreed to in time, and nobody has looked since: it is too late for that, too.
                let expired = self.stores().budgets.resolve(
                    &parked.org,
                    Some(id),
                    &parked.hold.lines,
                    Resolution::Expire,
                    now,
                );
                match expired.await {
                    Ok(Resolved::Done { .. } | Resolved::Stays(_) | Resolved::Unknown) => {}
                    Err(error) => done = Err(error),
                }
            }
            if done.is_err() || overdue.len() < OVERDUE as usize {
                return done;
            }
        }
    }
}
