//! Roles, permissions, and who has them.

use std::sync::Arc;

use http::StatusCode;
use lumoauth_core::{
    policy::{Holder, Role},
    server::{ApiError, AuthorizationServer, PermissionRequest, RoleRequest},
    user::User,
    wire::{WireError, view},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// What is given: one or several, by whatever name clients have for it.
#[derive(Default, Deserialize)]
struct Names {
    role: Option<Value>,
    #[serde(alias = "roleIds", alias = "role_ids", alias = "roleSlugs")]
    roles: Option<Vec<Value>>,
    #[serde(alias = "roleId", alias = "role_id", alias = "roleSlug")]
    role_id: Option<Value>,
    permission: Option<Value>,
    #[serde(alias = "permissionIds", alias = "permission_ids", alias = "permissionSlugs")]
    permissions: Option<Vec<Value>>,
    #[serde(alias = "permissionId", alias = "permission_id", alias = "permissionSlug")]
    permission_id: Option<Value>,
    user: Option<Value>,
    #[serde(alias = "userIds", alias = "user_ids")]
    users: Option<Vec<Value>>,
    #[serde(alias = "userId", alias = "user_id")]
    user_id: Option<Value>,
    group: Option<Value>,
    groups: Option<Vec<Value>>,
}

fn all_of(several: Option<Vec<Value>>, one: [Option<Value>; 2]) -> Vec<Value> {
    several.into_iter().flatten().chain(one.into_iter().flatten()).collect()
}

/// Values as texts; objects by their slug or id.
fn texts(values: &[Value], member: &str) -> Result<Vec<String>, WireError> {
    let text = |value: &Value| match value {
        Value::Object(members) => members.get("slug").or(members.get("id")).cloned(),
        other => Some(other.clone()),
    };
    let text = |value: &Value| match text(value)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let texts: Option<Vec<_>> = values.iter().map(text).collect();
    texts
        .filter(|texts| (1..=100).contains(&texts.len()))
        .ok_or_else(|| WireError::invalid_request(format!("{member} must name 1 to 100 by id or slug.")))
}

/// GET `admin/roles`.
pub(crate) async fn list(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let search = query.get(&["search"]).unwrap_or_default();
    let roles = call.server.roles(call.org(), search, paging.store_page()).await.map_err(refuse)?;
    let items = roles.items.iter().map(|role| role.view()).collect();
    Ok(reply::ok(&paging.render("roles", items, roles.total)))
}

/// POST `admin/roles`.
pub(crate) async fn create(call: Call) -> Result<Reply, WireError> {
    let request: RoleRequest = call.json()?;
    let role = call.server.create_role(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": role.view(), "message": "Role made." })),
        &*role.role,
    ))
}

