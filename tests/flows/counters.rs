//! Counters of budgets: what slows them no more than anything else does, and what does not bring them back (security BU-16,
//! as far as it is about counters, and BU-18).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lumoauth_tests::{Connection, Request, Server, Stopwatch, avoid_hour_edge, int, on_each_backend, unique};
use serde_json::json;

on_each_backend!(
    questions_about_a_budget_slow_charges_no_more_than_other_questions,
    agent_made_again_has_fresh_counters_and_the_old_spend_stays_in_the_log,
);

/// The time of thirty charges, while four callers send `flood` as fast as they are answered.
fn charges_under(server: &Server, charge: &Request, flood: &Request) -> Duration {
    /// Ends the flood, also in a panic.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let open = || Connection::open(server.authority()).expect("the server listens");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = open();
                while !over.load(Ordering::Relaxed) {
                    connection.send(flood).expect("an answer").ok();
                }
            });
        }
        let _end = End(&over);
        let mut connection = open();
        connection.send(charge).expect("an answer").ok();
        let watch = Stopwatch::start();
        for _ in 0..30 {
            connection.send(charge).expect("an answer").ok();
        }
        watch.elapsed()
    })
}

/// Any flood takes time from the processors: how much depends on how many there are, and is not looked at here. One that reads
/// the counters of the very agent that is charged takes no more than twice what one takes that is let in by the same token and
/// reads no counters, so charges do not wait for whoever reads.
fn questions_about_a_budget_slow_charges_no_more_than_other_questions(server: &Server) {
    let members =
        json!({ "capabilities": ["read:a"], "budgetPolicy": { "max_api_calls_per_hour": 100_000 } });
    let agent = server.acme().create_agent(members);
    let token = agent.token();
    let charge = agent.org.post("/agents/ask").bearer(&token).json(json!({ "action": "read:a" }));
    let [budget, other] =
        ["/agents/me/budget", "/authz/permissions"].map(|path| agent.org.get(path).bearer(&token));
    let mut ratios = [(); 7].map(|()| {
        let without = charges_under(server, &charge, &other);
        charges_under(server, &charge, &budget).as_secs_f64() / without.as_secs_f64()
    });
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[3] <= 2.0, "{ratios:?}");
}

fn agent_made_again_has_fresh_counters_and_the_old_spend_stays_in_the_log(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let (name, client) = (unique("Agent"), format!("cli_{}", unique("again")));
    let make = || {
        org.create_agent(json!({
            "name": name, "clientId": client, "capabilities": ["read:a"],
            "budgetPolicy": { "max_api_calls_per_hour": 1, "max_tokens_per_day": 100 },
        }))
    };
    let used = |agent: &lumoauth_tests::Agent<'_>, token: &str| {
        let policy = agent.userinfo(token).ok()["budget_policy"].clone();
        ["api_calls_this_hour", "tokens_used_today"].map(|name| int(&policy[name]))
    };
    let first = make();
    let token = first.token();
    first.ask(&token, "read:a").ok();
    first.admin("POST", "/usage").json(json!({ "tokens": 73 })).send().ok();
    first.ask(&token, "read:a").refused(429, "budget_exceeded");
    assert_eq!(used(&first, &token), [1, 73]);
    first.admin("DELETE", "").send().expect(200);

    let second = make();
    assert_eq!((&second.name, &second.slug, &second.client_id), (&first.name, &first.slug, &first.client_id));
    let again = second.token();
    assert_eq!(used(&second, &again), [0, 0]);
    second.ask(&again, "read:a").ok();
    second.ask(&again, "read:a").refused(429, "budget_exceeded");
    // What the first one spent is its own, by its id, and nobody else's.
    let rows = |agent: &lumoauth_tests::Agent<'_>| {
        [
            "action=agent.action&actorId",
            "action=budget.usage_recorded&targetId",
            "action=budget.exceeded&actorId",
            "action=agent.created&targetId",
            "action=agent.revoked&targetId",
        ]
        .map(|query| org.audit(&format!("{query}={}", agent.agent_id)).len())
    };
    assert_eq!((rows(&first), rows(&second)), ([1, 1, 1, 1, 1], [1, 0, 1, 1, 0]));
    let spent = org.audit(&format!("action=budget.usage_recorded&targetId={}", first.agent_id));
    let one = org.admin("GET", &format!("/audit-logs/{}", spent[0]["id"])).send().ok();
    assert!(one.to_string().contains("73"), "{one}");
}
