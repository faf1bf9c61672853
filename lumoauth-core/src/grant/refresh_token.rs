//! `refresh_token` (RFC 6749 section 6, RFC 9700 section 4.14): the next access token of an authorization.
//!
//! 1. Each refresh token works once and is answered with its successor; of any number of attempts one wins.
//! 2. The loser of a race, and a retry after an answer was lost, is refused and the family lives: within ten seconds, from
//!    the client that has proven who it is, while the successor was not used. Any other use of an old one ends the family.
//! 3. `scope` narrows the access token, never the refresh token. What the client lost since is gone from both.
//! 4. A token for an MCP server is charged to an agent as in an exchange.

use async_trait::async_trait;

use super::{
    Grant, GrantContext, TokenError, TokenResponse,
    authorization_code::REFRESH_LIFE,
    authorized::{self, answer, charge, check_resource, presenter, standing},
    requested_scope,
};
use crate::{
    audit::EventKind,
    authorize::{Authorized, narrowed, read},
    secret::{Secret, SecretHash},
    store::{FoundRefresh, RefreshToken as Kept, Rotation, UseEvents},
    wire::Params,
};

const GRANT_TYPE: &str = "refresh_token";

/// The longest refresh token that is looked at.
const MAX_TOKEN: usize = 128;

/// The `refresh_token` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RefreshToken;

#[async_trait]
impl Grant for RefreshToken {
    fn grant_type(&self) -> &'static str {
        GRANT_TYPE
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        let (client, proven) = presenter(context, GRANT_TYPE)?;
        let unknown = TokenError::InvalidGrant("The refresh token is unknown, used, revoked or expired.");
        let token = params.get(GRANT_TYPE).ok_or(TokenError::InvalidRequest("refresh_token is required."))?;
        let requested = requested_scope(params)?;
        if token.len() > MAX_TOKEN {
            return Err(unknown);
        }
        let hash = SecretHash::of(token);
        let grants = &context.stores.grants;
        let Some(found) = grants.find_refresh(context.org(), &hash, context.now).await? else {
            return Err(unknown);
        };
        let FoundRefresh { token: found, rotated } = found;
        let authorized: Authorized = read(&found.body)?;
        let own = authorized.client_id == *client.client_id();
        // Of another client's token nothing changes, unless it is an old one: then it was stolen.
        if (!own && !rotated) || grants.any_revoked(context.org(), &[found.family]).await? {
            return Err(unknown);
        }
        // The use of an old one is refused in any case, and must not end at a check before it is noticed.
        let ready = if own && !rotated {
            let mut ready = standing(context, &authorized, &client).await?;
            check_resource(context, params, &client, &authorized).await?;
            ready.scope = narrowed(ready.scope, requested.as_ref())
                .map_err(|item| TokenError::InvalidScope(item.to_string()))?;
            charge(context, &client, &ready).await?;
            Some(ready)
        } else {
            None
        };

        let successor = Secret::generate("rt_");
        let next = Kept {
            hash: successor.hash(),
            family: found.family,
            body: found.body.clone(),
            expires_at: context.now.plus(REFRESH_LIFE),
        };
        let event =
            |kind, message| authorized::event(context, &client, &authorized, kind, message, GRANT_TYPE);
        let used = event(EventKind::TokenRefreshed, "refresh token rotated");
        let reused = event(EventKind::TokenReused, "refresh token used again: its family is revoked");
        let on = UseEvents { used: &used, reused: &reused };
        match grants.rotate(context.org(), &hash, &next, own && proven, context.now, on).await? {
            Rotation::Rotated => {}
            Rotation::Raced | Rotation::Reused | Rotation::Missing => return Err(unknown),
        }
        // A token that was found rotated cannot be rotated again.
        let Some(ready) = ready else { return Err(unknown) };
        let mut response =
            answer(context, &client, &authorized, &ready, found.family, None, GRANT_TYPE).await?;
        response.refresh_token = Some(successor);
        Ok(response)
    }
}
