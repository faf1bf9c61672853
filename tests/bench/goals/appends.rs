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
    host, many_threads, one_thread,
    rate::{self, Contender, alternate},
    raw::{Connections, OneByOne},
    report::{Limit, Report, Spread, say},
};

/// Appends of one event each: through the store, as single inserts over as many connections as the store has, and as
/// single inserts of one caller.
pub(crate) fn appends(options: &Options, report: &mut Report) {
    say("G12: audit appends on PostgreSQL");
    let database = Database::create();
    let url = database.url();
    let (runtime, alone) = (many_threads(), one_thread());
    let together = Arc::new(runtime.block_on(open(url)));
    let connections = usize::try_from(Settings::default().max_connections).expect("a small number");
    let one_by_one = |runtime: &Runtime, connections| {
        let connections = runtime.block_on(Connections::open(url, connections));
        Arc::new(OneByOne::new(connections, together.clone()))
    };
    let single = one_by_one(&alone, 1);
    let pooled = one_by_one(&runtime, connections);

    let round = |runtime, store: Arc<dyn AuditStore>, callers, length| {
        // Otherwise the table grows from round to round, and more for one of them.
        query(url, "TRUNCATE outbox");
        append(runtime, store, callers, length)
    };
    let mut contenders =
        vec![Contender::new("single inserts, 1 caller", |length| round(&alone, single.clone(), 1, length))];
    for callers in CALLERS {
        let name = format!("single inserts, {callers} callers, {connections} connections");
        let one_by_one = pooled.clone();
        let (runtime, round) = (&runtime, &round);
        contenders
            .push(Contender::new(name, move |length| round(runtime, one_by_one.clone(), callers, length)));
        let together = together.clone();
        let name = format!("append, {callers} callers");
        contenders
            .push(Contender::new(name, move |length| round(runtime, together.clone(), callers, length)));
    }
    let rates = alternate(options, &contenders);
    for ((callers, least), pair) in CALLERS.into_iter().zip([6.0, 10.0]).zip(rates[1..].chunks(2)) {
        let [one_by_one, together] = pair else { continue };
        let what = format!("appends/s of {callers} callers / single inserts/s");
        report.add("G12", what, Spread::of(ratios(together, &rates[0])), Limit::AtLeast(least));
        let what = format!("the same / single inserts/s of as many callers, {connections} connections");
        report.add("G12", what, Spread::of(ratios(together, one_by_one)), Limit::None);
    }
}

/// How many callers there are.
const CALLERS: [usize; 2] = [32, 256];

fn append(runtime: &Runtime, store: Arc<dyn AuditStore>, callers: usize, length: Duration) -> rate::Rate {
    let org = OrgId::parse(host::ORG).expect("a slug");
    let agent = AgentId::generate();
    rate::measure(runtime, callers, length, move |_| {
        let (store, org) = (store.clone(), org.clone());
        async move { store.append(&org, &[token_event(agent)]).await.expect("the store answers") }
    })
}
