//! Cases of [`ApprovalStore`].

use std::{array, time::Duration};

use serde_json::json;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    approval::{Approval, ApprovalToken, Decision, Epochs, Impact},
    clock::Timestamp,
    id::{AgentId, ClientId, Number, OrgId, UserId},
    jit::ActionHash,
    store::{ApprovalStore, Consume, Decide, NewApproval, Page},
};

const MOMENT: Duration = Duration::from_millis(1);

/// An approval that nobody else knows, pending for five minutes.
pub(super) fn some_approval() -> Approval {
    let ends = now().plus(Duration::from_secs(300));
    let mut approval = Approval::new(AgentId::generate(), ClientId::generate_for_agent(), now(), ends);
    approval.on_behalf_of = Some(UserId::generate());
    approval
}

/// What somebody says.
pub(super) fn some_decision(approved: bool) -> Decision {
    let (by, number) = (Some(UserId::generate()), Some(Number::generate()));
    Decision { approved, by, number, epoch: 1, epoch_of_whom: None, at: now(), note: None }
}

async fn inserted(store: &dyn ApprovalStore, org: &OrgId, approval: &Approval) {
    assert_eq!(store.insert(org, approval, &some_event()).await.unwrap(), NewApproval::Inserted);
}

async fn decided(
    store: &dyn ApprovalStore,
    org: &OrgId,
    approval: &Approval,
    decision: &Decision,
    at: Timestamp,
) -> Decide {
    store.decide(org, approval, decision, at, &some_event()).await.unwrap()
}

async fn found(store: &dyn ApprovalStore, org: &OrgId, approval: &Approval) -> Option<Approval> {
    store.find(org, &approval.token).await.unwrap().map(|found| (*found).clone())
}

/// "The approval with this token, also one that has expired or was decided."
pub async fn round_trip(store: &dyn ApprovalStore) {
    let org = some_org();
    let bare = Approval { on_behalf_of: None, ..some_approval() };
    let mut full = some_approval();
    full.task_id = "\u{1f4b8} \"'\\%_ t-9".to_owned();
    full.reason = "Pay\ninvoice\t88 \u{e9}".to_owned();
    full.impact = Impact::Critical;
    full.epochs = Epochs { organization: 1, agent: u32::MAX };
    full.reservation = Some("key \u{0} of a reservation".to_owned());
    full.action_hash = Some(ActionHash::of(&full.action()));
    for (name, value) in [
        ("amount", json!("12.500000")),
        ("deep", json!({ "list": [1, null, { "a": true }] })),
        ("", json!(u64::MAX)),
    ] {
        full.meta.insert(name.to_owned(), value);
    }
    // It expires in the past, by any clock of today's.
    full.expires_at = now().plus(MOMENT);
    for approval in [&bare, &full] {
        assert_eq!(found(store, &org, approval).await, None);
        inserted(store, &org, approval).await;
    }
    for approval in [&bare, &full] {
        assert_eq!(found(store, &org, approval).await.as_ref(), Some(approval));
    }

    let mut decision = some_decision(false);
    decision.note = Some("Not this \u{0} one \u{1f645}".to_owned());
    decision.at = now().plus(MOMENT);
    assert_eq!(decided(store, &org, &full, &decision, now()).await, Decide::Decided);
    assert_eq!(found(store, &org, &full).await, Some(full.with_decision(decision)));
    assert_eq!(found(store, &org, &bare).await, Some(bare));
}

/// "The token is unique in the organization." Also for any number of inserts at once.
pub async fn one_token_once(store: &dyn ApprovalStore) {
    let org = some_org();
    let wanted = some_approval();
    let racers: Vec<_> =
        (0..RACERS).map(|n| Approval { task_id: format!("racer {n}"), ..wanted.clone() }).collect();
    let outcomes = race(RACERS, async |n| store.insert(&org, &racers[n], &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &NewApproval::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &NewApproval::Taken), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == NewApproval::Inserted).unwrap();
    assert_eq!(found(store, &org, &wanted).await.as_ref(), Some(&racers[winner]));
    assert_eq!(store.pending(&org, None, now(), ALL).await.unwrap().total, 1);

    // It stays so once it was decided.
    let winner = &racers[winner];
    assert_eq!(decided(store, &org, winner, &some_decision(true), now()).await, Decide::Decided);
    assert_eq!(store.insert(&org, winner, &some_event()).await.unwrap(), NewApproval::Taken);
    assert!(found(store, &org, winner).await.unwrap().decision.is_some());
}

