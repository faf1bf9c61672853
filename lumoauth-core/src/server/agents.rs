//! The agent registry: creating, changing and ending agents.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    ApiError, AuthorizationServer, Caller, removed, retrying, shown::Shows, token::RequestClient, written,
};
use crate::{
    agent::{
        Agent, AgentPatch, AgentStatus, AuthMethod, IdentityType, InvalidAgent, StatusChange, Terminal,
        https_url, parse_capabilities, parse_policy,
    },
    audit::{Event, EventKind, Target},
    capability::{Capability, Scope},
    client::Secrets,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    grant::{Bearer, NewToken, Refusal, Resource, TokenResponse, issue},
    id::{AgentId, ClientId, OrgId, Slug},
    organization::Organization,
    principal::{Identity, Principal},
    random::random_bytes,
    secret::Secret,
    store::{AgentFilter, AgentKey, AgentStore, Insert, Listing, Page, Unique, Update},
    wire::view,
};

/// A new agent, with the secrets that are shown once.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct NewAgent {
    /// The record.
    pub agent: Arc<Agent>,
    /// Its client secret.
    pub secret: Option<Secret>,
    /// Its API key.
    pub api_key: Option<Secret>,
}

/// A page of agents.
pub type AgentPage = Listing<Arc<Agent>>;

/// What an administrator asks of a test token.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TestTokenRequest {
    /// Its life in seconds, at most 30 days.
    #[serde(rename = "expiresIn", alias = "expires_in", alias = "ttl")]
    pub expires_in: Option<u64>,
    /// Its scope; everything the agent may ask for if absent.
    pub scopes: Option<Vec<String>>,
}

/// What an agent (or an administrator for it) registers.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct RegistrationRequest {
    /// The agent's client id.
    pub client_id: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// What it can do; only an administrator grants it.
    pub capabilities: Option<Vec<String>>,
    /// Where its public keys are published, if an administrator registers the agent. An agent itself may only name what is
    /// registered: keys are credentials.
    pub jwks_uri: Option<String>,
    /// Not supported yet.
    pub jwks: Option<Value>,
    /// The only addresses it may come from, if an administrator registers the agent.
    #[serde(alias = "allowedIps")]
    pub allowed_ips: Option<Vec<String>>,
    /// The only ways it may prove who it is, if an administrator registers the agent.
    #[serde(alias = "authMethods")]
    pub auth_methods: Option<Vec<String>>,
}

/// The outcome of a registration.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct Registration {
    /// The record.
    pub agent: Arc<Agent>,
    /// The client secret, if the agent is new.
    pub secret: Option<Secret>,
}

/// What a change of a record comes to.
pub(super) enum Change<T> {
    /// Nothing changes.
    Keep(T),
    /// The record changes, and this event says so.
    Write(Box<Event>, T),
}

impl AuthorizationServer {
    /// Creates an agent.
    ///
    /// Identity types that use a secret get one; those that use an API key get one; neither if the agent may not
    /// authenticate by it. Both are returned here and never again.
    ///
    /// # Errors
    /// [`ApiError`] if the members are not acceptable or the slug or client id is taken.
    pub async fn create_agent(
        &self,
        org: &OrgId,
        patch: &AgentPatch,
        caller: &Caller,
    ) -> Result<NewAgent, ApiError> {
        let now = self.now();
        if patch.name.is_none() {
            return Err(ApiError::Invalid { member: "name", problem: "is required".to_owned() });
        }
        let mut agent = Agent::new("", patch.new_slug()?, now);
        if let Some(client_id) = patch.new_client_id()? {
            agent.client_id = client_id;
            // Another agent may have had it. What was given to that one names the client and an epoch, and must not fit.
            agent.epoch = u32::from_be_bytes(random_bytes()) >> 1;
        }
        patch.apply(&mut agent)?;
        self.check_workload(org, &agent)?;
        let asked = patch.issue_secret == Some(true);
        let listed = |method| agent.auth_methods.is_empty() || agent.auth_methods.contains(&method);
        if asked && !listed(AuthMethod::ClientCredentials) {
            let problem = "asks for what the list of methods leaves out".to_owned();
            return Err(ApiError::Invalid { member: "issueSecret", problem });
        }
        let secret = (agent.may_use(AuthMethod::ClientCredentials) || asked).then(|| {
            let secret = Secret::generate("lms_");
            agent.secrets = Secrets::one(&secret);
            secret
        });
        let by_key = matches!(agent.identity_type, IdentityType::ApiKey | IdentityType::Custom);
        let api_key = (by_key && agent.may_use(AuthMethod::ApiKey)).then(|| agent.rotate_api_key(org));
        self.insert_agent(org, &agent, caller, now).await?;
        Ok(NewAgent { agent: Arc::new(agent), secret, api_key })
    }

