//! Starts what the tests in other languages need, prints it as `NAME=VALUE` lines, and lives until its standard
//! input ends.

use std::io::{self, Read, Write};

use lumoauth_tests::services::{Database, redis_url};

fn main() -> io::Result<()> {
    // A database for each of the two configurations that run on PostgreSQL.
    let (alone, with_redis) = (Database::create(), Database::create());
    let mut out = io::stdout().lock();
    writeln!(out, "postgres={}", alone.url())?;
    writeln!(out, "postgres+redis={}+{}", with_redis.url(), redis_url())?;
    writeln!(out, "end=")?;
    out.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
