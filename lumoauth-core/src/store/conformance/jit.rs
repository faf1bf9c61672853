//! Cases of [`JitStore`].

use std::time::Duration;

use serde_json::json;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    clock::Timestamp,
    id::{AgentId, ClientId, Number, OrgId, TaskId, UserId},
    jit::{
        AuthorizationDetail, Callback, CloseTask, Closing, JitRequest, Load, NewRequest, Rule, Ruling, Task,
        TaskOutcome,
    },
    store::{Insert, JitStore, Page, RequestEvents, Unique},
};

mod turns;

pub use turns::callbacks_take_turns;

const MOMENT: Duration = Duration::from_millis(1);

/// A task that nobody else knows.
pub(super) fn some_task() -> Task {
    Task::new(AgentId::generate(), ClientId::generate_for_agent(), now())
}

/// A request in `task` that waits for five minutes.
pub(super) fn some_request(task: &Task) -> JitRequest {
    let detail = json!({ "type": "file_access", "actions": ["delete"], "identifier": "a/\u{e9}",
        "rate": 122.558_238_113_021_91, "least": 9.970_685_969_649_458e-10 });
    let detail = AuthorizationDetail::new(detail).expect("a detail");
    let mut request = JitRequest::new(task, detail, now(), now().plus(Duration::from_secs(300)));
    request.on_behalf_of = Some(UserId::generate());
    request
}

/// What somebody answers.
pub(super) fn some_ruling(approved: bool) -> Ruling {
    let (by, number) = (Some(UserId::generate()), Some(Number::generate()));
    Ruling { approved, by, number, at: now(), ttl: 300, notes: None, agent_message: None }
}

pub(super) fn some_closing(outcome: TaskOutcome) -> Closing {
    Closing { outcome, at: now(), notes: None }
}

async fn opened(store: &dyn JitStore, org: &OrgId) -> Task {
    let task = some_task();
    assert_eq!(store.insert_task(org, &task, &some_event()).await.unwrap(), Insert::Inserted);
    task
}

/// Makes a request on what the task is now.
pub(super) async fn asked(
    store: &dyn JitStore,
    org: &OrgId,
    request: &JitRequest,
    at: Timestamp,
) -> NewRequest {
    let history =
        store.find_task(org, &request.task).await.unwrap().map(|task| task.history(at)).unwrap_or_default();
    let (done, suspended) = (some_event(), some_event());
    let on = RequestEvents { done: &done, suspended: &suspended };
    store.insert_request(org, request, history, at, on).await.unwrap()
}

pub(super) async fn ruled(
    store: &dyn JitStore,
    org: &OrgId,
    request: &JitRequest,
    ruling: &Ruling,
    at: Timestamp,
) -> Rule {
    let (done, suspended) = (some_event(), some_event());
    let on = RequestEvents { done: &done, suspended: &suspended };
    store.rule(org, request, ruling, at, on).await.unwrap()
}

pub(super) async fn closed(
    store: &dyn JitStore,
    org: &OrgId,
    task: &Task,
    outcome: TaskOutcome,
) -> CloseTask {
    store.close_task(org, task, &some_closing(outcome), &some_event()).await.unwrap()
}

pub(super) async fn found(store: &dyn JitStore, org: &OrgId, request: &JitRequest) -> Option<JitRequest> {
    store.find_request(org, &request.id).await.unwrap().map(|found| (*found).clone())
}

async fn waiting(store: &dyn JitStore, org: &OrgId) -> u64 {
    store.pending(org, None, now(), ALL).await.unwrap().total
}

