//! Cases of [`Upkeep`].

use std::time::Duration;

use super::{
    approvals::{some_approval, some_decision},
    grants::{next_of, rotate, some_refresh, some_ticket, use_ticket},
    jit::{asked, closed, found, ruled, some_request, some_ruling, some_task},
    now, some_event, some_org,
};
use crate::{
    approval::{APPROVAL_GRACE, Approval},
    budget::{Account, Line, Meter, Resolution, Window},
    clock::Timestamp,
    id::AgentId,
    jit::{CloseTask, JitRequest, Load, NewRequest, Rule, TASK_GRACE, Task, TaskOutcome},
    random::random_bytes,
    store::{
        ApprovalStore, BudgetStore, Charge, ChargeId, Charged, Decide, GrantStore, Handle, HoldId, Insert,
        JitStore, NewApproval, NewHold, REPLAY_GRACE, RateLimit, RateLimitStore, RefreshToken, Remembered,
        ReplayStore, Resolved, Revoked, Rotation, Store, Ticket, TicketUse, Upkeep,
    },
};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

/// "Whether the backend answers, for readiness probes."
pub async fn answers(store: &dyn Upkeep) {
    store.ping().await.unwrap();
}

/// "Drops up to `max` rows that have no meaning at `now`."
///
/// A backend with only some of these roles calls the narrower functions of this module in tests of its own.
pub async fn purge_keeps_what_counts(store: &dyn Store) {
    purge_keeps_marks(store, store).await;
    purge_keeps_tickets(store, store).await;
    purge_keeps_refresh_tokens(store, store).await;
    purge_keeps_approvals(store, store).await;
    purge_keeps_tasks(store, store).await;
    purge_keeps_charge_ids(store, store).await;
    purge_keeps_parked_holds(store, store).await;
    purge_keeps_counters(store, store).await;
    purge_keeps_rate_limits(store, store).await;
    purge_keeps_replay_marks(store, store).await;
    super::policies::purge_keeps_removals(store, then(), async || purge(store).await).await;
}

/// When these cases purge: so early that no row of another case can have ended.
fn then() -> Timestamp {
    now().minus(Duration::from_secs(60 * 86_400))
}

/// Purges, in small steps, until there is nothing left to drop.
async fn purge(store: &dyn Upkeep) {
    assert_eq!(store.purge(then(), 0).await.unwrap(), 0);
    loop {
        let dropped = store.purge(then(), 3).await.unwrap();
        assert!(dropped <= 3, "{dropped}");
        if dropped == 0 {
            break;
        }
    }
}

/// "The mark holds at least until `keep_until`", also if it was first made to hold for less.
pub async fn purge_keeps_marks(grants: &dyn GrantStore, store: &dyn Upkeep) {
    let org = some_org();
    let handle = || Handle::from_bytes(random_bytes());
    let soon = then().plus(MOMENT);
    let (kept, prolonged) = (handle(), handle());
    assert_eq!(grants.revoke(&org, kept, soon, &some_event()).await.unwrap(), Revoked::Revoked);
    for ended in [prolonged, handle(), handle(), handle(), handle()] {
        let keep_until = then().minus(HOUR);
        assert_eq!(grants.revoke(&org, ended, keep_until, &some_event()).await.unwrap(), Revoked::Revoked);
    }
    let outcome = grants.revoke(&org, prolonged, soon, &some_event()).await.unwrap();
    assert_eq!(outcome, Revoked::AlreadyRevoked);

    purge(store).await;

    assert!(grants.any_revoked(&org, &[kept]).await.unwrap());
    assert!(grants.any_revoked(&org, &[prolonged]).await.unwrap());
}

