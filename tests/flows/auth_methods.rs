//! `authMethods` and the identity type `custom`: how an agent may prove who it is.

use lumoauth_tests::{Agent, DpopKey, Issuer, JWT, Server, on_each_backend, text, unique, unix_now};
use serde_json::{Value, json};

on_each_backend!(
    custom_agent_proves_itself_in_every_way,
    of_a_list_every_method_works_and_no_other,
    list_narrows_other_types_too,
    list_is_kept_shown_and_replaced,
    list_that_is_none_is_refused,
    credentials_are_those_of_the_list,
    tokens_end_with_the_method_that_may_have_given_them,
    refusals_are_in_the_log,
    what_leaked_is_replaced_while_its_method_is_off,
    administrator_registers_lists_and_agent_does_not,
);

const METHODS: [&str; 5] = ["client_credentials", "private_key_jwt", "api_key", "workload_identity", "aauth"];

/// A custom agent with one of everything.
struct Everything<'a> {
    agent: Agent<'a>,
    key: DpopKey,
    platform: Issuer,
    subject: String,
    identifier: String,
}

impl<'a> Everything<'a> {
    fn new(server: &'a Server) -> Self {
        let (org, key, platform) = (server.acme(), DpopKey::generate(), Issuer::start());
        let (subject, identifier) = (unique("bot"), format!("https://{}.agents.test", unique("agent")));
        let agent = org.create_agent(json!({
            "identityType": "custom", "capabilities": ["read:a"], "jwks": { "keys": [key.key().jwk("k1")] },
            "workloadIdentity": {
                "provider": "oidc", "issuer": platform.url(), "subject": subject,
                "audience": "https://lumoauth.test", "jwks": platform.jwks(),
            },
            "aauthIdentity": { "identifier": identifier },
        }));
        Self { agent, key, platform, subject, identifier }
    }

    fn may_use(&self, methods: &[&str]) {
        self.agent.admin("PATCH", "").json(json!({ "authMethods": methods })).send().ok();
    }

    fn by_assertion(&self) -> bool {
        let (id, now) = (&self.agent.client_id, unix_now());
        let claims = json!({
            "iss": id, "sub": id, "aud": self.agent.org.issuer(), "jti": unique("jti"), "iat": now, "exp": now + 300,
        });
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &self.key.key().sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims)),
        ];
        self.accepted("invalid_client", &self.agent.org.post("/oauth/token").form(&form).send())
    }

    fn by_workload(&self) -> bool {
        let now = unix_now();
        let token = self.platform.sign(&json!({
            "iss": self.platform.url(), "sub": self.subject, "aud": "https://lumoauth.test", "iat": now, "exp": now + 600,
        }));
        self.accepted("workload_identity_failed", &self.agent.org.exchange(&token, JWT, &[]))
    }

    /// By an agent token and a DPoP proof of its key.
    fn by_signature(&self) -> bool {
        let now = unix_now();
        let claims = json!({
            "iss": self.identifier, "sub": self.identifier, "iat": now, "exp": now + 3600, "jti": unique("token"),
            "cnf": { "jwk": self.key.key().jwk("k1") },
        });
        let token = self.key.key().sign(&json!({ "typ": "agent+jwt", "alg": "ES256", "kid": "k1" }), &claims);
        let url = format!("{}/aauth/agent/platform-token", self.agent.org.issuer());
        let proof = self.key.proof("POST", &url, None);
        let form = lumoauth_tests::exchanging(&token, JWT, &[]);
        let request = self.agent.org.post("/aauth/agent/platform-token").form(&form).header("DPoP", &proof);
        self.accepted("", &request.send())
    }

    fn by_key(&self, key: &str) -> bool {
        self.accepted("invalid_token", &self.agent.userinfo(key))
    }

    fn by_secret(&self) -> bool {
        self.accepted("invalid_client", &self.agent.ask_token(&[]))
    }

    #[track_caller]
    fn accepted(&self, error: &str, answer: &lumoauth_tests::Response) -> bool {
        if answer.status == 401 && error.is_empty() {
            answer.refused_somehow();
        } else if answer.status == 401 {
            answer.refused(401, error);
        } else {
            answer.ok();
        }
        answer.status != 401
    }

    /// The methods that work.
    fn working(&self) -> Vec<&'static str> {
        let works = [
            self.by_secret(),
            self.by_assertion(),
            self.by_key(&self.agent.api_key),
            self.by_workload(),
            self.by_signature(),
        ];
        METHODS.into_iter().zip(works).filter(|(_, works)| *works).map(|(method, _)| method).collect()
    }
}

