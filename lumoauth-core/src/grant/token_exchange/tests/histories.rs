//! Random organizations, grants, exchanges and revocations against a small model.
//!
//! 1. No token carries more than every token and every agent that it comes from, nor more than the client of a person's
//!    token may still have. Who a person is, is meant literally.
//! 2. An agent begins to act for a person only if the person agreed to it, and everything that comes of it carries, wherever
//!    it is for, only what each consent that it stands on allows there.
//! 3. No token outlives the end of anything that it comes from, and none ends without a cause.
//! 4. A chain grows by one actor at a time, at its end, and none is in it twice.
//! 5. A token is for exactly what was asked for, or for whoever uses it; what is for a resource is handed on by the party of
//!    that resource only, and a person's token is narrowed by its own client only.
//!
//! Signatures are left out: they are tested elsewhere and would be all that this measures.

mod change;
mod check;

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        decide,
        presented::{Actor, Request, Token},
    },
    dice::Dice,
    setting::{NOW, caps, event},
};
use crate::{
    agent::{Agent, DelegationConsent},
    audit::{EventKind, Origin},
    capability::{Capability, Scope},
    client::Client,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::{Consent, Place},
    fetch::NoFetch,
    foreign_keys::ForeignKeys,
    grant::{
        Bearer, GrantContext, MAX_ACTORS, NewToken, Refusal, Resource, SignIn, TokenError, id_token,
        issue::alive,
    },
    id::{ClientId, McpServerId, OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::{ActOrder, Organization},
    store::{Insert, MemoryStore, StoreError, Stores},
    token::{AccessClaims, ConsentEpoch, VerifiedTokens, family_handle, principal_of},
    user::User,
};

/// Without optimization each takes ten times as long.
const HISTORIES: u64 = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
const STEPS: usize = 36;
const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
const SCOPES: [&str; 8] = ["read:a", "read:b", "read:*", "write:a", "tool:x", "tool:*", "*", "openid"];
/// What is asked about: whatever a scope covers, one of these tells.
const ACTIONS: [&str; 7] = ["read:a", "read:b", "read:z", "write:a", "tool:x", "tool:y", "openid"];
/// The vocabulary of the server `urn:mcp:narrow`.
const NARROW: [&str; 2] = ["read:a", "tool:x"];

/// What a token stands on, as the model sees it.
struct Node {
    claims: Arc<AccessClaims>,
    /// Tokens that it comes from, itself among them.
    lineage: BTreeSet<usize>,
    /// Ids and epochs of the organization, agents, people, clients and consents that it and they stand on.
    stands_on: BTreeSet<(String, u32)>,
    /// The consents among these, by their place in the world.
    agreed: BTreeSet<usize>,
    families: BTreeSet<usize>,
}

/// What an exchange was asked for.
struct Asked<'a> {
    subject: usize,
    actor: Option<usize>,
    target: Option<&'a str>,
    /// The client that proved itself.
    client: Option<&'a ClientId>,
}

struct World {
    stores: Stores,
    keys: Arc<KeyRing>,
    organization: Organization,
    now: Timestamp,
    agents: Vec<Agent>,
    users: Vec<User>,
    app: Client,
    consents: Vec<Consent>,
    servers: Vec<McpServer>,
    nodes: Vec<Node>,
    revoked: BTreeSet<usize>,
    ended_families: BTreeSet<usize>,
    families: usize,
}

