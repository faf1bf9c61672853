//! How much of each fault a run tries.

use std::env;

/// The number in the environment variable `name`, or what `run --quick` tries.
pub(crate) fn count(name: &str, quick: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => quick,
    }
}
