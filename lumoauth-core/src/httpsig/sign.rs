//! Signing, with a key that may live elsewhere.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{KeyRef, RefBareItem, StringRef, key_ref};

use super::{
    Component, Message, Profile, SignatureError, base, fields,
    profile::{CONTENT_DIGEST, SIGNATURE_KEY},
    verify::{SIGNATURE, SIGNATURE_INPUT, check_nonce},
};
use crate::{
    clock::Timestamp,
    keys::{Algorithm, KeyError, Signer},
    random::random_bytes,
};

/// The label of every signature that is made here.
const LABEL: &str = "sig1";

/// A request could not be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key signs no HTTP messages.
    #[error("a key for {} does not sign HTTP messages here", .0.as_str())]
    Algorithm(Algorithm),
    /// The request lacks something that must be covered, or cannot be signed as it is.
    #[error("the request cannot be signed: {0}")]
    Message(#[from] SignatureError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a signature says of itself.
#[derive(Clone, Debug)]
pub struct SignWith {
    created: Timestamp,
    nonce: Box<str>,
    signature_key: Option<HeaderValue>,
    key_id: Option<Box<str>>,
}

impl SignWith {
    /// A signature made at `now`, with a random nonce of 16 bytes.
    pub fn now(now: Timestamp) -> Self {
        let nonce = URL_SAFE_NO_PAD.encode(random_bytes::<16>()).into_boxed_str();
        Self { created: now, nonce, signature_key: None, key_id: None }
    }

    /// With this nonce: 12 bytes or more in base64, never used before.
    #[must_use]
    pub fn nonce(mut self, nonce: &str) -> Self {
        self.nonce = nonce.into();
        self
    }

    /// With this `keyid`, for receivers that find the key by it. [`Profile::LUMO_SDK`] has none.
    #[must_use]
    pub fn key_id(mut self, key_id: &str) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// With this `Signature-Key`, which is sent and covered.
    #[must_use]
    pub fn signature_key(mut self, value: HeaderValue) -> Self {
        self.signature_key = Some(value);
        self
    }
}

/// The fields that make a request a signed one.
#[derive(Clone, Debug)]
pub struct SignedHeaders {
    fields: [(HeaderName, Option<HeaderValue>); 4],
}

impl SignedHeaders {
    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
    }

    /// Puts the fields into those of the request, in place of what is there under their names.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        for (name, value) in self.fields {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// Signs a request under `profile`: what it covers is what [`read`](super::read) demands. Everything else that the request
/// is to have, above all `Content-Type` and `Authorization`, must be in the message; `Content-Digest` is made here.
///
/// The signature is always in standard base64 with padding.
///
/// # Errors
/// [`SignError`] if the key is RSA (which only verifies here) or cannot be used, or the message cannot be signed: a covered
/// field is absent, empty or in several lines, the target is malformed, or the profile has no `keyid` and one is given.
pub async fn sign(
    signer: &dyn Signer,
    profile: &Profile,
    message: &Message<'_>,
    with: SignWith,
) -> Result<SignedHeaders, SignError> {
    check_nonce(&with.nonce)?;
    let mut headers = message.headers.clone();
    let digest = profile.digests(message).then(|| message.content.digest_field());
    if let Some(digest) = &digest {
        headers.insert(CONTENT_DIGEST, digest.clone());
    }
    if let Some(value) = &with.signature_key {
        headers.insert(SIGNATURE_KEY, value.clone());
    }
    let message = Message { headers: &headers, ..*message };
    let created = i64::try_from(with.created.unix_seconds()).unwrap_or(i64::MAX);
    let created = RefBareItem::try_from(created).map_err(|_| SignatureError::Parameter("created"))?;
    let nonce = StringRef::from_str(&with.nonce).map_err(|_| SignatureError::Nonce)?;
    let mut parameters = vec![(key_ref("created"), created), (key_ref("nonce"), nonce.into())];
    if let Some(key_id) = &with.key_id {
        let key_id = StringRef::from_str(key_id).map_err(|_| SignatureError::Parameter("keyid"))?;
        parameters.push((key_ref("keyid"), key_id.into()));
    }
    profile.check_parameters(parameters.iter().map(|(name, _)| name.as_str()))?;
    let components = profile.components(&message);
    let (input, signature) = sign_as(signer, profile, &message, LABEL, &components, parameters).await?;
    Ok(SignedHeaders {
        fields: [
            (CONTENT_DIGEST, digest),
            (SIGNATURE_KEY, with.signature_key),
            (SIGNATURE_INPUT, Some(input)),
            (SIGNATURE, Some(signature)),
        ],
    })
}

/// `Signature-Input` and `Signature` of a signature that covers and says just this.
pub(super) async fn sign_as<'p>(
    signer: &dyn Signer,
    profile: &Profile,
    message: &Message<'_>,
    label: &str,
    components: &[Component],
    parameters: impl IntoIterator<Item = (&'p KeyRef, RefBareItem<'p>)>,
) -> Result<(HeaderValue, HeaderValue), SignError> {
    match signer.algorithm() {
        Algorithm::EdDsa | Algorithm::Es256 => {}
        other @ Algorithm::Rs256 => return Err(SignError::Algorithm(other)),
    }
    message.check_target()?;
    let params = fields::signature_params(components, parameters)?;
    let base = base::build(message, profile, components, &params)?;
    let signature = STANDARD.encode(signer.sign(base.as_bytes()).await?);
    let field =
        |text: String| HeaderValue::try_from(text).map_err(|_| SignatureError::Malformed("Signature-Input"));
    Ok((field(format!("{label}={params}"))?, field(format!("{label}=:{signature}:"))?))
}
