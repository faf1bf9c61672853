//! What the authorization server says about tokens (RFC 7662), kept for a moment.
//!
//! 1. An answer is kept under the SHA-256 of issuer and whole token, and used for the staleness that the host chose, counted
//!    from the question; the time of the token is looked at each time, so none is used at or after its `exp`.
//! 2. Refusals are kept just as long, so that a bad token asks no more often than a good one.
//! 3. Any number of requests with one token ask once and all wait for the answer, unless the question is older than that.
//! 4. Failures are not kept, and none is an answer: nobody passes.
//! 5. The number of tokens is bounded; the one that was not used for longest goes.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::WeakShared};
use http::StatusCode;
use lumoauth_core::{
    capability::Scope,
    clock::Timestamp,
    id::{AgentId, ClientId, OrgId},
    jit::AuthorizationDetail,
    json,
    principal::{RemoteCaller, RemoteKind},
    secret::{Secret, SecretHash},
    server::AuthenticateError,
    token::{Act, Audience, InvalidToken, MAX_TOKEN_BYTES},
};
use moka::{policy::EvictionPolicy, sync::Cache};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::{RemoteError, ServiceAccount, tokens::refused};

/// How many tokens are kept.
const TOKENS: u64 = 10_000;

/// How far ahead of ours the clock of the issuer may be, in seconds.
const SKEW: u64 = 30;

pub(super) struct Answers {
    account: ServiceAccount,
    staleness: Duration,
    tokens: Cache<SecretHash, Arc<Mutex<Known>>>,
}

/// One token.
#[derive(Default)]
struct Known {
    answer: Option<(Option<Arc<Facts>>, Timestamp)>,
    /// The question that is under way. Those who wait for it hold it; when all have gone, so has it.
    asking: Option<(WeakShared<Asking>, Timestamp)>,
}

/// What is known of an active token; `None` of any other.
type Answered = Result<Option<Arc<Facts>>, RemoteError>;
type Asking = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// The members of an answer about an active token.
#[derive(Deserialize)]
struct Facts {
    token_type: String,
    scope: Scope,
    client_id: ClientId,
    sub: String,
    #[serde(default)]
    act: Option<Box<Act>>,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    agent_name: Option<Arc<str>>,
    identity_type: String,
    organization: OrgId,
    iss: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    iat: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(default)]
    cnf: Option<Value>,
    #[serde(default)]
    mcp_server_id: Option<String>,
    #[serde(default)]
    jit: bool,
    #[serde(default)]
    authorization_details: Vec<AuthorizationDetail>,
    #[serde(default)]
    budget_exceeded: bool,
}

impl Answers {
    pub(super) fn new(account: ServiceAccount, staleness: Duration) -> Self {
        let tokens = Cache::builder().max_capacity(TOKENS).eviction_policy(EvictionPolicy::lru()).build();
        Self { account, staleness, tokens }
    }

    pub(super) async fn caller(
        &self,
        token: &str,
        resource: &str,
        details: bool,
    ) -> Result<RemoteCaller, AuthenticateError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused(InvalidToken::TooLong));
        }
        let answer = self.answer(token).await.map_err(|error| AuthenticateError::Remote(error.into()))?;
        let facts = answer.ok_or(AuthenticateError::Refused)?;
        facts.check(self.account.server.issuer(), self.account.server.now()).map_err(refused)?;
        let meant = if details { facts.is_for_details_at(resource) } else { facts.is_for_resource(resource) };
        if !meant {
            return Err(refused(InvalidToken::WrongAudience));
        }
        facts.caller(token).map_err(refused)
    }

    async fn answer(&self, token: &str) -> Answered {
        // No token that is asked about has a line break in it, so no two pairs are one text.
        let key = SecretHash::of(&format!("{}\n{token}", self.account.server.issuer()));
        let known = self.tokens.get_with(key, Arc::default);
        let asking = {
            let mut state = known.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.account.server.now();
            // What is from the future is of no known age: the clock was set back.
            let is_recent = |since: Timestamp| since <= now && now.since(since) < self.staleness;
            if let Some((answer, since)) = &state.answer
                && is_recent(*since)
            {
                return Ok(answer.clone());
            }
            // A question that was put too long ago may be answered with what was true then.
            let recent = state.asking.as_ref().filter(|(_, since)| is_recent(*since));
            recent.and_then(|(asking, _)| asking.upgrade()).unwrap_or_else(|| {
                let asking = ask(self.account.clone(), Secret::from(token), known.clone(), now).shared();
                state.asking = asking.downgrade().map(|asking| (asking, now));
                asking
            })
        };
        asking.await
    }
}

