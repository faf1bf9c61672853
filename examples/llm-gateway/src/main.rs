//! An OpenAI-compatible proxy that knows which agent calls, and lets it use what its budget has room for. It is a service on
//! another host than the authorization server, made of the layers of `lumoauth-tower`:
//!
//! 1. [`Guard`] asks the authorization server whose token it is, and lets through who holds `llm:chat`.
//! 2. [`chat::read`] reads what is asked for, and says what that costs at most.
//! 3. [`BudgetLayer`] holds that of everybody who pays, waits for a human if it must, and settles what was used.
//! 4. [`chat::forward`] asks the provider, and reads from its answer what was used.

mod chat;
mod relay;

use std::{env, error::Error, fs, io, sync::Arc, time::Duration};

use axum::{Router, middleware, routing::post};
use lumoauth_core::{json, secret::Secret, spending::Spend};
use lumoauth_tower::{BudgetLayer, Guard, RemoteBudgets, RemoteServer, RemoteTokens, ServiceAccount};
use reqwest::{Client, redirect};
use tokio::{net::TcpListener, signal};

use chat::Gateway;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let issuer = format!("{}/orgs/{}/api/v1", required("LUMOAUTH_URL")?, required("LUMOAUTH_ORG_ID")?);
    let secret = Secret::from(required("GATEWAY_CLIENT_SECRET")?);
    let account = ServiceAccount::new(RemoteServer::new(&issuer)?, &required("GATEWAY_CLIENT_ID")?, &secret);
    let tokens = RemoteTokens::by_introspection(account.clone());
    let guard = Guard::remote(tokens, &required("GATEWAY_RESOURCE")?).capability("llm:chat".parse()?);
    let patience = Duration::from_secs(or("GATEWAY_PATIENCE_SECONDS", "300").parse()?);
    let budgets = RemoteBudgets::new(account).waiting_for_approval(patience);
    let budget = BudgetLayer::new(Arc::new(budgets))
        .estimate(|request| request.extensions.get::<Spend>().cloned().expect("`chat::read` stands outside"));

    // The key goes to the address that was named, and nowhere else.
    let client = Client::builder().redirect(redirect::Policy::none()).read_timeout(Duration::from_secs(300));
    let client = client.connect_timeout(Duration::from_secs(10)).build()?;
    let url = format!("{}/chat/completions", or("UPSTREAM_URL", "https://api.openai.com/v1"));
    let key = Secret::from(required("UPSTREAM_API_KEY")?);
    let prices = match env::var("GATEWAY_PRICES") {
        Ok(path) => json::parse(&fs::read(path)?)?,
        Err(_) => json::parse(include_bytes!("../prices.json"))?,
    };
    let gateway = Arc::new(Gateway { client, url, key, prices });

    let chat = post(chat::forward)
        .layer(budget)
        .layer(middleware::from_fn_with_state(gateway.clone(), chat::read))
        .layer(guard)
        .layer(middleware::map_response(chat::in_their_words));
    let app = Router::new().route("/v1/chat/completions", chat).with_state(gateway);
    let listener = TcpListener::bind(or("GATEWAY_LISTEN", "127.0.0.1:8090")).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    Ok(axum::serve(listener, app).with_graceful_shutdown(async { drop(signal::ctrl_c().await) }).await?)
}

fn required(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

fn or(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
