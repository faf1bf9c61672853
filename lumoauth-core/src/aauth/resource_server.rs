//! What a resource does about AAuth: it says who calls, what is missing, and what it is itself.
//!
//! # The steps
//!
//! 1. [`ResourceServer::recognize`] needs the head of a request only. The shape of its signature and everything else that needs
//!    no key comes first, then the auth token, and last the signature, by the key that the token is bound to. Whoever does not
//!    get this far cannot have content buffered, and no nonce of others used up.
//! 2. [`Recognized::with_content`] compares the content with what was signed; [`Recognized::ahead_of_content`] puts that off.
//! 3. [`ResourceServer::admit`] uses up the nonce of a request with an auth token, then asks whether the token is enough for
//!    what is demanded.
//!
//! # Rules
//!
//! - An auth token without a signature by its key opens nothing, and nothing else than an auth token opens anything.
//! - Keys are looked for at issuers that the resource was given, whatever a token says.
//! - An agent that signs with its agent token and has no auth token is handed a resource token, if the resource can sign one.
//!   Its agent token is not verified: that the holder of the key asks is all there is to know, and the authorization server
//!   will see whose key it is.
//! - Where the issuer is not in this process an auth token that was revoked is accepted until it ends, an hour at most.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    AuthClaims, Confirmation, Demand, Refusal, RefusalCause, UnverifiedAgentToken, UnverifiedAuthToken,
    context::AAuthCaller,
    fields::{agent_token, single},
    resource_token::NewResourceToken,
    verified::VerifiedAuthTokens,
};
use crate::{
    capability::Scope,
    clock::Timestamp,
    foreign_keys::{ForeignKeys, KeySource},
    httpsig::{self, Accept, Content, Message, Presented, Promised, SignatureError, Verified},
    id::{AAuthIdentifier, OrgId, ParseIdError},
    jwks::{PublicKey, PublicKeys, Thumbprint},
    keys::{KeyError, Signer},
    store::ReplayStore,
    token::InvalidToken,
};

/// Where the nonces of this service stand in the replay store, which may be one that others use too.
const SPACE_OF_NONCES: &str = "aauth-resource";

/// An issuer cannot be asked. This is no refusal: nothing is known of the token.
#[derive(Debug, thiserror::Error)]
#[error("the issuer of auth tokens cannot be asked")]
pub struct IssuerUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>);

impl IssuerUnavailable {
    /// With the cause, for the log.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// An issuer whose auth tokens a resource accepts: [`PublishedIssuer`], or one in this process
/// ([`AuthorizationServer::auth_tokens_of`](crate::server::AuthorizationServer::auth_tokens_of)).
#[async_trait]
pub trait AuthTokenIssuer: fmt::Debug + Send + Sync + 'static {
    /// The `iss` of its tokens.
    fn issuer(&self) -> &AAuthIdentifier;

    /// Its keys, among them the one that `kid` names if it has it.
    ///
    /// # Errors
    /// [`IssuerUnavailable`] if they cannot be had now.
    async fn keys(&self, kid: &str, now: Timestamp) -> Result<Arc<PublicKeys>, IssuerUnavailable>;

    /// Whether a token still holds that one of its keys signed and whose time is not over. An issuer that cannot tell says yes.
    ///
    /// # Errors
    /// [`IssuerUnavailable`] if it could tell, and cannot now.
    async fn is_alive(&self, claims: &AuthClaims) -> Result<bool, IssuerUnavailable>;
}

/// An issuer elsewhere, known by the keys that it publishes at `{issuer}/aauth/jwks.json`. What it revokes is not seen here.
#[derive(Clone, Debug)]
pub struct PublishedIssuer {
    issuer: AAuthIdentifier,
    jwks_uri: Box<str>,
    keys: Arc<ForeignKeys>,
}

impl PublishedIssuer {
    /// The issuer of this name: `https://auth.example/orgs/acme/api/v1`. Its keys are kept by `keys`.
    ///
    /// # Errors
    /// [`ParseIdError`] if it is no `https` URL, or `http` at this machine.
    pub fn new(issuer: &str, keys: Arc<ForeignKeys>) -> Result<Self, ParseIdError> {
        let issuer = AAuthIdentifier::parse(issuer)?;
        let jwks_uri = format!("{issuer}/aauth/jwks.json").into();
        Ok(Self { issuer, jwks_uri, keys })
    }
}

#[async_trait]
impl AuthTokenIssuer for PublishedIssuer {
    fn issuer(&self) -> &AAuthIdentifier {
        &self.issuer
    }

