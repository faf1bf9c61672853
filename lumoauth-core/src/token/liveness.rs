//! Whether a verified token is alive, and whose it is.

use std::sync::Arc;

use super::{AccessClaims, Subject, lineage::token_handle};
use crate::{
    agent::Agent,
    client_auth::AuthenticatedClient,
    id::{AgentId, ClientId, OrgId, UserId},
    organization::Organization,
    principal::{Delegation, Identity, Person, Principal, Represented},
    store::{AgentKey, ClientKey, ConsentKey, McpServerKey, StoreError, Stores, UserKey},
    user::User,
};

/// Why a token with a good signature is dead. Logged; clients only learn that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dead {
    /// Its organization is disabled, or it was issued before the organization's tokens were ended.
    #[error("organization")]
    Organization,
    /// Its person, one of its agents, or its client is gone, not active, or was suspended since.
    #[error("principal")]
    Principal,
    /// The person withdrew what it stands on.
    #[error("consent")]
    Consent,
    /// The MCP server it is bound to is gone, inactive, or no longer for this client.
    #[error("resource")]
    Resource,
    /// A task that it was made for is closed.
    #[error("task")]
    Task,
    /// It or something it came from is revoked.
    #[error("revoked")]
    Revoked,
}

/// The principal behind `claims`: every record is active and in the epoch that the token was issued in, and no
/// handle of the token or its ancestors is marked.
///
/// One look-up per principal and consent that the token names (and one for a token bound to an MCP server), all of which a
/// cache can answer, one for the tasks of a token that was made for one, and one look-up of marks, at any depth of delegation.
///
/// # Errors
/// [`StoreError`] if the stores cannot answer; the token must then be refused.
pub async fn principal_of(
    stores: &Stores,
    organization: &Organization,
    claims: Arc<AccessClaims>,
) -> Result<Result<Principal, Dead>, StoreError> {
    let org = &organization.id;
    let Some((&org_epoch, epochs)) = claims.lin.epochs.split_first() else {
        return Ok(Err(Dead::Organization));
    };
    if claims.organization != *org || !organization.is_active() || organization.epoch != org_epoch {
        return Ok(Err(Dead::Organization));
    }
    let Some((identity, delegation)) = named(stores, org, &claims, epochs).await? else {
        return Ok(Err(Dead::Principal));
    };
    for wanted in &claims.lin.consents {
        let consent = stores.consents.find(org, ConsentKey::Id(wanted.id)).await?;
        if !consent.is_some_and(|consent| consent.active && consent.epoch == wanted.epoch) {
            return Ok(Err(Dead::Consent));
        }
    }
    if let Some(via) = &claims.lin.via
        && client_of(stores, org, &via.id, via.epoch).await?.is_none()
    {
        return Ok(Err(Dead::Principal));
    }
    if let Some(server) = &claims.mcp_server_id {
        let server = stores.mcp_servers.find(org, McpServerKey::ServerId(server)).await?;
        // A person's token names no agent, also if it was issued to one.
        let agent = match &identity {
            Identity::User(Person { client: AuthenticatedClient::Agent(agent), .. }) => Some(agent.id),
            _ => claims.agent_id,
        };
        if !server.is_some_and(|server| server.admits(&claims.client_id, agent)) {
            return Ok(Err(Dead::Resource));
        }
    }
    if claims.jit && (claims.lin.tasks.is_empty() || !stores.jit.tasks_open(org, &claims.lin.tasks).await?) {
        return Ok(Err(Dead::Task));
    }
    let mut handles = claims.lin.handles.clone();
    handles.push(token_handle(org, &claims.jti));
    if stores.grants.any_revoked(org, &handles).await? {
        return Ok(Err(Dead::Revoked));
    }
    let mut principal = Principal::new(org.clone(), identity, Some(claims));
    principal.delegation = delegation.map(Arc::new);
    Ok(Ok(principal))
}

