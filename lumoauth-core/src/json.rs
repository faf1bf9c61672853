//! Strict JSON: what arrives from outside is read once, without ambiguity.
//!
//! `serde_json` lets the last of two equal members win and nests to 128. Two parsers that disagree about a
//! duplicate are how signed text and read text drift apart, so [`parse`] refuses duplicates at any depth and
//! anything nested deeper than [`MAX_DEPTH`].
//!
//! `serde_json` also has names of members that mean something to itself: an object whose first member is called
//! `$serde_json::private::RawValue` becomes the value that the *text* of that member is, with duplicates and depth of its own.
//! Nobody else reads it so, and nobody needs such a name, so they are refused.
//!
//! With its feature `arbitrary_precision`, `serde_json` gives every number with a fraction as such an object, and nobody can tell
//! that from one that a stranger wrote. A program that has the feature on in any of its parts is not supported: decimals are
//! refused there, and the authorization server says so when it is built.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

/// The deepest nesting that is accepted.
pub const MAX_DEPTH: usize = 32;

/// How the names begin that `serde_json` has for itself.
const RESERVED: &str = "$serde_json::private::";

/// The text is not JSON that this crate accepts, or does not have the expected form.
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Reads `T` from JSON text without duplicate members and with at most [`MAX_DEPTH`] levels.
///
/// ```
/// use lumoauth_core::json;
/// use std::collections::HashMap;
///
/// assert!(json::parse::<HashMap<String, u8>>(br#"{"a":1}"#).is_ok());
/// assert!(json::parse::<HashMap<String, u8>>(br#"{"a":1,"a":2}"#).is_err());
/// ```
///
/// # Errors
/// [`JsonError`] for anything else.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    check(text)?;
    Ok(serde_json::from_slice(text)?)
}

/// Whether `text` is JSON without duplicate members and with at most [`MAX_DEPTH`] levels: the first half of
/// [`parse`], for readers that do the second half themselves.
///
/// # Errors
/// [`JsonError`] if it is not.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Strict { depth: 0 }.deserialize(&mut deserializer)?;
    Ok(deserializer.end()?)
}

/// Walks a value without keeping it.
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.depth;
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            if name.starts_with(RESERVED) {
                return Err(A::Error::custom("a member has a reserved name"));
            }
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("member `{name}` twice")));
            }
            names.insert(name);
            map.next_value_seed(Strict { depth: inner }.deeper()?)?;
        }
        Ok(())
    }
}

/// The name of a member, in place if nothing in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The names of the members of one object.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    /// What does not fit there: comparing each with all others would take time in the square of their number.
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    const FEW: usize = 32;

    fn contains(&self, name: &str) -> bool {
        self.few.iter().any(|known| known == name) || self.many.contains(name)
    }

    fn insert(&mut self, name: Cow<'a, str>) {
        if self.few.len() < Self::FEW {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn duplicates_are_refused_at_any_depth() {
        assert!(parse::<Value>(br#"{"a":[{"b":1,"b":2}]}"#).is_err());
        assert!(parse::<Value>(br#"{"a":1,"\u0061":2}"#).is_err());
        assert!(parse::<Value>(br#"{"a":{"b":1},"b":{"b":1}}"#).is_ok());
    }

    #[test]
    fn duplicates_are_found_among_few_and_among_many() {
        let object = |names: &[usize]| {
            let members: Vec<_> = names.iter().map(|n| format!(r#""m{n}":0"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        for count in [1, 2, 31, 32, 33, 34, 500] {
            let mut names: Vec<_> = (0..count).collect();
            assert!(parse::<Value>(object(&names).as_bytes()).is_ok(), "{count}");
            for twice in [0, count / 2, count - 1] {
                names.push(twice);
                assert!(parse::<Value>(object(&names).as_bytes()).is_err(), "{twice} of {count}");
                names.pop();
            }
        }
    }

    #[test]
    fn depth_32_is_read_and_33_is_not() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse::<Value>(nested(32).as_bytes()).is_ok());
        assert!(parse::<Value>(nested(33).as_bytes()).is_err());
        assert!(parse::<Value>(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn no_member_makes_text_into_a_value() {
        let text = br#"{"a":{"$serde_json::private::RawValue":"{\"b\":1,\"b\":2}"}}"#;
        // What this is about: the parser itself reads into the text.
        assert_eq!(serde_json::from_slice::<Value>(text).unwrap()["a"]["b"], 2);
        assert!(parse::<Value>(text).is_err());
        assert!(parse::<Value>(br#"{"$serde_json::private::Number":"1"}"#).is_err());
        assert!(parse::<Value>(br#"{"\u0024serde_json::private::RawValue":"1"}"#).is_err());
    }

    #[test]
    fn trailing_text_is_refused() {
        assert!(parse::<Value>(b"{} {}").is_err());
        assert!(parse::<Value>(b"").is_err());
    }
}
