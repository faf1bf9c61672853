//! What is taken away or denied, while many ask and others write: gone at once for whoever wrote it, and for whoever asks
//! after it was written, through any server.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use lumoauth_core::{
    agent::Agent,
    authz::{Authorizer, BuiltIn},
    capability::{Capability, evaluate},
    id::{Label, OrgId, Slug},
    policy::{
        Assignment, DecidedBy, Effect, Entity, Entry, Environment, Grant, Holder, Party, Permission, Policy,
        Question, RecordId, Role, Tuple, Verdict, Who,
    },
    store::{
        Apply, AuditStore, Expect, PolicyChange, PolicyStore,
        conformance::{now, some_event, some_org},
    },
};
use serde_json::Map;

use super::{CALLERS, Two, assert_logged, race, rounds};

/// An organization whose every agent may read documents in a way of its own, which one change ends.
struct Readers {
    org: OrgId,
    action: Capability,
    agents: Vec<Agent>,
    /// What is there before, all but what concerns all.
    entries: Vec<Entry>,
    /// Whose right was ended, as the writer was told.
    ended: Vec<AtomicBool>,
    /// How many writers are at work.
    writing: AtomicUsize,
}

/// A writer at work; it leaves also when it fails.
struct Writing<'a>(&'a AtomicUsize);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Takes a role away.
    Role,
    /// Removes a relation.
    Relation,
    /// Denies what a role still permits.
    Denial,
    /// Asks about all agents until nobody writes any more.
    Asking,
}

impl Part {
    /// Each is done through each of two stores.
    fn of(caller: usize) -> Self {
        [Self::Role, Self::Relation, Self::Denial, Self::Asking][caller / 2 % 4]
    }

    fn decided_by(self, ended: bool) -> DecidedBy {
        match (self, ended) {
            (Self::Denial, true) => DecidedBy::Abac,
            (_, true) => DecidedBy::Default,
            (Self::Relation, false) => DecidedBy::Relation,
            (_, false) => DecidedBy::Role,
        }
    }
}

fn document() -> (Entity, Label) {
    (Entity::parse("document:1").unwrap(), Label::parse("viewer").unwrap())
}

impl Readers {
    async fn new(store: &impl PolicyStore) -> Self {
        let action = Capability::parse("document.read").unwrap();
        let mut role = Role::new(Label::parse("reader").unwrap(), "Reader", now());
        role.permissions.insert(action.clone());
        let reader = Grant::Role(role.number);
        let (mut agents, mut entries) = (Vec::new(), Vec::new());
        for caller in 0..CALLERS {
            let agent = Agent::new("Raced", Slug::parse(&format!("raced-{caller}")).unwrap(), now());
            entries.push(if Part::of(caller) == Part::Relation {
                Entry::Tuple(Tuple::parse(&format!("document:1#viewer@agent:{}", agent.id)).unwrap())
            } else {
                Entry::Assignment(Assignment::new(Holder::Agent(agent.id), reader.clone(), now()))
            });
            agents.push(agent);
        }
        let common =
            [Entry::Permission(Permission::new(action.clone(), "Read", now())), Entry::Role(Arc::new(role))];
        let all = common.iter().chain(&entries);
        let changes: Vec<_> = all.map(|entry| PolicyChange::put(entry, Expect::Absent)).collect();
        let readers = Self {
            org: some_org(),
            action,
            agents,
            entries,
            ended: (0..CALLERS).map(|_| AtomicBool::new(false)).collect(),
            writing: AtomicUsize::new((0..CALLERS).filter(|n| Part::of(*n) != Part::Asking).count()),
        };
        readers.apply(store, &changes).await;
        readers
    }

    async fn apply(&self, store: &impl PolicyStore, changes: &[PolicyChange]) {
        let applied = store.apply(&self.org, changes, &some_event(), now()).await.unwrap();
        assert!(matches!(applied, Apply::Applied { .. }), "{applied:?}");
    }

