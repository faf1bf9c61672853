//! Discovery: RFC 8414, OpenID Connect Discovery, and the key set.

use lumoauth_core::{
    authorize::IDENTITY_SCOPES, jwks::JwsAlgorithm, server::ApiError, token::DPOP_ALGORITHMS, wire::WireError,
};
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// GET `.well-known/oauth-authorization-server`.
pub(crate) async fn authorization_server(call: Call) -> Result<Reply, WireError> {
    let mut document = document(&call);
    if call.people.is_some() {
        // Clients that find this document check id_tokens as well, and believe in RS256 where nothing is said.
        add_id_tokens(&call, &mut document).await?;
    }
    Ok(reply::metadata(&document))
}

/// GET `.well-known/openid-configuration`.
pub(crate) async fn openid_configuration(call: Call) -> Result<Reply, WireError> {
    let mut document = document(&call);
    add_id_tokens(&call, &mut document).await?;
    Ok(reply::metadata(&document))
}

/// How people are named and id_tokens are signed (OpenID Connect Discovery, section 3).
async fn add_id_tokens(call: &Call, document: &mut Value) -> Result<(), WireError> {
    let keys = call.server.jwks(call.org()).await.map_err(ApiError::from).map_err(refuse)?;
    let mut algorithms: Vec<_> = keys.iter().map(|key| key.alg).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!(algorithms);
    Ok(())
}

/// GET `.well-known/jwks.json`.
pub(crate) async fn jwks(call: Call) -> Result<Reply, WireError> {
    let keys = call.server.jwks(call.org()).await.map_err(ApiError::from).map_err(refuse)?;
    Ok(reply::metadata(&json!({ "keys": keys })))
}

/// The members that both documents share. The standards require
/// `authorization_endpoint` and `response_types_supported` of every server; what is really served to a client says
/// `grant_types_supported`.
fn document(call: &Call) -> Value {
    let issuer = call.server.issuer(call.org());
    let assertions_by = JwsAlgorithm::ALL.map(JwsAlgorithm::as_str);
    // Whoever is public has nothing to prove, and is told nothing about tokens.
    let confidential = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "userinfo_endpoint": format!("{issuer}/oauth/userinfo"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "introspection_endpoint": format!("{issuer}/oauth/introspect"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": ["code"],
        "grant_types_supported": call.server.grant_types(),
        "scopes_supported": [],
        "token_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported": assertions_by,
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": assertions_by,
        "revocation_endpoint_auth_methods_supported": confidential,
        "revocation_endpoint_auth_signing_alg_values_supported": assertions_by,
        "dpop_signing_alg_values_supported": DPOP_ALGORITHMS.map(JwsAlgorithm::as_str),
        "code_challenge_methods_supported": ["S256"],
        "resource_indicators_supported": true,
        "authorization_response_iss_parameter_supported": true,
        "bearer_methods_supported": ["header"],
        "act_claim_order": call.organization.act_order.as_str(),
    });
    if call.people.is_some() {
        document["pushed_authorization_request_endpoint"] = json!(format!("{issuer}/oauth/par"));
        document["response_modes_supported"] = json!(["query"]);
        document["prompt_values_supported"] = json!(["none", "login", "consent"]);
        document["scopes_supported"] = json!(IDENTITY_SCOPES);
        document["claims_supported"] = json!([
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "at_hash",
            "name",
            "updated_at",
            "email",
            "email_verified",
        ]);
    } else {
        // Nobody can be asked, so there is no code and nothing that comes of one.
        let served = |grant: &&str| !["authorization_code", "refresh_token"].contains(grant);
        let grants: Vec<_> = call.server.grant_types().into_iter().filter(served).collect();
        document["grant_types_supported"] = json!(grants);
    }
    document
}
