//! Exchanges over a memory store, through the token endpoint.

mod addresses;
mod audit;
mod cascade;
mod delegation;
mod dice;
mod histories;
mod id_tokens;
mod narrowing;
mod reading;
mod refusals;
mod setting;
