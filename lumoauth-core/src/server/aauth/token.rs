//! The token endpoint of AAuth.
//!
//! | request | gives |
//! |---|---|
//! | `auth` | what a resource asked for: at once, or after a person agreed |
//! | `code` | what a person agreed to |
//! | `refresh` | the same again, for a resource that asks anew |
//! | `exchange` | what the agent needs further on, for what it was called with |
//!
//! 1. Who signs is known before the request is looked at.
//! 2. A resource token is about the agent and the key that signs, and gives one token at most, also by way of a question.
//! 3. Nobody knows here for which person an agent asks. So what a person allowed before spares them the question, and never
//!    the way through their browser: an agent that serves several people gets nothing of one for another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    SignedCall,
    door::SignedAgent,
    grants::{
        AAuthCodeBody, AAuthGrant, AskedBody, AskedWith, REFRESH_PREFIX, REQUEST_LIFE, new_family,
        out_of_bounds, refresh_ticket,
    },
    issue::{Issued, NewAuthToken, own_handle},
};
use crate::{
    aauth::{AAuthError, AuthLineage, AuthorizationFacts, Decision, ResourceToken, alive},
    aauth_resource::{AAuthResource, AuthLevel},
    audit::{Event, EventKind, Target},
    authorize::read,
    capability::Scope,
    clock::Timestamp,
    consent::Place,
    grant::{MAX_ACTORS, Refusal},
    id::OrgId,
    organization::Organization,
    principal::agent_actor,
    secret::Secret,
    server::AuthorizationServer,
    store::{AAuthResourceKey, ConsentKey, Handle, StoreError, TicketPurpose, TicketUse, UseEvents},
    wire::WireError,
};

/// The longest code, request token or refresh token that is looked at.
const MAX_SECRET: usize = 128;

/// The body of a request to the token endpoint. What a sort of request does not know it ignores, as long as members that another
/// sort has are text.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AAuthTokenRequest {
    /// `auth`, `code`, `refresh` or `exchange`.
    pub request_type: Option<String>,
    /// The agent token, for those who cannot send `Agent-Auth`.
    pub agent_token: Option<Secret>,
    /// What the resource asks for.
    pub resource_token: Option<Secret>,
    /// How much of that is wanted; without it, all.
    pub scope: Option<String>,
    /// Where a person's answer goes.
    pub redirect_uri: Option<String>,
    /// A person's answer.
    pub code: Option<Secret>,
    /// The request that the answer is to.
    pub request_token: Option<Secret>,
    /// What gives the next token.
    pub refresh_token: Option<Secret>,
    /// The token that the agent was called with.
    #[serde(alias = "subject_token")]
    pub auth_token: Option<Secret>,
}

/// What the token endpoint answers.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "transports must render every answer")]
pub enum AAuthAnswer {
    /// Tokens.
    Tokens(AAuthTokens),
    /// A person must agree first.
    Consent(ConsentNeeded),
}

/// Tokens, as they are answered.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct AAuthTokens {
    /// Which request they answer.
    pub request_type: &'static str,
    /// The auth token.
    #[serde(serialize_with = "expose")]
    pub auth_token: Secret,
    /// The same, under the name that other clients look for.
    #[serde(serialize_with = "expose")]
    pub access_token: Secret,
    /// Always `auth+jwt`.
    pub token_type: &'static str,
    /// Its life in seconds.
    pub expires_in: u64,
    /// Its scope.
    pub scope: Scope,
    /// What gives the next one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose_some")]
    pub refresh_token: Option<Secret>,
}

/// Where a person can agree.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConsentNeeded {
    /// Names the question.
    pub request_token: Secret,
    /// Where the person's browser is to go.
    pub auth_url: Secret,
    /// How long the question waits, in seconds.
    pub expires_in: u64,
    /// The issuer.
    pub auth_server: String,
}

