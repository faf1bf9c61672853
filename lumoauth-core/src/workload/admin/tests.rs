use serde_json::{Value, json};

use super::*;
use crate::jwks::{JwsAlgorithm, test_key::TestKey};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

/// One good configuration of each provider, all its members set.
fn good() -> Vec<Value> {
    vec![
        json!({"provider": "kubernetes", "issuer": "https://oidc.cluster.example", "namespace": "ops",
               "serviceAccount": "invoice.bot-1", "audience": "https://auth.example"}),
        json!({"provider": "aws", "roleArn": "arn:aws:iam::123456789012:role/bot", "region": "eu-west-1"}),
        json!({"provider": "aws", "roleArn": "arn:aws:iam::123456789012:role/bot",
               "issuer": "https://1234.tokens.sts.global.api.aws", "audience": "https://auth.example"}),
        json!({"provider": "gcp", "serviceAccountEmail": "bot@proj.iam.gserviceaccount.com", "projectId": "proj"}),
        json!({"provider": "azure", "tenantId": TENANT, "clientId": APP, "audience": "api://lumoauth"}),
        json!({"provider": "azure", "tenantId": TENANT, "subject": "x", "audience": "api://lumoauth"}),
        json!({"provider": "oidc", "issuer": "https://idp.example/", "subject": "bot", "audience": "a",
               "jwksUri": "https://idp.example/keys?v=1", "claims": {"env": "prod", "n": 1, "ok": true}}),
        json!({"provider": "spiffe", "subject": "spiffe://example.org/ns/ops/Bot_1", "jwks": TestKey::new(JwsAlgorithm::EdDsa, "k").jwks()}),
        json!({"provider": "spiffe", "subject": "spiffe://example.org/bot", "issuer": "https://spire.example"}),
    ]
}

fn with(mut config: Value, member: &str, value: impl Into<Value>) -> Value {
    config[member] = value.into();
    config
}

#[track_caller]
fn refused(config: &Value, member: &str) {
    let error = WorkloadTrust::parse(config).unwrap_err();
    assert_eq!(error.member, member, "{error} in {config}");
}

#[test]
fn what_was_set_is_shown_and_reads_back() {
    for config in good() {
        let trust = WorkloadTrust::parse(&config).unwrap();
        let shown = trust.view();
        for (member, value) in config.as_object().unwrap() {
            assert_eq!(&shown[member], value, "{member}");
        }
        assert_eq!(WorkloadTrust::parse(&shown).unwrap(), trust);
        let stored: WorkloadTrust = serde_json::from_str(&serde_json::to_string(&trust).unwrap()).unwrap();
        assert_eq!(stored, trust);
    }
}

#[test]
fn both_styles_of_names_are_read_and_null_is_absent() {
    let snake = json!({"provider": "kubernetes", "issuer": "https://c.example", "namespace": "ops",
                       "service_account": "bot", "jwks_uri": null, "audience": null, "tenantId": null});
    assert!(WorkloadTrust::parse(&snake).is_ok());
    refused(&with(snake, "serviceAccount", "bot"), "serviceAccount");
}

#[test]
fn every_member_of_a_provider_is_needed_and_no_other_is_taken() {
    let needed = [
        (0, &["provider", "issuer", "namespace", "serviceAccount"][..]),
        (1, &["provider", "roleArn"]),
        (3, &["serviceAccountEmail", "projectId"]),
        (4, &["tenantId", "clientId", "audience"]),
        (6, &["issuer", "subject"]),
        (7, &["subject"]),
    ];
    for (at, members) in needed {
        for member in members {
            let mut config = good().remove(at);
            config.as_object_mut().unwrap().remove(*member);
            refused(&config, member);
        }
    }
    refused(&with(good().remove(3), "namespace", "ops"), "namespace");
    refused(&with(good().remove(0), "clientId", APP), "clientId");
    refused(&with(good().remove(6), "roleArn", "arn:aws:iam::123456789012:role/bot"), "roleArn");
    refused(&with(good().remove(0), "podName", "x"), "provider");
    refused(&json!("kubernetes"), "provider");
    refused(&json!({"provider": "heroku"}), "provider");
    refused(&json!({"provider": 1}), "provider");
}

