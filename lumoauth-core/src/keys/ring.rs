//! Keys of our own, rotating: sealed in a [`KeyStore`], opened and parsed once per process.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Algorithm, KeyError, KeyProvider, KeyPurpose, MasterKey, Signer, VerifyingKey,
    local::{self, LocalSigner},
    sealed::Binding,
};
use crate::{
    audit::{Actor, Event, EventKind, Target},
    clock::Timestamp,
    id::{KeyId, OrgId},
    random::random_bytes,
    store::{Insert, KeyStore, Remove, SealedKey},
};

/// How the keys of a [`KeyRing`] come and go.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyRingConfig {
    /// The algorithm of new keys for OAuth tokens. Default ES256. What the tokens of AAuth are signed by is not a matter of
    /// choice: those keys are Ed25519.
    pub algorithm: Algorithm,
    /// How long a key signs. Default 90 days.
    pub rotate_every: Duration,
    /// How long a key is published before it signs, so that verifiers have fetched it by then. At least the
    /// `max-age` of the JWK set. Default 2 hours.
    pub publish_ahead: Duration,
    /// How long a key verifies after its successor took over: the longest life of a token. Default 31 days.
    pub retire_after: Duration,
}

impl Default for KeyRingConfig {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        Self {
            algorithm: Algorithm::Es256,
            rotate_every: Duration::from_secs(90 * DAY),
            publish_ahead: Duration::from_secs(2 * HOUR),
            retire_after: Duration::from_secs(31 * DAY),
        }
    }
}

impl KeyRingConfig {
    /// The same with another algorithm for new keys for OAuth tokens.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    fn algorithm_for(&self, purpose: KeyPurpose) -> Algorithm {
        match purpose {
            KeyPurpose::AccessToken => self.algorithm,
            KeyPurpose::AAuth | KeyPurpose::AuditHead => Algorithm::EdDsa,
        }
    }
}

/// The [`KeyProvider`] that keeps its keys, sealed, in a [`KeyStore`].
///
/// A key has three windows and no flags: *upcoming* before `active_from`, *active* until its successor's
/// `active_from`, *retiring* for `retire_after` more. All three verify, only the active one signs.
#[derive(Debug)]
pub struct KeyRing {
    store: Arc<dyn KeyStore>,
    master: MasterKey,
    config: KeyRingConfig,
    loaded: RwLock<HashMap<OrgId, Arc<Loaded>>>,
}

/// The keys of one organization as they were at `at`.
#[derive(Debug)]
struct Loaded {
    at: Timestamp,
    keys: Vec<LoadedKey>,
    verifying: HashMap<KeyPurpose, Arc<[VerifyingKey]>>,
}

#[derive(Debug)]
struct LoadedKey {
    purpose: KeyPurpose,
    generation: u32,
    active_from: Timestamp,
    signer: Arc<LocalSigner>,
}

impl KeyRing {
    /// How old the opened keys may be. Keys are published hours before they sign, so this hides nothing.
    const FRESH: Duration = Duration::from_secs(60);

    /// A ring over `store`, sealing with `master`.
    pub fn new(store: Arc<dyn KeyStore>, master: MasterKey, config: KeyRingConfig) -> Self {
        Self { store, master, config, loaded: RwLock::default() }
    }

    /// The opened keys; with the first key made if there is none yet.
    async fn load(&self, org: &OrgId, purpose: KeyPurpose, now: Timestamp) -> Result<Arc<Loaded>, KeyError> {
        let cached = self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(org).cloned();
        if let Some(loaded) = cached
            && now.since(loaded.at) < Self::FRESH
            && loaded.verifying.contains_key(&purpose)
        {
            return Ok(loaded);
        }
        let mut stored = self.store.list(org).await?;
        if !stored.iter().any(|key| key.purpose == purpose) {
            self.create(org, purpose, 0, now, now).await?;
            stored = self.store.list(org).await?;
        }
        let loaded = Arc::new(self.open(org, &stored, now)?);
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(org.clone(), loaded.clone());
        Ok(loaded)
    }

    fn open(&self, org: &OrgId, stored: &[SealedKey], now: Timestamp) -> Result<Loaded, KeyError> {
        let mut keys = Vec::with_capacity(stored.len());
        let mut verifying: HashMap<_, Vec<VerifyingKey>> = HashMap::new();
        for key in stored.iter().filter(|key| !self.is_past(key, stored, now)) {
            let place = Binding { org, purpose: key.purpose, id: &key.id };
            let pkcs8 = self.master.open(&place, &key.sealed)?;
            let signer = LocalSigner::from_pkcs8(key.id.clone(), key.algorithm, &pkcs8)?;
            verifying.entry(key.purpose).or_default().push(signer.verifying_key()?);
            keys.push(LoadedKey {
                purpose: key.purpose,
                generation: key.generation,
                active_from: key.active_from,
                signer: Arc::new(signer),
            });
        }
        let verifying = verifying.into_iter().map(|(purpose, keys)| (purpose, keys.into())).collect();
        Ok(Loaded { at: now, keys, verifying })
    }

