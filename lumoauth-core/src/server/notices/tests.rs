//! Who is told, how often, and that nobody waits for it.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::{
    audit::{Actor, Event, EventKind, Origin},
    capability::Capability,
    clock::{Clock, SystemClock},
    id::{ClientId, Slug, UserId},
    jit::{AuthorizationDetail, Task},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    notify::NotifyError,
    principal::{Identity, Principal},
    server::{ApprovalRequest, Caller, OpenedApproval},
    store::{
        Admission, AgentStore, ApprovalStore, Insert, MemoryStore, NewApproval, OrganizationStore,
        RateLimitStore, StoreError, Stores, UserStore,
    },
};

/// Takes down what it is given, and is stuck on what is about the agent `Stuck`.
#[derive(Debug, Default)]
struct Post {
    begun: AtomicUsize,
    told: Mutex<Vec<Notice>>,
}

impl Post {
    fn told(&self) -> Vec<Notice> {
        self.told.lock().unwrap().clone()
    }
}

#[async_trait]
impl Notifier for Post {
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if &*notice.agent == "Stuck" {
            pending::<()>().await;
        }
        self.told.lock().unwrap().push(notice.clone());
        Ok(())
    }
}

/// A store of limits that is away.
#[derive(Debug)]
struct Away;

#[async_trait]
impl RateLimitStore for Away {
    async fn take(&self, _: &OrgId, _: &str, _: RateLimit, _: Timestamp) -> Result<Admission, StoreError> {
        Err(StoreError::unavailable("rate_limits.take", "it is away"))
    }
}

struct Setting {
    server: AuthorizationServer,
    store: Arc<MemoryStore>,
    post: Arc<Post>,
    organization: Organization,
}

fn some_event() -> Event {
    Event::new(EventKind::OrganizationCreated, Actor::system(), "made", SystemClock.now())
}

impl Setting {
    async fn new(change: impl FnOnce(&mut Stores)) -> Self {
        let (store, post) = (Arc::new(MemoryStore::new()), Arc::new(Post::default()));
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let mut stores = Stores::all(store.clone());
        change(&mut stores);
        let server = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys))
            .with_mail(post.clone())
            .with_approver_page("/orgs/{org}/waiting")
            .build()
            .unwrap();
        let organization = Organization::new(OrgId::parse("acme").unwrap(), "Acme", server.now());
        let added = OrganizationStore::insert(&*store, &organization, &some_event()).await.unwrap();
        assert_eq!(added, Insert::Inserted);
        Self { server, store, post, organization }
    }

    async fn person(&self, change: impl FnOnce(&mut User)) -> Arc<User> {
        let mut user = User::new("", self.server.now());
        user.email = format!("{}@acme.test", user.id);
        change(&mut user);
        let added =
            UserStore::insert(&*self.store, &self.organization.id, &user, &some_event()).await.unwrap();
        assert_eq!(added, Insert::Inserted);
        Arc::new(user)
    }

    async fn agent(&self, name: &str) -> Arc<Agent> {
        let mut agent = Agent::new(name, Slug::parse(&name.to_lowercase()).unwrap(), self.server.now());
        agent.capabilities = vec![Capability::parse("delegate:on_behalf").unwrap()];
        let added =
            AgentStore::insert(&*self.store, &self.organization.id, &agent, &some_event()).await.unwrap();
        assert_eq!(added, Insert::Inserted);
        Arc::new(agent)
    }

    async fn ask(&self, agent: &Arc<Agent>, who: &str) -> Result<OpenedApproval, ApiError> {
        let request: ApprovalRequest =
            serde_json::from_value(json!({ "task_id": "t", "reason": "Pay", "on_behalf_of": who })).unwrap();
        let caller = Caller::new(Actor::system(), Origin::default());
        let principal = Principal::new(self.organization.id.clone(), Identity::Agent(agent.clone()), None);
        self.server.request_approval(&principal, agent, &request, &caller).await
    }

    async fn deliver(&self) {
        for _ in 0..100 {
            self.server.deliver_notices().await;
        }
    }
}