/// "If as many of the same agent for the same person are pending at its `created_at`, it is [`NewApproval::TooMany`]"; "any
/// number of calls at once leave no more than that".
pub async fn so_many_wait_at_a_time(store: &dyn ApprovalStore) {
    const MOST: usize = Approval::MAX_PENDING as usize;
    let org = some_org();
    let asking = |like: &Approval| Approval { token: ApprovalToken::generate(), ..like.clone() };
    let insert =
        async |org: &OrgId, approval: &Approval| store.insert(org, approval, &some_event()).await.unwrap();
    let pending = async |org: &OrgId, at| store.pending(org, None, at, Page::first(0)).await.unwrap().total;
    let first = some_approval();
    for like in [first.clone(), Approval { on_behalf_of: None, ..first.clone() }] {
        let org = some_org();
        let racers: Vec<_> = (0..MOST + RACERS).map(|_| asking(&like)).collect();
        let outcomes = race(racers.len(), async |n| insert(&org, &racers[n]).await).await;
        assert_eq!(count(&outcomes, &NewApproval::Inserted), MOST, "{outcomes:?}");
        assert_eq!(count(&outcomes, &NewApproval::TooMany), RACERS, "{outcomes:?}");
        assert_eq!(pending(&org, now()).await, MOST as u64);
    }

    let mut waiting = Vec::new();
    for _ in 0..MOST {
        let approval = asking(&first);
        inserted(store, &org, &approval).await;
        waiting.push(approval);
        // What waits for a reservation takes nothing from it.
        inserted(store, &org, &Approval { reservation: Some("r-1".to_owned()), ..asking(&first) }).await;
    }
    let over = asking(&first);
    assert_eq!(insert(&org, &over).await, NewApproval::TooMany);
    assert_eq!(found(store, &org, &over).await, None);
    // A repetition is none of them, nor is what others ask, or are asked, or what is asked elsewhere.
    assert_eq!(insert(&org, &waiting[0]).await, NewApproval::Taken);
    for other in [
        Approval { agent: AgentId::generate(), ..asking(&first) },
        Approval { on_behalf_of: Some(UserId::generate()), ..asking(&first) },
        Approval { on_behalf_of: None, ..asking(&first) },
    ] {
        inserted(store, &org, &other).await;
    }
    inserted(store, &some_org(), &over).await;

    // What was decided makes room, and what has ended, told or not.
    assert_eq!(decided(store, &org, &waiting[0], &some_decision(false), now()).await, Decide::Decided);
    inserted(store, &org, &over).await;
    assert_eq!(insert(&org, &asking(&first)).await, NewApproval::TooMany);
    let later = |at: Timestamp| Approval {
        created_at: at,
        expires_at: at.plus(Duration::from_secs(300)),
        ..asking(&first)
    };
    assert_eq!(insert(&org, &later(first.expires_at.minus(MOMENT))).await, NewApproval::TooMany);
    assert!(store.lapse(&org, &waiting[1], first.expires_at, &some_event()).await.unwrap());
    for _ in 0..MOST {
        inserted(store, &org, &later(first.expires_at)).await;
    }
    assert_eq!(insert(&org, &later(first.expires_at)).await, NewApproval::TooMany);
    // What waits for a reservation is bounded by who pays for it.
    let reservation = Some("r-1".to_owned());
    inserted(store, &org, &Approval { reservation, ..later(first.expires_at) }).await;
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn ApprovalStore) {
    let (ours, theirs) = (some_org(), some_org());
    let approval = some_approval();
    inserted(store, &ours, &approval).await;

    assert_eq!(found(store, &theirs, &approval).await, None);
    assert_eq!(store.pending(&theirs, None, now(), ALL).await.unwrap().total, 0);
    assert_eq!(store.pending(&theirs, approval.on_behalf_of, now(), ALL).await.unwrap().total, 0);
    let no = some_decision(false);
    assert_eq!(decided(store, &theirs, &approval, &no, now()).await, Decide::Missing);
    inserted(store, &theirs, &approval).await;
    assert_eq!(decided(store, &theirs, &approval, &no, now()).await, Decide::Decided);

    assert_eq!(found(store, &ours, &approval).await.as_ref(), Some(&approval));
    assert_eq!(store.pending(&ours, None, now(), ALL).await.unwrap().total, 1);
    let yes = some_decision(true);
    assert_eq!(decided(store, &ours, &approval, &yes, now()).await, Decide::Decided);
    assert_eq!(found(store, &theirs, &approval).await, Some(approval.with_decision(no)));
    assert_eq!(found(store, &ours, &approval).await, Some(approval.with_decision(yes)));
}

