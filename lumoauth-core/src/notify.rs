//! The port for telling people that something waits for them.
//!
//! It is a courtesy: what waits stands in the store, and whoever looks there sees it, told or not. So notices are kept in memory
//! until maintenance delivers them, and one that is lost changes nothing.

use std::{error::Error, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{clock::Timestamp, id::OrgId, user::User};

/// What a person is told. It names who asks and what about in one line each, and has nothing in it with which anything could be
/// asked or decided.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Notice {
    /// The organization.
    pub org: OrgId,
    /// Its display name.
    pub organization: Arc<str>,
    /// Who is told.
    pub user: Arc<User>,
    /// What about.
    pub about: Subject,
    /// The display name of the agent that asks.
    pub agent: Arc<str>,
    /// What it wants, in one line.
    pub summary: String,
    /// Names the approval or the request in the log.
    pub reference: String,
    /// Until when it waits.
    pub expires_at: Timestamp,
    /// Where the person sees and decides it, after signing in.
    pub page: Option<String>,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every sort must be worded by whoever writes to people")]
pub enum Subject {
    /// An approval waits.
    Approval,
    /// A request of a task waits.
    Permission,
    /// An agent asked, and the request could not reach the person. Nothing waits.
    Unreached,
}

impl Subject {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval.requested",
            Self::Permission => "jit.requested",
            Self::Unreached => "approval.unreached",
        }
    }
}

impl Notice {
    /// A subject line.
    pub fn title(&self) -> String {
        match self.about {
            Subject::Approval => format!("{} asks for your approval", one_line(&self.agent)),
            Subject::Permission => format!("{} asks for a permission", one_line(&self.agent)),
            Subject::Unreached => format!("{} tried to reach you", one_line(&self.agent)),
        }
    }

    /// Plain text for people.
    pub fn text(&self) -> String {
        let (agent, organization) = (one_line(&self.agent), one_line(&self.organization));
        let summary = one_line(&self.summary);
        match self.about {
            Subject::Approval | Subject::Permission => {
                let page = match &self.page {
                    Some(page) => format!("Sign in to see all of it and to decide:\n{page}"),
                    None => "Sign in to see all of it and to decide.".to_owned(),
                };
                format!(
                    "The agent \"{agent}\" of {organization} asks:\n\n    {summary}\n\n\
                     It waits until {}. If nobody decides, the answer is no.\n\n{page}\n",
                    self.expires_at
                )
            }
            Subject::Unreached => format!(
                "The agent \"{agent}\" of {organization} wanted to ask for your approval, and could not: your account has \
                 no approver channel.\nNothing was approved, and nothing waits for you. An administrator can switch the \
                 channel on.\n"
            ),
        }
    }
}

/// Text of others for one line of a message: it can begin no header and no other line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || crate::approval::is_deceptive(c) { ' ' } else { c }).collect()
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "told or not")]
pub enum Delivery {
    /// It is on its way.
    Delivered,
    /// This channel does not reach the person.
    NoDevice,
}

/// A notice could not be delivered now.
#[derive(Debug, thiserror::Error)]
#[error("a notice cannot be delivered")]
pub struct NotifyError(#[source] Box<dyn Error + Send + Sync>);

impl NotifyError {
    /// With its cause, for the log.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A way to tell people that something waits for them. It is called by maintenance, never while a request waits, so how long
/// it takes says nothing about who exists.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync + 'static {
    /// Tells the person, once.
    ///
    /// # Errors
    /// [`NotifyError`] if that is not possible now. It is not tried again.
    async fn notify(&self, notice: &Notice) -> Result<Delivery, NotifyError>;
}
