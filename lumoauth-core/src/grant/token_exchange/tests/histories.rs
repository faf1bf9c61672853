//! Random organizations, grants, exchanges and revocations against a small model.
//!
//! 1. No token carries more than every token and every agent that it comes from.
//! 2. No token outlives the end of anything that it comes from, and none ends without a cause.
//! 3. A chain grows by one actor at a time, at its end, and none is in it twice.
//! 4. A token is for exactly what was asked for, or for whoever uses it; what is for a resource is handed on by the party of
//!    that resource only.
//!
//! Signatures are left out: they are tested elsewhere and would be all that this measures.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        decide,
        presented::{Actor, Request, Token},
    },
    dice::Dice,
    setting::{NOW, event, scope},
};
use crate::{
    agent::{Agent, StatusChange},
    audit::{EventKind, Origin},
    capability::{Capability, Scope},
    client::Client,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    consent::Consent,
    fetch::NoFetch,
    foreign_keys::ForeignKeys,
    grant::{
        Bearer, GrantContext, MAX_ACTORS, NewToken, Refusal, Resource, SignIn, TokenError, id_token,
        issue::alive,
    },
    id::{OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    mcp::{McpServer, ResourceUri},
    organization::{ActOrder, Organization},
    store::{AgentKey, ConsentKey, Insert, MemoryStore, Revoked, StoreError, Stores, Update, UserKey},
    token::{
        AccessClaims, Audience, ConsentEpoch, VerifiedTokens, family_handle, principal_of, token_handle,
    },
    user::User,
};

/// Without optimization each takes ten times as long.
const HISTORIES: u64 = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
const STEPS: usize = 36;
const ISSUER: &str = "https://auth.example/orgs/acme/api/v1";
const SCOPES: [&str; 8] = ["read:a", "read:b", "read:*", "write:a", "tool:x", "tool:*", "*", "openid"];
/// What is asked about: whatever a scope covers, one of these tells.
const ACTIONS: [&str; 6] = ["read:a", "read:b", "read:z", "write:a", "tool:x", "tool:y"];

/// What a token stands on, as the model sees it.
struct Node {
    claims: Arc<AccessClaims>,
    /// Tokens that it comes from, itself among them.
    lineage: BTreeSet<usize>,
    /// Ids and epochs of agents, people, clients and consents that it and they stand on.
    stands_on: BTreeSet<(String, u32)>,
    families: BTreeSet<usize>,
}

struct World {
    stores: Stores,
    keys: Arc<KeyRing>,
    organization: Organization,
    now: Timestamp,
    agents: Vec<Agent>,
    users: Vec<User>,
    app: Arc<Client>,
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
            if dice.once_in(4) {
                agent.allowed_tools = vec!["x".to_owned()];
            }
            added(stores.agents.insert(&org, &agent, &event(EventKind::AgentCreated)).await);
            agents.push(agent);
        }
        let (mut app, _) = Client::new("App", now);
        app.allowed_scopes = scope("*").as_slice().to_vec();
        added(stores.clients.insert(&org, &app, &event(EventKind::ClientCreated)).await);
        let (mut users, mut consents) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let user = User::new(&format!("{n}@acme.test"), now);
            added(stores.users.insert(&org, &user, &event(EventKind::UserCreated)).await);
            for agent in &agents {
                if dice.once_in(2) {
                    continue;
                }
                let consent =
                    Consent::new(user.id, agent.client_id.clone(), Scope::new(dice.some_of(&SCOPES)), now);
                added(stores.consents.insert(&org, &consent, &event(EventKind::ConsentGranted)).await);
                consents.push(consent);
            }
            users.push(user);
        }
        let mut servers = Vec::new();
        for uri in ["urn:mcp:open", "urn:mcp:narrow"] {
            let mut server = McpServer::new(uri, ResourceUri::parse(uri).unwrap(), now);
            if uri == "urn:mcp:narrow" {
                server.scopes_supported = scope("read:a tool:x").as_slice().to_vec();
            }
            server.resource_client_id = Some(agents[dice.roll(agents.len())].client_id.clone());
            added(stores.mcp_servers.insert(&org, &server, &event(EventKind::McpServerCreated)).await);
            servers.push(server);
        }
        Self {
            stores,
            keys,
            organization,
            now,
            agents,
            users,
            app: Arc::new(app),
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
        match dice.roll(24) {
            0..=2 => self.mint_for_agent(dice).await,
            3 | 4 => self.mint_for_person(dice).await,
            5..=19 => self.exchange(dice, tally).await,
            20 => self.revoke(dice).await,
            21 => self.change_agent(dice).await,
            22 => self.change_person(dice).await,
            _ => self.now = self.now.plus(std::time::Duration::from_secs(dice.roll(400) as u64)),
        }
    }

    async fn with_context<T>(&self, act: impl AsyncFnOnce(&GrantContext<'_>) -> T) -> T {
        let (origin, refusal) = (Origin::default(), Refusal::default());
        act(&GrantContext {
            organization: &self.organization,
            issuer: ISSUER,
            client: None,
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

    async fn mint(&mut self, new: NewToken<'_>, stands_on: Vec<(String, u32)>, family: Option<usize>) {
        if let Ok(claims) = self.with_context(async |context| alive(context, new).await).await {
            self.nodes.push(Node {
                claims: Arc::new(claims),
                lineage: [self.nodes.len()].into(),
                stands_on: stands_on.into_iter().collect(),
                families: family.into_iter().collect(),
            });
        }
    }

    async fn mint_for_agent(&mut self, dice: &mut Dice) {
        let agent = self.agents[dice.roll(self.agents.len())].clone();
        let scope = if dice.once_in(2) { Some(Scope::new(dice.some_of(&SCOPES))) } else { None };
        let Ok(scope) = agent.narrow(scope.as_ref(), &[]) else { return };
        let stands_on = vec![(agent.id.to_string(), agent.epoch)];
        let holder = AuthenticatedClient::Agent(Arc::new(agent));
        let lifetime = 120 + u32::try_from(dice.roll(2000)).unwrap();
        self.mint(NewToken::new(Bearer::Itself(&holder), Resource::Own, scope, lifetime), stands_on, None)
            .await;
    }

    async fn mint_for_person(&mut self, dice: &mut Dice) {
        let user = self.users[dice.roll(self.users.len())].clone();
        let agent = self.agents[dice.roll(self.agents.len())].clone();
        let mut stands_on = vec![(user.id.to_string(), user.epoch)];
        let (client, consent) = if dice.once_in(2) {
            stands_on.push((self.app.client_id.to_string(), self.app.epoch));
            (AuthenticatedClient::Client(self.app.clone()), None)
        } else {
            stands_on.push((agent.id.to_string(), agent.epoch));
            let key = ConsentKey::Between(user.id, &agent.client_id);
            let consent = self.stores.consents.find(self.org(), key).await.unwrap();
            (AuthenticatedClient::Agent(Arc::new(agent)), consent.filter(|consent| consent.active))
        };
        let (sign_in, family) = (SignIn { at: self.now, amr: Vec::new() }, self.families);
        self.families += 1;
        let handle = family_handle(self.org(), &family.to_string());
        let bearer = Bearer::User { user: &user, client: &client, sign_in: &sign_in };
        let new = NewToken {
            ancestors: vec![handle],
            consents: consent.iter().map(|c| ConsentEpoch { id: c.id, epoch: c.epoch }).collect(),
            ..NewToken::new(bearer, Resource::Own, Scope::new(dice.some_of(&SCOPES)), 3600)
        };
        stands_on.extend(consent.iter().map(|c| (c.id.to_string(), c.epoch)));
        let at = self.nodes.len();
        self.mint(new, stands_on, Some(family)).await;
        if family % 3 == 0 && at < self.nodes.len() {
            self.mint_id_token(at).await;
        }
    }

    /// The ID token beside a token.
    async fn mint_id_token(&mut self, access: usize) {
        let beside = self.nodes[access].claims.clone();
        let claims = self.with_context(async |context| id_token::as_subject(context, &beside)).await;
        assert!(claims.scope.is_empty());
        let node = &self.nodes[access];
        let (stands_on, families) = (node.stands_on.clone(), node.families.clone());
        let lineage = [access, self.nodes.len()].into();
        self.nodes.push(Node { claims: Arc::new(claims), lineage, stands_on, families });
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
        let request = Request { subject, actor, target, scope, budget: None };
        let result: Result<AccessClaims, TokenError> = self
            .with_context(async |context| {
                let exchange = decide(context, &request).await?;
                alive(context, exchange.new_token()).await
            })
            .await;
        match result {
            Ok(claims) => self.exchanged(subject_at, actor_at, target, claims, tally),
            Err(error) => assert!(!error.is_outage()),
        }
    }

    /// Checks a new token against everything that it comes from.
    fn exchanged(
        &mut self,
        subject: usize,
        actor: Option<usize>,
        target: Option<&str>,
        claims: AccessClaims,
        tally: &mut Tally,
    ) {
        let sources: Vec<_> = [Some(subject), actor].into_iter().flatten().collect();
        assert!(sources.iter().all(|n| self.is_alive(*n)), "something dead was exchanged");
        let before = self.nodes[subject].claims.clone();
        let chain: Vec<_> = claims.actors().into_iter().map(|act| act.agent_id).collect();
        let mut expected: Vec<_> = before.actors().into_iter().map(|act| act.agent_id).collect();
        expected.extend(actor.map(|n| self.nodes[n].claims.agent_id.unwrap()));
        assert_eq!((&chain, &claims.sub), (&expected, &before.sub));
        let first = match claims.lin.subject {
            Some(crate::token::Subject::Agent(id)) => Some(id),
            _ if chain.is_empty() => claims.agent_id,
            _ => None,
        };
        let agents: Vec<_> = first.into_iter().chain(chain.iter().copied()).collect();
        assert_eq!(agents.iter().collect::<BTreeSet<_>>().len(), agents.len(), "an agent is in it twice");
        assert!(chain.len() <= MAX_ACTORS);
        let depth = claims.delegation_depth.map_or(0, usize::from);
        assert_eq!(depth, chain.len());

        let reaches = |scope: &Scope, action: &Capability| scope.as_slice().iter().any(|c| c.covers(action));
        for action in ACTIONS.map(|action| Capability::parse(action).unwrap()) {
            if !reaches(&claims.scope, &action) {
                continue;
            }
            for n in &sources {
                assert!(reaches(&self.nodes[*n].claims.scope, &action), "{action} comes from nowhere");
            }
            for id in &agents {
                let agent = self.agents.iter().find(|agent| agent.id == *id).unwrap();
                assert!(agent.holds(&action), "{} may not do {action}", agent.slug);
            }
            if target == Some("urn:mcp:narrow") {
                assert!(["read:a", "tool:x"].contains(&action.as_str()));
            }
        }
        let fresh = actor.is_none() && before.act.is_none() && target.is_some();
        for n in sources.iter().filter(|_| !fresh) {
            assert!(claims.exp <= self.nodes[*n].claims.exp, "it outlives a source");
        }
        assert!(depth == 0 || claims.exp <= self.now.unix_seconds() + 900);

        self.check_audience(&before, actor, target, &claims, tally);
        let mut node = Node {
            lineage: [self.nodes.len()].into(),
            stands_on: BTreeSet::new(),
            families: BTreeSet::new(),
            claims: Arc::new(claims),
        };
        for n in &sources {
            node.lineage.extend(&self.nodes[*n].lineage);
            node.stands_on.extend(self.nodes[*n].stands_on.iter().cloned());
            node.families.extend(&self.nodes[*n].families);
        }
        // The consent that was used is not one of a source.
        for used in &node.claims.lin.consents {
            node.stands_on.insert((used.id.to_string(), used.epoch));
        }
        tally.exchanges += 1;
        tally.deepest[depth] += 1;
        self.nodes.push(node);
    }

    /// Checks whom a new token is for, and that whoever handed on the one before was entitled to.
    fn check_audience(
        &self,
        before: &AccessClaims,
        actor: Option<usize>,
        target: Option<&str>,
        claims: &AccessClaims,
        tally: &mut Tally,
    ) {
        let named =
            |uri: &str| self.servers.iter().find(|server| server.resource_uri.as_str() == uri).unwrap();
        // The target, or the agent that is last in the chain; an agent that acts for nobody goes by its client.
        let current = claims.agent_id.unwrap();
        let itself = match claims.act {
            Some(_) => current.to_string(),
            None => claims.client_id.to_string(),
        };
        let expected = target.map_or(itself, str::to_owned);
        assert_eq!(claims.aud, Audience::One(expected));
        assert_eq!(claims.mcp_server_id, target.map(|uri| named(uri).server_id.clone()));
        assert_eq!(claims.is_for_own_routes(), target.is_none());
        let last = actor.map_or_else(|| before.agent_id.unwrap(), |n| self.nodes[n].claims.agent_id.unwrap());
        assert_eq!(current, last, "somebody else uses it");
        tally.for_servers += usize::from(target.is_some());
        if let Some(id) = &before.mcp_server_id {
            let server = self.servers.iter().find(|server| server.server_id == *id).unwrap();
            let party = actor.map(|n| self.nodes[n].claims.client_id.clone());
            assert!(party.is_some() && party == server.resource_client_id, "not for it to hand on");
            tally.handed_on += 1;
        }
    }

    async fn revoke(&mut self, dice: &mut Dice) {
        let (on, until) = (event(EventKind::TokenRevoked), Timestamp::from_unix_seconds(u64::from(u32::MAX)));
        let handle = if dice.once_in(2) && self.families > 0 {
            let family = dice.roll(self.families);
            self.ended_families.insert(family);
            family_handle(self.org(), &family.to_string())
        } else if self.nodes.is_empty() {
            return;
        } else {
            let n = dice.roll(self.nodes.len());
            self.revoked.insert(n);
            token_handle(self.org(), &self.nodes[n].claims.jti)
        };
        match self.stores.grants.revoke(self.org(), handle, until, &on).await.unwrap() {
            Revoked::Revoked | Revoked::AlreadyRevoked => {}
        }
    }

    async fn change_agent(&mut self, dice: &mut Dice) {
        let n = dice.roll(self.agents.len());
        let found = AgentKey::Id(self.agents[n].id);
        let mut agent = (*self.stores.agents.find(self.org(), found).await.unwrap().unwrap()).clone();
        match dice.roll(4) {
            0 => agent.capabilities = dice.some_of(&SCOPES),
            1 => agent.can_act_on_behalf_of_users = !agent.can_act_on_behalf_of_users,
            2 => drop(agent.change_status(StatusChange::Disable)),
            _ => drop(agent.change_status(StatusChange::Activate)),
        }
        let outcome = self.stores.agents.update(self.org(), &agent, &event(EventKind::AgentUpdated)).await;
        assert_eq!(outcome.unwrap(), Update::Updated);
        self.agents[n] = agent;
    }

    async fn change_person(&mut self, dice: &mut Dice) {
        if dice.once_in(2) && !self.consents.is_empty() {
            let n = dice.roll(self.consents.len());
            let key = ConsentKey::Id(self.consents[n].id);
            let mut consent = (*self.stores.consents.find(self.org(), key).await.unwrap().unwrap()).clone();
            if !consent.withdraw() {
                consent.grant(None, &Scope::new(dice.some_of(&SCOPES)));
            }
            let on = event(EventKind::ConsentRevoked);
            assert_eq!(
                self.stores.consents.update(self.org(), &consent, &on).await.unwrap(),
                Update::Updated
            );
            self.consents[n] = consent;
            return;
        }
        let n = dice.roll(self.users.len());
        let found = UserKey::Id(self.users[n].id);
        let mut user = (*self.stores.users.find(self.org(), found).await.unwrap().unwrap()).clone();
        let _ = user.block();
        if dice.roll(3) > 0 {
            let _ = user.unblock();
        }
        let outcome = self.stores.users.update(self.org(), &user, &event(EventKind::UserBlocked)).await;
        assert_eq!(outcome.unwrap(), Update::Updated);
        self.users[n] = user;
    }

    /// Whether a token is alive, by the model.
    fn is_alive(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let standing: BTreeSet<_> = self
            .agents
            .iter()
            .filter(|agent| agent.is_active())
            .map(|agent| (agent.id.to_string(), agent.epoch))
            .chain(self.users.iter().filter(|u| u.is_active()).map(|u| (u.id.to_string(), u.epoch)))
            .chain(self.consents.iter().filter(|c| c.active).map(|c| (c.id.to_string(), c.epoch)))
            .chain([(self.app.client_id.to_string(), self.app.epoch)])
            .collect();
        node.claims.exp > self.now.unix_seconds()
            && node.lineage.is_disjoint(&self.revoked)
            && node.families.is_disjoint(&self.ended_families)
            && node.stands_on.is_subset(&standing)
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
    assert!(
        tally.deepest[1] > often / 4 && tally.deepest[2] > often / 10 && tally.deepest[3] > often / 100,
        "{tally:?}"
    );
}
