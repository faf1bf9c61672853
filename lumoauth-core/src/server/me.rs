//! What a caller is told about itself.

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, authz::reads_permissions, error::ELSEWHERE};
use crate::{
    agent::Agent,
    authorize::person_claims,
    capability::{Capability, Scope},
    clock::Timestamp,
    id::OrgId,
    organization::Organization,
    policy::Holder,
    principal::{Identity, Principal, Represented},
    wire::view,
};

/// How much of the vocabulary an agent is told that its wildcards reach.
const MOST_REACHED: usize = 10_000;
/// How many permissions are looked at at once.
const STEP: usize = 1000;

/// The answer to a client that acts for itself, where agents and people ask about themselves.
pub(super) const FOR_AGENTS_AND_PEOPLE: ApiError =
    ApiError::Forbidden("This route is for agents and people.");

impl AuthorizationServer {
    /// The userinfo of a caller with an access token (OpenID Connect Core section 5.3, extended for agents).
    ///
    /// Reading it is free: it is neither counted nor refused by a budget. A person's roles are told to a client that
    /// was given `authz:read`.
    ///
    /// # Errors
    /// [`ApiError`] if the stores cannot answer, or a person's token lacks `openid`.
    pub async fn userinfo(
        &self,
        organization: &Organization,
        principal: &Principal,
    ) -> Result<Value, ApiError> {
        let org = &organization.id;
        match &principal.identity {
            Identity::Agent(agent) if principal.delegation.is_some() => {
                Ok(delegated_userinfo(principal, agent))
            }
            Identity::Agent(agent) => {
                let usage = self.usage(org, agent).await?;
                Ok(json!({
                    "sub": agent.subject(),
                    "name": agent.name,
                    "agent_id": agent.id.to_string(),
                    "identity_type": "agent",
                    "client_id": agent.client_id,
                    "capabilities": self.listed_capabilities(org, agent).await?,
                    "budget_policy": view::budget(&agent.budget, &usage),
                    "organization": org,
                    "tenant": org,
                    "roles": self.grants_of(org, &Holder::Agent(agent.id)).await?.0,
                    "workload_identity": agent.workload.as_ref().map(ToString::to_string),
                }))
            }
            Identity::Client(client) => Ok(json!({
                "sub": client.client_id,
                "name": client.name,
                "identity_type": "client",
                "client_id": client.client_id,
                "capabilities": [],
                "budget_policy": {},
                "organization": org,
                "tenant": org,
            })),
            Identity::User(person) => {
                let scope = principal.claims.as_ref().map(|claims| &claims.scope);
                let scope = scope.cloned().unwrap_or_default();
                if !scope.as_slice().iter().any(|item| item.as_str() == "openid") {
                    let granted = scope.as_slice().iter().map(ToString::to_string).collect();
                    return Err(ApiError::InsufficientScope { required: vec!["openid".to_owned()], granted });
                }
                let mut body = person_claims(&person.user, &scope);
                body.insert("sub".to_owned(), person.user.id.to_string().into());
                body.insert("identity_type".to_owned(), "user".into());
                body.insert("organization".to_owned(), org.as_str().into());
                body.insert("tenant".to_owned(), org.as_str().into());
                if reads_permissions(person, scope.as_slice()) {
                    let (roles, _) = self.grants_of(org, &Holder::User(person.user.id)).await?;
                    body.insert("roles".to_owned(), json!(roles));
                }
                Ok(body.into())
            }
            Identity::ApiKey(_) => Err(ApiError::Forbidden("An API key has no userinfo.")),
            Identity::Remote(_) => Err(ELSEWHERE),
        }
    }

