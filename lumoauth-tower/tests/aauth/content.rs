//! The content of signed requests: waited for, or flowing.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use lumoauth_core::{aauth::AAuthContext, httpsig::Profile};
use lumoauth_tower::{AAuthLayer, CheckedBody, Rejection, RejectionReason};
use tower::{Layer, ServiceExt, service_fn};

use crate::setting::{Answer, Setting, echo};

/// A body in these parts, of which nobody says how long it is.
fn parts(parts: &[&str]) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let parts: Vec<_> = parts.iter().map(|part| Ok(Frame::data(Bytes::from((*part).to_owned())))).collect();
    StreamBody::new(stream::iter(parts))
}

/// The answer to a request whose body comes in parts, and what the service behind saw of it: the parts, and whether it ended well.
async fn flowing(
    setting: &Setting,
    layer: &AAuthLayer,
    profile: &Profile,
    signed: &str,
    sent: &[&str],
) -> (StatusCode, Vec<String>, bool) {
    let seen = Arc::new(std::sync::Mutex::new((Vec::new(), false)));
    let record = seen.clone();
    let route = service_fn(move |request: Request<CheckedBody<_>>| {
        let record = record.clone();
        async move {
            assert!(!request.extensions().get::<AAuthContext>().unwrap().content_bound);
            let mut body = std::pin::pin!(request.into_body());
            while let Some(frame) = BodyExt::frame(&mut body).await {
                let Ok(frame) = frame else {
                    return Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()));
                };
                let data = frame.into_data().unwrap();
                record.lock().unwrap().0.push(String::from_utf8(data.to_vec()).unwrap());
            }
            assert!(body.is_end_stream());
            record.lock().unwrap().1 = true;
            Ok(Response::new(Full::default()))
        }
    });
    let token = setting.token("read:files").await;
    let call = setting.call(Method::POST, "/files/a", signed, Some(&token));
    let call = call.signed_by(&*setting.agent, profile, setting).await;
    let answer = layer.layer(route).oneshot(call.request_with(parts(sent))).await.unwrap();
    let (parts, ended) = seen.lock().unwrap().clone();
    (answer.status(), parts, ended)
}

#[tokio::test]
async fn content_that_was_not_signed_is_refused_before_the_service_sees_it() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        for (signed, sent) in [
            ("{\"a\":1}", "{\"a\":2}"),
            ("{\"a\":1}", "{\"a\":1"),
            ("{\"a\":1}", ""),
            ("", "{}"),
            ("a", "a "),
        ] {
            let call = setting.call(Method::POST, "/files/a", signed, Some(&token));
            let mut call = call.signed_by(&*setting.agent, &profile, &setting).await;
            call.body = sent.to_owned();
            call.to(&layer).await.unauthenticated("invalid_signature");
        }
    }
}

#[tokio::test]
async fn content_is_handed_on_as_it_came_however_it_was_cut() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    let call = setting.post(&token, "one two three").await;
    let route = service_fn(async |request: Request<CheckedBody<_>>| {
        let body = request.into_body();
        assert_eq!(body.size_hint().exact(), Some(13));
        Ok::<_, Infallible>(Response::new(Full::new(body.collect().await.unwrap().to_bytes())))
    });
    let request = call.request_with(parts(&["one ", "", "two", " three"]));
    let answer = Answer::of(layer.layer(route).oneshot(request).await.unwrap()).await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "one two three"));
}

