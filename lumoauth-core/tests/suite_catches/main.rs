//! Stores with one mistake each, and the case of the suite that must not pass.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aauth;
mod approvals;
mod atomicity;
mod audit_tree;
mod budgets;
mod consents;
mod events;
mod expiry;
mod grants;
mod jit;
mod mcp_servers;
mod organizations;
mod policies;
mod replay;
mod secrecy;
