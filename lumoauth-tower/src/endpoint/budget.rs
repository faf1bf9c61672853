//! An agent's own budget, and what it reserves of it.

use http::{HeaderValue, StatusCode, header};
use lumoauth_core::{
    budget::{COUNTERS, Meter, MicroUsd},
    server::{ApiError, Reservation, ReservationRequest, SettleRequest},
    spending::Remaining,
    wire::{WireError, view},
};
use serde_json::{Map, Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// GET `agents/me/budget`.
pub(crate) async fn budget(call: Call) -> Result<Reply, WireError> {
    let agent = call.agent()?;
    let usage = call.server.usage(call.org(), agent).await.map_err(refuse)?;
    let held = call.server.held(call.org(), agent).await.map_err(refuse)?;
    let now = call.server.now();
    let mut body = view::budget(&agent.budget, &usage);
    let resets: Map<String, Value> = COUNTERS
        .into_iter()
        .map(|(meter, window)| {
            let name = match meter {
                Meter::Tokens => "tokens",
                Meter::Calls => "api_calls",
                Meter::MicroUsd => "cost_usd",
            };
            (name.to_owned(), window.end(now).to_string().into())
        })
        .collect();
    body["held"] = json!({
        "tokens": held.tokens,
        "api_calls": held.calls,
        "cost_usd": MicroUsd::from_micros(held.micro_usd).to_string(),
    });
    body["remaining"] = view::remaining(&agent.budget, &usage);
    body["resets_at"] = Value::Object(resets);
    Ok(reply::budgeted(&body, &Remaining::of(&agent.budget, &usage, now)))
}

/// POST `agents/me/budget/reservations`.
pub(crate) async fn reserve(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: ReservationRequest = call.json()?;
    let caller = call.caller()?;
    let limits = call.rate_limits;
    let questions = limits.map(|limits| limits.approval_limit());
    let open = call.server.open_reservation(call.org(), principal, agent, &request, &caller, questions);
    let reservation = match (open.await, limits) {
        (Ok(reservation), _) => reservation,
        (Err(error @ ApiError::TooManyQuestions { admission, .. }), Some(limits)) => {
            let mut reply = reply::error(&refuse(error));
            limits.approvals_left(admission).write(reply.headers_mut());
            return Ok(reply);
        }
        (Err(error), _) => return Err(refuse(error)),
    };
    let status = match (reservation.is_pending(), reservation.new) {
        (true, _) => StatusCode::ACCEPTED,
        (false, true) => StatusCode::CREATED,
        (false, false) => StatusCode::OK,
    };
    let mut reply = answer(&call, status, &reservation)?;
    if let (Some(limits), Some(admission)) = (limits, reservation.questions) {
        limits.approvals_left(admission).write(reply.headers_mut());
    }
    Ok(reply)
}

/// GET `agents/me/budget/reservations/{}`.
pub(crate) async fn reservation(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let reservation =
        call.server.reservation(call.org(), principal, agent, call.name()).await.map_err(refuse)?;
    answer(&call, StatusCode::OK, &reservation)
}

/// POST `agents/me/budget/reservations/{}/settle`.
pub(crate) async fn settle(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: SettleRequest = call.json()?;
    let caller = call.caller()?;
    let settle = call.server.settle_reservation(call.org(), principal, agent, call.name(), &request, &caller);
    answer(&call, StatusCode::OK, &settle.await.map_err(refuse)?)
}

/// POST `agents/me/budget/reservations/{}/release`.
pub(crate) async fn release(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let caller = call.caller()?;
    let release = call.server.release_reservation(call.org(), principal, agent, call.name(), &caller);
    answer(&call, StatusCode::OK, &release.await.map_err(refuse)?)
}

/// How soon to ask again for what a human has to decide, in seconds.
const POLL: HeaderValue = HeaderValue::from_static("2");

fn answer(call: &Call, status: StatusCode, reservation: &Reservation) -> Result<Reply, WireError> {
    let body = reservation.to_json(call.prefix());
    let mut reply = reply::with_rate_limit(reply::json(status, &body), &reservation.remaining);
    if reservation.is_pending() {
        reply.headers_mut().insert(header::RETRY_AFTER, POLL);
    }
    Ok(reply)
}