    /// Whether no token can need `key` any more.
    fn is_past(&self, key: &SealedKey, all: &[SealedKey], now: Timestamp) -> bool {
        if key.purpose == KeyPurpose::AuditHead {
            return false;
        }
        all.iter()
            .filter(|other| other.purpose == key.purpose && other.generation > key.generation)
            .map(|successor| successor.active_from.plus(self.config.retire_after))
            .min()
            .is_some_and(|end| end <= now)
    }

    /// Makes the first key of `purpose` if there is none, and the next one if it is due. Whether it made one.
    async fn renew(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        stored: &[SealedKey],
        now: Timestamp,
    ) -> Result<bool, KeyError> {
        let newest = stored.iter().filter(|key| key.purpose == purpose).max_by_key(|key| key.generation);
        let Some(newest) = newest else {
            self.create(org, purpose, 0, now, now).await?;
            return Ok(true);
        };
        let next_from = newest.active_from.plus(self.config.rotate_every);
        let due = next_from.minus(self.config.publish_ahead) <= now;
        if due {
            let active_from = next_from.max(now.plus(self.config.publish_ahead));
            self.create(org, purpose, newest.generation + 1, active_from, now).await?;
        }
        Ok(due)
    }

    /// Makes the next key. That another server has just made it is as good.
    async fn create(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        generation: u32,
        active_from: Timestamp,
        now: Timestamp,
    ) -> Result<(), KeyError> {
        let name = u64::from_be_bytes(random_bytes());
        let id = KeyId::parse(&format!("{name:016x}")).map_err(|_| KeyError::Crypto("key id"))?;
        let algorithm = self.config.algorithm_for(purpose);
        let pkcs8 = local::generate(algorithm)?;
        let sealed = self.master.seal(&Binding { org, purpose, id: &id }, &pkcs8)?;
        let event = Event::new(EventKind::KeyCreated, Actor::system(), "signing key created", now)
            .on(Target::new("key", id.as_str()));
        let key = SealedKey { id, purpose, generation, algorithm, created_at: now, active_from, sealed };
        match self.store.insert(org, &key, &event).await? {
            Insert::Inserted | Insert::Taken(_) => Ok(()),
        }
    }
}

