//! Registered agents and resources.

use serde_json::{Value, json};

use super::{Call, Ed25519, Sent};
use crate::{Agent, CALLBACK, Org, Response, text, unique, unix_now};

/// A registered agent, which signs its own agent tokens.
#[derive(Debug)]
#[non_exhaustive]
pub struct AAuthAgent<'a> {
    /// Its organization.
    pub org: Org<'a>,
    /// Its id in the registry.
    pub id: String,
    /// The URL that names it.
    pub identifier: String,
    /// Its registered key.
    pub key: Ed25519,
}

/// A registered resource.
#[derive(Debug)]
#[non_exhaustive]
pub struct AAuthResource<'a> {
    /// Its organization.
    pub org: Org<'a>,
    /// Its id in the registry.
    pub id: String,
    /// The URL that names it.
    pub identifier: String,
    /// Its registered key.
    pub key: Ed25519,
}

impl<'a> Org<'a> {
    /// Registers an agent out of `members`; name, identifier, key and address are filled in, and it may do everything.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn aauth_agent(&self, members: Value) -> AAuthAgent<'a> {
        let key = Ed25519::generate(&unique("a"));
        let identifier = format!("https://{}.agents.test", unique("agent"));
        let mut all = json!({
            "name": unique("Agent"), "agent_identifier": identifier, "jwks": key.jwks(),
            "redirect_uris": [CALLBACK], "delegation": true, "token_exchange": true,
        });
        merge(&mut all, members);
        let made = self.admin("POST", "/aauth/agents").json(all).send().expect(201).json()["data"].clone();
        let identifier = text(&made["agent_identifier"]).to_owned();
        AAuthAgent { org: self.clone(), id: text(&made["id"]).to_owned(), identifier, key }
    }

    /// Registers a resource out of `members`; name, identifier, key and scopes are filled in. It asks for nobody.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn aauth_resource(&self, members: Value) -> AAuthResource<'a> {
        let key = Ed25519::generate(&unique("r"));
        let identifier = format!("https://{}.resources.test", unique("resource"));
        let mut all = json!({
            "name": unique("Resource"), "resource_identifier": identifier, "jwks": key.jwks(),
            "supported_scopes": ["read", "write", "admin"],
        });
        merge(&mut all, members);
        let made = self.admin("POST", "/aauth/resources").json(all).send().expect(201).json()["data"].clone();
        let identifier = text(&made["resource_identifier"]).to_owned();
        AAuthResource { org: self.clone(), id: text(&made["id"]).to_owned(), identifier, key }
    }

    /// A resource that wants people asked at this level.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn aauth_resource_of(&self, level: &str) -> AAuthResource<'a> {
        self.aauth_resource(json!({ "default_auth_level": level }))
    }
}

impl AAuthAgent<'_> {
    /// Its agent token.
    pub fn token(&self) -> String {
        self.token_saying(json!({}))
    }

    /// An agent token of its own with these claims in place of the usual ones; `null` takes one away.
    pub fn token_saying(&self, claims: Value) -> String {
        self.key.token("agent+jwt", &self.claims(claims))
    }

    /// An agent token that it makes for a delegate.
    pub fn token_for(&self, delegate: &str, key: &Ed25519) -> String {
        self.token_saying(json!({ "sub": delegate, "cnf": { "jwk": key.jwk() } }))
    }

    /// The claims of an agent token.
    pub fn claims(&self, changes: Value) -> Value {
        let now = unix_now();
        let mut claims = json!({
            "iss": self.identifier, "sub": self.identifier, "cnf": { "jwk": self.key.jwk() },
            "iat": now, "exp": now + 600, "jti": unique("jti"),
        });
        merge(&mut claims, changes);
        claims
    }

    /// A request to the token endpoint in the form of the SDK.
    pub fn call(&self, body: &Value) -> Call {
        Call::sdk(&self.org, "/aauth/agent/token", body).by(&self.token())
    }

    /// A signed request to the token endpoint.
    pub fn sent(&self, body: &Value) -> Sent {
        self.call(body).signed(&self.key)
    }

    /// What the token endpoint answers.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ask(&self, body: &Value) -> Response {
        self.sent(body).send()
    }

    /// What the token endpoint answers to a delegate.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ask_as(&self, delegate: &str, key: &Ed25519, body: &Value) -> Response {
        let call = Call::sdk(&self.org, "/aauth/agent/token", body);
        call.by(&self.token_for(delegate, key)).signed(key).send()
    }

    /// Asks for all that `resource` would give.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ask_for(&self, resource: &AAuthResource<'_>) -> Response {
        self.ask(&json!({ "request_type": "auth", "resource_token": resource.token_for(self) }))
    }

    /// The tokens of a resource that asks for nobody.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn tokens(&self, resource: &AAuthResource<'_>) -> Value {
        self.ask_for(resource).ok()
    }

    /// The request token of a resource that wants a person asked.
    ///
    /// # Panics
    /// When the server wants no one asked.
    #[track_caller]
    pub fn question(&self, resource: &AAuthResource<'_>, scope: &str) -> String {
        let token = resource.token_saying(self, json!({ "scope": scope }));
        let answer = self.ask(&json!({ "request_type": "auth", "resource_token": token }));
        text(&answer.refused(401, "authorization_required")["request_token"]).to_owned()
    }

    /// Redeems a code.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn redeem(&self, code: &str) -> Response {
        self.ask(&json!({ "request_type": "code", "code": code, "redirect_uri": CALLBACK }))
    }

    /// Presents a refresh token with a fresh resource token.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn refresh(&self, token: &Value, resource: &AAuthResource<'_>) -> Response {
        self.refresh_with(token, &resource.token_for(self))
    }

    /// Presents a refresh token with this resource token.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn refresh_with(&self, token: &Value, resource_token: &str) -> Response {
        self.ask(&json!({
            "request_type": "refresh", "refresh_token": token, "resource_token": resource_token,
        }))
    }

    /// Exchanges an auth token that it was called with.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn exchange(&self, auth_token: &str, resource: &AAuthResource<'_>, scope: &str) -> Response {
        let token = resource.token_saying(self, json!({ "scope": scope }));
        self.ask(&json!({ "request_type": "exchange", "auth_token": auth_token, "resource_token": token }))
    }

    /// What another route answers to a request that its registered key signs.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        registered(&self.org, path, body, &self.identifier, &self.key).send()
    }

    /// It, as a resource that other agents can call.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn as_resource(&self) -> AAuthResource<'_> {
        self.org.aauth_resource(json!({ "resource_identifier": self.identifier }))
    }

    /// The same agent as the registry of agents has it.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str) -> crate::Request {
        self.org.admin(method, &format!("/agents/{}{path}", self.id))
    }
}

