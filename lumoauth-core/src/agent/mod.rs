//! Agents: first-class identities with capabilities, a budget and a life cycle.

mod aauth;
mod admission;
mod patch;
mod registered;
mod status;

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    api_key::{AGENT_KEY_PREFIX, mint_key},
    budget::{Account, BudgetPolicy},
    capability::{Capability, Scope, narrow},
    client::Secrets,
    clock::Timestamp,
    id::{AAuthIdentifier, AgentId, ClientId, OrgId, Slug},
    jwks::JwkSet,
    network::Network,
    secret::{Secret, SecretHash},
    workload::WorkloadTrust,
};

pub use aauth::{AAuthIdentity, AAuthIdentityPatch};
pub use admission::{AuthMethod, Barred};
pub use patch::{AgentPatch, DelegationPolicy, InvalidAgent};
pub(crate) use patch::{checked_text, https_url, parse_capabilities, parse_policy, scope_list};
pub(crate) use registered::{key_set, redirect_uris};
pub use status::{AgentStatus, StatusChange, Terminal};

/// A registered agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Agent {
    /// Its identity, never used again.
    pub id: AgentId,
    /// Its short name, unique in the organization; `agent:<slug>` is the `sub` of its tokens.
    pub slug: Slug,
    /// Its OAuth `client_id`, unique in the organization.
    pub client_id: ClientId,
    /// Display name.
    pub name: Arc<str>,
    /// What it does.
    pub description: Option<String>,
    /// What sort of program it is.
    pub kind: AgentKind,
    /// Whether it may do anything at all.
    pub status: AgentStatus,
    /// How it proves who it is.
    pub identity_type: IdentityType,
    /// If not empty, the only ways to do that; each is one that its type allows.
    #[serde(default)]
    pub auth_methods: Vec<AuthMethod>,
    /// If not empty, the only addresses it may come from.
    #[serde(default)]
    pub allowed_ips: Vec<Network>,
    /// What it may ask for.
    pub capabilities: Vec<Capability>,
    /// What it asked an administrator for when it registered itself.
    pub requested_capabilities: Vec<Capability>,
    /// If not empty, the only `tool:` actions it may do (names without the prefix).
    pub allowed_tools: Vec<String>,
    /// What it may use.
    pub budget: BudgetPolicy,
    /// Raised by a budget reset.
    pub budget_generation: u32,
    /// Life of its tokens, in seconds.
    pub token_lifetime: u32,
    /// Where its public keys are published.
    pub jwks_uri: Option<String>,
    /// Its public keys, if they are registered here.
    pub jwks: Option<JwkSet>,
    /// Where an authorization response may go, compared exactly.
    pub redirect_uris: Vec<String>,
    /// Whether it may act for people without holding a capability of delegation.
    pub can_act_on_behalf_of_users: bool,
    /// Whether people must agree before it acts for them.
    pub delegation_consent: DelegationConsent,
    /// Which workload it is, if its platform vouches for it.
    pub workload: Option<WorkloadTrust>,
    /// Its part in AAuth, if it has one.
    // In a box: few agents have one, and every agent is kept in memory somewhere.
    #[serde(default)]
    pub aauth: Option<Box<AAuthIdentity>>,
    /// Hashes of its client secrets.
    pub secrets: Secrets,
    /// Hash of its API key.
    pub api_key: Option<SecretHash>,
    /// Raised whenever all its tokens must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What sort of program an agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AgentKind {
    /// An assistant for people.
    AiAssistant,
    /// A service without a face.
    #[default]
    Service,
    /// A chat bot.
    Bot,
    /// Glue between systems.
    Integration,
}

impl AgentKind {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AiAssistant => "ai_assistant",
            Self::Service => "service",
            Self::Bot => "bot",
            Self::Integration => "integration",
        }
    }
}

/// How an agent proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every identity type must be handled where agents authenticate")]
pub enum IdentityType {
    /// Its platform vouches for it.
    WorkloadIdentity,
    /// It signs its requests.
    Aauth,
    /// An agent API key.
    ApiKey,
    /// A client id and secret.
    #[default]
    ClientCredentials,
    /// Any of these, or those that [`Agent::auth_methods`] lists.
    Custom,
}

impl IdentityType {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "workload_identity",
            Self::Aauth => "aauth",
            Self::ApiKey => "api_key",
            Self::ClientCredentials => "client_credentials",
            Self::Custom => "custom",
        }
    }
}

/// Whether people must agree before an agent acts for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every rule must be handled where delegation is decided")]
pub enum DelegationConsent {
    /// They must: the token was made for this agent, or there is a stored consent.
    #[default]
    Required,
    /// An administrator answers for them: whoever hands the agent a token of theirs has agreed.
    Implicit,
}

impl DelegationConsent {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Implicit => "implicit",
        }
    }
}

impl Agent {
    /// Shortest life of a token, in seconds. Clients refresh a minute early, so anything near a minute would
    /// make them authenticate on every call.
    pub const MIN_TOKEN_LIFETIME: u32 = 120;
    /// Longest life of a token, in seconds.
    pub const MAX_TOKEN_LIFETIME: u32 = 86_400;

