//! The port for people: who sits at the browser is for the host to say.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, Response};

use crate::{
    clock::Timestamp, id::UserId, organization::Organization, secret::SecretHash, store::StoreError,
};

/// A person whom the host has recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "hosts build it")]
pub struct SignedIn {
    /// Who it is. The person must be in the store; a blocked one is not believed.
    pub user: UserId,
    /// When the person proved it.
    pub at: Timestamp,
    /// How (RFC 8176), such as `pwd`.
    pub amr: Vec<String>,
    /// What only this browser session has: a hash of its cookie. What a person is asked in one session cannot be answered
    /// from another.
    pub session: SecretHash,
}

/// Recognises people at the authorization endpoint.
///
/// The server asks it who is there, and sends whoever is not signed in to its page. How people prove who they are, and how
/// their session is kept, is the host's business.
#[async_trait]
pub trait UserAuthenticator: fmt::Debug + Send + Sync + 'static {
    /// Who sends a request with these headers, if that is somebody who is signed in to this organization.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be found out now.
    async fn signed_in(
        &self,
        organization: &Organization,
        headers: &HeaderMap,
    ) -> Result<Option<SignedIn>, StoreError>;

    /// What a browser that sent these headers gets to sign in first: a page with a form, or a redirect to one. Afterwards it
    /// must come back to `resume`, the authorization endpoint with its query. That is a path as browsers ask for it: it
    /// begins with [`public_path`](crate::server::AuthorizationServer::public_path).
    ///
    /// A form of this page leads on to the client if the person has agreed before, so its content security policy must
    /// allow that; [`answer_origin`](crate::server::AuthorizationServer::answer_origin) says where that is.
    ///
    /// # Errors
    /// [`StoreError`] if the page cannot be made now.
    async fn sign_in_page(
        &self,
        organization: &Organization,
        headers: &HeaderMap,
        resume: &str,
    ) -> Result<Response<String>, StoreError>;

    /// Where programs that cannot show a page may send people, as a path as browsers ask for it.
    fn sign_in_path(&self, organization: &Organization) -> String;
}
