//! ID tokens (OpenID Connect Core section 2): for the client to read, never accepted here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{GrantContext, SignIn, TokenError, TokenResponse};
use crate::{
    authorize::person_claims,
    client_auth::AuthenticatedClient,
    keys::{Algorithm, KeyPurpose},
    secret::{sha256, sha512},
    token,
    user::User,
};

#[derive(Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    exp: u64,
    iat: u64,
    auth_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    amr: &'a [String],
    at_hash: String,
    #[serde(flatten)]
    person: Map<String, Value>,
}

/// The ID token beside `response`; it lives as long as the access token there.
pub(super) async fn sign(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    user: &User,
    sign_in: &SignIn,
    response: &TokenResponse,
    nonce: Option<&str>,
) -> Result<String, TokenError> {
    let signer = context.keys.signer(context.org(), KeyPurpose::AccessToken, context.now).await?;
    let iat = context.now.unix_seconds();
    let claims = IdClaims {
        iss: context.issuer,
        sub: user.id.to_string(),
        aud: client.client_id().as_str(),
        exp: iat + response.expires_in,
        iat,
        auth_time: sign_in.at.unix_seconds(),
        nonce,
        amr: &sign_in.amr,
        at_hash: at_hash(signer.algorithm(), response.access_token.expose()),
        person: person_claims(user, &response.scope),
    };
    Ok(token::sign(&*signer, "JWT", &claims).await?)
}

/// The left half of the hash that goes with the algorithm (OpenID Connect Core section 3.1.3.6); Ed25519 hashes with
/// SHA-512.
fn at_hash(algorithm: Algorithm, access_token: &str) -> String {
    let text = access_token.as_bytes();
    match algorithm {
        Algorithm::Es256 | Algorithm::Rs256 => URL_SAFE_NO_PAD.encode(&sha256(text)[..16]),
        Algorithm::EdDsa => URL_SAFE_NO_PAD.encode(&sha512(text)[..32]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_algorithm() {
        // OpenID Connect Core appendix A.3 has the access token of this ID token in its example.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(at_hash(Algorithm::Rs256, token), "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(at_hash(Algorithm::EdDsa, token).len(), 43);
    }
}
