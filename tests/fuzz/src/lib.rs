//! What the fuzz targets share: keys that never change, and a whole server in memory for the parsers that have no door of
//! their own.
//!
//! A target gives what it read to something that can tell whether it was read right: a second reader, the text it prints, a
//! limit that is documented. Everything is the same in each run (keys, secrets, time), so that an input that fails fails again.

mod bench;
mod keys;
mod request;
mod world;

use std::{future::Future, sync::LazyLock};

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

pub use bench::{AAUTH_AGENT, AAUTH_RESOURCE, Answer, BASE, BOT_SECRET, Bench, ISSUER, NOW, ORG, form};
pub use keys::{FixedKeys, Pair};
pub use request::{position, request};
pub use world::World;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without threads"));

/// What `future` comes to.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// The text before the first line that is `mark`, and the text after it.
pub fn halves<'a>(text: &'a str, mark: &str) -> (&'a str, &'a str) {
    text.split_once(mark).unwrap_or((text, ""))
}

/// Whether there is a number with a fraction or an exponent in it: those are not printed as they were read.
pub fn has_floats(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_floats),
        Value::Object(members) => members.values().any(has_floats),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// How many levels of arrays and objects there are.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
