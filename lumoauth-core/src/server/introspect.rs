//! Introspection (RFC 7662) and revocation (RFC 7009).

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    AuthenticateError, AuthorizationServer, Credential, Door, TokenRequest,
    introspect_approval::ActiveApproval, token::RequestClient,
};
use crate::{
    approval::ApprovalToken,
    audit::{Event, EventKind, Target},
    authorize::still_allowed,
    budget::exceeded,
    capability::Scope,
    client::Client,
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    grant::{Refusal, TokenError},
    id::{ClientId, OrgId},
    jit::{ActionHash, AuthorizationDetail},
    keys::KeyPurpose,
    mcp::McpServer,
    organization::Organization,
    principal::{Delegation, Identity, Principal, Represented, client_actor},
    spending::Payers,
    store::{McpServerKey, Revoked, StoreError},
    token::{AccessClaims, Act, Audience, InvalidToken, KeyBinding, MayAct, foreign, token_handle},
    user::User,
};

/// What introspection answers. An inactive token is `active: false` and nothing else, whatever the reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Introspection {
    /// Whether the token may be used now, as far as this caller may know.
    pub active: bool,
    /// The token's facts.
    #[serde(flatten)]
    pub token: Option<ActiveToken>,
    /// The facts of an approval, if the token is one.
    #[serde(flatten)]
    pub approval: Option<ActiveApproval>,
}

impl Introspection {
    /// Nothing that may be used now, as far as the caller may know.
    pub(super) const INACTIVE: Self = Self { active: false, token: None, approval: None };

    fn of(token: ActiveToken) -> Self {
        Self { active: true, token: Some(token), approval: None }
    }
}

/// The facts of an active token.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ActiveToken {
    /// `Bearer`, `DPoP` if it is bound to a key, or `refresh_token`.
    pub token_type: &'static str,
    /// What it may be used for now: what was withdrawn since it was issued is gone.
    pub scope: Scope,
    /// The client it was issued to.
    pub client_id: String,
    /// Its subject.
    pub sub: String,
    /// The e-mail address of the person it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Who acts for the subject (RFC 8693 section 4.1): the whole chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
    /// How many actors there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegation_depth: Option<u8>,
    /// Who alone may become an actor for the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_act: Option<MayAct>,
    /// The agent it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Display name of that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<Arc<str>>,
    /// `agent`, `client` or `user`.
    pub identity_type: Cow<'static, str>,
    /// The organization.
    pub organization: String,
    /// The organization again, under its older name.
    pub tenant: String,
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: Audience,
    /// Not valid from this Unix second on.
    pub exp: u64,
    /// When it was issued, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Not valid before, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Its id; a refresh token has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The MCP server it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_server_id: Option<String>,
    /// The key whose holder alone may use it (RFC 9449 section 6.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<KeyBinding>,
    /// Made by an administrator to try things out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Made for one task (just in time).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub jit: bool,
    /// The task that it ends with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// What exactly it is for (RFC 9396 section 9.2).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorization_details: Vec<AuthorizationDetail>,
    /// Names everything that was asked for when that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_hash: Option<ActionHash>,
    /// For whom its task is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Lets resource servers enforce the budget too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub budget_exceeded: bool,
}

/// Whether a public client, which has only the token to show, may come. It may end what it has (RFC 7009 section 2.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unproven {
    Accepted,
    Refused,
}

/// Marks outlive every token: the longest life is that of an administrator's test token.
pub(super) const KEEP_MARKS: Duration = Duration::from_secs(31 * 86_400);

/// How far the clocks of two replicas may be apart.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

