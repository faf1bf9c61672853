//! Cases of [`McpServerStore`].

use std::time::Duration;

use super::{RACERS, count, now, race, some_event, some_org};
use crate::{
    capability::Capability,
    id::{AgentId, ClientId, McpServerId, Number, OrgId},
    mcp::{AuthMode, McpServer, ResourceUri, Transport},
    store::{Insert, McpServerKey, McpServerStore, Remove, Unique, Update},
};

fn uri(text: &str) -> ResourceUri {
    ResourceUri::parse(text).unwrap()
}

fn server(resource: &str, aliases: &[&str]) -> McpServer {
    let mut server = McpServer::new("server", uri(resource), now());
    server.aliases = aliases.iter().map(|alias| uri(alias)).collect();
    server
}

async fn inserted(store: &dyn McpServerStore, org: &OrgId, server: &McpServer) {
    assert_eq!(store.insert(org, server, &some_event()).await.unwrap(), Insert::Inserted);
}

async fn by_target(store: &dyn McpServerStore, org: &OrgId, target: &str) -> Option<McpServerId> {
    let target = uri(target);
    let found = store.find(org, McpServerKey::Target(target.normalized())).await.unwrap();
    found.map(|server| server.server_id.clone())
}

fn every_key(server: &McpServer) -> Vec<McpServerKey<'_>> {
    let named = [McpServerKey::ServerId(&server.server_id), McpServerKey::Number(server.number)];
    named.into_iter().chain(server.targets().map(McpServerKey::Target)).collect()
}

/// "The server with this key."
pub async fn round_trip(store: &dyn McpServerStore) {
    let org = some_org();
    let mut full = server("https://MCP.example:443/mcp/", &["urn:mcp:full", "http://127.0.0.1:9000/?q=a"]);
    full.number = Number::new((1 << 53) - 1);
    full.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned();
    full.description = Some("two\nlines".to_owned());
    full.endpoint_url = Some("https://mcp.example/sse".to_owned());
    full.transport = Transport::HttpSse;
    full.auth_mode = AuthMode::None;
    full.active = false;
    full.scopes_supported = vec![Capability::parse("read:*").unwrap()];
    full.scope_descriptions = [("read:*".to_owned(), "Read".to_owned())].into();
    full.allowed_client_ids = vec![ClientId::generate_for_agent()];
    full.allowed_agent_ids = vec![AgentId::generate()];
    full.resource_client_id = Some(ClientId::generate_for_app());
    full.token_lifetime = McpServer::MAX_TOKEN_LIFETIME;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &server("https://other.example/", &[])).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
}

/// "No identifier names two servers." Also for any number of inserts at once.
pub async fn one_target_once(store: &dyn McpServerStore) {
    let org = some_org();
    let outcomes = race(RACERS, async |n| {
        let own = format!("https://{n}.example/");
        let racer = match n % 2 {
            0 => server("https://wanted.example/mcp", &[&own]),
            _ => server(&own, &["https://WANTED.example/mcp/"]),
        };
        store.insert(&org, &racer, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Target)), RACERS - 1, "{outcomes:?}");
    assert_eq!(store.all(&org).await.unwrap().len(), 1);
}

