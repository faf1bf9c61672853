//! `agent+jwt`: who an agent is, and the key it signs requests with.

use serde_json::Value;

use super::{Confirmation, SKEW, TOKEN_LIFE};
use crate::{
    clock::Timestamp,
    id::{AAuthIdentifier, AgentId},
    jwks::PublicKeys,
    keys::VerifyingKey,
    token::{
        InvalidToken,
        foreign::{self, ForeignClaims, Unverified},
    },
};

/// The longest `sub`, in bytes.
const MAX_SUB: usize = 256;

/// An agent token that has been read but not checked: it says whose keys to look for.
#[derive(Debug)]
pub struct UnverifiedAgentToken<'a> {
    token: Unverified<'a>,
    agent: AAuthIdentifier,
}

/// What an agent token proves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentToken {
    /// The agent that issued it, to itself or to a delegate.
    pub agent: AAuthIdentifier,
    /// For whom, if not for the agent itself: a name that stays when the delegate's key changes.
    pub delegate: Option<String>,
    /// The key of whoever uses it.
    pub confirmation: Confirmation,
    /// From when on it is not accepted.
    pub expires_at: Timestamp,
    /// The agent that this server made it for, and the epoch of that time: another one may have the same URL by now. `None`
    /// for one that the agent signed itself, which is as good as the agent's keys are.
    pub made_for: Option<(AgentId, u32)>,
}

impl<'a> UnverifiedAgentToken<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    /// [`InvalidToken`] if it cannot be an agent token, whoever signed it.
    pub fn read(text: &'a str) -> Result<Self, InvalidToken> {
        let token = foreign::read(text)?;
        if token.typ() != Some("agent+jwt") {
            return Err(InvalidToken::WrongType);
        }
        let agent = token.issuer().and_then(|iss| AAuthIdentifier::parse(iss).ok());
        Ok(Self { agent: agent.ok_or(InvalidToken::WrongIssuer)?, token })
    }

    /// Whose it claims to be.
    pub fn agent(&self) -> &AAuthIdentifier {
        &self.agent
    }

    /// Which key of the agent it claims to be signed with.
    pub fn kid(&self) -> Option<&str> {
        self.token.kid()
    }

    /// The key that it says the request is signed with, for whoever only needs to know that a request comes from the holder
    /// of that key, and leaves it to the authorization server to say who that is.
    ///
    /// # Errors
    /// [`InvalidToken::Confirmation`] if it does not have the key in it.
    pub fn claimed_confirmation(&self) -> Result<Confirmation, InvalidToken> {
        Confirmation::read(self.token.claims(), &PublicKeys::default())
    }

    /// The token, if one of the agent's `keys`, or one of the organization's own, signed it for `issuer` and it is valid at
    /// `now`.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub fn verify(
        self,
        keys: &PublicKeys,
        own: &[VerifyingKey],
        issuer: &str,
        now: Timestamp,
    ) -> Result<AgentToken, InvalidToken> {
        let Self { token, agent } = self;
        let (claims, ours) = verify_by_either(token, keys, own)?;
        claims.check_times(now, None, SKEW)?;
        let expires_at = claims.expires_at().ok_or(InvalidToken::Malformed)?;
        let made_for = if ours {
            let id = claims.text("agent_id").and_then(|id| AgentId::parse(id).ok());
            let epoch = claims.all().get("agent_epoch").and_then(Value::as_u64);
            let epoch = epoch.and_then(|epoch| u32::try_from(epoch).ok());
            Some(id.zip(epoch).ok_or(InvalidToken::Malformed)?)
        } else {
            None
        };
        if expires_at > now.plus(TOKEN_LIFE + SKEW) {
            return Err(InvalidToken::LivesTooLong);
        }
        if claims.all().contains_key("aud") && !claims.audience().contains(&issuer) {
            return Err(InvalidToken::WrongAudience);
        }
        let sub = claims.text("sub").filter(|sub| !sub.is_empty() && sub.len() <= MAX_SUB);
        // It goes on into tokens, rows and to handlers.
        let sub = sub.filter(|sub| !sub.contains(char::is_control)).ok_or(InvalidToken::Malformed)?;
        let delegate = (sub != agent.as_str()).then(|| sub.to_owned());
        let confirmation = Confirmation::read(claims.all(), keys)?;
        Ok(AgentToken { agent, delegate, confirmation, expires_at, made_for })
    }
}

/// The claims, if a key of the party signed them, or one of ours did for it; and whether it was one of ours. Of the same `kid`
/// the party's own counts.
pub(super) fn verify_by_either(
    token: Unverified<'_>,
    keys: &PublicKeys,
    own: &[VerifyingKey],
) -> Result<(ForeignClaims, bool), InvalidToken> {
    let ours =
        token.kid().is_some_and(|kid| !keys.contains(kid) && own.iter().any(|key| key.id().as_str() == kid));
    let claims = if ours { token.verify_own(own) } else { token.verify(keys) };
    Ok((claims?, ours))
}
