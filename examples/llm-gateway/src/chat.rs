//! POST `/v1/chat/completions`: what a call costs at most, and what it used.

use std::{collections::HashMap, sync::Arc};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use lumoauth_core::{budget::Usage, json, secret::Secret, spending::Spend, wire::WireError};
use lumoauth_tower::{Rejection, UsageMeter};
use serde_json::{Value, json};

use crate::relay;

pub(crate) struct Gateway {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) key: Secret,
    pub(crate) prices: HashMap<String, Price>,
}

/// Of one model: millionths of a US dollar for a million tokens of the prompt and of the answer, and the longest answer.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    input: u32,
    output: u32,
    max_output: u32,
}

impl Price {
    pub(crate) fn of(&self, prompt: u64, answer: u64) -> Usage {
        let priced = |tokens: u64, price: u32| u128::from(tokens) * u128::from(price);
        let cost = (priced(prompt, self.input) + priced(answer, self.output)).div_ceil(1_000_000);
        let micro_usd = cost.try_into().unwrap_or(u64::MAX);
        Usage { tokens: prompt.saturating_add(answer), calls: 1, micro_usd }
    }

    /// What an answer or a chunk of one says in its `usage`.
    pub(crate) fn told(&self, answer: &Value) -> Option<Usage> {
        let usage = &answer["usage"];
        Some(self.of(usage["prompt_tokens"].as_u64()?, usage["completion_tokens"].as_u64()?))
    }
}

/// A request, read.
#[derive(Clone)]
pub(crate) struct Call {
    /// What the provider gets: written anew, so that it reads what was charged.
    body: Bytes,
    pub(crate) price: Price,
    /// How many tokens it is at most: in some scripts each byte is one.
    pub(crate) prompt: u64,
    /// The client did not ask for the last chunk, which tells what was used.
    pub(crate) hides_usage: bool,
}

impl Call {
    fn read(prices: &HashMap<String, Price>, body: &[u8]) -> Result<(Self, Spend), WireError> {
        let mut body: Value =
            json::parse(body).map_err(|_| WireError::invalid_request("The body is not JSON."))?;
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let price = *prices.get(&model).ok_or_else(|| {
            WireError::new(StatusCode::NOT_FOUND, "model_not_found", "This model has no price here.")
        })?;
        // How many tokens an image is, or what is only referred to, nobody knows here.
        let text = |part: &Value| matches!(part["type"].as_str(), Some("text" | "refusal"));
        let texts = |content: &Value| content.as_array().is_none_or(|parts| parts.iter().all(text));
        let mut messages = body["messages"].as_array().into_iter().flatten();
        if !messages.all(|it| it["audio"].is_null() && texts(&it["content"])) {
            return Err(WireError::invalid_request("Only text can be priced here."));
        }
        let number = |name: &str| match (&body[name], body[name].as_u64()) {
            (Value::Null, _) => Ok(None),
            (_, Some(number @ 1..)) => Ok(Some(number)),
            _ => Err(WireError::invalid_request(format!("{name} is not a positive number."))),
        };
        let longest = number("max_completion_tokens")?.max(number("max_tokens")?).unwrap_or(u64::MAX);
        let answers = longest.min(price.max_output.into()) * number("n")?.unwrap_or(1).min(128);
        let hides_usage = body["stream"] == true && body["stream_options"]["include_usage"] != true;
        if hides_usage {
            match &mut body["stream_options"] {
                Value::Object(options) => drop(options.insert("include_usage".to_owned(), true.into())),
                nothing => *nothing = json!({ "include_usage": true }),
            }
        }
        let body = Bytes::from(body.to_string());
        let prompt = body.len() as u64;
        let spend = Spend::new(price.of(prompt, answers)).with_model(model);
        Ok((Self { body, price, prompt, hides_usage }, spend))
    }
}

/// Reads the request, for the layers inside: what it may cost, and what to forward.
pub(crate) async fn read(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 4 << 20).await else {
        return refusal(&WireError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too long."));
    };
    match Call::read(&gateway.prices, &body) {
        Ok((call, spend)) => {
            parts.extensions.insert(spend);
            parts.extensions.insert(call);
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(error) => refusal(&error),
    }
}

/// Asks the provider, and records what that used. What is not recorded was used as estimated: if the client goes away before
/// the provider answers, nobody knows better.
pub(crate) async fn forward(
    State(gateway): State<Arc<Gateway>>,
    Extension(call): Extension<Call>,
    Extension(meter): Extension<UsageMeter>,
) -> Response {
    ask(&gateway, call, &meter).await.unwrap_or_else(|error| {
        if error.is_connect() {
            meter.record(Usage::ONE_CALL);
        }
        tracing::error!(error = %error.without_url(), "the provider cannot be used");
        refusal(&WireError::new(StatusCode::BAD_GATEWAY, "upstream_error", "The provider cannot be used."))
    })
}

async fn ask(gateway: &Gateway, call: Call, meter: &UsageMeter) -> Result<Response, reqwest::Error> {
    let request = gateway.client.post(&gateway.url).bearer_auth(gateway.key.expose());
    let request = request.header(header::CONTENT_TYPE, "application/json").body(call.body.clone());
    let answer = request.send().await?;
    let status = answer.status();
    if !status.is_success() {
        meter.record(Usage::ONE_CALL);
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // It is about our key, and may quote it.
        answer.error_for_status_ref()?;
    }
    let mut response = status.into_response();
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER, HeaderName::from_static("x-request-id")] {
        response.headers_mut().extend(answer.headers().get(&name).map(|value| (name, value.clone())));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    *response.body_mut() = if status.is_success() && kind.starts_with(b"text/event-stream") {
        Body::from_stream(relay::lines(answer, call, meter.clone()))
    } else {
        let text = answer.bytes().await?;
        let told = serde_json::from_slice(&text).ok().and_then(|answer| call.price.told(&answer));
        told.filter(|_| status.is_success()).into_iter().for_each(|used| meter.record(used));
        Body::from(text)
    };
    Ok(response)
}

/// What layers refuse, as OpenAI's clients read it.
pub(crate) async fn in_their_words(mut response: Response) -> Response {
    if let Some(rejection) = response.extensions().get::<Rejection>() {
        let said = refusal(&rejection.wire);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(said.headers().clone());
        *response.body_mut() = said.into_body();
    }
    response
}

fn refusal(error: &WireError) -> Response {
    let WireError { status, error: code, description, details, .. } = error;
    let said =
        json!({ "message": description, "type": code, "param": null, "code": code, "details": details });
    (*status, Json(json!({ "error": said }))).into_response()
}
