//! Two servers with a cache each, over one store.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::*;
use crate::{
    agent::{AAuthIdentity, StatusChange},
    audit::Event,
    clock::Timestamp,
    id::{AAuthIdentifier, Slug},
    store::{
        AgentKey, ClientKey, ConsentKey, Insert, MemoryStore, Page, Update, UserKey, conformance::some_event,
    },
};

const NEVER: Duration = Duration::from_secs(600);
const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

/// A feed from one server to another.
#[derive(Debug)]
struct Wire {
    out: mpsc::UnboundedSender<Notice>,
    heard: Mutex<mpsc::UnboundedReceiver<Notice>>,
}

impl Wire {
    /// What each of the two publishes, the other hears.
    fn pair() -> [Arc<Self>; 2] {
        let ((to_b, from_a), (to_a, from_b)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        [(to_b, from_b), (to_a, from_a)].map(|(out, heard)| Arc::new(Self { out, heard: Mutex::new(heard) }))
    }
}

#[async_trait::async_trait]
impl ChangeFeed for Wire {
    async fn publish(&self, change: &Change) -> Result<(), StoreError> {
        let sent = self.out.send(Notice::Changed(change.clone()));
        sent.map_err(|error| StoreError::unavailable("publish", error))
    }

    async fn next(&self) -> Result<Notice, StoreError> {
        self.heard.lock().await.recv().await.ok_or_else(|| StoreError::unavailable("next", "closed"))
    }
}

fn org() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn cached(store: &Arc<MemoryStore>, ttl: Duration, feed: Option<Arc<dyn ChangeFeed>>) -> Arc<Cached> {
    let config = CacheConfig::default().with_ttl(ttl).with_capacity(100);
    Arc::new(Cached::new(&Stores::all(store.clone()), &config, feed))
}

fn identity(text: &str) -> Option<Box<AAuthIdentity>> {
    Some(Box::new(AAuthIdentity::new(AAuthIdentifier::parse(text).unwrap())))
}

/// An agent that both servers have read, by every key.
async fn known_agent(store: &MemoryStore, servers: [&Cached; 2]) -> Agent {
    let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    let _ = agent.rotate_api_key(&org());
    agent.aauth = identity("https://known.example");
    let outcome = AgentStore::insert(store, &org(), &agent, &some_event()).await.unwrap();
    assert_eq!(outcome, Insert::Inserted);
    for server in servers {
        for key in keys(&agent) {
            assert_eq!(AgentStore::find(server, &org(), key).await.unwrap().as_deref(), Some(&agent));
        }
    }
    agent
}

fn keys(agent: &Agent) -> Vec<AgentKey<'_>> {
    let mut keys =
        vec![AgentKey::Id(agent.id), AgentKey::Slug(&agent.slug), AgentKey::ClientId(&agent.client_id)];
    keys.extend(agent.api_key.as_ref().map(AgentKey::ApiKey));
    keys.extend(agent.aauth_identifier().map(AgentKey::AAuthIdentifier));
    keys
}

async fn suspend(server: &Cached, agent: &Agent) {
    let mut suspended = agent.clone();
    assert_eq!(suspended.change_status(StatusChange::Disable), Ok(true));
    assert_eq!(AgentStore::update(server, &org(), &suspended, &some_event()).await.unwrap(), Update::Updated);
}

async fn is_active(server: &Cached, key: AgentKey<'_>) -> bool {
    AgentStore::find(server, &org(), key).await.unwrap().unwrap().is_active()
}

#[tokio::test]
async fn the_writer_sees_its_change_at_once_and_the_other_one_when_it_hears_of_it() {
    let store = Arc::new(MemoryStore::new());
    let [to_b, to_a] = Wire::pair();
    let (a, b) = (cached(&store, NEVER, Some(to_b)), cached(&store, NEVER, Some(to_a)));
    let agent = known_agent(&store, [&a, &b]).await;

    suspend(&a, &agent).await;
    for key in keys(&agent) {
        assert!(!is_active(&a, key).await);
        assert!(is_active(&b, key).await, "a cache that reads every time is none");
    }

    let following = tokio::spawn({
        let b = b.clone();
        async move { b.follow().await }
    });
    while is_active(&b, AgentKey::Id(agent.id)).await {
        tokio::task::yield_now().await;
    }
    for key in keys(&agent) {
        assert!(!is_active(&b, key).await);
    }
    following.abort();
}

