//! What survives, and which files are refused.

mod scratch;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use embedded_store::{EmbeddedStore, OpenError};
use lumoauth_core::{
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent},
    api_key::ApiKey,
    approval::Approval,
    audit::{Actor, Event, EventKind},
    budget::{HoldState, Standing, Usage, account_lines},
    client::Client,
    clock::Timestamp,
    consent::Consent,
    id::{AAuthIdentifier, AgentId, EventId, OrgId, Slug, UserId},
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    secret::Secret,
    store::{
        AAuthResourceKey, AAuthResourceStore, AgentKey, AgentStore, ApiKeyKey, ApiKeyStore, ApprovalStore,
        AuditFilter, AuditKey, AuditStore, BudgetStore, Charge, ChargeId, Charged, ClientKey, ClientStore,
        ConsentKey, ConsentStore, FoundTicket, GrantStore, Handle, HoldId, Insert, McpServerKey,
        McpServerStore, NewApproval, NewHold, OrganizationStore, Outbox, Page, RefreshToken, Remembered,
        ReplayStore, Revoked, Ticket, TicketPurpose, TicketUse, UseEvents, UserKey, UserStore,
    },
    user::User,
};
use redb::{Database, ReadableTable, TableDefinition};
use scratch::Scratch;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

fn org() -> OrgId {
    OrgId::parse("acme").expect("a slug")
}