/// "A later one, until `keep_until`, marks the ticket's family until [`Ticket::dead_until`]." "A purge may drop" one that was
/// never used "from `expires_at` on", and what has ended makes room.
pub async fn purge_keeps_tickets(grants: &dyn GrantStore, store: &dyn Upkeep) {
    let (org, early) = (some_org(), then().minus(HOUR));
    let ticket = |expires_at, keep_until| {
        let family = Some(Handle::from_bytes(random_bytes()));
        Ticket { expires_at, keep_until, ..some_ticket(family) }
    };
    let unused = ticket(then().plus(MOMENT), then().plus(MOMENT));
    let used = ticket(early.plus(MOMENT), then().plus(MOMENT));
    let reused = ticket(early.plus(MOMENT), then().plus(MOMENT));
    let ended: Vec<_> = (0..4).map(|_| ticket(early.plus(MOMENT), then().minus(MOMENT))).collect();
    let lapsed = ticket(then().minus(MOMENT), now());
    // Reused so late that what it gave may live on after it is forgotten.
    let late = ticket(early.plus(MOMENT), then().minus(MOMENT));
    for ticket in ended.iter().chain([&unused, &used, &reused, &lapsed, &late]) {
        grants.put_ticket(&org, ticket).await.unwrap();
    }
    // Marked before the reuse: one mark for less than the ticket needs it, the other for more.
    for (ticket, keep_until) in [(&reused, early), (&ended[0], then().plus(MOMENT))] {
        let marked = grants.revoke(&org, ticket.family.unwrap(), keep_until, &some_event()).await.unwrap();
        assert_eq!(marked, Revoked::Revoked);
    }
    for (ticket, outcome) in [
        (&ended[0], TicketUse::Used),
        (&ended[0], TicketUse::Reused),
        (&used, TicketUse::Used),
        (&reused, TicketUse::Used),
        (&reused, TicketUse::Reused),
    ] {
        assert_eq!(use_ticket(grants, &org, ticket, None, early).await.unwrap(), outcome);
    }
    for (at, outcome) in [(early, TicketUse::Used), (then().minus(2 * MOMENT), TicketUse::Reused)] {
        assert_eq!(use_ticket(grants, &org, &late, None, at).await.unwrap(), outcome);
    }

    purge(store).await;

    assert_eq!(use_ticket(grants, &org, &used, None, then()).await.unwrap(), TicketUse::Reused);
    assert_eq!(use_ticket(grants, &org, &unused, None, then()).await.unwrap(), TicketUse::Used);
    for ticket in ended.iter().chain([&lapsed, &late]) {
        grants.put_ticket(&org, ticket).await.unwrap();
    }
    for marked in [&reused, &ended[0], &late] {
        assert!(grants.any_revoked(&org, &[marked.family.unwrap()]).await.unwrap());
    }
}

/// A rotated refresh token is recognised as long as its time is not over, and the mark of its family holds "until
/// `next.expires_at`".
pub async fn purge_keeps_refresh_tokens(grants: &dyn GrantStore, store: &dyn Upkeep) {
    let (org, early) = (some_org(), then().minus(HOUR));
    let token = |expires_at| {
        let token = some_refresh(Handle::from_bytes(random_bytes()));
        RefreshToken { expires_at, ..token }
    };
    let grant = async |token: &RefreshToken| {
        let code = Ticket { expires_at: early.plus(MOMENT), ..some_ticket(None) };
        grants.put_ticket(&org, &code).await.unwrap();
        assert_eq!(use_ticket(grants, &org, &code, Some(token), early).await.unwrap(), TicketUse::Used);
    };
    let (rotated, reused) = (token(then().plus(MOMENT)), token(then().plus(MOMENT)));
    let ended = token(then().minus(MOMENT));
    let [next, stolen] =
        [&rotated, &reused].map(|of| RefreshToken { expires_at: then().plus(MOMENT), ..next_of(of) });
    for token in [&rotated, &reused, &ended] {
        grant(token).await;
    }
    let short = grants.revoke(&org, reused.family, early, &some_event()).await.unwrap();
    assert_eq!(short, Revoked::Revoked);
    for (token, next, outcome) in [
        (&rotated, &next, Rotation::Rotated),
        (&reused, &stolen, Rotation::Rotated),
        (&reused, &stolen, Rotation::Reused),
    ] {
        assert_eq!(rotate(grants, &org, token, next, false, early).await.unwrap(), outcome);
    }

    purge(store).await;

    let found = grants.find_refresh(&org, &next.hash, then()).await.unwrap();
    assert_eq!(found.map(|found| found.token), Some(next.clone()));
    let outcome = rotate(grants, &org, &rotated, &next_of(&rotated), false, then()).await.unwrap();
    assert_eq!(outcome, Rotation::Reused);
    grant(&ended).await;
    assert!(grants.any_revoked(&org, &[reused.family]).await.unwrap());
}

