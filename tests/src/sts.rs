//! The Security Token Service of AWS, as far as it says whose a request is: it really verifies signatures.
//!
//! Requests and answers have the form of the real one: Signature Version 4, XML unless JSON is asked for.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aws_lc_rs::{digest, hmac};
use serde_json::{Value, json};

use crate::{
    b64,
    https::{Answer, Authority, Received},
    rfc3339, text, unique, unix_now,
};

/// The hosts that it answers as, with the region of each.
pub(crate) const STS_HOSTS: [&str; 3] =
    ["sts.eu-west-1.amazonaws.com", "sts.eu-central-1.amazonaws.com", "sts.amazonaws.com"];

/// What is asked.
const QUESTION: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// How far a request's date may be from now, in seconds.
const WINDOW: i64 = 15 * 60;

/// The service; one per test process.
#[derive(Debug)]
pub struct Sts {
    port: u16,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

#[derive(Debug)]
struct Known {
    caller: AwsCaller,
    asked: u64,
}

impl Sts {
    /// The one that servers may reach which know of our sites.
    pub fn trusted() -> &'static Self {
        static STS: OnceLock<Sts> = OnceLock::new();
        STS.get_or_init(|| {
            let known = Arc::<Mutex<HashMap<String, Known>>>::default();
            let serving = known.clone();
            let port = Authority::trusted().serve(move |received| answer(received, &serving));
            Self { port, known }
        })
    }

    /// The origins that it answers as and where they are, as `--fetch-allow` takes them, and its own.
    pub fn origins(&self) -> impl Iterator<Item = String> {
        let own = format!("https://{}", self.authority());
        STS_HOSTS.iter().map(|host| format!("https://{host}=127.0.0.1:{}", self.port)).chain([own])
    }

    /// Where it listens.
    pub fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Credentials of a caller whose ARN is this.
    pub fn issue(&self, arn: &str) -> AwsCaller {
        let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
        let key_id = unique("ASIA").replace('-', "").to_ascii_uppercase();
        let (secret, session) = (unique("secret"), unique("session"));
        let caller = AwsCaller { key_id, secret, session, arn: arn.to_owned(), account };
        let known = Known { caller: caller.clone(), asked: 0 };
        self.lock().insert(caller.key_id.clone(), known);
        caller
    }

    /// How often a request came that says it is of `caller`.
    pub fn asked(&self, caller: &AwsCaller) -> u64 {
        self.lock().get(&caller.key_id).map_or(0, |known| known.asked)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Temporary credentials, and whose they are.
#[derive(Clone, Debug)]
pub struct AwsCaller {
    key_id: String,
    secret: String,
    session: String,
    arn: String,
    account: String,
}

impl AwsCaller {
    /// The same with another secret, which AWS does not know.
    #[must_use]
    pub fn guessing(&self) -> Self {
        Self { secret: unique("guess"), ..self.clone() }
    }

    /// The same with another session token.
    #[must_use]
    pub fn without_session(&self) -> Self {
        Self { session: unique("session"), ..self.clone() }
    }

    /// What is sent to the authorization server: a request to `host`, bound to `server_id`, as if signed at `signed_at`
    /// (seconds since 1970).
    ///
    /// # Panics
    /// When `signed_at` is no year of four digits.
    pub fn sign(&self, host: &str, server_id: &str, signed_at: i64) -> Value {
        let date = amz_date(signed_at);
        let mut headers = vec![
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", host),
            ("x-amz-date", &date),
            ("x-amz-security-token", &self.session),
            ("x-lumoauth-server-id", server_id),
        ];
        let scope = [&date[..8], region_of(host), "sts", "aws4_request"];
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let signature = Canonical { method: "POST", query: "", headers: &headers, body: QUESTION }.sign(
            &self.secret,
            &date,
            scope,
        );
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            self.key_id,
            scope.join("/"),
        );
        headers.push(("authorization", &authorization));
        let headers: serde_json::Map<_, _> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        json!({ "method": "POST", "url": format!("https://{host}/"), "headers": headers, "body": QUESTION })
    }
}

/// A signed request as a subject token.
pub fn sts_token(request: &Value) -> String {
    b64(request.to_string())
}

fn region_of(host: &str) -> &str {
    let rest = host.strip_prefix("sts.").unwrap_or(host);
    rest.strip_suffix(".amazonaws.com").filter(|region| *region != "amazonaws.com").unwrap_or("us-east-1")
}

/// `20261122T081500Z`
fn amz_date(seconds: i64) -> String {
    rfc3339(seconds).replace(['-', ':'], "")
}

/// Whose the request is, or why nobody's: the service itself.
fn answer(received: &Received, known: &Mutex<HashMap<String, Known>>) -> Answer {
    let id = unique("request");
    let (status, json, xml) = match identify(received, known) {
        Ok(caller) => {
            let AwsCaller { key_id, arn, account, .. } = caller;
            let user = format!("AROA{key_id}:session");
            let xml = format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <GetCallerIdentityResult><Arn>{arn}</Arn><UserId>{user}</UserId><Account>{account}</Account>\
                 </GetCallerIdentityResult></GetCallerIdentityResponse>"
            );
            let result = json!({ "Account": account, "Arn": arn, "UserId": user });
            let response = json!({
                "GetCallerIdentityResult": result, "ResponseMetadata": { "RequestId": id },
            });
            (200, json!({ "GetCallerIdentityResponse": response }), xml)
        }
        Err(code) => {
            let error = json!({ "Code": code, "Message": "no", "Type": "Sender" });
            (
                403,
                json!({ "Error": error, "RequestId": id }),
                format!("<ErrorResponse>{code}</ErrorResponse>"),
            )
        }
    };
    match received.header("accept") {
        Some("application/json") => Answer::json(status, &json),
        _ => Answer { status, headers: "Content-Type: text/xml\r\n".to_owned(), body: xml },
    }
}

