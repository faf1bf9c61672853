//! Roles and what they permit.

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, description, invalid, label, permissions};
use crate::{
    agent::checked_text,
    audit::{EventKind, Target},
    capability::Capability,
    id::OrgId,
    policy::{Assignment, Entry, Grant, Holder, Permission, RecordKind, Role, Snapshot},
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
    /// How many have it directly.
    pub holders: usize,
    /// What it permits.
    pub permissions: Vec<Permission>,
}

impl RoleView {
    pub(super) fn of(snapshot: &Snapshot, role: &Arc<Role>) -> Self {
        let listed = |slug| {
            snapshot.permission(Capability::as_str(slug)).cloned().or_else(|| permissions::system(slug))
        };
        let holders = snapshot.holders_of(&Grant::Role(role.number)).len();
        Self {
            role: role.clone(),
            holders,
            permissions: role.permissions.iter().filter_map(listed).collect(),
        }
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
            "userCount": self.holders,
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
        let mut role = Role::new(slug, name, self.now());
        role.description = description(request.description.as_deref())?;
        let plan = |snapshot: &Snapshot| {
            let mut role = role.clone();
            if snapshot.find(&Role::record_id(&role.slug)).is_some() {
                return Err(ApiError::Conflict("A role with this slug exists."));
            }
            let (slugs, new) =
                named(snapshot, request.permissions.as_deref().unwrap_or_default(), self.now())?;
            role.permissions = slugs;
            let role = Arc::new(role);
            let mut plan = Plan::new(EventKind::RoleCreated, "role made", target(&role), role.clone())
                .with("permissions", json!(role.permissions))
                .insert(&Entry::Role(role));
            plan.changes.extend(new);
            Ok(plan)
        };
        let (role, _) = self.change_policy(org, caller, plan).await?;
        self.role(org, role.slug.as_str()).await
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
            let Some(wanted) = &request.permissions else { return Ok(Vec::new()) };
            let (slugs, new) = named(snapshot, wanted, self.now())?;
            role.permissions = slugs;
            Ok(new)
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
            let (slugs, new) = named(snapshot, wanted, self.now())?;
            role.permissions.extend(slugs);
            Ok(new)
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
            let slug = snapshot.permission(permission).map(|it| it.slug.clone());
            let slug = slug.or_else(|| Capability::parse(permission).ok());
            let removed = slug.is_some_and(|slug| role.permissions.remove(&slug));
            if removed { Ok(Vec::new()) } else { Err(ApiError::NotFound("permission of this role")) }
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
            let grant = Grant::Role(role.number);
            let plan = Plan::new(EventKind::RoleDeleted, "role removed", target(role), ());
            let holders = snapshot.holders_of(&grant);
            let plan = plan.with("holders", holders.len()).remove(snapshot, &Entry::Role(role.clone()));
            // The id of the role is never used again, so what is left of many assignments gives nothing.
            let swept = snapshot.holders_of(&grant).take(SWEPT);
            Ok(swept.fold(plan, |plan, holder: &Holder| {
                let assignment = Assignment::new(holder.clone(), grant.clone(), self.now());
                plan.remove(snapshot, &Entry::Assignment(assignment))
            }))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    async fn change_role(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
        change: impl Fn(&Snapshot, &mut Role) -> Result<Vec<PolicyChange>, ApiError> + Send + Sync,
    ) -> Result<RoleView, ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            let mut role = Role::clone(old);
            let new = change(snapshot, &mut role)?;
            if role.permissions.len() > Role::MAX_PERMISSIONS {
                return Err(invalid("permissions", format!("are more than {}", Role::MAX_PERMISSIONS)));
            }
            let plan = Plan::new(EventKind::RoleUpdated, "role changed", target(old), old.slug.clone());
            if role == **old && new.is_empty() {
                return Ok(plan);
            }
            role.updated_at = self.now();
            let mut plan = plan
                .with("before", json!({ "name": old.name, "permissions": old.permissions }))
                .with("after", json!({ "name": role.name, "permissions": role.permissions }))
                .put(snapshot, &Entry::Role(Arc::new(role)));
            plan.changes.extend(new);
            Ok(plan)
        };
        let (slug, _) = self.change_policy(org, caller, plan).await?;
        self.role(org, slug.as_str()).await
    }
}

/// How many assignments are removed with their role.
const SWEPT: usize = 500;

pub(super) fn found<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Arc<Role>, ApiError> {
    snapshot.role(name).ok_or(ApiError::NotFound("role"))
}

pub(super) fn target(role: &Role) -> Target {
    Target::new("role", role.slug.as_str()).named(&*role.name)
}

/// The permissions that are named, and what has to be written so that they are listed.
pub(super) fn named(
    snapshot: &Snapshot,
    wanted: &[Value],
    now: crate::clock::Timestamp,
) -> Result<(BTreeSet<Capability>, Vec<PolicyChange>), ApiError> {
    if wanted.len() > Role::MAX_PERMISSIONS {
        return Err(invalid("permissions", format!("are more than {}", Role::MAX_PERMISSIONS)));
    }
    let (mut slugs, mut new) = (BTreeSet::new(), Vec::new());
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
        if !snapshot.lists(&slug) && !slugs.contains(&slug) {
            let permission = Permission::new(slug.clone(), slug.to_string(), now);
            new.push(PolicyChange::put(&Entry::Permission(permission), Expect::Absent));
        }
        slugs.insert(slug);
    }
    Ok((slugs, new))
}

/// Every permission that `holder` has, with or without a role: its slug, what it permits, and where it comes from.
pub(in crate::server) fn named_role_source(
    snapshot: &Snapshot,
    holder: &Holder,
) -> Vec<(Capability, String, String)> {
    let about = |slug: &Capability| {
        let listed = snapshot.permission(slug.as_str()).cloned().or_else(|| permissions::system(slug));
        listed.and_then(|permission| permission.description).unwrap_or_default()
    };
    let by_role = snapshot.roles_of(holder).into_iter().flat_map(|held| {
        let source = format!("role:{}", held.role.slug);
        let slugs: Vec<_> =
            held.role.permissions.iter().filter(|slug| snapshot.lists(slug)).cloned().collect();
        slugs.into_iter().map(move |slug| (slug, source.clone()))
    });
    let alone = snapshot.permissions_of(holder).into_iter().map(|(slug, _)| (slug, "permission".to_owned()));
    by_role.chain(alone).map(|(slug, source)| (slug.clone(), about(&slug), source)).collect()
}
