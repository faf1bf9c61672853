//! `allowedIps`: an agent that may come from some addresses only, with whatever it has.

use lumoauth_tests::{
    Agent, AttackerKey, CALLBACK, DpopKey, Ed25519, Issuer, JWT, Request, Response, Server, list,
    on_each_backend, sts_token, text, unique, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    list_is_kept_shown_and_replaced,
    list_that_is_none_is_refused,
    secret_works_from_there_only,
    assertion_works_from_there_only_and_is_not_used_up_elsewhere,
    api_key_works_from_there_only,
    tokens_work_from_there_only_and_again_later,
    bound_token_works_from_there_only_and_its_proof_is_not_used_up_elsewhere,
    token_of_a_person_works_where_its_agent_may_be,
    token_for_a_resource_works_from_there_only,
    whoever_asks_for_an_exchange_must_be_there,
    workload_works_from_there_only,
    signed_request_of_aws_is_neither_sent_nor_used_up_elsewhere,
    signature_works_from_there_only_and_is_not_used_up_elsewhere,
    every_refusal_is_in_the_log,
    addresses_in_headers_are_not_believed,
);

/// All tests come from 127.0.0.1, so the list moves and not the client.
const HERE: [&str; 6] =
    ["127.0.0.1", "127.0.0.1/32", "127.0.0.0/31", "0.0.0.0/0", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"];
const ELSEWHERE: [&str; 7] =
    ["127.0.0.0", "127.0.0.2/31", "126.0.0.0/8", "128.0.0.0/1", "::1", "::/0", "::127.0.0.1"];

const CAUSE: &str = "the address is none of those that the agent may come from";

/// An agent that may come from anywhere yet.
trait Moved {
    fn listing(&self, networks: Value) -> Response;

    fn away(&self) {
        self.listing(json!(ELSEWHERE)).ok();
    }

    fn back(&self) {
        self.listing(json!(["10.0.0.0/8", "127.0.0.1"])).ok();
    }

    /// `accepted` while the agent is where it may be, `refused` while it is not, and `accepted` again.
    #[track_caller]
    fn is_bound(&self, accepted: impl Fn(), refused: impl Fn()) {
        accepted();
        for network in ELSEWHERE {
            self.listing(json!([network])).ok();
            refused();
        }
        self.away();
        refused();
        for network in HERE {
            self.listing(json!([network])).ok();
            accepted();
        }
        self.away();
        self.listing(json!([])).ok();
        accepted();
    }
}

impl Moved for Agent<'_> {
    fn listing(&self, networks: Value) -> Response {
        self.admin("PATCH", "").json(json!({ "allowedIps": networks })).send()
    }
}

fn list_is_kept_shown_and_replaced(server: &Server) {
    let org = server.acme();
    let body =
        json!({ "name": unique("Agent"), "allowedIps": ["10.1.2.3/8", "::ffff:192.0.2.1", "2001:DB8::/32"] });
    let made = org.admin("POST", "/agents").json(body).send().expect(201).json()["data"].clone();
    let shown = json!(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]);
    assert_eq!(made["allowedIps"], shown);
    let path = format!("/agents/{}", text(&made["agentId"]));
    let read = || org.admin("GET", &path).send().ok()["data"]["allowedIps"].clone();
    assert_eq!(read(), shown);
    let search = format!("/agents?search={}", text(&made["slug"]));
    assert_eq!(list(&org.admin("GET", &search).send().ok()["data"])[0]["allowedIps"], shown);
    let change = |networks: Value| {
        let answer = org.admin("PATCH", &path).json(json!({ "allowed_ips": networks })).send().ok();
        answer["data"]["allowedIps"].clone()
    };
    assert_eq!(change(Value::Null), shown);
    assert_eq!(change(json!(["192.0.2.7", "192.0.2.7/32"])), json!(["192.0.2.7"]));
    assert_eq!(read(), json!(["192.0.2.7"]));
    let rows = org.audit(&format!("action=agent.updated&targetId={}", text(&made["agentId"])));
    assert_eq!(rows[0]["context"]["before"]["allowedIps"], shown, "{rows:?}");
    assert_eq!(rows[0]["context"]["after"]["allowedIps"], json!(["192.0.2.7"]));
    assert_eq!(change(json!([])), Value::Null);
    assert_eq!(read(), Value::Null);
}

