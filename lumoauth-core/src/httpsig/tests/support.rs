//! A request that tests change before or after it is signed.

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sfv::{RefBareItem, StringRef, key_ref};

use crate::{
    clock::Timestamp,
    httpsig::{
        Accept, Component, Content, Message, Presented, Profile, SignWith, SignatureError, Verified, read,
        read_ahead, sign, sign::sign_as,
    },
    id::KeyId,
    keys::LocalSigner,
};

pub(super) const CREATED: u64 = 1_750_000_000;
pub(super) const NONCE: &str = "AAECAwQFBgcICQoLDA0ODw";
pub(super) const AUTHORITY: &str = "auth.acme.test";
pub(super) const PATH: &str = "/orgs/acme-corp/api/v1/aauth/agent/token";
pub(super) const BODY: &str =
    r#"{"request_type": "auth", "resource_token": "RESOURCE_TOKEN_FIXED", "scope": "read write"}"#;

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

/// The key of the contract's vector: its seed is the bytes 0 to 31.
pub(super) fn signer() -> LocalSigner {
    let seed: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    LocalSigner::from_ed25519_seed(KeyId::parse("key-1").unwrap(), &seed).unwrap()
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The request of the contract's vector, unsigned.
    pub(super) fn new() -> Self {
        Self {
            method: Method::POST,
            scheme: "https".to_owned(),
            authority: AUTHORITY.to_owned(),
            path: PATH.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            body: BODY.as_bytes().to_vec(),
        }
        .with("content-type", "application/json")
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// With one more line of a field.
    pub(super) fn and(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub(super) fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(super) fn message(&self) -> Message<'_> {
        Message {
            method: &self.method,
            scheme: &self.scheme,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            content: Content::Bytes(&self.body),
        }
    }

    /// Signed as this profile does it.
    pub(super) fn signed(mut self, profile: Profile) -> Self {
        let with = SignWith::now(at(CREATED)).nonce(NONCE);
        let signer = signer();
        let signing = sign(&signer, &profile, &self.message(), with).now_or_never();
        let fields = signing.unwrap().unwrap();
        fields.insert_into(&mut self.headers);
        self
    }

    /// Validly signed over just `components`, with `created` and `nonce`: what only the coverage can be wrong with.
    pub(super) fn covering(self, profile: Profile, components: &[&str]) -> Self {
        let nonce = StringRef::from_str(NONCE).unwrap();
        let created = RefBareItem::try_from(i64::try_from(CREATED).unwrap()).unwrap();
        self.saying(profile, components, &[("created", created), ("nonce", nonce.into())])
    }

    /// Validly signed over `components`, with these parameters. `Content-Digest` is made if it is covered and missing.
    pub(super) fn saying(
        mut self,
        profile: Profile,
        components: &[&str],
        parameters: &[(&'static str, RefBareItem<'_>)],
    ) -> Self {
        if components.contains(&"content-digest") && !self.headers.contains_key("content-digest") {
            self.headers.insert("content-digest", self.message().content.digest_field());
        }
        let components: Vec<_> = components.iter().map(|name| Component::parse(name).unwrap()).collect();
        let signer = signer();
        let message = self.message();
        let parameters = parameters.iter().map(|(name, value)| (key_ref(name), *value));
        let signing = sign_as(&signer, &profile, &message, "sig1", &components, parameters);
        let (input, signature) = signing.now_or_never().unwrap().unwrap();
        self.headers.insert("signature-input", input);
        self.headers.insert("signature", signature);
        self
    }

    pub(super) fn read(&self) -> Result<Presented, SignatureError> {
        self.read_at(CREATED)
    }

    pub(super) fn read_at(&self, now: u64) -> Result<Presented, SignatureError> {
        read(&self.message(), &Accept::at([AUTHORITY]), at(now))
    }

    /// Read and verified, by either profile.
    pub(super) fn check(&self) -> Result<Verified, SignatureError> {
        let read = self.read();
        assert_eq!(read.is_ok(), self.read_ahead().is_ok(), "{self:?}");
        read?.verify(&signer().public_key().unwrap())
    }

    /// Read before the content is there, which is looked at then.
    fn read_ahead(&self) -> Result<(), SignatureError> {
        let (message, later) = (self.message(), Content::Bytes(&self.body));
        for content in [Content::Bytes(b""), Content::Bytes(b"of another request")] {
            let ahead = Message { content, ..message };
            read_ahead(&ahead, &Accept::at([AUTHORITY]), at(CREATED))?.1.check(later)?;
        }
        Ok(())
    }
}
