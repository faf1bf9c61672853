//! What registered parties do with their own keys: resources make and check tokens, agents name delegates and take back what
//! they were given.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    SignedCall,
    door::resource_actor,
    grants::{AAuthGrant, REFRESH_PREFIX},
    issue::own_handle,
};
use crate::{
    aauth::{AAuthError, AuthClaims, Confirmation, NewResourceToken, RESOURCE_TOKEN_LIFE, SKEW, TOKEN_LIFE},
    aauth_resource::AAuthResource,
    agent::Agent,
    audit::{Event, EventKind, Target},
    authorize::read,
    capability::Scope,
    clock::Timestamp,
    grant::Refusal,
    id::{AAuthIdentifier, AgentId, OrgId, TokenId},
    jwks::{PublicKey, Thumbprint},
    keys::KeyPurpose,
    organization::Organization,
    principal::agent_actor,
    secret::Secret,
    server::AuthorizationServer,
    store::{Handle, Revoked, TicketPurpose},
    token::{self, aauth_handle},
};

/// The longest name of a delegate, in bytes.
const MAX_DELEGATE: usize = 256;
/// The longest address of a request that a resource keeps, in bytes.
const MAX_REQUEST_URL: usize = 2048;
/// How long a revoked auth token is remembered: longer than it lives, whatever the clock of its maker. What comes of it by
/// exchange ends with it.
const REMEMBERED: Duration = TOKEN_LIFE.saturating_add(SKEW).saturating_add(SKEW);
/// How long a revoked family is: longer than a refresh token lives.
const FAMILY_REMEMBERED: Duration = Duration::from_secs(31 * 86_400);

/// A resource that wants a token about a call it received.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ResourceTokenRequest {
    /// The agent that called.
    pub agent: Option<String>,
    /// The thumbprint of the key that signed the call.
    pub agent_jkt: Option<String>,
    /// What the agent needs.
    pub scope: Option<String>,
    /// Where the resource keeps the request in more detail.
    pub auth_request_url: Option<String>,
    /// The issuer that it is for; this one.
    pub auth_server: Option<String>,
}

/// An agent that names a delegate.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct DelegateRequest {
    /// The name of the delegate among the agent's.
    pub delegate_sub: Option<String>,
    /// Its public key (RFC 7517).
    pub delegate_public_key: Option<Value>,
    /// Whom its token is for, if only for somebody.
    pub audience: Option<String>,
    /// For how many seconds, at most and without it [`TOKEN_LIFE`].
    pub lifetime: Option<u64>,
}

/// A token of a party that this server made.
#[derive(Debug)]
#[non_exhaustive]
pub struct PartyToken {
    /// It.
    pub token: Secret,
    /// `agent+jwt` or `resource+jwt`.
    pub token_type: &'static str,
    /// Its life in seconds.
    pub expires_in: u64,
}

/// What a resource wants to know about a resource token.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct VerifyResourceToken {
    /// It.
    pub resource_token: Option<Secret>,
    /// The agent that it should be about.
    pub agent: Option<String>,
    /// The key that it should be about.
    pub agent_jkt: Option<String>,
}

/// What a resource wants to know about an auth token.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct VerifyAuthToken {
    /// It.
    pub auth_token: Option<Secret>,
    /// The resource that it should be for; without it, the one that asks.
    pub resource: Option<String>,
}

/// What an agent takes back.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct RevokeRequest {
    /// The `jti` of an auth token, the token itself, or a refresh token.
    pub token: Option<Secret>,
    /// `auth_token` or `refresh_token`; without it, an auth token. What begins as our refresh tokens do is one in any case.
    pub token_type: Option<String>,
}

#[derive(Serialize)]
struct DelegateClaims<'a> {
    iss: &'a AAuthIdentifier,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    cnf: Value,
    /// Of the agent. Its URL may be another's tomorrow.
    agent_id: AgentId,
    /// The one that it was made in, with which it ends.
    agent_epoch: u32,
    iat: u64,
    exp: u64,
    jti: String,
}

/// A call whose signer is known.
#[derive(Clone, Copy)]
struct By<'a, T> {
    organization: &'a Organization,
    party: &'a Arc<T>,
    call: SignedCall<'a>,
    now: Timestamp,
}

