//! What audit events say of a record: as it was before a change, and as it is after it.
//!
//! 1. Of a new record `after` says all that administrators are shown of it; of one that is gone, `before` does.
//! 2. Of a change, both say the members that changed, and no others.
//! 3. Only what administrators are shown is said: no secret, and no hash of one, is among it.

use serde_json::Value;

use crate::{audit::Event, wire::view};

/// Something that becomes the audit event of a change.
pub(super) trait Shows: Sized {
    /// The same with one more fact.
    fn says(self, name: &'static str, value: Value) -> Self;

    /// The same about a record that is new.
    fn made(self, record: Value) -> Self {
        self.says("after", record)
    }

    /// The same about a record that is gone.
    fn gone(self, record: Value) -> Self {
        self.says("before", record)
    }

    /// The same about something secret, of which only these facts are told: they may be alike before and after.
    fn replaced(self, before: Value, after: Value) -> Self {
        self.says("before", before).says("after", after)
    }

    /// The same about a record that was changed.
    fn changed(self, before: &Value, after: &Value) -> Self {
        let (old, new) = view::changes(before, after);
        self.replaced(old.into(), new.into())
    }
}

impl Shows for Event {
    fn says(self, name: &'static str, value: Value) -> Self {
        self.with(name, value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        audit::{Actor, EventKind},
        clock::Timestamp,
    };

    fn event() -> Event {
        Event::new(EventKind::UserUpdated, Actor::system(), "", Timestamp::default())
    }

    #[test]
    fn a_change_shows_what_changed_and_nothing_else() {
        let before = json!({ "same": 1, "other": [1], "lost": true, "updatedAt": "a", "updated_at": "a" });
        let after = json!({ "same": 1, "other": [2], "new": {}, "updatedAt": "b", "updated_at": "b" });
        let context = event().changed(&before, &after).context;
        assert_eq!(context.get("before"), Some(&json!({ "other": [1], "lost": true, "new": null })));
        assert_eq!(context.get("after"), Some(&json!({ "other": [2], "lost": null, "new": {} })));
    }

    #[test]
    fn what_is_new_was_not_and_what_is_gone_is_not() {
        let record = json!({ "name": "a" });
        let (made, gone) = (event().made(record.clone()).context, event().gone(record.clone()).context);
        assert_eq!((made.get("before"), made.get("after")), (None, Some(&record)));
        assert_eq!((gone.get("before"), gone.get("after")), (Some(&record), None));
    }
}
