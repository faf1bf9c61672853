//! The token endpoint, and client authentication for its neighbours.

use std::sync::Arc;

use http::HeaderValue;

use super::AuthorizationServer;
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    client::Client,
    client_auth::{self, AuthenticatedClient, Desk, Method, Proof, Unreadable},
    clock::Timestamp,
    grant::{GrantContext, Refusal, TokenError, TokenResponse, only_names_agent},
    id::{ClientId, OrgId},
    jwks::Thumbprint,
    organization::Organization,
    principal::client_actor,
    secret::SecretHash,
    store::StoreError,
    token::{
        DpopRequest,
        dpop::{self, InvalidProof},
    },
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
    /// The request itself, for what it may carry of DPoP proofs.
    pub dpop: Option<DpopRequest<'a>>,
    /// Where the request came from.
    pub origin: &'a Origin,
}

/// Who a request to the token endpoint or one of its neighbours is from; at most one of the two.
#[derive(Debug, Default)]
pub(super) struct RequestClient {
    /// The client that proved who it is.
    pub(super) proven: Option<AuthenticatedClient>,
    /// The public client that the request names.
    pub(super) public: Option<Arc<Client>>,
}

impl RequestClient {
    /// Nobody who authenticates as a client.
    pub(super) const NOBODY: Self = Self { proven: None, public: None };

    /// The client, proven or not.
    pub(super) fn either(self) -> Option<AuthenticatedClient> {
        self.proven.or(self.public.map(AuthenticatedClient::Client))
    }
}

impl AuthorizationServer {
    /// Serves the token endpoint (RFC 6749 section 3.2). Every refusal is an entry of the audit log.
    ///
    /// # Errors
    /// [`TokenError`] says why there is no token.
    pub async fn token(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<TokenResponse, TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        match self.issue_token(organization, request, &refusal, now).await {
            Ok(issued) => Ok(issued),
            Err(error) => {
                let message = "token request refused";
                let error = self.refuse(organization, request.origin, message, refusal, error, now).await;
                if !error.is_outage() && !matches!(error, TokenError::TooManyFailures { .. }) {
                    self.record_foreign_tokens(organization, request.params, request.origin).await?;
                }
                Err(error)
            }
        }
    }

    /// Records a request to the token, introspection or revocation endpoint whose parameters cannot even be read, and says
    /// what to answer.
    pub async fn refuse_malformed(
        &self,
        organization: &Organization,
        error: TokenError,
        origin: &Origin,
    ) -> TokenError {
        let message = "malformed request refused";
        self.refuse(organization, origin, message, Refusal::default(), error, self.now()).await
    }

