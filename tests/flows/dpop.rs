//! DPoP (RFC 9449) at the routes of the server: tokens that are bound to a key, and every proof that proves nothing.

use std::thread;

use lumoauth_tests::{
    Agent, DpopKey, Request, Response, Server, Token, b64, forged, list, on_each_backend, strings, text,
    unique, unix_now, unsigned,
};
use serde_json::{Value, json};

on_each_backend!(
    token_is_bound_to_the_key_of_the_proof,
    without_a_proof_it_is_a_bearer_token,
    client_of_a_person_s_kind_gets_bound_tokens_too,
    bad_proof_gives_no_token,
    other_grants_bind_nothing_and_refuse_proofs,
    bound_token_needs_its_proof,
    proof_is_for_one_request,
    address_is_compared_as_the_standard_says,
    proof_is_of_one_minute,
    proof_of_any_second_of_two_minutes_is_accepted,
    key_is_the_token_s_and_public,
    proof_is_a_proof,
    proof_is_used_once,
    one_of_many_at_once_is_the_first,
    refused_proof_is_not_used_up,
    metadata_name_the_algorithms,
);

/// An agent with a token that is bound to its key.
struct Holder<'a> {
    agent: Agent<'a>,
    key: DpopKey,
    token: String,
}

const USERINFO: &str = "/oauth/userinfo";

/// A name and another value for it; null takes it away.
type Change = (&'static str, Value);

fn changed(mut value: Value, changes: &[Change]) -> Value {
    let members = value.as_object_mut().expect("an object");
    for (name, change) in changes {
        match change {
            Value::Null => drop(members.remove(*name)),
            change => drop(members.insert((*name).to_owned(), change.clone())),
        }
    }
    value
}

impl<'a> Holder<'a> {
    fn new(server: &'a Server) -> Self {
        let (key, agent) = (DpopKey::generate(), server.acme().agent(&["read:a"]));
        let answer = token_request(&agent, &key).send().ok();
        assert_eq!(answer["token_type"], "DPoP");
        Self { token: text(&answer["access_token"]).to_owned(), agent, key }
    }

    fn url(&self) -> String {
        format!("{}{USERINFO}", self.agent.org.issuer())
    }

    fn userinfo(&self) -> Request {
        self.agent.org.get(USERINFO)
    }

    fn claims(&self) -> Value {
        self.key.claims("GET", &self.url(), Some(&self.token))
    }

    /// A good proof for userinfo with other claims.
    fn with(&self, changes: &[Change]) -> String {
        self.key.key().sign(&self.key.header(), &changed(self.claims(), changes))
    }

    /// One with another header.
    fn headed(&self, changes: &[Change]) -> String {
        self.key.key().sign(&changed(self.key.header(), changes), &self.claims())
    }

    fn good(&self) -> String {
        self.with(&[])
    }

    fn send(&self, proof: &str) -> Response {
        self.userinfo().dpop(&self.token, proof).send()
    }

    #[track_caller]
    fn accepted(&self, proof: &str) {
        assert_eq!(self.send(proof).ok()["agent_id"], self.agent.agent_id);
    }

    #[track_caller]
    fn refused(&self, proof: &str) {
        refused(&self.send(proof), "invalid_dpop_proof");
    }
}

/// Whether it is the refusal of RFC 9449 section 7.1.
#[track_caller]
fn refused(response: &Response, error: &str) {
    response.refused(401, error);
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with(&format!("DPoP error=\"{error}\", algs=\"")), "{challenge}");
    assert!(challenge.contains("ES256") && !challenge.contains("HS256"), "{challenge}");
}

fn token_request(agent: &Agent<'_>, key: &DpopKey) -> Request {
    let url = format!("{}/oauth/token", agent.org.issuer());
    agent.token_request(&agent.secret, &[]).header("DPoP", &key.proof("POST", &url, None))
}

