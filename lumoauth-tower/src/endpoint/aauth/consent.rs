//! Where an agent brings a person, and where programs take the person's answer to.

use http::{HeaderValue, StatusCode, header};
use lumoauth_core::{secret::Secret, wire::WireError};
use serde::Deserialize;
use serde_json::json;

use super::Call;
use crate::{
    endpoint::authorize::{answer_json, stopped, submit_url, wire},
    reply::{self, Reply},
};

/// GET `aauth/agent/auth`: on to the authorization endpoint, where people are asked.
pub(crate) async fn auth(call: Call) -> Result<Reply, WireError> {
    if call.people.is_none() {
        return Err(WireError::not_found("There is nothing at this path."));
    }
    Ok(match to_the_question(&call).await {
        Ok(reply) => reply,
        Err(error) => stopped(&call.parts.headers, &error),
    })
}

async fn to_the_question(call: &Call) -> Result<Reply, WireError> {
    let query = call.parts.uri.query().unwrap_or_default();
    let params: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let mut named = params.iter().filter(|(name, _)| name == "request_token");
    let (Some((_, token)), None) = (named.next(), named.next()) else {
        return Err(WireError::invalid_request("request_token is required, once."));
    };
    call.server.check_aauth_request(&call.organization, token).await.map_err(wire)?;
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    next.append_pair("aauth_request", token);
    // What else is in the address is for the authorization endpoint to look at.
    next.extend_pairs(params.iter().filter(|(name, _)| matches!(&**name, "state" | "redirect_uri")));
    let location = format!("{}?{}", submit_url(call), next.finish());
    let location = HeaderValue::from_str(&location)
        .map_err(|_| WireError::invalid_request("The request cannot be passed on."))?;
    let mut reply = reply::json(StatusCode::FOUND, &json!({}));
    reply.headers_mut().insert(header::LOCATION, location);
    Ok(reply)
}

#[derive(Deserialize)]
struct Decision {
    request_token: Option<Secret>,
    decision: Option<String>,
}

/// POST `aauth/consent`.
pub(crate) async fn decide(call: Call) -> Result<Reply, WireError> {
    let Decision { request_token, decision } = call.json()?;
    let token = request_token.ok_or_else(|| WireError::invalid_request("request_token is required."))?;
    let approve = match decision.as_deref() {
        Some("approve") => true,
        Some("deny") => false,
        _ => return Err(WireError::invalid_request("decision is approve or deny.")),
    };
    let (organization, principal) = (&call.organization, call.principal()?);
    let decided = call.server.decide_aauth_request(organization, principal, &token, approve, &call.origin);
    let answer = decided.await.map_err(wire)?;
    Ok(reply::ok(&answer_json(&answer)))
}
