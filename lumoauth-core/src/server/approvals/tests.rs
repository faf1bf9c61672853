//! What was agreed to, once somebody wrote in its record, and once whom it is for was stopped.

use serde_json::json;

use super::*;
use crate::{
    api_key::ApiKey,
    capability::Capability,
    client_auth::AuthenticatedClient,
    id::Slug,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    principal::Identity,
    server::{RequestFacts, TokenRequest},
    store::{AgentStore, ApprovalStore, Insert, MemoryStore, OrganizationStore, UserStore},
    wire::Params,
};

const FACTS: RequestFacts<'_> = RequestFacts { method: "POST", path: "/" };

struct Setting {
    server: AuthorizationServer,
    store: Arc<MemoryStore>,
    organization: Organization,
    agent: Arc<Agent>,
    alice: Arc<User>,
    admin: Reviewer,
}

fn caller() -> Caller {
    Caller::new(Actor::system(), Origin::default())
}

fn administrator(org: &OrgId, now: Timestamp) -> Principal {
    let (key, _) = ApiKey::new(org, "key", vec![Capability::parse("admin").unwrap()], now);
    Principal::new(org.clone(), Identity::ApiKey(Arc::new(key)), None)
}

impl Setting {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        let stores = Stores::all(store.clone());
        let server =
            AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap();
        let now = server.now();
        let event = Event::new(EventKind::OrganizationCreated, Actor::system(), "made", now);
        let organization = Organization::new(OrgId::parse("acme").unwrap(), "Acme", now);
        let org = &organization.id;
        let made = OrganizationStore::insert(&*store, &organization, &event).await.unwrap();
        assert_eq!(made, Insert::Inserted);
        let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now);
        agent.capabilities = vec![Capability::parse("delegate:on_behalf").unwrap()];
        let made = AgentStore::insert(&*store, org, &agent, &event).await.unwrap();
        assert_eq!(made, Insert::Inserted);
        let [mut alice, mut admin] =
            ["alice", "admin"].map(|name| User::new(&format!("{name}@acme.test"), now));
        (alice.approver, admin.is_admin) = (true, true);
        for user in [&alice, &admin] {
            let made = UserStore::insert(&*store, org, user, &event).await.unwrap();
            assert_eq!(made, Insert::Inserted);
        }
        let admin = Arc::new(admin);
        let admin = server.reviewer_in_session(org, &admin, FACTS, &Origin::default()).await.unwrap();
        Self { server, store, organization, agent: Arc::new(agent), alice: Arc::new(alice), admin }
    }

    async fn opened(&self) -> Approval {
        let request: ApprovalRequest = serde_json::from_value(json!({
            "task_id": "t", "reason": "Pay invoice 88", "on_behalf_of": self.alice.email,
            "meta": { "amount": 12.5, "currency": "EUR" },
        }))
        .unwrap();
        let identity = Identity::Agent(self.agent.clone());
        let principal = Principal::new(self.organization.id.clone(), identity, None);
        let opened =
            self.server.request_approval(&principal, &self.agent, &request, &caller()).await.unwrap();
        self.found(&opened.approval.token).await
    }

    async fn found(&self, token: &ApprovalToken) -> Approval {
        let found = ApprovalStore::find(&*self.store, &self.organization.id, token).await.unwrap();
        (*found.unwrap()).clone()
    }

    async fn kept(&self, approval: &Approval) {
        let event = Event::new(EventKind::ApprovalRequested, Actor::system(), "made", self.server.now());
        let made =
            ApprovalStore::insert(&*self.store, &self.organization.id, approval, &event).await.unwrap();
        assert_eq!(made, NewApproval::Inserted);
    }

    async fn says_yes(&self, approval: &Approval) -> Result<Approval, ApiError> {
        let yes = ApprovalDecisionRequest::default();
        self.server.decide_approval(&self.admin, approval.token.as_str(), true, &yes, &caller()).await
    }

    /// Whether it is active for those who are shown it, and agreed to for those who charge.
    async fn is_good(&self, approval: &Approval) -> [bool; 2] {
        let (now, org) = (self.server.now(), &self.organization.id);
        let (params, origin) = (Params::default(), Origin::default());
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        let asker = AuthenticatedClient::Agent(self.agent.clone());
        let shown =
            self.server.introspect_approval(&self.organization, &asker, &approval.token, &request, now);
        let principal = Principal::new(org.clone(), Identity::Agent(self.agent.clone()), None);
        let payers = Payers::of_caller(&principal, &self.agent);
        let usage = crate::budget::Usage { tokens: 1, calls: 1, micro_usd: 1 };
        let token = approval.token.as_str();
        let charged = self.server.is_agreed_to(org, &payers, token, &usage, None, now).await.unwrap();
        [shown.await.unwrap().active, charged]
    }
}

