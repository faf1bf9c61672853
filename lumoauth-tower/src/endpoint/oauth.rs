//! Token, introspection and revocation.

use http::header;
use lumoauth_core::{
    grant::TokenError,
    server::TokenRequest,
    wire::{Params, WireError},
};
use serde_json::json;

use super::Call;
use crate::{
    reply::{self, Reply},
    service::log_outage,
};

/// POST `oauth/token`.
pub(crate) async fn token(call: Call) -> Result<Reply, WireError> {
    let params = call.form().map_err(|error| wire(TokenError::from(error)))?;
    let response = call.server.token(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::ok(&response))
}

/// POST `oauth/introspect`.
pub(crate) async fn introspect(call: Call) -> Result<Reply, WireError> {
    let params = call.form().map_err(|error| wire(TokenError::from(error)))?;
    let response = call.server.introspect(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::ok(&response))
}

/// POST `oauth/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Reply, WireError> {
    let params = call.form().map_err(|error| wire(TokenError::from(error)))?;
    call.server.revoke(&call.organization, request(&call, &params)).await.map_err(wire)?;
    Ok(reply::ok(&json!({})))
}

fn request<'a>(call: &'a Call, params: &'a Params) -> TokenRequest<'a> {
    TokenRequest {
        authorization: call.parts.headers.get(header::AUTHORIZATION),
        params,
        origin: &call.origin,
    }
}

fn wire(error: TokenError) -> WireError {
    log_outage(&error, error.is_outage(), error.to_wire())
}
