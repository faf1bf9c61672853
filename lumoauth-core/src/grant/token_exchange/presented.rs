//! What a request presents: its parameters, and its tokens with what they prove.

use std::{collections::BTreeMap, sync::Arc};

use super::{ACCESS_TOKEN, ID_TOKEN, JWT, REFRESH_TOKEN};
use crate::{
    agent::Agent,
    budget::BudgetPolicy,
    capability::Scope,
    grant::{AWS_STS_REQUEST, GrantContext, TokenError, id_token, requested_scope, target, workload},
    json,
    principal::{Identity, Principal},
    token::AccessClaims,
    wire::Params,
};

/// A live access token of ours.
pub(super) struct Token {
    pub(super) principal: Principal,
    pub(super) claims: Arc<AccessClaims>,
}

/// An exchange of tokens of ours.
pub(super) struct Request<'a> {
    pub(super) subject: Token,
    pub(super) actor: Option<Actor>,
    /// What the new token is to be bound to, if not to this server.
    pub(super) target: Option<&'a str>,
    pub(super) scope: Option<Scope>,
    /// The smaller budget that the new token is to carry.
    pub(super) budget: Option<BudgetPolicy>,
}

impl Request<'_> {
    /// Refuses whoever asks and is where it may not be.
    pub(super) fn check_address(&self, context: &GrantContext<'_>) -> Result<(), TokenError> {
        let (agent, refused) = match &self.actor {
            Some(actor) => (Some(&actor.agent), BAD_ACTOR),
            None => (self.subject.principal.presenter(), BAD_SUBJECT),
        };
        let barred = agent.and_then(|agent| agent.check_address(context.origin.ip).err());
        let Some(barred) = barred else { return Ok(()) };
        context
            .refusal
            .set(move |event| drop(event.context.insert("cause".to_owned(), barred.to_string().into())));
        Err(refused)
    }
}

/// An agent's own live token for our own routes.
pub(super) struct Actor {
    pub(super) agent: Arc<Agent>,
    pub(super) claims: Arc<AccessClaims>,
}

/// What is to be exchanged.
pub(super) enum Presented<'a> {
    /// Tokens of ours.
    Ours(Box<Request<'a>>),
    /// What a platform says about a workload.
    Workload { token: &'a str, issuer: Option<&'a str> },
}

/// What a request says a token is (RFC 8693 section 3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Access,
    Jwt,
    Id,
    Refresh,
    AwsStsRequest,
}

impl TokenType {
    fn parse(urn: &str) -> Result<Self, TokenError> {
        match urn {
            ACCESS_TOKEN => Ok(Self::Access),
            JWT => Ok(Self::Jwt),
            ID_TOKEN => Ok(Self::Id),
            REFRESH_TOKEN => Ok(Self::Refresh),
            AWS_STS_REQUEST => Ok(Self::AwsStsRequest),
            _ => Err(TokenError::UnsupportedTokenType),
        }
    }
}

const BAD_SUBJECT: TokenError = TokenError::InvalidGrant("The subject token is not acceptable.");
const BAD_ACTOR: TokenError = TokenError::InvalidGrant("The actor token is not acceptable.");
const MISDECLARED: TokenError = TokenError::InvalidGrant("The subject token is not of the declared type.");
const BOTH: TokenError = TokenError::InvalidRequest("One token cannot be both subject and actor.");

