//! Identifiers of protected resources.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lumoauth_core::mcp::ResourceUri;
use url::Url;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(uri) = ResourceUri::parse(text) else { return };
    assert_eq!(uri.as_str(), text);
    assert!(
        text.len() <= 512
            && !text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'"')
    );

    let url = Url::parse(text).expect("a URL");
    let loopback =
        url.host_str().is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."));
    assert!(matches!(url.scheme(), "https" | "urn") || url.scheme() == "http" && loopback);
    assert!(url.fragment().is_none() && url.username().is_empty() && url.password().is_none());

    // The form that is compared names the same place, but for one slash, and is a form of its own: whoever registers or sends
    // it means the same.
    let normalized = uri.normalized();
    assert!(!normalized.contains(['"', ' ']));
    assert!(normalized == url.as_str() || format!("{normalized}/") == url.as_str());
    let whole = url.as_str();
    if whole.len() <= 512 {
        assert_eq!(ResourceUri::parse(whole).expect("a resource").normalized(), normalized);
    }
    if url.scheme() != "urn" && normalized.len() <= 512 && !normalized.ends_with('/') {
        assert_eq!(ResourceUri::parse(normalized).expect("a resource").normalized(), normalized);
    }
    let json = serde_json::to_string(&uri).expect("a text");
    assert_eq!(serde_json::from_str::<ResourceUri>(&json).expect("the same resource"), uri);
});
