//! The macros that turn cases into tests.
//!
//! A role becomes a module of tests, and beside it a function of the same name that makes the store: in the
//! scope of the caller, where the names in `make` are known.

/// Expands to one test per case of the suite; see [`conformance`](crate::store::conformance).
///
/// `make` is called for every test as `make().await` and returns a guard and the store: `(guard, store)`.
///
/// - `store_conformance!(make)`: every case, for a backend that is a [`Store`](crate::store::Store).
/// - `store_conformance!(make; roles: budgets, grants)`: the cases of these roles only.
/// - `store_conformance!(make; recorded: grants)`: that these recorded roles write their events into the
///   backend's own audit log, which it must keep.
#[macro_export]
macro_rules! store_conformance {
    ($make:expr) => {
        $crate::store_conformance!($make; roles: aauth_resources, agents, api_keys, approvals, audit, audit_tree, budgets, clients, consents, grants, jit, keys,
            mcp_servers, organizations, policies, rate_limits, replay, upkeep, users);
        $crate::store_conformance!($make; recorded: aauth_resources, agents, api_keys, approvals, clients, consents, grants, jit, keys,
            mcp_servers, organizations, policies, users);
    };
    ($make:expr; roles: $($role:ident),+ $(,)?) => {
        $($crate::store_conformance!(@role $role $make);)+
    };
    ($make:expr; recorded: $($role:ident),+ $(,)?) => {
        async fn recorded() -> (
            impl Sized,
            impl $crate::store::AuditStore $(+ $crate::store::conformance::ports::$role)+,
        ) {
            let make = $make;
            make().await
        }
        mod recorded {
            use $crate::store::conformance::{ports, recorded};

            $(#[::tokio::test(flavor = "multi_thread")]
            async fn $role() {
                let (_guard, store) = super::recorded().await;
                let role: &dyn ports::$role = &store;
                recorded::writes_its_events(role.into(), recorded::Trail::Log(&store)).await;
            })+
        }
    };

    (@role aauth_resources $make:expr) => {
        $crate::store_conformance!(@cases aauth_resources $make;
            round_trip, one_identifier_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, removals_are_guarded, removal_frees_identifiers, racing_removals, listing);
    };
    (@role agents $make:expr) => {
        $crate::store_conformance!(@cases agents $make;
            round_trip, one_slug_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, old_api_key_is_forgotten, one_aauth_identifier_once, aauth_identifiers_follow_updates,
            removals_are_guarded, removal_frees_names, racing_removals, found_by_workload, listing);
    };
    (@role api_keys $make:expr) => {
        $crate::store_conformance!(@cases api_keys $make;
            round_trip, one_hash_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, listing);
    };
    (@role approvals $make:expr) => {
        $crate::store_conformance!(@cases approvals $make;
            round_trip, one_token_once, organizations_are_apart, decided_once, racing_approvals,
            approve_and_deny_race, expired_is_not_decided, used_once, racing_uses, ends_are_told_once, pending, so_many_wait_at_a_time);
    };
    (@role audit $make:expr) => {
        $crate::store_conformance!(@cases audit $make;
            append_is_idempotent, waits_twice_is_numbered_once, order_is_kept, racing_appends_leave_no_gap,
            waiting_organizations, numbers_have_no_gaps, long_queues, found_by_seq_and_event, pages_and_filters,
            searches_find_any_text, organizations_are_apart, stats, stats_of_any_time);
    };
    (@role audit_tree $make:expr) => {
        $crate::store_conformance!(@cases audit_tree $make;
            grows_with_the_log, racing_appends_keep_the_tree, blocks_are_roots_of_leaves,
            raw_entries_hash_to_their_leaves, checkpoints_stay_as_they_are, unsigned_logs,
            bodies_are_dropped_from_the_oldest_on, bodies_are_dropped_once);
    };
    (@role budgets $make:expr) => {
        $crate::store_conformance!(@cases budgets $make;
            never_oversells, all_lines_or_none, first_charges_at_once, repeats_by_id, racing_repeats,
            refused_ids_are_free, ids_end, ids_are_per_actor, facts_overshoot, no_wrap, usage_by_window,
            organizations_are_apart, holds_are_found, holds_are_settled, holds_end_once, holds_are_released,
            settling_overshoots, late_holds, holds_are_forgotten, parked_ids_do_not_end, parked_holds, parked_holds_expire,
            holds_of_another_window, holds_without_id, holds_are_their_makers, live_holds);
    };
    (@role clients $make:expr) => {
        $crate::store_conformance!(@cases clients $make;
            round_trip, one_client_id_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, listing);
    };
    (@role consents $make:expr) => {
        $crate::store_conformance!(@cases consents $make;
            round_trip, one_per_pair_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, listing);
    };
    (@role grants $make:expr) => {
        $crate::store_conformance!(@cases grants $make;
            revoked_once, marks_are_kept, any_of_many, tickets_round_trip, tickets_end, one_use_wins,
            reuse_marks_the_family, refresh_tokens_round_trip, one_rotation_wins, lost_races_are_forgiven,
            reuse_kills_the_family, refresh_tokens_end, organizations_are_apart);
    };
    (@role jit $make:expr) => {
        $crate::store_conformance!(@cases jit $make;
            tasks_round_trip, one_task_once, organizations_are_apart, open_tasks, closed_once,
            closed_tasks_take_nothing, closing_and_answering_race, requests_round_trip, waiting_is_bounded,
            risk_is_of_this_moment, denials_suspend, answered_once, racing_answers, expired_is_not_answered, pending,
            callbacks, callbacks_take_turns);
    };
    (@role keys $make:expr) => {
        $crate::store_conformance!(@cases keys $make;
            round_trip, one_generation_once, organizations_are_apart, removal, never_in_the_clear);
    };
    (@role mcp_servers $make:expr) => {
        $crate::store_conformance!(@cases mcp_servers $make;
            round_trip, one_target_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, removals_are_guarded, targets_follow_updates, removal_frees_targets, listing);
    };
    (@role organizations $make:expr) => {
        $crate::store_conformance!(@cases organizations $make;
            round_trip, one_id_once, updates_are_guarded, racing_updates, walk_in_order);
    };
    (@role policies $make:expr) => {
        $crate::store_conformance!(@cases policies $make;
            round_trip, expectations, all_or_none, racing_inserts, racing_updates, revisions_have_no_gaps,
            organizations_are_apart, pages, pages_and_changes_make_a_whole, changes_since, long_ago);
    };
    (@role rate_limits $make:expr) => {
        $crate::store_conformance!(@cases rate_limits $make;
            admits_exactly_max, windows_end, sources_are_apart, organizations_are_apart);
    };
    (@role replay $make:expr) => {
        $crate::store_conformance!(@cases replay $make;
            first_once, racing_firsts, ends, spaces_are_apart, organizations_are_apart);
    };
    (@role upkeep $make:expr) => {
        $crate::store_conformance!(@cases upkeep $make;
            answers, purge_keeps_what_counts);
    };
    (@role users $make:expr) => {
        $crate::store_conformance!(@cases users $make;
            round_trip, one_email_once, unique_values, organizations_are_apart, updates_are_guarded,
            racing_updates, listing);
    };

    (@cases $role:ident $make:expr; $($case:ident),+) => {
        async fn $role() -> (impl Sized, impl $crate::store::conformance::ports::$role) {
            let make = $make;
            make().await
        }
        mod $role {
            $(#[::tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let (_guard, store) = super::$role().await;
                $crate::store::conformance::$role::$case(&store).await;
            })+
        }
    };
}