pub(super) async fn read<'a>(
    context: &GrantContext<'_>,
    params: &'a Params,
) -> Result<Presented<'a>, TokenError> {
    let token =
        params.get("subject_token").ok_or(TokenError::InvalidRequest("subject_token is required."))?;
    let declared = params
        .get("subject_token_type")
        .ok_or(TokenError::InvalidRequest("subject_token_type is required."))?;
    let declared = TokenType::parse(declared)?;
    let actor = match (params.get("actor_token"), params.get("actor_token_type")) {
        (None, None) => None,
        (Some(actor), Some(declared)) => Some((actor, TokenType::parse(declared)?)),
        (None, Some(_)) | (Some(_), None) => {
            return Err(TokenError::InvalidRequest("actor_token and actor_token_type go together."));
        }
    };
    if params.get("requested_token_type").is_some_and(|requested| requested != ACCESS_TOKEN) {
        return Err(TokenError::InvalidRequest("Only access tokens are issued."));
    }
    let issuer = params.get("subject_issuer");
    match declared {
        _ if workload::is_workload_exchange(params, context.issuer) => {
            if actor.is_some() {
                return Err(TokenError::InvalidRequest("A workload proves itself and takes no actor."));
            }
            return Ok(Presented::Workload { token, issuer });
        }
        TokenType::Refresh if actor.is_some() => {
            return Err(TokenError::InvalidRequest("A refresh token is not delegated."));
        }
        TokenType::Refresh | TokenType::AwsStsRequest => return Err(MISDECLARED),
        TokenType::Access | TokenType::Jwt | TokenType::Id => {}
    }
    if context.public_client.is_some() {
        return Err(TokenError::UnauthorizedClient);
    }
    if actor.is_some_and(|(actor, _)| actor == token) {
        return Err(BOTH);
    }
    let target = target::requested(params)?.filter(|target| *target != context.issuer);
    let scope = requested_scope(params)?;
    let budget = budget(params)?;
    let subject = match declared {
        TokenType::Id => person(context, token).await?,
        _ => subject(context, token).await?,
    };
    let actor = match actor {
        None => None,
        Some((actor, TokenType::Access | TokenType::Jwt)) => {
            let actor = self::actor(context, actor).await?;
            // The texts may differ where the tokens do not: an ECDSA signature has a twin.
            if actor.claims.jti == subject.claims.jti {
                return Err(BOTH);
            }
            Some(actor)
        }
        Some((_, TokenType::Id | TokenType::Refresh | TokenType::AwsStsRequest)) => {
            return Err(TokenError::InvalidGrant("The actor token is not of the declared type."));
        }
    };
    if declared == TokenType::Id && !is_issued_to(context, &subject, actor.as_ref()) {
        return Err(BAD_SUBJECT);
    }
    Ok(Presented::Ours(Box::new(Request { subject, actor, target, scope, budget })))
}

/// The `budget` parameter: a budget policy as JSON. Members that this version does not know would say nothing in a token.
fn budget(params: &Params) -> Result<Option<BudgetPolicy>, TokenError> {
    let Some(text) = params.get("budget") else { return Ok(None) };
    let bad = |_| TokenError::InvalidRequest("budget must be the JSON of a budget policy.");
    let policy: BudgetPolicy = json::parse(text.as_bytes()).map_err(bad)?;
    let policy = BudgetPolicy { extra: BTreeMap::new(), ..policy };
    Ok(Some(policy).filter(|policy| !policy.is_empty()))
}

/// The person of an ID token, as a subject without scope.
async fn person(context: &GrantContext<'_>, token: &str) -> Result<Token, TokenError> {
    let principal = id_token::principal(context, token).await?.ok_or(BAD_SUBJECT)?;
    let claims = principal.claims.clone().ok_or(BAD_SUBJECT)?;
    Ok(Token { principal, claims })
}

/// An ID token tells its client who signed in. Whoever else holds it learned nothing that it may pass on, so its client must
/// be the one that asks: as the actor, or by client authentication.
fn is_issued_to(context: &GrantContext<'_>, subject: &Token, actor: Option<&Actor>) -> bool {
    let client = &subject.claims.client_id;
    actor.is_some_and(|actor| actor.agent.client_id == *client)
        || context.client.is_some_and(|proven| proven.client_id() == client)
}

async fn subject(context: &GrantContext<'_>, token: &str) -> Result<Token, TokenError> {
    let found = live(context, token).await?.ok_or(BAD_SUBJECT)?;
    match &found.principal.identity {
        Identity::Agent(_) | Identity::User(_) => Ok(found),
        Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => Err(BAD_SUBJECT),
    }
}

async fn actor(context: &GrantContext<'_>, token: &str) -> Result<Actor, TokenError> {
    let Token { principal, claims } = live(context, token).await?.ok_or(BAD_ACTOR)?;
    match principal {
        Principal { identity: Identity::Agent(agent), delegation: None, .. }
            if claims.is_for_own_routes() =>
        {
            Ok(Actor { agent, claims })
        }
        _ => Err(BAD_ACTOR),
    }
}

/// The live token with this text. One that was made for a single task is none.
async fn live(context: &GrantContext<'_>, token: &str) -> Result<Option<Token>, TokenError> {
    let Some(principal) = context.principal(token).await? else { return Ok(None) };
    let claims = principal.claims.clone().filter(|claims| !claims.jit);
    Ok(claims.map(|claims| Token { principal, claims }))
}
