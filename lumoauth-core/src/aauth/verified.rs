//! Auth tokens that were verified before, at a resource: one that comes again costs a hash instead of a signature check.
//!
//! The rules are those of [`crate::token`]'s own memory: only what was verified is kept, under the hash of the whole token;
//! its time is asked at each use, and whether its key is still among the issuer's; whether it is alive is another question.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

use super::{AuthClaims, Confirmation, UnverifiedAuthToken};
use crate::{
    clock::Timestamp,
    id::AAuthIdentifier,
    jwks::{PublicKeys, Thumbprint},
    secret::sha256,
    token::InvalidToken,
};

/// How many bytes are kept.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// What an entry takes besides the claims, which are about as long as their token.
const AROUND: usize = 1536;

pub(super) struct VerifiedAuthTokens {
    entries: Cache<[u8; 32], Arc<VerifiedAuthToken>>,
}

/// A token that one of the issuer's keys signed for this resource.
pub(super) struct VerifiedAuthToken {
    pub(super) claims: Arc<AuthClaims>,
    pub(super) confirmation: Arc<Confirmation>,
    /// The key that signed it, and its name.
    signed_by: (Box<str>, Thumbprint),
    bytes: u32,
    /// How long it had to live when it came.
    life: Duration,
}

struct UntilExpiry;

impl Expiry<[u8; 32], Arc<VerifiedAuthToken>> for UntilExpiry {
    fn expire_after_create(
        &self,
        _: &[u8; 32],
        entry: &Arc<VerifiedAuthToken>,
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.life)
    }
}

impl VerifiedAuthTokens {
    pub(super) fn new() -> Self {
        let entries = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|_, entry: &Arc<VerifiedAuthToken>| entry.bytes)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilExpiry)
            .build();
        Self { entries }
    }

    /// What `token`, which is `text` taken apart, says if it is one of `issuer` for `resource`.
    pub(super) fn verify(
        &self,
        text: &str,
        token: UnverifiedAuthToken<'_>,
        keys: &PublicKeys,
        issuer: &str,
        resource: &AAuthIdentifier,
        now: Timestamp,
    ) -> Result<Arc<VerifiedAuthToken>, InvalidToken> {
        let digest = sha256(text.as_bytes());
        if let Some(known) = self.entries.get(&digest) {
            let (kid, thumbprint) = &known.signed_by;
            if keys.by_kid(kid).is_some_and(|key| key.thumbprint() == *thumbprint) {
                known.claims.check_time(now)?;
                return Ok(known);
            }
            self.entries.invalidate(&digest);
        }
        let kid: Box<str> = token.kid().into();
        let claims = token.verify(keys, issuer, resource, now)?;
        let key = keys.by_kid(&kid).ok_or(InvalidToken::UnknownKey)?;
        let verified = Arc::new(VerifiedAuthToken {
            confirmation: Arc::new(claims.confirmation()?),
            signed_by: (kid, key.thumbprint()),
            bytes: u32::try_from(text.len() + AROUND).unwrap_or(u32::MAX),
            life: Duration::from_secs(claims.exp.saturating_sub(now.unix_seconds())),
            claims: Arc::new(claims),
        });
        self.entries.insert(digest, verified.clone());
        Ok(verified)
    }
}

impl fmt::Debug for VerifiedAuthTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedAuthTokens")
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}
