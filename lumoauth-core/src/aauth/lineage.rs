//! What an auth token stands on: the same idea as [`crate::token::Lineage`], for the parties of AAuth.
//!
//! Organization, agents, resource and person carry an epoch in their record, the token the epochs it was issued under;
//! consents likewise. Tokens and families of refresh tokens carry handles. One write to any of them ends everything that
//! stands on it.

use serde::{Deserialize, Serialize};

use crate::{
    aauth_resource::AAuthResource,
    agent::Agent,
    id::{AAuthResourceId, AgentId, OrgId, UserId},
    organization::{ActOrder, Organization},
    store::{AAuthResourceKey, AgentKey, ConsentKey, Handle, StoreError, Stores, UserKey},
    token::{ConsentEpoch, Dead, handles_text},
};

/// The `lin` claim of an auth token. The names are short because every request carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "whoever issues a token says everything that it stands on")]
pub struct AuthLineage {
    /// The epoch of the organization.
    #[serde(rename = "o")]
    pub organization: u32,
    /// The agents that hand the work on to each other, the one that the token was issued to last, each with its epoch.
    #[serde(rename = "a")]
    pub agents: Vec<(AgentId, u32)>,
    /// The resources that the token and those it came from are for, with their epochs; its own one last.
    #[serde(rename = "r")]
    pub resources: Vec<(AAuthResourceId, u32)>,
    /// The person that allowed it.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<(UserId, u32)>,
    /// What that person allowed.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<ConsentEpoch>,
    /// Handles of the tokens and families it came from.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty", with = "handles_text")]
    pub handles: Vec<Handle>,
    /// How the agents are nested in `act`.
    #[serde(rename = "n", default, skip_serializing_if = "is_default")]
    pub act_order: ActOrder,
}

fn is_default(order: &ActOrder) -> bool {
    *order == ActOrder::default()
}

impl AuthLineage {
    /// What a token of `agent` for `resource` stands on, if nobody else takes part.
    pub fn new(organization: &Organization, agent: &Agent, resource: &AAuthResource) -> Self {
        Self {
            organization: organization.epoch,
            agents: vec![(agent.id, agent.epoch)],
            resources: vec![(resource.id.clone(), resource.epoch)],
            user: None,
            consents: Vec::new(),
            handles: Vec::new(),
            act_order: organization.act_order,
        }
    }
}

/// Whether everything holds that `lineage` names, and no mark is set on its handles or on `own`, those of the token itself.
///
/// # Errors
/// [`StoreError`] if the stores cannot answer; the token must then be refused.
pub async fn alive(
    stores: &Stores,
    organization: &Organization,
    lineage: &AuthLineage,
    own: &[Handle],
) -> Result<Result<(), Dead>, StoreError> {
    let org: &OrgId = &organization.id;
    if !organization.is_active() || organization.epoch != lineage.organization {
        return Ok(Err(Dead::Organization));
    }
    for &(id, epoch) in &lineage.agents {
        let agent = stores.agents.find(org, AgentKey::Id(id)).await?;
        // An agent that lost its AAuth identity can sign nothing any more.
        let alive =
            agent.is_some_and(|agent| agent.is_active() && agent.epoch == epoch && agent.aauth.is_some());
        if !alive {
            return Ok(Err(Dead::Principal));
        }
    }
    for (id, epoch) in &lineage.resources {
        let resource = stores.aauth_resources.find(org, AAuthResourceKey::Id(id)).await?;
        if !resource.is_some_and(|resource| resource.active && resource.epoch == *epoch) {
            return Ok(Err(Dead::Resource));
        }
    }
    if let Some((id, epoch)) = lineage.user {
        let user = stores.users.find(org, UserKey::Id(id)).await?;
        if !user.is_some_and(|user| user.is_active() && user.epoch == epoch) {
            return Ok(Err(Dead::Principal));
        }
    }
    for wanted in &lineage.consents {
        let consent = stores.consents.find(org, ConsentKey::Id(wanted.id)).await?;
        if !consent.is_some_and(|consent| consent.active && consent.epoch == wanted.epoch) {
            return Ok(Err(Dead::Consent));
        }
    }
    let handles = [&lineage.handles[..], own].concat();
    if !handles.is_empty() && stores.grants.any_revoked(org, &handles).await? {
        return Ok(Err(Dead::Revoked));
    }
    Ok(Ok(()))
}
