//! Cases of [`AgentStore`].

use std::time::Duration;

use super::{ALL, RACERS, aauth_resources::identifier, count, now, race, some_event, some_org};
use crate::{
    agent::{AAuthIdentity, Agent, AgentKind, AgentStatus, AuthMethod, DelegationConsent, IdentityType},
    capability::Capability,
    client::Secrets,
    id::{AgentId, ClientId, OrgId, Slug},
    jwks::HttpAlgorithm,
    secret::{Secret, SecretHash},
    store::{AgentFilter, AgentKey, AgentStore, Insert, Page, Remove, Unique, Update},
    workload::{WorkloadKey, WorkloadTrust},
};

fn agent(slug: &str) -> Agent {
    Agent::new(slug, Slug::parse(slug).unwrap(), now())
}

/// A part in AAuth under this name.
pub(super) fn some_identity(text: &str) -> Option<Box<AAuthIdentity>> {
    Some(Box::new(AAuthIdentity::new(identifier(text))))
}

fn hash() -> SecretHash {
    Secret::generate("").hash()
}

async fn inserted(store: &dyn AgentStore, org: &OrgId, agent: &Agent) {
    assert_eq!(store.insert(org, agent, &some_event()).await.unwrap(), Insert::Inserted);
}

async fn by_id(store: &dyn AgentStore, org: &OrgId, id: AgentId) -> Option<Agent> {
    store.find(org, AgentKey::Id(id)).await.unwrap().map(|agent| Agent::clone(&agent))
}

fn every_key(agent: &Agent) -> Vec<AgentKey<'_>> {
    let mut keys =
        vec![AgentKey::Id(agent.id), AgentKey::Slug(&agent.slug), AgentKey::ClientId(&agent.client_id)];
    keys.extend(agent.api_key.as_ref().map(AgentKey::ApiKey));
    keys.extend(agent.aauth_identifier().map(AgentKey::AAuthIdentifier));
    keys
}

/// "The agent with this key."
pub async fn round_trip(store: &dyn AgentStore) {
    let org = some_org();
    let mut full = agent("full");
    full.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".into();
    full.description = Some("two\nlines".to_owned());
    full.kind = AgentKind::AiAssistant;
    full.status = AgentStatus::Suspended;
    full.identity_type = IdentityType::Custom;
    full.auth_methods = AuthMethod::ALL.into();
    full.allowed_ips =
        ["10.0.0.0/8", "2001:db8::/33", "::1", "0.0.0.0/0"].map(|text| text.parse().unwrap()).into();
    full.capabilities = ["read:*", "tool:search"].map(|text| Capability::parse(text).unwrap()).into();
    full.requested_capabilities = vec![Capability::parse("write:a").unwrap()];
    full.allowed_tools = vec!["search".to_owned()];
    full.budget = serde_json::from_str(
        r#"{
            "max_tokens_per_day": 9007199254740992,
            "max_api_calls_per_hour": 0,
            "max_cost_per_month_usd": 0.1,
            "require_approval_above_usd": 0.000001,
            "allowed_models": ["m"],
            "team": {"a": [1, null]}
        }"#,
    )
    .unwrap();
    full.budget_generation = u32::MAX;
    full.token_lifetime = Agent::MAX_TOKEN_LIFETIME;
    full.jwks_uri = Some("https://agent.example/jwks.json".to_owned());
    let jwks = r#"{"keys": [{"kty": "EC", "x5c": ["Ünïcode"], "n": [1.5, null], "b": 1, "a": 2}]}"#;
    full.jwks = Some(serde_json::from_str(jwks).unwrap());
    full.redirect_uris = vec!["https://agent.example/cb?a=b".to_owned(), "http://127.0.0.1/cb".to_owned()];
    full.can_act_on_behalf_of_users = true;
    full.delegation_consent = DelegationConsent::Implicit;
    full.workload = trust("\"Ünïcode\" \u{1f916}");
    full.aauth = Some(Box::new(AAuthIdentity {
        allowed_scopes: "read:* write:a".parse().unwrap(),
        algorithms: vec![HttpAlgorithm::RsaPssSha512, HttpAlgorithm::Ed25519],
        user_authorization: true,
        delegation: true,
        token_exchange: true,
        ..AAuthIdentity::new(identifier("https://Agent.example:443/%7Eone/"))
    }));
    full.secrets = Secrets::one(&Secret::generate(""));
    full.secrets.rotate(&Secret::generate(""), now().plus(Duration::from_millis(1)));
    full.api_key = Some(hash());
    full.epoch = u32::MAX;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &agent("other")).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
}

