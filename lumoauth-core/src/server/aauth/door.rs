//! Who signed a request.
//!
//! 1. Everything that needs no key comes first: what the request says about its signer, and the shape of the signature.
//! 2. Then the party is looked for among those who are registered, then its keys, then the token and the signature are
//!    checked, and last of all the nonce is used up.
//! 3. An agent token counts only if the request is signed by the key it is bound to.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::SignedCall;
use crate::{
    aauth::{AAuthError, AgentToken, Confirmation, Unauthenticated, UnverifiedAgentToken},
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent},
    clock::Timestamp,
    foreign_keys::KeySource,
    grant::Refusal,
    httpsig::{self, Presented, SignatureError, SignedRequest},
    id::AAuthIdentifier,
    jwks::{JwkSet, PublicKey, PublicKeys},
    keys::KeyPurpose,
    organization::Organization,
    principal::agent_actor,
    server::AuthorizationServer,
    store::{AAuthResourceKey, AgentKey},
};

const AGENT_AUTH: HeaderName = HeaderName::from_static("agent-auth");
const SIGNATURE_KEY: HeaderName = HeaderName::from_static("signature-key");

/// An agent whose token and signature were checked.
#[derive(Debug)]
pub(super) struct SignedAgent {
    pub(super) agent: Arc<Agent>,
    pub(super) token: AgentToken,
}

impl SignedAgent {
    /// Its part in AAuth. It was there when the agent was found.
    pub(super) fn identity(&self) -> Result<&AAuthIdentity, AAuthError> {
        self.agent.aauth.as_deref().ok_or(AAuthError::Unauthenticated(Unauthenticated::Party))
    }

    pub(super) fn identifier(&self) -> &AAuthIdentifier {
        &self.token.agent
    }

    pub(super) fn delegate(&self) -> Option<&str> {
        self.token.delegate.as_deref()
    }

    pub(super) fn confirmation(&self) -> &Confirmation {
        &self.token.confirmation
    }

    /// The same, when it is proven: from now on the log names it.
    pub(super) fn proven(self, refusal: &Refusal) -> Self {
        let actor = agent_actor(&self.agent);
        refusal.set(move |event| event.actor = actor);
        self
    }
}

/// A request that says by which key of whom it is signed.
struct Named {
    presented: Presented,
    identifier: AAuthIdentifier,
    kid: String,
}