#[tokio::test]
async fn nobody_who_is_slow_holds_up_the_rest() {
    let setting = Setting::new(|_| {}).await;
    let (stuck, good) = (setting.agent("Stuck").await, setting.agent("Good").await);
    let alice = setting.person(|alice| alice.approver = true).await;
    setting.ask(&stuck, &alice.email).await.unwrap();
    // Its end is told by the upkeep, which comes after what people are told.
    let (org, now) = (&setting.organization.id, setting.server.now());
    let ended = Approval::new(stuck.id, stuck.client_id.clone(), now, now);
    let added = ApprovalStore::insert(&*setting.store, org, &ended, &some_event()).await.unwrap();
    assert_eq!(added, NewApproval::Inserted);
    let test = async {
        while setting.post.begun.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        setting.ask(&good, &alice.email).await.unwrap();
        while !setting.store.ended(org, now, 1).await.unwrap().is_empty() || setting.post.told().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = setting.server.maintenance() => panic!("it never ends"),
        done = tokio::time::timeout(Duration::from_secs(20), test) => done.expect("in time"),
    }
    let told = setting.post.told();
    assert_eq!((told.len(), &*told[0].agent), (1, "Good"));
}

#[tokio::test]
async fn one_organization_takes_no_more_than_its_part() {
    let setting = Setting::new(|_| {}).await;
    let (bot, alice) = (setting.agent("Bot").await, setting.person(|_| {}).await);
    let notice = async |org: &str| {
        let organization = Organization::new(OrgId::parse(org).unwrap(), org, setting.server.now());
        let waiting = Waiting {
            about: Subject::Approval,
            summary: "Pay".to_owned(),
            reference: String::new(),
            ends: None,
        };
        // Each person is another one, as far as is counted.
        let who = UserId::generate().to_string();
        setting.server.announce(&organization, &who, Some(&alice), &bot, waiting).await.unwrap();
    };
    for _ in 0..MOST + 10 {
        notice("busy").await;
    }
    notice("calm").await;
    let notices = &setting.server.inner.notices;
    let waiting = || notices.0.lock().unwrap().waiting;
    assert_eq!(waiting(), MOST);
    let taken: Vec<_> = notices.take().iter().map(|told| told.notice.org.to_string()).collect();
    assert_eq!(taken, ["busy", "calm", "busy", "busy", "busy"]);
    assert_eq!(waiting(), MOST - 5);
    assert_eq!(notices.take().len(), AT_ONCE_OF_ONE);

    // However many are busy, whoever comes has a turn after one of each.
    for n in 0..AT_ONCE * 2 {
        for _ in 0..8 {
            notice(&format!("busy-{n}")).await;
        }
    }
    notice("calm").await;
    let rounds = (1_u32..).find(|_| notices.take().iter().any(|told| told.notice.org.as_str() == "calm"));
    assert_eq!(rounds, Some(3));
    while !notices.take().is_empty() {}
    let turns = notices.0.lock().unwrap();
    assert_eq!((turns.waiting, turns.of.len(), turns.order.len()), (0, 0, 0));
}

