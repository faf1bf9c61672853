//! Tokens under each signing algorithm verify with the published keys and an independent library.

use lumoauth_tests::{Backend, Jwks, Options, Server, Token, text};
use serde_json::json;

#[test]
fn tokens_signed_with_rs256_verify_with_the_published_keys() {
    assert_verifies("RS256", "RSA");
}

#[test]
fn tokens_signed_with_eddsa_verify_with_the_published_keys() {
    assert_verifies("EdDSA", "OKP");
}

fn assert_verifies(algorithm: &str, kind: &str) {
    let server = Server::start(&Options::new(Backend::Memory).argument("--signing-alg").argument(algorithm));
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let mcp = org.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    let token = agent.token();
    let bound = agent.exchange(&token, &[("resource", resource)]).ok();
    let jwks = Jwks::fetch(&org);
    for (token, audience) in [(token.as_str(), &*agent.client_id), (text(&bound["access_token"]), resource)] {
        assert_eq!(Token::parse(token).header["alg"], algorithm);
        let claims = jwks.verify(token, &org.issuer(), audience);
        assert_eq!(claims["agent_id"], agent.agent_id);
    }
    assert_eq!(jwks.raw()["keys"][0]["kty"], kind);
    assert_eq!(agent.userinfo(&token).ok()["agent_id"], agent.agent_id);
    // One changed character in the signature is no signature.
    let (start, end) = token.split_at(token.len() - 10);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    agent.userinfo(&format!("{start}{other}{}", &end[1..])).refused(401, "invalid_token");
}