/// "Approvals more than [`APPROVAL_GRACE`] past their end" are dropped, decided or not, and no others.
pub async fn purge_keeps_approvals(approvals: &dyn ApprovalStore, store: &dyn Upkeep) {
    let org = some_org();
    let early = then().minus(3 * APPROVAL_GRACE);
    let ending = |at: Timestamp| Approval { created_at: early, expires_at: at, ..some_approval() };
    let last = then().minus(APPROVAL_GRACE);
    let [open, ended, decided] = [then().plus(MOMENT), last, last].map(ending);
    let gone: Vec<_> = (0..4).map(|_| ending(last.minus(MOMENT))).collect();
    for approval in gone.iter().chain([&open, &ended, &decided]) {
        let outcome = approvals.insert(&org, approval, &some_event()).await.unwrap();
        assert_eq!(outcome, NewApproval::Inserted);
    }
    for approval in [&decided, &gone[0]] {
        let outcome = approvals.decide(&org, approval, &some_decision(true), early, &some_event()).await;
        assert_eq!(outcome.unwrap(), Decide::Decided);
    }

    purge(store).await;

    for approval in [&open, &ended, &decided] {
        assert!(approvals.find(&org, &approval.token).await.unwrap().is_some());
    }
    assert_eq!(approvals.pending(&org, None, then(), super::ALL).await.unwrap().total, 1);
    // What was dropped makes room.
    for approval in &gone {
        let outcome = approvals.insert(&org, approval, &some_event()).await.unwrap();
        assert_eq!(outcome, NewApproval::Inserted);
    }
    let outcome = approvals.decide(&org, &gone[0], &some_decision(true), early, &some_event()).await;
    assert_eq!(outcome.unwrap(), Decide::Decided);
}

/// "Tasks and what was asked in them past their `keep_until`, what of an agent waited for people once all of it has ended"
/// are dropped, closed or not, and nothing else: what still waits counts as before.
pub async fn purge_keeps_tasks(jit: &dyn JitStore, store: &dyn Upkeep) {
    let org = some_org();
    let last = then().minus(TASK_GRACE);
    let early = last.minus(HOUR);
    let ending = |at: Timestamp| Task { created_at: early, expires_at: at, ..some_task() };
    let asking = |task: &Task, at: Timestamp| JitRequest { expires_at: at, ..some_request(task) };
    let (open, ended, gone) = (ending(now()), ending(last), ending(last.minus(MOMENT)));
    for task in [&open, &ended, &gone] {
        assert_eq!(jit.insert_task(&org, task, &some_event()).await.unwrap(), Insert::Inserted);
    }
    let (old, waits) = (asking(&gone, last.minus(MOMENT)), asking(&ended, last));
    for request in [&old, &waits] {
        assert_eq!(asked(jit, &org, request, early).await, NewRequest::Inserted);
    }
    // As many as there may be; all but one wait beyond the purge.
    let mut held = vec![asking(&open, then().minus(MOMENT))];
    held.extend((1..Load::MAX_PER_TASK).map(|_| asking(&open, then().plus(HOUR))));
    for request in &held {
        assert_eq!(asked(jit, &org, request, early).await, NewRequest::Inserted);
    }
    assert_eq!(asked(jit, &org, &asking(&open, now()), early).await, NewRequest::TooMany);
    assert_eq!(closed(jit, &org, &ended, TaskOutcome::Completed).await, CloseTask::Closed);

    purge(store).await;

    assert!(jit.find_task(&org, &gone.id).await.unwrap().is_none());
    assert!(found(jit, &org, &old).await.is_none());
    for task in [&open, &ended] {
        assert!(jit.find_task(&org, &task.id).await.unwrap().is_some());
    }
    for request in held.iter().chain([&waits]) {
        assert!(found(jit, &org, request).await.is_some());
    }
    let mut left = 0;
    while asked(jit, &org, &asking(&open, now()), then()).await == NewRequest::Inserted {
        left += 1;
    }
    assert_eq!(left, 1, "what waits was forgotten");
    // Somebody of whom nothing is known any more begins anew, and what was dropped makes room.
    let again = Task { expires_at: now(), ..gone };
    assert_eq!(jit.insert_task(&org, &again, &some_event()).await.unwrap(), Insert::Inserted);
    let request = JitRequest { expires_at: now(), ..old };
    assert_eq!(asked(jit, &org, &request, then()).await, NewRequest::Inserted);
    assert_eq!(ruled(jit, &org, &request, &some_ruling(true), then()).await, Rule::Ruled);
}

/// "Until its `keep_until`, a repetition changes nothing."
pub async fn purge_keeps_charge_ids(budgets: &dyn BudgetStore, store: &dyn Upkeep) {
    let (org, actor) = (some_org(), AgentId::generate());
    let keep_until = then().plus(MOMENT);
    let id = ChargeId { actor, key: "kept", request_hash: [1; 32], keep_until };
    let charge = Charge::repeatable(id, &[]);
    let past = ChargeId { key: "past", keep_until: then().minus(HOUR), ..id };
    let made = Charged::Charged(vec![]);
    assert_eq!(budgets.charge(&org, &charge, then().minus(2 * HOUR)).await.unwrap(), made);
    let ended = Charge::repeatable(past, &[]);
    assert_eq!(budgets.charge(&org, &ended, then().minus(2 * HOUR)).await.unwrap(), made);

    purge(store).await;

    assert_eq!(budgets.charge(&org, &charge, then()).await.unwrap(), Charged::Repeated);
}

