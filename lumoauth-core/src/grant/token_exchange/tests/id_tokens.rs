//! ID tokens as subjects: of their own client, without scope, and dead with what they were issued beside.

use std::sync::Arc;

use serde_json::{Value, json};

use super::setting::{ACCESS, Cast, NOW, SECRET, refused};
use crate::{
    agent::Agent,
    client_auth::AuthenticatedClient,
    grant::{TokenError, TokenResponse},
    keys::{KeyProvider, KeyPurpose},
    store::ConsentKey,
    token::{self, ConsentEpoch, family_handle},
};

const ID: &str = super::super::ID_TOKEN;
const JWT: &str = super::super::JWT;

type Outcome = Result<TokenResponse, TokenError>;

impl Cast {
    /// Alice's access and ID token at an agent.
    async fn signed_in(&self, agent: &Arc<Agent>) -> (String, String) {
        let client = AuthenticatedClient::Agent(agent.clone());
        self.on.with_id_token(&self.alice, &client, "openid read:a", |_| ()).await
    }

    async fn present(&self, id_token: &str, actor: Option<&str>, more: &[(&str, &str)]) -> Outcome {
        let mut fields = vec![("subject_token", id_token), ("subject_token_type", ID)];
        if let Some(actor) = actor {
            fields.extend([("actor_token", actor), ("actor_token_type", ACCESS)]);
        }
        fields.extend(more);
        self.on.request(&fields).await
    }

    async fn signed(&self, typ: &str, claims: &Value) -> String {
        let signer =
            self.on.keys.signer(self.on.org(), KeyPurpose::AccessToken, self.on.now()).await.unwrap();
        token::sign(&*signer, typ, claims).await.unwrap()
    }
}

