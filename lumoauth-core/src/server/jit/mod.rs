//! Tasks, and what agents ask for in them just in time.

mod callbacks;
mod decide;
mod request;
mod token;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ApiError, AuthorizationServer, Caller, RequestFacts,
    approvals::{Lines, readable_if_any, refuse_test_tokens},
};
use crate::{
    agent::Agent,
    audit::{Event, EventKind, Target, cleaned},
    clock::Timestamp,
    id::{OrgId, TaskId, UserId},
    jit::{CloseTask, Closing, JitRequest, Task, TaskOutcome},
    jwks::Thumbprint,
    organization::Organization,
    principal::{Principal, Represented},
    spending::{Payers, Remaining},
    store::{ConsentKey, Insert, StoreError, Stores},
    token::{Act, ConsentEpoch, Lineage, Subject, token_handle},
};

pub(super) use request::callback_url;

pub use decide::{JitApproval, JitDenial};
pub use request::{JitPermission, JitPermissionRequest};
pub use token::JitToken;

/// What an agent says of a new task. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TaskRequest {
    /// What it calls it.
    pub name: Option<String>,
    /// What sort of task it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The task that it is part of.
    pub parent_task_id: Option<String>,
    /// For whom: an e-mail address or a user id.
    pub on_behalf_of: Option<String>,
}

/// How a task is to end, or nothing if it is only to be looked at.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TaskEvaluation {
    /// `completed`, `failed` or `cancelled`.
    pub result: Option<String>,
    /// Why, in words for people: it stands in the audit log with the end of the task.
    pub notes: Option<String>,
}

/// A task that was just opened.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct OpenedTask {
    /// The task.
    pub task: Arc<Task>,
    /// What is left of the agent's budget.
    pub remaining: Remaining,
}

/// A task, after somebody looked at it or ended it.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct EndedTask {
    /// The task.
    pub task: Arc<Task>,
    /// Whether something can still be asked in it: it is open, and so is everything that it is part of.
    pub is_open: bool,
}

/// What tokens of a task stand on: the claims that it was opened with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Standing {
    lin: Lineage,
    act: Option<Box<Act>>,
    depth: Option<u8>,
    /// The subject of the chain.
    subject: Option<String>,
    /// Whether it was opened with a delegated token.
    #[serde(default)]
    delegated: bool,
    /// The key that the token was bound to that it was opened with.
    key: Option<Thumbprint>,
}

impl Standing {
    fn of(task: &Task) -> Result<Self, StoreError> {
        serde_json::from_value(task.standing.clone())
            .map_err(|error| StoreError::corrupt("jit.find_task", error))
    }

    /// Whoever goes on with a task has what it was opened with: the chain, the budgets and the key. Otherwise its tokens
    /// would carry an authority that its payers never heard of, and be worth something without the key.
    fn check(&self, principal: &Principal) -> Result<(), ApiError> {
        let same_chain = !self.delegated
            || principal.delegation.is_some()
                && principal.claims.as_ref().is_some_and(|claims| {
                    claims.act == self.act && Some(&claims.sub) == self.subject.as_ref()
                });
        let same_budgets = self.lin.budgets.iter().all(|budget| principal.envelopes().contains(budget));
        let same_key = self.key.is_none() || self.key == principal.key();
        if same_chain && same_budgets && same_key { Ok(()) } else { Err(OTHER_AUTHORITY) }
    }
}

