//! Tokens of platforms.

use super::*;
use crate::{
    mcp::{McpServer, ResourceUri},
    store::McpServerStore,
};

const AZURE_TENANT: &str = "11111111-2222-3333-4444-555555555555";
const AZURE_APP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

fn cluster_trust() -> Value {
    json!({"provider": "kubernetes", "issuer": CLUSTER, "namespace": "ops", "serviceAccount": "bot"})
}

fn cluster_claims(bench: &Bench) -> Value {
    json!({
        "iss": CLUSTER, "sub": "system:serviceaccount:ops:bot", "aud": [bench.issuer()],
        "kubernetes.io": {"namespace": "ops", "serviceaccount": {"name": "bot", "uid": "u"}},
        "iat": bench.now() - 60, "nbf": bench.now() - 60, "exp": bench.now() + 600, "jti": "j",
    })
}

#[tokio::test]
async fn a_service_account_token_becomes_an_agent_token() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    for more in [&[][..], &[("subject_issuer", "kubernetes")], &[("scope", "read:a")]] {
        let response = bench.exchange(&token, more).await.unwrap();
        assert!(response.issued_token_type.is_some() && response.expires_in == 3600);
        let claims = claims_of(&response);
        assert_eq!(claims["sub"], "agent:bot");
        assert_eq!(claims["agent_id"], agent.id.to_string());
        assert_eq!(claims["workload_identity"], "kubernetes:system:serviceaccount:ops:bot");
        assert_eq!(claims["amr"], json!(["workload"]));
        assert!(claims.get("act").is_none());
        let event = bench.logged().await;
        assert_eq!(event.kind, EventKind::AgentAuthenticated);
        assert_eq!(event.auth_method.as_deref(), Some("workload_identity"));
        assert_eq!(&*event.actor.id, agent.id.to_string());
    }
    // Metadata and keys, once.
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn the_token_is_a_grant_by_itself() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    let fields = [("grant_type", JWT_BEARER), ("assertion", token.as_str()), ("scope", "write:b")];
    let response = bench.request(&fields).await.unwrap();
    assert_eq!((response.scope.to_string().as_str(), response.issued_token_type), ("write:b", None));
    assert_eq!(claims_of(&response)["workload_identity"], "kubernetes:system:serviceaccount:ops:bot");
    assert!(bench.server.grant_types().contains(&JWT_BEARER));

    let missing = bench.request(&[("grant_type", JWT_BEARER)]).await.unwrap_err().to_wire();
    assert_eq!((missing.status.as_u16(), missing.error), (400, "invalid_request"));
    Bench::refused(bench.request(&[("grant_type", JWT_BEARER), ("assertion", "x")]).await);
}

#[tokio::test]
async fn a_token_may_be_for_an_mcp_server_at_once() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let uri = "https://mcp.example/files";
    let server = McpServer::new("files", ResourceUri::parse(uri).unwrap(), clock_now(&bench.clock));
    let inserted = McpServerStore::insert(&*bench.store, &bench.org.id, &server, &bench.event()).await;
    assert_eq!(inserted.unwrap(), Insert::Inserted);
    let token = bench.key.token(&cluster_claims(&bench));
    for name in ["resource", "audience"] {
        let claims = claims_of(&bench.exchange(&token, &[(name, uri), ("scope", "read:a")]).await.unwrap());
        assert_eq!((&claims["aud"], &claims["scope"]), (&json!(uri), &json!("read:a")));
        assert_eq!(claims["workload_identity"], "kubernetes:system:serviceaccount:ops:bot");
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_so() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    let bad = |outcome: Outcome, error: &str| {
        let wire = outcome.unwrap_err().to_wire();
        assert_eq!((wire.status.as_u16(), wire.error), (400, error));
    };
    for issuer in ["heroku", "https://evil.example", "Kubernetes"] {
        bad(bench.exchange(&token, &[("subject_issuer", issuer)]).await, "invalid_request");
    }
    bad(bench.exchange("", &[("subject_issuer", "kubernetes")]).await, "invalid_request");
    bad(bench.exchange(&token, &[("scope", "read:a admin:all")]).await, "invalid_scope");
    bad(bench.exchange(&token, &[("resource", "https://mcp.example/none")]).await, "invalid_target");
    bad(
        bench.exchange(&token, &[("resource", "https://a.example"), ("resource", "https://b.example")]).await,
        "invalid_target",
    );
    assert!(bench.exchange(&token, &[("resource", &bench.issuer())]).await.is_ok());
}

