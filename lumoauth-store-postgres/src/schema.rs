//! The schema and its versions: migrations that are part of the program, only go forward, and take no advisory locks.
//!
//! One row of the table `schema_state` says which version the database has. Whoever migrates locks that row, so
//! of several servers that start at once one does the work and the others find it done. Each step and the new version
//! commit together; a step that fails leaves the version before it.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::{open::OpenError, pool::Pool};

/// The steps. The first makes version 1. Never change one that was released: add another.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/0001_roles.sql")];

/// The version that this program works with.
pub(crate) const KNOWN: u32 = {
    assert!(MIGRATIONS.len() < 1000, "versions are counted in 32 bits");
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let known = MIGRATIONS.len() as u32;
    known
};

const CREATE_STATE: &str =
    "CREATE TABLE IF NOT EXISTS schema_state (name text PRIMARY KEY, version bigint NOT NULL)";

const FIRST_STATE: &str =
    "INSERT INTO schema_state (name, version) VALUES ('lumoauth', 0) ON CONFLICT (name) DO NOTHING";

const LOCK_STATE: &str = "SELECT version FROM schema_state WHERE name = 'lumoauth' FOR UPDATE";

const SET_STATE: &str = "UPDATE schema_state SET version = $1 WHERE name = 'lumoauth'";

const READ_STATE: &str = "SELECT version FROM schema_state WHERE name = 'lumoauth'";

const STATE_EXISTS: &str = "SELECT to_regclass('schema_state') IS NOT NULL";

/// How long migrating may take in all, waiting for another server included. Steps are written so that they do not
/// rewrite large tables.
const LIMIT: Duration = Duration::from_secs(600);

/// The version of the database; 0 if it has none.
pub(crate) async fn version(pool: &Pool) -> Result<u32, OpenError> {
    let refused = |error| OpenError::Database(Box::new(error));
    let exists = pool.repeatable("schema.version", || sqlx::query(STATE_EXISTS)).await.map_err(refused)?;
    if !exists.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = pool.repeatable("schema.version", || sqlx::query(READ_STATE)).await.map_err(refused)?;
    Ok(rows.first().map_or(0, |row| known_or_newer(row.get(0))))
}

/// See [`PostgresStore::migrate`](crate::PostgresStore::migrate).
pub(crate) async fn migrate(options: PgConnectOptions) -> Result<u32, OpenError> {
    let limit = LIMIT.as_millis().to_string();
    let options = options.options([
        ("synchronous_commit", "on"),
        ("statement_timeout", &limit),
        ("lock_timeout", &limit),
        ("idle_in_transaction_session_timeout", &limit),
    ]);
    match timeout(LIMIT, run(&options)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(OpenError::Database(Box::new(error))),
        Err(_) => Err(OpenError::Database("migrating takes too long".into())),
    }
}

async fn run(options: &PgConnectOptions) -> Result<Result<u32, OpenError>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    create_state(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    let row = sqlx::query(LOCK_STATE).fetch_one(&mut *transaction).await?;
    let found = known_or_newer(row.try_get(0)?);
    if found > KNOWN {
        return Ok(Err(OpenError::NewerSchema { found, known: KNOWN }));
    }
    let missing = MIGRATIONS.iter().skip(found as usize);
    for migration in missing {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    if found < KNOWN {
        sqlx::query(SET_STATE).bind(i64::from(KNOWN)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(Ok(KNOWN - found))
}

/// Makes the table and its row if they are missing. `IF NOT EXISTS` looks before it creates, so of two servers that
/// are the first ones at the same instant one may be refused by the catalogue's own keys; then the table is there.
async fn create_state(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let created = sqlx::query(CREATE_STATE).execute(&mut *connection).await;
    if let Err(error) = created {
        let code = error.as_database_error().and_then(|error| error.code());
        if !code.is_some_and(|code| ALREADY_THERE.contains(&&*code)) {
            return Err(error);
        }
    }
    sqlx::query(FIRST_STATE).execute(connection).await?;
    Ok(())
}

/// unique_violation in the catalogue, duplicate_table, duplicate_object.
const ALREADY_THERE: &[&str] = &["23505", "42P07", "42710"];

/// A version as stored; anything that is not one counts as newer than everything.
fn known_or_newer(version: i64) -> u32 {
    u32::try_from(version).unwrap_or(u32::MAX)
}