impl AuthorizationServer {
    /// A resource token about a call that the signing resource received, made for it by this server.
    ///
    /// # Errors
    /// [`AAuthError`] if a registered resource did not sign, or what it says is not acceptable.
    pub async fn make_resource_token(
        &self,
        organization: &Organization,
        request: &ResourceTokenRequest,
        call: SignedCall<'_>,
    ) -> Result<PartyToken, AAuthError> {
        self.as_resource(organization, call, async |by| self.resource_token_of(by, request).await).await
    }

    async fn resource_token_of(
        &self,
        by: By<'_, AAuthResource>,
        request: &ResourceTokenRequest,
    ) -> Result<PartyToken, AAuthError> {
        let By { organization, party: resource, call, now } = by;
        let (org, issuer) = (&organization.id, self.issuer(&organization.id));
        let bad = AAuthError::InvalidRequest;
        let agent = request.agent.as_deref().and_then(|agent| AAuthIdentifier::parse(agent).ok());
        let agent = agent.ok_or(bad("agent is required: the URL that names it."))?;
        let jkt = request.agent_jkt.as_deref().and_then(|jkt| jkt.parse::<Thumbprint>().ok());
        let jkt = jkt.ok_or(bad("agent_jkt is required: a SHA-256 thumbprint (RFC 7638)."))?;
        if request.auth_server.as_ref().is_some_and(|server| *server != issuer) {
            return Err(bad("auth_server is not this one."));
        }
        let url = request.auth_request_url.as_deref();
        if url.is_some_and(|url| !is_request_url(url)) {
            return Err(bad("auth_request_url must be an https URL."));
        }
        let scope: Scope = match &request.scope {
            None => Scope::default(),
            Some(text) => text.parse().map_err(|_| AAuthError::InvalidScope("malformed".to_owned()))?,
        };
        if url.is_some() && scope.is_empty() {
            return Err(bad("scope is required: what is asked for by auth_request_url alone is not served."));
        }
        let vocabulary = &resource.supported_scopes;
        if let Some(item) =
            scope.as_slice().iter().find(|item| !vocabulary.is_empty() && !vocabulary.contains(item))
        {
            return Err(AAuthError::InvalidScope(item.to_string()));
        }
        let signer = self.inner.keys.signer(org, KeyPurpose::AAuth, now).await?;
        let new = NewResourceToken {
            resource: &resource.identifier,
            made_for: Some(resource),
            auth_server: &issuer,
            agent: &agent,
            agent_jkt: jkt,
            scope: &scope,
            auth_request_url: url,
        };
        let token = new.sign(&*signer, now).await?;
        let event = Event::new(EventKind::AAuthTokenIssued, resource_actor(resource), "resource token", now)
            .on(Target::new("aauth_resource", resource.id.as_str()).named(&*resource.name))
            .by_method("aauth")
            .from_origin(call.origin)
            .with("agent", agent.as_str())
            .with("jkt", jkt.to_string())
            .with("scope", scope.to_string());
        self.stores().audit.append(org, &[event]).await?;
        let expires_in = RESOURCE_TOKEN_LIFE.as_secs();
        Ok(PartyToken { token, token_type: "resource+jwt", expires_in })
    }

    /// An agent token for a delegate of the signing agent.
    ///
    /// # Errors
    /// [`AAuthError`] if the agent did not sign with a key that it is registered with, has no delegates, or the key is not
    /// usable.
    pub async fn issue_delegate(
        &self,
        organization: &Organization,
        request: &DelegateRequest,
        call: SignedCall<'_>,
    ) -> Result<PartyToken, AAuthError> {
        // Not by an agent token: the key of one is an instance's, and must not outlive it in the hands of a delegate.
        let (now, refusal) = (self.now(), Refusal::default());
        let served = async {
            let party = &self.signed_agent_itself(organization, call, &refusal, now).await?;
            self.delegate_of(By { organization, party, call, now }, request).await
        }
        .await;
        self.served(organization, call, refusal, served, now).await
    }

