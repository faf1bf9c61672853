//! Roles and what they permit.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, description, invalid, label, permissions};
use crate::{
    agent::checked_text,
    audit::{EventKind, Target},
    capability::Capability,
    clock::Timestamp,
    id::OrgId,
    policy::{Entry, Grant, Holder, Permission, RecordKind, Role, SYSTEM_PERMISSIONS, Snapshot},
    store::{Expect, Listing, Page, PolicyChange},
};

/// The members of a role. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct RoleRequest {
    /// Display name.
    pub name: Option<String>,
    /// Short name; it never changes.
    pub slug: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it permits: slugs or ids of permissions, or objects that have one. A slug that is not listed yet is listed.
    #[serde(alias = "permissionIds", alias = "permission_ids", alias = "permissionSlugs")]
    pub permissions: Option<Vec<Value>>,
}

/// A role, with what is known of its permissions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RoleView {
    /// The role.
    pub role: Arc<Role>,
    /// How many people have it directly.
    pub users: usize,
    /// How many agents have it directly.
    pub agents: usize,
    /// How many groups have it.
    pub groups: usize,
    /// What it permits.
    pub permissions: Vec<Permission>,
}

impl RoleView {
    pub(super) fn of(snapshot: &Snapshot, role: &Arc<Role>) -> Self {
        let listed = |slug| {
            snapshot.permission(Capability::as_str(slug)).cloned().or_else(|| permissions::system(slug))
        };
        let mut view = Self {
            role: role.clone(),
            users: 0,
            agents: 0,
            groups: 0,
            permissions: role.permissions.iter().filter_map(listed).collect(),
        };
        for holder in snapshot.holders_of(&Grant::Role(role.number)) {
            *match holder {
                Holder::Agent(_) => &mut view.agents,
                Holder::Group(_) => &mut view.groups,
                Holder::User(_) => &mut view.users,
            } += 1;
        }
        view
    }

    /// As administrators see it.
    pub fn view(&self) -> Value {
        let role = &self.role;
        json!({
            "id": role.number.to_string(),
            "name": role.name,
            "slug": role.slug,
            "description": role.description,
            "isSystem": false,
            "userCount": self.users,
            "agentCount": self.agents,
            "groupCount": self.groups,
            "permissions": self.permissions.iter().map(permissions::view).collect::<Vec<_>>(),
            "createdAt": role.created_at.to_string(),
            "updatedAt": role.updated_at.to_string(),
        })
    }
}