impl World {
    async fn new(dice: &mut Dice, keys: Arc<KeyRing>) -> Self {
        let now = Timestamp::from_unix_seconds(NOW);
        let stores = Stores::all(Arc::new(MemoryStore::new()));
        let mut organization = Organization::new(OrgId::parse("acme").unwrap(), "Acme", now);
        organization.act_order = [ActOrder::FirstOutermost, ActOrder::Rfc8693][dice.roll(2)];
        let org = organization.id.clone();
        added(stores.organizations.insert(&organization, &event(EventKind::OrganizationCreated)).await);
        let mut agents = Vec::new();
        for n in 0..5 {
            let slug = format!("agent-{n}");
            let mut agent = Agent::new(&*slug, Slug::parse(&slug).unwrap(), now);
            agent.capabilities = dice.some_of(&SCOPES);
            agent.can_act_on_behalf_of_users = dice.roll(4) > 0;
            if dice.once_in(6) {
                agent.delegation_consent = DelegationConsent::Implicit;
            }
            if dice.once_in(4) {
                agent.allowed_tools = vec!["x".to_owned()];
            }
            added(stores.agents.insert(&org, &agent, &event(EventKind::AgentCreated)).await);
            agents.push(agent);
        }
        let (mut app, _) = Client::new("App", now);
        app.allowed_scopes = caps("*");
        added(stores.clients.insert(&org, &app, &event(EventKind::ClientCreated)).await);
        let mut servers = Vec::new();
        for uri in ["urn:mcp:open", "urn:mcp:narrow"] {
            let mut server = McpServer::new(uri, ResourceUri::parse(uri).unwrap(), now);
            if uri == "urn:mcp:narrow" {
                server.scopes_supported = caps(&NARROW.join(" "));
            }
            server.resource_client_id = Some(agents[dice.roll(agents.len())].client_id.clone());
            added(stores.mcp_servers.insert(&org, &server, &event(EventKind::McpServerCreated)).await);
            servers.push(server);
        }
        let (mut users, mut consents) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let user = User::new(&format!("{n}@acme.test"), now);
            added(stores.users.insert(&org, &user, &event(EventKind::UserCreated)).await);
            for client in agents.iter().map(|agent| &agent.client_id).chain([&app.client_id]) {
                if dice.once_in(3) {
                    continue;
                }
                let own = Scope::new(dice.some_of(&SCOPES));
                let mut consent = Consent::new(user.id, client.clone(), own, now);
                for server in &servers {
                    let place = Place::Mcp(server.server_id.clone());
                    consent.grant(Some(&place), &Scope::new(dice.some_of(&SCOPES)));
                }
                added(stores.consents.insert(&org, &consent, &event(EventKind::ConsentGranted)).await);
                consents.push(consent);
            }
            users.push(user);
        }
        Self {
            stores,
            keys,
            organization,
            now,
            agents,
            users,
            app,
            consents,
            servers,
            nodes: Vec::new(),
            revoked: BTreeSet::new(),
            ended_families: BTreeSet::new(),
            families: 0,
        }
    }

    fn org(&self) -> &OrgId {
        &self.organization.id
    }

    async fn step(&mut self, dice: &mut Dice, tally: &mut Tally) {
        match dice.roll(26) {
            0..=2 => self.mint_for_agent(dice).await,
            3 | 4 => self.mint_for_person(dice).await,
            5..=20 => self.exchange(dice, tally).await,
            21 => self.revoke(dice).await,
            22 => self.change_agent(dice).await,
            23 => self.change_person(dice).await,
            24 => self.change_other(dice).await,
            _ => self.now = self.now.plus(std::time::Duration::from_secs(dice.roll(400) as u64)),
        }
    }

    async fn with_context<T>(
        &self,
        client: Option<&AuthenticatedClient>,
        act: impl AsyncFnOnce(&GrantContext<'_>) -> T,
    ) -> T {
        let (origin, refusal) = (Origin::default(), Refusal::default());
        act(&GrantContext {
            organization: &self.organization,
            issuer: ISSUER,
            client,
            public_client: None,
            key: None,
            origin: &origin,
            stores: &self.stores,
            keys: &*self.keys,
            foreign_keys: &ForeignKeys::new(Arc::new(NoFetch)),
            fetch: &NoFetch,
            refusal: &refusal,
            verified: &VerifiedTokens::new(),
            now: self.now,
        })
        .await
    }

    /// A token that stands on the organization and on what `stands_on` lists, signed if all of it is alive.
    async fn mint(
        &mut self,
        new: NewToken<'_>,
        stands_on: &[(String, u32)],
        agreed: Option<usize>,
        family: Option<usize>,
    ) {
        if let Ok(claims) = self.with_context(None, async |context| alive(context, new).await).await {
            let organization = (self.org().to_string(), self.organization.epoch);
            self.nodes.push(Node {
                claims: Arc::new(claims),
                lineage: [self.nodes.len()].into(),
                stands_on: stands_on.iter().cloned().chain([organization]).collect(),
                agreed: agreed.into_iter().collect(),
                families: family.into_iter().collect(),
            });
        }
    }

    async fn mint_for_agent(&mut self, dice: &mut Dice) {
        let agent = self.agents[dice.roll(self.agents.len())].clone();
        let scope = if dice.once_in(2) { Some(Scope::new(dice.some_of(&SCOPES))) } else { None };
        let Ok(scope) = agent.narrow(scope.as_ref(), &[]) else { return };
        let stands_on = [(agent.id.to_string(), agent.epoch)];
        let holder = AuthenticatedClient::Agent(Arc::new(agent));
        let lifetime = 120 + u32::try_from(dice.roll(2000)).unwrap();
        let new = NewToken::new(Bearer::Itself(&holder), Resource::Own, scope, lifetime);
        self.mint(new, &stands_on, None, None).await;
    }

    /// What a person lets a client have, for our routes or for a server. Who is not asked about an application is one whom
    /// its owner vouches for.
    async fn mint_for_person(&mut self, dice: &mut Dice) {
        let user = self.users[dice.roll(self.users.len())].clone();
        let (client, id) = if dice.once_in(2) {
            (AuthenticatedClient::Client(Arc::new(self.app.clone())), self.app.client_id.to_string())
        } else {
            let agent = self.agents[dice.roll(self.agents.len())].clone();
            let id = agent.id.to_string();
            (AuthenticatedClient::Agent(Arc::new(agent)), id)
        };
        let agreed = self.agreement(&user.id.to_string(), client.client_id());
        if agreed.is_none() && matches!(client, AuthenticatedClient::Agent(_)) {
            return;
        }
        let server = dice.once_in(2).then(|| self.servers[dice.roll(self.servers.len())].clone());
        let place = server.as_ref().map(|server| &server.server_id);
        let mut chosen = dice.some_of(&SCOPES);
        if let Some(consent) = agreed.map(|n| &self.consents[n]) {
            chosen.retain(|item| {
                let place = if item.as_str() == "openid" { None } else { place };
                check::listed(consent, place).contains(item)
            });
        }
        if server.as_ref().is_some_and(|server| !server.scopes_supported.is_empty()) {
            chosen.retain(|item| NARROW.contains(&item.as_str()));
        }
        let (sign_in, family) = (SignIn { at: self.now, amr: Vec::new() }, self.families);
        self.families += 1;
        let bearer = Bearer::User { user: &user, client: &client, sign_in: &sign_in };
        let consent = agreed.map(|n| &self.consents[n]);
        let resource = server.map_or(Resource::Own, |server| Resource::Mcp(Arc::new(server)));
        let new = NewToken {
            ancestors: vec![family_handle(self.org(), &family.to_string())],
            consents: consent.iter().map(|c| ConsentEpoch { id: c.id, epoch: c.epoch }).collect(),
            ..NewToken::new(bearer, resource, Scope::new(chosen), 3600)
        };
        let mut stands_on = vec![(user.id.to_string(), user.epoch), (id, client.epoch())];
        stands_on.extend(consent.iter().map(|c| (c.id.to_string(), c.epoch)));
        let at = self.nodes.len();
        self.mint(new, &stands_on, agreed, Some(family)).await;
        // Beside a token for a server there is none that could be exchanged.
        let is_for_us = self.nodes.get(at).is_some_and(|node| node.claims.is_for_own_routes());
        if family % 3 == 0 && is_for_us {
            self.mint_id_token(at).await;
        }
    }

    /// What lets the client act for the person, if anything does.
    fn agreement(&self, user: &str, client: &ClientId) -> Option<usize> {
        self.consents.iter().position(|consent| {
            consent.active && consent.user.to_string() == user && consent.client_id == *client
        })
    }

    /// A client that proves itself in an exchange of the token: the one that has it, or the party of what it is for.
    fn client_for(&self, claims: &AccessClaims, dice: &mut Dice) -> Option<AuthenticatedClient> {
        let named = |id: &McpServerId| self.servers.iter().find(|server| server.server_id == *id);
        let wanted = match dice.roll(5) {
            0 | 1 => claims.client_id.clone(),
            2 => claims.mcp_server_id.as_ref().and_then(named)?.resource_client_id.clone()?,
            _ => return None,
        };
        if wanted == self.app.client_id {
            return self.app.active.then(|| AuthenticatedClient::Client(Arc::new(self.app.clone())));
        }
        let agent = self.agents.iter().find(|agent| agent.client_id == wanted && agent.is_active())?;
        Some(AuthenticatedClient::Agent(Arc::new(agent.clone())))
    }

    /// The ID token beside a token.
    async fn mint_id_token(&mut self, access: usize) {
        let beside = self.nodes[access].claims.clone();
        let claims = self.with_context(None, async |context| id_token::as_subject(context, &beside)).await;
        assert!(claims.scope.is_empty());
        let node = &self.nodes[access];
        let node = Node {
            claims: Arc::new(claims),
            lineage: [access, self.nodes.len()].into(),
            stands_on: node.stands_on.clone(),
            agreed: node.agreed.clone(),
            families: node.families.clone(),
        };
        self.nodes.push(node);
    }

    /// The token, if the store takes it for alive.
    async fn present(&self, n: usize) -> Option<Token> {
        let claims = self.nodes[n].claims.clone();
        if claims.exp <= self.now.unix_seconds() {
            return None;
        }
        let found = principal_of(&self.stores, &self.organization, claims.clone()).await.unwrap();
        found.ok().map(|principal| Token { principal, claims })
    }

    async fn exchange(&mut self, dice: &mut Dice, tally: &mut Tally) {
        if self.nodes.is_empty() {
            return;
        }
        // The newest tokens of others more often: that makes chains.
        let is_own = |node: &Node| node.claims.act.is_none() && node.claims.agent_id.is_some();
        let of_others = self.nodes.iter().rposition(|node| !is_own(node)).filter(|_| dice.roll(3) > 0);
        let subject_at = of_others.unwrap_or_else(|| dice.roll(self.nodes.len()));
        let Some(subject) = self.present(subject_at).await else { return };
        let actors: Vec<_> = (0..self.nodes.len()).filter(|n| is_own(&self.nodes[*n])).collect();
        let actor_at = (!actors.is_empty() && dice.roll(5) > 0).then(|| actors[dice.roll(actors.len())]);
        let actor = match actor_at {
            None => None,
            Some(at) => {
                let for_us = self.nodes[at].claims.is_for_own_routes();
                match self.present(at).await {
                    Some(Token { principal, claims }) if for_us && at != subject_at => {
                        Some(Actor { agent: principal.agent().unwrap().clone(), claims })
                    }
                    _ => return,
                }
            }
        };
        let target = [Some("urn:mcp:open"), Some("urn:mcp:narrow")].get(dice.roll(8)).copied().flatten();
        let scope = match dice.roll(6) {
            0 => Some(Scope::new(dice.some_of(&SCOPES))),
            1 => Some(Scope::new([Capability::parse(ACTIONS[dice.roll(ACTIONS.len())]).unwrap()])),
            _ => None,
        };
        let client = self.client_for(&subject.claims, dice);
        let request = Request { subject, actor, target, scope, budget: None };
        let result: Result<AccessClaims, TokenError> = self
            .with_context(client.as_ref(), async |context| {
                let exchange = decide(context, &request).await?;
                alive(context, exchange.new_token()).await
            })
            .await;
        match result {
            Ok(claims) => {
                let client = client.as_ref().map(AuthenticatedClient::client_id);
                let asked = Asked { subject: subject_at, actor: actor_at, target, client };
                self.exchanged(&asked, claims, tally);
            }
            Err(error) => assert!(!error.is_outage()),
        }
    }
}

