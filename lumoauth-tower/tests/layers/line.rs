//! The wire between a service and the authorization server, which counts what it carries and may break.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::StatusCode;
use lumoauth_core::server::AuthorizationServer;
use lumoauth_tower::LumoauthService;

use crate::setting::Setting;

/// What it carried, and how it breaks.
#[derive(Default)]
pub(crate) struct Line {
    seen: Mutex<Vec<String>>,
    /// How many requests are answered 503 without being looked at.
    pub(crate) down: AtomicU32,
    /// How many answers are lost after the request was served.
    pub(crate) lost: AtomicU32,
    /// Whether requests go in and nothing comes out.
    pub(crate) silent: AtomicBool,
}

impl Line {
    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn carry(State(line): State<Arc<Line>>, request: Request, next: Next) -> Response {
    line.seen.lock().unwrap().push(request.uri().path().to_owned());
    if line.silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let failed = || {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    if take(&line.down) {
        return failed();
    }
    let response = next.run(request).await;
    if take(&line.lost) { failed() } else { response }
}

impl Setting {
    /// Reached by others over the loopback too.
    pub(crate) async fn online() -> Self {
        Self::online_as(LumoauthService::new).await
    }

    /// The same, served like this.
    pub(crate) async fn online_as(serve: impl FnOnce(AuthorizationServer) -> LumoauthService) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let setting = Self::at(&format!("http://{}", listener.local_addr().unwrap())).await;
        let app = Router::new()
            .fallback_service(serve(setting.server.clone()))
            .layer(middleware::from_fn_with_state(setting.line.clone(), carry));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        setting
    }
}
