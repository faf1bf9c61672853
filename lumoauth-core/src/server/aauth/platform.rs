//! Platform tokens: what makes an agent with a key one that can call every other route of this server.
//!
//! 1. The agent shows its agent token, and that it holds the key of it: by a signature, as everywhere in AAuth, or by a DPoP
//!    proof. One of them, and not both.
//! 2. The access token is bound to the same key, so it is presented with a DPoP proof (RFC 9449), never as a bearer token.
//! 3. It is the agent's own. A delegate, which is somebody else with a key of its own, gets none.

use serde::Serialize;

use super::{
    SignedCall,
    door::{SignedAgent, admitted, claimed_token},
};
use crate::{
    aauth::{AAuthError, Unauthenticated},
    clock::Timestamp,
    grant::{self, GrantContext, Refusal, TokenResponse},
    jwks::Thumbprint,
    organization::Organization,
    server::{AuthorizationServer, token::RequestClient},
    token::{DpopRequest, dpop},
    wire::Params,
};

/// A platform token, as it is answered.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct PlatformToken {
    /// The token.
    #[serde(flatten)]
    pub token: TokenResponse,
    /// Whose it is.
    pub agent_id: String,
    /// The key that it is bound to.
    pub cnf_jkt: Thumbprint,
}

impl AuthorizationServer {
    /// Gives an agent an access token for its agent token.
    ///
    /// # Errors
    /// [`AAuthError`] says why there is none.
    pub async fn platform_token(
        &self,
        organization: &Organization,
        params: &Params,
        call: SignedCall<'_>,
        proven: DpopRequest<'_>,
    ) -> Result<PlatformToken, AAuthError> {
        let now = self.now();
        let refusal = Refusal::default();
        let made = self.make_platform_token(organization, params, call, proven, &refusal, now).await;
        self.served(organization, call, refusal, made, now).await
    }

    async fn make_platform_token(
        &self,
        organization: &Organization,
        params: &Params,
        call: SignedCall<'_>,
        proven: DpopRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<PlatformToken, AAuthError> {
        let agent_token = grant::agent_token(params)?;
        let signed = match (proven.has_proof(), call.message.headers.contains_key("signature")) {
            (true, true) => {
                return Err(AAuthError::InvalidRequest("Sign the request or send a DPoP proof, not both."));
            }
            (true, false) => self.proven_agent(organization, call, proven, agent_token, refusal, now).await?,
            (false, _) => self.signed_agent(organization, call, Some(agent_token), refusal, now).await?,
        };
        if signed.delegate().is_some() {
            return Err(AAuthError::Denied("A delegate gets no platform token."));
        }
        let cnf_jkt = signed.confirmation().jkt;
        let issuer = self.issuer(&organization.id);
        let nobody = &RequestClient::NOBODY;
        let context = self.grant_context(organization, &issuer, nobody, call.origin, refusal, now);
        let context = GrantContext { key: Some(cnf_jkt), ..context };
        let token = grant::platform_token(&context, &signed.agent, params).await?;
        Ok(PlatformToken { token, agent_id: signed.agent.id.to_string(), cnf_jkt })
    }

    /// The agent that proves the key of its agent token without a signature.
    async fn proven_agent(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        proven: DpopRequest<'_>,
        agent_token: &str,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<SignedAgent, AAuthError> {
        let proof = dpop::read(proven, self.public_url(), None, now).map_err(Unauthenticated::Proof)?;
        let text = claimed_token(call, Some(agent_token))?.ok_or(Unauthenticated::NoSigner)?;
        let claimed = self.claimed_agent(organization, text, refusal, now).await?;
        let proof = proof.by(claimed.confirmation().jkt);
        if proof.is_ok() {
            admitted(&claimed.agent, call, refusal)?;
        }
        self.spend(&organization.id, proof, now).await.map_err(Unauthenticated::Proof)?;
        Ok(claimed.proven(refusal))
    }
}
