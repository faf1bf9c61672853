//! Races about tasks and what is asked in them, and about using approvals up.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    id::{AgentId, ClientId, Number, OrgId, UserId},
    jit::{AuthorizationDetail, CloseTask, Closing, JitRequest, NewRequest, Rule, Ruling, Task, TaskOutcome},
    store::{
        ApprovalStore, AuditStore, Consume, Decide, Insert, JitStore, NewApproval, Page, RequestEvents,
        Upkeep,
        conformance::{now, some_event, some_org},
    },
};

use super::{
    CALLERS, Two, assert_logged, one_winner, race,
    records::{approval, decision},
    rounds,
};

/// Whoever uses an approval up is the only one, and there is one event about it.
pub(crate) async fn approvals_consume<S: ApprovalStore + AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, approval) = (some_org(), approval());
        let added = ApprovalStore::insert(&*stores[0], &org, &approval, &some_event()).await.unwrap();
        assert_eq!(added, NewApproval::Inserted);
        let yes = decision(0);
        let decided = stores[0].decide(&org, &approval, &yes, now(), &some_event()).await.unwrap();
        assert_eq!(decided, Decide::Decided);
        let approval = approval.with_decision(yes);
        let outcomes = race(&stores, |_, store| {
            let (org, approval) = (org.clone(), approval.clone());
            async move { store.consume(&org, &approval, now(), &some_event()).await.unwrap() }
        })
        .await;
        one_winner(&outcomes, &Consume::Consumed, &Consume::AlreadyConsumed);
        assert_logged(&stores, &org, 3).await;
    }
}

/// What one caller answered is what everybody sees, and there is one event about it.
pub(crate) async fn jit_rule<S: JitStore + AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, request) = asked(&stores).await;
        let said: Arc<Vec<_>> = Arc::new((0..CALLERS).map(ruling).collect());
        let outcomes = race(&stores, |caller, store| {
            let (org, request, said) = (org.clone(), request.clone(), said.clone());
            async move {
                let event = some_event();
                let on = RequestEvents { done: &event, suspended: &event };
                store.rule(&org, &request, &said[caller], now(), on).await.unwrap()
            }
        })
        .await;
        let winner = one_winner(&outcomes, &Rule::Ruled, &Rule::AlreadyRuled);
        for store in &stores {
            let found = store.find_request(&org, &request.id).await.unwrap().unwrap();
            assert_eq!(found.ruling.as_ref(), Some(&said[winner]));
            assert_eq!(
                JitStore::pending(&**store, &org, None, now(), Page::first(9)).await.unwrap().total,
                0
            );
        }
        assert_logged(&stores, &org, 3).await;
    }
}

/// A task is closed once, and what was answered in it is answered or not, whoever looks.
pub(crate) async fn jit_close<S: JitStore + AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, request) = asked(&stores).await;
        let task = stores[0].find_task(&org, &request.task).await.unwrap().unwrap();
        let outcomes = race(&stores, |caller, store| {
            let (org, request, task) = (org.clone(), request.clone(), task.clone());
            async move {
                let event = some_event();
                if caller % 2 == 0 {
                    let closing = Closing { outcome: TaskOutcome::Completed, at: now(), notes: None };
                    return store.close_task(&org, &task, &closing, &event).await.unwrap()
                        == CloseTask::Closed;
                }
                let on = RequestEvents { done: &event, suspended: &event };
                let _answered = store.rule(&org, &request, &ruling(caller), now(), on).await.unwrap();
                false
            }
        })
        .await;
        assert_eq!(outcomes.iter().filter(|closed| **closed).count(), 1);
        let answered = stores[1].find_request(&org, &request.id).await.unwrap().unwrap().ruling.is_some();
        for store in &stores {
            assert!(!store.tasks_open(&org, std::slice::from_ref(&task.id)).await.unwrap());
            let found = store.find_request(&org, &request.id).await.unwrap().unwrap();
            assert_eq!(found.ruling.is_some(), answered);
            assert_eq!(
                JitStore::pending(&**store, &org, None, now(), Page::first(9)).await.unwrap().total,
                0
            );
        }
        assert_logged(&stores, &org, 3 + usize::from(answered)).await;
    }
}

/// What is purged of an agent of which nothing waits is made anew by whoever asks, and nothing that waits is forgotten.
pub(crate) async fn jit_purge<S: JitStore + AuditStore + Upkeep>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, request) = asked(&stores).await;
        let task = stores[0].find_task(&org, &request.task).await.unwrap().unwrap();
        let on = some_event();
        let on = RequestEvents { done: &on, suspended: &on };
        assert_eq!(stores[0].rule(&org, &request, &ruling(0), now(), on).await.unwrap(), Rule::Ruled);
        let outcomes = race(&stores, |caller, store| {
            let (org, task) = (org.clone(), task.clone());
            async move {
                if caller % 4 < 2 {
                    let _dropped = store.purge(now(), 1000).await.unwrap();
                    return None;
                }
                let request = some_request(&task);
                let event = some_event();
                let on = RequestEvents { done: &event, suspended: &event };
                let made = store.insert_request(&org, &request, task.history(now()), now(), on).await;
                Some(made.unwrap())
            }
        })
        .await;
        let made = outcomes.iter().filter(|made| **made == Some(NewRequest::Inserted)).count();
        let refused =
            outcomes.iter().flatten().all(|made| matches!(made, NewRequest::Inserted | NewRequest::Stale));
        assert!(made > 0 && refused, "{outcomes:?}");
        for store in &stores {
            let _dropped = store.purge(now(), 1000).await.unwrap();
            let waiting = JitStore::pending(&**store, &org, None, now(), Page::first(99)).await.unwrap();
            assert_eq!(waiting.total, u64::try_from(made).unwrap());
        }
        assert_logged(&stores, &org, 3 + made).await;
    }
}

/// A request that waits in a task, in an organization of their own.
async fn asked<S: JitStore>(stores: &Two<S>) -> (OrgId, JitRequest) {
    let (org, task) = (some_org(), Task::new(AgentId::generate(), ClientId::generate_for_agent(), now()));
    let added = stores[0].insert_task(&org, &task, &some_event()).await.unwrap();
    assert_eq!(added, Insert::Inserted);
    let request = some_request(&task);
    let event = some_event();
    let on = RequestEvents { done: &event, suspended: &event };
    let made = stores[0].insert_request(&org, &request, task.history(now()), now(), on).await.unwrap();
    assert_eq!(made, NewRequest::Inserted);
    (org, request)
}

fn some_request(task: &Task) -> JitRequest {
    let detail = serde_json::json!({ "type": "raced", "actions": ["delete"] });
    let detail = AuthorizationDetail::new(detail).unwrap();
    JitRequest::new(task, detail, now(), now().plus(Duration::from_secs(300)))
}

fn ruling(caller: usize) -> Ruling {
    let (by, number) = (Some(UserId::generate()), Some(Number::generate()));
    let notes = Some(format!("racer {caller}"));
    Ruling { approved: caller % 4 < 2, by, number, at: now(), ttl: 300, notes, agent_message: None }
}
