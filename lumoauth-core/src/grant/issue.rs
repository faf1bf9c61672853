//! Making an access token.

use std::{borrow::Cow, sync::Arc};

use super::{GrantContext, MAX_SCOPE_BYTES, TokenError, TokenResponse};
use crate::{
    agent::Agent,
    budget::Envelope,
    capability::Scope,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    id::{AgentId, ClientId, TokenId},
    keys::KeyPurpose,
    mcp::McpServer,
    organization::ActOrder,
    principal::Represented,
    secret::Secret,
    spending::Remaining,
    store::Handle,
    token::{
        self, AccessClaims, Act, Audience, ClientEpoch, ConsentEpoch, KeyBinding, Lineage, MayAct, Subject,
    },
    user::User,
};

/// Who will use a new token, and for whom.
#[derive(Clone, Copy)]
pub(crate) enum Bearer<'a> {
    /// An agent or client as itself.
    Itself(&'a AuthenticatedClient),
    /// A person, by this client.
    User { user: &'a User, client: &'a AuthenticatedClient, sign_in: &'a SignIn },
    /// The last of these agents, for somebody. There is at least one.
    Chain { represented: &'a Represented, actors: &'a [Arc<Agent>] },
}

/// When and how a person signed in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SignIn {
    pub(crate) at: Timestamp,
    /// How the person was recognised (RFC 8176).
    pub(crate) amr: Vec<String>,
}

/// What a new token is bound to.
#[derive(Clone)]
pub(crate) enum Resource {
    /// This server's own routes: the audience is the client itself, or for a chain its current agent.
    Own,
    /// An MCP server.
    Mcp(Arc<McpServer>),
}

/// A token that has been decided on.
pub(crate) struct NewToken<'a> {
    pub(crate) bearer: Bearer<'a>,
    pub(crate) resource: Resource,
    pub(crate) scope: Scope,
    /// In seconds.
    pub(crate) lifetime: u32,
    /// Handles of the tokens and families it comes from.
    pub(crate) ancestors: Vec<Handle>,
    /// What people allowed it by.
    pub(crate) consents: Vec<ConsentEpoch>,
    /// Whose token of a person it comes from, if that client is not in the chain.
    pub(crate) via: Option<ClientEpoch>,
    /// The budgets that it carries.
    pub(crate) envelopes: Vec<Envelope>,
    /// Who alone may become an actor.
    pub(crate) may_act: Option<MayAct>,
    /// Which workload the agent is.
    pub(crate) workload: Option<String>,
    pub(crate) test: bool,
}

impl<'a> NewToken<'a> {
    /// A token that comes of nothing else.
    pub(crate) fn new(bearer: Bearer<'a>, resource: Resource, scope: Scope, lifetime: u32) -> Self {
        Self {
            bearer,
            resource,
            scope,
            lifetime,
            ancestors: Vec::new(),
            consents: Vec::new(),
            via: None,
            envelopes: Vec::new(),
            may_act: None,
            workload: None,
            test: false,
        }
    }
}

/// Signs the token. Everything that must be written has been written by then.
pub(crate) async fn issue(
    context: &GrantContext<'_>,
    new: NewToken<'_>,
) -> Result<TokenResponse, TokenError> {
    let claims = claims(context, new)?;
    signed(context, claims).await
}

/// Signs the token if everything that it will stand on is alive, as the stores themselves say it and not a cache: what was
/// revoked while it was decided on is seen. What is revoked after that kills the token at its next check, since it carries
/// the epoch or the handle of it.
pub(crate) async fn issue_alive(
    context: &GrantContext<'_>,
    new: NewToken<'_>,
) -> Result<TokenResponse, TokenError> {
    let claims = alive(context, new).await?;
    signed(context, claims).await
}

/// The claims of a token that everything it stands on allows right now.
pub(crate) async fn alive(context: &GrantContext<'_>, new: NewToken<'_>) -> Result<AccessClaims, TokenError> {
    let claims = Arc::new(claims(context, new)?);
    let stores = context.stores.uncached();
    let revoked = TokenError::InvalidGrant("What the token would stand on has ended.");
    let Some(organization) = stores.organizations.find(context.org()).await? else { return Err(revoked) };
    match token::principal_of(&stores, &organization, claims.clone()).await? {
        Ok(_) => Ok(Arc::unwrap_or_clone(claims)),
        Err(dead) => {
            tracing::debug!(%dead, "revoked in mid-exchange");
            Err(revoked)
        }
    }
}

/// The token with these claims.
pub(super) async fn signed(
    context: &GrantContext<'_>,
    claims: AccessClaims,
) -> Result<TokenResponse, TokenError> {
    let signer = context.keys.signer(context.org(), KeyPurpose::AccessToken, context.now).await?;
    let token = token::sign(&*signer, "at+jwt", &claims).await?;
    Ok(TokenResponse {
        access_token: Secret::from(token),
        issued_token_type: None,
        token_type: claims.token_type(),
        expires_in: claims.exp - claims.iat,
        scope: claims.scope,
        refresh_token: None,
        id_token: None,
        remaining: Remaining::default(),
    })
}

/// What the claims say about who uses the token.
struct Names {
    sub: String,
    client_id: ClientId,
    agent: Option<Arc<Agent>>,
    identity_type: &'static str,
    /// The audience if it is bound to no resource.
    own_audience: String,
    subject: Option<Subject>,
    epochs: Vec<u32>,
}

