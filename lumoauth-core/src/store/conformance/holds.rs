//! Cases of [`BudgetStore`]: holds, and what becomes of them.

use std::time::Duration;

use super::{RACERS, count, now, race, some_org};
use crate::{
    budget::{
        Account, BudgetPolicy, HeldLine, Hold, HoldState, Line, Resolution, Standing, Usage, account_lines,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, Charged, HoldId, NewHold, Resolved},
};

const KEY: &str = "Ünïcode 'n' \\ %_:*";

/// What the cases hold.
const HELD: Usage = Usage { tokens: 100, calls: 1, micro_usd: 5_000 };

/// An agent that makes holds.
struct Maker<'s> {
    store: &'s dyn BudgetStore,
    org: OrgId,
    agent: AgentId,
}

fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

/// Long after the lease, long before the id is forgotten.
const KEPT: u64 = 86_400;

impl<'s> Maker<'s> {
    fn new(store: &'s dyn BudgetStore) -> Self {
        Self { store, org: some_org(), agent: AgentId::generate() }
    }

    fn account(&self) -> Account {
        Account::agent(self.agent, 0)
    }

    fn id(&self) -> HoldId<'static> {
        HoldId { actor: self.agent, key: KEY }
    }

    fn lines_at(&self, max_calls: Option<u64>, usage: &Usage, at: Timestamp) -> Vec<Line> {
        let policy = BudgetPolicy { max_api_calls_per_hour: max_calls, ..BudgetPolicy::default() };
        account_lines(self.account(), &policy, usage, Standing::Hold, at)
    }

    fn lines(&self) -> Vec<Line> {
        self.lines_at(None, &HELD, now())
    }

    fn held(&self) -> Vec<HeldLine> {
        self.lines().iter().map(HeldLine::from).collect()
    }

    async fn make(&self, parked: bool, lines: &[Line]) -> Charged {
        let id = ChargeId { actor: self.agent, key: KEY, request_hash: [1; 32], keep_until: later(KEPT) };
        let hold = NewHold { parked, ends: later(60), note: "{\"ä\":\"'\"}" };
        self.store.charge(&self.org, &Charge::held(id, lines, hold), now()).await.unwrap()
    }

    async fn resolve(&self, resolution: Resolution, now: Timestamp) -> Resolved {
        self.store.resolve(&self.org, Some(self.id()), &self.held(), resolution, now).await.unwrap()
    }

    async fn usage(&self) -> Usage {
        self.store.usage(&self.org, self.account(), now()).await.unwrap()
    }

    async fn hold(&self, now: Timestamp) -> Option<Hold> {
        self.store.hold(&self.org, self.id(), now).await.unwrap()
    }

    async fn state(&self) -> HoldState {
        self.hold(now()).await.unwrap().state
    }
}

fn charged(usage: Usage) -> Charged {
    Charged::Charged(counters(usage))
}

fn counters(usage: Usage) -> Vec<u64> {
    vec![usage.tokens, usage.calls, usage.micro_usd]
}

fn done(usage: Usage) -> Resolved {
    Resolved::Done { counters: counters(usage), late: false }
}

const USED: Usage = Usage { tokens: 40, calls: 1, micro_usd: 1_234 };
const NOTHING: Usage = Usage { tokens: 0, calls: 0, micro_usd: 0 };

/// "The hold with this id, until the `keep_until` of its charge."
pub async fn holds_are_found(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.hold(now()).await, None);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    let hold = Hold::new(&maker.lines(), HoldState::Held, later(60), "{\"ä\":\"'\"}");
    assert_eq!(maker.hold(now()).await.as_ref(), Some(&hold));
    assert_eq!(maker.hold(later(KEPT - 1)).await, Some(hold));
    assert_eq!(maker.hold(later(KEPT)).await, None);
    assert_eq!(maker.make(false, &maker.lines()).await, Charged::Repeated);
    // A charge with an id that is not held is none.
    let id = ChargeId { actor: maker.agent, key: "plain", request_hash: [1; 32], keep_until: later(KEPT) };
    let lines = maker.lines();
    let charge = Charge::repeatable(id, &lines);
    assert!(matches!(store.charge(&maker.org, &charge, now()).await.unwrap(), Charged::Charged(_)));
    let id = HoldId { actor: maker.agent, key: "plain" };
    assert_eq!(store.hold(&maker.org, id, now()).await.unwrap(), None);
    // The longest note.
    let long = ChargeId { actor: maker.agent, key: "long", request_hash: [1; 32], keep_until: later(KEPT) };
    let note = "n".repeat(Hold::MAX_NOTE);
    let charge = Charge::held(long, &lines, NewHold { parked: false, ends: later(60), note: &note });
    assert!(matches!(store.charge(&maker.org, &charge, now()).await.unwrap(), Charged::Charged(_)));
    let found = store.hold(&maker.org, HoldId { actor: maker.agent, key: "long" }, now()).await.unwrap();
    assert_eq!(found.map(|hold| hold.note), Some(note));
    let resolved = store.resolve(&maker.org, Some(id), &maker.held(), Resolution::Release, now()).await;
    assert_eq!(resolved.unwrap(), Resolved::Unknown);
}

