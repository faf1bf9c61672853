//! Introspection and revocation of refresh tokens.

use super::AuthorizationServer;
use crate::{
    audit::{Event, EventKind, Origin, Target},
    authorize::{Authorized, read, still_allowed},
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    organization::Organization,
    principal::client_actor,
    secret::SecretHash,
    store::{ConsentKey, FoundRefresh, McpServerKey, Revoked, StoreError, UserKey},
    token::Audience,
};

use super::introspect::{ActiveToken, KEEP_MARKS};

/// The longest refresh token that is looked at; access tokens are longer.
const MAX_TOKEN: usize = 128;

impl AuthorizationServer {
    /// The refresh token behind `token` and what it stands for, if the client is the one it was issued to.
    async fn own_refresh_token(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<(FoundRefresh, Authorized)>, StoreError> {
        if !token.starts_with("rt_") || token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let grants = &self.stores().grants;
        let Some(found) = grants.find_refresh(&organization.id, &SecretHash::of(token), now).await? else {
            return Ok(None);
        };
        let authorized: Authorized = read(&found.token.body)?;
        Ok((authorized.client_id == *client.client_id()).then_some((found, authorized)))
    }

    /// The facts of a refresh token of `client` that can be used now.
    pub(super) async fn introspect_refresh(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<ActiveToken>, StoreError> {
        let (org, stores) = (&organization.id, self.stores());
        let Some((kept, authorized)) = self.own_refresh_token(organization, client, token, now).await? else {
            return Ok(None);
        };
        let FoundRefresh { token: kept, rotated } = kept;
        if rotated || stores.grants.any_revoked(org, &[kept.family]).await? {
            return Ok(None);
        }
        let user = stores.users.find(org, UserKey::Id(authorized.user)).await?;
        let Some(user) = user.filter(|user| user.is_active()) else { return Ok(None) };
        let consent = stores.consents.find(org, ConsentKey::Id(authorized.consent.id)).await?;
        let holds = consent.is_some_and(|it| it.active && it.epoch == authorized.consent.epoch);
        if !holds || authorized.epochs != [organization.epoch, user.epoch, client.epoch()] {
            return Ok(None);
        }
        let server = match &authorized.resource {
            Some(id) => stores.mcp_servers.find(org, McpServerKey::ServerId(id)).await?,
            None => None,
        };
        let issuer = self.issuer(org);
        Ok(Some(ActiveToken {
            act: None,
            delegation_depth: None,
            may_act: None,
            jit: false,
            task_id: None,
            authorization_details: Vec::new(),
            action_hash: None,
            on_behalf_of: None,
            token_type: "refresh_token",
            scope: still_allowed(client, server.as_deref(), &authorized.scope),
            client_id: authorized.client_id.to_string(),
            username: Some(user.email.clone()),
            sub: user.id.to_string(),
            agent_id: None,
            agent_name: None,
            identity_type: "user".into(),
            organization: org.to_string(),
            tenant: org.to_string(),
            aud: Audience::One(issuer.clone()),
            iss: issuer,
            exp: kept.expires_at.unix_seconds(),
            iat: None,
            nbf: None,
            jti: None,
            mcp_server_id: authorized.resource.as_ref().map(ToString::to_string),
            cnf: None,
            test: false,
            budget_exceeded: false,
        }))
    }

    /// Ends the family of a refresh token of `client`, and with it every access token and delegated token that came of it.
    /// Whether it was a refresh token of `client`.
    pub(super) async fn revoke_refresh(
        &self,
        organization: &Organization,
        client: &AuthenticatedClient,
        token: &str,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some((kept, authorized)) = self.own_refresh_token(organization, client, token, now).await? else {
            return Ok(false);
        };
        let event = Event::new(EventKind::TokenRevoked, client_actor(client), "refresh token revoked", now)
            .on(Target::new("user", authorized.user.to_string()))
            .from_origin(origin)
            .with("consent", authorized.consent.id.to_string());
        let until = now.plus(KEEP_MARKS);
        match self.stores().grants.revoke(&organization.id, kept.token.family, until, &event).await? {
            Revoked::Revoked | Revoked::AlreadyRevoked => Ok(true),
        }
    }
}