fn token_is_bound_to_the_key_of_the_proof(server: &Server) {
    let holder = Holder::new(server);
    let claims = Token::parse(&holder.token).claims;
    assert_eq!(claims["cnf"], json!({ "jkt": holder.key.thumbprint() }));
    assert_eq!(Token::parse(&holder.token).header["typ"], "at+jwt");
    holder.accepted(&holder.good());
    // The scheme is written as anybody likes, the method is the request's.
    let lower = format!("dpop {}", holder.token);
    holder.userinfo().header("authorization", &lower).header("dpop", &holder.good()).send().ok();
    let post = holder.agent.org.post(USERINFO);
    post.dpop(&holder.token, &holder.key.proof("POST", &holder.url(), Some(&holder.token))).send().ok();
    let head = holder.agent.org.request("HEAD", USERINFO);
    let proof = |method| holder.key.proof(method, &holder.url(), Some(&holder.token));
    assert_eq!(head.clone().dpop(&holder.token, &proof("HEAD")).send().status, 200);
    assert_eq!(head.dpop(&holder.token, &proof("GET")).send().status, 401);
}

fn without_a_proof_it_is_a_bearer_token(server: &Server) {
    let (key, agent) = (DpopKey::generate(), server.acme().agent(&["read:a"]));
    let answer = agent.ask_token(&[]).ok();
    assert_eq!(answer["token_type"], "Bearer");
    let token = text(&answer["access_token"]);
    assert!(Token::parse(token).claims.get("cnf").is_none());
    agent.userinfo(token).ok();
    // Nobody makes a bound token of it.
    let url = format!("{}{USERINFO}", agent.org.issuer());
    let proof = || key.proof("GET", &url, Some(token));
    refused(&agent.org.get(USERINFO).dpop(token, &proof()).send(), "invalid_token");
    refused(&agent.org.get(USERINFO).dpop(agent.org.key(), &proof()).send(), "invalid_token");
    refused(&agent.org.get(USERINFO).dpop("x", &proof()).send(), "invalid_token");
    // A proof that nobody asked for changes nothing.
    agent.org.get(USERINFO).bearer(token).header("DPoP", &proof()).send().ok();
}

fn client_of_a_person_s_kind_gets_bound_tokens_too(server: &Server) {
    let (key, org) = (DpopKey::generate(), server.acme());
    let body = json!({ "name": unique("rs"), "isConfidential": true, "grantTypes": ["client_credentials"] });
    let client = org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone();
    let proof = key.proof("POST", &format!("{}/oauth/token", org.issuer()), None);
    let request = org.post("/oauth/token").basic(text(&client["clientId"]), text(&client["secret"]));
    let answer = request.header("DPoP", &proof).form(&[("grant_type", "client_credentials")]).send().ok();
    assert_eq!(answer["token_type"], "DPoP");
    assert_eq!(Token::parse(text(&answer["access_token"])).claims["cnf"]["jkt"], key.thumbprint());
}

fn bad_proof_gives_no_token(server: &Server) {
    let (key, agent) = (DpopKey::generate(), server.acme().agent(&["read:a"]));
    let url = format!("{}/oauth/token", agent.org.issuer());
    let ask = |proof: &str| agent.token_request(&agent.secret, &[]).header("DPoP", proof);
    let claims = || key.claims("POST", &url, None);
    let signed = |changes: &[Change]| key.key().sign(&key.header(), &changed(claims(), changes));
    for bad in [
        String::new(),
        "x".to_owned(),
        signed(&[("htm", json!("GET"))]),
        signed(&[("htu", json!(format!("{}{USERINFO}", agent.org.issuer())))]),
        signed(&[("iat", json!(unix_now() - 61))]),
        signed(&[("jti", Value::Null)]),
        unsigned(&changed(key.header(), &[("alg", json!("none"))]), &claims()),
    ] {
        ask(&bad).send().refused(400, "invalid_dpop_proof");
    }
    let good = signed(&[]);
    ask(&good).header("DPoP", &signed(&[])).send().refused(400, "invalid_dpop_proof");
    // Whoever is not the client uses up nothing.
    let stranger = agent.token_request("wrong", &[]).header("DPoP", &good);
    stranger.send().refused(401, "invalid_client");
    assert_eq!(ask(&good).send().ok()["token_type"], "DPoP");
    ask(&good).send().refused(400, "invalid_dpop_proof");
    let refusals = agent.org.audit(&format!("action=agent.authenticated&targetId={}", agent.agent_id));
    assert!(
        refusals.iter().any(|entry| entry.to_string().contains("the proof was used before")),
        "{refusals:?}"
    );
}

