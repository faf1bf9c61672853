//! Services that want authorization details: what they say is missing, and what they take.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Response;
use lumoauth_core::jit::{AuthorizationDetail, Containment, DetailRules};
use lumoauth_tower::{
    AuthenticateLayer, RemoteTokens, RequireAuthorizationDetailsLayer, RequireCapabilityLayer,
};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::setting::{Answer, OTHER_RESOURCE, RESOURCE, Setting, with_token};

fn detail(value: Value) -> AuthorizationDetail {
    AuthorizationDetail::new(value).unwrap()
}

fn reading(actions: &[&str]) -> Value {
    json!({ "type": "file_access", "actions": actions, "identifier": "a", "locations": [RESOURCE] })
}

fn requires(value: Value) -> RequireAuthorizationDetailsLayer {
    RequireAuthorizationDetailsLayer::new(move |_| AuthorizationDetail::new(value.clone()).ok())
}

async fn call(who: AuthenticateLayer, layer: RequireAuthorizationDetailsLayer, token: &str) -> Answer {
    let service = ServiceBuilder::new()
        .layer(who)
        .layer(layer)
        .service(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::from("hello")))));
    Answer::of(service.oneshot(with_token(token)).await.unwrap()).await
}

impl Setting {
    /// Calls a service at `resource` behind `layer`.
    async fn call_at(&self, resource: &str, layer: RequireAuthorizationDetailsLayer, token: &str) -> Answer {
        call(AuthenticateLayer::new(self.server.clone()).for_details_at(resource), layer, token).await
    }

    /// A task of the first agent, and a token that is granted in it at once.
    async fn granted(&self, detail: Value) -> (String, String) {
        let own = self.token(&self.root).await;
        let post = async |path: String, body: Value| self.as_bearer(&own, &path, &body).await.1;
        let task = post("jit/task".to_owned(), json!({})).await["task_id"].as_str().unwrap().to_owned();
        let body = json!({ "task_id": task, "authorization_details": detail });
        let made = post("jit/request".to_owned(), body).await;
        assert_eq!(made["status"], "approved", "{made}");
        let path = format!("jit/request/{}/token", made["request_id"].as_str().unwrap());
        let token = post(path, json!({})).await["access_token"].as_str().unwrap().to_owned();
        (task, token)
    }
}

#[tokio::test]
async fn whoever_lacks_it_hears_what_is_missing() {
    let setting = Setting::new().await;
    let own = setting.token(&setting.root).await;
    let answer = setting.call_at(RESOURCE, requires(reading(&["read"])), &own).await;
    answer.refused(403, "insufficient_authorization_details");
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_authorization_details\"");
    let missing = STANDARD.decode(answer.header("insufficient-authorization-details")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&missing).unwrap(), reading(&["read"]));
    // A token of the resource proves no more than one of the authorization server.
    let bound = setting.bound(RESOURCE).await;
    let answer = setting.call_at(RESOURCE, requires(reading(&["read"])), &bound).await;
    answer.refused(403, "insufficient_authorization_details");
    let elsewhere = setting.bound(OTHER_RESOURCE).await;
    setting.call_at(RESOURCE, requires(reading(&["read"])), &elsewhere).await.refused(401, "invalid_token");
    setting.call_at(RESOURCE, requires(reading(&["read"])), "nonsense").await.refused(401, "invalid_token");
}

#[tokio::test]
async fn what_was_granted_is_let_in_until_its_task_ends() {
    let setting = Setting::new().await;
    let (task, token) = setting.granted(reading(&["read", "list"])).await;
    for (wanted, status) in [
        (reading(&["read", "list"]), 200),
        (reading(&["list"]), 200),
        (reading(&["read", "write"]), 403),
        (json!({ "type": "file_access", "actions": ["read"], "identifier": "a" }), 403),
        (json!({ "type": "other", "actions": ["read"], "identifier": "a", "locations": [RESOURCE] }), 403),
    ] {
        let answer = setting.call_at(RESOURCE, requires(wanted.clone()), &token).await;
        assert_eq!(answer.status, status, "{wanted}");
    }
    // Another place, and a service that wants none, do not know it.
    let other = setting.call_at(OTHER_RESOURCE, requires(reading(&["read"])), &token).await;
    other.refused(401, "invalid_token");
    let plain = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()).for_resource(RESOURCE))
        .service(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::from("hello")))));
    Answer::of(plain.oneshot(with_token(&token)).await.unwrap()).await.refused(401, "invalid_token");
    let own = setting.token(&setting.root).await;
    setting.as_bearer(&own, &format!("jit/task/{task}/complete"), &json!({})).await;
    let ended = setting.call_at(RESOURCE, requires(reading(&["read"])), &token).await;
    ended.refused(401, "invalid_token");
}

#[tokio::test]
async fn it_holds_no_capability() {
    let setting = Setting::new().await;
    let (_, token) = setting.granted(reading(&["read"])).await;
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(setting.server.clone()).for_details_at(RESOURCE))
        .layer(RequireCapabilityLayer::new("read:files".parse().unwrap()))
        .layer(requires(reading(&["read"])))
        .service(service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::from("hello")))));
    Answer::of(service.oneshot(with_token(&token)).await.unwrap()).await.refused(403, "capability_denied");
}

