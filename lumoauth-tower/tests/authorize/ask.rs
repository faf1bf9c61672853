//! Asking, and answering.

use std::time::Duration;

use http::StatusCode;
use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    clock::Clock,
    id::ClientId,
    mcp::{McpServer, ResourceUri},
    store::{AgentKey, ClientKey, ConsentKey, Update},
};
use serde_json::json;

use crate::bench::{Answer, BASE, Bench, CHALLENGE, ISSUER, RESOURCE};

#[tokio::test]
async fn a_question_says_who_wants_what_for_whom() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[("resource", RESOURCE)]).await;
    assert_eq!(asked.status, StatusCode::OK);
    let body = asked.json();
    assert_eq!(body["client"], json!({ "id": bench.bot.id, "name": "Invoice Bot", "kind": "agent" }));
    assert_eq!(body["user"], json!({ "id": bench.alice.id.to_string(), "email": "alice@acme.test" }));
    assert_eq!(body["scopes"][0], json!({ "name": "read:files", "description": "Read your files" }));
    assert_eq!(body["resource"], RESOURCE);
    assert_eq!(body["redirect_uri"], "https://bot.example/cb");
    assert_eq!(body["submit_url"], format!("{BASE}/oauth/authorize"));
    assert_eq!(body["expires_in"], 600);
    assert!(body["challenge_id"].as_str().unwrap().starts_with("ach_"));
}

