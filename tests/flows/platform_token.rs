//! Platform tokens: from a key pair to the first ordinary access token, which is bound to that key.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{
    Agent, DpopKey, Request, Response, Server, Token, b64, on_each_backend, percent_encode, text, unique,
    unix_now,
};
use serde_json::{Value, json};

on_each_backend!(
    signature_gives_a_bound_token,
    proof_gives_a_bound_token,
    form_and_json_are_the_same,
    who_proves_no_key_gets_nothing,
    one_proof_and_one_only,
    other_key_gets_nothing,
    proof_and_signature_are_used_once,
    agent_token_is_checked,
    parameters_are_those_of_an_exchange,
    scope_is_within_the_capabilities,
    delegate_gets_none,
    it_ends_with_its_agent,
    resource_may_be_named,
    audit_log_knows_of_it,
);

const PATH: &str = "/aauth/agent/platform-token";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// An agent that has a key.
struct Keyed<'a> {
    agent: Agent<'a>,
    key: DpopKey,
    identifier: String,
}

impl<'a> Keyed<'a> {
    fn new(server: &'a Server) -> Self {
        let key = DpopKey::generate();
        let agent = server.acme().agent(&["read:a", "read:b"]);
        let identifier = format!("https://{}.test", unique("agent"));
        let body = json!({
            "agent_id": agent.agent_id, "agent_identifier": identifier, "delegation": true,
            "jwks": { "keys": [key.key().jwk("k1")] },
        });
        agent.org.admin("POST", "/aauth/agents").json(body).send().expect(201);
        Self { agent, key, identifier }
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.identifier, "sub": self.identifier, "iat": unix_now(), "exp": unix_now() + 3600,
            "jti": unique("token"), "cnf": { "jwk": self.key.key().jwk("k1") },
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.key.key().sign(&json!({ "typ": "agent+jwt", "alg": "ES256", "kid": "k1" }), claims)
    }

    fn agent_token(&self) -> String {
        self.sign(&self.claims())
    }

    fn url(&self) -> String {
        format!("{}{PATH}", self.agent.org.issuer())
    }

    /// A request with these parameters, and without proof.
    fn request(&self, fields: &[(&str, &str)]) -> Request {
        self.agent.org.post(PATH).form(fields)
    }

    /// One with a proof by `key`.
    fn proven_by(&self, key: &DpopKey, fields: &[(&str, &str)]) -> Request {
        self.request(fields).header("DPoP", &key.proof("POST", &self.url(), None))
    }

    fn proven(&self, agent_token: &str) -> Response {
        self.proven_by(&self.key, &fields(agent_token)).send()
    }

    /// The token of a proven request.
    fn token(&self) -> String {
        text(&self.proven(&self.agent_token()).ok()["access_token"]).to_owned()
    }

    fn userinfo(&self, token: &str) -> Response {
        let url = format!("{}/oauth/userinfo", self.agent.org.issuer());
        let proof = self.key.proof("GET", &url, Some(token));
        self.agent.org.get("/oauth/userinfo").dpop(token, &proof).send()
    }

    #[track_caller]
    fn assert_bound(&self, answer: &Value) {
        assert_eq!(answer["token_type"], "DPoP");
        assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(
            (&answer["agent_id"], &answer["scope"]),
            (&json!(self.agent.agent_id), &json!("read:a read:b"))
        );
        assert_eq!(answer["cnf_jkt"], self.key.thumbprint());
        assert_eq!(answer["expires_in"], 3600);
        let token = text(&answer["access_token"]);
        let claims = Token::parse(token).claims;
        assert_eq!(claims["cnf"], json!({ "jkt": self.key.thumbprint() }));
        assert_eq!(
            (&claims["sub"], &claims["client_id"]),
            (&json!(format!("agent:{}", self.agent.slug)), &json!(self.agent.client_id),)
        );
        assert_eq!(self.userinfo(token).ok()["agent_id"], self.agent.agent_id);
        self.agent.userinfo(token).refused(401, "invalid_token");
        let shown = self.agent.org.introspect(&self.agent, token);
        assert_eq!((&shown["token_type"], &shown["cnf"]["jkt"]), (&json!("DPoP"), &answer["cnf_jkt"]));
    }
}

fn fields(agent_token: &str) -> [(&str, &str); 3] {
    [("grant_type", EXCHANGE), ("subject_token", agent_token), ("subject_token_type", JWT)]
}

