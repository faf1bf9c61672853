//! Audit events: what happened, who did it, to what.
//!
//! An event is made here, once, with its id and its time; a store only keeps and numbers it. It never holds a
//! secret or a token, at most a token's `jti`.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};
use serde_json::{Map, Value};

use crate::{clock::Timestamp, id::EventId, secret::without_credentials};

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
        let kept = |text: &str| clean(text.into());
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
        Self { kind, id: clean(id.into()), name: None }
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
    /// An AAuth resource.
    Resource,
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
            Self::Resource => "resource",
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
        Self { kind: kind.into(), id: clean(id.into()), name: None }
    }

    /// The same with a display name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

fn clean(text: Arc<str>) -> Arc<str> {
    if is_clean(&text) { text } else { cleaned(&text).into() }
}

fn is_clean(text: &str) -> bool {
    text.len() <= 256 && !text.contains(char::is_control) && without_credentials(text) == text
}

/// Text that a caller chose, as the log may hold it: at most 256 characters, none of them a control, and no credential.
pub(crate) fn cleaned(text: &str) -> String {
    let visible: String = text.chars().filter(|c| !c.is_control()).collect();
    without_credentials(&visible).chars().take(256).collect()
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
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
            /// What a newer version recorded and this one has no name for.
            Unknown(UnknownKind),
        }

        impl EventKind {
            /// Every kind that this version records, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The wire name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(kind) => kind.0,
                }
            }

            /// The kind with this wire name. A name that this version does not know is kept as
            /// [`EventKind::Unknown`]; `None` if it is not a name at all, or if too many unknown ones were met.
            ///
            /// ```
            /// # use lumoauth_core::audit::EventKind;
            /// assert_eq!(EventKind::named("agent.created"), Some(EventKind::AgentCreated));
            /// let newer = EventKind::named("agent.renamed").ok_or("not a name")?;
            /// assert_eq!((newer.as_str(), newer.category()), ("agent.renamed", "agent"));
            /// # Ok::<(), &str>(())
            /// ```
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => UnknownKind::named(name).map(Self::Unknown),
                }
            }
        }
    };
}

/// The name of an [`EventKind`] that a newer version records. While servers are replaced one by one, the old ones read
/// what the new ones wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnknownKind(&'static str);

impl UnknownKind {
    /// Names are kept as long as the process lives, so there must not be any number of them.
    const MOST: usize = 256;
    const MAX_LENGTH: usize = 64;