/// "What becomes of it is decided by `Hold::resolve`": the real amount replaces the one that was held.
pub async fn holds_are_settled(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    assert_eq!(maker.usage().await, HELD);
    assert_eq!(maker.resolve(Resolution::Settle(USED), later(59)).await, done(USED));
    assert_eq!(maker.usage().await, USED);
    assert_eq!(maker.state().await, HoldState::Settled(USED));
    for again in
        [Resolution::Settle(HELD), Resolution::Release, Resolution::Deny, Resolution::Unpark(later(99))]
    {
        assert_eq!(maker.resolve(again, later(59)).await, Resolved::Stays(HoldState::Settled(USED)));
    }
    assert_eq!(maker.usage().await, USED);
    assert_eq!(maker.make(false, &maker.lines()).await, Charged::Repeated, "the id is used up");
    assert_eq!(maker.usage().await, USED);
}

/// "Of any number of resolutions at once, one that ends the hold is `Done`."
pub async fn holds_end_once(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    let outcomes = race(RACERS, |n| {
        let resolution = if n % 2 == 0 { Resolution::Settle(USED) } else { Resolution::Release };
        maker.resolve(resolution, now())
    })
    .await;
    let used = if count(&outcomes, &done(USED)) == 1 { USED } else { NOTHING };
    assert_eq!(count(&outcomes, &done(used)), 1, "{outcomes:?}");
    let state = maker.state().await;
    assert_eq!(count(&outcomes, &Resolved::Stays(state)), RACERS - 1, "{outcomes:?}");
    assert_eq!(maker.usage().await, used);
}

/// "What becomes of it is decided by `Hold::resolve`": nothing was used, and there is room again.
pub async fn holds_are_released(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    let lines = maker.lines_at(Some(1), &HELD, now());
    assert_eq!(maker.make(false, &lines).await, charged(HELD));
    let once = Charge::once(&lines);
    let refused = store.charge(&maker.org, &once, now()).await.unwrap();
    assert_eq!(refused, Charged::Exceeded { line: 1, used: 1 });
    assert_eq!(maker.resolve(Resolution::Release, now()).await, done(NOTHING));
    assert_eq!(maker.state().await, HoldState::Released);
    assert_eq!(store.charge(&maker.org, &once, now()).await.unwrap(), charged(HELD));
}

/// "A fact, recorded also where it passes a limit." And the next charge is then refused.
pub async fn settling_overshoots(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    let lines = maker.lines_at(Some(1), &HELD, now());
    assert_eq!(maker.make(false, &lines).await, charged(HELD));
    let much = Usage { tokens: 1 << 40, calls: 7, micro_usd: 0 };
    assert_eq!(maker.resolve(Resolution::Settle(much), now()).await, done(much));
    assert_eq!(maker.usage().await, much);
    let refused = store.charge(&maker.org, &Charge::once(&lines), now()).await.unwrap();
    assert_eq!(refused, Charged::Exceeded { line: 1, used: 7 });
}

/// "Also after the lease has ended": until then the amount counts as used.
pub async fn late_holds(store: &dyn BudgetStore) {
    for (resolution, used) in [(Resolution::Settle(USED), USED), (Resolution::Release, NOTHING)] {
        let maker = Maker::new(store);
        assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
        assert_eq!(maker.usage().await, HELD);
        let resolved = maker.resolve(resolution, later(60)).await;
        assert_eq!(resolved, Resolved::Done { counters: counters(used), late: true });
        assert_eq!(maker.usage().await, used);
    }
}

/// "From the `keep_until` of its charge on, a hold is `Unknown`."
pub async fn holds_are_forgotten(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.resolve(Resolution::Release, now()).await, Resolved::Unknown);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    assert_eq!(maker.resolve(Resolution::Settle(USED), later(KEPT)).await, Resolved::Unknown);
    assert_eq!(maker.usage().await, HELD);
    let settled = maker.resolve(Resolution::Settle(USED), later(KEPT - 1)).await;
    assert_eq!(settled, Resolved::Done { counters: counters(USED), late: true });
}

