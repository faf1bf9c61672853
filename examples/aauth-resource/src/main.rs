//! A notebook that AAuth agents read and write. It shares nothing with the authorization server but an address: agents come
//! with auth tokens of that server, sign each request with the key that the token is bound to, and are told where to get a
//! token if they have none.
//!
//! | route | scope |
//! |---|---|
//! | GET `/notes` | `read:notes` |
//! | POST `/notes` with `{"text": ".."}` | `write:notes` |
//! | GET `/.well-known/aauth-resource`, `/aauth/jwks.json` | none: what this service is, and its key |

use std::{
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use embedded_store::EmbeddedStore;
use lumoauth_core::{
    aauth::{AAuthContext, ResourceServer},
    clock::{Clock, SystemClock},
    id::{AAuthIdentifier, KeyId},
    keys::{Algorithm, LocalSigner},
    store::Upkeep,
};
use lumoauth_tower::{AAuthLayer, RemoteServer, resource_document, resource_jwks};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, signal};

type Notes = Arc<Mutex<Vec<Value>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let issuer = format!("{}/orgs/{}/api/v1", required("LUMOAUTH_URL")?, required("LUMOAUTH_ORG_ID")?);
    let listener = TcpListener::bind(or("RESOURCE_LISTEN", "127.0.0.1:8092")).await?;
    let address = listener.local_addr()?;
    let identifier = AAuthIdentifier::parse(&or("RESOURCE_IDENTIFIER", &format!("http://{address}")))?;
    let signer = Arc::new(key(&or("RESOURCE_KEY", "aauth-resource.pem"))?);
    let public = signer.public_key()?;

    // What was received once is not served again, after a restart neither. Replicas would share PostgreSQL or Redis.
    let store = Arc::new(EmbeddedStore::open(or("RESOURCE_STATE", "aauth-resource.state"))?);
    tokio::spawn(tidy(store.clone()));
    let issuer = Arc::new(RemoteServer::new(&issuer)?.auth_tokens()?);
    let resource = ResourceServer::new(identifier, issuer, store)
        .with_authorities([address.to_string()])
        .with_key(signer, public)
        .with_scopes("read:notes write:notes".parse()?);
    announce(&resource);

    let resource = Arc::new(resource);
    let layer = AAuthLayer::new(resource.clone());
    let notes = get(list)
        .layer(layer.clone().scope("read:notes".parse()?))
        .merge(post(add).layer(layer.scope("write:notes".parse()?)));
    let keys = resource.clone();
    let app = Router::new()
        .route("/notes", notes)
        .with_state(Notes::default())
        .route("/.well-known/aauth-resource", get(async move || resource_document::<Body>(&resource)))
        .route("/aauth/jwks.json", get(async move || resource_jwks::<Body>(&keys)));
    tracing::info!(%address, "listening");
    Ok(axum::serve(listener, app).with_graceful_shutdown(async { drop(signal::ctrl_c().await) }).await?)
}

async fn list(State(notes): State<Notes>) -> Json<Value> {
    Json(json!({ "notes": *notes.lock().expect("nobody panics while holding it") }))
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

async fn add(
    State(notes): State<Notes>,
    Extension(caller): Extension<AAuthContext>,
    Json(note): Json<NewNote>,
) -> Json<Value> {
    let note = json!({ "text": note.text, "by": caller.agent, "for": caller.user });
    notes.lock().expect("nobody panics while holding it").push(note.clone());
    Json(note)
}

/// The key in this file, which is made at the first start.
fn key(path: &str) -> Result<LocalSigner, Box<dyn Error>> {
    let id = || KeyId::parse("resource-1");
    match fs::read_to_string(path) {
        Ok(pem) => Ok(LocalSigner::from_pkcs8_pem(id()?, Algorithm::EdDsa, &pem)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let signer = LocalSigner::generate(id()?, Algorithm::EdDsa)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(signer.to_pkcs8_pem()?.expose().as_bytes())?;
            Ok(signer)
        }
        Err(error) => Err(error.into()),
    }
}

/// What an administrator registers: the body of a POST to `admin/aauth/resources`.
#[expect(clippy::print_stdout, reason = "it is what a newcomer needs")]
fn announce(resource: &ResourceServer) {
    let scopes = ["read:notes", "write:notes"];
    let registration = json!({
        "name": "Notebook",
        "resource_identifier": resource.identifier(),
        "jwks": resource.jwks(),
        "supported_scopes": scopes,
    });
    println!("{registration}");
}

/// Drops what was remembered long enough.
async fn tidy(store: Arc<EmbeddedStore>) {
    let clock = SystemClock::new();
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if let Err(error) = store.purge(clock.now(), 10_000).await {
            tracing::warn!(error = &error as &dyn Error, "cannot tidy up");
        }
    }
}

fn required(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

fn or(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
