//! Races of the recorded roles: one caller wins, and the log has one event about it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lumoauth_core::{
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent},
    api_key::ApiKey,
    approval::{Approval, Decision},
    capability::Scope,
    client::Client,
    consent::Consent,
    id::{AAuthIdentifier, AgentId, ClientId, ConsentId, KeyId, Number, OrgId, Slug, UserId},
    keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    random::random_bytes,
    secret::Secret,
    store::{
        AAuthResourceStore, AgentStore, ApiKeyStore, ApprovalStore, AuditFilter, AuditStore, ClientStore,
        ConsentStore, Decide, GrantStore, Handle, Insert, KeyStore, McpServerStore, MemoryStore, NewApproval,
        OrganizationStore, Page, RefreshToken, Remove, Revoked, Rotation, SealedKey, StoreError, Ticket,
        TicketPurpose, TicketUse, Unique, Update, UseEvents, UserStore,
        conformance::{now, some_event, some_org},
    },
    user::User,
};

use super::{CALLERS, Two, assert_logged, one_winner, race, rounds};

/// A race in an organization of its own: what there is before, which each caller gets a copy of; what each caller
/// does; what one of them gets, and what the others; and how many events the log has in the end.
macro_rules! recorded_race {
    ($name:ident: $port:path; |$store:ident, $org:ident| $given:ident = $before:expr;
        |$caller:ident| $call:expr; $won:expr, $lost:expr; logged $logged:expr) => {
        pub(crate) async fn $name<S: $port + AuditStore>(stores: Two<S>) {
            for _ in 0..rounds() {
                let $org = some_org();
                let $given = {
                    let $store = &stores[0];
                    // An insert needs nothing to be there before it.
                    let _ = $store;
                    $before
                };
                let outcomes = race(&stores, |$caller, $store| {
                    let ($org, $given) = ($org.clone(), $given.clone());
                    let _ = &$org;
                    async move { $call.await.unwrap() }
                })
                .await;
                one_winner(&outcomes, &$won, &$lost);
                assert_logged(&stores, &$org, $logged).await;
            }
        }
    };
}

/// What `insert` of a recorded role is to say before the race begins.
macro_rules! inserted {
    ($store:ident.$insert:ident($($argument:expr),+)) => {
        assert_eq!($store.$insert($($argument),+, &some_event()).await.unwrap(), Insert::Inserted)
    };
}

fn agent() -> Agent {
    Agent::new("Raced", Slug::parse("raced").unwrap(), now())
}

fn aauth_name() -> AAuthIdentifier {
    AAuthIdentifier::parse("https://raced.example").unwrap()
}

fn aauth_resource() -> AAuthResource {
    AAuthResource::new("Raced", aauth_name(), now())
}

fn api_key() -> ApiKey {
    ApiKey::new(&some_org(), "raced", Vec::new(), now()).0
}

fn server(resource: &str) -> McpServer {
    McpServer::new("Raced", ResourceUri::parse(resource).unwrap(), now())
}

/// A key as a ring makes it: nothing else can.
async fn sealed_key() -> SealedKey {
    let (store, org) = (Arc::new(MemoryStore::new()), some_org());
    let ring = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
    ring.signer(&org, KeyPurpose::AccessToken, now()).await.unwrap();
    KeyStore::list(&*store, &org).await.unwrap().remove(0)
}

/// The key that another caller made for the same place.
fn key_of(key: &SealedKey, caller: usize) -> SealedKey {
    with(key.clone(), |it| it.id = KeyId::parse(&format!("raced-{caller}")).unwrap())
}

fn consent() -> Consent {
    Consent::new(UserId::generate(), ClientId::generate_for_agent(), Scope::default(), now())
}

pub(super) fn approval() -> Approval {
    let expires_at = now().plus(Duration::from_secs(300));
    let mut approval = Approval::new(AgentId::generate(), ClientId::generate_for_agent(), now(), expires_at);
    approval.task_id = "raced".to_owned();
    approval
}

/// What one of the callers says: half of them yes, half of them no.
pub(super) fn decision(caller: usize) -> Decision {
    let (by, number) = (Some(UserId::generate()), Some(Number::generate()));
    Decision { approved: caller % 4 < 2, by, number, epoch: 0, epoch_of_whom: None, at: now(), note: None }
}