#[tokio::test]
async fn every_flaw_of_a_token_is_one_and_the_same_refusal() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", cluster_trust()).await;
    let good = cluster_claims(&bench);
    let now = bench.now();
    assert!(bench.exchange(&bench.key.token(&good), &[]).await.is_ok());
    for (flaw, claims) in [
        ("namespace", with(good.clone(), "sub", "system:serviceaccount:other:bot")),
        ("account", with(good.clone(), "sub", "system:serviceaccount:ops:other")),
        ("contradiction", with(good.clone(), "kubernetes.io", json!({"namespace": "other"}))),
        ("audience", with(good.clone(), "aud", "https://kubernetes.default.svc")),
        ("our other path", with(good.clone(), "aud", format!("{}/oauth/token", bench.issuer()))),
        ("no audience", without(good.clone(), "aud")),
        ("issuer", with(good.clone(), "iss", "https://other.example")),
        ("twin issuer", with(good.clone(), "iss", format!("{CLUSTER}/"))),
        ("issuer with port", with(good.clone(), "iss", format!("{CLUSTER}:443"))),
        ("long issuer", with(good.clone(), "iss", format!("https://{}", "a".repeat(2048)))),
        ("list of issuers", with(good.clone(), "iss", json!([CLUSTER]))),
        ("expired", with(good.clone(), "exp", now)),
        ("no end", without(good.clone(), "exp")),
        ("end as text", with(good.clone(), "exp", "9999999999")),
        ("fractional end", with(good.clone(), "exp", 9_999_999_999.5)),
        ("not yet", with(good.clone(), "nbf", now + 61)),
        ("from the future", with(good.clone(), "iat", now + 61)),
        ("too old", with(good.clone(), "iat", now - 86_401)),
        ("no age", without(good.clone(), "iat")),
    ] {
        let outcome = bench.exchange(&bench.key.token(&claims), &[("subject_issuer", "kubernetes")]).await;
        assert!(outcome.is_err(), "{flaw}");
        Bench::refused(outcome);
        let event = bench.logged().await;
        assert_eq!(event.reason.as_deref(), Some("workload_identity_failed"));
        assert!(event.context["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{flaw}");
    }
    for (name, value) in [("exp", now + 1), ("nbf", now + 60), ("iat", now + 60), ("iat", now - 86_400)] {
        assert!(
            bench.exchange(&bench.key.token(&with(good.clone(), name, value)), &[]).await.is_ok(),
            "{name}"
        );
    }
    bench.change(&agent, |agent| agent.workload = None).await;
    Bench::refused(bench.exchange(&bench.key.token(&good), &[]).await);
}

