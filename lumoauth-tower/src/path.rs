//! Request paths, taken apart: which organization, which prefix, which segments below it.
//!
//! Segments are percent-decoded one by one after splitting, so an encoded `/` stays inside its segment and can never name
//! another route.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Location<'a> {
    /// The organization's segment; `None` on the routes without one.
    pub(crate) org: Option<Cow<'a, str>>,
    /// The prefix as the caller wrote it.
    pub(crate) prefix: &'a str,
    /// The segments below the prefix, decoded.
    pub(crate) rest: Vec<Cow<'a, str>>,
}

/// Takes a request path apart; `None` if it is not one of this API.
pub(crate) fn locate(path: &str) -> Option<Location<'_>> {
    // Some clients join a base URL with a trailing slash and a path with a leading one.
    let path = if path.starts_with("//") { &path[1..] } else { path };
    let mut segments: Vec<Cow<'_, str>> = path
        .strip_prefix('/')?
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8())
        .collect::<Result<_, _>>()
        .ok()?;
    let word = |n: usize| segments.get(n).map_or("", AsRef::as_ref);
    let is_base = |n: usize| matches!(word(n), "orgs" | "t") && word(n + 2) == "api" && word(n + 3) == "v1";
    // RFC 8414 section 3.1 and RFC 9728 section 3.1 put the well-known part before the issuer's path.
    let inserted = ["oauth-authorization-server", "openid-configuration", "oauth-protected-resource"];
    let (org, prefix) = if is_base(0) {
        (Some(1), 0..4)
    } else if word(0) == "api" && word(1) == "v1" {
        (None, 0..2)
    } else if word(0) == ".well-known" && inserted.contains(&word(1)) && is_base(2) {
        (Some(3), 2..6)
    } else {
        return None;
    };
    let org = org.map(|n| segments[n].clone());
    let text = before_segment(path, prefix.end);
    segments.drain(prefix);
    Some(Location { org, prefix: text, rest: segments })
}

/// What stands before the `n`th segment, without the slash between.
fn before_segment(path: &str, n: usize) -> &str {
    path.match_indices('/').nth(n).map_or(path, |(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prefixes_and_inserted_metadata_name_the_same_place() {
        let rest = |path| locate(path).unwrap().rest;
        assert_eq!(rest("/orgs/acme/api/v1/oauth/token"), rest("/t/acme/api/v1/oauth/token"));
        assert_eq!(
            rest("/.well-known/oauth-authorization-server/orgs/acme/api/v1"),
            rest("/orgs/acme/api/v1/.well-known/oauth-authorization-server"),
        );
        assert_eq!(locate("//orgs/acme/api/v1/x").unwrap().org.unwrap(), "acme");
        assert!(locate("/").is_none());
        assert!(locate("/orgs/acme/api/v2/x").is_none());
    }

    #[test]
    fn what_does_not_decode_names_nothing() {
        assert!(locate("/orgs/acme/api/v1/%ff").is_none());
    }
}
