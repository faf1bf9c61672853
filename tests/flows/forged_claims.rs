//! Tokens whose contents were changed (security JW): the signature no longer fits.

use lumoauth_tests::{Agent, AttackerKey, Server, Token, b64, on_each_backend, unb64, unix_now};
use serde_json::{Value, json};

on_each_backend!(
    changed_claims_are_refused,
    changed_headers_are_refused,
    every_part_of_another_token_is_refused,
    token_of_another_organization_with_the_same_claims_is_refused,
    attackers_token_with_perfect_claims_is_refused,
    mutated_signatures_are_refused,
    mutated_bytes_anywhere_are_refused,
    zero_and_extreme_signatures_are_refused,
    other_signature_encodings_are_refused,
);

/// The token opens neither userinfo nor `agents/me` nor an exchange, and introspection calls it inactive.
#[track_caller]
pub(crate) fn assert_refused(agent: &Agent<'_>, token: &str, why: &str) {
    let response = agent.userinfo(token);
    assert!(matches!(response.status, 400 | 401), "{why}: {response}");
    response.refused_somehow();
    let form = [("token", token), ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
    let response = agent.org.post("/oauth/introspect").form(&form).send();
    assert!(response.status == 400 || response.ok() == json!({ "active": false }), "{why}: {response}");
}

/// Rebuilds a token from changed JSON with the old signature.
pub(crate) fn rebuilt(token: &Token, header: &Value, claims: &Value) -> String {
    format!("{}.{}.{}", b64(header.to_string()), b64(claims.to_string()), token.parts()[2])
}

fn changed_claims_are_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let other = server.acme().agent(&["read:a", "write:b"]);
    let token = agent.parsed_token();
    let changes = [
        ("sub", json!(format!("agent:{}", other.slug))),
        ("agent_id", json!(other.agent_id)),
        ("client_id", json!(other.client_id)),
        ("scope", json!("read:a write:b *")),
        ("exp", json!(unix_now() + 10_000_000)),
        ("exp", json!(9e99)),
        ("iss", json!(server.globex().issuer())),
        ("aud", json!([agent.client_id, "https://other.test"])),
        ("organization", json!("globex")),
        ("tenant", json!("globex")),
        ("jti", json!("chosen")),
        ("act", json!({ "sub": "agent:boss" })),
        ("lin", json!(null)),
        ("iat", json!(0)),
    ];
    for (claim, value) in changes {
        let mut claims = token.claims.clone();
        claims[claim] = value;
        assert_refused(&agent, &rebuilt(&token, &token.header, &claims), claim);
    }
    assert_refused(&agent, &rebuilt(&token, &token.header, &json!({})), "no claims");
    assert_refused(&agent, &rebuilt(&token, &token.header, &json!([])), "an array");
    // Even the same claims in another order have another signature.
    let reordered = token.claims.to_string();
    if b64(&reordered) != token.parts()[1] {
        assert_refused(&agent, &rebuilt(&token, &token.header, &token.claims), "another order");
    }
    agent.userinfo(&token.text).ok();
}

fn changed_headers_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let changes = [
        ("typ", json!("JWT")),
        ("typ", json!("AT+JWT ")),
        ("typ", json!(null)),
        ("kid", json!("other")),
        ("alg", json!("ES384")),
        ("alg", json!("RS256")),
        ("alg", json!("es256")),
        ("cty", json!("JWT")),
    ];
    for (member, value) in changes {
        let mut header = token.header.clone();
        header[member] = value;
        assert_refused(&agent, &rebuilt(&token, &header, &token.claims), member);
    }
}

fn every_part_of_another_token_is_refused(server: &Server) {
    let (one, two) = (server.acme().agent(&["read:a"]), server.acme().agent(&["write:b"]));
    let (a, b) = (one.parsed_token(), two.parsed_token());
    let ([h, c, s], [_, c2, s2]) = (a.parts(), b.parts());
    for (mixed, why) in [(format!("{h}.{c2}.{s}"), "claims"), (format!("{h}.{c}.{s2}"), "signature")] {
        assert_refused(&one, &mixed, why);
        assert_refused(&two, &mixed, why);
    }
}

fn token_of_another_organization_with_the_same_claims_is_refused(server: &Server) {
    let slug = lumoauth_tests::unique("twin");
    let make = json!({ "slug": slug, "clientId": slug, "capabilities": ["read:a"] });
    let ours = server.acme().create_agent(make.clone());
    let theirs = server.globex().create_agent(make);
    let foreign = theirs.parsed_token();
    // A real credential of another organization: it is told so, and gets nothing.
    ours.userinfo(&foreign.text).refused(403, "forbidden");
    // Signed by a real key of this server, with a kid of the other organization.
    let ours_token = ours.parsed_token();
    let mixed = format!("{}.{}.{}", foreign.parts()[0], ours_token.parts()[1], foreign.parts()[2]);
    assert_refused(&ours, &mixed, "their header and signature, our claims");
}

fn attackers_token_with_perfect_claims_is_refused(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    assert_refused(&agent, &AttackerKey::generate().sign(&token.header, &token.claims), "own key, our kid");
}

fn mutated_signatures_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [header, claims, signature] = token.parts();
    let signature = unb64(signature);
    for index in 0..signature.len() {
        let mut mutated = signature.clone();
        mutated[index] ^= 1 << (index % 8);
        assert_refused(&agent, &format!("{header}.{claims}.{}", b64(&mutated)), &format!("byte {index}"));
    }
    for length in [0, 1, 32, 63, 65, 128] {
        let mut resized = signature.clone();
        resized.resize(length, 0);
        assert_refused(&agent, &format!("{header}.{claims}.{}", b64(&resized)), &format!("{length} bytes"));
    }
}

fn mutated_bytes_anywhere_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let length = token.len();
    // The last character of a part may carry unused bits; a strict decoder refuses those as well.
    for index in (0..length).step_by(7).chain([length - 1]) {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = match bytes[index] {
            b'.' => b'-',
            b'A' => b'B',
            _ => b'A',
        };
        let mutated = String::from_utf8(bytes).expect("ascii");
        assert_refused(&agent, &mutated, &format!("character {index}"));
    }
}

fn zero_and_extreme_signatures_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [header, claims, _] = token.parts();
    // r and s of zero, of one, of the group order and of all bits: CVE-2022-21449 and its cousins.
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut one = [0; 32];
    one[31] = 1;
    for (r, s) in [
        ([0; 32], [0; 32]),
        (one, [0; 32]),
        ([0; 32], one),
        (order, order),
        ([0xff; 32], [0xff; 32]),
        (one, one),
    ] {
        assert_refused(&agent, &format!("{header}.{claims}.{}", b64([r, s].concat())), "extreme r and s");
    }
}

fn other_signature_encodings_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [header, claims, signature] = token.parts();
    let raw = unb64(signature);
    // The DER form of the very same r and s.
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(31);
        let mut body = bytes[start..].to_vec();
        if body[0] & 0x80 != 0 {
            body.insert(0, 0);
        }
        [&[2, u8::try_from(body.len()).expect("short")], &body[..]].concat()
    };
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).expect("short")], &body[..]].concat();
    assert_refused(&agent, &format!("{header}.{claims}.{}", b64(der)), "DER");
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_refused(&agent, &format!("{header}.{claims}.{hex}"), "hex");
}
