//! Workloads without secrets: platforms vouch for agents, and nobody else does.

use lumoauth_tests::{
    Agent, AttackerKey, Issuer, JWT, KeySite, Org, Response, Server, Token, forged, forms_of_public_key,
    on_each_backend, text, unique, unix_now, unsigned,
};
use serde_json::{Value, json};

on_each_backend!(
    kubernetes_gives_an_agent_its_token,
    gcp_azure_aws_oidc_and_spiffe_give_an_agent_its_token,
    jwt_bearer_gives_the_same_token,
    attestation_gives_the_same_token,
    token_is_bound_to_a_resource_on_request,
    keys_are_fetched_once_and_kept,
    every_refusal_looks_the_same,
    unknown_issuers_are_never_asked,
    rotated_keys_are_found_and_removed_ones_forgotten_everywhere,
    deep_claims_are_refused_before_they_are_read,
    tokens_of_this_server_prove_no_workload,
    two_agents_that_match_need_a_name,
    trust_holds_in_its_organization_only,
    malformed_tokens_of_platforms_are_refused_like_the_others,
    issuer_names_are_compared_exactly,
    withdrawn_trust_works_no_more,
    same_token_works_until_it_expires,
);

/// A platform, one of its workloads, and the agent that this is.
struct Platform<'a> {
    org: Org<'a>,
    issuer: Issuer,
    agent: Agent<'a>,
    claims: Value,
}

fn kubernetes(server: &Server) -> Platform<'_> {
    let org = server.acme();
    let issuer = Issuer::start();
    let account = unique("sa");
    let trust = json!({
        "provider": "kubernetes", "issuer": issuer.url(), "namespace": "ops", "serviceAccount": account,
        "audience": "https://lumoauth.test", "jwks": issuer.jwks(),
    });
    let claims = json!({
        "iss": issuer.url(), "sub": format!("system:serviceaccount:ops:{account}"),
        "aud": ["https://lumoauth.test"], "iat": unix_now(), "nbf": unix_now(), "exp": unix_now() + 600,
        "kubernetes.io": { "namespace": "ops", "serviceaccount": { "name": account, "uid": "u" } },
    });
    let agent = workload(&org, trust);
    Platform { org, issuer, agent, claims }
}

fn workload<'a>(org: &Org<'a>, trust: Value) -> Agent<'a> {
    org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a", "read:b"], "workloadIdentity": trust,
    }))
}

impl Platform<'_> {
    fn token(&self) -> String {
        self.issuer.sign(&self.claims)
    }

    /// The claims with one that differs; null takes it away.
    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        match value {
            Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
            value => claims[name] = value,
        }
        self.issuer.sign(&claims)
    }

    fn present(&self, token: &str, extra: &[(&str, &str)]) -> Response {
        present(&self.org, token, extra)
    }
}

fn present(org: &Org<'_>, token: &str, extra: &[(&str, &str)]) -> Response {
    org.exchange(token, JWT, extra)
}

/// What every token that a workload got has.
#[track_caller]
fn assert_of(platform_agent: &Agent<'_>, provider: &str, answer: &Response) -> Value {
    let body = answer.ok();
    let claims = Token::parse(text(&body["access_token"])).claims;
    assert_eq!(claims["agent_id"], platform_agent.agent_id.as_str());
    assert_eq!(claims["sub"], format!("agent:{}", platform_agent.slug));
    assert!(text(&claims["workload_identity"]).starts_with(&format!("{provider}:")), "{claims}");
    assert_eq!(claims["amr"], json!(["workload"]));
    let token = text(&body["access_token"]);
    assert_eq!(platform_agent.userinfo(token).ok()["agent_id"], platform_agent.agent_id.as_str());
    body
}

fn kubernetes_gives_an_agent_its_token(server: &Server) {
    let platform = kubernetes(server);
    for extra in [&[][..], &[("subject_issuer", "kubernetes")]] {
        let body = assert_of(&platform.agent, "kubernetes", &platform.present(&platform.token(), extra));
        assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(body["scope"], "read:a read:b");
    }
    let narrow = platform.present(&platform.token(), &[("scope", "read:b")]).ok();
    assert_eq!(narrow["scope"], "read:b");
    platform.present(&platform.token(), &[("scope", "read:c")]).refused(400, "invalid_scope");
    // Among others is as good as alone.
    let audiences = json!(["https://other.test", "https://lumoauth.test"]);
    assert_of(&platform.agent, "kubernetes", &platform.present(&platform.with("aud", audiences), &[]));
    let rows = platform.org.audit(&format!("action=agent.authenticated&actor={}", platform.agent.agent_id));
    assert!(rows.iter().any(|row| row["authMethod"] == "workload_identity"), "{rows:?}");
}

