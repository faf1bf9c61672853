//! The agent that a signed request of AWS proves.
//!
//! The workload signs a `GetCallerIdentity` request with the keys of its role and sends it here instead of there. This
//! server sends it on, and AWS answers whose it is. The subject token is of the type [`AWS_STS_REQUEST`]: base64url of
//!
//! ```json
//! {"method":"POST","url":"https://sts.eu-west-1.amazonaws.com/","body":"Action=GetCallerIdentity&Version=2011-06-15",
//!  "headers":{"Host":"..","X-Amz-Date":"..","X-Lumoauth-Server-Id":"<issuer>","Authorization":"AWS4-HMAC-SHA256 .."}}
//! ```
//!
//! Whatever is not exactly that is refused before anything is sent:
//!
//! 1. The address is one of a host of the Security Token Service, of the region that the request is signed for and of the
//!    partition of the agent's role; there is nothing else in it.
//! 2. The body asks for the caller's identity and for nothing else.
//! 3. Headers are on a short list, each once. `X-Lumoauth-Server-Id` is this organization's issuer and signed, so that a
//!    request that was made for another server is no use here, and the other way round.
//! 4. It was signed at most 15 minutes ago, and is used once.
//! 5. It names the agent by `client_id` or `agent_id`, and that agent trusts a role of AWS: nobody else makes this server
//!    send anything.
//!
//! The answer is JSON, and of it only the caller's ARN and account count: both must be those of the agent's role.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::{Named, TokenError, admit, claimed, refused, trust_of};
use crate::{
    agent::Agent,
    clock::Timestamp,
    fetch::{FetchError, FetchRequest},
    grant::GrantContext,
    id::{AgentId, ClientId},
    json,
    secret::{Secret, sha256},
    store::{AgentKey, Remembered},
    token::MAX_TOKEN_BYTES,
    workload::{RoleArn, StsHost, Workload},
};

/// The `subject_token_type` of a signed `GetCallerIdentity` request of AWS.
///
/// The subject token is base64url, without padding, of JSON with the members `method` (`POST`), `url` (of
/// `sts.amazonaws.com` or a regional host of it), `headers` (an object of texts) and `body`
/// (`Action=GetCallerIdentity&Version=2011-06-15`), all as they were signed (AWS Signature Version 4). The header
/// `X-Lumoauth-Server-Id` has the issuer of the organization and is among the signed ones. The exchange names the agent by
/// `client_id` or `agent_id`. A request is good for 15 minutes and used once.
pub const AWS_STS_REQUEST: &str = "urn:lumoauth:token-type:aws-sts-request";

/// The header that binds a request to this server.
const SERVER_ID: &str = "x-lumoauth-server-id";

/// What a request may carry. `Content-Length` and `Host` are looked at and made anew by whoever sends it.
const HEADERS: [&str; 7] = [
    "authorization",
    "content-length",
    "content-type",
    "host",
    "x-amz-date",
    "x-amz-security-token",
    SERVER_ID,
];

const BODIES: [&str; 2] =
    ["Action=GetCallerIdentity&Version=2011-06-15", "Version=2011-06-15&Action=GetCallerIdentity"];

const CONTENT_TYPES: [&str; 2] =
    ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8"];

/// How long after it was signed a request is taken; AWS takes it as long.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// How far ahead of ours the workload's clock may be.
const SKEW: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// The agent that is `named`, if AWS says that its role signed the request in `token`.
pub(super) async fn prove(
    context: &GrantContext<'_>,
    token: &str,
    named: &Named,
) -> Result<Arc<Agent>, TokenError> {
    if named.is_empty() {
        return Err(TokenError::InvalidRequest("client_id or agent_id is required with a signed request."));
    }
    let request =
        SignedRequest::read(token, context.issuer, context.now).map_err(|cause| refused(context, cause))?;
    let Some(agent) = find(context, named).await? else {
        return Err(refused(context, "there is no such agent"));
    };
    claimed(context, &agent);
    let role = match trust_of(&agent).map(|trust| &trust.workload) {
        Some(Workload::Aws { issuer: None, role, region })
            if request.may_ask_about(role, region.as_deref()) =>
        {
            role
        }
        _ => return Err(refused(context, "the agent trusts no role that such a request can be of")),
    };
    admit(context, &agent)?;
    // Remembered before it is sent: of two at once, one is.
    let first_seen = request.signed_at.minus(SKEW);
    let until = request.signed_at.plus(MAX_AGE);
    let mark = request.mark;
    match context
        .stores
        .replay
        .remember(context.org(), "aws_sts", &mark, first_seen, until, context.now)
        .await?
    {
        Remembered::First => {}
        Remembered::Replay => return Err(refused(context, "the request was used before")),
        Remembered::TooOld => {
            return Err(refused(context, "whether the request was used before is not known"));
        }
    }
    let answer = context.fetch.fetch(request.into_fetch()).await.map_err(|error| {
        tracing::debug!(%error, "asking the Security Token Service");
        refused(
            context,
            match error {
                FetchError::NotAllowed => "the host does not let us ask AWS",
                FetchError::Unreachable(_) => "AWS does not answer",
                FetchError::Unusable(_) => "AWS does not accept the request",
            },
        )
    })?;
    let caller = Caller::read(&answer).ok_or_else(|| refused(context, "the answer of AWS is not one"))?;
    if caller.account != role.account() || !role.is_caller(&caller.arn) {
        return Err(refused(context, "the role is another"));
    }
    Ok(agent)
}