    async fn keys(&self, kid: &str, now: Timestamp) -> Result<Arc<PublicKeys>, IssuerUnavailable> {
        let source = KeySource::JwksUri(&self.jwks_uri);
        self.keys.keys(source, Some(kid), now).await.map_err(IssuerUnavailable::new)
    }

    /// Whether the organization is the issuer's own: it signs for no other, whatever it writes.
    async fn is_alive(&self, claims: &AuthClaims) -> Result<bool, IssuerUnavailable> {
        let own = self.issuer.as_str().strip_suffix("/api/v1");
        let own = own.and_then(|issuer| issuer.strip_suffix(claims.organization.as_str()));
        Ok(own.is_some_and(|issuer| issuer.ends_with("/orgs/")))
    }
}

/// A service that agents call with auth tokens, as the protocol sees it. One per service, shared by all of its routes.
#[derive(Debug)]
pub struct ResourceServer {
    identifier: AAuthIdentifier,
    scheme: &'static str,
    authorities: Vec<String>,
    accept: Accept,
    home: Arc<dyn AuthTokenIssuer>,
    others: Vec<Arc<dyn AuthTokenIssuer>>,
    replay: Arc<dyn ReplayStore>,
    org: OrgId,
    key: Option<(Arc<dyn Signer>, PublicKey)>,
    scopes: Scope,
    verified: VerifiedAuthTokens,
}

impl ResourceServer {
    /// The resource that is registered as `identifier` at `issuer`. It is reached at the authority of its identifier, and
    /// what was used once is remembered in `replay`: one store for all replicas of the service.
    pub fn new(
        identifier: AAuthIdentifier,
        issuer: Arc<dyn AuthTokenIssuer>,
        replay: Arc<dyn ReplayStore>,
    ) -> Self {
        let (scheme, rest) = identifier.as_str().split_once("://").unwrap_or(("https", ""));
        let authorities = vec![rest.split('/').next().unwrap_or_default().to_owned()];
        Self {
            scheme: if scheme == "http" { "http" } else { "https" },
            accept: Accept::at(&authorities),
            authorities,
            identifier,
            home: issuer,
            others: Vec::new(),
            replay,
            org: OrgId::parse(SPACE_OF_NONCES).expect("a slug"),
            key: None,
            scopes: Scope::default(),
            verified: VerifiedAuthTokens::new(),
        }
    }

    /// Accepts requests to these authorities too (`host`, or `host:port`): a signature says whom its request is for.
    #[must_use]
    pub fn with_authorities<I: IntoIterator<Item: Into<String>>>(mut self, authorities: I) -> Self {
        self.authorities.extend(authorities.into_iter().map(Into::into));
        self.accept = Accept::at(&self.authorities);
        self
    }

    /// Is reached by plain `http`, or by `https`, if that is not what its identifier begins with.
    #[must_use]
    pub fn reached_by(mut self, scheme: Scheme) -> Self {
        self.scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        self
    }

