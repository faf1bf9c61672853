//! People, ordinary clients and API keys.

use http::StatusCode;
use lumoauth_core::{
    server::{ClientRequest, NewApiKeyRequest, NewUserRequest, UserPatch},
    wire::{WireError, view},
};
use serde_json::json;

use super::{Call, refuse, roles::users_with_roles};
use crate::reply::{self, Reply};

/// GET `admin/users`.
pub(crate) async fn users(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let page =
        call.server.users(call.org(), query.get(&["search"]), paging.store_page()).await.map_err(refuse)?;
    let items = users_with_roles(&call, &page.items).await?;
    Ok(reply::ok(&paging.render("users", items, page.total)))
}

/// POST `admin/users`.
pub(crate) async fn create_user(call: Call) -> Result<Reply, WireError> {
    let request: NewUserRequest = call.json()?;
    let user = call
        .server
        .create_user(call.org(), &request, call.principal()?, &call.caller()?)
        .await
        .map_err(refuse)?;
    let data = users_with_roles(&call, std::slice::from_ref(&user)).await?.pop();
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": data, "message": "User created." })),
        &*user,
    ))
}

/// GET `admin/users/{}`.
pub(crate) async fn user(call: Call) -> Result<Reply, WireError> {
    let user = call.server.user(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({ "data": users_with_roles(&call, std::slice::from_ref(&user)).await?.pop() })),
        &*user,
    ))
}

/// PATCH `admin/users/{}`.
pub(crate) async fn update_user(call: Call) -> Result<Reply, WireError> {
    let patch: UserPatch = call.json()?;
    let user = call
        .server
        .update_user(call.org(), call.name(), &patch, call.principal()?, &call.editor()?)
        .await
        .map_err(refuse)?;
    let data = users_with_roles(&call, std::slice::from_ref(&user)).await?.pop();
    Ok(reply::tagged(reply::ok(&json!({ "data": data, "message": "User updated." })), &*user))
}

/// POST `admin/users/{}/block`.
pub(crate) async fn block_user(call: Call) -> Result<Reply, WireError> {
    set_blocked(call, true, "User blocked.").await
}

/// POST `admin/users/{}/unblock`.
pub(crate) async fn unblock_user(call: Call) -> Result<Reply, WireError> {
    set_blocked(call, false, "User unblocked.").await
}

async fn set_blocked(call: Call, blocked: bool, message: &str) -> Result<Reply, WireError> {
    let user = call
        .server
        .set_user_blocked(call.org(), call.name(), blocked, call.principal()?, &call.editor()?)
        .await
        .map_err(refuse)?;
    let data = users_with_roles(&call, std::slice::from_ref(&user)).await?.pop();
    Ok(reply::tagged(reply::ok(&json!({ "data": data, "message": message })), &*user))
}

/// GET `admin/clients`.
pub(crate) async fn clients(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let page = call.server.clients(call.org(), paging.store_page()).await.map_err(refuse)?;
    let items = page.items.iter().map(|client| view::client(client)).collect();
    Ok(reply::ok(&paging.render("clients", items, page.total)))
}

/// POST `admin/clients`.
pub(crate) async fn create_client(call: Call) -> Result<Reply, WireError> {
    let request: ClientRequest = call.json()?;
    let (client, secret) = call
        .server
        .create_client(call.org(), &request, call.principal()?, &call.caller()?)
        .await
        .map_err(refuse)?;
    let mut data = view::client(&client);
    if let Some(secret) = secret {
        data["secret"] = secret.expose().into();
        data["clientSecret"] = secret.expose().into();
        data["_note"] = "This secret is shown once.".into();
    }
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": data, "message": "Client registered." })),
        &*client,
    ))
}

/// GET `admin/clients/{}`.
pub(crate) async fn client(call: Call) -> Result<Reply, WireError> {
    let client = call.server.client(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view::client(&client) })), &*client))
}

/// POST `admin/clients/{}/rotate-secret`.
pub(crate) async fn rotate_client_secret(call: Call) -> Result<Reply, WireError> {
    let (client, secret) = call
        .server
        .rotate_client_secret(call.org(), call.name(), call.principal()?, &call.editor()?)
        .await
        .map_err(refuse)?;
    Ok(reply::ok(&json!({
        "data": {
            "id": client.number.value(),
            "clientId": client.client_id,
            "secret": secret.expose(),
            "clientSecret": secret.expose(),
            "_note": "This secret is shown once.",
        },
        "message": "Secret rotated.",
    })))
}

/// GET `admin/api-keys`.
pub(crate) async fn api_keys(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let page = call.server.api_keys(call.org(), paging.store_page()).await.map_err(refuse)?;
    let items = page.items.iter().map(|key| view::api_key(key)).collect();
    Ok(reply::ok(&paging.render("api_keys", items, page.total)))
}

/// POST `admin/api-keys`.
pub(crate) async fn create_api_key(call: Call) -> Result<Reply, WireError> {
    let request: NewApiKeyRequest = call.json()?;
    let (key, secret) = call
        .server
        .create_api_key(call.org(), &request, call.principal()?, &call.caller()?)
        .await
        .map_err(refuse)?;
    let mut data = view::api_key(&key);
    data["key"] = secret.expose().into();
    data["_note"] = "This key is shown once.".into();
    Ok(reply::json(StatusCode::CREATED, &json!({ "data": data, "message": "API key created." })))
}

/// DELETE `admin/api-keys/{}`.
pub(crate) async fn revoke_api_key(call: Call) -> Result<Reply, WireError> {
    call.server.revoke_api_key(call.org(), call.name(), &call.caller()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "API key revoked." })))
}
