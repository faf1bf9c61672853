//! Where the server is, and which addresses belong to it.

use http::{HeaderMap, Uri, header};
use lumoauth_core::id::OrgId;
use url::Url;

/// The public URL, taken apart.
#[derive(Debug)]
pub(super) struct Site {
    /// Scheme, host and port, as browsers send it in `Origin`.
    origin: String,
    /// What stands before every path, if something in front of the server takes it away.
    base: String,
}

impl Site {
    /// The site at a public URL that the server was built with.
    pub(super) fn at(public_url: &str) -> Self {
        match Url::parse(public_url) {
            Ok(url) => Self {
                origin: url.origin().ascii_serialization(),
                base: url.path().trim_end_matches('/').to_owned(),
            },
            // No origin is like this, so nothing of another site passes for ours.
            Err(_) => Self { origin: String::new(), base: String::new() },
        }
    }

    /// Whether browsers come over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// A route below an organization's `oauth/`, as browsers must ask for it.
    pub(super) fn url(&self, org: &OrgId, name: &str) -> String {
        format!("{}/orgs/{org}/api/v1/oauth/{name}", self.base)
    }

    /// `text`, if it is the path of the authorization endpoint of `org`, as browsers ask for it, with its query, or of the page
    /// where people decide what agents ask them. Nobody is sent anywhere else after signing in.
    pub(super) fn checked_return<'a>(&self, org: &OrgId, text: &'a str) -> Option<&'a str> {
        // As much as the authorization endpoint looks at, and its path.
        const LONGEST: usize = 17 * 1024;
        if text == self.url(org, "approvals") {
            return Some(text);
        }
        let ours = ["orgs", "t"].iter().any(|prefix| {
            let rest = text.strip_prefix(&*format!("{}/{prefix}/{org}/api/v1/oauth/authorize", self.base));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
        });
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        (ours && plain && text.len() <= LONGEST).then_some(text)
    }

    /// Whether a page of another site sent the request. Programs that are no browsers say nothing of where they are.
    ///
    /// `Sec-Fetch-Site` decides where there is one: `Origin` is `null` after a page with `no-referrer`, which ours are.
    pub(super) fn is_from_elsewhere(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if let Some(site) = headers.get("sec-fetch-site") {
            return !matches!(site.as_bytes(), b"same-origin" | b"none");
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return false };
        let Ok(origin) = origin.to_str() else { return true };
        if !self.origin.is_empty() && origin == self.origin {
            return false;
        }
        // Under another name than the public one, such as `localhost`: the page must come from that very name.
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
        };
        let Some((_, named)) = origin.split_once("://") else { return true };
        host.is_none_or(|host| host.is_empty() || !host.eq_ignore_ascii_case(named))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_authorization_endpoint_and_what_waits_in_the_organization_are_returned_to() {
        let acme = OrgId::parse("acme").unwrap();
        let site = Site::at("https://auth.test");
        for good in [
            "/orgs/acme/api/v1/oauth/authorize",
            "/orgs/acme/api/v1/oauth/authorize?client_id=x&redirect_uri=https%3A%2F%2Fevil.test%2F",
            "/t/acme/api/v1/oauth/authorize?a=b",
            "/orgs/acme/api/v1/oauth/approvals",
        ] {
            assert_eq!(site.checked_return(&acme, good), Some(good));
            // Below a path, it is there and nowhere else.
            let below = Site::at("https://auth.test/id/p/");
            assert_eq!(below.checked_return(&acme, good), None);
            let inside = format!("/id/p{good}");
            assert_eq!(below.checked_return(&acme, &inside), Some(&*inside));
            for bad in ["/id", "//id/p", "/id/p/", "/id/p/x", "/id/px", "/ID/p", "/id/p/.."] {
                assert_eq!(below.checked_return(&acme, &format!("{bad}{good}")), None, "{bad}");
            }
        }
        let long = format!("/orgs/acme/api/v1/oauth/authorize?{}", "x".repeat(17 * 1024));
        for bad in [
            "",
            "/",
            "https://evil.test/",
            "//evil.test/orgs/acme/api/v1/oauth/authorize",
            "/\\evil.test",
            "/orgs/globex/api/v1/oauth/authorize",
            "/orgs/acme/api/v1/oauth/authorizex",
            "/orgs/acme/api/v1/oauth/authorize/../../../..",
            "/orgs/acme/api/v1/oauth/login",
            "/orgs/globex/api/v1/oauth/approvals",
            "/orgs/acme/api/v1/oauth/approvals?done=approved",
            "/orgs/acme/api/v1/oauth/approvals/decide",
            "/orgs/acme/api/v1/oauth/approvals#x",
            "//evil.test/orgs/acme/api/v1/oauth/approvals",
            "/orgs/acme/api/v1/oauth/authorize?a\r\nSet-Cookie: x=y",
            "/orgs/acme/api/v1/oauth/authorize?a#b",
            "/orgs/acme/api/v1/oauth/authorize?\u{e9}",
            "http://auth.test/orgs/acme/api/v1/oauth/authorize",
            &long,
        ] {
            assert_eq!(site.checked_return(&acme, bad), None, "{bad}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_told_from_ours() {
        let site = Site::at("https://auth.test/base");
        let from = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            site.is_from_elsewhere(&Uri::from_static("/orgs/acme/api/v1/oauth/login/json"), &headers)
        };
        for ours in [
            &[][..],
            &[("host", "internal:8080")],
            &[("origin", "https://auth.test")],
            &[("origin", "http://localhost:8080"), ("host", "localhost:8080")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!from(ours), "{ours:?}");
        }
        for others in [
            &[("origin", "https://evil.test")][..],
            &[("origin", "https://evil.test"), ("host", "auth.test")],
            &[("origin", "http://auth.test"), ("host", "internal")],
            &[("origin", "https://auth.test.evil.test")],
            &[("origin", "null"), ("host", "null")],
            &[("origin", ""), ("host", "")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://auth.test")],
        ] {
            assert!(from(others), "{others:?}");
        }
        assert_eq!(site.url(&OrgId::parse("acme").unwrap(), "login"), "/base/orgs/acme/api/v1/oauth/login");
    }
}
