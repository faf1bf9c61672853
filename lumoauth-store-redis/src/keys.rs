//! The names of keys. What is in braces decides the slot; texts from outside stand last.

use lumoauth_core::{
    budget::Account,
    id::{AgentId, OrgId},
};

/// How many buckets the replay marks are spread over.
pub(crate) const BUCKETS: u8 = 64;

/// The channel on which changes are told.
pub(crate) const CHANGES: &str = "lumoauth:changes";

/// The counter of `source` in the window of `length` milliseconds that ends at `end`.
pub(crate) fn rate_limit(org: &OrgId, length: u64, end: u64, source: &str) -> Vec<u8> {
    format!("{{{org}}}:l:{length}:{end}:{source}").into_bytes()
}

/// The pool of `account`.
pub(crate) fn pool(org: &OrgId, account: Account) -> Vec<u8> {
    format!("{{{org}}}:b:{}:{}", account.owner, account.generation).into_bytes()
}

/// The id that `actor` gave a charge.
pub(crate) fn charge_id(org: &OrgId, actor: AgentId, key: &str) -> Vec<u8> {
    format!("{{{org}}}:r:{actor}:{key}").into_bytes()
}

/// The bucket of a replay mark. Its key is a hash already.
pub(crate) const fn bucket(key: &[u8; 32]) -> u8 {
    key[0] % BUCKETS
}

/// Since when a bucket remembers.
pub(crate) fn birth(bucket: u8) -> Vec<u8> {
    format!("{{r{bucket:02}}}:birth").into_bytes()
}

/// A replay mark.
pub(crate) fn mark(org: &OrgId, space: &str, key: &[u8; 32]) -> Vec<u8> {
    let mut name = format!("{{r{:02}}}:{org}:{space}:", bucket(key)).into_bytes();
    name.extend_from_slice(key);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_the_slot_of_its_birth() {
        let org = OrgId::parse("acme").unwrap();
        for first in [0u8, 7, 63, 64, 255] {
            let key = [first; 32];
            let birth = birth(bucket(&key));
            assert!(mark(&org, "jti", &key).starts_with(&birth[..5]));
            assert_eq!(&birth[5..], b":birth");
        }
    }
}