fn event() -> Event {
    Event::new(EventKind::AgentCreated, Actor::system(), "made", NOW)
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (file, org) = (Scratch::new(), org());
    let organization = Organization::new(org.clone(), "Acme", NOW);
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    let secret = agent.rotate_api_key(&org);
    agent.budget.max_api_calls_per_hour = Some(10);
    let (key, _) = ApiKey::new(&org, "script", Vec::new(), NOW);
    let (client, _) = Client::new("App", NOW);
    let user = User::new("alice@acme.test", NOW);
    let name = |text| AAuthIdentifier::parse(text).unwrap();
    agent.aauth = Some(Box::new(AAuthIdentity::new(name("https://bot.acme.test"))));
    let resource = AAuthResource::new("Files", name("https://files.acme.test"), NOW);
    let server = McpServer::new("Files", ResourceUri::parse("https://mcp.acme.test/").unwrap(), NOW);
    let handle = Handle::from_bytes([7; 12]);
    let consent = Consent::new(user.id, client.client_id.clone(), "read:a".parse().unwrap(), NOW);
    let soon = NOW.plus(Duration::from_secs(60));
    let code = Ticket {
        purpose: TicketPurpose::AuthorizationCode,
        hash: Secret::generate("").hash(),
        body: "a code".to_owned(),
        expires_at: soon,
        keep_until: soon,
        family: Some(handle),
    };
    let token = RefreshToken {
        hash: Secret::generate("").hash(),
        family: handle,
        body: "what was granted".to_owned(),
        expires_at: soon,
    };
    let lines = account_lines(agent.account(), &agent.budget, &Usage::ONE_CALL, Standing::MustFit, NOW);

    let store = EmbeddedStore::open(file.path()).unwrap();
    assert_eq!(OrganizationStore::insert(&store, &organization, &event()).await.unwrap(), Insert::Inserted);
    assert_eq!(AgentStore::insert(&store, &org, &agent, &event()).await.unwrap(), Insert::Inserted);
    assert_eq!(ApiKeyStore::insert(&store, &org, &key, &event()).await.unwrap(), Insert::Inserted);
    assert_eq!(ClientStore::insert(&store, &org, &client, &event()).await.unwrap(), Insert::Inserted);
    assert_eq!(UserStore::insert(&store, &org, &user, &event()).await.unwrap(), Insert::Inserted);
    let added = AAuthResourceStore::insert(&store, &org, &resource, &event()).await.unwrap();
    assert_eq!(added, Insert::Inserted);
    assert_eq!(McpServerStore::insert(&store, &org, &server, &event()).await.unwrap(), Insert::Inserted);
    assert_eq!(ConsentStore::insert(&store, &org, &consent, &event()).await.unwrap(), Insert::Inserted);
    let approval = Approval::new(agent.id, agent.client_id.clone(), NOW, soon);
    assert_eq!(
        ApprovalStore::insert(&store, &org, &approval, &event()).await.unwrap(),
        NewApproval::Inserted
    );
    store.put_ticket(&org, &code).await.unwrap();
    let on = UseEvents { used: &event(), reused: &event() };
    let used = store.use_ticket(&org, code.purpose, &code.hash, Some(&token), NOW, on).await.unwrap();
    assert_eq!(used, TicketUse::Used);
    let last = event();
    assert_eq!(store.revoke(&org, handle, NOW, &last).await.unwrap(), Revoked::Revoked);
    assert_eq!(store.charge(&org, &Charge::once(&lines), NOW).await.unwrap(), Charged::Charged(vec![1]));
    let held = account_lines(agent.account(), &agent.budget, &Usage::ONE_CALL, Standing::Hold, NOW);
    for (key, parked, used) in [("held", false, 2), ("parked", true, 3)] {
        let id = ChargeId { actor: agent.id, key, request_hash: [7; 32], keep_until: soon };
        let hold = NewHold { parked, ends: soon, note: key };
        let charged = store.charge(&org, &Charge::held(id, &held, hold), NOW).await.unwrap();
        assert_eq!(charged, Charged::Charged(vec![0, used, 0]));
    }
    drop(store);

    let store = EmbeddedStore::open(file.path()).unwrap();
    assert_eq!(*OrganizationStore::find(&store, &org).await.unwrap().unwrap(), organization);
    for by in [
        AgentKey::Id(agent.id),
        AgentKey::Slug(&agent.slug),
        AgentKey::ClientId(&agent.client_id),
        AgentKey::ApiKey(&secret.hash()),
        AgentKey::AAuthIdentifier(&name("https://bot.acme.test")),
    ] {
        assert_eq!(*AgentStore::find(&store, &org, by).await.unwrap().unwrap(), agent);
    }
    assert_eq!(*ApiKeyStore::find(&store, &org, ApiKeyKey::Hash(&key.hash)).await.unwrap().unwrap(), key);
    let by = ClientKey::ClientId(&client.client_id);
    assert_eq!(*ClientStore::find(&store, &org, by).await.unwrap().unwrap(), client);
    assert_eq!(*UserStore::find(&store, &org, UserKey::Email(&user.email)).await.unwrap().unwrap(), user);
    let by = AAuthResourceKey::Identifier(&resource.identifier);
    assert_eq!(*AAuthResourceStore::find(&store, &org, by).await.unwrap().unwrap(), resource);
    let by = McpServerKey::Target(server.resource_uri.normalized());
    assert_eq!(*McpServerStore::find(&store, &org, by).await.unwrap().unwrap(), server);
    let by = ConsentKey::Between(user.id, &client.client_id);
    assert_eq!(*ConsentStore::find(&store, &org, by).await.unwrap().unwrap(), consent);
    let found = store.find_ticket(&org, code.purpose, &code.hash, NOW).await.unwrap();
    assert_eq!(found, Some(FoundTicket { ticket: code, used: true }));
    let found = store.find_refresh(&org, &token.hash, NOW).await.unwrap();
    assert_eq!(found.map(|found| found.token), Some(token));
    assert!(store.any_revoked(&org, &[handle]).await.unwrap());
    let used = store.usage(&org, agent.account(), NOW).await.unwrap();
    assert_eq!(used, Usage { calls: 3, ..Usage::default() });
    assert_eq!(store.live_holds(&org, agent.id, NOW, 9).await.unwrap().len(), 2);
    for (key, state) in [("held", HoldState::Held), ("parked", HoldState::Parked)] {
        let hold = store.hold(&org, HoldId { actor: agent.id, key }, NOW).await.unwrap().unwrap();
        assert_eq!((hold.state, &*hold.note), (state, key));
    }
    let overdue = store.overdue(soon, 9).await.unwrap();
    assert_eq!(overdue.len(), 1, "the list of what waits is there");
    assert_eq!(*ApprovalStore::find(&store, &org, &approval.token).await.unwrap().unwrap(), approval);
    let pending = ApprovalStore::pending(&store, &org, None, NOW, Page::first(9)).await.unwrap();
    assert_eq!(pending.items, [Arc::new(approval)]);
    let entry = AuditStore::find(&store, &org, AuditKey::Event(last.id)).await.unwrap().unwrap();
    assert_eq!((entry.seq, entry.event), (11, last));

    store.append(&org, &[event()]).await.unwrap();
    let page = store.page(&org, &AuditFilter::default(), Page::first(1)).await.unwrap();
    assert_eq!((page.total, page.items[0].seq), (12, 12));
}

