//! Reading request bodies: bounded in size and time, then parsed strictly.

use std::{mem, task::Poll, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_timer::Delay;
use futures_util::future::{Either, select};
use http::{HeaderMap, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use lumoauth_core::{
    json,
    wire::{InvalidParams, Params, WireError},
};
use serde::de::DeserializeOwned;

/// The largest body that is read.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// The whole body.
pub(crate) async fn read<B: Body>(headers: &HeaderMap, body: B) -> Result<Bytes, WireError> {
    read_up_to(MAX_BODY, headers, body).await
}

/// The whole body, if it is not larger than this.
pub(crate) async fn read_up_to<B: Body>(
    max: usize,
    headers: &HeaderMap,
    body: B,
) -> Result<Bytes, WireError> {
    let too_large = || {
        let text = format!("The body is larger than {} KiB.", max / 1024);
        WireError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", text)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > max as u64) {
        return Err(too_large());
    }
    // Most bodies are there already or absent; a timer is only made for those that are not.
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let collect = async move {
        let mut body = std::pin::pin!(body);
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.as_mut().frame().await {
            let frame = frame.map_err(|_| WireError::invalid_request("The body broke off."))?;
            let Ok(mut data) = frame.into_data() else { continue };
            if first.len() + whole.len() + data.remaining() > max {
                return Err(too_large());
            }
            let data = data.copy_to_bytes(data.remaining());
            // Nearly every body is one frame, which is passed on as it is.
            if first.is_empty() && whole.is_empty() {
                first = data;
            } else {
                whole.extend_from_slice(&mem::take(&mut first));
                whole.extend_from_slice(&data);
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    let mut collect = std::pin::pin!(collect);
    if let Poll::Ready(result) = futures_util::poll!(collect.as_mut()) {
        return result;
    }
    match select(collect, Delay::new(BODY_TIMEOUT)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => {
            let text = "The body did not arrive in time.";
            Err(WireError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request", text))
        }
    }
}

/// A JSON body; an empty one counts as `{}`.
pub(crate) fn parse_json<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, WireError> {
    match media_type(headers).as_deref() {
        None | Some("application/json") => {}
        Some(_) if body.is_empty() => {}
        Some(_) => {
            return Err(WireError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "invalid_request",
                "The body must be application/json.",
            ));
        }
    }
    let text = if body.is_empty() { &b"{}"[..] } else { body };
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(WireError::invalid_request("The body must be a JSON object."));
    }
    let refused = |text: String| WireError::new(StatusCode::BAD_REQUEST, "validation_error", text);
    json::check(text).map_err(|error| refused(format!("The body is not acceptable: {error}.")))?;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // The member, and what serde expected of it: nothing of ours but the names that the API documents.
        let member = error.path().to_string();
        let problem = error.inner().to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default();
        refused(format!("{member} is not acceptable: {problem}.")).with_detail(&member, problem)
    })
}

/// The parameters of an OAuth request: a form, or JSON.
pub(crate) fn parse_params(headers: &HeaderMap, body: &Bytes) -> Result<Params, InvalidParams> {
    match media_type(headers).as_deref() {
        Some("application/json") => Params::from_json(body),
        None | Some("application/x-www-form-urlencoded") => Params::from_form(body),
        Some(_) => Err(InvalidParams::Malformed),
    }
}

/// Whether the body says that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).as_deref() == Some("application/json")
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("invalid");
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
