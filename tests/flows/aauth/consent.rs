//! Asking a person what an agent wants at a resource.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, CALLBACK, Org, Person, Request, Response, Server, Token, at_once,
    on_each_backend, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    address_leads_to_the_question,
    question_says_who_asks_for_what,
    question_is_answered_once_by_whichever_door,
    many_answers_at_once_are_one,
    answer_no_gives_no_code,
    only_people_in_person_decide,
    what_is_no_decision_is_refused,
    state_comes_back_and_redirect_uri_is_not_changed,
    what_was_allowed_is_not_asked_again,
    level_user_asks_each_time,
    level_authenticated_asks_once,
    level_authenticated_is_answered_with_all_or_nothing,
    nothing_in_particular_is_asked_each_time,
    words_of_one_resource_are_not_those_of_another,
    question_of_another_browser_is_not_answered,
    question_ends_with_the_agent_the_resource_and_the_address,
    other_organization_knows_no_question,
    program_may_narrow_nothing_by_the_json_door,
);

fn all<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>, Person<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person())
}

fn enter(org: &Org<'_>, query: &str) -> Request {
    org.get(&format!("/aauth/agent/auth?{query}")).header("Accept", "application/json")
}

/// Where a browser is sent, as a path.
#[track_caller]
fn next(org: &Org<'_>, answer: &Response) -> String {
    assert_eq!(answer.status, 302, "{answer}");
    let location = answer.header("location").expect("a location");
    let path = location.strip_prefix(&org.server().url()).unwrap_or(location);
    assert!(path.starts_with("/orgs/"), "{answer}");
    path.to_owned()
}

/// What the person is asked, or where they are sent on to.
fn asked(person: &Person<'_>, query: &str) -> Response {
    let org = &person.org;
    let path = next(org, &enter(org, query).send());
    org.server()
        .request("GET", &path)
        .header("Accept", "application/json")
        .header("Cookie", &person.cookie)
        .send()
}

fn ask(person: &Person<'_>, request_token: &str) -> Response {
    asked(person, &format!("request_token={request_token}"))
}

fn address_leads_to_the_question(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    assert!(ask(&alice, &token).ok()["challenge_id"].is_string());
    // Looking decides nothing.
    assert!(ask(&alice, &token).ok()["challenge_id"].is_string());
    let org = &agent.org;
    enter(org, "").send().refused(400, "invalid_request");
    for query in ["request_token=", "request_token=areq_x", "request_token=x&request_token=y", "token=x"] {
        enter(org, query).send().refused(400, "invalid_request");
    }
    let twice = format!("request_token={token}&request_token={token}");
    enter(org, &twice).send().refused(400, "invalid_request");
    let page = org.get("/aauth/agent/auth?request_token=%3Cscript%3E").header("Accept", "text/html").send();
    assert_eq!(page.status, 400);
    assert!(!page.text().contains("<script>"), "{page}");
}

fn question_says_who_asks_for_what(server: &Server) {
    let org = server.acme();
    let name = format!("{} & Co", unique("Reader"));
    let resource = org.aauth_resource(json!({
        "default_auth_level": "authorized", "name": "The <Archive>",
        "scope_descriptions": { "read": "Look at everything" },
    }));
    let (agent, alice) = (org.aauth_agent(json!({ "name": name })), org.person());
    let token = agent.question(&resource, "read write");
    let body = ask(&alice, &token).ok();
    let all = body.to_string();
    for said in [&name, &resource.identifier, "Look at everything"] {
        assert!(all.contains(said), "{said}: {all}");
    }
    let path = next(&org, &enter(&org, &format!("request_token={token}")).send());
    let page =
        server.request("GET", &path).header("Accept", "text/html").header("Cookie", &alice.cookie).send();
    assert_eq!(page.status, 200, "{page}");
    let text = page.text();
    assert!(!text.contains(&name) && text.contains(&name.replace('&', "&amp;")), "{page}");
    assert!(text.contains(&agent.identifier) && text.contains(&resource.identifier), "{page}");
    assert!(text.contains("Look at everything") && text.contains(&alice.email), "{page}");
    assert!(!text.contains("<Archive>"), "{page}");
    // A person who is not signed in is not told.
    let page = server.request("GET", &path).header("Accept", "text/html").send();
    assert!(!page.text().contains(&resource.identifier), "{page}");
}