fn list_that_is_none_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.listing(json!(["192.0.2.0/24"])).ok();
    let many: Vec<_> = (0..=100).map(|n| format!("192.0.2.{n}")).collect();
    for bad in [
        json!("127.0.0.1"),
        json!(true),
        json!({}),
        json!([1]),
        json!([null]),
        json!([["127.0.0.1"]]),
        json!([""]),
        json!(["*"]),
        json!(["127.0.0.1", "localhost"]),
        json!(["127.0.0.1/33"]),
        json!(["127.0.0.1/"]),
        json!(["::1/129"]),
        json!(["127.0.0.1:80"]),
        json!(["127.0.0"]),
        json!(["0127.0.0.1"]),
        json!(["127.0.0.0-127.0.0.9"]),
        json!(many),
    ] {
        agent.listing(bad.clone()).refused(400, "validation_error");
        let body = json!({ "name": unique("Agent"), "allowedIps": bad });
        agent.org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    assert_eq!(agent.admin("GET", "").send().ok()["data"]["allowedIps"], json!(["192.0.2.0/24"]));
}

fn secret_works_from_there_only(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let grant = [("grant_type", "client_credentials")];
    let basic = || agent.org.post("/oauth/token").basic(&agent.client_id, &agent.secret).form(&grant).send();
    agent.is_bound(
        || {
            agent.ask_token(&[]).ok();
            basic().ok();
        },
        || {
            let answer = agent.ask_token(&[]);
            answer.refused(401, "invalid_client");
            basic().refused(401, "invalid_client");
            // Nobody learns from the answer that the secret was right.
            assert_eq!(answer.body, agent.token_request("guess", &[]).send().body);
            for path in ["/oauth/introspect", "/oauth/revoke"] {
                let form =
                    [("token", "x"), ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
                agent.org.post(path).form(&form).send().refused(401, "invalid_client");
            }
        },
    );
}

fn assertion_works_from_there_only_and_is_not_used_up_elsewhere(server: &Server) {
    let key = AttackerKey::generate();
    let agent = server.acme().create_agent(json!({
        "capabilities": ["read:a"], "redirectUris": [CALLBACK], "jwks": { "keys": [key.jwk("k1")] },
    }));
    let assertion = || {
        let (id, now) = (&agent.client_id, unix_now());
        let claims = json!({
            "iss": id, "sub": id, "aud": agent.org.issuer(), "jti": unique("jti"), "iat": now, "exp": now + 300,
        });
        key.sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims)
    };
    let present = |assertion: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        agent.org.post("/oauth/token").form(&form).send()
    };
    agent.is_bound(
        || drop(present(&assertion()).ok()),
        || drop(present(&assertion()).refused(401, "invalid_client")),
    );
    agent.away();
    let one = assertion();
    present(&one).refused(401, "invalid_client");
    agent.back();
    present(&one).ok();
    present(&one).refused(401, "invalid_client");
}

fn api_key_works_from_there_only(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key", "capabilities": ["read:a"] }));
    let key = &agent.api_key;
    let check =
        server.request("POST", "/api/v1/authz/check").bearer(key).json(json!({ "permission": "read:a" }));
    agent.is_bound(
        || {
            agent.userinfo(key).ok();
            assert_eq!(agent.ask(key, "read:a").ok()["allowed"], true);
            check.send().ok();
        },
        || {
            agent.userinfo(key).refused(401, "invalid_token");
            agent.ask(key, "read:a").refused(401, "invalid_token");
            check.send().refused(401, "invalid_token");
        },
    );
}

fn tokens_work_from_there_only_and_again_later(server: &Server) {
    let org = server.acme();
    let (agent, admin) = (
        org.agent(&["read:a"]),
        org.app(json!({ "grantTypes": ["client_credentials"], "allowedScopes": ["admin"] })),
    );
    let token = agent.token();
    let introspect = org.post("/oauth/introspect").bearer(&token).form(&[("token", &token)]);
    let check =
        server.request("POST", "/api/v1/authz/check").bearer(&token).json(json!({ "permission": "read:a" }));
    let seen_by_another = || {
        let form =
            [("token", token.as_str()), ("client_id", &admin.client_id), ("client_secret", &admin.secret)];
        org.post("/oauth/introspect").form(&form).send().ok()["active"] == true
    };
    agent.is_bound(
        || {
            agent.userinfo(&token).ok();
            assert_eq!(agent.ask(&token, "read:a").ok()["allowed"], true);
            check.send().ok();
            introspect.send().ok();
        },
        || {
            let answer = agent.userinfo(&token);
            answer.refused(401, "invalid_token");
            assert_eq!(answer.body, agent.userinfo("nonsense").body);
            agent.ask(&token, "read:a").refused(401, "invalid_token");
            check.send().refused(401, "invalid_token");
            introspect.send().refused(401, "invalid_client");
            server.globex().get("/oauth/userinfo").bearer(&token).send().refused(401, "invalid_token");
            // It is alive all the same: who asks about it is somebody else.
            assert!(seen_by_another());
        },
    );
}

