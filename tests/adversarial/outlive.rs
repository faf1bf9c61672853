//! O: to go on after a link of the chain is gone.

use lumoauth_tests::{Agent, ID_TOKEN, Org, Person, Server, acted_by, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    o01_access_token_of_the_person_revoked,
    o02_refresh_token_of_the_person_revoked,
    o03_consent_withdrawn_by_the_person,
    o04_consent_withdrawn_by_an_administrator,
    o05_consent_given_anew_revives_nothing,
    o06_first_agent_suspended,
    o07_first_agent_switched_on_again_revives_nothing,
    o08_sub_agent_revoked,
    o09_person_blocked,
    o10_person_unblocked_revives_nothing,
    o11_token_in_the_middle_revoked,
    o12_actors_own_token_revoked,
    o13_agent_deleted,
    o14_token_for_a_resource_dies_with_its_chain,
    o15_dead_subject_is_not_exchanged,
    o16_dead_actor_is_not_accepted,
    o17_blocked_person_gets_no_code_and_redeems_none,
    o18_session_ends_with_the_person,
    o19_siblings_live_on,
    o20_agent_that_takes_the_client_id_of_a_deleted_one,
    o21_token_of_a_workload_that_is_trusted_no_more,
    o22_what_came_of_an_id_token,
);

/// Alice, two agents of hers one after the other, and all the tokens of the chain.
struct Chain<'a> {
    org: Org<'a>,
    alice: Person<'a>,
    first: Agent<'a>,
    second: Agent<'a>,
    user: String,
    refresh: String,
    delegated: String,
    nested: String,
    bound: String,
}

impl<'a> Chain<'a> {
    fn new(server: &'a Server) -> Self {
        let org = server.acme();
        let mcp = org.mcp_server(json!({}));
        let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
        let tokens = alice.allow(&first, "read:a");
        let delegated = first.acting_for(&tokens.access);
        let nested = second.acting_for(&delegated);
        let bound = second.exchange(&nested, &[("resource", text(&mcp["resource_uri"]))]).ok();
        let bound = text(&bound["access_token"]).to_owned();
        let chain = Self {
            org,
            alice,
            first,
            second,
            user: tokens.access,
            refresh: tokens.refresh,
            delegated,
            nested,
            bound,
        };
        assert_eq!(chain.alive(), [true; 4]);
        chain
    }

    /// Whether the person's, the delegated, the nested and the bound token are alive.
    fn alive(&self) -> [bool; 4] {
        [
            self.first.sees_alive(&self.user),
            self.first.sees_alive(&self.delegated),
            self.second.sees_alive(&self.nested),
            self.second.sees_alive(&self.bound),
        ]
    }
}

/// Nothing that comes of the person's token lives.
const NOTHING: [bool; 4] = [false; 4];

fn o01_access_token_of_the_person_revoked(server: &Server) {
    let chain = Chain::new(server);
    chain.first.revoke(&chain.user);
    assert_eq!(chain.alive(), NOTHING);
    // The family lives: the next access token is another one.
    chain.first.refresh(&chain.refresh, &[]).ok();
}

fn o02_refresh_token_of_the_person_revoked(server: &Server) {
    let chain = Chain::new(server);
    chain.first.revoke(&chain.refresh);
    assert_eq!(chain.alive(), NOTHING);
    chain.first.refresh(&chain.refresh, &[]).refused(400, "invalid_grant");
}

fn withdraw(chain: &Chain<'_>) {
    let path = format!("/users/{}/consents/{}", chain.alice.id, chain.first.client_id);
    chain.org.admin("DELETE", &path).send().expect(200);
}

fn o03_consent_withdrawn_by_the_person(server: &Server) {
    let chain = Chain::new(server);
    let own = chain.alice.in_person("openid consents");
    let listed = chain.org.get("/me/consents").bearer(&own).send().ok();
    assert!(listed.to_string().contains(&chain.first.client_id), "{listed}");
    let path = format!("/me/consents/{}", chain.first.client_id);
    chain.org.request("DELETE", &path).bearer(&own).send().expect(200);
    assert_eq!(chain.alive(), NOTHING);
}

fn o04_consent_withdrawn_by_an_administrator(server: &Server) {
    let chain = Chain::new(server);
    withdraw(&chain);
    assert_eq!(chain.alive(), NOTHING);
    chain.first.refresh(&chain.refresh, &[]).refused(400, "invalid_grant");
}

fn o05_consent_given_anew_revives_nothing(server: &Server) {
    let chain = Chain::new(server);
    withdraw(&chain);
    let anew = chain.alice.allow(&chain.first, "read:a");
    assert_eq!(chain.alive(), NOTHING);
    assert!(chain.first.sees_alive(&chain.first.acting_for(&anew.access)));
}

