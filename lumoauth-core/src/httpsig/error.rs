//! Why a signed request is refused.

use http::HeaderName;

use crate::store::StoreError;

/// Why a signature is not accepted. Whatever it is, nobody is authenticated, also where the fields cannot be read. Every message
/// is safe to show: none holds a key, a token or a field's value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Neither `Signature-Input` nor `Signature` is there, or only one of them.
    #[error("the request is not signed: it needs `Signature-Input` and `Signature` (RFC 9421)")]
    Missing,
    /// The form in which the signature stands in `Agent-Auth`. It does not cover its own time and key.
    #[error(
        "a signature in `Agent-Auth` is not accepted: send it in `Signature-Input` and `Signature` (RFC 9421)"
    )]
    InAgentAuth,
    /// A field or what stands in it is longer than it may be.
    #[error("`{0}` is too long")]
    TooLong(&'static str),
    /// A field that counts stands in several lines, of which others may read another one.
    #[error("`{0}` must stand in one line")]
    Repeated(HeaderName),
    /// Not the syntax of RFC 9651, RFC 9421 or RFC 9110.
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
    /// A covered field has bytes that are not printable ASCII.
    #[error("`{0}` has other than printable characters")]
    Unprintable(HeaderName),
    /// None or several labels, or another one in `Signature` than in `Signature-Input`.
    #[error("exactly one signature is accepted, under one label")]
    Labels,
    /// A covered component twice.
    #[error("`{0}` is covered twice")]
    CoveredTwice(Box<str>),
    /// A derived component that says nothing of a request or is not supported, or no name of a field.
    #[error("`{0}` cannot be covered")]
    UnsupportedComponent(Box<str>),
    /// A covered component with parameters, such as `;sf`, `;key` or `;req`.
    #[error("covered components must not have parameters")]
    ComponentParameter,
    /// The covered list has the form of no profile that is accepted here.
    #[error("the covered components are not those that are accepted here")]
    Form,
    /// What the profile wants covered is not.
    #[error("`{0}` must be covered")]
    NotCovered(&'static str),
    /// A covered field that the request does not have.
    #[error("`{0}` is covered and absent")]
    Absent(HeaderName),
    /// A field that is there and empty, where that could be taken for absent.
    #[error("`{0}` is present and empty")]
    Empty(HeaderName),
    /// `@query` is covered, and the target has no query.
    #[error("`@query` is covered, and there is no query")]
    NoQuery,
    /// Other parameters, or in another order, than the profile has.
    #[error("the parameters of the signature must be `created` and `nonce`, in this order")]
    Parameters,
    /// A parameter of the signature twice.
    #[error("a parameter of the signature stands there twice")]
    ParameterTwice,
    /// A required parameter is not there.
    #[error("the signature must have `{0}`")]
    NoParameter(&'static str),
    /// A parameter is not of its type, or its value cannot be.
    #[error("the parameter `{0}` is not usable")]
    Parameter(&'static str),
    /// The signature is made for another protocol.
    #[error("the signature is made for another protocol: it has a `tag`")]
    Tag,
    /// Created too long ago.
    #[error("the signature was made too long ago")]
    Stale,
    /// Created by a clock that is too far ahead.
    #[error("the signature was made in the future")]
    Future,
    /// Its own `expires` has passed.
    #[error("the signature has expired")]
    Expired,
    /// The nonce is too short or too long, or not base64.
    #[error("the nonce must be 12 bytes or more in base64, at most 256 characters")]
    Nonce,
    /// The request is addressed to nobody that is served here.
    #[error("the request is for an authority that is not served here")]
    Authority,
    /// The path or query has characters that no request target has.
    #[error("the request target is malformed")]
    Target,
    /// The content is not what `Content-Digest` says.
    #[error("the content does not match `Content-Digest`")]
    DigestMismatch,
    /// `Content-Digest` names no algorithm that is supported.
    #[error("`Content-Digest` must have `sha-256` or `sha-512`")]
    DigestUnsupported,
    /// The key signs by another algorithm than `alg` says.
    #[error("the parameter `alg` does not agree with the key")]
    Algorithm,
    /// The key signs no HTTP messages.
    #[error("the key is of a sort that does not sign HTTP messages here")]
    Key,
    /// The signature is not this key's over this request.
    #[error("the signature does not verify")]
    Invalid,
    /// The nonce was used before.
    #[error("the request was received before")]
    Replayed,
    /// Whether the nonce was used before nobody knows.
    #[error("the request may have been received before this server began to remember")]
    TooOld,
    /// The replay store cannot answer. This is no refusal: nothing is known of the request.
    #[error("it cannot be told whether the request was received before")]
    Store(#[from] StoreError),
}

impl SignatureError {
    /// Whether a backend failed, so that the caller should answer that the service is unavailable.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}
