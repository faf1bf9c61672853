//! What a signature can cover (RFC 9421 section 2).

use std::fmt;

use http::HeaderName;

use super::SignatureError;

/// A covered component of a request: a field by its name, or a derived component (RFC 9421 section 2.2). Components have
/// no parameters here: those that have are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Component {
    /// `@method`.
    Method,
    /// `@target-uri`: scheme, authority, path and query.
    TargetUri,
    /// `@authority`.
    Authority,
    /// `@scheme`.
    Scheme,
    /// `@request-target`, in origin form: path and query.
    RequestTarget,
    /// `@path`.
    Path,
    /// `@query`, with its question mark.
    Query,
    /// A field.
    Field(HeaderName),
}

/// How much of a name that cannot be covered is repeated to its sender.
const SHOWN: usize = 64;

impl Component {
    /// The component with this name.
    ///
    /// # Errors
    /// [`SignatureError::UnsupportedComponent`] if it is another derived component (`@status` is of responses,
    /// `@query-param` takes a parameter), not a field name in lower case, or a field that a signature cannot cover since
    /// it is written afterwards.
    pub fn parse(name: &str) -> Result<Self, SignatureError> {
        let component = match name {
            "@method" => Some(Self::Method),
            "@target-uri" => Some(Self::TargetUri),
            "@authority" => Some(Self::Authority),
            "@scheme" => Some(Self::Scheme),
            "@request-target" => Some(Self::RequestTarget),
            "@path" => Some(Self::Path),
            "@query" => Some(Self::Query),
            "signature" | "signature-input" => None,
            field => HeaderName::from_lowercase(field.as_bytes()).ok().map(Self::Field),
        };
        component.ok_or_else(|| {
            SignatureError::UnsupportedComponent(
                name.get(..SHOWN).unwrap_or(name).to_owned().into_boxed_str(),
            )
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => "@method",
            Self::TargetUri => "@target-uri",
            Self::Authority => "@authority",
            Self::Scheme => "@scheme",
            Self::RequestTarget => "@request-target",
            Self::Path => "@path",
            Self::Query => "@query",
            Self::Field(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
