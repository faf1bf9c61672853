//! Roles, permissions, and who has them.

use http::StatusCode;
use lumoauth_core::{
    policy::Holder,
    server::{ApiError, AuthorizationServer, PermissionRequest, RoleRequest},
    wire::WireError,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// What is given: one or several, by whatever name clients have for it.
#[derive(Default, Deserialize)]
struct Names {
    role: Option<Value>,
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
    let role = call.server.create_role(call.org(), &request, &call.caller()).await.map_err(refuse)?;
    Ok(reply::json(StatusCode::CREATED, &json!({ "data": role.view(), "message": "Role made." })))
}

/// GET `admin/roles/{}`.
pub(crate) async fn read(call: Call) -> Result<Reply, WireError> {
    let role = call.server.role(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": role.view() })))
}

/// PUT, PATCH `admin/roles/{}`.
pub(crate) async fn update(call: Call) -> Result<Reply, WireError> {
    let request: RoleRequest = call.json()?;
    let role =
        call.server.update_role(call.org(), call.name(), &request, &call.caller()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": role.view(), "message": "Role changed." })))
}

/// DELETE `admin/roles/{}`.
pub(crate) async fn delete(call: Call) -> Result<Reply, WireError> {
    call.server.delete_role(call.org(), call.name(), &call.caller()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Role removed." })))
}

/// GET `admin/roles/{}/permissions`.
pub(crate) async fn permissions_of(call: Call) -> Result<Reply, WireError> {
    let role = call.server.role(call.org(), call.name()).await.map_err(refuse)?;
    let permissions = role.view()["permissions"].clone();
    Ok(reply::ok(&json!({ "data": permissions })))
}

/// PUT `admin/roles/{}/permissions`: these and no others.
pub(crate) async fn set_permissions(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted =
        names.permissions.ok_or_else(|| WireError::invalid_request("permissions must be a list."))?;
    let mut request = RoleRequest::default();
    request.permissions = Some(wanted);
    let role =
        call.server.update_role(call.org(), call.name(), &request, &call.caller()).await.map_err(refuse)?;
    let data = role.view()["permissions"].clone();
    Ok(reply::ok(&json!({ "data": data, "message": "Permissions set." })))
}

/// POST `admin/roles/{}/permissions`: these as well.
pub(crate) async fn add_permissions(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = all_of(names.permissions, [names.permission, names.permission_id]);
    texts(&wanted, "permissions")?;
    let role = call
        .server
        .add_role_permissions(call.org(), call.name(), &wanted, &call.caller())
        .await
        .map_err(refuse)?;
    let data = role.view()["permissions"].clone();
    Ok(reply::ok(&json!({ "data": data, "message": "Permissions added." })))
}

/// DELETE `admin/roles/{}/permissions/{}`.
pub(crate) async fn remove_permission(call: Call) -> Result<Reply, WireError> {
    let caller = call.caller();
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
        // Whoever is gone has it no more.
        if let Ok(user) = call.server.user(call.org(), &id.to_string()).await {
            items.push(json!({ "id": user.id, "email": user.email, "name": user.name }));
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
    for holder in holders {
        assign(&call, &holder, call.name()).await?;
    }
    Ok(reply::ok(&json!({ "message": "Role given." })))
}

/// DELETE `admin/roles/{}/users/{}`.
pub(crate) async fn remove_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.second()).await?;
    unassign(&call, &holder, call.name()).await
}

/// GET `admin/roles/{}/groups`.
pub(crate) async fn groups(call: Call) -> Result<Reply, WireError> {
    let holders = call.server.holders_of_role(call.org(), call.name()).await.map_err(refuse)?;
    let groups = holders.into_iter().filter_map(|holder| match holder {
        Holder::Group(name) => Some(json!({ "id": name, "slug": name, "name": name })),
        Holder::Agent(_) | Holder::User(_) => None,
    });
    Ok(reply::ok(&json!({ "data": groups.collect::<Vec<_>>() })))
}

/// POST `admin/roles/{}/groups`.
pub(crate) async fn add_groups(call: Call) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = texts(&all_of(names.groups, [names.group, None]), "groups")?;
    for name in wanted {
        let holder = AuthorizationServer::group_holder(&name).map_err(refuse)?;
        assign(&call, &holder, call.name()).await?;
    }
    Ok(reply::ok(&json!({ "message": "Role given." })))
}

/// DELETE `admin/roles/{}/groups/{}`.
pub(crate) async fn remove_group(call: Call) -> Result<Reply, WireError> {
    let holder = AuthorizationServer::group_holder(call.second()).map_err(refuse)?;
    unassign(&call, &holder, call.name()).await
}

/// GET `admin/agents/{}/roles`.
pub(crate) async fn of_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    roles_of(&call, &holder, "").await
}

/// POST `admin/agents/{}/roles`.
pub(crate) async fn add_to_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    give(&call, &holder, false).await
}