fn question_is_answered_once_by_whichever_door(server: &Server) {
    let (agent, _, alice) = all(server);
    for decision in ["approve", "deny"] {
        let resource = agent.org.aauth_resource_of("authorized");
        // Program, then program.
        let token = agent.question(&resource, "write");
        alice.decide_aauth(&token, decision).ok();
        alice.decide_aauth(&token, "approve").refused(409, "conflict");
        // Program, then page.
        let token = agent.question(&resource, "write admin");
        let challenge = ask(&alice, &token).ok();
        alice.decide_aauth(&token, decision).ok();
        alice.decide(&challenge, "approve", &[]).refused(409, "conflict");
        enter(&agent.org, &format!("request_token={token}")).send().refused(409, "conflict");
        // Page, then program, then page.
        let resource = agent.org.aauth_resource_of("user");
        let token = agent.question(&resource, "read");
        let challenges = [ask(&alice, &token).ok(), ask(&alice, &token).ok()];
        alice.decide(&challenges[0], decision, &[]).ok();
        alice.decide_aauth(&token, "approve").refused(409, "conflict");
        alice.decide(&challenges[1], "approve", &[]).refused(409, "conflict");
    }
}

fn many_answers_at_once_are_one(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = &*agent.question(&resource, "read");
    let bearer = &*alice.in_person("openid");
    let body = json!({ "request_token": token, "decision": "approve" });
    let answers = at_once(8, |_| alice.org.post("/aauth/consent").bearer(bearer).json(body.clone()).send());
    let (yes, no): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(yes.len(), 1);
    for answer in no {
        answer.refused(409, "conflict");
    }
    agent.redeem(text(&yes[0].json()["code"])).ok();
}

fn answer_no_gives_no_code(server: &Server) {
    let (agent, resource, alice) = all(server);
    let body = alice.decide_aauth(&agent.question(&resource, "read"), "deny").ok();
    assert!(body["code"].is_null(), "{body}");
    let to = text(&body["redirect_to"]);
    assert!(to.starts_with(CALLBACK) && to.contains("error=access_denied"), "{to}");
    let token = agent.question(&resource, "read");
    let body = alice.decide(&ask(&alice, &token).ok(), "deny", &[]).ok();
    let to = text(&body["redirect_to"]);
    assert!(to.starts_with(CALLBACK) && to.contains("error=access_denied"), "{to}");
    // It is no consent: the next one asks again.
    ask(&alice, &agent.question(&resource, "read")).ok()["challenge_id"].as_str().expect("a question");
}

fn only_people_in_person_decide(server: &Server) {
    let (agent, resource, alice) = all(server);
    let org = &agent.org;
    let token = agent.question(&resource, "read");
    let body = json!({ "request_token": token, "decision": "approve" });
    let post = || org.post("/aauth/consent").json(body.clone());
    let robot = org.delegate(&["read:a"]);
    post().bearer(&robot.token()).send().refused(403, "forbidden");
    // The person through an agent, by either sort of token.
    let through = alice.allow(&robot, "read:a");
    post().bearer(&through.access).send().refused(403, "forbidden");
    post().bearer(&robot.acting_for(&through.access)).send().refused(403, "forbidden");
    for nothing in [agent.token(), resource.token_for(&agent), token.clone(), "x".to_owned()] {
        post().bearer(&nothing).send().refused(401, "invalid_token");
    }
    let granted = agent.tokens(&org.aauth_resource(json!({})));
    post().bearer(text(&granted["auth_token"])).send().refused(401, "invalid_token");
    post().send().refused_somehow();
    // Neither with an administrator's key, nor with the person's browser alone.
    post().api_key(org.key()).send().refused_somehow();
    post().header("Cookie", &alice.cookie).send().refused_somehow();
    alice.decide_aauth(&token, "approve").ok();
}

fn what_is_no_decision_is_refused(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    let bearer = alice.in_person("openid");
    let post = |body: Value| alice.org.post("/aauth/consent").bearer(&bearer).json(body).send();
    for body in [
        json!({}),
        json!({ "request_token": token }),
        json!({ "decision": "approve" }),
        json!({ "request_token": token, "decision": "yes" }),
        json!({ "request_token": token, "decision": true }),
        json!({ "request_token": 1, "decision": "approve" }),
        json!([token]),
    ] {
        let answer = post(body);
        assert_eq!(answer.status, 400, "{answer}");
        answer.refused_somehow();
    }
    for unknown in ["areq_unknown", "", &"x".repeat(5000)] {
        let answer = post(json!({ "request_token": unknown, "decision": "approve" }));
        assert!(matches!(answer.status, 400 | 404), "{answer}");
        answer.refused_somehow();
    }
    post(json!({ "request_token": token, "decision": "approve" })).ok();
}

