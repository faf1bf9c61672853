//! Redirect URIs: which ones belong to a client, and the answer in one.

use url::Url;

/// The longest redirect URI that is looked at.
const MAX_LENGTH: usize = 2048;

/// Whether `presented` is the registered URI: the same text, or the same but for the port of a loopback address
/// (RFC 8252 section 7.3). A name such as `localhost` is no such address: who answers to it is for others to say.
pub(crate) fn matches(registered: &str, presented: &str) -> bool {
    if registered == presented {
        return true;
    }
    match (without_loopback_port(registered), without_loopback_port(presented)) {
        (Some(registered), Some(presented)) => registered == presented,
        _ => false,
    }
}

/// Host and rest of an `http` URI with a loopback address, without the port.
fn without_loopback_port(uri: &str) -> Option<(&'static str, &str)> {
    let (host, rest) = ["http://127.0.0.1", "http://[::1]"]
        .into_iter()
        .find_map(|host| uri.strip_prefix(host).map(|rest| (host, rest)))?;
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (port, rest) = rest.split_at(end);
            port.parse::<u16>().ok()?;
            rest
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((host, rest))
}

/// Whether a browser may be sent there at all: an absolute URI of visible ASCII without fragment and user information, and
/// of no scheme that a browser would run. Registration asks for that too; this is the last door.
pub(crate) fn is_usable(uri: &str) -> bool {
    uri.len() <= MAX_LENGTH
        && uri.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'#'))
        && Url::parse(uri).is_ok_and(|url| {
            let scheme = match url.scheme() {
                "https" | "http" => url.has_host(),
                other => other.contains('.'),
            };
            scheme && url.username().is_empty() && url.password().is_none()
        })
}

/// The origin of the place, as a page names it that posts there: `https://client.example`, or the scheme of a native app.
pub(crate) fn origin(uri: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    Some(match url.scheme() {
        "http" | "https" => url.origin().ascii_serialization(),
        scheme => format!("{scheme}:"),
    })
}

/// `uri` with these parameters added to its query; what is there already stays as it is.
pub(crate) fn with_params(uri: &str, params: &[(&str, &str)]) -> String {
    let mut text = uri.to_owned();
    if !uri.contains('?') {
        text.push('?');
    } else if !uri.ends_with(['?', '&']) {
        text.push('&');
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    text.push_str(&query);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_compared_as_text() {
        let registered = "https://client.example/cb";
        assert!(matches(registered, registered));
        for other in [
            "https://client.example/cb/",
            "https://client.example/cb?x=1",
            "https://client.example/cb#x",
            "https://client.example/CB",
            "https://CLIENT.example/cb",
            "https://client.example:443/cb",
            "https://client.example/x/../cb",
            "https://client.example%2fcb",
            "https://client.example.evil.example/cb",
            "https://client.example@evil.example/cb",
            "http://client.example/cb",
            "//client.example/cb",
            "",
        ] {
            assert!(!matches(registered, other), "{other}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_address_may_differ() {
        for (registered, presented, fits) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", true),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb", true),
            ("http://[::1]/cb", "http://[::1]:8080/cb", true),
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/other", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb?x=1", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb/", false),
            ("http://127.0.0.1/cb", "http://[::1]:51004/cb", false),
            ("http://127.0.0.1/cb", "https://127.0.0.1:51004/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb", false),
            ("http://127.0.0.1", "http://127.0.0.10", false),
            ("http://localhost/cb", "http://localhost:51004/cb", false),
            ("https://client.example/cb", "https://client.example:8443/cb", false),
        ] {
            assert_eq!(matches(registered, presented), fits, "{registered} {presented}");
        }
    }

    #[test]
    fn browsers_are_sent_nowhere_odd() {
        for good in ["https://client.example/cb", "http://127.0.0.1:7/cb?x=1", "com.example.app:/cb"] {
            assert!(is_usable(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "https://u:p@client.example/",
            "https://client.example/\r\nSet-Cookie: a=b",
            "https://client.example/cb#x",
            "/cb",
            "https://client.example/\u{202e}",
        ] {
            assert!(!is_usable(bad), "{bad}");
        }
        assert!(!is_usable(&format!("https://client.example/{}", "a".repeat(MAX_LENGTH))));
    }

    #[test]
    fn parameters_join_a_query_that_is_there() {
        let add = |uri| with_params(uri, &[("code", "a b"), ("state", "x&y")]);
        assert_eq!(add("https://c.example/cb"), "https://c.example/cb?code=a+b&state=x%26y");
        assert_eq!(add("https://c.example/cb?k=v"), "https://c.example/cb?k=v&code=a+b&state=x%26y");
        assert_eq!(add("https://c.example/cb?"), "https://c.example/cb?code=a+b&state=x%26y");
    }
}
