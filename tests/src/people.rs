//! People as a test handles them: they sign in and answer what clients ask, by the JSON forms of the pages.

use serde_json::{Value, json};

use crate::{Agent, Org, Response, percent_encode, text, unique};

/// Where the agents of tests have their answers sent.
pub const CALLBACK: &str = "https://agent.example.test/callback";

/// A person of an organization, signed in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Person<'a> {
    /// Their organization.
    pub org: Org<'a>,
    /// UUID, the `sub` of their tokens.
    pub id: String,
    /// With what they sign in.
    pub email: String,
    /// As well.
    pub password: String,
    /// The `Cookie` header of their browser.
    pub cookie: String,
}

/// What a code gave.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "two tokens")]
pub struct UserTokens {
    /// The access token.
    pub access: String,
    /// The refresh token; empty if there is none.
    pub refresh: String,
}

impl<'a> Org<'a> {
    /// Makes a person and signs them in.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn person(&self) -> Person<'a> {
        self.person_with(json!({}))
    }

    /// Makes a person out of `members` and signs them in.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn person_with(&self, mut members: Value) -> Person<'a> {
        let (email, password) = (format!("{}@people.test", unique("p")), unique("password"));
        members["email"] = email.clone().into();
        members["password"] = password.clone().into();
        if members["name"].is_null() {
            members["name"] = "A Person".into();
        }
        let made = self.admin("POST", "/users").json(members).send().expect(201).json();
        let id = text(&made["data"]["id"]).to_owned();
        let mut person = Person { org: self.clone(), id, email, password, cookie: String::new() };
        person.cookie = person.sign_in();
        person
    }

    /// Makes an agent that people may send their codes to, and that may act for them.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn delegate(&self, capabilities: &[&str]) -> Agent<'a> {
        let mut all = vec!["delegate:on_behalf"];
        all.extend_from_slice(capabilities);
        self.create_agent(json!({ "capabilities": all, "redirectUris": [CALLBACK] }))
    }
}

impl Person<'_> {
    /// Signs in anew and gives the `Cookie` header.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn sign_in(&self) -> String {
        let answer = self.try_sign_in(&self.password);
        answer.ok();
        let cookies = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        let pairs: Vec<_> = cookies.filter_map(|(_, value)| value.split(';').next()).collect();
        assert!(!pairs.is_empty(), "{answer}");
        pairs.join("; ")
    }

    /// Tries to sign in.
    pub fn try_sign_in(&self, password: &str) -> Response {
        let body = json!({ "email": self.email, "password": password });
        self.org.post("/oauth/login/json").json(body).send()
    }

    /// What the authorization endpoint answers to a program with this person's session.
    pub fn authorize(&self, fields: &[(&str, &str)]) -> Response {
        let query: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
        self.org
            .get(&format!("/oauth/authorize?{}", query.join("&")))
            .header("Accept", "application/json")
            .header("Cookie", &self.cookie)
            .send()
    }

    /// Asks for a code for `agent`; `extra` are more parameters.
    pub fn ask_for(&self, agent: &Agent<'_>, scope: &str, extra: &[(&str, &str)]) -> Response {
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", agent.client_id.as_str()),
            ("redirect_uri", CALLBACK),
            ("scope", scope),
            ("state", "s"),
            ("access_type", "offline"),
            ("prompt", "consent"),
        ];
        fields.extend_from_slice(extra);
        self.authorize(&fields)
    }

    /// Answers a challenge.
    pub fn decide(&self, challenge: &Value, decision: &str, extra: &[(&str, &str)]) -> Response {
        let mut fields = vec![
            ("challenge_id", text(&challenge["challenge_id"])),
            ("csrf_token", text(&challenge["csrf_token"])),
            ("decision", decision),
        ];
        fields.extend_from_slice(extra);
        self.org
            .post("/oauth/authorize")
            .header("Accept", "application/json")
            .header("Cookie", &self.cookie)
            .form(&fields)
            .send()
    }

    /// Says yes to `agent`, and gives the code.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn code_for(&self, agent: &Agent<'_>, scope: &str) -> String {
        let challenge = self.ask_for(agent, scope, &[]).ok();
        text(&self.decide(&challenge, "approve", &[]).ok()["code"]).to_owned()
    }

    /// Says yes to `agent`, which redeems the code.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn allow(&self, agent: &Agent<'_>, scope: &str) -> UserTokens {
        let body = agent.redeem(&self.code_for(agent, scope), &[]).ok();
        let refresh = body["refresh_token"].as_str().unwrap_or_default().to_owned();
        UserTokens { access: text(&body["access_token"]).to_owned(), refresh }
    }
}

impl Agent<'_> {
    /// Redeems an authorization code; `extra` are more form fields.
    pub fn redeem(&self, code: &str, extra: &[(&str, &str)]) -> Response {
        let mut fields =
            vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        fields.extend_from_slice(extra);
        self.as_client(&fields)
    }

    /// Presents a refresh token.
    pub fn refresh(&self, token: &str, extra: &[(&str, &str)]) -> Response {
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        fields.extend_from_slice(extra);
        self.as_client(&fields)
    }

    /// A token request with this agent's client authentication.
    pub fn as_client(&self, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("client_id", self.client_id.as_str()), ("client_secret", self.secret.as_str())];
        all.extend_from_slice(fields);
        self.org.post("/oauth/token").form(&all).send()
    }

    /// Becomes an actor: exchanges `subject` with `actor`, a token of this agent, without client authentication.
    pub fn act_for(&self, subject: &str, actor: &str, extra: &[(&str, &str)]) -> Response {
        let mut fields = vec![
            ("actor_token", actor),
            ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ];
        fields.extend_from_slice(extra);
        self.exchange(subject, &fields)
    }

    /// A token of this agent acting for the subject of `subject`.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn acting_for(&self, subject: &str) -> String {
        text(&self.act_for(subject, &self.token(), &[]).ok()["access_token"]).to_owned()
    }

    /// Whether the token is alive, as this agent is told.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn sees_alive(&self, token: &str) -> bool {
        self.org.introspect(self, token)["active"] == true
    }

    /// Revokes a token of this agent.
    ///
    /// # Panics
    /// When the answer is no 200.
    #[track_caller]
    pub fn revoke(&self, token: &str) {
        let fields = [("token", token), ("client_id", &self.client_id), ("client_secret", &self.secret)];
        self.org.post("/oauth/revoke").form(&fields).send().expect(200);
    }
}