/// "The task with this id, also one that is over."
pub async fn tasks_round_trip(store: &dyn JitStore) {
    let org = some_org();
    let mut full = some_task();
    full.name = Some("Q4 \u{1f4b8} \"'\\%_".to_owned());
    full.kind = Some("analysis".to_owned());
    full.ancestors = vec![TaskId::generate(), TaskId::generate()];
    full.on_behalf_of = Some(UserId::generate());
    full.standing = json!({ "lin": { "e": [1, 2] }, "text": "\u{0}\u{e9}" });
    full.recent = vec![now()];
    let over = Task { expires_at: now().plus(MOMENT), ..some_task() };
    for task in [&full, &over] {
        assert_eq!(store.find_task(&org, &task.id).await.unwrap(), None);
        assert_eq!(store.insert_task(&org, task, &some_event()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.find_task(&org, &task.id).await.unwrap().as_deref(), Some(task));
    }
}

/// "The id is unique in the organization." Also for any number of inserts at once.
pub async fn one_task_once(store: &dyn JitStore) {
    let org = some_org();
    let wanted = some_task();
    let racers: Vec<_> =
        (0..RACERS).map(|n| Task { name: Some(format!("racer {n}")), ..wanted.clone() }).collect();
    let outcomes =
        race(RACERS, async |n| store.insert_task(&org, &racers[n], &some_event()).await.unwrap()).await;
    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Id)), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Insert::Inserted).unwrap();
    assert_eq!(store.find_task(&org, &wanted.id).await.unwrap().as_deref(), Some(&racers[winner]));
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn JitStore) {
    let (ours, theirs) = (some_org(), some_org());
    let task = opened(store, &ours).await;
    let request = some_request(&task);
    assert_eq!(asked(store, &ours, &request, now()).await, NewRequest::Inserted);

    assert_eq!(store.find_task(&theirs, &task.id).await.unwrap(), None);
    assert_eq!(found(store, &theirs, &request).await, None);
    assert_eq!(waiting(store, &theirs).await, 0);
    assert!(!store.tasks_open(&theirs, std::slice::from_ref(&task.id)).await.unwrap());
    assert_eq!(asked(store, &theirs, &request, now()).await, NewRequest::Missing);
    assert_eq!(ruled(store, &theirs, &request, &some_ruling(true), now()).await, Rule::Missing);
    assert_eq!(closed(store, &theirs, &task, TaskOutcome::Completed).await, CloseTask::Missing);
    assert!(!store.note_try(&theirs, &request, None).await.unwrap());

    assert_eq!(waiting(store, &ours).await, 1);
    assert_eq!(ruled(store, &ours, &request, &some_ruling(true), now()).await, Rule::Ruled);
}

/// "Whether every one of these tasks is there and none was closed."
pub async fn open_tasks(store: &dyn JitStore) {
    let org = some_org();
    let (outer, inner, gone) = (opened(store, &org).await, opened(store, &org).await, some_task());
    let open = async |ids: &[&Task]| {
        let ids: Vec<_> = ids.iter().map(|task| task.id.clone()).collect();
        store.tasks_open(&org, &ids).await.unwrap()
    };
    assert!(open(&[]).await && open(&[&outer]).await && open(&[&outer, &inner, &outer]).await);
    assert!(!open(&[&gone]).await && !open(&[&outer, &gone]).await);
    assert_eq!(closed(store, &org, &outer, TaskOutcome::Failed).await, CloseTask::Closed);
    assert!(open(&[&inner]).await && !open(&[&outer]).await && !open(&[&outer, &inner]).await);
    // What has expired by itself was not closed.
    let over = Task { expires_at: now(), ..some_task() };
    assert_eq!(store.insert_task(&org, &over, &some_event()).await.unwrap(), Insert::Inserted);
    assert!(open(&[&over]).await);
}

