//! What agents ask people to allow, and what people say.
//!
//! The store is the truth: whatever waits for a decision is told after it by [`AuthorizationServer::after_decision`], and
//! again whenever its agent asks, until it has heard.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ApiError, AuthorizationServer, Caller, Reviewer};
pub(super) use crate::approval::Lines;
use crate::{
    agent::Agent,
    approval::{Approval, ApprovalStatus, ApprovalToken, Decision, Epochs, Impact, is_plain, shows_nothing},
    audit::{Actor, Event, EventKind, Origin, Target, cleaned},
    clock::Timestamp,
    id::{AgentId, OrgId, UserId},
    jit::ActionHash,
    organization::OrganizationStatus,
    principal::Principal,
    spending::{Payers, Remaining},
    store::{AgentKey, Decide, Listing, NewApproval, Page, StoreError, Stores, UserKey},
    user::User,
};

/// How long people have to decide what an agent asks them directly.
pub(super) const APPROVAL_LIFE: Duration = Duration::from_secs(300);

/// How many ends of approvals one round of maintenance writes down in an organization.
const ENDED_AT_ONCE: u32 = 1000;

/// What an agent asks a person to allow. Absent and `null` are the same; unknown members are ignored.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// The agent's own name for what it is doing.
    pub task_id: Option<String>,
    /// What it wants to do, in words for people.
    pub reason: Option<String>,
    /// `low`, `medium` (if absent), `high` or `critical`.
    pub impact: Option<String>,
    /// Who is asked: an e-mail address or a user id.
    pub on_behalf_of: Option<String>,
    /// What else the person is shown.
    pub meta: Option<Map<String, Value>>,
}

/// What a person says beside yes or no.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct ApprovalDecisionRequest {
    /// What they want the agent to know.
    pub note: Option<String>,
    /// Names what they saw. If it is there, only that is decided.
    pub action_hash: Option<String>,
}

/// An approval that was just opened.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct OpenedApproval {
    /// The approval.
    pub approval: Arc<Approval>,
    /// What is left of the agent's budget.
    pub remaining: Remaining,
}

/// A request, read.
struct Wanted<'a> {
    task_id: String,
    reason: String,
    impact: Impact,
    who: &'a str,
    meta: Map<String, Value>,
}

impl<'a> Wanted<'a> {
    fn read(request: &'a ApprovalRequest) -> Result<Self, ApiError> {
        let impact = match request.impact.as_deref() {
            None => Impact::default(),
            Some(name) => Impact::named(name)
                .ok_or_else(|| invalid("impact", "must be low, medium, high or critical"))?,
        };
        let meta = request.meta.clone().unwrap_or_default();
        if serde_json::to_string(&meta).map_or(usize::MAX, |text| text.len()) > Approval::MAX_META {
            return Err(invalid("meta", format!("must be at most {} bytes", Approval::MAX_META)));
        }
        let who = request.on_behalf_of.as_deref().unwrap_or_default();
        let is_name = (1..=254).contains(&who.len())
            && is_plain(who, Lines::One)
            && !who.chars().any(char::is_whitespace);
        if !is_name {
            return Err(invalid("on_behalf_of", "must be an e-mail address or a user id"));
        }
        let task_id = request.task_id.as_deref().unwrap_or_default();
        let reason = request.reason.as_deref().unwrap_or_default();
        Ok(Self {
            task_id: readable("task_id", task_id, Approval::MAX_TASK_ID, Lines::One)?,
            reason: readable("reason", reason, Approval::MAX_REASON, Lines::Several)?,
            impact,
            who,
            meta,
        })
    }
}

/// Text as it was written, if a person sees there what is written: some, not too much, and nothing in it that makes it look
/// like something else.
pub(super) fn readable(
    member: &'static str,
    text: &str,
    most: usize,
    lines: Lines,
) -> Result<String, ApiError> {
    if text.chars().count() > most {
        return Err(invalid(member, format!("is longer than {most} characters")));
    }
    if !is_plain(text, lines) {
        return Err(invalid(member, "contains control characters"));
    }
    if shows_nothing(text) {
        return Err(invalid(member, "is required"));
    }
    Ok(text.to_owned())
}

/// The same of text that may be left out. What shows nothing is left out, as it is where an administrator writes.
pub(super) fn readable_if_any(
    member: &'static str,
    text: Option<&str>,
    most: usize,
    lines: Lines,
) -> Result<Option<String>, ApiError> {
    let text = text.filter(|text| !(is_plain(text, lines) && shows_nothing(text)));
    text.map(|text| readable(member, text, most, lines)).transpose()
}

