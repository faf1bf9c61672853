//! Verifying, in the steps that the types enforce: read, verify, once.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItemFromInput, RefBareItem};

use super::{
    Component, Content, Message, Profile, SignatureError, base,
    fields::{self, Parameter},
    message::{one, without_default_port},
    profile::{CONTENT_DIGEST, nonce_field},
};
use crate::{
    clock::Timestamp,
    id::OrgId,
    jwks::{HttpAlgorithm, PublicKey, Thumbprint},
    secret::sha256,
    store::{Remembered, ReplayStore},
};

pub(super) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const AGENT_AUTH: HeaderName = HeaderName::from_static("agent-auth");

/// The space of the replay store.
const SPACE: &str = "http_signature";

/// What a service accepts.
#[derive(Clone, Debug)]
pub struct Accept {
    authorities: Vec<Box<str>>,
    profiles: &'static [Profile],
}

impl Accept {
    /// Signatures under either profile, of requests to `authorities`: the names, with a port if it is not that of the
    /// scheme, by which callers reach the service. Requests for other authorities are refused; case does not count.
    pub fn at<I: IntoIterator<Item: AsRef<str>>>(authorities: I) -> Self {
        let authorities = authorities.into_iter().map(|authority| authority.as_ref().into()).collect();
        Self { authorities, profiles: &[Profile::LUMO_SDK, Profile::LUMO_RFC] }
    }

    /// Signatures under `profiles` only.
    #[must_use]
    pub fn with_profiles(mut self, profiles: &'static [Profile]) -> Self {
        self.profiles = profiles;
        self
    }

    fn serves(&self, message: &Message<'_>) -> bool {
        let asked = without_default_port(message.authority, message.scheme);
        self.authorities
            .iter()
            .any(|served| asked.eq_ignore_ascii_case(without_default_port(served, message.scheme)))
    }
}

/// What a signature covers and says of itself.
#[derive(Clone, Debug)]
pub struct Signature {
    label: Box<str>,
    profile: Profile,
    components: Vec<Component>,
    created: u64,
    nonce: Box<str>,
    key_id: Option<Box<str>>,
    algorithm: Option<HttpAlgorithm>,
    has_query: bool,
}

impl Signature {
    /// Its label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The rules it is under.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// When it says it was made.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.created)
    }

    /// The nonce.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What `keyid` says, if it says anything. It chooses no key: it is a hint for whoever looks for keys, and covered
    /// like every parameter.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What is covered, in order.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Whether a field is covered.
    pub fn covers(&self, field: &HeaderName) -> bool {
        self.components.iter().any(|component| matches!(component, Component::Field(name) if name == field))
    }

    /// Whether nobody can have changed the query, added one or taken it away: a component that holds it is covered; or there is
    /// none, and the profile is [`Profile::LUMO_RFC`], under which a request with a query that is not covered is refused. (A
    /// signer who breaks that rule gets no request with a query through, and may have had one taken away.) Under
    /// [`Profile::LUMO_SDK`] only a list with `@query` says that there was one.
    pub fn covers_query(&self) -> bool {
        let covering = [Component::Query, Component::TargetUri, Component::RequestTarget];
        let none = !self.has_query && self.profile == Profile::LUMO_RFC;
        none || self.components.iter().any(|component| covering.contains(component))
    }
}

/// Reads the signature of a request and checks everything that needs no key: the shape, the authority, the time, what is
/// covered, the content's digest.
///
/// # Errors
/// [`SignatureError`] says what is wrong.
pub fn read(message: &Message<'_>, accept: &Accept, now: Timestamp) -> Result<Presented, SignatureError> {
    let check = |profile: &Profile, components: &[Component]| {
        profile.check_coverage(components, message)?;
        match digest_field(message, components)? {
            Some(field) => message.content.check_digest_field(field),
            None => Ok(()),
        }
    };
    read_with(message, accept, now, check).map(|(presented, ())| presented)
}