/// "Of any number of calls at once exactly one is [`CloseTask::Closed`]."
pub async fn closed_once(store: &dyn JitStore) {
    let org = some_org();
    let unknown = some_task();
    assert_eq!(closed(store, &org, &unknown, TaskOutcome::Completed).await, CloseTask::Missing);
    let task = opened(store, &org).await;
    let outcome = |n: usize| [TaskOutcome::Completed, TaskOutcome::Failed, TaskOutcome::Cancelled][n % 3];
    let outcomes = race(RACERS, async |n| closed(store, &org, &task, outcome(n)).await).await;
    assert_eq!(count(&outcomes, &CloseTask::Closed), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &CloseTask::AlreadyClosed), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == CloseTask::Closed).unwrap();
    let stored = store.find_task(&org, &task.id).await.unwrap().unwrap();
    assert_eq!(stored.closed, Some(some_closing(outcome(winner))));
    // Also when its time is over.
    let over = Task { expires_at: now(), ..some_task() };
    assert_eq!(store.insert_task(&org, &over, &some_event()).await.unwrap(), Insert::Inserted);
    assert_eq!(closed(store, &org, &over, TaskOutcome::Completed).await, CloseTask::Closed);
}

/// "What waited in it, or in what is part of it, is not listed as pending any more", and nothing can be asked or answered
/// in it.
pub async fn closed_tasks_take_nothing(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let other = Task { id: TaskId::generate(), ..task.clone() };
    assert_eq!(store.insert_task(&org, &other, &some_event()).await.unwrap(), Insert::Inserted);
    let part = Task { id: TaskId::generate(), ancestors: task.lineage(), ..task.clone() };
    assert_eq!(store.insert_task(&org, &part, &some_event()).await.unwrap(), Insert::Inserted);
    let [one, two, elsewhere] = [some_request(&task), some_request(&task), some_request(&other)];
    for request in [&one, &two, &elsewhere, &some_request(&part)] {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    assert_eq!(waiting(store, &org).await, 4);
    assert_eq!(closed(store, &org, &task, TaskOutcome::Completed).await, CloseTask::Closed);
    assert_eq!(waiting(store, &org).await, 1);
    for request in [&one, &two] {
        assert_eq!(ruled(store, &org, request, &some_ruling(true), now()).await, Rule::TaskClosed);
        assert_eq!(found(store, &org, request).await.as_ref(), Some(request));
    }
    assert_eq!(asked(store, &org, &some_request(&task), now()).await, NewRequest::TaskClosed);
    let late = some_request(&other);
    assert_eq!(asked(store, &org, &late, other.expires_at).await, NewRequest::TaskClosed);
    assert_eq!(ruled(store, &org, &elsewhere, &some_ruling(true), now()).await, Rule::Ruled);
}

/// "Of a closing and an answer to a request of the task, the later one sees the earlier one."
pub async fn closing_and_answering_race(store: &dyn JitStore) {
    let org = some_org();
    for _ in 0..4 {
        let task = opened(store, &org).await;
        let request = some_request(&task);
        assert_eq!(asked(store, &org, &request, now()).await, NewRequest::Inserted);
        let outcomes = race(8, async |n| {
            if n % 2 == 0 {
                Err(closed(store, &org, &task, TaskOutcome::Completed).await)
            } else {
                Ok(ruled(store, &org, &request, &some_ruling(true), now()).await)
            }
        });
        let outcomes = outcomes.await;
        assert_eq!(count(&outcomes, &Err(CloseTask::Closed)), 1, "{outcomes:?}");
        let answered = count(&outcomes, &Ok(Rule::Ruled));
        assert!(answered <= 1, "{outcomes:?}");
        let stored = found(store, &org, &request).await.unwrap();
        assert_eq!(stored.ruling.is_some(), answered == 1, "{outcomes:?}");
        let all_seen = outcomes
            .iter()
            .flatten()
            .all(|rule| matches!(rule, Rule::Ruled | Rule::AlreadyRuled | Rule::TaskClosed));
        assert!(all_seen, "{outcomes:?}");
        assert!(!store.tasks_open(&org, std::slice::from_ref(&task.id)).await.unwrap());
    }
}

/// "The request with this id, answered or not." "An id that is taken is [`NewRequest::Missing`]."
pub async fn requests_round_trip(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let mut full = some_request(&task);
    full.justification = Some("Why \u{0} \"not\"\n\u{1f645}".to_owned());
    full.callback = Some(Callback { url: "https://cb.test/?a=b".to_owned(), tries: 0, due: None });
    let granted = JitRequest { ruling: Some(some_ruling(true)), ..some_request(&task) };
    for request in [&full, &granted] {
        assert_eq!(found(store, &org, request).await, None);
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
        assert_eq!(found(store, &org, request).await.as_ref(), Some(request));
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Missing);
    }
    // What was granted at once waits for nobody.
    assert_eq!(waiting(store, &org).await, 1);
    let stranger = JitRequest { agent: AgentId::generate(), ..some_request(&task) };
    assert_eq!(asked(store, &org, &stranger, now()).await, NewRequest::Missing);
    assert_eq!(asked(store, &org, &some_request(&some_task()), now()).await, NewRequest::Missing);
    let ruling = Ruling {
        notes: Some("for people \u{0}".to_owned()),
        agent_message: Some("for the agent".to_owned()),
        ..some_ruling(false)
    };
    assert_eq!(ruled(store, &org, &full, &ruling, now()).await, Rule::Ruled);
    assert_eq!(found(store, &org, &full).await, Some(full.with_ruling(ruling)));
}