    /// What the record alone cannot say about the workload that an agent trusts.
    fn check_workload(&self, org: &OrgId, agent: &Agent) -> Result<(), ApiError> {
        let Some(trust) = &agent.workload else { return Ok(()) };
        Ok(trust.check_is_foreign(&self.issuer(org)).map_err(InvalidAgent::from)?)
    }

    async fn insert_agent(
        &self,
        org: &OrgId,
        agent: &Agent,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let event = caller
            .event(EventKind::AgentCreated, format!("agent {} created", agent.slug), now)
            .on(agent_target(agent))
            .with("capabilities", json!(agent.capabilities))
            .with("identity_type", agent.identity_type.as_str())
            .with("auth_methods", json!(agent.auth_methods))
            .with("allowed_ips", json!(agent.allowed_ips))
            .made(view::agent(agent));
        match self.stores().agents.insert(org, agent, &event).await? {
            Insert::Inserted => Ok(()),
            Insert::Taken(Unique::ClientId) => {
                Err(ApiError::Conflict("An agent with this client id exists."))
            }
            Insert::Taken(Unique::AAuthIdentifier) => Err(IDENTIFIER_TAKEN),
            Insert::Taken(_) => Err(ApiError::Conflict("An agent with this slug exists.")),
        }
    }

    /// The agent with this id (`agt_` form or UUID) or slug.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn agent(&self, org: &OrgId, name: &str) -> Result<Arc<Agent>, ApiError> {
        self.find_agent(org, name).await?.ok_or(ApiError::NotFound("agent"))
    }

    pub(super) async fn find_agent(&self, org: &OrgId, name: &str) -> Result<Option<Arc<Agent>>, ApiError> {
        found(&self.stores().agents, org, name).await
    }

    /// The agent as it is now, for somebody who has seen the version that is to be changed.
    async fn agent_to_change(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let agents = &self.stores().uncached().agents;
        let agent = found(agents, org, name).await?.ok_or(ApiError::NotFound("agent"))?;
        caller.expects(&*agent)?;
        Ok(agent)
    }

    /// A page of the agents that match, by slug.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn agents(&self, org: &OrgId, filter: &AgentFilter, page: Page) -> Result<AgentPage, ApiError> {
        Ok(self.stores().agents.list(org, filter, page).await?)
    }

    /// Changes an agent's members; those that are absent stay.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such agent, it is revoked, or the members are not acceptable.
    pub async fn update_agent(
        &self,
        org: &OrgId,
        name: &str,
        patch: &AgentPatch,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        self.update_agent_as(org, name, patch, EventKind::AgentUpdated, caller).await
    }

    /// The same, recorded as `kind`. An agent is registered for AAuth once; of two at a time the second one changes nothing.
    pub(super) async fn update_agent_as(
        &self,
        org: &OrgId,
        name: &str,
        patch: &AgentPatch,
        kind: EventKind,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let (agent, ()) = self
            .modify_agent(org, name, caller, now, |agent| {
                if kind == EventKind::AAuthAgentRegistered && agent.aauth.is_some() {
                    return Err(ApiError::Conflict("The agent has an AAuth identity."));
                }
                let (before, proof) = (view::agent(agent), (agent.workload.clone(), agent.identity_type));
                let named = agent.aauth_identifier().cloned();
                let methods = AuthMethod::ALL.map(|method| (method, agent.may_use(method)));
                patch.apply(agent)?;
                if agent.workload != proof.0 {
                    self.check_workload(org, agent)?;
                }
                let narrowed = methods.iter().any(|(method, could)| *could && !agent.may_use(*method));
                let renamed = named.is_some() && agent.aauth_identifier() != named.as_ref();
                if (proof.0.is_some() && agent.workload != proof.0)
                    || agent.identity_type != proof.1
                    || narrowed
                    || renamed
                {
                    // It proves who it is in another way now; what it got by the old one ends.
                    agent.epoch = agent.epoch.saturating_add(1);
                }
                Ok(recorded_as(kind, caller, "agent updated", &before, agent, now))
            })
            .await?;
        Ok(agent)
    }

    /// Replaces an agent's capabilities.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such agent or a capability is malformed.
    pub async fn set_agent_capabilities(
        &self,
        org: &OrgId,
        name: &str,
        capabilities: &[String],
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let capabilities = parse_capabilities("scopes", capabilities)?;
        let (agent, ()) = self
            .modify_agent(org, name, caller, now, |agent| {
                let before = view::agent(agent);
                agent.capabilities.clone_from(&capabilities);
                Ok(recorded(caller, "capabilities replaced", &before, agent, now))
            })
            .await?;
        Ok(agent)
    }

    /// Changes an agent's status. It acts at once on every route and on introspection.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if the agent is revoked.
    pub async fn change_agent_status(
        &self,
        org: &OrgId,
        name: &str,
        change: StatusChange,
        reason: Option<&str>,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let (kind, mode) = match change {
            StatusChange::Activate => (EventKind::AgentActivated, "activate"),
            StatusChange::Deactivate => (EventKind::AgentRevoked, "deactivate"),
            StatusChange::Disable => (EventKind::AgentRevoked, "disable"),
            StatusChange::Revoke => (EventKind::AgentRevoked, "revoke"),
        };
        let (agent, ()) = self
            .modify_agent(org, name, caller, now, |agent| {
                let before = view::agent(agent);
                if !agent.change_status(change)? {
                    return Ok(Change::Keep(()));
                }
                let mut event = caller
                    .event(kind, format!("agent {} {mode}d", agent.slug), now)
                    .on(agent_target(agent))
                    .with("mode", mode)
                    .changed(&before, &view::agent(agent));
                event.reason =
                    reason.map(|text| text.chars().filter(|c| !c.is_control()).take(256).collect());
                Ok(Change::Write(Box::new(event), ()))
            })
            .await?;
        Ok(agent)
    }

    /// Deletes an agent, and what it had by policy. Its tokens are dead: a record that is gone is alive for nobody.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_agent(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let now = self.now();
        let id = retrying(|| async {
            let agent = self.agent_to_change(org, name, caller).await?;
            let event = caller
                .event(EventKind::AgentRevoked, format!("agent {} deleted", agent.slug), now)
                .on(agent_target(&agent))
                .with("mode", "delete")
                .gone(view::agent(&agent));
            let outcome = self.stores().agents.remove(org, agent.id, agent.version, &event).await?;
            Ok(removed(outcome, "agent")?.map(|()| agent.id))
        })
        .await?;
        self.forget_agent(org, id, caller).await;
        Ok(())
    }

    /// Gives an agent a new client secret; the old one works for `grace` more.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] for agents that may not use a secret.
    pub async fn rotate_agent_secret(
        &self,
        org: &OrgId,
        name: &str,
        grace: Duration,
        caller: &Caller,
    ) -> Result<(Arc<Agent>, Secret), ApiError> {
        let now = self.now();
        self.modify_agent(org, name, caller, now, |agent| {
            // One that is there also while its list leaves the method out: what leaked must not work when it is widened.
            let method = AuthMethod::ClientCredentials;
            let has_one = agent.identity_type.may_use(method) && !agent.secrets.is_empty();
            if !agent.may_use(method) && !has_one {
                let text = "An agent that authenticates like this one has no client secret.";
                return Err(ApiError::InvalidRequest(text.to_owned()));
            }
            let before = json!({ "hasClientSecret": has_one });
            let until = now.plus(grace);
            let secret = agent.rotate_secret(until);
            let old_until = has_one.then(|| until.to_string());
            let after = json!({ "hasClientSecret": true, "oldClientSecretUntil": old_until });
            let event = rotated(caller, agent, "client_secret", now);
            Ok(Change::Write(Box::new(event.replaced(before, after)), secret))
        })
        .await
    }

    /// Gives an agent a new API key; the old one is dead.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] for agents that may not use an API key.
    pub async fn rotate_agent_key(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
    ) -> Result<(Arc<Agent>, Secret), ApiError> {
        let now = self.now();
        self.modify_agent(org, name, caller, now, |agent| {
            let method = AuthMethod::ApiKey;
            let has_one = agent.identity_type.may_use(method) && agent.api_key.is_some();
            if !agent.may_use(method) && !has_one {
                let text = "An agent that authenticates like this one has no API key.";
                return Err(ApiError::InvalidRequest(text.to_owned()));
            }
            let before = has_key(agent);
            let key = agent.rotate_api_key(org);
            let event = rotated(caller, agent, "api_key", now).replaced(before, has_key(agent));
            Ok(Change::Write(Box::new(event), key))
        })
        .await
    }

    /// Takes an agent's API key away.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such agent.
    pub async fn revoke_agent_key(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let now = self.now();
        self.modify_agent(org, name, caller, now, |agent| {
            let before = has_key(agent);
            Ok(match agent.api_key.take() {
                None => Change::Keep(()),
                Some(_) => {
                    let event = rotated(caller, agent, "api_key", now).replaced(before, has_key(agent));
                    Change::Write(Box::new(event), ())
                }
            })
        })
        .await?;
        Ok(())
    }

    /// Makes a token for trying things out; it carries `test: true`.
    ///
    /// # Errors
    /// [`ApiError`] if the agent cannot act, or a scope is not covered by its capabilities.
    pub async fn test_token(
        &self,
        organization: &Organization,
        name: &str,
        request: &TestTokenRequest,
        caller: &Caller,
    ) -> Result<TokenResponse, ApiError> {
        const LONGEST: u64 = 30 * 86_400;
        let now = self.now();
        let org = &organization.id;
        let agent = self.agent(org, name).await?;
        if !agent.is_active() {
            return Err(ApiError::Conflict("The agent is not active."));
        }
        let requested = match &request.scopes {
            Some(items) => Some(Scope::new(parse_capabilities("scopes", items)?)),
            None => None,
        };
        let scope = agent.narrow(requested.as_ref(), &[]).map_err(|item: Capability| ApiError::Invalid {
            member: "scopes",
            problem: format!("contain `{item}`, which is not granted"),
        })?;
        let lifetime = request.expires_in.unwrap_or(3600);
        if !(1..=LONGEST).contains(&lifetime) {
            let problem = format!("must be 1 to {LONGEST} seconds");
            return Err(ApiError::Invalid { member: "expiresIn", problem });
        }
        let issuer = self.issuer(org);
        let refusal = Refusal::default();
        let context =
            self.grant_context(organization, &issuer, &RequestClient::NOBODY, &caller.origin, &refusal, now);
        let event = caller
            .event(EventKind::TokenIssued, format!("test token for {}", agent.slug), now)
            .on(agent_target(&agent))
            .with("scope", scope.to_string());
        let holder = AuthenticatedClient::Agent(agent);
        let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
        let new =
            NewToken { test: true, ..NewToken::new(Bearer::Itself(&holder), Resource::Own, scope, lifetime) };
        let response = issue(&context, new).await?;
        context.append(&[event]).await?;
        Ok(response)
    }

    /// Replaces an agent's budget policy; it holds at once.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if the policy is not acceptable.
    pub async fn set_agent_budget(
        &self,
        org: &OrgId,
        name: &str,
        policy: &RawValue,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let policy = parse_policy(policy)?;
        let (agent, ()) = self
            .modify_agent(org, name, caller, now, |agent| {
                let before = view::agent(agent);
                agent.budget = policy.clone();
                Ok(recorded(caller, "budget policy replaced", &before, agent, now))
            })
            .await?;
        Ok(agent)
    }

    /// Starts an agent's budget anew: nothing counts as used.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such agent.
    pub async fn reset_agent_budget(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let (agent, ()) = self
            .modify_agent(org, name, caller, now, |agent| {
                let before = json!({ "budgetGeneration": agent.budget_generation });
                agent.budget_generation += 1;
                let event = caller
                    .event(EventKind::BudgetReset, format!("budget of {} reset", agent.slug), now)
                    .on(agent_target(agent))
                    .changed(&before, &json!({ "budgetGeneration": agent.budget_generation }));
                Ok(Change::Write(Box::new(event), ()))
            })
            .await?;
        Ok(agent)
    }

    /// Registers an agent, or updates its record.
    ///
    /// An agent may only describe itself: capabilities it does not have yet are kept as requested, for an
    /// administrator to see. An API key with an admin scope may create agents and grant capabilities.
    ///
    /// # Errors
    /// [`ApiError`] if the caller may not register this client id or the members are not acceptable.
    pub async fn register_agent(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: RegistrationRequest,
        caller: &Caller,
    ) -> Result<Registration, ApiError> {
        let org = &organization.id;
        let required = |member| ApiError::Invalid { member, problem: "is required".to_owned() };
        if request.jwks.is_some() {
            let problem =
                "is not supported by this server yet; publish the keys and send jwks_uri".to_owned();
            return Err(ApiError::Invalid { member: "jwks", problem });
        }
        let client_id = request.client_id.ok_or_else(|| required("client_id"))?;
        let name = request.name.ok_or_else(|| required("name"))?;
        let mut patch = AgentPatch {
            name: Some(name),
            description: request.description,
            jwks_uri: request.jwks_uri,
            allowed_ips: request.allowed_ips,
            auth_methods: request.auth_methods,
            ..AgentPatch::default()
        };
        match &principal.identity {
            Identity::Agent(_) if principal.delegation.is_some() => {
                Err(ApiError::Forbidden("An agent registers itself with a token of its own."))
            }
            Identity::Agent(agent) => {
                if agent.client_id.as_str() != client_id {
                    return Err(ApiError::Forbidden("An agent may only register itself."));
                }
                let wanted = parse_capabilities("capabilities", &request.capabilities.unwrap_or_default())?;
                // Keys are credentials. Whoever holds a token, perhaps a narrow one, must not make some of its own. Those
                // that an administrator registered may be named again.
                if let Some(uri) = patch.jwks_uri.take()
                    && agent.jwks_uri.as_deref() != Some(&https_url("jwks_uri", &uri)?)
                {
                    return Err(ApiError::Forbidden("Only an administrator sets the keys of an agent."));
                }
                if patch.allowed_ips.is_some() || patch.auth_methods.is_some() {
                    return Err(ApiError::Forbidden(
                        "Only an administrator says how and from where an agent comes.",
                    ));
                }
                let agent = self.describe_self(org, agent, &patch, &wanted, caller).await?;
                Ok(Registration { agent, secret: None })
            }
            Identity::ApiKey(_) | Identity::User(_) => {
                check_registers(principal)?;
                patch.capabilities = request.capabilities;
                let id = ClientId::parse(&client_id)
                    .map_err(|error| ApiError::Invalid { member: "client_id", problem: error.to_string() })?;
                match self.stores().agents.find(org, AgentKey::ClientId(&id)).await? {
                    Some(agent) => {
                        let agent = self.update_agent(org, &agent.id.to_string(), &patch, caller).await?;
                        Ok(Registration { agent, secret: None })
                    }
                    None => {
                        patch.client_id = Some(client_id);
                        let new = self.create_agent(org, &patch, caller).await?;
                        Ok(Registration { agent: new.agent, secret: new.secret })
                    }
                }
            }
            Identity::Client(_) | Identity::Remote(_) => Err(NO_REGISTRAR),
        }
    }

    async fn describe_self(
        &self,
        org: &OrgId,
        agent: &Agent,
        patch: &AgentPatch,
        wanted: &[Capability],
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let now = self.now();
        let (agent, ()) = self
            .modify_agent(org, &agent.id.to_string(), caller, now, |agent| {
                let before = view::agent(agent);
                patch.apply(agent)?;
                let missing = |wanted: &&Capability| !agent.capabilities.iter().any(|c| c.covers(wanted));
                agent.requested_capabilities = wanted.iter().filter(missing).cloned().collect();
                Ok(recorded(caller, "agent described itself", &before, agent, now))
            })
            .await?;
        Ok(agent)
    }

    /// Reads an agent, lets `change` decide, and writes the result over exactly the version that was read; again
    /// if somebody else was faster.
    async fn modify_agent<T: Send>(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
        now: Timestamp,
        change: impl Fn(&mut Agent) -> Result<Change<T>, ApiError> + Send + Sync,
    ) -> Result<(Arc<Agent>, T), ApiError> {
        retrying(|| async {
            let current = self.agent_to_change(org, name, caller).await?;
            let mut next = (*current).clone();
            match change(&mut next)? {
                Change::Keep(value) => Ok(Some((current, value))),
                Change::Write(..) if current.status == AgentStatus::Revoked => Err(Terminal.into()),
                Change::Write(event, value) => {
                    next.updated_at = now;
                    let outcome = self.stores().agents.update(org, &next, &event).await?;
                    if let Update::Taken(Unique::AAuthIdentifier) = outcome {
                        return Err(IDENTIFIER_TAKEN);
                    }
                    written(outcome, "agent", || {
                        next.version += 1;
                        (Arc::new(next), value)
                    })
                }
            }
        })
        .await
    }
}

