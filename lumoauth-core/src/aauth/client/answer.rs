//! The token endpoint, as an agent sees it.

use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{AAuthAgent, ClientError, IN_TIME, TOKEN_LIFE, Wanted};
use crate::{
    aauth::Confirmation,
    capability::Scope,
    clock::Timestamp,
    id::AAuthIdentifier,
    json,
    secret::Secret,
    token::{InvalidToken, foreign},
};

/// How long a question to a person waits if the authorization server does not say.
const QUESTION_LIFE: Duration = Duration::from_secs(600);

/// The longest error text that is handed on, in characters.
const MAX_TEXT: usize = 300;

/// A request to the token endpoint.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "agents make each of them")]
pub enum TokenRequest<'a> {
    /// What a resource asks for.
    Auth {
        /// What it asks for.
        wanted: &'a Wanted,
        /// Where a person's answer is to go, of those that are registered; without it, the only one.
        redirect_uri: Option<&'a str>,
    },
    /// What a person agreed to.
    Code {
        /// The person's answer.
        code: &'a Secret,
        /// Where it went.
        redirect_uri: &'a str,
        /// What it is the answer to.
        request_token: &'a Secret,
    },
    /// The same as before, for a resource that asks anew.
    Refresh {
        /// What came with the token before.
        refresh_token: &'a Secret,
        /// What the resource asks for.
        wanted: &'a Wanted,
    },
}

/// What the authorization server answers.
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "agents must act on either")]
pub enum TokenAnswer {
    /// An auth token.
    Token(AuthToken),
    /// A person must agree first.
    Consent(ConsentNeeded),
}

/// An auth token, and what gives the next one. Of use only to the agent whose key it is bound to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuthToken {
    /// The token.
    pub text: Secret,
    /// The resource that it is for.
    pub resource: AAuthIdentifier,
    /// What it is good for.
    pub scope: Scope,
    /// From when on it is not accepted.
    pub expires_at: Timestamp,
    /// What gives the next one.
    pub refresh_token: Option<Secret>,
    renew_at: Timestamp,
}

/// Where a person can agree, in their browser.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsentNeeded {
    /// Where the browser is to go. A `state` may be added to it, which comes back with the answer.
    pub auth_url: Secret,
    /// Names the question. It goes along with the code, so that no code is taken for the answer to another question.
    pub request_token: Secret,
    /// From when on the question is not open any more.
    pub expires_at: Timestamp,
    /// The resource that wants it.
    pub resource: AAuthIdentifier,
    /// What it asks for.
    pub scope: Scope,
}

impl AuthToken {
    /// Whether it is good at `now`, and for long enough to arrive.
    pub fn is_good(&self, now: Timestamp) -> bool {
        now < self.renew_at
    }

    /// Whether it is good for all of `scope`.
    pub fn covers(&self, scope: &Scope) -> bool {
        let held = self.scope.as_slice();
        scope.as_slice().iter().all(|wanted| held.iter().any(|held| held.covers(wanted)))
    }

    pub(super) fn header(&self) -> Result<HeaderValue, ClientError> {
        let header = HeaderValue::try_from(format!("Bearer {}", self.text.expose()));
        let mut header = header.map_err(|_| ClientError::AuthToken(InvalidToken::Malformed))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// Everything that an answer may have; what is not known is ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    auth_token: Option<Secret>,
    access_token: Option<Secret>,
    refresh_token: Option<Secret>,
    request_token: Option<Secret>,
    auth_url: Option<Secret>,
    authorization_uri: Option<Secret>,
    expires_in: Option<u64>,
    error: Option<String>,
    error_description: Option<String>,
    details: Value,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Value,
    agent: Option<AAuthIdentifier>,
    #[serde(default)]
    scope: Scope,
    exp: u64,
}

impl AAuthAgent {
    /// The request, signed, to the server that the agent trusts.
    ///
    /// # Errors
    /// [`ClientError`] if it cannot be signed.
    pub async fn token_request(
        &self,
        request: TokenRequest<'_>,
        now: Timestamp,
    ) -> Result<Request<Vec<u8>>, ClientError> {
        let body = match request {
            TokenRequest::Auth { wanted, redirect_uri } => {
                let resource_token = wanted.resource_token.expose();
                let mut body = json!({ "request_type": "auth", "resource_token": resource_token });
                if let Some(uri) = redirect_uri {
                    body["redirect_uri"] = uri.into();
                }
                body
            }
            TokenRequest::Code { code, redirect_uri, request_token } => json!({
                "request_type": "code",
                "code": code.expose(),
                "redirect_uri": redirect_uri,
                "request_token": request_token.expose(),
            }),
            TokenRequest::Refresh { refresh_token, wanted } => json!({
                "request_type": "refresh",
                "refresh_token": refresh_token.expose(),
                "resource_token": wanted.resource_token.expose(),
            }),
        };
        let body = body.to_string().into_bytes();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/aauth/agent/token", self.auth_server))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(());
        let (mut head, ()) = request.map_err(|_| ClientError::Target)?.into_parts();
        self.sign(&mut head, &body, None, now).await?;
        Ok(Request::from_parts(head, body))
    }

