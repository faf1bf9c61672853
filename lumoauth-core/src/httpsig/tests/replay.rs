//! A signature counts once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::support::{AUTHORITY, CREATED, Request, at, signer};
use crate::{
    clock::Timestamp,
    httpsig::{Accept, Profile, SignatureError, SignedRequest, read},
    id::OrgId,
    store::{MemoryStore, Remembered, ReplayStore, StoreError},
};

/// As early as the request may be received: then a memory that was made just now remembers all there is.
const NOW: u64 = CREATED - 60;

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

async fn present(
    request: &Request,
    store: &dyn ReplayStore,
    organization: &str,
    now: u64,
) -> Result<SignedRequest, SignatureError> {
    let accept = Accept::at([AUTHORITY, "other.test"]);
    let verified = read(&request.message(), &accept, at(now))?.verify(&signer().public_key().unwrap())?;
    verified.once(store, &org(organization), at(now)).await
}

#[tokio::test]
async fn the_first_counts_and_copies_do_not() {
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let store = MemoryStore::new();
        let request = Request::new().signed(profile);
        let first = present(&request, &store, "acme", NOW).await.unwrap();
        assert_eq!(first.thumbprint(), signer().public_key().unwrap().thumbprint());
        assert_eq!(first.signature().profile(), profile);
        for now in [NOW, NOW + 1, CREATED, CREATED + 60] {
            refused!(present(&request, &store, "acme", now).await, SignatureError::Replayed);
        }
        refused!(present(&request, &store, "acme", CREATED + 61).await, SignatureError::Stale);
    }
}

#[tokio::test]
async fn a_nonce_counts_once_whatever_else_the_request_is() {
    let store = MemoryStore::new();
    present(&Request::new().signed(Profile::LUMO_SDK), &store, "acme", NOW).await.unwrap();
    let another = Request { path: "/other".to_owned(), ..Request::new() }.signed(Profile::LUMO_RFC);
    refused!(present(&another, &store, "acme", NOW).await, SignatureError::Replayed);
    // The authority in another spelling is the same authority.
    let shouted = Request { authority: "AUTH.acme.test:443".to_owned(), ..Request::new() };
    refused!(
        present(&shouted.signed(Profile::LUMO_SDK), &store, "acme", NOW).await,
        SignatureError::Replayed
    );
    // Another authority and another organization are others.
    let elsewhere =
        Request { authority: "other.test".to_owned(), ..Request::new() }.signed(Profile::LUMO_SDK);
    assert!(present(&elsewhere, &store, "acme", NOW).await.is_ok());
    assert!(present(&another, &store, "other", NOW).await.is_ok());
}

#[tokio::test]
async fn of_copies_that_race_one_counts() {
    let store = Arc::new(MemoryStore::new());
    let request = Arc::new(Request::new().signed(Profile::LUMO_SDK));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (store, request) = (store.clone(), request.clone());
            tokio::spawn(async move { present(&request, &*store, "acme", NOW).await.is_ok() })
        })
        .collect();
    let mut counted = 0;
    for task in tasks {
        counted += usize::from(task.await.unwrap());
    }
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn a_signature_that_is_not_the_keys_uses_up_no_nonce() {
    let store = MemoryStore::new();
    let request = Request::new().signed(Profile::LUMO_SDK);
    let forged = request.clone().with("signature", &format!("sig1=:{}:", "A".repeat(86)));
    refused!(present(&forged, &store, "acme", NOW).await, SignatureError::Invalid);
    assert!(present(&request, &store, "acme", NOW).await.is_ok());
}

/// Space, key, first instant and end of a value.
type Asked = (String, [u8; 32], Timestamp, Timestamp);

/// A store that says one thing and keeps what it was asked.
#[derive(Debug)]
struct Says(fn() -> Result<Remembered, StoreError>, Mutex<Vec<Asked>>);

#[async_trait]
impl ReplayStore for Says {
    async fn remember(
        &self,
        _: &OrgId,
        space: &str,
        key: &[u8; 32],
        issued_at: Timestamp,
        until: Timestamp,
        _: Timestamp,
    ) -> Result<Remembered, StoreError> {
        self.1.lock().unwrap().push((space.to_owned(), *key, issued_at, until));
        (self.0)()
    }
}

#[tokio::test]
async fn a_store_that_cannot_tell_is_a_refusal_and_one_that_cannot_answer_an_outage() {
    let request = Request::new().signed(Profile::LUMO_SDK);
    let too_old = Says(|| Ok(Remembered::TooOld), Default::default());
    refused!(present(&request, &too_old, "acme", CREATED).await, SignatureError::TooOld);
    let down = Says(|| Err(StoreError::unavailable("remember", "down")), Default::default());
    let error = present(&request, &down, "acme", CREATED).await.unwrap_err();
    assert!(error.is_outage());
    assert!(!error.to_string().contains("down"), "what the backend says is not for callers");
    // Asked by the signature's own time, so that servers with different clocks agree.
    let asked = too_old.1.into_inner().unwrap();
    assert_eq!(asked[0], down.1.into_inner().unwrap()[0]);
    assert_eq!(asked[0].0, "http_signature");
    assert_eq!((asked[0].2, asked[0].3), (at(CREATED - 60), at(CREATED + 120)));
}

#[tokio::test]
async fn a_memory_that_began_after_the_signature_can_have_been_presented_refuses() {
    let request = Request::new().signed(Profile::LUMO_SDK);
    refused!(present(&request, &MemoryStore::new(), "acme", CREATED).await, SignatureError::TooOld);
}
