//! What organizations write down as policy, and the questions that it answers.

mod assignments;
mod attributes;
mod authzen;
mod checks;
mod decisions;
mod permissions;
mod policies;
mod relations;
mod roles;
mod sweep;
mod tuples;

use std::sync::Arc;

use super::{ApiError, AuthorizationServer, Caller, shown::Shows};
use crate::{
    agent::checked_text,
    audit::{Event, EventKind, Target},
    authz::Kept,
    capability::Capability,
    clock::Timestamp,
    id::{Label, OrgId},
    policy::{Entry, Holder, Record, Snapshot},
    principal::{Identity, Principal},
    store::{Apply, Expect, PolicyChange},
};

pub use attributes::{AttributeRequest, ResourceAttributes};
pub use authzen::{AuthZenBatch, AuthZenEvaluation};
pub use checks::{AttributeCheck, AttributeCheckRequest, AttributeChecked, BulkAttributeCheckRequest};
pub(super) use decisions::{Asked, any_form};
pub use permissions::PermissionRequest;
pub use policies::{PolicyRequest, TargetRequest};
pub use relations::{Consistent, NamespaceRequest, RelationRequest};
pub use roles::{RoleRequest, RoleView};
pub(super) use roles::{sources_of_permissions, system_permissions};
pub use tuples::TupleRequest;

/// The most records of one organization: what a server keeps of it stays in memory.
const MAX_RECORDS: usize = 500_000;

/// The most memory of one organization's policy, about.
const MAX_BYTES: u64 = 256 << 20;

/// How far beyond that records may grow that are there already. To narrow something can take some more words: a condition,
/// the only agents that it is about, or no more than `false` for `true`.
const HEADROOM: u64 = 16 << 20;

const FULL: ApiError = ApiError::Conflict("The organization has as much policy as it may.");

/// How often a change is decided anew when others change the same records: of as many at once, each one is made.
const ATTEMPTS: usize = 64;

/// What is to be written, decided on a snapshot.
struct Plan<T> {
    changes: Vec<PolicyChange>,
    kind: EventKind,
    message: String,
    target: Target,
    context: Vec<(&'static str, serde_json::Value)>,
    /// What the caller gets.
    result: T,
}

impl<T> Plan<T> {
    fn new(kind: EventKind, message: impl Into<String>, target: Target, result: T) -> Self {
        Self { changes: Vec::new(), kind, message: message.into(), target, context: Vec::new(), result }
    }

    /// Writes `entry` in the place of what the snapshot has.
    fn put(mut self, snapshot: &Snapshot, entry: &Entry) -> Self {
        let found = snapshot.find(&entry.id()).map(|(revision, _)| revision);
        self.changes.push(PolicyChange::put(entry, found.map_or(Expect::Absent, Expect::At)));
        self
    }

    /// Writes `entry`, which must be new.
    fn insert(mut self, entry: &Entry) -> Self {
        self.changes.push(PolicyChange::put(entry, Expect::Absent));
        self
    }

    fn remove(mut self, snapshot: &Snapshot, entry: &Entry) -> Self {
        let found = snapshot.find(&entry.id()).map(|(revision, _)| revision);
        self.changes.push(PolicyChange::remove(entry.id(), found.map_or(Expect::Anything, Expect::At)));
        self
    }

    /// What else is to be written for it.
    fn also(mut self, changes: Vec<PolicyChange>) -> Self {
        self.changes.extend(changes);
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.context.push((name, value.into()));
        self
    }

    /// Notes names, if there are any.
    fn with_names<N: std::fmt::Display>(
        self,
        name: &'static str,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        let names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
        if names.is_empty() { self } else { self.with(name, names) }
    }

    fn event(&self, caller: &Caller, now: Timestamp) -> Event {
        let event = caller.event(self.kind, self.message.clone(), now).on(self.target.clone());
        self.context.iter().fold(event, |event, (name, value)| event.with(name, value.clone()))
    }
}

impl<T> Shows for Plan<T> {
    fn says(self, name: &'static str, value: serde_json::Value) -> Self {
        self.with(name, value)
    }
}

impl AuthorizationServer {
    /// The policy of `org` as it is now.
    pub(super) async fn policy_of(&self, org: &OrgId) -> Result<Arc<Kept>, ApiError> {
        Ok(self.inner.policy.current(org).await?)
    }

    /// Looks at the policy of `org` as it is now.
    async fn with_policy<T>(&self, org: &OrgId, look: impl FnOnce(&Snapshot) -> T) -> Result<T, ApiError> {
        Ok(self.policy_of(org).await?.read(look))
    }