fn gcp_azure_aws_oidc_and_spiffe_give_an_agent_its_token(server: &Server) {
    let org = server.acme();
    let issuer = Issuer::start();
    let (id, times) = (unique("w"), json!({ "iat": unix_now(), "exp": unix_now() + 600 }));
    let email = format!("{id}@project.iam.gserviceaccount.com");
    let role = format!("arn:aws:iam::123456789012:role/{id}");
    let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let entra = format!("https://login.microsoftonline.com/{tenant}/v2.0");
    // Any UUID that is nobody else's.
    let app = org.agent(&[]).id;
    let spiffe = format!("spiffe://prod.test/{id}");
    let cases = [
        (
            json!({ "provider": "gcp", "serviceAccountEmail": email, "projectId": "project", "audience": "lumo" }),
            json!({ "iss": "https://accounts.google.com", "sub": "1", "aud": "lumo", "email": email, "email_verified": true }),
        ),
        (
            json!({ "provider": "azure", "tenantId": tenant, "clientId": app, "audience": "api://lumo" }),
            json!({ "iss": entra, "sub": "s", "aud": "api://lumo", "tid": tenant, "azp": app }),
        ),
        (
            json!({ "provider": "aws", "roleArn": role, "issuer": issuer.url(), "audience": "lumo" }),
            json!({ "iss": issuer.url(), "sub": role, "aud": "lumo" }),
        ),
        (
            json!({ "provider": "oidc", "issuer": issuer.url(), "subject": id, "audience": "lumo" }),
            json!({ "iss": issuer.url(), "sub": id, "aud": "lumo" }),
        ),
        (
            json!({ "provider": "spiffe", "issuer": issuer.url(), "subject": spiffe, "audience": "lumo" }),
            json!({ "iss": issuer.url(), "sub": spiffe, "aud": ["lumo"] }),
        ),
    ];
    for (mut trust, mut claims) in cases {
        trust["jwks"] = issuer.jwks();
        for name in ["iat", "exp"] {
            claims[name] = times[name].clone();
        }
        let provider = text(&trust["provider"]).to_owned();
        let agent = workload(&org, trust);
        let token = issuer.sign(&claims);
        assert_of(&agent, &provider, &present(&org, &token, &[]));
        if provider != "spiffe" {
            assert_of(&agent, &provider, &present(&org, &token, &[("subject_issuer", &provider)]));
        }
        // As another platform's it is nothing.
        let other = if provider == "gcp" { "azure" } else { "gcp" };
        present(&org, &token, &[("subject_issuer", other)]).refused(401, "workload_identity_failed");
    }
}

fn jwt_bearer_gives_the_same_token(server: &Server) {
    let platform = kubernetes(server);
    let token = platform.token();
    let fields =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", token.as_str())];
    assert_of(&platform.agent, "kubernetes", &platform.org.post("/oauth/token").form(&fields).send());
    let bad = platform.with("aud", "https://other.test".into());
    let fields = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", bad.as_str())];
    platform.org.post("/oauth/token").form(&fields).send().refused(401, "workload_identity_failed");
    platform.org.post("/oauth/token").form(&fields[..1]).send().refused(400, "invalid_request");
}

fn attestation_gives_the_same_token(server: &Server) {
    let platform = kubernetes(server);
    let attest = |agent: &str, token: &str| {
        let path = format!("/agents/{agent}/attest");
        platform.org.post(&path).json(json!({ "attestation_token": token })).send()
    };
    let body = attest(&platform.agent.agent_id, &platform.token()).ok();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["identity"]["provider"], "kubernetes");
    assert_eq!(body["identity"]["issuer"], platform.issuer.url());
    let other = platform.org.agent(&["read:a"]);
    let wrong = attest(&other.agent_id, &platform.token());
    let unknown = attest("agt_00000000000000000000000000000000", &platform.token());
    let forged = attest(&platform.agent.agent_id, "x.y.z");
    for answer in [&wrong, &unknown, &forged] {
        answer.refused(401, "workload_identity_failed");
        assert_eq!(answer.text(), wrong.text());
    }
}

