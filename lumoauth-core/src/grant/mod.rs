//! The grants of the token endpoint, by `grant_type`.
//!
//! | file | grant |
//! |---|---|
//! | `client_credentials` | RFC 6749 section 4.4: an agent or client as itself |
//! | `authorization_code` | RFC 6749 section 4.1: what a person agreed to |
//! | `refresh_token` | RFC 6749 section 6: the next token of that |
//! | `token_exchange` | RFC 8693: a token for one with less authority, or with one more actor |
//! | `workload` | RFC 8693 and RFC 7523 section 2.1: an agent that its platform vouches for |
//!
//! A grant parses its own parameters, decides with pure functions, writes what must be written, and only then
//! signs.

mod authorization_code;
mod authorized;
mod client_credentials;
mod error;
mod id_token;
mod issue;
mod refresh_token;
pub(crate) mod target;
mod token_exchange;
mod workload;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::Serialize;

use crate::{
    audit::{Event, Origin},
    capability::Scope,
    client::Client,
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    fetch::Fetch,
    foreign_keys::ForeignKeys,
    id::OrgId,
    jwks::Thumbprint,
    keys::{KeyProvider, KeyPurpose},
    organization::Organization,
    principal::Principal,
    secret::Secret,
    store::{StoreError, Stores},
    token::{self, InvalidToken, VerifiedTokens},
    wire::Params,
};

pub use crate::spending::Exhausted;
use crate::spending::Remaining;
pub use authorization_code::AuthorizationCode;
pub use client_credentials::ClientCredentials;
pub use error::{MAX_ACTORS, TokenError};
pub use refresh_token::RefreshToken;
pub use token_exchange::TokenExchange;
pub use workload::{AWS_STS_REQUEST, JwtBearer};

pub(crate) use authorization_code::REFRESH_LIFE;
pub(crate) use issue::{Bearer, NewToken, Resource, SignIn, issue, issue_alive};
pub(crate) use workload::{attest, only_names_agent};

/// One grant of the token endpoint. Hosts add their own with
/// [`Builder::with_grant`](crate::server::Builder::with_grant).
///
/// ```
/// use async_trait::async_trait;
/// use lumoauth_core::{
///     capability::Scope,
///     grant::{Grant, GrantContext, TokenError, TokenResponse},
///     wire::Params,
/// };
///
/// /// Gives every authenticated client a token that may do nothing, for one minute.
/// #[derive(Debug)]
/// struct Nothing;
///
/// #[async_trait]
/// impl Grant for Nothing {
///     fn grant_type(&self) -> &'static str {
///         "urn:example:nothing"
///     }
///
///     async fn handle(&self, context: &GrantContext<'_>, _: &Params) -> Result<TokenResponse, TokenError> {
///         context.issue(context.proven_client()?, Scope::default(), 60).await
///     }
/// }
/// ```
#[async_trait]
pub trait Grant: fmt::Debug + Send + Sync + 'static {
    /// The `grant_type` it serves.
    fn grant_type(&self) -> &'static str;

    /// Whether the tokens that it gives are bound to [`GrantContext::key`], if there is one: access and refresh tokens. To any
    /// other grant a request with a DPoP proof is refused, since its client wants a token that nobody can use who steals it.
    fn binds_keys(&self) -> bool {
        false
    }

    /// Decides the request and makes the token.
    ///
    /// # Errors
    /// [`TokenError`] says why there is none.
    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError>;
}

/// What a grant works with: the organization, the caller, the ports and the time of this request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GrantContext<'a> {
    /// The organization; active.
    pub organization: &'a Organization,
    /// Its issuer.
    pub issuer: &'a str,
    /// The client, if the request authenticated one. A request with bad client credentials never gets here.
    pub client: Option<&'a AuthenticatedClient>,
    /// The public client that the request names, which has nothing to prove that by.
    pub public_client: Option<&'a Arc<Client>>,
    /// The key that the client proved to hold (RFC 9449 section 5). Whatever [`GrantContext::issue`] signs is bound to it.
    pub key: Option<Thumbprint>,
    /// Where the request came from.
    pub origin: &'a Origin,
    /// The stores.
    pub stores: &'a Stores,
    /// The keys.
    pub keys: &'a dyn KeyProvider,
    /// The keys that others publish.
    pub foreign_keys: &'a ForeignKeys,
    /// The way out, for what is no key.
    pub fetch: &'a dyn Fetch,
    /// What the audit log says if the request is refused.
    pub refusal: &'a Refusal,
    /// The tokens that were verified before.
    pub(crate) verified: &'a VerifiedTokens,
    /// The time of the request.
    pub now: Timestamp,
}

/// What the event of a refused request says. It begins with what the server knows; a grant that knows more (whose the
/// subject token is) says so before it decides. Nothing is made of it unless the request is refused.
#[derive(Default)]
pub struct Refusal(Mutex<Vec<Amendment>>);