    /// Accepts the auth tokens of another issuer too. Agents that have none are sent to the first one all the same.
    ///
    /// An organization is one of its issuer: two authorization servers may both have an `acme`, and
    /// [`AAuthContext::issuer`](super::AAuthContext::issuer) tells whose it is.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Arc<dyn AuthTokenIssuer>) -> Self {
        self.others.push(issuer);
        self
    }

    /// Makes resource tokens with this key, of which `public` is the public half: it must be among those that the resource is
    /// registered with, under the key id of `signer`.
    #[must_use]
    pub fn with_key(mut self, signer: Arc<dyn Signer>, public: PublicKey) -> Self {
        self.key = Some((signer, public));
        self
    }

    /// Says in its document that there are these scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: Scope) -> Self {
        self.scopes = scopes;
        self
    }

    /// Its name: the `aud` of auth tokens for it.
    pub fn identifier(&self) -> &AAuthIdentifier {
        &self.identifier
    }

    /// By what it is reached: `https`, or `http`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// What stands at `/.well-known/aauth-resource` of the service.
    pub fn document(&self) -> Value {
        let issuers = std::iter::once(&self.home).chain(&self.others);
        let issuers: Vec<_> = issuers.map(|issuer| issuer.issuer().as_str()).collect();
        json!({
            "resource": self.identifier,
            "auth_server": self.home.issuer(),
            "auth_servers": issuers,
            "jwks_uri": format!("{}/aauth/jwks.json", self.identifier.as_str().trim_end_matches('/')),
            "jwks": self.jwks(),
            "resource_token_endpoint": format!("{}/aauth/resource/token", self.home.issuer()),
            "supported_scopes": self.scopes.as_slice(),
        })
    }

    /// What stands at `/aauth/jwks.json` of the service: its public key, to be registered (RFC 7517 section 5).
    pub fn jwks(&self) -> Value {
        let key = self.key.as_ref().map(|(signer, public)| {
            let mut key = match public.to_jwk() {
                Value::Object(key) => key,
                _ => Map::new(),
            };
            for (name, value) in
                [("kid", signer.key_id().as_str()), ("alg", signer.algorithm().as_str()), ("use", "sig")]
            {
                key.insert(name.to_owned(), value.into());
            }
            Value::Object(key)
        });
        json!({ "keys": key.into_iter().collect::<Vec<_>>() })
    }

    /// Who signed the request with this head, for `demand`. Its content is not looked at.
    ///
    /// # Errors
    /// [`Refusal`] with what to answer.
    pub async fn recognize(
        &self,
        message: &Message<'_>,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Recognized, Refusal> {
        let (presented, promised) =
            httpsig::read_ahead(message, &self.accept, now).map_err(|error| self.refuse(error))?;
        if demand.query_coverage && !presented.signature().covers_query() {
            return Err(self.refuse(SignatureError::NotCovered("@query")));
        }
        let agent_token = agent_token(message.headers).map_err(|error| self.refuse(error))?;
        let cause = match credential(message.headers).map_err(|error| self.refuse(error))? {
            Some(token) => match self.auth_token(token, now).await {
                Ok(token) => return self.by_auth_token(token, presented, promised),
                Err(cause @ (RefusalCause::Token(_) | RefusalCause::Dead)) => cause,
                Err(cause) => return Err(self.refuse(cause)),
            },
            None => RefusalCause::NoToken,
        };
        // Who has no auth token that counts can get one, and needs a resource token for that.
        let claimed = agent_token.and_then(|token| {
            let token = UnverifiedAgentToken::read(token).ok()?;
            let confirmation = token.claimed_confirmation().ok()?;
            Some((token.agent().clone(), confirmation))
        });
        let Some((agent, Confirmation { key, jkt })) = claimed else { return Err(self.refuse(cause)) };
        let verified = presented.verify(&key).map_err(|error| self.refuse(bound(error)))?;
        Ok(Recognized { verified, promised, who: Who::Asking { agent, jkt, cause } })
    }

    /// The caller, if this is its first request with this nonce, and its token is enough.
    ///
    /// # Errors
    /// [`Refusal`] with what to answer.
    pub async fn admit(&self, seen: Seen, demand: &Demand, now: Timestamp) -> Result<AAuthCaller, Refusal> {
        let Seen { verified, who, content_bound } = seen;
        let (agent, jkt, cause) = match who {
            // Nothing is served, and what a copy is given is of use to the same key alone: strangers need not be remembered.
            Who::Asking { agent, jkt, cause } => (agent, jkt, cause),
            Who::Caller(token) => {
                let request = verified.once(&*self.replay, &self.org, now).await;
                let request = request.map_err(|error| self.refuse(error))?;
                let Known { claims, text, jkt } = token;
                match demand.refusal_of(&claims) {
                    None => {
                        let caller = AAuthCaller::new(claims, jkt, text, &request, content_bound);
                        return caller.map_err(|error| self.refuse(RefusalCause::Token(error)));
                    }
                    Some(cause) => (claims.agent.clone(), jkt, cause),
                }
            }
        };
        match self.challenge_for(&agent, jkt, &demand.scope, now).await {
            Ok(challenge) => Err(Refusal::new(cause, self.home.issuer()).with_challenge(challenge)),
            Err(error) => Err(self.refuse(RefusalCause::Unavailable(error.into()))),
        }
    }

    /// The auth token, if it is one for this resource that is good at `now`.
    async fn auth_token(&self, text: &str, now: Timestamp) -> Result<Bound, RefusalCause> {
        let token = UnverifiedAuthToken::read(text)?;
        let issuer = std::iter::once(&self.home).chain(&self.others);
        let issuer = issuer.into_iter().find(|issuer| Some(issuer.issuer().as_str()) == token.issuer());
        let issuer = issuer.ok_or(InvalidToken::WrongIssuer)?;
        let keys = issuer.keys(token.kid(), now).await?;
        let name = issuer.issuer().as_str();
        let token = self.verified.verify(text, token, &keys, name, &self.identifier, now)?;
        if !issuer.is_alive(&token.claims).await? {
            return Err(RefusalCause::Dead);
        }
        Ok(Bound { claims: token.claims.clone(), key: token.confirmation.clone(), text: text.into() })
    }

    /// The caller whose auth token it is, if the key signed that the token is bound to.
    fn by_auth_token(
        &self,
        token: Bound,
        presented: Presented,
        promised: Promised,
    ) -> Result<Recognized, Refusal> {
        if !presented.signature().covers(&header::AUTHORIZATION) {
            return Err(self.refuse(SignatureError::NotCovered("authorization")));
        }
        let verified = presented.verify(&token.key.key).map_err(|error| self.refuse(bound(error)))?;
        let who = Who::Caller(Known { claims: token.claims, text: token.text, jkt: token.key.jkt });
        Ok(Recognized { verified, promised, who })
    }

    /// The challenge to an agent, with a resource token if one can be made.
    async fn challenge_for(
        &self,
        agent: &AAuthIdentifier,
        jkt: Thumbprint,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<HeaderValue, KeyError> {
        let Some((signer, _)) = &self.key else { return Ok(CHALLENGE) };
        let auth_server = self.home.issuer();
        let new = NewResourceToken {
            resource: &self.identifier,
            auth_server: auth_server.as_str(),
            agent,
            agent_jkt: jkt,
            scope,
            auth_request_url: None,
            made_for: None,
        };
        let token = new.sign(&**signer, now).await?;
        let text = format!(
            "httpsig; auth-token; resource_token=\"{}\"; auth_server=\"{auth_server}\"",
            token.expose()
        );
        // Base64url, dots, and a URL without quotes.
        HeaderValue::try_from(text).map_err(|_| KeyError::Crypto("a token that no header can carry"))
    }

    /// A refusal of this resource.
    pub fn refuse(&self, cause: impl Into<RefusalCause>) -> Refusal {
        Refusal::new(cause.into(), self.home.issuer())
    }
}