fn token_is_bound_to_a_resource_on_request(server: &Server) {
    let platform = kubernetes(server);
    let mcp = platform.org.mcp_server(json!({}));
    let uri = text(&mcp["resource_uri"]);
    let body = platform.present(&platform.token(), &[("resource", uri)]).ok();
    assert_eq!(Token::parse(text(&body["access_token"])).claims["aud"], uri);
    platform
        .present(&platform.token(), &[("resource", "https://nowhere.test/")])
        .refused(400, "invalid_target");
}

fn keys_are_fetched_once_and_kept(server: &Server) {
    let org = server.acme();
    let (issuer, subject) = (Issuer::start(), unique("w"));
    let agent = workload(
        &org,
        json!({ "provider": "oidc", "issuer": issuer.url(), "subject": subject, "audience": "lumo" }),
    );
    let claims = json!({ "iss": issuer.url(), "sub": subject, "aud": "lumo", "iat": unix_now(), "exp": unix_now() + 600 });
    for _ in 0..20 {
        assert_of(&agent, "oidc", &present(&org, &issuer.sign(&claims), &[]));
    }
    assert_eq!(issuer.asked(), (1, 1), "keys are kept");
}

fn every_refusal_looks_the_same(server: &Server) {
    let platform = kubernetes(server);
    let (now, key) = (unix_now(), AttackerKey::generate());
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
    let unknown_kid = json!({ "alg": "ES256", "kid": "k9", "typ": "JWT" });
    let crit = json!({ "alg": "ES256", "kid": "k1", "crit": ["exp"] });
    let account = text(&platform.claims["kubernetes.io"]["serviceaccount"]["name"]);
    let subject = |namespace: &str, name: &str| json!(format!("system:serviceaccount:{namespace}:{name}"));
    let mut attempts = vec![
        ("namespace", platform.with("sub", subject("other", account))),
        ("account", platform.with("sub", subject("ops", "other"))),
        ("both", platform.with("sub", subject("other", "other"))),
        ("longer account", platform.with("sub", subject("ops", &format!("{account}x")))),
        ("shorter account", platform.with("sub", subject("ops", &account[..account.len() - 1]))),
        ("split", platform.with("sub", json!(text(&platform.claims["sub"]).replace("ops:", "ops:x:")))),
        ("case", platform.with("sub", json!(text(&platform.claims["sub"]).to_uppercase()))),
        ("detail", platform.with("kubernetes.io", json!({ "namespace": "other" }))),
        (
            "account in the detail",
            platform.with(
                "kubernetes.io",
                json!({ "namespace": "ops", "serviceaccount": { "name": "other", "uid": "u" } }),
            ),
        ),
        ("audience", platform.with("aud", json!(["https://other.test"]))),
        ("longer audience", platform.with("aud", json!("https://lumoauth.test/x"))),
        ("shorter audience", platform.with("aud", json!("https://lumoauth.tes"))),
        ("no audience", platform.with("aud", Value::Null)),
        ("issuer", platform.with("iss", json!("https://evil.test"))),
        ("issuer slash", platform.with("iss", json!(format!("{}/", platform.issuer.url())))),
        ("expired", platform.with("exp", json!(now - 61))),
        ("no expiry", platform.with("exp", Value::Null)),
        ("text expiry", platform.with("exp", json!("9999999999"))),
        ("future", platform.with("nbf", json!(now + 120))),
        ("old", platform.with("iat", json!(now - 90_000))),
        ("no subject", platform.with("sub", Value::Null)),
        ("forged", key.sign(&header, &platform.claims)),
        ("unknown key", key.sign(&unknown_kid, &platform.claims)),
        ("critical", key.sign(&crit, &platform.claims)),
        ("none", unsigned(&json!({ "alg": "none" }), &platform.claims)),
        ("nothing", "x".to_owned()),
        ("long", "a.".repeat(20_000)),
    ];
    for secret in forms_of_public_key(&platform.issuer.jwks()["keys"][0]) {
        for alg in ["HS256", "HS384", "HS512", "ES256"] {
            let header = json!({ "alg": alg, "kid": "k1", "typ": "JWT" });
            attempts.push(("hmac", forged(&header, &platform.claims, &secret)));
        }
    }
    let mut texts = Vec::new();
    for (what, token) in &attempts {
        for extra in [&[][..], &[("subject_issuer", "kubernetes")]] {
            let answer = platform.present(token, extra);
            if extra.is_empty() && ["nothing", "long"].contains(what) {
                // It names no issuer, so it is taken for a token of this server.
                answer.refused(400, "invalid_grant");
                continue;
            }
            assert_eq!(answer.status, 401, "{what}: {answer}");
            answer.refused(401, "workload_identity_failed");
            texts.push(answer.text());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    platform.agent.admin("POST", "/disable").send().ok();
    let suspended = platform.present(&platform.token(), &[]);
    suspended.refused(401, "workload_identity_failed");
    assert_eq!(suspended.text(), texts[0]);
    platform
        .present(&platform.token(), &[("subject_issuer", "https://evil.test")])
        .refused(400, "invalid_request");
}

fn malformed_tokens_of_platforms_are_refused_like_the_others(server: &Server) {
    let platform = kubernetes(server);
    let list = json!([platform.issuer.url()]);
    for (name, value) in [
        ("iss", list),
        ("iss", json!(7)),
        ("iss", json!({})),
        ("iss", Value::Null),
        ("sub", json!([])),
        ("aud", json!({})),
        ("exp", json!("soon")),
    ] {
        let token = platform.with(name, value);
        for extra in [&[][..], &[("subject_issuer", "kubernetes")]] {
            platform.present(&token, extra).refused(401, "workload_identity_failed");
        }
    }
}

fn unknown_issuers_are_never_asked(server: &Server) {
    let org = server.acme();
    // The server may reach it, and does once an administrator has registered it.
    let (issuer, subject) = (Issuer::start(), unique("w"));
    let claims = json!({
        "iss": issuer.url(), "sub": subject, "aud": org.issuer(), "iat": unix_now(), "exp": unix_now() + 600,
    });
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT", "jku": issuer.keys_uri() });
    let token = issuer.sign_as(&header, &claims);
    for extra in [&[][..], &[("subject_issuer", "oidc")], &[("subject_issuer", "spiffe")]] {
        present(&org, &token, extra).refused(401, "workload_identity_failed");
    }
    present(&org, &token, &[("subject_issuer", issuer.url())]).refused(400, "invalid_request");
    assert_eq!(issuer.asked(), (0, 0));
    let trust =
        json!({ "provider": "oidc", "issuer": issuer.url(), "subject": subject, "audience": org.issuer() });
    let agent = workload(&org, trust);
    assert_of(&agent, "oidc", &present(&org, &token, &[]));
    assert_eq!(issuer.asked(), (1, 1));
}

fn rotated_keys_are_found_and_removed_ones_forgotten_everywhere(server: &Server) {
    let org = server.acme();
    let (page, subject) = (KeySite::trusted().page(), unique("w"));
    let (old, new) = (AttackerKey::generate(), AttackerKey::generate());
    page.publish(&[("k1", &old)]);
    let trust = json!({
        "provider": "oidc", "issuer": "https://oidc.platform.test", "subject": subject, "audience": "lumo",
        "jwksUri": page.uri(),
    });
    let agent = workload(&org, trust);
    let claims = json!({
        "iss": "https://oidc.platform.test", "sub": subject, "aud": "lumo", "iat": unix_now(),
        "exp": unix_now() + 600,
    });
    let token = |kid: &str, key: &AttackerKey| key.sign(&json!({ "alg": "ES256", "kid": kid }), &claims);
    assert_of(&agent, "oidc", &present(&org, &token("k1", &old), &[]));
    page.publish(&[("k2", &new)]);
    assert_of(&agent, "oidc", &present(&org, &token("k2", &new), &[]));
    present(&org, &token("k1", &old), &[]).refused(401, "workload_identity_failed");
    for n in 0..30 {
        present(&org, &token(&format!("x{n}"), &old), &[]).refused(401, "workload_identity_failed");
    }
    // While the platform is down, what is known goes on, and nothing else.
    page.fail(503, None);
    assert_of(&agent, "oidc", &present(&org, &token("k2", &new), &[]));
    assert_eq!(page.asked(), 2);
}

fn deep_claims_are_refused_before_they_are_read(server: &Server) {
    let platform = kubernetes(server);
    for depth in [40, 1_000, 1_500] {
        let deep = (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }));
        platform.present(&platform.with("act", deep), &[]).refused(401, "workload_identity_failed");
    }
    platform.present(&platform.with("act", json!({ "sub": "system:admin" })), &[]).ok();
}