    /// Ends the right of the caller's own agent.
    async fn end(&self, caller: usize, store: &impl PolicyStore) {
        let change = if Part::of(caller) == Part::Denial {
            let mut policy = Policy::new("Not this one", "document", "read", Effect::Deny, now());
            policy.agent_ids = vec![self.agents[caller].id];
            PolicyChange::put(&Entry::Policy(Arc::new(policy)), Expect::Absent)
        } else {
            let id: RecordId = self.entries[caller].id();
            PolicyChange::remove(id, Expect::Anything)
        };
        self.apply(store, &[change]).await;
    }

    async fn verdicts(&self, engine: &BuiltIn) -> Vec<Verdict> {
        let given = Map::new();
        let question = |agent| {
            let environment = Environment {
                given: &given,
                ip: None,
                user_agent: None,
                method: "POST",
                path: "/",
                now: now(),
            };
            let party = Party::new(Who::Agent(agent), evaluate(&[], None, &self.action));
            let mut question = Question::new(&self.action, vec![party], environment);
            question.relation = Some(document());
            question
        };
        let questions: Vec<_> = self.agents.iter().map(question).collect();
        engine.decide(&self.org, &questions).await.unwrap()
    }

    /// Everybody's rights, of which those in `ended` were over before the question.
    fn assert_decided(&self, verdicts: &[Verdict], ended: &[bool]) {
        assert_eq!(verdicts.len(), CALLERS);
        for (agent, (verdict, ended)) in verdicts.iter().zip(ended).enumerate() {
            let part = Part::of(agent);
            assert!(!(*ended && verdict.allowed), "{agent} {part:?}: {verdict:?}");
            assert_eq!(
                verdict.decided_by,
                part.decided_by(!verdict.allowed),
                "{agent} {part:?}: {verdict:?}"
            );
        }
    }

    fn ended(&self) -> Vec<bool> {
        self.ended.iter().map(|ended| ended.load(Ordering::SeqCst)).collect()
    }
}

/// 48 rights are ended at once, by a role less, a relation less or a policy that denies, while 16 ask about everybody
/// through two servers. Whoever was told that a right is over never sees it again, and nobody sees one come back.
pub(crate) async fn policy_ends<S: PolicyStore + AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let readers = Arc::new(Readers::new(&*stores[0]).await);
        let engines = stores.clone().map(|store| BuiltIn::new(store as Arc<dyn PolicyStore>));
        // Both have a snapshot before anything changes.
        for engine in &engines {
            let verdicts = readers.verdicts(engine).await;
            assert!(verdicts.iter().all(|verdict| verdict.allowed), "{verdicts:?}");
            readers.assert_decided(&verdicts, &[false; CALLERS]);
        }
        race(&stores, |caller, store| {
            let (readers, engine) = (readers.clone(), engines[caller % 2].clone());
            async move {
                if Part::of(caller) == Part::Asking {
                    let mut gone = vec![false; CALLERS];
                    while readers.writing.load(Ordering::SeqCst) > 0 {
                        let ended = readers.ended();
                        let verdicts = readers.verdicts(&engine).await;
                        readers.assert_decided(&verdicts, &ended);
                        // What this server once denied stays denied.
                        readers.assert_decided(&verdicts, &gone);
                        gone = verdicts.iter().map(|verdict| !verdict.allowed).collect();
                        tokio::task::yield_now().await;
                    }
                } else {
                    let _writing = Writing(&readers.writing);
                    readers.end(caller, &*store).await;
                    readers.ended[caller].store(true, Ordering::SeqCst);
                    let verdicts = readers.verdicts(&engine).await;
                    assert!(!verdicts[caller].allowed, "{:?}", verdicts[caller]);
                }
            }
        })
        .await;
        for engine in &engines {
            let verdicts = readers.verdicts(engine).await;
            readers.assert_decided(&verdicts, &readers.ended());
            let left = verdicts.iter().filter(|verdict| verdict.allowed).count();
            assert_eq!(left, (0..CALLERS).filter(|n| Part::of(*n) == Part::Asking).count());
        }
        assert_logged(&stores, &readers.org, 49).await;
    }
}
