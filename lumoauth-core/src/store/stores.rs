//! One backend per role.

use std::{borrow::Cow, sync::Arc};

use super::{
    AAuthResourceStore, AgentStore, ApiKeyStore, ApprovalStore, AuditStore, BudgetStore, Cached, ClientStore,
    ConsentStore, GrantStore, JitStore, KeyStore, McpServerStore, OrganizationStore, Outbox, PolicyStore,
    RateLimitStore, ReplayStore, Upkeep, UserStore,
};

/// Every role in one backend. Never implemented by hand.
pub trait Store:
    AAuthResourceStore
    + AgentStore
    + ApiKeyStore
    + ApprovalStore
    + AuditStore
    + BudgetStore
    + ClientStore
    + ConsentStore
    + GrantStore
    + JitStore
    + KeyStore
    + McpServerStore
    + OrganizationStore
    + PolicyStore
    + RateLimitStore
    + ReplayStore
    + Upkeep
    + UserStore
{
}

impl<T> Store for T where
    T: AAuthResourceStore
        + AgentStore
        + ApiKeyStore
        + ApprovalStore
        + AuditStore
        + BudgetStore
        + ClientStore
        + ConsentStore
        + GrantStore
        + JitStore
        + KeyStore
        + McpServerStore
        + OrganizationStore
        + PolicyStore
        + RateLimitStore
        + ReplayStore
        + Upkeep
        + UserStore
        + ?Sized
{
}

/// The backends of a server, role by role; override one with `..`.
///
/// ```
/// use lumoauth_core::store::{MemoryStore, Stores};
/// use std::sync::Arc;
///
/// let limits = Arc::new(MemoryStore::new());
/// let stores = Stores { rate_limits: limits, ..Stores::all(Arc::new(MemoryStore::new())) };
/// # let _ = stores;
/// ```
///
/// If a recorded role lives in another backend than the audit log, open that backend in its outbox mode and
/// list it in `outboxes`; maintenance brings its events over.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "hosts build it with struct update syntax")]
pub struct Stores {
    /// AAuth resources.
    pub aauth_resources: Arc<dyn AAuthResourceStore>,
    /// Agents.
    pub agents: Arc<dyn AgentStore>,
    /// Organization API keys.
    pub api_keys: Arc<dyn ApiKeyStore>,
    /// What agents ask people to allow.
    pub approvals: Arc<dyn ApprovalStore>,
    /// The audit log.
    pub audit: Arc<dyn AuditStore>,
    /// Budget counters.
    pub budgets: Arc<dyn BudgetStore>,
    /// Ordinary OAuth clients.
    pub clients: Arc<dyn ClientStore>,
    /// What people allowed clients.
    pub consents: Arc<dyn ConsentStore>,
    /// Tickets, refresh tokens and revocation marks.
    pub grants: Arc<dyn GrantStore>,
    /// Tasks and what agents ask for in them.
    pub jit: Arc<dyn JitStore>,
    /// Sealed signing keys, for the [`KeyRing`](crate::keys::KeyRing) that the host makes of them; the server itself only
    /// knows its key provider.
    pub keys: Arc<dyn KeyStore>,
    /// MCP servers.
    pub mcp_servers: Arc<dyn McpServerStore>,
    /// Organizations.
    pub organizations: Arc<dyn OrganizationStore>,
    /// Roles, attribute policies and relations.
    pub policies: Arc<dyn PolicyStore>,
    /// Rate limit counters.
    pub rate_limits: Arc<dyn RateLimitStore>,
    /// Single-use values.
    pub replay: Arc<dyn ReplayStore>,
    /// People.
    pub users: Arc<dyn UserStore>,
    /// The cache over some of the roles, if there is one; made by [`Cached::over`].
    pub cached: Option<Arc<Cached>>,
    /// Recorded backends whose events must be moved to the audit log.
    pub outboxes: Vec<Arc<dyn Outbox>>,
    /// Every backend that is in use, each once, for readiness and purging.
    pub upkeep: Vec<Arc<dyn Upkeep>>,
}

impl Stores {
    /// Every role from one backend.
    pub fn all<S: Store>(store: Arc<S>) -> Self {
        Self {
            aauth_resources: store.clone(),
            agents: store.clone(),
            api_keys: store.clone(),
            approvals: store.clone(),
            audit: store.clone(),
            budgets: store.clone(),
            clients: store.clone(),
            consents: store.clone(),
            grants: store.clone(),
            jit: store.clone(),
            keys: store.clone(),
            mcp_servers: store.clone(),
            organizations: store.clone(),
            policies: store.clone(),
            rate_limits: store.clone(),
            replay: store.clone(),
            users: store.clone(),
            cached: None,
            outboxes: Vec::new(),
            upkeep: vec![store],
        }
    }

    /// The same without the cache, for what must not be decided on a record of the last second.
    pub(crate) fn uncached(&self) -> Cow<'_, Self> {
        match &self.cached {
            Some(cached) => Cow::Owned(cached.beneath(self.clone())),
            None => Cow::Borrowed(self),
        }
    }
}
