//! Tokens of tasks: what they say, where they work, and when they end (contract 3.5, security JI).

use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{
    Agent, Org, Response, Server, Token, at_once, int, on_each_backend, percent_encode, text,
};
use serde_json::{Value, json};

use crate::jit::{asked, bare, complete, detail, opened, request, reviewer, setting};

on_each_backend!(
    claims_are_those_of_the_task,
    token_ends_with_its_task,
    token_ends_with_its_agent,
    later_tokens_end_with_the_first,
    token_is_never_exchanged,
    token_opens_no_route_of_ours,
    token_is_for_its_place_and_its_detail_only,
    resource_says_what_is_missing_and_takes_what_was_granted,
    server_that_lets_the_agent_not_in_is_not_reached_by_a_task,
    task_for_a_person_stands_on_what_they_allowed,
    task_by_a_delegated_token_ends_with_it,
    tokens_and_completion_race,
);

fn granted(agent: &Agent<'_>, token: &str, task: &str, wanted: Value) -> String {
    let made = asked(agent, token, task, wanted);
    assert_eq!(made["status"], "approved", "{made}");
    text(&made["request_id"]).to_owned()
}

fn mint(org: &Org<'_>, token: &str, id: &str) -> Response {
    bare(org, token, &format!("/jit/request/{id}/token"))
}

fn issued(agent: &Agent<'_>, token: &str, task: &str, wanted: Value) -> String {
    let id = granted(agent, token, task, wanted);
    text(&mint(&agent.org, token, &id).ok()["access_token"]).to_owned()
}

fn claims_are_those_of_the_task(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let mut wanted = detail("file_access", &["read"]);
    wanted["locations"] = json!(["https://files.test/a", "https://files.test/b"]);
    let id = granted(&agent, &token, &task, wanted.clone());
    let answer = mint(&org, &token, &id);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.ok();
    assert_eq!(
        (&body["token_type"], &body["task_id"], &body["jit_request_id"]),
        (&json!("Bearer"), &json!(task), &json!(id))
    );
    assert_eq!(body["authorization_details"], json!([wanted]));
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert!((295..=300).contains(&int(&body["expires_in"])), "{body}");
    let jwt = Token::parse(text(&body["access_token"]));
    assert_eq!((&jwt.header["typ"], jwt.header["alg"] != "HS256"), (&json!("at+jwt"), true));
    let claims = &jwt.claims;
    assert_eq!(claims["sub"], format!("agent:{}:task:{task}", agent.slug));
    assert_eq!(
        (&claims["jit"], &claims["task_id"], &claims["jit_request_id"]),
        (&json!(true), &json!(task), &json!(id))
    );
    assert_eq!(
        (&claims["agent_id"], &claims["client_id"]),
        (&json!(agent.agent_id), &json!(agent.client_id))
    );
    assert_eq!(
        (&claims["authorization_details"], &claims["aud"]),
        (&json!([wanted]), &json!("https://files.test/a"))
    );
    let none = Some(&Value::Null);
    assert_eq!((&claims["iss"], claims.get("parent_task_id")), (&json!(org.issuer()), none));
    assert!(text(&claims["caep_session_id"]).starts_with("caep_") && !text(&claims["jti"]).is_empty());
    assert!(int(&claims["exp"]) - int(&claims["iat"]) <= 300);
    let seen = org.introspect(&agent, &jwt.text);
    assert_eq!((&seen["active"], &seen["jit"], &seen["task_id"]), (&json!(true), &json!(true), &json!(task)));
    assert_eq!((&seen["authorization_details"], &seen["scope"]), (&json!([wanted]), &json!("")));
    // Without a place it is for whoever reads details, and names its client.
    let plain = Token::parse(&issued(&agent, &token, &task, detail("file_access", &["read"])));
    assert_eq!(plain.claims["aud"], agent.client_id.as_str());
    assert_eq!(org.introspect(&org.agent(&[]), &plain.text), json!({ "active": false }));
}

