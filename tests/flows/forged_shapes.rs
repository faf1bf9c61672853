//! Tokens of the wrong shape (security JW): parts, encodings, JSON that two parsers read differently.

use lumoauth_tests::{AttackerKey, Server, Token, b64, on_each_backend};
use serde_json::json;

use crate::forged_claims::assert_refused;

on_each_backend!(
    wrong_numbers_of_parts_are_refused,
    encrypted_tokens_are_refused,
    json_serializations_are_refused,
    truncated_tokens_are_refused,
    other_base64_is_refused,
    stray_characters_are_refused,
    duplicate_members_are_refused,
    broken_and_deep_json_is_refused,
    odd_numbers_are_refused,
    enormous_tokens_are_refused,
);

fn wrong_numbers_of_parts_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, c, s] = token.parts();
    for text in [
        h.to_owned(),
        format!("{h}.{c}"),
        format!("{h}.{c}."),
        format!(".{c}.{s}"),
        format!("{h}..{s}"),
        "..".to_owned(),
        ".".to_owned(),
        format!("{h}.{c}.{s}."),
        format!(".{h}.{c}.{s}"),
        format!("{h}.{c}.{s}.{s}"),
        format!("{h}.{c}.{s}.{s}.{s}"),
        format!("{h}.{c}.{s}.{}", "a.".repeat(500)),
    ] {
        assert_refused(&agent, &text, &text);
    }
}

fn encrypted_tokens_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let part = |text: &str| b64(text);
    for header in [
        json!({ "alg": "dir", "enc": "A256GCM", "typ": "at+jwt" }),
        json!({ "alg": "RSA-OAEP", "enc": "A256GCM" }),
        json!({ "alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2_147_483_647, "p2s": "AAAA" }),
        json!({ "alg": "ECDH-ES", "enc": "A256GCM", "epk": { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" } }),
        json!({ "alg": "dir", "enc": "A256GCM", "zip": "DEF" }),
    ] {
        let text =
            format!("{}.{}.{}.{}.{}", b64(header.to_string()), "", part("iv"), part("text"), part("tag"));
        assert_refused(&agent, &text, &header.to_string());
    }
}

fn json_serializations_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, c, s] = token.parts();
    let flat = json!({ "protected": h, "payload": c, "signature": s }).to_string();
    let general = json!({ "payload": c, "signatures": [{ "protected": h, "signature": s }] }).to_string();
    assert_refused(&agent, &flat, "flattened");
    assert_refused(&agent, &general, "general");
}

fn truncated_tokens_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    for length in (1..token.len()).step_by(token.len() / 40 + 1).chain([token.len() - 1, token.len() - 2]) {
        assert_refused(&agent, &token[..length], &format!("{length} characters"));
        assert_refused(&agent, &token[length..], &format!("all but {length} characters"));
    }
}

fn other_base64_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, c, s] = token.parts();
    let pad = |part: &str| format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4));
    let plus = |part: &str| part.replace('-', "+").replace('_', "/");
    let mut variants = vec![
        (format!("{h}.{c}.{s}="), "one pad character"),
        (format!("{h}.{c}.{s}=="), "two pad characters"),
        (format!("{}.{c}.{s}=", pad(h)), "padding everywhere"),
        (format!("{h}=.{c}=.{s}="), "more padding"),
    ];
    // A signature of 64 bytes ends in a character whose last bits mean nothing: 16 spellings, one canonical.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = s.chars().last().expect("not empty");
    let place = alphabet.find(last).expect("base64url");
    let sloppy = alphabet.chars().nth(place ^ 1).expect("in range");
    variants.push((format!("{h}.{c}.{}{sloppy}", &s[..s.len() - 1]), "unused bits set"));
    for (standard, why) in
        [(format!("{h}.{c}.{}", plus(s)), "alphabet"), (format!("{h}.{}.{s}", plus(c)), "alphabet")]
    {
        if standard != token.text {
            variants.push((standard, why));
        }
    }
    for (text, why) in variants {
        assert_refused(&agent, &text, why);
    }
}

