//! Making auth tokens, and reading them.

use serde_json::{Map, Value};

use super::{SignedCall, door::SignedAgent, grants::AskedWith};
use crate::{
    aauth::{
        AAuthError, ActedFor, AuthClaims, AuthLineage, Confirmation, ResourceToken, TOKEN_LIFE,
        UnverifiedResourceToken, alive,
    },
    aauth_resource::{AAuthResource, AuthLevel},
    audit::{Event, EventKind, Target},
    capability::Scope,
    clock::Timestamp,
    id::{AAuthIdentifier, OrgId, TokenId},
    keys::{KeyError, KeyPurpose},
    organization::{ActOrder, Organization},
    principal::agent_actor,
    secret::Secret,
    server::AuthorizationServer,
    spending::Payers,
    store::{AAuthResourceKey, AgentKey, Handle, Remembered, StoreError},
    token::{self, Dead, InvalidToken, aauth_handle, foreign},
};
use std::{sync::Arc, time::Duration};

/// The space of resource tokens in the replay store.
const SPACE: &str = "aauth_resource_token";

/// The life of a token for which the person must be there.
const PRESENT_LIFE: Duration = Duration::from_secs(300);

/// An auth token that has been decided on.
pub(super) struct NewAuthToken<'a> {
    pub(super) resource: &'a AAuthResource,
    pub(super) lineage: AuthLineage,
    pub(super) scope: Scope,
    pub(super) level: AuthLevel,
    /// Those who hand the work on to each other, the present agent last; empty if it acts alone.
    pub(super) chain: Vec<(AAuthIdentifier, Option<String>)>,
    /// From when on what it comes of is over.
    pub(super) until: Option<Timestamp>,
    /// What it was asked with, which is used up by it.
    pub(super) asked_with: AskedWith,
    pub(super) request_type: &'static str,
}

/// A token that was made.
pub(super) struct Issued {
    pub(super) token: Secret,
    pub(super) expires_in: u64,
    pub(super) scope: Scope,
}

impl AuthorizationServer {
    /// The resource token, if a registered resource made it out to `signed`.
    pub(super) async fn resource_token(
        &self,
        organization: &Organization,
        signed: &SignedAgent,
        text: &str,
        now: Timestamp,
    ) -> Result<(Arc<AAuthResource>, ResourceToken), AAuthError> {
        let (resource, token) = self.read_resource_token(organization, text, now).await?;
        if token.agent != *signed.identifier() {
            return Err(AAuthError::ResourceToken("it is about another agent"));
        }
        if token.agent_jkt != signed.confirmation().jkt {
            return Err(AAuthError::ResourceToken("it is about another key"));
        }
        if token.scope.is_empty() && token.auth_request_url.is_some() {
            // Nobody here reads that request, so nobody would know what a token without scope stands for.
            return Err(AAuthError::ResourceToken("it asks by auth_request_url alone; a scope is needed"));
        }
        Ok((resource, token))
    }

    /// The resource token, whoever it is about.
    pub(super) async fn read_resource_token(
        &self,
        organization: &Organization,
        text: &str,
        now: Timestamp,
    ) -> Result<(Arc<AAuthResource>, ResourceToken), AAuthError> {
        let refused = |error: InvalidToken| {
            tracing::debug!(%error, "resource token refused");
            AAuthError::ResourceToken("it is not valid")
        };
        let org = &organization.id;
        let token = UnverifiedResourceToken::read(text).map_err(refused)?;
        let key = AAuthResourceKey::Identifier(token.resource());
        let resource = self.stores().aauth_resources.find(org, key).await?;
        let unknown = AAuthError::ResourceToken("its resource is not registered, or not active");
        let resource = resource.filter(|resource| resource.active).ok_or(unknown)?;
        let keys = self.keys_of(&resource.jwks, resource.jwks_uri.as_deref(), token.kid(), now).await;
        let keys = match keys {
            Ok(keys) => keys,
            Err(AAuthError::Unauthenticated(_)) => {
                return Err(AAuthError::ResourceToken("the keys of its resource cannot be had"));
            }
            Err(error) => return Err(error),
        };
        let own = self.inner.keys.verifying_keys(org, KeyPurpose::AAuth, now).await?;
        let token = token.verify(&keys, &own, &self.issuer(org), now).map_err(refused)?;
        if token.made_for.as_ref().is_some_and(|(id, epoch)| (id, *epoch) != (&resource.id, resource.epoch)) {
            return Err(AAuthError::ResourceToken("its resource has changed since"));
        }
        Ok((resource, token))
    }

