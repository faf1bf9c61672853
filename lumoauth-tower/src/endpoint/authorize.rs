//! The authorization endpoint, pushed requests, and what people allowed.
//!
//! Browsers get pages and redirects; programs that accept `application/json` get the same as JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use lumoauth_core::{
    authorize::AuthorizeError,
    consent::Consent,
    people::{SignedIn, UserAuthenticator},
    secret::Secret,
    server::{Authorization, AuthorizationAnswer, DecisionRequest, Question},
    store::Listing,
    wire::{Params, WireError},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Paging, oauth, refuse};
use crate::{
    body, pages,
    reply::{self, Reply, log_outage},
};

/// The longest request that is looked at: it must fit into the URL to come back to.
const MAX_REQUEST: usize = 16 * 1024;

/// GET, POST `oauth/authorize`. A post with a `challenge_id` is a person's answer, any other a request by form (OpenID
/// Connect Core section 3.1.2.1).
pub(crate) async fn authorize(call: Call) -> Result<Reply, WireError> {
    let Some(people) = call.people.clone() else {
        return Err(WireError::not_found("There is nothing at this path."));
    };
    let wants_json = accepts_json(&call.parts.headers);
    let result = match call.parts.method {
        Method::POST => match decision(&call) {
            Ok(Some(decision)) => decide(&call, &*people, decision, wants_json).await,
            Ok(None) => {
                let query = std::str::from_utf8(&call.body).unwrap_or_default();
                ask(&call, &*people, query, wants_json).await
            }
            Err(error) => Err(error),
        },
        _ => ask(&call, &*people, call.parts.uri.query().unwrap_or_default(), wants_json).await,
    };
    let mut reply = match result {
        Ok(reply) => reply,
        Err(error) if wants_json => reply::error(&error),
        Err(error) => pages::error(&error),
    };
    dress(&mut reply);
    Ok(reply)
}

/// What stopped a request on its way to this endpoint, such as a limit or an outage: a page for browsers.
pub(crate) fn stopped(headers: &HeaderMap, error: &WireError) -> Reply {
    let mut reply = if accepted(headers).any(|item| item == "text/html") {
        pages::error(error)
    } else {
        reply::error(error)
    };
    dress(&mut reply);
    reply
}

/// The headers of every answer of this endpoint. The page that the host shows to sign in brings its own policy.
fn dress(reply: &mut Reply) {
    pages::protect(reply);
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept, Cookie"));
}

/// POST `oauth/par` (RFC 9126).
pub(crate) async fn push(call: Call) -> Result<Reply, WireError> {
    if call.people.is_none() {
        return Err(WireError::not_found("There is nothing at this path."));
    }
    let params = oauth::params(&call).await?;
    let request = oauth::request(&call, &params);
    let pushed = call.server.push_authorization(&call.organization, request).await.map_err(oauth::wire)?;
    Ok(reply::json(StatusCode::CREATED, &pushed))
}

async fn ask(
    call: &Call,
    people: &dyn UserAuthenticator,
    query: &str,
    wants_json: bool,
) -> Result<Reply, WireError> {
    if query.len() > MAX_REQUEST {
        return Err(WireError::invalid_request("The request is too long."));
    }
    let params =
        Params::from_form(query.as_bytes()).map_err(|error| WireError::invalid_request(error.to_string()))?;
    let there = signed_in(call, people).await?;
    let asked = call.server.authorize(&call.organization, &params, there.as_ref(), &call.origin).await;
    match asked.map_err(wire)? {
        Authorization::Answer(answer) => redirect(&answer),
        Authorization::Ask(question) if wants_json => Ok(reply::ok(&challenge(&question, &submit_url(call)))),
        Authorization::Ask(question) => Ok(pages::consent(&question, &submit_url(call))),
        Authorization::SignIn { request_uri } => {
            let resume = match request_uri {
                None => format!("{}?{query}", submit_url(call)),
                Some(uri) => {
                    let client = params.get("client_id").unwrap_or_default();
                    let pairs = [("client_id", client), ("request_uri", &uri)];
                    let query =
                        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
                    format!("{}?{query}", submit_url(call))
                }
            };
            if wants_json {
                let error = WireError::new(
                    StatusCode::UNAUTHORIZED,
                    "login_required",
                    "Sign in first, then come back.",
                )
                .with_member("login_url", people.sign_in_path(&call.organization))
                .with_member("resume", resume);
                return Err(error);
            }
            let page = people.sign_in_page(&call.organization, &call.parts.headers, &resume).await;
            Ok(page.map_err(|error| wire(AuthorizeError::Store(error)))?.map(Bytes::from))
        }
    }
}

