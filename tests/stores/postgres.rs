//! PostgreSQL: every role, and what is only true of a database that several stores share.

use std::sync::Arc;

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
    let patient = Settings::default().with_acquire_timeout(PATIENCE).with_statement_timeout(PATIENCE);
    PostgresStore::connect(url, patient.with_max_connections(8)).await.unwrap()
}

/// A busy machine proves nothing about the store.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

async fn make() -> ((), PostgresStore) {
    ((), store_at(url().await).await)
}

lumoauth_core::store_conformance!(make);

mod outbox {
    use super::{Database, OnceCell, PostgresStore, fresh, store_at};

    /// Nobody moves events out of the outboxes of this database, as when the log is kept elsewhere.
    async fn make() -> ((), PostgresStore) {
        static DATABASE: OnceCell<Database> = OnceCell::const_new();
        ((), store_at(DATABASE.get_or_init(fresh).await.url()).await)
    }

    lumoauth_core::outbox_conformance!(make);
}

mod races {
    use super::{Arc, PostgresStore, store_at, url};

    async fn make() -> ((), [Arc<PostgresStore>; 2]) {
        let url = url().await;
        ((), [Arc::new(store_at(url).await), Arc::new(store_at(url).await)])
    }

    crate::races::races!(make; recorded);
    crate::races::races!(make; hot);
}

mod migrations {
    use lumoauth_tests::services::query;

    use super::{Database, PostgresStore, Settings};

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
}
