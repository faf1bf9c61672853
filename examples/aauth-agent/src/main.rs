//! An agent that has a key instead of a secret. Its key is made at the first start and stays in its file; what others get to
//! know is the public half.
//!
//! ```text
//! aauth-agent show                  what an administrator registers
//! aauth-agent register              registers that itself, with LUMOAUTH_API_KEY
//! aauth-agent get URL               calls a resource
//! aauth-agent post URL JSON
//! ```
//!
//! With `AGENT_TRACE=1` it shows what goes over the wire.

use std::{
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use lumoauth_core::{
    aauth::client::AAuthAgent,
    id::{AAuthIdentifier, KeyId},
    keys::{Algorithm, LocalSigner},
    secret::Secret,
};
use lumoauth_tower::{AAuthClientError, AAuthClientLayer};
use reqwest::{Client, redirect};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

const USAGE: &str = "aauth-agent show | register | get URL | post URL JSON";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let issuer = format!("{}/orgs/{}/api/v1", required("LUMOAUTH_URL")?, required("LUMOAUTH_ORG_ID")?);
    let name = or("AGENT_IDENTIFIER", "https://agent.example");
    let agent = AAuthAgent::local(
        AAuthIdentifier::parse(&name)?,
        key(&or("AGENT_KEY", "aauth-agent.pem"))?,
        AAuthIdentifier::parse(&issuer)?,
    )?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["show"] => say(&format!("{:#}", registration(&agent)))?,
        ["register"] => say(&register(&issuer, &registration(&agent)).await?)?,
        ["get", url] => say(&call(agent, Request::get(url).body(Bytes::new())?).await?)?,
        ["post", url, json] => {
            let request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
            say(&call(agent, request.body(Bytes::from(json.to_owned()))?).await?)?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// The agent's key, made if it has none yet. Only its owner can read the file.
fn key(path: &str) -> Result<LocalSigner, Box<dyn Error>> {
    let id = KeyId::parse("agent-1")?;
    match fs::read_to_string(path).map(Secret::from) {
        Ok(pem) => Ok(LocalSigner::from_pkcs8_pem(id, Algorithm::EdDsa, pem.expose())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = LocalSigner::generate(id, Algorithm::EdDsa)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(key.to_pkcs8_pem()?.expose().as_bytes())?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

fn registration(agent: &AAuthAgent) -> Value {
    json!({
        "name": or("AGENT_NAME", "Key Holder"),
        "agent_identifier": agent.identifier(),
        "jwks": agent.jwks(),
        // Where people's answers go, if a resource wants a person to agree.
        "redirect_uris": [redirect_uri()],
        "user_authorization": true,
    })
}

/// What an administrator does once.
async fn register(issuer: &str, registration: &Value) -> Result<String, Box<dyn Error>> {
    let request = Client::new().post(format!("{issuer}/admin/aauth/agents"));
    let request = request.header("x-api-key", required("LUMOAUTH_API_KEY")?);
    let request = request.header(header::CONTENT_TYPE, "application/json").body(registration.to_string());
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    if status == StatusCode::CREATED {
        Ok("registered".to_owned())
    } else {
        Err(format!("{status}: {text}").into())
    }
}

/// The call, signed; with a token if the resource wants one, and after a person agreed if it wants that.
async fn call(agent: AAuthAgent, request: Request<Bytes>) -> Result<String, Box<dyn Error>> {
    // What is signed is signed for one address.
    let http = Client::builder().redirect(redirect::Policy::none()).build()?;
    let http = service_fn(move |request: Request<Bytes>| {
        let http = http.clone();
        async move {
            let what = format!("{} {}", request.method(), request.uri());
            let signed = request.headers().get("signature-input").and_then(|input| input.to_str().ok());
            let signed = signed.unwrap_or_default().to_owned();
            let answer = http.execute(request.try_into()?).await?;
            if env::var_os("AGENT_TRACE").is_some() {
                eprintln!("> {what}\n> Signature-Input: {signed}\n< {}\n", answer.status());
            }
            Ok::<_, reqwest::Error>(http::Response::from(answer))
        }
    });
    let client = AAuthClientLayer::new(agent).with_redirect_uri(&redirect_uri()).layer(http);
    let mut answer = client.clone().oneshot(request.clone()).await;
    if let Err(AAuthClientError::ConsentNeeded(consent)) = &answer {
        let mut terminal = io::stderr();
        writeln!(terminal, "A person must agree:\n\n  {}\n", consent.auth_url().expose())?;
        write!(terminal, "The `code` of the address that this ends at: ")?;
        let mut code = String::new();
        io::stdin().read_line(&mut code)?;
        client.finish(consent, &Secret::from(code.trim())).await?;
        answer = client.oneshot(request).await;
    }
    let answer = answer?;
    let status = answer.status();
    let text = String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()).into_owned();
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}").into()) }
}

fn redirect_uri() -> String {
    or("AGENT_REDIRECT_URI", "http://127.0.0.1:8093/callback")
}

fn required(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

fn or(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