#[tokio::test]
async fn a_jwt_that_does_not_say_it_is_ours_is_a_platforms_whatever_else_it_says() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let good = cluster_claims(&bench);
    let header = json!({"alg": "ES256", "kid": "k1"}).to_string();
    let twice = good.to_string().replacen('{', &format!(r#"{{"iss":"{}","#, bench.issuer()), 1);
    for (flaw, payload) in [
        ("list of issuers", with(good.clone(), "iss", json!([CLUSTER])).to_string()),
        ("our issuer in a list", with(good.clone(), "iss", json!([bench.issuer()])).to_string()),
        ("issuer as a number", with(good.clone(), "iss", 7).to_string()),
        ("issuer as null", with(good.clone(), "iss", Value::Null).to_string()),
        ("no issuer", without(good.clone(), "iss").to_string()),
        ("two issuers", twice),
        ("claims in a list", json!([good]).to_string()),
        ("no claims", String::new()),
        ("no JSON", "x".to_owned()),
        ("end as a list", with(good.clone(), "exp", json!([1])).to_string()),
        ("subject as a list", with(good.clone(), "sub", json!(["a"])).to_string()),
        ("audience as an object", with(good.clone(), "aud", json!({})).to_string()),
    ] {
        let token = bench.key.raw(&header, &payload);
        for kind in [JWT, "urn:ietf:params:oauth:token-type:id_token"] {
            let fields = [("grant_type", EXCHANGE), ("subject_token", &*token), ("subject_token_type", kind)];
            let outcome = bench.request(&fields).await;
            assert!(outcome.is_err(), "{flaw}");
            Bench::refused(outcome);
        }
        Bench::refused(bench.request(&[("grant_type", JWT_BEARER), ("assertion", &token)]).await);
    }
    for nothing in ["x", "a.b", "a.b.c"] {
        let wire = bench.exchange(nothing, &[]).await.unwrap_err().to_wire();
        assert_eq!((wire.status.as_u16(), wire.error), (400, "invalid_grant"), "{nothing}");
    }
}

#[tokio::test]
async fn algorithms_keys_and_types_are_not_for_the_token_to_choose() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let payload = cluster_claims(&bench).to_string();
    let asking = [("subject_issuer", "kubernetes")];
    for header in [
        json!({"alg": "none", "kid": "k1"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "RS256", "kid": "k1"}),
        json!({"alg": "ES256", "kid": "k2"}),
        json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]}),
        json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}),
        json!({"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}),
        json!({"alg": "ES256", "kid": "k1", "typ": "dpop+jwt"}),
    ] {
        Bench::refused(bench.exchange(&bench.key.raw(&header.to_string(), &payload), &asking).await);
    }
    // By a key that the token brings along or names the address of.
    let evil = TestKey::new(JwsAlgorithm::Es256, "k1");
    let header = json!({"alg": "ES256", "kid": "k1", "jwk": evil.jwk(), "jku": "https://evil.example/keys"});
    Bench::refused(bench.exchange(&evil.raw(&header.to_string(), &payload), &asking).await);
    let asked = bench.world.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|request| request.url.host_str() == Some("oidc.cluster.example")));
    for typ in ["JWT", "jwt", "at+jwt", "JOSE"] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ});
        assert!(
            bench.exchange(&bench.key.raw(&header.to_string(), &payload), &asking).await.is_ok(),
            "{typ}"
        );
    }
    for text in ["x", "a.b", "a.b.c", "..", &"a".repeat(17_000)] {
        Bench::refused(bench.exchange(text, &asking).await);
    }
}

#[tokio::test]
async fn nothing_is_fetched_for_a_workload_that_nobody_trusts() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", cluster_trust()).await;
    let claims = cluster_claims(&bench);
    for claims in [
        with(claims.clone(), "iss", "https://evil.example"),
        with(claims.clone(), "iss", "http://169.254.169.254/"),
        with(claims.clone(), "iss", "https://accounts.google.com"),
        with(claims.clone(), "sub", "system:serviceaccount:ops:other"),
    ] {
        Bench::refused(bench.exchange(&bench.key.token(&claims), &[]).await);
    }
    let token = bench.key.token(&claims);
    for provider in ["aws", "gcp", "azure", "oidc", "spiffe"] {
        Bench::refused(bench.exchange(&token, &[("subject_issuer", provider)]).await);
    }
    Bench::refused(bench.exchange(&token, &[("client_id", "cli_other")]).await);
    Bench::refused(bench.exchange(&token, &[("agent_id", "agt_other")]).await);
    bench.change(&agent, |agent| agent.status = crate::agent::AgentStatus::Suspended).await;
    Bench::refused(bench.exchange(&token, &[]).await);
    bench
        .change(&agent, |agent| {
            agent.status = crate::agent::AgentStatus::Active;
            agent.identity_type = IdentityType::ClientCredentials;
        })
        .await;
    Bench::refused(bench.exchange(&token, &[]).await);
    assert_eq!(bench.asked(), 0);
    bench.change(&agent, |agent| agent.identity_type = IdentityType::Custom).await;
    assert!(bench.exchange(&token, &[]).await.is_ok());
}

