//! What an agent does about AAuth: it signs its requests, and gets the auth tokens that resources want. Nothing here sends
//! anything; `lumoauth-tower` has a layer that does.
//!
//! # The steps
//!
//! 1. [`AAuthAgent::sign`] signs a request. Without an auth token it goes out with the agent token, which the agent makes
//!    itself and which says by which key it signs.
//! 2. A resource that wants an auth token answers with a [`Challenge`]. [`AAuthAgent::wanted`] reads what it asks for.
//! 3. [`AAuthAgent::token_request`] makes the request for it, to the one authorization server that the agent trusts, and
//!    [`AAuthAgent::read_answer`] reads the answer: tokens, or where a person can agree.
//! 4. The request is signed anew, with the auth token.
//!
//! # Rules
//!
//! - Where tokens come from is configured. A resource that names another authorization server gets nothing, and its challenge
//!   is sent nowhere.
//! - What a resource asks for must be about this agent and this key, and from the resource that was called.
//! - An auth token is used only if it is from the trusted server, for that resource, and bound to this key. Its signature is
//!   the resource's to check.

mod answer;
mod challenge;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderValue, StatusCode, Uri, header, request::Parts};
use serde_json::{Map, Value, json};
use url::{Origin, Url};

use super::{Confirmation, SKEW, TOKEN_LIFE, fields::AGENT_AUTH};
use crate::{
    clock::Timestamp,
    httpsig::{self, Content, Message, Profile, SignError, SignWith, SignatureError},
    id::{AAuthIdentifier, TokenId},
    jwks::{JwkSet, JwsAlgorithm, PublicKey, PublicKeys},
    keys::{Algorithm, KeyError, LocalSigner, Signer},
    token::{self, InvalidToken},
};

pub use answer::{AuthToken, ConsentNeeded, TokenAnswer, TokenRequest};
pub use challenge::{Challenge, Wanted};

/// How long before its end a token is replaced.
const IN_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// Why an agent cannot make its call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The key signs no HTTP messages, or is not the one whose public half was given.
    #[error("the signer does not sign as the agent's public key")]
    Key,
    /// The key cannot be used.
    #[error(transparent)]
    Signer(#[from] KeyError),
    /// The request cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The request does not say where it goes: its URI must be absolute, with `https` or `http`.
    #[error("the URI of the request is not absolute")]
    Target,
    /// The resource sends agents to another authorization server than the one that is trusted. Nothing was sent there.
    #[error("the resource wants tokens of another authorization server than the one that is trusted")]
    OtherAuthServer,
    /// What the resource asks for is not about this agent, this key and itself.
    #[error("the resource token is not usable: {0}")]
    ResourceToken(InvalidToken),
    /// The authorization server answered with a token that is of no use here.
    #[error("the auth token is not usable: {0}")]
    AuthToken(InvalidToken),
    /// The authorization server answered something else than it should.
    #[error("the authorization server gives no usable answer (status {0})")]
    Answer(StatusCode),
    /// The authorization server refuses.
    #[error("the authorization server refuses: {error} (status {status}): {description}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its error code, such as `invalid_scope`.
        error: String,
        /// What it says about it.
        description: String,
    },
}

impl ClientError {
    /// The error code, if the authorization server refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// An agent that signs its requests, and the authorization server that it trusts.
///
/// ```
/// use lumoauth_core::{
///     aauth::client::AAuthAgent,
///     id::{AAuthIdentifier, KeyId},
///     keys::{Algorithm, LocalSigner},
/// };
///
/// let key = LocalSigner::generate(KeyId::parse("key-1")?, Algorithm::EdDsa)?;
/// let agent = AAuthAgent::local(
///     AAuthIdentifier::parse("https://agent.example")?,
///     key,
///     AAuthIdentifier::parse("https://auth.example/orgs/acme/api/v1")?,
/// )?;
/// // What an administrator registers, with the identifier.
/// assert_eq!(agent.jwks()["keys"][0]["kid"], "key-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AAuthAgent {
    identifier: AAuthIdentifier,
    signer: Arc<dyn Signer>,
    algorithm: JwsAlgorithm,
    confirmation: Confirmation,
    /// The same key, for tokens that name it by its thumbprint alone.
    own: PublicKeys,
    auth_server: AAuthIdentifier,
    profile: Profile,
    resources: Vec<(Origin, AAuthIdentifier)>,
    token: Mutex<Option<OwnToken>>,
}