fn ticket(family: Option<Handle>) -> Ticket {
    Ticket {
        purpose: TicketPurpose::AuthorizationCode,
        hash: Secret::generate("").hash(),
        body: "{}".to_owned(),
        expires_at: now().plus(Duration::from_secs(60)),
        keep_until: now().plus(Duration::from_secs(3600)),
        family,
    }
}

fn refresh_token(family: Handle) -> RefreshToken {
    let expires_at = now().plus(Duration::from_secs(3600));
    RefreshToken { hash: Secret::generate("").hash(), family, body: "{}".to_owned(), expires_at }
}

/// A refresh token that was given for a code, which has an event.
async fn granted(store: &dyn GrantStore, org: &OrgId) -> RefreshToken {
    let (code, token) = (ticket(None), refresh_token(Handle::from_bytes(random_bytes())));
    store.put_ticket(org, &code).await.unwrap();
    let on = UseEvents { used: &some_event(), reused: &some_event() };
    let used = store.use_ticket(org, code.purpose, &code.hash, Some(&token), now(), on).await.unwrap();
    assert_eq!(used, TicketUse::Used);
    token
}

/// A caller rotates `token` into a token of its own.
async fn rotate<S: GrantStore>(
    store: Arc<S>,
    org: OrgId,
    token: RefreshToken,
    proven: bool,
) -> Result<Rotation, StoreError> {
    let on = UseEvents { used: &some_event(), reused: &some_event() };
    store.rotate(&org, &token.hash, &refresh_token(token.family), proven, now(), on).await
}

/// `record` with a change.
fn with<T>(mut record: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut record);
    record
}

recorded_race! {
    aauth_resources_insert: AAuthResourceStore; |store, org| name = "Raced";
    |_caller| store.insert(&org, &AAuthResource::new(name, aauth_name(), now()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::AAuthIdentifier); logged 1
}

recorded_race! {
    aauth_resources_update: AAuthResourceStore; |store, org| resource = {
        let resource = aauth_resource();
        inserted!(store.insert(&org, &resource));
        resource
    };
    |caller| store.update(&org, &with(resource, |it| it.name = format!("Racer {caller}")), &some_event());
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    aauth_resources_remove: AAuthResourceStore; |store, org| resource = {
        let resource = aauth_resource();
        inserted!(store.insert(&org, &resource));
        resource
    };
    |_caller| store.remove(&org, &resource.id, resource.version, &some_event());
    Remove::Removed, Remove::Missing; logged 2
}

recorded_race! {
    agents_insert: AgentStore; |store, org| slug = Slug::parse("raced").unwrap();
    |_caller| store.insert(&org, &Agent::new("Raced", slug, now()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::Slug); logged 1
}

recorded_race! {
    agents_update: AgentStore; |store, org| agent = {
        let agent = agent();
        inserted!(store.insert(&org, &agent));
        agent
    };
    |caller| store.update(&org, &with(agent, |it| it.name = format!("Racer {caller}").into()), &some_event());
    Update::Updated, Update::Stale; logged 2
}

// Each caller names its own agent: of one name there is one.
recorded_race! {
    agents_name: AgentStore; |store, org| agents = {
        let agents: Vec<_> = (0..CALLERS)
            .map(|n| Agent::new("Raced", Slug::parse(&format!("raced-{n}")).unwrap(), now()))
            .collect();
        for agent in &agents {
            inserted!(store.insert(&org, agent));
        }
        agents
    };
    |caller| {
        let identity = Some(Box::new(AAuthIdentity::new(aauth_name())));
        let named = with(agents[caller].clone(), |it| it.aauth = identity);
        async move { store.update(&org, &named, &some_event()).await }
    };
    Update::Updated, Update::Taken(Unique::AAuthIdentifier); logged CALLERS + 1
}

recorded_race! {
    agents_remove: AgentStore; |store, org| agent = {
        let agent = agent();
        inserted!(store.insert(&org, &agent));
        agent
    };
    |_caller| store.remove(&org, agent.id, agent.version, &some_event());
    Remove::Removed, Remove::Missing; logged 2
}

recorded_race! {
    api_keys_insert: ApiKeyStore; |store, org| key = api_key();
    |_caller| store.insert(&org, &with(key, |it| it.number = Number::generate()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::KeyHash); logged 1
}

recorded_race! {
    api_keys_update: ApiKeyStore; |store, org| key = {
        let key = api_key();
        inserted!(store.insert(&org, &key));
        key
    };
    |caller| store.update(&org, &with(key, |it| it.name = format!("Racer {caller}")), &some_event());
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    approvals_insert: ApprovalStore; |store, org| approval = approval();
    |caller| store.insert(&org, &with(approval, |it| it.task_id = format!("racer {caller}")), &some_event());
    NewApproval::Inserted, NewApproval::Taken; logged 1
}

/// What one caller said is what everybody sees, and there is one event about it.
pub(crate) async fn approvals_decide<S: ApprovalStore + AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, approval) = (some_org(), approval());
        let added = ApprovalStore::insert(&*stores[0], &org, &approval, &some_event()).await.unwrap();
        assert_eq!(added, NewApproval::Inserted);
        let said: Arc<Vec<_>> = Arc::new((0..CALLERS).map(decision).collect());
        let outcomes = race(&stores, |caller, store| {
            let (org, approval, said) = (org.clone(), approval.clone(), said.clone());
            async move { store.decide(&org, &approval, &said[caller], now(), &some_event()).await.unwrap() }
        })
        .await;
        let winner = one_winner(&outcomes, &Decide::Decided, &Decide::AlreadyDecided);
        for store in &stores {
            let found = ApprovalStore::find(&**store, &org, &approval.token).await.unwrap().unwrap();
            assert_eq!(found.decision.as_ref(), Some(&said[winner]));
            assert_eq!(store.pending(&org, None, now(), Page::first(9)).await.unwrap().total, 0);
        }
        assert_logged(&stores, &org, 2).await;
    }
}