#[test]
fn nothing_that_could_match_more_than_one_workload_is_accepted() {
    for (at, member) in [
        (0, "namespace"),
        (0, "serviceAccount"),
        (0, "audience"),
        (1, "roleArn"),
        (1, "region"),
        (3, "serviceAccountEmail"),
        (3, "projectId"),
        (4, "tenantId"),
        (4, "clientId"),
        (5, "subject"),
        (6, "issuer"),
        (6, "subject"),
        (7, "subject"),
    ] {
        for bad in [json!("*"), json!("a*"), json!(""), json!(" "), json!("a b"), json!(7), json!(["a"])] {
            refused(&with(good().remove(at), member, bad), member);
        }
        for bad in ["?", "%", "**", ":", ".+", "/"] {
            refused(&with(good().remove(at), member, bad), member);
        }
    }
    for prefix in ["bot:", "repo:", "system:serviceaccount:ops:", "a:b:"] {
        refused(&with(good().remove(6), "subject", prefix), "subject");
    }
    for (member, bad) in
        [("namespace", "ops:x"), ("serviceAccount", "x:bot"), ("namespace", "Ops"), ("namespace", "a.b")]
    {
        refused(&with(good().remove(0), member, bad), member);
    }
    for bad in [
        json!({"env": "p*"}),
        json!({"env": ""}),
        json!({"env": []}),
        json!({"env": null}),
        json!({"n": 1.5}),
        json!({"iss": "x"}),
        json!({"aud": "x"}),
        json!([]),
    ] {
        refused(&with(good().remove(6), "claims", bad), "claims");
    }
}

#[test]
fn roles_name_their_account_and_tenants_are_one_organizations() {
    for bad in [
        "bot",
        "arn:aws:iam:::role/bot",
        "arn:aws:iam::123456789012:user/bot",
        "arn:aws:iam::123456789012:root",
    ] {
        refused(&with(good().remove(1), "roleArn", bad), "roleArn");
    }
    refused(&with(good().remove(1), "region", "cn-north-1"), "region");
    refused(&with(good().remove(1), "region", "eu-west-1.evil"), "region");
    refused(&with(good().remove(2), "region", "eu-west-1"), "region");
    refused(&with(good().remove(1), "audience", "a"), "issuer");
    for bad in [
        "common",
        "organizations",
        "consumers",
        "9188040d-6c67-4b5b-b112-36a304b66dad",
        "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE",
    ] {
        refused(&with(good().remove(4), "tenantId", bad), "tenantId");
    }
    for bad in [
        "bot@example.com",
        "bot@gserviceaccount.com.evil",
        "Bot@proj.iam.gserviceaccount.com",
        "@x.gserviceaccount.com",
        "a@b@x.gserviceaccount.com",
    ] {
        refused(&with(good().remove(3), "serviceAccountEmail", bad), "serviceAccountEmail");
    }
}

#[test]
fn an_issuer_is_an_https_url_as_its_tokens_write_it() {
    for good_issuer in [
        "https://idp.example",
        "https://idp.example/",
        "https://idp.example/a/b",
        "https://idp.example:8443/x",
        "http://127.0.0.1:8080",
        "http://localhost/x",
        "http://[::1]:1",
        "http://192.168.0.7",
    ] {
        assert!(
            WorkloadTrust::parse(&with(good().remove(6), "issuer", good_issuer)).is_ok(),
            "{good_issuer}"
        );
    }
    for bad in [
        "idp.example",
        "http://idp.example",
        "http://8.8.8.8",
        "http://localhost.evil",
        "ftp://idp.example",
        "https://IDP.example",
        "HTTPS://idp.example",
        "https://idp.example:443",
        "https://idp.example/#f",
        "https://idp.example#",
        "https://idp.example/?q",
        "https://u@idp.example",
        "https://u:p@idp.example",
        "https://idp.example/../x",
        "https://idp.example\\x",
        "https://b\u{fc}cher.example",
        "https://",
        "file:///etc/passwd",
        "data:,x",
    ] {
        refused(&with(good().remove(6), "issuer", bad), "issuer");
    }
    for bad in ["http://idp.example/keys", "file:///x", "https://u@idp.example/keys"] {
        refused(&with(good().remove(6), "jwksUri", bad), "jwksUri");
    }
    refused(&with(good().remove(3), "issuer", "https://idp.example"), "issuer");
    refused(&with(good().remove(4), "issuer", "https://idp.example"), "issuer");
}

#[test]
fn an_issuer_that_serves_everybody_needs_a_pin() {
    for everybody in [
        "https://login.microsoftonline.com/common/v2.0",
        "https://login.microsoftonline.com/organizations/v2.0",
        "https://login.microsoftonline.com/consumers/v2.0",
        "https://login.microsoftonline.com/9188040d-6c67-4b5b-b112-36a304b66dad/v2.0",
        "https://sts.windows.net/common/",
        "https://sts.windows.net/",
    ] {
        refused(&with(good().remove(6), "issuer", everybody), "issuer");
    }
    let github = with(
        with(good().remove(6), "issuer", "https://token.actions.githubusercontent.com"),
        "subject",
        "environment:prod",
    );
    refused(&github, "subject");
    assert!(WorkloadTrust::parse(&with(github.clone(), "subject", "repo:acme/bot:environment:prod")).is_ok());
    assert!(WorkloadTrust::parse(&with(github, "claims", json!({"repository_id": "7"}))).is_ok());
}

