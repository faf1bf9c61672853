//! Who is calling, once that has been verified.

use std::sync::Arc;

use crate::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, ActorKind},
    capability::{Capability, Decision, DenyReason, evaluate},
    client::Client,
    id::OrgId,
    token::AccessClaims,
};

/// A verified caller of an organization.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Principal {
    /// The organization whose credential it is.
    pub org: OrgId,
    /// Who it is.
    pub identity: Identity,
    /// The claims of the access token that was presented; an API key has none.
    pub claims: Option<Arc<AccessClaims>>,
}

/// Who it is.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every sort of caller must be handled wherever access is decided"
)]
pub enum Identity {
    /// An agent, by access token or agent API key.
    Agent(Arc<Agent>),
    /// An ordinary OAuth client, by access token.
    Client(Arc<Client>),
    /// An organization API key.
    ApiKey(Arc<ApiKey>),
}

impl Principal {
    /// A verified caller.
    pub fn new(org: OrgId, identity: Identity, claims: Option<Arc<AccessClaims>>) -> Self {
        Self { org, identity, claims }
    }

    /// The agent, if it is one.
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        match &self.identity {
            Identity::Agent(agent) => Some(agent),
            Identity::Client(_) | Identity::ApiKey(_) => None,
        }
    }

    /// The API key, if it is one.
    pub fn api_key(&self) -> Option<&Arc<ApiKey>> {
        match &self.identity {
            Identity::ApiKey(key) => Some(key),
            Identity::Agent(_) | Identity::Client(_) => None,
        }
    }

    /// What the presented token is narrowed to; `None` if there is no token.
    pub fn token_scope(&self) -> Option<&[Capability]> {
        self.claims.as_ref().map(|claims| claims.scope.as_slice())
    }

    /// Whether the caller holds `capability`: an agent by its own grants within its token, a client within its
    /// token, an API key by its scopes (of which `admin` covers everything under `admin:`).
    ///
    /// An agent's list of allowed tools narrows its `tool:` capabilities.
    pub fn decide(&self, capability: &Capability) -> Decision {
        match &self.identity {
            Identity::Agent(agent) => {
                let tool = capability.as_str().strip_prefix("tool:");
                let listed = |tool: &str| agent.allowed_tools.iter().any(|allowed| allowed == tool);
                if !agent.allowed_tools.is_empty() && tool.is_some_and(|tool| !listed(tool)) {
                    return Decision::Deny(DenyReason::ToolNotAllowed);
                }
                evaluate(&agent.capabilities, self.token_scope(), capability)
            }
            Identity::Client(client) => evaluate(&client.allowed_scopes, self.token_scope(), capability),
            Identity::ApiKey(key) => {
                let is_admin = key.scopes.iter().any(|scope| scope.as_str() == "admin");
                if is_admin && capability.as_str().starts_with("admin:") {
                    return Decision::Allow;
                }
                evaluate(&key.scopes, None, capability)
            }
        }
    }

    /// The caller as the actor of an audit event.
    pub fn actor(&self) -> Actor {
        match &self.identity {
            Identity::Agent(agent) => agent_actor(agent),
            Identity::Client(client) => {
                Actor::new(ActorKind::Client, client.client_id.as_str()).named(&client.name)
            }
            Identity::ApiKey(key) => Actor::new(ActorKind::ApiKey, key.number.to_string()).named(&key.name),
        }
    }
}

/// An agent as the actor of an audit event.
pub(crate) fn agent_actor(agent: &Agent) -> Actor {
    Actor::new(ActorKind::Agent, agent.id.to_string()).named(&agent.name)
}
