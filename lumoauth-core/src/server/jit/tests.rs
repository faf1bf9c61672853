//! Requests, when the hot store is away, and when somebody wrote in a record.

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::{
    audit::{Actor, EventKind, Origin},
    id::Slug,
    jit::{AuthorizationDetail, NewRequest, RequestStatus, Ruling},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    principal::Identity,
    server::RequestFacts,
    store::{
        Admission, AgentStore, JitStore, MemoryStore, OrganizationStore, RateLimit, RateLimitStore,
        RequestEvents,
    },
    user::User,
};

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
    organization: Organization,
    agent: Arc<Agent>,
    event: Event,
}

impl Setting {
    async fn new(change: impl FnOnce(&mut Stores)) -> Self {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let mut stores = Stores::all(store.clone());
        change(&mut stores);
        let server =
            AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap();
        let now = server.now();
        let event = Event::new(EventKind::OrganizationCreated, Actor::system(), "made", now);
        let organization = Organization::new(OrgId::parse("acme").unwrap(), "Acme", now);
        let made = OrganizationStore::insert(&*store, &organization, &event).await.unwrap();
        assert_eq!(made, Insert::Inserted);
        let agent = Arc::new(Agent::new("Bot", Slug::parse("bot").unwrap(), now));
        let made = AgentStore::insert(&*store, &organization.id, &agent, &event).await.unwrap();
        assert_eq!(made, Insert::Inserted);
        Self { server, store, organization, agent, event }
    }

    async fn task_for(&self, user: UserId) -> Task {
        let mut task = Task::new(self.agent.id, self.agent.client_id.clone(), self.server.now());
        task.on_behalf_of = Some(user);
        task.standing = serde_json::to_value(Standing::default()).unwrap();
        let made = self.store.insert_task(&self.organization.id, &task, &self.event).await.unwrap();
        assert_eq!(made, Insert::Inserted);
        task
    }

    fn principal(&self) -> Principal {
        Principal::new(self.organization.id.clone(), Identity::Agent(self.agent.clone()), None)
    }
}

const FACTS: RequestFacts<'_> = RequestFacts { method: "POST", path: "/" };

fn caller() -> Caller {
    Caller::new(Actor::system(), Origin::default())
}

#[tokio::test]
async fn a_request_that_was_made_is_answered_though_nobody_is_told() {
    let setting = Setting::new(|stores| stores.rate_limits = Arc::new(Away)).await;
    let task = setting.task_for(UserId::generate()).await;
    let request: JitPermissionRequest = serde_json::from_value(json!({
        "task_id": task.id.as_str(),
        "authorization_details": { "type": "files", "actions": ["delete"] },
    }))
    .unwrap();
    let Setting { server, organization, agent, .. } = &setting;
    let (principal, caller) = (setting.principal(), caller());
    let made = server.request_permission(organization, &principal, agent, &request, &caller).await.unwrap();
    assert_eq!((made.status, made.needs_consent), (RequestStatus::Pending, true));
    assert!(setting.store.find_request(&organization.id, &made.request.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_record_that_somebody_changed_grants_nothing() {
    let setting = Setting::new(|_| {}).await;
    let Setting { server, store, organization, agent, event } = &setting;
    let (org, now) = (&organization.id, server.now());
    let user = Arc::new(User::new("alice@acme.test", now));
    let task = setting.task_for(user.id).await;
    let reviewer = server.reviewer_in_session(org, &user, FACTS, &Origin::default()).await.unwrap();
    let detail =
        |actions: &str| AuthorizationDetail::new(json!({ "type": "files", "actions": [actions] })).unwrap();
    let ruling = Ruling {
        approved: true,
        by: None,
        number: None,
        at: now,
        ttl: 300,
        notes: None,
        agent_message: None,
    };
    for (changed, ruling) in
        [(true, None), (true, Some(ruling.clone())), (false, None), (false, Some(ruling))]
    {
        let mut request = JitRequest::new(&task, detail("read"), now, task.expires_at);
        if changed {
            request.detail = detail("delete");
        }
        request.ruling = ruling;
        let on = RequestEvents { done: event, suspended: event };
        let history = store.find_task(org, &task.id).await.unwrap().unwrap().history(now);
        let made = store.insert_request(org, &request, history, now, on).await.unwrap();
        assert_eq!(made, NewRequest::Inserted);
        let refused = if request.ruling.is_none() {
            let yes = JitApproval::default();
            server.approve_permission(&reviewer, request.id.as_str(), &yes, &caller()).await.err()
        } else {
            let (principal, id) = (setting.principal(), request.id.as_str());
            // Nothing stands behind this task, so there is no token either way: it is refused for one reason or another.
            let issued = server.issue_jit_token(organization, &principal, agent, id, &caller()).await;
            changed.then(|| issued.unwrap_err())
        };
        assert_eq!(matches!(refused, Some(ApiError::Forbidden(_))), changed, "{refused:?}");
    }
}
