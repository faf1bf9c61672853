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

/// The name of what `actor` did under an id, within its organization.
pub(crate) fn name(actor: AgentId, key: &str) -> String {
    format!("{actor}:{key}")
}

/// What is known under an id with this [`name`].
pub(crate) fn record(org: &OrgId, name: &str) -> Vec<u8> {
    format!("{{{org}}}:r:{name}").into_bytes()
}

/// The names of the holds of `actor` that may hold something, by the end of their lease.
pub(crate) fn holds(org: &OrgId, actor: AgentId) -> Vec<u8> {
    format!("{{{org}}}:h:{actor}").into_bytes()
}

/// The names of the parked holds of an organization, by the end of their wait.
pub(crate) fn parked(org: &OrgId) -> Vec<u8> {
    format!("{{{org}}}:p").into_bytes()
}

/// Which organizations may have parked holds, by when they last parked one.
pub(crate) const PARKING: &[u8] = b"{parked}:organizations";

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
