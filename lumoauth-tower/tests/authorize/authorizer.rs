//! An engine of a host's own decides at every door that answers whether something may be done (contract 2.6 and 2.7).

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::StatusCode;
use lumoauth_core::{
    authz::Authorizer,
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    policy::{DecidedBy, Question, Verdict},
    server::AuthorizationServer,
    store::{MemoryStore, StoreError},
};
use lumoauth_tower::LumoauthService;
use serde_json::{Value, json};

use crate::bench::{Answer, BASE, Bench, capabilities, send_anyhow};

/// What the host's engine says, and what it was asked.
#[derive(Debug, Default)]
struct Host {
    says: Mutex<Says>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Says {
    #[default]
    Yes,
    No,
    /// It answers less than it was asked.
    Nothing,
    Down,
}

#[async_trait]
impl Authorizer for Host {
    async fn decide(&self, org: &OrgId, questions: &[Question<'_>]) -> Result<Vec<Verdict>, StoreError> {
        assert_eq!(org.as_str(), "acme");
        let mut asked = self.asked.lock().unwrap();
        asked.extend(questions.iter().map(|question| question.action.to_string()));
        let all = |verdict: fn() -> Verdict| questions.iter().map(|_| verdict()).collect();
        match *self.says.lock().unwrap() {
            Says::Yes => Ok(all(|| Verdict::allow("The host says so."))),
            Says::No => Ok(all(|| Verdict::deny(DecidedBy::Host, "The host says no."))),
            Says::Nothing => Ok(Vec::new()),
            Says::Down => Err(StoreError::unavailable("host", "it is down")),
        }
    }
}

/// A bench whose server asks the host, over the same stores.
async fn asking(host: &Arc<Host>) -> (Bench, LumoauthService) {
    let bench = Bench::new().await;
    let keys =
        Arc::new(KeyRing::new(Arc::new(MemoryStore::new()), MasterKey::generate(), KeyRingConfig::default()));
    let server = AuthorizationServer::builder("https://auth.example", bench.stores.clone(), keys)
        .with_clock(bench.clock.clone())
        .with_authorizer(host.clone())
        .build()
        .unwrap();
    (bench, LumoauthService::new(server))
}

/// A door, what it is asked, and where its answer is.
type Asked = (&'static str, Value, fn(&Value) -> Value);

fn doors(agent: &str) -> [Asked; 8] {
    let one = json!({ "permission": "files.shred" });
    let list = json!({ "permissions": ["files.shred"] });
    let evaluation = json!({
        "subject": { "type": "agent", "id": agent }, "action": { "name": "shred" },
        "resource": { "type": "files", "id": "1" },
    });
    let mut evaluations = evaluation.clone();
    evaluations["evaluations"] = json!([{}]);
    [
        ("agents/ask", json!({ "action": "files.shred" }), |answer| answer["allowed"].clone()),
        ("authz/check", one, |answer| answer["allowed"].clone()),
        ("authz/check-bulk", list.clone(), |answer| answer["results"]["files.shred"].clone()),
        ("authz/check-any", list.clone(), |answer| answer["allowed"].clone()),
        ("authz/check-all", list, |answer| answer["allowed"].clone()),
        ("authz/v1/evaluation", evaluation, |answer| answer["decision"].clone()),
        ("authz/v1/evaluations", evaluations, |answer| answer["evaluations"][0]["decision"].clone()),
        ("agents/ask", json!({ "action": "read:files" }), |answer| answer["allowed"].clone()),
    ]
}

struct Caller {
    token: String,
    agent: String,
}

async fn caller(bench: &Bench, service: &LumoauthService) -> Caller {
    // Both are in its token, so that nothing but the engine says no.
    bench.change_bot(|bot| bot.capabilities = capabilities("read:* files.shred")).await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &*bench.bot.id),
        ("client_secret", &bench.bot.secret),
    ];
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let path = format!("{BASE}/oauth/token");
    let answer = send_anyhow(service, "POST", &path, &headers, &crate::bench::form(&form)).await;
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let agent = crate::bench::payload(&token)["agent_id"].as_str().unwrap().to_owned();
    Caller { token, agent }
}

async fn knock(service: &LumoauthService, token: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    send_anyhow(service, "POST", &format!("{BASE}/{path}"), &headers, &body.to_string()).await
}

#[tokio::test]
async fn the_answer_of_the_host_is_the_answer_of_every_door() {
    let host = Arc::new(Host::default());
    let (bench, service) = asking(&host).await;
    let caller = caller(&bench, &service).await;
    for (says, allowed) in [(Says::Yes, true), (Says::No, false), (Says::Nothing, false)] {
        *host.says.lock().unwrap() = says;
        for (path, body, answer) in doors(&caller.agent) {
            host.asked.lock().unwrap().clear();
            let got = knock(&service, &caller.token, path, &body).await;
            assert_eq!(got.status, StatusCode::OK, "{path}: {}", got.text);
            assert_eq!(answer(&got.json()), allowed, "{path} when it says {says:?}: {}", got.text);
            let asked = host.asked.lock().unwrap();
            assert!(!asked.is_empty(), "{path} did not ask");
        }
    }
    // Whose answer it is, is said.
    *host.says.lock().unwrap() = Says::No;
    let got = knock(&service, &caller.token, "agents/ask", &json!({ "action": "files.shred" })).await.json();
    assert_eq!((&got["decided_by"], &got["reason"]), (&json!("host"), &json!("The host says no.")), "{got}");
}

#[tokio::test]
async fn an_engine_that_is_down_allows_nothing_at_any_door() {
    let host = Arc::new(Host::default());
    let (bench, service) = asking(&host).await;
    let caller = caller(&bench, &service).await;
    *host.says.lock().unwrap() = Says::Down;
    for (path, body, _) in doors(&caller.agent) {
        let got = knock(&service, &caller.token, path, &body).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", got.text);
        assert!(got.headers.contains_key("retry-after"), "{path}");
        assert!(!got.text.contains("it is down"), "what failed is for the log: {}", got.text);
    }
    // Nor is anything on record as allowed.
    for event in bench.log("agent.action").await {
        let said = serde_json::to_value(&event).unwrap().to_string();
        assert!(!said.contains("\"allowed\":true") && !said.contains("\"decision\":\"allow\""), "{said}");
    }
    // It is asked again as soon as it answers.
    *host.says.lock().unwrap() = Says::Yes;
    let got = knock(&service, &caller.token, "agents/ask", &json!({ "action": "files.shred" })).await.json();
    assert_eq!(got["allowed"], true, "{got}");
}

/// What no token of the caller covers stays closed, whatever the host says.
#[tokio::test]
async fn a_host_opens_nothing_that_the_token_leaves_out() {
    let host = Arc::new(Host::default());
    let (bench, service) = asking(&host).await;
    bench.change_bot(|bot| bot.capabilities = capabilities("read:* files.shred")).await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &*bench.bot.id),
        ("client_secret", &bench.bot.secret),
        ("scope", "read:files"),
    ];
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let path = format!("{BASE}/oauth/token");
    let answer = send_anyhow(&service, "POST", &path, &headers, &crate::bench::form(&form)).await.json();
    let token = answer["access_token"].as_str().unwrap();
    let agent = crate::bench::payload(token)["agent_id"].as_str().unwrap().to_owned();
    for (path, body, answer) in &doors(&agent)[..7] {
        let got = knock(&service, token, path, body).await;
        assert_eq!((got.status, answer(&got.json())), (StatusCode::OK, json!(false)), "{path}: {}", got.text);
    }
}
