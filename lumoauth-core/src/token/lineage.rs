//! What a token stands on, and how one write kills everything that stands on a thing.
//!
//! Principals (organization, person, agent, client) and consents carry an *epoch* in their record; a token carries the
//! epochs it was issued under. Suspending or revoking one raises its epoch, so every token from before is dead, and
//! stays dead when it works again. Single tokens and token families carry *handles*; revoking one
//! marks its handle. A descendant carries all handles of its ancestors, so one mark and one look-up are enough
//! at any depth, and nothing compares clocks.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de};

use crate::{
    budget::Envelope,
    id::{AgentId, ClientId, ConsentId, OrgId, TaskId},
    organization::ActOrder,
    secret::sha256,
    store::Handle,
};

/// The `lin` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lineage {
    /// Epochs: the organization, then the subject, then, if they are not the subject, the client that the token was issued to
    /// or the actors, the first one first.
    #[serde(rename = "e")]
    pub epochs: Vec<u32>,
    /// Whom the token is about, if not the agent or client it was issued to.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// What people allowed, and the epochs of that.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<ConsentEpoch>,
    /// The client that a person's token was issued to, if it is not in the chain that came of it.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub via: Option<ClientEpoch>,
    /// Handles of the tokens and families this token came from.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty", with = "handles_text")]
    pub handles: Vec<Handle>,
    /// The budgets that it carries, the one that was given first first.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Envelope>,
    /// The tasks that it ends with.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    /// How the actors are nested.
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub act_order: ActOrder,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Lineage {
    /// A lineage with these epochs and ancestors.
    pub fn new(epochs: Vec<u32>, handles: Vec<Handle>) -> Self {
        Self { epochs, handles, ..Self::default() }
    }
}

/// Whom a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every sort of subject must be handled where tokens are read")]
pub enum Subject {
    /// The person whose id is the `sub`.
    User,
    /// This agent.
    Agent(AgentId),
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::User => serializer.serialize_str("u"),
            Self::Agent(id) => serializer.collect_str(id),
        }
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*String::deserialize(deserializer)? {
            "u" => Ok(Self::User),
            id => AgentId::parse(id).map(Self::Agent).map_err(de::Error::custom),
        }
    }
}

/// A consent that a token stands on, at the epoch it was issued under. Text form: `<id>.<epoch>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "an id and an epoch are all there is to it")]
pub struct ConsentEpoch {
    /// Which.
    pub id: ConsentId,
    /// Its epoch.
    pub epoch: u32,
}

impl Serialize for ConsentEpoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}.{}", self.id, self.epoch))
    }
}

impl<'de> Deserialize<'de> for ConsentEpoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (id, epoch) = text.split_once('.').ok_or_else(|| de::Error::custom("not a consent"))?;
        Ok(Self {
            id: ConsentId::parse(id).map_err(de::Error::custom)?,
            epoch: epoch.parse().map_err(de::Error::custom)?,
        })
    }
}

/// A client, at the epoch that a token was issued under. Text form: `<client id>.<epoch>`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "an id and an epoch are all there is to it")]
pub struct ClientEpoch {
    /// Which.
    pub id: ClientId,
    /// Its epoch.
    pub epoch: u32,
}

impl Serialize for ClientEpoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}.{}", self.id, self.epoch))
    }
}

impl<'de> Deserialize<'de> for ClientEpoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // An id may have dots in it, an epoch has none.
        let (id, epoch) = text.rsplit_once('.').ok_or_else(|| de::Error::custom("not a client"))?;
        Ok(Self {
            id: ClientId::parse(id).map_err(de::Error::custom)?,
            epoch: epoch.parse().map_err(de::Error::custom)?,
        })
    }
}

/// The handle of a token by its `jti`.
pub(crate) fn token_handle(org: &OrgId, jti: &str) -> Handle {
    handle(org, b't', jti)
}

/// The handle of a family of refresh tokens.
pub(crate) fn family_handle(org: &OrgId, family: &str) -> Handle {
    handle(org, b'f', family)
}

/// The handle of an AAuth token by the agent that has it and its `jti`.
pub(crate) fn aauth_handle(org: &OrgId, agent: &AgentId, jti: &str) -> Handle {
    handle(org, b'a', &format!("{agent}\0{jti}"))
}

fn handle(org: &OrgId, kind: u8, id: &str) -> Handle {
    let digest = sha256(format!("{org}\0{}\0{id}", char::from(kind)).as_bytes());
    let mut bytes = [kind; 12];
    bytes[1..].copy_from_slice(&digest[..11]);
    Handle::from_bytes(bytes)
}

/// How handles stand in claims.
pub(crate) mod handles_text {
    use serde::{Deserializer, Serializer, ser::SerializeSeq};

    use super::{Deserialize, Engine, Handle, URL_SAFE_NO_PAD, de};

    pub(crate) fn serialize<S: Serializer>(handles: &[Handle], serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(handles.len()))?;
        for handle in handles {
            seq.serialize_element(&URL_SAFE_NO_PAD.encode(handle.as_bytes()))?;
        }
        seq.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Handle>, D::Error> {
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
    fn handles_are_apart_by_organization_kind_and_id() {
        let (acme, globex) = (OrgId::parse("acme").unwrap(), OrgId::parse("globex").unwrap());
        assert_eq!(token_handle(&acme, "a"), token_handle(&acme, "a"));
        assert_ne!(token_handle(&acme, "a"), token_handle(&acme, "b"));
        assert_ne!(token_handle(&acme, "a"), token_handle(&globex, "a"));
        assert_ne!(token_handle(&acme, "a"), family_handle(&acme, "a"));
    }

    #[test]
    fn the_claim_reads_back() {
        let org = OrgId::parse("acme").unwrap();
        let plain = Lineage::new(vec![1, 2], vec![token_handle(&org, "a")]);
        let full = Lineage {
            subject: Some(Subject::Agent(AgentId::generate())),
            consents: vec![ConsentEpoch { id: ConsentId::generate(), epoch: 7 }],
            via: Some(ClientEpoch { id: ClientId::parse("app_a.b").unwrap(), epoch: 3 }),
            act_order: ActOrder::Rfc8693,
            tasks: vec![TaskId::generate()],
            budgets: vec![Envelope::new(
                uuid::Uuid::nil(),
                serde_json::from_str(r#"{"max_api_calls_per_hour":5}"#).unwrap(),
            )],
            ..plain.clone()
        };
        let of_a_person = Lineage { subject: Some(Subject::User), ..plain.clone() };
        for lineage in [plain, full, of_a_person] {
            let text = serde_json::to_string(&lineage).unwrap();
            assert_eq!(serde_json::from_str::<Lineage>(&text).unwrap(), lineage);
        }
        for bad in [
            r#"{"e":[0],"h":["AAAA"]}"#,
            r#"{"e":[0],"s":"x"}"#,
            r#"{"e":[0],"c":["1.2"]}"#,
            r#"{"e":[0],"v":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Lineage>(bad).is_err(), "{bad}");
        }
    }
}