const NO_REGISTRAR: ApiError = ApiError::Forbidden("Only agents and administrators register agents.");

/// Whether it is an administrator, by a key or in person, who may register agents.
fn check_registers(principal: &Principal) -> Result<(), ApiError> {
    let (wanted, granted) = match (principal.api_key(), principal.person()) {
        (Some(key), _) => ("admin:agents", key.scopes.as_slice()),
        (None, Some(user)) if user.is_admin => {
            ("admin:agents:write", principal.token_scope().unwrap_or_default())
        }
        (None, _) => return Err(NO_REGISTRAR),
    };
    let scopes = [wanted, "admin:agents", "admin:write"].map(Capability::parse);
    if scopes.iter().flatten().any(|scope| principal.decide(scope).is_allow()) {
        return Ok(());
    }
    let granted = granted.iter().map(ToString::to_string).collect();
    Err(ApiError::InsufficientScope { required: vec![wanted.to_owned()], granted })
}

async fn found(
    agents: &Arc<dyn AgentStore>,
    org: &OrgId,
    name: &str,
) -> Result<Option<Arc<Agent>>, ApiError> {
    if let Ok(id) = AgentId::parse(name) {
        return Ok(agents.find(org, AgentKey::Id(id)).await?);
    }
    match Slug::parse(name) {
        Ok(slug) => Ok(agents.find(org, AgentKey::Slug(&slug)).await?),
        Err(_) => Ok(None),
    }
}