impl AuthorizationServer {
    /// The agent that signed, by its agent token: in `Agent-Auth`, or as `in_body` if the header has none.
    pub(super) async fn signed_agent(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        in_body: Option<&str>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<SignedAgent, AAuthError> {
        let text = claimed_token(call, in_body)?;
        let presented = self.presented(call, now)?;
        let text = text.ok_or(Unauthenticated::NoSigner)?;
        let claimed = self.claimed_agent(organization, text, refusal, now).await?;
        let verified = presented.verify(&claimed.confirmation().key).map_err(|error| match error {
            SignatureError::Invalid | SignatureError::Key => Unauthenticated::KeyBinding,
            error => Unauthenticated::Signature(error),
        })?;
        let _ = self.once(organization, verified, now).await?;
        Ok(claimed.proven(refusal))
    }

    /// The agent whose token `text` is. Whether it is there, only its key can prove.
    pub(super) async fn claimed_agent(
        &self,
        organization: &Organization,
        text: &str,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<SignedAgent, AAuthError> {
        let issuer = self.aauth_issuer(organization)?;
        let token = UnverifiedAgentToken::read(text).map_err(Unauthenticated::AgentToken)?;
        let org = &organization.id;
        let agent = self.stores().agents.find(org, AgentKey::AAuthIdentifier(token.agent())).await?;
        let agent = agent.filter(|agent| agent.is_active()).ok_or(Unauthenticated::Party)?;
        let known = agent_actor(&agent);
        refusal.set(move |event| {
            event.context.insert("claimed".to_owned(), known.id.to_string().into()).map_or((), drop)
        });
        let keys = self.keys_of(&agent.jwks, agent.jwks_uri.as_deref(), token.kid(), now).await?;
        let own = self.inner.keys.verifying_keys(org, KeyPurpose::AAuth, now).await?;
        let token = token.verify(&keys, &own, &issuer, now).map_err(Unauthenticated::AgentToken)?;
        let identity = agent.aauth.as_deref().ok_or(Unauthenticated::Party)?;
        let old = token.epoch.is_some_and(|epoch| epoch != agent.epoch);
        if old || (token.delegate.is_some() && !identity.delegation) {
            return Err(Unauthenticated::Party.into());
        }
        check_algorithm(identity, &token.confirmation.key)?;
        Ok(SignedAgent { agent, token })
    }

    /// The resource whose registered key signed, as `Signature-Key: <identifier>#<kid>` says.
    pub(super) async fn signed_resource(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<Arc<AAuthResource>, AAuthError> {
        let named = self.named(organization, call, now)?;
        let key = AAuthResourceKey::Identifier(&named.identifier);
        let resource = self.stores().aauth_resources.find(&organization.id, key).await?;
        let resource = resource.filter(|resource| resource.active).ok_or(Unauthenticated::Party)?;
        let about = resource.identifier.to_string();
        refusal.set(move |event| drop(event.context.insert("resource".to_owned(), about.into())));
        let keys = self.keys_of(&resource.jwks, resource.jwks_uri.as_deref(), Some(&named.kid), now).await?;
        self.signed_by(organization, named, &keys, now).await?;
        Ok(resource)
    }

    /// The agent whose registered key signed, as `Signature-Key: <identifier>#<kid>` says.
    pub(super) async fn signed_agent_itself(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<Arc<Agent>, AAuthError> {
        let named = self.named(organization, call, now)?;
        let key = AgentKey::AAuthIdentifier(&named.identifier);
        let agent = self.stores().agents.find(&organization.id, key).await?;
        let agent = agent.filter(|agent| agent.is_active()).ok_or(Unauthenticated::Party)?;
        let identity = agent.aauth.as_deref().ok_or(Unauthenticated::Party)?;
        let keys = self.keys_of(&agent.jwks, agent.jwks_uri.as_deref(), Some(&named.kid), now).await?;
        if let Some(key) = keys.by_kid(&named.kid) {
            check_algorithm(identity, key)?;
        }
        self.signed_by(organization, named, &keys, now).await?;
        let actor = agent_actor(&agent);
        refusal.set(move |event| event.actor = actor);
        Ok(agent)
    }

    /// What the request says of who signed it.
    fn named(
        &self,
        organization: &Organization,
        call: SignedCall<'_>,
        now: Timestamp,
    ) -> Result<Named, AAuthError> {
        self.aauth_issuer(organization)?;
        let presented = self.presented(call, now)?;
        let (identifier, kid) = signature_key(call.message.headers)?.ok_or(Unauthenticated::NoSigner)?;
        if !presented.signature().covers(&SIGNATURE_KEY) {
            return Err(Unauthenticated::Signature(SignatureError::NotCovered("signature-key")).into());
        }
        Ok(Named { presented, identifier, kid })
    }

    async fn signed_by(
        &self,
        organization: &Organization,
        named: Named,
        keys: &PublicKeys,
        now: Timestamp,
    ) -> Result<(), AAuthError> {
        let key = keys.by_kid(&named.kid).ok_or(Unauthenticated::Party)?;
        let verified = named.presented.verify(key).map_err(Unauthenticated::Signature)?;
        self.once(organization, verified, now).await.map(drop)
    }

    fn presented(&self, call: SignedCall<'_>, now: Timestamp) -> Result<Presented, AAuthError> {
        Ok(httpsig::read(&call.message, &self.inner.signed_here, now).map_err(Unauthenticated::Signature)?)
    }

    async fn once(
        &self,
        organization: &Organization,
        verified: httpsig::Verified,
        now: Timestamp,
    ) -> Result<SignedRequest, AAuthError> {
        let once = verified.once(&*self.stores().replay, &organization.id, now).await;
        Ok(once.map_err(Unauthenticated::Signature)?)
    }

    /// The keys that a party is registered with.
    pub(super) async fn keys_of(
        &self,
        jwks: &Option<JwkSet>,
        jwks_uri: Option<&str>,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<PublicKeys>, AAuthError> {
        let source = match (jwks, jwks_uri) {
            (Some(set), _) => KeySource::Inline(set),
            (None, Some(uri)) => KeySource::JwksUri(uri),
            (None, None) => return Ok(Arc::default()),
        };
        Ok(self.inner.foreign_keys.keys(source, kid, now).await.map_err(Unauthenticated::Keys)?)
    }
}

/// The agent token of a request: in `Agent-Auth`, or `in_body`.
pub(super) fn claimed_token<'a>(
    call: SignedCall<'a>,
    in_body: Option<&'a str>,
) -> Result<Option<&'a str>, AAuthError> {
    match (agent_token(call.message.headers)?, in_body) {
        (Some(header), Some(body)) if header != body => {
            Err(AAuthError::InvalidRequest("Agent-Auth and the body must have the same agent token."))
        }
        (header, body) => Ok(header.or(body)),
    }
}

fn check_algorithm(identity: &AAuthIdentity, key: &PublicKey) -> Result<(), AAuthError> {
    let algorithm = key.http_algorithm().ok_or(Unauthenticated::KeyBinding)?;
    let allowed = identity.algorithms.is_empty() || identity.algorithms.contains(&algorithm);
    if allowed { Ok(()) } else { Err(Unauthenticated::Signature(SignatureError::Algorithm).into()) }
}

/// The agent token in `Agent-Auth: agent_token=<JWT>`. The field in another form says nothing about who signs.
fn agent_token(headers: &HeaderMap) -> Result<Option<&str>, AAuthError> {
    let Some(text) = single(headers, &AGENT_AUTH)? else { return Ok(None) };
    let Some(token) = text.trim().strip_prefix("agent_token=") else { return Ok(None) };
    let token = token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).unwrap_or(token);
    Ok(Some(token))
}

/// Who signs by `Signature-Key: <identifier>#<kid>`, and by which of its keys.
fn signature_key(headers: &HeaderMap) -> Result<Option<(AAuthIdentifier, String)>, AAuthError> {
    let Some(text) = single(headers, &SIGNATURE_KEY)? else { return Ok(None) };
    let named = text.trim().rsplit_once('#').and_then(|(identifier, kid)| {
        let identifier = AAuthIdentifier::parse(identifier).ok()?;
        (!kid.is_empty()).then(|| (identifier, kid.to_owned()))
    });
    Ok(Some(named.ok_or(Unauthenticated::NoSigner)?))
}

/// The text of a field that may stand there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AAuthError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(AAuthError::InvalidRequest("Agent-Auth and Signature-Key must each stand in one line."));
    }
    let malformed = AAuthError::InvalidRequest("Agent-Auth or Signature-Key is not text.");
    value.map(|value| value.to_str().map_err(|_| malformed)).transpose()
}