impl AAuthResource<'_> {
    /// A resource token about a call of `agent` with its registered key, for everything.
    pub fn token_for(&self, agent: &AAuthAgent<'_>) -> String {
        self.token_saying(agent, json!({}))
    }

    /// The same with these claims in place of the usual ones; `null` takes one away.
    pub fn token_saying(&self, agent: &AAuthAgent<'_>, changes: Value) -> String {
        self.key.token("resource+jwt", &self.claims(agent, changes))
    }

    /// The claims of a resource token.
    pub fn claims(&self, agent: &AAuthAgent<'_>, changes: Value) -> Value {
        let now = unix_now();
        let mut claims = json!({
            "iss": self.identifier, "aud": agent.org.issuer(), "agent": agent.identifier,
            "agent_jkt": agent.key.thumbprint(), "scope": "read write", "iat": now, "exp": now + 240,
            "jti": unique("jti"),
        });
        merge(&mut claims, changes);
        claims
    }

    /// A request that its registered key is to sign.
    pub fn call(&self, path: &str, body: &Value) -> Call {
        Call::sdk(&self.org, path, body)
            .with("Signature-Key", &format!("{}#{}", self.identifier, self.key.kid()))
    }

    /// What a route answers to a request that its registered key signs.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.call(path, body).signed(&self.key).send()
    }

    /// What the server says of an auth token.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn verify(&self, auth_token: &Value) -> Value {
        self.post("/aauth/auth/token/verify", &json!({ "auth_token": auth_token })).ok()
    }

    /// Whether the server says that an auth token is good.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn sees_alive(&self, auth_token: &Value) -> bool {
        self.verify(auth_token)["active"] == true
    }

    /// An administrator's request about it.
    pub fn admin(&self, method: &str) -> crate::Request {
        self.org.admin(method, &format!("/aauth/resources/{}", self.id))
    }
}

impl crate::Person<'_> {
    /// What the server answers to a program of this person that decides what an agent asked.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn decide_aauth(&self, request_token: &str, decision: &str) -> Response {
        let body = json!({ "request_token": request_token, "decision": decision });
        self.org.post("/aauth/consent").bearer(&self.in_person("openid")).json(body).send()
    }

    /// The code of what an agent asked, after saying yes.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn agree(&self, request_token: &str) -> String {
        text(&self.decide_aauth(request_token, "approve").ok()["code"]).to_owned()
    }

    /// The tokens that an agent gets of this person.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn give(&self, agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, scope: &str) -> Value {
        agent.redeem(&self.agree(&agent.question(resource, scope))).ok()
    }
}

impl<'a> Agent<'a> {
    /// It, with a part in AAuth.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn in_aauth(&self) -> AAuthAgent<'a> {
        self.org.aauth_agent(json!({ "agent_id": self.agent_id, "name": null }))
    }
}

fn registered(org: &Org<'_>, path: &str, body: &Value, identifier: &str, key: &Ed25519) -> Sent {
    let whose = format!("{identifier}#{}", key.kid());
    Call::sdk(org, path, body).with("Signature-Key", &whose).signed(key)
}

/// Sets the members of `changes`; `null` takes one away.
fn merge(value: &mut Value, changes: Value) {
    let (Value::Object(value), Value::Object(changes)) = (value, changes) else { return };
    for (name, change) in changes {
        if change.is_null() {
            value.remove(&name);
        } else {
            value.insert(name, change);
        }
    }
}
