//! lumoauth over HTTP: the endpoints as one tower service, and layers that protect your own routes.
//!
//! # Four ways to use it
//!
//! 1. **Host the authorization server.** [`LumoauthService`] answers every endpoint; mount it as the fallback of any
//!    router, or serve it under hyper.
//! 2. **Protect your own routes** in the same process: [`Guard::new`]. Both together are one process with one router, as in the
//!    README.
//! 3. **Protect routes on other hosts** (feature `fetch`): `Guard::remote`, with `RemoteTokens`, which verifies tokens by the
//!    keys that the authorization server publishes or by asking it (RFC 7662), and `RemoteBudgets`, which charges callers
//!    there.
//! 4. **Protect routes that agents call with signed requests** (AAuth), on any host: [`AAuthLayer`].
//!
//! ```
//! # #[cfg(feature = "fetch")]
//! # fn guard() -> Result<(), Box<dyn std::error::Error>> {
//! use lumoauth_core::{budget::Usage, secret::Secret, spending::Spend};
//! use lumoauth_tower::{Guard, RemoteServer, RemoteTokens, ServiceAccount};
//!
//! // This service is the MCP server `https://files.example/` there, and this is its resource client.
//! let server = RemoteServer::new("https://auth.example/orgs/acme/api/v1")?;
//! let account = ServiceAccount::new(server, "agt_client_id", &Secret::from("its secret"));
//! let guard = Guard::remote(RemoteTokens::by_introspection(account.clone()), "https://files.example/")
//!     .capability("read:files".parse()?)
//!     .charge(&account, |_request| Spend::new(Usage { tokens: 1000, ..Usage::ONE_CALL }));
//! # let _ = guard;
//! # Ok(())
//! # }
//! # #[cfg(feature = "fetch")]
//! # guard().unwrap();
//! ```
//!
//! # Order of the layers
//!
//! A [`Guard`] is these three, in the order in which they must stand, of which the first is always there:
//!
//! 1. [`AuthenticateLayer`] turns a credential into a [`Principal`](lumoauth_core::principal::Principal). Who is not known
//!    learns nothing of what a route wants.
//! 2. [`RequireCapabilityLayer`] checks what the principal holds. Who may not call is not charged.
//! 3. [`BudgetLayer`] holds what the call will use, and settles what it used when its answer ends.
//!
//! They can be used one by one: the service's own routes stand behind the first two. One that misses the first answers 500 and
//! logs so; the other mistakes are the host's to avoid.
//!
//! # What a host should add
//!
//! - [`PeerAddr`] in the request's extensions, so that audit entries and rate limits know the peer, and agents are accepted
//!   that may come from some addresses only.
//! - `server.maintenance()`, spawned once.
//! - A way out, if clients or platforms publish keys: `GuardedFetch` (feature `fetch`), which reaches public addresses
//!   only.
//! - [`LumoauthService::with_people`], if people are to let clients and agents act for them; [`pages`] has the frame of the
//!   consent page for the host's page to sign in.
//! - [`MatchedRoute`] in place of the path, where requests are logged.
//! - Something that takes the path of the public URL away, if that has one, before a request gets here.
//! - A limit on how long a request head may take; bodies are bounded here (64 KiB, 15 seconds).

mod aauth;
mod authenticate;
mod body;
mod budget;
mod capability;
mod details;
mod endpoint;
#[cfg(feature = "fetch")]
mod fetch;
mod gate;
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

pub use aauth::{AAuth, AAuthLayer, CheckedBody, CheckedBodyError, resource_document, resource_jwks};
pub use aauth::{AAuthClient, AAuthClientError, AAuthClientLayer, PendingConsent, WantedScope};
pub use authenticate::AuthenticateLayer;
pub use budget::{BudgetLayer, MeteredBody, UsageMeter};
pub use capability::RequireCapabilityLayer;
pub use details::RequireAuthorizationDetailsLayer;
#[cfg(feature = "fetch")]
pub use fetch::{GuardedFetch, GuardedFetchError};
pub use gate::Gated;
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
