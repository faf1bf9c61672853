//! An agent begins to act for somebody, or joins those who do.
//!
//! 1. The subject is a person's token, an agent's own, or one of a chain; the actor is an agent's own token.
//! 2. Whoever brings an agent in answers for it. To act for somebody directly, the actor itself must be allowed to. To join
//!    a chain, the agent that is last in it must still be allowed to; the newcomer needs nothing but is bounded by what it
//!    may do.
//! 3. The person must have agreed to the first agent: the subject token was made for it, there is a consent, or an
//!    administrator answers for everybody. For an MCP server a consent to this server's own routes or to that server counts;
//!    without one, to this server's own routes. That covers the sub-agents it hands work to: their tokens
//!    name every one of them, stand on the same consent and end with it.
//! 4. What is bound to an MCP server was perhaps agreed to for that server only. Where it is handed on for anywhere else,
//!    every consent that it stands on must allow that too: whoever agreed to `read:*` there, to `read:a` as well.
//! 5. A person's token is worth what its client may still have of it, and no more is handed on.
//! 6. A chain has at most [`MAX_ACTORS`] actors, each a different agent.
//! 7. A `may_act` of the subject names the only actor there can be (RFC 8693 section 4.4). No route of this server puts one
//!    into a token; one that is there is honoured, and copied on.

use std::sync::Arc;

use super::{
    bounds::{DELEGATED_LIFETIME, Exchange, Holder, Price, ancestors, envelopes, lifetime, narrowed},
    presented::{Actor, Request, Token},
};
use crate::{
    agent::{Agent, DelegationConsent},
    authorize::{is_identity_scope, still_allowed},
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    consent::{Consent, Place},
    grant::{GrantContext, MAX_ACTORS, Resource, TokenError, target},
    id::ClientId,
    mcp::McpServer,
    principal::{Delegation, Identity, Represented},
    store::{ConsentKey, McpServerKey},
    token::{ClientEpoch, ConsentEpoch},
    user::User,
};

pub(super) async fn decide(
    context: &GrantContext<'_>,
    request: &Request<'_>,
    actor: &Actor,
) -> Result<Exchange, TokenError> {
    let subject = &request.subject;
    let bound_to = check_parties(context, subject, &actor.agent).await?;
    if subject.claims.may_act.as_ref().is_some_and(|only| only.sub != actor.agent.subject()) {
        return Err(TokenError::InvalidGrant("The subject token names another actor."));
    }
    let delegation = joined(subject, &actor.agent)?;
    let agreed = match &subject.principal.identity {
        Identity::User(person) => agreed(context, &person.user, subject, &actor.agent).await?,
        Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => None,
    };
    let server = match request.target {
        None => None,
        Some(named) => {
            let client = AuthenticatedClient::Agent(actor.agent.clone());
            Some(target::resolve(context, &client, named).await?)
        }
    };
    let before = match &bound_to {
        Some(before) if server.as_ref().map(|server| &server.server_id) != Some(&before.server_id) => {
            stood_on(context, subject).await?
        }
        Some(_) | None => Vec::new(),
    };
    let consents_to = Bounds { begun: agreed.as_deref(), stood_on: &before };
    let usable = usable(subject, bound_to.as_deref());
    let scope = scope(request, &usable, actor, &delegation, consents_to, server.as_deref())?;
    let sources = [&*subject.claims, &*actor.claims];
    let agents: Vec<_> = delegation.agents().map(|agent| &**agent).collect();
    let envelopes = envelopes(&sources, &agents, request.budget.as_ref())?;
    let longest = server.as_ref().map_or(u32::MAX, |server| server.token_lifetime).min(DELEGATED_LIFETIME);
    Ok(Exchange {
        holder: Holder::Chain(delegation),
        resource: server.map_or(Resource::Own, Resource::Mcp),
        scope,
        lifetime: lifetime(context, &sources, longest)?,
        ancestors: ancestors(context, &sources)?,
        consents: consents(&subject.claims.lin.consents, agreed.as_deref()),
        via: via(subject, &actor.agent),
        may_act: subject.claims.may_act.clone(),
        workload: None,
        test: subject.claims.test || actor.claims.test,
        envelopes,
        price: Price::OneCall,
    })
}

/// The subject must be meant for this server, or for a resource whose registered party takes part. A client that
/// authenticated must be a party. The resource, if there is one.
async fn check_parties(
    context: &GrantContext<'_>,
    subject: &Token,
    actor: &Agent,
) -> Result<Option<Arc<McpServer>>, TokenError> {
    let bound_to = match &subject.claims.mcp_server_id {
        None => None,
        Some(id) => context.stores.mcp_servers.find(context.org(), McpServerKey::ServerId(id)).await?,
    };
    let registered = bound_to.as_ref().and_then(|server| server.resource_client_id.as_ref());
    let client = context.client.map(AuthenticatedClient::client_id);
    let is_registered = |id: &ClientId| registered == Some(id);
    let audience_takes_part = is_registered(&actor.client_id) || client.is_some_and(is_registered);
    if !subject.claims.is_for_own_routes() && !audience_takes_part {
        return Err(TokenError::InvalidGrant("The subject token is for another audience."));
    }
    let is_party =
        |id: &ClientId| *id == actor.client_id || *id == subject.claims.client_id || is_registered(id);
    if client.is_some_and(|id| !is_party(id)) {
        return Err(TokenError::InvalidGrant("The client is no party to this exchange."));
    }
    Ok(bound_to)
}

