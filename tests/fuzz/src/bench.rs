//! A server in memory with an organization in it: agents of each sort, an application, a person, an MCP server, an AAuth resource. Every id and
//! every secret is known, so that an input can name them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent, IdentityType},
    api_key::ApiKey,
    audit::{Actor, Event, EventKind},
    capability::{Capability, Scope},
    client::{Client, Secrets},
    clock::{ManualClock, Timestamp},
    id::{AAuthIdentifier, AAuthResourceId, AgentId, ClientId, Number, OrgId, Slug, UserId},
    jwks::JwkSet,
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    secret::{Secret, SecretHash},
    server::AuthorizationServer,
    store::{MemoryStore, Stores},
    user::User,
    workload::WorkloadTrust,
};
use lumoauth_tower::LumoauthService;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::{FixedKeys, Pair, World};

/// When it is: 2026-09-21T14:13:20Z, in Unix seconds.
pub const NOW: u64 = 1_790_000_000;
/// The organization.
pub const ORG: &str = "acme";
/// Where its routes are.
pub const BASE: &str = "/orgs/acme/api/v1";
/// Its issuer.
pub const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
/// What names the AAuth agent.
pub const AAUTH_AGENT: &str = "https://agent.example";
/// What names the AAuth resource.
pub const AAUTH_RESOURCE: &str = "https://files.example";
/// The secret of the agent `cli_bot`.
pub const BOT_SECRET: &str = "lms_bot-secret-bot-secret";

/// The key of an administrator.
const ADMIN_KEY: &str = "lmk_acme_admin-key";

/// When the organization was made; a little before [`NOW`].
pub(crate) fn start() -> Timestamp {
    Timestamp::from_unix_seconds(NOW - 3600)
}

/// The server, and what is around it.
#[derive(Debug)]
pub struct Bench {
    /// Every endpoint.
    pub service: LumoauthService,
    /// Everybody else.
    pub world: Arc<World>,
    /// The key that the agents `cli_bot`, `cli_cluster` (as the platform's) and `cli_aauth` have registered, and the AAuth
    /// resource.
    pub key: Pair,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

fn capabilities(text: &str) -> Vec<Capability> {
    text.parse::<Scope>().expect("capabilities").as_slice().to_vec()
}

fn agent(slug: &str, number: u128) -> Agent {
    let mut agent = Agent::new(slug, Slug::parse(slug).expect("a slug"), start());
    agent.id = AgentId::from_uuid(Uuid::from_u128(number));
    agent.client_id = ClientId::parse(&format!("cli_{slug}")).expect("a client id");
    agent.capabilities = capabilities("read:* write:files tool:search delegate:user");
    agent
}

fn trusting(slug: &str, number: u128, trust: &Value) -> Agent {
    let mut agent = agent(slug, number);
    agent.identity_type = IdentityType::WorkloadIdentity;
    agent.workload = Some(WorkloadTrust::parse(trust).expect("a trust"));
    agent
}

impl Bench {
    /// A new one, the same as every other.
    pub fn new() -> Self {
        crate::block_on(Self::build())
    }

    async fn build() -> Self {
        let stores = Stores::all(Arc::new(MemoryStore::from_the_beginning()));
        let alice = UserId::from_uuid(Uuid::from_u128(7));
        let world = Arc::new(World { answer: Mutex::default(), asked: Mutex::default(), alice });
        let key = Pair::new("k1", 2);
        let keys =
            FixedKeys { access: Arc::new(Pair::new("own", 1)), aauth: Arc::new(Pair::new("aauth", 3)) };
        let server = AuthorizationServer::builder("https://auth.example", stores.clone(), Arc::new(keys))
            .with_clock(Arc::new(ManualClock::at(Timestamp::from_unix_seconds(NOW))))
            .with_fetch(world.clone())
            .build()
            .expect("the parts fit");
        fill(&stores, &key, alice).await;
        let service = LumoauthService::new(server).with_people(world.clone());
        Self { service, world, key }
    }

    /// The answer to a request.
    pub fn send(&self, request: Request<Bytes>) -> Answer {
        let request = request.map(Full::new);
        crate::block_on(async {
            let Ok(response) = self.service.clone().oneshot(request).await;
            let (parts, body) = response.into_parts();
            let Ok(body) = body.collect().await;
            Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }
        })
    }