impl ConsentNeeded {
    /// The answer: a refusal, since clients take every success for tokens.
    pub fn to_wire(&self) -> WireError {
        WireError::new(http::StatusCode::UNAUTHORIZED, "authorization_required", "User consent is needed.")
            .with_member("request_type", "auth")
            .with_member("request_token", self.request_token.expose())
            .with_member("auth_url", self.auth_url.expose())
            .with_member("authorization_uri", self.auth_url.expose())
            .with_member("expires_in", self.expires_in)
            .with_member("auth_server", &*self.auth_server)
    }
}

fn expose<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

#[expect(clippy::ref_option, reason = "the form that serde calls")]
fn expose_some<S: serde::Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => expose(secret, serializer),
        None => serializer.serialize_none(),
    }
}

/// A request whose signer is known.
#[derive(Clone, Copy)]
struct Asking<'a> {
    organization: &'a Organization,
    signed: &'a SignedAgent,
    request: &'a AAuthTokenRequest,
    call: SignedCall<'a>,
    now: Timestamp,
}

impl AuthorizationServer {
    /// Serves the token endpoint of AAuth. Every refusal is an entry of the audit log.
    ///
    /// # Errors
    /// [`AAuthError`] says why there is no token.
    pub async fn aauth_token(
        &self,
        organization: &Organization,
        request: &AAuthTokenRequest,
        call: SignedCall<'_>,
    ) -> Result<AAuthAnswer, AAuthError> {
        let (now, refusal) = (self.now(), Refusal::default());
        let served = self.answer_agent(organization, request, call, &refusal, now).await;
        self.served(organization, call, refusal, served, now).await
    }

    async fn answer_agent(
        &self,
        organization: &Organization,
        request: &AAuthTokenRequest,
        call: SignedCall<'_>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<AAuthAnswer, AAuthError> {
        if call.message.query.is_some() {
            // It would be covered by some signatures and not by others.
            return Err(AAuthError::InvalidRequest("The token endpoint takes no query."));
        }
        let in_body = request.agent_token.as_ref().map(Secret::expose);
        let signed = &self.signed_agent(organization, call, in_body, refusal, now).await?;
        let asking = Asking { organization, signed, request, call, now };
        match request.request_type.as_deref() {
            Some("auth") => self.aauth_auth(asking).await,
            Some("code") => self.aauth_code(asking).await.map(AAuthAnswer::Tokens),
            Some("refresh") => self.aauth_refresh(asking).await.map(AAuthAnswer::Tokens),
            Some("exchange") => self.aauth_exchange(asking).await.map(AAuthAnswer::Tokens),
            Some(_) => Err(AAuthError::UnsupportedRequestType),
            None => Err(AAuthError::InvalidRequest("request_type is required.")),
        }
    }

    /// What the resource asks for, and how much of it the agent wants.
    async fn wanted(
        &self,
        asking: Asking<'_>,
    ) -> Result<(Arc<AAuthResource>, ResourceToken, Scope), AAuthError> {
        let Asking { organization, signed, request, now, .. } = asking;
        let text = request.resource_token.as_ref();
        let text = text.ok_or(AAuthError::InvalidRequest("resource_token is required."))?;
        let (resource, token) = self.resource_token(organization, signed, text.expose(), now).await?;
        let wanted = match &request.scope {
            None => token.scope.clone(),
            Some(text) => text.parse().map_err(|_| AAuthError::InvalidScope("malformed".to_owned()))?,
        };
        let not_asked_for = wanted.as_slice().iter().find(|item| !token.scope.as_slice().contains(item));
        match not_asked_for.or(out_of_bounds(&wanted, &resource, signed.identity()?)) {
            Some(item) => Err(AAuthError::InvalidScope(item.to_string())),
            None => Ok((resource, token, wanted)),
        }
    }

