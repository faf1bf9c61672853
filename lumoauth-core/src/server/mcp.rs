//! The registry of MCP servers, their metadata (RFC 9728), and the challenge that stands in for one.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, removed, retrying, shown::Shows, written};
use crate::{
    agent::{checked_text, https_url, scope_list},
    audit::{Event, EventKind, Origin, Target, cleaned},
    capability::Capability,
    client::Client,
    client_auth::AuthenticatedClient,
    id::{AgentId, ClientId, McpServerId, Number, OrgId},
    jit::{AuthorizationDetail, DetailRules},
    mcp::{AuthMode, McpServer, ResourceUri, Transport},
    principal::{Identity, Principal},
    secret::Secret,
    store::{AgentKey, ClientKey, Insert, McpServerKey, Update},
    wire::view,
};

/// The members of an MCP server that an administrator may set. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct McpServerPatch {
    /// Display name.
    pub name: Option<String>,
    /// The resource identifier.
    pub resource_uri: Option<String>,
    /// Other identifiers of the same server.
    pub aliases: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
    /// Where it listens.
    pub endpoint_url: Option<String>,
    /// Its scopes: a list, or text with spaces or commas between.
    pub scopes_supported: Option<Value>,
    /// A sentence per scope.
    pub scope_descriptions: Option<BTreeMap<String, String>>,
    /// How it speaks.
    pub transport: Option<Transport>,
    /// Whether it wants tokens.
    pub auth_mode: Option<AuthMode>,
    /// `active` or `inactive`.
    pub status: Option<String>,
    /// Life of its tokens in seconds, clamped to 60..86400.
    pub token_lifetime: Option<u64>,
    /// The OAuth clients that may get tokens.
    pub allowed_client_ids: Option<Vec<String>>,
    /// The agents that may get tokens (id or slug).
    pub allowed_agent_ids: Option<Vec<String>>,
    /// The client with which the server introspects.
    pub resource_client_id: Option<String>,
    /// Only at creation: make that client.
    #[serde(rename = "issueResourceClient", alias = "issue_resource_client")]
    pub issue_resource_client: Option<bool>,
    /// Always on.
    pub require_pkce: Option<bool>,
    /// Always on.
    pub require_resource_param: Option<bool>,
    /// Not enforced yet.
    pub require_dpop: Option<bool>,
}

/// A new MCP server, with the credentials that are shown once.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct NewMcpServer {
    /// The record.
    pub server: Arc<McpServer>,
    /// The client with which the server introspects, and its secret.
    pub resource_client: Option<(ClientId, Secret)>,
}

/// What became of a visit to the challenge of an MCP server.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "each has its own answer")]
pub enum Visit {
    /// The token is good.
    Authenticated,
    /// The token is good but lacks a scope of the server.
    InsufficientScope,
    /// The token is good but was not granted what is required in detail.
    InsufficientDetails,
}

impl AuthorizationServer {
    /// Registers an MCP server.
    ///
    /// # Errors
    /// [`ApiError::Unprocessable`] if a member is not acceptable; [`ApiError::Conflict`] if one of its identifiers
    /// is taken.
    pub async fn create_mcp_server(
        &self,
        org: &OrgId,
        patch: &McpServerPatch,
        caller: &Caller,
    ) -> Result<NewMcpServer, ApiError> {
        let now = self.now();
        let required = |member| ApiError::Unprocessable { member, problem: "is required".to_owned() };
        let name = patch.name.as_deref().ok_or_else(|| required("name"))?;
        let uri = patch.resource_uri.as_deref().ok_or_else(|| required("resource_uri"))?;
        let uri = resource("resource_uri", uri).map_err(ApiError::unprocessable)?;
        let mut server = McpServer::new(name, uri, now);
        self.apply_mcp_patch(org, &mut server, patch).await.map_err(ApiError::unprocessable)?;
        if self.stores().mcp_servers.all(org).await?.len() >= McpServer::MAX_PER_ORG {
            return Err(ApiError::Conflict("The organization has as many MCP servers as it may."));
        }
        for target in server.targets() {
            // Asked before the resource client is made, so that a refusal leaves none behind.
            if self.stores().mcp_servers.find(org, McpServerKey::Target(target)).await?.is_some() {
                return Err(TAKEN);
            }
        }
        let resource_client = if patch.issue_resource_client == Some(true) {
            let (mut client, secret) = Client::new(format!("{} (resource)", server.name), now);
            client.grant_types.clear();
            server.resource_client_id = Some(client.client_id.clone());
            self.insert_client(org, &client, caller, now).await?;
            Some((client.client_id, secret))
        } else {
            None
        };
        let event = caller
            .event(EventKind::McpServerCreated, format!("MCP server {} registered", server.name), now)
            .on(mcp_target(&server))
            .with("resource_uri", server.resource_uri.as_str())
            .made(view::mcp_server(&server));
        match self.stores().mcp_servers.insert(org, &server, &event).await? {
            Insert::Inserted => Ok(NewMcpServer { server: Arc::new(server), resource_client }),
            Insert::Taken(_) => Err(TAKEN),
        }
    }