/// Expands to the tests of a backend in outbox mode, whose audit log is kept elsewhere: that every recorded
/// role writes its events into the outbox, where they wait until they are done.
///
/// `make` is as for [`store_conformance!`](crate::store_conformance), with a store that is opened in outbox
/// mode and implements [`Outbox`](crate::store::Outbox).
///
/// - `outbox_conformance!(make)`: every recorded role.
/// - `outbox_conformance!(make; roles: grants, keys)`: these.
///
/// Its modules are named like those of the other macro, so it stands in a module of its own.
#[macro_export]
macro_rules! outbox_conformance {
    ($make:expr) => {
        $crate::outbox_conformance!($make; roles: aauth_resources, agents, api_keys, approvals, clients, consents, grants, jit, keys,
            mcp_servers, organizations, policies, users);
    };
    ($make:expr; roles: $($role:ident),+ $(,)?) => {
        $(async fn $role() -> (
            impl Sized,
            impl $crate::store::Outbox + $crate::store::conformance::ports::$role,
        ) {
            let make = $make;
            make().await
        }
        mod $role {
            use $crate::store::conformance::{outbox, ports, recorded};

            #[::tokio::test(flavor = "multi_thread")]
            async fn writes_its_events() {
                let (_guard, store) = super::$role().await;
                let role: &dyn ports::$role = &store;
                recorded::writes_its_events(role.into(), recorded::Trail::Outbox(&store)).await;
            }

            #[::tokio::test(flavor = "multi_thread")]
            async fn waits_until_done() {
                let (_guard, store) = super::$role().await;
                let role: &dyn ports::$role = &store;
                outbox::waits_until_done(&store, role.into()).await;
            }
        })+
    };
}

/// Expands to the tests of a [`ChangeFeed`](crate::store::ChangeFeed).
///
/// `make` is called for every test as `make().await` and returns a guard and the feeds of two servers that share a
/// store: `(guard, one, other)`, both `Arc<dyn ChangeFeed>`. Other tests may publish there at the same time.
#[macro_export]
macro_rules! change_feed_conformance {
    ($make:expr) => {
        $crate::change_feed_conformance!(@cases changes $make;
            begins_with_a_gap, every_server_hears, order_is_kept);
    };
    (@cases $role:ident $make:expr; $($case:ident),+) => {
        async fn $role() -> (
            impl Sized,
            ::std::sync::Arc<dyn $crate::store::ChangeFeed>,
            ::std::sync::Arc<dyn $crate::store::ChangeFeed>,
        ) {
            let make = $make;
            make().await
        }
        mod $role {
            $(#[::tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let (_guard, one, other) = super::$role().await;
                $crate::store::conformance::$role::$case([&*one, &*other]).await;
            })+
        }
    };
}
