//! The registry of AAuth: which agents have a part in it, and which resources there are.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    aauth_resource::{AAuthResource, AuthLevel},
    agent::{
        AAuthIdentityPatch, Agent, AgentPatch, IdentityType, checked_text, https_url, key_set, scope_list,
    },
    audit::{EventKind, Target},
    id::{AAuthIdentifier, AAuthResourceId, Number, OrgId},
    keys::{Jwk, KeyError, KeyPurpose},
    server::{ApiError, AuthorizationServer, Caller, removed, retrying, shown::Shows, written},
    store::{AAuthResourceKey, AgentFilter, AgentKey, Insert, Listing, Page, Update},
    wire::view,
};

/// The members of an AAuth agent that an administrator may set. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AAuthAgentPatch {
    /// Display name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// The URL that names it.
    #[serde(alias = "agentIdentifier", alias = "identifier")]
    pub agent_identifier: Option<String>,
    /// Its public keys (RFC 7517), or
    pub jwks: Option<Value>,
    /// where they are published.
    #[serde(alias = "jwksUri")]
    pub jwks_uri: Option<String>,
    /// Where a person's answer may go.
    #[serde(alias = "redirectUris")]
    pub redirect_uris: Option<Vec<String>>,
    /// What it may ask of resources. An empty list bounds nothing: then it may ask for all that they offer.
    #[serde(alias = "allowedScopes")]
    pub allowed_scopes: Option<Value>,
    /// How it may sign.
    #[serde(alias = "signingAlgs")]
    pub signing_algs: Option<Vec<String>>,
    /// Whether it may ask people.
    #[serde(alias = "userAuthorization")]
    pub user_authorization: Option<bool>,
    /// Whether it may have delegates.
    pub delegation: Option<bool>,
    /// Whether it may exchange tokens.
    #[serde(alias = "tokenExchange")]
    pub token_exchange: Option<bool>,
    /// Only at creation: the agent (id or slug) that becomes one of AAuth. Without it a new agent is created.
    #[serde(alias = "agentId")]
    pub agent_id: Option<String>,
}

impl AAuthAgentPatch {
    /// The same as members of the agent. A new agent that is nothing but one of AAuth may do what it may ask of resources.
    fn of_agent(&self, new: bool) -> AgentPatch {
        let mut patch = AgentPatch::default();
        patch.name.clone_from(&self.name);
        patch.description.clone_from(&self.description);
        patch.jwks.clone_from(&self.jwks);
        patch.jwks_uri.clone_from(&self.jwks_uri);
        patch.redirect_uris.clone_from(&self.redirect_uris);
        patch.identity_type = new.then_some(IdentityType::Aauth);
        if new && let Some(scopes) = &self.allowed_scopes {
            let scopes = scope_list("allowed_scopes", scopes).unwrap_or_default();
            patch.capabilities = Some(scopes.iter().map(ToString::to_string).collect());
        }
        patch
    }

    fn identity(&self) -> AAuthIdentityPatch {
        let mut patch = AAuthIdentityPatch::default();
        patch.identifier.clone_from(&self.agent_identifier);
        patch.allowed_scopes.clone_from(&self.allowed_scopes);
        patch.algorithms.clone_from(&self.signing_algs);
        patch.user_authorization = self.user_authorization;
        patch.delegation = self.delegation;
        patch.token_exchange = self.token_exchange;
        patch
    }
}

/// The members of an AAuth resource that an administrator may set. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AAuthResourcePatch {
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Only at creation: the URL that names it.
    #[serde(alias = "resourceIdentifier", alias = "identifier")]
    pub resource_identifier: Option<String>,
    /// Its public keys (RFC 7517), in place of published ones; an empty set takes them away.
    pub jwks: Option<Value>,
    /// Where they are published, in place of registered ones; empty takes it away.
    #[serde(alias = "jwksUri")]
    pub jwks_uri: Option<String>,
    /// Its scopes: a list, or text with spaces or commas between.
    #[serde(alias = "supportedScopes")]
    pub supported_scopes: Option<Value>,
    /// A sentence per scope.
    #[serde(alias = "scopeDescriptions")]
    pub scope_descriptions: Option<BTreeMap<String, String>>,
    /// What it demands of people.
    #[serde(alias = "defaultAuthLevel")]
    pub default_auth_level: Option<AuthLevel>,
    /// `active` or `inactive`.
    pub status: Option<String>,
}

fn problem(member: &'static str, problem: &str) -> ApiError {
    ApiError::Invalid { member, problem: problem.to_owned() }
}