fn token_ends_with_its_task(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let id = granted(&agent, &token, &task, detail("file_access", &["read"]));
    let tokens: Vec<_> =
        (0..3).map(|_| text(&mint(&org, &token, &id).ok()["access_token"]).to_owned()).collect();
    for jit in &tokens {
        assert_eq!(org.introspect(&agent, jit)["active"], true);
    }
    complete(&agent, &token, &task);
    for jit in &tokens {
        assert_eq!(org.introspect(&agent, jit), json!({ "active": false }));
    }
    mint(&org, &token, &id).refused(403, "forbidden");
    // Revoked by hand, one ends alone.
    let task = opened(&agent, &token);
    let (one, two) = (
        issued(&agent, &token, &task, detail("file_access", &["read"])),
        issued(&agent, &token, &task, detail("file_access", &["read"])),
    );
    agent.revoke(&one);
    assert_eq!(org.introspect(&agent, &one), json!({ "active": false }));
    assert_eq!(org.introspect(&agent, &two)["active"], true);
}

fn token_ends_with_its_agent(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let id = granted(&agent, &token, &task, detail("file_access", &["read"]));
    let jit = text(&mint(&org, &token, &id).ok()["access_token"]).to_owned();
    agent.admin("POST", "/deactivate").send().ok();
    agent.admin("POST", "/activate").send().ok();
    assert_eq!(org.introspect(&agent, &jit), json!({ "active": false }));
    // The task was opened by who the agent was then.
    mint(&org, &agent.token(), &id).refused(403, "forbidden");
}

fn later_tokens_end_with_the_first(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let id = granted(&agent, &token, &task, detail("file_access", &["read"]));
    let first = Token::parse(text(&mint(&org, &token, &id).ok()["access_token"]));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let later = Token::parse(text(&mint(&org, &token, &id).ok()["access_token"]));
    assert_eq!(first.claims["exp"], later.claims["exp"]);
    assert_ne!(first.claims["jti"], later.claims["jti"]);
}

fn token_is_never_exchanged(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let mcp = org.mcp_server(json!({}));
    let jit = issued(&agent, &token, &task, detail("file_access", &["read"]));
    agent.exchange(&jit, &[]).refused(400, "invalid_grant");
    agent.exchange(&jit, &[("resource", text(&mcp["resource_uri"]))]).refused(400, "invalid_grant");
    let alice = org.person();
    let hers = alice.allow(&agent, "openid").access;
    agent.act_for(&hers, &jit, &[]).refused(400, "invalid_grant");
    let tool = org.agent(&[]);
    tool.act_for(&jit, &tool.token(), &[]).refused(400, "invalid_grant");
}

fn token_opens_no_route_of_ours(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let jit = issued(&agent, &token, &task, detail("file_access", &["read"]));
    assert_eq!(agent.userinfo(&jit).status, 401);
    assert_eq!(org.get("/agents/me").bearer(&jit).send().status, 401);
    assert_eq!(agent.ask(&jit, "read:a").status, 401);
    assert_eq!(org.post("/jit/task").bearer(&jit).json(json!({})).send().status, 401);
    assert_eq!(request(&agent, &jit, &task, detail("file_access", &["read"])).status, 401);
    assert_eq!(bare(&org, &jit, &format!("/jit/task/{task}/complete")).status, 401);
    let ask = org.post("/oauth/introspect").bearer(&jit).form(&[("token", &token)]);
    assert_eq!(ask.send().status, 401);
}

/// The simulated resource of an MCP server, which wants `required`.
fn visit(org: &Org<'_>, mcp: &Value, token: &str, required: &Value) -> Response {
    let query = percent_encode(&required.to_string());
    let path = format!("/mcp/{}/challenge?authorization_details={query}", text(&mcp["server_id"]));
    org.get(&path).bearer(token).send()
}

