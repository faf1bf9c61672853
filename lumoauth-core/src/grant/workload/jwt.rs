//! The agent that a JWT of its platform proves.

use std::{sync::Arc, time::Duration};

use super::{Named, TokenError, admit, claimed, refused, refused_because, trust_of};
use crate::{
    agent::{Agent, AuthMethod},
    foreign_keys::{ForeignKeyError, KeySource},
    grant::GrantContext,
    token::{
        InvalidToken,
        foreign::{self, Unverified},
    },
    workload::{Mismatch, PinnedKeys, Provider, WorkloadKey, WorkloadTrust, is_of_this_server},
};

/// The longest issuer that is looked at, in bytes.
const MAX_ISSUER: usize = 2048;

/// How old a token may be, whatever its end: platforms renew theirs within hours.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How far ahead of ours the platform's clock may be.
const SKEW: Duration = Duration::from_secs(60);

/// For how many agents one token is checked.
const MAX_AGENTS: usize = 16;

/// Why a token is not one of an agent's workload.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("the token is not acceptable: {0}")]
    Token(#[from] InvalidToken),
    #[error("no keys: {0}")]
    Keys(#[from] ForeignKeyError),
    #[error("{0}")]
    Claims(#[from] Mismatch),
}

/// The one agent whose workload `token` is of; if there are several, the one that is `named`.
pub(super) async fn prove(
    context: &GrantContext<'_>,
    token: &str,
    provider: Option<Provider>,
    named: &Named,
) -> Result<Arc<Agent>, TokenError> {
    let unfit = |error: &Unfit| refused_because(context, "the token is not acceptable", error.to_string());
    let unverified = foreign::read(token).map_err(|error| unfit(&error.into()))?;
    let issuer = unverified.issuer();
    if issuer.is_some_and(|issuer| issuer.len() > MAX_ISSUER) {
        return Err(refused(context, "the issuer is too long"));
    }
    if issuer.is_some_and(|issuer| is_of_this_server(context.issuer, issuer)) {
        return Err(refused(context, "the token is of this server"));
    }
    if !has_usual_type(&unverified) {
        return Err(refused(context, "the token is of another type"));
    }
    let keys = WorkloadKey::candidates(issuer, unverified.claims());
    let mut agents = context.stores.agents.trusting(context.org(), &keys).await?;
    agents.retain(|agent| {
        named.fits(agent)
            && trust_of(agent).is_some_and(|trust| {
                provider.is_none_or(|provider| provider == trust.provider()) && trust.accepts_issuer(issuer)
            })
    });
    match agents.as_slice() {
        [] => return Err(refused(context, "no agent trusts such a workload")),
        [agent] => claimed(context, agent),
        [_, rest @ ..] if rest.len() < MAX_AGENTS => {}
        _ => return Err(refused(context, "too many agents trust this workload")),
    }
    let mut fitting = Vec::new();
    let mut cause = None;
    for agent in agents {
        let Some(trust) = trust_of(&agent) else { continue };
        match check(context, token, &unverified, trust).await {
            Ok(()) => fitting.push(agent),
            Err(error) => cause = cause.or(Some(error)),
        }
    }
    // One that may not use its platform is in nobody's way, and by itself it is told apart in the log.
    if fitting.iter().any(|agent| agent.may_use(AuthMethod::WorkloadIdentity)) {
        fitting.retain(|agent| agent.may_use(AuthMethod::WorkloadIdentity));
    }
    let proven = fitting.pop();
    match (proven, cause) {
        (Some(agent), _) if fitting.is_empty() => {
            claimed(context, &agent);
            admit(context, &agent)?;
            Ok(agent)
        }
        (Some(_), _) => {
            let text = "Several agents are this workload; name one with client_id or agent_id.";
            Err(TokenError::InvalidRequest(text))
        }
        (None, Some(error)) => Err(unfit(&error)),
        (None, None) => Err(refused(context, "no agent trusts such a workload")),
    }
}

/// Whether `token` is one of the workload that `trust` names.
async fn check(
    context: &GrantContext<'_>,
    token: &str,
    unverified: &Unverified<'_>,
    trust: &WorkloadTrust,
) -> Result<(), Unfit> {
    // It is the configured one: others were sorted out. Only a trust with pinned keys can do without.
    let issuer = unverified.issuer();
    let source = match &trust.keys {
        Some(PinnedKeys::Jwks(set)) => KeySource::Inline(set),
        Some(PinnedKeys::JwksUri(uri)) => KeySource::JwksUri(uri),
        None => KeySource::Issuer(issuer.ok_or(Mismatch::NO_ISSUER)?),
    };
    let keys = context.foreign_keys.keys(source, unverified.kid(), context.now).await?;
    let claims = foreign::read(token)?.verify(&keys)?;
    claims.check_times(context.now, Some(MAX_AGE), SKEW)?;
    Ok(trust.check(issuer, &claims.audience(), claims.all(), context.issuer)?)
}

/// Whether it is a plain JWT or an access token, as platforms issue them, and not a token with a purpose of its own
/// (RFC 8725 section 3.11).
fn has_usual_type(token: &Unverified<'_>) -> bool {
    let usual = ["JWT", "JOSE", "at+jwt", "application/at+jwt"];
    token.typ().is_none_or(|typ| usual.iter().any(|usual| usual.eq_ignore_ascii_case(typ)))
}
