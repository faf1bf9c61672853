//! An agent asks for a permission.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{ANOTHERS_TASK, NO_TASK, Standing};
use crate::{
    agent::Agent,
    audit::{Event, EventKind, Target, cleaned},
    clock::Timestamp,
    fetch::Fetch,
    id::{JitRequestId, OrgId, TaskId},
    jit::{
        Assessment, AuthorizationDetail, Callback, JitRequest, NewRequest, RequestStatus, Ruling, Task,
        assess,
    },
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    principal::Principal,
    server::{
        ApiError, AuthorizationServer, Caller,
        approvals::{Lines, readable_if_any, refuse_test_tokens},
        retrying,
    },
    spending::{Payers, Remaining},
    store::{McpServerKey, RequestEvents, StoreError},
};

/// What an agent asks for. Absent and `null` are the same; unknown members are ignored.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct JitPermissionRequest {
    /// In which task.
    pub task_id: Option<String>,
    /// What for: one authorization detail (RFC 9396), or a list of one.
    pub authorization_details: Option<Value>,
    /// For how many seconds.
    pub requested_ttl: Option<u64>,
    /// Why, in words for people.
    pub justification: Option<String>,
    /// Who is to hear of the answer: an `https` URL.
    pub callback_url: Option<String>,
}

/// A request of an agent, as it is now.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct JitPermission {
    /// The request.
    pub request: Arc<JitRequest>,
    /// Where it stands. What waits in a task that is over has expired.
    pub status: RequestStatus,
    /// Whether whom it is for has not agreed to the agent: then nobody else can grant it.
    pub needs_consent: bool,
    /// What is left of the agent's budget, if that was looked at.
    pub remaining: Remaining,
}

/// A request, read.
struct Wanted {
    detail: AuthorizationDetail,
    ttl: u32,
    justification: Option<String>,
    callback: Option<String>,
}

impl Wanted {
    fn read(request: &JitPermissionRequest, fetch: &dyn Fetch) -> Result<Self, ApiError> {
        let invalid = |problem: &str| ApiError::Invalid {
            member: "authorization_details",
            problem: problem.to_owned(),
        };
        let detail = match request.authorization_details.clone() {
            None => return Err(invalid("is required")),
            Some(Value::Array(list)) => match <[Value; 1]>::try_from(list) {
                Ok([one]) => one,
                Err(_) => return Err(invalid("must be one object")),
            },
            Some(one) => one,
        };
        let detail = AuthorizationDetail::new(detail).map_err(|error| invalid(&error.to_string()))?;
        let justification = request.justification.as_deref();
        let justification =
            readable_if_any("justification", justification, JitRequest::MAX_TEXT, Lines::Several)?;
        let callback = match request.callback_url.as_deref() {
            None | Some("") => None,
            Some(url) => {
                let url = callback_url("callback_url", url)?;
                if !Url::parse(&url).is_ok_and(|url| fetch.may_post_to(&url)) {
                    let problem = "is no address that this server posts to".to_owned();
                    return Err(ApiError::Invalid { member: "callback_url", problem });
                }
                Some(url)
            }
        };
        Ok(Self { detail, ttl: JitRequest::clamped(request.requested_ttl), justification, callback })
    }
}

/// An address that this server may be told to post to, by its form.
pub(in crate::server) fn callback_url(member: &'static str, text: &str) -> Result<String, ApiError> {
    const MOST: usize = 2048;
    let is_good = text.len() <= MOST
        && text.bytes().all(|b| b.is_ascii_graphic())
        && Url::parse(text).is_ok_and(|url| {
            let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            (url.scheme() == "https" || (url.scheme() == "http" && loopback))
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
        });
    if is_good {
        Ok(text.to_owned())
    } else {
        let problem =
            "must be an https URL without user and fragment (http only on a loopback host)".to_owned();
        Err(ApiError::Invalid { member, problem })
    }
}

