//! Access tokens for agents with a key.

use lumoauth_core::wire::WireError;

use super::{Call, refusal, signed};
use crate::{
    endpoint::oauth,
    reply::{self, Reply},
};

/// POST `aauth/agent/platform-token`. The parameters of an exchange (RFC 8693), as a form or as JSON.
pub(crate) async fn platform_token(call: Call) -> Result<Reply, WireError> {
    let params = oauth::params(&call).await?;
    let made = signed(&call, async |arrived| {
        call.server.platform_token(&call.organization, &params, arrived, call.dpop()).await
    });
    Ok(match made.await {
        Ok(made) => reply::budgeted(&made, &made.token.remaining),
        Err(error) => refusal(&call, &error),
    })
}