#[tokio::test]
async fn a_request_that_is_nothing_to_grant_is_refused() {
    let setting = Setting::new().await;
    let (_, token) = setting.granted(reading(&["read"])).await;
    let answer = setting.call_at(RESOURCE, RequireAuthorizationDetailsLayer::new(|_| None), &token).await;
    answer.refused(403, "insufficient_authorization_details");
    assert_eq!(answer.header("insufficient-authorization-details"), "");
    let bare = requires(reading(&["read"])).layer_alone().oneshot(with_token(&token));
    Answer::of(bare.await.unwrap()).await.refused(500, "server_error");
}

#[tokio::test]
async fn a_type_may_have_rules_of_its_own() {
    #[derive(Debug)]
    struct Below;
    impl Containment for Below {
        fn allows(&self, granted: &AuthorizationDetail, wanted: &AuthorizationDetail) -> bool {
            let of = |it: &AuthorizationDetail| it.identifier().unwrap_or_default().to_owned();
            of(wanted).strip_prefix(&of(granted)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
    let setting = Setting::new().await;
    let tree = |identifier: &str| json!({ "type": "tree", "actions": ["read"], "identifier": identifier });
    let (_, token) = setting.granted(tree("docs")).await;
    for (identifier, status) in [("docs", 200), ("docs/a", 200), ("docs2", 403), ("doc", 403)] {
        let layer = requires(detail(tree(identifier)).to_json())
            .with_rules(DetailRules::default().with_type("tree", Below));
        assert_eq!(setting.call_at(RESOURCE, layer, &token).await.status, status, "{identifier}");
    }
}

/// What services on other hosts make of the token of a task.
#[tokio::test]
async fn a_service_elsewhere_takes_what_was_granted() {
    let setting = Setting::online().await;
    let (task, token) = setting.granted(reading(&["read", "list"])).await;
    let (_, placeless) = setting.granted(json!({ "type": "file_access", "actions": ["read"] })).await;
    let [keys, asked] = setting.both();
    let at = async |tokens: &RemoteTokens, wanted: Value, token: &str| {
        let who = AuthenticateLayer::remote(tokens.clone(), RESOURCE).for_details_at(RESOURCE);
        call(who, requires(wanted), token).await.status.as_u16()
    };
    for tokens in [&keys, &asked] {
        for (wanted, status) in [
            (reading(&["read", "list"]), 200),
            (reading(&["list"]), 200),
            (reading(&["write"]), 403),
            (json!({ "type": "other", "actions": ["read"], "locations": [RESOURCE] }), 403),
        ] {
            assert_eq!(at(tokens, wanted.clone(), &token).await, status, "{wanted}");
        }
        let caller = tokens.verify_for_details(&token, RESOURCE).await.unwrap();
        assert_eq!(caller.authorization_details, [detail(reading(&["read", "list"]))]);
        // Another place does not know it, nor does this one where it asks for no details.
        assert!(tokens.verify_for_details(&token, OTHER_RESOURCE).await.is_err());
        assert!(tokens.verify(&token, RESOURCE).await.is_err());
        let plain = AuthenticateLayer::remote(tokens.clone(), RESOURCE);
        call(plain, requires(reading(&["read"])), &token).await.refused(401, "invalid_token");
    }
    // What names no place is shown to nobody but the agent: only its signature can be checked elsewhere.
    let no_place = json!({ "type": "file_access", "actions": ["read"] });
    assert_eq!(at(&keys, no_place.clone(), &placeless).await, 200);
    assert_eq!(at(&asked, no_place, &placeless).await, 401);
    let own = setting.token(&setting.root).await;
    setting.as_bearer(&own, &format!("jit/task/{task}/complete"), &json!({})).await;
    setting.clock.advance(Duration::from_secs(2));
    assert_eq!(at(&keys, reading(&["read"]), &token).await, 200);
    assert_eq!(at(&asked, reading(&["read"]), &token).await, 401);
}

#[tokio::test]
async fn a_service_elsewhere_says_what_is_missing() {
    let setting = Setting::online().await;
    let (own, bound) = (setting.token(&setting.root).await, setting.bound(RESOURCE).await);
    // Details that stand in a token of no task were granted by nobody.
    let claims = json!({ "authorization_details": [reading(&["read"])] });
    let pretended = setting.forged(&bound, &json!({}), &claims).await;
    let [keys, asked] = setting.both();
    for (tokens, token) in
        [(&keys, &own), (&keys, &bound), (&keys, &pretended), (&asked, &bound), (&asked, &pretended)]
    {
        let who = AuthenticateLayer::remote(tokens.clone(), RESOURCE).for_details_at(RESOURCE);
        let answer = call(who, requires(reading(&["read"])), token).await;
        answer.refused(403, "insufficient_authorization_details");
        let missing = STANDARD.decode(answer.header("insufficient-authorization-details")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&missing).unwrap(), reading(&["read"]));
    }
    let elsewhere = setting.bound(OTHER_RESOURCE).await;
    for (tokens, token) in [(&asked, &own), (&keys, &elsewhere), (&asked, &elsewhere)] {
        let who = AuthenticateLayer::remote(tokens.clone(), RESOURCE).for_details_at(RESOURCE);
        call(who, requires(reading(&["read"])), token).await.refused(401, "invalid_token");
    }
}

trait Alone {
    fn layer_alone(self) -> tower::util::BoxCloneService<http::Request<()>, Response<Body>, Infallible>;
}

impl Alone for RequireAuthorizationDetailsLayer {
    /// Without anything that finds out who calls.
    fn layer_alone(self) -> tower::util::BoxCloneService<http::Request<()>, Response<Body>, Infallible> {
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::from("hello"))));
        tower::util::BoxCloneService::new(ServiceBuilder::new().layer(self).service(service))
    }
}
