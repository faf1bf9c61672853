//! Strict JSON. What is accepted, and nothing else, is what another reader that keeps every member finds to be free of
//! duplicates and not too deep.

#![no_main]

use std::{collections::HashSet, fmt};

use libfuzzer_sys::fuzz_target;
use lumoauth_core::json::{self, MAX_DEPTH};
use lumoauth_fuzz::{depth, has_floats};
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let accepted = json::parse::<Value>(data);
    let expected = match serde_json::from_slice::<Tree>(data) {
        Ok(tree) => !tree.repeats && tree.depth <= MAX_DEPTH && !tree.reserved,
        Err(_) => false,
    };
    assert_eq!(accepted.is_ok(), expected);
    assert_eq!(json::check(data).is_ok(), expected);
    let Ok(value) = accepted else { return };
    assert!(depth(&value) <= MAX_DEPTH);
    if !has_floats(&value) {
        assert_eq!(json::parse::<Value>(value.to_string().as_bytes()).expect("the same value"), value);
    }
});

/// What matters of a value: how deep it is, whether a member of it is there twice, whether one has a name that means something
/// to `serde_json` itself.
#[derive(Default)]
struct Tree {
    depth: usize,
    repeats: bool,
    reserved: bool,
}

impl Tree {
    fn take(&mut self, inner: &Self) {
        self.depth = self.depth.max(inner.depth);
        self.repeats |= inner.repeats;
        self.reserved |= inner.reserved;
    }

    fn around(mut self) -> Self {
        self.depth += 1;
        self
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut all = Tree::default();
        while let Some(item) = items.next_element::<Tree>()? {
            all.take(&item);
        }
        Ok(all.around())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let (mut all, mut names) = (Tree::default(), HashSet::new());
        while let Some((name, value)) = members.next_entry::<String, Tree>()? {
            all.take(&value);
            all.reserved |= name.starts_with("$serde_json::private::");
            all.repeats |= !names.insert(name);
        }
        Ok(all.around())
    }
}