#[tokio::test]
async fn too_much_content_is_413_announced_or_not() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer().max_content(8), setting.token("read:files").await);
    setting.post(&token, "12345678").await.to(&layer).await.served();
    let answer = setting.post(&token, "123456789").await.to(&layer).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut announced = setting.post(&token, "1").await;
    announced.headers.insert("content-length", "9".parse().unwrap());
    assert_eq!(announced.to(&layer).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let (route, reached) = (
        service_fn(async |_: Request<CheckedBody<_>>| -> Result<Response<Full<Bytes>>, Infallible> {
            panic!("reached")
        }),
        (),
    );
    let request = setting.post(&token, "123456789").await.request_with(parts(&["1234", "56789"]));
    let answer = layer.layer(route).oneshot(request).await.unwrap();
    assert_eq!((answer.status(), reached), (StatusCode::PAYLOAD_TOO_LARGE, ()));
    assert_eq!(answer.extensions().get::<Rejection>().unwrap().reason, RejectionReason::Content);
    // By default it is a mebibyte.
    let long = "x".repeat(1024 * 1024);
    setting.post(&token, &long).await.to(&setting.layer()).await.served();
    let answer = setting.post(&token, &format!("{long}x")).await.to(&setting.layer()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let broken = StreamBody::new(stream::iter([
        Ok(Frame::data(Bytes::from_static(b"1234"))),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ]));
    let route = service_fn(async |_: Request<CheckedBody<_>>| -> Result<Response<Full<Bytes>>, Infallible> {
        panic!("reached")
    });
    let request = setting.post(&token, "12345678").await.request_with(broken);
    let answer = setting.layer().layer(route).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

/// Whoever is not known cannot have content kept for them, or hold a request open with content that never comes.
#[tokio::test]
async fn nobody_waits_for_the_content_of_strangers() {
    let setting = Setting::new().await;
    let never = || {
        let frames =
            stream::poll_fn(|_| -> Poll<Option<Result<Frame<Bytes>, Infallible>>> { panic!("read") });
        StreamBody::new(frames)
    };
    let token = setting.token("read:files").await;
    let unsigned = setting.call(Method::POST, "/files/a", "{}", Some(&token));
    let foreign = setting.call(Method::POST, "/files/a", "{}", Some(&token));
    let foreign = foreign.signed_by(&*setting.key, &Profile::LUMO_SDK, &setting).await;
    let mut asking = setting.call(Method::POST, "/files/a", "{}", None);
    asking
        .headers
        .insert("agent-auth", format!("agent_token={}", setting.agent_token().await).parse().unwrap());
    let asking = asking.signed(&setting).await;
    for call in [unsigned, foreign, asking] {
        let route =
            service_fn(async |_: Request<CheckedBody<_>>| -> Result<Response<Full<Bytes>>, Infallible> {
                panic!("reached")
            });
        let answer = setting.layer().layer(route).oneshot(call.request_with(never())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn content_that_flows_ends_well_only_if_it_is_what_was_signed() {
    let setting = Setting::new().await;
    let layer = setting.layer().streaming();
    let list = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let sent = ["one ", "two ", "three"];
        let (status, seen, ended) = flowing(&setting, &layer, &profile, "one two three", &sent).await;
        assert_eq!((status, seen, ended), (StatusCode::OK, list(&sent), true));
        // Its last part is kept back: nobody takes it for the whole.
        let (_, seen, ended) =
            flowing(&setting, &layer, &profile, "one two three", &["one ", "two ", "four"]).await;
        assert_eq!((seen, ended), (list(&["one ", "two "]), false));
        let (_, seen, ended) = flowing(&setting, &layer, &profile, "one two three", &["one ", "two "]).await;
        assert_eq!((seen, ended), (list(&["one "]), false));
        let (_, seen, ended) = flowing(&setting, &layer, &profile, "one two three", &[]).await;
        assert_eq!((seen, ended), (Vec::new(), false));
        // Signed without content.
        let (_, seen, ended) = flowing(&setting, &layer, &profile, "", &["{}"]).await;
        assert_eq!((seen, ended), (Vec::new(), false));
        let (_, seen, ended) = flowing(&setting, &layer, &profile, "", &[]).await;
        assert_eq!((seen, ended), (Vec::new(), true));
    }
}

#[tokio::test]
async fn content_that_flows_is_not_bounded_and_none_at_all_is_known_at_once() {
    let setting = Setting::new().await;
    let layer = setting.layer().streaming();
    let long = "x".repeat(2 * 1024 * 1024);
    let halves = long.split_at(1024 * 1024);
    let (status, seen, ended) =
        flowing(&setting, &layer, &Profile::LUMO_SDK, &long, &[halves.0, halves.1]).await;
    assert_eq!((status, seen.len(), ended), (StatusCode::OK, 2, true));
    let answer = setting.get(&setting.token("read:files").await).await.to(&layer).await;
    answer.served();
    assert_eq!(answer.json()["content_bound"], true);
    // What needs no content is refused all the same.
    setting.call(Method::GET, "/files/a", "", None).to(&layer).await.unauthenticated("invalid_signature");
}

/// The instance that was polled ready is the one that is called.
#[tokio::test]
async fn a_service_is_called_where_it_is_ready() {
    use std::task::Context;
    use tower::Service;

    /// Ready once per `poll_ready`.
    #[derive(Default)]
    struct Fussy(bool, Arc<AtomicUsize>);

    impl Clone for Fussy {
        fn clone(&self) -> Self {
            Self(false, self.1.clone())
        }
    }

    impl Service<Request<CheckedBody<Full<Bytes>>>> for Fussy {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0 = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<CheckedBody<Full<Bytes>>>) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "it was not asked whether it is ready");
            self.1.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(Response::new(Full::default())))
        }
    }

    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let (fussy, calls) = (Fussy::default(), Arc::new(AtomicUsize::new(0)));
    let mut service = setting.layer().layer(Fussy(fussy.0, calls.clone()));
    for _ in 0..3 {
        let request = setting.get(&token).await.request();
        assert_eq!(service.ready().await.unwrap().call(request).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    drop(echo());
}
