//! An organization with people, agents, a client and an MCP server.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    audit::{Actor, Event, EventKind, Origin},
    capability::{Capability, Scope},
    client::{Client, Secrets},
    client_auth::AuthenticatedClient,
    clock::{Clock, ManualClock, Timestamp},
    consent::Consent,
    fetch::NoFetch,
    foreign_keys::ForeignKeys,
    grant::{
        Bearer, GrantContext, NewToken, Refusal, Resource, SignIn, TokenError, TokenResponse, id_token, issue,
    },
    id::{OrgId, Slug},
    keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::{ActOrder, Organization},
    secret::Secret,
    server::{AuthorizationServer, Introspection, TokenRequest},
    store::{AgentKey, ConsentKey, Handle, Insert, MemoryStore, Page, Revoked, Stores, Update, UserKey},
    token::{self, AccessClaims, VerifiedTokens},
    user::User,
    wire::Params,
};

pub(super) const NOW: u64 = 1_790_000_000;
pub(super) const ACCESS: &str = super::super::ACCESS_TOKEN;
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const SECRET: &str = "lms_of_everybody";

pub(super) struct Setting {
    pub(super) server: AuthorizationServer,
    pub(super) stores: Stores,
    pub(super) keys: Arc<KeyRing>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) organization: Organization,
    /// A client with the scope `admin`, to introspect with.
    admin: Client,
}

impl Setting {
    pub(super) async fn new() -> Self {
        Self::ordered(ActOrder::FirstOutermost).await
    }

    pub(super) async fn ordered(order: ActOrder) -> Self {
        let store = Arc::new(MemoryStore::new());
        let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
        Self::over(Stores::all(store), keys, order).await
    }

    pub(super) async fn over(stores: Stores, keys: Arc<KeyRing>, order: ActOrder) -> Self {
        Self::with_provider(stores, keys.clone(), keys, order).await
    }

    /// Over a server that gets its keys from `provider`, which gives those of `keys`.
    pub(super) async fn with_provider(
        stores: Stores,
        keys: Arc<KeyRing>,
        provider: Arc<dyn KeyProvider>,
        order: ActOrder,
    ) -> Self {
        let now = Timestamp::from_unix_seconds(NOW);
        let clock = Arc::new(ManualClock::at(now));
        let server = AuthorizationServer::builder("https://auth.example", stores.clone(), provider)
            .with_clock(clock.clone())
            .build()
            .unwrap();
        let organization = Self::organization(&stores, "acme", order).await;
        let (mut admin, _) = Client::new("Admin", now);
        admin.secrets = Secrets::one(&Secret::from(SECRET));
        admin.allowed_scopes = caps("admin");
        let on = event(EventKind::ClientCreated);
        assert_eq!(stores.clients.insert(&organization.id, &admin, &on).await.unwrap(), Insert::Inserted);
        Self { server, stores, keys, clock, organization, admin }
    }

    async fn organization(stores: &Stores, id: &str, order: ActOrder) -> Organization {
        let mut organization =
            Organization::new(OrgId::parse(id).unwrap(), id, Timestamp::from_unix_seconds(NOW));
        organization.act_order = order;
        let on = event(EventKind::OrganizationCreated);
        assert_eq!(stores.organizations.insert(&organization, &on).await.unwrap(), Insert::Inserted);
        organization
    }

    /// The same server, in another organization.
    pub(super) async fn elsewhere(&self) -> Self {
        let organization = Self::organization(&self.stores, "globex", ActOrder::FirstOutermost).await;
        Self {
            server: self.server.clone(),
            stores: self.stores.clone(),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            admin: self.admin.clone(),
            organization,
        }
    }

