//! The page where people decide (contract 2.8, security JI-10 and JI-11): who sees what, and what a form decides.

use lumoauth_tests::{Org, Person, Response, Server, on_each_backend, text};
use serde_json::json;

use crate::{
    approvals::{Approver, opened, setting, status},
    jit::{asked, detail, opened as opened_task, reviewer, status as jit_status},
};

on_each_backend!(
    whoever_is_not_signed_in_signs_in_first,
    person_sees_and_decides_what_they_are_asked,
    administrator_decides_on_a_permission,
    looking_and_foreign_forms_decide_nothing,
    what_is_shown_is_all_of_it_and_no_markup,
    critical_one_needs_a_second_look,
    decided_one_is_gone_and_not_decided_again,
    others_see_nothing_of_it,
    what_ends_later_is_on_a_page_of_its_own,
    what_was_not_shown_is_not_denied,
);

fn show(org: &Org<'_>, cookie: &str) -> Response {
    org.get("/oauth/approvals").header("Cookie", cookie).send()
}

/// The value of the hidden field `name` in the form that names `id`.
fn field(page: &str, id: &str, name: &str) -> String {
    let form = page.split("<form").find(|form| form.contains(id)).expect("a form about it");
    let mark = format!("name=\"{name}\" value=\"");
    let rest = form.split(&mark).nth(1).expect("the field");
    rest.split('"').next().expect("its value").to_owned()
}

fn fields(page: &str, id: &str) -> Vec<(&'static str, String)> {
    ["csrf_token", "kind", "id", "action_hash"].map(|name| (name, field(page, id, name))).to_vec()
}

fn submit(
    org: &Org<'_>,
    cookie: &str,
    fields: &[(&'static str, String)],
    extra: &[(&str, &str)],
) -> Response {
    let mut form: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    form.extend_from_slice(extra);
    org.post("/oauth/approvals/decide").header("Cookie", cookie).form(&form).send()
}

fn whoever_is_not_signed_in_signs_in_first(server: &Server) {
    let org = server.acme();
    let answer = org.get("/oauth/approvals").send();
    assert_eq!(answer.status, 303, "{answer}");
    let to = answer.header("location").expect("where to");
    assert!(to.contains("/oauth/login?return_to=") && to.contains("approvals"), "{to}");
    assert_eq!(server.request("GET", to).send().status, 200);
    // No token opens it: it is for people at a browser.
    let token = org.person().in_person("openid");
    assert_eq!(org.get("/oauth/approvals").bearer(&token).send().status, 303);
    assert_eq!(org.get("/oauth/approvals/decide").send().status, 405);
}

fn cookie_of(person: &Person<'_>) -> String {
    person.sign_in()
}

fn person_sees_and_decides_what_they_are_asked(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    let (yes, no) = (opened(&agent, &token, &alice), opened(&agent, &token, &alice));
    let page = show(&org, &cookie);
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self';"), "{policy}");
    let html = page.text();
    assert!(
        html.contains("Pay invoice 88") && html.contains(&agent.name) && !html.contains("<script"),
        "{html}"
    );
    for (approval, decision, expected) in [(&yes, "approve", "approved"), (&no, "deny", "denied")] {
        let done = submit(
            &org,
            &cookie,
            &fields(&html, approval),
            &[("decision", decision), ("message", "So be it.")],
        );
        assert_eq!(done.status, 303, "{done}");
        assert!(done.header("location").is_some_and(|to| to.ends_with(&format!("?done={expected}"))));
        assert_eq!(status(&agent, &token, approval), expected);
    }
    assert!(show(&org, &cookie).text().contains("Nothing waits for you."));
}

fn administrator_decides_on_a_permission(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let task = opened_task(&agent, &token);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]);
    let (admin, _) = reviewer(&org);
    let cookie = cookie_of(&admin);
    // The page shows what ends first; other tests ask things as well, so the form is made by hand if it is not on it.
    let html = show(&org, &cookie).text();
    let form = if html.contains(id) {
        fields(&html, id)
    } else {
        let any = html.split("<form").nth(1).expect("some form");
        let csrf = any.split("name=\"csrf_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let hash = text(&made["action_hash"]).to_owned();
        let csrf = csrf.expect("its token").to_owned();
        vec![("csrf_token", csrf), ("kind", "permission".into()), ("id", id.into()), ("action_hash", hash)]
    };
    let done = submit(&org, &cookie, &form, &[("decision", "approve")]);
    assert_eq!(done.status, 303, "{done}");
    assert_eq!(jit_status(&agent, &token, id)["status"], "approved");
}

fn looking_and_foreign_forms_decide_nothing(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    let approval = opened(&agent, &token, &alice);
    let html = show(&org, &cookie).text();
    let good = fields(&html, &approval);
    let yes = [("decision", "approve")];
    // GET, another method's link, prefetched or not.
    let query: Vec<_> = good.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let link = format!("/oauth/approvals/decide?{}&decision=approve", query.join("&"));
    assert_eq!(org.get(&link).header("Cookie", &cookie).send().status, 405);
    show(&org, &cookie);
    // No session, another's session, another session of the same person.
    assert_eq!(submit(&org, "", &good, &yes).status, 403);
    let other = cookie_of(&org.person());
    assert_eq!(submit(&org, &other, &good, &yes).status, 403);
    assert_eq!(submit(&org, &cookie_of(&alice.person), &good, &yes).status, 403);
    // A page of another site.
    let form: Vec<(&str, &str)> =
        good.iter().map(|(name, value)| (*name, value.as_str())).chain(yes).collect();
    let post = || org.post("/oauth/approvals/decide").header("Cookie", &cookie).form(&form);
    assert_eq!(post().header("Sec-Fetch-Site", "cross-site").send().status, 403);
    assert_eq!(post().header("Origin", "https://evil.test").send().status, 403);
    // A form that lacks something, or says something else than was shown.
    for (name, value) in [
        ("csrf_token", ""),
        ("csrf_token", "AAAA"),
        ("action_hash", ""),
        ("action_hash", "00"),
        ("kind", "permission"),
        ("kind", ""),
        ("id", "apr_x"),
    ] {
        let changed: Vec<_> =
            good.iter().map(|(n, v)| (*n, if *n == name { value.to_owned() } else { v.clone() })).collect();
        let answer = submit(&org, &cookie, &changed, &yes);
        assert!(matches!(answer.status, 400 | 403 | 404), "{name}={value}: {answer}");
    }
    assert_eq!(submit(&org, &cookie, &good, &[("decision", "maybe")]).status, 400);
    assert_eq!(submit(&org, &cookie, &good, &[]).status, 400);
    assert_eq!(status(&agent, &token, &approval), "pending");
    assert_eq!(submit(&org, &cookie, &good, &yes).status, 303);
}

fn what_is_shown_is_all_of_it_and_no_markup(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    let long = "y".repeat(7000);
    let body = json!({
        "task_id": "<b>t</b>", "reason": "<script>alert(1)</script>\nsecond line",
        "on_behalf_of": alice.person.email, "meta": { "text": long, "rtl": "a\u{202e}b", "md": "[x](javascript:1)" },
    });
    org.post("/agents/me/approvals").bearer(&token).json(body).send().expect(201);
    let html = show(&org, &cookie).text();
    assert!(!html.contains("<script") && !html.contains("<b>t") && !html.contains('\u{202e}'), "{html}");
    assert!(html.contains(&long) && html.contains("second line") && html.contains("[x](javascript:1)"));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains('\u{fffd}'));
    let _ = agent;
}

