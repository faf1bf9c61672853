//! Just-in-time permissions: an agent opens a task, asks for what exactly it needs in it, and gets a token that ends with the
//! task.
//!
//! What may happen to a task and its requests is decided here, purely; a store finds the records, makes the [`Step`] and
//! writes what changed, in one atomic step.

mod detail;
mod request;
mod risk;
mod step;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::Timestamp,
    id::{AgentId, ClientId, TaskId, UserId},
    random::random_bytes,
};

pub use detail::{
    ActionHash, AuthorizationDetail, Containment, DetailRules, ExactButForLists, InvalidDetail,
};
pub use request::{Callback, JitRequest, JitRequestId, RequestStatus, Ruling};
pub use risk::{Assessment, RiskLevel, RiskTable, TypeRisk, assess};
pub use step::{CloseTask, Load, NewRequest, Rule, Step, Waiting};

/// How long a task and what was asked in it is kept after its end, so that what became of it can be asked.
pub const TASK_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Something that an agent does, in which it asks for permissions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub agent: AgentId,
    /// The OAuth client id of the agent.
    pub client_id: ClientId,
    /// What the agent calls it; at most [`Task::MAX_NAME`] characters.
    pub name: Option<String>,
    /// What sort of task the agent says it is.
    pub kind: Option<String>,
    /// The tasks that it is part of, the outermost first; its parent is the last. It ends with each of them.
    pub ancestors: Vec<TaskId>,
    /// For whom.
    pub on_behalf_of: Option<UserId>,
    /// Names it to those who watch sessions; nothing can be asked with it.
    pub caep_session: Arc<str>,
    /// What its tokens stand on: claims that the server wrote down when the task was opened. Stores keep it and never look
    /// into it.
    pub standing: Value,
    /// When it was opened.
    pub created_at: Timestamp,
    /// From this instant on it is over, closed or not.
    pub expires_at: Timestamp,
    /// How many of its requests were denied.
    pub denials: u32,
    /// When its last requests came; at most [`Task::REMEMBERED`].
    pub recent: Vec<Timestamp>,
    /// How it ended.
    pub closed: Option<Closing>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "how, when and why")]
pub struct Closing {
    /// How.
    pub outcome: TaskOutcome,
    /// When.
    pub at: Timestamp,
    /// What whoever closed it wrote down.
    pub notes: Option<String>,
}

/// How a task can end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the outcomes of the API")]
pub enum TaskOutcome {
    /// It is done.
    Completed,
    /// It cannot be done.
    Failed,
    /// It is not wanted any more.
    Cancelled,
    /// Too much of what it asked for was denied.
    Suspended,
}

impl TaskOutcome {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Suspended => "suspended",
        }
    }

    /// The outcome that whoever closes a task may name so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Cancelled].into_iter().find(|one| one.as_str() == name)
    }
}

/// What a task did before, as far as it counts for what it asks next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what the risk table looks at")]
pub struct History {
    /// How many of its requests were denied.
    pub denials: u32,
    /// Whether [`Task::REMEMBERED`] requests or more came in the last minute. Not how many: what makes no difference to a
    /// risk is no reason to assess it again.
    pub hurried: bool,
}

impl Task {
    /// How long a task lives, if nothing that it stands on ends before.
    pub const LIFE: Duration = Duration::from_secs(3600);
    /// The longest name or kind, in characters.
    pub const MAX_NAME: usize = 128;
    /// How deep tasks can be nested.
    pub const MAX_ANCESTORS: usize = 4;
    /// How many requests of the last minute are remembered: so many within a minute are nothing special.
    pub const REMEMBERED: usize = 5;
    /// This many denials suspend a task.
    pub const MAX_DENIALS: u32 = 3;

    /// A task of this agent that says nothing yet.
    pub fn new(agent: AgentId, client_id: ClientId, now: Timestamp) -> Self {
        let session: [u8; 16] = random_bytes();
        let session: String = session.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: TaskId::generate(),
            agent,
            client_id,
            name: None,
            kind: None,
            ancestors: Vec::new(),
            on_behalf_of: None,
            caep_session: format!("caep_{session}").into(),
            standing: Value::Null,
            created_at: now,
            expires_at: now.plus(Self::LIFE),
            denials: 0,
            recent: Vec::new(),
            closed: None,
        }
    }

    /// Whether something can be asked in it at `now`, as far as it knows: its ancestors know for themselves.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.closed.is_none() && now < self.expires_at
    }

    /// Where it stands at `now`: `active`, how it was closed, or `expired`.
    pub fn status(&self, now: Timestamp) -> &'static str {
        match &self.closed {
            Some(closing) => closing.outcome.as_str(),
            None if now < self.expires_at => "active",
            None => "expired",
        }
    }

    /// Itself and everything that it is part of.
    pub fn lineage(&self) -> Vec<TaskId> {
        self.ancestors.iter().chain([&self.id]).cloned().collect()
    }

    /// What it did before, as it counts at `now`.
    pub fn history(&self, now: Timestamp) -> History {
        let since = now.minus(MINUTE);
        let recent = self.recent.iter().filter(|at| **at > since).count();
        History { denials: self.denials, hurried: recent >= Self::REMEMBERED }
    }

    /// From when on it may be forgotten.
    pub fn keep_until(&self) -> Timestamp {
        self.expires_at.plus(TASK_GRACE)
    }

    fn asked(&mut self, now: Timestamp) {
        let since = now.minus(MINUTE);
        self.recent.retain(|at| *at > since);
        self.recent.push(now);
        let surplus = self.recent.len().saturating_sub(Self::REMEMBERED);
        self.recent.drain(..surplus);
    }

    /// One more of its requests was denied. Whether that suspended it.
    fn denied(&mut self, now: Timestamp) -> bool {
        self.denials += 1;
        let suspended = self.denials >= Self::MAX_DENIALS && self.closed.is_none();
        if suspended {
            self.closed = Some(Closing { outcome: TaskOutcome::Suspended, at: now, notes: None });
        }
        suspended
    }
}

const MINUTE: Duration = Duration::from_secs(60);
