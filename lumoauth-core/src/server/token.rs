//! The token endpoint, and client authentication for its neighbours.

use http::HeaderValue;

use super::AuthorizationServer;
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    client_auth::{self, AuthenticatedClient, Method, Proof, Unreadable},
    clock::Timestamp,
    grant::{TokenError, TokenResponse},
    organization::Organization,
    wire::Params,
};

/// A request to the token, revocation or introspection endpoint.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "transports build it")]
pub struct TokenRequest<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a HeaderValue>,
    /// The parameters of the body.
    pub params: &'a Params,
    /// Where the request came from.
    pub origin: &'a Origin,
}

impl AuthorizationServer {
    /// Serves the token endpoint (RFC 6749 section 3.2).
    ///
    /// # Errors
    /// [`TokenError`] says why there is no token.
    pub async fn token(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<TokenResponse, TokenError> {
        let now = self.now();
        let grant_type =
            request.params.get("grant_type").ok_or(TokenError::InvalidRequest("grant_type is required."))?;
        let grant = self.inner.grants.get(grant_type).ok_or(TokenError::UnsupportedGrantType)?;
        let client = self.authenticate_client(organization, request, now).await?;
        let issuer = self.issuer(&organization.id);
        if !organization.is_active() {
            return Err(TokenError::InvalidClient(Method::Body));
        }
        let context = self.grant_context(organization, &issuer, client.as_ref(), request.origin, now);
        grant.handle(&context, request.params).await
    }

    /// The client that the request authenticates; `None` if it has no client credentials at all.
    pub(super) async fn authenticate_client(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        now: Timestamp,
    ) -> Result<Option<AuthenticatedClient>, TokenError> {
        let presented =
            client_auth::presented(request.authorization, request.params).map_err(|error| match error {
                Unreadable::Malformed => TokenError::InvalidClient(Method::Basic),
                Unreadable::TwoMethods => {
                    TokenError::InvalidRequest("Use one client authentication method only.")
                }
            })?;
        let Some(presented) = presented else { return Ok(None) };
        let org = &organization.id;
        match client_auth::authenticate(self.stores(), org, &presented, now).await? {
            Proof::Proven(client) => Ok(Some(client)),
            // Every grant and endpoint here acts for a client that has proven who it is.
            Proof::Public(_) => Err(TokenError::UnauthorizedClient),
            Proof::Nothing(claimed) => {
                let target = claimed_target(claimed.as_ref(), &presented.client_id);
                let actor = Actor::new(ActorKind::Unknown, target.id.as_str());
                let event =
                    Event::new(EventKind::AgentAuthenticated, actor, "client authentication failed", now)
                        .on(target)
                        .by_method("client_credentials")
                        .from_origin(request.origin)
                        .failed("invalid_client");
                // The same append for clients that exist and for those that do not: neither the answer nor the
                // work tells them apart.
                self.stores().audit.append(org, &[event]).await?;
                Err(TokenError::InvalidClient(presented.method))
            }
        }
    }
}

/// Whom a failed authentication is about: the known client, or the cleaned text that was sent.
fn claimed_target(claimed: Option<&AuthenticatedClient>, sent: &str) -> Target {
    match claimed {
        Some(AuthenticatedClient::Agent(agent)) => {
            Target::new("agent", agent.id.to_string()).named(&agent.name)
        }
        Some(AuthenticatedClient::Client(client)) => {
            Target::new("client", client.client_id.as_str()).named(&client.name)
        }
        None => Target::new("client", sent.chars().filter(|c| !c.is_control()).take(128).collect::<String>()),
    }
}
