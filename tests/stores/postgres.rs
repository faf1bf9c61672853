//! PostgreSQL: every role, and what is only true of a database that several stores share.

use std::sync::Arc;

use lumoauth_core::store::{ChangeFeed, Upkeep, conformance};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::services::Database;
use tokio::sync::OnceCell;

/// The database of all cases, which make their own organizations and meet nobody else's.
pub(crate) async fn url() -> &'static str {
    static DATABASE: OnceCell<Database> = OnceCell::const_new();
    DATABASE.get_or_init(fresh).await.url()
}

/// A new database with its tables.
async fn fresh() -> Database {
    let database = Database::create();
    PostgresStore::migrate(database.url()).await.unwrap();
    database
}

/// A store with connections of its own: they belong to the runtime of one test. Enough of them to race.
pub(crate) async fn store_at(url: &str) -> PostgresStore {
    PostgresStore::connect(url, patient()).await.unwrap()
}

fn patient() -> Settings {
    let settings = Settings::default().with_acquire_timeout(PATIENCE).with_statement_timeout(PATIENCE);
    settings.with_max_connections(8)
}

/// A busy machine proves nothing about the store.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

async fn make() -> ((), PostgresStore) {
    ((), store_at(url().await).await)
}

lumoauth_core::store_conformance!(make);

#[tokio::test]
async fn edits_of_an_exported_log_are_found() {
    crate::audit_edits::are_found(Arc::new(store_at(url().await).await)).await;
}

#[tokio::test]
async fn nothing_is_kept_of_agents_of_which_nothing_waits() {
    let database = fresh().await;
    let store = store_at(database.url()).await;
    let rows = || lumoauth_tests::services::query(database.url(), "SELECT count(*) FROM jit_load");
    conformance::jit::waiting_is_bounded(&store).await;
    assert_ne!(rows(), "0");
    store.purge(conformance::now(), 1000).await.unwrap();
    assert_ne!(rows(), "0", "something waits");
    store.purge(conformance::now().plus(std::time::Duration::from_secs(3600)), 1000).await.unwrap();
    assert_eq!(rows(), "0");
}

async fn feeds() -> ((), Arc<dyn ChangeFeed>, Arc<dyn ChangeFeed>) {
    let (one, other) = (store_at(url().await).await, store_at(url().await).await);
    ((), one.changes(), other.changes())
}

lumoauth_core::change_feed_conformance!(feeds);

mod outbox {
    use super::{Database, OnceCell, PostgresStore, fresh, patient};

    /// Nobody numbers the events of this database, as when the log is kept elsewhere.
    async fn make() -> ((), PostgresStore) {
        static DATABASE: OnceCell<Database> = OnceCell::const_new();
        let url = DATABASE.get_or_init(fresh).await.url();
        ((), PostgresStore::connect_with_outbox(url, patient()).await.unwrap())
    }

    lumoauth_core::outbox_conformance!(make);
}

#[path = "audit_tamper.rs"]
mod audit_tamper;

#[path = "postgres_modes.rs"]
mod modes;

mod races {
    use super::{Arc, Database, PostgresStore, fresh, store_at, url};

    async fn make() -> ((), [Arc<PostgresStore>; 2]) {
        let url = url().await;
        ((), [Arc::new(store_at(url).await), Arc::new(store_at(url).await)])
    }

    /// A purge is for all organizations, so this one has a database of its own.
    async fn alone() -> (Database, [Arc<PostgresStore>; 2]) {
        let database = fresh().await;
        let [one, two] = [store_at(database.url()).await, store_at(database.url()).await];
        (database, [Arc::new(one), Arc::new(two)])
    }

    crate::races::races!(make; recorded);
    crate::races::races!(make; hot);
    crate::races::races!(alone; tasks: jit_purge);

    mod one_store {
        use super::{Arc, PostgresStore, store_at, url};

        async fn make() -> ((), Vec<Arc<PostgresStore>>) {
            ((), vec![Arc::new(store_at(url().await).await)])
        }

