//! An engine of a host's own.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Map;

use crate::{
    agent::Agent,
    authz::Authorizer,
    capability::{Capability, Decision, DenyReason},
    clock::Timestamp,
    id::{OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    policy::{DecidedBy, Environment, Party, Question, Verdict, Who},
    server::AuthorizationServer,
    store::{MemoryStore, StoreError, Stores},
};

/// Says yes to everything, or says too little, or is down.
#[derive(Debug)]
enum Host {
    Yes,
    Mute,
    Down,
}

#[async_trait]
impl Authorizer for Host {
    async fn decide(&self, _: &OrgId, questions: &[Question<'_>]) -> Result<Vec<Verdict>, StoreError> {
        match self {
            Self::Yes => Ok(questions.iter().map(|_| Verdict::allow("The host says so.")).collect()),
            Self::Mute => Ok(Vec::new()),
            Self::Down => Err(StoreError::unavailable("host", "it is down")),
        }
    }
}

fn server(host: Host) -> AuthorizationServer {
    let store = Arc::new(MemoryStore::new());
    let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
    let builder = AuthorizationServer::builder("https://auth.example", Stores::all(store), Arc::new(keys));
    builder.with_authorizer(Arc::new(host)).build().unwrap()
}

async fn asked(host: Host, action: &str, standing: Decision) -> Result<(bool, DecidedBy), u16> {
    let org = OrgId::parse("acme").unwrap();
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now);
    let (action, given) = (Capability::parse(action).unwrap(), Map::new());
    let environment = Environment { given: &given, ip: None, user_agent: None, method: "", path: "", now };
    let question = Question::new(&action, vec![Party::new(Who::Agent(&agent), standing)], environment);
    let verdicts = server(host).verdicts(&org, &[question]).await;
    let verdict = verdicts.map_err(|error| error.to_wire().status.as_u16())?.remove(0);
    Ok((verdict.allowed, verdict.decided_by))
}

#[tokio::test]
async fn a_host_decides_within_bounds_that_it_cannot_move() {
    let denied = Decision::Deny;
    assert_eq!(asked(Host::Yes, "a:b", denied(DenyReason::NotGranted)).await, Ok((true, DecidedBy::Host)));
    for (action, reason, decided_by) in [
        ("a:b", DenyReason::NotInToken, DecidedBy::TokenScope),
        ("tool:x", DenyReason::ToolNotAllowed, DecidedBy::AllowedTools),
        ("admin:agents", DenyReason::NotGranted, DecidedBy::Default),
    ] {
        assert_eq!(asked(Host::Yes, action, denied(reason)).await, Ok((false, decided_by)));
    }
}

#[tokio::test]
async fn what_a_host_does_not_answer_is_denied_and_its_outage_is_one() {
    assert_eq!(asked(Host::Mute, "a:b", Decision::Allow).await, Ok((false, DecidedBy::Default)));
    assert_eq!(asked(Host::Down, "a:b", Decision::Allow).await, Err(503));
}