    async fn issue_token(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<TokenResponse, TokenError> {
        let grant_type =
            request.params.get("grant_type").ok_or(TokenError::InvalidRequest("grant_type is required."))?;
        let grant = self.inner.grants.get(grant_type).ok_or(TokenError::UnsupportedGrantType)?;
        let client = self.authenticate_client(organization, request, refusal, now).await?;
        if !organization.is_active() {
            return Err(TokenError::InvalidClient(Method::Body));
        }
        let key = match request.dpop.filter(DpopRequest::has_proof) {
            None => None,
            Some(_) if !grant.binds_keys() => {
                let text = "This grant does not bind tokens to keys: send no DPoP proof.";
                return Err(TokenError::InvalidRequest(text));
            }
            Some(proven) => Some(self.proven_key(organization, proven, refusal, now).await?),
        };
        let issuer = self.issuer(&organization.id);
        let context = self.grant_context(organization, &issuer, &client, request.origin, refusal, now);
        grant.handle(&GrantContext { key, ..context }, request.params).await
    }

    /// The key that the proof of a token request is made by (RFC 9449 section 5).
    async fn proven_key(
        &self,
        organization: &Organization,
        request: DpopRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<Thumbprint, TokenError> {
        let proof = dpop::read(request, self.public_url(), None, now);
        match self.spend(&organization.id, proof, now).await {
            Ok(key) => Ok(key),
            Err(InvalidProof::Store(error)) => Err(error.into()),
            Err(error) => {
                let cause = error.to_string();
                refusal.set(move |event| {
                    event.context.insert("cause".to_owned(), cause.into());
                });
                Err(TokenError::InvalidDpopProof)
            }
        }
    }

    /// The client that the request authenticates or, being public, names.
    pub(super) async fn authenticate_client(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<RequestClient, TokenError> {
        let presented =
            client_auth::presented(request.authorization, request.params).map_err(|error| match error {
                Unreadable::Malformed => TokenError::InvalidClient(Method::Basic),
                Unreadable::UnknownAssertion => TokenError::InvalidClient(Method::Body),
                Unreadable::TwoMethods => {
                    TokenError::InvalidRequest("Use one client authentication method only.")
                }
            })?;
        let issuer = self.issuer(&organization.id);
        let Some(presented) =
            presented.filter(|presented| !only_names_agent(request.params, presented, &issuer))
        else {
            return Ok(RequestClient::default());
        };
        let desk = Desk {
            stores: self.stores(),
            foreign_keys: &self.inner.foreign_keys,
            org: &organization.id,
            issuer: &issuer,
            from: request.origin.ip,
            now,
        };
        let by_assertion = presented.assertion.is_some();
        match desk.authenticate(&presented).await? {
            Proof::Proven(client) => {
                let known = client.clone();
                refusal.set(move |event| {
                    let (kind, target) = described(&known);
                    event.kind = kind;
                    event.actor = client_actor(&known);
                    event.target = Some(target);
                });
                Ok(RequestClient { proven: Some(client), public: None })
            }
            Proof::Public(client) => {
                let (kind, target) = described(&AuthenticatedClient::Client(client.clone()));
                refusal.set(move |event| {
                    event.kind = kind;
                    event.actor = Actor::new(ActorKind::Unknown, target.id.clone());
                    event.target = Some(target);
                });
                Ok(RequestClient { proven: None, public: Some(client) })
            }
            Proof::Nothing { claimed, cause } => {
                let (kind, target) = match &claimed {
                    Some(client) => described(client),
                    None => unknown(&presented.client_id),
                };
                refusal.set(move |event| {
                    event.kind = kind;
                    event.actor = Actor::new(ActorKind::Unknown, target.id.clone());
                    event.target = Some(target);
                    event.message = "client authentication failed".into();
                    if by_assertion {
                        event.auth_method = Some("private_key_jwt".into());
                    }
                    if let Some(cause) = cause {
                        event.context.insert("cause".to_owned(), cause.into());
                    }
                });
                Err(TokenError::InvalidClient(presented.method))
            }
        }
    }

    /// Records a refusal, the same for clients that exist and for those that do not: neither the answer nor the work
    /// tells them apart.
    ///
    /// Whoever fails too often from one address is refused without a row, so that nobody can fill the log by
    /// guessing.
    pub(super) async fn refuse(
        &self,
        organization: &Organization,
        origin: &Origin,
        message: &'static str,
        refusal: Refusal,
        error: TokenError,
        now: Timestamp,
    ) -> TokenError {
        if error.is_outage() {
            return error;
        }
        let nobody = Actor::new(ActorKind::Unknown, "anonymous");
        let mut event = Event::new(EventKind::AgentAuthenticated, nobody, message, now)
            .by_method("client_credentials")
            .from_origin(origin)
            .failed(error.reason());
        refusal.describe(&mut event);
        match self.record_failure(&organization.id, event, now).await {
            Ok(None) => error,
            Ok(Some(resets_at)) => TokenError::TooManyFailures { resets_at, now },
            Err(outage) => outage.into(),
        }
    }

    /// Appends the event, unless its address has failed too often: then the instant from which it may fail again.
    pub(super) async fn record_failure(
        &self,
        org: &OrgId,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if let Some(limit) = self.inner.failure_limit.filter(|_| event.actor.kind == ActorKind::Unknown) {
            let peer = event.origin.ip.map(|ip| ip.to_string()).unwrap_or_default();
            let admission =
                self.stores().rate_limits.take(org, &format!("failed {peer}"), limit, now).await?;
            if !admission.admitted {
                return Ok(Some(admission.resets_at));
            }
        }
        self.stores().audit.append(org, &[event]).await?;
        Ok(None)
    }
}

/// What an event about this client is called, and whom it is about.
fn described(client: &AuthenticatedClient) -> (EventKind, Target) {
    match client {
        AuthenticatedClient::Agent(agent) => (
            EventKind::AgentAuthenticated,
            Target::new("agent", agent.id.to_string()).named(agent.name.clone()),
        ),
        AuthenticatedClient::Client(client) => (
            EventKind::ClientAuthenticated,
            Target::new("client", client.client_id.as_str()).named(&*client.name),
        ),
    }
}

/// A client id that nobody has. It is shown only if it looks like one of ours: people send their secret in its place.
fn unknown(sent: &str) -> (EventKind, Target) {
    let id = ClientId::parse(sent).ok().filter(ClientId::looks_minted);
    let kind = match &id {
        Some(id) if id.is_app() => EventKind::ClientAuthenticated,
        _ => EventKind::AgentAuthenticated,
    };
    let shown = match id {
        Some(id) => id.to_string(),
        None => format!("unknown:{}", SecretHash::of(sent).short()),
    };
    (kind, Target::new("client", shown))
}

#[cfg(test)]
mod tests;
