//! The pages that people see, as text, and the frame for pages of a host's own that look like them. They work without
//! scripts and load nothing; what others wrote is shown as text.
//!
//! 1. Everything that is not ours goes through [`escaped`]: no markup, and no character that changes the direction or the
//!    place of the text around it.
//! 2. No page may be framed, cached or named to other sites, and its form posts to us only; the client's origin is named
//!    because browsers hold the redirect after the post to the same rule.

mod consent;

use std::{fmt::Write, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use lumoauth_core::{secret::SecretHash, wire::WireError};

use crate::reply::Reply;

pub(crate) use consent::consent;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1c1e21}\
main{max-width:34rem;margin:6vh auto;padding:1.5rem 2rem;background:#fff;border:1px solid #d9dce1;border-radius:.5rem}\
h1{font-size:1.3rem;margin:0 0 1rem}ul{margin:.6rem 0 1.2rem}dt{color:#5b616b;font-size:.85rem}dd{margin:0 0 .6rem}\
dd,li,h1{overflow-wrap:anywhere}code{font-size:.85em;color:#5b616b}li{margin:.3rem 0}\
button{font:inherit;padding:.5rem 1.4rem;margin:.6rem .6rem 0 0;border:1px solid #8a909a;border-radius:.3rem;\
color:inherit;background:#fff;cursor:pointer}\
button.yes{background:#1c4fa0;border-color:#1c4fa0;color:#fff}\
label{display:block;margin:0 0 .4rem;font-size:.85rem;color:#5b616b}\
input{box-sizing:border-box;width:100%;font:inherit;color:inherit;padding:.5rem .6rem;margin:0 0 .8rem;\
border:1px solid #8a909a;border-radius:.3rem;background:#fff}\
:focus-visible{outline:3px solid #1c4fa0;outline-offset:2px}\
h2{font-size:1.05rem;margin:0 0 .8rem;overflow-wrap:anywhere}\
section{border-top:1px solid #d9dce1;padding:1.2rem 0 1.8rem}\
section.high,section.critical{border-top:4px solid #a32020}\
pre{font-size:.85rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0;padding:.6rem;background:#f4f5f7;\
border-radius:.3rem}.look{color:inherit;font-size:1rem}.look input{width:auto;margin:0 .4rem 0 0}\
.alarm{padding:.5rem .7rem;border:1px solid #a32020;border-radius:.3rem;color:#a32020}\
@media(max-width:36rem){body{background:#fff}main{margin:0;padding:1.2rem 1rem;border:0}ul{padding-left:1.4rem}\
button{display:block;width:100%;padding:.7rem;margin:.8rem 0 0}}";

/// The source expression that lets exactly this style in (CSP level 3, section 2.3.1).
static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(SecretHash::of(STYLE).as_bytes())));

/// Text that others wrote, as it may stand anywhere in a page, also in a quoted attribute.
///
/// ```
/// # use lumoauth_tower::pages::escaped;
/// assert_eq!(escaped("<b title=\"x\">"), "&lt;b title=&quot;x&quot;&gt;");
/// ```
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '`' => safe.push_str("&#96;"),
            c if is_misleading(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Characters that are not seen, or that make others be seen elsewhere: controls, marks of direction, joiners, fillers and
/// tags.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A whole page with the headers that protect it. `title` and `main` are markup, so what others wrote goes through
/// [`escaped`] first; `form_target` is the origin, or the scheme of a native app, that the answer to its form may lead to.
pub fn page(status: StatusCode, title: &str, main: &str, form_target: Option<&str>) -> Response<String> {
    let mut html = String::with_capacity(main.len() + 2048);
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main>{main}</main></body></html>"
    );
    let mut reply = Response::new(html);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    // Anything else could end the directive and begin another.
    let harmless = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'\'' | b'*');
    let form_action = match form_target.map(source) {
        Some(target) if target.bytes().all(harmless) => format!("'self' {target}"),
        _ => "'self'".to_owned(),
    };
    let policy = format!(
        "default-src 'none'; style-src {}; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'",
        *STYLE_HASH
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(&mut reply);
    reply
}

/// An origin as a source of a policy. An address in brackets is none (CSP level 3, section 2.3.1), so its scheme stands
/// for it; only loopback addresses are written so.
fn source(origin: &str) -> &str {
    match origin.split_once("//[") {
        Some((scheme, _)) => scheme,
        None => origin,
    }
}

/// Headers that every answer of the authorization endpoint has, whoever rendered it. What the host's page to sign in says
/// itself holds.
pub(crate) fn protect<T>(reply: &mut Response<T>) {
    const HEADERS: [(HeaderName, &str); 6] = [
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        reply.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Why the browser goes no further.
pub(crate) fn error(error: &WireError) -> Reply {
    let main = format!(
        "<h1>This request cannot be served</h1><p>{}</p><p><code>{}</code></p>",
        escaped(&error.description),
        escaped(error.error),
    );
    let mut reply = page(error.status, "Request refused", &main, None).map(Bytes::from);
    if let Some(seconds) = error.retry_after {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(
            escaped("<script>alert('x')</script>&\"`"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;&#96;",
        );
        for hidden in ['\u{202e}', '\u{2066}', '\u{200f}', '\u{200b}', '\0', '\n', '\u{feff}', '\u{e0041}'] {
            assert_eq!(escaped(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        assert_eq!(escaped("Zoë 東京"), "Zoë 東京");
    }

    #[test]
    fn the_policy_allows_the_style_and_the_two_targets_only() {
        let policy = |target| {
            let reply = page(StatusCode::OK, "", "", target);
            reply.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
        };
        let good = policy(Some("https://app.example"));
        assert!(good.contains("form-action 'self' https://app.example;"), "{good}");
        assert!(good.starts_with("default-src 'none'; style-src 'sha256-"), "{good}");
        for bad in ["https://x; script-src *", "https: http:", "*", "'unsafe-inline'", "https://*.example"] {
            assert!(policy(Some(bad)).contains("form-action 'self';"), "{bad}");
        }
        assert!(!STYLE.contains('<'));
    }

    #[test]
    fn a_policy_names_what_browsers_understand() {
        assert_eq!(source("https://app.example:8443"), "https://app.example:8443");
        assert_eq!(source("http://127.0.0.1:5000"), "http://127.0.0.1:5000");
        assert_eq!(source("http://[::1]:5000"), "http:");
        assert_eq!(source("com.example.app:"), "com.example.app:");
    }
}
