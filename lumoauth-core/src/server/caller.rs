//! [`Caller`]: what a change needs to know of whoever makes it.

use std::borrow::Cow;

use super::ApiError;
use crate::{
    audit::{Actor, Event, EventKind, Origin},
    clock::Timestamp,
    wire::{IfMatch, Tagged},
};

/// A verified caller, where the request came from, and which versions it may replace: what a change and its audit event need
/// to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caller {
    /// Who does it.
    pub actor: Actor,
    /// Where from.
    pub origin: Origin,
    /// The versions of the record that may be changed; `None` is any. It is decided on the version that guards the write.
    pub if_match: Option<IfMatch>,
}

impl Caller {
    /// Somebody who may replace any version.
    pub fn new(actor: Actor, origin: Origin) -> Self {
        Self { actor, origin, if_match: None }
    }

    /// The same, who may only replace these versions.
    #[must_use]
    pub fn only_over(mut self, versions: Option<IfMatch>) -> Self {
        self.if_match = versions;
        self
    }

    pub(super) fn event(
        &self,
        kind: EventKind,
        message: impl Into<Cow<'static, str>>,
        now: Timestamp,
    ) -> Event {
        Event::new(kind, self.actor.clone(), message, now).from_origin(&self.origin)
    }

    /// Refuses to change another version of `record` than the caller has seen.
    pub(super) fn expects(&self, record: &impl Tagged) -> Result<(), ApiError> {
        match &self.if_match {
            Some(versions) if !versions.admits(record) => Err(ApiError::PreconditionFailed),
            Some(_) | None => Ok(()),
        }
    }
}
