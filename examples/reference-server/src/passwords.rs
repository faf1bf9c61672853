//! People's passwords: argon2id, away from the threads that answer requests.

use std::{num::NonZero, sync::Arc, thread};

use argon2::{Argon2, PasswordHasher as _};
use async_trait::async_trait;
use lumoauth_core::{
    random::random_bytes,
    secret::Secret,
    server::{HashError, PasswordHasher},
    user::PasswordHash,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Hashes with argon2id and the parameters that its crate recommends (19 MiB, two passes).
///
/// At most one hash per core at a time: each takes tens of milliseconds and 19 MiB, and callers beyond wait
/// their turn rather than take the memory of the machine.
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
}

#[async_trait]
impl PasswordHasher for Argon2id {
    async fn hash(&self, password: &Secret) -> Result<PasswordHash, HashError> {
        let slot =
            self.slots.clone().acquire_owned().await.map_err(|_| HashError::new("hasher is closed"))?;
        let password = password.clone();
        let hashing = spawn_blocking(move || {
            // The slot moves in: a caller who gives up does not stop the work, so it must still be counted.
            let _slot = slot;
            hash(&password)
        });
        hashing.await.map_err(|_| HashError::new("hashing did not finish"))?
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
    use argon2::PasswordVerifier;

    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_and_fits_its_password_only() {
        let hash = Argon2id::new().hash(&Secret::from("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        let verify = |password: &str| Argon2::default().verify_password(password.as_bytes(), hash.expose());
        assert!(verify("correct horse").is_ok());
        assert!(verify("battery staple").is_err());
    }
}