fn invalid(member: &'static str, problem: impl Into<String>) -> ApiError {
    ApiError::Invalid { member, problem: problem.into() }
}

/// A token that an administrator made to try things out asks nobody.
pub(super) fn refuse_test_tokens(principal: &Principal) -> Result<(), ApiError> {
    match &principal.claims {
        Some(claims) if claims.test => Err(ApiError::TestTokenNotAccepted),
        _ => Ok(()),
    }
}

impl AuthorizationServer {
    /// Asks a person to allow what `agent` wants to do, which is charged one API call.
    ///
    /// Whether there is such a person is not told: one without an approver channel is answered like one who does not exist.
    ///
    /// # Errors
    /// [`ApiError`] if the token is a test token, the agent may not act for others, a member is not acceptable, the budget
    /// is used up, too many of the agent's wait for the person, or the request reaches nobody ([`ApiError::NotDelivered`]).
    pub async fn request_approval(
        &self,
        principal: &Principal,
        agent: &Agent,
        request: &ApprovalRequest,
        caller: &Caller,
    ) -> Result<OpenedApproval, ApiError> {
        refuse_test_tokens(principal)?;
        if !agent.may_delegate() {
            return Err(ApiError::DelegationNotAllowed);
        }
        let Wanted { task_id, reason, impact, who, meta } = Wanted::read(request)?;
        let (org, now) = (&principal.org, self.now());
        let payers = Payers::of_caller(principal, agent);
        let remaining = payers.charge_call(self.stores(), org, &caller.origin, now).await??;
        let user = self.find_user(org, who).await?;
        let user = user.filter(|user| user.is_active());
        let Some(user) = user.as_ref().filter(|user| user.has_approver_channel()) else {
            if self.falls_back(org, who, user.as_ref(), agent).await {
                return Err(ApiError::ToldByMail { task_id, impact: impact.as_str() });
            }
            return Err(ApiError::NotDelivered { task_id });
        };
        let mut approval = Approval::new(agent.id, agent.client_id.clone(), now, now.plus(APPROVAL_LIFE));
        approval.on_behalf_of = Some(user.id);
        (approval.task_id, approval.reason, approval.impact, approval.meta) = (task_id, reason, impact, meta);
        let approval = self.open_approval(principal, agent, Some(user), approval, caller).await?;
        Ok(OpenedApproval { approval, remaining })
    }

    /// Opens `approval`, which was made by `agent`, that calls as `principal`, and tells `user` of it, who is asked. Opening
    /// it again changes nothing: what is there is returned, decided or not. So whoever writes down its token first can
    /// always go on after a failure.
    ///
    /// # Errors
    /// [`ApiError`] if too many wait already, or the store cannot answer.
    pub(super) async fn open_approval(
        &self,
        principal: &Principal,
        agent: &Agent,
        user: Option<&Arc<User>>,
        mut approval: Approval,
        caller: &Caller,
    ) -> Result<Arc<Approval>, ApiError> {
        let org = &principal.org;
        let organization = self.organization(org).await?;
        approval.epochs = Epochs { organization: organization.epoch, agent: agent.epoch };
        approval.action_hash = Some(ActionHash::of(&approval.action()));
        let event = caller.event(EventKind::ApprovalRequested, "approval requested", approval.created_at);
        let event = principal.in_context(about(&approval, event));
        match self.stores().approvals.insert(org, &approval, &event).await? {
            NewApproval::Inserted => {
                if let Some(user) = user.filter(|user| user.has_approver_channel()) {
                    self.announce_approval(&organization, user, agent, &approval).await;
                }
                Ok(Arc::new(approval))
            }
            NewApproval::TooMany => Err(ApiError::TooManyPending),
            NewApproval::Taken => {
                let found = self.stores().approvals.find(org, &approval.token).await?;
                found.filter(|found| found.agent == approval.agent).ok_or_else(|| {
                    StoreError::other("approvals.insert", "the token of an approval is of another one").into()
                })
            }
        }
    }

    /// What became of an approval, for the agent that asked. Asking is free.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, another agent asked for it, the token is a test token, or what waits for it cannot be
    /// told now.
    pub async fn approval_status(
        &self,
        principal: &Principal,
        agent: &Agent,
        token: &str,
    ) -> Result<Arc<Approval>, ApiError> {
        refuse_test_tokens(principal)?;
        let approval = self.found_approval(&principal.org, token).await?;
        if approval.agent != agent.id {
            return Err(ApiError::Forbidden("Another agent asked for this approval."));
        }
        self.after_decision(&principal.org, &approval, self.now()).await?;
        Ok(approval)
    }

