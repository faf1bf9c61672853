use serde_json::json;

use super::*;
use crate::workload::WorkloadKey;

const US: &str = "https://auth.example/orgs/acme/api/v1";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

/// A trust, the issuer of its tokens and the claims of one of them.
struct Case {
    trust: WorkloadTrust,
    issuer: String,
    claims: Value,
}

fn case(trust: Value, issuer: &str, mut claims: Value) -> Case {
    if claims["aud"].is_null() {
        claims["aud"] = json!(US);
    }
    Case { trust: WorkloadTrust::parse(&trust).unwrap(), issuer: issuer.to_owned(), claims }
}

fn kubernetes() -> Case {
    let trust = json!({"provider": "kubernetes", "issuer": "https://c.example", "namespace": "ops", "serviceAccount": "bot"});
    let claims = json!({"sub": "system:serviceaccount:ops:bot",
                        "kubernetes.io": {"namespace": "ops", "serviceaccount": {"name": "bot", "uid": "u"}}});
    case(trust, "https://c.example", claims)
}

fn gcp() -> Case {
    let trust =
        json!({"provider": "gcp", "serviceAccountEmail": "bot@p.iam.gserviceaccount.com", "projectId": "p"});
    let claims = json!({"sub": "1", "email": "bot@p.iam.gserviceaccount.com", "email_verified": true,
                        "google": {"compute_engine": {"project_id": "p"}}});
    case(trust, GOOGLE, claims)
}

fn azure() -> Case {
    let trust = json!({"provider": "azure", "tenantId": TENANT, "clientId": APP, "audience": "api://lumo"});
    let claims = json!({"sub": "s", "oid": "s", "tid": TENANT, "azp": APP, "aud": "api://lumo"});
    case(trust, &azure_issuers(TENANT)[0], claims)
}

fn aws() -> Case {
    let trust = json!({"provider": "aws", "roleArn": "arn:aws:iam::123456789012:role/bot", "issuer": "https://x.tokens.sts.global.api.aws"});
    case(
        trust,
        "https://x.tokens.sts.global.api.aws",
        json!({"sub": "arn:aws:sts::123456789012:assumed-role/bot/s"}),
    )
}

fn oidc() -> Case {
    let trust = json!({"provider": "oidc", "issuer": "https://idp.example/", "subject": "bot", "claims": {"env": "prod"}});
    case(trust, "https://idp.example/", json!({"sub": "bot", "env": "prod"}))
}

fn spiffe() -> Case {
    let trust = json!({"provider": "spiffe", "subject": "spiffe://example.org/bot", "jwksUri": "https://spire.example/keys"});
    case(trust, "", json!({"sub": "spiffe://example.org/bot"}))
}

impl Case {
    fn check(&self) -> Result<(), Mismatch> {
        let issuer = Some(self.issuer.as_str()).filter(|issuer| !issuer.is_empty());
        self.trust.check(issuer, self.claims.as_object().unwrap(), US)
    }

    #[track_caller]
    fn refused(mut self, pointer: &str, value: Value) {
        match self.claims.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => self.claims[&pointer[1..]] = value.clone(),
        }
        assert!(self.check().is_err(), "{pointer} = {value}");
    }

    #[track_caller]
    fn refused_without(mut self, claim: &str) {
        self.claims.as_object_mut().unwrap().remove(claim).unwrap();
        assert!(self.check().is_err(), "without {claim}");
    }
}

fn all() -> Vec<Case> {
    vec![kubernetes(), gcp(), azure(), aws(), oidc(), spiffe()]
}

#[test]
fn the_workload_is_recognised_and_found_by_its_token() {
    for case in all() {
        case.check().unwrap();
        let issuer = Some(case.issuer.as_str()).filter(|issuer| !issuer.is_empty());
        let keys = WorkloadKey::candidates(issuer, case.claims.as_object().unwrap());
        assert!(keys.contains(&case.trust.key()), "{}", case.trust);
        assert!(keys.len() <= 6);
    }
}

#[test]
fn tokens_of_one_platform_are_not_those_of_another() {
    for (at, case) in all().iter().enumerate() {
        for (other_at, other) in all().iter().enumerate().filter(|(other_at, _)| *other_at != at) {
            let claims = other.claims.as_object().unwrap();
            assert!(case.trust.check(Some(&other.issuer), claims, US).is_err(), "{at} {other_at}");
        }
    }
}

#[test]
fn issuers_that_only_look_alike_are_others() {
    for issuer in [
        "https://c.example/",
        "https://C.example",
        "https://c.example:443",
        "https://c.example.evil",
        "https://xc.example",
        "http://c.example",
        "",
        "https://c.exampl\u{435}",
    ] {
        assert!(Case { issuer: issuer.to_owned(), ..kubernetes() }.check().is_err(), "{issuer}");
    }
    assert!(Case { issuer: "https://idp.example".to_owned(), ..oidc() }.check().is_err());
    assert!(Case { issuer: "accounts.google.com".to_owned(), ..gcp() }.check().is_err());
    assert!(Case { issuer: azure_issuers(TENANT)[1].clone(), ..azure() }.check().is_ok());
    for issuer in [
        azure_issuers(APP)[0].clone(),
        azure_issuers("common")[0].clone(),
        format!("https://sts.windows.net/{TENANT}"),
    ] {
        assert!(Case { issuer, ..azure() }.check().is_err());
    }
    // With an issuer configured, a JWT-SVID must have it.
    let trust = json!({"provider": "spiffe", "subject": "spiffe://example.org/bot", "issuer": "https://spire.example"});
    let strict = Case { trust: WorkloadTrust::parse(&trust).unwrap(), ..spiffe() };
    assert!(strict.check().is_err());
    assert!(Case { issuer: "https://spire.example".to_owned(), ..strict }.check().is_ok());
}

