//! Charging callers at the authorization server that they come from.

use std::{fmt, mem, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_timer::Delay;
use http::{HeaderMap, StatusCode, header};
use lumoauth_core::{
    audit::Origin,
    budget::{BudgetPolicy, MicroUsd, Usage, Window},
    json,
    principal::{Identity, Principal, RemoteCaller, RemoteKind},
    secret::Secret,
    spending::{Budgets, CallsLeft, Exhausted, Held, Receipt, Remaining, Spend, SpendError},
};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

use super::{Answer, RemoteError, ServiceAccount};

/// How often something is tried while a caller waits. Each thing has an id, so that a repetition is none.
const TRIES: u32 = 3;

/// How often something is tried that nobody waits for: with the pauses between, for more than three minutes.
const PATIENT_TRIES: u32 = 12;

/// How long to wait before the second attempt. Each pause is twice the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// How many releases may be tried that often at a time. Each call that is refused while the server is away makes one; of the
/// settlements, there are no more than calls were let through before.
const PATIENT_RELEASES: usize = 1000;

/// How long after nobody waits for a reservation any more it has come about, if it does.
const STILL_MADE: Duration = Duration::from_secs(2);

/// How often to ask what a human said.
const POLL: Duration = Duration::from_secs(1);

/// The budgets at a [`RemoteServer`](super::RemoteServer), by reservations over HTTP.
///
/// The service holds what a call will use with its own credential, names the caller by its token, and settles what was used.
/// Everybody pays who pays for the caller's calls: the agent, the earlier agents of its chain, and the envelopes of its token.
/// The service itself pays nothing.
///
/// - An attempt whose outcome is not known is repeated under the same id, three times in all; then the call is refused (503),
///   and what may have been held for it is released.
/// - What was used, and what nobody will use, is told again and again for some minutes: the server may restart meanwhile.
/// - Callers that are no agents have no budget, and nothing is asked.
/// - It charges by access tokens. Whoever comes with an auth token of AAuth is charged where that is issued, by
///   [`Guard::behind_aauth`](crate::Guard::behind_aauth), and refused here.
/// - A caller of whom introspection said that a budget is used up is refused without asking.
/// - A cost above the approval threshold is refused, unless the service waits for a human
///   ([`RemoteBudgets::waiting_for_approval`]).
/// - What is not settled when the lease ends counts as used. It may be settled later all the same.
/// - Amounts above what the server takes at once (2^53, a billion dollars) are charged as that much. A model whose name it does
///   not take is not allowed.
#[derive(Clone)]
#[must_use]
pub struct RemoteBudgets {
    account: ServiceAccount,
    lease: Duration,
    patience: Duration,
    releases: Arc<Semaphore>,
}

impl RemoteBudgets {
    /// Charges with this credential, which must be an agent's, and leases of ten minutes.
    pub fn new(account: ServiceAccount) -> Self {
        let releases = Arc::new(Semaphore::new(PATIENT_RELEASES));
        Self { account, lease: Duration::from_secs(600), patience: Duration::ZERO, releases }
    }

    /// Holds for `lease`, one second to one hour: longer than a call lasts.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(Duration::from_secs(1), Duration::from_secs(3600));
        self
    }

    /// Has a human asked about calls above the approval threshold, who sees caller, service, model and amount, and waits for the
    /// answer: a call that is denied, or about which nobody says anything within `patience`, is refused.
    ///
    /// Approvals expire after five minutes, so there is no use in waiting longer. The amount is held meanwhile, and free again if
    /// the call is refused or its future is dropped. A caller that is stopped meanwhile is refused.
    pub fn waiting_for_approval(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Posts `body` to a route of reservations, until the outcome is known or that often.
    async fn post(&self, path: &str, body: &Secret, tries: u32) -> Result<Answer, RemoteError> {
        let mut pause = PAUSE;
        for _ in 1..tries {
            match self.post_once(path, body).await {
                Err(failure) if failure.may_pass() => {}
                known => return known,
            }
            Delay::new(pause).await;
            pause *= 2;
        }
        self.post_once(path, body).await
    }

    async fn post_once(&self, path: &str, body: &Secret) -> Result<Answer, RemoteError> {
        let answer = self.posted(path, body).await?;
        if answer.status.is_server_error() {
            return Err(RemoteError::Status { what: "reservation", status: answer.status });
        }
        Ok(answer)
    }

    async fn posted(&self, path: &str, body: &Secret) -> Result<Answer, RemoteError> {
        let route = self.account.server.route(&format!("agents/me/budget/reservations{path}"));
        let bearer = self.account.bearer().await?;
        let answer = self.account.server.http().post_json(&route, &bearer, body).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Our own token has ended before its time: its keys or our credential changed.
        self.account.forget(&bearer);
        let bearer = self.account.bearer().await?;
        self.account.server.http().post_json(&route, &bearer, body).await
    }

    /// What becomes of the reservation of `body`, which waits for a human. It is asked for again and again with the token of the
    /// caller, so that what the caller loses meanwhile is seen.
    async fn decided(&self, body: &Secret) -> Result<Answer, SpendError> {
        let mut failure = None;
        let answer = timeout(self.patience, async {
            loop {
                Delay::new(POLL.min(self.patience / 2)).await;
                match self.post("", body, TRIES).await {
                    Ok(answer) if answer.status == StatusCode::ACCEPTED => failure = None,
                    // A server that restarts has not forgotten.
                    Err(error) if error.may_pass() => failure = Some(error),
                    decided => return decided,
                }
            }
        })
        .await;
        match (answer, failure) {
            (Ok(Ok(answer)), _) => Ok(answer),
            (Ok(Err(error)), _) | (Err(_), Some(error)) => Err(unavailable(error)),
            (Err(_), None) => Err(SpendError::ApprovalRequired),
        }
    }

    fn request(&self, caller: &RemoteCaller, spend: &Spend, id: &str) -> Secret {
        let mut body = amounts(&spend.usage);
        body["id"] = id.into();
        body["lease_seconds"] = self.lease.as_secs().into();
        body["subject_token"] = caller.token.expose().into();
        if let Some(model) = &spend.model {
            body["model"] = model.as_str().into();
        }
        if !self.patience.is_zero() {
            body["wait_for_approval"] = true.into();
        }
        Secret::from(body.to_string())
    }

    /// Frees what nobody will use. If it cannot be freed, its lease ends.
    async fn release(&self, id: &str) {
        let patient = self.releases.try_acquire();
        let tries = if patient.is_ok() { PATIENT_TRIES } else { TRIES };
        let (path, body) = (format!("/{id}/release"), Secret::from("{}"));
        let mut released = self.post(&path, &body, tries).await;
        if released.as_ref().is_ok_and(|answer| answer.status == StatusCode::NOT_FOUND) {
            // The server may still be at it, if nobody waited for its answer.
            Delay::new(STILL_MADE).await;
            released = self.post(&path, &body, tries).await;
        }
        if let Err(error) = released {
            tracing::warn!(error = &error as &dyn std::error::Error, "a reservation was not released");
        }
    }

    fn refusal(answer: &Answer) -> SpendError {
        let unusable = || {
            let error = RemoteError::Status { what: "reservation", status: answer.status };
            SpendError::Unavailable(error.into())
        };
        let Ok(body) = json::parse::<Value>(&answer.body) else { return unusable() };
        let retry_after = answer.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        match (answer.status, body["error"].as_str()) {
            // The only thing that is counted here are questions to people, under whoever pays.
            (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_exceeded")) => {
                retry_after.map_or_else(unusable, |retry_after| SpendError::TooManyQuestions { retry_after })
            }
            (StatusCode::TOO_MANY_REQUESTS, Some("budget_exceeded")) => {
                let remaining = Remaining { calls: calls_left(&answer.headers), ..Remaining::default() };
                retry_after
                    .and_then(|seconds| Exhausted::from_wire(&body, remaining, seconds))
                    .map_or_else(unusable, SpendError::Exceeded)
            }
            (StatusCode::FORBIDDEN, Some("model_not_allowed")) => SpendError::ModelNotAllowed,
            (StatusCode::FORBIDDEN, Some("approval_required")) => SpendError::ApprovalRequired,
            (StatusCode::BAD_REQUEST, _) if body["details"].get("subject_token").is_some() => {
                SpendError::NotAccepted
            }
            (StatusCode::BAD_REQUEST, _) if body["details"].get("model").is_some() => {
                SpendError::ModelNotAllowed
            }
            _ => unusable(),
        }
    }
}

impl fmt::Debug for RemoteBudgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBudgets")
            .field("account", &self.account)
            .field("lease", &self.lease)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// A reservation that is asked for, or waits for a human. If nobody waits any more, it is released.
struct Asked {
    budgets: RemoteBudgets,
    id: String,
    is_over: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (budgets, id) = (self.budgets.clone(), mem::take(&mut self.id));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { budgets.release(&id).await })),
            Err(_) => tracing::warn!("no runtime to release a reservation in: it is held until it expires"),
        }
    }
}