    async fn aauth_auth(&self, asking: Asking<'_>) -> Result<AAuthAnswer, AAuthError> {
        let Asking { organization, signed, .. } = asking;
        let (resource, token, scope) = self.wanted(asking).await?;
        let decision = self.decided(asking, &resource, &scope).await?;
        let narrowed = |more: Scope| {
            Scope::new(more.as_slice().iter().filter(|item| scope.as_slice().contains(item)).cloned())
        };
        let grant = |scope, level| AAuthGrant {
            lineage: AuthLineage::new(organization, &signed.agent, &resource),
            delegate: signed.delegate().map(str::to_owned),
            scope,
            level,
        };
        match decision {
            Decision::Deny(reason) => Err(AAuthError::Denied(reason)),
            Decision::Consent(_) if !signed.identity()?.user_authorization => {
                Err(AAuthError::Denied("A person must agree, and the agent may not ask one."))
            }
            Decision::Consent(part) => {
                let grant = grant(narrowed(part), level_of_consent(&resource));
                self.ask_a_person(asking, grant, &resource, &token).await.map(AAuthAnswer::Consent)
            }
            Decision::Grant(part) => {
                // Whatever the resource demands by default, no person has agreed to this.
                let mut grant = grant(narrowed(part), AuthLevel::None);
                let family = new_family(&organization.id);
                grant.lineage.handles.push(family);
                let issued = self.issue(asking, &resource, &grant, AskedWith::this(&token), "auth").await?;
                let refresh = Some(self.refreshable(asking, &grant, family).await?);
                Ok(AAuthAnswer::Tokens(tokens("auth", issued, refresh)))
            }
        }
    }

    /// What the policy says to `scope` at `resource`.
    async fn decided(
        &self,
        asking: Asking<'_>,
        resource: &Arc<AAuthResource>,
        scope: &Scope,
    ) -> Result<Decision, AAuthError> {
        let Asking { organization, signed, now, .. } = asking;
        let facts = AuthorizationFacts {
            org: &organization.id,
            agent: &signed.agent,
            delegate: signed.delegate(),
            resource,
            scope,
            now,
        };
        Ok(self.inner.consent_policy.decide(&facts).await?)
    }

    /// Whether the agent, the resource and the policy allow today what comes of an earlier grant, to which a person agreed at
    /// the level `agreed`, if one did. What is demanded of people for it today.
    async fn still_allowed(
        &self,
        asking: Asking<'_>,
        resource: &Arc<AAuthResource>,
        scope: &Scope,
        agreed: Option<AuthLevel>,
    ) -> Result<AuthLevel, AAuthError> {
        if let Some(item) = out_of_bounds(scope, resource, asking.signed.identity()?) {
            return Err(AAuthError::InvalidScope(item.to_string()));
        }
        let (part, demanded) = match self.decided(asking, resource, scope).await? {
            Decision::Deny(reason) => return Err(AAuthError::Denied(reason)),
            Decision::Consent(part) => (part, level_of_consent(resource)),
            Decision::Grant(part) => (part, AuthLevel::None),
        };
        if demanded > agreed.unwrap_or(AuthLevel::None) {
            // It may not have demanded that when the person agreed.
            return Err(AAuthError::Denied(match (agreed, demanded) {
                (Some(_), AuthLevel::User) => "The resource wants the person to be there.",
                (Some(_), _) => "The resource wants more than that the person agreed once.",
                (None, _) => "The resource wants a person to have agreed.",
            }));
        }
        match scope.as_slice().iter().find(|item| !part.as_slice().contains(item)) {
            Some(item) => Err(AAuthError::InvalidScope(item.to_string())),
            None => Ok(demanded),
        }
    }

    /// Whether all that `upstream` stands on lists `scope` for `resource`, or for this server itself. What a person agreed to for
    /// one resource they did not agree to for another.
    async fn is_agreed_to_there(
        &self,
        org: &OrgId,
        upstream: &AuthLineage,
        resource: &AAuthResource,
        scope: &Scope,
    ) -> Result<bool, StoreError> {
        let place = Place::AAuth(resource.id.clone());
        for stood_on in &upstream.consents {
            let consent = self.stores().consents.find(org, ConsentKey::Id(stood_on.id)).await?;
            let lists = |item| consent.as_ref().is_some_and(|consent| consent.lets_act(Some(&place), item));
            if !scope.as_slice().iter().all(lists) {
                return Ok(false);
            }
        }
        Ok(!upstream.consents.is_empty() && !scope.is_empty())
    }

