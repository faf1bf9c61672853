//! What an agent asks for in a task, and the answer.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ActionHash, AuthorizationDetail, RiskLevel, TASK_GRACE, Task};
pub use crate::id::JitRequestId;
use crate::{
    clock::Timestamp,
    id::{AgentId, ClientId, Number, TaskId, UserId},
};

/// A request for a permission, and the answer once there is one. Nothing of it changes after it was made but the answer and
/// how far its callback got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JitRequest {
    /// Its id.
    pub id: JitRequestId,
    /// In which task.
    pub task: TaskId,
    /// Who asks.
    pub agent: AgentId,
    /// The OAuth client id of the agent.
    pub client_id: ClientId,
    /// For whom the task is.
    pub on_behalf_of: Option<UserId>,
    /// What for.
    pub detail: AuthorizationDetail,
    /// Names all of what is asked; see [`JitRequest::hash`].
    pub action_hash: ActionHash,
    /// How risky it is.
    pub risk: RiskLevel,
    /// For how many seconds it is to hold.
    pub ttl: u32,
    /// Why, in words for people; at most [`JitRequest::MAX_TEXT`] characters.
    pub justification: Option<String>,
    /// Who wants to hear of the answer.
    pub callback: Option<Callback>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From this instant on nobody can answer it.
    pub expires_at: Timestamp,
    /// The answer.
    pub ruling: Option<Ruling>,
}

/// Where the answer to a request is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "where to, and how far it got")]
pub struct Callback {
    /// Where to.
    pub url: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next: at the end of what waits, from the instant of an answer on, and never again after it was heard
    /// or given up.
    pub due: Option<Timestamp>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a yes or no, of whom and when, is all there is to it")]
pub struct Ruling {
    /// Whether it is granted.
    pub approved: bool,
    /// By whom; nobody if the risk table said so.
    pub by: Option<UserId>,
    /// The integer id of the same person.
    pub number: Option<Number>,
    /// When.
    pub at: Timestamp,
    /// For how many seconds from then on.
    pub ttl: u32,
    /// What they wrote down for people; never shown to the agent.
    pub notes: Option<String>,
    /// What the agent is to know.
    pub agent_message: Option<String>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every state must be handled where something waits for it")]
pub enum RequestStatus {
    /// Nobody said anything yet, and somebody still can.
    Pending,
    /// It was granted.
    Approved,
    /// It was not.
    Denied,
    /// Nobody said anything in time.
    Expired,
}

impl RequestStatus {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

impl JitRequest {
    /// The longest justification, note or message, in characters.
    pub const MAX_TEXT: usize = 480;
    /// What is granted where nothing is said, in seconds.
    pub const DEFAULT_TTL: u32 = 600;
    /// The shortest grant, in seconds.
    pub const MIN_TTL: u32 = 60;
    /// The longest grant, in seconds.
    pub const MAX_TTL: u32 = 900;
    /// How long people have to answer, in seconds.
    pub const PENDING: u64 = 300;
    /// How often a callback is tried.
    pub const MAX_TRIES: u32 = 5;

    /// A request in `task` for `detail`, without an answer.
    pub fn new(task: &Task, detail: AuthorizationDetail, now: Timestamp, expires_at: Timestamp) -> Self {
        let mut request = Self {
            id: JitRequestId::generate(),
            task: task.id.clone(),
            agent: task.agent,
            client_id: task.client_id.clone(),
            on_behalf_of: task.on_behalf_of,
            action_hash: ActionHash::of(&detail.to_json()),
            detail,
            risk: RiskLevel::Critical,
            ttl: Self::DEFAULT_TTL,
            justification: None,
            callback: None,
            created_at: now,
            expires_at,
            ruling: None,
        };
        request.action_hash = request.hash();
        request
    }

    /// Names what is asked: by whom, in which task, for whom, and every member of the detail. What was approved under one
    /// hash is nothing else.
    pub fn hash(&self) -> ActionHash {
        ActionHash::of(&json!({
            "agent_id": self.agent.to_string(),
            "task_id": self.task.as_str(),
            "on_behalf_of": self.on_behalf_of.map(|user| user.to_string()),
            "authorization_details": [self.detail.to_json()],
        }))
    }

    /// Where it stands at `now`. What was answered stays answered after its end.
    pub fn status(&self, now: Timestamp) -> RequestStatus {
        match &self.ruling {
            Some(ruling) if ruling.approved => RequestStatus::Approved,
            Some(_) => RequestStatus::Denied,
            None if now < self.expires_at => RequestStatus::Pending,
            None => RequestStatus::Expired,
        }
    }

    /// Until when what was granted holds.
    pub fn granted_until(&self) -> Option<Timestamp> {
        let ruling = self.ruling.as_ref().filter(|ruling| ruling.approved)?;
        Some(ruling.at.plus(std::time::Duration::from_secs(ruling.ttl.into())))
    }

    /// The same, answered. Its callback is due from then on.
    #[must_use]
    pub fn with_ruling(&self, ruling: Ruling) -> Self {
        let mut ruled = self.clone();
        if let Some(callback) = &mut ruled.callback {
            callback.due = Some(ruling.at);
        }
        ruled.ruling = Some(ruling);
        ruled
    }

    /// The same after one more try of its callback, which was the try after `tries` others; `next` is when it is tried again,
    /// if ever. `None` if somebody else tried it since.
    #[must_use]
    pub fn with_try(&self, tries: u32, next: Option<Timestamp>) -> Option<Self> {
        let mut tried = self.clone();
        let callback = tried.callback.as_mut().filter(|it| it.tries == tries && it.due.is_some())?;
        callback.tries += 1;
        callback.due = next;
        Some(tried)
    }

    /// When its callback is tried next.
    pub fn callback_due(&self) -> Option<Timestamp> {
        self.callback.as_ref().and_then(|callback| callback.due)
    }

    /// From when on it may be forgotten.
    pub fn keep_until(&self) -> Timestamp {
        self.expires_at.plus(TASK_GRACE)
    }

    /// The life of a grant that was asked for, within what is possible.
    pub fn clamped(ttl: Option<u64>) -> u32 {
        let ttl = ttl.and_then(|ttl| u32::try_from(ttl).ok().or(Some(u32::MAX)));
        ttl.unwrap_or(Self::DEFAULT_TTL).clamp(Self::MIN_TTL, Self::MAX_TTL)
    }
}
