//! Reservations: an agent holds a part of its budgets before it uses it, and says afterwards what it used.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    ApiError, AuthorizationServer, Caller,
    approvals::{Lines, readable, refuse_test_tokens},
    budget::{cost, count},
    on_behalf::payers,
    parking::{Asking, Waiting},
};
use crate::{
    agent::Agent,
    budget::{
        BudgetPolicy, HeldLine, Hold, HoldState, Line, Meter, MicroUsd, Resolution, Standing, Usage, exceeded,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    principal::Principal,
    secret::{Secret, sha256},
    spending::{Payers, Remaining, charged_line},
    store::{Admission, Charge, ChargeId, Charged, HoldId, NewHold, RateLimit, Resolved, StoreError},
};

/// How long a reservation is held, unless the caller says otherwise.
const LEASE: u32 = 60;

/// The longest lease, in seconds.
const LONGEST_LEASE: u32 = 3600;

/// How long after its lease a reservation may still be settled, and its id is known.
const KEEP: Duration = Duration::from_secs(86_400);

/// What is to be reserved. Absent and `null` are the same; unknown members are ignored.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct ReservationRequest {
    /// The caller's own id: repeating the call returns the first outcome.
    pub id: Option<String>,
    /// Model tokens.
    pub tokens: Option<Box<RawValue>>,
    /// API calls.
    pub api_calls: Option<Box<RawValue>>,
    /// Cost, as a decimal.
    pub cost_usd: Option<Box<RawValue>>,
    /// The model that will be used.
    pub model: Option<String>,
    /// For how long, in seconds.
    pub lease_seconds: Option<u32>,
    /// What for, in the words of whoever is asked for approval.
    pub action: Option<String>,
    /// The access token of whoever pays, if not the caller: of one who called the caller's service.
    pub subject_token: Option<Secret>,
    /// Whether to wait for a human above the approval threshold. If not said, an agent waits for itself, and for whoever called
    /// its service it does not.
    pub wait_for_approval: Option<bool>,
}

/// What was used. A meter that is not named was used as reserved.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct SettleRequest {
    /// Model tokens.
    pub tokens: Option<Box<RawValue>>,
    /// API calls.
    pub api_calls: Option<Box<RawValue>>,
    /// Cost, as a decimal.
    pub cost_usd: Option<Box<RawValue>>,
}

/// Where a reservation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct Reservation {
    /// The caller's id.
    pub id: String,
    /// The hold.
    pub hold: Hold,
    /// What is left to the caller, as far as limits go.
    pub remaining: Remaining,
    /// The members of the policy of whoever pays for its call whose maximum is reached by its own use.
    pub exceeded: Vec<&'static str>,
    /// Whether this call made it what it is; a repetition did not.
    pub new: bool,
    /// How many more questions to people whoever pays may cause, if this call was counted as one.
    pub questions: Option<Admission>,
    /// The instant it is described at.
    pub now: Timestamp,
}

/// What a reservation remembers of its request, beside the amounts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// The lease that was asked for, in seconds.
    pub(super) lease: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<String>,
    /// The approval that it waits for, or waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Waiting>,
    /// The agents that pay in place of the caller, the one that called it last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) payers: Vec<AgentId>,
}

impl Note {
    /// The note of `hold`. Every reservation has one; a hold of something else has none.
    pub(super) fn of(hold: &Hold) -> Self {
        serde_json::from_str(&hold.note).unwrap_or_default()
    }
}

/// A request, read.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) usage: Usage,
    pub(super) note: Note,
}

