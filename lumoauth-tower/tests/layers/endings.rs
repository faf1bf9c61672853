//! The ways in which a call may end, each of which settles it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use lumoauth_core::budget::Usage;
use lumoauth_tower::UsageMeter;

use crate::{
    budget::{HELD, send},
    setting::{Setting, with_token},
};

const USED: Usage = Usage { tokens: 30, calls: 1, micro_usd: 5 };

/// A body of these frames, which knows how long it is if a test says so, and records as it goes.
#[derive(Default)]
struct Frames {
    frames: VecDeque<Result<Frame<Bytes>, io::Error>>,
    exact: Option<u64>,
    knows_its_end: bool,
    meter: Option<UsageMeter>,
    /// After the frames nothing comes any more, and no end either.
    hangs: bool,
}

impl Frames {
    fn data(texts: &[&'static str]) -> Self {
        let frames = texts.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))).collect();
        Self { frames, ..Self::default() }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(meter) = &self.meter {
            let so_far = meter.recorded().map_or(0, |used| used.tokens);
            meter.record(Usage { tokens: so_far + 10, ..USED });
        }
        if self.frames.is_empty() && self.hangs {
            return Poll::Pending;
        }
        let frame = self.frames.pop_front();
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.exact = self.exact.map(|exact| exact - length);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The answer with this body to a call of the first agent. The body has the meter if it wants it.
async fn answer(
    setting: &Setting,
    make: impl Fn(UsageMeter) -> Frames + Clone + Send + 'static,
) -> Response<lumoauth_tower::MeteredBody<Body>> {
    let request = with_token(&setting.token(&setting.root).await);
    send(setting, request, move |request| {
        let body = make(request.extensions().get::<UsageMeter>().unwrap().clone());
        async { Response::new(Body::new(body)) }
    })
    .await
}

#[tokio::test]
async fn at_the_end_of_a_stream_what_was_recorded_last_counts() {
    let setting = Setting::new().await;
    let answer = answer(&setting, |meter| Frames { meter: Some(meter), ..Frames::data(&["a", "b"]) }).await;
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(setting.used(&setting.root).await, HELD, "while it streams, what is held stands");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    assert!(!body.is_end_stream());
    assert!(body.frame().await.is_none());
    assert_eq!(setting.used(&setting.root).await, USED);
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test]
async fn whoever_has_the_last_frame_sees_it_settled() {
    let setting = Setting::new().await;
    let answer = answer(&setting, |meter| {
        meter.record(USED);
        Frames { exact: Some(3), knows_its_end: true, ..Frames::data(&["a", "bc"]) }
    })
    .await;
    let mut body = answer.into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!((body.size_hint().exact(), setting.used(&setting.root).await), (Some(2), HELD));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "bc");
    assert_eq!(setting.used(&setting.root).await, USED);
    assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
}

#[tokio::test]
async fn an_answer_without_a_body_is_settled_before_it_is_sent() {
    let setting = Setting::new().await;
    let answer = answer(&setting, |meter| {
        meter.record(USED);
        Frames { knows_its_end: true, exact: Some(0), ..Frames::default() }
    })
    .await;
    assert_eq!(setting.used(&setting.root).await, USED);
    assert!(answer.into_body().is_end_stream());
}

#[tokio::test]
async fn trailers_arrive() {
    for knows_its_end in [false, true] {
        let setting = Setting::new().await;
        let answer = answer(&setting, move |meter| {
            let mut frames = Frames { meter: Some(meter), knows_its_end, ..Frames::data(&["a"]) };
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "1".parse().unwrap());
            frames.frames.push_back(Ok(Frame::trailers(trailers)));
            frames
        });
        let collected = answer.await.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-checksum"], "1");
        assert_eq!(setting.used(&setting.root).await.tokens, if knows_its_end { 20 } else { 30 });
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_midway_is_settled() {
    let setting = Setting::new().await;
    let answer = answer(&setting, |meter| {
        meter.record(USED);
        Frames { hangs: true, ..Frames::data(&["a"]) }
    });
    let mut body = answer.await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    drop(body);
    setting.comes_to(&setting.root, USED).await;
}

#[tokio::test]
async fn who_records_nothing_has_used_what_was_held() {
    let setting = Setting::new().await;
    drop(answer(&setting, |_| Frames { hangs: true, ..Frames::data(&["a"]) }).await);
    tokio::task::yield_now().await;
    assert_eq!(setting.used(&setting.root).await, HELD);
}

#[tokio::test]
async fn a_body_that_fails_is_settled() {
    let setting = Setting::new().await;
    let answer = answer(&setting, |meter| {
        meter.record(USED);
        let mut frames = Frames::data(&["a"]);
        frames.frames.push_back(Err(io::Error::other("broken")));
        frames
    });
    assert!(answer.await.into_body().collect().await.is_err());
    setting.comes_to(&setting.root, USED).await;
}

#[tokio::test]
async fn a_service_that_panics_is_settled() {
    let setting = std::sync::Arc::new(Setting::new().await);
    let request = with_token(&setting.token(&setting.root).await);
    let calling = setting.clone();
    let call = tokio::spawn(async move {
        let inner = |request: http::Request<()>| async move {
            request.extensions().get::<UsageMeter>().unwrap().record(USED);
            panic!("as a test does")
        };
        let response = send(&calling, request, inner).await;
        drop::<Result<_, Infallible>>(Ok(response));
    });
    assert!(call.await.unwrap_err().is_panic());
    setting.comes_to(&setting.root, USED).await;
}

#[tokio::test]
async fn a_request_that_is_given_up_before_its_answer_is_settled() {
    let setting = Setting::new().await;
    let request = with_token(&setting.token(&setting.root).await);
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    {
        let call = send(&setting, request, move |request| {
            request.extensions().get::<UsageMeter>().unwrap().record(USED);
            started.send(()).unwrap();
            pending::<Response<Body>>()
        });
        tokio::select! {
            _ = call => panic!("it has no answer"),
            _ = starts.recv() => {}
        }
    }
    setting.comes_to(&setting.root, USED).await;
}
