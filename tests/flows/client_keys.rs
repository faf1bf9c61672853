//! `private_key_jwt` (RFC 7523 section 2.2): clients that prove who they are with a key instead of a secret.

use lumoauth_tests::{
    Agent, AttackerKey, CALLBACK, Response, Server, at_once, on_each_backend, text, unique, unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    assertion_stands_in_for_the_secret,
    client_id_may_be_left_to_the_assertion,
    application_may_have_keys_too,
    audience_is_the_issuer_and_nothing_else,
    issuer_and_subject_are_the_client,
    assertion_works_once,
    times_are_kept,
    jti_is_required,
    signature_and_algorithm_are_checked,
    assertion_with_another_method_is_refused,
    assertion_needs_its_type,
    key_that_was_rotated_away_is_dead,
    client_without_keys_proves_nothing,
    suspended_agent_proves_nothing,
    introspection_takes_an_assertion,
    revocation_takes_an_assertion,
    pushed_requests_take_an_assertion,
    refused_assertions_are_not_used_up_and_not_logged,
);

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent with a key of its own.
struct Holder<'a> {
    agent: Agent<'a>,
    key: AttackerKey,
}

impl<'a> Holder<'a> {
    fn new(server: &'a Server) -> Self {
        let key = AttackerKey::generate();
        let agent = server.acme().create_agent(json!({
            "capabilities": ["read:a"], "redirectUris": [CALLBACK], "jwks": { "keys": [key.jwk("k1")] },
        }));
        Self { agent, key }
    }

    /// Good claims. They end as late as they may, because a server that has just begun to remember does not accept what
    /// could have been used before.
    fn claims(&self) -> Value {
        let id = &self.agent.client_id;
        json!({
            "iss": id, "sub": id, "aud": self.agent.org.issuer(), "jti": unique("jti"), "iat": unix_now(),
            "exp": unix_now() + 300,
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.key.sign(&json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }), claims)
    }

    /// An assertion whose claims were changed.
    fn with(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                claims.as_object_mut().expect("an object").remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        self.sign(&claims)
    }

    fn post(&self, path: &str, assertion: &str, more: &[(&str, &str)]) -> Response {
        let fields = [
            ("client_id", self.agent.client_id.as_str()),
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ];
        let fields: Vec<_> = fields.iter().chain(more).copied().collect();
        self.agent.org.post(path).form(&fields).send()
    }

    fn token(&self, assertion: &str) -> Response {
        self.post("/oauth/token", assertion, &[("grant_type", "client_credentials")])
    }

    fn good(&self) -> String {
        self.sign(&self.claims())
    }
}

fn assertion_stands_in_for_the_secret(server: &Server) {
    let holder = Holder::new(server);
    let body = holder.token(&holder.good()).ok();
    assert_eq!(body["scope"], "read:a");
    holder.agent.userinfo(text(&body["access_token"])).ok();
    let metadata = server.acme().get("/.well-known/oauth-authorization-server").send().ok();
    let methods = &metadata["token_endpoint_auth_methods_supported"];
    assert!(lumoauth_tests::strings(methods).contains(&"private_key_jwt"), "{methods}");
    for typ in [json!("client-authentication+jwt"), json!("jwt"), Value::Null] {
        let mut header = json!({ "alg": "ES256", "kid": "k1", "typ": typ });
        if header["typ"].is_null() {
            header.as_object_mut().expect("an object").remove("typ");
        }
        holder.token(&holder.key.sign(&header, &holder.claims())).ok();
    }
}

fn client_id_may_be_left_to_the_assertion(server: &Server) {
    let holder = Holder::new(server);
    let form = |assertion: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ];
        server.acme().post("/oauth/token").form(&fields).send()
    };
    form(&holder.good()).ok();
    for broken in ["", "x", "a.b.c", "e30.e30.e30"] {
        form(broken).refused(401, "invalid_client");
    }
    // Named, it must be the same one.
    let other = server.acme().agent(&["read:a"]);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", other.client_id.as_str()),
        ("client_assertion_type", TYPE),
        ("client_assertion", &holder.good()),
    ];
    server.acme().post("/oauth/token").form(&fields).send().refused(401, "invalid_client");
}

