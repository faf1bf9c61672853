//! Whatever a token stands on ends it, at any depth.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::setting::{Cast, Setting, event, refused};
use crate::{
    agent::StatusChange,
    audit::EventKind,
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    id::OrgId,
    keys::{KeyError, KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey, Signer, VerifyingKey},
    organization::ActOrder,
    store::{CacheConfig, Cached, GrantStore, Handle, MemoryStore, Revoked, Stores, Update},
    token::family_handle,
};

/// Alice's session, everything that comes of it, and two that do not.
struct Tree {
    cast: Cast,
    family: Handle,
    root: String,
    actor: String,
    second_actor: String,
    /// Of depth 1, 2, and 2 bound to a resource.
    chain: Vec<String>,
    /// Of another session of the same person, by the same agents' other tokens.
    bystanders: Vec<String>,
}

async fn tree() -> Tree {
    let cast = Cast::new().await;
    cast.on.mcp_server("urn:mcp:a", |_| ()).await;
    let consent = cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
    let family = family_handle(cast.on.org(), "one");
    let epoch = crate::token::ConsentEpoch { id: consent.id, epoch: 0 };
    let root = cast
        .on
        .of_user_with(&cast.alice, &at_bot, "read:a", |new| {
            new.ancestors = vec![family];
            new.consents = vec![epoch];
        })
        .await;
    let (actor, second_actor) = (cast.on.own(&cast.bot).await, cast.on.own(&cast.tool).await);
    let one = cast.on.exchanged(&root, Some(&actor), &[]).await;
    let two = cast.on.exchanged(&one, Some(&second_actor), &[]).await;
    let bound = cast.on.exchanged(&two, None, &[("audience", "urn:mcp:a")]).await;
    let bystanders = vec![cast.delegated("read:a").await, cast.nested("read:a").await];
    let tree = Tree { cast, family, root, actor, second_actor, chain: vec![one, two, bound], bystanders };
    assert_eq!(tree.alive().await, [true, true, true]);
    tree
}

impl Tree {
    async fn alive(&self) -> Vec<bool> {
        let mut alive = Vec::new();
        for token in &self.chain {
            alive.push(self.cast.on.is_active(token).await);
        }
        alive
    }

    async fn bystanders_alive(&self) -> bool {
        let mut all = true;
        for token in &self.bystanders {
            all &= self.cast.on.is_active(token).await;
        }
        all
    }
}

#[tokio::test]
async fn revoking_any_token_ends_what_comes_of_it_and_nothing_else() {
    for (which, expected) in [
        (0, [false; 3]),
        (1, [false; 3]),
        (2, [false; 3]),
        (3, [true, false, false]),
        (4, [true, true, false]),
    ] {
        let tree = tree().await;
        let (token, client) = match which {
            0 => (&tree.root, &tree.cast.bot.client_id),
            1 => (&tree.actor, &tree.cast.bot.client_id),
            2 => (&tree.chain[0], &tree.cast.bot.client_id),
            3 => (&tree.second_actor, &tree.cast.tool.client_id),
            _ => (&tree.chain[2], &tree.cast.tool.client_id),
        };
        tree.cast.on.revoke_as(client.as_str(), token).await;
        assert_eq!(tree.alive().await, expected, "{which}");
        assert!(tree.bystanders_alive().await);
    }
}

#[tokio::test]
async fn an_application_that_handed_out_takes_it_along() {
    for end in [(|app| app.epoch += 1) as fn(&mut crate::client::Client), |app| app.active = false] {
        let cast = Cast::new().await;
        cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
        let (subject, actor) = (cast.alices("read:a").await, cast.on.own(&cast.bot).await);
        let chain = cast.on.exchanged(&subject, Some(&actor), &[]).await;
        let nested = cast.on.exchanged(&chain, Some(&cast.on.own(&cast.tool).await), &[]).await;
        assert!(cast.on.is_active(&nested).await);
        cast.on.change_client(cast.app.client_id(), end).await;
        assert!(!cast.on.is_active(&chain).await && !cast.on.is_active(&nested).await);
    }
}