fn state_comes_back_and_redirect_uri_is_not_changed(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    let query = format!("request_token={token}&state=a%20b%26c&redirect_uri={CALLBACK}");
    let challenge = asked(&alice, &query).ok();
    let body = alice.decide(&challenge, "approve", &[]).ok();
    let to = text(&body["redirect_to"]);
    assert!(to.starts_with(&format!("{CALLBACK}?")), "{to}");
    assert!(to.contains("state=a+b%26c") || to.contains("state=a%20b%26c"), "{to}");
    assert!(to.contains("iss="), "{to}");
    agent.redeem(text(&body["code"])).ok();
    let token = agent.question(&resource, "read write");
    let query = format!("request_token={token}&redirect_uri=https://evil.test/");
    let org = &agent.org;
    let answer = enter(org, &query).send();
    if answer.status == 302 {
        let path = next(org, &answer);
        let request = server.request("GET", &path).header("Accept", "application/json");
        request.header("Cookie", &alice.cookie).send().refused(400, "invalid_request");
    } else {
        answer.refused(400, "invalid_request");
    }
}

fn what_was_allowed_is_not_asked_again(server: &Server) {
    let (agent, resource, alice) = all(server);
    alice.give(&agent, &resource, "read write");
    // No silent grant: nobody knows here for whom the agent asks.
    let token = agent.question(&resource, "read");
    let given = agent.redeem(&code_without_a_question(&ask(&alice, &token))).ok();
    let claims = Token::parse(text(&given["auth_token"])).claims;
    assert_eq!((&claims["scope"], &claims["auth_level"]), (&json!("read"), &json!("authorized")));
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(alice.id), &json!(resource.identifier)));
    // It is answered by that.
    alice.decide_aauth(&token, "approve").refused(409, "conflict");
    // More is a new question, and so are another agent, another resource and another person.
    let question =
        |person: &Person<'_>, agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, scope: &str| {
            ask(person, &agent.question(resource, scope)).ok()["challenge_id"].is_string()
        };
    assert!(question(&alice, &agent, &resource, "read admin"));
    assert!(question(&alice, &agent.org.aauth_agent(json!({})), &resource, "read"));
    assert!(question(&alice, &agent, &agent.org.aauth_resource_of("authorized"), "read"));
    assert!(question(&agent.org.person(), &agent, &resource, "read"));
    super::codes::withdraw(&alice, &agent);
    assert!(question(&alice, &agent, &resource, "read"));
}

/// The code with which the browser is sent on at once.
#[track_caller]
fn code_without_a_question(answer: &Response) -> String {
    let location = answer.header("location").map(str::to_owned);
    let location = location.unwrap_or_else(|| text(&answer.json()["redirect_to"]).to_owned());
    let rest = location.strip_prefix(&format!("{CALLBACK}?code="));
    let rest = rest.unwrap_or_else(|| panic!("{location}: {answer}"));
    rest.split('&').next().unwrap_or(rest).to_owned()
}

fn level_user_asks_each_time(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) = (org.aauth_agent(json!({})), org.aauth_resource_of("user"), org.person());
    for _ in 0..2 {
        let challenge = ask(&alice, &agent.question(&resource, "read")).ok();
        alice.decide(&challenge, "approve", &[]).ok();
    }
}

fn level_authenticated_asks_once(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource_of("authenticated"));
    let alice = org.person();
    alice.give(&agent, &resource, "read");
    let code = code_without_a_question(&ask(&alice, &agent.question(&resource, "read write")));
    let given = agent.redeem(&code).ok();
    assert_eq!(given["scope"], "read write");
    assert_eq!(Token::parse(text(&given["auth_token"])).claims["sub"], *alice.id);
    // Somebody else is asked.
    let bob = org.person();
    assert!(ask(&bob, &agent.question(&resource, "read")).ok()["challenge_id"].is_string());
}

fn level_authenticated_is_answered_with_all_or_nothing(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource_of("authenticated"));
    let alice = org.person();
    let question = || ask(&alice, &agent.question(&resource, "read write")).ok();
    let asked = question();
    alice.decide(&asked, "approve", &[("scopes", "read")]).refused(400, "invalid_request");
    // That decided nothing, and what she says no to is not given the next time.
    alice.decide(&asked, "deny", &[]).ok();
    let asked = question();
    let body = alice.decide(&asked, "approve", &[("scopes", "read write")]).ok();
    assert_eq!(agent.redeem(text(&body["code"])).ok()["scope"], "read write");
    // Where each scope is asked for, she may choose.
    let resource = org.aauth_resource_of("authorized");
    let asked = ask(&alice, &agent.question(&resource, "read write")).ok();
    let body = alice.decide(&asked, "approve", &[("scopes", "read")]).ok();
    assert_eq!(agent.redeem(text(&body["code"])).ok()["scope"], "read");
    assert!(ask(&alice, &agent.question(&resource, "read write")).ok()["challenge_id"].is_string());
}

