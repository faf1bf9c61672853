//! Tokens that bring their own idea of key and algorithm (security JW).

use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{
    AttackerKey, Jwks, Server, b64, forged, forms_of_public_key, list, on_each_backend, text, unsigned,
};
use serde_json::json;

use crate::forged_claims::assert_refused;

on_each_backend!(
    algorithm_none_is_refused_in_every_spelling,
    hmac_with_every_form_of_the_public_key_is_refused,
    embedded_keys_are_refused,
    key_ids_are_never_interpreted,
    critical_extensions_are_refused,
    unencoded_payload_is_refused,
    types_of_other_tokens_are_refused,
    missing_header_members_are_refused,
    key_of_another_organization_is_refused,
);

fn algorithm_none_is_refused_in_every_spelling(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    for alg in ["none", "None", "NONE", "nOnE", "none ", "\u{feff}none", ""] {
        let mut header = token.header.clone();
        header["alg"] = alg.into();
        let bare = unsigned(&header, &token.claims);
        assert_refused(&agent, &bare, alg);
        assert_refused(&agent, bare.trim_end_matches('.'), alg);
        assert_refused(&agent, &format!("{bare}{}", token.parts()[2]), alg);
        assert_refused(&agent, &forged(&header, &token.claims, b""), alg);
    }
    for alg in [json!(null), json!(0), json!(["none"]), json!({ "a": 1 }), json!(true)] {
        let mut header = token.header.clone();
        header["alg"] = alg.clone();
        assert_refused(&agent, &unsigned(&header, &token.claims), &alg.to_string());
    }
}

fn hmac_with_every_form_of_the_public_key_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    let jwks = Jwks::fetch(&agent.org);
    let jwk =
        list(&jwks.raw()["keys"]).iter().find(|key| key["kid"] == token.header["kid"]).expect("its key");
    for secret in forms_of_public_key(jwk) {
        for alg in ["HS256", "HS384", "HS512", "hs256", "ES256"] {
            let mut header = token.header.clone();
            header["alg"] = alg.into();
            assert_refused(&agent, &forged(&header, &token.claims, &secret), alg);
        }
    }
}

fn embedded_keys_are_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    let key = AttackerKey::generate();
    let kid = text(&token.header["kid"]);
    let jwk = key.jwk(kid);
    let url = format!("{}/orgs/globex/api/v1/.well-known/jwks.json", server.url());
    let certificate = STANDARD.encode([0x30, 0x03, 0x02, 0x01, 0x01]);
    let additions = [
        json!({ "jwk": jwk }),
        json!({ "jwk": jwk, "kid": null }),
        json!({ "jku": url }),
        json!({ "jku": "https://evil.test/jwks.json" }),
        json!({ "x5u": "https://evil.test/cert.pem" }),
        json!({ "x5c": [certificate] }),
        json!({ "x5t": b64([0; 20]), "x5t#S256": b64([0; 32]) }),
    ];
    for addition in additions {
        let mut header = token.header.clone();
        for (member, value) in addition.as_object().expect("an object") {
            if value.is_null() {
                header.as_object_mut().expect("an object").remove(member);
            } else {
                header[member] = value.clone();
            }
        }
        assert_refused(&agent, &key.sign(&header, &token.claims), &addition.to_string());
    }
}

fn key_ids_are_never_interpreted(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    let key = AttackerKey::generate();
    let kids = [
        json!("../../../../dev/null"),
        json!("/etc/passwd"),
        json!("' UNION SELECT 'key"),
        json!("| sleep 5"),
        json!("https://evil.test/jwks.json"),
        json!(""),
        json!("*"),
        json!("\u{0}"),
        json!("k".repeat(4000)),
        json!(7),
        json!(null),
        json!([text(&token.header["kid"])]),
        json!({ "kid": "x" }),
        json!(format!("{} ", text(&token.header["kid"]))),
    ];
    for kid in kids {
        let mut header = token.header.clone();
        header["kid"] = kid.clone();
        assert_refused(&agent, &key.sign(&header, &token.claims), &kid.to_string());
        header["alg"] = "HS256".into();
        assert_refused(&agent, &forged(&header, &token.claims, b""), &kid.to_string());
    }
}

fn critical_extensions_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let key = AttackerKey::generate();
    for crit in [json!(["exp"]), json!([]), json!(["b64"]), json!("exp"), json!(null), json!(["alg"])] {
        let mut header = token.header.clone();
        header["crit"] = crit.clone();
        header["exp"] = 1.into();
        assert_refused(&agent, &key.sign(&header, &token.claims), &crit.to_string());
        assert_refused(
            &agent,
            &crate::forged_claims::rebuilt(&token, &header, &token.claims),
            &crit.to_string(),
        );
    }
}

fn unencoded_payload_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let mut header = token.header.clone();
    header["b64"] = false.into();
    header["crit"] = json!(["b64"]);
    let key = AttackerKey::generate();
    assert_refused(&agent, &key.sign(&header, &token.claims), "b64");
    let raw = format!("{}.{}.{}", b64(header.to_string()), "payload", token.parts()[2]);
    assert_refused(&agent, &raw, "raw payload");
}

fn types_of_other_tokens_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let key = AttackerKey::generate();
    for kind in [
        "JWT",
        "jwt",
        "auth+jwt",
        "agent+jwt",
        "resource+jwt",
        "dpop+jwt",
        "logout+jwt",
        "application/at+jwt",
        "",
        "at+jwt\0",
    ] {
        let mut header = token.header.clone();
        header["typ"] = kind.into();
        assert_refused(&agent, &key.sign(&header, &token.claims), kind);
        assert_refused(&agent, &crate::forged_claims::rebuilt(&token, &header, &token.claims), kind);
    }
}

fn missing_header_members_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    for member in ["alg", "typ", "kid"] {
        let mut header = token.header.clone();
        header.as_object_mut().expect("an object").remove(member);
        assert_refused(&agent, &crate::forged_claims::rebuilt(&token, &header, &token.claims), member);
    }
    assert_refused(&agent, &crate::forged_claims::rebuilt(&token, &json!({}), &token.claims), "empty header");
    assert_refused(&agent, &crate::forged_claims::rebuilt(&token, &json!([]), &token.claims), "array header");
}

fn key_of_another_organization_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let foreign = server.globex().agent(&[]).parsed_token();
    let mut header = token.header.clone();
    header["kid"] = foreign.header["kid"].clone();
    assert_refused(&agent, &crate::forged_claims::rebuilt(&token, &header, &token.claims), "their kid");
}
