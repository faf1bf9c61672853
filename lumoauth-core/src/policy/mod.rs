//! Policy: who may do what, beyond the capabilities that agents are registered with. Pure values and evaluators.
//!
//! Three sorts of rules, and one decision that combines them:
//!
//! 1. **Roles** ([`Role`]) are sets of permissions that agents, people and groups are given ([`Assignment`]).
//! 2. **Attribute policies** ([`Policy`]) allow or deny by what is known of the caller, the resource and the request.
//! 3. **Relations** ([`Tuple`]) say that a subject stands in a relation to an object; a [`Namespace`] says how relations
//!    follow from each other.
//!
//! Everything that an organization wrote down is a [`Record`]. A [`Snapshot`] holds its records, indexed for decisions, and
//! takes single changes without being built anew. [`Snapshot::decide`] answers a [`Question`] and says why.
//!
//! ```
//! use lumoauth_core::policy::{Entry, Record, Snapshot, Subject, Tuple};
//!
//! let mut snapshot = Snapshot::default();
//! for text in ["document:1#owner@user:alice", "document:1#viewer@team:a#member", "team:a#member@user:bob"] {
//!     let tuple = Entry::Tuple(Tuple::parse(text)?);
//!     snapshot.apply(&Record::of(&tuple, 1))?;
//! }
//! let viewer = "viewer".parse()?;
//! for (who, expected) in [("user:alice", true), ("user:bob", true), ("user:eve", false)] {
//!     let check = snapshot.check(&"document:1".parse()?, &viewer, &Subject::parse(who)?);
//!     assert_eq!(check.is_held(), expected);
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod abac;
mod attribute;
mod decide;
mod question;
mod record;
mod relations;
mod role;
mod snapshot;
mod target;

pub use abac::{Condition, Effect, InvalidCondition, Policy};
pub use attribute::{AttributeDefinition, AttributeKind, AttributeOwner, AttributeValue, DataType};
pub use decide::{AttributeVerdict, Basis, DecidedBy, Step, Verdict};
pub use question::{Environment, Party, Question, Resource, Who};
pub use record::{CorruptRecord, Entry, Record, RecordId, RecordKind};
pub use relations::{
    Check, Entity, ExpandedNode, InvalidNamespace, MAX_HOPS, Namespace, NodeKind, ParseRelationError,
    Reached, Rewrite, Subject, Tuple,
};
pub use role::{Assignment, Grant, Holder, Permission, Role, SYSTEM_PERMISSIONS, is_reserved};
pub use snapshot::{HeldRole, Snapshot};

#[cfg(test)]
mod tests;
