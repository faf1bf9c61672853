//! Making an access token.

use std::sync::Arc;

use super::{GrantContext, MAX_SCOPE_BYTES, TokenError, TokenResponse};
use crate::{
    capability::Scope,
    client_auth::AuthenticatedClient,
    id::TokenId,
    keys::KeyPurpose,
    mcp::McpServer,
    secret::Secret,
    store::Handle,
    token::{self, AccessClaims, Audience, Lineage},
};

/// What a new token is bound to.
#[derive(Clone)]
pub(crate) enum Resource {
    /// This server's own routes: the audience is the client itself.
    Own,
    /// An MCP server.
    Mcp(Arc<McpServer>),
}

/// A token that has been decided on.
pub(crate) struct NewToken<'a> {
    pub(crate) holder: &'a AuthenticatedClient,
    pub(crate) resource: Resource,
    pub(crate) scope: Scope,
    /// In seconds.
    pub(crate) lifetime: u32,
    /// Handles of the tokens it comes from.
    pub(crate) ancestors: Vec<Handle>,
    pub(crate) test: bool,
}

/// Signs the token. Everything that must be written has been written by then.
pub(crate) async fn issue(
    context: &GrantContext<'_>,
    new: NewToken<'_>,
) -> Result<TokenResponse, TokenError> {
    if new.scope.text_len() > MAX_SCOPE_BYTES {
        return Err(TokenError::ScopeTooLarge);
    }
    let claims = claims(context, new);
    let signer = context.keys.signer(context.org(), KeyPurpose::AccessToken, context.now).await?;
    let token = token::sign(&*signer, "at+jwt", &claims).await?;
    Ok(TokenResponse {
        access_token: Secret::from(token),
        issued_token_type: None,
        token_type: "Bearer",
        expires_in: claims.exp - claims.iat,
        scope: claims.scope,
    })
}

fn claims(context: &GrantContext<'_>, new: NewToken<'_>) -> AccessClaims {
    let org = context.organization;
    let issued_at = context.now.unix_seconds();
    let (sub, agent, epoch) = match new.holder {
        AuthenticatedClient::Agent(agent) => (agent.subject(), Some(agent), agent.epoch),
        AuthenticatedClient::Client(client) => (client.client_id.to_string(), None, client.epoch),
    };
    let client_id = new.holder.client_id().clone();
    let (aud, mcp_server_id) = match new.resource {
        Resource::Own => (client_id.to_string(), None),
        Resource::Mcp(server) => (server.resource_uri.as_str().to_owned(), Some(server.server_id.clone())),
    };
    AccessClaims {
        iss: context.issuer.to_owned(),
        sub,
        aud: Audience::One(aud),
        client_id,
        agent_id: agent.map(|agent| agent.id),
        agent_name: agent.map(|agent| agent.name.clone()),
        identity_type: if agent.is_some() { "agent" } else { "client" }.into(),
        scope: new.scope,
        organization: org.id.clone(),
        tenant: org.id.clone(),
        mcp_server_id,
        test: new.test,
        iat: issued_at,
        nbf: issued_at,
        exp: issued_at + u64::from(new.lifetime),
        jti: TokenId::generate().to_string(),
        lin: Lineage::new(vec![org.epoch, epoch], new.ancestors),
    }
}
