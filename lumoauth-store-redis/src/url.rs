//! One URL with several hosts.

use redis::{ConnectionInfo, IntoConnectionInfo};

/// What connects to each host of `url`; `None` if it is no such URL.
pub(crate) fn hosts(url: &str) -> Option<Vec<ConnectionInfo>> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "redis" | "rediss") {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('#') {
        // The client would take `#insecure` as leave not to verify certificates.
        return None;
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts
        .split(',')
        .map(|host| {
            if host.is_empty() {
                return None;
            }
            format!("{scheme}://{user}{host}{path}").into_connection_info().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> Vec<String> {
        hosts(url).unwrap_or_default().iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn every_host_gets_the_same_user_and_database() {
        assert_eq!(addresses("redis://h"), ["h:6379"]);
        assert_eq!(addresses("redis://h1:1,h2:2,[::1]:3/4"), ["h1:1", "h2:2", "::1:3"]);
        for info in hosts("redis://u:p%40%2C@h1,h2/4").unwrap() {
            assert_eq!(info.redis_settings().username(), Some("u"));
            assert_eq!(info.redis_settings().password(), Some("p@,"));
            assert_eq!(info.redis_settings().db(), 4);
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for url in [
            "",
            "h:1",
            "http://h",
            "redis://",
            "redis://h1,,h2",
            "redis://h:port",
            "rediss://h/#insecure",
            "unix:///s",
        ] {
            assert!(hosts(url).is_none(), "{url}");
        }
    }
}