fn form(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", percent_encode(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The fields of a signature by `key`, as the SDK makes it (contract 2.11.1).
fn signature(
    key: &DpopKey,
    server: &Server,
    path: &str,
    content_type: &str,
    body: &str,
) -> [(String, String); 3] {
    let list = "\"@method\" \"@authority\" \"@path\" \"signature-key\" \"content-digest\" \"content-type\" \"authorization\"";
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body.as_bytes())));
    let params = format!("({list});created={};nonce=\"{}\"", unix_now(), b64(unique("nonce-nonce")));
    let base = format!(
        "\"@method\": POST\n\"@authority\": {}\n\"@path\": {path}\n\"signature-key\": \n\"content-digest\": {content_digest}\n\
         \"content-type\": {content_type}\n\"authorization\": \n\"@signature-params\": {params}",
        server.authority()
    );
    let signature = format!("sig1=:{}:", b64(key.key().sign_bytes(base.as_bytes())));
    [
        ("Content-Digest".to_owned(), content_digest),
        ("Signature-Input".to_owned(), format!("sig1={params}")),
        ("Signature".to_owned(), signature),
    ]
}

impl Keyed<'_> {
    fn signed_by(&self, key: &DpopKey, content_type: &str, body: &str) -> Request {
        let org = &self.agent.org;
        let path = format!("/orgs/{}/api/v1{PATH}", org.slug());
        let headers = signature(key, org.server(), &path, content_type, body);
        let request = org.post(PATH).body(content_type, body);
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    fn signed(&self, agent_token: &str) -> Request {
        self.signed_by(&self.key, "application/x-www-form-urlencoded", &form(&fields(agent_token)))
    }
}

/// The refusal of whoever is not known, with the reason.
#[track_caller]
fn unknown(response: &Response, reason: &str) {
    let body = response.refused(401, "authentication_required");
    assert_eq!(body["details"]["reason"], reason, "{body}");
    assert!(body.get("auth_url").is_none() && body.get("request_token").is_none(), "{body}");
    assert_eq!(response.header("agent-auth"), Some("httpsig"));
}

fn signature_gives_a_bound_token(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    keyed.assert_bound(&keyed.signed(&token).send().ok());
    let named = keyed.signed(&token).header("Agent-Auth", &format!("agent_token={token}"));
    keyed.assert_bound(&named.send().ok());
}

fn proof_gives_a_bound_token(server: &Server) {
    let keyed = Keyed::new(server);
    let response = keyed.proven(&keyed.agent_token());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    keyed.assert_bound(&response.ok());
    let fields = [
        ("grant_type", EXCHANGE),
        ("subject_token", &*keyed.agent_token()),
        ("subject_token_type", "urn:lumoauth:token-type:agent+jwt"),
    ];
    keyed.assert_bound(&keyed.proven_by(&keyed.key, &fields).send().ok());
}