recorded_race! {
    clients_insert: ClientStore; |store, org| client = Client::new("Raced", now()).0;
    |_caller| store.insert(&org, &with(client, |it| it.number = Number::generate()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::ClientId); logged 1
}

recorded_race! {
    clients_update: ClientStore; |store, org| client = {
        let (client, _) = Client::new("Raced", now());
        inserted!(store.insert(&org, &client));
        client
    };
    |caller| store.update(&org, &with(client, |it| it.name = format!("Racer {caller}")), &some_event());
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    consents_insert: ConsentStore; |store, org| consent = consent();
    |_caller| store.insert(&org, &with(consent, |it| it.id = ConsentId::generate()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::ClientId); logged 1
}

recorded_race! {
    consents_update: ConsentStore; |store, org| consent = {
        let consent = consent();
        inserted!(store.insert(&org, &consent));
        consent
    };
    |caller| {
        let scope = format!("racer:{caller}").parse().unwrap();
        let next = with(consent, |it| it.scope = scope);
        async move { store.update(&org, &next, &some_event()).await }
    };
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    keys_insert: KeyStore; |store, org| key = sealed_key().await;
    |caller| store.insert(&org, &key_of(&key, caller), &some_event());
    Insert::Inserted, Insert::Taken(Unique::Generation); logged 1
}

recorded_race! {
    keys_remove: KeyStore; |store, org| key = {
        let key = sealed_key().await;
        inserted!(store.insert(&org, &key));
        key
    };
    |_caller| store.remove(&org, &key.id, &some_event());
    Remove::Removed, Remove::Missing; logged 2
}

recorded_race! {
    mcp_servers_insert: McpServerStore; |store, org| wanted = ResourceUri::parse("https://wanted.example/mcp").unwrap();
    |caller| {
        // By its main name or by another one, it is the same target.
        let mut racer = server(&format!("https://{caller}.example/"));
        if caller % 2 == 0 {
            racer.aliases = vec![wanted];
        } else {
            racer.aliases = vec![std::mem::replace(&mut racer.resource_uri, wanted)];
        }
        async move { store.insert(&org, &racer, &some_event()).await }
    };
    Insert::Inserted, Insert::Taken(Unique::Target); logged 1
}

recorded_race! {
    mcp_servers_update: McpServerStore; |store, org| server = {
        let server = server("https://raced.example/");
        inserted!(store.insert(&org, &server));
        server
    };
    |caller| {
        let alias = ResourceUri::parse(&format!("https://{caller}.example/")).unwrap();
        let next = with(server, |it| it.aliases = vec![alias]);
        async move { store.update(&org, &next, &some_event()).await }
    };
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    mcp_servers_remove: McpServerStore; |store, org| server = {
        let server = server("https://raced.example/");
        inserted!(store.insert(&org, &server));
        server
    };
    |_caller| store.remove(&org, &server.server_id, server.version, &some_event());
    Remove::Removed, Remove::Missing; logged 2
}

recorded_race! {
    organizations_insert: OrganizationStore; |store, org| name = "Raced";
    |_caller| store.insert(&Organization::new(org, name, now()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::Id); logged 1
}

recorded_race! {
    organizations_update: OrganizationStore; |store, org| organization = {
        let organization = Organization::new(org.clone(), "Raced", now());
        inserted!(store.insert(&organization));
        organization
    };
    |caller| store.update(&with(organization, |it| it.name = format!("Racer {caller}")), &some_event());
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    users_insert: UserStore; |store, org| email = "raced@acme.test";
    |_caller| store.insert(&org, &User::new(email, now()), &some_event());
    Insert::Inserted, Insert::Taken(Unique::Email); logged 1
}

recorded_race! {
    users_update: UserStore; |store, org| user = {
        let user = User::new("raced@acme.test", now());
        inserted!(store.insert(&org, &user));
        user
    };
    |caller| store.update(&org, &with(user, |it| it.name = Some(format!("Racer {caller}"))), &some_event());
    Update::Updated, Update::Stale; logged 2
}

recorded_race! {
    grants_revoke: GrantStore; |store, org| handle = Handle::from_bytes(random_bytes());
    |_caller| store.revoke(&org, handle, now().plus(Duration::from_secs(3600)), &some_event());
    Revoked::Revoked, Revoked::AlreadyRevoked; logged 1
}

// Of the others that use it, one has marked the family, with its event.
recorded_race! {
    grants_use_ticket: GrantStore; |store, org| ticket = {
        let ticket = ticket(Some(Handle::from_bytes(random_bytes())));
        store.put_ticket(&org, &ticket).await.unwrap();
        ticket
    };
    |_caller| {
        let refresh = ticket.family.map(refresh_token);
        let on = [some_event(), some_event()];
        async move {
            let on = UseEvents { used: &on[0], reused: &on[1] };
            store.use_ticket(&org, ticket.purpose, &ticket.hash, refresh.as_ref(), now(), on).await
        }
    };
    TicketUse::Used, TicketUse::Reused; logged 2
}

recorded_race! {
    grants_rotate: GrantStore; |store, org| token = granted(&**store, &org).await;
    |_caller| rotate(store, org, token, true);
    Rotation::Rotated, Rotation::Raced; logged 2
}

// Of the others, one has marked the family, with its event.
recorded_race! {
    grants_rotate_unproven: GrantStore; |store, org| token = granted(&**store, &org).await;
    |_caller| rotate(store, org, token, false);
    Rotation::Rotated, Rotation::Reused; logged 3
}

/// Whoever appends an event that is there already changes nothing.
pub(crate) async fn audit_append<S: AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, event) = (some_org(), some_event());
        race(&stores, |_, store| {
            let (org, event) = (org.clone(), event.clone());
            async move { store.append(&org, &[event]).await.unwrap() }
        })
        .await;
        assert_logged(&stores, &org, 1).await;
    }
}

/// However many number the events, each gets one number, and none is left out.
pub(crate) async fn audit_sequence<S: AuditStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let org = some_org();
        let appended = race(&stores, |_, store| {
            let org = org.clone();
            async move {
                let events = [some_event(), some_event()];
                store.append(&org, &events).await.unwrap();
                // Not all at once, so that several have something to do.
                store.sequence(&org, 3).await.unwrap();
                events.map(|event| event.id)
            }
        })
        .await;
        assert_logged(&stores, &org, 2 * CALLERS).await;
        let page = stores[0].page(&org, &AuditFilter::default(), Page::first(1000)).await.unwrap();
        let logged: BTreeSet<_> = page.items.iter().map(|entry| entry.event.id).collect();
        assert_eq!(logged, appended.into_iter().flatten().collect());
    }
}