/// "What was decided before is [`Decide::AlreadyDecided`], also after its end."
pub async fn decided_once(store: &dyn ApprovalStore) {
    let org = some_org();
    let [approval, bystander] = [some_approval(), some_approval()];
    let first = some_decision(true);
    assert_eq!(decided(store, &org, &approval, &first, now()).await, Decide::Missing);
    assert_eq!(found(store, &org, &approval).await, None);
    inserted(store, &org, &approval).await;
    inserted(store, &org, &bystander).await;

    assert_eq!(decided(store, &org, &approval, &first, now()).await, Decide::Decided);
    for at in [now(), approval.expires_at, approval.expires_at.plus(MOMENT)] {
        for again in [some_decision(false), some_decision(true), first.clone()] {
            assert_eq!(decided(store, &org, &approval, &again, at).await, Decide::AlreadyDecided);
        }
    }
    assert_eq!(found(store, &org, &approval).await, Some(approval.with_decision(first)));
    assert_eq!(found(store, &org, &bystander).await, Some(bystander));
}

async fn one_decision_wins(store: &dyn ApprovalStore, approved: fn(usize) -> bool) {
    let org = some_org();
    let approval = some_approval();
    inserted(store, &org, &approval).await;
    let decisions: Vec<_> = (0..RACERS).map(|n| some_decision(approved(n))).collect();
    let outcomes = race(RACERS, async |n| decided(store, &org, &approval, &decisions[n], now()).await).await;

    assert_eq!(count(&outcomes, &Decide::Decided), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Decide::AlreadyDecided), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Decide::Decided).unwrap();
    let stored = found(store, &org, &approval).await;
    assert_eq!(stored, Some(approval.with_decision(decisions[winner].clone())));
}

/// "Of any number of decisions at once exactly one is [`Decide::Decided`], and what is found afterwards is that one": two
/// approvers and more.
pub async fn racing_approvals(store: &dyn ApprovalStore) {
    one_decision_wins(store, |_| true).await;
}

/// "Of any number of decisions at once, of one kind or both, exactly one is [`Decide::Decided`]."
pub async fn approve_and_deny_race(store: &dyn ApprovalStore) {
    one_decision_wins(store, |n| n % 2 == 0).await;
}

/// "That `now` is before its `expires_at` is checked in the same atomic step."
pub async fn expired_is_not_decided(store: &dyn ApprovalStore) {
    let org = some_org();
    let [late, last] = [some_approval(), some_approval()];
    for approval in [&late, &last] {
        inserted(store, &org, approval).await;
    }
    for at in [late.expires_at, late.expires_at.plus(MOMENT)] {
        for approved in [true, false] {
            assert_eq!(decided(store, &org, &late, &some_decision(approved), at).await, Decide::Expired);
        }
    }
    assert_eq!(found(store, &org, &late).await, Some(late));
    let at = last.expires_at.minus(MOMENT);
    assert_eq!(decided(store, &org, &last, &some_decision(true), at).await, Decide::Decided);
}