impl<'a> Wanted<'a> {
    fn read(request: &'a ReservationRequest) -> Result<Self, ApiError> {
        let invalid = |member, problem: &str| ApiError::Invalid { member, problem: problem.to_owned() };
        let id = request.id.as_deref().ok_or_else(|| invalid("id", "is required"))?;
        if !(1..=128).contains(&id.len()) {
            return Err(invalid("id", "must be 1 to 128 bytes"));
        }
        let lease = request.lease_seconds.unwrap_or(LEASE);
        if !(1..=LONGEST_LEASE).contains(&lease) {
            return Err(invalid("lease_seconds", "must be 1 to 3600"));
        }
        // All three are shown to whoever is asked for approval.
        for (member, text) in [("id", &request.id), ("model", &request.model), ("action", &request.action)] {
            if let Some(text) = text {
                readable(member, text, 128, Lines::One)?;
            }
        }
        let usage = Usage {
            tokens: count("tokens", request.tokens.as_deref())?,
            calls: count("api_calls", request.api_calls.as_deref())?,
            micro_usd: cost("cost_usd", request.cost_usd.as_deref())?.micros(),
        };
        let (model, action) = (request.model.clone(), request.action.clone());
        let note = Note { lease, model, action, waiting: None, payers: Vec::new() };
        Ok(Self { id, usage, note })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.note.lease.into())
    }

    /// What tells this request from another one under the same id.
    fn hash(&self) -> [u8; 32] {
        let Note { lease, model, action, payers, .. } = &self.note;
        sha256(json!([shown(&self.usage), lease, model, action, payers]).to_string().as_bytes())
    }
}

impl AuthorizationServer {
    /// Holds a part of the budgets of everybody who pays for what `agent` does as `principal`: all of it, or nothing.
    ///
    /// With a subject token, those pay whose token it is: for services that charge whoever calls them. The reservation is
    /// the service's all the same. Such a token must be one that the service may introspect.
    ///
    /// One that a person is asked about is counted against `questions`, as one of the agent that pays for its call: a service
    /// has many callers, and one of them must not take this from the others. It is counted before anything is written. Whoever
    /// goes away then has used up a question that nobody was asked, and a repetition is not counted again.
    ///
    /// # Errors
    /// [`ApiError`] if the request is not acceptable, the model is not allowed, somebody has no room, the id was used for
    /// something else, or too many people were asked lately ([`ApiError::TooManyQuestions`]).
    pub async fn open_reservation(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        request: &ReservationRequest,
        caller: &Caller,
        questions: Option<RateLimit>,
    ) -> Result<Reservation, ApiError> {
        let now = self.now();
        let mut wanted = Wanted::read(request)?;
        let subject = match &request.subject_token {
            Some(token) => Some(self.subject_of(org, principal, agent, token).await?),
            None => None,
        };
        let payers = match &subject {
            Some(subject) => {
                wanted.note.payers = subject.agents().map(|agent| agent.id).collect();
                Payers::of_caller(subject, agent)
            }
            None => Payers::of_caller(principal, agent),
        };
        if !payers.allow_model(wanted.note.model.as_deref()) {
            return Err(ApiError::ModelNotAllowed);
        }
        if payers.need_approval(wanted.usage.micro_usd) {
            // Nobody is asked for what nobody waits for.
            if !request.wait_for_approval.unwrap_or(subject.is_none()) {
                return Err(ApiError::ApprovalRequired);
            }
            refuse_test_tokens(principal)?;
            subject.as_ref().map_or(Ok(()), refuse_test_tokens)?;
            wanted.note.waiting = Some(Waiting::begin(now));
        }
        let ends = match &wanted.note.waiting {
            Some(waiting) => waiting.hold_ends(wanted.lease(), now),
            None => now.plus(wanted.lease()),
        };
        let asking = Asking { principal, agent, subject: subject.as_ref() };
        let lines = payers.lines(&wanted.usage, Standing::Hold, now);
        let note = json!(wanted.note).to_string();
        let key = stored_key(wanted.id);
        let id =
            ChargeId { actor: agent.id, key: &key, request_hash: wanted.hash(), keep_until: ends.plus(KEEP) };
        let hold = NewHold { parked: wanted.note.waiting.is_some(), ends, note: &note };
        let questions = match questions.filter(|_| hold.parked) {
            Some(limit) => self.count_question(org, agent, &key, payers.current(), limit).await?,
            None => None,
        };
        match self.stores().budgets.charge(org, &Charge::held(id, &lines, hold), now).await? {
            Charged::Charged(counters) => {
                // The amount is held first: an approval that nobody can use any more would be worse than a hold that
                // nobody was asked about, which a repetition of this call makes good.
                if let Some(waiting) = &wanted.note.waiting {
                    self.ask_for_approval(asking, &wanted, &key, waiting, caller).await?;
                }
                let remaining = payers.remaining(&lines, &counters, now);
                let exceeded = reached(payers.current(), &lines, &counters, now);
                let hold = hold.of(&lines);
                let id = wanted.id.to_owned();
                Ok(Reservation { id, hold, remaining, exceeded, new: true, questions, now })
            }
            Charged::Repeated => {
                let repeated = self.reservation(org, principal, agent, wanted.id).await?;
                if let (true, Some(waiting)) = (repeated.is_pending(), Note::of(&repeated.hold).waiting) {
                    self.ask_for_approval(asking, &wanted, &key, &waiting, caller).await?;
                }
                Ok(repeated)
            }
            Charged::Conflict => Err(ApiError::Conflict("This id was used for another reservation.")),
            Charged::Exceeded { line, used } => {
                let (stores, line) = (self.stores(), charged_line(&lines, line)?);
                Err(payers.exhausted(stores, org, line, used, &caller.origin, now).await?.into())
            }
        }
    }

