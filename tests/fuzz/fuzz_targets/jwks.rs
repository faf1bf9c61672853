//! Key sets of others. What can be used of one is measured again from its members.

#![no_main]

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::jwks::{JwkSet, PublicKey, PublicKeys};
use lumoauth_fuzz::has_floats;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(set) = JwkSet::parse(data) else { return };
    assert!(data.len() <= JwkSet::MAX_BYTES && set.keys.len() <= JwkSet::MAX_KEYS);
    assert_eq!(set.check(), Ok(()));
    let kids: Vec<_> = set.keys.iter().filter_map(|key| key.get("kid")?.as_str()).collect();
    assert_eq!(kids.iter().collect::<HashSet<_>>().len(), kids.len());
    let text = serde_json::to_string(&set).expect("it was read");
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        assert!(set.keys.iter().all(|key| key.get(private).is_none()));
    }
    if !set.keys.iter().any(has_floats) && text.len() <= JwkSet::MAX_BYTES {
        assert_eq!(JwkSet::parse(text.as_bytes()).as_ref(), Ok(&set));
    }

    let usable = PublicKeys::of(&set);
    let alone = |key: &&Value| {
        let one = json!({ "keys": [key] }).to_string();
        JwkSet::parse(one.as_bytes()).is_ok_and(|one| !PublicKeys::of(&one).is_empty())
    };
    if text.len() <= JwkSet::MAX_BYTES / 2 {
        assert_eq!(set.keys.iter().filter(alone).count(), usable.len());
    }
    assert!(usable.len() <= set.keys.iter().filter(|key| may_be_used(key)).count());
    for key in set.keys.iter().filter_map(PublicKey::from_jwk) {
        let again = PublicKey::from_jwk(&key.to_jwk()).expect("it reads what it prints");
        assert_eq!((again.thumbprint(), again.to_jwk()), (key.thumbprint(), key.to_jwk()));
        assert!(usable.by_thumbprint(&key.thumbprint()).is_some());
    }
    for kid in kids {
        let found = set.keys.iter().find(|key| key["kid"] == kid).expect("its key");
        assert!(!usable.contains(kid) || may_be_used(found));
    }
});

/// Whether the key is of a sort and size that are documented as usable. Not all such keys are.
fn may_be_used(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let size =
        |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).map(|bytes| bytes.len());
    text("use").is_none_or(|usage| usage == "sig")
        && match (text("kty"), text("crv")) {
            (Some("RSA"), _) => size("n").is_some_and(|n| (256..=1024).contains(&n)),
            (Some("EC"), Some("P-256")) => (size("x"), size("y")) == (Some(32), Some(32)),
            (Some("EC"), Some("P-384")) => (size("x"), size("y")) == (Some(48), Some(48)),
            (Some("OKP"), Some("Ed25519")) => size("x") == Some(32),
            _ => false,
        }
}
