//! What may leave the machine: requests for keys that others publish, those to AWS, and what agents and people are told by a
//! callback or a webhook.

use std::net::SocketAddr;

use lumoauth_tower::GuardedFetch;

use crate::failure::Failure;

/// Fetches from public addresses by https, and from the `allowed` origins wherever they are. Behind an origin may be the
/// address that it is at: `https://sts.eu-west-1.amazonaws.com=10.0.0.7:443`. Posts to public addresses and to the origins in
/// `posts`.
///
/// # Errors
/// [`Failure`] if one of them is no origin, or TLS cannot be set up.
pub(crate) fn guarded(allowed: &[String], posts: &[String]) -> Result<GuardedFetch, Failure> {
    let no_origin = |error| {
        Failure::because("an origin is scheme, host and port, such as https://kubernetes.default.svc", error)
    };
    let fetch = GuardedFetch::new().map_err(|error| Failure::because("nothing can be fetched", error))?;
    let fetch =
        posts.iter().try_fold(fetch, |fetch, origin| fetch.allow_posts_to(origin)).map_err(no_origin)?;
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
        allow.map_err(no_origin)
    })
}
