//! The end of a session.

use super::*;

#[tokio::test]
async fn signing_out_ends_the_session_for_everybody_who_has_its_cookie() {
    let fixture = Fixture::new().await;
    let path = "/orgs/acme/api/v1/oauth/logout";
    let cookie = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.cookie();
    let elsewhere = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.cookie();
    let forced =
        fixture.send(Method::POST, path, &[("origin", "https://evil.test"), ("cookie", &cookie)], "").await;
    assert_eq!((forced.status.as_u16(), forced.header("set-cookie")), (403, ""));
    assert_eq!(fixture.send(Method::GET, path, &[("cookie", &cookie)], "").await.status, 405);
    assert!(fixture.signed_in("acme", &cookie).await.is_some(), "nobody has signed out yet");
    for _ in 0..2 {
        let done = fixture.send(Method::POST, path, &[("cookie", &cookie)], "").await;
        assert_eq!((done.status.as_u16(), done.header("location")), (303, "/orgs/acme/api/v1/oauth/login"));
        assert!(done.header("set-cookie").starts_with("lumoauth_session=; Path=/; Max-Age=0"));
        assert!(fixture.signed_in("acme", &cookie).await.is_none());
    }
    let page = fixture.open("/orgs/acme/api/v1/oauth/login", &cookie).await;
    assert!(page.text.contains("type=\"password\""), "{page:?}");
    assert!(fixture.signed_in("acme", &elsewhere).await.is_some(), "the person's other sessions go on");
    let alice = fixture.signed_in("acme", &elsewhere).await.unwrap().user.to_string();
    let events = fixture.events("acme", EventKind::UserSignedOut).await;
    assert_eq!((events.len(), &*events[0].actor.id), (1, &*alice), "{events:?}");
    // Whoever has no session leaves nothing behind.
    for nothing in ["", "lumoauth_session=x.y"] {
        assert_eq!(fixture.send(Method::POST, path, &[("cookie", nothing)], "").await.status, 303);
    }
    assert_eq!(fixture.events("acme", EventKind::UserSignedOut).await.len(), 1);
}

#[tokio::test]
async fn signing_out_at_another_organization_ends_the_session_it_takes_away() {
    let fixture = Fixture::new().await;
    let cookie = fixture.sign_in("acme", "alice@acme.test", PASSWORD).await.cookie();
    let path = "/orgs/globex/api/v1/oauth/logout";
    assert_eq!(fixture.send(Method::POST, path, &[("cookie", &cookie)], "").await.status, 303);
    assert!(fixture.signed_in("acme", &cookie).await.is_none());
    assert_eq!(fixture.events("acme", EventKind::UserSignedOut).await.len(), 1);
    assert!(fixture.events("globex", EventKind::UserSignedOut).await.is_empty());
}