#[tokio::test]
async fn an_answer_names_its_issuer_and_repeats_the_state() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[]).await.json();
    let decided = bench.decide("sid=alice", &asked, "approve").await;
    assert_eq!(decided.status, StatusCode::OK);
    assert_eq!(decided.sent("iss").unwrap(), ISSUER);
    assert_eq!(decided.sent("state").unwrap(), "s t");
    assert_eq!(decided.sent("code").unwrap(), decided.json()["code"].as_str().unwrap());
    assert_eq!(bench.events("authorization.decided").await, 1);
    assert_eq!(bench.events("consent.granted").await, 1);

    // What was agreed to is not asked again, unless the client wants it or wants more.
    let again = bench.ask("sid=alice", &[]).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert!(again.sent("code").is_some() && again.sent("iss").is_some());
    assert_eq!(bench.ask("sid=alice", &[("prompt", "none")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(bench.ask("sid=alice", &[("prompt", "consent")]).await.status, StatusCode::OK);
    assert_eq!(bench.ask("sid=alice", &[("scope", "read:files read:more")]).await.status, StatusCode::OK);
    // The consent of one person is not another's.
    assert_eq!(bench.ask("sid=bob", &[]).await.status, StatusCode::OK);
    assert_eq!(bench.ask("sid=bob", &[("prompt", "none")]).await.sent("error").unwrap(), "consent_required");
}

#[tokio::test]
async fn a_refusal_goes_to_the_client_and_leaves_no_consent() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[]).await.json();
    let decided = bench.decide("sid=alice", &asked, "deny").await;
    assert_eq!(decided.sent("error").unwrap(), "access_denied");
    assert_eq!((decided.sent("iss").unwrap(), decided.sent("state").unwrap()), (ISSUER.into(), "s t".into()));
    assert!(decided.json().get("code").is_none());
    assert_eq!(bench.events("authorization.decided").await, 1);
    assert_eq!(bench.events("consent.granted").await, 0);
    assert_eq!(bench.ask("sid=alice", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_question_is_answered_once_by_whom_it_was_put_to() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[]).await.json();
    for stranger in ["sid=bob", "sid=alice-elsewhere", "sid=nobody", ""] {
        let refused = bench.decide(stranger, &asked, "approve").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{stranger}");
    }
    let mut forged = asked.clone();
    forged["csrf_token"] = bench.ask("sid=alice", &[]).await.json()["csrf_token"].clone();
    assert_eq!(bench.decide("sid=alice", &forged, "approve").await.status, StatusCode::FORBIDDEN);
    forged["challenge_id"] = json!("ach_unknown");
    assert_eq!(bench.decide("sid=alice", &forged, "approve").await.status, StatusCode::NOT_FOUND);
    let body = json!({ "challenge_id": asked["challenge_id"], "decision": "approve" });
    assert_eq!(bench.decide_with("sid=alice", &body).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bench.events("consent.granted").await, 0);
    // Who had the question and not the right to answer it is recorded, without what they sent.
    let log = bench.log("authorization.refused").await;
    let rows: Vec<_> =
        log.iter().rev().map(|event| (&*event.actor.id, event.reason.as_deref().unwrap())).collect();
    let (alice, bob) = (bench.alice.id.to_string(), bench.bob.id.to_string());
    let other = "other_session";
    let nobody = ("anonymous", other);
    assert_eq!(rows, [(&*bob, other), (&*alice, other), nobody, nobody, (&*alice, "csrf_token")]);
    for event in &log {
        let target = event.target.as_ref().unwrap();
        assert_eq!((target.kind.as_ref(), &*target.id), ("client", &*bench.bot.id));
        let row = format!("{event:?}");
        assert!(!row.contains("ach_") && !row.contains(asked["csrf_token"].as_str().unwrap()), "{row}");
    }

    assert_eq!(bench.decide("sid=alice", &asked, "approve").await.status, StatusCode::OK);
    assert_eq!(bench.decide("sid=alice", &asked, "approve").await.status, StatusCode::CONFLICT);
    assert_eq!(bench.decide("sid=alice", &asked, "deny").await.status, StatusCode::CONFLICT);

    let late = bench.ask("sid=alice", &[("prompt", "consent")]).await.json();
    bench.clock.advance(Duration::from_secs(600));
    assert_eq!(bench.decide("sid=alice", &late, "approve").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_person_may_agree_to_a_part() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[("scope", "openid read:files write:files")]).await.json();
    let with = |scopes| {
        json!({
            "challenge_id": asked["challenge_id"], "csrf_token": asked["csrf_token"],
            "decision": "approve", "scopes": scopes, "unknown": 1,
        })
    };
    for bad in [json!([]), json!(["read:files", "read:other"]), json!("*"), json!(["read:*"])] {
        let refused = bench.decide_with("sid=alice", &with(bad)).await;
        assert_eq!((refused.status, refused.error()), (StatusCode::BAD_REQUEST, "invalid_request".into()));
    }
    let decided = bench.decide_with("sid=alice", &with(json!(["read:files"]))).await;
    let tokens = bench.redeem(&decided.sent("code").unwrap(), &[]).await.json();
    assert_eq!(tokens["scope"], "read:files");
    assert!(tokens.get("id_token").is_none());
}

/// Answers with these of the scopes.
async fn choose(bench: &Bench, changes: &[(&str, &str)], scopes: &[&str]) -> Answer {
    let asked = bench.ask("sid=alice", changes).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    let asked = asked.json();
    let body = json!({
        "challenge_id": asked["challenge_id"], "csrf_token": asked["csrf_token"], "decision": "approve",
        "scopes": scopes,
    });
    let decided = bench.decide_with("sid=alice", &body).await;
    assert_eq!(decided.status, StatusCode::OK, "{}", decided.text);
    decided
}

#[tokio::test]
async fn what_is_allowed_at_one_resource_is_asked_for_at_another() {
    let bench = Bench::new().await;
    let now = bench.clock.now();
    let uri = "https://mcp.acme.test/mail";
    let mail = McpServer::new("Mail", ResourceUri::parse(uri).unwrap(), now);
    let event = Event::new(EventKind::McpServerCreated, Actor::system(), "made", now);
    let _ = bench.stores.mcp_servers.insert(&bench.org, &mail, &event).await.unwrap();
    let places = [("resource", RESOURCE), ("resource", uri), ("resource", "")];
    for (n, place) in places.into_iter().enumerate() {
        for (m, other) in places.into_iter().enumerate() {
            let expected = if m < n { StatusCode::SEE_OTHER } else { StatusCode::OK };
            assert_eq!(bench.ask("sid=alice", &[other]).await.status, expected, "{place:?} {other:?}");
            let silent = bench.ask("sid=alice", &[other, ("prompt", "none")]).await;
            assert_eq!(silent.sent("code").is_some(), m < n);
        }
        bench.code(&[place]).await;
        // Who the person is it knows from then on.
        let known = bench.ask("sid=alice", &[("scope", "openid")]).await;
        assert_eq!(known.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(bench.ask("sid=alice", &[places[1]]).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_refresh_token_is_part_of_what_is_agreed_to() {
    let bench = Bench::new().await;
    let offline = [("access_type", "offline")];
    let has = async |code: &str| {
        let tokens = bench.redeem(code, &[]).await.json();
        assert_eq!(tokens["scope"], "read:files openid", "not asked for by that name");
        tokens.get("refresh_token").is_some()
    };
    assert!(!has(&bench.code(&[]).await).await);
    // It was not in that.
    let asked = bench.ask("sid=alice", &offline).await.json();
    let line = json!({ "name": "offline_access", "description": "Keep its access while you are away" });
    assert!(asked["scopes"].as_array().unwrap().contains(&line), "{asked}");
    let none = [("access_type", "offline"), ("prompt", "none")];
    assert_eq!(bench.ask("sid=alice", &none).await.sent("error").unwrap(), "consent_required");
    let decided = choose(&bench, &offline, &["openid", "read:files"]).await;
    assert!(!has(&decided.sent("code").unwrap()).await);
    let asked = bench.ask("sid=alice", &offline).await;
    assert_eq!(asked.status, StatusCode::OK, "no is remembered by asking again");
    let decided = bench.decide("sid=alice", &asked.json(), "approve").await;
    assert!(has(&decided.sent("code").unwrap()).await);
    assert!(has(&bench.ask("sid=alice", &offline).await.sent("code").unwrap()).await);
    assert!(!has(&bench.ask("sid=alice", &[]).await.sent("code").unwrap()).await);
    // Chosen away later.
    let again = [("access_type", "offline"), ("prompt", "consent")];
    assert!(!has(&choose(&bench, &again, &["openid", "read:files"]).await.sent("code").unwrap()).await);
    assert_eq!(bench.ask("sid=alice", &offline).await.status, StatusCode::OK);

    // By name it is a scope like others.
    let named = bench.code(&[("scope", "read:files offline_access")]).await;
    let tokens = bench.redeem(&named, &[]).await.json();
    assert_eq!(tokens["scope"], "read:files offline_access");
    assert!(tokens.get("refresh_token").is_some());

    // Clients that are registered for it ask always.
    let app = [("client_id", &*bench.app.id), ("redirect_uri", "https://portal.example/cb")];
    let own = [&app[..], &[("client_secret", &*bench.app.secret)]].concat();
    let decided = choose(&bench, &app, &["openid", "read:files"]).await;
    let tokens = bench.redeem(&decided.sent("code").unwrap(), &own).await.json();
    assert!(tokens["access_token"].is_string() && tokens.get("refresh_token").is_none());
    let tokens = bench.redeem(&bench.code(&app).await, &own).await.json();
    assert!(tokens.get("refresh_token").is_some());
}

#[tokio::test]
async fn what_is_not_chosen_any_more_is_not_allowed_any_more() {
    let bench = Bench::new().await;
    let both = [("scope", "read:files write:files")];
    bench.code(&both).await;
    let renewed = [both[0], ("prompt", "consent")];
    // No says nothing about what was allowed before.
    let asked = bench.ask("sid=alice", &renewed).await.json();
    let decided = bench.decide("sid=alice", &asked, "deny").await;
    assert_eq!(decided.sent("error").unwrap(), "access_denied");
    assert_eq!(bench.events("authorization.decided").await, 2);
    assert_eq!(bench.ask("sid=alice", &both).await.status, StatusCode::SEE_OTHER);

    choose(&bench, &renewed, &["read:files"]).await;
    assert_eq!(bench.ask("sid=alice", &both).await.status, StatusCode::OK);
    assert_eq!(bench.ask("sid=alice", &[("scope", "write:files")]).await.status, StatusCode::OK);
    assert_eq!(bench.ask("sid=alice", &[("scope", "read:files")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(bench.events("consent.granted").await, 2);
}

#[tokio::test]
async fn what_an_earlier_client_of_the_same_id_was_allowed_is_not_for_the_new_one() {
    let bench = Bench::new().await;
    let app = [("client_id", &*bench.app.id), ("redirect_uri", "https://portal.example/cb")];
    let tokens = bench.tokens().await;
    bench.code(&app).await;
    let between = async |id: &str| {
        let id = ClientId::parse(id).unwrap();
        let key = ConsentKey::Between(bench.alice.id, &id);
        bench.stores.consents.find(&bench.org, key).await.unwrap().unwrap()
    };
    let before = between(&bench.bot.id).await;

    bench.clock.advance(Duration::from_secs(1));
    let now = bench.clock.now();
    let on = |kind| Event::new(kind, Actor::system(), "registered again", now);
    let (bot, portal) = (ClientId::parse(&bench.bot.id).unwrap(), ClientId::parse(&bench.app.id).unwrap());
    let found = bench.stores.agents.find(&bench.org, AgentKey::ClientId(&bot)).await.unwrap().unwrap();
    let mut agent = (*found).clone();
    agent.created_at = now;
    let event = on(EventKind::AgentCreated);
    assert_eq!(bench.stores.agents.update(&bench.org, &agent, &event).await.unwrap(), Update::Updated);
    let found = bench.stores.clients.find(&bench.org, ClientKey::ClientId(&portal)).await.unwrap().unwrap();
    let mut client = (*found).clone();
    client.created_at = now;
    let event = on(EventKind::ClientCreated);
    assert_eq!(bench.stores.clients.update(&bench.org, &client, &event).await.unwrap(), Update::Updated);

    for client in [&[][..], &app] {
        assert_eq!(bench.ask("sid=alice", client).await.status, StatusCode::OK);
        let silent = bench.ask("sid=alice", &[client, &[("prompt", "none")]].concat()).await;
        assert_eq!(silent.sent("error").unwrap(), "consent_required");
        bench.code(client).await;
        assert_eq!(bench.ask("sid=alice", client).await.status, StatusCode::SEE_OTHER);
    }
    let after = between(&bench.bot.id).await;
    assert_eq!((after.id, after.epoch, after.created_at), (before.id, before.epoch + 1, now));
    assert!(!after.everything().to_string().contains("offline_access"), "only what was agreed to now");
    assert!(!bench.is_active(&tokens["access_token"]).await);
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_the_clients() {
    let bench = Bench::new().await;
    for bad in [
        "https://evil.example/cb",
        "https://bot.example/cb/",
        "https://bot.example/cb?x=1",
        "https://bot.example/cb#x",
        "https://bot.example.evil.example/cb",
        "https://bot.example@evil.example/cb",
        "https://bot.example/../cb",
        "//evil.example",
        "javascript:alert(1)",
        "http://127.0.0.1:5000/other",
        "http://localhost:5000/cb",
        "http://127.0.0.1:5000@evil.example/cb",
    ] {
        let refused = bench.ask("sid=alice", &[("redirect_uri", bad)]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(refused.headers.get("location").is_none(), "{bad}");
    }
    let local = bench.ask("sid=alice", &[("redirect_uri", "http://127.0.0.1:51004/cb")]).await;
    assert_eq!(local.status, StatusCode::OK);
    for bad in ["", "nobody", "cli_000000000000000000000000", "app_000000000000000000000000", "a b"] {
        let refused = bench.ask("sid=alice", &[("client_id", bad)]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(refused.headers.get("location").is_none(), "{bad}");
    }
    let twice = format!("{BASE}/oauth/authorize?{}&state=x", bench.query(&[]));
    let refused = bench.send("GET", &twice, &[("cookie", "sid=alice")], "").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(
        refused.text.contains("repeated") && refused.headers["content-type"] == "text/html; charset=utf-8"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_for_the_client_to_know() {
    let bench = Bench::new().await;
    let app = [("client_id", &*bench.app.id), ("redirect_uri", "https://portal.example/cb")];
    let spa =
        [("client_id", &*bench.public), ("redirect_uri", "https://spa.example/cb"), ("scope", "read:files")];
    for (changes, error) in [
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_mode", "fragment")], "invalid_request"),
        (vec![("scope", "tool:other")], "invalid_scope"),
        (vec![("scope", "admin:agents")], "invalid_scope"),
        (vec![("scope", "jit:approve")], "invalid_scope"),
        (vec![("scope", "authz:check")], "invalid_scope"),
        (vec![("resource", "https://mcp.acme.test/other")], "invalid_target"),
        (vec![("resource", RESOURCE), ("scope", "tool:search")], "invalid_scope"),
        (vec![("code_challenge", CHALLENGE), ("code_challenge_method", "plain")], "invalid_request"),
        (vec![("prompt", "none consent")], "invalid_request"),
        ([&app[..], &[("scope", "write:files")]].concat(), "invalid_scope"),
        (spa.to_vec(), "invalid_request"),
    ] {
        let refused = bench.ask("sid=alice", &changes).await;
        assert_eq!(refused.status, StatusCode::SEE_OTHER, "{changes:?}");
        assert_eq!(refused.sent("error").unwrap(), error, "{changes:?}");
        assert_eq!(refused.sent("iss").unwrap(), ISSUER);
        assert_eq!(refused.sent("state").unwrap(), "s t");
    }
    let plain = bench.ask("sid=alice", &[&app[..], &[("scope", "admin read:files openid")]].concat()).await;
    assert_eq!(plain.status, StatusCode::OK, "an ordinary client may be given administration");
}

#[tokio::test]
async fn who_is_not_signed_in_is_sent_to_sign_in() {
    let bench = Bench::new().await;
    let asked = bench.ask("", &[]).await;
    assert_eq!((asked.status, asked.error()), (StatusCode::UNAUTHORIZED, "login_required".into()));
    assert_eq!(asked.json()["login_url"], "/login");
    assert_eq!(bench.ask("", &[("prompt", "none")]).await.sent("error").unwrap(), "login_required");
    let page = format!("{BASE}/oauth/authorize?{}", bench.query(&[]));
    let page = bench.send("GET", &page, &[("accept", "text/html")], "").await;
    assert!(page.text.contains(&format!("sign in, then {BASE}/oauth/authorize?response_type=code")));
    assert_eq!(page.headers["x-frame-options"], "DENY");
}

#[tokio::test]
async fn a_client_may_want_a_new_sign_in() {
    let bench = Bench::new().await;
    bench.code(&[]).await;
    // Signed in ten seconds ago.
    assert_eq!(bench.ask("sid=alice", &[("max_age", "10")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(bench.ask("sid=alice", &[("max_age", "9")]).await.status, StatusCode::UNAUTHORIZED);
    let none = [("max_age", "9"), ("prompt", "none")];
    assert_eq!(bench.ask("sid=alice", &none).await.sent("error").unwrap(), "login_required");
    for login in [("prompt", "login"), ("max_age", "0")] {
        let asked = bench.ask("sid=alice", &[login]).await;
        assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
        let resume = asked.json()["resume"].as_str().unwrap().to_owned();
        let headers = [("cookie", "sid=alice"), ("accept", "application/json")];
        let early = bench.send("GET", &resume, &headers, "").await;
        assert_eq!(early.status, StatusCode::UNAUTHORIZED, "the old sign-in does not count");
        bench.clock.advance(Duration::from_secs(1));
        bench.doorman.sign_in("sid=alice", bench.alice.id, bench.clock.now());
        let back = bench.send("GET", &resume, &headers, "").await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.text);
        assert!(back.sent("code").is_some());
    }
}

#[tokio::test]
async fn a_blocked_person_agrees_to_nothing() {
    let bench = Bench::new().await;
    let asked = bench.ask("sid=alice", &[]).await.json();
    let mut alice = (*bench.alice).clone();
    assert!(alice.block());
    let event = Event::new(EventKind::UserBlocked, Actor::system(), "blocked", bench.clock.now());
    let _ = bench.stores.users.update(&bench.org, &alice, &event).await.unwrap();
    assert_eq!(bench.ask("sid=alice", &[]).await.sent("error").unwrap(), "access_denied");
    assert_eq!(bench.decide("sid=alice", &asked, "approve").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn anybody_on_a_device_could_be_a_native_client_so_people_are_asked_each_time() {
    let bench = Bench::new().await;
    let pkce = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256"), ("scope", "read:files")];
    let native =
        [&pkce[..], &[("client_id", &bench.native), ("redirect_uri", "http://127.0.0.1:9/cb")]].concat();
    let spa =
        [&pkce[..], &[("client_id", &bench.public), ("redirect_uri", "https://spa.example/cb")]].concat();
    bench.code(&native).await;
    bench.code(&spa).await;
    assert_eq!(bench.ask("sid=alice", &native).await.status, StatusCode::OK);
    assert_eq!(bench.ask("sid=alice", &spa).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn without_people_there_is_no_endpoint() {
    use crate::bench::send;
    let bench = Bench::new().await;
    let bare = lumoauth_tower::LumoauthService::new(bench.server.clone());
    for (method, path) in [("GET", "authorize"), ("POST", "authorize"), ("POST", "par")] {
        let answer = send(&bare, method, &format!("{BASE}/oauth/{path}"), &[], "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let path = format!("{BASE}/.well-known/oauth-authorization-server");
    let without = send(&bare, "GET", &path, &[], "").await.json();
    let with = bench.send("GET", &path, &[], "").await.json();
    for grant in ["authorization_code", "refresh_token"] {
        let names = |body: &serde_json::Value| {
            body["grant_types_supported"].as_array().unwrap().contains(&grant.into())
        };
        assert!(names(&with) && !names(&without), "{grant}");
    }
    assert_eq!(with["pushed_authorization_request_endpoint"], format!("{ISSUER}/oauth/par"));
    assert_eq!(with["authorization_response_iss_parameter_supported"], true);
    assert_eq!(with["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(with["response_modes_supported"], json!(["query"]));
    assert!(without.get("pushed_authorization_request_endpoint").is_none());
}

#[tokio::test]
async fn an_address_that_is_not_the_clients_is_recorded() {
    let bench = Bench::new().await;
    for (uri, place) in [
        ("https://evil.example/cb?secret=canary", "https://evil.example"),
        ("com.example.evil:/canary", "com.example.evil:"),
        ("canary", ""),
    ] {
        let refused = bench.ask("sid=alice", &[("redirect_uri", uri)]).await;
        assert_eq!((refused.status, refused.headers.get("location")), (StatusCode::BAD_REQUEST, None));
        let log = bench.log("authorization.refused").await;
        let (event, target) = (&log[0], log[0].target.as_ref().unwrap());
        assert_eq!((target.kind.as_ref(), target.name.as_deref()), ("agent", Some("Invoice Bot")));
        assert_eq!(event.reason.as_deref(), Some("redirect_uri"));
        assert_eq!(event.context.get("redirect_origin").map_or("", |it| it.as_str().unwrap()), place);
        assert!(!format!("{event:?}").contains("canary"), "{event:?}");
    }
    // A client that is not there has nothing to lose.
    bench.ask("sid=alice", &[("client_id", "cli_000000000000000000000000")]).await;
    assert_eq!(bench.events("authorization.refused").await, 3);
}
