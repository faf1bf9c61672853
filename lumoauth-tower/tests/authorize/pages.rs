//! What people see.

use http::StatusCode;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    clock::Clock,
    id::Slug,
};

use crate::bench::{Answer, BASE, Bench, form};

async fn page(bench: &Bench, changes: &[(&str, &str)]) -> Answer {
    let path = format!("{BASE}/oauth/authorize?{}", bench.query(changes));
    let accept = "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8";
    bench.send("GET", &path, &[("cookie", "sid=alice"), ("accept", accept)], "").await
}

fn assert_protected(answer: &Answer) {
    let header = |name: &str| answer.headers.get(name).unwrap_or_else(|| panic!("{name}")).to_str().unwrap();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let policy = header("content-security-policy");
    for part in ["default-src 'none'", "style-src 'sha256-", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    assert!(!answer.text.contains("<script"));
}

fn hidden(html: &str, name: &str) -> String {
    let start = html.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap();
    start.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_consent_page_says_everything_and_its_form_works() {
    let bench = Bench::new().await;
    let shown = page(&bench, &[("resource", crate::bench::RESOURCE)]).await;
    assert_eq!(shown.status, StatusCode::OK);
    assert_protected(&shown);
    for text in [
        "Invoice Bot",
        "agent:bot",
        &bench.bot.id,
        "alice@acme.test",
        "Read your files",
        "read:files",
        "Know who you are",
        "https://mcp.acme.test/files",
        "https://bot.example",
    ] {
        assert!(shown.text.contains(text), "{text}");
    }
    let policy = shown.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' https://bot.example;"), "{policy}");

    let body = form(&[
        ("challenge_id", &hidden(&shown.text, "challenge_id")),
        ("csrf_token", &hidden(&shown.text, "csrf_token")),
        ("decision", "approve"),
    ]);
    let post = async |extra: &[(&str, &str)]| {
        let usual = [("cookie", "sid=alice"), ("content-type", "application/x-www-form-urlencoded")];
        bench.send("POST", &format!("{BASE}/oauth/authorize"), &[&usual[..], extra].concat(), &body).await
    };
    for foreign in [
        [("sec-fetch-site", "cross-site"), ("origin", "https://auth.example")],
        [("sec-fetch-site", "same-site"), ("origin", "https://auth.example")],
        [("origin", "https://evil.example"), ("x-any", "1")],
    ] {
        let refused = post(&foreign).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{foreign:?}");
        assert_protected(&refused);
    }
    assert_eq!(bench.events("authorization.refused").await, 3);
    let done = post(&[("sec-fetch-site", "same-origin"), ("origin", "null")]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    assert!(done.headers["location"].to_str().unwrap().starts_with("https://bot.example/cb?code=ac_"));
    assert_eq!(done.headers["cache-control"], "no-store");
    assert_eq!(done.headers["referrer-policy"], "no-referrer");
    let twice = post(&[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    assert_protected(&twice);
}

#[tokio::test]
async fn names_are_text() {
    let bench = Bench::new().await;
    let mut agent = Agent::new(
        "<img src=x onerror=alert(1)>\"'&\u{202e}evil\u{0007}\u{200b}",
        Slug::parse("evil").unwrap(),
        bench.clock.now(),
    );
    agent.redirect_uris = vec!["com.example.evil:/cb".to_owned()];
    let event = Event::new(EventKind::AgentCreated, Actor::system(), "made", bench.clock.now());
    let _ = bench.stores.agents.insert(&bench.org, &agent, &event).await.unwrap();
    let shown = page(
        &bench,
        &[
            ("client_id", agent.client_id.as_str()),
            ("redirect_uri", "com.example.evil:/cb"),
            ("scope", "openid"),
        ],
    )
    .await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
    assert_protected(&shown);
    assert!(shown.text.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;\u{fffd}evil"));
    for bad in ["<img", "\u{202e}", "\u{7}", "\u{200b}"] {
        assert!(!shown.text.contains(bad), "{bad:?}");
    }
    assert!(shown.headers["content-security-policy"].to_str().unwrap().contains("'self' com.example.evil:;"));
}

#[tokio::test]
async fn an_error_page_sends_nobody_anywhere() {
    let bench = Bench::new().await;
    let refused = page(&bench, &[("redirect_uri", "https://evil.example/<script>")]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_protected(&refused);
    assert!(refused.headers.get("location").is_none() && !refused.text.contains("evil.example"));
}

#[tokio::test]
async fn a_request_may_come_by_form() {
    let bench = Bench::new().await;
    let headers = [
        ("cookie", "sid=alice"),
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let path = "/t/acme/api/v1/oauth/authorize";
    let asked = bench.send("POST", path, &headers, &bench.query(&[])).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    assert_eq!(asked.json()["submit_url"], path);
}

#[tokio::test]
async fn below_a_path_browsers_are_given_that_path() {
    let bench = Bench::at("https://auth.example/id/p").await;
    for base in [BASE, "/t/acme/api/v1"] {
        let path = format!("{base}/oauth/authorize?{}", bench.query(&[]));
        let outside = format!("/id/p{base}/oauth/authorize");
        let html = [("accept", "text/html"), ("cookie", "sid=alice")];
        let shown = bench.send("GET", &path, &html, "").await;
        assert!(shown.text.contains(&format!("action=\"{outside}\"")), "{}", shown.text);
        let json = [("accept", "application/json"), ("cookie", "sid=alice")];
        let asked = bench.send("GET", &path, &json, "").await.json();
        assert_eq!(asked["submit_url"], outside);
        let told = bench.send("GET", &path, &json[..1], "").await;
        assert_eq!(told.status, StatusCode::UNAUTHORIZED);
        assert_eq!(told.json()["resume"], format!("/id/p{path}"));
        let page = bench.send("GET", &path, &html[..1], "").await;
        assert!(page.text.ends_with(&format!("then /id/p{path}")), "{}", page.text);
        let again = bench.send("GET", &format!("{path}&prompt=login"), &json, "").await;
        let resume = again.json()["resume"].as_str().unwrap().to_owned();
        assert!(resume.starts_with(&format!("{outside}?client_id=")), "{resume}");
    }
}
