//! Which trust in platforms administrators may set (contract 2.9).

use lumoauth_tests::{Server, on_each_backend, unique};
use serde_json::{Value, json};

on_each_backend!(trust_that_would_match_too_much_is_refused, trust_in_this_server_is_refused);

fn trust_that_would_match_too_much_is_refused(server: &Server) {
    let org = server.acme();
    let good = json!({
        "provider": "kubernetes", "issuer": "https://oidc.cluster.test", "namespace": "ops", "serviceAccount": "bot",
    });
    for (member, value) in [
        ("namespace", json!("*")),
        ("namespace", json!("")),
        ("serviceAccount", json!("*")),
        ("serviceAccount", json!("a:b")),
        ("issuer", json!("https://*.test")),
        ("issuer", json!("http://oidc.cluster.test")),
        ("issuer", json!("https://user@oidc.cluster.test")),
        ("issuer", json!("https://oidc.cluster.test#x")),
        ("audience", json!("*")),
        ("provider", json!("any")),
    ] {
        let mut trust = good.clone();
        trust[member] = value;
        let body = json!({
            "name": unique("Agent"), "identityType": "workload_identity", "workloadIdentity": trust,
        });
        org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    for trust in [
        json!({ "provider": "aws", "roleArn": "arn:aws:iam::*:role/x", "issuer": "https://oidc.test", "audience": "a" }),
        json!({ "provider": "gcp", "audience": "a" }),
        json!({ "provider": "azure", "clientId": "c", "audience": "a" }),
        json!({ "provider": "oidc", "issuer": "https://oidc.test", "audience": "a" }),
    ] {
        let body = json!({
            "name": unique("Agent"), "identityType": "workload_identity", "workloadIdentity": trust,
        });
        org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    let github = "https://token.actions.githubusercontent.com";
    let oidc = |issuer: &str, subject: &str, claims: Value| {
        let trust = json!({ "provider": "oidc", "issuer": issuer, "subject": subject, "claims": claims });
        let body = json!({
            "name": unique("Agent"), "identityType": "workload_identity", "workloadIdentity": trust,
        });
        org.admin("POST", "/agents").json(body).send()
    };
    for subject in
        ["repo:", "repo:*", "repo:/", "repo:acme", "repo:acme/", "repo::environment:prod", "environment:prod"]
    {
        oidc(github, subject, json!({})).refused(400, "validation_error");
    }
    for claims in
        [json!({ "repository": false }), json!({ "repository_id": true }), json!({ "email_verified": false })]
    {
        oidc(github, "environment:prod", claims.clone()).refused(400, "validation_error");
        oidc(github, "repo:acme/bot", claims).refused(400, "validation_error");
    }
    assert_eq!(oidc(github, &format!("repo:acme/{}", unique("bot")), json!({})).status, 201);
}

fn trust_in_this_server_is_refused(server: &Server) {
    let (org, other) = (server.acme(), server.globex());
    let agent = org.create_agent(json!({ "identityType": "workload_identity" }));
    let alias = org.issuer().replace("/orgs/", "/t/");
    for issuer in [org.issuer(), other.issuer(), alias, format!("{}/", org.issuer())] {
        let trusts = [
            json!({ "provider": "oidc", "issuer": issuer, "subject": format!("agent:{}", agent.slug) }),
            json!({ "provider": "kubernetes", "issuer": issuer, "namespace": "n", "serviceAccount": "s" }),
            json!({
                "provider": "spiffe", "subject": "spiffe://prod.test/bot",
                "jwksUri": format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
            }),
        ];
        for trust in trusts {
            let change = json!({ "workloadIdentity": trust });
            agent.admin("PATCH", "").json(change).send().refused(400, "validation_error");
            let new = json!({
                "name": unique("Agent"), "identityType": "workload_identity", "workloadIdentity": trust,
            });
            org.admin("POST", "/agents").json(new).send().refused(400, "validation_error");
        }
    }
}
