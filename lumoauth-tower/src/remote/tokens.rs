//! Whose tokens a service accepts that is not in the process of the authorization server.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    foreign_keys::{ForeignKeys, KeySource},
    principal::RemoteCaller,
    secret::Secret,
    server::AuthenticateError,
    token::{InvalidToken, RemoteToken},
};

use super::{RemoteServer, ServiceAccount, answers::Answers};

/// The access tokens of a [`RemoteServer`], verified in one of two ways.
///
/// Both refuse everything that is not an access token, of this issuer, for this resource, and in its time, every token that
/// was made for a task (except [where details are asked for](Self::verify_for_details)), and every token that is bound to a
/// key, since nobody here checks whether it is held; while the server cannot be asked what must be asked, the answer is 503
/// and nobody passes. Clones share what they know.
#[derive(Clone, Debug)]
#[must_use]
pub struct RemoteTokens(How);

#[derive(Clone, Debug)]
enum How {
    Keys(RemoteServer, Arc<ForeignKeys>),
    Introspection(Arc<Answers>),
}

impl RemoteTokens {
    /// By signature, with the keys that the server publishes. **What is revoked is accepted until it expires**: this is for
    /// tokens with a short life, or for routes that do no harm.
    ///
    /// A key that the server removed is refused within five minutes, and while it does not answer the keys it had are used
    /// for up to an hour.
    pub fn by_keys(server: RemoteServer) -> Self {
        let keys = ForeignKeys::new(server.http().clone());
        Self(How::Keys(server, Arc::new(keys)))
    }

    /// By asking the server (RFC 7662). What is revoked is refused within a second, and what the caller lost since the token
    /// was issued is gone from its scope.
    pub fn by_introspection(account: ServiceAccount) -> Self {
        Self::by_introspection_within(account, Duration::from_secs(1))
    }

    /// The same, with answers that are used for `staleness` at most: that long a revocation goes unseen. Zero asks at each
    /// request.
    pub fn by_introspection_within(account: ServiceAccount, staleness: Duration) -> Self {
        Self(How::Introspection(Arc::new(Answers::new(account, staleness))))
    }

    /// The caller behind `token`, which must be bound to `resource`.
    ///
    /// # Errors
    /// [`AuthenticateError`] if it proves nobody here, or nobody can say.
    pub async fn verify(&self, token: &str, resource: &str) -> Result<RemoteCaller, AuthenticateError> {
        self.verify_at(token, resource, false).await
    }

    /// The caller behind `token` where `resource` asks for authorization details: the token was made for a task, for this
    /// resource or for no place in particular; or it says at least who calls, so that whoever has no details yet hears which
    /// are missing. By introspection only what the server tells this service of is known: tokens that name the resource.
    ///
    /// # Security
    /// It says who calls and nothing else: whoever asks must look at [`RemoteCaller::authorization_details`].
    ///
    /// # Errors
    /// [`AuthenticateError`] if it proves nobody here, or nobody can say.
    pub async fn verify_for_details(
        &self,
        token: &str,
        resource: &str,
    ) -> Result<RemoteCaller, AuthenticateError> {
        self.verify_at(token, resource, true).await
    }

    pub(crate) async fn verify_at(
        &self,
        token: &str,
        resource: &str,
        details: bool,
    ) -> Result<RemoteCaller, AuthenticateError> {
        match &self.0 {
            How::Keys(server, keys) => {
                let read = RemoteToken::read(token).map_err(refused)?;
                // Nobody else's keys are looked at, and nothing is fetched for tokens of others.
                if read.issuer() != Some(server.issuer()) {
                    return Err(refused(InvalidToken::WrongIssuer));
                }
                let now = server.now();
                let source = KeySource::Issuer(server.issuer());
                let keys = keys.keys(source, read.kid(), now).await;
                let keys = keys.map_err(|error| AuthenticateError::Remote(Box::new(error)))?;
                let claims = if details {
                    read.verify_for_details(&keys, server.issuer(), resource, now)
                } else {
                    read.verify(&keys, server.issuer(), resource, now)
                };
                RemoteCaller::of_claims(claims.map_err(refused)?, Secret::from(token)).map_err(refused)
            }
            How::Introspection(answers) => answers.caller(token, resource, details).await,
        }
    }
}

pub(super) fn refused(error: InvalidToken) -> AuthenticateError {
    match error {
        // Somebody's client, or this service, is set up wrongly.
        InvalidToken::Bound => tracing::warn!(%error, "token not accepted"),
        error => tracing::debug!(%error, "token not accepted"),
    }
    AuthenticateError::Refused
}