    /// A new, active agent without capabilities or credentials.
    pub fn new(name: impl Into<Arc<str>>, slug: Slug, now: Timestamp) -> Self {
        Self {
            id: AgentId::generate(),
            slug,
            client_id: ClientId::generate_for_agent(),
            name: name.into(),
            description: None,
            kind: AgentKind::default(),
            status: AgentStatus::Active,
            identity_type: IdentityType::default(),
            auth_methods: Vec::new(),
            allowed_ips: Vec::new(),
            capabilities: Vec::new(),
            requested_capabilities: Vec::new(),
            allowed_tools: Vec::new(),
            budget: BudgetPolicy::default(),
            budget_generation: 0,
            token_lifetime: 3600,
            jwks_uri: None,
            jwks: None,
            redirect_uris: Vec::new(),
            can_act_on_behalf_of_users: false,
            delegation_consent: DelegationConsent::default(),
            workload: None,
            aauth: None,
            secrets: Secrets::default(),
            api_key: None,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// The `sub` of its tokens: `agent:<slug>`.
    pub fn subject(&self) -> String {
        format!("agent:{}", self.slug)
    }

    /// What it may ask for. A list of allowed tools takes the others away, and turns a wildcard that reaches tools into
    /// the allowed ones among them.
    pub fn effective_capabilities(&self) -> Cow<'_, [Capability]> {
        if self.allowed_tools.is_empty() {
            return Cow::Borrowed(&self.capabilities);
        }
        let tools =
            self.allowed_tools.iter().filter_map(|tool| Capability::parse(&format!("tool:{tool}")).ok());
        let granted = tools.filter(|tool| self.capabilities.iter().any(|grant| grant.covers(tool)));
        let kept = self.capabilities.iter().filter(|capability| self.allows_tool(capability)).cloned();
        Cow::Owned(Scope::new(kept.chain(granted)).as_slice().to_vec())
    }

    /// Whether the list of allowed tools has nothing against `capability`.
    pub fn allows_tool(&self, capability: &Capability) -> bool {
        let text = capability.as_str();
        let reaches_tools = match text.strip_suffix('*') {
            Some(stem) => stem.starts_with("tool:") || "tool:".starts_with(stem),
            None => text.starts_with("tool:"),
        };
        self.allowed_tools.is_empty()
            || !reaches_tools
            || self.allowed_tools.iter().any(|tool| text.strip_prefix("tool:") == Some(tool))
    }

    /// Whether it holds `capability`, and its list of allowed tools has nothing against it.
    pub fn holds(&self, capability: &Capability) -> bool {
        self.allows_tool(capability) && self.capabilities.iter().any(|held| held.covers(capability))
    }

    /// The scope of a token for it: see [`narrow`]. Its own capabilities and its list of allowed tools are bounds beside
    /// `others`.
    ///
    /// # Errors
    /// The first requested item that it may not have.
    pub fn narrow(&self, requested: Option<&Scope>, others: &[&[Capability]]) -> Result<Scope, Capability> {
        let tool = requested.and_then(|scope| scope.as_slice().iter().find(|item| !self.allows_tool(item)));
        if let Some(item) = tool {
            return Err(item.clone());
        }
        let effective = self.effective_capabilities();
        // A requested tool has passed the list, so the grant itself may be a wildcard.
        let own = if requested.is_some() { &self.capabilities[..] } else { &effective };
        let bounds: Vec<_> = others.iter().copied().chain([own]).collect();
        narrow(requested, &bounds)
    }

    /// Whether it may act for others, and let others act for those it acts for.
    pub fn may_delegate(&self) -> bool {
        let holds = |name| {
            Capability::parse(name)
                .is_ok_and(|wanted| self.capabilities.iter().any(|held| held.covers(&wanted)))
        };
        self.can_act_on_behalf_of_users || holds("delegate:on_behalf") || holds("delegate:user")
    }

    /// Whether it may do anything at all.
    pub fn is_active(&self) -> bool {
        self.status == AgentStatus::Active
    }

    /// The URL that names it in AAuth, if it takes part.
    pub fn aauth_identifier(&self) -> Option<&AAuthIdentifier> {
        self.aauth.as_deref().map(|identity| &identity.identifier)
    }

    /// The account its use is counted on.
    pub fn account(&self) -> Account {
        Account::agent(self.id, self.budget_generation)
    }

    /// A fresh client secret; the old one works until `grace_ends`.
    pub fn rotate_secret(&mut self, grace_ends: Timestamp) -> Secret {
        let secret = Secret::generate("lms_");
        self.secrets.rotate(&secret, grace_ends);
        secret
    }

    /// A fresh API key; the old one is dead.
    pub fn rotate_api_key(&mut self, org: &OrgId) -> Secret {
        let key = mint_key(AGENT_KEY_PREFIX, org);
        self.api_key = Some(key.hash());
        key
    }

    /// Applies a status change. Ending a status in which the agent could act raises the epoch, so that no
    /// token from before works again, also after it is activated anew. Whether anything changed.
    ///
    /// # Errors
    /// [`Terminal`] if the agent is revoked.
    pub fn change_status(&mut self, change: StatusChange) -> Result<bool, Terminal> {
        let next = self.status.after(change)?;
        let changed = next != self.status;
        if changed && next != AgentStatus::Active {
            self.epoch += 1;
        }
        self.status = next;
        Ok(changed)
    }
}
