//! The parameters of an OAuth request (RFC 6749 section 3.1), from a form or a JSON object.

use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::{json, secret::Secret};

/// Parameters of one request: each name at most once, except those that the standards repeat.
///
/// ```
/// use lumoauth_core::wire::Params;
///
/// let params = Params::from_form(b"grant_type=client_credentials&scope=a+b").unwrap();
/// assert_eq!(params.get("scope"), Some("a b"));
/// assert!(Params::from_form(b"scope=a&scope=b").is_err());
/// ```
#[derive(Clone, Default)]
pub struct Params(Vec<(String, String)>);

/// Parameters that may be repeated (RFC 8693 section 2.1, RFC 8707 section 2).
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// The parameters cannot be accepted. The text is safe to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidParams {
    /// More than [`Params::MAX`].
    #[error("More than 64 parameters.")]
    TooMany,
    /// One that must not be repeated is.
    #[error("A parameter is repeated.")]
    Repeated,
    /// Not form text in UTF-8, or not a JSON object of strings.
    #[error("The body cannot be read.")]
    Malformed,
}

impl Params {
    /// How many parameters a request may have.
    pub const MAX: usize = 64;

    /// Reads `application/x-www-form-urlencoded` text. Empty values count as absent (RFC 6749 section 3.1).
    ///
    /// # Errors
    /// [`InvalidParams`] if there are too many, one is repeated, or the text is not UTF-8.
    pub fn from_form(text: &[u8]) -> Result<Self, InvalidParams> {
        let mut pairs = Vec::with_capacity(8);
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(Self::MAX + 1) {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = (&pair[..end], pair.get(end + 1..).unwrap_or_default());
            pairs.push((decoded(name)?, decoded(value)?));
        }
        let params = Self::checked(pairs)?;
        Ok(params)
    }

    /// Reads a JSON object whose values are strings (or, where repeating is allowed, lists of strings).
    ///
    /// # Errors
    /// [`InvalidParams`] for anything else.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidParams> {
        let members: Map<String, Value> = json::parse(text).map_err(|_| InvalidParams::Malformed)?;
        let mut pairs = Vec::with_capacity(members.len());
        for (name, value) in members {
            match value {
                Value::String(text) => pairs.push((name, text)),
                Value::Null => {}
                Value::Array(items) => {
                    for item in items {
                        let Value::String(text) = item else { return Err(InvalidParams::Malformed) };
                        pairs.push((name.clone(), text));
                    }
                }
                Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(InvalidParams::Malformed),
            }
        }
        Self::checked(pairs)
    }

    fn checked(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, InvalidParams> {
        let pairs: Vec<_> = pairs.into_iter().take(Self::MAX + 1).collect();
        if pairs.len() > Self::MAX {
            return Err(InvalidParams::TooMany);
        }
        // At most 64 names: comparing each with those before it beats hashing them.
        let repeated = |(n, (name, _)): (usize, &(String, String))| {
            !REPEATABLE.contains(&name.as_str()) && pairs[..n].iter().any(|(before, _)| before == name)
        };
        if pairs.iter().enumerate().any(repeated) {
            return Err(InvalidParams::Repeated);
        }
        Ok(Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a secret parameter.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(Secret::from)
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Undoes the encoding of one name or value. Most are plain text as they are, and tokens are long: what needs no decoding is
/// not walked through byte by byte.
fn decoded(text: &[u8]) -> Result<String, InvalidParams> {
    let plain = if text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_decode(&spaced).collect()
    } else {
        text.to_vec()
    };
    String::from_utf8(plain).map_err(|_| InvalidParams::Malformed)
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_parameters_are_read_and_one_more_is_not() {
        let form = |n: usize| (0..n).map(|i| format!("p{i}=v")).collect::<Vec<_>>().join("&");
        assert!(Params::from_form(form(64).as_bytes()).is_ok());
        assert_eq!(Params::from_form(form(65).as_bytes()).unwrap_err(), InvalidParams::TooMany);
    }

    #[test]
    fn repeats_are_refused_except_resource_and_audience() {
        assert!(Params::from_form(b"a=1&a=").is_err());
        let params = Params::from_form(b"resource=x&resource=y").unwrap();
        assert_eq!(params.all("resource").collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn json_is_read_like_a_form() {
        let params = Params::from_json(br#"{"a":"1","resource":["x","y"],"c":null}"#).unwrap();
        assert_eq!((params.get("a"), params.get("c")), (Some("1"), None));
        assert_eq!(params.all("resource").count(), 2);
        for bad in [&b"[]"[..], b"{\"a\":1}", b"{\"a\":[\"1\",\"2\"]}", b"{\"a\":\"1\",\"a\":\"2\"}", b"{"] {
            assert!(Params::from_json(bad).is_err());
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let params = Params::from_form(b"client_secret=canary").unwrap();
        assert_eq!(format!("{params:?}"), r#"["client_secret"]"#);
    }
}