async fn decide(
    call: &Call,
    people: &dyn UserAuthenticator,
    mut decision: DecisionRequest,
    wants_json: bool,
) -> Result<Reply, WireError> {
    if is_from_elsewhere(&call.parts.headers, call.server.public_url()) {
        // A page of another site proves nothing, whatever it knows. It is refused, and recorded, as any that does not.
        decision.csrf_token = Secret::from("");
    }
    let there = signed_in(call, people).await?;
    let decided = call.server.decide(&call.organization, &decision, there.as_ref(), &call.origin).await;
    let answer = decided.map_err(wire)?;
    if !wants_json {
        return redirect(&answer);
    }
    Ok(reply::ok(&answer_json(&answer)))
}

async fn signed_in(call: &Call, people: &dyn UserAuthenticator) -> Result<Option<SignedIn>, WireError> {
    people
        .signed_in(&call.organization, &call.parts.headers)
        .await
        .map_err(|error| wire(AuthorizeError::Store(error)))
}

pub(super) fn wire(error: AuthorizeError) -> WireError {
    log_outage(&error, error.is_outage(), error.to_wire())
}

/// Where the answers to questions are posted: this path, in the form the caller used, as browsers ask for it.
pub(super) fn submit_url(call: &Call) -> String {
    format!("{}{}/oauth/authorize", call.server.public_path(), call.prefix())
}

/// Back to the client. Programs find the same in the body.
fn redirect(answer: &AuthorizationAnswer) -> Result<Reply, WireError> {
    let location = HeaderValue::from_str(answer.redirect_to.expose())
        .map_err(|_| WireError::invalid_request("The address to return to is not usable."))?;
    let mut reply = reply::json(StatusCode::SEE_OTHER, &answer_json(answer));
    reply.headers_mut().insert(header::LOCATION, location);
    Ok(reply)
}

pub(super) fn answer_json(answer: &AuthorizationAnswer) -> Value {
    let mut body = json!({ "redirect_to": answer.redirect_to.expose() });
    if let Some(code) = &answer.code {
        body["code"] = code.expose().into();
    }
    body
}

fn challenge(question: &Question, submit_url: &str) -> Value {
    use lumoauth_core::client_auth::AuthenticatedClient;
    let kind = match &question.client {
        AuthenticatedClient::Agent(_) => "agent",
        AuthenticatedClient::Client(_) => "client",
    };
    let scopes: Vec<_> = question
        .scopes
        .iter()
        .map(|(name, description)| json!({ "name": name, "description": description }))
        .collect();
    let mut body = json!({
        "challenge_id": question.challenge_id.expose(),
        "csrf_token": question.csrf_token.expose(),
        "client": { "id": question.client.client_id(), "name": question.client.name(), "kind": kind },
        "user": { "id": question.user.id.to_string(), "email": question.user.email },
        "scopes": scopes,
        "resource": question.resource,
        "redirect_uri": question.redirect_uri,
        "submit_url": submit_url,
        "expires_in": question.expires_in,
    });
    // What names an agent that signs, and where it wants to go.
    if let Some(url) = &question.client_url {
        body["client"]["url"] = url.as_str().into();
        body["resource_name"] = json!(question.resource_name);
    }
    body
}

/// The fields of an answer; a form and JSON have the same ones.
#[derive(Deserialize)]
struct DecisionFields {
    challenge_id: Option<String>,
    csrf_token: Option<Secret>,
    decision: Option<String>,
    scopes: Option<Items>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    Text(String),
    List(Vec<String>),
}