/// "The bounds of what waits for one agent and in one task hold for any number of calls at once."
pub async fn waiting_is_bounded(store: &dyn JitStore) {
    let org = some_org();
    let first = some_task();
    let tasks: Vec<_> = (0..8).map(|_| Task { id: TaskId::generate(), ..first.clone() }).collect();
    for task in &tasks {
        assert_eq!(store.insert_task(&org, task, &some_event()).await.unwrap(), Insert::Inserted);
    }
    // Each of as many callers as there are tasks asks until there is no room.
    let made = race(tasks.len(), async |n| {
        let mut made = 0;
        loop {
            match asked(store, &org, &some_request(&tasks[n]), now()).await {
                NewRequest::Inserted => made += 1,
                NewRequest::TooMany => return made,
                other => panic!("{other:?}"),
            }
        }
    });
    let made = made.await;
    assert!(made.iter().all(|made| *made <= Load::MAX_PER_TASK), "too many of a task: {made:?}");
    assert_eq!(made.iter().sum::<usize>(), Load::MAX_PER_AGENT, "too many of an agent: {made:?}");
    assert_eq!(waiting(store, &org).await, Load::MAX_PER_AGENT as u64);
    // Another agent is not concerned, and an answer makes room.
    let other = opened(store, &org).await;
    assert_eq!(asked(store, &org, &some_request(&other), now()).await, NewRequest::Inserted);
    let listed = store.pending(&org, None, now(), ALL).await.unwrap().items;
    let one = listed.iter().find(|one| one.task != other.id).expect("what waits in our tasks");
    assert_eq!(ruled(store, &org, one, &some_ruling(true), now()).await, Rule::Ruled);
    let task = tasks.iter().find(|task| task.id == one.task).expect("one of ours");
    assert_eq!(asked(store, &org, &some_request(task), now()).await, NewRequest::Inserted);
}

/// "Each is made on the history that it was assessed on, for any number of calls at once; the others are
/// [`NewRequest::Stale`]."
pub async fn risk_is_of_this_moment(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let history = task.history(now());
    let requests: Vec<_> =
        (0..RACERS).map(|_| JitRequest { ruling: Some(some_ruling(true)), ..some_request(&task) }).collect();
    let outcomes = race(RACERS, async |n| {
        let (done, suspended) = (some_event(), some_event());
        let on = RequestEvents { done: &done, suspended: &suspended };
        store.insert_request(&org, &requests[n], history, now(), on).await.unwrap()
    });
    let outcomes = outcomes.await;
    // So many until the next one is in a hurry.
    assert_eq!(count(&outcomes, &NewRequest::Inserted), Task::REMEMBERED, "{outcomes:?}");
    assert_eq!(count(&outcomes, &NewRequest::Stale), RACERS - Task::REMEMBERED, "{outcomes:?}");
    assert!(store.find_task(&org, &task.id).await.unwrap().unwrap().history(now()).hurried);
}

