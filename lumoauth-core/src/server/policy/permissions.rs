//! The list of permissions.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, description, invalid};
use crate::{
    agent::checked_text,
    audit::{EventKind, Target},
    capability::Capability,
    clock::Timestamp,
    id::{Number, OrgId},
    policy::{
        Assignment, Entry, Grant, Permission, RecordKind, Role, SYSTEM_PERMISSIONS, Snapshot, is_reserved,
    },
};

/// The members of a permission. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct PermissionRequest {
    /// The action that it permits; it never changes.
    pub slug: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// What it permits, in words.
    pub description: Option<String>,
}

const SYSTEM: ApiError = ApiError::Forbidden("A permission of the system stays as it is.");

impl AuthorizationServer {
    /// Every permission: those of the system, then those of the organization by slug, with how many roles have it.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn permission_list(&self, org: &OrgId) -> Result<Vec<(Permission, usize)>, ApiError> {
        self.with_policy(org, |snapshot| {
            let system =
                SYSTEM_PERMISSIONS.iter().filter_map(|(slug, _)| system(&Capability::parse(slug).ok()?));
            let mut counts: HashMap<&Capability, usize> = HashMap::new();
            let roles = snapshot.all(RecordKind::Role).filter_map(|entry| match entry {
                Entry::Role(role) => Some(role),
                _ => None,
            });
            roles.flat_map(|role| &role.permissions).for_each(|slug| *counts.entry(slug).or_default() += 1);
            let all = system.chain(snapshot.permissions().cloned());
            all.map(|it| (it.clone(), counts.get(&it.slug).copied().unwrap_or_default())).collect()
        })
        .await
    }

    /// The permission with this id or slug, with how many roles have it.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn permission(&self, org: &OrgId, name: &str) -> Result<(Permission, usize), ApiError> {
        self.with_policy(org, |snapshot| {
            let found = snapshot.permission(name).cloned().or_else(|| system_named(name));
            let found = found.ok_or(ApiError::NotFound("permission"))?;
            let roles = roles_with(snapshot, &found.slug).count();
            Ok((found, roles))
        })
        .await?
    }

    /// Lists a permission.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable or the slug is taken.
    pub async fn create_permission(
        &self,
        org: &OrgId,
        request: &PermissionRequest,
        caller: &Caller,
    ) -> Result<Permission, ApiError> {
        let slug = slug("slug", request.slug.as_deref().unwrap_or_default())?;
        let name = request.name.as_deref().map(|name| checked_text("name", name, 1, 128)).transpose()?;
        let name = name.unwrap_or_else(|| slug.to_string());
        let mut permission = Permission::new(slug, name, self.now());
        permission.description = description(request.description.as_deref())?;
        let plan = |snapshot: &Snapshot| {
            if snapshot.lists(&permission.slug) {
                return Err(ApiError::Conflict("A permission with this slug exists."));
            }
            let plan = Plan::new(
                EventKind::PermissionCreated,
                "permission listed",
                target(&permission),
                permission.clone(),
            );
            Ok(plan.made(told(&permission)).insert(&Entry::Permission(permission.clone())))
        };
        self.change_policy(org, caller, plan).await.map(|(permission, _)| permission)
    }

    /// Changes the name or the description of a permission.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such permission, it is one of the system, or a member is not acceptable.
    pub async fn update_permission(
        &self,
        org: &OrgId,
        name: &str,
        request: &PermissionRequest,
        caller: &Caller,
    ) -> Result<Permission, ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = own(snapshot, name)?;
            caller.expects(old)?;
            let mut permission = old.clone();
            if request.slug.as_deref().is_some_and(|slug| slug != old.slug.as_str()) {
                return Err(invalid("slug", "never changes"));
            }
            if let Some(name) = &request.name {
                permission.name = checked_text("name", name, 1, 128)?;
            }
            if request.description.is_some() {
                permission.description = description(request.description.as_deref())?;
            }
            let plan = Plan::new(
                EventKind::PermissionUpdated,
                "permission changed",
                target(old),
                permission.clone(),
            );
            if permission == *old {
                return Ok(plan);
            }
            Ok(plan.changed(&told(old), &told(&permission)).put(snapshot, &Entry::Permission(permission)))
        };
        self.change_policy(org, caller, plan).await.map(|(permission, _)| permission)
    }

    /// Takes a permission off the list, and out of every role. Nobody has it any more.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such permission, it is one of the system, or too many have it to take it from all of them
    /// in one step.
    pub async fn delete_permission(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = own(snapshot, name)?;
            caller.expects(old)?;
            let plan =
                Plan::new(EventKind::PermissionDeleted, "permission taken off the list", target(old), ());
            let grant = Grant::Permission(old.slug.clone());
            let mut plan = plan
                .with_names("roles", roles_with(snapshot, &old.slug).take(MOST_TOLD).map(|role| &role.slug))
                .with_names("holders", snapshot.holders_of(&grant).take(MOST_TOLD))
                .gone(told(old))
                .remove(snapshot, &Entry::Permission(old.clone()));
            for role in roles_with(snapshot, &old.slug) {
                let mut role = Role::clone(role);
                role.permissions.remove(&old.slug);
                role.updated_at = self.now();
                plan = plan.put(snapshot, &Entry::Role(Arc::new(role)));
            }
            for holder in snapshot.holders_of(&grant) {
                let assignment = Assignment::new(holder.clone(), grant.clone(), self.now());
                plan = plan.remove(snapshot, &Entry::Assignment(assignment));
            }
            if plan.changes.len() > MOST_HOLDERS {
                return Err(ApiError::Conflict("Too many have this permission: take it out of roles first."));
            }
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }
}

