//! What people allowed clients and agents to do for them.

use serde::{Deserialize, Serialize};

use crate::{
    capability::Scope,
    clock::Timestamp,
    id::{ClientId, ConsentId, UserId},
};

/// What one person allows one client, an agent or an ordinary one.
///
/// There is one record per person and client, for ever: withdrawing it raises its epoch, so that every token that stands
/// on it is dead and stays dead, also when the person agrees anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Consent {
    /// Its identity.
    pub id: ConsentId,
    /// Who allows it.
    pub user: UserId,
    /// To whom.
    pub client_id: ClientId,
    /// What. An item is allowed if it is listed here, literally: people agree to what they read.
    pub scope: Scope,
    /// Whether it holds.
    pub active: bool,
    /// Raised whenever all tokens that stand on it must die.
    pub epoch: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When the person first agreed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Consent {
    /// A consent that holds.
    pub fn new(user: UserId, client_id: ClientId, scope: Scope, now: Timestamp) -> Self {
        Self {
            id: ConsentId::generate(),
            user,
            client_id,
            scope,
            active: true,
            epoch: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether it holds and lists every item of `scope`.
    pub fn covers(&self, scope: &Scope) -> bool {
        self.active && scope.as_slice().iter().all(|item| self.scope.as_slice().contains(item))
    }

    /// Adds what the person agreed to. After a withdrawal only that holds.
    pub fn grant(&mut self, scope: &Scope) {
        let before = if self.active { std::mem::take(&mut self.scope) } else { Scope::default() };
        self.scope = Scope::new(before.as_slice().iter().chain(scope.as_slice()).cloned());
        self.active = true;
    }

    /// Withdraws it. Whether that changed anything.
    #[must_use]
    pub fn withdraw(&mut self) -> bool {
        let changed = self.active;
        if changed {
            self.active = false;
            self.epoch += 1;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_withdrawn_does_not_come_back_with_a_new_consent() {
        let now = Timestamp::default();
        let mut consent =
            Consent::new(UserId::generate(), ClientId::generate_for_agent(), scope("read:a"), now);
        consent.grant(&scope("read:b"));
        assert!(consent.covers(&scope("read:b read:a")));
        assert!(!consent.covers(&scope("read:c")));
        assert!(consent.withdraw() && !consent.withdraw());
        assert!(!consent.covers(&scope("")));
        consent.grant(&scope("read:b"));
        assert!(consent.covers(&scope("read:b")) && !consent.covers(&scope("read:a")));
        assert_eq!(consent.epoch, 1);
    }

    #[test]
    fn an_item_is_only_covered_literally() {
        let now = Timestamp::default();
        let consent = Consent::new(UserId::generate(), ClientId::generate_for_agent(), scope("read:*"), now);
        assert!(!consent.covers(&scope("read:a")));
    }
}