impl AuthorizationServer {
    /// Opens a task of `agent`, which is charged one API call. With a token that it has for somebody the task is for them,
    /// stands on that token, and ends with it at the latest.
    ///
    /// # Errors
    /// [`ApiError`] if the token is a test token, a member is not acceptable, the agent may not act for whom it names, or
    /// the budget is used up.
    pub async fn open_task(
        &self,
        organization: &Organization,
        principal: &Principal,
        agent: &Agent,
        request: &TaskRequest,
        caller: &Caller,
    ) -> Result<OpenedTask, ApiError> {
        refuse_test_tokens(principal)?;
        let (org, now) = (&organization.id, self.now());
        let text = |member, text: &Option<String>| {
            readable_if_any(member, text.as_deref(), Task::MAX_NAME, Lines::One)
        };
        let mut task = Task::new(agent.id, agent.client_id.clone(), now);
        (task.name, task.kind) = (text("name", &request.name)?, text("type", &request.kind)?);
        let payers = Payers::of_caller(principal, agent);
        let remaining = payers.charge_call(self.stores(), org, &caller.origin, now).await??;
        if let Some(parent) = request.parent_task_id.as_deref().filter(|id| !id.is_empty()) {
            self.nest(org, &mut task, parent, agent, now).await?;
        }
        let standing = self.task_standing(organization, principal, agent, request, &mut task).await?;
        task.standing =
            serde_json::to_value(standing).map_err(|error| StoreError::other("jit.insert_task", error))?;
        let event = about_task(&task, caller.event(EventKind::JitTaskCreated, "task opened", now))
            .with("name", task.name.as_deref().map(cleaned))
            .with("type", task.kind.as_deref().map(cleaned))
            .with("parent_task_id", task.ancestors.last().map(TaskId::to_string));
        match self.stores().jit.insert_task(org, &task, &principal.in_context(event)).await? {
            Insert::Inserted => Ok(OpenedTask { task: Arc::new(task), remaining }),
            Insert::Taken(_) => Err(ApiError::Conflict("A task with this id exists.")),
        }
    }

    /// Makes `task` part of `parent`.
    async fn nest(
        &self,
        org: &OrgId,
        task: &mut Task,
        parent: &str,
        agent: &Agent,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let parent = self.own_task(org, parent, agent).await?;
        if !parent.is_open(now) || !self.stores().jit.tasks_open(org, &parent.ancestors).await? {
            return Err(ApiError::InvalidRequest("The parent task is over.".to_owned()));
        }
        if parent.ancestors.len() >= Task::MAX_ANCESTORS {
            return Err(ApiError::InvalidRequest("Tasks are nested too deeply.".to_owned()));
        }
        task.ancestors = parent.lineage();
        task.expires_at = task.expires_at.min(parent.expires_at);
        Ok(())
    }

    /// What tokens of the new task will stand on. Whom it is for is written into `task`, and its end if it comes sooner.
    async fn task_standing(
        &self,
        organization: &Organization,
        principal: &Principal,
        agent: &Agent,
        request: &TaskRequest,
        task: &mut Task,
    ) -> Result<Standing, ApiError> {
        let org = &organization.id;
        let named = match request.on_behalf_of.as_deref() {
            None | Some("") => None,
            Some(name) => Some(self.find_user(org, name).await?.filter(|user| user.is_active())),
        };
        let no_such = || ApiError::Invalid {
            member: "on_behalf_of",
            problem: "is nobody who lets this agent act for them".to_owned(),
        };
        let mut standing = match (&principal.claims, &principal.delegation) {
            (Some(claims), Some(delegation)) => {
                task.on_behalf_of = match &delegation.represented {
                    Represented::User(user) => Some(user.id),
                    Represented::Agent(_) => None,
                };
                if let Some(named) = named
                    && named.map(|user| user.id) != task.on_behalf_of
                {
                    return Err(no_such());
                }
                task.expires_at = task.expires_at.min(Timestamp::from_unix_seconds(claims.exp));
                let mut lin = claims.lin.clone();
                lin.handles.push(token_handle(org, &claims.jti));
                Standing {
                    lin,
                    act: claims.act.clone(),
                    depth: claims.delegation_depth,
                    subject: Some(claims.sub.clone()),
                    delegated: true,
                    key: None,
                }
            }
            (claims, _) => {
                let mut lin = Lineage::new(vec![organization.epoch, agent.epoch], Vec::new());
                lin.budgets = claims.as_ref().map(|claims| claims.lin.budgets.clone()).unwrap_or_default();
                match named {
                    None => Standing { lin, ..Standing::default() },
                    Some(user) => {
                        if !agent.may_delegate() {
                            return Err(ApiError::DelegationNotAllowed);
                        }
                        let user = user.ok_or_else(no_such)?;
                        // Whoever hands an agent a token has agreed, where that is enough; here nobody handed it any.
                        let consent = Self::consent(self.stores(), org, user.id, agent).await?;
                        lin.consents.push(consent.ok_or_else(no_such)?);
                        lin.epochs.insert(1, user.epoch);
                        lin.subject = Some(Subject::User);
                        lin.act_order = organization.act_order;
                        task.on_behalf_of = Some(user.id);
                        let act = Act {
                            sub: agent.subject(),
                            agent_id: agent.id,
                            client_id: agent.client_id.clone(),
                            act: None,
                        };
                        let subject = Some(user.id.to_string());
                        Standing {
                            lin,
                            act: Some(Box::new(act)),
                            depth: Some(1),
                            subject,
                            ..Standing::default()
                        }
                    }
                }
            }
        };
        standing.lin.tasks = task.lineage();
        standing.key = principal.key();
        Ok(standing)
    }