    /// What the server answered to a request for a token for `resource`, which asks for `scope`.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Answer`], or [`ClientError::AuthToken`] for a token that is not for this
    /// agent, its key and this resource.
    pub fn read_answer(
        &self,
        status: StatusCode,
        body: &[u8],
        (resource, scope): (&AAuthIdentifier, &Scope),
        now: Timestamp,
    ) -> Result<TokenAnswer, ClientError> {
        let unusable = ClientError::Answer(status);
        let Ok(body) = json::parse::<Body>(body) else { return Err(unusable) };
        let token = match (body.auth_token, body.access_token) {
            (Some(one), Some(other)) if one.expose() != other.expose() => return Err(unusable),
            (one, other) => one.or(other),
        };
        if let (true, Some(token)) = (status.is_success(), token) {
            let mut token = self.auth_token(token, resource, now).map_err(ClientError::AuthToken)?;
            token.refresh_token = body.refresh_token;
            return Ok(TokenAnswer::Token(token));
        }
        // Some servers say so with a success, and each 401 without an address is a refusal like others.
        let asks = status.is_success() || status == StatusCode::UNAUTHORIZED;
        let auth_url = [body.auth_url, body.authorization_uri].into_iter().flatten();
        let auth_url = auth_url.into_iter().find(|url| !url.expose().is_empty());
        if let (true, Some(request_token), Some(auth_url)) = (asks, body.request_token, auth_url) {
            if !self.may_send_people_to(auth_url.expose()) {
                return Err(unusable);
            }
            let life = body.expires_in.map_or(QUESTION_LIFE, Duration::from_secs).min(TOKEN_LIFE);
            let expires_at = now.plus(life);
            let (resource, scope) = (resource.clone(), scope.clone());
            return Ok(TokenAnswer::Consent(ConsentNeeded {
                auth_url,
                request_token,
                expires_at,
                resource,
                scope,
            }));
        }
        let Some(error) = body.error else { return Err(unusable) };
        let reason = body.details.get("reason").and_then(Value::as_str);
        let said = body.error_description.as_deref().or(reason).unwrap_or_default();
        Err(ClientError::Refused { status, error: printable(&error), description: printable(said) })
    }

    /// The token, if it is what was asked for.
    fn auth_token(
        &self,
        text: Secret,
        resource: &AAuthIdentifier,
        now: Timestamp,
    ) -> Result<AuthToken, InvalidToken> {
        let token = foreign::read(text.expose())?;
        if token.typ() != Some("auth+jwt") {
            return Err(InvalidToken::WrongType);
        }
        let claims = Value::Object(token.claims().clone());
        let claims = Claims::deserialize(claims).map_err(|_| InvalidToken::Malformed)?;
        if claims.iss != self.auth_server().as_str() {
            return Err(InvalidToken::WrongIssuer);
        }
        let for_us = claims.agent.as_ref().is_none_or(|agent| agent == self.identifier());
        if claims.aud != *resource.as_str() || !for_us {
            return Err(InvalidToken::WrongAudience);
        }
        if Confirmation::read(token.claims(), &self.own)?.jkt != self.confirmation.jkt {
            return Err(InvalidToken::Confirmation);
        }
        let expires_at = Timestamp::from_unix_seconds(claims.exp).min(now.plus(TOKEN_LIFE));
        if expires_at <= now {
            return Err(InvalidToken::Expired);
        }
        // Of a short life the first half is used.
        let renew_at = expires_at.minus(IN_TIME.min(expires_at.since(now) / 2));
        Ok(AuthToken {
            text,
            resource: resource.clone(),
            scope: claims.scope,
            expires_at,
            refresh_token: None,
            renew_at,
        })
    }

    /// Whether a person may be sent there: people type their passwords where it leads.
    fn may_send_people_to(&self, address: &str) -> bool {
        let (Ok(url), Ok(server)) = (Url::parse(address), Url::parse(self.auth_server().as_str())) else {
            return false;
        };
        url.scheme() == "https" || url.origin() == server.origin()
    }
}

/// What another party said, for an error text.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
