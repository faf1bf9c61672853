//! Signed requests: HTTP Message Signatures (RFC 9421) over the content's digest (RFC 9530).
//!
//! This knows nothing of tokens: it tells that a key signed a request, and whoever asks decides which key that must be.
//!
//! # The steps
//!
//! 1. [`read`] checks all that needs no key, the cheap things first: sizes and syntax, one signature under one label, the
//!    authority, the time, what is covered, and the digest over the content as it was received.
//! 2. [`Presented::verify`] checks the signature by a key that the caller found by then. The algorithm is the key's.
//! 3. [`Verified::once`] asks the replay store whether the nonce is new, last of all: so nobody can use up the nonces of
//!    others, and two copies that race are told apart.
//!
//! Each step gives what the next one starts from, so none can be left out or done too early. Whoever wants to know who signed
//! before the content is there takes [`read_ahead`] for the first step, and checks what was [`Promised`] when it has come.
//!
//! # What is accepted
//!
//! | | [`Profile::LUMO_SDK`] | [`Profile::LUMO_RFC`] |
//! |---|---|---|
//! | covered | the seven of the SDKs in their order, then perhaps `@query` | what the request's meaning hangs on, in any order |
//! | covered and absent | `signature-key` and `authorization` count as empty | refused |
//! | parameters | `created` and `nonce`, in this order | both, and others but `tag` |
//! | `@authority` | as received | lower case, without the default port |
//! | `Content-Digest` | always | with content |
//!
//! Both want `created` within [`Profile::WINDOW`] and a nonce of 12 bytes or more. Both refuse: several signatures or
//! labels; a name twice in one field; a covered field in several lines; parameters of covered components; derived
//! components of responses; `alg` that is not the key's; anything longer than it can need to be. The value of `Signature`
//! may be in the URL alphabet, since some senders write it so; what is made here never is. RSA keys verify here
//! (`rsa-pss-sha512`) and do not sign, since a [`Signer`](crate::keys::Signer) of RSA makes RS256 and nothing else.
//!
//! # Example
//!
//! ```
//! use futures_util::FutureExt;
//! use http::{HeaderMap, Method};
//! use lumoauth_core::{
//!     clock::{Clock, SystemClock},
//!     httpsig::{self, Accept, Content, Message, Profile, SignWith, SignatureError},
//!     id::{KeyId, OrgId},
//!     keys::{Algorithm, LocalSigner},
//!     store::MemoryStore,
//! };
//!
//! fn message(headers: &HeaderMap) -> Message<'_> {
//!     Message {
//!         method: &Method::POST,
//!         scheme: "https",
//!         authority: "api.example",
//!         path: "/orders",
//!         query: None,
//!         headers,
//!         content: Content::Bytes(b"{}"),
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let signer = LocalSigner::generate(KeyId::parse("key-1")?, Algorithm::EdDsa)?;
//! let mut headers = HeaderMap::new();
//! headers.insert("content-type", "application/json".parse()?);
//!
//! // The sender.
//! let now = SystemClock::new().now();
//! let signed = httpsig::sign(&signer, &Profile::LUMO_RFC, &message(&headers), SignWith::now(now)).await?;
//! signed.insert_into(&mut headers);
//!
//! // The receiver, which knows the key, and lets a nonce pass once. This store keeps everything of its server; one that
//! // only remembers nonces refuses what may be older than itself.
//! let (key, replay, org) = (signer.public_key()?, MemoryStore::from_the_beginning(), OrgId::parse("acme-corp")?);
//! let accept = Accept::at(["api.example"]);
//! let verified = httpsig::read(&message(&headers), &accept, now)?.verify(&key)?;
//! assert_eq!(verified.thumbprint(), key.thumbprint());
//! let copy = verified.clone();
//! assert!(verified.once(&replay, &org, now).await.is_ok());
//! assert!(matches!(copy.once(&replay, &org, now).await, Err(SignatureError::Replayed)));
//! # Ok(())
//! # }
//! # run().now_or_never().expect("memory answers at once")
//! # }
//! ```

mod base;
mod component;
mod digest;
mod error;
mod fields;
mod message;
mod profile;
mod sign;
mod verify;

pub use component::Component;
pub use digest::{Digester, Digests};
pub use error::SignatureError;
pub use message::{Content, Message};
pub use profile::Profile;
pub use sign::{SignError, SignWith, SignedHeaders, sign};
pub use verify::{Accept, Presented, Promised, Signature, SignedRequest, Verified, read, read_ahead};

#[cfg(test)]
mod tests;
