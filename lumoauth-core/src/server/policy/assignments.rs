//! Who has which role or permission.

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, roles};
use crate::{
    audit::{EventKind, Target},
    id::{Label, OrgId},
    policy::{Assignment, Entry, Grant, Holder, Permission, Role, Snapshot},
};

use std::sync::Arc;

/// The most roles and permissions of one holder.
const MOST: usize = 1000;

impl AuthorizationServer {
    /// The roles that `holder` has directly.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn roles_of(&self, org: &OrgId, holder: &Holder) -> Result<Vec<Arc<Role>>, ApiError> {
        self.with_policy(org, |snapshot| {
            let held = snapshot.roles_of(holder).into_iter();
            held.filter(|held| held.via.is_none()).map(|held| held.role).collect()
        })
        .await
    }

    /// Who has the role with this id or slug directly.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such role.
    pub async fn holders_of_role(&self, org: &OrgId, name: &str) -> Result<Vec<Holder>, ApiError> {
        self.with_policy(org, |snapshot| {
            let role = roles::found(snapshot, name)?;
            Ok(snapshot.holders_of(&Grant::Role(role.number)).cloned().collect())
        })
        .await?
    }

    /// Gives `holder` roles (by id or slug), all of them or none; with `only`, takes all others away. Whether `holder` is
    /// somebody is for the caller to know.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such role.
    pub async fn assign_roles(
        &self,
        org: &OrgId,
        holder: &Holder,
        names: &[String],
        only: bool,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let wanted =
                names.iter().map(|name| roles::found(snapshot, name)).collect::<Result<Vec<_>, _>>()?;
            let held: Vec<_> =
                snapshot.roles_of(holder).into_iter().filter(|held| held.via.is_none()).collect();
            let target = holder_target(holder);
            let slugs: Vec<_> = wanted.iter().map(|role| &role.slug).collect();
            let mut plan =
                Plan::new(EventKind::RoleAssigned, "roles given", target, ()).with("roles", json!(slugs));
            for role in wanted.iter().filter(|role| held.iter().all(|held| held.role.number != role.number)) {
                let assignment = Assignment::new(holder.clone(), Grant::Role(role.number), self.now());
                let entry = Entry::Assignment(assignment);
                if plan.changes.iter().all(|change| change.id != entry.id()) {
                    plan = plan.insert(&entry);
                }
            }
            let kept =
                |held: &&crate::policy::HeldRole| wanted.iter().all(|role| role.number != held.role.number);
            for held in held.iter().filter(|held| only && kept(held)) {
                let assignment = Assignment::new(holder.clone(), Grant::Role(held.role.number), self.now());
                plan = plan.remove(snapshot, &Entry::Assignment(assignment));
            }
            if held.len() + plan.changes.len() > MOST {
                return Err(ApiError::Conflict("Nobody has more than 1000 roles."));
            }
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Takes a role (by id or slug) from `holder`.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such role, or `holder` does not have it directly.
    pub async fn unassign_role(
        &self,
        org: &OrgId,
        holder: &Holder,
        name: &str,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let role = roles::found(snapshot, name)?;
            let plan = Plan::new(EventKind::RoleUnassigned, "role taken away", holder_target(holder), ())
                .with("roles", json!([role.slug]));
            taken(snapshot, plan, holder, Grant::Role(role.number), "role of this holder", self.now())
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Gives `holder` permissions without a role. Slugs that are not listed yet are listed.
    ///
    /// # Errors
    /// [`ApiError`] if a permission is not one.
    pub async fn grant_permissions(
        &self,
        org: &OrgId,
        holder: &Holder,
        wanted: &[Value],
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let (slugs, new) = roles::named(snapshot, wanted, self.now())?;
            let target = holder_target(holder);
            let mut plan = Plan::new(EventKind::RoleAssigned, "permissions given", target, ())
                .with("permissions", json!(slugs));
            for slug in slugs {
                let assignment = Assignment::new(holder.clone(), Grant::Permission(slug), self.now());
                let entry = Entry::Assignment(assignment);
                if snapshot.find(&entry.id()).is_none() {
                    plan = plan.insert(&entry);
                }
            }
            if snapshot.permissions_of(holder).len() + plan.changes.len() > MOST {
                return Err(ApiError::Conflict("Nobody has more than 1000 permissions without a role."));
            }
            plan.changes.extend(new);
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Takes a permission (by id or slug) from `holder` that it has without a role.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if it does not have it.
    pub async fn withdraw_permission(
        &self,
        org: &OrgId,
        holder: &Holder,
        name: &str,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let slug = snapshot.permission(name).map(|permission: &Permission| permission.slug.clone());
            let slug = slug.or_else(|| crate::capability::Capability::parse(name).ok());
            let slug = slug.ok_or(ApiError::NotFound("permission of this holder"))?;
            let target = holder_target(holder);
            let plan = Plan::new(EventKind::RoleUnassigned, "permission taken away", target, ())
                .with("permissions", json!([slug]));
            taken(snapshot, plan, holder, Grant::Permission(slug), "permission of this holder", self.now())
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// The group with this name, as a holder of roles. Its members are whoever has the relation `member` to it.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if no group can have the name.
    pub fn group_holder(name: &str) -> Result<Holder, ApiError> {
        Label::parse(name).map(Holder::Group).map_err(|_| ApiError::NotFound("group"))
    }
}

fn taken(
    snapshot: &Snapshot,
    plan: Plan<()>,
    holder: &Holder,
    grant: Grant,
    what: &'static str,
    now: crate::clock::Timestamp,
) -> Result<Plan<()>, ApiError> {
    let entry = Entry::Assignment(Assignment::new(holder.clone(), grant, now));
    if snapshot.find(&entry.id()).is_none() {
        return Err(ApiError::NotFound(what));
    }
    Ok(plan.remove(snapshot, &entry))
}

fn holder_target(holder: &Holder) -> Target {
    match holder {
        Holder::Agent(id) => Target::new("agent", id.to_string()),
        Holder::Group(name) => Target::new("group", name.as_str()),
        Holder::User(id) => Target::new("user", id.to_string()),
    }
}