struct OwnToken {
    header: HeaderValue,
    made_at: Timestamp,
}

impl AAuthAgent {
    /// The agent `identifier`, which signs with `signer`, wherever that keeps its key; `public` is the public half, which must
    /// be registered under the key id of `signer`. It takes auth tokens from the issuer `auth_server` and from nobody else:
    /// `https://auth.example/orgs/acme/api/v1`.
    ///
    /// # Errors
    /// [`ClientError::Key`] if the key is RSA or `public` is a key for another algorithm.
    pub fn new(
        identifier: AAuthIdentifier,
        signer: Arc<dyn Signer>,
        public: PublicKey,
        auth_server: AAuthIdentifier,
    ) -> Result<Self, ClientError> {
        let algorithm = match signer.algorithm() {
            Algorithm::EdDsa => JwsAlgorithm::EdDsa,
            Algorithm::Es256 => JwsAlgorithm::Es256,
            Algorithm::Rs256 => return Err(ClientError::Key),
        };
        if !public.verifies_by(algorithm) {
            return Err(ClientError::Key);
        }
        let own = PublicKeys::of(&JwkSet { keys: vec![public.to_jwk()] });
        Ok(Self {
            identifier,
            signer,
            algorithm,
            confirmation: Confirmation::of(public),
            own,
            auth_server,
            profile: Profile::LUMO_RFC,
            resources: Vec::new(),
            token: Mutex::default(),
        })
    }

    /// The same, with a key in this process.
    ///
    /// # Errors
    /// [`ClientError`] if the key is one that nobody should accept.
    pub fn local(
        identifier: AAuthIdentifier,
        signer: LocalSigner,
        auth_server: AAuthIdentifier,
    ) -> Result<Self, ClientError> {
        let public = signer.public_key()?;
        Self::new(identifier, Arc::new(signer), public, auth_server)
    }

    /// Signs under `profile` in place of [`Profile::LUMO_RFC`].
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Says that the resource `identifier` is reached at the origin of `address`. Without this a resource must be reached at
    /// the origin of its identifier.
    ///
    /// # Errors
    /// [`ClientError::Target`] if `address` is no absolute URL.
    pub fn with_resource_at(
        mut self,
        address: &str,
        identifier: AAuthIdentifier,
    ) -> Result<Self, ClientError> {
        let url = Url::parse(address).map_err(|_| ClientError::Target)?;
        self.resources.push((url.origin(), identifier));
        Ok(self)
    }

    /// Its name: the `iss` of its agent tokens.
    pub fn identifier(&self) -> &AAuthIdentifier {
        &self.identifier
    }

    /// The issuer that it takes auth tokens from.
    pub fn auth_server(&self) -> &AAuthIdentifier {
        &self.auth_server
    }

    /// Its public key as it is registered or published (RFC 7517 section 5).
    pub fn jwks(&self) -> Value {
        let mut key = match self.confirmation.key.to_jwk() {
            Value::Object(key) => key,
            _ => Map::new(),
        };
        for (name, value) in
            [("kid", self.signer.key_id().as_str()), ("alg", self.algorithm.as_str()), ("use", "sig")]
        {
            key.insert(name.to_owned(), value.into());
        }
        json!({ "keys": [key] })
    }

    /// Signs the request with this head and content: with `token` if there is one, else as the agent itself. What is there of
    /// `Authorization` is covered, and replaced by a token. Content without a `Content-Type` gets one, since both are covered.
    ///
    /// The request must be sent as it is then: to this path and authority, and nowhere else if it is redirected.
    ///
    /// # Errors
    /// [`ClientError`] if the request or the key does not allow it.
    pub async fn sign(
        &self,
        head: &mut Parts,
        content: &[u8],
        token: Option<&AuthToken>,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        match token {
            Some(token) => {
                head.headers.remove(AGENT_AUTH);
                head.headers.insert(header::AUTHORIZATION, token.header()?);
            }
            None => {
                head.headers.insert(AGENT_AUTH, self.agent_token(now).await?);
            }
        }
        let typed = head.headers.contains_key(header::CONTENT_TYPE);
        if !typed && (!content.is_empty() || self.profile == Profile::LUMO_SDK) {
            let unknown = HeaderValue::from_static("application/octet-stream");
            head.headers.insert(header::CONTENT_TYPE, unknown);
        }
        let scheme = head.uri.scheme_str().ok_or(ClientError::Target)?;
        let message = Message::of(head, scheme, Content::Bytes(content)).map_err(unsignable)?;
        let signed = httpsig::sign(&*self.signer, &self.profile, &message, SignWith::now(now)).await?;
        signed.insert_into(&mut head.headers);
        Ok(())
    }

