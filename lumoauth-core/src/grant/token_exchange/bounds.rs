//! What bounds a new token: the authority, the life and the ancestry of what it comes from.

use std::{collections::HashSet, sync::Arc};

use crate::{
    agent::Agent,
    authorize::is_identity_scope,
    budget::{BudgetPolicy, Envelope},
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    grant::{Bearer, GrantContext, NewToken, Resource, SignIn, TokenError},
    principal::Delegation,
    spending::{Payers, Remaining},
    store::Handle,
    token::{AccessClaims, ClientEpoch, ConsentEpoch, MayAct, token_handle},
    user::User,
};

/// The longest life of a token by which an agent acts for somebody, in seconds: whoever verifies it offline learns of a
/// revocation only when it ends.
pub(super) const DELEGATED_LIFETIME: u32 = 900;

/// How many tokens and families a token may come from. A chain of three actors for an MCP server comes from nine; only
/// narrowing what was narrowed gets beyond that.
const MAX_ANCESTORS: usize = 16;

/// An exchange that has been decided on.
pub(super) struct Exchange {
    pub(super) holder: Holder,
    pub(super) resource: Resource,
    pub(super) scope: Scope,
    /// In seconds.
    pub(super) lifetime: u32,
    pub(super) ancestors: Vec<Handle>,
    pub(super) consents: Vec<ConsentEpoch>,
    pub(super) via: Option<ClientEpoch>,
    /// Copied on to all that comes of a token: where it names one actor, the chain ends with it.
    pub(super) may_act: Option<MayAct>,
    pub(super) workload: Option<String>,
    pub(super) test: bool,
    /// The budgets that it comes with.
    pub(super) envelopes: Vec<Envelope>,
    pub(super) price: Price,
}

/// What an exchange costs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Price {
    OneCall,
    Nothing,
}

/// Who will use the new token.
pub(super) enum Holder {
    Itself(AuthenticatedClient),
    User { user: Arc<User>, client: AuthenticatedClient, sign_in: SignIn },
    Chain(Delegation),
}

impl Holder {
    /// The agents whose authority bounds the token, the one that uses it last.
    pub(super) fn agents(&self) -> Vec<&Arc<Agent>> {
        match self {
            Self::Itself(AuthenticatedClient::Agent(agent)) => vec![agent],
            Self::Itself(AuthenticatedClient::Client(_)) | Self::User { .. } => Vec::new(),
            Self::Chain(delegation) => delegation.agents().collect(),
        }
    }
}

impl Exchange {
    pub(super) fn new_token(&self) -> NewToken<'_> {
        let bearer = match &self.holder {
            Holder::Itself(client) => Bearer::Itself(client),
            Holder::User { user, client, sign_in } => Bearer::User { user, client, sign_in },
            Holder::Chain(delegation) => {
                Bearer::Chain { represented: &delegation.represented, actors: &delegation.actors }
            }
        };
        NewToken {
            ancestors: self.ancestors.clone(),
            consents: self.consents.clone(),
            via: self.via.clone(),
            envelopes: self.envelopes.clone(),
            may_act: self.may_act.clone(),
            workload: self.workload.clone(),
            test: self.test,
            ..NewToken::new(bearer, self.resource.clone(), self.scope.clone(), self.lifetime)
        }
    }

    /// Charges everybody who pays for it, or nobody.
    pub(super) async fn charge(&self, context: &GrantContext<'_>) -> Result<Remaining, TokenError> {
        if self.price == Price::Nothing {
            return Ok(Remaining::default());
        }
        let agents = self.holder.agents();
        let chain: Vec<&Agent> = agents.iter().map(|agent| &***agent).collect();
        let Some(payers) = Payers::of_chain(&chain, &self.envelopes) else {
            return Ok(Remaining::default());
        };
        Ok(payers.charge_call(context.stores, context.org(), context.origin, context.now).await??)
    }
}

