//! What registered parties do with their own keys.

use lumoauth_core::{
    aauth::AAuthError,
    server::{
        DelegateRequest, PartyToken, ResourceTokenRequest, RevokeRequest, SignedCall, VerifyAuthToken,
        VerifyResourceToken,
    },
    wire::WireError,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Call, refusal, signed};
use crate::reply::{self, Reply};

/// POST `aauth/resource/token`.
pub(crate) async fn resource_token(call: Call) -> Result<Reply, WireError> {
    answer(&call, async |request: &ResourceTokenRequest, arrived: SignedCall<'_>| {
        let made = call.server.make_resource_token(&call.organization, request, arrived).await?;
        Ok(party_token("resource_token", &made))
    })
    .await
}

/// POST `aauth/agent/issue`.
pub(crate) async fn issue(call: Call) -> Result<Reply, WireError> {
    answer(&call, async |request: &DelegateRequest, arrived: SignedCall<'_>| {
        let made = call.server.issue_delegate(&call.organization, request, arrived).await?;
        Ok(party_token("agent_token", &made))
    })
    .await
}

/// POST `aauth/resource/token/verify`.
pub(crate) async fn verify_resource_token(call: Call) -> Result<Reply, WireError> {
    answer(&call, async |request: &VerifyResourceToken, arrived: SignedCall<'_>| {
        call.server.verify_resource_token(&call.organization, request, arrived).await
    })
    .await
}

/// POST `aauth/auth/token/verify`.
pub(crate) async fn verify_auth_token(call: Call) -> Result<Reply, WireError> {
    answer(&call, async |request: &VerifyAuthToken, arrived: SignedCall<'_>| {
        call.server.verify_auth_token(&call.organization, request, arrived).await
    })
    .await
}

/// POST `aauth/token/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Reply, WireError> {
    answer(&call, async |request: &RevokeRequest, arrived: SignedCall<'_>| {
        call.server.revoke_aauth_token(&call.organization, request, arrived).await?;
        Ok(json!({ "revoked": true }))
    })
    .await
}

/// What `serve` makes of a signed request with a JSON body.
async fn answer<B: DeserializeOwned, T: Serialize>(
    call: &Call,
    serve: impl AsyncFnOnce(&B, SignedCall<'_>) -> Result<T, AAuthError>,
) -> Result<Reply, WireError> {
    let body: B = super::body(call)?;
    let answer = signed(call, async |arrived| serve(&body, arrived).await).await;
    Ok(match answer {
        Ok(answer) => reply::ok(&answer),
        Err(error) => refusal(call, &error),
    })
}

fn party_token(name: &str, made: &PartyToken) -> Value {
    json!({ name: made.token.expose(), "token_type": made.token_type, "expires_in": made.expires_in })
}