    fn named(name: &str) -> Option<Self> {
        static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let of_a_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'.');
        if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.bytes().all(of_a_name) {
            return None;
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(name) {
            return Some(Self(name));
        }
        if known.len() >= Self::MOST {
            return None;
        }
        let name: &'static str = Box::leak(name.into());
        known.insert(name);
        Some(Self(name))
    }
}

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = EventKind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a kind of event")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<EventKind, E> {
                EventKind::named(name).ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
            }
        }

        deserializer.deserialize_str(Name)
    }
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
    /// What a user is called, or how they are reached, was changed.
    UserUpdated = "user.updated",
    /// A user was blocked.
    UserBlocked = "user.blocked",
    /// A user was unblocked.
    UserUnblocked = "user.unblocked",
    /// A person signed in, or failed to.
    UserAuthenticated = "user.authenticated",
    /// A person signed out.
    UserSignedOut = "user.signed_out",
    /// A person allowed a client something.
    ConsentGranted = "consent.granted",
    /// A person took back what a client was allowed, or an administrator did.
    ConsentRevoked = "consent.revoked",
    /// An agent asked a person to allow something.
    ApprovalRequested = "approval.requested",
    /// A person allowed what an agent asked for.
    ApprovalApproved = "approval.approved",
    /// A person did not.
    ApprovalDenied = "approval.denied",
    /// An agent took back what it asked, before anybody answered.
    ApprovalWithdrawn = "approval.withdrawn",
    /// The time of a request for approval ended, and nobody had decided.
    ApprovalExpired = "approval.expired",
    /// What a person allowed was used up by whoever takes it for one action only.
    ApprovalConsumed = "approval.consumed",
    /// An agent began a task.
    JitTaskCreated = "jit.task_created",
    /// A task ended before its time (`context.outcome` says how).
    JitTaskClosed = "jit.task_closed",
    /// An agent asked for a permission in a task (`context.status` says what it got at once).
    JitRequested = "jit.requested",
    /// A person granted what an agent asked for in a task.
    JitApproved = "jit.approved",
    /// A person did not (`context.task_suspended` if that ended the task).
    JitDenied = "jit.denied",
    /// An agent obtained a token for what it was granted in a task.
    JitTokenIssued = "jit.token_issued",
    /// An organization said how risky types of permissions are.
    JitPolicyUpdated = "jit.policy_updated",
    /// A person answered a client's request for authorization.
    AuthorizationDecided = "authorization.decided",
    /// A request for authorization was refused that named an address that is not its client's, or an answer that came
    /// from somebody else than the person who was asked or not from the page that asked.
    AuthorizationRefused = "authorization.refused",
    /// A refresh token was rotated.
    TokenRefreshed = "token.refreshed",
    /// A code or refresh token was used a second time.
    TokenReused = "token.reused",
    /// An organization was disabled.
    OrganizationDisabled = "organization.disabled",
    /// An organization was made to work again.
    OrganizationEnabled = "organization.enabled",
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
    /// An agent became one of AAuth.
    AAuthAgentRegistered = "aauth.agent_registered",
    /// An agent's part in AAuth was changed.
    AAuthAgentUpdated = "aauth.agent_updated",
    /// An agent's part in AAuth ended; the agent is still there.
    AAuthAgentRemoved = "aauth.agent_removed",
    /// An AAuth resource was registered.
    AAuthResourceCreated = "aauth.resource_created",
    /// An AAuth resource was changed.
    AAuthResourceUpdated = "aauth.resource_updated",
    /// An AAuth resource was removed.
    AAuthResourceDeleted = "aauth.resource_deleted",
    /// A token of AAuth was issued (`context` says of which type).
    AAuthTokenIssued = "aauth.token_issued",
    /// An agent was told to bring a person, who must agree.
    AAuthConsentRequested = "aauth.consent_requested",
    /// A person answered an AAuth agent's request for authorization.
    AAuthAuthorizationDecided = "aauth.authorization_decided",
    /// A request of AAuth was refused.
    AAuthRefused = "aauth.refused",
    /// A role was made.
    RoleCreated = "role.created",
    /// A role was changed, or what it permits.
    RoleUpdated = "role.updated",
    /// A role was removed.
    RoleDeleted = "role.deleted",
    /// Somebody was given a role or a permission.
    RoleAssigned = "role.assigned",
    /// A role or a permission was taken from somebody.
    RoleUnassigned = "role.unassigned",
    /// A permission was listed.
    PermissionCreated = "permission.created",
    /// The description of a permission was changed.
    PermissionUpdated = "permission.updated",
    /// A permission was taken off the list.
    PermissionDeleted = "permission.deleted",
    /// An attribute policy was made.
    PolicyCreated = "policy.created",
    /// An attribute policy was changed, switched on or off.
    PolicyUpdated = "policy.updated",
    /// An attribute policy was removed.
    PolicyDeleted = "policy.deleted",
    /// An attribute was defined.
    AttributeCreated = "attribute.created",
    /// The definition of an attribute was changed.
    AttributeUpdated = "attribute.updated",
    /// The definition of an attribute was removed.
    AttributeDeleted = "attribute.deleted",
    /// Somebody's or something's attribute was set.
    AttributeSet = "attribute.set",
    /// The rules of a namespace of relations were written.
    NamespaceWritten = "relation.namespace_written",
    /// The rules of a namespace of relations were removed.
    NamespaceDeleted = "relation.namespace_deleted",
    /// Relations were written down.
    RelationWritten = "relation.written",
    /// Relations were removed.
    RelationDeleted = "relation.deleted",
    /// An administrator recorded use of an agent.
    BudgetUsageRecorded = "budget.usage_recorded",
    /// A budget was reset.
    BudgetReset = "budget.reset",
    /// A limit was first reached in its window.
    BudgetExceeded = "budget.exceeded",
    /// The contents of entries that are older than they are kept were dropped (`context.up_to` says up to which).
    AuditBodiesDropped = "audit.bodies_dropped",
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
            (_, EventOutcome::Failure)
            | (Self::BudgetExceeded | Self::AgentRevoked | Self::TokenReused, _) => "warning",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in EventKind::ALL {
            let text = serde_json::to_string(kind).unwrap();
            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            assert_eq!(serde_json::from_str::<EventKind>(&text).unwrap(), *kind);
        }
    }

    #[test]
    fn kinds_of_newer_versions_are_kept_as_they_are() {
        let event =
            Event::new(EventKind::AgentAction, Actor::system(), "new", Timestamp::from_unix_millis(1));
        let text = serde_json::to_string(&event).unwrap().replace("agent.action", "skill.learned_2");
        let read: Event = serde_json::from_str(&text).unwrap();
        assert_eq!((read.kind.as_str(), read.kind.category()), ("skill.learned_2", "skill"));
        assert_eq!(read.kind.severity(EventOutcome::Success), "info");
        assert_eq!(EventKind::named("skill.learned_2"), Some(read.kind));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        for name in ["", "Agent.created", "agent created", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(EventKind::named(name), None, "{name}");
        }
    }
}
