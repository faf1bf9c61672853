//! Whoever holds a token gets one with less authority: bound to an MCP server, or with a narrower scope.
//!
//! 1. The subject must be meant for this server's own routes. A token that is bound to a resource is not exchanged here, by
//!    whomever: that would let the resource act as the agent.
//! 2. An agent's token needs no more than itself; a person's, the client that it was issued to.
//! 3. A chain stays as it is.

use std::sync::Arc;

use super::{
    bounds::{Exchange, Holder, Price, ancestors, envelopes, lifetime, narrowed},
    presented::Request,
};
use crate::{
    agent::Agent,
    authorize,
    capability::Scope,
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    grant::{GrantContext, Resource, SignIn, TokenError, target},
    principal::{Identity, Person},
};

pub(super) async fn decide(
    context: &GrantContext<'_>,
    request: &Request<'_>,
) -> Result<Exchange, TokenError> {
    let refused = TokenError::InvalidGrant("The subject token is not acceptable.");
    let subject = &request.subject;
    let client = context.client.map(AuthenticatedClient::client_id);
    if !subject.claims.is_for_own_routes() || client.is_some_and(|id| *id != subject.claims.client_id) {
        return Err(refused);
    }
    match &subject.principal.identity {
        Identity::User(_) if client.is_none() => Err(TokenError::InvalidClient(Method::Body)),
        Identity::User(person) => for_person(context, request, person),
        Identity::Agent(agent) => for_agent(context, request, agent).await,
        Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => Err(refused),
    }
}

async fn for_agent(
    context: &GrantContext<'_>,
    request: &Request<'_>,
    agent: &Arc<Agent>,
) -> Result<Exchange, TokenError> {
    let subject = &request.subject;
    let client = AuthenticatedClient::Agent(agent.clone());
    let server = match request.target {
        None => None,
        Some(named) => Some(target::resolve(context, &client, named).await?),
    };
    let vocabulary = server.as_ref().map_or(&[][..], |server| &server.scopes_supported);
    let others = if vocabulary.is_empty() { Vec::new() } else { vec![vocabulary] };
    let requested = if server.is_some() { request.scope.as_ref() } else { Some(narrower(request)?) };
    let agents: Vec<_> = subject.principal.agents().collect();
    let scope = narrowed(&agents, requested, &subject.claims.scope, &others)?;
    if scope.is_empty() && !vocabulary.is_empty() {
        return Err(TokenError::InvalidScope("of this server".to_owned()));
    }
    let payers: Vec<_> = agents.iter().map(|agent| &***agent).collect();
    let envelopes = envelopes(&[&subject.claims], &payers, request.budget.as_ref())?;
    let chain = subject.principal.delegation.as_deref().cloned();
    let lifetime = match (&server, &chain) {
        // A fresh grant to the same agent.
        (Some(server), None) => server.token_lifetime,
        (Some(server), Some(_)) => lifetime(context, &[&subject.claims], server.token_lifetime)?,
        (None, _) => lifetime(context, &[&subject.claims], u32::MAX)?,
    };
    Ok(Exchange {
        holder: chain.map_or(Holder::Itself(client), Holder::Chain),
        price: if server.is_some() { Price::OneCall } else { Price::Nothing },
        resource: server.map_or(Resource::Own, Resource::Mcp),
        scope,
        lifetime,
        ancestors: ancestors(context, &[&subject.claims])?,
        consents: subject.claims.lin.consents.clone(),
        via: subject.claims.lin.via.clone(),
        may_act: subject.claims.may_act.clone(),
        workload: subject.claims.workload_identity.clone(),
        test: subject.claims.test,
        envelopes,
    })
}

fn for_person(
    context: &GrantContext<'_>,
    request: &Request<'_>,
    person: &Person,
) -> Result<Exchange, TokenError> {
    let claims = &request.subject.claims;
    if request.target.is_some() {
        // What a person uses, they authorize; what acts for them is an actor.
        return Err(TokenError::InvalidTarget);
    }
    let usable = authorize::still_allowed(&person.client, None, &claims.scope);
    let scope = authorize::narrowed(usable, Some(narrower(request)?))
        .map_err(|item| TokenError::InvalidScope(item.to_string()))?;
    if request.budget.is_some() {
        return Err(TokenError::InvalidRequest("People have no budget: the token of an agent carries one."));
    }
    let sign_in = SignIn {
        at: Timestamp::from_unix_seconds(claims.auth_time.unwrap_or(claims.iat)),
        amr: claims.amr.iter().map(ToString::to_string).collect(),
    };
    Ok(Exchange {
        holder: Holder::User { user: person.user.clone(), client: person.client.clone(), sign_in },
        resource: Resource::Own,
        scope,
        lifetime: lifetime(context, &[claims], u32::MAX)?,
        ancestors: ancestors(context, &[claims])?,
        consents: claims.lin.consents.clone(),
        via: claims.lin.via.clone(),
        may_act: claims.may_act.clone(),
        workload: None,
        test: claims.test,
        envelopes: Vec::new(),
        price: Price::Nothing,
    })
}

/// The scope that a token is narrowed to: without one there is nothing to exchange it for.
fn narrower<'a>(request: &'a Request<'_>) -> Result<&'a Scope, TokenError> {
    let text = "Without an actor, an exchange needs a resource, an audience or a scope.";
    request.scope.as_ref().ok_or(TokenError::InvalidRequest(text))
}
