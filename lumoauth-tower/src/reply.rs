//! Responses: JSON with the right headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use lumoauth_core::{
    clock::Timestamp,
    server::{ApiError, UsageReport},
    spending::Remaining,
    wire::{Tagged, WireError},
};
use serde::Serialize;

/// A response with a whole body.
pub(crate) type Reply = Response<Bytes>;

/// JSON that nobody may store: the default for everything that depends on who asks.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let mut reply = public_json(status, body);
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    reply
}

/// A 200 of [`json`].
pub(crate) fn ok(body: &impl Serialize) -> Reply {
    json(StatusCode::OK, body)
}

/// A 200 of [`json`] to a call that a budget was charged for.
pub(crate) fn budgeted(body: &impl Serialize, remaining: &Remaining) -> Reply {
    with_rate_limit(ok(body), remaining)
}

/// What was used, at `now`.
pub(crate) fn usage(report: &UsageReport, now: Timestamp) -> Reply {
    budgeted(&report.to_json(), &Remaining::of(&report.policy, &report.usage, now))
}

/// `reply` with the `RateLimit` headers of the calls that are left.
pub(crate) fn with_rate_limit<B>(mut reply: Response<B>, remaining: &Remaining) -> Response<B> {
    insert_all(reply.headers_mut(), remaining.rate_limit_headers().into_iter().flatten());
    reply
}

/// `reply` with the version of `record` that it shows.
pub(crate) fn tagged(mut reply: Reply, record: &impl Tagged) -> Reply {
    if let Ok(tag) = HeaderValue::try_from(record.entity_tag().header_value()) {
        reply.headers_mut().insert(header::ETAG, tag);
    }
    reply
}

fn insert_all(headers: &mut HeaderMap, entries: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in entries {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Public metadata: cacheable, readable from any origin.
pub(crate) fn metadata(body: &impl Serialize) -> Reply {
    let mut reply = public_json(StatusCode::OK, body);
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    reply
}

/// The answer to a CORS preflight for public metadata.
pub(crate) fn preflight() -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    reply
}

/// An error, with its headers.
pub(crate) fn error(error: &WireError) -> Reply {
    let mut reply = json(error.status, &error.body());
    let headers = reply.headers_mut();
    if let Some(seconds) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    insert_all(headers, error.rate_limit.iter().flat_map(|headers| headers.iter().cloned()));
    if let Some(challenge) = &error.challenge
        && let Ok(value) = HeaderValue::from_str(&challenge.header_value())
    {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    if let Some(missing) = error.missing_details()
        && let Ok(value) = HeaderValue::try_from(missing)
    {
        headers.insert(HeaderName::from_static("insufficient-authorization-details"), value);
    }
    reply
}

/// Text of another type, as a download.
pub(crate) fn download(content_type: &'static str, file_name: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Bytes::from(body));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(file_name));
    reply
}

/// The answer to an error of the core; what is our fault is logged with its cause.
pub(crate) fn fail(cause: &ApiError) -> Reply {
    error(&log_outage(cause, cause.is_outage(), cause.to_wire()))
}

/// Logs an outage with its chain of causes, which clients never see.
pub(crate) fn log_outage(
    error: &(dyn std::error::Error + 'static),
    outage: bool,
    wire: WireError,
) -> WireError {
    if outage {
        tracing::error!(error, "request failed");
    }
    wire
}

fn public_json(status: StatusCode, body: &impl Serialize) -> Reply {
    const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
    // Bodies are made of strings, numbers and lists; there is nothing in them that cannot be written.
    let mut text = Vec::with_capacity(1024);
    if serde_json::to_writer(&mut text, body).is_err() {
        text = b"{}".to_vec();
    }
    let mut reply = Response::new(Bytes::from(text));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    reply
}
