//! Cases of [`BudgetStore`].

pub use super::holds::*;

use std::{slice, time::Duration};

use uuid::Uuid;

use super::{RACERS, count, now, race, some_org};
use crate::{
    budget::{Account, BudgetPolicy, Line, Meter, Usage, Window},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, Charged},
};

fn some_account() -> Account {
    Account::agent(AgentId::generate(), 0)
}

/// API calls in the present hour.
fn calls(account: Account, limit: Option<u64>, amount: u64) -> Line {
    let (meter, window) = (Meter::Calls, Window::Hour);
    Line { account, meter, window, window_start: window.start(now()), limit, amount }
}

fn id(owner: Uuid, key: &str) -> ChargeId<'_> {
    let actor = AgentId::from_uuid(owner);
    ChargeId { actor, key, request_hash: [1; 32], keep_until: now().plus(Duration::from_secs(60)) }
}

async fn charge(store: &dyn BudgetStore, org: &OrgId, lines: &[Line]) -> Charged {
    store.charge(org, &Charge::once(lines), now()).await.unwrap()
}

async fn calls_of(store: &dyn BudgetStore, org: &OrgId, account: Account) -> u64 {
    store.usage(org, account, now()).await.unwrap().calls
}

fn charged(outcomes: &[Charged]) -> u64 {
    outcomes.iter().map(|outcome| u64::from(matches!(outcome, Charged::Charged(_)))).sum()
}

fn racers() -> u64 {
    u64::try_from(RACERS).unwrap()
}

/// "Under any concurrency no counter with a limit passes it." And none stops short of it.
pub async fn never_oversells(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let limit = racers() + 1;
    let line = calls(account, Some(limit), 3);
    let outcomes = race(RACERS, |_| charge(store, &org, slice::from_ref(&line))).await;

    assert_eq!(charged(&outcomes), limit / 3, "{outcomes:?}");
    let used = limit - limit % 3;
    assert_eq!(calls_of(store, &org, account).await, used);

    // What is left is still sold, and then not even a zero has room.
    let rest = calls(account, Some(limit), limit - used);
    if limit > used {
        assert_eq!(charge(store, &org, &[rest]).await, Charged::Charged(vec![limit]));
    }
    for amount in [0, 1] {
        let outcome = charge(store, &org, &[calls(account, Some(limit), amount)]).await;
        assert_eq!(outcome, Charged::Exceeded { line: 0, used: limit }, "{amount}");
    }
    assert_eq!(
        charge(store, &org, &[calls(account, Some(limit + 1), 1)]).await,
        Charged::Charged(vec![limit + 1])
    );
}

/// "Counts every line of `charge`, or none." With "index of the first line without room".
pub async fn all_lines_or_none(store: &dyn BudgetStore) {
    let org = some_org();
    let [wide, narrow, full] = [some_account(), some_account(), some_account()];
    assert_eq!(charge(store, &org, &[calls(full, None, 7)]).await, Charged::Charged(vec![7]));
    let lines =
        [calls(wide, None, 1), calls(full, Some(7), 1), calls(full, Some(6), 1), calls(narrow, Some(9), 1)];
    let outcome = charge(store, &org, &[lines[0], lines[1], lines[3]]).await;
    assert_eq!(outcome, Charged::Exceeded { line: 1, used: 7 });
    assert_eq!(
        charge(store, &org, &[lines[3], lines[0], lines[2]]).await,
        Charged::Exceeded { line: 2, used: 7 }
    );
    assert_eq!(charge(store, &org, &[]).await, Charged::Charged(vec![]));
    assert_eq!(calls_of(store, &org, wide).await, 0);
    assert_eq!(calls_of(store, &org, narrow).await, 0);

    // In opposite orders, which must not end in a deadlock either.
    let limit = racers() / 2;
    let outcomes = race(RACERS, async |n| {
        let mut lines = [calls(wide, Some(2 * limit), 1), calls(narrow, Some(limit), 1)];
        if n % 2 == 0 {
            lines.reverse();
        }
        charge(store, &org, &lines).await
    })
    .await;
    assert_eq!(charged(&outcomes), limit, "{outcomes:?}");
    assert_eq!(calls_of(store, &org, wide).await, limit);
    assert_eq!(calls_of(store, &org, narrow).await, limit);
}

/// "A counter that was never charged shows zero, also for any number of first charges at once."
pub async fn first_charges_at_once(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    assert_eq!(store.usage(&org, account, now()).await.unwrap(), Usage::default());
    let line = calls(account, None, 1);
    let outcomes = race(RACERS, |_| charge(store, &org, slice::from_ref(&line))).await;

    let mut counters: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Charged::Charged(counters) => counters,
            other => panic!("a line without limit is always charged, and not {other:?}"),
        })
        .collect();
    counters.sort();
    assert_eq!(counters, (1..=racers()).map(|n| vec![n]).collect::<Vec<_>>());
    assert_eq!(calls_of(store, &org, account).await, racers());
}

/// "Until its `keep_until`, a repetition changes nothing."
pub async fn repeats_by_id(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let line = [calls(account, Some(5), 5)];
    let id = id(account.owner, "Ünïcode 'n' \\ %_:*");
    let make =
        async |id, line: &[Line], at| store.charge(&org, &Charge::repeatable(id, line), at).await.unwrap();
    assert_eq!(make(id, &line, now()).await, Charged::Charged(vec![5]));

    let last = id.keep_until.minus(Duration::from_millis(1));
    assert_eq!(make(id, &line, now()).await, Charged::Repeated);
    assert_eq!(make(id, &line, last).await, Charged::Repeated);
    let other = ChargeId { request_hash: [2; 32], ..id };
    assert_eq!(make(other, &[calls(account, None, 1)], last).await, Charged::Conflict);

    assert_eq!(calls_of(store, &org, account).await, 5);
}

