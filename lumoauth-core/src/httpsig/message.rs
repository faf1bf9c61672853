//! The request that is signed, as its receiver sees it and as its sender sends it.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Digests, SignatureError};

/// A request. Nothing in it is decoded or normalized; path and authority are as the sender wrote them.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a request has no other parts; hosts name every one of them")]
pub struct Message<'a> {
    /// The method.
    pub method: &'a Method,
    /// `https` or `http`: by which the sender reached the service, which behind a proxy is a matter of configuration.
    pub scheme: &'a str,
    /// The authority: `:authority` of HTTP/2, else `Host`, never `X-Forwarded-Host`.
    pub authority: &'a str,
    /// The path, still percent-encoded, of the request before any router took its prefix off.
    pub path: &'a str,
    /// The query without its question mark; `Some("")` if there is only the mark.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// The content as it was received, before any content coding is undone.
    pub content: Content<'a>,
}

/// Without fields, query and content, in which credentials stand.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown.field("method", self.method).field("scheme", &self.scheme);
        shown.field("authority", &self.authority).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The content of a message.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "the content is there or was seen pass by")]
pub enum Content<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// What is known of content that was hashed as it came in.
    Digested(&'a Digests),
}

/// Only how much it is.
impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} B)", bytes.len()),
            Self::Digested(digests) => f.debug_tuple("Digested").field(digests).finish(),
        }
    }
}

impl Content<'_> {
    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Digested(digests) => digests.is_empty(),
        }
    }
}

impl<'a> Message<'a> {
    /// The message of a request's head, with the authority from its target or its `Host` (RFC 9110 section 7.2).
    ///
    /// # Errors
    /// [`SignatureError::Authority`] if there is none, or two that differ, and [`SignatureError::Repeated`] for two
    /// `Host` fields.
    pub fn of(
        head: &'a http::request::Parts,
        scheme: &'a str,
        content: Content<'a>,
    ) -> Result<Self, SignatureError> {
        let host = one(&head.headers, &header::HOST)?.map(host_text).transpose()?;
        let authority = match (head.uri.authority().map(http::uri::Authority::as_str), host) {
            (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
                return Err(SignatureError::Authority);
            }
            (Some(target), _) => target,
            (None, Some(host)) => host,
            (None, None) => return Err(SignatureError::Authority),
        };
        Ok(Self {
            method: &head.method,
            scheme,
            authority,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            content,
        })
    }

    /// Whether the target is made of characters that can stand in one (RFC 3986). A fragment is never sent, and white
    /// space or a line break could forge other lines of what is signed.
    pub(super) fn check_target(&self) -> Result<(), SignatureError> {
        let clean = |part: &str, not: &[u8]| part.bytes().all(|b| b.is_ascii_graphic() && !not.contains(&b));
        let path = (self.path.is_empty() || self.path.starts_with('/')) && clean(self.path, b"?#");
        let usable = path
            && self.query.is_none_or(|query| clean(query, b"#"))
            && clean(self.authority, b"/?#@")
            && matches!(self.scheme, "https" | "http");
        if usable { Ok(()) } else { Err(SignatureError::Target) }
    }

    /// The path as it is signed: that of the origin is `/`.
    pub(super) fn signed_path(&self) -> &'a str {
        if self.path.is_empty() { "/" } else { self.path }
    }

    /// The authority in lower case without the port that the scheme has anyway (RFC 9421 section 2.2.3).
    pub(super) fn normalized_authority(&self) -> Cow<'a, str> {
        let authority = without_default_port(self.authority, self.scheme);
        if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(authority.to_ascii_lowercase())
        } else {
            Cow::Borrowed(authority)
        }
    }
}

/// `authority` without the port that `scheme` implies.
pub(super) fn without_default_port<'a>(authority: &'a str, scheme: &str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The only line of a field. RFC 9421 section 2.1 joins several, and then one line and two are the same to the signature;
/// whoever reads the field afterwards may look at the first, the last or all of them. So what counts stands in one line.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, SignatureError> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(SignatureError::Repeated(name.clone()));
    }
    Ok(line)
}

fn host_text(value: &HeaderValue) -> Result<&str, SignatureError> {
    value.to_str().map_err(|_| SignatureError::Authority)
}
