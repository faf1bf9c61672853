//! The protocol core of lumoauth: identities, tokens, budgets and policy for AI agents.
//!
//! [`server::AuthorizationServer`] is where to start: one method per thing a client can ask for, over stores
//! ([`store`]) and keys ([`keys`]) that you choose. This crate speaks no HTTP and runs on no particular runtime;
//! `lumoauth-tower` puts the endpoints in front of it.
//!
//! # Map
//!
//! Modules import only from the layers above their own in this list.
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | values | [`clock`], [`id`], [`json`], [`jwks`], [`merkle`], [`network`], [`random`], [`secret`] | time, identifiers, strict JSON, hash trees, ranges of addresses, randomness, secrets |
//! | domain | [`aauth_resource`], [`agent`], [`api_key`], [`approval`], [`audit`], [`budget`], [`capability`], [`client`], [`consent`], [`jit`], [`mcp`], [`organization`], [`policy`], [`user`], [`workload`] | records and decisions; pure, without I/O |
//! | ports | [`store`], [`keys`], [`fetch`], [`notify`], [`people`] | what a host or a backend implements |
//! | protocol | [`aauth`], [`audit_export`], [`authorize`], [`authz`], [`client_auth`], [`foreign_keys`], [`grant`], [`httpsig`], [`principal`], [`token`], [`wire`] | OAuth, JWT, signed requests, who is calling, who decides, what clients see |
//! | server | [`server`] | everything together |
//!
//! # A token request
//!
//! [`server::AuthorizationServer::token`] finds the grant by its type, [`client_auth`] proves who the client is, the
//! grant decides with pure functions ([`capability::narrow`], [`budget::admits`]), writes what must be written (one
//! audit event, one charge), and only then chooses a key and signs.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `test-util` | [`clock::ManualClock`](crate::clock), a clock that tests move by hand |
//! | `conformance` | the behaviour suite for store backends |

pub mod aauth;
pub mod aauth_resource;
pub mod agent;
pub mod api_key;
pub mod approval;
pub mod audit;
pub mod audit_export;
pub mod authorize;
pub mod authz;
pub mod budget;
pub mod capability;
pub mod client;
pub mod client_auth;
pub mod clock;
pub mod consent;
pub mod fetch;
pub mod foreign_keys;
pub mod grant;
pub mod httpsig;
pub mod id;
pub mod jit;
pub mod json;
pub mod jwks;
pub mod keys;
pub mod mcp;
pub mod merkle;
pub mod network;
pub mod notify;
pub mod organization;
pub mod people;
pub mod policy;
pub mod principal;
pub mod random;
pub mod secret;
pub mod server;
pub mod spending;
pub mod store;
pub mod token;
pub mod user;
pub mod wire;
pub mod workload;
