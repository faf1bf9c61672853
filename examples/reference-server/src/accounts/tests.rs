mod signing_out;
mod way_on;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    api_key::ApiKey,
    audit::{Actor, Event, EventKind, EventOutcome},
    capability::Capability,
    client::Client,
    clock::Clock,
    id::{ClientId, OrgId},
    keys::{KeyRing, KeyRingConfig},
    organization::ActOrder,
    principal::{Identity, Principal},
    server::{Caller, PasswordHasher, TokenRequest},
    store::{AuditFilter, MemoryStore, Page, Stores},
};
use serde_json::{Value, json};

use super::*;

const PASSWORD: &str = "correct horse battery";
const RETURN: &str =
    "/orgs/acme/api/v1/oauth/authorize?client_id=app_1&redirect_uri=https%3A%2F%2Fapp.test%2Fcb";

/// A server with alice and bob in `acme` and alice in `globex`.
struct Fixture {
    accounts: Accounts,
    server: AuthorizationServer,
    stores: Stores,
    peer: SocketAddr,
}

/// A clock that stands still, so that no limit starts anew under a test.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_790_000_000)
    }
}

/// An answer, read.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What a browser would send back.
    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The value of a field of its form.
    fn field(&self, name: &str) -> String {
        let (_, rest) = self.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split('"').next().unwrap().replace("&amp;", "&")
    }
}

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn caller() -> Caller {
    Caller::new(Actor::system(), Origin::default())
}

impl Fixture {
    async fn new() -> Self {
        Self::at("http://127.0.0.1:8080", None).await
    }

    async fn at(public_url: &str, limits: Option<RateLimits>) -> Self {
        let stores = Stores::all(Arc::new(MemoryStore::new()));
        let master = MasterKey::generate();
        let keys = KeyRing::new(stores.keys.clone(), master.clone(), KeyRingConfig::default());
        let server = AuthorizationServer::builder(public_url, stores.clone(), Arc::new(keys))
            .with_clock(Arc::new(Still))
            .build()
            .unwrap();
        let passwords = Arc::new(Argon2id::new());
        let hash = passwords.hash(&Secret::from(PASSWORD)).await.unwrap();
        for (name, email) in
            [("acme", "alice@acme.test"), ("acme", "bob@acme.test"), ("globex", "alice@acme.test")]
        {
            let _ = server.create_organization(&org(name), name, ActOrder::default(), &caller()).await;
            let mut user = User::new(email, server.now());
            user.password_hash = Some(hash.clone());
            let event = Event::new(EventKind::UserCreated, Actor::system(), "made", server.now());
            let inserted = stores.users.insert(&org(name), &user, &event).await.unwrap();
            assert_eq!(inserted, lumoauth_core::store::Insert::Inserted);
        }
        let mut app = Client::new("App", server.now()).0;
        app.client_id = ClientId::parse("app_1").unwrap();
        app.confidential = false;
        app.grant_types = vec!["authorization_code".to_owned()];
        app.redirect_uris =
            ["https://app.test/cb", "http://127.0.0.1/cb", "http://[::1]/cb", "com.example.app:/cb"]
                .map(ToOwned::to_owned)
                .to_vec();
        let event = Event::new(EventKind::ClientCreated, Actor::system(), "made", server.now());
        let _ = stores.clients.insert(&org("acme"), &app, &event).await.unwrap();
        let accounts = Accounts::new(server.clone(), passwords, &master, limits.as_ref()).unwrap();
        Self { accounts, server, stores, peer: "192.0.2.7:4711".parse().unwrap() }
    }

    /// As an administrator does it in `acme`.
    async fn set_blocked(&self, name: &str, blocked: bool) {
        let org = org("acme");
        let (key, _) = ApiKey::new(&org, "key", vec![Capability::parse("admin").unwrap()], self.server.now());
        let by = Principal::new(org.clone(), Identity::ApiKey(Arc::new(key)), None);
        self.server.set_user_blocked(&org, name, blocked, &by, &caller()).await.unwrap();
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let path = request.uri().path().to_owned();
        let response = self.accounts.answer(Door::at(&path).unwrap(), request, self.peer).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn open(&self, path: &str, cookie: &str) -> Answer {
        self.send(Method::GET, path, &[("cookie", cookie)], "").await
    }

    async fn submit(&self, name: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let path = format!("/orgs/{name}/api/v1/oauth/login/submit");
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("cookie", cookie)];
        self.send(Method::POST, &path, &headers, &body).await
    }

    async fn sign_in(&self, name: &str, email: &str, password: &str) -> Answer {
        let path = format!("/orgs/{name}/api/v1/oauth/login/json");
        let body = json!({ "email": email, "password": password }).to_string();
        self.send(Method::POST, &path, &[("content-type", "application/json")], &body).await
    }

