//! Who calls the token, revocation and introspection endpoints (RFC 6749 section 2.3).
//!
//! 1. Credentials come by HTTP Basic, as a secret in the body or as an assertion in the body, never in two ways.
//! 2. A `Bearer` header is not client authentication and is ignored here.
//! 3. A wrong secret, an unknown client, an inactive one and one that may not use a secret give one and the
//!    same answer, after the same work. Whatever is wrong with an assertion gives that answer too, but the work differs: an
//!    unknown client has no keys to fetch and to check with.
//! 4. An agent may be kept to some methods and addresses. A good credential that comes otherwise gives that answer too, and
//!    nothing that is good for one use is used up by it.

mod assertion;

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;

use self::assertion::AssertionError;
use crate::{
    agent::{Agent, AuthMethod},
    capability::{Capability, Scope, narrow},
    client::{Client, Secrets},
    clock::Timestamp,
    foreign_keys::ForeignKeys,
    id::{AgentId, ClientId, OrgId},
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
    /// The assertion, if one was presented (RFC 7521 section 4.2).
    pub assertion: Option<Secret>,
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
    /// An assertion of unknown type, or half of one.
    #[error("unknown client assertion")]
    UnknownAssertion,
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

    /// The agent that it is.
    pub(crate) fn agent_id(&self) -> Option<AgentId> {
        match self {
            Self::Agent(agent) => Some(agent.id),
            Self::Client(_) => None,
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
    let secret = params.secret("client_secret");
    let assertion = (params.get("client_assertion_type"), params.secret("client_assertion"));
    let asserted = !matches!(assertion, (None, None));
    if let Some(encoded) = authorization.and_then(basic_part) {
        let (client_id, in_header) = decode_basic(encoded)?;
        if secret.is_some() || asserted || in_body.is_some_and(|id| id != client_id) {
            return Err(Unreadable::TwoMethods);
        }
        let presented =
            Presented { client_id, secret: Some(in_header), assertion: None, method: Method::Basic };
        return Ok(Some(presented));
    }
    let assertion = match assertion {
        (None, None) => None,
        _ if secret.is_some() => return Err(Unreadable::TwoMethods),
        (Some(assertion::JWT_BEARER), Some(assertion)) => Some(assertion),
        _ => return Err(Unreadable::UnknownAssertion),
    };
    let client_id = match (&assertion, in_body) {
        (_, Some(id)) => id.to_owned(),
        // What cannot be read names nobody.
        (Some(assertion), None) => assertion::claimed_client(assertion).unwrap_or_default(),
        (None, None) => return Ok(None),
    };
    Ok(Some(Presented { client_id, secret, assertion, method: Method::Body }))
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
    /// Nothing.
    Nothing {
        /// The client that was claimed, if there is one. For the audit log only.
        claimed: Option<AuthenticatedClient>,
        /// What is wrong with its assertion, or why it is refused although its credential is good. For the audit log only.
        cause: Option<String>,
    },
}

/// Where clients present their credentials: what they are checked with.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "whoever authenticates clients must have all of it")]
pub struct Desk<'a> {
    /// The stores.
    pub stores: &'a Stores,
    /// The keys that clients publish.
    pub foreign_keys: &'a ForeignKeys,
    /// The organization.
    pub org: &'a OrgId,
    /// Its issuer.
    pub issuer: &'a str,
    /// The address that the request came from, if it is known.
    pub from: Option<IpAddr>,
    /// The time of the request.
    pub now: Timestamp,
}

impl Desk<'_> {
    /// Looks up and verifies `presented`.
    ///
    /// # Errors
    /// [`StoreError`] if the stores cannot answer.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Proof, StoreError> {
        let client = self.find(&presented.client_id).await?;
        match &presented.assertion {
            Some(assertion) => self.by_assertion(client, assertion).await,
            None => Ok(self.by_secret(client, presented.secret.as_ref())),
        }
    }

    async fn find(&self, client_id: &str) -> Result<Option<AuthenticatedClient>, StoreError> {
        let Ok(id) = ClientId::parse(client_id) else { return Ok(None) };
        if id.is_app() {
            let client = self.stores.clients.find(self.org, ClientKey::ClientId(&id)).await?;
            return Ok(client.map(AuthenticatedClient::Client));
        }
        let agent = self.stores.agents.find(self.org, AgentKey::ClientId(&id)).await?;
        Ok(agent.map(AuthenticatedClient::Agent))
    }

    fn by_secret(&self, client: Option<AuthenticatedClient>, secret: Option<&Secret>) -> Proof {
        let (nobody, no_secret) = (Secrets::default(), Secret::from(""));
        let (secrets, usable, admitted) = match &client {
            Some(AuthenticatedClient::Client(client)) => {
                (&client.secrets, client.active && client.confidential, Ok(()))
            }
            Some(AuthenticatedClient::Agent(agent)) => {
                let admitted = agent.check(AuthMethod::ClientCredentials, self.from);
                (&agent.secrets, agent.is_active(), admitted)
            }
            None => (&nobody, false, Ok(())),
        };
        let accepted = secrets.accept(secret.unwrap_or(&no_secret), self.now) && usable;
        match client {
            Some(AuthenticatedClient::Client(client))
                if !client.confidential && client.active && secret.is_none() =>
            {
                Proof::Public(client)
            }
            Some(client) if accepted && admitted.is_ok() => Proof::Proven(client),
            claimed => {
                let barred = admitted.err().filter(|_| accepted);
                Proof::Nothing { claimed, cause: barred.map(|barred| barred.to_string()) }
            }
        }
    }

    async fn by_assertion(
        &self,
        client: Option<AuthenticatedClient>,
        assertion: &Secret,
    ) -> Result<Proof, StoreError> {
        let Some(client) = client else { return Ok(Proof::Nothing { claimed: None, cause: None }) };
        match assertion::verify(self, &client, assertion).await {
            Ok(()) => Ok(Proof::Proven(client)),
            Err(AssertionError::Store(error)) => Err(error),
            Err(refused) => Ok(Proof::Nothing { claimed: Some(client), cause: Some(refused.to_string()) }),
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
        let assertion = format!("client_assertion=a&client_assertion_type={}", assertion::JWT_BEARER);
        for both in [
            (Some(&*header), assertion.clone()),
            (Some(&*header), "client_assertion=a".to_owned()),
            (Some(&*header), format!("client_assertion_type={}", assertion::JWT_BEARER)),
            (None, format!("{assertion}&client_id=a&client_secret=s")),
            (None, "client_assertion=a&client_secret=s".to_owned()),
        ] {
            assert_eq!(read(both.0, &both.1).unwrap_err(), Unreadable::TwoMethods, "{both:?}");
        }
    }

    #[test]
    fn an_assertion_needs_its_type() {
        let kind = assertion::JWT_BEARER;
        let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
        for bad in [
            "client_assertion=a".to_owned(),
            format!("client_assertion_type={kind}"),
            format!("client_assertion_type={kind}&client_assertion="),
            format!("client_assertion_type={saml}&client_assertion=a&client_id=a"),
        ] {
            assert_eq!(read(None, &bad).unwrap_err(), Unreadable::UnknownAssertion, "{bad}");
        }
        let read = |form: &str| read(Some("Bearer x"), form).unwrap().unwrap();
        let presented = read(&format!("client_assertion_type={kind}&client_assertion=a&client_id=b"));
        assert_eq!((presented.client_id.as_str(), presented.assertion.unwrap().expose()), ("b", "a"));
        assert_eq!(read(&format!("client_assertion_type={kind}&client_assertion=a")).client_id, "");
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
