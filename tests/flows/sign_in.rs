//! Signing in, as a browser does it, and the pages on the way to a code (contract 2.12).

use std::collections::BTreeMap;

use lumoauth_tests::{
    Agent, Backend, CALLBACK, Options, Person, Response, Server, asking, on_each_backend, percent_encode,
    text, told,
};
use serde_json::json;

on_each_backend!(
    browser_signs_in_and_says_yes,
    browser_that_is_signed_in_sees_the_question_at_once,
    browser_signs_in_anew_if_the_client_wants_it,
    browser_says_no,
    wrong_password_shows_the_form_again,
    form_belongs_to_the_browser_it_was_given_to,
    session_cookie_is_kept_from_scripts_and_other_sites,
    programs_sign_in_with_json,
    malformed_sign_ins_are_refused,
    page_says_who_is_signed_in_and_signs_them_out,
    copied_session_ends_with_the_one_it_was_copied_from,
    session_of_a_blocked_person_ends_at_once,
    session_is_good_for_nothing_else,
    other_methods_are_refused,
    email_is_found_whatever_its_case,
    sign_ins_are_in_the_log,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a"]))
}

fn question(agent: &Agent<'_>) -> String {
    let pairs: Vec<_> = asking(&agent.client_id, "read:a")
        .into_iter()
        .map(|(name, value)| format!("{name}={}", percent_encode(value)))
        .collect();
    format!("/orgs/acme-corp/api/v1/oauth/authorize?{}", pairs.join("&"))
}

/// What a browser keeps.
struct Browser<'a> {
    server: &'a Server,
    /// What a proxy takes away from each path.
    base: &'a str,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, base: "", cookies: BTreeMap::new() }
    }

    fn send(&mut self, method: &str, path: &str, form: &[(&str, &str)]) -> Response {
        let path =
            path.strip_prefix(self.base).unwrap_or_else(|| panic!("{path} is not below {}", self.base));
        let mut request = self.server.request(method, path).header("Accept", "text/html,*/*;q=0.8");
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("Cookie", &pairs.join("; "));
        }
        if method == "POST" {
            request = request.header("Origin", &self.server.url()).form(form);
        }
        let answer = request.send();
        for (name, value) in &answer.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                let pair = value.split(';').next().unwrap_or_default();
                let (name, value) = pair.split_once('=').expect("a cookie has a value");
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[])
    }

    /// Follows a redirect on this server.
    fn follow(&mut self, answer: &Response) -> Response {
        let target = answer.header("location").unwrap_or_else(|| panic!("no redirect: {answer}")).to_owned();
        let url = self.server.url();
        self.get(target.strip_prefix(&url).unwrap_or(&target))
    }

    /// Fills in the only form of a page and sends it.
    fn submit(&mut self, page: &Response, given: &[(&str, &str)]) -> Response {
        let html = page.text();
        let action = unescaped(attribute(&html, "action"));
        let mut fields = Vec::new();
        for input in html.split("<input").skip(1) {
            let tag = input.split('>').next().unwrap_or_default();
            if tag.contains("type=\"hidden\"") {
                fields.push((attribute(tag, "name").to_owned(), unescaped(attribute(tag, "value"))));
            }
        }
        let mut all: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.extend_from_slice(given);
        self.send("POST", &action, &all)
    }
}

fn attribute<'t>(html: &'t str, name: &str) -> &'t str {
    let (_, rest) = html.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("no {name}: {html}"));
    rest.split('"').next().unwrap_or_default()
}

