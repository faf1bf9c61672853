//! The pages for people who sign in, in the frame of all others.

use http::{Response, StatusCode};
use lumoauth_tower::pages::{escaped, page};

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

/// The page with the sign-in form, which may lead to `target` besides this server: browsers hold `form-action` against every
/// redirect that follows, and whoever has agreed before is sent on to the client without seeing another page.
pub(super) fn sign_in(status: StatusCode, form: &Form<'_>, target: Option<&str>) -> Response<String> {
    let title = format!("Sign in to {}", escaped(form.organization));
    let problem = form
        .problem
        .map_or_else(String::new, |text| format!("<p class=\"alarm\" role=\"alert\">{}</p>", escaped(text)));
    // Whoever comes again has given the address already and needs the password.
    let (on_email, on_password) = if form.email.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
    let main = format!(
        "<h1>{title}</h1>{problem}<form method=\"post\" action=\"{action}\">\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{token}\">\
         <input type=\"hidden\" name=\"return_to\" value=\"{return_to}\">\
         <label for=\"email\">E-mail address</label>\
         <input id=\"email\" name=\"email\" type=\"email\" value=\"{email}\" autocomplete=\"username\" \
         maxlength=\"254\" required{on_email}>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" \
         maxlength=\"256\" required{on_password}>\
         <button class=\"yes\" type=\"submit\">Sign in</button></form>",
        action = escaped(form.action),
        token = escaped(form.token),
        return_to = escaped(form.return_to),
        email = escaped(form.email),
    );
    page(status, &title, &main, target)
}

/// The page of somebody who is signed in and going nowhere.
pub(super) fn signed_in(organization: &str, email: &str, sign_out: &str) -> Response<String> {
    let title = escaped(organization);
    let main = format!(
        "<h1>{title}</h1><p>You are signed in as <bdi>{}</bdi>.</p>\
         <form method=\"post\" action=\"{}\"><button type=\"submit\">Sign out</button></form>",
        escaped(email),
        escaped(sign_out),
    );
    page(StatusCode::OK, &title, &main, None)
}

/// A page that says one thing.
pub(super) fn notice(status: StatusCode, title: &str, text: &str) -> Response<String> {
    let (title, text) = (escaped(title), escaped(text));
    page(status, &title, &format!("<h1>{title}</h1><p>{text}</p>"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_wrote_becomes_markup() {
        let hostile = "\"'><script>alert(1)</script>&\u{202e}";
        let form = Form {
            action: "/login",
            organization: hostile,
            email: hostile,
            return_to: hostile,
            token: hostile,
            problem: Some(hostile),
        };
        for page in [
            sign_in(StatusCode::OK, &form, Some(hostile)),
            signed_in(hostile, hostile, hostile),
            notice(StatusCode::OK, hostile, hostile),
        ] {
            let html = page.body();
            assert!(!html.contains("<script") && !html.contains('\u{202e}'), "{html}");
            assert!(html.contains("&lt;script&gt;"), "{html}");
        }
    }

    #[test]
    fn the_page_runs_loads_and_is_framed_by_nothing() {
        let page = sign_in(StatusCode::OK, &Form { action: "/login", ..Form::default() }, None);
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
    }
}
