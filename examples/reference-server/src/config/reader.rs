//! Reads keys one by one, and remembers which were asked for and what was wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::RangeInclusive,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    util::nest,
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

use super::Problems;

/// A file, the variables over it, and the problems found so far.
#[derive(Debug)]
pub(super) struct Reader {
    layers: Figment,
    file: String,
    variables: BTreeMap<String, String>,
    asked: BTreeSet<&'static str>,
    problems: Vec<String>,
}

impl Reader {
    /// A reader of this text.
    ///
    /// # Errors
    /// [`Problems`] if the text is not TOML.
    pub(super) fn new(
        text: &str,
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let overlay = Overlay::of(variables);
        let variables =
            overlay.0.iter().map(|(key, variable)| (key.clone(), variable.name.clone())).collect();
        let layers = Figment::from(Toml::string(text)).merge(overlay);
        // Whether it is TOML at all shows at the first question, whatever that is.
        if let Err(error) = layers.data() {
            return Err(Problems(
                error.into_iter().map(|error| format!("`{file}`: {}", error.kind)).collect(),
            ));
        }
        Ok(Self { layers, file: file.to_owned(), variables, asked: BTreeSet::new(), problems: Vec::new() })
    }

    /// Whether the key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.layers.contains(key)
    }

    /// The value of `key`; `None` if it is not set, or wrong, which is then a problem.
    pub(super) fn value<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        self.asked.insert(key);
        if !self.has(key) {
            return None;
        }
        match self.layers.extract_inner(key) {
            Ok(value) => Some(value),
            Err(error) => {
                for error in error {
                    self.wrong(key, error.kind);
                }
                None
            }
        }
    }

    /// The same for a text that means something else.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text: String = self.value(key)?;
        parse(&text).map_err(|error| self.wrong(key, error)).ok()
    }

    /// The same for a number within `bounds`.
    pub(super) fn number(&mut self, key: &'static str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number: i64 = self.value(key)?;
        match u32::try_from(number).ok().filter(|number| bounds.contains(number)) {
            Some(number) => Some(number),
            None => {
                self.wrong(key, format_args!("must be {} to {}", bounds.start(), bounds.end()));
                None
            }
        }
    }

    /// Notes something that no single value is to blame for.
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// The end: every key that was set must have been asked for.
    ///
    /// # Errors
    /// [`Problems`], if there were any.
    pub(super) fn finish(mut self) -> Result<(), Problems> {
        let mut set = Vec::new();
        for dict in self.layers.data().unwrap_or_default().values() {
            leaves("", dict, &self.asked, &mut set);
        }
        for key in set.iter().filter(|key| !self.asked.contains(key.as_str())) {
            self.problems.push(format!("unknown key {}", self.place(key)));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }

    fn wrong(&mut self, key: &str, what: impl Display) {
        let place = self.place(key);
        self.problems.push(format!("{place}: {what}"));
    }

    fn place(&self, key: &str) -> String {
        match self.variables.get(key) {
            Some(variable) => format!("`{key}` in the variable {variable}"),
            None => format!("`{key}` in `{}`", self.file),
        }
    }
}

/// The keys that are set. A table is one if somebody asked for it as a whole, or if it is empty.
fn leaves(prefix: &str, dict: &Dict, asked: &BTreeSet<&'static str>, found: &mut Vec<String>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let begins_known = |known: &&str| known.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.'));
        match value {
            Value::Dict(_, inner) if !inner.is_empty() && !asked.contains(key.as_str()) => {
                leaves(&key, inner, asked, found);
            }
            // `[log]` with nothing in it says nothing wrong.
            Value::Dict(_, inner) if inner.is_empty() && asked.iter().any(begins_known) => {}
            _ => found.push(key),
        }
    }
}

/// The variables that are meant for us, by key.
struct Overlay(BTreeMap<String, Variable>);

struct Variable {
    name: String,
    value: Value,
}

impl Overlay {
    const PREFIX: &str = "LUMOAUTH_SERVER_";

    fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(
            variables
                .into_iter()
                .filter_map(|(name, text)| {
                    let key = name.strip_prefix(Self::PREFIX)?.to_lowercase().replace("__", ".");
                    // Numbers and booleans are read as such; what is neither is text.
                    let value = text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
                    Some((key, Variable { name, value }))
                })
                .collect(),
        )
    }
}

impl Provider for Overlay {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut layers = Figment::new();
        for (key, variable) in &self.0 {
            if let Some(dict) = nest(key, variable.value.clone()).into_dict() {
                layers = layers.merge(figment::providers::Serialized::defaults(dict));
            }
        }
        layers.data()
    }
}
