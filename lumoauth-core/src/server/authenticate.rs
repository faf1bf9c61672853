//! Who presents an access token, with proof of its key or without, or an API key.

use std::sync::Arc;

use super::{ApiError, AuthorizationServer, error::ELSEWHERE};
use crate::{
    agent::{Agent, AuthMethod, Barred},
    api_key::{AGENT_KEY_PREFIX, ORG_KEY_PREFIX, org_of_key},
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target},
    clock::Timestamp,
    grant::TokenError,
    id::OrgId,
    jwks::Thumbprint,
    keys::{KeyError, KeyPurpose},
    organization::Organization,
    principal::{Identity, Principal},
    secret::SecretHash,
    store::{AgentKey, ApiKeyKey, StoreError},
    token::{
        self, DpopRequest, InvalidToken,
        dpop::{self, InvalidProof},
    },
    wire::{Params, WireError},
};

/// A credential as it was presented.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "transports build it")]
pub enum Credential<'a> {
    /// `Authorization: Bearer`: an access token, an agent API key, or an organization API key.
    Bearer(&'a str),
    /// `Authorization: DPoP`: an access token that is bound to a key.
    Dpop {
        /// The token.
        token: &'a str,
        /// The request that it came with, in which is the proof.
        request: DpopRequest<'a>,
    },
    /// `X-API-Key`: an organization API key.
    ApiKey(&'a str),
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer([redacted])",
            Self::Dpop { .. } => "Dpop([redacted])",
            Self::ApiKey(_) => "ApiKey([redacted])",
        })
    }
}