impl AuthorizationServer {
    /// Asks for a permission in a task of `agent`, which is charged one API call. What is not risky is granted at once, what
    /// the organization lets nobody have is denied at once, and for everything else a person is asked.
    ///
    /// # Errors
    /// [`ApiError`] if the token is a test token, a member is not acceptable, the task is over, unknown or of another agent,
    /// too many requests wait, or the budget is used up.
    pub async fn request_permission(
        &self,
        organization: &Organization,
        principal: &Principal,
        agent: &Agent,
        request: &JitPermissionRequest,
        caller: &Caller,
    ) -> Result<JitPermission, ApiError> {
        refuse_test_tokens(principal)?;
        let (org, now) = (&organization.id, self.now());
        let required = || ApiError::Invalid { member: "task_id", problem: "is required".to_owned() };
        let task_id = request.task_id.as_deref().filter(|id| !id.is_empty()).ok_or_else(required)?;
        let wanted = Wanted::read(request, &*self.inner.fetch)?;
        self.target_of(org, agent, &wanted.detail).await?;
        Standing::of(&*self.own_task(org, task_id, agent).await?)?.check(principal)?;
        let payers = Payers::of_caller(principal, agent);
        let remaining = payers.charge_call(self.stores(), org, &caller.origin, now).await??;
        // Asked of the task as it is, and again if it did something else in the meantime.
        let made = retrying(|| async {
            let task = self.own_task(org, task_id, agent).await?;
            let history = task.history(now);
            let budgets = payers.iter().map(|payer| payer.policy);
            let risk = assess(&wanted.detail, &organization.jit_risk, history, budgets);
            let made = wanted.as_request(&task, risk, now);
            // Before it is made: what is made is answered.
            let needs_consent = self.needs_consent(org, &made, agent).await?;
            let about = |kind, text| {
                let event = about(&made, caller.event(kind, text, now))
                    .with("score", risk.score)
                    .with("status", made.status(now).as_str());
                principal.in_context(event)
            };
            let done = about(EventKind::JitRequested, "permission requested");
            let suspended =
                about(EventKind::JitRequested, "permission requested").with("task_suspended", true);
            let on = RequestEvents { done: &done, suspended: &suspended };
            let stores = self.stores();
            if !task.is_open(now) || !stores.jit.tasks_open(org, &task.ancestors).await? {
                return Err(over());
            }
            match stores.jit.insert_request(org, &made, history, now, on).await? {
                NewRequest::Inserted | NewRequest::Suspended => Ok(Some((made, needs_consent))),
                NewRequest::Stale => Ok(None),
                NewRequest::TooMany => Err(ApiError::TooManyPending),
                NewRequest::TaskClosed => Err(over()),
                NewRequest::Missing => Err(NO_TASK),
            }
        });
        let (request, needs_consent) = made.await?;
        let request = Arc::new(request);
        let status = request.status(now);
        if status == RequestStatus::Pending {
            // The request is made, and waits where people find it, whether or not somebody is told of it.
            if let Err(error) = self.announce_request(organization, agent, &request).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "nobody is told of what waits");
            }
        }
        Ok(JitPermission { request, status, needs_consent, remaining })
    }

    /// What became of a request, for the agent that made it. Asking is free.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, or another agent made it.
    pub async fn permission_status(
        &self,
        principal: &Principal,
        agent: &Agent,
        id: &str,
    ) -> Result<JitPermission, ApiError> {
        refuse_test_tokens(principal)?;
        let (org, now) = (&principal.org, self.now());
        let request = self.own_request(org, id, agent).await?;
        let status = self.request_status(org, &request, now).await?;
        let needs_consent = self.needs_consent(org, &request, agent).await?;
        Ok(JitPermission { request, status, needs_consent, remaining: Remaining::default() })
    }

    /// Where a request stands: what waits in a task that is over has expired.
    pub(super) async fn request_status(
        &self,
        org: &OrgId,
        request: &JitRequest,
        now: Timestamp,
    ) -> Result<RequestStatus, StoreError> {
        let status = request.status(now);
        if status == RequestStatus::Pending && self.open_task_of(org, &request.task, now).await?.is_none() {
            return Ok(RequestStatus::Expired);
        }
        Ok(status)
    }

    /// The task, if it and everything it is part of is open.
    pub(super) async fn open_task_of(
        &self,
        org: &OrgId,
        task: &TaskId,
        now: Timestamp,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let jit = &self.stores().jit;
        let Some(task) = jit.find_task(org, task).await? else { return Ok(None) };
        let open = task.is_open(now) && jit.tasks_open(org, &task.lineage()).await?;
        Ok(open.then_some(task))
    }

    async fn needs_consent(
        &self,
        org: &OrgId,
        request: &JitRequest,
        agent: &Agent,
    ) -> Result<bool, StoreError> {
        match request.on_behalf_of {
            Some(user) => Ok(Self::consent(self.stores(), org, user, agent).await?.is_none()),
            None => Ok(false),
        }
    }

    pub(super) async fn own_request(
        &self,
        org: &OrgId,
        id: &str,
        agent: &Agent,
    ) -> Result<Arc<JitRequest>, ApiError> {
        let request = self.found_request(org, id).await?;
        if request.agent == agent.id { Ok(request) } else { Err(ANOTHERS_TASK) }
    }

    pub(super) async fn found_request(&self, org: &OrgId, id: &str) -> Result<Arc<JitRequest>, ApiError> {
        let id = JitRequestId::parse(id).map_err(|_| NO_REQUEST)?;
        self.stores().jit.find_request(org, &id).await?.ok_or(NO_REQUEST)
    }

    /// The MCP server that the detail is to be used at, if that is one. A server that does not let the agent in is not
    /// reached by way of a task either.
    pub(super) async fn target_of(
        &self,
        org: &OrgId,
        agent: &Agent,
        detail: &AuthorizationDetail,
    ) -> Result<Option<Arc<McpServer>>, ApiError> {
        let mut first = None;
        for (n, location) in detail.locations().into_iter().enumerate() {
            let Ok(uri) = ResourceUri::parse(location) else { continue };
            let key = McpServerKey::Target(uri.normalized());
            let Some(server) = self.stores().mcp_servers.find(org, key).await? else { continue };
            if !server.admits(&agent.client_id, Some(agent.id)) {
                let problem = "names a location that this agent may not use".to_owned();
                return Err(ApiError::Invalid { member: "authorization_details", problem });
            }
            if n == 0 {
                first = Some(server);
            }
        }
        Ok(first)
    }
}

