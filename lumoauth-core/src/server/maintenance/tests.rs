//! What maintenance tells of requests that nobody answered in time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    approval::{Approval, Decision},
    audit::{Actor, Event, EventKind},
    clock::{Clock, ManualClock, Timestamp},
    fetch::{Fetch, FetchError, FetchRequest},
    id::{AgentId, ClientId, OrgId},
    jit::{AuthorizationDetail, Callback, History, JitRequest, NewRequest, Task},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{
        ApprovalStore, AuditFilter, Decide, Insert, JitStore, MemoryStore, NewApproval, OrganizationStore,
        Page, RequestEvents, Stores,
    },
};

const LIFE: Duration = Duration::from_secs(300);

/// Takes every post, and never answers.
const SLOW: &str = "slow.example";

/// Hears every post.
#[derive(Debug, Default)]
struct Ears(Mutex<Vec<(String, Value)>>);

#[async_trait]
impl Fetch for Ears {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        if request.url.host_str() == Some(SLOW) {
            // Nobody answers.
            std::future::pending::<()>().await;
        }
        let body = request.json.expect("a post of JSON");
        let body = serde_json::from_str(body.expose()).expect("JSON");
        self.0.lock().unwrap().push((request.url.to_string(), body));
        Ok(Vec::new())
    }
}

struct Setting {
    server: AuthorizationServer,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    ears: Arc<Ears>,
    org: OrgId,
}

impl Setting {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
        let (store, ears) = (Arc::new(MemoryStore::new()), Arc::new(Ears::default()));
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let stores = Stores::all(store.clone());
        let server = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys))
            .with_clock(clock.clone())
            .with_fetch(ears.clone())
            .build()
            .unwrap();
        let org = OrgId::parse("acme").unwrap();
        let organization = Organization::new(org.clone(), "Acme", clock.now());
        let made = some_event(clock.now());
        assert_eq!(OrganizationStore::insert(&*store, &organization, &made).await.unwrap(), Insert::Inserted);
        Self { server, store, clock, ears, org }
    }

    /// A request that nobody answers, of an agent that wants to hear of it.
    async fn waits(&self, url: &str) -> JitRequest {
        let now = self.clock.now();
        let task = Task::new(AgentId::generate(), ClientId::generate_for_agent(), now);
        let added = self.store.insert_task(&self.org, &task, &some_event(now)).await.unwrap();
        assert_eq!(added, Insert::Inserted);
        let detail = AuthorizationDetail::new(json!({ "type": "files", "actions": ["delete"] })).unwrap();
        let mut request = JitRequest::new(&task, detail, now, now.plus(LIFE));
        request.callback = Some(Callback { url: url.to_owned(), tries: 0, due: Some(request.expires_at) });
        let (done, suspended) = (some_event(now), some_event(now));
        let on = RequestEvents { done: &done, suspended: &suspended };
        let made = self.store.insert_request(&self.org, &request, History::default(), now, on).await.unwrap();
        assert_eq!(made, NewRequest::Inserted);
        request
    }

    async fn told(&self, kind: EventKind) -> usize {
        let filter = AuditFilter { kind: Some(kind.as_str().to_owned()), ..AuditFilter::default() };
        let listing = self.server.audit_log(&self.org, &filter, Page::first(100)).await.unwrap();
        listing.items.len()
    }
}

fn some_event(now: Timestamp) -> Event {
    Event::new(EventKind::OrganizationCreated, Actor::system(), "made", now)
}

#[tokio::test]
async fn the_end_of_an_approval_that_nobody_decided_is_told_once() {
    let setting = Setting::new().await;
    let now = setting.clock.now();
    let [silent, answered] = [(); 2]
        .map(|()| Approval::new(AgentId::generate(), ClientId::generate_for_agent(), now, now.plus(LIFE)));
    for approval in [&silent, &answered] {
        let added =
            ApprovalStore::insert(&*setting.store, &setting.org, approval, &some_event(now)).await.unwrap();
        assert_eq!(added, NewApproval::Inserted);
    }
    let yes = Decision {
        approved: true,
        by: None,
        number: None,
        epoch: 0,
        epoch_of_whom: None,
        at: now,
        note: None,
    };
    let on = some_event(now);
    let said = setting.store.decide(&setting.org, &answered, &yes, now, &on).await.unwrap();
    assert_eq!(said, Decide::Decided);

    setting.clock.advance(LIFE.saturating_sub(Duration::from_millis(1)));
    setting.server.maintain_once().await.unwrap();
    assert_eq!(setting.told(EventKind::ApprovalExpired).await, 0);
    for _ in 0..3 {
        setting.clock.advance(Duration::from_millis(1));
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.told(EventKind::ApprovalExpired).await, 1);
    }
}

#[tokio::test]
async fn whoever_waits_for_a_permission_hears_that_nobody_answered() {
    let setting = Setting::new().await;
    let url = "https://callback.example/heard";
    let request = setting.waits(url).await;

    setting.clock.advance(LIFE.saturating_sub(Duration::from_millis(1)));
    setting.server.maintain_once().await.unwrap();
    assert!(setting.ears.0.lock().unwrap().is_empty());
    for _ in 0..3 {
        setting.clock.advance(Duration::from_millis(1));
        setting.server.maintain_once().await.unwrap();
        let heard = setting.ears.0.lock().unwrap();
        let [(to, body)] = heard.as_slice() else { panic!("one post: {heard:?}") };
        assert_eq!(to, url);
        assert_eq!((&body["request_id"], &body["status"]), (&json!(request.id.as_str()), &json!("expired")));
    }
}

#[tokio::test]
async fn a_callback_that_never_answers_holds_up_no_other() {
    let setting = Setting::new().await;
    let slow = setting.waits("https://slow.example/").await;
    let heard = setting.waits("https://callback.example/heard").await;
    setting.clock.advance(LIFE);
    let all = setting.server.deliver_callbacks();
    let told = async {
        while setting.ears.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = all => panic!("one never answers"),
        () = told => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("nobody was told"),
    }
    let said = setting.ears.0.lock().unwrap()[0].1["request_id"].clone();
    assert_eq!(said, heard.id.as_str());
    // While it is under way it is nobody else's: no try takes as long as the pause until the next one.
    setting.clock.advance(Duration::from_secs(9));
    assert_eq!(setting.store.due_callbacks(setting.clock.now(), 10).await.unwrap(), []);
    setting.clock.advance(Duration::from_secs(1));
    let due = setting.store.due_callbacks(setting.clock.now(), 10).await.unwrap();
    assert!(due.iter().any(|(_, request)| request.id == slow.id), "{due:?}");
}