fn token_is_for_its_place_and_its_detail_only(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let (mcp, other) = (org.mcp_server(json!({})), org.mcp_server(json!({})));
    let wanted = detail("file_access", &["read", "list"]);
    let mut granted = wanted.clone();
    granted["locations"] = json!([mcp["resource_uri"]]);
    let jit = issued(&agent, &token, &task, granted);
    assert_eq!(visit(&org, &mcp, &jit, &wanted).ok()["status"], "authenticated");
    // Less than was granted is allowed, and nothing else is.
    assert_eq!(visit(&org, &mcp, &jit, &detail("file_access", &["list"])).status, 200);
    for more in [
        detail("file_access", &["read", "write"]),
        detail("file_access", &[]),
        detail("File_access", &["read"]),
        json!({ "type": "file_access", "actions": ["read"], "identifier": "*" }),
        json!({ "type": "file_access", "actions": ["read"], "identifier": "./report_q4.pdf" }),
        json!({ "type": "file_access", "actions": ["read"] }),
        json!({ "type": "file_access", "actions": ["read"], "identifier": "report_q4.pdf", "privileges": ["x"] }),
    ] {
        visit(&org, &mcp, &jit, &more).refused(403, "insufficient_authorization_details");
    }
    // Another place does not know it.
    assert_eq!(visit(&org, &other, &jit, &wanted).status, 401);
    // And it is no token of the MCP server.
    let plain = format!("/mcp/{}/challenge", text(&mcp["server_id"]));
    assert_eq!(org.get(&plain).bearer(&jit).send().status, 401);
}

fn resource_says_what_is_missing_and_takes_what_was_granted(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let mcp = org.mcp_server(json!({}));
    let refused = visit(&org, &mcp, &token, &detail("file_access", &["delete"]));
    refused.refused(403, "insufficient_authorization_details");
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert_eq!(challenge, "Bearer error=\"insufficient_authorization_details\"");
    let header = refused.header("insufficient-authorization-details").expect("what is missing");
    let missing: Value =
        serde_json::from_slice(&STANDARD.decode(header).expect("standard base64")).expect("JSON");
    assert_eq!(missing["locations"], json!([mcp["resource_uri"]]));
    // Asked for exactly as it came, decided by a person, used.
    let made = asked(&agent, &token, &task, missing);
    let id = text(&made["request_id"]);
    let (_, admin) = reviewer(&org);
    bare(&org, &admin, &format!("/jit/approve/{id}")).ok();
    let jit = text(&mint(&org, &token, id).ok()["access_token"]).to_owned();
    assert_eq!(visit(&org, &mcp, &jit, &detail("file_access", &["delete"])).status, 200);
    let visits = org.audit(&format!("action=mcp.connection&targetId={}", text(&mcp["server_id"])));
    let outcomes: Vec<_> = visits.iter().map(|entry| text(&entry["outcome"])).collect();
    assert_eq!(outcomes, ["success", "failure"], "the newest first: {visits:?}");
    complete(&agent, &token, &task);
    assert_eq!(visit(&org, &mcp, &jit, &detail("file_access", &["delete"])).status, 401);
    for bad in ["null", "[]", "{", "{\"type\":1}"] {
        let query = percent_encode(bad);
        let path = format!("/mcp/{}/challenge?authorization_details={query}", text(&mcp["server_id"]));
        org.get(&path).bearer(&token).send().refused(400, "invalid_request");
    }
}

fn server_that_lets_the_agent_not_in_is_not_reached_by_a_task(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let friend = org.agent(&[]);
    let mcp = org.mcp_server(json!({ "allowed_agent_ids": [friend.agent_id] }));
    let mut wanted = detail("file_access", &["read"]);
    for locations in [json!([mcp["resource_uri"]]), json!(["https://elsewhere.test", mcp["resource_uri"]])] {
        wanted["locations"] = locations;
        request(&agent, &token, &task, wanted.clone()).refused(400, "validation_error");
    }
    // Let in, asked, granted, and shut out again.
    let path = format!("/mcp/servers/{}", text(&mcp["server_id"]));
    let allow = |ids: Value| org.admin("PATCH", &path).json(json!({ "allowed_agent_ids": ids })).send().ok();
    allow(json!([friend.agent_id, agent.agent_id]));
    wanted["locations"] = json!([mcp["resource_uri"]]);
    let id = granted(&agent, &token, &task, wanted);
    let jit = text(&mint(&org, &token, &id).ok()["access_token"]).to_owned();
    assert_eq!(org.introspect(&agent, &jit)["mcp_server_id"], mcp["server_id"]);
    allow(json!([friend.agent_id]));
    mint(&org, &token, &id).refused(403, "forbidden");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(org.introspect(&agent, &jit), json!({ "active": false }));
}

