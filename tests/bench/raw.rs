//! The yardsticks on PostgreSQL: one statement per call, one row per statement.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::OrgId,
    merkle::Node,
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, Listing, LogEntry, LogHead, Page,
        RawEntry, StoreError, TreeLevel,
    },
};
use lumoauth_store_postgres::PostgresStore;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Semaphore;

/// A fixed number of connections that are opened once and lent to one caller at a time, without any other work.
pub(crate) struct Connections {
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// `count` connections to `url`, which commit as the store's do.
    pub(crate) async fn open(url: &str, count: usize) -> Arc<Self> {
        let mut idle = Vec::with_capacity(count);
        for _ in 0..count {
            let mut connection = PgConnection::connect(url).await.expect("PostgreSQL accepts");
            let commit = sqlx::query("SET synchronous_commit = on").execute(&mut connection).await;
            commit.expect("a setting");
            idle.push(connection);
        }
        Arc::new(Self { permits: Semaphore::new(count), idle: Mutex::new(idle) })
    }

    /// Adds one to the counter `id` of [`COUNTERS`].
    pub(crate) async fn count(&self, id: i32) {
        let _permit = self.permits.acquire().await.expect("nobody closes it");
        let mut connection = self.take();
        let update = sqlx::query(COUNT).bind(id).execute(&mut connection).await;
        assert_eq!(update.expect("an update").rows_affected(), 1);
        self.give_back(connection);
    }

    /// Inserts one event as the store's outbox keeps it.
    pub(crate) async fn insert(&self, org: &OrgId, event: &Event) {
        let _permit = self.permits.acquire().await.expect("nobody closes it");
        let mut connection = self.take();
        let at = i64::try_from(event.at.unix_millis()).expect("milliseconds fit");
        let insert = sqlx::query(INSERT)
            .bind(org.as_str())
            .bind(event.id.uuid())
            .bind(at)
            .bind(serde_json::to_string(event).expect("an event is JSON"))
            .execute(&mut connection)
            .await;
        assert_eq!(insert.expect("an insert").rows_affected(), 1);
        self.give_back(connection);
    }

    fn take(&self) -> PgConnection {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.expect("whoever has a permit has a connection")
    }

    fn give_back(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Counters 0 to 99, for [`Connections::count`].
pub(crate) const COUNTERS: &str = "\
    CREATE TABLE raw_counter (id int PRIMARY KEY, used bigint NOT NULL); \
    INSERT INTO raw_counter SELECT id, 0 FROM generate_series(0, 99) AS id";

const COUNT: &str = "UPDATE raw_counter SET used = used + 1 WHERE id = $1";

const INSERT: &str = "\
    INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) \
    VALUES ($1, $2, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, 1, $3, $4)";

/// The audit log of a [`PostgresStore`] whose events are appended one by one, each with its own commit.
#[derive(Debug)]
pub(crate) struct OneByOne {
    connections: Arc<Connections>,
    rest: Arc<PostgresStore>,
}

impl OneByOne {
    /// Appends through `connections`; everything else is left to `rest`.
    pub(crate) fn new(connections: Arc<Connections>, rest: Arc<PostgresStore>) -> Self {
        Self { connections, rest }
    }
}

#[async_trait]
impl AuditStore for OneByOne {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            self.connections.insert(org, event).await;
        }
        Ok(())
    }

    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.rest.waiting(max).await
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.rest.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        AuditStore::find(&*self.rest, org, key).await
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        AuditStore::page(&*self.rest, org, filter, page).await
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        AuditStore::stats(&*self.rest, org, filter).await
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        AuditStore::head(&*self.rest, org).await
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        AuditStore::nodes(&*self.rest, org, level, range).await
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        AuditStore::raw(&*self.rest, org, after, max).await
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        AuditStore::sign_off(&*self.rest, org, checkpoint).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        AuditStore::checkpoints(&*self.rest, org, after, max).await
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        AuditStore::unsigned(&*self.rest, by, after, max).await
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        AuditStore::drop_bodies(&*self.rest, org, from, up_to, on).await
    }
}