type Amendment = Box<dyn FnOnce(&mut Event) + Send>;

impl Refusal {
    /// Changes what would be recorded.
    pub fn set(&self, change: impl FnOnce(&mut Event) + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(change));
    }

    pub(crate) fn describe(self, event: &mut Event) {
        for change in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            change(event);
        }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").finish_non_exhaustive()
    }
}

impl GrantContext<'_> {
    /// The organization's id.
    pub fn org(&self) -> &OrgId {
        &self.organization.id
    }

    /// The client, for grants that act for nobody else.
    ///
    /// # Errors
    /// [`TokenError`] if the request authenticated none: a public client may not use such a grant.
    pub fn proven_client(&self) -> Result<&AuthenticatedClient, TokenError> {
        match (self.client, self.public_client) {
            (Some(client), _) => Ok(client),
            (None, Some(_)) => Err(TokenError::UnauthorizedClient),
            (None, None) => Err(TokenError::InvalidClient(Method::Body)),
        }
    }

    /// The live principal of an access token of this organization; `None` if it is not one, for whatever reason. A token that
    /// is bound to a key is none here: it came without proof that its holder sent it.
    ///
    /// # Errors
    /// [`TokenError`] if stores or keys cannot answer.
    pub async fn principal(&self, token: &str) -> Result<Option<Principal>, TokenError> {
        let principal = self.described(token).await?;
        if principal.as_ref().and_then(Principal::key).is_some() {
            tracing::debug!(error = %InvalidToken::Bound, "token not accepted");
            return Ok(None);
        }
        Ok(principal)
    }

    /// The same for those who only tell what a token is, and let nobody do anything by it: bound or not.
    ///
    /// # Errors
    /// [`TokenError`] if stores or keys cannot answer.
    pub(crate) async fn described(&self, token: &str) -> Result<Option<Principal>, TokenError> {
        let keys = self.keys.verifying_keys(self.org(), KeyPurpose::AccessToken, self.now).await?;
        let claims = match self.verified.verify(token, &keys, self.issuer, self.now) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(%error, "token not accepted");
                return Ok(None);
            }
        };
        match token::principal_of(self.stores, self.organization, claims).await? {
            Ok(principal) => Ok(Some(principal)),
            Err(dead) => {
                tracing::debug!(%dead, "token is dead");
                Ok(None)
            }
        }
    }

    /// Appends events and waits until they are durable.
    ///
    /// # Errors
    /// [`StoreError`] if they are not; the request must then be refused.
    pub async fn append(&self, events: &[Event]) -> Result<(), StoreError> {
        self.stores.audit.append(self.org(), events).await
    }

    /// Signs a token for this server's own routes, with `scope` and a life of `lifetime` seconds, for `holder`. Whatever
    /// must be written has been written by then.
    ///
    /// # Errors
    /// [`TokenError`] if the scope is too large for a token, or there is no key.
    pub async fn issue(
        &self,
        holder: &AuthenticatedClient,
        scope: Scope,
        lifetime: u32,
    ) -> Result<TokenResponse, TokenError> {
        issue(self, NewToken::new(Bearer::Itself(holder), Resource::Own, scope, lifetime)).await
    }
}

/// The longest text of a scope. A token that carries it stays well below the longest token that is read.
const MAX_SCOPE_BYTES: usize = 6 * 1024;

/// The `scope` parameter, if there is one.
fn requested_scope(params: &Params) -> Result<Option<Scope>, TokenError> {
    if params.get("scope").is_some_and(|text| text.len() > MAX_SCOPE_BYTES) {
        return Err(TokenError::ScopeTooLarge);
    }
    params.get("scope").map(|text| text.parse().map_err(|_| TokenError::MalformedScope)).transpose()
}

/// A token, as the endpoint answers it (RFC 6749 section 5.1, RFC 8693 section 2.2.1).
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TokenResponse {
    /// The token.
    #[serde(serialize_with = "expose")]
    pub access_token: Secret,
    /// What sort of token an exchange made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_token_type: Option<&'static str>,
    /// `Bearer`, or `DPoP` if it is bound to a key.
    pub token_type: &'static str,
    /// Its life in seconds.
    pub expires_in: u64,
    /// Its scope; always there, since clients split it.
    pub scope: Scope,
    /// What gives the next one (RFC 6749 section 6).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose_some")]
    pub refresh_token: Option<Secret>,
    /// Who signed in (OpenID Connect Core section 2).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose_some")]
    pub id_token: Option<Secret>,
    /// What is left of the budget that an acting exchange was charged to.
    #[serde(skip)]
    pub remaining: Remaining,
}

#[expect(clippy::ref_option, reason = "the form that serde calls")]
fn expose_some<S: serde::Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => expose(secret, serializer),
        None => serializer.serialize_none(),
    }
}

/// The one place where a secret goes on the wire.
fn expose<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