#[async_trait]
impl KeyProvider for KeyRing {
    async fn signer(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<dyn Signer>, KeyError> {
        let loaded = self.load(org, purpose, now).await?;
        let of_purpose = || loaded.keys.iter().filter(|key| key.purpose == purpose);
        let active = of_purpose()
            .filter(|key| key.active_from <= now)
            .max_by_key(|key| (key.active_from, key.generation))
            // The very first key may be stamped by a server whose clock is a little ahead of ours.
            .or_else(|| of_purpose().min_by_key(|key| key.generation))
            .ok_or(KeyError::Crypto("no signing key"))?;
        Ok(active.signer.clone())
    }

    async fn verifying_keys(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<[VerifyingKey]>, KeyError> {
        let loaded = self.load(org, purpose, now).await?;
        Ok(loaded.verifying.get(&purpose).cloned().unwrap_or_default())
    }

    async fn maintain(&self, org: &OrgId, now: Timestamp) -> Result<(), KeyError> {
        let stored = self.store.list(org).await?;
        let mut changed = false;
        for purpose in KeyPurpose::ALL {
            changed |= self.renew(org, purpose, &stored, now).await?;
        }
        for key in stored.iter().filter(|key| self.is_past(key, &stored, now)) {
            let event = Event::new(EventKind::KeyRemoved, Actor::system(), "signing key removed", now)
                .on(Target::new("key", key.id.as_str()));
            match self.store.remove(org, &key.id, &event).await? {
                Remove::Removed | Remove::Missing | Remove::Stale => changed = true,
            }
        }
        if changed {
            self.loaded.write().unwrap_or_else(PoisonError::into_inner).remove(org);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn ring(store: &Arc<MemoryStore>) -> KeyRing {
        KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default())
    }

    #[tokio::test]
    async fn a_key_is_published_before_it_signs_and_verifies_after_it_signed() {
        for purpose in KeyPurpose::ALL {
            published_before_and_after(purpose).await;
        }
    }

    async fn published_before_and_after(purpose: KeyPurpose) {
        let org = OrgId::parse("acme").unwrap();
        let store = Arc::new(MemoryStore::new());
        let ring = ring(&store);
        let config = KeyRingConfig::default();
        let start = Timestamp::from_unix_seconds(1_000_000);
        let signer_at = async |now| ring.signer(&org, purpose, now).await.unwrap().key_id().clone();
        let published = async |now| ring.verifying_keys(&org, purpose, now).await.unwrap().len();

        ring.maintain(&org, start).await.unwrap();
        let first = signer_at(start).await;
        let eve = start.plus(config.rotate_every).minus(config.publish_ahead);
        ring.maintain(&org, eve.minus(Duration::from_secs(1))).await.unwrap();
        assert_eq!(published(eve.minus(Duration::from_secs(1))).await, 1);

        ring.maintain(&org, eve).await.unwrap();
        assert_eq!(published(eve).await, 2);
        assert_eq!(signer_at(eve).await, first);
        let handover = start.plus(config.rotate_every);
        assert_eq!(signer_at(handover.minus(Duration::from_millis(1))).await, first);
        let second = signer_at(handover).await;
        assert_ne!(second, first);

        let end = handover.plus(config.retire_after);
        ring.maintain(&org, end.minus(Duration::from_secs(1))).await.unwrap();
        assert_eq!(published(end.minus(Duration::from_secs(1))).await, 2);
        ring.maintain(&org, end).await.unwrap();
        assert_eq!(signer_at(end).await, second);
        if purpose == KeyPurpose::AuditHead {
            assert_eq!(published(end).await, 2);
            return;
        }
        assert!(!ring.verifying_keys(&org, purpose, end).await.unwrap().iter().any(|key| *key.id() == first));
    }

    #[tokio::test]
    async fn servers_that_start_at_once_share_one_first_key() {
        let org = OrgId::parse("acme").unwrap();
        let store = Arc::new(MemoryStore::new());
        let master = MasterKey::generate();
        let now = Timestamp::from_unix_seconds(1);
        let rings: Vec<_> =
            (0..16).map(|_| KeyRing::new(store.clone(), master.clone(), KeyRingConfig::default())).collect();
        let signers = rings.iter().map(|ring| ring.signer(&org, KeyPurpose::AccessToken, now));
        let ids: std::collections::HashSet<_> = futures_util::future::join_all(signers)
            .await
            .into_iter()
            .map(|signer| signer.unwrap().key_id().clone())
            .collect();
        assert_eq!(ids.len(), 1);
    }

    #[tokio::test]
    async fn keys_of_aauth_are_ed25519_and_those_of_oauth_are_what_is_configured() {
        let org = OrgId::parse("acme").unwrap();
        let now = Timestamp::from_unix_seconds(1);
        for configured in [Algorithm::Es256, Algorithm::Rs256, Algorithm::EdDsa] {
            let config = KeyRingConfig::default().with_algorithm(configured);
            let store = Arc::new(MemoryStore::new());
            let ring = KeyRing::new(store.clone(), MasterKey::generate(), config);
            ring.maintain(&org, now).await.unwrap();
            let made: Vec<_> = KeyStore::list(&*store, &org).await.unwrap();
            assert_eq!(made.len(), KeyPurpose::ALL.len());
            for (purpose, algorithm) in
                KeyPurpose::ALL.into_iter().zip([configured, Algorithm::EdDsa, Algorithm::EdDsa])
            {
                let signer = ring.signer(&org, purpose, now).await.unwrap();
                assert_eq!(signer.algorithm(), algorithm);
                let keys = ring.verifying_keys(&org, purpose, now).await.unwrap();
                assert!(keys.iter().map(VerifyingKey::id).eq([signer.key_id()]), "{purpose:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_first_key_of_a_purpose_is_made_when_it_is_asked_for() {
        let org = OrgId::parse("acme").unwrap();
        let store = Arc::new(MemoryStore::new());
        let ring = ring(&store);
        let now = Timestamp::from_unix_seconds(1);
        let [oauth, aauth, _] = KeyPurpose::ALL;
        let first = ring.signer(&org, oauth, now).await.unwrap();
        let other = ring.signer(&org, aauth, now).await.unwrap();
        assert_ne!(first.key_id(), other.key_id());
        assert_eq!(ring.signer(&org, oauth, now).await.unwrap().key_id(), first.key_id());
    }

    #[tokio::test]
    async fn another_master_key_opens_nothing() {
        let org = OrgId::parse("acme").unwrap();
        let store = Arc::new(MemoryStore::new());
        let now = Timestamp::from_unix_seconds(1);
        ring(&store).maintain(&org, now).await.unwrap();
        let error = ring(&store).signer(&org, KeyPurpose::AccessToken, now).await.unwrap_err();
        assert!(matches!(error, KeyError::Sealed(_)));
    }
}
