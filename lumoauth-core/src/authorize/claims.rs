//! What a client learns about a person, by scope (OpenID Connect Core section 5.4).

use serde_json::{Map, Value};

use crate::{capability::Scope, user::User};

/// The claims about `user` that `scope` allows, without `sub`.
pub(crate) fn person_claims(user: &User, scope: &Scope) -> Map<String, Value> {
    let has = |name: &str| scope.as_slice().iter().any(|item| item.as_str() == name);
    let mut claims = Map::new();
    if has("profile") {
        if let Some(name) = &user.name {
            claims.insert("name".to_owned(), name.as_str().into());
        }
        claims.insert("updated_at".to_owned(), user.updated_at.unix_seconds().into());
    }
    if has("email") {
        claims.insert("email".to_owned(), user.email.as_str().into());
        // Nobody has proven that mail to it arrives.
        claims.insert("email_verified".to_owned(), false.into());
    }
    claims
}