fn application_may_have_keys_too(server: &Server) {
    let org = server.acme();
    let key = AttackerKey::generate();
    let app = org.app(json!({
        "grantTypes": ["client_credentials"], "allowedScopes": ["read:a"], "jwks": { "keys": [key.jwk("k1")] },
    }));
    let claims = json!({
        "iss": app.client_id, "sub": app.client_id, "aud": org.issuer(), "jti": unique("jti"),
        "exp": unix_now() + 300,
    });
    let assertion = key.sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.client_id.as_str()),
        ("client_assertion_type", TYPE),
        ("client_assertion", &assertion),
    ];
    org.post("/oauth/token").form(&fields).send().ok();
    org.post("/oauth/token").form(&fields).send().refused(401, "invalid_client");
}

fn audience_is_the_issuer_and_nothing_else(server: &Server) {
    let holder = Holder::new(server);
    let issuer = server.acme().issuer();
    for aud in [
        json!(format!("{issuer}/oauth/token")),
        json!([issuer]),
        json!([issuer, "https://other.test"]),
        json!(server.globex().issuer()),
        json!(server.url()),
        json!(format!("{issuer}/")),
        json!(issuer.replace("/orgs/", "/t/")),
        json!(""),
        Value::Null,
        json!(7),
    ] {
        holder.token(&holder.with(json!({ "aud": aud }))).refused(401, "invalid_client");
    }
    // An assertion for one organization is none at another one.
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", TYPE),
        ("client_assertion", &*holder.good()),
    ];
    server.globex().post("/oauth/token").form(&fields).send().refused(401, "invalid_client");
}

fn issuer_and_subject_are_the_client(server: &Server) {
    let holder = Holder::new(server);
    let other = server.acme().agent(&[]);
    for claim in ["iss", "sub"] {
        for value in [
            json!(other.client_id),
            json!(holder.agent.agent_id),
            json!([holder.agent.client_id]),
            Value::Null,
        ] {
            holder.token(&holder.with(json!({ claim: value }))).refused(401, "invalid_client");
        }
    }
}

fn assertion_works_once(server: &Server) {
    let holder = Holder::new(server);
    let assertion = holder.good();
    holder.token(&assertion).ok();
    holder.token(&assertion).refused(401, "invalid_client");
    // Signed anew it is the same one, at every endpoint.
    let mut claims = holder.claims();
    holder.token(&holder.sign(&claims)).ok();
    claims["iat"] = (unix_now() - 1).into();
    holder.token(&holder.sign(&claims)).refused(401, "invalid_client");
    let more = [("token", "x")];
    holder.post("/oauth/introspect", &holder.sign(&claims), &more).refused(401, "invalid_client");
    // Another client may use the same name for its own.
    let second = Holder::new(server);
    second.token(&second.with(json!({ "jti": claims["jti"] }))).ok();
    // Of many at once one wins.
    let assertion = holder.good();
    let answers = at_once(16, |_| holder.token(&assertion));
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in lost {
        answer.refused(401, "invalid_client");
    }
    assert_eq!(won.len(), 1);
}

fn times_are_kept(server: &Server) {
    let holder = Holder::new(server);
    let now = unix_now();
    for changes in [
        json!({ "exp": now - 1, "iat": now - 61 }),
        json!({ "exp": now + 360 }),
        json!({ "exp": now + 86_400 }),
        json!({ "exp": null }),
        json!({ "exp": "9999999999" }),
        json!({ "exp": -1 }),
        json!({ "nbf": now + 120 }),
        json!({ "iat": now + 120 }),
        json!({ "nbf": "x" }),
    ] {
        holder.token(&holder.with(changes.clone())).refused(401, "invalid_client");
    }
    holder.token(&holder.with(json!({ "iat": null, "exp": unix_now() + 300 }))).ok();
    // The clock of a client may run ahead a little.
    holder.token(&holder.with(json!({ "iat": unix_now() + 30, "exp": unix_now() + 300 }))).ok();
}

