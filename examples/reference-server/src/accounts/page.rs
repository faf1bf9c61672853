//! The pages for people: plain HTML that needs no script, and headers that keep others from framing or filling it.

use std::{fmt::Write, sync::LazyLock};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use url::{Host, Url};

/// The look of every page.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --soft: #566074; --paper: #f4f5f7; --card: #ffffff; --line: #cfd5de; \
--action: #1f4fb8; --alarm: #a32020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3adbd; --paper: #14181f; --card: #1d232d; \
--line: #3a4352; --action: #7ea6ff; --alarm: #ff9d9d; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem 1rem; background: var(--paper); color: var(--ink); \
font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 26rem; margin: 6vh auto 0; padding: 1.75rem; background: var(--card); border: 1px solid var(--line); \
border-radius: .5rem; overflow-wrap: anywhere; }
h1 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.3; }
p { margin: 0 0 1rem; }
label { display: block; margin: 0 0 .25rem; font-weight: 600; }
input { width: 100%; margin: 0 0 1rem; padding: .6rem .7rem; font: inherit; color: inherit; background: var(--paper); \
border: 1px solid var(--line); border-radius: .35rem; }
button { width: 100%; padding: .7rem 1rem; font: inherit; font-weight: 600; color: var(--card); background: var(--action); \
border: 1px solid var(--action); border-radius: .35rem; cursor: pointer; }
:focus-visible { outline: 3px solid var(--action); outline-offset: 2px; }
.alarm { padding: .6rem .75rem; color: var(--alarm); border: 1px solid var(--alarm); border-radius: .35rem; }
.soft { color: var(--soft); font-size: .9rem; }
";

/// What a sign-in form starts with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form<'a> {
    /// Where it is sent.
    pub(super) action: &'a str,
    /// The name of the organization.
    pub(super) organization: &'a str,
    /// What the person gave before.
    pub(super) email: &'a str,
    /// Where the person goes afterwards; empty for nowhere.
    pub(super) return_to: &'a str,
    /// What shows that it comes from the browser it was given to.
    pub(super) token: &'a str,
    /// Why the person sees it again.
    pub(super) problem: Option<&'a str>,
}

/// The page with the sign-in form.
pub(super) fn sign_in(status: StatusCode, form: &Form<'_>) -> Response<String> {
    let title = format!("Sign in to {}", form.organization);
    let problem = form.problem.map_or_else(String::new, |text| {
        format!("<p class=\"alarm\" role=\"alert\">{}</p>\n", Escaped(text))
    });
    // Whoever comes again has the address already and needs the password.
    let (on_email, on_password) = if form.email.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
    let body = format!(
        "{problem}<form method=\"post\" action=\"{action}\">\n\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{token}\">\n\
         <input type=\"hidden\" name=\"return_to\" value=\"{return_to}\">\n\
         <label for=\"email\">E-mail address</label>\n\
         <input id=\"email\" name=\"email\" type=\"email\" value=\"{email}\" autocomplete=\"username\" \
         maxlength=\"254\" required{on_email}>\n\
         <label for=\"password\">Password</label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" \
         maxlength=\"256\" required{on_password}>\n\
         <button type=\"submit\">Sign in</button>\n</form>",
        action = Escaped(form.action),
        token = Escaped(form.token),
        return_to = Escaped(form.return_to),
        email = Escaped(form.email),
    );
    page(status, &title, &body, &afterwards(form.return_to))
}

/// The page of somebody who is signed in and going nowhere.
pub(super) fn signed_in(organization: &str, email: &str, sign_out: &str) -> Response<String> {
    let body = format!(
        "<p>You are signed in as <strong>{}</strong>.</p>\n\
         <form method=\"post\" action=\"{}\"><button type=\"submit\">Sign out</button></form>",
        Escaped(email),
        Escaped(sign_out),
    );
    page(StatusCode::OK, organization, &body, "")
}

/// A page that says one thing.
pub(super) fn notice(status: StatusCode, title: &str, text: &str) -> Response<String> {
    page(status, title, &format!("<p>{}</p>", Escaped(text)), "")
}

