//! `Content-Digest` (RFC 9530): over the content as it was sent, after any content coding.

use std::fmt;

use aws_lc_rs::digest::{Context, Digest, SHA256, SHA512, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use sfv::Parser;

use super::{Content, SignatureError, fields::ByteSequences};

/// The longest `Content-Digest` that is read, in bytes.
const MAX_BYTES: usize = 1024;

/// Hashes content as it comes in.
///
/// ```
/// use lumoauth_core::httpsig::{Digester, Digests};
///
/// let mut digester = Digester::new();
/// digester.update(b"{\"hello\": ");
/// digester.update(b"\"world\"}");
/// assert_eq!(digester.finish(), Digests::of(b"{\"hello\": \"world\"}"));
/// ```
#[derive(Clone)]
pub struct Digester {
    sha256: Context,
    sha512: Context,
    empty: bool,
}

impl Digester {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self { sha256: Context::new(&SHA256), sha512: Context::new(&SHA512), empty: true }
    }

    /// Hashes the next part.
    pub fn update(&mut self, part: &[u8]) {
        self.empty &= part.is_empty();
        self.sha256.update(part);
        self.sha512.update(part);
    }

    /// What the content was.
    pub fn finish(self) -> Digests {
        Digests::new(&self.sha256.finish(), &self.sha512.finish(), self.empty)
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").finish_non_exhaustive()
    }
}

/// The digests of some content by every supported algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    sha256: [u8; 32],
    sha512: [u8; 64],
    empty: bool,
}

impl Digests {
    /// The digests of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self::new(&digest(&SHA256, content), &digest(&SHA512, content), content.is_empty())
    }

    /// Whether there was no content.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    fn new(by_sha256: &Digest, by_sha512: &Digest, empty: bool) -> Self {
        let (mut sha256, mut sha512) = ([0; 32], [0; 64]);
        sha256.copy_from_slice(by_sha256.as_ref());
        sha512.copy_from_slice(by_sha512.as_ref());
        Self { sha256, sha512, empty }
    }
}

impl Content<'_> {
    /// The `Content-Digest` of this content, by SHA-256.
    ///
    /// ```
    /// use lumoauth_core::httpsig::Content;
    ///
    /// let value = Content::Bytes(b"{\"hello\": \"world\"}").digest_field();
    /// assert_eq!(value, "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
    /// ```
    pub fn digest_field(self) -> HeaderValue {
        let text = match self {
            Self::Bytes(bytes) => STANDARD.encode(digest(&SHA256, bytes)),
            Self::Digested(digests) => STANDARD.encode(digests.sha256),
        };
        HeaderValue::try_from(format!("sha-256=:{text}:")).expect("base64 can stand in a field")
    }

    /// Whether this is the content that `field`, a `Content-Digest`, is of. Every digest by a supported algorithm must
    /// match, and there must be one; others say nothing.
    ///
    /// # Errors
    /// [`SignatureError`] if the field is malformed or too long, names no supported algorithm, or does not match.
    pub fn check_digest_field(self, field: &HeaderValue) -> Result<(), SignatureError> {
        if field.len() > MAX_BYTES {
            return Err(SignatureError::TooLong("Content-Digest"));
        }
        let mut named = ByteSequences::default();
        Parser::new(field.as_bytes())
            .parse_dictionary_with_visitor(&mut named)
            .map_err(|_| SignatureError::Malformed("Content-Digest"))?;
        let mut supported = false;
        for (algorithm, expected) in named.members {
            let matches = |actual: &[u8]| expected.as_deref() == Some(actual);
            let matched = match (algorithm.as_str(), self) {
                ("sha-256", Self::Bytes(bytes)) => matches(digest(&SHA256, bytes).as_ref()),
                ("sha-256", Self::Digested(digests)) => matches(&digests.sha256),
                ("sha-512", Self::Bytes(bytes)) => matches(digest(&SHA512, bytes).as_ref()),
                ("sha-512", Self::Digested(digests)) => matches(&digests.sha512),
                _ => continue,
            };
            if !matched {
                return Err(SignatureError::DigestMismatch);
            }
            supported = true;
        }
        if supported { Ok(()) } else { Err(SignatureError::DigestUnsupported) }
    }
}
