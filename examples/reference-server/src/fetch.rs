//! What may leave the machine: requests for keys that others publish.

use lumoauth_tower::GuardedFetch;

use crate::failure::Failure;

/// Fetches from public addresses by https, and from the `allowed` origins wherever they are.
///
/// # Errors
/// [`Failure`] if one of them is no origin, or TLS cannot be set up.
pub(crate) fn guarded(allowed: &[String]) -> Result<GuardedFetch, Failure> {
    let fetch = GuardedFetch::new().map_err(|error| Failure::because("nothing can be fetched", error))?;
    allowed.iter().try_fold(fetch, |fetch, origin| {
        fetch.allow_origin(origin).map_err(|error| {
            Failure::because(
                "an origin is scheme, host and port, such as https://kubernetes.default.svc",
                error,
            )
        })
    })
}