impl Wanted {
    fn as_request(&self, task: &Task, risk: Assessment, now: Timestamp) -> JitRequest {
        let pending = std::time::Duration::from_secs(JitRequest::PENDING);
        let ends = now.plus(pending).min(task.expires_at);
        let mut request = JitRequest::new(task, self.detail.clone(), now, ends);
        request.risk = risk.level;
        request.ttl = self.ttl;
        request.justification.clone_from(&self.justification);
        let at_once = |approved, message: Option<&str>| Ruling {
            approved,
            by: None,
            number: None,
            at: now,
            ttl: self.ttl,
            notes: None,
            agent_message: message.map(ToOwned::to_owned),
        };
        if risk.denied {
            request.ruling = Some(at_once(false, Some("The policy of the organization denies this type.")));
        } else if !risk.level.needs_a_person() {
            request.ruling = Some(at_once(true, None));
        }
        // Whoever was answered at once knows; whoever waits hears of an answer, or of the end.
        let due = request.ruling.is_none().then_some(request.expires_at);
        request.callback = self.callback.clone().map(|url| Callback { url, tries: 0, due });
        request
    }
}

fn over() -> ApiError {
    ApiError::InvalidRequest("The task is over.".to_owned())
}

const NO_REQUEST: ApiError = ApiError::NotFound("request");

/// `event`, about this request. What it says beyond its type and its one thing is named by the hash.
pub(super) fn about(request: &JitRequest, event: Event) -> Event {
    event
        .on(Target::new("jit_request", request.id.as_str()))
        .with("task_id", request.task.as_str())
        .with("agent_id", request.agent.to_string())
        .with("on_behalf_of", request.on_behalf_of.map(|user| user.to_string()))
        .with("type", cleaned(request.detail.kind()))
        .with("actions", request.detail.actions().into_iter().map(cleaned).collect::<Vec<_>>())
        .with("identifier", request.detail.identifier().map(cleaned))
        .with("action_hash", request.action_hash.as_str())
        .with("risk_level", request.risk.as_str())
}