impl AAuthResourcePatch {
    fn apply(&self, resource: &mut AAuthResource) -> Result<(), ApiError> {
        if let Some(name) = &self.name {
            resource.name = checked_text("name", name, 1, 128)?;
        }
        if let Some(description) = &self.description {
            let text = checked_text("description", description, 0, 1024)?;
            resource.description = Some(text).filter(|text| !text.is_empty());
        }
        if self.jwks.is_some() && self.jwks_uri.is_some() {
            return Err(problem("jwks", "cannot be given together with jwks_uri"));
        }
        if let Some(uri) = &self.jwks_uri {
            resource.jwks_uri = if uri.is_empty() { None } else { Some(https_url("jwks_uri", uri)?) };
            resource.jwks = None;
        }
        if let Some(keys) = &self.jwks {
            resource.jwks = key_set("jwks", keys)?;
            resource.jwks_uri = None;
        }
        if let Some(scopes) = &self.supported_scopes {
            resource.supported_scopes = scope_list("supported_scopes", scopes)?;
        }
        if let Some(descriptions) = &self.scope_descriptions {
            if descriptions.len() > 200 {
                return Err(problem("scope_descriptions", "are more than 200"));
            }
            for text in descriptions.iter().flat_map(|(name, text)| [name, text]) {
                checked_text("scope_descriptions", text, 0, 512)?;
            }
            resource.scope_descriptions.clone_from(descriptions);
        }
        if let Some(level) = self.default_auth_level {
            resource.default_auth_level = level;
        }
        match self.status.as_deref() {
            None => {}
            Some("active") => resource.active = true,
            Some("inactive") => {
                if resource.active {
                    // What was given for it does not come back when it does.
                    resource.epoch = resource.epoch.saturating_add(1);
                }
                resource.active = false;
            }
            Some(_) => return Err(problem("status", "must be active or inactive")),
        }
        Ok(())
    }
}

impl AuthorizationServer {
    /// Gives an agent a part in AAuth: one that is there, or a new one.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable, there is no such agent, or the identifier is taken.
    pub async fn create_aauth_agent(
        &self,
        org: &OrgId,
        patch: &AAuthAgentPatch,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let Some(name) = &patch.agent_id else {
            if patch.agent_identifier.is_none() {
                return Err(problem("agent_identifier", "is required"));
            }
            let mut of_agent = patch.of_agent(true);
            of_agent.aauth = Some(patch.identity());
            return Ok(self.create_agent(org, &of_agent, caller).await?.agent);
        };
        self.change_aauth_agent(org, name, patch, EventKind::AAuthAgentRegistered, caller).await
    }

