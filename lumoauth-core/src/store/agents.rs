//! The role that keeps agents.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, Remove, StoreError, Update};
use crate::{
    agent::{Agent, AgentKind, AgentStatus},
    audit::Event,
    id::{AAuthIdentifier, AgentId, ClientId, OrgId, Slug},
    secret::SecretHash,
    workload::WorkloadKey,
};

/// By what an agent is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum AgentKey<'a> {
    /// Its identity.
    Id(AgentId),
    /// Its short name.
    Slug(&'a Slug),
    /// Its OAuth client id.
    ClientId(&'a ClientId),
    /// The hash of its API key.
    ApiKey(&'a SecretHash),
    /// The URL that names it in AAuth; only agents that take part are found by it.
    AAuthIdentifier(&'a AAuthIdentifier),
}

/// Which agents a listing wants; every part that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentFilter {
    /// Part of the name, slug or description, compared without regard to ASCII case.
    pub search: Option<String>,
    /// The status.
    pub status: Option<AgentStatus>,
    /// The kind.
    pub kind: Option<AgentKind>,
    /// Only agents that take part in AAuth.
    pub aauth: bool,
}

impl AgentFilter {
    /// Whether `agent` is wanted: the definition that every backend must agree with.
    pub fn matches(&self, agent: &Agent) -> bool {
        let text_fits = self.search.as_deref().is_none_or(|search| {
            let needle = search.to_ascii_lowercase();
            [Some(&*agent.name), Some(agent.slug.as_str()), agent.description.as_deref()]
                .into_iter()
                .flatten()
                .any(|text| text.to_ascii_lowercase().contains(&needle))
        });
        text_fits
            && self.status.is_none_or(|status| status == agent.status)
            && self.kind.is_none_or(|kind| kind == agent.kind)
            && (!self.aauth || agent.aauth.is_some())
    }
}

/// Keeps agents. Recorded.
#[async_trait]
pub trait AgentStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `agent` and writes `on`, in one step.
    ///
    /// Id, slug, client id, API key hash and AAuth identifier are unique in the organization. Of any number of concurrent inserts
    /// with one such value exactly one is [`Insert::Inserted`]. Checked by `conformance::agents::one_slug_once`,
    /// `one_aauth_identifier_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError>;

    /// The agent with this key. Checked by `conformance::agents::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError>;

    /// Replaces the agent if its stored version is `agent.version`; see [`Update`]. The id, slug and client id
    /// of an agent never change; its API key and its AAuth identifier may, come and go, and then the old one finds nothing any
    /// more and is free. Checked by `conformance::agents::updates_are_guarded`, `racing_updates`, `old_api_key_is_forgotten`
    /// and `aauth_identifiers_follow_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError>;

    /// Removes the agent if `version` is its stored one, and frees its unique values.
    /// Checked by `conformance::agents::removal_frees_names`, `removals_are_guarded` and `racing_removals`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError>;

    /// The agents whose [`Agent::workload`] has one of these keys, each once, in no particular order. An update that
    /// changes the trust of an agent changes where it is found. Checked by `conformance::agents::found_by_workload` and
    /// `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError>;

    /// The agents that match, in ascending order of slug. Checked by `conformance::agents::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError>;
}
