//! Readers beside a writer: nobody sees a record that is older than what was to be seen before.

mod scratch;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    agent::{AAuthIdentity, Agent},
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::{AAuthIdentifier, OrgId, Slug},
    store::{AgentKey, AgentStore, Insert, Remove, Update},
    workload::WorkloadTrust,
};
use scratch::Scratch;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

fn event() -> Event {
    Event::new(EventKind::AgentUpdated, Actor::system(), "changed", NOW)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_goes_back_in_time() {
    const UPDATES: u64 = 200;
    let (file, org) = (Scratch::new(), OrgId::parse("acme").unwrap());
    let store = Arc::new(EmbeddedStore::open(file.path()).unwrap());
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    assert_eq!(store.insert(&org, &agent, &event()).await.unwrap(), Insert::Inserted);

    // The greatest version that anybody has read or written.
    let newest = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let (store, org, newest, agent) = (store.clone(), org.clone(), newest.clone(), agent.clone());
            tokio::spawn(async move {
                let by = match reader % 3 {
                    0 => AgentKey::Id(agent.id),
                    1 => AgentKey::Slug(&agent.slug),
                    _ => AgentKey::ClientId(&agent.client_id),
                };
                loop {
                    let least = newest.load(Ordering::SeqCst);
                    let seen = store.find(&org, by).await.unwrap().unwrap().version;
                    assert!(seen >= least, "{seen} after {least}");
                    newest.fetch_max(seen, Ordering::SeqCst);
                    if seen == UPDATES {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    for version in 0..UPDATES {
        agent.version = version;
        assert_eq!(store.update(&org, &agent, &event()).await.unwrap(), Update::Updated);
        newest.fetch_max(version + 1, Ordering::SeqCst);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_agent_is_not_found_by_any_key() {
    let (file, org) = (Scratch::new(), OrgId::parse("acme").unwrap());
    let store = EmbeddedStore::open(file.path()).unwrap();
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    let hash = agent.rotate_api_key(&org).hash();
    let name = AAuthIdentifier::parse("https://bot.acme.test").unwrap();
    agent.aauth = Some(Box::new(AAuthIdentity::new(name.clone())));
    assert_eq!(store.insert(&org, &agent, &event()).await.unwrap(), Insert::Inserted);
    let keys = [
        AgentKey::AAuthIdentifier(&name),
        AgentKey::Id(agent.id),
        AgentKey::Slug(&agent.slug),
        AgentKey::ClientId(&agent.client_id),
        AgentKey::ApiKey(&hash),
    ];
    for by in keys {
        assert!(store.find(&org, by).await.unwrap().is_some());
    }
    assert_eq!(store.remove(&org, agent.id, agent.version, &event()).await.unwrap(), Remove::Removed);
    for by in keys {
        assert!(store.find(&org, by).await.unwrap().is_none(), "{by:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_whose_trust_moves_is_found_exactly_once() {
    const MOVES: u64 = 100;
    let (file, org) = (Scratch::new(), OrgId::parse("acme").unwrap());
    let store = Arc::new(EmbeddedStore::open(file.path()).unwrap());
    let trusts = ["one", "two"].map(|workload| WorkloadTrust::oidc("https://platform.example", workload));
    let keys = trusts.each_ref().map(WorkloadTrust::key);
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    agent.workload = Some(trusts[0].clone());
    assert_eq!(store.insert(&org, &agent, &event()).await.unwrap(), Insert::Inserted);

    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (store, org) = (store.clone(), org.clone());
            tokio::spawn(async move {
                loop {
                    let found = store.trusting(&org, &keys).await.unwrap();
                    assert_eq!(found.len(), 1);
                    if found[0].version == MOVES {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    for version in 0..MOVES {
        agent.version = version;
        agent.workload = Some(trusts[usize::try_from(version % 2).unwrap()].clone());
        assert_eq!(store.update(&org, &agent, &event()).await.unwrap(), Update::Updated);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