    /// The agent with this id, slug or AAuth identifier, if it has a part in AAuth.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn aauth_agent(&self, org: &OrgId, name: &str) -> Result<Arc<Agent>, ApiError> {
        let found = match AAuthIdentifier::parse(name) {
            Ok(identifier) => self.stores().agents.find(org, AgentKey::AAuthIdentifier(&identifier)).await?,
            Err(_) => self.find_agent(org, name).await?,
        };
        found.filter(|agent| agent.aauth.is_some()).ok_or(ApiError::NotFound("AAuth agent"))
    }

    /// A page of the agents that have a part in AAuth, by slug.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn aauth_agents(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Agent>>, ApiError> {
        let filter = AgentFilter { aauth: true, ..AgentFilter::default() };
        Ok(self.stores().agents.list(org, &filter, page).await?)
    }

    /// Changes an AAuth agent's members; those that are absent stay.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such agent or a member is not acceptable.
    pub async fn update_aauth_agent(
        &self,
        org: &OrgId,
        name: &str,
        patch: &AAuthAgentPatch,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let agent = self.aauth_agent(org, name).await?;
        let id = agent.id.to_string();
        self.change_aauth_agent(org, &id, patch, EventKind::AAuthAgentUpdated, caller).await
    }

    async fn change_aauth_agent(
        &self,
        org: &OrgId,
        name: &str,
        patch: &AAuthAgentPatch,
        kind: EventKind,
        caller: &Caller,
    ) -> Result<Arc<Agent>, ApiError> {
        let mut of_agent = patch.of_agent(false);
        of_agent.aauth = Some(patch.identity());
        self.update_agent_as(org, name, &of_agent, kind, caller).await
    }

    /// Takes an agent out of AAuth. Everything that it was given ends; the agent stays.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_aauth_agent(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let agent = self.aauth_agent(org, name).await?;
        let patch = AgentPatch { aauth_identity: Some(json!({})), ..AgentPatch::default() };
        let kind = EventKind::AAuthAgentRemoved;
        self.update_agent_as(org, &agent.id.to_string(), &patch, kind, caller).await.map(drop)
    }

    /// Registers a resource.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable, or the identifier is taken.
    pub async fn create_aauth_resource(
        &self,
        org: &OrgId,
        patch: &AAuthResourcePatch,
        caller: &Caller,
    ) -> Result<Arc<AAuthResource>, ApiError> {
        let now = self.now();
        let required = |member| problem(member, "is required");
        let name = patch.name.as_deref().ok_or_else(|| required("name"))?;
        let identifier =
            patch.resource_identifier.as_deref().ok_or_else(|| required("resource_identifier"))?;
        let rule = "must be an https URL (http on a loopback host) without user, query and fragment";
        let identifier =
            AAuthIdentifier::parse(identifier).map_err(|_| problem("resource_identifier", rule))?;
        let mut resource = AAuthResource::new(name, identifier, now);
        patch.apply(&mut resource)?;
        let event = caller
            .event(
                EventKind::AAuthResourceCreated,
                format!("AAuth resource {} registered", resource.name),
                now,
            )
            .on(target(&resource))
            .with("resource_identifier", resource.identifier.as_str())
            .made(view::aauth_resource(&resource));
        match self.stores().aauth_resources.insert(org, &resource, &event).await? {
            Insert::Inserted => Ok(Arc::new(resource)),
            Insert::Taken(_) => Err(ApiError::Conflict("A resource with this identifier exists.")),
        }
    }

    /// The resource with this public or integer id, or this identifier.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn aauth_resource(&self, org: &OrgId, name: &str) -> Result<Arc<AAuthResource>, ApiError> {
        let resources = &self.stores().aauth_resources;
        let found = if let Ok(id) = AAuthResourceId::parse(name) {
            resources.find(org, AAuthResourceKey::Id(&id)).await?
        } else if let Ok(number) = name.parse() {
            resources.find(org, AAuthResourceKey::Number(Number::new(number))).await?
        } else if let Ok(identifier) = AAuthIdentifier::parse(name) {
            resources.find(org, AAuthResourceKey::Identifier(&identifier)).await?
        } else {
            None
        };
        found.ok_or(ApiError::NotFound("AAuth resource"))
    }

    /// A page of the resources, by identifier.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn aauth_resources(
        &self,
        org: &OrgId,
        page: Page,
    ) -> Result<Listing<Arc<AAuthResource>>, ApiError> {
        Ok(self.stores().aauth_resources.list(org, page).await?)
    }

    /// Changes a resource's members; those that are absent stay.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such resource or a member is not acceptable.
    pub async fn update_aauth_resource(
        &self,
        org: &OrgId,
        name: &str,
        patch: &AAuthResourcePatch,
        caller: &Caller,
    ) -> Result<Arc<AAuthResource>, ApiError> {
        let now = self.now();
        retrying(|| async {
            let current = self.aauth_resource(org, name).await?;
            caller.expects(&*current)?;
            let named = |text: &String| text != current.identifier.as_str();
            if patch.resource_identifier.as_ref().is_some_and(named) {
                return Err(problem("resource_identifier", "cannot be changed"));
            }
            let mut next = (*current).clone();
            patch.apply(&mut next)?;
            let (before, after) = (view::aauth_resource(&current), view::aauth_resource(&next));
            if view::changes(&before, &after).1.is_empty() {
                return Ok(Some(current));
            }
            next.updated_at = now;
            let event = caller
                .event(EventKind::AAuthResourceUpdated, format!("AAuth resource {} updated", next.name), now)
                .on(target(&next))
                .changed(&before, &after);
            let outcome: Update = self.stores().aauth_resources.update(org, &next, &event).await?;
            written(outcome, "AAuth resource", || {
                next.version += 1;
                Arc::new(next)
            })
        })
        .await
    }

    /// Removes a resource. Everything that was given for it ends.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_aauth_resource(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        retrying(|| async {
            let resource = self.aauth_resource(org, name).await?;
            caller.expects(&*resource)?;
            let text = format!("AAuth resource {} removed", resource.name);
            let event = caller
                .event(EventKind::AAuthResourceDeleted, text, self.now())
                .on(target(&resource))
                .gone(view::aauth_resource(&resource));
            let resources = &self.stores().aauth_resources;
            removed(resources.remove(org, &resource.id, resource.version, &event).await?, "AAuth resource")
        })
        .await
    }

    /// The public keys that the organization signs AAuth tokens with (RFC 7517).
    ///
    /// # Errors
    /// [`KeyError`] if they cannot be read.
    pub async fn aauth_jwks(&self, org: &OrgId) -> Result<Vec<Jwk>, KeyError> {
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AAuth, self.now()).await?;
        Ok(keys.iter().map(|key| key.jwk().clone()).collect())
    }
}

fn target(resource: &AAuthResource) -> Target {
    Target::new("aauth_resource", resource.id.as_str()).named(&*resource.name)
}