/// "It is denied, and its task was suspended for that": by answers and by denials at once.
pub async fn denials_suspend(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let [one, two, three] = [(); 3].map(|()| some_request(&task));
    for request in [&one, &two, &three] {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    let denied = some_ruling(false);
    assert_eq!(ruled(store, &org, &one, &denied, now()).await, Rule::Ruled);
    assert_eq!(ruled(store, &org, &two, &denied, now()).await, Rule::Ruled);
    let policy = JitRequest { ruling: Some(some_ruling(false)), ..some_request(&task) };
    assert_eq!(asked(store, &org, &policy, now()).await, NewRequest::Suspended);
    let stored = store.find_task(&org, &task.id).await.unwrap().unwrap();
    assert_eq!((stored.status(now()), stored.denials), ("suspended", 3));
    assert_eq!(waiting(store, &org).await, 0);
    assert_eq!(ruled(store, &org, &three, &some_ruling(true), now()).await, Rule::TaskClosed);

    let task = opened(store, &org).await;
    let requests: Vec<_> = (0..6).map(|_| some_request(&task)).collect();
    for request in &requests {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    let outcomes = race(6, async |n| ruled(store, &org, &requests[n], &denied, now()).await).await;
    assert_eq!(count(&outcomes, &Rule::Ruled), 2, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Rule::Suspended), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Rule::TaskClosed), 3, "{outcomes:?}");
}

/// "What was answered before" is [`Rule::AlreadyRuled`], also after its end.
pub async fn answered_once(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let request = some_request(&task);
    assert_eq!(ruled(store, &org, &request, &some_ruling(true), now()).await, Rule::Missing);
    assert_eq!(asked(store, &org, &request, now()).await, NewRequest::Inserted);
    let first = some_ruling(true);
    assert_eq!(ruled(store, &org, &request, &first, now()).await, Rule::Ruled);
    for at in [now(), request.expires_at, task.expires_at] {
        for again in [some_ruling(false), first.clone()] {
            assert_eq!(ruled(store, &org, &request, &again, at).await, Rule::AlreadyRuled);
        }
    }
    assert_eq!(found(store, &org, &request).await, Some(request.with_ruling(first)));
    assert_eq!(waiting(store, &org).await, 0);
}

/// "Of any number of answers at once, of one kind or both, exactly one is [`Rule::Ruled`]."
pub async fn racing_answers(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let request = some_request(&task);
    assert_eq!(asked(store, &org, &request, now()).await, NewRequest::Inserted);
    let rulings: Vec<_> = (0..RACERS).map(|n| some_ruling(n % 2 == 0)).collect();
    let outcomes = race(RACERS, async |n| ruled(store, &org, &request, &rulings[n], now()).await).await;
    assert_eq!(count(&outcomes, &Rule::Ruled), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Rule::AlreadyRuled), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Rule::Ruled).unwrap();
    assert_eq!(found(store, &org, &request).await, Some(request.with_ruling(rulings[winner].clone())));
}