    async fn delegate_of(
        &self,
        by: By<'_, Agent>,
        request: &DelegateRequest,
    ) -> Result<PartyToken, AAuthError> {
        let By { organization, party: agent, call, now } = by;
        let org = &organization.id;
        let identity = agent.aauth.as_deref().filter(|identity| identity.delegation);
        let identity = identity.ok_or(AAuthError::Denied("The agent may not have delegates."))?;
        let bad = AAuthError::InvalidRequest;
        let sub = request.delegate_sub.as_deref().filter(|sub| !sub.is_empty() && sub.len() <= MAX_DELEGATE);
        let sub = sub.filter(|sub| !sub.contains(char::is_control) && *sub != identity.identifier.as_str());
        let sub = sub.ok_or(bad("delegate_sub is required: up to 256 bytes, and not the agent itself."))?;
        let key = request.delegate_public_key.as_ref().and_then(PublicKey::from_jwk);
        let key = key.filter(|key| key.http_algorithm().is_some());
        let key =
            key.ok_or(bad("delegate_public_key must be a public key that signs HTTP messages here."))?;
        let audience = request.audience.as_deref();
        if audience.is_some_and(|audience| audience.is_empty() || audience.len() > 512) {
            return Err(bad("audience must be one text of up to 512 bytes."));
        }
        let life = request.lifetime.unwrap_or(TOKEN_LIFE.as_secs());
        if life == 0 || life > TOKEN_LIFE.as_secs() {
            return Err(bad("lifetime must be from 1 to 3600 seconds."));
        }
        let confirmation = Confirmation::of(key);
        let iat = now.unix_seconds();
        let claims = DelegateClaims {
            iss: &identity.identifier,
            sub,
            aud: audience,
            cnf: confirmation.to_claim(),
            agent_id: agent.id,
            agent_epoch: agent.epoch,
            iat,
            exp: iat + life,
            jti: TokenId::generate().to_string(),
        };
        let event =
            Event::new(EventKind::AAuthTokenIssued, agent_actor(agent), "agent token for a delegate", now)
                .by_method("aauth")
                .from_origin(call.origin)
                .with("agent_delegate", sub)
                .with("jti", &*claims.jti)
                .with("jkt", confirmation.jkt.to_string());
        let signer = self.inner.keys.signer(org, KeyPurpose::AAuth, now).await?;
        let token = token::sign(&*signer, "agent+jwt", &claims).await?;
        self.stores().audit.append(org, &[event]).await?;
        Ok(PartyToken { token: token.into(), token_type: "agent+jwt", expires_in: life })
    }

    /// What a resource token of the signing resource says, as the answer shows it.
    ///
    /// # Errors
    /// [`AAuthError`] if the resource did not sign, or the token is another's.
    pub async fn verify_resource_token(
        &self,
        organization: &Organization,
        request: &VerifyResourceToken,
        call: SignedCall<'_>,
    ) -> Result<Value, AAuthError> {
        self.as_resource(organization, call, async |by| self.described_resource_token(by, request).await)
            .await
    }

    async fn described_resource_token(
        &self,
        by: By<'_, AAuthResource>,
        request: &VerifyResourceToken,
    ) -> Result<Value, AAuthError> {
        let By { organization, party, now, .. } = by;
        let bad = AAuthError::InvalidRequest;
        let text = request.resource_token.as_ref().ok_or(bad("resource_token is required."))?;
        let agent = request.agent.as_ref().ok_or(bad("agent is required."))?;
        let jkt = request.agent_jkt.as_ref().ok_or(bad("agent_jkt is required."))?;
        let inactive = |error: &str| Ok(json!({ "active": false, "error": error }));
        let (resource, token) = match self.read_resource_token(organization, text.expose(), now).await {
            Ok(read) => read,
            Err(AAuthError::ResourceToken(_)) => return inactive("invalid_resource_token"),
            Err(error) => return Err(error),
        };
        if resource.id != party.id {
            return Err(AAuthError::Denied("The token is another resource's."));
        }
        if token.agent.as_str() != *agent {
            return inactive("invalid_agent");
        }
        if token.agent_jkt.to_string() != *jkt {
            return inactive("key_binding_failed");
        }
        Ok(json!({
            "active": true,
            "resource": resource.identifier,
            "scope": token.scope,
            "auth_request_url": token.auth_request_url,
        }))
    }

