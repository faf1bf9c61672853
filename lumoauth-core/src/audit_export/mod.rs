//! An audit log as a file that anybody can check without the server: its lines, signed heads, and the [`Verifier`].
//!
//! The file is JSON lines, each (but those of keys) exactly as compact JSON writes its members in the order below, UTF-8,
//! ended by `\n`:
//!
//! ```text
//! {"type":"log","format":"lumoauth-audit-2","org":"acme"}
//! {"type":"key","jwk":{"kty":"OKP","use":"sig","alg":"EdDSA","kid":"..","crv":"Ed25519","x":".."}}
//! {"type":"entry","seq":1,"event_id":"<uuid>","at":1790000000123,"body":"{..}","leaf":"<64 hex digits>"}
//! {"type":"head","jws":"<compact JWS>"}
//! ```
//!
//! 1. A file has a line of type `log`, then keys, then the entries in the order of their numbers from 1. A long log is
//!    fetched in parts, which are simply joined: each begins with its own `log` and `key` lines.
//! 2. `body` is the JSON of the event byte for byte as it was hashed, as a JSON string; null once retention has taken it.
//!    What `leaf` is the hash of: [`entry_leaf`](crate::merkle::entry_leaf). Of an entry without a body only the
//!    number and the hash can be checked. Only an entry of the kind `audit.bodies_dropped` further down explains why it has
//!    none: its `context.signed` is a JWS like a head, with `"typ":"audit-drop+jwt"` and the claims `iss`, `org`, `up_to`, and
//!    `before` in milliseconds; `up_to` is a smaller number than its own. They were older than `before`, so a head of fewer
//!    than `up_to` entries that was signed a day or more after `before` contradicts it.
//! 3. A head stands right behind the last entry that it is about. It is a JWS with exactly `alg`, `kid` and
//!    `"typ":"audit-head+jwt"`, and these claims: `iss`, `org`, `size`, `root` (hexadecimal), and `at` in milliseconds. The root
//!    is that of the Merkle tree (RFC 9162 section 2.1.1) over the leaves of the first `size` entries. After the last entry
//!    there is a head. Where heads are about more entries than there are, the end was cut off.
//!
//! What such a file shows, and what it does not: [`Verifier`].

mod head;
#[cfg(test)]
mod tests;
mod verify;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use head::{DROP_TYPE, DropClaims, HEAD_TYPE, HeadClaims};
pub use verify::{Finding, Report, Verifier};

use crate::{
    clock::Timestamp,
    id::{EventId, OrgId},
    merkle::Node,
    store::RawEntry,
};

/// The version of the file, and of how entries are hashed.
pub const FORMAT: &str = "lumoauth-audit-2";

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "another kind of line is another format")]
pub enum Line {
    /// Whose log it is.
    Log {
        /// [`FORMAT`].
        format: String,
        /// The organization.
        org: OrgId,
    },
    /// A key that heads are signed with.
    Key {
        /// The public key (RFC 7517).
        jwk: Value,
    },
    /// An entry.
    Entry {
        /// Its number.
        seq: u64,
        /// The id of its event.
        event_id: EventId,
        /// When the event happened, in milliseconds since 1970.
        at: u64,
        /// The JSON of the event.
        body: Option<String>,
        /// The hash of the entry.
        leaf: Node,
    },
    /// A signed head.
    Head {
        /// The compact JWS.
        jws: String,
    },
}

impl Line {
    /// The line of an entry.
    pub fn entry(entry: RawEntry) -> Self {
        let RawEntry { seq, event_id, at, body, leaf } = entry;
        Self::Entry { seq, event_id, at: at.unix_millis(), body, leaf }
    }

    /// Its text, with the line break at its end.
    ///
    /// # Errors
    /// Never for what this library makes: a number in a key that JSON cannot hold.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        Ok(text)
    }

    /// The line that this text is, without its line break. There is one way to write each line but those of keys: where a
    /// byte may be changed without changing the meaning, nobody could say whether it was.
    fn parse(text: &[u8]) -> Option<Self> {
        let line: Self = crate::json::parse(text).ok()?;
        let is_key = matches!(line, Self::Key { .. });
        (is_key || serde_json::to_vec(&line).ok()? == text).then_some(line)
    }
}

/// The time of an entry's line.
fn time(at: u64) -> Timestamp {
    Timestamp::from_unix_millis(at)
}
