//! Cases of [`KeyStore`].

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

use super::{RACERS, count, now, race, some_event, some_org, unique};
use crate::{
    id::{KeyId, OrgId},
    keys::{Algorithm, KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
    random::random_bytes,
    store::{Insert, KeyStore, MemoryStore, Remove, SealedKey, Unique},
};

fn some_id() -> KeyId {
    KeyId::parse(&unique("key")).unwrap()
}

fn sealed_key(generation: u32) -> SealedKey {
    SealedKey {
        id: some_id(),
        purpose: KeyPurpose::AccessToken,
        generation,
        algorithm: Algorithm::Es256,
        created_at: now(),
        active_from: now().plus(Duration::from_millis(1)),
        sealed: random_bytes::<64>().into_iter().chain(0..=255).collect(),
    }
}

async fn inserted(store: &dyn KeyStore, org: &OrgId, key: &SealedKey) {
    assert_eq!(store.insert(org, key, &some_event()).await.unwrap(), Insert::Inserted);
}

/// "All keys of the organization, by purpose and ascending generation."
pub async fn round_trip(store: &dyn KeyStore) {
    let org = some_org();
    assert!(store.list(&org).await.unwrap().is_empty());
    let mut keys = [9, 10, 0, 300, u32::MAX].map(sealed_key);
    keys[0].algorithm = Algorithm::EdDsa;
    keys[1].algorithm = Algorithm::Rs256;
    // Each purpose counts for itself.
    let of =
        |purpose| keys.iter().map(move |key: &SealedKey| SealedKey { purpose, id: some_id(), ..key.clone() });
    let mut keys: Vec<_> = KeyPurpose::ALL.into_iter().rev().flat_map(of).collect();
    for key in &keys {
        inserted(store, &org, key).await;
    }

    keys.sort_by_key(|key| (key.purpose, key.generation));
    assert_eq!(store.list(&org).await.unwrap(), keys);
}

/// "Of any number of servers that rotate at once exactly one adds the next key; the others get
/// `Taken(Unique::Generation)`." And "the id is unique".
pub async fn one_generation_once(store: &dyn KeyStore) {
    let org = some_org();
    let racers: Vec<_> = (0..RACERS).map(|_| sealed_key(0)).collect();
    let outcomes = race(RACERS, async |n| store.insert(&org, &racers[n], &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Generation)), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Insert::Inserted).unwrap();
    assert_eq!(store.list(&org).await.unwrap(), [racers[winner].clone()]);

    let same_id = SealedKey { generation: 1, sealed: vec![1], ..racers[winner].clone() };
    assert_eq!(store.insert(&org, &same_id, &some_event()).await.unwrap(), Insert::Taken(Unique::Id));
    assert_eq!(store.list(&org).await.unwrap(), [racers[winner].clone()]);
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn KeyStore) {
    let (ours, theirs, key) = (some_org(), some_org(), sealed_key(0));
    inserted(store, &ours, &key).await;

    assert!(store.list(&theirs).await.unwrap().is_empty());
    assert_eq!(store.remove(&theirs, &key.id, &some_event()).await.unwrap(), Remove::Missing);
    inserted(store, &theirs, &key).await;
    assert_eq!(store.remove(&theirs, &key.id, &some_event()).await.unwrap(), Remove::Removed);

    assert_eq!(store.list(&ours).await.unwrap(), [key]);
}

/// "Removes a key that no token needs any more."
pub async fn removal(store: &dyn KeyStore) {
    let org = some_org();
    let [old, new] = [0, 1].map(sealed_key);
    inserted(store, &org, &old).await;
    inserted(store, &org, &new).await;

    let outcomes = race(RACERS, async |_| store.remove(&org, &old.id, &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Remove::Removed), 1, "{outcomes:?}");
    assert_eq!(store.list(&org).await.unwrap(), [new]);
}

/// "That nothing unsealed arrives here": keys that a [`KeyRing`] makes can be kept and read back, and none of
/// them is a private key that anybody could use.
pub async fn never_in_the_clear(store: &dyn KeyStore) {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        let org = some_org();
        let origin = Arc::new(MemoryStore::new());
        let config = KeyRingConfig::default().with_algorithm(algorithm);
        let ring = KeyRing::new(origin.clone(), MasterKey::generate(), config);
        ring.signer(&org, KeyPurpose::AccessToken, now()).await.unwrap();
        let keys = KeyStore::list(&*origin, &org).await.unwrap();
        assert_eq!(keys.len(), 1);

        inserted(store, &org, &keys[0]).await;

        let stored = store.list(&org).await.unwrap();
        assert_eq!(stored, keys);
        assert_sealed(&stored[0]);
    }
}

/// Fails if the record holds a private key in the clear, whole or as a part of something else.
///
/// # Panics
/// That is how it fails.
pub fn assert_sealed(key: &SealedKey) {
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let bytes = key.sealed.as_slice();
    let usable = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes).is_ok()
        || Ed25519KeyPair::from_pkcs8(bytes).is_ok()
        || RsaKeyPair::from_pkcs8(bytes).is_ok();
    assert!(!usable, "{:?} is a private key in the clear", key.id);
    // PKCS#8 names its algorithm near its beginning.
    for algorithm in [EC, ED25519, RSA] {
        let named = bytes.windows(algorithm.len()).any(|window| window == algorithm);
        assert!(!named, "{:?} contains a private key in the clear", key.id);
    }
    assert!(!bytes.windows(11).any(|window| window == b"PRIVATE KEY"), "{:?} contains PEM", key.id);
}
