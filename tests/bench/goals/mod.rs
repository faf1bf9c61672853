//! The goals, one file for those that belong together.

pub(crate) mod appends;
pub(crate) mod charges;
pub(crate) mod exchange;
pub(crate) mod layers;
pub(crate) mod policy;
pub(crate) mod pool;
pub(crate) mod sizes;
pub(crate) mod start;
pub(crate) mod tokens;
pub(crate) mod trees;

use lumoauth_core::{
    audit::{Actor, ActorKind, Event, EventKind, Origin, Target as EventTarget},
    clock::{Clock, SystemClock, Timestamp},
    id::AgentId,
};

use crate::{
    Options,
    report::describe,
    target::{Sample, Target},
};

/// Rounds of all targets in turn; the samples of each.
fn alternate(options: &Options, targets: &[&Target]) -> Vec<Vec<Sample>> {
    let mut samples = vec![Vec::new(); targets.len()];
    for target in targets {
        let _ = target.measure(options.requests / 3);
    }
    for _ in 0..options.rounds {
        for (target, samples) in targets.iter().zip(&mut samples) {
            samples.push(target.measure(options.requests));
        }
    }
    for (target, samples) in targets.iter().zip(&samples) {
        describe(&target.name, samples);
    }
    samples
}

/// Each value over the one of the same round.
fn ratios<'a>(values: &'a [f64], of: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    values.iter().zip(of).map(|(value, of)| value / of)
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// An event like that of a token request.
fn token_event(agent: AgentId) -> Event {
    let id = agent.to_string();
    let actor = Actor::new(ActorKind::Agent, id.as_str()).named("Load Test Agent");
    let client = "127.0.0.1".parse().ok();
    Event::new(EventKind::AgentAuthenticated, actor, "client credentials presented", now())
        .on(EventTarget::new("agent", id.as_str()).named("Load Test Agent"))
        .by_method("client_credentials")
        .from_origin(&Origin::new(client, Some("lumoauth-bench"), Some("01934b7e5d1c7a3e9f0b2c4d6e8f0a1b")))
        .with("scope", "read:documents write:documents")
}