impl AuthorizationServer {
    /// Serves introspection. The caller authenticates as a client, or as an agent with its own token.
    ///
    /// It sees tokens that were issued to it, tokens in whose chain it acts (what became of what it handed on), tokens whose
    /// audience it is (itself, or an MCP server that names it as its resource client), and with the scope `admin` all of its
    /// organization.
    ///
    /// # Errors
    /// [`TokenError`] if the caller does not authenticate or the request has no token.
    pub async fn introspect(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<Introspection, TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        match self.introspect_for_caller(organization, request, &refusal, now).await {
            Ok(done) => Ok(done),
            Err(error) => {
                let message = "introspection refused";
                Err(self.refuse(organization, request.origin, message, refusal, error, now).await)
            }
        }
    }

    async fn introspect_for_caller(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<Introspection, TokenError> {
        let caller = self.client_or_agent(organization, request, refusal, now, Unproven::Refused).await?;
        let token = request.params.get("token").ok_or(TokenError::InvalidRequest("token is required."))?;
        let issuer = self.issuer(&organization.id);
        let context =
            self.grant_context(organization, &issuer, &RequestClient::NOBODY, request.origin, refusal, now);
        let inactive = Introspection::INACTIVE;
        if let Ok(approval) = ApprovalToken::parse(token) {
            return self.introspect_approval(organization, &caller, &approval, &request, now).await;
        }
        if let Some(token) = self.introspect_refresh(organization, &caller, token, now).await? {
            return Ok(Introspection::of(token));
        }
        let Some(principal) = context.described(token).await? else { return Ok(inactive) };
        let Some(claims) = principal.claims.clone() else { return Ok(inactive) };
        if !self.may_see(organization, &caller, &claims).await? {
            return Ok(inactive);
        }
        let server = match &claims.mcp_server_id {
            Some(id) => self.stores().mcp_servers.find(&organization.id, McpServerKey::ServerId(id)).await?,
            None => None,
        };
        let token = ActiveToken {
            username: resource_owner(&principal).map(|user| user.email.clone()),
            budget_exceeded: self.is_over_budget(organization, &principal, now).await?,
            ..ActiveToken::new(&claims, usable_scope(&principal, &claims, server.as_deref()))
        };
        Ok(Introspection::of(token))
    }

    /// Whether somebody who pays for the agent's calls has used up a budget.
    async fn is_over_budget(
        &self,
        organization: &Organization,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<bool, TokenError> {
        let agents: Vec<_> = principal.agents().map(|agent| &**agent).collect();
        let payers = Payers::of_chain(&agents, principal.envelopes());
        for payer in
            payers.iter().flat_map(Payers::iter).filter(|payer| payer.policy.limits().next().is_some())
        {
            let used = self.stores().budgets.usage(&organization.id, payer.account, now).await?;
            if exceeded(payer.policy, &used, now).next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Serves revocation. Tokens that are unknown, dead or somebody else's change nothing and are no error. One whose time is
    /// over is still marked as long as a token that came of it may live.
    ///
    /// # Errors
    /// [`TokenError`] if the caller does not authenticate, the request has no token, or the store cannot record
    /// the revocation: success is only reported when it is durable.
    pub async fn revoke(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
    ) -> Result<(), TokenError> {
        let now = self.now();
        let refusal = Refusal::default();
        match self.revoke_for_caller(organization, request, &refusal, now).await {
            Ok(done) => Ok(done),
            Err(error) => {
                let message = "revocation refused";
                Err(self.refuse(organization, request.origin, message, refusal, error, now).await)
            }
        }
    }

    async fn revoke_for_caller(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let caller = self.client_or_agent(organization, request, refusal, now, Unproven::Accepted).await?;
        let token = request.params.get("token").ok_or(TokenError::InvalidRequest("token is required."))?;
        let org = &organization.id;
        if self.revoke_refresh(organization, &caller, token, request.origin, now).await? {
            return Ok(());
        }
        let Some(claims) = self.revocable(org, token, now).await? else { return Ok(()) };
        if claims.client_id != *caller.client_id() {
            return Ok(());
        }
        let event = Event::new(EventKind::TokenRevoked, client_actor(&caller), "token revoked", now)
            .on(Target::new("token", claims.jti.as_str()))
            .from_origin(request.origin);
        let handle = token_handle(org, &claims.jti);
        match self.stores().grants.revoke(org, handle, now.plus(KEEP_MARKS), &event).await? {
            Revoked::Revoked | Revoked::AlreadyRevoked => Ok(()),
        }
    }

    /// The claims of an access token of ours, also of one that has ended if something that came of it may go on.
    async fn revocable(
        &self,
        org: &OrgId,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<Arc<AccessClaims>>, TokenError> {
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AccessToken, now).await?;
        let verify = |at| self.inner.verified.verify(token, &keys, &self.issuer(org), at);
        let claims = match verify(now) {
            // What it says itself about its end only chooses the instant of which everything is asked once more.
            Err(InvalidToken::Expired) => {
                let end = foreign::read(token).ok().and_then(|token| token.claims().get("exp")?.as_u64());
                let last = end.and_then(|end| end.checked_sub(1)).map(Timestamp::from_unix_seconds);
                // An agent's token for an MCP server is a fresh grant, and may be the last thing that came of it.
                let longest = Duration::from_secs(McpServer::MAX_TOKEN_LIFETIME.into());
                let matters = |last: &Timestamp| now < last.plus(longest + CLOCK_SKEW);
                last.filter(matters).map_or(Err(InvalidToken::Expired), verify)
            }
            known => known,
        };
        Ok(claims.ok())
    }

    /// The client of the request; or, without client credentials, the agent whose own live token is presented.
    async fn client_or_agent(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
        unproven: Unproven,
    ) -> Result<AuthenticatedClient, TokenError> {
        let authenticated = self.authenticate_client(organization, request, refusal, now).await?;
        if authenticated.public.is_some() && unproven == Unproven::Refused {
            return Err(TokenError::UnauthorizedClient);
        }
        if let Some(client) = authenticated.either() {
            return Ok(client);
        }
        let refused = TokenError::InvalidClient(Method::Body);
        let header = request.authorization.and_then(|header| header.to_str().ok()).and_then(scheme_and_token);
        let credential = match (header, request.dpop) {
            (Some((scheme, token)), _) if scheme.eq_ignore_ascii_case("bearer") => Credential::Bearer(token),
            (Some((scheme, token)), Some(request)) if scheme.eq_ignore_ascii_case("dpop") => {
                Credential::Dpop { token, request }
            }
            _ => return Err(refused),
        };
        match self.authenticate(organization, credential, Door::Own, request.origin).await {
            // One who acts for somebody is not there for itself.
            Ok(Principal { identity: Identity::Agent(agent), delegation: None, .. }) => {
                Ok(AuthenticatedClient::Agent(agent))
            }
            Ok(_) => Err(refused),
            Err(AuthenticateError::Store(error)) => Err(error.into()),
            Err(AuthenticateError::Key(error)) => Err(error.into()),
            Err(AuthenticateError::Remote(error)) => {
                Err(StoreError::unavailable("authenticate", error).into())
            }
            Err(
                AuthenticateError::Refused
                | AuthenticateError::RefusedDpop
                | AuthenticateError::InvalidProof
                | AuthenticateError::OtherOrganization,
            ) => Err(refused),
        }
    }

    async fn may_see(
        &self,
        organization: &Organization,
        caller: &AuthenticatedClient,
        claims: &Arc<AccessClaims>,
    ) -> Result<bool, TokenError> {
        let (client_id, own_name, is_admin) = match caller {
            AuthenticatedClient::Agent(agent) => (&agent.client_id, agent.id.to_string(), false),
            AuthenticatedClient::Client(client) => {
                let admin = acts_for_itself(client)
                    && client.allowed_scopes.iter().any(|scope| scope.as_str() == "admin");
                (&client.client_id, client.client_id.to_string(), admin)
            }
        };
        let acts_in_it = claims.actors().iter().any(|actor| actor.client_id == *client_id);
        Ok(is_admin || acts_in_it || self.is_party(&organization.id, client_id, &own_name, claims).await?)
    }

    /// Whether a token was issued to a client, or is meant for it or for an MCP server that names it.
    pub(super) async fn is_party(
        &self,
        org: &OrgId,
        client_id: &ClientId,
        own_name: &str,
        claims: &AccessClaims,
    ) -> Result<bool, StoreError> {
        if claims.client_id == *client_id
            || claims.aud.contains(client_id.as_str())
            || claims.aud.contains(own_name)
        {
            return Ok(true);
        }
        let Some(server_id) = &claims.mcp_server_id else { return Ok(false) };
        let server = self.stores().mcp_servers.find(org, McpServerKey::ServerId(server_id)).await?;
        Ok(server.is_some_and(|server| server.resource_client_id.as_ref() == Some(client_id)))
    }
}

/// Whether the scopes of the client are its own, and not those that people may give it.
fn acts_for_itself(client: &Client) -> bool {
    let may_use = |grant| client.grant_types.iter().any(|one| one == grant);
    client.confidential && may_use("client_credentials") && !may_use("authorization_code")
}

/// What a token may be used for now: what was withdrawn from anybody who bounds it since it was issued is gone from it.
fn usable_scope(principal: &Principal, claims: &AccessClaims, server: Option<&McpServer>) -> Scope {
    let vocabulary = server.map_or(&[][..], |server| &server.scopes_supported);
    let mut bounds = vec![claims.scope.as_slice()];
    if !vocabulary.is_empty() {
        bounds.push(vocabulary);
    }
    let scope = match &principal.identity {
        Identity::Agent(agent) => agent.narrow(None, &bounds),
        Identity::Client(client) => AuthenticatedClient::Client(client.clone()).narrow(None, &bounds),
        Identity::User(person) => return still_allowed(&person.client, server, &claims.scope),
        Identity::ApiKey(_) | Identity::Remote(_) => Ok(Scope::default()),
    };
    let items = scope.unwrap_or_default();
    Scope::new(items.as_slice().iter().filter(|item| principal.decide(item).is_allow()).cloned())
}

/// The person whom a token is about.
fn resource_owner(principal: &Principal) -> Option<&User> {
    match (&principal.identity, principal.delegation.as_deref()) {
        (Identity::User(person), _) => Some(&person.user),
        (_, Some(Delegation { represented: Represented::User(user), .. })) => Some(user),
        (Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_), _) => None,
    }
}

/// The scheme (whose case does not matter, RFC 9110 section 11.1), and what follows it.
fn scheme_and_token(header: &str) -> Option<(&str, &str)> {
    header.split_once(' ').map(|(scheme, rest)| (scheme, rest.trim()))
}

impl ActiveToken {
    fn new(claims: &AccessClaims, scope: Scope) -> Self {
        Self {
            token_type: claims.token_type(),
            scope,
            client_id: claims.client_id.to_string(),
            sub: claims.sub.clone(),
            username: None,
            act: claims.act.clone(),
            delegation_depth: claims.delegation_depth,
            may_act: claims.may_act.clone(),
            agent_id: claims.agent_id.map(|id| id.to_string()),
            agent_name: claims.agent_name.clone(),
            identity_type: claims.identity_type.clone(),
            organization: claims.organization.to_string(),
            tenant: claims.tenant.to_string(),
            iss: claims.iss.clone(),
            aud: claims.aud.clone(),
            exp: claims.exp,
            iat: Some(claims.iat),
            nbf: Some(claims.nbf),
            jti: Some(claims.jti.clone()),
            mcp_server_id: claims.mcp_server_id.as_ref().map(ToString::to_string),
            cnf: claims.cnf,
            test: claims.test,
            jit: claims.jit,
            task_id: claims.task_id.as_ref().map(ToString::to_string),
            authorization_details: claims.authorization_details.clone(),
            action_hash: claims.action_hash.clone(),
            on_behalf_of: claims.on_behalf_of.clone(),
            budget_exceeded: false,
        }
    }
}
