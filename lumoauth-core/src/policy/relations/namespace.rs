//! How the relations of a namespace follow from each other.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::{RecordId, RecordKind};
use crate::id::Label;

/// The rules of one namespace. A relation that has no rule here does not exist in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Namespace {
    /// The part of an object before the colon.
    pub name: Label,
    /// Its relations.
    pub relations: BTreeMap<Label, Rewrite>,
}

/// Who has a relation to an object. On the wire: `"this"`, `{"computedUserset": "editor"}`,
/// `{"tupleToUserset": {"tupleset": "parent", "computedUserset": "viewer"}}`, `{"union": [..]}`, `{"intersection": [..]}`,
/// `{"exclusion": [who, but not]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_enums, reason = "every rule must be handled where relations are decided")]
pub enum Rewrite {
    /// Those that tuples name.
    This,
    /// Those that have another relation to the same object.
    ComputedUserset(Label),
    /// Those that have a relation to what this object has a relation to.
    #[serde(rename_all = "camelCase")]
    TupleToUserset {
        /// The relation that leads there.
        tupleset: Label,
        /// The relation that one has to have there.
        computed_userset: Label,
    },
    /// Those that any of these names.
    Union(Vec<Self>),
    /// Those that all of these name.
    Intersection(Vec<Self>),
    /// Those that the first names and the second does not.
    Exclusion(Box<[Self; 2]>),
}

/// The rules make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
#[non_exhaustive]
pub struct InvalidNamespace(pub String);

impl Namespace {
    /// The most relations of one namespace.
    pub const MAX_RELATIONS: usize = 64;
    /// The most parts of one rule.
    const MAX_PARTS: usize = 64;
    /// How deep rules go into each other at most.
    const MAX_DEPTH: usize = 8;

    /// The namespace `name` with these rules.
    ///
    /// # Errors
    /// [`InvalidNamespace`] if there are too many, one is too large, or one names a relation that there is not.
    pub fn new(name: Label, relations: BTreeMap<Label, Rewrite>) -> Result<Self, InvalidNamespace> {
        if relations.is_empty() || relations.len() > Self::MAX_RELATIONS {
            return Err(InvalidNamespace(format!("must have 1 to {} relations", Self::MAX_RELATIONS)));
        }
        for (relation, rewrite) in &relations {
            let mut parts = 0;
            rewrite.check(&relations, Self::MAX_DEPTH, &mut parts).map_err(|InvalidNamespace(problem)| {
                InvalidNamespace(format!("have `{relation}`, which {problem}"))
            })?;
        }
        Ok(Self { name, relations })
    }

    /// The name of the record of the namespace `name`.
    pub fn record_id(name: &Label) -> RecordId {
        RecordId::of_parts(RecordKind::Namespace, name.to_string())
    }
}

impl Rewrite {
    fn check(
        &self,
        relations: &BTreeMap<Label, Self>,
        depth: usize,
        parts: &mut usize,
    ) -> Result<(), InvalidNamespace> {
        *parts += 1;
        if depth == 0 || *parts > Namespace::MAX_PARTS {
            return Err(InvalidNamespace("has too many parts".to_owned()));
        }
        let known = |relation: &Label| {
            if relations.contains_key(relation) {
                Ok(())
            } else {
                Err(InvalidNamespace(format!("names `{relation}`, which there is not")))
            }
        };
        match self {
            Self::This => Ok(()),
            Self::ComputedUserset(relation) => known(relation),
            Self::TupleToUserset { tupleset, .. } => known(tupleset),
            Self::Union(rules) | Self::Intersection(rules) if rules.is_empty() => {
                Err(InvalidNamespace("has an empty list".to_owned()))
            }
            Self::Union(rules) | Self::Intersection(rules) => {
                rules.iter().try_for_each(|rule| rule.check(relations, depth - 1, parts))
            }
            Self::Exclusion(rules) => {
                rules.iter().try_for_each(|rule| rule.check(relations, depth - 1, parts))
            }
        }
    }
}

/// Namespaces that there are without anybody having made them.
pub(super) const COMMON: [&str; 8] =
    ["agent", "document", "folder", "group", "organization", "project", "team", "user"];

static THIS: Rewrite = Rewrite::This;

/// The rule of `relation` in a namespace that nobody defined.
pub(super) fn usual(relation: &str) -> &'static Rewrite {
    static USUAL: LazyLock<[Rewrite; 4]> = LazyLock::new(|| {
        let label = |name: &str| Label::parse(name).ok();
        let rule = |own: &str, stronger: Option<&str>, inherited: bool| {
            let mut rules = vec![Rewrite::This];
            rules.extend(stronger.and_then(label).map(Rewrite::ComputedUserset));
            if let (true, Some(tupleset), Some(computed_userset)) = (inherited, label("parent"), label(own)) {
                rules.push(Rewrite::TupleToUserset { tupleset, computed_userset });
            }
            Rewrite::Union(rules)
        };
        [
            rule("owner", None, true),
            rule("editor", Some("owner"), true),
            rule("viewer", Some("editor"), true),
            rule("member", Some("admin"), false),
        ]
    });
    let [owner, editor, viewer, member] = &*USUAL;
    match relation {
        "owner" => owner,
        "editor" => editor,
        "viewer" => viewer,
        "member" => member,
        _ => &THIS,
    }
}
