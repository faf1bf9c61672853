//! Reading JSON answers without noise: each accessor panics with the value it met.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

/// The string in `value`.
///
/// # Panics
/// When it is something else.
#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a string, got {value}"))
}

/// The integer in `value`; a float such as `3.0` does not count.
///
/// # Panics
/// When it is something else.
#[track_caller]
pub fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("expected an integer, got {value}"))
}

/// The array in `value`.
///
/// # Panics
/// When it is something else.
#[track_caller]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected an array, got {value}"))
}

/// The array of strings in `value`, sorted.
///
/// # Panics
/// When it is something else.
#[track_caller]
pub fn strings(value: &Value) -> Vec<&str> {
    let mut items: Vec<&str> = list(value).iter().map(text).collect();
    items.sort_unstable();
    items
}

/// `prefix` with a suffix that no other test, process or run has.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let noise = RandomState::new().hash_one((process::id(), count));
    format!("{prefix}-{noise:016x}")
}