fn names(bearer: Bearer<'_>) -> Option<Names> {
    let agent_of = |client: &AuthenticatedClient| match client {
        AuthenticatedClient::Agent(agent) => Some(agent.clone()),
        AuthenticatedClient::Client(_) => None,
    };
    Some(match bearer {
        Bearer::Itself(client) => Names {
            sub: match client {
                AuthenticatedClient::Agent(agent) => agent.subject(),
                AuthenticatedClient::Client(client) => client.client_id.to_string(),
            },
            client_id: client.client_id().clone(),
            agent: agent_of(client),
            identity_type: if agent_of(client).is_some() { "agent" } else { "client" },
            own_audience: client.client_id().to_string(),
            subject: None,
            epochs: vec![client.epoch()],
        },
        // The token names no agent, also if an agent's client obtained it: it is the person's.
        Bearer::User { user, client, .. } => Names {
            sub: user.id.to_string(),
            client_id: client.client_id().clone(),
            agent: None,
            identity_type: "user",
            own_audience: client.client_id().to_string(),
            subject: Some(Subject::User),
            epochs: vec![user.epoch, client.epoch()],
        },
        Bearer::Chain { represented, actors } => {
            let current = actors.last()?;
            let (sub, subject, epoch) = match represented {
                Represented::User(user) => (user.id.to_string(), Subject::User, user.epoch),
                Represented::Agent(agent) => (agent.subject(), Subject::Agent(agent.id), agent.epoch),
            };
            Names {
                sub,
                client_id: current.client_id.clone(),
                agent: Some(current.clone()),
                identity_type: "agent",
                own_audience: current.id.to_string(),
                subject: Some(subject),
                epochs: std::iter::once(epoch).chain(actors.iter().map(|agent| agent.epoch)).collect(),
            }
        }
    })
}

/// The `act` claim of a chain.
fn nested(actors: &[Arc<Agent>], order: ActOrder) -> Option<Box<Act>> {
    let nest = |inner: Option<Box<Act>>, agent: &Arc<Agent>| {
        Some(Box::new(Act {
            sub: agent.subject(),
            agent_id: agent.id,
            client_id: agent.client_id.clone(),
            act: inner,
        }))
    };
    match order {
        ActOrder::FirstOutermost => actors.iter().rev().fold(None, nest),
        ActOrder::Rfc8693 => actors.iter().fold(None, nest),
    }
}

/// The claims of a token.
pub(super) fn claims(context: &GrantContext<'_>, new: NewToken<'_>) -> Result<AccessClaims, TokenError> {
    if new.scope.text_len() > MAX_SCOPE_BYTES {
        return Err(TokenError::ScopeTooLarge);
    }
    let org = context.organization;
    let issued_at = context.now.unix_seconds();
    let names = names(new.bearer).ok_or(TokenError::InvalidRequest("There is nobody to act."))?;
    let (aud, mcp_server_id) = match new.resource {
        Resource::Own => (names.own_audience, None),
        Resource::Mcp(server) => (server.resource_uri.as_str().to_owned(), Some(server.server_id.clone())),
    };
    let (act, depth) = match new.bearer {
        Bearer::Chain { actors, .. } => (nested(actors, org.act_order), u8::try_from(actors.len()).ok()),
        Bearer::Itself(_) | Bearer::User { .. } => (None, None),
    };
    let (auth_time, amr) = match new.bearer {
        Bearer::User { sign_in, .. } => {
            (Some(sign_in.at.unix_seconds()), sign_in.amr.iter().cloned().map(Cow::Owned).collect())
        }
        Bearer::Itself(_) if new.workload.is_some() => (None, vec![Cow::Borrowed("workload")]),
        Bearer::Itself(_) | Bearer::Chain { .. } => (None, Vec::new()),
    };
    Ok(AccessClaims {
        iss: context.issuer.to_owned(),
        sub: names.sub,
        aud: Audience::One(aud),
        client_id: names.client_id,
        agent_id: names.agent.as_ref().map(|agent| -> AgentId { agent.id }),
        agent_name: names.agent.map(|agent| agent.name.clone()),
        identity_type: names.identity_type.into(),
        act,
        delegation_depth: depth,
        may_act: new.may_act,
        auth_time,
        amr,
        workload_identity: new.workload,
        scope: new.scope,
        organization: org.id.clone(),
        tenant: org.id.clone(),
        mcp_server_id,
        cnf: context.key.map(|jkt| KeyBinding { jkt }),
        test: new.test,
        jit: false,
        task_id: None,
        parent_task_id: None,
        jit_request_id: None,
        authorization_details: Vec::new(),
        action_hash: None,
        caep_session_id: None,
        on_behalf_of: None,
        iat: issued_at,
        nbf: issued_at,
        exp: issued_at + u64::from(new.lifetime),
        jti: TokenId::generate().to_string(),
        lin: Lineage {
            subject: names.subject,
            consents: new.consents,
            via: new.via,
            budgets: new.envelopes,
            act_order: if depth.is_some() { org.act_order } else { ActOrder::default() },
            ..Lineage::new(std::iter::once(org.epoch).chain(names.epochs).collect(), new.ancestors)
        },
    })
}
