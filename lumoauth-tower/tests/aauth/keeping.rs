//! What agents keep of what they were given.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::StatusCode;
use lumoauth_core::{
    aauth::ResourceServer,
    aauth_resource::AAuthResource,
    audit::{Actor, Event, EventKind},
    clock::Clock,
};
use tower::Layer;

use crate::{
    client::{TOKEN_ENDPOINT, answer, authorization_server, behind, get, handler, id, layer, net},
    setting::{RESOURCE, Setting, key_set},
};

#[tokio::test]
async fn calls_that_alternate_between_two_resources_at_one_origin_keep_the_tokens_of_both() {
    let setting = Setting::new().await;
    let mail = format!("{RESOURCE}/mail");
    let mut record = AAuthResource::new("Mail", id(&mail), setting.clock.now());
    record.jwks = Some(key_set(&setting.key));
    let event = Event::new(EventKind::AAuthResourceCreated, Actor::system(), "made", setting.clock.now());
    let _ = setting.stores.aauth_resources.insert(&setting.org, &record, &event).await.unwrap();
    let issuer = Arc::new(setting.server.auth_tokens_of(&setting.org).unwrap());
    let server = ResourceServer::new(id(&mail), issuer, setting.stores.replay.clone())
        .with_key(setting.key.clone(), setting.key.public_key().unwrap());
    let routes = behind(vec![("/mail", setting.layer_of(server)), ("/", setting.layer())]);
    let (net, log) = net(routes, authorization_server(&setting));
    let client = layer(&setting).layer(net);
    for path in ["/a", "/mail/a", "/b", "/mail/b", "/a"] {
        assert_eq!(get(&client, path).await.unwrap().status(), StatusCode::OK, "{path}");
    }
    assert_eq!(log.to(TOKEN_ENDPOINT), 2);
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_token_costs_no_token() {
    let setting = Setting::new().await;
    let away = Arc::new(AtomicBool::new(false));
    let (real, is_away) = (behind(vec![("/", setting.layer())]), away.clone());
    // For a while it takes no signature at all: its clock is wrong.
    let resource = handler(move |request| {
        let answered = real(request);
        let is_away = is_away.load(Ordering::SeqCst);
        async move { if is_away { answer(401, "httpsig; auth-token", "") } else { answered.await } }
    });
    let (net, log) = net(resource, authorization_server(&setting));
    let client = layer(&setting).layer(net);
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    away.store(true, Ordering::SeqCst);
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    away.store(false, Ordering::SeqCst);
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
}
