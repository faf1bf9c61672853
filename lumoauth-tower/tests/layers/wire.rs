//! Settling through a real HTTP server, which decides when a body is read and when it is dropped.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::stream;
use lumoauth_core::budget::Usage;
use lumoauth_tower::{AuthenticateLayer, BudgetLayer, UsageMeter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::setting::{Reached, Setting};

const USED: Usage = Usage { tokens: 77, calls: 1, micro_usd: 0 };

/// A service with a short answer of known length, one in pieces, and one without an end.
async fn serve(setting: &Setting, dropped: Reached) -> String {
    struct Dropped(Reached);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.now();
        }
    }
    let short = async |Extension(meter): Extension<UsageMeter>| {
        meter.record(USED);
        "short"
    };
    let pieces = async |Extension(meter): Extension<UsageMeter>| {
        let pieces = ["a", "b"].map(|text| Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes())));
        meter.record(USED);
        Body::from_stream(stream::iter(pieces))
    };
    let endless = move |Extension(meter): Extension<UsageMeter>| async move {
        let witness = Dropped(dropped);
        Body::from_stream(stream::unfold((meter, witness), async |state| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            state.0.record(USED);
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"more")), state))
        }))
    };
    let app = Router::new()
        .route("/short", get(short))
        .route("/pieces", get(pieces))
        .route("/endless", get(endless))
        .layer(BudgetLayer::new(Arc::new(setting.server.clone())))
        .layer(AuthenticateLayer::new(setting.server.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn request(address: &str, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    text
}

#[tokio::test]
async fn whoever_has_read_an_answer_sees_it_settled() {
    for (path, end) in [("/short", "short"), ("/pieces", "\r\n0\r\n\r\n")] {
        let setting = Setting::new().await;
        let address = serve(&setting, Reached::default()).await;
        let token = setting.token(&setting.root).await;
        let mut stream = request(&address, path, &token).await;
        let text = read_until(&mut stream, end).await;
        assert_eq!(text.contains("content-length: 5\r\n"), path == "/short", "{text}");
        assert_eq!(setting.used(&setting.root).await, USED, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_charged_what_was_used() {
    let setting = Setting::new().await;
    let dropped = Reached::default();
    let address = serve(&setting, dropped.clone()).await;
    let token = setting.token(&setting.root).await;
    let mut stream = request(&address, "/endless", &token).await;
    read_until(&mut stream, "more").await;
    assert_eq!(setting.used(&setting.root).await, Usage::ONE_CALL, "while it streams, what is held stands");
    drop(stream);
    setting.comes_to(&setting.root, USED).await;
    assert_eq!(dropped.times(), 1);
}

#[tokio::test]
async fn an_answer_to_head_is_settled() {
    let setting = Setting::new().await;
    let address = serve(&setting, Reached::default()).await;
    let token = setting.token(&setting.root).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!("HEAD /short HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    setting.comes_to(&setting.root, USED).await;
}
