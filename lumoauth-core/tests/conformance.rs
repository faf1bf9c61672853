//! The behaviour suite on the memory store, in both of its modes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lumoauth_core::store::MemoryStore;

lumoauth_core::store_conformance!(async || ((), MemoryStore::new()));

mod outbox {
    use super::*;

    lumoauth_core::outbox_conformance!(async || ((), MemoryStore::with_outbox()));
}

mod modes {
    use std::sync::Arc;

    use lumoauth_core::{
        id::OrgId,
        keys::{KeyRing, KeyRingConfig, MasterKey},
        organization::Organization,
        server::AuthorizationServer,
        store::{
            AuditFilter, AuditKey, AuditStore, Insert, MemoryStore, OrganizationStore, Outbox, Page,
            StoreErrorKind, Stores,
            conformance::{now, some_event, some_org},
        },
    };

    async fn one_change(store: &MemoryStore, org: &OrgId) {
        let organization = Organization::new(org.clone(), "Acme", now());
        assert_eq!(
            OrganizationStore::insert(store, &organization, &some_event()).await.unwrap(),
            Insert::Inserted
        );
    }

    async fn logged(store: &MemoryStore, org: &OrgId) -> u64 {
        store.page(org, &AuditFilter::default(), Page::first(9)).await.unwrap().total
    }

    fn server(stores: Stores) -> AuthorizationServer {
        let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
        AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap()
    }

    #[tokio::test]
    async fn a_store_with_its_own_log_has_nothing_to_move() {
        let (store, org) = (MemoryStore::new(), some_org());
        one_change(&store, &org).await;
        store.append(&org, &[some_event()]).await.unwrap();
        assert!(store.pending(9).await.unwrap().is_empty());
        assert_eq!(logged(&store, &org).await, 2);
    }

    #[tokio::test]
    async fn a_store_in_outbox_mode_keeps_no_log() {
        let (store, org) = (MemoryStore::with_outbox(), some_org());
        one_change(&store, &org).await;
        let refused = store.append(&org, &[some_event()]).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Other);
        assert_eq!(store.pending(9).await.unwrap().len(), 1);
        assert_eq!(logged(&store, &org).await, 0);
    }

    #[tokio::test]
    async fn events_are_moved_to_a_log_elsewhere() {
        let (records, log) = (Arc::new(MemoryStore::with_outbox()), Arc::new(MemoryStore::new()));
        let stores = Stores {
            audit: log.clone(),
            outboxes: vec![records.clone()],
            upkeep: vec![records.clone(), log.clone()],
            ..Stores::all(records.clone())
        };
        let server = server(stores);
        let orgs = [some_org(), some_org()];
        for org in &orgs {
            one_change(&records, org).await;
        }
        let waiting = records.pending(9).await.unwrap();
        server.maintain_once().await.unwrap();
        assert!(records.pending(9).await.unwrap().is_empty());
        for org in &orgs {
            // Making keys is recorded as well.
            let total = logged(&log, org).await;
            let first = AuditStore::find(&*log, org, AuditKey::Seq(1)).await.unwrap().unwrap();
            assert!(waiting.contains(&(org.clone(), first.event)));
            server.maintain_once().await.unwrap();
            assert_eq!(logged(&log, org).await, total);
        }
    }

    #[tokio::test]
    async fn an_outbox_in_the_place_of_the_log_loses_nothing() {
        let (store, org) = (Arc::new(MemoryStore::with_outbox()), some_org());
        let server = server(Stores { outboxes: vec![store.clone()], ..Stores::all(store.clone()) });
        one_change(&store, &org).await;
        let event = store.pending(9).await.unwrap().remove(0);
        server.maintain_once().await.unwrap_err();
        assert_eq!(store.pending(9).await.unwrap()[0], event);
    }
}

/// The suite overlaps calls wherever a backend waits, and the memory store never does. So here with threads.
mod threads {
    use std::sync::Arc;

    use lumoauth_core::{
        agent::Agent,
        audit::{Actor, Event, EventKind, Target},
        budget::{Account, BudgetPolicy, Standing, Usage, account_lines},
        id::{AgentId, Slug},
        store::{
            AgentKey, AgentStore, AuditFilter, AuditStore, BudgetStore, Charge, Charged, Insert, MemoryStore,
            Page,
            conformance::{now, some_org},
        },
    };

    const THREADS: usize = 8;
    const CALLS: usize = 500;

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn charges_from_many_threads_stop_exactly_at_the_limit() {
        let (store, org, owner) = (Arc::new(MemoryStore::new()), some_org(), AgentId::generate());
        let limit = THREADS * CALLS / 2;
        let mut policy = BudgetPolicy::default();
        policy.max_api_calls_per_hour = u64::try_from(limit).ok();
        let account = Account::agent(owner, 0);
        let lines: Arc<[_]> =
            account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, now()).into();

        let tasks: Vec<_> = (0..THREADS)
            .map(|_| {
                let (store, org, lines) = (store.clone(), org.clone(), lines.clone());
                tokio::spawn(async move {
                    let mut charged = 0;
                    for _ in 0..CALLS {
                        let outcome = store.charge(&org, &Charge::once(&lines), now()).await.unwrap();
                        charged += usize::from(matches!(outcome, Charged::Charged(_)));
                    }
                    charged
                })
            })
            .collect();
        let mut charged = 0;
        for task in tasks {
            charged += task.await.unwrap();
        }

