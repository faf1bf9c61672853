//! What all recorded roles have in common: a change and its event are one.

use std::time::Duration;

use super::{
    ALL, RACERS,
    aauth_resources::identifier,
    agents::some_identity,
    approvals::{some_approval, some_decision},
    audit,
    grants::{next_of, some_refresh, some_ticket},
    jit::{some_closing, some_request, some_ruling, some_task},
    now,
    policies::some_entry,
    race, some_event, some_org,
};
use crate::{
    aauth_resource::AAuthResource,
    agent::Agent,
    api_key::ApiKey,
    approval::{Approval, ApprovalToken},
    audit::Event,
    capability::Scope,
    client::Client,
    clock::Timestamp,
    consent::Consent,
    id::{ClientId, EventId, KeyId, OrgId, Slug, UserId},
    jit::{CloseTask, History, JitRequest, NewRequest, Rule, TaskOutcome},
    keys::{Algorithm, KeyPurpose},
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    random::random_bytes,
    store::{
        AAuthResourceStore, AgentStore, ApiKeyStore, Apply, ApprovalStore, AuditStore, ClientStore,
        ConsentStore, Consume, Decide, Expect, GrantStore, Handle, Insert, JitStore, KeyStore,
        McpServerStore, NewApproval, OrganizationStore, Outbox, PolicyChange, PolicyStore, ROTATION_GRACE,
        RefreshToken, Remove, RequestEvents, Revoked, Rotation, SealedKey, Ticket, TicketUse, Unique, Update,
        UseEvents, UserStore,
    },
    user::User,
};