const IDENTIFIER_TAKEN: ApiError = ApiError::Conflict("An agent with this AAuth identifier exists.");

/// An agent as the target of an audit event.
pub(super) fn agent_target(agent: &Agent) -> Target {
    Target::new("agent", agent.id.to_string()).named(agent.name.clone())
}

/// What is told of an API key: whether there is one. One that was replaced by another is told of by its event.
fn has_key(agent: &Agent) -> Value {
    json!({ "hasApiKey": agent.api_key.is_some() })
}

fn rotated(caller: &Caller, agent: &Agent, what: &str, now: Timestamp) -> Event {
    caller
        .event(EventKind::AgentCredentialsRotated, format!("credentials of {} rotated", agent.slug), now)
        .on(agent_target(agent))
        .with("credential", what)
}

/// The change from the view `before` to `agent` with its event, or nothing if they are alike.
fn recorded(caller: &Caller, message: &str, before: &Value, agent: &Agent, now: Timestamp) -> Change<()> {
    recorded_as(EventKind::AgentUpdated, caller, message, before, agent, now)
}

/// The same with an event of this kind.
fn recorded_as(
    kind: EventKind,
    caller: &Caller,
    message: &str,
    before: &Value,
    agent: &Agent,
    now: Timestamp,
) -> Change<()> {
    let after = view::agent(agent);
    if view::changes(before, &after).1.is_empty() {
        return Change::Keep(());
    }
    let event = caller
        .event(kind, format!("{message}: {}", agent.slug), now)
        .on(agent_target(agent))
        .changed(before, &after);
    Change::Write(Box::new(event), ())
}
