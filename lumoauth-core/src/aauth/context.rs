//! Who calls a resource.

use std::sync::Arc;

use super::AuthClaims;
use crate::{
    aauth_resource::AuthLevel,
    audit::{Actor, ActorKind},
    capability::Scope,
    clock::Timestamp,
    httpsig::SignedRequest,
    id::{AAuthIdentifier, ClientId},
    jwks::Thumbprint,
    principal::{Principal, RemoteCaller, RemoteKind},
    secret::Secret,
    token::InvalidToken,
};

/// What is known of a request that a resource admitted, in the extensions of the request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AAuthContext {
    /// The authorization server that vouches for all of this.
    pub issuer: String,
    /// The agent that calls.
    pub agent: AAuthIdentifier,
    /// For which of its delegates, if for one.
    pub delegate: Option<String>,
    /// For which person, if for one.
    pub user: Option<String>,
    /// What the token may be used for.
    pub scope: Scope,
    /// The key that signed.
    pub jkt: Thumbprint,
    /// The id of the token.
    pub jti: String,
    /// The agents that handed the work on to each other, with their delegates; the one that calls is the last.
    pub chain: Vec<(AAuthIdentifier, Option<String>)>,
    /// How much a person had to do with it.
    pub auth_level: AuthLevel,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// Whether nobody can have changed the query since it was signed.
    pub query_covered: bool,
    /// Whether the content is the one that was signed, all of it seen. Where the content flows it is only known at its end.
    pub content_bound: bool,
}

/// A caller of a resource.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what layers put into the extensions of the request")]
pub struct AAuthCaller {
    /// The caller as everything that decides about access knows it: bounded by the scope of the token alone.
    pub principal: Principal,
    /// What else is known.
    pub context: AAuthContext,
}

impl AAuthCaller {
    pub(super) fn new(
        claims: Arc<AuthClaims>,
        jkt: Thumbprint,
        token: Secret,
        request: &SignedRequest,
        content_bound: bool,
    ) -> Result<Self, InvalidToken> {
        let chain = claims.chain();
        let agents = &claims.lin.agents;
        // The two name the same agents, by the name that others know and by ours.
        let same = chain.len() == agents.len() && chain.last().is_some_and(|(last, _)| *last == claims.agent);
        let (Some((agent_id, _)), true) = (agents.last(), same) else { return Err(InvalidToken::Malformed) };
        let actors = chain
            .iter()
            .zip(agents)
            .map(|((name, _), (id, _))| Actor::new(ActorKind::Agent, id.to_string()).named(name.as_str()));
        let acts_for_others = claims.sub.is_some() || chain.len() > 1;
        let expires_at = Timestamp::from_unix_seconds(claims.exp);
        let caller = RemoteCaller {
            issuer: claims.iss.clone(),
            org: claims.organization.clone(),
            kind: RemoteKind::Agent,
            subject: claims.sub.clone().unwrap_or_else(|| chain[0].0.to_string()),
            // Such a token is of no client of OAuth: it is of whoever has the key.
            client_id: ClientId::parse(&jkt.to_string()).map_err(|_| InvalidToken::Confirmation)?,
            agent_id: Some(*agent_id),
            agent_name: Some(claims.agent.as_str().into()),
            actors: if acts_for_others { actors.collect() } else { Vec::new() },
            scope: claims.scope.clone(),
            authorization_details: Vec::new(),
            expires_at,
            over_budget: false,
            token,
        };
        let context = AAuthContext {
            issuer: claims.iss.clone(),
            agent: claims.agent.clone(),
            delegate: claims.agent_delegate.clone(),
            user: claims.sub.clone(),
            scope: claims.scope.clone(),
            jkt,
            jti: claims.jti.clone(),
            chain,
            auth_level: claims.auth_level,
            expires_at,
            query_covered: request.signature().covers_query(),
            content_bound,
        };
        Ok(Self { principal: Principal::remote(caller), context })
    }
}