    /// Makes the token: charges the agent, uses the resource token up, looks once more whether everything holds that it will
    /// stand on, and signs. It leaves when its event is durable.
    pub(super) async fn issue_auth_token(
        &self,
        organization: &Organization,
        signed: &SignedAgent,
        call: SignedCall<'_>,
        new: NewAuthToken<'_>,
        now: Timestamp,
    ) -> Result<Issued, AAuthError> {
        let (org, stores) = (&organization.id, self.stores());
        Payers::alone(&signed.agent).charge_call(stores, org, call.origin, now).await??;
        let AskedWith { single_use, presented_from, until } = new.asked_with;
        match stores.replay.remember(org, SPACE, &single_use, presented_from, until, now).await? {
            Remembered::First => {}
            Remembered::Replay => return Err(AAuthError::ResourceToken("it was used before")),
            Remembered::TooOld => return Err(AAuthError::ResourceToken("it may have been used before")),
        }
        let fresh = stores.uncached();
        let organization_now = fresh.organizations.find(org).await?;
        let over = AAuthError::InvalidGrant("What the token would stand on has ended.");
        let Some(organization_now) = organization_now else { return Err(over) };
        if let Err(dead) = alive(&fresh, &organization_now, &new.lineage, &[]).await? {
            tracing::debug!(%dead, "an auth token would be dead");
            return Err(over);
        }
        let life = if new.level == AuthLevel::User { PRESENT_LIFE } else { TOKEN_LIFE };
        let ends = now.plus(life).min(new.until.unwrap_or(now.plus(life)));
        let (iat, exp) = (now.unix_seconds(), ends.unix_seconds());
        if exp <= iat {
            return Err(over);
        }
        let jti = TokenId::generate().to_string();
        let sub = new.lineage.user.map(|(user, _)| user.to_string());
        let mut event =
            Event::new(EventKind::AAuthTokenIssued, agent_actor(&signed.agent), "auth token issued", now)
                .on(Target::new("aauth_resource", new.resource.id.as_str()).named(&*new.resource.name))
                .by_method("aauth")
                .from_origin(call.origin)
                .with("request_type", new.request_type)
                .with("scope", new.scope.to_string())
                .with("jti", &*jti)
                .with("jkt", signed.confirmation().jkt.to_string());
        if let Some(delegate) = signed.delegate() {
            event = event.with("agent_delegate", delegate);
        }
        if let Some(sub) = &sub {
            event = event.with("subject", &**sub);
        }
        if !new.chain.is_empty() {
            let chain: Vec<_> = new.chain.iter().map(|(agent, _)| agent.as_str()).collect();
            event = event.with("actor_chain", chain);
        }
        let claims = AuthClaims {
            iss: self.issuer(org),
            aud: new.resource.identifier.clone(),
            agent: signed.identifier().clone(),
            agent_delegate: signed.delegate().map(str::to_owned),
            sub,
            scope: new.scope,
            cnf: confirmation_claim(signed.confirmation()),
            act: nested(new.chain, new.lineage.act_order),
            auth_level: new.level,
            organization: org.clone(),
            iat,
            exp,
            jti,
            lin: new.lineage,
        };
        let signer = self.inner.keys.signer(org, KeyPurpose::AAuth, now).await?;
        let token = token::sign(&*signer, "auth+jwt", &claims).await?;
        stores.audit.append(org, &[event]).await?;
        Ok(Issued { token: Secret::from(token), expires_in: exp - iat, scope: claims.scope })
    }

    /// The claims of an auth token of this organization that is valid at `now`. Whether it is alive is another question.
    pub(super) async fn read_auth_token(
        &self,
        org: &OrgId,
        text: &str,
        now: Timestamp,
    ) -> Result<Result<AuthClaims, InvalidToken>, KeyError> {
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AAuth, now).await?;
        let read = || {
            let token = foreign::read(text)?;
            if token.typ() != Some("auth+jwt") {
                return Err(InvalidToken::WrongType);
            }
            AuthClaims::of(token.verify_own(&keys)?.all(), &self.issuer(org), now)
        };
        Ok(read())
    }

    /// Whether everything holds that an auth token stands on, and the agents whose delegates took part may still have some. What
    /// else an agent or a resource may no longer have or do, no new token has; this one goes on until it ends.
    pub(super) async fn auth_token_alive(
        &self,
        organization: &Organization,
        claims: &AuthClaims,
    ) -> Result<Result<(), Dead>, StoreError> {
        let own = own_handle(&organization.id, claims);
        if let Err(dead) = alive(self.stores(), organization, &claims.lin, own.as_slice()).await? {
            return Ok(Err(dead));
        }
        if claims.act.is_none() && claims.agent_delegate.is_none() {
            return Ok(Ok(()));
        }
        for ((id, _), (_, delegate)) in claims.lin.agents.iter().zip(claims.chain()) {
            if delegate.is_some() {
                let agent = self.stores().agents.find(&organization.id, AgentKey::Id(*id)).await?;
                let identity = agent.as_ref().and_then(|agent| agent.aauth.as_deref());
                if !identity.is_some_and(|identity| identity.delegation) {
                    return Ok(Err(Dead::Principal));
                }
            }
        }
        Ok(Ok(()))
    }
}

/// The handle of an auth token. The agent is part of it: nobody revokes the token of another by its `jti`.
pub(super) fn own_handle(org: &OrgId, claims: &AuthClaims) -> Option<Handle> {
    claims.lin.agents.last().map(|(agent, _)| aauth_handle(org, agent, &claims.jti))
}

fn confirmation_claim(confirmation: &Confirmation) -> Map<String, Value> {
    match confirmation.to_claim() {
        Value::Object(claim) => claim,
        _ => Map::new(),
    }
}

/// The `act` claim of a chain.
fn nested(mut chain: Vec<(AAuthIdentifier, Option<String>)>, order: ActOrder) -> Option<Box<ActedFor>> {
    if order == ActOrder::FirstOutermost {
        chain.reverse();
    }
    chain.into_iter().fold(None, |inner, (agent, agent_delegate)| {
        Some(Box::new(ActedFor { sub: agent.clone(), agent, agent_delegate, act: inner }))
    })
}
