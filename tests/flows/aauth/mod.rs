//! AAuth: agents with keys instead of secrets (contract 2.11).

mod agent_tokens;
mod audit;
mod audit_doors;
mod codes;
mod confusion;
mod consent;
mod delegates;
mod doors;
mod ends;
mod exchange;
mod grants;
mod key_sites;
mod limits;
mod metadata;
mod refresh;
mod registry;
mod replay;
mod replicas;
mod resource_tokens;
mod revoke;
mod signature_fields;
mod signatures;
mod target;
mod verify;

use lumoauth_tests::Response;
use serde_json::Value;

/// The answer to whoever is not known, for this reason.
#[track_caller]
fn unauthenticated(answer: &Response, reason: &str) -> Value {
    let body = answer.refused(401, "authentication_required");
    assert_eq!(body["details"]["reason"], reason, "{answer}");
    assert!(body["auth_server"].as_str().is_some_and(|url| url.contains("/orgs/")), "{answer}");
    assert_eq!(answer.header("agent-auth"), Some("httpsig"), "{answer}");
    // The SDK takes every 401 for a question to a person; there must be nothing to follow.
    for name in ["auth_url", "authorization_uri", "request_token", "access_token", "auth_token"] {
        assert!(body[name].is_null(), "{answer}");
    }
    body
}

/// The header of a refusal that says nothing of a challenge.
#[track_caller]
fn refused(answer: &Response, status: u16, error: &str) {
    answer.refused(status, error);
    assert_eq!(answer.header("agent-auth"), None, "{answer}");
}