#[tokio::test]
async fn without_notices_a_change_is_seen_when_the_bound_is_over() {
    let store = Arc::new(MemoryStore::new());
    let ttl = Duration::from_millis(50);
    let (a, b) = (cached(&store, ttl, None), cached(&store, ttl, None));
    let agent = known_agent(&store, [&a, &b]).await;

    suspend(&a, &agent).await;
    tokio::time::sleep(ttl).await;
    for key in keys(&agent) {
        assert!(!is_active(&b, key).await);
    }
}

#[tokio::test]
async fn a_gap_in_the_notices_forgets_everything() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (cached(&store, NEVER, None), cached(&store, NEVER, None));
    let agent = known_agent(&store, [&a, &b]).await;
    suspend(&a, &agent).await;
    assert!(is_active(&b, AgentKey::Id(agent.id)).await);
    b.hear(&Notice::Gap);
    assert!(!is_active(&b, AgentKey::Id(agent.id)).await);
}

#[tokio::test]
async fn an_update_of_an_old_record_is_not_refused_for_ever() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (cached(&store, NEVER, None), cached(&store, NEVER, None));
    let agent = known_agent(&store, [&a, &b]).await;
    suspend(&a, &agent).await;

    let old = AgentStore::find(&*b, &org(), AgentKey::Id(agent.id)).await.unwrap().unwrap();
    assert_eq!(AgentStore::update(&*b, &org(), &old, &some_event()).await.unwrap(), Update::Stale);
    let new = AgentStore::find(&*b, &org(), AgentKey::Id(agent.id)).await.unwrap().unwrap();
    assert_eq!(AgentStore::update(&*b, &org(), &new, &some_event()).await.unwrap(), Update::Updated);
}

#[tokio::test]
async fn a_name_in_aauth_leads_to_whom_it_names_now() {
    let store = Arc::new(MemoryStore::new());
    let a = cached(&store, NEVER, None);
    let mut agent = known_agent(&store, [&a, &a]).await;
    let heir = Agent::new("Heir", Slug::parse("heir").unwrap(), NOW);
    assert_eq!(AgentStore::insert(&*a, &org(), &heir, &some_event()).await.unwrap(), Insert::Inserted);
    let moved = std::mem::replace(&mut agent.aauth, identity("https://moved.example"));
    let heir = Agent { aauth: moved, ..heir };
    for changed in [&agent, &heir] {
        let outcome = AgentStore::update(&*a, &org(), changed, &some_event()).await.unwrap();
        assert_eq!(outcome, Update::Updated);
    }
    for named in [&agent, &heir] {
        let by = AgentKey::AAuthIdentifier(named.aauth_identifier().unwrap());
        assert_eq!(AgentStore::find(&*a, &org(), by).await.unwrap().unwrap().id, named.id);
    }
}

#[tokio::test]
async fn a_removed_agent_is_gone_by_every_key_and_its_names_lead_to_its_successor() {
    let store = Arc::new(MemoryStore::new());
    let a = cached(&store, NEVER, None);
    let agent = known_agent(&store, [&a, &a]).await;
    let outcome = a.remove(&org(), agent.id, agent.version, &some_event()).await.unwrap();
    assert_eq!(outcome, crate::store::Remove::Removed);
    for key in keys(&agent) {
        assert_eq!(AgentStore::find(&*a, &org(), key).await.unwrap(), None);
    }
    let successor = Agent::new("Bot", agent.slug.clone(), NOW);
    assert_eq!(AgentStore::insert(&*a, &org(), &successor, &some_event()).await.unwrap(), Insert::Inserted);
    let found = AgentStore::find(&*a, &org(), AgentKey::Slug(&agent.slug)).await.unwrap().unwrap();
    assert_eq!(found.id, successor.id);
}