fn critical_one_needs_a_second_look(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    let body = json!({
        "task_id": "t", "reason": "Delete production", "impact": "critical", "on_behalf_of": alice.person.email,
    });
    let made = org.post("/agents/me/approvals").bearer(&token).json(body).send().expect(201).json();
    let approval = text(&made["approval_token"]);
    let html = show(&org, &cookie).text();
    assert!(html.contains("name=\"second_look\""), "{html}");
    let form = fields(&html, approval);
    assert_eq!(submit(&org, &cookie, &form, &[("decision", "approve")]).status, 400);
    assert_eq!(status(&agent, &token, approval), "pending");
    assert_eq!(submit(&org, &cookie, &form, &[("decision", "approve"), ("second_look", "yes")]).status, 303);
    assert_eq!(status(&agent, &token, approval), "approved");
}

fn decided_one_is_gone_and_not_decided_again(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    let approval = opened(&agent, &token, &alice);
    let form = fields(&show(&org, &cookie).text(), &approval);
    assert_eq!(submit(&org, &cookie, &form, &[("decision", "deny")]).status, 303);
    let again = submit(&org, &cookie, &form, &[("decision", "approve")]);
    assert_eq!(again.status, 409, "{again}");
    assert!(again.text().contains("decided before") && !again.text().contains("Nothing was decided."));
    assert_eq!(status(&agent, &token, &approval), "denied");
}

fn others_see_nothing_of_it(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    let stranger: Approver<'_> = crate::approvals::approver(&org);
    let html = show(&org, &cookie_of(&stranger.person)).text();
    assert!(!html.contains(&approval) && !html.contains("Pay invoice 88"), "{html}");
    // A session of one organization shows nothing of another.
    let globex = server.globex();
    assert_eq!(show(&globex, &cookie_of(&alice.person)).status, 303);
}

fn what_ends_later_is_on_a_page_of_its_own(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let cookie = cookie_of(&alice.person);
    for _ in 0..20 {
        opened(&agent, &token, &alice);
    }
    let other = org.delegate(&[]);
    let of_other: Vec<_> = (0..6).map(|_| opened(&other, &other.token(), &alice)).collect();
    let first = show(&org, &cookie).text();
    assert!(first.contains("1 more wait") && first.contains("/oauth/approvals?page=2\""), "{first}");
    let at = |page: &str| {
        org.get(&format!("/oauth/approvals?page={page}")).header("Cookie", &cookie).send().text()
    };
    let second = at("2");
    let only: Vec<_> = of_other.iter().filter(|approval| !first.contains(*approval)).collect();
    assert_eq!(only.len(), 1, "25 of 26 are on the first page");
    assert!(second.contains(only[0].as_str()) && second.contains("First page"), "{second}");
    assert_eq!(submit(&org, &cookie, &fields(&second, only[0]), &[("decision", "deny")]).status, 303);
    for page in ["0", "-1", "x", "4294967295", "99999999999999999999"] {
        assert!(at(page).contains("What agents ask you"), "{page}");
    }
}

fn what_was_not_shown_is_not_denied(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let task = opened_task(&agent, &token);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]);
    let cookie = cookie_of(&reviewer(&org).0);
    let any = show(&org, &cookie).text();
    let csrf = any.split("name=\"csrf_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let csrf = csrf.expect("its token").to_owned();
    let form = |hash: &str| {
        vec![
            ("csrf_token", csrf.clone()),
            ("kind", "permission".to_owned()),
            ("id", id.to_owned()),
            ("action_hash", hash.to_owned()),
        ]
    };
    assert_eq!(submit(&org, &cookie, &form("00"), &[("decision", "deny")]).status, 403);
    assert_eq!(jit_status(&agent, &token, id)["status"], "pending");
    assert_eq!(submit(&org, &cookie, &form(text(&made["action_hash"])), &[("decision", "deny")]).status, 303);
    assert_eq!(jit_status(&agent, &token, id)["status"], "denied");
}