/// GET `admin/roles/{}`.
pub(crate) async fn read(call: Call) -> Result<Reply, WireError> {
    let role = call.server.role(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": role.view() })), &*role.role))
}

/// PUT, PATCH `admin/roles/{}`.
pub(crate) async fn update(call: Call) -> Result<Reply, WireError> {
    let request: RoleRequest = call.json()?;
    let role =
        call.server.update_role(call.org(), call.name(), &request, &call.editor()?).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": role.view(), "message": "Role changed." })), &*role.role))
}

/// DELETE `admin/roles/{}`.
pub(crate) async fn delete(call: Call) -> Result<Reply, WireError> {
    call.server.delete_role(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Role removed." })))
}

/// GET `admin/roles/{}/permissions`.
pub(crate) async fn permissions_of(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let role = call.server.role(call.org(), call.name()).await.map_err(refuse)?;
    let mut view = role.view();
    let permissions = view["permissions"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(reply::ok(&paging.whole("permissions", permissions)))
}

/// PUT `admin/roles/{}/permissions`: these and no others.
pub(crate) async fn set_permissions(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted =
        names.permissions.ok_or_else(|| WireError::invalid_request("permissions must be a list."))?;
    let mut request = RoleRequest::default();
    request.permissions = Some(wanted);
    let role =
        call.server.update_role(call.org(), call.name(), &request, &call.editor()?).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": role.view(), "message": "Permissions set." })), &*role.role))
}

/// POST `admin/roles/{}/permissions`: these as well.
pub(crate) async fn add_permissions(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = all_of(names.permissions, [names.permission, names.permission_id]);
    texts(&wanted, "permissions")?;
    let role = call
        .server
        .add_role_permissions(call.org(), call.name(), &wanted, &call.editor()?)
        .await
        .map_err(refuse)?;
    let data = role.view()["permissions"].clone();
    Ok(reply::ok(&json!({ "data": data, "message": "Permissions added." })))
}

/// DELETE `admin/roles/{}/permissions/{}`.
pub(crate) async fn remove_permission(call: Call) -> Result<Reply, WireError> {
    let caller = call.editor()?;
    call.server
        .remove_role_permission(call.org(), call.name(), call.second(), &caller)
        .await
        .map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Permission taken out." })))
}

/// GET `admin/roles/{}/users`.
pub(crate) async fn users(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let holders = call.server.holders_of_role(call.org(), call.name()).await.map_err(refuse)?;
    let people: Vec<_> = holders.iter().filter(|holder| matches!(holder, Holder::User(_))).collect();
    let (total, mut items) = (people.len() as u64, Vec::new());
    for holder in paging.slice(people) {
        let Holder::User(id) = holder else { continue };
        match call.server.user(call.org(), &id.to_string()).await {
            Ok(user) => items.push(json!({ "id": user.id, "email": user.email, "name": user.name })),
            // Whoever is gone has it no more.
            Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(refuse(error)),
        }
    }
    Ok(reply::ok(&paging.render("users", items, total)))
}

/// POST `admin/roles/{}/users`.
pub(crate) async fn add_users(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = texts(&all_of(names.users, [names.user, names.user_id]), "users")?;
    let mut holders = Vec::new();
    for name in &wanted {
        holders.push(user(&call, name).await?);
    }
    give_to_all(&call, &holders).await
}

/// DELETE `admin/roles/{}/users/{}`.
pub(crate) async fn remove_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.second()).await?;
    unassign(&call, &holder, call.name()).await
}

/// GET `admin/roles/{}/groups`.
pub(crate) async fn groups(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let holders = call.server.holders_of_role(call.org(), call.name()).await.map_err(refuse)?;
    let groups = holders.into_iter().filter_map(|holder| match holder {
        Holder::Group(name) => Some(json!({ "id": name, "slug": name, "name": name })),
        Holder::Agent(_) | Holder::User(_) => None,
    });
    Ok(reply::ok(&paging.whole("groups", groups.collect())))
}

/// POST `admin/roles/{}/groups`.
pub(crate) async fn add_groups(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = texts(&all_of(names.groups, [names.group, None]), "groups")?;
    let holders = wanted.iter().map(|name| {
        AuthorizationServer::group_holder(name)
            .map_err(|_| invalid("groups", "must be named with 1 to 64 of A-Z a-z 0-9 _ . -"))
    });
    give_to_all(&call, &holders.collect::<Result<Vec<_>, _>>()?).await
}

/// DELETE `admin/roles/{}/groups/{}`.
pub(crate) async fn remove_group(call: Call) -> Result<Reply, WireError> {
    let holder = AuthorizationServer::group_holder(call.second()).map_err(refuse)?;
    unassign(&call, &holder, call.name()).await
}

/// GET `admin/agents/{}/roles`.
pub(crate) async fn of_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    list_roles(&call, &holder).await
}

/// POST `admin/agents/{}/roles`.
pub(crate) async fn add_to_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    give(&call, &holder, false).await?;
    given_to_agent(&call, &holder).await
}

/// PUT `admin/agents/{}/roles`: these and no others.
pub(crate) async fn set_of_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    give(&call, &holder, true).await?;
    given_to_agent(&call, &holder).await
}

/// DELETE `admin/agents/{}/roles/{}`.
pub(crate) async fn remove_from_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    unassign(&call, &holder, call.second()).await
}

/// DELETE `admin/agents/{}/roles`: those that the body names.
pub(crate) async fn remove_several_from_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    let names: Names = call.json()?;
    let wanted = texts(&all_of(names.roles, [names.role, names.role_id]), "roles")?;
    call.server.unassign_roles(call.org(), &holder, &wanted, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Roles taken away." })))
}

