//! The token endpoint.

use lumoauth_core::{
    server::{AAuthAnswer, AAuthTokenRequest},
    wire::WireError,
};

use super::{Call, body, refusal, signed, unauthorized};
use crate::reply::{self, Reply};

/// POST `aauth/agent/token`.
pub(crate) async fn token(call: Call) -> Result<Reply, WireError> {
    let request: AAuthTokenRequest = body(&call)?;
    let answer =
        signed(&call, async |arrived| call.server.aauth_token(&call.organization, &request, arrived).await);
    Ok(match answer.await {
        Ok(AAuthAnswer::Tokens(tokens)) => reply::ok(&tokens),
        Ok(AAuthAnswer::Consent(needed)) => unauthorized(&needed.to_wire()),
        Err(error) => refusal(&call, &error),
    })
}
