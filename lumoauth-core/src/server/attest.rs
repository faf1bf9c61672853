//! Where an agent attests itself: it says who it is, and its platform vouches for it.

use serde::Serialize;

use super::{AuthorizationServer, token::RequestClient};
use crate::{
    agent::Agent,
    audit::Origin,
    grant::{self, Refusal, TokenError, TokenResponse},
    organization::Organization,
    token::unverified_issuer,
    workload::WorkloadTrust,
};

/// What an agent gets that attested itself.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Attestation {
    /// Its token.
    #[serde(flatten)]
    pub token: TokenResponse,
    /// Who vouches for whom.
    pub identity: AttestedIdentity,
}

/// Who vouches for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttestedIdentity {
    /// The sort of platform.
    pub provider: &'static str,
    /// What the platform calls the workload.
    pub subject: String,
    /// Who issued the token.
    pub issuer: Option<String>,
    /// Whether the token's audience is one that the platform gives to everybody.
    pub audience_generic: bool,
}

impl AuthorizationServer {
    /// A token for the agent called `agent` (its id or slug), if `attestation` is its platform's word for it. Every refusal
    /// is an entry of the audit log.
    ///
    /// # Errors
    /// [`TokenError::WorkloadIdentity`] for every refusal; another only if this server cannot answer.
    pub async fn attest(
        &self,
        organization: &Organization,
        agent: &str,
        attestation: &str,
        origin: &Origin,
    ) -> Result<Attestation, TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        let issuer = self.issuer(&organization.id);
        let context =
            self.grant_context(organization, &issuer, &RequestClient::NOBODY, origin, &refusal, now);
        match grant::attest(&context, agent, attestation).await {
            Ok((agent, token)) => Ok(Attestation { token, identity: identity(&agent, attestation) }),
            Err(error) => {
                let message = "workload identity refused";
                Err(self.refuse(organization, origin, message, refusal, error, now).await)
            }
        }
    }
}

/// What was proven: the attestation has been verified by now.
fn identity(agent: &Agent, attestation: &str) -> AttestedIdentity {
    let trust = agent.workload.as_ref();
    AttestedIdentity {
        provider: trust.map(|trust| trust.provider().as_str()).unwrap_or_default(),
        subject: trust.map(WorkloadTrust::subject).unwrap_or_default(),
        issuer: unverified_issuer(attestation).ok(),
        audience_generic: trust.is_some_and(WorkloadTrust::has_generic_audience),
    }
}
