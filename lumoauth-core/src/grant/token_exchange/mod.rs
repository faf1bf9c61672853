//! Token exchange (RFC 8693): a token for another one with less authority, or with one more actor.
//!
//! | file | exchange |
//! |---|---|
//! | `presented` | what the request presents, verified |
//! | `delegate` | with an actor: an agent acts for a person or an agent, or joins a chain |
//! | `narrow` | without: a token for an MCP server, or one with a narrower scope |
//! | `bounds` | what both have in common: scope, life and ancestry of the new token |
//! | `record` | what the audit log says |
//!
//! 1. What a token is comes from its verified claims and from our records, never from the type that the request declares.
//! 2. The tokens authenticate the request. Client authentication may be sent too, and must then be of a party to it. A
//!    person's token without an actor is exchanged only for the client that it was issued to. So whoever holds a token of
//!    a person and one of an agent can join them, which is why delegated tokens live 15 minutes at most.
//! 3. Authority only shrinks: every item of the new scope is covered by the subject token, the actor token, and what every
//!    agent of the chain may do now. The new token ends no later than what it comes from, except an agent's own token for
//!    an MCP server, which is a fresh grant to the same agent.
//! 4. It carries the handles, consents and epochs of everything that it comes from, so that revoking any of that ends it.
//!    They are all read once more after the decision, from the stores themselves.
//! 5. A token that is bound to a resource is exchanged only by the party that is registered for that resource, and only to
//!    add an actor: otherwise a resource could act as whoever calls it.
//! 6. Whoever asks may be kept to some addresses: the actor, or without one the agent whose token it is. What an agent
//!    handed on may come from elsewhere.
//! 7. An acting exchange is charged one API call, to every agent of the chain that has a budget, after everything else
//!    that can refuse has passed. Narrowing a token is free.

mod bounds;
mod delegate;
mod narrow;
mod presented;
mod record;
#[cfg(test)]
mod tests;

use async_trait::async_trait;

use self::{
    bounds::Exchange,
    presented::{Presented, Request},
};
use super::{Grant, GrantContext, TokenError, TokenResponse, issue_alive, workload};
use crate::wire::Params;

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";

/// The `token-exchange` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TokenExchange;

#[async_trait]
impl Grant for TokenExchange {
    fn grant_type(&self) -> &'static str {
        GRANT_TYPE
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        record::begun(context, params);
        let response = match presented::read(context, params).await? {
            Presented::Workload { token, issuer } => {
                workload::exchange(context, token, issuer, params).await?
            }
            Presented::Ours(request) => {
                record::parties(context, &request);
                request.check_address(context)?;
                let exchange = decide(context, &request).await?;
                let remaining = exchange.charge(context).await?;
                let events = record::events(context, &exchange);
                let response = issue_alive(context, exchange.new_token()).await?;
                // Signed, but not out of our hands: the token leaves when its event is durable.
                context.append(&events).await?;
                TokenResponse { remaining, ..response }
            }
        };
        Ok(TokenResponse { issued_token_type: Some(ACCESS_TOKEN), ..response })
    }
}

async fn decide(context: &GrantContext<'_>, request: &Request<'_>) -> Result<Exchange, TokenError> {
    match &request.actor {
        Some(actor) => delegate::decide(context, request, actor).await,
        None => narrow::decide(context, request).await,
    }
}