/// "Unless it is parked": until it was freed, its id is no new one, and it can be freed.
pub async fn parked_ids_do_not_end(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    let lines = maker.lines();
    let end = later(KEPT);
    let next = ChargeId { actor: maker.agent, key: KEY, request_hash: [1; 32], keep_until: later(2 * KEPT) };
    let again = async || store.charge(&maker.org, &Charge::repeatable(next, &lines), end).await.unwrap();
    assert_eq!(again().await, Charged::Repeated);
    assert_eq!(maker.hold(end).await.map(|hold| hold.state), Some(HoldState::Parked));
    let live = store.live_holds(&maker.org, maker.agent, end, 9).await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(maker.resolve(Resolution::Expire, end).await, done(NOTHING));
    // Now it is like any other.
    assert_eq!(maker.hold(end).await, None);
    assert_eq!(maker.resolve(Resolution::Expire, end).await, Resolved::Unknown);
    assert!(matches!(again().await, Charged::Charged(_)));
}

/// "A human agreed: a parked hold is held from now on." Exactly once, and before that it cannot be settled.
pub async fn parked_holds(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    for early in [Resolution::Settle(USED), Resolution::Expire] {
        assert_eq!(maker.resolve(early, now()).await, Resolved::Stays(HoldState::Parked));
    }
    assert_eq!(maker.usage().await, HELD, "what is parked is held");
    let outcomes = race(RACERS, |n| {
        let resolution = if n % 2 == 0 { Resolution::Unpark(later(120)) } else { Resolution::Deny };
        maker.resolve(resolution, now())
    })
    .await;
    let state = maker.state().await;
    let used = if state == HoldState::Held { HELD } else { NOTHING };
    assert_eq!(count(&outcomes, &done(used)), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Resolved::Stays(state)), RACERS - 1, "{outcomes:?}");
    assert_eq!(maker.usage().await, used);

    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    assert_eq!(maker.resolve(Resolution::Unpark(later(120)), later(59)).await, done(HELD));
    let hold = maker.hold(now()).await.unwrap();
    assert_eq!((hold.state, hold.ends), (HoldState::Held, later(120)));
    assert_eq!(maker.resolve(Resolution::Settle(USED), later(119)).await, done(USED));

    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    assert_eq!(maker.resolve(Resolution::Deny, now()).await, done(NOTHING));
    assert_eq!(maker.usage().await, NOTHING);
    assert_eq!(maker.state().await, HoldState::Denied);

    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    assert_eq!(maker.resolve(Resolution::Release, now()).await, done(NOTHING));
    assert_eq!(maker.usage().await, NOTHING);
    assert_eq!(
        maker.resolve(Resolution::Unpark(later(99)), now()).await,
        Resolved::Stays(HoldState::Released)
    );
}

/// "Parked holds of all organizations whose wait is over": they are freed once, and cannot be agreed to any more.
pub async fn parked_holds_expire(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
    let held = Maker { agent: AgentId::generate(), org: maker.org.clone(), store };
    assert_eq!(held.make(false, &held.lines()).await, charged(HELD));
    let mine = async |at| {
        let overdue = store.overdue(at, 10_000).await.unwrap();
        assert!(overdue.is_sorted_by_key(|overdue| overdue.hold.ends));
        overdue.into_iter().filter(|overdue| overdue.org == maker.org).collect::<Vec<_>>()
    };
    assert_eq!(mine(later(59)).await, []);
    let overdue = mine(later(60)).await;
    let [only] = &*overdue else { panic!("{overdue:?}") };
    assert_eq!((only.actor, &*only.key), (maker.agent, KEY));
    assert_eq!(Some(&only.hold), maker.hold(now()).await.as_ref());
    assert!(store.overdue(later(60), 0).await.unwrap().is_empty());

    let unparked = maker.resolve(Resolution::Unpark(later(999)), later(60)).await;
    assert_eq!(unparked, Resolved::Stays(HoldState::Parked));
    let outcomes = race(RACERS, |_| maker.resolve(Resolution::Expire, later(60))).await;
    assert_eq!(count(&outcomes, &done(NOTHING)), 1, "{outcomes:?}");
    assert_eq!(maker.usage().await, NOTHING);
    assert_eq!(maker.state().await, HoldState::Expired);
    assert_eq!(mine(later(60)).await, []);

    // Whoever comes before that frees it just as well.
    for (resolution, state) in
        [(Resolution::Release, HoldState::Released), (Resolution::Deny, HoldState::Denied)]
    {
        let maker = Maker::new(store);
        assert_eq!(maker.make(true, &maker.lines()).await, charged(HELD));
        assert_eq!(maker.resolve(resolution, later(60)).await, done(NOTHING));
        assert_eq!((maker.state().await, maker.usage().await), (state, NOTHING));
    }
}

