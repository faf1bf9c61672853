//! Files that agents read and delete, each with a permission for exactly that (RFC 9396). It shares nothing with the
//! authorization server but an address and a credential of its own: who comes with less is told what is missing, asks for it
//! in a task, and comes again.
//!
//! | route | what the token must allow, at this service |
//! |---|---|
//! | GET `/files/{name}` | `{"type":"file_access","actions":["read"],"identifier":"{name}"}` |
//! | DELETE `/files/{name}` | the same with `delete` |

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{Method, StatusCode, request::Parts},
    routing::get,
};
use lumoauth_core::{jit::AuthorizationDetail, secret::Secret};
use lumoauth_tower::{
    AuthenticateLayer, RemoteServer, RemoteTokens, RequireAuthorizationDetailsLayer, ServiceAccount,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, signal};

type Files = Arc<Mutex<BTreeSet<String>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let issuer = format!("{}/orgs/{}/api/v1", required("LUMOAUTH_URL")?, required("LUMOAUTH_ORG_ID")?);
    let listener = TcpListener::bind(env::var("FILES_LISTEN").as_deref().unwrap_or("127.0.0.1:8093")).await?;
    let address = listener.local_addr()?;
    let here = env::var("FILES_RESOURCE").unwrap_or_else(|_| format!("http://{address}"));

    // By the keys of the server: whoever has nothing yet comes with a token for that server, of which it tells nobody else.
    let server = RemoteServer::new(&issuer)?;
    let anybody = RemoteTokens::by_keys(server.clone());
    // By asking the server: what was granted for this place ends with its task, and not only when the token expires.
    let secret = Secret::from(required("FILES_CLIENT_SECRET")?);
    let account = ServiceAccount::new(server, &required("FILES_CLIENT_ID")?, &secret);
    let [known, alive] = [anybody, RemoteTokens::by_introspection(account)]
        .map(|tokens| AuthenticateLayer::remote(tokens, &here).for_details_at(&here));
    let exactly = RequireAuthorizationDetailsLayer::new(move |request| wanted(request, &here));
    let files = ["report_q4.pdf", "report_q3.pdf"].map(ToOwned::to_owned);
    let app = Router::new()
        .route("/files/{name}", get(read).delete(remove))
        .layer(alive)
        .layer(exactly)
        .layer(known)
        .with_state(Files::new(Mutex::new(files.into())));
    tracing::info!(%address, "listening");
    Ok(axum::serve(listener, app).with_graceful_shutdown(async { drop(signal::ctrl_c().await) }).await?)
}

/// What a request needs; nothing for what no route is about, which is refused.
fn wanted(request: &Parts, here: &str) -> Option<AuthorizationDetail> {
    let action = match request.method {
        Method::GET => "read",
        Method::DELETE => "delete",
        _ => return None,
    };
    // One file has one name: written otherwise, a person would be asked about something else than what is then deleted.
    let name = request.uri.path().strip_prefix("/files/").filter(|name| !name.contains('%'))?;
    AuthorizationDetail::new(json!({
        "type": "file_access", "actions": [action], "identifier": name, "locations": [here],
    }))
    .ok()
}

async fn read(State(files): State<Files>, Path(name): Path<String>) -> Result<Json<Value>, StatusCode> {
    let there = files.lock().expect("nobody panics while holding it").contains(&name);
    if there { Ok(Json(json!({ "name": name, "content": "…" }))) } else { Err(StatusCode::NOT_FOUND) }
}

async fn remove(State(files): State<Files>, Path(name): Path<String>) -> StatusCode {
    let gone = files.lock().expect("nobody panics while holding it").remove(&name);
    if gone { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

fn required(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}
