#![doc = include_str!("../README.md")]

mod aauth_resources;
mod agents;
mod api_keys;
mod approvals;
mod audit;
mod audit_search;
mod audit_tree;
mod batcher;
mod budgets;
mod changes;
mod clients;
mod consents;
mod failure;
mod grants;
mod jit;
mod keys;
mod mcp_servers;
mod open;
mod organizations;
mod outbox;
mod policies;
mod pool;
mod rate_limits;
mod records;
mod replay;
mod schema;
mod sequencer;
mod upkeep;
mod users;
mod values;

#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

pub use open::{OpenError, PostgresStore, Settings};