fn stray_characters_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, c, s] = token.parts();
    for text in [
        format!("{h}. {c}.{s}"),
        format!("{h}.{c}\t.{s}"),
        format!("{h}.{c}.{s}%00"),
        format!("{h}.{c}.{s}!"),
        format!("{h}.{c}.{s},{h}.{c}.{s}"),
        format!("\"{h}.{c}.{s}\""),
        format!("{h}.{c}.{s};x=y"),
        format!("Bearer {h}.{c}.{s}"),
    ] {
        assert_refused(&agent, &text, &text);
    }
    let form = [
        ("token", format!("{h}.{c}.{s}\n")),
        ("client_id", agent.client_id.clone()),
        ("client_secret", agent.secret.clone()),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(agent.org.post("/oauth/introspect").form(&form).send().ok(), json!({ "active": false }));
}

fn duplicate_members_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [_, c, s] = token.parts();
    let kid = &token.header["kid"];
    for header in [
        format!(r#"{{"alg":"ES256","alg":"none","typ":"at+jwt","kid":{kid}}}"#),
        format!(r#"{{"alg":"none","alg":"ES256","typ":"at+jwt","kid":{kid}}}"#),
        format!(r#"{{"alg":"ES256","typ":"JWT","typ":"at+jwt","kid":{kid}}}"#),
        format!(r#"{{"alg":"ES256","\u0061lg":"none","typ":"at+jwt","kid":{kid}}}"#),
    ] {
        assert_refused(&agent, &format!("{}.{c}.{s}", b64(&header)), &header);
    }
    let key = AttackerKey::generate();
    let good = key.sign(&token.header, &token.claims);
    let [h, _, s] = Token::parse(&good).parts().map(str::to_owned);
    let claims = token.claims.to_string();
    let doubled = format!(r#"{{"sub":"agent:boss",{}"#, &claims[1..]);
    assert_refused(&agent, &format!("{h}.{}.{s}", b64(&doubled)), "doubled sub");
}

fn broken_and_deep_json_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, c, s] = token.parts();
    let deep_array = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    let deep_object = format!("{}1{}", "{\"act\":".repeat(1200), "}".repeat(1200));
    for json in [
        "",
        "{",
        "nul",
        "\"x\"",
        "{\"alg\":}",
        "{}{}",
        "\u{feff}{}",
        "{\"a\":\"\\ud800\"}",
        &deep_array,
        &deep_object,
    ] {
        assert_refused(&agent, &format!("{}.{c}.{s}", b64(json)), "header");
        assert_refused(&agent, &format!("{h}.{}.{s}", b64(json)), "claims");
    }
    assert_refused(&agent, &format!("{}.{c}.{s}", b64([0xff, 0xfe, 0x7b])), "no UTF-8");
    assert_refused(&agent, &format!("{h}.{}.{s}", b64([0xc0, 0x80])), "overlong UTF-8");
}

fn odd_numbers_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let [h, _, s] = token.parts();
    let claims = token.claims.to_string();
    let exp = format!("\"exp\":{}", token.claims["exp"]);
    for odd in ["1e308", "-1", "1e400", "9223372036854775808", "1.5", "\"1790000000\"", "null", "[]", "NaN"] {
        let text = claims.replace(&exp, &format!("\"exp\":{odd}"));
        assert_ne!(text, claims);
        assert_refused(&agent, &format!("{h}.{}.{s}", b64(&text)), odd);
    }
}

fn enormous_tokens_are_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    for size in [17_000, 40_000, 60_000] {
        assert_refused_anyhow(&agent, &"a".repeat(size));
        assert_refused_anyhow(&agent, &".".repeat(size));
        assert_refused_anyhow(
            &agent,
            &format!("{}.{}.{}", "e".repeat(size / 3), "y".repeat(size / 3), "J".repeat(size / 3)),
        );
    }
}

fn assert_refused_anyhow(agent: &lumoauth_tests::Agent<'_>, token: &str) {
    let response = agent.userinfo(token);
    assert!((400..500).contains(&response.status), "{response}");
    let form = [("token", token), ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
    let response = agent.org.post("/oauth/introspect").form(&form).send();
    assert!(
        matches!(response.status, 400 | 413) || response.ok() == json!({ "active": false }),
        "{response}"
    );
}
