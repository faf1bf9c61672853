//! Ordinary OAuth clients and organization API keys.

use std::sync::Arc;

use serde::Deserialize;

use super::{ApiError, AuthorizationServer, Caller, retrying, shown::Shows, written};
use crate::{
    agent::{checked_text, https_url, key_set, parse_capabilities, redirect_uris},
    api_key::{ApiKey, ORG_KEY_SCOPES},
    audit::{ActorKind, EventKind, Target},
    capability::Capability,
    client::{Client, Secrets},
    clock::Timestamp,
    id::{ClientId, Number, OrgId},
    principal::Principal,
    secret::Secret,
    store::{ApiKeyKey, ClientKey, ClientStore, Insert, Listing, Page},
    wire::view,
};

/// What an administrator registers as a client.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct ClientRequest {
    /// Display name.
    pub name: Option<String>,
    /// Where an authorization response may go.
    #[serde(rename = "redirectUris", alias = "redirect_uris")]
    pub redirect_uris: Option<Vec<String>>,
    /// Where its public keys are published (https).
    #[serde(rename = "jwksUri", alias = "jwks_uri")]
    pub jwks_uri: Option<String>,
    /// Its public keys (RFC 7517).
    pub jwks: Option<serde_json::Value>,
    /// The scopes it may ask for.
    #[serde(rename = "allowedScopes", alias = "allowed_scopes")]
    pub allowed_scopes: Option<Vec<String>>,
    /// The grant types it may use.
    #[serde(rename = "grantTypes", alias = "grant_types")]
    pub grant_types: Option<Vec<String>>,
    /// Whether it can keep a secret.
    #[serde(rename = "isConfidential", alias = "is_confidential")]
    pub confidential: Option<bool>,
    /// Whether it uses codes with PKCE only. One that is not confidential does, whatever is said here.
    #[serde(rename = "requiresPkce", alias = "requires_pkce")]
    pub requires_pkce: Option<bool>,
}

/// What an administrator asks of a new API key.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct NewApiKeyRequest {
    /// Display name.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Option<Vec<String>>,
}

/// The grant types a client may be registered for.
const GRANT_TYPES: [&str; 5] = [
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
];

impl AuthorizationServer {
    /// Registers a client; the secret (of a confidential one) is returned once.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if a member is not acceptable, or wider than what `principal` holds itself.
    pub async fn create_client(
        &self,
        org: &OrgId,
        request: &ClientRequest,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<(Arc<Client>, Option<Secret>), ApiError> {
        let now = self.now();
        let name = checked_text("name", request.name.as_deref().unwrap_or_default(), 1, 128)?;
        let (mut client, secret) = Client::new(name, now);
        if let Some(uris) = &request.redirect_uris {
            client.redirect_uris = redirect_uris("redirectUris", uris)?;
        }
        if let Some(scopes) = &request.allowed_scopes {
            client.allowed_scopes = parse_capabilities("allowedScopes", scopes)?;
            not_above(principal, "allowedScopes", &client.allowed_scopes)?;
        }
        if let Some(types) = &request.grant_types {
            if let Some(unknown) = types.iter().find(|name| !GRANT_TYPES.contains(&name.as_str())) {
                let problem = format!("name `{unknown}`, which is not a grant type of this server");
                return Err(ApiError::Invalid { member: "grantTypes", problem });
            }
            client.grant_types.clone_from(types);
        }
        client.jwks_uri = request.jwks_uri.as_deref().map(|uri| https_url("jwksUri", uri)).transpose()?;
        client.jwks = match &request.jwks {
            Some(keys) => key_set("jwks", keys)?,
            None => None,
        };
        let confidential = request.confidential != Some(false);
        if !confidential && request.requires_pkce == Some(false) {
            let problem = "cannot be switched off for a client without a secret".to_owned();
            return Err(ApiError::Invalid { member: "requiresPkce", problem });
        }
        client.requires_pkce = request.requires_pkce == Some(true);
        let refused = match (&client.jwks, &client.jwks_uri) {
            (Some(_), Some(_)) => Some("cannot be given together with jwksUri"),
            (Some(_), None) | (None, Some(_)) if !confidential => Some("are for confidential clients"),
            _ => None,
        };
        if let Some(problem) = refused {
            return Err(ApiError::Invalid { member: "jwks", problem: problem.to_owned() });
        }
        if !confidential {
            client.confidential = false;
            client.secrets = Secrets::default();
            client.grant_types.retain(|name| name != "client_credentials");
        }
        self.insert_client(org, &client, caller, now).await?;
        Ok((Arc::new(client), confidential.then_some(secret)))
    }

    pub(super) async fn insert_client(
        &self,
        org: &OrgId,
        client: &Client,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let event = caller
            .event(EventKind::ClientCreated, format!("client {} registered", client.name), now)
            .on(client_target(client))
            .with("scopes", serde_json::json!(client.allowed_scopes))
            .made(view::client(client));
        match self.stores().clients.insert(org, client, &event).await? {
            Insert::Inserted => Ok(()),
            Insert::Taken(_) => Err(ApiError::Conflict("A client with this id exists.")),
        }
    }

    /// The client with this integer or client id.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn client(&self, org: &OrgId, name: &str) -> Result<Arc<Client>, ApiError> {
        client_named(&self.stores().clients, org, name).await
    }

