//! Capabilities: what an agent may ask for. They double as OAuth scopes.
//!
//! A capability is an opaque, case-sensitive string such as `read:documents`, `tool:search_web` or
//! `document.read`. A *grant* may end in a wildcard segment (`read:*`, `document.*`, or `*` alone) that stands
//! for one or more characters up to the end. Three families are never reached by a wildcard that does not name
//! them: `delegate:`, `admin` and `authz:`.

mod evaluate;

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use evaluate::{Decision, DenyReason, evaluate, narrow};

/// One capability, granted or requested: 1 to 128 of `A-Z a-z 0-9 _ . : * / -`.
///
/// ```
/// use lumoauth_core::capability::Capability;
///
/// let grant = Capability::parse("read:*").unwrap();
/// assert!(grant.covers(&Capability::parse("read:documents").unwrap()));
/// assert!(!grant.covers(&Capability::parse("write:documents").unwrap()));
/// assert!(Capability::parse("re*ad").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct Capability(Arc<str>);

/// The text is not a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a capability is 1 to 128 of A-Z a-z 0-9 _ . : / - with `*` only as its last segment")]
#[non_exhaustive]
pub struct ParseCapabilityError;

impl Capability {
    /// Parses the text form; a `*` may only be the whole text or the last segment after `:` or `.`.
    ///
    /// # Errors
    /// [`ParseCapabilityError`] if the text is not a capability.
    pub fn parse(text: &str) -> Result<Self, ParseCapabilityError> {
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'-' | b'*');
        let stem = text.strip_suffix('*').unwrap_or(text);
        let wildcard_placed = stem.len() == text.len() || stem.is_empty() || stem.ends_with([':', '.']);
        if (1..=128).contains(&text.len())
            && text.bytes().all(allowed)
            && wildcard_placed
            && !stem.contains('*')
        {
            Ok(Self(text.into()))
        } else {
            Err(ParseCapabilityError)
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this grant stands for more than itself.
    pub fn is_wildcard(&self) -> bool {
        self.0.ends_with('*')
    }

    /// Whether holding `self` is enough for `requested`.
    ///
    /// 1. A capability covers itself, literally; that is the only way to ask for one that contains `*`.
    /// 2. A wildcard covers what continues its stem by at least one character.
    /// 3. A wildcard reaches into `delegate:`, `admin` and `authz:` only if its own stem is already inside.
    pub fn covers(&self, requested: &Self) -> bool {
        if self.0 == requested.0 {
            return true;
        }
        let Some(stem) = self.0.strip_suffix('*') else { return false };
        let inside = |family: &str| !requested.0.starts_with(family) || stem.starts_with(family);
        !requested.is_wildcard()
            && requested.0.len() > stem.len()
            && requested.0.starts_with(stem)
            && ["delegate:", "admin", "authz:"].into_iter().all(inside)
    }
}

impl TryFrom<Arc<str>> for Capability {
    type Error = ParseCapabilityError;

    fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Capability> for Arc<str> {
    fn from(capability: Capability) -> Self {
        capability.0
    }
}

impl FromStr for Capability {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capability({})", self.0)
    }
}

/// The `scope` of a request or a token: a list of capabilities without repeats (RFC 6749 section 3.3).
///
/// ```
/// use lumoauth_core::capability::Scope;
///
/// let scope: Scope = "read:a  write:b read:a".parse().unwrap();
/// assert_eq!(scope.to_string(), "read:a write:b");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<Capability>);

impl Scope {
    /// The scope that lists `capabilities`, each once, in this order.
    pub fn new(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        let mut seen = HashSet::new();
        Self(capabilities.into_iter().filter(|capability| seen.insert(capability.clone())).collect())
    }

    /// The capabilities, each once, in order.
    pub fn as_slice(&self) -> &[Capability] {
        &self.0
    }

    /// The length of the text form, in bytes.
    pub(crate) fn text_len(&self) -> usize {
        self.0.iter().map(|capability| capability.as_str().len() + 1).sum::<usize>().saturating_sub(1)
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Scope {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(' ')
            .filter(|item| !item.is_empty())
            .map(Capability::parse)
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, capability) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(capability.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(text: &str) -> Capability {
        Capability::parse(text).unwrap()
    }

    #[test]
    fn wildcards_stand_for_one_or_more_characters_to_the_end() {
        assert!(cap("read:*").covers(&cap("read:a:b")));
        assert!(cap("document.*").covers(&cap("document.read")));
        assert!(cap("*").covers(&cap("anything")));
        assert!(!cap("read:*").covers(&cap("read:")));
        assert!(!cap("read:*").covers(&cap("read")));
        assert!(!cap("read:*").covers(&cap("Read:a")));
    }

    #[test]
    fn a_requested_wildcard_is_only_covered_by_itself() {
        assert!(cap("read:*").covers(&cap("read:*")));
        assert!(!cap("*").covers(&cap("read:*")));
        assert!(!cap("read:a").covers(&cap("read:*")));
    }

    #[test]
    fn wildcards_never_reach_delegation_or_administration_by_accident() {
        assert!(!cap("*").covers(&cap("delegate:user")));
        assert!(!cap("*").covers(&cap("admin")));
        assert!(!cap("*").covers(&cap("admin:agents")));
        assert!(!cap("*").covers(&cap("authz:check")));
        assert!(cap("delegate:*").covers(&cap("delegate:user")));
        assert!(cap("admin:*").covers(&cap("admin:agents")));
    }

    #[test]
    fn malformed_capabilities_are_refused() {
        for bad in ["", "a b", "re*ad", "read*", "read:**", "a\"b", "é", &"a".repeat(129)] {
            assert!(Capability::parse(bad).is_err(), "{bad}");
        }
    }
}
