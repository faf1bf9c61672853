//! People on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::OrgId,
    store::{Insert, Listing, Page, StoreError, Unique, Update, UserKey, UserStore},
    user::User,
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, needle, recorded, sought, stored, text, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO users (org_id, id, number, email, name, version, record)
    VALUES ($1, $5, $6, $7, $8, $9, $10::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM users WHERE org_id = $1 AND id = $2),
    EXISTS (SELECT 1 FROM users WHERE org_id = $1 AND number = $3),
    EXISTS (SELECT 1 FROM users WHERE org_id = $1 AND email = $4)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Id, Unique::Number, Unique::Email];

const UPDATE: &str = recorded!(
    "UPDATE users SET name = $7, version = version + 1, record = $8::json
    WHERE org_id = $1 AND id = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM users WHERE org_id = $1 AND id = $2";

const FIND_BY_ID: &str = "SELECT record::text FROM users WHERE org_id = $1 AND id = $2";

const FIND_BY_NUMBER: &str = "SELECT record::text FROM users WHERE org_id = $1 AND number = $2";

const FIND_BY_EMAIL: &str = "SELECT record::text FROM users WHERE org_id = $1 AND email = $2";

const LIST: &str = listing!(
    "FROM users WHERE org_id = $1
        AND ($2::text IS NULL OR strpos(lower(email), $2) > 0 OR strpos(lower(name), $2) > 0)",
    order: "email", offset: "$3", limit: "$4"
);

#[async_trait]
impl UserStore for PostgresStore {
    async fn insert(&self, org: &OrgId, user: &User, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "users.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = stored(OPERATION, user.number.value())?;
        let version = stored(OPERATION, user.version)?;
        let record = to_json(OPERATION, user)?;
        let insert = || {
            on.statement(INSERT)
                .bind(user.id.uuid())
                .bind(number)
                .bind(text(&user.email))
                .bind(user.name.as_deref().map(text))
                .bind(version)
                .bind(record.as_str())
        };
        let taken = || {
            let statement = sqlx::query(TAKEN).bind(org.as_str());
            statement.bind(user.id.uuid()).bind(number).bind(text(&user.email))
        };
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(&self, org: &OrgId, key: UserKey<'_>) -> Result<Option<Arc<User>>, StoreError> {
        let statement = || match key {
            UserKey::Id(id) => sqlx::query(FIND_BY_ID).bind(org.as_str()).bind(id.uuid()),
            UserKey::Number(number) => {
                sqlx::query(FIND_BY_NUMBER).bind(org.as_str()).bind(sought(number.value()))
            }
            UserKey::Email(email) => sqlx::query(FIND_BY_EMAIL).bind(org.as_str()).bind(text(email)),
        };
        records::find(&self.pool, "users.find", statement).await
    }

    async fn update(&self, org: &OrgId, user: &User, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "users.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let mut next = user.clone();
        next.version = user.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || {
            let statement = on.statement(UPDATE).bind(user.id.uuid()).bind(sought(user.version));
            statement.bind(user.name.as_deref().map(text)).bind(record.as_str())
        };
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(user.id.uuid());
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn list(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, StoreError> {
        let (offset, limit) = bounds(page);
        let search = search.map(needle);
        let statement =
            || sqlx::query(LIST).bind(org.as_str()).bind(search.as_deref()).bind(offset).bind(limit);
        records::list(&self.pool, "users.list", statement).await
    }
}
