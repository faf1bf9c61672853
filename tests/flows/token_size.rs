//! No token is longer than what the server itself reads, whatever an agent may ask for.

use lumoauth_tests::{Agent, Response, Server, Token, on_each_backend, text, unique};
use serde_json::json;

on_each_backend!(
    scope_of_seven_kibibytes_is_refused,
    agent_with_too_many_capabilities_must_ask_for_less,
    largest_token_is_read_everywhere,
);

const LONGEST: usize = 16 * 1024;

fn capabilities(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| format!("read:{n:0>width$}", width = length - 5)).collect()
}

fn with<'a>(server: &'a Server, capabilities: &[String]) -> Agent<'a> {
    // The longest names that a token may carry.
    let name = format!("{} {}", unique("n"), "\u{20ac}".repeat(30));
    server.acme().create_agent(json!({ "name": name, "capabilities": capabilities }))
}

fn scope_of_seven_kibibytes_is_refused(server: &Server) {
    let agent = with(server, &["read:*".to_owned()]);
    let scope = capabilities(70, 100).join(" ");
    assert!(scope.len() > 7 * 1000);
    agent.ask_token(&[("scope", &scope)]).refused(400, "invalid_scope");
    let one = format!("read:{}", "x".repeat(7 * 1024));
    agent.ask_token(&[("scope", &one)]).refused(400, "invalid_scope");
    // Repeats are one item, but the parameter is as long as it is.
    let repeated = "read:a ".repeat(1024);
    agent.ask_token(&[("scope", &repeated)]).refused(400, "invalid_scope");
    let mcp = agent.org.mcp_server(json!({}));
    let target = [("resource", text(&mcp["resource_uri"])), ("scope", &scope)];
    agent.exchange(&agent.token(), &target).refused(400, "invalid_scope");
}

fn agent_with_too_many_capabilities_must_ask_for_less(server: &Server) {
    let all = capabilities(450, 40);
    let agent = with(server, &all);
    agent.ask_token(&[]).refused(400, "invalid_scope");
    let narrow = agent.ask_token(&[("scope", &all[449])]).ok();
    assert_eq!(narrow["scope"], all[449].as_str());
    let mcp = agent.org.mcp_server(json!({}));
    let resource = ("resource", text(&mcp["resource_uri"]));
    agent.ask_token(&[resource]).refused(400, "invalid_scope");
    agent.ask_token(&[resource, ("scope", &all[0])]).ok();
    // An administrator's test token has the same bound.
    let response = agent.admin("POST", "/token").json(json!({})).send();
    response.expect(400).refused_somehow();
}

fn largest_token_is_read_everywhere(server: &Server) {
    // 61 times 100 and the blanks between are just below the bound of 6 KiB.
    let agent = with(server, &capabilities(60, 100));
    let token = issued(&agent.ask_token(&[]));
    assert!(token.text.len() > LONGEST / 2, "{}: too small to show anything", token.text.len());
    let uri = format!("https://{}.test/{}", unique("mcp"), "p".repeat(180));
    let mcp = agent.org.mcp_server(json!({ "resource_uri": uri }));
    let bound = issued(&agent.exchange(&token.text, &[("resource", &uri)]));
    let own = issued(&agent.ask_token(&[("resource", &uri)]));
    agent.userinfo(&token.text).ok();
    assert_eq!(agent.org.introspect(&agent, &token.text)["active"], true);
    for token in [bound, own] {
        assert_eq!(agent.org.introspect(&agent, &token.text)["active"], true);
        let path = format!("/mcp/{}/challenge", text(&mcp["server_id"]));
        agent.org.get(&path).bearer(&token.text).send().ok();
    }
    let tested = agent.admin("POST", "/token").json(json!({})).send().ok();
    let tested = text(&tested["data"]["accessToken"]);
    assert!(tested.len() < LONGEST);
    agent.userinfo(tested).ok();
}

#[track_caller]
fn issued(response: &Response) -> Token {
    let token = Token::parse(text(&response.ok()["access_token"]));
    assert!(token.text.len() < LONGEST, "{} bytes", token.text.len());
    token
}
