//! Agents that hold no secret: what their platform says about them is exchanged for a token of their own.
//!
//! By a JWT of the platform, through the token exchange (RFC 8693) or the `jwt-bearer` grant (RFC 7523 section 2.1):
//!
//! 1. What the token claims only decides which agents to look at; it is never told where to get keys. If no agent of the
//!    organization trusts such a workload, nothing is fetched.
//! 2. Keys come from where the agent's trust says. Signature, times, audience and every claim of the trust are checked for
//!    each of those agents.
//! 3. Exactly one agent fits, or the request names one of them by `client_id` or `agent_id`, which prove nothing.
//! 4. A token of this server proves nothing here.
//! 5. The same token may be presented until it ends: platforms hand one out for as long.
//!
//! Or by a signed request of AWS: see [`sts`]. Every refusal is one answer to the client; why is in the audit log.

mod bearer;
mod jwt;
mod sts;

use std::sync::Arc;

use super::{TokenError, TokenResponse, client_credentials, issue, target};
use crate::{
    agent::{Agent, AuthMethod},
    audit::{EventKind, Target},
    client_auth::{AuthenticatedClient, Presented},
    grant::GrantContext,
    id::{AgentId, Slug},
    principal::agent_actor,
    store::AgentKey,
    token::{foreign::looks_like_jwt, unverified_issuer},
    wire::Params,
    workload::{Provider, WorkloadTrust, is_of_this_server},
};

pub use bearer::JwtBearer;
pub use sts::AWS_STS_REQUEST;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// How the audit log calls it.
const METHOD: &str = "workload_identity";

/// Which agent a request means, if it says so. That proves nothing; it chooses among those that the proof fits.
#[derive(Clone, Debug, Default)]
struct Named {
    client_id: Option<String>,
    agent_id: Option<String>,
}

impl Named {
    fn by(context: &GrantContext<'_>, params: &Params) -> Self {
        let text = |name: &str| params.get(name).map(str::to_owned);
        // A client that authenticated is that agent; an ordinary client is none, and fits nothing.
        let client_id =
            context.client.map(|client| client.client_id().to_string()).or_else(|| text("client_id"));
        Self { client_id, agent_id: text("agent_id") }
    }

    fn is_empty(&self) -> bool {
        self.client_id.is_none() && self.agent_id.is_none()
    }

    fn fits(&self, agent: &Agent) -> bool {
        self.client_id.as_ref().is_none_or(|id| id == agent.client_id.as_str())
            && self.agent_id.as_ref().is_none_or(|id| *id == agent.id.to_string())
    }
}

/// Serves an exchange whose subject token is not ours: a JWT of a platform, or a signed request of AWS.
///
/// # Errors
/// [`TokenError::WorkloadIdentity`] whatever is wrong with the proof.
pub(super) async fn exchange(
    context: &GrantContext<'_>,
    token: &str,
    subject_issuer: Option<&str>,
    params: &Params,
) -> Result<TokenResponse, TokenError> {
    begin(context);
    let provider = subject_issuer.map(provider).transpose()?;
    let named = Named::by(context, params);
    let agent = if params.get("subject_token_type") == Some(AWS_STS_REQUEST) {
        if provider.is_some_and(|provider| provider != Provider::Aws) {
            return Err(TokenError::InvalidRequest("subject_issuer does not fit subject_token_type."));
        }
        sts::prove(context, token, &named).await?
    } else {
        jwt::prove(context, token, provider, &named).await?
    };
    issue_to(context, &agent, params).await
}

/// A token for the agent called `name` (its id or slug), if `token` proves that it is the one.
///
/// # Errors
/// [`TokenError::WorkloadIdentity`] whatever is wrong with the proof.
pub(crate) async fn attest(
    context: &GrantContext<'_>,
    name: &str,
    token: &str,
) -> Result<(Arc<Agent>, TokenResponse), TokenError> {
    begin(context);
    if !context.organization.is_active() {
        return Err(refused(context, "the organization is not active"));
    }
    let (agents, org) = (&context.stores.agents, context.org());
    let agent = match (AgentId::parse(name), Slug::parse(name)) {
        (Ok(id), _) => agents.find(org, AgentKey::Id(id)).await?,
        (Err(_), Ok(slug)) => agents.find(org, AgentKey::Slug(&slug)).await?,
        (Err(_), Err(_)) => None,
    };
    let agent = agent.ok_or_else(|| refused(context, "there is no such agent"))?;
    let named = Named { agent_id: Some(agent.id.to_string()), client_id: None };
    let agent = jwt::prove(context, token, None, &named).await?;
    let response = issue_to(context, &agent, &Params::default()).await?;
    Ok((agent, response))
}