    /// Counts a question to a person as one of `payer`, unless there is a reservation with this key already: whoever made it
    /// has been counted.
    async fn count_question(
        &self,
        org: &OrgId,
        agent: &Agent,
        key: &str,
        payer: &Agent,
        limit: RateLimit,
    ) -> Result<Option<Admission>, ApiError> {
        let id = HoldId { actor: agent.id, key };
        if self.stores().budgets.hold(org, id, self.now()).await?.is_some() {
            return Ok(None);
        }
        // What agents ask people directly is counted under the same name.
        match self.rate_limit(org, &format!("approval {}", payer.id), limit).await? {
            (admission, _) if admission.admitted => Ok(Some(admission)),
            (admission, now) => Err(ApiError::TooManyQuestions { admission, now }),
        }
    }

    /// The reservation of `agent` with this id.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, or the store cannot answer.
    pub async fn reservation(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        id: &str,
    ) -> Result<Reservation, ApiError> {
        let hold = self.found(org, agent, id, self.now()).await?;
        self.described(org, principal, agent, id, hold, false).await
    }

    /// Records what was used of a reservation in place of what is held: a fact, also where it passes a limit or comes after
    /// the lease. A repetition returns the first outcome.
    ///
    /// # Errors
    /// [`ApiError`] if an amount is not acceptable, there is no such reservation, it was released, or it waits for approval.
    pub async fn settle_reservation(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        id: &str,
        request: &SettleRequest,
        caller: &Caller,
    ) -> Result<Reservation, ApiError> {
        let hold = self.found(org, agent, id, self.now()).await?;
        let held = amounts(&hold);
        let or_held = |given: Option<u64>, held| given.unwrap_or(held);
        let given = |raw: &Option<Box<RawValue>>| raw.as_deref().filter(|raw| raw.get() != "null").is_some();
        let usage = Usage {
            tokens: or_held(
                given(&request.tokens).then_some(count("tokens", request.tokens.as_deref())?),
                held.tokens,
            ),
            calls: or_held(
                given(&request.api_calls).then_some(count("api_calls", request.api_calls.as_deref())?),
                held.calls,
            ),
            micro_usd: or_held(
                given(&request.cost_usd).then_some(cost("cost_usd", request.cost_usd.as_deref())?.micros()),
                held.micro_usd,
            ),
        };
        let settled = self.resolved(org, principal, agent, id, hold, Resolution::Settle(usage)).await?;
        match settled.hold.state {
            HoldState::Settled(_) => {}
            HoldState::Parked if settled.is_pending() => {
                return Err(ApiError::Conflict("The reservation waits for approval."));
            }
            HoldState::Parked | HoldState::Expired => {
                return Err(ApiError::Conflict("Nobody approved the reservation in time."));
            }
            HoldState::Denied => return Err(ApiError::Conflict("The reservation was denied.")),
            HoldState::Released => return Err(ApiError::Conflict("The reservation was released.")),
            // It waited when it was to be settled, and was agreed to before it was looked at again.
            HoldState::Held => return Err(ApiError::Conflict("The reservation waited for approval.")),
        }
        if settled.new {
            let others = self.other_payers(org, &settled.hold).await?;
            let payers = payers(principal, agent, &others);
            payers.record_exceeded(self.stores(), org, &caller.origin, self.now()).await?;
        }
        Ok(settled)
    }