fn o06_first_agent_suspended(server: &Server) {
    let chain = Chain::new(server);
    chain.first.admin("POST", "/deactivate").send().ok();
    assert!(!chain.second.sees_alive(&chain.nested) && !chain.second.sees_alive(&chain.bound));
    assert_eq!(chain.second.userinfo(&chain.nested).status, 401);
}

fn o07_first_agent_switched_on_again_revives_nothing(server: &Server) {
    let chain = Chain::new(server);
    chain.first.admin("POST", "/deactivate").send().ok();
    chain.first.admin("POST", "/activate").send().ok();
    assert_eq!(chain.alive(), NOTHING);
}

fn o08_sub_agent_revoked(server: &Server) {
    let chain = Chain::new(server);
    chain.second.admin("POST", "/revoke").send().ok();
    assert!(chain.first.sees_alive(&chain.delegated));
    assert_eq!(chain.second.userinfo(&chain.nested).status, 401);
    // Nobody takes its place at the end of what it did, and the first one finds another helper.
    let third = chain.org.delegate(&["read:a"]);
    third.act_for(&chain.nested, &third.token(), &[]).refused(400, "invalid_grant");
    assert!(third.sees_alive(&third.acting_for(&chain.delegated)));
}

fn o09_person_blocked(server: &Server) {
    let chain = Chain::new(server);
    chain.org.admin("POST", &format!("/users/{}/block", chain.alice.id)).send().ok();
    assert_eq!(chain.alive(), NOTHING);
    chain.first.refresh(&chain.refresh, &[]).refused(400, "invalid_grant");
}

fn o10_person_unblocked_revives_nothing(server: &Server) {
    let chain = Chain::new(server);
    chain.org.admin("POST", &format!("/users/{}/block", chain.alice.id)).send().ok();
    chain.org.admin("POST", &format!("/users/{}/unblock", chain.alice.id)).send().ok();
    assert_eq!(chain.alive(), NOTHING);
}

fn o11_token_in_the_middle_revoked(server: &Server) {
    let chain = Chain::new(server);
    chain.first.revoke(&chain.delegated);
    assert_eq!(chain.alive(), [true, false, false, false]);
}

fn o12_actors_own_token_revoked(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let user = alice.allow(&agent, "read:a");
    let actor = agent.token();
    let delegated = agent.act_for(&user.access, &actor, &[]).ok();
    let delegated = text(&delegated["access_token"]);
    agent.revoke(&actor);
    assert!(!agent.sees_alive(delegated) && agent.sees_alive(&user.access));
}

fn o13_agent_deleted(server: &Server) {
    let chain = Chain::new(server);
    chain.first.admin("DELETE", "").send().expect(200);
    assert!(!chain.second.sees_alive(&chain.nested));
    // An agent with the same name is another agent.
    let again = json!({ "slug": chain.first.slug, "name": chain.first.name, "capabilities": ["read:a"] });
    chain.org.admin("POST", "/agents").json(again).send().expect(201);
    assert!(!chain.second.sees_alive(&chain.nested) && !chain.second.sees_alive(&chain.bound));
}

fn o14_token_for_a_resource_dies_with_its_chain(server: &Server) {
    let chain = Chain::new(server);
    chain.second.revoke(&chain.nested);
    assert_eq!(chain.alive(), [true, true, false, false]);
}

fn o15_dead_subject_is_not_exchanged(server: &Server) {
    let chain = Chain::new(server);
    chain.first.revoke(&chain.refresh);
    let third = chain.org.delegate(&["read:a"]);
    for subject in [&chain.user, &chain.delegated, &chain.nested] {
        third.act_for(subject, &third.token(), &[]).refused(400, "invalid_grant");
    }
}

fn o16_dead_actor_is_not_accepted(server: &Server) {
    let chain = Chain::new(server);
    let third = chain.org.delegate(&["read:a"]);
    let actor = third.token();
    third.act_for(&chain.delegated, &actor, &[]).ok();
    third.admin("POST", "/disable").send().ok();
    third.act_for(&chain.delegated, &actor, &[]).refused(400, "invalid_grant");
}

fn o17_blocked_person_gets_no_code_and_redeems_none(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    let code = alice.code_for(&agent, "read:a");
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    org.admin("POST", &format!("/users/{}/block", alice.id)).send().ok();
    agent.redeem(&code, &[]).refused(400, "invalid_grant");
    alice.decide(&challenge, "approve", &[]).refused(403, "forbidden");
    assert_eq!(alice.ask_for(&agent, "read:a", &[]).status, 401);
    assert_eq!(alice.try_sign_in(&alice.password).status, 401);
}

