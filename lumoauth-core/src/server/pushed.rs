//! Requests that are kept, and come back as a `request_uri`: those that clients push (RFC 9126), and those that wait until
//! their person has signed in anew.

use std::time::Duration;

use super::{AuthorizationServer, TokenRequest, authorize::Stop};
use crate::{
    authorize::{Address, AuthorizeError, PushedBody, Request, decide_scope, read, write},
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    grant::{Refusal, TokenError},
    id::OrgId,
    organization::Organization,
    secret::{Secret, SecretHash},
    store::{StoreError, Ticket, TicketPurpose},
};

/// How long a kept request can be used, in seconds: long enough to sign in in between.
const PUSHED_LIFE: u32 = 600;
/// What the URIs of kept requests begin with (RFC 9126 section 2.2).
const REQUEST_URI: &str = "urn:ietf:params:oauth:request_uri:";
/// The longest end of such a URI that is looked at; ours have 43 characters.
const MAX_HANDLE: usize = 64;

/// A pushed request (RFC 9126 section 2.2).
#[derive(Debug, serde::Serialize)]
#[non_exhaustive]
pub struct PushedAuthorization {
    /// Stands for the request at the authorization endpoint.
    pub request_uri: String,
    /// For how long, in seconds.
    pub expires_in: u32,
}

impl AuthorizationServer {
    /// Takes a request before the browser comes with it (RFC 9126). The client authenticates as at the token endpoint; a
    /// public one names itself.
    ///
    /// # Errors
    /// [`TokenError`] if the client does not authenticate, or the request would be refused at the authorization endpoint.
    pub async fn push_authorization(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<PushedAuthorization, TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        match self.push(organization, request, &refusal, now).await {
            Ok(pushed) => Ok(pushed),
            Err(error) => {
                let message = "pushed authorization request refused";
                Err(self.refuse(organization, request.origin, message, refusal, error, now).await)
            }
        }
    }

    async fn push(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<PushedAuthorization, TokenError> {
        let authenticated = self.authenticate_client(organization, request, refusal, now).await?;
        let client = authenticated.either().ok_or(TokenError::InvalidClient(Method::Body))?;
        if !organization.is_active() {
            return Err(TokenError::InvalidClient(Method::Body));
        }
        if request.params.get("request_uri").is_some() {
            return Err(TokenError::InvalidRequest("request_uri cannot be pushed."));
        }
        let address = Address::parse(request.params, &client).map_err(|error| match error {
            AuthorizeError::InvalidRequest(text) => TokenError::InvalidRequest(text),
            _ => TokenError::InvalidRequest("redirect_uri is missing, malformed or not registered."),
        })?;
        let parsed = Request::parse(request.params, &client, address)?;
        let server = match self.resource(organization, &client, &parsed, request.origin, now).await {
            Ok(server) => server,
            Err(Stop::Client(error)) => return Err(error.into()),
            Err(Stop::Person(AuthorizeError::Store(error))) => return Err(error.into()),
            Err(Stop::Person(AuthorizeError::Key(error))) => return Err(error.into()),
            Err(Stop::Person(_)) => return Err(TokenError::InvalidTarget),
        };
        decide_scope(&client, parsed.scope.as_ref(), server.as_deref())?;
        let request_uri = self.keep_request(&organization.id, parsed, None, now).await?;
        Ok(PushedAuthorization { request_uri, expires_in: PUSHED_LIFE })
    }

    /// Keeps a request, and says what stands for it. `sent_at` is when its person was sent to sign in for it.
    async fn keep_request(
        &self,
        org: &OrgId,
        request: Request,
        sent_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let handle = Secret::generate("");
        let ticket = ticket(handle.hash(), &PushedBody { request, sent_at }, now)?;
        self.stores().grants.put_ticket(org, &ticket).await?;
        Ok(format!("{REQUEST_URI}{}", handle.expose()))
    }

    /// The request that `uri` stands for.
    pub(super) async fn kept_request(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        uri: &str,
        now: Timestamp,
    ) -> Result<PushedBody, AuthorizeError> {
        let hash = kept_hash(uri).ok_or(AuthorizeError::RequestUri)?;
        let kept = self.find_kept(&organization.id, &hash, now).await?;
        let mut kept = kept.ok_or(AuthorizeError::RequestUri)?;
        if kept.request.client_id != *client.client_id() {
            return Err(AuthorizeError::RequestUri);
        }
        if !kept.request.address.is_of(client) {
            return Err(AuthorizeError::RedirectUri);
        }
        if kept.sent_at.is_none() && kept.request.minds_the_sign_in() {
            let sent = self.find_kept(&organization.id, &sent_hash(uri), now).await?;
            kept.sent_at = sent.and_then(|sent| sent.sent_at);
        }
        Ok(kept)
    }

    /// Remembers that the person is sent to sign in for this request now, so that only a sign-in after that counts, and
    /// that one does. `uri` is what the request came by, if it was pushed; the result is what it must come back by, if that
    /// is something else.
    pub(super) async fn send_to_sign_in(
        &self,
        org: &OrgId,
        request: &Request,
        uri: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let Some(uri) = uri else {
            return self.keep_request(org, request.clone(), Some(now), now).await.map(Some);
        };
        let (hash, body) = (sent_hash(uri), PushedBody { request: request.clone(), sent_at: Some(now) });
        if let Err(error) = self.stores().grants.put_ticket(org, &ticket(hash, &body, now)?).await {
            // Another window of the same browser may have been first. Its word counts then.
            return if self.find_kept(org, &hash, now).await?.is_some() { Ok(None) } else { Err(error) };
        }
        Ok(None)
    }

    async fn find_kept(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<PushedBody>, StoreError> {
        let found = self.stores().grants.find_ticket(org, TicketPurpose::PushedRequest, hash, now).await?;
        found.map(|found| read(&found.ticket.body)).transpose()
    }
}

fn ticket(hash: SecretHash, body: &PushedBody, now: Timestamp) -> Result<Ticket, StoreError> {
    let expires_at = now.plus(Duration::from_secs(PUSHED_LIFE.into()));
    let purpose = TicketPurpose::PushedRequest;
    Ok(Ticket { purpose, hash, body: write(body)?, expires_at, keep_until: expires_at, family: None })
}

/// Under which hash the request behind this URI is kept.
fn kept_hash(uri: &str) -> Option<SecretHash> {
    uri.strip_prefix(REQUEST_URI).filter(|handle| handle.len() <= MAX_HANDLE).map(SecretHash::of)
}

/// Under which hash it is kept that somebody was sent to sign in for the request behind this URI. No URI leads there: what is
/// hashed is longer than any handle.
fn sent_hash(uri: &str) -> SecretHash {
    SecretHash::of(&format!("somebody was sent to sign in for {uri}"))
}