#[tokio::test]
async fn what_has_ended_is_revoked_as_long_as_something_of_it_may_live() {
    let cast = Cast::new().await;
    let on = &cast.on;
    on.mcp_server("urn:mcp:a", |server| server.token_lifetime = 86_400).await;
    let own = on.own(&cast.bot).await;
    on.wait(3599);
    let bound = on.exchanged(&own, None, &[("audience", "urn:mcp:a")]).await;
    on.wait(86_399);
    assert!(!on.is_active(&own).await && on.is_active(&bound).await);
    let bot = cast.bot.client_id.as_str();
    let (head, _) = own.rsplit_once('.').unwrap();
    on.revoke_as(bot, head).await;
    on.revoke_as(bot, &format!("{head}.{}", "A".repeat(86))).await;
    on.revoke_as(cast.tool.client_id.as_str(), &own).await;
    assert!(on.is_active(&bound).await, "only the whole token, and its own client");
    on.revoke_as(bot, &own).await;
    assert!(!on.is_active(&bound).await);

    let own = on.own(&cast.bot).await;
    let before = on.events().await.len();
    on.wait(3600 + 86_400 + 60);
    on.revoke_as(bot, &own).await;
    assert_eq!(on.events().await.len(), before, "nothing of it can be left");
}

#[tokio::test]
async fn a_client_revokes_only_what_was_issued_to_it() {
    let tree = tree().await;
    tree.cast.on.revoke_as(tree.cast.tool.client_id.as_str(), &tree.chain[0]).await;
    tree.cast.on.revoke_as(tree.cast.app.client_id().as_str(), &tree.root).await;
    assert_eq!(tree.alive().await, [true; 3]);
}

#[tokio::test]
async fn the_end_of_a_family_is_the_end_of_its_descendants() {
    let tree = tree().await;
    let on = &tree.cast.on;
    on.revoke_handle(tree.family).await;
    assert_eq!(tree.alive().await, [false; 3]);
    assert!(!on.is_active(&tree.root).await && on.is_active(&tree.actor).await);
    assert!(tree.bystanders_alive().await);
}

