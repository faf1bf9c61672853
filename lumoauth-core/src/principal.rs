//! Who is calling, once that has been verified.

use std::sync::Arc;

use crate::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, ActorKind},
    capability::{Capability, Decision, DenyReason, evaluate},
    client::Client,
    client_auth::AuthenticatedClient,
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

    /// Whether it is an API key that may at least read the registry of agents and MCP servers.
    pub fn administers_agents(&self) -> bool {
        let scopes = ["admin:agents", "admin:read", "admin:write"].map(Capability::parse);
        self.api_key().is_some() && scopes.iter().flatten().any(|scope| self.decide(scope).is_allow())
    }

    /// What the presented token is narrowed to; `None` if there is no token.
    pub fn token_scope(&self) -> Option<&[Capability]> {
        self.claims.as_ref().map(|claims| claims.scope.as_slice())
    }

    /// Whether the caller holds `capability`: an agent by its own grants within its token, a client within its
    /// token, an API key by its scopes (of which `admin` covers everything that a key can hold).
    ///
    /// An agent's list of allowed tools narrows its `tool:` capabilities.
    pub fn decide(&self, capability: &Capability) -> Decision {
        match &self.identity {
            Identity::Agent(agent) => {
                if !agent.allows_tool(capability) {
                    return Decision::Deny(DenyReason::ToolNotAllowed);
                }
                evaluate(&agent.capabilities, self.token_scope(), capability)
            }
            Identity::Client(client) => evaluate(&client.allowed_scopes, self.token_scope(), capability),
            Identity::ApiKey(key) => {
                let is_admin = key.scopes.iter().any(|scope| scope.as_str() == "admin");
                let wanted = capability.as_str();
                if is_admin && (wanted.starts_with("admin:") || wanted == "authz:check") {
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
            Identity::Client(client) => app_actor(client),
            Identity::ApiKey(key) => Actor::new(ActorKind::ApiKey, key.number.to_string()).named(&*key.name),
        }
    }
}

/// A client of either sort as the actor of an audit event.
pub(crate) fn client_actor(client: &AuthenticatedClient) -> Actor {
    match client {
        AuthenticatedClient::Agent(agent) => agent_actor(agent),
        AuthenticatedClient::Client(client) => app_actor(client),
    }
}

fn app_actor(client: &Client) -> Actor {
    Actor::new(ActorKind::Client, client.client_id.as_str()).named(&*client.name)
}

/// An agent as the actor of an audit event.
pub(crate) fn agent_actor(agent: &Agent) -> Actor {
    Actor::new(ActorKind::Agent, agent.id.to_string()).named(agent.name.clone())
}