    pub(super) fn org(&self) -> &OrgId {
        &self.organization.id
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(super) async fn agent(&self, slug: &str, capabilities: &str) -> Arc<Agent> {
        self.agent_with(slug, capabilities, |_| ()).await
    }

    pub(super) async fn agent_with(
        &self,
        slug: &str,
        capabilities: &str,
        change: impl FnOnce(&mut Agent),
    ) -> Arc<Agent> {
        let mut agent = Agent::new(slug, Slug::parse(slug).unwrap(), self.now());
        agent.capabilities = caps(capabilities);
        agent.secrets = Secrets::one(&Secret::from(SECRET));
        change(&mut agent);
        let on = event(EventKind::AgentCreated);
        assert_eq!(self.stores.agents.insert(self.org(), &agent, &on).await.unwrap(), Insert::Inserted);
        Arc::new(agent)
    }

    /// The record as it is now.
    pub(super) async fn agent_now(&self, agent: &Agent) -> Arc<Agent> {
        self.stores.agents.find(self.org(), AgentKey::Id(agent.id)).await.unwrap().unwrap()
    }

    pub(super) async fn change_agent(&self, agent: &Agent, change: impl FnOnce(&mut Agent)) {
        let found = self.stores.agents.find(self.org(), AgentKey::Id(agent.id)).await.unwrap().unwrap();
        let mut next = (*found).clone();
        change(&mut next);
        let on = event(EventKind::AgentUpdated);
        assert_eq!(self.stores.agents.update(self.org(), &next, &on).await.unwrap(), Update::Updated);
    }

    pub(super) async fn user(&self, email: &str) -> Arc<User> {
        let mut user = User::new(email, self.now());
        user.name = Some("Alice".to_owned());
        let on = event(EventKind::UserCreated);
        assert_eq!(self.stores.users.insert(self.org(), &user, &on).await.unwrap(), Insert::Inserted);
        Arc::new(user)
    }

    pub(super) async fn change_user(&self, user: &User, change: impl FnOnce(&mut User)) {
        let found = self.stores.users.find(self.org(), UserKey::Id(user.id)).await.unwrap().unwrap();
        let mut next = (*found).clone();
        change(&mut next);
        let on = event(EventKind::UserBlocked);
        assert_eq!(self.stores.users.update(self.org(), &next, &on).await.unwrap(), Update::Updated);
    }

    pub(super) async fn client(&self, scopes: &str) -> Arc<Client> {
        let (mut client, _) = Client::new("App", self.now());
        client.secrets = Secrets::one(&Secret::from(SECRET));
        client.allowed_scopes = caps(scopes);
        let on = event(EventKind::ClientCreated);
        assert_eq!(self.stores.clients.insert(self.org(), &client, &on).await.unwrap(), Insert::Inserted);
        Arc::new(client)
    }

    pub(super) async fn mcp_server(&self, uri: &str, change: impl FnOnce(&mut McpServer)) -> McpServer {
        let mut server = McpServer::new("Data", ResourceUri::parse(uri).unwrap(), self.now());
        change(&mut server);
        let on = event(EventKind::McpServerCreated);
        assert_eq!(self.stores.mcp_servers.insert(self.org(), &server, &on).await.unwrap(), Insert::Inserted);
        server
    }

    pub(super) async fn consent(&self, user: &User, agent: &Agent, scopes: &str) -> Consent {
        let consent = Consent::new(user.id, agent.client_id.clone(), scope(scopes), self.now());
        let on = event(EventKind::ConsentGranted);
        assert_eq!(self.stores.consents.insert(self.org(), &consent, &on).await.unwrap(), Insert::Inserted);
        consent
    }

    pub(super) async fn withdraw(&self, consent: &Consent) {
        self.change_consent(consent, |consent| assert!(consent.withdraw())).await;
    }

    pub(super) async fn change_consent(&self, consent: &Consent, change: impl FnOnce(&mut Consent)) {
        let found = self.stores.consents.find(self.org(), ConsentKey::Id(consent.id)).await.unwrap().unwrap();
        let mut next = (*found).clone();
        change(&mut next);
        let on = event(EventKind::ConsentRevoked);
        assert_eq!(self.stores.consents.update(self.org(), &next, &on).await.unwrap(), Update::Updated);
    }

    async fn with_context<T>(&self, act: impl AsyncFnOnce(&GrantContext<'_>) -> T) -> T {
        let issuer = self.server.issuer(self.org());
        let (origin, refusal) = (Origin::default(), Refusal::default());
        act(&GrantContext {
            organization: &self.organization,
            issuer: &issuer,
            client: None,
            public_client: None,
            origin: &origin,
            stores: &self.stores,
            keys: &*self.keys,
            foreign_keys: &ForeignKeys::new(Arc::new(NoFetch)),
            fetch: &NoFetch,
            refusal: &refusal,
            verified: &VerifiedTokens::new(),
            now: self.now(),
        })
        .await
    }

    /// A token that `change` has had a hand in.
    pub(super) async fn issue_with(
        &self,
        bearer: Bearer<'_>,
        scopes: &str,
        change: impl FnOnce(&mut NewToken<'_>),
    ) -> String {
        let mut new = NewToken::new(bearer, Resource::Own, scope(scopes), 3600);
        change(&mut new);
        let issued = self.with_context(async |context| issue(context, new).await).await;
        issued.unwrap().access_token.expose().to_owned()
    }

    /// What a client has of a person: an access token that `change` has had a hand in, and the ID token beside it.
    pub(super) async fn with_id_token(
        &self,
        user: &User,
        client: &AuthenticatedClient,
        scopes: &str,
        change: impl FnOnce(&mut NewToken<'_>),
    ) -> (String, String) {
        let sign_in = SignIn { at: self.now(), amr: vec!["pwd".to_owned()] };
        let bearer = Bearer::User { user, client, sign_in: &sign_in };
        let mut new = NewToken::new(bearer, Resource::Own, scope(scopes), 3600);
        change(&mut new);
        self.with_context(async |context| {
            let claims = issue::claims(context, new).unwrap();
            let response = issue::signed(context, claims.clone()).await.unwrap();
            let id_token = id_token::sign(context, user, &response, &claims, Some("n")).await.unwrap();
            (response.access_token.expose().to_owned(), id_token)
        })
        .await
    }

    pub(super) async fn own(&self, agent: &Arc<Agent>) -> String {
        let holder = AuthenticatedClient::Agent(agent.clone());
        let scope = agent.narrow(None, &[]).unwrap().to_string();
        self.issue_with(Bearer::Itself(&holder), &scope, |_| ()).await
    }

    /// What a client has of a person.
    pub(super) async fn of_user(&self, user: &User, client: &AuthenticatedClient, scopes: &str) -> String {
        self.of_user_with(user, client, scopes, |_| ()).await
    }

    pub(super) async fn of_user_with(
        &self,
        user: &User,
        client: &AuthenticatedClient,
        scopes: &str,
        change: impl FnOnce(&mut NewToken<'_>),
    ) -> String {
        let sign_in = SignIn { at: self.now(), amr: vec!["pwd".to_owned()] };
        self.issue_with(Bearer::User { user, client, sign_in: &sign_in }, scopes, change).await
    }

    pub(super) async fn request(&self, fields: &[(&str, &str)]) -> Result<TokenResponse, TokenError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", GRANT).extend_pairs(fields);
        let params = Params::from_form(form.finish().as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        self.server.token(&self.organization, request).await
    }

    /// Exchanges `subject`, with an actor if there is one.
    pub(super) async fn exchange(
        &self,
        subject: &str,
        actor: Option<&str>,
        more: &[(&str, &str)],
    ) -> Result<TokenResponse, TokenError> {
        let mut fields = vec![("subject_token", subject), ("subject_token_type", ACCESS)];
        if let Some(actor) = actor {
            fields.extend([("actor_token", actor), ("actor_token_type", ACCESS)]);
        }
        fields.extend(more);
        self.request(&fields).await
    }

    pub(super) async fn exchanged(
        &self,
        subject: &str,
        actor: Option<&str>,
        more: &[(&str, &str)],
    ) -> String {
        let response = self.exchange(subject, actor, more).await.unwrap();
        assert_eq!(response.issued_token_type, Some(ACCESS));
        response.access_token.expose().to_owned()
    }

    pub(super) async fn claims(&self, token: &str) -> AccessClaims {
        let purpose = KeyPurpose::AccessToken;
        let keys = self.keys.verifying_keys(self.org(), purpose, self.now()).await.unwrap();
        token::verify(token, &keys, &self.server.issuer(self.org()), self.now()).unwrap()
    }

    pub(super) async fn introspect_as(&self, client_id: &str, token: &str) -> Introspection {
        let form = format!("token={token}&client_id={client_id}&client_secret={SECRET}");
        let params = Params::from_form(form.as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        self.server.introspect(&self.organization, request).await.unwrap()
    }

    /// What an administrator's client reads of a token.
    pub(super) async fn introspect(&self, token: &str) -> Value {
        json!(self.introspect_as(self.admin.client_id.as_str(), token).await)
    }

    pub(super) async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"] == true
    }

    pub(super) async fn revoke_as(&self, client_id: &str, token: &str) {
        let form = format!("token={token}&client_id={client_id}&client_secret={SECRET}");
        let params = Params::from_form(form.as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        self.server.revoke(&self.organization, request).await.unwrap();
    }

    pub(super) async fn revoke_handle(&self, handle: Handle) {
        let until = self.now().plus(Duration::from_secs(86_400));
        let on = event(EventKind::TokenRevoked);
        assert_eq!(
            self.stores.grants.revoke(self.org(), handle, until, &on).await.unwrap(),
            Revoked::Revoked
        );
    }

    /// The log, newest first.
    pub(super) async fn events(&self) -> Vec<Event> {
        let page = self.stores.audit.page(self.org(), &Default::default(), Page::first(100)).await.unwrap();
        page.items.into_iter().map(|entry| entry.event).collect()
    }
}

pub(super) fn event(kind: EventKind) -> Event {
    Event::new(kind, Actor::system(), "made for a test", Timestamp::from_unix_seconds(NOW))
}

pub(super) fn caps(text: &str) -> Vec<Capability> {
    scope(text).as_slice().to_vec()
}

pub(super) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

/// How a refusal looks on the wire.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(
    result: Result<T, TokenError>,
    status: u16,
    error: &str,
) -> TokenError {
    let refusal = result.unwrap_err();
    let wire = refusal.to_wire();
    assert_eq!((wire.status.as_u16(), wire.error), (status, error), "{refusal:?}");
    refusal
}

/// A person who uses an application, and two agents: one that may act for others, and one that may not.
pub(super) struct Cast {
    pub(super) on: Setting,
    pub(super) alice: Arc<User>,
    pub(super) app: AuthenticatedClient,
    pub(super) bot: Arc<Agent>,
    pub(super) tool: Arc<Agent>,
}

impl Cast {
    pub(super) async fn new() -> Self {
        Self::on(Setting::new().await).await
    }

    pub(super) async fn on(on: Setting) -> Self {
        let alice = on.user("alice@acme.test").await;
        let app = AuthenticatedClient::Client(on.client("openid profile email read:a read:b write:c").await);
        let bot = on.agent("bot", "read:a read:b tool:x delegate:on_behalf").await;
        let tool = on.agent("tool", "read:a tool:x").await;
        Self { on, alice, app, bot, tool }
    }

    /// Alice's token at the application.
    pub(super) async fn alices(&self, scopes: &str) -> String {
        self.on.of_user(&self.alice, &self.app, scopes).await
    }

    /// Alice's token at the bot, which is consent enough for the bot.
    pub(super) async fn alices_at_bot(&self, scopes: &str) -> String {
        self.on.of_user(&self.alice, &AuthenticatedClient::Agent(self.bot.clone()), scopes).await
    }

    /// The bot acts for Alice.
    pub(super) async fn delegated(&self, scopes: &str) -> String {
        let (subject, actor) = (self.alices_at_bot(scopes).await, self.on.own(&self.bot).await);
        self.on.exchanged(&subject, Some(&actor), &[]).await
    }

    /// The tool, for the bot, for Alice.
    pub(super) async fn nested(&self, scopes: &str) -> String {
        let (subject, actor) = (self.delegated(scopes).await, self.on.own(&self.tool).await);
        self.on.exchanged(&subject, Some(&actor), &[]).await
    }
}
