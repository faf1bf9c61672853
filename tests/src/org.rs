//! Organizations and agents as a test handles them.

use serde_json::{Value, json};

use crate::{ACCESS_TOKEN, Request, Response, Server, Token, text, unique};

/// One organization of a server, with its administrator's API key.
#[derive(Clone, Debug)]
pub struct Org<'a> {
    server: &'a Server,
    slug: String,
    key: String,
}

impl<'a> Org<'a> {
    pub(crate) fn new(server: &'a Server, slug: &str, key: &str) -> Self {
        Self { server, slug: slug.to_owned(), key: key.to_owned() }
    }

    /// Slug, as in paths and tokens.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// The administrator's API key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The server it is on.
    pub fn server(&self) -> &'a Server {
        self.server
    }

    /// The issuer all its tokens carry.
    pub fn issuer(&self) -> String {
        format!("{}/orgs/{}/api/v1", self.server.url(), self.slug)
    }

    /// A request below the canonical prefix, without a credential.
    pub fn request(&self, method: &str, path: &str) -> Request {
        self.server.request(method, &format!("/orgs/{}/api/v1{path}", self.slug))
    }

    /// GET without a credential.
    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    /// POST without a credential.
    pub fn post(&self, path: &str) -> Request {
        self.request("POST", path)
    }

    /// A request below `/admin` with the administrator's key.
    pub fn admin(&self, method: &str, path: &str) -> Request {
        self.request(method, &format!("/admin{path}")).api_key(&self.key)
    }

    /// Makes an agent out of `members`; a name that no other test uses is filled in.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn create_agent(&self, mut members: Value) -> Agent<'a> {
        if members["name"].is_null() {
            members["name"] = unique("Agent").into();
        }
        let body = self.admin("POST", "/agents").json(members).send().expect(201).json();
        let data = &body["data"];
        let part = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        Agent {
            org: self.clone(),
            id: text(&data["id"]).to_owned(),
            agent_id: text(&data["agentId"]).to_owned(),
            slug: text(&data["slug"]).to_owned(),
            name: text(&data["name"]).to_owned(),
            client_id: text(&data["clientId"]).to_owned(),
            secret: part("clientSecret"),
            api_key: part("apiKey"),
        }
    }

    /// Makes an agent that holds `capabilities`.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn agent(&self, capabilities: &[&str]) -> Agent<'a> {
        self.create_agent(json!({ "capabilities": capabilities }))
    }

    /// Makes an API key with `scopes`.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn api_key(&self, scopes: &[&str]) -> String {
        let body = json!({ "name": unique("key"), "scopes": scopes });
        let answer = self.admin("POST", "/api-keys").json(body).send().expect(201).json();
        text(&answer["data"]["key"]).to_owned()
    }

    /// Makes an MCP server out of `members`; name and https resource are filled in. Gives its object.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn mcp_server(&self, mut members: Value) -> Value {
        if members["name"].is_null() {
            members["name"] = unique("MCP").into();
        }
        if members["resource_uri"].is_null() {
            members["resource_uri"] = format!("https://{}.test/mcp", unique("mcp")).into();
        }
        self.admin("POST", "/mcp/servers").json(members).send().expect(201).json()["data"].clone()
    }

    /// What introspection says about `token` to `asker`.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn introspect(&self, asker: &Agent<'_>, token: &str) -> Value {
        let fields = [("token", token), ("client_id", &asker.client_id), ("client_secret", &asker.secret)];
        self.post("/oauth/introspect").form(&fields).send().ok()
    }

    /// Audit entries, newest query first; `query` such as `action=agent.created&targetId=agt_1`.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn audit(&self, query: &str) -> Vec<Value> {
        let body = self.admin("GET", &format!("/audit-logs?limit=100&{query}")).send().ok();
        body["data"].as_array().cloned().unwrap_or_else(|| panic!("no list: {body}"))
    }
}

/// A registered agent and its credentials.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Agent<'a> {
    /// Its organization.
    pub org: Org<'a>,
    /// UUID.
    pub id: String,
    /// `agt_...`.
    pub agent_id: String,
    /// As in `agent:<slug>`.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret; empty when it has none.
    pub secret: String,
    /// `agk_...`; empty when it has none.
    pub api_key: String,
}

impl Agent<'_> {
    /// The same agent as a client of another server, which shares the database.
    pub fn at<'b>(&self, server: &'b Server) -> Agent<'b> {
        let Self { id, agent_id, slug, name, client_id, secret, api_key, .. } = self.clone();
        let org = Org::new(server, &self.org.slug, &self.org.key);
        Agent { org, id, agent_id, slug, name, client_id, secret, api_key }
    }

    /// Asks for a token; `extra` are more form fields.
    pub fn ask_token(&self, extra: &[(&str, &str)]) -> Response {
        self.token_request(&self.secret, extra).send()
    }

    /// The token request, not sent yet.
    pub fn token_request(&self, secret: &str, extra: &[(&str, &str)]) -> Request {
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", secret),
        ];
        fields.extend_from_slice(extra);
        self.org.post("/oauth/token").form(&fields)
    }

    /// A token with all it may have.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn token(&self) -> String {
        text(&self.ask_token(&[]).ok()["access_token"]).to_owned()
    }

    /// A token with less than it may have.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn token_for(&self, scope: &str) -> String {
        text(&self.ask_token(&[("scope", scope)]).ok()["access_token"]).to_owned()
    }

    /// Exchanges `subject` with more form fields, without client authentication, as the SDK does.
    pub fn exchange(&self, subject: &str, extra: &[(&str, &str)]) -> Response {
        self.org.exchange(subject, ACCESS_TOKEN, extra)
    }

    /// An administrator's request about this agent; `path` begins after its id.
    pub fn admin(&self, method: &str, path: &str) -> Request {
        self.org.admin(method, &format!("/agents/{}{path}", self.agent_id))
    }

    /// Asks whether it may do `action`.
    pub fn ask(&self, token: &str, action: &str) -> Response {
        self.org.post("/agents/ask").bearer(token).json(json!({ "action": action })).send()
    }

    /// What userinfo says about `token`.
    pub fn userinfo(&self, token: &str) -> Response {
        self.org.get("/oauth/userinfo").bearer(token).send()
    }

    /// A token, parsed.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn parsed_token(&self) -> Token {
        Token::parse(&self.token())
    }
}