fn tokens_of_this_server_prove_no_workload(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    present(&org, &token, &[("subject_issuer", "oidc")]).refused(401, "workload_identity_failed");
    let fields =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", token.as_str())];
    org.post("/oauth/token").form(&fields).send().refused(401, "workload_identity_failed");
}

fn two_agents_that_match_need_a_name(server: &Server) {
    let org = server.acme();
    let issuer = Issuer::start();
    let subject = unique("w");
    let trust = json!({
        "provider": "oidc", "issuer": issuer.url(), "subject": subject, "audience": "lumo", "jwks": issuer.jwks(),
    });
    let (one, other) = (workload(&org, trust.clone()), workload(&org, trust));
    let token =
        issuer.sign(&json!({ "iss": issuer.url(), "sub": subject, "aud": "lumo", "iat": unix_now(), "exp": unix_now() + 600 }));
    present(&org, &token, &[]).refused(400, "invalid_request");
    assert_of(&one, "oidc", &present(&org, &token, &[("agent_id", &one.agent_id)]));
    assert_of(&other, "oidc", &present(&org, &token, &[("agent_id", &other.agent_id)]));
    // One that trusts nobody, and one that trusts the same issuer for another workload.
    let stranger = org.agent(&["read:a"]);
    let colleague = workload(
        &org,
        json!({
            "provider": "oidc", "issuer": issuer.url(), "subject": unique("w"), "audience": "lumo",
            "jwks": issuer.jwks(),
        }),
    );
    present(&org, &token, &[("agent_id", &colleague.agent_id)]).refused(401, "workload_identity_failed");
    present(&org, &token, &[("agent_id", &stranger.agent_id)]).refused(401, "workload_identity_failed");
}

