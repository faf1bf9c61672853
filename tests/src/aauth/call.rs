//! Signed requests, written by hand after the SDK and RFC 9421.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Ed25519;
use crate::{Org, Request, Response, Server, b64, unique, unix_now};

const OF_THE_SDK: [&str; 7] =
    ["@method", "@authority", "@path", "signature-key", "content-digest", "content-type", "authorization"];

/// A request that is to be signed. A test may change every part of it before.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "tests bend all of it")]
pub struct Call {
    /// Where it is sent.
    pub server: String,
    /// Method.
    pub method: String,
    /// `Host`, as sent and signed.
    pub authority: String,
    /// Path, as sent and signed.
    pub path: String,
    /// Query without its mark.
    pub query: Option<String>,
    /// Fields, as sent and signed.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// What is covered.
    pub covered: Vec<String>,
    /// The parameters, beginning with a semicolon.
    pub params: String,
    /// The label.
    pub label: String,
    /// Whether the signature is written in base64url without padding.
    pub url_alphabet: bool,
}

impl Call {
    /// A JSON body for `path` below the organization, in the form of the SDK.
    pub fn sdk(org: &Org<'_>, path: &str, body: &Value) -> Self {
        let mut call = Self::bare(org, path, body);
        call.covered = OF_THE_SDK.map(str::to_owned).to_vec();
        call.params = format!(";created={};nonce=\"{}\"", unix_now(), nonce());
        call.url_alphabet = true;
        call
    }

    /// The same as RFC 9421 has it, with what must be covered in an order of its own.
    pub fn rfc(org: &Org<'_>, path: &str, body: &Value) -> Self {
        let mut call = Self::bare(org, path, body);
        let covered = ["content-type", "@authority", "@method", "content-digest", "@path"];
        call.covered = covered.map(str::to_owned).to_vec();
        call.params = format!(";nonce=\"{}\";created={};keyid=\"k\"", nonce(), unix_now());
        call.label = "anything".to_owned();
        call
    }

    fn bare(org: &Org<'_>, path: &str, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        let digest = format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, &body)));
        Self {
            server: org.server().authority().to_owned(),
            method: "POST".to_owned(),
            authority: org.server().authority().to_owned(),
            path: format!("/orgs/{}/api/v1{path}", org.slug()),
            query: None,
            headers: vec![
                ("Content-Digest".to_owned(), digest),
                ("Content-Type".to_owned(), "application/json".to_owned()),
            ],
            body,
            covered: Vec::new(),
            params: String::new(),
            label: "sig1".to_owned(),
            url_alphabet: false,
        }
    }

    /// With this field, in place of others of its name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.and(name, value)
    }

    /// With one more field.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without this field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// With this agent token.
    #[must_use]
    pub fn by(self, agent_token: &str) -> Self {
        self.with("Agent-Auth", &format!("agent_token={agent_token}"))
    }

    /// Covers this as well.
    #[must_use]
    pub fn covering(mut self, name: &str) -> Self {
        self.covered.push(name.to_owned());
        self
    }

    /// Does not cover this.
    #[must_use]
    pub fn not_covering(mut self, name: &str) -> Self {
        self.covered.retain(|other| other != name);
        self
    }

    /// Was signed this many seconds ago.
    #[must_use]
    pub fn aged(mut self, seconds: i64) -> Self {
        self.params = format!(";created={};nonce=\"{}\"", unix_now() - seconds, nonce());
        self
    }

    /// With these parameters.
    #[must_use]
    pub fn saying(mut self, params: &str) -> Self {
        params.clone_into(&mut self.params);
        self
    }

    /// With a `Content-Digest` of this algorithm alone.
    ///
    /// # Panics
    /// For other algorithms than `sha-256` and `sha-512`.
    #[must_use]
    pub fn digested(self, algorithm: &str) -> Self {
        let value = match algorithm {
            "sha-256" => digest(&SHA256, &self.body),
            "sha-512" => digest(&SHA512, &self.body),
            other => panic!("{other}"),
        };
        let value = format!("{algorithm}=:{}:", STANDARD.encode(value));
        self.with("Content-Digest", &value)
    }

    /// `Signature-Input` without its label.
    pub fn input(&self) -> String {
        let list: Vec<_> = self.covered.iter().map(|name| format!("\"{name}\"")).collect();
        format!("({}){}", list.join(" "), self.params)
    }

    /// What is signed.
    pub fn base(&self) -> String {
        let mut base = String::new();
        for name in &self.covered {
            let _ = writeln!(base, "\"{name}\": {}", self.value(name));
        }
        let _ = write!(base, "\"@signature-params\": {}", self.input());
        base
    }

    fn value(&self, name: &str) -> String {
        match name {
            "@method" => self.method.clone(),
            "@authority" => self.authority.clone(),
            "@path" => self.path.clone(),
            "@query" => format!("?{}", self.query.as_deref().unwrap_or_default()),
            "@target-uri" => format!("http://{}{}", self.authority, self.target()),
            field => {
                let lines = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(field));
                lines.map(|(_, value)| value.trim()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", self.path)
    }

    /// Signs it.
    #[must_use]
    pub fn signed(&self, key: &Ed25519) -> Sent {
        self.carrying(&key.sign(self.base().as_bytes()))
    }

    /// With these bytes as its signature.
    #[must_use]
    pub fn carrying(&self, signature: &[u8]) -> Sent {
        let signature = if self.url_alphabet { b64(signature) } else { STANDARD.encode(signature) };
        let mut headers = self.headers.clone();
        headers.push(("Signature-Input".to_owned(), format!("{}={}", self.label, self.input())));
        headers.push(("Signature".to_owned(), format!("{}=:{signature}:", self.label)));
        Sent {
            server: self.server.clone(),
            method: self.method.clone(),
            authority: self.authority.clone(),
            target: self.target(),
            headers,
            body: self.body.clone(),
        }
    }
}

/// A request on its way. Whoever changes it now is not the one who signed.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "tests bend all of it")]
pub struct Sent {
    /// Where it is sent.
    pub server: String,
    /// Method.
    pub method: String,
    /// `Host`.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Sent {
    /// With this field, in place of others of its name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.and(name, value)
    }

    /// With one more field.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without this field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// The text of a field.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// To another server.
    #[must_use]
    pub fn to(mut self, server: &Server) -> Self {
        server.authority().clone_into(&mut self.server);
        self
    }

    /// As a request.
    pub fn request(&self) -> Request {
        let mut request =
            Request::new(&self.server, &self.method, &self.target).header("Host", &self.authority);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.content(self.body.clone())
    }

    /// The answer.
    ///
    /// # Panics
    /// As [`Request::send`].
    #[track_caller]
    pub fn send(&self) -> Response {
        self.request().send()
    }
}

/// 16 bytes or more that nobody used before.
fn nonce() -> String {
    b64(unique("nonce"))
}