/// The same of a request whose content is still to come: what the message has for content is not looked at. What the signature
/// says of the content is handed back, to be checked when it is there; until then nothing is known of it.
///
/// # Errors
/// [`SignatureError`] says what is wrong.
pub fn read_ahead(
    message: &Message<'_>,
    accept: &Accept,
    now: Timestamp,
) -> Result<(Presented, Promised), SignatureError> {
    let (none, some) = (Content::Bytes(b""), Content::Bytes(b"?"));
    read_with(message, accept, now, |profile, components| {
        profile.check_coverage(components, &Message { content: none, ..*message })?;
        let lacking = match profile.check_coverage(components, &Message { content: some, ..*message }) {
            Ok(()) => None,
            Err(SignatureError::NotCovered(name)) => Some(name),
            Err(error) => return Err(error),
        };
        let digest = digest_field(message, components)?;
        if let Some(field) = digest {
            // Of which content it is will be seen; that it can be told is.
            match none.check_digest_field(field) {
                Ok(()) | Err(SignatureError::DigestMismatch) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Promised { digest: digest.cloned(), lacking })
    })
}

/// What a signature says of content that was not there yet.
#[derive(Clone, Debug)]
#[must_use = "the content is not known to be the one that was signed"]
pub struct Promised {
    digest: Option<HeaderValue>,
    /// What would have to be covered for a request with content.
    lacking: Option<&'static str>,
}

impl Promised {
    /// Whether this is the content that was signed.
    ///
    /// # Errors
    /// [`SignatureError`] if it is another one, or the signature is of a request without content.
    pub fn check(&self, content: Content<'_>) -> Result<(), SignatureError> {
        match self.lacking {
            Some(name) if !content.is_empty() => return Err(SignatureError::NotCovered(name)),
            _ => {}
        }
        self.digest.as_ref().map_or(Ok(()), |field| content.check_digest_field(field))
    }
}

/// Reads a signature, with `check` for what hangs on the content.
fn read_with<T>(
    message: &Message<'_>,
    accept: &Accept,
    now: Timestamp,
    check: impl FnOnce(&Profile, &[Component]) -> Result<T, SignatureError>,
) -> Result<(Presented, T), SignatureError> {
    let input = one(message.headers, &SIGNATURE_INPUT)?;
    let signature = one(message.headers, &SIGNATURE)?;
    let (Some(input), Some(signature)) = (input, signature) else { return Err(missing(message.headers)) };
    let input = fields::signature_input(input)?;
    let (label, bytes) = fields::signature(signature)?;
    if *label != *input.label {
        return Err(SignatureError::Labels);
    }
    message.check_target()?;
    if !accept.serves(message) {
        return Err(SignatureError::Authority);
    }
    let (components, parameters) = (input.components, input.parameters);
    let names = || parameters.iter().map(|(name, _)| name.as_str());
    let profile = Profile::of(&components, names(), accept.profiles).ok_or(SignatureError::Form)?;
    profile.check_parameters(names())?;
    let own = Own::read(&parameters)?;
    own.check_time(now)?;
    let nonce = match (own.nonce, nonce_field(&components, message)?) {
        (Some(nonce), None) | (None, Some(nonce)) => nonce,
        (None, None) => return Err(SignatureError::NoParameter("nonce")),
        // Which of the two is used once would be anybody's guess.
        (Some(_), Some(_)) => return Err(SignatureError::Nonce),
    };
    check_nonce(nonce)?;
    let checked = check(&profile, &components)?;
    let values = parameters.iter().map(|(name, value)| (*name, RefBareItem::from(value)));
    let params = fields::signature_params(&components, values)?;
    let base = base::build(message, &profile, &components, &params)?;
    let signature = Signature {
        label,
        profile,
        created: own.created,
        nonce: nonce.into(),
        key_id: own.key_id.map(Box::from),
        algorithm: own.algorithm,
        has_query: message.query.is_some(),
        components,
    };
    let authority = message.normalized_authority().into();
    Ok((Presented { base, bytes, authority, signature }, checked))
}

/// The `Content-Digest` of a signature that covers it.
fn digest_field<'m>(
    message: &Message<'m>,
    components: &[Component],
) -> Result<Option<&'m HeaderValue>, SignatureError> {
    if !components.contains(&Component::Field(CONTENT_DIGEST)) {
        return Ok(None);
    }
    one(message.headers, &CONTENT_DIGEST)?.map(Some).ok_or(SignatureError::Absent(CONTENT_DIGEST))
}

/// A signature that is there and well-formed, of which nothing is proven yet.
#[derive(Clone)]
#[must_use]
pub struct Presented {
    pub(super) base: String,
    bytes: Vec<u8>,
    authority: Box<str>,
    signature: Signature,
}

/// Without the signature base, in which the values of `Authorization` and others stand.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("signature", &self.signature).finish_non_exhaustive()
    }
}

impl Presented {
    /// What it says of itself.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether `key` made the signature.
    ///
    /// # Errors
    /// [`SignatureError::Key`] and [`SignatureError::Algorithm`] if it cannot have, [`SignatureError::Invalid`] if it has
    /// not.
    pub fn verify(self, key: &PublicKey) -> Result<Verified, SignatureError> {
        let algorithm = key.http_algorithm().ok_or(SignatureError::Key)?;
        if self.signature.algorithm.is_some_and(|said| said != algorithm) {
            return Err(SignatureError::Algorithm);
        }
        if !key.verify(algorithm.jws(), self.base.as_bytes(), &self.bytes) {
            return Err(SignatureError::Invalid);
        }
        Ok(Verified { authority: self.authority, thumbprint: key.thumbprint(), signature: self.signature })
    }
}

/// A signature that a key made over this request, which may still be a copy of an earlier one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verified {
    authority: Box<str>,
    thumbprint: Thumbprint,
    signature: Signature,
}

