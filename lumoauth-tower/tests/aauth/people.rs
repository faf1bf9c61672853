//! Agents whose resources want a person to agree.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body_util::Full;
use lumoauth_core::{
    aauth_resource::{AAuthResource, AuthLevel},
    audit::{Actor, Event, EventKind, Origin},
    client::Client,
    client_auth::AuthenticatedClient,
    clock::Clock,
    principal::{Identity, Person, Principal},
    secret::Secret,
    store::AAuthResourceKey,
    user::User,
};
use lumoauth_tower::{AAuthClientError, PendingConsent};

use crate::{
    client::{CALLBACK, TOKEN_ENDPOINT, get, id, json_of, real},
    setting::{ISSUER, RESOURCE, Setting},
};

/// The agent may ask people, and the resource wants one to agree.
pub(crate) async fn with_people(setting: &Setting, level: AuthLevel) {
    setting
        .change(|agent| {
            agent.redirect_uris = vec![CALLBACK.to_owned()];
            agent.aauth.as_mut().unwrap().user_authorization = true;
        })
        .await;
    let stores = &setting.stores;
    let found = stores.aauth_resources.find(&setting.org, AAuthResourceKey::Identifier(&id(RESOURCE))).await;
    let mut resource = AAuthResource::clone(&found.unwrap().unwrap());
    resource.default_auth_level = level;
    let event = Event::new(EventKind::AAuthResourceUpdated, Actor::system(), "changed", setting.clock.now());
    let _ = stores.aauth_resources.update(&setting.org, &resource, &event).await.unwrap();
    setting.clock.advance(Duration::from_secs(2));
}

/// A person agrees, or not.
async fn decide(setting: &Setting, consent: &PendingConsent, approve: bool) -> Option<Secret> {
    answer(setting, consent.request_token(), approve).await
}

/// The same to the question with this token.
pub(crate) async fn answer(setting: &Setting, token: &Secret, approve: bool) -> Option<Secret> {
    let now = setting.clock.now();
    let on = |kind| Event::new(kind, Actor::system(), "made", now);
    let user = User::new(&format!("{}@acme.test", now.unix_millis()), now);
    let _ = setting.stores.users.insert(&setting.org, &user, &on(EventKind::UserCreated)).await.unwrap();
    let app = Client::new("App", now).0;
    let person = Person { user: Arc::new(user), client: AuthenticatedClient::Client(Arc::new(app)) };
    let person = Principal::new(setting.org.clone(), Identity::User(person), None);
    let organization = setting.stores.organizations.find(&setting.org).await.unwrap().unwrap();
    let origin = Origin::default();
    let answer = setting.server.decide_aauth_request(&organization, &person, token, approve, &origin);
    answer.await.unwrap().code
}

#[track_caller]
fn consent_needed(outcome: Result<Response<Full<bytes::Bytes>>, AAuthClientError>) -> PendingConsent {
    match outcome {
        Err(AAuthClientError::ConsentNeeded(consent)) => consent,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_person_is_asked_once_and_their_answer_lets_calls_through() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::Authorized).await;
    let (client, log) = real(&setting);
    let asked = join_all((0..20).map(|_| get(&client, "/a"))).await;
    let asked: Vec<_> = asked.into_iter().map(consent_needed).collect();
    assert_eq!(log.to(TOKEN_ENDPOINT), 1, "nobody is asked twice");
    let consent = &asked[19];
    assert!(
        consent.auth_url().expose().starts_with(&format!("{ISSUER}/aauth/agent/auth?request_token=areq_"))
    );
    assert!(!format!("{consent:?}").contains("areq_"));

    let code = decide(&setting, consent, true).await.unwrap();
    assert!(client.finish(consent, &Secret::from("guessed")).await.is_err());
    client.finish(consent, &code).await.unwrap();
    let served = json_of(get(&client, "/a").await.unwrap()).await;
    assert_eq!(served["scope"], "read:files");
    assert_eq!(log.asked().last().unwrap()["redirect_uri"], CALLBACK);
    // A code works once.
    assert_eq!(client.finish(consent, &code).await.unwrap_err().refusal(), Some("invalid_grant"));
}

#[tokio::test]
async fn what_one_person_agreed_to_is_not_used_for_another() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::Authorized).await;
    let (alice, log) = real(&setting);
    let consent = consent_needed(get(&alice, "/a").await);
    alice.finish(&consent, &decide(&setting, &consent, true).await.unwrap()).await.unwrap();
    let bob = alice.for_somebody_else();
    let asked = consent_needed(get(&bob, "/a").await);
    assert_ne!(asked.request_token().hash(), consent.request_token().hash());
    assert_eq!(get(&alice, "/a").await.unwrap().status(), StatusCode::OK);
    assert_eq!(log.to(TOKEN_ENDPOINT), 3);
}

#[tokio::test]
async fn a_code_for_another_question_is_refused() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::Authorized).await;
    let (alice, _) = real(&setting);
    let mallory = alice.for_somebody_else();
    let (hers, theirs) = (consent_needed(get(&alice, "/a").await), consent_needed(get(&mallory, "/a").await));
    let code = decide(&setting, &theirs, true).await.unwrap();
    assert_eq!(alice.finish(&hers, &code).await.unwrap_err().refusal(), Some("invalid_grant"));
}

#[tokio::test]
async fn a_question_is_asked_anew_when_it_was_given_up_or_ran_out() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::Authorized).await;
    let (client, log) = real(&setting);
    let first = consent_needed(get(&client, "/a").await);
    assert!(decide(&setting, &first, false).await.is_none());
    client.abandon(&first).await;
    let second = consent_needed(get(&client, "/a").await);
    assert_ne!(first.request_token().hash(), second.request_token().hash());
    setting.clock.advance(Duration::from_secs(601));
    let third = consent_needed(get(&client, "/a").await);
    assert_ne!(second.request_token().hash(), third.request_token().hash());
    assert_eq!(log.to(TOKEN_ENDPOINT), 3);
}

#[tokio::test]
async fn tokens_for_which_the_person_must_be_there_are_not_refreshed() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::User).await;
    let (client, _) = real(&setting);
    let consent = consent_needed(get(&client, "/a").await);
    client.finish(&consent, &decide(&setting, &consent, true).await.unwrap()).await.unwrap();
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    setting.clock.advance(Duration::from_secs(300));
    consent_needed(get(&client, "/a").await);
}

#[tokio::test]
async fn a_person_is_asked_where_none_had_to_be_when_the_token_was_made() {
    let setting = Setting::new().await;
    with_people(&setting, AuthLevel::None).await;
    let (client, log) = real(&setting);
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    with_people(&setting, AuthLevel::Authorized).await;
    setting.clock.advance(Duration::from_secs(3600));
    let consent = consent_needed(get(&client, "/a").await);
    client.finish(&consent, &decide(&setting, &consent, true).await.unwrap()).await.unwrap();
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    let asked: Vec<_> = log.asked().iter().map(|body| body["request_type"].clone()).collect();
    assert_eq!(asked, ["auth", "refresh", "auth", "code"]);
}