/// By what a service is reached, as its callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "HTTP has these two")]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// What whoever comes without an auth token is told.
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("httpsig; auth-token");

/// A request whose signer is known. Its content may be anything.
#[derive(Debug)]
#[must_use]
pub struct Recognized {
    verified: Verified,
    promised: Promised,
    who: Who,
}

/// A request whose signer is known, and its content if that was there to be seen. It may still be a copy of an earlier one.
#[derive(Debug)]
#[must_use]
pub struct Seen {
    verified: Verified,
    who: Who,
    content_bound: bool,
}

#[derive(Debug)]
enum Who {
    /// Somebody with an auth token, which is bound to the key that signed.
    Caller(Known),
    /// An agent that has no auth token that counts, as it says itself, and the key that signed.
    Asking { agent: AAuthIdentifier, jkt: Thumbprint, cause: RefusalCause },
}

#[derive(Debug)]
struct Known {
    claims: Arc<AuthClaims>,
    text: crate::secret::Secret,
    jkt: Thumbprint,
}

/// An auth token, and the key that must sign.
struct Bound {
    claims: Arc<AuthClaims>,
    key: Arc<Confirmation>,
    text: crate::secret::Secret,
}

impl Recognized {
    /// Whether there is an auth token. Without one the request is refused whatever its content is, which then need not be
    /// waited for.
    pub fn has_token(&self) -> bool {
        matches!(self.who, Who::Caller(_))
    }

    /// The request with its content.
    ///
    /// # Errors
    /// [`SignatureError`] if it is not the content that was signed.
    pub fn with_content(self, content: Content<'_>) -> Result<Seen, SignatureError> {
        self.promised.check(content)?;
        Ok(Seen { verified: self.verified, who: self.who, content_bound: true })
    }

    /// The request before its content is there, and what that must be.
    pub fn ahead_of_content(self) -> (Seen, Promised) {
        (Seen { verified: self.verified, who: self.who, content_bound: false }, self.promised)
    }
}

/// The token in `Authorization`, under either scheme that agents send it by. Another scheme is as good as none.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, SignatureError> {
    let Some(text) = single(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    let Some((scheme, token)) = text.trim_matches([' ', '\t']).split_once(' ') else { return Ok(None) };
    let ours = ["bearer", "gnap"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    Ok(ours.then_some(token.trim_matches(' ')).filter(|token| !token.is_empty()))
}

/// A signature that is fine but for the key is somebody else's.
fn bound(error: SignatureError) -> RefusalCause {
    match error {
        SignatureError::Invalid | SignatureError::Key => RefusalCause::KeyBinding,
        error => error.into(),
    }
}