/// The principals that the claims name, each active and in its epoch.
async fn named(
    stores: &Stores,
    org: &OrgId,
    claims: &AccessClaims,
    epochs: &[u32],
) -> Result<Option<(Identity, Option<Delegation>)>, StoreError> {
    let acts = claims.actors();
    if acts.is_empty() {
        return match (claims.lin.subject, epochs) {
            (None, &[epoch]) if claims.identity_type != "user" => {
                let holder = holder(stores, org, claims, epoch).await?;
                Ok(holder.map(|holder| (holder.into(), None)))
            }
            (Some(Subject::User), &[epoch, holders]) if claims.identity_type == "user" => {
                let Some(user) = user(stores, org, &claims.sub, epoch).await? else { return Ok(None) };
                let client = holder(stores, org, claims, holders).await?;
                Ok(client.map(|client| (Identity::User(Person { user, client }), None)))
            }
            _ => Ok(None),
        };
    }
    let Some((&epoch, epochs)) = epochs.split_first() else { return Ok(None) };
    // The `sub` of a token that was made for a task is the task.
    let sub = claims.on_behalf_of.as_deref().filter(|_| claims.jit).unwrap_or(&claims.sub);
    let represented = match claims.lin.subject {
        Some(Subject::User) => user(stores, org, sub, epoch).await?.map(Represented::User),
        Some(Subject::Agent(id)) => agent(stores, org, id, epoch).await?.map(Represented::Agent),
        None => None,
    };
    let Some(represented) = represented else { return Ok(None) };
    if acts.len() != epochs.len() {
        return Ok(None);
    }
    let mut actors = Vec::with_capacity(acts.len());
    for (act, epoch) in acts.into_iter().zip(epochs) {
        let Some(agent) = agent(stores, org, act.agent_id, *epoch).await? else { return Ok(None) };
        actors.push(agent);
    }
    let Some(current) = actors.last().filter(|agent| Some(agent.id) == claims.agent_id) else {
        return Ok(None);
    };
    Ok(Some((Identity::Agent(current.clone()), Some(Delegation { represented, actors }))))
}

/// The agent or client that the token was issued to.
async fn holder(
    stores: &Stores,
    org: &OrgId,
    claims: &AccessClaims,
    epoch: u32,
) -> Result<Option<AuthenticatedClient>, StoreError> {
    if let Some(id) = claims.agent_id {
        return Ok(agent(stores, org, id, epoch).await?.map(AuthenticatedClient::Agent));
    }
    client_of(stores, org, &claims.client_id, epoch).await
}

/// The agent or client with this client id.
async fn client_of(
    stores: &Stores,
    org: &OrgId,
    id: &ClientId,
    epoch: u32,
) -> Result<Option<AuthenticatedClient>, StoreError> {
    if id.is_app() {
        let client = stores.clients.find(org, ClientKey::ClientId(id)).await?;
        let client = client.filter(|client| client.active && client.epoch == epoch);
        return Ok(client.map(AuthenticatedClient::Client));
    }
    let agent = stores.agents.find(org, AgentKey::ClientId(id)).await?;
    let agent = agent.filter(|agent| agent.is_active() && agent.epoch == epoch);
    Ok(agent.map(AuthenticatedClient::Agent))
}

async fn agent(
    stores: &Stores,
    org: &OrgId,
    id: AgentId,
    epoch: u32,
) -> Result<Option<Arc<Agent>>, StoreError> {
    let agent = stores.agents.find(org, AgentKey::Id(id)).await?;
    Ok(agent.filter(|agent| agent.is_active() && agent.epoch == epoch))
}

async fn user(stores: &Stores, org: &OrgId, sub: &str, epoch: u32) -> Result<Option<Arc<User>>, StoreError> {
    let Ok(id) = UserId::parse(sub) else { return Ok(None) };
    let user = stores.users.find(org, UserKey::Id(id)).await?;
    Ok(user.filter(|user| user.is_active() && user.epoch == epoch))
}