    /// Who an agent or a person is, what the token can do, and where it works. `path_prefix` is the form the caller used.
    ///
    /// What a person's token can do is told to a client that was given `authz:read`, and their name to one that was given
    /// `profile`.
    ///
    /// # Errors
    /// [`ApiError`] if the stores cannot answer, or the caller is neither.
    pub async fn identity(
        &self,
        organization: &Organization,
        principal: &Principal,
        path_prefix: &str,
    ) -> Result<Value, ApiError> {
        let org = &organization.id;
        let workspace = json!({ "slug": org, "api_base": format!("{path_prefix}/") });
        let expires_at =
            principal.claims.as_ref().map(|claims| Timestamp::from_unix_seconds(claims.exp).to_string());
        let agent = match &principal.identity {
            Identity::Agent(agent) => agent,
            Identity::User(person) => {
                let scope = principal.claims.as_ref().map(|claims| claims.scope.clone()).unwrap_or_default();
                let about = person_claims(&person.user, &scope);
                let (id, name) = (person.user.id.to_string(), about.get("name"));
                let shown = if reads_permissions(person, scope.as_slice()) { scope.as_slice() } else { &[] };
                let held = shown.iter().filter(|item| principal.decide(item).is_allow());
                let roles = if shown.is_empty() {
                    Vec::new()
                } else {
                    self.grants_of(org, &Holder::User(person.user.id)).await?.0
                };
                return Ok(json!({
                    "identity": {
                        "id": id,
                        "type": "user",
                        "tenant": org,
                        "organization": org,
                        "status": "active",
                        "name": name,
                    },
                    "capabilities": held.collect::<Vec<_>>(),
                    "workspace": workspace,
                    "agent_id": null,
                    "name": name,
                    "scopes": scope.as_slice(),
                    "roles": roles,
                    "delegated_by": null,
                    "expires_at": expires_at,
                }));
            }
            Identity::Client(_) | Identity::ApiKey(_) => return Err(FOR_AGENTS_AND_PEOPLE),
            Identity::Remote(_) => return Err(ELSEWHERE),
        };
        let id = agent.id.to_string();
        let scopes = principal.token_scope().unwrap_or(&agent.capabilities);
        let mut capabilities = self.listed_capabilities(org, agent).await?;
        if principal.delegation.is_some() {
            // Acting for somebody, it can do what the whole chain can.
            capabilities.retain(|capability| principal.decide(capability).is_allow());
        }
        Ok(json!({
            "identity": {
                "id": id,
                "type": "agent",
                "tenant": org,
                "organization": org,
                "agent_id": id,
                "status": agent.status.as_str(),
                "name": agent.name,
            },
            "capabilities": capabilities,
            "workspace": workspace,
            "agent_id": id,
            "name": agent.name,
            "scopes": scopes,
            "roles": self.grants_of(org, &Holder::Agent(agent.id)).await?.0,
            "delegated_by": principal.delegation.as_ref().map(|chain| chain.represented.subject()),
            "expires_at": expires_at,
        }))
    }

    /// The agent's grants, then what its wildcards come to in the organization's vocabulary, at most [`MOST_REACHED`] of it:
    /// clients test for exact strings.
    async fn listed_capabilities(&self, org: &OrgId, agent: &Agent) -> Result<Vec<Capability>, ApiError> {
        let granted = agent.effective_capabilities();
        if !granted.iter().any(Capability::is_wildcard) {
            return Ok(granted.into_owned());
        }
        let servers = self.stores().mcp_servers.all(org).await?;
        let wildcards: Vec<_> = granted.iter().filter(|grant| grant.is_wildcard()).collect();
        let is_reached = |scope: &&Capability| {
            agent.allows_tool(scope) && wildcards.iter().any(|wildcard| wildcard.covers(scope))
        };
        let mut reached: Vec<_> =
            servers.iter().flat_map(|server| &server.scopes_supported).filter(is_reached).cloned().collect();
        let policy = self.policy_of(org).await?;
        let mut stems: Vec<_> = wildcards.iter().filter_map(|it| it.as_str().strip_suffix('*')).collect();
        stems.sort_unstable();
        // What continues one stem is not looked for again under a longer one.
        stems.dedup_by(|longer, stem| longer.starts_with(*stem));
        for stem in stems {
            let mut last: Option<Capability> = None;
            while reached.len() < MOST_REACHED {
                // A step at a time: whoever changes the policy does not wait for all of them.
                let step: Vec<_> = policy.read(|snapshot| {
                    let after = last.as_ref().map(Capability::as_str);
                    snapshot.permissions_under(stem, after, STEP).cloned().collect()
                });
                let room = MOST_REACHED - reached.len();
                reached.extend(step.iter().filter(is_reached).take(room).cloned());
                match step.last() {
                    Some(slug) if step.len() == STEP => last = Some(slug.clone()),
                    Some(_) | None => break,
                }
            }
        }
        Ok(Scope::new(granted.iter().cloned().chain(reached)).as_slice().to_vec())
    }
}

/// Whom an agent acts for, as far as its token's scope shows them, and by whom (`act`).
fn delegated_userinfo(principal: &Principal, agent: &Agent) -> Value {
    let scope = Scope::new(principal.token_scope().unwrap_or_default().iter().cloned());
    let mut info = json!({
        "identity_type": "agent",
        "agent_id": agent.id.to_string(),
        "client_id": agent.client_id,
        "organization": principal.org,
        "tenant": principal.org,
    });
    if let Some(claims) = &principal.claims {
        info["act"] = json!(claims.act);
        info["delegation_depth"] = json!(claims.delegation_depth);
    }
    if let Some(chain) = &principal.delegation {
        info["sub"] = chain.represented.subject().into();
        match &chain.represented {
            Represented::User(user) => {
                for (name, claim) in person_claims(user, &scope) {
                    info[name] = claim;
                }
            }
            Represented::Agent(first) => info["name"] = (*first.name).into(),
        }
    }
    info
}