#[tokio::test]
async fn trust_ends_at_the_organization_and_at_the_agent() {
    let bench = Bench::new().await;
    let globex = OrgId::parse("globex").unwrap();
    bench.agent_in(&globex, "bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    Bench::refused(bench.exchange(&token, &[]).await);
    assert_eq!(bench.asked(), 0);

    let bot = bench.agent("bot", cluster_trust()).await;
    let mut other = cluster_trust();
    other["serviceAccount"] = json!("other");
    let other = bench.agent("other", other).await;
    Bench::refused(bench.exchange(&token, &[("client_id", other.client_id.as_str())]).await);
    Bench::refused(
        bench
            .exchange(&token, &[("client_id", bot.client_id.as_str()), ("agent_id", &other.id.to_string())])
            .await,
    );
    let response = bench.exchange(&token, &[("client_id", bot.client_id.as_str())]).await.unwrap();
    assert_eq!(claims_of(&response)["agent_id"], bot.id.to_string());
}

#[tokio::test]
async fn of_several_agents_the_request_names_one() {
    let bench = Bench::new().await;
    let agents = [bench.agent("a", cluster_trust()).await, bench.agent("b", cluster_trust()).await];
    // A third one wants more than the token has.
    bench.agent("c", with(cluster_trust(), "claims", json!({"env": "prod"}))).await;
    let token = bench.key.token(&cluster_claims(&bench));
    let wire = bench.exchange(&token, &[]).await.unwrap_err().to_wire();
    assert_eq!((wire.status.as_u16(), wire.error), (400, "invalid_request"));
    for agent in &agents {
        for name in [("client_id", agent.client_id.to_string()), ("agent_id", agent.id.to_string())] {
            let response = bench.exchange(&token, &[(name.0, &name.1)]).await.unwrap();
            assert_eq!(claims_of(&response)["agent_id"], agent.id.to_string());
            let fields = [("grant_type", JWT_BEARER), ("assertion", token.as_str()), (name.0, &name.1)];
            assert_eq!(claims_of(&bench.request(&fields).await.unwrap())["agent_id"], agent.id.to_string());
        }
    }
    // To name one is no authentication, and one with a secret must be right.
    let id = agents[0].client_id.as_str();
    let wire =
        bench.exchange(&token, &[("client_id", id), ("client_secret", "guess")]).await.unwrap_err().to_wire();
    assert_eq!(wire.error, "invalid_client");
    // An invalid token learns nothing of there being several.
    let forged = TestKey::new(JwsAlgorithm::Es256, "k1").token(&cluster_claims(&bench));
    Bench::refused(bench.exchange(&forged, &[]).await);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_removed_one_is_gone() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let token = |key: &TestKey| key.token(&cluster_claims(&bench));
    assert!(bench.exchange(&token(&bench.key), &[]).await.is_ok());
    let next = TestKey::new(JwsAlgorithm::Es256, "k2");
    bench.publish(CLUSTER, &[&bench.key, &next]);
    bench.clock.advance(Duration::from_secs(31));
    assert!(bench.exchange(&token(&next), &[]).await.is_ok());
    bench.publish(CLUSTER, &[&next]);
    bench.clock.advance(minutes(5));
    Bench::refused(bench.exchange(&token(&bench.key), &[]).await);
    assert!(bench.exchange(&token(&next), &[]).await.is_ok());
    // The same token until it ends.
    let kept = token(&next);
    for _ in 0..3 {
        assert!(bench.exchange(&kept, &[]).await.is_ok());
    }
    bench.clock.advance(minutes(10));
    Bench::refused(bench.exchange(&kept, &[]).await);
}

#[tokio::test]
async fn a_platform_that_does_not_answer_vouches_for_nobody() {
    let bench = Bench::new().await;
    bench.agent("bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    bench.world.answers.lock().unwrap().clear();
    Bench::refused(bench.exchange(&token, &[]).await);
    assert!(bench.logged().await.context["cause"].as_str().unwrap().starts_with("no keys"));
}

#[tokio::test]
async fn every_platform_is_served() {
    let bench = Bench::new().await;
    let ours = bench.issuer();
    let rsa = TestKey::new(JwsAlgorithm::Rs256, "r");
    let now = bench.now();
    let azure = format!("https://login.microsoftonline.com/{AZURE_TENANT}/v2.0");
    let aws = "https://abc.tokens.sts.global.api.aws";
    bench.publish("https://accounts.google.com", &[&rsa]);
    bench.publish(&azure, &[&rsa]);
    bench.publish(aws, &[&bench.key]);
    bench.publish("https://idp.example/", &[&rsa]);
    let cases = [
        (
            "gcp",
            json!({"provider": "gcp", "serviceAccountEmail": "bot@p.iam.gserviceaccount.com", "projectId": "p"}),
            json!({"iss": "https://accounts.google.com", "sub": "1", "email": "bot@p.iam.gserviceaccount.com",
                   "email_verified": true, "aud": ours, "google": {"compute_engine": {"project_id": "p"}}}),
            &rsa,
            "gcp:bot@p.iam.gserviceaccount.com".to_owned(),
        ),
        (
            "azure",
            json!({"provider": "azure", "tenantId": AZURE_TENANT, "clientId": AZURE_APP, "audience": "api://lumo"}),
            json!({"iss": azure, "sub": "s", "oid": "s", "tid": AZURE_TENANT, "azp": AZURE_APP, "aud": "api://lumo"}),
            &rsa,
            format!("azure:{AZURE_TENANT}:{AZURE_APP}"),
        ),
        (
            "aws",
            json!({"provider": "aws", "issuer": aws, "roleArn": "arn:aws:iam::123456789012:role/bot"}),
            json!({"iss": aws, "sub": "arn:aws:iam::123456789012:role/bot", "aud": ours}),
            &bench.key,
            "aws:arn:aws:iam::123456789012:role/bot".to_owned(),
        ),
        (
            "oidc",
            json!({"provider": "oidc", "issuer": "https://idp.example/", "subject": "bot", "audience": "lumo", "claims": {"env": "prod"}}),
            json!({"iss": "https://idp.example/", "sub": "bot", "aud": ["x", "lumo"], "env": "prod"}),
            &rsa,
            "oidc:https://idp.example/:bot".to_owned(),
        ),
        (
            "spiffe",
            json!({"provider": "spiffe", "subject": "spiffe://example.org/bot", "jwks": bench.key.jwks()}),
            json!({"sub": "spiffe://example.org/bot", "aud": [ours]}),
            &bench.key,
            "spiffe:spiffe://example.org/bot".to_owned(),
        ),
    ];
    for (provider, trust, mut claims, key, name) in cases {
        bench.agent(provider, trust).await;
        (claims["iat"], claims["exp"]) = (json!(now), json!(now + 300));
        let token = key.token(&claims);
        let response = bench.exchange(&token, &[("subject_issuer", provider)]).await.unwrap();
        assert_eq!(claims_of(&response)["workload_identity"], name);
        assert_eq!(claims_of(&response)["agent_name"], provider);
        let fields = [("grant_type", JWT_BEARER), ("assertion", token.as_str())];
        assert!(bench.request(&fields).await.is_ok());
        // Presented as another platform's it is nobody's.
        for other in ["kubernetes", "aws", "gcp", "azure", "oidc", "spiffe"] {
            let outcome = bench.exchange(&token, &[("subject_issuer", other)]).await;
            assert_eq!(outcome.is_ok(), other == provider, "{provider} as {other}");
        }
        // And not by another's key.
        let forged = TestKey::new(JwsAlgorithm::Es256, "k1").token(&claims);
        Bench::refused(bench.exchange(&forged, &[("subject_issuer", provider)]).await);
        let elsewhere = key.token(&with(claims.clone(), "aud", "https://elsewhere.example"));
        Bench::refused(bench.exchange(&elsewhere, &[("subject_issuer", provider)]).await);
    }
}

#[tokio::test]
async fn our_own_tokens_prove_nothing_here() {
    let bench = Bench::new().await;
    let trust = json!({"provider": "oidc", "issuer": bench.issuer(), "subject": "agent:bot", "jwks": bench.key.jwks()});
    bench.agent("bot", trust).await;
    for issuer in [bench.issuer(), bench.issuer().replace("acme", "globex")] {
        let claims = json!({"iss": issuer, "sub": "agent:bot", "aud": bench.issuer(), "iat": bench.now(), "exp": bench.now() + 60});
        let token = bench.key.token(&claims);
        Bench::refused(bench.exchange(&token, &[("subject_issuer", "oidc")]).await);
        Bench::refused(bench.request(&[("grant_type", JWT_BEARER), ("assertion", &token)]).await);
    }
    // Without a platform named it is an ordinary exchange of a token that is not good.
    let claims = json!({"iss": bench.issuer(), "sub": "agent:bot"});
    let wire = bench.exchange(&bench.key.token(&claims), &[]).await.unwrap_err().to_wire();
    assert_ne!(wire.error, "workload_identity_failed");
}

#[tokio::test]
async fn an_agent_attests_itself() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", cluster_trust()).await;
    bench.agent("twin", cluster_trust()).await;
    let other = bench.agent("other", with(cluster_trust(), "namespace", "other")).await;
    let token = bench.key.token(&cluster_claims(&bench));
    let origin = Origin::default();
    for name in [agent.id.to_string(), agent.id.uuid().to_string(), "bot".to_owned()] {
        let done = bench.server.attest(&bench.org, &name, &token, &origin).await.unwrap();
        let body = serde_json::to_value(&done).unwrap();
        assert_eq!(
            body["identity"],
            json!({"provider": "kubernetes", "subject": "system:serviceaccount:ops:bot",
                                            "issuer": CLUSTER, "audience_generic": false})
        );
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&json!("Bearer"), &json!(3600), &json!("read:a write:b"))
        );
        assert_eq!(claims_of(&done.token)["agent_id"], agent.id.to_string());
    }
    let mut disabled = bench.org.clone();
    assert!(disabled.set_active(false));
    let own = bench
        .request(&[("grant_type", JWT_BEARER), ("assertion", &token), ("agent_id", &agent.id.to_string())])
        .await
        .unwrap();
    for (org, name, token) in [
        (&bench.org, other.id.to_string(), token.as_str()),
        (&bench.org, "nobody".to_owned(), token.as_str()),
        (&bench.org, "../bot".to_owned(), token.as_str()),
        (&bench.org, "bot".to_owned(), ""),
        (&bench.org, "bot".to_owned(), "x.y.z"),
        (&bench.org, "bot".to_owned(), own.access_token.expose()),
        (&disabled, "bot".to_owned(), token.as_str()),
    ] {
        let outcome = bench.server.attest(org, &name, token, &origin).await;
        Bench::refused(outcome.map(|done| done.token));
        let event = bench.logged().await;
        assert_eq!(event.auth_method.as_deref(), Some("workload_identity"));
        assert!(!serde_json::to_string(&event).unwrap().contains(&bench.key.token(&json!({}))[..20]));
    }
}