    /// What waits for the person, what ends first at first. For whoever decides for others: what waits for anybody.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn pending_approvals(
        &self,
        reviewer: &Reviewer,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, ApiError> {
        let of = reviewer.sees_approvals_of();
        Ok(self.stores().approvals.pending(reviewer.org(), of, self.now(), page).await?)
    }

    /// An approval, for a person who may decide on it.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, or somebody else is asked.
    pub async fn approval(&self, reviewer: &Reviewer, token: &str) -> Result<Arc<Approval>, ApiError> {
        let approval = self.found_approval(reviewer.org(), token).await?;
        reviewer.check_approval_of(approval.on_behalf_of)?;
        Ok(approval)
    }

    /// Takes what the person says, once and in time. What others are asked, or nobody in particular, needs the permission
    /// `approvals.manage` and a scope, as [`Reviewer`] says.
    ///
    /// # Errors
    /// [`ApiError`] if another one is asked, there is no such approval, it was decided or has expired, the note is not
    /// acceptable, it is not what the person saw, or it is approved and is not what was asked any more, or its organization,
    /// its agent or whom it is for was stopped since.
    pub async fn decide_approval(
        &self,
        reviewer: &Reviewer,
        token: &str,
        approved: bool,
        request: &ApprovalDecisionRequest,
        caller: &Caller,
    ) -> Result<Approval, ApiError> {
        let (org, user, now) = (reviewer.org(), reviewer.user(), self.now());
        let approval = self.approval(reviewer, token).await?;
        let seen = request.action_hash.as_deref().filter(|hash| !hash.is_empty());
        if seen.is_some_and(|hash| hash != ActionHash::of(&approval.action()).as_str())
            || approved && !approval.is_as_asked()
        {
            return Err(ApiError::Forbidden("This is not what was shown."));
        }
        let note = request.note.as_deref();
        let note = readable_if_any("note", note, Approval::MAX_REASON, Lines::Several)?;
        let mut epoch_of_whom = None;
        if approved && approval.status(now) == ApprovalStatus::Pending {
            // Not from a cache: an agent that was stopped a moment ago gets no more yes.
            let stores = self.stores().uncached();
            if let Some(whom) = approval.on_behalf_of.filter(|whom| *whom != user.id) {
                let whom = stores.users.find(org, UserKey::Id(whom)).await?;
                epoch_of_whom = whom.map(|whom| whom.epoch);
            }
            // Afterwards: whoever is blocked between the two is seen here, and later has another epoch.
            if !stands(&stores, org, &approval).await? {
                return Err(ApiError::Conflict(
                    "The agent that asked, or whom it is for, was stopped since.",
                ));
            }
        }
        let (kind, text) = if approved {
            (EventKind::ApprovalApproved, "approval given")
        } else {
            (EventKind::ApprovalDenied, "approval denied")
        };
        let event =
            about(&approval, caller.event(kind, text, now)).with("agent_id", approval.agent.to_string());
        let (by, number) = (Some(user.id), Some(user.number));
        let epoch = user.epoch;
        let decision = Decision { approved, by, number, epoch, epoch_of_whom, at: now, note };
        match self.stores().approvals.decide(org, &approval, &decision, now, &event).await? {
            Decide::Decided => {}
            Decide::AlreadyDecided => return Err(ApiError::Conflict("This approval was decided before.")),
            Decide::Expired => return Err(ApiError::Conflict("This approval has expired.")),
            Decide::Missing => return Err(ApiError::NotFound("approval")),
        }
        let approval = approval.with_decision(decision);
        if let Err(error) = self.after_decision(org, &approval, now).await {
            // What was said stands. Whatever waits for it is told when its agent asks.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, approval = approval.token.fingerprint(), "cannot go on after a decision");
        }
        Ok(approval)
    }

