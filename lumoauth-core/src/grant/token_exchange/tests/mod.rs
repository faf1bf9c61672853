//! Exchanges over a memory store.
