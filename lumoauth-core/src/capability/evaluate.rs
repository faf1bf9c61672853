//! The capability decision, as a pure function of what is granted and what is asked.

use super::{Capability, Scope};

/// Whether an action may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller that decides on it")]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny(DenyReason),
}

impl Decision {
    /// Whether this is [`Decision::Allow`].
    pub fn is_allow(self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each reason has its own wording at the callers")]
pub enum DenyReason {
    /// No capability of the agent covers the action.
    NotGranted,
    /// The agent has it, but the token that was presented is narrower.
    NotInToken,
    /// The agent's list of allowed tools leaves this tool out.
    ToolNotAllowed,
}

/// Decides whether `granted`, narrowed to `token_scope` if there is a token, covers `requested`.
///
/// Cost: one comparison per grant, no allocation.
///
/// ```
/// use lumoauth_core::capability::{Capability, Decision, DenyReason, evaluate};
///
/// let granted = [Capability::parse("read:*").unwrap()];
/// let ask = Capability::parse("read:documents").unwrap();
/// assert_eq!(evaluate(&granted, None, &ask), Decision::Allow);
/// assert_eq!(evaluate(&granted, Some(&[]), &ask), Decision::Deny(DenyReason::NotInToken));
/// ```
pub fn evaluate(
    granted: &[Capability],
    token_scope: Option<&[Capability]>,
    requested: &Capability,
) -> Decision {
    if !granted.iter().any(|grant| grant.covers(requested)) {
        return Decision::Deny(DenyReason::NotGranted);
    }
    if token_scope.is_some_and(|scope| !scope.iter().any(|item| item.covers(requested))) {
        return Decision::Deny(DenyReason::NotInToken);
    }
    Decision::Allow
}

/// The scope of a new token: what was `requested`, if every item of it is covered by every one of `bounds`;
/// without a request, every item of any bound that all the others cover.
///
/// # Errors
/// The first requested item that some bound does not cover.
pub fn narrow(requested: Option<&Scope>, bounds: &[&[Capability]]) -> Result<Scope, Capability> {
    let covered = |item: &Capability, bounds: &[&[Capability]]| {
        bounds.iter().all(|bound| bound.iter().any(|grant| grant.covers(item)))
    };
    match (requested, bounds) {
        (Some(scope), _) => match scope.as_slice().iter().find(|item| !covered(item, bounds)) {
            Some(item) => Err(item.clone()),
            None => Ok(scope.clone()),
        },
        (None, []) => Ok(Scope::default()),
        // The usual case: one list, which covers itself and holds nothing twice.
        (None, [only]) => Ok(Scope(only.to_vec())),
        (None, _) => {
            let items = bounds.iter().copied().flatten();
            Ok(Scope::new(items.filter(|item| covered(item, bounds)).cloned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> Vec<Capability> {
        text.parse::<Scope>().unwrap().as_slice().to_vec()
    }

    #[test]
    fn a_request_must_fit_every_bound() {
        let agent = caps("read:* write:b");
        let token = caps("read:a write:b");
        let ask = |text: &str| narrow(Some(&text.parse().unwrap()), &[&agent, &token]);
        assert_eq!(ask("read:a").unwrap().to_string(), "read:a");
        assert_eq!(ask("read:a read:c").unwrap_err().as_str(), "read:c");
        assert_eq!(ask("write:c").unwrap_err().as_str(), "write:c");
        assert!(ask("").unwrap().is_empty());
    }

    #[test]
    fn without_a_request_the_default_is_what_every_bound_covers() {
        let token = caps("read:a delegate:user");
        let agent = caps("*");
        assert_eq!(narrow(None, &[&token, &agent]).unwrap().to_string(), "read:a");
        let vocabulary = caps("read:a read:b write:a");
        assert_eq!(narrow(None, &[&caps("read:*"), &vocabulary]).unwrap().to_string(), "read:a read:b");
    }
}

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    fn capability() -> impl Strategy<Value = Capability> {
        "(read|write|delegate|admin)(:(a|b|\\*))?|\\*".prop_map(|text| Capability::parse(&text).unwrap())
    }

    fn list() -> impl Strategy<Value = Vec<Capability>> {
        proptest::collection::vec(capability(), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is asked, every item of the result is covered by every bound: authority only shrinks.
        #[test]
        fn a_narrowed_scope_is_within_every_bound(
            requested in proptest::option::of(list()), first in list(), second in list(),
        ) {
            let requested = requested.map(Scope::new);
            if let Ok(scope) = narrow(requested.as_ref(), &[&first, &second]) {
                for item in scope.as_slice() {
                    prop_assert!(first.iter().any(|grant| grant.covers(item)));
                    prop_assert!(second.iter().any(|grant| grant.covers(item)));
                }
            }
        }

        /// Covering is transitive, so a chain of narrowings never reaches above its beginning.
        #[test]
        fn covering_is_transitive(a in capability(), b in capability(), c in capability()) {
            if a.covers(&b) && b.covers(&c) {
                prop_assert!(a.covers(&c), "{a} {b} {c}");
            }
        }
    }
}