/// "The counters of the hold's own windows are corrected, also if those windows are over."
pub async fn holds_of_another_window(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    // An hour later there is another counter of calls.
    let lines = maker.lines_at(None, &Usage::ONE_CALL, later(3600));
    assert!(matches!(
        store.charge(&maker.org, &Charge::once(&lines), later(3600)).await.unwrap(),
        Charged::Charged(_)
    ));
    let settled = maker.resolve(Resolution::Settle(Usage { calls: 5, ..USED }), later(3600)).await;
    assert!(matches!(&settled, Resolved::Done { counters, late: true } if counters[1] == 5), "{settled:?}");
    assert_eq!(maker.usage().await.calls, 5);
    assert_eq!(store.usage(&maker.org, maker.account(), later(3600)).await.unwrap().calls, 1);
}

/// "Without an id nothing was stored": the caller's own charge is corrected.
pub async fn holds_without_id(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    let lines = maker.lines();
    let resolve = async |resolution| {
        store.resolve(&maker.org, None, &maker.held(), resolution, later(9999)).await.unwrap()
    };
    assert_eq!(store.charge(&maker.org, &Charge::once(&lines), now()).await.unwrap(), charged(HELD));
    for other in [Resolution::Unpark(later(99)), Resolution::Deny, Resolution::Expire] {
        assert_eq!(resolve(other).await, Resolved::Stays(HoldState::Held));
    }
    assert_eq!(resolve(Resolution::Settle(USED)).await, done(USED));
    assert_eq!(maker.usage().await, USED);
    assert!(matches!(
        store.charge(&maker.org, &Charge::once(&lines), now()).await.unwrap(),
        Charged::Charged(_)
    ));
    assert_eq!(resolve(Resolution::Release).await, done(USED));
    assert_eq!(maker.usage().await, USED);
}

/// "Ids are unique per agent", and so are holds: another agent, and another organization, has none of this id.
pub async fn holds_are_their_makers(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    let elsewhere = Maker { org: some_org(), agent: maker.agent, store };
    let other = Maker { org: maker.org.clone(), agent: AgentId::generate(), store };
    for stranger in [elsewhere, other] {
        assert_eq!(stranger.hold(now()).await, None);
        for resolution in [Resolution::Settle(USED), Resolution::Release] {
            let resolved = store
                .resolve(&stranger.org, Some(stranger.id()), &maker.held(), resolution, now())
                .await
                .unwrap();
            assert_eq!(resolved, Resolved::Unknown);
        }
        assert!(store.live_holds(&stranger.org, stranger.agent, now(), 9).await.unwrap().is_empty());
    }
    assert_eq!(maker.usage().await, HELD);
}

/// "Held and within their lease, or parked."
pub async fn live_holds(store: &dyn BudgetStore) {
    let maker = Maker::new(store);
    let live = async |at, max| store.live_holds(&maker.org, maker.agent, at, max).await.unwrap();
    assert_eq!(live(now(), 9).await, []);
    assert_eq!(maker.make(false, &maker.lines()).await, charged(HELD));
    let parked =
        ChargeId { actor: maker.agent, key: "parked", request_hash: [2; 32], keep_until: later(KEPT) };
    let lines = maker.lines();
    let hold = NewHold { parked: true, ends: later(60), note: "" };
    let charge = Charge::held(parked, &lines, hold);
    assert!(matches!(store.charge(&maker.org, &charge, now()).await.unwrap(), Charged::Charged(_)));
    let states = async |at| {
        let mut states: Vec<_> =
            live(at, 9).await.into_iter().map(|hold| format!("{:?}", hold.state)).collect();
        states.sort();
        states
    };
    assert_eq!(states(later(59)).await, ["Held", "Parked"]);
    assert_eq!(live(later(59), 1).await.len(), 1);
    // What is parked is held until somebody frees it; a lease ends by itself.
    assert_eq!(states(later(60)).await, ["Parked"]);
    assert!(matches!(maker.resolve(Resolution::Release, now()).await, Resolved::Done { .. }));
    assert_eq!(states(later(59)).await, ["Parked"]);
}