fn custom_agent_proves_itself_in_every_way(server: &Server) {
    let agent = Everything::new(server);
    assert_eq!(agent.working(), METHODS);
    agent.may_use(&METHODS);
    assert_eq!(agent.working(), METHODS);
}

fn of_a_list_every_method_works_and_no_other(server: &Server) {
    let agent = Everything::new(server);
    // Every combination.
    for chosen in 1_u32..1 << METHODS.len() {
        let listed: Vec<_> =
            (0..METHODS.len()).filter(|n| chosen & (1 << n) != 0).map(|n| METHODS[n]).collect();
        agent.may_use(&listed);
        assert_eq!(agent.working(), listed);
    }
    agent.may_use(&[]);
    assert_eq!(agent.working(), METHODS);
}

fn list_narrows_other_types_too(server: &Server) {
    let agent = Everything::new(server);
    let change = |members: Value| agent.agent.admin("PATCH", "").json(members).send();
    for (identity, possible) in [
        ("client_credentials", &["client_credentials", "private_key_jwt", "api_key", "aauth"][..]),
        ("api_key", &["private_key_jwt", "api_key", "aauth"]),
        ("workload_identity", &["private_key_jwt", "workload_identity", "aauth"]),
        ("aauth", &["private_key_jwt", "aauth"]),
    ] {
        change(json!({ "identityType": identity, "authMethods": [] })).ok();
        assert_eq!(agent.working(), possible, "{identity}");
        for method in METHODS {
            let answer = change(json!({ "authMethods": [method] }));
            if possible.contains(&method) {
                answer.ok();
                assert_eq!(agent.working(), [method], "{identity}");
            } else {
                answer.refused(400, "validation_error");
            }
        }
    }
    // Nor is a type that does not fit the list.
    change(json!({ "authMethods": ["aauth", "private_key_jwt"] })).ok();
    change(json!({ "identityType": "custom" })).ok();
    change(json!({ "authMethods": ["aauth", "workload_identity"] })).ok();
    change(json!({ "identityType": "aauth" })).refused(400, "validation_error");
    assert_eq!(agent.working(), ["workload_identity", "aauth"]);
}

fn list_is_kept_shown_and_replaced(server: &Server) {
    let org = server.acme();
    let methods = json!(["private_key_jwt", "client_credentials"]);
    let body = json!({ "name": unique("Agent"), "authMethods": methods });
    let made = org.admin("POST", "/agents").json(body).send().expect(201).json()["data"].clone();
    assert_eq!(made["authMethods"], methods);
    let path = format!("/agents/{}", text(&made["agentId"]));
    let read = || org.admin("GET", &path).send().ok()["data"]["authMethods"].clone();
    let change = |methods: Value| {
        let answer = org.admin("PUT", &path).json(json!({ "auth_methods": methods })).send().ok();
        answer["data"]["authMethods"].clone()
    };
    assert_eq!((read(), change(Value::Null)), (methods.clone(), methods));
    assert_eq!(change(json!(["aauth", "aauth"])), json!(["aauth"]));
    assert_eq!(read(), json!(["aauth"]));
    assert_eq!(change(json!([])), Value::Null);
}

