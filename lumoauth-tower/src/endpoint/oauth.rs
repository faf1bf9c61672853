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
    let response = call.server.token(&call.organization, request(&call, &params)?).await.map_err(wire)?;
    Ok(reply::ok(&response))
}

/// POST `oauth/introspect`.
pub(crate) async fn introspect(call: Call) -> Result<Reply, WireError> {
    let params = call.form().map_err(|error| wire(TokenError::from(error)))?;
    let response =
        call.server.introspect(&call.organization, request(&call, &params)?).await.map_err(wire)?;
    Ok(reply::ok(&response))
}

/// POST `oauth/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Reply, WireError> {
    let params = call.form().map_err(|error| wire(TokenError::from(error)))?;
    call.server.revoke(&call.organization, request(&call, &params)?).await.map_err(wire)?;
    Ok(reply::ok(&json!({})))
}

fn request<'a>(call: &'a Call, params: &'a Params) -> Result<TokenRequest<'a>, WireError> {
    let mut headers = call.parts.headers.get_all(header::AUTHORIZATION).iter();
    let authorization = headers.next();
    // Two headers of that name could be read differently by two parties.
    if headers.next().is_some() {
        return Err(WireError::invalid_request("Send one Authorization header only."));
    }
    Ok(TokenRequest { authorization, params, origin: &call.origin })
}

fn wire(error: TokenError) -> WireError {
    log_outage(&error, error.is_outage(), error.to_wire())
}
