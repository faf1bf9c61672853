//! Everybody else: what the server fetches, and who sits at the browser.

use std::sync::Mutex;

use async_trait::async_trait;
use http::{HeaderMap, Response, header};
use lumoauth_core::{
    fetch::{Fetch, FetchError, FetchRequest},
    id::UserId,
    organization::Organization,
    people::{SignedIn, UserAuthenticator},
    secret::SecretHash,
    store::StoreError,
};

use crate::bench::start;

/// Gives every request the same answer, keeps what was asked, and knows one person by a cookie.
#[derive(Debug)]
pub struct World {
    /// The body of each answer; without one there is no answer.
    pub answer: Mutex<Option<Vec<u8>>>,
    /// What was asked.
    pub asked: Mutex<Vec<FetchRequest>>,
    /// Who sends `sid=alice`.
    pub alice: UserId,
}

#[async_trait]
impl Fetch for World {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        self.asked.lock().expect("one thread").push(request);
        self.answer.lock().expect("one thread").clone().ok_or(FetchError::NotAllowed)
    }
}

#[async_trait]
impl UserAuthenticator for World {
    async fn signed_in(&self, _: &Organization, headers: &HeaderMap) -> Result<Option<SignedIn>, StoreError> {
        let is_alice = headers.get(header::COOKIE).is_some_and(|cookie| cookie == "sid=alice");
        Ok(is_alice.then(|| SignedIn {
            user: self.alice,
            at: start(),
            amr: vec!["pwd".to_owned()],
            session: SecretHash::of("sid=alice"),
        }))
    }

    async fn sign_in_page(
        &self,
        _: &Organization,
        _: &HeaderMap,
        _: &str,
    ) -> Result<Response<String>, StoreError> {
        Ok(Response::new("sign in".to_owned()))
    }

    fn sign_in_path(&self, _: &Organization) -> String {
        "/login".to_owned()
    }
}