async fn find(context: &GrantContext<'_>, named: &Named) -> Result<Option<Arc<Agent>>, TokenError> {
    let (agents, org) = (&context.stores.agents, context.org());
    let agent = match (&named.agent_id, &named.client_id) {
        (Some(id), _) => match AgentId::parse(id) {
            Ok(id) => agents.find(org, AgentKey::Id(id)).await?,
            Err(_) => None,
        },
        (None, Some(id)) => match ClientId::parse(id) {
            Ok(id) => agents.find(org, AgentKey::ClientId(&id)).await?,
            Err(_) => None,
        },
        (None, None) => None,
    };
    Ok(agent.filter(|agent| named.fits(agent)))
}

/// The subject token, decoded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    method: String,
    url: String,
    headers: Map<String, Value>,
    body: String,
}

/// A request that asks AWS whose it is and can do nothing else. It is a credential: no `Debug`.
struct SignedRequest {
    url: Url,
    region: String,
    partition: &'static str,
    regional: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: String,
    signed_at: Timestamp,
    /// What is remembered of it.
    mark: [u8; 32],
}

impl SignedRequest {
    fn read(token: &str, server_id: &str, now: Timestamp) -> Result<Self, &'static str> {
        const MALFORMED: &str = "the subject token is not a signed request";
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the subject token is too long");
        }
        let text = URL_SAFE_NO_PAD.decode(token).map_err(|_| MALFORMED)?;
        let Envelope { method, url, headers, body } = json::parse(&text).map_err(|_| MALFORMED)?;
        if method != "POST" {
            return Err("the method is not POST");
        }
        // The text itself is compared: nothing that a parser would make of it can be meant.
        let host_name = url.strip_prefix("https://").and_then(|rest| rest.strip_suffix('/'));
        let host_name = host_name.ok_or("the address is not one of AWS")?;
        let host = StsHost::parse(host_name).ok_or("the address is not one of AWS")?;
        if !BODIES.contains(&body.as_str()) {
            return Err("the body asks for something else");
        }
        let headers = Headers::read(&headers)?;
        if headers.required("host")? != host_name {
            return Err("the host is another than that of the address");
        }
        if headers.required(SERVER_ID)? != server_id {
            return Err("the request is for another server");
        }
        if headers.get("content-type").is_some_and(|kind| !CONTENT_TYPES.contains(&kind)) {
            return Err("the content type is another");
        }
        if headers.get("content-length").is_some_and(|length| length != body.len().to_string()) {
            return Err("the content length is another");
        }
        let date = headers.required("x-amz-date")?;
        let signed_at = amz_date(date).ok_or("the date is malformed")?;
        if now.since(signed_at) >= MAX_AGE || signed_at > now.plus(SKEW) {
            return Err("the request was not signed just now");
        }
        let signature =
            Signature::read(headers.required("authorization")?).ok_or("the signature is malformed")?;
        let scope = format!("{}/{}/sts/aws4_request", date.get(..8).unwrap_or_default(), host.region);
        if signature.scope != scope {
            return Err("the signature is for another day, region or service");
        }
        headers.check_signed(&signature.headers)?;
        Ok(Self {
            region: host.region.to_owned(),
            partition: host.partition,
            regional: host.regional,
            url: Url::parse(&url).map_err(|_| "the address is not one of AWS")?,
            headers: headers.into_sent()?,
            body,
            signed_at,
            mark: sha256(signature.value.as_bytes()),
        })
    }

    /// Whether an answer to it can be about `role`, whose requests go to `region` alone if there is one.
    fn may_ask_about(&self, role: &RoleArn, region: Option<&str>) -> bool {
        self.partition == role.partition()
            && region.is_none_or(|region| self.regional && region == self.region)
    }

    fn into_fetch(self) -> FetchRequest {
        FetchRequest {
            headers: self.headers,
            max_bytes: MAX_ANSWER,
            ..FetchRequest::post_form(self.url, Secret::from(self.body))
        }
    }
}

