//! Vectors: the contract's, and those of RFC 9421 appendix B.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::FutureExt;
use http::{HeaderValue, Method};
use serde_json::json;
use sfv::{RefBareItem, StringRef, key_ref};

use super::support::{NONCE, Request};
use crate::{
    httpsig::{Profile, base, fields, sign::sign_as},
    id::KeyId,
    jwks::{JwsAlgorithm, PublicKey},
    keys::LocalSigner,
};

#[test]
fn the_contracts_vector_is_what_we_sign_and_verifies_as_it_was_sent() {
    let ours = Request::new().signed(Profile::LUMO_SDK);
    assert_eq!(ours.get("content-digest"), "sha-256=:maoKTEBGVoe/uXlHmt4EeWj7K7xo71Ag/qIPObi3vPw=:");
    let list =
        r#"("@method" "@authority" "@path" "signature-key" "content-digest" "content-type" "authorization")"#;
    let input = format!("sig1={list};created=1750000000;nonce=\"{NONCE}\"");
    assert_eq!(ours.get("signature-input"), input);
    // The signature of the contract, in standard base64.
    let sent = "sr5ZGEA2-LkKN4RvFrpYxhaGPB-tf1STvf1W0bl_UAFt1Rjn_wKKCouOHsFamkDAf85UpwF_HOJXLs07-bynCw";
    let standard = sent.replace('-', "+").replace('_', "/");
    assert_eq!(ours.get("signature"), format!("sig1=:{standard}==:"));

    for value in [sent.to_owned(), format!("{sent}=="), standard.clone(), format!("{standard}==")] {
        let request = ours.clone().with("signature", &format!("sig1=:{value}:"));
        let verified = request.check().unwrap();
        assert_eq!(verified.signature().profile(), Profile::LUMO_SDK);
        assert_eq!(verified.signature().nonce(), NONCE);
    }
}