/// A recorded role of the backend under test. Made with `From`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Recorded<'a> {
    /// AAuth resources.
    AAuthResources(&'a dyn AAuthResourceStore),
    /// Agents.
    Agents(&'a dyn AgentStore),
    /// Organization API keys.
    ApiKeys(&'a dyn ApiKeyStore),
    /// What agents ask people to allow.
    Approvals(&'a dyn ApprovalStore),
    /// Ordinary OAuth clients.
    Clients(&'a dyn ClientStore),
    /// What people allowed clients.
    Consents(&'a dyn ConsentStore),
    /// Tickets, refresh tokens and revocation marks.
    Grants(&'a dyn GrantStore),
    /// Tasks and what agents ask for in them.
    Jit(&'a dyn JitStore),
    /// Sealed signing keys.
    Keys(&'a dyn KeyStore),
    /// MCP servers.
    McpServers(&'a dyn McpServerStore),
    /// Organizations.
    Organizations(&'a dyn OrganizationStore),
    /// Roles, attribute policies and relations.
    Policies(&'a dyn PolicyStore),
    /// People.
    Users(&'a dyn UserStore),
}

macro_rules! from_ports {
    ($($port:ident => $role:ident,)*) => {
        $(impl<'a> From<&'a dyn $port> for Recorded<'a> {
            fn from(store: &'a dyn $port) -> Self {
                Self::$role(store)
            }
        })*
    };
}

from_ports! {
    AAuthResourceStore => AAuthResources,
    AgentStore => Agents,
    ApiKeyStore => ApiKeys,
    ApprovalStore => Approvals,
    ClientStore => Clients,
    ConsentStore => Consents,
    GrantStore => Grants,
    JitStore => Jit,
    KeyStore => Keys,
    McpServerStore => McpServers,
    OrganizationStore => Organizations,
    PolicyStore => Policies,
    UserStore => Users,
}

/// Where the events of a recorded role are found.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Trail<'a> {
    /// In the backend's own audit log.
    Log(&'a dyn AuditStore),
    /// In its outbox.
    Outbox(&'a dyn Outbox),
}

impl Trail<'_> {
    async fn events_of(self, org: &OrgId) -> Vec<EventId> {
        match self {
            Self::Log(store) => audit::log(store, org).await.iter().map(|entry| entry.event.id).collect(),
            Self::Outbox(store) => waiting(store, org).await.iter().map(|event| event.id).collect(),
        }
    }
}

/// What waits in the outbox for `org`, oldest first.
pub(super) async fn waiting(store: &dyn Outbox, org: &OrgId) -> Vec<Event> {
    let pending = store.pending(ALL.limit).await.unwrap();
    pending.into_iter().filter(|(of, _)| of == org).map(|(_, event)| event).collect()
}

/// "If the outcome says that nothing changed, no event is written." And if something changed, exactly its
/// event is.
pub async fn writes_its_events(role: Recorded<'_>, trail: Trail<'_>) {
    let org = some_org();
    assert!(trail.events_of(&org).await.is_empty());
    let written = role.act(&org).await;
    assert_eq!(trail.events_of(&org).await, written);
}

/// The events of one sequence of calls: those that must be found, in their order.
#[derive(Default)]
struct Script(Vec<EventId>);

impl Script {
    /// The event of a call that changes something.
    fn change(&mut self) -> Event {
        let event = some_event();
        self.0.push(event.id);
        event
    }

    /// Notes the event of the one call of a race that changed something.
    fn happened<T: PartialEq>(&mut self, events: &[Event], outcomes: &[T], change: &T) {
        let winner = outcomes.iter().position(|outcome| outcome == change).unwrap();
        self.0.push(events[winner].id);
    }
}

/// The event of a call that changes nothing.
fn nothing() -> Event {
    some_event()
}

impl Recorded<'_> {
    /// Makes calls with every outcome in `org`, and returns the events of those that changed something.
    pub(super) async fn act(self, org: &OrgId) -> Vec<EventId> {
        let mut on = Script::default();
        match self {
            Self::AAuthResources(store) => aauth_resources(store, org, &mut on).await,
            Self::Agents(store) => agents(store, org, &mut on).await,
            Self::ApiKeys(store) => api_keys(store, org, &mut on).await,
            Self::Approvals(store) => approvals(store, org, &mut on).await,
            Self::Clients(store) => clients(store, org, &mut on).await,
            Self::Consents(store) => consents(store, org, &mut on).await,
            Self::Grants(store) => grants(store, org, &mut on).await,
            Self::Jit(store) => jit(store, org, &mut on).await,
            Self::Keys(store) => keys(store, org, &mut on).await,
            Self::McpServers(store) => mcp_servers(store, org, &mut on).await,
            Self::Organizations(store) => organizations(store, org, &mut on).await,
            Self::Policies(store) => policies(store, org, &mut on).await,
            Self::Users(store) => users(store, org, &mut on).await,
        }
        on.0
    }
}

async fn aauth_resources(store: &dyn AAuthResourceStore, org: &OrgId, on: &mut Script) {
    let resource = || AAuthResource::new("resource", identifier("https://one.example"), now());
    let (one, rival) = (resource(), resource());
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &one, &on.change()).await.unwrap(), Insert::Inserted);
    let outcome = store.insert(org, &rival, &nothing()).await.unwrap();
    assert_eq!(outcome, Insert::Taken(Unique::AAuthIdentifier));
    assert_eq!(store.update(org, &one, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Stale);
    assert_eq!(store.remove(org, &one.id, 0, &nothing()).await.unwrap(), Remove::Stale);
    assert_eq!(store.remove(org, &one.id, 1, &on.change()).await.unwrap(), Remove::Removed);
    assert_eq!(store.remove(org, &one.id, 1, &nothing()).await.unwrap(), Remove::Missing);
}

async fn agents(store: &dyn AgentStore, org: &OrgId, on: &mut Script) {
    let agent = |slug| Agent::new("Agent", Slug::parse(slug).unwrap(), now());
    let (one, rival) = (agent("one"), agent("one"));
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &one, &on.change()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(org, &rival, &nothing()).await.unwrap(), Insert::Taken(Unique::Slug));
    assert_eq!(store.update(org, &one, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Stale);
    let other = Agent { aauth: some_identity("https://held.example"), ..agent("other") };
    assert_eq!(store.insert(org, &other, &on.change()).await.unwrap(), Insert::Inserted);
    let robber = Agent { aauth: other.aauth.clone(), version: 1, ..one.clone() };
    let outcome = store.update(org, &robber, &nothing()).await.unwrap();
    assert_eq!(outcome, Update::Taken(Unique::AAuthIdentifier));
    assert_eq!(store.remove(org, one.id, 0, &nothing()).await.unwrap(), Remove::Stale);
    assert_eq!(store.remove(org, one.id, 1, &on.change()).await.unwrap(), Remove::Removed);
    assert_eq!(store.remove(org, one.id, 1, &nothing()).await.unwrap(), Remove::Missing);
}

async fn api_keys(store: &dyn ApiKeyStore, org: &OrgId, on: &mut Script) {
    let key = ApiKey::new(org, "script", Vec::new(), now()).0;
    assert_eq!(store.update(org, &key, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &key, &on.change()).await.unwrap(), Insert::Inserted);
    assert!(matches!(store.insert(org, &key, &nothing()).await.unwrap(), Insert::Taken(_)));
    assert_eq!(store.update(org, &key, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &key, &nothing()).await.unwrap(), Update::Stale);
}

async fn approvals(store: &dyn ApprovalStore, org: &OrgId, on: &mut Script) {
    let [approval, ended, raced] = [some_approval(), some_approval(), some_approval()];
    let decide =
        async |approval, at, on| store.decide(org, approval, &some_decision(true), at, &on).await.unwrap();
    assert_eq!(decide(&approval, now(), nothing()).await, Decide::Missing);
    for approval in [&approval, &ended, &raced] {
        assert_eq!(store.insert(org, approval, &on.change()).await.unwrap(), NewApproval::Inserted);
        assert_eq!(store.insert(org, approval, &nothing()).await.unwrap(), NewApproval::Taken);
    }
    let busy = some_approval();
    let another = || Approval { token: ApprovalToken::generate(), ..busy.clone() };
    for _ in 0..Approval::MAX_PENDING {
        assert_eq!(store.insert(org, &another(), &on.change()).await.unwrap(), NewApproval::Inserted);
    }
    assert_eq!(store.insert(org, &another(), &nothing()).await.unwrap(), NewApproval::TooMany);
    assert_eq!(decide(&approval, now(), on.change()).await, Decide::Decided);
    assert_eq!(decide(&approval, now(), nothing()).await, Decide::AlreadyDecided);
    assert_eq!(decide(&ended, ended.expires_at, nothing()).await, Decide::Expired);

    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes = race(RACERS, async |n| decide(&raced, now(), events[n].clone()).await).await;
    on.happened(&events, &outcomes, &Decide::Decided);

    let end = ended.expires_at;
    assert!(!store.lapse(org, &ended, now(), &nothing()).await.unwrap());
    assert!(store.lapse(org, &ended, end, &on.change()).await.unwrap());
    assert!(!store.lapse(org, &ended, end, &nothing()).await.unwrap());

    assert_eq!(store.consume(org, &ended, now(), &nothing()).await.unwrap(), Consume::NotApproved);
    let approval = store.find(org, &approval.token).await.unwrap().unwrap();
    assert_eq!(store.consume(org, &approval, now(), &on.change()).await.unwrap(), Consume::Consumed);
    assert_eq!(store.consume(org, &approval, now(), &nothing()).await.unwrap(), Consume::AlreadyConsumed);
}

async fn jit(store: &dyn JitStore, org: &OrgId, on: &mut Script) {
    let task = some_task();
    assert_eq!(store.insert_task(org, &task, &on.change()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert_task(org, &task, &nothing()).await.unwrap(), Insert::Taken(Unique::Id));
    let requests = [(); 5].map(|()| some_request(&task));
    let ask = async |request: &JitRequest, assessed, done: Event, suspended: Event| {
        let on = RequestEvents { done: &done, suspended: &suspended };
        store.insert_request(org, request, assessed, now(), on).await.unwrap()
    };
    let history = async || store.find_task(org, &task.id).await.unwrap().unwrap().history(now());
    for request in &requests[..4] {
        assert_eq!(ask(request, history().await, on.change(), nothing()).await, NewRequest::Inserted);
        assert_eq!(ask(request, history().await, nothing(), nothing()).await, NewRequest::Missing);
    }
    let other = History { denials: 1, ..History::default() };
    let stale = ask(&requests[4], other, nothing(), nothing()).await;
    assert_eq!(stale, NewRequest::Stale);
    let rule = async |request: &JitRequest, approved, done: Event, suspended: Event| {
        let on = RequestEvents { done: &done, suspended: &suspended };
        store.rule(org, request, &some_ruling(approved), now(), on).await.unwrap()
    };
    assert_eq!(rule(&requests[4], true, nothing(), nothing()).await, Rule::Missing);
    assert_eq!(rule(&requests[0], true, on.change(), nothing()).await, Rule::Ruled);
    assert_eq!(rule(&requests[0], false, nothing(), nothing()).await, Rule::AlreadyRuled);
    assert_eq!(rule(&requests[1], false, on.change(), nothing()).await, Rule::Ruled);
    assert_eq!(rule(&requests[2], false, on.change(), nothing()).await, Rule::Ruled);
    assert_eq!(rule(&requests[3], false, nothing(), on.change()).await, Rule::Suspended);
    assert_eq!(ask(&requests[4], history().await, nothing(), nothing()).await, NewRequest::TaskClosed);

    let task = some_task();
    assert_eq!(store.insert_task(org, &task, &on.change()).await.unwrap(), Insert::Inserted);
    let closing = some_closing(TaskOutcome::Completed);
    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes =
        race(RACERS, async |n| store.close_task(org, &task, &closing, &events[n]).await.unwrap()).await;
    on.happened(&events, &outcomes, &CloseTask::Closed);
    let unknown = some_task();
    let outcome = store.close_task(org, &unknown, &closing, &nothing()).await.unwrap();
    assert_eq!(outcome, CloseTask::Missing);
}

async fn policies(store: &dyn PolicyStore, org: &OrgId, on: &mut Script) {
    let entries = [some_entry(), some_entry()];
    let put = |expect| entries.iter().map(|entry| PolicyChange::put(entry, expect)).collect::<Vec<_>>();
    let apply =
        async |changes: &[PolicyChange], on: &Event| store.apply(org, changes, on, now()).await.unwrap();
    let removal = [PolicyChange::remove(entries[0].id(), Expect::Anything)];
    assert_eq!(apply(&removal, &nothing()).await, Apply::Conflict(0));
    assert_eq!(apply(&put(Expect::Absent), &on.change()).await, Apply::Applied { revision: 1 });
    assert_eq!(apply(&put(Expect::Absent), &nothing()).await, Apply::Conflict(0));
    assert_eq!(apply(&put(Expect::At(2)), &nothing()).await, Apply::Conflict(0));
    assert_eq!(apply(&put(Expect::At(1)), &on.change()).await, Apply::Applied { revision: 2 });
    assert_eq!(apply(&removal, &on.change()).await, Apply::Applied { revision: 3 });

    let raced = [PolicyChange::put(&some_entry(), Expect::Absent)];
    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes = race(RACERS, async |n| apply(&raced, &events[n]).await).await;
    on.happened(&events, &outcomes, &Apply::Applied { revision: 4 });
}

async fn clients(store: &dyn ClientStore, org: &OrgId, on: &mut Script) {
    let client = Client::new("app", now()).0;
    assert_eq!(store.update(org, &client, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &client, &on.change()).await.unwrap(), Insert::Inserted);
    assert!(matches!(store.insert(org, &client, &nothing()).await.unwrap(), Insert::Taken(_)));
    assert_eq!(store.update(org, &client, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &client, &nothing()).await.unwrap(), Update::Stale);
}

async fn consents(store: &dyn ConsentStore, org: &OrgId, on: &mut Script) {
    let consent = Consent::new(UserId::generate(), ClientId::generate_for_agent(), Scope::default(), now());
    assert_eq!(store.update(org, &consent, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &consent, &on.change()).await.unwrap(), Insert::Inserted);
    assert!(matches!(store.insert(org, &consent, &nothing()).await.unwrap(), Insert::Taken(_)));
    assert_eq!(store.update(org, &consent, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &consent, &nothing()).await.unwrap(), Update::Stale);
}

async fn grants(store: &dyn GrantStore, org: &OrgId, on: &mut Script) {
    marks(store, org, on).await;
    tickets(store, org, on).await;
    refresh_tokens(store, org, on).await;
}

async fn marks(store: &dyn GrantStore, org: &OrgId, on: &mut Script) {
    let keep_until = now().plus(Duration::from_secs(60));
    let handle = some_handle();
    let first = store.revoke(org, handle, keep_until, &on.change()).await.unwrap();
    assert_eq!(first, Revoked::Revoked);
    let again = store.revoke(org, handle, keep_until, &nothing()).await.unwrap();
    assert_eq!(again, Revoked::AlreadyRevoked);

    let raced = some_handle();
    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes =
        race(RACERS, async |n| store.revoke(org, raced, keep_until, &events[n]).await.unwrap()).await;
    on.happened(&events, &outcomes, &Revoked::Revoked);
}

fn some_handle() -> Handle {
    Handle::from_bytes(random_bytes())
}

async fn tickets(store: &dyn GrantStore, org: &OrgId, on: &mut Script) {
    let family = some_handle();
    let [ticket, sibling, raced] = [some_ticket(Some(family)), some_ticket(Some(family)), some_ticket(None)];
    let use_ticket = async |ticket: &Ticket, refresh: Option<&RefreshToken>, used, reused| {
        let on = UseEvents { used: &used, reused: &reused };
        store.use_ticket(org, ticket.purpose, &ticket.hash, refresh, now(), on).await
    };
    let outcome = use_ticket(&ticket, None, nothing(), nothing()).await.unwrap();
    assert_eq!(outcome, TicketUse::Missing);
    for ticket in [&ticket, &sibling, &raced] {
        store.put_ticket(org, ticket).await.unwrap();
        store.put_ticket(org, ticket).await.unwrap_err();
    }
    let refresh = some_refresh(family);
    let outcome = use_ticket(&ticket, Some(&refresh), on.change(), nothing()).await.unwrap();
    assert_eq!(outcome, TicketUse::Used);
    use_ticket(&sibling, Some(&refresh), nothing(), nothing()).await.unwrap_err();
    let outcome = use_ticket(&ticket, None, nothing(), on.change()).await.unwrap();
    assert_eq!(outcome, TicketUse::Reused);
    // The mark is there, so nothing changes any more, and what is marked takes no other event.
    let outcome = use_ticket(&ticket, None, nothing(), nothing()).await.unwrap();
    assert_eq!(outcome, TicketUse::Reused);
    let again = store.revoke(org, family, now(), &nothing()).await.unwrap();
    assert_eq!(again, Revoked::AlreadyRevoked);
    assert_eq!(use_ticket(&sibling, None, on.change(), nothing()).await.unwrap(), TicketUse::Used);
    assert_eq!(use_ticket(&sibling, None, nothing(), nothing()).await.unwrap(), TicketUse::Reused);

    // Without a family a reuse changes nothing.
    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes =
        race(RACERS, async |n| use_ticket(&raced, None, events[n].clone(), nothing()).await.unwrap()).await;
    on.happened(&events, &outcomes, &TicketUse::Used);
}

async fn refresh_tokens(store: &dyn GrantStore, org: &OrgId, on: &mut Script) {
    let rotate = async |token: &RefreshToken, next: &RefreshToken, at: Timestamp, used, reused| {
        let on = UseEvents { used: &used, reused: &reused };
        store.rotate(org, &token.hash, next, true, at, on).await
    };
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let token = some_refresh(some_handle());
        let next = next_of(&token);
        let outcome = rotate(&token, &next, now(), nothing(), nothing()).await.unwrap();
        assert_eq!(outcome, Rotation::Missing);
        let code = some_ticket(None);
        store.put_ticket(org, &code).await.unwrap();
        let events = UseEvents { used: &on.change(), reused: &nothing() };
        let outcome = store.use_ticket(org, code.purpose, &code.hash, Some(&token), now(), events).await;
        assert_eq!(outcome.unwrap(), TicketUse::Used);
        tokens.push(token);
    }
    let [token, raced] = tokens.try_into().unwrap();

    let next = next_of(&token);
    rotate(&token, &raced, now(), nothing(), nothing()).await.unwrap_err();
    let outcome = rotate(&token, &next, now(), on.change(), nothing()).await.unwrap();
    assert_eq!(outcome, Rotation::Rotated);
    let outcome = rotate(&token, &next_of(&token), now(), nothing(), nothing()).await.unwrap();
    assert_eq!(outcome, Rotation::Raced);
    let late = now().plus(ROTATION_GRACE);
    for reused in [on.change(), nothing()] {
        let outcome = rotate(&token, &next_of(&token), late, nothing(), reused).await.unwrap();
        assert_eq!(outcome, Rotation::Reused);
    }
    let ended = rotate(&token, &next_of(&token), token.expires_at, nothing(), nothing()).await.unwrap();
    assert_eq!(ended, Rotation::Missing);

    let events: Vec<_> = (0..RACERS).map(|_| some_event()).collect();
    let outcomes = race(RACERS, async |n| {
        rotate(&raced, &next_of(&raced), now(), events[n].clone(), nothing()).await.unwrap()
    })
    .await;
    on.happened(&events, &outcomes, &Rotation::Rotated);
}

async fn keys(store: &dyn KeyStore, org: &OrgId, on: &mut Script) {
    let key = |id: &str| SealedKey {
        id: KeyId::parse(id).unwrap(),
        purpose: KeyPurpose::AccessToken,
        generation: 0,
        algorithm: Algorithm::Es256,
        created_at: now(),
        active_from: now(),
        sealed: vec![0; 32],
    };
    let (first, second) = (key("first"), key("second"));
    assert_eq!(store.remove(org, &first.id, &nothing()).await.unwrap(), Remove::Missing);
    assert_eq!(store.insert(org, &first, &on.change()).await.unwrap(), Insert::Inserted);
    let outcome = store.insert(org, &second, &nothing()).await.unwrap();
    assert_eq!(outcome, Insert::Taken(Unique::Generation));
    assert_eq!(store.remove(org, &first.id, &on.change()).await.unwrap(), Remove::Removed);
}

async fn mcp_servers(store: &dyn McpServerStore, org: &OrgId, on: &mut Script) {
    let server = || McpServer::new("server", ResourceUri::parse("urn:mcp:one").unwrap(), now());
    let (one, rival) = (server(), server());
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &one, &on.change()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(org, &rival, &nothing()).await.unwrap(), Insert::Taken(Unique::Target));
    assert_eq!(store.update(org, &one, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Stale);
    assert_eq!(store.remove(org, &one.server_id, 0, &nothing()).await.unwrap(), Remove::Stale);
    assert_eq!(store.remove(org, &one.server_id, 1, &on.change()).await.unwrap(), Remove::Removed);
    assert_eq!(store.remove(org, &one.server_id, 1, &nothing()).await.unwrap(), Remove::Missing);
}

async fn organizations(store: &dyn OrganizationStore, org: &OrgId, on: &mut Script) {
    let organization = Organization::new(org.clone(), "Acme", now());
    assert_eq!(store.update(&organization, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(&organization, &on.change()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&organization, &nothing()).await.unwrap(), Insert::Taken(Unique::Id));
    assert_eq!(store.update(&organization, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(&organization, &nothing()).await.unwrap(), Update::Stale);
}

async fn users(store: &dyn UserStore, org: &OrgId, on: &mut Script) {
    let (one, rival) = (User::new("one@example.org", now()), User::new("one@example.org", now()));
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(org, &one, &on.change()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(org, &rival, &nothing()).await.unwrap(), Insert::Taken(Unique::Email));
    assert_eq!(store.update(org, &one, &on.change()).await.unwrap(), Update::Updated);
    assert_eq!(store.update(org, &one, &nothing()).await.unwrap(), Update::Stale);
}