fn bound_token_works_from_there_only_and_its_proof_is_not_used_up_elsewhere(server: &Server) {
    let (agent, key) = (server.acme().agent(&["read:a"]), DpopKey::generate());
    let url = |path: &str| format!("{}{path}", agent.org.issuer());
    let proof = key.proof("POST", &url("/oauth/token"), None);
    let request = agent.token_request(&agent.secret, &[]).header("DPoP", &proof);
    agent.away();
    request.send().refused(401, "invalid_client");
    agent.back();
    let token = text(&request.send().ok()["access_token"]).to_owned();
    let userinfo = || {
        let proof = key.proof("GET", &url("/oauth/userinfo"), Some(&token));
        agent.org.get("/oauth/userinfo").dpop(&token, &proof)
    };
    agent.is_bound(|| drop(userinfo().send().ok()), || drop(userinfo().send().refused(401, "invalid_token")));
    let request = userinfo();
    agent.away();
    request.send().refused(401, "invalid_token");
    agent.back();
    request.send().ok();
}

fn token_of_a_person_works_where_its_agent_may_be(server: &Server) {
    let org = server.acme();
    let (agent, alice) = (org.delegate(&["read:a"]), org.person());
    let tokens = alice.allow(&agent, "openid read:a offline_access");
    let code = alice.code_for(&agent, "openid read:a");
    agent.is_bound(
        || drop(agent.userinfo(&tokens.access).ok()),
        || drop(agent.userinfo(&tokens.access).refused(401, "invalid_token")),
    );
    agent.away();
    agent.redeem(&code, &[]).refused(401, "invalid_client");
    agent.refresh(&tokens.refresh, &[]).refused(401, "invalid_client");
    agent.back();
    // Neither was used up.
    agent.redeem(&code, &[]).ok();
    agent.refresh(&tokens.refresh, &[]).ok();
}

fn token_for_a_resource_works_from_there_only(server: &Server) {
    let org = server.acme();
    let (agent, mcp) = (org.agent(&["read:a"]), org.mcp_server(json!({})));
    let bound = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    let bound = text(&bound["access_token"]);
    let path = format!("/mcp/{}/challenge", text(&mcp["server_id"]));
    let visit = || org.get(&path).bearer(bound).send();
    agent.is_bound(|| drop(visit().ok()), || assert_eq!(visit().status, 401));
}

fn whoever_asks_for_an_exchange_must_be_there(server: &Server) {
    let org = server.acme();
    let (alice, mcp) = (org.person(), org.mcp_server(json!({})));
    let (first, second) = (org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let person = alice.allow(&first, "openid read:a").access;
    let (own, others) = (first.token(), second.token());
    let delegated = text(&first.act_for(&person, &own, &[]).ok()["access_token"]).to_owned();
    let target = [("resource", text(&mcp["resource_uri"]))];
    first.is_bound(
        || {
            first.exchange(&own, &target).ok();
            first.act_for(&person, &own, &[]).ok();
            first.userinfo(&delegated).ok();
        },
        || {
            first.exchange(&own, &target).refused(400, "invalid_grant");
            first.exchange(&delegated, &target).refused(400, "invalid_grant");
            first.act_for(&person, &own, &[]).refused(400, "invalid_grant");
            first.userinfo(&delegated).refused(401, "invalid_token");
        },
    );
    // What it handed on is used by another one, who is somewhere else.
    first.away();
    second.act_for(&delegated, &others, &[]).ok();
    first.back();
    second.away();
    second.act_for(&delegated, &others, &[]).refused(400, "invalid_grant");
}

fn workload_works_from_there_only(server: &Server) {
    let (org, issuer) = (server.acme(), Issuer::start());
    let subject = unique("bot");
    let agent = org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a"],
        "workloadIdentity": {
            "provider": "oidc", "issuer": issuer.url(), "subject": subject, "audience": "https://lumoauth.test",
            "jwks": issuer.jwks(),
        },
    }));
    let token = issuer.sign(&json!({
        "iss": issuer.url(), "sub": subject, "aud": "https://lumoauth.test", "iat": unix_now(), "exp": unix_now() + 600,
    }));
    let bearer =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", token.as_str())];
    let attest = || {
        let path = format!("/agents/{}/attest", agent.agent_id);
        org.post(&path).json(json!({ "attestation_token": token })).send()
    };
    let all = || [org.exchange(&token, JWT, &[]), org.post("/oauth/token").form(&bearer).send(), attest()];
    agent.is_bound(
        || all().iter().for_each(|answer| drop(answer.ok())),
        || all().iter().for_each(|answer| drop(answer.refused(401, "workload_identity_failed"))),
    );
}