    /// Keeps the question that a person is to be asked.
    async fn ask_a_person(
        &self,
        asking: Asking<'_>,
        grant: AAuthGrant,
        resource: &AAuthResource,
        token: &ResourceToken,
    ) -> Result<ConsentNeeded, AAuthError> {
        let Asking { organization, signed, request, call, now } = asking;
        let registered = &signed.agent.redirect_uris;
        let redirect_uri = match (&request.redirect_uri, registered.as_slice()) {
            (Some(uri), registered) if registered.contains(uri) => uri.clone(),
            (Some(_), _) => {
                return Err(AAuthError::InvalidRequest("redirect_uri is not one of the agent's."));
            }
            (None, [only]) => only.clone(),
            (None, _) => {
                return Err(AAuthError::InvalidRequest("A person must agree: redirect_uri is required."));
            }
        };
        let event = Event::new(
            EventKind::AAuthConsentRequested,
            agent_actor(&signed.agent),
            "person to be asked",
            now,
        )
        .on(Target::new("aauth_resource", resource.id.as_str()).named(&*resource.name))
        .by_method("aauth")
        .from_origin(call.origin)
        .with("scope", grant.scope.to_string());
        let (org, request_token) = (&organization.id, Secret::generate("areq_"));
        let (jkt, asked_with) = (signed.confirmation().jkt, AskedWith::this(token));
        let ticket = AskedBody { grant, redirect_uri, jkt, asked_with }.ticket(&request_token, now)?;
        self.stores().grants.put_ticket(org, &ticket).await?;
        self.stores().audit.append(org, &[event]).await?;
        let issuer = self.issuer(org);
        let auth_url = format!("{issuer}/aauth/agent/auth?request_token={}", request_token.expose());
        Ok(ConsentNeeded {
            request_token,
            auth_url: Secret::from(auth_url),
            expires_in: REQUEST_LIFE.as_secs(),
            auth_server: issuer,
        })
    }

    /// What a person agreed to, as far as it is to be had today. A code that comes from elsewhere than it went is used up:
    /// somebody has it who should not.
    async fn aauth_code(&self, asking: Asking<'_>) -> Result<AAuthTokens, AAuthError> {
        let Asking { organization, signed, request, call, now } = asking;
        let unknown = AAuthError::InvalidGrant("The code is unknown, used or expired.");
        let code = request.code.as_ref().ok_or(AAuthError::InvalidRequest("code is required."))?;
        let redirect_uri = request.redirect_uri.as_ref();
        let redirect_uri = redirect_uri.ok_or(AAuthError::InvalidRequest("redirect_uri is required."))?;
        if code.expose().len() > MAX_SECRET {
            return Err(unknown);
        }
        let (org, grants) = (&organization.id, &self.stores().grants);
        let (purpose, hash) = (TicketPurpose::AAuthCode, code.hash());
        let found = grants.find_ticket(org, purpose, &hash, now).await?;
        let Some(found) = found else { return Err(unknown) };
        let body: AAuthCodeBody = read(&found.ticket.body)?;
        let fits = body.grant.agent() == Some(signed.agent.id)
            && body.grant.delegate.as_deref() == signed.delegate()
            && body.jkt == signed.confirmation().jkt
            && body.redirect_uri == *redirect_uri
            && request.request_token.as_ref().is_none_or(|token| body.request.matches(token));
        let resource = match body.grant.resource() {
            Some(id) => self.stores().aauth_resources.find(org, AAuthResourceKey::Id(id)).await?,
            None => None,
        };
        let event = |kind, message| {
            Event::new(kind, agent_actor(&signed.agent), message, now)
                .by_method("aauth")
                .from_origin(call.origin)
        };
        let used = if fits {
            event(EventKind::AgentAuthenticated, "code redeemed")
        } else {
            event(EventKind::AAuthRefused, "code used up by a request that does not fit it")
                .failed("invalid_grant")
        };
        let reused = event(EventKind::TokenReused, "code used again: what came of it is revoked");
        let on = UseEvents { used: &used, reused: &reused };
        match grants.use_ticket(org, purpose, &hash, None, now, on).await? {
            TicketUse::Used => {}
            TicketUse::Reused | TicketUse::Missing => return Err(unknown),
        }
        if !fits {
            return Err(AAuthError::InvalidGrant(
                "The code is for another agent, delegate, key, redirect_uri or request.",
            ));
        }
        let (Some(resource), Some(family)) =
            (resource.filter(|resource| resource.active), found.ticket.family)
        else {
            return Err(unknown);
        };
        let mut grant = body.grant;
        if !signed.identity()?.user_authorization {
            return Err(AAuthError::Denied("A person agreed, and the agent may not ask one any more."));
        }
        self.still_allowed(asking, &resource, &grant.scope, Some(grant.level)).await?;
        grant.lineage.handles.push(family);
        let issued = self.issue(asking, &resource, &grant, body.asked_with, "code").await?;
        let refresh = if grant.level == AuthLevel::User {
            None
        } else {
            Some(self.refreshable(asking, &grant, family).await?)
        };
        Ok(tokens("code", issued, refresh))
    }

