//! Lists (contract 0.7), with agents as the example.

use std::collections::HashSet;

use lumoauth_tests::{Server, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    list_has_the_documented_envelope,
    pages_cover_everything_once,
    search_finds_by_name,
    status_and_type_filter,
    page_beyond_the_end_is_empty,
    limit_is_bounded,
    nonsense_in_the_query_is_never_a_fault,
    other_organizations_are_never_listed,
);

fn list_has_the_documented_envelope(server: &Server) {
    server.acme().agent(&[]);
    let body = server.acme().admin("GET", "/agents").send().ok();
    assert_eq!(body["resourceType"], "agents");
    assert_eq!(body["meta"], body["pagination"]);
    let meta = body["meta"].as_object().expect("an object");
    assert_eq!((int(&meta["page"]), int(&meta["limit"])), (1, 25));
    assert_eq!(meta.len(), 6, "{body}");
    assert_eq!(meta["hasPreviousPage"], false);
    assert!(list(&body["data"]).len() <= 25);
    for agent in list(&body["data"]) {
        for member in ["id", "agentId", "name", "status", "type", "clientId"] {
            assert!(agent[member].is_string(), "{member} in {agent}");
        }
        assert!(agent["capabilities"].is_array(), "{agent}");
    }
}

fn pages_cover_everything_once(server: &Server) {
    let mark = unique("pages");
    let expected: HashSet<String> = (0..7)
        .map(|n| server.acme().create_agent(json!({ "name": format!("{mark} {n}") })).agent_id)
        .collect();
    let mut seen = Vec::new();
    for page in 1..=3 {
        let query = format!("/agents?search={mark}&limit=3&page={page}");
        let body = server.acme().admin("GET", &query).send().ok();
        let meta = &body["meta"];
        assert_eq!((int(&meta["total"]), int(&meta["totalPages"]), int(&meta["page"])), (7, 3, page));
        assert_eq!((&meta["hasNextPage"], &meta["hasPreviousPage"]), (&json!(page < 3), &json!(page > 1)));
        seen.extend(ids(&body));
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected);
}

fn search_finds_by_name(server: &Server) {
    let mark = unique("needle");
    let agent = server.acme().create_agent(json!({ "name": format!("The {mark} Agent") }));
    let body = server.acme().admin("GET", &format!("/agents?search={mark}")).send().ok();
    assert_eq!(ids(&body), [agent.agent_id]);
    let none = server.acme().admin("GET", &format!("/agents?search={}", unique("absent"))).send().ok();
    assert_eq!((int(&none["meta"]["total"]), list(&none["data"]).len()), (0, 0));
}

fn status_and_type_filter(server: &Server) {
    let mark = unique("filter");
    let bot = server.acme().create_agent(json!({ "name": format!("{mark} a"), "type": "bot" }));
    let off = server.acme().create_agent(json!({ "name": format!("{mark} b") }));
    off.admin("POST", "/deactivate").send().ok();
    let find =
        |query: &str| ids(&server.acme().admin("GET", &format!("/agents?search={mark}&{query}")).send().ok());
    assert_eq!(find("status=active"), std::slice::from_ref(&bot.agent_id));
    assert_eq!(find("status=inactive"), std::slice::from_ref(&off.agent_id));
    assert_eq!(find("type=bot"), std::slice::from_ref(&bot.agent_id));
}

fn page_beyond_the_end_is_empty(server: &Server) {
    let body = server.acme().admin("GET", "/agents?page=100000").send().ok();
    assert_eq!(list(&body["data"]).len(), 0);
    assert_eq!(body["meta"]["hasNextPage"], false);
}

fn limit_is_bounded(server: &Server) {
    for limit in ["101", "1000000", "99999999999999999999"] {
        let response = server.acme().admin("GET", &format!("/agents?limit={limit}")).send();
        assert!(response.status == 400 || int(&response.ok()["meta"]["limit"]) <= 100, "{response}");
    }
}

fn nonsense_in_the_query_is_never_a_fault(server: &Server) {
    for query in [
        "page=0",
        "page=-1",
        "page=x",
        "limit=0",
        "limit=-5",
        "page=99999999999999999999",
        "sortBy=';DROP%20TABLE%20agents;--",
        "sortDir=sideways",
        "search=%00",
        "search=%ff",
        "search=(((((((((((a%2B)%2B)%2B)%2B",
        "status=unheard-of",
        "page=1&page=2",
        "&&&=&",
    ] {
        let response = server.acme().admin("GET", &format!("/agents?{query}")).send();
        assert!(matches!(response.status, 200 | 400), "{query}: {response}");
    }
}

fn other_organizations_are_never_listed(server: &Server) {
    let mark = unique("tenant");
    server.globex().create_agent(json!({ "name": mark }));
    let body = server.acme().admin("GET", &format!("/agents?search={mark}")).send().ok();
    assert_eq!(int(&body["meta"]["total"]), 0);
}

fn ids(body: &Value) -> Vec<String> {
    list(&body["data"]).iter().map(|agent| text(&agent["agentId"]).to_owned()).collect()
}