    /// A page of the clients, by client id.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn clients(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, ApiError> {
        Ok(self.stores().clients.list(org, page).await?)
    }

    /// Gives a client a new secret; the old one is dead at once.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] for a public client.
    pub async fn rotate_client_secret(
        &self,
        org: &OrgId,
        name: &str,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<(Arc<Client>, Secret), ApiError> {
        let now = self.now();
        retrying(|| async {
            let mut client = (*client_named(&self.stores().uncached().clients, org, name).await?).clone();
            caller.expects(&client)?;
            // Whoever holds the secret holds the scopes.
            if not_above(principal, "allowedScopes", &client.allowed_scopes).is_err() {
                return Err(ApiError::Forbidden("This client may do more than the caller."));
            }
            if !client.confidential {
                return Err(ApiError::InvalidRequest("A public client has no secret.".to_owned()));
            }
            let secret = Secret::generate("lms_");
            let before = serde_json::json!({ "hasSecret": !client.secrets.is_empty() });
            client.secrets.rotate(&secret, now);
            client.updated_at = now;
            let after = serde_json::json!({ "hasSecret": true, "oldSecretUntil": now.to_string() });
            let event = caller
                .event(EventKind::ClientSecretRotated, format!("secret of {} rotated", client.name), now)
                .on(client_target(&client))
                .replaced(before, after);
            written(self.stores().clients.update(org, &client, &event).await?, "client", || {
                client.version += 1;
                (Arc::new(client), secret)
            })
        })
        .await
    }

    /// Makes an API key; its text is returned once. No key can make one that may do more than itself.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if a scope is malformed or wider than what `principal` holds.
    pub async fn create_api_key(
        &self,
        org: &OrgId,
        request: &NewApiKeyRequest,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<(Arc<ApiKey>, Secret), ApiError> {
        let now = self.now();
        let name = checked_text("name", request.name.as_deref().unwrap_or_default(), 1, 128)?;
        let scopes = parse_capabilities("scopes", request.scopes.as_deref().unwrap_or_default())?;
        if request.scopes.is_none() || scopes.iter().any(|scope| !ORG_KEY_SCOPES.contains(&scope.as_str())) {
            let problem = format!("must be a list of {}", ORG_KEY_SCOPES.join(", "));
            return Err(ApiError::Invalid { member: "scopes", problem });
        }
        not_above(principal, "scopes", &scopes)?;
        let (mut key, secret) = ApiKey::new(org, name, scopes, now);
        let by_key = || principal.api_key().and_then(|key| key.created_by);
        key.created_by = principal.person().map(|user| user.id).or_else(by_key);
        let event = caller
            .event(EventKind::ApiKeyCreated, format!("API key {} created", key.name), now)
            .on(Target::new("api_key", key.number.to_string()).named(&*key.name))
            .with("scopes", serde_json::json!(key.scopes))
            .made(view::api_key(&key));
        match self.stores().api_keys.insert(org, &key, &event).await? {
            Insert::Inserted => Ok((Arc::new(key), secret)),
            Insert::Taken(_) => Err(ApiError::Conflict("An API key with this id exists.")),
        }
    }

    /// A page of the API keys, by number.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn api_keys(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<ApiKey>>, ApiError> {
        Ok(self.stores().api_keys.list(org, page).await?)
    }

    /// Ends an API key; it is refused from the next request on. No key ends itself.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none, [`ApiError::OwnAccess`] if it is the caller.
    pub async fn revoke_api_key(&self, org: &OrgId, number: &str, caller: &Caller) -> Result<(), ApiError> {
        let missing = || ApiError::NotFound("API key");
        let number = Number::new(number.parse().map_err(|_| missing())?);
        retrying(|| async {
            let found = self.stores().api_keys.find(org, ApiKeyKey::Number(number)).await?;
            let mut key = (*found.ok_or_else(missing)?).clone();
            if caller.actor.kind == ActorKind::ApiKey && *caller.actor.id == *key.number.to_string() {
                // The last one could shut everybody out otherwise.
                return Err(ApiError::OwnAccess(
                    "An API key does not end itself: another administrator does.",
                ));
            }
            if !key.active {
                return Ok(Some(()));
            }
            let before = view::api_key(&key);
            key.active = false;
            let event = caller
                .event(EventKind::ApiKeyRevoked, format!("API key {} revoked", key.name), self.now())
                .on(Target::new("api_key", key.number.to_string()).named(&*key.name))
                .changed(&before, &view::api_key(&key));
            written(self.stores().api_keys.update(org, &key, &event).await?, "API key", || ())
        })
        .await
    }
}