fn page(status: StatusCode, title: &str, body: &str, targets: &str) -> Response<String> {
    let title = Escaped(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    );
    let mut response = Response::new(html);
    *response.status_mut() = status;
    protect(response.headers_mut(), targets);
    response
}

/// Nothing may run, load or frame the page, and nobody may keep it.
fn protect(headers: &mut HeaderMap, targets: &str) {
    static STYLE_HASH: LazyLock<String> =
        LazyLock::new(|| STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes())));
    let style = &*STYLE_HASH;
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{targets}; frame-ancestors 'none'; \
         base-uri 'none'"
    );
    // Nothing but ASCII gets into the policy; without one, a page is none to show.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The query of this page is a client's business; the next page of this server may know it.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Where a submitted form may lead besides this server. Browsers hold `form-action` against every redirect that follows,
/// and whoever has agreed before is sent on to the client without seeing another page.
fn afterwards(return_to: &str) -> String {
    let query = return_to.split_once('?').map_or("", |(_, query)| query);
    let redirect = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "redirect_uri");
    match redirect.map(|(_, uri)| Url::parse(&uri)) {
        _ if return_to.is_empty() => String::new(),
        // A pushed request names its redirect URI elsewhere.
        None => " https: http:".to_owned(),
        Some(Err(_)) => String::new(),
        Some(Ok(uri)) => match uri.host() {
            Some(Host::Domain(_) | Host::Ipv4(_)) if uri.origin().is_tuple() => {
                format!(" {}", uri.origin().ascii_serialization())
            }
            // Addresses in brackets are no sources of a policy, private-use schemes have nothing but their name.
            _ => format!(" {}:", uri.scheme()),
        },
    }
}

/// Text between tags or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_wrote_becomes_markup() {
        let hostile = "\"'><script>alert(1)</script>&";
        let form = Form {
            action: "/login",
            organization: hostile,
            email: hostile,
            return_to: hostile,
            token: hostile,
            problem: Some(hostile),
        };
        for page in [
            sign_in(StatusCode::OK, &form),
            signed_in(hostile, hostile, hostile),
            notice(StatusCode::OK, hostile, hostile),
        ] {
            let html = page.body();
            assert!(!html.contains("<script") && !html.contains(hostile), "{html}");
            assert!(html.contains("&lt;script&gt;"), "{html}");
        }
    }

    #[test]
    fn a_page_runs_loads_and_is_framed_by_nothing() {
        let page = sign_in(StatusCode::OK, &Form { action: "/login", ..Form::default() });
        let header = |name: &str| page.headers().get(name).unwrap().to_str().unwrap();
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self';"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        let html = page.body();
        assert!(!html.contains("<script") && !html.contains("style=") && !html.contains("http"), "{html}");
        let (_, rest) = html.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        assert_eq!(style, STYLE, "the hash of the policy is that of the text between the tags");
    }

    #[test]
    fn a_form_may_lead_to_the_client_and_nowhere_else() {
        let authorize = "/orgs/acme/api/v1/oauth/authorize";
        let with = |uri: &str| afterwards(&format!("{authorize}?client_id=a&redirect_uri={uri}&state=x"));
        assert_eq!(afterwards(""), "");
        assert_eq!(afterwards(&format!("{authorize}?request_uri=urn:x")), " https: http:");
        assert_eq!(with("https%3A%2F%2Fapp.test%2Fcb"), " https://app.test");
        assert_eq!(with("http%3A%2F%2Flocalhost%3A5000%2Fcb"), " http://localhost:5000");
        assert_eq!(with("http%3A%2F%2F127.0.0.1%3A5000%2Fcb"), " http://127.0.0.1:5000");
        assert_eq!(with("http%3A%2F%2F%5B%3A%3A1%5D%3A5000%2Fcb"), " http:");
        assert_eq!(with("com.example.app%3A%2Fcb"), " com.example.app:");
        assert_eq!(with("%3Bscript-src%20*"), "");
    }
}
