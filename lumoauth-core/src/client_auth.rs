//! Who calls the token, revocation and introspection endpoints (RFC 6749 section 2.3).
//!
//! 1. Credentials come by HTTP Basic or in the body, never both ways.
//! 2. A `Bearer` header is not client authentication and is ignored here.
//! 3. A wrong secret, an unknown client, an inactive one and one that may not use a secret give one and the
//!    same answer, after the same work.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;

use crate::{
    agent::Agent,
    capability::{Capability, Scope, narrow},
    client::{Client, Secrets},
    clock::Timestamp,
    id::{ClientId, OrgId},
    secret::Secret,
    store::{AgentKey, ClientKey, StoreError, Stores},
    wire::Params,
};

/// Client credentials as they were presented.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Presented {
    /// The client id.
    pub client_id: String,
    /// The secret, if one was presented.
    pub secret: Option<Secret>,
    /// How it was presented.
    pub method: Method,
}

/// How credentials were presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the challenge depends on it")]
pub enum Method {
    /// HTTP Basic.
    Basic,
    /// Form parameters.
    Body,
}

/// The presented credentials cannot even be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "each has its own answer")]
pub enum Unreadable {
    /// A Basic header that is not one.
    #[error("malformed basic credentials")]
    Malformed,
    /// Two methods at once.
    #[error("two client authentication methods")]
    TwoMethods,
}

/// A client that proved who it is.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "every sort of client must be handled by every grant")]
pub enum AuthenticatedClient {
    /// An agent.
    Agent(Arc<Agent>),
    /// An ordinary client.
    Client(Arc<Client>),
}

impl AuthenticatedClient {
    /// The scope of a token for it, within what it may ask for and within `others`.
    ///
    /// # Errors
    /// The first requested item that it may not have.
    pub fn narrow(&self, requested: Option<&Scope>, others: &[&[Capability]]) -> Result<Scope, Capability> {
        match self {
            Self::Agent(agent) => agent.narrow(requested, others),
            Self::Client(client) => {
                let bounds: Vec<_> = others.iter().copied().chain([&client.allowed_scopes[..]]).collect();
                narrow(requested, &bounds)
            }
        }
    }

    /// Its epoch: raised whenever all its tokens must die.
    pub fn epoch(&self) -> u32 {
        match self {
            Self::Agent(agent) => agent.epoch,
            Self::Client(client) => client.epoch,
        }
    }

    /// Where an authorization response to it may go.
    pub fn redirect_uris(&self) -> &[String] {
        match self {
            Self::Agent(agent) => &agent.redirect_uris,
            Self::Client(client) => &client.redirect_uris,
        }
    }

    /// Its display name.
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(agent) => &agent.name,
            Self::Client(client) => &client.name,
        }
    }

    /// Its client id.
    pub fn client_id(&self) -> &ClientId {
        match self {
            Self::Agent(agent) => &agent.client_id,
            Self::Client(client) => &client.client_id,
        }
    }
}

/// Reads the credentials of a request; `None` if it has none.
///
/// # Errors
/// [`Unreadable`] if they are malformed or given twice.
pub fn presented(
    authorization: Option<&HeaderValue>,
    params: &Params,
) -> Result<Option<Presented>, Unreadable> {
    let in_body = params.get("client_id");
    match authorization.and_then(basic_part) {
        Some(encoded) => {
            let (client_id, secret) = decode_basic(encoded)?;
            if params.get("client_secret").is_some() || in_body.is_some_and(|id| id != client_id) {
                return Err(Unreadable::TwoMethods);
            }
            Ok(Some(Presented { client_id, secret: Some(secret), method: Method::Basic }))
        }
        None => Ok(in_body.map(|client_id| Presented {
            client_id: client_id.to_owned(),
            secret: params.secret("client_secret"),
            method: Method::Body,
        })),
    }
}

/// What follows the word `Basic`, if that is the scheme.
fn basic_part(header: &HeaderValue) -> Option<&[u8]> {
    let bytes = header.as_bytes();
    let (scheme, rest) = bytes.split_at_checked(5)?;
    (scheme.eq_ignore_ascii_case(b"basic") && rest.first().is_none_or(|b| *b == b' '))
        .then(|| rest.trim_ascii())
}