/// Nobody hands out administrative scopes that they do not hold.
fn not_above(principal: &Principal, member: &'static str, scopes: &[Capability]) -> Result<(), ApiError> {
    let administrative =
        |scope: &&Capability| scope.as_str().starts_with("admin") || scope.as_str().starts_with("authz:");
    match scopes.iter().filter(administrative).find(|scope| !principal.decide(scope).is_allow()) {
        None => Ok(()),
        Some(scope) => {
            let problem = format!("contain `{scope}`, which the caller does not hold");
            Err(ApiError::Invalid { member, problem })
        }
    }
}

async fn client_named(
    clients: &Arc<dyn ClientStore>,
    org: &OrgId,
    name: &str,
) -> Result<Arc<Client>, ApiError> {
    let found = match (name.parse(), ClientId::parse(name)) {
        (Ok(number), _) => clients.find(org, ClientKey::Number(Number::new(number))).await?,
        (_, Ok(id)) => clients.find(org, ClientKey::ClientId(&id)).await?,
        _ => None,
    };
    found.ok_or(ApiError::NotFound("client"))
}

fn client_target(client: &Client) -> Target {
    Target::new("client", client.client_id.as_str()).named(&*client.name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        audit::{Actor, Origin},
        keys::{KeyRing, KeyRingConfig, MasterKey},
        principal::Identity,
        store::{MemoryStore, Stores},
    };

    async fn register(body: Value) -> Result<(Arc<Client>, Option<Secret>), ApiError> {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let server = AuthorizationServer::builder("https://auth.test", Stores::all(store), Arc::new(keys));
        let server = server.build().unwrap();
        let org = OrgId::parse("acme").unwrap();
        let (key, _) = ApiKey::new(&org, "k", vec![Capability::parse("admin").unwrap()], server.now());
        let principal = Principal::new(org.clone(), Identity::ApiKey(Arc::new(key)), None);
        let caller = Caller::new(Actor::system(), Origin::default());
        let request: ClientRequest = serde_json::from_value(body).unwrap();
        server.create_client(&org, &request, &principal, &caller).await
    }

    fn keys() -> Value {
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] })
    }

    #[tokio::test]
    async fn clients_are_shown_as_they_were_registered() {
        let uris = json!(["https://app.test/cb", "http://127.0.0.1/cb", "com.example.app:/cb"]);
        let body = json!({ "name": "App", "redirectUris": uris, "jwks": keys(), "grantTypes": GRANT_TYPES });
        let (client, secret) = register(body).await.unwrap();
        assert!(secret.is_some());
        let shown = view::client(&client);
        assert_eq!((&shown["redirectUris"], &shown["jwks"]), (&uris, &keys()));
        assert_eq!(shown["grantTypes"], json!(GRANT_TYPES));
        assert_eq!((&shown["requiresPkce"], &shown["isPublic"]), (&json!(false), &json!(false)));
        let (client, _) = register(json!({ "name": "App", "requiresPkce": true })).await.unwrap();
        assert_eq!(view::client(&client)["requiresPkce"], true);
        let published =
            json!({ "name": "App", "jwksUri": "https://app.test/jwks.json", "jwks": { "keys": [] } });
        let (client, _) = register(published).await.unwrap();
        assert_eq!(view::client(&client)["jwksUri"], "https://app.test/jwks.json");
        let public = json!({ "name": "App", "isConfidential": false, "redirectUris": uris,
            "grantTypes": ["authorization_code", "refresh_token", "client_credentials"] });
        let (client, secret) = register(public).await.unwrap();
        assert!(secret.is_none() && !client.confidential && client.secrets.is_empty());
        assert_eq!(client.grant_types, ["authorization_code", "refresh_token"]);
        let shown = view::client(&client);
        assert_eq!((&shown["requiresPkce"], &shown["isPublic"]), (&json!(true), &json!(true)));
    }

    #[tokio::test]
    async fn clients_that_nobody_can_be_are_refused() {
        let many: Vec<_> = (0..17).map(|n| format!("https://app.test/{n}")).collect();
        for (member, value, at_fault) in [
            ("redirectUris", json!(["http://app.test/cb"]), "redirectUris"),
            ("redirectUris", json!(["javascript:alert(1)"]), "redirectUris"),
            ("redirectUris", json!(many), "redirectUris"),
            ("grantTypes", json!(["password"]), "grantTypes"),
            ("grantTypes", json!(["implicit"]), "grantTypes"),
            ("jwksUri", json!("http://app.test/jwks.json"), "jwksUri"),
            ("jwksUri", json!(""), "jwksUri"),
            ("jwks", json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }), "jwks"),
        ] {
            let refused = register(json!({ "name": "App", member: value })).await;
            assert!(
                matches!(refused, Err(ApiError::Invalid { member, .. }) if member == at_fault),
                "{member}"
            );
        }
        let both = json!({ "name": "App", "jwks": keys(), "jwksUri": "https://app.test/jwks.json" });
        let open = json!({ "name": "App", "requiresPkce": false, "isConfidential": false });
        let refused = register(open).await;
        assert!(matches!(refused, Err(ApiError::Invalid { member: "requiresPkce", .. })));
        let public = json!({ "name": "App", "jwks": keys(), "isConfidential": false });
        for body in [both, public] {
            assert!(matches!(register(body).await, Err(ApiError::Invalid { member: "jwks", .. })));
        }
    }
}