fn jti_is_required(server: &Server) {
    let holder = Holder::new(server);
    for jti in [Value::Null, json!(""), json!(7), json!(["x"]), json!("j".repeat(257))] {
        holder.token(&holder.with(json!({ "jti": jti }))).refused(401, "invalid_client");
    }
    let longest = format!("{:x<256}", unique("jti"));
    holder.token(&holder.with(json!({ "jti": longest }))).ok();
}

fn signature_and_algorithm_are_checked(server: &Server) {
    let holder = Holder::new(server);
    let thief = AttackerKey::generate();
    let header = json!({ "alg": "ES256", "kid": "k1" });
    let refused = |assertion: &str| holder.token(assertion).refused(401, "invalid_client");
    refused(&thief.sign(&header, &holder.claims()));
    let mut own = header.clone();
    own["jwk"] = thief.jwk("k1");
    refused(&thief.sign(&own, &holder.claims()));
    refused(&holder.key.sign(&json!({ "alg": "ES256", "kid": "k2" }), &holder.claims()));
    refused(&holder.key.sign(&json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }), &holder.claims()));
    refused(&lumoauth_tests::unsigned(&json!({ "alg": "none" }), &holder.claims()));
    let jwk = holder.key.jwk("k1").to_string();
    let hs256 = json!({ "alg": "HS256", "kid": "k1", "typ": "JWT" });
    refused(&lumoauth_tests::forged(&hs256, &holder.claims(), jwk.as_bytes()));
    refused(&lumoauth_tests::forged(&hs256, &holder.claims(), holder.agent.secret.as_bytes()));
    // A token of this server is signed by a key, but not by this one.
    refused(&holder.agent.token());
    refused(&"x".repeat(20_000));
}

fn assertion_with_another_method_is_refused(server: &Server) {
    let holder = Holder::new(server);
    let (assertion, secret) = (holder.good(), holder.agent.secret.clone());
    let grant = ("grant_type", "client_credentials");
    let both = [grant, ("client_secret", secret.as_str())];
    holder.post("/oauth/token", &assertion, &both).refused(400, "invalid_request");
    let fields = [grant, ("client_assertion_type", TYPE), ("client_assertion", &*assertion)];
    let basic = server.acme().post("/oauth/token").basic(&holder.agent.client_id, &secret);
    basic.form(&fields).send().refused(400, "invalid_request");
    let mut twice = fields.to_vec();
    twice.push(fields[2]);
    server.acme().post("/oauth/token").form(&twice).send().refused(400, "invalid_request");
    // Nothing of that used it up, and the secret goes on working by itself.
    holder.token(&assertion).ok();
    holder.agent.token();
}

fn assertion_needs_its_type(server: &Server) {
    let holder = Holder::new(server);
    let assertion = holder.good();
    let send = |more: &[(&str, &str)]| {
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", &*holder.agent.client_id)];
        fields.extend_from_slice(more);
        server.acme().post("/oauth/token").form(&fields).send()
    };
    send(&[("client_assertion", &assertion)]).refused(401, "invalid_client");
    send(&[("client_assertion_type", TYPE)]).refused(401, "invalid_client");
    let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    send(&[("client_assertion", &assertion), ("client_assertion_type", saml)]).refused(401, "invalid_client");
    send(&[("client_assertion", &assertion), ("client_assertion_type", TYPE)]).ok();
}

fn key_that_was_rotated_away_is_dead(server: &Server) {
    let mut holder = Holder::new(server);
    let (old, next) = (holder.good(), AttackerKey::generate());
    let both = json!({ "jwks": { "keys": [holder.key.jwk("k1"), next.jwk("k2")] } });
    holder.agent.admin("PATCH", "").json(both).send().ok();
    holder.token(&holder.good()).ok();
    let only = json!({ "jwks": { "keys": [next.jwk("k1")] } });
    holder.agent.admin("PATCH", "").json(only).send().ok();
    holder.token(&old).refused(401, "invalid_client");
    holder.token(&holder.good()).refused(401, "invalid_client");
    holder.key = next;
    holder.token(&holder.good()).ok();
}

