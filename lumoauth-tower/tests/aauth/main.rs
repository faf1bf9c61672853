//! Services that agents call with signed requests.

#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod client;
mod content;
mod issuers;
mod keeping;
mod people;
mod policy;
mod refused;
mod served;
mod setting;
