//! An engine of a host's own; changes at the same time; what is left of those who are gone; and the bounds.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Map, json};

use super::{Caller, HEADROOM, MAX_BYTES, MAX_RECORDS, RoleRequest, Sizes};
use crate::{
    agent::Agent,
    audit::{Actor, Event, EventKind, Origin},
    authz::Authorizer,
    capability::{Capability, Decision, DenyReason},
    clock::Timestamp,
    id::{Label, OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    policy::{
        Assignment, AttributeOwner, AttributeValue, DecidedBy, Entry, Environment, Grant, Holder, Party,
        Question, Record, RecordId, RecordKind, Role, Snapshot, Tuple, Verdict, Who,
    },
    server::AuthorizationServer,
    store::{
        AgentStore, Apply, AuditFilter, Expect, Insert, MemoryStore, OrganizationStore, Page, PolicyChange,
        PolicyStore, Remove, Since, StoreError, Stores,
    },
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
    // Whoever is stopped is nobody, and nobody can do anything.
    let (action, given) = (Capability::parse("a:b").unwrap(), Map::new());
    let environment =
        Environment { given: &given, ip: None, user_agent: None, method: "", path: "", now: now() };
    let question = Question::new(&action, Vec::new(), environment);
    let verdicts = server(Host::Yes).verdicts(&acme(), &[question]).await.unwrap();
    assert!(!verdicts[0].allowed);
}

#[tokio::test]
async fn what_a_host_does_not_answer_is_denied_and_its_outage_is_one() {
    assert_eq!(asked(Host::Mute, "a:b", Decision::Allow).await, Ok((false, DecidedBy::Default)));
    assert_eq!(asked(Host::Down, "a:b", Decision::Allow).await, Err(503));
}

fn acme() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn caller() -> Caller {
    Caller::new(Actor::system(), Origin::default())
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

fn event() -> Event {
    Event::new(EventKind::RoleAssigned, Actor::system(), "test", now())
}

fn over(store: &Arc<MemoryStore>, policies: Arc<dyn PolicyStore>) -> AuthorizationServer {
    let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
    let mut stores = Stores::all(store.clone());
    stores.policies = policies;
    AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap()
}

/// A store where somebody else takes a permission off the list just before the next change is made.
#[derive(Debug)]
struct Overtaken {
    store: Arc<MemoryStore>,
    other: AuthorizationServer,
    permission: Mutex<Option<String>>,
}

#[async_trait]
impl PolicyStore for Overtaken {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        let permission = self.permission.lock().unwrap().take();
        if let Some(permission) = permission {
            self.other.delete_permission(org, &permission, &caller()).await.unwrap();
        }
        self.store.apply(org, changes, on, now).await
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.store.revision(org).await
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        PolicyStore::page(&*self.store, org, after, limit).await
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        self.store.since(org, revision, limit).await
    }
}

/// Whoever is given a permission while it is taken off the list has it listed again, or does not have it: nobody has what is
/// not listed, and gets it when somebody lists it later.
#[tokio::test]
async fn a_permission_that_is_taken_off_is_left_with_nobody() {
    let store = Arc::new(MemoryStore::new());
    let other = over(&store, store.clone());
    let overtaken = Arc::new(Overtaken { store: store.clone(), other, permission: Mutex::default() });
    let server = over(&store, overtaken.clone());
    let holder = Holder::Group(Label::parse("staff").unwrap());
    let mut request = RoleRequest::default();
    for (name, listed) in [("r1", "a.read"), ("r2", "b.read")] {
        request.name = Some(name.to_owned());
        request.permissions = Some(vec![json!(listed)]);
        server.create_role(&acme(), &request, &caller()).await.unwrap();
    }
    let overtake = || *overtaken.permission.lock().unwrap() = Some("a.read".to_owned());
    let is_listed = async || server.permission(&acme(), "a.read").await.is_ok();

    overtake();
    let role = server.add_role_permissions(&acme(), "r2", &[json!("a.read")], &caller()).await.unwrap();
    assert_eq!((role.role.permissions.len(), role.permissions.len()), (2, 2), "{role:?}");
    assert!(is_listed().await);

    overtake();
    server.grant_permissions(&acme(), &holder, &[json!("a.read")], &caller()).await.unwrap();
    assert_eq!(server.grants_of(&acme(), &holder).await.unwrap().1.len(), 1);

    overtake();
    request.name = Some("r3".to_owned());
    request.permissions = Some(vec![json!("a.read")]);
    let role = server.create_role(&acme(), &request, &caller()).await.unwrap();
    assert_eq!((role.role.permissions.len(), role.permissions.len()), (1, 1), "{role:?}");

    // What it was taken from does not have it again.
    assert!(server.role(&acme(), "r2").await.unwrap().role.permissions.len() == 1);
    assert!(server.grants_of(&acme(), &holder).await.unwrap().1.is_empty());
}

/// Writes what nobody sweeps: as a server does that stops in between.
async fn write(store: &MemoryStore, entries: &[Entry]) {
    let changes: Vec<_> = entries.iter().map(|entry| PolicyChange::put(entry, Expect::Absent)).collect();
    let applied = store.apply(&acme(), &changes, &event(), now()).await.unwrap();
    assert!(matches!(applied, Apply::Applied { .. }), "{applied:?}");
}

async fn some_agent(store: &MemoryStore, slug: &str) -> Agent {
    let agent = Agent::new(slug, Slug::parse(slug).unwrap(), now());
    assert_eq!(AgentStore::insert(store, &acme(), &agent, &event()).await.unwrap(), Insert::Inserted);
    agent
}

/// A role of an agent, a permission, a value, and relations from both ends.
fn things_of(agent: &Agent, role: &Role) -> Vec<Entry> {
    let assignment = |grant| Entry::Assignment(Assignment::new(Holder::Agent(agent.id), grant, now()));
    let owner = AttributeOwner::Agent(agent.id);
    vec![
        assignment(Grant::Role(role.number)),
        assignment(Grant::Permission(Capability::parse("a.read").unwrap())),
        Entry::Value(AttributeValue::new(owner, Label::parse("level").unwrap(), json!(1))),
        Entry::Tuple(Tuple::parse(&format!("document:1#viewer@agent:{}", agent.id)).unwrap()),
        Entry::Tuple(Tuple::parse(&format!("agent:{}#owner@user:a", agent.id)).unwrap()),
    ]
}

async fn records(store: &MemoryStore) -> usize {
    PolicyStore::page(store, &acme(), None, 10_000).await.unwrap().len()
}

#[tokio::test]
async fn nothing_is_left_of_who_is_gone() {
    let store = Arc::new(MemoryStore::new());
    let server = over(&store, store.clone());
    let organization = Organization::new(acme(), "Acme", now());
    assert_eq!(OrganizationStore::insert(&*store, &organization, &event()).await.unwrap(), Insert::Inserted);
    let role = Role::new(Label::parse("r").unwrap(), "R", now());
    let (kept, deleted, lost) = (
        some_agent(&store, "kept").await,
        some_agent(&store, "deleted").await,
        some_agent(&store, "lost").await,
    );
    write(&store, &[Entry::Role(Arc::new(role.clone()))]).await;
    for agent in [&kept, &deleted, &lost] {
        write(&store, &things_of(agent, &role)).await;
    }
    assert_eq!(records(&store).await, 16);

    // Swept at once, in the log by kind of record, and nothing of others.
    server.delete_agent(&acme(), "deleted", &caller()).await.unwrap();
    assert_eq!(records(&store).await, 11);
    server.maintain_once().await.unwrap();
    let filter = AuditFilter { target: Some(deleted.id.to_string()), ..AuditFilter::default() };
    let log = server.audit_log(&acme(), &filter, Page::first(10)).await.unwrap();
    assert_eq!(log.items.len(), 4, "deleted, and three kinds: {log:?}");

    // Whose removal nobody followed up is found by maintenance; only where the policy is in use.
    assert_eq!(
        AgentStore::remove(&*store, &acme(), lost.id, lost.version, &event()).await.unwrap(),
        Remove::Removed
    );
    server.maintain_once().await.unwrap();
    assert_eq!(records(&store).await, 6);
    let gone = Role::new(Label::parse("gone").unwrap(), "Gone", now());
    let many = (0..2500).map(|n| {
        let group = Holder::Group(Label::parse(&format!("g{n}")).unwrap());
        Entry::Assignment(Assignment::new(group, Grant::Role(gone.number), now()))
    });
    write(&store, &many.collect::<Vec<_>>()).await;
    server.roles_of(&acme(), &Holder::Agent(kept.id)).await.unwrap();
    for _ in 0..4 {
        server.maintain_once().await.unwrap();
    }
    assert_eq!(records(&store).await, 6);
    assert_eq!(server.roles_of(&acme(), &Holder::Agent(kept.id)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_role_takes_all_of_its_assignments_with_it() {
    let store = Arc::new(MemoryStore::new());
    let server = over(&store, store.clone());
    let role = Role::new(Label::parse("r").unwrap(), "R", now());
    write(&store, &[Entry::Role(Arc::new(role.clone()))]).await;
    let holders = (0..1200).map(|n| Holder::Group(Label::parse(&format!("g{n}")).unwrap()));
    let holders: Vec<_> = holders.collect();
    server.give_role(&acme(), "r", &holders, &caller()).await.unwrap();
    assert_eq!(records(&store).await, 1201);
    server.delete_role(&acme(), "r", &caller()).await.unwrap();
    assert_eq!(records(&store).await, 0);
}

/// Who has more than anybody may can have less, and permissions of groups count for nobody else.
#[tokio::test]
async fn bounds_do_not_refuse_what_takes_away() {
    let store = Arc::new(MemoryStore::new());
    let server = over(&store, store.clone());
    let roles: Vec<_> =
        (0..1001).map(|n| Role::new(Label::parse(&format!("r{n}")).unwrap(), "R", now())).collect();
    let holder = Holder::Group(Label::parse("staff").unwrap());
    let entries = roles.iter().flat_map(|role| {
        let assignment = Assignment::new(holder.clone(), Grant::Role(role.number), now());
        [Entry::Role(Arc::new(role.clone())), Entry::Assignment(assignment)]
    });
    write(&store, &entries.skip(1).collect::<Vec<_>>()).await;
    write(&store, &[Entry::Role(Arc::new(roles[0].clone()))]).await;
    let assign = async |names: &[&str], only| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        server.assign_roles(&acme(), &holder, &names, only, &caller()).await
    };
    let count = async || server.roles_of(&acme(), &holder).await.unwrap().len();
    assert_eq!(count().await, 1001);
    assign(&["r0"], false).await.unwrap();
    let spare = Role::new(Label::parse("spare").unwrap(), "S", now());
    write(&store, &[Entry::Role(Arc::new(spare))]).await;
    assign(&["spare"], false).await.unwrap_err();
    assign(&["spare"], true).await.unwrap();
    assert_eq!(count().await, 1);
    assign(&[], true).await.unwrap();
    assert_eq!(count().await, 0);

    // A member of a group with as many permissions as there may be is given one of its own.
    let agent = some_agent(&store, "bot").await;
    let member = format!("group:staff#member@agent:{}", agent.id);
    write(&store, &[Entry::Tuple(Tuple::parse(&member).unwrap())]).await;
    let all: Vec<_> = (0..1000).map(|n| json!(format!("p{n}.read"))).collect();
    server.grant_permissions(&acme(), &holder, &all, &caller()).await.unwrap();
    server.grant_permissions(&acme(), &holder, &all, &caller()).await.unwrap();
    server.grant_permissions(&acme(), &holder, &[json!("more.read")], &caller()).await.unwrap_err();
    let one = [json!("p0.read")];
    server.grant_permissions(&acme(), &Holder::Agent(agent.id), &one, &caller()).await.unwrap();
}

#[test]
fn what_is_full_can_be_narrowed_and_emptied() {
    let full = |bytes| (1, bytes);
    for (before, after, refused) in [
        ((1, 1000), (2, 2000), false),
        ((MAX_RECORDS - 1, 1000), (MAX_RECORDS, 1300), false),
        ((MAX_RECORDS, 1000), (MAX_RECORDS + 1, 1300), true),
        // One record for another, and less than before where there is more than there may be.
        ((MAX_RECORDS, 1000), (MAX_RECORDS, 1300), false),
        ((MAX_RECORDS + 9, 1000), (MAX_RECORDS + 8, 900), false),
        // No change jumps over the limit, however much room there was before it.
        ((1, 1000), (2, MAX_BYTES + 1), true),
        (full(1000), full(MAX_BYTES + HEADROOM + 1), true),
        // What is there may grow a little; what is new needs room.
        (full(MAX_BYTES), full(MAX_BYTES + 1), false),
        (full(MAX_BYTES), (2, MAX_BYTES + 1), true),
        (full(MAX_BYTES + HEADROOM), full(MAX_BYTES + HEADROOM + 1), true),
        (full(MAX_BYTES + HEADROOM + 9), full(MAX_BYTES + HEADROOM + 9), false),
        (full(MAX_BYTES + HEADROOM + 9), full(MAX_BYTES + HEADROOM + 8), false),
        // A large one makes room for a smaller one.
        (full(MAX_BYTES + 9), (2, MAX_BYTES + 8), false),
    ] {
        assert_eq!(Sizes { before, after }.are_too_much(), refused, "{before:?} {after:?}");
    }
}

#[test]
fn sizes_are_those_after_the_change() {
    let mut role = Role::new(Label::parse("r").unwrap(), "R", now());
    role.permissions = ["a.read", "b.read"].map(|slug| Capability::parse(slug).unwrap()).into();
    let tuple = Entry::Tuple(Tuple::parse("document:1#viewer@user:a").unwrap());
    let mut snapshot = Snapshot::default();
    for entry in [Entry::Role(Arc::new(role.clone())), tuple.clone()] {
        snapshot.apply(&Record::of(&entry, 1)).unwrap();
    }
    role.permissions.pop_last();
    let narrowed = Entry::Role(Arc::new(role.clone()));
    role.slug = Label::parse("s").unwrap();
    let another = Entry::Role(Arc::new(role));
    let changes = [
        PolicyChange::put(&narrowed, Expect::At(1)),
        PolicyChange::put(&another, Expect::Absent),
        PolicyChange::remove(tuple.id(), Expect::At(1)),
        PolicyChange::remove(RecordId::new(RecordKind::Tuple, "not there").unwrap(), Expect::Anything),
    ];
    for chosen in [&changes[..1], &changes[1..2], &changes[2..], &changes] {
        let sizes = Sizes::of(&snapshot, chosen);
        assert_eq!(sizes.before, (2, snapshot.bytes()));
        let mut after = Snapshot::default();
        for (id, entry) in snapshot.some_after(None, 9) {
            after.apply(&Record { id: id.clone(), revision: 1, body: Some(entry.body()) }).unwrap();
        }
        for change in chosen {
            let body = change.body.clone();
            after.apply(&Record { id: change.id.clone(), revision: 2, body }).unwrap();
        }
        assert_eq!(sizes.after, (after.len(), after.bytes()), "{chosen:?}");
    }
    let narrower = Sizes::of(&snapshot, &changes[..1]);
    assert!(narrower.after.1 < narrower.before.1);
}