fn trust_holds_in_its_organization_only(server: &Server) {
    let platform = kubernetes(server);
    platform.present(&platform.token(), &[]).ok();
    present(&server.globex(), &platform.token(), &[]).refused(401, "workload_identity_failed");
}

fn issuer_names_are_compared_exactly(server: &Server) {
    let org = server.acme();
    let (key, account, name) = (AttackerKey::generate(), unique("sa"), "https://oidc.cluster.test/id");
    let trust = json!({
        "provider": "kubernetes", "issuer": name, "namespace": "ops", "serviceAccount": account,
        "audience": "lumo", "jwks": { "keys": [key.jwk("k1")] },
    });
    let agent = workload(&org, trust);
    let from = |issuer: &str| {
        let claims = json!({
            "iss": issuer, "sub": format!("system:serviceaccount:ops:{account}"), "aud": "lumo",
            "iat": unix_now(), "exp": unix_now() + 600,
        });
        present(&org, &key.sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims), &[])
    };
    assert_of(&agent, "kubernetes", &from(name));
    for twin in [
        "https://oidc.cluster.test/id/",
        "https://oidc.cluster.test:443/id",
        "https://OIDC.cluster.test/id",
        "HTTPS://oidc.cluster.test/id",
        "http://oidc.cluster.test/id",
        "https://oidc.cluster.test/ID",
        "https://oidc.cluster.test/%69d",
        "https://oidc.cluster.test/x/../id",
        "https://oidc.cluster.test/id?",
        "https://oidc.cluster.test/id#",
        " https://oidc.cluster.test/id",
        "https://oidc.cluster.test./id",
        "https://oidc.cluster.test.evil.test/id",
        "https://oidc.cluster.test@evil.test/id",
        "https://o\u{456}dc.cluster.test/id",
        "https://xn--odc-pmc.cluster.test/id",
        "oidc.cluster.test/id",
        "",
    ] {
        from(twin).refused(401, "workload_identity_failed");
    }
}

fn withdrawn_trust_works_no_more(server: &Server) {
    let platform = kubernetes(server);
    platform.present(&platform.token(), &[]).ok();
    platform.agent.admin("PATCH", "").json(json!({ "workloadIdentity": {} })).send().ok();
    platform.present(&platform.token(), &[]).refused(401, "workload_identity_failed");
}

fn same_token_works_until_it_expires(server: &Server) {
    let platform = kubernetes(server);
    let token = platform.token();
    platform.present(&token, &[]).ok();
    platform.present(&token, &[]).ok();
}