/// PUT `admin/agents/{}/roles`: these and no others.
pub(crate) async fn set_of_agent(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    give(&call, &holder, true).await
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
    for name in texts(&all_of(names.roles, [names.role, names.role_id]), "roles")? {
        unassign(&call, &holder, &name).await?;
    }
    Ok(reply::ok(&json!({ "message": "Roles taken away." })))
}

/// GET `admin/agents/{}/permissions`: those that it has without a role.
pub(crate) async fn agent_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    let (_, permissions) = call.server.grants_of(call.org(), &holder).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": permissions })))
}

/// POST `admin/agents/{}/permissions`.
pub(crate) async fn add_agent_permissions(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    let names: Names = call.json()?;
    let wanted = all_of(names.permissions, [names.permission, names.permission_id]);
    texts(&wanted, "permissions")?;
    let caller = call.caller();
    call.server.grant_permissions(call.org(), &holder, &wanted, &caller).await.map_err(refuse)?;
    let (_, permissions) = call.server.grants_of(call.org(), &holder).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": permissions, "message": "Permissions given." })))
}

/// DELETE `admin/agents/{}/permissions/{}`.
pub(crate) async fn remove_agent_permission(call: Call) -> Result<Reply, WireError> {
    let holder = agent(&call).await?;
    let caller = call.caller();
    call.server.withdraw_permission(call.org(), &holder, call.second(), &caller).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Permission taken away." })))
}

/// GET `admin/users/{}/roles`.
pub(crate) async fn of_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    roles_of(&call, &holder, "").await
}

/// POST `admin/users/{}/roles`.
pub(crate) async fn add_to_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    give(&call, &holder, false).await
}

/// PUT `admin/users/{}/roles`: these and no others.
pub(crate) async fn set_of_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    give(&call, &holder, true).await
}

/// DELETE `admin/users/{}/roles/{}`.
pub(crate) async fn remove_from_user(call: Call) -> Result<Reply, WireError> {
    let holder = user(&call, call.name()).await?;
    unassign(&call, &holder, call.second()).await
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
    let made = call.server.create_permission(call.org(), &request, &call.caller()).await.map_err(refuse)?;
    Ok(reply::json(StatusCode::CREATED, &json!({ "data": made.view(0), "message": "Permission listed." })))
}

/// GET `admin/permissions/{}`.
pub(crate) async fn permission(call: Call) -> Result<Reply, WireError> {
    let (permission, roles) = call.server.permission(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": permission.view(roles) })))
}

/// PUT, PATCH `admin/permissions/{}`.
pub(crate) async fn update_permission(call: Call) -> Result<Reply, WireError> {
    let request: PermissionRequest = call.json()?;
    let caller = call.caller();
    call.server.update_permission(call.org(), call.name(), &request, &caller).await.map_err(refuse)?;
    let (permission, roles) = call.server.permission(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": permission.view(roles), "message": "Permission changed." })))
}

/// DELETE `admin/permissions/{}`.
pub(crate) async fn delete_permission(call: Call) -> Result<Reply, WireError> {
    call.server.delete_permission(call.org(), call.name(), &call.caller()).await.map_err(refuse)?;
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

async fn assign(call: &Call, holder: &Holder, role: &str) -> Result<(), WireError> {
    let roles = [role.to_owned()];
    call.server.assign_roles(call.org(), holder, &roles, false, &call.caller()).await.map_err(refuse)
}

async fn unassign(call: &Call, holder: &Holder, role: &str) -> Result<Reply, WireError> {
    call.server.unassign_role(call.org(), holder, role, &call.caller()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Role taken away." })))
}

async fn give(call: &Call, holder: &Holder, only: bool) -> Result<Reply, WireError> {
    let names: Names = call.json()?;
    let wanted = all_of(names.roles, [names.role, names.role_id]);
    let wanted = if only && wanted.is_empty() { Vec::new() } else { texts(&wanted, "roles")? };
    let caller = call.caller();
    call.server.assign_roles(call.org(), holder, &wanted, only, &caller).await.map_err(
        |error| match error {
            // The agent or person is there; what the body names is not.
            ApiError::NotFound(_) => {
                refuse(ApiError::Invalid { member: "roles", problem: "name an unknown role".to_owned() })
            }
            other => refuse(other),
        },
    )?;
    roles_of(call, holder, "Roles given.").await
}

async fn roles_of(call: &Call, holder: &Holder, message: &str) -> Result<Reply, WireError> {
    let roles = call.server.roles_of(call.org(), holder).await.map_err(refuse)?;
    let view = |role: &std::sync::Arc<lumoauth_core::policy::Role>| json!({ "id": role.number.to_string(), "slug": role.slug, "name": role.name, "description": role.description });
    let mut body = json!({ "data": roles.iter().map(view).collect::<Vec<_>>() });
    if !message.is_empty() {
        body["message"] = message.into();
    }
    Ok(reply::ok(&body))
}