/// The headers of a request, by their names in lower case.
struct Headers<'a>(Vec<(String, &'a str)>);

impl<'a> Headers<'a> {
    fn read(given: &'a Map<String, Value>) -> Result<Self, &'static str> {
        let mut headers: Vec<(String, &str)> = Vec::with_capacity(HEADERS.len());
        for (name, value) in given {
            let name = name.to_ascii_lowercase();
            if !HEADERS.contains(&name.as_str()) {
                return Err("there is a header that is not on the list");
            }
            if headers.iter().any(|(before, _)| *before == name) {
                return Err("a header is repeated");
            }
            let value = value.as_str().ok_or("a header is not one text")?;
            // Spaces are folded when a request is signed: then two texts would have one signature.
            let plain = value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            if value.is_empty() || !plain || value.trim() != value || value.contains("  ") {
                return Err("a header is not plain text");
            }
            headers.push((name, value));
        }
        Ok(Self(headers))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn required(&self, name: &str) -> Result<&'a str, &'static str> {
        self.get(name).ok_or("a header is missing")
    }

    /// Whether the signature covers exactly what is there, but for what has no meaning.
    fn check_signed(&self, signed: &[&str]) -> Result<(), &'static str> {
        let all_there = signed.iter().all(|name| *name != "authorization" && self.get(name).is_some());
        let in_order = signed.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if !all_there || !in_order {
            return Err("the signature is over other headers");
        }
        let must = |name: &str| !matches!(name, "authorization" | "content-length" | "content-type");
        if self.0.iter().any(|(name, _)| must(name) && !signed.contains(&name.as_str())) {
            return Err("a header is not signed");
        }
        Ok(())
    }

    fn into_sent(self) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
        let sent = self.0.into_iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length"));
        let sent = sent.map(|(name, value)| {
            let mut header = HeaderValue::from_str(value).ok()?;
            header.set_sensitive(name == header::AUTHORIZATION.as_str() || name == "x-amz-security-token");
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, header))
        });
        sent.collect::<Option<_>>().ok_or("a header is not plain text")
    }
}

/// What the `Authorization` header of a request says (AWS Signature Version 4).
struct Signature<'a> {
    /// Day, region, service and the word that ends it.
    scope: &'a str,
    headers: Vec<&'a str>,
    value: &'a str,
}

impl<'a> Signature<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("AWS4-HMAC-SHA256 ")?.split(',').map(str::trim_start);
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        let (credential, headers, value) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
        let (key_id, scope) = credential.split_once('/')?;
        let fits = parts.next().is_none()
            && (16..=128).contains(&key_id.len())
            && key_id.bytes().all(|b| b.is_ascii_alphanumeric())
            && value.len() == 64
            && value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fits.then(|| Self { scope, headers: headers.split(';').collect(), value })
    }
}

/// The instant that `X-Amz-Date` names: `20261122T081500Z`.
fn amz_date(text: &str) -> Option<Timestamp> {
    let fits = text.len() == 16
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        });
    let part = |from, to| text.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    fits.then(|| format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()).flatten()
}

/// Whose a request was, by the answer to it.
struct Caller {
    arn: String,
    account: String,
}

impl Caller {
    fn read(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "GetCallerIdentityResponse")]
            response: Response,
        }
        #[derive(Deserialize)]
        struct Response {
            #[serde(rename = "GetCallerIdentityResult")]
            result: Identity,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        struct Identity {
            arn: String,
            account: String,
            #[serde(rename = "UserId")]
            _user_id: String,
        }
        if answer.len() > MAX_ANSWER {
            return None;
        }
        let Identity { arn, account, .. } = json::parse::<Answer>(answer).ok()?.response.result;
        Some(Self { arn, account })
    }
}
