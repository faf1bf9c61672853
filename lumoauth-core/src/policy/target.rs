//! Under which types and actions an attribute policy may be about a question.

use super::{Effect, Question};

/// Where policies about a question are looked for.
pub(super) struct Sought<'a> {
    /// The types that the resource has for conditions, one after the other.
    pub(super) kinds: Vec<Option<&'a str>>,
    /// Type and action, as policies name them.
    pub(super) names: Vec<(&'a str, &'a str)>,
}

impl<'a> Question<'a> {
    /// Where policies with this effect are looked for.
    ///
    /// An action is of each type that stands before one of its separators: `document.read.all` is `read.all` of a `document`,
    /// and `all` of a `document.read`. One with a colon is of the type of its object too: `read:documents` is `read` of
    /// `documents`, where a policy that allows must name it. One without separators is of the type that the caller names.
    ///
    /// Another type that the caller names adds policies that deny, and takes none away. It adds none that allow: of what
    /// type an action is would be the caller's choice then.
    pub(super) fn sought(&self, effect: Effect) -> Sought<'_> {
        let action = self.action.as_str();
        let deny = effect == Effect::Deny;
        let parts: Vec<_> = action
            .match_indices(['.', ':'])
            .filter_map(|(at, _)| action.get(..at).zip(action.get(at + 1..)))
            .filter(|(kind, verb)| !kind.is_empty() && !verb.is_empty())
            .collect();
        let object = action.split_once(':').filter(|(verb, object)| !verb.is_empty() && !object.is_empty());
        let mut names = vec![("*", action), ("*", "*")];
        for (kind, verb) in &parts {
            names.extend([(*kind, *verb), (*kind, action), (*kind, "*"), ("*", *verb)]);
        }
        if let Some((verb, kind)) = object {
            names.extend([(kind, verb), (kind, action)]);
            names.extend([(kind, "*"), ("*", verb)].into_iter().filter(|_| deny));
        }
        let own = parts.last().map(|(kind, _)| *kind);
        let Some(given) = self.resource.kind else { return Sought { kinds: vec![own], names } };
        let is_own = parts.is_empty()
            || self.verb.is_some()
            || parts.iter().any(|(kind, _)| *kind == given)
            || object.is_some_and(|(_, kind)| kind == given);
        if is_own || deny {
            names.extend(self.verb.iter().flat_map(|verb| [(given, *verb), ("*", *verb)]));
        }
        if parts.is_empty() || self.verb.is_some() || deny {
            names.extend([(given, action), (given, "*")]);
        }
        if deny {
            names.extend(parts.iter().map(|(_, verb)| (given, *verb)));
            names.extend(object.map(|(verb, _)| (given, verb)));
        }
        let kinds = match (is_own, deny) {
            (true, _) => vec![Some(given)],
            // Neither what is known of the one nor of the other turns a denial.
            (false, true) => vec![Some(given), own],
            (false, false) => vec![own],
        };
        Sought { kinds, names }
    }
}

#[cfg(test)]
mod tests;
