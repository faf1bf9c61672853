//! Metadata and keys (RFC 8414, OpenID Connect discovery, contract 2.13).

use lumoauth_tests::{Backend, Jwks, Options, Server, Token, list, on_each_backend, strings, text};
use serde_json::Value;

on_each_backend!(
    metadata_names_every_endpoint_under_the_issuer,
    metadata_says_what_the_server_can,
    openid_configuration_has_its_required_members,
    inserted_form_equals_appended_form,
    alias_prefix_returns_the_canonical_issuer,
    metadata_is_public_cacheable_and_readable_from_a_browser,
    preflight_requests_are_answered,
    post_is_not_allowed,
    unknown_organization_has_no_metadata,
    jwks_lists_signing_keys_of_the_generated_client_only,
    jwks_leaks_no_private_member,
    organizations_do_not_share_keys,
    tokens_are_never_readable_across_origins,
    healthz_and_readyz_need_no_credential,
);

fn metadata_names_every_endpoint_under_the_issuer(server: &Server) {
    let org = server.acme();
    let body = org.get("/.well-known/oauth-authorization-server").send().ok();
    assert_eq!(body["issuer"], org.issuer());
    for (member, path) in [
        ("token_endpoint", "/oauth/token"),
        ("authorization_endpoint", "/oauth/authorize"),
        ("userinfo_endpoint", "/oauth/userinfo"),
        ("revocation_endpoint", "/oauth/revoke"),
        ("introspection_endpoint", "/oauth/introspect"),
        ("jwks_uri", "/.well-known/jwks.json"),
    ] {
        assert_eq!(body[member], format!("{}{path}", org.issuer()), "{member}");
    }
    assert!(body.get("registration_endpoint").is_none(), "not offered: {body}");
}

fn metadata_says_what_the_server_can(server: &Server) {
    let body = server.acme().get("/.well-known/oauth-authorization-server").send().ok();
    let has = |member: &str, value: &str| strings(&body[member]).contains(&value);
    assert!(has("grant_types_supported", "client_credentials"), "{body}");
    assert!(has("grant_types_supported", "urn:ietf:params:oauth:grant-type:token-exchange"), "{body}");
    assert!(has("token_endpoint_auth_methods_supported", "client_secret_basic"), "{body}");
    assert!(has("token_endpoint_auth_methods_supported", "client_secret_post"), "{body}");
    assert!(has("code_challenge_methods_supported", "S256"), "{body}");
    assert!(has("bearer_methods_supported", "header"), "{body}");
    // Required by RFC 8414 even while there is no authorization endpoint to list types for.
    assert!(body["response_types_supported"].is_array(), "{body}");
    assert!(body["scopes_supported"].is_array(), "{body}");
    assert_eq!(body["resource_indicators_supported"], true);
    assert_eq!(body["authorization_response_iss_parameter_supported"], true);
    assert_ne!(text(&body["act_claim_order"]), "rfc8693", "first agent outermost by default");
}

fn openid_configuration_has_its_required_members(server: &Server) {
    let body = server.acme().get("/.well-known/openid-configuration").send().ok();
    for member in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"] {
        assert!(text(&body[member]).starts_with("http://"), "{member}");
    }
    for member in ["subject_types_supported", "id_token_signing_alg_values_supported"] {
        assert!(!list(&body[member]).is_empty(), "{member}");
    }
    assert!(body["response_types_supported"].is_array(), "{body}");
    assert!(!strings(&body["id_token_signing_alg_values_supported"]).contains(&"none"));
}

fn inserted_form_equals_appended_form(server: &Server) {
    let org = server.acme();
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let appended = org.get(&format!("/.well-known/{document}")).send().ok();
        let path = format!("/.well-known/{document}/orgs/{}/api/v1", org.slug());
        assert_eq!(server.request("GET", &path).send().ok(), appended);
    }
}

fn alias_prefix_returns_the_canonical_issuer(server: &Server) {
    let org = server.acme();
    let path = format!("/t/{}/api/v1/.well-known/oauth-authorization-server", org.slug());
    assert_eq!(server.request("GET", &path).send().ok()["issuer"], org.issuer());
}

