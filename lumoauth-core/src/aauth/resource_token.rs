//! `resource+jwt`: what a resource wants an agent to be allowed.

use serde::Serialize;
use serde_json::Value;

use super::{RESOURCE_TOKEN_LIFE, SKEW, agent_token::verify_by_either};
use crate::{
    aauth_resource::AAuthResource,
    capability::Scope,
    clock::Timestamp,
    id::{AAuthIdentifier, AAuthResourceId, TokenId},
    jwks::{PublicKeys, Thumbprint},
    keys::{KeyError, Signer, VerifyingKey},
    secret::{Secret, sha256},
    token::{
        self, InvalidToken,
        foreign::{self, Unverified},
    },
};

/// A resource token that has been read but not checked: it says whose keys to look for.
#[derive(Debug)]
pub struct UnverifiedResourceToken<'a> {
    token: Unverified<'a>,
    text: &'a str,
    resource: AAuthIdentifier,
}

/// What a resource token proves: that this resource was called by this agent with this key, and what it asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResourceToken {
    /// The resource that issued it.
    pub resource: AAuthIdentifier,
    /// The agent that called.
    pub agent: AAuthIdentifier,
    /// The key that signed the call.
    pub agent_jkt: Thumbprint,
    /// What the agent needs there.
    pub scope: Scope,
    /// Where the resource keeps a request in more detail.
    pub auth_request_url: Option<String>,
    /// From when on it is not accepted.
    pub expires_at: Timestamp,
    /// The earliest instant at which anybody can have presented it.
    pub presented_from: Timestamp,
    /// Its name among those of its resource, for using it once.
    pub single_use: [u8; 32],
    /// The resource that this server made it for, and the epoch of that time: another one may have the same URL by now. `None`
    /// for one that the resource signed itself.
    pub made_for: Option<(AAuthResourceId, u32)>,
}

/// A resource token that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewResourceToken<'a> {
    /// The resource that it is from.
    pub(crate) resource: &'a AAuthIdentifier,
    /// The same as it is registered here, if this server makes the token for it.
    pub(crate) made_for: Option<&'a AAuthResource>,
    /// The issuer that it is for.
    pub(crate) auth_server: &'a str,
    /// The agent that called.
    pub(crate) agent: &'a AAuthIdentifier,
    /// The key that signed the call.
    pub(crate) agent_jkt: Thumbprint,
    /// What the agent needs.
    pub(crate) scope: &'a Scope,
    /// Where the resource keeps the request in more detail.
    pub(crate) auth_request_url: Option<&'a str>,
}

impl NewResourceToken<'_> {
    /// The token, made at `now`.
    ///
    /// # Errors
    /// [`KeyError`] if the key cannot be used.
    pub(crate) async fn sign(&self, signer: &dyn Signer, now: Timestamp) -> Result<Secret, KeyError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a AAuthIdentifier,
            aud: &'a str,
            agent: &'a AAuthIdentifier,
            agent_jkt: Thumbprint,
            #[serde(skip_serializing_if = "Scope::is_empty")]
            scope: &'a Scope,
            #[serde(skip_serializing_if = "Option::is_none")]
            auth_request_url: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            resource_id: Option<&'a AAuthResourceId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            resource_epoch: Option<u32>,
            iat: u64,
            exp: u64,
            jti: String,
        }
        let Self { resource, made_for, auth_server, agent, agent_jkt, scope, auth_request_url } = *self;
        let iat = now.unix_seconds();
        let claims = Claims {
            iss: resource,
            aud: auth_server,
            agent,
            agent_jkt,
            scope,
            auth_request_url,
            resource_id: made_for.map(|resource| &resource.id),
            resource_epoch: made_for.map(|resource| resource.epoch),
            iat,
            exp: iat + RESOURCE_TOKEN_LIFE.as_secs(),
            jti: TokenId::generate().to_string(),
        };
        token::sign(signer, "resource+jwt", &claims).await.map(Secret::from)
    }
}

impl<'a> UnverifiedResourceToken<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    /// [`InvalidToken`] if it cannot be a resource token, whoever signed it.
    pub fn read(text: &'a str) -> Result<Self, InvalidToken> {
        let token = foreign::read(text)?;
        if token.typ() != Some("resource+jwt") {
            return Err(InvalidToken::WrongType);
        }
        let resource = token.issuer().and_then(|iss| AAuthIdentifier::parse(iss).ok());
        Ok(Self { resource: resource.ok_or(InvalidToken::WrongIssuer)?, token, text })
    }

    /// Whose it claims to be.
    pub fn resource(&self) -> &AAuthIdentifier {
        &self.resource
    }

    /// Which key of the resource it claims to be signed with.
    pub fn kid(&self) -> Option<&str> {
        self.token.kid()
    }

    /// The token, if one of the resource's `keys`, or one of the organization's own, signed it for `issuer` and it is valid at
    /// `now`. Whether it is about the agent that presents it is for the caller to compare.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub fn verify(
        self,
        keys: &PublicKeys,
        own: &[VerifyingKey],
        issuer: &str,
        now: Timestamp,
    ) -> Result<ResourceToken, InvalidToken> {
        let Self { token, text, resource } = self;
        let (claims, ours) = verify_by_either(token, keys, own)?;
        claims.check_times(now, None, SKEW)?;
        let malformed = InvalidToken::Malformed;
        let expires_at = claims.expires_at().ok_or(malformed)?;
        let issued_at = claims.issued_at();
        let old = issued_at.is_some_and(|at| now.since(at) > RESOURCE_TOKEN_LIFE + SKEW);
        if old || expires_at > now.plus(RESOURCE_TOKEN_LIFE + SKEW) {
            return Err(InvalidToken::LivesTooLong);
        }
        if claims.audience() != [issuer] {
            return Err(InvalidToken::WrongAudience);
        }
        let agent =
            claims.text("agent").and_then(|agent| AAuthIdentifier::parse(agent).ok()).ok_or(malformed)?;
        let agent_jkt = claims.text("agent_jkt").and_then(|jkt| jkt.parse().ok()).ok_or(malformed)?;
        let scope = match claims.all().get("scope") {
            None => Scope::default(),
            Some(scope) => scope.as_str().and_then(|scope| scope.parse().ok()).ok_or(malformed)?,
        };
        let made_for = if ours {
            let id = claims.text("resource_id").and_then(|id| AAuthResourceId::parse(id).ok());
            let epoch = claims.all().get("resource_epoch").and_then(Value::as_u64);
            let epoch = epoch.and_then(|epoch| u32::try_from(epoch).ok());
            Some(id.zip(epoch).ok_or(malformed)?)
        } else {
            None
        };
        let by_end = expires_at.minus(RESOURCE_TOKEN_LIFE + SKEW);
        Ok(ResourceToken {
            agent,
            agent_jkt,
            scope,
            auth_request_url: claims.text("auth_request_url").map(str::to_owned),
            expires_at,
            presented_from: issued_at.map_or(by_end, |at| by_end.max(at.minus(SKEW))),
            single_use: single_use(&resource, claims.text("jti"), text),
            resource,
            made_for,
        })
    }
}

/// By its `jti`; one without is told apart by everything that its resource signed, which leaves the signature out: of one text
/// there can be several.
fn single_use(resource: &AAuthIdentifier, jti: Option<&str>, text: &str) -> [u8; 32] {
    let signed = text.rsplit_once('.').map_or(text, |(signed, _)| signed);
    match jti {
        Some(jti) => sha256(format!("{resource}\0j{jti}").as_bytes()),
        None => sha256(format!("{resource}\0t{signed}").as_bytes()),
    }
}