#[tokio::test]
async fn organizations_clients_people_and_consents_are_cached_alike() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (cached(&store, NEVER, None), cached(&store, NEVER, None));
    let organization = Organization::new(org(), "Acme", NOW);
    let (client, _) = Client::new("app", NOW);
    let user = User::new("alice@example.org", NOW);
    let consent = Consent::new(user.id, client.client_id.clone(), "read:a".parse().unwrap(), NOW);
    let inserted = [
        OrganizationStore::insert(&*a, &organization, &some_event()).await.unwrap(),
        ClientStore::insert(&*a, &org(), &client, &some_event()).await.unwrap(),
        UserStore::insert(&*a, &org(), &user, &some_event()).await.unwrap(),
        ConsentStore::insert(&*a, &org(), &consent, &some_event()).await.unwrap(),
    ];
    assert_eq!(inserted, [Insert::Inserted; 4]);
    let versions = async |server: &Cached| {
        let organization = OrganizationStore::find(server, &org()).await.unwrap().unwrap();
        let client = ClientStore::find(server, &org(), ClientKey::ClientId(&client.client_id)).await.unwrap();
        let user = UserStore::find(server, &org(), UserKey::Id(user.id)).await.unwrap();
        let consent = ConsentStore::find(server, &org(), ConsentKey::Id(consent.id)).await.unwrap();
        [organization.version, client.unwrap().version, user.unwrap().version, consent.unwrap().version]
    };
    assert_eq!([versions(&a).await, versions(&b).await], [[0; 4]; 2]);

    let updated = [
        OrganizationStore::update(&*a, &organization, &some_event()).await.unwrap(),
        ClientStore::update(&*a, &org(), &client, &some_event()).await.unwrap(),
        UserStore::update(&*a, &org(), &user, &some_event()).await.unwrap(),
        ConsentStore::update(&*a, &org(), &consent, &some_event()).await.unwrap(),
    ];
    assert_eq!(updated, [Update::Updated; 4]);
    assert_eq!([versions(&a).await, versions(&b).await], [[1; 4], [0; 4]]);
    b.hear(&Notice::Gap);
    assert_eq!(versions(&b).await, [1; 4]);
}

#[tokio::test]
async fn a_withdrawn_consent_is_heard_of_and_is_never_old_where_one_is_given() {
    let store = Arc::new(MemoryStore::new());
    let [to_b, to_a] = Wire::pair();
    let (a, b) = (cached(&store, NEVER, Some(to_b)), cached(&store, NEVER, Some(to_a)));
    let (client, _) = Client::new("app", NOW);
    let mut consent = Consent::new(UserId::generate(), client.client_id, "read:a".parse().unwrap(), NOW);
    let inserted = ConsentStore::insert(&*a, &org(), &consent, &some_event()).await.unwrap();
    assert_eq!(inserted, Insert::Inserted);
    let client_id = consent.client_id.clone();
    let between = ConsentKey::Between(consent.user, &client_id);
    let holds =
        async |server: &Cached, key| ConsentStore::find(server, &org(), key).await.unwrap().unwrap().active;
    for key in [ConsentKey::Id(consent.id), between] {
        assert!(holds(&a, key).await && holds(&b, key).await);
    }

    assert!(consent.withdraw());
    let outcome = ConsentStore::update(&*a, &org(), &consent, &some_event()).await.unwrap();
    assert_eq!(outcome, Update::Updated);
    assert!(!holds(&a, ConsentKey::Id(consent.id)).await);
    assert!(holds(&b, ConsentKey::Id(consent.id)).await, "a cache that reads every time is none");
    assert!(!holds(&b, between).await);
    let listed = ConsentStore::list(&*b, &org(), consent.user, Page::first(9)).await.unwrap();
    assert!(!listed.items[0].active);

    let notice = b.feed.as_ref().unwrap().next().await.unwrap();
    b.hear(&notice);
    assert!(!holds(&b, ConsentKey::Id(consent.id)).await);
}

/// Organizations that are changed by a store that then never answers.
#[derive(Debug)]
struct Silent(Arc<MemoryStore>);

#[async_trait::async_trait]
impl OrganizationStore for Silent {
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError> {
        OrganizationStore::insert(&*self.0, organization, on).await
    }

    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError> {
        OrganizationStore::find(&*self.0, org).await
    }

    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError> {
        let _ = OrganizationStore::update(&*self.0, organization, on).await?;
        future::pending().await
    }

    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError> {
        OrganizationStore::list(&*self.0, after, max).await
    }
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_seen_at_once() {
    let store = Arc::new(MemoryStore::new());
    let organizations = Arc::new(Silent(store.clone()));
    let stores = Stores { organizations, ..Stores::all(store) };
    let a = Cached::new(&stores, &CacheConfig::default().with_ttl(NEVER), None);
    let organization = Organization::new(org(), "Acme", NOW);
    let inserted = OrganizationStore::insert(&a, &organization, &some_event()).await.unwrap();
    assert_eq!(inserted, Insert::Inserted);
    let version = async || OrganizationStore::find(&a, &org()).await.unwrap().unwrap().version;
    assert_eq!(version().await, 0);

    let event = some_event();
    let abandoned =
        tokio::time::timeout(Duration::from_millis(20), OrganizationStore::update(&a, &organization, &event));
    assert!(abandoned.await.is_err());
    assert_eq!(version().await, 1);
}