    /// Carries out what `plan` decides on the newest snapshot; decides anew if others were faster. Without changes nothing
    /// is written.
    async fn change_policy<T>(
        &self,
        org: &OrgId,
        caller: &Caller,
        plan: impl Fn(&Snapshot) -> Result<Plan<T>, ApiError> + Send + Sync,
    ) -> Result<(T, u64), ApiError>
    where
        T: Send,
    {
        for _ in 0..ATTEMPTS {
            let kept = self.policy_of(org).await?;
            // What is kept may be a moment old: too old to say that there is nothing to change.
            kept.update(&*self.stores().uncached().policies, org).await?;
            let (decided, revision) = kept.read(|snapshot| {
                let decided = plan(snapshot)?;
                let sizes = Sizes::of(snapshot, &decided.changes);
                if sizes.are_too_much() {
                    return Err(FULL);
                }
                Ok((decided, snapshot.revision()))
            })?;
            if decided.changes.is_empty() {
                return Ok((decided.result, revision));
            }
            let now = self.now();
            let event = decided.event(caller, now);
            match self.stores().policies.apply(org, &decided.changes, &event, now).await? {
                Apply::Applied { revision } => {
                    let written = |change: &PolicyChange| Record {
                        id: change.id.clone(),
                        revision,
                        body: change.body.clone(),
                    };
                    let records: Vec<_> = decided.changes.iter().map(written).collect();
                    kept.written(&records, revision)?;
                    return Ok((decided.result, revision));
                }
                Apply::Conflict(_) => {}
            }
        }
        Err(ApiError::Conflict("The policy was changed by others at the same time."))
    }

    /// The roles of an agent, by slug, and the permissions that it has without one.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn grants_of(
        &self,
        org: &OrgId,
        holder: &Holder,
    ) -> Result<(Vec<Label>, Vec<Capability>), ApiError> {
        self.with_policy(org, |snapshot| grants(snapshot, holder)).await
    }

    /// The same of several, in their order.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn grants_of_each(
        &self,
        org: &OrgId,
        holders: &[Holder],
    ) -> Result<Vec<(Vec<Label>, Vec<Capability>)>, ApiError> {
        self.with_policy(org, |snapshot| holders.iter().map(|holder| grants(snapshot, holder)).collect())
            .await
    }
}

/// Records and bytes of a policy, before and after a change.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    before: (usize, u64),
    after: (usize, u64),
}

impl Sizes {
    fn of(snapshot: &Snapshot, changes: &[PolicyChange]) -> Self {
        let changes = changes.iter().map(|change| (&change.id, change.body.as_deref()));
        Self { before: (snapshot.len(), snapshot.bytes()), after: snapshot.size_after(changes) }
    }

    /// Whether the change makes more of a policy than it may be. What makes it no larger is always possible.
    fn are_too_much(self) -> bool {
        let ((records, bytes), (records_after, bytes_after)) = (self.before, self.after);
        let most = if records_after > records { MAX_BYTES } else { MAX_BYTES + HEADROOM };
        records_after > records.max(MAX_RECORDS) || bytes_after > bytes.max(most)
    }
}

/// Refuses people and applications without one of `scopes` in their token. Agents are judged by what they hold, and not by
/// scopes; others have no business here.
fn require_scope(principal: &Principal, scopes: &[&str]) -> Result<(), ApiError> {
    match &principal.identity {
        Identity::Agent(_) => return Ok(()),
        Identity::User(_) | Identity::Client(_) => {}
        Identity::ApiKey(_) | Identity::Remote(_) => return Err(crate::server::me::FOR_AGENTS_AND_PEOPLE),
    }
    let holds = |name: &&str| Capability::parse(name).is_ok_and(|scope| principal.decide(&scope).is_allow());
    if scopes.iter().chain(&["admin"]).any(holds) {
        return Ok(());
    }
    let granted = principal.token_scope().unwrap_or_default().iter().map(ToString::to_string).collect();
    let required = scopes.iter().take(1).map(|scope| (*scope).to_owned()).collect();
    Err(ApiError::InsufficientScope { required, granted })
}

fn grants(snapshot: &Snapshot, holder: &Holder) -> (Vec<Label>, Vec<Capability>) {
    let mut roles: Vec<_> =
        snapshot.roles_of(holder).into_iter().map(|held| held.role.slug.clone()).collect();
    roles.sort();
    roles.dedup();
    let permissions = snapshot.permissions_of(holder);
    let own = permissions.into_iter().filter(|(_, via)| via.is_none());
    (roles, own.map(|(slug, _)| slug).collect())
}

fn invalid(member: &'static str, problem: impl Into<String>) -> ApiError {
    ApiError::Invalid { member, problem: problem.into() }
}

/// The short name `text`, or one made of `name`.
fn label(member: &'static str, text: Option<&str>, name: &str) -> Result<Label, ApiError> {
    let made: String;
    let text = match text {
        Some(text) => text,
        None => {
            let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            made = name.trim().chars().map(letter).take(64).collect();
            made.trim_matches('-')
        }
    };
    Label::parse(text).map_err(|_| invalid(member, "must be 1 to 64 of A-Z a-z 0-9 _ . -"))
}

fn description(text: Option<&str>) -> Result<Option<String>, ApiError> {
    let text = text.map(|text| checked_text("description", text, 0, 1024)).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests;
