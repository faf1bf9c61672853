//! Who is calling, once that has been verified.

mod remote;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    api_key::ApiKey,
    audit::{Actor, ActorKind, Event},
    authorize::IDENTITY_SCOPES,
    budget::Envelope,
    capability::{Capability, Decision, DenyReason, evaluate},
    client::Client,
    client_auth::AuthenticatedClient,
    id::OrgId,
    jit::AuthorizationDetail,
    jwks::Thumbprint,
    token::AccessClaims,
    user::User,
};

pub use remote::{RemoteCaller, RemoteKind};

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
    /// For whom it acts, if not for itself.
    pub delegation: Option<Arc<Delegation>>,
}

/// A chain of agency: "search tool, used by research bot, acting for Alice".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delegation {
    /// For whom the chain acts.
    pub represented: Represented,
    /// The actors, the first one first; the last one uses the token.
    pub actors: Vec<Arc<Agent>>,
}

/// For whom a chain acts.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every sort of subject must be handled wherever access is decided"
)]
pub enum Represented {
    /// A person.
    User(Arc<User>),
    /// An agent.
    Agent(Arc<Agent>),
}

impl Delegation {
    /// Every agent whose authority bounds the chain.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        let subject = match &self.represented {
            Represented::User(_) => None,
            Represented::Agent(agent) => Some(agent),
        };
        subject.into_iter().chain(&self.actors)
    }

    /// The chain as the audit log shows it.
    pub(crate) fn described(&self) -> Value {
        json!({
            "subject": self.represented.subject(),
            "actor_chain": self.actors.iter().map(|agent| agent.subject()).collect::<Vec<_>>(),
        })
    }
}

impl Represented {
    /// The `sub` of a token about it.
    pub fn subject(&self) -> String {
        match self {
            Self::User(user) => user.id.to_string(),
            Self::Agent(agent) => agent.subject(),
        }
    }
}

/// A person, by a token that a client has of them.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a person and a client are all there is to it")]
pub struct Person {
    /// Who it is.
    pub user: Arc<User>,
    /// The client that the token was issued to: an application, or an agent.
    pub client: AuthenticatedClient,
}

impl Person {
    /// Whether the client may still have `capability` of the person: what it lost since is gone from their tokens.
    fn lets_through(&self, capability: &Capability) -> bool {
        let tools = match &self.client {
            AuthenticatedClient::Agent(agent) => agent.allows_tool(capability),
            AuthenticatedClient::Client(_) => true,
        };
        let identity = IDENTITY_SCOPES.contains(&capability.as_str());
        identity || (tools && evaluate(self.client_scopes(), None, capability).is_allow())
    }

    /// What people may give the client.
    fn client_scopes(&self) -> &[Capability] {
        match &self.client {
            AuthenticatedClient::Agent(agent) => &agent.capabilities,
            AuthenticatedClient::Client(client) => &client.allowed_scopes,
        }
    }

    /// Whether the person acts by an ordinary application, and not by an agent.
    pub fn acts_in_person(&self) -> bool {
        matches!(self.client, AuthenticatedClient::Client(_))
    }
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
    /// A person, by access token.
    User(Person),
    /// Somebody of whom only the access token is known: at services that verify the tokens of another server.
    Remote(Arc<RemoteCaller>),
}

impl From<AuthenticatedClient> for Identity {
    fn from(client: AuthenticatedClient) -> Self {
        match client {
            AuthenticatedClient::Agent(agent) => Self::Agent(agent),
            AuthenticatedClient::Client(client) => Self::Client(client),
        }
    }
}

impl Principal {
    /// A verified caller.
    pub fn new(org: OrgId, identity: Identity, claims: Option<Arc<AccessClaims>>) -> Self {
        Self { org, identity, claims, delegation: None }
    }

    /// A caller of whom only the token is known.
    pub fn remote(caller: RemoteCaller) -> Self {
        Self::new(caller.org.clone(), Identity::Remote(Arc::new(caller)), None)
    }

