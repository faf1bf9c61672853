//! A person answers what an agent asked for.

use std::sync::Arc;

use serde::Deserialize;

use super::request::about;
use crate::{
    audit::{EventKind, cleaned},
    id::OrgId,
    jit::{JitRequest, RequestStatus, Rule, Ruling},
    server::{
        ApiError, AuthorizationServer, Caller, Reviewer,
        approvals::{Lines, readable_if_any},
    },
    store::{AgentKey, Listing, Page, RequestEvents},
};

/// A yes. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct JitApproval {
    /// For how many seconds, if not for as many as were asked for.
    pub ttl: Option<u64>,
    /// For people, in the audit log; never shown to the agent.
    pub notes: Option<String>,
    /// What the agent is to know.
    pub agent_message: Option<String>,
    /// Names what the person saw. If it is there, only that is granted.
    pub action_hash: Option<String>,
}

/// A no. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct JitDenial {
    /// For people, in the audit log; never shown to the agent.
    pub reason: Option<String>,
    /// What the agent is to know.
    pub agent_message: Option<String>,
    /// Names what the person saw. If it is there, only that is denied.
    pub action_hash: Option<String>,
}

/// What a person says.
struct Said<'a> {
    approved: bool,
    ttl: Option<u64>,
    notes: (&'static str, Option<&'a str>),
    agent_message: Option<&'a str>,
}

impl AuthorizationServer {
    /// What waits for the person, what ends first at first.
    ///
    /// # Errors
    /// [`ApiError::InsufficientScope`] if they came without the scope `jit:approve`.
    pub async fn pending_permissions(
        &self,
        reviewer: &Reviewer,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, ApiError> {
        let (org, of, now) = (reviewer.org(), reviewer.sees_jit_of()?, self.now());
        Ok(self.stores().jit.pending(org, of, now, page).await?)
    }

    /// A request, for a person who may decide on it.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, or somebody else decides on it.
    pub async fn asked_permission(&self, reviewer: &Reviewer, id: &str) -> Result<Arc<JitRequest>, ApiError> {
        let request = self.found_request(reviewer.org(), id).await?;
        reviewer.check_jit_of(request.on_behalf_of)?;
        Ok(request)
    }

    /// Grants a request, once and in time.
    ///
    /// # Errors
    /// [`ApiError`] if somebody else decides on it, whom it is for has not agreed to the agent, it does not wait any more,
    /// its agent is not active any more, or it is not what the person saw.
    pub async fn approve_permission(
        &self,
        reviewer: &Reviewer,
        id: &str,
        approval: &JitApproval,
        caller: &Caller,
    ) -> Result<JitRequest, ApiError> {
        let request = self.asked_permission(reviewer, id).await?;
        let seen = approval.action_hash.as_deref().filter(|hash| !hash.is_empty());
        if seen.is_some_and(|hash| hash != request.action_hash.as_str())
            || request.hash() != request.action_hash
        {
            return Err(ApiError::Forbidden("This is not what was shown."));
        }
        let org = reviewer.org();
        // Not from a cache: an agent that was stopped a moment ago gets no more yes, nor does one that nobody allows any
        // more.
        let stores = self.stores().uncached();
        let agent = stores.agents.find(org, AgentKey::Id(request.agent)).await?;
        let Some(agent) = agent.filter(|agent| agent.is_active()) else {
            return Err(ApiError::InvalidRequest("The agent that asked is not active any more.".to_owned()));
        };
        if let Some(user) = request.on_behalf_of
            && user != reviewer.user().id
            && Self::consent(&stores, org, user, &agent).await?.is_none()
        {
            return Err(ApiError::Forbidden("Whom this is for has not agreed to the agent."));
        }
        let said = Said {
            approved: true,
            ttl: approval.ttl,
            notes: ("notes", approval.notes.as_deref()),
            agent_message: approval.agent_message.as_deref(),
        };
        self.rule(reviewer, &request, &said, caller).await
    }

    /// Denies a request, once and in time.
    ///
    /// # Errors
    /// [`ApiError`] if somebody else decides on it, it does not wait any more, or it is not what the person saw.
    pub async fn deny_permission(
        &self,
        reviewer: &Reviewer,
        id: &str,
        denial: &JitDenial,
        caller: &Caller,
    ) -> Result<JitRequest, ApiError> {
        let request = self.asked_permission(reviewer, id).await?;
        let seen = denial.action_hash.as_deref().filter(|hash| !hash.is_empty());
        if seen.is_some_and(|hash| hash != request.action_hash.as_str()) {
            return Err(ApiError::Forbidden("This is not what was shown."));
        }
        let said = Said {
            approved: false,
            ttl: None,
            notes: ("reason", denial.reason.as_deref()),
            agent_message: denial.agent_message.as_deref(),
        };
        self.rule(reviewer, &request, &said, caller).await
    }

    async fn rule(
        &self,
        reviewer: &Reviewer,
        request: &JitRequest,
        said: &Said<'_>,
        caller: &Caller,
    ) -> Result<JitRequest, ApiError> {
        let (org, now): (&OrgId, _) = (reviewer.org(), self.now());
        let not_pending = || ApiError::InvalidRequest("This request does not wait any more.".to_owned());
        if self.request_status(org, request, now).await? != RequestStatus::Pending {
            return Err(not_pending());
        }
        let text = |member, text| readable_if_any(member, text, JitRequest::MAX_TEXT, Lines::Several);
        let user = reviewer.user();
        let ruling = Ruling {
            approved: said.approved,
            by: Some(user.id),
            number: Some(user.number),
            at: now,
            ttl: said.ttl.map_or(request.ttl, |ttl| JitRequest::clamped(Some(ttl))),
            notes: text(said.notes.0, said.notes.1)?,
            agent_message: text("agent_message", said.agent_message)?,
        };
        let (kind, message) = if said.approved {
            (EventKind::JitApproved, "permission granted")
        } else {
            (EventKind::JitDenied, "permission denied")
        };
        let event = about(request, caller.event(kind, message, now));
        let event = event.with("notes", ruling.notes.as_deref().map(cleaned));
        let event = if said.approved { event.with("granted_ttl", ruling.ttl) } else { event };
        let suspended = about(request, caller.event(kind, message, now))
            .with("notes", ruling.notes.as_deref().map(cleaned))
            .with("task_suspended", true);
        let on = RequestEvents { done: &event, suspended: &suspended };
        match self.stores().jit.rule(org, request, &ruling, now, on).await? {
            Rule::Ruled | Rule::Suspended => Ok(request.with_ruling(ruling)),
            Rule::AlreadyRuled | Rule::Expired | Rule::TaskClosed => Err(not_pending()),
            Rule::Missing => Err(ApiError::NotFound("request")),
        }
    }
}