        assert_eq!(charged, limit);
        assert_eq!(store.usage(&org, account, now()).await.unwrap().calls, u64::try_from(limit).unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn whoever_sees_the_event_sees_the_change_and_the_other_way_round() {
        let (store, org) = (Arc::new(MemoryStore::new()), some_org());
        let created = |agent: &Agent| {
            Event::new(EventKind::AgentCreated, Actor::system(), "created", now())
                .on(Target::new("agent", agent.id.to_string()))
        };
        let writer = {
            let (store, org) = (store.clone(), org.clone());
            tokio::spawn(async move {
                for n in 0..CALLS {
                    let agent = Agent::new("Agent", Slug::parse(&format!("a{n}")).unwrap(), now());
                    let on = created(&agent);
                    let outcome = AgentStore::insert(&*store, &org, &agent, &on).await.unwrap();
                    assert_eq!(outcome, Insert::Inserted);
                }
            })
        };

        let newest = async || {
            let page = store.page(&org, &AuditFilter::default(), Page::first(1)).await.unwrap();
            (page.total, page.items.into_iter().next())
        };
        let mut seen = 0;
        while seen < u64::try_from(CALLS).unwrap() {
            let (total, entry) = newest().await;
            seen = total;
            if let Some(target) = entry.and_then(|entry| entry.event.target) {
                let id = AgentId::parse(&target.id).unwrap();
                assert!(AgentStore::find(&*store, &org, AgentKey::Id(id)).await.unwrap().is_some());
            }
            let next = Slug::parse(&format!("a{seen}")).unwrap();
            if AgentStore::find(&*store, &org, AgentKey::Slug(&next)).await.unwrap().is_some() {
                assert!(newest().await.0 > seen);
            }
        }
        writer.await.unwrap();
    }
}

/// A sentence of a port without a case is a bug of the suite, and so is a case that nobody runs.
mod complete {
    const MACROS: &str = include_str!("../src/store/conformance/macros.rs");

    macro_rules! roles {
        ($($role:literal),+) => {
            [$((
                $role,
                include_str!(concat!("../src/store/", $role, ".rs")),
                include_str!(concat!("../src/store/conformance/", $role, ".rs")),
            )),+,
            // Methods of the port of the audit log, with a file of cases of their own.
            (
                "audit_tree",
                include_str!("../src/store/audit.rs"),
                include_str!("../src/store/conformance/audit_tree.rs"),
            )]
        };
    }

    const ROLES: [(&str, &str, &str); 20] = roles!(
        "aauth_resources",
        "agents",
        "api_keys",
        "approvals",
        "audit",
        "budgets",
        "changes",
        "clients",
        "consents",
        "grants",
        "jit",
        "keys",
        "mcp_servers",
        "organizations",
        "policies",
        "rate_limits",
        "replay",
        "upkeep",
        "users"
    );

    /// The cases of a file of the suite: what takes a store, or two feeds, and nothing else.
    fn cases(source: &'static str) -> Vec<&'static str> {
        source
            .split("\npub async fn ")
            .skip(1)
            .filter_map(|function| {
                function.split_once("(store: &dyn ").or_else(|| function.split_once("(feeds: [&dyn "))
            })
            .filter(|(name, rest)| {
                !name.contains('(') && rest.split(['{', ',']).next().unwrap().contains(')')
            })
            .map(|(name, _)| name)
            .collect()
    }

    /// The cases of a role. Those of budgets are in two files.
    fn all_cases(role: &str, suite: &'static str) -> Vec<&'static str> {
        let mut all = cases(suite);
        if role == "budgets" {
            all.extend(cases(include_str!("../src/store/conformance/holds.rs")));
        }
        if role == "jit" {
            all.extend(cases(include_str!("../src/store/conformance/jit/turns.rs")));
        }
        all
    }

    /// What the documentation says is checked by what: paths below `conformance`. One without a module is of that of the path
    /// before it in its sentence, if there is one.
    fn named(source: &str) -> Vec<String> {
        let docs: Vec<_> =
            source.lines().filter_map(|line| line.trim().strip_prefix("///")).map(str::trim).collect();
        let docs = docs.join(" ").replace("Checked by", "checked by");
        docs.split("checked by ")
            .skip(1)
            .flat_map(|text| {
                let paths = text.split(['.', '#']).next().unwrap().split('`').skip(1).step_by(2);
                let mut module = None;
                paths.map(move |path| match (path.rsplit_once("::"), module) {
                    (Some((own, _)), _) => {
                        module = Some(own);
                        path.to_owned()
                    }
                    (None, Some(module)) => format!("{module}::{path}"),
                    (None, None) => path.to_owned(),
                })
            })
            .collect()
    }

    #[test]
    fn every_case_that_a_port_names_exists_and_every_case_is_named() {
        for (role, port, suite) in ROLES {
            let suite = all_cases(role, suite);
            let named = named(port);
            let own = |path: &str| match path.strip_prefix("conformance::").and_then(|p| p.split_once("::")) {
                Some((of, case)) => (of == role).then(|| case.to_owned()),
                None => Some(path.to_owned()),
            };
            let mut named: Vec<_> = named.iter().filter_map(|path| own(path)).collect();
            named.sort();
            named.dedup();
            let mut suite: Vec<_> = suite.into_iter().map(str::to_owned).collect();
            suite.sort();
            assert_eq!(named, suite, "{role}");
        }
    }

    #[test]
    fn every_case_is_run_by_the_macro() {
        for (role, _, suite) in ROLES {
            let (_, rule) = MACROS
                .split_once(&format!("(@role {role} "))
                .or_else(|| MACROS.split_once(&format!("!(@cases {role} ")))
                .unwrap();
            let (_, list) = rule.split_once("$make;").unwrap();
            let mut run: Vec<_> = list.split(')').next().unwrap().split(',').map(str::trim).collect();
            run.sort_unstable();
            let mut suite = all_cases(role, suite);
            suite.sort_unstable();
            assert_eq!(run, suite, "{role}");
        }
    }
}