    /// The agent, if it is one whose record is here.
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        match &self.identity {
            Identity::Agent(agent) => Some(agent),
            Identity::Client(_) | Identity::ApiKey(_) | Identity::User(_) | Identity::Remote(_) => None,
        }
    }

    /// The agent whose record is here and that sends the request: as itself or for others, or as the client of a person.
    pub(crate) fn presenter(&self) -> Option<&Arc<Agent>> {
        match &self.identity {
            Identity::Agent(agent)
            | Identity::User(Person { client: AuthenticatedClient::Agent(agent), .. }) => Some(agent),
            Identity::Client(_) | Identity::ApiKey(_) | Identity::User(_) | Identity::Remote(_) => None,
        }
    }

    /// The agents whose authority bounds the caller, the one that calls last: every agent of a chain, or the agent.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        let chain = self.delegation.iter().flat_map(|delegation| delegation.agents());
        let alone = if self.delegation.is_none() { self.agent() } else { None };
        chain.chain(alone)
    }

    /// The same agents, or `agent` if the caller is none.
    pub(crate) fn chain<'a>(&'a self, agent: &'a Agent) -> Vec<&'a Agent> {
        let chain: Vec<_> = self.agents().map(|agent| &**agent).collect();
        if chain.is_empty() { vec![agent] } else { chain }
    }

    /// The budgets that its token carries.
    pub fn envelopes(&self) -> &[Envelope] {
        self.claims.as_ref().map_or(&[], |claims| &claims.lin.budgets)
    }

    /// The person, if it is one in person: not through an agent, and nobody in between.
    pub fn person(&self) -> Option<&Arc<User>> {
        match &self.identity {
            Identity::User(person) if person.acts_in_person() => Some(&person.user),
            Identity::User(_)
            | Identity::Agent(_)
            | Identity::Client(_)
            | Identity::ApiKey(_)
            | Identity::Remote(_) => None,
        }
    }

    /// The API key, if it is one.
    pub fn api_key(&self) -> Option<&Arc<ApiKey>> {
        match &self.identity {
            Identity::ApiKey(key) => Some(key),
            Identity::Agent(_) | Identity::Client(_) | Identity::User(_) | Identity::Remote(_) => None,
        }
    }

    /// Whether it is an API key that may at least read the registry of agents and MCP servers.
    pub fn administers_agents(&self) -> bool {
        let scopes = ["admin:agents", "admin:read", "admin:write"].map(Capability::parse);
        self.api_key().is_some() && scopes.iter().flatten().any(|scope| self.decide(scope).is_allow())
    }

    /// What the presented token is narrowed to; `None` if there is no token.
    pub fn token_scope(&self) -> Option<&[Capability]> {
        match &self.identity {
            Identity::Remote(caller) => Some(caller.scope.as_slice()),
            Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::User(_) => {
                self.claims.as_ref().map(|claims| claims.scope.as_slice())
            }
        }
    }

    /// What its token is for in detail (RFC 9396); only tokens that were made for a task say that.
    pub fn authorization_details(&self) -> &[AuthorizationDetail] {
        match &self.identity {
            Identity::Remote(caller) => &caller.authorization_details,
            Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::User(_) => {
                let claims = self.claims.as_ref().filter(|claims| claims.jit);
                claims.map_or(&[], |claims| &claims.authorization_details)
            }
        }
    }

    /// The key that its token is bound to.
    pub(crate) fn key(&self) -> Option<Thumbprint> {
        self.claims.as_ref()?.cnf.map(|binding| binding.jkt)
    }

    /// Whether the caller holds `capability`: an agent by its own grants within its token, a client within its
    /// token, an API key by its scopes (of which `admin` covers everything that a key can hold), a person within the token
    /// and, for what only administrators do, as one and in person; what others may do is asked in person too. Of whom only
    /// the token is known holds what the token says, and administers nothing.
    ///
    /// An agent's list of allowed tools narrows its `tool:` capabilities. Where an agent acts for somebody, every agent of
    /// the chain must hold it.
    pub fn decide(&self, capability: &Capability) -> Decision {
        match &self.identity {
            Identity::Agent(agent) => {
                let others = self.delegation.iter().flat_map(|delegation| delegation.agents());
                for agent in others.chain([agent]) {
                    if !agent.allows_tool(capability) {
                        return Decision::Deny(DenyReason::ToolNotAllowed);
                    }
                    let decision = evaluate(&agent.capabilities, self.token_scope(), capability);
                    if !decision.is_allow() {
                        return decision;
                    }
                }
                Decision::Allow
            }
            Identity::User(person) => {
                let granted = self.token_scope().unwrap_or_default();
                let wanted = capability.as_str();
                let administers = wanted.starts_with("admin");
                if administers || wanted.starts_with("authz:") {
                    let is_admin = person.user.is_admin;
                    if !person.acts_in_person() || (administers && !is_admin) {
                        return Decision::Deny(DenyReason::NotGranted);
                    }
                    let everything =
                        |scopes: &[Capability]| scopes.iter().any(|scope| scope.as_str() == "admin");
                    if is_admin && everything(granted) && everything(person.client_scopes()) {
                        return Decision::Allow;
                    }
                }
                if !person.lets_through(capability) {
                    return Decision::Deny(DenyReason::NotGranted);
                }
                evaluate(granted, None, capability)
            }
            Identity::Remote(caller) => {
                let wanted = capability.as_str();
                if wanted.starts_with("admin") || wanted.starts_with("authz:") {
                    return Decision::Deny(DenyReason::NotGranted);
                }
                if evaluate(caller.scope.as_slice(), None, capability).is_allow() {
                    Decision::Allow
                } else {
                    Decision::Deny(DenyReason::NotInToken)
                }
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
            Identity::User(person) => user_actor(&person.user),
            Identity::Remote(caller) => caller.actor(),
        }
    }
}

impl Principal {
    /// `event` with the chain of agency that caused it, if there is one.
    pub(crate) fn in_context(&self, event: Event) -> Event {
        match &self.delegation {
            Some(delegation) => event.with("principal", delegation.described()),
            None => event,
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

/// A person as the actor of an audit event.
pub(crate) fn user_actor(user: &User) -> Actor {
    let actor = Actor::new(ActorKind::User, user.id.to_string());
    match &user.name {
        Some(name) => actor.named(&**name),
        None => actor,
    }
}

/// An agent as the actor of an audit event.
pub(crate) fn agent_actor(agent: &Agent) -> Actor {
    Actor::new(ActorKind::Agent, agent.id.to_string()).named(agent.name.clone())
}