#[tokio::test]
async fn suspended_agents_people_and_organizations_take_everything_with_them_for_good() {
    for what in ["first agent", "second agent", "person", "organization"] {
        let mut tree = tree().await;
        let on = &mut tree.cast.on;
        match what {
            "first agent" | "second agent" => {
                let agent = if what == "first agent" { &tree.cast.bot } else { &tree.cast.tool };
                let change = |next| {
                    move |agent: &mut crate::agent::Agent| {
                        agent.change_status(next).unwrap();
                    }
                };
                on.change_agent(agent, change(StatusChange::Disable)).await;
                on.change_agent(agent, change(StatusChange::Activate)).await;
            }
            "person" => {
                on.change_user(&tree.cast.alice, |alice| assert!(alice.block())).await;
                on.change_user(&tree.cast.alice, |alice| assert!(alice.unblock())).await;
            }
            _ => {
                for active in [false, true] {
                    let found = on.stores.organizations.find(&on.organization.id).await.unwrap().unwrap();
                    let mut next = (*found).clone();
                    assert!(next.set_active(active));
                    let outcome =
                        on.stores.organizations.update(&next, &event(EventKind::OrganizationDisabled)).await;
                    assert_eq!(outcome.unwrap(), Update::Updated);
                    on.organization = next;
                }
            }
        }
        let expected = if what == "second agent" { [true, false, false] } else { [false; 3] };
        assert_eq!(tree.alive().await, expected, "{what}");
        let own = tree.cast.on.own(&tree.cast.tool).await;
        if what != "second agent" {
            refused(tree.cast.on.exchange(&tree.chain[0], Some(&own), &[]).await, 400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn a_withdrawn_consent_stays_withdrawn_for_old_tokens() {
    let tree = tree().await;
    let key = crate::store::ConsentKey::Between(tree.cast.alice.id, &tree.cast.bot.client_id);
    let on = &tree.cast.on;
    let consent = on.stores.consents.find(on.org(), key).await.unwrap().unwrap();
    on.withdraw(&consent).await;
    assert_eq!(tree.alive().await, [false; 3]);
    let mut again = (*on.stores.consents.find(on.org(), key).await.unwrap().unwrap()).clone();
    again.grant(None, &super::setting::scope("read:a"));
    let outcome = on.stores.consents.update(on.org(), &again, &event(EventKind::ConsentGranted)).await;
    assert_eq!(outcome.unwrap(), Update::Updated);
    assert_eq!(tree.alive().await, [false; 3]);
    assert!(tree.bystanders_alive().await, "they stand on the token that was made for the agent");
}

/// When a family is revoked in the course of an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The subject has been looked up; keys for the actor are asked for.
    SubjectKnown,
    /// Everything has been looked up once more; a signer is asked for.
    Decided,
}

/// Keys whose use shows how far an exchange is.
#[derive(Debug)]
struct RevokesAt {
    moment: Moment,
    handle: Handle,
    asked: AtomicUsize,
    store: Arc<MemoryStore>,
    ring: Arc<KeyRing>,
}

impl RevokesAt {
    async fn at(&self, org: &OrgId, moment: Moment) {
        if moment == self.moment {
            let until = Timestamp::from_unix_seconds(u64::from(u32::MAX));
            let on = event(EventKind::TokenRevoked);
            let outcome = self.store.revoke(org, self.handle, until, &on).await;
            assert_eq!(outcome.unwrap(), Revoked::Revoked);
        }
    }
}

#[async_trait]
impl KeyProvider for RevokesAt {
    async fn signer(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<dyn Signer>, KeyError> {
        self.at(org, Moment::Decided).await;
        self.ring.signer(org, purpose, now).await
    }

    async fn verifying_keys(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<[VerifyingKey]>, KeyError> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            self.at(org, Moment::SubjectKnown).await;
        }
        self.ring.verifying_keys(org, purpose, now).await
    }

    async fn maintain(&self, org: &OrgId, now: Timestamp) -> Result<(), KeyError> {
        self.ring.maintain(org, now).await
    }
}

#[tokio::test]
async fn a_revocation_in_mid_exchange_is_seen() {
    for moment in [Moment::SubjectKnown, Moment::Decided] {
        let store = Arc::new(MemoryStore::new());
        let ring = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
        let handle = family_handle(&OrgId::parse("acme").unwrap(), "one");
        let (asked, keys) = (AtomicUsize::new(0), ring.clone());
        let provider = Arc::new(RevokesAt { moment, handle, asked, store: store.clone(), ring });
        let order = ActOrder::FirstOutermost;
        let cast = Cast::on(Setting::with_provider(Stores::all(store), keys, provider, order).await).await;
        let at_bot = AuthenticatedClient::Agent(cast.bot.clone());
        let subject =
            cast.on.of_user_with(&cast.alice, &at_bot, "read:a", |new| new.ancestors = vec![handle]).await;
        let result = cast.on.exchange(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await;
        match (moment, result) {
            (Moment::SubjectKnown, Err(error)) => assert_eq!(error.to_wire().error, "invalid_grant"),
            (Moment::Decided, Ok(response)) => {
                assert!(!cast.on.is_active(response.access_token.expose()).await);
            }
            (moment, result) => panic!("{moment:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_suspension_that_the_cache_has_not_heard_of_is_seen() {
    let memory = Arc::new(MemoryStore::new());
    let keys = Arc::new(KeyRing::new(memory.clone(), MasterKey::generate(), KeyRingConfig::default()));
    let plain = Stores::all(memory);
    let config = CacheConfig::default().with_ttl(std::time::Duration::from_secs(3600));
    let cached = Cached::over(plain.clone(), &config, None);
    let mut cast = Cast::on(Setting::over(cached, keys, ActOrder::FirstOutermost).await).await;
    let (subject, actor) = (cast.alices_at_bot("read:a").await, cast.on.own(&cast.bot).await);
    assert!(cast.on.exchange(&subject, Some(&actor), &[]).await.is_ok());
    // Another server writes.
    cast.on.stores = plain;
    cast.on.change_user(&cast.alice, |alice| assert!(alice.block())).await;
    refused(cast.on.exchange(&subject, Some(&actor), &[]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_client_that_handed_out_a_persons_token_takes_what_came_of_it_with_it() {
    let cast = Cast::new().await;
    let first = cast.on.agent("first", "read:a").await;
    cast.on.consent(&cast.alice, &cast.bot, "read:a").await;
    let subject = cast.on.of_user(&cast.alice, &AuthenticatedClient::Agent(first.clone()), "read:a").await;
    let one = cast.on.exchanged(&subject, Some(&cast.on.own(&cast.bot).await), &[]).await;
    let two = cast.on.exchanged(&one, Some(&cast.on.own(&cast.tool).await), &[]).await;
    assert!(cast.on.is_active(&two).await);
    cast.on.change_agent(&first, |agent| agent.epoch += 1).await;
    assert!(!cast.on.is_active(&one).await && !cast.on.is_active(&two).await);
}
