//! Every way in that takes an access token of ours: none takes one that is bound to a key as a bearer token.

use lumoauth_tests::{
    ACCESS_TOKEN, Agent, DpopKey, JWT, Org, Request, Response, ServedRoute, Server, acted_by, exchanging,
    on_each_backend, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    no_route_takes_it_as_a_bearer_token,
    every_sort_of_route_takes_it_with_a_proof,
    it_is_neither_subject_nor_actor_of_an_exchange,
    service_cannot_charge_for_it,
    introspection_shows_its_key,
    it_authenticates_its_agent_with_a_proof_only,
    it_can_be_revoked,
    suspended_agent_s_proof_is_worth_nothing,
    resource_takes_it_with_a_proof_only,
    other_organization_refuses_it,
);

/// An agent with a key, and tokens that are bound to it.
struct Holder<'a> {
    agent: Agent<'a>,
    key: DpopKey,
    token: String,
}

impl<'a> Holder<'a> {
    fn new(server: &'a Server) -> Self {
        Self::with(server, &["read:a", "delegate:on_behalf"])
    }

    fn with(server: &'a Server, capabilities: &[&str]) -> Self {
        let (key, agent) = (DpopKey::generate(), server.acme().agent(capabilities));
        let token = bound(&agent, &key, &[]);
        Self { agent, key, token }
    }

    fn proof(&self, method: &str, path: &str) -> String {
        self.key.proof(method, &format!("{}{path}", self.agent.org.issuer()), Some(&self.token))
    }

    /// A request with the token and a proof.
    fn request(&self, method: &str, path: &str) -> Request {
        self.agent.org.request(method, path).dpop(&self.token, &self.proof(method, path))
    }

    fn works(&self) -> bool {
        self.request("GET", "/oauth/userinfo").send().status == 200
    }
}

/// A token of `agent` that is bound to `key`.
fn bound(agent: &Agent<'_>, key: &DpopKey, more: &[(&str, &str)]) -> String {
    let proof = key.proof("POST", &format!("{}/oauth/token", agent.org.issuer()), None);
    let answer = agent.token_request(&agent.secret, more).header("DPoP", &proof).send().ok();
    assert_eq!(answer["token_type"], "DPoP");
    text(&answer["access_token"]).to_owned()
}

#[track_caller]
fn downgraded(response: &Response) {
    response.refused(401, "invalid_token");
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("DPoP error=\"invalid_token\", algs="), "{challenge}");
}

fn no_route_takes_it_as_a_bearer_token(server: &Server) {
    let holder = Holder::new(server);
    let slug = holder.agent.org.slug();
    // Where a token may be used, which the router sees to; the other routes see to it themselves.
    let by_token = |route: &ServedRoute| !matches!(route.access, "Access::Open" | "Access::Metadata");
    let routes: Vec<_> = ServedRoute::all().into_iter().filter(by_token).collect();
    assert!(routes.len() > 80, "{routes:?}");
    for route in routes {
        let request = server.request(route.method, &route.path_in(slug));
        let request = if route.method == "GET" { request } else { request.json(json!({})) };
        downgraded(&request.bearer(&holder.token).send());
    }
    assert!(holder.works(), "it was good all the time");
}

fn every_sort_of_route_takes_it_with_a_proof(server: &Server) {
    let holder = Holder::new(server);
    holder.request("GET", "/agents/me").send().ok();
    let allowed = holder.request("POST", "/agents/ask").json(json!({ "action": "read:a" })).send().ok();
    assert_eq!(allowed["allowed"], true);
    holder.request("GET", "/mcp/servers").send().ok();
    holder.request("POST", "/authz/check").json(json!({ "permission": "read:a" })).send().ok();
    holder.request("GET", "/admin/agents").send().refused(403, "forbidden");
    // Where the path names no organization, the token does.
    let path = "/api/v1/authz/permissions";
    let proof = holder.key.proof("GET", &format!("{}{path}", server.url()), Some(&holder.token));
    server.request("GET", path).dpop(&holder.token, &proof).send().ok();
    server.request("GET", path).dpop(&holder.token, &proof).send().refused(401, "invalid_dpop_proof");
}

fn it_is_neither_subject_nor_actor_of_an_exchange(server: &Server) {
    let holder = Holder::new(server);
    let org = &holder.agent.org;
    let mcp = org.mcp_server(json!({}));
    let resource = text(&mcp["resource_uri"]);
    let plain = holder.agent.token();
    holder.agent.exchange(&plain, &[("resource", resource)]).ok();
    for fields in [
        &[("resource", resource)][..],
        &[("scope", "read:a")],
        &[("subject_token_type", JWT)],
        &acted_by(&plain),
    ] {
        let mut all = exchanging(&holder.token, ACCESS_TOKEN, &[]);
        all.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
        all.extend_from_slice(fields);
        org.post("/oauth/token").form(&all).send().refused(400, "invalid_grant");
        // Client authentication proves who the client is, and not that it holds the key.
        let request = org.post("/oauth/token").basic(&holder.agent.client_id, &holder.agent.secret);
        request.form(&all).send().refused(400, "invalid_grant");
    }
    let other = org.agent(&["read:a"]);
    holder.agent.exchange(&other.token(), &acted_by(&holder.token)).refused(400, "invalid_grant");
}