/// "None whose hold is parked": it can still be freed. Then it goes, and is in no list any more.
pub async fn purge_keeps_parked_holds(budgets: &dyn BudgetStore, store: &dyn Upkeep) {
    let (org, actor) = (some_org(), AgentId::generate());
    let ended = then().minus(HOUR);
    let hold = |parked| NewHold { parked, ends: ended, note: "" };
    let parked = ChargeId { actor, key: "parked", request_hash: [1; 32], keep_until: ended };
    let held = ChargeId { key: "held", ..parked };
    let made = Charged::Charged(vec![]);
    for charge in [Charge::held(parked, &[], hold(true)), Charge::held(held, &[], hold(false))] {
        assert_eq!(budgets.charge(&org, &charge, then().minus(2 * HOUR)).await.unwrap(), made);
    }

    purge(store).await;

    let mine = async || {
        let overdue = budgets.overdue(then(), 10_000).await.unwrap();
        overdue
            .into_iter()
            .filter(|overdue| overdue.org == org)
            .map(|overdue| overdue.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(mine().await, ["parked"]);
    let id = HoldId { actor, key: "parked" };
    let freed = budgets.resolve(&org, Some(id), &[], Resolution::Expire, then()).await.unwrap();
    assert_eq!(freed, Resolved::Done { counters: vec![], late: false });

    purge(store).await;

    assert!(mine().await.is_empty());
    assert!(budgets.live_holds(&org, actor, then().minus(2 * HOUR), 9).await.unwrap().is_empty());
}

/// "Counters of windows that ended more than 48 hours ago" are dropped, and no others.
pub async fn purge_keeps_counters(budgets: &dyn BudgetStore, store: &dyn Upkeep) {
    let (org, account) = (some_org(), Account::agent(AgentId::generate(), 0));
    let present =
        [(Meter::Tokens, Window::Day), (Meter::Calls, Window::Hour), (Meter::MicroUsd, Window::Month)];
    let recent = then().minus(48 * HOUR);
    for (at, meter, window) in present
        .map(|(meter, window)| (then(), meter, window))
        .into_iter()
        .chain([(recent, Meter::Calls, Window::Hour), (then().minus(60 * HOUR), Meter::Calls, Window::Hour)])
    {
        let window_start = window.start(at);
        let line = Line { account, meter, window, window_start, limit: None, amount: 5 };
        let outcome = budgets.charge(&org, &Charge::once(&[line]), at).await.unwrap();
        assert_eq!(outcome, Charged::Charged(vec![5]), "{window:?}");
    }

    purge(store).await;

    let usage = budgets.usage(&org, account, then()).await.unwrap();
    assert_eq!((usage.tokens, usage.calls, usage.micro_usd), (5, 5, 5));
    assert_eq!(budgets.usage(&org, account, recent).await.unwrap().calls, 5);
}

/// "Rate limit windows that ended" are dropped, and no others.
pub async fn purge_keeps_rate_limits(limits: &dyn RateLimitStore, store: &dyn Upkeep) {
    let org = some_org();
    let limit = RateLimit { max: 1, window: HOUR };
    assert!(limits.take(&org, "past", limit, then().minus(2 * HOUR)).await.unwrap().admitted);
    assert!(limits.take(&org, "present", limit, then()).await.unwrap().admitted);

    purge(store).await;

    assert!(!limits.take(&org, "present", limit, then()).await.unwrap().admitted);
}

/// "Replay marks more than [`REPLAY_GRACE`] past their end" are dropped, and no others.
pub async fn purge_keeps_replay_marks(replay: &dyn ReplayStore, store: &dyn Upkeep) {
    let org = some_org();
    let [past, ended, present] = [random_bytes(), random_bytes(), random_bytes()];
    let soon = Duration::from_millis(1);
    for (key, until) in [
        (&past, then().minus(REPLAY_GRACE).minus(soon)),
        (&ended, then().minus(REPLAY_GRACE)),
        (&present, then().plus(soon)),
    ] {
        let at = then().minus(HOUR);
        let outcome = replay.remember(&org, "suite", key, at, until, at).await.unwrap();
        assert_eq!(outcome, Remembered::First);
    }

    purge(store).await;

    let early = then().minus(HOUR);
    for key in [&ended, &present] {
        let outcome = replay.remember(&org, "suite", key, early, then(), early).await.unwrap();
        assert_eq!(outcome, Remembered::Replay);
    }
}