impl Verified {
    /// What it says of itself.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The key that made it.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// The request, if its nonce is used for the first time with this key at this authority. It is remembered for two
    /// windows from `created`, which is longer than any server accepts it.
    ///
    /// # Errors
    /// [`SignatureError::Replayed`] and [`SignatureError::TooOld`] if it is not, and [`SignatureError::Store`] if that
    /// cannot be told.
    pub async fn once(
        self,
        replay: &dyn ReplayStore,
        org: &OrgId,
        now: Timestamp,
    ) -> Result<SignedRequest, SignatureError> {
        let created = self.signature.created();
        let key =
            [self.authority.as_bytes(), b"\0", self.thumbprint.as_bytes(), self.signature.nonce.as_bytes()];
        // Nobody can have presented it before a server whose clock is as far behind as may be accepted it.
        let presented_from = created.minus(Profile::WINDOW);
        let until = created.plus(Profile::WINDOW * 2);
        match replay.remember(org, SPACE, &sha256(&key.concat()), presented_from, until, now).await? {
            Remembered::First => Ok(SignedRequest { thumbprint: self.thumbprint, signature: self.signature }),
            Remembered::Replay => Err(SignatureError::Replayed),
            Remembered::TooOld => Err(SignatureError::TooOld),
        }
    }
}

/// A request that a key signed, received for the first time.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    thumbprint: Thumbprint,
    signature: Signature,
}

impl SignedRequest {
    /// What its signature says of itself.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The key that signed it.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }
}

/// Why there is no signature to read.
fn missing(headers: &HeaderMap) -> SignatureError {
    let signed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.contains("=:") && text.contains("covered="))
    };
    if headers.get_all(AGENT_AUTH).iter().any(signed) {
        SignatureError::InAgentAuth
    } else {
        SignatureError::Missing
    }
}

/// Those of its parameters that mean something here. Others are covered and else ignored (RFC 9421 section 2.3).
struct Own<'h> {
    created: u64,
    expires: Option<u64>,
    nonce: Option<&'h str>,
    key_id: Option<&'h str>,
    algorithm: Option<HttpAlgorithm>,
}

impl<'h> Own<'h> {
    fn read(parameters: &'h [Parameter<'h>]) -> Result<Self, SignatureError> {
        let mut own = Self { created: 0, expires: None, nonce: None, key_id: None, algorithm: None };
        let mut created = None;
        for (name, value) in parameters {
            match name.as_str() {
                "created" => created = Some(seconds("created", value)?),
                "expires" => own.expires = Some(seconds("expires", value)?),
                "nonce" => own.nonce = Some(text("nonce", value)?),
                "keyid" => own.key_id = Some(text("keyid", value)?),
                "alg" => {
                    let algorithm = HttpAlgorithm::from_wire(text("alg", value)?);
                    own.algorithm = Some(algorithm.ok_or(SignatureError::Parameter("alg"))?);
                }
                "tag" => return Err(SignatureError::Tag),
                _ => {}
            }
        }
        own.created = created.ok_or(SignatureError::NoParameter("created"))?;
        Ok(own)
    }

    fn check_time(&self, now: Timestamp) -> Result<(), SignatureError> {
        let (now, window) = (now.unix_seconds(), Profile::WINDOW.as_secs());
        if self.expires.is_some_and(|expires| expires < self.created) {
            return Err(SignatureError::Parameter("expires"));
        }
        if self.created > now.saturating_add(window) {
            return Err(SignatureError::Future);
        }
        if self.created.saturating_add(window) < now {
            return Err(SignatureError::Stale);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(SignatureError::Expired);
        }
        Ok(())
    }
}

fn seconds(name: &'static str, value: &BareItemFromInput<'_>) -> Result<u64, SignatureError> {
    let integer = value.as_integer().map(i64::from);
    integer.and_then(|seconds| seconds.try_into().ok()).ok_or(SignatureError::Parameter(name))
}

fn text<'h>(name: &'static str, value: &'h BareItemFromInput<'h>) -> Result<&'h str, SignatureError> {
    value.as_string().map(sfv::StringRef::as_str).ok_or(SignatureError::Parameter(name))
}

/// 12 bytes or more in base64 of one alphabet, at most 256 characters. What they are does not matter.
pub(super) fn check_nonce(nonce: &str) -> Result<(), SignatureError> {
    let digits = nonce.trim_end_matches('=');
    let padded = nonce.len() != digits.len();
    let of = |more: [u8; 2]| digits.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    let usable = nonce.len() <= 256
        && digits.len() >= 16
        && digits.len() % 4 != 1
        && (!padded || (nonce.len().is_multiple_of(4) && nonce.len() - digits.len() <= 2))
        && (of(*b"+/") || of(*b"-_"));
    if usable { Ok(()) } else { Err(SignatureError::Nonce) }
}