fn added(outcome: Result<Insert, StoreError>) {
    assert_eq!(outcome.unwrap(), Insert::Inserted);
}

#[derive(Debug, Default)]
struct Tally {
    exchanges: usize,
    deepest: [usize; MAX_ACTORS + 1],
    ended: usize,
    for_servers: usize,
    handed_on: usize,
    /// To another place than the one that it was for, and with something left in it.
    handed_elsewhere: usize,
    /// By the consent of a person.
    by_consent: usize,
    /// Narrower tokens of people.
    of_people: usize,
}

#[tokio::test]
async fn authority_only_shrinks_and_nothing_outlives_what_it_comes_from() {
    let store = Arc::new(MemoryStore::new());
    let keys = Arc::new(KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default()));
    let mut tally = Tally::default();
    for history in 0..HISTORIES {
        let mut dice = Dice(history);
        let mut world = World::new(&mut dice, keys.clone()).await;
        for _ in 0..6 {
            world.mint_for_agent(&mut dice).await;
        }
        world.mint_for_person(&mut dice).await;
        for step in 0..STEPS {
            world.step(&mut dice, &mut tally).await;
            // Looking at everything after every step would be most of the work, and each end lasts.
            if step % 9 == 8 {
                for n in 0..world.nodes.len() {
                    let alive = world.present(n).await.is_some();
                    assert_eq!(alive, world.is_alive(n), "history {history}, step {step}, token {n}");
                    tally.ended += usize::from(!alive);
                }
            }
        }
    }
    // It has seen what it is about.
    let often = usize::try_from(HISTORIES).unwrap() / 2;
    assert!(tally.exchanges > often && tally.ended > often, "{tally:?}");
    assert!(tally.for_servers > often / 4 && tally.handed_on > often / 100, "{tally:?}");
    assert!(tally.handed_elsewhere > often / 200, "{tally:?}");
    assert!(tally.by_consent > often / 4 && tally.of_people > often / 100, "{tally:?}");
    assert!(
        tally.deepest[1] > often / 4 && tally.deepest[2] > often / 10 && tally.deepest[3] > often / 100,
        "{tally:?}"
    );
}