impl AuthorizationServer {
    /// The roles whose name or slug contains `search`, whatever the case, by slug.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn roles(&self, org: &OrgId, search: &str, page: Page) -> Result<Listing<RoleView>, ApiError> {
        let search = search.to_lowercase();
        let wanted = |role: &&Arc<Role>| {
            role.name.to_lowercase().contains(&search) || role.slug.as_str().to_lowercase().contains(&search)
        };
        self.with_policy(org, |snapshot| {
            let roles = snapshot.all(RecordKind::Role).filter_map(|entry| match entry {
                Entry::Role(role) => Some(role),
                _ => None,
            });
            let roles: Vec<_> = roles.filter(wanted).collect();
            let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
            let shown = roles.iter().skip(skipped).take(page.limit as usize);
            Listing {
                items: shown.map(|role| RoleView::of(snapshot, role)).collect(),
                total: roles.len() as u64,
            }
        })
        .await
    }

    /// The role with this id or slug.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn role(&self, org: &OrgId, name: &str) -> Result<RoleView, ApiError> {
        self.with_policy(org, |snapshot| Ok(RoleView::of(snapshot, found(snapshot, name)?))).await?
    }

    /// Makes a role.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable or the slug is taken.
    pub async fn create_role(
        &self,
        org: &OrgId,
        request: &RoleRequest,
        caller: &Caller,
    ) -> Result<RoleView, ApiError> {
        let name = request.name.as_deref().or(request.slug.as_deref()).unwrap_or_default();
        let name = checked_text("name", name, 1, 128)?;
        let slug = label("slug", request.slug.as_deref(), &name)?;
        if slug.as_str().bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(invalid("slug", "must not be a number: that is an id"));
        }
        let mut role = Role::new(slug, name, self.now());
        role.description = description(request.description.as_deref())?;
        let plan = |snapshot: &Snapshot| {
            let mut role = role.clone();
            if snapshot.find(&Role::record_id(&role.slug)).is_some() {
                return Err(ApiError::Conflict("A role with this slug exists."));
            }
            let wanted = request.permissions.as_deref().unwrap_or_default();
            let named = named(snapshot, wanted, &BTreeSet::new(), self.now())?;
            role.permissions = named.slugs;
            let role = Arc::new(role);
            Ok(Plan::new(EventKind::RoleCreated, "role made", target(&role), role.clone())
                .with("permissions", json!(role.permissions))
                .made(told(&role))
                .with_names("listed", &named.listed)
                .insert(&Entry::Role(role))
                .also(named.changes))
        };
        let (role, _) = self.change_policy(org, caller, plan).await?;
        self.with_policy(org, |snapshot| RoleView::of(snapshot, &role)).await
    }

    /// Changes a role.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such role or a member is not acceptable.
    pub async fn update_role(
        &self,
        org: &OrgId,
        name: &str,
        request: &RoleRequest,
        caller: &Caller,
    ) -> Result<RoleView, ApiError> {
        self.change_role(org, name, caller, |snapshot, role| {
            if let Some(name) = &request.name {
                role.name = checked_text("name", name, 1, 128)?;
            }
            if request.slug.as_deref().is_some_and(|slug| slug != role.slug.as_str()) {
                return Err(invalid("slug", "never changes"));
            }
            if request.description.is_some() {
                role.description = description(request.description.as_deref())?;
            }
            let Some(wanted) = &request.permissions else { return Ok(None) };
            let named = named(snapshot, wanted, &role.permissions, self.now())?;
            role.permissions.clone_from(&named.slugs);
            Ok(Some(named))
        })
        .await
    }

    /// Lets a role permit more.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such role, or a permission is not one.
    pub async fn add_role_permissions(
        &self,
        org: &OrgId,
        name: &str,
        wanted: &[Value],
        caller: &Caller,
    ) -> Result<RoleView, ApiError> {
        self.change_role(org, name, caller, |snapshot, role| {
            let named = named(snapshot, wanted, &role.permissions, self.now())?;
            role.permissions.extend(named.slugs.iter().cloned());
            Ok(Some(named))
        })
        .await
    }

    /// Takes a permission out of a role.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such role, or it does not permit that.
    pub async fn remove_role_permission(
        &self,
        org: &OrgId,
        name: &str,
        permission: &str,
        caller: &Caller,
    ) -> Result<RoleView, ApiError> {
        self.change_role(org, name, caller, |snapshot, role| {
            let slug = permissions::slug_named(snapshot, permission);
            let removed = slug.is_some_and(|slug| role.permissions.remove(&slug));
            if removed { Ok(None) } else { Err(ApiError::NotFound("permission of this role")) }
        })
        .await
    }

    /// Removes a role. Whoever has it has it no more, also not if it is made anew.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_role(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let role = found(snapshot, name)?;
            caller.expects(&**role)?;
            let grant = Grant::Role(role.number);
            let holders = snapshot.holders_of(&grant).len();
            let plan = Plan::new(EventKind::RoleDeleted, "role removed", target(role), (target(role), grant));
            Ok(plan.with("holders", holders).gone(told(role)).remove(snapshot, &Entry::Role(role.clone())))
        };
        let ((target, grant), _) = self.change_policy(org, caller, plan).await?;
        // The id of the role is never used again, so what is left of it gives nothing.
        self.forget_role(org, target, &grant, caller).await;
        Ok(())
    }

    async fn change_role(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
        change: impl Fn(&Snapshot, &mut Role) -> Result<Option<Named>, ApiError> + Send + Sync,
    ) -> Result<RoleView, ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            caller.expects(&**old)?;
            let mut role = Role::clone(old);
            let named = change(snapshot, &mut role)?;
            if role.permissions.len() > Role::MAX_PERMISSIONS {
                return Err(invalid("permissions", format!("are more than {}", Role::MAX_PERMISSIONS)));
            }
            let mut plan = Plan::new(EventKind::RoleUpdated, "role changed", target(old), old.clone());
            let (listed, changes) = named.map(|named| (named.listed, named.changes)).unwrap_or_default();
            if role == **old && changes.is_empty() {
                return Ok(plan);
            }
            role.updated_at = self.now();
            let role = Arc::new(role);
            plan.result = role.clone();
            Ok(plan
                .changed(&told(old), &told(&role))
                .with_names("listed", listed)
                .put(snapshot, &Entry::Role(role))
                .also(changes))
        };
        // What was written is answered, and not what somebody else made of it since.
        let (role, _) = self.change_policy(org, caller, plan).await?;
        self.with_policy(org, |snapshot| RoleView::of(snapshot, &role)).await
    }
}

