//! Where the reference server under measurement keeps its records.

use std::{path::Path, sync::Arc};

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    id::OrgId,
    store::{AgentStore, AuditStore},
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::{
    Stopwatch,
    services::{Database, query},
};

use crate::{
    Options, StoreKind, agents, host, many_threads, one_thread, process::TempDir, report::say, target::Target,
};

/// A store with the directory of its server.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) kind: StoreKind,
    store: String,
    directory: TempDir,
    // Dropped with the place, and so after the server.
    _database: Option<Database>,
}

impl Place {
    /// A new and empty one.
    pub(crate) fn new(kind: StoreKind) -> Self {
        let database = (kind == StoreKind::Postgres).then(Database::create);
        let store = match &database {
            Some(database) => database.url().to_owned(),
            None if kind == StoreKind::Embedded => "embedded:data".to_owned(),
            None => "memory".to_owned(),
        };
        Self { kind, store, directory: TempDir::new(), _database: database }
    }

    /// As `--store` names it. It may hold a password.
    pub(crate) fn store(&self) -> &str {
        &self.store
    }

    /// Where the server runs.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One with the fixtures of `dev` and `count` agents, whose store was closed in order.
    ///
    /// # Panics
    /// When there is nothing to prepare: a memory store forgets.
    pub(crate) fn prepared(options: &Options, kind: StoreKind, count: usize) -> Self {
        let place = Self::new(kind);
        Target::reference(options, &place).process.terminate();
        let watch = Stopwatch::start();
        let org = OrgId::parse(host::ORG).expect("a slug");
        match kind {
            StoreKind::Memory => panic!("a memory store forgets"),
            StoreKind::Embedded => {
                let store = EmbeddedStore::open(place.directory().join("data")).expect("the store opens");
                one_thread().block_on(agents::seed(Arc::new(store), org, count));
            }
            StoreKind::Postgres => many_threads().block_on(fill(place.store(), org, count)),
        }
        say(&format!("  {count} agents stored in {:.1} s", watch.elapsed().as_secs_f64()));
        place
    }
}

/// Stores agents and numbers their events, so that the server has no old work to do while it is measured.
async fn fill(url: &str, org: OrgId, count: usize) {
    const STEP: u32 = 10_000;
    let store = Arc::new(PostgresStore::connect(url, Settings::default()).await.expect("the store opens"));
    let agents: Arc<dyn AgentStore> = store.clone();
    agents::seed(agents, org.clone(), count).await;
    while store.sequence(&org, STEP).await.expect("the store answers") > 0 {}
    // What PostgreSQL would otherwise do during the first rounds.
    query(url, "VACUUM ANALYZE");
    query(url, "CHECKPOINT");
}
