//! lumoauth over HTTP: the endpoints as one tower service, and layers that protect your own routes.
//!
//! # Three ways to use it
//!
//! 1. **Host the authorization server.** [`LumoauthService`] answers every endpoint; mount it as the fallback of any
//!    router, or serve it under hyper.
//! 2. **Protect your own routes** in the same process. [`AuthenticateLayer`] turns a credential into a
//!    [`Principal`](lumoauth_core::principal::Principal), [`RequireCapabilityLayer`] checks what it holds. The
//!    service's own routes stand behind the same two layers.
//! 3. **Both**: one process, one router, as in the README.
//!
//! # Order of the layers
//!
//! `AuthenticateLayer` outside, `RequireCapabilityLayer` inside: who is not authenticated must not learn which
//! capability a route wants. A layer that misses its predecessor answers 500 and logs which one.
//!
//! # What a host should add
//!
//! - [`PeerAddr`] in the request's extensions, so that audit entries and rate limits know the peer.
//! - `server.maintenance()`, spawned once.
//! - A way out, if clients or platforms publish keys: `GuardedFetch` (feature `fetch`), which reaches public addresses
//!   only.
//! - [`LumoauthService::with_people`], if people are to let clients and agents act for them; [`pages`] has the frame of the
//!   consent page for the host's page to sign in.
//! - [`MatchedRoute`] in place of the path, where requests are logged.
//! - Something that takes the path of the public URL away, if that has one, before a request gets here.
//! - A limit on how long a request head may take; bodies are bounded here (64 KiB, 15 seconds).

mod authenticate;
mod body;
mod budget;
mod capability;
mod endpoint;
#[cfg(feature = "fetch")]
mod fetch;
mod guard;
pub mod pages;
mod path;
mod rate_limit;
mod rejection;
#[cfg(feature = "fetch")]
mod remote;
mod reply;
mod route;
mod service;

pub use authenticate::{Authenticate, AuthenticateLayer};
pub use budget::{Budget, BudgetLayer, MeteredBody, UsageMeter};
pub use capability::{RequireCapability, RequireCapabilityLayer};
#[cfg(feature = "fetch")]
pub use fetch::{GuardedFetch, GuardedFetchError};
pub use guard::{Guard, Guarded};
pub use rate_limit::RateLimits;
pub use rejection::{Rejection, RejectionReason};
#[cfg(feature = "fetch")]
pub use remote::{RemoteBudgets, RemoteServer, RemoteServerError, RemoteTokens, ServiceAccount};
pub use service::{LumoauthService, MatchedRoute, PeerAddr};

/// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
