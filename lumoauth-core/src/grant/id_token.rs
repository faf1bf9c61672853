//! ID tokens (OpenID Connect Core section 2): for the client to read, and for it to let an agent act for the person.
//!
//! 1. None is an access token: its `typ` is `JWT`, and no route of this server takes it for one.
//! 2. It comes back only as the subject of an exchange that declares it as what it is, from the client it was issued to. It
//!    has no scope to pass on, so what comes of it has none.
//! 3. It carries what the access token beside it stands on (`lin`), and that token's handle: revoking the token, its family,
//!    the consent or whoever is behind it ends the ID token as well, and all that came of it.
//! 4. Beside a token that is bound to an MCP server there is an ID token without that: what a person allowed there is not to
//!    be turned into more.

use std::{borrow::Cow, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GrantContext, TokenError, TokenResponse};
use crate::{
    authorize::person_claims,
    capability::Scope,
    id::{ClientId, TokenId},
    keys::{Algorithm, KeyPurpose},
    principal::Principal,
    secret::{sha256, sha512},
    token::{self, AccessClaims, Audience, InvalidToken, Lineage, foreign, token_handle},
    user::User,
};

/// What ID tokens say they are.
const TYP: &str = "JWT";

/// How far ahead of ours the clock of the replica that issued it may be.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    amr: &'a [Cow<'static, str>],
    at_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lin: Option<Lineage>,
    #[serde(flatten)]
    person: Map<String, Value>,
}

/// The ID token beside `response`, whose access token has the claims `access`; it lives as long.
pub(super) async fn sign(
    context: &GrantContext<'_>,
    user: &User,
    response: &TokenResponse,
    access: &AccessClaims,
    nonce: Option<&str>,
) -> Result<String, TokenError> {
    let signer = context.keys.signer(context.org(), KeyPurpose::AccessToken, context.now).await?;
    let at_hash = at_hash(signer.algorithm(), response.access_token.expose());
    let person = person_claims(user, &response.scope);
    Ok(token::sign(&*signer, TYP, &claims(context, access, nonce, at_hash, person)).await?)
}

fn claims<'a>(
    context: &GrantContext<'_>,
    access: &'a AccessClaims,
    nonce: Option<&'a str>,
    at_hash: String,
    person: Map<String, Value>,
) -> IdClaims<'a> {
    IdClaims {
        iss: &access.iss,
        sub: &access.sub,
        aud: access.client_id.as_str(),
        exp: access.exp,
        iat: access.iat,
        jti: TokenId::generate().to_string(),
        auth_time: access.auth_time,
        nonce,
        amr: &access.amr,
        at_hash,
        lin: access.mcp_server_id.is_none().then(|| beside(context, access)),
        person,
    }
}

/// What `access` stands on, and it itself.
fn beside(context: &GrantContext<'_>, access: &AccessClaims) -> Lineage {
    let mut lineage = access.lin.clone();
    lineage.handles.push(token_handle(context.org(), &access.jti));
    lineage
}

/// What an ID token must say to be exchanged.
#[derive(Deserialize)]
struct Presented {
    iss: String,
    sub: String,
    aud: ClientId,
    exp: u64,
    iat: u64,
    jti: String,
    auth_time: Option<u64>,
    #[serde(default)]
    amr: Vec<Cow<'static, str>>,
    lin: Lineage,
}

/// The live person and client of an ID token of this organization, with the claims of an access token that has no scope;
/// `None` if it is not one, for whatever reason.
pub(super) async fn principal(
    context: &GrantContext<'_>,
    token: &str,
) -> Result<Option<Principal>, TokenError> {
    let keys = context.keys.verifying_keys(context.org(), KeyPurpose::AccessToken, context.now).await?;
    let read = foreign::read(token)
        .and_then(|token| match token.typ() {
            Some(TYP) => token.verify_own(&keys),
            Some(_) | None => Err(InvalidToken::WrongType),
        })
        .and_then(|claims| claims.check_times(context.now, None, CLOCK_SKEW).map(|()| claims))
        .and_then(|claims| as_access(context, claims.all()));
    let claims = match read {
        Ok(claims) => Arc::new(claims),
        Err(error) => {
            tracing::debug!(%error, "ID token not accepted");
            return Ok(None);
        }
    };
    match token::principal_of(context.stores, context.organization, claims).await? {
        Ok(principal) => Ok(Some(principal)),
        Err(dead) => {
            tracing::debug!(%dead, "ID token is dead");
            Ok(None)
        }
    }
}

/// Verified claims, as an access token with as little authority as there can be would have them.
fn as_access(context: &GrantContext<'_>, claims: &Map<String, Value>) -> Result<AccessClaims, InvalidToken> {
    let shown = Presented::deserialize(claims).map_err(|_| InvalidToken::Malformed)?;
    if shown.iss != context.issuer {
        return Err(InvalidToken::WrongIssuer);
    }
    Ok(AccessClaims {
        iss: shown.iss,
        sub: shown.sub,
        aud: Audience::One(shown.aud.to_string()),
        client_id: shown.aud,
        agent_id: None,
        agent_name: None,
        identity_type: "user".into(),
        act: None,
        delegation_depth: None,
        may_act: None,
        auth_time: shown.auth_time,
        amr: shown.amr,
        workload_identity: None,
        scope: Scope::default(),
        organization: context.org().clone(),
        tenant: context.org().clone(),
        mcp_server_id: None,
        cnf: None,
        test: false,
        jit: false,
        task_id: None,
        parent_task_id: None,
        jit_request_id: None,
        authorization_details: Vec::new(),
        action_hash: None,
        caep_session_id: None,
        on_behalf_of: None,
        iat: shown.iat,
        nbf: shown.iat,
        exp: shown.exp,
        jti: shown.jti,
        lin: shown.lin,
    })
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

/// What the ID token beside `access` is as a subject, without its signature.
#[cfg(test)]
pub(super) fn as_subject(context: &GrantContext<'_>, access: &AccessClaims) -> AccessClaims {
    let claims = claims(context, access, None, String::new(), Map::new());
    let Ok(Value::Object(claims)) = serde_json::to_value(&claims) else { panic!("claims are an object") };
    as_access(context, &claims).unwrap()
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
