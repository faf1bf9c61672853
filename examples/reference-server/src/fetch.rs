//! What may leave the machine: requests for keys that others publish, and to AWS.

use std::net::SocketAddr;

use lumoauth_tower::GuardedFetch;

use crate::failure::Failure;

/// Fetches from public addresses by https, and from the `allowed` origins wherever they are. Behind an origin may be the
/// address that it is at: `https://sts.eu-west-1.amazonaws.com=10.0.0.7:443`.
///
/// # Errors
/// [`Failure`] if one of them is no origin, or TLS cannot be set up.
pub(crate) fn guarded(allowed: &[String]) -> Result<GuardedFetch, Failure> {
    let fetch = GuardedFetch::new().map_err(|error| Failure::because("nothing can be fetched", error))?;
    allowed.iter().try_fold(fetch, |fetch, allowed| {
        let allow = match allowed.split_once('=') {
            None => fetch.allow_origin(allowed),
            Some((origin, at)) => {
                let at: SocketAddr = at.parse().map_err(|error| {
                    Failure::because(format!("`{at}` is no address and port, such as 10.0.0.7:443"), error)
                })?;
                fetch.allow_origin_at(origin, at)
            }
        };
        allow.map_err(|error| {
            Failure::because(
                "an origin is scheme, host and port, such as https://kubernetes.default.svc",
                error,
            )
        })
    })
}