fn unescaped(text: &str) -> String {
    let pairs =
        [("&quot;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&#96;", "`"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn is_page(answer: &Response) -> bool {
    answer.status == 200 && answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
}

fn browser_signs_in_and_says_yes(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let sign_in = browser.get(&question(&agent)).expect(200);
    assert!(is_page(&sign_in) && sign_in.text().contains("type=\"password\""), "{sign_in}");
    // Browsers hold `form-action` against the whole way to the client.
    let policy = sign_in.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("form-action 'self' https://agent.example.test;"), "{policy}");
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let signed_in = browser.submit(&sign_in, &given).expect(303);
    let consent = browser.follow(&signed_in).expect(200);
    let html = consent.text();
    assert!(is_page(&consent) && html.contains(&agent.name) && html.contains("read:a"), "{consent}");
    assert!(html.contains(&alice.email) && html.contains("https://agent.example.test"), "{consent}");
    let done = browser.submit(&consent, &[("decision", "approve")]).expect(303);
    let told = told(&done);
    assert_eq!((&*told["state"], &told["iss"]), ("s", &agent.org.issuer()));
    assert_eq!(agent.redeem(&told["code"], &[]).ok()["scope"], "read:a");
    // Back and again: the question was answered.
    let again = browser.submit(&consent, &[("decision", "approve")]);
    assert_eq!((again.status, again.header("location")), (409, None), "{again}");
    // And who asks once more is not asked.
    assert!(lumoauth_tests::told(&browser.get(&question(&agent)).expect(303)).contains_key("code"));
}

fn browser_that_is_signed_in_sees_the_question_at_once(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let page = browser.get("/orgs/acme-corp/api/v1/oauth/login").expect(200);
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    browser.submit(&page, &given).expect(303);
    let consent = browser.get(&question(&agent));
    assert!(is_page(&consent) && consent.text().contains("challenge_id"), "{consent}");
}

fn browser_signs_in_anew_if_the_client_wants_it(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let page = browser.get("/orgs/acme-corp/api/v1/oauth/login");
    browser.submit(&page, &given).expect(303);
    let page = browser.get(&format!("{}&prompt=login", question(&agent)));
    assert!(page.text().contains("type=\"password\""), "{page}");
    // Nobody types a password in no time.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let signed_in = browser.submit(&page, &given).expect(303);
    let consent = browser.follow(&signed_in).expect(200);
    let done = browser.submit(&consent, &[("decision", "approve")]).expect(303);
    agent.redeem(&told(&done)["code"], &[]).ok();
}

fn browser_says_no(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let sign_in = browser.get(&question(&agent));
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let signed_in = browser.submit(&sign_in, &given);
    let consent = browser.follow(&signed_in);
    let done = browser.submit(&consent, &[("decision", "deny")]).expect(303);
    assert_eq!(told(&done)["error"], "access_denied");
    assert!(is_page(&browser.get(&question(&agent))));
}

fn wrong_password_shows_the_form_again(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let mut page = browser.get(&question(&agent));
    for (email, password) in [
        (alice.email.as_str(), "wrong"),
        (alice.email.as_str(), ""),
        ("nobody@people.test", alice.password.as_str()),
        ("", ""),
        ("<b>\"@x.test", "x"),
    ] {
        page = browser.submit(&page, &[("email", email), ("password", password)]);
        assert!(is_page(&page) && page.text().contains("role=\"alert\""), "{page}");
        assert!(!page.text().contains(&alice.password) && !page.text().contains("<b>"), "{page}");
    }
    // The way on is not lost.
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let signed_in = browser.submit(&page, &given).expect(303);
    assert!(browser.follow(&signed_in).text().contains("challenge_id"));
}

fn form_belongs_to_the_browser_it_was_given_to(server: &Server) {
    let (alice, agent) = both(server);
    let (mut one, mut other) = (Browser::new(server), Browser::new(server));
    let page = one.get(&question(&agent));
    other.get(&question(&agent));
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    // Who is made to send somebody else's form would be signed in as somebody else.
    let refused = other.submit(&page, &given);
    assert_eq!((refused.status, refused.header("location")), (403, None), "{refused}");
    let mut bare = Browser::new(server);
    assert_eq!(bare.submit(&page, &given).status, 403);
    one.submit(&page, &given).expect(303);
}

fn session_cookie_is_kept_from_scripts_and_other_sites(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let page = browser.get(&question(&agent));
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let by_form = browser.submit(&page, &given).expect(303);
    let by_json = alice.try_sign_in(&alice.password);
    for answer in [&page, &by_form, &by_json] {
        let cookie = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {answer}"));
        let lower = cookie.to_lowercase();
        for part in ["httponly", "samesite=", "path=/"] {
            assert!(lower.contains(part), "{cookie}");
        }
        assert!(!lower.contains("samesite=none") && !lower.contains("domain="), "{cookie}");
    }
    assert_eq!(by_json.header("cache-control"), Some("no-store"));
}

fn programs_sign_in_with_json(server: &Server) {
    let alice = server.acme().person_with(json!({ "name": "Alice Ng" }));
    let body = alice.try_sign_in(&alice.password).ok();
    assert_eq!(body, json!({ "user": { "id": alice.id, "email": alice.email, "name": "Alice Ng" } }));
    let refused = alice.try_sign_in("wrong");
    refused.refused(401, "invalid_credentials");
    assert!(refused.header("set-cookie").is_none());
    for almost in [
        format!(" {}", alice.password),
        format!("{}\u{0}", alice.password),
        alice.password.to_uppercase(),
        format!("{}{}", alice.password, "x".repeat(300)),
        String::new(),
    ] {
        alice.try_sign_in(&almost).refused(401, "invalid_credentials");
    }
}

fn malformed_sign_ins_are_refused(server: &Server) {
    let alice = server.acme().person();
    let post = |body: serde_json::Value| alice.org.post("/oauth/login/json").json(body).send();
    for body in [
        json!({}),
        json!([]),
        json!({ "email": alice.email }),
        json!({ "password": alice.password }),
        json!({ "email": 1, "password": alice.password }),
        json!({ "email": alice.email, "password": null }),
        json!({ "email": [alice.email], "password": alice.password }),
    ] {
        post(body).refused(400, "invalid_request");
    }
    let twice =
        format!("{{\"email\":\"x\",\"email\":\"{}\",\"password\":\"{}\"}}", alice.email, alice.password);
    let answer = alice.org.post("/oauth/login/json").body("application/json", twice).send();
    answer.refused(400, "invalid_request");
    let form = [("email", alice.email.as_str()), ("password", &alice.password)];
    assert_eq!(alice.org.post("/oauth/login/json").form(&form).send().status, 415);
    let nowhere = server.request("POST", "/orgs/no-such-org/api/v1/oauth/login/json");
    nowhere.json(json!({ "email": "x", "password": "y" })).send().refused(404, "tenant_not_found");
}

fn page_says_who_is_signed_in_and_signs_them_out(server: &Server) {
    let (alice, agent) = both(server);
    let mut browser = Browser::new(server);
    let page = browser.get("/orgs/acme-corp/api/v1/oauth/login");
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    let signed_in = browser.submit(&page, &given).expect(303);
    let here = browser.follow(&signed_in).expect(200);
    assert!(here.text().contains(&alice.email) && here.text().contains("Sign out"), "{here}");
    browser.submit(&here, &[]).expect(303);
    assert!(browser.get("/orgs/acme-corp/api/v1/oauth/login").text().contains("type=\"password\""));
    assert!(browser.get(&question(&agent)).text().contains("type=\"password\""));
    // Another site signs nobody out.
    let foreign = alice.org.post("/oauth/logout").header("Origin", "https://evil.test");
    let foreign = foreign.header("Cookie", &alice.cookie).send();
    assert!(foreign.status >= 400 && foreign.header("set-cookie").is_none(), "{foreign}");
}

fn copied_session_ends_with_the_one_it_was_copied_from(server: &Server) {
    let (alice, agent) = both(server);
    let (copy, mut other) = (alice.clone(), alice.clone());
    other.cookie = other.sign_in();
    let fields = asking(&agent.client_id, "read:a");
    let asked = copy.authorize(&fields).ok();
    let out = alice.org.post("/oauth/logout").header("Cookie", &alice.cookie).send().expect(303);
    assert!(out.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{out}");
    copy.authorize(&fields).refused(401, "login_required");
    assert_eq!(copy.decide(&asked, "approve", &[]).status, 403);
    // At another device nobody signed out.
    assert!(other.authorize(&fields).ok()["challenge_id"].is_string());
    let rows = alice.org.audit(&format!("userId={}&action=user.signed_out", alice.id));
    assert_eq!(rows.len(), 1, "{rows:?}");
    alice.org.post("/oauth/logout").header("Cookie", &alice.cookie).send().expect(303);
    let again = alice.org.audit(&format!("userId={}&action=user.signed_out", alice.id));
    assert_eq!(again.len(), 1, "it ends once");
}

fn session_of_a_blocked_person_ends_at_once(server: &Server) {
    let (alice, agent) = both(server);
    let fields = asking(&agent.client_id, "read:a");
    alice.authorize(&fields).ok();
    for verb in ["block", "unblock"] {
        alice.org.admin("POST", &format!("/users/{}/{verb}", alice.id)).send().ok();
        alice.authorize(&fields).refused(401, "login_required");
    }
}

#[test]
fn everything_works_below_a_path() {
    const BASE: &str = "/id/p";
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let authority = port.expect("a free port").to_string();
    let options = Options::new(Backend::Memory).listen(&authority);
    let server =
        Server::start(&options.argument("--public-url").argument(&format!("http://{authority}{BASE}")));
    let (alice, agent) = both(&server);
    let mut browser = Browser { base: BASE, ..Browser::new(&server) };
    let given = [("email", alice.email.as_str()), ("password", &alice.password)];
    for more in ["", "&prompt=login"] {
        let sign_in = browser.get(&format!("{BASE}{}{more}", question(&agent))).expect(200);
        assert!(sign_in.text().contains("type=\"password\""), "{sign_in}");
        let refused = browser.submit(&sign_in, &[("email", &alice.email), ("password", "wrong")]);
        let signed_in = browser.submit(&refused, &given).expect(303);
        let mut done = browser.follow(&signed_in);
        // What was agreed to is not asked again.
        if more.is_empty() {
            done = browser.submit(&done, &[("decision", "approve")]);
        }
        let told = told(&done.expect(303));
        assert!(told["iss"].starts_with(&format!("http://{authority}{BASE}/orgs/")), "{told:?}");
        agent.redeem(&told["code"], &[]).ok();
    }
    let here = browser.get(&format!("{BASE}/orgs/acme-corp/api/v1/oauth/login"));
    let out = browser.submit(&here, &[]).expect(303);
    assert!(browser.follow(&out).text().contains("type=\"password\""));
    // Programs are told the same paths, and nobody is sent to another place.
    let mut program = alice.clone();
    program.cookie = String::new();
    let body = program.authorize(&asking(&agent.client_id, "read:a")).refused(401, "login_required");
    for member in ["login_url", "resume"] {
        assert!(text(&body[member]).starts_with(&format!("{BASE}/orgs/acme-corp/api/v1/oauth/")), "{body}");
    }
    let mut forced = asking(&agent.client_id, "read:a");
    forced.push(("prompt", "consent"));
    assert_eq!(
        alice.authorize(&forced).ok()["submit_url"],
        format!("{BASE}/orgs/acme-corp/api/v1/oauth/authorize")
    );
    for bad in ["//evil.test", "/orgs/acme-corp/api/v1/oauth/authorize", "/id/p/../x", "/id/p"] {
        let path = format!("{BASE}/orgs/acme-corp/api/v1/oauth/login?return_to={}", percent_encode(bad));
        assert_eq!(browser.get(&path).status, 400, "{bad}");
    }
}

fn session_is_good_for_nothing_else(server: &Server) {
    let org = server.acme();
    let boss = org.person_with(json!({ "isAdmin": true }));
    for (method, path) in [
        ("GET", "/oauth/userinfo"),
        ("GET", "/me/consents"),
        ("GET", "/admin/agents"),
        ("GET", "/agents/me"),
        ("POST", "/agents/ask"),
        ("POST", "/authz/check"),
    ] {
        let answer = org.request(method, path).header("Cookie", &boss.cookie).send();
        assert_eq!(answer.status, 401, "{path}: {answer}");
        let value = boss.cookie.split_once('=').expect("a cookie").1;
        assert_eq!(org.request(method, path).bearer(value).send().status, 401, "{path}");
    }
}

fn other_methods_are_refused(server: &Server) {
    let org = server.acme();
    for (path, method, allowed) in [
        ("/oauth/login", "POST", "GET"),
        ("/oauth/login", "DELETE", "GET"),
        ("/oauth/login/submit", "GET", "POST"),
        ("/oauth/login/json", "GET", "POST"),
        ("/oauth/login/json", "PUT", "POST"),
        ("/oauth/logout", "GET", "POST"),
    ] {
        let answer = org.request(method, path).send();
        answer.refused(405, "method_not_allowed");
        assert!(answer.header("allow").is_some_and(|value| value.contains(allowed)), "{answer}");
    }
}

fn email_is_found_whatever_its_case(server: &Server) {
    let alice = server.acme().person();
    let body = json!({ "email": format!(" {} ", alice.email.to_uppercase()), "password": alice.password });
    let signed_in = alice.org.post("/oauth/login/json").json(body).send().ok();
    assert_eq!(signed_in["user"]["id"], alice.id.as_str());
}

fn sign_ins_are_in_the_log(server: &Server) {
    let alice = server.acme().person();
    alice.try_sign_in("a wrong guess").refused(401, "invalid_credentials");
    let rows = alice.org.audit(&format!("userId={}", alice.id));
    assert!(rows.iter().any(|row| row["status"] == "success"), "{rows:?}");
    let failures = alice.org.audit("status=failure&action=user.*");
    let mine = failures.iter().any(|row| json!(row).to_string().contains(&alice.email));
    assert!(mine, "{failures:?}");
    let whole = json!([rows, failures]).to_string();
    assert!(!whole.contains(&alice.password) && !whole.contains("a wrong guess"), "{whole}");
    assert!(!whole.contains(text(&json!(alice.cookie))) && !whole.contains(CALLBACK));
}
