//! `authorization_code` (RFC 6749 section 4.1.3): what a person agreed to, for the client that was agreed to.
//!
//! 1. The client proves who it is, or is public and has a `code_challenge` to answer.
//! 2. The redirect URI and the verifier are those of the request. A verifier without a challenge is refused: somebody took
//!    the challenge out of the request (RFC 9700 section 2.1.1).
//! 3. The person, the client and the consent still stand as they did when the code was made. What the client lost since is
//!    gone. A token for an MCP server is charged to an agent as in an exchange.
//! 4. The code is used, and the refresh token kept, in one step; then the tokens are signed. Of any number of attempts one
//!    wins, and a second use ends everything that came of the first, in the step that notices it. The family is marked for
//!    longer than what it was given last can live ([`Ticket::dead_until`](crate::store::Ticket::dead_until)).

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Grant, GrantContext, TokenError, TokenResponse,
    authorized::{self, answer, charge, check_resource, presenter, standing},
};
use crate::{
    audit::EventKind,
    authorize::{CodeBody, pkce, read, write},
    client_auth::AuthenticatedClient,
    secret::{Secret, SecretHash},
    store::{RefreshToken, TicketPurpose, TicketUse, UseEvents},
    wire::Params,
};

const GRANT_TYPE: &str = "authorization_code";

/// How long a refresh token works after it was made.
pub(crate) const REFRESH_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The longest code that is looked at.
const MAX_CODE: usize = 128;

/// The `authorization_code` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AuthorizationCode;

#[async_trait]
impl Grant for AuthorizationCode {
    fn grant_type(&self) -> &'static str {
        GRANT_TYPE
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        let (client, proven) = presenter(context, GRANT_TYPE)?;
        if !may_use(&client) {
            return Err(TokenError::UnauthorizedClient);
        }
        let unknown = TokenError::InvalidGrant("The code is unknown, used or expired.");
        let code = params.get("code").ok_or(TokenError::InvalidRequest("code is required."))?;
        if code.len() > MAX_CODE {
            return Err(unknown);
        }
        let hash = SecretHash::of(code);
        let purpose = TicketPurpose::AuthorizationCode;
        let grants = &context.stores.grants;
        let Some(found) = grants.find_ticket(context.org(), purpose, &hash, context.now).await? else {
            return Err(unknown);
        };
        let Some(family) = found.ticket.family else { return Err(unknown) };
        let body: CodeBody = read(&found.ticket.body)?;
        if body.authorized.client_id != *client.client_id() {
            return Err(unknown);
        }
        // A public client has named itself and proven nothing.
        let method = if proven { GRANT_TYPE } else { "none" };
        let event =
            |kind, message| authorized::event(context, &client, &body.authorized, kind, message, method);
        let used = match &client {
            AuthenticatedClient::Agent(_) => event(EventKind::AgentAuthenticated, "code redeemed"),
            AuthenticatedClient::Client(_) => event(EventKind::ClientAuthenticated, "code redeemed"),
        };
        let reused = event(EventKind::TokenReused, "code used again: what came of it is revoked");
        let on = UseEvents { used: &used, reused: &reused };
        let mut refresh = None;
        let mut ready = None;
        if !found.used {
            check_redirect(&body, params)?;
            check_verifier(&body, params)?;
            check_resource(context, params, &client, &body.authorized).await?;
            let stands = standing(context, &body.authorized, &client).await?;
            charge(context, &client, &stands).await?;
            ready = Some(stands);
            if body.offline {
                refresh = Some((Secret::generate("rt_"), write(&body.authorized)?));
            }
        }
        let kept = refresh.as_ref().map(|(token, body)| RefreshToken {
            hash: token.hash(),
            family,
            body: body.clone(),
            expires_at: context.now.plus(REFRESH_LIFE),
        });
        match grants.use_ticket(context.org(), purpose, &hash, kept.as_ref(), context.now, on).await? {
            TicketUse::Used => {}
            TicketUse::Reused | TicketUse::Missing => return Err(unknown),
        }
        // A code that was found used cannot come back unused.
        let Some(ready) = ready else { return Err(unknown) };
        let nonce = body.nonce.as_deref();
        let mut response =
            answer(context, &client, &body.authorized, &ready, family, nonce, GRANT_TYPE).await?;
        response.refresh_token = refresh.map(|(token, _)| token);
        Ok(response)
    }
}

/// Agents may; ordinary clients if they are registered for it.
fn may_use(client: &AuthenticatedClient) -> bool {
    match client {
        AuthenticatedClient::Agent(_) => true,
        AuthenticatedClient::Client(client) => client.grant_types.iter().any(|name| name == GRANT_TYPE),
    }
}

fn check_redirect(body: &CodeBody, params: &Params) -> Result<(), TokenError> {
    let fits = match params.get("redirect_uri") {
        Some(uri) => uri == body.redirect_uri,
        None => !body.redirect_named,
    };
    if fits { Ok(()) } else { Err(TokenError::InvalidGrant("redirect_uri is not the one of the request.")) }
}

fn check_verifier(body: &CodeBody, params: &Params) -> Result<(), TokenError> {
    let fits = match (&body.code_challenge, params.get("code_verifier")) {
        (Some(challenge), Some(verifier)) => pkce::verifies(challenge, verifier),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if fits { Ok(()) } else { Err(TokenError::InvalidGrant("code_verifier does not fit the request.")) }
}
