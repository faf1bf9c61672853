//! Tokens that were verified before: a token that comes again costs a hash instead of a signature check.
//!
//! 1. Only what [`verify`](super::verify) found is kept, under the SHA-256 of the issuer and the whole token: a token
//!    that differs in one bit, or is shown to another organization, is another entry and is verified by itself.
//! 2. What can change without the token is asked at each use: whether its time has come and is not over, and whether
//!    the key that signed it is still among the issuer's, unchanged.
//! 3. Refusals are not kept, and whether a token is alive is no question for this cache: see
//!    [`principal_of`](super::principal_of).
//! 4. It holds a bounded number of bytes, and nothing beyond the `exp` of its token.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

use super::{
    AccessClaims, InvalidToken, MAX_TOKEN_BYTES,
    jwt::{self, check_time},
};
use crate::{
    clock::Timestamp,
    keys::{Jwk, VerifyingKey},
    secret::sha256,
};

/// How many bytes are kept: about 16 000 tokens of the usual size.
const CAPACITY: u64 = 32 * 1024 * 1024;

/// What an entry takes besides the claims, which are about as long as their token: its key, and the cache's own.
const AROUND: usize = 1024;

type Digest = [u8; 32];

/// Tokens of all organizations that were verified. One per server.
pub(crate) struct VerifiedTokens {
    entries: Cache<Digest, Arc<Entry>>,
}

struct Entry {
    claims: Arc<AccessClaims>,
    /// The key that signed it.
    key: Jwk,
    /// What it counts for.
    bytes: u32,
    /// How long it had to live when it came.
    life: Duration,
}

struct UntilExpiry;

impl Expiry<Digest, Arc<Entry>> for UntilExpiry {
    fn expire_after_create(&self, _: &Digest, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.life)
    }
}