fn task_for_a_person_stands_on_what_they_allowed(server: &Server) {
    let org = server.acme();
    let agent = org.delegate(&[]);
    let token = agent.token();
    let (alice, bob) = (org.person(), org.person());
    let open = |who: &str| org.post("/jit/task").bearer(&token).json(json!({ "on_behalf_of": who })).send();
    // Nobody who has not agreed, and nobody at all, are alike.
    assert_eq!(open(&bob.email).status, 400);
    assert_eq!(open("nobody@people.test").json()["details"], open(&bob.email).json()["details"]);
    let timid = org.agent(&[]);
    let body = json!({ "on_behalf_of": alice.email });
    org.post("/jit/task").bearer(&timid.token()).json(body).send().refused(403, "delegation_not_allowed");
    alice.allow(&agent, "openid");
    let made = open(&alice.email).expect(201).json();
    assert_eq!(made["on_behalf_of"], alice.id.as_str());
    let task = text(&made["task_id"]);
    let jit = issued(&agent, &token, task, detail("file_access", &["read"]));
    let claims = Token::parse(&jit).claims;
    assert_eq!(
        (&claims["on_behalf_of"], &claims["act"]["agent_id"]),
        (&json!(alice.id), &json!(agent.agent_id))
    );
    assert_eq!(org.introspect(&agent, &jit)["active"], true);
    let own = alice.in_person("openid consents");
    org.request("DELETE", &format!("/me/consents/{}", agent.client_id)).bearer(&own).send().ok();
    assert_eq!(org.introspect(&agent, &jit), json!({ "active": false }));
}

fn task_by_a_delegated_token_ends_with_it(server: &Server) {
    let org = server.acme();
    let agent = org.delegate(&[]);
    let alice = org.person();
    let delegated = agent.acting_for(&alice.allow(&agent, "openid").access);
    let made = org.post("/jit/task").bearer(&delegated).json(json!({})).send().expect(201).json();
    assert_eq!(made["on_behalf_of"], alice.id.as_str());
    let end = Token::parse(&delegated).claims["exp"].clone();
    assert_eq!(made["expires_at"], lumoauth_tests::rfc3339(int(&end)));
    let task = text(&made["task_id"]);
    let jit = issued(&agent, &delegated, task, detail("file_access", &["read"]));
    let claims = Token::parse(&jit).claims;
    assert_eq!((&claims["on_behalf_of"], &claims["delegation_depth"]), (&json!(alice.id), &json!(1)));
    // For somebody else it is not.
    let bob = org.person();
    let body = json!({ "on_behalf_of": bob.email });
    assert_eq!(org.post("/jit/task").bearer(&delegated).json(body).send().status, 400);
    // What it stands on ends, and so does it.
    agent.revoke(&delegated);
    assert_eq!(org.introspect(&agent, &jit), json!({ "active": false }));
}

fn tokens_and_completion_race(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let id = granted(&agent, &token, &task, detail("file_access", &["read"]));
    let tokens = at_once(8, |n| {
        if n == 4 {
            complete(&agent, &token, &task);
            return None;
        }
        let answer = mint(&org, &token, &id);
        (answer.status == 200).then(|| text(&answer.json()["access_token"]).to_owned())
    });
    for jit in tokens.into_iter().flatten() {
        assert_eq!(org.introspect(&agent, &jit), json!({ "active": false }));
    }
    mint(&org, &token, &id).refused(403, "forbidden");
}
