//! Who pays for a reservation if not whoever makes it: those who called the service that makes it.

use std::sync::Arc;

use super::{ApiError, AuthorizationServer, reservations::Note, token::RequestClient};
use crate::{
    agent::Agent,
    audit::Origin,
    budget::Hold,
    grant::Refusal,
    id::OrgId,
    principal::Principal,
    secret::Secret,
    spending::Payers,
    store::{AgentKey, StoreError},
};

impl AuthorizationServer {
    /// The agent behind the token that `agent`, a service there for itself, was called with.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if it is not a live token of an agent that the service may introspect.
    pub(super) async fn subject_of(
        &self,
        org: &OrgId,
        principal: &Principal,
        agent: &Agent,
        token: &Secret,
    ) -> Result<Principal, ApiError> {
        if principal.delegation.is_some() {
            return Err(ApiError::Forbidden("A service charges others with a token of its own."));
        }
        let organization = self.organization(org).await?;
        let (issuer, origin, refusal) = (self.issuer(org), Origin::default(), Refusal::default());
        let nobody = &RequestClient::NOBODY;
        let context = self.grant_context(&organization, &issuer, nobody, &origin, &refusal, self.now());
        let subject = context.principal(token.expose()).await?.filter(|subject| subject.agent().is_some());
        if let Some(subject) = subject
            && let Some(claims) = &subject.claims
            && self.is_party(org, &agent.client_id, &agent.id.to_string(), claims).await?
        {
            return Ok(subject);
        }
        let problem = "is not a live token of an agent that called this one".to_owned();
        Err(ApiError::Invalid { member: "subject_token", problem })
    }

    /// The agents that pay for a reservation in place of its maker, as they are now; none if its maker pays.
    pub(super) async fn other_payers(&self, org: &OrgId, hold: &Hold) -> Result<Vec<Arc<Agent>>, StoreError> {
        let mut agents = Vec::new();
        for id in Note::of(hold).payers {
            agents.extend(self.stores().agents.find(org, AgentKey::Id(id)).await?);
        }
        Ok(agents)
    }
}

/// `others`, or if there are none those who pay for what `agent` does as `principal`.
pub(super) fn payers<'a>(principal: &'a Principal, agent: &'a Agent, others: &'a [Arc<Agent>]) -> Payers<'a> {
    // What the token of the others carried besides is not known any more: it was charged, and is not shown.
    let chain: Vec<_> = others.iter().map(|agent| &**agent).collect();
    Payers::of_chain(&chain, &[]).unwrap_or_else(|| Payers::of_caller(principal, agent))
}
