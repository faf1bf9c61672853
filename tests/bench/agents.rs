//! Agents in any number, whose credentials follow from their number.

use std::sync::Arc;

use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    capability::Capability,
    client::Secrets,
    clock::{Clock, SystemClock},
    id::{ClientId, OrgId, Slug},
    secret::Secret,
    store::{AgentStore, Insert},
};
use tokio::task::JoinSet;

/// The client id and secret of agent `number`.
pub(crate) fn credentials(number: usize) -> (String, String) {
    (format!("cli_{number:024x}"), format!("lms_{number:043}"))
}

/// Puts agents 0 to `count` into `store`. Many inserts are under way at a time, since a durable store shares the
/// cost of one sync among all that wait for it.
pub(crate) async fn seed(store: Arc<dyn AgentStore>, org: OrgId, count: usize) {
    const AT_A_TIME: usize = 512;
    let capabilities: Arc<[Capability]> = ["read:documents", "write:documents"]
        .map(|text| Capability::parse(text).expect("a capability"))
        .into();
    let mut tasks = JoinSet::new();
    for first in 0..AT_A_TIME {
        let (store, org, capabilities) = (store.clone(), org.clone(), capabilities.clone());
        tasks.spawn(async move {
            for number in (first..count).step_by(AT_A_TIME) {
                insert(&*store, &org, number, &capabilities).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("all agents are stored");
    }
}

async fn insert(store: &dyn AgentStore, org: &OrgId, number: usize, capabilities: &[Capability]) {
    let now = SystemClock::new().now();
    let slug = Slug::parse(&format!("load-{number}")).expect("a slug");
    let mut agent = Agent::new(format!("Load Test Agent {number}"), slug, now);
    let (client_id, secret) = credentials(number);
    agent.client_id = ClientId::parse(&client_id).expect("a client id");
    agent.secrets = Secrets::one(&Secret::from(secret));
    agent.capabilities = capabilities.to_vec();
    let event = Event::new(EventKind::AgentCreated, Actor::system(), "made for a load test", now);
    let outcome = store.insert(org, &agent, &event).await.expect("the store answers");
    assert_eq!(outcome, Insert::Inserted);
}