fn other_grants_bind_nothing_and_refuse_proofs(server: &Server) {
    let (key, agent) = (DpopKey::generate(), server.acme().agent(&["read:a", "delegate:on_behalf"]));
    let token = agent.token();
    let url = format!("{}/oauth/token", agent.org.issuer());
    for fields in [
        &[("grant_type", "authorization_code"), ("code", "x"), ("redirect_uri", "https://a.example")][..],
        &[("grant_type", "refresh_token"), ("refresh_token", "x")],
        &[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", "x")],
        &[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("scope", "read:a"),
        ],
    ] {
        let request = agent.org.post("/oauth/token").basic(&agent.client_id, &agent.secret).form(fields);
        let answer = request.header("DPoP", &key.proof("POST", &url, None)).send();
        let answer = answer.refused(400, "invalid_request");
        assert!(text(&answer["error_description"]).contains("DPoP"), "{answer}");
    }
}

fn bound_token_needs_its_proof(server: &Server) {
    let holder = Holder::new(server);
    // Neither alone, nor as a bearer token with the proof beside it.
    refused(&holder.userinfo().bearer(&holder.token).send(), "invalid_token");
    refused(&holder.userinfo().bearer(&holder.token).header("DPoP", &holder.good()).send(), "invalid_token");
    let alone = holder.userinfo().header("Authorization", &format!("DPoP {}", holder.token));
    refused(&alone.clone().send(), "invalid_dpop_proof");
    for (one, other) in [(holder.good(), holder.good()), (holder.good(), "x".to_owned())] {
        refused(&alone.clone().header("DPoP", &one).header("DPoP", &other).send(), "invalid_dpop_proof");
    }
    let same = holder.good();
    refused(&alone.clone().header("DPoP", &same).header("DPoP", &same).send(), "invalid_dpop_proof");
    refused(
        &alone.clone().header("DPoP", &format!("{}, {}", same, holder.good())).send(),
        "invalid_dpop_proof",
    );
    // Two of the other header are none, whatever they say.
    let good = holder.good();
    for second in [format!("DPoP {}", holder.token), format!("Bearer {}", holder.agent.token())] {
        let two = holder.userinfo().dpop(&holder.token, &good).header("Authorization", &second);
        two.send().refused(401, "invalid_token");
    }
    holder.accepted(&good);
}

fn proof_is_for_one_request(server: &Server) {
    let holder = Holder::new(server);
    for htm in [json!("POST"), json!("get"), json!("HEAD"), json!(""), Value::Null] {
        holder.refused(&holder.with(&[("htm", htm)]));
    }
    let other = text(&token_request(&holder.agent, &holder.key).send().ok()["access_token"]).to_owned();
    let of_other = &holder.key.claims("GET", &holder.url(), Some(&other))["ath"];
    for ath in [of_other.clone(), json!(holder.token), json!(b64("x")), json!(""), Value::Null] {
        holder.refused(&holder.with(&[("ath", ath)]));
    }
    // Each has its own proof, though the key is the same.
    holder.userinfo().dpop(&other, &holder.with(&[("ath", of_other.clone())])).send().ok();
    let me = format!("{}/agents/me", holder.agent.org.issuer());
    holder.refused(&holder.with(&[("htu", json!(me))]));
    let proof = holder.key.proof("GET", &me, Some(&holder.token));
    holder.agent.org.get("/agents/me").dpop(&holder.token, &proof).send().ok();
}

fn address_is_compared_as_the_standard_says(server: &Server) {
    let holder = Holder::new(server);
    let (url, path) = (holder.url(), format!("/orgs/acme-corp/api/v1{USERINFO}"));
    let host = server.authority();
    for same in [format!("{url}?x=1"), format!("{url}#x"), format!("HTTP://{host}{path}")] {
        holder.accepted(&holder.with(&[("htu", json!(same))]));
    }
    // The query is not in it, so it may be any.
    holder.agent.org.get(&format!("{USERINFO}?a=b")).dpop(&holder.token, &holder.good()).send().ok();
    for other in [
        format!("{url}/"),
        format!("https://{host}{path}"),
        format!("http://evil.example{path}"),
        format!("http://x@{host}{path}"),
        format!("http://{host}//orgs/acme-corp/api/v1{USERINFO}"),
        format!("http://{host}/t/acme-corp/api/v1{USERINFO}"),
        format!("http://{host}/orgs/globex/api/v1{USERINFO}"),
        format!("http://{host}/orgs/acme-corp/api/v1/oauth/%75serinfo"),
        path,
        String::new(),
    ] {
        holder.refused(&holder.with(&[("htu", json!(other))]));
    }
    holder.refused(&holder.with(&[("htu", Value::Null)]));
    // What the client writes in its Host header is not what it is measured by.
    let lied = holder.with(&[("htu", json!(format!("http://evil.example/orgs/acme-corp/api/v1{USERINFO}")))]);
    let request = holder.userinfo().header("Host", "evil.example").dpop(&holder.token, &lied);
    refused(&request.send(), "invalid_dpop_proof");
    // The alias is another address for the same thing.
    let alias = format!("/t/acme-corp/api/v1{USERINFO}");
    let proof = holder.with(&[("htu", json!(format!("http://{host}{alias}")))]);
    server.request("GET", &alias).dpop(&holder.token, &proof).send().ok();
}

fn proof_is_of_one_minute(server: &Server) {
    let holder = Holder::new(server);
    for iat in [
        json!(unix_now() - 61),
        json!(unix_now() - 86_400),
        // As far ahead as it may be, and a little more than the test may take.
        json!(unix_now() + 90),
        json!(unix_now() + 86_400),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(unix_now().to_string()),
        Value::Null,
    ] {
        holder.refused(&holder.with(&[("iat", iat)]));
    }
    for change in [("exp", json!(unix_now() - 1)), ("exp", json!("x")), ("nbf", json!(unix_now() + 90))] {
        holder.refused(&holder.with(&[change]));
    }
}

fn proof_of_any_second_of_two_minutes_is_accepted(server: &Server) {
    let holder = Holder::new(server);
    // Also by a server that is younger: nothing can have been used before it was there. Some seconds are left for the test.
    for iat in [unix_now() - 50, unix_now() - 1, unix_now(), unix_now() + 55] {
        holder.accepted(&holder.with(&[("iat", json!(iat))]));
    }
}

fn key_is_the_token_s_and_public(server: &Server) {
    let holder = Holder::new(server);
    let stranger = DpopKey::generate();
    let claims = holder.claims();
    // A thief with a key of its own; with the holder's in the header; and with an own one that says to be the holder's.
    holder.refused(&stranger.key().sign(&stranger.header(), &claims));
    holder.refused(&stranger.key().sign(&holder.key.header(), &claims));
    let mut jwk = stranger.key().jwk("k");
    jwk["jkt"] = json!(holder.key.thumbprint());
    holder.refused(&stranger.key().sign(&changed(stranger.header(), &[("jwk", jwk)]), &claims));
    for private in ["d", "k", "p"] {
        let mut jwk = holder.key.key().jwk("k");
        jwk[private] = json!("AAAA");
        holder.refused(&holder.headed(&[("jwk", jwk)]));
    }
    let jwk = holder.key.key().jwk("k");
    for jwk in
        [json!({}), json!([jwk]), json!(jwk.to_string()), json!({ "kty": "oct", "k": "AAAA" }), Value::Null]
    {
        holder.refused(&holder.headed(&[("jwk", jwk)]));
    }
    let x = text(&jwk["x"]);
    let secret = json!({ "kty": "oct", "k": x, "alg": "HS256" });
    for alg in ["HS256", "HS512"] {
        let header = changed(holder.key.header(), &[("alg", json!(alg))]);
        holder.refused(&forged(&header, &claims, x.as_bytes()));
        holder.refused(&forged(&changed(header, &[("jwk", secret.clone())]), &claims, x.as_bytes()));
    }
    for alg in ["none", "NONE", "ES384", "RS256", "EdDSA", ""] {
        let header = changed(holder.key.header(), &[("alg", json!(alg))]);
        holder.refused(&unsigned(&header, &claims));
        holder.refused(&holder.key.key().sign(&header, &claims));
    }
}

fn proof_is_a_proof(server: &Server) {
    let holder = Holder::new(server);
    for typ in [json!("JWT"), json!("at+jwt"), json!("jwt"), json!("application/dpop+jwt"), Value::Null] {
        holder.refused(&holder.headed(&[("typ", typ)]));
    }
    holder.refused(&holder.headed(&[("crit", json!(["exp"]))]));
    holder.refused(&holder.headed(&[("b64", json!(false))]));
    for jti in [json!(""), json!("j".repeat(257)), json!(7), Value::Null] {
        holder.refused(&holder.with(&[("jti", jti)]));
    }
    holder.accepted(&holder.with(&[("jti", json!(format!("{:0>256}", unique("j"))))]));
    let good = holder.good();
    let parts: Vec<&str> = good.split('.').collect();
    for broken in [
        "x".to_owned(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}="),
        holder.token.clone(),
        holder.with(&[("x", json!("x".repeat(9000)))]),
    ] {
        holder.refused(&broken);
    }
    holder.accepted(&good);
}

fn proof_is_used_once(server: &Server) {
    let holder = Holder::new(server);
    let good = holder.good();
    holder.accepted(&good);
    holder.refused(&good);
    // It is its name that is used up: the same one in other words, and with another signature.
    let claims = holder.claims();
    let again = || holder.key.key().sign(&holder.key.header(), &claims);
    holder.accepted(&again());
    holder.refused(&again());
    holder
        .refused(&holder.key.key().sign(&holder.key.header(), &changed(claims.clone(), &[("x", json!(1))])));
    // Nobody uses up the names of others.
    let other = Holder::new(server);
    other.accepted(&other.with(&[("jti", claims["jti"].clone())]));
}

fn one_of_many_at_once_is_the_first(server: &Server) {
    let holder = Holder::new(server);
    for _ in 0..5 {
        let good = holder.good();
        let accepted = thread::scope(|scope| {
            let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| holder.send(&good))).collect();
            let answers = calls.into_iter().map(|call| call.join().expect("an answer"));
            answers.filter(|answer| answer.status == 200 || !answer.refused_somehow().is_object()).count()
        });
        assert_eq!(accepted, 1);
    }
}