/// The chain of `subject` with `actor` at its end.
fn joined(subject: &Token, actor: &Arc<Agent>) -> Result<Delegation, TokenError> {
    let refused = TokenError::InvalidGrant("The subject token is not acceptable.");
    let (represented, mut actors) = match (&subject.principal.delegation, &subject.principal.identity) {
        (Some(chain), _) => (chain.represented.clone(), chain.actors.clone()),
        (None, Identity::User(person)) => (Represented::User(person.user.clone()), Vec::new()),
        (None, Identity::Agent(agent)) => (Represented::Agent(agent.clone()), Vec::new()),
        (None, Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_)) => return Err(refused),
    };
    match actors.last() {
        None if !actor.may_delegate() => {
            let text =
                "The agent holds no capability to act for others (delegate:on_behalf or delegate:user).";
            return Err(TokenError::DelegationNotAllowed(text));
        }
        Some(last) if !last.may_delegate() => {
            let text = "The agent that hands the work on holds no capability to delegate.";
            return Err(TokenError::DelegationNotAllowed(text));
        }
        None | Some(_) => {}
    }
    let joined = Delegation { represented, actors: Vec::new() };
    if joined.agents().chain(&actors).any(|agent| agent.id == actor.id) {
        return Err(TokenError::InvalidRequest("The actor is in the chain already."));
    }
    if actors.len() >= MAX_ACTORS {
        return Err(TokenError::DepthExceeded);
    }
    actors.push(actor.clone());
    Ok(Delegation { actors, ..joined })
}

/// The consent by which `actor` begins to act for a person; `None` if the subject token was made for it, or an administrator
/// answers for everybody.
async fn agreed(
    context: &GrantContext<'_>,
    user: &User,
    subject: &Token,
    actor: &Agent,
) -> Result<Option<Arc<Consent>>, TokenError> {
    let implicit = actor.delegation_consent == DelegationConsent::Implicit;
    if implicit || subject.claims.client_id == actor.client_id {
        return Ok(None);
    }
    let key = ConsentKey::Between(user.id, &actor.client_id);
    match context.stores.consents.find(context.org(), key).await? {
        Some(consent) if consent.holds_for(actor.created_at) => Ok(Some(consent)),
        Some(_) | None => Err(TokenError::ConsentRequired),
    }
}

/// The consents that `subject` stands on.
async fn stood_on(context: &GrantContext<'_>, subject: &Token) -> Result<Vec<Arc<Consent>>, TokenError> {
    let mut consents = Vec::new();
    for used in &subject.claims.lin.consents {
        let found = context.stores.consents.find(context.org(), ConsentKey::Id(used.id)).await?;
        consents.push(found.ok_or(TokenError::ConsentRequired)?);
    }
    Ok(consents)
}

/// What of the scope of `subject`, which is bound to `server`, it can still be used for. Of the agents of a chain that is
/// seen to with the rest of the chain.
fn usable(subject: &Token, server: Option<&McpServer>) -> Scope {
    match &subject.principal.identity {
        Identity::User(person) => still_allowed(&person.client, server, &subject.claims.scope),
        Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => {
            subject.claims.scope.clone()
        }
    }
}

/// The consents that bound what is handed on.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    /// By which the actor begins to act for the person. Literally: people agree to what they read.
    begun: Option<&'a Consent>,
    /// On which it was handed here. What they come to: it may have been narrowed on the way.
    stood_on: &'a [Arc<Consent>],
}

impl Bounds<'_> {
    fn allow(&self, place: Option<&Place>, item: &Capability) -> bool {
        let goes_on = |consent: &Arc<Consent>| {
            consent.lets_act(place, item) || (!is_identity_scope(item) && consent.reaches(place, item))
        };
        self.begun.is_none_or(|consent| consent.lets_act(place, item)) && self.stood_on.iter().all(goes_on)
    }
}

fn scope(
    request: &Request<'_>,
    usable: &Scope,
    actor: &Actor,
    delegation: &Delegation,
    consents: Bounds<'_>,
    server: Option<&McpServer>,
) -> Result<Scope, TokenError> {
    let place = server.map(|server| Place::Mcp(server.server_id.clone()));
    let vocabulary = server.map_or(&[][..], |server| &server.scopes_supported);
    let mut others = vec![actor.claims.scope.as_slice()];
    if !vocabulary.is_empty() {
        others.push(vocabulary);
    }
    let agents: Vec<_> = delegation.agents().collect();
    let mut scope = narrowed(&agents, request.scope.as_ref(), usable, &others)?;
    let consented = |item: &Capability| consents.allow(place.as_ref(), item);
    if request.scope.is_some() {
        if !scope.as_slice().iter().all(consented) {
            return Err(TokenError::ConsentRequired);
        }
    } else {
        // A person's token may carry these for whoever signed them in, and no agent needs them. Nobody asked for them when
        // nobody asked for a scope.
        let wanted = |item: &&Capability| consented(item) && !is_identity_scope(item);
        scope = Scope::new(scope.as_slice().iter().filter(wanted).cloned());
    }
    if scope.is_empty() && !vocabulary.is_empty() {
        return Err(TokenError::InvalidScope("of this server".to_owned()));
    }
    Ok(scope)
}

/// The client that a person's token was issued to: what it hands out ends with it.
fn via(subject: &Token, actor: &Agent) -> Option<ClientEpoch> {
    match &subject.principal.identity {
        Identity::User(person) if *person.client.client_id() != actor.client_id => {
            Some(ClientEpoch { id: person.client.client_id().clone(), epoch: person.client.epoch() })
        }
        Identity::User(_) => None,
        Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => {
            subject.claims.lin.via.clone()
        }
    }
}

fn consents(before: &[ConsentEpoch], agreed: Option<&Consent>) -> Vec<ConsentEpoch> {
    let mut consents = before.to_vec();
    if let Some(consent) = agreed {
        let used = ConsentEpoch { id: consent.id, epoch: consent.epoch };
        if !consents.contains(&used) {
            consents.push(used);
        }
    }
    consents
}
