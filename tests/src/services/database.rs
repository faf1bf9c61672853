//! One database for one server under test.

use std::{env, process::Command, sync::OnceLock};

use super::{Postgres, output_of, program};
use crate::{unique, watchdog::Watchdog};

/// A new database: in the PostgreSQL that `DATABASE_URL` names, or in the private one that this process shares.
/// Dropping it drops the database, and so does the end of this process.
#[derive(Debug)]
pub struct Database {
    url: String,
    given: Option<Given>,
}

/// What somebody else's PostgreSQL must be rid of again. A private one goes as a whole.
#[derive(Debug)]
struct Given {
    admin: String,
    statement: String,
    _watchdog: Watchdog,
}

impl Database {
    /// Makes it.
    ///
    /// # Panics
    /// When PostgreSQL is not there, or refuses.
    pub fn create() -> Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        let name = unique("lumoauth_test").replace('-', "_");
        match env::var("DATABASE_URL") {
            Ok(admin) if !admin.is_empty() => {
                query(&admin, &format!("CREATE DATABASE {name}"));
                let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let watchdog = Watchdog::execute(&admin, &statement);
                let url = with_database(&admin, &name);
                Self { url, given: Some(Given { admin, statement, _watchdog: watchdog }) }
            }
            _ => Self::create_in(SHARED.get_or_init(Postgres::start)),
        }
    }

    /// Makes it in a private PostgreSQL, with which it goes.
    ///
    /// # Panics
    /// When PostgreSQL refuses.
    pub fn create_in(postgres: &Postgres) -> Self {
        let name = unique("lumoauth_test").replace('-', "_");
        query(&postgres.url("postgres"), &format!("CREATE DATABASE {name}"));
        Self { url: postgres.url(&name), given: None }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let path = self.url.rsplit('/').next().unwrap_or_default();
        path.split('?').next().unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(given) = &self.given
            && !std::thread::panicking()
        {
            query(&given.admin, &given.statement);
        }
    }
}

/// What `psql` prints for a statement on the database at `url`: a line per row, columns apart by `|`.
///
/// # Panics
/// When it fails.
pub fn query(url: &str, statement: &str) -> String {
    let mut psql = Command::new(program("psql", "postgresql-client"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, url]);
    output_of(&mut psql).trim_end().to_owned()
}

/// `url` with another database in its path; what follows a `?` stays.
fn with_database(url: &str, name: &str) -> String {
    let (base, settings) = url.split_once('?').map_or((url, None), |(base, rest)| (base, Some(rest)));
    let start = base.find("://").map_or(0, |at| at + 3);
    let server = base[start..].find('/').map_or(base, |at| &base[..start + at]);
    settings.map_or_else(|| format!("{server}/{name}"), |settings| format!("{server}/{name}?{settings}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_url_keeps_everything_but_the_database() {
        for (url, expected) in [
            ("postgres://u:p@h:1/db", "postgres://u:p@h:1/x"),
            ("postgres://h", "postgres://h/x"),
            ("postgresql://h/", "postgresql://h/x"),
            ("postgres://h/db?sslmode=disable&a=/b", "postgres://h/x?sslmode=disable&a=/b"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
