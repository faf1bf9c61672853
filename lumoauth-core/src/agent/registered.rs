//! What agents and ordinary clients register alike: where answers may go, and their public keys.

use serde_json::Value;
use url::Url;

use super::InvalidAgent;
use crate::jwks::{JwkSet, PublicKeys};

/// The redirect URIs of a client (RFC 6749 section 3.1.2, RFC 9700 section 4.1.3): at most 16 absolute URIs without
/// fragment, wildcard or user information; plain `http` only on a loopback host, never a scheme that a browser would run.
pub(crate) fn redirect_uris(member: &'static str, texts: &[String]) -> Result<Vec<String>, InvalidAgent> {
    const MOST: usize = 16;
    let refused = |problem: String| InvalidAgent { member, problem };
    if texts.len() > MOST {
        return Err(refused(format!("has more than {MOST} items")));
    }
    let mut uris = Vec::with_capacity(texts.len());
    for text in texts {
        if !is_redirect_uri(text) {
            let rule = "must be absolute https URIs (http only on a loopback host, or a private-use scheme with a dot) \
                        without fragment, wildcard and user";
            return Err(refused(rule.to_owned()));
        }
        if !uris.contains(text) {
            uris.push(text.clone());
        }
    }
    Ok(uris)
}

fn is_redirect_uri(text: &str) -> bool {
    // Parsers of URLs forgive spaces, line ends and backslashes; what is compared as text and sent in a header must not
    // have them (RFC 3986 section 2).
    let of_a_uri = |b: u8| {
        b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    if text.len() > 512 || !text.bytes().all(of_a_uri) || text.contains(['*', '#']) {
        return false;
    }
    let Ok(url) = Url::parse(text) else { return false };
    let allowed = match url.scheme() {
        "https" => has_authority(text),
        "http" => has_authority(text) && matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
        // Private-use schemes of native apps are reverse domain names (RFC 8252 section 7.1).
        other => other.contains('.'),
    };
    allowed && !authority(text).contains('@')
}

/// `https:host` is a URL for a lenient parser, and a relative path for others.
fn has_authority(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'))
}

fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// A set of public keys (RFC 7517 section 5), or `None` for an empty one, which takes away what was registered.
pub(crate) fn key_set(member: &'static str, value: &Value) -> Result<Option<JwkSet>, InvalidAgent> {
    let refused = |problem: String| InvalidAgent { member, problem };
    let Some(Value::Array(keys)) = value.get("keys") else {
        return Err(refused("must be an object with a list of keys".to_owned()));
    };
    if keys.is_empty() {
        return Ok(None);
    }
    let set = JwkSet { keys: keys.clone() };
    set.check().map_err(|error| refused(format!("cannot be accepted: {error}")))?;
    let keys = PublicKeys::of(&set);
    if keys.is_empty() {
        let problem = "has no usable key: RSA of 2048 bits or more, EC on P-256 or P-384, or Ed25519";
        return Err(refused(problem.to_owned()));
    }
    if keys.has_mixed_order() {
        return Err(refused("has an Ed25519 key with a part of small order".to_owned()));
    }
    Ok(Some(set))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn redirect_uris_that_a_client_may_register() {
        for good in [
            "https://app.test/cb",
            "https://app.test",
            "https://app.test:8443/cb?tenant=1&x=a%20b",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:5000/callback",
            "http://[::1]/cb",
            "http://localhost:3000/cb",
            "com.example.app:/cb",
            "com.example.app://cb",
        ] {
            assert!(is_redirect_uri(good), "{good}");
        }
    }

    #[test]
    fn redirect_uris_that_nobody_may_register() {
        let long = format!("https://app.test/{}", "x".repeat(512));
        for bad in [
            "",
            "/cb",
            "app.test/cb",
            "//app.test/cb",
            "https:app.test/cb",
            "https:/app.test/cb",
            "https:///app.test/cb",
            "https://",
            "http://app.test/cb",
            "http://10.0.0.1/cb",
            "http://127.0.0.1.evil.test/cb",
            "http://localhost.evil.test/cb",
            "http://127.0.0.1@evil.test/cb",
            "https://app.test/cb#fragment",
            "https://app.test/cb#",
            "https://*.app.test/cb",
            "https://app.test/*",
            "https://user@app.test/cb",
            "https://user:pass@app.test/cb",
            "https://@app.test/cb",
            "https://app.test\\@evil.test/cb",
            "https://app.test/c b",
            " https://app.test/cb",
            "https://app.test/cb\n",
            "https://app.test/\u{e9}",
            "javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "blob:https://app.test/x",
            "myapp:/cb",
            "urn:ietf:wg:oauth:2.0:oob",
            &long,
        ] {
            assert!(!is_redirect_uri(bad), "{bad}");
        }
    }

    #[test]
    fn redirect_uris_are_sixteen_at_most_and_each_once() {
        let many = |n: usize| -> Vec<_> { (0..n).map(|n| format!("https://app.test/{n}")).collect() };
        assert_eq!(redirect_uris("redirectUris", &many(16)).unwrap().len(), 16);
        assert!(redirect_uris("redirectUris", &many(17)).is_err());
        let twice = vec!["https://app.test/cb".to_owned(); 2];
        assert_eq!(redirect_uris("redirectUris", &twice).unwrap().len(), 1);
    }

    #[test]
    fn keys_are_public_and_usable() {
        let public =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let set = key_set("jwks", &json!({ "keys": [public] })).unwrap().unwrap();
        assert_eq!(set.keys, std::slice::from_ref(&public));
        assert_eq!(key_set("jwks", &json!({ "keys": [] })).unwrap(), None);
        let private = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "x" });
        for bad in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "keys": public }),
            json!({ "keys": ["x"] }),
            json!({ "keys": [{}] }),
            json!({ "keys": [private] }),
            json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }),
            json!({ "keys": vec![public; 65] }),
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AA" }] }),
            // With a part of small order.
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "6bL-mBWH765kePSLofpgzsYSbQ4m3ecqCiT2QNzXg-U" }] }),
        ] {
            assert!(key_set("jwks", &bad).is_err(), "{bad}");
        }
    }
}
