//! What is signed about a log: heads of its tree, and why contents are missing.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::OrgId,
    json,
    jwks::{JwsAlgorithm, PublicKey},
    merkle::Node,
};

/// The `typ` of a signed head.
pub const HEAD_TYPE: &str = "audit-head+jwt";

/// The `typ` of the signed reason of retention.
pub const DROP_TYPE: &str = "audit-drop+jwt";

/// The longest signed head that is looked at.
const MAX_BYTES: usize = 4096;

/// What a signed head says: that the log of an organization began with these entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "these are the claims")]
pub struct HeadClaims {
    /// The issuer of the organization.
    pub iss: String,
    /// The organization.
    pub org: OrgId,
    /// How many entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Node,
    /// When it was signed, in milliseconds since 1970.
    pub at: u64,
}

/// What the signed reason of retention says: it is in the context of an `audit.bodies_dropped`, as `signed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "these are the claims")]
pub struct DropClaims {
    /// The issuer of the organization.
    pub iss: String,
    /// The organization.
    pub org: OrgId,
    /// Up to which entry the bodies were dropped.
    pub up_to: u64,
    /// They were older than this, in milliseconds since 1970.
    pub before: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl HeadClaims {
    /// Why a head cannot be checked whose key is gone.
    pub(crate) const UNKNOWN_KEY: &str = "the head is signed by an unknown key";

    /// What `jws` says, without a look at its signature: for what our own store kept.
    pub(crate) fn unverified(jws: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(jws.split('.').nth(1)?).ok()?;
        json::parse(&payload).ok()
    }

    /// What `jws` says, if one of `keys` signed it as a head; otherwise why not.
    pub(crate) fn verified(jws: &str, keys: &[PublicKey]) -> Result<Self, &'static str> {
        verified(jws, HEAD_TYPE, keys)
    }
}

impl DropClaims {
    /// What `jws` says, if one of `keys` signed it as a reason of retention.
    pub(crate) fn verified(jws: &str, keys: &[PublicKey]) -> Option<Self> {
        verified(jws, DROP_TYPE, keys).ok()
    }
}

/// The claims of `jws`, if one of `keys` signed them for this purpose; otherwise why not.
fn verified<T: DeserializeOwned>(jws: &str, typ: &str, keys: &[PublicKey]) -> Result<T, &'static str> {
    const MALFORMED: &str = "the signed head is not well-formed";
    if jws.len() > MAX_BYTES {
        return Err(MALFORMED);
    }
    let mut parts = jws.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    let signed = jws.len() - signature.len() - 1;
    let [header, payload, signature] =
        [header, payload, signature].map(|part| URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED));
    let header: Header = json::parse(&header?).map_err(|_| MALFORMED)?;
    if header.typ != typ {
        return Err("the signed text is no head");
    }
    let algorithm =
        JwsAlgorithm::from_wire(&header.alg).ok_or("the head has an algorithm that is not accepted")?;
    let key = keys.iter().find(|key| key.kid() == Some(&header.kid)).ok_or(HeadClaims::UNKNOWN_KEY)?;
    let signed = jws.as_bytes().get(..signed).ok_or(MALFORMED)?;
    if !key.verifies_by(algorithm) || !key.verify(algorithm, signed, &signature?) {
        return Err("the signature of the head is wrong");
    }
    json::parse(&payload?).map_err(|_| MALFORMED)
}