impl VerifiedTokens {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::of_bytes(CAPACITY)
    }

    fn of_bytes(capacity: u64) -> Self {
        // Least recently used, and not least often: tokens live for an hour, so what was popular is soon dead.
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Arc<Entry>| entry.bytes)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilExpiry)
            .build();
        Self { entries }
    }

    /// What [`verify`](super::verify) says about `token`, without a second check of its signature.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub(crate) fn verify(
        &self,
        token: &str,
        keys: &[VerifyingKey],
        issuer: &str,
        now: Timestamp,
    ) -> Result<Arc<AccessClaims>, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLong);
        }
        // A verified token has no line break in it, so no two pairs are one text.
        let digest = sha256(&[issuer.as_bytes(), b"\n", token.as_bytes()].concat());
        if let Some(entry) = self.entries.get(&digest) {
            let still_valid = if keys.iter().any(|key| *key.jwk() == entry.key) {
                check_time(&entry.claims, now)
            } else {
                Err(InvalidToken::UnknownKey)
            };
            return match still_valid {
                Ok(()) => Ok(entry.claims.clone()),
                Err(error) => {
                    self.entries.invalidate(&digest);
                    Err(error)
                }
            };
        }
        let (claims, key) = jwt::verify_by(token, keys, issuer, now)?;
        let claims = Arc::new(claims);
        let entry = Entry {
            claims: claims.clone(),
            key: key.jwk().clone(),
            bytes: u32::try_from(token.len() + AROUND).unwrap_or(u32::MAX),
            life: Duration::from_secs(claims.exp.saturating_sub(now.unix_seconds())),
        };
        self.entries.insert(digest, Arc::new(entry));
        Ok(claims)
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens").field("entries", &self.entries.entry_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;
    use crate::{
        id::OrgId,
        keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey, Signer},
        store::MemoryStore,
        token::{sign, verify},
    };

    const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
    const NOW: u64 = 1_790_000_000;

    struct Bench {
        tokens: VerifiedTokens,
        ring: KeyRing,
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    impl Bench {
        fn new() -> Self {
            let store = Arc::new(MemoryStore::new());
            let ring = KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default());
            Self { tokens: VerifiedTokens::new(), ring }
        }

        async fn keys(&self, org: &str) -> Arc<[VerifyingKey]> {
            let org = OrgId::parse(org).unwrap();
            self.ring.verifying_keys(&org, KeyPurpose::AccessToken, at(NOW)).await.unwrap()
        }

        async fn token(&self, jti: &str) -> String {
            let org = OrgId::parse("acme").unwrap();
            let signer: Arc<dyn Signer> =
                self.ring.signer(&org, KeyPurpose::AccessToken, at(NOW)).await.unwrap();
            let claims = json!({
                "iss": ISSUER, "sub": "agent:a", "aud": "cli_a", "client_id": "cli_a",
                "identity_type": "agent", "agent_id": "agt_3f6b1c1e0c1d4d5e9a550a6e5b9d1f10",
                "scope": "read:a", "organization": "acme", "tenant": "acme", "iat": NOW, "nbf": NOW,
                "exp": NOW + 3600, "jti": jti, "lin": {"e": [0, 0]},
            });
            sign(&*signer, "at+jwt", &claims).await.unwrap()
        }

        fn entries(&self) -> u64 {
            self.tokens.entries.run_pending_tasks();
            self.tokens.entries.entry_count()
        }
    }

    #[tokio::test]
    async fn a_token_seen_before_is_not_verified_again() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        let first = bench.tokens.verify(&token, &keys, ISSUER, at(NOW)).unwrap();
        let again = bench.tokens.verify(&token, &keys, ISSUER, at(NOW + 1)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(*first, verify(&token, &keys, ISSUER, at(NOW)).unwrap());
        assert_eq!(bench.entries(), 1);
    }

    #[tokio::test]
    async fn another_organization_does_not_know_it() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        bench.tokens.verify(&token, &keys, ISSUER, at(NOW)).unwrap();
        let theirs = "https://auth.example/orgs/globex/api/v1";
        let strange = bench.keys("globex").await;
        let seen = |keys: &[VerifyingKey], issuer| bench.tokens.verify(&token, keys, issuer, at(NOW));
        assert_eq!(seen(&strange, theirs).unwrap_err(), InvalidToken::UnknownKey);
        // Not even if it had the same keys.
        assert_eq!(seen(&keys, theirs).unwrap_err(), InvalidToken::WrongIssuer);
        assert_eq!(bench.entries(), 1);
    }

    #[tokio::test]
    async fn one_bit_makes_another_token() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        bench.tokens.verify(&token, &keys, ISSUER, at(NOW)).unwrap();
        let parts: Vec<Vec<u8>> =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        for part in 0..parts.len() {
            for byte in 0..parts[part].len() {
                let mut flipped = parts.clone();
                flipped[part][byte] ^= 1 << (byte % 8);
                let text: Vec<_> = flipped.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
                assert!(bench.tokens.verify(&text.join("."), &keys, ISSUER, at(NOW)).is_err());
            }
        }
        assert_eq!(bench.entries(), 1);
    }

    #[tokio::test]
    async fn time_is_asked_each_time() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        let seen_at = |now| bench.tokens.verify(&token, &keys, ISSUER, at(now)).map(|_| ());
        assert_eq!(seen_at(NOW), Ok(()));
        assert_eq!(seen_at(NOW + 3599), Ok(()));
        assert_eq!(seen_at(NOW + 3600), Err(InvalidToken::Expired));
        assert_eq!(bench.entries(), 0);
        assert_eq!(seen_at(NOW), Ok(()));
        assert_eq!(seen_at(NOW - 31), Err(InvalidToken::NotYetValid));
        assert_eq!(seen_at(NOW - 30), Ok(()));
    }

    #[tokio::test]
    async fn a_token_falls_with_its_key() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        let seen = |keys: &[VerifyingKey]| bench.tokens.verify(&token, keys, ISSUER, at(NOW)).map(|_| ());
        assert_eq!(seen(&keys), Ok(()));
        assert_eq!(seen(&[]), Err(InvalidToken::UnknownKey));
        assert_eq!(bench.entries(), 0);
        assert_eq!(seen(&keys), Ok(()));
        // Another key in its place, under its name.
        let strange = bench.keys("globex").await;
        let point = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref().unwrap()).unwrap();
        let jwk = strange[0].jwk();
        let point = [vec![4], point(&jwk.x), point(&jwk.y)].concat();
        let impostor = VerifyingKey::es256(keys[0].id().clone(), &point).unwrap();
        assert_eq!(seen(std::slice::from_ref(&impostor)), Err(InvalidToken::UnknownKey));
        assert_eq!(seen(&[impostor]), Err(InvalidToken::Signature));
        assert_eq!(seen(&keys), Ok(()));
    }

    #[tokio::test]
    async fn it_stays_within_its_bounds_and_a_long_text_is_not_looked_at() {
        const ROOM: u64 = 8;
        let bench = Bench::new();
        let keys = bench.keys("acme").await;
        let bytes = u64::try_from(bench.token("00").await.len() + AROUND).unwrap();
        let bench = Bench { tokens: VerifiedTokens::of_bytes(ROOM * bytes), ..bench };
        for number in 0..4 * ROOM {
            let token = bench.token(&format!("{number:02}")).await;
            bench.tokens.verify(&token, &keys, ISSUER, at(NOW)).unwrap();
            assert!(bench.entries() <= ROOM);
        }
        assert_eq!(bench.entries(), ROOM);
        let long = "A".repeat(MAX_TOKEN_BYTES + 1);
        let refused = bench.tokens.verify(&long, &keys, ISSUER, at(NOW));
        assert_eq!(refused.unwrap_err(), InvalidToken::TooLong);
    }

    #[tokio::test]
    async fn debug_shows_no_token_and_no_claim() {
        let bench = Bench::new();
        let (keys, token) = (bench.keys("acme").await, bench.token("j").await);
        bench.tokens.verify(&token, &keys, ISSUER, at(NOW)).unwrap();
        assert_eq!(bench.entries(), 1);
        assert_eq!(format!("{:?}", bench.tokens), "VerifiedTokens { entries: 1, .. }");
    }
}