/// GET `admin/agents/{}/permissions`: those that it has without a role.
pub(crate) async fn agent_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    let paging = call.query().page()?;
    let (_, permissions) = call.server.grants_of(call.org(), &holder).await.map_err(refuse)?;
    let permissions = permissions.iter().map(|slug| slug.as_str().into()).collect();
    Ok(reply::ok(&paging.whole("permissions", permissions)))
}

/// POST `admin/agents/{}/permissions`.
pub(crate) async fn add_agent_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    permit(&call, &holder).await
}

/// DELETE `admin/agents/{}/permissions/{}`.
pub(crate) async fn remove_agent_permission(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    withdraw(&call, &holder).await
}

/// GET `admin/users/{}/roles`.
pub(crate) async fn of_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    list_roles(&call, &holder).await
}

/// POST `admin/users/{}/roles`.
pub(crate) async fn add_to_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    give(&call, &holder, false).await?;
    changed_user(&call, "Roles given.").await
}

/// PUT `admin/users/{}/roles`: these and no others.
pub(crate) async fn set_of_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    give(&call, &holder, true).await?;
    changed_user(&call, "Roles given.").await
}

/// DELETE `admin/users/{}/roles/{}`.
pub(crate) async fn remove_from_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    unassign(&call, &holder, call.second()).await?;
    changed_user(&call, "Role taken away.").await
}

/// GET `admin/users/{}/permissions`: those that they have without a role.
pub(crate) async fn user_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    let paging = call.query().page()?;
    let (_, held) = call.server.grants_of(call.org(), &holder).await.map_err(refuse)?;
    let (total, mut items) = (held.len() as u64, Vec::new());
    for slug in paging.slice(held) {
        match call.server.permission(call.org(), slug.as_str()).await {
            Ok((permission, roles)) => items.push(permission.view(roles)),
            // What is taken off the list meanwhile they have no more.
            Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(refuse(error)),
        }
    }
    Ok(reply::ok(&paging.render("permissions", items, total)))
}

/// POST `admin/users/{}/permissions`.
pub(crate) async fn add_user_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    permit(&call, &holder).await
}

/// DELETE `admin/users/{}/permissions/{}`.
pub(crate) async fn remove_user_permission(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    withdraw(&call, &holder).await
}

/// GET `admin/permissions`.
pub(crate) async fn permissions(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let search = query.get(&["search"]).unwrap_or_default().to_lowercase();
    let mut all = call.server.permission_list(call.org()).await.map_err(refuse)?;
    all.retain(|(it, _)| {
        it.name.to_lowercase().contains(&search) || it.slug.as_str().to_lowercase().contains(&search)
    });
    let total = all.len() as u64;
    let items = paging.slice(all).map(|(permission, roles)| permission.view(roles)).collect();
    Ok(reply::ok(&paging.render("permissions", items, total)))
}

/// POST `admin/permissions`.
pub(crate) async fn create_permission(call: Call) -> Result<Reply, WireError> {
    let request: PermissionRequest = call.json()?;
    let made = call.server.create_permission(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": made.view(0), "message": "Permission listed." })),
        &made,
    ))
}

