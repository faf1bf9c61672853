//! The form of a token exchange (RFC 8693).

use crate::{Org, Response};

/// The grant type.
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The type of an access token.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The type of a refresh token.
pub const REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";
/// The type of an ID token.
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// The type of any JWT, which is what a platform gives its workloads.
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The fields of an exchange of `subject`, which is declared as `kind`, and `more` of them.
pub fn exchanging<'a>(
    subject: &'a str,
    kind: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![("grant_type", EXCHANGE), ("subject_token", subject), ("subject_token_type", kind)];
    fields.extend_from_slice(more);
    fields
}

/// The fields that say who acts: `actor` is an access token.
pub fn acted_by(actor: &str) -> [(&str, &str); 2] {
    [("actor_token", actor), ("actor_token_type", ACCESS_TOKEN)]
}

impl Org<'_> {
    /// Sends the fields of [`exchanging`], without client authentication unless `more` brings it.
    pub fn exchange(&self, subject: &str, kind: &str, more: &[(&str, &str)]) -> Response {
        self.post("/oauth/token").form(&exchanging(subject, kind, more)).send()
    }
}