        crate::races::races!(make; caps);
        crate::races::races!(make; edges);
    }

    mod four_stores {
        use super::{Arc, PostgresStore, store_at, url};

        /// As of four processes, with connections of their own.
        async fn make() -> ((), Vec<Arc<PostgresStore>>) {
            let mut stores = Vec::new();
            for _ in 0..4 {
                stores.push(Arc::new(store_at(url().await).await));
            }
            ((), stores)
        }

        crate::races::races!(make; caps);
        crate::races::races!(make; edges);
    }
}

mod migrations {
    use lumoauth_store_postgres::OpenError;
    use lumoauth_tests::services::query;

    use super::{Database, PostgresStore, Settings, fresh};

    #[tokio::test]
    async fn many_servers_that_migrate_at_once_agree() {
        let database = Database::create();
        let url = database.url();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let url = url.to_owned();
                tokio::spawn(async move { PostgresStore::migrate(&url).await.unwrap() })
            })
            .collect();
        let mut steps = Vec::new();
        for task in tasks {
            steps.push(task.await.unwrap());
        }
        assert_eq!(steps.iter().filter(|steps| **steps > 0).count(), 1, "{steps:?}");
        assert_eq!(PostgresStore::migrate(url).await.unwrap(), 0);
        PostgresStore::connect(url, Settings::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_without_tables_is_refused_and_left_as_it_is() {
        let database = Database::create();
        let refused = PostgresStore::connect(database.url(), Settings::default()).await.unwrap_err();
        assert!(refused.to_string().contains("migrate"), "{refused}");
        let tables =
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
        assert_eq!(query(database.url(), tables), "0");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_as_it_is() {
        let database = fresh().await;
        query(database.url(), "UPDATE schema_state SET version = version + 1");
        let before = query(database.url(), "SELECT version FROM schema_state");
        let refused = PostgresStore::connect(database.url(), Settings::default()).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::NewerSchema { found, known } if found == known + 1),
            "{refused:?}"
        );
        let refused = PostgresStore::migrate(database.url()).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::NewerSchema { found, known } if found == known + 1),
            "{refused:?}"
        );
        assert_eq!(query(database.url(), "SELECT version FROM schema_state"), before);
    }

    #[tokio::test]
    async fn the_tables_may_be_in_a_schema_of_their_own() {
        let database = Database::create();
        query(database.url(), "CREATE SCHEMA lumoauth");
        let separator = if database.url().contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}options=-csearch_path=lumoauth", database.url());
        PostgresStore::migrate(&url).await.unwrap();
        PostgresStore::connect(&url, Settings::default()).await.unwrap();
        let tables = "SELECT count(*) > 10, bool_and(schemaname = 'lumoauth') FROM pg_tables \
            WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
        assert_eq!(query(database.url(), tables), "t|t");
    }

    #[tokio::test]
    async fn an_older_schema_is_refused() {
        let database = fresh().await;
        query(database.url(), "UPDATE schema_state SET version = 0");
        let refused = PostgresStore::connect(database.url(), Settings::default()).await.unwrap_err();
        assert!(matches!(refused, OpenError::NeedsMigration { found: 0, .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn a_step_that_fails_half_way_leaves_what_was_there() {
        let database = Database::create();
        // Something of this name is in the way of the last part of the first step.
        query(database.url(), "CREATE TABLE replay_mark (mine int)");
        let failed = PostgresStore::migrate(database.url()).await.unwrap_err();
        assert!(matches!(failed, OpenError::Database(_)), "{failed:?}");
        assert_eq!(query(database.url(), "SELECT version FROM schema_state"), "0");
        assert_eq!(query(database.url(), "SELECT to_regclass('organization') IS NULL"), "t");

        query(database.url(), "DROP TABLE replay_mark");
        assert!(PostgresStore::migrate(database.url()).await.unwrap() > 0);
        PostgresStore::connect(database.url(), Settings::default()).await.unwrap();
    }
}