#[tokio::test]
async fn a_person_has_many_names_and_one_count() {
    let setting = Setting::new(|_| {}).await;
    let bot = setting.agent("Bot").await;
    let alice = setting.person(|_| {}).await;
    let number = alice.number.value();
    let names = [alice.email.clone(), alice.email.to_uppercase(), alice.id.to_string(), number.to_string()];
    for _ in 0..PER_AGENT.max {
        for name in &names {
            let refused = setting.ask(&bot, name).await.unwrap_err();
            assert!(matches!(refused, ApiError::ToldByMail { .. }), "{refused:?}");
        }
    }
    setting.deliver().await;
    assert_eq!(setting.post.told().len(), PER_AGENT.max as usize);
    assert!(setting.post.told().iter().all(|notice| notice.about == Subject::Unreached));
    // What only looks like the number is nobody's name.
    for name in [format!("0{number}"), format!("+{number}")] {
        assert!(setting.server.user(&setting.organization.id, &name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_noisy_agent_takes_nothing_from_others() {
    let setting = Setting::new(|_| {}).await;
    let approver = |person: &mut User| person.approver = true;
    let (alice, ben) = (setting.person(approver).await, setting.person(approver).await);
    let (noisy, quiet) = (setting.agent("Noisy").await, setting.agent("Quiet").await);
    let told = async |agent: &Arc<Agent>, who: &User, times: u32| {
        for _ in 0..times {
            // What is opened is open, whether or not somebody is told of it.
            setting.ask(agent, &who.email).await.unwrap();
        }
        setting.post.told.lock().unwrap().clear();
        setting.deliver().await;
        setting.post.told().len()
    };
    assert_eq!(told(&noisy, &alice, 40).await, PER_AGENT.max as usize);
    assert_eq!(told(&quiet, &alice, 1).await, 1);
    assert_eq!(told(&noisy, &alice, 1).await, 0);
    assert_eq!(told(&noisy, &ben, 1).await, 1);
    // Many agents together do not drown anybody either.
    let mut left = PER_PERSON.max as usize - PER_AGENT.max as usize - 1;
    for n in 0..5 {
        let other = setting.agent(&format!("Other-{n}")).await;
        let expected = left.min(PER_AGENT.max as usize);
        assert_eq!(told(&other, &alice, 9).await, expected);
        left -= expected;
    }
}

#[tokio::test]
async fn a_notice_that_is_lost_changes_nothing() {
    let setting = Setting::new(|stores| stores.rate_limits = Arc::new(Away)).await;
    let bot = setting.agent("Bot").await;
    let alice = setting.person(|alice| alice.approver = true).await;
    let opened = setting.ask(&bot, &alice.email).await.unwrap();
    let found =
        ApprovalStore::find(&*setting.store, &setting.organization.id, &opened.approval.token).await.unwrap();
    assert!(found.is_some());
    let without = setting.person(|_| {}).await;
    for who in [without.email.as_str(), "nobody@acme.test"] {
        let refused = setting.ask(&bot, who).await.unwrap_err();
        assert!(matches!(refused, ApiError::ToldByMail { .. }), "{refused:?}");
    }
    setting.deliver().await;
    assert_eq!(setting.post.told().len(), 0);
}

#[tokio::test]
async fn whom_a_task_is_for_is_told_of_what_waits_in_it() {
    let setting = Setting::new(|_| {}).await;
    let bot = setting.agent("Bot").await;
    let [alice, silent] = [true, false].map(|on| setting.person(move |user| user.approver = on));
    for (person, times) in [(alice.await, 1), (silent.await, 0)] {
        let mut task = Task::new(bot.id, ClientId::generate_for_agent(), setting.server.now());
        task.on_behalf_of = Some(person.id);
        let detail = AuthorizationDetail::new(json!({ "type": "files", "actions": ["delete"] })).unwrap();
        let ends = setting.server.now().plus(Duration::from_secs(300));
        let request = JitRequest::new(&task, detail, setting.server.now(), ends);
        setting.server.announce_request(&setting.organization, &bot, &request).await.unwrap();
        setting.post.told.lock().unwrap().clear();
        setting.deliver().await;
        let told = setting.post.told();
        assert_eq!(told.len(), times);
        for notice in told {
            assert_eq!((notice.about, notice.user), (Subject::Permission, person.id));
            assert_eq!(notice.page.as_deref(), Some("https://auth.example/orgs/acme/waiting"));
            assert_eq!((notice.summary.as_str(), notice.expires_at), ("delete on files", Some(ends)));
        }
    }
}