/// The scope of a token that the last of `agents` uses: within what each of them may do now, within `subject`, which is what
/// they make it of, and within every one of `others`. Without a request, all of that.
///
/// Who a person is must be in `subject` literally: no wildcard reaches the scopes of OpenID Connect.
pub(super) fn narrowed(
    agents: &[&Arc<Agent>],
    requested: Option<&Scope>,
    subject: &Scope,
    others: &[&[Capability]],
) -> Result<Scope, TokenError> {
    let refused = |item: &Capability| TokenError::InvalidScope(item.to_string());
    let Some((current, earlier)) = agents.split_last() else { return Ok(Scope::default()) };
    let bounds: Vec<_> = std::iter::once(subject.as_slice()).chain(others.iter().copied()).collect();
    let scope = current.narrow(requested, &bounds).map_err(|item| refused(&item))?;
    let fits = |item: &&Capability| {
        let named = !is_identity_scope(item) || subject.as_slice().contains(item);
        named && earlier.iter().all(|agent| agent.holds(item))
    };
    match requested {
        None => Ok(Scope::new(scope.as_slice().iter().filter(fits).cloned())),
        Some(_) => match scope.as_slice().iter().find(|item| !fits(item)) {
            Some(item) => Err(refused(item)),
            None => Ok(scope),
        },
    }
}

/// How long a token may live that ends with every one of `sources`, but after `longest` seconds at the latest.
pub(super) fn lifetime(
    context: &GrantContext<'_>,
    sources: &[&AccessClaims],
    longest: u32,
) -> Result<u32, TokenError> {
    let now = context.now.unix_seconds();
    let left = sources.iter().map(|claims| claims.exp.saturating_sub(now)).min();
    let left = left.and_then(|left| u32::try_from(left).ok()).unwrap_or(longest).min(longest);
    if left == 0 { Err(TokenError::InvalidGrant("The token has expired.")) } else { Ok(left) }
}

/// The handles of everything that a token comes from: of `sources`, and of what they come from.
pub(super) fn ancestors(
    context: &GrantContext<'_>,
    sources: &[&AccessClaims],
) -> Result<Vec<Handle>, TokenError> {
    let mut seen = HashSet::new();
    let ancestors: Vec<_> = sources
        .iter()
        .flat_map(|claims| {
            claims.lin.handles.iter().copied().chain([token_handle(context.org(), &claims.jti)])
        })
        .filter(|handle| seen.insert(*handle))
        .collect();
    if ancestors.len() > MAX_ANCESTORS {
        return Err(TokenError::InvalidGrant("The token has been exchanged too often."));
    }
    Ok(ancestors)
}

/// How many budgets a token may carry: one for every delegation of the longest chain.
const MAX_ENVELOPES: usize = 3;

/// The budgets that a new token carries: those of `sources`, and one of its own if `wanted`. It can only narrow what
/// `agents`, who use the token together, have.
pub(super) fn envelopes(
    sources: &[&AccessClaims],
    agents: &[&Agent],
    wanted: Option<&BudgetPolicy>,
) -> Result<Vec<Envelope>, TokenError> {
    let mut envelopes: Vec<Envelope> = Vec::new();
    for envelope in sources.iter().flat_map(|claims| &claims.lin.budgets) {
        if !envelopes.iter().any(|known| known.id == envelope.id) {
            envelopes.push(envelope.clone());
        }
    }
    if let Some(policy) = wanted {
        let agents = agents.iter().map(|agent| &agent.budget);
        let wider = |larger: &BudgetPolicy| !policy.narrows(larger);
        if agents.chain(envelopes.iter().map(|envelope| &envelope.policy)).any(wider) {
            return Err(TokenError::InvalidRequest("budget must be within what the token comes from."));
        }
        envelopes.push(Envelope::generate(policy.clone()));
    }
    if envelopes.len() > MAX_ENVELOPES {
        return Err(TokenError::InvalidRequest("The token would carry too many budgets."));
    }
    Ok(envelopes)
}