/// An answer that comes too late is [`Rule::Expired`].
pub async fn expired_is_not_answered(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let [late, last] = [some_request(&task), some_request(&task)];
    for request in [&late, &last] {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    for at in [late.expires_at, late.expires_at.plus(MOMENT)] {
        assert_eq!(ruled(store, &org, &late, &some_ruling(true), at).await, Rule::Expired);
    }
    assert_eq!(found(store, &org, &late).await, Some(late));
    let at = last.expires_at.minus(MOMENT);
    assert_eq!(ruled(store, &org, &last, &some_ruling(true), at).await, Rule::Ruled);
}

/// "The requests that wait at `now`: for `user`, or all of the organization. Those first that expire first; of the same
/// instant, in ascending order of id."
pub async fn pending(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let (user, other) = (UserId::generate(), UserId::generate());
    let then = now().plus(Duration::from_secs(60));
    let mut all: Vec<_> = (0..6_u64)
        .map(|n| JitRequest {
            on_behalf_of: [Some(user), Some(other), None][usize::try_from(n % 3).unwrap_or(0)],
            expires_at: if n < 4 { then } else { then.plus(MOMENT) },
            ..some_request(&task)
        })
        .collect();
    for request in all.iter().rev() {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    let ended = JitRequest { expires_at: now(), ..some_request(&task) };
    assert_eq!(asked(store, &org, &ended, now()).await, NewRequest::Inserted);
    let answered = some_request(&task);
    assert_eq!(asked(store, &org, &answered, now()).await, NewRequest::Inserted);
    assert_eq!(ruled(store, &org, &answered, &some_ruling(false), now()).await, Rule::Ruled);
    all.sort_by(|one, other| (one.expires_at, &one.id).cmp(&(other.expires_at, &other.id)));

    for who in [None, Some(user), Some(other), Some(UserId::generate())] {
        let wanted: Vec<_> = all.iter().filter(|it| who.is_none() || it.on_behalf_of == who).collect();
        for page in [ALL, Page { offset: 1, limit: 2 }, Page { offset: u64::MAX, limit: 2 }, Page::first(0)] {
            let listing = store.pending(&org, who, now(), page).await.unwrap();
            let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
            let expected: Vec<_> = wanted.iter().copied().skip(skip).take(page.limit as usize).collect();
            let items: Vec<_> = listing.items.iter().map(|item| &**item).collect();
            assert_eq!((items, listing.total), (expected, wanted.len() as u64), "{page:?}");
        }
    }
    // Time alone takes them off.
    for (at, total) in [(then.minus(MOMENT), 6), (then, 2), (then.plus(MOMENT), 0)] {
        assert_eq!(store.pending(&org, None, at, ALL).await.unwrap().total, total);
    }
}

/// "Its callback is due when it says"; "is due from the instant of the answer on"; "of any number at once exactly one" notes a try.
pub async fn callbacks(store: &dyn JitStore) {
    let org = some_org();
    let task = opened(store, &org).await;
    let mut request = some_request(&task);
    let end = request.expires_at;
    request.callback = Some(Callback { url: "https://cb.test".to_owned(), tries: 0, due: Some(end) });
    let mute = some_request(&task);
    for request in [&request, &mute] {
        assert_eq!(asked(store, &org, request, now()).await, NewRequest::Inserted);
    }
    // Other cases may run on the same store, so only ours are looked at.
    let due = async |at| {
        let due = store.due_callbacks(at, ALL.limit).await.unwrap();
        let ours = due.into_iter().filter(|(of, _)| *of == org).map(|(_, request)| (*request).clone());
        ours.collect::<Vec<_>>()
    };
    assert_eq!(due(end.minus(MOMENT)).await, []);
    assert_eq!(due(end).await, std::slice::from_ref(&request));
    for request in [&request, &mute] {
        assert_eq!(ruled(store, &org, request, &some_ruling(true), now()).await, Rule::Ruled);
    }
    assert_eq!(due(now().minus(MOMENT)).await, []);
    let answered = due(now()).await.remove(0);
    assert_eq!(answered.id, request.id);
    assert_eq!(answered.callback.as_ref().map(|callback| callback.tries), Some(0));

    let next = now().plus(Duration::from_secs(5));
    let tried = race(RACERS, async |_| store.note_try(&org, &answered, Some(next)).await.unwrap()).await;
    assert_eq!(count(&tried, &true), 1, "{tried:?}");
    assert_eq!(due(next.minus(MOMENT)).await, []);
    let again = due(next).await.remove(0);
    assert_eq!(again.callback.as_ref().map(|callback| callback.tries), Some(1));
    assert_eq!(again.ruling, answered.ruling);
    assert!(store.note_try(&org, &again, None).await.unwrap());
    assert_eq!(due(next.plus(Duration::from_secs(9999))).await, []);
    assert!(!store.note_try(&org, &again, None).await.unwrap());
    assert!(!store.note_try(&org, &mute, Some(next)).await.unwrap());
}
