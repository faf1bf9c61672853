//! What is kept behind request tokens, codes and refresh tokens. No secret is in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    aauth::{AuthLineage, ResourceToken},
    aauth_resource::{AAuthResource, AuthLevel},
    agent::AAuthIdentity,
    authorize::write,
    capability::{Capability, Scope},
    clock::Timestamp,
    id::{AAuthResourceId, AgentId, OrgId, TokenId},
    jwks::Thumbprint,
    secret::{Secret, SecretHash},
    store::{Handle, StoreError, Ticket, TicketPurpose},
    token::family_handle,
};

/// What refresh tokens begin with.
pub(super) const REFRESH_PREFIX: &str = "aauth_refresh_";
/// How long an agent may take to bring a person to the question.
pub(crate) const REQUEST_LIFE: Duration = Duration::from_secs(600);
/// How long a code works.
const CODE_LIFE: Duration = Duration::from_secs(120);
/// How long a refresh token works. It is not rotated, so that is its end.
const REFRESH_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How long the second use of a code is recognised: longer than anything that came of its first use.
const CODE_MEMORY: Duration = Duration::from_secs(31 * 86_400);

/// What an agent may have at a resource, or asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AAuthGrant {
    /// One agent, one resource; the person and the consent, once there are.
    pub(crate) lineage: AuthLineage,
    pub(crate) delegate: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) level: AuthLevel,
}

/// How what an agent asks for is told from all else that it asks for: by its resource token, which gives one token, however many
/// people were asked with it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AskedWith {
    pub(super) single_use: [u8; 32],
    pub(super) presented_from: Timestamp,
    /// The same for all questions that can be asked with it, and not before the end of the last code of them.
    pub(super) until: Timestamp,
}

impl AskedWith {
    pub(super) fn this(token: &ResourceToken) -> Self {
        Self {
            single_use: token.single_use,
            presented_from: token.presented_from,
            until: token.expires_at.plus(REQUEST_LIFE + CODE_LIFE),
        }
    }
}

/// The first item of `scope` that the resource does not offer, or that the agent may not have.
pub(super) fn out_of_bounds<'a>(
    scope: &'a Scope,
    resource: &AAuthResource,
    identity: &AAuthIdentity,
) -> Option<&'a Capability> {
    let within = |bound: &[Capability], item| bound.is_empty() || bound.contains(item);
    let allowed = identity.allowed_scopes.as_slice();
    scope.as_slice().iter().find(|item| !within(&resource.supported_scopes, item) || !within(allowed, item))
}

/// What a request token stands for: the question that a person is to be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AskedBody {
    pub(crate) grant: AAuthGrant,
    pub(crate) redirect_uri: String,
    /// The key that the agent asked with, and redeems the code with.
    pub(crate) jkt: Thumbprint,
    pub(crate) asked_with: AskedWith,
}

/// What a code stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AAuthCodeBody {
    pub(crate) grant: AAuthGrant,
    pub(crate) redirect_uri: String,
    pub(crate) jkt: Thumbprint,
    pub(crate) asked_with: AskedWith,
    /// Of the request token that it came of.
    pub(crate) request: SecretHash,
}

impl AAuthGrant {
    pub(crate) fn agent(&self) -> Option<AgentId> {
        self.lineage.agents.last().map(|(id, _)| *id)
    }

    pub(crate) fn resource(&self) -> Option<&AAuthResourceId> {
        self.lineage.resources.last().map(|(id, _)| id)
    }
}

impl AskedBody {
    pub(super) fn ticket(&self, token: &Secret, now: Timestamp) -> Result<Ticket, StoreError> {
        let expires_at = now.plus(REQUEST_LIFE);
        Ok(Ticket {
            purpose: TicketPurpose::AAuthRequest,
            hash: token.hash(),
            body: write(self)?,
            expires_at,
            keep_until: expires_at,
            family: None,
        })
    }
}

impl AAuthCodeBody {
    /// The ticket of a new code. What comes of it is one family, which a second use ends.
    pub(crate) fn ticket(&self, code: &Secret, org: &OrgId, now: Timestamp) -> Result<Ticket, StoreError> {
        Ok(Ticket {
            purpose: TicketPurpose::AAuthCode,
            hash: code.hash(),
            body: write(self)?,
            expires_at: now.plus(CODE_LIFE),
            keep_until: now.plus(CODE_MEMORY),
            family: Some(new_family(org)),
        })
    }
}

/// The ticket of a new refresh token.
pub(super) fn refresh_ticket(
    grant: &AAuthGrant,
    token: &Secret,
    family: Handle,
    now: Timestamp,
) -> Result<Ticket, StoreError> {
    let expires_at = now.plus(REFRESH_LIFE);
    Ok(Ticket {
        purpose: TicketPurpose::AAuthRefresh,
        hash: token.hash(),
        body: write(grant)?,
        expires_at,
        keep_until: expires_at,
        family: Some(family),
    })
}

/// A family of its own.
pub(super) fn new_family(org: &OrgId) -> Handle {
    family_handle(org, &TokenId::generate().to_string())
}