fn form_and_json_are_the_same(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    let body = json!({ "grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT });
    let proof = keyed.key.proof("POST", &keyed.url(), None);
    keyed.assert_bound(&keyed.agent.org.post(PATH).json(body.clone()).header("DPoP", &proof).send().ok());
    let signed = keyed.signed_by(&keyed.key, "application/json", &body.to_string());
    keyed.assert_bound(&signed.send().ok());
    let twice = r#"{"grant_type":"x","grant_type":"y"}"#;
    keyed.signed_by(&keyed.key, "application/json", twice).send().refused(400, "invalid_request");
}

fn who_proves_no_key_gets_nothing(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    unknown(&keyed.request(&fields(&token)).send(), "invalid_signature");
    // Neither the agent's secret nor its token is a proof of the key.
    let secret = keyed.request(&fields(&token)).basic(&keyed.agent.client_id, &keyed.agent.secret);
    unknown(&secret.send(), "invalid_signature");
    unknown(&keyed.request(&fields(&token)).bearer(&token).send(), "invalid_signature");
    let named = keyed.request(&fields(&token)).header("Agent-Auth", &format!("agent_token={token}"));
    unknown(&named.send(), "invalid_signature");
    // The body is signed.
    let [digest, input, signature] = signature(
        &keyed.key,
        server,
        &format!("/orgs/acme-corp/api/v1{PATH}"),
        "application/x-www-form-urlencoded",
        &form(&fields("another")),
    );
    let changed = [digest, input, signature]
        .iter()
        .fold(keyed.request(&fields(&token)), |request, (name, value)| request.header(name, value));
    unknown(&changed.send(), "invalid_signature");
}

fn one_proof_and_one_only(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    let proof = || keyed.key.proof("POST", &keyed.url(), None);
    keyed.signed(&token).header("DPoP", &proof()).send().refused(400, "invalid_request");
    let two = keyed.request(&fields(&token)).header("DPoP", &proof()).header("DPoP", &proof()).send();
    unknown(&two, "invalid_dpop_proof");
    assert!(two.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("DPoP error=")));
    let other = format!("agent_token={}", keyed.agent_token());
    keyed.signed(&token).header("Agent-Auth", &other).send().refused(400, "invalid_request");
    let proven = keyed.proven_by(&keyed.key, &fields(&token)).header("Agent-Auth", &other);
    proven.send().refused(400, "invalid_request");
}

fn other_key_gets_nothing(server: &Server) {
    let keyed = Keyed::new(server);
    let thief = DpopKey::generate();
    let token = keyed.agent_token();
    unknown(&keyed.proven_by(&thief, &fields(&token)).send(), "invalid_dpop_proof");
    let body = form(&fields(&token));
    let signed = keyed.signed_by(&thief, "application/x-www-form-urlencoded", &body);
    unknown(&signed.send(), "key_binding_failed");
    // A proof for another address is none, and a token that names the thief's key is not the agent's.
    let url = format!("{}/oauth/token", keyed.agent.org.issuer());
    let elsewhere = keyed.request(&fields(&token)).header("DPoP", &keyed.key.proof("POST", &url, None));
    unknown(&elsewhere.send(), "invalid_dpop_proof");
    let mut claims = keyed.claims();
    claims["cnf"]["jwk"] = thief.key().jwk("k1");
    let own = thief.key().sign(&json!({ "typ": "agent+jwt", "alg": "ES256", "kid": "k1" }), &claims);
    unknown(&keyed.proven_by(&thief, &fields(&own)).send(), "invalid_agent_token");
}

fn proof_and_signature_are_used_once(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    for (request, reason) in [
        (keyed.proven_by(&keyed.key, &fields(&token)), "invalid_dpop_proof"),
        (keyed.signed(&token), "invalid_signature"),
    ] {
        request.send().ok();
        unknown(&request.send(), reason);
    }
}

fn agent_token_is_checked(server: &Server) {
    let keyed = Keyed::new(server);
    let with = |name: &str, value: Value| {
        let mut claims = keyed.claims();
        claims[name] = value;
        keyed.sign(&claims)
    };
    let typed = |typ: &str| {
        keyed.key.key().sign(&json!({ "typ": typ, "alg": "ES256", "kid": "k1" }), &keyed.claims())
    };
    for bad in [
        "x".to_owned(),
        keyed.agent.token(),
        typed("JWT"),
        typed("at+jwt"),
        typed("auth+jwt"),
        typed("dpop+jwt"),
        with("exp", json!(unix_now() - 1)),
        with("aud", json!("https://evil.example")),
        with("iss", json!("https://nobody.test")),
        with("cnf", Value::Null),
        with("cnf", json!({ "jkt": "x" })),
        format!("{}x", keyed.agent_token()),
    ] {
        unknown(&keyed.proven(&bad), "invalid_agent_token");
    }
    keyed.proven(&with("aud", json!(keyed.agent.org.issuer()))).ok();
    keyed.proven(&with("cnf", json!({ "jkt": keyed.key.thumbprint() }))).ok();
    keyed.agent.admin("POST", "/deactivate").send().ok();
    unknown(&keyed.proven(&keyed.agent_token()), "invalid_agent_token");
}

fn parameters_are_those_of_an_exchange(server: &Server) {
    let keyed = Keyed::new(server);
    let token = keyed.agent_token();
    let good = fields(&token);
    let with = |name: &'static str, value: &'static str| {
        let mut fields: Vec<_> = good.iter().copied().filter(|(other, _)| *other != name).collect();
        if !value.is_empty() {
            fields.push((name, value));
        }
        keyed.proven_by(&keyed.key, &fields).send()
    };
    with("grant_type", "").refused(400, "invalid_request");
    with("grant_type", "client_credentials").refused(400, "unsupported_grant_type");
    with("subject_token", "").refused(400, "invalid_request");
    with("subject_token_type", "").refused(400, "invalid_request");
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    with("subject_token_type", id_token).refused(400, "unsupported_token_type");
    with("requested_token_type", id_token).refused(400, "invalid_request");
    with("actor_token", "x").refused(400, "invalid_request");
    with("resource", "https://unknown.test").refused(400, "invalid_target");
    let repeated: Vec<_> = good.iter().chain(&good[..1]).copied().collect();
    keyed.proven_by(&keyed.key, &repeated).send().refused(400, "invalid_request");
    keyed.agent.org.get(PATH).send().refused(405, "method_not_allowed");
}

fn scope_is_within_the_capabilities(server: &Server) {
    let keyed = Keyed::new(server);
    let ask = |scope: &str| {
        let token = keyed.agent_token();
        let fields: Vec<_> = fields(&token).into_iter().chain([("scope", scope)]).collect();
        keyed.proven_by(&keyed.key, &fields).send()
    };
    let narrow = ask("read:a").ok();
    assert_eq!(narrow["scope"], "read:a");
    assert_eq!(keyed.userinfo(text(&narrow["access_token"])).status, 200);
    for more in ["read:c", "read:a read:c", "admin", "read:*"] {
        ask(more).refused(400, "invalid_scope");
    }
    keyed.agent.admin("PUT", "").json(json!({ "capabilities": ["read:b"] })).send().ok();
    ask("read:a").refused(400, "invalid_scope");
    assert_eq!(keyed.proven(&keyed.agent_token()).ok()["scope"], "read:b");
}

fn delegate_gets_none(server: &Server) {
    let keyed = Keyed::new(server);
    let delegate = DpopKey::generate();
    let mut claims = keyed.claims();
    claims["sub"] = json!("worker-1");
    claims["cnf"]["jwk"] = delegate.key().jwk("d1");
    let token = keyed.sign(&claims);
    keyed.proven_by(&delegate, &fields(&token)).send().refused(403, "access_denied");
    let body = form(&fields(&token));
    let signed = keyed.signed_by(&delegate, "application/x-www-form-urlencoded", &body);
    signed.send().refused(403, "access_denied");
}

fn it_ends_with_its_agent(server: &Server) {
    let keyed = Keyed::new(server);
    let (one, two) = (keyed.token(), keyed.token());
    let form =
        [("token", &*one), ("client_id", &*keyed.agent.client_id), ("client_secret", &*keyed.agent.secret)];
    keyed.agent.org.post("/oauth/revoke").form(&form).send().ok();
    keyed.userinfo(&one).refused(401, "invalid_token");
    keyed.userinfo(&two).ok();
    keyed.agent.admin("POST", "/deactivate").send().ok();
    keyed.userinfo(&two).refused(401, "invalid_token");
    keyed.agent.admin("POST", "/activate").send().ok();
    keyed.userinfo(&two).refused(401, "invalid_token");
    keyed.userinfo(&keyed.token()).ok();
}

fn resource_may_be_named(server: &Server) {
    let keyed = Keyed::new(server);
    let mcp = keyed.agent.org.mcp_server(json!({}));
    let token = keyed.agent_token();
    let fields: Vec<_> =
        fields(&token).into_iter().chain([("resource", text(&mcp["resource_uri"]))]).collect();
    let answer = keyed.proven_by(&keyed.key, &fields).send().ok();
    let claims = Token::parse(text(&answer["access_token"])).claims;
    assert_eq!((&claims["aud"], &answer["token_type"]), (&mcp["resource_uri"], &json!("DPoP")));
    keyed.userinfo(text(&answer["access_token"])).refused(401, "invalid_token");
}

fn audit_log_knows_of_it(server: &Server) {
    let keyed = Keyed::new(server);
    keyed.token();
    let events =
        keyed.agent.org.audit(&format!("action=agent.authenticated&targetId={}", keyed.agent.agent_id));
    assert!(events.iter().any(|event| event.to_string().contains("\"aauth\"")), "{events:?}");
    let thief = DpopKey::generate();
    let token = keyed.agent_token();
    keyed.proven_by(&thief, &fields(&token)).send().refused_somehow();
    let refusals = keyed.agent.org.audit("action=aauth.refused");
    let about = |event: &&Value| event.to_string().contains(&keyed.agent.agent_id);
    assert!(refusals.iter().any(|event| about(&event)), "{refusals:?}");
    assert!(!format!("{events:?}{refusals:?}").contains(&token), "no token is written down");
}
