//! Services that agents call with signed requests.

#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod client;
mod content;
mod people;
mod refused;
mod served;
mod setting;