async fn used(store: &dyn ApprovalStore, org: &OrgId, approval: &Approval) -> Consume {
    store.consume(org, approval, now(), &some_event()).await.unwrap()
}

/// "That somebody agreed to it and that nobody used it up is checked in the same atomic step."
pub async fn used_once(store: &dyn ApprovalStore) {
    let org = some_org();
    let [open, denied, approved] = [some_approval(), some_approval(), some_approval()];
    assert_eq!(used(store, &org, &open).await, Consume::Missing);
    for approval in [&open, &denied, &approved] {
        inserted(store, &org, approval).await;
    }
    assert_eq!(used(store, &org, &open).await, Consume::NotApproved);
    let (no, yes) = (some_decision(false), some_decision(true));
    assert_eq!(decided(store, &org, &denied, &no, now()).await, Decide::Decided);
    assert_eq!(decided(store, &org, &approved, &yes, now()).await, Decide::Decided);
    let (denied, approved) = (denied.with_decision(no), approved.with_decision(yes));
    assert_eq!(used(store, &org, &denied).await, Consume::NotApproved);
    assert_eq!(used(store, &some_org(), &approved).await, Consume::Missing);
    assert_eq!(used(store, &org, &approved).await, Consume::Consumed);
    assert_eq!(used(store, &org, &approved).await, Consume::AlreadyConsumed);
    assert_eq!(found(store, &org, &approved).await, Some(approved.with_consumption(now())));
    // It stays decided.
    assert_eq!(decided(store, &org, &approved, &some_decision(false), now()).await, Decide::AlreadyDecided);
}

/// "Of any number of calls at once exactly one is [`Consume::Consumed`]."
pub async fn racing_uses(store: &dyn ApprovalStore) {
    let org = some_org();
    let approval = some_approval();
    inserted(store, &org, &approval).await;
    let yes = some_decision(true);
    assert_eq!(decided(store, &org, &approval, &yes, now()).await, Decide::Decided);
    let approval = approval.with_decision(yes);
    let outcomes = race(RACERS, async |_| used(store, &org, &approval).await).await;
    assert_eq!(count(&outcomes, &Consume::Consumed), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Consume::AlreadyConsumed), RACERS - 1, "{outcomes:?}");
}

/// "Up to `max` approvals that have expired at `now` without a decision, and whose end nobody told yet"; "of any number of
/// calls at once exactly one tells it".
pub async fn ends_are_told_once(store: &dyn ApprovalStore) {
    let org = some_org();
    let [one, other, answered, later] = [some_approval(), some_approval(), some_approval(), some_approval()];
    let later = Approval { expires_at: later.expires_at.plus(MOMENT), ..later };
    let end = one.expires_at;
    let ended = async |org: &OrgId, at, max| {
        let found = store.ended(org, at, max).await.unwrap();
        let mut tokens: Vec<_> = found.iter().map(|approval| approval.token.clone()).collect();
        tokens.sort();
        tokens
    };
    let told = async |org: &OrgId, approval: &Approval, at| {
        store.lapse(org, approval, at, &some_event()).await.unwrap()
    };
    assert!(!told(&org, &one, end).await);
    for approval in [&one, &other, &answered, &later] {
        inserted(store, &org, approval).await;
    }
    assert_eq!(decided(store, &org, &answered, &some_decision(true), now()).await, Decide::Decided);
    let mut both = vec![one.token.clone(), other.token.clone()];
    both.sort();

    assert_eq!(ended(&org, end.minus(MOMENT), 9).await, []);
    assert!(!told(&org, &one, end.minus(MOMENT)).await);
    assert_eq!(ended(&org, end, 9).await, both);
    assert_eq!(ended(&org, end, 1).await.len(), 1);
    assert_eq!(ended(&some_org(), end, 9).await, []);
    for not_ended in [&answered, &later] {
        assert!(!told(&org, not_ended, end).await);
    }
    assert!(!told(&some_org(), &one, end).await);

    let outcomes = race(RACERS, async |_| told(&org, &one, end).await).await;
    assert_eq!(count(&outcomes, &true), 1, "{outcomes:?}");
    assert_eq!(ended(&org, end, 9).await, std::slice::from_ref(&other.token));
    assert_eq!(found(store, &org, &one).await.as_ref(), Some(&one));
    for at in [end, end.minus(MOMENT)] {
        // What was told stays, whatever another clock says.
        assert_eq!(decided(store, &org, &one, &some_decision(true), at).await, Decide::Expired);
    }
    assert!(told(&org, &other, end).await);
    assert!(told(&org, &later, later.expires_at).await);
    assert_eq!(ended(&org, later.expires_at, 9).await, []);
}