/// What an access token must be meant for.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a token is for us or for a resource")]
pub enum Door<'a> {
    /// This server's own routes.
    Own,
    /// The resource with this identifier.
    Resource(&'a str),
    /// The resource with this identifier, which asks for authorization details: tokens that agents got for a task, if they are
    /// meant for it or for no place in particular; and, so that whoever has none yet hears what is missing, every token that is
    /// good for our own routes or for the resource.
    ///
    /// # Security
    /// It says who calls and nothing else: whoever stands behind this door must look at the
    /// [details](Principal::authorization_details).
    Details(&'a str),
}

/// Why a credential is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticateError {
    /// There is none, or it is not valid; the log knows more.
    #[error("credential not accepted")]
    Refused,
    /// The same of a token that came with a DPoP proof; or it is bound to a key and came without.
    #[error("token of a key not accepted")]
    RefusedDpop,
    /// The DPoP proof beside a good token is missing or not valid; the log knows more.
    #[error("DPoP proof not accepted")]
    InvalidProof,
    /// It is a valid credential of another organization.
    #[error("credential of another organization")]
    OtherOrganization,
    /// The store cannot answer.
    #[error("store")]
    Store(#[from] StoreError),
    /// The keys cannot be read.
    #[error("keys")]
    Key(#[from] KeyError),
    /// The server that issued it cannot be asked.
    #[error("authorization server")]
    Remote(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthenticateError {
    /// The error as the client sees it.
    pub fn to_wire(&self) -> WireError {
        match self {
            Self::Refused => WireError::invalid_token(),
            Self::RefusedDpop => WireError::invalid_dpop_token(),
            Self::InvalidProof => WireError::invalid_dpop_proof(),
            Self::OtherOrganization => {
                WireError::forbidden("This credential belongs to another organization.")
            }
            Self::Store(_) | Self::Key(_) | Self::Remote(_) => WireError::unavailable(),
        }
    }
}

impl Credential<'_> {
    /// The error that says so in the words of its scheme.
    fn refused(self) -> AuthenticateError {
        match self {
            Self::Bearer(_) | Self::ApiKey(_) => AuthenticateError::Refused,
            Self::Dpop { .. } => AuthenticateError::RefusedDpop,
        }
    }
}

impl AuthorizationServer {
    /// The principal behind `credential` at a route of `organization`.
    ///
    /// A token that is bound to a key is accepted with a proof only, and a proof only with such a token (RFC 9449 section 7).
    /// A proof is used up when everything else has passed.
    ///
    /// `origin` is where the request came from. An agent that is registered with addresses is accepted from there only, by
    /// whichever credential; from elsewhere, or where the address is not known, that is recorded.
    ///
    /// # Errors
    /// [`AuthenticateError`] if it proves nobody here.
    pub async fn authenticate(
        &self,
        organization: &Organization,
        credential: Credential<'_>,
        door: Door<'_>,
        origin: &Origin,
    ) -> Result<Principal, AuthenticateError> {
        match self.authenticate_in(organization, credential, door, origin).await {
            Err(refused @ (AuthenticateError::Refused | AuthenticateError::RefusedDpop)) => {
                let Some(home) = self.elsewhere(organization, credential).await? else { return Err(refused) };
                let principal = self.authenticate_in(&home, credential, door, origin).await?;
                self.record_stranger(organization, &home, &principal, origin).await?;
                Err(AuthenticateError::OtherOrganization)
            }
            result => result,
        }
    }

    /// Records the live tokens of other organizations that a refused request presents, as subject or
    /// actor, as those at a door are: both sides want to know. One that is bound to a key proves nothing without it.
    ///
    /// # Errors
    /// [`TokenError`] if that cannot be found out or recorded.
    pub(super) async fn record_foreign_tokens(
        &self,
        organization: &Organization,
        presented: &Params,
        origin: &Origin,
    ) -> Result<(), TokenError> {
        let [subject, actor] = ["subject_token", "actor_token"].map(|name| presented.get(name));
        for token in subject.into_iter().chain(actor.filter(|_| actor != subject)) {
            let Some(home) = self.elsewhere(organization, Credential::Bearer(token)).await? else { continue };
            if !home.is_active() {
                continue;
            }
            match self.access_token(&home, token, Door::Own, origin, self.now()).await {
                Ok(stranger) if stranger.key().is_some() => {}
                Ok(stranger) => self.record_stranger(organization, &home, &stranger, origin).await?,
                Err(AuthenticateError::Store(error)) => return Err(error.into()),
                Err(AuthenticateError::Key(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The organization that a credential says it is of, if that is there and another one than `organization`.
    async fn elsewhere(
        &self,
        organization: &Organization,
        credential: Credential<'_>,
    ) -> Result<Option<Arc<Organization>>, StoreError> {
        match self.claimed_org(credential).filter(|org| *org != organization.id) {
            Some(other) => self.stores().organizations.find(&other).await,
            None => Ok(None),
        }
    }

    /// The principal behind `credential` where the path names no organization: the credential does.
    ///
    /// # Errors
    /// [`AuthenticateError`] if it proves nobody.
    pub async fn authenticate_anywhere(
        &self,
        credential: Credential<'_>,
        door: Door<'_>,
        origin: &Origin,
    ) -> Result<(Arc<Organization>, Principal), AuthenticateError> {
        let org = self.claimed_org(credential).ok_or_else(|| credential.refused())?;
        let organization = self.stores().organizations.find(&org).await?;
        let organization = organization.ok_or_else(|| credential.refused())?;
        let principal = self.authenticate_in(&organization, credential, door, origin).await?;
        Ok((organization, principal))
    }

    /// A real credential at another organization's door: both sides want to know.
    async fn record_stranger(
        &self,
        visited: &Organization,
        home: &Organization,
        stranger: &Principal,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let event =
            Event::new(EventKind::AgentAction, stranger.actor(), "tried another organization", self.now())
                .on(Target::new("organization", visited.id.as_str()))
                .with("home", home.id.as_str())
                .from_origin(origin)
                .failed("other_organization");
        let event = stranger.in_context(event);
        self.stores().audit.append(&visited.id, std::slice::from_ref(&event)).await?;
        self.stores().audit.append(&home.id, &[event]).await
    }

    /// Records that a caller was denied a route for administrators.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be recorded.
    pub async fn record_denied(
        &self,
        org: &OrgId,
        principal: &Principal,
        route: &str,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let event =
            Event::new(EventKind::AgentAction, principal.actor(), "administration denied", self.now())
                .on(Target::new("route", route))
                .from_origin(origin)
                .failed("forbidden");
        self.stores().audit.append(org, &[principal.in_context(event)]).await
    }

    /// The organization a credential says it is of; nothing is proven by that.
    fn claimed_org(&self, credential: Credential<'_>) -> Option<OrgId> {
        match credential {
            Credential::ApiKey(key) => org_of_key(ORG_KEY_PREFIX, key),
            Credential::Bearer(text) if text.starts_with(ORG_KEY_PREFIX) => org_of_key(ORG_KEY_PREFIX, text),
            Credential::Bearer(text) if text.starts_with(AGENT_KEY_PREFIX) => {
                org_of_key(AGENT_KEY_PREFIX, text)
            }
            Credential::Bearer(token) | Credential::Dpop { token, .. } => {
                let issuer = token::unverified_issuer(token).ok()?;
                let path = issuer.strip_prefix(self.public_url())?.strip_prefix("/orgs/")?;
                OrgId::parse(path.strip_suffix("/api/v1")?).ok()
            }
        }
    }

    /// Refuses an agent whose credential is good and that may not use it here, and records that: perhaps somebody else has it.
    async fn refuse_barred(
        &self,
        organization: &Organization,
        agent: &Agent,
        barred: Barred,
        method: &'static str,
        origin: &Origin,
    ) -> AuthenticateError {
        let now = self.now();
        // Whoever it is, it counts among those who fail too often.
        let who = Actor::new(ActorKind::Unknown, agent.id.to_string());
        let event = Event::new(EventKind::AgentAuthenticated, who, "credential of an agent refused", now)
            .on(Target::new("agent", agent.id.to_string()).named(agent.name.clone()))
            .by_method(method)
            .from_origin(origin)
            .with("cause", barred.to_string())
            .failed("invalid_token");
        match self.record_failure(&organization.id, event, now).await {
            Ok(_) => AuthenticateError::Refused,
            Err(error) => error.into(),
        }
    }

    async fn authenticate_in(
        &self,
        organization: &Organization,
        credential: Credential<'_>,
        door: Door<'_>,
        origin: &Origin,
    ) -> Result<Principal, AuthenticateError> {
        if !organization.is_active() {
            return Err(credential.refused());
        }
        // A key is bound to nothing, so it opens no door that wants a token bound to a resource.
        let is_key = match credential {
            Credential::ApiKey(_) => true,
            Credential::Bearer(text) => {
                text.starts_with(ORG_KEY_PREFIX) || text.starts_with(AGENT_KEY_PREFIX)
            }
            Credential::Dpop { .. } => false,
        };
        if is_key && !matches!(door, Door::Own) {
            return Err(AuthenticateError::Refused);
        }
        match credential {
            Credential::ApiKey(key) => self.org_key(organization, key).await,
            Credential::Bearer(text) if text.starts_with(ORG_KEY_PREFIX) => {
                self.org_key(organization, text).await
            }
            Credential::Bearer(text) if text.starts_with(AGENT_KEY_PREFIX) => {
                self.agent_key(organization, text, origin).await
            }
            Credential::Bearer(token) => self.bearer(organization, token, door, origin).await,
            Credential::Dpop { token, request } => {
                self.holder(organization, token, request, door, origin).await
            }
        }
    }

    async fn org_key(&self, organization: &Organization, key: &str) -> Result<Principal, AuthenticateError> {
        let org = &organization.id;
        let found = self.stores().api_keys.find(org, ApiKeyKey::Hash(&SecretHash::of(key))).await?;
        found
            .filter(|key| key.active)
            .map(|key| Principal::new(org.clone(), Identity::ApiKey(key), None))
            .ok_or(AuthenticateError::Refused)
    }

    async fn agent_key(
        &self,
        organization: &Organization,
        key: &str,
        origin: &Origin,
    ) -> Result<Principal, AuthenticateError> {
        let org = &organization.id;
        let found = self.stores().agents.find(org, AgentKey::ApiKey(&SecretHash::of(key))).await?;
        let agent = found.filter(|agent| agent.is_active()).ok_or(AuthenticateError::Refused)?;
        match agent.check(AuthMethod::ApiKey, origin.ip) {
            Ok(()) => Ok(Principal::new(org.clone(), Identity::Agent(agent), None)),
            Err(barred) => Err(self.refuse_barred(organization, &agent, barred, "api_key", origin).await),
        }
    }

    /// The principal of a token that is all there is to show.
    async fn bearer(
        &self,
        organization: &Organization,
        token: &str,
        door: Door<'_>,
        origin: &Origin,
    ) -> Result<Principal, AuthenticateError> {
        let principal = self.access_token(organization, token, door, origin, self.now()).await?;
        if principal.key().is_some() {
            tracing::debug!(error = %InvalidToken::Bound, "token not accepted");
            return Err(AuthenticateError::RefusedDpop);
        }
        Ok(principal)
    }

    /// The principal of a token whose key `request` proves to be held.
    async fn holder(
        &self,
        organization: &Organization,
        token: &str,
        request: DpopRequest<'_>,
        door: Door<'_>,
        origin: &Origin,
    ) -> Result<Principal, AuthenticateError> {
        let now = self.now();
        let principal = match self.access_token(organization, token, door, origin, now).await {
            Err(AuthenticateError::Refused) => return Err(AuthenticateError::RefusedDpop),
            other => other?,
        };
        let Some(key) = principal.key() else {
            tracing::debug!("token not accepted: bound to no key, and presented as if it were");
            return Err(AuthenticateError::RefusedDpop);
        };
        let proof = dpop::read(request, self.public_url(), Some(token), now).and_then(|proof| proof.by(key));
        match self.spend(&organization.id, proof, now).await {
            Ok(_) => Ok(principal),
            Err(InvalidProof::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "proof not accepted");
                Err(AuthenticateError::InvalidProof)
            }
        }
    }

    /// The key of a good proof, which is then used up.
    pub(super) async fn spend(
        &self,
        org: &OrgId,
        proof: Result<dpop::Proof, InvalidProof>,
        now: Timestamp,
    ) -> Result<Thumbprint, InvalidProof> {
        proof?.once(&*self.stores().replay, org, now).await
    }

    /// The principal of a live token, whoever sent it.
    async fn access_token(
        &self,
        organization: &Organization,
        token: &str,
        door: Door<'_>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Principal, AuthenticateError> {
        let keys = self.inner.keys.verifying_keys(&organization.id, KeyPurpose::AccessToken, now).await?;
        let refused = |error: InvalidToken| {
            tracing::debug!(%error, "token not accepted");
            AuthenticateError::Refused
        };
        let issuer = self.issuer(&organization.id);
        let claims = self.inner.verified.verify(token, &keys, &issuer, now).map_err(refused)?;
        let meant_for_this = match door {
            Door::Own => claims.is_for_own_routes(),
            Door::Resource(resource) => claims.is_for_resource(resource),
            Door::Details(resource) => claims.is_for_details_at(resource),
        };
        if !meant_for_this {
            tracing::debug!("token is for another audience");
            return Err(AuthenticateError::Refused);
        }
        let principal = match token::principal_of(self.stores(), organization, claims).await? {
            Ok(principal) => principal,
            Err(dead) => {
                tracing::debug!(%dead, "token is dead");
                return Err(AuthenticateError::Refused);
            }
        };
        let presenter = principal.presenter();
        if let Some((agent, barred)) =
            presenter.and_then(|agent| Some((agent, agent.check_address(origin.ip).err()?)))
        {
            return Err(self.refuse_barred(organization, agent, barred, "access_token", origin).await);
        }
        Ok(principal)
    }
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Refused | AuthenticateError::RefusedDpop | AuthenticateError::InvalidProof => {
                ELSEWHERE
            }
            AuthenticateError::OtherOrganization => {
                Self::Forbidden("This credential belongs to another organization.")
            }
            AuthenticateError::Store(error) => Self::Store(error),
            AuthenticateError::Key(error) => Self::Key(error),
            AuthenticateError::Remote(error) => Self::Store(StoreError::unavailable("authenticate", error)),
        }
    }
}