fn nothing_in_particular_is_asked_each_time(server: &Server) {
    let (agent, resource, alice) = all(server);
    alice.give(&agent, &resource, "read");
    for resource in [&resource, &agent.org.aauth_resource_of("authorized")] {
        for _ in 0..2 {
            let asked = ask(&alice, &agent.question(resource, "")).ok();
            let body = alice.decide(&asked, "approve", &[]).ok();
            assert_eq!(agent.redeem(text(&body["code"])).ok()["scope"], "");
        }
    }
}

fn words_of_one_resource_are_not_those_of_another(server: &Server) {
    let (org, words) = (server.acme(), json!(["openid", "email", "profile", "read"]));
    let of = || {
        org.aauth_resource(json!({ "default_auth_level": "authorized", "supported_scopes": words.clone() }))
    };
    let (agent, one, other, alice) = (org.aauth_agent(json!({})), of(), of(), org.person());
    alice.give(&agent, &one, "openid email profile");
    code_without_a_question(&ask(&alice, &agent.question(&one, "email")));
    for word in ["openid", "email", "profile", "read"] {
        assert!(ask(&alice, &agent.question(&other, word)).ok()["challenge_id"].is_string(), "{word}");
    }
}

fn question_of_another_browser_is_not_answered(server: &Server) {
    let (agent, resource, alice) = all(server);
    let mallory = agent.org.person();
    let challenge = ask(&alice, &agent.question(&resource, "read")).ok();
    mallory.decide(&challenge, "approve", &[]).refused(403, "forbidden");
    let mut forged = challenge.clone();
    forged["csrf_token"] = json!("forged");
    alice.decide(&forged, "approve", &[]).refused(403, "forbidden");
    alice.decide(&challenge, "approve", &[]).ok();
}

fn question_ends_with_the_agent_the_resource_and_the_address(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    let path = format!("/aauth/agents/{}", agent.id);
    let moved = json!({ "redirect_uris": ["https://moved.test/cb"] });
    agent.org.admin("PATCH", &path).json(moved).send().ok();
    let answer = asked_or_refused(&alice, &token);
    answer.refused(400, "invalid_request");
    alice.decide_aauth(&token, "approve").refused(400, "invalid_request");

    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
    asked_or_refused(&alice, &token).refused(400, "invalid_request");
    alice.decide_aauth(&token, "approve").refused(400, "invalid_request");

    let (agent, resource, alice) = all(server);
    let (token, challenge) = {
        let token = agent.question(&resource, "read");
        let challenge = ask(&alice, &token).ok();
        (token, challenge)
    };
    agent.admin("POST", "/deactivate").send().ok();
    alice.decide(&challenge, "approve", &[]).refused_somehow();
    asked_or_refused(&alice, &token).refused(400, "invalid_request");
    alice.decide_aauth(&token, "approve").refused(400, "invalid_request");
}

fn asked_or_refused(person: &Person<'_>, token: &str) -> Response {
    let answer = enter(&person.org, &format!("request_token={token}")).send();
    if answer.status == 302 { ask(person, token) } else { answer }
}

fn other_organization_knows_no_question(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = agent.question(&resource, "read");
    let there = server.globex();
    enter(&there, &format!("request_token={token}")).send().refused(400, "invalid_request");
    let eve = there.person();
    eve.decide_aauth(&token, "approve").refused(400, "invalid_request");
    let body = json!({ "request_token": token, "decision": "approve" });
    let post = agent.org.post("/aauth/consent").bearer(&eve.in_person("openid")).json(body);
    post.send().refused(403, "forbidden");
    alice.decide_aauth(&token, "approve").ok();
}

fn program_may_narrow_nothing_by_the_json_door(server: &Server) {
    let (agent, resource, alice) = all(server);
    let body = json!({
        "request_token": agent.question(&resource, "read"), "decision": "approve", "scope": "read write admin",
        "redirect_uri": "https://evil.test",
    });
    let answer = alice.org.post("/aauth/consent").bearer(&alice.in_person("openid")).json(body).send().ok();
    assert!(text(&answer["redirect_to"]).starts_with(CALLBACK));
    assert_eq!(agent.redeem(text(&answer["code"])).ok()["scope"], "read");
}