/// "The approvals that are pending at `now`: of `user`, or all of the organization, those without a user too. Those first
/// that expire first; of the same instant, in ascending order of token."
pub async fn pending(store: &dyn ApprovalStore) {
    let org = some_org();
    let (user, other) = (UserId::generate(), UserId::generate());
    let token = |mark: &str| ApprovalToken::parse(&format!("apr_{mark}{}", "a".repeat(42))).unwrap();
    // Of one instant, in the order of bytes, which not every collation agrees with.
    let marks = ["-", "0", "A", "Z", "_", "a", "z"];
    let then = now().plus(Duration::from_secs(60));
    let at_once: [Approval; 7] = array::from_fn(|n| Approval {
        token: token(marks[n]),
        on_behalf_of: [Some(user), Some(other), None][n % 3],
        expires_at: then,
        ..some_approval()
    });
    let sooner = Approval { on_behalf_of: Some(user), expires_at: then.minus(MOMENT), ..some_approval() };
    let later = Approval { on_behalf_of: Some(user), expires_at: then.plus(MOMENT), ..some_approval() };
    let ended = Approval { on_behalf_of: Some(user), expires_at: now(), ..some_approval() };
    let [approved, denied] = [some_approval(), some_approval()].map(|approval| Approval {
        on_behalf_of: Some(user),
        expires_at: then,
        ..approval
    });
    for approval in [&later, &ended, &approved, &denied, &sooner] {
        inserted(store, &org, approval).await;
    }
    for n in [3, 5, 0, 6, 1, 4, 2] {
        inserted(store, &org, &at_once[n]).await;
    }
    for (approval, yes) in [(&approved, true), (&denied, false)] {
        assert_eq!(decided(store, &org, approval, &some_decision(yes), now()).await, Decide::Decided);
    }
    let all: Vec<_> = [sooner.clone()].into_iter().chain(at_once.clone()).chain([later.clone()]).collect();
    let of = |user: Option<UserId>| -> Vec<_> {
        all.iter().filter(|approval| user.is_none() || approval.on_behalf_of == user).cloned().collect()
    };

    for who in [None, Some(user), Some(other), Some(UserId::generate())] {
        let wanted = of(who);
        for page in [
            ALL,
            Page { offset: 1, limit: 3 },
            Page { offset: 8, limit: 2 },
            Page { offset: u64::MAX, limit: 2 },
            Page::first(0),
        ] {
            let listing = store.pending(&org, who, now(), page).await.unwrap();
            let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
            let expected: Vec<_> = wanted.iter().skip(skip).take(page.limit as usize).collect();
            let items: Vec<_> = listing.items.iter().map(|item| &**item).collect();
            assert_eq!((items, listing.total), (expected, wanted.len() as u64), "{page:?}");
        }
    }
    // Time alone takes them off.
    for (at, total) in [(then.minus(MOMENT), 8), (then, 1), (then.plus(MOMENT), 0)] {
        assert_eq!(store.pending(&org, None, at, ALL).await.unwrap().total, total);
    }
}