/// The same under another token, as if somebody had written in the record.
fn rewritten(approval: &Approval, change: impl FnOnce(&mut Approval)) -> Approval {
    let mut changed = Approval { token: ApprovalToken::generate(), ..approval.clone() };
    change(&mut changed);
    changed
}

#[tokio::test]
async fn a_record_that_somebody_changed_grants_nothing() {
    let setting = Setting::new().await;
    let opened = setting.opened().await;
    assert_eq!(opened.action_hash, Some(ActionHash::of(&opened.action())));
    let changes: [fn(&mut Approval); 8] = [
        |_| {},
        |it| it.task_id = "u".to_owned(),
        |it| it.reason = "Pay invoice 89".to_owned(),
        |it| it.impact = Impact::Low,
        |it| it.on_behalf_of = None,
        |it| drop(it.meta.insert("amount".to_owned(), json!(1250))),
        |it| drop(it.meta.remove("currency")),
        |it| drop(it.meta.insert("more".to_owned(), Value::Null)),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let is_changed = n > 0;
        // Changed while it waits.
        let waiting = rewritten(&opened, change);
        setting.kept(&waiting).await;
        let said = setting.says_yes(&waiting).await;
        assert_eq!(matches!(said, Err(ApiError::Forbidden(_))), is_changed, "{n}: {said:?}");
        assert_eq!(setting.found(&waiting.token).await.decision.is_none(), is_changed, "{n}");
        // Changed after somebody agreed.
        let decision = Decision {
            approved: true,
            by: Some(setting.admin.user().id),
            number: None,
            epoch: 0,
            epoch_of_whom: None,
            at: setting.server.now(),
            note: None,
        };
        let agreed = rewritten(&opened.with_decision(decision), change);
        setting.kept(&agreed).await;
        assert_eq!(setting.is_good(&agreed).await, [!is_changed; 2], "{n}");
    }
}

#[tokio::test]
async fn one_letter_is_not_another_that_looks_like_it() {
    let setting = Setting::new().await;
    let mut opened = setting.opened().await;
    opened.reason = "Caf\u{e9}".to_owned();
    opened.action_hash = Some(ActionHash::of(&opened.action()));
    assert!(opened.is_as_asked());
    opened.reason = "Cafe\u{301}".to_owned();
    assert!(!opened.is_as_asked());
}

#[tokio::test]
async fn what_was_agreed_to_for_somebody_ends_with_their_block_for_good() {
    let setting = Setting::new().await;
    let [agreed, waiting] = [setting.opened().await, setting.opened().await];
    setting.says_yes(&agreed).await.unwrap();
    assert_eq!(setting.is_good(&agreed).await, [true; 2]);
    for (blocked, during) in [(true, "blocked"), (false, "unblocked")] {
        let (org, name) = (&setting.organization.id, &setting.alice.email);
        let by = administrator(org, setting.server.now());
        setting.server.set_user_blocked(org, name, blocked, &by, &caller()).await.unwrap();
        assert_eq!(setting.is_good(&agreed).await, [false; 2], "{during}");
        let said = setting.says_yes(&waiting).await;
        assert_eq!(matches!(said, Err(ApiError::Conflict(_))), blocked, "{during}: {said:?}");
    }
    // Whoever agrees afterwards agrees to it for her as she is now.
    assert_eq!(setting.is_good(&waiting).await, [true; 2]);
}