/// From how many roles and holders a permission is taken in one step.
const MOST_HOLDERS: usize = 2000;

/// How many of each of them the log names.
const MOST_TOLD: usize = 100;

/// What the log says of a permission.
fn told(permission: &Permission) -> Value {
    json!({ "name": permission.name, "description": permission.description })
}

fn own<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Permission, ApiError> {
    let missing = || if system_named(name).is_some() { SYSTEM } else { ApiError::NotFound("permission") };
    snapshot.permission(name).ok_or_else(missing)
}

fn roles_with<'a>(snapshot: &'a Snapshot, slug: &'a Capability) -> impl Iterator<Item = &'a Arc<Role>> {
    snapshot.all(RecordKind::Role).filter_map(move |entry| match entry {
        Entry::Role(role) if role.permissions.contains(slug) => Some(role),
        _ => None,
    })
}

fn target(permission: &Permission) -> Target {
    Target::new("permission", permission.slug.as_str()).named(&*permission.name)
}

/// The permission of the system with this slug. Their ids are their places in the list.
pub(super) fn system(slug: &Capability) -> Option<Permission> {
    let place = SYSTEM_PERMISSIONS.iter().position(|(known, _)| *known == slug.as_str())?;
    let (_, about) = SYSTEM_PERMISSIONS.get(place)?;
    let mut permission = Permission::new(slug.clone(), *about, Timestamp::from_unix_seconds(0));
    permission.number = Number::new(place as u64 + 1);
    permission.description = Some((*about).to_owned());
    Some(permission)
}

/// The slug of the permission of the system with this id.
pub(super) fn system_numbered(number: &str) -> Option<Capability> {
    let place: usize = number.parse().ok()?;
    let (slug, _) = SYSTEM_PERMISSIONS.get(place.checked_sub(1)?)?;
    Capability::parse(slug).ok()
}

/// The slug of the permission with this id or slug, whether or not it is listed (any more).
pub(super) fn slug_named(snapshot: &Snapshot, name: &str) -> Option<Capability> {
    let listed = snapshot.permission(name).map(|permission| permission.slug.clone());
    listed.or_else(|| system_numbered(name)).or_else(|| Capability::parse(name).ok())
}

fn system_named(name: &str) -> Option<Permission> {
    system(&system_numbered(name).or_else(|| Capability::parse(name).ok())?)
}

/// A slug that a permission can have.
pub(super) fn slug(member: &'static str, text: &str) -> Result<Capability, ApiError> {
    let slug = Capability::parse(text).ok().filter(|slug| !slug.is_wildcard());
    let slug = slug.ok_or_else(|| invalid(member, "must be 1 to 128 of A-Z a-z 0-9 _ . : / -"))?;
    if is_reserved(&slug) {
        return Err(invalid(member, "must not be of admin, delegate, authz and jit: no role gives those"));
    }
    if text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid(member, "must not be a number"));
    }
    Ok(slug)
}

/// A permission as administrators see it.
pub(super) fn view(permission: &Permission) -> Value {
    let parts = permission.slug.as_str().rsplit_once(['.', ':']);
    let is_system = SYSTEM_PERMISSIONS.iter().any(|(slug, _)| *slug == permission.slug.as_str());
    json!({
        "id": permission.number,
        "name": permission.name,
        "slug": permission.slug,
        "description": permission.description,
        "resource": parts.map(|(resource, _)| resource),
        "action": parts.map(|(_, action)| action),
        "isSystem": is_system,
        "isCustom": !is_system,
        "createdAt": permission.created_at.to_string(),
    })
}

impl Permission {
    /// As administrators see it, with how many roles have it.
    pub fn view(&self, roles: usize) -> Value {
        let mut view = view(self);
        view["roleCount"] = roles.into();
        view
    }
}