/// The request of RFC 9421 appendix B.2.
fn rfc_request() -> Request {
    let mut request = Request::new()
        .with("host", "example.com")
        .with("date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .with("content-type", "application/json")
        .with("content-digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:")
        .with("content-length", "18")
        .query("param=Value&Pet=dog");
    request.authority = "example.com".to_owned();
    request.path = "/foo".to_owned();
    request.body = br#"{"hello": "world"}"#.to_vec();
    request
}

const B26_INPUT: &str = r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
const B26_SIGNATURE: &str =
    "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";

fn b26_key() -> PublicKey {
    let x = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";
    PublicKey::from_jwk(&json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap()
}

/// The base of `request` for what `B26_INPUT` covers.
fn b26_base(request: &Request) -> String {
    let input = HeaderValue::from_static(B26_INPUT);
    let input = fields::signature_input(&input).unwrap();
    assert_eq!(input.label, "sig-b26");
    let values = input.parameters.iter().map(|(name, value)| (*name, RefBareItem::from(value)));
    let params = fields::signature_params(&input.components, values).unwrap();
    base::build(&request.message(), &Profile::LUMO_RFC, &input.components, &params).unwrap()
}

fn b26_verifies(request: &Request) -> bool {
    let (_, signature) = fields::signature(&HeaderValue::from_static(B26_SIGNATURE)).unwrap();
    b26_key().verify(JwsAlgorithm::EdDsa, b26_base(request).as_bytes(), &signature)
}

#[test]
fn rfc_9421_b_2_6_byte_for_byte() {
    let request = rfc_request();
    let expected = r#""date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
    assert_eq!(b26_base(&request), expected);
    assert!(b26_verifies(&request));
    let digest = request.headers["content-digest"].clone();
    request.message().content.check_digest_field(&digest).unwrap();

    let seed = "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU";
    let seed = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(seed).unwrap();
    let id = KeyId::parse("test-key-ed25519").unwrap();
    let signer = LocalSigner::from_ed25519_seed(id, &seed.try_into().unwrap()).unwrap();
    assert_eq!(signer.public_key().unwrap().thumbprint(), b26_key().thumbprint());
    let input = HeaderValue::from_static(B26_INPUT);
    let components = fields::signature_input(&input).unwrap().components;
    let key_id = RefBareItem::from(StringRef::from_str("test-key-ed25519").unwrap());
    let parameters =
        [(key_ref("created"), RefBareItem::try_from(1_618_884_473_i64).unwrap()), (key_ref("keyid"), key_id)];
    let message = request.message();
    let signing = sign_as(&signer, &Profile::LUMO_RFC, &message, "sig-b26", &components, parameters);
    let (input, signature) = signing.now_or_never().unwrap().unwrap();
    assert_eq!((input.to_str().unwrap(), signature.to_str().unwrap()), (B26_INPUT, B26_SIGNATURE));
}

#[test]
fn rfc_9421_b_2_4_verifies() {
    let base = r#""@status": 200
"content-type": application/json
"content-digest": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:
"content-length": 23
"@signature-params": ("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256""#;
    let jwk = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA",
        "y": "Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0",
    });
    let key = PublicKey::from_jwk(&jwk).unwrap();
    let algorithm = key.http_algorithm().unwrap();
    assert_eq!(algorithm.as_str(), "ecdsa-p256-sha256");
    let signature = STANDARD
        .decode("wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==")
        .unwrap();
    assert!(key.verify(algorithm.jws(), base.as_bytes(), &signature));
    assert!(!key.verify(algorithm.jws(), base.replace("200", "201").as_bytes(), &signature));
    // In DER it is another signature, and not one of RFC 9421.
    let (r, s) = signature.split_at(32);
    let der = [&[0x30, 0x46, 0x02, 0x21, 0x00], r, &[0x02, 0x21, 0x00], s].concat();
    assert!(!key.verify(algorithm.jws(), base.as_bytes(), &der));
}

/// As appendix B.4: what an intermediary may change, and what it may not.
#[test]
fn harmless_changes_keep_the_rfcs_signature_and_others_break_it() {
    let harmless: [fn(Request) -> Request; 5] = [
        |request| request.with("x-forwarded-for", "192.0.2.1"),
        |request| request.without("host"),
        |request| request.with("content-type", "  application/json \t"),
        |request| Request { authority: "EXAMPLE.com:443".to_owned(), ..request },
        |request| request.query("Pet=dog&param=Value"),
    ];
    for (number, change) in harmless.into_iter().enumerate() {
        assert!(b26_verifies(&change(rfc_request())), "harmless change {number}");
    }
    let harmful: [fn(Request) -> Request; 7] = [
        |request| Request { method: Method::GET, ..request },
        |request| Request { path: "/Foo".to_owned(), ..request },
        |request| Request { path: "/foo/".to_owned(), ..request },
        |request| Request { authority: "example.org".to_owned(), ..request },
        |request| Request { authority: "example.com:8443".to_owned(), ..request },
        |request| request.with("date", "Tue, 20 Apr 2021 02:07:56 GMT"),
        |request| request.with("content-type", "application/JSON"),
    ];
    for (number, change) in harmful.into_iter().enumerate() {
        assert!(!b26_verifies(&change(rfc_request())), "harmful change {number}");
    }
}

#[test]
fn keys_come_from_pem_texts_and_nothing_of_them_is_shown() {
    // What `openssl genpkey -algorithm ed25519` and the SDK write: version 1.
    let signer = super::support::signer();
    let pem = signer.to_pkcs8_pem().unwrap();
    let expected = "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    assert_eq!(pem.expose(), format!("-----BEGIN PRIVATE KEY-----\n{expected}\n-----END PRIVATE KEY-----\n"));
    let id = || KeyId::parse("k").unwrap();
    let ed25519 = crate::keys::Algorithm::EdDsa;
    let again = LocalSigner::from_pkcs8_pem(id(), ed25519, pem.expose()).unwrap();
    assert_eq!(again.public_key().unwrap().thumbprint(), signer.public_key().unwrap().thumbprint());
    assert!(!format!("{again:?}").contains("MC4C") && format!("{again:?}").contains("LocalSigner"));
    for bad in ["", "no pem", &pem.expose().replace("PRIVATE", "PUBLIC"), &pem.expose().replace("MC4", "MC5")]
    {
        let error = LocalSigner::from_pkcs8_pem(id(), ed25519, bad).unwrap_err().to_string();
        assert!(!error.contains("MC"), "{error}");
    }
    assert!(LocalSigner::from_pkcs8_pem(id(), crate::keys::Algorithm::Es256, pem.expose()).is_err());
}