fn ask(account: ServiceAccount, token: Secret, known: Arc<Mutex<Known>>, now: Timestamp) -> Asking {
    Box::pin(async move {
        let answer = introspect(&account, &token).await;
        let present = account.server.now();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.asking.as_ref().is_some_and(|(_, since)| *since == now) {
            known.asking = None;
        }
        if let Ok(answer) = &answer
            && known.answer.as_ref().is_none_or(|(_, since)| *since <= now || *since > present)
        {
            known.answer = Some((answer.clone(), now));
        }
        answer
    })
}

async fn introspect(account: &ServiceAccount, token: &Secret) -> Result<Option<Arc<Facts>>, RemoteError> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token.expose())
        .append_pair("token_type_hint", "access_token")
        .finish();
    let route = account.server.route("oauth/introspect");
    let answer = account.server.http().post_form(&route, &account.basic, &Secret::from(form)).await?;
    if answer.status != StatusCode::OK {
        return Err(RemoteError::Status { what: "introspection", status: answer.status });
    }
    let unusable = || RemoteError::Unusable("introspection");
    let members: Map<String, Value> = json::parse(&answer.body).map_err(|_| unusable())?;
    match members.get("active") {
        Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => {
            let facts = Facts::deserialize(Value::Object(members)).map_err(|_| unusable())?;
            Ok(Some(Arc::new(facts)))
        }
        _ => Err(unusable()),
    }
}

impl Facts {
    /// As [`AccessClaims::is_for_resource`](lumoauth_core::token::AccessClaims::is_for_resource).
    fn is_for_resource(&self, resource: &str) -> bool {
        !self.jit && self.aud.contains(resource)
    }

    /// As [`AccessClaims::is_for_details_at`](lumoauth_core::token::AccessClaims::is_for_details_at).
    fn is_for_details_at(&self, resource: &str) -> bool {
        let of_client = self.aud.contains(self.client_id.as_str());
        let of_server = || {
            of_client
                || self.aud.contains(&self.iss)
                || self.agent_id.as_deref().is_some_and(|id| self.aud.contains(id))
        };
        let own = if self.jit { of_client } else { self.mcp_server_id.is_none() && of_server() };
        own || self.aud.contains(resource)
    }

    fn check(&self, issuer: &str, now: Timestamp) -> Result<(), InvalidToken> {
        let now = now.unix_seconds();
        if self.cnf.is_some() || self.token_type.eq_ignore_ascii_case("dpop") {
            return Err(InvalidToken::Bound);
        }
        if !self.token_type.eq_ignore_ascii_case("bearer") {
            return Err(InvalidToken::WrongType);
        }
        if self.iss != issuer {
            return Err(InvalidToken::WrongIssuer);
        }
        if self.exp <= now {
            return Err(InvalidToken::Expired);
        }
        if self.nbf.max(self.iat) > now + SKEW {
            return Err(InvalidToken::NotYetValid);
        }
        Ok(())
    }

    fn caller(&self, token: &str) -> Result<RemoteCaller, InvalidToken> {
        let kind = RemoteKind::of_identity_type(&self.identity_type)?;
        let agent_id = self.agent_id.as_deref().map(AgentId::parse).transpose();
        let agent_id = agent_id.map_err(|_| InvalidToken::Malformed)?;
        if kind == RemoteKind::Agent && agent_id.is_none() {
            return Err(InvalidToken::Malformed);
        }
        Ok(RemoteCaller {
            issuer: self.iss.clone(),
            org: self.organization.clone(),
            kind,
            subject: self.sub.clone(),
            client_id: self.client_id.clone(),
            agent_id,
            agent_name: self.agent_name.clone(),
            actors: RemoteCaller::actors_of(self.act.as_deref(), agent_id)?,
            scope: self.scope.clone(),
            authorization_details: if self.jit { self.authorization_details.clone() } else { Vec::new() },
            expires_at: Timestamp::from_unix_seconds(self.exp),
            over_budget: self.budget_exceeded,
            token: Secret::from(token),
        })
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("account", &self.account)
            .field("staleness", &self.staleness)
            .finish_non_exhaustive()
    }
}