fn refused_proof_is_not_used_up(server: &Server) {
    let holder = Holder::new(server);
    let good = holder.good();
    refused(&holder.userinfo().bearer(&holder.token).header("DPoP", &good).send(), "invalid_token");
    refused(&holder.agent.org.post(USERINFO).dpop(&holder.token, &good).send(), "invalid_dpop_proof");
    refused(&holder.userinfo().dpop("stolen", &good).send(), "invalid_token");
    holder
        .userinfo()
        .dpop(&holder.token, &good)
        .header("DPoP", "x")
        .send()
        .refused(401, "invalid_dpop_proof");
    holder.accepted(&good);
    // What was used to no effect, because the caller may not do this, was used.
    let check = format!("{}/admin/agents", holder.agent.org.issuer());
    let proof = holder.key.proof("GET", &check, Some(&holder.token));
    let denied = holder.agent.org.get("/admin/agents").dpop(&holder.token, &proof);
    denied.clone().send().refused(403, "forbidden");
    refused(&denied.send(), "invalid_dpop_proof");
}

fn metadata_name_the_algorithms(server: &Server) {
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let metadata = server.acme().get(&format!("/.well-known/{document}")).send().ok();
        let algorithms = &metadata["dpop_signing_alg_values_supported"];
        assert!(
            strings(algorithms).contains(&"ES256") && strings(algorithms).contains(&"EdDSA"),
            "{algorithms}"
        );
        let symmetric = |alg: &Value| text(alg).starts_with("HS") || text(alg) == "none";
        assert!(!list(algorithms).iter().any(symmetric), "{algorithms}");
    }
}
