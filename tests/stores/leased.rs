//! Leased budgets over stores that outlive their process.

use std::sync::Arc;

use lumoauth_core::store::{BudgetStore, LeasedBudgets};

/// Leases as of `count` processes, each over the store that `durable` opens.
async fn leases<S: BudgetStore>(count: usize, durable: impl AsyncFn() -> Arc<S>) -> Vec<Arc<LeasedBudgets>> {
    let mut processes = Vec::new();
    for _ in 0..count {
        processes.push(Arc::new(LeasedBudgets::new(durable().await, LeasedBudgets::SLICE)));
    }
    processes
}

mod over_postgres {
    use super::{Arc, LeasedBudgets};
    use crate::postgres::{store_at, url};

    async fn make() -> ((), LeasedBudgets) {
        let durable = Arc::new(store_at(url().await).await);
        ((), LeasedBudgets::new(durable, LeasedBudgets::SLICE))
    }

    lumoauth_core::store_conformance!(make; roles: budgets);

    mod races {
        use super::{Arc, LeasedBudgets, store_at, url};

        /// As of `count` processes, with connections of their own.
        async fn leases(count: usize) -> Vec<Arc<LeasedBudgets>> {
            super::super::leases(count, async || Arc::new(store_at(url().await).await)).await
        }

        async fn two() -> ((), [Arc<LeasedBudgets>; 2]) {
            ((), leases(2).await.try_into().unwrap())
        }

        async fn four() -> ((), Vec<Arc<LeasedBudgets>>) {
            ((), leases(4).await)
        }

        crate::races::races!(two; hot: budgets_limit, budgets_chain, budgets_id, budgets_settle, budgets_unpark,
            budgets_hold);
        crate::races::races!(four; caps);
        crate::races::races!(four; edges);
    }
}

mod over_embedded {
    use super::{Arc, LeasedBudgets};
    use crate::embedded::{self, Folder};

    async fn make() -> (Folder, LeasedBudgets) {
        let (folder, durable) = embedded::make().await;
        (folder, LeasedBudgets::new(Arc::new(durable), LeasedBudgets::SLICE))
    }

    lumoauth_core::store_conformance!(make; roles: budgets);

    mod races {
        use super::{Arc, Folder, LeasedBudgets, embedded};

        /// The file has one owner, so the leases share it.
        async fn four() -> (Folder, Vec<Arc<LeasedBudgets>>) {
            let (folder, durable) = embedded::make().await;
            let durable = Arc::new(durable);
            (folder, super::super::leases(4, async || durable.clone()).await)
        }

        crate::races::races!(four; caps);
        crate::races::races!(four; edges);
    }
}