#[async_trait]
impl Budgets for RemoteBudgets {
    async fn reserve(&self, caller: &Principal, spend: &Spend, _: &Origin) -> Result<Held, SpendError> {
        let caller = match &caller.identity {
            Identity::Remote(caller) if caller.issuer == self.account.server.issuer() => caller,
            // Whoever is charged nowhere must not pass.
            Identity::Remote(_)
            | Identity::Agent(_)
            | Identity::Client(_)
            | Identity::ApiKey(_)
            | Identity::User(_) => {
                let text = "the caller's token was not verified at this authorization server";
                return Err(SpendError::Unavailable(text.into()));
            }
        };
        if caller.kind != RemoteKind::Agent {
            return Ok(Held::new(Remaining::default(), Receipt::Nothing));
        }
        if caller.over_budget {
            let now = self.account.server.now();
            let hour = Window::Hour.end(now).since(now).as_secs();
            return Err(SpendError::UsedUp { retry_after: hour + 1 });
        }
        let id = Secret::generate("call-").expose().to_owned();
        let body = self.request(caller, spend, &id);
        // From the question on: the caller may go while it is under way, and all answers may be lost.
        let mut asked = Asked { budgets: self.clone(), id: id.clone(), is_over: false };
        let mut answer = self.post("", &body, TRIES).await.map_err(unavailable)?;
        asked.is_over = answer.status != StatusCode::ACCEPTED;
        if !asked.is_over {
            answer = self.decided(&body).await?;
            // After any other answer the amount is still parked.
            asked.is_over = answer.status == StatusCode::OK;
        }
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {
                let body: Value = json::parse(&answer.body)
                    .map_err(|_| unavailable(RemoteError::Unusable("reservation")))?;
                match body["status"].as_str() {
                    Some("held") => {
                        Ok(Held::new(remaining(&body, &answer.headers), Receipt::Reservation(id)))
                    }
                    Some("denied") => Err(SpendError::ApprovalDenied),
                    // Nobody said anything in time.
                    Some("expired") => Err(SpendError::ApprovalRequired),
                    _ => Err(unavailable(RemoteError::Unusable("reservation"))),
                }
            }
            _ => Err(Self::refusal(&answer)),
        }
    }

    async fn settle(&self, held: Held, used: &Usage) -> Result<(), SpendError> {
        let id = match held.receipt {
            Receipt::Nothing => return Ok(()),
            Receipt::Lines { .. } => return Err(SpendError::Unavailable("held somewhere else".into())),
            Receipt::Reservation(id) => id,
        };
        let body = Secret::from(amounts(used).to_string());
        let answer = self.post(&format!("/{id}/settle"), &body, PATIENT_TRIES).await.map_err(unavailable)?;
        match answer.status {
            StatusCode::OK => Ok(()),
            status => Err(unavailable(RemoteError::Status { what: "settlement", status })),
        }
    }
}