#[test]
fn the_audience_is_ours_exactly() {
    for make in [kubernetes, gcp, aws, oidc, spiffe] {
        let accepted = |aud: Value| {
            let mut case = make();
            case.claims["aud"] = aud;
            case.check().is_ok()
        };
        assert!(accepted(json!(US)) && accepted(json!([US])) && accepted(json!(["other", US])));
        for bad in [
            json!(null),
            json!(""),
            json!([]),
            json!(format!("{US}/")),
            json!(&US[..US.len() - 1]),
            json!("https://auth.example"),
            json!(["x"]),
            json!([US, 7]),
            json!({"a": US}),
            json!("https://kubernetes.default.svc"),
        ] {
            assert!(!accepted(bad.clone()), "{bad}");
        }
        make().refused_without("aud");
    }
    // One that is configured takes the place of ours.
    azure().refused("/aud", json!(US));
}

#[test]
fn a_service_account_is_named_in_full() {
    for bad in [
        "system:serviceaccount:ops:bot2",
        "system:serviceaccount:ops:",
        "system:serviceaccount:op:s:bot",
        "system:serviceaccount:ops:*",
        "System:serviceaccount:ops:bot",
        "system:serviceaccount:ops:Bot",
        "ops:bot",
        "system:serviceaccount:other:bot",
    ] {
        kubernetes().refused("/sub", json!(bad));
    }
    kubernetes().refused("/sub", json!(["system:serviceaccount:ops:bot"]));
    kubernetes().refused_without("sub");
    kubernetes().refused("/kubernetes.io/namespace", json!("other"));
    kubernetes().refused("/kubernetes.io/serviceaccount/name", json!("other"));
    kubernetes().refused("/kubernetes.io", json!({}));
    kubernetes().refused("/kubernetes.io", json!("x"));
    let mut without = kubernetes();
    without.claims.as_object_mut().unwrap().remove("kubernetes.io");
    assert!(without.check().is_ok());
}

#[test]
fn an_address_is_verified_and_its_project_agrees() {
    gcp().refused("/email", json!("bot@q.iam.gserviceaccount.com"));
    gcp().refused("/email_verified", json!(false));
    gcp().refused("/email_verified", json!("true"));
    gcp().refused_without("email_verified");
    gcp().refused_without("email");
    gcp().refused("/google/compute_engine/project_id", json!("q"));
    let mut serverless = gcp();
    serverless.claims.as_object_mut().unwrap().remove("google");
    assert!(serverless.check().is_ok());
}

#[test]
fn an_application_is_itself_and_no_person() {
    azure().refused("/tid", json!(APP));
    azure().refused_without("tid");
    azure().refused("/azp", json!(TENANT));
    azure().refused("/appid", json!(TENANT));
    azure().refused_without("azp");
    azure().refused("/scp", json!("user_impersonation"));
    azure().refused("/idtyp", json!("user"));
    let mut version_1 = azure();
    version_1.claims.as_object_mut().unwrap().remove("azp");
    version_1.claims["appid"] = json!(APP);
    version_1.claims["idtyp"] = json!("app");
    assert!(version_1.check().is_ok());
    let trust = json!({"provider": "azure", "tenantId": TENANT, "clientId": APP, "subject": "s", "audience": "api://lumo"});
    let both = || Case { trust: WorkloadTrust::parse(&trust).unwrap(), ..azure() };
    assert!(both().check().is_ok());
    let mut other = both();
    (other.claims["sub"], other.claims["oid"]) = (json!("t"), json!("t"));
    assert!(other.check().is_err());
}

#[test]
fn roles_subjects_and_further_claims_are_exact() {
    aws().refused("/sub", json!("arn:aws:iam::999999999999:role/bot"));
    aws().refused("/sub", json!("arn:aws-cn:iam::123456789012:role/bot"));
    aws().refused_without("sub");
    oidc().refused("/sub", json!("Bot"));
    oidc().refused("/sub", json!("bot2"));
    oidc().refused("/env", json!("staging"));
    oidc().refused("/env", json!(["prod"]));
    oidc().refused_without("env");
    spiffe().refused("/sub", json!("spiffe://example.org/bot/x"));
    spiffe().refused("/sub", json!("spiffe://evil.org/bot"));
}

#[test]
fn a_role_without_an_issuer_has_no_tokens() {
    let trust =
        WorkloadTrust::parse(&json!({"provider": "aws", "roleArn": "arn:aws:iam::123456789012:role/bot"}))
            .unwrap();
    assert!(!trust.accepts_issuer(None) && !trust.accepts_issuer(Some("https://sts.amazonaws.com")));
    let claims = json!({"sub": "arn:aws:iam::123456789012:role/bot"});
    let keys = WorkloadKey::candidates(Some("https://sts.amazonaws.com"), claims.as_object().unwrap());
    assert!(!keys.contains(&trust.key()));
}

#[test]
fn audiences_that_everybody_has_are_told_apart() {
    let generic = |audience: &str| {
        let trust = json!({"provider": "kubernetes", "issuer": "https://c.example", "namespace": "ops",
                           "serviceAccount": "bot", "audience": audience});
        WorkloadTrust::parse(&trust).unwrap().has_generic_audience()
    };
    assert!(
        generic("https://kubernetes.default.svc")
            && generic("sts.amazonaws.com")
            && generic("https://c.example")
    );
    assert!(!generic("https://auth.example") && !kubernetes().trust.has_generic_audience());
}
