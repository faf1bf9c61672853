//! wip
mod authenticate;
mod body;
mod capability;
mod endpoint;
mod rate_limit;
mod rejection;
mod reply;
mod route;
mod service;

pub use authenticate::{Authenticate, AuthenticateLayer};
pub use capability::{RequireCapability, RequireCapabilityLayer};
pub use rate_limit::RateLimits;
pub use rejection::{Rejection, RejectionReason};
pub use service::{LumoauthService, PeerAddr};