    /// What the resource asks for that was called at `called` and answered with `challenge`; `None` if it does not say.
    ///
    /// # Errors
    /// [`ClientError::OtherAuthServer`] and [`ClientError::ResourceToken`].
    pub fn wanted(
        &self,
        challenge: &Challenge,
        called: &Origin,
        now: Timestamp,
    ) -> Result<Option<Wanted>, ClientError> {
        let elsewhere = |server: &String| server != self.auth_server.as_str();
        if challenge.auth_server.as_ref().is_some_and(elsewhere) {
            return Err(ClientError::OtherAuthServer);
        }
        let Some(token) = &challenge.resource_token else { return Ok(None) };
        let wanted = self.read_resource_token(token, now)?;
        let renamed = self.resources.iter().find(|(origin, _)| origin == called);
        let is_there = match renamed {
            Some((_, identifier)) => *identifier == wanted.resource,
            None => Url::parse(wanted.resource.as_str()).is_ok_and(|url| url.origin() == *called),
        };
        if is_there { Ok(Some(wanted)) } else { Err(ClientError::ResourceToken(InvalidToken::WrongIssuer)) }
    }

    /// `Agent-Auth` with the agent token: one that the agent made for itself, with its own key in it.
    async fn agent_token(&self, now: Timestamp) -> Result<HeaderValue, ClientError> {
        let usable = |token: &&OwnToken| {
            now < token.made_at.plus(TOKEN_LIFE - IN_TIME) && token.made_at <= now.plus(SKEW)
        };
        let held = || self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = held().as_ref().filter(usable).map(|token| token.header.clone()) {
            return Ok(header);
        }
        let iat = now.unix_seconds();
        let claims = json!({
            "iss": self.identifier,
            "sub": self.identifier,
            "cnf": self.confirmation.to_claim(),
            "iat": iat,
            "exp": iat + TOKEN_LIFE.as_secs(),
            "jti": TokenId::generate().to_string(),
        });
        let text = token::sign(&*self.signer, "agent+jwt", &claims).await?;
        // Once an hour: a signer with another key than it was said to have is found here, and not by those who refuse it.
        token::foreign::read(&text)
            .and_then(|token| token.verify(&self.own_named()))
            .map_err(|_| ClientError::Key)?;
        let mut header =
            HeaderValue::try_from(format!("agent_token={text}")).map_err(|_| ClientError::Key)?;
        header.set_sensitive(true);
        *held() = Some(OwnToken { header: header.clone(), made_at: now });
        Ok(header)
    }

    /// Its key under the key id of the signer.
    fn own_named(&self) -> PublicKeys {
        let keys = self.jwks().get_mut("keys").and_then(Value::as_array_mut).map(std::mem::take);
        PublicKeys::of(&JwkSet { keys: keys.unwrap_or_default() })
    }
}

impl fmt::Debug for AAuthAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AAuthAgent")
            .field("identifier", &self.identifier)
            .field("jkt", &self.confirmation.jkt)
            .field("auth_server", &self.auth_server)
            .finish_non_exhaustive()
    }
}

/// Where a request goes: what tokens are kept by.
///
/// # Errors
/// [`ClientError::Target`] if the URI is not absolute, with `https` or `http`.
pub fn origin(uri: &Uri) -> Result<Origin, ClientError> {
    let (Some(scheme @ ("https" | "http")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(ClientError::Target);
    };
    Url::parse(&format!("{scheme}://{authority}")).map(|url| url.origin()).map_err(|_| ClientError::Target)
}

fn unsignable(error: SignatureError) -> ClientError {
    ClientError::Sign(SignError::Message(error))
}