fn unavailable(error: RemoteError) -> SpendError {
    SpendError::Unavailable(error.into())
}

/// What is more than the server takes at once is as much as it takes: estimates and reports of usage may come from anywhere.
fn amounts(usage: &Usage) -> Value {
    json!({
        "tokens": usage.tokens.min(BudgetPolicy::MAX_COUNT),
        "api_calls": usage.calls.min(BudgetPolicy::MAX_COUNT),
        "cost_usd": MicroUsd::from_micros(usage.micro_usd.min(MicroUsd::MAX)).to_string(),
    })
}

fn remaining(body: &Value, headers: &HeaderMap) -> Remaining {
    let left = &body["remaining"];
    let money = left["cost_usd"].as_str().and_then(|text| text.parse::<MicroUsd>().ok());
    Remaining {
        tokens: left["tokens"].as_u64(),
        calls: calls_left(headers),
        micro_usd: money.map(MicroUsd::micros),
    }
}

/// The calls of the hour, as [`Remaining::rate_limit_headers`] writes them.
fn calls_left(headers: &HeaderMap) -> Option<CallsLeft> {
    let number = |header: &str, parameter: &str| {
        let mut parts = headers.get(header)?.to_str().ok()?.strip_prefix("\"calls\";")?.split(';');
        parts.find_map(|part| part.strip_prefix(parameter)?.strip_prefix('='))?.parse().ok()
    };
    Some(CallsLeft {
        max: number("ratelimit-policy", "q")?,
        left: number("ratelimit", "r")?,
        resets_in: number("ratelimit", "t")?,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_is_left_of_the_hour_is_read_as_it_is_written() {
        let left = CallsLeft { max: 500, left: 12, resets_in: 77 };
        let mut headers = HeaderMap::new();
        assert_eq!(calls_left(&headers), None);
        let remaining = Remaining { calls: Some(left), ..Remaining::default() };
        for (name, value) in remaining.rate_limit_headers().unwrap() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
        assert_eq!(calls_left(&headers), Some(left));
        headers.insert("ratelimit", HeaderValue::from_static("\"calls\";r=many;t=1"));
        assert_eq!(calls_left(&headers), None);
    }
}
