//! What an audit log shows to those who check it: its hash tree ([`crate::merkle`]), and its entries byte for byte.

use crate::{
    audit::{Actor, ActorKind, Event, EventKind, EventOutcome},
    clock::Timestamp,
    id::{EventId, OrgId},
    merkle::{Frontier, Node, entry_leaf},
};

/// How far a log has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "every backend makes it of its own row")]
pub struct LogHead {
    /// The tree over all entries; its size is the number of the last one.
    pub tree: Frontier,
    /// Up to which number entries have lost their bodies.
    pub dropped: u64,
    /// The largest size that a [`Checkpoint`] is about, also if the log is shorter; 0 if there is none.
    pub signed: u64,
}

/// Which hashes of a tree are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve both")]
pub enum TreeLevel {
    /// The leaves: one for each entry.
    Leaves,
    /// The roots of [`BLOCK`](crate::merkle::BLOCK) leaves each, as far as they are complete.
    Blocks,
}

/// An entry as it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what is hashed, and the hash")]
pub struct RawEntry {
    /// Its number.
    pub seq: u64,
    /// The id of its event.
    pub event_id: EventId,
    /// When the event happened, as it says.
    pub at: Timestamp,
    /// The JSON of the event, byte for byte as it was hashed. `None` once it was dropped.
    pub body: Option<String>,
    /// The leaf that was computed when the entry got its number.
    pub leaf: Node,
}

impl RawEntry {
    /// The leaf that its parts have now, in the log of `org`. `None` if the body is gone: then nothing can be said.
    pub fn recomputed(&self, org: &OrgId) -> Option<Node> {
        self.body.as_ref().map(|body| entry_leaf(org, self.seq, self.event_id, self.at, body.as_bytes()))
    }
}

/// A head of the tree that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what is signed, and the signed text")]
pub struct Checkpoint {
    /// How many entries it is about.
    pub size: u64,
    /// The signed head, a compact JWS.
    pub signed: String,
}

/// What is left of an event whose body was dropped: when, what and whether it succeeded; not by whom, to what, or from
/// where. The reason is `retention`. Such entries are counted and found by kind, outcome and time as before.
pub fn dropped_event(id: EventId, at: Timestamp, kind: EventKind, outcome: EventOutcome) -> Event {
    let mut event = Event::new(kind, Actor::new(ActorKind::Unknown, ""), "", at);
    event.id = id;
    event.outcome = outcome;
    event.reason = Some("retention".to_owned());
    event
}
