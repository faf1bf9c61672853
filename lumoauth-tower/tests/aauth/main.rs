//! Services that agents call with signed requests.

#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod content;
mod refused;
mod served;
mod setting;