/// "Public id, number and every one of `McpServer::targets` are unique in the organization."
pub async fn unique_values(store: &dyn McpServerStore) {
    let org = some_org();
    let holder = server("https://holder.example/", &["urn:mcp:holder"]);
    inserted(store, &org, &holder).await;

    let fresh = || server("https://fresh.example/", &["urn:mcp:fresh"]);
    for (unique, taken) in [
        (Unique::Id, McpServer { server_id: holder.server_id.clone(), ..fresh() }),
        (Unique::Number, McpServer { number: holder.number, ..fresh() }),
        (Unique::Target, McpServer { resource_uri: uri("urn:mcp:holder"), ..fresh() }),
        (Unique::Target, McpServer { aliases: vec![uri("https://HOLDER.example")], ..fresh() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }

    // One server may name itself twice.
    inserted(store, &org, &server("https://twice.example/", &["https://twice.example"])).await;
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn McpServerStore) {
    let (ours, theirs) = (some_org(), some_org());
    let server = server("https://ours.example/", &["urn:mcp:ours"]);
    inserted(store, &ours, &server).await;

    for key in every_key(&server) {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert!(store.all(&theirs).await.unwrap().is_empty());
    assert_eq!(store.update(&theirs, &server, &some_event()).await.unwrap(), Update::Missing);
    let remove = async || store.remove(&theirs, &server.server_id, 0, &some_event()).await.unwrap();
    assert_eq!(remove().await, Remove::Missing);
    inserted(store, &theirs, &server).await;
    assert_eq!(remove().await, Remove::Removed);

    for key in every_key(&server) {
        assert_eq!(store.find(&ours, key).await.unwrap().as_deref(), Some(&server), "{key:?}");
    }
}

/// "Replaces the server if its stored version is `server.version`."
pub async fn updates_are_guarded(store: &dyn McpServerStore) {
    let org = some_org();
    let mut server = server("https://guarded.example/", &["urn:mcp:guarded"]);
    assert_eq!(store.update(&org, &server, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &server).await;

    server.active = false;
    assert_eq!(store.update(&org, &server, &some_event()).await.unwrap(), Update::Updated);
    server.active = true;
    assert_eq!(store.update(&org, &server, &some_event()).await.unwrap(), Update::Stale);

    let stored = McpServer { active: false, version: 1, ..server.clone() };
    for key in every_key(&server) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    server.version = stored.version;
    assert_eq!(store.update(&org, &server, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn McpServerStore) {
    let org = some_org();
    let server = server("https://raced.example/", &[]);
    inserted(store, &org, &server).await;

    let outcomes = race(RACERS, async |n| {
        let next = McpServer { name: format!("Racer {n}"), ..server.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&org, McpServerKey::Number(server.number)).await.unwrap().unwrap();
    assert_eq!((stored.name.clone(), stored.version), (format!("Racer {winner}"), 1));
}

/// "Identifiers it no longer has are free; if another server has one of the new ones, nothing changes."
pub async fn targets_follow_updates(store: &dyn McpServerStore) {
    let org = some_org();
    let mut mover = server("https://mover.example/", &["urn:mcp:old"]);
    let holder = server("https://holder.example/", &["urn:mcp:held"]);
    inserted(store, &org, &mover).await;
    inserted(store, &org, &holder).await;

    mover.aliases = vec![uri("urn:mcp:new")];
    assert_eq!(store.update(&org, &mover, &some_event()).await.unwrap(), Update::Updated);
    assert_eq!(by_target(store, &org, "urn:mcp:old").await, None);
    assert_eq!(by_target(store, &org, "urn:mcp:new").await.as_ref(), Some(&mover.server_id));

    mover.version = 1;
    let robber = McpServer { aliases: vec![uri("urn:mcp:more"), uri("urn:mcp:held")], ..mover.clone() };
    let outcome = store.update(&org, &robber, &some_event()).await.unwrap();
    assert_eq!(outcome, Update::Taken(Unique::Target));
    assert_eq!(by_target(store, &org, "urn:mcp:more").await, None);
    assert_eq!(by_target(store, &org, "urn:mcp:held").await, Some(holder.server_id));
    for key in every_key(&mover) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&mover), "{key:?}");
    }

    inserted(store, &org, &server("urn:mcp:old", &["urn:mcp:more"])).await;
}

/// "Removes the server if `version` is its stored one." So of concurrent updates and removals from one version exactly one
/// happens.
pub async fn removals_are_guarded(store: &dyn McpServerStore) {
    let org = some_org();
    let mut server = server("https://kept.example/", &["urn:mcp:kept"]);
    inserted(store, &org, &server).await;
    assert_eq!(store.update(&org, &server, &some_event()).await.unwrap(), Update::Updated);
    for version in [0, 2, u64::MAX] {
        assert_eq!(
            store.remove(&org, &server.server_id, version, &some_event()).await.unwrap(),
            Remove::Stale
        );
    }
    server.version = 1;
    for key in every_key(&server) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&server), "{key:?}");
    }

    let happened = race(RACERS, async |n| {
        if n.is_multiple_of(2) {
            store.remove(&org, &server.server_id, 1, &some_event()).await.unwrap() == Remove::Removed
        } else {
            let next = McpServer { aliases: vec![uri(&format!("urn:mcp:kept:{n}"))], ..server.clone() };
            store.update(&org, &next, &some_event()).await.unwrap() == Update::Updated
        }
    })
    .await;
    assert_eq!(count(&happened, &true), 1, "{happened:?}");
}

/// "Removes the server, and frees its identifiers."
pub async fn removal_frees_targets(store: &dyn McpServerStore) {
    let org = some_org();
    let old = server("https://name.example/", &["urn:mcp:name"]);
    let remove = async || store.remove(&org, &old.server_id, 1, &some_event()).await.unwrap();
    assert_eq!(remove().await, Remove::Missing);
    inserted(store, &org, &old).await;
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Updated);

    assert_eq!(remove().await, Remove::Removed);
    for key in every_key(&old) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }
    assert!(store.all(&org).await.unwrap().is_empty());
    assert_eq!(remove().await, Remove::Missing);
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Missing);

    inserted(store, &org, &McpServer { server_id: McpServerId::generate(), ..old.clone() }).await;
}

/// "All servers, in ascending order of public id."
pub async fn listing(store: &dyn McpServerStore) {
    let org = some_org();
    assert!(store.all(&org).await.unwrap().is_empty());
    let mut servers: Vec<_> = (0..9).map(|n| server(&format!("urn:mcp:{n}"), &[])).collect();
    for server in &servers {
        inserted(store, &org, server).await;
    }

    servers.sort_by(|a, b| a.server_id.cmp(&b.server_id));
    let found: Vec<_> = store.all(&org).await.unwrap().iter().map(|one| McpServer::clone(one)).collect();
    assert_eq!(found, servers);
}
