//! An agent whose platform vouches for it.

use lumoauth_core::wire::WireError;
use serde::Deserialize;

use super::Call;
use crate::reply::{self, Reply, log_outage};

#[derive(Deserialize)]
struct Request {
    attestation_token: Option<String>,
}

/// POST `agents/{}/attest`. A request without a token is refused as one with a bad token is.
pub(crate) async fn attest(call: Call) -> Result<Reply, WireError> {
    let Request { attestation_token } = call.json()?;
    let token = attestation_token.unwrap_or_default();
    let attestation = call
        .server
        .attest(&call.organization, call.name(), &token, &call.origin)
        .await
        .map_err(|error| log_outage(&error, error.is_outage(), error.to_wire()))?;
    Ok(reply::ok(&attestation))
}