    /// Frees a reservation of which nothing was used. If it waits for approval, nobody is asked for it any more; a repetition
    /// makes good what of that a failure left out.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such reservation, or it was settled.
    pub async fn release_reservation(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        id: &str,
        caller: &Caller,
    ) -> Result<Reservation, ApiError> {
        let hold = self.found(org, agent, id, self.now()).await?;
        let released = self.resolved(org, principal, agent, id, hold, Resolution::Release).await?;
        match released.hold.state {
            HoldState::Settled(_) => Err(ApiError::Conflict("The reservation was settled.")),
            HoldState::Released => {
                if let Some(waiting) = Note::of(&released.hold).waiting {
                    self.withdraw_approval(principal, &waiting.token, caller).await?;
                }
                Ok(released)
            }
            HoldState::Held | HoldState::Parked | HoldState::Denied | HoldState::Expired => Ok(released),
        }
    }

    /// What `agent` holds in the present windows, by reservations that are neither settled nor over.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn held(&self, org: &OrgId, agent: &Agent) -> Result<Usage, ApiError> {
        let now = self.now();
        let holds = self.stores().budgets.live_holds(org, agent.id, now, MOST_LIVE).await?;
        let mut held = Usage::default();
        let account = agent.account();
        for line in holds.iter().flat_map(|hold| &hold.lines) {
            if line.account == account && line.window_start == line.window.start(now) {
                let sum = match line.meter {
                    Meter::Tokens => &mut held.tokens,
                    Meter::Calls => &mut held.calls,
                    Meter::MicroUsd => &mut held.micro_usd,
                };
                *sum = sum.saturating_add(line.amount);
            }
        }
        Ok(held)
    }

    /// The hold of a reservation, with what was decided about it done.
    async fn found(&self, org: &OrgId, agent: &Agent, id: &str, now: Timestamp) -> Result<Hold, ApiError> {
        let key = stored_key(id);
        let id = HoldId { actor: agent.id, key: &key };
        let hold =
            self.stores().budgets.hold(org, id, now).await?.ok_or(ApiError::NotFound("reservation"))?;
        Ok(self.followed(org, agent.id, &key, hold, now).await?)
    }

    /// Makes `resolution` hold of a reservation, if its state allows it: what it is then.
    async fn resolved(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        id: &str,
        hold: Hold,
        resolution: Resolution,
    ) -> Result<Reservation, ApiError> {
        let now = self.now();
        let key = stored_key(id);
        let hold_id = HoldId { actor: agent.id, key: &key };
        match self.stores().budgets.resolve(org, Some(hold_id), &hold.lines, resolution, now).await? {
            Resolved::Done { .. } => {
                let hold = self.found(org, agent, id, now).await?;
                self.described(org, principal, agent, id, hold, true).await
            }
            Resolved::Stays(_) => {
                let hold = self.found(org, agent, id, now).await?;
                self.described(org, principal, agent, id, hold, false).await
            }
            Resolved::Unknown => Err(ApiError::NotFound("reservation")),
        }
    }

    async fn described(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        id: &str,
        hold: Hold,
        new: bool,
    ) -> Result<Reservation, ApiError> {
        let others = self.other_payers(org, &hold).await?;
        let payers = payers(principal, agent, &others);
        let (remaining, exceeded) = self.remaining(org, &payers).await?;
        let (id, now) = (id.to_owned(), self.now());
        Ok(Reservation { id, hold, remaining, exceeded, new, questions: None, now })
    }

    /// What is left to everybody who pays, and what the agent that makes the call has used up of its own.
    async fn remaining(
        &self,
        org: &OrgId,
        payers: &Payers<'_>,
    ) -> Result<(Remaining, Vec<&'static str>), StoreError> {
        let now = self.now();
        let lines: Vec<Line> = payers.lines(&Usage::default(), Standing::Hold, now);
        let mut counters = Vec::with_capacity(lines.len());
        let mut known: Option<(crate::budget::Account, Usage)> = None;
        for line in &lines {
            let usage = match known {
                Some((account, usage)) if account == line.account => usage,
                _ => self.stores().budgets.usage(org, line.account, now).await?,
            };
            known = Some((line.account, usage));
            counters.push(usage.of(line.meter));
        }
        let exceeded = reached(payers.current(), &lines, &counters, now);
        Ok((payers.remaining(&lines, &counters, now), exceeded))
    }
}