#[test]
fn a_file_in_use_is_refused_until_it_is_closed() {
    let file = Scratch::new();
    let store = EmbeddedStore::open(file.path()).unwrap();
    let refused = EmbeddedStore::open(file.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().ends_with("is in use by another process"), "{refused}");
    drop(store);
    EmbeddedStore::open(file.path()).unwrap();
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    for content in ["x".to_owned(), "not a store\n".repeat(10_000)] {
        let file = Scratch::new();
        fs::write(file.path(), &content).unwrap();
        let refused = EmbeddedStore::open(file.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), content);
    }

    const OTHER: TableDefinition<&str, u64> = TableDefinition::new("other");
    const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
    for table in [OTHER, META] {
        let file = Scratch::new();
        let database = Database::create(file.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert("x", 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let refused = EmbeddedStore::open(file.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let file = Scratch::new();
    drop(EmbeddedStore::open(file.path()).unwrap());
    let whole = fs::read(file.path()).unwrap();

    fs::write(file.path(), &whole[..whole.len() / 4]).unwrap();
    let cut = EmbeddedStore::open(file.path()).unwrap_err();
    assert!(matches!(cut, OpenError::Damaged { .. } | OpenError::Io { .. }), "{cut:?}");

    let mut smeared = whole.clone();
    smeared[64..320].fill(0xab);
    fs::write(file.path(), &smeared).unwrap();
    let smeared = EmbeddedStore::open(file.path()).unwrap_err();
    assert!(matches!(smeared, OpenError::Damaged { .. }), "{smeared:?}");
}

#[test]
fn a_newer_schema_is_refused() {
    let file = Scratch::new();
    drop(EmbeddedStore::open(file.path()).unwrap());
    let database = Database::create(file.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = TableDefinition::<&[u8], &[u8]>::new("meta");
    transaction.open_table(meta).unwrap().insert(&b"schema"[..], &99_u64.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = EmbeddedStore::open(file.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused:?}");
}

#[tokio::test]
async fn a_file_of_an_older_schema_gets_what_it_lacks() {
    let (file, org, at) = (Scratch::new(), org(), NOW);
    let store = EmbeddedStore::open(file.path()).unwrap();
    store.append(&org, &[event(), event(), event()]).await.unwrap();
    let head = AuditStore::head(&store, &org).await.unwrap();
    let entries = store.raw(&org, 0, 9).await.unwrap();
    drop(store);
    let database = Database::create(file.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = |name| TableDefinition::<&[u8], &[u8]>::new(name);
    for missing in [
        "replay_marks",
        "agent_workloads",
        "agent_aauth_identifiers",
        "aauth_resources",
        "aauth_resource_numbers",
        "aauth_resource_identifiers",
        "consents",
        "consent_pairs",
        "tickets",
        "refresh_tokens",
        "approvals",
        "pending_approvals",
        "jit_tasks",
        "jit_requests",
        "jit_loads",
        "pending_jit",
        "due_callbacks",
        "live_holds",
        "parked_holds",
        "policy_heads",
        "policies",
        "policy_revisions",
        "audit_heads",
        "audit_blocks",
        "audit_checkpoints",
    ] {
        assert!(transaction.delete_table(table(missing)).unwrap(), "{missing}");
    }
    // The entries of the log without their hashes.
    let mut log = transaction.open_table(table("audit_log")).unwrap();
    let rows: Vec<_> = log.iter().unwrap().map(Result::unwrap).collect();
    let rows = rows.into_iter().map(|(key, row)| (key.value().to_vec(), row.value()[32..].to_vec()));
    for (key, event) in rows.collect::<Vec<_>>() {
        log.insert(key.as_slice(), event.as_slice()).unwrap();
    }
    drop(log);
    transaction.open_table(table("meta")).unwrap().insert(&b"schema"[..], &1_u64.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);

    for outcome in [Remembered::First, Remembered::Replay] {
        let store = EmbeddedStore::open(file.path()).unwrap();
        let until = at.plus(Duration::from_secs(1));
        assert_eq!(store.remember(&org, "test", &[7; 32], at, until, at).await.unwrap(), outcome);
        let hash = Secret::generate("").hash();
        assert_eq!(store.find_refresh(&org, &hash, at).await.unwrap(), None);
        assert_eq!(AAuthResourceStore::list(&store, &org, Page::first(9)).await.unwrap().total, 0);
        let name = AAuthIdentifier::parse("https://bot.acme.test").unwrap();
        let by = AgentKey::AAuthIdentifier(&name);
        assert_eq!(AgentStore::find(&store, &org, by).await.unwrap(), None);
        let user = UserId::generate();
        assert_eq!(ConsentStore::list(&store, &org, user, Page::first(9)).await.unwrap().total, 0);
        let pending = ApprovalStore::pending(&store, &org, None, at, Page::first(9)).await.unwrap();
        assert_eq!(pending.total, 0);
        assert_eq!(store.live_holds(&org, AgentId::generate(), at, 9).await.unwrap(), []);
        assert!(store.overdue(at, 9).await.unwrap().is_empty());
        assert_eq!(AuditStore::head(&store, &org).await.unwrap(), head);
        assert_eq!(store.raw(&org, 0, 9).await.unwrap(), entries);
    }
}

#[tokio::test]
async fn a_file_with_waiting_events_is_not_opened_with_a_log_of_its_own() {
    let (file, org, event) = (Scratch::new(), org(), event());
    let store = EmbeddedStore::open_with_outbox(file.path()).unwrap();
    store.append(&org, std::slice::from_ref(&event)).await.unwrap_err();
    let organization = Organization::new(org.clone(), "Acme", event.at);
    assert_eq!(OrganizationStore::insert(&store, &organization, &event).await.unwrap(), Insert::Inserted);
    drop(store);

    let refused = EmbeddedStore::open(file.path()).unwrap_err();
    assert!(matches!(refused, OpenError::EventsWait { events: 1, .. }), "{refused:?}");

    let store = EmbeddedStore::open_with_outbox(file.path()).unwrap();
    assert_eq!(Outbox::pending(&store, 9).await.unwrap(), [(org.clone(), event.clone())]);
    store.done(&[(org, event.id)]).await.unwrap();
    drop(store);
    EmbeddedStore::open(file.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;

    let file = Scratch::new();
    let _store = EmbeddedStore::open(file.path()).unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_call_is_carried_out_although_its_caller_has_gone() {
    let (file, org, event) = (Scratch::new(), org(), event());
    let store = EmbeddedStore::open(file.path()).unwrap();
    {
        let events = [event.clone()];
        let mut call = pin!(store.append(&org, &events));
        let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(store);
    let store = EmbeddedStore::open(file.path()).unwrap();
    assert!(AuditStore::find(&store, &org, AuditKey::Event(event.id)).await.unwrap().is_some());
}

const CHILD_FILE: &str = "EMBEDDED_STORE_CHILD_FILE";

/// The process that the next test kills: says which events were acknowledged. By itself it only checks that nobody asked
/// for that.
#[tokio::test(flavor = "multi_thread")]
async fn appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_FILE) else { return };
    let store = EmbeddedStore::open(Path::new(&path)).unwrap();
    let (store, org) = (&store, &org());
    let append = async |()| {
        loop {
            let event = event();
            store.append(org, std::slice::from_ref(&event)).await.unwrap();
            writeln!(std::io::stdout(), "acknowledged {}", event.id).unwrap();
        }
    };
    tokio::join!(append(()), append(()), append(()), append(()));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (file, org) = (Scratch::new(), org());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["appends_until_it_is_killed", "--exact", "--nocapture"])
        .env(CHILD_FILE, file.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let event_of = |line: String| EventId::parse(line.strip_prefix("acknowledged ")?).ok();
    let mut acknowledged: Vec<EventId> = lines.by_ref().filter_map(event_of).take(300).collect();
    assert!(matches!(EmbeddedStore::open(file.path()), Err(OpenError::InUse { .. })));
    drop(child);
    acknowledged.extend(lines.filter_map(event_of));

    let store = EmbeddedStore::open(file.path()).unwrap();
    for id in &acknowledged {
        assert!(AuditStore::find(&store, &org, AuditKey::Event(*id)).await.unwrap().is_some(), "{id}");
    }
    let page = store.page(&org, &AuditFilter::default(), Page::first(u32::MAX)).await.unwrap();
    let numbers: Vec<u64> = page.items.iter().rev().map(|entry| entry.seq).collect();
    assert_eq!(numbers, (1..=page.total).collect::<Vec<_>>());
    assert!(page.total >= acknowledged.len() as u64);
}