    /// What a person allowed an agent, as it holds now.
    async fn consent(
        stores: &Stores,
        org: &OrgId,
        user: UserId,
        agent: &Agent,
    ) -> Result<Option<ConsentEpoch>, StoreError> {
        let key = ConsentKey::Between(user, &agent.client_id);
        let consent = stores.consents.find(org, key).await?;
        let consent = consent.filter(|consent| consent.holds_for(agent.created_at));
        Ok(consent.map(|consent| ConsentEpoch { id: consent.id, epoch: consent.epoch }))
    }

    /// Ends a task as it is said, or without a result only looks at it. By its agent, or by a person who decides on its
    /// requests. Ending what is over changes nothing.
    ///
    /// # Errors
    /// [`ApiError`] if the token is a test token, there is no such task, it is of another agent, or the result is none.
    pub async fn end_task(
        &self,
        principal: &Principal,
        id: &str,
        evaluation: &TaskEvaluation,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<EndedTask, ApiError> {
        refuse_test_tokens(principal)?;
        let (org, now) = (&principal.org, self.now());
        let task = self.found_task(org, id).await?;
        match principal.agent() {
            Some(agent) if agent.id == task.agent => {}
            Some(_) => return Err(ANOTHERS_TASK),
            None => self.reviewer(principal, facts, &caller.origin).await?.check_jit_of(task.on_behalf_of)?,
        }
        let Some(result) = evaluation.result.as_deref() else {
            let is_open = task.is_open(now) && self.stores().jit.tasks_open(org, &task.ancestors).await?;
            return Ok(EndedTask { task, is_open });
        };
        let outcome = TaskOutcome::named(result).ok_or_else(|| ApiError::Invalid {
            member: "result",
            problem: "must be completed, failed or cancelled".to_owned(),
        })?;
        let notes = evaluation.notes.as_deref();
        let notes = readable_if_any("notes", notes, JitRequest::MAX_TEXT, Lines::Several)?;
        let closing = Closing { outcome, at: now, notes };
        let event = caller.event(EventKind::JitTaskClosed, "task closed", now);
        let event = about_task(&task, event)
            .with("outcome", outcome.as_str())
            .with("notes", closing.notes.as_deref().map(cleaned));
        let event = principal.in_context(event);
        let task = match self.stores().jit.close_task(org, &task, &closing, &event).await? {
            CloseTask::Closed => Arc::new(Task { closed: Some(closing), ..(*task).clone() }),
            CloseTask::AlreadyClosed => self.found_task(org, id).await?,
            CloseTask::Missing => return Err(NO_TASK),
        };
        Ok(EndedTask { task, is_open: false })
    }

    async fn own_task(&self, org: &OrgId, id: &str, agent: &Agent) -> Result<Arc<Task>, ApiError> {
        let task = self.found_task(org, id).await?;
        if task.agent == agent.id { Ok(task) } else { Err(ANOTHERS_TASK) }
    }

    async fn found_task(&self, org: &OrgId, id: &str) -> Result<Arc<Task>, ApiError> {
        let id = TaskId::parse(id).map_err(|_| NO_TASK)?;
        self.stores().jit.find_task(org, &id).await?.ok_or(NO_TASK)
    }
}

const NO_TASK: ApiError = ApiError::NotFound("task");
const ANOTHERS_TASK: ApiError = ApiError::Forbidden("This task is of another agent.");
const OTHER_AUTHORITY: ApiError = ApiError::Forbidden(
    "This task goes on only with the delegation, the budgets and the key that it was opened with.",
);

/// `event`, about this task.
fn about_task(task: &Task, event: Event) -> Event {
    event
        .on(Target::new("task", task.id.as_str()))
        .with("agent_id", task.agent.to_string())
        .with("on_behalf_of", task.on_behalf_of.map(|user| user.to_string()))
}

#[cfg(test)]
mod tests;