/// How many live holds of one agent are summed up.
const MOST_LIVE: u32 = 10_000;

/// The id of a reservation as stores know it: reports of use have ids of their own.
fn stored_key(id: &str) -> String {
    format!("reservation {id}")
}

/// The amounts of `hold`, which are the same for everybody who pays.
pub(super) fn amounts(hold: &Hold) -> Usage {
    let of = |meter| {
        let line = hold.lines.iter().find(|line: &&HeldLine| line.meter == meter);
        line.map(|line| line.amount).unwrap_or_default()
    };
    Usage { tokens: of(Meter::Tokens), calls: of(Meter::Calls), micro_usd: of(Meter::MicroUsd) }
}

/// The members of the policy of `agent` whose maximum is reached by its own counters, out of those of `lines`.
fn reached(agent: &Agent, lines: &[Line], counters: &[u64], now: Timestamp) -> Vec<&'static str> {
    let account = agent.account();
    let mut used = Usage::default();
    for (line, counter) in lines.iter().zip(counters).filter(|(line, _)| line.account == account) {
        match line.meter {
            Meter::Tokens => used.tokens = *counter,
            Meter::Calls => used.calls = *counter,
            Meter::MicroUsd => used.micro_usd = *counter,
        }
    }
    exceeded(&agent.budget, &used, now).map(|(limit, _)| BudgetPolicy::member_of(limit.meter)).collect()
}

/// Amounts as the wire shows them: whole numbers for tokens and calls, decimal text for money.
pub(super) fn shown(usage: &Usage) -> Value {
    json!({
        "tokens": usage.tokens,
        "api_calls": usage.calls,
        "cost_usd": MicroUsd::from_micros(usage.micro_usd).to_string(),
    })
}

impl Reservation {
    /// Whether it waits for a human.
    pub fn is_pending(&self) -> bool {
        self.waiting().is_some()
    }

    /// The approval that it waits for, while somebody can still decide.
    fn waiting(&self) -> Option<Waiting> {
        if self.hold.state != HoldState::Parked {
            return None;
        }
        Note::of(&self.hold).waiting.filter(|waiting| self.now < waiting.expires_at)
    }

    /// The JSON of it; `prefix` begins the paths of links.
    pub fn to_json(&self, prefix: &str) -> Value {
        let waiting = self.waiting();
        let status = match self.hold.state {
            HoldState::Held => "held",
            HoldState::Parked if waiting.is_some() => "pending_approval",
            // Nobody can decide any more. The amount is freed when the hold ends.
            HoldState::Parked => "expired",
            HoldState::Settled(_) => "settled",
            HoldState::Released => "released",
            HoldState::Denied => "denied",
            HoldState::Expired => "expired",
        };
        let mut view = json!({
            "id": self.id,
            "status": status,
            "held": shown(&amounts(&self.hold)),
            "remaining": self.remaining.to_json(),
            "expires_at": self.hold.ends.to_string(),
        });
        if let Some(Waiting { token, expires_at }) = waiting {
            view["status_url"] = format!("{prefix}/agents/me/approvals/{}/status", token.as_str()).into();
            view["approval_token"] = token.as_str().into();
            view["expires_at"] = expires_at.to_string().into();
        }
        if let HoldState::Settled(usage) = &self.hold.state {
            view["charged"] = shown(usage);
            view["exceeded"] = json!(self.exceeded);
        }
        view
    }
}