fn client_without_keys_proves_nothing(server: &Server) {
    let plain = server.acme().agent(&["read:a"]);
    let holder = Holder { agent: plain, key: AttackerKey::generate() };
    holder.token(&holder.good()).refused(401, "invalid_client");
    holder.agent.token();
    // Nor does one that nobody knows, with the same answer.
    let unknown = holder.with(json!({ "iss": "cli_unknown", "sub": "cli_unknown" }));
    let known = holder.token(&holder.good());
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", TYPE),
        ("client_assertion", &*unknown),
    ];
    let unknown = server.acme().post("/oauth/token").form(&fields).send();
    assert_eq!((known.status, known.text()), (unknown.status, unknown.text()));
}

fn suspended_agent_proves_nothing(server: &Server) {
    let holder = Holder::new(server);
    holder.agent.admin("POST", "/deactivate").send().ok();
    holder.token(&holder.good()).refused(401, "invalid_client");
    holder.agent.admin("POST", "/activate").send().ok();
    holder.token(&holder.good()).ok();
}

fn introspection_takes_an_assertion(server: &Server) {
    let holder = Holder::new(server);
    let token = holder.agent.token();
    let more = [("token", token.as_str())];
    let assertion = holder.good();
    let seen = holder.post("/oauth/introspect", &assertion, &more).ok();
    assert_eq!((&seen["active"], &seen["client_id"]), (&json!(true), &json!(holder.agent.client_id)));
    holder.post("/oauth/introspect", &assertion, &more).refused(401, "invalid_client");
    let elsewhere = holder.with(json!({ "aud": format!("{}/oauth/introspect", server.acme().issuer()) }));
    holder.post("/oauth/introspect", &elsewhere, &more).refused(401, "invalid_client");
    let both = [("token", token.as_str()), ("client_secret", &holder.agent.secret)];
    holder.post("/oauth/introspect", &holder.good(), &both).refused(400, "invalid_request");
}

fn revocation_takes_an_assertion(server: &Server) {
    let holder = Holder::new(server);
    let token = holder.agent.token();
    let more = [("token", token.as_str())];
    let expired = holder.with(json!({ "exp": unix_now() - 1 }));
    holder.post("/oauth/revoke", &expired, &more).refused(401, "invalid_client");
    let both = [("token", token.as_str()), ("client_secret", &holder.agent.secret)];
    holder.post("/oauth/revoke", &holder.good(), &both).refused(400, "invalid_request");
    assert!(holder.agent.sees_alive(&token));
    holder.post("/oauth/revoke", &holder.good(), &more).ok();
    assert!(!holder.agent.sees_alive(&token));
}

fn pushed_requests_take_an_assertion(server: &Server) {
    let holder = Holder::new(server);
    let more = [("response_type", "code"), ("redirect_uri", CALLBACK), ("scope", "read:a")];
    let assertion = holder.good();
    let pushed = holder.post("/oauth/par", &assertion, &more).expect(201).json();
    let uri = text(&pushed["request_uri"]);
    let alice = server.acme().person();
    let asked = alice.authorize(&[("client_id", &holder.agent.client_id), ("request_uri", uri)]).ok();
    let code = text(&alice.decide(&asked, "approve", &[]).ok()["code"]).to_owned();
    holder.post("/oauth/par", &assertion, &more).refused(401, "invalid_client");
    let redeem = [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", CALLBACK)];
    holder.post("/oauth/token", &assertion, &redeem).refused(401, "invalid_client");
    holder.post("/oauth/token", &holder.good(), &redeem).ok();
}

fn refused_assertions_are_not_used_up_and_not_logged(server: &Server) {
    let holder = Holder::new(server);
    let mut claims = holder.claims();
    let good = claims["aud"].take();
    claims["aud"] = "https://other.test".into();
    let refused = holder.sign(&claims);
    holder.token(&refused).refused(401, "invalid_client");
    claims["aud"] = good;
    let accepted = holder.sign(&claims);
    holder.token(&accepted).ok();
    let rows = json!(holder.agent.org.audit(&format!("actor={}", holder.agent.agent_id))).to_string();
    assert!(rows.contains("failure"), "{rows}");
    assert!(!rows.contains(&refused) && !rows.contains(&accepted), "{rows}");
}
