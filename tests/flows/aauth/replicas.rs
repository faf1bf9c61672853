//! Two servers on one database: what counted at one of them does not count at the other one, what one gives the other one
//! knows, and what ends at one ends at both (security HS-04, LC-01, LC-04).

use std::{thread, time::Duration};

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Backend, CALLBACK, Org, Person, Replicas, Response, Sent, Server, Stopwatch,
    at_once, on_shared_backends,
};
use serde_json::{Value, json};

use super::{codes::redeemed_by_one, refused, replay::once, unauthenticated};
use crate::replicas::PATIENCE;

on_shared_backends!(
    signed_request_counts_once_on_both,
    resource_token_gives_one_token_on_both,
    what_one_gives_the_other_one_renews,
    question_of_one_is_answered_at_the_other_and_its_code_works_once,
    what_ends_here_ends_there,
);

/// How often both get the same thing at the same time.
const ROUNDS: usize = 10;

fn both<'a>(org: &Org<'a>) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

/// What `count` callers of each replica get who send the same, or something alike, at once.
fn on_both(replicas: &Replicas, count: usize, sent: impl Fn() -> Sent + Sync) -> Vec<Response> {
    at_once(2 * count, |place| sent().to([&replicas.a, &replicas.b][place % 2]).send())
}

fn signed_request_counts_once_on_both(backend: Backend) {
    let replicas = Replicas::start(backend);
    let (agent, resource) = both(&replicas.a.acme());
    for _ in 0..ROUNDS {
        let sent =
            agent.sent(&json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) }));
        once(&on_both(&replicas, 4, || sent.clone()), |answer| {
            unauthenticated(answer, "invalid_signature");
        });
        unauthenticated(&sent.to(&replicas.b).send(), "invalid_signature");
    }
    drop((agent, resource));
    replicas.end();
}

fn resource_token_gives_one_token_on_both(backend: Backend) {
    let replicas = Replicas::start(backend);
    let (agent, resource) = both(&replicas.a.acme());
    for _ in 0..ROUNDS {
        let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
        let answers = on_both(&replicas, 3, || agent.sent(&body));
        once(&answers, |answer| refused(answer, 400, "invalid_resource_token"));
    }
    drop((agent, resource));
    replicas.end();
}

fn what_one_gives_the_other_one_renews(backend: Backend) {
    let replicas = Replicas::start(backend);
    let (agent, resource) = both(&replicas.a.acme());
    let given = agent.tokens(&resource);
    let held = Held { agent, resource, given };
    assert!(held.is_alive_at(&replicas.b));
    let again = held.renew_at(&replicas.b).ok();
    assert!(held.resource.sees_alive(&again["auth_token"]));
    drop(held);
    replicas.end();
}

fn question_of_one_is_answered_at_the_other_and_its_code_works_once(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let there = alice.at(&replicas.b);
    let bearer = alice.in_person("openid");
    let decide = |person: &Person<'_>, token: &str| {
        let body = json!({ "request_token": token, "decision": "approve" });
        person.org.post("/aauth/consent").bearer(&bearer).json(body).send()
    };
    for _ in 0..5 {
        let token = agent.question(&resource, "read");
        let decided = decide(&there, &token).ok();
        decide(&alice, &token).refused(409, "conflict");
        let redeem = json!({ "request_type": "code", "code": decided["code"], "redirect_uri": CALLBACK });
        // The second one, who may be quicker, ends what the first one gets.
        if let Some(given) = redeemed_by_one(&on_both(&replicas, 3, || agent.sent(&redeem))) {
            assert!(!resource.sees_alive(&given["auth_token"]), "it was used again");
        }
    }
    drop((agent, resource, alice, there, org));
    replicas.end();
}

/// What an agent was given for a resource.
struct Held<'a> {
    agent: AAuthAgent<'a>,
    resource: AAuthResource<'a>,
    given: Value,
}

impl Held<'_> {
    // Replicas have one public address, which is what is signed wherever it is sent.
    fn is_alive_at(&self, server: &Server) -> bool {
        let ask = json!({ "auth_token": self.given["auth_token"] });
        let call = self.resource.call("/aauth/auth/token/verify", &ask);
        let answer = call.signed(&self.resource.key).to(server).send();
        assert!(answer.status < 500, "{answer}");
        // A resource that is no longer one is told nothing at all.
        answer.status == 200 && answer.json()["active"] == true
    }

    fn renew_at(&self, server: &Server) -> Response {
        let token = self.resource.token_saying(&self.agent, json!({ "scope": "read" }));
        let body = json!({
            "request_type": "refresh", "refresh_token": self.given["refresh_token"], "resource_token": token,
        });
        self.agent.sent(&body).to(server).send()
    }

    fn renews_at(&self, server: &Server) -> bool {
        let answer = self.renew_at(server);
        assert!(answer.status < 500, "{answer}");
        answer.status == 200
    }

    fn revoke(&self, name: &str) {
        let body = json!({ "token": self.given[name], "token_type": name });
        self.agent.post("/aauth/token/revoke", &body).ok();
    }
}

/// What is done at one replica.
type End = fn(&Held<'_>, &Person<'_>);

fn what_ends_here_ends_there(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let ends: [(&str, End); 9] = [
        ("auth token revoked", |held, _| held.revoke("auth_token")),
        ("refresh token revoked", |held, _| held.revoke("refresh_token")),
        ("agent suspended", |held, _| drop(held.agent.admin("POST", "/deactivate").send().ok())),
        ("agent suspended and back", |held, _| {
            held.agent.admin("POST", "/deactivate").send().ok();
            held.agent.admin("POST", "/activate").send().ok();
        }),
        ("agent out of AAuth", |held, _| {
            let path = format!("/aauth/agents/{}", held.agent.id);
            held.agent.org.admin("DELETE", &path).send().ok();
        }),
        ("consent withdrawn", |held, alice| super::codes::withdraw(alice, &held.agent)),
        ("person blocked", |_, alice| {
            alice.org.admin("POST", &format!("/users/{}/block", alice.id)).send().ok();
        }),
        ("resource switched off", |held, _| {
            held.resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
        }),
        ("resource removed", |held, _| drop(held.resource.admin("DELETE").send().ok())),
    ];
    let [a, b] = [&replicas.a, &replicas.b];
    for (what, end) in ends {
        let (agent, resource, alice) =
            (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
        let given = alice.give(&agent, &resource, "read");
        let held = Held { agent, resource, given };
        // The other replica has it all in its cache.
        assert!(held.is_alive_at(b) && held.renews_at(b), "{what}");
        end(&held, &alice);
        assert!(!held.is_alive_at(a), "{what}");
        // An auth token may be taken back alone.
        let lasts = what == "auth token revoked";
        let watch = Stopwatch::start();
        while held.is_alive_at(b) || (!lasts && held.renews_at(b)) {
            assert!(watch.elapsed() < PATIENCE, "{what}: still good after {:?}", watch.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{what}: over on the other replica after {:?}", watch.elapsed());
        assert_eq!([a, b].map(|server| held.renews_at(server)), [lasts; 2], "{what}");
    }
    drop(org);
    replicas.end();
}
