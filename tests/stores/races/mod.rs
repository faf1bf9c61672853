//! Each atomic operation, called by many at the same moment on two stores that share one database.
//!
//! The cases of the suite overlap calls of one task, wherever a backend waits. Here they come from threads, half of
//! them through each of two stores, as from two replicas, and many times over: `LUMOAUTH_RACE_ROUNDS` says how many.

pub(crate) mod caps;
pub(crate) mod edges;
pub(crate) mod hot;
pub(crate) mod policy;
pub(crate) mod records;
pub(crate) mod tasks;

use std::{env, fmt::Debug, sync::Arc};

use lumoauth_core::{
    id::OrgId,
    store::{AuditFilter, AuditStore, Page},
};
use tokio::sync::Barrier;

/// How many callers there are.
const CALLERS: usize = 64;

/// How often each race is run. A few rounds find what is plainly wrong, many what is rare.
fn rounds() -> usize {
    rounds_or(3)
}

/// The same for a race that takes longer, and is run `few` times where nobody says anything.
fn rounds_or(few: usize) -> usize {
    env::var("LUMOAUTH_RACE_ROUNDS")
        .map_or(few, |count| count.parse().expect("LUMOAUTH_RACE_ROUNDS is a number"))
}

/// Two stores on the same data.
pub(crate) type Two<S> = [Arc<S>; 2];

/// What all callers get from a call that they make at once, in the order of their numbers.
async fn race<S, T, F>(stores: &Two<S>, call: impl Fn(usize, Arc<S>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    race_of(CALLERS, stores, call).await
}

/// The same with another number of callers and any number of stores, which they call in turn.
async fn race_of<S, T, F>(callers: usize, stores: &[Arc<S>], call: impl Fn(usize, Arc<S>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(callers));
    let call = |caller: usize| {
        let (call, start) = (call(caller, stores[caller % stores.len()].clone()), start.clone());
        tokio::spawn(async move {
            start.wait().await;
            call.await
        })
    };
    let tasks: Vec<_> = (0..callers).map(call).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

/// One caller got `won`, and all others `lost`. Gives the winner.
#[track_caller]
fn one_winner<T: PartialEq + Debug>(outcomes: &[T], won: &T, lost: &T) -> usize {
    let winners: Vec<_> = (0..outcomes.len()).filter(|caller| outcomes[*caller] == *won).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome == won || outcome == lost), "{outcomes:?}");
    winners[0]
}

/// The log of `org` has `expected` events, numbered without a gap: one for each change that happened.
async fn assert_logged<S: AuditStore>(stores: &Two<S>, org: &OrgId, expected: usize) {
    for store in stores {
        while store.sequence(org, 100).await.unwrap() > 0 {}
    }
    for store in stores {
        let entries = store.page(org, &AuditFilter::default(), Page::first(1000)).await.unwrap();
        let mut numbers: Vec<_> = entries.items.iter().map(|entry| entry.seq).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=u64::try_from(expected).unwrap()).collect::<Vec<_>>());
    }
}

/// Makes one test per race out of a function that opens two stores.
macro_rules! races {
    ($make:path; $($group:ident: $($race:ident),+);+ $(;)?) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
            async fn $race() {
                let (_guard, stores) = $make().await;
                crate::races::$group::$race(stores).await;
            }
        )+)+
    };
    ($make:path; recorded) => {
        crate::races::races!($make; records: aauth_resources_insert, aauth_resources_update, aauth_resources_remove,
            agents_insert, agents_update, agents_name, agents_remove, api_keys_insert, api_keys_update,
            approvals_insert, approvals_decide, clients_insert, clients_update, consents_insert, consents_update, keys_insert, keys_remove,
            mcp_servers_insert, mcp_servers_update, mcp_servers_remove, organizations_insert, organizations_update, users_insert, users_update,
            grants_revoke, grants_use_ticket, grants_rotate, grants_rotate_unproven, audit_sequence, audit_append;
            tasks: approvals_consume, jit_rule, jit_close;
            policy: policy_ends);
    };
    ($make:path; caps) => {
        crate::races::races!($make; caps: caps_exact, caps_first, caps_mixed);
    };
    ($make:path; edges) => {
        crate::races::races!($make; edges: edges_windows, edges_races, edges_leases, edges_waits);
    };
    ($make:path; hot) => {
        crate::races::races!($make; hot: budgets_limit, budgets_chain, budgets_id, budgets_settle, budgets_unpark,
            budgets_hold, rate_limits_take, replay_remember);
    };
}
pub(crate) use races;