/// GET `admin/permissions/{}`.
pub(crate) async fn permission(call: Call) -> Result<Reply, WireError> {
    let (permission, roles) = call.server.permission(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": permission.view(roles) })), &permission))
}

/// PUT, PATCH `admin/permissions/{}`.
pub(crate) async fn update_permission(call: Call) -> Result<Reply, WireError> {
    let request: PermissionRequest = call.json()?;
    let caller = call.editor()?;
    let permission =
        call.server.update_permission(call.org(), call.name(), &request, &caller).await.map_err(refuse)?;
    let roles = match call.server.permission(call.org(), call.name()).await {
        Ok((_, roles)) => roles,
        Err(ApiError::NotFound(_)) => 0,
        Err(error) => return Err(refuse(error)),
    };
    Ok(reply::tagged(
        reply::ok(&json!({ "data": permission.view(roles), "message": "Permission changed." })),
        &permission,
    ))
}

/// DELETE `admin/permissions/{}`.
pub(crate) async fn delete_permission(call: Call) -> Result<Reply, WireError> {
    call.server.delete_permission(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Permission taken off the list." })))
}

async fn agent(call: &Call) -> Result<Holder, WireError> {
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    Ok(Holder::Agent(agent.id))
}

async fn user(call: &Call, name: &str) -> Result<Holder, WireError> {
    let user = call.server.user(call.org(), name).await.map_err(refuse)?;
    Ok(Holder::User(user.id))
}

async fn give_to_all(call: &Call, holders: &[Holder]) -> Result<Reply, WireError> {
    call.server.give_role(call.org(), call.name(), holders, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Role given." })))
}

async fn unassign(call: &Call, holder: &Holder, role: &str) -> Result<Reply, WireError> {
    let roles = [role.to_owned()];
    call.server.unassign_roles(call.org(), holder, &roles, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Role taken away." })))
}

/// Gives the roles that the body names. To have these `only` they must be there as a list: a body that names none otherwise
/// is a mistake, and not the wish that nothing be left.
async fn give(call: &Call, holder: &Holder, only: bool) -> Result<(), WireError> {
    let names: Names = call.json()?;
    let nothing = only && names.roles.as_ref().is_some_and(Vec::is_empty);
    let wanted = all_of(names.roles, [names.role, names.role_id]);
    let wanted = if nothing && wanted.is_empty() { Vec::new() } else { texts(&wanted, "roles")? };
    let caller = call.caller()?;
    call.server.assign_roles(call.org(), holder, &wanted, only, &caller).await.map_err(|error| match error {
        // The agent or person is there; what the body names is not.
        ApiError::NotFound(_) => invalid("roles", "name an unknown role"),
        other => refuse(other),
    })
}

async fn list_roles(call: &Call, holder: &Holder) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let roles = call.server.roles_of(call.org(), holder).await.map_err(refuse)?;
    Ok(reply::ok(&paging.whole("roles", roles.iter().map(|role| brief(role)).collect())))
}

async fn given_to_agent(call: &Call, holder: &Holder) -> Result<Reply, WireError> {
    let roles = call.server.roles_of(call.org(), holder).await.map_err(refuse)?;
    let roles: Vec<_> = roles.iter().map(|role| brief(role)).collect();
    Ok(reply::ok(&json!({ "data": roles, "message": "Roles given." })))
}

/// The person of the path as they are now.
async fn changed_user(call: &Call, message: &str) -> Result<Reply, WireError> {
    let user = call.server.user(call.org(), call.name()).await.map_err(refuse)?;
    let data = users_with_roles(call, &[user]).await?.pop();
    Ok(reply::ok(&json!({ "data": data, "message": message })))
}

/// People, each with the roles that they have directly.
pub(super) async fn users_with_roles(call: &Call, users: &[Arc<User>]) -> Result<Vec<Value>, WireError> {
    let holders: Vec<_> = users.iter().map(|user| Holder::User(user.id)).collect();
    let roles = call.server.roles_of_each(call.org(), &holders).await.map_err(refuse)?;
    let with_roles = |(user, roles): (&Arc<User>, Vec<Arc<Role>>)| {
        let mut data = view::user(user);
        data["roles"] = roles.iter().map(|role| brief(role)).collect();
        data
    };
    Ok(users.iter().zip(roles).map(with_roles).collect())
}

fn brief(role: &Role) -> Value {
    json!({
        "id": role.number.to_string(),
        "slug": role.slug,
        "name": role.name,
        "description": role.description,
    })
}

async fn permit(call: &Call, holder: &Holder) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = all_of(names.permissions, [names.permission, names.permission_id]);
    texts(&wanted, "permissions")?;
    let caller = call.caller()?;
    call.server.grant_permissions(call.org(), holder, &wanted, &caller).await.map_err(refuse)?;
    let (_, permissions) = call.server.grants_of(call.org(), holder).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": permissions, "message": "Permissions given." })))
}

async fn withdraw(call: &Call, holder: &Holder) -> Result<Reply, WireError> {
    let caller = call.caller()?;
    call.server.withdraw_permission(call.org(), holder, call.second(), &caller).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Permission taken away." })))
}

fn invalid(member: &'static str, problem: &str) -> WireError {
    refuse(ApiError::Invalid { member, problem: problem.to_owned() })
}