    /// Takes back what the agent that calls as `principal` asked, unless it was decided: nobody is to answer what nothing waits
    /// for. Doing it again changes nothing.
    pub(super) async fn withdraw_approval(
        &self,
        principal: &Principal,
        token: &ApprovalToken,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let (org, now, approvals) = (&principal.org, self.now(), &self.stores().approvals);
        let Some(approval) = approvals.find(org, token).await? else { return Ok(()) };
        if approval.status(now) != ApprovalStatus::Pending {
            return Ok(());
        }
        let event = caller.event(EventKind::ApprovalWithdrawn, "request for approval taken back", now);
        let event = principal.in_context(about(&approval, event));
        let decision = Decision {
            approved: false,
            by: None,
            number: None,
            epoch: 0,
            epoch_of_whom: None,
            at: now,
            note: None,
        };
        match approvals.decide(org, &approval, &decision, now, &event).await? {
            // Somebody may have been faster: what they said is about nothing now.
            Decide::Decided | Decide::AlreadyDecided | Decide::Expired | Decide::Missing => Ok(()),
        }
    }

    /// Writes down which requests ended because nobody decided in time, up to a number that the next round goes on from.
    pub(super) async fn tell_ended_approvals(&self, org: &OrgId, now: Timestamp) -> Result<(), StoreError> {
        let caller = Caller::new(Actor::system(), Origin::default());
        for approval in self.stores().approvals.ended(org, now, ENDED_AT_ONCE).await? {
            let event = caller.event(EventKind::ApprovalExpired, "approval expired", now);
            let event = about(&approval, event).with("agent_id", approval.agent.to_string());
            // Another server may have been faster.
            let _told = self.stores().approvals.lapse(org, &approval, now, &event).await?;
        }
        Ok(())
    }

    /// The name of the agent that asked, for those who are to decide; `None` if there is no such agent any more.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn asking_agent(&self, org: &OrgId, approval: &Approval) -> Result<Option<Arc<str>>, ApiError> {
        self.agent_name(org, approval.agent).await
    }

    /// The name of an agent; `None` if there is no such agent any more.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn agent_name(&self, org: &OrgId, id: AgentId) -> Result<Option<Arc<str>>, ApiError> {
        let agent = self.stores().agents.find(org, AgentKey::Id(id)).await?;
        Ok(agent.map(|agent| Arc::from(&*agent.name)))
    }

    async fn found_approval(&self, org: &OrgId, token: &str) -> Result<Arc<Approval>, ApiError> {
        let token = ApprovalToken::parse(token).map_err(|_| ApiError::NotFound("approval"))?;
        self.stores().approvals.find(org, &token).await?.ok_or(ApiError::NotFound("approval"))
    }

    /// What waits for `approval` goes on, or ends, as far as its state at `now` says. Called after every decision and
    /// whenever its agent asks for it, so it must change nothing the second time.
    async fn after_decision(&self, org: &OrgId, approval: &Approval, now: Timestamp) -> Result<(), ApiError> {
        Ok(self.follow_decision(org, approval, now).await?)
    }
}

/// Whether `approval` is what was asked, and everybody whom it rests on is as they were: the organization and the agent as
/// when it was asked, whoever agreed and whom it is for as when it was agreed to, and until then active. Who was stopped since
/// ended it for good, as they ended their tokens.
pub(super) async fn stands(stores: &Stores, org: &OrgId, approval: &Approval) -> Result<bool, StoreError> {
    if !approval.is_as_asked() {
        return Ok(false);
    }
    let Epochs { organization, agent } = approval.epochs;
    let found = stores.organizations.find(org).await?;
    if !found.is_some_and(|found| found.status == OrganizationStatus::Active && found.epoch == organization) {
        return Ok(false);
    }
    let found = stores.agents.find(org, AgentKey::Id(approval.agent)).await?;
    if !found.is_some_and(|found| found.is_active() && found.epoch == agent) {
        return Ok(false);
    }
    let decision = approval.decision.as_ref();
    let by = decision.and_then(|decision| Some((decision.by?, Some(decision.epoch))));
    let whom = approval.on_behalf_of.map(|user| (user, decision.and_then(|decision| decision.epoch_of_whom)));
    for (user, epoch) in by.into_iter().chain(whom) {
        let found = stores.users.find(org, UserKey::Id(user)).await?;
        if !found.is_some_and(|found| found.is_active() && epoch.is_none_or(|epoch| found.epoch == epoch)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `event`, about this approval. Its token is not for the log; what it says to people is named by the hash.
fn about(approval: &Approval, event: Event) -> Event {
    event
        .on(Target::new("approval", approval.token.fingerprint()))
        .with("task_id", cleaned(&approval.task_id))
        .with("impact", approval.impact.as_str())
        .with("on_behalf_of", approval.on_behalf_of.as_ref().map(UserId::to_string))
        .with("action_hash", ActionHash::of(&approval.action()).as_str())
}

#[cfg(test)]
mod tests;