/// "An id is looked up and stored in the same step."
pub async fn racing_repeats(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let line = [calls(account, None, 1)];
    let charge = Charge::repeatable(id(account.owner, "once"), &line);
    let outcomes = race(RACERS, async |_| store.charge(&org, &charge, now()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Charged::Charged(vec![1])), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Charged::Repeated), RACERS - 1, "{outcomes:?}");
    assert_eq!(calls_of(store, &org, account).await, 1);
}

/// "A refused charge stores no id."
pub async fn refused_ids_are_free(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let first = id(account.owner, "again");
    let refused = [calls(account, Some(0), 1)];
    let outcome = store.charge(&org, &Charge::repeatable(first, &refused), now()).await.unwrap();
    assert_eq!(outcome, Charged::Exceeded { line: 0, used: 0 });

    let line = [calls(account, Some(1), 1)];
    let other = ChargeId { request_hash: [2; 32], ..first };
    let outcome = store.charge(&org, &Charge::repeatable(other, &line), now()).await.unwrap();
    assert_eq!(outcome, Charged::Charged(vec![1]));
}

/// "Nothing depends on it but space", on a purge: at its `keep_until` an id is unknown again.
pub async fn ids_end(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let line = [calls(account, None, 1)];
    let first = id(account.owner, "ends");
    let end = first.keep_until;
    let outcome = store.charge(&org, &Charge::repeatable(first, &line), now()).await.unwrap();
    assert_eq!(outcome, Charged::Charged(vec![1]));

    let keep_until = end.plus(Duration::from_secs(60));
    let next = ChargeId { request_hash: [2; 32], keep_until, ..first };
    let charge = Charge::repeatable(next, &line);
    assert_eq!(store.charge(&org, &charge, end).await.unwrap(), Charged::Charged(vec![2]));
    assert_eq!(store.charge(&org, &charge, end).await.unwrap(), Charged::Repeated);
}

/// "Ids are unique per agent": another actor's charge, and another organization's, is another one.
pub async fn ids_are_per_actor(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let line = [calls(account, None, 1)];
    for (org, actor, used) in
        [(&org, account.owner, 1), (&org, some_account().owner, 2), (&some_org(), account.owner, 1)]
    {
        let charge = Charge::repeatable(id(actor, "same"), &line);
        let outcome = store.charge(org, &charge, now()).await.unwrap();
        assert_eq!(outcome, Charged::Charged(vec![used]));
    }
}

/// "`None` counts without limiting."
pub async fn facts_overshoot(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    assert_eq!(charge(store, &org, &[calls(account, Some(10), 10)]).await, Charged::Charged(vec![10]));
    assert_eq!(charge(store, &org, &[calls(account, None, 5)]).await, Charged::Charged(vec![15]));

    let outcome = charge(store, &org, &[calls(account, Some(10), 0)]).await;
    assert_eq!(outcome, Charged::Exceeded { line: 0, used: 15 });
    assert_eq!(calls_of(store, &org, account).await, 15);
}

/// "Counting saturates; it never wraps."
pub async fn no_wrap(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    for amount in [u64::MAX, 1, u64::MAX, 0] {
        let outcome = charge(store, &org, &[calls(account, None, amount)]).await;
        assert!(matches!(outcome, Charged::Charged(_)), "{amount}: {outcome:?}");
        // A backend may saturate at the largest signed number.
        let used = calls_of(store, &org, account).await;
        assert!(used >= u64::MAX >> 1, "{amount}: {used}");
    }

    let line = calls(account, Some(BudgetPolicy::MAX_COUNT), 1);
    assert!(matches!(charge(store, &org, &[line]).await, Charged::Exceeded { line: 0, .. }));
}

/// "What `account` used in the windows that `now` is in."
pub async fn usage_by_window(store: &dyn BudgetStore) {
    let (org, account) = (some_org(), some_account());
    let line = |meter, window: Window, at: Timestamp, amount| Line {
        account,
        meter,
        window,
        window_start: window.start(at),
        limit: None,
        amount,
    };
    let [hour, day, month] = [Window::Hour, Window::Day, Window::Month].map(|window| window.end(now()));
    let lines = [
        line(Meter::Tokens, Window::Day, now(), 100),
        line(Meter::Calls, Window::Hour, now(), 10),
        line(Meter::MicroUsd, Window::Month, now(), 1),
        line(Meter::Calls, Window::Hour, hour, 20),
        line(Meter::Calls, Window::Day, now(), 999),
    ];
    assert_eq!(charge(store, &org, &lines).await, Charged::Charged(vec![100, 10, 1, 20, 999]));

    for (at, tokens, calls, micro_usd) in [
        (now(), 100, 10, 1),
        (hour.minus(Duration::from_millis(1)), 100, 10, 1),
        (hour, 100, 20, 1),
        (day, 0, 0, 1),
        (month.minus(Duration::from_millis(1)), 0, 0, 1),
        (month, 0, 0, 0),
    ] {
        let usage = store.usage(&org, account, at).await.unwrap();
        assert_eq!(usage, Usage { tokens, calls, micro_usd }, "{at}");
    }
    let next = Account { generation: 1, ..account };
    assert_eq!(store.usage(&org, next, now()).await.unwrap(), Usage::default());
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn BudgetStore) {
    let (ours, theirs, account) = (some_org(), some_org(), some_account());
    let line = [calls(account, Some(2), 2)];
    assert_eq!(charge(store, &ours, &line).await, Charged::Charged(vec![2]));

    assert_eq!(calls_of(store, &theirs, account).await, 0);
    assert_eq!(charge(store, &theirs, &line).await, Charged::Charged(vec![2]));
    assert_eq!(calls_of(store, &ours, account).await, 2);
}
