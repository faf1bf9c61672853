//! The grants of the token endpoint, by `grant_type`.
//!
//! | file | grant |
//! |---|---|
//! | `client_credentials` | RFC 6749 section 4.4: an agent or client as itself |
//! | `token_exchange` | RFC 8693: a token for another audience |
//!
//! A grant parses its own parameters, decides with pure functions, writes what must be written, and only then
//! signs.

mod client_credentials;
mod error;
mod issue;
mod target;
mod token_exchange;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::Serialize;

use crate::{
    audit::Origin,
    capability::Scope,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    id::OrgId,
    keys::{KeyProvider, KeyPurpose},
    organization::Organization,
    principal::Principal,
    secret::Secret,
    store::{StoreError, Stores},
    token::{self, AccessClaims},
    wire::Params,
};

pub use crate::budget_gate::Exhausted;
pub use client_credentials::ClientCredentials;
pub use error::TokenError;
pub use token_exchange::TokenExchange;

pub(crate) use issue::{NewToken, Resource, issue};

/// One grant of the token endpoint.
#[async_trait]
pub trait Grant: fmt::Debug + Send + Sync + 'static {
    /// The `grant_type` it serves.
    fn grant_type(&self) -> &'static str;

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
    /// Where the request came from.
    pub origin: &'a Origin,
    /// The stores.
    pub stores: &'a Stores,
    /// The keys.
    pub keys: &'a dyn KeyProvider,
    /// The time of the request.
    pub now: Timestamp,
}

impl GrantContext<'_> {
    /// The organization's id.
    pub fn org(&self) -> &OrgId {
        &self.organization.id
    }

    /// The live principal of an access token of this organization; `None` if it is not one, for whatever reason.
    ///
    /// # Errors
    /// [`TokenError`] if stores or keys cannot answer.
    pub(crate) async fn principal(&self, token: &str) -> Result<Option<Principal>, TokenError> {
        let keys = self.keys.verifying_keys(self.org(), KeyPurpose::AccessToken, self.now).await?;
        let claims: AccessClaims = match token::verify(token, &keys, self.issuer, self.now) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(%error, "token not accepted");
                return Ok(None);
            }
        };
        match token::principal_of(self.stores, self.organization, Arc::new(claims)).await? {
            Ok(principal) => Ok(Some(principal)),
            Err(dead) => {
                tracing::debug!(%dead, "token is dead");
                Ok(None)
            }
        }
    }

    /// Appends events and waits until they are durable.
    pub(crate) async fn append(&self, event: crate::audit::Event) -> Result<(), StoreError> {
        self.stores.audit.append(self.org(), &[event]).await
    }
}

/// The `scope` parameter, if there is one.
fn requested_scope(params: &Params) -> Result<Option<Scope>, TokenError> {
    params
        .get("scope")
        .map(|text| text.parse().map_err(|_| TokenError::MalformedScope))
        .transpose()
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
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Its life in seconds.
    pub expires_in: u64,
    /// Its scope; always there, since clients split it.
    pub scope: Scope,
}

/// The one place where a secret goes on the wire.
fn expose<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
