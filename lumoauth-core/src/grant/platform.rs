//! An agent of AAuth that proved its key: an access token of ours, bound to that key (RFC 8693 in form).
//!
//! It is what `client_credentials` gives, for a key in place of a secret: as itself, within what it may do now, for this server
//! or for an MCP server. There is no grant of this in the token endpoint, since who asks is known by other means there.

use std::sync::Arc;

use super::{
    GrantContext, TokenError, TokenResponse, client_credentials, issue_alive, target, token_exchange,
};
use crate::{agent::Agent, client_auth::AuthenticatedClient, wire::Params};

/// How the audit log calls it.
const METHOD: &str = "aauth";

/// The agent token in a request for a platform token.
///
/// # Errors
/// [`TokenError`] if the request is for something else.
pub(crate) fn agent_token(params: &Params) -> Result<&str, TokenError> {
    let required = |name, text| params.get(name).ok_or(TokenError::InvalidRequest(text));
    if required("grant_type", "grant_type is required.")? != token_exchange::GRANT_TYPE {
        return Err(TokenError::UnsupportedGrantType);
    }
    match required("subject_token_type", "subject_token_type is required.")? {
        token_exchange::JWT | "urn:lumoauth:token-type:agent+jwt" => {}
        _ => return Err(TokenError::UnsupportedTokenType),
    }
    if params.get("actor_token").is_some() || params.get("actor_token_type").is_some() {
        return Err(TokenError::InvalidRequest("An agent proves itself and takes no actor."));
    }
    if params.get("requested_token_type").is_some_and(|wanted| wanted != token_exchange::ACCESS_TOKEN) {
        return Err(TokenError::InvalidRequest("Only access tokens are issued."));
    }
    required("subject_token", "subject_token is required.")
}

/// The token, bound to [`GrantContext::key`].
///
/// # Errors
/// [`TokenError`] says why there is none.
pub(crate) async fn platform_token(
    context: &GrantContext<'_>,
    agent: &Arc<Agent>,
    params: &Params,
) -> Result<TokenResponse, TokenError> {
    let client = AuthenticatedClient::Agent(agent.clone());
    let wanted = target::requested(params)?;
    let decided = client_credentials::decide(context, &client, wanted, params).await?;
    let mut events = client_credentials::events(context, &client, &decided, METHOD);
    if let Some(event) = events.first_mut() {
        event.message = "agent token presented".into();
    }
    let response = issue_alive(context, decided).await?;
    // Signed, but not out of our hands: the token leaves when its event is durable.
    context.append(&events).await?;
    Ok(TokenResponse { issued_token_type: Some(token_exchange::ACCESS_TOKEN), ..response })
}