/// Both halves are form-encoded inside the base64 (RFC 6749 section 2.3.1).
fn decode_basic(encoded: &[u8]) -> Result<(String, Secret), Unreadable> {
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = zeroize::Zeroizing::new(text.ok_or(Unreadable::Malformed)?);
    let (id, secret) = text.split_once(':').ok_or(Unreadable::Malformed)?;
    let unescape = |part: &str| {
        let value = format!("v={}", part.replace('&', "%26"));
        url::form_urlencoded::parse(value.as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .ok_or(Unreadable::Malformed)
    };
    Ok((unescape(id)?, Secret::from(unescape(secret)?)))
}

/// What presented credentials prove.
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Proof {
    /// The client is who it says.
    Proven(AuthenticatedClient),
    /// A public client said who it is; it has nothing to prove it with.
    Public(Arc<Client>),
    /// Nothing. The client that was claimed, if there is one, is for the audit log only.
    Nothing(Option<AuthenticatedClient>),
}

/// Looks up and verifies `presented`.
///
/// # Errors
/// [`StoreError`] if the stores cannot answer.
pub async fn authenticate(
    stores: &Stores,
    org: &OrgId,
    presented: &Presented,
    now: Timestamp,
) -> Result<Proof, StoreError> {
    let nobody = Secrets::default();
    let no_secret = Secret::from("");
    let secret = presented.secret.as_ref().unwrap_or(&no_secret);
    let proof = |accepted, usable, client: Option<AuthenticatedClient>| match client {
        Some(client) if accepted && usable => Proof::Proven(client),
        client => Proof::Nothing(client),
    };
    match ClientId::parse(&presented.client_id).ok() {
        Some(id) if id.is_app() => {
            let client = stores.clients.find(org, ClientKey::ClientId(&id)).await?;
            let accepted = client.as_ref().map_or(&nobody, |client| &client.secrets).accept(secret, now);
            Ok(match client {
                Some(client) if !client.confidential && client.active && presented.secret.is_none() => {
                    Proof::Public(client)
                }
                client => {
                    let usable = client.as_ref().is_some_and(|client| client.active && client.confidential);
                    proof(accepted, usable, client.map(AuthenticatedClient::Client))
                }
            })
        }
        Some(id) => {
            let agent = stores.agents.find(org, AgentKey::ClientId(&id)).await?;
            let accepted = agent.as_ref().map_or(&nobody, |agent| &agent.secrets).accept(secret, now);
            let usable =
                agent.as_ref().is_some_and(|agent| agent.is_active() && agent.identity_type.may_use_secret());
            Ok(proof(accepted, usable, agent.map(AuthenticatedClient::Agent)))
        }
        None => {
            let _ = nobody.accept(secret, now);
            Ok(Proof::Nothing(None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: Option<&str>, body: &str) -> Result<Option<Presented>, Unreadable> {
        let header = header.map(|text| HeaderValue::from_str(text).unwrap());
        presented(header.as_ref(), &Params::from_form(body.as_bytes()).unwrap())
    }

    #[test]
    fn basic_and_body_are_read_alike() {
        let basic = read(Some(&format!("basic {}", STANDARD.encode("a%3Ab:s%20+c"))), "").unwrap().unwrap();
        assert_eq!((basic.client_id.as_str(), basic.secret.unwrap().expose()), ("a:b", "s  c"));
        let body = read(None, "client_id=a&client_secret=s").unwrap().unwrap();
        assert_eq!((body.client_id.as_str(), body.secret.unwrap().expose()), ("a", "s"));
    }

    #[test]
    fn two_methods_are_refused() {
        let header = format!("Basic {}", STANDARD.encode("a:s"));
        assert_eq!(read(Some(&header), "client_secret=s").unwrap_err(), Unreadable::TwoMethods);
        assert_eq!(read(Some(&header), "client_id=b").unwrap_err(), Unreadable::TwoMethods);
        assert!(read(Some(&header), "client_id=a").is_ok());
    }

    #[test]
    fn other_schemes_are_no_client_authentication() {
        assert!(read(Some("Bearer abc"), "").unwrap().is_none());
        assert!(read(Some("Basically abc"), "").unwrap().is_none());
    }

    #[test]
    fn malformed_basic_is_refused() {
        for bad in ["Basic", "Basic ", "Basic !!!", "Basic YWJj", "Basic /w==", "Basic YTpi YTpi"] {
            assert_eq!(read(Some(bad), "").unwrap_err(), Unreadable::Malformed, "{bad}");
        }
    }
}
