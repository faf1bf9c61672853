//! The authorization server: one method per thing a client can ask for.
//!
//! [`AuthorizationServer`] is a cheap handle. It knows the ports and the time, finds the organization, and
//! hands over to the protocol modules. Transports (`lumoauth-tower`, or a host's own) parse requests into its
//! arguments and render its results.

mod aauth;
mod agents;
mod approvals;
mod ask;
mod attest;
mod audit;
mod audit_tree;
mod authenticate;
mod authorize;
mod authz;
mod budget;
mod builder;
mod caller;
mod clients;
mod codes;
mod consents;
mod decide;
mod error;
mod introspect;
mod introspect_approval;
mod introspect_refresh;
mod jit;
mod maintenance;
mod mcp;
mod me;
mod notices;
mod on_behalf;
mod organizations;
mod parking;
mod people;
mod policy;
mod pushed;
mod reservations;
mod review;
mod shown;
mod spend;
mod token;

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    aauth::ConsentPolicy,
    audit::Origin,
    authz::{Authorizer, BuiltIn},
    clock::{Clock, Timestamp},
    fetch::Fetch,
    foreign_keys::ForeignKeys,
    grant::{Grant, GrantContext, Refusal},
    httpsig::Accept,
    id::OrgId,
    keys::{Jwk, KeyError, KeyProvider, KeyPurpose},
    organization::Organization,
    secret::Secret,
    store::{Admission, RateLimit, Remove, StoreError, Stores, Update},
    token::VerifiedTokens,
    user::PasswordHash,
};

pub use aauth::{
    AAuthAgentPatch, AAuthAnswer, AAuthResourcePatch, AAuthTokenRequest, AAuthTokens, ClaimedSigner,
    ConsentNeeded, DelegateRequest, OwnAuthTokens, PartyToken, PlatformToken, ResourceTokenRequest,
    RevokeRequest, SignedCall, VerifyAuthToken, VerifyResourceToken,
};
pub use agents::{AgentPage, NewAgent, Registration, RegistrationRequest, TestTokenRequest};
pub use approvals::{ApprovalDecisionRequest, ApprovalRequest, OpenedApproval};
pub use ask::{Answer, AskRequest, McpToolRequest, RequestFacts};
pub use attest::{Attestation, AttestedIdentity};
pub use audit_tree::TreeProof;
pub use authenticate::{AuthenticateError, Credential, Door};
pub use authorize::{Answer as AuthorizationAnswer, Authorization, Question};
pub use authz::{CheckRequest, Checked, Permission, Subject, SubjectRef};
pub use budget::{UsageReport, UsageRequest};
pub use builder::{Builder, ConfigError};
pub use caller::Caller;
pub use clients::{ClientRequest, NewApiKeyRequest};
pub use decide::DecisionRequest;
pub use error::ApiError;
pub use introspect::{ActiveToken, Introspection};
pub use introspect_approval::{ActiveApproval, ApprovedBy};
pub use jit::{
    EndedTask, JitApproval, JitDenial, JitPermission, JitPermissionRequest, JitToken, OpenedTask,
    TaskEvaluation, TaskRequest,
};
pub use mcp::{McpServerPatch, NewMcpServer, Visit};
pub use people::{Approver, NewUserRequest, UserPatch};
pub use policy::{
    AttributeCheck, AttributeCheckRequest, AttributeChecked, AttributeRequest, AuthZenBatch,
    AuthZenEvaluation, BulkAttributeCheckRequest, Consistent, NamespaceRequest, PermissionRequest,
    PolicyRequest, RelationRequest, ResourceAttributes, RoleRequest, RoleView, TargetRequest, TupleRequest,
};
pub use pushed::PushedAuthorization;
pub use reservations::{Reservation, ReservationRequest, SettleRequest};
pub use review::Reviewer;
pub use token::TokenRequest;

use token::RequestClient;

/// Turns passwords into hashes. Who people are is the host's business, so hashing is the host's too; without
/// a hasher, users are stored without password.
#[async_trait::async_trait]
pub trait PasswordHasher: fmt::Debug + Send + Sync + 'static {
    /// A hash of `password` in PHC form, made so that a flood of calls cannot starve the server.
    ///
    /// # Errors
    /// [`HashError`] if it cannot be made now.
    async fn hash(&self, password: &Secret) -> Result<PasswordHash, HashError>;
}

/// A password could not be hashed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("password hashing failed: {0}")]
pub struct HashError(&'static str);

impl HashError {
    /// With the reason, for the log.
    pub const fn new(reason: &'static str) -> Self {
        Self(reason)
    }
}

/// A store does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the store `{store}` does not answer")]
#[non_exhaustive]
pub struct NotReady {
    /// Which; see [`Upkeep::name`](crate::store::Upkeep::name).
    pub store: &'static str,
    /// Why.
    pub source: StoreError,
}

/// The authorization server of any number of organizations.
///
/// ```
/// use lumoauth_core::{
///     keys::{KeyRing, KeyRingConfig, MasterKey},
///     server::AuthorizationServer,
///     store::{MemoryStore, Stores},
/// };
/// use std::sync::Arc;
///
/// let store = Arc::new(MemoryStore::new());
/// let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
/// let server = AuthorizationServer::builder("https://auth.example", Stores::all(store), Arc::new(keys)).build()?;
/// # Ok::<_, lumoauth_core::server::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The head of each audit log that was signed here last.
    signed_heads: audit_tree::SignedHeads,
    audit_retention: Option<std::time::Duration>,
    public_url: String,
    stores: Stores,
    keys: Arc<dyn KeyProvider>,
    clock: Arc<dyn Clock>,
    grants: HashMap<&'static str, Arc<dyn Grant>>,
    password_hasher: Option<Arc<dyn PasswordHasher>>,
    failure_limit: Option<RateLimit>,
    fetch: Arc<dyn Fetch>,
    foreign_keys: ForeignKeys,
    verified: VerifiedTokens,
    /// The signatures that are accepted here.
    signed_here: Accept,
    consent_policy: Arc<dyn ConsentPolicy>,
    notices: notices::Notices,
    mail: notices::Mail,
    /// Where people decide, with `{org}` for the organization.
    approver_page: Option<String>,
    /// The policy of organizations.
    policy: BuiltIn,
    /// Who decides on it.
    authorizer: Arc<dyn Authorizer>,
}