pub(super) fn found<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Arc<Role>, ApiError> {
    snapshot.role(name).ok_or(ApiError::NotFound("role"))
}

/// What the log says of a role.
fn told(role: &Role) -> Value {
    json!({ "name": role.name, "description": role.description, "permissions": role.permissions })
}

pub(super) fn target(role: &Role) -> Target {
    Target::new("role", role.slug.as_str()).named(&*role.name)
}

/// Permissions that a request names.
pub(super) struct Named {
    pub(super) slugs: BTreeSet<Capability>,
    /// Which of them nobody has listed yet.
    pub(super) listed: Vec<Capability>,
    /// What is to be written so that all of them are listed, and still are when it is written.
    pub(super) changes: Vec<PolicyChange>,
}

/// The permissions that are named. Those that are `held` already are there to be taken away whenever they are taken off the
/// list; of every other one the record is written again, so that it is not taken off meanwhile.
pub(super) fn named(
    snapshot: &Snapshot,
    wanted: &[Value],
    held: &BTreeSet<Capability>,
    now: Timestamp,
) -> Result<Named, ApiError> {
    if wanted.len() > Role::MAX_PERMISSIONS {
        return Err(invalid("permissions", format!("are more than {}", Role::MAX_PERMISSIONS)));
    }
    let mut named = Named { slugs: BTreeSet::new(), listed: Vec::new(), changes: Vec::new() };
    for value in wanted {
        let name = match value {
            Value::Object(members) => members.get("slug").or(members.get("id")).unwrap_or(&Value::Null),
            other => other,
        };
        let name = match name {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(invalid("permissions", "must name permissions by slug or id")),
        };
        let slug = match snapshot.permission(&name) {
            Some(permission) => permission.slug.clone(),
            None if name.bytes().all(|digit| digit.is_ascii_digit()) => {
                permissions::system_numbered(&name)
                    .ok_or_else(|| invalid("permissions", "name an unknown id"))?
            }
            None => permissions::slug("permissions", &name)?,
        };
        if !named.slugs.insert(slug.clone()) {
            continue;
        }
        if !snapshot.lists(&slug) {
            let permission = Permission::new(slug.clone(), slug.to_string(), now);
            named.changes.push(PolicyChange::put(&Entry::Permission(permission), Expect::Absent));
            named.listed.push(slug);
        } else if !held.contains(&slug)
            && let Some((revision, entry)) = snapshot.find(&Permission::record_id(&slug))
        {
            named.changes.push(PolicyChange::put(entry, Expect::At(revision)));
        }
    }
    Ok(named)
}

/// Every permission that `holder` has, with or without a role, and that is not among `seen`, where it is noted: its slug,
/// what it permits, and where it comes from.
pub(in crate::server) fn sources_of_permissions(
    snapshot: &Snapshot,
    holder: &Holder,
    seen: &mut HashSet<Capability>,
) -> Vec<(Capability, String, String)> {
    let mut found = Vec::new();
    // Many roles may permit the same: it is described once.
    let mut note = |slug: &Capability, source: &dyn Fn() -> String| {
        if !seen.contains(slug) {
            seen.insert(slug.clone());
            let listed = snapshot.permission(slug.as_str()).cloned().or_else(|| permissions::system(slug));
            let about = listed.and_then(|permission| permission.description).unwrap_or_default();
            found.push((slug.clone(), about, source()));
        }
    };
    for held in snapshot.roles_of(holder) {
        for slug in held.role.permissions.iter().filter(|slug| snapshot.lists(slug)) {
            note(slug, &|| format!("role:{}", held.role.slug));
        }
    }
    for (slug, _) in snapshot.permissions_of(holder) {
        note(&slug, &|| "permission".to_owned());
    }
    found
}

/// The permissions of the system that are not among `seen`, in the same form.
pub(in crate::server) fn system_permissions(
    seen: &mut HashSet<Capability>,
) -> Vec<(Capability, String, String)> {
    let all =
        SYSTEM_PERMISSIONS.iter().filter_map(|(slug, _)| permissions::system(&Capability::parse(slug).ok()?));
    let new = all.filter(|permission| seen.insert(permission.slug.clone()));
    let told = |it: Permission| (it.slug, it.description.unwrap_or_default(), "administrator".to_owned());
    new.map(told).collect()
}