    /// The same again. What the agent or the resource lost since is gone.
    async fn aauth_refresh(&self, asking: Asking<'_>) -> Result<AAuthTokens, AAuthError> {
        let Asking { organization, signed, request, now, .. } = asking;
        let unknown = AAuthError::InvalidGrant("The refresh token is unknown, revoked or expired.");
        let token = request.refresh_token.as_ref();
        let token = token.ok_or(AAuthError::InvalidRequest("refresh_token is required."))?;
        if token.expose().len() > MAX_SECRET {
            return Err(unknown);
        }
        let (org, grants) = (&organization.id, &self.stores().grants);
        let found = grants.find_ticket(org, TicketPurpose::AAuthRefresh, &token.hash(), now).await?;
        let Some(found) = found.filter(|found| !found.used) else { return Err(unknown) };
        let mut grant: AAuthGrant = read(&found.ticket.body)?;
        if grant.agent() != Some(signed.agent.id) || grant.delegate.as_deref() != signed.delegate() {
            return Err(unknown);
        }
        if alive(self.stores(), organization, &grant.lineage, &[]).await?.is_err() {
            return Err(unknown);
        }
        let (resource, resource_token, scope) = self.wanted(asking).await?;
        if grant.resource() != Some(&resource.id) {
            return Err(AAuthError::InvalidTarget);
        }
        if let Some(item) = scope.as_slice().iter().find(|item| !grant.scope.as_slice().contains(item)) {
            return Err(AAuthError::InvalidScope(item.to_string()));
        }
        let agreed = grant.lineage.user.is_some().then_some(grant.level);
        self.still_allowed(asking, &resource, &scope, agreed).await?;
        grant.scope = scope;
        let asked_with = AskedWith::this(&resource_token);
        let issued = self.issue(asking, &resource, &grant, asked_with, "refresh").await?;
        Ok(tokens("refresh", issued, None))
    }

