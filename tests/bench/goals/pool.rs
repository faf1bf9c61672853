//! G8: charges to the shared budget pool in Redis against a bare counter in it.

use std::{sync::Arc, time::Duration};

use lumoauth_store_redis::{RedisBudgets, RedisStore, Settings};
use lumoauth_tests::services::{Database, redis_url};
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;

use crate::{
    Options,
    goals::{
        charges::{Charges, Id, open},
        ratios,
    },
    many_threads,
    rate::{self, Contender, Rate, alternate},
    report::{Limit, Report, Spread, say},
};

/// Charges of three meters to one agent and to a hundred, whose pools have enough, against a script that counts one.
pub(crate) fn pool(options: &Options, report: &mut Report) {
    // The pool then has a slice of a hundred times this.
    const ENOUGH: u64 = 10_000_000;
    say("G8: budget charges in Redis");
    let database = Database::create();
    let url = redis_url();
    let runtime = many_threads();
    let durable = Arc::new(runtime.block_on(open(database.url())));
    let redis = runtime.block_on(RedisStore::connect(&url, Settings::default())).expect("Redis answers");
    let budgets = Arc::new(RedisBudgets::new(&redis, durable));
    let warm = Charges::new(&runtime, budgets.clone(), 1);
    let many = Charges::new(&runtime, budgets, AGENTS);
    warm.warm_up(ENOUGH);
    many.warm_up(ENOUGH);
    let counter = runtime.block_on(Counter::open(&url));
    for callers in [32, 128] {
        let contenders = [
            Contender::new(format!("bare EVALSHA, one counter, {callers} in flight"), |length| {
                counter.round(&runtime, callers, length)
            }),
            Contender::new(format!("charge, three meters, {callers} in flight"), |length| {
                warm.round(callers, length, Id::None)
            }),
            Contender::new(format!("charge with id, three meters, {callers} in flight"), |length| {
                warm.round(callers, length, Id::Fresh)
            }),
            Contender::new(format!("charge, three meters, {AGENTS} agents, {callers} in flight"), |length| {
                many.round(callers, length, Id::None)
            }),
        ];
        let rates = alternate(options, &contenders);
        let mut compare = |what, of: usize, limit| {
            let what = format!("{what}/s / bare scripts/s, {callers} in flight");
            report.add("G8", what, Spread::of(ratios(&rates[of], &rates[0])), limit);
        };
        compare("charges", 1, Limit::AtLeast(0.70));
        compare("charges with ids", 2, Limit::None);
        compare("charges to 100 agents", 3, Limit::None);
    }
}

/// How many agents share the charges where it is not one. What charges of one agent may share, these cannot.
const AGENTS: usize = 100;

/// A counter with a maximum, and nothing else.
struct Counter {
    connection: ConnectionManager,
    sha: String,
}

impl Counter {
    async fn open(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_connection_manager().await.expect("Redis answers");
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await;
        Self { connection, sha: load.expect("Redis takes the script") }
    }

    fn round(&self, runtime: &Runtime, callers: usize, length: Duration) -> Rate {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(1).arg("raw").arg(1).arg(1_u64 << 53);
        let (connection, command) = (self.connection.clone(), Arc::new(command));
        rate::measure(runtime, callers, length, move |_| {
            let (mut connection, command) = (connection.clone(), command.clone());
            async move {
                let used: i64 = command.query_async(&mut connection).await.expect("Redis answers");
                assert!(used > 0);
            }
        })
    }
}

/// KEYS the counter; ARGV the amount, the maximum.
const SCRIPT: &str = "\
    local used = tonumber(redis.call('GET', KEYS[1]) or '0') \
    if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return -1 end \
    return redis.call('INCRBY', KEYS[1], ARGV[1])";
