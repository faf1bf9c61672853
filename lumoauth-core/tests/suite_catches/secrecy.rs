//! Private keys that are not sealed.

use std::sync::Arc;

use lumoauth_core::{
    keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
    store::{
        KeyStore, MemoryStore, SealedKey,
        conformance::{keys, now, some_org},
    },
};

/// The private key of RFC 8410, section 10.3.
const PKCS8_ED25519: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0xd4,
    0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad, 0x3a, 0xfe,
    0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];

async fn some_sealed_key() -> SealedKey {
    let (store, org) = (Arc::new(MemoryStore::new()), some_org());
    let ring = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
    ring.signer(&org, KeyPurpose::AccessToken, now()).await.unwrap();
    KeyStore::list(&*store, &org).await.unwrap().remove(0)
}

#[tokio::test]
#[should_panic(expected = "private key in the clear")]
async fn a_key_in_the_clear_is_found_out() {
    let mut key = some_sealed_key().await;
    key.sealed = PKCS8_ED25519.to_vec();
    keys::assert_sealed(&key);
}

#[tokio::test]
#[should_panic(expected = "contains a private key in the clear")]
async fn a_key_in_the_clear_inside_something_else_is_found_out() {
    let mut key = some_sealed_key().await;
    key.sealed = [b"header".as_slice(), &PKCS8_ED25519, b"tag"].concat();
    keys::assert_sealed(&key);
}
