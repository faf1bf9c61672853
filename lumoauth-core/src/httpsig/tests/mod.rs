//! The signature core against the RFC's vectors, the contract's, and what must be refused.

mod support;
mod vectors;