    /// A token for what the agent needs further on, to serve the call that it got `auth_token` with.
    async fn aauth_exchange(&self, asking: Asking<'_>) -> Result<AAuthTokens, AAuthError> {
        let Asking { organization, signed, request, call, now } = asking;
        if !signed.identity()?.token_exchange {
            return Err(AAuthError::Denied("The agent may not exchange tokens."));
        }
        let upstream = request.auth_token.as_ref();
        let upstream = upstream.ok_or(AAuthError::InvalidRequest("auth_token is required."))?;
        let (org, refused) =
            (&organization.id, AAuthError::InvalidGrant("The auth token is not acceptable."));
        let Ok(upstream) = self.read_auth_token(org, upstream.expose(), now).await? else {
            return Err(refused);
        };
        if upstream.aud != *signed.identifier()
            || self.auth_token_alive(organization, &upstream).await?.is_err()
        {
            return Err(refused);
        }
        let (resource, resource_token, scope) = self.wanted(asking).await?;
        if let Some(item) = scope.as_slice().iter().find(|item| !upstream.scope.as_slice().contains(item)) {
            return Err(AAuthError::InvalidScope(item.to_string()));
        }
        let demanded = resource.default_auth_level;
        if demanded == AuthLevel::User {
            return Err(AAuthError::Denied("The resource wants the person to be there."));
        }
        if demanded > upstream.auth_level {
            return Err(AAuthError::Denied("The resource wants a person to have agreed."));
        }
        let agreed = upstream.sub.is_some().then_some(upstream.auth_level);
        let demanded = self.still_allowed(asking, &resource, &scope, agreed).await?.max(demanded);
        if demanded == AuthLevel::Authorized
            && !self.is_agreed_to_there(org, &upstream.lin, &resource, &scope).await?
        {
            return Err(AAuthError::Denied("The resource wants the person to have agreed to this there."));
        }
        let chain = chain(&upstream, signed)?;
        let own = own_handle(org, &upstream);
        let AuthLineage { mut agents, mut resources, mut handles, user, consents, .. } = upstream.lin.clone();
        agents.push((signed.agent.id, signed.agent.epoch));
        resources.push((resource.id.clone(), resource.epoch));
        handles.extend(own);
        let lineage = AuthLineage {
            organization: organization.epoch,
            agents,
            resources,
            user,
            consents,
            handles,
            act_order: organization.act_order,
        };
        let new = NewAuthToken {
            resource: &resource,
            lineage,
            scope,
            // Further on, nobody is there.
            level: upstream.auth_level.min(AuthLevel::Authorized),
            chain,
            until: Some(Timestamp::from_unix_seconds(upstream.exp)),
            asked_with: AskedWith::this(&resource_token),
            request_type: "exchange",
        };
        let issued = self.issue_auth_token(organization, signed, call, new, now).await?;
        Ok(tokens("exchange", issued, None))
    }

    async fn issue(
        &self,
        asking: Asking<'_>,
        resource: &AAuthResource,
        grant: &AAuthGrant,
        asked_with: AskedWith,
        request_type: &'static str,
    ) -> Result<Issued, AAuthError> {
        let new = NewAuthToken {
            resource,
            lineage: grant.lineage.clone(),
            scope: grant.scope.clone(),
            level: grant.level,
            chain: Vec::new(),
            until: None,
            asked_with,
            request_type,
        };
        self.issue_auth_token(asking.organization, asking.signed, asking.call, new, asking.now).await
    }

    /// A refresh token of `grant`.
    async fn refreshable(
        &self,
        asking: Asking<'_>,
        grant: &AAuthGrant,
        family: Handle,
    ) -> Result<Secret, AAuthError> {
        let token = Secret::generate(REFRESH_PREFIX);
        let ticket = refresh_ticket(grant, &token, family, asking.now)?;
        self.stores().grants.put_ticket(&asking.organization.id, &ticket).await?;
        Ok(token)
    }
}

/// What it counts as at `resource` that a person agrees. If not the resource but the policy wants that, they are asked as by one
/// that does.
fn level_of_consent(resource: &AAuthResource) -> AuthLevel {
    match resource.default_auth_level {
        AuthLevel::None => AuthLevel::Authorized,
        level => level,
    }
}

/// Those who handed the work on, and the agent that has it now.
fn chain(
    upstream: &crate::aauth::AuthClaims,
    signed: &SignedAgent,
) -> Result<Vec<(crate::id::AAuthIdentifier, Option<String>)>, AAuthError> {
    let mut chain = upstream.chain();
    if chain.iter().any(|(agent, _)| agent == signed.identifier()) {
        return Err(AAuthError::InvalidRequest("The agent is in the chain already."));
    }
    if chain.len() >= MAX_ACTORS {
        return Err(AAuthError::Denied("There would be too many agents in the chain."));
    }
    chain.push((signed.identifier().clone(), signed.delegate().map(str::to_owned)));
    Ok(chain)
}

fn tokens(request_type: &'static str, issued: Issued, refresh_token: Option<Secret>) -> AAuthTokens {
    AAuthTokens {
        request_type,
        access_token: issued.token.clone(),
        auth_token: issued.token,
        token_type: "auth+jwt",
        expires_in: issued.expires_in,
        scope: issued.scope,
        refresh_token,
    }
}