    /// The answer of the token endpoint.
    pub fn token(&self, pairs: &[(&str, &str)]) -> Answer {
        let request = Request::post(format!("{BASE}/oauth/token"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form(pairs).into());
        let answer = self.send(request.expect("a request"));
        assert!(!answer.status.is_server_error(), "{answer:?}");
        answer
    }

    /// An access token of the agent `cli_bot`.
    pub fn bot_token(&self) -> String {
        let pairs =
            [("grant_type", "client_credentials"), ("client_id", "cli_bot"), ("client_secret", BOT_SECRET)];
        let answer = self.token(&pairs).json().expect("a token");
        answer["access_token"].as_str().expect("a token").to_owned()
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

async fn fill(stores: &Stores, key: &Pair, alice: UserId) {
    const OK: &str = "memory does not fail";
    let now = start();
    let on = |kind| Event::new(kind, Actor::system(), "made", now);
    let org = OrgId::parse(ORG).expect("a slug");
    let organization = Organization::new(org.clone(), "Acme", now);
    let _ = stores.organizations.insert(&organization, &on(EventKind::OrganizationCreated)).await.expect(OK);

    let mut bot = agent("bot", 1);
    bot.secrets = Secrets::one(&Secret::from(BOT_SECRET));
    bot.jwks = JwkSet::parse(json!({"keys": [key.jwk()]}).to_string().as_bytes()).ok();
    bot.redirect_uris = vec!["https://bot.example/cb".to_owned()];
    let cluster = json!({
        "provider": "kubernetes", "issuer": "https://cluster.example", "namespace": "ops", "serviceAccount": "bot",
        "jwks": {"keys": [key.jwk()]},
    });
    let cluster = trusting("cluster", 2, &cluster);
    let role = json!({"provider": "aws", "roleArn": "arn:aws:iam::123456789012:role/bot"});
    let role = trusting("aws", 3, &role);
    let named = |text| AAuthIdentifier::parse(text).expect("an identifier");
    let keys = JwkSet::parse(json!({"keys": [key.jwk()]}).to_string().as_bytes()).ok();
    let mut signing = agent("aauth", 4);
    signing.identity_type = IdentityType::Aauth;
    signing.jwks.clone_from(&keys);
    let mut identity = AAuthIdentity::new(named(AAUTH_AGENT));
    (identity.user_authorization, identity.delegation, identity.token_exchange) = (true, true, true);
    signing.aauth = Some(Box::new(identity));
    for agent in [bot, cluster, role, signing] {
        let _ = stores.agents.insert(&org, &agent, &on(EventKind::AgentCreated)).await.expect(OK);
    }

    let (mut app, _) = Client::new("Portal", now);
    app.client_id = ClientId::parse("app_portal").expect("a client id");
    app.number = Number::new(11);
    app.secrets = Secrets::one(&Secret::from("lms_app-secret-app-secret"));
    app.redirect_uris = vec!["https://portal.example/cb".to_owned()];
    app.allowed_scopes = capabilities("read:files admin consents");
    app.grant_types =
        ["authorization_code", "refresh_token", "client_credentials"].map(str::to_owned).to_vec();
    let _ = stores.clients.insert(&org, &app, &on(EventKind::ClientCreated)).await.expect(OK);

    let resource = ResourceUri::parse("https://mcp.acme.test/files").expect("a resource");
    let mut files = McpServer::new("Files", resource, now);
    files.number = Number::new(12);
    files.scopes_supported = capabilities("read:files write:files");
    let _ = stores.mcp_servers.insert(&org, &files, &on(EventKind::McpServerCreated)).await.expect(OK);

    let mut resource = AAuthResource::new("Files", named(AAUTH_RESOURCE), now);
    resource.id = AAuthResourceId::parse("res_000000000000000000000014").expect("an id");
    resource.number = Number::new(14);
    resource.jwks = keys;
    resource.supported_scopes = capabilities("read:files write:files");
    let _ =
        stores.aauth_resources.insert(&org, &resource, &on(EventKind::AAuthResourceCreated)).await.expect(OK);

    let mut user = User::new("alice@acme.test", now);
    user.id = alice;
    let _ = stores.users.insert(&org, &user, &on(EventKind::UserCreated)).await.expect(OK);

    let (mut admin, _) = ApiKey::new(&org, "admin", capabilities("admin authz:check"), now);
    admin.number = Number::new(13);
    admin.hash = SecretHash::of(ADMIN_KEY);
    let _ = stores.api_keys.insert(&org, &admin, &on(EventKind::ApiKeyCreated)).await.expect(OK);
}

/// `application/x-www-form-urlencoded` text.
pub fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