fn list_that_is_none_is_refused(server: &Server) {
    let agent = server.acme().agent(&[]);
    for bad in [
        json!("api_key"),
        json!({}),
        json!([1]),
        json!([null]),
        json!([""]),
        json!(["telepathy"]),
        json!(["CLIENT_CREDENTIALS"]),
        json!(["client_secret_basic"]),
        json!(["custom"]),
        json!(["none"]),
        json!(["workload_identity"]),
        json!(["api_key", "workload_identity"]),
    ] {
        agent.admin("PATCH", "").json(json!({ "authMethods": bad })).send().refused(400, "validation_error");
        let body = json!({ "name": unique("Agent"), "authMethods": bad });
        agent.org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
    assert_eq!(agent.admin("GET", "").send().ok()["data"]["authMethods"], Value::Null);
    agent.token();
}

fn credentials_are_those_of_the_list(server: &Server) {
    let made = |methods: &[&str]| {
        let agent = server.acme().create_agent(json!({ "identityType": "custom", "authMethods": methods }));
        let rotated = |path: &str| agent.admin("POST", path).send().status;
        (
            !agent.secret.is_empty(),
            !agent.api_key.is_empty(),
            rotated("/rotate-credentials"),
            rotated("/rotate-key"),
        )
    };
    assert_eq!(made(&[]), (true, true, 200, 200));
    assert_eq!(made(&["client_credentials"]), (true, false, 200, 400));
    assert_eq!(made(&["api_key", "aauth"]), (false, true, 400, 200));
    assert_eq!(made(&["private_key_jwt"]), (false, false, 400, 400));
}

fn tokens_end_with_the_method_that_may_have_given_them(server: &Server) {
    let agent = Everything::new(server);
    let alive = |token: &str| agent.agent.userinfo(token).status == 200;
    agent.may_use(&["client_credentials", "api_key"]);
    let token = agent.agent.token();
    agent.may_use(&["client_credentials", "api_key", "aauth"]);
    assert!(alive(&token), "nothing was taken away");
    agent.may_use(&["aauth", "client_credentials"]);
    assert!(!alive(&token));
    let token = agent.agent.token();
    agent.may_use(&[]);
    assert!(alive(&token));
    agent.may_use(&["private_key_jwt"]);
    assert!(!alive(&token));
    agent.may_use(&[]);
    assert!(!alive(&token), "dead for good");
}

fn refusals_are_in_the_log(server: &Server) {
    let agent = Everything::new(server);
    agent.may_use(&["private_key_jwt"]);
    assert_eq!(agent.working(), ["private_key_jwt"]);
    let rows = agent.agent.org.audit(&format!("status=failure&targetId={}", agent.agent.agent_id));
    let barred: Vec<_> = rows
        .iter()
        .filter(|row| row["context"]["cause"] == "the agent may not authenticate by this method")
        .map(|row| text(&row["authMethod"]))
        .collect();
    assert_eq!(barred, ["workload_identity", "api_key", "client_credentials"], "{rows:?}");
    let claimed = |row: &&Value| row["context"]["claimed"] == agent.agent.agent_id.as_str();
    let signed = agent.agent.org.audit("action=aauth.refused");
    assert_eq!(signed.iter().filter(claimed).count(), 1, "{signed:?}");
    // A secret that is wrong is no reason to say more.
    agent.agent.token_request("guess", &[]).send().refused(401, "invalid_client");
    let rows = agent.agent.org.audit(&format!("status=failure&targetId={}", agent.agent.agent_id));
    assert_eq!(rows[0]["context"]["cause"], Value::Null, "{rows:?}");
}

fn what_leaked_is_replaced_while_its_method_is_off(server: &Server) {
    let agent = Everything::new(server);
    agent.may_use(&["private_key_jwt"]);
    for (route, member) in [("/rotate-credentials", "/data/secret"), ("/rotate-key", "/api_key")] {
        let rotated = agent.agent.admin("POST", route).send().ok();
        assert!(text(rotated.pointer(member).expect("it is shown")).len() > 20, "{route}");
        assert_eq!(agent.working(), ["private_key_jwt"], "{route}");
    }
    agent.may_use(&[]);
    // The old secret and the old key are dead.
    assert_eq!(agent.working(), ["private_key_jwt", "workload_identity", "aauth"]);
    // Nobody is given what the list leaves out.
    let body = json!({ "name": unique("Agent"), "authMethods": ["private_key_jwt"], "issueSecret": true });
    agent.agent.org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
}

fn administrator_registers_lists_and_agent_does_not(server: &Server) {
    let (org, id) = (server.acme(), unique("cli"));
    let body = json!({
        "client_id": id, "name": unique("Agent"), "allowed_ips": ["127.0.0.1/32"], "authMethods": ["private_key_jwt"],
    });
    let made = org.post("/agents/register").api_key(org.key()).json(body.clone()).send();
    assert!(matches!(made.status, 200 | 201), "{made}");
    assert_eq!(made.json().get("client_secret"), None, "{made}");
    let path = format!("/agents/{}", text(&made.json()["agent_id"]));
    let data = org.admin("GET", &path).send().ok()["data"].clone();
    assert_eq!(
        (&data["allowedIps"], &data["authMethods"]),
        (&json!(["127.0.0.1"]), &json!(["private_key_jwt"]))
    );
    let bad = json!({ "client_id": id, "name": "x", "allowedIps": ["everywhere"] });
    org.post("/agents/register").api_key(org.key()).json(bad).send().refused(400, "validation_error");
    let update = json!({ "client_id": id, "name": "x", "allowedIps": [] });
    org.post("/agents/register").api_key(org.key()).json(update).send().ok();
    assert_eq!(org.admin("GET", &path).send().ok()["data"]["allowedIps"], Value::Null);
    let agent = org.agent(&["read:a"]);
    for (member, value) in
        [("allowedIps", json!([])), ("auth_methods", json!(["api_key"])), ("allowed_ips", json!(["::/0"]))]
    {
        let body = json!({ "client_id": agent.client_id, "name": agent.name, member: value });
        let answer = org.post("/agents/register").bearer(&agent.token()).json(body).send();
        assert_eq!(answer.status, 403, "{member}: {answer}");
    }
}