fn o18_session_ends_with_the_person(server: &Server) {
    let org = server.acme();
    let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
    org.admin("POST", &format!("/users/{}/block", alice.id)).send().ok();
    org.admin("POST", &format!("/users/{}/unblock", alice.id)).send().ok();
    // The session is from before.
    assert_eq!(alice.ask_for(&agent, "read:a", &[]).status, 401);
    let mut anew = alice.clone();
    anew.cookie = alice.sign_in();
    assert_eq!(anew.ask_for(&agent, "read:a", &[]).status, 200);
}

fn o19_siblings_live_on(server: &Server) {
    let org = server.acme();
    let (alice, bob, agent) = (org.person(), org.person(), org.delegate(&["read:a"]));
    let (a, b) = (alice.allow(&agent, "read:a"), bob.allow(&agent, "read:a"));
    let (for_alice, for_bob) = (agent.acting_for(&a.access), agent.acting_for(&b.access));
    agent.revoke(&a.refresh);
    assert!(!agent.sees_alive(&for_alice) && agent.sees_alive(&for_bob));
}

fn o20_agent_that_takes_the_client_id_of_a_deleted_one(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let id = format!("cli_{}", lumoauth_tests::unique("recycled"));
    let make = |redirect: &str| {
        org.create_agent(json!({
            "clientId": id, "capabilities": ["read:a", "delegate:on_behalf"], "redirectUris": [redirect],
        }))
    };
    let first = make(lumoauth_tests::CALLBACK);
    let (code, user) = (alice.code_for(&first, "read:a"), alice.allow(&first, "read:a"));
    first.admin("DELETE", "").send().expect(200);
    let second = make(lumoauth_tests::CALLBACK);
    assert!(!second.sees_alive(&user.access) && !second.sees_alive(&user.refresh));
    second.redeem(&code, &[]).refused(400, "invalid_grant");
    second.refresh(&user.refresh, &[]).refused(400, "invalid_grant");
    let asked = alice.authorize(&lumoauth_tests::asking(&id, "read:a")).ok();
    assert!(asked["challenge_id"].is_string(), "what alice allowed was the other one");
}

fn o21_token_of_a_workload_that_is_trusted_no_more(server: &Server) {
    let org = server.acme();
    let issuer = lumoauth_tests::Issuer::start();
    let subject = lumoauth_tests::unique("w");
    let trust = json!({
        "provider": "oidc", "issuer": issuer.url(), "subject": subject, "audience": "lumo", "jwks": issuer.jwks(),
    });
    let agent = org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a"], "workloadIdentity": trust,
    }));
    let now = lumoauth_tests::unix_now();
    let proof = issuer.sign(&json!({
        "iss": issuer.url(), "sub": subject, "aud": "lumo", "iat": now, "exp": now + 600,
    }));
    let fields =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", proof.as_str())];
    let body = org.post("/oauth/token").form(&fields).send().ok();
    let token = text(&body["access_token"]);
    agent.userinfo(token).ok();
    agent.admin("PATCH", "").json(json!({ "workloadIdentity": {} })).send().ok();
    assert_eq!(agent.userinfo(token).status, 401);
}

fn o22_what_came_of_an_id_token(server: &Server) {
    let org = server.acme();
    for cause in ["access token", "refresh token", "consent", "agent", "person"] {
        let (alice, agent) = (org.person(), org.delegate(&["read:a"]));
        let tokens = agent.redeem(&alice.code_for(&agent, "openid read:a"), &[]).ok();
        let actor = agent.token();
        let exchange = |actor: &str| org.exchange(text(&tokens["id_token"]), ID_TOKEN, &acted_by(actor));
        let body = exchange(&actor).ok();
        let token = text(&body["access_token"]);
        assert!(agent.sees_alive(token));
        match cause {
            "access token" => agent.revoke(text(&tokens["access_token"])),
            "refresh token" => agent.revoke(text(&tokens["refresh_token"])),
            "consent" => {
                let path = format!("/users/{}/consents/{}", alice.id, agent.client_id);
                org.admin("DELETE", &path).send().expect(200);
            }
            "agent" => {
                agent.admin("POST", "/deactivate").send().ok();
                agent.admin("POST", "/activate").send().ok();
            }
            _ => drop(org.admin("POST", &format!("/users/{}/block", alice.id)).send().ok()),
        }
        assert!(!agent.sees_alive(token), "{cause}");
        exchange(&agent.token()).refused(400, "invalid_grant");
    }
}
