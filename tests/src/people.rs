//! People as a test handles them: they sign in and answer what clients ask, by the JSON forms of the pages.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Agent, Org, Response, Server, acted_by, percent_encode, text, unique};

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

/// An application that people use, which is no agent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct App<'a> {
    /// Its organization.
    pub org: Org<'a>,
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret; empty for a public one.
    pub secret: String,
}

impl<'a> Org<'a> {
    /// The same organization on another server, which shares the database.
    pub fn at<'b>(&self, server: &'b Server) -> Org<'b> {
        Org::new(server, self.slug(), self.key())
    }

    /// Makes an application out of `members`; name, address and grant types are filled in.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn app(&self, members: Value) -> App<'a> {
        let mut all = json!({
            "name": unique("App"), "redirectUris": [CALLBACK], "grantTypes": ["authorization_code"],
            "isConfidential": true,
        });
        for (name, value) in members.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        let made = self.admin("POST", "/clients").json(all).send().expect(201).json()["data"].clone();
        let secret = made["secret"].as_str().unwrap_or_default().to_owned();
        App { org: self.clone(), client_id: text(&made["clientId"]).to_owned(), secret }
    }

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
    /// The same person and their browser at another server, which shares the database.
    pub fn at<'b>(&self, server: &'b Server) -> Person<'b> {
        let Self { org, id, email, password, cookie } = self.clone();
        Person { org: org.at(server), id, email, password, cookie }
    }

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

    /// Gives the code of a request with these fields, after saying yes if asked.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn code_of(&self, fields: &[(&str, &str)]) -> String {
        let mut answer = self.authorize(fields);
        if answer.status == 200 {
            answer = self.decide(&answer.ok(), "approve", &[]);
        }
        let code = answer.json()["code"].clone();
        code.as_str().unwrap_or_else(|| panic!("no code: {answer}")).to_owned()
    }

    /// A token of this person, in person: of an application, with these scopes.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn in_person(&self, scope: &str) -> String {
        let allowed: Vec<_> = scope.split(' ').collect();
        let app = self.org.app(json!({ "allowedScopes": allowed }));
        let code = self.code_of(&asking(&app.client_id, scope));
        text(&app.redeem(&code, &[]).ok()["access_token"]).to_owned()
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

/// The usual fields of an authorization request, without any that ask for a refresh token or a question.
pub fn asking<'a>(client_id: &'a str, scope: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", CALLBACK),
        ("scope", scope),
        ("state", "s"),
    ]
}

/// What the client learns by the redirect of `answer`, which must lead to [`CALLBACK`].
///
/// # Panics
/// When there is no redirect, or one to elsewhere.
#[track_caller]
pub fn told(answer: &Response) -> BTreeMap<String, String> {
    let target = match answer.header("location") {
        Some(location) => location.to_owned(),
        None => text(&answer.json()["redirect_to"]).to_owned(),
    };
    let (address, query) = target.split_once('?').unwrap_or_else(|| panic!("no answer: {target}"));
    assert_eq!(address, CALLBACK, "{answer}");
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    };
    query.split('&').map(pair).collect()
}

/// Decodes a name or value of a form.
fn form_decode(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let hex = || u8::from_str_radix(std::str::from_utf8(tail.get(..2)?).ok()?, 16).ok();
        match (first, hex()) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => bytes.push(first),
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

impl App<'_> {
    /// A token request with what this application authenticates with.
    pub fn as_client(&self, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("client_id", self.client_id.as_str())];
        if !self.secret.is_empty() {
            all.push(("client_secret", &self.secret));
        }
        all.extend_from_slice(fields);
        self.org.post("/oauth/token").form(&all).send()
    }

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
        self.exchange(subject, &[&acted_by(actor), extra].concat())
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