#[tokio::test]
async fn an_agent_that_may_be_elsewhere_only_or_may_not_use_its_platform_gets_nothing() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", cluster_trust()).await;
    let token = bench.key.token(&cluster_claims(&bench));
    let listed = |networks: &[&str]| networks.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    // Where these requests come from is not known.
    bench.change(&agent, |agent| agent.allowed_ips = listed(&["0.0.0.0/0", "::/0"])).await;
    Bench::refused(bench.exchange(&token, &[]).await);
    let event = bench.logged().await;
    assert_eq!(event.context["cause"], "the address is none of those that the agent may come from");
    assert_eq!(*event.target.unwrap().id, agent.id.to_string());
    bench.change(&agent, |agent| agent.allowed_ips.clear()).await;
    assert!(bench.exchange(&token, &[]).await.is_ok());
    for (methods, works) in [
        (vec![AuthMethod::PrivateKeyJwt], false),
        (vec![AuthMethod::ApiKey, AuthMethod::WorkloadIdentity], true),
    ] {
        let change = |agent: &mut Agent| {
            agent.identity_type = IdentityType::Custom;
            agent.auth_methods = methods;
        };
        bench.change(&agent, change).await;
        assert_eq!(bench.exchange(&token, &[]).await.is_ok(), works);
    }
}