    /// The MCP server with this public or integer id.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn mcp_server(&self, org: &OrgId, name: &str) -> Result<Arc<McpServer>, ApiError> {
        let servers = &self.stores().mcp_servers;
        let found = match (McpServerId::parse(name), name.parse()) {
            (Ok(id), _) => servers.find(org, McpServerKey::ServerId(&id)).await?,
            (_, Ok(number)) => servers.find(org, McpServerKey::Number(Number::new(number))).await?,
            _ => None,
        };
        found.ok_or(ApiError::NotFound("MCP server"))
    }

    /// The MCP servers that the caller may use; all of them for an administrator.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn mcp_servers(
        &self,
        org: &OrgId,
        principal: Option<&Principal>,
    ) -> Result<Vec<Arc<McpServer>>, ApiError> {
        let mut servers = self.stores().mcp_servers.all(org).await?;
        if let Some(principal) = principal {
            servers.retain(|server| sees(principal, server));
        }
        Ok(servers)
    }

    /// The MCP server, if the caller may use it; to others it does not exist.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none for this caller.
    pub async fn visible_mcp_server(
        &self,
        org: &OrgId,
        principal: &Principal,
        name: &str,
    ) -> Result<Arc<McpServer>, ApiError> {
        let server = self.mcp_server(org, name).await?;
        if sees(principal, &server) { Ok(server) } else { Err(ApiError::NotFound("MCP server")) }
    }

    /// Changes an MCP server's members; those that are absent stay.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such server or a member is not acceptable.
    pub async fn update_mcp_server(
        &self,
        org: &OrgId,
        name: &str,
        patch: &McpServerPatch,
        caller: &Caller,
    ) -> Result<Arc<McpServer>, ApiError> {
        let now = self.now();
        retrying(|| async {
            let current = self.mcp_server(org, name).await?;
            caller.expects(&*current)?;
            let mut next = (*current).clone();
            self.apply_mcp_patch(org, &mut next, patch).await?;
            let (before, after) = (view::mcp_server(&current), view::mcp_server(&next));
            if view::changes(&before, &after).1.is_empty() {
                return Ok(Some(current));
            }
            next.updated_at = now;
            let event = caller
                .event(EventKind::McpServerUpdated, format!("MCP server {} updated", next.name), now)
                .on(mcp_target(&next))
                .changed(&before, &after);
            match self.stores().mcp_servers.update(org, &next, &event).await? {
                Update::Taken(_) => Err(TAKEN),
                outcome => written(outcome, "MCP server", || {
                    next.version += 1;
                    Arc::new(next)
                }),
            }
        })
        .await
    }

    /// Removes an MCP server.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_mcp_server(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        retrying(|| async {
            let server = self.mcp_server(org, name).await?;
            caller.expects(&*server)?;
            let event = caller
                .event(EventKind::McpServerDeleted, format!("MCP server {} removed", server.name), self.now())
                .on(mcp_target(&server))
                .gone(view::mcp_server(&server));
            let servers = &self.stores().mcp_servers;
            removed(servers.remove(org, &server.server_id, server.version, &event).await?, "MCP server")
        })
        .await
    }

    /// A token has been presented to the challenge of `server`: does it carry the server's scopes, or what is `required` in
    /// detail? Either way it is recorded as a connection, good or failed.
    ///
    /// # Errors
    /// [`ApiError`] if the visit cannot be recorded.
    pub async fn visit_mcp_server(
        &self,
        org: &OrgId,
        server: &McpServer,
        principal: &Principal,
        required: Option<&AuthorizationDetail>,
        origin: &Origin,
    ) -> Result<Visit, ApiError> {
        let scope = principal.token_scope().unwrap_or_default();
        let covered = |wanted: &Capability| {
            principal.decide(wanted).is_allow() && scope.iter().any(|c| c.covers(wanted))
        };
        // A visitor needs one scope of the vocabulary: the server's own routes say which one they want.
        let (fits, lack, reason) = match required {
            Some(required) => {
                let granted = DetailRules::default().allow(principal.authorization_details(), required);
                (granted, Visit::InsufficientDetails, "insufficient_authorization_details")
            }
            None => {
                let listed = server.scopes_supported.iter().any(covered);
                let fits = server.scopes_supported.is_empty() || listed;
                (fits, Visit::InsufficientScope, "insufficient_scope")
            }
        };
        let mut event = Event::new(EventKind::McpConnection, principal.actor(), "connected", self.now())
            .on(mcp_target(server))
            .from_origin(origin);
        if let Some(required) = required {
            event = event.with("type", cleaned(required.kind()));
        }
        if !fits {
            event = event.failed(reason);
        }
        self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        Ok(if fits { Visit::Authenticated } else { lack })
    }

    /// The URL of a server's protected resource metadata.
    pub fn resource_metadata_url(&self, org: &OrgId, server: &McpServer) -> String {
        format!("{}/.well-known/oauth-protected-resource/mcp/{}", self.issuer(org), server.server_id)
    }

    /// A server's protected resource metadata (RFC 9728 section 2). The issuer comes first; some clients expect the
    /// URL of its metadata, which comes second.
    pub fn resource_metadata(&self, org: &OrgId, server: &McpServer) -> Value {
        let issuer = self.issuer(org);
        json!({
            "resource": server.resource_uri.as_str(),
            "resource_name": server.name,
            "authorization_servers": [issuer, format!("{issuer}/.well-known/oauth-authorization-server")],
            "bearer_methods_supported": ["header"],
            "scopes_supported": server.scopes_supported,
        })
    }

    async fn apply_mcp_patch(
        &self,
        org: &OrgId,
        server: &mut McpServer,
        patch: &McpServerPatch,
    ) -> Result<(), ApiError> {
        if let Some(name) = &patch.name {
            server.name = checked_text("name", name, 1, 128)?;
        }
        if let Some(uri) = &patch.resource_uri {
            server.resource_uri = resource("resource_uri", uri)?;
        }
        if let Some(aliases) = &patch.aliases {
            if aliases.len() > 16 {
                return Err(problem("aliases", "are more than 16"));
            }
            server.aliases =
                aliases.iter().map(|alias| resource("aliases", alias)).collect::<Result<_, _>>()?;
        }
        // Tokens for anything on our own origin could be taken for tokens for us, whatever the path.
        let origin = |text: &str| url::Url::parse(text).map(|url| url.origin());
        let own = origin(self.public_url());
        if server.targets().map(origin).any(|target| target.is_ok_and(|it| it.is_tuple() && own == Ok(it))) {
            return Err(problem("resource_uri", "must not be this authorization server itself"));
        }
        let mut targets: Vec<_> = server.targets().collect();
        targets.sort_unstable();
        if targets.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(problem("aliases", "repeat an identifier of the server"));
        }
        if let Some(description) = &patch.description {
            let text = checked_text("description", description, 0, 1024)?;
            server.description = Some(text).filter(|text| !text.is_empty());
        }
        if let Some(url) = &patch.endpoint_url {
            server.endpoint_url = Some(match ResourceUri::parse(url) {
                Ok(_) if url.starts_with("http://") => url.clone(),
                _ => https_url("endpoint_url", url)?,
            });
        }
        if let Some(scopes) = &patch.scopes_supported {
            server.scopes_supported = scope_list("scopes_supported", scopes)?;
        }
        if let Some(descriptions) = &patch.scope_descriptions {
            if descriptions.len() > 200 {
                return Err(problem("scope_descriptions", "are more than 200"));
            }
            for text in descriptions.iter().flat_map(|(name, text)| [name, text]) {
                checked_text("scope_descriptions", text, 0, 512)?;
            }
            server.scope_descriptions.clone_from(descriptions);
        }
        if let Some(transport) = patch.transport {
            server.transport = transport;
        }
        if let Some(mode) = patch.auth_mode {
            server.auth_mode = mode;
        }
        match patch.status.as_deref() {
            None => {}
            Some("active") => server.active = true,
            Some("inactive") => server.active = false,
            Some(_) => return Err(problem("status", "must be active or inactive")),
        }
        if let Some(seconds) = patch.token_lifetime {
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            server.token_lifetime =
                seconds.clamp(McpServer::MIN_TOKEN_LIFETIME, McpServer::MAX_TOKEN_LIFETIME);
        }
        if let Some(ids) = &patch.allowed_client_ids {
            server.allowed_client_ids = self.known_clients(org, ids).await?;
        }
        if let Some(names) = &patch.allowed_agent_ids {
            server.allowed_agent_ids = self.known_agents(org, names).await?;
        }
        if let Some(id) = &patch.resource_client_id {
            let known = self.known_clients(org, std::slice::from_ref(id)).await;
            server.resource_client_id = match known {
                Err(ApiError::Invalid { .. }) => return Err(problem("resource_client_id", "is unknown")),
                known => known?.pop(),
            };
        }
        if patch.require_pkce == Some(false) || patch.require_resource_param == Some(false) {
            return Err(problem("require_pkce", "and require_resource_param cannot be switched off"));
        }
        if patch.require_dpop == Some(true) {
            return Err(problem("require_dpop", "is not supported by this server yet"));
        }
        Ok(())
    }

    async fn known_clients(&self, org: &OrgId, ids: &[String]) -> Result<Vec<ClientId>, ApiError> {
        let unknown = || problem("allowed_client_ids", "name an unknown client");
        let mut known = Vec::with_capacity(ids.len());
        if ids.len() > 1000 {
            return Err(problem("allowed_client_ids", "are more than 1000"));
        }
        for id in ids {
            let id = ClientId::parse(id).map_err(|_| unknown())?;
            let exists = if id.is_app() {
                self.stores().clients.find(org, ClientKey::ClientId(&id)).await?.is_some()
            } else {
                self.stores().agents.find(org, AgentKey::ClientId(&id)).await?.is_some()
            };
            if !exists {
                return Err(unknown());
            }
            known.push(id);
        }
        Ok(known)
    }

    async fn known_agents(&self, org: &OrgId, names: &[String]) -> Result<Vec<AgentId>, ApiError> {
        if names.len() > 1000 {
            return Err(problem("allowed_agent_ids", "are more than 1000"));
        }
        let mut known = Vec::with_capacity(names.len());
        for name in names {
            let agent = self.find_agent(org, name).await?;
            known.push(agent.ok_or_else(|| problem("allowed_agent_ids", "name an unknown agent"))?.id);
        }
        Ok(known)
    }
}

const TAKEN: ApiError = ApiError::Conflict("An MCP server with this resource identifier exists.");

pub(super) fn sees(principal: &Principal, server: &McpServer) -> bool {
    match &principal.identity {
        Identity::Agent(agent) => server.admits(&agent.client_id, Some(agent.id)),
        Identity::Client(client) => server.admits(&client.client_id, None),
        Identity::User(person) => match &person.client {
            AuthenticatedClient::Agent(agent) => server.admits(&agent.client_id, Some(agent.id)),
            AuthenticatedClient::Client(client) => server.admits(&client.client_id, None),
        },
        Identity::ApiKey(_) => principal.administers_agents(),
        Identity::Remote(_) => false,
    }
}

fn problem(member: &'static str, problem: &str) -> ApiError {
    ApiError::Invalid { member, problem: problem.to_owned() }
}

fn resource(member: &'static str, text: &str) -> Result<ResourceUri, ApiError> {
    ResourceUri::parse(text)
        .map_err(|error| ApiError::Invalid { member, problem: format!("is not acceptable: {error}") })
}

fn mcp_target(server: &McpServer) -> Target {
    Target::new("mcp_server", server.server_id.as_str()).named(&*server.name)
}
