//! People's passwords: argon2id, away from the threads that answer requests.

use std::{num::NonZero, sync::Arc, thread, time::Duration};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use async_trait::async_trait;
use lumoauth_core::{
    random::random_bytes,
    secret::Secret,
    server::{HashError, PasswordHasher},
    user::PasswordHash,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Hashes and checks with argon2id and the parameters that its crate recommends (19 MiB, two passes).
///
/// At most one of them per core at a time: each takes tens of milliseconds and 19 MiB, and callers beyond wait
/// their turn, for some seconds, rather than take the memory of the machine.
#[derive(Debug)]
pub(crate) struct Argon2id {
    slots: Arc<Semaphore>,
}

impl Argon2id {
    /// A hasher for this machine.
    pub(crate) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self { slots: Arc::new(Semaphore::new(cores)) }
    }

    /// Whether `password` is the one behind `hash`. Without a hash it is not, and takes as long to be found so: nobody
    /// learns from the time which accounts there are.
    ///
    /// # Errors
    /// [`HashError`] if that cannot be found out now.
    pub(crate) async fn verify(
        &self,
        password: &Secret,
        hash: Option<&PasswordHash>,
    ) -> Result<bool, HashError> {
        let (password, hash) = (password.clone(), hash.cloned());
        self.in_slot(move || {
            let phc = hash.as_ref().map_or(NOBODY, PasswordHash::expose);
            Argon2::default().verify_password(password.expose().as_bytes(), phc).is_ok() && hash.is_some()
        })
        .await
    }

    /// Runs `work` away from the threads that answer requests, when a core is free for it.
    async fn in_slot<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let slot = timeout(PATIENCE, self.slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| HashError::new("too many are waiting"))?;
        let slot = slot.map_err(|_| HashError::new("hasher is closed"))?;
        let working = spawn_blocking(move || {
            // The slot moves in: a caller who gives up does not stop the work, so it must still be counted.
            let _slot = slot;
            work()
        });
        working.await.map_err(|_| HashError::new("hashing did not finish"))
    }
}

/// How long a caller waits for a turn. Browsers wait longer, but nobody who looks at one does.
const PATIENCE: Duration = Duration::from_secs(10);

/// A hash with the parameters of all others that belongs to no password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[async_trait]
impl PasswordHasher for Argon2id {
    async fn hash(&self, password: &Secret) -> Result<PasswordHash, HashError> {
        let password = password.clone();
        self.in_slot(move || hash(&password)).await?
    }
}

fn hash(password: &Secret) -> Result<PasswordHash, HashError> {
    let salt: [u8; 16] = random_bytes();
    Argon2::default()
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map(|phc| PasswordHash::new(phc.to_string()))
        .map_err(|_| HashError::new("argon2 refused the password"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_and_fits_its_password_only() {
        let argon = Argon2id::new();
        let hash = argon.hash(&Secret::from("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        let verify = async |password: &str| argon.verify(&Secret::from(password), Some(&hash)).await.unwrap();
        assert!(verify("correct horse").await);
        assert!(!verify("battery staple").await);
        assert!(!verify("").await);
    }

    #[tokio::test]
    async fn no_hash_fits_no_password_and_costs_as_much() {
        assert!(argon2::PasswordHash::new(NOBODY).is_ok());
        let fresh = hash(&Secret::from("correct horse")).unwrap();
        let (parameters, _) = fresh.expose().split_at(fresh.expose().find("p=1$").unwrap() + 4);
        assert!(NOBODY.starts_with(parameters), "{parameters}");
        assert!(!Argon2id::new().verify(&Secret::from(""), None).await.unwrap());
    }
}
