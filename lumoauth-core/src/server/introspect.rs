//! Introspection (RFC 7662) and revocation (RFC 7009).

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::Serialize;

use super::{AuthorizationServer, TokenRequest};
use crate::{
    audit::{Event, EventKind, Target},
    budget::exceeded,
    capability::Scope,
    client_auth::{AuthenticatedClient, Method},
    clock::Timestamp,
    grant::{Refusal, TokenError},
    keys::KeyPurpose,
    organization::Organization,
    principal::{Identity, Principal, client_actor},
    store::{McpServerKey, Revoked},
    token::{self, AccessClaims, Audience, token_handle},
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
}

/// The facts of an active token.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ActiveToken {
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// What it may be used for now: what was withdrawn since it was issued is gone.
    pub scope: Scope,
    /// The client it was issued to.
    pub client_id: String,
    /// Its subject.
    pub sub: String,
    /// The agent it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Display name of that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<Arc<str>>,
    /// `agent` or `client`.
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
    pub iat: u64,
    /// Not valid before, in Unix seconds.
    pub nbf: u64,
    /// Its id.
    pub jti: String,
    /// The MCP server it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_server_id: Option<String>,
    /// Made by an administrator to try things out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Lets resource servers enforce the budget too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub budget_exceeded: bool,
}

/// Marks outlive every token: the longest life is that of an administrator's test token.
const KEEP_MARKS: Duration = Duration::from_secs(31 * 86_400);

impl AuthorizationServer {
    /// Serves introspection. The caller authenticates as a client, or as an agent with its own token.
    ///
    /// It sees tokens that were issued to it, tokens whose audience it is (itself, or an MCP server that names it
    /// as its resource client), and with the scope `admin` all of its organization.
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
        let caller = self.client_or_agent(organization, request, refusal, now).await?;
        let token = request.params.get("token").ok_or(TokenError::InvalidRequest("token is required."))?;
        let issuer = self.issuer(&organization.id);
        let context = self.grant_context(organization, &issuer, None, None, request.origin, refusal, now);
        let inactive = Introspection { active: false, token: None };
        let Some(Principal { identity, claims: Some(claims), .. }) = context.principal(token).await? else {
            return Ok(inactive);
        };
        if !self.may_see(organization, &caller, &claims).await? {
            return Ok(inactive);
        }
        // What was withdrawn since the token was issued is gone from it.
        let holder = match &identity {
            Identity::Agent(agent) => AuthenticatedClient::Agent(agent.clone()),
            Identity::Client(client) => AuthenticatedClient::Client(client.clone()),
            Identity::User(person) => person.client.clone(),
            Identity::ApiKey(_) => return Ok(inactive),
        };
        let server = match &claims.mcp_server_id {
            Some(id) => self.stores().mcp_servers.find(&organization.id, McpServerKey::ServerId(id)).await?,
            None => None,
        };
        let mut bounds = vec![claims.scope.as_slice()];
        bounds.extend(
            server.as_ref().map(|server| server.scopes_supported.as_slice()).filter(|v| !v.is_empty()),
        );
        let scope = holder.narrow(None, &bounds).unwrap_or_default();
        let budget_exceeded = match &identity {
            Identity::Agent(agent) if !agent.budget.is_empty() => {
                let used = self.stores().budgets.usage(&organization.id, agent.account(), now).await?;
                exceeded(&agent.budget, &used, now).next().is_some()
            }
            Identity::Agent(_) | Identity::Client(_) | Identity::ApiKey(_) | Identity::User(_) => false,
        };
        Ok(Introspection { active: true, token: Some(ActiveToken::new(&claims, scope, budget_exceeded)) })
    }

    /// Serves revocation. Tokens that are unknown, dead or somebody else's change nothing and are no error.
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
        let caller = self.client_or_agent(organization, request, refusal, now).await?;
        let token = request.params.get("token").ok_or(TokenError::InvalidRequest("token is required."))?;
        let org = &organization.id;
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AccessToken, now).await?;
        let Ok(claims) = token::verify(token, &keys, &self.issuer(org), now) else { return Ok(()) };
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

    /// The client of the request; or, without client credentials, the agent whose own live token is the bearer.
    async fn client_or_agent(
        &self,
        organization: &Organization,
        request: TokenRequest<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<AuthenticatedClient, TokenError> {
        let client = self.authenticate_client(organization, request, refusal, now).await?;
        if client.public.is_some() {
            // Anybody can say that.
            return Err(TokenError::UnauthorizedClient);
        }
        if let Some(client) = client.proven {
            return Ok(client);
        }
        let refused = TokenError::InvalidClient(Method::Body);
        let bearer = request.authorization.and_then(|header| header.to_str().ok()).and_then(bearer_part);
        let Some(bearer) = bearer else { return Err(refused) };
        let credential = super::Credential::Bearer(bearer);
        match self.authenticate(organization, credential, super::Door::Own).await {
            Ok(Principal { identity: Identity::Agent(agent), .. }) => Ok(AuthenticatedClient::Agent(agent)),
            Ok(_) => Err(refused),
            Err(super::AuthenticateError::Store(error)) => Err(error.into()),
            Err(super::AuthenticateError::Key(error)) => Err(error.into()),
            Err(super::AuthenticateError::Refused | super::AuthenticateError::OtherOrganization) => {
                Err(refused)
            }
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
                let admin = client.allowed_scopes.iter().any(|scope| scope.as_str() == "admin");
                (&client.client_id, client.client_id.to_string(), admin)
            }
        };
        if is_admin
            || claims.client_id == *client_id
            || claims.aud.contains(client_id.as_str())
            || claims.aud.contains(&own_name)
        {
            return Ok(true);
        }
        let Some(server_id) = &claims.mcp_server_id else { return Ok(false) };
        let server =
            self.stores().mcp_servers.find(&organization.id, McpServerKey::ServerId(server_id)).await?;
        Ok(server.is_some_and(|server| server.resource_client_id.as_ref() == Some(client_id)))
    }
}

/// What follows the word `Bearer`, if that is the scheme (case does not matter, RFC 9110 section 11.1).
fn bearer_part(header: &str) -> Option<&str> {
    let (scheme, rest) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

impl ActiveToken {
    fn new(claims: &AccessClaims, scope: Scope, budget_exceeded: bool) -> Self {
        Self {
            token_type: "Bearer",
            scope,
            client_id: claims.client_id.to_string(),
            sub: claims.sub.clone(),
            agent_id: claims.agent_id.map(|id| id.to_string()),
            agent_name: claims.agent_name.clone(),
            identity_type: claims.identity_type.clone(),
            organization: claims.organization.to_string(),
            tenant: claims.tenant.to_string(),
            iss: claims.iss.clone(),
            aud: claims.aud.clone(),
            exp: claims.exp,
            iat: claims.iat,
            nbf: claims.nbf,
            jti: claims.jti.clone(),
            mcp_server_id: claims.mcp_server_id.as_ref().map(ToString::to_string),
            test: claims.test,
            budget_exceeded,
        }
    }
}