fn claims_of(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn its_agent_acts_for_the_person_without_scope() {
    let cast = Cast::new().await;
    let (access, id_token) = cast.signed_in(&cast.bot).await;
    let actor = cast.on.own(&cast.bot).await;
    let response = cast.present(&id_token, Some(&actor), &[]).await.unwrap();
    assert_eq!((response.scope.to_string().as_str(), response.expires_in), ("", 900));
    let claims = cast.on.claims(response.access_token.expose()).await;
    assert_eq!((&*claims.sub, claims.agent_id), (&*cast.alice.id.to_string(), Some(cast.bot.id)));
    assert_eq!(claims.actors().len(), 1);
    // Beside the access token that it came with it proves nothing more.
    assert!(cast.on.exchange(&access, Some(&actor), &[]).await.is_ok());
    for scope in ["read:a", "openid", "read:a tool:x"] {
        refused(cast.present(&id_token, Some(&actor), &[("scope", scope)]).await, 400, "invalid_scope");
    }
}

#[tokio::test]
async fn it_is_of_no_use_to_another_client() {
    let cast = Cast::new().await;
    let other = cast.on.agent("other", "read:a delegate:user").await;
    cast.on.consent(&cast.alice, &other, "read:a").await;
    let (_, id_token) = cast.signed_in(&cast.bot).await;
    let theirs = cast.on.own(&other).await;
    refused(cast.present(&id_token, Some(&theirs), &[]).await, 400, "invalid_grant");
    let as_client = |id| [("client_id", id), ("client_secret", SECRET)];
    let client = as_client(other.client_id.as_str());
    refused(cast.present(&id_token, Some(&theirs), &client).await, 400, "invalid_grant");
    refused(cast.present(&id_token, None, &client).await, 400, "invalid_grant");
    // Nor to whoever finds it.
    refused(cast.present(&id_token, None, &[]).await, 400, "invalid_grant");
    refused(cast.present(&id_token, None, &[("scope", "read:a")]).await, 400, "invalid_grant");
    // Its own client may hand it on, if the person has agreed to the agent.
    let own = as_client(cast.bot.client_id.as_str());
    assert!(cast.present(&id_token, Some(&theirs), &own).await.is_ok());
    // By itself it comes to nothing.
    refused(cast.present(&id_token, None, &own).await, 400, "invalid_request");
    let scoped = [own[0], own[1], ("scope", "read:a")];
    refused(cast.present(&id_token, None, &scoped).await, 400, "invalid_scope");
}

#[tokio::test]
async fn consent_and_capabilities_are_asked_as_for_any_subject() {
    let cast = Cast::new().await;
    let (_, at_app) = cast.on.with_id_token(&cast.alice, &cast.app, "openid", |_| ()).await;
    let actor = cast.on.own(&cast.bot).await;
    let app = [("client_id", cast.app.client_id().as_str()), ("client_secret", SECRET)];
    refused(cast.present(&at_app, Some(&actor), &app).await, 403, "consent_required");
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let response = cast.present(&at_app, Some(&actor), &app).await.unwrap();
    cast.on.withdraw(&consent).await;
    assert!(!cast.on.is_active(response.access_token.expose()).await);
    let (_, at_tool) = cast.signed_in(&cast.tool).await;
    let tool = cast.on.own(&cast.tool).await;
    refused(cast.present(&at_tool, Some(&tool), &[]).await, 403, "delegation_not_allowed");
}

#[tokio::test]
async fn it_is_nothing_but_an_id_token() {
    let cast = Cast::new().await;
    let (access, id_token) = cast.signed_in(&cast.bot).await;
    let actor = cast.on.own(&cast.bot).await;
    let declared = async |token: &str, kind| {
        let fields = [("subject_token", token), ("subject_token_type", kind)];
        let fields = [fields[0], fields[1], ("actor_token", &actor), ("actor_token_type", ACCESS)];
        cast.on.request(&fields).await
    };
    refused(declared(&id_token, ACCESS).await, 400, "invalid_grant");
    refused(declared(&id_token, JWT).await, 400, "invalid_grant");
    refused(declared(&access, ID).await, 400, "invalid_grant");
    assert!(declared(&id_token, ID).await.is_ok());
    refused(cast.on.exchange(&access, Some(&id_token), &[]).await, 400, "invalid_grant");
    assert!(!cast.on.is_active(&id_token).await);
    // Whoever revokes it has revoked nothing.
    cast.on.revoke_as(cast.bot.client_id.as_str(), &id_token).await;
    assert!(declared(&id_token, ID).await.is_ok() && cast.on.is_active(&access).await);
}

#[tokio::test]
async fn every_flaw_is_refused() {
    let cast = Cast::new().await;
    let (_, id_token) = cast.signed_in(&cast.bot).await;
    let actor = cast.on.own(&cast.bot).await;
    let good = claims_of(&id_token);
    assert!(cast.present(&cast.signed("JWT", &good).await, Some(&actor), &[]).await.is_ok());
    for typ in ["at+jwt", "jwt", "logout+jwt", "none", ""] {
        let token = cast.signed(typ, &good).await;
        refused(cast.present(&token, Some(&actor), &[]).await, 400, "invalid_grant");
    }
    let there = cast.on.elsewhere().await;
    let theirs = json!(there.server.issuer(there.org()));
    for (member, value) in [
        ("exp", json!(NOW)),
        ("exp", Value::Null),
        ("exp", json!("9999999999")),
        ("iat", json!(NOW + 31)),
        ("nbf", json!(NOW + 31)),
        ("iss", theirs),
        ("aud", json!([cast.bot.client_id])),
        ("aud", json!(cast.tool.client_id)),
        ("aud", Value::Null),
        ("sub", json!(cast.bot.id.to_string())),
        ("jti", Value::Null),
        ("lin", Value::Null),
        ("lin", json!({ "e": [0, 0, 0] })),
        ("lin", json!({ "e": [0, 0, 1], "s": "u" })),
        ("lin", json!({ "e": [], "s": "u" })),
    ] {
        let mut claims = good.clone();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
            ref value => claims[member] = value.clone(),
        }
        let outcome = cast.present(&cast.signed("JWT", &claims).await, Some(&actor), &[]).await;
        assert_eq!(outcome.unwrap_err().to_wire().error, "invalid_grant", "{member}: {value}");
    }
    // By another organization's key, under our name.
    let strange = there.keys.signer(there.org(), KeyPurpose::AccessToken, there.now()).await.unwrap();
    let forged = token::sign(&*strange, "JWT", &good).await.unwrap();
    refused(cast.present(&forged, Some(&actor), &[]).await, 400, "invalid_grant");
    let (head, _) = id_token.rsplit_once('.').unwrap();
    for broken in [head.to_owned(), format!("{head}."), format!("{id_token}A"), "x".to_owned()] {
        refused(cast.present(&broken, Some(&actor), &[]).await, 400, "invalid_grant");
    }
    cast.on.wait(3600);
    let fresh = cast.on.own(&cast.bot).await;
    refused(cast.present(&id_token, Some(&fresh), &[]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn it_ends_with_what_it_was_issued_beside_and_so_does_what_came_of_it() {
    for cause in ["access token", "family", "consent", "agent", "person"] {
        let cast = Cast::new().await;
        let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
        let family = family_handle(cast.on.org(), "one");
        let client = AuthenticatedClient::Agent(cast.bot.clone());
        let (access, id_token) = cast
            .on
            .with_id_token(&cast.alice, &client, "openid", |new| {
                new.ancestors = vec![family];
                new.consents = vec![ConsentEpoch { id: consent.id, epoch: consent.epoch }];
            })
            .await;
        let actor = cast.on.own(&cast.bot).await;
        let one = cast.present(&id_token, Some(&actor), &[]).await.unwrap().access_token;
        let two = cast.on.exchanged(one.expose(), Some(&cast.on.own(&cast.tool).await), &[]).await;
        assert!(cast.on.is_active(&two).await);
        match cause {
            "access token" => cast.on.revoke_as(cast.bot.client_id.as_str(), &access).await,
            "family" => cast.on.revoke_handle(family).await,
            "consent" => {
                let key = ConsentKey::Id(consent.id);
                let found = cast.on.stores.consents.find(cast.on.org(), key).await.unwrap().unwrap();
                cast.on.withdraw(&found).await;
            }
            "agent" => cast.on.change_agent(&cast.bot, |bot| bot.epoch += 1).await,
            _ => cast.on.change_user(&cast.alice, |alice| assert!(alice.block())).await,
        }
        assert!(!cast.on.is_active(one.expose()).await && !cast.on.is_active(&two).await, "{cause}");
        let bot = cast.on.agent_now(&cast.bot).await;
        let again = cast.present(&id_token, Some(&cast.on.own(&bot).await), &[]).await;
        assert_eq!(again.unwrap_err().to_wire().error, "invalid_grant", "{cause}");
    }
}

#[tokio::test]
async fn one_from_beside_a_token_for_a_resource_is_not_exchanged() {
    let cast = Cast::new().await;
    let server = Arc::new(cast.on.mcp_server("urn:mcp:a", |_| ()).await);
    let client = AuthenticatedClient::Agent(cast.bot.clone());
    let bound = |new: &mut crate::grant::NewToken<'_>| new.resource = crate::grant::Resource::Mcp(server);
    let (_, id_token) = cast.on.with_id_token(&cast.alice, &client, "openid", bound).await;
    assert!(claims_of(&id_token).get("lin").is_none());
    let actor = cast.on.own(&cast.bot).await;
    refused(cast.present(&id_token, Some(&actor), &[]).await, 400, "invalid_grant");
}
