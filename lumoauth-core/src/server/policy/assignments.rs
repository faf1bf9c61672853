//! Who has which role or permission.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, permissions, roles};
use crate::{
    audit::{EventKind, Target},
    id::{Label, OrgId},
    policy::{Assignment, Entry, Grant, Holder, Role, Snapshot},
};

/// The most roles, and the most permissions without a role, of one holder.
const MOST: usize = 1000;

impl AuthorizationServer {
    /// The roles that `holder` has directly.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn roles_of(&self, org: &OrgId, holder: &Holder) -> Result<Vec<Arc<Role>>, ApiError> {
        self.with_policy(org, |snapshot| own_roles(snapshot, holder)).await
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

    /// The same of several holders, in their order.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn roles_of_each(
        &self,
        org: &OrgId,
        holders: &[Holder],
    ) -> Result<Vec<Vec<Arc<Role>>>, ApiError> {
        self.with_policy(org, |snapshot| holders.iter().map(|holder| own_roles(snapshot, holder)).collect())
            .await
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
            let wanted = distinct(names.iter().map(|name| roles::found(snapshot, name)))?;
            let held = own_roles(snapshot, holder);
            let given: Vec<_> = wanted.iter().copied().filter(|role| !is_among(role, held.iter())).collect();
            let is_wanted = |role: &Arc<Role>| is_among(role, wanted.iter().copied());
            let taken: Vec<_> = held.iter().filter(|role| only && !is_wanted(role)).collect();
            if !given.is_empty() && held.len() - taken.len() + given.len() > MOST {
                return Err(TOO_MANY_ROLES);
            }
            let kind = if given.is_empty() { EventKind::RoleUnassigned } else { EventKind::RoleAssigned };
            let message = match (given.is_empty(), taken.is_empty()) {
                (_, true) => "roles given",
                (true, false) => "roles taken away",
                (false, false) => "roles given and taken away",
            };
            let (named, removed) = if given.is_empty() { (&taken, None) } else { (&given, Some(&taken)) };
            let mut plan = Plan::new(kind, message, holder_target(holder), ())
                .with_names("roles", named.iter().map(|role| &role.slug))
                .with_names("removed", removed.into_iter().flatten().map(|role| &role.slug));
            if !given.is_empty() {
                plan = plan.made(roles_named(given.iter().copied()));
            }
            if !taken.is_empty() {
                plan = plan.gone(roles_named(taken.iter().copied()));
            }
            for role in given {
                plan = plan.insert(&self.entry_of(holder, Grant::Role(role.number)));
            }
            for role in taken {
                plan = plan.remove(snapshot, &self.entry_of(holder, Grant::Role(role.number)));
            }
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Gives a role (by id or slug) to all of `holders` or to none. Whether they are somebody is for the caller to know.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such role.
    pub async fn give_role(
        &self,
        org: &OrgId,
        name: &str,
        holders: &[Holder],
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let role = roles::found(snapshot, name)?;
            let mut seen = HashSet::new();
            let entry = |holder| self.entry_of(holder, Grant::Role(role.number));
            let new = holders.iter().filter(|holder| snapshot.find(&entry(holder).id()).is_none());
            let new: Vec<_> = new.filter(|holder| seen.insert(*holder)).collect();
            if new.iter().any(|holder| own_roles(snapshot, holder).len() >= MOST) {
                return Err(TOO_MANY_ROLES);
            }
            let plan = match new.as_slice() {
                [one] => Plan::new(EventKind::RoleAssigned, "role given", holder_target(one), ()),
                several => {
                    Plan::new(EventKind::RoleAssigned, "role given to several", roles::target(role), ())
                        .with_names("holders", several)
                }
            };
            let plan = plan.with_names("roles", [&role.slug]).made(match new.as_slice() {
                [_] => roles_named([role]),
                several => json!({ "holders": several.iter().map(ToString::to_string).collect::<Vec<_>>() }),
            });
            Ok(new.into_iter().fold(plan, |plan, holder| plan.insert(&entry(holder))))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Takes roles (by id or slug) from `holder`, all of them or none.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such role, or `holder` does not have it directly.
    pub async fn unassign_roles(
        &self,
        org: &OrgId,
        holder: &Holder,
        names: &[String],
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let roles = distinct(names.iter().map(|name| roles::found(snapshot, name)))?;
            let message = if roles.len() == 1 { "role taken away" } else { "roles taken away" };
            let plan = Plan::new(EventKind::RoleUnassigned, message, holder_target(holder), ())
                .with_names("roles", roles.iter().map(|role| &role.slug))
                .gone(roles_named(roles.iter().copied()));
            roles.iter().try_fold(plan, |plan, role| {
                let entry = self.entry_of(holder, Grant::Role(role.number));
                taken(snapshot, plan, &entry, "role of this holder")
            })
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
            let held = snapshot.permissions_of(holder).into_iter();
            let held = held.filter(|(_, via)| via.is_none()).map(|(slug, _)| slug).collect();
            let named = roles::named(snapshot, wanted, &held, self.now())?;
            let given: Vec<_> = named.slugs.difference(&held).cloned().collect();
            if !given.is_empty() && held.len() + given.len() > MOST {
                return Err(ApiError::Conflict("Nobody has more than 1000 permissions without a role."));
            }
            let plan = Plan::new(EventKind::RoleAssigned, "permissions given", holder_target(holder), ())
                .with_names("permissions", &given)
                .with_names("listed", &named.listed)
                .made(json!({ "permissions": given }))
                .also(named.changes);
            Ok(given.into_iter().fold(plan, |plan, slug| {
                // One that was taken off the list and is listed anew may have left something behind.
                plan.put(snapshot, &self.entry_of(holder, Grant::Permission(slug)))
            }))
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
            let slug = permissions::slug_named(snapshot, name);
            let slug = slug.ok_or(ApiError::NotFound("permission of this holder"))?;
            let target = holder_target(holder);
            let plan = Plan::new(EventKind::RoleUnassigned, "permission taken away", target, ())
                .with_names("permissions", [&slug])
                .gone(json!({ "permissions": [slug] }));
            let entry = self.entry_of(holder, Grant::Permission(slug));
            taken(snapshot, plan, &entry, "permission of this holder")
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    fn entry_of(&self, holder: &Holder, grant: Grant) -> Entry {
        Entry::Assignment(Assignment::new(holder.clone(), grant, self.now()))
    }

    /// The group with this name, as a holder of roles. Its members are whoever has the relation `member` to it.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if no group can have the name.
    pub fn group_holder(name: &str) -> Result<Holder, ApiError> {
        Label::parse(name).map(Holder::Group).map_err(|_| ApiError::NotFound("group"))
    }
}

/// What the log says of roles that somebody is given, or that are taken away.
fn roles_named<'a>(roles: impl IntoIterator<Item = &'a Arc<Role>>) -> Value {
    json!({ "roles": roles.into_iter().map(|role| &role.slug).collect::<Vec<_>>() })
}

const TOO_MANY_ROLES: ApiError = ApiError::Conflict("Nobody has more than 1000 roles.");

fn own_roles(snapshot: &Snapshot, holder: &Holder) -> Vec<Arc<Role>> {
    let held = snapshot.roles_of(holder).into_iter();
    held.filter(|held| held.via.is_none()).map(|held| held.role).collect()
}

fn is_among<'a>(role: &Role, mut roles: impl Iterator<Item = &'a Arc<Role>>) -> bool {
    roles.any(|other| other.number == role.number)
}

/// Roles without repetitions: a slug and an id may name the same one.
fn distinct<'a>(
    found: impl Iterator<Item = Result<&'a Arc<Role>, ApiError>>,
) -> Result<Vec<&'a Arc<Role>>, ApiError> {
    let mut seen = HashSet::new();
    let mut roles = found.collect::<Result<Vec<_>, _>>()?;
    roles.retain(|role| seen.insert(role.number));
    Ok(roles)
}

fn taken(
    snapshot: &Snapshot,
    plan: Plan<()>,
    entry: &Entry,
    what: &'static str,
) -> Result<Plan<()>, ApiError> {
    if snapshot.find(&entry.id()).is_none() {
        return Err(ApiError::NotFound(what));
    }
    Ok(plan.remove(snapshot, entry))
}

fn holder_target(holder: &Holder) -> Target {
    match holder {
        Holder::Agent(id) => Target::new("agent", id.to_string()),
        Holder::Group(name) => Target::new("group", name.as_str()),
        Holder::User(id) => Target::new("user", id.to_string()),
    }
}
