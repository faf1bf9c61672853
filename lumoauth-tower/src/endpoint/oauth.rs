//! Token, introspection and revocation.

use http::header;
use lumoauth_core::{
    grant::TokenError,
    server::TokenRequest,
    wire::{Params, WireError},
};
use serde_json::json;

use super::Call;
use crate::reply::{self, Reply, log_outage};

/// POST `oauth/token`.
pub(crate) async fn token(call: Call) -> Result<Reply, WireError> {
    let params = params(&call).await?;
    let response = call.server.token(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::budgeted(&response, &response.remaining))
}

/// POST `oauth/introspect`.
pub(crate) async fn introspect(call: Call) -> Result<Reply, WireError> {
    let params = params(&call).await?;
    let response = call.server.introspect(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::ok(&response))
}

/// POST `oauth/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Reply, WireError> {
    let params = params(&call).await?;
    call.server.revoke(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::ok(&json!({})))
}

/// The parameters of a request that can be read in one way only.
pub(super) async fn params(call: &Call) -> Result<Params, WireError> {
    // Two headers of that name could be read differently by two parties.
    let twice = call.parts.headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some();
    let error = match call.form() {
        Ok(_) if twice => TokenError::InvalidRequest("Send one Authorization header only."),
        Ok(params) => return Ok(params),
        Err(error) => TokenError::from(error),
    };
    Err(wire(call.server.refuse_malformed(&call.organization, error, &call.origin).await))
}

pub(super) fn request<'a>(call: &'a Call, params: &'a Params) -> TokenRequest<'a> {
    TokenRequest {
        authorization: call.parts.headers.get(header::AUTHORIZATION),
        params,
        dpop: Some(call.dpop()),
        origin: &call.origin,
    }
}

pub(super) fn wire(error: TokenError) -> WireError {
    log_outage(&error, error.is_outage(), error.to_wire())
}
