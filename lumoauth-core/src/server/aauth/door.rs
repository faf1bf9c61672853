//! Who signed a request.
//!
//! 1. Everything that needs no key comes first: what the request says about its signer, and the shape of the signature.
//! 2. Then the party is looked for among those who are registered, then its keys, then the token and the signature are
//!    checked, and last of all the nonce is used up.
//! 3. Before that, whether the agent may sign, and from where.
//! 4. An agent token counts only if the request is signed by the key it is bound to.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::{SignedCall, must_be_active};
use crate::{
    aauth::{
        AAuthError, AgentToken, Confirmation, Unauthenticated, UnverifiedAgentToken,
        fields::{AGENT_AUTH, agent_token, single},
    },
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent, AuthMethod},
    audit::{Actor, ActorKind},
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

impl Named {
    fn verify(self, keys: &PublicKeys) -> Result<httpsig::Verified, AAuthError> {
        let key = keys.by_kid(&self.kid).ok_or(Unauthenticated::Party)?;
        Ok(self.presented.verify(key).map_err(Unauthenticated::Signature)?)
    }
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
        admitted(&claimed.agent, call, refusal)?;
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
        must_be_active(organization)?;
        let issuer = self.issuer(&organization.id);
        let token = UnverifiedAgentToken::read(text).map_err(Unauthenticated::AgentToken)?;
        let org = &organization.id;
        let agent = self.stores().agents.find(org, AgentKey::AAuthIdentifier(token.agent())).await?;
        let agent = agent.filter(|agent| agent.is_active()).ok_or(Unauthenticated::Party)?;
        claimed(&agent, refusal);
        let keys = self.keys_of(&agent.jwks, agent.jwks_uri.as_deref(), token.kid(), now).await?;
        let own = self.inner.keys.verifying_keys(org, KeyPurpose::AAuth, now).await?;
        let token = token.verify(&keys, &own, &issuer, now).map_err(Unauthenticated::AgentToken)?;
        let identity = agent.aauth.as_deref().ok_or(Unauthenticated::Party)?;
        let old = token.made_for.is_some_and(|made_for| made_for != (agent.id, agent.epoch));
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
        let verified = named.verify(&keys)?;
        let _ = self.once(organization, verified, now).await?;
        let actor = resource_actor(&resource);
        refusal.set(move |event| event.actor = actor);
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
        claimed(&agent, refusal);
        let identity = agent.aauth.as_deref().ok_or(Unauthenticated::Party)?;
        let keys = self.keys_of(&agent.jwks, agent.jwks_uri.as_deref(), Some(&named.kid), now).await?;
        if let Some(key) = keys.by_kid(&named.kid) {
            check_algorithm(identity, key)?;
        }
        let verified = named.verify(&keys)?;
        admitted(&agent, call, refusal)?;
        let _ = self.once(organization, verified, now).await?;
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
        must_be_active(organization)?;
        let presented = self.presented(call, now)?;
        let (identifier, kid) = signature_key(call.message.headers)?.ok_or(Unauthenticated::NoSigner)?;
        if !presented.signature().covers(&SIGNATURE_KEY) {
            return Err(Unauthenticated::Signature(SignatureError::NotCovered("signature-key")).into());
        }
        Ok(Named { presented, identifier, kid })
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

/// Which agent is claimed, for the log.
fn claimed(agent: &Agent, refusal: &Refusal) {
    let id = agent.id.to_string();
    refusal.set(move |event| drop(event.context.insert("claimed".to_owned(), id.into())));
}

/// Refuses an agent that may not sign, or not from where it is.
pub(super) fn admitted(agent: &Agent, call: SignedCall<'_>, refusal: &Refusal) -> Result<(), AAuthError> {
    agent.check(AuthMethod::Aauth, call.origin.ip).map_err(|barred| {
        refusal.set(move |event| drop(event.context.insert("cause".to_owned(), barred.to_string().into())));
        Unauthenticated::Party.into()
    })
}

/// A resource, as the log names it.
pub(super) fn resource_actor(resource: &AAuthResource) -> Actor {
    Actor::new(ActorKind::Resource, resource.id.as_str()).named(&*resource.name)
}

/// Who a request claims to be signed by, for those who count requests; nothing is proven by it. That is the signer that the
/// routes look for, so nobody is served under one name and counted under another.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "transports say which route it is")]
pub enum ClaimedSigner<'a> {
    /// At a route that wants an agent token: in `Agent-Auth`, or this one of the body.
    ByToken(Option<&'a str>),
    /// At a route that wants the key of a registered party, by `Signature-Key`.
    ByKey,
    /// At a route that takes either.
    ByEither,
}

impl ClaimedSigner<'_> {
    /// The signer; `None` if the request names none, or in a way that is refused.
    pub fn of(self, headers: &HeaderMap) -> Option<AAuthIdentifier> {
        let by_token = |in_body: Option<&str>| {
            let text = agent_token(headers).ok()?.or(in_body)?;
            Some(UnverifiedAgentToken::read(text).ok()?.agent().clone())
        };
        match self {
            Self::ByToken(in_body) => by_token(in_body),
            Self::ByEither if headers.contains_key(AGENT_AUTH) => by_token(None),
            Self::ByKey | Self::ByEither => Some(signature_key(headers).ok()??.0),
        }
    }
}

/// The agent token of a request: in `Agent-Auth`, or `in_body`.
pub(super) fn claimed_token<'a>(
    call: SignedCall<'a>,
    in_body: Option<&'a str>,
) -> Result<Option<&'a str>, AAuthError> {
    match (readable(agent_token(call.message.headers))?, in_body) {
        (Some(header), Some(body)) if header != body => {
            Err(AAuthError::InvalidRequest("Agent-Auth and the body must have the same agent token."))
        }
        (header, body) => Ok(header.or(body)),
    }
}

fn check_algorithm(identity: &AAuthIdentity, key: &PublicKey) -> Result<(), AAuthError> {
    let algorithm = key.http_algorithm().ok_or(Unauthenticated::KeyBinding)?;
    if identity.may_sign_by(algorithm) {
        Ok(())
    } else {
        Err(Unauthenticated::Signature(SignatureError::Algorithm).into())
    }
}

/// Who signs by `Signature-Key: <identifier>#<kid>`, and by which of its keys.
fn signature_key(headers: &HeaderMap) -> Result<Option<(AAuthIdentifier, String)>, AAuthError> {
    let Some(text) = readable(single(headers, &SIGNATURE_KEY))? else { return Ok(None) };
    let named = text.trim().rsplit_once('#').and_then(|(identifier, kid)| {
        let identifier = AAuthIdentifier::parse(identifier).ok()?;
        (!kid.is_empty()).then(|| (identifier, kid.to_owned()))
    });
    Ok(Some(named.ok_or(Unauthenticated::NoSigner)?))
}

/// What a field says in which only one thing may stand.
fn readable<T>(field: Result<T, SignatureError>) -> Result<T, AAuthError> {
    let problem = "Agent-Auth and Signature-Key must each be one line of text.";
    field.map_err(|_| AAuthError::InvalidRequest(problem))
}
