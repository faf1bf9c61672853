//! Who decides whether an agent gets what it asks for at a resource.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    aauth_resource::{AAuthResource, AuthLevel},
    agent::Agent,
    capability::Scope,
    clock::Timestamp,
    id::OrgId,
    store::StoreError,
};

/// What there is to decide. Everything in it has been verified: who asks, and that the scope is within what the resource
/// asked for and both may have.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the server builds it, and tests of policies do")]
pub struct AuthorizationFacts<'a> {
    /// The organization.
    pub org: &'a OrgId,
    /// Who asks.
    pub agent: &'a Arc<Agent>,
    /// Its delegate, if one asks for it.
    pub delegate: Option<&'a str>,
    /// Where.
    pub resource: &'a Arc<AAuthResource>,
    /// For what.
    pub scope: &'a Scope,
    /// When.
    pub now: Timestamp,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the server must carry out every decision")]
pub enum Decision {
    /// The agent gets this much of it at once, for nobody in particular.
    Grant(Scope),
    /// A person must agree to this much of it. What comes of an earlier agreement needs no new one: a code and a refresh token,
    /// as long as the resource demands no higher level than they agreed at; and what an agent needs further on to serve a call,
    /// though where the level is [`AuthLevel::Authorized`] (or `None`, and this was the decision) they must have agreed to that
    /// very scope there, or at this server itself.
    Consent(Scope),
    /// It gets nothing. The reason is shown.
    Deny(&'static str),
}

/// Decides whether an agent gets what it asks for at a resource: the place for capabilities, roles, and approvals of a
/// host's own. It can narrow and refuse; what it grants beyond the scope it was shown is cut off.
#[async_trait]
pub trait ConsentPolicy: fmt::Debug + Send + Sync + 'static {
    /// The decision.
    ///
    /// # Errors
    /// [`StoreError`] if what it needs to know cannot be had; the request is then refused as for any outage.
    async fn decide(&self, facts: &AuthorizationFacts<'_>) -> Result<Decision, StoreError>;
}

/// The policy of a server that was given no other: the level of the resource decides.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LevelPolicy;

#[async_trait]
impl ConsentPolicy for LevelPolicy {
    async fn decide(&self, facts: &AuthorizationFacts<'_>) -> Result<Decision, StoreError> {
        Ok(match facts.resource.default_auth_level {
            AuthLevel::None => Decision::Grant(facts.scope.clone()),
            AuthLevel::Authenticated | AuthLevel::Authorized | AuthLevel::User => {
                Decision::Consent(facts.scope.clone())
            }
        })
    }
}
