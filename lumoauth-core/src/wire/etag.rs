//! Entity tags: which version of a record somebody saw, and wants to change (RFC 9110 sections 8.8.3 and 13.1.1).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    aauth_resource::AAuthResource,
    agent::Agent,
    client::Client,
    clock::Timestamp,
    mcp::McpServer,
    organization::Organization,
    policy::{AttributeDefinition, Permission, Policy, Role},
    secret::sha256,
    user::User,
};

/// The name of one version of one record: a strong entity tag.
///
/// It names what is stored of the record. What an answer shows beside that, such as the roles of an agent, has no part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// The instant is in it because a record that is made anew under an old name begins with the same version.
    fn of_version(created_at: Timestamp, version: u64) -> Self {
        Self(format!("{:x}-{version}", created_at.unix_millis()))
    }

    fn of_content(record: &impl Serialize) -> Self {
        // Names, numbers, lists and maps with text keys: there is nothing in them that cannot be written.
        let text = serde_json::to_vec(record).unwrap_or_default();
        Self(URL_SAFE_NO_PAD.encode(sha256(&text)))
    }

    /// The value of the header `ETag`.
    pub fn header_value(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

/// A record whose versions have names.
pub trait Tagged {
    /// The name of this version.
    fn entity_tag(&self) -> EntityTag;
}

macro_rules! tagged {
    (version: $($record:ty),*; content: $($content:ty),*) => {
        $(impl Tagged for $record {
            fn entity_tag(&self) -> EntityTag {
                EntityTag::of_version(self.created_at, self.version)
            }
        })*
        $(impl Tagged for $content {
            fn entity_tag(&self) -> EntityTag {
                EntityTag::of_content(self)
            }
        })*
    };
}
tagged! {
    version: AAuthResource, Agent, Client, McpServer, Organization, User;
    content: AttributeDefinition, Permission, Policy, Role
}

/// The header `If-Match`: the versions that a change may replace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 9110 knows these two forms")]
pub enum IfMatch {
    /// `*`: any version of a record that is there.
    Any,
    /// One of these. Weak tags are not among them: they never match here.
    OneOf(Vec<EntityTag>),
}

/// A header `If-Match` that is neither `*` nor a list of entity tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("If-Match must be * or a list of entity tags")]
#[non_exhaustive]
pub struct InvalidIfMatch;

impl IfMatch {
    /// Reads the value of the header; of several headers, their values with commas between them.
    ///
    /// ```
    /// use lumoauth_core::wire::IfMatch;
    ///
    /// assert_eq!(IfMatch::parse(b" * "), Ok(IfMatch::Any));
    /// assert!(matches!(IfMatch::parse(br#""a", W/"b""#), Ok(IfMatch::OneOf(tags)) if tags.len() == 1));
    /// assert!(IfMatch::parse(b"a").is_err());
    /// ```
    ///
    /// # Errors
    /// [`InvalidIfMatch`] if it is neither `*` nor a list of at least one entity tag.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidIfMatch> {
        let mut rest = value.trim_ascii();
        if rest == b"*" {
            return Ok(Self::Any);
        }
        let (mut tags, mut found) = (Vec::new(), false);
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(b",") {
                rest = behind.trim_ascii_start();
                continue;
            }
            let (weak, opaque) = match rest.strip_prefix(b"W/") {
                Some(opaque) => (true, opaque),
                None => (false, rest),
            };
            let opaque = opaque.strip_prefix(b"\"").ok_or(InvalidIfMatch)?;
            let end = opaque.iter().position(|byte| *byte == b'"').ok_or(InvalidIfMatch)?;
            let (tag, behind) = opaque.split_at(end);
            if tag.iter().any(|byte| byte.is_ascii_control() || *byte == b' ') {
                return Err(InvalidIfMatch);
            }
            found = true;
            // Ours are ASCII: another one names no version of ours.
            if let (false, Ok(tag)) = (weak, std::str::from_utf8(tag)) {
                tags.push(EntityTag(tag.to_owned()));
            }
            rest = behind.strip_prefix(b"\"").unwrap_or(behind).trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(b",") {
                return Err(InvalidIfMatch);
            }
        }
        if found { Ok(Self::OneOf(tags)) } else { Err(InvalidIfMatch) }
    }

    /// Whether `record` may be replaced.
    pub(crate) fn admits(&self, record: &impl Tagged) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.contains(&record.entity_tag()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Slug;

    fn tags(value: &[u8]) -> Vec<String> {
        match IfMatch::parse(value).unwrap() {
            IfMatch::OneOf(tags) => tags.into_iter().map(|tag| tag.0).collect(),
            IfMatch::Any => panic!("any"),
        }
    }

    #[test]
    fn lists_of_tags_are_read() {
        assert_eq!(tags(br#""a""#), ["a"]);
        assert_eq!(tags(br#""""#), [""]);
        assert_eq!(tags(b" \"a\" ,\t\"b,c\", , \"d\","), ["a", "b,c", "d"]);
        // A weak tag is a tag, and matches nothing.
        assert!(tags(br#"W/"a""#).is_empty());
        assert_eq!(tags(b"\"\xff\", \"a\""), ["a"]);
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for value in [
            &b""[..],
            b" ",
            b",",
            b"a",
            b"\"a",
            b"a\"",
            b"\"a\" \"b\"",
            b"\"a\"b",
            b"*, \"a\"",
            b"**",
            b"w/\"a\"",
            b"W/ \"a\"",
            b"W/",
            b"\"a b\"",
            b"\"a\x01\"",
            b"\"a\x7f\"",
            b"'a'",
        ] {
            assert_eq!(IfMatch::parse(value), Err(InvalidIfMatch), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_tag_names_one_version_of_one_record() {
        let at = |millis| Agent::new("Bot", Slug::parse("bot").unwrap(), Timestamp::from_unix_millis(millis));
        let old = at(1);
        let next = Agent { version: 1, ..old.clone() };
        let tag = |agent: &Agent| agent.entity_tag().header_value();
        assert_eq!(IfMatch::parse(tag(&old).as_bytes()), Ok(IfMatch::OneOf(vec![old.entity_tag()])));
        for other in [&next, &at(2)] {
            let known = IfMatch::parse(tag(&old).as_bytes()).unwrap();
            assert!(known.admits(&old) && !known.admits(other));
            assert!(IfMatch::Any.admits(other));
        }
    }
}