fn signed_request_of_aws_is_neither_sent_nor_used_up_elsewhere(server: &Server) {
    let (org, role) = (server.acme(), unique("role"));
    let agent = org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a"],
        "workloadIdentity": { "provider": "aws", "roleArn": format!("arn:aws:iam::123456789012:role/{role}") },
    }));
    let sts = lumoauth_tests::Sts::trusted();
    let session = sts.issue(&format!("arn:aws:sts::123456789012:assumed-role/{role}/i-0abc"));
    let request = sts_token(&session.sign("sts.eu-west-1.amazonaws.com", &org.issuer(), unix_now() + 60));
    let kind = "urn:lumoauth:token-type:aws-sts-request";
    let present = || org.exchange(&request, kind, &[("agent_id", &agent.agent_id)]);
    agent.away();
    present().refused(401, "workload_identity_failed");
    assert_eq!(sts.asked(&session), 0);
    agent.back();
    present().ok();
    assert_eq!(sts.asked(&session), 1);
}

fn signature_works_from_there_only_and_is_not_used_up_elsewhere(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let listing = |networks: Value| {
        agent.admin("PATCH", "").json(json!({ "allowedIps": networks })).send().ok();
    };
    let key = Ed25519::generate("d");
    let delegate = json!({ "delegate_sub": "worker-7", "delegate_public_key": key.jwk() });
    let ask = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    listing(json!(HERE));
    agent.ask_for(&resource).ok();
    agent.post("/aauth/agent/issue", &delegate).ok();
    let sent = agent.sent(&ask);
    listing(json!(ELSEWHERE));
    let refused = sent.send();
    assert_eq!(refused.status, 401, "{refused}");
    assert_eq!(refused.json()["details"]["reason"], "invalid_agent_token", "{refused}");
    assert_eq!(agent.post("/aauth/agent/issue", &delegate).status, 401);
    let mut rows = org.audit("action=aauth.refused");
    rows.retain(|row| row["context"]["claimed"] == agent.id.as_str());
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        assert_eq!((&row["context"]["cause"], &row["ipAddress"]), (&json!(CAUSE), &json!("127.0.0.1")));
    }
    listing(json!(["127.0.0.1"]));
    sent.send().ok();
    assert_eq!(sent.send().status, 401, "it is used up now");
}

fn every_refusal_is_in_the_log(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(json!({ "identityType": "custom", "capabilities": ["read:a"] }));
    let token = agent.token();
    agent.away();
    let exchange = lumoauth_tests::exchanging(&token, lumoauth_tests::ACCESS_TOKEN, &[("scope", "read:a")]);
    for (request, method, reason) in [
        (agent.token_request(&agent.secret, &[]), "client_credentials", "invalid_client"),
        (org.get("/oauth/userinfo").bearer(&token), "access_token", "invalid_token"),
        (org.get("/oauth/userinfo").bearer(&agent.api_key), "api_key", "invalid_token"),
        (org.post("/oauth/token").form(&exchange), "token_exchange", "invalid_grant"),
    ] {
        let row = refused_row(&agent, &request);
        assert_eq!((&row["authMethod"], &row["statusReason"]), (&json!(method), &json!(reason)), "{row}");
        assert_eq!(
            (&row["context"]["cause"], &row["ipAddress"]),
            (&json!(CAUSE), &json!("127.0.0.1")),
            "{row}"
        );
        let shown = row.to_string();
        assert!(shown.contains(&agent.agent_id), "{row}");
        assert!(
            ![&token, &agent.secret, &agent.api_key].iter().any(|secret| shown.contains(*secret)),
            "{row}"
        );
    }
    // A wrong secret is a wrong secret, wherever it comes from.
    let row = refused_row(&agent, &agent.token_request("guess", &[]));
    assert_eq!(row["context"]["cause"], Value::Null, "{row}");
}

/// The one failure that the request left in the log.
#[track_caller]
fn refused_row(agent: &Agent<'_>, request: &Request) -> Value {
    let mark = unique("mark");
    request.clone().header("User-Agent", &mark).send().refused_somehow();
    let mut rows = agent.org.audit("status=failure");
    rows.retain(|row| row["userAgent"] == mark);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn addresses_in_headers_are_not_believed(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.listing(json!(["192.0.2.1"])).ok();
    for (name, value) in [
        ("X-Forwarded-For", "192.0.2.1"),
        ("Forwarded", "for=192.0.2.1"),
        ("X-Real-IP", "192.0.2.1"),
        ("CF-Connecting-IP", "192.0.2.1"),
        ("True-Client-IP", "192.0.2.1"),
    ] {
        agent.token_request(&agent.secret, &[]).header(name, value).send().refused(401, "invalid_client");
    }
}
