//! `auth+jwt`: what an agent may do at a resource.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AuthLineage, Confirmation};
use crate::{
    aauth_resource::AuthLevel,
    capability::Scope,
    clock::Timestamp,
    id::{AAuthIdentifier, OrgId},
    jwks::{JwsAlgorithm, PublicKeys},
    organization::ActOrder,
    token::{
        InvalidToken,
        foreign::{self, Unverified},
    },
};

/// An auth token that has been read but not checked, at the resource that it was shown to.
#[derive(Debug)]
pub struct UnverifiedAuthToken<'a> {
    token: Unverified<'a>,
    kid: String,
}

impl<'a> UnverifiedAuthToken<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    /// [`InvalidToken`] if it cannot be an auth token, whoever signed it.
    pub fn read(text: &'a str) -> Result<Self, InvalidToken> {
        let token = foreign::read(text)?;
        if token.typ() != Some("auth+jwt") {
            return Err(InvalidToken::WrongType);
        }
        if token.algorithm() != JwsAlgorithm::EdDsa {
            return Err(InvalidToken::Algorithm);
        }
        let kid = token.kid().ok_or(InvalidToken::Header)?.to_owned();
        Ok(Self { token, kid })
    }

    /// Who it claims to be issued by. Keys are looked for at issuers that are trusted, whoever it is.
    pub fn issuer(&self) -> Option<&str> {
        self.token.issuer()
    }

    /// Which key it claims to be signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it says, if one of `keys`, which are those of `issuer`, signed it for `resource` and it is valid at `now`.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub fn verify(
        self,
        keys: &PublicKeys,
        issuer: &str,
        resource: &AAuthIdentifier,
        now: Timestamp,
    ) -> Result<AuthClaims, InvalidToken> {
        let claims = AuthClaims::of(self.token.verify(keys)?.all(), issuer, now)?;
        if claims.aud != *resource {
            return Err(InvalidToken::WrongAudience);
        }
        Ok(claims)
    }
}

/// The claims of an auth token of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuthClaims {
    /// Issuer.
    pub iss: String,
    /// The resource.
    pub aud: AAuthIdentifier,
    /// The agent that it was issued to.
    pub agent: AAuthIdentifier,
    /// The delegate of that agent, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_delegate: Option<String>,
    /// The person that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// What it may be used for.
    pub scope: Scope,
    /// The key that must sign the requests it comes with (RFC 7800): `jwk` and `jkt`.
    pub cnf: Map<String, Value>,
    /// The agents that hand the work on to each other, this one among them, nested as the organization has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<ActedFor>>,
    /// What sort of consent it was issued by.
    pub auth_level: AuthLevel,
    /// The organization.
    pub organization: OrgId,
    /// When it was issued, in Unix seconds.
    pub iat: u64,
    /// Not valid from this Unix second on.
    pub exp: u64,
    /// Its id.
    pub jti: String,
    /// What it stands on; for the issuer only.
    pub lin: AuthLineage,
}

/// One agent of a chain, and those that it is nested with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the claim has these members")]
pub struct ActedFor {
    /// The agent, by the name that the claim has in other tokens.
    pub sub: AAuthIdentifier,
    /// The agent.
    pub agent: AAuthIdentifier,
    /// Its delegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_delegate: Option<String>,
    /// The next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<ActedFor>>,
}

impl AuthClaims {
    /// What `claims` say, which `issuer` signed, if they are those of an auth token of its own that is valid at `now`.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub(crate) fn of(
        claims: &Map<String, Value>,
        issuer: &str,
        now: Timestamp,
    ) -> Result<Self, InvalidToken> {
        let claims = Self::deserialize(claims).map_err(|_| InvalidToken::Malformed)?;
        if claims.iss != issuer {
            return Err(InvalidToken::WrongIssuer);
        }
        claims.check_time(now)?;
        Ok(claims)
    }

    /// Whether their time has come and is not over.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), InvalidToken> {
        let seconds = now.unix_seconds();
        if self.exp <= seconds {
            return Err(InvalidToken::Expired);
        }
        if self.iat > seconds + super::SKEW.as_secs() {
            return Err(InvalidToken::NotYetValid);
        }
        // What is revoked elsewhere is not seen before the end, so that must not be far away.
        if self.exp > seconds + (super::TOKEN_LIFE + super::SKEW).as_secs() {
            return Err(InvalidToken::LivesTooLong);
        }
        Ok(())
    }

    /// The key that must sign the requests it comes with.
    ///
    /// # Errors
    /// [`InvalidToken::Confirmation`] if it is not usable.
    pub fn confirmation(&self) -> Result<Confirmation, InvalidToken> {
        let claims = Map::from_iter([("cnf".to_owned(), Value::Object(self.cnf.clone()))]);
        Confirmation::read(&claims, &PublicKeys::default())
    }

    /// The agents of the chain with their delegates, the first one first; of a token without a chain that is its own
    /// agent.
    pub fn chain(&self) -> Vec<(AAuthIdentifier, Option<String>)> {
        let links = std::iter::successors(self.act.as_deref(), |act| act.act.as_deref());
        let mut chain: Vec<_> = links.map(|act| (act.agent.clone(), act.agent_delegate.clone())).collect();
        if self.lin.act_order == ActOrder::Rfc8693 {
            chain.reverse();
        }
        if chain.is_empty() { vec![(self.agent.clone(), self.agent_delegate.clone())] } else { chain }
    }
}