    async fn signed_in(&self, name: &str, cookie: &str) -> Option<SignedIn> {
        let organization = self.server.organization(&org(name)).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("cookie", cookie.parse().unwrap());
        self.accounts.signed_in(&organization, &headers).await.unwrap()
    }

    /// The targets that the sign-in page before this request lets its form lead to.
    async fn form_action(&self, query: &str) -> String {
        let organization = self.server.organization(&org("acme")).await.unwrap();
        let resume = format!("/orgs/acme/api/v1/oauth/authorize?{query}");
        let page = self.accounts.sign_in_page(&organization, &HeaderMap::new(), &resume).await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        // The page that comes after a wrong password is no different.
        let page = Answer { status: page.status(), headers: page.headers().clone(), text: page.into_body() };
        let token = page.field("csrf_token");
        let fields = [("email", "nobody@acme.test"), ("return_to", &*resume), ("csrf_token", &*token)];
        let again = self.submit("acme", &page.cookie(), &fields).await;
        assert_eq!(again.header("content-security-policy"), policy);
        let (_, rest) = policy.split_once("form-action ").unwrap();
        rest.split(';').next().unwrap().to_owned()
    }

    /// The tries of an organization, the last one first.
    async fn tries(&self, name: &str) -> Vec<Event> {
        self.events(name, EventKind::UserAuthenticated).await
    }

    /// The events of a kind, the last one first.
    async fn events(&self, name: &str, kind: EventKind) -> Vec<Event> {
        let all = AuditFilter::default();
        let page = self.stores.audit.page(&org(name), &all, Page::first(100)).await.unwrap();
        page.items.into_iter().map(|entry| entry.event.clone()).filter(|event| event.kind == kind).collect()
    }
}