/// The answer that a post carries; `None` if it is a request.
fn decision(call: &Call) -> Result<Option<DecisionRequest>, WireError> {
    let headers = &call.parts.headers;
    let fields = if body::is_json(headers) {
        call.json::<DecisionFields>()?
    } else {
        let params = call.form().map_err(|error| WireError::invalid_request(error.to_string()))?;
        let text = |name: &str| params.get(name).map(ToOwned::to_owned);
        DecisionFields {
            challenge_id: text("challenge_id"),
            csrf_token: params.secret("csrf_token"),
            decision: text("decision"),
            scopes: text("scopes").map(Items::Text),
        }
    };
    let Some(challenge_id) = fields.challenge_id else {
        return if body::is_json(headers) {
            Err(WireError::invalid_request("challenge_id is required."))
        } else {
            Ok(None)
        };
    };
    let approve = match fields.decision.as_deref() {
        Some("approve") => true,
        Some("deny") => false,
        _ => return Err(WireError::invalid_request("decision is approve or deny.")),
    };
    let csrf_token = fields.csrf_token.ok_or_else(|| WireError::forbidden("csrf_token is required."))?;
    let scopes = fields.scopes.map(|items| match items {
        Items::Text(text) => text.split_whitespace().map(ToOwned::to_owned).collect(),
        Items::List(list) => list,
    });
    Ok(Some(DecisionRequest { challenge_id, csrf_token, approve, scopes }))
}

/// Whether the client wants JSON: it says so, and does not also ask for a page as browsers do.
fn accepts_json(headers: &HeaderMap) -> bool {
    accepted(headers).any(|item| item == "application/json")
        && !accepted(headers).any(|item| item == "text/html")
}

/// The media types that the client names, in lower case.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether a browser says that another site sent this. The token of the form is what counts; this is a second lock.
///
/// `Sec-Fetch-Site` decides where there is one. `Origin` is `null` after a page with `no-referrer`, which ours is.
fn is_from_elsewhere(headers: &HeaderMap, public_url: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let ours = url::Url::parse(public_url).map(|url| url.origin().ascii_serialization());
    origin.as_bytes() != b"null" && !ours.is_ok_and(|ours| origin.as_bytes() == ours.as_bytes())
}

/// GET `me/consents`.
pub(crate) async fn own_consents(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let page = call.server.own_consents(call.org(), call.principal()?, paging.store_page()).await;
    render(&call, &paging, &page.map_err(refuse)?).await
}

/// DELETE `me/consents/{}`.
pub(crate) async fn withdraw_own(call: Call) -> Result<Reply, WireError> {
    let (principal, caller) = (call.principal()?, call.caller()?);
    let done = call.server.withdraw_own_consent(call.org(), principal, call.name(), &caller).await;
    done.map_err(refuse)?;
    Ok(withdrawn())
}

/// GET `admin/users/{}/consents`.
pub(crate) async fn consents_of(call: Call) -> Result<Reply, WireError> {
    let user = call.server.user(call.org(), call.name()).await.map_err(refuse)?;
    let paging = call.query().page()?;
    let page = call.server.consents(call.org(), user.id, paging.store_page()).await.map_err(refuse)?;
    render(&call, &paging, &page).await
}

/// DELETE `admin/users/{}/consents/{}`.
pub(crate) async fn withdraw_for(call: Call) -> Result<Reply, WireError> {
    let user = call.server.user(call.org(), call.name()).await.map_err(refuse)?;
    let client = call.params.get(1).map(String::as_str).unwrap_or_default();
    call.server.withdraw_consent(call.org(), user.id, client, &call.caller()?).await.map_err(refuse)?;
    Ok(withdrawn())
}

async fn render(call: &Call, paging: &Paging, page: &Listing<Arc<Consent>>) -> Result<Reply, WireError> {
    let mut items = Vec::with_capacity(page.items.len());
    for consent in &page.items {
        items.push(call.server.consent_view(&call.organization, consent).await.map_err(refuse)?);
    }
    Ok(reply::ok(&paging.render("consents", items, page.total)))
}

fn withdrawn() -> Reply {
    reply::ok(&json!({ "message": "Consent withdrawn." }))
}