/// How often a change is decided anew when others change the same record.
const ATTEMPTS: usize = 8;

/// Runs `attempt` until it wins: `None` means that the record was changed in between.
async fn retrying<T, F>(attempt: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<Option<T>, ApiError>> + Send,
{
    for _ in 0..ATTEMPTS {
        if let Some(value) = attempt().await? {
            return Ok(value);
        }
    }
    Err(ApiError::Conflict("The record was changed by others at the same time."))
}

/// What an update came to, for [`retrying`].
fn written<T>(outcome: Update, what: &'static str, value: impl FnOnce() -> T) -> Result<Option<T>, ApiError> {
    match outcome {
        Update::Updated => Ok(Some(value())),
        Update::Stale => Ok(None),
        Update::Missing => Err(ApiError::NotFound(what)),
        Update::Taken(_) => Err(ApiError::Conflict("A unique value is taken.")),
    }
}

/// What a removal came to, for [`retrying`].
fn removed(outcome: Remove, what: &'static str) -> Result<Option<()>, ApiError> {
    match outcome {
        Remove::Removed => Ok(Some(())),
        Remove::Stale => Ok(None),
        Remove::Missing => Err(ApiError::NotFound(what)),
    }
}

/// The path of a URL without query and fragment, as it is written.
fn public_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |at| rest[at..].trim_end_matches('/'))
}

impl AuthorizationServer {
    /// Starts building a server that is reached at `public_url` (scheme, host, optional port and path; no
    /// trailing slash).
    pub fn builder(public_url: &str, stores: Stores, keys: Arc<dyn KeyProvider>) -> Builder {
        Builder::new(public_url, stores, keys)
    }

    /// The URL under which clients reach the server.
    pub fn public_url(&self) -> &str {
        &self.inner.public_url
    }

    /// The path of that URL, without a slash at its end; empty if it has none. Something in front of the server takes it
    /// away, so it stands before every path that a browser is given, and before none that arrives.
    pub fn public_path(&self) -> &str {
        public_path(&self.inner.public_url)
    }

    /// The issuer of an organization: one string everywhere, whatever path prefix a client used.
    pub fn issuer(&self, org: &OrgId) -> String {
        format!("{}/orgs/{org}/api/v1", self.inner.public_url)
    }

    /// The organization, or [`ApiError::TenantNotFound`].
    ///
    /// # Errors
    /// [`ApiError`] if there is none or the store cannot answer.
    pub async fn organization(&self, org: &OrgId) -> Result<Arc<Organization>, ApiError> {
        self.inner.stores.organizations.find(org).await?.ok_or(ApiError::TenantNotFound)
    }

    /// The public keys of an organization (RFC 7517).
    ///
    /// # Errors
    /// [`KeyError`] if they cannot be read.
    pub async fn jwks(&self, org: &OrgId) -> Result<Vec<Jwk>, KeyError> {
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AccessToken, self.now()).await?;
        Ok(keys.iter().map(|key| key.jwk().clone()).collect())
    }

    /// The types of the grants that the token endpoint serves, in a stable order.
    pub fn grant_types(&self) -> Vec<&'static str> {
        let mut types: Vec<_> = self.inner.grants.keys().copied().collect();
        types.sort_unstable();
        types
    }

    /// Makes what a new organization needs before its first request: its signing keys.
    ///
    /// # Errors
    /// [`KeyError`] if they cannot be made.
    pub async fn prepare(&self, org: &OrgId) -> Result<(), KeyError> {
        self.inner.keys.maintain(org, self.now()).await
    }

    /// Whether every store answers.
    ///
    /// # Errors
    /// [`NotReady`] with the first that does not.
    pub async fn ready(&self) -> Result<(), NotReady> {
        for store in &self.inner.stores.upkeep {
            store.ping().await.map_err(|source| NotReady { store: store.name(), source })?;
        }
        Ok(())
    }

    /// Counts one request of `source` against `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn rate_limit(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
    ) -> Result<(Admission, Timestamp), StoreError> {
        let now = self.now();
        Ok((self.inner.stores.rate_limits.take(org, source, limit, now).await?, now))
    }

    /// The present instant, by the server's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    fn grant_context<'a>(
        &'a self,
        organization: &'a Organization,
        issuer: &'a str,
        client: &'a RequestClient,
        origin: &'a Origin,
        refusal: &'a Refusal,
        now: Timestamp,
    ) -> GrantContext<'a> {
        GrantContext {
            organization,
            issuer,
            client: client.proven.as_ref(),
            public_client: client.public.as_ref(),
            key: None,
            origin,
            stores: &self.inner.stores,
            keys: &*self.inner.keys,
            foreign_keys: &self.inner.foreign_keys,
            fetch: &*self.inner.fetch,
            refusal,
            verified: &self.inner.verified,
            now,
        }
    }
}