fn metadata_is_public_cacheable_and_readable_from_a_browser(server: &Server) {
    for document in ["oauth-authorization-server", "openid-configuration", "jwks.json"] {
        let request = server.acme().get(&format!("/.well-known/{document}"));
        let response = request.header("Origin", "https://app.test").send();
        response.ok();
        assert_eq!(response.header("cache-control"), Some("public, max-age=3600"), "{response}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{response}");
        assert_eq!(response.header("access-control-allow-credentials"), None, "{response}");
    }
}

fn preflight_requests_are_answered(server: &Server) {
    let request = server.acme().request("OPTIONS", "/.well-known/oauth-authorization-server");
    let request = request.header("Origin", "https://app.test").header("Access-Control-Request-Method", "GET");
    let response = request.header("Access-Control-Request-Headers", "mcp-protocol-version").send();
    assert!(matches!(response.status, 200 | 204), "{response}");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{response}");
}

fn post_is_not_allowed(server: &Server) {
    for document in ["oauth-authorization-server", "openid-configuration", "jwks.json"] {
        let response = server.acme().post(&format!("/.well-known/{document}")).send();
        assert_eq!(response.status, 405, "{response}");
    }
}

fn unknown_organization_has_no_metadata(server: &Server) {
    for path in [
        "/orgs/nobody/api/v1/.well-known/oauth-authorization-server",
        "/orgs/nobody/api/v1/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server/orgs/nobody/api/v1",
    ] {
        server.request("GET", path).send().refused(404, "tenant_not_found");
    }
}

fn jwks_lists_signing_keys_of_the_generated_client_only(server: &Server) {
    let agent = server.acme().agent(&[]);
    let kid = Token::parse(&agent.token()).header["kid"].clone();
    let jwks = Jwks::fetch(&agent.org);
    let keys = list(&jwks.raw()["keys"]);
    assert!(keys.iter().any(|key| key["kid"] == kid), "{}", jwks.raw());
    for key in keys {
        // The generated client's model refuses any other type.
        assert!(key["kty"] == "EC" || key["kty"] == "RSA", "{key}");
        assert_eq!(key["use"], "sig");
        assert_eq!((&key["alg"], &key["crv"]), (&"ES256".into(), &"P-256".into()));
    }
}

fn jwks_leaks_no_private_member(server: &Server) {
    let jwks = Jwks::fetch(&server.acme());
    for key in list(&jwks.raw()["keys"]) {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k", "oth"] {
            assert!(key.get(private).is_none(), "{private}");
        }
    }
}

fn organizations_do_not_share_keys(server: &Server) {
    let kids = |jwks: &Jwks| -> Vec<Value> {
        list(&jwks.raw()["keys"]).iter().map(|key| key["kid"].clone()).collect()
    };
    let (ours, theirs) = (Jwks::fetch(&server.acme()), Jwks::fetch(&server.globex()));
    assert!(kids(&ours).iter().all(|kid| !kids(&theirs).contains(kid)));
}

fn tokens_are_never_readable_across_origins(server: &Server) {
    let agent = server.acme().agent(&[]);
    let response = agent.token_request(&agent.secret, &[]).header("Origin", "https://evil.test").send();
    assert_ne!(response.header("access-control-allow-origin"), Some("*"), "{response}");
    let response = agent.admin("GET", "").header("Origin", "https://evil.test").send();
    assert_eq!(response.header("access-control-allow-origin"), None, "{response}");
}

fn healthz_and_readyz_need_no_credential(server: &Server) {
    server.request("GET", "/healthz").send().expect(200);
    server.request("GET", "/readyz").send().expect(200);
}

#[test]
fn rs256_by_configuration_signs_and_publishes_rsa_keys() {
    let server = Server::start(&Options::new(Backend::Memory).argument("--signing-alg").argument("RS256"));
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    assert_eq!(token.header["alg"], "RS256");
    let jwks = Jwks::fetch(&agent.org);
    assert!(list(&jwks.raw()["keys"]).iter().all(|key| key["kty"] == "RSA"), "{}", jwks.raw());
    jwks.verify(&token.text, &agent.org.issuer(), &agent.client_id);
}
