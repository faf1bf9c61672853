//! Audit events: what happened, who did it, to what.
//!
//! An event is made here, once, with its id and its time; a store only keeps and numbers it. It never holds a
//! secret or a token, at most a token's `jti`.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{clock::Timestamp, id::EventId};

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Its identity. Appending an event again changes nothing.
    pub id: EventId,
    /// When it happened, by the clock of the server that made it. The order of the log is the order of
    /// sequencing, not of this claim.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// Whether it succeeded.
    pub outcome: EventOutcome,
    /// Who did it.
    pub actor: Actor,
    /// To what it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// One sentence for people.
    pub message: Cow<'static, str>,
    /// How the actor authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<Cow<'static, str>>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// Why it failed, or was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What else is worth knowing; for a change, `before` and `after`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
}

/// Where a request came from, as far as the transport can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The peer's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The `User-Agent` header, cut and cleaned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Arc<str>>,
    /// The id of the request in the host's logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Arc<str>>,
}

impl Origin {
    /// An origin with these facts. Longer or unprintable text is cut and cleaned.
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>, request_id: Option<&str>) -> Self {
        let kept = |text: &str| if is_clean(text) { text.into() } else { cleaned(text).into() };
        Self { ip, user_agent: user_agent.map(kept), request_id: request_id.map(kept) }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Actor {
    /// What sort of principal it is.
    pub kind: ActorKind,
    /// Its id; what the caller claimed, if it could not be verified.
    pub id: Arc<str>,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

impl Actor {
    /// A principal with this id.
    pub fn new(kind: ActorKind, id: impl Into<Arc<str>>) -> Self {
        Self { kind, id: id.into(), name: None }
    }

    /// The same with a display name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The server itself: bootstrap and maintenance.
    pub fn system() -> Self {
        Self::new(ActorKind::System, "system")
    }
}

/// What sort of principal did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorKind {
    /// An agent.
    Agent,
    /// A person.
    User,
    /// An organization API key.
    ApiKey,
    /// An ordinary OAuth client.
    Client,
    /// The server itself.
    System,
    /// Nobody that could be verified.
    Unknown,
}

impl ActorKind {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Client => "client",
            Self::System => "system",
            Self::Unknown => "unknown",
        }
    }
}

/// To what it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Target {
    /// What sort of thing it is: `agent`, `mcp_server`, `token`.
    pub kind: Cow<'static, str>,
    /// Its id.
    pub id: Arc<str>,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

impl Target {
    /// A thing with this kind and id.
    pub fn new(kind: &'static str, id: impl Into<Arc<str>>) -> Self {
        let mut id = id.into();
        if !is_clean(&id) {
            id = cleaned(&id).into();
        }
        Self { kind: kind.into(), id, name: None }
    }

    /// The same with a display name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

fn is_clean(text: &str) -> bool {
    text.len() <= 256 && !text.contains(char::is_control)
}

/// Text that a caller chose, as the log may hold it: at most 256 characters, none of them a control.
pub(crate) fn cleaned(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

/// Whether what was tried happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "it happened or it did not")]
pub enum EventOutcome {
    /// It did.
    Success,
    /// It was refused.
    Failure,
}

impl EventOutcome {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What happened; one variant per fact.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventKind {
            /// Every kind, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The wire name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_kinds! {
    /// An agent was registered.
    AgentCreated = "agent.created",
    /// An agent's record was changed.
    AgentUpdated = "agent.updated",
    /// An agent was made to work again.
    AgentActivated = "agent.activated",
    /// An agent was switched off, suspended, revoked or deleted (`context.mode` says which).
    AgentRevoked = "agent.revoked",
    /// An agent got or lost a secret or an API key.
    AgentCredentialsRotated = "agent.credentials_rotated",
    /// An agent obtained a token, or failed to.
    AgentAuthenticated = "agent.authenticated",
    /// An agent acted, or asked whether it may.
    AgentAction = "agent.action",
    /// An ordinary client obtained a token, or failed to.
    ClientAuthenticated = "client.authenticated",
    /// A client was registered.
    ClientCreated = "client.created",
    /// A client got a new secret.
    ClientSecretRotated = "client.secret_rotated",
    /// An API key was made.
    ApiKeyCreated = "api_key.created",
    /// An API key was ended.
    ApiKeyRevoked = "api_key.revoked",
    /// A user was made.
    UserCreated = "user.created",
    /// A user was blocked.
    UserBlocked = "user.blocked",
    /// A user was unblocked.
    UserUnblocked = "user.unblocked",
    /// An organization was made.
    OrganizationCreated = "organization.created",
    /// A token was issued by an administrator.
    TokenIssued = "token.issued",
    /// A token was revoked.
    TokenRevoked = "token.revoked",
    /// An agent obtained a token for an MCP server, or connected to one.
    McpConnection = "mcp.connection",
    /// An MCP server was registered.
    McpServerCreated = "mcp_server.created",
    /// An MCP server was changed.
    McpServerUpdated = "mcp_server.updated",
    /// An MCP server was removed.
    McpServerDeleted = "mcp_server.deleted",
    /// An administrator recorded use of an agent.
    BudgetUsageRecorded = "budget.usage_recorded",
    /// A budget was reset.
    BudgetReset = "budget.reset",
    /// A limit was first reached in its window.
    BudgetExceeded = "budget.exceeded",
    /// A signing key was made.
    KeyCreated = "key.created",
    /// A signing key was removed after its time.
    KeyRemoved = "key.removed",
}

impl EventKind {
    /// The part before the dot.
    pub fn category(self) -> &'static str {
        self.as_str().split('.').next().unwrap_or_default()
    }

    /// How much attention an event of this kind deserves.
    pub const fn severity(self, outcome: EventOutcome) -> &'static str {
        match (self, outcome) {
            (_, EventOutcome::Failure) | (Self::BudgetExceeded | Self::AgentRevoked, _) => "warning",
            _ => "info",
        }
    }
}

impl Event {
    /// A successful event that `actor` caused `now`.
    pub fn new(kind: EventKind, actor: Actor, message: impl Into<Cow<'static, str>>, now: Timestamp) -> Self {
        Self {
            id: EventId::generate(now),
            at: now,
            kind,
            outcome: EventOutcome::Success,
            actor,
            target: None,
            message: message.into(),
            auth_method: None,
            origin: Origin::default(),
            reason: None,
            context: Map::new(),
        }
    }

    /// The same, done to `target`.
    #[must_use]
    pub fn on(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The same, refused for `reason`.
    #[must_use]
    pub fn failed(mut self, reason: impl Into<String>) -> Self {
        self.outcome = EventOutcome::Failure;
        self.reason = Some(reason.into());
        self
    }

    /// The same, from `origin`.
    #[must_use]
    pub fn from_origin(mut self, origin: &Origin) -> Self {
        self.origin = origin.clone();
        self
    }

    /// The same, authenticated by `method`.
    #[must_use]
    pub fn by_method(mut self, method: &'static str) -> Self {
        self.auth_method = Some(method.into());
        self
    }

    /// The same, with one more fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.context.insert(name.to_owned(), value.into());
        self
    }
}
