//! AAuth: routes whose callers sign their requests.

mod consent;
pub(crate) mod metadata;
mod parties;
mod platform;
pub(crate) mod registry;
mod token;

use http::{HeaderName, HeaderValue};
use lumoauth_core::{
    aauth::AAuthError,
    httpsig::{Content, Message},
    secret::Secret,
    server::{ClaimedSigner, SignedCall},
    wire::WireError,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Call, digest};
use crate::reply::{self, Reply, log_outage};

pub(crate) use consent::{auth, decide};
pub(crate) use parties::{issue, resource_token, revoke, verify_auth_token, verify_resource_token};
pub(crate) use platform::platform_token;
pub(crate) use token::token;

const AGENT_AUTH: HeaderName = HeaderName::from_static("agent-auth");

/// The JSON body. One that cannot be read is refused by the name that token endpoints have for it.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T, WireError> {
    call.json().map_err(|mut error| {
        (error.error, error.code) = ("invalid_request", Some("invalid_request"));
        error
    })
}

/// Who the request says it is signed by, for counting; nothing is proven by it, and all who say nothing are one.
pub(crate) fn claimed_signer(call: &Call, pattern: &str) -> String {
    #[derive(Default, Deserialize)]
    struct InBody {
        agent_token: Option<Secret>,
    }
    let headers = &call.parts.headers;
    let signer = match pattern {
        "aauth/agent/token" => {
            let body: InBody = call.json().unwrap_or_default();
            ClaimedSigner::ByToken(body.agent_token.as_ref().map(Secret::expose)).of(headers)
        }
        "aauth/agent/platform-token" => {
            let params = call.form().ok();
            let in_body = params.as_ref().and_then(|params| params.get("subject_token"));
            ClaimedSigner::ByToken(in_body).of(headers)
        }
        "aauth/token/revoke" => ClaimedSigner::ByEither.of(headers),
        _ => ClaimedSigner::ByKey.of(headers),
    };
    signer.map(|signer| digest(signer.as_str())).unwrap_or_default()
}

/// What `serve` makes of the request as its sender signed it.
async fn signed<T>(
    call: &Call,
    serve: impl AsyncFnOnce(SignedCall<'_>) -> Result<T, AAuthError>,
) -> Result<T, AAuthError> {
    let public_url = call.server.public_url();
    let scheme = public_url.split_once("://").map_or("https", |(scheme, _)| scheme);
    // Something in front of us may have taken the first part of the path away.
    let path = format!("{}{}", call.server.public_path(), call.parts.uri.path());
    let message = Message::of(&call.parts, scheme, Content::Bytes(&call.body))
        .map_err(|error| AAuthError::Unauthenticated(error.into()))?;
    serve(SignedCall { message: Message { path: &path, ..message }, origin: &call.origin }).await
}

/// The answer to a request that is refused. Whoever is not known is told how to become so.
fn refusal(call: &Call, error: &AAuthError) -> Reply {
    let wire = error.to_wire(&call.server.issuer(call.org()));
    unauthorized(&log_outage(error, error.is_outage(), wire))
}

/// An error; a 401 names what is wanted.
fn unauthorized(error: &WireError) -> Reply {
    let mut reply = reply::error(error);
    if reply.status() == http::StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(AGENT_AUTH, HeaderValue::from_static("httpsig"));
    }
    reply
}