#[tokio::test]
async fn a_program_signs_a_person_in_and_mints_nothing() {
    let fixture = Fixture::new().await;
    let answer = fixture.sign_in("acme", "Alice@Acme.test", PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let person = &answer.json()["user"];
    assert_eq!(person["email"], "alice@acme.test");
    assert!(answer.json().as_object().unwrap().len() == 1, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let cookie = answer.cookie();
    let found = fixture.signed_in("acme", &cookie).await.unwrap();
    assert_eq!(found.user.to_string(), person["id"]);
    assert_eq!(found.amr, ["pwd"]);
    let (_, value) = cookie.split_once('=').unwrap();
    assert_eq!(found.session, Secret::from(value).hash());
    let again = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await;
    assert_ne!(fixture.signed_in("acme", &again.cookie()).await.unwrap().session, found.session);
    let tries = fixture.tries("acme").await;
    assert_eq!(tries.len(), 2);
    assert_eq!((tries[0].outcome, &*tries[0].actor.id), (EventOutcome::Success, &*found.user.to_string()));
    assert_eq!(tries[0].origin.ip, Some(fixture.peer.ip()));
}

#[tokio::test]
async fn nobody_learns_why_a_sign_in_fails() {
    let fixture = Fixture::new().await;
    fixture.set_blocked("bob@acme.test", true).await;
    let mut texts = Vec::new();
    let long = "x".repeat(5000);
    for (email, password) in [
        ("alice@acme.test", "wrong"),
        ("alice@acme.test", ""),
        ("alice@acme.test", &*long),
        ("nobody@acme.test", PASSWORD),
        ("bob@acme.test", PASSWORD),
        ("", PASSWORD),
        ("correct horse", PASSWORD),
    ] {
        let answer = fixture.sign_in("acme", email, password).await;
        assert_eq!((answer.status, answer.cookie().as_str()), (StatusCode::UNAUTHORIZED, ""), "{email}");
        texts.push(answer.text);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
    let tries = fixture.tries("acme").await;
    assert_eq!(tries.len(), 7);
    let reasons: Vec<_> = tries.iter().rev().map(|event| event.reason.as_deref().unwrap()).collect();
    let wrong = "wrong_password";
    let unknown = "unknown_user";
    assert_eq!(reasons, [wrong, wrong, wrong, unknown, "user_blocked", unknown, unknown]);
    assert!(tries.iter().all(|event| event.outcome == EventOutcome::Failure));
    let rows = format!("{tries:?}");
    assert!(!rows.contains("correct horse") && !rows.contains("xxx"), "{rows}");
}

#[tokio::test]
async fn a_disabled_organization_signs_nobody_in() {
    let fixture = Fixture::new().await;
    let before = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.cookie();
    fixture.server.set_organization_active(&org("acme"), false, &caller()).await.unwrap();
    assert_eq!(fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.status, 401);
    assert!(fixture.signed_in("acme", &before).await.is_none());
    fixture.server.set_organization_active(&org("acme"), true, &caller()).await.unwrap();
    assert!(fixture.signed_in("acme", &before).await.is_none());
    assert_eq!(fixture.sign_in("nowhere", "alice@acme.test", PASSWORD).await.status, 404);
    assert_eq!(fixture.sign_in("Not%20A%20Slug", "alice@acme.test", PASSWORD).await.status, 404);
}

#[tokio::test]
async fn a_session_is_of_one_organization_and_ends_with_its_person() {
    let fixture = Fixture::new().await;
    let cookie = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.cookie();
    assert!(fixture.signed_in("acme", &cookie).await.is_some());
    assert!(fixture.signed_in("globex", &cookie).await.is_none());
    for blocked in [true, false] {
        fixture.set_blocked("alice@acme.test", blocked).await;
        assert!(fixture.signed_in("acme", &cookie).await.is_none(), "{blocked}");
    }
    for cookie in ["", "lumoauth_session=", "lumoauth_session=x.y", "other=1"] {
        assert!(fixture.signed_in("acme", cookie).await.is_none());
    }
}

#[tokio::test]
async fn programs_must_say_what_they_send_and_pages_of_others_sign_nobody_in() {
    let fixture = Fixture::new().await;
    let body = json!({ "email": "alice@acme.test", "password": PASSWORD }).to_string();
    let path = "/t/acme/api/v1/oauth/login/json";
    let json = ("content-type", "application/json; charset=utf-8");
    for (headers, status) in [
        (&[json][..], 200),
        (&[json, ("origin", "http://127.0.0.1:8080")], 200),
        (&[json, ("origin", "https://evil.test")], 403),
        (&[json, ("origin", "null")], 403),
        (&[json, ("sec-fetch-site", "cross-site")], 403),
        (&[], 415),
        (&[("content-type", "text/plain")], 415),
        (&[("content-type", "application/x-www-form-urlencoded")], 415),
    ] {
        let answer = fixture.send(Method::POST, path, headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert_eq!(answer.cookie().is_empty(), status != 200);
    }
    let twice = r#"{"email":"a@b","email":"alice@acme.test","password":"x"}"#;
    for bad in ["", "[]", "{}", r#"{"email":"a@b"}"#, r#"{"email":1,"password":"x"}"#, twice, "\u{0}"] {
        let answer = fixture.send(Method::POST, path, &[json], bad).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    let huge = "x".repeat(65 * 1024);
    assert_eq!(fixture.send(Method::POST, path, &[json], &huge).await.status, 413);
    let get = fixture.send(Method::GET, path, &[json], "").await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn a_person_signs_in_by_the_form_and_goes_where_they_came_from() {
    let fixture = Fixture::new().await;
    let organization = fixture.server.organization(&org("acme")).await.unwrap();
    let page = fixture.accounts.sign_in_page(&organization, &HeaderMap::new(), RETURN).await.unwrap();
    assert_eq!(page.status(), 200);
    let page = Answer { status: page.status(), headers: page.headers().clone(), text: page.body().clone() };
    assert!(page.text.contains("action=\"/orgs/acme/api/v1/oauth/login/submit\""), "{page:?}");
    assert_eq!(page.field("return_to"), RETURN);
    assert!(page.header("content-security-policy").contains("form-action 'self' https://app.test;"));
    let (cookie, token) = (page.cookie(), page.field("csrf_token"));
    let fields = |password| {
        [("email", "alice@acme.test"), ("password", password), ("return_to", RETURN), ("csrf_token", &*token)]
    };
    let refused = fixture.submit("acme", &cookie, &fields("<wrong>")).await;
    assert_eq!(refused.status, 200);
    assert!(refused.text.contains("role=\"alert\"") && refused.cookie().is_empty(), "{refused:?}");
    assert!(!refused.text.contains("wrong&gt;"), "a password does not come back");
    assert_eq!(refused.field("csrf_token"), token);
    let done = fixture.submit("acme", &cookie, &fields(PASSWORD)).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, RETURN));
    assert!(fixture.signed_in("acme", &done.cookie()).await.is_some());
}

#[tokio::test]
async fn another_site_cannot_sign_a_browser_in() {
    let fixture = Fixture::new().await;
    let victim = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    let attacker = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    let elsewhere = fixture.open("/orgs/globex/api/v1/oauth/login", &victim.cookie()).await;
    let mine = victim.field("csrf_token");
    for (cookie, token) in [
        (victim.cookie(), attacker.field("csrf_token")),
        (victim.cookie(), elsewhere.field("csrf_token")),
        (victim.cookie(), String::new()),
        (String::new(), mine.clone()),
        ("lumoauth_sign_in=x".to_owned(), mine.clone()),
    ] {
        let fields = [("email", "alice@acme.test"), ("password", PASSWORD), ("csrf_token", &*token)];
        let answer = fixture.submit("acme", &cookie, &fields).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(!answer.cookie().contains("lumoauth_session"), "{answer:?}");
    }
    assert!(fixture.tries("acme").await.is_empty(), "no password was looked at");
    let fields = [("email", "alice@acme.test"), ("password", PASSWORD), ("csrf_token", &*mine)];
    let done = fixture.submit("acme", &victim.cookie(), &fields).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/orgs/acme/api/v1/oauth/login"));
    let page = fixture.open("/orgs/acme/api/v1/oauth/login", &done.cookie()).await;
    assert!(page.text.contains("alice@acme.test") && page.text.contains("Sign out"), "{page:?}");
}

#[tokio::test]
async fn a_second_tab_leaves_the_form_of_the_first_good() {
    let fixture = Fixture::new().await;
    let organization = fixture.server.organization(&org("acme")).await.unwrap();
    let first = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    let cookie = first.cookie();
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, cookie.parse().unwrap());
    let second = fixture.accounts.sign_in_page(&organization, &headers, RETURN).await.unwrap();
    assert!(!second.headers().contains_key(header::SET_COOKIE));
    let second = Answer { status: second.status(), headers: HeaderMap::new(), text: second.into_body() };
    for page in [first, second] {
        let token = page.field("csrf_token");
        let fields = [("email", "alice@acme.test"), ("password", PASSWORD), ("csrf_token", &*token)];
        assert_eq!(fixture.submit("acme", &cookie, &fields).await.status, 303);
    }
}

#[tokio::test]
async fn who_guesses_is_slowed_and_the_owner_is_not() {
    let mut fixture = Fixture::at("http://127.0.0.1:8080", Some(RateLimits::standard())).await;
    for _ in 0..PER_ACCOUNT {
        assert_eq!(fixture.sign_in("acme", "alice@acme.test", "wrong").await.status, 401);
    }
    let recorded = fixture.tries("acme").await.len();
    let refused = fixture.sign_in("acme", "ALICE@acme.test", PASSWORD).await;
    assert_eq!(refused.status, 429, "also with the right password");
    assert!((1..=61).contains(&refused.header("retry-after").parse::<u64>().unwrap()), "{refused:?}");
    assert_eq!(fixture.tries("acme").await.len(), recorded, "and the log does not grow");
    let page = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    let token = page.field("csrf_token");
    let fields = [("email", "alice@acme.test"), ("password", PASSWORD), ("csrf_token", &*token)];
    let refused = fixture.submit("acme", &page.cookie(), &fields).await;
    assert_eq!(refused.status, 429);
    assert_ne!(refused.header("retry-after"), "");
    assert_eq!(fixture.sign_in("acme", "bob@acme.test", PASSWORD).await.status, 200, "another account");
    fixture.peer = "192.0.2.8:4711".parse().unwrap();
    assert_eq!(fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.status, 200, "the owner's address");
}

#[tokio::test]
async fn who_tries_many_accounts_is_slowed_too() {
    let mut limits = RateLimits::standard();
    limits.failures = 3;
    let fixture = Fixture::at("http://127.0.0.1:8080", Some(limits)).await;
    for n in 0..3 {
        assert_eq!(fixture.sign_in("acme", &format!("{n}@acme.test"), "").await.status, 401);
    }
    assert_eq!(fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.status, 429);
    assert_eq!(fixture.sign_in("globex", "alice@acme.test", PASSWORD).await.status, 200);
}

#[test]
fn the_routes_are_those_and_no_others() {
    for path in [
        "/orgs/acme/api/v1/oauth/login",
        "/t/acme/api/v1/oauth/login/submit",
        "//orgs/acme/api/v1/oauth/login/json",
        "/t/acme/api/v1/oauth/logout",
    ] {
        assert!(Door::at(path).is_some(), "{path}");
    }
    for path in [
        "/",
        "/orgs/acme/api/v1/oauth/token",
        "/orgs/acme/api/v1/oauth/login/",
        "/orgs/acme/api/v1/oauth/login/other",
        "/orgs/acme/x/api/v1/oauth/login",
        "/x/acme/api/v1/oauth/login",
        "/oauth/login",
    ] {
        assert!(Door::at(path).is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_person_without_a_password_cannot_sign_in() {
    let fixture = Fixture::new().await;
    let mut user = User::new("carol@acme.test", fixture.server.now());
    user.password_hash = None;
    let event = Event::new(EventKind::UserCreated, Actor::system(), "made", fixture.server.now());
    let _ = fixture.stores.users.insert(&org("acme"), &user, &event).await.unwrap();
    for password in ["", PASSWORD] {
        assert_eq!(fixture.sign_in("acme", "carol@acme.test", password).await.status, 401);
    }
}