fn provider(name: &str) -> Result<Provider, TokenError> {
    Provider::parse(name).ok_or(TokenError::InvalidRequest("subject_issuer is not one that is known."))
}

/// Whether the `client_id` of the request names an agent and authenticates nobody: a workload has no secret to do that
/// with.
pub(crate) fn only_names_agent(params: &Params, presented: &Presented, issuer: &str) -> bool {
    if presented.secret.is_some() || presented.assertion.is_some() {
        return false;
    }
    match params.get("grant_type") {
        Some(bearer::GRANT_TYPE) => true,
        Some(TOKEN_EXCHANGE) => is_workload_exchange(params, issuer),
        _ => false,
    }
}

/// Whether the subject of an exchange is a workload, and not one of our own tokens.
pub(super) fn is_workload_exchange(params: &Params, issuer: &str) -> bool {
    match params.get("subject_token_type") {
        Some(AWS_STS_REQUEST) => true,
        Some("urn:ietf:params:oauth:token-type:jwt" | "urn:ietf:params:oauth:token-type:id_token") => {
            params.get("subject_issuer").is_some()
                || is_foreign(params.get("subject_token").unwrap_or_default(), issuer)
        }
        _ => false,
    }
}

/// Whether a JWT is not of this server, as far as it says itself. Ours say so in one way only: whatever else has the form of
/// a JWT (no issuer, a list of them, claims that cannot be read) is some platform's, and an unacceptable one.
fn is_foreign(token: &str, issuer: &str) -> bool {
    match unverified_issuer(token) {
        Ok(other) => !is_of_this_server(issuer, &other),
        Err(_) => looks_like_jwt(token),
    }
}

/// What the log says if the request is refused.
fn begin(context: &GrantContext<'_>) {
    context.refusal.set(|event| {
        event.kind = EventKind::AgentAuthenticated;
        event.auth_method = Some(METHOD.into());
        event.message = "workload identity refused".into();
    });
}

/// The one refusal. Its cause is for the log.
fn refused(context: &GrantContext<'_>, cause: &'static str) -> TokenError {
    refused_because(context, cause, cause.to_owned())
}

fn refused_because(context: &GrantContext<'_>, what: &'static str, cause: String) -> TokenError {
    context.refusal.set(move |event| {
        event.context.insert("cause".to_owned(), cause.into());
    });
    TokenError::WorkloadIdentity(what)
}

/// Which agent is claimed, for the log.
fn claimed(context: &GrantContext<'_>, agent: &Agent) {
    let target = Target::new("agent", agent.id.to_string()).named(agent.name.clone());
    context.refusal.set(move |event| event.target = Some(target));
}

/// The trust of an agent that is active and of a type that has one.
fn trust_of(agent: &Agent) -> Option<&WorkloadTrust> {
    let proves = agent.is_active() && agent.identity_type.may_use(AuthMethod::WorkloadIdentity);
    agent.workload.as_ref().filter(|_| proves)
}

/// Refuses an agent that may not prove itself by its platform, or is where it may not be.
fn admit(context: &GrantContext<'_>, agent: &Agent) -> Result<(), TokenError> {
    agent
        .check(AuthMethod::WorkloadIdentity, context.origin.ip)
        .map_err(|barred| refused_because(context, "the agent is barred", barred.to_string()))
}

/// A normal token for the agent that was proven.
async fn issue_to(
    context: &GrantContext<'_>,
    agent: &Arc<Agent>,
    params: &Params,
) -> Result<TokenResponse, TokenError> {
    let known = agent.clone();
    context.refusal.set(move |event| event.actor = agent_actor(&known));
    claimed(context, agent);
    let workload = trust_of(agent).map(ToString::to_string);
    let client = AuthenticatedClient::Agent(agent.clone());
    let wanted = target::requested(params)?;
    let mut decided = client_credentials::decide(context, &client, wanted, params).await?;
    decided.workload.clone_from(&workload);
    let mut events = client_credentials::events(context, &client, &decided, METHOD);
    if let Some(event) = events.first_mut() {
        event.message = "workload identity presented".into();
        event.context.insert("workload".to_owned(), workload.into());
    }
    let response = issue(context, decided).await?;
    // Signed, but not out of our hands: the token leaves when its event is durable.
    context.append(&events).await?;
    Ok(response)
}

#[cfg(test)]
mod tests;
