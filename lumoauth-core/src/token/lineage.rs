//! What a token stands on, and how one write kills everything that stands on a thing.
//!
//! Principals (organization, agent, client) carry an *epoch* in their record; a token carries the epochs it was
//! issued under. Suspending or revoking a principal raises its epoch, so every token from before is dead, and
//! stays dead when the principal works again. Single tokens and token families carry *handles*; revoking one
//! marks its handle. A descendant carries all handles of its ancestors, so one mark and one look-up are enough
//! at any depth, and nothing compares clocks.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de};

use crate::{id::OrgId, secret::sha256, store::Handle};

/// The `lin` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lineage {
    /// Epochs: the organization, then the agent or client.
    #[serde(rename = "e")]
    pub epochs: Vec<u32>,
    /// Handles of the tokens and families this token came from.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty", with = "handles_text")]
    pub handles: Vec<Handle>,
}

impl Lineage {
    /// A lineage with these epochs and ancestors.
    pub fn new(epochs: Vec<u32>, handles: Vec<Handle>) -> Self {
        Self { epochs, handles }
    }
}

/// The handle of a token by its `jti`.
pub(crate) fn token_handle(org: &OrgId, jti: &str) -> Handle {
    handle(org, b't', jti)
}

fn handle(org: &OrgId, kind: u8, id: &str) -> Handle {
    let digest = sha256(format!("{org}\0{}\0{id}", char::from(kind)).as_bytes());
    let mut bytes = [kind; 12];
    bytes[1..].copy_from_slice(&digest[..11]);
    Handle::from_bytes(bytes)
}

mod handles_text {
    use serde::{Deserializer, Serializer, ser::SerializeSeq};

    use super::{Deserialize, Engine, Handle, URL_SAFE_NO_PAD, de};

    pub(super) fn serialize<S: Serializer>(handles: &[Handle], serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(handles.len()))?;
        for handle in handles {
            seq.serialize_element(&URL_SAFE_NO_PAD.encode(handle.as_bytes()))?;
        }
        seq.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Handle>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(de::Error::custom)?;
                bytes.try_into().map(Handle::from_bytes).map_err(|_| de::Error::custom("not a handle"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_apart_by_organization_and_id() {
        let (acme, globex) = (OrgId::parse("acme").unwrap(), OrgId::parse("globex").unwrap());
        assert_eq!(token_handle(&acme, "a"), token_handle(&acme, "a"));
        assert_ne!(token_handle(&acme, "a"), token_handle(&acme, "b"));
        assert_ne!(token_handle(&acme, "a"), token_handle(&globex, "a"));
    }

    #[test]
    fn the_claim_reads_back() {
        let org = OrgId::parse("acme").unwrap();
        let lineage = Lineage::new(vec![1, 2], vec![token_handle(&org, "a")]);
        let text = serde_json::to_string(&lineage).unwrap();
        assert_eq!(serde_json::from_str::<Lineage>(&text).unwrap(), lineage);
        assert!(serde_json::from_str::<Lineage>(r#"{"e":[0],"h":["AAAA"]}"#).is_err());
    }
}
