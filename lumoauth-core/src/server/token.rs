//! The token endpoint, and client authentication for its neighbours.

use http::HeaderValue;

use super::AuthorizationServer;
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    client_auth::{self, AuthenticatedClient, Method, Unreadable},
    clock::Timestamp,
    grant::{TokenError, TokenResponse},
    organization::Organization,
    store::StoreError,
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
        let presented = client_auth::presented(request.authorization, request.params).map_err(|error| {
            match error {
                Unreadable::Malformed => TokenError::InvalidClient(Method::Basic),
                Unreadable::TwoMethods => {
                    TokenError::InvalidRequest("Use one client authentication method only.")
                }
            }
        })?;
        let Some(presented) = presented else { return Ok(None) };
        let org = &organization.id;
        match client_auth::authenticate(self.stores(), org, &presented, now).await? {
            Some(client) => Ok(Some(client)),
            None => {
                self.record_failed_client(organization, &presented.client_id, request.origin, now).await?;
                Err(TokenError::InvalidClient(presented.method))
            }
        }
    }

    /// What is recorded does not depend on whether the client exists, and neither does the work.
    async fn record_failed_client(
        &self,
        organization: &Organization,
        claimed: &str,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let claimed: String = claimed.chars().filter(|c| !c.is_control()).take(128).collect();
        let actor = Actor::new(ActorKind::Unknown, claimed.as_str());
        let event = Event::new(EventKind::AgentAuthenticated, actor, "client authentication failed", now)
            .on(Target::new("client", claimed))
            .by_method("client_credentials")
            .from_origin(origin)
            .failed("invalid_client");
        self.stores().audit.append(&organization.id, &[event]).await
    }
}
