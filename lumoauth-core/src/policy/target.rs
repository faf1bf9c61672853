//! Under which types and actions an attribute policy may be about a question.

use std::iter;

use super::{Effect, Question};

/// Under which names policies are looked for that see the resource as being of one type.
pub(super) struct Sought<'a> {
    /// The type of the resource, in conditions.
    pub(super) kind: Option<&'a str>,
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
    /// type an action is would be the caller's choice then. Only where a policy about that type spells the whole action, it
    /// is the administrator who said so.
    ///
    /// A policy about a type sees the resource as one of that type, whatever the caller calls it, with what is known of it
    /// there. One about every type that denies sees it as each type that it can be of.
    pub(super) fn sought(&self, effect: Effect) -> Vec<Sought<'_>> {
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
        let own = parts.iter().map(|(kind, _)| *kind).chain(object.map(|(_, kind)| kind));
        let last = parts.last().map(|(kind, _)| *kind);
        let mut kinds: Vec<_> = match (self.resource.kind, deny) {
            (None, true) => own.map(Some).collect(),
            (None, false) => vec![last],
            (Some(given), _) => {
                let trusted = self.verb.is_some();
                let is_own = parts.is_empty() || trusted || own.clone().any(|kind| kind == given);
                if is_own || deny {
                    names.extend(self.verb.iter().flat_map(|verb| [(given, *verb), ("*", *verb)]));
                }
                names.push((given, action));
                if parts.is_empty() || trusted || deny {
                    names.push((given, "*"));
                }
                if deny {
                    names.extend(parts.iter().map(|(_, verb)| (given, *verb)));
                    names.extend(object.map(|(verb, _)| (given, verb)));
                }
                // Where the type is the object, what stands before it is what is done and no type.
                let verb = object.and_then(|(verb, kind)| (kind == given).then_some(verb));
                match (is_own, deny) {
                    (true, false) => vec![Some(given)],
                    (false, false) => vec![last],
                    (_, true) if trusted => vec![Some(given)],
                    // What is known of it as one thing turns no denial of the other.
                    (_, true) => {
                        let others = own.filter(|kind| Some(*kind) != verb).map(Some);
                        iter::once(Some(given)).chain(others).collect()
                    }
                }
            }
        };
        if kinds.is_empty() {
            kinds.push(None);
        }
        let mut sought: Vec<Sought<'_>> = Vec::with_capacity(kinds.len() + 1);
        let everywhere: Vec<_> = names.iter().copied().filter(|(kind, _)| *kind == "*").collect();
        for kind in kinds {
            if sought.iter().all(|one| one.kind != kind) {
                sought.push(Sought { kind, names: everywhere.clone() });
            }
        }
        for name in names.into_iter().filter(|(kind, _)| *kind != "*") {
            match sought.iter_mut().find(|one| one.kind == Some(name.0)) {
                Some(one) => one.names.push(name),
                None => sought.push(Sought { kind: Some(name.0), names: vec![name] }),
            }
        }
        sought
    }
}

#[cfg(test)]
mod tests;