/// "Of any number of concurrent inserts with one such value exactly one is `Inserted`."
pub async fn one_slug_once(store: &dyn AgentStore) {
    let org = some_org();
    let racers: Vec<_> = (0..RACERS).map(|_| agent("wanted")).collect();
    let outcomes = race(RACERS, async |n| store.insert(&org, &racers[n], &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Slug)), RACERS - 1, "{outcomes:?}");
    for (racer, outcome) in racers.iter().zip(&outcomes) {
        let found = by_id(store, &org, racer.id).await;
        assert_eq!(found.is_some(), *outcome == Insert::Inserted, "{outcome:?}");
    }
    assert_eq!(store.list(&org, &AgentFilter::default(), ALL).await.unwrap().total, 1);
}

/// "Id, slug, client id, API key hash and AAuth identifier are unique in the organization."
pub async fn unique_values(store: &dyn AgentStore) {
    let org = some_org();
    let held = some_identity("https://held.example");
    let holder = Agent { api_key: Some(hash()), aauth: held.clone(), ..agent("holder") };
    inserted(store, &org, &holder).await;

    let fresh =
        || Agent { api_key: Some(hash()), aauth: some_identity("https://fresh.example"), ..agent("fresh") };
    for (unique, taken) in [
        (Unique::Id, Agent { id: holder.id, ..fresh() }),
        (Unique::Slug, Agent { slug: holder.slug.clone(), ..fresh() }),
        (Unique::ClientId, Agent { client_id: holder.client_id.clone(), ..fresh() }),
        (Unique::KeyHash, Agent { api_key: holder.api_key, ..fresh() }),
        (Unique::AAuthIdentifier, Agent { aauth: held.clone(), ..fresh() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }

    let other = fresh();
    inserted(store, &org, &other).await;
    for (unique, robber) in [
        (Unique::KeyHash, Agent { api_key: holder.api_key, ..other.clone() }),
        (Unique::AAuthIdentifier, Agent { aauth: held, ..other.clone() }),
    ] {
        let robber = Agent { name: "robber".into(), ..robber };
        assert_eq!(store.update(&org, &robber, &some_event()).await.unwrap(), Update::Taken(unique));
    }
    for unchanged in [holder, other] {
        for key in every_key(&unchanged) {
            assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&unchanged), "{key:?}");
        }
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn AgentStore) {
    let (ours, theirs) = (some_org(), some_org());
    let agent = Agent {
        api_key: Some(hash()),
        workload: trust("one"),
        aauth: some_identity("https://ours.example"),
        ..agent("ours")
    };
    let trusting = async |org| store.trusting(org, &[workload_key("one")]).await.unwrap();
    inserted(store, &ours, &agent).await;

    for key in every_key(&agent) {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert!(trusting(&theirs).await.is_empty());
    assert_eq!(store.list(&theirs, &AgentFilter::default(), ALL).await.unwrap().total, 0);
    assert_eq!(store.update(&theirs, &agent, &some_event()).await.unwrap(), Update::Missing);
    assert_eq!(store.remove(&theirs, agent.id, agent.version, &some_event()).await.unwrap(), Remove::Missing);
    inserted(store, &theirs, &Agent { workload: None, ..agent.clone() }).await;
    assert!(trusting(&theirs).await.is_empty());
    assert_eq!(store.remove(&theirs, agent.id, agent.version, &some_event()).await.unwrap(), Remove::Removed);

    for key in every_key(&agent) {
        assert_eq!(store.find(&ours, key).await.unwrap().as_deref(), Some(&agent), "{key:?}");
    }
    let found = trusting(&ours).await;
    assert_eq!(found.iter().map(|found| &**found).collect::<Vec<_>>(), [&agent]);
}

/// "Replaces the agent if its stored version is `agent.version`."
pub async fn updates_are_guarded(store: &dyn AgentStore) {
    let org = some_org();
    let mut agent = agent("guarded");
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &agent).await;

    agent.name = "First".into();
    agent.status = AgentStatus::Inactive;
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Updated);
    agent.name = "Second".into();
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Stale);

    let stored = Agent { name: "First".into(), version: 1, ..agent.clone() };
    for key in every_key(&agent) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    agent.version = stored.version;
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Updated);
    agent.version = 7;
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Stale);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn AgentStore) {
    let org = some_org();
    let agent = agent("raced");
    inserted(store, &org, &agent).await;

    let outcomes = race(RACERS, async |n| {
        let next = Agent { name: format!("Racer {n}").into(), ..agent.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = by_id(store, &org, agent.id).await.unwrap();
    assert_eq!((stored.name, stored.version), (format!("Racer {winner}").into(), 1));
}

/// "Its API key may \[change\], and then the old key finds nothing any more."
pub async fn old_api_key_is_forgotten(store: &dyn AgentStore) {
    let org = some_org();
    let (old, new) = (hash(), hash());
    let mut owner = Agent { api_key: Some(old), ..agent("owner") };
    inserted(store, &org, &owner).await;

    owner.api_key = Some(new);
    assert_eq!(store.update(&org, &owner, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(store.find(&org, AgentKey::ApiKey(&old)).await.unwrap(), None);
    assert!(
        store.find(&org, AgentKey::ApiKey(&new)).await.unwrap().is_some_and(|found| found.id == owner.id)
    );

    let heir = Agent { api_key: Some(old), ..agent("heir") };
    inserted(store, &org, &heir).await;
    owner.api_key = None;
    owner.version = 1;
    assert_eq!(store.update(&org, &owner, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(store.find(&org, AgentKey::ApiKey(&new)).await.unwrap(), None);
    assert_eq!(store.find(&org, AgentKey::ApiKey(&old)).await.unwrap().as_deref(), Some(&heir));
}

/// "Of any number of concurrent inserts with one such value exactly one is `Inserted`", and of updates to it exactly one
/// is `Updated`.
pub async fn one_aauth_identifier_once(store: &dyn AgentStore) {
    let org = some_org();
    let wanted = some_identity("https://wanted.example");
    let mut racers: Vec<_> = (0..RACERS).map(|n| agent(&format!("racer-{n}"))).collect();
    let there = racers.len() / 2;
    for racer in &racers[..there] {
        inserted(store, &org, racer).await;
    }
    for racer in &mut racers {
        racer.aauth = wanted.clone();
    }

    let won = race(RACERS, async |n| {
        if n < there {
            let outcome = store.update(&org, &racers[n], &some_event()).await.unwrap();
            assert!(
                [Update::Updated, Update::Taken(Unique::AAuthIdentifier)].contains(&outcome),
                "{outcome:?}"
            );
            outcome == Update::Updated
        } else {
            let outcome = store.insert(&org, &racers[n], &some_event()).await.unwrap();
            assert!(
                [Insert::Inserted, Insert::Taken(Unique::AAuthIdentifier)].contains(&outcome),
                "{outcome:?}"
            );
            outcome == Insert::Inserted
        }
    })
    .await;

    assert_eq!(count(&won, &true), 1, "{won:?}");
    let winner = won.iter().position(|won| *won).unwrap();
    assert_eq!(named(store, &org, "https://wanted.example").await, Some(racers[winner].id));
    let filter = AgentFilter { aauth: true, ..AgentFilter::default() };
    assert_eq!(store.list(&org, &filter, ALL).await.unwrap().total, 1);
}

/// The agent of this name in AAuth.
async fn named(store: &dyn AgentStore, org: &OrgId, name: &str) -> Option<AgentId> {
    let found = store.find(org, AgentKey::AAuthIdentifier(&identifier(name))).await.unwrap();
    found.map(|agent| agent.id)
}

/// "Its AAuth identifier may \[change\], come and go, and then the old one finds nothing any more and is free."
pub async fn aauth_identifiers_follow_updates(store: &dyn AgentStore) {
    let org = some_org();
    let mut mover = agent("mover");
    inserted(store, &org, &mover).await;
    let (old, new) = ("https://a.example", "https://b.example");

    mover.aauth = some_identity(old);
    assert_eq!(store.update(&org, &mover, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(named(store, &org, old).await, Some(mover.id));
    for other in ["https://a.example/", "https://A.example", "https://a.example:443"] {
        assert_eq!(named(store, &org, other).await, None, "{other}");
    }
    mover.version = 1;
    for key in every_key(&mover) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&mover), "{key:?}");
    }

    // Another change leaves it where it is.
    mover.name = "Renamed".into();
    assert_eq!(store.update(&org, &mover, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(named(store, &org, old).await, Some(mover.id));

    (mover.aauth, mover.version) = (some_identity(new), 2);
    let stale = Agent { version: 1, ..mover.clone() };
    assert_eq!(store.update(&org, &stale, &some_event()).await.unwrap(), Update::Stale);
    assert_eq!(named(store, &org, old).await, Some(mover.id));
    assert_eq!(store.update(&org, &mover, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(named(store, &org, old).await, None);
    assert_eq!(named(store, &org, new).await, Some(mover.id));

    let heir = Agent { aauth: some_identity(old), ..agent("heir") };
    inserted(store, &org, &heir).await;
    (mover.aauth, mover.version) = (None, 3);
    assert_eq!(store.update(&org, &mover, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(named(store, &org, new).await, None);
    assert_eq!(named(store, &org, old).await, Some(heir.id));
    inserted(store, &org, &Agent { aauth: some_identity(new), ..agent("other") }).await;
    // Those who have none do not take it from one another.
    inserted(store, &org, &agent("none")).await;
}

/// "Removes the agent, and frees its unique values."
pub async fn removal_frees_names(store: &dyn AgentStore) {
    let org = some_org();
    let old = Agent { api_key: Some(hash()), aauth: some_identity("https://name.example"), ..agent("name") };
    let remove = async || store.remove(&org, old.id, 1, &some_event()).await.unwrap();
    assert_eq!(remove().await, Remove::Missing);
    inserted(store, &org, &old).await;
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Updated);

    assert_eq!(remove().await, Remove::Removed);
    for key in every_key(&old) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(store.list(&org, &AgentFilter::default(), ALL).await.unwrap().total, 0);
    assert_eq!(remove().await, Remove::Missing);
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Missing);

    let new = Agent { id: AgentId::generate(), ..old };
    inserted(store, &org, &new).await;
    assert_eq!(by_id(store, &org, new.id).await, Some(new));
}

/// "Removes the agent if `version` is its stored one." So of concurrent updates and removals from one version exactly one
/// happens.
pub async fn removals_are_guarded(store: &dyn AgentStore) {
    let org = some_org();
    let mut agent = agent("kept");
    inserted(store, &org, &agent).await;
    assert_eq!(store.update(&org, &agent, &some_event()).await.unwrap(), Update::Updated);
    for version in [0, 2, u64::MAX] {
        assert_eq!(store.remove(&org, agent.id, version, &some_event()).await.unwrap(), Remove::Stale);
    }
    agent.version = 1;
    for key in every_key(&agent) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&agent), "{key:?}");
    }

    let happened = race(RACERS, async |n| {
        if n.is_multiple_of(2) {
            store.remove(&org, agent.id, 1, &some_event()).await.unwrap() == Remove::Removed
        } else {
            store.update(&org, &agent, &some_event()).await.unwrap() == Update::Updated
        }
    })
    .await;
    assert_eq!(count(&happened, &true), 1, "{happened:?}");
}

/// "`Missing`: there was no such record." So of any number of concurrent removals exactly one is `Removed`.
pub async fn racing_removals(store: &dyn AgentStore) {
    let org = some_org();
    let agent = agent("gone");
    inserted(store, &org, &agent).await;

    let outcomes =
        race(RACERS, async |_| store.remove(&org, agent.id, 0, &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Remove::Removed), 1, "{outcomes:?}");
}

fn trust(workload: &str) -> Option<WorkloadTrust> {
    Some(WorkloadTrust::oidc("https://platform.example", workload))
}

fn workload_key(workload: &str) -> WorkloadKey {
    trust(workload).unwrap().key()
}

/// "The agents whose workload has one of these keys, each once, in no particular order. An update that changes the trust
/// of an agent changes where it is found."
pub async fn found_by_workload(store: &dyn AgentStore) {
    let org = some_org();
    let trusting = async |workloads: &[&str]| {
        let keys: Vec<_> = workloads.iter().map(|workload| workload_key(workload)).collect();
        let found = store.trusting(&org, &keys).await.unwrap();
        let mut slugs: Vec<_> = found.iter().map(|agent| agent.slug.to_string()).collect();
        slugs.sort();
        slugs
    };
    assert!(trusting(&["one"]).await.is_empty());
    let mut first = Agent { workload: trust("one"), ..agent("first") };
    // Whatever its status: that is for the caller to look at.
    let second = Agent { workload: trust("one"), status: AgentStatus::Revoked, ..agent("second") };
    let third = Agent { workload: trust("two"), ..agent("third") };
    for agent in [&first, &second, &third, &agent("none")] {
        inserted(store, &org, agent).await;
    }

    assert_eq!(trusting(&["one"]).await, ["first", "second"]);
    assert_eq!(trusting(&["two"]).await, ["third"]);
    assert_eq!(trusting(&["two", "one", "two", "three"]).await, ["first", "second", "third"]);
    assert!(trusting(&["three"]).await.is_empty());
    assert!(trusting(&[]).await.is_empty());
    // The issuer and the claim are as much part of the key as the workload.
    for other in [
        WorkloadKey::new("https://platform.example/", "sub", "one"),
        WorkloadKey::new("https://platform.example", "email", "one"),
    ] {
        assert!(store.trusting(&org, &[other]).await.unwrap().is_empty());
    }

    // Another change leaves it where it is, and is seen there.
    first.name = "Renamed".into();
    assert_eq!(store.update(&org, &first, &some_event()).await.unwrap(), Update::Updated);
    first.version = 1;
    let found = store.trusting(&org, &[workload_key("one")]).await.unwrap();
    assert!(found.iter().any(|found| **found == first), "{found:?}");
    assert_eq!(trusting(&["one"]).await, ["first", "second"]);

    first.workload = trust("two");
    let stale = Agent { version: 0, ..first.clone() };
    assert_eq!(store.update(&org, &stale, &some_event()).await.unwrap(), Update::Stale);
    assert_eq!(trusting(&["one"]).await, ["first", "second"]);
    assert_eq!(store.update(&org, &first, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(trusting(&["one"]).await, ["second"]);
    assert_eq!(trusting(&["two"]).await, ["first", "third"]);
    assert_eq!(trusting(&["one", "two"]).await, ["first", "second", "third"]);

    (first.workload, first.version) = (None, 2);
    assert_eq!(store.update(&org, &first, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(trusting(&["one", "two"]).await, ["second", "third"]);
    (first.workload, first.version) = (trust("one"), 3);
    assert_eq!(store.update(&org, &first, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(trusting(&["one"]).await, ["first", "second"]);

    assert_eq!(store.remove(&org, second.id, second.version, &some_event()).await.unwrap(), Remove::Removed);
    assert_eq!(trusting(&["one", "two"]).await, ["first", "third"]);
    // A successor is not what it succeeds.
    inserted(store, &org, &agent("second")).await;
    assert_eq!(trusting(&["one"]).await, ["first"]);
}

/// "The agents that match, in ascending order of slug."
pub async fn listing(store: &dyn AgentStore) {
    let org = some_org();
    // In the order of bytes, which not every collation agrees with.
    let slugs = ["0", "a", "a-b", "a0", "ab", "b"];
    for n in [4, 1, 5, 0, 3, 2] {
        let mut agent = agent(slugs[n]);
        agent.client_id = ClientId::parse(&format!("cli_{n}")).unwrap();
        agent.status = if n % 2 == 0 { AgentStatus::Active } else { AgentStatus::Revoked };
        agent.kind = if n == 0 { AgentKind::Bot } else { AgentKind::Service };
        agent.aauth = (n % 3 == 0).then(|| some_identity(&format!("https://{n}.example"))).flatten();
        agent.description = [None, Some("100% Done".to_owned()), Some("1000 done".to_owned())][n % 3].clone();
        inserted(store, &org, &agent).await;
    }
    let slugs_of = async |filter: &AgentFilter, page| {
        let listing = store.list(&org, filter, page).await.unwrap();
        let slugs: Vec<_> = listing.items.iter().map(|agent| agent.slug.to_string()).collect();
        (slugs, listing.total)
    };
    let expect = |slugs: &[&str]| slugs.iter().map(ToString::to_string).collect::<Vec<_>>();

    let every = AgentFilter::default();
    assert_eq!(slugs_of(&every, ALL).await, (expect(&slugs), 6));
    assert_eq!(slugs_of(&every, Page { offset: 1, limit: 2 }).await, (expect(&["a", "a-b"]), 6));
    assert_eq!(slugs_of(&every, Page { offset: 5, limit: 2 }).await, (expect(&["b"]), 6));
    for nothing in [Page { offset: 6, limit: 2 }, Page { offset: u64::MAX, limit: 2 }, Page::first(0)] {
        assert_eq!(slugs_of(&every, nothing).await, (vec![], 6), "{nothing:?}");
    }

    let active = AgentFilter { status: Some(AgentStatus::Active), ..every.clone() };
    assert_eq!(slugs_of(&active, Page { offset: 1, limit: 1 }).await, (expect(&["a-b"]), 3));
    let bots = AgentFilter { kind: Some(AgentKind::Bot), ..every.clone() };
    assert_eq!(slugs_of(&bots, ALL).await, (expect(&["0"]), 1));
    let aauth = AgentFilter { aauth: true, ..every.clone() };
    assert_eq!(slugs_of(&aauth, ALL).await, (expect(&["0", "a0"]), 2));
    assert_eq!(slugs_of(&aauth, Page { offset: 1, limit: 1 }).await, (expect(&["a0"]), 2));
    let active_aauth = AgentFilter { aauth: true, ..active.clone() };
    assert_eq!(slugs_of(&active_aauth, ALL).await, (expect(&["0"]), 1));
    // What a pattern language reads as a wildcard is text here.
    for (search, found) in
        [("DONE", &["a", "a-b", "ab", "b"][..]), ("100% d", &["a", "ab"]), ("A-", &["a-b"]), ("_", &[])]
    {
        let filter = AgentFilter { search: Some(search.to_owned()), ..every.clone() };
        assert_eq!(slugs_of(&filter, ALL).await.0, expect(found), "{search}");
    }
    let both = AgentFilter { search: Some("done".to_owned()), status: Some(AgentStatus::Active), ..every };
    assert_eq!(slugs_of(&both, ALL).await, (expect(&["a-b", "ab"]), 2));
}
