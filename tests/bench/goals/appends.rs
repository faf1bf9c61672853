//! G12: audit appends on PostgreSQL, committed together, against one row per commit.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    id::{AgentId, OrgId},
    store::AuditStore,
};
use lumoauth_store_postgres::Settings;
use lumoauth_tests::services::{Database, query};
use tokio::runtime::Runtime;

use crate::{
    Options,
    goals::{charges::open, ratios, token_event},
    host, many_threads,
    rate::{self, Contender, alternate},
    raw::{Connections, OneByOne},
    report::{Limit, Report, Spread, say},
};

/// Appends of one event each, through the store, and as single inserts over as many connections as the store has.
pub(crate) fn appends(options: &Options, report: &mut Report) {
    say("G12: audit appends on PostgreSQL");
    let database = Database::create();
    let runtime = many_threads();
    let together = Arc::new(runtime.block_on(open(database.url())));
    let connections = usize::try_from(Settings::default().max_connections).expect("a small number");
    let single = runtime.block_on(Connections::open(database.url(), connections));
    let one_by_one = Arc::new(OneByOne::new(single, together.clone()));

    for (callers, least) in [(32, 6.0), (256, 10.0)] {
        let round = |store: Arc<dyn AuditStore>, length| {
            // Otherwise the table grows from round to round, and more for one of them.
            query(database.url(), "TRUNCATE outbox");
            append(&runtime, &store, callers, length)
        };
        let contenders = [
            Contender::new(
                format!("single inserts, {callers} callers, {connections} connections"),
                |length| round(one_by_one.clone(), length),
            ),
            Contender::new(format!("append, {callers} callers"), |length| round(together.clone(), length)),
        ];
        let rates = alternate(options, &contenders);
        let what = format!("appends/s of {callers} callers / single inserts/s");
        report.add("G12", what, Spread::of(ratios(&rates[1], &rates[0])), Limit::AtLeast(least));
    }
}

fn append(runtime: &Runtime, store: &Arc<dyn AuditStore>, callers: usize, length: Duration) -> rate::Rate {
    let org = OrgId::parse(host::ORG).expect("a slug");
    let agent = AgentId::generate();
    let store = store.clone();
    rate::measure(runtime, callers, length, move |_| {
        let (store, org) = (store.clone(), org.clone());
        async move { store.append(&org, &[token_event(agent)]).await.expect("the store answers") }
    })
}