fn identify(received: &Received, known: &Mutex<HashMap<String, Known>>) -> Result<AwsCaller, &'static str> {
    const INCOMPLETE: &str = "IncompleteSignature";
    let authorization = received.header("authorization").ok_or("MissingAuthenticationToken")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(INCOMPLETE)?;
    let part = |name: &str| {
        let mut parts = rest.split(',').map(str::trim);
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).ok_or(INCOMPLETE)
    };
    let (credential, signed, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
    let scope: Vec<&str> = credential.split('/').collect();
    let [key_id, day, region, service, end] = scope[..] else { return Err(INCOMPLETE) };
    let caller = {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_mut(key_id).ok_or("InvalidClientTokenId")?;
        known.asked += 1;
        known.caller.clone()
    };
    let host = received.header("host").filter(|host| STS_HOSTS.contains(host)).ok_or(INCOMPLETE)?;
    let date = received.header("x-amz-date").ok_or(INCOMPLETE)?;
    let now = unix_now();
    let in_time = amz_date(now - WINDOW).as_str() <= date && date <= amz_date(now + WINDOW).as_str();
    let right_scope =
        date.starts_with(day) && region == region_of(host) && (service, end) == ("sts", "aws4_request");
    if !in_time || !right_scope {
        return Err("SignatureDoesNotMatch");
    }
    let names: Vec<&str> = signed.split(';').collect();
    if !names.contains(&"host") || !names.contains(&"x-amz-date") {
        return Err(INCOMPLETE);
    }
    let headers: Option<Vec<_>> = names.iter().map(|name| Some((*name, received.header(name)?))).collect();
    let canonical = Canonical {
        method: &received.method,
        query: "",
        headers: &headers.ok_or(INCOMPLETE)?,
        body: &received.body,
    };
    if received.target != "/"
        || canonical.sign(&caller.secret, date, [day, region, service, end]) != signature
    {
        return Err("SignatureDoesNotMatch");
    }
    if received.header("x-amz-security-token") != Some(&caller.session) {
        return Err("InvalidClientTokenId");
    }
    let asks = received.header("content-type").is_some_and(|kind| kind.contains("x-www-form-urlencoded"));
    if !asks || received.body != QUESTION {
        return Err("InvalidAction");
    }
    Ok(caller)
}

/// A request to `/` as it is signed (AWS Signature Version 4). The headers are in order.
struct Canonical<'a> {
    method: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

impl Canonical<'_> {
    /// The signature; `scope` is day, region, service and the word that ends it.
    fn sign(&self, secret: &str, date: &str, scope: [&str; 4]) -> String {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let body = hash(self.body);
        let request = format!("{}\n/\n{}\n{lines}\n{names}\n{body}", self.method, self.query);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", scope.join("/"), hash(&request));
        let tag = |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        };
        let key = scope.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| tag(&key, part));
        hex(&tag(&key, &text))
    }
}

fn hash(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `request` with another text at `pointer` (RFC 6901); `None` takes it away.
///
/// # Panics
/// When there is nothing at `pointer`'s parent.
pub fn altered(request: &Value, pointer: &str, value: Option<&str>) -> Value {
    let mut request = request.clone();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = request.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => drop(parent.insert(name.to_owned(), value.into())),
        None => drop(parent.remove(name)),
    }
    request
}

/// The signature in a signed request.
///
/// # Panics
/// When there is none.
pub fn signature_in(request: &Value) -> &str {
    text(&request["headers"]["authorization"]).rsplit('=').next().expect("a signature")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the documentation of AWS ("Create a signed AWS API request", `ListUsers`).
    #[test]
    fn a_signature_is_the_one_that_aws_documents() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let example = Canonical { method: "GET", query, headers: &headers, body: "" };
        let scope = ["20150830", "us-east-1", "iam", "aws4_request"];
        assert_eq!(
            example.sign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830T123600Z", scope),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn a_host_has_its_region() {
        let regions: Vec<&str> = STS_HOSTS.iter().map(|host| region_of(host)).collect();
        assert_eq!(regions, ["eu-west-1", "eu-central-1", "us-east-1"]);
    }
}