#[test]
fn the_subject_of_an_issuer_that_serves_everybody_names_its_owner() {
    let at = |issuer: &str, subject: &str| with(with(good().remove(6), "issuer", issuer), "subject", subject);
    let issuers = [
        ("https://token.actions.githubusercontent.com", "repo:", "owner/name"),
        ("https://gitlab.com", "project_path:", "group/sub/project"),
        ("https://app.terraform.io", "organization:", "acme"),
        ("https://agent.buildkite.com", "organization:", "acme"),
    ];
    for (issuer, prefix, name) in issuers {
        for rest in ["", ":ref:main", ":environment:prod"] {
            assert!(WorkloadTrust::parse(&at(issuer, &format!("{prefix}{name}{rest}"))).is_ok());
        }
        for bad in ["", ":", "/", "/name", ":owner/name", "owner//name", "owner/", "*", "owner/*"] {
            refused(&at(issuer, &format!("{prefix}{bad}")), "subject");
        }
        refused(&at(issuer, name), "subject");
        refused(&at(&format!("{issuer}/"), prefix), "subject");
    }
    refused(&at(issuers[0].0, "repo:owner"), "subject");
    refused(&at(issuers[0].0, "repo:owner:ref:refs/heads/main"), "subject");
    refused(&at(issuers[1].0, "project_path:group"), "subject");
}

#[test]
fn a_flag_is_no_pin_and_no_address_needs_to_be_unverified() {
    let github = with(good().remove(6), "issuer", "https://token.actions.githubusercontent.com");
    for pin in ["repository", "repository_id", "repository_owner", "repository_owner_id"] {
        for flag in [true, false] {
            for subject in ["environment:prod", "repo:acme/bot"] {
                let config = with(github.clone(), "subject", subject);
                refused(&with(config, "claims", json!({ pin: flag })), "claims");
            }
        }
    }
    for bad in [json!(false), json!("true"), json!(1)] {
        refused(&with(good().remove(6), "claims", json!({ "email_verified": bad })), "claims");
    }
    assert!(WorkloadTrust::parse(&with(good().remove(6), "claims", json!({"email_verified": true}))).is_ok());
}

#[test]
fn nobody_trusts_this_server_as_a_platform() {
    const OURS: &str = "https://auth.example/a/orgs/acme/api/v1";
    let check = |config: Value| WorkloadTrust::parse(&config).unwrap().check_is_foreign(OURS);
    for (at, member) in [(0, "issuer"), (2, "issuer"), (6, "issuer"), (8, "issuer"), (6, "jwksUri")] {
        for bad in [
            OURS.to_owned(),
            format!("{OURS}/"),
            "https://auth.example/a/orgs/globex/api/v1".to_owned(),
            "https://auth.example/a/t/acme/api/v1".to_owned(),
            "https://auth.example/a/orgs/".to_owned(),
        ] {
            assert_eq!(check(with(good().remove(at), member, bad)).unwrap_err().member, member);
        }
        for other in ["https://auth.example/b/orgs/acme/api/v1", "https://auth.example/k8s"] {
            assert_eq!(check(with(good().remove(at), member, other)), Ok(()));
        }
    }
    assert!(good().into_iter().all(|config| check(config).is_ok()));
}

#[test]
fn keys_are_given_once_and_are_public() {
    refused(&with(good().remove(6), "jwks", json!({"keys": [{}]})), "jwks");
    refused(&with(good().remove(7), "jwks", json!({"keys": []})), "jwks");
    refused(&with(good().remove(7), "jwks", json!({})), "jwks");
    let key = TestKey::new(JwsAlgorithm::Es256, "k").jwk();
    for bad in [
        json!({"keys": [{}]}),
        json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}),
        json!({"keys": [with(key.clone(), "d", "x")]}),
        json!({"keys": [key, key]}),
    ] {
        refused(&with(good().remove(7), "jwks", bad), "jwks");
    }
    let mut without = good().remove(7);
    without.as_object_mut().unwrap().remove("jwks");
    refused(&without, "issuer");
}

#[test]
fn a_spiffe_id_is_written_in_one_way() {
    for bad in [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/./a",
        "spiffe://example.org/../a",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "spiffe:///a",
        "spiffe://example.org:1/a",
        "spiffe://u@example.org/a",
        "spiffe://example.org/a%20",
        "spiffe://example.org/a?q",
        "spiffe://example.org/a#f",
        "https://example.org/a",
    ] {
        refused(&with(good().remove(7), "subject", bad), "subject");
    }
}
