//! Auth tokens of this server at resources in its process.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;

use crate::{
    aauth::{AuthClaims, AuthTokenIssuer, IssuerUnavailable},
    agent::Agent,
    clock::Timestamp,
    id::{AAuthIdentifier, OrgId, ParseIdError},
    jwks::{JwkSet, PublicKeys},
    keys::{Jwk, KeyPurpose},
    principal::RemoteCaller,
    server::AuthorizationServer,
    spending::SpendError,
    store::AgentKey,
};

/// An organization of a server in this process, as the issuer of auth tokens: what ended is refused at once.
#[derive(Debug)]
pub struct OwnAuthTokens {
    server: AuthorizationServer,
    org: OrgId,
    issuer: AAuthIdentifier,
    /// The keys, parsed once.
    parsed: Mutex<(Vec<Jwk>, Arc<PublicKeys>)>,
}

impl AuthorizationServer {
    /// The auth tokens of `org`, for resources in this process.
    ///
    /// # Errors
    /// [`ParseIdError`] if the public URL of this server is one of plain `http` that is not of this machine.
    pub fn auth_tokens_of(&self, org: &OrgId) -> Result<OwnAuthTokens, ParseIdError> {
        let issuer = AAuthIdentifier::parse(&self.issuer(org))?;
        Ok(OwnAuthTokens { server: self.clone(), org: org.clone(), issuer, parsed: Mutex::default() })
    }

    /// The agents that pay for a call with an auth token of this server, the one that calls last; `None` if it is another token.
    pub(in crate::server) async fn agents_of_auth_token(
        &self,
        caller: &RemoteCaller,
    ) -> Result<Option<Vec<Arc<Agent>>>, SpendError> {
        if caller.issuer != self.issuer(&caller.org) {
            return Ok(None);
        }
        let read = self.read_auth_token(&caller.org, caller.token.expose(), self.now()).await;
        let Ok(claims) = read.map_err(|error| SpendError::Unavailable(error.into()))? else {
            return Ok(None);
        };
        let mut agents = Vec::with_capacity(claims.lin.agents.len());
        for (id, _) in &claims.lin.agents {
            let agent = self.stores().agents.find(&caller.org, AgentKey::Id(*id)).await?;
            agents.push(agent.filter(|agent| agent.is_active()).ok_or(SpendError::NotAccepted)?);
        }
        Ok(Some(agents))
    }
}

#[async_trait]
impl AuthTokenIssuer for OwnAuthTokens {
    fn issuer(&self) -> &AAuthIdentifier {
        &self.issuer
    }

    async fn keys(&self, _: &str, now: Timestamp) -> Result<Arc<PublicKeys>, IssuerUnavailable> {
        let keys = self.server.inner.keys.verifying_keys(&self.org, KeyPurpose::AAuth, now).await;
        let keys = keys.map_err(IssuerUnavailable::new)?;
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if !parsed.0.iter().eq(keys.iter().map(|key| key.jwk())) {
            let jwks: Vec<_> = keys.iter().map(|key| key.jwk().clone()).collect();
            let set = json!({ "keys": jwks }).to_string();
            let set = JwkSet::parse(set.as_bytes()).map_err(IssuerUnavailable::new)?;
            *parsed = (jwks, Arc::new(PublicKeys::of(&set)));
        }
        Ok(parsed.1.clone())
    }

    async fn is_alive(&self, claims: &AuthClaims) -> Result<bool, IssuerUnavailable> {
        let unavailable = IssuerUnavailable::new;
        let organization = self.server.stores().organizations.find(&self.org).await.map_err(unavailable)?;
        let Some(organization) = organization.filter(|_| claims.organization == self.org) else {
            return Ok(false);
        };
        let alive = self.server.auth_token_alive(&organization, claims).await.map_err(unavailable)?;
        Ok(alive.inspect_err(|dead| tracing::debug!(%dead, "an auth token is dead")).is_ok())
    }
}
