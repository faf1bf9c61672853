//! How many requests a caller may make.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use lumoauth_core::{
    id::OrgId,
    server::AuthorizationServer,
    store::{Admission, RateLimit},
    wire::WireError,
};

/// Requests per minute, by sort of route. Counted in the server's `RateLimitStore`.
///
/// The token endpoint counts per client *and* peer address (an exchange without client authentication per subject token):
/// somebody who guesses another's secret uses up their own share and not the victim's. Routes of AAuth count in the same way,
/// per party that a request says it is signed by: what agents sign anew each time, such as their agent tokens, bounds nothing.
///
/// The authorization endpoint and pushed requests count per peer address alone. Who asks there has proven nothing yet and
/// names any client they like, and most of what they ask is kept until it expires: pushed requests and questions for ten
/// minutes, codes for a month, so that a second use is noticed. This limit is the only bound on how much that is. A service
/// without limits, as the reference server's `dev`, keeps as much as somebody cares to send, so it is not for strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimits {
    /// The token endpoint, per client and address; what AAuth agents get, and the tokens that they take back, per agent and
    /// address.
    pub token: u32,
    /// The resource tokens that this server makes, per AAuth resource and address.
    pub resource_tokens: u32,
    /// Questions of AAuth resources about tokens, per resource and address.
    pub verifications: u32,
    /// The authorization endpoint and pushed requests together, per address.
    pub authorize: u32,
    /// Requests for approval, tasks, and what is asked for in them, per agent: whoever is asked must not be flooded. A
    /// reservation that has to wait for a person is one, of the agent that pays; above the limit nothing is reserved.
    pub approvals: u32,
    /// Administrative reads, per credential.
    pub admin_read: u32,
    /// Administrative writes, per credential.
    pub admin_write: u32,
    /// Failed authentications, per address; for
    /// [`Builder::with_failure_limit`](lumoauth_core::server::Builder::with_failure_limit).
    pub failures: u32,
}

impl RateLimits {
    /// 30 tokens, 1000 resource tokens, 6000 questions about tokens, 120 authorization requests, 30 requests for approval,
    /// 1000 administrative reads, 100 administrative writes and 60 failures a minute.
    pub const fn standard() -> Self {
        Self {
            token: 30,
            resource_tokens: 1000,
            verifications: 6000,
            authorize: 120,
            approvals: 30,
            admin_read: 1000,
            admin_write: 100,
            failures: 60,
        }
    }

    /// How often an address may fail to authenticate.
    pub const fn failure_limit(&self) -> RateLimit {
        RateLimit { max: self.failures, window: MINUTE }
    }

    /// How often people may be asked about what one agent wants.
    pub(crate) const fn approval_limit(&self) -> RateLimit {
        RateLimit { max: self.approvals, window: MINUTE }
    }

    /// What is left of that, as its response says.
    pub(crate) const fn approvals_left(&self, admission: Admission) -> Share {
        Share { max: self.approvals, admission }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

impl Default for RateLimits {
    fn default() -> Self {
        Self::standard()
    }
}

/// What a request is counted as.
pub(crate) enum Counted<'a> {
    Token { client: &'a str, peer: &'a str },
    Revocation { agent: &'a str, peer: &'a str },
    ResourceToken { resource: &'a str, peer: &'a str },
    Verification { resource: &'a str, peer: &'a str },
    Authorize { peer: &'a str },
    Approval { agent: &'a str },
    AdminRead { actor: &'a str },
    AdminWrite { actor: &'a str },
}

impl Counted<'_> {
    /// What it is counted under, in the length that a `RateLimitStore` takes.
    fn source(&self) -> String {
        let mut source = match self {
            Self::Token { client, peer } => format!("token {peer} {client}"),
            Self::Revocation { agent, peer } => format!("revocation {peer} {agent}"),
            Self::ResourceToken { resource, peer } => format!("resource-token {peer} {resource}"),
            Self::Verification { resource, peer } => format!("verification {peer} {resource}"),
            Self::Authorize { peer } => format!("authorize {peer}"),
            Self::Approval { agent } => format!("approval {agent}"),
            Self::AdminRead { actor } => format!("admin-read {actor}"),
            Self::AdminWrite { actor } => format!("admin-write {actor}"),
        };
        source.truncate(source.floor_char_boundary(MAX_SOURCE));
        source
    }
}

/// How many bytes the name of a source may have.
const MAX_SOURCE: usize = 256;

/// A request was counted and admitted: the numbers for its response.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    max: u32,
    admission: Admission,
}

impl RateLimits {
    /// Counts one request; the error is the 429.
    pub(crate) async fn admit(
        &self,
        server: &AuthorizationServer,
        org: &OrgId,
        counted: Counted<'_>,
    ) -> Result<Share, (WireError, Option<Share>)> {
        let max = match counted {
            Counted::Token { .. } | Counted::Revocation { .. } => self.token,
            Counted::ResourceToken { .. } => self.resource_tokens,
            Counted::Verification { .. } => self.verifications,
            Counted::Authorize { .. } => self.authorize,
            Counted::Approval { .. } => self.approvals,
            Counted::AdminRead { .. } => self.admin_read,
            Counted::AdminWrite { .. } => self.admin_write,
        };
        let source = counted.source();
        let limit = RateLimit { max, window: MINUTE };
        match server.rate_limit(org, &source, limit).await {
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot count the request");
                Err((WireError::unavailable(), None))
            }
            Ok((admission, _)) if admission.admitted => Ok(Share { max, admission }),
            Ok((admission, now)) => {
                let error = WireError::rate_limited_until(admission.resets_at, now);
                Err((error, Some(Share { max, admission })))
            }
        }
    }
}

impl Share {
    /// Tells the client where it stands.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let numbers = [
            ("x-ratelimit-limit", u64::from(self.max)),
            ("x-ratelimit-remaining", u64::from(self.admission.remaining)),
            ("x-ratelimit-reset", self.admission.resets_at.unix_seconds()),
        ];
        for (name, number) in numbers {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_256_bytes_at_most() {
        for client in ["c".repeat(1000), "\u{20ac}".repeat(1000), "\u{1f600}".repeat(128)] {
            let counted = [
                Counted::Token { client: &client, peer: "2001:db8:1111:2222:3333:4444:5555:6666" },
                Counted::AdminRead { actor: &client },
                Counted::AdminWrite { actor: &client },
            ];
            for counted in counted {
                let source = counted.source();
                assert!((253..=256).contains(&source.len()), "{}", source.len());
            }
        }
        let counted = Counted::Token { client: "app", peer: "192.0.2.1" };
        assert_eq!(counted.source(), "token 192.0.2.1 app");
        assert_eq!(Counted::Authorize { peer: "192.0.2.1" }.source(), "authorize 192.0.2.1");
    }
}
