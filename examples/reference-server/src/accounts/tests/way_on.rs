//! Where people go from the sign-in page, and where they never go.

use super::*;

#[tokio::test]
async fn nobody_is_sent_to_another_place() {
    let fixture = Fixture::new().await;
    let page = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    let (cookie, token) = (page.cookie(), page.field("csrf_token"));
    for bad in
        ["https://evil.test/", "//evil.test/", "/\\evil.test", "/orgs/globex/api/v1/oauth/authorize", "/"]
    {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("return_to", bad).finish();
        let answer = fixture.open(&format!("/orgs/acme/api/v1/oauth/login?{query}"), "").await;
        assert_eq!(answer.status, 400, "{bad}");
        let fields = [
            ("email", "alice@acme.test"),
            ("password", PASSWORD),
            ("return_to", bad),
            ("csrf_token", &*token),
        ];
        let answer = fixture.submit("acme", &cookie, &fields).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{bad}");
        assert!(answer.cookie().is_empty());
    }
    let organization = fixture.server.organization(&org("acme")).await.unwrap();
    let page = fixture.accounts.sign_in_page(&organization, &HeaderMap::new(), "https://evil.test/").await;
    assert_eq!(page.unwrap().status(), 400);
}

#[tokio::test]
async fn a_form_may_lead_to_the_client_and_nowhere_else() {
    let fixture = Fixture::new().await;
    let plain = async |client: &str, uri: &str| {
        let pairs = [("client_id", client), ("redirect_uri", uri)];
        let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        fixture.form_action(&query).await
    };
    let pushed = async |uri: &str| {
        let organization = fixture.server.organization(&org("acme")).await.unwrap();
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let pairs = [
            ("response_type", "code"),
            ("client_id", "app_1"),
            ("redirect_uri", uri),
            ("scope", "openid"),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ];
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let params = Params::from_form(body.as_bytes()).unwrap();
        let request =
            TokenRequest { authorization: None, dpop: None, params: &params, origin: &Origin::default() };
        let pushed = fixture.server.push_authorization(&organization, request).await.unwrap();
        fixture.form_action(&format!("client_id=app_1&request_uri={}", pushed.request_uri)).await
    };
    for (uri, target) in [
        ("https://app.test/cb", "'self' https://app.test"),
        ("http://127.0.0.1:5000/cb", "'self' http://127.0.0.1:5000"),
        ("http://[::1]:5000/cb", "'self' http:"),
        ("com.example.app:/cb", "'self' com.example.app:"),
    ] {
        assert_eq!(plain("app_1", uri).await, target);
        assert_eq!(pushed(uri).await, target, "and by a pushed request");
    }
    for (client, uri) in [
        ("app_1", "https://evil.test/cb"),
        ("app_1", "com.example.evil:/cb"),
        ("app_1", "javascript:alert(1)"),
        ("app_1", "*"),
        ("app_2", "https://app.test/cb"),
        ("", "https://app.test/cb"),
    ] {
        assert_eq!(plain(client, uri).await, "'self'", "{client} {uri}");
    }
    let unknown = "client_id=app_1&request_uri=urn:ietf:params:oauth:request_uri:x";
    assert_eq!(fixture.form_action(unknown).await, "'self'");
    assert_eq!(fixture.form_action("client_id=a&client_id=b").await, "'self'");
}

#[tokio::test]
async fn over_tls_and_below_a_path_everything_fits() {
    let fixture = Fixture::at("https://auth.test/base", None).await;
    let page = fixture.open("/orgs/acme/api/v1/oauth/login", "").await;
    assert!(page.cookie().starts_with("__Host-lumoauth_sign_in="), "{page:?}");
    assert!(page.header("set-cookie").ends_with("; Secure"));
    assert!(page.text.contains("action=\"/base/orgs/acme/api/v1/oauth/login/submit\""), "{page:?}");
    let token = page.field("csrf_token");
    let fields = [
        ("email", "alice@acme.test"),
        ("password", PASSWORD),
        ("csrf_token", &*token),
        ("return_to", &*format!("/base{RETURN}")),
    ];
    let done = fixture.submit("acme", &page.cookie(), &fields).await;
    assert_eq!(done.header("location"), format!("/base{RETURN}"));
    assert!(done.header("set-cookie").contains("; Path=/;"), "{done:?}");
    for bad in [RETURN, &*format!("//base{RETURN}"), &*format!("/base/base{RETURN}"), "/base/"] {
        let fields = [("return_to", bad), ("csrf_token", &*token)];
        let refused = fixture.submit("acme", &page.cookie(), &fields).await;
        assert_eq!((refused.status.as_u16(), refused.header("location")), (400, ""), "{bad}");
    }
    let login = fixture.accounts.sign_in_path(&fixture.server.organization(&org("acme")).await.unwrap());
    assert_eq!(login, "/base/orgs/acme/api/v1/oauth/login");
    assert!(done.cookie().starts_with("__Host-lumoauth_session="));
    assert!(fixture.signed_in("acme", &done.cookie()).await.is_some());
    let bare = done.cookie().replace("__Host-", "");
    assert!(fixture.signed_in("acme", &bare).await.is_none(), "a neighbour can plant that one");
}