    /// What an auth token for the signing resource says, as the answer shows it. That it is active says nothing about who
    /// presents it: the request that brings it must be signed by the key that it is bound to.
    ///
    /// It is shown as it was issued: scopes that the agent or the resource lost since are in no new token, and in this one until
    /// it ends.
    ///
    /// # Errors
    /// [`AAuthError`] if the resource did not sign, or the token is for another.
    pub async fn verify_auth_token(
        &self,
        organization: &Organization,
        request: &VerifyAuthToken,
        call: SignedCall<'_>,
    ) -> Result<Value, AAuthError> {
        self.as_resource(organization, call, async |by| self.described_auth_token(by, request).await).await
    }

    async fn described_auth_token(
        &self,
        by: By<'_, AAuthResource>,
        request: &VerifyAuthToken,
    ) -> Result<Value, AAuthError> {
        let By { organization, party, now, .. } = by;
        let text =
            request.auth_token.as_ref().ok_or(AAuthError::InvalidRequest("auth_token is required."))?;
        let other = AAuthError::Denied("The token is for another resource.");
        if request.resource.as_ref().is_some_and(|resource| resource != party.identifier.as_str()) {
            return Err(other);
        }
        let inactive = || json!({ "active": false, "pop_required": true, "error": "invalid_token" });
        let Ok(claims) = self.read_auth_token(&organization.id, text.expose(), now).await? else {
            return Ok(inactive());
        };
        if claims.aud != party.identifier {
            return Err(other);
        }
        if self.auth_token_alive(organization, &claims).await?.is_err() {
            return Ok(inactive());
        }
        let AuthClaims { agent, agent_delegate, aud, sub, scope, cnf, act, auth_level, exp, .. } = claims;
        Ok(json!({
            "active": true,
            "agent": agent,
            "agent_delegate": agent_delegate,
            "resource": aud,
            "sub": sub,
            "scope": scope,
            "cnf_jkt": cnf.get("jkt"),
            "act": act,
            "auth_level": auth_level,
            "exp": exp,
            "pop_required": true,
        }))
    }

    /// Takes back an auth token or a refresh token of the signing agent, with everything that came of it. Whether there was
    /// such a token is not told.
    ///
    /// # Errors
    /// [`AAuthError`] if the agent did not sign.
    pub async fn revoke_aauth_token(
        &self,
        organization: &Organization,
        request: &RevokeRequest,
        call: SignedCall<'_>,
    ) -> Result<(), AAuthError> {
        self.as_agent(organization, call, async |by| self.revoke_for(by, request).await).await
    }

    async fn revoke_for(&self, by: By<'_, Agent>, request: &RevokeRequest) -> Result<(), AAuthError> {
        let By { organization, party: agent, call, now } = by;
        let org = &organization.id;
        let bad = AAuthError::InvalidRequest;
        let token = request.token.as_ref().filter(|token| !token.expose().is_empty());
        let token = token.ok_or(bad("token is required."))?;
        let (handle, remembered) = match request.token_type.as_deref() {
            Some(kind) if !matches!(kind, "auth_token" | "refresh_token") => {
                return Err(bad("token_type is auth_token or refresh_token."));
            }
            // Whoever takes back what was stolen must not be told that it is done because they named it wrong.
            _ if token.expose().starts_with(REFRESH_PREFIX) => {
                (self.family_of_refresh_token(organization, agent, token, now).await?, FAMILY_REMEMBERED)
            }
            Some("refresh_token") => (None, FAMILY_REMEMBERED),
            _ => (self.handle_of_auth_token(org, agent, token, now).await?, REMEMBERED),
        };
        let Some(handle) = handle else { return Ok(()) };
        let event = Event::new(EventKind::TokenRevoked, agent_actor(agent), "AAuth token revoked", now)
            .on(Target::new("agent", agent.id.to_string()).named(agent.name.clone()))
            .by_method("aauth")
            .from_origin(call.origin);
        match self.stores().grants.revoke(org, handle, now.plus(remembered), &event).await? {
            Revoked::Revoked | Revoked::AlreadyRevoked => Ok(()),
        }
    }