fn service_cannot_charge_for_it(server: &Server) {
    let org = server.acme();
    let service = org.agent(&["read:a"]);
    let reserve = |subject: &str| {
        let body = json!({ "id": unique("r"), "tokens": 1, "subject_token": subject });
        org.post("/agents/me/budget/reservations").bearer(&service.token()).json(body).send()
    };
    let caller = org.agent(&["read:a"]);
    let mcp = org.mcp_server(json!({ "resource_client_id": service.client_id }));
    let resource = [("resource", text(&mcp["resource_uri"]))];
    let plain = text(&caller.ask_token(&resource).ok()["access_token"]).to_owned();
    reserve(&plain).expect(201);
    let key = DpopKey::generate();
    let answer = reserve(&bound(&caller, &key, &resource)).refused(400, "validation_error");
    assert!(answer["details"]["subject_token"].is_string(), "{answer}");
}

fn introspection_shows_its_key(server: &Server) {
    let holder = Holder::new(server);
    let shown = holder.agent.org.introspect(&holder.agent, &holder.token);
    assert_eq!((&shown["active"], &shown["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(shown["cnf"], json!({ "jkt": holder.key.thumbprint() }));
    let plain = holder.agent.org.introspect(&holder.agent, &holder.agent.token());
    assert_eq!((&plain["token_type"], plain.get("cnf")), (&json!("Bearer"), None));
    let stranger = holder.agent.org.agent(&["read:a"]);
    assert_eq!(holder.agent.org.introspect(&stranger, &holder.token), json!({ "active": false }));
}

fn it_authenticates_its_agent_with_a_proof_only(server: &Server) {
    let holder = Holder::new(server);
    let org = &holder.agent.org;
    let form = [("token", holder.token.as_str())];
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        org.post(path).bearer(&holder.token).form(&form).send().refused(401, "invalid_client");
        let alone = org.post(path).header("Authorization", &format!("DPoP {}", holder.token));
        alone.form(&form).send().refused(401, "invalid_client");
        let elsewhere = holder.proof("POST", "/oauth/userinfo");
        org.post(path).dpop(&holder.token, &elsewhere).form(&form).send().refused(401, "invalid_client");
    }
    let shown = holder.request("POST", "/oauth/introspect").form(&form).send().ok();
    assert_eq!(shown["active"], true);
    holder.request("POST", "/oauth/revoke").form(&form).send().ok();
    assert!(!holder.works());
}

fn it_can_be_revoked(server: &Server) {
    let holder = Holder::new(server);
    assert!(holder.works());
    let agent = &holder.agent;
    let fields =
        [("token", &*holder.token), ("client_id", &*agent.client_id), ("client_secret", &*agent.secret)];
    agent.org.post("/oauth/revoke").form(&fields).send().ok();
    let dead = holder.request("GET", "/oauth/userinfo").send();
    downgraded(&dead);
    assert_eq!(agent.org.introspect(agent, &holder.token), json!({ "active": false }));
}

fn suspended_agent_s_proof_is_worth_nothing(server: &Server) {
    let holder = Holder::new(server);
    holder.agent.admin("POST", "/deactivate").send().ok();
    downgraded(&holder.request("GET", "/oauth/userinfo").send());
    holder.agent.admin("POST", "/activate").send().ok();
    downgraded(&holder.request("GET", "/oauth/userinfo").send());
}

fn resource_takes_it_with_a_proof_only(server: &Server) {
    let (org, key): (Org<'_>, _) = (server.acme(), DpopKey::generate());
    let (mcp, agent) = (org.mcp_server(json!({})), org.agent(&["read:a"]));
    let path = format!("/mcp/{}/challenge", text(&mcp["server_id"]));
    let token = bound(&agent, &key, &[("resource", text(&mcp["resource_uri"]))]);
    downgraded(&org.get(&path).bearer(&token).send());
    let proof = key.proof("GET", &format!("{}{path}", org.issuer()), Some(&token));
    let answer: Value = org.get(&path).dpop(&token, &proof).send().ok();
    assert_eq!(answer["status"], "authenticated");
    org.get(&path).dpop(&token, &proof).send().refused(401, "invalid_dpop_proof");
    // It is for nothing else.
    let proof = key.proof("GET", &format!("{}/agents/me", org.issuer()), Some(&token));
    downgraded(&org.get("/agents/me").dpop(&token, &proof).send());
}

fn other_organization_refuses_it(server: &Server) {
    let holder = Holder::new(server);
    let globex = server.globex();
    downgraded(&globex.get("/agents/me").bearer(&holder.token).send());
    let url = format!("{}/agents/me", globex.issuer());
    let proof = holder.key.proof("GET", &url, Some(&holder.token));
    globex.get("/agents/me").dpop(&holder.token, &proof).send().refused(403, "forbidden");
    let forged = DpopKey::generate().proof("GET", &url, Some(&holder.token));
    globex.get("/agents/me").dpop(&holder.token, &forged).send().refused(401, "invalid_dpop_proof");
}