    /// The handle behind a `jti`, or behind the token itself. An agent names only tokens of its own: another's `jti` makes
    /// another handle.
    async fn handle_of_auth_token(
        &self,
        org: &OrgId,
        agent: &Agent,
        token: &Secret,
        now: Timestamp,
    ) -> Result<Option<Handle>, AAuthError> {
        if token.expose().contains('.') {
            let claims = self.read_auth_token(org, token.expose(), now).await?;
            let claims = claims.ok().filter(|claims| agent.aauth_identifier() == Some(&claims.agent));
            return Ok(claims.and_then(|claims| own_handle(org, &claims)));
        }
        // Of what cannot be a name that was given here there is nothing to remember.
        let jti = TokenId::parse(token.expose()).ok();
        Ok(jti.map(|jti| aauth_handle(org, &agent.id, &jti.to_string())))
    }

    async fn family_of_refresh_token(
        &self,
        organization: &Organization,
        agent: &Agent,
        token: &Secret,
        now: Timestamp,
    ) -> Result<Option<Handle>, AAuthError> {
        let grants = &self.stores().grants;
        let found =
            grants.find_ticket(&organization.id, TicketPurpose::AAuthRefresh, &token.hash(), now).await?;
        let Some(found) = found else { return Ok(None) };
        let grant: AAuthGrant = read(&found.ticket.body)?;
        Ok(found.ticket.family.filter(|_| grant.agent() == Some(agent.id)))
    }

    /// Serves a call of a registered resource.
    async fn as_resource<T>(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        serve: impl AsyncFnOnce(By<'_, AAuthResource>) -> Result<T, AAuthError>,
    ) -> Result<T, AAuthError> {
        let (now, refusal) = (self.now(), Refusal::default());
        let served = async {
            let party = self.signed_resource(organization, call, &refusal, now).await?;
            serve(By { organization, party: &party, call, now }).await
        }
        .await;
        self.served(organization, call, refusal, served, now).await
    }

    /// Serves a call of an agent: by a registered key, or by its own agent token. A delegate is not the agent.
    async fn as_agent<T>(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        serve: impl AsyncFnOnce(By<'_, Agent>) -> Result<T, AAuthError>,
    ) -> Result<T, AAuthError> {
        let (now, refusal) = (self.now(), Refusal::default());
        let served = async {
            let party = if call.message.headers.contains_key("agent-auth") {
                let signed = self.signed_agent(organization, call, None, &refusal, now).await?;
                if signed.delegate().is_some() {
                    return Err(AAuthError::Denied("Only the agent itself may do this."));
                }
                signed.agent
            } else {
                self.signed_agent_itself(organization, call, &refusal, now).await?
            };
            serve(By { organization, party: &party, call, now }).await
        }
        .await;
        self.served(organization, call, refusal, served, now).await
    }
}

/// Whether a resource may keep a request there: a URL such as names a party, and perhaps a query.
fn is_request_url(url: &str) -> bool {
    let (front, query) = url.split_once('?').unwrap_or((url, ""));
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"#\"'<>\\".contains(&byte);
    url.len() <= MAX_REQUEST_URL && AAuthIdentifier::parse(front).is_ok() && query.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_kept_at_urls_with_or_without_a_query() {
        for good in [
            "https://r.test/1",
            "https://r.test/requests?id=1&of=a%20b",
            "http://127.0.0.1:9/r?x",
            "https://r.test?",
        ] {
            assert!(is_request_url(good), "{good}");
        }
        for bad in [
            "",
            "r.test/1",
            "javascript:alert(1)",
            "http://r.test/1",
            "https://u@r.test/1?x",
            "?https://r.test",
            "https://r.test/1#x",
            "https://r.test/1?x#y",
            "https://r.test/1?a b",
            "https://r.test/1?\n",
            "https://r.test/1?\"",
            &format!("https://r.test/?{}", "x".repeat(2048)),
        ] {
            assert!(!is_request_url(bad), "{bad}");
        }
    }
}
